//! The command line: parses the arguments, runs a command, and turns an error into one line on stderr and
//! an exit code.
//!
//! Each command has a module, which begins with its arguments: `serve`, `join`, `say`, `tail`, `ready`, `token`,
//! `admin`, `archive` (`export` and `import`). All end by `exit`. `usage` tells what is wrong with the arguments,
//! `values` what an option's value has to be, and `environment` which variables are unknown. Three are clients: `join`,
//! `say` and `tail` share [`ConnectArgs`]. `tail` has a deadline: `timed_client`. `join` has a `screen`: a terminal, or
//! a pipe. `times` shows when a message was said.
//!
//! Exit codes: 0 done, 1 an error, 2 wrong arguments, 101 a panic, which is a bug (in the
//! main thread, or in a vital thread of `hubbub serve`: `threads`), 130 a second
//! Ctrl-C, and in `hubbub join` one with nothing typed.

mod exit;
mod environment;
mod usage;
mod values;
mod times;
mod timed_client;
mod screen;
mod log_format;
mod serve;
mod join;
mod say;
mod tail;
mod ready;
mod token;
mod archive;
mod admin;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand,
};
use log::LevelFilter;

use self::exit::Exit;
use crate::client::{Client, ClientOptions, ClientToken, ServerUrl};
use crate::message::{DEFAULT_ROOM, RoomName, UserName};
use crate::server::config::limit;

/// The longest text that is read from a user, in bytes: no server accepts a longer one.
const LONGEST_TEXT: u64 = *limit::MAX_MESSAGE.range.end();

/// The version that `--version` prints. `scripts/release.sh` puts the commit behind it, by this variable of the build.
const VERSION: &str = match option_env!("HUBBUB_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// A chat server in one small binary: WebSocket outside, Redis between instances.
#[derive(Parser)]
#[command(
    name = "hubbub",
    version = VERSION,
    args_conflicts_with_subcommands = true,
    disable_version_flag = true,
    next_line_help = true,
    after_help = "Without a command, hubbub serves. Exit codes: 0 done, 1 an error, \
                  2 wrong arguments, 101 a bug, 130 a second Ctrl-C during the teardown."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Commands>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Subcommand)]
enum Commands {
    /// Serve chat (also the default without a command)
    Serve(Box<serve::ServeArgs>),
    /// Chat from a terminal or a pipe: send the lines of stdin, print the messages of a room
    #[command(after_help = join::ABOUT)]
    Join(join::JoinArgs),
    /// Say one thing; exits 0 only once the server has stored it
    Say(say::SayArgs),
    /// Print what is said in a room, each message once, also through restarts
    Tail(tail::TailArgs),
    /// Exit 0 once a server can take users, for health checks and scripts
    Ready(ready::ReadyArgs),
    /// Make a token for a server that demands one
    Token(token::TokenArgs),
    /// See who is on a server, and put somebody out
    Admin(admin::AdminArgs),
    /// Print all messages of all rooms, as lines of JSON
    Export(archive::ExportArgs),
    /// Put the messages of an export, from stdin, into a folder or a Redis
    Import(archive::ImportArgs),
}

/// The server and the room of a client.
#[derive(Args)]
struct ConnectArgs {
    /// The server, or several separated by commas, which are tried in turn
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = ServerUrl::parse, value_delimiter = ',')]
    url: Vec<ServerUrl>,
    /// A token of `hubbub token`, for a server that demands one
    #[arg(
        long,
        env = "HUBBUB_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// A file with the token, for one that is written anew before it expires
    #[arg(
        long,
        env = "HUBBUB_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token"
    )]
    token_file: Option<PathBuf>,
    /// A file with the authorities to trust for https, in PEM, instead of those of the system
    #[arg(long, env = "HUBBUB_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The room
    #[arg(long, env = "HUBBUB_ROOM", value_name = "ROOM", default_value = DEFAULT_ROOM)]
    room: RoomName,
}

impl ConnectArgs {
    fn token(&self) -> Option<ClientToken> {
        let text = self.token.clone().map(ClientToken::Text);
        text.or_else(|| self.token_file.clone().map(ClientToken::File))
    }

    /// The options of a client of this user.
    fn options(&self, user: &UserName) -> ClientOptions {
        ClientOptions {
            servers: self.url.clone(),
            user: user.clone(),
            token: self.token(),
            ca: self.ca.clone(),
        }
    }

    /// Starts a client of this user.
    fn start(&self, user: &UserName) -> Result<Client, Exit> {
        Client::start_with(self.options(user))
            .map_err(|error| Exit::Failed(format!("cannot start a thread: {error}")))
    }
}

/// The command line, with all its options: what its manual pages and completions are made from (`src/manual.rs`).
pub fn command() -> clap::Command {
    let version = Arg::new("version").short('V').visible_short_alias('v');
    let version = version.long("version").action(ArgAction::Version);
    Cli::command().arg(version.help("Print the version"))
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let outcome = parse().and_then(|(cli, given)| dispatch(cli, &given));
    outcome.map_or_else(Exit::report, |()| ExitCode::SUCCESS)
}

/// Parses the arguments.
fn parse() -> Result<(Cli, ArgMatches), Exit> {
    let command = environment::without_empty(usage::with_negative_numbers(command()));
    let parsed = command.try_get_matches().and_then(|given| {
        let cli = Cli::from_arg_matches(&given)?;
        Ok((cli, given))
    });
    let is_server = matches!(
        parsed,
        Ok((
            Cli {
                command: None | Some(Commands::Serve(_)),
                ..
            },
            _
        ))
    );
    // A server tells it in its log.
    if !is_server {
        unknown_variables(&Cli::command())
            .into_iter()
            .for_each(complain);
    }
    parsed.map_err(|error| usage::explain(&error, &Cli::command()))
}

/// A sentence for each variable of the environment that looks like an option's, and is none. It may suggest one of
/// `own`, the command that runs.
fn unknown_variables(own: &Command) -> BTreeSet<String> {
    environment::unknown(&Cli::command(), own)
}

fn dispatch(cli: Cli, given: &ArgMatches) -> Result<(), Exit> {
    // The sources of the command's arguments, for `hubbub serve --check`.
    let given = given.subcommand().map_or(given, |(_, given)| given);
    match cli.command {
        None => serve::run(cli.serve, given),
        Some(Commands::Serve(args)) => serve::run(*args, given),
        Some(Commands::Join(args)) => join::run(args),
        Some(Commands::Say(args)) => say::run(&args),
        Some(Commands::Tail(args)) => tail::run(&args),
        Some(Commands::Ready(args)) => Ok(ready::run(&args)?),
        Some(Commands::Token(args)) => Ok(token::run(args)?),
        Some(Commands::Admin(args)) => admin::run(&args),
        Some(Commands::Export(args)) => archive::export(&args),
        Some(Commands::Import(args)) => archive::import(&args),
    }
}

/// Prints one line on stderr. A failure is ignored, since there is no other place to report it.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
