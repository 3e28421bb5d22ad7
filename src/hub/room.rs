//! One room: its members on this instance, and who is in it anywhere.
//!
//! Each member takes every message once and in the room's order, and of comings and goings those that
//! it was not shown already.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::broadcast::{Broadcast, Volley};
use crate::frame::Frame;
use crate::message::{ConnectionId, MessageId, Notice, Origin, RoomName, UserName};
use crate::metrics;
use crate::outbox::Outbox;
use crate::protocol::{ANNOUNCED_MEMBERS, Event, Rendering, Weight};

/// How many events may be held back for a member who is still reading the past; of their text, as
/// many bytes as an outbox holds. Beyond that, the member is a slow consumer.
const MAX_HELD: usize = 16 * 1024;

/// One connection in one room.
pub(super) struct Member {
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
    /// One who still reads the past.
    pub(super) fn reading(origin: Origin, user: UserName, outbox: Arc<Outbox>) -> Self {
        Self {
            origin,
            user,
            outbox,
            last: None,
            held: Some(Held::default()),
            ahead: BTreeSet::new(),
        }
    }

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
        let Some(last) = self.may_take_all(volley) else {
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

    /// The last id, if it has none of them yet, and wants every one.
    fn may_take_all(&self, volley: &Volley) -> Option<MessageId> {
        if volley.broadcasts.len() < 2 || self.held.is_some() {
            return None;
        }
        let mut last = self.last;
        for broadcast in &volley.broadcasts {
            match &broadcast.event {
                Event::Message { message, .. } if last.is_none_or(|last| last < message.id) => {
                    last = Some(message.id);
                }
                _ => return None,
            }
            if !self.wants(&broadcast.event) {
                return None;
            }
        }
        last
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
        connection: ConnectionId,
        last: Option<MessageId>,
        members: &[UserName],
        first: Option<Frame>,
    ) {
        let Some(member) = self.member(connection) else {
            return;
        };
        if let Some(first) = first {
            member.outbox.push(first, Weight::Essential);
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

    pub(super) fn fan_out(&mut self, event: Event) {
        let broadcast = Broadcast::new(event);
        for member in &mut self.members {
            member.take(&broadcast);
        }
    }

    pub(super) fn fan_out_all(&mut self, volley: &Volley) {
        for member in &mut self.members {
            member.take_all(volley);
        }
    }

    pub(super) fn announce(&mut self, name: &RoomName, notice: Notice) {
        // An instance may hear twice of the same coming or going, after a cut; its users do not.
        let changed = match (&notice, &mut self.present) {
            (Notice::Joined(user), Some(present)) => present.insert(user.clone()),
            (Notice::Left(user), Some(present)) => present.remove(user),
            (Notice::Typing(_), _) | (_, None) => true,
        };
        if self.is_crowded() {
            // Nor is anybody ahead who entered before.
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
    pub(super) fn reconcile(&mut self, name: &RoomName, now: &[UserName]) {
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
