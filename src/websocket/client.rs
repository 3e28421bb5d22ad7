//! The client's side: the upgrade request, the half that reads afterwards, and masked frames.

use std::io::{self, Read, Write};
use std::sync::Arc;

use tungstenite::error::ProtocolError;
use tungstenite::handshake::HandshakeRole;
use tungstenite::handshake::client::generate_key;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Error, HandshakeError, http};

use crate::stream::Stream;

use super::{ReadHalf, Replies, SplitStream, config};

/// A client often reads many messages at a time.
const READ_BUFFER: usize = 4 * 1024;

/// Why a client's upgrade request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeError {
    /// The server refuses and says why. The caller has to change the request.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's sentence.
        why: String,
    },
    /// There is no WebSocket server at that address.
    NotWebSocket,
    /// The server's certificate is not trusted. The user acts next.
    Untrusted(String),
    /// The connection failed. The caller may try again.
    Broken(String),
}

impl ReadHalf {
    /// Asks the server at `url` for the upgrade, waits for its response, and returns the client's half.
    /// During the upgrade this function writes to the socket; afterwards only `replies` does.
    pub fn client(
        stream: Arc<Stream>,
        url: &str,
        subprotocol: &str,
        token: Option<&str>,
        max_message: usize,
        replies: Replies,
    ) -> Result<Self, UpgradeError> {
        let request =
            upgrade_request(url, subprotocol, token).map_err(|_| UpgradeError::NotWebSocket)?;
        let direct = Arc::clone(&stream);
        let stream = SplitStream {
            source: Box::new(Reading(stream)),
            replies: Box::new(move |bytes| {
                // The read that follows meets the failure, too.
                let _ = direct.socket().write_all(&direct.sealed(bytes));
            }),
        };
        let config = config(READ_BUFFER, max_message);
        let (mut websocket, _) =
            tungstenite::client::client_with_config(request, stream, Some(config))
                .map_err(upgrade_error)?;
        websocket.get_mut().replies = replies;
        Ok(Self(websocket))
    }
}

/// The request of RFC 6455 §4.1.
fn upgrade_request(
    url: &str,
    subprotocol: &str,
    token: Option<&str>,
) -> Result<http::Request<()>, http::Error> {
    let uri: http::Uri = url.parse()?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut request = http::Request::builder();
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    request
        .uri(uri)
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Protocol", subprotocol)
        .body(())
}

fn upgrade_error<Role: HandshakeRole>(error: HandshakeError<Role>) -> UpgradeError {
    match error {
        HandshakeError::Failure(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            UpgradeError::Refused {
                status: response.status().as_u16(),
                why: String::from_utf8_lossy(&body).trim().to_owned(),
            }
        }
        HandshakeError::Failure(Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            UpgradeError::Untrusted(error.to_string())
        }
        HandshakeError::Failure(Error::Io(error)) => UpgradeError::Broken(error.to_string()),
        // The server shuts down, or it is a proxy whose server is down.
        HandshakeError::Failure(Error::Protocol(ProtocolError::HandshakeIncomplete)) => {
            UpgradeError::Broken("it closed in the handshake".to_owned())
        }
        HandshakeError::Failure(_) => UpgradeError::NotWebSocket,
        HandshakeError::Interrupted(_) => UpgradeError::Broken("no answer in time".to_owned()),
    }
}

/// The client's stream, to read from. Other threads write to it and shut it down.
struct Reading(Arc<Stream>);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
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

/// The frames that a client sends.
#[derive(Debug, Clone, Copy)]
pub enum ClientFrame<'a> {
    /// A text message.
    Text(&'a str),
    /// Asks the server for a pong.
    Ping,
    /// The answer to the server's ping, with its payload.
    Pong(&'a [u8]),
    /// A close frame with code 1000.
    Goodbye,
}
