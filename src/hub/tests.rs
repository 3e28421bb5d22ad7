//! Members get the right events, in every order of deliveries, entering and leaving.

use super::*;
use crate::hub::outbox::{Queue, outbox};
use crate::message::{PresenceChange, Revision};
use crate::protocol::{ANNOUNCED_MEMBERS, Encoding};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

fn user(name: &str) -> UserName {
    name.parse().expect("a name")
}

/// A message of bob's.
fn message(number: u64, text: &str) -> Entry {
    Entry {
        message: crate::message::Message {
            id: MessageId { millis: 1, number },
            from: user("bob"),
            text: text.to_owned(),
            at: 1,
        },
        prev: None,
        via: None,
    }
}

/// A hub with one room and a clock that the test sets. It numbers the changes in presence.
struct TestHub {
    hub: Hub,
    room: RoomName,
    now: Mutex<Instant>,
    revision: Mutex<Revision>,
}

impl TestHub {
    fn new() -> Self {
        let began = 1;
        Self {
            hub: Hub::start(InstanceId::random(), 0).expect("no threads"),
            room: RoomName::lobby(),
            now: Mutex::new(Instant::now()),
            revision: Mutex::new(Revision { began, number: 100 }),
        }
    }

    fn deliver(&self, delivery: Delivery) {
        let now = *lock(&self.now);
        self.hub.deliver_at(&self.room, delivery, Pace::Calm, now);
    }

    /// Moves the clock on and flushes, as the delivering thread does.
    fn passes(&self, time: Duration) {
        *lock(&self.now) += time;
        let now = *lock(&self.now);
        self.hub.flush_due(now, |_| true);
    }

    fn admit(&self, connection: u64, name: &str) -> Queue {
        let (outbox, queue) = outbox(Encoding::Text, 10_000, None);
        let connection = ConnectionId(connection);
        self.hub
            .add_member(&self.room, connection, Some(&user(name)), &outbox);
        queue
    }

    /// A list that shows what the hub was told.
    fn list(&self, members: &[&str]) -> MemberList {
        MemberList {
            users: members.iter().map(|name| user(name)).collect(),
            revision: *lock(&self.revision),
        }
    }

    fn release(&self, connection: u64, members: &[&str]) {
        self.release_ahead(connection, 0, members);
    }

    /// Releases a member with a list that is so many changes ahead of what the hub was told.
    fn release_ahead(&self, connection: u64, ahead: i64, members: &[&str]) {
        let mut list = self.list(members);
        list.revision.number = list.revision.number.wrapping_add_signed(ahead);
        self.release_with(connection, &list);
    }

    fn release_with(&self, connection: u64, list: &MemberList) {
        self.hub
            .release(&self.room, ConnectionId(connection), None, list, None);
    }

    /// Bob says numbers, each of which is also the id of its message.
    fn say(&self, numbers: &[u64], via: Option<Via>) {
        let entry = |number: &u64| Entry {
            via,
            ..message(*number, &number.to_string())
        };
        let entries = numbers.iter().map(entry).collect();
        self.deliver(Delivery::Messages(entries));
    }

    /// Bob says this.
    fn say_text(&self, number: u64, text: &str) {
        self.deliver(Delivery::Messages(vec![message(number, text)]));
    }

    /// Announces a notice after an interval in which nothing was told.
    fn notice(&self, change: Change<'_>) {
        self.passes(NOTICE_INTERVAL);
        self.notices([change]);
    }

    /// Announces notices without a pause.
    fn notices<'a>(&self, changes: impl IntoIterator<Item = Change<'a>>) {
        for (joined, name) in changes {
            let revision = {
                let mut revision = lock(&self.revision);
                revision.number += 1;
                *revision
            };
            self.change(joined, name, revision);
        }
    }

    fn change(&self, joined: bool, name: &str, revision: Revision) {
        let user = user(name);
        let change = PresenceChange {
            user,
            joined,
            revision,
        };
        self.deliver(Delivery::Notice(Notice::Presence(change)));
    }
}

/// Whether a user joins, and the user.
type Change<'a> = (bool, &'a str);

