//! The hub: the fan-out workers, with a room that grows and shrinks.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::backplane::redis::Rooms;
use crate::clock;
use crate::hub::outbox::{Collected, Outbox, Queue, outbox};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{
    ConnectionId, Entry, InstanceId, MemberList, Message, MessageId, Revision, RoomName,
};
use crate::permuter::{chance, up_to};
use crate::protocol::Encoding;
use crate::pubsub::Redis;
use crate::threads::lock;
use crate::websocket::code;

/// A hub, and the log of its only room.
struct House {
    hub: Hub,
    room: RoomName,
    log: Mutex<u64>,
}

impl House {
    fn new(workers: usize) -> Self {
        Self {
            hub: Hub::start(InstanceId::random(), workers).expect("threads"),
            room: RoomName::lobby(),
            log: Mutex::new(0),
        }
    }

    /// Stores and delivers the next message.
    fn say(&self, text: String, pace: Pace) {
        let number = {
            let mut log = lock(&self.log);
            *log += 1;
            *log
        };
        let message = Message {
            id: MessageId { millis: 1, number },
            from: "alice".parse().expect("a name"),
            text,
            at: 1,
        };
        let entry = Entry {
            message,
            prev: None,
            via: None,
        };
        self.hub
            .deliver(&self.room, Delivery::Messages(vec![entry]), pace);
    }

    /// Enters as a session does: first the room, and then the log. Returns the last message that the log had.
    fn enters(&self, connection: u64) -> (u64, Queue) {
        let (outbox, queue) = outbox(Encoding::Text, 64 << 20, None);
        begin(&self.hub, &self.room, connection, &outbox);
        let number = *lock(&self.log);
        release(&self.hub, &self.room, connection, number);
        (number, queue)
    }
}

fn begin(hub: &Hub, room: &RoomName, connection: u64, outbox: &Arc<Outbox>) {
    let (name, connection) = ("bob".parse().expect("a name"), ConnectionId(connection));
    hub.add_member(room, connection, Some(&name), outbox);
}

/// The log had messages up to this one.
fn release(hub: &Hub, room: &RoomName, connection: u64, number: u64) {
    let list = MemberList {
        users: [].into(),
        revision: Revision::ZERO,
    };
    let last = Some(MessageId { millis: 1, number });
    hub.release(room, ConnectionId(connection), last, &list, None);
}

/// Enters a room whose log is empty.
pub(super) fn enter(hub: &Hub, room: &RoomName, connection: u64) -> Queue {
    let (outbox, queue) = outbox(Encoding::Text, 64 << 20, None);
    begin(hub, room, connection, &outbox);
    release(hub, room, connection, 0);
    queue
}

/// What a member was told.
pub(super) fn told(queue: &Queue) -> String {
    queue.outbox().close(code::NORMAL, "");
    let mut bytes = Vec::new();
    while queue.collect_by(Instant::now(), &mut bytes) != Some(Collected::Last) {}
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The texts among that, each a number.
pub(super) fn numbers(told: &str) -> Vec<u64> {
    let lines = told.split("alice: ").skip(1);
    let numbers = lines.map(|line| {
        line.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    });
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
}

pub(super) fn heard(queue: &Queue) -> Vec<u64> {
    numbers(&told(queue))
}

/// Each member hears all that was said after it read the log, once and in order.
pub(super) fn members_of_a_room_that_grows_miss_nothing() {
    const SAID: u64 = 4;
    let house = House::new(2);
    let first = house.enters(0);
    let mut members = Vec::new();
    thread::scope(|scope| {
        let entering = [1, 2].map(|connection| {
            let house = &house;
            scope.spawn(move || house.enters(connection))
        });
        // One leaves meanwhile.
        scope.spawn(|| {
            house.enters(9);
            house.hub.remove_member(&house.room, ConnectionId(9));
        });
        for number in 1..=SAID {
            let pace = if chance(2) { Pace::Calm } else { Pace::Busy };
            house.say(number.to_string(), pace);
        }
        members = entering
            .into_iter()
            .map(|member| member.join().expect("it does not panic"))
            .collect();
    });
    house.hub.close();
    for (last, queue) in [first].iter().chain(&members) {
        let expected: Vec<_> = (last + 1..=SAID).collect();
        assert_eq!(heard(queue), expected);
    }
}

/// A closed room is never entered, and a room with a member is never taken out.
pub(super) fn who_enters_as_the_last_one_leaves_is_in_the_room() {
    let house = House::new(1);
    house.enters(0);
    let mut queues = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| house.hub.remove_member(&house.room, ConnectionId(0)));
        let entering = [1, 2].map(|connection| {
            let house = &house;
            scope.spawn(move || house.enters(connection).1)
        });
        queues.extend(entering.map(|one| one.join().expect("it does not panic")));
    });
    assert!(house.hub.hosts(&house.room));
    house.say("1".to_owned(), Pace::Busy);
    house.hub.close();
    for queue in &queues {
        assert_eq!(heard(queue), [1]);
    }
    for connection in [1, 2] {
        house
            .hub
            .remove_member(&house.room, ConnectionId(connection));
    }
    assert!(!house.hub.hosts(&house.room), "nobody is left");
}

