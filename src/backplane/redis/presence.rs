//! Presence over all instances, and the keeper: the thread that renews this instance's users, ends their
//! graces, and announces the users that a killed instance left behind.
//!
//! The shared state is in Redis and changes only by `presence.lua`; this instance's part of it is
//! the [`Roster`]. Steps are queued under the roster's lock, so Redis takes them in its order.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use redis::Cmd;

use super::publisher::{Publisher, Questions};
use super::subscriber::Subscriber;
use super::subscription::Task;
use super::wire::{self, Keys, PresenceStep, Scripts};
use crate::backplane::roster::Roster;
use crate::backplane::{BackplaneError, Departure, Retention};
use crate::hub::Hub;
use crate::message::{RoomName, UserName};
use crate::threads;
use crate::threads::lock;

/// The pause between two looks of the keeper.
const TICK: Duration = Duration::from_millis(250);

/// The pause between two proofs that Redis takes writes.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// The pause before all users are renewed again, after a renewal failed.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// The pause between two sweeps for users whom nobody renewed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A sweep that Redis runs later than this removes no user: Redis may have been frozen. Must not be longer
/// than a third of the presence TTL, the interval of renewals.
const SWEEP_WITHIN: Duration = Duration::from_secs(1);

/// The pause before a second comparison. A user is announced only if both find it different: a notice may
/// be on its way, or an instance may learn only at its next sweep that Redis forgot its users.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The most users that one step renews: a script keeps Redis from everything else.
const USERS_AT_ONCE: usize = 256;

