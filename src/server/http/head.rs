//! Reads the head of a request.
//!
//! It has a size limit and one absolute deadline, so that a client that sends a byte at a time gains
//! nothing. A head that a proxy could read differently is refused (RFC 9112 §11).

use std::fmt;
use std::time::Instant;

use super::body::{Body, Framing};
use super::input::{ReadError, read_by};
use super::{Request, Response, decode};
use crate::stream::Stream;

/// The largest number of header fields.
const MAX_HEADERS: usize = 64;

/// Fields that must not be repeated: of two values, a proxy might use the other one.
const SINGLE_FIELDS: [&str; 9] = [
    "Authorization",
    "Content-Length",
    "Content-Type",
    "Host",
    "Idempotency-Key",
    "Origin",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Transfer-Encoding",
];

/// The reason why no request could be read. The client acts next, if it is still there.
#[derive(Debug)]
pub enum HeadError {
    /// The client closed, broke off, or sent nothing.
    Gone,
    /// The head was not complete in time.
    Late,
    /// The head has more than this many bytes, or too many fields.
    TooLarge(usize),
    /// The head is not proper HTTP/1.1.
    NotHttp(String),
    /// The head is of another version of HTTP.
    OtherVersion,
    /// A trusted proxy sent two fields that name different clients. Its operator acts next.
    TwoClients,
    /// A trusted proxy sent a PROXY header that is malformed. Its operator acts next.
    BadProxyHeader,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it closed before it asked for anything"),
            Self::Late => f.write_str("the request's head took too long"),
            Self::TooLarge(most) => write!(
                f,
                "the request's head is over {most} bytes or {MAX_HEADERS} fields"
            ),
            Self::TwoClients => f.write_str(
                "X-Forwarded-For and Forwarded name different clients; the proxy has to set or delete both",
            ),
            Self::BadProxyHeader => {
                f.write_str("the PROXY header is neither of version 1 nor of version 2")
            }
            Self::OtherVersion => f.write_str("only HTTP/1.1 and HTTP/1.0 are spoken here"),
            Self::NotHttp(why) => write!(f, "this is not an HTTP/1.1 request: {why}"),
        }
    }
}

impl HeadError {
    /// The response to the client; `None` if the client is gone.
    pub fn response(&self) -> Option<Response> {
        let status = match self {
            Self::Gone => return None,
            Self::Late => 408,
            Self::TooLarge(_) => 431,
            Self::OtherVersion => 505,
            Self::NotHttp(_) | Self::TwoClients | Self::BadProxyHeader => 400,
        };
        Some(Response::new(status, self.to_string()))
    }
}

/// Reads a request's head of up to `most` bytes, until `deadline` at the latest. `head` has the bytes that were read
/// before. If this fails, it has all bytes that were read.
pub fn read_request(
    stream: &Stream,
    head: &mut Vec<u8>,
    most: usize,
    deadline: Instant,
) -> Result<Request, HeadError> {
    let mut buffer = [0; 1024];
    loop {
        if !head.is_empty()
            && let Some(request) = parse(head, most)?
        {
            return Ok(request);
        }
        if head.len() >= most {
            return Err(HeadError::TooLarge(most));
        }
        let count = read_by(stream, &mut buffer, deadline)?;
        head.extend_from_slice(&buffer[..count]);
    }
}

impl From<ReadError> for HeadError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone => Self::Gone,
            ReadError::Late => Self::Late,
        }
    }
}

/// Parses a head of up to `most` bytes. `None` if it is not complete yet.
fn parse(bytes: &[u8], most: usize) -> Result<Option<Request>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end > most => return Err(HeadError::TooLarge(most)),
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge(most)),
        Err(httparse::Error::Version) if names_version(bytes) => {
            return Err(HeadError::OtherVersion);
        }
        Err(error) => return not_http(error.to_string()),
    };
    let is_old = request.version == Some(0);
    if !lines_end_properly(&bytes[..end]) {
        return not_http("there is a line that ends without CR");
    }
    let mut headers = Vec::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        let Ok(value) = std::str::from_utf8(field.value) else {
            return not_http("a header field is not text");
        };
        headers.push((field.name.to_owned(), value.to_owned()));
    }
    let (host, path, query) = split_target(request.path.unwrap_or_default())?;
    let (field_host, framing) = check_fields(&headers, is_old)?;
    let request = Request {
        method: request.method.unwrap_or_default().to_owned(),
        host: host.unwrap_or(field_host).to_owned(),
        path: path.to_owned(),
        query: parse_query(query)?,
        is_old,
        headers,
        body: Body::new(framing, bytes[end..].to_vec()),
    };
    Ok(Some(request))
}

fn not_http<T>(why: impl Into<String>) -> Result<T, HeadError> {
    Err(HeadError::NotHttp(why.into()))
}

/// Whether the first line names a version of HTTP.
fn names_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next();
    let word = line.and_then(|line| line.rsplit(|&byte| byte == b' ').next());
    word.and_then(|word| word.strip_prefix(b"HTTP/"))
        .is_some_and(|version| version.first().is_some_and(u8::is_ascii_digit))
}

/// Whether every line ends with CR LF. RFC 9112 §2.2 lets a reader accept LF alone, and lets another
/// reader refuse it.
fn lines_end_properly(head: &[u8]) -> bool {
    let lines = head.strip_suffix(b"\n").unwrap_or(head);
    lines
        .split(|&byte| byte == b'\n')
        .all(|line| line.ends_with(b"\r"))
}

