//! Request paths of the distribution specification, as typed requests.
//!
//! A repository's name has as many components as its owner likes, and a component may
//! be called `blobs`, `tags` or `manifests`. So a path is read from its end, where the
//! words of the protocol stand. Source: OCI Distribution Specification 1.1, «Endpoints».

use std::borrow::Cow;

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Method, path};
use crate::name::{OwnerName, PackageName, Tag};

/// Longest name of a repository, in bytes. Many clients stop at this for host and name together.
const NAME_BYTES: usize = 255;
/// Longest tag, in bytes.
const TAG_BYTES: usize = 128;

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Its tag.
    Tag(Tag),
    /// Its digest.
    Digest(Digest),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the path's own parts")]
pub enum Route {
    /// `/v2/`: whether this is a registry, and whether the credentials hold.
    Base,
    /// `/v2/token`: the token service.
    Token,
    /// `/v2/_catalog`: the repositories.
    Catalog,
    /// `/v2/NAME/blobs/DIGEST`.
    Blob { name: PackageName, digest: Digest },
    /// `/v2/NAME/manifests/REFERENCE`.
    Manifest { name: PackageName, reference: Reference },
    /// `/v2/NAME/tags/list`.
    Tags { name: PackageName },
    /// `/v2/NAME/referrers/DIGEST`.
    Referrers { name: PackageName, digest: Digest },
    /// `/v2/NAME/blobs/uploads/`: opens an upload.
    Uploads { name: PackageName },
    /// `/v2/NAME/blobs/uploads/ID`: an upload that is under way.
    Upload { name: PackageName, id: String },
}

impl Route {
    /// The methods that it answers.
    #[must_use]
    pub const fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => "GET, HEAD",
            Self::Token => "GET, POST",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
            Self::Uploads { .. } => "POST",
            Self::Upload { .. } => "GET, PATCH, PUT, DELETE",
        }
    }

    /// The repository it is about.
    #[must_use]
    pub const fn name(&self) -> Option<&PackageName> {
        match self {
            Self::Base | Self::Token | Self::Catalog => None,
            Self::Blob { name, .. }
            | Self::Manifest { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. }
            | Self::Uploads { name }
            | Self::Upload { name, .. } => Some(name),
        }
    }
}

/// Reads the path below the mount, and holds the method against it.
///
/// # Errors
/// [`Kind::NotFound`] for what is no route, [`Kind::Invalid`] for a malformed name, tag or digest,
/// [`Kind::MethodNotAllowed`] for a method that the route does not answer.
pub fn parse(method: &Method, raw: &str) -> Result<Route> {
    let route = locate(raw)?;
    if route.methods().split(", ").any(|known| known == method.as_str()) {
        return Ok(route);
    }
    Err(Error::new(Kind::MethodNotAllowed, Subject::Route).saying("the operation is unsupported"))
}

/// Reads the path below the mount, whatever the method.
///
/// # Errors
/// As [`parse`].
pub fn locate(raw: &str) -> Result<Route> {
    let path = decoded(raw)?;
    let path = path.strip_prefix('/').unwrap_or(&path);
    match path {
        "" => return Ok(Route::Base),
        "token" => return Ok(Route::Token),
        "_catalog" => return Ok(Route::Catalog),
        _ => {}
    }
    let absent = || Error::not_found(Subject::Route);
    let (rest, last) = path.rsplit_once('/').ok_or_else(absent)?;
    let (before, word) = rest.rsplit_once('/').ok_or_else(absent)?;
    if let Some(name) = before.strip_suffix("/blobs")
        && word == "uploads"
    {
        let name = parse_name(name)?;
        return Ok(if last.is_empty() { Route::Uploads { name } } else { Route::Upload { name, id: last.to_owned() } });
    }
    let found = match (word, last) {
        ("blobs", "uploads") => Route::Uploads { name: parse_name(before)? },
        ("blobs", digest) => Route::Blob { name: parse_name(before)?, digest: parse_digest(digest)? },
        ("manifests", reference) => Route::Manifest { name: parse_name(before)?, reference: parse_reference(reference)? },
        ("tags", "list") => Route::Tags { name: parse_name(before)? },
        ("referrers", digest) => Route::Referrers { name: parse_name(before)?, digest: parse_digest(digest)? },
        _ => return Err(absent()),
    };
    Ok(found)
}

