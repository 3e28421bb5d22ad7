//! The responses of the HTTP API: an event of the `hubbub.v1` encoding ([`crate::protocol::json`]), with the HTTP
//! status that fits it.

use std::time::Duration;

use super::answers::failed;
use super::auth::{Denied, origin};
use super::http::{Request, Response};
use super::state::State;
use crate::backplane::BackplaneError;
use crate::message::RoomName;
use crate::protocol::{ErrorCode, Event, json};

/// The value of `Retry-After` when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The response for an unknown path.
pub(super) fn not_found() -> Response {
    let sentence = "there are /api/rooms, /api/rooms/{room}/messages and /api/rooms/{room}/members";
    error(404, ErrorCode::NotFound, sentence)
}

/// The response to a post whose body cannot be taken.
pub(super) fn not_sent(status: u16, why: &str) -> Response {
    let code = match status {
        413 => ErrorCode::TooLarge,
        _ => ErrorCode::BadRequest,
    };
    error(status, code, &format!("not sent: {why}"))
}

/// The response without a token, or a secret, that allows the request.
pub(super) fn deny(denied: &Denied) -> Response {
    let code = match denied.status {
        401 => ErrorCode::Unauthorized,
        _ => ErrorCode::Forbidden,
    };
    denied.challenge(error(denied.status, code, denied.sentence))
}

/// Lets the browser show the response to a page of an allowed origin (Fetch §3.2).
pub(super) fn show_to_page(state: &State, request: &Request, response: Response) -> Response {
    match origin(request, &state.config) {
        Some((origin, true)) => response
            .with("Access-Control-Allow-Origin", origin)
            .with("Vary", "Origin"),
        _ => response,
    }
}

/// The response to another method than those that are allowed.
pub(super) fn wrong_method(allowed: &str) -> Response {
    let message = format!("only {allowed} is possible here");
    error(405, ErrorCode::BadRequest, &message).with("Allow", allowed)
}

/// The response to a request, perhaps about a room, that the backplane could not carry out. `what` begins its sentence.
pub(super) fn cannot(what: &str, room: Option<&RoomName>, why: &BackplaneError) -> Response {
    response_to(status_of(why), &failed(what, room, None, why))
}

/// The response for an answer of the backplane. If a retry may help, it says when to retry.
pub(super) fn response_to(status: u16, event: &Event) -> Response {
    let response = object(status, event);
    match event {
        Event::Error { retry: true, .. } => later(response),
        _ => response,
    }
}

/// The status for an error of the backplane.
pub(super) fn status_of(why: &BackplaneError) -> u16 {
    match why {
        BackplaneError::Unavailable
        | BackplaneError::NoAnswer
        | BackplaneError::Overloaded
        | BackplaneError::DiskUnavailable
        | BackplaneError::DiskSilent => 503,
        BackplaneError::RefReused => 422,
        BackplaneError::Refused(_) => 500,
    }
}

/// Asks the client to try again a little later.
pub(super) fn later(response: Response) -> Response {
    response.retry_after(RETRY_AFTER)
}

/// The response with this error. What is no fault of the request may be tried again.
pub(super) fn error(status: u16, code: ErrorCode, message: &str) -> Response {
    let event = Event::Error {
        code,
        message: message.to_owned(),
        reference: None,
        room: None,
        retry: matches!(status, 408 | 429 | 503),
        retry_after_ms: None,
    };
    object(status, &event)
}

/// The response with this event.
pub(super) fn object(status: u16, event: &Event) -> Response {
    Response::of_json(status, json::encode(event))
}