/// Members enter, hear for a while and leave, so that the room is small, then spread over the workers, and
/// small again. Each hears all messages behind its past, once and in order.
#[test]
fn every_member_hears_all_in_order_while_its_room_grows_and_shrinks_over_the_workers() {
    const MESSAGES: u64 = 30_000;
    let hub = Hub::start(InstanceId::random(), 3).expect("threads");
    let room = RoomName::lobby();
    // The newest message of the log. A message is there before it is delivered.
    let newest = AtomicU64::new(0);
    let connection = AtomicU64::new(0);
    let spread = AtomicUsize::new(0);
    let id = |number| MessageId { millis: 1, number };
    let member_hears = |stays_for: u64| {
        let connection = ConnectionId(connection.fetch_add(1, Ordering::SeqCst));
        let (outbox, queue) = outbox(Encoding::Text, 1 << 30, None);
        hub.add_member(&room, connection, Some(&user("alice")), &outbox);
        let past = newest.load(Ordering::SeqCst);
        let users = [].into();
        let revision = Revision::ZERO;
        let list = MemberList { users, revision };
        hub.release(&room, connection, Some(id(past)), &list, None);
        let until = MESSAGES.min(past + stays_for);
        let mut heard = past;
        while heard < until {
            for line in lines(&queue) {
                heard += 1;
                assert_eq!(line, format!("bob: {heard}"));
            }
            thread::yield_now();
        }
        let workers = hub.room(&room).expect("it has a member").workers();
        spread.fetch_max(workers.len(), Ordering::SeqCst);
        hub.remove_member(&room, connection);
    };
    thread::scope(|scope| {
        for n in 0..70 {
            let (member_hears, newest) = (&member_hears, &newest);
            scope.spawn(move || {
                while newest.load(Ordering::SeqCst) < MESSAGES {
                    member_hears(50 + 13 * n);
                }
            });
        }
        for number in 1..=MESSAGES {
            newest.store(number, Ordering::SeqCst);
            let entry = message(number, &number.to_string());
            let pace = match number % 5 {
                0 => Pace::Busy,
                _ => Pace::Calm,
            };
            hub.deliver(&room, Delivery::Messages(vec![entry]), pace);
        }
    });
    assert_eq!(spread.into_inner(), 3);
    assert_eq!(hub.count(), 0);
    hub.close();
}

fn joined(name: &str) -> Change<'_> {
    (true, name)
}

fn left(name: &str) -> Change<'_> {
    (false, name)
}

/// Takes the lines that wait in a queue.
fn lines(queue: &Queue) -> Vec<String> {
    let mut bytes = Vec::new();
    queue.collect_by(Instant::now(), &mut bytes);
    let mut lines = Vec::new();
    let mut rest = &bytes[..];
    while let [_, length, ..] = *rest {
        let end = 2 + usize::from(length);
        lines.push(String::from_utf8(rest[2..end].to_vec()).expect("text"));
        rest = &rest[end..];
    }
    lines
}

#[test]
fn a_user_in_the_initial_list_is_not_announced_again() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    let bob = test.admit(2, "bob");
    // Read from the shared state, before the notices of bob and carol arrive.
    test.release_ahead(2, 2, &["alice", "bob", "carol"]);
    test.notice(joined("bob"));
    test.notice(joined("carol"));
    assert_eq!(lines(&alice), ["* bob joined", "* carol joined"]);
    assert_eq!(lines(&bob), Vec::<String>::new());
    test.notice(left("carol"));
    assert_eq!(lines(&bob), ["* carol left"]);
}

#[test]
fn a_user_that_is_told_again_after_redis_lost_its_data_is_news_to_those_alone_that_entered_since() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "carol"]);
    *lock(&test.revision) = Revision {
        began: 2,
        number: 0,
    };
    let bob = test.admit(2, "bob");
    test.release_ahead(2, 1, &["bob"]);
    test.notice(joined("bob"));
    let dave = test.admit(3, "dave");
    test.notice(joined("carol"));
    test.release_ahead(3, -1, &["bob"]);
    assert_eq!(lines(&alice), ["* bob joined"]);
    assert_eq!(lines(&bob), ["* carol joined"]);
    assert_eq!(lines(&dave), ["* carol joined"]);
    test.notice(left("carol"));
    for queue in [&alice, &bob, &dave] {
        assert_eq!(lines(queue), ["* carol left"]);
    }
}

#[test]
fn a_member_whose_list_shows_what_the_room_missed_is_told_of_the_next_change() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "carol"]);
    // The notice that carol left is lost. Bob is shown the room without her.
    lock(&test.revision).number += 1;
    let bob = test.admit(2, "bob");
    test.release(2, &["alice", "bob"]);
    test.notice(joined("carol"));
    assert_eq!(lines(&alice), Vec::<String>::new());
    assert_eq!(lines(&bob), ["* carol joined"]);
}

