//! HTTP as people expect it: many requests on a connection, bodies in chunks, old clients; and no two readers of it
//! that may disagree on where a request ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use nix::sys::signal::Signal;

use crate::support::client::{get, metric};
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

const POST: &str = "POST /api/rooms/ops/messages?user=ci";
const CHUNK: &str = "1\r\nx\r\n0\r\n\r\n";
const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A connection that stays for more than one request.
struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
}

/// A response.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line == field)
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| *found == name).map(|(_, v)| v)
    }
}

impl Connection {
    fn to(hubbub: &Hubbub) -> Self {
        let socket = TcpStream::connect(hubbub.address()).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        socket.set_nodelay(true).expect("no delay");
        let read = Vec::new();
        Self { socket, read }
    }

    fn sends(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("it is taken");
    }

    fn fill(&mut self, what: &str) {
        let mut buffer = [0; 4096];
        let count = self.socket.read(&mut buffer).expect(what);
        let read = String::from_utf8_lossy(&self.read);
        assert!(count > 0, "{what}: the end, behind {read:?}");
        self.read.extend_from_slice(&buffer[..count]);
    }

    /// The next response; `has_body` is false for one to HEAD.
    fn hears_one(&mut self, has_body: bool) -> Answer {
        let end = loop {
            let end = self.read.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => self.fill("a head"),
            }
        };
        let head: Vec<_> = self.read.drain(..end).collect();
        let mut answer = Answer {
            status: 0,
            head: String::from_utf8(head).expect("text"),
            body: String::new(),
        };
        let status = answer.head.split(' ').nth(1);
        answer.status = status.and_then(|status| status.parse().ok()).expect("one");
        let length = answer.field("Content-Length");
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let length = if has_body { length } else { 0 };
        while self.read.len() < length {
            self.fill("a body");
        }
        let body = self.read.drain(..length).collect();
        answer.body = String::from_utf8(body).expect("text");
        answer
    }

    fn hears(&mut self) -> Answer {
        self.hears_one(true)
    }

    fn asks(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.sends(request);
        self.hears()
    }

    /// All that comes until the server closes.
    fn rest(mut self) -> String {
        // A reset is an end, too.
        let _ = self.socket.read_to_end(&mut self.read);
        String::from_utf8(self.read).expect("text")
    }
}

