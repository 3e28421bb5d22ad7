//! What members hear, whatever comes from the backplane and in whatever order they enter.

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

/// A hub with a clock of its own.
struct House {
    hub: Hub,
    room: RoomName,
    now: Mutex<Instant>,
}

impl House {
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

    /// Time passes, and the thread that delivers does what is due.
    fn passes(&self, time: Duration) {
        *lock(&self.now) += time;
        self.hub.flush_due(*lock(&self.now));
    }

    fn admit(&self, connection: u64, name: &str) -> Queue {
        let (outbox, queue) = outbox(Encoding::Text, 10_000, None);
        let connection = ConnectionId(connection);
        self.hub.admit(&self.room, connection, &user(name), &outbox);
        queue
    }

    fn release(&self, connection: u64, members: &[&str]) {
        let members: Vec<_> = members.iter().map(|name| user(name)).collect();
        self.hub
            .release(&self.room, ConnectionId(connection), None, &members, None);
    }

    /// Bob says numbers, which are their ids, too.
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

    /// After a quiet moment.
    fn notice(&self, notice: Notice) {
        self.passes(GATHERED_FOR);
        self.notices([notice]);
    }

    /// Without a pause.
    fn notices(&self, notices: impl IntoIterator<Item = Notice>) {
        let room = self.hub.room(&self.room).expect("it has a member");
        for notice in notices {
            let now = *lock(&self.now);
            let room = &mut lock(&room);
            self.hub.announce(room, &self.room, notice, now);
        }
    }
}

/// The lines that wait in a queue.
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
fn who_was_shown_on_entering_is_not_announced_again() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice"]);
    let bob = house.admit(2, "bob");
    // Read from the shared state, before the notices of bob and carol arrive.
    house.release(2, &["alice", "bob", "carol"]);
    house.notice(Notice::Joined(user("bob")));
    house.notice(Notice::Joined(user("carol")));
    assert_eq!(lines(&alice), ["* bob joined", "* carol joined"]);
    assert_eq!(lines(&bob), Vec::<String>::new());
    house.notice(Notice::Left(user("carol")));
    assert_eq!(lines(&bob), ["* carol left"]);
}

#[test]
fn who_entered_while_a_user_seemed_gone_is_told_of_their_return_and_nobody_else() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice", "carol"]);
    let bob = house.admit(2, "bob");
    // Carol had expired just then, and nobody had announced it.
    house.release(2, &["alice", "bob"]);
    house.notice(Notice::Joined(user("bob")));
    let dave = house.admit(3, "dave");
    house.notice(Notice::Joined(user("carol")));
    house.release(3, &["alice", "bob", "dave"]);
    assert_eq!(lines(&alice), ["* bob joined"]);
    assert_eq!(lines(&bob), ["* carol joined"]);
    assert_eq!(lines(&dave), ["* carol joined"]);
    house.notice(Notice::Left(user("carol")));
    for queue in [&alice, &bob, &dave] {
        assert_eq!(lines(queue), ["* carol left"]);
    }
}

#[test]
fn of_what_was_held_back_only_what_was_not_shown_follows() {
    let house = House::new();
    let _alice = house.admit(1, "alice");
    house.release(1, &["alice"]);
    let bob = house.admit(2, "bob");
    house.notice(Notice::Joined(user("carol")));
    house.notice(Notice::Joined(user("dave")));
    house.notice(Notice::Left(user("dave")));
    house.notice(Notice::Joined(user("eve")));
    // Read after carol came and dave went, and before eve came.
    house.release(2, &["alice", "bob", "carol"]);
    assert_eq!(lines(&bob), ["* eve joined"]);
}

#[test]
fn a_crowd_that_one_is_shown_before_the_others_are_told_is_a_crowd_to_all() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice"]);
    let crowd: Vec<_> = (0..ANNOUNCED_MEMBERS).map(|n| format!("u{n:03}")).collect();
    let mut shown = vec!["alice"];
    shown.extend(crowd.iter().map(String::as_str));
    let first = house.admit(2, "u000");
    house.release(2, &shown);
    let second = house.admit(3, "u001");
    house.release(3, &shown);
    for name in &crowd {
        house.notice(Notice::Joined(user(name)));
    }
    // One fewer is no crowd any more.
    house.notice(Notice::Left(user("u255")));
    house.notice(Notice::Joined(user("zoe")));
    house.notice(Notice::Left(user("zoe")));
    for queue in [&alice, &first, &second] {
        assert_eq!(lines(queue), ["* u255 left", "* zoe left"]);
    }
}

#[test]
fn a_difference_is_announced_when_it_is_seen_twice() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice", "bob"]);
    let present = |names: &[&str]| {
        let users = names.iter().map(|name| user(name)).collect();
        house.deliver(Delivery::Present(users));
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
fn a_member_hears_every_message_once_and_only_behind_what_it_has_read() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    let say = |number| house.say(&[number], None);
    say(1);
    say(2);
    say(3);
    let last = Some(MessageId {
        millis: 1,
        number: 2,
    });
    house
        .hub
        .release(&house.room, ConnectionId(1), last, &[], None);
    say(3);
    say(4);
    assert_eq!(lines(&alice), ["bob: 3", "bob: 4"]);
}

