//! Ctrl-C: everyone is told, nothing in flight is lost, every thread ends, exit 0.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::DEADLINE;
use crate::support::client::Client;
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

const RESTARTING: &str = "the server is restarting";

/// Well within the ten seconds that `--drain` allows.
const WELL_WITHIN: Duration = Duration::from_secs(8);

/// Ctrl-C: every user sees a close frame, and the process ends well.
fn closes_well_within_the_limit(hubbub: &mut Hubbub, users: &mut [Client]) {
    let begun = Instant::now();
    hubbub.signal(Signal::SIGINT);
    for user in users {
        assert_eq!(user.is_closed(), Some(1012));
    }
    assert_eq!(hubbub.ends().code(), Some(0));
    assert!(begun.elapsed() < WELL_WITHIN, "{:?}", begun.elapsed());
}

#[test]
fn peers_see_a_close_frame_and_the_exit_code_is_zero() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut hubbub = Hubbub::alone();
        let mut alice = hubbub.join("alice");
        let mut bob = Client::json(hubbub.address(), "bob");
        hubbub.signal(signal);
        assert_eq!(alice.is_closed(), Some(1012));
        assert_eq!(bob.event_of("closing")["reason"], RESTARTING);
        assert_eq!(bob.is_closed(), Some(1012));
        assert_eq!(hubbub.ends().code(), Some(0));
        let log = hubbub.log();
        assert!(log.contains("closed in"), "{log}");
    }
}

#[test]
fn whoever_gets_through_the_door_while_it_closes_is_told_so_once() {
    let mut hubbub = Hubbub::alone();
    let mut sockets = Vec::new();
    for n in 0..600 {
        if n == 200 {
            // In the midst of it.
            let first: &TcpStream = &sockets[0];
            assert_eq!(first.peek(&mut [0]).expect("an answer"), 1);
            hubbub.signal(Signal::SIGINT);
        }
        let Ok(mut socket) = TcpStream::connect(hubbub.address()) else {
            break;
        };
        let request = format!(
            "GET /chat/u{n} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: hubbub.v1\r\n\r\n"
        );
        let _ = socket.write_all(request.as_bytes());
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        sockets.push(socket);
    }
    let mut through = 0;
    for mut socket in sockets {
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        let mut bytes = Vec::new();
        // One that was not accepted any more is reset.
        let _ = socket.read_to_end(&mut bytes);
        let answer = String::from_utf8_lossy(&bytes);
        if answer.starts_with("HTTP/1.1 101") {
            through += 1;
            assert_eq!(answer.matches(r#""type":"closing""#).count(), 1, "{answer}");
            let [.., 0x88, _, high, low] = bytes[..bytes.len() - RESTARTING.len()] else {
                panic!("no close frame: {answer}");
            };
            assert_eq!(u16::from_be_bytes([high, low]), 1012);
            assert!(answer.ends_with(RESTARTING), "{answer}");
        }
    }
    assert!(through > 0);
    assert_eq!(hubbub.ends().code(), Some(0));
}

#[test]
fn five_hundred_users_are_closed_well_within_the_limit() {
    let redis = Redis::start();
    let mut hubbub = Hubbub::on(&redis);
    let mut users: Vec<_> = (0..500)
        .map(|n| hubbub.join_room(&format!("u{n}"), &format!("r{}", n % 50)))
        .collect();
    closes_well_within_the_limit(&mut hubbub, &mut users);
    let channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS", "*"]);
    assert_eq!(channels, Vec::<String>::new(), "it unsubscribed");
}

#[test]
fn sends_in_flight_are_answered() {
    let redis = Redis::start();
    let mut hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    // Frozen, so that they surely are in flight when the signal comes.
    redis.freeze();
    for n in 0..20 {
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "x", "ref": n.to_string()}));
    }
    alice.sends(tungstenite::Message::Ping("taken?".into()));
    while !matches!(alice.reads(), tungstenite::Message::Pong(_)) {}
    hubbub.signal(Signal::SIGTERM);
    redis.thaw();
    let mut answered = BTreeSet::new();
    while answered.len() < 20 {
        let event = alice.event();
        match event["type"].as_str() {
            Some("sent" | "error") => {
                let reference = event["ref"].as_str().expect("a ref");
                assert!(
                    answered.insert(reference.to_owned()),
                    "answered twice: {event}"
                );
            }
            Some("message") => {}
            _ => panic!("closed before all were answered: {event}"),
        }
    }
    assert_eq!(alice.is_closed(), Some(1012));
    assert_eq!(hubbub.ends().code(), Some(0));
}

#[test]
fn a_frozen_redis_does_not_hold_the_teardown_up() {
    let redis = Redis::start();
    let mut hubbub = Hubbub::on(&redis);
    let mut users: Vec<_> = (0..50).map(|n| hubbub.join(&format!("u{n}"))).collect();
    redis.freeze();
    users[0].says("into the void");
    closes_well_within_the_limit(&mut hubbub, &mut users);
}

#[test]
fn a_peer_that_does_not_answer_the_close_frame_does_not_hold_it_up() {
    let mut hubbub = Hubbub::alone();
    let silent: Vec<_> = (0..20).map(|n| hubbub.join(&format!("u{n}"))).collect();
    let half = std::net::TcpStream::connect(hubbub.address()).expect("a connection");
    let begun = Instant::now();
    hubbub.signal(Signal::SIGINT);
    assert_eq!(hubbub.ends().code(), Some(0));
    assert!(begun.elapsed() < WELL_WITHIN, "{:?}", begun.elapsed());
    drop((silent, half));
}

#[test]
fn a_second_signal_exits_at_once() {
    let mut hubbub = Hubbub::with(&["--drain", "60"]);
    let redis_is_not_needed = hubbub.join("alice");
    hubbub.signal(Signal::SIGINT);
    crate::support::until("the teardown begins", || {
        hubbub.log().contains("closing: ").then_some(())
    });
    // Alice does not answer, so the teardown is still going on.
    hubbub.signal(Signal::SIGINT);
    assert_eq!(hubbub.ends().code(), Some(130));
    drop(redis_is_not_needed);
}
