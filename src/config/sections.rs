//! The sections that belong to this floor, and stand-ins for those of modules that are being built.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

/// `[server]`: sockets, time-outs, limits of connections.
// replaced by crate::server::Config at merge
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Addresses that speak plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// TLS; off while it has no addresses.
    pub tls: Tls,
    /// Host under which every ecosystem has a subdomain of its own.
    pub hosts: Option<String>,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once; further ones wait.
    pub max_connections: usize,
    /// Largest head of a request.
    pub header_limit_bytes: usize,
    /// Longest wait for the whole head of a request.
    pub header_seconds: u64,
    /// Longest pause between two parts of a request's body.
    pub body_seconds: u64,
    /// How long a connection without a request stays open.
    pub idle_seconds: u64,
    /// Longest wait for a client to take more of an answer.
    pub write_seconds: u64,
    /// How long requests may finish after SIGTERM.
    pub drain_seconds: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            tls: Tls::default(),
            hosts: None,
            trusted_proxies: Vec::new(),
            max_connections: 10_000,
            header_limit_bytes: 64 << 10,
            header_seconds: 30,
            body_seconds: 60,
            idle_seconds: 120,
            write_seconds: 60,
            drain_seconds: 30,
        }
    }
}

/// `[server.tls]`.
// replaced by crate::server::Config at merge
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Addresses that speak TLS.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain, PEM. Read again on SIGHUP.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM. Read again on SIGHUP.
    pub key_file: Option<PathBuf>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or a filter such as `info,packhouse::upstream=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[blob]`: stored bytes.
// replaced by crate::blob::Config at merge
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the owning module documents them")]
pub struct Blob {
    pub hosted_reserve_bytes: u64,
    pub cache_limit_bytes: u64,
    pub spool_ahead_bytes: u64,
    pub spool_window_bytes: u64,
    pub write_coalesce_bytes: u64,
    pub small_limit_bytes: u64,
    pub small_cache_bytes: u64,
    pub idle_buffer_bytes: u64,
    pub lease_seconds: u64,
    pub remove_files_per_second: u32,
}

impl Default for Blob {
    fn default() -> Self {
        Self {
            hosted_reserve_bytes: 1 << 30,
            cache_limit_bytes: 20 << 30,
            spool_ahead_bytes: 64 << 20,
            spool_window_bytes: 4 << 20,
            write_coalesce_bytes: 1 << 20,
            small_limit_bytes: 64 << 10,
            small_cache_bytes: 256 << 20,
            idle_buffer_bytes: 8 << 20,
            lease_seconds: 300,
            remove_files_per_second: 500,
        }
    }
}

/// `[store]`: the metadata files.
// replaced by crate::store::redb::Config at merge
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the owning module documents them")]
pub struct Store {
    pub page_cache_bytes: u64,
    pub group_rows: usize,
    pub queue_batches: usize,
    pub record_limit_bytes: u64,
    pub flush_seconds: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self { page_cache_bytes: 64 << 20, group_rows: 1000, queue_batches: 4096, record_limit_bytes: 64 << 20, flush_seconds: 5 }
    }
}

/// `[upstream]`: what holds for every upstream.
// replaced by crate::upstream::Config at merge
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the owning module documents them")]
pub struct Upstream {
    pub offline: bool,
    pub connect_seconds: u64,
    pub header_seconds: u64,
    pub idle_seconds: u64,
    pub slow_window_seconds: u64,
    pub slow_window_bytes: u64,
    pub retries: u32,
    pub redirects: u32,
    pub document_limit_bytes: u64,
    pub artifact_limit_bytes: u64,
    pub fresh_seconds: u64,
    pub stale_while_revalidate_seconds: u64,
    pub stale_if_error_seconds: u64,
    pub negative_seconds: u64,
    pub breaker_failures: u32,
    pub breaker_pause_seconds: u64,
    pub breaker_pause_limit_seconds: u64,
    pub allow_private: Vec<IpNet>,
    pub proxy_url: Option<String>,
    pub ca_files: Vec<PathBuf>,
}

impl Default for Upstream {
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

/// One entry of an ecosystem's `upstream` list.
// replaced by crate::upstream::UpstreamConfig at merge
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the owning module documents them")]
pub struct UpstreamConfig {
    pub name: String,
    pub url: String,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    #[serde(default)]
    pub fresh_seconds: Option<u64>,
    #[serde(default)]
    pub include: Vec<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub proxy_url: Option<String>,
    #[serde(default)]
    pub ca_files: Vec<PathBuf>,
}

/// `[registry]`: the engine that all ecosystems share.
// replaced by crate::registry::Config at merge
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the owning module documents them")]
pub struct Registry {
    pub rendered_cache_bytes: u64,
    pub parsed_cache_bytes: u64,
    pub large_documents_at_once: usize,
    pub publish_limit_bytes: u64,
    pub publish_metadata_limit_bytes: usize,
    pub archive_entries: u64,
    pub archive_unpacked_bytes: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            rendered_cache_bytes: 256 << 20,
            parsed_cache_bytes: 128 << 20,
            large_documents_at_once: 2,
            publish_limit_bytes: 350 << 20,
            publish_metadata_limit_bytes: 16 << 20,
            archive_entries: 100_000,
            archive_unpacked_bytes: 2 << 30,
        }
    }
}

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