fn post(fields: &str, body: &str) -> String {
    format!("{POST} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

/// A post of a body with a length.
fn says(text: &str) -> String {
    post(&format!("Content-Length: {}\r\n", text.len()), text)
}

fn said(hubbub: &Hubbub) -> Vec<String> {
    let (status, past) = get(hubbub.address(), "/api/rooms/ops/messages");
    assert_eq!(status, 200, "{past}");
    let past: serde_json::Value = serde_json::from_str(&past).expect("JSON");
    let messages = past["messages"].as_array().expect("a list").iter();
    let text = |message: &serde_json::Value| message["text"].as_str().expect("text").to_owned();
    messages.map(text).collect()
}

#[test]
fn one_connection_serves_many_requests_and_the_last_may_be_a_chat() {
    let hubbub = Hubbub::alone();
    let mut browser = Connection::to(&hubbub);
    let page = browser.asks("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(page.body.ends_with("</html>\n"), "{}", page.body);
    assert!(page.has("Connection: keep-alive"), "{}", page.head);
    let etag = page.field("ETag").expect("a tag");
    let again = format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {etag}\r\n\r\n");
    browser.sends(again);
    assert_eq!(browser.hears_one(false).status, 304);
    // No response to HEAD has a body, which would be taken for the next response (RFC 9110 §9.3.2).
    for (path, status) in [("/", 200), ("/chat/alice", 405), ("/api/nowhere", 404)] {
        browser.sends(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(browser.hears_one(false).status, status, "{path}");
    }
    assert_eq!(browser.asks(says("hello")).status, 201);
    assert_eq!(browser.asks(says("")).status, 400);
    let options = "OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(browser.asks(options).status, 204);
    let nowhere = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(browser.asks(nowhere).status, 404);
    // With the first frame at once: "hi" with a mask of zeros.
    browser.sends(
        b"GET /chat/alice?room=ops HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
          Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi",
    );
    assert_eq!(browser.hears().status, 101);
    until("she said it", || {
        (said(&hubbub) == ["hello", "hi"]).then_some(())
    });
}

#[test]
fn json_that_is_no_message_is_refused_without_a_word_of_rust() {
    let hubbub = Hubbub::alone();
    let mut client = Connection::to(&hubbub);
    for body in [
        r#"["hello","ref1"]"#,
        r#" [{"text":"hello"}]"#,
        r#""hello""#,
        "7",
        "null",
        "",
        "{",
        "{}",
        r#"{"text":["hello"]}"#,
        r#"{"text":null}"#,
        r#"{"text":"hello","ref":7}"#,
    ] {
        let length = body.len();
        let fields = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        let answer = client.asks(post(&fields, body));
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(
            answer.body.contains("not a JSON message: "),
            "{}",
            answer.body
        );
        for word in ["struct", "PostBody", "usize"] {
            assert!(!answer.body.contains(word), "{body}: {}", answer.body);
        }
    }
    assert_eq!(said(&hubbub), [""; 0]);
}

#[test]
fn pipelined_requests_are_answered_in_order_however_their_bytes_come() {
    let hubbub = Hubbub::alone();
    let chunked = post(
        "Transfer-Encoding: chunked\r\n",
        "2\r\ntw\r\n1\r\no\r\n0\r\n\r\n",
    );
    let last = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let requests = [
        &says("one"),
        &*chunked,
        "\r\n",
        LIVE,
        &says("three"),
        last,
        LIVE,
    ]
    .concat();
    for step in [1, 2, 7, requests.len()] {
        let mut client = Connection::to(&hubbub);
        for bytes in requests.as_bytes().chunks(step) {
            // It closes before the last one.
            let _ = client.socket.write_all(bytes);
        }
        let statuses = [0; 5].map(|_| client.hears().status);
        assert_eq!(statuses, [201, 201, 200, 201, 404], "{step} at a time");
        assert_eq!(client.rest(), "", "{step} at a time");
    }
    assert_eq!(said(&hubbub), ["one", "two", "three"].repeat(4));
}

#[test]
fn a_connection_has_a_hundred_requests_and_not_ten_thousand() {
    let hubbub = Hubbub::alone();
    let client = Connection::to(&hubbub);
    let mut socket = client.socket.try_clone().expect("a handle");
    let flood = std::thread::spawn(move || socket.write_all(LIVE.repeat(10_000).as_bytes()));
    let rest = client.rest();
    let _ = flood.join().expect("no panic");
    assert_eq!(rest.matches("HTTP/1.1 200 ").count(), 100);
    let goes_on = rest.matches("\r\nConnection: keep-alive\r\n").count();
    assert_eq!(
        (goes_on, rest.matches("\r\nConnection: close\r\n").count()),
        (99, 1)
    );
    assert_eq!(get(hubbub.address(), "/livez").0, 200);
}

#[test]
fn a_connection_that_asks_for_nothing_more_ends_without_a_word_and_half_a_request_with_one() {
    let hubbub = Hubbub::with(&["--head-timeout", "1"]);
    let mut idle = Connection::to(&hubbub);
    assert_eq!(idle.asks(LIVE).status, 200);
    let mut half = Connection::to(&hubbub);
    assert_eq!(half.asks(LIVE).status, 200);
    half.sends(&LIVE[..20]);
    let mut gone = Connection::to(&hubbub);
    assert_eq!(gone.asks(LIVE).status, 200);
    gone.socket.shutdown(Shutdown::Write).expect("an end");
    assert_eq!((idle.rest(), gone.rest()), (String::new(), String::new()));
    let answer = half.rest();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[test]
fn a_drain_ends_connections_that_wait_at_once_and_those_that_are_answered_after_it() {
    let redis = Redis::start();
    let mut hubbub = Hubbub::on(&redis);
    let mut idle = Connection::to(&hubbub);
    assert_eq!(idle.asks(says("first")).status, 201);
    let mut busy = Connection::to(&hubbub);
    assert_eq!(busy.asks(LIVE).status, 200);
    redis.freeze();
    busy.sends(says("hello"));
    until("it is on its way", || {
        (metric(&hubbub, "hubbub_messages_in_flight") == 1).then_some(())
    });
    hubbub.signal(Signal::SIGTERM);
    let answer = busy.hears();
    // 503 if another command was written first, and this one still waited: then it is not stored.
    assert!(matches!(answer.status, 503 | 504), "{}", answer.body);
    assert!(answer.has("Connection: close"), "{}", answer.head);
    assert_eq!((idle.rest(), busy.rest()), (String::new(), String::new()));
    redis.thaw();
    assert!(hubbub.ends().success());
    let log = hubbub.log();
    assert!(!log.contains("broken off"), "{log}");
}

#[test]
fn where_half_of_the_places_are_taken_no_connection_waits_for_another_request() {
    for limit in ["--max-connections", "--max-per-address"] {
        keeps_two_of_four(&Hubbub::with(&[limit, "4"]));
    }
}

fn keeps_two_of_four(hubbub: &Hubbub) {
    let [(first, one), (_second, two), (third, three)] = [0; 3].map(|_| {
        let mut client = Connection::to(hubbub);
        let answer = client.asks(LIVE);
        (client, answer.has("Connection: keep-alive"))
    });
    assert_eq!([one, two, three], [true, true, false]);
    assert_eq!(third.rest(), "");
    drop(first);
    until("there is room again", || {
        let answer = Connection::to(hubbub).asks(LIVE);
        answer.has("Connection: keep-alive").then_some(())
    });
}

#[test]
fn old_clients_are_served_and_kept_only_if_they_ask_for_it() {
    let hubbub = Hubbub::alone();
    let ask = |request: &str| {
        let mut client = Connection::to(&hubbub);
        let answer = client.asks(format!("{request}\r\n"));
        (client, answer)
    };
    for request in [
        "GET /livez HTTP/1.0\r\n",
        "GET /livez HTTP/1.0\r\nHost: localhost\r\n",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: x, Close\r\n",
        "GET /livez HTTP/1.0\r\nConnection: keep-alive, close\r\n",
    ] {
        let (client, answer) = ask(request);
        assert_eq!(answer.status, 200, "{request}");
        assert!(answer.has("Connection: close"), "{}", answer.head);
        assert_eq!(client.rest(), "", "{request}");
    }
    let (mut client, answer) = ask("GET /livez HTTP/1.0\r\nConnection: Keep-Alive\r\n");
    assert!(answer.has("Connection: keep-alive"), "{}", answer.head);
    let old = "HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    // It would take an interim answer for the last one (RFC 9110 §10.1.1).
    client.sends(format!("{POST} {old}Content-Length: 3\r\n\r\n"));
    client.sends("old");
    assert_eq!(client.hears().status, 201);
    assert_eq!(said(&hubbub), ["old"]);
    let upgrade = "GET /chat/alice HTTP/1.0\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (_, answer) = ask(upgrade);
    assert_eq!(answer.status, 426);
    assert!(answer.body.contains("needs HTTP/1.1"), "{}", answer.body);
    for other in [
        "GET / HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/3\r\nHost: x\r\n",
    ] {
        let (client, answer) = ask(other);
        assert_eq!(answer.status, 505, "{other}: {}", answer.body);
        assert_eq!(client.rest(), "", "{other}");
    }
}

/// Behind a proxy, the bytes behind such a request may be another client's.
#[test]
fn where_a_request_may_end_in_two_places_nothing_behind_it_is_read() {
    let hubbub = Hubbub::alone();
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for request in [
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNK),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", CHUNK),
        post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            CHUNK,
        ),
        post("Transfer-Encoding: identity\r\n", ""),
        post("Transfer-Encoding: xchunked\r\n", CHUNK),
        post("Transfer-Encoding: gzip, chunked\r\n", CHUNK),
        post("Transfer-Encoding: chunked, identity\r\n", CHUNK),
        post("Transfer-Encoding: \u{b}chunked\r\n", CHUNK),
        post("Transfer-Encoding : chunked\r\n", CHUNK),
        post("Transfer-Encoding:\r\n chunked\r\n", CHUNK),
        post("X: y\r\n Transfer-Encoding: chunked\r\n", CHUNK),
        post("X: y\nTransfer-Encoding: chunked\r\n", CHUNK),
        post("X: y\rTransfer-Encoding: chunked\r\n", CHUNK),
        post("Content-Length : 5\r\n", "hello"),
        post("Content-Length: 5\n", "hello"),
        post("Content-Length: 0x5\r\n", "hello"),
        post("Content-Length: 5,5\r\n", "hello"),
        format!(
            "{POST} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNK}"
        ),
        chunked("+5\r\nhello\r\n0\r\n\r\n"),
        chunked("-5\r\nhello\r\n0\r\n\r\n"),
        chunked("0x5\r\nhello\r\n0\r\n\r\n"),
        chunked(" 5\r\nhello\r\n0\r\n\r\n"),
        chunked("5 \r\nhello\r\n0\r\n\r\n"),
        chunked("5 ;x\r\nhello\r\n0\r\n\r\n"),
        chunked("\r\nhello\r\n0\r\n\r\n"),
        chunked("5\nhello\r\n0\r\n\r\n"),
        chunked("5\r\nhello\n0\r\n\r\n"),
        chunked("5\r\nhello0\r\n\r\n"),
        chunked("4\r\nhello\r\n0\r\n\r\n"),
        chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"),
        chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunked("5\r\nhello\r\n0\r\n\n"),
        chunked("5\r\nhello\r\n0\r\nno field\r\n\r\n"),
        chunked("5\r\nhello\r\n0\r\nA : b\r\n\r\n"),
        chunked("5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"),
        chunked("5\r\nhello\r\n0\r\nA: b\nC: d\r\n\r\n"),
        chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(9000))),
        chunked(&format!(
            "{}0\r\n\r\n",
            format!("1;{}\r\nx\r\n", "x".repeat(1000)).repeat(9)
        )),
        chunked(&format!(
            "5\r\nhello\r\n0\r\n{}\r\n",
            "A: b\r\n".repeat(3000)
        )),
    ] {
        let mut client = Connection::to(&hubbub);
        client.sends([&request, LIVE].concat());
        let shown = &request[..request.len().min(200)];
        let answer = client.hears();
        assert_eq!(answer.status, 400, "{shown:?}: {}", answer.body);
        assert!(answer.has("Connection: close"), "{shown:?}");
        assert_eq!(client.rest(), "", "{shown:?}");
    }
    // These have an end, and are too much.
    for request in [
        chunked("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        chunked("8000000000000000\r\nhello\r\n0\r\n\r\n"),
        post("Content-Length: 99999999999999999999\r\n", "hello"),
    ] {
        let mut client = Connection::to(&hubbub);
        client.sends([&request, LIVE].concat());
        assert_eq!(client.hears().status, 413, "{request:?}");
        assert_eq!(client.rest(), "", "{request:?}");
    }
    assert_eq!(said(&hubbub), [""; 0]);
}

#[test]
fn a_body_that_nobody_wants_is_passed_over_if_it_is_there_and_ends_the_connection_if_not() {
    let hubbub = Hubbub::alone();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = request.len();
    let with_body =
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    let mut client = Connection::to(&hubbub);
    let ready = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.sends([&with_body, request, ready].concat());
    assert!(client.hears().body.starts_with("alive "));
    assert_eq!(client.hears().body, "ready\n");
    let refused =
        "POST /api/rooms/ops/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
    client.sends([refused, "hello", ready].concat());
    assert_eq!(client.hears().status, 400);
    assert_eq!(client.hears().body, "ready\n");
    for (head, status) in [
        (&*with_body, 200),
        (refused, 400),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            200,
        ),
    ] {
        let mut client = Connection::to(&hubbub);
        let answer = client.asks(head);
        assert_eq!(answer.status, status, "{head}");
        assert!(answer.has("Connection: close"), "{head}: {}", answer.head);
        // It may have been on its way.
        let _ = client.socket.write_all(request.as_bytes());
        assert_eq!(client.rest(), "", "{head}");
    }
}

/// A proxy that takes the refusal for an upgrade passes on whatever follows, also for `/metrics`.
#[test]
fn behind_an_upgrade_that_was_refused_nothing_is_read() {
    let hubbub = Hubbub::alone();
    for target in ["/chat/alice", "/livez"] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut client = Connection::to(&hubbub);
        client.sends([&request, LIVE].concat());
        let answer = client.hears();
        assert!(answer.has("Connection: close"), "{target}: {}", answer.head);
        assert_eq!(client.rest(), "", "{target}");
    }
}