#[test]
fn a_member_that_entered_after_a_lost_notice_is_told_of_the_next_change_also_after_its_own_join() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "carol"]);
    // The notice that carol left is lost. Bob is heard to join, and is shown the room without her.
    lock(&test.revision).number += 1;
    let bob = test.admit(2, "bob");
    test.notice(joined("bob"));
    test.release(2, &["alice", "bob"]);
    test.notice(joined("carol"));
    assert_eq!(lines(&alice), ["* bob joined"]);
    assert_eq!(lines(&bob), ["* carol joined"]);
}

#[test]
fn a_held_gap_that_lies_in_the_past_repeats_no_message() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.say(&[5], None);
    let (after, before) = (
        None,
        Some(MessageId {
            millis: 1,
            number: 5,
        }),
    );
    test.deliver(Delivery::Gap {
        after,
        until: before,
        before,
    });
    test.say(&[5, 6, 7], None);
    // The past was read up to here, with its gap.
    let (first, list) = (ConnectionId(1), test.list(&[]));
    let last = Some(MessageId {
        millis: 1,
        number: 6,
    });
    test.hub.release(&test.room, first, last, &list, None);
    assert_eq!(lines(&alice), ["bob: 7"]);
}

#[test]
fn a_member_that_has_read_beyond_a_gap_is_told_of_no_message_twice() {
    let test = TestHub::new();
    let id = |number| Some(MessageId { millis: 1, number });
    // The past was read up to 7, while the hub was given messages up to 5.
    let alice = test.admit(1, "alice");
    let list = test.list(&[]);
    test.hub
        .release(&test.room, ConnectionId(1), id(7), &list, None);
    let (after, before) = (id(5), id(7));
    test.deliver(Delivery::Gap {
        after,
        until: before,
        before,
    });
    test.say(&[7, 8], None);
    assert_eq!(lines(&alice), ["bob: 8"]);
    // The same where nothing was left behind the gap. Whether the past has it is not known, so it is told.
    let bob = test.admit(2, "bob");
    test.hub
        .release(&test.room, ConnectionId(2), id(9), &list, None);
    let before = None;
    test.deliver(Delivery::Gap {
        after,
        until: before,
        before,
    });
    test.say(&[9, 10], None);
    let missing = "* some messages are missing here and cannot be recovered";
    assert_eq!(lines(&bob), [missing, "bob: 10"]);
}

#[test]
fn a_gap_is_told_once_and_only_to_members_that_lack_what_is_in_it() {
    let test = TestHub::new();
    let id = |number| Some(MessageId { millis: 1, number });
    let list = test.list(&[]);
    let names = ["alice", "bob"];
    let [alice, bob] = [(1, 3), (2, 5)].map(|(connection, last)| {
        let queue = test.admit(connection, names[connection as usize - 1]);
        let connection = ConnectionId(connection);
        test.hub
            .release(&test.room, connection, id(last), &list, None);
        queue
    });
    let missing = "* some messages are missing here and cannot be recovered";
    let gap = |after, until| {
        test.deliver(Delivery::Gap {
            after: id(after),
            until: id(until),
            before: None,
        });
    };
    gap(3, 5);
    assert_eq!(lines(&alice), [missing]);
    assert_eq!(lines(&bob), Vec::<String>::new(), "it has read up to 5");
    gap(5, 7);
    assert_eq!(lines(&alice), Vec::<String>::new(), "it is the same gap");
    assert_eq!(lines(&bob), [missing]);
    test.say(&[8], None);
    gap(8, 9);
    test.say(&[8], None);
    assert_eq!(lines(&alice), ["bob: 8", missing], "the ids go on");
}

#[test]
fn messages_whose_ids_begin_anew_behind_a_gap_are_heard() {
    let id = |number| Some(MessageId { millis: 1, number });
    for before in [None, id(1)] {
        let test = TestHub::new();
        let alice = test.admit(1, "alice");
        let list = test.list(&[]);
        test.hub
            .release(&test.room, ConnectionId(1), id(5), &list, None);
        let after = id(5);
        test.deliver(Delivery::Gap {
            after,
            until: before,
            before,
        });
        test.say(&[1, 2], None);
        let missing = "* some messages are missing here and cannot be recovered";
        assert_eq!(lines(&alice), [missing, "bob: 1", "bob: 2"]);
    }
}

#[test]
fn a_held_notice_follows_only_if_the_initial_list_does_not_show_it() {
    let test = TestHub::new();
    let _alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    let bob = test.admit(2, "bob");
    test.notice(joined("carol"));
    test.notice(joined("dave"));
    test.notice(left("dave"));
    test.notice(joined("eve"));
    // Read after carol came and dave went, and before eve came.
    test.release_ahead(2, -1, &["alice", "bob", "carol"]);
    assert_eq!(lines(&bob), ["* eve joined"]);
}

