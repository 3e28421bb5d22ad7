//! The backplane: what instances share. It stores messages, tells every instance that hosts the room, and
//! knows which users are present.
//!
//! Read the contract here, [`Backplane`]; then its two implementations, [`Local`] (one instance, in memory or on its
//! own disk) and [`Redis`]. The other files serve both: the [`backlog`] on the way in, the [`roster`] of this
//! instance's users, and the [`ban`]s. `tests/it/contract.rs` holds both to the contract:
//!
//! - A message is acknowledged only once the log holds it, under the id it has from then on.
//! - A room's entries form a chain: each names its predecessor. They reach the hub in that order,
//!   each once; where one is lost for good, a gap is delivered in its place.
//! - A room is heard from the moment [`Backplane::subscribe`] returns.

mod ban;
mod backlog;
mod roster;
mod local;
mod redis;

use std::collections::BTreeMap;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

pub use ban::{Ban, Banned, Deletions, conceal};
pub use local::{Local, LocalError, StoreError};
pub use redis::{ConnectError, Redis, RedisAddress};

use crate::hub::Order;
use crate::message::{Entry, MemberList, MessageId, RoomName, UserName, Via};
use crate::protocol::{Cursor, ListedRoom, Ref};

/// A message before it has an id.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The room.
    pub room: RoomName,
    /// The author.
    pub from: UserName,
    /// The text.
    pub text: String,
    /// The sender's ref. A repetition under it is the same message for [`Ref::LASTS`], and another text is refused
    /// as long as the log has the first.
    pub reference: Option<Ref>,
    /// The connection that it was sent on.
    pub via: Option<Via>,
}

/// A message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: MessageId,
    /// Whether it had been stored before, under the same ref.
    pub duplicate: bool,
}

/// The reason why the backplane did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackplaneError {
    /// It cannot be reached, so nothing was done. The asker may try again.
    Unavailable,
    /// It stopped answering: whether it was done is unknown. The asker may try again, and a
    /// message's ref makes that safe.
    NoAnswer,
    /// Too much waits to be stored, or too many refs are remembered, so nothing was done. The asker may try
    /// again.
    Overloaded,
    /// The disk takes no messages, so nothing was done. The asker may try again.
    DiskUnavailable,
    /// The disk did not answer in time: whether it was done is unknown. The asker may try again, and a
    /// message's ref makes that safe.
    DiskSilent,
    /// The ref is that of a message with another text, which the log has. The sender takes another ref.
    RefReused,
    /// It refuses, and says why; an operator acts next.
    Refused(String),
}

impl BackplaneError {
    /// Messages cannot be put into the room.
    fn has_later(room: &RoomName) -> Self {
        Self::Refused(format!("room {room:?} has later messages than these"))
    }

    /// Whether the asker may try again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::RefReused | Self::Refused(_) => false,
            Self::Unavailable
            | Self::NoAnswer
            | Self::Overloaded
            | Self::DiskUnavailable
            | Self::DiskSilent => true,
        }
    }

    /// Whether it may be done all the same.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::NoAnswer | Self::DiskSilent => true,
            Self::Unavailable
            | Self::Overloaded
            | Self::DiskUnavailable
            | Self::RefReused
            | Self::Refused(_) => false,
        }
    }
}

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("Redis is unavailable, try again"),
            Self::NoAnswer => f.write_str("Redis stopped answering, try again"),
            Self::DiskUnavailable => {
                f.write_str("the server's disk takes no messages now, try again")
            }
            Self::DiskSilent => f.write_str("the server's disk stopped answering, try again"),
            Self::Overloaded => f.write_str("the server is overloaded, try again"),
            Self::RefReused => f.write_str(
                "another text was sent under this ref less than five minutes ago; take a new one",
            ),
            Self::Refused(why) => write!(f, "Redis refuses: {why}"),
        }
    }
}

impl std::error::Error for BackplaneError {}

/// A part of a room's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excerpt {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Whether the log has more in the direction that was asked for.
    pub more: bool,
    /// The id to go on from, in the direction that was asked for: the last that was read, even of
    /// something in the log that is not a message. `None` if nothing was read.
    pub reach: Option<MessageId>,
}

