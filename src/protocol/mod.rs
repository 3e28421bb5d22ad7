//! The messages over a WebSocket: a client sends [`Command`]s, and a server sends [`Event`]s.
//!
//! Read these values first. [`json`] and [`text`] are two encodings of the same values; the subprotocol
//! of the handshake chooses one. [`records`] has those of clients that follow a room over HTTP and only listen.
//! Nothing here knows a socket, a room or Redis.

pub mod json;
pub mod text;
pub mod records;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::{Message, MessageId, RoomName, UserName, Via};

/// In a room of more users than this, joins and leaves are not announced: a thousand users that join
/// would cause half a million notices.
pub const ANNOUNCED_MEMBERS: usize = 256;

/// The number of rooms in a list when the request names no limit.
pub const ROOMS_DEFAULT: usize = 100;

/// The most rooms in one list.
pub const ROOMS_MOST: usize = 1000;

/// The encoding that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lines for people and shell scripts, one room per connection.
    Text,
    /// One JSON object a frame, any number of rooms.
    Json,
    /// Server-sent events, for a client that follows one room over HTTP (WHATWG HTML §9.2).
    EventStream,
    /// The same, one JSON object a line.
    JsonLines,
}

impl Encoding {
    /// All of them, each at the index `encoding as usize`.
    pub const ALL: [Self; 4] = [Self::Text, Self::Json, Self::EventStream, Self::JsonLines];

    /// Its name: the subprotocol of a WebSocket's handshake (RFC 6455 §1.9), or the media type of a response that
    /// does not end.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "hubbub.text",
            Self::Json => "hubbub.v1",
            Self::EventStream => "text/event-stream",
            Self::JsonLines => "application/x-ndjson",
        }
    }

    /// Whether it is for a client that only listens, over HTTP. It has no frames: its payloads are written as they
    /// are.
    pub const fn is_for_followers(self) -> bool {
        match self {
            Self::Text | Self::Json => false,
            Self::EventStream | Self::JsonLines => true,
        }
    }

    /// An estimate of the bytes that a message takes in an outbox, rather too high than too low.
    pub fn estimated_bytes(self, message: &Message) -> usize {
        match self {
            Self::Text => text::estimated_bytes(message),
            Self::Json => json::estimated_bytes(message),
            Self::EventStream | Self::JsonLines => records::estimated_bytes(message),
        }
    }

    /// The payloads of the frames for an event, in order. There are none if this encoding tells its users
    /// nothing of the event.
    pub fn encode(self, event: &Event) -> Vec<String> {
        match self {
            Self::Text => text::encode(event),
            Self::Json => vec![json::encode(event)],
            Self::EventStream => records::server_sent_events(event),
            Self::JsonLines => records::json_lines(event),
        }
    }
}

/// The sender's own name for a message. A retry under the same ref stores nothing new.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ref(String);

impl Ref {
    /// The length of the longest ref, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The backplane remembers a ref for this time, and a retry is safe for as long.
    pub const LASTS: Duration = Duration::from_secs(5 * 60);

    /// A new ref; 128 random bits make it unique.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As the sender wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Ref {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > Self::MAX_BYTES || text.chars().any(char::is_control) {
            return Err(format!(
                "a ref is 1 to {} bytes without control characters",
                Self::MAX_BYTES
            ));
        }
        Ok(Self(text))
    }
}

impl From<Ref> for String {
    fn from(reference: Ref) -> Self {
        reference.0
    }
}

