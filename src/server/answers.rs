//! Events that answer a send or another request. The session and the HTTP API both send them.

use std::time::Duration;

use crate::backplane::{BackplaneError, Deletions, Stored};
use crate::message::RoomName;
use crate::metrics;
use crate::protocol::{ErrorCode, Event, Ref};

/// The beginning of the answer to a send that may be stored all the same.
const SENT_OR_NOT: &str = "it may have been sent or not";

/// The answer to a send, or another request, that came too early; the next one is allowed after `wait`. `what` begins
/// the sentence, such as "not sent".
pub fn too_fast(
    what: &str,
    rate: u32,
    wait: Duration,
    room: Option<RoomName>,
    reference: Option<Ref>,
) -> Event {
    metrics::TOO_FAST.count();
    // Both rounded up: earlier would be too early.
    let tenths = wait.as_millis().div_ceil(100).max(1);
    Event::Error {
        code: ErrorCode::TooFast,
        message: format!(
            "{what}: too fast, at most {rate} a second; try again in {}.{} s",
            tenths / 10,
            tenths % 10
        ),
        retry_after_ms: Some(wait.as_micros().div_ceil(1000) as u64),
        reference,
        room,
        retry: true,
    }
}

/// The answer to a send, made from the answer of the backplane.
pub fn receipt(
    stored: Result<Stored, BackplaneError>,
    room: RoomName,
    reference: Option<Ref>,
) -> Event {
    match stored {
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
            let message = match (error.is_in_doubt(), &reference) {
                (false, _) => format!("not sent: {error}"),
                (true, Some(_)) => format!("{SENT_OR_NOT}: {error} with the same ref"),
                (true, None) => {
                    format!("{SENT_OR_NOT}: {error}, though it may be there twice then")
                }
            };
            refusal(message, Some(&room), reference, &error)
        }
    }
}

/// The answer to a request that the backplane could not carry out. `what` begins the sentence, such as
/// "cannot read the history".
pub fn failed(
    what: &str,
    room: Option<&RoomName>,
    reference: Option<Ref>,
    error: &BackplaneError,
) -> Event {
    refusal(format!("{what}: {error}"), room, reference, error)
}

fn refusal(
    message: String,
    room: Option<&RoomName>,
    reference: Option<Ref>,
    error: &BackplaneError,
) -> Event {
    let code = match error {
        BackplaneError::Unavailable
        | BackplaneError::NoAnswer
        | BackplaneError::Overloaded
        | BackplaneError::DiskUnavailable
        | BackplaneError::DiskSilent => ErrorCode::Unavailable,
        BackplaneError::RefReused => ErrorCode::RefReused,
        BackplaneError::Refused(_) => ErrorCode::Refused,
    };
    Event::Error {
        code,
        message,
        reference,
        room: room.cloned(),
        retry: error.is_passing(),
        retry_after_ms: None,
    }
}

/// Why a request for the list of rooms is refused.
pub const NOT_LISTED: &str = "this server does not list its rooms";

/// Tells what operators have deleted; `again` if it may be known.
pub fn deleted(room: RoomName, deletions: Deletions, again: bool) -> Event {
    let Deletions { ids, up_to } = deletions;
    Event::Deleted {
        room,
        ids: ids.into_iter().collect(),
        up_to,
        again,
    }
}
