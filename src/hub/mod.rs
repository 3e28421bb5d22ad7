//! The hub: which rooms this instance hosts, who of its users is in them, and what they have heard.
//!
//! [`Hub::deliver`] is the fan-out. It never waits for anyone, it encodes a message once per
//! encoding, and it hands each member every message of the room once and in the room's order,
//! whatever the backplane repeats: a member takes only ids above the last it took. Comings and goings
//! in quick succession are told together ([`Hub::flush_due`]).

pub mod outbox;
mod broadcast;
mod gathering;
mod room;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use self::gathering::GATHERED_FOR;
use self::room::{Member, Room};
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, Entry, InstanceId, MessageId, Notice, RoomName, UserName, Via};
use crate::metrics;
use crate::protocol::Event;
use crate::threads::lock;
use crate::websocket::frame::Frame;

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
    /// When comings and goings that wait are due, and in which room. This lock, too, is held for a look
    /// only.
    gathering: Mutex<BTreeSet<(Instant, RoomName)>>,
}

impl Hub {
    /// A hub without rooms.
    pub fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            rooms: Mutex::default(),
            gathering: Mutex::default(),
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
        let origin = Via {
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
        name: &RoomName,
        connection: ConnectionId,
        last: Option<MessageId>,
        members: &[UserName],
        first: Option<Frame>,
    ) {
        let Some(room) = self.room(name) else { return };
        lock(&room).release(name, connection, last, members, first);
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
    /// is called by one thread at a time, in the room's order. Comings and goings in quick succession
    /// wait a little, for [`Hub::flush_due`] or for the room's next message.
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
            lock(&self.gathering).insert((due, name.clone()));
        }
    }

    /// Tells the comings and goings that have waited long enough, and when to call again, if others
    /// wait. Called by the thread that delivers, as often as it likes: there is rarely anything to do.
    pub fn flush_due(&self, now: Instant) -> Option<Instant> {
        loop {
            let name = {
                let mut gathering = lock(&self.gathering);
                let (due, _) = gathering.first()?;
                if *due > now {
                    return Some(*due);
                }
                gathering.pop_first()?.1
            };
            if let Some(room) = self.room(&name) {
                // Or else they were told before a message, and others may wait by now.
                lock(&room).tell_due(&name, now);
            }
        }
    }

    /// Tells all comings and goings that wait.
    pub fn flush(&self) {
        self.flush_due(Instant::now() + GATHERED_FOR);
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Mutex<Room>>> {
        lock(&self.rooms).get(name).cloned()
    }
}

#[cfg(test)]
mod tests;
