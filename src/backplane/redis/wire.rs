//! Commands, and the reading of replies and of published payloads. Nothing here waits or connects.

use std::sync::Arc;
use std::time::Duration;

use log::debug;
use redis::{Cmd, Script, Value, cmd};

use super::keys::Keys;
use crate::backplane::{BackplaneError, Draft, Excerpt, LAST_ID_LASTS, Retention, Stored};
use crate::message::{
    Entry, MemberList, Message, MessageId, Notice, PresenceChange, Revision, RoomName, UserName,
    Via,
};
use crate::protocol::{Cursor, Ref};

const PUBLISH: &str = concat!(include_str!("ids.lua"), include_str!("publish.lua"));
const PRESENCE: &str = include_str!("presence.lua");
const SERVERS: &str = include_str!("servers.lua");
const LOST: &str = concat!(include_str!("ids.lua"), include_str!("lost.lua"));

/// The time to live of the keys of [`Scripts::proof`].
const PROOF_STAYS: Duration = Duration::from_secs(10);

/// The time for which a list of servers is remembered that no instance uses any more.
const SERVERS_STAY: Duration = Duration::from_secs(10);

/// The bytes of a command to publish beside the text, about: the hash, and names of a usual length.
const PUBLISH_BESIDE_TEXT: usize = 512;

/// How rooms are published to and heard: in a cluster by sharded Pub/Sub, which stays on the room's node
/// (<https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PubSub {
    Plain,
    Sharded,
}

impl PubSub {
    fn publish(self) -> &'static str {
        match self {
            Self::Plain => "PUBLISH",
            Self::Sharded => "SPUBLISH",
        }
    }

    /// Subscribes to channels of rooms: packed commands, which Redis answers with a push for each channel. A
    /// cluster takes channels of one slot in one command, so there each has its own.
    pub(super) fn subscribe(self, channels: &[String]) -> Vec<u8> {
        match self {
            Self::Plain => cmd("SUBSCRIBE").arg(channels).get_packed_command(),
            Self::Sharded => {
                let mut commands = Vec::new();
                for channel in channels {
                    let mut subscribe = cmd("SSUBSCRIBE");
                    subscribe.arg(channel).write_packed_command(&mut commands);
                }
                commands
            }
        }
    }

    /// Ends the subscription to a room's channel.
    pub(super) fn unsubscribe(self, channel: &str) -> Vec<u8> {
        let mut unsubscribe = match self {
            Self::Plain => cmd("UNSUBSCRIBE"),
            Self::Sharded => cmd("SUNSUBSCRIBE"),
        };
        unsubscribe.arg(channel).get_packed_command()
    }
}

/// The atomic steps, loaded into Redis once per connection and run by their hash.
#[derive(Clone)]
pub(super) struct Scripts {
    publish: Arc<Script>,
    presence: Arc<Script>,
    pubsub: PubSub,
}

impl Scripts {
    pub(super) fn new(pubsub: PubSub) -> Self {
        Self {
            publish: Arc::new(Script::new(PUBLISH)),
            presence: Arc::new(Script::new(PRESENCE)),
            pubsub,
        }
    }

    /// How they publish.
    pub(super) fn pubsub(&self) -> PubSub {
        self.pubsub
    }

    /// The commands that make Redis know them.
    pub(super) fn load(&self) -> [Cmd; 2] {
        [PUBLISH, PRESENCE].map(|source| {
            let mut command = cmd("SCRIPT");
            command.arg("LOAD").arg(source);
            command
        })
    }

    /// Says a message. Its id lies `leap` ahead of the clock.
    pub(super) fn publish(
        &self,
        keys: &Keys,
        draft: &Draft,
        retention: &Retention,
        leap: Duration,
    ) -> Cmd {
        // Room for all of it, since a vector that grows step by step is copied each time.
        let mut command = Cmd::with_capacity(16, draft.text.len() + PUBLISH_BESIDE_TEXT);
        command.arg("EVALSHA").arg(self.publish.get_hash());
        let (log, newest) = (keys.log(&draft.room), keys.newest(&draft.room));
        match keys.reference(draft) {
            Some(reference) => command.arg(3).arg(log).arg(newest).arg(reference),
            None => command.arg(2).arg(log).arg(newest),
        };
        command
            .arg(self.pubsub.publish())
            .arg(keys.channel(&draft.room))
            .arg(draft.from.as_str())
            .arg(&draft.text)
            .arg(draft.via.map(|via| via.to_string()).unwrap_or_default())
            .arg(retention.history_length)
            .arg(retention.history_ttl.as_millis() as u64)
            .arg((retention.history_ttl + LAST_ID_LASTS).as_millis() as u64)
            .arg(Ref::LASTS.as_millis() as u64)
            .arg(leap.as_millis() as u64);
        command
    }

