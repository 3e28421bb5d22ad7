//! What no client should send gets a clear error and changes nothing for anyone else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;
use tungstenite::Message;

use crate::support::DEADLINE;
use crate::support::client::{Client, get, raw, request};
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

const UPGRADE: &str = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Somebody who is there before, and still is afterwards.
fn bystanders(hubbub: &Hubbub) -> (Client, Client) {
    let mut bob = hubbub.join("bob");
    let carol = hubbub.join("carol");
    assert_eq!(bob.hears(), "* carol joined");
    (bob, carol)
}

fn undisturbed((bob, carol): &mut (Client, Client)) {
    bob.says("undisturbed?");
    assert_eq!(carol.hears(), "bob: undisturbed?");
}

#[test]
fn bad_requests_are_answered_with_a_status_and_a_sentence() {
    let hubbub = Hubbub::alone();
    let mut others = bystanders(&hubbub);
    let address = hubbub.address();
    let long = "x".repeat(65);
    for (target, status, sentence) in [
        (&*format!("/chat/{long}"), 400, "longer than 64"),
        ("/chat/", 400, "empty"),
        ("/chat", 400, "belongs behind /chat/"),
        ("/chat/a%2Fb", 400, "slash"),
        ("/chat/a%0Ab", 400, "control"),
        ("/chat/%ff", 400, "UTF-8"),
        ("/chat/bob%3A%20I%20resign", 400, "a colon or a comma"),
        ("/chat/online:", 400, "a colon or a comma"),
        ("/chat/alice,%20bob", 400, "a colon or a comma"),
        ("/chat/*%20online", 400, "an asterisk"),
        ("/chat/!%20not%20sent", 400, "an exclamation mark"),
        ("/chat/bob%E2%80%8B", 400, "invisible characters"),
        ("/chat/%E3%85%A4", 400, "invisible characters"),
        ("/chat/bob%C2%A0smith", 400, "white space"),
        ("/chat/%CC%81", 400, "combining mark"),
        ("/chat/Zoe%CC%88", 400, "normalization form C"),
        (
            "/chat/alice?room=*%20online",
            400,
            "bad room name: it must not begin with an asterisk",
        ),
        ("/chat/alice?room=", 400, "bad room name"),
        ("/chat/alice?room=a%2Fb", 400, "bad room name"),
        ("/chat/alice?since=yesterday", 400, "bad since"),
        ("/chat/alice?history=-1", 400, "bad history"),
        ("/chat/alice/bob", 404, "/chat/"),
        ("/nowhere", 404, "/chat/"),
    ] {
        let Err((found, why)) = Client::connect(address, target, None) else {
            panic!("{target} was let in")
        };
        assert_eq!(found, status, "{target}: {why}");
        assert!(why.contains(sentence), "{target}: {why}");
    }
    let Err((400, why)) = Client::connect(address, "/chat/alice", Some("soap")) else {
        panic!("an unknown subprotocol was taken")
    };
    assert!(why.contains("hubbub.v1"), "{why}");
    undisturbed(&mut others);
}

#[test]
fn what_is_not_the_right_http_is_refused() {
    let hubbub = Hubbub::alone();
    let mut others = bystanders(&hubbub);
    let address = hubbub.address();
    for (head, status, sentence) in [
        ("hello?\r\n\r\n".to_owned(), 400, "not an HTTP/1.1 request"),
        (
            "GET / HTTP/2.0\r\n\r\n".to_owned(),
            505,
            "HTTP/1.1 and HTTP/1.0",
        ),
        (
            format!("POST /chat/alice HTTP/1.1\r\n{UPGRADE}\r\n"),
            405,
            "only GET",
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            405,
            "only GET, HEAD",
        ),
        (
            "GET /chat/alice HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            426,
            "WebSocket",
        ),
        (
            format!("GET /chat/alice HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Version: 8\r\n\r\n"),
            426,
            "version 13",
        ),
        (
            "GET /chat/alice HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
                .to_owned(),
            400,
            "bad WebSocket request",
        ),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)),
            431,
            "8192 bytes",
        ),
    ] {
        let (found, body) = request(address, &head);
        assert_eq!(found, status, "{head:.80}: {body}");
        assert!(body.contains(sentence), "{head:.80}: {body}");
    }
    // A TLS client, and one that sends nothing at all.
    assert!(raw(address, b"\x16\x03\x01\x02\x00\x01\x00").starts_with(b"HTTP/1.1 400"));
    drop(TcpStream::connect(address));
    undisturbed(&mut others);
}

