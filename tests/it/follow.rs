//! Following a room over HTTP: what curl and a browser's `EventSource` hear.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

use hubbub::message::MessageId;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::checker::{Seen, Speaker, faults};
use crate::support::client::{Client, get, metric, request};
use crate::support::hubbub::{Hubbub, run};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

const SECRET: &str = "an example of a secret of enough bytes";
const OPERATORS: &str = "an operators' secret of enough bytes";
const LINES: &str = "Accept: application/x-ndjson";

/// A server-sent event, put together as a browser does (WHATWG HTML §9.2.6).
#[derive(Debug, Default, PartialEq)]
struct Heard {
    /// The last event id behind it.
    id: String,
    /// Empty for a message.
    kind: String,
    data: Value,
}

/// A client that follows a room.
struct Follower {
    head: String,
    lines: BufReader<TcpStream>,
    /// What a browser would send as `Last-Event-ID`, and after how long, in milliseconds.
    last_id: String,
    retry: Option<u64>,
}

impl Follower {
    /// `target` is behind `/api/rooms/`.
    fn of(hubbub: &Hubbub, target: &str, fields: &[&str]) -> Self {
        let mut stream = TcpStream::connect(hubbub.address()).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = format!("GET /api/rooms/{target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).expect("it can be sent");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = lines.read_line(&mut head).expect("a head");
            assert!(count > 0, "{head}");
        }
        Self {
            head,
            lines,
            last_id: String::new(),
            retry: None,
        }
    }

    /// Follows the lobby from now on, and has heard so.
    fn of_lobby(hubbub: &Hubbub) -> Self {
        let mut follower = Self::of(hubbub, "lobby/messages?follow", &[]);
        assert_eq!(follower.hears().kind, "room");
        follower
    }

    /// Comes back as a browser does.
    fn again(&self, hubbub: &Hubbub, target: &str) -> Self {
        let field = format!("Last-Event-ID: {}", self.last_id);
        let fields = [&*field];
        let fields = match self.last_id.is_empty() {
            true => &[][..],
            false => &fields,
        };
        let mut again = Self::of(hubbub, target, fields);
        again.last_id.clone_from(&self.last_id);
        again
    }

    /// The next line, without its end; `None` at the end of the stream.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.ends_with('\n')
            .then(|| line.trim_end_matches('\n').to_owned())
    }

    /// The next event, or the end.
    fn hears_or_ends(&mut self) -> Option<Heard> {
        let (mut id, mut kind, mut data) = (self.last_id.clone(), String::new(), String::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None if line.is_empty() => {
                    self.last_id.clone_from(&id);
                    if !data.is_empty() {
                        let data = serde_json::from_str(&data).expect("JSON");
                        return Some(Heard { id, kind, data });
                    }
                }
                None => assert_eq!(line, ":", "a comment"),
                Some(("id", value)) => id = value.to_owned(),
                Some(("event", value)) => kind = value.to_owned(),
                Some(("data", value)) => data += value,
                Some(("retry", value)) => self.retry = Some(value.parse().expect("a number")),
                Some(_) => panic!("{line}"),
            }
        }
    }

    fn hears(&mut self) -> Heard {
        self.hears_or_ends().expect("the stream goes on")
    }

    /// The text of the next message.
    fn hears_text(&mut self) -> String {
        let heard = self.hears();
        assert_eq!(heard.kind, "", "{heard:?}");
        assert_eq!(heard.id, heard.data["id"], "{heard:?}");
        heard.data["text"].as_str().expect("a text").to_owned()
    }

    /// The last event, whatever comes before.
    fn ends(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.hears_or_ends()).collect()
    }

    /// The next object of a stream of lines; `None` at its end.
    fn object(&mut self) -> Option<Value> {
        loop {
            let line = self.line()?;
            if !line.is_empty() {
                return Some(serde_json::from_str(&line).expect("JSON"));
            }
        }
    }
}

fn post(hubbub: &Hubbub, room: &str, text: &str) -> String {
    let length = text.len();
    let head = format!(
        "POST /api/rooms/{room}/messages?user=ci HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{text}"
    );
    let (status, body) = request(hubbub.address(), &head);
    assert_eq!(status, 201, "{body}");
    let sent: Value = serde_json::from_str(&body).expect("JSON");
    sent["id"].as_str().expect("an id").to_owned()
}

