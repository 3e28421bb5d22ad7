//! Nothing is lost and nobody is guessed at: cuts, restarts, stalls and floods, with the checker
//! looking at what every member saw.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use hubbub::message::MessageId;
use serde_json::json;

use crate::support::checker::{Seen, Speaker, Witness, check, faults};
use crate::support::client::{Client, get, metric};
use crate::support::hubbub::Hubbub;
use crate::support::proxy::{Link, Proxy};
use crate::support::redis::Redis;
use crate::support::until;

type Acknowledged = BTreeMap<MessageId, String>;

/// Says so many lines, with `meanwhile` after each.
fn say_lines(
    speaker: &Speaker,
    name: &str,
    count: usize,
    mut meanwhile: impl FnMut(usize),
) -> Acknowledged {
    (0..count)
        .map(|n| {
            let text = format!("{name} {n}");
            let id = speaker.says(&text);
            meanwhile(n);
            (id, text)
        })
        .collect()
}

/// Two instances, a member on each, and a speaker on the second; `trouble` happens while it
/// speaks. Afterwards both members must have seen everything.
fn through(redis: &mut Redis, trouble: impl FnMut(usize, &mut Redis)) {
    let (here, there) = (Hubbub::on(redis), Hubbub::on(redis));
    let one = Witness::enter(&here.url(), "one", "lobby");
    let two = Witness::enter(&there.url(), "two", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut trouble = trouble;
    let mut said = say_lines(&speaker, "line", 60, |n| trouble(n, redis));
    said.insert(speaker.says("the end"), "the end".to_owned());
    one.has_seen("the end");
    two.has_seen("the end");
    check(&[&one, &two], &said);
    assert_eq!(
        one.reconnects() + two.reconnects(),
        0,
        "nobody was disconnected"
    );
    assert!(!one.seen().iter().any(Seen::is_gap), "nothing was lost");
}

#[test]
fn a_cut_subscription_is_healed_without_a_trace() {
    through(&mut Redis::start(), |n, redis| {
        if n % 10 == 5 {
            let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
    });
}

#[test]
fn all_connections_to_redis_cut_at_once_are_healed() {
    through(&mut Redis::start(), |n, redis| {
        if n % 20 == 10 {
            let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
    });
}

#[test]
fn a_redis_that_restarts_with_its_data_loses_nothing() {
    through(&mut Redis::that_remembers(), |n, redis| {
        if n % 30 == 15 {
            redis.kill();
            redis.start_again();
        }
    });
}

#[test]
fn a_redis_that_pauses_delays_and_loses_nothing() {
    through(&mut Redis::start(), |n, redis| {
        if n == 20 {
            let _: String = redis.run(&["CLIENT", "PAUSE", "3000"]);
        }
    });
}

#[test]
fn a_redis_that_freezes_delays_and_loses_nothing() {
    through(&mut Redis::start(), |n, redis| {
        if n == 20 {
            redis.freeze();
            thread::sleep(std::time::Duration::from_secs(4)); // longer than any deadline
            redis.thaw();
        }
    });
}

#[test]
fn a_link_that_stalls_is_cut_or_swallows_is_healed() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.port());
    let here = Hubbub::with(&["--redis", &proxy.url()]);
    let there = Hubbub::on(&redis);
    let witness = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = Acknowledged::new();
    for link in [Link::Stalled, Link::Swallowed] {
        proxy.set(link);
        said.append(&mut say_lines(&speaker, &format!("{link:?}"), 20, |_| {}));
        // Nobody tells this instance; it has to find out by itself.
        until("it notices", || {
            (get(here.address(), "/readyz").0 == 503).then_some(())
        });
        said.append(&mut say_lines(
            &speaker,
            &format!("{link:?} still"),
            20,
            |_| {},
        ));
        proxy.set(Link::Open);
        until("it recovers", || {
            (get(here.address(), "/readyz").0 == 200).then_some(())
        });
    }
    proxy.cut();
    said.append(&mut say_lines(&speaker, "cut", 20, |_| {}));
    proxy.mend();
    said.append(&mut say_lines(&speaker, "mended", 20, |_| {}));
    let end = speaker.says("the end");
    said.insert(end, "the end".to_owned());
    witness.has_seen("the end");
    check(&[&witness], &said);
    assert_eq!(witness.reconnects(), 0);
}

/// The negative control: where gap filling cannot work, the checker finds the hole.
#[test]
fn without_gap_filling_the_checker_finds_the_hole() {
    let redis = Redis::start();
    let _: String = redis.run(&["ACL", "SETUSER", "chat", "on", ">pass", "~*", "&*", "+@all"]);
    let url = format!("redis://chat:pass@127.0.0.1:{}", redis.port());
    let here = Hubbub::with(&["--redis", &url]);
    let there = Hubbub::on(&redis);
    let witness = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = say_lines(&speaker, "before", 5, |_| {});
    witness.has_seen("before 4");
    // From now on this instance can no longer read the log that would heal it.
    let _: String = redis.run(&["ACL", "SETUSER", "chat", "-xrange"]);
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    said.append(&mut say_lines(&speaker, "during", 5, |_| {}));
    until("the instance says that it is not well", || {
        let (status, why) = get(here.address(), "/readyz");
        (status == 503 && why.contains("behind")).then_some(())
    });
    let found = faults(&witness.seen(), &said);
    assert_eq!(found.len(), 5, "{found:#?}");
    let _: String = redis.run(&["ACL", "SETUSER", "chat", "+xrange"]);
    witness.has_seen("during 4");
    check(&[&witness], &said);
}

#[test]
fn a_message_that_was_not_heard_is_found_by_the_next_one() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    bob.says("one");
    assert_eq!(alice.hears(), "bob: one");
    // In the log, and published to nobody.
    let log = "hubbub:{lobby}:log";
    let newest: Vec<(String, Vec<String>)> = redis.run(&["XREVRANGE", log, "+", "-", "COUNT", "1"]);
    let fields = [
        "from",
        "carol",
        "text",
        "unheard",
        "via",
        "",
        "prev",
        &newest[0].0,
    ];
    let id: String = redis.run(&[&["XADD", log, "*"], &fields[..]].concat());
    let _: String = redis.run(&["SET", "hubbub:{lobby}:newest", &id]);
    bob.says("two");
    assert_eq!(alice.hears(), "carol: unheard");
    assert_eq!(alice.hears(), "bob: two");
    assert_eq!(bob.hears(), "carol: unheard");
}

