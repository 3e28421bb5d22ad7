//! The time that a message takes from its send to the end of its fan-out, on the clock of one process.
//!
//! One message at a time is timed: the next that a connection of this instance sends, once the one before has arrived.
//! When it comes back from the backplane it is recognized by its connection, room and text, so the backplane carries
//! nothing more for it. All other messages cost one look at the stopwatch.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::message::{Entry, MessageId, RoomName, Via};
use crate::metrics;
use crate::threads::lock;

/// After this time the message is given up, since its sender may have left the room. Longer than a send waits for its
/// receipt.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// Times one message after the other.
#[derive(Default)]
pub struct Stopwatch(Mutex<Option<Timed>>);

/// The message that is timed.
struct Timed {
    room: RoomName,
    via: Via,
    text: String,
    since: Instant,
}

impl Stopwatch {
    /// Begins to time a message that is sent now, unless another one is timed. Returns whether it does.
    pub fn start(&self, room: &RoomName, via: Via, text: &str) -> bool {
        let now = Instant::now();
        let mut timed = lock(&self.0);
        let is_free = timed
            .as_ref()
            .is_none_or(|one| now.duration_since(one.since) > GIVEN_UP_AFTER);
        if is_free {
            *timed = Some(Timed {
                room: room.clone(),
                via,
                text: text.to_owned(),
                since: now,
            });
        }
        is_free
    }

    /// The message that is timed will not arrive: it is not stored, or was before.
    pub fn give_up(&self) {
        *lock(&self.0) = None;
    }

    /// If the message that is timed is among these, the rest of its time, which ends when the [`Lap`] is dropped.
    pub(super) fn lap(&self, room: &RoomName, entries: &[Entry]) -> Option<Lap> {
        let mut timed = lock(&self.0);
        let one = timed.as_ref().filter(|one| one.room == *room)?;
        let is_it = |entry: &&Entry| entry.via == Some(one.via) && entry.message.text == one.text;
        let lap = Lap {
            of: entries.iter().find(is_it)?.message.id,
            since: one.since,
        };
        *timed = None;
        Some(lap)
    }
}

/// The fan-out of the message that is timed. The last worker that has the message drops it, and so stops the time.
pub(super) struct Lap {
    pub(super) of: MessageId,
    since: Instant,
}

impl Drop for Lap {
    fn drop(&mut self) {
        metrics::DELIVERY.observe(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ConnectionId, InstanceId, Message};

    #[test]
    fn one_message_at_a_time_is_timed_and_known_by_its_connection_room_and_text() {
        let (watch, lobby) = (Stopwatch::default(), RoomName::lobby());
        let other: RoomName = "other".parse().expect("a name");
        let instance = InstanceId::random();
        let via = |connection| Via {
            instance,
            connection: ConnectionId(connection),
        };
        let entry = |number, connection, text: &str| Entry {
            message: Message {
                id: MessageId { millis: 1, number },
                from: "alice".parse().expect("a name"),
                text: text.to_owned(),
                at: 1,
            },
            prev: None,
            via: Some(via(connection)),
        };
        assert!(watch.start(&lobby, via(1), "hello"));
        assert!(!watch.start(&lobby, via(2), "hello"), "another is timed");
        let others = [entry(1, 1, "before"), entry(2, 2, "hello")];
        assert!(watch.lap(&lobby, &others).is_none());
        let both = [entry(3, 2, "hello"), entry(4, 1, "hello")];
        assert!(watch.lap(&other, &both).is_none());
        assert_eq!(watch.lap(&lobby, &both).map(|lap| lap.of.number), Some(4));
        assert!(watch.lap(&lobby, &both).is_none(), "it was timed already");
        assert!(watch.start(&lobby, via(2), "hello"));
        watch.give_up();
        assert!(watch.start(&lobby, via(3), "hello"));
        assert!(watch.lap(&lobby, &both).is_none());
        assert!(!watch.start(&lobby, via(4), "hello"));
        lock(&watch.0).as_mut().expect("one is timed").since -= 2 * GIVEN_UP_AFTER;
        assert!(watch.start(&lobby, via(4), "hello"), "it is given up");
    }
}
