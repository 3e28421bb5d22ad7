//! The times of messages. They are in UTC, and say so: the system's time zone would take one more crate, or unsafe code.

use std::fmt;

const DAY: u64 = 24 * 60 * 60;

/// `2026-11-29T14:05:09.123Z` (RFC 3339), of milliseconds since the Unix epoch.
pub(super) fn timestamp(at: u64) -> String {
    let (date, time) = (Date::of(at), of_day(at));
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
        let date = Date::of(at);
        let is_new = self.0.replace(date) != Some(date);
        is_new.then(|| format!("{date} (UTC)"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// `civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". It counts in eras of 400 years
    /// that begin with a March, so that a leap day is the last of its year.
    fn of(at: u64) -> Self {
        let days = at / 1000 / DAY + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Self {
            year: 400 * era + year + u64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (153 * month + 2) / 5 + 1,
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
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
        for (days, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_722, "2023-12-31"),
            (19_723, "2024-01-01"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Date::of(days * DAY * 1000).to_string(), date);
        }
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
