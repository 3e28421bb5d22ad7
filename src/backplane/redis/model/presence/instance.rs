//! One instance: the real roster, hub and schedule, and its two connections to Redis.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{MemberListView, name_of};
use super::script::{InstanceTerm, Operation, ScriptAnswer};
use crate::backplane::redis::schedule::{
    Doubts, DueRounds, RenewalStep, RoundConnections, SWEPT_WITHIN, Schedule, Sweeps,
};
use crate::backplane::redis::wire::Swept;
use crate::backplane::roster::Roster;
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{InstanceId, RoomName};

/// The shortest that an operator may set, so that all pauses are whole seconds and leases run out soon.
pub(super) const TTL: Duration = Duration::from_secs(3);

/// A connection that broke off is missed after this time.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The hub's pause between two notices of a room.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) static LOBBY: LazyLock<RoomName> = LazyLock::new(RoomName::lobby);

/// When the model begins.
pub(super) static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A command on its way to Redis, and what is done with the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelCommand {
    pub(super) at: InstanceTerm,
    pub(super) operation: Operation,
    pub(super) asks: Asks,
}

impl ModelCommand {
    /// Whether the instance notes that it failed.
    fn is_noted(&self) -> bool {
        match self.operation {
            Operation::Depart { .. } | Operation::Anew { .. } | Operation::Renew { .. } => true,
            Operation::Arrive { .. }
            | Operation::Retire { .. }
            | Operation::Sweep { .. }
            | Operation::Roll
            | Operation::Members
            | Operation::Count => false,
        }
    }
}

/// For whom a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asks {
    /// A connection that enters or has left.
    User,
    /// The list of members, for the connection of this number.
    List(usize),
    /// The keeper.
    Keeper,
    /// The keeper, which compares.
    Comparison,
}

/// What the subscriber has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PresencePush {
    pub(super) joined: bool,
    pub(super) user: &'static str,
    pub(super) revision: (u64, u64),
}

#[derive(Clone)]
pub(super) struct ModelInstance {
    pub(super) number: usize,
    pub(super) is_alive: bool,
    pub(super) is_connected: bool,
    pub(super) is_subscribed: bool,
    epochs: (u64, u64),
    pub(super) roster: Roster,
    term: u64,
    schedule: Schedule,
    sweeps: Sweeps,
    is_forgotten: bool,
    is_not_renewed: bool,
    hub: Rc<Hub>,
    pub(super) queue: VecDeque<ModelCommand>,
    /// Written on a connection that is lost, and still on their way.
    pub(super) late: VecDeque<ModelCommand>,
    pub(super) pushes: VecDeque<PresencePush>,
    /// `Task::Present`.
    pub(super) lists: VecDeque<MemberListView>,
    pub(super) has_ticked: bool,
    /// So many of the hub's intervals have passed since the last full second.
    pub(super) intervals: u8,
    /// Whether all its users arrived since Redis last forgot something or could not be reached. So nobody may take
    /// them for gone.
    pub(super) is_sure: bool,
    /// The users of whom it missed a notice.
    pub(super) missed: BTreeSet<&'static str>,
    /// Its hash, until it changes.
    hash: Cell<Option<u64>>,
}

