//! `hubbub serve`: its arguments, the signals, and the start line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command};
use nix::sys::signal::{SigSet, Signal};

use super::exit::Exit;
use super::log_format::{LogFormat, log_to_stderr, print_end, start_object};
use super::usage::Unusable;
use super::values::{address, allowed_origin, host_name, level, on_or_off, within};
use super::{LevelFilter, complain, unknown_variables};
use crate::backplane::{RedisAddress, Retention};
use crate::server::capacity::Capacity;
use crate::server::config::{Config, Deadlines, limit};
use crate::server::proxies::Network;
use crate::server::token::{KeyFile, Secret, TokenOptions};
use crate::server::webhook::Webhook;
use crate::server::{Server, StartError};
use crate::threads;

/// The exit code after a second Ctrl-C: 128 plus the number of SIGINT.
const INTERRUPTED: i32 = 130;

#[derive(Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ServeArgs {
    /// Check the options, print their values without secrets, and end
    #[arg(long)]
    check: bool,
    /// The address to listen on; port 0 means a free port
    #[arg(long, env = "HUBBUB_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// The Redis that instances share: redis://user:password@host:port/db, all but the host optional,
    /// redis+sentinel://host,host/name for the master of that name, redis+cluster://host:port,host:port
    /// for a cluster, or rediss in place of redis for TLS. Repeated (in the variable, with spaces
    /// between), the rooms are spread over all; without it this instance serves alone
    #[arg(long, env = "HUBBUB_REDIS", value_name = "URL", value_parser = RedisAddress::parse, value_delimiter = ' ', hide_env_values = true)]
    redis: Vec<RedisAddress>,
    /// The folder for all that is said, without Redis: it is on disk before it is acknowledged, and is there after a
    /// restart. Without it, messages are in memory and end with the process
    #[arg(long, env = "HUBBUB_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The prefix of all keys and channels in Redis
    #[arg(
        long,
        env = "HUBBUB_PREFIX",
        value_name = "TEXT",
        default_value = "hubbub"
    )]
    prefix: String,
    /// The longest time that a teardown takes, from 5 to 600
    #[arg(long, env = "HUBBUB_DRAIN", value_name = "SECONDS", default_value_t = limit::DRAIN.default, value_parser = within::<u64>(limit::DRAIN))]
    drain: u64,
    /// The level of the log on stderr: off, error, warn, info, debug or trace
    #[arg(
        long,
        env = "HUBBUB_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = level
    )]
    log_level: LevelFilter,
    /// The format of the log: lines of text, or a JSON object a line
    #[arg(
        long,
        env = "HUBBUB_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
    /// The largest message
    #[arg(long, env = "HUBBUB_MAX_MESSAGE", value_name = "BYTES", default_value_t = limit::MAX_MESSAGE.default as usize, value_parser = within::<usize>(limit::MAX_MESSAGE), help_heading = "Limits")]
    max_message: usize,
    /// The largest head of an HTTP request
    #[arg(long, env = "HUBBUB_MAX_HEAD", value_name = "BYTES", default_value_t = limit::MAX_HEAD.default as usize, value_parser = within::<usize>(limit::MAX_HEAD), help_heading = "Limits")]
    max_head: usize,
    /// The most that waits for a user who reads slowly; from half of it on, notices are dropped, and a
    /// connection that fills it is closed
    #[arg(long, env = "HUBBUB_OUTBOX_BYTES", value_name = "BYTES", default_value_t = limit::OUTBOX_BYTES.default as usize, value_parser = within::<usize>(limit::OUTBOX_BYTES), help_heading = "Limits")]
    outbox_bytes: usize,
    /// The threads that write messages to users [default: one for each core]
    #[arg(long, env = "HUBBUB_FANOUT_WORKERS", value_name = "COUNT", value_parser = within::<usize>(limit::FANOUT_WORKERS), help_heading = "Limits")]
    fanout_workers: Option<usize>,
    /// The most rooms that one connection may join
    #[arg(long, env = "HUBBUB_ROOMS_PER_CONNECTION", value_name = "COUNT", default_value_t = limit::ROOMS.default as usize, value_parser = within::<usize>(limit::ROOMS), help_heading = "Limits")]
    rooms_per_connection: usize,
    /// The most connections [default: as many as this machine can hold]
    #[arg(long, env = "HUBBUB_MAX_CONNECTIONS", value_name = "COUNT", value_parser = within::<usize>(limit::CONNECTIONS), help_heading = "Limits")]
    max_connections: Option<usize>,
    /// The most connections of one client's address (IPv6: of its /64), 0 for no limit [default: 256; no limit for
    /// loopback, for trusted proxies themselves, and without those for private addresses]
    #[arg(long, env = "HUBBUB_MAX_PER_ADDRESS", value_name = "COUNT", value_parser = within::<usize>(limit::MAX_PER_ADDRESS), help_heading = "Limits")]
    max_per_address: Option<usize>,
    /// The connections that one client's address may open per second, on average, and 20 times as many at once; further
    /// requests on one count as well; 0 for no limit [default: 50, and no limit as above]
    #[arg(long, env = "HUBBUB_CONNECT_RATE", value_name = "COUNT", value_parser = within::<u32>(limit::CONNECT_RATE), help_heading = "Limits")]
    connect_rate: Option<u32>,
    /// The messages and requests that a connection may send per second, on average; 0 for no limit
    #[arg(long, env = "HUBBUB_SEND_RATE", value_name = "COUNT", default_value_t = limit::SEND_RATE.default as u32, value_parser = within::<u32>(limit::SEND_RATE), help_heading = "Limits")]
    send_rate: u32,
    /// The messages and requests that a connection may send at once
    #[arg(long, env = "HUBBUB_SEND_BURST", value_name = "COUNT", default_value_t = limit::SEND_BURST.default as u32, value_parser = within::<u32>(limit::SEND_BURST), help_heading = "Limits")]
    send_burst: u32,
    /// The joins, and requests for history, members and rooms, that a connection may send per second, on average; 0 for
    /// no limit [default: 10; no limit with --send-rate 0]
    #[arg(long, env = "HUBBUB_COMMAND_RATE", value_name = "COUNT", value_parser = within::<u32>(limit::COMMAND_RATE), help_heading = "Limits")]
    command_rate: Option<u32>,
    /// The same at once [default: 64, or twice the rooms that a connection may join]
    #[arg(long, env = "HUBBUB_COMMAND_BURST", value_name = "COUNT", value_parser = within::<u32>(limit::COMMAND_BURST), help_heading = "Limits")]
    command_burst: Option<u32>,
    /// The time between two pings to a peer
    #[arg(long, env = "HUBBUB_PING_INTERVAL", value_name = "SECONDS", default_value_t = limit::PING_INTERVAL.default, value_parser = within::<u64>(limit::PING_INTERVAL), help_heading = "Deadlines")]
    ping_interval: u64,
    /// The time after a ping within which a peer has to send something; else it is given up
    #[arg(long, env = "HUBBUB_PONG_TIMEOUT", value_name = "SECONDS", default_value_t = limit::PONG_TIMEOUT.default, value_parser = within::<u64>(limit::PONG_TIMEOUT), help_heading = "Deadlines")]
    pong_timeout: u64,
    /// The time within which a user has to read the bytes of one write, however slowly they trickle
    #[arg(long, env = "HUBBUB_WRITE_TIMEOUT", value_name = "SECONDS", default_value_t = limit::WRITE_TIMEOUT.default, value_parser = within::<u64>(limit::WRITE_TIMEOUT), help_heading = "Deadlines")]
    write_timeout: u64,
    /// The time within which a peer has to answer a close frame
    #[arg(long, env = "HUBBUB_CLOSE_TIMEOUT", value_name = "SECONDS", default_value_t = limit::CLOSE_TIMEOUT.default, value_parser = within::<u64>(limit::CLOSE_TIMEOUT), help_heading = "Deadlines")]
    close_timeout: u64,
    /// The time within which a client has to send the head of its request
    #[arg(long, env = "HUBBUB_HEAD_TIMEOUT", value_name = "SECONDS", default_value_t = limit::HEAD_TIMEOUT.default, value_parser = within::<u64>(limit::HEAD_TIMEOUT), help_heading = "Deadlines")]
    head_timeout: u64,
    /// The server's certificate, and those that lead to its authority, in PEM: users come by https and wss then. Read
    /// again on SIGHUP
    #[arg(
        long,
        env = "HUBBUB_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(
        long,
        env = "HUBBUB_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Let in users with a token that is signed with this secret of 32 bytes or more; `hubbub token` makes tokens
    #[arg(long, env = "HUBBUB_TOKEN_SECRET", value_name = "SECRET", value_parser = Secret::new, hide_env_values = true, help_heading = "Who may come in")]
    token_secret: Option<Secret>,
    /// Let in users with a token (RS256, ES256 or EdDSA) that is signed by a public key in this file: PEM, or a JWKS.
    /// May be repeated
    #[arg(long, env = "HUBBUB_TOKEN_KEY", value_name = "FILE", value_parser = |path: &str| KeyFile::read(path).map_err(Unusable), value_delimiter = ',', help_heading = "Who may come in")]
    token_key: Vec<KeyFile>,
    /// The issuer (iss) that every token must have
    #[arg(
        long,
        env = "HUBBUB_TOKEN_ISSUER",
        value_name = "ISSUER",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Who may come in"
    )]
    token_issuer: Option<String>,
    /// The audience (aud) that every token must be for
    #[arg(
        long,
        env = "HUBBUB_TOKEN_AUDIENCE",
        value_name = "AUDIENCE",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Who may come in"
    )]
    token_audience: Option<String>,
    /// Whether users may list the rooms that they may enter: on or off
    #[arg(
        long,
        env = "HUBBUB_ROOM_LIST",
        value_name = "ON|OFF",
        default_value = "on",
        action = ArgAction::Set,
        value_parser = on_or_off,
        help_heading = "Who may come in"
    )]
    room_list: bool,
    /// Let operators in with this secret of 32 bytes or more: `hubbub admin` lists users, and puts them out
    #[arg(long, env = "HUBBUB_ADMIN_SECRET", value_name = "SECRET", value_parser = Secret::of_operators, hide_env_values = true, help_heading = "Who may come in")]
    admin_secret: Option<Secret>,
    /// Post what is said in this room to this URL, as `ops=https://service.example/path`; both percent-encoded. May be
    /// repeated (in the variable, with spaces between)
    #[arg(long, env = "HUBBUB_WEBHOOK", value_name = "ROOM=URL", value_parser = Webhook::parse, value_delimiter = ' ', hide_env_values = true)]
    webhook: Vec<Webhook>,
    /// Sign what is posted there with this secret of 32 bytes or more, in X-Hubbub-Signature-256
    #[arg(long, env = "HUBBUB_WEBHOOK_SECRET", value_name = "SECRET", value_parser = Secret::new, requires = "webhook", hide_env_values = true)]
    webhook_secret: Option<Secret>,
    /// An origin whose pages may connect, such as `https://chat.example`, besides this server's own; *
    /// for any. May be repeated
    #[arg(
        long,
        env = "HUBBUB_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_parser = allowed_origin,
        value_delimiter = ',',
        help_heading = "Who may come in"
    )]
    allow_origin: Vec<String>,
    /// The name of a host that requests may be for, such as `chat.example`; others are refused. May be repeated.
    /// Without it, a server that listens on loopback and needs no token takes loopback names only
    #[arg(
        long,
        env = "HUBBUB_HOST",
        value_name = "NAME",
        value_parser = host_name,
        value_delimiter = ',',
        help_heading = "Who may come in"
    )]
    host: Vec<String>,
    /// A proxy whose word about the client's address counts, in X-Forwarded-For, Forwarded or the PROXY protocol, such
    /// as 127.0.0.1 or 10.0.0.0/8. May be repeated
    #[arg(
        long,
        env = "HUBBUB_TRUSTED_PROXY",
        value_name = "ADDRESS[/LEN]",
        value_delimiter = ',',
        help_heading = "Who may come in"
    )]
    trusted_proxy: Vec<Network>,
    /// The most messages kept of a room
    #[arg(long, env = "HUBBUB_HISTORY_LENGTH", value_name = "COUNT", default_value_t = limit::HISTORY_LENGTH.default as usize, value_parser = within::<usize>(limit::HISTORY_LENGTH), help_heading = "Memory")]
    history_length: usize,
    /// The time for which a room without new messages keeps its log
    #[arg(long, env = "HUBBUB_HISTORY_TTL", value_name = "SECONDS", default_value_t = limit::HISTORY_TTL.default, value_parser = within::<u64>(limit::HISTORY_TTL), help_heading = "Memory")]
    history_ttl: u64,
    /// The most bytes kept of all rooms without Redis; beyond that the oldest messages are dropped
    #[arg(long, env = "HUBBUB_HISTORY_BYTES", value_name = "BYTES", default_value_t = limit::HISTORY_BYTES.default as usize, value_parser = within::<usize>(limit::HISTORY_BYTES), help_heading = "Memory")]
    history_bytes: usize,
    /// The time for which the users of a killed instance still appear present
    #[arg(long, env = "HUBBUB_PRESENCE_TTL", value_name = "SECONDS", default_value_t = limit::PRESENCE_TTL.default, value_parser = within::<u64>(limit::PRESENCE_TTL), help_heading = "Memory")]
    presence_ttl: u64,
    /// The time within which a user whose connection broke may return without a notice
    #[arg(long, env = "HUBBUB_PRESENCE_GRACE", value_name = "SECONDS", default_value_t = limit::PRESENCE_GRACE.default, value_parser = within::<u64>(limit::PRESENCE_GRACE), help_heading = "Memory")]
    presence_grace: u64,
}