#[test]
fn what_was_trimmed_meanwhile_is_announced_as_a_gap() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.port());
    let keep = ["--history-length", "10"];
    let here = Hubbub::with(&[&["--redis", &proxy.url()], &keep[..]].concat());
    let there = Hubbub::on_with(&redis, &keep);
    let witness = Witness::enter(&here.url(), "one", "lobby");
    let mut lines = here.join("reader");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    speaker.says("before");
    witness.has_seen("before");
    proxy.cut();
    // More than the log keeps, also with the node of a hundred that Redis trims by.
    let said = say_lines(&speaker, "lost or kept", 300, |_| {});
    proxy.mend();
    speaker.says("after");
    let seen = witness.has_seen("after");
    assert_eq!(faults(&seen, &said), Vec::<String>::new());
    assert_eq!(seen.iter().filter(|seen| seen.is_gap()).count(), 1);
    let gap = seen.iter().position(Seen::is_gap);
    assert_eq!(gap, Some(1), "right behind what was seen before: {seen:?}");
    assert_eq!(witness.reconnects(), 0);
    let heard = lines.hears_until("after");
    let told = "* some messages are missing here and cannot be recovered";
    assert!(heard.iter().any(|line| line == told), "{heard:?}");
}

/// Cuts the subscription `count` times, each time once it stands again.
fn cut_subscription(redis: &Redis, hubbub: &Hubbub, count: usize) {
    for _ in 0..count {
        let before = metric(hubbub, "hubbub_subscription_cuts_total");
        let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        until("the cut is noticed", || {
            (metric(hubbub, "hubbub_subscription_cuts_total") > before).then_some(())
        });
        until("it is subscribed again", || {
            (get(hubbub.address(), "/readyz").0 == 200).then_some(())
        });
    }
}

#[test]
fn a_cut_in_a_room_that_forgot_its_past_raises_no_alarm() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--history-ttl", "1"]);
    let witness = Witness::enter(&hubbub.url(), "one", "lobby");
    let speaker = Speaker::enter(&hubbub.url(), "speaker", "lobby");
    speaker.says("before");
    witness.has_seen("before");
    until("the log is forgotten", || {
        redis.has_forgotten("lobby").then_some(())
    });
    cut_subscription(&redis, &hubbub, 2);
    speaker.says("after");
    let seen = witness.has_seen("after");
    assert!(!seen.iter().any(Seen::is_gap), "nothing was lost: {seen:?}");
}

