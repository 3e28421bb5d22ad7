//! The hub: which rooms this instance hosts, who of its users is in them, and what they have heard.
//!
//! [`Hub::deliver`] is the fan-out. It never waits for anyone, it encodes a message once per
//! rendering, and it hands each member every message of the room once and in the room's order,
//! whatever the backplane repeats: a member takes only ids above the last it took.

mod broadcast;
mod room;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use self::broadcast::Volley;
use self::room::{Member, Room};
use crate::frame::Frame;
use crate::lock::lock;
use crate::message::{
    ConnectionId, Entry, InstanceId, MessageId, Notice, Origin, RoomName, UserName,
};
use crate::metrics;
use crate::outbox::Outbox;
use crate::protocol::Event;

/// What the backplane tells the hub about one room.
#[derive(Debug)]
pub enum Delivery {
    /// The room's next messages, at least one, in order.
    Messages(Vec<Entry>),
    /// Somebody came, went or types.
    Notice(Notice),
    /// Messages between these two are lost. Ids may start anew behind it.
    Gap {
        /// The last message before the hole.
        after: Option<MessageId>,
        /// The first one behind it.
        before: Option<MessageId>,
    },
    /// All users who are present, by the shared state, in alphabetical order. What differs from what the
    /// hub was told twice in succession was missed, and is announced.
    Present(Vec<UserName>),
}

/// The rooms of this instance.
pub struct Hub {
    instance: InstanceId,
    /// A room that is not closed is in the map. The map's lock is held to find a room, and never while
    /// a room's lock is waited for: that one is held while all members' outboxes are pushed to.
    rooms: Mutex<HashMap<RoomName, Arc<Mutex<Room>>>>,
}

impl Hub {
    /// A hub without rooms.
    pub fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            rooms: Mutex::default(),
        }
    }

    /// The instance that this is the hub of.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Admits a connection to a room. What the room says is held back until
    /// [`Hub::release`].
    pub fn admit(
        &self,
        room: &RoomName,
        connection: ConnectionId,
        user: &UserName,
        outbox: &Arc<Outbox>,
    ) {
        let origin = Origin {
            instance: self.instance,
            connection,
        };
        let member = Member::reading(origin, user.clone(), Arc::clone(outbox));
        loop {
            let found = Arc::clone(lock(&self.rooms).entry(room.clone()).or_default());
            let mut found = lock(&found);
            // Or else its last member left in between, and by now it is no longer in the map.
            if !found.is_closed() {
                return found.admit(member);
            }
        }
    }

    /// Ends the holding back: `first`, which has the past and the members, goes into the outbox; then
    /// what was held follows, but for what the past has already, up to `last`, and the comings and
    /// goings that `members`, in alphabetical order, shows already. The frame is ready-made, since
    /// nobody else in the room is told anything meanwhile.
    pub fn release(
        &self,
        room: &RoomName,
        connection: ConnectionId,
        last: Option<MessageId>,
        members: &[UserName],
        first: Option<Frame>,
    ) {
        let Some(room) = self.room(room) else { return };
        lock(&room).release(connection, last, members, first);
    }

    /// Takes a connection out of a room.
    pub fn leave(&self, name: &RoomName, connection: ConnectionId) {
        let Some(room) = self.room(name) else { return };
        let mut room = lock(&room);
        if room.is_closed() {
            return;
        }
        room.leave(connection);
        if room.is_closed() {
            // Before the room's lock is released, or another of that name might be removed instead.
            lock(&self.rooms).remove(name);
        }
    }

    /// Whether any connection of this instance is in the room.
    pub fn hosts(&self, room: &RoomName) -> bool {
        lock(&self.rooms).contains_key(room)
    }

    /// How many rooms have a member here.
    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// All rooms that have a member here.
    pub fn rooms(&self) -> Vec<RoomName> {
        lock(&self.rooms).keys().cloned().collect()
    }

    /// The fan-out: gives what the backplane heard to every member of the room. For one room it
    /// is called by one thread at a time, in the room's order.
    pub fn deliver(&self, name: &RoomName, delivery: Delivery) {
        let Some(room) = self.room(name) else { return };
        let mut room = lock(&room);
        match &delivery {
            Delivery::Messages(entries) => metrics::HEARD.add(entries.len()),
            Delivery::Gap { .. } => metrics::GAPS.count(),
            Delivery::Notice(_) | Delivery::Present(_) => {}
        }
        match delivery {
            Delivery::Messages(entries) => {
                let events = entries.into_iter().map(|entry| Event::Message {
                    room: name.clone(),
                    message: entry.message,
                    via: entry.via,
                });
                room.fan_out_all(&Volley::new(events.collect()));
            }
            Delivery::Notice(notice) => room.announce(name, notice),
            Delivery::Gap { after, before } => room.fan_out(Event::Gap {
                room: name.clone(),
                after,
                before,
            }),
            Delivery::Present(users) => room.reconcile(name, &users),
        }
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Mutex<Room>>> {
        lock(&self.rooms).get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Queue, outbox};
    use crate::protocol::{ANNOUNCED_MEMBERS, Rendering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    struct House {
        hub: Hub,
        room: RoomName,
    }

    impl House {
        fn new() -> Self {
            Self {
                hub: Hub::new(InstanceId::random()),
                room: RoomName::lobby(),
            }
        }

        fn admit(&self, connection: u64, name: &str) -> Queue {
            let (outbox, queue) = outbox(Rendering::Text, 10_000, None);
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
        fn say(&self, numbers: &[u64], via: Option<Origin>) {
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
            self.hub.deliver(&self.room, Delivery::Messages(entries));
        }

        fn notice(&self, notice: Notice) {
            self.hub.deliver(&self.room, Delivery::Notice(notice));
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
            house.hub.deliver(&house.room, Delivery::Present(users));
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
        let by_bob = Origin {
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
                    let (outbox, _queue) = outbox(Rendering::Text, 10_000, None);
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
}
