//! What is said over a WebSocket: a [`Command`] in, an [`Event`] out.
//!
//! These are the values; [`text`] and [`json`] are two encodings of the same values, chosen by
//! the subprotocol of the handshake. Nothing here knows a socket, a room or Redis.

pub mod json;
pub mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::{Message, MessageId, RoomName, UserName, Via};

/// In a room of more users than this, who joins and leaves is no longer announced: a thousand
/// arrivals would be half a million notices.
pub const ANNOUNCED_MEMBERS: usize = 256;

/// Which of the two encodings a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lines for people and shell scripts, one room per connection.
    Text,
    /// One JSON object a frame, any number of rooms.
    Json,
}

impl Encoding {
    /// The name under which the handshake offers it (RFC 6455 §1.9).
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Text => "hubbub.text",
            Self::Json => "hubbub.v1",
        }
    }

    /// How many bytes a message takes of an outbox, about, and rather too many than too few.
    pub fn weigh(self, message: &Message) -> usize {
        match self {
            Self::Text => text::weigh(message),
            Self::Json => json::weigh(message),
        }
    }

    /// The frames' payloads that tell of `event`, in order; none if this encoding does not.
    pub fn encode(self, event: &Event) -> Vec<String> {
        match self {
            Self::Text => text::encode(event),
            Self::Json => vec![json::encode(event)],
        }
    }
}

/// The sender's own name for a message, which makes a retry safe.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ref(String);

impl Ref {
    /// The longest, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// How long the backplane remembers one, and so how long a retry is safe.
    pub const LASTS: Duration = Duration::from_secs(5 * 60);

    /// A ref that nobody else has.
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

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Enter a room, with the last id seen there or a number of past messages.
    Join {
        /// The room.
        room: RoomName,
        /// Resume after this message.
        since: Option<MessageId>,
        /// Without `since`: how many past messages to send first.
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
        /// What to say.
        text: String,
        /// Makes a retry safe for five minutes.
        reference: Option<Ref>,
    },
    /// Read a page of the past.
    History {
        /// The room.
        room: RoomName,
        /// Where the page begins or ends.
        page: Cursor,
        /// At most so many messages.
        limit: Option<usize>,
    },
    /// Who is here?
    Members {
        /// The room.
        room: RoomName,
    },
    /// Tell the others that this user is typing.
    Typing {
        /// The room.
        room: RoomName,
    },
    /// What can be said here? (text encoding only)
    Help,
}

/// Which part of a log is meant. Pages are always in the room's order, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// The newest messages.
    Newest,
    /// The messages next before this one.
    Before(MessageId),
    /// The messages next after this one.
    After(MessageId),
}

