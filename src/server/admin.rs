//! The operators' API, below `/api/admin/`: who is here, and putting somebody out. Only with
//! [`admin_secret`](super::config::Config::admin_secret); without it these paths are unknown.
//!
//! An operator is a program with the secret, not a user: no page of another origin can send it, and each act is
//! one line in the log.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Denied, bearer, sent_by};
use super::http::{Request, Response, read_body};
use super::proxies::ClientAddress;
use super::responses::{cannot, deny, error, not_found, wrong_method};
use super::state::State;
use super::token::Secret;
use crate::backplane::{BackplaneError, Ban, Banned};
use crate::date::unix_millis;
use crate::hub::Order;
use crate::message::{ConnectionId, MessageId, RoomName, UserName};
use crate::metrics;
use crate::protocol::{Cursor, ErrorCode, json};
use crate::stream::Stream;
use crate::threads::lock;

/// The denial for a request without the secret. It does not say whether there was one.
const NO_OPERATOR: Denied = Denied {
    status: 401,
    sentence: "the operators' secret is needed",
};

/// What an operator is told who asks for another path.
const NO_SUCH_PATH: &str = "below /api/admin/ there are connections, rooms, rooms/{room}/messages, \
                            rooms/{room}/messages/{id}, users, users/{user}/disconnect, bans, bans/{user}, closed and \
                            closed/{room}";

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 4096;

/// The longest reason, in characters.
const MAX_REASON: usize = 200;

/// The longest ban.
const LONGEST_BAN: Duration = Duration::from_secs(10 * 365 * 86_400);

/// All instances read all bans whenever one changes.
const MOST_BANS: usize = 10_000;

/// The body of a request for a ban. Other fields are ignored.
#[derive(Deserialize)]
struct Term {
    seconds: u64,
    #[serde(default)]
    reason: String,
}

/// A chat on this instance.
#[derive(Debug)]
pub struct OpenChat {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its user; `None` if it only follows a room and needs no token.
    pub user: Option<UserName>,
    /// The client's address.
    pub address: IpAddr,
    /// When it was upgraded.
    pub since: SystemTime,
}

/// Answers a request for this path below `/api/admin/`. `chats` lists the chats of this instance.
pub fn respond(
    state: &State,
    stream: &Stream,
    request: &Request,
    client: ClientAddress,
    path: &[String],
    chats: impl Fn() -> Vec<OpenChat>,
) -> Response {
    let Some(secret) = &state.config.admin_secret else {
        return not_found();
    };
    let operator = Operator {
        state,
        stream,
        request,
        client,
    };
    let response = operator
        .is_let_in(secret)
        .and_then(|()| operator.run(path, chats));
    response.unwrap_or_else(|error| error)
}