impl ServeArgs {
    fn config(self) -> Config {
        Config {
            listen: self.listen,
            redis: self.redis,
            data: self.data,
            hosts: self.host,
            trusted_proxies: self.trusted_proxy,
            prefix: self.prefix,
            drain: Duration::from_secs(self.drain),
            max_message: self.max_message,
            outbox_bytes: self.outbox_bytes,
            fanout_workers: self.fanout_workers,
            ping_interval: Duration::from_secs(self.ping_interval),
            max_head: self.max_head,
            deadlines: Deadlines {
                head: Duration::from_secs(self.head_timeout),
                write: Duration::from_secs(self.write_timeout),
                pong: Duration::from_secs(self.pong_timeout),
                close: Duration::from_secs(self.close_timeout),
            },
            rooms_per_connection: self.rooms_per_connection,
            max_connections: self.max_connections,
            max_threads: None,
            max_per_address: self.max_per_address,
            connect_rate: self.connect_rate,
            send_rate: self.send_rate,
            send_burst: self.send_burst,
            tls: self.tls_cert.zip(self.tls_key),
            command_rate: self.command_rate,
            command_burst: self.command_burst,
            tokens: TokenOptions {
                secret: self.token_secret,
                keys: self.token_key,
                issuer: self.token_issuer,
                audience: self.token_audience,
            },
            room_list: self.room_list,
            admin_secret: self.admin_secret,
            webhooks: self.webhook,
            webhook_secret: self.webhook_secret,
            allow_origin: self.allow_origin,
            retention: Retention {
                history_length: self.history_length,
                history_ttl: Duration::from_secs(self.history_ttl),
                history_bytes: self.history_bytes,
                presence_ttl: Duration::from_secs(self.presence_ttl),
                presence_grace: Duration::from_secs(self.presence_grace),
            },
        }
    }
}