    /// Asks whether the log has a message that was acknowledged, and tells the room if it does not.
    pub(super) fn look_for(&self, keys: &Keys, room: &RoomName, id: MessageId) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(LOST).arg(2);
        command.arg(keys.log(room)).arg(keys.newest(room));
        command.arg(self.pubsub.publish()).arg(keys.channel(room));
        command.arg(id.to_string());
        command.arg(LAST_ID_LASTS.as_millis() as u64);
        command
    }

    /// Publishes an empty message to this instance alone. Redis answers with an error while it takes no
    /// messages.
    pub(super) fn proof(&self, keys: &Keys) -> Cmd {
        const KEEP: usize = 1;
        let mut command = cmd("EVALSHA");
        command.arg(self.publish.get_hash()).arg(2);
        let channel = keys.proof();
        command.arg(format!("{channel}:log"));
        command.arg(format!("{channel}:newest"));
        command.arg(self.pubsub.publish());
        let (from, text, via) = ("", "", "");
        let stays = PROOF_STAYS.as_millis() as u64;
        command.arg(channel).arg(from).arg(text).arg(via).arg(KEEP);
        let leap = 0;
        command.arg(stays).arg(stays).arg(stays).arg(leap);
        command
    }

    pub(super) fn typing(&self, keys: &Keys, room: &RoomName, user: &UserName) -> Cmd {
        let mut command = cmd(self.pubsub.publish());
        command
            .arg(keys.channel(room))
            .arg(format!("t\n{}", user.as_str()));
        command
    }

    pub(super) fn presence<'a>(
        &self,
        keys: &Keys,
        term: u64,
        room: &RoomName,
        step: PresenceStep,
        users: impl IntoIterator<Item = &'a UserName>,
    ) -> Cmd {
        let (operation, millis) = match step {
            PresenceStep::Arrive { ttl } => ("arrive", ttl.as_millis()),
            PresenceStep::ArriveAnew { ttl } => ("anew", ttl.as_millis()),
            PresenceStep::Depart => ("depart", 0),
            PresenceStep::Renew { ttl } => ("renew", ttl.as_millis()),
            PresenceStep::Retire { grace } => ("retire", grace.as_millis()),
            PresenceStep::Sweep { until } => ("sweep", until.into()),
            PresenceStep::Members => ("members", 0),
            PresenceStep::Count => ("count", 0),
            PresenceStep::Roll => ("roll", 0),
        };
        let channel = keys.channel(room);
        let mut command = cmd("EVALSHA");
        command
            .arg(self.presence.get_hash())
            .arg(3)
            .arg(keys.members(room))
            .arg(format!("{channel}:instances"))
            .arg(format!("{channel}:revision"))
            .arg(operation)
            .arg(self.pubsub.publish())
            .arg(&channel)
            .arg(format!("{}.{term}", keys.instance()))
            .arg(millis as u64);
        for user in users {
            command.arg(user.as_str());
        }
        command
    }
}

/// The operations of `presence.lua`.
#[derive(Debug, Clone, Copy)]
pub(super) enum PresenceStep {
    Arrive {
        ttl: Duration,
    },
    ArriveAnew {
        ttl: Duration,
    },
    Depart,
    Renew {
        ttl: Duration,
    },
    Retire {
        grace: Duration,
    },
    /// Until when it may run, by Redis's clock, in milliseconds.
    Sweep {
        until: u64,
    },
    Members,
    Count,
    Roll,
}

