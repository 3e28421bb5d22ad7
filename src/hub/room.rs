//! One room: its members on this instance, and the users that are present on any instance.

use std::collections::BTreeSet;
use std::time::Instant;

use super::broadcast::{Broadcast, EventBatch};
use super::member::Member;
use super::notices::PendingNotices;
use crate::message::{ConnectionId, MessageId, Notice, RoomName, UserName};
use crate::protocol::{ANNOUNCED_MEMBERS, Event};
use crate::websocket::frame::Frame;

#[derive(Default)]
pub(super) struct Room {
    members: Vec<Member>,
    /// The last member has left. Nobody enters a closed room; the next one makes a new room.
    closed: bool,
    /// The users that are present on all instances, as far as this room was told. `None` until the
    /// first member has read the list.
    present: Option<BTreeSet<UserName>>,
    /// Users that differed from the shared state at the last reconciliation. They are announced if
    /// they still differ at the next.
    differed: BTreeSet<UserName>,
    /// Joins and leaves that are neither told nor in `present` yet.
    pending: PendingNotices,
}

impl Room {
    pub(super) fn add(&mut self, member: Member) {
        self.members.push(member);
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        let mut members = self.members.iter();
        if let Some(index) = members.position(|member| member.connection() == connection) {
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
            // The list may make this room a crowd, in which nobody is announced. The pending notices
            // came before that.
            self.tell_pending(name);
        }
        let Some(member) = self.member(connection) else {
            return;
        };
        let Some(known) = member.release(last, members, first) else {
            return;
        };
        if self.is_crowded() {
            // Notices are not told, so no disagreement would end. A set of names for each member of a
            // crowd that enters at once would also take more memory than all else of the members.
            return;
        }
        match &mut self.present {
            None => self.present = Some(known.iter().cloned().collect()),
            // The list shows a crowd before the notices of it have arrived.
            Some(present) if known.len() > ANNOUNCED_MEMBERS => {
                present.extend(known.iter().cloned());
            }
            Some(present) => {
                let differing = difference(present, &known);
                if let Some(member) = self.member(connection) {
                    member.disagrees_on = differing;
                }
            }
        }
    }

    /// Gives messages, a gap or a typing notice to every member. Pending notices go first, so that
    /// nobody speaks before their join is told.
    pub(super) fn fan_out(&mut self, name: &RoomName, events: Vec<Event>) {
        self.tell_pending(name);
        self.push(events);
    }

    /// Pushes events to every member that needs them. False if no member needs any.
    fn push(&mut self, events: Vec<Event>) -> bool {
        if events.is_empty() {
            return false;
        }
        let batch = EventBatch::new(events.into_iter().map(Broadcast::new).collect());
        let taken = self.members.iter_mut().map(|member| member.take(&batch));
        taken.fold(false, |any, taken| any | taken)
    }

    /// Tells a notice at once, or keeps it until [`Room::due`].
    pub(super) fn announce(&mut self, name: &RoomName, notice: Notice, now: Instant) {
        match &notice {
            Notice::Joined(user) | Notice::Left(user) => {
                let user = user.clone();
                if let Some(notice) = self.pending.keep(&user, notice, now)
                    && self.tell(name, vec![notice])
                {
                    self.pending.told(now);
                }
            }
            Notice::Typing(_) if self.is_crowded() => {}
            Notice::Typing(_) => self.fan_out(name, vec![event(name, notice)]),
        }
    }

    /// The time at which the pending joins and leaves have to be told. `None` if there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending.due()
    }

    /// Tells the pending joins and leaves if they are due.
    pub(super) fn tell_due(&mut self, name: &RoomName, now: Instant) {
        if self.due().is_some_and(|due| due <= now) && self.tell_pending(name) {
            self.pending.told(now);
        }
    }

    /// Tells the pending joins and leaves, due or not. False if no member needs any.
    fn tell_pending(&mut self, name: &RoomName) -> bool {
        let notices = self.pending.drain();
        self.tell(name, notices)
    }

    /// Tells joins and leaves. False if no member needs any.
    fn tell(&mut self, name: &RoomName, notices: Vec<Notice>) -> bool {
        let mut told = false;
        let mut news = Vec::new();
        for notice in notices {
            // A notice changes nothing if the instance hears it twice, as after a cut; or if the user's
            // join was pending when the leave replaced it.
            let changed = match (&notice, &mut self.present) {
                (Notice::Joined(user), Some(present)) => present.insert(user.clone()),
                (Notice::Left(user), Some(present)) => present.remove(user),
                (Notice::Typing(_), _) | (_, None) => true,
            };
            if self.is_crowded() {
                told |= self.push(std::mem::take(&mut news));
                for member in &mut self.members {
                    member.disagrees_on.clear();
                }
            } else if changed {
                news.push(event(name, notice));
            } else {
                told |= self.tell_disagreeing(event(name, notice));
            }
        }
        told | self.push(news)
    }

    /// Tells a join or leave that changes nothing for the room to those members alone that disagree
    /// with the room, or that still read the past. False if there are none.
    fn tell_disagreeing(&mut self, event: Event) -> bool {
        let (Event::Joined { user, .. } | Event::Left { user, .. }) = &event else {
            return false;
        };
        let user = user.clone();
        let batch = EventBatch::new(vec![Broadcast::new(event)]);
        let mut told = false;
        for member in &mut self.members {
            if member.is_reading() || member.disagrees_on.remove(&user) {
                told |= member.take(&batch);
            }
        }
        told
    }

    /// The users that are present, as far as this room was told.
    pub(super) fn present(&self) -> impl Iterator<Item = &UserName> {
        self.present.iter().flatten()
    }

    /// Compares `present` with the shared state, and announces the users that differ for the second
    /// time. At the first time, their notice may just be on its way.
    pub(super) fn reconcile(&mut self, name: &RoomName, users: &[UserName]) {
        self.tell_pending(name);
        let Some(present) = &self.present else { return };
        let differing = difference(present, users);
        let before = std::mem::take(&mut self.differed);
        let (again, first) = differing
            .into_iter()
            .partition::<BTreeSet<_>, _>(|user| before.contains(user));
        self.differed = first;
        let notice = |user| match users.binary_search(&user) {
            Ok(_) => Notice::Joined(user),
            Err(_) => Notice::Left(user),
        };
        self.tell(name, again.into_iter().map(notice).collect());
    }

    /// Whether the room has too many users to announce joins, leaves and typing.
    fn is_crowded(&self) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| present.len() > ANNOUNCED_MEMBERS)
    }

    pub(super) fn member(&mut self, connection: ConnectionId) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.connection() == connection)
    }
}

/// The event that tells the members of a room of a notice.
fn event(name: &RoomName, notice: Notice) -> Event {
    let room = name.clone();
    match notice {
        Notice::Joined(user) => Event::Joined { room, user },
        Notice::Left(user) => Event::Left { room, user },
        Notice::Typing(user) => Event::Typing { room, user },
    }
}

/// The users that are in `set` or in `list`, but not in both. The list is in alphabetical order.
///
/// An example: of the set Alice, Bob and the list Alice, Carol it is Bob, Carol.
fn difference(set: &BTreeSet<UserName>, list: &[UserName]) -> BTreeSet<UserName> {
    let only_in_set = set.iter().filter(|user| list.binary_search(user).is_err());
    let only_in_list = list.iter().filter(|user| !set.contains(*user));
    only_in_set.chain(only_in_list).cloned().collect()
}
