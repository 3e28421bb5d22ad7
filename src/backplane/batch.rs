//! The batch: messages of several rooms on their way to the hub, for when they come faster than one
//! fan-out after the other would take. What waits for a room is then one write for each member; so
//! the larger the room and the faster the messages, the less one of them costs.

use std::collections::HashMap;

use crate::hub::{Delivery, Hub};
use crate::message::{Entry, RoomName};

/// The most that waits: so many messages, and so many bytes of text. A write takes 64 KiB.
const MESSAGES: usize = 256;
const BYTES: usize = 32 * 1024;

/// Messages that wait to be delivered, each room's in its order.
#[derive(Default)]
pub(super) struct Batch {
    rooms: HashMap<RoomName, Vec<Entry>>,
    messages: usize,
    bytes: usize,
}

impl Batch {
    /// Puts a room's next message behind those that wait.
    pub(super) fn add(&mut self, room: &RoomName, entry: Entry) {
        self.messages += 1;
        self.bytes += entry.message.text.len();
        match self.rooms.get_mut(room) {
            Some(entries) => entries.push(entry),
            None => drop(self.rooms.insert(room.clone(), vec![entry])),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether no more should wait.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= MESSAGES || self.bytes >= BYTES
    }

    /// Delivers all that waits.
    pub(super) fn deliver(&mut self, hub: &Hub) {
        for (room, entries) in self.rooms.drain() {
            hub.deliver(&room, Delivery::Messages(entries));
        }
        (self.messages, self.bytes) = (0, 0);
    }
}
