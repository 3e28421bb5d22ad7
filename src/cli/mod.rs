//! The command line: parses the arguments, runs a command, and turns an error into one line on stderr and
//! an exit code.
//!
//! Each command has a module, which begins with its arguments: `serve`, `join`, `say`, `tail`, `ready`,
//! `token`, `admin`, `archive` (`export` and `import`). Three are clients: `join`, `say` and `tail` share [`ConnectArgs`] and `exit`. `say` and `tail`
//! have a deadline: `timed_client`. `join` has a `screen`: a terminal, or a pipe.
//!
//! Exit codes: 0 done, 1 an error (also a wrong flag or value), 101 a panic, which is a bug (in the
//! main thread, or in a vital thread of `hubbub serve`: `threads`), 130 a second
//! Ctrl-C, and in `hubbub join` the first.

mod exit;
mod timed_client;
mod screen;
mod serve;
mod join;
mod say;
mod tail;
mod ready;
mod token;
mod archive;
mod admin;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use log::LevelFilter;

use self::exit::Exit;
use crate::client::{Client, ClientOptions, ClientToken, ServerUrl};
use crate::message::{DEFAULT_ROOM, RoomName, UserName};
use crate::server::config::limit;

/// The longest text that is read from a user, in bytes: no server accepts a longer one.
const LONGEST_TEXT: u64 = *limit::MAX_MESSAGE.range.end();

/// A chat server in one small binary: WebSocket outside, Redis between instances.
#[derive(Parser)]
#[command(
    name = "hubbub",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    next_line_help = true,
    after_help = "Without a command, hubbub serves. Exit codes: 0 done, 1 an error, \
                  101 a bug, 130 a second Ctrl-C during the teardown."
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
    /// Exit 0 if a server can take users now, for health checks
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
    /// Starts a client of this user.
    fn start(&self, user: &UserName) -> Result<Client, Exit> {
        let options = ClientOptions {
            servers: self.url.clone(),
            user: user.clone(),
            token: self
                .token
                .clone()
                .map(ClientToken::Text)
                .or_else(|| self.token_file.clone().map(ClientToken::File)),
            ca: self.ca.clone(),
        };
        Client::start_with(options)
            .map_err(|error| Exit::Failed(format!("cannot start a thread: {error}")))
    }
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|given| {
        let cli = Cli::from_arg_matches(&given)?;
        Ok((cli, given))
    });
    let (cli, given) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return explain(&error),
    };
    // The sources of the command's arguments, for `hubbub serve --check`.
    let given = given.subcommand().map_or(&given, |(_, given)| given);
    let outcome = match cli.command {
        None => done(serve::run(cli.serve, given)),
        Some(Commands::Serve(args)) => done(serve::run(*args, given)),
        Some(Commands::Join(args)) => join::run(args),
        Some(Commands::Say(args)) => say::run(&args),
        Some(Commands::Tail(args)) => tail::run(&args),
        Some(Commands::Ready(args)) => done(ready::run(&args)),
        Some(Commands::Token(args)) => done(token::run(args)),
        Some(Commands::Admin(args)) => done(admin::run(&args)),
        Some(Commands::Export(args)) => done(archive::export(&args)),
        Some(Commands::Import(args)) => done(archive::import(&args)),
    };
    outcome.unwrap_or_else(fail)
}

fn done(outcome: Result<(), String>) -> Result<ExitCode, String> {
    outcome.map(|()| ExitCode::SUCCESS)
}

fn fail(error: impl Display) -> ExitCode {
    complain(format_args!("hubbub: {error}"));
    ExitCode::FAILURE
}

/// Prints one line on stderr. A failure is ignored, since there is no other place to report it.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How the flags begin whose values hold passwords. An error does not repeat them: it may end up in a log.
const SECRETS: [&str; 5] = ["--redis", "--token", "--admin", "--secret", "--webhook"];

/// Prints clap's error as one line. Help and version are printed as they are.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = write!(io::stdout(), "{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let paragraph: Vec<_> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let sentence = paragraph.join(" ");
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
    let mut sentence = sentence.to_owned();
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (flag, value) = (
        context(ContextKind::InvalidArg),
        context(ContextKind::InvalidValue),
    );
    if SECRETS.iter().any(|secret| flag.starts_with(secret)) {
        sentence = sentence.replace(&format!("'{value}' "), "");
    }
    fail(format_args!("{sentence} (hubbub --help tells more)"))
}
