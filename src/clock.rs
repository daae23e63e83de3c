//! Wall-clock time, which tests can stop and move.
//!
//! Lifetimes of cached documents, token expiry and restore windows all compare
//! wall-clock instants, so they read a [`Clock`] that is handed to them and never
//! the system's. Time-outs and delays inside one process use tokio's own clock,
//! which tests pause.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A wall-clock instant in milliseconds since the Unix epoch.
///
/// Written and read as RFC 3339 in UTC with milliseconds (`2026-11-20T08:00:00.000Z`),
/// the form that npm's `time` and GitHub's REST API use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant that many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant moved into the future; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant as a [`std::time::SystemTime`], for HTTP dates.
    #[must_use]
    pub fn to_system(self) -> std::time::SystemTime {
        let millis = u64::try_from(self.0).unwrap_or(0);
        std::time::UNIX_EPOCH + Duration::from_millis(millis)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{instant:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|instant| Self(instant.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A source of the present time. Cheap to clone; clones share the source.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Stopped(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn stopped(at: Timestamp) -> Self {
        Self(Source::Stopped(Arc::new(AtomicI64::new(at.0))))
    }

    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
                let now = std::time::SystemTime::now();
                // A machine set before 1970 counts as the epoch itself.
                let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Stopped(at) => Timestamp(at.load(Ordering::Relaxed)),
        }
    }

    /// Moves a stopped clock forward; has no effect on the machine's clock.
    pub fn advance(&self, span: Duration) {
        if let Source::Stopped(at) = &self.0 {
            at.fetch_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_rfc_3339() {
        let instant = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(instant.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!("2023-11-14T22:13:20.123Z".parse::<Timestamp>().unwrap(), instant);
        assert_eq!("2023-11-14T23:13:20.123+01:00".parse::<Timestamp>().unwrap(), instant);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        let late = Timestamp::from_millis(i64::MAX);
        assert_eq!(late.plus(Duration::from_secs(u64::MAX)), late);
        assert_eq!(Timestamp::from_millis(0).since(late), Duration::ZERO);
        assert!(!late.to_string().is_empty());
    }

    #[test]
    fn a_stopped_clock_moves_only_when_told() {
        let clock = Clock::stopped(Timestamp::from_millis(5));
        let twin = clock.clone();
        clock.advance(Duration::from_millis(7));
        assert_eq!(twin.now(), Timestamp::from_millis(12));
    }
}
