//! `hubbub tail`: prints what is said in a room.

use std::process::ExitCode;

use clap::Args;

use super::talk::{Patience, Printed, Stop, outcome, print_lines, start};
use super::{MessageId, RoomName, UserName, Where, complain};
use crate::message::Message;
use crate::protocol::Event;
use crate::protocol::text::{self, Line, STARTED_ANEW};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    at: Where,
    /// The name to be seen under
    #[arg(long = "as", value_name = "NAME", default_value = "tail")]
    name: UserName,
    /// End after so many messages
    #[arg(long, value_name = "COUNT")]
    count: Option<usize>,
    /// Begin after this message
    #[arg(long, value_name = "ID", conflicts_with = "history")]
    since: Option<MessageId>,
    /// How many past messages to print first
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: usize,
    /// End after this time, with an error if --count was not reached
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

pub(super) fn run(options: &Options) -> Result<ExitCode, String> {
    outcome(try_tail(options))
}

fn try_tail(options: &Options) -> Printed {
    if options.count == Some(0) {
        return Ok(());
    }
    let client = start(&options.at, &options.name)?;
    let mut patience = Patience::new(options.timeout);
    let history = (options.history > 0).then_some(options.history);
    client.join(options.at.room.clone(), options.since, history);
    let mut seen = 0;
    let enough = |seen: usize| options.count.is_some_and(|count| seen >= count);
    let mut heard = |room: &RoomName, message: Message| -> Printed {
        if !enough(seen) {
            seen += 1;
            print_lines(&text::lines(&Event::Message {
                room: room.clone(),
                message,
                via: None,
            }))?;
        }
        if enough(seen) {
            Err(Stop::Enough)
        } else {
            Ok(())
        }
    };
    while let Some(event) = patience.next(&client)? {
        match event {
            Event::Room {
                room,
                messages,
                anew,
                ..
            } => {
                complain(format_args!("* listening to {room}"));
                if anew {
                    print_lines(&[Line::Notice(STARTED_ANEW.to_owned())])?;
                }
                for message in messages {
                    heard(&room, message)?;
                }
            }
            Event::Message { room, message, .. } => heard(&room, message)?,
            gap @ Event::Gap { .. } => print_lines(&text::lines(&gap))?,
            // All that is asked for is the room.
            Event::Error { message, .. } => return Err(Stop::Failed(message)),
            _ => {}
        }
    }
    match options.count {
        Some(_) => Err(patience.up(client, "--count was not reached")),
        None => Ok(()),
    }
}
