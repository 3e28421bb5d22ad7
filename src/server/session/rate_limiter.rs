//! The rate limit of one client, and its penalty.
//!
//! Every request takes a token from the same bucket. A send without a token is refused, since its
//! sender has to know; any other request waits for a token. In both cases the server reads no further
//! message of this client meanwhile, so TCP slows the client down. Neither its requests, nor their
//! errors, nor its reconnecting can take the machine from other users. A client that keeps sending too
//! fast is closed.

use std::time::{Duration, Instant};

use crate::server::rate::TokenBucket;

/// The time for which a client is not read after a refused send. It bounds the errors for a client
/// that floods to a hundred a second.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Close when refusals exceed accepted sends by this many.
const MOST_REFUSALS: usize = 200;

/// The rate limiter of one client.
pub(super) struct RateLimiter {
    bucket: TokenBucket,
    /// The number by which refused sends exceed accepted ones; never below zero.
    refused: usize,
}

/// The rate limiter's decision about a send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The message may be sent.
    Allow,
    /// The message is refused. There is a token again after this time.
    Refuse(Duration),
    /// The client has sent too fast for too long. The connection is closed.
    Close,
}

impl RateLimiter {
    /// A limiter that begins with the tokens in this bucket.
    pub(super) fn new(bucket: TokenBucket) -> Self {
        Self { bucket, refused: 0 }
    }

    /// Decides whether a message may be sent now.
    pub(super) fn send(&mut self, now: Instant) -> Decision {
        match self.bucket.take(now) {
            Ok(()) => {
                self.refused = self.refused.saturating_sub(1);
                Decision::Allow
            }
            Err(_) if self.refused >= MOST_REFUSALS => Decision::Close,
            Err(wait) => {
                self.refused += 1;
                Decision::Refuse(wait)
            }
        }
    }

    /// Takes a token for a request that is not a send. Without a token, the error is the time until the
    /// next one: at most a second, since no rate is lower than one a second.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.bucket.take(now)
    }

    /// The bucket, to be kept for the user's next connection.
    pub(super) fn bucket(&self) -> TokenBucket {
        self.bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_rate_is_refused_for_ever_and_more_ends_the_connection() {
        let start = Instant::now();
        let ends = |every: Duration| {
            let mut limiter = RateLimiter::new(TokenBucket::new(10, 1, start));
            (0..10_000).find(|nth| limiter.send(start + every * *nth) == Decision::Close)
        };
        assert_eq!(ends(Duration::from_millis(50)), None);
        let last = ends(Duration::from_millis(10)).expect("it ends");
        assert!((200..=300).contains(&last), "{last}");
    }
}
