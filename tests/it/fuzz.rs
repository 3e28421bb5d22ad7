//! Bytes that nobody meant: parsers do not panic, the server stands, and a panic would end one
//! connection alone.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub::hub::outbox::outbox;
use hubbub::message::{ConnectionId, MessageId, RoomName, UserName, Via};
use hubbub::protocol::{Encoding, Event, json, text};
use hubbub::server::connection::Connections;
use hubbub::server::http;
use hubbub::server::session::Session;
use hubbub::server::token::{Secret, TokenOptions, Verifier};
use hubbub::stream::Stream;
use proptest::prelude::*;

use crate::support::client::{Client, get};
use crate::support::house::{self, Call};
use crate::support::hubbub::Hubbub;
use crate::support::until;

/// Text that is often nearly right.
fn nearly(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

const JSON_PIECES: &[&str] = &[
    "{",
    "}",
    "\"type\":",
    "\"join\"",
    "\"send\"",
    ",",
    "\"room\":",
    "\"lobby\"",
    "\"text\":",
    "\"x\"",
    "\"ref\":",
    "\"since\":\"1-0\"",
    "\"limit\":",
    "-1",
    "1e999",
    "null",
    "[",
    "]",
    "\"history\"",
    "\"before\":",
    "\\u0000",
    "\u{202e}",
];

const HEAD_PIECES: &[&str] = &[
    "GET ",
    "/chat/",
    "alice",
    "?room=",
    "%",
    "%41",
    "%ff",
    "&token=",
    " HTTP/1.1",
    "\r\n",
    "\n",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: ",
    "hubbub.v1",
    "Origin: ",
    "Transfer-Encoding: chunked",
    "Content-Length: 5",
    "\r\n\r\n",
    "5\r\nhello\r\n",
    "f;x=\r\n",
    "0\r\n\r\n",
    "://",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_frames_are_read_or_refused(frame in nearly(JSON_PIECES)) {
        if let Ok(command) = json::parse(&frame) {
            let again = json::encode_command(&command).expect("what was read can be asked");
            prop_assert_eq!(json::parse(&again), Ok(command));
        }
        let _ = json::parse_event(&frame);
    }

    #[test]
    fn lines_are_read_or_refused(line in nearly(&["/", "//", "who", "history", " ", "20", "-1", "help", "\n", "\r"])) {
        let _ = text::parse(&line, &RoomName::lobby());
    }

    #[test]
    fn no_text_makes_another_line_or_drives_a_terminal(said in any::<String>()) {
        let event = Event::Message {
            room: RoomName::lobby(),
            message: hubbub::message::Message {
                id: MessageId::ZERO,
                from: "alice".parse().expect("a name"),
                text: said,
                at: 0,
            },
            looks_like: None,
            via: None,
        };
        for line in Encoding::Text.encode(&event) {
            prop_assert!(line.starts_with("alice: "));
            prop_assert!(line.chars().all(|c| c == '\t' || !c.is_control()));
        }
    }

    #[test]
    fn names_ids_and_origins_are_read_or_refused(text in any::<String>()) {
        if let Ok(name) = text.parse::<UserName>() {
            prop_assert_eq!(name.as_str(), text.as_str());
        }
        if let Ok(id) = text.parse::<MessageId>() {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
        let _ = Via::parse(&text);
    }

    #[test]
    fn ids_survive_being_written(millis in any::<u64>(), number in any::<u64>()) {
        let id = MessageId { millis, number };
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(id.next().and_then(MessageId::previous), id.next().map(|_| id));
    }

    #[test]
    fn no_token_but_ours_is_valid(token in nearly(&["eyJhbGciOiJIUzI1NiJ9", ".", "e30", "-_", "=", "A"])) {
        let secret = Secret::new(&"s".repeat(32)).expect("it is long enough");
        let options = TokenOptions { secret: Some(secret), ..TokenOptions::default() };
        let verifier = Verifier::new(&options).expect("it has a secret");
        prop_assert!(verifier.verify(&token).is_err());
    }
}

proptest! {
    // Each needs a socket.
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_are_read_or_refused(head in nearly(HEAD_PIECES)) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sender = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (receiver, _) = listener.accept().expect("the other end");
        sender.write_all(head.as_bytes()).expect("it can be sent");
        drop(sender);
        let receiver = Stream::plain(receiver);
        let read = http::read_request(&receiver, &mut Vec::new(), 8 << 10, Instant::now() + Duration::from_secs(5));
        if let Ok(request) = read {
            let _ = request.route();
            let _ = http::read_body(&receiver, &request, 100, Instant::now() + Duration::from_secs(5));
            let _ = hubbub::websocket::server::accept(&request.headers, None);
            let _ = request.into_rest();
        }
    }
}

/// A deterministic stream of bytes, so that a failure can be repeated.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.next() as usize % most + 1;
        (0..count).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn a_server_that_is_fed_noise_serves_on() {
    let hubbub = Hubbub::alone();
    let address = hubbub.address();
    let mut bob = hubbub.join("bob");
    let mut noise = Noise(0x5eed_1234_5678_9abc);
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).expect("a connection");
        // The server may have closed already.
        let _ = stream.write_all(&noise.bytes(600));
    }
    for round in 0..200 {
        let mut client = hubbub.join_room("mallory", "elsewhere");
        if round % 2 == 0 {
            let _ = client.socket().write_all(&noise.bytes(2000));
        } else {
            // A frame that is right but for what is in it.
            let payload = noise.bytes(100);
            let mut frame = vec![
                0x80 | (noise.next() as u8 & 0x0f),
                0x80 | payload.len() as u8,
            ];
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(&payload);
            let _ = client.socket().write_all(&frame);
            let _ = client.tries_to_say("/who");
        }
    }
    let mut carol = hubbub.join("carol");
    assert_eq!(
        bob.hears_until("joined").last().map(String::as_str),
        Some("* carol joined")
    );
    bob.says("still here");
    assert_eq!(carol.hears(), "bob: still here");
    let (_, metrics) = get(address, "/metrics");
    assert!(metrics.contains("\nhubbub_panics_total 0\n"), "{metrics}");
}

