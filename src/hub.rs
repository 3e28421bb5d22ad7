//! The hub: which rooms this instance hosts, who of its users is in them, and what they have heard.
//!
//! [`Hub::deliver`] is the fan-out. It never waits for anyone, it encodes a message once per
//! rendering, and it hands each member every message of the room once and in the room's order,
//! whatever the backplane repeats: a member takes only ids above the last it took.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use crate::frame::{self, Frame};
use crate::lock::lock;
use crate::message::{
    ConnectionId, Entry, InstanceId, MessageId, Notice, Origin, RoomName, UserName,
};
use crate::outbox::Outbox;
use crate::protocol::{ANNOUNCED_MEMBERS, Event, Rendering};

/// What may be held back for a member who is still reading the past. Beyond it, the member is a
/// slow consumer.
const MAX_HELD: usize = 16 * 1024;

/// What the backplane tells the hub about one room.
#[derive(Debug)]
pub enum Delivery {
    /// The room's next message.
    Message(Entry),
    /// Somebody came, went or types.
    Notice(Notice),
    /// Messages between these two are lost. Ids may start anew behind it.
    Gap {
        /// The last message before the hole.
        after: Option<MessageId>,
        /// The first one behind it.
        before: Option<MessageId>,
    },
    /// All users who are present, by the shared state. What differs from what the hub was told
    /// twice in succession was missed, and is announced.
    Present(Vec<UserName>),
}

/// An event on its way to many, encoded at first use.
struct Broadcast {
    event: Event,
    text: OnceLock<Option<Frame>>,
    json: OnceLock<Option<Frame>>,
}

impl Broadcast {
    fn new(event: Event) -> Arc<Self> {
        Arc::new(Self {
            event,
            text: OnceLock::new(),
            json: OnceLock::new(),
        })
    }

    fn frame(&self, rendering: Rendering) -> Option<&Frame> {
        let cell = match rendering {
            Rendering::Text => &self.text,
            Rendering::Json => &self.json,
        };
        cell.get_or_init(|| frame::text(&rendering.render(&self.event)))
            .as_ref()
    }
}

/// One connection in one room.
struct Member {
    origin: Origin,
    user: UserName,
    outbox: Arc<Outbox>,
    /// The last message it was given, or that its history held.
    last: Option<MessageId>,
    /// Live events, while the connection still reads the past.
    held: Option<Vec<Arc<Broadcast>>>,
}

impl Member {
    fn take(&mut self, broadcast: &Arc<Broadcast>) {
        if let Some(held) = &mut self.held {
            if held.len() < MAX_HELD {
                held.push(Arc::clone(broadcast));
            } else {
                self.outbox
                    .evict("too slow: the past was read slower than the room speaks");
            }
            return;
        }
        let wanted = match &broadcast.event {
            Event::Message { message, via, .. } => {
                if self.last.is_some_and(|last| message.id <= last) {
                    return;
                }
                self.last = Some(message.id);
                self.outbox.rendering() == Rendering::Json || *via != Some(self.origin)
            }
            Event::Gap { .. } => {
                self.last = None;
                true
            }
            Event::Joined { user, .. } | Event::Left { user, .. } | Event::Typing { user, .. } => {
                *user != self.user
            }
            _ => true,
        };
        if wanted && let Some(frame) = broadcast.frame(self.outbox.rendering()) {
            self.outbox
                .push(Arc::clone(frame), broadcast.event.weight());
        }
    }
}

#[derive(Default)]
struct Room {
    members: Vec<Member>,
    /// Who is here, on all instances, as far as this instance was told; `None` until the first
    /// member has read it.
    present: Option<BTreeSet<UserName>>,
    /// Whose presence the shared state, when last looked at, showed otherwise than `present`.
    doubted: BTreeSet<UserName>,
}

impl Room {
    fn fan_out(&mut self, event: Event) {
        let broadcast = Broadcast::new(event);
        for member in &mut self.members {
            member.take(&broadcast);
        }
    }

    fn announce(&mut self, name: &RoomName, notice: Notice) {
        // An instance may hear twice of the same coming or going, after a cut; its users do not.
        let changed = match (&notice, &mut self.present) {
            (Notice::Joined(user), Some(present)) => present.insert(user.clone()),
            (Notice::Left(user), Some(present)) => present.remove(user),
            (Notice::Typing(_), _) | (_, None) => true,
        };
        let crowded = self
            .present
            .as_ref()
            .is_some_and(|present| present.len() > ANNOUNCED_MEMBERS);
        if !changed || crowded {
            return;
        }
        let room = name.clone();
        self.fan_out(match notice {
            Notice::Joined(user) => Event::Joined { room, user },
            Notice::Left(user) => Event::Left { room, user },
            Notice::Typing(user) => Event::Typing { room, user },
        });
    }

