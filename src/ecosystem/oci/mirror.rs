//! How an upstream is asked for what a repository of its has, and what is looked at in its answers.
//!
//! Source: OCI Distribution Specification 1.1, «Registry Proxying» and «Endpoints».

use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::manifest::{DOCKER_LIST, DOCKER_MANIFEST, LIMIT_BYTES, OCI_INDEX, OCI_MANIFEST, is_object};
use super::referrers::{self, Entry};
use super::route::Reference;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::name::PackageName;

/// Every type of manifest. Some registries say that there is none of a type that was not asked for.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, */*;q=0.1";

/// Most entries that are asked for in one page of a list.
pub const PAGE: usize = 1000;

/// What a token for reading a repository is for, in the words of the token protocol.
#[must_use]
pub fn scope(name: &PackageName) -> String {
    format!("repository:{name}:pull")
}

/// How an upstream is asked for a manifest.
#[must_use]
pub fn manifest(name: &PackageName, reference: &Reference) -> Ask {
    let path = match reference {
        Reference::Tag(tag) => format!("v2/{name}/manifests/{tag}"),
        Reference::Digest(digest) => format!("v2/{name}/manifests/{digest}"),
    };
    Ask { path, accept: MANIFESTS, grows: false }
}

/// Where an upstream has a blob.
#[must_use]
pub fn blob_path(name: &PackageName, digest: &Digest) -> String {
    format!("v2/{name}/blobs/{digest}")
}

/// How an upstream is asked for a page of tags.
#[must_use]
pub fn tags_after(name: &PackageName, limit: usize, last: &str) -> Ask {
    let mut query = Serializer::new(String::new());
    query.append_pair("n", &limit.clamp(1, PAGE).to_string()).extend_pairs((!last.is_empty()).then_some(("last", last)));
    Ask { path: format!("v2/{name}/tags/list?{}", query.finish()), accept: "application/json", grows: false }
}

/// How an upstream is asked what is about a manifest, at first.
#[must_use]
pub fn referrers_of(name: &PackageName, digest: &Digest) -> Ask {
    Ask { path: format!("v2/{name}/referrers/{digest}"), accept: OCI_INDEX, grows: false }
}

/// How an upstream is asked for the rest of a list, by the `Link` of a part of it (RFC 8288). Of that only the query is taken,
/// so that it leads nowhere else; `None` at the end, and for a link to something else.
#[must_use]
pub fn rest_of(part: &Ask, link: Option<&str>) -> Option<Ask> {
    let (target, parameters) = link?.trim_start().strip_prefix('<')?.split_once('>')?;
    if !parameters.split([';', ',']).any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next")) {
        return None;
    }
    let (own, _) = part.path.split_once('?').unwrap_or((&part.path, ""));
    let (path, query) = target.split_once('?')?;
    let same = path.is_empty() || path.strip_suffix(own).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    let query = query.split('#').next().unwrap_or_default();
    (same && !query.is_empty()).then(|| Ask { path: format!("{own}?{query}"), ..part.clone() })
}

/// What an upstream does not let this server have is absent for its clients: some registries say so of what is not there, and
/// a client of a mirror then asks elsewhere.
pub fn absent_if_denied(error: Error, subject: Subject) -> Error {
    if error.kind() == Kind::BadUpstream && error.subject() == Subject::Token {
        return Error::not_found(subject).saying("the upstream does not let this server have it, or does not have it").because(error);
    }
    match error.kind() {
        Kind::NotFound => Error::not_found(subject),
        _ => error,
    }
}

/// What is looked at in a manifest of an upstream.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

