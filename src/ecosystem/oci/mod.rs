//! Containers: images and other artifacts, as the distribution specification has them.
//!
//! A repository is a package, `OWNER/IMAGE`; a version is a manifest, whose number is its
//! digest; tags point at versions. Layers and configurations are content that the package's
//! versions share. Manifests are kept byte for byte, since their digest is their name.
//!
//! Source: OCI Distribution Specification 1.1, with what Docker's clients need besides.

use std::borrow::Cow;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, json};

use super::{Announcement, Asked, Description, Ecosystem, Info, Snippet, Told};
use crate::access::{self, Action, Grant, Target};
use crate::catalog::Head;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::BaseUrl;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, reply};
use crate::identity::Caller;
use crate::name::{OwnerName, PackageName, Tag};
use crate::package::{Version, Visibility};
use crate::registry::publish::Publishing;
use crate::registry::{Artifact, Call};

pub mod announcement;
pub mod change;
pub mod manifest;
pub mod publish;
pub mod record;
pub mod referrers;
pub mod refusal;
#[cfg(test)]
mod rights;
pub mod route;
pub mod scope;
pub mod search;
pub mod token;
pub mod upload;

use record::Record;
use route::{Reference, Route};
use scope::Access;

/// The ecosystem.
pub struct Oci;

/// Every container client asks below `/v2/`, whatever host it was given.
static INFO: Info = Info {
    name: "container",
    mount: "v2",
    hosts: &["containers", LEGACY_HOST],
    fixed_mount: true,
    sessions: true,
    root_paths: &[],
    package_types: &["container", "docker"],
};

/// The host whose names are `OWNER/REPO/IMAGE`, as in GitHub's older registry.
const LEGACY_HOST: &str = "docker";

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a digest names never changes.
const PUBLIC_CONTENT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const PRIVATE_CONTENT: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
/// What a tag points at may change with the next push.
const PUBLIC_TAG: HeaderValue = HeaderValue::from_static("public, no-cache");
const PRIVATE_TAG: HeaderValue = HeaderValue::from_static("private, no-cache");

impl Ecosystem for Oci {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn serve<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Response>> {
        async {
            let mut response = serve(call).await?;
            response.headers_mut().insert(API_VERSION, const { HeaderValue::from_static("registry/2.0") });
            Ok(response)
        }
        .boxed()
    }

    fn signs_in(&self, method: &Method, path: &str) -> bool {
        *method == Method::POST && matches!(route::locate(path), Ok(Route::Token))
    }

    fn error(&self, error: &Error, asked: &Asked<'_>) -> Response {
        let mut response = refusal::respond(error, asked);
        response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        response
    }

    fn pattern(&self, text: &str) -> Result<String> {
        let (name, rest) = text.strip_suffix('*').map_or((text, ""), |name| (name.trim_end_matches('/'), "*"));
        route::parse_name(name)?;
        Ok(if rest.is_empty() { name.to_owned() } else { text.to_owned() })
    }

    /// Signatures and lists of referrers lie under such tags.
    fn tag_subject(&self, tag: &Tag) -> Option<String> {
        referrers::tag_subject(tag.as_str())
    }

    /// GitHub leaves the owner out.
    fn short_name<'a>(&self, name: &'a PackageName, owner: &OwnerName) -> Option<Cow<'a, str>> {
        name.as_str().strip_prefix(owner.as_str())?.strip_prefix('/').map(Cow::Borrowed)
    }

    fn full_names(&self, short: &str, owner: &OwnerName) -> Vec<String> {
        vec![format!("{owner}/{short}"), short.to_owned()]
    }

    fn describe(&self, version: &Version, tags: &[&str]) -> Description {
        // What is stored was written by this server; a record that cannot be read says nothing.
        let record = Record::of(version).unwrap_or_default();
        let metadata = Map::from_iter([("container".to_owned(), json!({ "tags": tags }))]);
        Description { summary: record.description(), license: record.license(), metadata }
    }

    fn announce(&self, told: Told<'_>) -> Announcement {
        announcement::of(told)
    }

    fn clients(&self, base: &BaseUrl) -> Vec<Snippet> {
        let host = refusal::service(base.as_str());
        let login = |client| Snippet {
            client,
            place: "shell",
            lines: format!(
                "{client} login {host} -u LOGIN --password-stdin <<<\"$PACKHOUSE_TOKEN\"\n{client} push {host}/OWNER/IMAGE:TAG\n"
            ),
        };
        vec![login("docker"), login("podman")]
    }

    #[cfg(test)]
    fn rights(&self) -> super::rights::Table {
        rights::table()
    }
}