#[test]
fn entries_of_another_kind_are_no_hole() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let witness = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = Acknowledged::new();
    for round in 0..3 {
        said.append(&mut say_lines(
            &speaker,
            &format!("round {round}"),
            5,
            |_| {
                redis.add_foreign_entries("lobby", 3);
            },
        ));
        // More than are read at once.
        redis.add_foreign_entries("lobby", 250);
        cut_subscription(&redis, &here, 1);
    }
    said.insert(speaker.says("the end"), "the end".to_owned());
    witness.has_seen("the end");
    check(&[&witness], &said);
    assert!(
        !witness.seen().iter().any(Seen::is_gap),
        "{:?}",
        witness.seen()
    );
}

#[test]
fn a_newest_id_that_somebody_overwrote_or_deleted_does_no_harm() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let witness = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = say_lines(&speaker, "line", 20, |n| match n % 4 {
        1 => drop(redis.run::<String>(&["SET", "hubbub:{lobby}:newest", "garbage"])),
        3 => drop(redis.run::<i64>(&["DEL", "hubbub:{lobby}:newest"])),
        _ => {}
    });
    let _: String = redis.run(&["SET", "hubbub:{lobby}:newest", "garbage"]);
    cut_subscription(&redis, &here, 1);
    said.insert(speaker.says("the end"), "the end".to_owned());
    witness.has_seen("the end");
    check(&[&witness], &said);
    assert!(!witness.seen().iter().any(Seen::is_gap), "nothing was lost");
}

#[test]
fn a_room_whose_log_is_something_else_is_refused_and_keeps_nobody_else_unready() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let _: String = redis.run(&["SET", "hubbub:{odd}:log", "x"]);
    let mut alice = Client::text(hubbub.address(), "/chat/alice?room=odd");
    assert!(alice.hears().starts_with("! cannot enter the room"));
    let mut bob = hubbub.join("bob");
    bob.says("/who");
    assert_eq!(bob.hears(), "* online: bob");
    until("that room is not heard any more", || {
        let channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS", "hubbub:{odd}"]);
        channels.is_empty().then_some(())
    });
    assert_eq!(get(hubbub.address(), "/readyz").0, 200);
}

#[test]
fn a_room_whose_log_becomes_something_else_holds_no_other_room_up() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut odd = hubbub.join_room("alice", "odd");
    let mut bob = hubbub.join("bob");
    let mut carol = hubbub.join("carol");
    assert_eq!(bob.hears(), "* carol joined");
    let _: String = redis.run(&["SET", "hubbub:{odd}:log", "x"]);
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("the log is looked at again", || {
        (hubbub.log().matches("WRONGTYPE").count() > 1).then_some(())
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        // Rooms that are behind for longer than a second make an instance unready.
        assert_eq!(get(hubbub.address(), "/readyz").0, 200);
        carol.says("hi");
        assert_eq!(bob.hears(), "carol: hi");
        thread::sleep(Duration::from_millis(200));
    }
    let complaints = hubbub.log().matches("WRONGTYPE").count();
    assert!(complaints <= 4, "{complaints}");
    let _: i64 = redis.run(&["DEL", "hubbub:{odd}:log"]);
    let mut dave = hubbub.join_room("dave", "odd");
    assert_eq!(odd.hears(), "* dave joined");
    dave.says("at last");
    assert_eq!(odd.hears(), "dave: at last");
}

#[test]
fn a_room_that_could_not_be_entered_in_an_outage_is_not_heard_afterwards() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let channels = || redis.run::<Vec<String>>(&["PUBSUB", "CHANNELS"]).len();
    let before = channels();
    redis.freeze();
    thread::scope(|scope| {
        for n in 0..10 {
            let target = format!("/chat/alice?room=room-{n}");
            scope.spawn(|| {
                let target = target;
                let mut alice = Client::text(hubbub.address(), &target);
                assert!(alice.hears().starts_with("! cannot enter the room"));
            });
        }
    });
    thread::sleep(std::time::Duration::from_secs(8)); // longer than a room without members lingers
    redis.thaw();
    until("it is ready again", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
    until("only its own channel is heard", || {
        (channels() == before).then_some(())
    });
}

#[test]
fn a_log_that_is_flushed_mid_chat_leads_to_no_hang_no_double_and_no_crash() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let one = Witness::enter(&here.url(), "one", "lobby");
    let two = Witness::enter(&there.url(), "two", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = say_lines(&speaker, "line", 40, |n| {
        if n % 10 == 5 {
            let _: String = redis.run(&["FLUSHALL"]);
        }
    });
    said.insert(speaker.says("the end"), "the end".to_owned());
    one.has_seen("the end");
    two.has_seen("the end");
    check(&[&one, &two], &said);
}

