//! Who is here: one `joined` and one `left` per user, whatever connections and instances do.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Client;
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;
use crate::support::until;

#[test]
fn tabs_on_several_instances_are_one_user() {
    let redis = Redis::start();
    let instances = [Hubbub::on(&redis), Hubbub::on(&redis)];
    let mut bob = instances[0].join("bob");
    let mut tabs: Vec<_> = (0..4).map(|n| instances[n % 2].join("alice")).collect();
    let last = tabs.pop().expect("four");
    for tab in tabs {
        tab.leaves();
    }
    bob.says("/who");
    assert_eq!(bob.hears(), "* alice joined");
    assert_eq!(bob.hears(), "* online: alice, bob");
    last.leaves();
    assert_eq!(bob.hears(), "* alice left");
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: bob");
}

#[test]
fn a_quick_reconnect_shows_nothing_and_a_slow_one_does() {
    let redis = Redis::start();
    let grace = ["--presence-grace", "2"];
    let (here, there) = (
        Hubbub::on_with(&redis, &grace),
        Hubbub::on_with(&redis, &grace),
    );
    let mut bob = here.join("bob");
    here.join("alice").resets();
    let alice = there.join("alice");
    let mut carol = there.join("carol");
    assert_eq!(bob.hears(), "* alice joined");
    assert_eq!(
        bob.hears(),
        "* carol joined",
        "and nothing of the reconnect"
    );
    let reset_at = Instant::now();
    alice.resets();
    assert_eq!(bob.hears(), "* alice left");
    assert_eq!(carol.hears(), "* alice left");
    assert!(
        reset_at.elapsed() >= Duration::from_secs(2),
        "after the grace"
    );
}

#[test]
fn a_user_who_says_goodbye_leaves_without_the_grace() {
    let hubbub = Hubbub::with(&["--presence-grace", "600"]);
    let mut bob = hubbub.join("bob");
    let alice = hubbub.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    alice.leaves();
    assert_eq!(bob.hears(), "* alice left");
}

#[test]
fn the_users_of_a_killed_instance_are_gone_within_the_expiry_and_told_once() {
    let redis = Redis::start();
    let ttl = ["--presence-ttl", "3"];
    let (here, there) = (Hubbub::on_with(&redis, &ttl), Hubbub::on_with(&redis, &ttl));
    let mut killed = Hubbub::on_with(&redis, &ttl);
    let mut bob = here.join("bob");
    let mut carol = there.join("carol");
    assert_eq!(bob.hears(), "* carol joined");
    let _alice = killed.join("alice");
    let _dave = killed.join("dave");
    // One of its users is also connected elsewhere, and so stays.
    let _carol_too = killed.join("carol");
    for client in [&mut bob, &mut carol] {
        assert_eq!(client.hears(), "* alice joined");
        assert_eq!(client.hears(), "* dave joined");
    }
    killed.kill();
    for client in [&mut bob, &mut carol] {
        let mut left = [client.hears(), client.hears()];
        left.sort();
        assert_eq!(left, ["* alice left", "* dave left"]);
    }
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: bob, carol");
    // Long enough for a second survivor to announce it again, if it would.
    let mut eve = there.join("eve");
    assert_eq!(bob.hears(), "* eve joined");
    assert_eq!(carol.hears(), "* eve joined");
    eve.says("marker");
    assert_eq!(bob.hears(), "eve: marker");
}

#[test]
fn a_killed_instance_leaves_nothing_behind_in_a_busy_room() {
    let redis = Redis::start();
    let ttl = ["--presence-ttl", "3"];
    let survivor = Hubbub::on_with(&redis, &ttl);
    let mut killed = Hubbub::on_with(&redis, &ttl);
    let _bob = survivor.join("bob");
    let mut alice = Client::connect(killed.address(), "/chat/alice", Some("hubbub.v1"))
        .unwrap_or_else(|(status, why)| panic!("{status} {why}"));
    let instance = alice.event_of("welcome")["instance"].clone();
    let instance = instance.as_str().expect("its name");
    alice.joins("lobby");
    let mentioned = || {
        let dumps = [
            ["HGETALL", "hubbub:{lobby}:members"].to_vec(),
            ["ZRANGE", "hubbub:{lobby}:instances", "0", "-1"].to_vec(),
        ];
        let dumps = dumps.map(|words| redis.run::<Vec<String>>(&words));
        dumps.concat().iter().any(|value| value.contains(instance))
    };
    assert!(mentioned());
    killed.kill();
    until("it is forgotten", || (!mentioned()).then_some(()));
}