fn live_for(client: &str) -> String {
    format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n")
}

#[test]
fn on_a_connection_of_a_proxy_each_request_is_its_own_clients() {
    let proxied = ["--trusted-proxy", "127.0.0.1", "--max-per-address", "1"];
    let hubbub = Hubbub::with(&proxied);
    let upgrade = "GET /chat/alice HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\
                   Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut chat = Connection::to(&hubbub);
    assert_eq!(chat.asks(upgrade).status, 101);
    let mut proxy = Connection::to(&hubbub);
    for client in ["192.0.2.2", "192.0.2.3", "192.0.2.2"] {
        assert_eq!(proxy.asks(live_for(client)).status, 200, "{client}");
        let logged = format!("{client} through ");
        assert!(hubbub.log().contains(&logged), "{client}: {}", hubbub.log());
    }
    // While the first connection waits, nobody has a place for it.
    let mut other = Connection::to(&hubbub);
    assert_eq!(other.asks(live_for("192.0.2.2")).status, 200);
    let answer = other.asks(live_for("192.0.2.1"));
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert_eq!(proxy.asks(live_for("192.0.2.3")).status, 200);
}

#[test]
fn an_address_has_no_more_requests_on_one_connection_than_on_many() {
    let hubbub = Hubbub::with(&["--connect-rate", "1"]);
    let mut client = Connection::to(&hubbub);
    let mut taken = 0;
    let refused = loop {
        let answer = client.asks(LIVE);
        match answer.status {
            200 => taken += 1,
            _ => break answer,
        }
    };
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!((20..60).contains(&taken), "{taken}");
}

