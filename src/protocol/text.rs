//! The text encoding: lines for people and for shell scripts, one room per connection.
//!
//! A frame is one line. A message of several lines becomes as many, each under its author's name,
//! so that nobody can put words into another's mouth, and what would drive a terminal (escape
//! sequences, and all that [`disturbs_a_line`]) is shown as U+FFFD. The JSON encoding has the text
//! as it was said.

use std::fmt;

use super::{Command, Cursor, ErrorCode, Event, Rejection};
use crate::message::{Message, RoomName, UserName, disturbs_a_line};

/// More users than this are counted, not named.
const NAMED_MEMBERS: usize = 50;

/// More lines of one message than this are counted: each costs its author's name, and a message of
/// line breaks alone must not fill everyone's outbox.
const SHOWN_LINES: usize = 100;

/// How many past lines `/history` alone asks for.
const HISTORY_LINES: usize = 20;

/// What is told of an [`Event::Room`] whose log began anew.
pub const STARTED_ANEW: &str = "the server started anew; earlier messages are gone";

const HELP: [&str; 5] = [
    "what you type is said to everyone in the room",
    "/who          who is here",
    "/history 20   the last 20 lines",
    "/help         this text",
    "//text        says a line that begins with a slash: /text",
];

/// One line, in its parts, so that a terminal can give each part a colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// What somebody said.
    Said {
        /// Who.
        from: UserName,
        /// One line, in which nothing disturbs a terminal.
        text: String,
    },
    /// What happened, or an answer.
    Notice(String),
    /// What could not be done.
    Error(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said { from, text } => write!(f, "{from}: {text}"),
            Self::Notice(text) => write!(f, "* {text}"),
            Self::Error(text) => write!(f, "! {text}"),
        }
    }
}

/// Reads one line that a client sent; it is said in, or asked about, `room`.
pub fn parse(line: &str, room: &RoomName) -> Result<Command, Rejection> {
    let room = room.clone();
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let say = |text: &str| Command::Send {
        room: room.clone(),
        text: text.to_owned(),
        reference: None,
    };
    let Some(command) = line.strip_prefix('/') else {
        return Ok(say(line));
    };
    if command.starts_with('/') {
        return Ok(say(command));
    }
    let (word, argument) = match command.split_once(' ') {
        Some((word, argument)) => (word, argument.trim()),
        None => (command, ""),
    };
    match (word, argument) {
        ("who", "") => Ok(Command::Members { room }),
        ("help", "") => Ok(Command::Help),
        ("history", lines) => {
            let limit = if lines.is_empty() {
                HISTORY_LINES
            } else {
                lines.parse().map_err(|_| {
                    Rejection::new(
                        ErrorCode::BadRequest,
                        "/history takes a number of lines, as in /history 20",
                    )
                })?
            };
            Ok(Command::History {
                room,
                page: Cursor::Newest,
                limit: Some(limit),
            })
        }
        ("who" | "help", _) => Err(Rejection::new(
            ErrorCode::BadRequest,
            format_args!("/{word} takes no argument"),
        )),
        _ => Err(Rejection::new(
            ErrorCode::BadRequest,
            "there is no such command; /help lists them, and //text says a line that begins with a slash",
        )),
    }
}

/// The lines that tell of `event`, as they are sent.
pub fn encode(event: &Event) -> Vec<String> {
    lines(event).iter().map(Line::to_string).collect()
}

/// The lines that tell of `event`: none for what only programs need.
pub fn lines(event: &Event) -> Vec<Line> {
    let notice = |text: String| vec![Line::Notice(text)];
    match event {
        Event::Room {
            members,
            messages,
            anew,
            ..
        } => {
            let mut lines = Vec::new();
            if *anew {
                lines.extend(notice(STARTED_ANEW.to_owned()));
            }
            lines.extend(notice(online(members)));
            lines.extend(messages.iter().flat_map(|m| said(&m.from, &m.text)));
            lines
        }
        Event::Members { members, .. } => notice(online(members)),
        Event::Message { message, .. } => said(&message.from, &message.text),
        Event::History { messages, .. } => {
            let mut lines = notice(match messages.len() {
                0 => "nothing has been said here yet".to_owned(),
                1 => "the last message:".to_owned(),
                n => format!("the last {n} messages:"),
            });
            lines.extend(messages.iter().flat_map(|m| said(&m.from, &m.text)));
            lines
        }
        Event::Joined { user, .. } => notice(format!("{user} joined")),
        Event::Left { user, .. } => notice(format!("{user} left")),
        Event::Gap { .. } => {
            notice("some messages are missing here and cannot be recovered".to_owned())
        }
        Event::Closing { reason, .. } => notice(reason.clone()),
        Event::Error { message, .. } => vec![Line::Error(message.clone())],
        Event::Help => HELP.map(|line| Line::Notice(line.to_owned())).into(),
        Event::Welcome { .. }
        | Event::Parted { .. }
        | Event::Sent { .. }
        | Event::Typing { .. } => Vec::new(),
    }
}