/// Serves, or checks the arguments. `given` tells the source of each.
pub(super) fn run(args: ServeArgs, given: &ArgMatches) -> Result<(), Exit> {
    if args.check {
        return check(args, given);
    }
    let format = args.log_format;
    serve(args).map_err(|exit| match format {
        LogFormat::Text => exit,
        LogFormat::Json => exit.told_by(print_end),
    })
}

fn serve(args: ServeArgs) -> Result<(), Exit> {
    let format = args.log_format;
    // The handler's thread starts before the mask is set. So that thread alone gets signals, and no
    // signal interrupts the reads of another.
    let (request_stop, stop) = crossbeam_channel::bounded(1);
    let asked_before = AtomicBool::new(false);
    let request_stop = Arc::new(move || {
        if asked_before.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
        let _ = request_stop.send(());
    });
    let on_hangup = Arc::clone(&request_stop);
    // Before the handler's thread starts, so that not even that one takes it.
    let mask = |signals: &[Signal]| {
        let masked = signals.iter().copied().collect::<SigSet>().thread_block();
        masked.map_err(|error| format!("cannot mask signals: {error}"))
    };
    mask(&[Signal::SIGHUP])?;
    ctrlc::set_handler(move || request_stop())
        .map_err(|error| format!("cannot handle signals: {error}"))?;
    // SIGXFSZ would end the process when a file may not become longer; the write fails instead.
    mask(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGXFSZ])?;

    log_to_stderr(args.log_level, format);
    for warning in unknown_variables(&options()) {
        log::warn!("{warning}");
    }
    let server = Server::bind(args.config()).map_err(|error| match error {
        StartError::Config(why) => Exit::Usage(why.to_string()),
        why => Exit::Failed(why.to_string()),
    })?;
    let read_files = server.files_reader();
    threads::spawn_vital("hangup", move || {
        let hangup = SigSet::from(Signal::SIGHUP);
        while hangup.wait().is_ok() {
            match &read_files {
                Some(read_files) => read_files(),
                None => on_hangup(),
            }
        }
    })
    .map_err(|error| format!("cannot start a thread: {error}"))?;
    announce(&server, format);
    Ok(server
        .run(&stop)
        .map_err(|error| format!("cannot serve: {error}"))?)
}

