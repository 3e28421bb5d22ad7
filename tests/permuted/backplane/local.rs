//! The threads of `src/backplane/local`, the sequencer and the disk, with a log that only grows, and with a file that the
//! permuter breaks.

mod log;
mod store;
#[path = "../../../src/backplane/local/disk.rs"]
mod disk;
#[path = "../../../src/backplane/local/sequencer.rs"]
mod sequencer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use self::disk::Disk;
use self::log::Logs;
use self::sequencer::{Job, Sequencer, Waiting};
use self::store::Store;
pub use self::store::{File, PathBuf};
use super::backlog::Backlog;
use super::roster::Roster;
use super::{BackplaneError, Ban, Banned, Draft, Receipt};
use crate::hub::Hub;
use crate::message::{Notice, PresenceChange, RoomName};
use crate::threads::lock;

/// As in `src/backplane/local/mod.rs`, without webhooks.
struct Shared {
    hub: Arc<Hub>,
    logs: Mutex<Logs>,
    roster: Mutex<Roster>,
    bans: Mutex<BTreeMap<Banned, Ban>>,
    in_flight: AtomicUsize,
    backlog: Backlog,
    jobs: Sender<Job>,
    disk: Option<Disk>,
}

impl Shared {
    fn announce(&self, change: Option<(RoomName, PresenceChange)>) {
        if let Some((room, change)) = change {
            let notice = Waiting::Notice(room, Notice::Presence(change));
            let _ = self.jobs.send(Job::Do(notice));
        }
    }
}

/// The embedded backplane, on a disk.
pub struct Local {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Local {
    pub fn start(hub: &Arc<Hub>, path: &PathBuf) -> Self {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let committed = jobs.clone();
        let on_committed = move |batch, is_stored| {
            let _ = committed.send(Job::Committed(batch, is_stored));
        };
        let disk = Disk::start(Store::open(path), File, Box::new(on_committed));
        let shared = Arc::new(Shared {
            hub: Arc::clone(hub),
            logs: Mutex::default(),
            roster: Mutex::new(Roster::new(Duration::ZERO)),
            bans: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            backlog: Backlog::default(),
            jobs,
            disk: Some(disk.expect("a thread")),
        });
        let sequencer = Sequencer::new(&shared);
        let run = move || sequencer.run(&queue);
        let thread = crate::threads::spawn_vital("backplane", run).expect("a thread");
        let thread = Mutex::new(Some(thread));
        Self { shared, thread }
    }

    pub fn publish(&self, draft: Draft, receipt: Receipt) {
        if self.shared.disk.as_ref().and_then(Disk::trouble).is_some() {
            return receipt(Err(BackplaneError::DiskUnavailable));
        }
        let place = self.shared.backlog.admit(&draft).expect("little waits");
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let message = Waiting::Message(draft, receipt, place, Instant::now());
        let _ = self.shared.jobs.send(Job::Do(message));
    }

    /// Tells what becomes of it.
    pub fn set_ban(&self, banned: &Banned, ban: &Ban) -> Receiver<Result<(), BackplaneError>> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let ban = Waiting::Ban((banned.clone(), Some(ban.clone())), tell);
        let _ = self.shared.jobs.send(Job::Do(ban));
        told
    }

    pub fn is_banned(&self, banned: &Banned) -> bool {
        lock(&self.shared.bans).contains_key(banned)
    }

    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// All that the logs have, in its order.
    pub fn texts(&self) -> Vec<String> {
        lock(&self.shared.logs).texts()
    }

    pub fn close(&self) {
        let _ = self.shared.jobs.send(Job::Stop);
        let thread = lock(&self.thread).take().expect("it is closed once");
        thread.join().expect("it does not panic");
        self.shared.disk.iter().for_each(Disk::close);
    }
}
