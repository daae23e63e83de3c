//! npm: the registry that npm, yarn, pnpm and bun speak to.
//!
//! Packuments and version manifests change; tarballs never do. A package's name is
//! its key in every request, whatever the spelling. Errors are `{"error": …}`,
//! which npm prints to its user.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{Announcement, Asked, Description, Ecosystem, Info, Snippet, Told};
use crate::access::{Action, Grant};
use crate::catalog::View;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{BaseUrl, Document as _};
use crate::http::negotiate::{self, Coding};
use crate::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, conditional, header, reply};
use crate::name::{OwnerName, PackageName, Tag};
use crate::package::{Version, Visibility};
use crate::registry::artifact::CACHE_STATUS;
use crate::registry::{Call, Keeping, Look, NamedFile, Plan, Rendered, Topic};
use crate::upstream::Need;

pub mod account;
pub mod announcement;
pub mod attachment;
pub mod audit;
pub mod change;
pub mod hosted;
pub mod manifest;
pub mod packument;
pub mod publish;
#[cfg(test)]
mod rights;
pub mod route;
pub mod search;
pub mod tarball;
pub mod version;

use packument::{ABBREVIATED, Form, Packument};
use route::Route;

/// The ecosystem.
pub struct Npm;

/// npm asks for attestations below the origin's root, whatever path its registry setting has.
static INFO: Info = Info {
    name: "npm",
    mount: "npm",
    hosts: &["npm"],
    fixed_mount: false,
    sessions: false,
    key_header: None,
    root_paths: &["/-/npm/"],
    package_types: &["npm"],
};

/// The media type of a tarball.
const TARBALL: HeaderValue = HeaderValue::from_static("application/octet-stream");

impl Ecosystem for Npm {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn serve<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Response>> {
        serve(call).boxed()
    }

    fn hit(&self, look: &Look<'_>) -> Option<Response> {
        hit(look)
    }

    fn signs_in(&self, method: &Method, path: &str) -> bool {
        // Most paths begin with a package's name, and what signs in does not: they need not be taken apart twice.
        let names_a_package = path.as_bytes().get(1).is_some_and(|byte| *byte == b'@' || byte.is_ascii_alphanumeric());
        !names_a_package && matches!(route::parse(method, path), Ok(Route::Login { .. } | Route::Ping))
    }

    fn error(&self, error: &Error, _: &Asked<'_>) -> Response {
        let status = reply::status(error);
        let text = if error.kind() == Kind::NotFound && error.message() == "not found" { "Not found" } else { error.message() };
        let mut response = reply::json(status, &json!({ "error": text }));
        if error.kind() == Kind::Unauthenticated {
            // With a Bearer challenge npm tells its user to log in.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"packhouse\""));
        }
        response
    }

    fn pattern(&self, text: &str) -> Result<String> {
        route::pattern(text)
    }

    fn default_tag(&self, numbers: &[&str]) -> Option<(Tag, String)> {
        let best = version::latest(numbers.iter().copied())?;
        Some((Tag::new("latest").ok()?, best.to_owned()))
    }

    /// GitHub leaves the scope out: it is the owner.
    fn short_name<'a>(&self, name: &'a PackageName, owner: &OwnerName) -> Option<Cow<'a, str>> {
        name.as_str().strip_prefix('@')?.strip_prefix(owner.as_str())?.strip_prefix('/').map(Cow::Borrowed)
    }

    fn full_names(&self, short: &str, owner: &OwnerName) -> Vec<String> {
        let mut names = vec![short.to_owned()];
        if !short.starts_with('@') {
            names.push(format!("@{owner}/{short}"));
        }
        names
    }

    fn describe(&self, version: &Version, _: &[&str]) -> Description {
        #[derive(serde::Deserialize)]
        struct Said<'a> {
            #[serde(borrow)]
            description: Option<Cow<'a, str>>,
            license: Option<Value>,
        }
        // A manifest holds whatever its publisher wrote; what is no text is not shown.
        let Ok(said) = serde_json::from_str::<Said<'_>>(version.manifest.get()) else { return Description::default() };
        let license = said.license.and_then(|license| license.as_str().map(str::to_owned));
        Description { summary: said.description.map(Cow::into_owned), license, metadata: Map::new() }
    }

    fn announce(&self, told: Told<'_>) -> Announcement {
        announcement::of(told)
    }

    fn clients(&self, base: &BaseUrl) -> Vec<Snippet> {
        let address = base.as_str();
        let key = address.split_once(':').map_or(address, |(_, rest)| rest);
        let http = address.starts_with("http:");
        let npmrc = format!("registry={address}/\n{key}/:_authToken=${{PACKHOUSE_TOKEN}}\n");
        let mut berry = format!("npmRegistryServer: \"{address}\"\nnpmAuthToken: \"${{PACKHOUSE_TOKEN}}\"\n");
        if http {
            let host = key.trim_start_matches('/').split(['/', ':']).next().unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(berry, "unsafeHttpWhitelist: [\"{host}\"]");
        }
        let snippet = |client, place, lines: &str| Snippet { client, place, lines: lines.to_owned() };
        vec![
            snippet("npm", ".npmrc", &npmrc),
            snippet("pnpm", ".npmrc", &npmrc),
            snippet("bun", ".npmrc", &npmrc),
            snippet("yarn classic", ".npmrc", &npmrc),
            snippet("yarn berry", ".yarnrc.yml", &berry),
        ]
    }

    #[cfg(test)]
    fn rights(&self) -> super::rights::Table {
        rights::table()
    }
}

