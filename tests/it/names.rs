//! Names that look alike: nobody is refused, and everybody is told.

use serde_json::json;

use crate::support::client::{Client, get, request};
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;
use crate::support::terminal::Terminal;
use crate::support::until;

/// `аlice`, whose first letter is Cyrillic.
const FALSE: &str = "\u{430}lice";
const IN_ADDRESS: &str = "%D0%B0lice";

#[test]
fn who_looks_like_a_user_of_another_instance_has_a_sign_in_every_list_notice_and_line() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = here.join("alice");
    let mut bob = here.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    let mut program = Client::json(here.address(), "program");
    assert_eq!(program.joins("lobby")["alike"], json!(null));
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.hears(), "* program joined");
    }

    let mut other = there.join(IN_ADDRESS);
    let alike = format!("* these names look alike: alice, {FALSE} with U+0430");
    assert_eq!(other.hears(), alike, "it is told as well");
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.hears(), format!("* {FALSE} joined"));
        assert_eq!(client.hears(), alike);
    }
    let joined = program.event_of("joined");
    assert_eq!(joined["user"], FALSE);
    assert_eq!(joined["looks_like"], "alice");

    other.says("give me the key");
    assert_eq!(bob.hears(), format!("{FALSE}, not alice: give me the key"));
    let message = program.event_of("message");
    assert_eq!(message["from"], FALSE);
    assert_eq!(message["looks_like"], "alice");
    // Nobody can tell which of the two is meant to deceive.
    assert_eq!(
        alice.hears(),
        format!("{FALSE}, not alice: give me the key")
    );
    alice.says("do not");
    assert_eq!(bob.hears(), format!("alice, not {FALSE}: do not"));
    bob.says("/who");
    assert_eq!(
        bob.hears(),
        format!("* online: alice, bob, program, {FALSE}")
    );
    assert_eq!(bob.hears(), alike);
    program.asks(&json!({"type": "members", "room": "lobby"}));
    let groups = json!([["alice", FALSE]]);
    assert_eq!(program.event_of("members")["alike"], groups);
    // Nobody is in the room on the third.
    for instance in [&here, &there, &Hubbub::on(&redis)] {
        let (_, members) = get(instance.address(), "/api/rooms/lobby/members");
        let members: serde_json::Value = serde_json::from_str(&members).expect("JSON");
        assert_eq!(members["alike"], groups);
    }
    let mut late = Client::json(there.address(), "late");
    assert_eq!(late.joins("lobby")["alike"], groups);

    other.leaves();
    assert_eq!(bob.hears(), "* late joined");
    assert_eq!(bob.hears(), format!("* {FALSE} left"));
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: alice, bob, late, program");
    for line in ["* late joined", &*format!("* {FALSE} left")] {
        assert_eq!(alice.hears(), line);
    }
    alice.says("alone again");
    assert_eq!(bob.hears(), "alice: alone again");
}

#[test]
fn the_same_user_on_many_connections_has_no_sign() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut bob = here.join("bob");
    let mut alice = here.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    let mut tab = there.join("alice");
    tab.says("from the other tab");
    assert_eq!(bob.hears(), "alice: from the other tab");
    assert_eq!(alice.hears(), "alice: from the other tab");
}

#[test]
fn a_post_under_a_name_that_looks_like_a_members_has_a_sign() {
    let hubbub = Hubbub::alone();
    let mut alice = hubbub.join("alice");
    let post = |user: &str| {
        let head = format!(
            "POST /api/rooms/lobby/messages?user={user} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
        );
        assert_eq!(request(hubbub.address(), &head).0, 201);
    };
    post("ALICE");
    assert_eq!(alice.hears(), "ALICE, not alice: hi");
    post("ci");
    assert_eq!(alice.hears(), "ci: hi");
}

#[test]
fn in_a_crowd_lines_and_lists_have_their_sign_although_nobody_is_announced() {
    let hubbub = Hubbub::with(&["--fanout-workers", "1"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let crowd: Vec<_> = (0..260)
        .map(|n| {
            let mut client = Client::json(hubbub.address(), &format!("u{n:03}"));
            client.joins("lobby");
            client
        })
        .collect();
    let mut other = Client::json(hubbub.address(), IN_ADDRESS);
    assert_eq!(other.joins("lobby")["alike"], json!([["alice", FALSE]]));
    other.asks(&json!({"type": "send", "room": "lobby", "text": "hello"}));
    assert_eq!(alice.event_of("message")["looks_like"], "alice");
    drop(crowd);
    // The crowd leaves at once; who stays keeps the sign.
    until("they are gone", || {
        alice.asks(&json!({"type": "members", "room": "lobby"}));
        let members = alice.event_of("members");
        let few = members["members"].as_array().expect("a list").len() == 2;
        few.then(|| assert_eq!(members["alike"], json!([["alice", FALSE]])))
    });
}

#[test]
fn the_commands_show_the_sign() {
    let hubbub = Hubbub::alone();
    let mut alice = hubbub.join("alice");
    let mut join = Terminal::start(&["join", FALSE, "--url", &hubbub.url(), "--color", "always"]);
    for line in [
        format!("* {FALSE} joined"),
        format!("* these names look alike: alice, {FALSE} with U+0430"),
    ] {
        assert_eq!(alice.hears(), line);
    }
    shows(&mut join, "online: alice, ");
    shows(&mut join, "these names look alike: ");
    let mut tail = Terminal::start(&["tail", "--url", &hubbub.url(), "--count", "1"]);
    assert_eq!(alice.hears(), "* tail joined");
    shows(&mut join, "tail joined");
    alice.says("that is somebody else");
    let said = format!("alice, not {FALSE}:");
    shows(&mut join, &said);
    assert_eq!(tail.prints(), format!("{said} that is somebody else"));
}

fn shows(terminal: &mut Terminal, words: &str) {
    let line = terminal.prints();
    assert!(line.contains(words), "{line:?}");
}