/// What a server tells a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// The first thing said on a connection.
    Welcome {
        /// Who the server takes the client for.
        user: UserName,
        /// The instance it is connected to.
        instance: String,
        /// What the server will take.
        limits: Limits,
    },
    /// A room was entered.
    Room {
        /// The room.
        room: RoomName,
        /// Who is here, in alphabetical order.
        members: Arc<[UserName]>,
        /// What was missed, or the past that was asked for, oldest first. What does not fit one
        /// frame follows as [`Event::Message`].
        messages: Vec<Message>,
        /// Whether nothing between `since` and now is missing.
        recovered: bool,
        /// The log began anew with this server's process: it keeps nothing from before. Only told of
        /// a `since` that is not `recovered`, and on the wire only when true.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        anew: bool,
        /// The newest message that the log held, to resume from.
        last: Option<MessageId>,
    },
    /// A room was left.
    Parted {
        /// The room.
        room: RoomName,
    },
    /// A message was stored, and so will reach everyone.
    Sent {
        /// The ref under which it was sent.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none", default)]
        reference: Option<Ref>,
        /// The room.
        room: RoomName,
        /// The id it has.
        id: MessageId,
        /// Whether it had been stored before, under the same ref.
        duplicate: bool,
    },
    /// A page of the past.
    History {
        /// The room.
        room: RoomName,
        /// Oldest first.
        messages: Vec<Message>,
        /// Whether there is more in the direction that was asked for.
        more: bool,
    },
    /// Who is here.
    Members {
        /// The room.
        room: RoomName,
        /// In alphabetical order.
        members: Arc<[UserName]>,
    },
    /// Somebody said something.
    Message {
        /// The room.
        room: RoomName,
        /// What was said.
        #[serde(flatten)]
        message: Message,
        /// The connection it was said on, which in the text encoding does not hear it again.
        #[serde(skip)]
        via: Option<Via>,
    },
    /// A user came.
    Joined {
        /// The room.
        room: RoomName,
        /// Who.
        user: UserName,
    },
    /// A user is gone.
    Left {
        /// The room.
        room: RoomName,
        /// Who.
        user: UserName,
    },
    /// A user is typing.
    Typing {
        /// The room.
        room: RoomName,
        /// Who.
        user: UserName,
    },
    /// Messages between these two could not be recovered.
    Gap {
        /// The room.
        room: RoomName,
        /// The last one before the hole.
        after: Option<MessageId>,
        /// The first one behind it, where there is one already.
        before: Option<MessageId>,
    },
    /// The server is about to close this connection.
    Closing {
        /// Why, in a sentence.
        reason: String,
        /// When to come back, in milliseconds.
        retry_after_ms: u64,
    },
    /// Something could not be done. The connection stays.
    Error {
        /// What kind of trouble, for programs.
        code: ErrorCode,
        /// What is wrong, in a sentence, for people.
        message: String,
        /// The ref of the send that this answers.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none", default)]
        reference: Option<Ref>,
        /// The room that this is about.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        room: Option<RoomName>,
        /// Whether the same again may succeed later.
        retry: bool,
    },
    /// What can be said here (text encoding only).
    Help,
}

/// What one connection may ask of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest message, in bytes.
    pub max_message: usize,
    /// How many rooms at a time.
    pub rooms: usize,
    /// The most messages that one page of history holds.
    pub page: usize,
}

/// The kinds of trouble an [`Event::Error`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with what its type needs, or a line that is no command.
    BadRequest,
    /// A `type` that this server does not know.
    UnknownType,
    /// A room name that cannot be one.
    BadRoom,
    /// Not in that room.
    NotJoined,
    /// In that room already.
    AlreadyJoined,
    /// As many rooms as one connection may have.
    TooManyRooms,
    /// Nothing to say.
    Empty,
    /// More messages than the rate allows.
    TooFast,
    /// No token where one is needed (HTTP API only).
    Unauthorized,
    /// The token, or the page's origin, does not allow this.
    Forbidden,
    /// There is no such thing (HTTP API only).
    NotFound,
    /// More than one message may hold (HTTP API only; a WebSocket is closed with 1009).
    TooLarge,
    /// The backplane does not answer.
    Unavailable,
    /// The backplane refuses, and will refuse the same again.
    Refused,
    /// The server is closing.
    Closing,
}

/// Whether an outbox under pressure may drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Never dropped while the connection stands.
    High,
    /// Dropped when the client falls behind: the present state can be asked for.
    Low,
}

impl Event {
    /// The room that it is about.
    pub const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Room { room, .. }
            | Self::Parted { room }
            | Self::Sent { room, .. }
            | Self::History { room, .. }
            | Self::Members { room, .. }
            | Self::Message { room, .. }
            | Self::Joined { room, .. }
            | Self::Left { room, .. }
            | Self::Typing { room, .. }
            | Self::Gap { room, .. } => Some(room),
            Self::Error { room, .. } => room.as_ref(),
            Self::Welcome { .. } | Self::Closing { .. } | Self::Help => None,
        }
    }

    /// What an outbox may do with it.
    pub const fn priority(&self) -> Priority {
        match self {
            Self::Joined { .. } | Self::Left { .. } | Self::Typing { .. } => Priority::Low,
            Self::Welcome { .. }
            | Self::Room { .. }
            | Self::Parted { .. }
            | Self::Sent { .. }
            | Self::History { .. }
            | Self::Members { .. }
            | Self::Message { .. }
            | Self::Gap { .. }
            | Self::Closing { .. }
            | Self::Error { .. }
            | Self::Help => Priority::High,
        }
    }
}

/// Why something a client sent is not a [`Command`]. The client acts next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The ref that came with it, if that much could be read.
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
        }
    }
}