/// What is asked for a thousand times a second.
enum Hot {
    Packument { name: PackageName },
    Tarball(NamedFile),
}

impl Hot {
    fn read(path: &str) -> Option<Self> {
        match route::parse(&Method::GET, path).ok()? {
            Route::Packument { name } => Some(Self::Packument { name }),
            Route::Tarball { name, file } => Some(Self::Tarball(NamedFile {
                owner: None,
                name,
                is_download: Packument::is_download(&file),
                file: file.into(),
                media_type: TARBALL,
                keeping: Keeping::Immutable,
            })),
            _ => None,
        }
    }
}

fn hit(look: &Look<'_>) -> Option<Response> {
    match &*look.route(Hot::read)? {
        Hot::Packument { name } => {
            let (plan, grant) = look.grant(View::Root, INFO.name, name)?;
            let (form, coding) = wanted(look.headers);
            let rendered = look.document::<Packument>(Topic::whole(&grant, &plan), form, coding)?;
            look.note(&grant, None, rendered.verdict);
            Some(send_packument(look.headers, form, rendered, look.registry.lifetime(&plan, Keeping::Revalidated)))
        }
        Hot::Tarball(named) => look.send(INFO.name, named),
    }
}

async fn serve(call: Call<'_>) -> Result<Response> {
    match route::parse(&call.method, call.path)? {
        Route::Packument { name } => packument(&call, &name).await,
        Route::Tarball { name, file } => tarball_of(&call, &name, &file).await,
        // Boxed, so that the future of the two requests that matter is not as large as that of a publish.
        route => serve_other(call, route).boxed().await,
    }
}

async fn serve_other(call: Call<'_>, route: Route) -> Result<Response> {
    match route {
        Route::Packument { name } => packument(&call, &name).await,
        Route::Manifest { name, wanted } => manifest_of(&call, &name, &wanted).await,
        Route::Tarball { name, file } => tarball_of(&call, &name, &file).await,
        Route::Download { name, version, hex } => download(&call, &name, &version, &hex).await,
        Route::Put { name, revision } => publish::put(call, &name, revision.as_deref()).await,
        Route::PutTagOld { name, tag } | Route::PutTag { name, tag } => change::put_tag(call, &name, &tag).await,
        Route::DeleteTag { name, tag } => change::delete_tag(&call, &name, &tag).await,
        Route::Tags { name } => tags(&call, &name).await,
        Route::Unpublish { name, revision } => change::unpublish(&call, &name, &revision).await,
        Route::UnpublishFile { name, .. } => change::unpublish_file(&call, &name).await,
        Route::Visibility { name } => visibility(&call, &name).await,
        Route::SetAccess { name } => change::set_access(call, &name).await,
        Route::Collaborators { name } => account::collaborators(&call, &name).await,
        Route::Search => search::search(&call).await,
        Route::Ping => Ok(reply::json(StatusCode::OK, &json!({}))),
        Route::Whoami => account::whoami(&call),
        Route::Profile => account::profile(&call).await,
        Route::User { login } => account::user(&call, &login).await,
        Route::Login { login } => account::login(call, &login).await,
        Route::Logout { token } => account::logout(&call, &token).await,
        Route::Keys => audit::keys(&call).await,
        Route::Attestations { name, version } => audit::attestations(&call, &name, &version).await,
        Route::AuditBulk => audit::bulk(call).await,
        Route::Audit => audit::quick(call).await,
        Route::Starred => search::starred(&call).await,
        Route::Star => change::star(call).await,
    }
}

async fn packument(call: &Call<'_>, name: &PackageName) -> Result<Response> {
    let (plan, grant) = read_grant(call, name).await?;
    let (form, coding) = wanted(call.headers);
    let rendered = call.registry.document::<Packument>(Topic::whole(&grant, &plan), form, &call.base, coding).await?;
    note_verdict(call, rendered.verdict.word());
    Ok(send_packument(call.headers, form, rendered, call.lifetime(&plan, Keeping::Revalidated)))
}

/// The form and the coding in which a client wants a packument.
fn wanted(headers: &HeaderMap) -> (Form, Coding) {
    let form = match negotiate::media_type(headers, &["application/json", ABBREVIATED]) {
        1 => Form::Abbreviated,
        _ => Form::Full,
    };
    (form, negotiate::coding(headers))
}