impl ModelInstance {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            is_alive: true,
            is_connected: true,
            is_subscribed: true,
            epochs: (1, 1),
            roster: Roster::new(GRACE),
            term: 0,
            schedule: Schedule::new(TTL, *BEGIN),
            sweeps: Sweeps::default(),
            is_forgotten: false,
            is_not_renewed: false,
            hub: Rc::new(Hub::start(InstanceId::random(), 0).expect("no threads")),
            queue: VecDeque::new(),
            late: VecDeque::new(),
            pushes: VecDeque::new(),
            lists: VecDeque::new(),
            has_ticked: false,
            intervals: 0,
            is_sure: false,
            missed: BTreeSet::new(),
            hash: Cell::new(None),
        }
    }

    /// Who changes it says so first.
    pub(super) fn changes(&mut self) -> &mut Self {
        self.hash.set(None);
        self
    }

    /// Tells one state from another.
    pub(super) fn hash_at(&self, now: Instant) -> u64 {
        if let Some(known) = self.hash.get() {
            return known;
        }
        let mut hasher = DefaultHasher::new();
        (self.is_alive, self.is_connected, self.is_subscribed).hash(&mut hasher);
        (self.epochs, self.term, &self.schedule).hash(&mut hasher);
        (self.is_forgotten, self.is_not_renewed, self.is_sure).hash(&mut hasher);
        (&self.queue, &self.late, &self.pushes, &self.lists).hash(&mut hasher);
        (self.has_ticked, self.intervals, &self.missed).hash(&mut hasher);
        format!("{:?} {:?}", self.roster, self.sweeps).hash(&mut hasher);
        self.hub.hash_at(self.hub_now(now), &LOBBY, &mut hasher);
        let hash = hasher.finish();
        self.hash.set(Some(hash));
        hash
    }

    pub(super) fn hub_now(&self, now: Instant) -> Instant {
        now + INTERVAL * u32::from(self.intervals)
    }

    /// Whether nothing waits to be told.
    pub(super) fn is_calm(&self) -> bool {
        let is_told = !self.is_alive || !self.hub.has_pending(&LOBBY);
        self.pushes.is_empty() && self.lists.is_empty() && is_told
    }

    /// The hub, to be looked at.
    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The hub, to be changed.
    pub(super) fn hub_mut(&mut self) -> &Hub {
        if Rc::get_mut(&mut self.hub).is_none() {
            self.hub = Rc::new(self.hub.copy());
        }
        &self.hub
    }

    fn at(&self) -> InstanceTerm {
        InstanceTerm {
            instance: 10 + self.number as u8,
            term: self.term,
        }
    }

    /// Queues a command.
    pub(super) fn ask(&mut self, operation: Operation, asks: Asks) {
        let at = self.at();
        self.queue.push_back(ModelCommand {
            at,
            operation,
            asks,
        });
    }

    /// `Presence::gone`.
    pub(super) fn gone(&mut self, user: &'static str, now: Instant) {
        if self.is_connected {
            let users = vec![user];
            self.ask(Operation::Depart { users }, Asks::User);
        } else {
            self.note_failure(now);
        }
    }

    /// `Presence::note_failure`.
    fn note_failure(&mut self, now: Instant) {
        self.is_not_renewed = true;
        self.sweeps.put_off(LOBBY.clone(), now + TTL / 3);
    }

    /// A round of the keeper: `keeper::run` and `Rounds::tick`.
    pub(super) fn tick(&mut self, now: Instant) {
        self.has_ticked = true;
        for (_, change) in self.roster.expire(now) {
            self.gone(super::client::user_of(change.user.as_str()), now);
        }
        let connections = RoundConnections {
            epochs: self.epochs,
            is_connected: self.is_connected,
            is_refused: false,
        };
        let doubts = Doubts {
            forgotten: AtomicBool::new(self.is_forgotten),
            not_renewed: AtomicBool::new(self.is_not_renewed),
        };
        let due = self.schedule.due(now, connections, &doubts);
        self.is_forgotten = doubts.forgotten.load(Ordering::Acquire);
        self.is_not_renewed = doubts.not_renewed.load(Ordering::Acquire);
        self.take_due(&due, now);
    }

    fn take_due(&mut self, due: &DueRounds, now: Instant) {
        let ttl = TTL.as_millis() as u64;
        if let Some(renewal) = due.renew {
            self.renew(renewal, ttl);
        }
        let is_hosted = self.hub.hosts(&LOBBY);
        let mut rooms: Vec<_> = is_hosted.then(|| LOBBY.clone()).into_iter().collect();
        if due.sweep {
            self.sweeps.take_due(&mut rooms, now, || SWEPT_WITHIN);
            if !rooms.is_empty() {
                let until = self.sweeps.until(now);
                self.ask(Operation::Sweep { until }, Asks::Keeper);
            }
        }
        if due.compare && is_hosted {
            self.ask(Operation::Roll, Asks::Comparison);
        }
    }

    /// `Rounds::renew`.
    fn renew(&mut self, renewal: RenewalStep, ttl: u64) {
        let users = self.users();
        match renewal {
            RenewalStep::ArriveAnew => {
                self.term += 1;
                if users.is_empty() {
                    self.is_sure = true;
                } else {
                    self.ask(Operation::Anew { ttl, users }, Asks::Keeper);
                }
            }
            RenewalStep::Renew if users.is_empty() => {}
            RenewalStep::Renew => self.ask(Operation::Renew { ttl }, Asks::Keeper),
        }
    }

    /// The users in its roster.
    pub(super) fn users(&self) -> Vec<&'static str> {
        let users = self.roster.users(&LOBBY);
        users
            .iter()
            .map(|name| super::client::user_of(name.as_str()))
            .collect()
    }

    /// Whether it can be reached, has this user, and told Redis so since it could not be reached last.
    pub(super) fn has_surely(&self, user: &'static str) -> bool {
        let is_asked = self.queue.iter().any(|next| match &next.operation {
            Operation::Arrive { users, .. } | Operation::Anew { users, .. } => {
                users.contains(&user)
            }
            Operation::Depart { .. }
            | Operation::Renew { .. }
            | Operation::Retire { .. }
            | Operation::Sweep { .. }
            | Operation::Roll
            | Operation::Members
            | Operation::Count => false,
        });
        self.is_alive && self.is_sure && !is_asked && self.users().contains(&user)
    }

    /// Takes the answer to a command of the keeper, or of a connection that has left.
    pub(super) fn hears_answer(
        &mut self,
        asked: &ModelCommand,
        answer: ScriptAnswer,
        now: Instant,
    ) {
        match answer {
            ScriptAnswer::Known(false) => self.is_forgotten = true,
            ScriptAnswer::Swept {
                is_known,
                clock,
                next,
            } => {
                let left = Duration::from_millis(next.saturating_sub(clock));
                let swept = Swept {
                    is_known,
                    clock,
                    next: (next > 0).then_some(left),
                };
                self.is_forgotten |= !is_known && self.roster.has_users_in(&LOBBY);
                self.sweeps.note(LOBBY.clone(), &swept, now);
            }
            // `Rounds::compare`.
            ScriptAnswer::List(revision, users) if asked.asks == Asks::Comparison => {
                match self.users().iter().all(|user| users.contains(user)) {
                    true => self.lists.push_back(MemberListView { users, revision }),
                    false => self.is_forgotten = true,
                }
            }
            ScriptAnswer::List(..)
            | ScriptAnswer::Known(true)
            | ScriptAnswer::Nothing
            | ScriptAnswer::Count(_) => {}
        }
        if let Operation::Anew { .. } = asked.operation {
            self.is_sure = true;
        }
    }

    /// Whether Redis may refuse the next command without another effect than a doubt.
    pub(super) fn may_be_refused(&self) -> bool {
        self.queue.front().is_some_and(ModelCommand::is_noted)
    }

    /// Redis refuses the next command.
    pub(super) fn is_refused(&mut self, now: Instant) {
        self.queue.pop_front();
        self.note_failure(now);
    }

    /// The publisher lost its connection, and answers all that waits with an error.
    pub(super) fn loses_publisher(&mut self, now: Instant, are_written: bool) {
        self.is_connected = false;
        self.is_sure = false;
        let waiting = std::mem::take(&mut self.queue);
        if waiting.iter().any(ModelCommand::is_noted) {
            self.note_failure(now);
        }
        if are_written {
            self.late.extend(waiting);
        }
    }

    /// `Listener::lost`, with the model's time.
    pub(super) fn loses_subscription(&mut self, now: Instant) {
        self.is_subscribed = false;
        self.missed
            .extend(self.pushes.drain(..).map(|push| push.user));
        let now = self.hub_now(now) + INTERVAL;
        self.hub_mut().flush_due(now, |_| true);
    }

    pub(super) fn reconnects(&mut self) {
        self.epochs.0 += u64::from(!self.is_connected);
        self.epochs.1 += u64::from(!self.is_subscribed);
        (self.is_connected, self.is_subscribed) = (true, true);
    }

    /// The subscriber takes the next push.
    pub(super) fn hears(&mut self, now: Instant) {
        let Some(push) = self.pushes.pop_front() else {
            return;
        };
        let change = crate::message::PresenceChange {
            user: name_of(push.user).clone(),
            joined: push.joined,
            revision: crate::message::Revision {
                began: push.revision.0,
                number: push.revision.1,
            },
        };
        let notice = Delivery::Notice(crate::message::Notice::Presence(change));
        let now = self.hub_now(now);
        self.hub_mut().deliver_at(&LOBBY, notice, Pace::Calm, now);
    }

    /// The subscriber takes the list that was compared.
    pub(super) fn takes_list(&mut self, now: Instant) {
        if let Some(list) = self.lists.pop_front() {
            let present = Delivery::Present(list.list());
            let now = self.hub_now(now);
            self.hub_mut().deliver_at(&LOBBY, present, Pace::Busy, now);
        }
    }

    /// The pause between two notices ends.
    pub(super) fn ends_interval(&mut self, now: Instant) {
        self.intervals += 1;
        let now = self.hub_now(now);
        self.hub_mut().flush_due(now, |_| true);
    }
}
