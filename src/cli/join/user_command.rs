//! The commands of `hubbub join`: parses a typed line.

use crate::message::RoomName;
use crate::protocol::{Command, text};

/// The answer to `/help`.
pub(super) const HELP: [&str; 10] = [
    "what you type is said to everyone in the room",
    "/who          who is here",
    "/history 20   the last 20 lines",
    "/rooms te     the rooms whose names begin with te; /rooms: all",
    "/join ROOM    leave this room and enter another",
    "/times        show when others say something, or no longer",
    "/quit         leave; Ctrl-D does the same",
    "Ctrl-C        clears the line that is begun; without one, leaves at once",
    "/help         this text",
    "//text        says a line that begins with a slash: /text",
];

/// One parsed line of input.
#[derive(Debug, PartialEq)]
pub(super) enum UserCommand {
    /// Send a text.
    Say(String),
    /// A command that the server answers, such as `/who`.
    Other(Command),
    /// Leave this room and enter another.
    Join(RoomName),
    /// Show times, or no longer.
    Times,
    Quit,
    Help,
}

impl UserCommand {
    pub(super) fn parse(line: &str, room: &RoomName) -> Result<Self, String> {
        let words = line.strip_suffix('\r').unwrap_or(line).trim_end();
        let (word, argument) = words.split_once(' ').unwrap_or((words, ""));
        match (word, argument.trim()) {
            ("/join", "") => Err("/join takes a room, as in /join lobby".to_owned()),
            ("/join", name) => match name.parse() {
                Ok(room) => Ok(Self::Join(room)),
                Err(why) => Err(format!("that is no room's name: {why}")),
            },
            ("/times", "") => Ok(Self::Times),
            ("/quit", "") => Ok(Self::Quit),
            ("/times" | "/quit", _) => Err(format!("{word} takes no argument")),
            (word, _) if is_unknown(word) => Err(format!(
                "there is no {word}; there are /who, /history, /rooms, /join, /times, /quit and /help, and \
                 //text says a line that begins with a slash"
            )),
            _ => match text::parse(line, room) {
                Ok(Command::Send { text, .. }) => Ok(Self::Say(text)),
                Ok(Command::Help) => Ok(Self::Help),
                Ok(command) => Ok(Self::Other(command)),
                Err(rejection) => Err(rejection.message),
            },
        }
    }
}

fn is_unknown(word: &str) -> bool {
    let known = ["/who", "/history", "/rooms", "/help"];
    word.starts_with('/') && !word.starts_with("//") && !known.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_text_or_a_command() {
        let parse = |line: &str| UserCommand::parse(line, &RoomName::lobby());
        assert_eq!(parse("hello "), Ok(UserCommand::Say("hello ".to_owned())));
        assert_eq!(parse("//quit"), Ok(UserCommand::Say("/quit".to_owned())));
        assert_eq!(parse("/quit\r"), Ok(UserCommand::Quit));
        assert_eq!(parse("/times"), Ok(UserCommand::Times));
        assert_eq!(parse("/help"), Ok(UserCommand::Help));
        let den = "a den".parse().expect("a name");
        assert_eq!(parse("/join  a den "), Ok(UserCommand::Join(den)));
        assert!(matches!(parse("/history 3"), Ok(UserCommand::Other(_))));
        for bad in [
            "/join",
            "/join a/b",
            "/quit now",
            "/times on",
            "/exit",
            "/",
            "/history x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let why = parse("/exit").expect_err("no command");
        for command in [
            "/exit", "/who", "/history", "/rooms", "/join", "/quit", "/help", "//",
        ] {
            assert!(why.contains(command), "{why}");
        }
    }
}
