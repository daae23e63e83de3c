//! The guard against private addresses.
//!
//! A redirect, a tarball address inside a document or a name that resolves anew
//! must not turn this server into a client of its own network. Every outgoing
//! request, to an upstream or a webhook target, passes here: literal addresses
//! before the request, resolved ones inside the resolver that the HTTP client uses,
//! so that what was checked is what is dialled. One forbidden address among a
//! name's answers forbids the name.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::error::{Error, Result, Subject};

/// Decides which addresses may be dialled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    allowed: Vec<IpNet>,
    /// Forward proxies from the configuration: the operator chose to dial these.
    trusted_hosts: HashSet<String>,
}

impl Guard {
    /// A guard that lets public addresses pass, those inside `allowed`, and the named hosts.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, trusted_hosts: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(Rules { allowed, trusted_hosts: trusted_hosts.into_iter().collect() }))
    }

    /// Whether an address may be dialled.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let inside = |address: IpAddr| self.0.allowed.iter().any(|net| net.contains(&address));
        inside(address) || inside(address.to_canonical()) || is_public(address)
    }

    /// Refuses an address that is not HTTP, carries credentials, or is a literal this guard forbids.
    ///
    /// # Errors
    /// [`Kind::BadUpstream`](crate::error::Kind::BadUpstream).
    pub fn check(&self, url: &Url) -> Result<()> {
        let refuse = |why: &'static str| Err(Error::new(crate::error::Kind::BadUpstream, Subject::Upstream).saying(why));
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("the address is neither http nor https");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("the address carries credentials");
        }
        let address = match url.host() {
            None => return refuse("the address has no host"),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
        };
        if self.allows(address) { Ok(()) } else { refuse("the address is not public") }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let trusted = guard.0.trusted_hosts.contains(&host);
            if !trusted && let Some(forbidden) = found.iter().find(|address| !guard.allows(address.ip())) {
                return Err(format!("{host} resolves to {}, which is not public", forbidden.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is outside every private, local or otherwise internal network.
/// Sources: the IANA special-purpose address registries (RFC 6890 and its successors).
/// The ranges for documentation are let through: they lead into nobody's network, and
/// closed networks use them for what they pass on from outside.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    match segments {
        // NAT64 and 6to4 lead to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // IPv4-compatible, unspecified and loopback; local NAT64; Teredo, which hides an IPv4 address.
        [0, 0, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => false,
        // Only 2000::/3 is handed out for global use.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_not_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn checks_addresses_before_they_are_used() {
        let guard = Guard::new(vec!["10.0.0.0/8".parse().unwrap()], []);
        let check = |url: &str| guard.check(&Url::parse(url).unwrap()).is_ok();
        for good in ["https://example.com/x", "http://10.1.2.3:80/", "https://[2606:4700::1]/"] {
            assert!(check(good), "{good}");
        }
        for wrong in [
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://user:pw@example.com/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
    }
}
