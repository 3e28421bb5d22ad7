//! The sends of one connection that wait for their receipt.

use std::sync::{Condvar, Mutex};

use crate::threads::{Guard, lock};

/// The most sends of one connection that may wait for their receipt. At this number the connection is
/// not read any further.
const SENDS: usize = 64;

/// The most bytes of text in them, though a single send may be larger. A small share of what may wait over
/// all connections, so that a few connections cannot use that up.
const BYTES: usize = 1 << 20;

/// Counts the sends that wait for their receipt.
#[derive(Default)]
pub(super) struct InFlight {
    counts: Mutex<Counts>,
    fewer: Condvar,
}

#[derive(Default)]
struct Counts {
    sends: usize,
    bytes: usize,
    /// Whether the session's thread waits.
    is_awaited: bool,
}

impl Counts {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.sends == 0 || (self.sends < SENDS && self.bytes + bytes <= BYTES)
    }
}

impl InFlight {
    /// Counts one more send with so many bytes of text. Waits while it does not fit.
    pub(super) fn add(&self, bytes: usize) {
        let mut counts = self.wait_until(|now| now.has_room_for(bytes));
        counts.sends += 1;
        counts.bytes += bytes;
    }

    /// Counts one send less: its receipt has come.
    pub(super) fn remove(&self, bytes: usize) {
        let mut counts = lock(&self.counts);
        counts.sends -= 1;
        counts.bytes -= bytes;
        // To notify costs a system call, also if nobody waits.
        if counts.is_awaited {
            self.fewer.notify_one();
        }
    }

    /// Waits until no send is left.
    pub(super) fn wait_until_none(&self) {
        drop(self.wait_until(|now| now.sends == 0));
    }

    /// The backplane answers each send within a bounded time, so this wait is bounded as well. Only the
    /// session's own thread waits here.
    fn wait_until(&self, is_met: impl Fn(&Counts) -> bool) -> Guard<'_, Counts> {
        let mut counts = lock(&self.counts);
        while !is_met(&counts) {
            counts.is_awaited = true;
            counts = counts.wait(&self.fewer);
        }
        counts.is_awaited = false;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_are_bounded_in_number_and_in_bytes_and_a_lone_one_always_fits() {
        let with = |sends, bytes| Counts {
            sends,
            bytes,
            is_awaited: false,
        };
        assert!(with(SENDS - 1, 0).has_room_for(1));
        assert!(!with(SENDS, 0).has_room_for(1));
        assert!(with(1, BYTES - 1).has_room_for(1));
        assert!(!with(1, BYTES).has_room_for(1));
        assert!(with(0, 0).has_room_for(BYTES + 1));
    }

    #[test]
    fn a_receipt_makes_room_for_as_much_as_was_sent() {
        let in_flight = InFlight::default();
        in_flight.add(1);
        in_flight.add(BYTES - 1);
        in_flight.remove(BYTES - 1);
        assert!(lock(&in_flight.counts).has_room_for(BYTES - 1));
        in_flight.remove(1);
        let counts = lock(&in_flight.counts);
        assert_eq!((counts.sends, counts.bytes), (0, 0));
    }
}