/// An operator's request.
struct Operator<'a> {
    state: &'a State,
    stream: &'a Stream,
    request: &'a Request,
    client: ClientAddress,
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
            error(429, ErrorCode::TooFast, message).retry_after(wait)
        })?;
        warn!("no operator, from {}: {why}", self.client);
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
                Ok(self.list("connections", &self.connections(chats())))
            }
            (["rooms"], "GET" | "HEAD") => Ok(self.list("rooms", &self.rooms())),
            (["users"], "GET" | "HEAD") => Ok(self.list("users", &self.users(chats()))),
            (["connections" | "rooms" | "users"], _) => Err(wrong_method("GET, HEAD, OPTIONS")),
            (["users", user, "disconnect"], "POST") => self.disconnect(&parsed(user, "user")?),
            (["users", _, "disconnect"], _) => Err(wrong_method("POST, OPTIONS")),
            (["rooms", room, "messages"], "DELETE") => self.delete_past(&parsed(room, "room")?),
            (["rooms", room, "messages", id], "DELETE") => {
                let bad = |_| {
                    error(
                        400,
                        ErrorCode::BadRequest,
                        "bad id: it should look like 7-0",
                    )
                };
                self.delete(&parsed(room, "room")?, id.parse().map_err(bad)?)
            }
            (["rooms", _, "messages"] | ["rooms", _, "messages", _], _) => {
                Err(wrong_method("DELETE, OPTIONS"))
            }
            ([name @ ("bans" | "closed")], "GET" | "HEAD") => self.bans(name),
            (["bans" | "closed"], _) => Err(wrong_method("GET, HEAD, OPTIONS")),
            ([list @ ("bans" | "closed"), name], method) => {
                let banned = match *list {
                    "bans" => Banned::User(parsed(name, "user")?),
                    _ => Banned::Room(parsed(name, "room")?),
                };
                match method {
                    "PUT" => self.ban(&banned),
                    "DELETE" => self.lift(&banned),
                    _ => Err(wrong_method("PUT, DELETE, OPTIONS")),
                }
            }
            _ => Err(error(404, ErrorCode::NotFound, NO_SUCH_PATH)),
        }
    }

    /// Notes an act in the log.
    fn note(&self, act: &str) {
        info!("an operator at {}: {act}", self.client);
    }

    fn disconnect(&self, user: &UserName) -> Result<Response, Response> {
        let told = self.state.backplane.order(&Order::Disconnect(user.clone()));
        told.map_err(|why| not_done(&why))?;
        self.note(&format!("disconnects {user:?}"));
        Ok(Response::empty(202))
    }

    /// The bans of users, or the rooms that are closed.
    fn bans(&self, name: &str) -> Result<Response, Response> {
        let bans = self.read_bans()?.into_iter();
        let bans = bans.filter(|(banned, _)| match banned {
            Banned::User(_) => name == "bans",
            Banned::Room(_) => name == "closed",
            Banned::Message(..) | Banned::Past(..) => false,
        });
        let bans: Vec<_> = bans
            .map(|(banned, ban)| ban_object(&banned, &ban))
            .collect();
        Ok(answer(200, &json!({name: bans})))
    }

    /// The bans that are not over.
    fn read_bans(&self) -> Result<BTreeMap<Banned, Ban>, Response> {
        let bans = self.state.backplane.bans();
        let mut bans = bans.map_err(|why| cannot("cannot read the bans", None, &why))?;
        let now = SystemTime::now();
        bans.retain(|_, ban| !ban.left(now).is_zero());
        Ok(bans)
    }

    fn ban(&self, banned: &Banned) -> Result<Response, Response> {
        let due = Instant::now() + self.state.config.deadlines.head;
        let body = read_body(self.stream, self.request, MAX_BODY, due)
            .map_err(|why| error(why.status(), ErrorCode::BadRequest, &why.to_string()))?;
        let bad = |why: &str| error(400, ErrorCode::BadRequest, why);
        let term: Term = json::object(&body)
            .map_err(|why| bad(&format!("not a term, such as {{\"seconds\":3600}}: {why}")))?;
        if !(1..=LONGEST_BAN.as_secs()).contains(&term.seconds) {
            let most = LONGEST_BAN.as_secs();
            return Err(bad(&format!("it lasts 1 to {most} seconds")));
        }
        if term.reason.chars().count() > MAX_REASON || term.reason.contains(char::is_control) {
            let why = format!("a reason has at most {MAX_REASON} characters, on one line");
            return Err(bad(&why));
        }
        let ban = self.set(banned, Duration::from_secs(term.seconds), term.reason)?;
        let act = act(banned);
        self.note(&format!("{act} for {} s: {:?}", term.seconds, ban.reason));
        Ok(answer(200, &ban_object(banned, &ban)))
    }

    fn set(&self, banned: &Banned, term: Duration, reason: String) -> Result<Ban, Response> {
        let bans = self.read_bans()?;
        let is_deletion = banned.is_deletion();
        let of_kind = bans.keys().filter(|one| one.is_deletion() == is_deletion);
        if of_kind.count() >= MOST_BANS && !bans.contains_key(banned) {
            let why = match is_deletion {
                true => format!("{MOST_BANS} messages are deleted already; purge a room"),
                false => format!("there are {MOST_BANS} bans already"),
            };
            return Err(error(400, ErrorCode::BadRequest, &why));
        }
        let until = unix_millis(SystemTime::now() + term);
        let ban = Ban { until, reason };
        let set = self.state.backplane.set_ban(banned, Some(&ban));
        set.map_err(|why| not_done(&why))?;
        // Here it holds at once. The moderator tells of it.
        lock(&self.state.bans).insert(banned.clone(), ban.clone());
        Ok(ban)
    }

    /// Deletes one message.
    fn delete(&self, room: &RoomName, id: MessageId) -> Result<Response, Response> {
        let before = id.previous().unwrap_or(MessageId::ZERO);
        let found = self.first_of(room, Cursor::After(before))?;
        if found != Some(id) {
            let why = format!("there is no message {id} in {room}");
            return Err(error(404, ErrorCode::NotFound, &why));
        }
        self.keep_from_all(&Banned::Message(room.clone(), id))
    }

    /// Deletes all that was said in a room until now.
    fn delete_past(&self, room: &RoomName) -> Result<Response, Response> {
        let newest = self.first_of(room, Cursor::Newest)?;
        let why = format!("nothing is kept of {room}");
        let newest = newest.ok_or_else(|| error(404, ErrorCode::NotFound, &why))?;
        let done = self.keep_from_all(&Banned::Past(room.clone(), newest))?;
        // It has the earlier ones in it.
        for earlier in self.read_bans()?.into_keys() {
            let is_within = match &earlier {
                Banned::User(_) | Banned::Room(_) => false,
                Banned::Message(of, id) => of == room && *id <= newest,
                Banned::Past(of, id) => of == room && *id < newest,
            };
            if is_within {
                let lifted = self.state.backplane.set_ban(&earlier, None);
                lifted.map_err(|why| cannot("an earlier deletion stays", None, &why))?;
            }
        }
        Ok(done)
    }

    fn first_of(&self, room: &RoomName, page: Cursor) -> Result<Option<MessageId>, Response> {
        let read = self.state.backplane.read(room, page, 1);
        let read = read.map_err(|why| cannot("cannot read the room", None, &why))?;
        Ok(read.reach)
    }

    fn keep_from_all(&self, banned: &Banned) -> Result<Response, Response> {
        self.set(banned, LONGEST_BAN, String::new())?;
        self.note(&act(banned));
        Ok(Response::empty(204))
    }

    fn lift(&self, banned: &Banned) -> Result<Response, Response> {
        let is_banned = self.read_bans()?.contains_key(banned);
        let (act, is_not) = match banned {
            Banned::User(user) => (format!("unbans {user:?}"), format!("{user} is not banned")),
            Banned::Room(room) => (format!("opens {room:?}"), format!("{room} is not closed")),
            Banned::Message(..) | Banned::Past(..) => (act(banned), "it is not deleted".to_owned()),
        };
        if !is_banned {
            return Err(error(404, ErrorCode::NotFound, &is_not));
        }
        let set = self.state.backplane.set_ban(banned, None);
        set.map_err(|why| not_done(&why))?;
        self.note(&act);
        Ok(Response::empty(204))
    }

    /// A list of what is on this instance.
    fn list(&self, name: &str, list: &[Value]) -> Response {
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
                "since": unix_millis(chat.since),
                "rooms": rooms.remove(&chat.connection).unwrap_or_default(),
            })
        });
        chats.collect()
    }

    fn rooms(&self) -> Vec<Value> {
        let mut rooms = self.state.hub.members();
        rooms.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let rooms = rooms.into_iter().map(|(room, members)| {
            let mut users: Vec<_> = members.into_iter().filter_map(|(_, user)| user).collect();
            users.sort_unstable();
            users.dedup();
            json!({"room": room, "users": users})
        });
        rooms.collect()
    }

    fn users(&self, chats: Vec<OpenChat>) -> Vec<Value> {
        let mut users: BTreeMap<UserName, usize> = BTreeMap::new();
        for user in chats.into_iter().filter_map(|chat| chat.user) {
            *users.entry(user).or_default() += 1;
        }
        let users = users.into_iter();
        users
            .map(|(user, connections)| json!({"user": user, "connections": connections}))
            .collect()
    }
}

