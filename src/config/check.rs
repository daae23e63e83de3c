//! Rules that a type cannot say: addresses, files, and what must go together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use globset::Glob;
use url::Url;

use super::explain::Document;
use super::{Config, Ecosystem};
use crate::error::{Error, Result, Subject};
use crate::upstream::UpstreamConfig;

/// Longest secret, in bytes.
const SECRET_LIMIT_BYTES: usize = 8192;

/// Longest time that a revocation by another process may go unseen.
const CACHE_SECONDS_LIMIT: u64 = 60;

/// Notes every broken rule. `known` are the ecosystems there are; empty for the example, which defines them.
pub(super) fn check(config: &Config, known: &BTreeMap<String, Ecosystem>, document: &mut Document<'_>) {
    let mut note = |path: &str, message: &str| document.note(path, message);
    check_addresses(config, &mut note);
    check_numbers(config, &mut note);
    if tracing_subscriber::EnvFilter::try_new(&config.log.level).is_err() || config.log.level.trim().is_empty() {
        note("log.level", "expected error, warn, info, debug, trace, or a filter such as info,packhouse::upstream=debug");
    }
    check_trust("upstream", config.upstream.proxy_url.as_deref(), &config.upstream.ca_files, &mut note);
    check_trust("webhook", None, &config.webhook.ca_files, &mut note);
    for (name, ecosystem) in &config.ecosystem {
        let path = format!("ecosystem.{name}");
        if !known.is_empty() && !known.contains_key(name) {
            let names: Vec<_> = known.keys().map(String::as_str).collect();
            note(&path, &format!("there is no such ecosystem, expected {}", names.join(", ")));
        }
        let mut seen = BTreeSet::new();
        for (index, upstream) in ecosystem.upstreams().iter().enumerate() {
            let path = format!("{path}.upstream.{index}");
            if !seen.insert(&upstream.name) {
                note(&format!("{path}.name"), "the name is used twice in this ecosystem");
            }
            check_upstream(&path, upstream, &mut note);
        }
    }
}

