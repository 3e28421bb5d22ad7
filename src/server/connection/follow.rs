//! Follows a room over HTTP: `GET /api/rooms/{room}/messages?follow`. The response is a stream of
//! [`records`] and ends with the connection.
//!
//! The follower is a member of the room like any other, with an outbox, a writer and a heartbeat, but no user is
//! present for it, and nothing that the client sends has a meaning.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use log::info;

use super::connections::Connections;
use super::pumps::{Pumps, Upgrade};
use crate::backoff::spread;
use crate::message::{ConnectionId, MessageId, RoomName, UserName};
use crate::protocol::{Encoding, ErrorCode, records};
use crate::server::answers::too_fast;
use crate::server::api::{authorize_for, room_of, take_token};
use crate::server::auth::Authorized;
use crate::server::grant::Grant;
use crate::server::http::{Request, Response};
use crate::server::proxies::ClientAddress;
use crate::server::responses::{error, object, show_to_page};
use crate::server::session::Follower;
use crate::server::state::State;
use crate::stream::Stream;
use crate::websocket::code;

/// The longest time after which a browser comes back, unless the stream's end names another.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Parameters of a page of the past, which has an end.
const OF_PAGES: [&str; 3] = ["before", "after", "limit"];

/// A request to follow a room, validated.
pub(super) struct FollowRequest {
    /// The user of the token, if there is one.
    user: Option<UserName>,
    room: RoomName,
    /// What the token allows.
    grant: Grant,
    since: Option<MessageId>,
    history: Option<usize>,
    encoding: Encoding,
    /// The response's head, and the first record.
    opening: Vec<u8>,
}

/// Whether a request for a room's messages asks to follow them.
pub(super) fn is_asked_to_follow(request: &Request) -> bool {
    let follow = request.parameter("follow");
    let is_asked = follow.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
    matches!(&*request.method, "GET" | "HEAD") && is_asked
}

/// Checks everything that can be checked before the room is followed. The error is the response.
pub(super) fn follow_request(
    state: &State,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
) -> Result<FollowRequest, Response> {
    let shown = |response| show_to_page(state, request, response);
    let mut checked = check(state, client, request, room).map_err(shown)?;
    let retry = match checked.encoding {
        Encoding::EventStream => records::retry(spread(RETRY_AFTER)),
        Encoding::Text | Encoding::Json | Encoding::JsonLines => String::new(),
    };
    let head = shown(endless(checked.encoding, retry));
    if request.method == "HEAD" {
        return Err(head);
    }
    checked.opening = head.bytes();
    Ok(checked)
}

fn check(
    state: &State,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
) -> Result<FollowRequest, Response> {
    let bad = |why: &str| error(400, ErrorCode::BadRequest, why);
    let room = room_of(room)?;
    let Authorized { user, grant } = authorize_for(state, client, request, None, &room)?;
    if let Some(other) = OF_PAGES.iter().find(|one| request.parameter(one).is_some()) {
        let why = format!("with follow there are since and history, and no {other}");
        return Err(bad(&why));
    }
    // A browser comes back to the same address, and names in the field the last id that it got.
    let field = request.header("last-event-id");
    let since = match field {
        Some(id) => id
            .parse()
            .map(Some)
            .map_err(|why| format!("bad Last-Event-ID: {why}")),
        None => request.parsed("since"),
    };
    let since: Option<MessageId> = since.map_err(|why| bad(&why))?;
    let history = request.number_of("messages", "history");
    let history = history.map_err(|why| bad(&why))?;
    if let Err(wait) = take_token(state, &state.command_buckets, client, user.as_ref()) {
        let rate = state.config.command_rate();
        let refusal = too_fast("cannot follow the room", rate, wait, Some(room), None);
        let encoding = Encoding::EventStream;
        return Err(match accepts(request, encoding) {
            // After another status, a browser would never come back.
            true => {
                let refused = encoding.encode(&refusal).concat();
                let end = records::closed(encoding, code::TRY_AGAIN_LATER, "too fast");
                endless(encoding, refused + &end)
            }
            false => object(429, &refusal).retry_after(wait),
        });
    }
    Ok(FollowRequest {
        user,
        room,
        grant,
        since,
        // No history at all is the same as no parameter.
        history: history.filter(|count| *count > 0),
        encoding: match accepts(request, Encoding::JsonLines) {
            true => Encoding::JsonLines,
            false => Encoding::EventStream,
        },
        opening: Vec::new(),
    })
}

/// Whether the client says that it reads this encoding.
fn accepts(request: &Request, encoding: Encoding) -> bool {
    let types = request
        .header_values("accept")
        .flat_map(|list| list.split(','));
    let mut types = types.filter_map(|one| one.split(';').next());
    types.any(|one| one.trim().eq_ignore_ascii_case(encoding.name()))
}

/// A response that ends with the connection, and whose body begins like this.
fn endless(encoding: Encoding, beginning: String) -> Response {
    Response::endless(encoding.name(), beginning)
        .with("Cache-Control", "no-store")
        // Without it, nginx collects records before it passes any on.
        .with("X-Accel-Buffering", "no")
}

/// Follows the room, from the response's head to its end.
pub(super) fn follow_room(
    connections: &Arc<Connections>,
    stream: &Arc<Stream>,
    id: ConnectionId,
    client: ClientAddress,
    request: FollowRequest,
) {
    let state = &connections.state;
    let FollowRequest { user, room, .. } = request;
    let grant = Arc::new(request.grant);
    let mut pumps = Pumps::start(
        stream,
        id,
        request.encoding,
        &grant,
        &state.config,
        &connections.threads,
        Upgrade {
            opening: request.opening,
            read_already: Vec::new(),
        },
    );
    let outbox = Arc::clone(pumps.outbox());
    let whose = user
        .as_ref()
        .map(|user| format!(" with the token of {user:?}"));
    let whose = whose.unwrap_or_default();
    info!("connection {id} from {client} follows {room:?}{whose}");
    let follower = Follower::new(Arc::clone(state), id, grant, Arc::clone(&outbox));
    let rooms = follower.memberships();
    connections.begin_chat(id, client.address, user.as_ref(), &outbox, rooms);
    if outbox.is_open() {
        follower.join(&room, request.since, request.history);
    }
    let ended = loop {
        if let Err(ended) = pumps.read() {
            break ended;
        }
    };
    drop(follower);
    let why = pumps.finish(&ended);
    info!("connection {id} from {client} follows no more: {why}");
}