/// What a connection needs to know of a room that it enters.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// The id of the newest message that the room's log took. It is known for [`LAST_ID_LASTS`] after
    /// the log forgot the message itself, so that a forgotten past is told from a lost one.
    pub tail: Option<MessageId>,
    /// The part of the log that was asked for.
    pub past: Excerpt,
    /// The users that were announced in the room and have not left. With them are users of an instance
    /// that was killed, until their leave is told.
    pub members: MemberList,
}

/// The state of one server of the backplane.
#[derive(Debug, Clone)]
pub struct ShardState {
    /// Its name.
    pub name: String,
    /// Why no message can be published and heard there now.
    pub trouble: Option<String>,
    /// The commands that wait to be sent.
    pub waiting: usize,
    /// The number of times that the command connection was lost.
    pub losses: u64,
    /// The number of times that the subscription was lost.
    pub cuts: u64,
}

/// Whether an instance on these servers can take users, and with which servers missing; if not, why.
pub fn readiness(shards: &[ShardState]) -> Result<String, String> {
    let away = shards.iter().filter_map(|shard| {
        let trouble = shard.trouble.as_ref()?;
        Some((shard, trouble))
    });
    let away: Vec<_> = away.collect();
    if let [(_, why)] = away[..]
        && shards.len() == 1
    {
        return Err(why.clone());
    }
    let named = away
        .iter()
        .map(|(shard, why)| format!("{}: {why}", shard.name));
    let named = named.collect::<Vec<_>>().join("; ");
    match away.len() {
        0 => Ok("ready".to_owned()),
        count if count < shards.len() => Ok(format!("ready, but for the rooms on {named}")),
        _ => Err(named),
    }
}

/// The way in which a connection left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The client said goodbye: the user is gone at once.
    Clean,
    /// The connection broke off: the user is gone after a grace, unless they come back before.
    Dropped,
}

/// Called once with the outcome of a publication.
pub type Receipt = Box<dyn FnOnce(Result<Stored, BackplaneError>) + Send>;

/// The contract of both backplanes. Deliveries go to the hub that the backplane was made with.
pub trait Backplane: Send + Sync {
    /// Stores a message and publishes it, in the order of the calls. Does not wait; `receipt` is
    /// called exactly once, within [`ANSWER_WITHIN`], by a thread that must not be kept waiting.
    fn publish(&self, draft: Draft, receipt: Receipt);

    /// Returns once every later message of the room will reach the hub, which must have a member
    /// in it by then.
    fn subscribe(&self, room: &RoomName) -> Result<(), BackplaneError>;

    /// The room may have lost its last member here; a while later, unless the hub hosts it again,
    /// it is no longer heard.
    fn unsubscribe(&self, room: &RoomName);

    /// Reads up to `limit` entries of the room's log.
    fn read(&self, room: &RoomName, page: Cursor, limit: usize) -> Result<Excerpt, BackplaneError>;

    /// The rooms that somebody is in, or that remember messages: the one with the newest message first, those without
    /// one last and by name, at most [`MOST_LISTED`]. It may be some seconds old, and have rooms that are gone.
    fn listed(&self) -> Result<Vec<RoomName>, BackplaneError>;

    /// Describes these rooms, in any order. Left out are rooms that nobody is in and that remember nothing, and those
    /// on a server that is away.
    fn describe(&self, rooms: &[RoomName]) -> Result<Vec<ListedRoom>, BackplaneError>;

    /// The rooms that remember messages, for an export. It may take long.
    fn rooms(&self) -> Result<Vec<RoomName>, BackplaneError>;

    /// Puts messages of another backplane into a room, with their ids and their chain, oldest first. They must come
    /// after all that the room has, or none is taken. Nobody is told: they are past.
    fn restore(&self, room: &RoomName, entries: &[Entry]) -> Result<(), BackplaneError>;

    /// Whether this message is older than all that this backplane can know: it began anew after it.
    fn began_after(&self, id: MessageId) -> bool;

