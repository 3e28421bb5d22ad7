//! The command line: parse, dispatch, and turn an error into one line on stderr and an exit code.
//!
//! Exit codes: 0 done, 1 an error (also a wrong flag or value), 101 a panic, which is a bug (in the
//! main thread, or in a thread of `hubbub serve` that cannot be replaced: `vital`), 130 a second
//! Ctrl-C, and in `hubbub join` the first.

mod talk;
mod typed_line;
mod echoes;
mod screen;
mod serve;
mod join;
mod say;
mod tail;
mod ready;
mod token;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use log::LevelFilter;

use crate::client::ServerUrl;
use crate::message::{DEFAULT_ROOM, MessageId, RoomName, UserName};

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
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Serve chat (also the default without a command)
    Serve(Box<serve::Options>),
    /// Chat from a terminal or a pipe: lines on stdin are said, lines heard are printed
    #[command(after_help = join::ABOUT)]
    Join(join::Options),
    /// Say one thing; exits 0 only once the server has stored it
    Say(say::Options),
    /// Print what is said in a room, each message once, also through restarts
    Tail(tail::Options),
    /// Exit 0 if a server can take users now, for health checks
    Ready(ready::Options),
    /// Make a token for a server that lets in only who has one
    Token(token::Options),
}

/// Where a client connects to.
#[derive(Args)]
struct Where {
    /// The server; of several, separated by commas, the next is tried when one is away
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = ServerUrl::parse, value_delimiter = ',')]
    url: Vec<ServerUrl>,
    /// What `hubbub token` printed, for a server that wants one
    #[arg(
        long,
        env = "HUBBUB_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// The room
    #[arg(long, env = "HUBBUB_ROOM", value_name = "ROOM", default_value = DEFAULT_ROOM)]
    room: RoomName,
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let parsed = Line::command().try_get_matches().and_then(|given| {
        let line = Line::from_arg_matches(&given)?;
        Ok((line, given))
    });
    let (line, given) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return explain(&error),
    };
    // Where the options of the command, if there is one, come from.
    let given = given.subcommand().map_or(&given, |(_, given)| given);
    let outcome = match line.command {
        None => done(serve::run(line.serve, given)),
        Some(Command::Serve(options)) => done(serve::run(*options, given)),
        Some(Command::Join(options)) => join::run(options),
        Some(Command::Say(options)) => say::run(&options),
        Some(Command::Tail(options)) => tail::run(&options),
        Some(Command::Ready(options)) => done(ready::run(&options)),
        Some(Command::Token(options)) => done(token::run(options)),
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

/// One line on stderr. Where that cannot be written to, there is nobody to tell.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// clap's error as one line; its help and version as they are.
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
    fail(format_args!("{sentence} (hubbub --help tells more)"))
}
