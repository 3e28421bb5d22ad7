//! An HTTP response.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::server::page::{self, Asset};

/// A response. The server closes the connection after it.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Cow<'static, str>,
    with_body: bool,
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

    fn of(status: u16, content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
            with_body: true,
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
            421 => "Misdirected Request",
            422 => "Unprocessable Content",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            _ => "",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n",
            self.status
        );
        // A 204 has no content, and must not have these fields (RFC 9110 §8.6).
        if self.status != 204 {
            let length = self.body.len();
            bytes.push_str(&format!(
                "Content-Type: {}\r\nContent-Length: {length}\r\n",
                self.content_type
            ));
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
