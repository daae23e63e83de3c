//! Bearer tokens of registries that hand them out by scope.
//!
//! Such a registry refuses a request with a challenge that says where a token is had, for
//! which service and for what. The token is kept for the time it is given, by what it is
//! for; many requests that want the same ask for it once. Credentials go only to a token
//! service of the registry's own domain: a registry that was broken into names another
//! one. Sources: RFC 9110 11.6.1, RFC 6750, and the «Token Authentication Specification»
//! of the distribution project.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use url::Url;

use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderValue, header};

/// Largest answer of a token service, in bytes.
pub(super) const ANSWER_BYTES: u64 = 1 << 20;
/// Longest token, in bytes: it goes into a header.
const TOKEN_BYTES: usize = 32 << 10;
/// How long a token holds whose answer does not say.
const USUAL_SECONDS: u64 = 60;
/// The longest that a token is kept, whatever its answer says.
const LIMIT_SECONDS: u64 = 12 * 3600;
/// A token is given up so long before its end, at most: a request may be on the way for a while.
const MARGIN: Duration = Duration::from_secs(15);
/// Scopes whose tokens are remembered, of one upstream.
const TOKENS: u64 = 10_000;

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a user name and a password.
    Basic,
    /// With a token.
    Bearer {
        /// Where it is had.
        realm: Url,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first challenge that can be answered.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(challenges).find_map(|(scheme, parameters)| {
            let parameter = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
            match scheme {
                _ if scheme.eq_ignore_ascii_case("basic") => Some(Self::Basic),
                _ if scheme.eq_ignore_ascii_case("bearer") => {
                    let realm = Url::parse(&parameter("realm")?).ok()?;
                    Some(Self::Bearer { realm, service: parameter("service"), scope: parameter("scope") })
                }
                _ => None,
            }
        })
    }
}

/// `SCHEME key=value, key="value", SCHEME …`, as schemes with their parameters.
fn challenges(text: &str) -> Vec<(&str, Vec<(&str, String)>)> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    let mut rest = text.trim_start_matches([',', ' ']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = parameter(value.trim_start());
            match found.last_mut() {
                Some((_, parameters)) => parameters.push((word, value)),
                // A parameter of no scheme.
                None => return found,
            }
            rest = after;
        } else {
            found.push((word, Vec::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([',', ' ']);
    }
    found
}

/// A value, quoted or not, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// Whether a token service at `realm` belongs to the registry at `base`, so that it may be sent the registry's credentials:
/// by the same host, by its domain, or because the operator names it in `known`.
pub(super) fn is_of(base: &Url, realm: &Url, known: &[String]) -> bool {
    let (Some(registry), Some(service)) = (base.host_str(), realm.host_str()) else { return false };
    let secure = realm.scheme() == "https" || base.scheme() == "http";
    if known.iter().any(|host| host.eq_ignore_ascii_case(service)) {
        return secure;
    }
    if registry == service {
        // Of an address without a name the port is all that tells services apart.
        let is_name = matches!(base.host(), Some(url::Host::Domain(_)));
        return secure && (is_name || realm.port_or_known_default() == base.port_or_known_default());
    }
    let domain = registry.split_once('.').map_or("", |(_, domain)| domain);
    let is_in_domain = service == domain || service.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    secure && matches!(base.host(), Some(url::Host::Domain(_))) && is_one_owners(domain) && is_in_domain
}

/// Whether a domain is most likely one owner's, and not one like `co.uk` under which everybody has a name.
fn is_one_owners(domain: &str) -> bool {
    let mut labels = domain.rsplit('.');
    let (Some(_), Some(second)) = (labels.next(), labels.next()) else { return false };
    labels.next().is_some() || second.len() > 3
}

/// A token in the form in which it is sent.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) value: HeaderValue,
    lifetime: Duration,
}

#[derive(Deserialize)]
struct Answered {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Token {
    /// Reads what a token service answered.
    pub(super) fn read(answer: &[u8]) -> Result<Self> {
        let wrong = || Error::new(Kind::BadUpstream, Subject::Upstream).saying("the upstream's token service gave no token");
        let answered: Answered = serde_json::from_slice(answer).map_err(|_| wrong())?;
        let token = answered.token.filter(|text| !text.is_empty()).or(answered.access_token).ok_or_else(wrong)?;
        if token.is_empty() || token.len() > TOKEN_BYTES {
            return Err(wrong());
        }
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| wrong())?;
        value.set_sensitive(true);
        let given = Duration::from_secs(answered.expires_in.unwrap_or(USUAL_SECONDS).clamp(1, LIMIT_SECONDS));
        Ok(Self { value, lifetime: given.saturating_sub(MARGIN.min(given / 4)) })
    }
}

/// The tokens of one upstream, by what they are for.
pub(super) struct Tokens(moka::future::Cache<String, Arc<Token>>);

struct Lifetime;

impl moka::Expiry<String, Arc<Token>> for Lifetime {
    fn expire_after_create(&self, _: &String, token: &Arc<Token>, _: Instant) -> Option<Duration> {
        Some(token.lifetime)
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self(moka::future::Cache::builder().max_capacity(TOKENS).expire_after(Lifetime).build())
    }
}

