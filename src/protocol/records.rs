//! The encodings of a client that follows a room over HTTP: server-sent events (WHATWG HTML §9.2), and JSON lines.
//!
//! A record is an event with its end, so records are written one behind the other. The client learns of messages, of
//! those that are missing or deleted, and of the reason for the stream's end; not of users who join, leave or type.
//!
//! A browser that comes back sends the last `id:` that it got. So after each record, the last `id:` must be the one to
//! resume from: a message has its own id, and `room` has the id before the first message that follows. All other
//! records have none.

use std::time::Duration;

use serde::Serialize;

use super::{Encoding, Event, json};
use crate::message::{Message, MessageId, RoomName};

/// The longest name of a room in JSON, and the fields around it, in bytes.
const MOST_AROUND: usize = 384;

/// An event as both encodings tell it.
struct Record {
    /// Its `event:` field; `None` for a message: a browser takes an event without the field for a message.
    kind: Option<&'static str>,
    /// The id to resume from behind it, if it changes.
    id: Option<MessageId>,
    /// The time after which a client should come back, if it changes.
    retry: Option<Duration>,
    /// A JSON object, in one line.
    json: String,
}

/// The first event. It has no members, since a follower is not told of later changes, and no messages, since they
/// follow.
#[derive(Serialize)]
#[serde(tag = "type", rename = "room")]
struct Followed<'a> {
    room: &'a RoomName,
    recovered: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    anew: bool,
    last: MessageId,
}

/// The last record.
#[derive(Serialize)]
#[serde(tag = "type", rename = "closed")]
struct Closed<'a> {
    code: u16,
    reason: &'a str,
}

/// The records for an event, as server-sent events.
pub(super) fn server_sent_events(event: &Event) -> Vec<String> {
    record(event).iter().map(server_sent_event).collect()
}

/// The records for an event, one JSON object a line.
pub(super) fn json_lines(event: &Event) -> Vec<String> {
    let record = record(event);
    record
        .map(|record| record.json + "\n")
        .into_iter()
        .collect()
}

/// The last record: why the server ends the stream. A stream without it was cut off. `code` is that of a WebSocket's
/// close frame.
pub fn closed(encoding: Encoding, code: u16, reason: &str) -> String {
    let json = to_json(&Closed { code, reason });
    match encoding {
        Encoding::EventStream => server_sent_event(&Record {
            kind: Some("closed"),
            id: None,
            retry: None,
            json,
        }),
        Encoding::Text | Encoding::Json | Encoding::JsonLines => json + "\n",
    }
}

/// Bytes without meaning, which keep proxies from cutting the connection: a comment, or an empty line, which readers of
/// JSON skip.
pub const fn heartbeat(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::EventStream => ":\n",
        Encoding::Text | Encoding::Json | Encoding::JsonLines => "\n",
    }
}

/// The line that tells a browser when to come back once the stream has ended.
pub fn retry(wait: Duration) -> String {
    format!("retry: {}\n", wait.as_millis())
}

/// See [`Encoding::estimated_bytes`].
pub(super) fn estimated_bytes(message: &Message) -> usize {
    json::estimated_bytes(message) + MOST_AROUND
}

fn record(event: &Event) -> Option<Record> {
    let of_kind = |kind| Record {
        kind: Some(kind),
        id: None,
        retry: None,
        json: json::encode(event),
    };
    let record = match event {
        Event::Message { message, .. } => Record {
            kind: None,
            id: Some(message.id),
            retry: None,
            json: json::encode(event),
        },
        Event::Room {
            room,
            recovered,
            anew,
            last,
            ..
        } => {
            // No message yet: all that come are behind the beginning.
            let last = last.unwrap_or(MessageId::ZERO);
            let json = to_json(&Followed {
                room,
                recovered: *recovered,
                anew: *anew,
                last,
            });
            Record {
                kind: Some("room"),
                id: Some(last),
                retry: None,
                json,
            }
        }
        Event::Gap { .. } => of_kind("gap"),
        Event::Deleted { .. } => of_kind("deleted"),
        Event::Expiring { .. } => of_kind("expiring"),
        Event::Closing { retry_after_ms, .. } => Record {
            retry: Some(Duration::from_millis(*retry_after_ms)),
            ..of_kind("closing")
        },
        // A browser calls its own `error` when the connection is lost.
        Event::Error { retry_after_ms, .. } => Record {
            retry: retry_after_ms.map(Duration::from_millis),
            ..of_kind("refused")
        },
        Event::Welcome { .. }
        | Event::Parted { .. }
        | Event::Sent { .. }
        | Event::History { .. }
        | Event::Members { .. }
        | Event::Rooms { .. }
        | Event::Joined { .. }
        | Event::Left { .. }
        | Event::Typing { .. }
        | Event::Renewed { .. }
        | Event::Help => return None,
    };
    Some(record)
}

