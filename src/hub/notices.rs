//! Joins and leaves of one room that wait to be told together; only the last one of each user is kept.
//!
//! A crowd that comes at once costs one push for each member. A user who joins and leaves within the
//! interval is not announced at all. Time is an argument; nothing here waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::message::{Notice, UserName};

/// A room announces joins and leaves at most once in this time.
pub(super) const NOTICE_INTERVAL: Duration = Duration::from_millis(100);

/// The joins and leaves that wait in one room.
#[derive(Default)]
pub(super) struct PendingNotices {
    /// Each user's last notice, with its place in the order of arrival.
    notices: HashMap<UserName, (usize, Notice)>,
    arrived: usize,
    /// Until then, a notice that arrives has to wait.
    quiet_until: Option<Instant>,
}

impl PendingNotices {
    /// Keeps a notice for later, or gives it back if it may be told at once.
    pub(super) fn keep(&mut self, user: &UserName, notice: Notice, now: Instant) -> Option<Notice> {
        if self.notices.is_empty() && self.quiet_until.is_none_or(|until| until <= now) {
            return Some(notice);
        }
        self.arrived += 1;
        self.notices.insert(user.clone(), (self.arrived, notice));
        None
    }

    /// Begins an interval: notices were told just now.
    pub(super) fn told(&mut self, now: Instant) {
        self.quiet_until = Some(now + NOTICE_INTERVAL);
    }

    /// The time at which the waiting notices have to be told. `None` if none wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| !self.notices.is_empty())
    }

    /// Takes out all waiting notices, in the order of their arrival.
    pub(super) fn drain(&mut self) -> Vec<Notice> {
        let mut notices: Vec<_> = self.notices.drain().map(|(_, waiting)| waiting).collect();
        notices.sort_unstable_by_key(|(place, _)| *place);
        notices.into_iter().map(|(_, notice)| notice).collect()
    }
}
