//! The sequencer: the thread that puts all messages of this instance in order.
//!
//! It takes drafts a batch at a time. Each batch is planned, committed to disk if there is one, taken into the logs,
//! delivered and acknowledged; what comes meanwhile waits for the next. Notices wait with the messages, so that
//! none overtakes another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Shared;
use super::disk::Batch;
use super::log::{PlacedEntry, Plan, now_as_id};
use super::store::BanChange;
use crate::backplane::backlog::Place;
use crate::backplane::ban::KEPT_LONGER;
use crate::backplane::{BackplaneError, Draft, Receipt, Stored};
use crate::hub::{Delivery, Order, Pace};
use crate::message::{Entry, MessageId, Notice, RoomName};
use crate::metrics;
use crate::threads::lock;

/// The pause between two looks at the graces.
const GRACES: Duration = Duration::from_millis(250);

/// The pause between two looks at old refs and logs.
const FORGETTING: Duration = Duration::from_secs(10);

/// The most that is stored together.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// The most messages that the disk forgets with one batch.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// A commit that takes longer is not waited for, and neither is a message that waits longer for the commit before.
/// Twice this stays below [`ANSWER_WITHIN`](crate::backplane::ANSWER_WITHIN).
const COMMIT_WITHIN: Duration = Duration::from_millis(1250);

/// During a long fan-out, messages gather for the next commit until there are enough, but no longer than this after
/// the last began. An earlier commit would make both take longer, since they share the cores.
const ENOUGH: usize = 32;
const GATHER: Duration = Duration::from_millis(8);

/// The pause between two looks at whether the fan-out is over.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// What the thread is asked to do.
pub(super) enum Job {
    Do(Waiting),
    /// The batch was committed, or is not on disk.
    Committed(Batch, bool),
    Stop,
}

/// What waits for its batch.
pub(super) enum Waiting {
    /// With the time since which it waits.
    Message(Draft, Receipt, Place, Instant),
    Notice(RoomName, Notice),
    /// Messages that have an id, and where to tell the outcome.
    Past(RoomName, Vec<Entry>, Outcome),
    /// A ban, and where to tell the outcome.
    Ban(BanChange, Outcome),
    /// The last message that was posted to a webhook. Nobody waits until it is on disk: after a crash, later messages
    /// are posted again.
    Posted(String, MessageId),
}

type Outcome = Sender<Result<(), BackplaneError>>;

/// What is told once a batch is stored.
enum AfterCommit {
    /// The outcome of a message; a new one is the batch's next entry.
    Message(Result<Stored, BackplaneError>, Receipt, Place),
    Notice(RoomName, Notice),
    /// The outcome for so many of the batch's next entries, which nobody hears.
    Past(usize, Result<(), BackplaneError>, Outcome),
    Ban(Outcome),
    Nothing,
}

/// The thread's own state.
pub(super) struct Sequencer {
    shared: Arc<Shared>,
    waiting: VecDeque<Waiting>,
    /// What is told once the disk has answered. `None` while it has no batch.
    commit: Option<Vec<AfterCommit>>,
    /// The next commit waits for a long fan-out until then.
    gather_until: Instant,
    forget_at: Instant,
    /// Whether there is more that the disk has to forget.
    forgets_more: bool,
    stops: bool,
}

