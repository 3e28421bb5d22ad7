//! Authorization of a request, by its page's origin and by its token.
//!
//! The log says what is wrong with a token. The response does not.

use std::net::IpAddr;

use log::info;

use super::config::Config;
use super::grant::Grant;
use super::http::{Request, Response};
use super::state::State;
use super::token::{Claims, TokenError, Verifier};
use crate::message::{RoomName, UserName};
use crate::metrics;

/// The prefix of a token in the list of subprotocols, the only header field that a page can set.
const TOKEN_SUBPROTOCOL: &str = "token.";

/// The most tokens of one request that are looked at: each may cost a signature's verification. It leaves room for
/// one in the query, one in the field, and a few subprotocols.
const MOST_TOKENS: usize = 6;

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

/// The denial without a token that is valid now.
pub const NO_TOKEN: Denied = Denied {
    status: 401,
    sentence: "a valid token is needed",
};

/// The denial for a name that is not this server's. A page of that name may have been sent here by its own DNS entry
/// (DNS rebinding), and then its origin and this host look the same.
const FOREIGN_HOST: Denied = Denied {
    status: 421,
    sentence: "this server does not answer for that host; --host names the hosts that it answers for",
};

/// The denial for a request that another site's page makes its reader send.
const CROSS_SITE: Denied = Denied {
    status: 403,
    sentence: "pages of other sites may not post here",
};

/// The origin of the page that sent the request, and whether it is allowed. `None` if no page sent it.
pub fn origin<'a>(request: &'a Request, config: &Config) -> Option<(&'a str, bool)> {
    let origin = request.header("origin")?;
    let allowed = origin_is_allowed(origin, &request.host, &config.allow_origin);
    Some((origin, allowed))
}

/// Refuses what another site's page may have sent. The error is the denial, and the reason for the log.
pub fn sent_by(request: &Request, config: &Config) -> Result<(), (Denied, String)> {
    if !host_is_served(&request.host, config) {
        let why = format!("the host {:?} is not this server's", request.host);
        return Err((FOREIGN_HOST, why));
    }
    match origin(request, config) {
        Some((origin, false)) => {
            let why = format!("pages of {origin:?} may not connect");
            Err((FOREIGN_ORIGIN, why))
        }
        // A browser that names no origin still tells this (Fetch Metadata, Sec-Fetch-Site).
        None if !matches!(&*request.method, "GET" | "HEAD")
            && request.header("sec-fetch-site") == Some("cross-site") =>
        {
            Err((CROSS_SITE, "another site's page sent it".to_owned()))
        }
        Some((_, true)) | None => Ok(()),
    }
}

/// Refuses a banned user, and everybody in a closed room. The error is a sentence, for a 403.
pub fn is_admitted(
    state: &State,
    client: IpAddr,
    user: Option<&UserName>,
    room: Option<&RoomName>,
) -> Result<(), String> {
    let banned = user.and_then(|user| state.why_banned(user));
    match banned.or_else(|| state.why_closed(room?)) {
        None => Ok(()),
        Some(why) => {
            log_denial(client, user, &why);
            Err(why)
        }
    }
}

/// Counts a denied request, and says in the log who sent it, and why it is denied.
fn log_denial(client: IpAddr, user: Option<&UserName>, why: &str) {
    metrics::UNAUTHORIZED.count();
    match user {
        Some(user) => info!("{user:?} at {client} is not let in: {why}"),
        None => info!("a client at {client} is not let in: {why}"),
    }
}

/// Decides whether a request may act as `user` and in `room`, as far as it names them.
pub fn authorize(
    request: &Request,
    client: IpAddr,
    user: Option<&UserName>,
    room: Option<&RoomName>,
    state: &State,
) -> Result<Authorized, Denied> {
    let config = &state.config;
    let deny = |status, sentence, why: &str| {
        log_denial(client, user, why);
        Err(Denied { status, sentence })
    };
    if let Err((denied, why)) = sent_by(request, config) {
        return deny(denied.status, denied.sentence, &why);
    }
    let Some(verifier) = &state.verifier else {
        return Ok(Authorized {
            user: user.cloned(),
            grant: Grant::all(),
        });
    };
    let claims = match claims(request, verifier) {
        Ok(claims) => claims,
        Err(why) => {
            let why = why.map_or("no token".to_owned(), |why| why.to_string());
            return deny(NO_TOKEN.status, NO_TOKEN.sentence, &why);
        }
    };
    if user.is_some_and(|user| *user != claims.sub) {
        return deny(
            403,
            "the token is not this user's",
            "the token is another user's",
        );
    }
    if room.is_some_and(|room| !claims.allows(room)) {
        return deny(
            403,
            "the token does not allow this room",
            "the token does not allow the room",
        );
    }
    Ok(Authorized {
        user: Some(claims.sub.clone()),
        grant: Grant::of(claims),
    })
}

/// The claims of the first valid token. A request may carry several: a proxy may have added one, or the
/// page's address may hold an old one. The error is that of the last token, or `None` without a token.
fn claims(request: &Request, verifier: &Verifier) -> Result<Claims, Option<TokenError>> {
    let mut wrong = None;
    for token in tokens(request).take(MOST_TOKENS) {
        match verifier.verify(token) {
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
pub(super) fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start_matches(' '))
}

/// Whether this server answers for a host. Addresses and `localhost` are always its own, since no DNS entry can make
/// them another's. Names are, unless the operator lists the right ones; and unless the server listens for this machine
/// alone and takes everybody in.
fn host_is_served(host: &str, config: &Config) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    if config.hosts.is_empty() {
        return config.tokens.demand_tokens() || !config.listen.ip().to_canonical().is_loopback();
    }
    config
        .hosts
        .iter()
        .any(|one| one.eq_ignore_ascii_case(&name))
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

    #[test]
    fn a_name_is_taken_only_if_no_dns_entry_can_have_made_it_ours() {
        let served = |host: &str, listen: &str, hosts: &[&str]| {
            let config = Config {
                listen: listen.parse().expect("an address"),
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
                ..Config::default()
            };
            host_is_served(host, &config)
        };
        let own = "127.0.0.1:8080";
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "localhost:1",
            "LOCALHOST.",
            "a.localhost",
        ] {
            assert!(served(host, own, &[]), "{host}");
            assert!(served(host, own, &["chat.example"]), "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(!served(host, own, &[]), "{host}");
            assert!(!served(host, "0.0.0.0:8080", &["chat.example"]), "{host}");
            assert!(served(host, "0.0.0.0:8080", &[]), "{host}");
        }
        assert!(served("Chat.example.:443", own, &["chat.example"]));
    }
}
