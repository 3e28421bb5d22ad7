//! Follows a room over HTTP: `GET /api/rooms/{room}/messages?follow`. The response is a stream of
//! [`records`] and ends with the connection.
//!
//! The follower is a member of the room like any other, with an outbox, a writer and a heartbeat, but it is nobody: no
//! user is present for it, and what the client sends means nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::info;

use super::connections::{ChatHandle, Connections, Phase};
use super::pumps::{Pumps, Upgrade};
use crate::backoff::spread;
use crate::message::{ConnectionId, MessageId, RoomName, UserName};
use crate::protocol::{Encoding, ErrorCode, records};
use crate::server::answers::too_fast;
use crate::server::api::{authorize_for, error, object, room_of, show_to_page, take_token};
use crate::server::auth::Authorized;
use crate::server::grant::Grant;
use crate::server::http::{Request, Response};
use crate::server::proxies::ClientAddress;
use crate::server::session::{Follower, put_out};
use crate::server::state::State;
use crate::stream::Stream;
use crate::websocket::code;

/// A browser comes back after this time at the latest, unless it is told another.
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
    matches!(&*request.method, "GET" | "HEAD") && request.parameter("follow").is_some()
}

/// Checks everything that can be checked before the room is followed. The error is the response.
pub(super) fn follow_request(
    state: &State,
    client: IpAddr,
    request: &Request,
    room: Option<String>,
) -> Result<FollowRequest, Response> {
    let finish = |response| show_to_page(state, request, response);
    let mut checked = check(state, client, request, room).map_err(finish)?;
    let retry = match checked.encoding {
        Encoding::EventStream => records::retry(spread(RETRY_AFTER)),
        Encoding::Text | Encoding::Json | Encoding::JsonLines => String::new(),
    };
    let head = finish(endless(checked.encoding, retry));
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
    let Authorized { user, grant } = authorize_for(state, request, None, &room)?;
    if let Some(other) = OF_PAGES.iter().find(|one| request.parameter(one).is_some()) {
        let why = format!("with follow there are since and history, and no {other}");
        return Err(bad(&why));
    }
    // A browser comes back to the same address, and tells in the field how far it came.
    let field = request.header("last-event-id");
    let since = match (field, request.parameter("since")) {
        (Some(id), _) => Some(("Last-Event-ID", id)),
        (None, Some(id)) => Some(("since", id)),
        (None, None) => None,
    };
    let since = since.map(|(name, id)| {
        id.parse::<MessageId>()
            .map_err(|why| bad(&format!("bad {name}: {why}")))
    });
    let since = since.transpose()?;
    let history = request.parameter("history").map(str::parse).transpose();
    let history = history.map_err(|_| bad("bad history: it is a number of messages"))?;
    if let Err(wait) = take_token(state, &state.command_buckets, client, user.as_ref()) {
        let rate = state.config.command_rate();
        let refusal = too_fast("cannot follow the room", rate, wait, Some(room), None);
        let encoding = Encoding::EventStream;
        return Err(match accepts(request, encoding) {
            // A browser would never come back after another status.
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
        // None at all is what comes without it.
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
        // nginx would collect records before it passes any on.
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
    let chat = ChatHandle {
        user: user.clone(),
        address: client.address,
        since: SystemTime::now(),
        outbox: Arc::clone(&outbox),
        memberships: Arc::clone(follower.memberships()),
    };
    connections.set_phase(id, Phase::Chatting(chat));
    // The ban may have come between the check of the request and here.
    if let Some(why) = user.and_then(|user| state.why_banned(&user)) {
        put_out(&outbox, why);
    }
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
