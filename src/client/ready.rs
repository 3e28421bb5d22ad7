//! Whether a server can take users: one plain request to `/readyz`.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::ServerUrl;

/// More than any sentence of ours.
const LONGEST_ANSWER: u64 = 4096;

impl ServerUrl {
    /// Asks the server; its own sentence if it says no. The operator, or a supervisor, acts next.
    pub fn is_ready(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let answer = self
            .ask(deadline)
            .map_err(|error| format!("cannot reach {self}: {error}"))?;
        let (head, sentence) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        match head.split(' ').nth(1) {
            Some("200") => Ok(()),
            Some(status) => Err(format!(
                "{self} is not ready ({status}): {}",
                sentence.trim()
            )),
            None => Err(format!("{self} is not an HTTP server")),
        }
    }

    fn ask(&self, deadline: Instant) -> std::io::Result<String> {
        let left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            // A time-out of nothing would be none.
            left.max(Duration::from_millis(1))
        };
        let mut outcome = Err(std::io::Error::other("the name has no address"));
        for address in self.authority.to_socket_addrs()? {
            outcome = TcpStream::connect_timeout(&address, left());
            if outcome.is_ok() {
                break;
            }
        }
        let mut socket = outcome?;
        socket.set_write_timeout(Some(left()))?;
        socket.set_read_timeout(Some(left()))?;
        let authority = &self.authority;
        write!(socket, "GET /readyz HTTP/1.1\r\nHost: {authority}\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
