//! The hub: the rooms that this instance hosts, and their members.
//!
//! [`Hub::deliver`] is the fan-out. It never waits for a member, and it encodes a message once per
//! encoding. It gives each member every message of the room once and in the room's order, even if the
//! backplane repeats some: a member takes only ids above the last that it took. Joins and leaves in
//! quick succession are told together ([`Hub::flush_due`]).
//!
//! Read this file first; then [`room`] and [`member`], the heart of it; [`worker`], the threads that write
//! to the members; [`broadcast`], which makes a fan-out cheap; [`roll`], the joins and leaves; the
//! [`outbox`], the way from there to one socket, and [`framing`], what is written to it; [`order`], what
//! operators order; and the [`stopwatch`].

pub mod framing;
pub mod outbox;
mod order;
mod stopwatch;
mod broadcast;
mod roll;
mod member;
mod room;
mod worker;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

pub use self::order::Order;
pub use self::stopwatch::Stopwatch;

#[cfg(test)]
pub(crate) use self::member::MemberState;

use self::broadcast::Broadcast;
use self::member::Member;
use self::roll::{NOTICE_INTERVAL, News};
use self::room::Room;
use self::worker::Worker;
use crate::hub::outbox::Outbox;
use crate::message::{
    ConnectionId, Entry, InstanceId, MemberList, Message, MessageId, Notice, RoomName, UserName,
    Via,
};
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
        /// The id that the room goes on from. A member that has come that far by its own past misses nothing.
        until: Option<MessageId>,
        /// The first message behind the gap.
        before: Option<MessageId>,
    },
    /// All users that are present by the shared state. A user that differs from what the hub was told,
    /// twice in succession, is announced: the notice was missed.
    Present(MemberList),
}

/// Whether more deliveries wait behind this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing waits: a small room is written to at once, and no worker is woken for it.
    Calm,
    /// More is there: the workers share the work.
    Busy,
}

/// A room, and the connections in it with their users.
pub type RoomMembers = (RoomName, Vec<(ConnectionId, Option<UserName>)>);

/// Takes the text out of a message that was deleted.
pub type Conceal = Box<dyn Fn(&RoomName, &mut Message) + Send + Sync>;

/// The rooms of this instance.
pub struct Hub {
    instance: InstanceId,
    /// A room that is not closed is in the map. The map's lock is held only to find a room.
    rooms: Mutex<HashMap<RoomName, Arc<Room>>>,
    /// The times at which pending joins and leaves are due, with the room. The lock is held only to
    /// look something up.
    due: Mutex<BTreeSet<(Instant, RoomName)>>,
    /// Without workers, the thread that delivers does all.
    workers: Vec<Worker>,
    conceal: OnceLock<Conceal>,
    /// Orders that are not carried out yet. Only operators give any, and few.
    orders: (Sender<Order>, Receiver<Order>),
    /// Times the messages that this instance's connections send.
    pub stopwatch: Stopwatch,
}

impl Hub {
    /// A hub without rooms and with so many workers.
    pub fn start(instance: InstanceId, workers: usize) -> io::Result<Self> {
        let workers: io::Result<_> = (0..workers).map(Worker::start).collect();
        Ok(Self {
            instance,
            rooms: Mutex::default(),
            due: Mutex::default(),
            workers: workers?,
            conceal: OnceLock::new(),
            orders: crossbeam_channel::unbounded(),
            stopwatch: Stopwatch::default(),
        })
    }

    /// The instance that this hub belongs to.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Adds a connection to a room, and makes the room if there is none. The member holds live events
    /// back until [`Hub::release`]. A connection without a `user` only follows the room.
    pub fn add_member(
        &self,
        room: &RoomName,
        connection: ConnectionId,
        user: Option<&UserName>,
        outbox: &Arc<Outbox>,
    ) {
        let via = Via {
            instance: self.instance,
            connection,
        };
        let mut member = Member::reading(via, user.cloned(), Arc::clone(outbox));
        let workers = self.workers.len().max(1);
        let mut hasher = DefaultHasher::new();
        room.hash(&mut hasher);
        let home = (hasher.finish() % workers as u64) as usize;
        loop {
            let found = Arc::clone(
                lock(&self.rooms)
                    .entry(room.clone())
                    .or_insert_with_key(|name| Arc::new(Room::new(name.clone(), workers))),
            );
            match found.add(member, home) {
                Ok(()) => return,
                // Its last member left in between. It is about to leave the map, too.
                Err(back) => {
                    member = back;
                    thread::yield_now();
                }
            }
        }
    }

    /// The groups of users in a room whose names look alike, as this instance was told. With `list`, also
    /// as that shows, which is to be released next.
    pub fn alike(&self, name: &RoomName, list: Option<&MemberList>) -> Vec<Vec<UserName>> {
        let Some(room) = self.room(name) else {
            return Vec::new();
        };
        let mut roll = lock(&room.roll);
        match list {
            Some(list) => roll.show_alike(list),
            None => roll.alike(),
        }
    }

