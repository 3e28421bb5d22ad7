//! While Redis is away: users stay, sends are refused clearly, `/readyz` tells the truth, the log
//! keeps calm, and everything is as before once it is back.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::client::{Client, get, metric};
use crate::support::hubbub::{Hubbub, run};
use crate::support::proxy::{Link, Proxy};
use crate::support::redis::Redis;
use crate::support::until;

#[test]
fn while_redis_is_away_a_send_is_refused_in_time_and_can_be_repeated() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = Client::json(here.address(), "alice");
    alice.joins("lobby");
    let send = json!({"type": "send", "room": "lobby", "text": "hi", "ref": "r1"});
    redis.freeze();
    for _ in 0..3 {
        let asked = Instant::now();
        alice.asks(&send);
        let refused = alice.event_of("error");
        assert!(asked.elapsed().as_secs_f64() < 3.0, "{:?}", asked.elapsed());
        assert_eq!(
            (&refused["code"], &refused["retry"], &refused["ref"]),
            (&json!("unavailable"), &json!(true), &json!("r1"))
        );
    }
    let (status, why) = get(here.address(), "/readyz");
    assert_eq!(status, 503, "{why}");
    redis.thaw();
    until("it is ready again", || {
        (get(here.address(), "/readyz").0 == 200).then_some(())
    });
    // The first attempt was in the pipe when Redis froze, so it was stored after all: from
    // whichever instance it is repeated, it is the same message.
    let mut elsewhere = Client::json(there.address(), "alice");
    elsewhere.joins("lobby");
    elsewhere.asks(&send);
    let first = elsewhere.event_of("sent");
    alice.asks(&send);
    let again = alice.event_of("sent");
    assert_eq!(first["id"], again["id"]);
    assert_eq!(again["duplicate"], true);
    elsewhere.asks(&json!({"type": "history", "room": "lobby"}));
    let kept = elsewhere.event_of("history");
    assert_eq!(kept["messages"].as_array().map(Vec::len), Some(1), "{kept}");
}

