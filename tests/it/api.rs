//! The HTTP API: what a script does with curl.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, metric, raw};
use crate::support::hubbub::{Hubbub, run};
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

const SECRET: &str = "an example of a secret of enough bytes";

/// What came back.
struct Answer {
    status: u16,
    head: String,
    /// `Null` where there is no body.
    body: Value,
}

impl Answer {
    fn of(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
            head: head.to_owned(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| *found == name).map(|(_, v)| v)
    }
}

fn ask(hubbub: &Hubbub, method: &str, target: &str, fields: &[&str], body: &str) -> Answer {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n{body}");
    Answer::of(raw(hubbub.address(), request.as_bytes()))
}

fn get(hubbub: &Hubbub, target: &str) -> Answer {
    ask(hubbub, "GET", target, &[], "")
}

fn post(hubbub: &Hubbub, target: &str, body: &str) -> Answer {
    ask(hubbub, "POST", target, &[], body)
}

const OPS: &str = "/api/rooms/ops/messages?user=ci";

#[test]
fn what_is_posted_is_stored_and_heard_on_every_instance() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = there.join_room("alice", "ops");
    let answer = post(&here, OPS, "deploy finished\n");
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    assert_eq!(alice.hears(), "ci: deploy finished");
    let json = ["Content-Type: application/json; charset=utf-8"];
    let said = json!({"text": "two\nlines \u{1f600}", "ref": "r1", "new": 1}).to_string();
    let second = ask(&here, "POST", OPS, &json, &said);
    assert_eq!((second.status, &second.body["ref"]), (201, &json!("r1")));
    assert_eq!(alice.hears(), "ci: two");
    assert_eq!(alice.hears(), "ci: lines \u{1f600}");
    let past = get(&there, "/api/rooms/ops/messages?limit=1");
    assert_eq!(past.status, 200);
    assert_eq!(past.body["messages"][0]["id"], second.body["id"]);
    assert_eq!(past.body["messages"][0]["text"], "two\nlines \u{1f600}");
    assert_eq!(past.body["more"], true);
    // Nobody is here for having asked.
    let members = get(&there, "/api/rooms/ops/members");
    assert_eq!(members.body["members"], json!(["alice"]));
}

