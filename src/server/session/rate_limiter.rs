//! The rate limit of one client, and its penalty.
//!
//! A send takes a token from one bucket, and a command that costs others, such as a join, from another, which is
//! larger: a client that comes back joins all its rooms at once. Without a token they are refused, since the client
//! has to know. Any other request waits for a token of the first bucket. In both cases the server reads no further
//! message of this client meanwhile, so TCP slows the client down. Neither its requests, nor their
//! errors, nor its reconnecting can take the machine from other users. A client that keeps sending too
//! fast is closed.

use std::time::{Duration, Instant};

use crate::server::rate::TokenBucket;

/// The time for which a client is not read after a refusal. It bounds the errors for a client
/// that floods to a hundred a second.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Close when refusals exceed accepted requests by this many.
const MOST_REFUSALS: usize = 200;

/// The rate limiter of one client.
pub(super) struct RateLimiter {
    sends: TokenBucket,
    commands: TokenBucket,
    /// The number by which refused requests exceed accepted ones; never below zero.
    refused: usize,
}

/// The rate limiter's decision about a send or a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may be done.
    Allow,
    /// It is refused. There is a token again after this time.
    Refuse(Duration),
    /// The client has sent too fast for too long. The connection is closed.
    Close,
}

impl RateLimiter {
    /// A limiter that begins with the tokens in these buckets.
    pub(super) fn new(sends: TokenBucket, commands: TokenBucket) -> Self {
        Self {
            sends,
            commands,
            refused: 0,
        }
    }

    /// Decides whether a message may be sent now.
    pub(super) fn send(&mut self, now: Instant) -> Decision {
        let taken = self.sends.take(now);
        self.decide(taken)
    }

    /// Decides whether a command that costs others may be done now.
    pub(super) fn command(&mut self, now: Instant) -> Decision {
        let taken = self.commands.take(now);
        self.decide(taken)
    }

    fn decide(&mut self, taken: Result<(), Duration>) -> Decision {
        match taken {
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

    /// Takes a token for any other request. Without a token, the error is the time until the next one: at most a
    /// second, since no rate is lower than one a second.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.sends.take(now)
    }

    /// The same for a command that cannot be refused.
    pub(super) fn take_command(&mut self, now: Instant) -> Result<(), Duration> {
        self.commands.take(now)
    }

    /// The buckets of sends and of commands, to be kept for the user's next connection.
    pub(super) fn buckets(&self) -> (TokenBucket, TokenBucket) {
        (self.sends, self.commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_rate_is_refused_for_ever_and_more_ends_the_connection() {
        let start = Instant::now();
        let ends = |every: Duration| {
            let mut limiter = RateLimiter::new(
                TokenBucket::new(10, 1, start),
                TokenBucket::new(0, 1, start),
            );
            (0..10_000).find(|nth| limiter.send(start + every * *nth) == Decision::Close)
        };
        assert_eq!(ends(Duration::from_millis(50)), None);
        let last = ends(Duration::from_millis(10)).expect("it ends");
        assert!((200..=300).contains(&last), "{last}");
    }
}
