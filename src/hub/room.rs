//! One room: its members on this instance, and who is in it anywhere.
//!
//! Each member takes every message once and in the room's order, and of comings and goings those that
//! it was not shown already.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::broadcast::{Broadcast, Volley};
use super::gathering::Gathering;
use crate::hub::outbox::{Outbox, Pushed};
use crate::message::{ConnectionId, MessageId, Notice, RoomName, UserName, Via};
use crate::metrics;
use crate::protocol::{ANNOUNCED_MEMBERS, Encoding, Event, Priority};
use crate::websocket::frame::Frame;

/// How many events may be held back for a member who is still reading the past; of their text, as
/// many bytes as an outbox holds. Beyond that, the member is a slow consumer.
const MAX_HELD: usize = 16 * 1024;

/// One connection in one room.
pub(super) struct Member {
    origin: Via,
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
    /// One who still reads the past.
    pub(super) fn reading(origin: Via, user: UserName, outbox: Arc<Outbox>) -> Self {
        Self {
            origin,
            user,
            outbox,
            last: None,
            held: Some(Held::default()),
            ahead: BTreeSet::new(),
        }
    }

    /// Takes those that it wants, in one push. False if it wants none.
    fn take_all(&mut self, volley: &Volley) -> bool {
        if self.held.is_some() {
            let holds = volley.broadcasts.iter().map(|one| self.hold(one));
            return holds.fold(false, |some, holds| some | holds);
        }
        let places = volley.broadcasts.iter().enumerate();
        let unwanted: Vec<usize> = places
            .filter(|(_, one)| !self.wants(&one.event))
            .map(|(place, _)| place)
            .collect();
        let encoding = self.outbox.encoding();
        let frame = match unwanted[..] {
            [] => volley.frame(encoding).cloned(),
            _ => volley.frame_without(encoding, &unwanted),
        };
        let wanted = volley.broadcasts.len() - unwanted.len();
        frame.is_some_and(|frame| self.push(frame, volley.priority(), wanted))
    }

    /// Takes it, if it wants it. False if it does not.
    fn take(&mut self, broadcast: &Arc<Broadcast>) -> bool {
        if self.held.is_some() {
            return self.hold(broadcast);
        }
        if !self.wants(&broadcast.event) {
            return false;
        }
        let frame = broadcast.frame(self.outbox.encoding()).cloned();
        frame.is_some_and(|frame| self.push(frame, broadcast.event.priority(), 1))
    }

    /// Keeps it for later, if it may want it then.
    fn hold(&mut self, broadcast: &Arc<Broadcast>) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        match &broadcast.event {
            Event::Message { message, .. } => held.bytes += message.text.len(),
            Event::Joined { user, .. } | Event::Left { user, .. } | Event::Typing { user, .. }
                if *user == self.user =>
            {
                return false;
            }
            _ => {}
        }
        if held.events.len() < MAX_HELD && held.bytes <= self.outbox.budget() {
            held.events.push(Arc::clone(broadcast));
        } else {
            self.outbox
                .evict("too slow: the past was read slower than the room speaks");
        }
        true
    }

    /// Pushes a frame with so many events. True, since it had some.
    fn push(&self, frame: Frame, priority: Priority, events: usize) -> bool {
        match self.outbox.push(frame, priority) {
            Pushed::Taken => metrics::DELIVERED.add(events),
            Pushed::Shed => metrics::SHED.add(events),
            Pushed::Ended => {}
        }
        true
    }

    /// Whether it has not had this event, and is to have it; from now on it has.
    fn wants(&mut self, event: &Event) -> bool {
        match event {
            Event::Message { message, via, .. } => {
                if self.last.is_some_and(|last| message.id <= last) {
                    return false;
                }
                self.last = Some(message.id);
                // A terminal shows its own lines already.
                self.outbox.encoding() == Encoding::Json || *via != Some(self.origin)
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
        }
    }
}

#[derive(Default)]
pub(super) struct Room {
    members: Vec<Member>,
    /// Whether its last member has left; then nobody enters any more.
    closed: bool,
    /// Who is here, on all instances, as far as this instance was told; `None` until the first
    /// member has read it.
    present: Option<BTreeSet<UserName>>,
    /// Whose presence the shared state, when last looked at, showed otherwise than `present`.
    doubted: BTreeSet<UserName>,
    /// Comings and goings that were heard, and are neither told nor in `present` yet.
    gathering: Gathering,
}

impl Room {
    pub(super) fn admit(&mut self, member: Member) {
        self.members.push(member);
    }

