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

    /// The next post: its head, its body, and the connection to answer on.
    pub(crate) fn takes_a_post(&self) -> Post {
        let mut stream = self.connection();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&request);
            // The length is the last field.
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && head.ends_with(&format!("Content-Length: {}", body.len()))
            {
                let (head, body) = (head.to_owned(), body.to_owned());
                return Post { stream, head, body };
            }
            let count = stream.read(&mut buffer).expect("a request");
            assert_ne!(count, 0, "it is whole");
            request.extend_from_slice(&buffer[..count]);
        }
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

/// A post that waits for its answer.
pub(crate) struct Post {
    stream: TcpStream,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Post {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// Answers with more fields, each with its end, and a body.
    pub(crate) fn answer(mut self, status: u16, fields: &str, body: &str) {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        self.stream
            .write_all(answer.as_bytes())
            .expect("it can be sent");
    }

    /// Answers that it is stored.
    pub(crate) fn stores(self) {
        let sent = json!({"type": "sent", "room": "lobby", "id": "1-0", "duplicate": false});
        self.answer(201, "", &sent.to_string());
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
