//! The list of rooms: which there are, how many users are in each, and when something was said last.

use std::thread;

use hubbub::backplane::MOST_LISTED;
use serde_json::{Value, json};

use crate::data::pipe;
use crate::support::client::{Client, get};
use crate::support::cluster::Cluster;
use crate::support::hubbub::{Hubbub, command, misuses, run};
use crate::support::redis::Redis;
use crate::support::tmux::Window;
use crate::support::until;

const SECRET: &str = "an example of a secret of enough bytes";
const OPERATORS: &str = "another secret, of 32 bytes or so";

/// The answer to a request for the list.
fn list(hubbub: &Hubbub, query: &str) -> Value {
    let (status, body) = get(hubbub.address(), &format!("/api/rooms{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The names and the numbers of users in a list.
fn rooms(answer: &Value) -> Vec<(String, u64)> {
    let rooms = answer["rooms"].as_array().expect("rooms").iter();
    let rooms = rooms.map(|one| {
        let name = one["room"].as_str().expect("a name");
        (name.to_owned(), one["members"].as_u64().expect("a number"))
    });
    rooms.collect()
}

/// Waits until the list is this.
fn shows(hubbub: &Hubbub, query: &str, expected: &[(&str, u64)]) -> Value {
    let expected: Vec<_> = expected
        .iter()
        .map(|&(name, members)| (name.to_owned(), members))
        .collect();
    let mut last = Value::Null;
    until(&format!("the list is {expected:?}"), || {
        last = list(hubbub, query);
        (rooms(&last) == expected).then(|| last.clone())
    })
}

/// Says something, and returns its time.
fn says(client: &mut Client, room: &str) -> Value {
    client.asks(&json!({"type": "send", "room": room, "text": "hello"}));
    client.event_of("message")["at"].clone()
}

/// A token for these rooms, or for all if there are none.
fn token(user: &str, rooms: &[&str]) -> String {
    let rooms = rooms.iter().flat_map(|room| ["--room", room]);
    let arguments = ["token", user, "--secret", SECRET].into_iter().chain(rooms);
    let made = run(&arguments.collect::<Vec<_>>());
    let token = String::from_utf8(made.stdout).expect("text");
    token.trim().to_owned()
}

/// Runs `hubbub admin` with these words.
fn operates(hubbub: &Hubbub, words: &[&str]) {
    let done = command()
        .arg("admin")
        .args(words)
        .args(["--url", &hubbub.url()])
        .env("HUBBUB_ADMIN_SECRET", OPERATORS)
        .output()
        .expect("hubbub can be started");
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn one_instance_alone_lists_its_rooms_with_the_newest_message_first() {
    let hubbub = Hubbub::alone();
    assert_eq!(
        list(&hubbub, ""),
        json!({"type": "rooms", "rooms": [], "more": false})
    );
    let mut alice = Client::json(hubbub.address(), "alice");
    for room in ["quiet", "an old one", "new", "a silent one"] {
        alice.joins(room);
    }
    let old = says(&mut alice, "an old one");
    let new = until("the clock goes on", || {
        let at = says(&mut alice, "new");
        (at != old).then_some(at)
    });
    let mut bob = hubbub.join_room("bob", "quiet");
    let all = [
        ("new", 1),
        ("an old one", 1),
        ("a silent one", 1),
        ("quiet", 2),
    ];
    let answer = shows(&hubbub, "", &all);
    assert_eq!(answer["type"], "rooms");
    assert_eq!(answer["more"], false);
    assert_eq!(answer["rooms"][0]["at"], new);
    assert_eq!(answer["rooms"][1]["at"], old);
    assert_eq!(answer["rooms"][2].get("at"), None);
    alice.asks(&json!({"type": "rooms"}));
    assert_eq!(alice.event_of("rooms"), answer);
    bob.says("/rooms");
    assert_eq!(
        bob.hears(),
        "* rooms: new (1), an old one (1), a silent one (1), quiet (2)"
    );
    bob.says("/rooms an");
    assert_eq!(bob.hears(), "* rooms: an old one (1)");
    // Nobody is in it, and it remembers what was said.
    alice.asks(&json!({"type": "leave", "room": "new"}));
    // Nobody is in it, and nothing was said.
    alice.asks(&json!({"type": "leave", "room": "a silent one"}));
    shows(&hubbub, "", &[("new", 0), ("an old one", 1), ("quiet", 2)]);
}

#[test]
fn two_instances_list_the_rooms_and_users_of_both() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = Client::json(here.address(), "alice");
    alice.joins("both");
    alice.joins("empty");
    let mut bob = Client::json(there.address(), "bob");
    bob.joins("both");
    bob.joins("only there");
    let at = says(&mut bob, "both");
    let all = [("both", 2), ("empty", 1), ("only there", 1)];
    let answer = shows(&here, "", &all);
    assert_eq!(answer["rooms"][0]["at"], at);
    shows(&there, "", &all);
    // Nobody hears of a post to a room that nobody is in, and it is listed.
    let posted = run(&[
        "say",
        "ci",
        "done",
        "--room",
        "}x{ :%é",
        "--url",
        &there.url(),
    ]);
    assert!(posted.status.success());
    shows(&here, "?prefix=%7Dx", &[("}x{ :%é", 0)]);
    // A room that was left, and remembers nothing, is gone.
    alice.asks(&json!({"type": "leave", "room": "empty"}));
    let rest = [("}x{ :%é", 0), ("both", 2), ("only there", 1)];
    shows(&there, "", &rest);
    shows(&here, "", &rest);
}

#[test]
fn a_room_that_was_left_and_has_forgotten_its_past_is_not_listed() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--history-ttl", "1"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    for room in ["kept", "left"] {
        alice.joins(room);
        says(&mut alice, room);
    }
    alice.asks(&json!({"type": "leave", "room": "left"}));
    let answer = shows(&hubbub, "", &[("kept", 1)]);
    // The log is gone, and the time of its last message is not.
    assert!(redis.has_forgotten("kept"));
    assert!(answer["rooms"][0]["at"].is_u64());
    // Nobody has to look for it again.
    until("the index has forgotten it", || {
        let index: Vec<String> = redis.run(&["ZRANGE", "hubbub:rooms", "0", "-1"]);
        (index == ["kept"]).then_some(())
    });
}

#[test]
fn a_killed_instances_users_are_counted_no_longer_than_they_are_present() {
    let redis = Redis::start();
    let arguments = ["--presence-ttl", "3"];
    let mut killed = Hubbub::on_with(&redis, &arguments);
    let other = Hubbub::on_with(&redis, &arguments);
    let mut alice = Client::json(killed.address(), "alice");
    // No other instance hosts it, so none sweeps it.
    alice.joins("a room of its own");
    says(&mut alice, "a room of its own");
    shows(&other, "", &[("a room of its own", 1)]);
    killed.kill();
    shows(&other, "", &[("a room of its own", 0)]);
}

#[test]
fn a_page_holds_so_many_rooms_and_tells_whether_there_are_others() {
    let hubbub = Hubbub::alone();
    let mut alice = Client::json(hubbub.address(), "alice");
    for room in ["red 1", "red 2", "blue"] {
        alice.joins(room);
    }
    let all = [("blue", 1), ("red 1", 1), ("red 2", 1)];
    let page = |query: &str, expected: &[(&str, u64)], more: bool| {
        assert_eq!(shows(&hubbub, query, expected)["more"], more, "{query}");
    };
    page("", &all, false);
    page("?limit=3", &all, false);
    page("?limit=2", &all[..2], true);
    page("?prefix=red", &all[1..], false);
    page("?prefix=red&limit=1", &all[1..2], true);
    page("?prefix=Red", &[], false);
    page("?limit=0", &[], true);
    alice.asks(&json!({"type": "rooms", "prefix": "red", "limit": 1}));
    let answer = alice.event_of("rooms");
    assert_eq!(rooms(&answer), [("red 1".to_owned(), 1)]);
    assert_eq!(answer["more"], true);
    for bad in ["?limit=x", "?limit=-1"] {
        let (status, body) = get(hubbub.address(), &format!("/api/rooms{bad}"));
        assert_eq!(status, 400, "{body}");
        assert!(body.contains("bad limit"), "{body}");
    }
}

#[test]
fn a_token_shows_the_rooms_that_it_allows_and_a_closed_room_is_not_listed() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET, "--admin-secret", OPERATORS]);
    let (status, body) = get(hubbub.address(), "/api/rooms");
    assert_eq!(status, 401, "{body}");
    let all = token("alice", &[]);
    let mut alice = Client::connect(
        hubbub.address(),
        &format!("/chat/alice?token={all}"),
        Some("hubbub.v1"),
    )
    .expect("she is let in");
    for room in ["ops", "team-red", "team-blue"] {
        alice.joins(room);
    }
    says(&mut alice, "ops");
    let some = token("bob", &["team-*"]);
    let teams = [("team-blue", 1), ("team-red", 1)];
    shows(&hubbub, &format!("?token={some}"), &teams);
    let query = format!("?token={all}");
    shows(&hubbub, &query, &[("ops", 1), teams[0], teams[1]]);
    let none = token("carol", &["lobby"]);
    assert_eq!(list(&hubbub, &format!("?token={none}"))["more"], false);
    operates(&hubbub, &["close", "ops", "--for", "1h"]);
    shows(&hubbub, &query, &teams);
    operates(&hubbub, &["ban", "bob", "--for", "1h"]);
    let (status, body) = get(hubbub.address(), &format!("/api/rooms?token={some}"));
    assert_eq!(status, 403, "{body}");
}

