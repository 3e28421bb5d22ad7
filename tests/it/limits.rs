//! Everything is bounded, says so, and is counted; and one bad user hurts nobody.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tungstenite::Message;

use crate::support::client::{Client, get, metric, request};
use crate::support::hubbub::Hubbub;
use crate::support::neighbours::among_bad_neighbours;
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

#[test]
fn who_sends_too_fast_is_told_and_who_goes_on_is_closed() {
    let hubbub = Hubbub::with(&["--send-rate", "1", "--send-burst", "3"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    for n in 0..4 {
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "x", "ref": n.to_string()}));
    }
    let refused = alice.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["ref"], &refused["retry"]),
        (&json!("too_fast"), &json!("3"), &json!(true))
    );
    let wait = refused["retry_after_ms"].as_u64().expect("a number");
    assert!((1..=1000).contains(&wait), "{refused}");
    let mut bob = hubbub.join("bob");
    for _ in 0..3 {
        bob.says("x");
    }
    bob.says("one too many");
    let told = bob.hears_until(" s").pop().expect("a line");
    assert!(
        told.starts_with("! not sent: too fast, at most 1 a second; try again in "),
        "{told}"
    );
    let mut flooding = Client::text(hubbub.address(), "/chat/mallory?room=elsewhere");
    let end = thread::spawn(move || {
        // The server stops listening in the midst of it.
        let mut goes_on = true;
        while goes_on {
            goes_on = flooding.tries_to_say("x");
        }
        flooding.is_closed()
    });
    let code = end.join().expect("it ends");
    assert!(matches!(code, Some(1008) | None), "{code:?}");
    until("it is counted", || {
        (metric(&hubbub, "hubbub_messages_limited_total") > 200).then_some(())
    });
    until("the reason is logged", || {
        hubbub.log().contains("too fast for too long").then_some(())
    });
}

/// Errors and pongs, which cost a client nothing to cause, come no faster than their pace, so that
/// the network pushes back on whoever floods.
#[test]
fn who_floods_is_read_slowly() {
    const PINGS: u32 = 300;
    const GARBAGE: u32 = 50;
    let hubbub = Hubbub::with(&["--send-rate", "100", "--send-burst", "1"]);
    let mut flooding = Client::json(hubbub.address(), "mallory");
    let begun = Instant::now();
    for _ in 0..PINGS {
        flooding.sends(Message::Ping("x".into()));
    }
    for _ in 0..PINGS {
        assert!(matches!(flooding.reads(), Message::Pong(_)));
    }
    // 200 at once, and then a hundred a second.
    assert!(begun.elapsed() >= Duration::from_millis(990));
    let begun = Instant::now();
    for _ in 0..GARBAGE {
        flooding.says("garbage");
    }
    for _ in 0..GARBAGE {
        assert_eq!(flooding.event_of("error")["code"], "bad_request");
    }
    // All but the first, each 10 ms.
    assert!(begun.elapsed() >= Duration::from_millis(450));
}

