//! Sentinel: the master is found at the start and followed when it changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::checker::{Seen, Speaker, Witness, check};
use crate::support::client::{Client, get};
use crate::support::hubbub::{Hubbub, refuses};
use crate::support::redis::{Redis, free_port};
use crate::support::scene::Scene;
use crate::support::sentinel::Sentinels;
use crate::support::until;

fn scene(sentinels: &Sentinels) -> Scene {
    Scene::on(&["--redis", &sentinels.url()], &["lobby".to_owned()])
}

#[test]
fn a_killed_master_is_replaced_within_seconds_and_what_it_lost_is_told() {
    let mut sentinels = Sentinels::start();
    let mut scene = scene(&sentinels);
    scene.talks(20, |_| {});
    let old = sentinels.master().port();
    sentinels.kill_master();
    // Acknowledged by the new one.
    scene.says("after the kill");
    assert_ne!(sentinels.master().port(), old);
    sentinels.restart_killed();
    sentinels.wait_until_whole();
    scene.talks(10, |_| {});
    // Members may miss what was not replicated yet, but not without being told.
    scene.ends();
}

#[test]
fn a_planned_failover_ends_what_is_left_at_the_old_master() {
    let sentinels = Sentinels::start();
    let mut scene = scene(&sentinels);
    let new = sentinels.other().port();
    scene.talks(10, |_| {});
    sentinels.fail_over();
    scene.talks(10, |_| {});
    until("both follow it", || {
        let follows = |hubbub: &Hubbub| hubbub.log().contains(&format!("127.0.0.1:{new} now"));
        (follows(&scene.here) && follows(&scene.there)).then_some(())
    });
    until("what is said is at the new master", || {
        scene.says("to the new one");
        is_there(sentinels.master(), "to the new one").then_some(())
    });
    let role: Vec<redis::Value> = sentinels.other().run(&["ROLE"]);
    let master = redis::Value::BulkString("master".into());
    assert_eq!(role[0], master, "the old one does not know of it yet");
    scene.ends();
}

