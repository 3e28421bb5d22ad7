//! One HTTP request a connection: its head, where it leads, and a plain answer.
//!
//! We read the head ourselves, since tungstenite's own accept answers a bad request with nothing.
//! A head has one absolute deadline, whatever trickles, and a largest size.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use percent_encoding::percent_decode_str;

use crate::page::{self, Asset};

/// The most header fields.
const MAX_HEADERS: usize = 64;

/// A request's head.
#[derive(Debug)]
pub struct Request {
    /// `GET`, mostly.
    pub method: String,
    /// Still percent-encoded.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// As they came.
    pub headers: Vec<(String, String)>,
    /// What came behind the head.
    pub rest: Vec<u8>,
}

/// Why there is no request. The client acts next, if it is there at all.
#[derive(Debug)]
pub enum HeadError {
    /// The client closed, broke off, or sent nothing.
    Gone,
    /// The head was not complete in time.
    Late,
    /// The head is over so many bytes, or has too many fields.
    TooLarge(usize),
    /// Not HTTP/1.1, or not properly.
    NotHttp(String),
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
            Self::NotHttp(why) => write!(f, "this is not an HTTP/1.1 request: {why}"),
        }
    }
}

impl HeadError {
    /// What to tell the client; nothing if it is gone.
    pub fn answer(&self) -> Option<Answer> {
        let status = match self {
            Self::Gone => return None,
            Self::Late => 408,
            Self::TooLarge(_) => 431,
            Self::NotHttp(_) => 400,
        };
        Some(Answer::new(status, self.to_string()))
    }
}

/// Reads a request's head of up to `most` bytes, until `deadline` at the latest.
pub fn read_request(
    socket: &TcpStream,
    most: usize,
    deadline: Instant,
) -> Result<Request, HeadError> {
    let mut head = Vec::with_capacity(1024);
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HeadError::Late);
        }
        socket
            .set_read_timeout(Some(left))
            .map_err(|_| HeadError::Gone)?;
        let count = match (&mut &*socket).read(&mut buffer) {
            Ok(0) => return Err(HeadError::Gone),
            Ok(count) => count,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(HeadError::Late),
                _ => return Err(HeadError::Gone),
            },
        };
        head.extend_from_slice(&buffer[..count]);
        if let Some(request) = parse(&head, most)? {
            return Ok(request);
        }
        if head.len() >= most {
            return Err(HeadError::TooLarge(most));
        }
    }
}

fn parse(bytes: &[u8], most: usize) -> Result<Option<Request>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end > most => return Err(HeadError::TooLarge(most)),
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge(most)),
        Err(error) => return Err(HeadError::NotHttp(error.to_string())),
    };
    if request.version != Some(1) {
        return Err(HeadError::NotHttp("HTTP/1.0 is too old".to_owned()));
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        let value = std::str::from_utf8(field.value)
            .map_err(|_| HeadError::NotHttp("a header field is not text".to_owned()))?;
        headers.push((field.name.to_owned(), value.to_owned()));
    }
    Ok(Some(Request {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: parse_query(query)?,
        headers,
        rest: bytes[end..].to_vec(),
    }))
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

