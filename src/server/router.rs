//! Finds who answers a request, by host and path. Pure.
//!
//! A host of an ecosystem's own (`npm.packages.example`) comes first, then the path
//! mounts: `/npm/…`, its alias `/_registry/npm/…`, and what an ecosystem's clients
//! send to the root. Where a protocol fixes the mount, it is the same on the
//! ecosystem's own host, and nobody else's is there.

use crate::api::rest;
use crate::ecosystem::{ALL, Ecosystem};

/// Who answers.
#[derive(Clone, Copy)]
pub enum Located<'a> {
    /// An ecosystem: itself, the mount's path without a trailing slash, and the raw path below it.
    Ecosystem(&'static dyn Ecosystem, &'a str, &'a str),
    /// The API, by the raw path below its mount.
    Rest(&'a str),
    /// An operation under `/-/`, by its name.
    Operation(&'a str),
    /// The front page.
    Root,
    /// Nobody.
    Nobody,
}

/// Finds who answers. `own_host` is the label of the request's host when it is
/// `LABEL.BASE` of the configured base.
#[must_use]
pub fn locate<'a>(own_host: Option<&str>, path: &'a str) -> Located<'a> {
    let by_host = own_host.and_then(by_label);
    if let Some(ecosystem) = by_host
        && !ecosystem.info().fixed_mount
    {
        return Located::Ecosystem(ecosystem, "", path);
    }
    if let Some(ecosystem) = ALL.iter().find(|ecosystem| ecosystem.info().root_paths.iter().any(|root| path.starts_with(root))) {
        return Located::Ecosystem(*ecosystem, "", path);
    }
    if let Some(operation) = path.strip_prefix("/-/") {
        return Located::Operation(operation);
    }
    if let Some(rest) = path.strip_prefix(rest::MOUNT).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Located::Rest(rest);
    }
    if path == "/" {
        return Located::Root;
    }
    if let Some(ecosystem) = by_host {
        return mounted(ecosystem, path, path);
    }
    let below = path.strip_prefix("/_registry").unwrap_or(path);
    let mut found = ALL.iter().map(|ecosystem| mounted(*ecosystem, path, below));
    found.find(|located| !matches!(located, Located::Nobody)).unwrap_or(Located::Nobody)
}

/// The ecosystem, if `below`, the path or the end of it, is at or below its mount.
fn mounted<'a>(ecosystem: &'static dyn Ecosystem, path: &'a str, below: &'a str) -> Located<'a> {
    let rest = below.strip_prefix('/').and_then(|below| below.strip_prefix(ecosystem.info().mount));
    match rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => Located::Ecosystem(ecosystem, &path[..path.len() - rest.len()], if rest.is_empty() { "/" } else { rest }),
        None => Located::Nobody,
    }
}

/// The ecosystem with a host of its own of this label.
fn by_label(label: &str) -> Option<&'static dyn Ecosystem> {
    ALL.iter().copied().find(|ecosystem| ecosystem.info().hosts.iter().any(|own| own.eq_ignore_ascii_case(label)))
}

/// The label of a host below the base, without its port: `npm` of `npm.packages.example:443`.
#[must_use]
pub fn own_host<'a>(host: &'a str, base: &str) -> Option<&'a str> {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map_or(host, |(name, _)| name);
    let (label, rest) = name.split_once('.')?;
    rest.eq_ignore_ascii_case(base).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(own_host: Option<&str>, path: &'a str) -> Option<(&'static str, &'a str, &'a str)> {
        match locate(own_host, path) {
            Located::Ecosystem(ecosystem, mount, rest) => Some((ecosystem.info().name, mount, rest)),
            _ => None,
        }
    }

    #[test]
    fn finds_mounts_aliases_hosts_and_root_paths() {
        let name = ALL[0].info().name;
        assert_eq!(found(None, &format!("/{name}/x")), Some((name, &*format!("/{name}"), "/x")));
        assert_eq!(found(None, &format!("/{name}")), Some((name, &*format!("/{name}"), "/")));
        assert_eq!(found(None, &format!("/_registry/{name}/@a%2fb")), Some((name, &*format!("/_registry/{name}"), "/@a%2fb")));
        assert_eq!(found(Some(name), "/x"), Some((name, "", "/x")));
        assert_eq!(found(None, &format!("/{name}x/y")), None);
        for root in ALL[0].info().root_paths {
            assert_eq!(found(None, root), Some((name, "", *root)));
        }
    }

    #[test]
    fn finds_operations_and_the_front_page() {
        assert!(matches!(locate(None, "/-/health"), Located::Operation("health")));
        assert!(matches!(locate(None, "/"), Located::Root));
        assert!(matches!(locate(None, "/api/v3/user"), Located::Rest("/user")));
        assert!(matches!(locate(None, "/api/v3"), Located::Rest("")));
        assert!(matches!(locate(None, "/api/v30"), Located::Nobody));
        assert!(matches!(locate(None, "/nothing"), Located::Nobody));
        assert!(matches!(locate(Some("other"), "/"), Located::Root));
    }

    #[test]
    fn reads_the_label_of_a_host() {
        assert_eq!(own_host("npm.packages.example:8443", "packages.example"), Some("npm"));
        assert_eq!(own_host("NPM.Packages.Example", "packages.example"), Some("NPM"));
        assert_eq!(own_host("packages.example", "packages.example"), None);
        assert_eq!(own_host("npm.evil.example", "packages.example"), None);
    }
}
