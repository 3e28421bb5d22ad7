//! Stands for `src/backplane/local/log.rs`: the log of one room, which forgets nothing and knows no refs.

use std::time::Instant;

use crate::backplane::{BackplaneError, Draft, Stored};
use crate::message::{Entry, Message, MessageId, RoomName};

pub(super) type Position = u64;

#[derive(Debug, Clone)]
pub(super) struct PlacedEntry {
    pub(super) position: Position,
    pub(super) room: RoomName,
    pub(super) entry: Entry,
}

#[derive(Default)]
pub(super) struct Plan {
    pub(super) entries: Vec<PlacedEntry>,
}

pub(super) struct Forgotten;

impl Forgotten {
    pub(super) fn is_empty(&self) -> bool {
        true
    }
}

#[derive(Default)]
pub(super) struct Logs {
    taken_in: Vec<PlacedEntry>,
    next: Position,
}

/// The clock stands still.
pub(super) fn now_as_id() -> MessageId {
    id(0)
}

fn id(number: u64) -> MessageId {
    MessageId { millis: 1, number }
}

impl Logs {
    pub(super) fn plan(
        &mut self,
        plan: &mut Plan,
        draft: Draft,
        _: Instant,
    ) -> Result<Stored, BackplaneError> {
        self.next += 1;
        let message = Message {
            id: id(self.next),
            from: draft.from,
            text: draft.text,
            at: 1,
        };
        let (prev, via) = (None, draft.via);
        plan.entries.push(PlacedEntry {
            position: self.next,
            room: draft.room,
            entry: Entry { message, prev, via },
        });
        let (id, duplicate) = (id(self.next), false);
        Ok(Stored { id, duplicate })
    }

    pub(super) fn plan_past(
        &mut self,
        _: &mut Plan,
        _: &RoomName,
        _: Vec<Entry>,
    ) -> Result<(), BackplaneError> {
        Ok(())
    }

    pub(super) fn take_in(&mut self, placed: &PlacedEntry, _: Instant) {
        self.taken_in.push(placed.clone());
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let texts = self.taken_in.iter();
        texts.map(|one| one.entry.message.text.clone()).collect()
    }

    pub(super) fn forget(&mut self, _: Instant) {}

    pub(super) fn take_forgotten(&mut self, _: usize) -> Forgotten {
        Forgotten
    }

    pub(super) fn has_forgotten(&self) -> bool {
        false
    }

    pub(super) fn forget_again(&mut self, _: &Forgotten) {}

    pub(super) fn bytes(&self) -> usize {
        0
    }
}
