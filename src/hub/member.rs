//! One member of a room: which of the room's events it still needs.
//!
//! A member takes every message once and in the room's order, and those joins and leaves that its
//! initial list did not show already. While its connection still reads the past, it holds live events
//! back.

use std::collections::HashMap;
use std::sync::Arc;

use super::broadcast::{Broadcast, EventBatch};
use crate::hub::outbox::{Outbox, Pushed};
use crate::message::{ConnectionId, MemberList, MessageId, Revision, UserName, Via};
use crate::metrics;
use crate::protocol::{Encoding, Event, Priority};
use crate::websocket::frame::Frame;

/// The most events that are held back for a member; their text may have as many bytes as the outbox
/// has budget. A member that exceeds either is a slow consumer.
const MAX_HELD: usize = 16 * 1024;

/// What a test sees of a member.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct MemberState {
    pub(crate) last: Option<MessageId>,
    pub(crate) is_in_gap: bool,
    pub(crate) held: Vec<HeldEvent>,
}

/// An event that is held back, and the id that the room goes on from if it is a gap.
#[cfg(test)]
pub(crate) type HeldEvent = (Event, Option<MessageId>);

/// One connection in one room.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Member {
    via: Via,
    /// `None` for a connection that only follows the room.
    user: Option<UserName>,
    outbox: Arc<Outbox>,
    /// The last message that it has, be it live or from the history.
    last: Option<MessageId>,
    /// The last that it was told is a gap. What else is missing until the next message is the same gap.
    is_in_gap: bool,
    /// The last change in presence that its initial list shows.
    listed: Revision,
    /// The live events that wait, while the connection still reads the past.
    held: Option<Held>,
}

/// Events that are held back.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
struct Held {
    events: Vec<Arc<Broadcast>>,
    bytes: usize,
}

impl Member {
    /// A member whose connection still reads the past.
    pub(super) fn reading(via: Via, user: Option<UserName>, outbox: Arc<Outbox>) -> Self {
        Self {
            via,
            user,
            outbox,
            last: None,
            is_in_gap: false,
            listed: Revision::ZERO,
            held: Some(Held::default()),
        }
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.via.connection
    }

    pub(super) fn user(&self) -> Option<UserName> {
        self.user.clone()
    }

    /// What it has, and what is held back for it.
    #[cfg(test)]
    pub(super) fn state(&self) -> MemberState {
        let held = self.held.iter().flat_map(|held| &held.events);
        MemberState {
            last: self.last,
            is_in_gap: self.is_in_gap,
            held: held.map(|one| (one.event.clone(), one.until)).collect(),
        }
    }

    /// Tells one state from another by joins and leaves, for a model.
    #[cfg(test)]
    pub(super) fn hash(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let held = self.held.as_ref().map(|held| {
            let held = held.events.iter();
            let held = held.map(|one| format!("{:?} {:?}", one.event, one.listed));
            held.collect::<Vec<_>>()
        });
        (self.via.connection, self.listed, held).hash(hasher);
    }

    /// The encoding that it speaks.
    pub(super) fn encoding(&self) -> Encoding {
        self.outbox.encoding()
    }

    /// Pushes those events that it needs, together; or holds them back. False if it needs none.
    pub(super) fn take(&mut self, batch: &EventBatch<'_>) -> bool {
        if self.held.is_some() {
            let held = batch.broadcasts.iter().map(|one| self.hold(one));
            return held.fold(false, |any, held| any | held);
        }
        let events = batch.broadcasts.iter().enumerate();
        let unwanted: Vec<usize> = events
            .filter(|(_, one)| !self.needs(one))
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
        if broadcast.is_about(self.user.as_ref()) {
            return false;
        }
        held.bytes += broadcast.size();
        if held.events.len() < MAX_HELD && held.bytes <= self.outbox.budget() {
            held.events.push(Arc::clone(broadcast));
        } else {
            self.outbox
                .evict("too slow: the past was read slower than the room speaks");
        }
        true
    }

    /// Whether the event is to be sent to it. Notes the event, so that a repetition is not.
    fn needs(&mut self, broadcast: &Broadcast) -> bool {
        match &broadcast.event {
            Event::Message { message, via, .. } => {
                if self.last.is_some_and(|last| message.id <= last) {
                    return false;
                }
                self.last = Some(message.id);
                self.is_in_gap = false;
                // A terminal shows its own lines already.
                self.outbox.encoding() == Encoding::Json || *via != Some(self.via)
            }
            Event::Gap { after, before, .. } => {
                // Its past went that far, or told what is missing there. Of a log that lost its end, the ids do not
                // tell who has read it since.
                let ids_go_on = broadcast.until > *after;
                if ids_go_on && self.last >= broadcast.until {
                    return false;
                }
                let is_past = before.is_some_and(|before| Some(before) <= self.last);
                if self.last > *after {
                    // It entered since, with a past that was read later than this gap was found. To take the messages
                    // behind the gap once more would be to take them twice.
                    if is_past {
                        return false;
                    }
                } else if !ids_go_on && (is_past || before.is_none()) {
                    // Without a greater id behind the gap, the log began anew, and so do its ids.
                    self.last = None;
                }
                !std::mem::replace(&mut self.is_in_gap, true)
            }
            Event::Joined { .. } | Event::Left { .. } => {
                broadcast.listed.contains(&self.listed) && !broadcast.is_about(self.user.as_ref())
            }
            _ => !broadcast.is_about(self.user.as_ref()),
        }
    }

    /// Ends the holding back: pushes `first`, and then those held events that are news after the
    /// history up to `last` and after `list`.
    pub(super) fn release(
        &mut self,
        last: Option<MessageId>,
        list: &MemberList,
        first: Option<Frame>,
    ) {
        if let Some(first) = first {
            self.outbox.push(first, Priority::High);
        }
        self.last = last;
        self.listed = list.revision;
        let mut told = HashMap::new();
        for broadcast in self.held.take().map_or(Vec::new(), |held| held.events) {
            // A gap before `last` lies in the past, which has told it. Behind it, ids would begin anew.
            let is_past = matches!(&broadcast.event, Event::Gap { before: Some(before), .. }
                if last.is_some_and(|last| *before <= last));
            let change = match &broadcast.event {
                Event::Joined { user, .. } => Some((user.clone(), true)),
                Event::Left { user, .. } => Some((user.clone(), false)),
                _ => None,
            };
            // Users who are here arrive anew after Redis lost its data, which the revision of the list does not show.
            let is_known = change.as_ref().is_some_and(|(user, is_here)| {
                let listed = || list.users.binary_search(user).is_ok();
                told.get(user).copied().unwrap_or_else(listed) == *is_here
            });
            if !is_past && !is_known && self.take(&EventBatch::new(&[broadcast])) {
                told.extend(change);
            }
        }
    }
}