    /// Compares what was told with the shared state. A notice may be on its way just now, so a
    /// difference counts only when it is found a second time.
    fn reconcile(&mut self, name: &RoomName, now: Vec<UserName>) {
        let Some(present) = &self.present else { return };
        let now: BTreeSet<_> = now.into_iter().collect();
        let differing: BTreeSet<_> = present.symmetric_difference(&now).cloned().collect();
        let missed: Vec<_> = differing.intersection(&self.doubted).cloned().collect();
        self.doubted = differing;
        for user in missed {
            self.doubted.remove(&user);
            let notice = if now.contains(&user) {
                Notice::Joined(user)
            } else {
                Notice::Left(user)
            };
            self.announce(name, notice);
        }
    }
}

/// The rooms of this instance.
pub struct Hub {
    instance: InstanceId,
    /// The map's lock is held to find a room, a room's lock while its members' outboxes are
    /// pushed to, which never blocks.
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
        let member = Member {
            origin: Origin {
                instance: self.instance,
                connection,
            },
            user: user.clone(),
            outbox: Arc::clone(outbox),
            last: None,
            held: Some(Vec::new()),
        };
        // Under the map's lock, so that the room is not removed in between.
        let mut rooms = lock(&self.rooms);
        let room = rooms.entry(room.clone()).or_default();
        lock(room).members.push(member);
    }

    /// Ends the holding back: `first` is called, with nothing delivered meanwhile, to put the past
    /// and the members into the outbox; then what was held follows, but for what the past has
    /// already, up to `last`, and the comings and goings that `members` shows already.
    pub fn release(
        &self,
        room: &RoomName,
        connection: ConnectionId,
        last: Option<MessageId>,
        members: &[UserName],
        first: impl FnOnce(),
    ) {
        let Some(room) = self.room(room) else { return };
        let mut room = lock(&room);
        first();
        let Some(member) = room.member(connection) else {
            return;
        };
        member.last = last;
        let Some(held) = member.held.take() else {
            return;
        };
        let held = without_shown(held, members);
        for broadcast in &held {
            member.take(broadcast);
        }
        room.present.get_or_insert_with(|| {
            let mut present: BTreeSet<_> = members.iter().cloned().collect();
            for broadcast in &held {
                match &broadcast.event {
                    Event::Joined { user, .. } => present.insert(user.clone()),
                    Event::Left { user, .. } => present.remove(user),
                    _ => false,
                };
            }
            present
        });
    }

    /// Takes a connection out of a room.
    pub fn leave(&self, name: &RoomName, connection: ConnectionId) {
        let mut rooms = lock(&self.rooms);
        let Some(room) = rooms.get(name) else { return };
        let mut room = lock(room);
        if let Some(index) = room.position(connection) {
            room.members.swap_remove(index);
        }
        if room.members.is_empty() {
            drop(room);
            rooms.remove(name);
        }
    }

    /// Whether any connection of this instance is in the room.
    pub fn hosts(&self, room: &RoomName) -> bool {
        lock(&self.rooms).contains_key(room)
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
        match delivery {
            Delivery::Message(entry) => room.fan_out(Event::Message {
                room: name.clone(),
                message: entry.message,
                via: entry.via,
            }),
            Delivery::Notice(notice) => room.announce(name, notice),
            Delivery::Gap { after, before } => room.fan_out(Event::Gap {
                room: name.clone(),
                after,
                before,
            }),
            Delivery::Present(users) => room.reconcile(name, users),
        }
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Mutex<Room>>> {
        lock(&self.rooms).get(name).cloned()
    }
}

/// Leaves out of `held` the comings and goings whose outcome `members` shows already; of a user
/// whose last one says otherwise, that one alone stays.
fn without_shown(held: Vec<Arc<Broadcast>>, members: &[UserName]) -> Vec<Arc<Broadcast>> {
    let mut decided = HashSet::new();
    let mut kept: Vec<_> = held
        .into_iter()
        .rev()
        .filter(|broadcast| match &broadcast.event {
            Event::Joined { user, .. } => decided.insert(user.clone()) && !members.contains(user),
            Event::Left { user, .. } => decided.insert(user.clone()) && members.contains(user),
            _ => true,
        })
        .collect();
    kept.reverse();
    kept
}

impl Room {
    fn position(&self, connection: ConnectionId) -> Option<usize> {
        self.members
            .iter()
            .position(|member| member.origin.connection == connection)
    }

    fn member(&mut self, connection: ConnectionId) -> Option<&mut Member> {
        let index = self.position(connection)?;
        self.members.get_mut(index)
    }
}
