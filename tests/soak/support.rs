//! What the soak shares with the tests, and the small things that all its parts need.

// The tests use more of these than the soak does.
#[allow(dead_code)]
#[path = "../it/support/cluster.rs"]
pub(crate) mod cluster;
#[path = "../it/support/commands.rs"]
pub(crate) mod commands;
#[allow(dead_code)]
#[path = "../it/support/proxy.rs"]
pub(crate) mod proxy;
#[allow(dead_code)]
#[path = "../it/support/sentinel.rs"]
pub(crate) mod sentinel;

/// The servers that clusters and sentinels are made of here.
pub(crate) mod redis {
    pub(crate) use crate::processes::Redis;
}

use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a fact that nobody announces.
const GLANCE: Duration = Duration::from_millis(50);

/// How long the servers may take to agree on something. Longer than Sentinel takes to turn a master that came
/// back into a replica (about 11 s), and than a few elections that fail since a Sentinel has just come back.
const AGREE_WITHIN: Duration = Duration::from_secs(60);

/// Waits until `fact` is there, which is about servers and not about instances.
pub(crate) fn until<T>(what: &str, fact: impl FnMut() -> Option<T>) -> T {
    within(AGREE_WITHIN, fact).unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// Waits until `fact` is there; `None` if it is not in time.
pub(crate) fn within<T>(limit: Duration, mut fact: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = fact() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(GLANCE);
    }
}

/// Whoever panicked with the lock has said so; what it left is still worth a report.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Random numbers that a seed fixes for ever (SplitMix64), whatever version a crate has.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    /// Between `from` and `to` milliseconds.
    pub(crate) fn wait(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll() % (to - from))
    }
}
