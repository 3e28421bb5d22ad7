//! Bans: which users may not come in, and until when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// A user's ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ban {
    /// Its end, in milliseconds since 1970.
    pub until: u64,
    /// Why, for the user and for operators; one line, and perhaps empty.
    pub reason: String,
}

impl Ban {
    /// The time until its end, which is zero once it is over.
    pub fn left(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_millis(self.until).saturating_sub(now)
    }

    /// What its user is told.
    pub fn sentence(&self, now: SystemTime) -> String {
        let seconds = self.left(now).as_secs_f64().ceil();
        let units = [(86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes")];
        let fits = |(unit, _): &(f64, _)| seconds >= 2.0 * unit;
        let (unit, name) = units.into_iter().find(fits).unwrap_or((1.0, "seconds"));
        let count = (seconds / unit).ceil();
        let why = match &self.reason[..] {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        format!("an operator has banned this user for {count} more {name}{why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_says_how_long_it_lasts_and_why() {
        let said = |left: u64, reason: &str| {
            let ban = Ban {
                until: 1_000_000 + left,
                reason: reason.to_owned(),
            };
            ban.sentence(UNIX_EPOCH + Duration::from_secs(1000))
        };
        assert!(said(1, "").ends_with("for 1 more seconds"));
        assert!(said(119_000, "").ends_with("for 119 more seconds"));
        assert!(said(119_001, "").ends_with("for 2 more minutes"));
        assert!(said(7_200_000, "spam").ends_with("for 2 more hours: spam"));
        assert!(said(400_000_000, "").ends_with("for 5 more days"));
    }
}
