//! Members get the right events, in every order of deliveries, entering and leaving.

use super::*;
use crate::hub::outbox::{Queue, outbox};
use crate::protocol::{ANNOUNCED_MEMBERS, Encoding};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

fn user(name: &str) -> UserName {
    name.parse().expect("a name")
}

/// A hub with one room and a clock that the test sets.
struct TestHub {
    hub: Hub,
    room: RoomName,
    now: Mutex<Instant>,
}

impl TestHub {
    fn new() -> Self {
        Self {
            hub: Hub::new(InstanceId::random()),
            room: RoomName::lobby(),
            now: Mutex::new(Instant::now()),
        }
    }

    fn deliver(&self, delivery: Delivery) {
        self.hub.deliver(&self.room, delivery);
    }

    /// Moves the clock on and flushes, as the delivering thread does.
    fn passes(&self, time: Duration) {
        *lock(&self.now) += time;
        self.hub.flush_due(*lock(&self.now));
    }

    fn admit(&self, connection: u64, name: &str) -> Queue {
        let (outbox, queue) = outbox(Encoding::Text, 10_000, None);
        let connection = ConnectionId(connection);
        self.hub
            .add_member(&self.room, connection, &user(name), &outbox);
        queue
    }

    fn release(&self, connection: u64, members: &[&str]) {
        let members: Vec<_> = members.iter().map(|name| user(name)).collect();
        self.hub
            .release(&self.room, ConnectionId(connection), None, &members, None);
    }

    /// Bob says numbers, each of which is also the id of its message.
    fn say(&self, numbers: &[u64], via: Option<Via>) {
        let entry = |&number: &u64| Entry {
            message: crate::message::Message {
                id: MessageId { millis: 1, number },
                from: user("bob"),
                text: number.to_string(),
                at: 1,
            },
            prev: None,
            via,
        };
        let entries = numbers.iter().map(entry).collect();
        self.deliver(Delivery::Messages(entries));
    }

    /// Announces a notice after an interval in which nothing was told.
    fn notice(&self, notice: Notice) {
        self.passes(NOTICE_INTERVAL);
        self.notices([notice]);
    }

    /// Announces notices without a pause.
    fn notices(&self, notices: impl IntoIterator<Item = Notice>) {
        let room = self.hub.room(&self.room).expect("it has a member");
        for notice in notices {
            let now = *lock(&self.now);
            let room = &mut lock(&room);
            self.hub.announce(room, &self.room, notice, now);
        }
    }
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
    test.release(2, &["alice", "bob", "carol"]);
    test.notice(Notice::Joined(user("bob")));
    test.notice(Notice::Joined(user("carol")));
    assert_eq!(lines(&alice), ["* bob joined", "* carol joined"]);
    assert_eq!(lines(&bob), Vec::<String>::new());
    test.notice(Notice::Left(user("carol")));
    assert_eq!(lines(&bob), ["* carol left"]);
}

#[test]
fn a_member_that_entered_while_a_user_seemed_gone_alone_is_told_of_the_return() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "carol"]);
    let bob = test.admit(2, "bob");
    // Carol had expired just then, and nobody had announced it.
    test.release(2, &["alice", "bob"]);
    test.notice(Notice::Joined(user("bob")));
    let dave = test.admit(3, "dave");
    test.notice(Notice::Joined(user("carol")));
    test.release(3, &["alice", "bob", "dave"]);
    assert_eq!(lines(&alice), ["* bob joined"]);
    assert_eq!(lines(&bob), ["* carol joined"]);
    assert_eq!(lines(&dave), ["* carol joined"]);
    test.notice(Notice::Left(user("carol")));
    for queue in [&alice, &bob, &dave] {
        assert_eq!(lines(queue), ["* carol left"]);
    }
}

#[test]
fn a_held_notice_follows_only_if_the_initial_list_does_not_show_it() {
    let test = TestHub::new();
    let _alice = test.admit(1, "alice");
    test.release(1, &["alice"]);
    let bob = test.admit(2, "bob");
    test.notice(Notice::Joined(user("carol")));
    test.notice(Notice::Joined(user("dave")));
    test.notice(Notice::Left(user("dave")));
    test.notice(Notice::Joined(user("eve")));
    // Read after carol came and dave went, and before eve came.
    test.release(2, &["alice", "bob", "carol"]);
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
    test.release(2, &shown);
    let second = test.admit(3, "u001");
    test.release(3, &shown);
    for name in &crowd {
        test.notice(Notice::Joined(user(name)));
    }
    // One fewer is no crowd any more.
    test.notice(Notice::Left(user("u255")));
    test.notice(Notice::Joined(user("zoe")));
    test.notice(Notice::Left(user("zoe")));
    for queue in [&alice, &first, &second] {
        assert_eq!(lines(queue), ["* u255 left", "* zoe left"]);
    }
}

