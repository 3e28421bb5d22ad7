//! The options of a server: plain data with a validated range for each.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::proxies::{Network, is_private, is_trusted};
use super::token::{Secret, TokenOptions};
use super::webhook::Webhook;
use crate::backplane::{RedisAddress, Retention};
use crate::stream::{Identity, TlsError};

/// The options of one server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on; port 0 lets the system choose a port.
    pub listen: SocketAddr,
    /// The Redis that instances share, or several, over which the rooms are spread; without any the embedded
    /// backplane serves one instance.
    pub redis: Vec<RedisAddress>,
    /// The names of hosts that requests may be for; without any, every name that is safe.
    pub hosts: Vec<String>,
    /// The proxies that may name their clients.
    pub trusted_proxies: Vec<Network>,
    /// The folder in which the embedded backplane keeps what is said; without one, it ends with the process.
    pub data: Option<PathBuf>,
    /// The prefix of all keys and channels in Redis.
    pub prefix: String,
    /// The longest time that a teardown may take.
    pub drain: Duration,
    /// The largest message, in bytes.
    pub max_message: usize,
    /// The number of bytes that may wait for one user.
    pub outbox_bytes: usize,
    /// The number of threads that write messages to members; `None` for one for each core.
    pub fanout_workers: Option<usize>,
    /// The time between two pings to a client.
    pub ping_interval: Duration,
    /// The largest request head, in bytes.
    pub max_head: usize,
    /// The time limits for a client.
    pub deadlines: Deadlines,
    /// The number of rooms that one connection may be in.
    pub rooms_per_connection: usize,
    /// The most connections at a time; `None` for as many as the machine can hold.
    pub max_connections: Option<usize>,
    /// The most threads of connections, readers and writers together; `None` for as many as the machine
    /// can hold. Tests set it; no option does.
    pub max_threads: Option<usize>,
    /// The most connections of one address, 0 for no limit; `None` for the default, but no limit where an address
    /// is exempt.
    pub max_per_address: Option<usize>,
    /// The average number of connections that one address may open in a second, 0 for no limit; `None` as above. Each
    /// further request on a connection counts as a new one.
    pub connect_rate: Option<u32>,
    /// The average number of messages and other requests that a connection may send in a second; 0 for no
    /// limit.
    pub send_rate: u32,
    /// The number of messages and other requests that a connection may send at once.
    pub send_burst: u32,
    /// The files of the server's certificate and its key, in PEM; without them it speaks in the clear.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The same two for joins, and for requests for history, members and rooms; `None` for [`Config::command_rate`] and
    /// [`Config::command_burst`].
    pub command_rate: Option<u32>,
    /// See above.
    pub command_burst: Option<u32>,
    /// Which tokens let users in; by default everybody comes in without.
    pub tokens: TokenOptions,
    /// Whether everybody who comes in may list the rooms. Otherwise nobody may, and a name is known only to those who
    /// were told it.
    pub room_list: bool,
    /// The secret of operators. Without it there is no operators' API.
    pub admin_secret: Option<Secret>,
    /// The rooms whose messages are posted, and the addresses to which.
    pub webhooks: Vec<Webhook>,
    /// The secret that signs each post to a webhook.
    pub webhook_secret: Option<Secret>,
    /// The origins of pages that may connect, beside this server's own host; `*` for any.
    pub allow_origin: Vec<String>,
    /// The limits for stored messages, and the expiry of users.
    pub retention: Retention,
}

/// The time limits for a client. Each counts from the beginning, so a client that sends or takes a few
/// bytes at a time does not extend it.
#[derive(Debug, Clone)]
pub struct Deadlines {
    /// To send the whole request head.
    pub head: Duration,
    /// To take one batch of frames.
    pub write: Duration,
    /// To send any byte after a ping.
    pub pong: Duration,
    /// To take the last frame, and then the same time to answer it.
    pub close: Duration,
}

impl Deadlines {
    /// The longest time from the end of an outbox until the peer has answered the last frame.
    pub fn goodbye(&self) -> Duration {
        2 * self.close
    }
}

/// An option's name, its range in the unit that the command line uses, and its default.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The flag, without dashes.
    pub name: &'static str,
    /// The values that are allowed.
    pub range: RangeInclusive<u64>,
    /// The value without the flag.
    pub default: u64,
}

/// The limits of every numeric option.
pub mod limit {
    use super::Limit;

