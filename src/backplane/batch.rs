//! The batch: messages of several rooms on their way to the hub, for when they come faster than one
//! fan-out after the other would take. What waits for a room is then one write for each member; so
//! the larger the room and the faster the messages, the less one of them costs.

use std::collections::HashMap;

use crate::hub::{Delivery, Hub};
use crate::message::{Entry, RoomName};

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

/// The messages that wait for one room.
#[derive(Default)]
struct RoomBatch {
    entries: Vec<Entry>,
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
            hub.deliver(&room, Delivery::Messages(waiting.entries));
        }
        (self.messages, self.bytes, self.largest) = (0, 0, 0);
    }
}