#[test]
fn of_many_messages_at_once_each_member_takes_what_it_has_not_and_wants() {
    let house = House::new();
    let [alice, bob, carol] =
        [(1, "alice"), (2, "bob"), (3, "carol")].map(|(id, name)| house.admit(id, name));
    house.release(1, &["alice"]);
    house.release(2, &["alice", "bob"]);
    house.say(&[1], None);
    house.say(&[1, 2], None);
    let by_bob = Via {
        instance: house.hub.instance(),
        connection: ConnectionId(2),
    };
    house.say(&[3, 4], Some(by_bob));
    house.say(&[5, 6], None);
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
    house.hub.release(&house.room, third, last, &[], None);
    assert_eq!(lines(&carol), said(&[6]));
    house.say(&[6, 7], None);
    assert_eq!(lines(&carol), said(&[7]));
}

/// Tests that run beside it give up a few others.
#[test]
fn who_reads_the_past_slower_than_the_room_speaks_is_given_up_once() {
    let house = House::new();
    let _alice = house.admit(1, "alice");
    let before = metrics::SLOW.value();
    // A byte each, and the outbox has a budget of 10,000.
    for _ in 0..11_000 {
        house.say(&[1], None);
    }
    let given_up = metrics::SLOW.value() - before;
    assert!((1..100).contains(&given_up), "{given_up}");
}

/// As when its fan-out takes long.
#[test]
fn while_one_room_is_busy_others_are_entered_and_left() {
    let house = House::new();
    let _alice = house.admit(1, "alice");
    let (entered, enters) = mpsc::channel();
    let other: RoomName = "other".parse().expect("a name");
    let lobby = house.hub.room(&house.room).expect("it has a member");
    thread::scope(|scope| {
        let (house, other) = (&house, &other);
        let busy = lock(&lobby);
        scope.spawn(|| house.admit(2, "bob"));
        scope.spawn(|| house.hub.leave(&house.room, ConnectionId(1)));
        scope.spawn(move || {
            // Long enough for the two above to be waiting.
            for id in 3..1000 {
                let (outbox, _queue) = outbox(Encoding::Text, 10_000, None);
                let (hub, carol) = (&house.hub, ConnectionId(id));
                hub.admit(other, carol, &user("carol"), &outbox);
                hub.leave(other, carol);
                thread::yield_now();
            }
            entered.send(()).expect("it is waited for");
        });
        let meanwhile = enters.recv_timeout(Duration::from_secs(20));
        drop(busy);
        assert_eq!(meanwhile, Ok(()));
    });
    assert!(house.hub.hosts(&house.room), "bob is there");
}

#[test]
fn a_room_that_is_entered_and_left_by_many_loses_no_member() {
    const ROUNDS: u64 = 5_000;
    let house = House::new();
    thread::scope(|scope| {
        for id in 1..=4 {
            let house = &house;
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    let queue = house.admit(id, "alice");
                    house.release(id, &[]);
                    let room = house.hub.room(&house.room).expect("it has a member");
                    // As a delivery does, but to this member alone.
                    assert!(lock(&room).has(ConnectionId(id)), "round {number}");
                    house.hub.leave(&house.room, ConnectionId(id));
                    drop(queue);
                }
            });
        }
    });
    assert_eq!(house.hub.count(), 0);
}

fn joined(name: &str) -> Notice {
    Notice::Joined(user(name))
}

fn left(name: &str) -> Notice {
    Notice::Left(user(name))
}

#[test]
fn who_comes_and_goes_within_a_moment_is_told_to_nobody() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice", "carol"]);
    house.notice(joined("bob"));
    assert_eq!(lines(&alice), ["* bob joined"], "the first is told at once");
    for _ in 0..100 {
        house.notices([left("bob"), left("carol"), joined("carol"), joined("bob")]);
        house.notices([joined("dave"), left("dave")]);
    }
    house.passes(GATHERED_FOR);
    assert_eq!(lines(&alice), Vec::<String>::new());
    // Nobody was told of anything, so the moment was quiet.
    house.notices([left("bob"), joined("bob"), left("bob")]);
    assert_eq!(lines(&alice), ["* bob left"]);
    house.passes(GATHERED_FOR);
    assert_eq!(lines(&alice), Vec::<String>::new());
    assert_eq!(house.hub.flush_due(Instant::now()), None, "nothing waits");
}