#[test]
fn a_crowd_in_one_members_initial_list_is_a_crowd_for_the_whole_room() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    let crowd: Vec<_> = (0..ANNOUNCED_MEMBERS).map(|n| format!("u{n:03}")).collect();
    let mut shown = vec!["alice"];
    shown.extend(crowd.iter().map(String::as_str));
    let first = test.admit(2, "u000");
    let ahead = crowd.len() as i64;
    test.release_ahead(2, ahead, &shown);
    let second = test.admit(3, "u001");
    test.release_ahead(3, ahead, &shown);
    for name in &crowd {
        test.notice(joined(name));
    }
    // One fewer is no crowd any more.
    test.notice(left("u255"));
    test.notice(joined("zoe"));
    test.notice(left("zoe"));
    for queue in [&alice, &first, &second] {
        assert_eq!(lines(queue), ["* u255 left", "* zoe left"]);
    }
}

#[test]
fn a_list_of_as_many_users_as_are_announced_makes_up_for_no_lost_notice() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    let others: Vec<_> = (1..ANNOUNCED_MEMBERS).map(|n| format!("u{n:03}")).collect();
    let mut shown = vec!["alice"];
    shown.extend(others.iter().map(String::as_str));
    // The notices of all others are lost.
    lock(&test.revision).number += others.len() as u64;
    let _other = test.admit(2, "u001");
    test.release(2, &shown);
    for _ in 0..2 {
        test.deliver(Delivery::Present(test.list(&shown)));
    }
    assert_eq!(lines(&alice).len(), others.len());
}

#[test]
fn names_that_look_alike_are_those_of_a_crowds_newest_list_and_of_each_change_since() {
    let test = TestHub::new();
    let crowd: Vec<_> = (0..=ANNOUNCED_MEMBERS)
        .map(|n| format!("u{n:03}"))
        .collect();
    let mut revision = 0;
    let mut shows = |others: &[&str]| {
        let mut list = test.list(others);
        list.users = others
            .iter()
            .map(|name| user(name))
            .chain(crowd.iter().map(|name| user(name)))
            .collect();
        revision += 1;
        list.revision.number += revision * 10;
        test.hub.alike(&test.room, Some(&list))
    };
    let _alice = test.admit(1, "alice");
    assert!(shows(&["alice"]).is_empty());
    assert_eq!(
        shows(&["ALICE", "Bob", "alice"]),
        [[user("ALICE"), user("alice")]]
    );
    assert_eq!(
        shows(&["Bob", "alice", "bob"]),
        [[user("Bob"), user("bob")]]
    );
    assert!(shows(&["Alice", "bob"]).is_empty());
    lock(&test.revision).number += 1000;
    test.notice(joined("BOB"));
    assert_eq!(
        test.hub.alike(&test.room, None),
        [[user("BOB"), user("bob")]]
    );
    test.notice(left("bob"));
    assert!(test.hub.alike(&test.room, None).is_empty());
}

#[test]
fn names_that_look_alike_are_also_those_of_a_list_whose_notices_are_on_their_way() {
    let test = TestHub::new();
    let _alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    let mut ahead = test.list(&["Alice", "alice"]);
    ahead.revision.number += 1;
    let alike = [[user("Alice"), user("alice")]];
    assert_eq!(test.hub.alike(&test.room, Some(&ahead)), alike);
    assert!(test.hub.alike(&test.room, None).is_empty());
    test.notice(joined("Alice"));
    assert_eq!(test.hub.alike(&test.room, None), alike);
}

#[test]
fn a_difference_is_announced_when_it_is_seen_twice() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "bob"]);
    let present = |names: &[&str]| {
        lock(&test.revision).number += 1;
        test.deliver(Delivery::Present(test.list(names)));
    };
    present(&["alice", "carol"]);
    assert_eq!(lines(&alice), Vec::<String>::new());
    present(&["alice", "carol"]);
    assert_eq!(lines(&alice), ["* bob left", "* carol joined"]);
    present(&["alice", "carol"]);
    present(&["alice", "carol"]);
    assert_eq!(lines(&alice), Vec::<String>::new());
}

#[test]
fn a_member_gets_every_message_once_and_only_those_after_its_history() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    let say = |number| test.say(&[number], None);
    say(1);
    say(2);
    say(3);
    let last = Some(MessageId {
        millis: 1,
        number: 2,
    });
    let (first, list) = (ConnectionId(1), test.list(&[]));
    test.hub.release(&test.room, first, last, &list, None);
    say(3);
    say(4);
    assert_eq!(lines(&alice), ["bob: 3", "bob: 4"]);
}

