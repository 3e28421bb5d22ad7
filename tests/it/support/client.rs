//! WebSocket clients: tungstenite's own, so that the server is tested against another half than
//! its own; and a raw socket for what no client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::SockRef;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::DEADLINE;
use super::hubbub::Hubbub;

pub(crate) struct Client {
    websocket: WebSocket<TcpStream>,
}

impl Client {
    /// Without a subprotocol, so in the text encoding.
    pub(crate) fn text(address: SocketAddr, target: &str) -> Self {
        Self::connect(address, target, None).unwrap_or_else(|(status, why)| {
            panic!("{target}: {status} {why}");
        })
    }

    /// With `hubbub.v1`; `welcome` is taken in already.
    pub(crate) fn json(address: SocketAddr, user: &str) -> Self {
        let target = format!("/chat/{user}");
        let mut client = Self::connect(address, &target, Some("hubbub.v1"))
            .unwrap_or_else(|(status, why)| panic!("{target}: {status} {why}"));
        assert_eq!(client.event()["type"], "welcome");
        client
    }

    /// The status and sentence of a refusal are the error.
    pub(crate) fn connect(
        address: SocketAddr,
        target: &str,
        subprotocol: Option<&str>,
    ) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        let mut request = format!("ws://{address}{target}")
            .into_client_request()
            .expect("a request");
        if let Some(subprotocol) = subprotocol {
            let value = subprotocol.parse().expect("a header value");
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", value);
        }
        match tungstenite::client(request, stream) {
            Ok((websocket, _)) => Ok(Self { websocket }),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                let why = String::from_utf8_lossy(&body).trim().to_owned();
                Err((response.status().as_u16(), why))
            }
            Err(error) => panic!("{target}: {error}"),
        }
    }

    pub(crate) fn says(&mut self, text: &str) {
        self.sends(Message::text(text));
    }

    /// Says it. False if the server is gone.
    pub(crate) fn says_or_ends(&mut self, text: &str) -> bool {
        self.websocket.send(Message::text(text)).is_ok()
    }

    /// Says it, unless the server no longer listens; what it says meanwhile is dropped.
    pub(crate) fn tries_to_say(&mut self, text: &str) -> bool {
        let said = self.websocket.send(Message::text(text)).is_ok();
        let stream = self.websocket.get_ref();
        stream.set_nonblocking(true).expect("a mode");
        let mut open = true;
        loop {
            match self.websocket.read() {
                Ok(Message::Close(_)) => open = false,
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    open = false;
                    break;
                }
            }
        }
        let stream = self.websocket.get_ref();
        stream.set_nonblocking(false).expect("a mode");
        said && open
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.websocket
            .get_ref()
            .try_clone()
            .expect("a second handle")
    }

    pub(crate) fn sends(&mut self, message: Message) {
        self.websocket.send(message).expect("it can be sent");
    }

    /// The next text.
    pub(crate) fn hears(&mut self) -> String {
        match self.hears_or_ends() {
            Ok(text) => text,
            Err(code) => panic!("closed with {code:?} instead"),
        }
    }

    /// The next text, or the code of the close frame (`None` without one) at the end.
    pub(crate) fn hears_or_ends(&mut self) -> Result<String, Option<u16>> {
        loop {
            match self.websocket.read() {
                Ok(Message::Text(text)) => return Ok(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => {
                    // Answers it.
                    let _ = self.websocket.flush();
                    return Err(frame.map(|frame| frame.code.into()));
                }
                Ok(_) => {}
                // A process that is stopped and continued finds its reads interrupted.
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    panic!("nothing is heard")
                }
                Err(_) => return Err(None),
            }
        }
    }

    /// The next message that is no text: a pong, say.
    pub(crate) fn reads(&mut self) -> Message {
        self.websocket.read().expect("a message")
    }

    /// Everything up to and including the line that ends so.
    pub(crate) fn hears_until(&mut self, end: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.hears());
            if heard.last().is_some_and(|line| line.ends_with(end)) {
                return heard;
            }
        }
    }

    /// The code of the close frame that comes, whatever comes before.
    pub(crate) fn is_closed(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.hears_or_ends() {
                return code;
            }
        }
    }

    /// The next JSON event.
    pub(crate) fn event(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.hears()).expect("JSON")
    }

    /// The next event of this type; those before it are dropped.
    pub(crate) fn event_of(&mut self, kind: &str) -> serde_json::Value {
        loop {
            let event = self.event();
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Asks in JSON.
    pub(crate) fn asks(&mut self, request: &serde_json::Value) {
        self.says(&request.to_string());
    }

    /// Joins in JSON; the answer.
    pub(crate) fn joins(&mut self, room: &str) -> serde_json::Value {
        self.asks(&serde_json::json!({"type": "join", "room": room}));
        self.event_of("room")
    }

    /// A clean goodbye, up to the end.
    pub(crate) fn leaves(mut self) {
        self.websocket.close(None).expect("a goodbye");
        while self.websocket.read().is_ok() {}
    }

    /// Ends with a reset instead of a goodbye.
    pub(crate) fn resets(self) {
        let socket = SockRef::from(self.websocket.get_ref());
        socket
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("no linger");
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.websocket.get_ref()
    }
}

/// Sends bytes as they are; what comes back until the end, or until the end of a response after which the server waits
/// for another request.
pub(crate) fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream.write_all(bytes).expect("it can be sent");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // A reset after the answer is an end, too.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
        if is_whole(
            &String::from_utf8_lossy(&answer),
            bytes.starts_with(b"HEAD "),
        ) {
            break;
        }
    }
    answer
}

/// Whether it is a whole response after which the server waits for another request.
fn is_whole(answer: &str, is_head: bool) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let has_none = is_head || head.starts_with("HTTP/1.1 304 ");
    let length = length
        .filter(|_| !has_none)
        .map_or(0, |length| length.parse().expect("a number"));
    head.lines().any(|line| line == "Connection: keep-alive") && body.len() >= length
}

/// A plain request; the status and the body.
pub(crate) fn get(address: SocketAddr, target: &str) -> (u16, String) {
    request(
        address,
        &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )
}

/// A whole request head; the status and the body.
pub(crate) fn request(address: SocketAddr, head: &str) -> (u16, String) {
    let answer = String::from_utf8(raw(address, head.as_bytes())).expect("text");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.trim().to_owned())
}

/// The value of one metric.
pub(crate) fn metric(hubbub: &Hubbub, name: &str) -> u64 {
    let (status, text) = get(hubbub.address(), "/metrics");
    assert_eq!(status, 200);
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .expect("a number")
}