impl Sequencer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            waiting: VecDeque::new(),
            commit: None,
            gather_until: Instant::now(),
            forget_at: Instant::now(),
            forgets_more: false,
            stops: false,
        }
    }

    /// Runs until it is told to stop, and all that waits is answered.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        let mut next_graces = Instant::now() + GRACES;
        while !self.is_done() {
            let next_flush = self.shared.hub.flush_due(Instant::now(), |_| true);
            let mut wait_until = next_flush.map_or(next_graces, |next| next.min(next_graces));
            if self.commit.is_none() && !self.waiting.is_empty() {
                wait_until = wait_until.min(Instant::now() + LOOK_AGAIN);
            }
            match queue.recv_deadline(wait_until) {
                Ok(job) => self.take(job, queue),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // The answer of the disk stands behind all that came meanwhile.
            while (self.commit.is_some() || self.waiting.len() < BATCH_MESSAGES)
                && let Ok(job) = queue.try_recv()
            {
                self.take(job, queue);
            }
            let now = Instant::now();
            self.give_up_what_is_late(now);
            self.forget(now, queue);
            while self.commit.is_none()
                && (self.forgets_more || !self.waiting.is_empty())
                && !self.gathers(now)
            {
                self.store(queue);
            }
            if now >= next_graces {
                self.shared.expire_graces(now);
                next_graces = now + GRACES;
            }
        }
    }

    /// Whether nobody waits for an answer. What the disk does not store in time was answered before.
    fn is_done(&self) -> bool {
        let is_answered = self.commit.as_ref().is_none_or(Vec::is_empty);
        self.stops && self.waiting.is_empty() && is_answered
    }

    /// Whether what waits goes with a later commit.
    fn gathers(&self, now: Instant) -> bool {
        let may_grow = self.waiting.len() < ENOUGH && !self.stops;
        let writes = self.shared.disk.is_some() && now < self.gather_until;
        writes && may_grow && self.shared.hub.is_in_long_fan_out()
    }

    fn take(&mut self, job: Job, queue: &Receiver<Job>) {
        match job {
            Job::Do(waiting) => self.waiting.push_back(waiting),
            Job::Committed(batch, is_stored) => self.committed(batch, is_stored, queue),
            Job::Stop => self.stops = true,
        }
    }

    /// Forgets what is too old, when it is time.
    fn forget(&mut self, now: Instant, queue: &Receiver<Job>) {
        if now < self.forget_at || self.commit.is_some() {
            return;
        }
        self.forget_at = now + FORGETTING;
        lock(&self.shared.logs).forget(now);
        // The disk forgets it, even if nobody says anything.
        self.store(queue);
    }

    /// Begins to store what waits, or as much as fits into a batch.
    fn store(&mut self, queue: &Receiver<Job>) {
        let now = Instant::now();
        let mut plan = Plan::default();
        let mut steps = Vec::with_capacity(self.waiting.len().min(BATCH_MESSAGES));
        let mut bytes = 0;
        let (mut bans, mut posted) = (Vec::new(), Vec::new());
        let mut logs = lock(&self.shared.logs);
        while steps.len() < BATCH_MESSAGES
            && bytes < BATCH_BYTES
            && let Some(waiting) = self.waiting.pop_front()
        {
            steps.push(match waiting {
                Waiting::Message(draft, receipt, place, _) => {
                    bytes += draft.text.len();
                    AfterCommit::Message(logs.plan(&mut plan, draft, now), receipt, place)
                }
                Waiting::Notice(room, notice) => AfterCommit::Notice(room, notice),
                Waiting::Past(room, entries, tell) => {
                    let before = plan.entries.len();
                    let outcome = logs.plan_past(&mut plan, &room, entries);
                    AfterCommit::Past(plan.entries.len() - before, outcome, tell)
                }
                Waiting::Ban(change, tell) => {
                    bans.push(change);
                    AfterCommit::Ban(tell)
                }
                Waiting::Posted(webhook, id) => {
                    posted.push((webhook, id));
                    AfterCommit::Nothing
                }
            });
        }
        let most = match &self.shared.disk {
            Some(_) => FORGOTTEN_AT_ONCE,
            None => usize::MAX,
        };
        let forgotten = logs.take_forgotten(most);
        self.forgets_more = logs.has_forgotten();
        let needed = logs.bytes();
        drop(logs);
        metrics::HISTORY_BYTES.set(needed);
        let entries = plan.entries;
        match &self.shared.disk {
            Some(disk)
                if !(entries.is_empty()
                    && forgotten.is_empty()
                    && bans.is_empty()
                    && posted.is_empty()) =>
            {
                disk.commit(Batch {
                    entries,
                    forgotten,
                    bans,
                    posted,
                    needed,
                });
                self.commit = Some(steps);
                self.gather_until = now + GATHER;
            }
            _ => self.shared.tell(entries, bans, steps, queue.is_empty()),
        }
    }

    /// The disk has answered.
    fn committed(&mut self, batch: Batch, is_stored: bool, queue: &Receiver<Job>) {
        let steps = self.commit.take().unwrap_or_default();
        if let Some(disk) = &self.shared.disk {
            disk.is_well();
        }
        if is_stored {
            let Batch { entries, bans, .. } = batch;
            self.shared.tell(entries, bans, steps, queue.is_empty());
        } else {
            lock(&self.shared.logs).forget_again(&batch.forgotten);
            self.shared.refuse(steps, &BackplaneError::DiskUnavailable);
        }
    }

    /// Answers what the disk does not store in time. The batch that it has may be stored yet, and is delivered then.
    fn give_up_what_is_late(&mut self, now: Instant) {
        let Some(disk) = &self.shared.disk else {
            return;
        };
        disk.answers_within(COMMIT_WITHIN, now);
        let is_in_trouble = disk.trouble().is_some();
        if is_in_trouble && let Some(steps) = &mut self.commit {
            let unknown = std::mem::take(steps);
            self.shared.refuse(unknown, &BackplaneError::DiskSilent);
        }
        // Notices go with the messages around them.
        let late = match is_in_trouble {
            true => self.waiting.len(),
            false => {
                let is_late = |waiting: &Waiting| {
                    matches!(waiting, Waiting::Message(.., since)
                    if now.duration_since(*since) > COMMIT_WITHIN)
                };
                let last = self.waiting.iter().rposition(is_late);
                last.map_or(0, |last| last + 1)
            }
        };
        let late = self.waiting.drain(..late).map(|waiting| match waiting {
            Waiting::Message(_, receipt, place, _) => {
                AfterCommit::Message(Err(BackplaneError::DiskUnavailable), receipt, place)
            }
            Waiting::Notice(room, notice) => AfterCommit::Notice(room, notice),
            Waiting::Past(_, _, tell) => {
                AfterCommit::Past(0, Err(BackplaneError::DiskUnavailable), tell)
            }
            Waiting::Ban(_, tell) => AfterCommit::Ban(tell),
            Waiting::Posted(..) => AfterCommit::Nothing,
        });
        let late = late.collect();
        self.shared.refuse(late, &BackplaneError::DiskUnavailable);
    }
}

