//! The head of another server's HTTP response, for those that ask: a client's commands, and a webhook.

use std::time::Duration;

/// The most fields of a head.
const MAX_FIELDS: usize = 64;

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, 200 or more.
    pub status: u16,
    /// The value of the `Retry-After` field, if it is a number of seconds (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
    /// The value of the `Content-Length` field, if it is a number.
    pub length: Option<u64>,
    /// The number of bytes up to the body.
    pub end: usize,
}

/// The bytes are no response of HTTP/1. The operator of the server acts next.
#[derive(Debug, PartialEq, Eq)]
pub struct NotHttp;

impl ResponseHead {
    /// Parses a head, and skips interim ones before it (RFC 9110 §15.2). `None` if it is not complete yet.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, NotHttp> {
        let mut begin = 0;
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut response = httparse::Response::new(&mut fields);
            let parsed = response.parse(&bytes[begin..]).map_err(|_| NotHttp)?;
            let (httparse::Status::Complete(length), Some(status)) = (parsed, response.code) else {
                return Ok(None);
            };
            begin += length;
            if status >= 200 {
                return Ok(Some(Self {
                    status,
                    retry_after: number(response.headers, "retry-after").map(Duration::from_secs),
                    length: number(response.headers, "content-length"),
                    end: begin,
                }));
            }
        }
    }
}

/// The number in a field.
fn number(fields: &[httparse::Header<'_>], name: &str) -> Option<u64> {
    let mut fields = fields.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_complete() {
        let read = |text: &str| ResponseHead::parse(text.as_bytes());
        assert_eq!(read("HTTP/1.1 200 OK\r\nX: y\r\n"), Ok(None));
        let busy = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 429 Slow\r\nretry-after: 7\r\n\r\n";
        let head = ResponseHead {
            status: 429,
            retry_after: Some(Duration::from_secs(7)),
            length: None,
            end: busy.len(),
        };
        assert_eq!(read(&format!("{busy}more")), Ok(Some(head)));
        let done = "HTTP/1.0 204 \r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                    Content-Length: 0\r\n\r\n";
        let head = read(done).ok().flatten().expect("a head");
        assert_eq!((head.status, head.retry_after), (204, None));
        assert_eq!(head.length, Some(0));
        assert_eq!(read("SSH-2.0-x\r\n\r\n"), Err(NotHttp));
    }
}
