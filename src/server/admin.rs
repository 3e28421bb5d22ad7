//! The operators' API, below `/api/admin/`: who is here, and putting somebody out. Only with
//! [`admin_secret`](super::config::Config::admin_secret); without it these paths are unknown.
//!
//! An operator is a program with the secret, not a user: no page of another origin can send it, and each act is
//! one line in the log.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use log::warn;
use serde_json::{Value, json};

use super::api::{after, deny, error, not_found, wrong_method};
use super::auth::{Denied, bearer, sent_by};
use super::http::{Request, Response};
use super::state::State;
use super::token::Secret;
use crate::message::{ConnectionId, RoomName, UserName};
use crate::metrics;
use crate::protocol::ErrorCode;
use crate::threads::lock;

/// The denial for a request without the secret. It does not say whether there was one.
const NO_OPERATOR: Denied = Denied {
    status: 401,
    sentence: "the operators' secret is needed",
};

/// A chat on this instance.
#[derive(Debug)]
pub struct OpenChat {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its user.
    pub user: UserName,
    /// The client's address.
    pub address: IpAddr,
    /// When it was upgraded.
    pub since: SystemTime,
}

/// Answers a request for this path below `/api/admin/`. `chats` lists the chats of this instance.
pub fn respond(
    state: &State,
    socket: &TcpStream,
    request: &Request,
    peer: SocketAddr,
    path: &[String],
    chats: impl Fn() -> Vec<OpenChat>,
) -> Response {
    let Some(secret) = &state.config.admin_secret else {
        return not_found();
    };
    let operator = Operator {
        state,
        socket,
        request,
        peer,
    };
    let response = operator
        .is_let_in(secret)
        .and_then(|()| operator.run(path, chats));
    let response = response.unwrap_or_else(|error| error);
    match &*request.method {
        "HEAD" => response.without_body(),
        _ => response,
    }
}

/// An operator's request.
struct Operator<'a> {
    state: &'a State,
    socket: &'a TcpStream,
    request: &'a Request,
    peer: SocketAddr,
}

impl Operator<'_> {
    /// Checks the secret. The right one is never made to wait: a flood of wrong ones must not lock operators out.
    fn is_let_in(&self, secret: &Secret) -> Result<(), Response> {
        let (denied, why) = match sent_by(self.request, &self.state.config) {
            Err(foreign) => foreign,
            Ok(()) if self.secret().is_some_and(|given| *secret == given) => return Ok(()),
            Ok(()) => (NO_OPERATOR, "no or a wrong secret".to_owned()),
        };
        metrics::WRONG_ADMIN_SECRETS.count();
        let paced = lock(&self.state.wrong_secrets).take(Instant::now());
        paced.map_err(|wait| {
            let message = "too many requests with a wrong secret";
            after(wait, error(429, ErrorCode::TooFast, message))
        })?;
        warn!("no operator, from {}: {why}", self.peer);
        Err(deny(&denied))
    }

    fn secret(&self) -> Option<Secret> {
        Secret::new(bearer(self.request)?).ok()
    }

    fn run(
        &self,
        path: &[String],
        chats: impl Fn() -> Vec<OpenChat>,
    ) -> Result<Response, Response> {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        match (&path[..], &*self.request.method) {
            (["connections"], "GET" | "HEAD") => {
                Ok(self.list("connections", self.connections(chats())))
            }
            (["rooms"], "GET" | "HEAD") => Ok(self.list("rooms", self.rooms())),
            (["users"], "GET" | "HEAD") => Ok(self.list("users", self.users(chats()))),
            (["connections" | "rooms" | "users"], _) => Err(wrong_method("GET, HEAD")),
            _ => Err(not_found()),
        }
    }

    /// A list of what is on this instance.
    fn list(&self, name: &str, list: Vec<Value>) -> Response {
        let instance = self.state.hub.instance().to_string();
        answer(200, &json!({"instance": instance, name: list}))
    }

    fn connections(&self, chats: Vec<OpenChat>) -> Vec<Value> {
        let mut rooms: BTreeMap<ConnectionId, Vec<RoomName>> = BTreeMap::new();
        for (room, members) in self.state.hub.members() {
            for (connection, _) in members {
                rooms.entry(connection).or_default().push(room.clone());
            }
        }
        let mut chats = chats;
        chats.sort_by_key(|chat| chat.connection);
        let chats = chats.into_iter().map(|chat| {
            json!({
                "id": chat.connection.0,
                "user": chat.user,
                "address": chat.address,
                "since": millis(chat.since),
                "rooms": rooms.remove(&chat.connection).unwrap_or_default(),
            })
        });
        chats.collect()
    }

    fn rooms(&self) -> Vec<Value> {
        let mut rooms = self.state.hub.members();
        rooms.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let rooms = rooms.into_iter().map(|(room, members)| {
            let mut users: Vec<_> = members.into_iter().map(|(_, user)| user).collect();
            users.sort_unstable();
            users.dedup();
            json!({"room": room, "users": users})
        });
        rooms.collect()
    }

    fn users(&self, chats: Vec<OpenChat>) -> Vec<Value> {
        let mut users: BTreeMap<UserName, usize> = BTreeMap::new();
        for chat in chats {
            *users.entry(chat.user).or_default() += 1;
        }
        let users = users.into_iter();
        users
            .map(|(user, connections)| json!({"user": user, "connections": connections}))
            .collect()
    }
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

fn answer(status: u16, value: &Value) -> Response {
    Response::of_json(status, value.to_string())
}