fn token(arguments: &[&str]) -> String {
    let output = run(&[&["token", "--secret", SECRET], arguments].concat());
    let token = String::from_utf8(output.stdout).expect("text");
    token.trim().to_owned()
}

fn operate(hubbub: &Hubbub, method: &str, path: &str, body: &str) -> Value {
    let length = body.len();
    let head = format!(
        "{method} /api/admin/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATORS}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (status, body) = request(hubbub.address(), &head);
    assert!((200..300).contains(&status), "{body}");
    serde_json::from_str(&body).unwrap_or(Value::Null)
}

#[test]
fn curl_hears_what_is_said_on_another_instance_and_nobody_sees_it_there() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut bob = Client::json(here.address(), "bob");
    bob.joins("lobby");
    let curl = Command::new("curl")
        .args(["-sSN", "--max-time", "20", "-H", LINES])
        .arg(format!("{}/api/rooms/lobby/messages?follow", there.url()))
        .stdout(Stdio::piped())
        .spawn();
    let mut curl = curl.expect("curl can be started");
    let mut lines = BufReader::new(curl.stdout.take().expect("it is piped")).lines();
    let mut object = || -> Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(
        object(),
        json!({"type": "room", "room": "lobby", "recovered": false, "last": "0-0"})
    );
    bob.asks(&json!({"type": "send", "room": "lobby", "text": "two\nlines"}));
    let mut told = bob.event_of("message");
    assert_eq!(object(), told.take());
    // A marker: alice comes, and she alone.
    let mut alice = Client::json(there.address(), "alice");
    let room = alice.joins("lobby");
    assert_eq!(room["members"], json!(["alice", "bob"]));
    let joined = bob.event_of("joined");
    assert_eq!(joined["user"], "alice");
    let members = get(here.address(), "/api/rooms/lobby/members").1;
    assert!(
        members.contains(r#""members":["alice","bob"]"#),
        "{members}"
    );
    post(&here, "lobby", "three");
    assert_eq!(object()["text"], "three", "no joins are told");
    curl.kill().expect("it runs");
    curl.wait().expect("its end");
    until("it has left", || {
        (metric(&there, "hubbub_connections") == 2).then_some(())
    });
    alice.leaves();
    assert_eq!(bob.event_of("left")["user"], "alice");
}

/// Breaks off behind the first, second and third event that it hears, and so on, also right behind the `room`, and
/// comes back to the other instance. Meanwhile others speak, and the subscription is cut.
#[test]
fn who_breaks_off_and_comes_back_misses_nothing_and_hears_nothing_twice() {
    const SAID: usize = 120;
    let redis = Redis::start();
    let instances = [Hubbub::on(&redis), Hubbub::on(&redis)];
    let target = "lobby/messages?follow";
    let mut follower = Follower::of(&instances[0], target, &[]);
    // Nothing was said yet, so this is all that it knows.
    assert_eq!(follower.hears().id, "0-0");
    let speaker = Speaker::enter(&instances[1].url(), "speaker", "lobby");
    let (seen, said) = thread::scope(|scope| {
        let speaking = scope.spawn(|| {
            let lines = (0..SAID).map(|n| {
                let text = format!("line {n}");
                if n % 20 == 10 {
                    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                }
                (speaker.says(&text), text)
            });
            let mut said: BTreeMap<MessageId, String> = lines.collect();
            said.insert(speaker.says("the end"), "the end".to_owned());
            said
        });
        let mut seen = Vec::new();
        let mut breaks = 0;
        'all: loop {
            follower = follower.again(&instances[breaks % 2], target);
            for _ in 0..=breaks % 5 {
                let heard = follower.hears();
                match &*heard.kind {
                    "" => {
                        let id = heard.id.parse().expect("an id");
                        let text = heard.data["text"].as_str().expect("a text").to_owned();
                        let is_last = text == "the end";
                        seen.push(Seen::Message(id, text));
                        if is_last {
                            break 'all;
                        }
                    }
                    "room" => assert_eq!(heard.data["recovered"], true, "{heard:?}"),
                    _ => panic!("{heard:?}"),
                }
            }
            breaks += 1;
        }
        assert!(breaks > 20, "{breaks}");
        (seen, speaking.join().expect("no panic"))
    });
    assert_eq!(faults(&seen, &said), Vec::<String>::new());
    assert_eq!(seen.len(), said.len());
}