async fn serve(call: Call<'_>) -> Result<Response> {
    match route::parse(&call.method, call.path)? {
        Route::Blob { name, digest } if call.method != Method::DELETE => blob(&call, &name, &digest).await,
        Route::Manifest { name, reference } if matches!(call.method, Method::GET | Method::HEAD) => {
            manifest(&call, &name, &reference).await
        }
        // Boxed, so that the future of the requests that matter is not as large as that of an upload.
        route => serve_other(call, route).boxed().await,
    }
}

async fn serve_other(call: Call<'_>, route: Route) -> Result<Response> {
    let method = call.method.clone();
    match route {
        Route::Base => base(&call),
        Route::Token => token::serve(call).await,
        Route::Catalog => search::catalog(&call).await,
        Route::Blob { name, digest } => change::delete_blob(&call, &name, &digest).await,
        Route::Manifest { name, reference } if method == Method::PUT => publish::put(call, &name, &reference).await,
        Route::Manifest { name, reference } => change::delete_manifest(&call, &name, &reference).await,
        Route::Tags { name } => search::tags(&call, &name).await,
        Route::Referrers { name, digest } => search::referrers(&call, &name, &digest).await,
        Route::Uploads { name } => upload::open(call, &name).await,
        Route::Upload { name, id } => match method {
            Method::PATCH => upload::patch(call, &name, &id).await,
            Method::PUT => upload::put(call, &name, &id).await,
            Method::DELETE => upload::cancel(&call, &name, &id).await,
            _ => upload::status(&call, &name, &id).await,
        },
    }
}

/// `GET /v2/`. Clients learn here whether to sign in, so who brings nothing is always told to.
fn base(call: &Call<'_>) -> Result<Response> {
    if matches!(*call.caller, Caller::Anonymous) && call.session.is_none() {
        return Err(Error::new(Kind::Unauthenticated, Subject::Route));
    }
    Ok(reply::json(StatusCode::OK, &json!({})))
}

/// `GET /v2/NAME/manifests/REFERENCE`.
async fn manifest(call: &Call<'_>, name: &PackageName, reference: &Reference) -> Result<Response> {
    let (head, grant) = readable(call, name).await?;
    call.trace.note(|notes| notes.item = Some(shown(reference)));
    let unknown = || Error::not_found(Subject::Manifest).saying(format!("there is no manifest {}", shown(reference)));
    let (number, cache) = match reference {
        Reference::Digest(digest) => (digest.to_string(), [PUBLIC_CONTENT, PRIVATE_CONTENT]),
        Reference::Tag(tag) => (head.package.tags.get(tag).cloned().ok_or_else(unknown)?, [PUBLIC_TAG, PRIVATE_TAG]),
    };
    let (row, mut artifact) = call.registry.hosted_file(&grant, &head, &number, true).await?.ok_or_else(unknown)?;
    if !accepts(call.headers, &row.file.media_type) {
        return Err(unknown().saying(format!("the manifest is {}, which the request does not accept", row.file.media_type)));
    }
    artifact.etag = HeaderValue::try_from(format!("\"{number}\"")).ok();
    let media_type = HeaderValue::try_from(&row.file.media_type).map_err(|error| Error::internal(Subject::Manifest, error))?;
    let [public, private] = cache;
    let cache = if is_private(&head) { private } else { public };
    if call.headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value.as_bytes() == number.as_bytes()) {
        // Some clients leave the quotes out.
        let mut response = reply::empty(StatusCode::NOT_MODIFIED);
        response.headers_mut().extend(artifact.etag.map(|etag| (header::ETAG, etag)));
        return Ok(response);
    }
    let mut response = artifact.respond(&call.method, call.headers, media_type, cache);
    let digest = HeaderValue::try_from(number).map_err(|error| Error::internal(Subject::Manifest, error))?;
    response.headers_mut().insert(CONTENT_DIGEST, digest);
    Ok(response)
}

