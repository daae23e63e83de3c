//! The configuration: one TOML file, checked as a whole before anything starts.
//!
//! Each module owns its section's type and defaults; here they are composed, read
//! and checked. `config.toml.example` explains every key, is embedded, and is what
//! counts when there is no file; tests hold it and the defaults in the code equal.
//! Only the upstreams of an ecosystem have no default in the code: a file that
//! does not name any gets those of the example.
//!
//! All problems are reported at once, each with file, line and column. Secrets are
//! never in the file: it names files that hold them, and a blank one stops the start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result, Subject};
use crate::observe::log;
use crate::{access, blob, event, identity, registry, server, store, upstream, usage, webhook};

mod check;
mod explain;
mod sections;

pub use check::read_secret;
pub use sections::Ecosystem;

use explain::Document;

/// The example, which is also the configuration of a server without a file.
pub const EXAMPLE: &str = include_str!("../../config.toml.example");

/// The file that is read when no other is named, if it exists.
pub const DEFAULT_FILE: &str = "packhouse.toml";

/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "PACKHOUSE_CONFIG";

const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients reach this server. Without it, the address of each request counts.
    pub public_url: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Sockets and their limits.
    pub server: server::Config,
    /// Logging.
    pub log: log::Config,
    /// Stored bytes.
    pub blob: blob::Config,
    /// Metadata files.
    pub store: store::redb::Config,
    /// Limits of identity.
    pub identity: identity::Config,
    /// What is remembered of what happened.
    pub audit: event::Config,
    /// What is remembered of use.
    pub usage: usage::Config,
    /// What the operator decides about rights.
    pub access: access::Config,
    /// What holds for every upstream.
    pub upstream: upstream::Config,
    /// The engine that all ecosystems share.
    pub registry: registry::Config,
    /// Who is told of events.
    pub webhook: webhook::Config,
    /// Ecosystems by name.
    pub ecosystem: BTreeMap<String, Ecosystem>,
    /// The file it came from; `None` for the embedded example. Read again on SIGHUP.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: None,
            data_dir: PathBuf::from("packhouse-data"),
            server: server::Config::default(),
            log: log::Config::default(),
            blob: blob::Config::default(),
            store: store::redb::Config::default(),
            identity: identity::Config::default(),
            audit: event::Config::default(),
            usage: usage::Config::default(),
            access: access::Config::default(),
            upstream: upstream::Config::default(),
            registry: registry::Config::default(),
            webhook: webhook::Config::default(),
            ecosystem: BTreeMap::new(),
            file: None,
        }
    }
}

impl Config {
    /// Reads the configuration: the file that is named, else the one that
    /// `$PACKHOUSE_CONFIG` names, else `./packhouse.toml` if there is one, else the embedded example.
    ///
    /// # Errors
    /// `Invalid`, with one line for each problem, or when a named file cannot be read.
    pub fn load(named: Option<&Path>) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the configuration is one of the places that may look at the environment")]
        let variable = std::env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let standard = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        let Some(file) = named.map(Path::to_owned).or(variable).or_else(standard) else {
            return Self::parse(EXAMPLE, "config.toml.example");
        };
        let text = read_file(&file)?;
        Ok(Self { file: Some(file.clone()), ..Self::parse(&text, &file.display().to_string())? })
    }

    /// Reads a configuration text. `origin` names it in the report of problems.
    ///
    /// # Errors
    /// `Invalid`, with one line for each problem: `file:line:column: what is wrong and what was expected`.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let mut document = Document::parse(text, origin);
        let mut config: Self = document.read();
        let defaults = if text == EXAMPLE { BTreeMap::new() } else { example_ecosystems()? };
        check::check(&config, &defaults, &mut document);
        if let Some(report) = document.report() {
            return Err(Error::invalid(Subject::Config, report));
        }
        for (name, default) in defaults {
            let own = config.ecosystem.entry(name).or_default();
            own.upstream = own.upstream.take().or(default.upstream);
        }
        Ok(config)
    }

    /// The socket over which commands reach the running server.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
}

fn example_ecosystems() -> Result<BTreeMap<String, Ecosystem>> {
    Config::parse(EXAMPLE, "config.toml.example").map(|example| example.ecosystem)
}

fn read_file(file: &Path) -> Result<String> {
    let unreadable = |error| Error::invalid(Subject::Config, format!("cannot read {}: {error}", file.display()));
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_LIMIT_BYTES {
        return Err(Error::invalid(Subject::Config, format!("{} is larger than {FILE_LIMIT_BYTES} bytes", file.display())));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

#[cfg(test)]
mod tests;