#[test]
fn a_repeated_post_under_one_key_is_one_message() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let key = ["Idempotency-Key: build-17"];
    let first = ask(&here, "POST", OPS, &key, "built");
    let again = ask(&there, "POST", OPS, &key, "built");
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body["id"], again.body["id"]);
    assert_eq!(again.body["duplicate"], true);
    let other = ask(&there, "POST", OPS, &key, "broken");
    assert_eq!(
        (other.status, &other.body["code"]),
        (422, &json!("ref_reused"))
    );
    assert_eq!(
        (&other.body["ref"], &other.body["retry"]),
        (&json!("build-17"), &json!(false))
    );
    let sentence = other.body["message"].as_str().expect("a sentence");
    assert!(sentence.contains("another text"), "{sentence}");
    // Another author's key is another key.
    let dave = ask(
        &there,
        "POST",
        "/api/rooms/ops/messages?user=dave",
        &key,
        "broken",
    );
    assert_eq!((dave.status, &dave.body["duplicate"]), (201, &json!(false)));
    let past = get(&here, "/api/rooms/ops/messages");
    assert_eq!(past.body["messages"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_past_is_read_in_pages_both_ways() {
    let hubbub = Hubbub::alone();
    let ids: Vec<String> = (0..5)
        .map(|n| {
            let answer = post(&hubbub, OPS, &format!("line {n}"));
            answer.body["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    let texts = |query: &str| {
        let answer = get(&hubbub, &format!("/api/rooms/ops/messages?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let messages = answer.body["messages"].as_array().expect("a list").clone();
        let texts: Vec<String> = messages
            .iter()
            .map(|message| message["text"].as_str().expect("a text").to_owned())
            .collect();
        (texts, answer.body["more"].as_bool().expect("a flag"))
    };
    let lines = |numbers: &[usize]| -> Vec<String> {
        numbers.iter().map(|n| format!("line {n}")).collect()
    };
    assert_eq!(texts(""), (lines(&[0, 1, 2, 3, 4]), false));
    assert_eq!(texts("limit=2"), (lines(&[3, 4]), true));
    let before = format!("before={}&limit=2", ids[3]);
    assert_eq!(texts(&before), (lines(&[1, 2]), true));
    let after = format!("after={}&limit=9", ids[3]);
    assert_eq!(texts(&after), (lines(&[4]), false));
    assert_eq!(texts("limit=0").0, lines(&[]));
    // A script that polls names the last id as one that follows does.
    let since = format!("since={}&limit=1", ids[2]);
    assert_eq!(texts(&since), (lines(&[3]), true));
    for no in ["0", "false"] {
        let since = format!("follow={no}&since={}", ids[3]);
        assert_eq!(texts(&since), (lines(&[4]), false));
    }
}

#[test]
fn what_cannot_be_done_is_answered_with_a_code_and_a_sentence() {
    let hubbub = Hubbub::with(&["--max-message", "100"]);
    let long = "x".repeat(101);
    for (method, target, body, status, code, sentence) in [
        (
            "POST",
            "/api/rooms/ops/messages",
            "x",
            400,
            "bad_request",
            "who says it",
        ),
        (
            "POST",
            "/api/rooms/ops/messages?user=a%2Fb",
            "x",
            400,
            "bad_request",
            "slash",
        ),
        (
            "POST",
            "/api/rooms/a%2Fb/messages?user=ci",
            "x",
            400,
            "bad_room",
            "slash",
        ),
        (
            "POST",
            "/api/rooms/%ff/messages?user=ci",
            "x",
            400,
            "bad_room",
            "UTF-8",
        ),
        ("POST", OPS, "\n", 400, "empty", "nothing to say"),
        ("POST", OPS, &long, 413, "too_large", "over 100 bytes"),
        (
            "GET",
            "/api/rooms/ops/messages?before=x",
            "",
            400,
            "bad_request",
            "bad before",
        ),
        (
            "GET",
            "/api/rooms/ops/messages?limit=x",
            "",
            400,
            "bad_request",
            "bad limit",
        ),
        (
            "GET",
            "/api/rooms/ops/messages?before=1-0&after=1-0",
            "",
            400,
            "bad_request",
            "both",
        ),
        (
            "GET",
            "/api/rooms/ops/messages?after=1-0&since=1-0",
            "",
            400,
            "bad_request",
            "both",
        ),
        (
            "GET",
            "/api/rooms/ops/messages?since=x",
            "",
            400,
            "bad_request",
            "bad since",
        ),
        (
            "GET",
            "/api/rooms/ops/messages?history=5",
            "",
            400,
            "bad_request",
            "limit",
        ),
        ("PUT", OPS, "", 405, "bad_request", "only GET, HEAD, POST"),
        (
            "POST",
            "/api/rooms/ops/members",
            "",
            405,
            "bad_request",
            "only GET, HEAD",
        ),
        (
            "GET",
            "/api/rooms/ops",
            "",
            404,
            "not_found",
            "/api/rooms/{room}/messages",
        ),
        (
            "GET",
            "/api",
            "",
            404,
            "not_found",
            "/api/rooms/{room}/messages",
        ),
    ] {
        let answer = ask(&hubbub, method, target, &[], body);
        assert_eq!(answer.status, status, "{target}: {}", answer.body);
        assert_eq!(answer.body["code"], code, "{target}");
        let message = answer.body["message"].as_str().expect("a sentence");
        assert!(message.contains(sentence), "{target}: {message}");
    }
    for (field, body, status) in [
        ("Content-Type: application/json", "{\"text\":1}", 400),
        ("Content-Type: application/json", "hello", 400),
        ("Idempotency-Key: ", "x", 400),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n", 400),
    ] {
        let answer = ask(&hubbub, "POST", OPS, &[field], body);
        assert_eq!(answer.status, status, "{field}: {}", answer.body);
    }
    let request = format!("POST {OPS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = Answer::of(raw(hubbub.address(), request.as_bytes()));
    assert_eq!(answer.status, 411, "{}", answer.body);
    let huge = format!(
        "POST {OPS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        u128::MAX
    );
    assert_eq!(
        Answer::of(raw(hubbub.address(), huge.as_bytes())).status,
        413
    );
    let past = get(&hubbub, "/api/rooms/ops/messages");
    assert_eq!(past.body["messages"], json!([]), "nothing was said");
}

#[test]
fn who_posts_too_fast_is_told_when_to_try_again() {
    let hubbub = Hubbub::with(&["--send-rate", "1", "--send-burst", "2"]);
    let statuses: Vec<u16> = (0..3).map(|_| post(&hubbub, OPS, "x").status).collect();
    assert_eq!(statuses, [201, 201, 429]);
    let refused = post(&hubbub, OPS, "x");
    assert_eq!(refused.body["code"], "too_fast");
    assert_eq!(refused.field("Retry-After"), Some("1"));
    let other = post(&hubbub, "/api/rooms/ops/messages?user=other", "x");
    assert_eq!(other.status, 201, "somebody else is not slowed down");
}

#[test]
fn while_redis_is_away_a_post_is_refused_in_time_and_can_be_repeated() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let key = ["Idempotency-Key: once"];
    redis.freeze();
    let refused = ask(&hubbub, "POST", OPS, &key, "x");
    // 504 if it was on its way already.
    let why = refused.body["message"].as_str().expect("a sentence");
    let words = match refused.status {
        503 => "not sent: Redis is unavailable, try again",
        504 => "it may have been sent or not: Redis stopped answering, try again with the same ref",
        status => panic!("{status}: {}", refused.body),
    };
    assert_eq!(why, words);
    assert_eq!(refused.body["code"], "unavailable");
    assert_eq!(refused.body["retry"], true);
    assert!(refused.field("Retry-After").is_some(), "{}", refused.head);
    assert_eq!(get(&hubbub, "/api/rooms/ops/members").status, 503);
    redis.thaw();
    let stored = until("it is stored", || {
        let answer = ask(&hubbub, "POST", OPS, &key, "x");
        (answer.status == 201).then_some(answer)
    });
    let past = get(&hubbub, "/api/rooms/ops/messages");
    assert_eq!(past.body["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(past.body["messages"][0]["id"], stored.body["id"]);
}

#[test]
fn a_post_that_is_in_flight_is_answered_during_a_teardown() {
    let redis = Redis::start();
    // Too short to wait for the receipt before everyone is sent away.
    let mut hubbub = Hubbub::on_with(&redis, &["--drain", "5"]);
    let address = hubbub.address();
    redis.freeze();
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let request = format!("POST {OPS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
    stream.write_all(request.as_bytes()).expect("it is sent");
    until("it is on its way", || {
        (metric(&hubbub, "hubbub_messages_in_flight") == 1).then_some(())
    });
    hubbub.signal(Signal::SIGTERM);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    // It may be stored; or a renewal was on its way already, and the post behind it was not sent.
    let status = Answer::of(answer).status;
    assert!([503, 504].contains(&status), "{status}");
    redis.thaw();
    assert!(hubbub.ends().success());
}

#[test]
fn a_token_says_who_it_is_and_where() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let output = run(&["token", "ci", "--room", "ops", "--secret", SECRET]);
    let token = String::from_utf8(output.stdout).expect("text");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let messages = "/api/rooms/ops/messages";
    let refused = post(&hubbub, OPS, "x");
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (401, &json!("unauthorized"))
    );
    assert_eq!(refused.field("WWW-Authenticate"), Some("Bearer"));
    assert_eq!(get(&hubbub, messages).status, 401);
    assert_eq!(get(&hubbub, "/api/rooms/ops/members").status, 401);
    let said = ask(&hubbub, "POST", messages, &[&bearer], "from a token");
    assert_eq!(said.status, 201, "{}", said.body);
    let past = ask(&hubbub, "GET", messages, &[&bearer], "");
    assert_eq!(past.body["messages"][0]["from"], "ci");
    let other = ask(
        &hubbub,
        "POST",
        "/api/rooms/ops/messages?user=root",
        &[&bearer],
        "x",
    );
    assert_eq!(
        (other.status, &other.body["code"]),
        (403, &json!("forbidden"))
    );
    let elsewhere = ask(&hubbub, "GET", "/api/rooms/den/messages", &[&bearer], "");
    assert_eq!(elsewhere.status, 403);
}

#[test]
fn who_reads_too_fast_with_a_token_is_told_when_to_try_again() {
    let paced = ["--send-rate", "1", "--send-burst", "2"];
    let hubbub = Hubbub::with(&[&["--token-secret", SECRET][..], &paced].concat());
    let output = run(&["token", "ci", "--secret", SECRET]);
    let token = String::from_utf8(output.stdout).expect("text");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    for path in ["/api/rooms/ops/messages", "/api/rooms/ops/members"] {
        let read = || ask(&hubbub, "GET", path, &[&bearer], "");
        let refused = until("a read is refused", || {
            Some(read()).filter(|answer| answer.status == 429)
        });
        assert_eq!(refused.body["code"], "too_fast", "{}", refused.body);
        assert_eq!(refused.field("Retry-After"), Some("1"));
    }
}

#[test]
fn pages_of_other_origins_are_let_in_only_if_they_are_named() {
    let hubbub = Hubbub::with(&["--allow-origin", "https://ops.example"]);
    let allowed = ["Origin: https://ops.example"];
    let answer = ask(&hubbub, "OPTIONS", OPS, &allowed, "");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.field("Content-Length"), None);
    let headers = answer.field("Access-Control-Allow-Headers");
    assert!(headers.is_some_and(|names| names.contains("Idempotency-Key")));
    let answer = ask(&hubbub, "POST", OPS, &allowed, "x");
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.field("Access-Control-Allow-Origin"),
        Some("https://ops.example")
    );
    let answer = ask(&hubbub, "OPTIONS", OPS, &[], "");
    assert_eq!(answer.status, 204, "no page asks");
    let evil = ["Origin: https://evil.example"];
    for method in ["OPTIONS", "GET", "POST"] {
        let answer = ask(&hubbub, method, OPS, &evil, "x");
        assert_eq!(answer.status, 403, "{method}");
        assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is() {
    let hubbub = Hubbub::alone();
    let mut stream = TcpStream::connect(hubbub.address()).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let head = format!(
        "POST {OPS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("the head");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).expect("an interim answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").expect("the body");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an answer");
    assert_eq!(Answer::of(rest).status, 201);
    // A body that does not come is not waited for.
    let hubbub = Hubbub::with(&["--head-timeout", "1"]);
    let request = format!("POST {OPS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe");
    let late = Answer::of(raw(hubbub.address(), request.as_bytes()));
    assert_eq!(late.status, 408, "{}", late.body);
    let head = ask(&hubbub, "HEAD", "/api/rooms/ops/messages", &[], "");
    assert_eq!((head.status, &head.body), (200, &Value::Null));
    let mut alice = Client::text(hubbub.address(), "/chat/alice");
    assert_eq!(alice.hears(), "* online: alice");
}
