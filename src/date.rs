//! Dates of the calendar, in UTC, and times in milliseconds.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// From March 1 of the year 0 to January 1, 1970.
const DAYS_BEFORE_1970: u64 = 719_468;

/// The Gregorian calendar repeats itself after an era of 400 years.
const DAYS_OF_ERA: u64 = 146_097;

/// A time in milliseconds since the Unix epoch; 0 for one before it.
pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

/// A date, shown as `2026-11-29`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    /// Four digits, until the year 9999.
    pub(crate) year: u64,
    /// From 1 to 12.
    pub(crate) month: u64,
    /// From 1 to 31.
    pub(crate) day: u64,
}

impl Date {
    /// The date of the day that is so many days after January 1, 1970.
    ///
    /// This is `civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". An era begins with a
    /// March, so that a leap day is the last of its year.
    pub(crate) fn after_epoch(days: u64) -> Self {
        let days = days + DAYS_BEFORE_1970;
        let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
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

    #[test]
    fn days_months_and_years_are_those_of_the_calendar() {
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
            assert_eq!(Date::after_epoch(days).to_string(), date);
        }
    }
}