/// `GET /v2/NAME/blobs/DIGEST`.
async fn blob(call: &Call<'_>, name: &PackageName, digest: &Digest) -> Result<Response> {
    let text = digest.to_string();
    call.trace.note(|notes| notes.item = Some(text.clone()));
    let (artifact, private) = match readable(call, name).await {
        Ok((head, grant)) => {
            let found = if call.method == Method::HEAD {
                call.registry.show_content(&grant, Some(&head), digest).boxed().await
            } else {
                call.registry.content(&grant, Some(&head), digest).await
            };
            (found?, is_private(&head))
        }
        // What was sent to a repository that is not there yet is there for its sender.
        Err(error) if error.kind() == Kind::NotFound => (own_content(call, name, digest).boxed().await.map_err(|_| error)?, true),
        Err(error) => return Err(error),
    };
    let size = artifact.size;
    if is_backward_range(call.headers) {
        return Ok(unsatisfiable(size));
    }
    let cache = if private { PRIVATE_CONTENT } else { PUBLIC_CONTENT };
    let mut response = artifact.respond(&call.method, call.headers, const { HeaderValue::from_static("application/octet-stream") }, cache);
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(unsatisfiable(size));
    }
    let digest = HeaderValue::try_from(text).map_err(|error| Error::internal(Subject::Digest, error))?;
    response.headers_mut().insert(CONTENT_DIGEST, digest);
    if size == Some(0) && response.status() == StatusCode::OK {
        // The HTTP library leaves it out of the answer to HEAD where it is zero.
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(response)
}

async fn own_content(call: &Call<'_>, name: &PackageName, digest: &Digest) -> Result<Artifact> {
    let grant = access::grant_own(&call.caller, Target { ecosystem: INFO.name, name, package: None })?;
    permit(call, name, Access::Pull)?;
    let head = call.registry.catalog().head(INFO.name, name).await?;
    call.registry.content(&grant, head.filter(|head| head.package.deleted_at.is_some()).as_deref(), digest).await
}

/// A range whose end lies before its beginning. HTTP would have it ignored; the specification's clients expect a refusal.
fn is_backward_range(headers: &HeaderMap) -> bool {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let ends = range.and_then(|range| range.split_once('-')).map(|(first, last)| (first.trim().parse::<u64>(), last.trim().parse::<u64>()));
    matches!(ends, Some((Ok(first), Ok(last))) if last < first)
}

fn unsatisfiable(size: Option<u64>) -> Response {
    let mut response = refusal::refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", "the content has no such range");
    let described = size.and_then(|size| HeaderValue::try_from(format!("bytes */{size}")).ok());
    response.headers_mut().extend(described.map(|described| (header::CONTENT_RANGE, described)));
    response
}

/// Whether a client takes a media type. All manifests are JSON, so who takes that takes them.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut said = false;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(list) = value.to_str() else { continue };
        for item in list.split(',') {
            let range = item.split(';').next().unwrap_or_default().trim();
            said |= !range.is_empty();
            if range.eq_ignore_ascii_case(media_type) || ["*/*", "application/*", "application/json"].contains(&range) {
                return true;
            }
        }
    }
    !said
}

/// The right to read a hosted repository. Who brings no credentials is told to, whether there is such a repository or not.
async fn readable(call: &Call<'_>, name: &PackageName) -> Result<(Arc<Head>, Grant)> {
    let (head, grant) =
        call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Read).await.map_err(|error| hidden(call, error))?;
    permit(call, name, Access::Pull)?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok((head, grant))
}

fn hidden(call: &Call<'_>, error: Error) -> Error {
    match (error.kind(), &*call.caller) {
        (Kind::NotFound, Caller::Anonymous) => Error::new(Kind::Unauthenticated, Subject::Package),
        _ => error,
    }
}