    /// Seconds.
    pub const DRAIN: Limit = limit("drain", 5, 600, 10);
    /// Bytes.
    pub const MAX_MESSAGE: Limit = limit("max-message", 1, 16 << 20, 64 << 10);
    /// Bytes.
    pub const OUTBOX_BYTES: Limit = limit("outbox-bytes", 64 << 10, 1 << 30, 1 << 20);
    /// Threads; by default one for each core.
    pub const FANOUT_WORKERS: Limit = limit("fanout-workers", 1, 64, 64);
    /// Seconds.
    pub const PING_INTERVAL: Limit = limit("ping-interval", 1, 3600, 25);
    /// Seconds.
    pub const PONG_TIMEOUT: Limit = limit("pong-timeout", 1, 600, 10);
    /// Seconds.
    pub const WRITE_TIMEOUT: Limit = limit("write-timeout", 1, 600, 10);
    /// Seconds.
    pub const CLOSE_TIMEOUT: Limit = limit("close-timeout", 1, 60, 2);
    /// Seconds.
    pub const HEAD_TIMEOUT: Limit = limit("head-timeout", 1, 600, 10);
    /// Bytes.
    pub const MAX_HEAD: Limit = limit("max-head", 1 << 10, 64 << 10, 8 << 10);
    /// Rooms.
    pub const ROOMS: Limit = limit("rooms-per-connection", 1, 10_000, 32);
    /// Messages a second; 0 for no limit.
    pub const SEND_RATE: Limit = limit("send-rate", 0, 1_000_000, 10);
    /// Messages.
    pub const SEND_BURST: Limit = limit("send-burst", 1, 1_000_000, 20);
    /// Commands a second; 0 for no limit.
    pub const COMMAND_RATE: Limit = limit("command-rate", 0, 1_000_000, 10);
    /// Commands.
    pub const COMMAND_BURST: Limit = limit("command-burst", 1, 1_000_000, 64);
    /// Connections; by default as many as the machine can hold.
    pub const CONNECTIONS: Limit = limit("max-connections", 1, 1_000_000, 1_000_000);
    /// Connections of one address; 0 for no limit. A browser has one for each tab, and up to six more while it
    /// loads the page and for some seconds after, so this is an office behind one address.
    pub const MAX_PER_ADDRESS: Limit = limit("max-per-address", 0, 1_000_000, 256);
    /// Connections a second of one address, and further requests on them; 0 for no limit. The page takes some 25.
    pub const CONNECT_RATE: Limit = limit("connect-rate", 0, 1_000_000, 50);
    /// An address may open as many connections at once as in this number of seconds.
    pub const CONNECT_BURST_SECONDS: u32 = 20;
    /// Messages.
    pub const HISTORY_LENGTH: Limit = limit("history-length", 1, 1_000_000, 1000);
    /// Seconds.
    pub const HISTORY_TTL: Limit = limit("history-ttl", 1, 366 * 86_400, 86_400);
    /// Bytes.
    pub const HISTORY_BYTES: Limit = limit("history-bytes", 1 << 20, 1 << 40, 256 << 20);
    /// Seconds.
    pub const PRESENCE_TTL: Limit = limit("presence-ttl", 3, 3600, 30);
    /// Seconds.
    pub const PRESENCE_GRACE: Limit = limit("presence-grace", 0, 600, 5);

    const fn limit(name: &'static str, least: u64, most: u64, default: u64) -> Limit {
        Limit {
            name,
            range: least..=most,
            default,
        }
    }
}

/// An outbox must hold this many messages of the largest size: JSON may need six bytes for one, and half
/// of the outbox must hold a whole message.
const OUTBOX_MESSAGES: usize = 16;

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 64;