/// Reads a page of a room's log: newest first for `Newest` and `Before`, oldest first for `After`.
pub(super) fn read(keys: &Keys, room: &RoomName, page: Cursor, limit: usize) -> Cmd {
    let log = keys.log(room);
    // There is nothing before the first id nor after the last: an empty range says so.
    let (name, from, to) = match page {
        Cursor::Newest => ("XREVRANGE", "+".to_owned(), "-".to_owned()),
        Cursor::Before(id) => match id.previous() {
            Some(end) => ("XREVRANGE", end.to_string(), "-".to_owned()),
            None => ("XREVRANGE", "0-0".to_owned(), "1-0".to_owned()),
        },
        Cursor::After(id) => match id.next() {
            Some(start) => ("XRANGE", start.to_string(), "+".to_owned()),
            None => ("XRANGE", "1-0".to_owned(), "0-0".to_owned()),
        },
    };
    let mut command = cmd(name);
    command.arg(log).arg(from).arg(to).arg("COUNT").arg(limit);
    command
}

/// Reads up to `limit` entries of a room's log; [`excerpt`] reads the answer. One more than asked for
/// tells whether there is more.
pub(super) fn read_excerpt(keys: &Keys, room: &RoomName, page: Cursor, limit: usize) -> Cmd {
    read(keys, room, page, limit.saturating_add(1))
}

/// Reads the answer to [`read_excerpt`].
pub(super) fn excerpt(
    value: &Value,
    page: Cursor,
    limit: usize,
) -> Result<Excerpt, BackplaneError> {
    let mut items = items(value)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let reach = items.last().map(LogItem::id);
    if matches!(page, Cursor::Newest | Cursor::Before(_)) {
        items.reverse();
    }
    Ok(Excerpt {
        entries: items.into_iter().filter_map(LogItem::into_entry).collect(),
        more,
        reach,
    })
}

/// The two questions for the id of a room's newest message; [`tail_answer`] reads the answers. The log's own
/// last entry tells it where the key was lost.
pub(super) fn tail(keys: &Keys, room: &RoomName) -> [Cmd; 2] {
    let mut newest = cmd("GET");
    newest.arg(keys.newest(room));
    [newest, read(keys, room, Cursor::Newest, 1)]
}

/// Reads the answers to [`tail`].
pub(super) fn tail_answer(values: &[Value]) -> Result<Option<MessageId>, BackplaneError> {
    let [newest, last_entry] = values else {
        return Err(unexpected("GET"));
    };
    if let Some(Ok(id)) = text(newest).map(str::parse) {
        return Ok(Some(id));
    }
    let last_entry = items(last_entry)?.pop().and_then(LogItem::into_entry);
    Ok(last_entry.map(|entry| entry.message.id))
}

/// Notes this list of servers for a while in Redis, and asks whether other instances have noted another.
pub(super) fn note_servers(keys: &Keys, list: &str) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(SERVERS).arg(1).arg(keys.servers()).arg(list);
    command.arg(SERVERS_STAY.as_millis() as u64);
    command
}

/// Reads the answer to [`note_servers`]: the list that the other instances use, if it is another.
pub(super) fn other_servers(value: &Value) -> Option<&str> {
    text(value)
}

/// Asks what Redis does when its memory is full.
pub(super) fn memory_policy() -> Cmd {
    let mut command = cmd("INFO");
    command.arg("memory");
    command
}

