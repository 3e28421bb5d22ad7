//! The body of a request, by its length or in chunks (RFC 9112 §6 and §7.1).
//!
//! A body is read once, if at all. The bytes behind it begin the next request, so nothing is read after a body whose
//! end is in doubt: what a proxy took for a part of it must not become a request.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::time::Instant;

use super::Request;
use super::input::{ReadError, read_by};
use crate::stream::Stream;

/// The most bytes of chunk extensions and trailers together. They are checked, and ignored.
const MAX_EXTRA: usize = 8 << 10;

/// The most digits of a chunk's size: those of a number of 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no `Content-Length` and no `Transfer-Encoding` field, and so no body.
    Absent,
    /// So many bytes.
    Length(usize),
    /// Chunks, up to an empty one.
    Chunked,
}

/// A request's body, with the bytes that came behind the head.
#[derive(Debug)]
pub(super) struct Body(RefCell<Option<Unread>>);

/// The unread part of a request. The [`Body`] has none once the end of the body is in doubt.
#[derive(Debug)]
struct Unread {
    framing: Framing,
    read: Vec<u8>,
}

impl Body {
    /// `read` came behind the head already.
    pub(super) fn new(framing: Framing, read: Vec<u8>) -> Self {
        Self(RefCell::new(Some(Unread { framing, read })))
    }

    /// Whether there is something to read.
    pub(super) fn is_present(&self) -> bool {
        let unread = self.0.borrow();
        let framing = unread.as_ref().map(|unread| unread.framing);
        !matches!(framing, Some(Framing::Absent | Framing::Length(0)))
    }

    /// Whether it may have more bytes than this. The length of chunks is not known before they are read.
    pub(super) fn may_exceed(&self, most: usize) -> bool {
        let unread = self.0.borrow();
        match unread.as_ref().map(|unread| unread.framing) {
            None | Some(Framing::Absent) => false,
            Some(Framing::Length(length)) => length > most,
            Some(Framing::Chunked) => true,
        }
    }

    /// The bytes that were read behind the body. `None` if its end is in doubt, or has not come yet: nobody waits
    /// for a body that is of no use.
    pub(super) fn into_rest(self) -> Option<Vec<u8>> {
        let Unread { framing, mut read } = self.0.into_inner()?;
        match framing {
            Framing::Absent => Some(read),
            Framing::Length(length) if length <= read.len() => Some(read.split_off(length)),
            Framing::Length(_) | Framing::Chunked => None,
        }
    }
}

/// The reason why no body could be read. The client acts next.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The client closed or broke off.
    Gone,
    /// The body was not complete in time.
    Late,
    /// The body has more than this many bytes.
    TooLarge(usize),
    /// The request says nothing of a body's end.
    NoLength,
    /// The chunks are malformed.
    BadChunks(&'static str),
    /// The body is not UTF-8.
    NotText,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it closed before the body was complete"),
            Self::Late => f.write_str("the request's body took too long"),
            Self::TooLarge(most) => write!(f, "the request's body is over {most} bytes"),
            Self::NoLength => f.write_str("the request needs a Content-Length field"),
            Self::BadChunks(why) => write!(f, "the request's chunks are malformed: {why}"),
            Self::NotText => f.write_str("the request's body is not UTF-8"),
        }
    }
}

impl From<ReadError> for BodyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone => Self::Gone,
            ReadError::Late => Self::Late,
        }
    }
}

impl BodyError {
    /// The HTTP status of the error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Gone | Self::BadChunks(_) | Self::NotText => 400,
            Self::Late => 408,
            Self::TooLarge(_) => 413,
            Self::NoLength => 411,
        }
    }
}

/// Reads a request's body of up to `most` bytes, until `deadline` at the latest. It can be read once.
pub fn read_body(
    stream: &Stream,
    request: &Request,
    most: usize,
    deadline: Instant,
) -> Result<String, BodyError> {
    // If this fails, the end of the body stays in doubt.
    let unread = request.body.0.take();
    let Unread { framing, read } = unread.ok_or(BodyError::NoLength)?;
    let is_complete = match framing {
        Framing::Absent => return Err(BodyError::NoLength),
        Framing::Length(length) if length > most => return Err(BodyError::TooLarge(most)),
        Framing::Length(length) => length <= read.len(),
        Framing::Chunked => false,
    };
    if !is_complete && request.expects_to_be_asked() {
        // RFC 9110 §10.1.1. If this write fails, the client is gone, and the read below fails too.
        let _ = stream
            .socket()
            .write_all(&stream.sealed(b"HTTP/1.1 100 Continue\r\n\r\n"));
    }
    let mut input = BodyReader {
        stream,
        deadline,
        bytes: read,
        taken: 0,
    };
    let mut body = Vec::new();
    match framing {
        Framing::Absent => {}
        Framing::Length(length) => input.take(length, &mut body)?,
        Framing::Chunked => input.take_chunks(most, &mut body)?,
    }
    *request.body.0.borrow_mut() = Some(Unread {
        framing: Framing::Absent,
        read: input.bytes.split_off(input.taken),
    });
    String::from_utf8(body).map_err(|_| BodyError::NotText)
}

