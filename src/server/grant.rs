//! What a connection may do, and until when: the claims of its token. A fresh token on the same connection
//! replaces them.
//!
//! The session asks for rooms. The heartbeat, which wakes up anyway, warns the client and ends the connection.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::token::Claims;
use crate::message::RoomName;
use crate::threads::lock;

/// The client is told so long before its token expires.
const WARNED_BEFORE: Duration = Duration::from_secs(60);

/// The claims of a connection's token.
#[derive(Debug, Default)]
pub struct Grant {
    terms: Mutex<Terms>,
}

#[derive(Debug, Default)]
struct Terms {
    /// `None` for all.
    rooms: Option<Vec<RoomName>>,
    /// `None` for a connection that needs no token.
    ends: Option<Instant>,
    is_warned: bool,
}

/// What is due about the end of a grant.
#[derive(Debug, PartialEq, Eq)]
pub enum GrantDue {
    /// Nothing before this time.
    Nothing(Option<Instant>),
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

    /// What these claims allow, from now on.
    pub fn of(claims: Claims, now: Instant) -> Self {
        let grant = Self::default();
        grant.replace(claims, now);
        grant
    }

    /// From now on these claims count.
    pub fn replace(&self, claims: Claims, now: Instant) {
        let ends = now.checked_add(claims.left());
        let terms = &mut *lock(&self.terms);
        // One that ends no later is no news.
        let is_later = ends.is_none_or(|ends| terms.ends.is_none_or(|before| ends > before));
        *terms = Terms {
            rooms: claims.rooms,
            ends,
            is_warned: terms.is_warned && !is_later,
        };
    }

    /// Whether it allows this room.
    pub fn allows(&self, room: &RoomName) -> bool {
        let terms = lock(&self.terms);
        terms
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(room))
    }

    /// Whether the token has expired.
    pub fn is_over(&self, now: Instant) -> bool {
        lock(&self.terms).ends.is_some_and(|ends| now >= ends)
    }

    /// What is due now.
    pub fn due(&self, now: Instant) -> GrantDue {
        let terms = &mut *lock(&self.terms);
        let Some(ends) = terms.ends else {
            return GrantDue::Nothing(None);
        };
        let left = ends.saturating_duration_since(now);
        if left.is_zero() {
            return GrantDue::End;
        }
        if left > WARNED_BEFORE {
            return GrantDue::Nothing(Some(now + (left - WARNED_BEFORE)));
        }
        match std::mem::replace(&mut terms.is_warned, true) {
            true => GrantDue::Nothing(Some(ends)),
            false => GrantDue::Warning(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_warned_once_before_the_end_and_a_fresh_token_begins_anew() {
        let second = Duration::from_secs(1);
        let claims = |life| Claims::new("alice".parse().expect("a name"), life, None);
        let now = Instant::now();
        let grant = Grant::of(claims(100 * second), now);
        let GrantDue::Nothing(Some(warned_at)) = grant.due(now) else {
            panic!("it is not due yet");
        };
        // A claim has whole seconds.
        assert!(warned_at - now > 38 * second && warned_at - now <= 40 * second);
        let GrantDue::Warning(left) = grant.due(warned_at) else {
            panic!("it is due");
        };
        assert_eq!(left, WARNED_BEFORE);
        let ends = warned_at + WARNED_BEFORE;
        assert_eq!(grant.due(warned_at), GrantDue::Nothing(Some(ends)));
        assert!(!grant.is_over(ends - second));
        assert_eq!(grant.due(ends), GrantDue::End);
        assert!(grant.is_over(ends));
        grant.replace(claims(10 * second), ends);
        assert!(matches!(grant.due(ends), GrantDue::Warning(_)));
        // The same again is no reason to warn again.
        grant.replace(claims(10 * second), ends - second);
        assert!(matches!(grant.due(ends - second), GrantDue::Nothing(_)));
        let far = Grant::of(claims(Duration::from_secs(u64::MAX)), now);
        assert!(!far.is_over(now + 1000 * second));
        assert_eq!(Grant::all().due(now), GrantDue::Nothing(None));
    }
}