    /// Ends the holding back. First `first` is pushed, which tells of the past and of the members. Then
    /// the held events follow, except messages up to `last`, and except joins and leaves that `list`
    /// shows already.
    pub fn release(
        &self,
        name: &RoomName,
        connection: ConnectionId,
        last: Option<MessageId>,
        list: &MemberList,
        first: Option<Frame>,
    ) {
        if let Some(room) = self.room(name) {
            room.release(connection, last, list, first);
        }
    }

    /// Removes a connection from a room, and the room with its last member.
    pub fn remove_member(&self, name: &RoomName, connection: ConnectionId) {
        let Some(room) = self.room(name) else { return };
        if room.remove(connection) {
            lock(&self.rooms).remove(name);
        }
    }

    /// Whether any connection of this instance is in the room.
    pub fn hosts(&self, room: &RoomName) -> bool {
        lock(&self.rooms).contains_key(room)
    }

    /// The number of rooms with a member here.
    pub fn count(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// All rooms with a member here.
    pub fn rooms(&self) -> Vec<RoomName> {
        lock(&self.rooms).keys().cloned().collect()
    }

    /// All rooms with a member here, and the connections in each.
    pub fn members(&self) -> Vec<RoomMembers> {
        let rooms: Vec<_> = lock(&self.rooms).values().cloned().collect();
        let members = rooms.iter().map(|room| (room.name.clone(), room.members()));
        members.collect()
    }

    /// Sets, once, what looks at each message before it is delivered. It takes no lock for long.
    pub fn conceal_with(&self, conceal: Conceal) {
        let _ = self.conceal.set(conceal);
    }

    /// Tells a room's members what was deleted, behind all messages that the workers have.
    pub fn tell_deleted(&self, event: Event) {
        let room = event.room().and_then(|name| self.room(name));
        if let Some(room) = room {
            self.fan_out(&room, [Broadcast::new(event)], Pace::Busy);
        }
    }

    /// Takes an order for this instance. Does not wait.
    pub fn order(&self, order: Order) {
        // It has the other end itself.
        let _ = self.orders.0.send(order);
    }

    /// The orders, for the thread that carries them out.
    pub fn orders(&self) -> &Receiver<Order> {
        &self.orders.1
    }

    /// The fan-out: gives a delivery to every member of the room. Only one thread at a time may call
    /// it for one room, in the room's order. Joins and leaves in quick succession wait for [`Hub::flush_due`] or for
    /// the room's next message.
    pub fn deliver(&self, name: &RoomName, delivery: Delivery, pace: Pace) {
        self.deliver_at(name, delivery, pace, Instant::now());
    }

    pub(crate) fn deliver_at(&self, name: &RoomName, delivery: Delivery, pace: Pace, now: Instant) {
        let Some(room) = self.room(name) else { return };
        match delivery {
            Delivery::Messages(mut entries) => {
                metrics::HEARD.add(entries.len());
                let mut lap = self.stopwatch.lap(name, &entries);
                if let Some(conceal) = self.conceal.get() {
                    entries
                        .iter_mut()
                        .for_each(|entry| conceal(name, &mut entry.message));
                }
                self.tell_pending(&room, pace, now);
                let roll = lock(&room.roll);
                let events = entries.into_iter().map(|entry| {
                    let lap = lap.take_if(|lap| lap.of == entry.message.id);
                    let event = Event::Message {
                        room: name.clone(),
                        looks_like: roll.looks_like(&entry.message.from),
                        message: entry.message,
                        via: entry.via,
                    };
                    Broadcast::timed(event, lap)
                });
                let events: Vec<_> = events.collect();
                drop(roll);
                self.fan_out(&room, events, pace);
            }
            Delivery::Notice(Notice::Presence(change)) => {
                let (news, due) = {
                    let mut roll = lock(&room.roll);
                    (roll.hear(change, now), roll.due())
                };
                if let Some(due) = due {
                    lock(&self.due).insert((due, name.clone()));
                }
                self.tell(&room, news, pace, now);
            }
            Delivery::Notice(Notice::Typing(user)) => {
                if !lock(&room.roll).is_crowded() {
                    self.tell_pending(&room, pace, now);
                    let (name, room) = (name.clone(), &room);
                    let typing = Event::Typing { room: name, user };
                    self.fan_out(room, [Broadcast::new(typing)], pace);
                }
            }
            Delivery::Gap {
                after,
                until,
                before,
            } => {
                metrics::GAPS.count();
                self.tell_pending(&room, pace, now);
                let gap = Event::Gap {
                    room: name.clone(),
                    after,
                    before,
                };
                self.fan_out(&room, [Broadcast::gap(gap, until)], pace);
            }
            Delivery::Present(list) => {
                let news = lock(&room.roll).reconcile(&list);
                self.tell(&room, news, pace, now);
            }
        }
    }

    /// Tells the pending joins and leaves that are due in the rooms that are `mine`. Returns the time at which
    /// the next are, if any are pending. A delivering thread calls this on every round, for the rooms that it
    /// delivers to; there is rarely anything to do.
    pub fn flush_due(&self, now: Instant, mine: impl Fn(&RoomName) -> bool) -> Option<Instant> {
        loop {
            let name = {
                let mut all_due = lock(&self.due);
                let next = all_due.iter().find(|(_, room)| mine(room))?;
                if next.0 > now {
                    return Some(next.0);
                }
                let next = next.clone();
                all_due.remove(&next);
                next.1
            };
            // The room looks again: a message may have flushed these notices, and later ones may be
            // pending.
            let Some(room) = self.room(&name) else {
                continue;
            };
            let due = lock(&room.roll).due();
            if due.is_some_and(|due| due <= now) {
                self.tell_pending(&room, Pace::Calm, now);
            }
        }
    }

    /// Tells all pending joins and leaves in the rooms that are `mine`.
    pub fn flush(&self, mine: impl Fn(&RoomName) -> bool) {
        self.flush_due(Instant::now() + NOTICE_INTERVAL, mine);
    }

    /// Whether a fan-out that takes long is under way. Only a thread that delivers may ask.
    pub fn is_in_long_fan_out(&self) -> bool {
        self.workers.iter().any(Worker::is_in_long_fan_out)
    }

    /// Ends the workers, after the last delivery.
    pub fn close(&self) {
        self.workers.iter().for_each(Worker::close);
    }

    /// Tells a room's pending joins and leaves, due or not: nobody speaks before their join is told.
    fn tell_pending(&self, room: &Arc<Room>, pace: Pace, now: Instant) {
        let news = lock(&room.roll).take_pending();
        self.tell(room, news, pace, now);
    }

    fn tell(
        &self,
        room: &Arc<Room>,
        news: impl IntoIterator<Item = News>,
        pace: Pace,
        now: Instant,
    ) {
        let news = news.into_iter().map(|one| room.broadcast(one));
        if self.fan_out(room, news, pace) {
            lock(&room.roll).told(now);
        }
    }

    /// Hands events to the workers of a room's members, or gives them to the members here. False if no
    /// member needs any.
    fn fan_out(
        &self,
        room: &Arc<Room>,
        broadcasts: impl IntoIterator<Item = Arc<Broadcast>>,
        pace: Pace,
    ) -> bool {
        let broadcasts: Vec<_> = broadcasts.into_iter().collect();
        if broadcasts.is_empty() {
            return false;
        }
        if self.workers.is_empty() {
            return room.push(0, &broadcasts);
        }
        let workers = room.workers();
        // All that was handed over before is pushed, so the order stays.
        if let [only] = workers[..]
            && pace == Pace::Calm
            && self.workers[only].is_idle()
        {
            return room.push(only, &broadcasts);
        }
        for broadcast in &broadcasts {
            for worker in &workers {
                self.workers[*worker].push(room, broadcast);
            }
        }
        true
    }

    /// The state of a member, to begin another hub with.
    #[cfg(test)]
    pub(crate) fn member_state(
        &self,
        name: &RoomName,
        connection: ConnectionId,
    ) -> Option<MemberState> {
        let mut state = None;
        let found = |member: &mut Member| state = Some(member.state());
        self.room(name)?.with_member(connection, found);
        state
    }

    /// A copy without threads, for a model that takes several ways from one state. Its members have the same outboxes.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        let rooms: Vec<_> = lock(&self.rooms).values().cloned().collect();
        let rooms = rooms
            .iter()
            .map(|room| (room.name.clone(), Arc::new(room.copy())));
        let (rooms, due) = (rooms.collect(), lock(&self.due).clone());
        Self {
            rooms: Mutex::new(rooms),
            due: Mutex::new(due),
            ..Self::start(self.instance, 0).expect("no threads")
        }
    }

    /// Tells one state from another by joins and leaves. A pause that is over at `now` is as none.
    #[cfg(test)]
    pub(crate) fn hash_at(&self, now: Instant, name: &RoomName, hasher: &mut impl Hasher) {
        if let Some(room) = self.room(name) {
            room.hash_at(now, hasher);
        }
    }

    /// Whether joins and leaves of a room wait to be told.
    #[cfg(test)]
    pub(crate) fn has_pending(&self, name: &RoomName) -> bool {
        let room = self.room(name);
        room.is_some_and(|room| lock(&room.roll).due().is_some())
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Room>> {
        lock(&self.rooms).get(name).cloned()
    }
}

#[cfg(test)]
mod tests;
