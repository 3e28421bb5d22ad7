//! Presence on one server: what an instance tells it of its own users, and how users are found to be gone that
//! a killed instance left behind.
//!
//! The shared state is in Redis and changes only by `presence.lua`; this instance's part of it is
//! the [`Roster`]. Steps are queued under the roster's lock, so Redis takes them in its order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use redis::Cmd;

use super::placement::Share;
use super::publisher::{Connecting, Publisher, Questions};
use super::subscriber::Subscriber;
use super::subscription::Task;
use super::wire::{self, PresenceStep};
use crate::backoff::spread;
use crate::backplane::roster::Roster;
use crate::backplane::{BackplaneError, Retention};
use crate::hub::Hub;
use crate::message::{RoomName, UserName};
use crate::threads::lock;

/// The pause between two proofs that Redis takes writes.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// The shortest pause before all users are renewed again, after a renewal failed.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// The pause between two looks for rooms that are to be swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A room is swept when the first of its instances lets its users expire, and after this time at the latest: an
/// instance that ends shortens its own.
const SWEPT_WITHIN: Duration = Duration::from_secs(5);

/// A sweep that Redis runs later than this removes no user: Redis may have been frozen. Must not be longer
/// than a third of the presence TTL, the interval of renewals.
const SWEEP_WITHIN: Duration = Duration::from_secs(1);

/// The pause before a second comparison. A user is announced only if both find it different: a notice may
/// be on its way, or an instance may learn only at its next sweep that Redis forgot its users. Must be longer
/// than [`SWEPT_WITHIN`].
const LOOK_AGAIN: Duration = Duration::from_secs(7);

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
    /// Whether a sweep found that Redis knows nothing of this instance's users.
    forgotten: AtomicBool,
    /// Whether a renewal or a departure was refused, or not answered.
    not_renewed: AtomicBool,
    /// Redis's clock, in milliseconds, and when it showed that. `None` until a first sweep is answered.
    clock: Mutex<Option<(u64, Instant)>>,
    /// When each room that is hosted here is to be swept next.
    sweeps: Mutex<HashMap<RoomName, Instant>>,
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
            forgotten: AtomicBool::new(false),
            not_renewed: AtomicBool::new(false),
            clock: Mutex::default(),
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
            self.not_renewed.store(true, Ordering::Release);
        }
        is_new
    }

    pub(super) fn share(&self) -> Share {
        lock(&self.share).clone()
    }

    /// A step came late, from another node. A user that it let arrive may have left since, so that all arrive
    /// anew, and this user expires with the old term.
    pub(super) fn note_detour(&self) {
        self.not_renewed.store(true, Ordering::Release);
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
            self.not_renewed.store(true, Ordering::Release);
            let later = Instant::now() + self.users.ttl / 3;
            lock(&self.sweeps).insert(room, later);
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
    /// The publisher's and the subscription's epochs when last looked at.
    epochs: (u64, u64),
    prove_at: Instant,
    renew_at: Instant,
    /// The pause before all arrive anew after the next failure.
    renew_again: Duration,
    /// Whether Redis may have forgotten this instance's users, so that a renewal is not enough.
    arrive_anew: bool,
    sweep_at: Instant,
    compare_at: Instant,
    look_again: bool,
}

impl Rounds {
    pub(super) fn new(presence: &Arc<Presence>, subscriber: &Subscriber) -> Self {
        let third = presence.users.ttl / 3;
        Self {
            presence: Arc::clone(presence),
            subscription: subscriber.epochs(),
            subscriber: subscriber.tasks(),
            epochs: (0, 0),
            prove_at: Instant::now(),
            renew_at: Instant::now(),
            renew_again: RENEW_AGAIN,
            arrive_anew: true,
            sweep_at: Instant::now() + third,
            compare_at: Instant::now() + third,
            look_again: false,
        }
    }

