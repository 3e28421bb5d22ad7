//! Stands for the `redis` crate: a connection leads to a server of the tests, and a packed command is a line.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::message::{Entry, MessageId};

#[derive(Debug, Clone)]
pub enum PushKind {
    Message,
    SMessage,
    Subscribe,
    SSubscribe,
    SUnsubscribe,
}

#[derive(Debug, Clone)]
pub enum Value {
    Push {
        kind: PushKind,
        data: Vec<Value>,
    },
    BulkString(Vec<u8>),
    Int(u64),
    /// Messages, as they are.
    Entries(Vec<Entry>),
    ServerError(ServerError),
}

impl Value {
    pub fn push(kind: PushKind, channel: String, payload: Vec<u8>) -> Self {
        let data = [channel.into_bytes(), payload].map(Self::BulkString);
        let data = data.into();
        Self::Push { kind, data }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerErrorKind {
    NoScript,
    Moved,
    Ask,
    TryAgain,
    ClusterDown,
}

#[derive(Debug, Clone)]
pub struct ServerError(pub ServerErrorKind);

impl ServerError {
    pub fn kind(&self) -> Option<ServerErrorKind> {
        Some(self.0)
    }

    pub fn details(&self) -> Option<&str> {
        None
    }

    pub fn code(&self) -> &str {
        "ERR"
    }
}

#[derive(Debug, Clone)]
pub enum RedisError {
    /// Nothing came in time.
    TimedOut,
    BrokenOff,
    Refused,
}

impl RedisError {
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

impl From<io::Error> for RedisError {
    fn from(_: io::Error) -> Self {
        Self::TimedOut
    }
}

impl From<ServerError> for RedisError {
    fn from(_: ServerError) -> Self {
        Self::Refused
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for RedisError {}

/// The commands that are sent.
#[derive(Debug, Clone)]
pub enum Cmd {
    Wake,
    Newest,
    After(MessageId),
    Line(String),
}

pub fn cmd(_: &str) -> Cmd {
    Cmd::Wake
}

impl Cmd {
    pub fn set_no_response(&mut self, _: bool) -> &mut Self {
        self
    }

    pub fn exec(&self, _: &mut Connection) -> Result<(), RedisError> {
        Ok(())
    }

    pub fn get_packed_command(&self) -> Vec<u8> {
        match self {
            Self::Line(line) => format!("{line}\n").into_bytes(),
            Self::Wake | Self::Newest | Self::After(_) => Vec::new(),
        }
    }
}

/// The other end of a connection.
pub trait Peer: Send {
    fn take(&self, lines: &str) -> Result<(), RedisError>;

    fn next(&self) -> Result<Value, RedisError>;
}

pub struct Connection(Box<dyn Peer>);

impl Connection {
    pub fn to(peer: impl Peer + 'static) -> Self {
        Self(Box::new(peer))
    }

    pub fn subscribe_resp3(&mut self, channels: &[String]) -> Result<(), RedisError> {
        self.0.take(&channels.join("\n"))
    }

    pub fn send_packed_command(&mut self, lines: &[u8]) -> Result<(), RedisError> {
        self.0.take(str::from_utf8(lines).expect("it is ours"))
    }

    pub fn set_read_timeout(&self, _: Option<Duration>) -> Result<(), RedisError> {
        Ok(())
    }

    pub fn set_write_timeout(&self, _: Option<Duration>) -> Result<(), RedisError> {
        Ok(())
    }

    pub fn recv_response(&mut self) -> Result<Value, RedisError> {
        self.0.next()
    }
}