/// The options of a server.
fn options() -> Command {
    ServeArgs::augment_args(Command::new("serve"))
}

/// Prints each option with its value and the source of it.
fn check(args: ServeArgs, given: &ArgMatches) -> Result<(), Exit> {
    let options = options();
    unknown_variables(&options).into_iter().for_each(complain);
    let config = args.config();
    let checked = config.check();
    checked.map_err(|why| Exit::Usage(why.to_string()))?;
    config.identity().map_err(|error| error.to_string())?;
    let mut text = String::new();
    for argument in options.get_arguments() {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let id = argument.get_id().as_str();
        let value = match (id, given.get_raw(id)) {
            (_, None) => "(not set)".to_owned(),
            ("redis", Some(_)) => {
                let redis: Vec<_> = config.redis.iter().map(ToString::to_string).collect();
                redis.join(" and ")
            }
            ("webhook", Some(_)) => {
                let webhooks: Vec<_> = config.webhooks.iter().map(ToString::to_string).collect();
                webhooks.join(" and ")
            }
            (_, Some(_)) if argument.is_hide_env_values_set() => "(hidden)".to_owned(),
            (_, Some(values)) => {
                let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
                values.join(",")
            }
        };
        let source = match given.value_source(id) {
            Some(ValueSource::CommandLine) => "from the command line".to_owned(),
            Some(ValueSource::EnvVariable) => format!("from {}", variable.to_string_lossy()),
            _ => "the default".to_owned(),
        };
        let flag = format!("--{flag}");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{flag:24} {value:24} {source}");
    }
    let Capacity {
        connections,
        bound_by,
        ..
    } = Capacity::of_this_machine(&config);
    let _ = writeln!(
        text,
        "The options are valid. Room for {connections} connections, bounded by {bound_by}. \
         Nothing was connected to."
    );
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Prints the start line on stdout. Scripts wait for it and read the address from it.
fn announce(server: &Server, format: LogFormat) {
    let (url, here, runs_on) = (server.url(), server.url_here(), server.runs_on());
    let messages = format!("{here}/api/rooms/lobby/messages");
    let next = match server.needs_tokens() {
        false => format!("open {here}, or: curl -d hello '{messages}?user=me'"),
        true => format!(
            "with a token, open {here}/#token=TOKEN, or: \
             curl -H 'Authorization: Bearer TOKEN' -d hello '{messages}'"
        ),
    };
    let line = format!("listening on {url} with {runs_on}; {next}");
    let line = match format {
        LogFormat::Text => line + "\n",
        LogFormat::Json => start_object(line, &url),
    };
    let _ = io::stdout().write_all(line.as_bytes());
}
