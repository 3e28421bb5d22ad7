//! Bans: who or what is kept out, and until when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::message::{RoomName, UserName};

/// Who or what a ban keeps out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Banned {
    /// This user, from every room.
    User(UserName),
    /// Everybody, from this room: it is closed.
    Room(RoomName),
}

impl Banned {
    /// Its name in the store and in Redis; [`Banned::parse`] reads it.
    pub(super) fn key(&self) -> String {
        match self {
            Self::User(user) => format!("user {user}"),
            Self::Room(room) => format!("room {room}"),
        }
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        match key.split_once(' ')? {
            ("user", user) => Some(Self::User(user.parse().ok()?)),
            ("room", room) => Some(Self::Room(room.parse().ok()?)),
            _ => None,
        }
    }
}

/// A ban that is over is kept so much longer, in milliseconds: a clock that jumped may jump back.
pub(super) const KEPT_LONGER: u64 = 60 * 60 * 1000;

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Its end, in milliseconds since 1970.
    pub until: u64,
    /// Why, for users and for operators; one line, and perhaps empty.
    pub reason: String,
}

impl Ban {
    /// The time until its end, which is zero once it is over.
    pub fn left(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_millis(self.until).saturating_sub(now)
    }

    /// What users are told.
    pub fn sentence(&self, banned: &Banned, now: SystemTime) -> String {
        let done = match banned {
            Banned::User(_) => "banned this user",
            Banned::Room(_) => "closed this room",
        };
        let seconds = self.left(now).as_secs_f64().ceil();
        let units = [(86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes")];
        let fits = |(unit, _): &(f64, _)| seconds >= 2.0 * unit;
        let (unit, name) = units.into_iter().find(fits).unwrap_or((1.0, "seconds"));
        let count = (seconds / unit).ceil();
        let why = match &self.reason[..] {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        format!("an operator has {done} for {count} more {name}{why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_says_how_long_it_lasts_and_why() {
        let room = Banned::Room(RoomName::lobby());
        let said = |left: u64, reason: &str| {
            let ban = Ban {
                until: 1_000_000 + left,
                reason: reason.to_owned(),
            };
            ban.sentence(&room, UNIX_EPOCH + Duration::from_secs(1000))
        };
        assert!(said(1, "").ends_with("closed this room for 1 more seconds"));
        assert!(said(119_000, "").ends_with("for 119 more seconds"));
        assert!(said(119_001, "").ends_with("for 2 more minutes"));
        assert!(said(7_200_000, "spam").ends_with("for 2 more hours: spam"));
        assert!(said(400_000_000, "").ends_with("for 5 more days"));
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let user = Banned::User("room }x{ :%".parse().expect("a name"));
        for banned in [user, Banned::Room(RoomName::lobby())] {
            assert_eq!(Banned::parse(&banned.key()), Some(banned));
        }
        for foreign in ["", "user", "user ", "alice", "x y"] {
            assert_eq!(Banned::parse(foreign), None, "{foreign}");
        }
    }
}
