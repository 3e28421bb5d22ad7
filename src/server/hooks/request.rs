//! One POST to another service, and the head of its answer. Redirects are not followed.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use crate::server::webhook::Webhook;
use crate::stream::{Authorities, Stream, open};

/// The sender of every request of ours. No server takes a post from it, or two rooms that post to each other would
/// never end.
pub const AGENT: &str = "hubbub-webhook";

/// The largest head of an answer.
const MAX_HEAD: usize = 16 << 10;

/// The most fields of an answer.
const MAX_FIELDS: usize = 64;

/// The pause between two looks whether the poster was stopped.
const LOOK: Duration = Duration::from_millis(200);

/// What the receiver answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    /// The time that it asks to wait, in its seconds (RFC 9110 §10.2.3).
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer. The poster tries again.
#[derive(Debug)]
pub(super) enum PostError {
    /// The connection failed.
    Io(io::Error),
    /// The answer is no HTTP.
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

/// Waits no longer than until `due`, nor much longer once `is_stopped`.
pub(super) struct Patience<F> {
    pub(super) due: Instant,
    pub(super) is_stopped: F,
}

impl<F: Fn() -> bool> Patience<F> {
    /// The time-out of the next read or write, unless there is none.
    fn next(&self) -> Result<Duration, PostError> {
        let left = self.due.saturating_duration_since(Instant::now());
        match left.is_zero() {
            _ if (self.is_stopped)() => Err(PostError::Stopped),
            true => Err(PostError::Late),
            false => Ok(left.min(LOOK)),
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
) -> Result<Answer, PostError> {
    let left = || {
        let left = patience.due.saturating_duration_since(Instant::now());
        // The socket API rejects a time-out of zero.
        left.max(Duration::from_millis(1))
    };
    let stream = open(&webhook.server, authorities, left).map_err(PostError::Io)?;
    let (host, target, length) = (webhook.server.authority(), &webhook.target, body.len());
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    );
    write(&stream, &stream.sealed(request.as_bytes()), patience)?;
    read_answer(&stream, patience)
}

fn write(
    stream: &Stream,
    mut bytes: &[u8],
    patience: &Patience<impl Fn() -> bool>,
) -> Result<(), PostError> {
    let mut socket = stream.socket();
    while !bytes.is_empty() {
        let timed = socket.set_write_timeout(Some(patience.next()?));
        match timed.and_then(|()| socket.write(bytes)) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(PostError::Io(error)),
        }
    }
    Ok(())
}

fn read_answer(
    stream: &Stream,
    patience: &Patience<impl Fn() -> bool>,
) -> Result<Answer, PostError> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < MAX_HEAD {
        let timed = stream.socket().set_read_timeout(Some(patience.next()?));
        match timed.and_then(|()| stream.read(&mut buffer)) {
            Ok(0) => return Err(PostError::Io(ErrorKind::UnexpectedEof.into())),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(PostError::Io(error)),
        }
        if let Some(answer) = parse(&head)? {
            return Ok(answer);
        }
    }
    Err(PostError::NotHttp)
}

/// Whether the next read or write may go well.
fn is_passing(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::WouldBlock,
        ErrorKind::TimedOut,
        ErrorKind::Interrupted,
    ];
    kinds.contains(&error.kind())
}

/// Parses the head of an answer, behind interim ones (RFC 9110 §15.2). `None` if it is not complete yet.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, PostError> {
    let mut rest = bytes;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        let parsed = answer.parse(rest).map_err(|_| PostError::NotHttp)?;
        let (httparse::Status::Complete(end), Some(status)) = (parsed, answer.code) else {
            return Ok(None);
        };
        if status >= 200 {
            let mut fields = answer.headers.iter();
            let wait = fields.find(|field| field.name.eq_ignore_ascii_case("retry-after"));
            let seconds = wait.and_then(|wait| std::str::from_utf8(wait.value).ok()?.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            return Ok(Some(Answer {
                status,
                retry_after,
            }));
        }
        rest = &rest[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_its_head_is_complete() {
        let read = |text: &str| parse(text.as_bytes());
        assert!(matches!(read("HTTP/1.1 200 OK\r\nX: y\r\n"), Ok(None)));
        let busy =
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 429 Slow\r\nretry-after: 7\r\n\r\nmore";
        let answer = Answer {
            status: 429,
            retry_after: Some(Duration::from_secs(7)),
        };
        assert_eq!(read(busy).ok().flatten(), Some(answer));
        let done = "HTTP/1.0 204 \r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        let answer = read(done).ok().flatten().expect("an answer");
        assert_eq!((answer.status, answer.retry_after), (204, None));
        assert!(matches!(read("SSH-2.0-x\r\n\r\n"), Err(PostError::NotHttp)));
    }
}