/// The policy in the answer to [`memory_policy`], if it evicts keys. All of ours have a time to live, so
/// every other policy than `noeviction` does
/// (<https://redis.io/docs/latest/develop/reference/eviction/>).
pub(super) fn evicting_policy(info: &Value) -> Option<&str> {
    let field = |name: &str| {
        let mut lines = text(info)?.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let is_bounded = field("maxmemory") != Some("0");
    field("maxmemory_policy").filter(|policy| is_bounded && *policy != "noeviction")
}

/// Publishes to this instance's own control channel.
pub(super) fn to_myself(keys: &Keys, payload: &str) -> Cmd {
    let mut command = cmd("PUBLISH");
    command.arg(keys.control()).arg(payload);
    command
}

/// Whether Redis refused a command since somebody put something of another kind under the key.
pub(super) fn is_of_another_kind(refusal: &str) -> bool {
    refusal.starts_with("WRONGTYPE")
}

pub(super) fn unexpected(what: &str) -> BackplaneError {
    BackplaneError::Refused(format!("{what} was not answered as expected"))
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Reads what `publish.lua` returns.
pub(super) fn publish_answer(value: &Value) -> Result<Stored, BackplaneError> {
    let parts = || match value {
        Value::Array(parts) => match &parts[..] {
            [id, Value::Int(known)] => Some((text(id)?.parse().ok()?, *known)),
            _ => None,
        },
        _ => None,
    };
    match parts().ok_or_else(|| unexpected("publish.lua"))? {
        (_, 2) => Err(BackplaneError::RefReused),
        (id, known) => Ok(Stored {
            id,
            duplicate: known == 1,
        }),
    }
}

/// Whether a renewal found that Redis does not know this instance.
pub(super) fn is_forgotten(value: &Value) -> bool {
    *value == Value::Int(0)
}

/// What a sweep found.
pub(super) struct Swept {
    /// Whether Redis knows this instance.
    pub(super) is_known: bool,
    /// Redis's clock, in milliseconds.
    pub(super) clock: u64,
    /// The time until the next instance lets its users expire, if there is one.
    pub(super) next: Option<Duration>,
}

/// Reads what a sweep returns.
pub(super) fn sweep_answer(value: &Value) -> Option<Swept> {
    match value {
        Value::Array(parts) => match parts[..] {
            [Value::Int(known), Value::Int(now), Value::Int(next)] => Some(Swept {
                is_known: known == 1,
                clock: now.try_into().ok()?,
                next: (next > 0).then(|| Duration::from_millis((next - now).max(0) as u64)),
            }),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a list of members: their revision, and then their names, on lines of their own.
pub(super) fn member_list(value: &Value) -> Result<MemberList, BackplaneError> {
    let mut lines = text(value).map_or("", |lines| lines).lines();
    let revision = lines.next().and_then(Revision::parse);
    let revision = revision.ok_or_else(|| unexpected("presence.lua"))?;
    let mut users: Vec<UserName> = lines.filter_map(|name| name.parse().ok()).collect();
    users.sort_unstable();
    Ok(MemberList {
        users: users.into(),
        revision,
    })
}

/// One entry of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogItem {
    Entry(Entry),
    /// Something that Hubbub did not write. It is skipped, and yet has its place in the log.
    Foreign(MessageId),
}

impl LogItem {
    pub(super) fn id(&self) -> MessageId {
        match self {
            Self::Entry(entry) => entry.message.id,
            Self::Foreign(id) => *id,
        }
    }

    pub(super) fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Foreign(_) => None,
        }
    }
}

/// Reads what XRANGE and XREVRANGE return.
pub(super) fn items(value: &Value) -> Result<Vec<LogItem>, BackplaneError> {
    let Value::Array(items) = value else {
        return Err(unexpected("XRANGE"));
    };
    items
        .iter()
        .map(|item| item_of(item).ok_or_else(|| unexpected("XRANGE")))
        .collect()
}

fn item_of(item: &Value) -> Option<LogItem> {
    let Value::Array(item) = item else {
        return None;
    };
    let [id, Value::Array(fields)] = &item[..] else {
        return None;
    };
    let id = text(id)?;
    Some(match entry(id, fields) {
        Some(entry) => LogItem::Entry(entry),
        None => {
            debug!("a room's log has an entry that is not Hubbub's: {id}");
            LogItem::Foreign(id.parse().ok()?)
        }
    })
}

fn entry(id: &str, fields: &[Value]) -> Option<Entry> {
    let (mut from, mut said, mut via, mut prev) = (None, None, None, None);
    for pair in fields.chunks_exact(2) {
        let value = text(&pair[1]);
        match text(&pair[0])? {
            "from" => from = value,
            "text" => said = value,
            "via" => via = value,
            "prev" => prev = value,
            _ => {}
        }
    }
    assemble(id, prev?, via?, from?, said?)
}

fn assemble(id: &str, prev: &str, via: &str, from: &str, text: &str) -> Option<Entry> {
    let id: MessageId = id.parse().ok()?;
    Some(Entry {
        message: Message {
            id,
            from: from.parse().ok()?,
            text: text.to_owned(),
            at: id.millis,
        },
        prev: if prev.is_empty() {
            None
        } else {
            Some(prev.parse().ok()?)
        },
        via: Via::parse(via),
    })
}

/// A message or a notice on a room's channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Message(Entry),
    Notice(Notice),
    Loss(Loss),
}

/// A failover lost messages. See `lost.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Loss {
    /// The last message before them that is left.
    pub(super) after: MessageId,
    /// The newest id until this was found, and from then on.
    pub(super) newest: MessageId,
    pub(super) mark: MessageId,
}