fn said(from: &UserName, text: &str) -> Vec<Line> {
    let said = |text: String| Line::Said {
        from: from.clone(),
        text,
    };
    let mut lines: Vec<_> = text
        .split('\n')
        .take(SHOWN_LINES)
        .map(|line| said(shown(line.strip_suffix('\r').unwrap_or(line))))
        .collect();
    let more = text.split('\n').count() - lines.len();
    if more > 0 {
        lines.push(said(format!("(and {} more lines)", grouped(more))));
    }
    lines
}

/// See [`Encoding::weigh`](super::Encoding::weigh): each line has its author's name and a frame's
/// header, and what is not shown as it is takes three bytes.
pub(super) fn weigh(message: &Message) -> usize {
    let lines = message.text.split('\n').count().min(SHOWN_LINES + 1);
    let replaced = message.text.bytes().filter(u8::is_ascii_control).count();
    message.text.len() + 2 * replaced + lines * (message.from.as_str().len() + 16)
}

/// What a terminal may be given of a line.
pub(crate) fn shown(line: &str) -> String {
    line.chars()
        .map(|c| {
            if c != '\t' && disturbs_a_line(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

fn online(members: &[UserName]) -> String {
    if members.len() > NAMED_MEMBERS {
        return format!("online: {} users", grouped(members.len()));
    }
    let names: Vec<_> = members.iter().map(UserName::as_str).collect();
    format!("online: {}", names.join(", "))
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    fn message(text: &str) -> Event {
        Event::Message {
            room: RoomName::lobby(),
            message: Message {
                id: MessageId::ZERO,
                from: user("alice"),
                text: text.to_owned(),
                at: 0,
            },
            via: None,
        }
    }

    #[test]
    fn a_line_is_said_and_a_slash_commands() {
        let lobby = RoomName::lobby();
        let say = |text: &str| Command::Send {
            room: RoomName::lobby(),
            text: text.to_owned(),
            reference: None,
        };
        assert_eq!(parse("hello", &lobby), Ok(say("hello")));
        assert_eq!(parse("hello\r\n", &lobby), Ok(say("hello")));
        assert_eq!(parse("//etc", &lobby), Ok(say("/etc")));
        assert_eq!(parse("", &lobby), Ok(say("")));
        assert_eq!(parse("/help", &lobby), Ok(Command::Help));
        assert_eq!(
            parse("/who", &lobby),
            Ok(Command::Members {
                room: RoomName::lobby()
            })
        );
        for (line, limit) in [("/history", 20), ("/history 3", 3)] {
            let Ok(Command::History { limit: found, .. }) = parse(line, &lobby) else {
                panic!("{line}")
            };
            assert_eq!(found, Some(limit));
        }
        for bad in ["/history x", "/history -1", "/whom", "/who x", "/"] {
            assert!(parse(bad, &lobby).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_lines_are_each_under_their_authors_name() {
        assert_eq!(
            encode(&message("hi\nbob: I resign\r\n* eve left")),
            ["alice: hi", "alice: bob: I resign", "alice: * eve left"]
        );
        assert_eq!(
            encode(&message("a\tb\u{1b}[2J\rbob: no")),
            ["alice: a\tb\u{fffd}[2J\u{fffd}bob: no"]
        );
    }

    #[test]
    fn a_message_of_line_breaks_is_cut() {
        let lines = encode(&message(&"\n".repeat(65_000)));
        assert_eq!(lines.len(), 101);
        assert_eq!(lines[100], "alice: (and 64,901 more lines)");
    }

    #[test]
    fn a_log_that_began_anew_is_told_of_before_anything_of_it() {
        let room = |anew| Event::Room {
            room: RoomName::lobby(),
            members: [user("alice")].into(),
            messages: Vec::new(),
            recovered: false,
            anew,
            last: None,
        };
        assert_eq!(encode(&room(false)), ["* online: alice"]);
        assert_eq!(
            encode(&room(true)),
            [
                "* the server started anew; earlier messages are gone",
                "* online: alice"
            ]
        );
    }

    #[test]
    fn more_than_fifty_members_are_counted() {
        let online = |count: usize| {
            let members = (0..count).map(|n| user(&format!("u{n}"))).collect();
            encode(&Event::Members {
                room: RoomName::lobby(),
                members,
            })
        };
        assert_eq!(online(2), ["* online: u0, u1"]);
        assert_eq!(online(1000), ["* online: 1,000 users"]);
    }
}
