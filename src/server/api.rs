//! The HTTP API: send a message, read the history, list the members and the rooms. One request, one response.
//!
//! A response holds an object of the `hubbub.v1` encoding ([`crate::protocol::json`]) and the HTTP status
//! that fits it, so a client can read both with the same code. A request makes nobody present. A room that is followed
//! is a connection's matter (`connection/follow.rs`).

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answers::{NOT_LISTED, failed, receipt, too_fast};
use super::auth::{Authorized, Denied, FOREIGN_ORIGIN, NO_TOKEN, authorize, is_admitted, origin};
use super::grant::{Grant, READ_ONLY};
use super::history::{PAGE_DEFAULT, PAGE_MOST, messages, read_page};
use super::hooks::{AGENT, payload};
use super::http::{Request, Resource, Response, read_body};
use super::proxies::counted_as;
use super::rate::Buckets;
use super::state::State;
use crate::backplane::{BackplaneError, Draft};
use crate::lookalikes::Lookalikes;
use crate::message::{MessageId, RoomName, UserName};
use crate::metrics;
use crate::protocol::{Cursor, Encoding, ErrorCode, Event, Ref, json};
use crate::stream::Stream;

/// In a room that this instance does not host, the names of so many members are compared, for an answer takes
/// some microseconds for each.
const MOST_COMPARED: usize = 1000;

/// The largest body of a hook, in bytes, unless messages may be larger: an event of GitHub often has more than 100 KiB.
const MOST_HOOK_BYTES: usize = 1 << 20;

/// The value of `Retry-After` when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The methods of each resource.
const ON_MESSAGES: &str = "GET, HEAD, POST, OPTIONS";
const ON_LISTS: &str = "GET, HEAD, OPTIONS";
const ON_HOOKS: &str = "POST, OPTIONS";

/// A response, or an error response.
type ApiResult = Result<Response, Response>;

/// Answers a request for a resource of a room.
pub fn respond(
    state: &State,
    stream: &Stream,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
    resource: Option<Resource>,
) -> Response {
    let result = match (resource, request.method.as_str()) {
        (None, _) => Err(not_found()),
        (Some(Resource::Messages), "OPTIONS") => preflight(state, request, ON_MESSAGES),
        (Some(Resource::Members | Resource::Rooms), "OPTIONS") => {
            preflight(state, request, ON_LISTS)
        }
        (Some(Resource::Rooms), "GET" | "HEAD") => get_rooms(state, client, request),
        (Some(Resource::Messages), "GET" | "HEAD") => get_messages(state, client, request, room),
        (Some(Resource::Messages), "POST") => {
            post_message(state, stream, client, request, room, read_message)
        }
        (Some(Resource::Hook), "POST") => {
            post_message(state, stream, client, request, room, read_hook)
        }
        (Some(Resource::Members), "GET" | "HEAD") => get_members(state, client, request, room),
        (Some(Resource::Hook), "OPTIONS") => preflight(state, request, ON_HOOKS),
        (Some(Resource::Messages), _) => Err(wrong_method(ON_MESSAGES)),
        (Some(Resource::Members | Resource::Rooms), _) => Err(wrong_method(ON_LISTS)),
        (Some(Resource::Hook), _) => Err(wrong_method(ON_HOOKS)),
    };
    show_to_page(state, request, result.unwrap_or_else(|error| error))
}

/// The response for an unknown path.
pub(super) fn not_found() -> Response {
    let sentence = "there are /api/rooms, /api/rooms/{room}/messages and /api/rooms/{room}/members";
    error(404, ErrorCode::NotFound, sentence)
}