/// The handle that everyone shares.
pub(super) struct Keeper {
    presence: Arc<Presence>,
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// This instance's part of presence, and the way to the shared one.
struct Presence {
    publisher: Arc<Publisher>,
    hub: Arc<Hub>,
    keys: Keys,
    scripts: Scripts,
    ttl: Duration,
    grace: Duration,
    roster: Mutex<Roster>,
    /// The number of times that all users arrived anew. See `presence.lua`. It changes under the
    /// roster's lock.
    term: AtomicU64,
    /// Whether a sweep found that Redis knows nothing of this instance's users.
    forgotten: AtomicBool,
    /// Whether a renewal or a departure was refused, or not answered.
    not_renewed: AtomicBool,
    /// Redis's clock, in milliseconds, and when it showed that. `None` until a first sweep is answered.
    clock: Mutex<Option<(u64, Instant)>>,
}

impl Keeper {
    pub(super) fn start(
        hub: &Arc<Hub>,
        publisher: &Arc<Publisher>,
        subscriber: &Subscriber,
        keys: &Keys,
        scripts: &Scripts,
        retention: &Retention,
    ) -> io::Result<Self> {
        let presence = Arc::new(Presence {
            publisher: Arc::clone(publisher),
            hub: Arc::clone(hub),
            keys: keys.clone(),
            scripts: scripts.clone(),
            ttl: retention.presence_ttl,
            grace: retention.presence_grace,
            roster: Mutex::new(Roster::new(retention.presence_grace)),
            term: AtomicU64::new(0),
            forgotten: AtomicBool::new(false),
            not_renewed: AtomicBool::new(false),
            clock: Mutex::default(),
        });
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let rounds = Rounds {
            presence: Arc::clone(&presence),
            subscription: subscriber.epochs(),
            subscriber: subscriber.tasks(),
            epochs: (0, 0),
            prove_at: Instant::now(),
            renew_at: Instant::now(),
            arrive_anew: true,
            sweep_at: Instant::now() + retention.presence_ttl / 3,
            compare_at: Instant::now() + retention.presence_ttl / 3,
            look_again: false,
        };
        let thread = threads::spawn_vital("keeper", move || rounds.run(&stopped))?;
        Ok(Self {
            presence,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A connection of `user` entered `room`. Nothing is asked if the user is there already: the first
    /// connection's step is done, or queued before what the caller asks next.
    pub(super) fn arrive(&self, room: &RoomName, user: &UserName, questions: &mut Questions<'_>) {
        let mut roster = lock(&self.presence.roster);
        if roster.arrive(room, user).is_some() {
            let ttl = self.presence.ttl;
            let arrive = PresenceStep::Arrive { ttl };
            questions.ask(&self.presence.step(room, arrive, [user]));
        }
    }

    /// A connection of `user` left `room`.
    pub(super) fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        let mut roster = lock(&self.presence.roster);
        if roster
            .depart(room, user, departure, Instant::now())
            .is_some()
        {
            self.presence.gone(room, user);
        }
    }

    /// A question about the users of a room.
    pub(super) fn question(&self, room: &RoomName, step: PresenceStep) -> Cmd {
        self.presence.step(room, step, [])
    }

    /// Gives this instance's users up to the others, who announce those that do not come back
    /// within the grace, and joins the thread.
    pub(super) fn close(&self) {
        let _ = self.stop.send(());
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        let retire = PresenceStep::Retire {
            grace: self.presence.grace,
        };
        let steps = self
            .presence
            .of_each_room(&lock(&self.presence.roster), retire);
        self.presence.publisher.call_all(&steps);
    }
}

impl Presence {
    fn step<'a>(
        &self,
        room: &RoomName,
        step: PresenceStep,
        users: impl IntoIterator<Item = &'a UserName>,
    ) -> Cmd {
        let term = self.term.load(Ordering::Acquire);
        self.scripts.presence(&self.keys, term, room, step, users)
    }

    /// Tells Redis that the user left. If that fails, the remaining users arrive in a new term, and this
    /// user expires with the old one.
    fn gone(self: &Arc<Self>, room: &RoomName, user: &UserName) {
        let depart = self.step(room, PresenceStep::Depart, [user]);
        let presence = Arc::clone(self);
        self.publisher.submit(
            &depart,
            Box::new(move |answer| presence.note_failure(answer.err())),
        );
    }

    /// After a step that may not be done, all users arrive anew. A refusal for good concerns one room, whose
    /// keys hold something else: it must not disturb the others.
    fn note_failure(&self, error: Option<BackplaneError>) {
        if error.is_some_and(|error| !matches!(error, BackplaneError::Refused(_))) {
            self.not_renewed.store(true, Ordering::Release);
        }
    }

    /// The step for every room in `roster`.
    fn of_each_room(&self, roster: &Roster, step: PresenceStep) -> Vec<Cmd> {
        let rooms = roster.rooms();
        rooms.map(|room| self.step(room, step, [])).collect()
    }

    /// The arrival of every user in `roster`, in a new term.
    fn arrivals(&self, roster: &Roster) -> Vec<Cmd> {
        self.term.fetch_add(1, Ordering::AcqRel);
        let arrive = PresenceStep::Arrive { ttl: self.ttl };
        let mut steps = Vec::new();
        for room in roster.rooms() {
            for users in roster.users(room).chunks(USERS_AT_ONCE) {
                steps.push(self.step(room, arrive, users));
            }
        }
        steps
    }
}

/// The keeper's rounds.
struct Rounds {
    presence: Arc<Presence>,
    /// The number of times that the subscription was made.
    subscription: Box<dyn Fn() -> u64 + Send>,
    subscriber: Sender<Task>,
    /// The publisher's and the subscription's epochs when last looked at.
    epochs: (u64, u64),
    prove_at: Instant,
    renew_at: Instant,
    /// Whether Redis may have forgotten this instance's users, so that a renewal is not enough.
    arrive_anew: bool,
    sweep_at: Instant,
    compare_at: Instant,
    look_again: bool,
}

impl Rounds {
    fn run(mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            self.tick(Instant::now());
        }
    }