/// A secret from a file, without the blanks around it.
///
/// # Errors
/// `Invalid` when the file cannot be read, or the secret is blank, too long or holds control characters.
pub fn read_secret(file: &Path) -> Result<String> {
    let wrong = |why: String| Error::invalid(Subject::Config, format!("{}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > SECRET_LIMIT_BYTES as u64 {
        return Err(wrong(format!("a secret has at most {SECRET_LIMIT_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(wrong("the secret is blank".to_owned()));
    }
    if secret.chars().any(char::is_control) {
        return Err(wrong("a secret is one line without control characters".to_owned()));
    }
    Ok(secret.to_owned())
}

fn check_addresses(config: &Config, note: &mut impl FnMut(&str, &str)) {
    if let Some(url) = &config.public_url {
        match web_address(url) {
            Ok(url) if url.path() != "/" => note("public_url", "expected an address without a path, such as https://packages.example"),
            Ok(_) => {}
            Err(why) => note("public_url", why),
        }
    }
    if config.data_dir.as_os_str().is_empty() {
        note("data_dir", "expected a folder");
    }
    let server = &config.server;
    if server.listen.is_empty() && server.tls.listen.is_empty() {
        note("server.listen", "expected at least one address here or in [server.tls]");
    }
    let mut seen = BTreeSet::new();
    for (path, address) in server
        .listen
        .iter()
        .map(|address| ("server.listen", address))
        .chain(server.tls.listen.iter().map(|address| ("server.tls.listen", address)))
    {
        if address.port() != 0 && !seen.insert(address) {
            note(path, &format!("{address} is listed twice"));
        }
    }
    for (key, file) in [("cert_file", &server.tls.cert_file), ("key_file", &server.tls.key_file)] {
        let path = format!("server.tls.{key}");
        match file {
            None if !server.tls.listen.is_empty() => note(&path, "TLS addresses need a certificate and its key"),
            Some(file) => check_file(&path, file, note),
            None => {}
        }
    }
    let host = |text: &str| url::Host::parse(text).is_ok_and(|host| matches!(host, url::Host::Domain(_))) && !text.contains(['/', ':']);
    if server.hosts.as_deref().is_some_and(|text| !host(text)) {
        note("server.hosts", "expected a host name, such as packages.example");
    }
}

/// Numbers of which zero would mean that nothing works.
fn check_numbers(config: &Config, note: &mut impl FnMut(&str, &str)) {
    let (server, upstream, registry) = (&config.server, &config.upstream, &config.registry);
    let positive = [
        ("server.max_connections", server.max_connections as u64),
        ("server.header_limit_bytes", server.header_limit_bytes as u64),
        ("server.header_seconds", server.header_seconds),
        ("server.body_seconds", server.body_seconds),
        ("server.write_seconds", server.write_seconds),
        ("blob.upload_sessions", config.blob.upload_sessions as u64),
        ("blob.upload_sessions_per_user", config.blob.upload_sessions_per_user as u64),
        ("blob.upload_idle_seconds", config.blob.upload_idle_seconds),
        ("identity.cached_callers", config.identity.cached_callers),
        ("identity.session_seconds", config.identity.session_seconds),
        ("identity.tokens_per_user", config.identity.tokens_per_user as u64),
        ("upstream.connect_seconds", upstream.connect_seconds),
        ("upstream.header_seconds", upstream.header_seconds),
        ("upstream.idle_seconds", upstream.idle_seconds),
        ("upstream.document_limit_bytes", upstream.document_limit_bytes),
        ("upstream.artifact_limit_bytes", upstream.artifact_limit_bytes),
        ("upstream.breaker_failures", u64::from(upstream.breaker_failures)),
        ("registry.publish_limit_bytes", registry.publish_limit_bytes),
        ("registry.file_limit_bytes", registry.file_limit_bytes),
        ("registry.large_documents_at_once", registry.large_documents_at_once as u64),
        ("webhook.payload_limit_bytes", config.webhook.payload_limit_bytes as u64),
        ("webhook.answer_seconds", config.webhook.answer_seconds),
        ("webhook.at_once", config.webhook.at_once as u64),
        ("webhook.at_once_per_target", config.webhook.at_once_per_target as u64),
        ("webhook.queue_limit", config.webhook.queue_limit as u64),
        ("store.group_rows", config.store.group_rows as u64),
        ("store.queue_batches", config.store.queue_batches as u64),
        ("blob.lease_seconds", config.blob.lease_seconds),
        ("blob.remove_files_per_second", u64::from(config.blob.remove_files_per_second)),
    ];
    for (path, value) in positive {
        if value == 0 {
            note(path, "expected a number above zero");
        }
    }
    if config.identity.cache_seconds > CACHE_SECONDS_LIMIT {
        note("identity.cache_seconds", "expected at most 60: a revoked token may live on that long");
    }
    if upstream.breaker_pause_limit_seconds < upstream.breaker_pause_seconds {
        note("upstream.breaker_pause_limit_seconds", "expected at least breaker_pause_seconds");
    }
}

fn check_upstream(path: &str, upstream: &UpstreamConfig, note: &mut impl FnMut(&str, &str)) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if upstream.name.is_empty() || upstream.name.len() > 64 || !upstream.name.bytes().all(plain) {
        note(&format!("{path}.name"), "expected 1 to 64 of lower-case letters, digits, '-', '_' and '.'");
    }
    if let Err(why) = web_address(&upstream.url) {
        note(&format!("{path}.url"), why);
    }
    for (key, file) in [("password_file", &upstream.password_file), ("token_file", &upstream.token_file)] {
        if let Some(Err(error)) = file.as_deref().map(read_secret) {
            note(&format!("{path}.{key}"), error.message());
        }
    }
    match (&upstream.username, &upstream.password_file, &upstream.token_file) {
        (None, None, _) | (Some(_), Some(_), None) => {}
        (_, _, Some(_)) => note(&format!("{path}.token_file"), "expected either a token, or a user name with a password"),
        (Some(_), None, None) => note(&format!("{path}.username"), "a user name needs a password_file"),
        (None, Some(_), None) => note(&format!("{path}.password_file"), "a password needs a username"),
    }
    if upstream.username.as_deref().is_some_and(|name| name.trim().is_empty() || name.contains(':') || name.chars().any(char::is_control)) {
        note(&format!("{path}.username"), "expected a user name without ':'");
    }
    let is_host = |text: &str| {
        let (name, port) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        url::Host::parse(name).is_ok() && !name.contains('/') && port.is_none_or(|port| port.parse::<u16>().is_ok())
    };
    for host in
        upstream.hosts.iter().chain(&upstream.token_hosts).filter(|host| !is_host(host) || host.contains(':') || !host.contains('.'))
    {
        let key = if upstream.hosts.contains(host) { "hosts" } else { "token_hosts" };
        note(&format!("{path}.{key}"), &format!("{host:?} is no full host name, expected something like registry.example"));
    }
    for host in upstream.mirrors.iter().filter(|host| !is_host(host)) {
        note(
            &format!("{path}.mirrors"),
            &format!("{host:?} is no host of this server, expected something like mirror.example or mirror:5001"),
        );
    }
    for (key, patterns) in [("include", &upstream.include), ("exclude", &upstream.exclude)] {
        for pattern in patterns {
            if pattern.is_empty() || Glob::new(pattern).is_err() {
                note(&format!("{path}.{key}"), &format!("{pattern:?} is no pattern, expected something like @acme/*"));
            }
        }
    }
    check_trust(path, upstream.proxy_url.as_deref(), &upstream.ca_files, note);
}

fn check_trust(path: &str, proxy_url: Option<&str>, ca_files: &[PathBuf], note: &mut impl FnMut(&str, &str)) {
    let proxy = |text: &str| Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    if proxy_url.is_some_and(|text| !proxy(text)) {
        note(&format!("{path}.proxy_url"), "expected an address such as http://proxy.example:3128");
    }
    for file in ca_files {
        check_file(&format!("{path}.ca_files"), file, note);
    }
}

fn check_file(path: &str, file: &Path, note: &mut impl FnMut(&str, &str)) {
    match std::fs::metadata(file) {
        Ok(found) if found.is_file() && found.len() > 0 => {}
        Ok(_) => note(path, &format!("{} is empty or no file", file.display())),
        Err(error) => note(path, &format!("{}: {error}", file.display())),
    }
}

/// An absolute http or https address without credentials, query or fragment. The answer never repeats
/// the text, which may hold a password.
fn web_address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "expected an address such as https://packages.example")?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err("expected an address that begins with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address holds no credentials; use username and password_file, or token_file");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected an address without '?' and '#'");
    }
    Ok(url)
}
