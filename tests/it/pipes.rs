//! The commands in pipes whose other end is too slow, or too fast, for them.

use std::io::Write;
use std::process::ChildStdin;
use std::thread::JoinHandle;

use crate::support::client::{Client, metric};
use crate::support::hubbub::{Hubbub, run};
use crate::support::terminal::Terminal;
use crate::support::until;

/// How much a command's memory may grow by, in bytes, however much there is to read.
const GROWTH: usize = 24 << 20;

/// What is said or typed in the meantime: a multiple of that.
const LINES: usize = 1500;
const FILLER: usize = 40_000;

fn filler() -> String {
    "x".repeat(FILLER)
}

/// Has somebody say so many lines in the lobby.
fn say(who: &mut Client, lines: usize) {
    let filler = filler();
    for n in 0..lines {
        who.says(&format!("{n} {filler}"));
    }
}

#[test]
fn a_tail_whose_reader_pauses_stays_small_and_then_tells_everything() {
    let hubbub = Hubbub::with(&["--history-length", "100000"]);
    let count = LINES.to_string();
    let mut tail = Terminal::start(&["tail", "--url", &hubbub.url(), "--count", &count]);
    until("tail is there", || {
        hubbub.log().contains("\"tail\" joined").then_some(())
    });
    let before = tail.resident();
    let mut alice = hubbub.join("alice");
    say(&mut alice, LINES);
    let grown = until("the server has given up on tail, or tail has grown", || {
        let grown = tail.resident().saturating_sub(before);
        let slow = metric(&hubbub, "hubbub_slow_consumers_total") > 0;
        (slow || grown > GROWTH).then_some(grown)
    });
    assert!(grown <= GROWTH, "by {} KiB", grown >> 10);
    let filler = filler();
    for n in 0..LINES {
        let line = tail.prints();
        let whole = line
            .strip_prefix("alice: ")
            .and_then(|l| l.strip_suffix(&filler));
        assert_eq!(whole, Some(&*format!("{n} ")), "{line:.100}");
    }
    let (status, rest) = tail.ends();
    assert!(status.success());
    assert_eq!(rest, [""; 0]);
}

#[test]
fn a_tail_whose_reader_is_gone_ends() {
    let hubbub = Hubbub::alone();
    let mut tail = Terminal::start(&["tail", "--url", &hubbub.url()]);
    until("tail is there", || {
        hubbub.log().contains("\"tail\" joined").then_some(())
    });
    let mut alice = hubbub.join("alice");
    // More than the pipe, the client and the kernel hold between them.
    say(&mut alice, LINES / 3);
    tail.prints();
    let status = tail.loses_its_reader();
    assert!(status.success(), "{status}");
}

#[test]
fn a_tail_whose_reader_is_gone_ends_also_in_a_quiet_room() {
    let hubbub = Hubbub::alone();
    let mut tail = Terminal::start(&["tail", "--url", &hubbub.url()]);
    until("tail is there", || {
        hubbub.log().contains("\"tail\" joined").then_some(())
    });
    let mut alice = hubbub.join("alice");
    alice.says("hello");
    assert_eq!(tail.prints(), "alice: hello");
    let status = tail.loses_its_reader();
    assert!(status.success(), "{status}");
    assert_eq!(alice.hears(), "* tail left", "it says goodbye");
}

/// Types a piece over and over again, as fast as it is read, and then leaves the pipe open.
fn pour(terminal: &mut Terminal, piece: &str, bytes: usize) -> JoinHandle<ChildStdin> {
    let mut stdin = terminal.take_stdin();
    let many = piece.repeat(1 + 65_536 / piece.len());
    std::thread::spawn(move || {
        for _ in 0..bytes / many.len() {
            if stdin.write_all(many.as_bytes()).is_err() {
                break;
            }
        }
        stdin
    })
}

#[test]
fn of_what_is_poured_into_join_no_more_is_read_than_is_sent() {
    let hubbub = Hubbub::with(&["--send-rate", "10"]);
    let mut bob = hubbub.join("bob");
    let mut alice = Terminal::start(&["join", "alice", "--url", &hubbub.url()]);
    assert_eq!(bob.hears(), "* alice joined");
    assert_eq!(alice.prints(), "* online: alice, bob");
    let before = alice.resident();
    let line = filler();
    let pouring = pour(&mut alice, &format!("{line}\n"), LINES * FILLER);
    for _ in 0..30 {
        assert_eq!(bob.hears(), format!("alice: {line}"));
    }
    let grown = alice.resident().saturating_sub(before);
    assert!(grown <= GROWTH, "by {} KiB", grown >> 10);
    drop(alice);
    pouring.join().expect("no panic");
}

#[test]
fn a_line_without_an_end_is_not_kept_and_the_next_one_is_said() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let mut alice = Terminal::start(&["join", "alice", "--url", &hubbub.url()]);
    assert_eq!(bob.hears(), "* alice joined");
    assert_eq!(alice.prints(), "* online: alice, bob");
    let before = alice.resident();
    let pouring = pour(&mut alice, "x", LINES * FILLER);
    let mut stdin = pouring.join().expect("no panic");
    let grown = alice.resident().saturating_sub(before);
    assert!(grown <= GROWTH, "by {} KiB", grown >> 10);
    stdin.write_all(b"\nhello\n").expect("it can be typed");
    drop(stdin);
    assert_eq!(bob.hears(), "alice: hello");
    let told = alice.prints();
    assert!(
        told.starts_with("! not sent: the line is longer than"),
        "{told}"
    );
    let (status, _) = alice.ends();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn say_does_not_keep_what_is_too_long_for_any_server() {
    let hubbub = Hubbub::alone();
    let mut say = Terminal::start(&["say", "alice", "--url", &hubbub.url()]);
    let pouring = pour(&mut say, "x", LINES * FILLER);
    let mut stdin = pouring.join().expect("no panic");
    let is_read_on = stdin.write_all(b"x").is_ok();
    drop(stdin);
    let (status, _) = say.ends();
    assert_eq!(status.code(), Some(1));
    assert!(!is_read_on, "it ends in the middle of the text");
}

/// The server refuses such a text over HTTP, unless it is told that it is no JSON message.
#[test]
fn say_says_what_looks_like_json_as_it_is() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let text = r#"{"text":"a log line","level":3}"#;
    let said = run(&["say", "alice", text, "--url", &hubbub.url()]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(bob.hears(), format!("alice: {text}"));
}
