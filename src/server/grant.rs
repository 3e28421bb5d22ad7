//! What a connection may do, and until when: the claims of its token. A fresh token on the same connection
//! replaces them.
//!
//! The session asks for rooms. The heartbeat, which wakes up anyway, warns the client and ends the connection.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::token::Claims;
use crate::message::RoomName;
use crate::threads::lock;

/// The client is told so long before its token expires.
const WARNED_BEFORE: Duration = Duration::from_secs(60);

/// Why a grant for reading only does not allow to say something.
pub const READ_ONLY: &str = "the token is for reading only";

/// The claims of a connection's token.
#[derive(Debug, Default)]
pub struct Grant {
    terms: Mutex<Terms>,
}

#[derive(Debug, Default)]
struct Terms {
    /// `None` for a connection that needs no token.
    claims: Option<Claims>,
    is_warned: bool,
}

/// What is due about the end of a grant.
#[derive(Debug, PartialEq, Eq)]
pub enum GrantDue {
    /// Nothing for this time, or ever.
    Nothing(Option<Duration>),
    /// The client is to be told that its token expires after this time. Said once.
    Warning(Duration),
    /// The token has expired.
    End,
}

impl Grant {
    /// Everything, for ever.
    pub fn all() -> Self {
        Self::default()
    }

    /// What these claims allow.
    pub fn of(claims: Claims) -> Self {
        let grant = Self::default();
        grant.replace(claims);
        grant
    }

    /// From now on these claims count.
    pub fn replace(&self, claims: Claims) {
        let terms = &mut *lock(&self.terms);
        // One that ends no later is no news.
        let is_later = terms
            .claims
            .as_ref()
            .is_none_or(|before| claims.exp > before.exp);
        *terms = Terms {
            claims: Some(claims),
            is_warned: terms.is_warned && !is_later,
        };
    }

    /// Whether it allows this room.
    pub fn allows(&self, room: &RoomName) -> bool {
        let terms = lock(&self.terms);
        terms.claims.as_ref().is_none_or(|one| one.allows(room))
    }

    /// Whether it allows to join and read, and not to say anything.
    pub fn is_read_only(&self) -> bool {
        let terms = lock(&self.terms);
        terms.claims.as_ref().is_some_and(|one| one.readonly)
    }

    /// The time until the token expires; `None` without one.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        lock(&self.terms).left(now)
    }

    /// Whether the token has expired.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }

    /// What is due now. By the clock, as it stands in the token: a machine may have slept.
    pub fn due(&self, now: SystemTime) -> GrantDue {
        let terms = &mut *lock(&self.terms);
        match terms.left(now) {
            None => GrantDue::Nothing(None),
            Some(Duration::ZERO) => GrantDue::End,
            Some(left) if left > WARNED_BEFORE => GrantDue::Nothing(Some(left - WARNED_BEFORE)),
            Some(left) => match std::mem::replace(&mut terms.is_warned, true) {
                true => GrantDue::Nothing(Some(left)),
                false => GrantDue::Warning(left),
            },
        }
    }
}

impl Terms {
    /// The time until the end.
    fn left(&self, now: SystemTime) -> Option<Duration> {
        let exp = Duration::from_secs(self.claims.as_ref()?.exp);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(exp.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_warned_once_before_the_end_and_a_fresh_token_begins_anew() {
        let second = Duration::from_secs(1);
        let claims = |exp| Claims {
            exp,
            ..Claims::new("alice".parse().expect("a name"), second, None)
        };
        let at = |seconds| UNIX_EPOCH + seconds * second;
        let grant = Grant::of(claims(1100));
        assert_eq!(
            grant.due(at(1000)),
            GrantDue::Nothing(Some(100 * second - WARNED_BEFORE))
        );
        assert_eq!(grant.due(at(1090)), GrantDue::Warning(10 * second));
        assert_eq!(grant.due(at(1091)), GrantDue::Nothing(Some(9 * second)));
        // The same again is no reason to warn again.
        grant.replace(claims(1100));
        assert_eq!(grant.due(at(1092)), GrantDue::Nothing(Some(8 * second)));
        assert!(!grant.is_over(at(1099)));
        assert_eq!(grant.due(at(1100)), GrantDue::End);
        assert!(grant.is_over(at(1100)));
        grant.replace(claims(1130));
        assert_eq!(grant.due(at(1100)), GrantDue::Warning(30 * second));
        assert!(!Grant::of(claims(u64::MAX)).is_over(at(4_000_000)));
        assert_eq!(Grant::all().due(at(0)), GrantDue::Nothing(None));
    }
}