    /// A connection of this user enters the room, which is subscribed to. If it is the first anywhere,
    /// the room is told. Without a user nobody enters. Then reads the room, all in one round trip: the newest id
    /// first, or a message stored in between would look like a log that lost its end.
    fn enter(
        &self,
        room: &RoomName,
        user: Option<&UserName>,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError>;

    /// A connection of this user left the room. If it was the last anywhere, the room is told.
    /// Does not wait.
    fn depart(&self, room: &RoomName, user: &UserName, departure: Departure);

    /// The users in the room, on all instances, in alphabetical order.
    fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError>;

    /// Tells the room that this user is typing. Best effort; does not wait.
    fn typing(&self, room: &RoomName, user: &UserName);

    /// Gives an order to the hubs of all instances. One that is cut off now does not hear it.
    fn order(&self, order: &Order) -> Result<(), BackplaneError>;

    /// Bans, or lifts a ban. Then all instances are ordered to read the bans, and one that is cut off now
    /// once it is not any more.
    fn set_ban(&self, banned: &Banned, ban: Option<&Ban>) -> Result<(), BackplaneError>;

    /// All bans, perhaps some that are over.
    fn bans(&self) -> Result<BTreeMap<Banned, Ban>, BackplaneError>;

    /// Takes the lease of a webhook of this room, or keeps it, for this time; a lease of no time gives it up. Returns
    /// the last message that was posted there, which is at least `posted` from now on, or `None` if another instance
    /// has the lease. The first lease of all begins behind the room's newest message.
    fn lease(
        &self,
        room: &RoomName,
        webhook: &str,
        posted: Option<MessageId>,
        lasts: Duration,
    ) -> Result<Option<MessageId>, BackplaneError>;

    /// The servers that the rooms are on, or the file; none if all is in memory.
    fn shards(&self) -> Vec<ShardState>;

    /// The number of publications that wait for their receipt.
    fn in_flight(&self) -> usize;

    /// Ends it: publications in flight get their receipts, this instance's users are given up to
    /// the others, subscriptions and connections are closed and the threads joined.
    fn close(&self);
}

/// The most rooms that are listed: those with the newest messages.
pub const MOST_LISTED: usize = 10_000;

/// Within this time every call is answered, also when the other side is frozen.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The id of a room's newest message is known for this long after its log was forgotten.
pub const LAST_ID_LASTS: Duration = Duration::from_secs(7 * 86_400);

/// The retention of messages and of presence, the same for both backplanes.
#[derive(Debug, Clone)]
pub struct Retention {
    /// The newest messages kept per room.
    pub history_length: usize,
    /// A room in which nothing was said for so long forgets its past.
    pub history_ttl: Duration,
    /// The most bytes that the embedded backplane remembers, over all rooms, in memory and on disk.
    pub history_bytes: usize,
    /// A user is present for this long without being renewed.
    pub presence_ttl: Duration,
    /// A user may be away for this long before they are announced as gone.
    pub presence_grace: Duration,
}

/// What becomes of a client that enters a room with what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resumed {
    /// Nothing is missing between what it has and the past that it is sent.
    pub recovered: bool,
    /// The last message of that past. What is said behind it is sent to the client as it comes.
    pub last: Option<MessageId>,
}

impl Resumed {
    /// The client reads the rest of a past that has more than this. `tail` is the room's newest id
    /// ([`Entrance::tail`]).
    pub fn reads_on(self, tail: Option<MessageId>) -> PastPlace {
        let last = self.last;
        PastPlace { last, tail }
    }
}

/// How far a client has read a long past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PastPlace {
    /// The last message that it was sent.
    pub last: Option<MessageId>,
    /// The room's newest id when it entered.
    tail: Option<MessageId>,
}

impl PastPlace {
    /// Takes the log's next entry. False if messages before it are missing: the log was trimmed meanwhile.
    pub fn follow(&mut self, entry: &Entry) -> bool {
        let follows = entry.prev == self.last;
        self.last = Some(entry.message.id);
        follows
    }

    /// Whether it has come as far as the room had when it entered. Otherwise the log has lost its end meanwhile.
    pub fn is_at_end(&self) -> bool {
        self.last >= self.tail
    }
}

