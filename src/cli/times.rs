//! The times of messages. They are in UTC, and say so: the system's time zone would take one more crate, or unsafe
//! code.

use crate::date::Date;

const DAY: u64 = 24 * 60 * 60;

/// `2026-11-29T14:05:09.123Z` (RFC 3339), of milliseconds since the Unix epoch.
pub(super) fn timestamp(at: u64) -> String {
    let (date, time) = (date(at), of_day(at));
    format!("{date}T{time}:{:02}.{:03}Z", at / 1000 % 60, at % 1000)
}

/// `14:05`.
pub(super) fn of_day(at: u64) -> String {
    let minutes = at / 1000 % DAY / 60;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// The day of the message shown last.
#[derive(Default)]
pub(super) struct Calendar(Option<Date>);

impl Calendar {
    /// A notice of the message's day, such as `2026-11-29 (UTC)`, if it is another day than that of the one before.
    pub(super) fn turn_to(&mut self, at: u64) -> Option<String> {
        let date = date(at);
        let is_new = self.0.replace(date) != Some(date);
        is_new.then(|| format!("{date} (UTC)"))
    }
}

fn date(at: u64) -> Date {
    Date::after_epoch(at / 1000 / DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29, 23:59:58.007.
    const LEAP_DAY: u64 = 1_709_251_198_007;

    #[test]
    fn a_time_is_shown_in_utc() {
        assert_eq!(timestamp(LEAP_DAY), "2024-02-29T23:59:58.007Z");
        assert_eq!(of_day(LEAP_DAY), "23:59");
        assert!(timestamp(u64::MAX).ends_with("Z"), "and no overflow");
    }

    #[test]
    fn the_day_is_told_once() {
        let mut calendar = Calendar::default();
        let mut turn_to = |at| calendar.turn_to(at);
        assert_eq!(turn_to(LEAP_DAY).as_deref(), Some("2024-02-29 (UTC)"));
        assert_eq!(turn_to(LEAP_DAY + 1992), None);
        assert_eq!(
            turn_to(LEAP_DAY + 1993).as_deref(),
            Some("2024-03-01 (UTC)")
        );
    }
}