fn get_messages(
    state: &State,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
) -> ApiResult {
    let room = room_of(room)?;
    let user = authorize_for(state, request, None, &room)?.user;
    let bad = |message: &str| error(400, ErrorCode::BadRequest, message);
    let id = |name| -> Result<Option<MessageId>, Response> {
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
    let limit = limit(request, "messages")?.unwrap_or(PAGE_DEFAULT);
    let limit = limit.min(PAGE_MOST);
    pace(state, client, Some(&room), user.as_ref())?;
    let bytes = state.config.outbox_bytes / 2;
    let excerpt = read_page(
        &*state.backplane,
        Encoding::Json,
        &room,
        (which, limit),
        bytes,
        None,
        || state.is_closing(),
    );
    let excerpt = excerpt.map_err(|why| cannot("cannot read the history", &room, &why))?;
    Ok(object(
        200,
        &Event::History {
            messages: messages(state, &room, excerpt.entries),
            room,
            more: excerpt.more,
        },
    ))
}

fn get_members(
    state: &State,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
) -> ApiResult {
    let room = room_of(room)?;
    let user = authorize_for(state, request, None, &room)?.user;
    pace(state, client, Some(&room), user.as_ref())?;
    let members = state.backplane.members(&room);
    let members = members.map_err(|why| cannot("cannot tell who is here", &room, &why))?;
    let alike = match state.hub.hosts(&room) {
        true => state.hub.alike(&room, None),
        false => {
            let some = members.iter().take(MOST_COMPARED);
            some.collect::<Lookalikes>().groups()
        }
    };
    Ok(object(
        200,
        &Event::Members {
            room,
            members,
            alike,
        },
    ))
}

fn get_rooms(state: &State, client: IpAddr, request: &Request) -> ApiResult {
    let Authorized { user, grant } =
        authorize(request, None, None, state).map_err(|denied| deny(&denied))?;
    let admitted = is_admitted(state, user.as_ref(), None);
    admitted.map_err(|why| error(403, ErrorCode::Forbidden, &why))?;
    if !state.config.room_list {
        return Err(error(403, ErrorCode::Forbidden, NOT_LISTED));
    }
    let limit = limit(request, "rooms")?;
    pace(state, client, None, user.as_ref())?;
    let prefix = request.parameter("prefix").unwrap_or_default();
    let listed = state.list_rooms(&grant, prefix, limit);
    let listed = listed.map_err(|why| cannot_do("cannot list the rooms", &why))?;
    Ok(object(200, &listed))
}

/// The most messages, or rooms, that a request asks for.
fn limit(request: &Request, what: &str) -> Result<Option<usize>, Response> {
    let limit = request.parameter("limit").map(str::parse).transpose();
    limit.map_err(|_| {
        let message = format!("bad limit: it is a number of {what}");
        error(400, ErrorCode::BadRequest, &message)
    })
}

/// The message in a request's body. Other JSON fields are ignored.
#[derive(Deserialize)]
struct Body {
    text: String,
    #[serde(rename = "ref")]
    reference: Option<Ref>,
}

fn post_message(
    state: &State,
    stream: &Stream,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
    read: impl Fn(&State, &Stream, &Request) -> Result<Body, Response>,
) -> ApiResult {
    let room = room_of(room)?;
    let (from, grant) = author(state, request, &room)?;
    if request.header("user-agent") == Some(AGENT) {
        return Err(not_sent(422, "a webhook of Hubbub may not post to Hubbub"));
    }
    let body = read(state, stream, request)?;
    // A body may take a while.
    if grant.is_over(SystemTime::now()) {
        metrics::UNAUTHORIZED.count();
        return Err(deny(&NO_TOKEN));
    }
    admit(state, Some(&from), &room)?;
    if body.text.is_empty() {
        let message = "not sent: there is nothing to say";
        return Err(error(400, ErrorCode::Empty, message));
    }
    if let Err(wait) = take_token(state, &state.buckets, client, Some(&from)) {
        let event = too_fast(
            "not sent",
            state.config.send_rate,
            wait,
            Some(room),
            body.reference,
        );
        return Err(object(429, &event).retry_after(wait));
    }
    if state.is_closing() {
        let message = "not sent: the server is closing, try again";
        return Err(later(error(503, ErrorCode::Closing, message)));
    }
    let draft = Draft {
        room: room.clone(),
        from,
        text: body.text,
        reference: body.reference.clone(),
        via: None,
    };
    let (tell, told) = crossbeam_channel::bounded(1);
    let on_stored = Box::new(move |stored| {
        // This thread waits below, and the backplane calls this once: there is room in the channel.
        let _ = tell.send(stored);
    });
    state.backplane.publish(draft, on_stored);
    // The backplane answers each message within a bounded time.
    let stored = told.recv().unwrap_or(Err(BackplaneError::NoAnswer));
    let status = match &stored {
        Ok(_) => 201,
        // RFC 9110 §15.6.5. A script learns that it may be stored.
        Err(why) if why.is_in_doubt() => 504,
        Err(why) => status_of(why),
    };
    let event = receipt(stored, room, body.reference);
    Ok(response_to(status, &event))
}

/// The author of a message, which is the user that the request names, or else the user of the token; and what the token
/// allows.
fn author(
    state: &State,
    request: &Request,
    room: &RoomName,
) -> Result<(UserName, Grant), Response> {
    let named = match request.parameter("user").map(str::parse::<UserName>) {
        None => None,
        Some(Ok(user)) => Some(user),
        Some(Err(why)) => {
            let message = format!("bad user name: {why}");
            return Err(error(400, ErrorCode::BadRequest, &message));
        }
    };
    let Authorized { user, grant } = authorize_for(state, request, named.as_ref(), room)?;
    if grant.is_read_only() {
        metrics::UNAUTHORIZED.count();
        let message = format!("not sent: {READ_ONLY}");
        return Err(error(403, ErrorCode::Forbidden, &message));
    }
    let user = user.ok_or_else(|| {
        let message = "who says it? add ?user=NAME, or a token";
        error(400, ErrorCode::BadRequest, message)
    })?;
    Ok((user, grant))
}

/// The types of a message's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyType {
    /// `application/json`
    Json,
    /// `text/plain` and the like: the text itself, whatever it looks like.
    Text,
    /// None, or another, such as that which curl sends of itself: the text itself, unless it looks like JSON.
    Unclear,
}

