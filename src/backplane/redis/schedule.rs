//! When an instance renews its users on one server, has rooms swept, and compares. Nothing here talks to Redis or waits:
//! time and the state of the connections are arguments, so the model of presence (`model/presence`) tries every order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::wire::Swept;
use crate::message::RoomName;

/// The pause between two proofs that Redis takes writes.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// The shortest pause before all users are renewed again, after a renewal failed.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// The pause between two looks for rooms that are to be swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A room is swept when the first of its instances lets its users expire, and after this time at the latest: an
/// instance that ends shortens its own.
pub(super) const SWEPT_WITHIN: Duration = Duration::from_secs(5);

/// A sweep that Redis runs later than this removes no user: Redis may have been frozen. Must not be longer
/// than a third of the presence TTL, the interval of renewals.
pub(super) const SWEEP_WITHIN: Duration = Duration::from_secs(1);

/// The pause before a second comparison. A user is announced only if both find it different: a notice may
/// be on its way, or an instance may learn only at its next sweep that Redis forgot its users. Must be longer
/// than [`SWEPT_WITHIN`].
const LOOK_AGAIN: Duration = Duration::from_secs(7);

/// Why Redis may know less of this instance's users than it should. Answers set it on the publisher's threads.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Redis knows nothing of this instance's users.
    pub(super) forgotten: AtomicBool,
    /// A renewal or a departure was refused, or not answered.
    pub(super) not_renewed: AtomicBool,
}

/// The connections to the server, as they are now.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundConnections {
    /// How often the publisher connected, and the subscription was made.
    pub(super) epochs: (u64, u64),
    /// Whether the publisher is connected.
    pub(super) is_connected: bool,
    /// Whether Redis takes no writes.
    pub(super) is_refused: bool,
}

/// How users are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewalStep {
    /// One small step for each room, however many users it has.
    Renew,
    /// All users arrive in a new term: Redis may have forgotten some, or not know that some are gone.
    ArriveAnew,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DueRounds {
    pub(super) prove: bool,
    pub(super) renew: Option<RenewalStep>,
    pub(super) sweep: bool,
    pub(super) compare: bool,
}

/// When each of the keeper's rounds on one server is due.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Schedule {
    /// A third of the presence TTL.
    third: Duration,
    /// The epochs when last looked at.
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

impl Schedule {
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        let third = ttl / 3;
        Self {
            third,
            epochs: (0, 0),
            prove_at: now,
            renew_at: now,
            renew_again: RENEW_AGAIN,
            arrive_anew: true,
            sweep_at: now + third,
            compare_at: now + third,
            look_again: false,
        }
    }

    /// Returns what is due, and notes that it is done.
    pub(super) fn due(
        &mut self,
        now: Instant,
        connections: RoundConnections,
        doubts: &Doubts,
    ) -> DueRounds {
        let mut due = DueRounds::default();
        if connections.epochs != self.epochs {
            // Redis was away or took no writes. It may have let users expire whom nobody could renew,
            // or have forgotten everyone.
            self.epochs = connections.epochs;
            self.prove_at = now;
            self.renew_before_sweeping(now);
        }
        if !connections.is_connected {
            return due;
        }
        if now >= self.prove_at {
            self.prove_at = now + PROVE_EVERY;
            due.prove = true;
        }
        if connections.is_refused {
            // Nobody can be renewed, so nobody is taken for gone.
            return due;
        }
        if doubts.forgotten.swap(false, Ordering::AcqRel) {
            // Redis forgot our users without ever being away, by a FLUSHALL say.
            self.renew_before_sweeping(now);
        }
        if doubts.not_renewed.swap(false, Ordering::AcqRel) {
            // Never later than it would be anyway, or steps that keep failing would keep all from being
            // renewed.
            self.renew_at = self.renew_at.min(now + self.renew_again);
            self.arrive_anew = true;
        }
        if now >= self.renew_at {
            self.renew_at = now + self.third;
            due.renew = Some(self.renewal());
        }
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_EVERY;
            due.sweep = true;
        }
        if now >= self.compare_at {
            let pause = if self.look_again {
                self.third
            } else {
                LOOK_AGAIN
            };
            self.compare_at = now + pause;
            self.look_again = !self.look_again;
            due.compare = true;
        }
        due
    }

    fn renewal(&mut self) -> RenewalStep {
        match std::mem::take(&mut self.arrive_anew) {
            true => {
                // A room whose steps keep failing must not have all arrive anew every second.
                self.renew_again = (self.renew_again * 2).min(self.third);
                RenewalStep::ArriveAnew
            }
            false => {
                self.renew_again = RENEW_AGAIN;
                RenewalStep::Renew
            }
        }
    }

    /// Puts off the next sweep by a third of the TTL: after an outage each instance lets its users arrive
    /// anew, and no user is removed before all had the time to.
    fn renew_before_sweeping(&mut self, now: Instant) {
        self.renew_at = now;
        self.arrive_anew = true;
        self.sweep_at = now + self.third;
        self.compare_at = now + self.third;
    }
}

/// When each room that is hosted here is to be swept next.
#[derive(Debug, Clone, Default)]
pub(super) struct Sweeps {
    due: HashMap<RoomName, Instant>,
    /// Redis's clock, in milliseconds, and when it showed that. `None` until a first sweep is answered.
    clock: Option<(u64, Instant)>,
}

impl Sweeps {
    /// The time by Redis's clock until which a sweep may remove users, in milliseconds. Without a clock, a sweep only
    /// asks for it.
    pub(super) fn until(&self, now: Instant) -> u64 {
        self.clock.map_or(0, |(clock, shown)| {
            clock + (now.saturating_duration_since(shown) + SWEEP_WITHIN).as_millis() as u64
        })
    }

    /// Keeps those of the hosted `rooms` whose sweep is due. Each comes again after `pause`, which is [`SWEPT_WITHIN`] at
    /// most.
    pub(super) fn take_due(
        &mut self,
        rooms: &mut Vec<RoomName>,
        now: Instant,
        pause: impl Fn() -> Duration,
    ) {
        let mut before = std::mem::take(&mut self.due);
        rooms.retain(|room| {
            let due = before.remove(room).filter(|due| *due > now);
            let again = now + pause();
            self.due.insert(room.clone(), due.unwrap_or(again));
            due.is_none()
        });
    }

    /// A room is not swept before `until`.
    pub(super) fn put_off(&mut self, room: RoomName, until: Instant) {
        self.due.insert(room, until);
    }

    /// Takes in what a sweep of a room found.
    pub(super) fn note(&mut self, room: RoomName, swept: &Swept, now: Instant) {
        self.clock = Some((swept.clock, now));
        if let Some(next) = swept.next.filter(|next| *next < SWEPT_WITHIN) {
            self.due.insert(room, now + next);
        }
    }
}