/// Reads a body: first the `bytes` that came behind the head, from the index `taken` on, and then those of the stream.
struct BodyReader<'a> {
    stream: &'a Stream,
    deadline: Instant,
    bytes: Vec<u8>,
    taken: usize,
}

impl BodyReader<'_> {
    /// Reads more.
    fn fill(&mut self) -> Result<(), BodyError> {
        let mut buffer = [0; 4096];
        let count = read_by(self.stream, &mut buffer, self.deadline)?;
        // Not with each chunk: they may be of one byte.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    /// Appends so many bytes to `body`.
    fn take(&mut self, count: usize, body: &mut Vec<u8>) -> Result<(), BodyError> {
        let end = body.len() + count;
        loop {
            let there = &self.bytes[self.taken..];
            let there = &there[..there.len().min(end - body.len())];
            body.extend_from_slice(there);
            self.taken += there.len();
            if body.len() == end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Appends the data of all chunks to `body`, up to `most` bytes, and takes the trailers.
    fn take_chunks(&mut self, most: usize, body: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut extra = MAX_EXTRA;
        loop {
            let (size, extension) = parse_chunk_line(self.line(extra + MAX_SIZE_DIGITS)?)?;
            extra = extra.checked_sub(extension).ok_or(TOO_LONG)?;
            if size == 0 {
                break;
            }
            if size > (most - body.len()) as u64 {
                return Err(BodyError::TooLarge(most));
            }
            self.take(size as usize, body)?;
            if !self.line(0)?.is_empty() {
                return Err(BodyError::BadChunks("a chunk is longer than its size"));
            }
        }
        loop {
            let line = self.line(extra)?;
            if line.is_empty() {
                return Ok(());
            }
            if !is_field(line) {
                return Err(BodyError::BadChunks("a trailer is no field"));
            }
            extra -= line.len();
        }
    }

    /// Takes a line of up to `most` bytes, without its end, which is CR LF and nothing else: other readers may
    /// accept LF or CR alone.
    fn line(&mut self, most: usize) -> Result<&[u8], BodyError> {
        let length = loop {
            let there = &self.bytes[self.taken..];
            let end = there.iter().position(|&byte| byte == b'\n');
            // With the CR.
            if end.unwrap_or(there.len()) > most + 1 {
                return Err(TOO_LONG);
            }
            match end {
                Some(end) => break end,
                None => self.fill()?,
            }
        };
        let line = &self.bytes[self.taken..self.taken + length];
        self.taken += length + 1;
        match line.strip_suffix(b"\r") {
            Some(line) if line.iter().all(|&b| b == b'\t' || !b.is_ascii_control()) => Ok(line),
            _ => Err(BodyError::BadChunks(
                "a line does not end with CR LF, or has control characters",
            )),
        }
    }
}

const TOO_LONG: BodyError =
    BodyError::BadChunks("a line is too long, or there are too many extensions and trailers");

/// Parses a line before a chunk's data: the size, and how many bytes the extensions have. No white space and no sign
/// is taken, which other readers may read differently.
fn parse_chunk_line(line: &[u8]) -> Result<(u64, usize), BodyError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, extensions) = line.split_at(digits.count());
    let is_proper = (1..=MAX_SIZE_DIGITS).contains(&digits.len())
        && (extensions.is_empty() || extensions.starts_with(b";"));
    let digits = std::str::from_utf8(digits).ok();
    let size = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match size {
        Some(size) if is_proper => Ok((size, extensions.len())),
        _ => Err(BodyError::BadChunks(
            "a chunk's size is no hexadecimal number",
        )),
    }
}

/// Whether a line is a field (RFC 9112 §5): no white space before the colon, and no continuation of the line before.
fn is_field(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    name.len() < line.len() && !name.is_empty() && name.iter().all(is_token)
}
