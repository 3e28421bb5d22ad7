//! What the commands make of events that no server says at will.

use std::process::Output;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::hubbub::run;
use crate::support::puppet::{Conversation, Puppet};
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

/// A `hubbub say` whose text the server has, and its ref.
fn said(puppet: &Puppet, timeout: &'static str) -> (Conversation, JoinHandle<Output>, Value) {
    let say = say(puppet, timeout);
    let mut server = puppet.welcomes("alice");
    server.lets_in(json!({"messages": [], "recovered": false, "last": null}));
    let sent = server.hears("send");
    assert_eq!(sent["text"], "hello");
    let mine = sent["ref"].clone();
    (server, say, mine)
}

#[test]
fn an_error_about_something_else_does_not_end_say() {
    let puppet = Puppet::start();
    let (mut server, say, mine) = said(&puppet, "20");
    let error = json!({"type": "error", "code": "refused", "message": "no", "retry": false});
    for (field, value) in [("ref", "another"), ("room", "elsewhere"), ("room", "lobby")] {
        let mut error = error.clone();
        error[field] = value.into();
        server.says(&error);
    }
    server.says(&json!({
        "type": "sent", "ref": mine, "room": "lobby", "id": "1-0", "duplicate": false
    }));
    assert_eq!(ends(say), (Some(0), String::new()));
}

#[test]
fn say_tells_how_it_went() {
    let puppet = Puppet::start();
    let (mut server, refused, mine) = said(&puppet, "20");
    server.says(&json!({
        "type": "error", "code": "refused", "message": "not sent: no", "ref": mine, "retry": false
    }));
    let fails = |with: &str| (Some(1), format!("hubbub: {with}\n"));
    assert_eq!(ends(refused), fails("not sent: no"));
    // Once the server has it and does not answer, nobody knows.
    let (_server, unanswered, _) = said(&puppet, "1");
    let doubt = "not confirmed: it may have been sent or not: the time is up";
    assert_eq!(ends(unanswered), fails(doubt));
    let say = say(&puppet, "20");
    let mut server = puppet.welcomes("alice");
    server.hears("join");
    server.says(&json!({
        "type": "error", "code": "forbidden", "message": "the room is closed", "room": "lobby",
        "retry": false
    }));
    assert_eq!(ends(say), fails("not sent: the room is closed"));
}

#[test]
fn say_that_is_refused_once_the_server_has_the_text_does_not_call_it_unsent() {
    let puppet = Puppet::start();
    let at = puppet.url();
    let fails = |with: &str| (Some(1), format!("hubbub: {with}\n"));
    let (server, refused, _) = said(&puppet, "20");
    drop(server);
    puppet.refuses();
    let doubt = format!("not confirmed: it may have been sent or not: {at} refuses (401): no");
    assert_eq!(ends(refused), fails(&doubt));
    let refused = say(&puppet, "20");
    puppet.refuses();
    assert_eq!(
        ends(refused),
        fails(&format!("not sent: {at} refuses (401): no"))
    );
    let (server, closed, _) = said(&puppet, "20");
    drop(server);
    let mut server = puppet.welcomes("alice");
    server.hears("join");
    server.says(&json!({
        "type": "error", "code": "forbidden", "message": "the room is closed", "room": "lobby",
        "retry": false
    }));
    let doubt = "not confirmed: it may have been sent or not: the room is closed";
    assert_eq!(ends(closed), fails(doubt));
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

#[test]
fn a_server_that_asks_for_a_wait_before_a_join_or_a_send_gets_it() {
    // Longer than the client waits by itself.
    const WAIT: Duration = Duration::from_millis(900);
    let puppet = Puppet::start();
    let say = say(&puppet, "20");
    let mut server = puppet.welcomes("alice");
    let too_fast = |about: &Value| {
        json!({
            "type": "error", "code": "too_fast", "message": "too fast", "room": "lobby",
            "ref": about["ref"], "retry": true, "retry_after_ms": WAIT.as_millis() as u64
        })
    };
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
    assert_eq!(ends(say), (Some(0), String::new()));
}
