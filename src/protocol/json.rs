//! The JSON encoding `hubbub.v1`: one object a frame, any number of rooms.
//!
//! Unknown fields are ignored, so that either side may be the newer one; an unknown type is
//! answered with an error.

use serde::Deserialize;

use super::{Command, Cursor, ErrorCode, Event, Ref, Rejection};
use crate::message::{Message, MessageId, RoomName};

/// Every field that any command has. Reading them loosely first lets a refusal name the field that
/// is wrong, and carry the ref that came with it.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: String,
    room: Option<String>,
    text: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    since: Option<String>,
    before: Option<String>,
    after: Option<String>,
    history: Option<usize>,
    limit: Option<usize>,
}

/// Reads one frame that a client sent.
pub fn parse(frame: &str) -> Result<Command, Rejection> {
    let fields: Fields = serde_json::from_str(frame).map_err(|error| {
        Rejection::new(
            ErrorCode::BadRequest,
            format_args!("not a JSON object of this protocol: {error}"),
        )
    })?;
    let reference = match fields.reference.clone().map(Ref::try_from) {
        None => None,
        Some(Ok(reference)) => Some(reference),
        Some(Err(why)) => return Err(Rejection::new(ErrorCode::BadRequest, why)),
    };
    command(fields, reference.clone()).map_err(|rejection| Rejection {
        reference,
        ..rejection
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
                    return Err(Rejection::new(
                        ErrorCode::BadRequest,
                        "history takes \"before\" or \"after\", not both",
                    ));
                }
            },
            limit: fields.limit,
        },
        "members" => Command::Members { room: room()? },
        "typing" => Command::Typing { room: room()? },
        _ => {
            return Err(Rejection::new(
                ErrorCode::UnknownType,
                "unknown type; this server knows join, leave, send, history, members and typing",
            ));
        }
    })
}

fn missing(field: &str) -> Rejection {
    Rejection::new(
        ErrorCode::BadRequest,
        format_args!("\"{field}\" is missing"),
    )
}

fn room(name: Option<&str>) -> Result<RoomName, Rejection> {
    name.ok_or_else(|| missing("room"))?
        .parse()
        .map_err(|why| Rejection::new(ErrorCode::BadRoom, format_args!("bad room name: {why}")))
}

fn id(field: &str, text: Option<&str>) -> Result<Option<MessageId>, Rejection> {
    text.map(|text| {
        text.parse().map_err(|why| {
            Rejection::new(
                ErrorCode::BadRequest,
                format_args!("bad \"{field}\": {why}"),
            )
        })
    })
    .transpose()
}

/// The frame that tells of `event`.
pub fn encode(event: &Event) -> String {
    serde_json::to_string(event).expect("every event has only string keys and plain values")
}

/// See [`Encoding::weigh`](super::Encoding::weigh): some bytes are written as two or six.
pub(super) fn weigh(message: &Message) -> usize {
    let text = message.text.bytes().map(|byte| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    text.sum::<usize>() + message.from.as_str().len() + 128
}

/// Reads what [`encode`] wrote, on the client's side.
pub fn parse_event(frame: &str) -> Result<Event, serde_json::Error> {
    serde_json::from_str(frame)
}

/// The frame that asks for `command`; `None` for what this encoding cannot ask.
pub fn request(command: &Command) -> Option<String> {
    let mut object = serde_json::Map::new();
    let mut put = |key: &str, value: serde_json::Value| {
        object.insert(key.to_owned(), value);
    };
    let (kind, room) = match command {
        Command::Join {
            room,
            since,
            history,
        } => {
            if let Some(since) = since {
                put("since", since.to_string().into());
            }
            if let Some(history) = history {
                put("history", (*history).into());
            }
            ("join", room)
        }
        Command::Leave { room } => ("leave", room),
        Command::Send {
            room,
            text,
            reference,
        } => {
            put("text", text.as_str().into());
            if let Some(reference) = reference {
                put("ref", reference.as_str().into());
            }
            ("send", room)
        }
        Command::History { room, page, limit } => {
            match page {
                Cursor::Newest => {}
                Cursor::Before(id) => put("before", id.to_string().into()),
                Cursor::After(id) => put("after", id.to_string().into()),
            }
            if let Some(limit) = limit {
                put("limit", (*limit).into());
            }
            ("history", room)
        }
        Command::Members { room } => ("members", room),
        Command::Typing { room } => ("typing", room),
        Command::Help => return None,
    };
    put("type", kind.into());
    put("room", room.as_str().into());
    Some(serde_json::Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_asks_is_what_the_server_reads() {
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
        ] {
            let frame = request(&command).expect("a frame");
            assert_eq!(parse(&frame), Ok(command), "{frame}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_carries_the_ref() {
        let refused = |frame: &str| parse(frame).expect_err(frame);
        assert_eq!(refused("hello").code, ErrorCode::BadRequest);
        assert_eq!(refused("[]").code, ErrorCode::BadRequest);
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
    fn an_event_reads_as_the_design_has_it() {
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
    fn that_a_log_began_anew_is_said_only_where_it_did() {
        let room = |anew| Event::Room {
            room: RoomName::lobby(),
            members: [].into(),
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
