//! The past: pages, resuming, and the text encoding's part of it.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

/// Runs the same test on both backplanes.
fn on_both(arguments: &[&str], test: impl Fn(&Hubbub)) {
    test(&Hubbub::with(arguments));
    let redis = Redis::start();
    test(&Hubbub::on_with(&redis, arguments));
}

fn say(client: &mut Client, room: &str, text: &str) -> Value {
    client.asks(&json!({"type": "send", "room": room, "text": text}));
    client.event_of("sent")["id"].clone()
}

fn texts(messages: &Value) -> Vec<&str> {
    let messages = messages.as_array().expect("messages");
    messages
        .iter()
        .map(|m| m["text"].as_str().expect("text"))
        .collect()
}

#[test]
fn pages_lead_to_the_start_of_the_log_and_back() {
    on_both(&[], |hubbub| {
        let mut alice = Client::json(hubbub.address(), "alice");
        alice.joins("lobby");
        for n in 0..25 {
            say(&mut alice, "lobby", &n.to_string());
        }
        let mut page = |request: Value| {
            alice.asks(&request);
            alice.event_of("history")
        };
        let newest = page(json!({"type": "history", "room": "lobby", "limit": 10}));
        assert_eq!(texts(&newest["messages"])[0], "15");
        assert_eq!(newest["more"], true);
        let before = &newest["messages"][0]["id"];
        let older =
            page(json!({"type": "history", "room": "lobby", "before": before, "limit": 10}));
        assert_eq!(texts(&older["messages"])[0], "5");
        let before = &older["messages"][0]["id"];
        let oldest =
            page(json!({"type": "history", "room": "lobby", "before": before, "limit": 10}));
        assert_eq!(texts(&oldest["messages"]), ["0", "1", "2", "3", "4"]);
        assert_eq!(oldest["more"], false);
        let after = &oldest["messages"][4]["id"];
        let back = page(json!({"type": "history", "room": "lobby", "after": after, "limit": 20}));
        assert_eq!(texts(&back["messages"]).len(), 20);
        assert_eq!(back["more"], false);
    });
}

#[test]
fn a_join_brings_the_past_that_it_asks_for() {
    on_both(&[], |hubbub| {
        let mut alice = Client::json(hubbub.address(), "alice");
        alice.joins("lobby");
        for n in 0..5 {
            say(&mut alice, "lobby", &n.to_string());
        }
        let mut bob = Client::json(hubbub.address(), "bob");
        bob.asks(&json!({"type": "join", "room": "lobby", "history": 3}));
        let entered = bob.event_of("room");
        assert_eq!(texts(&entered["messages"]), ["2", "3", "4"]);
        assert_eq!(entered["last"], entered["messages"][2]["id"]);
        let mut carol = Client::text(hubbub.address(), "/chat/carol?history=2");
        assert_eq!(carol.hears(), "* online: alice, bob, carol");
        assert_eq!(carol.hears(), "alice: 3");
        assert_eq!(carol.hears(), "alice: 4");
        carol.says("/history 1");
        assert_eq!(carol.hears(), "* the last message:");
        assert_eq!(carol.hears(), "alice: 4");
        carol.says("/history");
        assert_eq!(carol.hears(), "* the last 5 messages:");
    });
}

#[test]
fn who_comes_back_with_an_id_gets_exactly_what_was_missed() {
    on_both(&["--history-length", "20"], |hubbub| {
        let mut alice = Client::json(hubbub.address(), "alice");
        alice.joins("lobby");
        let ids: Vec<_> = (0..10)
            .map(|n| say(&mut alice, "lobby", &n.to_string()))
            .collect();
        let resume = |since: &Value| {
            let mut bob = Client::json(hubbub.address(), "bob");
            bob.asks(&json!({"type": "join", "room": "lobby", "since": since}));
            bob.event_of("room")
        };
        let missed = resume(&ids[6]);
        assert_eq!(texts(&missed["messages"]), ["7", "8", "9"]);
        assert_eq!(missed["recovered"], true);
        let nothing = resume(&ids[9]);
        assert_eq!(
            (texts(&nothing["messages"]).len(), &nothing["recovered"]),
            (0, &json!(true))
        );
        assert_eq!(nothing["last"], ids[9]);
        // Ids that the log never had: before all of it, when what is kept is sent, and behind all
        // of it, when the client may have seen all that is kept.
        let ancient = resume(&json!("1-0"));
        assert_eq!(
            (texts(&ancient["messages"]).len(), &ancient["recovered"]),
            (10, &json!(false))
        );
        let future = resume(&json!("9999999999999-0"));
        assert_eq!(
            (texts(&future["messages"]).len(), &future["recovered"]),
            (0, &json!(false))
        );
        let beginning = resume(&json!("0-0"));
        assert_eq!(
            (texts(&beginning["messages"]).len(), &beginning["recovered"]),
            (10, &json!(true))
        );
        for n in 10..400 {
            say(&mut alice, "lobby", &n.to_string());
        }
        let trimmed = resume(&ids[9]);
        assert_eq!(trimmed["recovered"], false);
        assert_eq!(texts(&trimmed["messages"]).last(), Some(&"399"));
        let since = ids[9].as_str().expect("an id");
        let mut carol = Client::text(hubbub.address(), &format!("/chat/carol?since={since}"));
        assert!(carol.hears().contains("missing"));
    });
}

