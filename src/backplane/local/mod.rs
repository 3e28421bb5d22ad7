//! The embedded backplane: one instance. The same log, limits and chain as in Redis, in memory ([`log`]), and with
//! `--data` on disk as well ([`disk`], [`store`]).
//!
//! One thread puts all messages in order ([`sequencer`]).

mod log;
mod store;
mod disk;
mod sequencer;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use self::disk::Disk;
use self::log::Logs;
use self::sequencer::{Job, Sequencer, Waiting};
use self::store::Store;
pub use self::store::StoreError;
use super::backlog::Backlog;
use super::roster::Roster;
use super::{
    ANSWER_WITHIN, Backplane, BackplaneError, Ban, Banned, Departure, Draft, Entrance, Excerpt,
    MOST_LISTED, Receipt, Retention, ShardState,
};
use crate::hub::{Hub, Order};
use crate::message::{Entry, MessageId, Notice, PresenceChange, RoomName, UserName};
use crate::protocol::{Cursor, ListedRoom};
use crate::threads;
use crate::threads::lock;

/// Why the embedded backplane does not start.
#[derive(Debug)]
pub enum LocalError {
    /// The data cannot be used. The operator acts next.
    Store(StoreError),
    /// The system gives no thread.
    Thread(io::Error),
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for LocalError {}

/// The state that the threads and the callers share. No lock is held during a delivery.
struct Shared {
    hub: Arc<Hub>,
    logs: Mutex<Logs>,
    roster: Mutex<Roster>,
    bans: Mutex<BTreeMap<Banned, Ban>>,
    webhooks: Mutex<BTreeMap<String, MessageId>>,
    in_flight: AtomicUsize,
    /// The first id that could be of this process, or of its data.
    began: MessageId,
    backlog: Backlog,
    jobs: Sender<Job>,
    /// `None`: all is in memory.
    disk: Option<Disk>,
}

/// The embedded backplane.
pub struct Local {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Local {
    /// Whether there are messages in this folder, or may be.
    pub fn is_in(folder: &Path) -> bool {
        Store::is_in(folder)
    }

    /// Starts its threads. Deliveries go to `hub`. What is said is kept in the folder `data`; without one, it ends
    /// with the process.
    pub fn start(
        hub: Arc<Hub>,
        retention: Retention,
        data: Option<&Path>,
    ) -> Result<Self, LocalError> {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let roster = Roster::new(retention.presence_grace);
        let mut logs = Logs::new(retention);
        let mut began = log::now_as_id();
        let mut bans = BTreeMap::new();
        let mut webhooks = BTreeMap::new();
        let mut disk = None;
        if let Some(folder) = data {
            let (store, folder) = Store::open(folder).map_err(LocalError::Store)?;
            let loaded = store.load(&mut logs, Instant::now());
            loaded.map_err(LocalError::Store)?;
            began = store.began();
            bans = store.bans().map_err(LocalError::Store)?;
            webhooks = store.webhooks().map_err(LocalError::Store)?;
            let jobs = jobs.clone();
            let on_committed = move |batch, is_stored| {
                // The thread stops only once the disk has answered, or is given up.
                let _ = jobs.send(Job::Committed(batch, is_stored));
            };
            let started = Disk::start(store, folder, Box::new(on_committed));
            disk = Some(started.map_err(LocalError::Thread)?);
        }
        let shared = Shared {
            hub,
            logs: Mutex::new(logs),
            roster: Mutex::new(roster),
            bans: Mutex::new(bans),
            webhooks: Mutex::new(webhooks),
            in_flight: AtomicUsize::new(0),
            began,
            backlog: Backlog::default(),
            jobs,
            disk,
        };
        Self::run(shared, queue).map_err(LocalError::Thread)
    }

    fn run(shared: Shared, queue: Receiver<Job>) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let sequencer = Sequencer::new(&shared);
        let thread = threads::spawn_vital("backplane", move || sequencer.run(&queue))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn submit(&self, job: Waiting) {
        // The thread stops only after `close`, when nobody is connected any more.
        let _ = self.shared.jobs.send(Job::Do(job));
    }
}

impl Shared {
    /// Queues the notice of a change. The caller holds the roster's lock, so that notices keep the
    /// roster's order.
    fn announce(&self, change: Option<(RoomName, PresenceChange)>) {
        if let Some((room, change)) = change {
            // The thread stops only after `close`, when nobody is connected any more.
            let notice = Waiting::Notice(room, Notice::Presence(change));
            let _ = self.jobs.send(Job::Do(notice));
        }
    }
}

impl Backplane for Local {
    fn publish(&self, draft: Draft, receipt: Receipt) {
        if self.shared.disk.as_ref().and_then(Disk::trouble).is_some() {
            return receipt(Err(BackplaneError::DiskUnavailable));
        }
        let Some(place) = self.shared.backlog.admit(&draft) else {
            return receipt(Err(BackplaneError::Overloaded));
        };
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        self.submit(Waiting::Message(draft, receipt, place, Instant::now()));
    }