#[test]
fn a_loss_is_told_to_members_whose_instance_did_not_hear_what_is_lost() {
    let mut sentinels = Sentinels::start();
    let options = ["--redis", &sentinels.url()];
    let here = Hubbub::with(&options);
    let clients: String = sentinels
        .master()
        .run(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    // The Sentinels have subscriptions, too.
    let mut subscriptions = clients
        .lines()
        .filter(|line| !line.contains("name=sentinel"));
    let subscription = subscriptions.next().expect("the instance's");
    let id = subscription.strip_prefix("id=").expect("its id");
    let id = id.split(' ').next().expect("its end");
    let there = Hubbub::with(&options);
    let witnesses = [
        Witness::enter(&here.url(), "one", "lobby"),
        Witness::enter(&there.url(), "two", "lobby"),
    ];
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = BTreeMap::new();
    let mut says = |text: &str| {
        said.insert(speaker.says(text), text.to_owned());
    };
    says("before");
    witnesses
        .iter()
        .for_each(|one| drop(one.has_seen("before")));
    // What is said now reaches neither the replica nor the first instance.
    let master = sentinels.master().port();
    sentinels.other().freeze();
    here.signal(Signal::SIGSTOP);
    let _: i64 = sentinels
        .master()
        .run(&["CLIENT", "KILL", "TYPE", "replica"]);
    let _: i64 = sentinels.master().run(&["CLIENT", "KILL", "ID", id]);
    says("lost");
    witnesses[1].has_seen("lost");
    sentinels.kill_master();
    sentinels.other().thaw();
    here.signal(Signal::SIGCONT);
    sentinels.wait_until_named_other_than(master);
    says("after");
    let gap = |witness: &Witness| witness.seen().iter().any(Seen::is_gap);
    until("the first is told", || gap(&witnesses[0]).then_some(()));
    says("the end");
    for witness in &witnesses {
        witness.has_seen("the end");
    }
    check(&[&witnesses[0], &witnesses[1]], &said);
    let seen = format!("{:?}", witnesses[0].seen());
    assert!(!seen.contains("lost"), "{seen}");
}

/// Whether a room's log ends with this text.
fn is_there(server: &Redis, text: &str) -> bool {
    let words = ["XREVRANGE", "hubbub:{lobby}:log", "+", "-", "COUNT", "1"];
    let entries: redis::Value = server.run(&words);
    format!("{entries:?}").contains(text)
}

#[test]
fn frozen_sentinels_and_a_frozen_master_are_gone_around() {
    let sentinels = Sentinels::start();
    sentinels.sentinel(0).freeze();
    // It cannot be asked, so the next one is.
    let mut scene = scene(&sentinels);
    scene.talks(5, |_| {});
    let old = sentinels.master().port();
    let master_was = sentinels.master().id();
    sentinels.master().freeze();
    sentinels.wait_until_named_other_than(old);
    assert_ne!(sentinels.master().id(), master_was);
    scene.talks(10, |_| {});
    // It wakes up as a master that nobody uses.
    sentinels.other().thaw();
    sentinels.sentinel(0).thaw();
    scene.talks(10, |_| {});
    sentinels.wait_until_whole();
    scene.ends();
}

#[test]
fn a_master_that_comes_back_empty_is_told_as_a_gap() {
    let mut sentinels = Sentinels::start();
    let mut scene = scene(&sentinels);
    scene.talks(10, |_| {});
    let master = sentinels.master().port();
    // Faster than the Sentinels notice.
    sentinels.kill_master();
    sentinels.restart_killed();
    assert_eq!(sentinels.master().port(), master);
    until("it is ready again", || {
        let ready = |hubbub: &Hubbub| get(hubbub.address(), "/readyz").0 == 200;
        (ready(&scene.here) && ready(&scene.there)).then_some(())
    });
    assert!(scene.ends() > 0, "the past is lost, and members are told");
}

#[test]
fn what_is_wrong_with_sentinels_is_one_sentence() {
    let sentinels = Sentinels::start();
    let port = sentinels.sentinel(0).port();
    let refuses = |url: &str, word: &str| {
        refuses(&["--listen", "127.0.0.1:0", "--redis", url], &[word]);
    };
    refuses(
        &format!("redis+sentinel://127.0.0.1:{port}/other"),
        "no master \"other\"",
    );
    refuses(&format!("redis://127.0.0.1:{port}"), "redis+sentinel://");
    let nothing = free_port();
    refuses(
        &format!("redis+sentinel://127.0.0.1:{nothing}/mymaster"),
        "refused",
    );
    let master = sentinels.master().port();
    refuses(
        &format!("redis+sentinel://127.0.0.1:{master}/mymaster"),
        "not a Sentinel",
    );
    let replica = sentinels.other().port();
    refuses(&format!("redis://127.0.0.1:{replica}"), "replica");
    refuses(
        &format!("redis+cluster://127.0.0.1:{master}"),
        "not a node of a cluster",
    );
}

#[test]
fn while_no_master_is_there_sends_are_refused_in_time() {
    let mut sentinels = Sentinels::start();
    let hubbub = Hubbub::with(&["--redis", &sentinels.url()]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    sentinels.kill_master();
    // Before they agree that it is down.
    for number in 0..3 {
        sentinels.sentinel(number).freeze();
    }
    until("it notices", || {
        (get(hubbub.address(), "/readyz").0 == 503).then_some(())
    });
    for n in 0..3 {
        let asked = Instant::now();
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi", "ref": n.to_string()}));
        assert_eq!(alice.event_of("error")["code"], "unavailable");
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "{:?}",
            asked.elapsed()
        );
    }
    for number in 0..3 {
        sentinels.sentinel(number).thaw();
    }
    until("another master is found", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
}

#[test]
fn the_chain_is_broken_once_for_a_loss_and_by_an_id_that_no_message_has() {
    const LOST: &str = concat!(
        include_str!("../../src/backplane/redis/ids.lua"),
        include_str!("../../src/backplane/redis/lost.lua")
    );
    let redis = Redis::start();
    let add = |id: &str, prev: &str| {
        let entry = ["from", "a", "text", "t", "via", "", "prev", prev];
        let _: String = redis.run(&[&["XADD", "log", id], &entry[..]].concat());
        let _: () = redis.run(&["SET", "newest", id]);
    };
    let is_lost = |id: &str| -> bool {
        let keys = ["EVAL", LOST, "2", "log", "newest"];
        redis.run(&[&keys[..], &["PUBLISH", "channel", id, "60000"]].concat())
    };
    let newest = || -> String { redis.run(&["GET", "newest"]) };
    add("10-0", "");
    add("30-0", "10-0");
    assert!(!is_lost("30-0"), "it is there");
    assert!(!is_lost("5-0"), "the log begins later");
    // Later than all that is there: members that heard it must not find its id at the end.
    assert!(is_lost("40-0"));
    assert_eq!(newest(), "40-1000000");
    assert!(!is_lost("35-0"), "the chain is broken there already");
    assert!(!is_lost("40-1000000"), "that is the break");
    add("50-0", "40-1000000");
    assert!(!is_lost("40-1000000"), "and the chain goes on from it");
    assert!(!is_lost("20-0"), "who is behind that place meets the break");
    // Between two messages that follow each other here.
    let _: () = redis.run(&["DEL", "log", "newest"]);
    add("10-0", "");
    add("30-0", "10-0");
    assert!(is_lost("20-0"));
    assert_eq!(newest(), "30-1000000");
    assert!(!is_lost("20-0"), "another instance found it");
    add("50-0", "30-1000000");
    add("60-0", "50-0");
    assert!(!is_lost("20-0"), "and found it after more was said");
    assert!(is_lost("55-0"), "that is another loss");
    // An entry that is not Hubbub's is nobody's predecessor.
    let _: String = redis.run(&["XADD", "log", "70-0", "other", "entry"]);
    assert!(is_lost("80-0"));
}

#[test]
fn ids_lie_ahead_of_the_clock_while_the_connection_is_new_and_only_then() {
    let sentinels = Sentinels::start();
    let hubbub = Hubbub::with(&["--redis", &sentinels.url(), "--send-rate", "0"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    // How far the next one does, in milliseconds.
    let mut lead = || {
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "hi"}));
        let answer = loop {
            let event = alice.event();
            if event["type"] == "sent" || event["type"] == "error" {
                break event;
            }
        };
        let (millis, _) = answer["id"].as_str()?.split_once('-')?;
        let (now, micros): (i64, i64) = sentinels.master().run(&["TIME"]);
        Some(millis.parse::<i64>().expect("a time") - now * 1000 - micros / 1000)
    };
    until("an id lies ahead", || {
        let lead = lead()?;
        if lead <= 1000 {
            // On a busy machine the connection may be old already.
            let _: i64 = sentinels
                .master()
                .run(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        (lead > 1000).then_some(())
    });
    until("ids are at the clock again", || {
        lead().is_some_and(|lead| lead <= 0).then_some(())
    });
}
