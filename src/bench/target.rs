//! Where the server's chat is: any text WebSocket chat that has a URL.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::client::ServerUrl;

/// Where chat is at a Hubbub.
const PATH: &str = "/chat/{user}?room={room}";

/// With this a Hubbub lets nobody into a room who does not ask for it.
const SUBPROTOCOL: &str = "hubbub.v1";

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The key and its answer from RFC 6455 §1.3. The meter does not guard against caches, which is what
/// a fresh key is for.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A server, and where chat is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    authority: String,
    /// With `{user}` and `{room}` in it.
    path: String,
    /// What is asked for, if anything is.
    subprotocol: Option<&'static str>,
}

impl Target {
    /// Reads `ws://host:port/path` in which `{user}` and `{room}` stand for names. Without a path it
    /// is Hubbub's own.
    pub fn parse(url: &str) -> Result<Self, String> {
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..]
            .find(['/', '?'])
            .map_or(url.len(), |at| start + at);
        let (server, path) = url.split_at(end);
        let path = match path {
            "" | "/" => PATH.to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        };
        if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("what is not ASCII belongs percent-encoded into a URL".to_owned());
        }
        let authority = ServerUrl::parse(server)?.authority().to_owned();
        Ok(Self {
            authority,
            path,
            subprotocol: None,
        })
    }

    /// The same, without that anybody enters a room.
    #[must_use]
    pub fn outside(self) -> Self {
        Self {
            subprotocol: Some(SUBPROTOCOL),
            ..self
        }
    }

    /// Its first address that takes a connection. The first of many connections finds it.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        let mut outcome = Err(io::Error::other("the name has no address"));
        for address in self.authority.to_socket_addrs()? {
            outcome = TcpStream::connect_timeout(&address, CONNECT_WITHIN).map(|_| address);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Connects and asks for the upgrade; the answer is to be read from the socket, which does not
    /// block.
    pub(super) fn call(&self, to: SocketAddr, user: &str, room: &str) -> io::Result<TcpStream> {
        let path = self.path.replace("{user}", user).replace("{room}", room);
        let host = &self.authority;
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
        );
        if let Some(subprotocol) = self.subprotocol {
            request.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
        }
        request.push_str("\r\n");
        let mut socket = TcpStream::connect_timeout(&to, CONNECT_WITHIN)?;
        socket.set_nodelay(true)?;
        socket.write_all(request.as_bytes())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// How long the head of the server's answer is, once all of it is there. An error is what it said
/// instead of agreeing.
pub(super) fn agreed(answer: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        let body = text[end..].trim().lines().next().unwrap_or_default();
        let status = status.strip_prefix("HTTP/1.1 ").unwrap_or(status);
        return Err(format!("{status}, {body}"));
    }
    if !text.contains(ACCEPT) {
        return Err("an upgrade that is not one to WebSocket".to_owned());
    }
    Ok(Some(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_stand_in_the_url_and_is_hubbubs_otherwise() {
        for (url, authority, path) in [
            ("ws://h:1", "h:1", PATH),
            ("http://h:1/", "h:1", PATH),
            ("h:1/ws?n={user}", "h:1", "/ws?n={user}"),
            ("ws://h?x", "h:80", "/?x"),
        ] {
            let target = Target::parse(url).expect(url);
            assert_eq!((&*target.authority, &*target.path), (authority, path));
        }
        for bad in ["wss://h", "ftp://h/x", "ws://", "ws://h/a b"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_upgrade_is_an_agreement() {
        let head = format!("HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        assert_eq!(agreed(format!("{head}..").as_bytes()), Ok(Some(head.len())));
        assert_eq!(agreed(&head.as_bytes()[..40]), Ok(None));
        let refused = b"HTTP/1.1 503 Full\r\n\r\nno room\n";
        assert_eq!(agreed(refused), Err("503 Full, no room".to_owned()));
        let other = b"HTTP/1.1 101 Switching\r\n\r\n";
        assert!(agreed(other).is_err());
    }
}
