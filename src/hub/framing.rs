//! The bytes on the wire for a server's events: the frames of a WebSocket, or, without frames, the records of a client
//! that follows a room over HTTP.

use crate::protocol::{Encoding, Event, records};
use crate::websocket::frame::{self, Frame};

/// An event; `None` if this encoding leaves it out.
pub fn event(encoding: Encoding, event: &Event) -> Option<Frame> {
    payloads(encoding, &encoding.encode(event))
}

/// The payloads that [`Encoding::encode`] returned; `None` if there are none.
pub fn payloads(encoding: Encoding, payloads: &[String]) -> Option<Frame> {
    match encoding.is_for_followers() {
        false => frame::text(payloads),
        true if payloads.is_empty() => None,
        true => Some(payloads.concat().into_bytes().into()),
    }
}

/// The heartbeat: a ping, or bytes without meaning.
pub(super) fn heartbeat(encoding: Encoding) -> Frame {
    match encoding.is_for_followers() {
        false => frame::ping(),
        true => records::heartbeat(encoding).as_bytes().into(),
    }
}

/// The end, with the code of a close frame (RFC 6455 §7.4.1).
pub fn close(encoding: Encoding, code: u16, reason: &str) -> Frame {
    match encoding.is_for_followers() {
        false => frame::close(code, reason),
        true => records::closed(encoding, code, reason).into_bytes().into(),
    }
}