impl Shared {
    /// Takes messages that are stored into the logs, delivers them, and answers their senders. `is_calm`: nothing
    /// else waits.
    fn tell(
        &self,
        entries: Vec<PlacedEntry>,
        bans: Vec<BanChange>,
        steps: Vec<AfterCommit>,
        is_calm: bool,
    ) {
        self.take_in_bans(bans);
        {
            let (mut logs, now) = (lock(&self.logs), Instant::now());
            for placed in &entries {
                logs.take_in(placed, now);
            }
        }
        let mut entries = entries.into_iter();
        let mut left = steps.len();
        for step in steps {
            left -= 1;
            let pace = match is_calm && left == 0 {
                true => Pace::Calm,
                false => Pace::Busy,
            };
            match step {
                AfterCommit::Message(outcome, receipt, _place) => {
                    let is_new = matches!(&outcome, Ok(stored) if !stored.duplicate);
                    if is_new && let Some(placed) = entries.next() {
                        self.deliver(placed, pace);
                    }
                    self.answer(receipt, outcome);
                }
                AfterCommit::Notice(room, notice) => {
                    self.hub.deliver(&room, Delivery::Notice(notice), pace);
                }
                AfterCommit::Past(count, outcome, tell) => {
                    entries.by_ref().take(count).for_each(drop);
                    let _ = tell.send(outcome);
                }
                AfterCommit::Ban(tell) => {
                    let _ = tell.send(Ok(()));
                }
                AfterCommit::Nothing => {}
            }
        }
        // The senders of the others were told that it is not known.
        entries.for_each(|placed| self.deliver(placed, Pace::Busy));
    }

    /// Takes changes of bans in, and has them read.
    fn take_in_bans(&self, changes: Vec<BanChange>) {
        if changes.is_empty() {
            return;
        }
        let mut bans = lock(&self.bans);
        for (banned, ban) in changes {
            match ban {
                Some(ban) => bans.insert(banned, ban),
                None => bans.remove(&banned),
            };
        }
        let now = now_as_id().millis;
        bans.retain(|_, ban| ban.until.saturating_add(KEPT_LONGER) > now);
        drop(bans);
        self.hub.order(Order::ReadBans);
    }

    fn deliver(&self, placed: PlacedEntry, pace: Pace) {
        let entries = Delivery::Messages(vec![placed.entry]);
        self.hub.deliver(&placed.room, entries, pace);
    }

    fn answer(&self, receipt: Receipt, outcome: Result<Stored, BackplaneError>) {
        receipt(outcome);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Answers the senders of messages that are not stored. Notices are told.
    fn refuse(&self, steps: Vec<AfterCommit>, why: &BackplaneError) {
        for step in steps {
            match step {
                AfterCommit::Message(_, receipt, _place) => self.answer(receipt, Err(why.clone())),
                AfterCommit::Notice(room, notice) => {
                    self.hub
                        .deliver(&room, Delivery::Notice(notice), Pace::Busy);
                }
                AfterCommit::Past(_, _, tell) | AfterCommit::Ban(tell) => {
                    let _ = tell.send(Err(why.clone()));
                }
                AfterCommit::Nothing => {}
            }
        }
    }

    fn expire_graces(&self, now: Instant) {
        let mut roster = lock(&self.roster);
        for change in roster.expire(now) {
            self.announce(Some(change));
        }
    }
}