#[test]
fn a_difference_is_announced_when_it_is_seen_twice() {
    let test = TestHub::new();
    let alice = test.admit(1, "alice");
    test.release(1, &["alice", "bob"]);
    let present = |names: &[&str]| {
        let users = names.iter().map(|name| user(name)).collect();
        test.deliver(Delivery::Present(users));
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
    test.hub
        .release(&test.room, ConnectionId(1), last, &[], None);
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
    test.hub.release(&test.room, third, last, &[], None);
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
        let busy = lock(&lobby);
        scope.spawn(|| test.admit(2, "bob"));
        scope.spawn(|| test.hub.remove_member(&test.room, ConnectionId(1)));
        scope.spawn(move || {
            // Long enough for the two above to be waiting.
            for id in 3..1000 {
                let (outbox, _queue) = outbox(Encoding::Text, 10_000, None);
                let (hub, carol) = (&test.hub, ConnectionId(id));
                hub.add_member(other, carol, &user("carol"), &outbox);
                hub.remove_member(other, carol);
                thread::yield_now();
            }
            entered.send(()).expect("it is waited for");
        });
        let meanwhile = enters.recv_timeout(Duration::from_secs(20));
        drop(busy);
        assert_eq!(meanwhile, Ok(()));
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
                    assert!(
                        lock(&room).member(ConnectionId(id)).is_some(),
                        "round {number}"
                    );
                    test.hub.remove_member(&test.room, ConnectionId(id));
                    drop(queue);
                }
            });
        }
    });
    assert_eq!(test.hub.count(), 0);
}

fn joined(name: &str) -> Notice {
    Notice::Joined(user(name))
}

fn left(name: &str) -> Notice {
    Notice::Left(user(name))
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
    assert_eq!(test.hub.flush_due(Instant::now()), None, "nothing waits");
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
    test.release(3, &["alice", "bob", "dave", "eve", "first", "frank"]);
    lines(&alice);
    lines(&bob);
    let crowd = ["zoe", "eve", "dave", "frank", "carol"];
    test.notices(crowd.map(joined));
    let due = test.hub.flush_due(*lock(&test.now)).expect("they wait");
    assert_eq!(due, *lock(&test.now) + NOTICE_INTERVAL);
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
    test.hub.add_member(lobby, first, &user("alice"), &outbox);
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
    test.notices([joined("carol"), Notice::Typing(user("carol"))]);
    assert_eq!(heard(), ["joined", "typing"]);
    test.notices([left("zoe")]);
    let (after, before) = (None, None);
    test.deliver(Delivery::Gap { after, before });
    assert_eq!(heard(), ["left", "gap"]);
    test.notices([left("bob")]);
    test.deliver(Delivery::Present(vec![user("alice"), user("carol")]));
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
    test.release(1, &["alice"]);
    test.say(&(1..=600).collect::<Vec<_>>(), None);
    let before = metrics::SHED.value();
    test.notices((0..100).map(|n| joined(&format!("u{n}"))));
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
        let mut changes = VecDeque::new();
        let mut next = 1;
        let mut admitted = VecDeque::new();
        let mut shown = VecDeque::new();
        let mut views = Vec::new();
        let mut admits = || {
            next += 1;
            (next, test.admit(next, "observer"))
        };
        let release = |(id, queue, members): (u64, Queue, BTreeSet<&'static str>)| {
            test.release(id, &members.iter().copied().collect::<Vec<_>>());
            let members = members.into_iter().map(str::to_owned).collect();
            View { queue, members }
        };
        let hears = |changes: &mut VecDeque<Notice>| {
                let notice = changes.pop_front();
                if test.hub.hosts(&test.room) {
                    test.notices(notice);
                }
            };
        for step in steps {
            match step {
                Step::Changes(which) => {
                    let name = ["x", "y", "z"][which];
                    let comes = truth.insert(name) || !truth.remove(name);
                    changes.push_back(if comes { joined(name) } else { left(name) });
                }
                Step::Hears => hears(&mut changes),
                Step::Admits => admitted.push_back(admits()),
                Step::Shows => {
                    let one = admitted.pop_front();
                    shown.extend(one.map(|(id, queue)| (id, queue, truth.clone())));
                }
                Step::Releases => views.extend(shown.pop_front().map(release)),
                Step::Passes(time) => test.passes(Duration::from_millis(time)),
            }
        }
        shown.extend(admitted.into_iter().map(|(id, queue)| (id, queue, truth.clone())));
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
