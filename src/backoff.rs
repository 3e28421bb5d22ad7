//! The wait before the next attempt: exponential, capped, with full jitter.
//!
//! Full jitter (a uniform draw between nothing and the current ceiling) spreads a crowd that was cut off
//! at the same moment: the clients of an instance that restarts, or the instances on a Redis that
//! restarts.

use std::time::Duration;

/// Counts failed attempts, and gives the wait after each.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The ceiling starts at `first`, doubles with each failure and ends at `cap`.
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            failures: 0,
        }
    }

    /// Notes a failure, and returns the wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(rand::random::<f64>())
    }

    /// Notes a success. The wait after the next failure is short again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&self) -> Duration {
        self.first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.cap)
    }
}

/// A random time between half of `wait` and `wait`. It spreads clients that are all told at the same
/// moment to come back.
pub(crate) fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_wait_is_between_half_and_the_whole() {
        let wait = Duration::from_secs(1);
        for _ in 0..100 {
            assert!((wait / 2..=wait).contains(&spread(wait)));
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_a_success_resets_it() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut ceilings = Vec::new();
        for _ in 0..6 {
            ceilings.push(backoff.ceiling().as_millis());
            assert!(backoff.next() <= Duration::from_secs(1));
        }
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_millis(100));
    }
}
