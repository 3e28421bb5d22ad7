//! The text encoding: lines for people and for shell scripts, one room per connection.
//!
//! A frame is one line. A message of several lines becomes as many frames, each with its author's name,
//! so that nobody can forge a line of another user. A character that controls a terminal (see
//! [`disturbs_a_line`]) is replaced by U+FFFD. The JSON encoding does not change the text.

use std::fmt;

use super::{Command, Cursor, ErrorCode, Event, ListedRoom, Rejection};
use crate::message::{Message, RoomName, UserName, disturbs_a_line};

/// A list of more users than this is shown as a number.
const NAMED_MEMBERS: usize = 50;

/// At most so many groups of names that look alike are shown.
const SHOWN_GROUPS: usize = 10;

/// A message shows at most so many lines, and then the number of further ones. Each line repeats its
/// author's name, and a message of nothing but line breaks must not fill every outbox.
const SHOWN_LINES: usize = 100;

/// The number of messages that `/history` without a number asks for.
const HISTORY_LINES: usize = 20;

/// The number of rooms that `/rooms` asks for, and that it names; it counts the others.
const COUNTED_ROOMS: usize = 200;
const NAMED_ROOMS: usize = 20;

/// The notice for an empty list of rooms.
pub(crate) const NO_ROOMS: &str = "there are no such rooms";

/// The notice for an [`Event::Room`] whose log began anew.
pub const STARTED_ANEW: &str = "the server started anew; earlier messages are gone";

const HELP: [&str; 6] = [
    "what you type is said to everyone in the room",
    "/who          who is here",
    "/history 20   the last 20 lines",
    "/rooms te     the rooms whose names begin with te; /rooms: all",
    "/help         this text",
    "//text        says a line that begins with a slash: /text",
];

/// One line, in its parts, so that a terminal can colour each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line of a message.
    Said {
        /// When it was stored, in milliseconds since the Unix epoch; `None` where nobody is to see it. The encoding
        /// leaves it out.
        at: Option<u64>,
        /// The author.
        from: UserName,
        /// Another user, whose name looks like the author's.
        looks_like: Option<UserName>,
        /// The line, without characters that disturb a terminal.
        text: String,
    },
    /// News of the room, or an answer.
    Notice(String),
    /// An error.
    Error(String),
}

/// The sign behind an author's name that looks like somebody else's. No name can hold the comma and the
/// space, so nobody can forge it.
pub(crate) fn sign(looks_like: Option<&UserName>) -> String {
    looks_like.map_or(String::new(), |other| format!(", not {other}"))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said {
                from,
                looks_like,
                text,
                ..
            } => write!(f, "{from}{}: {text}", sign(looks_like.as_ref())),
            Self::Notice(text) => write!(f, "* {text}"),
            Self::Error(text) => write!(f, "! {text}"),
        }
    }
}

/// Reads one line that a client sent. The command concerns `room`.
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
        ("rooms", prefix) => Ok(Command::Rooms {
            prefix: prefix.to_owned(),
            limit: Some(COUNTED_ROOMS),
        }),
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

/// The lines for an event, as they are sent.
pub fn encode(event: &Event) -> Vec<String> {
    lines(event).iter().map(Line::to_string).collect()
}