/// A request of a client. Its fields are those of the JSON encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Command {
    /// Enter a room.
    Join {
        /// The room.
        room: RoomName,
        /// Resume after this message.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<MessageId>,
        /// Without `since`: the number of past messages to send first.
        #[serde(skip_serializing_if = "Option::is_none")]
        history: Option<usize>,
    },
    /// Leave a room.
    Leave {
        /// The room.
        room: RoomName,
    },
    /// Say something.
    Send {
        /// The room.
        room: RoomName,
        /// The text of the message.
        text: String,
        /// Makes a retry safe for five minutes.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
    /// Read a page of the past.
    History {
        /// The room.
        room: RoomName,
        /// The place where the page begins or ends.
        #[serde(flatten, skip_serializing_if = "Cursor::is_newest")]
        page: Cursor,
        /// The most messages that the page may hold.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// Ask for the users that are in the room.
    Members {
        /// The room.
        room: RoomName,
    },
    /// Tell the others that this user is typing.
    Typing {
        /// The room.
        room: RoomName,
    },
    /// Ask for the rooms that there are.
    Rooms {
        /// Only rooms whose names begin so, in the same case. Empty for all.
        #[serde(skip_serializing_if = "String::is_empty")]
        prefix: String,
        /// The most rooms that the answer may hold: [`ROOMS_DEFAULT`] without it, and at most [`ROOMS_MOST`].
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// Go on with a fresh token in place of the one that the connection came with.
    Renew {
        /// The token.
        token: String,
    },
    /// Ask for the list of commands (text encoding only).
    #[serde(skip)]
    Help,
}

/// The place of a page in a log. Pages are always in the room's order, oldest message first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cursor {
    /// The newest messages.
    Newest,
    /// The messages right before this one.
    Before(MessageId),
    /// The messages right after this one.
    After(MessageId),
}

impl Cursor {
    const fn is_newest(&self) -> bool {
        matches!(self, Self::Newest)
    }
}

/// A message from a server to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// The first event of a connection.
    Welcome {
        /// The user's name, as the server understood it.
        user: UserName,
        /// The instance that the client is connected to.
        instance: String,
        /// The limits that the server sets.
        limits: Limits,
        /// Whether the token is for reading only. Sent only when true.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        readonly: bool,
    },
    /// The client has entered a room.
    Room {
        /// The room.
        room: RoomName,
        /// The users that are present, in alphabetical order.
        members: Arc<[UserName]>,
        /// The groups of members whose names look alike.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        alike: Vec<Vec<UserName>>,
        /// The messages since `since`, or the past that the client asked for, oldest first. Messages that
        /// do not fit this frame follow as [`Event::Message`].
        messages: Vec<Message>,
        /// Whether every message between `since` and now was sent.
        recovered: bool,
        /// Whether the log began anew with this server's process, and so keeps no earlier messages. It is
        /// sent only when true, and can be true only if the client sent a `since` that was not
        /// `recovered`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        anew: bool,
        /// The newest message of the log, to resume from.
        last: Option<MessageId>,
    },
    /// The client has left a room.
    Parted {
        /// The room.
        room: RoomName,
        /// Why it had to, in a sentence, if it did not ask: an operator has closed the room.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<String>,
    },
    /// An operator has deleted messages: their text is not to be shown any more.
    Deleted {
        /// The room.
        room: RoomName,
        /// Single messages.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        ids: Vec<MessageId>,
        /// All messages up to this one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        up_to: Option<MessageId>,
        /// Whether the client may know it: it is told to all that resume.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        again: bool,
    },
    /// A message is stored, and will reach every member.
    Sent {
        /// The ref that the sender gave it.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none", default)]
        reference: Option<Ref>,
        /// The room.
        room: RoomName,
        /// Its id.
        id: MessageId,
        /// Whether it had been stored before, under the same ref.
        duplicate: bool,
    },
    /// A page of the past.
    History {
        /// The room.
        room: RoomName,
        /// The messages, oldest first.
        messages: Vec<Message>,
        /// Whether the log has more messages in that direction.
        more: bool,
    },
    /// The users that are in a room.
    Members {
        /// The room.
        room: RoomName,
        /// Their names, in alphabetical order.
        members: Arc<[UserName]>,
        /// The groups of them whose names look alike.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        alike: Vec<Vec<UserName>>,
    },
    /// The rooms that somebody is in or that remember messages, as far as this client may enter them. The one with
    /// the newest message comes first; rooms without a known message come last, by name. It may be some seconds old.
    Rooms {
        /// The rooms.
        rooms: Vec<ListedRoom>,
        /// Whether there are others. They may be gone by now.
        more: bool,
    },
    /// A user said something.
    Message {
        /// The room.
        room: RoomName,
        /// The message.
        #[serde(flatten)]
        message: Message,
        /// A member who is not the author, and whose name looks like the author's. It is told of live
        /// messages only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        looks_like: Option<UserName>,
        /// The connection that sent it. In the text encoding it is not sent back there.
        #[serde(skip)]
        via: Option<Via>,
    },
    /// A user joined the room.
    Joined {
        /// The room.
        room: RoomName,
        /// The user.
        user: UserName,
        /// Another member whose name looks like the user's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        looks_like: Option<UserName>,
    },
    /// A user left the room.
    Left {
        /// The room.
        room: RoomName,
        /// The user.
        user: UserName,
    },
    /// A user is typing.
    Typing {
        /// The room.
        room: RoomName,
        /// The user.
        user: UserName,
    },
    /// Messages between these two could not be recovered.
    Gap {
        /// The room.
        room: RoomName,
        /// The last message before the gap.
        after: Option<MessageId>,
        /// The first message behind the gap, if there is one already.
        before: Option<MessageId>,
    },
    /// The connection's token expires soon. Without a fresh one, the server then closes with 4001.
    Expiring {
        /// The time until then, in milliseconds.
        expires_in_ms: u64,
    },
    /// The connection goes on with the fresh token.
    Renewed {
        /// The time until that expires, in milliseconds.
        expires_in_ms: u64,
        /// Whether the fresh token is for reading only. Sent only when true.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        readonly: bool,
    },
    /// The server is about to close this connection.
    Closing {
        /// The reason, in a sentence.
        reason: String,
        /// The time after which the client should come back, in milliseconds.
        retry_after_ms: u64,
    },
    /// The server could not do something. The connection stays open.
    Error {
        /// The kind of trouble, for programs.
        code: ErrorCode,
        /// The trouble in a sentence, for people.
        message: String,
        /// The ref of the send that failed.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none", default)]
        reference: Option<Ref>,
        /// The room that the trouble concerns.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        room: Option<RoomName>,
        /// Whether the same request may succeed later.
        retry: bool,
        /// The time after which it may succeed, in milliseconds, if the server knows it: sent with `too_fast`.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        retry_after_ms: Option<u64>,
    },
    /// The list of commands (text encoding only).
    Help,
}

