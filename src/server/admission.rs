//! Who may come in: the origins of pages, and tokens.
//!
//! What is wrong with a token is logged and not told.

use std::fmt::Display;

use log::info;

use super::config::Config;
use super::http::{Answer, Request};
use super::token::{Claims, Secret, TokenError};
use crate::message::{RoomName, UserName};
use crate::metrics;

/// In the list of subprotocols, where a page can put it, a token follows this.
const TOKEN_SUBPROTOCOL: &str = "token.";

/// Who was let in.
#[derive(Debug)]
pub struct Admitted {
    /// The user that was asked for, or else the token's.
    pub user: Option<UserName>,
    /// The rooms that may be entered; `None` for all.
    pub rooms: Option<Vec<RoomName>>,
}

/// Why a request is not let in.
#[derive(Debug)]
pub struct Refused {
    /// 401 if a token would help, 403 if not.
    pub status: u16,
    /// A sentence that gives nothing away.
    pub sentence: &'static str,
}

impl Refused {
    /// The answer, as plain text.
    pub fn answer(&self) -> Answer {
        self.challenge(Answer::new(self.status, self.sentence))
    }

    /// `answer`, with how to do better (RFC 9110 §11.6.1).
    #[must_use]
    pub fn challenge(&self, answer: Answer) -> Answer {
        match self.status {
            401 => answer.with("WWW-Authenticate", "Bearer"),
            _ => answer,
        }
    }
}

/// What a page is told that may not connect.
pub const FOREIGN_PAGE: Refused = Refused {
    status: 403,
    sentence: "pages of this origin may not connect here",
};

/// The origin of the page that asks, and whether it may connect; `None` if no page asks.
pub fn page<'a>(request: &'a Request, config: &Config) -> Option<(&'a str, bool)> {
    let origin = request.header("origin")?;
    let allowed = origin_is_allowed(origin, &request.host, &config.allow_origin);
    Some((origin, allowed))
}

/// Whether a request may come in, as `user` and into `room` where it says so.
pub fn admit(
    request: &Request,
    user: Option<&UserName>,
    room: Option<&RoomName>,
    config: &Config,
) -> Result<Admitted, Refused> {
    let refuse = |status, sentence, why: &dyn Display| {
        metrics::UNAUTHORIZED.count();
        info!("{user:?} is not let in: {why}");
        Err(Refused { status, sentence })
    };
    if let Some((origin, false)) = page(request, config) {
        let why = format!("origin {origin:?}");
        return refuse(FOREIGN_PAGE.status, FOREIGN_PAGE.sentence, &why);
    }
    let Some(secret) = &config.token_secret else {
        return Ok(Admitted {
            user: user.cloned(),
            rooms: None,
        });
    };
    let claims = match claims(request, secret) {
        Ok(claims) => claims,
        Err(why) => {
            let why = why.map_or("no token".to_owned(), |why| why.to_string());
            return refuse(401, "a valid token is needed", &why);
        }
    };
    if user.is_some_and(|user| *user != claims.sub) {
        return refuse(403, "the token is not this user's", &"another user's token");
    }
    if room.is_some_and(|room| !claims.allows(room)) {
        return refuse(403, "the token does not allow this room", &"room");
    }
    Ok(Admitted {
        user: Some(claims.sub),
        rooms: claims.rooms,
    })
}

/// What the first valid token says. Without one, what is wrong with the last, if there is any: one
/// place may hold what a proxy, or a page's address of yesterday, has put there.
fn claims(request: &Request, secret: &Secret) -> Result<Claims, Option<TokenError>> {
    let mut wrong = None;
    for token in tokens(request) {
        match Claims::verify(token, secret) {
            Ok(claims) => return Ok(claims),
            Err(why) => wrong = Some(why),
        }
    }
    Err(wrong)
}

/// From the query, the `Authorization` field, and the list of subprotocols.
fn tokens(request: &Request) -> impl Iterator<Item = &str> {
    let listed = request
        .subprotocols()
        .filter_map(|name| name.strip_prefix(TOKEN_SUBPROTOCOL));
    let asked = request.parameter("token").into_iter();
    asked.chain(bearer(request)).chain(listed)
}

/// The scheme's name is taken in any case (RFC 9110 §11.1).
fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start_matches(' '))
}

/// Pages of this server's own host, and those that the operator named.
fn origin_is_allowed(origin: &str, host: &str, allowed: &[String]) -> bool {
    if allowed
        .iter()
        .any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
    {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else {
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
            origin_is_allowed(origin, host, &["https://chat.example".to_owned()])
        };
        assert!(allowed("http://localhost:8080", "localhost:8080"));
        assert!(allowed("https://hub.example", "hub.example"));
        assert!(allowed("https://hub.example", "HUB.example:443"));
        assert!(allowed("https://chat.example", "hub.example"));
        assert!(!allowed("https://evil.example", "hub.example"));
        assert!(!allowed("http://localhost:3000", "localhost:8080"));
        assert!(!allowed("null", "hub.example"));
        assert!(!allowed("https://hub.example.evil.example", "hub.example"));
        assert!(origin_is_allowed("null", "x", &["*".to_owned()]));
    }
}
