//! `hubbub say`: sends one message. The exit code says whether the server stored it.

use std::io::{self, Read};
use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::{ConnectArgs, LONGEST_TEXT, UserName};

#[derive(Args)]
pub(super) struct SayArgs {
    /// Your name
    name: UserName,
    /// The text; without it, or with - in its place, all of stdin, without the line breaks at its end
    text: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The time after which the command gives up
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

pub(super) fn run(args: &SayArgs) -> Result<(), Exit> {
    let words: Vec<_> = args.text.iter().map(String::as_str).collect();
    let text = match words[..] {
        [] | ["-"] => read_text()?,
        _ => words.join(" "),
    };
    if text.is_empty() {
        return Err(Exit::Failed("not sent: there is nothing to say".to_owned()));
    }
    let ConnectArgs { room, .. } = &args.connect;
    let within = Duration::from_secs(args.timeout);
    Ok(args.connect.options(&args.name).post(room, &text, within)?)
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
