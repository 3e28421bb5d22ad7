//! Redis as the model has it: one room's log, and the id of its newest message. The ids count up.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use crate::message::{Entry, Message, MessageId, UserName};

/// They take turns.
static SENDERS: LazyLock<[UserName; 2]> =
    LazyLock::new(|| ["alice", "bob"].map(|name| name.parse().expect("a name")));

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ModelRedis {
    log: Vec<Said>,
    newest: Option<MessageId>,
    /// For each message that was ever taken, how often the memory had been lost before.
    taken: Vec<u8>,
    losses: u8,
    /// The messages that the log lost from its end. Nobody but those that heard them can know of them.
    lost: Vec<u64>,
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

/// A look at a room: its newest id, and later its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Look {
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

    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty()
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

    /// Forgets everything.
    pub(super) fn begin_anew(&mut self) {
        self.log.clear();
        self.newest = None;
        self.losses += 1;
    }

    /// Is what it was before the last message.
    pub(super) fn lose_end(&mut self) {
        if let Some(last) = self.log.pop() {
            self.newest = last.prev;
            self.lost.push(last.id.millis);
            self.losses += 1;
        }
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
        Look { asked, losses }
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

    pub(super) fn losses_at(&self, number: u64) -> u8 {
        self.taken[number as usize - 1]
    }

    /// Whether any of these messages was not lost from the log's end, so that its absence shows.
    pub(super) fn could_keep(&self, mut numbers: RangeInclusive<u64>) -> bool {
        numbers.any(|number| !self.lost.contains(&number))
    }
}
