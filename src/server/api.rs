//! The HTTP API: say something, read the past, ask who is here; one request, one answer.
//!
//! The answers are the objects of the `hubbub.v1` encoding ([`crate::protocol::json`]), with the
//! status that HTTP has for them, so that whoever reads one reads the other. Nobody is present for
//! having asked.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::admission::{FOREIGN_PAGE, Refused, admit, page};
use super::http::{Answer, Request, Resource, read_body};
use super::session::{
    Instance, PAGE_DEFAULT, PAGE_MOST, gather, messages, receipt, refused, too_fast,
};
use crate::backplane::{BackplaneError, Draft};
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::{Cursor, Encoding, ErrorCode, Event, Ref, json};

/// When to try again, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An object, or another one that says why not.
type Outcome = Result<Answer, Answer>;

/// Answers a request for a resource of a room.
pub fn answer(
    instance: &Instance,
    socket: &TcpStream,
    request: &Request,
    room: Option<String>,
    resource: Option<Resource>,
) -> Answer {
    let outcome = match (resource, request.method.as_str()) {
        (None, _) => Err(error(
            404,
            ErrorCode::NotFound,
            "there are /api/rooms/{room}/messages and /api/rooms/{room}/members",
        )),
        (Some(_), "OPTIONS") => preflight(instance, request),
        (Some(Resource::Messages), "GET" | "HEAD") => past(instance, request, room),
        (Some(Resource::Messages), "POST") => say(instance, socket, request, room),
        (Some(Resource::Members), "GET" | "HEAD") => members(instance, request, room),
        (Some(Resource::Messages), _) => Err(wrong_method("GET, HEAD, POST, OPTIONS")),
        (Some(Resource::Members), _) => Err(wrong_method("GET, HEAD, OPTIONS")),
    };
    let answer = shown_to_its_page(instance, request, outcome.unwrap_or_else(|refused| refused));
    match request.method.as_str() {
        "HEAD" => answer.without_body(),
        _ => answer,
    }
}

fn past(instance: &Instance, request: &Request, room: Option<String>) -> Outcome {
    let room = room_of(room)?;
    enter(instance, request, None, &room)?;
    let bad = |message: &str| error(400, ErrorCode::BadRequest, message);
    let id = |name| -> Result<Option<MessageId>, Answer> {
        let text = request.parameter(name);
        text.map(|text| {
            text.parse()
                .map_err(|why| bad(&format!("bad {name}: {why}")))
        })
        .transpose()
    };
    let which = match (id("before")?, id("after")?) {
        (None, None) => Cursor::Newest,
        (Some(before), None) => Cursor::Before(before),
        (None, Some(after)) => Cursor::After(after),
        (Some(_), Some(_)) => return Err(bad("before or after, not both")),
    };
    let limit = match request.parameter("limit").map(str::parse) {
        None => PAGE_DEFAULT,
        Some(Ok(limit)) => PAGE_MOST.min(limit),
        Some(Err(_)) => return Err(bad("bad limit: it is a number of messages")),
    };
    let bytes = instance.config.outbox_bytes / 2;
    let excerpt = gather(
        &*instance.backplane,
        Encoding::Json,
        &room,
        (which, limit),
        bytes,
        || instance.is_closing(),
    );
    let excerpt = excerpt.map_err(|why| cannot("cannot read the history", &room, &why))?;
    Ok(object(
        200,
        &Event::History {
            room,
            messages: messages(excerpt.entries),
            more: excerpt.more,
        },
    ))
}

fn members(instance: &Instance, request: &Request, room: Option<String>) -> Outcome {
    let room = room_of(room)?;
    enter(instance, request, None, &room)?;
    let members = instance.backplane.members(&room);
    let members = members.map_err(|why| cannot("cannot tell who is here", &room, &why))?;
    Ok(object(200, &Event::Members { room, members }))
}

/// A message as JSON; other fields are ignored.
#[derive(Deserialize)]
struct Said {
    text: String,
    #[serde(rename = "ref")]
    reference: Option<Ref>,
}

fn say(
    instance: &Instance,
    socket: &TcpStream,
    request: &Request,
    room: Option<String>,
) -> Outcome {
    let room = room_of(room)?;
    let from = author(instance, request, &room)?;
    let said = body(instance, socket, request)?;
    if said.text.is_empty() {
        let message = "not sent: there is nothing to say";
        return Err(error(400, ErrorCode::Empty, message));
    }
    if let Err(wait) = instance.paces.take(&from, Instant::now()) {
        let event = too_fast(instance.config.send_rate, wait, room, said.reference);
        let seconds = wait.as_secs_f64().ceil();
        return Err(object(429, &event).with("Retry-After", format!("{seconds}")));
    }
    if instance.is_closing() {
        let message = "not sent: the server is closing, try again";
        return Err(later(error(503, ErrorCode::Closing, message)));
    }
    let draft = Draft {
        room: room.clone(),
        from,
        text: said.text,
        reference: said.reference.clone(),
        via: None,
    };
    let (tell, told) = crossbeam_channel::bounded(1);
    let receive = Box::new(move |outcome| {
        // It is waited for below, and this is said once.
        let _ = tell.send(outcome);
    });
    instance.backplane.publish(draft, receive);
    // Every publication has its receipt in bounded time.
    let outcome = told.recv().unwrap_or(Err(BackplaneError::NoAnswer));
    let status = outcome.as_ref().map_or_else(status_of, |_| 201);
    let event = receipt(outcome, room, said.reference);
    let answer = object(status, &event);
    match event {
        Event::Error { retry: true, .. } => Err(later(answer)),
        _ => Ok(answer),
    }
}