    fn subscribe(&self, _room: &RoomName) -> Result<(), BackplaneError> {
        // Everything is delivered to the hub anyway.
        Ok(())
    }

    fn unsubscribe(&self, _room: &RoomName) {}

    fn read(&self, room: &RoomName, page: Cursor, limit: usize) -> Result<Excerpt, BackplaneError> {
        Ok(lock(&self.shared.logs).excerpt(room, page, limit))
    }

    fn listed(&self) -> Result<Vec<RoomName>, BackplaneError> {
        let here: Vec<_> = lock(&self.shared.roster).rooms().cloned().collect();
        let mut rooms: Vec<_> = {
            let logs = lock(&self.shared.logs);
            let all = here.iter().chain(logs.with_messages());
            all.map(|room| (Reverse(logs.tail(room)), room.clone()))
                .collect()
        };
        // Without the lock, for there may be many.
        rooms.sort_unstable();
        rooms.dedup();
        rooms.truncate(MOST_LISTED);
        Ok(rooms.into_iter().map(|(_, room)| room).collect())
    }

    fn describe(&self, rooms: &[RoomName]) -> Result<Vec<ListedRoom>, BackplaneError> {
        let members: Vec<_> = {
            let roster = lock(&self.shared.roster);
            rooms.iter().map(|room| roster.count(room)).collect()
        };
        let logs = lock(&self.shared.logs);
        let there = rooms.iter().zip(members);
        let there = there.filter(|(room, members)| *members > 0 || logs.has_messages(room));
        let described = there.map(|(room, members)| ListedRoom {
            room: room.clone(),
            members,
            at: logs.tail(room).map(|id| id.millis),
        });
        Ok(described.collect())
    }

    fn rooms(&self) -> Result<Vec<RoomName>, BackplaneError> {
        let mut rooms: Vec<_> = lock(&self.shared.logs).with_messages().cloned().collect();
        rooms.sort_unstable();
        Ok(rooms)
    }

    fn restore(&self, room: &RoomName, entries: &[Entry]) -> Result<(), BackplaneError> {
        let (tell, told) = crossbeam_channel::bounded(1);
        self.submit(Waiting::Past(room.clone(), entries.to_vec(), tell));
        let answer = told.recv_timeout(ANSWER_WITHIN);
        answer.unwrap_or(Err(BackplaneError::DiskSilent))
    }

    fn began_after(&self, id: MessageId) -> bool {
        id < self.shared.began
    }

    fn enter(
        &self,
        room: &RoomName,
        user: Option<&UserName>,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        let members = {
            let mut roster = lock(&self.shared.roster);
            let change = user.and_then(|user| roster.arrive(room, user));
            self.shared.announce(change);
            roster.members(room)
        };
        let logs = lock(&self.shared.logs);
        Ok(Entrance {
            tail: logs.tail(room),
            past: past.map_or_else(Excerpt::default, |(page, limit)| {
                logs.excerpt(room, page, limit)
            }),
            members,
        })
    }

    fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        let mut roster = lock(&self.shared.roster);
        let change = roster.depart(room, user, departure, Instant::now());
        self.shared.announce(change);
    }

    fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError> {
        Ok(lock(&self.shared.roster).members(room).users)
    }

    fn typing(&self, room: &RoomName, user: &UserName) {
        self.submit(Waiting::Notice(room.clone(), Notice::Typing(user.clone())));
    }

    fn order(&self, order: &Order) -> Result<(), BackplaneError> {
        self.shared.hub.order(order.clone());
        Ok(())
    }

    fn set_ban(&self, banned: &Banned, ban: Option<&Ban>) -> Result<(), BackplaneError> {
        let (tell, told) = crossbeam_channel::bounded(1);
        self.submit(Waiting::Ban((banned.clone(), ban.cloned()), tell));
        let answer = told.recv_timeout(ANSWER_WITHIN);
        answer.unwrap_or(Err(BackplaneError::DiskSilent))
    }