#[test]
fn a_panic_ends_its_own_connection_alone_and_is_counted() {
    let state = house::state(house::faulty(Call::Subscribe));
    let connections = Arc::new(Connections::new(Arc::clone(&state)));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let accepting = Arc::clone(&connections);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let peer = socket.peer_addr().expect("a peer");
            let stream = Arc::new(Stream::plain(socket));
            accepting.start(&stream, peer).expect("a thread");
        }
    });
    let mut alice = Client::json(address, "alice");
    let mut mallory = Client::json(address, "mallory");
    alice.joins("lobby");
    mallory.joins("lobby");
    assert_eq!(alice.event_of("joined")["user"], "mallory");
    mallory.asks(&serde_json::json!({"type": "join", "room": "cursed"}));
    assert_eq!(
        mallory.is_closed(),
        None,
        "no goodbye from a thread that panicked"
    );
    assert_eq!(alice.event_of("left")["user"], "mallory");
    alice.asks(&serde_json::json!({"type": "send", "room": "lobby", "text": "hi"}));
    alice.event_of("sent");
    until("its entry is gone", || {
        (connections.count() == 1).then_some(())
    });
    assert!(hubbub::metrics::render().contains("\nhubbub_panics_total 1\n"));
    connections.close_all();
    assert_eq!(alice.is_closed(), Some(1012));
    assert!(connections.wait_until_none(Instant::now() + Duration::from_secs(10)));
    state.backplane.close();
}

/// Wherever the panic is: the presence keeper would otherwise renew a ghost for ever.
#[test]
fn whoever_is_lost_to_a_panic_on_entering_is_in_no_room_afterwards() {
    for call in [Call::Subscribe, Call::Enter, Call::AfterEnter] {
        let state = house::state(house::faulty(call));
        let (lobby, cursed) = (RoomName::lobby(), "cursed".parse().expect("a name"));
        let hosts = |room| state.hub.hosts(room);
        let is_empty = |room| state.backplane.members(room).expect("users").is_empty();
        let entering = catch_unwind(AssertUnwindSafe(|| {
            let (outbox, _queue) = outbox(Encoding::Json, 1 << 20, None);
            let user = "mallory".parse().expect("a name");
            let state = Arc::clone(&state);
            let mut session = Session::begin(
                state,
                ConnectionId(1),
                user,
                lobby.clone(),
                Arc::default(),
                outbox,
            );
            session.handle(r#"{"type":"join","room":"lobby"}"#);
            assert!(hosts(&lobby) && !is_empty(&lobby));
            session.handle(r#"{"type":"join","room":"cursed"}"#);
            panic!("the bug is gone");
        }));
        assert_eq!(
            entering.expect_err("a panic").downcast_ref(),
            Some(&"the bug")
        );
        for room in [&lobby, &cursed] {
            assert!(!hosts(room), "{call:?}: nobody is in {room}");
            until(&format!("{call:?}: nobody is present in {room}"), || {
                is_empty(room).then_some(())
            });
        }
        state.backplane.close();
    }
}