#[test]
fn of_a_batch_each_member_gets_the_messages_that_it_lacks_and_wants() {
    let test = TestHub::new();
    let [alice, bob, carol] =
        [(1, "alice"), (2, "bob"), (3, "carol")].map(|(id, name)| test.admit(id, name));
    test.release(1, &["alice"]);
    test.release(2, &["alice", "bob"]);
    test.say(&[1], None);
    test.say(&[1, 2], None);
    let by_bob = Via {
        instance: test.hub.instance(),
        connection: ConnectionId(2),
    };
    test.say(&[3, 4], Some(by_bob));
    test.say(&[5, 6], None);
    let said = |numbers: &[u64]| -> Vec<_> {
        numbers
            .iter()
            .map(|number| format!("bob: {number}"))
            .collect()
    };
    assert_eq!(lines(&alice), said(&[1, 2, 3, 4, 5, 6]));
    assert_eq!(lines(&bob), said(&[1, 2, 5, 6]), "a terminal shows its own");
    assert_eq!(lines(&carol), said(&[]), "it is still reading the past");
    let last = Some(MessageId {
        millis: 1,
        number: 5,
    });
    let third = ConnectionId(3);
    let list = test.list(&[]);
    test.hub.release(&test.room, third, last, &list, None);
    assert_eq!(lines(&carol), said(&[6]));
    test.say(&[6, 7], None);
    assert_eq!(lines(&carol), said(&[7]));
}

/// Tests that run at the same time evict a few members, too.
#[test]
fn a_member_that_reads_the_past_slower_than_the_room_speaks_is_evicted_once() {
    let test = TestHub::new();
    let _alice = test.admit(1, "alice");
    let before = metrics::SLOW.value();
    // A byte each, and the outbox has a budget of 10,000.
    for _ in 0..11_000 {
        test.say(&[1], None);
    }
    let given_up = metrics::SLOW.value() - before;
    assert!((1..100).contains(&given_up), "{given_up}");
}

#[test]
fn what_is_held_back_for_a_member_is_bounded_in_bytes() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    // The outbox has a budget of 10,000.
    test.say_text(1, &"x".repeat(6_000));
    assert!(alice.outbox().is_open());
    test.say_text(2, &"x".repeat(6_000));
    assert!(!alice.outbox().is_open());
}

#[test]
fn an_encoding_without_an_event_is_pushed_nothing_for_it() {
    let test = TestHub::new();
    let (outbox, follower) = outbox(Encoding::EventStream, 10_000, None);
    test.hub
        .add_member(&test.room, ConnectionId(1), None, &outbox);
    test.release(1, &[]);
    test.deliver(Delivery::Notice(Notice::Typing(user("bob"))));
    assert_eq!(follower.length(), 0);
    test.say(&[1], None);
    assert_eq!(follower.length(), 1);
}

#[test]
fn a_message_is_concealed_before_it_is_told() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    test.hub.conceal_with(Box::new(|room, message| {
        message.text = format!("deleted from {room}");
    }));
    test.say(&[1], None);
    assert_eq!(lines(&alice), ["bob: deleted from lobby"]);
}

#[test]
fn the_workers_end_when_all_that_they_were_given_is_written() {
    let hub = Hub::start(InstanceId::random(), 1).expect("a thread");
    let (outbox, alice) = outbox(Encoding::Text, 100_000, None);
    let (lobby, first) = (RoomName::lobby(), ConnectionId(1));
    hub.add_member(&lobby, first, None, &outbox);
    let (users, revision) = ([].into(), Revision::ZERO);
    hub.release(&lobby, first, None, &MemberList { users, revision }, None);
    for number in 1..=1_000 {
        let message = message(number, &number.to_string());
        hub.deliver(&lobby, Delivery::Messages(vec![message]), Pace::Busy);
    }
    hub.close();
    assert_eq!(lines(&alice).len(), 1_000);
}

/// A room is busy while its fan-out takes long.
#[test]
fn members_enter_and_leave_other_rooms_while_one_room_is_busy() {
    let test = TestHub::new();
    let _alice = test.admit(1, "alice");
    let (entered, enters) = mpsc::channel();
    let other: RoomName = "other".parse().expect("a name");
    let lobby = test.hub.room(&test.room).expect("it has a member");
    thread::scope(|scope| {
        let (test, other) = (&test, &other);
        lobby.with_member(ConnectionId(1), |_| {
            scope.spawn(|| test.admit(2, "bob"));
            scope.spawn(|| test.hub.remove_member(&test.room, ConnectionId(1)));
            scope.spawn(move || {
                // Long enough for the two above to be waiting.
                for id in 3..1000 {
                    let (outbox, _queue) = outbox(Encoding::Text, 10_000, None);
                    let (hub, carol) = (&test.hub, ConnectionId(id));
                    hub.add_member(other, carol, Some(&user("carol")), &outbox);
                    hub.remove_member(other, carol);
                    thread::yield_now();
                }
                entered.send(()).expect("it is waited for");
            });
            let meanwhile = enters.recv_timeout(Duration::from_secs(20));
            assert_eq!(meanwhile, Ok(()));
        });
    });
    assert!(test.hub.hosts(&test.room), "bob is there");
}

