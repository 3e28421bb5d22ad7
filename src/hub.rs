//! The hub: which rooms this instance hosts, who of its users is in them, and what they have heard.
//!
//! [`Hub::deliver`] is the fan-out. It never waits for anyone, it encodes a message once per
//! rendering, and it hands each member every message of the room once and in the room's order,
//! whatever the backplane repeats: a member takes only ids above the last it took.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use crate::frame::{self, Frame};
use crate::lock::lock;
use crate::message::{
    ConnectionId, Entry, InstanceId, MessageId, Notice, Origin, RoomName, UserName,
};
use crate::metrics;
use crate::outbox::Outbox;
use crate::protocol::{ANNOUNCED_MEMBERS, Event, Rendering, Weight};

/// How many events may be held back for a member who is still reading the past; of their text, as
/// many bytes as an outbox holds. Beyond that, the member is a slow consumer.
const MAX_HELD: usize = 16 * 1024;

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

/// Messages that go to many at once. Most members take all of them, which is one frame for each
/// rendering then, and one push for each member.
struct Volley {
    broadcasts: Vec<Arc<Broadcast>>,
    text: OnceLock<Frame>,
    json: OnceLock<Frame>,
}

impl Volley {
    fn new(events: Vec<Event>) -> Self {
        Self {
            broadcasts: events.into_iter().map(Broadcast::new).collect(),
            text: OnceLock::new(),
            json: OnceLock::new(),
        }
    }

    /// All frames in one.
    fn frame(&self, rendering: Rendering) -> &Frame {
        let cell = match rendering {
            Rendering::Text => &self.text,
            Rendering::Json => &self.json,
        };
        cell.get_or_init(|| {
            let frames = self
                .broadcasts
                .iter()
                .filter_map(|one| one.frame(rendering));
            frames.flat_map(|frame| frame.iter().copied()).collect()
        })
    }

