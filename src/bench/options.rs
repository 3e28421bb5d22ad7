//! The command line, and the numbering of the connections that follows from it.
//!
//! Connections are numbered: first the senders, one for each room, then the members, who are
//! distributed over the rooms in turn.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use hubbub::client::ServerUrl;
use hubbub::process::memory_kib;

use crate::wire::Stamp;

/// Measures a running server as its clients do: deliveries, order, latency, and what they cost it.
#[derive(Debug, Parser)]
#[command(name = "hubbub-bench", version, next_line_help = true)]
pub(crate) struct Options {
    /// The server. If it is not a Hubbub, add the path of its chat, with {user} and {room} in it
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = Target::parse)]
    pub(crate) url: Target,
    /// A file with the authorities to trust for https, in PEM, instead of those of the system
    #[arg(long, env = "HUBBUB_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// How many members listen. In each room one more connection sends
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = count(1..=1_000_000))]
    pub(crate) members: usize,
    /// How many rooms the members are distributed over
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = count(1..=Stamp::ROOMS))]
    pub(crate) rooms: usize,
    /// Messages a second over all rooms, or 0 for as fast as they come back. Several rates, separated
    /// by commas, are measured in turn
    #[arg(long, value_name = "RATE", default_value = "100", value_delimiter = ',', value_parser = number)]
    pub(crate) rate: Vec<f64>,
    /// The length of a message
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = count(Stamp::LENGTH as u64..=65_536))]
    pub(crate) size: usize,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = number)]
    pub(crate) seconds: f64,
    /// Send nothing, only hold the connections
    #[arg(long, conflicts_with_all = ["rate", "size", "window"])]
    pub(crate) idle: bool,
    /// Enter no room, to measure the handshake alone; for a Hubbub
    #[arg(long, requires = "idle")]
    pub(crate) outside: bool,
    /// Connect at most so many a second [default: as fast as it goes]
    #[arg(long, value_name = "RATE", value_parser = number, default_value = "0", hide_default_value = true)]
    pub(crate) ramp: f64,
    /// How many messages of a room may be on their way to its slowest member
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = count(1..=65_536))]
    pub(crate) window: usize,
    /// The server's process, if it is on this machine: its CPU and memory are measured, too
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Option<i32>,
    /// The process of the server's Redis, if it is on this machine: its CPU is measured, too
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) redis_pid: Option<i32>,
    /// Print the JSON of each measurement on one line, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

fn count(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

fn number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (0.0..=1e7).contains(number));
    number.ok_or_else(|| "it is a number, 0 or more".to_owned())
}

fn process(id: &str) -> Result<i32, String> {
    let id = id.parse().ok().filter(|&id| memory_kib(id).is_some());
    id.ok_or_else(|| "there is no such process here".to_owned())
}

impl Options {
    /// Reads the command line. `--help` and `--version` print and end the process.
    pub(crate) fn read() -> Result<Self, String> {
        let options = Self::try_parse().map_err(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            // clap's error is its first paragraph; usage and tips follow.
            let text = error.to_string().replacen("error: ", "", 1);
            let paragraph = text.split("\n\n").next().unwrap_or_default();
            paragraph.trim_end().replace('\n', " ")
        })?;
        if options.rooms > options.members {
            return Err("there are more --rooms than --members".to_owned());
        }
        Ok(options)
    }

    pub(crate) fn senders(&self) -> usize {
        if self.idle { 0 } else { self.rooms }
    }

    pub(crate) fn connections(&self) -> usize {
        self.senders() + self.members
    }

    /// The room of a connection, be it a sender's or a member's.
    pub(crate) fn room(&self, connection: usize) -> usize {
        connection % self.rooms
    }
}

/// A server, and the path of its chat.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) server: ServerUrl,
    /// With `{user}` and `{room}` in it.
    pub(crate) path: String,
}

impl Target {
    /// Reads `ws://host:port/path`. Without a path it is Hubbub's own.
    fn parse(url: &str) -> Result<Self, String> {
        let scheme = url.find("://").map_or(0, |at| at + 3);
        let path = url[scheme..].find(['/', '?']);
        let (server, path) = url.split_at(path.map_or(url.len(), |at| scheme + at));
        let path = match path.strip_prefix('/').unwrap_or(path) {
            "" => "/chat/{user}?room={room}".to_owned(),
            path => format!("/{path}"),
        };
        if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("a URL has ASCII characters only; percent-encode the others".to_owned());
        }
        let server = ServerUrl::parse(server)?;
        Ok(Self { server, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_stand_in_the_url_and_is_hubbubs_otherwise() {
        for (url, authority, path) in [
            ("ws://h:1", "h:1", "/chat/{user}?room={room}"),
            ("http://h:1/", "h:1", "/chat/{user}?room={room}"),
            ("h:1/ws?n={user}", "h:1", "/ws?n={user}"),
            ("ws://h?x", "h:80", "/?x"),
        ] {
            let target = Target::parse(url).expect(url);
            let found = (target.server.authority(), &*target.path);
            assert_eq!(found, (authority, path));
        }
        for bad in ["ftp://h/x", "ws://", "ws://h/a b"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
