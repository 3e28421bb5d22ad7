//! `hubbub say`: sends one message. The exit code says whether the server stored it.

use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;

use super::exit::{Exit, exit_code};
use super::timed_client::TimedClient;
use super::{ConnectArgs, LONGEST_TEXT, UserName};
use crate::client::{NOT_CONFIRMED, NOT_SENT};
use crate::protocol::Event;

#[derive(Args)]
pub(super) struct SayArgs {
    /// Your name
    name: UserName,
    /// The text; without it, all of stdin
    text: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The time after which the command gives up
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

pub(super) fn run(args: &SayArgs) -> Result<ExitCode, String> {
    exit_code(say(args))
}

fn say(args: &SayArgs) -> Result<(), Exit> {
    let text = if args.text.is_empty() {
        read_text()?
    } else {
        args.text.join(" ")
    };
    if text.is_empty() {
        return Err(Exit::Failed("there is nothing to say".to_owned()));
    }
    let client = args.connect.start(&args.name)?;
    client.join(args.connect.room.clone(), None, None);
    let mine = client.send(args.connect.room.clone(), text);
    let mut client = TimedClient::new(client, Some(args.timeout));
    let mut outcome = NOT_SENT;
    loop {
        let event = match client.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => return Err(client.timed_out(outcome)),
            // Refused for good, perhaps on another connection than the one that took the text.
            Err(Exit::Failed(why)) => return Err(Exit::Failed(format!("{outcome}: {why}"))),
            Err(exit) => return Err(exit),
        };
        match event {
            // The client sends the text as soon as it is in the room.
            Event::Room { .. } => outcome = NOT_CONFIRMED,
            Event::Sent { reference, .. } if reference.as_ref() == Some(&mine) => return Ok(()),
            Event::Error {
                message, reference, ..
            } if reference.as_ref() == Some(&mine) => return Err(Exit::Failed(message)),
            // If the join fails, a second error, with the ref, follows the first.
            _ => {}
        }
    }
}

/// Reads all of stdin as one text.
fn read_text() -> Result<String, Exit> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(LONGEST_TEXT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Exit::Failed(format!("cannot read stdin: {error}")))?;
    if bytes.len() as u64 > LONGEST_TEXT {
        let why = format!("not sent: the text is longer than {LONGEST_TEXT} bytes");
        return Err(Exit::Failed(why));
    }
    let mut text = String::from_utf8(bytes)
        .map_err(|_| Exit::Failed("not sent: the text is not UTF-8".to_owned()))?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