#[test]
fn who_is_here_is_never_staler_than_the_expiry() {
    let redis = Redis::start();
    let ttl = ["--presence-ttl", "3"];
    let survivor = Hubbub::on_with(&redis, &ttl);
    let mut killed = Hubbub::on_with(&redis, &ttl);
    let _alice = killed.join("alice");
    killed.kill();
    let at = Instant::now();
    let mut bob = Client::json(survivor.address(), "bob");
    bob.joins("lobby");
    until("alice is no longer shown", || {
        bob.asks(&json!({"type": "members", "room": "lobby"}));
        (bob.event_of("members")["members"] == json!(["bob"])).then_some(())
    });
    // Three seconds of expiry, and a busy machine.
    assert!(at.elapsed() < Duration::from_secs(8), "{:?}", at.elapsed());
}

#[test]
fn users_of_an_instance_that_restarts_come_back_unnoticed() {
    let redis = Redis::start();
    let (mut here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut bob = there.join("bob");
    let mut alice = here.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    here.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(alice.is_closed(), Some(1012));
    let mut alice = there.join("alice");
    assert_eq!(here.ends().code(), Some(0));
    alice.says("back already");
    assert_eq!(bob.hears(), "alice: back already");
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: alice, bob");
}

#[test]
fn a_redis_that_restarts_with_or_without_its_data_does_not_make_anyone_come_or_go() {
    for remembers in [true, false] {
        let mut redis = if remembers {
            Redis::that_remembers()
        } else {
            Redis::start()
        };
        let ttl = ["--presence-ttl", "6"];
        let (here, there) = (Hubbub::on_with(&redis, &ttl), Hubbub::on_with(&redis, &ttl));
        let mut bob = here.join("bob");
        let alice = there.join("alice");
        assert_eq!(bob.hears(), "* alice joined");
        redis.kill();
        redis.start_again();
        until("both are known again", || {
            bob.says("/who");
            let line = bob.hears();
            assert!(
                !line.ends_with(" left") && !line.ends_with(" joined"),
                "{line}"
            );
            (line == "* online: alice, bob").then_some(())
        });
        alice.leaves();
        assert_eq!(
            bob.hears_until("left").last().map(String::as_str),
            Some("* alice left")
        );
    }
}

#[test]
fn a_redis_that_is_flushed_is_told_again_who_is_here() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut bob = here.join("bob");
    let alice = there.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    for _ in 0..3 {
        let _: String = redis.run(&["FLUSHALL"]);
        until("both are known again", || {
            bob.says("/who");
            let line = bob.hears();
            assert!(line.starts_with("* online"), "{line}");
            (line == "* online: alice, bob").then_some(())
        });
    }
    alice.leaves();
    assert_eq!(bob.hears(), "* alice left");
}

#[test]
fn an_outage_longer_than_the_expiry_does_not_make_anyone_come_or_go() {
    let redis = Redis::start();
    let ttl = ["--presence-ttl", "3"];
    let (here, there) = (Hubbub::on_with(&redis, &ttl), Hubbub::on_with(&redis, &ttl));
    let mut bob = here.join("bob");
    let alice = there.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    redis.freeze();
    std::thread::sleep(Duration::from_secs(5)); // both users expire
    redis.thaw();
    until("bob can speak again", || {
        bob.says("/who");
        let line = bob.hears();
        assert!(!line.ends_with(" left"), "{line}");
        (line == "* online: alice, bob").then_some(())
    });
    // The expiry once more: now whoever was not renewed would be gone.
    std::thread::sleep(Duration::from_secs(4));
    alice.leaves();
    assert_eq!(bob.hears(), "* alice left", "and nothing before it");
}

#[test]
fn who_leaves_while_redis_is_away_is_gone_when_it_is_back() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--presence-ttl", "3"]);
    let mut bob = hubbub.join("bob");
    let alice = hubbub.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    redis.freeze();
    bob.says("anybody?");
    let told = bob.hears();
    // The second if it was on its way already.
    let words = [
        "! not sent: Redis is unavailable, try again",
        "! it may have been sent or not: Redis stopped answering, try again, though it may be there twice then",
    ];
    assert!(words.contains(&&*told), "{told}");
    // There is no connection any more that could take the departure.
    alice.leaves();
    redis.thaw();
    assert_eq!(bob.hears(), "* alice left");
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: bob");
}

#[test]
fn a_room_whose_keys_became_something_else_makes_nobody_leave_another_room() {
    let redis = Redis::start();
    let ttl = ["--presence-ttl", "3"];
    let (here, there) = (Hubbub::on_with(&redis, &ttl), Hubbub::on_with(&redis, &ttl));
    let _: String = redis.run(&["SET", "hubbub:{bad}:members", "x"]);
    let mut bob = there.join("bob");
    let _alice = here.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    let mut carol = Client::json(here.address(), "carol");
    let begun = Instant::now();
    // Longer than the expiry is the point.
    while begun.elapsed() < Duration::from_secs(5) {
        carol.asks(&json!({"type": "join", "room": "bad"}));
        assert_eq!(carol.event()["type"], "error");
        std::thread::sleep(Duration::from_millis(200));
    }
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: alice, bob", "and nothing before it");
}