/// Longer than any limit.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// A hub, and the subscriber of a Redis.
pub(super) struct Subscribed {
    pub(super) redis: Arc<Redis>,
    hub: Arc<Hub>,
    rooms: Rooms,
    room: RoomName,
}

impl Subscribed {
    fn new() -> Self {
        Self::to(Redis::default(), Rooms::start)
    }

    pub(super) fn to_cluster() -> Self {
        Self::to(Redis::cluster(), Rooms::of_cluster)
    }

    fn to(redis: Redis, start: fn(&Arc<Redis>, &Arc<Hub>) -> Rooms) -> Self {
        let redis = Arc::new(redis);
        let hub = Arc::new(Hub::start(InstanceId::random(), 0).expect("no threads"));
        let (rooms, room) = (start(&redis, &hub), RoomName::lobby());
        Self {
            redis,
            hub,
            rooms,
            room,
        }
    }

    /// Comes as a session does: enters the hub, has the room heard, and reads the log. Returns the last message that the
    /// log had; `None` if Redis was not there in time.
    pub(super) fn comes(&self, connection: u64) -> Option<(u64, Queue)> {
        let (outbox, queue) = outbox(Encoding::Text, 1 << 20, None);
        begin(&self.hub, &self.room, connection, &outbox);
        if self.rooms.hear(&self.room).is_err() {
            self.goes(connection);
            return None;
        }
        let number = self.redis.said();
        release(&self.hub, &self.room, connection, number);
        Some((number, queue))
    }

    pub(super) fn goes(&self, connection: u64) {
        self.hub.remove_member(&self.room, ConnectionId(connection));
        self.rooms.may_forget(&self.room);
    }

    pub(super) fn comes_and_goes(&self, connection: u64) {
        if self.comes(connection).is_some() {
            self.goes(connection);
        }
    }

    /// Those who stayed have heard all since they read the log, or were told that something is missing, if that may be so for
    /// one of them. Once they leave, the room is forgotten.
    pub(super) fn ends(self, stay: impl IntoIterator<Item = (u64, (u64, Queue))>) {
        let stay: Vec<_> = stay.into_iter().collect();
        if !stay.is_empty() {
            self.redis.hears();
        }
        self.redis.settles();
        self.redis.say();
        self.redis.settles();
        let (mut is_missing, mut is_told) = (false, false);
        for (connection, (last, queue)) in stay {
            let expected: Vec<_> = (last + 1..=self.redis.said()).collect();
            let told = told(&queue);
            let heard = numbers(&told);
            match told.contains("missing") {
                false => assert_eq!(heard, expected),
                true => assert!(heard.is_sorted_by(|one, next| one < next), "{told}"),
            }
            is_missing |= heard != expected;
            is_told |= told.contains("missing");
            self.goes(connection);
        }
        // Where the room moved, it is not known which messages of the older listener came too late.
        assert!(
            is_missing || !is_told || self.redis.has_moved(),
            "nothing is missing"
        );
        self.redis.settles();
        // A room that is heard for ever makes the test too long.
        while self.redis.is_heard() {
            clock::pass(LONG);
            self.redis.settles();
        }
        self.rooms.end();
    }
}

/// The room was left, and is forgotten now. Another enters: once it was told that the room is heard, it hears all of it.
pub(super) fn who_enters_while_a_room_is_forgotten_hears_it() {
    let subscribed = Subscribed::new();
    subscribed.comes_and_goes(1);
    subscribed.redis.settles();
    clock::pass(LONG);
    let mut stays = None;
    thread::scope(|scope| {
        let staying = scope.spawn(|| {
            // So that the listener may be anywhere.
            for _ in 0..up_to(20) {
                thread::yield_now();
            }
            subscribed.comes(2)
        });
        stays = staying.join().expect("it does not panic");
    });
    subscribed.ends(stays.map(|stays| (2, stays)));
}

/// The same with one more that comes and goes, and time that passes at any moment.
pub(super) fn a_room_that_many_enter_and_leave_is_heard_and_forgotten() {
    let subscribed = Subscribed::new();
    let mut stays = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            subscribed.comes_and_goes(1);
            subscribed.comes_and_goes(3);
        });
        scope.spawn(|| {
            for _ in 0..2 {
                subscribed.redis.say();
                clock::pass(LONG);
            }
        });
        let staying = scope.spawn(|| subscribed.comes(2));
        stays = staying.join().expect("it does not panic");
    });
    subscribed.ends(stays.map(|stays| (2, stays)));
}

/// What waits for a worker is bounded, and the thread that waits for space is woken.
pub(super) fn a_worker_with_too_much_to_do_makes_only_the_deliverer_wait() {
    let house = House::new(1);
    let (_, queue) = house.enters(0);
    // Two are as much as may wait.
    for number in 1..=3 {
        house.say(format!("{number} {}", "x".repeat(1 << 19)), Pace::Busy);
    }
    house.hub.close();
    assert_eq!(heard(&queue), [1, 2, 3]);
}
