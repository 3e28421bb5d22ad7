//! The JSON encoding `hubbub.v1`: one object a frame, any number of rooms.
//!
//! Unknown fields are ignored, so that either side may be the newer one; an unknown type is
//! answered with an error.

use std::fmt;

use serde::Deserialize;

use super::{Command, Cursor, ErrorCode, Event, Ref, Rejection};
use crate::message::{Message, MessageId, RoomName};

/// The fields of all commands. They are read as plain strings first, so that a refusal can name the
/// field that is wrong, and carry the ref that came with it.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: String,
    room: Option<String>,
    text: Option<String>,
    token: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    since: Option<String>,
    before: Option<String>,
    after: Option<String>,
    history: Option<usize>,
    limit: Option<usize>,
    prefix: Option<String>,
}

/// Reads one frame that a client sent.
pub fn parse(frame: &str) -> Result<Command, Rejection> {
    let fields: Fields = object(frame)
        .map_err(|why| bad_request(format_args!("not a JSON object of this protocol: {why}")))?;
    let reference = fields.reference.clone().map(Ref::try_from);
    let reference = reference.transpose().map_err(bad_request)?;
    command(fields, reference.clone()).map_err(|rejection| Rejection {
        reference,
        ..rejection
    })
}

/// Reads an object that a client sent. serde would take an array as well, for the fields in their order. The error has no
/// names of Rust's types.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    if !text.trim_start().starts_with('{') {
        return Err("it does not begin with a brace".to_owned());
    }
    let read = serde_json::from_str(text);
    read.map_err(|why: serde_json::Error| {
        let why = why
            .to_string()
            .replace("expected usize", "expected a whole number");
        why.replace("expected u64", "expected a whole number")
    })
}

fn command(fields: Fields, reference: Option<Ref>) -> Result<Command, Rejection> {
    let room = || room(fields.room.as_deref());
    Ok(match fields.kind.as_str() {
        "join" => Command::Join {
            room: room()?,
            since: id("since", fields.since.as_deref())?,
            history: fields.history,
        },
        "leave" => Command::Leave { room: room()? },
        "send" => Command::Send {
            room: room()?,
            text: fields.text.ok_or_else(|| missing("text"))?,
            reference,
        },
        "history" => Command::History {
            room: room()?,
            page: match (
                id("before", fields.before.as_deref())?,
                id("after", fields.after.as_deref())?,
            ) {
                (None, None) => Cursor::Newest,
                (Some(before), None) => Cursor::Before(before),
                (None, Some(after)) => Cursor::After(after),
                (Some(_), Some(_)) => {
                    return Err(bad_request(
                        "history takes \"before\" or \"after\", not both",
                    ));
                }
            },
            limit: fields.limit,
        },
        "members" => Command::Members { room: room()? },
        "typing" => Command::Typing { room: room()? },
        "rooms" => Command::Rooms {
            prefix: fields.prefix.unwrap_or_default(),
            limit: fields.limit,
        },
        "renew" => Command::Renew {
            token: fields.token.ok_or_else(|| missing("token"))?,
        },
        _ => {
            return Err(Rejection::new(
                ErrorCode::UnknownType,
                "unknown type; this server knows join, leave, send, history, members, rooms, typing and renew",
            ));
        }
    })
}

fn bad_request(why: impl fmt::Display) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, why)
}

fn missing(field: &str) -> Rejection {
    bad_request(format_args!("\"{field}\" is missing"))
}

fn room(name: Option<&str>) -> Result<RoomName, Rejection> {
    name.ok_or_else(|| missing("room"))?
        .parse()
        .map_err(|why| Rejection::new(ErrorCode::BadRoom, format_args!("bad room name: {why}")))
}

fn id(field: &str, text: Option<&str>) -> Result<Option<MessageId>, Rejection> {
    text.map(|text| {
        text.parse()
            .map_err(|why| bad_request(format_args!("bad \"{field}\": {why}")))
    })
    .transpose()
}

/// The frame that a server sends for an event.
pub fn encode(event: &Event) -> String {
    serde_json::to_string(event).expect("every event has only string keys and plain values")
}

