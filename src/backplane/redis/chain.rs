//! A room's chain: how the subscriber tells the room's next message from one that it heard before
//! and from one behind a hole, and how a hole is filled from the log.

use std::time::Instant;

use crossbeam_channel::Sender;
use log::warn;

use super::wire::{LogItem, Loss};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{Entry, MessageId, RoomName};

/// The most entries of one room's log that are read at once. The logs of the model (`model`) are short.
pub(super) const ENTRIES_AT_ONCE: usize = if cfg!(test) { 2 } else { 200 };

/// A room that the subscriber hears, or is about to hear.
pub(super) struct Heard {
    pub(super) room: RoomName,
    /// When the subscription was asked for; `None` once it is confirmed.
    pub(super) asked: Option<Instant>,
    /// Where the room's chain stands.
    pub(super) chain: Chain,
    /// Whether messages were delivered since the chain began.
    pub(super) has_delivered: bool,
    /// The sessions that wait for the room to be heard, each with its deadline.
    pub(super) waiting: Vec<(Instant, Sender<()>)>,
}

impl Heard {
    /// A room that is to be heard; `waiting` is told once it is.
    pub(super) fn anew(room: RoomName, waiting: Vec<(Instant, Sender<()>)>) -> Self {
        Self {
            room,
            asked: None,
            chain: Chain::Unknown,
            has_delivered: false,
            waiting,
        }
    }

    /// The room is heard: those that wait are told.
    pub(super) fn tell_waiting(&mut self) {
        for (_, waiting) in self.waiting.drain(..) {
            let _ = waiting.send(());
        }
    }