#[test]
fn a_server_that_keeps_the_names_to_itself_lists_none() {
    let hubbub = Hubbub::with_environment(&[("HUBBUB_ROOM_LIST", "off")], &[]);
    let (status, body) = get(hubbub.address(), "/api/rooms");
    assert_eq!(status, 403, "{body}");
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.asks(&json!({"type": "rooms"}));
    let refused = alice.event_of("error");
    assert_eq!(refused["code"], "forbidden");
    let mut bob = hubbub.join("bob");
    bob.says("/rooms");
    assert_eq!(bob.hears(), "! this server does not list its rooms");
    misuses(&["--room-list", "some"], &["--room-list", "some"]);
}

#[test]
fn while_redis_is_away_the_list_is_unavailable_and_it_comes_back() {
    let mut redis = Redis::that_remembers();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("ops");
    says(&mut alice, "ops");
    shows(&hubbub, "", &[("ops", 1)]);
    redis.kill();
    until("it is unavailable", || {
        let (status, body) = get(hubbub.address(), "/api/rooms");
        (status == 503 && body.contains(r#""code":"unavailable""#)).then_some(())
    });
    alice.asks(&json!({"type": "rooms"}));
    let refused = alice.event_of("error");
    assert_eq!(refused["code"], "unavailable");
    assert_eq!(refused["retry"], true);
    redis.start_again();
    until("it is back", || {
        let (status, body) = get(hubbub.address(), "/api/rooms");
        (status == 200 && body.contains(r#""room":"ops""#)).then_some(())
    });
}

#[test]
fn while_the_servers_of_all_rooms_are_away_the_list_is_unavailable_and_not_empty() {
    let mut servers = [Redis::start(), Redis::start()];
    let urls = servers.each_ref().map(Redis::url);
    let on_both = ["--redis", &urls[0], "--redis", &urls[1]];
    // The index is on the first server. A room on the second is looked for under another prefix, so that it is the
    // only one in the list.
    let finder = Hubbub::with(&[&on_both[..], &["--prefix", "other"]].concat());
    let is_on_second = |room: &String| {
        let _member = finder.join_room("finder", room);
        let members = format!("other:{{{room}}}:members");
        servers[1].run::<i64>(&["EXISTS", &members]) == 1
    };
    let room = (0..).map(|n| format!("r{n}")).find(is_on_second);
    let room = room.expect("a room");
    let hubbub = Hubbub::with(&on_both);
    let _alice = hubbub.join_room("alice", &room);
    shows(&hubbub, "", &[(&room, 1)]);
    servers[1].kill();
    until("it is unavailable", || {
        (get(hubbub.address(), "/api/rooms").0 == 503).then_some(())
    });
}

#[test]
fn whoever_asks_too_fast_is_told() {
    let hubbub = Hubbub::with(&["--command-rate", "1", "--command-burst", "2"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    for _ in 0..3 {
        alice.asks(&json!({"type": "rooms"}));
    }
    let answers = [(); 3].map(|()| alice.event()["type"].clone());
    assert_eq!(answers, ["rooms", "rooms", "error"]);
    let paced = ["--send-rate", "1", "--send-burst", "2"];
    let hubbub = Hubbub::with(&[&paced[..], &["--token-secret", SECRET]].concat());
    let target = format!("/api/rooms?token={}", token("alice", &[]));
    let statuses = [(); 4].map(|()| get(hubbub.address(), &target).0);
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[test]
fn the_terminal_shows_each_room_with_the_time_since_its_last_message() {
    let hubbub = Hubbub::alone();
    let url = hubbub.url();
    let alice = Window::running(&["join", "alice", "--room", "ops", "--url", &url]);
    alice.shows(&["* online: alice", "ops>"]);
    let mut bob = hubbub.join_room("bob", "quiet");
    bob.says("/rooms");
    bob.hears();
    alice.enters("hello");
    until("the room has a message", || {
        alice.enters("/rooms o");
        let screen = alice.screen();
        let last = screen.iter().rev().find(|line| line.starts_with("* "))?;
        let ago = last.strip_prefix("* ops: 1 user, the last message ")?;
        (ago == "just now" || ago.contains(" second")).then_some(())
    });
    alice.enters("/rooms q");
    alice.shows(&["* quiet: 1 user", "ops>"]);
    alice.enters("/rooms nothing");
    alice.shows(&["* there are no such rooms", "ops>"]);
}

#[test]
fn a_cluster_lists_the_rooms_of_the_nodes_that_answer() {
    let mut cluster = Cluster::of(3);
    let hubbub = Hubbub::with(&["--redis", &cluster.url()]);
    let mut alice = Client::json(hubbub.address(), "alice");
    let index = cluster.owner_of("hubbub:rooms");
    let all: [_; 3] = std::array::from_fn(|number| cluster.room_on(number));
    for room in &all {
        alice.joins(room);
    }
    let mut expected: Vec<_> = all.iter().map(|room| (&room[..], 1)).collect();
    expected.sort_unstable();
    shows(&hubbub, "", &expected);
    let lost = (index + 1) % 3;
    cluster.node_mut(lost).kill();
    expected.retain(|(room, _)| *room != all[lost]);
    shows(&hubbub, "", &expected);
    cluster.node_mut(index).kill();
    until("it is unavailable", || {
        let (status, _) = get(hubbub.address(), "/api/rooms");
        (status == 503).then_some(())
    });
}

#[test]
fn a_crowd_that_asks_at_once_costs_redis_a_few_questions() {
    const CROWD: usize = 50;
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("ops");
    shows(&hubbub, "", &[("ops", 1)]);
    let _: String = redis.run(&["CONFIG", "RESETSTAT"]);
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| assert_eq!(rooms(&list(&hubbub, "")), [("ops".to_owned(), 1)]));
        }
    });
    let stats: String = redis.run(&["INFO", "commandstats"]);
    let asked = stats.lines().find_map(|line| {
        let calls = line.strip_prefix("cmdstat_zrevrange:calls=")?.split(',');
        calls.into_iter().next()?.parse::<usize>().ok()
    });
    assert!(asked.unwrap_or_default() < CROWD / 5, "{asked:?}");
}

#[test]
fn the_index_keeps_the_newest_times_of_so_many_rooms() {
    const LATE: f64 = 9e12;
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let numbers: Vec<_> = (0..2 * MOST_LISTED).map(|n| n.to_string()).collect();
    for some in numbers.chunks(1000) {
        let pairs = some.iter().flat_map(|number| [number, number]);
        let words = ["ZADD", "hubbub:rooms"].into_iter();
        let _: usize = redis.run(&words.chain(pairs.map(String::as_str)).collect::<Vec<_>>());
    }
    let _: usize = redis.run(&["ZADD", "hubbub:rooms", &LATE.to_string(), "ops"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    for room in ["ops", "new"] {
        alice.joins(room);
        says(&mut alice, room);
    }
    let score = |room: &str| redis.run::<Option<f64>>(&["ZSCORE", "hubbub:rooms", room]);
    until("the index is told of the new room", || score("new"));
    assert_eq!(score("ops"), Some(LATE));
    assert_eq!(score("0"), None);
    assert_eq!(redis.run::<usize>(&["ZCARD", "hubbub:rooms"]), MOST_LISTED);
}

#[test]
fn rooms_that_are_imported_are_listed() {
    let redis = Redis::start();
    let said = json!({"room": "past", "id": "1700000000000-0", "from": "a", "text": "hello"});
    let imported = pipe(&["import", "--redis", &redis.url()], &said.to_string());
    assert!(imported.status.success(), "{imported:?}");
    let hubbub = Hubbub::on(&redis);
    let answer = shows(&hubbub, "", &[("past", 0)]);
    assert_eq!(answer["rooms"][0]["at"], 1_700_000_000_000_u64);
}

#[test]
fn rooms_with_users_come_back_when_redis_lost_the_list() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("ops");
    shows(&hubbub, "", &[("ops", 1)]);
    assert_eq!(redis.run::<usize>(&["DEL", "hubbub:rooms"]), 1);
    until("the index has the room again", || {
        redis.run::<Option<f64>>(&["ZSCORE", "hubbub:rooms", "ops"])
    });
}
