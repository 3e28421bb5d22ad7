//! Members get the right messages, in every order of deliveries, entering and leaving; `presence` has what they are told of
//! each other.

mod presence;

use super::*;
use crate::hub::outbox::{Queue, outbox};
use crate::message::{PresenceChange, Revision};
use crate::protocol::Encoding;
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