fn decode(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

impl Request {
    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut values = self.query.iter().filter(|(found, _)| found == name);
        values.next().map(|(_, value)| value.as_str())
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next()
    }

    /// All values of a header field that may be repeated.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Where the request leads.
    pub fn route(&self) -> Route {
        if let Some(asset) = page::asset(&self.path) {
            return Route::Page(asset);
        }
        let mut segments = self.path.trim_start_matches('/').split('/');
        match (segments.next(), segments.next(), segments.next()) {
            (Some("livez"), None, _) => Route::Live,
            (Some("readyz"), None, _) => Route::Ready,
            (Some("metrics"), None, _) => Route::Metrics,
            (Some("chat"), user, None) => Route::Chat {
                user: user.and_then(decode),
            },
            _ => Route::Unknown,
        }
    }
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/` and what its document asks for.
    Page(&'static Asset),
    /// `/livez`: does the process answer?
    Live,
    /// `/readyz`: can it take users?
    Ready,
    /// `/metrics`: counters and gauges for Prometheus.
    Metrics,
    /// `/chat/{user}`, with the user decoded; `None` if it is not UTF-8 or missing.
    Chat {
        /// Not validated yet.
        user: Option<String>,
    },
    /// Anything else.
    Unknown,
}

/// A plain answer, after which the connection is closed.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
    with_body: bool,
}

/// What most answers are.
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    /// A status and a sentence.
    pub fn new(status: u16, sentence: impl Into<String>) -> Self {
        let mut body = sentence.into();
        body.push('\n');
        Self {
            status,
            content_type: PLAIN_TEXT,
            headers: Vec::new(),
            body,
            with_body: true,
        }
    }

    /// A text of its own, with a 200.
    pub fn of_text(body: String) -> Self {
        Self {
            status: 200,
            content_type: PLAIN_TEXT,
            headers: Vec::new(),
            body,
            with_body: true,
        }
    }

    /// A file of the page; 304 if it is among those that the browser has (`If-None-Match`,
    /// RFC 9110 §13.1.2).
    pub fn of_asset(asset: &Asset, has: Option<&str>) -> Self {
        let etag = asset.etag();
        let fresh = has.is_some_and(|has| has.split(',').any(|one| one.trim() == etag));
        let mut answer = Self {
            status: if fresh { 304 } else { 200 },
            content_type: asset.content_type,
            headers: vec![("ETag", etag)],
            body: asset.text.to_owned(),
            with_body: !fresh,
        };
        for (name, value) in page::HEADERS {
            answer = answer.with(name, value);
        }
        answer
    }

    /// With one more header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As the answer to a HEAD request (RFC 9110 §9.3.2).
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.with_body = false;
        self
    }

    /// Writes it.
    pub fn write(&self, socket: &TcpStream) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            429 => "Too Many Requests",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\n\
             Content-Type: {}\r\n\
             Content-Length: {}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        if self.with_body {
            bytes.push_str(&self.body);
        }
        (&mut &*socket).write_all(bytes.as_bytes())
    }
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
    fn a_head_is_taken_apart_and_what_follows_is_kept() {
        let request = request("/chat/Zo%C3%AB?room=a+b&room=c&since=1-0");
        assert_eq!(request.method, "GET");
        assert_eq!(request.parameter("room"), Some("a b"));
        assert_eq!(request.parameter("token"), None);
        assert_eq!(request.header_values("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.rest, b"rest");
        let user = Some("Zoë".to_owned());
        assert_eq!(request.route(), Route::Chat { user });
    }

    #[test]
    fn paths_lead_where_they_should() {
        let chat = |user: Option<&str>| Route::Chat {
            user: user.map(str::to_owned),
        };
        for (target, route) in [
            ("/?x", Route::Page(page::asset("/").expect("the document"))),
            ("/page/../", Route::Unknown),
            ("/page/screenshot.png", Route::Unknown),
            ("/livez", Route::Live),
            ("/readyz", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/chat/bob", chat(Some("bob"))),
            ("/chat/a%2Fb", chat(Some("a/b"))),
            ("/chat/%ff", chat(None)),
            ("/chat", chat(None)),
            ("/chat/", chat(Some(""))),
            ("/chat/a/b", Route::Unknown),
            ("/nowhere", Route::Unknown),
        ] {
            assert_eq!(request(target).route(), route, "{target}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused_and_a_part_is_waited_for() {
        assert!(matches!(
            parse(b"\x16\x03\x01\x02\x00", 8192),
            Err(HeadError::NotHttp(_))
        ));
        assert!(matches!(
            parse(b"GET / HTTP/1.0\r\n\r\n", 8192),
            Err(HeadError::NotHttp(_))
        ));
        assert!(matches!(
            parse(b"GET /?%ff HTTP/1.1\r\n\r\n", 8192),
            Err(HeadError::NotHttp(_))
        ));
        assert!(matches!(parse(b"GET / HT", 8192), Ok(None)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert!(matches!(
            parse(many.as_bytes(), 8192),
            Err(HeadError::TooLarge(8192))
        ));
    }
}