/// Options that are each valid but do not fit together. The operator acts next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The prefix is empty, too long, or has characters that mean something in keys.
    Prefix,
    /// A few messages of the largest size fill the outbox.
    OutboxSmallerThanMessage,
    /// The messages cannot be in a folder and in Redis.
    DataBesideRedis,
    /// An issuer or an audience is demanded, and no token.
    NoTokens,
    /// One secret would make every issuer of tokens an operator.
    SameSecret,
    /// Two webhooks would post the same.
    SameWebhook,
    /// These Redis servers cannot serve together. A sentence.
    Redis(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => write!(
                f,
                "--prefix must be 1 to {MAX_PREFIX} letters, digits, dots, dashes, underscores or colons"
            ),
            Self::OutboxSmallerThanMessage => f.write_str(
                "--outbox-bytes must be at least 16 times --max-message, or a few messages would fill it",
            ),
            Self::DataBesideRedis => f.write_str(
                "--data is for one instance alone; with --redis the messages are in Redis",
            ),
            Self::NoTokens => f.write_str(
                "--token-issuer and --token-audience need --token-secret or --token-key; \
                 without those, users have no tokens",
            ),
            Self::SameSecret => f.write_str(
                "--admin-secret must differ from --token-secret, or whoever makes tokens is an operator",
            ),
            Self::SameWebhook => f.write_str("the same --webhook is given twice"),
            Self::Redis(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the certificate and its key, if there is one.
    pub fn identity(&self) -> Result<Option<Identity>, TlsError> {
        let files = self.tls.as_ref();
        files
            .map(|(certificate, key)| Identity::read(certificate, key))
            .transpose()
    }

    /// The number of threads that write messages to members.
    pub fn fanout_workers(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, NonZero::get);
        let most = *limit::FANOUT_WORKERS.range.end() as usize;
        self.fanout_workers.unwrap_or_else(cores).min(most)
    }

    /// The average number of commands that a connection may send in a second. Without a limit for messages there is
    /// none for commands, unless it is set.
    pub fn command_rate(&self) -> u32 {
        let default = match self.send_rate {
            0 => 0,
            _ => limit::COMMAND_RATE.default as u32,
        };
        self.command_rate.unwrap_or(default)
    }

    /// The number of commands that a connection may send at once: by default enough to join all its rooms, twice.
    pub fn command_burst(&self) -> u32 {
        let default = limit::COMMAND_BURST.default as usize;
        let default = default.max(2 * self.rooms_per_connection);
        self.command_burst.unwrap_or(default as u32)
    }

    /// Whether this address is exempt from the limits of an address, unless they are set. Loopback is: those are this
    /// machine's own programs. A trusted proxy is, when it names no client. Without one, a private address may be that
    /// of a proxy which nobody has declared, and which must not be taken for one client.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback()
            || match &self.trusted_proxies[..] {
                [] => is_private(address),
                trusted => is_trusted(address, trusted),
            }
    }

    /// Whether users of other machines may come in under any name.
    pub fn is_open_to_anyone(&self) -> bool {
        !self.tokens.demand_tokens() && !self.listen.ip().to_canonical().is_loopback()
    }

    /// Whether the options fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if self.prefix.is_empty()
            || self.prefix.len() > MAX_PREFIX
            || !self.prefix.chars().all(good)
        {
            return Err(ConfigError::Prefix);
        }
        if self.outbox_bytes < self.max_message.saturating_mul(OUTBOX_MESSAGES) {
            return Err(ConfigError::OutboxSmallerThanMessage);
        }
        if self.data.is_some() && !self.redis.is_empty() {
            return Err(ConfigError::DataBesideRedis);
        }
        let tokens = &self.tokens;
        if !tokens.demand_tokens() && (tokens.issuer.is_some() || tokens.audience.is_some()) {
            return Err(ConfigError::NoTokens);
        }
        if let (Some(admin), Some(token)) = (&self.admin_secret, &tokens.secret)
            && admin == token
        {
            return Err(ConfigError::SameSecret);
        }
        let webhooks = &self.webhooks;
        let is_double = |(index, webhook)| webhooks[..index].contains(webhook);
        if webhooks.iter().enumerate().any(is_double) {
            return Err(ConfigError::SameWebhook);
        }
        RedisAddress::check_together(&self.redis).map_err(ConfigError::Redis)
    }
}

impl Default for Config {
    fn default() -> Self {
        let seconds = |limit: Limit| Duration::from_secs(limit.default);
        let count = |limit: Limit| limit.default as usize;
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            redis: Vec::new(),
            data: None,
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            prefix: "hubbub".to_owned(),
            drain: seconds(limit::DRAIN),
            max_message: count(limit::MAX_MESSAGE),
            outbox_bytes: count(limit::OUTBOX_BYTES),
            fanout_workers: None,
            ping_interval: seconds(limit::PING_INTERVAL),
            max_head: count(limit::MAX_HEAD),
            deadlines: Deadlines {
                head: seconds(limit::HEAD_TIMEOUT),
                write: seconds(limit::WRITE_TIMEOUT),
                pong: seconds(limit::PONG_TIMEOUT),
                close: seconds(limit::CLOSE_TIMEOUT),
            },
            rooms_per_connection: count(limit::ROOMS),
            max_connections: None,
            max_threads: None,
            max_per_address: None,
            connect_rate: None,
            send_rate: limit::SEND_RATE.default as u32,
            send_burst: limit::SEND_BURST.default as u32,
            tls: None,
            command_rate: None,
            command_burst: None,
            tokens: TokenOptions::default(),
            room_list: true,
            admin_secret: None,
            webhooks: Vec::new(),
            webhook_secret: None,
            allow_origin: Vec::new(),
            retention: Retention {
                history_length: count(limit::HISTORY_LENGTH),
                history_ttl: seconds(limit::HISTORY_TTL),
                history_bytes: count(limit::HISTORY_BYTES),
                presence_ttl: seconds(limit::PRESENCE_TTL),
                presence_grace: seconds(limit::PRESENCE_GRACE),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_options_that_do_not_fit_together_are_refused() {
        let config = Config::default();
        assert_eq!(config.check(), Ok(()));
        for prefix in ["", "a b", "{x}", &"x".repeat(65)] {
            let prefix = prefix.to_owned();
            let config = Config {
                prefix,
                ..Config::default()
            };
            assert_eq!(config.check(), Err(ConfigError::Prefix));
        }
        let outbox_bytes = config.max_message * 2;
        let config = Config {
            outbox_bytes,
            ..config
        };
        assert_eq!(config.check(), Err(ConfigError::OutboxSmallerThanMessage));
    }
}
