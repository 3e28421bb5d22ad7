//! `hubbub admin`: the operators' API from a shell. Lists are lines with tabs between their fields.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::exit::Exit;
use super::{RoomName, UserName};
use crate::client::{PlainRequest, ServerUrl};
use crate::date::unix_millis;
use crate::message::MessageId;
use crate::server::token::Secret;

/// The time within which the server has to answer. It waits for its Redis for a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(super) struct AdminArgs {
    /// The server
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = ServerUrl::parse, global = true)]
    url: ServerUrl,
    /// A file with the authorities to trust for https, in PEM, instead of those of the system
    #[arg(long, env = "HUBBUB_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// The server's --admin-secret; a file keeps it out of the list of processes
    #[arg(
        long,
        env = "HUBBUB_ADMIN_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        global = true
    )]
    secret: Option<String>,
    /// A file with the secret
    #[arg(
        long,
        env = "HUBBUB_ADMIN_SECRET_FILE",
        value_name = "FILE",
        global = true
    )]
    secret_file: Option<PathBuf>,
    /// Print the JSON that the server sent
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// List the rooms on this instance: name, users
    Rooms,
    /// List the users on this instance: name, number of connections
    Users,
    /// List the connections of this instance: id, user (- for one that follows a room and has none), address, seconds
    /// since the upgrade, rooms
    Connections,
    /// List the bans: user, seconds left, reason
    Bans,
    /// Close the connections of a user on all instances; the user may come back
    Disconnect {
        /// The user
        user: UserName,
    },
    /// Put a user out on all instances, and keep them out for a while
    Ban {
        /// The user
        user: UserName,
        /// How long, such as 90s, 30m, 12h or 7d
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        term: Duration,
        /// Why; the user is told
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Lift a ban
    Unban {
        /// The user
        user: UserName,
    },
    /// List the rooms that are closed: room, seconds left, reason
    Closed,
    /// Take everybody out of a room on all instances, and let nobody in for a while
    Close {
        /// The room
        room: RoomName,
        /// How long, such as 90s, 30m, 12h or 7d
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        term: Duration,
        /// Why; the users are told
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Delete one message of a room; all members are told
    Delete {
        /// The room
        room: RoomName,
        /// The id, as the room's messages have it in JSON
        id: MessageId,
    },
    /// Delete all that was said in a room until now; all members are told
    Purge {
        /// The room
        room: RoomName,
    },
    /// Open a closed room before its time
    Open {
        /// The room
        room: RoomName,
    },
}

/// Reads a time such as `90s`, `30m`, `12h` or `7d`.
fn time(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let parsed = units.into_iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(seconds)
    });
    parsed
        .map(Duration::from_secs)
        .ok_or_else(|| "it should look like 90s, 30m, 12h or 7d".to_owned())
}

