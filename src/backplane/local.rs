//! The embedded backplane: one instance, in memory. The same log, limits and chain as in Redis,
//! kept by one thread that takes drafts in order, appends, delivers and acknowledges.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::batch::Batch;
use super::roster::Roster;
use super::{
    Backplane, BackplaneError, Departure, Draft, Excerpt, REFS_LAST, Receipt, Retention, Stored,
};
use crate::hub::{Delivery, Hub};
use crate::lock::lock;
use crate::message::{Entry, Message, MessageId, Notice, RoomName, UserName};
use crate::protocol::{Page, Ref};

/// How often graces are looked after.
const GRACES: Duration = Duration::from_millis(250);

/// How often refs and forgotten rooms are looked after.
const FORGETTING: Duration = Duration::from_secs(10);

enum Job {
    Publish(Draft, Receipt),
    Notice(RoomName, Notice),
    Stop,
}

/// What the thread and the callers share. Locks are taken in the order roster, then rooms, and
/// never held while delivering.
struct Shared {
    hub: Arc<Hub>,
    retention: Retention,
    logs: Mutex<HashMap<RoomName, Log>>,
    roster: Mutex<Roster>,
    in_flight: AtomicUsize,
}

/// One room's past.
#[derive(Default)]
struct Log {
    entries: VecDeque<Entry>,
    refs: HashMap<(UserName, Ref), (MessageId, Instant)>,
    last: Option<MessageId>,
    spoken: Option<Instant>,
}

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
            retention,
            logs: Mutex::default(),
            in_flight: AtomicUsize::new(0),
        });
        let thread = thread::Builder::new().name("backplane".into()).spawn({
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
    loop {
        match queue.recv_deadline(next_graces) {
            Ok(Job::Publish(draft, receipt)) => {
                receipts.push((receipt, shared.store(draft, &mut batch)));
                // What else was said meanwhile goes along; so whatever waits has a job behind it.
                if !queue.is_empty() && !batch.is_full() {
                    continue;
                }
                shared.deliver(&mut batch, &mut receipts);
            }
            Ok(Job::Notice(room, notice)) => {
                // Behind what was said before.
                shared.deliver(&mut batch, &mut receipts);
                shared.hub.deliver(&room, Delivery::Notice(notice));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => {
                shared.deliver(&mut batch, &mut receipts);
                return;
            }
        }
        let now = Instant::now();
        if now >= next_graces {
            shared.miss_who_is_gone(now, jobs);
            next_graces = now + GRACES;
        }
        if now >= next_forgetting {
            shared.forget(now);
            next_forgetting = now + FORGETTING;
        }
    }
}

impl Shared {
    fn deliver(&self, batch: &mut Batch, receipts: &mut Vec<(Receipt, Stored)>) {
        batch.deliver(&self.hub);
        for (receipt, stored) in receipts.drain(..) {
            receipt(Ok(stored));
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn store(&self, draft: Draft, batch: &mut Batch) -> Stored {
        let now = Instant::now();
        let room = draft.room.clone();
        let (stored, entry) = lock(&self.logs).entry(room.clone()).or_default().append(
            draft,
            now,
            self.retention.history_length,
        );
        if let Some(entry) = entry {
            batch.add(&room, entry);
        }
        stored
    }

    fn miss_who_is_gone(&self, now: Instant, jobs: &Sender<Job>) {
        // Queued behind what the roster caused before, and under its lock.
        let mut roster = lock(&self.roster);
        for (room, user) in roster.expire(now) {
            let _ = jobs.send(Job::Notice(room, Notice::Left(user)));
        }
    }

    fn forget(&self, now: Instant) {
        lock(&self.logs).retain(|_, log| {
            log.forget(now, self.retention.history_ttl);
            !(log.entries.is_empty() && log.refs.is_empty())
        });
    }
}

impl Log {
    fn append(&mut self, draft: Draft, now: Instant, keep: usize) -> (Stored, Option<Entry>) {
        let key = draft.reference.map(|r| (draft.from.clone(), r));
        if let Some((id, noted)) = key.as_ref().and_then(|key| self.refs.get(key))
            && now.duration_since(*noted) < REFS_LAST
        {
            let (id, duplicate) = (*id, true);
            return (Stored { id, duplicate }, None);
        }
        let id = self.next_id();
        let entry = Entry {
            message: Message {
                id,
                from: draft.from,
                text: draft.text,
                at: id.millis,
            },
            prev: self.last,
            via: draft.via,
        };
        self.last = Some(id);
        self.spoken = Some(now);
        self.entries.push_back(entry.clone());
        while self.entries.len() > keep {
            self.entries.pop_front();
        }
        if let Some(key) = key {
            self.refs.insert(key, (id, now));
        }
        let duplicate = false;
        (Stored { id, duplicate }, Some(entry))
    }

    fn forget(&mut self, now: Instant, ttl: Duration) {
        self.refs
            .retain(|_, (_, noted)| now.duration_since(*noted) < REFS_LAST);
        if self
            .spoken
            .is_some_and(|spoken| now.duration_since(spoken) >= ttl)
        {
            self.entries.clear();
        }
    }

    /// The clock's millisecond, or the last id's where the clock stands still or goes back.
    fn next_id(&self) -> MessageId {
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        match self.last {
            Some(last) if last.millis >= millis => MessageId {
                millis: last.millis,
                number: last.number + 1,
            },
            _ => MessageId { millis, number: 0 },
        }
    }

    fn excerpt(&self, page: Page, limit: usize) -> Excerpt {
        let ids = |entry: &Entry| entry.message.id;
        let length = self.entries.len();
        let range = match page {
            Page::Newest => length.saturating_sub(limit)..length,
            Page::Before(id) => {
                let end = self.entries.partition_point(|entry| ids(entry) < id);
                end.saturating_sub(limit)..end
            }
            Page::After(id) => {
                let start = self.entries.partition_point(|entry| ids(entry) <= id);
                start..length.min(start.saturating_add(limit))
            }
        };
        let more = match page {
            Page::Newest | Page::Before(_) => range.start > 0,
            Page::After(_) => range.end < length,
        };
        Excerpt {
            entries: self.entries.range(range).cloned().collect(),
            more,
        }
    }
}

impl Backplane for Local {
    fn publish(&self, draft: Draft, receipt: Receipt) {
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        self.submit(Job::Publish(draft, receipt));
    }

    fn subscribe(&self, _room: &RoomName) -> Result<(), BackplaneError> {
        // Everything is delivered to the hub anyway.
        Ok(())
    }

    fn unsubscribe(&self, _room: &RoomName) {}

    fn read(&self, room: &RoomName, page: Page, limit: usize) -> Result<Excerpt, BackplaneError> {
        Ok(lock(&self.shared.logs)
            .get(room)
            .map(|log| log.excerpt(page, limit))
            .unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str, reference: Option<&str>) -> Draft {
        Draft {
            room: RoomName::lobby(),
            from: "alice".parse().expect("a name"),
            text: text.to_owned(),
            reference: reference.map(|r| r.to_owned().try_into().expect("a ref")),
            via: None,
        }
    }

    #[test]
    fn a_log_keeps_the_newest_and_its_pages_meet() {
        let mut log = Log::default();
        let now = Instant::now();
        for n in 0..10 {
            log.append(draft(&n.to_string(), None), now, 7);
        }
        let texts = |excerpt: &Excerpt| -> String {
            let texts = excerpt.entries.iter().map(|e| e.message.text.as_str());
            texts.collect()
        };
        let newest = log.excerpt(Page::Newest, 3);
        assert_eq!((texts(&newest).as_str(), newest.more), ("789", true));
        let id = newest.entries[0].message.id;
        let before = log.excerpt(Page::Before(id), 3);
        assert_eq!((texts(&before).as_str(), before.more), ("456", true));
        let rest = log.excerpt(Page::Before(before.entries[0].message.id), 3);
        assert_eq!((texts(&rest).as_str(), rest.more), ("3", false));
        let after = log.excerpt(Page::After(id), 1);
        assert_eq!((texts(&after).as_str(), after.more), ("8", true));
        assert_eq!(texts(&log.excerpt(Page::After(id), 9)), "89");
    }

    #[test]
    fn a_repeated_ref_is_the_same_message_for_five_minutes() {
        let mut log = Log::default();
        let now = Instant::now();
        let (first, _) = log.append(draft("a", Some("r")), now, 10);
        let (again, entry) = log.append(draft("a", Some("r")), now + REFS_LAST / 2, 10);
        assert_eq!(again.id, first.id);
        assert!(again.duplicate && entry.is_none());
        let (late, _) = log.append(draft("a", Some("r")), now + REFS_LAST, 10);
        assert!(!late.duplicate);
        assert!(late.id > first.id);
    }
}