    /// Goes on from where the listener of another node, which heard the room before, left it. This chain may have
    /// begun at the room's newest message already, since somebody entered the room meanwhile.
    pub(super) fn go_on_from(&mut self, other: &Self) -> GoesOn {
        let Chain::Behind { last: left, .. } = other.chain else {
            return GoesOn::AsItWas;
        };
        // Members have got what came later. What the other listener delivered since, they did not take.
        let had_delivered = self.has_delivered;
        self.has_delivered |= other.has_delivered;
        if had_delivered {
            return GoesOn::WithGap(left);
        }
        match self.chain {
            Chain::Behind { last, .. } | Chain::Current { last, .. } if left >= last => {
                // The other one may have begun behind this place.
                match left > last && other.has_delivered {
                    true => GoesOn::WithGap(last),
                    false => GoesOn::AsItWas,
                }
            }
            Chain::Unknown | Chain::Behind { .. } | Chain::Current { .. } => {
                self.chain = other.chain;
                GoesOn::Behind
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Chain {
    /// Nothing was delivered yet: it begins at the room's newest message, once that is known.
    Unknown,
    /// Everything up to `last` was delivered (`None`: the room had no message). What follows has to be
    /// read from the log, which was read up to `read_to`.
    Behind {
        last: Option<MessageId>,
        read_to: Option<MessageId>,
    },
    /// Everything up to `last` was delivered, and what follows will be heard.
    Current {
        last: Option<MessageId>,
        /// Messages up to this id were read from the log, and may still be heard. They are skipped
        /// until the first message behind them.
        read: Option<MessageId>,
    },
}

impl Chain {
    fn caught_up(last: Option<MessageId>) -> Self {
        Self::Current { last, read: last }
    }

    pub(super) fn cut(&mut self) {
        if let Self::Current { last, .. } = *self {
            let read_to = last;
            *self = Self::Behind { last, read_to };
        }
    }

    /// The last message that was delivered.
    pub(super) fn last(&self) -> Option<MessageId> {
        match *self {
            Self::Unknown => None,
            Self::Behind { last, .. } | Self::Current { last, .. } => last,
        }
    }

    /// The point in the log from which it has to be read on.
    pub(super) fn read_to(&self) -> MessageId {
        match *self {
            // Nothing of the past is delivered.
            Self::Unknown => MessageId::GREATEST,
            Self::Behind { read_to, .. } => read_to.unwrap_or(MessageId::ZERO),
            Self::Current { last, .. } => last.unwrap_or(MessageId::ZERO),
        }
    }
}

/// What became of a chain that was taken over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GoesOn {
    /// Nothing is missing.
    AsItWas,
    /// The log has to be read from where the chain was left.
    Behind,
    /// It is too late to deliver what came after this message, if anything did.
    WithGap(Option<MessageId>),
}

/// Delivers a message that was heard, if it is the room's next. False if it is not, and so the log has
/// to tell what is missing.
pub(super) fn follow(hub: &Hub, heard: &mut Heard, entry: Entry, pace: Pace) -> bool {
    let Chain::Current { last, read } = heard.chain else {
        // The room is behind: the message will be read from the log.
        return true;
    };
    let id = entry.message.id;
    if read.is_some_and(|read| id <= read) {
        return true;
    }
    // A log may begin anew (it expired, or was deleted). Nothing was missed by that, since until
    // now every message was heard.
    let begins_anew = entry.prev.is_none() && last.is_none_or(|last| id > last);
    if entry.prev == last || begins_anew {
        heard.chain = Chain::Current {
            last: Some(id),
            read: None,
        };
        heard.has_delivered = true;
        hub.deliver(&heard.room, Delivery::Messages(vec![entry]), pace);
        return true;
    }
    heard.chain.cut();
    false
}

/// Tells the room of messages that a failover lost. False if the log has to tell where the room stands.
pub(super) fn tell_loss(hub: &Hub, heard: &mut Heard, loss: &Loss, pace: Pace) -> bool {
    match heard.chain {
        Chain::Current { last, .. } if last == Some(loss.newest) => {
            let gap = Delivery::Gap {
                after: Some(loss.after),
                until: Some(loss.mark),
                before: None,
            };
            hub.deliver(&heard.room, gap, pace);
            heard.chain = Chain::caught_up(Some(loss.mark));
            true
        }
        // The log was read since, and told it.
        Chain::Current { last, .. } if last >= Some(loss.mark) => true,
        // This instance heard some of them.
        Chain::Current { .. } => {
            heard.chain.cut();
            false
        }
        // The log is going to be read anyway.
        Chain::Behind { .. } | Chain::Unknown => true,
    }
}

/// What became of a chain for which the log was read.
pub(super) struct Filled {
    /// Whether what follows will be heard.
    pub(super) is_current: bool,
    /// Whether messages were missing.
    pub(super) has_gap: bool,
}

/// Delivers what the log holds behind the room's chain: `page`, oldest first. `tail` is the room's
/// newest id, read before: it tells whether messages are missing at the end of the log.
pub(super) fn fill(
    hub: &Hub,
    heard: &mut Heard,
    page: Vec<LogItem>,
    tail: Option<MessageId>,
) -> Filled {
    let mut filled = Filled {
        is_current: true,
        has_gap: false,
    };
    let mut last = match heard.chain {
        Chain::Current { .. } => return filled,
        Chain::Unknown => {
            heard.chain = Chain::caught_up(tail);
            return filled;
        }
        Chain::Behind { last, .. } => last,
    };
    let mut lost = |after, until, before| {
        filled.has_gap = true;
        warn!("room {:?}: messages are lost", heard.room);
        let gap = Delivery::Gap {
            after,
            until,
            before,
        };
        hub.deliver(&heard.room, gap, Pace::Busy);
    };
    let more = page.len() == ENTRIES_AT_ONCE;
    let read_to = page.last().map(LogItem::id);
    let missed: Vec<_> = page.into_iter().filter_map(LogItem::into_entry).collect();
    let is_empty = missed.is_empty();
    heard.has_delivered |= !is_empty;
    for entry in missed {
        let id = entry.message.id;
        if entry.prev != last {
            lost(last, entry.prev, Some(id));
        }
        hub.deliver(&heard.room, Delivery::Messages(vec![entry]), Pace::Busy);
        last = Some(id);
    }
    if more {
        heard.chain = Chain::Behind { last, read_to };
        filled.is_current = false;
        return filled;
    }
    // The log lost its end, or was forgotten with messages that were not delivered. From now on it continues from
    // its newest id. A page may go beyond that, since it was read later.
    let ends_early = if is_empty { tail != last } else { tail > last };
    if ends_early {
        lost(last, tail, None);
        last = tail;
    }
    heard.chain = Chain::caught_up(last);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::outbox::{Queue, outbox};
    use crate::message::{ConnectionId, InstanceId, MemberList, Message, Revision};
    use crate::protocol::Encoding;

    #[test]
    fn a_chain_that_moves_to_another_node_goes_on_where_it_was_left() {
        let id = |number| Some(MessageId { millis: 1, number });
        let heard = |chain| Heard {
            chain,
            ..Heard::anew(RoomName::lobby(), Vec::new())
        };
        let left = |last| {
            let mut room = heard(Chain::caught_up(last));
            room.chain.cut();
            room
        };
        let mut room = heard(Chain::Unknown);
        assert_eq!(room.go_on_from(&heard(Chain::Unknown)), GoesOn::AsItWas);
        assert_eq!(room.go_on_from(&left(id(3))), GoesOn::Behind);
        assert_eq!(room.chain, left(id(3)).chain);
        let mut room = heard(Chain::caught_up(id(5)));
        let mut ahead = left(id(6));
        assert_eq!(room.go_on_from(&ahead), GoesOn::AsItWas);
        ahead.has_delivered = true;
        assert_eq!(room.go_on_from(&ahead), GoesOn::WithGap(id(5)));
        // Somebody entered meanwhile, so that the chain began at the newest message.
        let mut room = heard(Chain::caught_up(id(5)));
        let mut alike = left(id(5));
        alike.has_delivered = true;
        assert_eq!(
            room.go_on_from(&alike),
            GoesOn::AsItWas,
            "up to its beginning"
        );
        let mut room = heard(Chain::caught_up(id(5)));
        assert_eq!(room.go_on_from(&left(None)), GoesOn::Behind);
        assert_eq!(room.chain, left(None).chain);
        // And something was said. The other one may have delivered what came before that too late.
        let mut room = heard(Chain::caught_up(id(6)));
        room.has_delivered = true;
        assert_eq!(room.go_on_from(&left(id(4))), GoesOn::WithGap(id(4)));
        assert_eq!(room.go_on_from(&left(id(6))), GoesOn::WithGap(id(6)));
        assert_eq!(room.go_on_from(&heard(Chain::Unknown)), GoesOn::AsItWas);
    }

    /// A room with one member, which is told in text what the hub delivers.
    struct TestRoom {
        hub: Hub,
        heard: Heard,
        queue: Queue,
    }

    impl TestRoom {
        fn at(chain: Chain) -> Self {
            let (hub, room) = (Hub::start(InstanceId::random(), 0), RoomName::lobby());
            let hub = hub.expect("no threads");
            let (_, queue) = outbox(Encoding::Text, 1 << 20, None);
            let list = MemberList {
                users: [].into(),
                revision: Revision::ZERO,
            };
            hub.add_member(&room, ConnectionId(1), None, queue.outbox());
            hub.release(&room, ConnectionId(1), None, &list, None);
            let mut heard = Heard::anew(room, Vec::new());
            heard.chain = chain;
            Self { hub, heard, queue }
        }

        fn hears(&mut self, number: u64, prev: Option<u64>) -> bool {
            let id = |number| MessageId { millis: 1, number };
            let message = Message {
                id: id(number),
                from: "alice".parse().expect("a name"),
                text: format!("number {number}"),
                at: 1,
            };
            let (prev, via) = (prev.map(id), None);
            let entry = Entry { message, prev, via };
            follow(&self.hub, &mut self.heard, entry, Pace::Calm)
        }

        fn told(&self) -> usize {
            self.queue.length()
        }
    }

    /// Everything up to this message was heard, and none of it was read from the log.
    fn current(number: u64) -> Chain {
        Chain::Current {
            last: Some(MessageId { millis: 1, number }),
            read: None,
        }
    }

    #[test]
    fn a_log_that_begins_anew_goes_on_and_its_first_message_is_told_once() {
        let mut room = TestRoom::at(current(3));
        assert!(room.hears(5, None));
        assert_eq!((room.told(), room.heard.chain), (1, current(5)));
        assert!(!room.hears(5, None), "a repeat of it begins no log");
        assert_eq!(room.told(), 1);
    }

    #[test]
    fn a_loss_is_told_once_by_those_who_can_tell_it() {
        let id = |number| MessageId { millis: 1, number };
        let loss = Loss {
            after: id(2),
            newest: id(5),
            mark: id(9),
        };
        let tell = |room: &mut TestRoom| tell_loss(&room.hub, &mut room.heard, &loss, Pace::Calm);
        let mut room = TestRoom::at(current(5));
        assert!(tell(&mut room));
        assert_eq!(room.told(), 1);
        assert_eq!(room.heard.chain, Chain::caught_up(Some(id(9))));
        assert!(tell(&mut room), "another instance found it, too");
        let mut later = TestRoom::at(current(10));
        assert!(tell(&mut later), "the log has told it");
        assert_eq!((room.told(), later.told()), (1, 0));
        assert_eq!(later.heard.chain, current(10));
        for heard in [3, 7] {
            let mut room = TestRoom::at(current(heard));
            assert!(!tell(&mut room), "the log has to tell");
            assert_eq!(room.told(), 0);
            let last = Some(id(heard));
            let read_to = last;
            assert_eq!(room.heard.chain, Chain::Behind { last, read_to });
            assert!(tell(&mut room), "it is going to be read");
            assert_eq!(room.heard.chain, Chain::Behind { last, read_to });
        }
    }

    #[test]
    fn a_chain_knows_what_was_delivered_last_also_while_it_is_behind() {
        let mut chain = current(5);
        let last = chain.last();
        assert_eq!(
            last,
            Some(MessageId {
                millis: 1,
                number: 5
            })
        );
        chain.cut();
        assert_eq!(chain.last(), last);
        assert_eq!(Chain::Unknown.last(), None);
    }
}
