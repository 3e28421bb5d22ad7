//! The sends of one connection that wait for their receipt.

use std::sync::{Condvar, Mutex};

use crate::threads::{Guard, lock};

/// The most sends of one connection that may wait for their receipt. At this number the connection is
/// not read any further.
const SENDS_IN_FLIGHT: usize = 64;

/// Counts the sends that wait for their receipt.
#[derive(Default)]
pub(super) struct InFlight {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl InFlight {
    /// Counts one more send. Waits while there are [`SENDS_IN_FLIGHT`].
    pub(super) fn add(&self) {
        *self.wait_for_fewer_than(SENDS_IN_FLIGHT) += 1;
    }

    /// Counts one send less: its receipt has come.
    pub(super) fn remove(&self) {
        *lock(&self.count) -= 1;
        self.fewer.notify_one();
    }

    /// Waits until no send is left.
    pub(super) fn wait_until_none(&self) {
        drop(self.wait_for_fewer_than(1));
    }

    /// The backplane answers each send within a bounded time, so this wait is bounded as well. Only the
    /// session's own thread waits here.
    fn wait_for_fewer_than(&self, most: usize) -> Guard<'_, usize> {
        let mut count = lock(&self.count);
        while *count >= most {
            count = count.wait(&self.fewer);
        }
        count
    }
}