/// A room in [`Event::Rooms`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRoom {
    /// The room.
    pub room: RoomName,
    /// The number of users that are present, on all instances.
    pub members: usize,
    /// The time of its newest message, in milliseconds since the Unix epoch, if one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<u64>,
}

/// The limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest message, in bytes.
    pub max_message: usize,
    /// The most rooms that it may be in at a time.
    pub rooms: usize,
    /// The most messages that one page of history holds.
    pub page: usize,
}

/// The kinds of trouble that an [`Event::Error`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with the fields that its type needs, or a line that is no command.
    BadRequest,
    /// A `type` that this server does not know.
    UnknownType,
    /// A room name that breaks the rules for names.
    BadRoom,
    /// The connection is not in that room.
    NotJoined,
    /// The connection is in that room already.
    AlreadyJoined,
    /// The connection is in as many rooms as it may be.
    TooManyRooms,
    /// A message without text.
    Empty,
    /// More messages or requests than the rate limit allows.
    TooFast,
    /// No valid token where one is needed.
    Unauthorized,
    /// The token, or the page's origin, does not allow this.
    Forbidden,
    /// The path is unknown (HTTP API only).
    NotFound,
    /// A message over the limit (HTTP API only; a WebSocket is closed with 1009).
    TooLarge,
    /// The ref, or `Idempotency-Key`, is that of a message with another text.
    RefReused,
    /// The backplane does not answer.
    Unavailable,
    /// The backplane refuses the request, and will refuse it again.
    Refused,
    /// The server is closing.
    Closing,
}

/// Whether an outbox may drop an event when its client falls behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Never dropped while the connection is open.
    High,
    /// Dropped when the client falls behind. The client can ask for the present state.
    Low,
}

impl Event {
    /// The room that it concerns.
    pub const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Room { room, .. }
            | Self::Parted { room, .. }
            | Self::Deleted { room, .. }
            | Self::Sent { room, .. }
            | Self::History { room, .. }
            | Self::Members { room, .. }
            | Self::Message { room, .. }
            | Self::Joined { room, .. }
            | Self::Left { room, .. }
            | Self::Typing { room, .. }
            | Self::Gap { room, .. } => Some(room),
            Self::Error { room, .. } => room.as_ref(),
            Self::Welcome { .. }
            | Self::Rooms { .. }
            | Self::Expiring { .. }
            | Self::Renewed { .. }
            | Self::Closing { .. }
            | Self::Help => None,
        }
    }

    /// Its priority in an outbox.
    pub const fn priority(&self) -> Priority {
        match self {
            Self::Joined { .. } | Self::Left { .. } | Self::Typing { .. } => Priority::Low,
            Self::Welcome { .. }
            | Self::Room { .. }
            | Self::Parted { .. }
            | Self::Deleted { .. }
            | Self::Sent { .. }
            | Self::History { .. }
            | Self::Members { .. }
            | Self::Rooms { .. }
            | Self::Message { .. }
            | Self::Gap { .. }
            | Self::Expiring { .. }
            | Self::Renewed { .. }
            | Self::Closing { .. }
            | Self::Error { .. }
            | Self::Help => Priority::High,
        }
    }
}

/// Why a frame from a client is not a [`Command`]. The client has to send another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The ref of the frame, if it could be read.
    pub reference: Option<Ref>,
}

impl Rejection {
    fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            reference: None,
        }
    }
}

impl From<Rejection> for Event {
    fn from(rejection: Rejection) -> Self {
        Self::Error {
            code: rejection.code,
            message: rejection.message,
            reference: rejection.reference,
            room: None,
            retry: false,
            retry_after_ms: None,
        }
    }
}
