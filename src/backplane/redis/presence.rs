//! Presence on one server: what an instance tells it of its own users, and how users are found to be gone that
//! a killed instance left behind.
//!
//! The shared state is in Redis and changes only by `presence.lua`; this instance's part of it is
//! the [`Roster`]. Steps are queued under the roster's lock, so Redis takes them in its order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use redis::Cmd;

use super::placement::Share;
use super::publisher::{Connecting, Publisher, Questions};
use super::schedule::{Doubts, RenewalStep, RoundConnections, SWEPT_WITHIN, Schedule, Sweeps};
use super::subscriber::Subscriber;
use super::subscription::Task;
use super::wire::{self, PresenceStep};
use crate::backoff::spread;
use crate::backplane::roster::Roster;
use crate::backplane::{BackplaneError, Retention};
use crate::hub::Hub;
use crate::message::{RoomName, UserName};
use crate::threads::lock;

/// The most users that one step renews: a script keeps Redis from everything else.
const USERS_AT_ONCE: usize = 256;

/// The roster of this instance, and how its users are kept. All servers have it in common.
#[derive(Clone)]
pub(super) struct Users {
    pub(super) hub: Arc<Hub>,
    pub(super) roster: Arc<Mutex<Roster>>,
    ttl: Duration,
    grace: Duration,
    /// The last term that began on any server. A room may move to another server with its keys.
    terms: Arc<AtomicU64>,
}

impl Users {
    /// Nobody yet.
    pub(super) fn new(hub: &Arc<Hub>, retention: &Retention) -> Self {
        Self {
            hub: Arc::clone(hub),
            roster: Arc::new(Mutex::new(Roster::new(retention.presence_grace))),
            ttl: retention.presence_ttl,
            grace: retention.presence_grace,
            terms: Arc::default(),
        }
    }
}

/// This instance's part of presence on one server, and the way to the shared one.
pub(super) struct Presence {
    publisher: Arc<Publisher>,
    to: Connecting,
    users: Users,
    /// The rooms that are on this server.
    share: Mutex<Share>,
    /// The term in which all users arrived here last. See `presence.lua`. It changes under the
    /// roster's lock.
    term: AtomicU64,
    doubts: Doubts,
    sweeps: Mutex<Sweeps>,
}

impl Presence {
    pub(super) fn new(
        publisher: &Arc<Publisher>,
        to: Connecting,
        users: &Users,
        share: Share,
    ) -> Self {
        Self {
            publisher: Arc::clone(publisher),
            to,
            users: users.clone(),
            share: Mutex::new(share),
            term: AtomicU64::new(0),
            doubts: Doubts::default(),
            sweeps: Mutex::default(),
        }
    }

