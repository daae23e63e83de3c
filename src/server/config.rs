//! Settings of the listening side.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses for plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// TLS, if it is spoken here.
    pub tls: Option<TlsConfig>,
    /// Base of the ecosystems' own hosts: `packages.example` gives `npm.packages.example`.
    pub hosts: Option<String>,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Longest wait for a request's head, for a TLS handshake, and between two requests of a connection.
    pub header_seconds: u64,
    /// Longest pause inside a request's body.
    pub body_idle_seconds: u64,
    /// Longest time a client may take nothing of an answer.
    pub write_seconds: u64,
    /// How long running requests may go on when the server stops.
    pub drain_seconds: u64,
    /// Most connections; further ones are closed at once.
    pub connections_limit: usize,
    /// Largest head of an HTTP/1 request.
    pub header_limit_bytes: usize,
    /// Most headers of a request.
    pub headers_limit: usize,
    /// Most requests at once on one HTTP/2 connection.
    pub streams_limit: u32,
    /// Wrong tokens from one address in a minute before it is told to wait.
    pub failed_logins_per_minute: u32,
}

/// `[server.tls]`: certificates are read again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Addresses for HTTPS.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            tls: None,
            hosts: None,
            trusted_proxies: Vec::new(),
            header_seconds: 30,
            body_idle_seconds: 30,
            write_seconds: 60,
            drain_seconds: 30,
            connections_limit: 10_000,
            header_limit_bytes: 64 << 10,
            headers_limit: 100,
            streams_limit: 256,
            failed_logins_per_minute: 300,
        }
    }
}