/// Parses a payload that a script published; `None` for any other. Each field is one line; the text comes
/// last, since it alone may hold line breaks.
pub(super) fn payload(bytes: &[u8]) -> Option<Payload> {
    let payload = std::str::from_utf8(bytes).ok()?;
    let (kind, rest) = payload.split_once('\n')?;
    Some(match kind {
        "m" => {
            let mut fields = rest.splitn(5, '\n');
            let mut field = || fields.next();
            Payload::Message(assemble(field()?, field()?, field()?, field()?, field()?)?)
        }
        "j" | "l" => {
            let (revision, user) = rest.split_once('\n')?;
            Payload::Notice(Notice::Presence(PresenceChange {
                user: user.parse().ok()?,
                joined: kind == "j",
                revision: Revision::parse(revision)?,
            }))
        }
        "g" => {
            let mut ids = rest.split('\n').map(str::parse);
            Payload::Loss(Loss {
                after: ids.next()?.ok()?,
                newest: ids.next()?.ok()?,
                mark: ids.next()?.ok()?,
            })
        }
        "t" => Payload::Notice(Notice::Typing(rest.parse().ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_keeps_line_breaks_in_the_text_alone() {
        let Some(Payload::Message(entry)) = payload(b"m\n5-1\n5-0\n\nalice\none\ntwo\n") else {
            panic!("a message")
        };
        assert_eq!(entry.message.text, "one\ntwo\n");
        assert_eq!(entry.prev.map(|id| id.to_string()).as_deref(), Some("5-0"));
        assert_eq!(entry.via, None);
        for foreign in ["", "m", "m\n5-1", "x\ny", "m\n5-1\nq\n\nalice\nhi"] {
            assert_eq!(payload(foreign.as_bytes()), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_loss_has_three_ids() {
        let id = |millis| MessageId { millis, number: 0 };
        let loss = Payload::Loss(Loss {
            after: id(1),
            newest: id(3),
            mark: id(9),
        });
        assert_eq!(payload(b"g\n1-0\n3-0\n9-0"), Some(loss));
        assert_eq!(payload(b"g\n1-0\n3-0"), None);
    }

    #[test]
    fn only_a_policy_that_may_evict_is_named() {
        let policy = |maxmemory: &str, policy: &str| {
            let info =
                format!("# Memory\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\n");
            let info = Value::BulkString(info.into_bytes());
            evicting_policy(&info).map(str::to_owned)
        };
        assert_eq!(policy("0", "allkeys-lru"), None);
        assert_eq!(policy("1000", "noeviction"), None);
        let evicts = policy("1000", "volatile-ttl");
        assert_eq!(evicts.as_deref(), Some("volatile-ttl"));
        assert_eq!(evicting_policy(&Value::Nil), None);
    }

    #[test]
    fn a_renewal_and_a_sweep_say_whether_the_instance_is_known() {
        assert!(is_forgotten(&Value::Int(0)) && !is_forgotten(&Value::Int(1)));
        let swept = |known, now, next| {
            let parts = [known, now, next].map(Value::Int).to_vec();
            let swept = sweep_answer(&Value::Array(parts)).expect("an answer");
            (swept.is_known, swept.clock, swept.next)
        };
        let in_five = Some(Duration::from_millis(5));
        assert_eq!(swept(1, 10, 15), (true, 10, in_five));
        assert_eq!(swept(0, 10, 0), (false, 10, None));
        assert_eq!(swept(1, 10, 8), (true, 10, Some(Duration::ZERO)));
        assert!(sweep_answer(&Value::Nil).is_none());
    }

    #[test]
    fn another_list_of_servers_is_named() {
        assert_eq!(other_servers(&Value::Nil), None);
        let other = Value::BulkString(b"a:1 b:1".to_vec());
        assert_eq!(other_servers(&other), Some("a:1 b:1"));
    }
}