    /// The last id, if this is all that the member has to be given.
    fn all_for(&self, member: &Member) -> Option<MessageId> {
        if self.broadcasts.len() < 2 || member.held.is_some() {
            return None;
        }
        let mut last = member.last;
        for broadcast in &self.broadcasts {
            match &broadcast.event {
                Event::Message { message, .. } if last.is_none_or(|last| last < message.id) => {
                    last = Some(message.id);
                }
                _ => return None,
            }
            if !member.wants(&broadcast.event) {
                return None;
            }
        }
        last
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
    held: Option<Held>,
    /// Whose coming or going it was shown when it entered, before the notice of it arrived.
    ahead: BTreeSet<UserName>,
}

#[derive(Default)]
struct Held {
    events: Vec<Arc<Broadcast>>,
    bytes: usize,
}

impl Member {
    /// A terminal shows its own lines already.
    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Message { via, .. } => {
                self.outbox.rendering() == Rendering::Json || *via != Some(self.origin)
            }
            _ => true,
        }
    }

    fn take_all(&mut self, volley: &Volley) {
        let Some(last) = volley.all_for(self) else {
            return volley.broadcasts.iter().for_each(|one| self.take(one));
        };
        self.last = Some(last);
        let frame = volley.frame(self.outbox.rendering());
        self.outbox.push(Arc::clone(frame), Weight::Essential);
        metrics::DELIVERED.add(volley.broadcasts.len());
    }

    fn take(&mut self, broadcast: &Arc<Broadcast>) {
        if let Some(held) = &mut self.held {
            if let Event::Message { message, .. } = &broadcast.event {
                held.bytes += message.text.len();
            }
            if held.events.len() < MAX_HELD && held.bytes <= self.outbox.budget() {
                held.events.push(Arc::clone(broadcast));
            } else {
                self.outbox
                    .evict("too slow: the past was read slower than the room speaks");
            }
            return;
        }
        let wanted = match &broadcast.event {
            Event::Message { message, .. } => {
                if self.last.is_some_and(|last| message.id <= last) {
                    return;
                }
                self.last = Some(message.id);
                self.wants(&broadcast.event)
            }
            Event::Gap { before, .. } => {
                // Ids begin anew behind it, unless it says otherwise.
                if before.is_none_or(|before| self.last.is_some_and(|last| before <= last)) {
                    self.last = None;
                }
                true
            }
            Event::Joined { user, .. } | Event::Left { user, .. } => {
                !self.ahead.remove(user) && *user != self.user
            }
            Event::Typing { user, .. } => *user != self.user,
            _ => true,
        };
        if wanted && let Some(frame) = broadcast.frame(self.outbox.rendering()) {
            self.outbox
                .push(Arc::clone(frame), broadcast.event.weight());
            metrics::DELIVERED.count();
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

    fn fan_out_all(&mut self, volley: &Volley) {
        for member in &mut self.members {
            member.take_all(volley);
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
        if crowded {
            // Nobody is told, so nobody is ahead.
            for member in &mut self.members {
                member.ahead.clear();
            }
            return;
        }
        if !changed {
            if let Notice::Joined(user) = &notice {
                self.tell_who_was_not_shown(name, user);
            }
            return;
        }
        let room = name.clone();
        self.fan_out(match notice {
            Notice::Joined(user) => Event::Joined { room, user },
            Notice::Left(user) => Event::Left { room, user },
            Notice::Typing(user) => Event::Typing { room, user },
        });
    }

    /// A user whom the room knows is announced again, since the shared state had taken them for gone
    /// for a while. News only to who entered meanwhile, or is about to.
    fn tell_who_was_not_shown(&mut self, name: &RoomName, user: &UserName) {
        let broadcast = Broadcast::new(Event::Joined {
            room: name.clone(),
            user: user.clone(),
        });
        for member in &mut self.members {
            if member.held.is_some() || member.ahead.remove(user) {
                member.take(&broadcast);
            }
        }
    }

    /// Compares what was told with the shared state. A notice may be on its way just now, so a
    /// difference counts only when it is found a second time.
    fn reconcile(&mut self, name: &RoomName, now: &[UserName]) {
        let Some(present) = &self.present else { return };
        let differing = differing(present, now);
        let missed: Vec<_> = differing.intersection(&self.doubted).cloned().collect();
        self.doubted = differing;
        for user in missed {
            self.doubted.remove(&user);
            let notice = if now.binary_search(&user).is_ok() {
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
            held: Some(Held::default()),
            ahead: BTreeSet::new(),
        };
        // Under the map's lock, so that the room is not removed in between.
        let mut rooms = lock(&self.rooms);
        let room = rooms.entry(room.clone()).or_default();
        lock(room).members.push(member);
    }

    /// Ends the holding back: `first` is called, with nothing delivered meanwhile, to put the past
    /// and the members into the outbox; then what was held follows, but for what the past has
    /// already, up to `last`, and the comings and goings that `members`, in alphabetical order, shows
    /// already.
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
        let mut shown = Cow::Borrowed(members);
        for broadcast in without_shown(held.events, members) {
            member.take(&broadcast);
            match &broadcast.event {
                Event::Joined { user, .. } => {
                    if let Err(index) = shown.binary_search(user) {
                        shown.to_mut().insert(index, user.clone());
                    }
                }
                Event::Left { user, .. } => {
                    if let Ok(index) = shown.binary_search(user) {
                        shown.to_mut().remove(index);
                    }
                }
                _ => {}
            }
        }
        match &room.present {
            None => room.present = Some(shown.iter().cloned().collect()),
            Some(present) => {
                let ahead = differing(present, &shown);
                if let Some(member) = room.member(connection) {
                    member.ahead = ahead;
                }
            }
        }
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

/// Leaves out of `held` the comings and goings whose outcome `members` shows already; of a user
/// whose last one says otherwise, that one alone stays.
fn without_shown(held: Vec<Arc<Broadcast>>, members: &[UserName]) -> Vec<Arc<Broadcast>> {
    let is_in = |user: &UserName| members.binary_search(user).is_ok();
    let mut decided = HashSet::new();
    let mut kept: Vec<_> = held
        .into_iter()
        .rev()
        .filter(|broadcast| match &broadcast.event {
            Event::Joined { user, .. } => decided.insert(user.clone()) && !is_in(user),
            Event::Left { user, .. } => decided.insert(user.clone()) && is_in(user),
            _ => true,
        })
        .collect();
    kept.reverse();
    kept
}

/// Who is in one of the two and not in the other. Every member that enters asks for it: so the second,
/// in alphabetical order, is no set.
fn differing(set: &BTreeSet<UserName>, list: &[UserName]) -> BTreeSet<UserName> {
    let mut differing = BTreeSet::new();
    let mut list = list.iter().peekable();
    for user in set {
        while let Some(other) = list.next_if(|other| *other < user) {
            differing.insert(other.clone());
        }
        if list.next_if(|other| *other == user).is_none() {
            differing.insert(user.clone());
        }
    }
    differing.extend(list.cloned());
    differing
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Queue, outbox};
    use std::time::Instant;

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
                .release(&self.room, ConnectionId(connection), None, &members, || {});
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
        queue.collect(&mut bytes, Instant::now());
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
            .release(&house.room, ConnectionId(1), last, &[], || {});
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
        house.hub.release(&house.room, third, last, &[], || {});
        assert_eq!(lines(&carol), said(&[6]));
        house.say(&[6, 7], None);
        assert_eq!(lines(&carol), said(&[7]));
    }
}