#[test]
fn comings_and_goings_are_published_once() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let mut ear = connection.as_pubsub();
    ear.subscribe("hubbub:{lobby}").expect("a subscription");
    // Between the kind of the change and the user is its revision.
    let mut published = || -> String {
        let message = ear.get_message().expect("a message");
        let payload: String = message.get_payload().expect("text");
        let lines: Vec<_> = payload.split('\n').collect();
        format!("{}\n{}", lines[0], lines[2])
    };
    let tabs = [here.join("alice"), there.join("alice"), here.join("alice")];
    let bob = there.join("bob");
    for tab in tabs {
        tab.leaves();
    }
    let expected = ["j\nalice", "j\nbob", "l\nalice"];
    assert_eq!([published(), published(), published()], expected);
    bob.leaves();
    assert_eq!(published(), "l\nbob");
}

#[test]
fn a_notice_that_was_missed_is_made_up_for() {
    let redis = Redis::start();
    let ttl = ["--presence-ttl", "3"];
    let here = Hubbub::on_with(&redis, &ttl);
    let mut bob = here.join("bob");
    // Somebody who is in the shared state without a notice, as when it fell into a cut.
    let later = format!("{}", 9_999_999_999_999_i64);
    let _: i64 = redis.run(&["ZADD", "hubbub:{lobby}:instances", &later, "abc"]);
    let _: i64 = redis.run(&["HSET", "hubbub:{lobby}:members", "ghost", "abc"]);
    assert_eq!(bob.hears(), "* ghost joined");
    let _: i64 = redis.run(&["HDEL", "hubbub:{lobby}:members", "ghost"]);
    assert_eq!(bob.hears(), "* ghost left");
}

#[test]
fn a_departure_that_arrives_after_its_instance_is_back_makes_nobody_leave() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut bob = hubbub.join("bob");
    let _alice = hubbub.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    let held = || redis.run::<String>(&["HGET", "hubbub:{lobby}:members", "alice"]);
    let later = until("a term begins", || {
        Some(held()).filter(|term| !term.ends_with(".0"))
    });
    let (instance, _) = later.split_once('.').expect("its term");
    // The network held it back from an earlier term, as it may when a connection is lost.
    let earlier = format!("{instance}.0");
    let script = include_str!("../../src/backplane/redis/presence.lua");
    for operation in ["depart", "arrive"] {
        let keys =
            ["members", "instances", "revision"].map(|key| format!("hubbub:{{lobby}}:{key}"));
        let keys = keys.iter().map(String::as_str);
        let arguments = [
            operation,
            "PUBLISH",
            "hubbub:{lobby}",
            &earlier,
            "1",
            "alice",
        ];
        let words: Vec<_> = ["EVAL", script, "3"]
            .into_iter()
            .chain(keys)
            .chain(arguments)
            .collect();
        let _: () = redis.run(&words);
        assert_eq!(held(), later, "{operation}");
    }
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: alice, bob", "and nothing before it");
}

#[test]
fn a_tab_that_is_opened_just_after_redis_forgot_everything_is_told_who_is_here() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut bob = here.join("bob");
    let _alice = there.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    // Both have just been renewed, so that neither is at once.
    until("their terms begin", || {
        let held: Vec<String> = redis.run(&["HVALS", "hubbub:{lobby}:members"]);
        (!held.iter().any(|held| held.ends_with(".0"))).then_some(())
    });
    let _: String = redis.run(&["FLUSHALL"]);
    let mut tab = Client::json(here.address(), "bob");
    let room = tab.joins("lobby");
    if room["members"] == json!(["bob"]) {
        assert_eq!(tab.event_of("joined")["user"], "alice");
    } else {
        assert_eq!(room["members"], json!(["alice", "bob"]));
    }
}

#[test]
fn a_crowd_is_counted_and_its_comings_are_not_announced() {
    // Most of the crowd does not read, and so answers no ping.
    let hubbub = Hubbub::with(&["--ping-interval", "3600"]);
    let mut first = hubbub.join("first");
    let mut crowd: Vec<_> = (0..260)
        .map(|n| {
            let member = hubbub.join(&format!("u{n:03}"));
            if n < 255 {
                // The room has 256 users at most.
                assert_eq!(first.hears(), format!("* u{n:03} joined"));
            }
            member
        })
        .collect();
    first.says("/who");
    assert_eq!(first.hears(), "* online: 261 users");
    let mut last = crowd.pop().expect("260");
    last.says("hello");
    assert_eq!(first.hears(), "u259: hello");
    last.leaves();
    crowd[0].says("marker");
    assert_eq!(first.hears(), "u000: marker");
}