#[test]
fn a_send_that_comes_while_it_connects_anew_is_answered_in_time_too() {
    let redis = Redis::start();
    // Another database than the first is one question more when it connects.
    let hubbub = Hubbub::with(&["--redis", &format!("{}/1", redis.url()), "--send-rate", "0"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    redis.freeze();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi"}));
        assert_eq!(alice.event_of("error")["code"], "unavailable");
        assert!(asked.elapsed().as_secs_f64() < 3.0, "{:?}", asked.elapsed());
        // So that one of them comes when an attempt begins.
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn joining_while_redis_is_away_is_refused_and_works_once_it_is_back() {
    let mut redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    redis.kill();
    alice.asks(&json!({"type": "join", "room": "lobby"}));
    let refused = alice.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    let mut bob = Client::text(hubbub.address(), "/chat/bob");
    assert!(
        bob.hears()
            .starts_with("! cannot enter the room: Redis is unavailable")
    );
    assert_eq!(bob.is_closed(), Some(1013));
    redis.start_again();
    until("it is ready again", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
    assert_eq!(alice.joins("lobby")["members"], json!(["alice"]));
}

#[test]
fn a_change_of_state_is_one_line_in_the_log() {
    let mut redis = Redis::that_remembers();
    let hubbub = Hubbub::on(&redis);
    let mut alice = hubbub.join("alice");
    redis.kill();
    until("it is noticed", || {
        (get(hubbub.address(), "/readyz").0 == 503).then_some(())
    });
    for _ in 0..20 {
        alice.says("into the void");
        // The first may be on its way when the publisher notices.
        let told = alice.hears();
        assert!(told.starts_with("! ") && told.contains("Redis "), "{told}");
    }
    redis.start_again();
    until("it is ready again", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
    alice.says("/who");
    assert_eq!(alice.hears(), "* online: alice");
    let log = hubbub.log();
    for line in [
        "lost Redis",
        "Redis is back after",
        "the subscription is cut",
        "subscribed again after",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}

/// Longer than the presence expiry: nobody may be taken for gone because of it.
#[test]
fn a_minute_without_redis_ends_as_if_nothing_had_been() {
    const AWAY: Duration = Duration::from_secs(60);
    let mut redis = Redis::that_remembers();
    // Bob does not read meanwhile, and so answers no ping.
    let patient = ["--ping-interval", "3600"];
    let here = Hubbub::on_with(&redis, &patient);
    let there = Hubbub::on_with(&redis, &patient);
    let mut alice = here.join("alice");
    let mut bob = there.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    alice.says("before");
    assert_eq!(bob.hears(), "alice: before");
    redis.kill();
    let begun = Instant::now();
    until("both notice", || {
        let unready = |hubbub: &Hubbub| get(hubbub.address(), "/readyz").0 == 503;
        (unready(&here) && unready(&there)).then_some(())
    });
    while begun.elapsed() < AWAY {
        alice.says("into the void");
        let told = alice.hears();
        assert!(told.starts_with("! ") && told.contains("Redis "), "{told}");
        thread::sleep(Duration::from_secs(5)); // the time without Redis is the point
    }
    redis.start_again();
    until("both are ready again", || {
        let ready = |hubbub: &Hubbub| get(hubbub.address(), "/readyz").0 == 200;
        (ready(&here) && ready(&there)).then_some(())
    });
    bob.says("after");
    assert_eq!(alice.hears(), "bob: after");
    alice.says("and here");
    assert_eq!(bob.hears(), "alice: and here");
    until("both are known to be here", || {
        alice.says("/who");
        (alice.hears() == "* online: alice, bob").then_some(())
    });
    for hubbub in [&here, &there] {
        let log = hubbub.log();
        assert_eq!(log.matches("lost Redis").count(), 1, "{log}");
        assert_eq!(log.matches("Redis is back after").count(), 1, "{log}");
    }
}

#[test]
fn a_server_that_is_stopped_and_continued_goes_on_as_if_nothing_had_been() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    for n in 0..3 {
        hubbub.signal(Signal::SIGSTOP);
        until("it is stopped", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", hubbub.id()));
            stat.expect("its state").contains(") T ").then_some(())
        });
        hubbub.signal(Signal::SIGCONT);
        alice.says(&n.to_string());
        assert_eq!(bob.hears(), format!("alice: {n}"));
    }
    let log = hubbub.log();
    assert!(!log.contains("cut") && !log.contains("lost"), "{log}");
}

/// Waits until `/readyz` says that it is not, and why.
fn unready(hubbub: &Hubbub) -> String {
    until("it is not ready", || {
        let (status, why) = get(hubbub.address(), "/readyz");
        (status == 503).then_some(why)
    })
}

fn ready(hubbub: &Hubbub) {
    until("it is ready again", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
}

#[test]
fn a_redis_that_becomes_a_replica_is_not_ready_until_it_is_a_master_again() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    // The port of nobody: it goes on answering as it is, and takes no writes.
    let _: String = redis.run(&["REPLICAOF", "127.0.0.1", "1"]);
    let why = unready(&hubbub);
    assert!(why.contains("replica"), "{why}");
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi"}));
    let refused = alice.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    assert_eq!(
        metric(&hubbub, "hubbub_redis_losses_total"),
        1,
        "it is left"
    );
    let started = run(&["serve", "--listen", "127.0.0.1:0", "--redis", &redis.url()]);
    let why = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(started.status.code(), Some(1));
    assert!(why.contains("read-only replica"), "{why}");
    let _: String = redis.run(&["REPLICAOF", "NO", "ONE"]);
    ready(&hubbub);
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi"}));
    assert_eq!(alice.event_of("sent")["room"], "lobby");
}

#[test]
fn while_redis_is_full_it_is_not_ready_and_nobody_is_taken_for_gone() {
    let redis = Redis::start();
    // Once Redis takes writes again, each instance has a third of this to renew its users.
    let brief = ["--presence-ttl", "6"];
    let (here, there) = (
        Hubbub::on_with(&redis, &brief),
        Hubbub::on_with(&redis, &brief),
    );
    let mut alice = here.join("alice");
    let mut bob = there.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let why = unready(&here);
    assert!(why.contains("OOM"), "{why}");
    unready(&there);
    let full = Instant::now();
    while full.elapsed() < Duration::from_secs(9) {
        alice.says("there is no room for this");
        let told = alice.hears();
        assert!(told.starts_with("! not sent: Redis "), "{told}");
        alice.says("/who");
        assert_eq!(alice.hears(), "* online: alice, bob");
        let (status, members) = get(there.address(), "/api/rooms/lobby/members");
        assert_eq!(status, 200);
        assert!(members.contains(r#"["alice","bob"]"#), "{members}");
        thread::sleep(Duration::from_millis(500)); // longer than the expiry is the point
    }
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    ready(&here);
    ready(&there);
    bob.says("after");
    assert_eq!(alice.hears(), "bob: after", "and nobody left or joined");
    alice.says("and here");
    assert_eq!(bob.hears(), "alice: and here");
    until("both are known to be here", || {
        alice.says("/who");
        (alice.hears() == "* online: alice, bob").then_some(())
    });
    let log = here.log();
    for line in ["takes no messages: OOM", "takes messages again"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}

#[test]
fn an_instance_that_starts_while_redis_is_full_is_not_ready_from_the_beginning() {
    let redis = Redis::start_with(&["--maxmemory", "1"]);
    let hubbub = Hubbub::on(&redis);
    let (status, why) = get(hubbub.address(), "/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("OOM"), "{why}");
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    ready(&hubbub);
}

#[test]
fn a_user_that_enters_again_while_redis_is_full_is_shown_to_themselves() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--presence-ttl", "3"]);
    let mut alice = hubbub.join("alice");
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    until("nobody could be renewed", || {
        let instances = "hubbub:{lobby}:instances";
        let instances: Vec<(String, f64)> =
            redis.run(&["ZRANGE", instances, "0", "-1", "WITHSCORES"]);
        let (now, _): (f64, f64) = redis.run(&["TIME"]);
        let now = now * 1000.0;
        instances
            .iter()
            .all(|(_, until)| *until < now)
            .then_some(())
    });
    let mut tab = Client::json(hubbub.address(), "alice");
    assert_eq!(tab.joins("lobby")["members"], json!(["alice"]));
    alice.says("/who");
    assert_eq!(alice.hears(), "* online: alice");
}

#[test]
fn a_redis_that_cannot_save_is_not_ready() {
    let redis = Redis::start_with(&["--save", "3600 1"]);
    let hubbub = Hubbub::on(&redis);
    let mut alice = hubbub.join("alice");
    redis.fails_to_save();
    let why = unready(&hubbub);
    assert!(why.contains("MISCONF"), "{why}");
    alice.says("hi");
    let told = alice.hears();
    assert!(
        told.starts_with("! not sent: Redis is unavailable"),
        "{told}"
    );
    let _: String = redis.run(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    ready(&hubbub);
}

#[test]
fn a_redis_that_forbids_a_step_of_publishing_is_not_ready() {
    let redis = Redis::start();
    let allow = |rule: &str| {
        let user = ["ACL", "SETUSER", "hub", "on", ">pw", "~*", "&*", "+@all"];
        let _: String = redis.run(&[&user[..], &[rule]].concat());
    };
    allow("-xadd");
    let url = redis.url().replace("redis://", "redis://hub:pw@");
    let hubbub = Hubbub::with(&["--redis", &url]);
    let why = unready(&hubbub);
    assert!(why.contains("Redis takes no messages"), "{why}");
    for rule in ["-evalsha", "-publish"] {
        allow("+@all");
        ready(&hubbub);
        allow(rule);
        unready(&hubbub);
    }
}

#[test]
fn a_redis_that_forbids_to_read_what_was_missed_is_not_ready() {
    let redis = Redis::start();
    let allow = |rule: &str| {
        let user = ["ACL", "SETUSER", "hub", "on", ">pw", "~*", "&*", "+@all"];
        let _: String = redis.run(&[&user[..], &[rule]].concat());
    };
    allow("+@all");
    let url = redis.url().replace("redis://", "redis://hub:pw@");
    let hubbub = Hubbub::with(&["--redis", &url]);
    let _alice = hubbub.join("alice");
    allow("-xrange");
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("its room is behind", || {
        let (_, why) = get(hubbub.address(), "/readyz");
        why.contains("their logs cannot be read").then_some(())
    });
    allow("+@all");
    ready(&hubbub);
}

#[test]
fn a_redis_that_evicts_is_warned_of_at_the_start() {
    let warning = "maxmemory-policy is volatile-lru";
    let bounded = ["--maxmemory", "100mb", "--maxmemory-policy"];
    let redis = Redis::start_with(&[&bounded[..], &["volatile-lru"]].concat());
    assert!(Hubbub::on(&redis).log().contains(warning));
    let redis = Redis::start_with(&[&bounded[..], &["noeviction"]].concat());
    assert!(!Hubbub::on(&redis).log().contains("maxmemory-policy"));
}

#[test]
fn what_waits_for_a_frozen_redis_is_bounded_and_answered_in_time() {
    const SPEAKERS: usize = 100;
    const SENDS: usize = 40;
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--ping-interval", "3600"]);
    let mut speakers: Vec<_> = (0..SPEAKERS)
        .map(|n| {
            let mut speaker = Client::json(hubbub.address(), &format!("speaker-{n}"));
            speaker.joins(&format!("room-{n}"));
            speaker
        })
        .collect();
    let before = hubbub.resident_kib();
    redis.freeze();
    let text = "x".repeat(60_000);
    let most = thread::scope(|scope| {
        let refused: Vec<_> = speakers
            .iter_mut()
            .enumerate()
            .map(|(n, speaker)| {
                let send = json!({"type": "send", "room": format!("room-{n}"), "text": text});
                scope.spawn(move || {
                    (0..SENDS).for_each(|_| speaker.asks(&send));
                    (0..SENDS).for_each(|_| {
                        assert_eq!(speaker.event_of("error")["code"], "unavailable");
                    });
                })
            })
            .collect();
        hubbub.most_resident_kib(&refused)
    });
    // All of them would be 234 MiB.
    let grown = (most - before) / 1024;
    assert!(grown < 130, "{grown} MiB more than before");
}

#[test]
fn a_send_is_answered_in_time_also_while_redis_answers_slowly() {
    const SENDS: usize = 40;
    let redis = Redis::start();
    let proxy = Proxy::before(redis.port());
    let hubbub = Hubbub::with(&["--redis", &proxy.url()]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    // Each reply comes in time, and all of them would take 8 s.
    proxy.set(Link::Trickling);
    let asked = Instant::now();
    for _ in 0..SENDS {
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi"}));
    }
    let mut answers = 0;
    while answers < SENDS {
        let event = alice.event();
        if event["type"] == "sent" || event["type"] == "error" {
            answers += 1;
            let took = asked.elapsed().as_secs_f64();
            assert!(took < 3.0, "{took} s: {event}");
        }
    }
}

#[test]
fn a_send_that_was_written_a_second_time_is_not_called_undone() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.port());
    let hubbub = Hubbub::with(&["--redis", &proxy.url()]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let mut answer_to = |reference: &str| {
        let send = json!({"type": "send", "room": "lobby", "text": "hi", "ref": reference});
        alice.asks(&send);
        loop {
            let event = alice.event();
            if event["type"] == "sent" || event["type"] == "error" {
                break event;
            }
        }
    };
    until("a send was stored and not answered", || {
        let reference = format!("{:?}", Instant::now());
        // The send finds no script, and is repeated once it is loaded. Of that nothing is heard.
        proxy.set(Link::SwallowedOnceLoaded);
        let _: String = redis.run(&["SCRIPT", "FLUSH"]);
        let first = answer_to(&reference);
        proxy.set(Link::Open);
        ready(&hubbub);
        let stored_before = answer_to(&reference)["duplicate"] == true;
        // Or else another command found no script before.
        (stored_before && first["type"] == "error").then(|| {
            let message = first["message"].as_str().expect("a sentence");
            assert!(
                message.contains("it may have been sent or not"),
                "{message}"
            );
        })
    });
}
