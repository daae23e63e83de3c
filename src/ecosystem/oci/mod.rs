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
use crate::catalog::{Head, View};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::BaseUrl;
use crate::http::conditional::entity_tag;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, path, reply};
use crate::identity::Caller;
use crate::name::{OwnerName, PackageName, Tag};
use crate::package::{Version, Visibility};
use crate::registry::publish::Publishing;
use crate::registry::relay::{self, Asking, Mirrored, Place, Relayed, Source};
use crate::registry::{Artifact, Call, Content, Look};
use crate::upstream::{Check, Manner, Need};

pub mod announcement;
mod answer;
pub mod change;
pub mod manifest;
pub mod mirror;
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

use answer::{accepts, location, placed};
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
    key_header: None,
    root_paths: &[],
    package_types: &["container", "docker"],
};

/// The host whose names are `OWNER/REPO/IMAGE`, as in GitHub's older registry.
const LEGACY_HOST: &str = "docker";

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REGISTRY_2: HeaderValue = HeaderValue::from_static("registry/2.0");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

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
            response.headers_mut().insert(API_VERSION, REGISTRY_2);
            Ok(response)
        }
        .boxed()
    }

    fn hit(&self, look: &Look<'_>) -> Option<Response> {
        let mut response = hit(look)?;
        response.headers_mut().insert(API_VERSION, REGISTRY_2);
        Some(response)
    }

    fn signs_in(&self, method: &Method, path: &str) -> bool {
        *method == Method::POST && matches!(route::locate(path), Ok(Route::Token))
    }

    fn error(&self, error: &Error, asked: &Asked<'_>) -> Response {
        let mut response = refusal::respond(error, asked);
        response.headers_mut().insert(API_VERSION, REGISTRY_2);
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

    fn webhook_type(&self) -> &'static str {
        "CONTAINER"
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

/// What is asked for a thousand times a second: a layer, or a manifest by its digest.
struct Hot {
    name: PackageName,
    digest: Digest,
    is_manifest: bool,
    /// The digest as text, for the log and for the answer.
    text: Arc<str>,
    header: HeaderValue,
}

impl Hot {
    fn read(path: &str) -> Option<Self> {
        let (name, digest, is_manifest) = match route::locate(path).ok()? {
            Route::Blob { name, digest } => (name, digest, false),
            Route::Manifest { name, reference: Reference::Digest(digest) } => (name, digest, true),
            _ => return None,
        };
        let text: Arc<str> = digest.to_string().into();
        let header = HeaderValue::from_str(&text).ok()?;
        Some(Self { name, digest, is_manifest, text, header })
    }
}

/// Who asks for a layer by HEAD is told that it is there, which is remembered: that takes the ordinary way.
fn hit(look: &Look<'_>) -> Option<Response> {
    let hot = look.route(Hot::read)?;
    let upstreams = look.registry.upstreams(INFO.name);
    let asking = Asking { host: look.host, own: look.host, namespace: None };
    let is_here = upstreams.is_empty() || matches!(relay::locate(upstreams, asking, &hot.name, route::parse_name), Ok(Source::Here));
    if !is_here || look.query.is_some() || (*look.method == Method::HEAD && !hot.is_manifest) {
        return None;
    }
    let (plan, grant) = look.grant(View::Root, INFO.name, &hot.name)?;
    let head = plan.head()?;
    if !permits(look.caller, look.session, &hot.name, Access::Pull) {
        return None;
    }
    if hot.is_manifest {
        let (row, artifact) = look.registry.hosted_file_at_hand(&grant, head, &hot.text, true)?;
        look.note(&grant, Some(&hot.text), artifact.verdict);
        let (asked, reference) = ((look.method, look.headers), Reference::Digest(hot.digest));
        return send_manifest(asked, &reference, (artifact, hot.text.to_string(), &row.file.media_type), is_private(head)).ok();
    }
    let artifact = look.registry.content_at_hand(&grant, head, &hot.digest)?;
    look.note(&grant, Some(&hot.text), artifact.verdict);
    Some(send_blob((look.method, look.headers), artifact, hot.header.clone(), is_private(head)))
}

async fn serve(call: Call<'_>) -> Result<Response> {
    match route::parse(&call.method, call.path)? {
        Route::Blob { name, digest } if call.method != Method::DELETE => match source(&call, &name)? {
            Source::Here => blob(&call, &name, &digest).await,
            source => mirrored_blob(&call, source, &digest).boxed().await,
        },
        Route::Manifest { name, reference } if matches!(call.method, Method::GET | Method::HEAD) => match source(&call, &name)? {
            Source::Here => manifest(&call, &name, &reference).await,
            source => mirrored_manifest(&call, source, &reference).boxed().await,
        },
        // Boxed, so that the future of the requests that matter is not as large as that of an upload.
        route => serve_other(call, route).boxed().await,
    }
}

async fn serve_other(call: Call<'_>, route: Route) -> Result<Response> {
    let method = call.method.clone();
    let source = route.name().map_or(Ok(Source::Here), |name| source(&call, name))?;
    match (route, source) {
        (Route::Base, _) => base(&call),
        (Route::Token, _) => token::serve(call).await,
        (Route::Catalog, _) => search::catalog(&call).await,
        (Route::Tags { name }, Source::Here) => search::tags(&call, &name).await,
        (Route::Tags { name }, source) => search::mirrored_tags(&call, &name, source).await,
        (Route::Referrers { name, digest }, Source::Here) => search::referrers(&call, &name, &digest).await,
        (Route::Referrers { digest, .. }, source) => search::mirrored_referrers(&call, source, &digest).await,
        (_, Source::Upstream(_) | Source::Nowhere) => {
            Err(Error::new(Kind::MethodNotAllowed, Subject::Package).saying("the repository is an upstream's and cannot be changed here"))
        }
        (Route::Blob { name, digest }, _) => change::delete_blob(&call, &name, &digest).await,
        (Route::Manifest { name, reference }, _) if method == Method::PUT => publish::put(call, &name, &reference).await,
        (Route::Manifest { name, reference }, _) => change::delete_manifest(&call, &name, &reference).await,
        (Route::Uploads { name }, _) => upload::open(call, &name).await,
        (Route::Upload { name, id }, _) => match method {
            Method::PATCH => upload::patch(call, &name, &id).await,
            Method::PUT => upload::put(call, &name, &id).await,
            Method::DELETE => upload::cancel(&call, &name, &id).await,
            _ => upload::status(&call, &name, &id).await,
        },
    }
}

/// Where a name leads.
fn source(call: &Call<'_>, name: &PackageName) -> Result<Source> {
    let upstreams = call.registry.upstreams(INFO.name);
    if upstreams.is_empty() {
        return Ok(Source::Here);
    }
    let namespace = path::query(call.query, "ns");
    let asking = Asking { host: call.host, own: refusal::service(call.base.as_str()), namespace: namespace.as_deref() };
    relay::locate(upstreams, asking, name, route::parse_name)
}

/// Whether all names under the host that was asked are one upstream's.
fn is_mirror(call: &Call<'_>) -> bool {
    call.registry.upstreams(INFO.name).iter().any(|upstream| upstream.is_mirrored_at(call.host))
}

/// `GET /v2/`. Clients learn here whether to sign in, so who brings nothing is always told to; but not where nobody can push
/// and everybody may read.
fn base(call: &Call<'_>) -> Result<Response> {
    let is_open = call.registry.access().anonymous_proxy && is_mirror(call);
    if matches!(*call.caller, Caller::Anonymous) && call.session.is_none() && !is_open {
        return Err(Error::new(Kind::Unauthenticated, Subject::Route));
    }
    Ok(reply::json(StatusCode::OK, &json!({})))
}

/// `GET /v2/NAME/manifests/REFERENCE`.
async fn manifest(call: &Call<'_>, name: &PackageName, reference: &Reference) -> Result<Response> {
    let (head, grant) = readable(call, name).await?;
    call.trace.note(|notes| notes.item = Some(shown(reference).into()));
    let number = match reference {
        Reference::Digest(digest) => digest.to_string(),
        Reference::Tag(tag) => head.package.tags.get(tag).cloned().ok_or_else(|| no_manifest(reference))?,
    };
    let found = call.registry.hosted_file(&grant, &head, &number, true).await?;
    let (row, artifact) = found.ok_or_else(|| no_manifest(reference))?;
    call.note_verdict(artifact.verdict);
    send_manifest((&call.method, call.headers), reference, (artifact, number, &row.file.media_type), is_private(&head))
}

fn no_manifest(reference: &Reference) -> Error {
    Error::not_found(Subject::Manifest).saying(format!("there is no manifest {}", shown(reference)))
}

/// A manifest with its digest and media type, to who takes it and does not have it already.
fn send_manifest(
    (method, headers): (&Method, &HeaderMap),
    reference: &Reference,
    (mut artifact, digest, media_type): (Artifact, String, &str),
    is_private: bool,
) -> Result<Response> {
    if !accepts(headers, media_type) {
        return Err(no_manifest(reference).saying(format!("the manifest is {media_type}, which the request does not accept")));
    }
    artifact.etag = HeaderValue::try_from(format!("\"{digest}\"")).ok();
    let media_type = HeaderValue::try_from(media_type).map_err(|error| Error::internal(Subject::Manifest, error))?;
    let cache = match (reference, is_private) {
        (Reference::Digest(_), false) => PUBLIC_CONTENT,
        (Reference::Digest(_), true) => PRIVATE_CONTENT,
        (Reference::Tag(_), false) => PUBLIC_TAG,
        (Reference::Tag(_), true) => PRIVATE_TAG,
    };
    if answer::has_already(headers, &digest) {
        let mut response = reply::empty(StatusCode::NOT_MODIFIED);
        response.headers_mut().extend(artifact.etag.map(|etag| (header::ETAG, etag)));
        return Ok(response);
    }
    let mut response = artifact.respond(method, headers, media_type, cache);
    let digest = HeaderValue::try_from(digest).map_err(|error| Error::internal(Subject::Manifest, error))?;
    response.headers_mut().insert(CONTENT_DIGEST, digest);
    Ok(response)
}

/// `GET /v2/NAME/blobs/DIGEST`.
async fn blob(call: &Call<'_>, name: &PackageName, digest: &Digest) -> Result<Response> {
    let text = digest.to_string();
    call.trace.note(|notes| notes.item = Some(text.as_str().into()));
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
    call.note_verdict(artifact.verdict);
    Ok(send_blob((&call.method, call.headers), artifact, header_of(&text)?, private))
}

fn header_of(digest: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(digest).map_err(|error| Error::internal(Subject::Digest, error))
}

fn send_blob((method, headers): (&Method, &HeaderMap), artifact: Artifact, digest: HeaderValue, is_private: bool) -> Response {
    let size = artifact.size;
    if answer::is_backward_range(headers) {
        return answer::unsatisfiable(size);
    }
    let cache = if is_private { PRIVATE_CONTENT } else { PUBLIC_CONTENT };
    let mut response = artifact.respond(method, headers, const { HeaderValue::from_static("application/octet-stream") }, cache);
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return answer::unsatisfiable(size);
    }
    response.headers_mut().insert(CONTENT_DIGEST, digest);
    if size == Some(0) && response.status() == StatusCode::OK {
        // The HTTP library leaves it out of the answer to HEAD where it is zero.
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

async fn own_content(call: &Call<'_>, name: &PackageName, digest: &Digest) -> Result<Artifact> {
    let grant = access::grant_own(&call.caller, Target { ecosystem: INFO.name, name, package: None })?;
    permit(call, name, Access::Pull)?;
    let head = call.registry.catalog().head(INFO.name, name).await?;
    call.registry.content(&grant, head.filter(|head| head.package.deleted_at.is_some()).as_deref(), digest).await
}

/// The right to read a repository of an upstream. A session's scopes do not limit it: what every token reads is no secret.
fn relayed(call: &Call<'_>, source: Source) -> Result<(Mirrored, Grant)> {
    let Source::Upstream(mirrored) = source else { return Err(Error::not_found(Subject::Package)) };
    call.trace.note(|notes| notes.package = Some(mirrored.known_as.clone()));
    let grant = call.registry.grant_relayed(INFO.name, &call.caller, &mirrored.known_as)?;
    Ok((mirrored, grant))
}

/// As [`manifest()`], of an upstream. What a tag points at is kept under its digest too, which clients ask for next.
async fn mirrored_manifest(call: &Call<'_>, source: Source, reference: &Reference) -> Result<Response> {
    let (mirrored, grant) = relayed(call, source)?;
    call.trace.note(|notes| notes.item = Some(shown(reference).into()));
    let need = if matches!(reference, Reference::Digest(_)) { Need::Any } else { Need::Usual };
    let (ask, check, manner) = (mirror::manifest(&mirrored.name, reference), manifest_check(reference), manner(&mirrored, reference));
    let found = call.registry.relayed(&grant, &mirrored.upstream, &ask, need, (&check, &manner)).await;
    let Relayed { entry, bytes, verdict } =
        found.map_err(|error| mirror::absent_if_denied(error, Subject::Manifest))?.ok_or_else(|| no_manifest(reference))?;
    let digest = match reference {
        Reference::Digest(digest) => *digest,
        Reference::Tag(_) => {
            let digest = Digest::sha256(&bytes);
            let by_digest = mirror::manifest(&mirrored.name, &Reference::Digest(digest));
            call.registry.fetcher().remember_at(&mirrored.upstream, &by_digest.path, &entry).await?;
            digest
        }
    };
    let media_type = mirror::media_type(&bytes, entry.media_type.as_deref());
    call.note_verdict(verdict);
    let artifact = Artifact { size: Some(bytes.len() as u64), content: Content::Bytes(bytes), etag: None, verdict, downloads: None };
    let response = send_manifest(
        (&call.method, call.headers),
        reference,
        (artifact, digest.to_string(), &media_type),
        !call.registry.access().anonymous_proxy,
    )?;
    with_namespace(response, &mirrored)
}

/// As [`blob`], of an upstream.
async fn mirrored_blob(call: &Call<'_>, source: Source, digest: &Digest) -> Result<Response> {
    let (mirrored, grant) = relayed(call, source)?;
    let text = digest.to_string();
    call.trace.note(|notes| notes.item = Some(text.as_str().into()));
    let (path, scope) = (mirror::blob_path(&mirrored.name, digest), scope_of(&mirrored));
    let place = Place { upstream: &mirrored.upstream, path: &path, digest, scope: &scope };
    let found = if call.method == Method::HEAD {
        call.registry.look_at_relayed(&grant, place).await
    } else {
        call.registry.relayed_file(&grant, place).await.map(Ok)
    };
    let found = found.map_err(|error| mirror::absent_if_denied(error, Subject::Blob))?;
    let is_private = !call.registry.access().anonymous_proxy;
    let response = match found {
        Ok(artifact) => {
            call.note_verdict(artifact.verdict);
            send_blob((&call.method, call.headers), artifact, header_of(&text)?, is_private)
        }
        // Nobody needs the bytes yet.
        Err(size) => {
            let etag = (digest.algorithm() == Algorithm::Sha256).then(|| entity_tag(digest, None));
            answer::described((size, digest, etag), if is_private { PRIVATE_CONTENT } else { PUBLIC_CONTENT })?
        }
    };
    with_namespace(response, &mirrored)
}

/// What a token for a repository of an upstream is for.
fn scope_of(mirrored: &Mirrored) -> Arc<str> {
    mirror::scope(&mirrored.name).into()
}

/// How an upstream is asked for a manifest: for what a tag points at with HEAD first, which counts for less than GET.
fn manner(mirrored: &Mirrored, reference: &Reference) -> Manner {
    let names_digest = matches!(reference, Reference::Tag(_)).then_some(CONTENT_DIGEST);
    Manner { scope: Some(scope_of(mirrored)), names_digest }
}

fn manifest_check(reference: &Reference) -> Check {
    let reference = reference.clone();
    Arc::new(move |bytes| mirror::check_manifest(&reference, bytes))
}

/// Says which registry's name it was.
fn with_namespace(mut response: Response, mirrored: &Mirrored) -> Result<Response> {
    let host = HeaderValue::try_from(mirrored.host()).map_err(|error| Error::internal(Subject::Upstream, error))?;
    response.headers_mut().insert(OCI_NAMESPACE, host);
    Ok(response)
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
    if permits(&call.caller, call.session.as_deref(), name, access) {
        return Ok(());
    }
    Err(Error::new(Kind::Unauthenticated, Subject::Request).saying(refusal::INSUFFICIENT))
}

fn permits(caller: &Caller, session: Option<&str>, name: &PackageName, access: Access) -> bool {
    session.is_none_or(|scopes| matches!(caller, Caller::Anonymous) || scope::allows(scopes, name, access))
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

#[cfg(test)]
mod tests {
    use super::*;

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