/// A packument, to who does not have it already.
fn send_packument(asked: &HeaderMap, form: Form, rendered: Rendered, cache: HeaderValue) -> Response {
    let mut response = if conditional::none_match(asked, &rendered.etag) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let media_type = match form {
            Form::Full => const { HeaderValue::from_static("application/json") },
            Form::Abbreviated => const { HeaderValue::from_static(ABBREVIATED) },
        };
        let mut response = reply::of_type(StatusCode::OK, media_type, rendered.bytes);
        if let Some(coding) = rendered.coding.header() {
            response.headers_mut().insert(header::CONTENT_ENCODING, coding);
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, rendered.etag);
    headers.insert(header::VARY, const { HeaderValue::from_static("Accept, Accept-Encoding") });
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(CACHE_STATUS, rendered.verdict.header());
    response
}

async fn manifest_of(call: &Call<'_>, name: &PackageName, wanted: &str) -> Result<Response> {
    let (plan, grant) = read_grant(call, name).await?;
    // A version that the kept document does not know may have been published since.
    for need in [Need::Usual, Need::Newest] {
        let (document, verdict) = call.registry.parsed::<Packument>(Topic::whole(&grant, &plan), need).await?;
        note_verdict(call, verdict.word());
        if let Some(manifest) = document.manifest(wanted, &call.base) {
            return Ok(document_response(call, &plan, manifest, verdict.header()));
        }
    }
    Err(Error::not_found(Subject::Version).saying(format!("version not found: {wanted}")))
}

async fn tarball_of(call: &Call<'_>, name: &PackageName, file: &str) -> Result<Response> {
    let (plan, grant) = read_grant(call, name).await?;
    call.trace.note(|notes| notes.item = Some(file.into()));
    let artifact = call.registry.artifact::<Packument>(&grant, &plan, file).await?;
    note_verdict(call, artifact.verdict.word());
    Ok(artifact.respond(&call.method, call.headers, TARBALL, call.lifetime(&plan, Keeping::Immutable)))
}

/// The address that GitHub Packages writes into lock files. Its last part is the digest of the
/// tarball; where we know the digests, another one is another file.
async fn download(call: &Call<'_>, name: &PackageName, version: &str, hex: &str) -> Result<Response> {
    let file = route::tarball_file(name, version);
    let (plan, grant) = read_grant(call, name).await?;
    if let Some(head) = plan.head()
        && let Some(row) = call.registry.catalog().file(&grant, head, &file).await?
        && row.file.sha256.hex() != hex
        && !row.file.digests.iter().any(|digest| digest.hex() == hex)
    {
        return Err(Error::not_found(Subject::File));
    }
    tarball_of(call, name, &file).await
}

async fn tags(call: &Call<'_>, name: &PackageName) -> Result<Response> {
    let (plan, grant) = read_grant(call, name).await?;
    let (document, verdict) = call.registry.parsed::<Packument>(Topic::whole(&grant, &plan), Need::Usual).await?;
    note_verdict(call, verdict.word());
    let tags: Map<String, Value> = document.tags().iter().map(|(tag, number)| (tag.clone(), json!(number))).collect();
    let body = serde_json::to_vec(&tags).map_err(|error| Error::internal(Subject::Tag, error))?;
    Ok(document_response(call, &plan, body.into(), verdict.header()))
}

async fn visibility(call: &Call<'_>, name: &PackageName) -> Result<Response> {
    let (plan, _) = read_grant(call, name).await?;
    let public = plan.head().is_none_or(|head| head.policy.visibility() == Visibility::Public);
    Ok(reply::json(StatusCode::OK, &json!({ "public": public })))
}

/// The right to read a package, noted for the log only once it is given.
async fn read_grant(call: &Call<'_>, name: &PackageName) -> Result<(Plan, Grant)> {
    let granted = call.registry.grant(INFO.name, &call.caller, name, Action::Read).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(granted)
}

fn document_response(call: &Call<'_>, plan: &Plan, body: Bytes, cache_status: HeaderValue) -> Response {
    let mut response = reply::typed(StatusCode::OK, "application/json", body);
    response.headers_mut().insert(header::CACHE_CONTROL, call.lifetime(plan, Keeping::Revalidated));
    response.headers_mut().insert(CACHE_STATUS, cache_status);
    response
}

fn note_verdict(call: &Call<'_>, word: &'static str) {
    call.trace.note(|notes| notes.verdict = Some(word));
}

/// Reads a body of JSON that npm's clients may have gzipped.
async fn read_json(call: Call<'_>, limit_bytes: u64) -> Result<Bytes> {
    let gzipped = match call.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => return Err(unsupported_coding()),
    };
    let body = call.body.read(limit_bytes).await?;
    if !gzipped {
        return Ok(body);
    }
    let mut plain = Vec::new();
    let reader = flate2::read::MultiGzDecoder::new(&body[..]);
    std::io::Read::read_to_end(&mut std::io::Read::take(reader, limit_bytes + 1), &mut plain)
        .map_err(|error| Error::invalid(Subject::Request, "the request body is not the gzip it claims to be").because(error))?;
    if plain.len() as u64 > limit_bytes {
        return Err(crate::http::upload::too_large(limit_bytes));
    }
    Ok(plain.into())
}

fn unsupported_coding() -> Error {
    Error::new(Kind::UnsupportedMedia, Subject::Request).saying("the request body's content coding is not supported")
}
