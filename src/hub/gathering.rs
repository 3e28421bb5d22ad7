//! Comings and goings that wait to be told together, of each user the last one: so a crowd that comes
//! at once is one push for each member, and one who comes and goes again is told to nobody. Time is an
//! argument; nothing here waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::message::{Notice, UserName};

/// For so long after comings and goings were told, more of them wait.
pub(super) const GATHERED_FOR: Duration = Duration::from_millis(100);

/// What one room gathers.
#[derive(Default)]
pub(super) struct Gathering {
    /// With its place in the order in which they were heard.
    waiting: HashMap<UserName, (usize, Notice)>,
    heard: usize,
    /// Until when what is heard waits for more.
    until: Option<Instant>,
}

impl Gathering {
    /// Takes in a coming or going. After a quiet moment it is given back, to be told at once.
    pub(super) fn take(&mut self, user: &UserName, notice: Notice, now: Instant) -> Option<Notice> {
        if self.waiting.is_empty() && self.until.is_none_or(|until| until <= now) {
            return Some(notice);
        }
        self.heard += 1;
        self.waiting.insert(user.clone(), (self.heard, notice));
        None
    }

    /// Comings and goings were told just now.
    pub(super) fn told(&mut self, now: Instant) {
        self.until = Some(now + GATHERED_FOR);
    }

    /// When what waits has to be told, if something does.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until.filter(|_| !self.waiting.is_empty())
    }

    /// Takes out all that waits, in the order in which it was heard.
    pub(super) fn drain(&mut self) -> Vec<Notice> {
        let mut waiting: Vec<_> = self.waiting.drain().map(|(_, waits)| waits).collect();
        waiting.sort_unstable_by_key(|(place, _)| *place);
        waiting.into_iter().map(|(_, notice)| notice).collect()
    }
}