/// Splits a target into host, path and query. A target is a path, an address with a host (RFC 9112
/// §3.2.2), or an asterisk, which means the server.
fn split_target(target: &str) -> Result<(Option<&str>, &str, &str), HeadError> {
    let (host, target) = if target.starts_with('/') || target == "*" {
        (None, target)
    } else {
        let (scheme, rest) = target.split_once("://").unwrap_or_default();
        if !["http", "https"].contains(&&*scheme.to_ascii_lowercase()) {
            return not_http("the target is neither a path nor an http address");
        }
        let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !is_host(host) {
            return not_http("the target's host is not a host and a port");
        }
        (Some(host), target)
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok((host, if path.is_empty() { "/" } else { path }, query))
}

/// Checks the fields that a proxy could read differently. Returns the host, which a request of HTTP/1.0 may leave out,
/// and how the end of the body is found.
fn check_fields(headers: &[(String, String)], is_old: bool) -> Result<(&str, Framing), HeadError> {
    let values = |name: &'static str| {
        headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    for name in SINGLE_FIELDS {
        if values(name).count() > 1 {
            return not_http(format!("there is more than one {name} field"));
        }
    }
    // RFC 9112 §3.2.
    let host = match values("Host").next() {
        None if is_old => "",
        None => return not_http("there is no Host field"),
        Some(host) if is_host(host) => host,
        Some(_) => return not_http("the Host field is not a host and a port"),
    };
    let framing = match (
        values("Content-Length").next(),
        values("Transfer-Encoding").next(),
    ) {
        (None, None) => Framing::Absent,
        // RFC 9112 §6.1, also for the next two.
        (Some(_), Some(_)) => {
            return not_http("there is both a Content-Length and a Transfer-Encoding field");
        }
        (None, Some(_)) if is_old => {
            return not_http("there is a Transfer-Encoding field in HTTP/1.0");
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        (None, Some(_)) => return not_http("the Transfer-Encoding field is not chunked"),
        // A number that does not fit is larger than any limit. RFC 9110 §8.6. Rust's parser would also accept a plus
        // sign.
        (Some(length), None) if is_number(length) => {
            Framing::Length(length.parse().unwrap_or(usize::MAX))
        }
        (Some(_), None) => return not_http("the Content-Length field is not a number"),
    };
    Ok((host, framing))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the text is a host, and perhaps a port (RFC 9110 §7.2, RFC 3986 §3.2.2). No http address has
/// an empty host (RFC 9110 §4.2.1).
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let (host, has_only): (_, fn(u8) -> bool) = match host.strip_prefix('[') {
        Some(address) => match address.strip_suffix(']') {
            Some(address) => (address, |b| b.is_ascii_hexdigit() || b":.".contains(&b)),
            None => return false,
        },
        None => (host, |b| {
            b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b)
        }),
    };
    !host.is_empty() && host.bytes().all(has_only) && port.bytes().all(|b| b.is_ascii_digit())
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, HeadError> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part: &str| {
                decode(&part.replace('+', " "))
                    .ok_or_else(|| HeadError::NotHttp("the query is not UTF-8".to_owned()))
            };
            Ok((text(name)?, text(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> Request {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\n\r\nrest");
        parse(head.as_bytes(), 8192)
            .expect("a head")
            .expect("a whole one")
    }

    #[test]
    fn a_head_is_parsed_and_the_bytes_behind_it_are_kept() {
        let request = request("/chat/Zo%C3%AB?room=a+b&room=c&since=1-0");
        assert_eq!(request.method, "GET");
        assert_eq!(request.parameter("room"), Some("a b"));
        assert_eq!(request.parameter("token"), None);
        assert_eq!(request.header_values("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.into_rest().as_deref(), Some(&b"rest"[..]));
    }

    #[test]
    fn bytes_that_are_not_http_are_refused_and_a_part_of_a_head_waits_for_the_rest() {
        assert!(matches!(
            parse(b"\x16\x03\x01\x02\x00", 8192),
            Err(HeadError::NotHttp(_))
        ));
        for other in ["GET / HTTP/2.0", "PRI * HTTP/2.0", "GET / HTTP/3"] {
            let head = format!("{other}\r\nHost: x\r\n\r\n");
            let parsed = parse(head.as_bytes(), 8192);
            assert!(matches!(parsed, Err(HeadError::OtherVersion)), "{other}");
        }
        for garbage in ["GET / x", "GET /", "GET / HTTP", "GET / HTTP/x"] {
            let parsed = parse(format!("{garbage}\r\n\r\n").as_bytes(), 8192);
            assert!(matches!(parsed, Err(HeadError::NotHttp(_))), "{garbage}");
        }
        assert!(matches!(
            parse(b"GET /?%ff HTTP/1.1\r\nHost: x\r\n\r\n", 8192),
            Err(HeadError::NotHttp(_))
        ));
        assert!(matches!(parse(b"GET / HT", 8192), Ok(None)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert!(matches!(
            parse(many.as_bytes(), 8192),
            Err(HeadError::TooLarge(8192))
        ));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in [
            "x",
            "a-b.example",
            "x:80",
            "x:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "a_b",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", ":80", "x:y", "x:+1", "a b", "a@b", "x/", "x?", "x#y", "::1", "[::1", "[]", "[x]",
            "é",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn the_host_of_the_target_counts_before_that_of_the_field() {
        let request = |target| {
            let request = request(target);
            (request.host, request.path)
        };
        let pair = |host: &str, path: &str| (host.to_owned(), path.to_owned());
        assert_eq!(request("/a"), pair("x", "/a"));
        assert_eq!(request("http://y:80/a?b"), pair("y:80", "/a"));
        assert_eq!(request("HTTPS://y"), pair("y", "/"));
        assert_eq!(request("http://y?http://z/"), pair("y", "/"));
        assert_eq!(request("*"), pair("x", "*"));
    }
}