#[test]
fn a_room_that_is_entered_and_left_by_many_loses_no_member() {
    const ROUNDS: u64 = 5_000;
    let test = TestHub::new();
    thread::scope(|scope| {
        for id in 1..=4 {
            let test = &test;
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    let queue = test.admit(id, "alice");
                    test.release(id, &[]);
                    let room = test.hub.room(&test.room).expect("it has a member");
                    // As a delivery does, but to this member alone.
                    let mut is_there = false;
                    room.with_member(ConnectionId(id), |_| is_there = true);
                    assert!(is_there, "round {number}");
                    test.hub.remove_member(&test.room, ConnectionId(id));
                    drop(queue);
                }
            });
        }
    });
    assert_eq!(test.hub.count(), 0);
}

#[test]
fn a_user_that_joins_and_leaves_within_the_interval_is_not_announced() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "carol"]);
    test.notice(joined("bob"));
    assert_eq!(lines(&alice), ["* bob joined"], "the first is told at once");
    for _ in 0..100 {
        test.notices([left("bob"), left("carol"), joined("carol"), joined("bob")]);
        test.notices([joined("dave"), left("dave")]);
    }
    test.passes(NOTICE_INTERVAL);
    assert_eq!(lines(&alice), Vec::<String>::new());
    // Nothing was told, so no interval has begun.
    test.notices([left("bob"), joined("bob"), left("bob")]);
    assert_eq!(lines(&alice), ["* bob left"]);
    test.passes(NOTICE_INTERVAL);
    assert_eq!(lines(&alice), Vec::<String>::new());
    let due = test.hub.flush_due(Instant::now(), |_| true);
    assert_eq!(due, None, "nothing waits");
}

#[test]
fn a_user_that_leaves_and_comes_back_within_the_interval_is_not_announced_in_a_new_history_either()
{
    let test = TestHub::new();
    let _alice = test.admit(1, "alice");
    test.release(1, &["alice", "carol"]);
    *lock(&test.revision) = Revision {
        began: 2,
        number: 0,
    };
    test.notice(joined("alice"));
    let bob = test.admit(2, "bob");
    test.release_ahead(2, 1, &["alice", "bob"]);
    test.notice(joined("bob"));
    test.notice(joined("carol"));
    test.notices([left("carol"), joined("carol")]);
    test.passes(NOTICE_INTERVAL);
    assert_eq!(lines(&bob), ["* carol joined"]);
}

#[test]
fn a_join_that_came_before_the_first_list_and_is_newer_counts() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.notice(joined("bob"));
    test.release_ahead(1, -1, &["alice"]);
    assert_eq!(lines(&alice), ["* bob joined"]);
    test.notice(left("bob"));
    assert_eq!(lines(&alice), ["* bob left"]);
}

#[test]
fn joins_are_told_no_more_often_while_the_only_member_reads_the_past() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    let waits = || {
        let now = *lock(&test.now);
        test.hub.flush_due(now, |_| true) == Some(now + NOTICE_INTERVAL)
    };
    test.notice(joined("bob"));
    test.notices([joined("carol"), joined("dave")]);
    assert!(waits());
    test.passes(NOTICE_INTERVAL);
    test.notices([joined("eve")]);
    assert!(waits());
    test.release_ahead(1, -4, &["alice"]);
    test.passes(NOTICE_INTERVAL);
    let told = ["bob", "carol", "dave", "eve"].map(|name| format!("* {name} joined"));
    assert_eq!(lines(&alice), told);
}

#[test]
fn a_flush_tells_also_what_is_not_due() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    test.notices([joined("bob"), joined("carol")]);
    assert_eq!(lines(&alice), ["* bob joined"]);
    test.hub.flush(|_| true);
    assert_eq!(lines(&alice), ["* carol joined"]);
}

