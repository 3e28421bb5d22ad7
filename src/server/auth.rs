//! Authorization of a request, by its page's origin and by its token.
//!
//! The log says what is wrong with a token. The response does not.

use std::fmt::Display;
use std::time::Instant;

use log::info;

use super::config::Config;
use super::grant::Grant;
use super::http::{Request, Response};
use super::token::{Claims, Secret, TokenError};
use crate::message::{RoomName, UserName};
use crate::metrics;

/// The prefix of a token in the list of subprotocols, the only header field that a page can set.
const TOKEN_SUBPROTOCOL: &str = "token.";

/// What an authorized request may do.
#[derive(Debug)]
pub struct Authorized {
    /// The user that the request names, or else the user of the token.
    pub user: Option<UserName>,
    /// What its token allows.
    pub grant: Grant,
}

/// The reason why a request is denied.
#[derive(Debug)]
pub struct Denied {
    /// 401 if a valid token is missing, 403 if another token would not help.
    pub status: u16,
    /// A sentence that does not say what is wrong with a token.
    pub sentence: &'static str,
}

impl Denied {
    /// The response, in plain text.
    pub fn response(&self) -> Response {
        self.challenge(Response::new(self.status, self.sentence))
    }

    /// Adds the challenge that belongs to a 401 (RFC 9110 §11.6.1).
    #[must_use]
    pub fn challenge(&self, response: Response) -> Response {
        match self.status {
            401 => response.with("WWW-Authenticate", "Bearer"),
            _ => response,
        }
    }
}

/// The denial for a page of an origin that is not allowed.
pub const FOREIGN_ORIGIN: Denied = Denied {
    status: 403,
    sentence: "pages of this origin may not connect here",
};

/// The origin of the page that sent the request, and whether it is allowed. `None` if no page sent it.
pub fn origin<'a>(request: &'a Request, config: &Config) -> Option<(&'a str, bool)> {
    let origin = request.header("origin")?;
    let allowed = origin_is_allowed(origin, &request.host, &config.allow_origin);
    Some((origin, allowed))
}

/// Decides whether a request may act as `user` and in `room`, as far as it names them.
pub fn authorize(
    request: &Request,
    user: Option<&UserName>,
    room: Option<&RoomName>,
    config: &Config,
) -> Result<Authorized, Denied> {
    let deny = |status, sentence, why: &dyn Display| {
        metrics::UNAUTHORIZED.count();
        info!("{user:?} is not let in: {why}");
        Err(Denied { status, sentence })
    };
    if let Some((origin, false)) = origin(request, config) {
        let why = format!("origin {origin:?}");
        return deny(FOREIGN_ORIGIN.status, FOREIGN_ORIGIN.sentence, &why);
    }
    let Some(secret) = &config.token_secret else {
        return Ok(Authorized {
            user: user.cloned(),
            grant: Grant::all(),
        });
    };
    let claims = match claims(request, secret) {
        Ok(claims) => claims,
        Err(why) => {
            let why = why.map_or("no token".to_owned(), |why| why.to_string());
            return deny(401, "a valid token is needed", &why);
        }
    };
    if user.is_some_and(|user| *user != claims.sub) {
        return deny(403, "the token is not this user's", &"another user's token");
    }
    if room.is_some_and(|room| !claims.allows(room)) {
        return deny(403, "the token does not allow this room", &"room");
    }
    Ok(Authorized {
        user: Some(claims.sub.clone()),
        grant: Grant::of(claims, Instant::now()),
    })
}

/// The claims of the first valid token. A request may carry several: a proxy may have added one, or the
/// page's address may hold an old one. The error is that of the last token, or `None` without a token.
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

/// The tokens in the query, in the `Authorization` field, and in the list of subprotocols.
fn tokens(request: &Request) -> impl Iterator<Item = &str> {
    let listed = request
        .subprotocols()
        .filter_map(|name| name.strip_prefix(TOKEN_SUBPROTOCOL));
    let in_query = request.parameter("token").into_iter();
    in_query.chain(bearer(request)).chain(listed)
}

/// The token of the `Bearer` scheme, whose name may be in any case (RFC 9110 §11.1).
fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start_matches(' '))
}

/// Whether an origin is this server's own host, or one that the operator allows.
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
