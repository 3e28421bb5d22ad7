//! Bans: who or what is kept out, and until when; and what operators have deleted, which is kept from all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::message::{Message, MessageId, RoomName, UserName};

/// Who or what a ban keeps out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Banned {
    /// This user, from every room.
    User(UserName),
    /// Everybody, from this room: it is closed.
    Room(RoomName),
    /// This message of the room, from everybody: it is deleted.
    Message(RoomName, MessageId),
    /// The room's messages up to this one, from everybody: they are deleted.
    Past(RoomName, MessageId),
}

impl Banned {
    /// Whether it is a deletion, which keeps nobody out.
    pub fn is_deletion(&self) -> bool {
        match self {
            Self::User(_) | Self::Room(_) => false,
            Self::Message(..) | Self::Past(..) => true,
        }
    }

    /// Its name in the store and in Redis; [`Banned::parse`] reads it.
    pub(super) fn key(&self) -> String {
        match self {
            Self::User(user) => format!("user {user}"),
            Self::Room(room) => format!("room {room}"),
            Self::Message(room, id) => format!("message {id} {room}"),
            Self::Past(room, id) => format!("past {id} {room}"),
        }
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        match key.split_once(' ')? {
            ("user", user) => Some(Self::User(user.parse().ok()?)),
            ("room", room) => Some(Self::Room(room.parse().ok()?)),
            (kind @ ("message" | "past"), place) => {
                let (id, room) = place.split_once(' ')?;
                let (room, id) = (room.parse().ok()?, id.parse().ok()?);
                Some(match kind {
                    "past" => Self::Past(room, id),
                    _ => Self::Message(room, id),
                })
            }
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
            Banned::Message(..) | Banned::Past(..) => "deleted this",
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

/// What everybody reads in place of a deleted message. Its place in the log stays, and so does the chain.
const DELETED: &str = "(deleted by an operator)";

/// What operators have deleted in one room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deletions {
    /// Single messages.
    pub ids: BTreeSet<MessageId>,
    /// All messages up to this one.
    pub up_to: Option<MessageId>,
}

/// Takes the text out of one message of a room, if it is deleted.
pub fn conceal(bans: &BTreeMap<Banned, Ban>, room: &RoomName, message: &mut Message) {
    let pasts = [message.id, MessageId::GREATEST].map(|id| Banned::Past(room.clone(), id));
    let [first, last] = pasts;
    let is_deleted = bans.contains_key(&Banned::Message(room.clone(), message.id))
        || bans.range(first..=last).next().is_some();
    if is_deleted {
        DELETED.clone_into(&mut message.text);
    }
}

impl Deletions {
    /// Those of a room.
    pub fn of(bans: &BTreeMap<Banned, Ban>, room: &RoomName) -> Self {
        let ends = [MessageId::ZERO, MessageId::GREATEST];
        let [first, last] = ends.map(|id| Banned::Message(room.clone(), id));
        let ids = bans
            .range(first..=last)
            .filter_map(|(banned, _)| match banned {
                Banned::Message(_, id) => Some(*id),
                Banned::User(_) | Banned::Room(_) | Banned::Past(..) => None,
            });
        let [first, last] = ends.map(|id| Banned::Past(room.clone(), id));
        let up_to = match bans.range(first..=last).next_back() {
            Some((Banned::Past(_, id), _)) => Some(*id),
            _ => None,
        };
        Self {
            ids: ids.collect(),
            up_to,
        }
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.up_to.is_none()
    }

    /// Those of these two that are not in `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.ids.retain(|id| !before.ids.contains(id));
        self.up_to = self.up_to.filter(|_| self.up_to > before.up_to);
        self
    }

    /// Those that concern a client that has the messages up to `last`.
    #[must_use]
    pub fn up_to(mut self, last: MessageId) -> Self {
        let up_to = self.up_to;
        self.ids.retain(|&id| Some(id) > up_to && id <= last);
        self
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
        let id = MessageId {
            millis: 7,
            number: 1,
        };
        let room: RoomName = "room }x{ :%".parse().expect("a name");
        let (message, past) = (Banned::Message(room.clone(), id), Banned::Past(room, id));
        for banned in [user, Banned::Room(RoomName::lobby()), message, past] {
            assert_eq!(Banned::parse(&banned.key()), Some(banned));
        }
        for foreign in [
            "",
            "message 7-1",
            "past x lobby",
            "user",
            "user ",
            "alice",
            "x y",
        ] {
            assert_eq!(Banned::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn deletions_are_those_of_the_room_and_keep_nobody_out() {
        let (lobby, other) = (
            RoomName::lobby(),
            "other".parse::<RoomName>().expect("a name"),
        );
        let id = |millis| MessageId { millis, number: 0 };
        let ban = || Ban {
            until: u64::MAX,
            reason: String::new(),
        };
        let user = Banned::User("alice".parse().expect("a name"));
        let all = [
            user.clone(),
            Banned::Room(lobby.clone()),
            Banned::Message(lobby.clone(), id(3)),
            Banned::Message(lobby.clone(), id(7)),
            Banned::Message(other.clone(), id(8)),
            Banned::Past(lobby.clone(), id(2)),
            Banned::Past(lobby.clone(), id(5)),
            Banned::Past(other, id(9)),
        ];
        let kept_out: Vec<_> = all.iter().filter(|one| !one.is_deletion()).collect();
        assert_eq!(kept_out, [&user, &Banned::Room(lobby.clone())]);
        let bans = all.into_iter().map(|one| (one, ban())).collect();
        let deletions = Deletions::of(&bans, &lobby);
        let (some, past) = (BTreeSet::from([id(3), id(7)]), Some(id(5)));
        assert_eq!((&deletions.ids, deletions.up_to), (&some, past));
        // Those up to the past need not be named, and those behind the client's last message do not concern it.
        assert_eq!(deletions.clone().up_to(id(7)).ids, BTreeSet::from([id(7)]));
        assert_eq!(deletions.clone().up_to(id(6)).ids, BTreeSet::new());
        let at_its_end = Deletions {
            ids: BTreeSet::from([id(5)]),
            up_to: past,
        };
        assert_eq!(at_its_end.up_to(id(7)).ids, BTreeSet::new());
        let before = Deletions {
            ids: BTreeSet::from([id(3)]),
            up_to: Some(id(4)),
        };
        let new = deletions.clone().since(&before);
        assert_eq!((new.ids, new.up_to), (BTreeSet::from([id(7)]), past));
        assert!(deletions.clone().since(&deletions).is_empty());
        assert_eq!(before.since(&deletions), Deletions::default());
    }
}