pub(super) fn run(args: &AdminArgs) -> Result<(), Exit> {
    let secret = secret(args)?;
    let at =
        |list: &str, name: &str| format!("{list}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
    let until = |term: &Duration, reason: &str| {
        json!({"seconds": term.as_secs(), "reason": reason}).to_string()
    };
    let (method, path, body) = match &args.act {
        Act::Rooms => ("GET", "rooms".to_owned(), String::new()),
        Act::Users => ("GET", "users".to_owned(), String::new()),
        Act::Connections => ("GET", "connections".to_owned(), String::new()),
        Act::Bans => ("GET", "bans".to_owned(), String::new()),
        Act::Disconnect { user } => {
            let path = at("users", user.as_str()) + "/disconnect";
            ("POST", path, String::new())
        }
        Act::Ban { user, term, reason } => ("PUT", at("bans", user.as_str()), until(term, reason)),
        Act::Unban { user } => ("DELETE", at("bans", user.as_str()), String::new()),
        Act::Closed => ("GET", "closed".to_owned(), String::new()),
        Act::Close { room, term, reason } => {
            ("PUT", at("closed", room.as_str()), until(term, reason))
        }
        Act::Delete { room, id } => {
            let path = format!("{}/messages/{id}", at("rooms", room.as_str()));
            ("DELETE", path, String::new())
        }
        Act::Purge { room } => {
            let path = at("rooms", room.as_str()) + "/messages";
            ("DELETE", path, String::new())
        }
        Act::Open { room } => ("DELETE", at("closed", room.as_str()), String::new()),
    };
    let request = PlainRequest {
        method,
        path: &format!("/api/admin/{path}"),
        bearer: Some(&secret),
        reference: None,
        body: &body,
        body_type: None,
    };
    let response = args.url.send(&request, args.ca.as_deref(), ANSWER_WITHIN);
    let response = response.map_err(|why| why.to_string())?;
    let answer: Value = match &response.body[..] {
        "" => json!({}),
        body => serde_json::from_str(body).unwrap_or(Value::Null),
    };
    if response.status >= 300 {
        return Err(Exit::Failed(refusal(
            response.status,
            &answer,
            &response.body,
        )));
    }
    let text = match args.json {
        true if response.body.is_empty() => String::new(),
        true => format!("{}\n", response.body),
        false => lines(answer).map_err(|why| format!("{} sent something else: {why}", args.url))?,
    };
    // A closed pipe has no reader to whom the failure matters.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn secret(args: &AdminArgs) -> Result<String, Exit> {
    let (secret, wrong): (_, fn(String) -> Exit) = match (&args.secret_file, &args.secret) {
        (Some(path), _) => {
            let read = fs::read_to_string(path);
            let read = read.map_err(|error| {
                format!("cannot read the secret in {}: {error}", path.display())
            })?;
            (read, Exit::Failed)
        }
        (None, Some(secret)) => (secret.clone(), Exit::Usage),
        (None, None) => {
            let why = "--secret-file or HUBBUB_ADMIN_SECRET has to name the secret";
            return Err(Exit::Usage(why.to_owned()));
        }
    };
    let secret = secret.trim();
    Secret::of_operators(secret).map_err(wrong)?;
    Ok(secret.to_owned())
}

/// What the server says, or else what it is not.
fn refusal(status: u16, answer: &Value, body: &str) -> String {
    match (status, answer["message"].as_str()) {
        (404, Some(message)) if message.contains("/api/rooms") => {
            "this server has no operators' API; it was started without --admin-secret".to_owned()
        }
        (_, Some(message)) => message.to_owned(),
        (_, None) => format!("the server refuses ({status}): {body}"),
    }
}

/// What the server lists. An act lists nothing.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Lists {
    rooms: Vec<RoomRow>,
    users: Vec<UserRow>,
    connections: Vec<ConnectionRow>,
    bans: Vec<BannedUser>,
    closed: Vec<ClosedRoom>,
}

#[derive(Deserialize)]
struct RoomRow {
    room: RoomName,
    users: Vec<UserName>,
}

#[derive(Deserialize)]
struct UserRow {
    user: UserName,
    connections: usize,
}

#[derive(Deserialize)]
struct ConnectionRow {
    id: u64,
    user: Option<UserName>,
    address: String,
    since: u64,
    rooms: Vec<RoomName>,
}

#[derive(Deserialize)]
struct BannedUser {
    user: UserName,
    #[serde(flatten)]
    ban: Ending,
}

#[derive(Deserialize)]
struct ClosedRoom {
    room: RoomName,
    #[serde(flatten)]
    ban: Ending,
}

#[derive(Deserialize)]
struct Ending {
    until: u64,
    reason: String,
}

fn lines(answer: Value) -> Result<String, serde_json::Error> {
    let now = unix_millis(SystemTime::now());
    let lists: Lists = serde_json::from_value(answer)?;
    let mut text = String::new();
    for RoomRow { room, users } in lists.rooms {
        text += &format!("{room}\t{}\n", listed(&users));
    }
    for UserRow { user, connections } in lists.users {
        text += &format!("{user}\t{connections}\n");
    }
    for one in lists.connections {
        let ConnectionRow {
            id, user, address, ..
        } = one;
        let seconds = now.saturating_sub(one.since) / 1000;
        let rooms = listed(&one.rooms);
        let user = user.map_or("-".to_owned(), |user| user.to_string());
        text += &format!("{id}\t{user}\t{address}\t{seconds}\t{rooms}\n");
    }
    let users = lists.bans.into_iter();
    let users = users.map(|one| (one.user.to_string(), one.ban));
    let rooms = lists.closed.into_iter();
    let rooms = rooms.map(|one| (one.room.to_string(), one.ban));
    for (name, Ending { until, reason }) in users.chain(rooms) {
        let seconds = until.saturating_sub(now).div_ceil(1000);
        text += &format!("{name}\t{seconds}\t{reason}\n");
    }
    Ok(text)
}

/// No name has a comma before a space.
fn listed(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(time("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "h",
            "90",
            "-1h",
            "1.5h",
            "1w",
            "1 h",
            "18446744073709551615d",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