#[test]
fn the_past_comes_first_and_each_record_says_where_to_go_on() {
    let hubbub = Hubbub::alone();
    let ids: Vec<_> = ["one", "two", "three"]
        .map(|text| post(&hubbub, "lobby", text))
        .into();
    // From now on: a break right behind the first event loses nothing.
    let mut from_now = Follower::of(&hubbub, "lobby/messages?follow&history=0", &[]);
    assert_eq!(from_now.hears().id, ids[2]);
    let mut some = Follower::of(&hubbub, "lobby/messages?history=2&follow=", &[]);
    assert_eq!(some.hears().id, ids[0], "right before what follows");
    assert_eq!(some.hears_text(), "two");
    // The field is where the browser is now; the address is where it began.
    let target = format!("lobby/messages?follow&since={}", ids[0]);
    let field = format!("Last-Event-ID: {}", ids[1]);
    let mut later = Follower::of(&hubbub, &target, &[&field]);
    let room = later.hears();
    assert_eq!(
        (&*room.id, &room.data["recovered"]),
        (&*ids[1], &json!(true))
    );
    assert_eq!(later.hears_text(), "three");
    let mut since = Follower::of(&hubbub, &target, &[LINES]);
    let told: Vec<_> = (0..3).filter_map(|_| since.object()).collect();
    let room = json!({"type": "room", "room": "lobby", "recovered": true, "last": ids[0]});
    assert_eq!(told[0], room);
    assert_eq!(
        (&told[1]["text"], &told[2]["text"]),
        (&json!("two"), &json!("three"))
    );
    post(&hubbub, "lobby", "four");
    assert_eq!(from_now.hears_text(), "four");
    assert_eq!(
        (some.hears_text(), some.hears_text()),
        ("three".into(), "four".into())
    );
    assert_eq!(since.object().expect("an object")["text"], "four");
}

/// A long past is sent piece by piece, and what is said meanwhile comes behind it.
#[test]
fn a_past_that_is_longer_than_the_first_piece_is_followed_by_all_that_is_said_meanwhile() {
    let hubbub = Hubbub::with(&["--max-message", "4096", "--outbox-bytes", "65536"]);
    let long = "x".repeat(1000);
    for n in 0..100 {
        post(&hubbub, "lobby", &format!("{n} {long}"));
    }
    let mut follower = Follower::of(&hubbub, "lobby/messages?follow&since=0-0", &[]);
    let mut expected = 0;
    for n in 100..150 {
        post(&hubbub, "lobby", &format!("{n} {long}"));
    }
    assert_eq!(follower.hears().kind, "room");
    while expected < 150 {
        assert_eq!(follower.hears_text(), format!("{expected} {long}"));
        expected += 1;
    }
}

#[test]
fn what_cannot_be_resumed_is_told_first_and_told_once() {
    let hubbub = Hubbub::with(&["--history-length", "3"]);
    let first = post(&hubbub, "lobby", "0");
    for n in 1..6 {
        post(&hubbub, "lobby", &n.to_string());
    }
    let target = format!("lobby/messages?follow&since={first}");
    let mut follower = Follower::of(&hubbub, &target, &[]);
    assert_eq!(follower.hears().data["recovered"], false);
    // It breaks off there, and goes on with what is kept.
    let mut again = follower.again(&hubbub, &target);
    assert_eq!(again.hears().data["recovered"], true);
    let texts: Vec<_> = (0..3).map(|_| again.hears_text()).collect();
    assert_eq!(texts, ["3", "4", "5"]);
}

#[test]
fn what_was_trimmed_while_the_instance_was_cut_off_is_told_as_a_gap() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.port());
    let keep = ["--history-length", "10"];
    let here = Hubbub::with(&[&["--redis", &proxy.url()], &keep[..]].concat());
    let there = Hubbub::on_with(&redis, &keep);
    let mut follower = Follower::of_lobby(&here);
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    speaker.says("before");
    assert_eq!(follower.hears_text(), "before");
    let id = follower.last_id.clone();
    proxy.cut();
    for n in 0..300 {
        speaker.says(&format!("lost or kept {n}"));
    }
    proxy.mend();
    let gap = follower.hears();
    assert_eq!((&*gap.kind, &gap.data["after"]), ("gap", &json!(id)));
    // Whoever breaks off here is told again, rather than not at all.
    assert_eq!(gap.id, id);
    assert_eq!(gap.data["before"], follower.hears().id);
}

