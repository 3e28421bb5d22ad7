//! Before the upgrade: what a chat request asks for, and whether it may.

use super::wrong_method;
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::Encoding;
use crate::server::admission::admit;
use crate::server::config::Config;
use crate::server::http::{Answer, Request};
use crate::websocket;

/// What a chat request asks for, validated.
pub(super) struct ChatRequest {
    pub(super) user: UserName,
    pub(super) room: RoomName,
    /// The rooms that may be entered; `None` for all.
    pub(super) allowed: Option<Vec<RoomName>>,
    pub(super) since: Option<MessageId>,
    pub(super) history: Option<usize>,
    pub(super) encoding: Encoding,
    /// The head of the answer.
    pub(super) head: Vec<u8>,
}

/// Checks everything that can be checked before the upgrade.
pub(super) fn chat_request(
    request: &Request,
    user: Option<String>,
    config: &Config,
) -> Result<ChatRequest, Answer> {
    let bad = |sentence: String| Answer::new(400, sentence);
    if request.method != "GET" {
        return Err(wrong_method("GET"));
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
    // In the JSON encoding rooms are joined later, and checked there.
    let enters = request.parameter("room").is_some() || speaks_lines(request);
    let allowed = admit(request, Some(&user), enters.then_some(&room), config)
        .map_err(|refused| refused.answer())?
        .rooms;
    let since = request
        .parameter("since")
        .map(|since| {
            since
                .parse()
                .map_err(|why| bad(format!("bad since: {why}")))
        })
        .transpose()?;
    let history = request
        .parameter("history")
        .map(|lines| {
            lines
                .parse()
                .map_err(|_| bad("bad history: it is a number of messages".to_owned()))
        })
        .transpose()?;
    let upgrade = request
        .header("upgrade")
        .is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"));
    if !upgrade {
        return Err(
            Answer::new(426, "chat needs a WebSocket client here").with("Upgrade", "websocket")
        );
    }
    if request.header("sec-websocket-version") != Some("13") {
        return Err(
            Answer::new(426, "only version 13 of WebSocket is spoken here")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13"),
        );
    }
    // It would be read as frames.
    if request.has_body() {
        return Err(bad("a request for a chat has no body".to_owned()));
    }
    let (encoding, subprotocol) = encoding(request)?;
    let head = websocket::server::accept(&request.headers, subprotocol)
        .map_err(|why| bad(format!("bad WebSocket request: {why}")))?;
    Ok(ChatRequest {
        user,
        room,
        allowed,
        since,
        history,
        encoding,
        head,
    })
}

/// The first subprotocol offered that is spoken here; lines of text if none was offered.
fn encoding(request: &Request) -> Result<(Encoding, Option<&'static str>), Answer> {
    let mut offered = request.subprotocols().peekable();
    if offered.peek().is_none() {
        return Ok((Encoding::Text, None));
    }
    let spoken = [Encoding::Json, Encoding::Text];
    let chosen = offered.find_map(|name| spoken.into_iter().find(|one| one.subprotocol() == name));
    match chosen {
        Some(encoding) => Ok((encoding, Some(encoding.subprotocol()))),
        None => Err(Answer::new(
            400,
            "the subprotocols spoken here are hubbub.text and hubbub.v1",
        )),
    }
}

fn speaks_lines(request: &Request) -> bool {
    matches!(encoding(request), Ok((Encoding::Text, _)))
}
