//! A circuit breaker: after several failures in a row an upstream is left alone for
//! a while, so that its outage costs each request nothing but a look at this state.
//!
//! A pure state machine over instants that are handed in. Closed: requests pass.
//! Open: they are refused until the pause is over; each further failure doubles the
//! pause up to a limit. After the pause one request probes; its success closes the
//! breaker. An upstream that says `Retry-After` opens it for that time, capped.

use std::time::Duration;

use crate::clock::Timestamp;

/// Bounds of the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// First pause.
    pub pause: Duration,
    /// Longest pause, also for a `Retry-After`.
    pub pause_limit: Duration,
}

/// The state of one upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Timestamp>,
    probing_since: Option<Timestamp>,
}

impl Breaker {
    /// Whether a request may go out now; if not, how long the pause still is.
    ///
    /// # Errors
    /// The rest of the pause.
    pub fn admit(&mut self, now: Timestamp, limits: &Limits) -> Result<(), Duration> {
        let Some(until) = self.open_until else { return Ok(()) };
        if now < until {
            return Err(until.since(now));
        }
        // A probe that never reported back is forgotten after a pause's time.
        if let Some(since) = self.probing_since
            && now.since(since) < limits.pause
            && now >= since
        {
            return Err(limits.pause);
        }
        self.probing_since = Some(now);
        Ok(())
    }

    /// A request was answered in a way that shows the upstream works.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed; `wait` is what the upstream's `Retry-After` said.
    pub fn failed(&mut self, now: Timestamp, wait: Option<Duration>, limits: &Limits) {
        self.failures = self.failures.saturating_add(1);
        self.probing_since = None;
        if let Some(wait) = wait {
            self.open_until = Some(now.plus(wait.min(limits.pause_limit)));
        } else if self.failures >= limits.failures {
            let doubled = limits.pause.saturating_mul(1 << (self.failures - limits.failures).min(16));
            self.open_until = Some(now.plus(doubled.min(limits.pause_limit)));
        }
    }

    /// How long the pause still is at `now`; zero when there is none.
    #[must_use]
    pub fn rest(&self, now: Timestamp) -> Duration {
        self.open_until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Whether requests are being refused at `now`.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failures: 2, pause: Duration::from_secs(10), pause_limit: Duration::from_secs(60) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn opens_after_failures_in_a_row_and_doubles_its_pause() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0), None, &LIMITS);
        assert_eq!(breaker.admit(at(0), &LIMITS), Ok(()));
        breaker.failed(at(0), None, &LIMITS);
        assert_eq!(breaker.admit(at(4), &LIMITS), Err(Duration::from_secs(6)));
        assert_eq!(breaker.admit(at(10), &LIMITS), Ok(()), "one probe");
        assert!(breaker.admit(at(10), &LIMITS).is_err(), "and only one");
        breaker.failed(at(11), None, &LIMITS);
        assert!(breaker.is_open(at(30)));
        assert_eq!(breaker.admit(at(31), &LIMITS), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(at(31), &LIMITS), Ok(()));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_probe_that_never_reports_is_forgotten() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0), Some(Duration::from_secs(1)), &LIMITS);
        assert_eq!(breaker.admit(at(1), &LIMITS), Ok(()));
        assert!(breaker.admit(at(2), &LIMITS).is_err());
        assert_eq!(breaker.admit(at(11), &LIMITS), Ok(()));
    }

    #[test]
    fn believes_retry_after_up_to_the_limit() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0), Some(Duration::from_secs(1_000_000_000)), &LIMITS);
        assert_eq!(breaker.admit(at(0), &LIMITS), Err(Duration::from_secs(60)));
    }
}
