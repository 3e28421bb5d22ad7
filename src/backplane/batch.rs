//! The batch: messages of several rooms on their way to the hub, for when they come faster than one
//! fan-out after the other would take. What waits for a room is then one write for each member; so
//! the larger the room and the faster the messages, the less one of them costs.

use std::collections::HashMap;

use crate::hub::{Delivery, Hub};
use crate::message::{Entry, Notice, RoomName};

/// The most that waits: so many messages and so many bytes of text in all, and so many bytes for one
/// room, since a write takes 64 KiB.
const MESSAGES: usize = 1024;
const BYTES: usize = 1024 * 1024;
const BYTES_OF_A_ROOM: usize = 32 * 1024;

/// Messages that wait to be delivered, each room's in its order.
#[derive(Default)]
pub(super) struct Batch {
    rooms: HashMap<RoomName, RoomBatch>,
    messages: usize,
    bytes: usize,
    /// The most bytes of any room.
    largest: usize,
}

/// The messages that wait for one room, with the notices that came among them. All of them are two or three
/// pushes for each member, however often notices and messages take turns.
#[derive(Default)]
struct RoomBatch {
    /// Told before the messages, so that nobody speaks before their join is told.
    joined: Vec<Notice>,
    entries: Vec<Entry>,
    /// Told after the messages: leaves, and typing.
    after: Vec<Notice>,
    bytes: usize,
}

impl Batch {
    /// Puts a room's next message behind those that wait.
    pub(super) fn add(&mut self, room: &RoomName, entry: Entry) {
        let waiting = match self.rooms.get_mut(room) {
            Some(waiting) => waiting,
            None => self.rooms.entry(room.clone()).or_default(),
        };
        let bytes = entry.message.text.len();
        waiting.bytes += bytes;
        waiting.entries.push(entry);
        self.messages += 1;
        self.bytes += bytes;
        self.largest = self.largest.max(waiting.bytes);
    }

    /// Delivers a notice. It waits with the messages of its room, if there are any; a notice of another room
    /// holds no message up and flushes none.
    pub(super) fn add_notice(&mut self, hub: &Hub, room: &RoomName, notice: Notice) {
        match self.rooms.get_mut(room) {
            Some(waiting) => waiting.add_notice(notice),
            None => hub.deliver(room, Delivery::Notice(notice)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether no more should wait.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= MESSAGES || self.bytes >= BYTES || self.largest >= BYTES_OF_A_ROOM
    }

    /// Delivers all that waits.
    pub(super) fn deliver(&mut self, hub: &Hub) {
        for (room, waiting) in self.rooms.drain() {
            let notices = |notices: Vec<Notice>| {
                for notice in notices {
                    hub.deliver(&room, Delivery::Notice(notice));
                }
            };
            notices(waiting.joined);
            hub.deliver(&room, Delivery::Messages(waiting.entries));
            notices(waiting.after);
        }
        (self.messages, self.bytes, self.largest) = (0, 0, 0);
    }
}

impl RoomBatch {
    fn add_notice(&mut self, notice: Notice) {
        let Notice::Joined(user) = &notice else {
            return self.after.push(notice);
        };
        // A user that left among these messages and is back again did neither.
        let left = self
            .after
            .iter()
            .rposition(|other| matches!(other, Notice::Left(other) if other == user));
        match left {
            Some(index) => drop(self.after.remove(index)),
            None => self.joined.push(notice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{InstanceId, Message, MessageId, UserName};

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    fn message() -> Entry {
        Entry {
            message: Message {
                id: MessageId::ZERO,
                from: user("alice"),
                text: "hi".to_owned(),
                at: 0,
            },
            prev: None,
            via: None,
        }
    }

    #[test]
    fn a_notice_of_another_room_leaves_the_messages_that_wait_together() {
        let hub = Hub::new(InstanceId::random());
        let (lobby, other) = (RoomName::lobby(), "other".parse().expect("a name"));
        let mut batch = Batch::default();
        batch.add(&lobby, message());
        batch.add_notice(&hub, &other, Notice::Joined(user("bob")));
        batch.add(&lobby, message());
        batch.add_notice(&hub, &lobby, Notice::Left(user("carol")));
        batch.add_notice(&hub, &lobby, Notice::Joined(user("bob")));
        batch.add_notice(&hub, &lobby, Notice::Joined(user("carol")));
        let waiting = &batch.rooms[&lobby];
        assert_eq!(batch.rooms.len(), 1);
        assert_eq!(waiting.entries.len(), 2);
        assert_eq!(waiting.joined, [Notice::Joined(user("bob"))]);
        assert_eq!(waiting.after, [], "carol is still there");
    }
}