/// The lines for an event; none for an event that only programs need.
pub fn lines(event: &Event) -> Vec<Line> {
    let notice = |text: String| vec![Line::Notice(text)];
    match event {
        Event::Room {
            members,
            alike,
            messages,
            anew,
            ..
        } => {
            let mut lines = Vec::new();
            if *anew {
                lines.extend(notice(STARTED_ANEW.to_owned()));
            }
            lines.extend(online(members, alike));
            lines.extend(messages.iter().flat_map(|message| said(message, None)));
            lines
        }
        Event::Members { members, alike, .. } => online(members, alike),
        Event::Rooms { rooms, more } => notice(listed(rooms, *more)),
        Event::Message {
            message,
            looks_like,
            ..
        } => said(message, looks_like.as_ref()),
        Event::History { messages, .. } => {
            let mut lines = notice(match messages.len() {
                0 => "nothing has been said here yet".to_owned(),
                1 => "the last message:".to_owned(),
                n => format!("the last {n} messages:"),
            });
            lines.extend(messages.iter().flat_map(|message| said(message, None)));
            lines
        }
        Event::Joined {
            user,
            looks_like: Some(other),
            ..
        } => vec![
            Line::Notice(format!("{user} joined")),
            look_alike(&[other.clone(), user.clone()]),
        ],
        Event::Joined { user, .. } => notice(format!("{user} joined")),
        Event::Left { user, .. } => notice(format!("{user} left")),
        Event::Gap { .. } => {
            notice("some messages are missing here and cannot be recovered".to_owned())
        }
        Event::Expiring { expires_in_ms } => {
            notice(format!("your token expires in {} s", expires_in_ms / 1000))
        }
        Event::Deleted { again: true, .. } => Vec::new(),
        Event::Deleted { ids, up_to, .. } => {
            let all = up_to.map(|_| "an operator deleted what was said here before".to_owned());
            let some = match ids.len() {
                0 => None,
                1 => Some("an operator deleted a message".to_owned()),
                count => Some(format!("an operator deleted {} messages", grouped(count))),
            };
            all.into_iter().chain(some).map(Line::Notice).collect()
        }
        Event::Closing { reason, .. }
        | Event::Parted {
            reason: Some(reason),
            ..
        } => notice(reason.clone()),
        Event::Error { message, .. } => vec![Line::Error(message.clone())],
        Event::Help => HELP.map(|line| Line::Notice(line.to_owned())).into(),
        Event::Welcome { .. }
        | Event::Parted { reason: None, .. }
        | Event::Sent { .. }
        | Event::Renewed { .. }
        | Event::Typing { .. } => Vec::new(),
    }
}