fn server_sent_event(record: &Record) -> String {
    let id = record.id.map_or(String::new(), |id| format!("id: {id}\n"));
    let kind = record.kind;
    let kind = kind.map_or(String::new(), |kind| format!("event: {kind}\n"));
    let retry = record.retry.map_or(String::new(), retry);
    format!("{retry}{id}{kind}data: {}\n\n", record.json)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it has only string keys and plain values")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId { millis: 7, number }
    }

    #[test]
    fn a_message_has_its_id_and_is_one_line_whatever_its_text_is() {
        let event = Event::Message {
            room: RoomName::lobby(),
            message: Message {
                id: id(1),
                from: "alice".parse().expect("a name"),
                text: "one\r\ntwo\n\ndata: three\u{85}\u{2028}".to_owned(),
                at: 7,
            },
            looks_like: None,
            via: None,
        };
        let json = json::encode(&event);
        assert!(!json.contains(['\r', '\n']), "{json}");
        let expected = format!("id: 7-1\ndata: {json}\n\n");
        assert_eq!(Encoding::EventStream.encode(&event), [expected]);
        assert_eq!(Encoding::JsonLines.encode(&event), [json + "\n"]);
        let Event::Message { message, .. } = &event else {
            unreachable!()
        };
        for encoding in [Encoding::EventStream, Encoding::JsonLines] {
            let length = encoding.encode(&event)[0].len();
            assert!(length <= encoding.estimated_bytes(message), "{length}");
        }
    }

    #[test]
    fn the_room_tells_where_to_resume_from_and_of_an_empty_one_from_the_beginning() {
        let room = |last| Event::Room {
            room: RoomName::lobby(),
            members: ["alice".parse().expect("a name")].into(),
            alike: Vec::new(),
            messages: Vec::new(),
            recovered: true,
            anew: false,
            last,
        };
        let json = r#"{"type":"room","room":"lobby","recovered":true,"last":"7-1"}"#;
        let expected = format!("id: 7-1\nevent: room\ndata: {json}\n\n");
        assert_eq!(Encoding::EventStream.encode(&room(Some(id(1)))), [expected]);
        let first = Encoding::EventStream.encode(&room(None)).concat();
        assert!(first.starts_with("id: 0-0\n"), "{first}");
    }

    #[test]
    fn an_end_says_when_to_come_back_and_why() {
        let closing = Event::Closing {
            reason: "a reason".to_owned(),
            retry_after_ms: 700,
        };
        assert_eq!(
            Encoding::EventStream.encode(&closing),
            ["retry: 700\nevent: closing\n\
                 data: {\"type\":\"closing\",\"reason\":\"a reason\",\"retry_after_ms\":700}\n\n"]
        );
        assert_eq!(
            closed(Encoding::JsonLines, 1012, "a reason"),
            "{\"type\":\"closed\",\"code\":1012,\"reason\":\"a reason\"}\n"
        );
    }

    #[test]
    fn who_comes_and_goes_is_not_told() {
        let left = Event::Left {
            room: RoomName::lobby(),
            user: "alice".parse().expect("a name"),
        };
        assert!(Encoding::EventStream.encode(&left).is_empty());
        assert!(Encoding::JsonLines.encode(&left).is_empty());
    }
}