/// Takes a client that has the messages up to `since` to the end of `past`, the part of the log that it is sent.
/// `tail` is the room's newest id ([`Entrance::tail`]).
pub fn resume(since: Option<MessageId>, past: &Excerpt, tail: Option<MessageId>) -> Resumed {
    let end = tail.filter(|_| !past.more);
    let last = past.entries.last().map(|entry| entry.message.id);
    Resumed {
        recovered: since.is_some_and(|since| continues(since, &past.entries, end)),
        // A log that lost its end continues from its newest id, and so does the client.
        last: last.max(end),
    }
}

/// Whether `entries` follow on from `since` and on each other without a hole, up to `tail`, the room's newest id
/// ([`Entrance::tail`]): a log that ends before it has lost its end. Where the log has more than these, there is no
/// `tail`. [`MessageId::ZERO`] stands for the time before the
/// first message.
pub fn continues(since: MessageId, entries: &[Entry], tail: Option<MessageId>) -> bool {
    let mut last = Some(since).filter(|&since| since != MessageId::ZERO);
    if entries.is_empty() {
        return tail == last;
    }
    let follow = entries.iter().all(|entry| {
        let follows = entry.prev == last;
        last = Some(entry.message.id);
        follows
    });
    follow && tail <= last
}

/// Whether these can be put into a room behind `last`, and another message behind them: their ids grow.
fn can_follow(last: Option<MessageId>, entries: &[Entry]) -> bool {
    let ids = entries.iter().map(|entry| entry.message.id);
    let ids = iter::once(last.unwrap_or(MessageId::ZERO)).chain(ids);
    ids.chain(iter::once(MessageId::GREATEST))
        .is_sorted_by(|one, next| one < next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn id(number: u64) -> MessageId {
        MessageId { millis: 1, number }
    }

    fn entry(prev: Option<u64>, number: u64) -> Entry {
        Entry {
            message: Message {
                id: id(number),
                from: "a".parse().expect("a name"),
                text: String::new(),
                at: 1,
            },
            prev: prev.map(id),
            via: None,
        }
    }

    #[test]
    fn a_chain_continues_only_if_every_link_fits() {
        assert!(continues(
            id(1),
            &[entry(Some(1), 2), entry(Some(2), 3)],
            None
        ));
        assert!(!continues(id(1), &[entry(Some(2), 3)], None));
        assert!(!continues(
            id(1),
            &[entry(Some(1), 2), entry(Some(3), 4)],
            None
        ));
        assert!(!continues(id(1), &[entry(None, 2)], None));
        assert!(continues(id(1), &[], Some(id(1))));
        assert!(!continues(id(1), &[], Some(id(2))));
        assert!(!continues(id(1), &[], None));
        let next = [entry(Some(1), 2)];
        assert!(continues(id(1), &next, Some(id(2))));
        assert!(continues(id(1), &next, Some(id(1))), "said since");
        assert!(!continues(id(1), &next, Some(id(3))), "it lost its end");
        let first = [entry(None, 1), entry(Some(1), 2)];
        assert!(continues(MessageId::ZERO, &first, None));
        assert!(!continues(MessageId::ZERO, &first[1..], None));
        assert!(continues(MessageId::ZERO, &[], None));
        assert!(!continues(MessageId::ZERO, &[], Some(id(1))));
    }

    #[test]
    fn an_instance_is_ready_while_any_of_its_servers_is() {
        let shard = |name: &str, trouble: Option<&str>| ShardState {
            name: name.to_owned(),
            trouble: trouble.map(str::to_owned),
            waiting: 0,
            losses: 0,
            cuts: 0,
        };
        let (one, away) = (shard("one", None), shard("two", Some("nothing listens")));
        let ready = Ok("ready".to_owned());
        assert_eq!(readiness(&[]), ready);
        assert_eq!(readiness(&[one.clone(), one.clone()]), ready);
        let but_for = "ready, but for the rooms on two: nothing listens";
        assert_eq!(readiness(&[one, away.clone()]), Ok(but_for.to_owned()));
        let all = "two: nothing listens; two: nothing listens";
        assert_eq!(
            readiness(&[away.clone(), away.clone()]),
            Err(all.to_owned())
        );
        // Nobody has to be told which one.
        assert_eq!(readiness(&[away]), Err("nothing listens".to_owned()));
    }
}