#[test]
fn a_past_larger_than_an_outbox_arrives_whole_and_the_live_follows() {
    let limits = ["--outbox-bytes", "1048576", "--max-message", "65536"];
    on_both(&limits, |hubbub| {
        let mut alice = Client::json(hubbub.address(), "alice");
        alice.joins("lobby");
        let first = say(&mut alice, "lobby", "first");
        // Four megabytes, most of it written as six bytes for one.
        let large = "\u{1}x".repeat(9_000);
        for _ in 0..60 {
            say(&mut alice, "lobby", &large);
        }
        let mut bob = Client::json(hubbub.address(), "bob");
        bob.asks(&json!({"type": "join", "room": "lobby", "since": first}));
        let entered = bob.event_of("room");
        assert_eq!(entered["recovered"], true);
        let is_small = |event: &Value| event.to_string().len() < 1_048_576;
        assert!(is_small(&entered), "the outbox has room for it");
        let mut count = texts(&entered["messages"]).len();
        say(&mut alice, "lobby", "live");
        loop {
            let message = bob.event_of("message");
            if message["text"] == "live" {
                break;
            }
            assert_eq!(message["text"], large);
            count += 1;
        }
        assert_eq!(count, 60);
        bob.asks(&json!({"type": "history", "room": "lobby", "limit": 60}));
        let page = bob.event_of("history");
        assert_eq!(page["more"], true, "cut to what an outbox takes");
        assert!(is_small(&page));
        assert!(!texts(&page["messages"]).is_empty());
    });
}

#[test]
fn short_messages_of_many_lines_do_not_fill_the_outbox_of_who_reads_them() {
    on_both(&[], |hubbub| {
        let name = "%F0%9F%A6%80".repeat(64);
        let mut alice = Client::json(hubbub.address(), &name);
        alice.joins("lobby");
        let lines = "\n".repeat(99);
        for _ in 0..200 {
            say(&mut alice, "lobby", &lines);
        }
        let mut bob = Client::text(hubbub.address(), "/chat/bob?history=200");
        say(&mut alice, "lobby", "marker");
        // As much of the past as fits a frame, and not a 1013.
        let heard = bob.hears_until("marker");
        assert!(heard.len() > 500, "{}", heard.len());
        bob.says("/history 200");
        say(&mut alice, "lobby", "another");
        bob.hears_until("another");
    });
}

#[test]
fn a_room_in_which_nothing_is_said_forgets() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--history-ttl", "1"]);
    let mut alice = hubbub.join("alice");
    alice.says("soon forgotten");
    crate::support::until("it is forgotten", || {
        alice.says("/history");
        (alice.hears() == "* nothing has been said here yet").then_some(())
    });
    let mut bob = hubbub.join("bob");
    assert_eq!(
        alice.hears_until("joined").last().map(String::as_str),
        Some("* bob joined")
    );
    alice.says("anew");
    assert_eq!(bob.hears(), "alice: anew", "and no gap before it");
}

