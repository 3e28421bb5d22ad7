//! What the commands make of events that no server says at will.

use std::process::Output;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::hubbub::run;
use crate::support::puppet::Puppet;
use crate::support::terminal::Terminal;

/// A `hubbub say`, which runs meanwhile.
fn say(puppet: &Puppet, timeout: &'static str) -> JoinHandle<Output> {
    let url = puppet.url();
    thread::spawn(move || run(&["say", "alice", "hello", "--url", &url, "--timeout", timeout]))
}

/// The exit code, and what is told on stderr.
fn ends(say: JoinHandle<Output>) -> (Option<i32>, String) {
    let output = say.join().expect("it ends");
    let told = String::from_utf8(output.stderr).expect("text");
    (output.status.code(), told)
}

/// An answer that refuses.
fn error(message: &str) -> String {
    json!({"type": "error", "code": "refused", "message": message, "retry": false}).to_string()
}

fn fails(with: &str) -> (Option<i32>, String) {
    (Some(1), format!("hubbub: {with}\n"))
}

#[test]
fn say_posts_its_text_under_one_ref_until_the_server_has_stored_it() {
    let puppet = Puppet::start();
    let say = say(&puppet, "20");
    let first = puppet.takes_a_post();
    assert!(
        first
            .head
            .starts_with("POST /api/rooms/lobby/messages?user=alice HTTP/1.1\r\n"),
        "{}",
        first.head
    );
    assert_eq!(first.body, "hello");
    let mine = first.field("Idempotency-Key").map(str::to_owned);
    assert!(mine.is_some(), "{}", first.head);
    let again = || {
        let post = puppet.takes_a_post();
        assert_eq!(post.field("Idempotency-Key"), mine.as_deref());
        post
    };
    // Without an answer; away; a proxy before one that is away; a full server.
    drop(first);
    again().answer(503, "Retry-After: 0\r\n", &error("not sent: away"));
    again().answer(502, "", "<html>\n");
    again().answer(503, "", "full\n");
    again().stores();
    assert_eq!(ends(say), (Some(0), String::new()));
}

#[test]
fn ready_asks_a_server_that_starts_until_it_is_ready() {
    let puppet = Puppet::start();
    let url = puppet.url();
    let ready = thread::spawn(move || run(&["ready", "--url", &url]));
    drop(puppet.takes_a_post());
    puppet.takes_a_post().answer(503, "", "Redis is away");
    let asked = puppet.takes_a_post();
    assert!(asked.head.starts_with("GET /readyz "), "{}", asked.head);
    asked.answer(200, "", "ready");
    assert_eq!(ends(ready), (Some(0), String::new()));
    // What will not pass is told at once.
    let url = puppet.url();
    let ready = thread::spawn(move || run(&["ready", "--url", &url]));
    puppet.takes_a_post().answer(404, "", "what is that");
    let why = format!("{} is not ready (404): what is that", puppet.url());
    assert_eq!(ends(ready), fails(&why));
}

#[test]
fn say_tells_how_it_went() {
    let puppet = Puppet::start();
    let refused = say(&puppet, "20");
    let refusal = error("not sent: no\u{1b}[2J");
    puppet.takes_a_post().answer(500, "", &refusal);
    assert_eq!(ends(refused), fails("not sent: no\u{fffd}[2J"));
    let at = puppet.url();
    for (status, body, why) in [
        (401, "no", ": no"),
        (403, &*error("the room is closed"), ": the room is closed"),
        (404, "<html>\nno\n</html>", ""),
    ] {
        let refused = say(&puppet, "20");
        puppet.takes_a_post().answer(status, "", body);
        let why = format!("not sent: {at} refuses ({status}){why}");
        assert_eq!(ends(refused), fails(&why));
    }
    let away = say(&puppet, "1");
    let whole_second = "Retry-After: 1\r\n";
    puppet
        .takes_a_post()
        .answer(503, whole_second, &error("not sent: away"));
    assert_eq!(ends(away), fails("not sent: away"));
}

#[test]
fn say_whose_text_the_server_may_have_does_not_call_it_unsent() {
    let puppet = Puppet::start();
    let (at, doubt) = (puppet.url(), "not confirmed: it may have been sent or not");
    let unanswered = say(&puppet, "1");
    let _post = puppet.takes_a_post();
    assert_eq!(
        ends(unanswered),
        fails(&format!("{doubt}: {at} gives no answer in time"))
    );
    // Nor if it is refused later.
    for is_answered in [false, true] {
        let refused = say(&puppet, "20");
        let first = puppet.takes_a_post();
        match is_answered {
            true => first.answer(504, "", &error("it may have been sent or not: silence")),
            false => drop(first),
        }
        puppet.takes_a_post().answer(401, "", "no");
        assert_eq!(
            ends(refused),
            fails(&format!("{doubt}: {at} refuses (401): no"))
        );
    }
    // It is told what the last attempt met, by servers of today and of before.
    for told in [
        "not sent: silence, try again",
        "it may have been sent or not: silence, try again with the same ref",
    ] {
        let cut = say(&puppet, "1");
        let post = puppet.takes_a_post();
        post.answer(504, "Retry-After: 1\r\n", &error(told));
        assert_eq!(ends(cut), fails(&format!("{doubt}: silence, try again")));
    }
}