#[test]
fn a_redis_that_forgot_everything_is_told_as_a_gap_and_chat_goes_on() {
    let mut redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let one = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let before = speaker.says("before");
    one.has_seen("before");
    redis.kill();
    redis.start_again();
    let after = speaker.says("after");
    let seen = one.has_seen("after");
    let [Seen::Message(first, _), gap, Seen::Message(last, _)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((*first, *last), (before, after));
    assert!(gap.is_gap(), "{gap:?}");
}

#[test]
fn a_redis_that_comes_back_without_its_last_writes_is_told_as_a_gap_and_nothing_is_doubled() {
    let mut redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let one = Witness::enter(&here.url(), "one", "lobby");
    let speaker = Speaker::enter(&there.url(), "speaker", "lobby");
    let mut said = say_lines(&speaker, "kept", 3, |_| {});
    // A snapshot, as Redis makes them by default; what follows is in memory alone.
    let _: String = redis.run(&["SAVE"]);
    said.append(&mut say_lines(&speaker, "forgotten", 3, |_| {}));
    one.has_seen("forgotten 2");
    redis.kill();
    redis.start_again();
    until("it is ready again", || {
        (get(here.address(), "/readyz").0 == 200).then_some(())
    });
    said.insert(speaker.says("after"), "after".to_owned());
    let seen = one.has_seen("after");
    assert_eq!(faults(&seen, &said), Vec::<String>::new());
    assert_eq!(seen.len(), 8, "seven messages and a gap: {seen:?}");
    assert_eq!(one.reconnects(), 0);
    // And the same for one who was away meanwhile.
    let (last, _) = said.iter().nth(5).expect("the last before");
    let mut back = Client::json(here.address(), "back");
    back.asks(&json!({"type": "join", "room": "lobby", "since": last.to_string()}));
    let entered = back.event_of("room");
    assert_eq!(entered["recovered"], false);
    assert_eq!(
        entered["messages"].as_array().map(Vec::len),
        Some(1),
        "{entered}"
    );
}

#[test]
fn a_join_that_fails_does_not_make_the_user_leave_on_another_connection() {
    let redis = Redis::start();
    let _: String = redis.run(&["ACL", "SETUSER", "chat", "on", ">pass", "~*", "&*", "+@all"]);
    let url = format!("redis://chat:pass@127.0.0.1:{}", redis.port());
    let (here, there) = (Hubbub::with(&["--redis", &url]), Hubbub::on(&redis));
    let mut bob = there.join("bob");
    let _alice = here.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    // Now nothing can be subscribed to here; commands still work.
    let _: String = redis.run(&["ACL", "SETUSER", "chat", "-subscribe"]);
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("the instance has noticed", || {
        (get(here.address(), "/readyz").0 == 503).then_some(())
    });
    let mut again = Client::text(here.address(), "/chat/alice");
    assert!(again.hears().starts_with("! cannot enter the room"));
    let mut carol = there.join("carol");
    assert_eq!(bob.hears(), "* carol joined", "and alice has not left");
    carol.says("/who");
    assert_eq!(carol.hears(), "* online: alice, bob, carol");
}

#[test]
fn a_thousand_rooms_are_healed_after_a_cut() {
    const ROOMS: usize = 1000;
    let redis = Redis::start();
    let many = ["--rooms-per-connection", "1000"];
    let (here, there) = (
        Hubbub::on_with(&redis, &many),
        Hubbub::on_with(&redis, &many),
    );
    let mut member = Client::json(here.address(), "member");
    let mut speaker = Client::json(there.address(), "speaker");
    let room = |n: usize| format!("room-{n}");
    for n in 0..ROOMS {
        member.joins(&room(n));
        speaker.joins(&room(n));
    }
    for round in 0..3 {
        let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for n in 0..ROOMS {
            let text = format!("round {round}");
            speaker.asks(&json!({"type": "send", "room": room(n), "text": text}));
        }
        let mut heard = vec![0; ROOMS];
        for _ in 0..ROOMS {
            let message = member.event_of("message");
            assert_eq!(message["text"], format!("round {round}"));
            let name = message["room"].as_str().expect("a room");
            let n: usize = name["room-".len()..].parse().expect("its number");
            heard[n] += 1;
        }
        assert!(
            heard.iter().all(|&count| count == 1),
            "each room's message once"
        );
    }
}