/// The type of the request's body. A form with parts, and JSON of another kind, would be said as they are, which
/// nobody means.
fn body_type(request: &Request) -> Result<BodyType, Response> {
    let kind = request.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Ok(BodyType::Json),
        "multipart/form-data" => Err(unsupported(
            "a form with parts is not taken; send the text itself, with curl -d TEXT or --data-binary @FILE, not -F",
        )),
        _ if kind.ends_with("/json") || kind.ends_with("+json") => Err(unsupported(
            "of JSON only {\"text\":…} is taken; send it with Content-Type: application/json",
        )),
        _ if kind.starts_with("text/") => Ok(BodyType::Text),
        _ => Ok(BodyType::Unclear),
    }
}

/// Whether a text looks like a JSON message.
fn looks_like_json(text: &str) -> bool {
    /// Only a look: the values are not kept.
    #[derive(Deserialize)]
    struct Look {
        #[serde(rename = "text")]
        _text: IgnoredAny,
    }
    text.trim_start().starts_with('{') && serde_json::from_str::<Look>(text).is_ok()
}

fn unsupported(why: &str) -> Response {
    error(415, ErrorCode::BadRequest, &format!("not sent: {why}"))
}

/// Reads the message, and its ref, from the request's body and header.
fn read_message(state: &State, stream: &Stream, request: &Request) -> Result<Body, Response> {
    let kind = body_type(request)?;
    let text = read_text(state, stream, request, state.config.max_message)?;
    let key = key(request, "idempotency-key")?;
    if kind == BodyType::Unclear && looks_like_json(&text) {
        return Err(unsupported(
            "this looks like JSON; send it with Content-Type: application/json, or with text/plain to say it as it is",
        ));
    }
    let mut body: Body = if kind == BodyType::Json {
        serde_json::from_str(&text)
            .map_err(|why| not_sent(400, &format!("not a JSON message: {why}")))?
    } else {
        Body {
            // A shell ends a line with a line break, which is not part of the message.
            text: text.trim_end_matches(['\r', '\n']).to_owned(),
            reference: None,
        }
    };
    body.reference = key.or(body.reference);
    Ok(body)
}

/// The same from what another service posts. GitHub's name for a delivery is its ref, so that a redelivery is no
/// double.
fn read_hook(state: &State, stream: &Stream, request: &Request) -> Result<Body, Response> {
    let most = state.config.max_message;
    let is_large = request.body_may_exceed(most);
    let _place = match is_large.then(|| state.large_bodies.take()) {
        Some(None) => {
            let message = "not sent: too many large hooks come at once, try again";
            return Err(later(error(503, ErrorCode::Unavailable, message)));
        }
        place => place,
    };
    let body = read_text(state, stream, request, MOST_HOOK_BYTES.max(most))?;
    let event = request.header("x-github-event");
    let text = payload::text_of(&body, event, most)
        .map_err(|why| not_sent(why.status(), &why.to_string()))?;
    let key = key(request, "idempotency-key")?;
    let reference = key.map_or_else(
        || self::key(request, "x-github-delivery"),
        |key| Ok(Some(key)),
    )?;
    Ok(Body { text, reference })
}

/// Reads a request's body of up to `most` bytes.
fn read_text(
    state: &State,
    stream: &Stream,
    request: &Request,
    most: usize,
) -> Result<String, Response> {
    let due = Instant::now() + state.config.deadlines.head;
    read_body(stream, request, most, due).map_err(|why| not_sent(why.status(), &why.to_string()))
}