#[test]
fn what_is_no_http_server_is_not_asked_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let say = {
        let url = url.clone();
        thread::spawn(move || run(&["say", "alice", "hello", "--url", &url]))
    };
    let (mut stream, _) = listener.accept().expect("a connection");
    std::io::Write::write_all(&mut stream, b"SSH-2.0-x\r\n").expect("it can be sent");
    drop(stream);
    assert_eq!(
        ends(say),
        fails(&format!("not sent: {url} is not an HTTP server"))
    );
}

#[test]
fn a_room_that_is_closed_to_its_members_ends_the_conversation() {
    let puppet = Puppet::start();
    let mut bob = Terminal::start(&["join", "bob", "--url", &puppet.url()]);
    let mut server = puppet.welcomes("bob");
    server.lets_in(json!({"messages": [], "recovered": false, "last": null}));
    assert_eq!(bob.prints(), "* online: ");
    drop(server);
    let mut server = puppet.welcomes("bob");
    server.hears("join");
    server.says(&json!({
        "type": "error", "code": "forbidden", "message": "the room is closed", "room": "lobby",
        "retry": false
    }));
    let status = bob.ends_by_itself();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_server_that_started_anew_is_told_of_once() {
    let puppet = Puppet::start();
    let url = puppet.url();
    for (arguments, online) in [
        (&["join", "bob", "--url", &url][..], &["* online: "][..]),
        (&["tail", "--as", "bob", "--url", &url], &[]),
    ] {
        let mut bob = Terminal::start(arguments);
        let message = |number: u32| json!({"id": format!("{number}-0"), "from": "alice", "text": number.to_string(), "at": 0});
        let mut server = puppet.welcomes("bob");
        server.lets_in(json!({"messages": [message(7)], "recovered": false, "last": "7-0"}));
        drop(server);
        let mut server = puppet.welcomes("bob");
        // The clock may have been set back.
        server.lets_in(json!({
            "messages": [message(3)], "recovered": false, "anew": true, "last": "3-0"
        }));
        let first = online.iter().chain(&["alice: 7"]);
        let anew = &["* the server started anew; earlier messages are gone"];
        let again = anew.iter().chain(online).chain(&["alice: 3"]);
        for line in first.chain(again) {
            assert_eq!(bob.prints(), *line, "{arguments:?}");
        }
    }
}

/// Longer than a client waits by itself.
const WAIT: Duration = Duration::from_millis(900);

fn too_fast(about: &Value) -> Value {
    json!({
        "type": "error", "code": "too_fast", "message": "too fast", "room": "lobby",
        "ref": about["ref"], "retry": true, "retry_after_ms": WAIT.as_millis() as u64
    })
}

#[test]
fn a_server_that_asks_for_a_wait_before_a_join_or_a_send_gets_it() {
    let puppet = Puppet::start();
    let mut alice = Terminal::start(&["join", "alice", "--url", &puppet.url()]);
    alice.types("hello");
    let mut server = puppet.welcomes("alice");
    for kind in ["join", "send"] {
        let asked = server.hears(kind);
        server.says(&too_fast(&asked));
        let refused = Instant::now();
        match kind {
            "join" => server.lets_in(json!({"messages": [], "recovered": false, "last": null})),
            _ => assert_eq!(server.hears(kind)["ref"], asked["ref"]),
        }
        assert!(refused.elapsed() >= WAIT, "{:?}", refused.elapsed());
        if kind == "send" {
            server.says(&json!({
                "type": "sent", "ref": asked["ref"], "room": "lobby", "id": "1-0", "duplicate": false
            }));
        }
    }
    assert!(alice.ends().0.success());
}

#[test]
fn a_server_that_asks_for_a_wait_before_a_post_gets_it() {
    let puppet = Puppet::start();
    let say = say(&puppet, "20");
    // The event is more exact than the field.
    let body = too_fast(&json!({})).to_string();
    puppet
        .takes_a_post()
        .answer(429, "Retry-After: 9\r\n", &body);
    let mut refused = Instant::now();
    let second = puppet.takes_a_post();
    assert!(
        (WAIT..9 * WAIT).contains(&refused.elapsed()),
        "{:?}",
        refused.elapsed()
    );
    second.answer(503, "Retry-After: 1\r\n", "full");
    refused = Instant::now();
    puppet.takes_a_post().stores();
    assert!(refused.elapsed() >= WAIT, "{:?}", refused.elapsed());
    assert_eq!(ends(say), (Some(0), String::new()));
}