    pub(super) fn leave(&mut self, connection: ConnectionId) {
        if let Some(index) = self.position(connection) {
            self.members.swap_remove(index);
        }
        self.closed = self.members.is_empty();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// See [`super::Hub::release`].
    pub(super) fn release(
        &mut self,
        name: &RoomName,
        connection: ConnectionId,
        last: Option<MessageId>,
        members: &[UserName],
        first: Option<Frame>,
    ) {
        if members.len() > ANNOUNCED_MEMBERS {
            // Nobody is told of a crowd, as the room may be from now on. These came before.
            self.tell_gathered(name);
        }
        let Some(member) = self.member(connection) else {
            return;
        };
        if let Some(first) = first {
            member.outbox.push(first, Priority::High);
        }
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
        if self.is_crowded() {
            // Nobody is told of a crowd, so nobody is ahead; and a set of names for each who enters
            // with it would take more memory than all else of them.
            return;
        }
        match &mut self.present {
            None => self.present = Some(shown.iter().cloned().collect()),
            // The room is a crowd already, of which it is not told yet.
            Some(present) if shown.len() > ANNOUNCED_MEMBERS => {
                present.extend(shown.iter().cloned());
            }
            Some(present) => {
                let ahead = differing(present, &shown);
                if let Some(member) = self.member(connection) {
                    member.ahead = ahead;
                }
            }
        }
    }

    /// Gives messages, a gap or a typing notice to every member, behind what waits: nobody speaks
    /// before their coming is told.
    pub(super) fn fan_out(&mut self, name: &RoomName, events: Vec<Event>) {
        self.tell_gathered(name);
        self.give(events);
    }

    /// True if somebody wanted some of it.
    fn give(&mut self, events: Vec<Event>) -> bool {
        if events.is_empty() {
            return false;
        }
        let volley = Volley::new(events);
        let takes = self.members.iter_mut().map(|one| one.take_all(&volley));
        takes.fold(false, |some, takes| some | takes)
    }

    /// Takes in a notice, which is told at once or when [`Room::due`] says.
    pub(super) fn announce(&mut self, name: &RoomName, notice: Notice, now: Instant) {
        match &notice {
            Notice::Joined(user) | Notice::Left(user) => {
                let user = user.clone();
                if let Some(notice) = self.gathering.take(&user, notice, now)
                    && self.tell(name, vec![notice])
                {
                    self.gathering.told(now);
                }
            }
            Notice::Typing(_) if self.is_crowded() => {}
            Notice::Typing(_) => self.fan_out(name, vec![event(name, notice)]),
        }
    }

    /// When the comings and goings that wait have to be told, if there are any.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gathering.due()
    }

    /// Tells the comings and goings that are due.
    pub(super) fn tell_due(&mut self, name: &RoomName, now: Instant) {
        if self.due().is_some_and(|due| due <= now) && self.tell_gathered(name) {
            self.gathering.told(now);
        }
    }

    /// Tells the comings and goings that wait, due or not. False if they are news to nobody.
    fn tell_gathered(&mut self, name: &RoomName) -> bool {
        if self.due().is_none() {
            return false;
        }
        let gathered = self.gathering.drain();
        self.tell(name, gathered)
    }

    /// Tells comings and goings. False if they are news to nobody.
    fn tell(&mut self, name: &RoomName, notices: Vec<Notice>) -> bool {
        let mut told = false;
        let mut news = Vec::new();
        for notice in notices {
            // After a cut an instance may hear twice of the same coming or going; and of a user who came
            // and went only the going is left. The room does not hear of either.
            let changed = match (&notice, &mut self.present) {
                (Notice::Joined(user), Some(present)) => present.insert(user.clone()),
                (Notice::Left(user), Some(present)) => present.remove(user),
                (Notice::Typing(_), _) | (_, None) => true,
            };
            if self.is_crowded() {
                told |= self.give(std::mem::take(&mut news));
                // Nor is anybody ahead who entered before.
                for member in &mut self.members {
                    member.ahead.clear();
                }
            } else if changed {
                news.push(event(name, notice));
            } else {
                told |= self.tell_who_was_shown_otherwise(event(name, notice));
            }
        }
        told | self.give(news)
    }

    /// Tells a coming or going that changes nothing for the room to those members alone who were shown
    /// otherwise when they entered, or still read the past. There are such when the shared state had
    /// taken a user for gone for a while, and when a user came, was shown, and went before the room was
    /// told.
    fn tell_who_was_shown_otherwise(&mut self, event: Event) -> bool {
        let broadcast = Broadcast::new(event);
        let (Event::Joined { user, .. } | Event::Left { user, .. }) = &broadcast.event else {
            return false;
        };
        let mut told = false;
        for member in &mut self.members {
            if member.held.is_some() || member.ahead.remove(user) {
                told |= member.take(&broadcast);
            }
        }
        told
    }

    /// Compares what was told with the shared state. A notice may be on its way just now, so a
    /// difference counts only when it is found a second time.
    pub(super) fn reconcile(&mut self, name: &RoomName, users: &[UserName]) {
        self.tell_gathered(name);
        let Some(present) = &self.present else { return };
        let differing = differing(present, users);
        let (missed, doubted) = differing
            .into_iter()
            .partition(|user| self.doubted.contains(user));
        self.doubted = doubted;
        let missed: BTreeSet<UserName> = missed;
        let notice = |user| match users.binary_search(&user) {
            Ok(_) => Notice::Joined(user),
            Err(_) => Notice::Left(user),
        };
        self.tell(name, missed.into_iter().map(notice).collect());
    }

    /// Whether comings and goings are too many to tell anybody.
    fn is_crowded(&self) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| present.len() > ANNOUNCED_MEMBERS)
    }

    #[cfg(test)]
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.position(connection).is_some()
    }

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

/// What a notice is to the members of a room.
fn event(name: &RoomName, notice: Notice) -> Event {
    let room = name.clone();
    match notice {
        Notice::Joined(user) => Event::Joined { room, user },
        Notice::Left(user) => Event::Left { room, user },
        Notice::Typing(user) => Event::Typing { room, user },
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
