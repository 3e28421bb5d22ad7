//! The machine's clock jumps, as after a reboot without a network: no order, no ref and no message depends on it.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::folder::Folder;
use crate::support::hubbub::Hubbub;
use crate::support::until;

/// Days that the clock is off, one after the other.
const JUMPS: [i64; 6] = [0, -1, 1, 10, -400, 0];

const DAY_MS: u64 = 86_400_000;

/// What a server's clock is off by. The monotonic clock goes on, as it does in the kernel.
struct Clock {
    folder: Folder,
    library: String,
}

impl Clock {
    fn new() -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.path()).expect("a folder");
        let systems = fs::read_dir("/usr/lib").expect("libraries").flatten();
        let library = systems
            .map(|system| system.path().join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.exists())
            .expect("faketime is missing; install it with: apt-get install faketime");
        let library = library.to_str().expect("text").to_owned();
        let clock = Self { folder, library };
        clock.jumps(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// In one step, since the server reads it at any time.
    fn jumps(&self, days: i64) {
        let next = self.folder.path().join("next");
        fs::write(&next, format!("{days:+}d")).expect("a file");
        fs::rename(next, self.file()).expect("a file");
    }

    fn starts(&self, arguments: &[&str]) -> Hubbub {
        let file = self.file();
        let variables = [
            ("LD_PRELOAD", &*self.library),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("text")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        Hubbub::with_environment(&variables, arguments)
    }
}

/// Sends this text under itself as ref; the answer.
fn say(client: &mut Client, text: &str) -> Value {
    client.asks(&json!({"type": "send", "room": "lobby", "text": text, "ref": text}));
    loop {
        let event = client.event_of("sent");
        if event["ref"] == text {
            return event;
        }
    }
}

fn millis(id: &Value) -> u64 {
    let id = id.as_str().expect("an id");
    id.split('-')
        .next()
        .and_then(|millis| millis.parse().ok())
        .expect("milliseconds")
}

/// The texts of a room's messages, by the room's answer or by single events.
fn said(messages: &Value) -> Vec<String> {
    let messages = messages.as_array().expect("messages");
    messages
        .iter()
        .map(|message| message["text"].as_str().expect("a text").to_owned())
        .collect()
}

fn all_of(hubbub: &Hubbub, user: &str) -> Vec<String> {
    let mut client = Client::json(hubbub.address(), user);
    client.asks(&json!({"type": "join", "room": "lobby", "since": "0-0"}));
    said(&client.event_of("room")["messages"])
}

fn hold_while_the_clock_jumps(arguments: &[&str], lasts: bool) {
    let clock = Clock::new();
    let mut hubbub = clock.starts(arguments);
    let mut alice = Client::json(hubbub.address(), "alice");
    let mut bob = Client::json(hubbub.address(), "bob");
    alice.joins("lobby");
    bob.joins("lobby");
    let (mut texts, mut ids) = (Vec::new(), Vec::new());
    for (jump, days) in JUMPS.into_iter().enumerate() {
        clock.jumps(days);
        for n in 0..3 {
            let text = format!("{jump}.{n}");
            let sent = say(&mut alice, &text);
            assert_eq!(sent["duplicate"], false);
            let heard = bob.event_of("message");
            assert_eq!((&heard["text"], &heard["id"]), (&json!(text), &sent["id"]));
            texts.push(text);
            ids.push(sent["id"].clone());
        }
        // A ref lasts five minutes of real time.
        for (text, id) in texts.iter().zip(&ids) {
            let again = say(&mut alice, text);
            assert_eq!(
                (&again["duplicate"], &again["id"]),
                (&json!(true), id),
                "{days} days off"
            );
        }
    }
    let step = |at: usize| millis(&ids[3 * at]) - millis(&ids[3 * at - 1]);
    assert!(step(2) > DAY_MS - 60_000, "the clock did not jump: {ids:?}");
    assert!(
        step(1) < 60_000 && step(4) < 60_000,
        "it went back: {ids:?}"
    );
    assert_eq!(all_of(&hubbub, "carol"), texts);
    if lasts {
        for days in [-1, 0] {
            hubbub.signal(Signal::SIGTERM);
            assert!(hubbub.ends().success());
            clock.jumps(days);
            hubbub = clock.starts(arguments);
            let mut alice = Client::json(hubbub.address(), "alice");
            alice.joins("lobby");
            let text = format!("restarted at {days}");
            let sent = say(&mut alice, &text);
            texts.push(text);
            ids.push(sent["id"].clone());
            assert_eq!(all_of(&hubbub, "carol"), texts);
        }
        // Only the clock knows how long it was down: two days after the last message, which has ten days.
        hubbub.signal(Signal::SIGTERM);
        assert!(hubbub.ends().success());
        clock.jumps(12);
        let hubbub = clock.starts(arguments);
        until("what is older than a day is forgotten", || {
            all_of(&hubbub, "carol").is_empty().then_some(())
        });
    }
    let order = |id: &Value| {
        id.as_str()
            .and_then(|id| id.parse::<hubbub::message::MessageId>().ok())
    };
    assert!(
        ids.is_sorted_by(|one, next| order(one) < order(next)),
        "{ids:?}"
    );
}

#[test]
fn in_memory_all_holds_while_the_clock_jumps_back_and_forth() {
    hold_while_the_clock_jumps(&["--history-ttl", "60"], false);
}

#[test]
fn on_disk_all_holds_while_the_clock_jumps_back_and_forth_also_over_a_restart() {
    let folder = Folder::new();
    hold_while_the_clock_jumps(&["--data", folder.text()], true);
}
