//! Settings of the listening side.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

/// `[server]`: sockets, time-outs, limits of connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses that speak plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// TLS; off while it has no addresses.
    pub tls: Tls,
    /// Host under which every ecosystem has a subdomain of its own: `packages.example` gives `npm.packages.example`.
    pub hosts: Option<String>,
    /// Networks whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once; further ones are closed.
    pub max_connections: usize,
    /// Largest head of a request.
    pub header_limit_bytes: usize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Longest wait for the whole head of a request, for a TLS handshake, and between two requests.
    pub header_seconds: u64,
    /// Longest pause between two parts of a request's body.
    pub body_seconds: u64,
    /// Longest wait for a client to take more of an answer.
    pub write_seconds: u64,
    /// How long requests may finish after SIGTERM.
    pub drain_seconds: u64,
    /// Wrong tokens from one address in a minute before it is told to wait.
    pub wrong_tokens_per_minute: u32,
}

/// `[server.tls]`. The files are read again on SIGHUP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Addresses that speak TLS.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            tls: Tls::default(),
            hosts: None,
            trusted_proxies: Vec::new(),
            max_connections: 10_000,
            header_limit_bytes: 64 << 10,
            max_headers: 100,
            max_streams: 256,
            header_seconds: 30,
            body_seconds: 60,
            write_seconds: 60,
            drain_seconds: 30,
            wrong_tokens_per_minute: 300,
        }
    }
}
