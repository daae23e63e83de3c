//! What an upstream has, asked for by the upstream's own names.
//!
//! A client says which upstream it means in one of three ways: by the first part of the name
//! (`HOST/NAME`), by naming its host besides, or by asking a host of ours that is that upstream's
//! mirror. A host is only ever looked up among those that are configured and never dialled.
//! Nothing is looked for elsewhere then, and no index speaks for a file: its name is its digest.
//! Rights, freshness, proof and keeping are the same as for everything else from an upstream.

use std::sync::Arc;

use bytes::Bytes;

use super::{Artifact, Registry};
use crate::access::{self, Action, Grant};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::identity::Caller;
use crate::name::PackageName;
use crate::upstream::artifact::Wanted;
use crate::upstream::{Check, Entry, Manner, Need, Upstream, Verdict};

/// Tries to get hold of a document that an eviction takes between its fetch and its reading.
const EVICTED_TRIES: usize = 4;

/// A document of an upstream.
pub struct Relayed {
    /// What is known of it.
    pub entry: Arc<Entry>,
    /// Its bytes.
    pub bytes: Bytes,
    /// How it was come by.
    pub verdict: Verdict,
}

/// A file of an upstream, by its digest.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The upstream.
    pub upstream: &'a Arc<Upstream>,
    /// Its path below the upstream's address, escaped, without a leading slash.
    pub path: &'a str,
    /// Its digest.
    pub digest: &'a Digest,
    /// What a token for it is for.
    pub scope: &'a Arc<str>,
}

/// What a request says of where a name leads.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The host that was asked, with its port.
    pub host: &'a str,
    /// The host of our own address.
    pub own: &'a str,
    /// The host that the client names besides.
    pub namespace: Option<&'a str>,
}

/// A name of an upstream.
#[derive(Clone)]
pub struct Mirrored {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Its name there.
    pub name: PackageName,
    /// Its name here: the upstream's host and its name there.
    pub known_as: PackageName,
}

/// Where a name leads.
#[derive(Clone)]
pub enum Source {
    /// To what is hosted here.
    Here,
    /// To an upstream.
    Upstream(Mirrored),
    /// Nowhere: the upstream that is meant is none of ours, or is not asked for such a name.
    Nowhere,
}

impl Mirrored {
    /// The host that clients know the upstream by.
    #[must_use]
    pub fn host(&self) -> &str {
        host(&self.upstream)
    }
}

fn host(upstream: &Upstream) -> &str {
    upstream.hosts().first().map_or(upstream.name(), String::as_str)
}

/// Finds where a name leads. `parse` checks a name as the ecosystem does.
///
/// # Errors
/// Those of `parse`.
pub fn locate(
    upstreams: &[Arc<Upstream>],
    asking: Asking<'_>,
    name: &PackageName,
    parse: impl Fn(&str) -> Result<PackageName>,
) -> Result<Source> {
    let known = |host: &str| upstreams.iter().find(|upstream| upstream.hosts().iter().any(|known| known.eq_ignore_ascii_case(host)));
    let at = |upstream: &Arc<Upstream>, name: &str| {
        let name = match upstream.namespace() {
            Some(namespace) if !name.contains('/') => parse(&format!("{namespace}/{name}"))?,
            _ => parse(name)?,
        };
        if !upstream.serves(&name) {
            return Ok(Source::Nowhere);
        }
        let known_as = PackageName::new(&format!("{}/{name}", host(upstream))).map_err(|rule| Error::invalid(Subject::Package, rule.0))?;
        Ok(Source::Upstream(Mirrored { upstream: Arc::clone(upstream), name, known_as }))
    };
    if let Some(upstream) = upstreams.iter().find(|upstream| upstream.is_mirrored_at(asking.host)) {
        return at(upstream, name.as_str());
    }
    let is_ours = |host: &&str| host.eq_ignore_ascii_case(asking.host) || host.eq_ignore_ascii_case(asking.own);
    if let Some(host) = asking.namespace.filter(|host| !is_ours(host)) {
        return known(host).map_or(Ok(Source::Nowhere), |upstream| at(upstream, name.as_str()));
    }
    match name.as_str().split_once('/').and_then(|(host, rest)| Some((known(host)?, rest))) {
        Some((upstream, rest)) => at(upstream, rest),
        None => Ok(Source::Here),
    }
}

impl Registry {
    /// The right to read what an upstream has under a name.
    ///
    /// # Errors
    /// As `access` decides.
    pub fn grant_relayed(&self, ecosystem: &'static str, caller: &Caller, name: &PackageName) -> Result<Grant> {
        access::grant_upstream(caller, ecosystem, name, Action::Read, self.access.anonymous_proxy)
    }

    /// A document of an upstream; `None` when it has none.
    ///
    /// # Errors
    /// An upstream's failures, when nothing usable is kept.
    pub async fn relayed(
        &self,
        _grant: &Grant,
        upstream: &Arc<Upstream>,
        ask: &Ask,
        need: Need,
        (check, manner): (&Check, &Manner),
    ) -> Result<Option<Relayed>> {
        for _ in 0..EVICTED_TRIES {
            let fetched = self.fetcher.document_by(upstream, ask, need, check, manner).await?;
            let Some(body) = &fetched.entry.body else { return Ok(None) };
            match self.fetcher.body(body).await {
                Ok(bytes) => return Ok(Some(Relayed { entry: fetched.entry, bytes, verdict: fetched.verdict })),
                Err(error) if error.kind() == Kind::NotFound => self.fetcher.forget(upstream, ask),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Unavailable, Subject::Blob).saying("the document is evicted faster than it is fetched; try again"))
    }

