//! An answer, after which the connection is closed.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::TcpStream;

use crate::server::page::{self, Asset};

/// A plain answer, after which the connection is closed.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Cow<'static, str>,
    with_body: bool,
}

/// What most answers are.
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    /// A status and a sentence.
    pub fn new(status: u16, sentence: impl Into<String>) -> Self {
        let mut body = sentence.into();
        body.push('\n');
        Self::of(status, PLAIN_TEXT, body)
    }

    /// A text of its own, with a 200.
    pub fn of_text(body: String) -> Self {
        Self::of(200, PLAIN_TEXT, body)
    }

    /// A status that says it all.
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

    /// A file of the page; 304 if it is among those that the browser has (`If-None-Match`,
    /// RFC 9110 §13.1.2).
    pub fn of_asset(asset: &'static Asset, has: Option<&str>) -> Self {
        let etag = asset.etag();
        let fresh = has.is_some_and(|has| has.split(',').any(|one| one.trim() == etag));
        let status = if fresh { 304 } else { 200 };
        let mut answer = Self::of(status, asset.content_type, asset.text).with("ETag", etag);
        answer.with_body = !fresh;
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

    /// Writes it, as the socket's mode and time-out have it.
    pub fn write(&self, socket: &TcpStream) -> io::Result<()> {
        (&mut &*socket).write_all(&self.bytes())
    }

    /// As it is written.
    pub fn bytes(&self) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
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
        // There is no content to tell of (RFC 9110 §8.6).
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