fn seen(bytes: &[u8]) -> Result<Seen> {
    let wrong = |what: &'static str| Error::new(Kind::BadUpstream, Subject::Manifest).saying(what);
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(wrong("the upstream's manifest is larger than any client reads"));
    }
    if !is_object(bytes) {
        return Err(wrong("the upstream's manifest is no JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong("the upstream's manifest cannot be read").because(error))
}

/// Refuses what is no manifest, or not the one of this digest.
///
/// # Errors
/// [`Kind::BadUpstream`], with what is wrong.
pub fn check_manifest(reference: &Reference, bytes: &[u8]) -> Result<()> {
    if let Reference::Digest(digest) = reference {
        let mut hasher = Hasher::new(&[digest.algorithm()]);
        hasher.update(bytes);
        if hasher.finish().get(digest.algorithm()) != Some(*digest) {
            return Err(Error::new(Kind::BadUpstream, Subject::Digest).saying("the upstream's manifest is not what its digest says"));
        }
    }
    seen(bytes).map(drop)
}

/// The type of a manifest: what it says itself, else what the upstream said, else what it looks like.
#[must_use]
pub fn media_type(bytes: &[u8], said: Option<&str>) -> String {
    let known = |text: &str| [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].into_iter().find(|known| *known == text);
    let seen = seen(bytes).unwrap_or(Seen { media_type: None, manifests: None, layers: None });
    let looks = if seen.manifests.is_some() && seen.layers.is_none() { OCI_INDEX } else { OCI_MANIFEST };
    let own = seen.media_type.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
    own.unwrap_or_else(|| said.and_then(known).unwrap_or(looks).to_owned())
}

/// The tags in a page of an upstream's list.
///
/// # Errors
/// [`Kind::BadUpstream`] for what is no such list.
pub fn tags(bytes: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct List {
        tags: Option<Vec<String>>,
    }
    let list: List = serde_json::from_slice(bytes)
        .map_err(|error| Error::new(Kind::BadUpstream, Subject::Tag).saying("the upstream's list of tags cannot be read").because(error))?;
    Ok(list.tags.unwrap_or_default())
}

/// The entries of an index of an upstream.
///
/// # Errors
/// [`Kind::BadUpstream`] for what is none. Some servers answer every address with a page.
pub fn entries(bytes: &[u8]) -> Result<Vec<Entry>> {
    referrers::read(bytes).map_err(|error| {
        Error::new(Kind::BadUpstream, Subject::Manifest).saying("the upstream's list of referrers cannot be read").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Tag;

    #[test]
    fn the_rest_of_a_list_is_asked_for_at_the_same_place() {
        let part = tags_after(&PackageName::new("a/b").unwrap(), 2, "");
        let rest = |link: &str| rest_of(&part, Some(link)).map(|ask| ask.path);
        let expected = Some("v2/a/b/tags/list?n=2&last=x%2Fy".to_owned());
        assert_eq!(rest("</v2/a/b/tags/list?n=2&last=x%2Fy>; rel=\"next\""), expected);
        assert_eq!(rest("<https://one.example/base/v2/a/b/tags/list?n=2&last=x%2Fy#z>;rel=next"), expected);
        assert_eq!(rest("<?n=2&last=x%2Fy>; rel=\"next\""), expected);
        for elsewhere in [
            "</v2/other/tags/list?n=2>; rel=\"next\"",
            "</v2/a/b/tags/list?n=2>; rel=\"prev\"",
            "</v2/a/b/tags/list?n=2>",
            "</v2/a/b/tags/list>; rel=\"next\"",
            "</v2/a/b/tags/list?n=2",
            "",
        ] {
            assert_eq!(rest(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(rest_of(&part, None), None);
    }

    #[test]
    fn a_manifest_is_what_its_digest_says_and_has_one_type() {
        let bytes = br#"{"schemaVersion":2,"manifests":[]}"#;
        let (right, wrong) = (Reference::Digest(Digest::sha256(bytes)), Reference::Digest(Digest::sha256(b"other")));
        assert!(check_manifest(&right, bytes).is_ok() && check_manifest(&wrong, bytes).is_err());
        let tag = Reference::Tag(Tag::new("v1").unwrap());
        assert!(check_manifest(&tag, bytes).is_ok());
        for bad in [&b"<html>"[..], b"[]", b"", b"{\"mediaType\":1}", &vec![b' '; (4 << 20) + 1]] {
            assert!(check_manifest(&tag, bad).is_err());
        }
        assert_eq!(media_type(bytes, None), OCI_INDEX);
        assert_eq!(media_type(bytes, Some(DOCKER_LIST)), DOCKER_LIST);
        assert_eq!(media_type(bytes, Some("text/html")), OCI_INDEX);
        assert_eq!(media_type(br#"{"layers":[]}"#, Some("application/json")), OCI_MANIFEST);
        assert_eq!(media_type(format!(r#"{{"mediaType":"{DOCKER_MANIFEST}"}}"#).as_bytes(), Some(OCI_INDEX)), DOCKER_MANIFEST);
    }

    #[test]
    fn lists_of_upstreams_are_read() {
        assert_eq!(tags(br#"{"name":"a","tags":["x","y"]}"#).unwrap(), ["x", "y"]);
        assert!(tags(br#"{"name":"a","tags":null}"#).unwrap().is_empty() && tags(b"{}").unwrap().is_empty());
        assert!(tags(b"<html>").is_err());
        assert!(entries(b"<html>").is_err() && entries(b"{}").is_err());
        assert!(entries(br#"{"schemaVersion":2,"manifests":[]}"#).unwrap().is_empty());
    }
}