#[test]
fn who_never_reads_is_let_go_and_counted_and_the_others_hear_everything() {
    let hubbub = Hubbub::with(&["--max-message", "4096", "--outbox-bytes", "65536"]);
    let mut good = Follower::of_lobby(&hubbub);
    let mut alice = hubbub.join("alice");
    let mut stuck = Follower::of_lobby(&hubbub);
    let long = "x".repeat(4000);
    let mut said = 0;
    until("the one that never reads is let go", || {
        for _ in 0..50 {
            let text = format!("{said} {long}");
            alice.says(&text);
            assert_eq!(good.hears_text(), text);
            said += 1;
        }
        (metric(&hubbub, "hubbub_slow_consumers_total") == 1).then_some(())
    });
    let mut heard = stuck.ends();
    // It is told why, unless it took too long for that, too.
    if let Some(closed) = heard.pop_if(|last| last.kind == "closed") {
        assert_eq!(closed.data["code"], 1013);
    }
    // It comes back, and has missed nothing.
    let mut again = stuck.again(&hubbub, "lobby/messages?follow");
    assert_eq!(again.hears().data["recovered"], true);
    assert!(heard.len() < said, "{said}");
    assert_eq!(again.hears_text(), format!("{} {long}", heard.len()));
}

#[test]
fn a_drain_says_when_to_come_back() {
    let mut hubbub = Hubbub::alone();
    let mut browser = Follower::of_lobby(&hubbub);
    let retry = browser.retry.expect("a time from the beginning");
    assert!((1000..=2000).contains(&retry), "{retry}");
    let mut lines = Follower::of(&hubbub, "lobby/messages?follow", &[LINES]);
    assert_eq!(lines.object().expect("an object")["type"], "room");
    hubbub.signal(Signal::SIGTERM);
    let closing = browser.hears();
    assert_eq!(closing.kind, "closing");
    let wait = closing.data["retry_after_ms"].as_u64();
    assert!(
        wait.is_some_and(|wait| (500..=1000).contains(&wait)),
        "{closing:?}"
    );
    assert_eq!(browser.retry, wait);
    let closed = json!({"type": "closed", "code": 1012, "reason": "the server is restarting"});
    assert_eq!(browser.hears().data, closed);
    assert_eq!(browser.hears_or_ends(), None);
    let told: Vec<_> = std::iter::from_fn(|| lines.object()).collect();
    let kinds: Vec<_> = told.iter().map(|one| &one["type"]).collect();
    assert_eq!(kinds, ["closing", "closed"]);
    assert_eq!(hubbub.ends().code(), Some(0));
}

#[test]
fn a_token_lets_its_user_follow_its_rooms_until_it_expires() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET]);
    let follow = |room: &str, token: &str| {
        Follower::of(
            &hubbub,
            &format!("{room}/messages?follow&token={token}"),
            &[],
        )
    };
    let reader = token(&["alice", "--room", "ops", "--read-only", "--life", "2"]);
    for (room, token, status) in [("ops", "", "401"), ("lobby", &*reader, "403")] {
        let refused = follow(room, token).head;
        assert!(
            refused.starts_with(&format!("HTTP/1.1 {status} ")),
            "{refused}"
        );
    }
    let mut alice = follow("ops", &reader);
    let kinds: Vec<_> = alice.ends().into_iter().map(|one| one.data).collect();
    assert_eq!(kinds[0]["type"], "room");
    assert!(
        kinds.iter().any(|one| one["type"] == "expiring"),
        "{kinds:?}"
    );
    let closed = json!({"type": "closed", "code": 4001, "reason": "the token has expired"});
    assert_eq!(kinds.last(), Some(&closed));
}

