//! An HTTP response.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use super::date::imf_fixdate;
use crate::server::page::{self, Asset};

/// A response. The server closes the connection after it, unless it is said to go on.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Cow<'static, str>,
    with_body: bool,
    goes_on: bool,
    /// Whether its body ends with the connection, so that its length is not told (RFC 9112 §6.3).
    is_endless: bool,
}

/// The type of most responses.
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    /// A sentence, in plain text.
    pub fn new(status: u16, sentence: impl Into<String>) -> Self {
        let mut body = sentence.into();
        body.push('\n');
        Self::of(status, PLAIN_TEXT, body)
    }

    /// A longer text, with status 200.
    pub fn of_text(body: String) -> Self {
        Self::of(200, PLAIN_TEXT, body)
    }

    /// A status without a body.
    pub fn empty(status: u16) -> Self {
        Self::of(status, PLAIN_TEXT, "")
    }

    /// A JSON value.
    pub fn of_json(status: u16, mut body: String) -> Self {
        body.push('\n');
        Self::of(status, "application/json", body)
    }

    /// The beginning of a response that goes on until the connection ends.
    pub fn endless(content_type: &'static str, beginning: String) -> Self {
        Self {
            is_endless: true,
            ..Self::of(200, content_type, beginning)
        }
    }

    fn of(status: u16, content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
            with_body: true,
            goes_on: false,
            is_endless: false,
        }
    }

    /// A file of the page, or 304 if the browser has it already. `has` is the `If-None-Match` field
    /// (RFC 9110 §13.1.2).
    pub fn of_asset(asset: &'static Asset, has: Option<&str>) -> Self {
        let etag = asset.etag();
        let fresh = has.is_some_and(|has| has.split(',').any(|one| one.trim() == etag));
        let status = if fresh { 304 } else { 200 };
        let mut response = Self::of(status, asset.content_type, asset.text).with("ETag", etag);
        response.with_body = !fresh;
        for (name, value) in page::HEADERS {
            response = response.with(name, value);
        }
        response
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says when the client may come again, in whole seconds (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        self.with("Retry-After", format!("{}", wait.as_secs_f64().ceil()))
    }

    /// Makes it the response to a HEAD request (RFC 9110 §9.3.2).
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.with_body = false;
        self
    }

    /// Makes the refusal of a wrong method, which names those that are allowed, the response to an OPTIONS request
    /// (RFC 9110 §9.3.7).
    #[must_use]
    pub fn to_options(self) -> Self {
        match self.status {
            405 => {
                let allow = self
                    .headers
                    .into_iter()
                    .filter(|(name, _)| *name == "Allow");
                Self {
                    headers: allow.collect(),
                    ..Self::empty(204)
                }
            }
            _ => self,
        }
    }

    /// Whether it ends before the connection does, so that the connection can go on after it.
    pub fn has_end(&self) -> bool {
        !self.is_endless
    }

    /// Says that the connection goes on after it (RFC 9112 §9.3).
    #[must_use]
    pub fn going_on(mut self) -> Self {
        self.goes_on = true;
        self
    }

    /// Writes the response. Whether this blocks, and for how long, is up to the socket's options.
    pub fn write(&self, socket: &TcpStream) -> io::Result<()> {
        (&mut &*socket).write_all(&self.bytes())
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            204 => "No Content",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            411 => "Length Required",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            421 => "Misdirected Request",
            422 => "Unprocessable Content",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "",
        };
        let connection = match self.goes_on {
            true => "keep-alive",
            false => "close",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\n\
             Date: {}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Connection: {connection}\r\n",
            self.status,
            imf_fixdate(SystemTime::now())
        );
        // A 204 has no content, and must not have these fields (RFC 9110 §8.6).
        if self.status != 204 {
            bytes.push_str(&format!("Content-Type: {}\r\n", self.content_type));
        }
        if self.status != 204 && !self.is_endless {
            bytes.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        if self.with_body {
            bytes.push_str(&self.body);
        }
        bytes.into_bytes()
    }
}
