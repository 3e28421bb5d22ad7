//! `hubbub say`: one thing is said, and the exit code tells whether it was stored.

use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;

use super::talk::{LONGEST_TEXT, Patience, Printed, Stop, outcome, start};
use super::{UserName, Where};
use crate::protocol::Event;

#[derive(Args)]
pub(super) struct Options {
    /// Your name
    name: UserName,
    /// What to say; without it, all of stdin
    text: Vec<String>,
    #[command(flatten)]
    at: Where,
    /// How long to try
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

pub(super) fn run(options: &Options) -> Result<ExitCode, String> {
    outcome(try_say(options))
}

fn try_say(options: &Options) -> Printed {
    let text = if options.text.is_empty() {
        read_text()?
    } else {
        options.text.join(" ")
    };
    if text.is_empty() {
        return Err(Stop::Failed("there is nothing to say".to_owned()));
    }
    let client = start(&options.at, &options.name)?;
    let mut patience = Patience::new(Some(options.timeout));
    client.join(options.at.room.clone(), None, None);
    let mine = client.send(options.at.room.clone(), text);
    let mut outcome = "not sent";
    while let Some(event) = patience.next(&client)? {
        match event {
            // As soon as the room is entered, the server is given the text.
            Event::Room { .. } => outcome = "not confirmed: it may have been sent or not",
            Event::Sent { reference, .. } if reference.as_ref() == Some(&mine) => return Ok(()),
            Event::Error {
                message, reference, ..
            } if reference.as_ref() == Some(&mine) => return Err(Stop::Failed(message)),
            // A room that cannot be entered is told of again, with the ref; all else is about
            // something else.
            _ => {}
        }
    }
    Err(patience.up(client, outcome))
}

/// All of stdin, as one text.
fn read_text() -> Result<String, Stop> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(LONGEST_TEXT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Stop::Failed(format!("cannot read stdin: {error}")))?;
    if bytes.len() as u64 > LONGEST_TEXT {
        let why = format!("not sent: the text is longer than {LONGEST_TEXT} bytes");
        return Err(Stop::Failed(why));
    }
    let mut text = String::from_utf8(bytes)
        .map_err(|_| Stop::Failed("not sent: the text is not UTF-8".to_owned()))?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
