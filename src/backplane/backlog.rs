//! The backlog: the bytes of all messages that wait to be stored, over all connections.
//!
//! It is bounded in bytes. A message holds a [`Place`] from its admission until its answer; dropping
//! the place frees its bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Draft;

/// The most that may wait.
const MOST_BYTES: usize = 64 << 20;

/// The bytes that a message takes beside its text, about.
const BESIDE_TEXT: usize = 1024;

/// The number of bytes that wait.
#[derive(Default)]
pub(super) struct Backlog(Arc<AtomicUsize>);

/// One message's place.
pub(super) struct Place {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Backlog {
    /// A place for a message; `None` if too much waits already.
    pub(super) fn admit(&self, draft: &Draft) -> Option<Place> {
        let bytes = draft.text.len() + BESIDE_TEXT;
        let place = Place {
            waiting: Arc::clone(&self.0),
            bytes,
        };
        let waiting = self.0.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // A place that is refused is dropped, and so given back.
        (waiting <= MOST_BYTES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RoomName;

    #[test]
    fn a_place_that_is_given_back_can_be_had_again() {
        let backlog = Backlog::default();
        let draft = Draft {
            room: RoomName::lobby(),
            from: "alice".parse().expect("a name"),
            text: "x".repeat(MOST_BYTES / 2 - BESIDE_TEXT),
            reference: None,
            via: None,
        };
        let first = backlog.admit(&draft).expect("nothing waits");
        let second = backlog.admit(&draft).expect("half of it waits");
        assert!(backlog.admit(&draft).is_none());
        drop(first);
        assert!(backlog.admit(&draft).is_some());
        drop(second);
        assert_eq!(backlog.0.load(Ordering::Acquire), 0);
    }
}
