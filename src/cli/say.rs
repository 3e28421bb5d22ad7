//! `hubbub say`: one thing is said, and the exit code tells whether it was stored.

use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;

use super::talk::{Patience, Printed, Stop, outcome, start};
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
    let mut text = options.text.join(" ");
    if options.text.is_empty() {
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Stop::Failed(format!("cannot read stdin: {error}")))?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    if text.is_empty() {
        return Err(Stop::Failed("there is nothing to say".to_owned()));
    }
    let client = start(&options.at, &options.name)?;
    let mut patience = Patience::new(Some(options.timeout));
    client.join(options.at.room.clone(), None, None);
    let mine = client.send(options.at.room.clone(), text);
    while let Some(event) = patience.next(&client)? {
        match event {
            Event::Sent { reference, .. } if reference.as_ref() == Some(&mine) => return Ok(()),
            Event::Error { message, .. } => return Err(Stop::Failed(message)),
            _ => {}
        }
    }
    Err(patience.up(client, "not sent"))
}
