//! The sends of one connection that are under way.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::threads::lock;

/// How many sends of one connection may wait for their receipt; then it is read no further.
const SENDS_IN_FLIGHT: usize = 64;

/// How many sends wait for their receipt.
#[derive(Default)]
pub(super) struct InFlight {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl InFlight {
    /// Waits for a place.
    pub(super) fn enter(&self) {
        *self.wait_for_fewer_than(SENDS_IN_FLIGHT) += 1;
    }

    pub(super) fn exit(&self) {
        *lock(&self.count) -= 1;
        self.fewer.notify_one();
    }

    /// Waits until there are none.
    pub(super) fn settle(&self) {
        drop(self.wait_for_fewer_than(1));
    }

    /// Receipts are bounded in time, so this is too. Only the session itself waits here.
    fn wait_for_fewer_than(&self, most: usize) -> MutexGuard<'_, usize> {
        let mut count = lock(&self.count);
        while *count >= most {
            count = self
                .fewer
                .wait(count)
                .unwrap_or_else(PoisonError::into_inner);
        }
        count
    }
}
