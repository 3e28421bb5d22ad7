//! The health check of `hubbub ready`: one plain HTTP request to `/readyz`.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{ServerUrl, open};

/// The most bytes that are read of an answer: more than any of the server's.
const MAX_RESPONSE: u64 = 4096;

impl ServerUrl {
    /// Asks the server whether it can take users. The error says why it cannot, in the server's words
    /// if it answered. The operator, or a supervisor, acts next.
    pub fn is_ready(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let response = self
            .get_readyz(deadline)
            .map_err(|error| format!("cannot reach {self}: {error}"))?;
        let (head, sentence) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        match head.split(' ').nth(1) {
            Some("200") => Ok(()),
            Some(status) => Err(format!(
                "{self} is not ready ({status}): {}",
                sentence.trim()
            )),
            None => Err(format!("{self} is not an HTTP server")),
        }
    }

    fn get_readyz(&self, deadline: Instant) -> std::io::Result<String> {
        let time_left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            // The socket API rejects a timeout of zero.
            left.max(Duration::from_millis(1))
        };
        let mut socket = open(self, time_left)?;
        socket.set_write_timeout(Some(time_left()))?;
        socket.set_read_timeout(Some(time_left()))?;
        let authority = &self.authority;
        write!(socket, "GET /readyz HTTP/1.1\r\nHost: {authority}\r\n\r\n")?;
        let mut response = Vec::new();
        socket.take(MAX_RESPONSE).read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    }
}