    fn tick(&mut self, now: Instant) {
        {
            let mut roster = lock(&self.presence.roster);
            for (room, change) in roster.expire(now) {
                self.presence.gone(&room, &change.user);
            }
        }
        let presence = Arc::clone(&self.presence);
        let publisher = &presence.publisher;
        let epochs = (publisher.epoch(), (self.subscription)());
        if epochs != self.epochs {
            // Redis was away or took no writes. It may have let users expire whom nobody could renew,
            // or have forgotten everyone.
            self.epochs = epochs;
            self.prove_at = now;
            self.renew_before_sweeping(now, now);
        }
        if !publisher.is_connected() {
            return;
        }
        if now >= self.prove_at {
            self.prove_at = now + PROVE_EVERY;
            publisher.prove();
        }
        if publisher.is_refused() {
            // Nobody can be renewed, so nobody is taken for gone.
            return;
        }
        if presence.forgotten.swap(false, Ordering::AcqRel) {
            // Redis forgot our users without ever being away, by a FLUSHALL say.
            self.renew_before_sweeping(now, now);
        }
        if presence.not_renewed.swap(false, Ordering::AcqRel) {
            // Never later than it would be anyway, or steps that keep failing would keep all from being
            // renewed.
            self.renew_before_sweeping(now, self.renew_at.min(now + RENEW_AGAIN));
        }
        if now >= self.renew_at {
            self.renew_at = now + presence.ttl / 3;
            self.renew();
        }
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep();
        }
        if now >= self.compare_at {
            let third = presence.ttl / 3;
            self.compare_at = now + if self.look_again { third } else { LOOK_AGAIN };
            self.look_again = !self.look_again;
            self.compare();
        }
    }

    /// Puts off the next sweep by a third of the TTL: after an outage each instance lets its users arrive
    /// anew, and no user is removed before all had the time to.
    fn renew_before_sweeping(&mut self, now: Instant, renew_at: Instant) {
        let third = self.presence.ttl / 3;
        self.renew_at = renew_at;
        self.arrive_anew = true;
        self.sweep_at = now + third;
        self.compare_at = now + third;
    }

    /// Renews this instance in every room: one small step for each, however many users it has there.
    fn renew(&mut self) {
        let renew = PresenceStep::Renew {
            ttl: self.presence.ttl,
        };
        // Queued under the roster's lock, or an arrival could overtake a departure.
        let roster = lock(&self.presence.roster);
        let steps = match std::mem::take(&mut self.arrive_anew) {
            true => self.presence.arrivals(&roster),
            false => self.presence.of_each_room(&roster, renew),
        };
        for step in steps {
            let presence = Arc::clone(&self.presence);
            self.presence.publisher.submit(
                &step,
                Box::new(move |answer| match answer {
                    Ok(answer) if wire::is_forgotten(&answer) => {
                        presence.forgotten.store(true, Ordering::Release);
                    }
                    Ok(_) => {}
                    Err(error) => presence.note_failure(Some(error)),
                }),
            );
        }
    }

    fn sweep(&self) {
        // Without a clock, the sweep only asks for it.
        let until = lock(&self.presence.clock).map_or(0, |(clock, shown)| {
            clock + (shown.elapsed() + SWEEP_WITHIN).as_millis() as u64
        });
        for room in self.presence.hub.rooms() {
            let presence = Arc::clone(&self.presence);
            let sweep = presence.step(&room, PresenceStep::Sweep { until }, []);
            self.presence.publisher.submit(
                &sweep,
                Box::new(move |answer| {
                    let Some((known, clock)) = answer.ok().as_ref().and_then(wire::sweep_answer)
                    else {
                        return;
                    };
                    *lock(&presence.clock) = Some((clock, Instant::now()));
                    if !known && lock(&presence.roster).has_users_in(&room) {
                        presence.forgotten.store(true, Ordering::Release);
                    }
                }),
            );
        }
    }

    /// Shows the hub which users are present, so that it can announce what it missed.
    fn compare(&self) {
        let presence = &self.presence;
        for rooms in presence.hub.rooms().chunks(USERS_AT_ONCE) {
            let reads: Vec<_> = rooms
                .iter()
                .map(|room| presence.step(room, PresenceStep::Roll, []))
                .collect();
            let answers = presence.publisher.call_all(&reads);
            for (room, answer) in rooms.iter().zip(answers) {
                let Ok(list) = answer.and_then(|value| wire::member_list(&value)) else {
                    continue;
                };
                let ours = lock(&presence.roster).users(room);
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
