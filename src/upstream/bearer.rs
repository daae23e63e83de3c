//! Bearer tokens that an upstream hands out for one thing at a time.
//!
//! Container registries answer 401 and name a *realm*, where a short-lived token for the
//! repository is to be had, with credentials or without. A token is remembered for the part
//! of the address tree that its scope names, until shortly before it expires. The realm is
//! the upstream's to choose, so that it is believed only so far: it passes the guard like
//! every address, is never plain HTTP where the upstream is not, and gets the configured
//! credentials only inside the upstream's own registrable domain.
//!
//! Source: the token authentication of the distribution project; RFC 6750.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use crate::clock::Timestamp;
use crate::http::HeaderValue;

/// Largest answer of a realm, in bytes.
pub(super) const ANSWER_BYTES: u64 = 1 << 20;
/// Tokens that are remembered of one upstream.
pub(super) const REMEMBERED: u64 = 10_000;
/// What clients assume where a token says nothing of its lifetime, in seconds.
const LIFETIME_SECONDS: u64 = 60;
/// Parts of an address that are looked at for a remembered token.
const PARTS: usize = 12;

/// What an upstream asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) realm: String,
    service: Option<String>,
    scope: Option<String>,
}

/// A token, and until when it is used.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: HeaderValue,
    pub(super) until: Timestamp,
}

/// Reads a `WWW-Authenticate` of the Bearer scheme.
pub(super) fn challenge(value: &HeaderValue) -> Option<Challenge> {
    let text = value.to_str().ok()?;
    let (scheme, rest) = text.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = HashMap::new();
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            // A quoted value may hold commas: a scope of several actions does.
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        parameters.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(Challenge { realm: parameters.remove("realm")?, service: parameters.remove("service"), scope: parameters.remove("scope") })
}

impl Challenge {
    /// Where the token is to be had; `None` where the realm is not to be asked.
    pub(super) fn address(&self, upstream: &Url) -> Option<Url> {
        let mut url = Url::parse(&self.realm).ok()?;
        if upstream.scheme() == "https" && url.scheme() != "https" {
            return None;
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.scope.iter().flat_map(|scopes| scopes.split_ascii_whitespace()) {
                query.append_pair("scope", scope);
            }
        }
        Some(url)
    }

    /// The part of the address tree that the token is for: up to the repository that the scope names.
    pub(super) fn part(&self, path: &str) -> String {
        let named = self.scope.as_deref().and_then(|scope| {
            let (_, rest) = scope.split_once(':')?;
            Some(rest.rsplit_once(':')?.0)
        });
        match named.and_then(|name| path.find(&format!("/{name}/")).map(|at| at + 1 + name.len())) {
            Some(end) => path[..end].to_owned(),
            None => path.to_owned(),
        }
    }
}

/// The parts of the address tree that a path lies in, the innermost first.
pub(super) fn parts(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let part = rest?;
        rest = part.rfind('/').filter(|at| *at > 0).map(|at| &part[..at]);
        Some(part)
    })
    .take(PARTS)
}

/// Whether a realm may get the credentials of an upstream.
pub(super) fn trusts(upstream: &Url, realm: &Url) -> bool {
    match (upstream.host(), realm.host()) {
        (Some(Host::Domain(one)), Some(Host::Domain(two))) => {
            let domain = |host: &str| psl::domain_str(host).map(str::to_ascii_lowercase);
            one.eq_ignore_ascii_case(two) || domain(one).is_some_and(|own| domain(two) == Some(own))
        }
        (one, two) => one == two,
    }
}

/// Reads a realm's answer.
pub(super) fn token(body: &[u8], now: Timestamp) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let text = answer.token.filter(|text| !text.is_empty()).or(answer.access_token)?;
    let mut value = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
    value.set_sensitive(true);
    let lifetime = answer.expires_in.unwrap_or(LIFETIME_SECONDS).clamp(1, 86_400);
    // A tenth is kept back: the request that carries it takes time too.
    Some(Token { value, until: now.plus(Duration::from_secs(lifetime - lifetime / 10)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Challenge> {
        challenge(&HeaderValue::try_from(text).unwrap())
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn reads_challenges_with_commas_in_them() {
        let read =
            read(r#"Bearer realm="https://auth.example/token",service="registry.example", scope="repository:a/b:pull,push""#).unwrap();
        let address = read.address(&url("https://registry.example/")).unwrap();
        assert_eq!(address.as_str(), "https://auth.example/token?service=registry.example&scope=repository%3Aa%2Fb%3Apull%2Cpush");
        assert_eq!(read.part("/v2/a/b/manifests/latest"), "/v2/a/b");
        assert_eq!(read.part("/v2/other/manifests/latest"), "/v2/other/manifests/latest");
        assert_eq!(tests::read("bearer realm=https://a/t,service=x").unwrap().service.as_deref(), Some("x"));
        for wrong in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", "Bearer x"] {
            assert_eq!(tests::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_realm_is_believed_only_so_far() {
        let plain = read(r#"Bearer realm="http://auth.example/token""#).unwrap();
        assert_eq!(plain.address(&url("https://registry.example/")), None);
        assert!(plain.address(&url("http://registry.example/")).is_some());
        for (upstream, realm, trusted) in [
            ("https://registry-1.example.io/", "https://auth.example.io/token", true),
            ("https://registry.example/", "https://registry.example:5001/token", true),
            ("https://a.co.uk/", "https://evil.co.uk/token", false),
            ("https://registry.example/", "https://auth.evil/token", false),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token", true),
            ("http://127.0.0.1:5000/", "http://127.0.0.2:5000/token", false),
            ("http://localhost:5000/", "http://localhost:5001/token", true),
            ("http://one/", "http://two/token", false),
        ] {
            assert_eq!(trusts(&url(upstream), &url(realm)), trusted, "{upstream} {realm}");
        }
    }

    #[test]
    fn tokens_are_kept_back_from_their_last_moments() {
        let now = Timestamp::from_millis(1_000_000);
        let until = |body: &str| token(body.as_bytes(), now).map(|token| token.until.as_millis() - 1_000_000);
        assert_eq!(until(r#"{"token":"a","expires_in":300}"#), Some(270_000));
        assert_eq!(until(r#"{"access_token":"a"}"#), Some(54_000));
        for wrong in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "[]"] {
            assert_eq!(until(wrong), None, "{wrong}");
        }
        assert_eq!(parts("/v2/a/b/blobs/x").collect::<Vec<_>>(), ["/v2/a/b/blobs/x", "/v2/a/b/blobs", "/v2/a/b", "/v2/a", "/v2"]);
    }
}