/// The ref in a header field.
fn key(request: &Request, field: &str) -> Result<Option<Ref>, Response> {
    let key = request.header(field).map(str::to_owned);
    let key = key.map(Ref::try_from).transpose();
    key.map_err(|why| not_sent(400, &why))
}

/// The response to a post whose body cannot be taken.
fn not_sent(status: u16, why: &str) -> Response {
    let code = match status {
        413 => ErrorCode::TooLarge,
        _ => ErrorCode::BadRequest,
    };
    error(status, code, &format!("not sent: {why}"))
}

/// Takes a token for a request that reads. See [`take_token`].
fn pace(
    state: &State,
    client: IpAddr,
    room: Option<&RoomName>,
    user: Option<&UserName>,
) -> Result<(), Response> {
    take_token(state, &state.buckets, client, user).map_err(|wait| {
        let rate = state.config.send_rate;
        let event = too_fast("cannot read", rate, wait, room.cloned(), None);
        object(429, &event).retry_after(wait)
    })
}

/// Takes a token of the user's bucket among these, and one of the address's, unless access tokens name the users:
/// without them a client can give another name each time. Without a token, the error is the time until the next one.
pub(super) fn take_token(
    state: &State,
    buckets: &Buckets<UserName>,
    client: IpAddr,
    user: Option<&UserName>,
) -> Result<(), Duration> {
    let now = Instant::now();
    if state.verifier.is_none() && !state.config.is_exempt(client) {
        state.address_buckets.take(&counted_as(client), now)?;
    }
    user.map_or(Ok(()), |user| buckets.take(user, now))
}

pub(super) fn room_of(room: Option<String>) -> Result<RoomName, Response> {
    let bad = |why: &str| error(400, ErrorCode::BadRoom, &format!("bad room name: {why}"));
    let room = room.ok_or_else(|| bad("it is not UTF-8"))?;
    room.parse().map_err(|why| bad(&format!("{why}")))
}

/// Authorizes the request for the room.
pub(super) fn authorize_for(
    state: &State,
    request: &Request,
    user: Option<&UserName>,
    room: &RoomName,
) -> Result<Authorized, Response> {
    let authorized = authorize(request, user, Some(room), state).map_err(|denied| deny(&denied))?;
    admit(state, authorized.user.as_ref(), room)?;
    Ok(authorized)
}

/// Refuses a banned user, and everybody in a closed room.
fn admit(state: &State, user: Option<&UserName>, room: &RoomName) -> Result<(), Response> {
    is_admitted(state, user, Some(room)).map_err(|why| error(403, ErrorCode::Forbidden, &why))
}

pub(super) fn deny(denied: &Denied) -> Response {
    let code = match denied.status {
        401 => ErrorCode::Unauthorized,
        _ => ErrorCode::Forbidden,
    };
    denied.challenge(error(denied.status, code, denied.sentence))
}

/// The response to an OPTIONS request. It may be a preflight, which a browser sends before a request of another
/// origin's page (Fetch §4.8).
fn preflight(state: &State, request: &Request, allowed: &str) -> ApiResult {
    if let Some((_, false)) = origin(request, &state.config) {
        return Err(deny(&FOREIGN_ORIGIN));
    }
    Ok(Response::empty(204)
        .with("Allow", allowed)
        .with("Access-Control-Allow-Methods", "GET, HEAD, POST")
        .with(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
        )
        .with("Access-Control-Max-Age", "600"))
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

pub(super) fn wrong_method(allowed: &str) -> Response {
    let message = format!("only {allowed} is possible here");
    error(405, ErrorCode::BadRequest, &message).with("Allow", allowed)
}

fn cannot(what: &str, room: &RoomName, why: &BackplaneError) -> Response {
    response_to(status_of(why), &failed(what, Some(room), None, why))
}

/// The response to a request of no room that the backplane could not carry out.
pub(super) fn cannot_do(what: &str, why: &BackplaneError) -> Response {
    response_to(status_of(why), &failed(what, None, None, why))
}

/// The response for an answer of the backplane. If a retry may help, it says when to retry.
fn response_to(status: u16, event: &Event) -> Response {
    let response = object(status, event);
    match event {
        Event::Error { retry: true, .. } => later(response),
        _ => response,
    }
}

fn status_of(why: &BackplaneError) -> u16 {
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

fn later(response: Response) -> Response {
    response.with("Retry-After", RETRY_AFTER.as_secs().to_string())
}

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

pub(super) fn object(status: u16, event: &Event) -> Response {
    Response::of_json(status, json::encode(event))
}