#[test]
fn an_event_has_the_members_name_that_its_own_looks_like() {
    let test = TestHub::new();
    let (outbox, alice) = outbox(Encoding::Json, 10_000, None);
    test.hub
        .add_member(&test.room, ConnectionId(1), None, &outbox);
    test.release(1, &["Bob", "alice"]);
    let has_sign = || {
        let event = lines(&alice).concat();
        event.contains(r#""looks_like":"Bob""#)
    };
    test.say(&[1], None);
    assert!(has_sign(), "bob is not here: it is a post");
    test.notice(joined("bob"));
    assert!(has_sign());
    test.say(&[2], None);
    assert!(has_sign());
    test.notice(left("Bob"));
    test.say(&[3], None);
    assert!(!has_sign());
}

#[test]
fn a_crowd_that_joins_within_the_interval_is_one_push_for_each_member() {
    let test = TestHub::new();
    let names = ["alice", "bob"];
    let [alice, bob] = [(1, "alice"), (2, "bob")].map(|(id, name)| test.admit(id, name));
    test.release(1, &names);
    test.release(2, &names);
    // Frank entered before he was announced, and was shown some of the others.
    test.notice(joined("first"));
    let frank = test.admit(3, "frank");
    let shown = ["alice", "bob", "dave", "eve", "first", "frank"];
    test.release_ahead(3, 3, &shown);
    lines(&alice);
    lines(&bob);
    let crowd = ["eve", "dave", "frank", "zoe", "carol"];
    test.notices(crowd.map(joined));
    let now = *lock(&test.now);
    let due = test.hub.flush_due(now, |_| true).expect("they wait");
    assert_eq!(due, now + NOTICE_INTERVAL);
    assert_eq!(alice.length(), 0);
    test.passes(NOTICE_INTERVAL);
    for queue in [&alice, &bob, &frank] {
        assert_eq!(queue.length(), 1);
    }
    let told = crowd.map(|name| format!("* {name} joined"));
    assert_eq!(lines(&alice), told, "in the order of their coming");
    assert_eq!(lines(&bob), told);
    assert_eq!(lines(&frank), ["* zoe joined", "* carol joined"]);
}

#[test]
fn nobody_speaks_or_types_before_they_are_announced() {
    let test = TestHub::new();
    let (outbox, alice) = outbox(Encoding::Json, 10_000, None);
    let (lobby, first) = (&test.room, ConnectionId(1));
    test.hub
        .add_member(lobby, first, Some(&user("alice")), &outbox);
    test.release(1, &["alice"]);
    let heard = || -> Vec<String> {
        let events = lines(&alice).into_iter();
        let kind = |event: String| event.split('"').nth(3).map(str::to_owned);
        events.filter_map(kind).collect()
    };
    test.notices([joined("zoe"), joined("bob")]);
    assert_eq!(heard(), ["joined"]);
    test.say(&[1], None);
    assert_eq!(heard(), ["joined", "message"]);
    test.notices([joined("carol")]);
    test.deliver(Delivery::Notice(Notice::Typing(user("carol"))));
    assert_eq!(heard(), ["joined", "typing"]);
    test.notices([left("zoe")]);
    let (after, before) = (None, None);
    test.deliver(Delivery::Gap {
        after,
        until: before,
        before,
    });
    assert_eq!(heard(), ["left", "gap"]);
    test.notices([left("bob")]);
    test.deliver(Delivery::Present(test.list(&["alice", "carol"])));
    assert_eq!(heard(), ["left"]);
    test.passes(NOTICE_INTERVAL);
    assert_eq!(heard(), Vec::<String>::new());
}

#[test]
fn a_member_that_was_shown_a_user_hears_of_the_leave_even_if_the_join_was_never_told() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    test.notices([joined("zoe"), joined("bob")]);
    let carol = test.admit(2, "carol");
    test.release(2, &["alice", "bob", "carol", "zoe"]);
    test.notices([left("bob")]);
    test.passes(NOTICE_INTERVAL);
    assert_eq!(lines(&alice), ["* zoe joined"]);
    assert_eq!(lines(&carol), ["* bob left"]);
}

#[test]
fn a_slow_member_sheds_a_batch_of_notices_as_a_whole() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    // Her list shows the first half of the crowd.
    test.release_ahead(1, 100, &["alice"]);
    test.say(&(1..=600).collect::<Vec<_>>(), None);
    let _bob = test.admit(2, "bob");
    test.release(2, &["alice", "bob"]);
    let before = metrics::SHED.value();
    let crowd: Vec<_> = (0..200).map(|n| format!("u{n}")).collect();
    test.notices(crowd.iter().map(|name| joined(name)));
    test.passes(NOTICE_INTERVAL);
    test.say(&[2000], None);
    let shed = metrics::SHED.value() - before;
    assert!((100..150).contains(&shed), "{shed}");
    assert_eq!(lines(&alice).len(), 601, "what was said");
}

