//! The HTTP API: send a message, read the history, list the members and the rooms. One request, one response.
//!
//! The [responses](super::responses) hold objects of the `hubbub.v1` encoding, so a client can read both with the same
//! code. A request makes nobody present. A room that is followed is a connection's matter (`connection/follow.rs`).

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::answers::{NOT_LISTED, receipt, too_fast};
use super::auth::{Authorized, FOREIGN_ORIGIN, NO_TOKEN, authorize, is_admitted, origin};
use super::grant::{Grant, READ_ONLY};
use super::history::{PAGE_DEFAULT, PAGE_MOST, messages, read_page};
use super::http::{Request, Resource, Response};
use super::post_body::{PostBody, read_hook, read_message};
use super::poster::AGENT;
use super::proxies::counted_as;
use super::rate::Buckets;
use super::responses::{
    cannot, deny, error, later, not_found, not_sent, object, response_to, show_to_page, status_of,
    wrong_method,
};
use super::state::State;
use crate::backplane::{BackplaneError, Draft};
use crate::lookalikes::Lookalikes;
use crate::message::{RoomName, UserName};
use crate::metrics;
use crate::protocol::{Cursor, Encoding, ErrorCode, Event};
use crate::stream::Stream;

/// In a room that this instance does not host, the names of so many members are compared, for an answer takes
/// some microseconds for each.
const MOST_COMPARED: usize = 1000;

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
    let result = match resource {
        None => Err(not_found()),
        Some(resource) => answer(state, stream, client, request, room, resource),
    };
    show_to_page(state, request, result.unwrap_or_else(|error| error))
}

fn answer(
    state: &State,
    stream: &Stream,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
    resource: Resource,
) -> ApiResult {
    let allowed = match resource {
        Resource::Messages => "GET, HEAD, POST, OPTIONS",
        Resource::Members | Resource::Rooms => "GET, HEAD, OPTIONS",
        Resource::Hook => "POST, OPTIONS",
    };
    match (resource, request.method.as_str()) {
        (_, "OPTIONS") => preflight(state, request, allowed),
        (Resource::Rooms, "GET" | "HEAD") => get_rooms(state, client, request),
        (Resource::Messages, "GET" | "HEAD") => get_messages(state, client, request, room),
        (Resource::Members, "GET" | "HEAD") => get_members(state, client, request, room),
        (Resource::Messages, "POST") => {
            post_message(state, stream, client, request, room, read_message)
        }
        (Resource::Hook, "POST") => post_message(state, stream, client, request, room, read_hook),
        (Resource::Rooms | Resource::Messages | Resource::Members | Resource::Hook, _) => {
            Err(wrong_method(allowed))
        }
    }
}

fn get_messages(
    state: &State,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
) -> ApiResult {
    let room = room_of(room)?;
    let user = authorize_for(state, client, request, None, &room)?.user;
    let bad = |message: &str| error(400, ErrorCode::BadRequest, message);
    let id = |name| request.parsed(name).map_err(|why| bad(&why));
    // `since` is what a stream begins after. A page does the same, or a script that polls would get one page for ever.
    let which = match (id("before")?, id("after")?, id("since")?) {
        (None, None, None) => Cursor::Newest,
        (Some(before), None, None) => Cursor::Before(before),
        (None, Some(id), None) | (None, None, Some(id)) => Cursor::After(id),
        _ => {
            return Err(bad(
                "before or after (or since, which means after), not both",
            ));
        }
    };
    if request.parameter("history").is_some() {
        return Err(bad("history goes with follow; here it is limit"));
    }
    let limit = request.number_of("messages", "limit");
    let limit = limit.map_err(|why| bad(&why))?;
    let limit = limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MOST);
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
    let excerpt = excerpt.map_err(|why| cannot("cannot read the history", Some(&room), &why))?;
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
    let user = authorize_for(state, client, request, None, &room)?.user;
    pace(state, client, Some(&room), user.as_ref())?;
    let members = state.backplane.members(&room);
    let members = members.map_err(|why| cannot("cannot tell who is here", Some(&room), &why))?;
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
        authorize(request, client, None, None, state).map_err(|denied| deny(&denied))?;
    let admitted = is_admitted(state, client, user.as_ref(), None);
    admitted.map_err(|why| error(403, ErrorCode::Forbidden, &why))?;
    if !state.config.room_list {
        return Err(error(403, ErrorCode::Forbidden, NOT_LISTED));
    }
    let limit = request.number_of("rooms", "limit");
    let limit = limit.map_err(|why| error(400, ErrorCode::BadRequest, &why))?;
    pace(state, client, None, user.as_ref())?;
    let prefix = request.parameter("prefix").unwrap_or_default();
    let listed = state.list_rooms(&grant, prefix, limit);
    let listed = listed.map_err(|why| cannot("cannot list the rooms", None, &why))?;
    Ok(object(200, &listed))
}

fn post_message(
    state: &State,
    stream: &Stream,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
    read: impl Fn(&State, &Stream, &Request) -> Result<PostBody, Response>,
) -> ApiResult {
    let room = room_of(room)?;
    let (from, grant) = author(state, client, request, &room)?;
    if request.header("user-agent") == Some(AGENT) {
        return Err(not_sent(422, "a webhook of Hubbub may not post to Hubbub"));
    }
    let body = read(state, stream, request)?;
    // A body may take a while.
    if grant.is_over(SystemTime::now()) {
        metrics::UNAUTHORIZED.count();
        return Err(deny(&NO_TOKEN));
    }
    admit(state, client, Some(&from), &room)?;
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
    let is_slack_answer = stored.is_ok() && body.is_for_slack;
    let event = receipt(stored, room, body.reference);
    if is_slack_answer {
        // What Slack answers. Senders check for the status, or for exactly this text.
        return Ok(Response::of_text("ok".to_owned()));
    }
    Ok(response_to(status, &event))
}

/// The author of a message, which is the user that the request names, or else the user of the token; and what the token
/// allows.
fn author(
    state: &State,
    client: IpAddr,
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
    let Authorized { user, grant } = authorize_for(state, client, request, named.as_ref(), room)?;
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
    client: IpAddr,
    request: &Request,
    user: Option<&UserName>,
    room: &RoomName,
) -> Result<Authorized, Response> {
    let authorized =
        authorize(request, client, user, Some(room), state).map_err(|denied| deny(&denied))?;
    admit(state, client, authorized.user.as_ref(), room)?;
    Ok(authorized)
}

/// Refuses a banned user, and everybody in a closed room.
fn admit(
    state: &State,
    client: IpAddr,
    user: Option<&UserName>,
    room: &RoomName,
) -> Result<(), Response> {
    is_admitted(state, client, user, Some(room))
        .map_err(|why| error(403, ErrorCode::Forbidden, &why))
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