    fn bans(&self) -> Result<BTreeMap<Banned, Ban>, BackplaneError> {
        Ok(lock(&self.shared.bans).clone())
    }

    /// This instance has all leases.
    fn lease(
        &self,
        room: &RoomName,
        webhook: &str,
        posted: Option<MessageId>,
        _lasts: Duration,
    ) -> Result<Option<MessageId>, BackplaneError> {
        let key = format!("{webhook} {room}");
        let known = lock(&self.shared.webhooks).get(&key).copied();
        let newest = || lock(&self.shared.logs).tail(room);
        let last = known.max(posted).or_else(newest);
        let last = last.unwrap_or(MessageId::ZERO);
        if known != Some(last) {
            lock(&self.shared.webhooks).insert(key.clone(), last);
            self.submit(Waiting::Posted(key, last));
        }
        Ok(Some(last))
    }

    fn shards(&self) -> Vec<ShardState> {
        let disk = self.shared.disk.iter();
        disk.map(|disk| disk.state(self.in_flight())).collect()
    }

    fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    fn close(&self) {
        let _ = self.shared.jobs.send(Job::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
        if let Some(disk) = &self.shared.disk {
            disk.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::Stored;
    use crate::message::InstanceId;
    use crossbeam_channel::bounded;

    fn say(local: &Local, text: &str) -> Receiver<Result<Stored, BackplaneError>> {
        let (tell, told) = bounded(1);
        let draft = Draft {
            room: RoomName::lobby(),
            from: "alice".parse().expect("a name"),
            text: text.to_owned(),
            reference: None,
            via: None,
        };
        let receipt = Box::new(move |outcome| {
            let _ = tell.send(outcome);
        });
        local.publish(draft, receipt);
        told
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_nobody_and_what_it_has_is_delivered_late() {
        let folder = std::env::temp_dir().join(format!("hubbub-slow-{}", std::process::id()));
        let hub = Arc::new(Hub::start(InstanceId::random(), 1).expect("a thread"));
        let retention = Retention {
            history_length: 10,
            // Longer than any real disk takes for a commit.
            history_ttl: Duration::from_secs(86_400),
            history_bytes: 1 << 20,
            presence_ttl: Duration::from_secs(30),
            presence_grace: Duration::ZERO,
        };
        let (jobs, queue) = crossbeam_channel::unbounded();
        // The disk's answers wait here.
        let (answers, may_pass) = bounded::<()>(0);
        let on_committed = {
            let jobs = jobs.clone();
            move |batch, is_stored| {
                let _ = may_pass.recv();
                let _ = jobs.send(Job::Committed(batch, is_stored));
            }
        };
        let (store, lock) = Store::open(&folder).expect("a store");
        let disk = Disk::start(store, lock, Box::new(on_committed)).expect("a thread");
        let shared = Shared {
            hub,
            roster: Mutex::new(Roster::new(Duration::ZERO)),
            logs: Mutex::new(Logs::new(retention)),
            bans: Mutex::default(),
            webhooks: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            began: log::now_as_id(),
            backlog: Backlog::default(),
            jobs,
            disk: Some(disk),
        };
        let local = Local::run(shared, queue).expect("a thread");
        assert!(!local.began_after(local.shared.began));
        let (first, second) = (say(&local, "first"), say(&local, "second"));
        assert_eq!(local.in_flight(), 2);
        let silent = first.recv_timeout(ANSWER_WITHIN).expect("an answer");
        assert_eq!(silent, Err(BackplaneError::DiskSilent));
        let waited = second.recv_timeout(ANSWER_WITHIN).expect("an answer");
        assert!(waited.is_err_and(|error| error.is_passing()));
        let refused = say(&local, "third").try_recv().expect("an answer at once");
        assert_eq!(refused, Err(BackplaneError::DiskUnavailable));
        assert!(local.shards()[0].trouble.is_some());
        drop(answers);
        while local.shards()[0].trouble.is_some() {
            std::thread::yield_now();
        }
        let fourth = say(&local, "fourth").recv_timeout(ANSWER_WITHIN);
        assert!(fourth.expect("an answer").is_ok());
        let lobby = RoomName::lobby();
        let read = local.read(&lobby, Cursor::Newest, 9).expect("a page");
        let texts = read.entries.iter().map(|entry| entry.message.text.as_str());
        let texts: Vec<_> = texts.filter(|text| *text != "second").collect();
        assert_eq!(texts, ["first", "fourth"]);
        local.close();
        std::fs::remove_dir_all(folder).expect("it is gone");
    }
}