/// Who says it: the user that is named, or else the token's.
fn author(instance: &Instance, request: &Request, room: &RoomName) -> Result<UserName, Answer> {
    let named = match request.parameter("user").map(str::parse::<UserName>) {
        None => None,
        Some(Ok(user)) => Some(user),
        Some(Err(why)) => {
            let message = format!("bad user name: {why}");
            return Err(error(400, ErrorCode::BadRequest, &message));
        }
    };
    enter(instance, request, named.as_ref(), room)?.ok_or_else(|| {
        let message = "who says it? add ?user=NAME, or a token";
        error(400, ErrorCode::BadRequest, message)
    })
}

/// What is to be said, and under which ref.
fn body(instance: &Instance, socket: &TcpStream, request: &Request) -> Result<Said, Answer> {
    let config = &instance.config;
    let due = Instant::now() + config.deadlines.head;
    let body = read_body(socket, request, config.max_message, due).map_err(|why| {
        let status = why.status();
        let code = if status == 413 {
            ErrorCode::TooLarge
        } else {
            ErrorCode::BadRequest
        };
        error(status, code, &format!("not sent: {why}"))
    })?;
    let bad = |message: &str| error(400, ErrorCode::BadRequest, &format!("not sent: {message}"));
    let key = match request.header("idempotency-key") {
        None => None,
        Some(key) => Some(Ref::try_from(key.to_owned()).map_err(|why| bad(&why))?),
    };
    let is_json = request
        .header("content-type")
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let mut said = if is_json {
        serde_json::from_str(&body).map_err(|why| bad(&format!("not a JSON message: {why}")))?
    } else {
        Said {
            // What a shell puts behind a line is not part of it.
            text: body.trim_end_matches(['\r', '\n']).to_owned(),
            reference: None,
        }
    };
    said.reference = key.or(said.reference);
    Ok(said)
}

fn room_of(room: Option<String>) -> Result<RoomName, Answer> {
    let bad = |why: &str| error(400, ErrorCode::BadRoom, &format!("bad room name: {why}"));
    let room = room.ok_or_else(|| bad("it is not UTF-8"))?;
    room.parse().map_err(|why| bad(&format!("{why}")))
}

/// Whether the request may come into the room; the user it comes as, if it says so.
fn enter(
    instance: &Instance,
    request: &Request,
    user: Option<&UserName>,
    room: &RoomName,
) -> Result<Option<UserName>, Answer> {
    let admitted = admit(request, user, Some(room), &instance.config);
    Ok(admitted.map_err(|refused| not_admitted(&refused))?.user)
}

fn not_admitted(refused: &Refused) -> Answer {
    let code = match refused.status {
        401 => ErrorCode::Unauthorized,
        _ => ErrorCode::Forbidden,
    };
    refused.challenge(error(refused.status, code, refused.sentence))
}

/// What a browser asks before it lets a page of another origin ask.
fn preflight(instance: &Instance, request: &Request) -> Outcome {
    if let Some((_, false)) = page(request, &instance.config) {
        return Err(not_admitted(&FOREIGN_PAGE));
    }
    Ok(Answer::empty(204)
        .with("Access-Control-Allow-Methods", "GET, HEAD, POST")
        .with(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key",
        )
        .with("Access-Control-Max-Age", "600"))
}

/// A browser shows an answer to a page of another origin only if it says so (Fetch §3.2).
fn shown_to_its_page(instance: &Instance, request: &Request, answer: Answer) -> Answer {
    match page(request, &instance.config) {
        Some((origin, true)) => answer
            .with("Access-Control-Allow-Origin", origin)
            .with("Vary", "Origin"),
        _ => answer,
    }
}

fn wrong_method(allowed: &str) -> Answer {
    let message = format!("only {allowed} is possible here");
    error(405, ErrorCode::BadRequest, &message).with("Allow", allowed)
}

fn cannot(what: &str, room: &RoomName, why: &BackplaneError) -> Answer {
    let event = refused(what, Some(room), None, why);
    let answer = object(status_of(why), &event);
    match event {
        Event::Error { retry: true, .. } => later(answer),
        _ => answer,
    }
}

fn status_of(why: &BackplaneError) -> u16 {
    match why {
        BackplaneError::Unavailable | BackplaneError::NoAnswer | BackplaneError::Overloaded => 503,
        BackplaneError::Refused(_) => 500,
    }
}

fn later(answer: Answer) -> Answer {
    answer.with("Retry-After", RETRY_AFTER.as_secs().to_string())
}

fn error(status: u16, code: ErrorCode, message: &str) -> Answer {
    let event = Event::Error {
        code,
        message: message.to_owned(),
        reference: None,
        room: None,
        retry: matches!(status, 408 | 429 | 503),
    };
    object(status, &event)
}

fn object(status: u16, event: &Event) -> Answer {
    Answer::of_json(status, json::encode(event))
}