#[test]
fn a_body_in_chunks_is_taken_within_the_limits_of_any_other() {
    let hubbub = Hubbub::with(&["--max-message", "100", "--head-timeout", "1"]);
    let chunked = |body: &str| post("Transfer-Encoding: Chunked\r\n", body);
    let mut client = Connection::to(&hubbub);
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n03\r\nllo\r\n000\r\n\r\n",
        "5;name=value;\"quoted\"\r\nhello\r\n0;last\r\nTrailer: x\r\nContent-Length: 3\r\n\r\n",
    ] {
        let answer = client.asks(chunked(body));
        assert_eq!(answer.status, 201, "{body:?}: {}", answer.body);
        assert!(answer.has("Connection: keep-alive"), "{}", answer.head);
    }
    let hundred = "x".repeat(100);
    let answer = client.asks(chunked(&format!("64\r\n{hundred}\r\n0\r\n\r\n")));
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(said(&hubbub), ["hello", "hello", "hello", &hundred]);
    assert_eq!(
        client.asks(chunked("0\r\n\r\n")).status,
        400,
        "nothing to say"
    );
    let answer = client.asks(chunked("4\r\n\u{1f600}\r\n1\r\n\u{7f}\r\n0\r\n\r\n"));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let waits = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n";
    client.sends(post(waits, ""));
    assert_eq!(client.hears().status, 100);
    assert_eq!(client.asks("2\r\nhi\r\n0\r\n\r\n").status, 201);
    let answer = client.asks(chunked(&format!("64\r\n{hundred}\r\n1\r\nx\r\n0\r\n\r\n")));
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert_eq!(client.rest(), "");
    for half in ["", "5\r\nhe", "5\r\nhello", "5\r\nhello\r\n0\r\n"] {
        let answer = Connection::to(&hubbub).asks(chunked(half));
        assert_eq!(answer.status, 408, "{half:?}: {}", answer.body);
    }
}

