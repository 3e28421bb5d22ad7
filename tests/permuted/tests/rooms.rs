//! The hub: the fan-out workers, with a room that grows and shrinks.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::backplane::redis::Rooms;
use crate::clock;
use crate::hub::outbox::{Collected, Queue, outbox};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{
    ConnectionId, Entry, InstanceId, MemberList, Message, MessageId, Revision, RoomName,
};
use crate::permuter::chance;
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
        let (name, connection) = ("bob".parse().expect("a name"), ConnectionId(connection));
        self.hub
            .add_member(&self.room, connection, Some(&name), &outbox);
        let number = *lock(&self.log);
        let list = MemberList {
            users: [].into(),
            revision: Revision::ZERO,
        };
        let last = Some(MessageId { millis: 1, number });
        self.hub.release(&self.room, connection, last, &list, None);
        (number, queue)
    }
}

/// The texts that a member was sent, each a number.
fn heard(queue: &Queue) -> Vec<u64> {
    queue.outbox().close(code::NORMAL, "");
    let mut bytes = Vec::new();
    while queue.collect_by(Instant::now(), &mut bytes) != Some(Collected::Last) {}
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split("alice: ").skip(1);
    let numbers = lines.map(|line| {
        line.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    });
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
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

/// Comes and goes as a session does: enters the hub, has the room heard, and reads the log. Returns the last message that
/// the log had; `None` if Redis is not there in time.
fn comes(redis: &Redis, rooms: &Rooms, hub: &Hub, connection: u64) -> Option<(u64, Queue)> {
    let (outbox, queue) = outbox(Encoding::Text, 1 << 20, None);
    let (room, connection) = (RoomName::lobby(), ConnectionId(connection));
    let name = "bob".parse().expect("a name");
    hub.add_member(&room, connection, Some(&name), &outbox);
    if rooms.hear(&room).is_err() {
        goes(rooms, hub, connection);
        return None;
    }
    let number = redis.said();
    let list = MemberList {
        users: [].into(),
        revision: Revision::ZERO,
    };
    let last = Some(MessageId { millis: 1, number });
    hub.release(&room, connection, last, &list, None);
    Some((number, queue))
}

fn goes(rooms: &Rooms, hub: &Hub, connection: ConnectionId) {
    let room = RoomName::lobby();
    hub.remove_member(&room, connection);
    rooms.may_forget(&room);
}

/// While one forgets the room, another enters: once it was told that the room is heard, it hears all of it. A room of
/// nobody is not heard for long.
pub(super) fn a_room_that_is_forgotten_is_heard_by_who_enters() {
    let redis = Arc::new(Redis::default());
    let hub = Arc::new(Hub::start(InstanceId::random(), 0).expect("no threads"));
    let rooms = Rooms::start(&redis, &hub);
    let mut stays = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            for connection in [1, 2] {
                if comes(&redis, &rooms, &hub, connection).is_some() {
                    goes(&rooms, &hub, ConnectionId(connection));
                }
            }
        });
        scope.spawn(|| {
            for _ in 0..2 {
                redis.say();
                thread::yield_now();
            }
        });
        let staying = scope.spawn(|| comes(&redis, &rooms, &hub, 3));
        stays = staying.join().expect("it does not panic");
    });
    redis.settles();
    redis.say();
    redis.settles();
    if let Some((last, queue)) = stays {
        let expected: Vec<_> = (last + 1..=redis.said()).collect();
        assert_eq!(heard(&queue), expected);
        goes(&rooms, &hub, ConnectionId(3));
    }
    redis.settles();
    clock::pass(Duration::from_secs(10));
    redis.settles();
    assert!(!redis.is_heard(), "nobody is there");
    rooms.end();
}

/// What waits for a worker is bounded, and the thread that waits for space is woken.
pub(super) fn a_worker_with_too_much_to_do_makes_only_the_deliverer_wait() {
    let house = House::new(1);
    let (_, queue) = house.enters(0);
    for number in 1..=4 {
        house.say(format!("{number} {}", "x".repeat(1 << 20)), Pace::Busy);
    }
    house.hub.close();
    assert_eq!(heard(&queue), [1, 2, 3, 4]);
}
