//! People talk: one instance, two instances, several rooms, in order.

use std::collections::BTreeMap;
use std::thread;

use crate::support::client::Client;
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

#[test]
fn users_of_one_instance_hear_each_other_come_speak_and_go() {
    let hubbub = Hubbub::alone();
    let mut alice = Client::text(hubbub.address(), "/chat/alice");
    assert_eq!(alice.hears(), "* online: alice");
    let mut bob = Client::text(hubbub.address(), "/chat/bob");
    assert_eq!(bob.hears(), "* online: alice, bob");
    assert_eq!(alice.hears(), "* bob joined");
    alice.says("hello");
    assert_eq!(bob.hears(), "alice: hello");
    bob.says("hi");
    assert_eq!(alice.hears(), "bob: hi");
    bob.leaves();
    assert_eq!(alice.hears(), "* bob left");
}

#[test]
fn users_of_two_instances_chat_as_if_on_one() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = Client::text(here.address(), "/chat/alice");
    assert_eq!(alice.hears(), "* online: alice");
    let mut bob = Client::text(there.address(), "/chat/bob");
    assert_eq!(bob.hears(), "* online: alice, bob");
    assert_eq!(alice.hears(), "* bob joined");
    bob.says("hello over there");
    assert_eq!(alice.hears(), "bob: hello over there");
    alice.says("/who");
    assert_eq!(alice.hears(), "* online: alice, bob");
    alice.says("hello yourself");
    assert_eq!(bob.hears(), "alice: hello yourself");
    bob.leaves();
    assert_eq!(alice.hears(), "* bob left");
}

#[test]
fn a_room_hears_only_what_is_said_in_it() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let rooms = ["red", "green", "blue"];
    let mut listeners: Vec<_> = rooms
        .iter()
        .map(|room| here.join_room("listener", room))
        .collect();
    for room in rooms {
        let mut speaker = there.join_room(&format!("speaker-{room}"), room);
        speaker.says(&format!("this is {room}"));
        speaker.leaves();
    }
    for (room, listener) in rooms.iter().zip(&mut listeners) {
        let heard = listener.hears_until(" left");
        assert_eq!(
            heard,
            [
                format!("* speaker-{room} joined"),
                format!("speaker-{room}: this is {room}"),
                format!("* speaker-{room} left"),
            ]
        );
    }
}

#[test]
fn everyone_hears_many_senders_in_one_order() {
    const SENDERS: usize = 8;
    const LINES: usize = 50;
    let redis = Redis::start();
    let instances = [Hubbub::on(&redis), Hubbub::on(&redis)];
    let mut listeners: Vec<_> = instances.iter().map(|i| i.join("listener")).collect();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let instance = &instances[sender % 2];
            scope.spawn(move || {
                let mut client = instance.join(&format!("s{sender}"));
                for line in 0..LINES {
                    client.says(&format!("line {line}"));
                }
                client.leaves();
            });
        }
    });
    let orders: Vec<Vec<String>> = listeners
        .iter_mut()
        .map(|listener| {
            let mut said = Vec::new();
            while said.len() < SENDERS * LINES {
                let line = listener.hears();
                if !line.starts_with("* ") {
                    said.push(line);
                }
            }
            said
        })
        .collect();
    assert_eq!(orders[0], orders[1]);
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &orders[0] {
        let (sender, text) = line.split_once(": ").expect("a sender");
        let expected = next.entry(sender).or_default();
        assert_eq!(text, format!("line {expected}"), "{sender}'s own order");
        *expected += 1;
    }
}

#[test]
fn a_user_does_not_hear_their_own_line_but_their_other_connection_does() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut desk = here.join("alice");
    let mut phone = there.join("alice");
    let mut bob = there.join("bob");
    assert_eq!(desk.hears(), "* bob joined");
    assert_eq!(phone.hears(), "* bob joined");
    desk.says("from the desk");
    assert_eq!(bob.hears(), "alice: from the desk");
    assert_eq!(phone.hears(), "alice: from the desk");
    phone.says("from the phone");
    assert_eq!(desk.hears(), "alice: from the phone");
    bob.says("marker");
    assert_eq!(phone.hears(), "bob: marker");
}

#[test]
fn a_second_connection_of_one_name_takes_only_itself_along() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let mut first = hubbub.join("alice");
    let second = hubbub.join("alice");
    assert_eq!(bob.hears(), "* alice joined");
    second.leaves();
    let third = hubbub.join("alice");
    third.resets();
    bob.says("still there?");
    assert_eq!(first.hears(), "bob: still there?");
    first.says("yes");
    assert_eq!(bob.hears(), "alice: yes");
    first.leaves();
    assert_eq!(bob.hears(), "* alice left");
}

#[test]
fn a_reset_disturbs_nobody_and_is_noticed() {
    let hubbub = Hubbub::with(&["--presence-grace", "0"]);
    let mut bob = hubbub.join("bob");
    for round in 0..3 {
        let mut alice = hubbub.join("alice");
        assert_eq!(bob.hears(), "* alice joined");
        alice.says(&format!("round {round}"));
        assert_eq!(bob.hears(), format!("alice: round {round}"));
        alice.resets();
        assert_eq!(bob.hears(), "* alice left");
    }
    let mut carol = hubbub.join("carol");
    assert_eq!(bob.hears(), "* carol joined");
    bob.says("fine");
    assert_eq!(carol.hears(), "bob: fine");
}

#[test]
fn names_with_odd_characters_are_names_like_any_other() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    for (encoded, name) in [
        ("Zo%C3%AB", "Zoë"),
        ("%E5%90%8D%E5%89%8D", "名前"),
        ("a%20b", "a b"),
        ("%7Bx%7D%3A%25", "{x}:%"),
        ("it's*", "it's*"),
        ("%F0%9F%A6%80", "🦀"),
    ] {
        let target = format!("/chat/{encoded}?room={encoded}");
        let mut one = Client::text(here.address(), &target);
        assert_eq!(one.hears(), format!("* online: {name}"));
        let mut other = Client::text(there.address(), &format!("/chat/other?room={encoded}"));
        other.hears();
        assert_eq!(one.hears(), "* other joined");
        one.says("hello");
        assert_eq!(other.hears(), format!("{name}: hello"));
    }
}

#[test]
fn help_and_unknown_commands_are_answered() {
    let hubbub = Hubbub::alone();
    let mut alice = hubbub.join("alice");
    alice.says("/help");
    let help = alice.hears_until("begins with a slash: /text");
    assert!(help.iter().any(|line| line.contains("/who")));
    alice.says("/dance");
    assert!(alice.hears().starts_with("! there is no such command"));
    alice.says("");
    assert_eq!(alice.hears(), "! not sent: there is nothing to say");
    let mut bob = hubbub.join("bob");
    alice.says("//slash");
    assert_eq!(bob.hears(), "alice: /slash");
}
