//! Days, in UTC, as counts are kept and shown by them. Pure.

use std::str::FromStr;

use crate::clock::Timestamp;

const MILLIS: i64 = 86_400_000;

/// A day in UTC, by its number since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u64);

impl Day {
    /// The day of a number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number since the Unix epoch.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The day an instant is in. What is before the epoch counts as the epoch's day.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(u64::try_from(at.as_millis().div_euclid(MILLIS)).unwrap_or(0))
    }

    /// The instant it begins at.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(MILLIS))
    }

    /// The day so many days before; never before the epoch's day.
    #[must_use]
    pub fn before(self, days: u64) -> Self {
        Self(self.0.saturating_sub(days))
    }

    /// The Monday of its week.
    #[must_use]
    pub fn monday(self) -> Self {
        // The epoch's day was a Thursday.
        self.before((self.0 + 3) % 7)
    }
}

impl FromStr for Day {
    type Err = &'static str;

    /// Reads a date (`2026-11-20`), or the day of an instant in RFC 3339.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse::<Timestamp>());
        at.map(Self::of).map_err(|_| "a date is written as YYYY-MM-DD")
    }
}

/// Days in a row, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// The first.
    pub first: Day,
    /// The last.
    pub last: Day,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_weeks_begin_where_they_should() {
        let day: Day = "2023-11-14".parse().unwrap();
        assert_eq!(day.start().to_string(), "2023-11-14T00:00:00.000Z");
        assert_eq!(day.monday().start().to_string(), "2023-11-13T00:00:00.000Z");
        assert_eq!(day.monday().monday(), day.monday());
        assert_eq!("2023-11-14T23:59:59Z".parse(), Ok(day));
        assert_eq!(Day::of(Timestamp::from_millis(-1)), Day::new(0));
        for wrong in ["", "2023-13-01", "yesterday", "2023-11-14T25:00:00Z", "14.11.2023"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
    }
}
