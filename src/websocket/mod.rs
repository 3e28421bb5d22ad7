//! WebSocket (RFC 6455) on a blocking socket: a half that reads, and ready-made frames to write.
//!
//! Read [`frame`] and [`code`] first, for the frames that are written; then this file, for what both
//! sides read; then [`server`] and [`client`], for the upgrade of a connection.
//!
//! tungstenite's `read` also writes: it answers pings and close frames. Two writers on one socket would
//! tear each other's frames. So the half that reads works on a stream whose `write` hands those frames
//! to [`Replies`], which puts them behind all frames that were written before. The writing side does
//! without tungstenite.

pub mod code;
pub mod frame;
pub mod server;
pub mod client;

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// A message or control frame from the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, put together from its fragments.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping or a pong: a sign of life.
    Alive,
    /// A close frame, with its code. [`ReadHalf::read`] returns [`Ended::Closed`] next.
    Close(Option<u16>),
}

/// Why there is nothing more to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The closing handshake is complete.
    Closed,
    /// The peer ended its side without a close frame.
    Vanished,
    /// The peer broke the protocol. The close frame to it should have this code and sentence.
    Wrong {
        /// RFC 6455 §7.4.1.
        code: u16,
        /// The violation, in a sentence.
        why: String,
    },
    /// The peer sent nothing for longer than the heartbeat allows.
    Silent,
    /// The socket failed.
    Broken(String),
}

/// Takes the frames that tungstenite writes of its own accord.
pub type Replies = Box<dyn FnMut(&[u8]) + Send>;

/// The half that reads.
pub struct ReadHalf(WebSocket<SplitStream>);

/// The bytes that the peer sends. A read that times out ends the half as [`Ended::Silent`].
pub type Source = Box<dyn Read + Send>;

/// The defaults of tungstenite are too large for many small connections: it allocates a read buffer of
/// 128 KiB at once and clears it before each read, and it takes messages of 64 MiB.
fn config(read_buffer: usize, max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

impl ReadHalf {
    /// Waits for the next message or control frame.
    pub fn read(&mut self) -> Result<Incoming, Ended> {
        match self.0.read() {
            // A payload is a part of tungstenite's read buffer, and would keep it alive. So it is copied.
            Ok(Message::Text(text)) => Ok(Incoming::Text(text.as_str().to_owned())),
            Ok(Message::Binary(bytes)) => Ok(Incoming::Binary(bytes.to_vec())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Incoming::Alive),
            Ok(Message::Close(frame)) => Ok(Incoming::Close(frame.map(|f| f.code.into()))),
            Err(error) => Err(ended(error)),
        }
    }
}

/// The stream that tungstenite works on: it reads from the socket, and writes to [`Replies`].
struct SplitStream {
    source: Source,
    replies: Replies,
}

impl Read for SplitStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }
}

impl Write for SplitStream {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        (self.replies)(frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Translates an error of tungstenite, which sends no close frame for it, to the code that is due.
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
