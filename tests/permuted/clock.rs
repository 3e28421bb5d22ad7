//! Stands for the clock: time passes only when a test or [`crate::pubsub`] says so.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use real::sync::atomic::{AtomicU64, Ordering};

/// Microseconds since the process began.
static NOW: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

/// Lets time pass.
pub fn pass(time: Duration) {
    NOW.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
}

impl Instant {
    pub fn now() -> Self {
        Self(Duration::from_micros(NOW.load(Ordering::SeqCst)))
    }

    pub fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, time: Duration) {
        self.0 += time;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}