#[test]
fn an_operator_sees_followers_and_puts_them_out() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET, "--admin-secret", OPERATORS]);
    let follow = |user: &str| {
        let target = format!("den/messages?follow&token={}", token(&[user]));
        let mut follower = Follower::of(&hubbub, &target, &[]);
        follower.head.starts_with("HTTP/1.1 200 ").then(|| {
            assert_eq!(follower.hears().kind, "room");
            follower
        })
    };
    let end = |follower: &mut Option<Follower>| {
        let told = follower.as_mut().expect("it was let in").ends();
        let told: Vec<_> = told.into_iter().map(|one| one.data).collect();
        let [closing, closed] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(closed["code"], 4002, "{told:?}");
        closing["reason"].as_str().expect("a reason").to_owned()
    };
    let (mut alice, mut bob) = (follow("alice"), follow("bob"));
    let listed = operate(&hubbub, "GET", "connections", "");
    let (one, rooms) = (&listed["connections"][0], json!(["den"]));
    assert_eq!((&one["user"], &one["rooms"]), (&json!("alice"), &rooms));
    let rooms = operate(&hubbub, "GET", "rooms", "");
    assert_eq!(rooms["rooms"], json!([{"room": "den", "users": []}]));
    operate(&hubbub, "POST", "users/alice/disconnect", "");
    assert_eq!(end(&mut alice), "an operator disconnected this user");
    let mut alice = follow("alice");
    let hour = json!({"seconds": 3600, "reason": "spam"}).to_string();
    operate(&hubbub, "PUT", "bans/alice", &hour);
    assert!(end(&mut alice).ends_with(": spam"));
    assert!(follow("alice").is_none());
    let bearer = format!("Authorization: Bearer {}", token(&["bob"]));
    let said = request(
        hubbub.address(),
        &format!(
            "POST /api/rooms/den/messages HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\nContent-Length: 1\r\n\r\nx"
        ),
    );
    let id = bob.as_mut().expect("it was let in").hears().id;
    assert!(said.1.contains(&id), "{said:?}");
    operate(&hubbub, "DELETE", &format!("rooms/den/messages/{id}"), "");
    let deleted = bob.as_mut().expect("it was let in").hears();
    assert_eq!(
        (&*deleted.kind, &deleted.data["ids"]),
        ("deleted", &json!([id]))
    );
    operate(&hubbub, "PUT", "closed/den", &hour);
    assert!(end(&mut bob).ends_with(": spam"));
    assert!(follow("bob").is_none());
}

#[test]
fn without_a_user_a_follower_is_listed_with_a_dash() {
    let hubbub = Hubbub::with(&["--admin-secret", OPERATORS]);
    let _follower = Follower::of_lobby(&hubbub);
    let url = hubbub.url();
    let output = run(&["admin", "connections", "--url", &url, "--secret", OPERATORS]);
    let line = String::from_utf8(output.stdout).expect("text");
    let fields: Vec<_> = line.trim_end().split('\t').collect();
    assert_eq!(
        (fields[1], fields[2], fields[4]),
        ("-", "127.0.0.1", "lobby"),
        "{line}"
    );
    let output = run(&["admin", "users", "--url", &url, "--secret", OPERATORS]);
    assert_eq!(output.stdout, b"", "{output:?}");
}

#[test]
fn the_heads_are_what_proxies_and_browsers_need() {
    let hubbub = Hubbub::with(&["--allow-origin", "https://pages.example"]);
    let origin = ["Origin: https://pages.example"];
    let head = Follower::of(&hubbub, "lobby/messages?follow", &origin).head;
    for field in [
        "Content-Type: text/event-stream",
        "Cache-Control: no-store",
        "X-Accel-Buffering: no",
        "Connection: close",
        "Access-Control-Allow-Origin: https://pages.example",
    ] {
        assert!(
            head.contains(&format!("\r\n{field}\r\n")),
            "{field}: {head}"
        );
    }
    assert!(!head.contains("Content-Length"), "{head}");
    let lines = Follower::of(
        &hubbub,
        "lobby/messages?follow",
        &["Accept: a/b, Application/X-NDJSON;q=1"],
    );
    assert!(
        lines
            .head
            .contains("Content-Type: application/x-ndjson\r\n")
    );
    let ask = |method: &str, query: &str, field: &str| {
        let target = format!("/api/rooms/lobby/messages?{query}");
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
        request(hubbub.address(), &head)
    };
    // These end at once, so nobody follows.
    assert_eq!(ask("HEAD", "follow", "A: b"), (200, String::new()));
    let ends = "Content-Length: 1\r\n\r\nx";
    assert_eq!(ask("POST", "follow&user=ci", ends).0, 201);
    for (query, field, word) in [
        ("follow&limit=3", "A: b", "no limit"),
        ("follow&after=1-0", "A: b", "no after"),
        ("follow&since=x", "A: b", "bad since"),
        ("follow&history=-1", "A: b", "bad history"),
        ("follow", "Last-Event-ID: x", "bad Last-Event-ID"),
    ] {
        let (status, body) = ask("GET", query, field);
        assert!(status == 400 && body.contains(word), "{query}: {body}");
    }
    let foreign = ask("GET", "follow", "Origin: https://evil.example");
    assert_eq!(foreign.0, 403);
}

