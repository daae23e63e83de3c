//! Limits of webhooks.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

/// `[webhook]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Webhooks of one repository or organisation.
    pub hooks_per_target: usize,
    /// Largest payload. A larger one is cut down to what every ecosystem has, and not sent if that is still too large.
    pub payload_limit_bytes: usize,
    /// Longest wait for a receiver, from the first byte sent to the last one read.
    pub answer_seconds: u64,
    /// Most of an answer that is read.
    pub answer_limit_bytes: usize,
    /// Deliveries at once.
    pub at_once: usize,
    /// Deliveries at once to the webhooks of one repository or organisation.
    pub at_once_per_target: usize,
    /// Further tries after a delivery that failed.
    pub retries: u32,
    /// Pause before the first of them; each further one is twice as long.
    pub retry_seconds: u64,
    /// Longest such pause.
    pub retry_limit_seconds: u64,
    /// Deliveries that wait for one webhook; further ones are noted as failed.
    pub queue_limit: usize,
    /// Deliveries of one webhook that are kept to look at and to repeat, besides those that wait.
    pub deliveries_kept: usize,
    /// Most bytes of their payloads.
    pub deliveries_kept_bytes: u64,
    /// Networks that may be sent to although they are not public, such as `10.1.0.0/16`.
    pub allow_private: Vec<IpNet>,
    /// Further certificate authorities to trust, as PEM files.
    pub ca_files: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hooks_per_target: 20,
            payload_limit_bytes: 1 << 20,
            answer_seconds: 10,
            answer_limit_bytes: 64 << 10,
            at_once: 32,
            at_once_per_target: 8,
            retries: 8,
            retry_seconds: 5,
            retry_limit_seconds: 3600,
            queue_limit: 1000,
            deliveries_kept: 250,
            deliveries_kept_bytes: 16 << 20,
            allow_private: Vec::new(),
            ca_files: Vec::new(),
        }
    }
}

impl Config {
    /// How long to wait after a delivery that failed at its `tries`th try.
    #[must_use]
    pub fn pause(&self, tries: u32) -> Duration {
        let doubled = self.retry_seconds.saturating_mul(1 << tries.saturating_sub(1).min(32));
        Duration::from_secs(doubled.min(self.retry_limit_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let config = Config::default();
        let seconds: Vec<u64> = [1, 2, 3, 9, 11, 100].into_iter().map(|tries| config.pause(tries).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 1280, 3600, 3600]);
        assert_eq!(Config { retry_seconds: 0, ..config }.pause(7), Duration::ZERO);
    }
}
