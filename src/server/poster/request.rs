//! One POST to another service, and the head of its response. Redirects are not followed.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::server::webhook::Webhook;
use crate::stream::{Authorities, NotHttp, ResponseHead, Stream, open};

/// The `User-Agent` of every request. No Hubbub takes a post with it: two rooms that post to each other would never
/// end.
pub const AGENT: &str = "hubbub-webhook";

/// The largest head of a response, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The time-out of one read or write, after which it is checked whether the poster was stopped.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// Why there is no response. The poster tries again.
#[derive(Debug)]
pub(super) enum PostError {
    /// The connection failed.
    Io(io::Error),
    /// The response is no HTTP.
    NotHttp,
    /// The receiver took too long.
    Late,
    /// The poster was stopped meanwhile.
    Stopped,
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotHttp => f.write_str("its answer is no HTTP"),
            Self::Late => f.write_str("it does not answer in time"),
            Self::Stopped => f.write_str("it was stopped"),
        }
    }
}

impl From<io::Error> for PostError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The deadline of a POST, which also ends soon after `is_stopped` returns true.
pub(super) struct Patience<F> {
    pub(super) due: Instant,
    pub(super) is_stopped: F,
}

impl<F: Fn() -> bool> Patience<F> {
    /// The time-out of the next read or write, or the reason why there is none.
    fn next(&self) -> Result<Duration, PostError> {
        let left = self.due.saturating_duration_since(Instant::now());
        match left.is_zero() {
            _ if (self.is_stopped)() => Err(PostError::Stopped),
            true => Err(PostError::Late),
            false => Ok(left.min(STOP_CHECK)),
        }
    }
}

/// Posts JSON. `fields` are whole lines.
pub(super) fn post(
    webhook: &Webhook,
    authorities: Option<&Authorities>,
    fields: &str,
    body: &str,
    patience: &Patience<impl Fn() -> bool>,
) -> Result<ResponseHead, PostError> {
    let left = || patience.due.saturating_duration_since(Instant::now());
    let stream = open(&webhook.server, authorities, left)?;
    let (host, target, length) = (webhook.server.authority(), &webhook.target, body.len());
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    );
    stream.write_while(request.as_bytes(), || patience.next())?;
    read_head(&stream, patience)
}

fn read_head(
    stream: &Stream,
    patience: &Patience<impl Fn() -> bool>,
) -> Result<ResponseHead, PostError> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < MAX_HEAD {
        match stream.read_while(&mut buffer, || patience.next())? {
            0 => return Err(PostError::Io(ErrorKind::UnexpectedEof.into())),
            count => head.extend_from_slice(&buffer[..count]),
        }
        if let Some(head) = ResponseHead::parse(&head).map_err(|NotHttp| PostError::NotHttp)? {
            return Ok(head);
        }
    }
    Err(PostError::NotHttp)
}