/// The right to publish to a repository, be it there or not.
async fn publishing(call: &Call<'_>, name: &PackageName) -> Result<Publishing> {
    let anonymous = matches!(*call.caller, Caller::Anonymous);
    let owner = if anonymous { Err(Error::new(Kind::Unauthenticated, Subject::Package)) } else { route::owner(name) }?;
    let publishing = call.registry.grant_publish_own(INFO.name, &call.caller, name, &owner).await?;
    permit(call, name, Access::Push)?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(publishing)
}

/// That the session, if the request came with one, is for this. Asked after the rights, so that
/// nobody is sent for another token who has not the right anyway.
fn permit(call: &Call<'_>, name: &PackageName, access: Access) -> Result<()> {
    match &call.session {
        Some(scopes) if !matches!(*call.caller, Caller::Anonymous) && !scope::allows(scopes, name, access) => {
            Err(Error::new(Kind::Unauthenticated, Subject::Request).saying(refusal::INSUFFICIENT))
        }
        _ => Ok(()),
    }
}

fn is_private(head: &Head) -> bool {
    head.policy.visibility() != Visibility::Public
}

fn shown(reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => tag.to_string(),
        Reference::Digest(digest) => digest.to_string(),
    }
}

/// A path below the mount as the client can ask for it on the same host.
fn location(base: &BaseUrl, rest: &str) -> Result<HeaderValue> {
    let base = base.as_str();
    let after = base.split_once("://").map_or(base, |(_, rest)| rest);
    let mount = after.find('/').map_or("", |at| &after[at..]);
    HeaderValue::try_from(format!("{mount}{rest}")).map_err(|error| Error::internal(Subject::Route, error))
}

/// An answer without a body, with where something is and the digest it has.
fn placed(status: StatusCode, location: HeaderValue, digest: &Digest) -> Result<Response> {
    let mut response = reply::empty(status);
    let digest = HeaderValue::try_from(digest.to_string()).map_err(|error| Error::internal(Subject::Digest, error))?;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(CONTENT_DIGEST, digest);
    Ok(response)
}

/// A part of a list, with the way to the next.
fn listed(call: &Call<'_>, mut response: Response, next: Option<String>) -> Result<Response> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(next) = next {
        let next = location(&call.base, &next)?;
        let link = [b"<", next.as_bytes(), b">; rel=\"next\""].concat();
        headers.insert(header::LINK, HeaderValue::try_from(link).map_err(|error| Error::internal(Subject::Route, error))?);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_manifest_is_sent_to_who_takes_it() {
        let check = |accept: &[&'static str], expected: bool| {
            let pairs: Vec<_> = accept.iter().map(|value| (header::ACCEPT, *value)).collect();
            assert_eq!(accepts(&headers(&pairs), manifest::OCI_MANIFEST), expected, "{accept:?}");
        };
        check(&[], true);
        check(&[""], true);
        check(&["*/*"], true);
        check(&["text/html, application/json;q=0.9"], true);
        check(&[manifest::OCI_MANIFEST], true);
        check(&[manifest::DOCKER_MANIFEST, "application/vnd.oci.image.manifest.v1+json;q=0.5"], true);
        check(&[manifest::DOCKER_MANIFEST, manifest::OCI_INDEX], false);
    }

    #[test]
    fn ranges_that_run_backward_are_told() {
        let check = |range, expected| assert_eq!(is_backward_range(&headers(&[(header::RANGE, range)])), expected, "{range}");
        check("bytes=500-0", true);
        check("bytes=0-0", false);
        check("bytes=-5", false);
        check("bytes=5-", false);
        check("items=5-0", false);
    }

    #[test]
    fn reserved_patterns_are_names() {
        for right in ["acme/*", "acme/app", "acme/app*", "acme*"] {
            assert_eq!(Oci.pattern(right).unwrap(), right);
        }
        for wrong in ["", "*", "Acme/*", "acme//x", "../*"] {
            assert!(Oci.pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_short_where_its_owner_is_said() {
        let (owner, name) = (OwnerName::new("acme").unwrap(), PackageName::new("acme/app/sub").unwrap());
        assert_eq!(Oci.short_name(&name, &owner), Some("app/sub".into()));
        assert_eq!(Oci.short_name(&PackageName::new("acmes/app").unwrap(), &owner), None);
        assert_eq!(Oci.full_names("app/sub", &owner)[0], "acme/app/sub");
    }
}