/// See [`Encoding::estimated_bytes`](super::Encoding::estimated_bytes): JSON escapes some bytes with two
/// or six.
pub(super) fn estimated_bytes(message: &Message) -> usize {
    let text = message.text.bytes().map(|byte| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    text.sum::<usize>() + message.from.as_str().len() + 128
}

/// Reads one frame that a server sent.
pub fn parse_event(frame: &str) -> Result<Event, serde_json::Error> {
    serde_json::from_str(frame)
}

/// The frame that a client sends for a command; `None` for a command that this encoding does not have.
pub fn encode_command(command: &Command) -> Option<String> {
    serde_json::to_string(command).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_reads_the_command_that_the_client_sent() {
        let room = RoomName::lobby;
        let id = MessageId {
            millis: 7,
            number: 1,
        };
        for command in [
            Command::Join {
                room: room(),
                since: Some(id),
                history: None,
            },
            Command::Join {
                room: room(),
                since: None,
                history: Some(3),
            },
            Command::Leave { room: room() },
            Command::Send {
                room: room(),
                text: "\"quoted\"\n\u{1f600}".to_owned(),
                reference: Some(Ref::random()),
            },
            Command::History {
                room: room(),
                page: Cursor::Before(id),
                limit: Some(5),
            },
            Command::History {
                room: room(),
                page: Cursor::After(id),
                limit: None,
            },
            Command::Members { room: room() },
            Command::Typing { room: room() },
            Command::Rooms {
                prefix: "te".to_owned(),
                limit: Some(5),
            },
            Command::Renew {
                token: "a.b.c".to_owned(),
            },
        ] {
            let frame = encode_command(&command).expect("a frame");
            assert_eq!(parse(&frame), Ok(command), "{frame}");
        }
        let newest = Command::History {
            room: room(),
            page: Cursor::Newest,
            limit: None,
        };
        assert_eq!(
            encode_command(&newest).as_deref(),
            Some(r#"{"type":"history","room":"lobby"}"#)
        );
        let all = Command::Rooms {
            prefix: String::new(),
            limit: None,
        };
        assert_eq!(encode_command(&all).as_deref(), Some(r#"{"type":"rooms"}"#));
        assert_eq!(parse(r#"{"type":"rooms"}"#), Ok(all));
        assert_eq!(encode_command(&Command::Help), None);
    }

    #[test]
    fn a_refusal_names_the_field_and_carries_the_ref() {
        let refused = |frame: &str| parse(frame).expect_err(frame);
        assert_eq!(refused("hello").code, ErrorCode::BadRequest);
        assert_eq!(refused("[]").code, ErrorCode::BadRequest);
        // serde would read it as the fields in their order.
        let array = r#"["leave","lobby",null,null,null,null,null,null,null,null,null]"#;
        assert!(
            refused(array)
                .message
                .ends_with("it does not begin with a brace")
        );
        let number = refused(r#"{"type":"history","room":"lobby","limit":-1}"#);
        assert!(
            number.message.contains("expected a whole number"),
            "{}",
            number.message
        );
        assert_eq!(refused(r#"{"type":"sing"}"#).code, ErrorCode::UnknownType);
        assert_eq!(
            refused(r#"{"type":"join","room":"a/b"}"#).code,
            ErrorCode::BadRoom
        );
        let rejection = refused(r#"{"type":"send","room":"lobby","ref":"r1"}"#);
        assert_eq!(rejection.message, "\"text\" is missing");
        assert_eq!(rejection.reference.expect("the ref").as_str(), "r1");
        for id in ["", "1", "x-y"] {
            let frame = format!(r#"{{"type":"join","room":"a","since":"{id}"}}"#);
            assert!(refused(&frame).message.contains("since"));
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert_eq!(
            parse(r#"{"type":"members","room":"lobby","mood":{"colour":"blue"}}"#),
            Ok(Command::Members {
                room: RoomName::lobby()
            })
        );
    }

    #[test]
    fn an_event_is_one_json_object_with_its_type() {
        let event = Event::Message {
            room: RoomName::lobby(),
            message: Message {
                id: MessageId {
                    millis: 5,
                    number: 0,
                },
                from: "alice".parse().expect("a name"),
                text: "hi".to_owned(),
                at: 5,
            },
            looks_like: None,
            via: None,
        };
        let frame = encode(&event);
        assert_eq!(
            frame,
            r#"{"type":"message","room":"lobby","id":"5-0","from":"alice","text":"hi","at":5}"#
        );
        assert_eq!(parse_event(&frame).expect("an event"), event);
    }

    #[test]
    fn the_field_anew_is_sent_only_if_the_log_began_anew() {
        let room = |anew| Event::Room {
            room: RoomName::lobby(),
            members: [].into(),
            alike: Vec::new(),
            messages: Vec::new(),
            recovered: false,
            anew,
            last: None,
        };
        let frame = encode(&room(false));
        assert!(!frame.contains("anew"), "{frame}");
        assert_eq!(parse_event(&frame).expect("an event"), room(false));
        let frame = encode(&room(true));
        assert!(frame.contains(r#""anew":true"#), "{frame}");
        assert_eq!(parse_event(&frame).expect("an event"), room(true));
    }
}