impl Tokens {
    /// The token for something, if there is one that holds.
    pub(super) async fn get(&self, scope: &str) -> Option<Arc<Token>> {
        self.0.get(scope).await
    }

    /// As [`Tokens::get`], fetching one if there is none: once for all who want it.
    pub(super) async fn get_or(&self, scope: &str, fetch: impl Future<Output = Result<Token>>) -> Result<Arc<Token>> {
        let fetched = self.0.try_get_with(scope.to_owned(), async { fetch.await.map(Arc::new) }).await;
        fetched.map_err(|error| error.repeat())
    }

    /// Forgets a token that was refused, unless there is a newer one.
    pub(super) async fn refused(&self, scope: &str, token: &Arc<Token>) {
        if self.0.get(scope).await.is_some_and(|known| Arc::ptr_eq(&known, token)) {
            self.0.invalidate(scope).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Challenge::read(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: Url::parse(realm).unwrap(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_in_every_form() {
        let whole = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(read(&[whole]), Some(bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull,push"))));
        assert_eq!(read(&[r#"bearer  realm = "https://h/t" , service=x"#]), Some(bearer("https://h/t", Some("x"), None)));
        assert_eq!(read(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(read(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(read(&[r#"Negotiate, Bearer realm="https://h/t""#]), Some(bearer("https://h/t", None, None)));
        assert_eq!(read(&["Negotiate", "Basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(read(&[r#"Bearer realm="https://h/\"q\"",error="x""#]), Some(bearer("https://h/\"q\"", None, None)));
        for nothing in ["", "Bearer", "Bearer realm=\"no address\"", "Digest realm=x", "realm=\"https://h\"", "Bearer realm=\"", "=", ","] {
            assert_eq!(read(&[nothing]), None, "{nothing}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn credentials_go_to_the_registrys_own_token_service() {
        let check = |base: &str, realm: &str, expected| {
            let (base, realm) = (Url::parse(base).unwrap(), Url::parse(realm).unwrap());
            assert_eq!(is_of(&base, &realm, &["tokens.other.example".to_owned()]), expected, "{base} {realm}");
        };
        check("https://registry-1.example.io/", "https://auth.example.io/token", true);
        check("https://example.io/", "https://example.io/token", true);
        check("https://example.io/", "https://example.io:8443/token", true);
        check("https://registry.example.com/", "https://example.com/jwt/auth", true);
        check("https://registry.example.io/", "https://a.b.example.io/", true);
        check("https://registry.example.io/", "https://evil.io/token", false);
        check("https://registry.example.io/", "https://evilexample.io/token", false);
        check("https://registry.example.io/", "http://auth.example.io/token", false);
        check("https://registry.co.uk/", "https://evil.co.uk/token", false);
        check("https://registry.firm.co.uk/", "https://auth.firm.co.uk/token", true);
        check("https://example.io/", "https://io/token", false);
        check("https://registry/", "https://other/", false);
        check("https://registry.example.io/", "https://tokens.other.example/", true);
        check("http://127.0.0.1:5000/", "http://127.0.0.1:5000/token", true);
        check("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token", false);
        check("http://10.0.0.1:5000/", "http://11.0.0.1:5000/", false);
    }

    #[test]
    fn tokens_hold_for_the_time_they_are_given() {
        let read =
            |text: &str| Token::read(text.as_bytes()).map(|token| (token.value.to_str().unwrap().to_owned(), token.lifetime.as_secs()));
        assert_eq!(read(r#"{"token":"a","expires_in":300}"#).unwrap(), ("Bearer a".to_owned(), 285));
        assert_eq!(read(r#"{"access_token":"b"}"#).unwrap(), ("Bearer b".to_owned(), 45));
        assert_eq!(read(r#"{"token":"","access_token":"b","expires_in":8}"#).unwrap().1, 6);
        assert_eq!(read(r#"{"token":"a","expires_in":99999999999}"#).unwrap().1, LIMIT_SECONDS - 15);
        for wrong in ["", "{}", r#"{"token":1}"#, r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "<html>", r#"{"token":"a","expires_in":-1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(Token::read(format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN_BYTES + 1)).as_bytes()).is_err());
    }

    #[tokio::test]
    async fn one_fetch_for_many_and_a_refused_token_is_forgotten() {
        let tokens = Arc::new(Tokens::default());
        let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let fetch = |count: Arc<std::sync::atomic::AtomicU32>| async move {
            tokio::task::yield_now().await;
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Token::read(br#"{"token":"a","expires_in":300}"#)
        };
        let callers = (0..20).map(|_| {
            let (tokens, count) = (Arc::clone(&tokens), Arc::clone(&count));
            tokio::spawn(async move { tokens.get_or("x", fetch(count)).await.unwrap() })
        });
        let all = futures_util::future::join_all(callers).await;
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
        let first = Arc::clone(all[0].as_ref().unwrap());
        tokens.refused("x", &first).await;
        assert!(tokens.get("x").await.is_none());
        let second = tokens.get_or("x", fetch(Arc::clone(&count))).await.unwrap();
        tokens.refused("x", &first).await;
        assert!(Arc::ptr_eq(&tokens.get("x").await.unwrap(), &second), "a newer one stays");
    }
}
