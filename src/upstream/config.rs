//! Settings of the upstream engine, and of one upstream.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::breaker;
use super::freshness::Lifetimes;

/// `[upstream]`: what holds for every upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Answer from the cache alone; no upstream is asked for anything.
    pub offline: bool,
    /// Longest wait for a connection, TLS included.
    pub connect_seconds: u64,
    /// Longest wait for the head of an answer.
    pub header_seconds: u64,
    /// Longest pause between two parts of a body.
    pub idle_seconds: u64,
    /// Span over which a body's speed is judged.
    pub slow_window_seconds: u64,
    /// Fewest bytes in such a span; a slower body is cut off.
    pub slow_window_bytes: u64,
    /// Further tries after a failure, also for resuming a broken body.
    pub retries: u32,
    /// Most redirects that are followed.
    pub redirects: u32,
    /// Largest index document, unpacked.
    pub document_limit_bytes: u64,
    /// Largest file.
    pub artifact_limit_bytes: u64,
    /// How long a document is served without asking.
    pub fresh_seconds: u64,
    /// How long after that it is served while it is confirmed in the background.
    pub stale_while_revalidate_seconds: u64,
    /// How long after that it is served when the upstream fails.
    pub stale_if_error_seconds: u64,
    /// How long an absence is believed, and the shortest time between two forced fetches.
    pub negative_seconds: u64,
    /// Failures in a row after which an upstream is left alone.
    pub breaker_failures: u32,
    /// First pause of an upstream that failed.
    pub breaker_pause_seconds: u64,
    /// Longest pause, also for what an upstream's `Retry-After` asks.
    pub breaker_pause_limit_seconds: u64,
    /// Networks that may be dialled although they are not public, such as `10.1.0.0/16`.
    pub allow_private: Vec<IpNet>,
    /// Forward proxy for all upstreams; without it the usual environment variables count.
    pub proxy_url: Option<String>,
    /// Further certificate authorities to trust, as PEM files.
    pub ca_files: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            offline: false,
            connect_seconds: 10,
            header_seconds: 30,
            idle_seconds: 30,
            slow_window_seconds: 30,
            slow_window_bytes: 16 << 10,
            retries: 2,
            redirects: 5,
            document_limit_bytes: 128 << 20,
            artifact_limit_bytes: 16 << 30,
            fresh_seconds: 300,
            stale_while_revalidate_seconds: 300,
            stale_if_error_seconds: 365 * 24 * 3600,
            negative_seconds: 30,
            breaker_failures: 5,
            breaker_pause_seconds: 5,
            breaker_pause_limit_seconds: 120,
            allow_private: Vec::new(),
            proxy_url: None,
            ca_files: Vec::new(),
        }
    }
}

impl Config {
    /// The breaker's bounds.
    #[must_use]
    pub fn breaker(&self) -> breaker::Limits {
        breaker::Limits {
            failures: self.breaker_failures.max(1),
            pause: Duration::from_secs(self.breaker_pause_seconds),
            pause_limit: Duration::from_secs(self.breaker_pause_limit_seconds),
        }
    }

    /// Lifetimes of an upstream's documents.
    #[must_use]
    pub fn lifetimes(&self, own: &UpstreamConfig) -> Lifetimes {
        Lifetimes {
            fresh: Duration::from_secs(own.fresh_seconds.unwrap_or(self.fresh_seconds)),
            while_revalidate: Duration::from_secs(self.stale_while_revalidate_seconds),
            if_error: Duration::from_secs(self.stale_if_error_seconds),
            negative: Duration::from_secs(self.negative_seconds),
        }
    }
}

/// One entry of an ecosystem's `upstream` list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// A short name for logs, metrics and reports.
    pub name: String,
    /// Base address.
    pub url: String,
    /// User name for Basic credentials.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password for Basic credentials.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// File that holds a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// How long its documents are served without asking; else the engine's setting.
    #[serde(default)]
    pub fresh_seconds: Option<u64>,
    /// Patterns of names to ask it for; without any, all.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of names never to ask it for.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Hosts that clients know it by, besides that of its address.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Hosts of this server, with a port or without, under which all names are this upstream's.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// What is put before a name of one part.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Hosts of its token service, where that is in another domain: they are sent its credentials.
    #[serde(default)]
    pub token_hosts: Vec<String>,
    /// Forward proxy for this upstream; else the engine's setting.
    #[serde(default)]
    pub proxy_url: Option<String>,
    /// Further certificate authorities to trust for this upstream, as PEM files.
    #[serde(default)]
    pub ca_files: Vec<PathBuf>,
}

/// Credentials for one upstream, read from the files the configuration names.
#[derive(Clone, Default)]
pub struct Credentials(pub Option<crate::http::HeaderValue>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Credentials(set)" } else { "Credentials(none)" })
    }
}

/// Forward proxies from the environment, for upstreams without one in the configuration.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnvironment {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `NO_PROXY`.
    pub except: Option<String>,
}
