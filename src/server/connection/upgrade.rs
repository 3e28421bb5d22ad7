//! Checks a request for a chat before the upgrade.

use std::net::IpAddr;

use super::wrong_method;
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::Encoding;
use crate::server::auth::{authorize, is_admitted};
use crate::server::grant::Grant;
use crate::server::http::{Request, Response};
use crate::server::state::State;
use crate::websocket;

/// A request for a chat, validated.
pub(super) struct ChatRequest {
    pub(super) user: UserName,
    /// The room that it names, or else the lobby.
    pub(super) room: RoomName,
    /// Whether it enters the room at once: if it names one, or has no other way to enter one.
    pub(super) joins: bool,
    /// What the token allows.
    pub(super) grant: Grant,
    pub(super) since: Option<MessageId>,
    pub(super) history: Option<usize>,
    pub(super) encoding: Encoding,
    /// The head of the 101 response.
    pub(super) response_head: Vec<u8>,
}

/// Checks everything that can be checked before the upgrade. The error is the response.
pub(super) fn chat_request(
    request: &Request,
    client: IpAddr,
    user: Option<String>,
    state: &State,
) -> Result<ChatRequest, Response> {
    let bad = |sentence: String| Response::new(400, sentence);
    if request.method != "GET" {
        return Err(wrong_method("GET, OPTIONS"));
    }
    let user: UserName = user
        .ok_or_else(|| bad("a user name in UTF-8 belongs behind /chat/".to_owned()))?
        .parse()
        .map_err(|why| bad(format!("bad user name: {why}")))?;
    let room = match request.parameter("room") {
        None => RoomName::lobby(),
        Some(room) => room
            .parse()
            .map_err(|why| bad(format!("bad room name: {why}")))?,
    };
    // In the JSON encoding, the session checks each other room when the user joins it.
    let joins = request.parameter("room").is_some() || speaks_lines(request);
    let joined = joins.then_some(&room);
    let grant = authorize(request, client, Some(&user), joined, state)
        .map_err(|denied| denied.response())?
        .grant;
    is_admitted(state, client, Some(&user), joined).map_err(|why| Response::new(403, why))?;
    let since = request.parsed("since").map_err(bad)?;
    let history = request.number_of("messages", "history").map_err(bad)?;
    // A proxy that speaks it drops the field for the upgrade.
    if request.is_old {
        let why =
            "chat needs HTTP/1.1; a proxy may have to be told so (proxy_http_version 1.1 in nginx)";
        return Err(Response::new(426, why).with("Upgrade", "websocket"));
    }
    let upgrade = request
        .header("upgrade")
        .is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"));
    if !upgrade {
        return Err(
            Response::new(426, "chat needs a WebSocket client here").with("Upgrade", "websocket")
        );
    }
    if request.header("sec-websocket-version") != Some("13") {
        return Err(
            Response::new(426, "only version 13 of WebSocket is spoken here")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13"),
        );
    }
    // The server would read a body as frames.
    if request.has_body() {
        return Err(bad("a request for a chat has no body".to_owned()));
    }
    let (encoding, subprotocol) = encoding(request)?;
    let response_head = websocket::server::accept(&request.headers, subprotocol)
        .map_err(|why| bad(format!("bad WebSocket request: {why}")))?;
    Ok(ChatRequest {
        user,
        room,
        joins,
        grant,
        since,
        history,
        encoding,
        response_head,
    })
}

/// The first subprotocol of the offer that the server speaks. Lines of text if the request offers none.
fn encoding(request: &Request) -> Result<(Encoding, Option<&'static str>), Response> {
    let mut offered = request.subprotocols().peekable();
    if offered.peek().is_none() {
        return Ok((Encoding::Text, None));
    }
    let spoken = [Encoding::Json, Encoding::Text];
    let chosen = offered.find_map(|name| spoken.into_iter().find(|one| one.name() == name));
    match chosen {
        Some(encoding) => Ok((encoding, Some(encoding.name()))),
        None => Err(Response::new(
            400,
            "the subprotocols spoken here are hubbub.text and hubbub.v1",
        )),
    }
}

fn speaks_lines(request: &Request) -> bool {
    matches!(encoding(request), Ok((Encoding::Text, _)))
}