    fn step<'a>(
        &self,
        room: &RoomName,
        step: PresenceStep,
        users: impl IntoIterator<Item = &'a UserName>,
    ) -> Cmd {
        let term = self.term.load(Ordering::Acquire);
        let Connecting { keys, scripts, .. } = &self.to;
        scripts.presence(keys, term, room, step, users)
    }

    /// A connection of `user` entered `room`. Nothing is asked if the user is there already: the first
    /// connection's step is done, or queued before what the caller asks next.
    pub(super) fn arrive(&self, room: &RoomName, user: &UserName, questions: &mut Questions<'_>) {
        let mut roster = lock(&self.users.roster);
        if roster.arrive(room, user).is_some() {
            let ttl = self.users.ttl;
            let arrive = PresenceStep::Arrive { ttl };
            questions.ask(&self.step(room, arrive, [user]));
        }
    }

    /// A question about the users of a room.
    pub(super) fn question(&self, room: &RoomName, step: PresenceStep) -> Cmd {
        self.step(room, step, [])
    }

    /// Gives this instance's users up to the others, who announce those that do not come back within the
    /// grace. [`Questions::wait`] returns once that is done.
    pub(super) fn retire(&self) -> Questions<'_> {
        let retire = PresenceStep::Retire {
            grace: self.users.grace,
        };
        let share = self.share();
        let steps = self.of_each_room(&lock(&self.users.roster), &share, retire);
        let steps: Vec<_> = steps.into_iter().map(|(_, step)| step).collect();
        self.publisher.ask_all(&steps)
    }

    /// From now on these rooms are on this server. False if they were before.
    pub(super) fn set_share(&self, share: Share) -> bool {
        let mut known = lock(&self.share);
        let is_new = *known != share;
        *known = share;
        if is_new {
            // A room that comes back may still know the term in which its users arrived here before.
            self.doubts.not_renewed.store(true, Ordering::Release);
        }
        is_new
    }

    pub(super) fn share(&self) -> Share {
        lock(&self.share).clone()
    }

    /// A step came late, from another node. A user that it let arrive may have left since, so that all arrive
    /// anew, and this user expires with the old term.
    pub(super) fn note_detour(&self) {
        self.doubts.not_renewed.store(true, Ordering::Release);
    }

    /// Tells Redis that the user left. If that fails, the remaining users arrive in a new term, and this
    /// user expires with the old one.
    pub(super) fn gone(self: &Arc<Self>, room: &RoomName, user: &UserName) {
        let depart = self.step(room, PresenceStep::Depart, [user]);
        let (presence, room) = (Arc::clone(self), room.clone());
        self.publisher.submit(
            &depart,
            Box::new(move |answer| presence.note_failure(room, answer.err())),
        );
    }

    /// Asks whether a new master has what the old one acknowledged.
    fn look_for_acknowledged(&self) {
        for (question, on_answer) in self.to.look_for_acknowledged(&self.share()) {
            self.publisher.submit(&question, on_answer);
        }
    }

    /// After a step that may not be done, all users arrive anew, and the room is not swept before they had the
    /// time to. A refusal for good concerns one room, whose keys hold something else: it must not disturb the
    /// others.
    fn note_failure(&self, room: RoomName, error: Option<BackplaneError>) {
        if error.is_some_and(|error| !matches!(error, BackplaneError::Refused(_))) {
            self.doubts.not_renewed.store(true, Ordering::Release);
            let later = Instant::now() + self.users.ttl / 3;
            lock(&self.sweeps).put_off(room, later);
        }
    }

    /// The step for every room in `roster` that is on this server.
    fn of_each_room(
        &self,
        roster: &Roster,
        share: &Share,
        step: PresenceStep,
    ) -> Vec<(RoomName, Cmd)> {
        let rooms = roster.rooms().filter(|room| share.holds(room));
        let steps = rooms.map(|room| (room.clone(), self.step(room, step, [])));
        steps.collect()
    }

    /// The arrival of every user in `roster` whose room is on this server, in a new term.
    fn arrivals(&self, roster: &Roster, share: &Share) -> Vec<(RoomName, Cmd)> {
        let term = self.users.terms.fetch_add(1, Ordering::AcqRel) + 1;
        self.term.store(term, Ordering::Release);
        let arrive = PresenceStep::ArriveAnew {
            ttl: self.users.ttl,
        };
        let mut steps = Vec::new();
        for room in roster.rooms().filter(|room| share.holds(room)) {
            for users in roster.users(room).chunks(USERS_AT_ONCE) {
                steps.push((room.clone(), self.step(room, arrive, users)));
            }
        }
        steps
    }

    /// The rooms on this server that have a member here.
    fn hosted(&self) -> Vec<RoomName> {
        let share = self.share();
        let mut rooms = self.users.hub.rooms();
        rooms.retain(|room| share.holds(room));
        rooms
    }
}

/// The keeper's rounds on one server.
pub(super) struct Rounds {
    presence: Arc<Presence>,
    /// The number of times that the subscription was made.
    subscription: Box<dyn Fn() -> u64 + Send>,
    subscriber: Sender<Task>,
    schedule: Schedule,
}