/// A member's view: its initial list, and the changes that it is told.
struct View {
    queue: Queue,
    members: BTreeSet<String>,
}

impl View {
    fn hears(&mut self) {
        for line in lines(&self.queue) {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["*", name, "joined"] => self.members.insert(name.to_owned()),
                ["*", name, "left"] => self.members.remove(name),
                _ => panic!("{line}"),
            };
        }
    }
}

#[test]
fn a_member_that_still_reads_is_not_told_again_of_those_in_its_list_when_redis_lost_its_data() {
    let test = TestHub::new();
    let queue = test.admit(1, "observer");
    let list = test.list(&["bob", "carol"]);
    let anew = |number| Revision { began: 2, number };
    // Bob arrives anew. Carol left, and came back.
    test.change(true, "bob", anew(1));
    test.change(false, "carol", anew(2));
    test.passes(NOTICE_INTERVAL);
    test.change(true, "carol", anew(3));
    test.passes(NOTICE_INTERVAL);
    test.release_with(1, &list);
    assert_eq!(lines(&queue), ["* carol left", "* carol joined"]);
}

#[test]
fn a_user_who_leaves_and_comes_back_beside_two_lists_that_are_not_in_step_does_not_leave_again() {
    let test = TestHub::new();
    let queue = test.admit(1, "observer");
    test.release(1, &["alice", "observer"]);
    let without_alice = || Delivery::Present(test.list(&["observer"]));
    // It comes before the notice that she left.
    test.deliver(without_alice());
    test.notice((false, "alice"));
    let before_she_came = without_alice();
    test.notice((true, "alice"));
    test.deliver(before_she_came);
    test.passes(NOTICE_INTERVAL);
    assert_eq!(lines(&queue), ["* alice left", "* alice joined"]);
}

#[derive(Debug, Clone)]
enum Step {
    /// A user joins or leaves in the shared state. The hub is told later.
    Changes(usize),
    /// The hub is told of the next change.
    Hears,
    /// A member begins to enter.
    Admits,
    /// The first entering member reads the shared state.
    Shows,
    /// The first member that has read the shared state is released.
    Releases,
    /// So many milliseconds pass.
    Passes(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize).prop_map(Step::Changes),
        4 => Just(Step::Hears),
        1 => Just(Step::Admits),
        1 => Just(Step::Shows),
        1 => Just(Step::Releases),
        2 => (1..120_u64).prop_map(Step::Passes),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn all_members_know_in_the_end_which_users_are_present(
        steps in steps()
    ) {
        let test = TestHub::new();
        let mut truth = BTreeSet::new();
        let mut revision = *lock(&test.revision);
        let mut changes = VecDeque::new();
        let mut next = 1;
        let mut admitted = VecDeque::new();
        let mut shown = VecDeque::new();
        let mut views = Vec::new();
        let mut admits = || {
            next += 1;
            (next, test.admit(next, "observer"))
        };
        let release = |(id, queue, members, revision): (u64, Queue, BTreeSet<&'static str>, Revision)| {
            let users = members.iter().map(|name| user(name)).collect();
            test.release_with(id, &MemberList { users, revision });
            let members = members.into_iter().map(str::to_owned).collect();
            View { queue, members }
        };
        let hears = |changes: &mut VecDeque<(bool, &str, Revision)>| {
            if let Some((joined, name, revision)) = changes.pop_front() {
                test.change(joined, name, revision);
            }
        };
        for step in steps {
            match step {
                Step::Changes(which) => {
                    let name = ["x", "y", "z"][which];
                    let comes = truth.insert(name) || !truth.remove(name);
                    revision.number += 1;
                    changes.push_back((comes, name, revision));
                }
                Step::Hears => hears(&mut changes),
                Step::Admits => admitted.push_back(admits()),
                Step::Shows => {
                    let one = admitted.pop_front();
                    shown.extend(one.map(|(id, queue)| (id, queue, truth.clone(), revision)));
                }
                Step::Releases => views.extend(shown.pop_front().map(release)),
                Step::Passes(time) => test.passes(Duration::from_millis(time)),
            }
        }
        shown.extend(admitted.into_iter().map(|(id, queue)| (id, queue, truth.clone(), revision)));
        views.extend(shown.into_iter().map(release));
        while !changes.is_empty() {
            hears(&mut changes);
        }
        test.passes(NOTICE_INTERVAL);
        let truth: BTreeSet<_> = truth.into_iter().map(str::to_owned).collect();
        for mut view in views {
            view.hears();
            prop_assert_eq!(&view.members, &truth);
        }
    }
}
