//! `hubbub tail`: prints the messages of a room.

use std::io::{self, Write};

use clap::Args;

use super::exit::Exit;
use super::timed_client::TimedClient;
use super::{ConnectArgs, UserName, complain, times};
use crate::client::ClientToken;
use crate::message::MessageId;
use crate::protocol::Event;
use crate::protocol::text::{self, Line, STARTED_ANEW};
use crate::server::token;

#[derive(Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The user name under which the command is in the room [default: the token's, or else tail]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<UserName>,
    /// End after this number of messages
    #[arg(long, value_name = "COUNT")]
    count: Option<usize>,
    /// Begin after this message
    #[arg(long, value_name = "ID", conflicts_with = "history")]
    since: Option<MessageId>,
    /// The number of past messages to print first
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: usize,
    /// End after this time, with an error if --count was not reached
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print the time of each message before it, in UTC, as 2026-11-29T14:05:09.123Z
    #[arg(long)]
    times: bool,
}

pub(super) fn run(args: &TailArgs) -> Result<(), Exit> {
    if args.count == Some(0) {
        return Ok(());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name(&args.connect)?,
    };
    let client = args.connect.start(&name)?;
    let history = (args.history > 0).then_some(args.history);
    client.join(args.connect.room.clone(), args.since, history);
    let mut client = TimedClient::new(client, args.timeout)?;
    let outcome = print(args, &mut client);
    client.close();
    outcome
}

/// The user of the token: the server refuses any other.
fn default_name(connect: &ConnectArgs) -> Result<UserName, Exit> {
    let token = connect
        .token()
        .as_ref()
        .map(ClientToken::read)
        .transpose()?;
    let user = token.and_then(|token| token::claimed_user(&token));
    Ok(user.unwrap_or_else(|| "tail".parse().expect("a name")))
}

fn print(args: &TailArgs, client: &mut TimedClient) -> Result<(), Exit> {
    let mut printed = 0;
    let mut print_message = |event: &Event| {
        print_lines(&text::lines(event), args.times)?;
        printed += 1;
        if args.count == Some(printed) {
            return Err(Exit::Done);
        }
        Ok(())
    };
    while let Some(event) = client.next_event()? {
        match event {
            Event::Room {
                room,
                messages,
                anew,
                ..
            } => {
                complain(format_args!("* listening to {room}"));
                if anew {
                    print_lines(&[Line::Notice(STARTED_ANEW.to_owned())], false)?;
                }
                for message in messages {
                    print_message(&Event::Message {
                        room: room.clone(),
                        message,
                        looks_like: None,
                        via: None,
                    })?;
                }
            }
            message @ Event::Message { .. } => print_message(&message)?,
            told @ (Event::Gap { .. } | Event::Deleted { .. }) => {
                print_lines(&text::lines(&told), false)?;
            }
            // The join is the only command, so the error answers it.
            Event::Error { message, .. } => return Err(Exit::Failed(message)),
            Event::Parted {
                reason: Some(why), ..
            } => return Err(Exit::Failed(why)),
            _ => {}
        }
    }
    match args.count {
        Some(_) => Err(client.timed_out("--count was not reached")),
        None => Ok(()),
    }
}

fn print_lines(lines: &[Line], with_times: bool) -> Result<(), Exit> {
    let time = |line: &Line| match line {
        Line::Said { at: Some(at), .. } if with_times => format!("{} ", times::timestamp(*at)),
        Line::Said { .. } | Line::Notice(_) | Line::Error(_) => String::new(),
    };
    let lines: String = lines
        .iter()
        .map(|line| format!("{}{line}\n", time(line)))
        .collect();
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}