/// The path, decoded once if it has to be.
fn decoded(raw: &str) -> Result<Cow<'_, str>> {
    let malformed = |_| Error::invalid(Subject::Package, "the path is malformed");
    if raw.len() <= path::LONGEST_BYTES && !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let segments = path::segments(raw).map_err(malformed)?;
    Ok(Cow::Owned(segments.join("/")))
}

/// A repository's name: components of lower-case letters and digits, joined inside by `.`, `_`, `__` or
/// dashes, and to each other by `/`.
///
/// # Errors
/// [`Kind::Invalid`] of a package.
pub fn parse_name(text: &str) -> Result<PackageName> {
    let wrong = || Error::invalid(Subject::Package, "a repository name is made of lower-case letters, digits, '.', '_', '-' and '/'");
    if text.len() > NAME_BYTES || !text.split('/').all(is_component) {
        return Err(wrong());
    }
    PackageName::new(text).map_err(|_| wrong())
}

fn is_component(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    // What stands between letters and digits is a separator as a whole.
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|run| !run.is_empty());
    edges && separators.into_iter().all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

/// The account whose a hosted repository is: the first component of its name.
///
/// # Errors
/// [`Kind::Invalid`] of a package when the name has one component, or begins with none that an account can have.
pub fn owner(name: &PackageName) -> Result<OwnerName> {
    let wrong = || Error::invalid(Subject::Package, "a repository is called OWNER/IMAGE, where OWNER is a user or an organisation");
    let (owner, _) = name.as_str().split_once('/').ok_or_else(wrong)?;
    OwnerName::new(owner).map_err(|_| wrong())
}

/// A digest of an algorithm that the specification registers and that is computed here.
///
/// # Errors
/// [`Kind::Invalid`] of a digest.
pub fn parse_digest(text: &str) -> Result<Digest> {
    let digest = text.parse::<Digest>().ok().filter(|digest| matches!(digest.algorithm(), Algorithm::Sha256 | Algorithm::Sha512));
    digest.ok_or_else(|| Error::invalid(Subject::Digest, "a digest is sha256: or sha512: with as many lower-case hexadecimal digits"))
}

/// A tag.
///
/// # Errors
/// [`Kind::Invalid`] of a tag.
pub fn parse_tag(text: &str) -> Result<Tag> {
    let wrong =
        || Error::invalid(Subject::Tag, "a tag has 1 to 128 letters, digits, '_', '.' and '-', and begins with none of the last two");
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let fits = bytes.len() <= TAG_BYTES
        && bytes.first().is_some_and(|first| word(*first))
        && bytes.iter().all(|byte| word(*byte) || b".-".contains(byte));
    if !fits {
        return Err(wrong());
    }
    Tag::new(text).map_err(|_| wrong())
}

