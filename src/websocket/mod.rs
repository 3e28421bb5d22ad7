//! WebSocket (RFC 6455) on a blocking socket: one half that reads, and ready-made frames to write.
//!
//! Read [`frame`] and [`code`] for what is written; here, what both sides read; then how a connection is
//! upgraded, in [`server`] and in [`client`].
//!
//! tungstenite's `read` also writes: it answers pings and closes. Two writers on one socket would tear
//! each other's frames. So the half that reads is given a stream whose `write` hands those frames to
//! [`Replies`], which puts them behind all that is written already. The half that writes has no
//! WebSocket at all.

pub mod code;
pub mod frame;
pub mod server;
pub mod client;

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, put together from its fragments.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping or a pong: a sign of life.
    Alive,
    /// A close frame, with its code. What [`ReadHalf::read`] returns next is [`Ended::Closed`].
    Close(Option<u16>),
}

/// Why there is nothing more to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The closing handshake is complete.
    Closed,
    /// The peer ended its side without a close frame.
    Vanished,
    /// The peer broke the protocol, and is told so with this code and sentence.
    Wrong {
        /// RFC 6455 §7.4.1.
        code: u16,
        /// What it did.
        why: String,
    },
    /// Nothing was heard for longer than a heartbeat takes.
    Silent,
    /// The socket failed.
    Broken(String),
}

/// Where the frames that tungstenite writes of its own accord are put.
pub type Replies = Box<dyn FnMut(&[u8]) + Send>;

/// The half that reads.
pub struct ReadHalf(WebSocket<Divided>);

/// What it reads: the bytes of one socket. A read that times out ends it as [`Ended::Silent`].
pub type Source = Box<dyn Read + Send>;

/// tungstenite allocates its read buffer eagerly, 128 KiB unless told otherwise, and clears it before each
/// reading. It would take messages of 64 MiB.
fn config(read_buffer: usize, max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

impl ReadHalf {
    /// Waits for what comes next.
    pub fn read(&mut self) -> Result<Incoming, Ended> {
        match self.0.read() {
            // A payload shares tungstenite's read buffer, which it would keep alive: copied.
            Ok(Message::Text(text)) => Ok(Incoming::Text(text.as_str().to_owned())),
            Ok(Message::Binary(bytes)) => Ok(Incoming::Binary(bytes.to_vec())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Incoming::Alive),
            Ok(Message::Close(frame)) => Ok(Incoming::Close(frame.map(|f| f.code.into()))),
            Err(error) => Err(ended(error)),
        }
    }
}

/// Reads here, and writes elsewhere.
struct Divided {
    source: Source,
    replies: Replies,
}

impl Read for Divided {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }
}

impl Write for Divided {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        (self.replies)(frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tungstenite sends no close frame on an error; the code says which one is due.
fn ended(error: Error) -> Ended {
    let wrong = |code, why: String| Ended::Wrong { code, why };
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ended::Closed,
        Error::Io(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ended::Silent,
            _ => Ended::Broken(error.to_string()),
        },
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Vanished,
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => wrong(
            code::TOO_BIG,
            format!("a message may have {max_size} bytes at most"),
        ),
        Error::Capacity(error) => wrong(code::TOO_BIG, error.to_string()),
        Error::Utf8(_) => wrong(code::INVALID_TEXT, "text must be UTF-8".to_owned()),
        error => wrong(code::PROTOCOL, error.to_string()),
    }
}
