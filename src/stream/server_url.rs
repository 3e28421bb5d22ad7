//! The address of a server, and how a connection to it is opened.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use super::{Authorities, Stream, TlsError};

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host and port.
    authority: String,
    /// Whether it is spoken to by TLS.
    is_secure: bool,
}

impl ServerUrl {
    /// Reads `http://host:port` or `ws://host:port`, `https` and `wss` for TLS, or the host and port alone.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
        let is_secure = match scheme {
            "ws" | "http" => false,
            "wss" | "https" if cfg!(feature = "tls") => true,
            "wss" | "https" => return Err(TlsError::NotBuilt.to_string()),
            _ => return Err("it should look like http://127.0.0.1:8080".to_owned()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err("it should look like http://127.0.0.1:8080".to_owned());
        }
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        let has_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
        // Without a port, the part behind an IPv6 address's last colon ends with a bracket.
        if !has_port && port.is_some_and(|port| !port.ends_with(']')) {
            return Err("it should look like http://127.0.0.1:8080".to_owned());
        }
        let authority = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:{}", if is_secure { 443 } else { 80 })
        };
        Ok(Self {
            authority,
            is_secure,
        })
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host without the port, and without the brackets of an IPv6 address.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whom to trust for the server's certificate: the authorities in this file, or else those of the system. `None`
    /// without TLS.
    pub fn authorities(&self, ca: Option<&Path>) -> Result<Option<Authorities>, TlsError> {
        self.is_secure.then(|| Authorities::read(ca)).transpose()
    }

    /// A stream to this server over a socket that is connected to it.
    pub fn stream(
        &self,
        socket: TcpStream,
        authorities: Option<&Authorities>,
    ) -> io::Result<Stream> {
        match authorities {
            None => Ok(Stream::plain(socket)),
            Some(authorities) => Stream::client(socket, authorities, self.host()),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// Opens a connection to the first address of the server that answers. `left` returns the limit for the next address.
pub fn open(
    server: &ServerUrl,
    authorities: Option<&Authorities>,
    left: impl Fn() -> Duration,
) -> io::Result<Stream> {
    let mut outcome = Err(io::Error::other("the name has no address"));
    for address in server.authority.to_socket_addrs()? {
        // The system call rejects a limit of zero.
        let limit = left().max(Duration::from_millis(1));
        outcome = TcpStream::connect_timeout(&address, limit);
        if outcome.is_ok() {
            break;
        }
    }
    server.stream(outcome?, authorities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_is_read_with_and_without_its_scheme() {
        for (url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("ws://chat.example:9000/", "http://chat.example:9000"),
            ("localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://chat.example", "http://chat.example:80"),
        ] {
            let parsed = ServerUrl::parse(url).map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), Ok(shown), "{url}");
        }
        let secure = ServerUrl::parse("wss://[::1]/").map(|url| url.to_string());
        match cfg!(feature = "tls") {
            true => assert_eq!(secure.as_deref(), Ok("https://[::1]:443")),
            false => assert!(secure.is_err_and(|why| why.contains("--features tls"))),
        }
        for bad in [
            "ftp://x",
            "http://",
            "http://x/chat",
            "http://a@b",
            "x:99999",
            "x:",
        ] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