#[test]
fn a_head_that_two_readers_may_take_differently_is_refused() {
    let hubbub = Hubbub::alone();
    let address = hubbub.address();
    let get = |fields: &str| format!("GET /livez HTTP/1.1\r\n{fields}\r\n");
    let post = |fields: &str| {
        let target = "/api/rooms/ops/messages?user=ci";
        format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nhello")
    };
    for (head, sentence) in [
        (get(""), "no Host field"),
        (
            get("Host: localhost\r\nHost: localhost\r\n"),
            "more than one Host",
        ),
        (get("Host: localhost\r\nhost: y\r\n"), "more than one Host"),
        (get("Host:\r\n"), "the Host field"),
        (get("Host: a b\r\n"), "the Host field"),
        (get("Host: x/y\r\n"), "the Host field"),
        (get("Host: bob@x\r\n"), "the Host field"),
        (get("Host: x, y\r\n"), "the Host field"),
        (get("Host: x:http\r\n"), "the Host field"),
        (get("Host: [::1\r\n"), "the Host field"),
        (
            get("Host: localhost\r\nOrigin: http://x\r\nOrigin: http://x\r\n"),
            "more than one Origin",
        ),
        (
            get("Host: localhost\r\nAuthorization: a\r\nAuthorization: b\r\n"),
            "more than one Authorization",
        ),
        (get("Host: x\nA: b\r\n"), "a line that ends without CR"),
        ("GET /livez HTTP/1.1\nHost: x\n\n".to_owned(), "without CR"),
        (get("Host: localhost\rA: b\r\n"), "header value"),
        (get("Host: localhost\r\nA: \0\r\n"), "header value"),
        (get("Host: localhost\r\nA: \u{8}\r\n"), "header value"),
        (get("Host : x\r\n"), "header name"),
        (get("Host: localhost\r\n y\r\n"), "header name"),
        (
            "GET livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "path",
        ),
        (
            "GET ftp://x/livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "path",
        ),
        (
            "GET http:///livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "host",
        ),
        (
            post("Content-Length: 5\r\nContent-Length: 4\r\n"),
            "more than one Content-Length",
        ),
        (
            post("Content-Length: 5\r\nContent-Length: 5\r\n"),
            "more than one Content-Length",
        ),
        (post("Content-Length: 5, 5\r\n"), "Content-Length field"),
        (post("Content-Length: +5\r\n"), "Content-Length field"),
        (post("Content-Length: -5\r\n"), "Content-Length field"),
        (post("Content-Length: 0x5\r\n"), "Content-Length field"),
        (post("Content-Length:\r\n"), "Content-Length field"),
        (
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            "both a Content-Length",
        ),
        (
            format!(
                "GET /chat/alice HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Version: 13\r\n\
                 Content-Length: 5\r\n\r\nhello"
            ),
            "has no body",
        ),
    ] {
        let (status, body) = request(address, &head);
        assert_eq!(status, 400, "{head:?}: {body}");
        assert!(body.contains(sentence), "{head:?}: {body}");
    }
    let target = "/api/rooms/ops/messages";
    let (status, past) = self::get(address, target);
    assert!(status == 200 && past.contains(r#""messages":[]"#), "{past}");
}

#[test]
fn a_target_may_name_the_server_and_only_one_path_leads_to_a_place() {
    let hubbub = Hubbub::with(&["--host", "hub.example,evil.example"]);
    let address = hubbub.address();
    for (target, status) in [
        ("http://chat.example/livez", 200),
        ("HTTP://chat.example:80/livez?x", 200),
        ("https://chat.example", 200),
        ("//metrics", 404),
        ("//livez", 404),
        ("http://chat.example//metrics", 404),
        ("/metrics/", 404),
    ] {
        assert_eq!(get(address, target).0, status, "{target}");
    }
    // RFC 9112 §3.2.2: the target's host counts, not the field's.
    let head = |host: &str| {
        format!(
            "GET http://{host}/api/rooms/ops/messages HTTP/1.1\r\nHost: evil.example\r\n\
             Origin: http://evil.example\r\n\r\n"
        )
    };
    assert_eq!(request(address, &head("hub.example")).0, 403);
    assert_eq!(request(address, &head("evil.example")).0, 200);
}

#[test]
fn plain_requests_are_answered() {
    let hubbub = Hubbub::alone();
    let address = hubbub.address();
    let alive = concat!("alive ", env!("CARGO_PKG_VERSION"));
    assert_eq!(get(address, "/livez"), (200, alive.to_owned()));
    assert_eq!(get(address, "/readyz"), (200, "ready".to_owned()));
    let (status, home) = get(address, "/");
    assert_eq!(status, 200);
    assert!(home.contains("<title>Hubbub</title>"), "{home}");
    let head = raw(address, b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = String::from_utf8(head).expect("text");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let date = head.split_once("\r\nDate: ").map(|(_, rest)| &rest[..29]);
    assert!(date.is_some_and(|date| date.ends_with(" GMT")), "{head}");
}

#[test]
fn a_head_that_never_ends_is_given_up_after_ten_seconds() {
    let hubbub = Hubbub::alone();
    let mut others = bystanders(&hubbub);
    let mut stream = TcpStream::connect(hubbub.address()).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream.write_all(b"GET /chat/al").expect("a part");
    let begun = Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // The limit itself is the fact here; the upper end is DEADLINE.
    assert!(begun.elapsed().as_secs() >= 9, "{:?}", begun.elapsed());
    undisturbed(&mut others);
}

#[test]
fn frames_that_break_the_protocol_end_their_own_connection() {
    let hubbub = Hubbub::alone();
    let mut others = bystanders(&hubbub);
    let violates = |bytes: &[u8]| {
        let mut client = hubbub.join_room("mallory", "elsewhere");
        let mut socket = client.socket();
        socket.write_all(bytes).expect("it can be sent");
        client.is_closed()
    };
    assert_eq!(violates(b"\x81\x02hi"), Some(1002), "not masked");
    assert_eq!(violates(b"\xc1\x80\0\0\0\0"), Some(1002), "a reserved bit");
    assert_eq!(
        violates(b"\x83\x80\0\0\0\0"),
        Some(1002),
        "a reserved opcode"
    );
    assert_eq!(
        violates(b"\x80\x80\0\0\0\0"),
        Some(1002),
        "a continuation of nothing"
    );
    assert_eq!(
        violates(b"\x09\x80\0\0\0\0"),
        Some(1002),
        "a fragmented ping"
    );
    assert_eq!(
        violates(b"\x81\x82\0\0\0\0\xff\xfe"),
        Some(1007),
        "not UTF-8"
    );
    assert_eq!(violates(b"\x82\x82\0\0\0\0hi"), Some(1003), "binary");
    assert_eq!(
        violates(b"\x81\xff\0\0\0\0\0\x01\0\x01\0\0\0\0"),
        Some(1009),
        "65,537 bytes announced"
    );
    undisturbed(&mut others);
}

#[test]
fn a_message_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let hubbub = Hubbub::with(&["--max-message", "1000"]);
    let mut bob = hubbub.join("bob");
    let mut alice = hubbub.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    alice.says(&"a".repeat(1000));
    assert_eq!(bob.hears(), format!("alice: {}", "a".repeat(1000)));
    alice.says(&"a".repeat(1001));
    assert_eq!(alice.is_closed(), Some(1009));
    let mut carol = hubbub.join("carol");
    bob.says("hello");
    assert_eq!(carol.hears(), "bob: hello");
}

#[test]
fn control_frames_and_fragments_are_taken() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let mut alice = hubbub.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    alice.sends(Message::Ping("are you there".into()));
    assert_eq!(alice.reads(), Message::Pong("are you there".into()));
    // "hel" + ping + "lo", with the mask of zeros.
    let mut socket = alice.socket();
    socket
        .write_all(b"\x01\x83\0\0\0\0hel\x89\x80\0\0\0\0\x80\x82\0\0\0\0lo")
        .expect("fragments");
    assert_eq!(bob.hears(), "alice: hello");
    assert!(matches!(alice.reads(), Message::Pong(_)));
}

#[test]
fn what_was_said_before_a_violation_is_answered_first() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut mallory = Client::json(hubbub.address(), "mallory");
    mallory.joins("lobby");
    // So that the violation is there before the answers are.
    let _: String = redis.run(&["CLIENT", "PAUSE", "300"]);
    for _ in 0..10 {
        mallory.asks(&json!({"type": "send", "room": "lobby", "text": "x"}));
    }
    mallory.sends(Message::Binary(vec![0].into()));
    let mut stored = 0;
    let code = loop {
        match mallory.hears_or_ends() {
            Ok(event) => stored += usize::from(event.contains(r#""type":"sent""#)),
            Err(code) => break code,
        }
    };
    assert_eq!((stored, code), (10, Some(1003)));
}
