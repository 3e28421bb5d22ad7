//! One plain HTTP request, for `hubbub ready` and `hubbub admin`.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stream::{Authorities, ServerUrl, open};

/// The most bytes that are read of an answer: more than any list of the server's.
const MAX_RESPONSE: usize = 64 << 20;

/// An HTTP request.
#[derive(Debug)]
pub struct PlainRequest<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Percent-encoded.
    pub path: &'a str,
    /// The secret of the `Bearer` scheme: text without line breaks.
    pub bearer: Option<&'a str>,
    /// JSON, or nothing.
    pub body: &'a str,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct PlainResponse {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: String,
}

impl ServerUrl {
    /// Sends a request and reads the answer. The error is a sentence. The operator acts next.
    pub fn send(
        &self,
        request: &PlainRequest<'_>,
        ca: Option<&Path>,
        within: Duration,
    ) -> Result<PlainResponse, String> {
        let authorities = self.authorities(ca).map_err(|error| error.to_string())?;
        let answer = self.exchange(request, authorities.as_ref(), Instant::now() + within);
        let answer = answer.map_err(|error| format!("cannot reach {self}: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse::<usize>().ok()).flatten()
        });
        if length.is_some_and(|length| body.len() < length) {
            return Err(format!("{self} broke off its answer"));
        }
        if answer.is_empty() {
            return Err(format!("{self} closed without an answer"));
        }
        let status = status.ok_or_else(|| format!("{self} is not an HTTP server"))?;
        Ok(PlainResponse {
            status,
            body: body.trim().to_owned(),
        })
    }

    fn exchange(
        &self,
        request: &PlainRequest<'_>,
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
        let PlainRequest {
            method, path, body, ..
        } = request;
        let (authority, length) = (self.authority(), body.len());
        let bearer = request.bearer.map_or(String::new(), |secret| {
            format!("Authorization: Bearer {secret}\r\n")
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{bearer}Content-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(&stream.sealed(request.as_bytes()))?;
        let mut response = Vec::new();
        let mut buffer = [0; 4096];
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
