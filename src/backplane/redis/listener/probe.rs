//! The probe shows whether the subscription is alive, which neither TCP nor PING can. After a silence this
//! instance publishes to its own channel, and must hear it in time.

use std::time::{Duration, Instant};

/// After so long a silence a probe is sent; it must be back within [`WITHIN`].
const AFTER: Duration = Duration::from_millis(500);
const WITHIN: Duration = Duration::from_secs(1);

/// The last sign of life, or the probe that must come back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    /// When something was heard.
    Heard(Instant),
    /// When a probe was sent that has not come back.
    Sent(Instant),
}

/// The step that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send a probe.
    Probe,
    /// Give the subscription up.
    End,
}

impl Probe {
    /// Everything that is heard is a sign of life.
    pub(super) fn hears(&mut self, now: Instant) {
        *self = Self::Heard(now);
    }

    /// Tells the step that is due `now`. A probe is due only if it `can_be_sent`, and then counts as sent.
    pub(super) fn due(&mut self, now: Instant, can_be_sent: bool) -> Due {
        match *self {
            Self::Sent(sent) if now.duration_since(sent) > WITHIN => Due::End,
            Self::Heard(heard) if now.duration_since(heard) > AFTER && can_be_sent => {
                *self = Self::Sent(now);
                Due::Probe
            }
            Self::Sent(_) | Self::Heard(_) => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_probed_and_ends_the_subscription_if_it_goes_on() {
        let begin = Instant::now();
        let mut probe = Probe::Sent(begin);
        assert_eq!(probe.due(begin + WITHIN, true), Due::Nothing);
        probe.hears(begin);
        assert_eq!(probe.due(begin + AFTER, true), Due::Nothing);
        let silent = begin + 2 * AFTER;
        assert_eq!(
            probe.due(silent, false),
            Due::Nothing,
            "there is no way to send"
        );
        assert_eq!(probe.due(silent, true), Due::Probe);
        assert_eq!(probe.due(silent + WITHIN, true), Due::Nothing, "sent once");
        assert_eq!(probe.due(silent + 2 * WITHIN, true), Due::End);
    }
}
