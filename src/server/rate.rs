//! Rate limits: a token bucket, the buckets of users and addresses, which outlive a connection; and permits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::threads::lock;

/// There is space for so many more buckets before the next sweep, or for as many as there are.
const SWEEP_AFTER: usize = 1000;

/// A token bucket: it allows `burst` requests at once, and `per_second` requests a second on average.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    /// `None` for no limit.
    per_second: Option<f64>,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 means no limit.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_second: (per_second > 0).then_some(f64::from(per_second)),
            burst: f64::from(burst),
            tokens: f64::from(burst),
            filled: now,
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.tokens_at(now) >= self.burst
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.per_second.map_or(self.burst, |per_second| {
            (self.tokens + since * per_second).min(self.burst)
        })
    }

    /// Takes a token. Without one, the error is the time until the next token.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(per_second) = self.per_second else {
            return Ok(());
        };
        self.tokens = self.tokens_at(now);
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / per_second));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// A number of permits, as of a semaphore, each for one request at a time.
#[derive(Debug)]
pub struct Permits(AtomicUsize);

/// A permit that was taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit<'a>(&'a Permits);

impl Permits {
    /// All are free.
    pub fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// Takes a permit; `None` if all are taken.
    pub fn take(&self) -> Option<Permit<'_>> {
        let fewer = |free: usize| free.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        taken.is_ok().then(|| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A token bucket for each user, or each address, that sends HTTP requests, since there is no connection to hold it.
/// Also the buckets of connections that have ended: otherwise a user would get a full bucket by reconnecting.
#[derive(Debug)]
pub struct Buckets<K> {
    per_second: u32,
    burst: u32,
    buckets: Mutex<HashMap<K, TokenBucket>>,
}

impl<K: Clone + Eq + Hash> Buckets<K> {
    /// Nobody has a bucket yet. A rate of 0 means no limit.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            buckets: Mutex::default(),
        }
    }

    /// Takes a token of this key's. Without one, the error is the time until the next token.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        self.with_bucket(key, now, |bucket| bucket.take(now))
    }

    /// The bucket that a new connection of this user begins with.
    pub fn bucket(&self, key: &K, now: Instant) -> TokenBucket {
        let full = || TokenBucket::new(self.per_second, self.burst, now);
        let kept = lock(&self.buckets).get(key).copied();
        kept.unwrap_or_else(full)
    }

    /// Keeps the bucket of a connection that has ended, unless another one left less in it.
    pub fn keep(&self, key: &K, left: TokenBucket, now: Instant) {
        // A full bucket is the same as none.
        if !left.is_full(now) {
            self.with_bucket(key, now, |bucket| {
                if left.tokens_at(now) < bucket.tokens_at(now) {
                    *bucket = left;
                }
            });
        }
    }

    fn with_bucket<T>(&self, key: &K, now: Instant, run: impl FnOnce(&mut TokenBucket) -> T) -> T {
        let mut buckets = lock(&self.buckets);
        if buckets.len() == buckets.capacity() && !buckets.contains_key(key) {
            // A full bucket is the same as none.
            buckets.retain(|_, bucket| !bucket.is_full(now));
            let more = buckets.len().max(SWEEP_AFTER);
            buckets.reserve(more);
        }
        let full = || TokenBucket::new(self.per_second, self.burst, now);
        run(buckets.entry(key.clone()).or_insert_with(full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::UserName;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        let taken = |bucket: &mut TokenBucket, now| {
            let mut count = 0;
            while bucket.take(now).is_ok() {
                count += 1;
            }
            count
        };
        assert_eq!(taken(&mut bucket, start), 3);
        let wait = bucket.take(start).expect_err("it is empty");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(taken(&mut bucket, start + wait), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 3);
        let mut open = TokenBucket::new(0, 1, start);
        assert!((0..1000).all(|_| open.take(start).is_ok()));
    }

    #[test]
    fn a_user_who_reconnects_goes_on_with_the_bucket_that_they_left() {
        let start = Instant::now();
        let buckets = Buckets::new(10, 3);
        let user: UserName = "alice".parse().expect("a name");
        let mut first = buckets.bucket(&user, start);
        let second = buckets.bucket(&user, start);
        while first.take(start).is_ok() {}
        buckets.keep(&user, first, start);
        buckets.keep(&user, second, start);
        assert!(buckets.bucket(&user, start).take(start).is_err());
        assert!(buckets.take(&user, start).is_err());
        let later = start + Duration::from_millis(100);
        assert!(buckets.bucket(&user, later).take(later).is_ok());
    }

    #[test]
    fn buckets_that_are_full_again_are_dropped() {
        let start = Instant::now();
        let buckets = Buckets::new(1, 1);
        // Each is full again after a second, in which a hundred others come.
        for number in 0..100_000_u32 {
            let now = start + Duration::from_millis(10) * number;
            assert_eq!(buckets.take(&number, now), Ok(()));
        }
        let count = lock(&buckets.buckets).len();
        assert!(count < 10 * SWEEP_AFTER, "{count}");
    }
}
