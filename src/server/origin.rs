//! Which origin a client used, and which address it has. Pure.
//!
//! Addresses inside documents are built from the origin, so a header that anybody
//! can send must not decide it where the operator has: with `public_url` set, it is
//! that. Forwarding headers count only from trusted peers.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Error, Result, Subject};
use crate::http::{HeaderMap, HeaderName, Uri, header};

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the operator said, and what the connection is.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// `public_url`, without a trailing slash.
    pub public_url: Option<&'a str>,
    /// Base of the ecosystems' own hosts.
    pub hosts: Option<&'a str>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: &'a [IpNet],
    /// The connection's other end.
    pub peer: IpAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// Where the client thinks it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Scheme, host and port, and a proxy's path prefix: `https://packages.example`.
    pub url: Cow<'a, str>,
    /// Host and port as the client named them, for choosing an ecosystem by host.
    pub host: &'a str,
    /// The client's address.
    pub client: IpAddr,
}

/// Works the origin out.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) when there is more than one host or a malformed one.
pub fn origin<'a>(headers: &'a HeaderMap, uri: &'a Uri, setting: &Setting<'a>) -> Result<Origin<'a>> {
    let wrong = || Error::invalid(Subject::Request, "the request's host is missing, doubled or malformed");
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = hosts.next().map(|value| value.to_str().map_err(|_| wrong())).transpose()?;
    if hosts.next().is_some() {
        return Err(wrong());
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    if let (Some(named), Some(authority)) = (named, authority)
        && !named.eq_ignore_ascii_case(authority)
    {
        return Err(wrong());
    }
    let trusted = setting.trusted_proxies.iter().any(|net| net.contains(&setting.peer));
    let forwarded = |name: &HeaderName| {
        let value = trusted.then(|| headers.get(name))??.to_str().ok()?;
        Some(value.split(',').next().unwrap_or_default().trim()).filter(|value| !value.is_empty())
    };
    let host = forwarded(&FORWARDED_HOST).or(authority).or(named).ok_or_else(wrong)?;
    if !is_host(host) {
        return Err(wrong());
    }
    let client = if trusted { client(headers, setting) } else { setting.peer };
    let own = setting.hosts.and_then(|base| super::router::own_host(host, base));
    let url = if let Some(public) = setting.public_url {
        // An ecosystem's own host keeps its name, with the scheme and port of the public address.
        own.map_or(Cow::Borrowed(public), |label| Cow::Owned(with_label(public, label, setting.hosts.unwrap_or_default())))
    } else {
        let secure = forwarded(&FORWARDED_PROTO).map_or(setting.tls, |scheme| scheme.eq_ignore_ascii_case("https"));
        let prefix = forwarded(&FORWARDED_PREFIX).filter(|prefix| is_prefix(prefix)).unwrap_or_default();
        Cow::Owned([if secure { "https://" } else { "http://" }, host, prefix.trim_end_matches('/')].concat())
    };
    Ok(Origin { url, host, client })
}

/// The nearest address that is no trusted proxy.
fn client(headers: &HeaderMap, setting: &Setting<'_>) -> IpAddr {
    let chain = headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    let chain: Vec<IpAddr> = chain.filter_map(|text| text.trim().parse().ok()).collect();
    let untrusted = |address: &&IpAddr| !setting.trusted_proxies.iter().any(|net| net.contains(*address));
    chain.iter().rev().find(untrusted).copied().unwrap_or(setting.peer)
}

fn with_label(public: &str, label: &str, base: &str) -> String {
    let (scheme, rest) = public.split_once("://").unwrap_or(("https", public));
    let port = rest.split('/').next().and_then(|authority| authority.rsplit_once(':')).map(|(_, port)| port);
    let port = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit())).map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{}.{base}{port}", label.to_ascii_lowercase())
}

fn is_host(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) && !text.is_empty()
}

fn is_prefix(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte)) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn find(pairs: &[(&'static str, &'static str)], setting: &Setting<'_>) -> Result<(String, IpAddr)> {
        let (headers, uri) = (headers(pairs), Uri::from_static("/x"));
        origin(&headers, &uri, setting).map(|origin| (origin.url.into_owned(), origin.client))
    }

    fn setting<'a>(public_url: Option<&'a str>, trusted_proxies: &'a [IpNet]) -> Setting<'a> {
        Setting { public_url, hosts: Some("packages.example"), trusted_proxies, peer: "10.0.0.1".parse().unwrap(), tls: false }
    }

    #[test]
    fn the_host_decides_where_nothing_is_set() {
        assert_eq!(find(&[("host", "build:8080")], &setting(None, &[])).unwrap().0, "http://build:8080");
        for wrong in [&[][..], &[("host", "a"), ("host", "b")], &[("host", "a b")], &[("host", "a/b")], &[("host", "")]] {
            assert!(find(wrong, &setting(None, &[])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn forwarding_headers_count_only_from_trusted_peers() {
        let pairs = [
            ("host", "inner:1"),
            ("x-forwarded-host", "outer.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/pkg/"),
            ("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.9"),
        ];
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let found = find(&pairs, &setting(None, &trusted)).unwrap();
        assert_eq!((found.0.as_str(), found.1), ("https://outer.example/pkg", "1.2.3.4".parse().unwrap()));
        let found = find(&pairs, &setting(None, &[])).unwrap();
        assert_eq!((found.0.as_str(), found.1), ("http://inner:1", "10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_public_address_wins_and_own_hosts_keep_their_name() {
        let public = setting(Some("https://packages.example:8443"), &[]);
        assert_eq!(find(&[("host", "evil.example")], &public).unwrap().0, "https://packages.example:8443");
        assert_eq!(find(&[("host", "NPM.packages.example")], &public).unwrap().0, "https://npm.packages.example:8443");
    }

    #[test]
    fn an_absolute_address_must_name_the_same_host() {
        let uri = Uri::from_static("http://other.example/x");
        assert!(origin(&headers(&[("host", "a.example")]), &uri, &setting(None, &[])).is_err());
        let none = headers(&[]);
        assert_eq!(origin(&none, &uri, &setting(None, &[])).unwrap().host, "other.example");
    }
}
