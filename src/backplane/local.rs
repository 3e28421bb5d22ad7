//! The embedded backplane: one instance, in memory. The same log, limits and chain as in Redis,
//! kept by one thread that takes drafts in order, appends, delivers and acknowledges.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::backlog::{Backlog, Place};
use super::log::{self, Logs};
use super::roster::Roster;
use super::{
    Backplane, BackplaneError, Departure, Draft, Entrance, Excerpt, Receipt, Retention, ShardState,
    Stored,
};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{MessageId, Notice, PresenceChange, RoomName, UserName};
use crate::protocol::Cursor;
use crate::threads;
use crate::threads::lock;

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
    jobs: Sender<Job>,
}

/// The embedded backplane.
pub struct Local {
    shared: Arc<Shared>,
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
            jobs,
        });
        let thread = threads::spawn_vital("backplane", {
            let shared = Arc::clone(&shared);
            move || run(&shared, &queue)
        })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn submit(&self, job: Job) {
        // The thread stops only after `close`, when nobody is connected any more.
        let _ = self.shared.jobs.send(job);
    }
}

fn run(shared: &Shared, queue: &Receiver<Job>) {
    let mut next_graces = Instant::now() + GRACES;
    let mut next_forgetting = Instant::now() + FORGETTING;
    loop {
        let next_flush = shared.hub.flush_due(Instant::now(), |_| true);
        let wait_until = next_flush.map_or(next_graces, |next| next.min(next_graces));
        let job = queue.recv_deadline(wait_until);
        let pace = match queue.is_empty() {
            true => Pace::Calm,
            false => Pace::Busy,
        };
        match job {
            Ok(Job::Publish(draft, receipt, _place)) => {
                receipt(shared.store(draft, pace));
                shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            }
            Ok(Job::Notice(room, notice)) => {
                shared.hub.deliver(&room, Delivery::Notice(notice), pace);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if now >= next_graces {
            shared.expire_graces(now);
            next_graces = now + GRACES;
        }
        if now >= next_forgetting {
            lock(&shared.logs).forget(now);
            next_forgetting = now + FORGETTING;
        }
    }
}

impl Shared {
    /// Stores a message and delivers it.
    fn store(&self, draft: Draft, pace: Pace) -> Result<Stored, BackplaneError> {
        let room = draft.room.clone();
        let (stored, entry) = lock(&self.logs).append(draft, Instant::now())?;
        if let Some(entry) = entry {
            self.hub
                .deliver(&room, Delivery::Messages(vec![entry]), pace);
        }
        Ok(stored)
    }

    fn expire_graces(&self, now: Instant) {
        let mut roster = lock(&self.roster);
        for change in roster.expire(now) {
            self.announce(Some(change));
        }
    }

    /// Queues the notice of a change. The caller holds the roster's lock, so that notices keep the
    /// roster's order.
    fn announce(&self, change: Option<(RoomName, PresenceChange)>) {
        if let Some((room, change)) = change {
            // The thread stops only after `close`, when nobody is connected any more.
            let _ = self.jobs.send(Job::Notice(room, Notice::Presence(change)));
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

    fn began_after(&self, id: MessageId) -> bool {
        id < self.shared.began
    }

    fn enter(
        &self,
        room: &RoomName,
        user: &UserName,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        let members = {
            let mut roster = lock(&self.shared.roster);
            self.shared.announce(roster.arrive(room, user));
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
        self.submit(Job::Notice(room.clone(), Notice::Typing(user.clone())));
    }

    fn shards(&self) -> Vec<ShardState> {
        Vec::new()
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
