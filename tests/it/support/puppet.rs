//! A server that says what a test has it say, in the JSON encoding.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket, accept_hdr};

use super::{DEADLINE, until};

pub(crate) struct Puppet {
    listener: TcpListener,
}

impl Puppet {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a mode");
        Self { listener }
    }

    pub(crate) fn url(&self) -> String {
        let address = self.listener.local_addr().expect("its address");
        format!("http://{address}")
    }

    fn connection(&self) -> TcpStream {
        let (stream, _) = until("somebody connects", || self.listener.accept().ok());
        stream.set_nonblocking(false).expect("a mode");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream
    }

    /// The next connection, refused.
    pub(crate) fn refuses(&self) {
        let mut stream = self.connection();
        let mut head = [0; 4096];
        let length = stream.read(&mut head).expect("a request");
        assert!(head[..length].ends_with(b"\r\n\r\n"), "in one piece");
        stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            .expect("it can be sent");
    }

    /// The next connection, welcomed.
    pub(crate) fn welcomes(&self, user: &str) -> Conversation {
        let stream = self.connection();
        #[allow(clippy::result_large_err)] // The signature is tungstenite's.
        let agree = |_: &Request, mut response: Response| {
            let encoding = "hubbub.v1".parse().expect("a header value");
            let headers = response.headers_mut();
            headers.insert("Sec-WebSocket-Protocol", encoding);
            Ok(response)
        };
        let websocket = accept_hdr(stream, agree).expect("a handshake");
        let mut conversation = Conversation { websocket };
        let limits = json!({"max_message": 65536, "rooms": 32, "page": 200});
        conversation.says(
            &json!({"type": "welcome", "user": user, "instance": "puppet", "limits": limits}),
        );
        conversation
    }
}

/// The server's end of one connection.
pub(crate) struct Conversation {
    websocket: WebSocket<TcpStream>,
}

impl Conversation {
    pub(crate) fn says(&mut self, event: &Value) {
        let text = Message::text(event.to_string());
        self.websocket.send(text).expect("it can be sent");
    }

    /// The next command, which is of this type.
    pub(crate) fn hears(&mut self, kind: &str) -> Value {
        loop {
            if let Message::Text(text) = self.websocket.read().expect("a command") {
                let command: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(command["type"], kind, "{command}");
                return command;
            }
        }
    }

    /// Answers the join that comes next.
    pub(crate) fn lets_in(&mut self, mut room: Value) {
        let join = self.hears("join");
        room["type"] = "room".into();
        room["room"] = join["room"].clone();
        room["members"] = json!([]);
        self.says(&room);
    }
}
