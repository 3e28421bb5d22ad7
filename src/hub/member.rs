//! One member of a room: which of the room's events it still needs.
//!
//! A member takes every message once and in the room's order, and those joins and leaves that its
//! initial list did not show already. While its connection still reads the past, it holds live events
//! back.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::broadcast::{Broadcast, EventBatch};
use crate::hub::outbox::{Outbox, Pushed};
use crate::message::{ConnectionId, MessageId, UserName, Via};
use crate::metrics;
use crate::protocol::{Encoding, Event, Priority};
use crate::websocket::frame::Frame;

/// The most events that are held back for a member; their text may have as many bytes as the outbox
/// has budget. A member that exceeds either is a slow consumer.
const MAX_HELD: usize = 16 * 1024;

/// One connection in one room.
pub(super) struct Member {
    via: Via,
    user: UserName,
    outbox: Arc<Outbox>,
    /// The last message that it has, be it live or from the history.
    last: Option<MessageId>,
    /// The live events that wait, while the connection still reads the past.
    held: Option<Held>,
    /// Users about whom this member and its room (`Room::present`) disagree; the next notice of such
    /// a user ends it. There are two ways to disagree:
    ///
    /// - Bob joins. Redis lists him at once, and his notice is still on its way. Alice enters and is
    ///   shown Bob. When the notice arrives, the room learns of Bob, and Alice needs no notice.
    /// - Redis takes Bob for gone for a while. Alice enters and is not shown Bob, whom the room still
    ///   counts as present. He is renewed: the notice is news to Alice, and to nobody else.
    pub(super) disagrees_on: BTreeSet<UserName>,
}

/// Events that are held back.
#[derive(Default)]
struct Held {
    events: Vec<Arc<Broadcast>>,
    bytes: usize,
}

impl Member {
    /// A member whose connection still reads the past.
    pub(super) fn reading(via: Via, user: UserName, outbox: Arc<Outbox>) -> Self {
        Self {
            via,
            user,
            outbox,
            last: None,
            held: Some(Held::default()),
            disagrees_on: BTreeSet::new(),
        }
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.via.connection
    }

    /// Whether its connection still reads the past.
    pub(super) fn is_reading(&self) -> bool {
        self.held.is_some()
    }

    /// Pushes those events that it needs, together; or holds them back. False if it needs none.
    pub(super) fn take(&mut self, batch: &EventBatch) -> bool {
        if self.is_reading() {
            let held = batch.broadcasts.iter().map(|one| self.hold(one));
            return held.fold(false, |any, held| any | held);
        }
        let events = batch.broadcasts.iter().enumerate();
        let unwanted: Vec<usize> = events
            .filter(|(_, one)| !self.needs(&one.event))
            .map(|(index, _)| index)
            .collect();
        let Some(frame) = batch.frame(self.outbox.encoding(), &unwanted) else {
            return false;
        };
        let count = batch.broadcasts.len() - unwanted.len();
        match self.outbox.push(frame, batch.priority()) {
            Pushed::Taken => metrics::DELIVERED.add(count),
            Pushed::Shed => metrics::SHED.add(count),
            Pushed::Ended => {}
        }
        true
    }

    /// Holds an event back, unless it tells the user of themselves.
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

    /// Whether the event is to be sent to it. Notes the event, so that a repetition is not.
    fn needs(&mut self, event: &Event) -> bool {
        match event {
            Event::Message { message, via, .. } => {
                if self.last.is_some_and(|last| message.id <= last) {
                    return false;
                }
                self.last = Some(message.id);
                // A terminal shows its own lines already.
                self.outbox.encoding() == Encoding::Json || *via != Some(self.via)
            }
            Event::Gap { before, .. } => {
                // Without a greater id behind the gap, the log began anew, and so do its ids.
                if before.is_none_or(|before| self.last.is_some_and(|last| before <= last)) {
                    self.last = None;
                }
                true
            }
            Event::Joined { user, .. } | Event::Left { user, .. } => {
                !self.disagrees_on.remove(user) && *user != self.user
            }
            Event::Typing { user, .. } => *user != self.user,
            _ => true,
        }
    }

    /// Ends the holding back: pushes `first`, and then those held events that are news after the
    /// history up to `last` and the list `members`. Returns the list that the member knows now, in
    /// alphabetical order; `None` if nothing was held back any more.
    pub(super) fn release<'a>(
        &mut self,
        last: Option<MessageId>,
        members: &'a [UserName],
        first: Option<Frame>,
    ) -> Option<Cow<'a, [UserName]>> {
        if let Some(first) = first {
            self.outbox.push(first, Priority::High);
        }
        self.last = last;
        let held = self.held.take()?;
        let mut known = Cow::Borrowed(members);
        for broadcast in news(held.events, members) {
            match &broadcast.event {
                Event::Joined { user, .. } => {
                    if let Err(index) = known.binary_search(user) {
                        known.to_mut().insert(index, user.clone());
                    }
                }
                Event::Left { user, .. } => {
                    if let Ok(index) = known.binary_search(user) {
                        known.to_mut().remove(index);
                    }
                }
                _ => {}
            }
            self.take(&EventBatch::new(vec![broadcast]));
        }
        Some(known)
    }
}

/// Drops the joins and leaves from `held` that are no news to a reader of the list `members`, which was
/// made while they arrived. Of each user only the last notice counts, and only if the list says
/// otherwise.
///
/// An example: Carol joined, Dave joined, Dave left and Eve joined are held, and the list has Carol. It
/// was made after Carol came. Only Eve's notice stays.
fn news(held: Vec<Arc<Broadcast>>, members: &[UserName]) -> Vec<Arc<Broadcast>> {
    let is_listed = |user: &UserName| members.binary_search(user).is_ok();
    let mut decided = HashSet::new();
    let mut news: Vec<_> = held
        .into_iter()
        .rev()
        .filter(|broadcast| match &broadcast.event {
            Event::Joined { user, .. } => decided.insert(user.clone()) && !is_listed(user),
            Event::Left { user, .. } => decided.insert(user.clone()) && is_listed(user),
            _ => true,
        })
        .collect();
    news.reverse();
    news
}
