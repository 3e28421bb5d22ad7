//! The reading half of one socket. The writing half has no WebSocket at all, only ready-made
//! frames ([`crate::outbox`]).
//!
//! tungstenite's `read` also writes: it answers pings and closes. Two writers on one socket would
//! tear each other's frames, so the half that reads is given a stream whose `write` puts those
//! frames into the outbox like any other.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::server::create_response;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, HandshakeError, Message, WebSocket, http};

use crate::outbox::code;

/// tungstenite allocates its read buffer eagerly, 128 KiB unless told otherwise, and clears it before
/// each reading. What a user says is short; what a client hears may be many messages at a time.
const SERVER_READ_BUFFER: usize = 1024;
const CLIENT_READ_BUFFER: usize = 4 * 1024;

/// What the client sent.
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

fn config(read_buffer: usize, max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(0)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

impl ReadHalf {
    /// A server's half, which begins with the bytes `read_already` behind the request's head.
    pub fn server(
        source: Source,
        read_already: Vec<u8>,
        max_message: usize,
        replies: Replies,
    ) -> Self {
        Self(WebSocket::from_partially_read(
            Divided { source, replies },
            read_already,
            Role::Server,
            Some(config(SERVER_READ_BUFFER, max_message)),
        ))
    }

    /// A client's half: asks for the upgrade at `url` and waits for the answer. Until then the
    /// socket is written to here; afterwards only `replies` is.
    pub fn client(
        socket: Arc<TcpStream>,
        url: &str,
        subprotocol: &str,
        token: Option<&str>,
        max_message: usize,
        replies: Replies,
    ) -> Result<Self, UpgradeError> {
        let uri: http::Uri = url.parse().map_err(|_| UpgradeError::NotWebSocket)?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = http::Request::builder();
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request
            .uri(uri)
            .header("Host", host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key())
            .header("Sec-WebSocket-Protocol", subprotocol)
            .body(())
            .map_err(|_| UpgradeError::NotWebSocket)?;
        let direct = Arc::clone(&socket);
        let stream = Divided {
            source: Box::new(Reading(socket)),
            replies: Box::new(move |bytes| {
                // A failure shows in the reading that follows.
                let _ = (&*direct).write_all(bytes);
            }),
        };
        let config = config(CLIENT_READ_BUFFER, max_message);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((mut websocket, _)) => {
                websocket.get_mut().replies = replies;
                Ok(Self(websocket))
            }
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                Err(UpgradeError::Refused {
                    status: response.status().as_u16(),
                    why: String::from_utf8_lossy(&body).trim().to_owned(),
                })
            }
            Err(HandshakeError::Failure(Error::Io(error))) => {
                Err(UpgradeError::Broken(error.to_string()))
            }
            // A server that goes down, or a proxy whose server is down.
            Err(HandshakeError::Failure(Error::Protocol(ProtocolError::HandshakeIncomplete))) => {
                Err(UpgradeError::Broken(
                    "it closed in the handshake".to_owned(),
                ))
            }
            Err(HandshakeError::Failure(_)) => Err(UpgradeError::NotWebSocket),
            Err(HandshakeError::Interrupted(_)) => {
                Err(UpgradeError::Broken("no answer in time".to_owned()))
            }
        }
    }

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

/// Why a client's request for an upgrade came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeError {
    /// The server refuses and says why; whoever made the request acts next.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's sentence.
        why: String,
    },
    /// What answers there is no WebSocket server.
    NotWebSocket,
    /// The connection failed; trying again may help.
    Broken(String),
}

/// A client's frame, masked as RFC 6455 §5.3 demands.
pub fn masked(frame: ClientFrame<'_>) -> Vec<u8> {
    let mut frame = match frame {
        ClientFrame::Text(text) => Frame::message(text.to_owned(), OpCode::Data(Data::Text), true),
        ClientFrame::Ping => Frame::ping(Vec::new()),
        ClientFrame::Pong(payload) => Frame::pong(payload.to_vec()),
        ClientFrame::Goodbye => Frame::close(Some(CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        })),
    };
    frame.header_mut().mask = Some(rand::random());
    let mut bytes = Vec::new();
    frame
        .format(&mut bytes)
        .expect("writing to memory does not fail");
    bytes
}

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub enum ClientFrame<'a> {
    /// A text message.
    Text(&'a str),
    /// Is the server there?
    Ping,
    /// The answer to the server's ping, with its payload.
    Pong(&'a [u8]),
    /// A close frame with code 1000.
    Goodbye,
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

/// A client's socket, which others write to and shut down.
struct Reading(Arc<TcpStream>);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.0).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
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

/// The answer to a request for an upgrade (RFC 6455 §4.2.2): its head, ready to be written.
pub fn accept(headers: &[(String, String)], subprotocol: Option<&str>) -> Result<Vec<u8>, String> {
    let mut request = http::Request::builder().method("GET").uri("/");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|error| error.to_string())?;
    let response = create_response(&request).map_err(|error| error.to_string())?;
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in response.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if let Some(subprotocol) = subprotocol {
        head.extend_from_slice(format!("sec-websocket-protocol: {subprotocol}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}
