//! Redis as the model has it: one room's log, and the id of its newest message. The ids count up.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use crate::backplane::redis::wire::Loss;
use crate::message::{Entry, Message, MessageId, UserName};

/// They take turns.
static SENDERS: LazyLock<[UserName; 2]> =
    LazyLock::new(|| ["alice", "bob"].map(|name| name.parse().expect("a name")));

/// What the number of an id is raised by, for one that no message has.
const MARK: u64 = 1_000_000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ModelRedis {
    log: Vec<Said>,
    newest: Option<MessageId>,
    /// For each message that was ever taken, how often the memory had been lost before.
    taken: Vec<u8>,
    losses: u8,
    /// The messages that the log lost from its end. Nobody but those that heard them can know of them,
    lost: Numbers,
    /// until somebody has asked for them.
    marked: Numbers,
}

/// A message, and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Said {
    pub(super) id: MessageId,
    pub(super) prev: Option<MessageId>,
}

impl Said {
    pub(super) fn entry(self) -> Entry {
        Entry {
            message: Message {
                id: self.id,
                from: SENDERS[self.id.millis as usize % 2].clone(),
                text: String::new(),
                at: self.id.millis,
            },
            prev: self.prev,
            via: None,
        }
    }
}

/// What is known at one time: the newest id, and, to judge by, what had been said and lost by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Snapshot {
    pub(super) tail: Option<MessageId>,
    pub(super) said: u64,
    pub(super) losses: u8,
}

/// To whom a gap is told that was found by a look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Whom {
    /// To those that lack a message.
    #[default]
    Concerned,
    /// Redis had lost its memory, or the room moved: to those as well that entered since. Ids do not tell them from
    /// others.
    Anybody,
}

/// A look at a room: its newest id, and later its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Look {
    pub(super) whom: Whom,
    pub(super) asked: Snapshot,
    /// How often the memory had been lost when the log was read.
    pub(super) losses: u8,
}

impl ModelRedis {
    /// `publish.lua`.
    pub(super) fn say(&mut self) -> Said {
        let id = MessageId {
            millis: self.said() + 1,
            number: 0,
        };
        let prev = self.tail();
        let said = Said { id, prev };
        self.taken.push(self.losses);
        self.log.push(said);
        self.newest = Some(id);
        said
    }

    pub(super) fn length(&self) -> usize {
        self.log.len()
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.log.iter().any(|said| said.id.millis == number)
    }

    /// Forgets the oldest message.
    pub(super) fn trim(&mut self) {
        self.log.remove(0);
    }

    /// Forgets all messages, but not the newest id.
    pub(super) fn forget(&mut self) {
        self.log.clear();
    }

    /// Forgets everything. What was said into an empty room nobody can miss: the next message has no predecessor
    /// either.
    pub(super) fn begin_anew(&mut self) {
        if let [first, .., last] | [first @ last] = &self.log[..]
            && first.prev.is_none()
            && first.id.millis > 1
        {
            self.lost.add(first.id.millis..=last.id.millis);
        }
        self.log.clear();
        self.newest = None;
        self.losses += 1;
    }

    /// Is what it was before the last messages, so many of them.
    pub(super) fn lose_end(&mut self, count: usize) {
        for last in self.log.split_off(self.log.len() - count).into_iter().rev() {
            self.newest = last.prev;
            self.lost.add(last.id.millis..=last.id.millis);
        }
        self.losses += 1;
        // A mark is as easily lost as a message.
        self.marked = Numbers::default();
    }

    /// `lost.lua`, and whether that loss was not found before.
    pub(super) fn look_for(&mut self, id: MessageId) -> Option<(Loss, bool)> {
        let loss = self.loss_of(id)?;
        self.newest = Some(loss.mark);
        // It breaks the chain for everybody, as a loss does.
        self.losses += 1;
        let marked = Numbers::of(loss.after.millis + 1..=loss.mark.millis);
        let is_news = self.lost.0 & marked.0 & !self.marked.0 != 0;
        self.marked.0 |= marked.0;
        Some((loss, is_news))
    }

    fn loss_of(&self, id: MessageId) -> Option<Loss> {
        let first = self.log.first()?;
        if id <= first.id || self.log.iter().any(|said| said.id == id) {
            return None;
        }
        let after = self.log.iter().rfind(|said| said.id < id)?.id;
        let newest = self.tail()?;
        let mut last = Some(after);
        for next in self.log.iter().filter(|said| said.id > id) {
            if next.prev != last {
                return None;
            }
            last = Some(next.id);
        }
        if Some(newest) != last {
            return None;
        }
        let mut mark = newest.max(id);
        mark.number += MARK;
        Some(Loss {
            after,
            newest,
            mark,
        })
    }

    /// `tail` of `wire.rs`.
    fn tail(&self) -> Option<MessageId> {
        self.newest.or(self.log.last().map(|last| last.id))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            tail: self.tail(),
            said: self.said(),
            losses: self.losses,
        }
    }

    /// The log is read for one that asked.
    pub(super) fn look(&self, asked: Snapshot) -> Look {
        let losses = self.losses;
        Look {
            whom: Whom::Concerned,
            asked,
            losses,
        }
    }

    /// `read` of `wire.rs`, with `Cursor::After`.
    pub(super) fn after(&self, id: MessageId) -> Vec<Said> {
        let after = self.log.iter().filter(|said| said.id > id);
        after.copied().collect()
    }

    /// The number of messages that were ever taken, and the last one's.
    pub(super) fn said(&self) -> u64 {
        self.taken.len() as u64
    }

    pub(super) fn losses(&self) -> u8 {
        self.losses
    }

    pub(super) fn losses_at(&self, number: u64) -> u8 {
        self.taken[number as usize - 1]
    }

    /// Whether all of these were lost from the log's end, so that their absence does not show.
    pub(super) fn lost(&self, numbers: Numbers) -> bool {
        numbers.0 & !self.lost.0 == 0
    }

    /// Whether the loss of any of these was found all the same.
    pub(super) fn found_loss(&self, numbers: Numbers) -> bool {
        numbers.0 & self.lost.0 & self.marked.0 != 0
    }
}

/// A set of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Numbers(u16);

impl Numbers {
    pub(super) fn of(range: RangeInclusive<u64>) -> Self {
        Self(range.fold(0, |all, number| all | 1 << number))
    }

    pub(super) fn add(&mut self, range: RangeInclusive<u64>) {
        self.0 |= Self::of(range).0;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}