impl Rounds {
    pub(super) fn new(presence: &Arc<Presence>, subscriber: &Subscriber) -> Self {
        Self {
            presence: Arc::clone(presence),
            subscription: subscriber.epochs(),
            subscriber: subscriber.tasks(),
            schedule: Schedule::new(presence.users.ttl, Instant::now()),
        }
    }

    /// Whether these are the rounds on this server.
    pub(super) fn are_on(&self, presence: &Arc<Presence>) -> bool {
        Arc::ptr_eq(&self.presence, presence)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        let presence = Arc::clone(&self.presence);
        let link = presence.publisher.link();
        let connections = RoundConnections {
            epochs: (link.epoch(), (self.subscription)()),
            is_connected: link.is_connected(),
            is_refused: link.is_refused(),
        };
        let due = self.schedule.due(now, connections, &presence.doubts);
        if connections.is_connected {
            presence.look_for_acknowledged();
        }
        if due.prove {
            presence.publisher.prove();
        }
        if let Some(renewal) = due.renew {
            self.renew(renewal);
        }
        if due.sweep {
            self.sweep(now);
        }
        if due.compare {
            self.compare();
        }
    }

    fn renew(&self, renewal: RenewalStep) {
        let ttl = self.presence.users.ttl;
        let share = self.presence.share();
        // Queued under the roster's lock, or an arrival could overtake a departure.
        let roster = lock(&self.presence.users.roster);
        let steps = match renewal {
            RenewalStep::ArriveAnew => self.presence.arrivals(&roster, &share),
            RenewalStep::Renew => {
                let renew = PresenceStep::Renew { ttl };
                self.presence.of_each_room(&roster, &share, renew)
            }
        };
        for (room, step) in steps {
            let presence = Arc::clone(&self.presence);
            self.presence.publisher.submit(
                &step,
                Box::new(move |answer| match answer {
                    Ok(answer) if wire::is_forgotten(&answer) => {
                        presence.doubts.forgotten.store(true, Ordering::Release);
                    }
                    Ok(_) => {}
                    Err(error) => presence.note_failure(room, Some(error)),
                }),
            );
        }
    }

    fn sweep(&self, now: Instant) {
        let mut rooms = self.presence.hosted();
        let until = {
            let mut sweeps = lock(&self.presence.sweeps);
            // At a random time in the second half, so that the rooms of a crowd that came together are not swept
            // together for ever.
            sweeps.take_due(&mut rooms, now, || spread(SWEPT_WITHIN));
            sweeps.until(now)
        };
        for room in rooms {
            let presence = Arc::clone(&self.presence);
            let sweep = presence.step(&room, PresenceStep::Sweep { until }, []);
            self.presence.publisher.submit(
                &sweep,
                Box::new(move |answer| {
                    let Some(swept) = answer.ok().as_ref().and_then(wire::sweep_answer) else {
                        return;
                    };
                    if !swept.is_known && lock(&presence.users.roster).has_users_in(&room) {
                        presence.doubts.forgotten.store(true, Ordering::Release);
                    }
                    lock(&presence.sweeps).note(room, &swept, Instant::now());
                }),
            );
        }
    }

    /// Shows the hub which users are present, so that it can announce what it missed.
    fn compare(&self) {
        let presence = &self.presence;
        for rooms in presence.hosted().chunks(USERS_AT_ONCE) {
            let reads: Vec<_> = rooms
                .iter()
                .map(|room| presence.step(room, PresenceStep::Roll, []))
                .collect();
            let answers = presence.publisher.call_all(&reads);
            for (room, answer) in rooms.iter().zip(answers) {
                let Ok(list) = answer.and_then(|value| wire::member_list(&value)) else {
                    continue;
                };
                let ours = lock(&presence.users.roster).users(room);
                if ours
                    .iter()
                    .all(|user| list.users.binary_search(user).is_ok())
                {
                    let _ = self.subscriber.send(Task::Present(room.clone(), list));
                } else {
                    presence.doubts.forgotten.store(true, Ordering::Release);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
