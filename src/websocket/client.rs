//! The client's side: the request for an upgrade, the half that reads afterwards, and masked frames.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::generate_key;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Error, HandshakeError, http};

use super::{Divided, ReadHalf, Replies, config};

/// What a client hears may be many messages at a time.
const READ_BUFFER: usize = 4 * 1024;

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

impl ReadHalf {
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
        let config = config(READ_BUFFER, max_message);
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