    /// A file of an upstream, from the cache or arriving.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the upstream does not have it, and its failures.
    pub async fn relayed_file(&self, grant: &Grant, place: Place<'_>) -> Result<Artifact> {
        let wanted = wanted(grant, place)?;
        if let Some(artifact) = self.kept_artifact(grant, place.upstream, &wanted.file).await? {
            return Ok(artifact);
        }
        Box::pin(self.obtain(place.upstream, &wanted)).await
    }

    /// As [`Registry::relayed_file`], for who only asks whether it is there: nothing is fetched, and what is not kept comes
    /// back as its length, where the upstream says that.
    ///
    /// # Errors
    /// As [`Registry::relayed_file`].
    pub async fn look_at_relayed(&self, grant: &Grant, place: Place<'_>) -> Result<std::result::Result<Artifact, u64>> {
        let wanted = wanted(grant, place)?;
        if let Some(artifact) = self.kept_artifact(grant, place.upstream, &wanted.file).await? {
            return Ok(Ok(artifact));
        }
        match Box::pin(self.fetcher.size(place.upstream, &wanted)).await? {
            Some(size) => Ok(Err(size)),
            None => Box::pin(self.obtain(place.upstream, &wanted)).await.map(Ok),
        }
    }
}

fn wanted(grant: &Grant, place: Place<'_>) -> Result<Wanted> {
    let url = place.upstream.address(place.path)?;
    let (name, file, scope) = (grant.name().clone(), place.digest.to_string(), Some(Arc::clone(place.scope)));
    Ok(Wanted { name, file, url, promised: vec![*place.digest], inspection: None, scope })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::upstream::UpstreamConfig;
    use crate::upstream::config::{Config, Credentials, ProxyEnvironment};

    fn upstream(url: &str, hosts: &[&str], mirrors: &[&str], namespace: Option<&str>) -> Arc<Upstream> {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let own = UpstreamConfig {
            name: "own".to_owned(),
            url: url.to_owned(),
            username: None,
            password_file: None,
            token_file: None,
            fresh_seconds: None,
            include: Vec::new(),
            exclude: vec!["secret/*".to_owned()],
            hosts: list(hosts),
            mirrors: list(mirrors),
            namespace: namespace.map(str::to_owned),
            token_hosts: Vec::new(),
            proxy_url: None,
            ca_files: Vec::new(),
        };
        let upstream = Upstream::new(&own, &Config::default(), Credentials::default(), &ProxyEnvironment::default(), Clock::system());
        Arc::new(upstream.unwrap())
    }

    #[test]
    fn each_way_to_say_which_upstream_is_meant() {
        let hosts = ["hub.example", "index.hub.example"];
        let hub = upstream("https://api.hub.example/", &hosts, &["mirror.test", "127.0.0.1:5001"], Some("library"));
        let one = upstream("https://one.example:8443/base", &[], &[], None);
        let bare = upstream("http://bare:5000/", &[], &[], None);
        let all = [hub, one, bare];
        let parse = |text: &str| PackageName::new(text).map_err(|rule| Error::invalid(Subject::Package, rule.0));
        let check = |host: &str, namespace: Option<&str>, name: &str, expected: &str| {
            let asking = Asking { host, own: "own.test:8080", namespace };
            let found = match locate(&all, asking, &parse(name).unwrap(), parse).unwrap() {
                Source::Here => "here".to_owned(),
                Source::Nowhere => "nowhere".to_owned(),
                Source::Upstream(mirrored) => {
                    assert_eq!(format!("{}/{}", mirrored.host(), mirrored.name), mirrored.known_as.as_str());
                    mirrored.known_as.to_string()
                }
            };
            assert_eq!(found, expected, "{host} {namespace:?} {name}");
        };
        check("h", None, "hub.example/nginx", "hub.example/library/nginx");
        check("h", None, "hub.example/library/nginx", "hub.example/library/nginx");
        check("h", None, "index.hub.example/acme/app", "hub.example/acme/app");
        check("h", None, "api.hub.example/acme/app", "hub.example/acme/app");
        check("h", None, "one.example/a/b/c", "one.example/a/b/c");
        check("h", None, "one.example/a", "one.example/a");
        check("h", None, "alice/app", "here");
        check("h", None, "other.example/app", "here");
        check("h", None, "bare/app", "here");
        check("h", None, "one.example", "here");
        check("h", None, "one.example/secret/app", "nowhere");
        check("h", Some("hub.example"), "nginx", "hub.example/library/nginx");
        check("h", Some("HUB.example"), "acme/app", "hub.example/acme/app");
        check("h", Some("one.example"), "alice/app", "one.example/alice/app");
        check("h", Some("evil.example"), "acme/app", "nowhere");
        check("h", Some("http://one.example/x"), "acme/app", "nowhere");
        check("h", Some(""), "acme/app", "nowhere");
        check("h", Some("h"), "alice/app", "here");
        check("h", Some("own.test:8080"), "alice/app", "here");
        check("mirror.test", None, "nginx", "hub.example/library/nginx");
        check("Mirror.test:8080", None, "acme/app", "hub.example/acme/app");
        check("127.0.0.1:5001", None, "one.example/a", "hub.example/one.example/a");
        check("127.0.0.1:5001", Some("one.example"), "a", "hub.example/library/a");
        check("127.0.0.1:5002", None, "alice/app", "here");
        let refuse = |_: &str| Err(Error::invalid(Subject::Package, "too long"));
        let asking = Asking { host: "h", own: "h", namespace: None };
        assert!(locate(&all, asking, &parse("hub.example/x").unwrap(), refuse).is_err());
    }
}