/// A tag or a digest. No tag holds a colon.
///
/// # Errors
/// As [`parse_tag`] and [`parse_digest`].
pub fn parse_reference(text: &str) -> Result<Reference> {
    if text.contains(':') { parse_digest(text).map(Reference::Digest) } else { parse_tag(text).map(Reference::Tag) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn name(text: &str) -> PackageName {
        PackageName::new(text).unwrap()
    }

    fn found(path: &str) -> Route {
        locate(path).unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    #[test]
    fn every_endpoint_is_found() {
        let digest: Digest = DIGEST.parse().unwrap();
        let tag = Reference::Tag(Tag::new("v1.0").unwrap());
        assert_eq!(found("/"), Route::Base);
        assert_eq!(found(""), Route::Base);
        assert_eq!(found("/token"), Route::Token);
        assert_eq!(found("/_catalog"), Route::Catalog);
        assert_eq!(found(&format!("/acme/app/blobs/{DIGEST}")), Route::Blob { name: name("acme/app"), digest });
        assert_eq!(found("/acme/app/manifests/v1.0"), Route::Manifest { name: name("acme/app"), reference: tag });
        let by_digest = Route::Manifest { name: name("acme/app"), reference: Reference::Digest(digest) };
        assert_eq!(found(&format!("/acme/app/manifests/{DIGEST}")), by_digest);
        assert_eq!(found("/acme/app/sub/tags/list"), Route::Tags { name: name("acme/app/sub") });
        assert_eq!(found(&format!("/acme/app/referrers/{DIGEST}")), Route::Referrers { name: name("acme/app"), digest });
        for path in ["/acme/app/blobs/uploads/", "/acme/app/blobs/uploads"] {
            assert_eq!(found(path), Route::Uploads { name: name("acme/app") });
        }
        assert_eq!(found("/acme/app/blobs/uploads/0a"), Route::Upload { name: name("acme/app"), id: "0a".into() });
    }

    #[test]
    fn words_of_the_protocol_may_be_parts_of_names() {
        for inner in ["blobs", "tags", "manifests", "uploads", "referrers", "list", "token", "acme/blobs/uploads"] {
            let full = format!("acme/{inner}");
            assert_eq!(found(&format!("/{full}/manifests/v1")).name(), Some(&name(&full)));
            assert_eq!(found(&format!("/{full}/tags/list")).name(), Some(&name(&full)));
            assert_eq!(found(&format!("/{full}/blobs/uploads/")).name(), Some(&name(&full)));
            assert_eq!(found(&format!("/{full}/blobs/{DIGEST}")).name(), Some(&name(&full)));
        }
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(found(&format!("/acme/app/manifests/{}", DIGEST.replace(':', "%3A"))), found(&format!("/acme/app/manifests/{DIGEST}")));
        for wrong in ["/acme%252fapp/tags/list", "/acme/%2e%2e/app/tags/list", "/acme/app%00/tags/list", "/acme/app%5c/tags/list"] {
            assert_eq!(locate(wrong).unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn oc05_bad_names_and_tags_are_refused() {
        for wrong in
            ["Acme/app", "acme/App", "acme//app", "/acme", "acme/", "-a/b", "a-/b", "a..b", "a._b", "a___b", "a.-b", "é/b", "a b", "..", ""]
        {
            assert_eq!(parse_name(wrong).unwrap_err().subject(), Subject::Package, "{wrong}");
        }
        assert!(parse_name(&"a".repeat(NAME_BYTES + 1)).is_err());
        for right in ["acme/app", "a", "a.b_c__d-e---f/0", "library/alpine", "registry.example/library/alpine"] {
            assert!(parse_name(right).is_ok(), "{right}");
        }
        for wrong in ["", ".a", "-a", "a b", "a/b", "a+b", "é", &"a".repeat(TAG_BYTES + 1)] {
            assert_eq!(parse_tag(wrong).unwrap_err().subject(), Subject::Tag, "{wrong}");
        }
        for right in ["latest", "_", "1.0_beta-2", &"a".repeat(TAG_BYTES)] {
            assert!(parse_tag(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn oc02_bad_digests_are_refused() {
        let upper = DIGEST.to_uppercase().replace("SHA256", "sha256");
        let (short, path) = (&DIGEST[..70], "sha256:../../../etc/passwd");
        let sha1 = "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709";
        for wrong in [upper.as_str(), short, path, sha1, "sha256:", "sha256", "sha256:baddigeststring", "blake3:00", ":", "x:y"] {
            assert_eq!(parse_digest(wrong).unwrap_err().subject(), Subject::Digest, "{wrong}");
        }
        assert_eq!(parse_reference("sha256:totallywrong").unwrap_err().subject(), Subject::Digest);
        assert!(parse_digest(&format!("sha512:{}", "0a".repeat(64))).is_ok());
    }

    #[test]
    fn an_owner_is_the_first_of_two_components() {
        assert_eq!(owner(&name("acme/app/sub")).unwrap().as_str(), "acme");
        for wrong in ["app", "registry.example/library/x", "v2/app", "a..b/c"] {
            assert!(owner(&name(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_are_held_against_routes() {
        for (method, path) in [
            ("POST", "/acme/app/tags/list"),
            ("PUT", "/_catalog"),
            ("PATCH", "/acme/app/manifests/v1"),
            ("GET", "/a/b/blobs/uploads/"),
            ("DELETE", "/"),
        ] {
            let error = parse(&method.parse().unwrap(), path).unwrap_err();
            assert_eq!(error.kind(), Kind::MethodNotAllowed, "{method} {path}");
        }
        for nowhere in ["/x", "/x/y", "/acme/app/tags/other", "/acme/app/nothing/here"] {
            assert_eq!(locate(nowhere).unwrap_err().kind(), Kind::NotFound, "{nowhere}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_no_name_climbs(path in "[a-z0-9./_%:A-F-]{0,80}") {
            if let Ok(route) = locate(&path)
                && let Some(name) = route.name()
            {
                prop_assert!(!name.as_str().split('/').any(|part| part.is_empty() || part.starts_with('.')));
                prop_assert_eq!(parse_name(name.as_str()).unwrap(), name.clone());
            }
        }
    }
}
