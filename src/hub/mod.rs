//! The hub: the rooms that this instance hosts, and their members.
//!
//! [`Hub::deliver`] is the fan-out. It never waits for a member, and it encodes a message once per
//! encoding. It gives each member every message of the room once and in the room's order, even if the
//! backplane repeats some: a member takes only ids above the last that it took. Joins and leaves in
//! quick succession are told together ([`Hub::flush_due`]).
//!
//! Read this file first; then [`room`] and [`member`], the heart of it; then [`broadcast`] and
//! [`notices`], which make a fan-out cheap; and the [`outbox`], the way from there to one socket.

pub mod outbox;
mod broadcast;
mod notices;
mod member;
mod room;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use self::member::Member;
use self::notices::NOTICE_INTERVAL;
use self::room::Room;
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, Entry, InstanceId, MessageId, Notice, RoomName, UserName, Via};
use crate::metrics;
use crate::protocol::Event;
use crate::threads::lock;
use crate::websocket::frame::Frame;

/// News of one room, from the backplane to the hub.
#[derive(Debug)]
pub enum Delivery {
    /// The room's next messages, at least one, in order.
    Messages(Vec<Entry>),
    /// A user joined, left or types.
    Notice(Notice),
    /// The messages between these two are lost. Ids may begin anew behind the gap.
    Gap {
        /// The last message before the gap.
        after: Option<MessageId>,
        /// The first message behind the gap.
        before: Option<MessageId>,
    },
    /// All users that are present by the shared state, in alphabetical order. A user that differs from
    /// what the hub was told, twice in succession, is announced: the notice was missed.
    Present(Vec<UserName>),
}

/// The rooms of this instance.
pub struct Hub {
    instance: InstanceId,
    /// A room that is not closed is in the map. The map's lock is held only to find a room. No thread
    /// waits for a room's lock while it holds the map's, since a fan-out holds the room's for long.
    rooms: Mutex<HashMap<RoomName, Arc<Mutex<Room>>>>,
    /// The times at which pending joins and leaves are due, with the room. The lock is held only to
    /// look something up.
    due: Mutex<BTreeSet<(Instant, RoomName)>>,
}

impl Hub {
    /// A hub without rooms.
    pub fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            rooms: Mutex::default(),
            due: Mutex::default(),
        }
    }

    /// The instance that this hub belongs to.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Adds a connection to a room, and makes the room if there is none. The member holds live events
    /// back until [`Hub::release`].
    pub fn add_member(
        &self,
        room: &RoomName,
        connection: ConnectionId,
        user: &UserName,
        outbox: &Arc<Outbox>,
    ) {
        let via = Via {
            instance: self.instance,
            connection,
        };
        let member = Member::reading(via, user.clone(), Arc::clone(outbox));
        loop {
            let found = Arc::clone(lock(&self.rooms).entry(room.clone()).or_default());
            let mut found = lock(&found);
            // If it is closed, its last member left between the two locks. It is no longer in the map.
            if !found.is_closed() {
                return found.add(member);
            }
        }
    }

    /// Ends the holding back, under the room's lock. First `first` is pushed, which tells of the past
    /// and of the members. Then the held events follow, except messages up to `last`, and except joins
    /// and leaves that `members` shows already; that list is in alphabetical order. `first` is a ready
    /// frame, since the room's other members wait meanwhile.
    pub fn release(
        &self,
        name: &RoomName,
        connection: ConnectionId,
        last: Option<MessageId>,
        members: &[UserName],
        first: Option<Frame>,
    ) {
        let Some(room) = self.room(name) else { return };
        lock(&room).release(name, connection, last, members, first);
    }

    /// Removes a connection from a room, and the room with its last member.
    pub fn remove_member(&self, name: &RoomName, connection: ConnectionId) {
        let Some(room) = self.room(name) else { return };
        let mut room = lock(&room);
        if room.is_closed() {
            return;
        }
        room.remove(connection);
        if room.is_closed() {
            // Under the room's lock: afterwards a new room of that name may be in the map.
            lock(&self.rooms).remove(name);
        }
    }

    /// Whether any connection of this instance is in the room.
    pub fn hosts(&self, room: &RoomName) -> bool {
        lock(&self.rooms).contains_key(room)
    }

    /// The users that are present in a room, as far as its members were told. `None` if no connection of
    /// this instance is in the room.
    pub fn present(&self, name: &RoomName) -> Option<Vec<UserName>> {
        let room = self.room(name)?;
        let room = lock(&room);
        Some(room.present().cloned().collect())
    }

    /// The number of rooms with a member here.
    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// All rooms with a member here.
    pub fn rooms(&self) -> Vec<RoomName> {
        lock(&self.rooms).keys().cloned().collect()
    }

    /// The fan-out: gives a delivery to every member of the room. Only one thread at a time may call
    /// it for one room, in the room's order. Joins and leaves in quick succession wait for
    /// [`Hub::flush_due`] or for the room's next message.
    pub fn deliver(&self, name: &RoomName, delivery: Delivery) {
        let Some(room) = self.room(name) else { return };
        let mut room = lock(&room);
        match delivery {
            Delivery::Messages(entries) => {
                metrics::HEARD.add(entries.len());
                let events = entries.into_iter().map(|entry| Event::Message {
                    room: name.clone(),
                    message: entry.message,
                    via: entry.via,
                });
                room.fan_out(name, events.collect());
            }
            Delivery::Notice(notice) => self.announce(&mut room, name, notice, Instant::now()),
            Delivery::Gap { after, before } => {
                metrics::GAPS.count();
                let gap = Event::Gap {
                    room: name.clone(),
                    after,
                    before,
                };
                room.fan_out(name, vec![gap]);
            }
            Delivery::Present(users) => room.reconcile(name, &users),
        }
    }

    fn announce(&self, room: &mut Room, name: &RoomName, notice: Notice, now: Instant) {
        room.announce(name, notice, now);
        if let Some(due) = room.due() {
            lock(&self.due).insert((due, name.clone()));
        }
    }

    /// Tells the pending joins and leaves that are due. Returns the time at which the next are, if any
    /// are pending. The delivering thread calls this on every round; there is rarely anything to do.
    pub fn flush_due(&self, now: Instant) -> Option<Instant> {
        loop {
            let name = {
                let mut all_due = lock(&self.due);
                let (due, _) = all_due.first()?;
                if *due > now {
                    return Some(*due);
                }
                all_due.pop_first()?.1
            };
            if let Some(room) = self.room(&name) {
                // The room looks again: a message may have flushed these notices, and later ones may
                // be pending.
                lock(&room).tell_due(&name, now);
            }
        }
    }

    /// Tells all pending joins and leaves.
    pub fn flush(&self) {
        self.flush_due(Instant::now() + NOTICE_INTERVAL);
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Mutex<Room>>> {
        lock(&self.rooms).get(name).cloned()
    }
}

#[cfg(test)]
mod tests;