#[test]
fn entries_of_another_kind_are_skipped_and_hold_nobody_up() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let first = say(&mut alice, "lobby", "one");
    // More than any page has.
    redis.add_foreign_entries("lobby", 250);
    let mut page = |request: Value| {
        alice.asks(&request);
        alice.event_of("history")
    };
    let newest = page(json!({"type": "history", "room": "lobby", "limit": 1}));
    assert_eq!(texts(&newest["messages"]), ["one"]);
    let resume = || {
        let mut bob = Client::json(hubbub.address(), "bob");
        bob.asks(&json!({"type": "join", "room": "lobby", "since": first}));
        bob.event_of("room")
    };
    let nothing = resume();
    assert_eq!(
        (
            &nothing["recovered"],
            &nothing["last"],
            texts(&nothing["messages"]).len()
        ),
        (&json!(true), &first, 0)
    );
    let second = say(&mut alice, "lobby", "two");
    let missed = resume();
    assert_eq!(missed["recovered"], true, "nothing of Hubbub's is missing");
    assert_eq!(texts(&missed["messages"]), ["two"]);
    let mut page = |request: Value| {
        alice.asks(&request);
        alice.event_of("history")
    };
    let older = page(json!({"type": "history", "room": "lobby", "before": second, "limit": 1}));
    assert_eq!(texts(&older["messages"]), ["one"]);
    let newer = page(json!({"type": "history", "room": "lobby", "after": first, "limit": 1}));
    assert_eq!(texts(&newer["messages"]), ["two"]);
    let mut carol = Client::text(hubbub.address(), "/chat/carol?history=2");
    assert_eq!(carol.hears_until("two")[1..], ["alice: one", "alice: two"]);
}

#[test]
fn a_past_larger_than_a_frame_is_read_on_across_entries_of_another_kind() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let first = say(&mut alice, "lobby", "first");
    let large = "x".repeat(30_000);
    for _ in 0..6 {
        for _ in 0..5 {
            say(&mut alice, "lobby", &large);
        }
        redis.add_foreign_entries("lobby", 40);
    }
    let mut bob = Client::json(hubbub.address(), "bob");
    bob.asks(&json!({"type": "join", "room": "lobby", "since": first}));
    let entered = bob.event_of("room");
    assert_eq!(entered["recovered"], true);
    let mut count = texts(&entered["messages"]).len();
    say(&mut alice, "lobby", "live");
    loop {
        let event = bob.event();
        assert_ne!(event["type"], "gap", "{event}");
        match event["text"].as_str() {
            Some("live") => break,
            Some(_) => count += 1,
            None => {}
        }
    }
    assert_eq!(count, 30);
}

#[test]
fn a_client_that_resumes_in_a_room_that_forgot_has_missed_nothing() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--history-ttl", "1"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let last = say(&mut alice, "lobby", "soon forgotten");
    crate::support::until("it is forgotten", || {
        redis.has_forgotten("lobby").then_some(())
    });
    let resume = |since: &Value| {
        // Another instance, which knows only what Redis tells.
        let other = Hubbub::on_with(&redis, &["--history-ttl", "1"]);
        let mut bob = Client::json(other.address(), "bob");
        bob.asks(&json!({"type": "join", "room": "lobby", "since": since}));
        bob.event_of("room")
    };
    let nothing = resume(&last);
    assert_eq!(
        (&nothing["recovered"], &nothing["last"]),
        (&json!(true), &last)
    );
    let next = say(&mut alice, "lobby", "anew");
    let missed = resume(&last);
    assert_eq!(missed["recovered"], true);
    assert_eq!(texts(&missed["messages"]), ["anew"]);
    crate::support::until("this one is forgotten as well", || {
        redis.has_forgotten("lobby").then_some(())
    });
    assert_eq!(resume(&last)["recovered"], false, "that was missed");
    assert_eq!(resume(&next)["recovered"], true);
}

#[test]
fn an_embedded_server_that_starts_anew_says_so_and_speaks_of_no_gap() {
    let hubbub = Hubbub::alone();
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let last = say(&mut alice, "lobby", "before");
    drop(hubbub);
    let anew = Hubbub::alone();
    let mut alice = Client::json(anew.address(), "alice");
    alice.asks(&json!({"type": "join", "room": "lobby", "since": last}));
    let entered = alice.event_of("room");
    assert_eq!(
        (&entered["recovered"], &entered["anew"], &entered["last"]),
        (&json!(false), &json!(true), &json!(null))
    );
    let since = last.as_str().expect("an id");
    let mut bob = Client::text(anew.address(), &format!("/chat/bob?since={since}"));
    assert_eq!(
        bob.hears(),
        "* the server started anew; earlier messages are gone"
    );
    assert_eq!(bob.hears(), "* online: alice, bob");
    // Whoever resumes from what this process itself said has missed nothing.
    let next = say(&mut alice, "lobby", "after");
    let mut carol = Client::json(anew.address(), "carol");
    carol.asks(&json!({"type": "join", "room": "lobby", "since": next}));
    let entered = carol.event_of("room");
    assert_eq!(
        (&entered["recovered"], &entered["anew"]),
        (&json!(true), &json!(null))
    );
}