#[test]
fn who_comes_too_often_is_told_when_to_come_back() {
    let limits = [
        "--command-rate",
        "1",
        "--command-burst",
        "2",
        "--send-rate",
        "1",
    ];
    let secret = ["--token-secret", SECRET];
    let hubbub = Hubbub::with(&[&limits[..], &secret].concat());
    let target = format!("lobby/messages?follow&token={}", token(&["alice"]));
    let follow = |fields: &[&str]| Follower::of(&hubbub, &target, fields);
    let _two = [follow(&[]), follow(&[])];
    let refused = follow(&[]).head;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    // Any other status would end a browser's attempts for ever.
    let mut browser = follow(&["Accept: text/event-stream"]);
    assert!(
        browser.head.starts_with("HTTP/1.1 200 "),
        "{}",
        browser.head
    );
    let told = browser.ends();
    assert_eq!(
        (&*told[0].kind, &told[0].data["code"]),
        ("refused", &json!("too_fast"))
    );
    assert_eq!(browser.retry, told[0].data["retry_after_ms"].as_u64());
    assert_eq!(told[1].data["code"], 1013);
    assert_eq!(told.len(), 2);
}

#[test]
fn while_redis_is_away_a_browser_is_told_and_comes_back() {
    let mut redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    redis.kill();
    let mut follower = Follower::of(&hubbub, "lobby/messages?follow", &[]);
    let told = follower.ends();
    assert_eq!(
        (&*told[0].kind, &told[0].data["code"]),
        ("refused", &json!("unavailable"))
    );
    assert_eq!(told[1].data["code"], 1013);
    assert_eq!(told.len(), 2);
}

#[test]
fn a_heartbeat_tells_nothing_and_needs_no_answer() {
    let hubbub = Hubbub::with(&["--ping-interval", "1"]);
    let mut browser = Follower::of_lobby(&hubbub);
    let mut lines = Follower::of(&hubbub, "lobby/messages?follow", &[LINES]);
    lines.object().expect("the room");
    for _ in 0..2 {
        assert_eq!(browser.line().as_deref(), Some(":"));
        assert_eq!(lines.line().as_deref(), Some(""));
    }
}

#[test]
fn what_a_follower_sends_means_nothing_and_too_much_of_it_ends_it() {
    let hubbub = Hubbub::alone();
    let mut follower = Follower::of_lobby(&hubbub);
    let mut socket = follower.lines.get_ref().try_clone().expect("a handle");
    let second = "GET /api/rooms/other/messages?follow HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(second.as_bytes()).expect("it is taken");
    post(&hubbub, "lobby", "still here");
    assert_eq!(follower.hears_text(), "still here");
    until("it is taken no more", || {
        socket.write_all(&[b'x'; 4096]).is_err().then_some(())
    });
    // What it was told may be lost with the reset.
    until("it is gone", || {
        let log = hubbub.log();
        log.contains("follows no more: a follower only listens")
            .then_some(())
    });
    assert_eq!(metric(&hubbub, "hubbub_protocol_errors_total"), 1);
}

#[test]
fn who_ends_its_own_side_or_breaks_off_is_gone_at_once() {
    let hubbub = Hubbub::alone();
    let mut follower = Follower::of_lobby(&hubbub);
    let socket = follower.lines.get_ref();
    socket.shutdown(std::net::Shutdown::Write).expect("an end");
    let mut rest = String::new();
    follower.lines.read_to_string(&mut rest).expect("text");
    assert!(rest.contains(r#""code":1000"#), "{rest}");
    drop(Follower::of_lobby(&hubbub));
    until("both are gone", || {
        let log = hubbub.log();
        (log.matches("follows no more: the client broke off").count() == 2).then_some(())
    });
    assert_eq!(metric(&hubbub, "hubbub_rooms"), 0);
}