/// What costs nobody else takes a token, and waits for it without an error.
#[test]
fn what_costs_nobody_else_is_answered_no_faster_than_the_rate() {
    const ASKED: u32 = 20;
    let hubbub = Hubbub::with(&["--send-rate", "100", "--send-burst", "1"]);
    let mut flooding = Client::json(hubbub.address(), "mallory");
    flooding.joins("lobby");
    for (asked, answer) in [
        (r#"{"type":"leave","room":"elsewhere"}"#, "not_joined"),
        (r#"{"type":"join","room":"a/b"}"#, "bad_room"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        ("garbage", "bad_request"),
    ] {
        let begun = Instant::now();
        for _ in 0..ASKED {
            flooding.says(asked);
        }
        for _ in 0..ASKED {
            let event = flooding.event();
            let is = event.get("code").unwrap_or(&event["type"]);
            assert_eq!(is, answer, "{asked}");
        }
        // One token may have been there, and one comes each 10 ms.
        let least = Duration::from_millis(10) * (ASKED - 2);
        assert!(begun.elapsed() >= least, "{asked}: {:?}", begun.elapsed());
    }
}

/// What costs others has a rate of its own, beside that of messages, and is refused beyond it.
#[test]
fn who_asks_for_what_costs_others_too_fast_is_told_when_to_ask_again() {
    let limits = ["--command-rate", "1", "--command-burst", "3"];
    let hubbub = Hubbub::with(&[&limits[..], &["--send-rate", "1", "--send-burst", "1"]].concat());
    for (user, asked, answers) in [
        ("a", r#"{"type":"members","room":"lobby"}"#, "members"),
        ("b", r#"{"type":"history","room":"lobby"}"#, "history"),
        ("c", r#"{"type":"join","room":"lobby"}"#, "already_joined"),
        (
            "d",
            r#"{"type":"members","room":"elsewhere"}"#,
            "not_joined",
        ),
    ] {
        let mut client = Client::json(hubbub.address(), user);
        client.joins("lobby");
        for _ in 0..3 {
            client.says(asked);
        }
        // The second answer may be a notice.
        let mut answer = || loop {
            let event = client.event();
            if !matches!(event["type"].as_str(), Some("joined" | "left")) {
                break event;
            }
        };
        for _ in 0..2 {
            let event = answer();
            let is = event.get("code").unwrap_or(&event["type"]);
            assert_eq!(is, answers, "{asked}");
        }
        let refused = answer();
        assert_eq!(
            (&refused["code"], &refused["retry"]),
            (&json!("too_fast"), &json!(true)),
            "{asked}: {refused}"
        );
        let wait = refused["retry_after_ms"].as_u64().expect("a number");
        assert!((1..=1000).contains(&wait), "{refused}");
        // Messages are another matter.
        client.asks(&json!({"type": "send", "room": "lobby", "text": "x"}));
        client.event_of("sent");
    }
    let mut text = hubbub.join("e");
    for _ in 0..3 {
        text.says("/who");
    }
    let told = text.hears_until(" s").pop().expect("a line");
    assert!(
        told.starts_with("! cannot tell who is here: too fast, at most 1 a second; try again in "),
        "{told}"
    );
}

#[test]
fn who_asks_too_fast_for_too_long_is_closed_and_a_new_connection_begins_with_no_more() {
    let limits = ["--command-rate", "1", "--command-burst", "3"];
    let hubbub = Hubbub::with(&[&limits[..], &["--send-rate", "1"]].concat());
    let mut mallory = Client::json(hubbub.address(), "mallory");
    let join = json!({"type": "join", "room": "lobby"}).to_string();
    while mallory.tries_to_say(&join) {}
    assert!(matches!(mallory.is_closed(), Some(1008) | None));
    until("the reason is logged", || {
        hubbub.log().contains("too fast for too long").then_some(())
    });
    let mut again = Client::json(hubbub.address(), "mallory");
    let codes: Vec<_> = (0..3)
        .map(|_| {
            again.says(&join);
            loop {
                let event = again.event();
                if event["type"] == "room" || event["type"] == "error" {
                    break event["code"].clone();
                }
            }
        })
        .collect();
    assert!(codes.contains(&json!("too_fast")), "{codes:?}");
}

/// Also where the text encoding enters, by an upgrade.
#[test]
fn who_reconnects_again_and_again_enters_no_faster_than_the_rate() {
    const TIMES: u32 = 10;
    let hubbub = Hubbub::with(&["--command-rate", "20", "--command-burst", "1"]);
    let begun = Instant::now();
    for _ in 0..TIMES {
        hubbub.join("mallory").leaves();
        until("they are gone", || {
            (metric(&hubbub, "hubbub_rooms") == 0).then_some(())
        });
    }
    let least = Duration::from_millis(50) * (TIMES - 2);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

/// A member of one of the others hears no more than is worth hearing, however fast one comes and goes.
#[test]
fn who_joins_and_leaves_in_a_loop_is_told_to_the_others_now_and_then() {
    const LOOPS: u32 = 40;
    const LISTENERS: usize = 30;
    for redis in [None, Some(Redis::start())] {
        let limits = [
            "--send-rate",
            "100",
            "--command-rate",
            "10",
            "--command-burst",
            "20",
        ];
        let hubbub = match &redis {
            None => Hubbub::with(&limits),
            Some(redis) => Hubbub::on_with(redis, &limits),
        };
        let mut listeners: Vec<_> = (0..LISTENERS)
            .map(|n| hubbub.join(&format!("l{n:02}")))
            .collect();
        for listener in &mut listeners[..LISTENERS - 1] {
            listener.hears_until(&format!("l{:02} joined", LISTENERS - 1));
        }
        let mut flapping = Client::json(hubbub.address(), "mallory");
        let begun = Instant::now();
        for _ in 0..LOOPS {
            flapping.asks(&json!({"type": "join", "room": "lobby"}));
            flapping.asks(&json!({"type": "leave", "room": "lobby"}));
        }
        // Each join is answered, and refused beyond the rate.
        let (mut entered, mut refused) = (0, 0);
        while entered + refused < LOOPS {
            let event = flapping.event();
            entered += u32::from(event["type"] == "room");
            refused += u32::from(event["code"] == "too_fast");
        }
        assert!(refused > 0 && entered >= 20, "{entered} and {refused}");
        // And a later one is not.
        until("it enters", || {
            flapping.asks(&json!({"type": "join", "room": "lobby"}));
            loop {
                let event = flapping.event();
                if event["code"] == "too_fast" {
                    return None;
                }
                if event["type"] == "room" {
                    return Some(());
                }
            }
        });
        let mut speaker = Client::json(hubbub.address(), "speaker");
        speaker.joins("lobby");
        speaker.asks(&json!({"type": "send", "room": "lobby", "text": "marker"}));
        for listener in &mut listeners {
            let heard = listener.hears_until("marker");
            // The first at once, then one each 100 ms, and one with the marker.
            let most = 2 + begun.elapsed().as_millis() / 100;
            let notices = heard.iter().filter(|line| line.contains(" mallory "));
            let count = notices.count() as u128;
            assert!(count <= most, "{count} notices, at most {most}: {heard:?}");
        }
    }
}

/// So much at a rate of one a second that answering it all would take minutes.
fn floods_with_requests(client: &mut Client) {
    for _ in 0..500 {
        client.says("/help");
    }
}

#[test]
fn who_waits_for_a_turn_and_breaks_off_leaves_like_any_other() {
    let limits = ["--send-rate", "1", "--send-burst", "1"];
    let hubbub = Hubbub::with(&[&limits[..], &["--presence-grace", "0"]].concat());
    let mut bob = hubbub.join("bob");
    let mut mallory = hubbub.join("mallory");
    bob.hears_until("mallory joined");
    floods_with_requests(&mut mallory);
    mallory.resets();
    bob.hears_until("* mallory left");
}

#[test]
fn who_waits_for_a_turn_does_not_hold_a_teardown_up() {
    let limits = ["--send-rate", "1", "--send-burst", "1"];
    let mut hubbub = Hubbub::with(&[&limits[..], &["--drain", "60"]].concat());
    let mut mallory = hubbub.join("mallory");
    floods_with_requests(&mut mallory);
    hubbub.signal(Signal::SIGTERM);
    assert!(hubbub.ends().success());
    drop(mallory);
}

/// It would otherwise wait for its kernel, which asks a closed window for a quarter of an hour.
#[test]
fn who_floods_and_never_listens_is_reset() {
    let hubbub = Hubbub::with(&["--send-rate", "10"]);
    let mut socket = hubbub.join("mallory").into_socket();
    socket
        .set_write_timeout(Some(DEADLINE))
        .expect("a time-out");
    // Masked with zeros.
    let frames = b"\x81\x85\0\0\0\0flood".repeat(100);
    let error = loop {
        if let Err(error) = socket.write_all(&frames) {
            break error.kind();
        }
    };
    assert!(
        matches!(error, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "{error:?}"
    );
}

/// So many pings, which are read slowly, that reading them all would take minutes.
fn pours_pings(client: &Client) {
    // Masked with zeros.
    let pings = b"\x89\x80\0\0\0\0".repeat(20_000);
    let mut socket = client.socket();
    socket
        .set_nonblocking(true)
        .expect("what is not taken is left");
    let mut poured = 0;
    until("the kernel takes them", || {
        poured += socket.write(&pings[poured..]).unwrap_or(0);
        (poured >= pings.len() / 4).then_some(())
    });
}

#[test]
fn who_floods_with_pings_and_breaks_off_leaves_like_any_other() {
    let hubbub = Hubbub::with(&["--presence-grace", "0"]);
    let mut bob = hubbub.join("bob");
    let mallory = hubbub.join("mallory");
    bob.hears_until("mallory joined");
    pours_pings(&mallory);
    mallory.resets();
    bob.hears_until("* mallory left");
}

#[test]
fn who_floods_with_pings_does_not_hold_a_teardown_up() {
    let mut hubbub = Hubbub::with(&["--drain", "60"]);
    let mallory = hubbub.join("mallory");
    pours_pings(&mallory);
    hubbub.signal(Signal::SIGTERM);
    assert!(hubbub.ends().success());
    drop(mallory);
}

#[test]
fn who_comes_back_may_not_send_more_for_it() {
    let hubbub = Hubbub::with(&["--send-rate", "1", "--send-burst", "3"]);
    let begun = Instant::now();
    let mut stored = 0;
    for _ in 0..5 {
        let mut mallory = Client::json(hubbub.address(), "mallory");
        mallory.joins("lobby");
        for _ in 0..3 {
            mallory.asks(&json!({"type": "send", "room": "lobby", "text": "x"}));
            let answer = loop {
                let event = mallory.event();
                if event["type"] == "sent" || event["type"] == "error" {
                    break event;
                }
            };
            stored += u64::from(answer["type"] == "sent");
        }
        mallory.leaves();
        until("they are gone", || {
            (metric(&hubbub, "hubbub_rooms") == 0).then_some(())
        });
    }
    let may = 3 + begun.elapsed().as_secs() + 1;
    assert!((3..=may).contains(&stored), "{stored} of at most {may}");
}

#[test]
fn one_address_may_not_take_all_the_room() {
    let hubbub = Hubbub::with(&["--max-per-address", "2"]);
    let first = hubbub.join("a");
    let _second = hubbub.join("b");
    let Err((429, why)) = Client::connect(hubbub.address(), "/chat/c", None) else {
        panic!("a third was let in")
    };
    assert!(why.contains("this address"), "{why}");
    first.leaves();
    until("there is room again", || {
        Client::connect(hubbub.address(), "/chat/c", None).ok()
    });
}

#[test]
fn a_request_head_is_bounded_in_size_and_in_time() {
    let hubbub = Hubbub::with(&["--max-head", "2048", "--head-timeout", "1"]);
    let large = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2048));
    let (status, why) = request(hubbub.address(), &large);
    assert_eq!(status, 431, "{why}");
    assert!(why.contains("2048 bytes"), "{why}");
    let (status, why) = request(hubbub.address(), "GET / HTTP/1.1\r\nHost: ");
    assert_eq!(status, 408, "{why}");
    assert!(why.contains("too long"), "{why}");
    assert_eq!(metric(&hubbub, "hubbub_head_timeouts_total"), 1);
}

#[test]
fn what_is_written_has_to_be_taken_in_time() {
    let hubbub = Hubbub::with(&[
        "--write-timeout",
        "1",
        "--outbox-bytes",
        "1073741824", // the budget is not what gives it up
    ]);
    let mut alice = hubbub.join("alice");
    let stuck = hubbub.join("stuck");
    let text = "x".repeat(60_000);
    // More than both ends' kernels take for it.
    for _ in 0..200 {
        alice.says(&text);
    }
    until("it is given up", || {
        (metric(&hubbub, "hubbub_write_timeouts_total") == 1).then_some(())
    });
    until("the reason is logged", || {
        hubbub.log().contains("not taken in time").then_some(())
    });
    drop(stuck);
}

#[test]
fn a_goodbye_has_to_be_answered_in_time() {
    let hubbub = Hubbub::with(&["--close-timeout", "1"]);
    let mut mute = hubbub.join("mute");
    mute.sends(Message::binary(vec![1, 2, 3]));
    // It reads the close frame, says nothing, and keeps its socket open.
    let mut socket = mute.into_socket();
    let mut end = Vec::new();
    let _ = socket.read_to_end(&mut end);
    assert_eq!(&end[..1], [0x88], "a close frame");
    assert_eq!(&end[2..4], 1003_u16.to_be_bytes());
    until("it is broken off", || {
        (metric(&hubbub, "hubbub_close_timeouts_total") == 1).then_some(())
    });
    // One that answers is not counted.
    hubbub.join("polite").leaves();
    until("the polite one is gone", || {
        (metric(&hubbub, "hubbub_connections") == 1).then_some(())
    });
    assert_eq!(metric(&hubbub, "hubbub_close_timeouts_total"), 1);
}

#[test]
fn a_peer_that_is_silent_is_given_up() {
    let hubbub = Hubbub::with(&[
        "--ping-interval",
        "1",
        "--pong-timeout",
        "1",
        "--presence-grace",
        "0",
    ]);
    // It never reads, and so never answers a ping.
    let silent = Client::text(hubbub.address(), "/chat/silent?room=elsewhere");
    let mut alice = hubbub.join("alice");
    until("the silent one is gone", || {
        // Alice answers pings by reading.
        alice.says("/who");
        alice.hears();
        (metric(&hubbub, "hubbub_silent_peers_total") == 1).then_some(())
    });
    until("the reason is logged", || {
        hubbub.log().contains("silent for too long").then_some(())
    });
    drop(silent);
}

#[test]
fn a_member_that_never_reads_is_given_up_and_the_others_hear_everything() {
    let limits = ["--max-message", "4096", "--outbox-bytes", "65536"];
    let hubbub = Hubbub::with(&limits);
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    let stuck = hubbub.join("stuck");
    alice.hears_until("stuck joined");
    bob.hears_until("stuck joined");
    let text = "x".repeat(4000);
    let mut said = 0;
    until("the one that never reads is given up", || {
        for _ in 0..50 {
            alice.says(&text);
            said += 1;
            assert_eq!(bob.hears(), format!("alice: {text}"));
        }
        (metric(&hubbub, "hubbub_slow_consumers_total") == 1).then_some(())
    });
    assert!(said > 0);
    alice.says("marker");
    let marker = until("the marker", || {
        let line = bob.hears();
        (line == "alice: marker").then_some(line)
    });
    assert_eq!(marker, "alice: marker");
    drop(stuck);
}

/// How many threads of the server have a name that begins so.
fn threads(hubbub: &Hubbub, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", hubbub.id())).expect("its threads");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|its| its.starts_with(name)).count()
}

#[test]
fn only_who_keeps_something_waiting_costs_a_second_thread() {
    let hubbub = Hubbub::alone();
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    let stuck = hubbub.join("stuck");
    alice.hears_until("stuck joined");
    alice.says("hello");
    bob.hears_until("alice: hello");
    assert_eq!(threads(&hubbub, "reader-"), 3);
    assert_eq!(threads(&hubbub, "writer-"), 0);
    let text = "x".repeat(4000);
    until("something waits for the one that never reads", || {
        alice.says(&text);
        bob.hears();
        (threads(&hubbub, "writer-") > 0).then_some(())
    });
    assert_eq!(threads(&hubbub, "writer-"), 1);
    drop(stuck);
    bob.leaves();
    until(
        "both threads of the one and the thread of the other are gone",
        || {
            let left = (threads(&hubbub, "reader-"), threads(&hubbub, "writer-"));
            (left == (1, 0)).then_some(())
        },
    );
}

/// Its place is free for others meanwhile.
#[test]
fn a_writer_without_work_ends_and_another_one_goes_on_where_it_stopped() {
    let hubbub = Hubbub::with(&["--outbox-bytes", "67108864", "--write-timeout", "60"]);
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    alice.hears_until("bob joined");
    let text = "x".repeat(4000);
    let mut said = 0;
    for _ in 0..2 {
        let first = said;
        until("something waits for bob", || {
            for _ in 0..50 {
                alice.says(&format!("{said} {text}"));
                said += 1;
            }
            (threads(&hubbub, "writer-") == 1).then_some(())
        });
        for n in first..said {
            assert_eq!(bob.hears(), format!("alice: {n} {text}"));
        }
        until("the writer ends", || {
            (threads(&hubbub, "writer-") == 0).then_some(())
        });
        alice.says("at once");
        assert_eq!(bob.hears(), "alice: at once");
        assert_eq!(threads(&hubbub, "writer-"), 0);
    }
}

/// While one never reads, one trickles, one never pongs, one floods and many hold half a handshake,
/// everyone else hears everything.
#[test]
fn one_bad_user_of_each_kind_hurts_nobody() {
    const LINES: usize = 200;
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(
        &redis,
        &[
            "--send-rate",
            "50",
            "--send-burst",
            "50",
            "--ping-interval",
            "1",
        ],
    );
    // The speaker is elsewhere, where nobody limits it.
    let elsewhere = Hubbub::on(&redis);
    among_bad_neighbours(&hubbub, || {
        let mut listeners: Vec<_> = (0..10).map(|n| hubbub.join(&format!("l{n}"))).collect();
        let mut speaker = Client::json(elsewhere.address(), "speaker");
        speaker.joins("lobby");
        for n in 0..LINES {
            let text = format!("line {n}");
            speaker.asks(&json!({"type": "send", "room": "lobby", "text": text}));
            speaker.event_of("sent");
            for listener in &mut listeners {
                let heard = listener.hears_until(&format!("line {n}"));
                let lines = heard.iter().filter(|line| line.starts_with("speaker: "));
                assert_eq!(lines.count(), 1, "in order, and each once");
            }
        }
    });
}

#[test]
fn what_happens_is_counted() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    for _ in 0..3 {
        bob.says("hi");
        assert_eq!(alice.hears(), "bob: hi");
    }
    get(hubbub.address(), "/nowhere");
    // A message may be heard before its receipt is counted.
    until("three receipts are counted", || {
        (metric(&hubbub, "hubbub_messages_stored_total") == 3).then_some(())
    });
    assert_eq!(metric(&hubbub, "hubbub_messages_heard_total"), 3);
    assert_eq!(metric(&hubbub, "hubbub_requests_refused_total"), 1);
    assert_eq!(metric(&hubbub, "hubbub_rooms"), 1);
    assert_eq!(metric(&hubbub, "hubbub_ready"), 1);
    assert!(metric(&hubbub, "hubbub_deliveries_total") >= 4);
    assert!(metric(&hubbub, "hubbub_connections_accepted_total") >= 7);
    assert!(metric(&hubbub, "hubbub_connections") >= 2);
    assert!(metric(&hubbub, "hubbub_max_connections") > 100);
    // The next one is timed once the one before has arrived.
    let timed = metric(&hubbub, "hubbub_delivery_seconds_count");
    assert!((1..=3).contains(&timed), "{timed}");
    let open = metric(&hubbub, "process_open_fds");
    assert!((5..200).contains(&open), "{open}");
    assert!(metric(&hubbub, "process_threads") >= 5);
    assert!(metric(&hubbub, "process_start_time_seconds") > 1_700_000_000);
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("the cut is counted", || {
        (metric(&hubbub, "hubbub_subscription_cuts_total") == 1).then_some(())
    });
}

#[test]
fn what_the_embedded_backplane_remembers_is_bounded() {
    const ROOMS: usize = 20;
    const SAID: usize = 200;
    let hubbub = Hubbub::with(&["--history-bytes", "16777216"]);
    let address = hubbub.address();
    let before = hubbub.resident_kib();
    let text = "x".repeat(60_000);
    let most = thread::scope(|scope| {
        let speakers: Vec<_> = (0..ROOMS)
            .map(|n| {
                let text = &text;
                scope.spawn(move || {
                    let mut alice = Client::text(address, &format!("/chat/alice?room=room-{n}"));
                    alice.hears();
                    (0..SAID).for_each(|_| alice.says(text));
                    alice.says("/help");
                    // What was refused, since too much waited, comes before.
                    alice.hears_until("a line that begins with a slash: /text");
                })
            })
            .collect();
        hubbub.most_resident_kib(&speakers)
    });
    // All of it would be 229 MiB.
    let grown = (most - before) / 1024;
    assert!(grown < 130, "{grown} MiB more than before");
}
