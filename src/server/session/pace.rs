//! How fast one client asks, and what it costs to be faster than allowed.
//!
//! Whatever a client asks takes a token of one bucket. A send without a token is refused, since its
//! sender has to know; everything else waits for one. Either way the client's next message is not read
//! meanwhile: so the network pushes back on it, and neither what it asks, nor its errors, nor its
//! reconnecting take the machine from the others. One whose sends go on too fast is closed.

use std::time::{Duration, Instant};

use crate::server::limits::TokenBucket;

/// How long a client is not read after a send was refused. A hundred errors a second at most are the
/// price of one that floods.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// So many more sends refused than taken end a connection.
const TOO_FAST_FOR_TOO_LONG: usize = 200;

/// How fast a client asks.
pub(super) struct Pace {
    bucket: TokenBucket,
    /// How many more sends were refused than taken since it was last slow enough.
    refused: usize,
}

/// What becomes of a send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in time.
    InTime,
    /// It came so much too early.
    TooFast(Duration),
    /// It is one too many that came too early.
    TooFastForTooLong,
}

impl Pace {
    /// Begins with what is in the bucket.
    pub(super) fn new(bucket: TokenBucket) -> Self {
        Self { bucket, refused: 0 }
    }

    /// Whether a message may be sent now.
    pub(super) fn send(&mut self, now: Instant) -> Verdict {
        match self.bucket.take(now) {
            Ok(()) => {
                self.refused = self.refused.saturating_sub(1);
                Verdict::InTime
            }
            Err(_) if self.refused >= TOO_FAST_FOR_TOO_LONG => Verdict::TooFastForTooLong,
            Err(wait) => {
                self.refused += 1;
                Verdict::TooFast(wait)
            }
        }
    }

    /// Takes a token for what is no send. If there is none, how long until there is: a second at most,
    /// since no rate is lower than one a second.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.bucket.take(now)
    }

    /// What the client leaves behind for when it comes back.
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
            let mut pace = Pace::new(TokenBucket::new(10, 1, start));
            (0..10_000).find(|nth| pace.send(start + every * *nth) == Verdict::TooFastForTooLong)
        };
        assert_eq!(ends(Duration::from_millis(50)), None);
        let last = ends(Duration::from_millis(10)).expect("it ends");
        assert!((200..=300).contains(&last), "{last}");
    }
}