fn parsed<T: FromStr<Err: Display>>(name: &str, what: &str) -> Result<T, Response> {
    let bad = |why| format!("bad {what} name: {why}");
    name.parse()
        .map_err(|why| error(400, ErrorCode::BadRequest, &bad(why)))
}

/// The response to an act that the backplane did not confirm.
fn not_done(why: &BackplaneError) -> Response {
    let what = match why.is_in_doubt() {
        true => "it may be done or not",
        false => "not done",
    };
    cannot(what, None, why)
}

/// What an operator does, for the log.
fn act(banned: &Banned) -> String {
    match banned {
        Banned::User(user) => format!("bans {user:?}"),
        Banned::Room(room) => format!("closes {room:?}"),
        Banned::Message(room, id) => format!("deletes {id} in {room:?}"),
        Banned::Past(room, id) => format!("deletes what was said in {room:?} up to {id}"),
    }
}

fn ban_object(banned: &Banned, ban: &Ban) -> Value {
    let Ban { until, reason } = ban;
    match banned {
        Banned::User(user) => json!({"user": user, "until": until, "reason": reason}),
        Banned::Room(room) => json!({"room": room, "until": until, "reason": reason}),
        Banned::Message(room, id) | Banned::Past(room, id) => json!({"room": room, "id": id}),
    }
}

/// Milliseconds since 1970.
fn answer(status: u16, value: &Value) -> Response {
    Response::of_json(status, value.to_string())
}
