//! The sections that belong to this floor; the other modules own theirs.

use serde::Deserialize;

use crate::upstream::UpstreamConfig;

/// `[ecosystem.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ecosystem {
    /// Whether it is served at all.
    pub enabled: bool,
    /// Where names that nobody hosts come from, in this order. Absent: the list of the example; empty: nowhere.
    pub upstream: Option<Vec<UpstreamConfig>>,
}

impl Default for Ecosystem {
    fn default() -> Self {
        Self { enabled: true, upstream: None }
    }
}

impl Ecosystem {
    /// The upstreams, in order.
    #[must_use]
    pub fn upstreams(&self) -> &[UpstreamConfig] {
        self.upstream.as_deref().unwrap_or_default()
    }
}