#[test]
fn every_path_says_what_is_allowed_there() {
    let secret = "an operator's secret of enough bytes";
    let hubbub = Hubbub::with(&["--admin-secret", secret]);
    let mut client = Connection::to(&hubbub);
    let mut options = |target: &str| {
        let fields = format!("Host: localhost\r\nAuthorization: Bearer {secret}\r\n");
        client.asks(format!("OPTIONS {target} HTTP/1.1\r\n{fields}\r\n"))
    };
    for (target, allowed) in [
        ("/", "GET, HEAD, OPTIONS"),
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/chat/alice", "GET, OPTIONS"),
        ("/api/rooms/ops/messages", "GET, HEAD, POST, OPTIONS"),
        ("/api/rooms/ops/members", "GET, HEAD, OPTIONS"),
        ("/api/admin/rooms", "GET, HEAD, OPTIONS"),
        ("/api/admin/bans/eve", "PUT, DELETE, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
    ] {
        let answer = options(target);
        assert_eq!(answer.status, 204, "{target}: {}", answer.body);
        assert_eq!(answer.field("Allow"), Some(allowed), "{target}");
        assert_eq!(answer.field("Content-Length"), None, "{target}");
    }
    for nowhere in ["/nowhere", "/api/rooms/ops"] {
        assert_eq!(options(nowhere).status, 404, "{nowhere}");
    }
    let nobody = "OPTIONS /api/admin/rooms HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(client.asks(nobody).status, 401);
    let star = "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(client.asks(star).status, 404);
}

/// Its client would take it for the next response.
#[test]
fn no_response_to_head_has_a_body() {
    let secret = "an operator's secret of enough bytes";
    let hubbub = Hubbub::with(&["--admin-secret", secret]);
    let mut client = Connection::to(&hubbub);
    for target in [
        "/",
        "/livez",
        "/nowhere",
        "*",
        "/chat",
        "/chat/alice",
        "/chat/a%2Fb",
        "/hooks/ops",
        "/api/rooms",
        "/api/rooms/ops/messages?limit=x",
        "/api/rooms/ops/messages?follow&limit=1",
        "/api/admin/rooms",
    ] {
        client.sends(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = client.hears_one(false);
        assert!(answer.has("Connection: keep-alive"), "{target}");
        let next = client.asks("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(
            next.head.starts_with("HTTP/1.1 200 OK"),
            "{target}: {}",
            next.head
        );
    }
}

#[test]
fn what_looks_like_json_or_is_a_form_is_said_only_if_the_client_means_it() {
    let hubbub = Hubbub::alone();
    let mut client = Connection::to(&hubbub);
    let mut post = |kind: &str, body: &str| {
        let kind = match kind {
            "" => String::new(),
            kind => format!("Content-Type: {kind}\r\n"),
        };
        let length = body.len();
        client.asks(self::post(
            &format!("{kind}Content-Length: {length}\r\n"),
            body,
        ))
    };
    let form = "application/x-www-form-urlencoded";
    let json = r#"{"text":"hello"}"#;
    for (kind, body, sentence) in [
        (form, json, "Content-Type: application/json"),
        ("", json, "Content-Type: application/json"),
        (
            "",
            " {\"ref\":\"x\", \"text\" : 1}\n",
            "Content-Type: application/json",
        ),
        (
            "application/problem+json",
            json,
            "Content-Type: application/json",
        ),
        ("text/json", "hello", "Content-Type: application/json"),
        ("multipart/form-data; boundary=x", "--x--", "curl -d"),
        ("Multipart/Form-Data", "hello", "curl -d"),
    ] {
        let answer = post(kind, body);
        assert_eq!(answer.status, 415, "{kind} {body}: {}", answer.body);
        assert!(answer.body.contains(sentence), "{kind}: {}", answer.body);
        assert!(
            answer.body.contains(r#""code":"bad_request""#),
            "{}",
            answer.body
        );
    }
    let texts = [
        ("text/plain", json),
        (form, "{ braces }"),
        (form, r#"{"type":"hello"}"#),
        (form, r#"{"text":"it goes on"} and on"#),
        (form, r#"["text"]"#),
        (form, r#""text""#),
        ("", "a=b&c=d"),
    ];
    for (kind, body) in texts {
        assert_eq!(post(kind, body).status, 201, "{kind} {body}");
    }
    assert_eq!(said(&hubbub), texts.map(|(_, body)| body));
    assert_eq!(post("application/json; charset=utf-8", json).status, 201);
}
