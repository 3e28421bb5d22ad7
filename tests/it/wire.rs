//! What Redis is told: rooms are subscribed to while they have members, keys are as designed.

use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;
use crate::support::until;

fn channels(redis: &Redis) -> Vec<String> {
    let mut channels: Vec<String> = redis.run(&["PUBSUB", "CHANNELS", "hubbub:{*"]);
    channels.sort();
    channels
}

#[test]
fn a_room_is_subscribed_to_while_it_has_members_and_a_little_longer() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    assert_eq!(channels(&redis), Vec::<String>::new());
    let alice = hubbub.join_room("alice", "red");
    let bob = hubbub.join_room("bob", "blue");
    assert_eq!(channels(&redis), ["hubbub:{blue}", "hubbub:{red}"]);
    alice.leaves();
    until("red is forgotten", || {
        (channels(&redis) == ["hubbub:{blue}"]).then_some(())
    });
    bob.leaves();
    until("blue is forgotten", || {
        channels(&redis).is_empty().then_some(())
    });
    let _again = hubbub.join_room("alice", "red");
    assert_eq!(channels(&redis), ["hubbub:{red}"]);
}

#[test]
fn keys_begin_with_the_prefix_and_the_room_and_expire() {
    let redis = Redis::start();
    let hubbub = Hubbub::on_with(&redis, &["--prefix", "team:chat"]);
    let mut alice = hubbub.join_room("alice", "red");
    let mut bob = hubbub.join_room("bob", "red");
    assert_eq!(alice.hears(), "* bob joined");
    bob.says("hello");
    assert_eq!(alice.hears(), "bob: hello");
    let mut keys: Vec<String> = redis.run(&["KEYS", "*"]);
    keys.sort();
    let (of_room, others): (Vec<_>, Vec<_>) = keys
        .iter()
        .partition(|key| key.starts_with("team:chat:{red}:"));
    assert_eq!(
        of_room,
        [
            "team:chat:{red}:instances",
            "team:chat:{red}:log",
            "team:chat:{red}:members",
            "team:chat:{red}:newest",
            "team:chat:{red}:revision",
        ]
    );
    // By two of the instance's own, Redis proves that it takes messages. The last is the list of servers.
    let [log, newest, servers] = &others[..] else {
        panic!("{others:?}")
    };
    for key in [log, newest] {
        assert!(key.starts_with("team:chat:instance:"), "{key}");
    }
    assert_eq!(*servers, "team:chat:servers");
    for key in keys {
        let ttl: i64 = redis.run(&["PTTL", &key]);
        assert!(ttl > 0, "{key} never expires");
    }
}

#[test]
fn flushed_scripts_are_loaded_again_without_an_error() {
    let redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let mut alice = hubbub.join("alice");
    let mut bob = hubbub.join("bob");
    assert_eq!(alice.hears(), "* bob joined");
    for round in 0..3 {
        let _: String = redis.run(&["SCRIPT", "FLUSH"]);
        bob.says(&format!("round {round}"));
        assert_eq!(alice.hears(), format!("bob: round {round}"));
    }
}
