//! How users are told that an operator puts them out, of a room or altogether.

use std::time::Duration;

use crate::hub::outbox::Outbox;
use crate::message::RoomName;
use crate::protocol::{Encoding, Event};
use crate::websocket::code;

/// A client that does not know [`code::PUT_OUT`] comes back after this time.
const STAY_AWAY: Duration = Duration::from_secs(60);

/// Why a connection ends that an operator closes. Its user was told more.
pub const PUT_OUT: &str = "an operator closed the connection";

/// Tells one user why, and closes the connection.
pub fn put_out(outbox: &Outbox, reason: String) {
    outbox.send(&Event::Closing {
        reason,
        retry_after_ms: STAY_AWAY.as_millis() as u64,
    });
    outbox.close(code::PUT_OUT, PUT_OUT);
}

/// Tells one user why the connection is in the room no more. One that can have no other is closed.
pub fn tell_parted(outbox: &Outbox, room: RoomName, reason: String) {
    match outbox.encoding() {
        Encoding::Text | Encoding::EventStream | Encoding::JsonLines => put_out(outbox, reason),
        Encoding::Json => outbox.send(&Event::Parted {
            room,
            reason: Some(reason),
        }),
    }
}
