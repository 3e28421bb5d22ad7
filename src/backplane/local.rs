//! The embedded backplane: one instance, in memory. The same log, limits and chain as in Redis,
//! kept by one thread that takes drafts in order, appends, delivers and acknowledges.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::backlog::{Backlog, Place};
use super::batch::Batch;
use super::log::{self, Logs};
use super::roster::Roster;
use super::{Backplane, BackplaneError, Departure, Draft, Excerpt, Receipt, Retention, Stored};
use crate::hub::Hub;
use crate::message::{MessageId, Notice, RoomName, UserName};
use crate::protocol::Cursor;
use crate::threads;
use crate::threads::lock;

/// The most jobs before a batch is delivered: no receipt waits for longer.
const JOBS_IN_A_ROW: usize = 1024;

/// The pause between two looks at the graces.
const GRACES: Duration = Duration::from_millis(250);

/// The pause between two looks at old refs and logs.
const FORGETTING: Duration = Duration::from_secs(10);

enum Job {
    Publish(Draft, Receipt, Place),
    Notice(RoomName, Notice),
    Stop,
}

/// The state that the thread and the callers share. No lock is held during a delivery.
struct Shared {
    hub: Arc<Hub>,
    logs: Mutex<Logs>,
    roster: Mutex<Roster>,
    in_flight: AtomicUsize,
    /// The first id that could be of this process.
    began: MessageId,
    backlog: Backlog,
}

/// The receipts to give once the messages are delivered.
type Receipts = Vec<(Receipt, Result<Stored, BackplaneError>)>;

/// The embedded backplane.
pub struct Local {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Local {
    /// Starts its thread. Deliveries go to `hub`.
    pub fn start(hub: Arc<Hub>, retention: Retention) -> io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let shared = Arc::new(Shared {
            hub,
            roster: Mutex::new(Roster::new(retention.presence_grace)),
            logs: Mutex::new(Logs::new(retention)),
            in_flight: AtomicUsize::new(0),
            began: log::now_as_id(),
            backlog: Backlog::default(),
        });
        let thread = threads::spawn_vital("backplane", {
            let shared = Arc::clone(&shared);
            let jobs = jobs.clone();
            move || run(&shared, &queue, &jobs)
        })?;
        Ok(Self {
            shared,
            jobs,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn submit(&self, job: Job) {
        // The thread stops only after `close`, when nobody is connected any more.
        let _ = self.jobs.send(job);
    }
}

fn run(shared: &Shared, queue: &Receiver<Job>, jobs: &Sender<Job>) {
    let mut next_graces = Instant::now() + GRACES;
    let mut next_forgetting = Instant::now() + FORGETTING;
    let mut batch = Batch::default();
    let mut receipts = Vec::new();
    let mut in_a_row = 0;
    loop {
        let next_flush = shared.hub.flush_due(Instant::now());
        match queue.recv_deadline(next_flush.map_or(next_graces, |next| next.min(next_graces))) {
            Ok(Job::Publish(draft, receipt, _place)) => {
                receipts.push((receipt, shared.store(draft, &mut batch)));
            }
            Ok(Job::Notice(room, notice)) => batch.add_notice(&shared.hub, &room, notice),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => {
                shared.deliver(&mut batch, &mut receipts);
                return;
            }
        }
        // Keep batching while jobs are queued.
        in_a_row += 1;
        if !queue.is_empty() && !batch.is_full() && in_a_row < JOBS_IN_A_ROW {
            continue;
        }
        in_a_row = 0;
        shared.deliver(&mut batch, &mut receipts);
        let now = Instant::now();
        if now >= next_graces {
            shared.miss_who_is_gone(now, jobs);
            next_graces = now + GRACES;
        }
        if now >= next_forgetting {
            lock(&shared.logs).forget(now);
            next_forgetting = now + FORGETTING;
        }
    }
}

impl Shared {
    fn deliver(&self, batch: &mut Batch, receipts: &mut Receipts) {
        batch.deliver(&self.hub);
        for (receipt, outcome) in receipts.drain(..) {
            receipt(outcome);
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn store(&self, draft: Draft, batch: &mut Batch) -> Result<Stored, BackplaneError> {
        let room = draft.room.clone();
        let (stored, entry) = lock(&self.logs).append(draft, Instant::now())?;
        if let Some(entry) = entry {
            batch.add(&room, entry);
        }
        Ok(stored)
    }

    fn miss_who_is_gone(&self, now: Instant, jobs: &Sender<Job>) {
        // Queued behind what the roster caused before, and under its lock.
        let mut roster = lock(&self.roster);
        for (room, user) in roster.expire(now) {
            let _ = jobs.send(Job::Notice(room, Notice::Left(user)));
        }
    }
}

impl Backplane for Local {
    fn publish(&self, draft: Draft, receipt: Receipt) {
        let Some(place) = self.shared.backlog.admit(&draft) else {
            return receipt(Err(BackplaneError::Overloaded));
        };
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        self.submit(Job::Publish(draft, receipt, place));
    }

    fn subscribe(&self, _room: &RoomName) -> Result<(), BackplaneError> {
        // Everything is delivered to the hub anyway.
        Ok(())
    }

    fn unsubscribe(&self, _room: &RoomName) {}

    fn read(&self, room: &RoomName, page: Cursor, limit: usize) -> Result<Excerpt, BackplaneError> {
        Ok(lock(&self.shared.logs).excerpt(room, page, limit))
    }

    fn tail(&self, room: &RoomName) -> Result<Option<MessageId>, BackplaneError> {
        Ok(lock(&self.shared.logs).tail(room))
    }

    fn began_after(&self, id: MessageId) -> bool {
        id < self.shared.began
    }

    fn arrive(&self, room: &RoomName, user: &UserName) -> Result<(), BackplaneError> {
        // Submitted under the roster's lock, so that notices keep the roster's order.
        let mut roster = lock(&self.shared.roster);
        if roster.arrive(room, user) {
            self.submit(Job::Notice(room.clone(), Notice::Joined(user.clone())));
        }
        Ok(())
    }

    fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        let mut roster = lock(&self.shared.roster);
        if roster.depart(room, user, departure, Instant::now()) {
            self.submit(Job::Notice(room.clone(), Notice::Left(user.clone())));
        }
    }

    fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError> {
        Ok(lock(&self.shared.roster).users(room).into())
    }

    fn typing(&self, room: &RoomName, user: &UserName) {
        self.submit(Job::Notice(room.clone(), Notice::Typing(user.clone())));
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.submit(Job::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}