    /// Whether these are the rounds on this server.
    pub(super) fn are_on(&self, presence: &Arc<Presence>) -> bool {
        Arc::ptr_eq(&self.presence, presence)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        let presence = Arc::clone(&self.presence);
        let publisher = &presence.publisher;
        let epochs = (publisher.link().epoch(), (self.subscription)());
        if epochs != self.epochs {
            // Redis was away or took no writes. It may have let users expire whom nobody could renew,
            // or have forgotten everyone.
            self.epochs = epochs;
            self.prove_at = now;
            self.renew_before_sweeping(now, now);
        }
        if !publisher.link().is_connected() {
            return;
        }
        presence.look_for_acknowledged();
        if now >= self.prove_at {
            self.prove_at = now + PROVE_EVERY;
            publisher.prove();
        }
        if publisher.link().is_refused() {
            // Nobody can be renewed, so nobody is taken for gone.
            return;
        }
        if presence.forgotten.swap(false, Ordering::AcqRel) {
            // Redis forgot our users without ever being away, by a FLUSHALL say.
            self.renew_before_sweeping(now, now);
        }
        let third = presence.users.ttl / 3;
        if presence.not_renewed.swap(false, Ordering::AcqRel) {
            // Never later than it would be anyway, or steps that keep failing would keep all from being
            // renewed.
            self.renew_at = self.renew_at.min(now + self.renew_again);
            self.arrive_anew = true;
        }
        if now >= self.renew_at {
            self.renew_again = match self.arrive_anew {
                // A room whose steps keep failing must not have all arrive anew every second.
                true => (self.renew_again * 2).min(third),
                false => RENEW_AGAIN,
            };
            self.renew_at = now + third;
            self.renew();
        }
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep(now);
        }
        if now >= self.compare_at {
            self.compare_at = now + if self.look_again { third } else { LOOK_AGAIN };
            self.look_again = !self.look_again;
            self.compare();
        }
    }

    /// Puts off the next sweep by a third of the TTL: after an outage each instance lets its users arrive
    /// anew, and no user is removed before all had the time to.
    fn renew_before_sweeping(&mut self, now: Instant, renew_at: Instant) {
        let third = self.presence.users.ttl / 3;
        self.renew_at = renew_at;
        self.arrive_anew = true;
        self.sweep_at = now + third;
        self.compare_at = now + third;
    }

    /// Renews this instance in every room: one small step for each, however many users it has there.
    fn renew(&mut self) {
        let renew = PresenceStep::Renew {
            ttl: self.presence.users.ttl,
        };
        let share = self.presence.share();
        // Queued under the roster's lock, or an arrival could overtake a departure.
        let roster = lock(&self.presence.users.roster);
        let steps = match std::mem::take(&mut self.arrive_anew) {
            true => self.presence.arrivals(&roster, &share),
            false => self.presence.of_each_room(&roster, &share, renew),
        };
        for (room, step) in steps {
            let presence = Arc::clone(&self.presence);
            self.presence.publisher.submit(
                &step,
                Box::new(move |answer| match answer {
                    Ok(answer) if wire::is_forgotten(&answer) => {
                        presence.forgotten.store(true, Ordering::Release);
                    }
                    Ok(_) => {}
                    Err(error) => presence.note_failure(room, Some(error)),
                }),
            );
        }
    }

    fn sweep(&self, now: Instant) {
        // Without a clock, the sweep only asks for it.
        let until = lock(&self.presence.clock).map_or(0, |(clock, shown)| {
            clock + (shown.elapsed() + SWEEP_WITHIN).as_millis() as u64
        });
        for room in self.to_sweep(now) {
            let presence = Arc::clone(&self.presence);
            let sweep = presence.step(&room, PresenceStep::Sweep { until }, []);
            self.presence.publisher.submit(
                &sweep,
                Box::new(move |answer| {
                    let Some(swept) = answer.ok().as_ref().and_then(wire::sweep_answer) else {
                        return;
                    };
                    *lock(&presence.clock) = Some((swept.clock, Instant::now()));
                    if !swept.is_known && lock(&presence.users.roster).has_users_in(&room) {
                        presence.forgotten.store(true, Ordering::Release);
                    }
                    if let Some(next) = swept.next.filter(|next| *next < SWEPT_WITHIN) {
                        lock(&presence.sweeps).insert(room, Instant::now() + next);
                    }
                }),
            );
        }
    }

    /// The rooms whose sweep is due. Each comes again within [`SWEPT_WITHIN`], at a random time in its second half,
    /// so that the rooms of a crowd that came together are not swept together for ever.
    fn to_sweep(&self, now: Instant) -> Vec<RoomName> {
        let mut rooms = self.presence.hosted();
        let mut sweeps = lock(&self.presence.sweeps);
        let mut before = std::mem::take(&mut *sweeps);
        rooms.retain(|room| {
            let due = before.remove(room).filter(|due| *due > now);
            let again = now + spread(SWEPT_WITHIN);
            sweeps.insert(room.clone(), due.unwrap_or(again));
            due.is_none()
        });
        rooms
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
                    presence.forgotten.store(true, Ordering::Release);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
