//! Members are told who comes and goes, whatever list they were shown and when.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::protocol::ANNOUNCED_MEMBERS;

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
