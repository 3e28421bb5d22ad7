//! The health check of `hubbub ready`: one plain HTTP request to `/readyz`.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{ServerUrl, open};
use crate::stream::Authorities;

/// The most bytes that are read of an answer: more than any of the server's.
const MAX_RESPONSE: usize = 4096;

impl ServerUrl {
    /// Asks the server whether it can take users. The error says why it cannot, in the server's words
    /// if it answered. The operator, or a supervisor, acts next.
    pub fn is_ready(&self, ca: Option<&Path>, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let authorities = self.authorities(ca).map_err(|error| error.to_string())?;
        let response = self
            .get_readyz(authorities.as_ref(), deadline)
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

    fn get_readyz(
        &self,
        authorities: Option<&Authorities>,
        deadline: Instant,
    ) -> io::Result<String> {
        let time_left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            // The socket API rejects a timeout of zero.
            left.max(Duration::from_millis(1))
        };
        let stream = open(self, authorities, time_left)?;
        let mut socket = stream.socket();
        socket.set_write_timeout(Some(time_left()))?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority);
        socket.write_all(&stream.sealed(request.as_bytes()))?;
        let mut response = Vec::new();
        let mut buffer = [0; 1024];
        while response.len() < MAX_RESPONSE {
            socket.set_read_timeout(Some(time_left()))?;
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => response.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&response).into_owned())
    }
}