fn said(message: &Message, looks_like: Option<&UserName>) -> Vec<Line> {
    let said = |text: String| Line::Said {
        at: Some(message.at),
        from: message.from.clone(),
        looks_like: looks_like.cloned(),
        text,
    };
    let text = &message.text;
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

/// See [`Encoding::estimated_bytes`](super::Encoding::estimated_bytes): each line has its author's name
/// and a frame's header, and a replaced character takes three bytes.
pub(super) fn estimated_bytes(message: &Message) -> usize {
    let lines = message.text.split('\n').count().min(SHOWN_LINES + 1);
    let replaced = message.text.bytes().filter(u8::is_ascii_control).count();
    message.text.len() + 2 * replaced + lines * (message.from.as_str().len() + 16)
}

/// The line with U+FFFD for each character that could disturb a terminal.
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

/// The members, and a line for each group of names that look alike.
fn online(members: &[UserName], alike: &[Vec<UserName>]) -> Vec<Line> {
    let mut lines = vec![Line::Notice(format!("online: {}", named(members)))];
    let groups = alike.iter().take(SHOWN_GROUPS);
    lines.extend(groups.map(|names| look_alike(names)));
    if alike.len() > SHOWN_GROUPS {
        let more = grouped(alike.len() - SHOWN_GROUPS);
        lines.push(Line::Notice(format!(
            "more names look alike: {more} groups"
        )));
    }
    lines
}

/// The letters of so many names are compared with each other.
const SPELLED: usize = 8;

/// Names that look alike, each with the first foreign letter that not all of them have: nobody could tell them
/// apart otherwise.
fn look_alike(names: &[UserName]) -> Line {
    if names.len() > NAMED_MEMBERS {
        return Line::Notice(format!("{} look alike", named(names)));
    }
    if names.len() > SPELLED {
        return Line::Notice(format!("these names look alike: {}", named(names)));
    }
    let spelled = names.iter().map(|name| {
        let is_odd = |c: &char| !names.iter().all(|other| other.as_str().contains(*c));
        let mut letters = name.as_str().chars().filter(|c| !c.is_ascii());
        match letters.find(is_odd) {
            Some(odd) => format!("{name} with U+{:04X}", u32::from(odd)),
            None => name.to_string(),
        }
    });
    let spelled: Vec<_> = spelled.collect();
    Line::Notice(format!("these names look alike: {}", spelled.join(", ")))
}

fn named(users: &[UserName]) -> String {
    if users.len() > NAMED_MEMBERS {
        return format!("{} users", grouped(users.len()));
    }
    let names: Vec<_> = users.iter().map(UserName::as_str).collect();
    names.join(", ")
}

/// `rooms: ops (3), lobby (1) and 4 others`, with the number of users in each.
fn listed(rooms: &[ListedRoom], more: bool) -> String {
    let named = rooms.iter().take(NAMED_ROOMS);
    let named: Vec<_> = named
        .map(|one| format!("{} ({})", one.room, grouped(one.members)))
        .collect();
    if named.is_empty() && !more {
        return NO_ROOMS.to_owned();
    }
    let others = and_others(rooms.len() - named.len(), more);
    let others = others.map_or(String::new(), |others| format!(" {others}"));
    format!("rooms: {}{others}", named.join(", "))
}

/// `and 4 others` behind some of a list, or `and more than 4 others` if there are `more` that nobody counted; `None`
/// if all are listed.
pub(crate) fn and_others(others: usize, more: bool) -> Option<String> {
    match (others, more) {
        (0, false) => None,
        (0, true) => Some("and others".to_owned()),
        (1, false) => Some("and 1 other".to_owned()),
        (others, false) => Some(format!("and {} others", grouped(others))),
        (others, true) => Some(format!("and more than {} others", grouped(others))),
    }
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
            looks_like: None,
            via: None,
        }
    }

    #[test]
    fn a_line_is_a_message_unless_it_begins_with_a_slash() {
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
        assert_eq!(
            parse("/rooms te", &lobby),
            Ok(Command::Rooms {
                prefix: "te".to_owned(),
                limit: Some(200)
            })
        );
        for bad in ["/history x", "/history -1", "/whom", "/who x", "/"] {
            assert!(parse(bad, &lobby).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_line_of_a_message_has_its_authors_name() {
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
    fn the_notice_of_a_log_that_began_anew_comes_before_its_messages() {
        let room = |anew| Event::Room {
            room: RoomName::lobby(),
            members: [user("alice")].into(),
            alike: Vec::new(),
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
    fn names_that_look_alike_are_told_in_groups_and_many_are_counted() {
        let alike = |groups: Vec<Vec<UserName>>| {
            let lines = encode(&Event::Members {
                room: RoomName::lobby(),
                members: [].into(),
                alike: groups,
            });
            lines[1..].to_vec()
        };
        let two = [user("Zo\u{eb}"), user("Z\u{43e}\u{eb}")];
        assert_eq!(
            alike(vec![two.to_vec()]),
            ["* these names look alike: Zo\u{eb}, Z\u{43e}\u{eb} with U+043E"]
        );
        assert_eq!(
            alike(vec![vec![user("a"); 51]; 12])[9..],
            ["* 51 users look alike", "* more names look alike: 2 groups"]
        );
    }

    #[test]
    fn twenty_rooms_are_named_and_the_others_counted() {
        let rooms = |count: usize, more| {
            let room = |n: usize| ListedRoom {
                room: format!("r{n}").parse().expect("a name"),
                members: n,
                at: None,
            };
            let rooms = (0..count).map(room).collect();
            encode(&Event::Rooms { rooms, more }).remove(0)
        };
        assert_eq!(rooms(0, false), "* there are no such rooms");
        assert_eq!(rooms(2, false), "* rooms: r0 (0), r1 (1)");
        assert!(rooms(20, false).ends_with(", r19 (19)"));
        assert!(rooms(21, false).ends_with(", r19 (19) and 1 other"));
        assert!(rooms(23, true).ends_with(", r19 (19) and more than 3 others"));
    }

    #[test]
    fn more_than_fifty_members_are_counted() {
        let online = |count: usize| {
            let members = (0..count).map(|n| user(&format!("u{n}"))).collect();
            encode(&Event::Members {
                room: RoomName::lobby(),
                members,
                alike: Vec::new(),
            })
        };
        assert_eq!(online(2), ["* online: u0, u1"]);
        assert_eq!(online(1000), ["* online: 1,000 users"]);
    }
}
