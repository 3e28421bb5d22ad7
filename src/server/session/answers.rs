//! What answers a send or another request, wherever it came from.

use std::time::Duration;

use crate::backplane::{BackplaneError, Stored};
use crate::message::RoomName;
use crate::metrics;
use crate::protocol::{ErrorCode, Event, Ref};

pub(super) fn not_joined(room: &RoomName) -> String {
    format!("not in the room {room}; join it first")
}

/// What answers a send that came `wait` too early.
pub fn too_fast(rate: u32, wait: Duration, room: RoomName, reference: Option<Ref>) -> Event {
    metrics::TOO_FAST.count();
    Event::Error {
        code: ErrorCode::TooFast,
        message: format!(
            "not sent: too fast, at most {rate} messages a second; try again in {} ms",
            wait.as_millis().max(1)
        ),
        reference,
        room: Some(room),
        retry: true,
    }
}

/// What answers a send, once the backplane has.
pub fn receipt(
    outcome: Result<Stored, BackplaneError>,
    room: RoomName,
    reference: Option<Ref>,
) -> Event {
    match outcome {
        Ok(Stored { id, duplicate }) => {
            metrics::STORED.count();
            metrics::DUPLICATES.add(usize::from(duplicate));
            Event::Sent {
                reference,
                room,
                id,
                duplicate,
            }
        }
        Err(error) => {
            metrics::NOT_STORED.count();
            refused("not sent", Some(&room), reference, &error)
        }
    }
}

/// What answers a request that the backplane could not do.
pub fn refused(
    what: &str,
    room: Option<&RoomName>,
    reference: Option<Ref>,
    error: &BackplaneError,
) -> Event {
    let (code, retry) = match error {
        BackplaneError::Unavailable | BackplaneError::NoAnswer | BackplaneError::Overloaded => {
            (ErrorCode::Unavailable, true)
        }
        BackplaneError::Refused(_) => (ErrorCode::Refused, false),
    };
    Event::Error {
        code,
        message: format!("{what}: {error}"),
        reference,
        room: room.cloned(),
        retry,
    }
}
