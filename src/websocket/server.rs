//! The server's side: the response to an upgrade request, and the half that reads afterwards.

use tungstenite::handshake::server::create_response;
use tungstenite::protocol::Role;
use tungstenite::{WebSocket, http};

use super::{ReadHalf, Replies, Source, SplitStream, config};

/// Users send short messages.
const READ_BUFFER: usize = 1024;

/// The head of the response that accepts an upgrade request (RFC 6455 §4.2.2), ready to be written.
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

impl ReadHalf {
    /// The server's half. The bytes `read_already` came behind the request's head and are read first.
    pub fn server(
        source: Source,
        read_already: Vec<u8>,
        max_message: usize,
        replies: Replies,
    ) -> Self {
        Self(WebSocket::from_partially_read(
            SplitStream { source, replies },
            read_already,
            Role::Server,
            Some(config(READ_BUFFER, max_message)),
        ))
    }
}
