//! Before the upgrade: what a chat request asks for, and whether it may.

use log::info;

use super::wrong_method;
use crate::config::Config;
use crate::http::{Answer, Request};
use crate::message::{MessageId, RoomName, UserName};
use crate::metrics;
use crate::protocol::Rendering;
use crate::token::Claims;
use crate::websocket;

/// In the list of subprotocols, where a page can put it, a token follows this.
const TOKEN_SUBPROTOCOL: &str = "token.";

/// What a chat request asks for, validated.
pub(super) struct ChatRequest {
    pub(super) user: UserName,
    pub(super) room: RoomName,
    /// The rooms that may be entered; `None` for all.
    pub(super) allowed: Option<Vec<RoomName>>,
    pub(super) since: Option<MessageId>,
    pub(super) history: Option<usize>,
    pub(super) rendering: Rendering,
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
    let allowed = admit(request, &user, &room, config)?;
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
    let (rendering, subprotocol) = rendering(request)?;
    let head = websocket::accept(&request.headers, subprotocol)
        .map_err(|why| bad(format!("bad WebSocket request: {why}")))?;
    Ok(ChatRequest {
        user,
        room,
        allowed,
        since,
        history,
        rendering,
        head,
    })
}

fn subprotocols(request: &Request) -> impl Iterator<Item = &str> {
    request
        .header_values("sec-websocket-protocol")
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The first subprotocol offered that is spoken here; lines of text if none was offered.
fn rendering(request: &Request) -> Result<(Rendering, Option<&'static str>), Answer> {
    let mut offered = subprotocols(request).peekable();
    if offered.peek().is_none() {
        return Ok((Rendering::Text, None));
    }
    let spoken = [Rendering::Json, Rendering::Text];
    let chosen = offered.find_map(|name| spoken.into_iter().find(|one| one.subprotocol() == name));
    match chosen {
        Some(rendering) => Ok((rendering, Some(rendering.subprotocol()))),
        None => Err(Answer::new(
            400,
            "the subprotocols spoken here are hubbub.text and hubbub.v1",
        )),
    }
}

/// Whether this request may come in: its page's origin, and its token. The rooms that the token
/// allows, `None` for all. What is wrong with a token is logged and not told.
fn admit(
    request: &Request,
    user: &UserName,
    room: &RoomName,
    config: &Config,
) -> Result<Option<Vec<RoomName>>, Answer> {
    let refuse = |status, sentence: &str, why: &dyn std::fmt::Display| {
        metrics::UNAUTHORIZED.count();
        info!("{user:?} is not let in: {why}");
        Err(Answer::new(status, sentence))
    };
    if let Some(origin) = request.header("origin")
        && !origin_is_allowed(origin, request.header("host"), &config.allow_origin)
    {
        let why = format!("origin {origin:?}");
        return refuse(403, "pages of this origin may not connect here", &why);
    }
    let Some(secret) = &config.token_secret else {
        return Ok(None);
    };
    let needed = "a valid token is needed";
    let Some(token) = token(request) else {
        return refuse(401, needed, &"no token")
            .map_err(|answer| answer.with("WWW-Authenticate", "Bearer"));
    };
    let claims = match Claims::verify(token, secret) {
        Ok(claims) => claims,
        Err(why) => {
            return refuse(401, needed, &why)
                .map_err(|answer| answer.with("WWW-Authenticate", "Bearer"));
        }
    };
    if claims.sub != *user {
        return refuse(403, "the token is not this user's", &"another user's token");
    }
    // In the JSON rendering rooms are joined later, and checked there.
    let enters = request.parameter("room").is_some() || speaks_lines(request);
    if enters && !claims.allows(room) {
        return refuse(403, "the token does not allow this room", &"room");
    }
    Ok(claims.rooms)
}

fn speaks_lines(request: &Request) -> bool {
    matches!(rendering(request), Ok((Rendering::Text, _)))
}

/// From the query, the `Authorization` field, or the list of subprotocols.
fn token(request: &Request) -> Option<&str> {
    let bearer = || request.header("authorization")?.strip_prefix("Bearer ");
    let listed = || subprotocols(request).find_map(|name| name.strip_prefix(TOKEN_SUBPROTOCOL));
    request.parameter("token").or_else(bearer).or_else(listed)
}

/// Pages of this server's own host, and those that the operator named.
fn origin_is_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    if allowed
        .iter()
        .any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
    {
        return true;
    }
    let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let bare = |authority: &str| {
        let lower = authority.to_ascii_lowercase();
        lower
            .strip_suffix(port)
            .map_or(lower.clone(), str::to_owned)
    };
    bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_same_host_and_those_named_may_connect() {
        let allowed = |origin: &str, host: &str| {
            origin_is_allowed(origin, Some(host), &["https://chat.example".to_owned()])
        };
        assert!(allowed("http://localhost:8080", "localhost:8080"));
        assert!(allowed("https://hub.example", "hub.example"));
        assert!(allowed("https://hub.example", "HUB.example:443"));
        assert!(allowed("https://chat.example", "hub.example"));
        assert!(!allowed("https://evil.example", "hub.example"));
        assert!(!allowed("http://localhost:3000", "localhost:8080"));
        assert!(!allowed("null", "hub.example"));
        assert!(!allowed("https://hub.example.evil.example", "hub.example"));
        assert!(!origin_is_allowed("https://hub.example", None, &[]));
        assert!(origin_is_allowed("null", None, &["*".to_owned()]));
    }
}
