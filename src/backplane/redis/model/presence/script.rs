//! `presence.lua`, line by line, for one room. `tests/it/presence_script.rs` compiles this file as well, and holds it to
//! the real script: both take the same random steps and must answer, publish and keep the same.
//!
//! Two things are left out: keys that expire after an hour, and after a day.

use std::collections::BTreeMap;

/// An instance in one of its terms: INSTANCE.TERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InstanceTerm {
    pub(crate) instance: u8,
    pub(crate) term: u64,
}

/// When counting began, and the number of the last announcement.
pub(crate) type ScriptRevision = (u64, u64);

/// What the script publishes: whether the user joined, the revision, and the user.
pub(crate) type Announced = (bool, ScriptRevision, &'static str);

/// The operations. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Arrive { ttl: u64, users: Vec<&'static str> },
    Anew { ttl: u64, users: Vec<&'static str> },
    Depart { users: Vec<&'static str> },
    Renew { ttl: u64 },
    Retire { grace: u64 },
    Sweep { until: u64 },
    Roll,
    Members,
    Count,
}

/// What the script returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScriptAnswer {
    Nothing,
    Known(bool),
    /// Redis's clock and the time at which the next instance lets its users expire, or 0, in milliseconds.
    Swept {
        is_known: bool,
        clock: u64,
        next: u64,
    },
    /// In the order of Redis.
    List(ScriptRevision, Vec<&'static str>),
    Count(usize),
}

/// The three keys of a room, as a small Redis hash and a sorted set keep them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct ModelPresence {
    /// In the order in which they were added.
    pub(crate) users: Vec<(&'static str, Vec<InstanceTerm>)>,
    pub(crate) instances: BTreeMap<InstanceTerm, u64>,
    pub(crate) revision: Option<ScriptRevision>,
}

/// One run of the script.
struct Run<'a> {
    keys: &'a mut ModelPresence,
    at: InstanceTerm,
    /// In milliseconds.
    now: u64,
    began: u64,
    number: u64,
    announced: Vec<Announced>,
}

impl ModelPresence {
    /// Runs the script for an instance at a time in microseconds. A sweep takes `most_swept` users out at most.
    pub(crate) fn run(
        &mut self,
        at: InstanceTerm,
        operation: &Operation,
        time: u64,
        most_swept: usize,
    ) -> (ScriptAnswer, Vec<Announced>) {
        let (began, number) = self.revision.unwrap_or((time, 0));
        let mut run = Run {
            keys: self,
            at,
            now: time / 1000,
            began,
            number,
            announced: Vec::new(),
        };
        let answer = run.take(operation, most_swept);
        (answer, run.announced)
    }
}

impl Run<'_> {
    fn take(&mut self, operation: &Operation, most_swept: usize) -> ScriptAnswer {
        match operation {
            Operation::Arrive { ttl, users } => {
                users.iter().for_each(|user| self.note(user, self.at, true));
                self.live_on(*ttl);
                ScriptAnswer::Nothing
            }
            Operation::Anew { ttl, users } => {
                self.number += 1000;
                self.store_revision();
                users.iter().for_each(|user| self.note(user, self.at, true));
                self.live_on(*ttl);
                ScriptAnswer::Nothing
            }
            Operation::Depart { users } => {
                users
                    .iter()
                    .for_each(|user| self.note(user, self.at, false));
                ScriptAnswer::Nothing
            }
            Operation::Roll => {
                if self.number == 0 {
                    self.store_revision();
                }
                ScriptAnswer::List(self.revision(), self.all())
            }
            Operation::Members => ScriptAnswer::List(self.revision(), self.renewed()),
            Operation::Count => ScriptAnswer::Count(self.renewed().len()),
            Operation::Sweep { until } => self.sweep(*until, most_swept),
            Operation::Renew { ttl: lasts } | Operation::Retire { grace: lasts } => {
                let is_known = self.is_known();
                if is_known {
                    self.live_on(*lasts);
                }
                ScriptAnswer::Known(is_known)
            }
        }
    }

    fn revision(&self) -> ScriptRevision {
        (self.began, self.number)
    }

    fn store_revision(&mut self) {
        self.keys.revision = Some(self.revision());
    }

    fn announce(&mut self, joined: bool, user: &'static str) {
        self.number += 1;
        self.store_revision();
        self.announced.push((joined, self.revision(), user));
    }

    fn note(&mut self, user: &'static str, at: InstanceTerm, is_connected: bool) {
        let users = &mut self.keys.users;
        let place = users.iter().position(|(name, _)| *name == user);
        let mut held = place.map_or(Vec::new(), |place| users[place].1.clone());
        let is_late = |other: &InstanceTerm| other.instance == at.instance && other.term > at.term;
        if held.iter().any(is_late) {
            return;
        }
        held.retain(|other| other.instance != at.instance);
        if is_connected {
            held.push(at);
        }
        match (place, held.is_empty()) {
            (Some(place), false) => users[place].1 = held,
            (None, false) => {
                users.push((user, held));
                self.announce(true, user);
            }
            (Some(place), true) => {
                users.remove(place);
                self.announce(false, user);
            }
            (None, true) => {}
        }
    }

    fn expired(&self) -> Vec<InstanceTerm> {
        let instances = self.keys.instances.iter();
        let expired = instances.filter(|(_, ends)| **ends <= self.now);
        let mut expired: Vec<_> = expired
            .map(|(at, ends)| (*ends, at.to_string(), *at))
            .collect();
        expired.sort();
        expired.into_iter().map(|(_, _, at)| at).collect()
    }

    fn live_on(&mut self, lasts: u64) {
        self.keys.instances.insert(self.at, self.now + lasts);
    }

    fn is_known(&self) -> bool {
        self.keys.instances.contains_key(&self.at)
    }

    fn all(&self) -> Vec<&'static str> {
        self.keys.users.iter().map(|(user, _)| *user).collect()
    }

    /// Those of an instance that was renewed in time.
    fn renewed(&self) -> Vec<&'static str> {
        let expired = self.expired();
        let users = self.keys.users.iter();
        let renewed = users.filter(|(_, held)| held.iter().any(|at| !expired.contains(at)));
        renewed.map(|(user, _)| *user).collect()
    }

    fn sweep(&mut self, until: u64, most_swept: usize) -> ScriptAnswer {
        let is_known = self.is_known();
        let mut left = most_swept;
        let expired = match self.now <= until {
            true => self.expired(),
            false => Vec::new(),
        };
        for gone in expired {
            for (user, held) in self.keys.users.clone() {
                if left > 0 && held.contains(&gone) {
                    self.note(user, gone, false);
                    left -= 1;
                }
            }
            if left > 0 {
                self.keys.instances.remove(&gone);
            }
        }
        ScriptAnswer::Swept {
            is_known,
            clock: self.now,
            next: self.keys.instances.values().min().copied().unwrap_or(0),
        }
    }
}

impl std::fmt::Display for InstanceTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{}", self.instance, self.term)
    }
}
