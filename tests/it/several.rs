//! Several independent servers: each has its rooms, and one that is away concerns its rooms alone.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::client::{Client, get};
use crate::support::hubbub::{Hubbub, refuses};
use crate::support::redis::Redis;
use crate::support::scene::Scene;
use crate::support::until;

fn three() -> [Redis; 3] {
    std::array::from_fn(|_| Redis::start())
}

fn options(servers: &[Redis]) -> Vec<String> {
    let each = servers
        .iter()
        .flat_map(|redis| ["--redis".to_owned(), redis.url()]);
    each.collect()
}

fn on(servers: &[Redis]) -> Hubbub {
    let options = options(servers);
    Hubbub::with(&options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A room on each of the servers, in their order: found by saying something in rooms.
fn rooms_on(servers: &[Redis], hubbub: &Hubbub) -> Vec<String> {
    let mut rooms = vec![None; servers.len()];
    for n in 0.. {
        let room = format!("r{n}");
        let finder = hubbub.join_room("finder", &room);
        let log = format!("hubbub:{{{room}}}:members");
        let has_it = |redis: &&Redis| redis.run::<i64>(&["EXISTS", &log]) == 1;
        let with_it: Vec<_> = (0..servers.len())
            .filter(|index| has_it(&&servers[*index]))
            .collect();
        let [index] = with_it[..] else {
            panic!("{room} is on {with_it:?}")
        };
        finder.leaves();
        rooms[index].get_or_insert(room);
        if rooms.iter().all(Option::is_some) {
            break;
        }
    }
    rooms.into_iter().flatten().collect()
}

#[test]
fn rooms_on_different_servers_are_heard_on_all_instances() {
    let servers = three();
    let hubbub = on(&servers);
    let rooms = rooms_on(&servers, &hubbub);
    let options = options(&servers);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mut scene = Scene::on(&options, &rooms);
    scene.talks(20, |n| {
        let kind = if n % 2 == 0 { "pubsub" } else { "normal" };
        let _: i64 = servers[n % 3].run(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
    });
    assert_eq!(scene.ends(), 0);
}

#[test]
fn a_server_that_is_away_concerns_its_rooms_alone() {
    let mut servers = three();
    let hubbub = on(&servers);
    let other = on(&servers);
    let rooms = rooms_on(&servers, &hubbub);
    let mut alice = Client::json(hubbub.address(), "alice");
    let mut bob = Client::json(other.address(), "bob");
    for room in &rooms {
        alice.joins(room);
        bob.joins(room);
    }
    servers[1].kill();
    let state = until("it notices", || {
        let (status, state) = get(hubbub.address(), "/readyz");
        assert_eq!(status, 200, "two of three work");
        (state != "ready").then_some(state)
    });
    let port = servers[1].port().to_string();
    assert!(
        state.contains("ready, but") && state.contains(&port),
        "{state}"
    );
    let (_, metrics) = get(hubbub.address(), "/metrics");
    let line = |index: usize, value: u8| {
        let port = servers[index].port();
        format!("hubbub_shard_ready{{shard=\"127.0.0.1:{port}\"}} {value}\n")
    };
    for (index, value) in [(0, 1), (1, 0), (2, 1)] {
        assert!(metrics.contains(&line(index, value)), "{metrics}");
    }
    let send = |room: &str| json!({"type": "send", "room": room, "text": "hi", "ref": room});
    for index in [0, 2] {
        bob.asks(&send(&rooms[index]));
        assert_eq!(bob.event_of("sent")["room"], rooms[index]);
        assert_eq!(alice.event_of("message")["room"], rooms[index]);
    }
    bob.asks(&send(&rooms[1]));
    let error = bob.event_of("error");
    assert_eq!(error["code"], "unavailable");
    assert_eq!(error["retry"], true);
    // Who is in the others is known, and a client that goes leaves them.
    let members = |index: usize| {
        get(
            hubbub.address(),
            &format!("/api/rooms/{}/members", rooms[index]),
        )
    };
    assert!(
        members(0).1.contains(r#"["alice","bob"]"#),
        "{:?}",
        members(0)
    );
    assert_eq!(members(1).0, 503);
    servers[1].start_again();
    until("it is whole again", || {
        (get(hubbub.address(), "/readyz").1 == "ready").then_some(())
    });
    until("it takes messages again", || {
        bob.asks(&send(&rooms[1]));
        (bob.event()["type"] == "sent").then_some(())
    });
    assert_eq!(alice.event_of("message")["room"], rooms[1]);
    bob.leaves();
    let mut left = BTreeSet::new();
    while left.len() < rooms.len() {
        let event = alice.event_of("left");
        assert_eq!(event["user"], "bob");
        left.insert(event["room"].to_string());
    }
}

#[test]
fn a_frozen_server_ends_within_the_drain_and_keeps_no_other_waiting() {
    let servers = three();
    let mut hubbub = on(&servers);
    let other = on(&servers);
    let rooms = rooms_on(&servers, &hubbub);
    let mut bob = Client::json(other.address(), "bob");
    let mut alice = Client::json(hubbub.address(), "alice");
    for room in &rooms {
        bob.joins(room);
        alice.joins(room);
    }
    servers[0].freeze();
    hubbub.signal(nix::sys::signal::Signal::SIGTERM);
    // The others hear at once that she left.
    let mut left = BTreeSet::new();
    while left.len() < 2 {
        left.insert(bob.event_of("left")["room"].to_string());
    }
    assert!(hubbub.ends().success());
    let log = hubbub.log();
    let took = log
        .rsplit("closed in ")
        .next()
        .and_then(|rest| rest.split(' ').next());
    let took: f64 = took.and_then(|took| took.parse().ok()).expect("its time");
    assert!(took < 10.0, "{log}");
    servers[0].thaw();
}

#[test]
fn instances_with_different_lists_do_not_share_a_server() {
    let servers = three();
    let _first = on(&servers[..2]);
    let refused = |list: &[usize]| {
        let urls: Vec<_> = list.iter().map(|index| servers[*index].url()).collect();
        let urls = urls.iter().flat_map(|url| ["--redis", url]);
        let arguments: Vec<_> = ["--listen", "127.0.0.1:0"]
            .into_iter()
            .chain(urls)
            .collect();
        refuses(&arguments, &["the same --redis"]);
    };
    refused(&[1, 0]);
    refused(&[0]);
    refused(&[1]);
    refused(&[0, 1, 2]);
    refused(&[0, 2]);
    // The same list, and servers that nobody uses, are welcome.
    on(&servers[..2]);
    on(&servers[2..]);
}

#[test]
fn a_list_that_no_instance_uses_any_more_is_forgotten() {
    let servers = three();
    let mut first = on(&servers[..2]);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.ends();
    let key = "hubbub:servers";
    let left: i64 = servers[0].run(&["PTTL", key]);
    assert!((1..=10_000).contains(&left), "{left}");
    until("it is forgotten", || {
        (servers[0].run::<i64>(&["EXISTS", key]) == 0
            && servers[1].run::<i64>(&["EXISTS", key]) == 0)
            .then_some(())
    });
    on(&servers);
}

#[test]
fn a_server_that_others_use_in_another_list_is_given_up_until_they_do_not() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let key = "hubbub:servers";
    let _: String = redis.run(&["SET", key, "127.0.0.1:1 127.0.0.1:2"]);
    until("it is given up", || {
        let (status, why) = get(hubbub.address(), "/readyz");
        (status == 503 && why.contains("the same --redis")).then_some(())
    });
    let _: i64 = redis.run(&["DEL", key]);
    until("it is used again", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
}
