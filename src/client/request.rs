//! One plain HTTP request, for `hubbub say`, `ready` and `admin`.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::protocol::Ref;
use crate::stream::{NotHttp, ResponseHead, ServerUrl, Stream, open};

/// The most bytes that are read of a response: more than any list of the server's has.
const MAX_RESPONSE: usize = 64 << 20;

/// No request takes longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// An HTTP request.
#[derive(Debug)]
pub struct PlainRequest<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Percent-encoded.
    pub path: &'a str,
    /// The secret of the `Bearer` scheme: text without line breaks.
    pub bearer: Option<&'a str>,
    /// The ref of a message, for the `Idempotency-Key` field.
    pub reference: Option<&'a Ref>,
    /// JSON, a text, or nothing.
    pub body: &'a str,
    /// The media type of the body, where a server would guess it otherwise.
    pub body_type: Option<&'a str>,
}

/// The response to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct PlainResponse {
    /// The status code.
    pub status: u16,
    /// The value of the `Retry-After` field, if it is a number of seconds (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: String,
}

/// Why a request has no response. Each holds a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// Another attempt would fail the same way. The user acts next.
    Permanent(String),
    /// The server has nothing of the request. The caller may send it again.
    NotSent(String),
    /// The server may have taken the request. The caller may send it again if that is safe.
    NotAnswered(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent(why) | Self::NotSent(why) | Self::NotAnswered(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RequestError {}

impl ServerUrl {
    /// Sends a request and reads the response, in this time at most.
    pub fn send(
        &self,
        request: &PlainRequest<'_>,
        ca: Option<&Path>,
        within: Duration,
    ) -> Result<PlainResponse, RequestError> {
        let authorities = self.authorities(ca);
        let authorities = authorities.map_err(|why| RequestError::Permanent(why.to_string()))?;
        // A time that the clock cannot hold is as good as none.
        let deadline = Instant::now() + within.min(LONGEST_WAIT);
        let cannot_reach = |why: io::Error| match why.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("{self} gives no answer in time")
            }
            _ => format!("cannot reach {self}: {why}"),
        };
        let left = || deadline.saturating_duration_since(Instant::now());
        let stream = open(self, authorities.as_ref(), left)
            .map_err(|why| RequestError::NotSent(cannot_reach(why)))?;
        let response = self.exchange(&stream, request, deadline);
        let lost = |why| match stream.is_handshaking() {
            true => RequestError::NotSent(why),
            false => RequestError::NotAnswered(why),
        };
        let response = response.map_err(|why| match why.kind() {
            // The certificate is not trusted.
            io::ErrorKind::InvalidData => RequestError::Permanent(cannot_reach(why)),
            _ => lost(cannot_reach(why)),
        })?;
        let unanswered = |what: &str| lost(format!("{self} {what}"));
        if response.is_empty() {
            return Err(unanswered("closed without an answer"));
        }
        let not_http = |NotHttp| RequestError::Permanent(format!("{self} is not an HTTP server"));
        let head = ResponseHead::parse(&response).map_err(not_http)?;
        let head = head.ok_or_else(|| unanswered("broke off its answer"))?;
        let body = &response[head.end..];
        if head
            .length
            .is_some_and(|length| (body.len() as u64) < length)
        {
            return Err(unanswered("broke off its answer"));
        }
        Ok(PlainResponse {
            status: head.status,
            retry_after: head.retry_after,
            body: String::from_utf8_lossy(body).trim().to_owned(),
        })
    }

    /// Writes the request, and reads until the response is whole or the server closes. A server that refuses a large
    /// body may respond before it has read it.
    fn exchange(
        &self,
        stream: &Stream,
        request: &PlainRequest<'_>,
        deadline: Instant,
    ) -> io::Result<Vec<u8>> {
        let left = || match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
            left => Ok(left),
        };
        let written = stream.write_while(self.head_and_body(request).as_bytes(), left);
        let mut response = Vec::new();
        let mut buffer = [0; 4096];
        while response.len() < MAX_RESPONSE && !is_whole(&response) {
            match stream.read_while(&mut buffer, left) {
                Ok(0) => break,
                Ok(count) => response.extend_from_slice(&buffer[..count]),
                Err(_) if !response.is_empty() => break,
                Err(error) => return Err(written.err().unwrap_or(error)),
            }
        }
        match written {
            Err(error) if response.is_empty() => Err(error),
            _ => Ok(response),
        }
    }

    fn head_and_body(&self, request: &PlainRequest<'_>) -> String {
        let PlainRequest {
            method, path, body, ..
        } = request;
        let (authority, length) = (self.authority(), body.len());
        let bearer = request.bearer.map_or(String::new(), |secret| {
            format!("Authorization: Bearer {secret}\r\n")
        });
        let kind = request
            .body_type
            .map_or(String::new(), |kind| format!("Content-Type: {kind}\r\n"));
        let key = request.reference.map_or(String::new(), |reference| {
            format!("Idempotency-Key: {}\r\n", reference.as_str())
        });
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{bearer}{kind}{key}\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }
}

/// Whether a response says how long it is, and has come so far; or whether it is none.
fn is_whole(response: &[u8]) -> bool {
    match ResponseHead::parse(response) {
        Ok(Some(head)) => {
            let come = (response.len() - head.end) as u64;
            head.length.is_some_and(|length| come >= length)
        }
        Ok(None) => false,
        Err(NotHttp) => true,
    }
}