#[test]
fn who_comes_within_a_moment_is_announced_with_one_push_for_each_member() {
    let house = House::new();
    let names = ["alice", "bob"];
    let [alice, bob] = [(1, "alice"), (2, "bob")].map(|(id, name)| house.admit(id, name));
    house.release(1, &names);
    house.release(2, &names);
    // Frank entered before he was announced, and was shown some of the others.
    house.notice(joined("first"));
    let frank = house.admit(3, "frank");
    house.release(3, &["alice", "bob", "dave", "eve", "first", "frank"]);
    lines(&alice);
    lines(&bob);
    let crowd = ["zoe", "eve", "dave", "frank", "carol"];
    house.notices(crowd.map(joined));
    let due = house.hub.flush_due(*lock(&house.now)).expect("they wait");
    assert_eq!(due, *lock(&house.now) + GATHERED_FOR);
    assert_eq!(alice.length(), 0);
    house.passes(GATHERED_FOR);
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
    let house = House::new();
    let (outbox, alice) = outbox(Encoding::Json, 10_000, None);
    let (lobby, first) = (&house.room, ConnectionId(1));
    house.hub.admit(lobby, first, &user("alice"), &outbox);
    house.release(1, &["alice"]);
    let heard = || -> Vec<String> {
        let events = lines(&alice).into_iter();
        let kind = |event: String| event.split('"').nth(3).map(str::to_owned);
        events.filter_map(kind).collect()
    };
    house.notices([joined("zoe"), joined("bob")]);
    assert_eq!(heard(), ["joined"]);
    house.say(&[1], None);
    assert_eq!(heard(), ["joined", "message"]);
    house.notices([joined("carol"), Notice::Typing(user("carol"))]);
    assert_eq!(heard(), ["joined", "typing"]);
    house.notices([left("zoe")]);
    let (after, before) = (None, None);
    house.deliver(Delivery::Gap { after, before });
    assert_eq!(heard(), ["left", "gap"]);
    house.notices([left("bob")]);
    house.deliver(Delivery::Present(vec![user("alice"), user("carol")]));
    assert_eq!(heard(), ["left"]);
    house.passes(GATHERED_FOR);
    assert_eq!(heard(), Vec::<String>::new());
}

#[test]
fn who_was_shown_one_who_went_before_anybody_was_told_hears_of_it() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice"]);
    house.notices([joined("zoe"), joined("bob")]);
    let carol = house.admit(2, "carol");
    house.release(2, &["alice", "bob", "carol", "zoe"]);
    house.notices([left("bob")]);
    house.passes(GATHERED_FOR);
    assert_eq!(lines(&alice), ["* zoe joined"]);
    assert_eq!(lines(&carol), ["* bob left"]);
}

#[test]
fn what_is_told_together_is_shed_together_by_who_falls_behind() {
    let house = House::new();
    let alice = house.admit(1, "alice");
    house.release(1, &["alice"]);
    house.say(&(1..=600).collect::<Vec<_>>(), None);
    let before = metrics::SHED.value();
    house.notices((0..100).map(|n| joined(&format!("u{n}"))));
    house.passes(GATHERED_FOR);
    house.say(&[2000], None);
    let shed = metrics::SHED.value() - before;
    assert!((100..150).contains(&shed), "{shed}");
    assert_eq!(lines(&alice).len(), 601, "what was said");
}

/// What a member is shown on entering and told afterwards.
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
    /// In the shared state a user comes, or goes. The hub is told later.
    Changes(usize),
    /// The hub is told of the next change.
    Hears,
    /// A member begins to enter.
    Admits,
    /// The first of those who enter is shown the shared state.
    Shows,
    /// The first who was shown it has entered.
    Releases,
    /// A moment passes.
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
    fn whatever_is_gathered_and_whoever_enters_all_know_in_the_end_who_is_here(
        steps in steps()
    ) {
        let house = House::new();
        let mut truth = BTreeSet::new();
        let mut changes = VecDeque::new();
        let mut next = 1;
        let mut admitted = VecDeque::new();
        let mut shown = VecDeque::new();
        let mut views = Vec::new();
        let mut admits = || {
            next += 1;
            (next, house.admit(next, "observer"))
        };
        let release = |(id, queue, members): (u64, Queue, BTreeSet<&'static str>)| {
            house.release(id, &members.iter().copied().collect::<Vec<_>>());
            let members = members.into_iter().map(str::to_owned).collect();
            View { queue, members }
        };
        let hears = |changes: &mut VecDeque<Notice>| {
                let notice = changes.pop_front();
                if house.hub.hosts(&house.room) {
                    house.notices(notice);
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
                Step::Passes(time) => house.passes(Duration::from_millis(time)),
            }
        }
        shown.extend(admitted.into_iter().map(|(id, queue)| (id, queue, truth.clone())));
        views.extend(shown.into_iter().map(release));
        while !changes.is_empty() {
            hears(&mut changes);
        }
        house.passes(GATHERED_FOR);
        let truth: BTreeSet<_> = truth.into_iter().map(str::to_owned).collect();
        for mut view in views {
            view.hears();
            prop_assert_eq!(&view.members, &truth);
        }
    }
}
