//! What is wrong with the arguments, in one sentence that names the option, its value, and what is allowed.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::num::{IntErrorKind, ParseIntError};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::exit::Exit;

/// The beginnings of the flags whose values hold passwords. An error does not repeat those: it may end up in a log.
const SECRETS: [&str; 5] = ["--redis", "--token", "--admin", "--secret", "--webhook"];

/// A value that is well formed, and names a file or a host that cannot be used now. The operator acts next. It is no
/// wrong usage: a supervisor may try again.
#[derive(Debug)]
pub(super) struct Unusable(pub(super) String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unusable {}

/// Lets -1 be a value: then the error tells which numbers are allowed, and `hubbub say` can say it.
pub(super) fn with_negative_numbers(command: Command) -> Command {
    let allow = |arg: Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    let command = command.mut_args(allow);
    command.mut_subcommands(with_negative_numbers)
}

/// Turns clap's error into the end of the command. Prints help and version as they are.
pub(super) fn explain(error: &clap::Error, command: &Command) -> Exit {
    if !error.use_stderr() {
        let _ = write!(io::stdout(), "{error}");
        return Exit::Done;
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        Some(ContextValue::Strings(texts)) => texts.first().map_or("", String::as_str),
        _ => "",
    };
    let argument = context(ContextKind::InvalidArg);
    let value = match context(ContextKind::InvalidValue) {
        _ if SECRETS.iter().any(|secret| argument.starts_with(secret)) => String::new(),
        value => format!(" '{value}'"),
    };
    let mut sentence = match (error.kind(), error.source()) {
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand, _) => {
            "a command is missing".to_owned()
        }
        (_, Some(why)) => format!("invalid value{value} for '{argument}': {}", allowed(why)),
        (_, None) => first_paragraph(&error.to_string()),
    };
    if let Some(variable) = source_of(argument, command) {
        sentence = sentence.replace(
            &format!("'{argument}'"),
            &format!("'{argument}', from {variable}"),
        );
    }
    let similar = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
    ];
    if let Some(similar) = similar
        .map(context)
        .into_iter()
        .find(|similar| !similar.is_empty())
    {
        sentence += &format!("; did you mean {similar}?");
    }
    if error.source().is_some_and(<dyn Error>::is::<Unusable>) {
        return Exit::Failed(sentence);
    }
    let subcommand = std::env::args_os().nth(1);
    let subcommand = subcommand.and_then(|name| command.find_subcommand(name));
    let subcommand = subcommand.map_or(String::new(), |found| format!(" {}", found.get_name()));
    Exit::Usage(format!("{sentence} (hubbub{subcommand} --help tells more)"))
}

/// The reason why a value is refused, as a sentence about what it has to be.
fn allowed(why: &(dyn Error + 'static)) -> String {
    match why.downcast_ref().map(ParseIntError::kind) {
        Some(IntErrorKind::PosOverflow) => "it is too large".to_owned(),
        Some(_) => "it has to be a whole number, 0 or more".to_owned(),
        None => why.to_string(),
    }
}

fn first_paragraph(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.is_empty());
    let paragraph = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    paragraph
        .strip_prefix("error: ")
        .unwrap_or(&paragraph)
        .to_owned()
}

/// The variable that an option's value comes from, if it does not stand on the command line.
fn source_of(argument: &str, command: &Command) -> Option<String> {
    let flag = argument.split(' ').next()?;
    let is_it = |given: String| given.split('=').next() == Some(flag);
    if std::env::args_os().any(|given| is_it(given.to_string_lossy().into_owned())) {
        return None;
    }
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let mut arguments = commands.flat_map(Command::get_arguments);
    let found = arguments.find(|one| {
        one.get_long()
            .is_some_and(|long| flag == format!("--{long}"))
    })?;
    let variable = found
        .get_env()
        .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))?;
    Some(variable.to_string_lossy().into_owned())
}
