//! NuGet: the feed that dotnet, nuget.exe, Visual Studio and PowerShell speak to.
//!
//! A service index says where everything is; a restore needs lists of versions and the packages, the rest is for
//! people: registrations, search, readmes. A package is known by its id in lower case and its normalised version.
//! Clients send no credentials before they are asked for them, and take one source's failure for the failure of all:
//! `or_sign_in` says when they are asked, and what was once fetched is served whatever becomes of its upstream.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::{Announcement, Asked, Description, Ecosystem, Info, Snippet, Told};
use crate::access::{self, Action, Grant};
use crate::catalog::{Head, View};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{BaseUrl, Document as _};
use crate::http::negotiate::{self, Coding};
use crate::http::{HeaderName, HeaderValue, Method, Response, StatusCode, conditional, header, reply};
use crate::name::{OwnerName, PackageName};
use crate::package::{Version as Record, Visibility};
use crate::registry::artifact::CACHE_STATUS;
use crate::registry::{self, Artifact, Call, Content, Keeping, Look, NamedFile, Plan, Rendered, Topic};
use crate::upstream::{Need, Verdict};

pub mod announcement;
pub mod audit;
pub mod change;
pub mod entry;
pub mod nuspec;
pub mod package;
pub mod publish;
pub mod query;
pub mod registration;
#[cfg(test)]
mod rights;
pub mod route;
pub mod search;
pub mod service_index;
pub mod version;
pub mod versions;

use entry::Entry;
use nuspec::Nuspec;
use registration::{Part, Registration};
use route::{Hive, Kept, Route};
use version::Version;
use versions::Versions;

/// The ecosystem.
pub struct NuGet;

static INFO: Info = Info {
    name: "nuget",
    mount: "nuget",
    hosts: &["nuget"],
    fixed_mount: false,
    sessions: false,
    key_header: Some("x-nuget-apikey"),
    root_paths: &[],
    package_types: &["nuget"],
};

/// A text that clients show their users, whatever the answer's status.
const WARNING: HeaderName = HeaderName::from_static("x-nuget-warning");

impl Ecosystem for NuGet {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn serve<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Response>> {
        serve(call).boxed()
    }

    fn hit(&self, look: &Look<'_>) -> Option<Response> {
        hit(look)
    }

    /// Plain text; clients show the reason in the status line, and where something was written, the warning.
    fn error(&self, error: &Error, asked: &Asked<'_>) -> Response {
        let status = match error.kind() {
            // What a package is wrong in is the request's fault for these clients; they know no other status for it.
            Kind::Unprocessable => StatusCode::BAD_REQUEST,
            _ => reply::status(error),
        };
        let mut response = reply::text(status, format!("{}\n", error.message()));
        if error.kind() == Kind::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"packhouse\", charset=\"UTF-8\""));
        }
        let reads = matches!(*asked.method, Method::GET | Method::HEAD);
        // An unknown password is asked for first; that is nothing to warn of.
        if !reads && error.kind() != Kind::Unauthenticated {
            warn(&mut response, error.message());
        }
        reply::reason(&mut response, error.message());
        response
    }

    fn pattern(&self, text: &str) -> Result<String> {
        let lower = nuspec::lower(text);
        let (name, star) = lower.strip_suffix('*').map_or((lower.as_str(), false), |name| (name, true));
        let sound = if star { nuspec::is_id(name.trim_end_matches(['.', '-'])) || name.is_empty() } else { nuspec::is_id(name) };
        if sound { Ok(lower) } else { Err(Error::invalid(Subject::Package, "a pattern is a package's id, or the beginning of one and *")) }
    }

    /// Ids are compared without case.
    fn full_names(&self, short: &str, _: &OwnerName) -> Vec<String> {
        vec![nuspec::lower(short)]
    }

    fn describe(&self, version: &Record, _: &[&str]) -> Description {
        let nuspec = nuspec_of(version);
        let license = nuspec.license_expression.or(nuspec.license_file).or(nuspec.license_url);
        Description { summary: nuspec.summary.or(nuspec.description), license, metadata: Map::new() }
    }

    fn announce(&self, told: Told<'_>) -> Announcement {
        announcement::of(told)
    }

    fn clients(&self, base: &BaseUrl) -> Vec<Snippet> {
        let address = base.as_str();
        let insecure = if address.starts_with("http:") { " --allow-insecure-connections" } else { "" };
        let add = format!(
            "dotnet nuget add source {address}/index.json --name packhouse --username token --password $PACKHOUSE_TOKEN \
             --store-password-in-clear-text{insecure}\n"
        );
        let push = format!("dotnet nuget push FILE --source {address}/OWNER/index.json --api-key $PACKHOUSE_TOKEN\n");
        let config = format!(
            "<packageSources><clear /><add key=\"packhouse\" value=\"{address}/index.json\" /></packageSources>\n\
             <packageSourceCredentials><packhouse><add key=\"Username\" value=\"token\" />\
             <add key=\"ClearTextPassword\" value=\"%PACKHOUSE_TOKEN%\" /></packhouse></packageSourceCredentials>\n"
        );
        let snippet = |client, place, lines: String| Snippet { client, place, lines };
        vec![
            snippet("dotnet", "shell", add),
            snippet("dotnet push", "shell", push),
            snippet("nuget, visual studio", "nuget.config, configuration", config),
        ]
    }

    #[cfg(test)]
    fn rights(&self) -> super::rights::Table {
        rights::table()
    }
}

/// Has clients show a text to their users.
fn warn(response: &mut Response, text: &str) {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(400).collect();
    if let Ok(value) = HeaderValue::try_from(plain) {
        response.headers_mut().insert(WARNING, value);
    }
}

/// The specification in a version's record.
fn nuspec_of(version: &Record) -> Nuspec {
    serde_json::from_str(version.manifest.get()).unwrap_or_default()
}

/// Whose packages a request is about.
#[derive(Debug)]
struct Tree {
    view: View,
    owner: Option<OwnerName>,
    /// The address that the tree is at.
    at: BaseUrl,
}

/// A file that is stored, as its path names it.
fn named(path: &str) -> Option<NamedFile> {
    let segments = route::segments(path).ok()?;
    let owner = route::owner(&segments);
    match route::parse(&Method::GET, &segments[usize::from(owner.is_some())..]).ok()? {
        Route::File { name, version, kind } if kind != Kept::PackageHash => {
            let file = versions::file(&name, &version, kind);
            let (is_download, media_type) = (Versions::is_download(&file), HeaderValue::from_static(package::media_type(kind)));
            Some(NamedFile { owner, name, file: file.into(), is_download, media_type, keeping: Keeping::Immutable })
        }
        _ => None,
    }
}

fn hit(look: &Look<'_>) -> Option<Response> {
    look.send(INFO.name, &*look.route(named)?)
}

async fn serve(call: Call<'_>) -> Result<Response> {
    let segments = route::segments(call.path)?;
    let (tree, rest) = locate(&call, &segments).await?;
    match route::parse(&call.method, rest)? {
        Route::Versions { name } => list(&call, &tree, &name).await,
        Route::File { name, version, kind } => file(&call, &tree, &name, &version, kind).await,
        // Boxed, so that the future of the two requests that matter is not as large as that of a publish.
        route => serve_other(call, tree, route).boxed().await,
    }
}

async fn serve_other(call: Call<'_>, tree: Tree, route: Route) -> Result<Response> {
    match route {
        Route::Index => Ok(index(&call, &tree)),
        Route::Versions { name } => list(&call, &tree, &name).await,
        Route::File { name, version, kind } => file(&call, &tree, &name, &version, kind).await,
        Route::Registration { name, hive } => registrations(&call, &tree, &name, hive).await,
        Route::Page { name, hive, lower, upper } => page(&call, &tree, &name, hive, (&lower, &upper)).await,
        Route::Leaf { name, hive, version } => leaf(&call, &tree, &name, hive, &version).await,
        Route::Entry { name, version } => catalog_entry(&call, &tree, &name, &version).await,
        Route::Search => search::search(&call, &tree).await,
        Route::Autocomplete => search::autocomplete(&call, &tree).await,
        Route::Vulnerabilities => audit::index(&call, &tree).await,
        Route::VulnerabilityPage { page } => audit::page(&call, &tree, &page).await,
        Route::Push => publish::push(call, &tree).await,
        Route::PushSymbols => publish::push_symbols(call, &tree).await,
        Route::Unlist { name, version } => change::unlist(&call, &tree, &name, &version).await,
        Route::Relist { name, version } => change::relist(&call, &tree, &name, &version).await,
    }
}

/// Whose packages a path is about, and the path below that.
async fn locate<'a>(call: &Call<'_>, segments: &'a [String]) -> Result<(Tree, &'a [String])> {
    let Some(owner) = route::owner(segments) else {
        return Ok((Tree { view: View::Root, owner: None, at: call.base.clone() }, segments));
    };
    match call.registry.view_of(&owner).await? {
        Some(view) => {
            let at = BaseUrl::new(&format!("{}/{owner}", call.base.as_str()));
            Ok((Tree { view, owner: Some(owner), at }, &segments[1..]))
        }
        None => Err(Error::not_found(Subject::Owner)),
    }
}

/// The service index, for everybody: it says nothing of packages, and a client that pushes with a key reads it without one.
fn index(call: &Call<'_>, tree: &Tree) -> Response {
    answer(call, &service_index::render(&tree.at))
}

async fn list(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let rendered = call.registry.document::<Versions>(Topic::whole(&grant, &plan), (), &tree.at, negotiate::coding(call.headers)).await;
    let rendered = or_sign_in(call, tree, Some(&plan), rendered).await?;
    Ok(document(call, call.lifetime(&plan, Keeping::Revalidated), rendered))
}

async fn file(call: &Call<'_>, tree: &Tree, name: &PackageName, version: &Version, kept: Kept) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let key = versions::file(name, version, kept);
    call.trace.note(|notes| notes.item = Some(key.as_str().into()));
    if kept == Kept::PackageHash {
        return hash(call, tree, &plan, &grant, &versions::file(name, version, Kept::Package)).await;
    }
    let artifact = call.registry.artifact::<Versions>(&grant, &plan, &key).await;
    let artifact = or_sign_in(call, tree, Some(&plan), artifact).await?;
    call.note_verdict(artifact.verdict);
    let media_type = HeaderValue::from_static(package::media_type(kept));
    Ok(artifact.respond(&call.method, call.headers, media_type, call.lifetime(&plan, Keeping::Immutable)))
}

/// The SHA-512 of a hosted package: of others nobody here has one.
async fn hash(call: &Call<'_>, tree: &Tree, plan: &Plan, grant: &Grant, file: &str) -> Result<Response> {
    let row = match plan.head() {
        Some(head) => call.registry.catalog().file(grant, head, file).await?,
        None => None,
    };
    let row = or_sign_in(call, tree, Some(plan), row.ok_or_else(|| Error::not_found(Subject::File))).await?;
    let text = entry::base64_sha512(&row.file).unwrap_or_default();
    let media_type = HeaderValue::from_static(package::media_type(Kept::PackageHash));
    Ok(at_hand(text.into()).respond(&call.method, call.headers, media_type, call.lifetime(plan, Keeping::Immutable)))
}

async fn registrations(call: &Call<'_>, tree: &Tree, name: &PackageName, hive: Hive) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let found = async {
        let plan = call.registry.keeper::<Versions>(&grant, &plan).await?;
        let topic = Topic { grant: &grant, plan: &plan, part: &index_of(hive) };
        call.registry.document::<Registration>(topic, hive, &tree.at, coding(hive)).await
    };
    let rendered = or_sign_in(call, tree, Some(&plan), found.await).await?;
    Ok(document(call, call.lifetime(&plan, Keeping::Revalidated), rendered))
}

async fn page(call: &Call<'_>, tree: &Tree, name: &PackageName, hive: Hive, bounds: (&Version, &Version)) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let found = async {
        let plan = call.registry.keeper::<Versions>(&grant, &plan).await?;
        let topic = Topic { grant: &grant, plan: &plan, part: &index_of(hive) };
        let (index, _) = call.registry.parsed::<Registration>(topic, Need::Usual).await?;
        let part = index.page(bounds.0, bounds.1).ok_or_else(|| Error::not_found(Subject::Version))?;
        let topic = Topic { grant: &grant, plan: &plan, part: &part };
        call.registry.document::<Registration>(topic, hive, &tree.at, coding(hive)).await
    };
    let rendered = or_sign_in(call, tree, Some(&plan), found.await).await?;
    Ok(document(call, call.lifetime(&plan, Keeping::Revalidated), rendered))
}

async fn leaf(call: &Call<'_>, tree: &Tree, name: &PackageName, hive: Hive, version: &Version) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let found = registration_with(call, &grant, &plan, hive, version).await;
    let (registration, verdict) = or_sign_in(call, tree, Some(&plan), found).await?;
    let leaf = registration.leaf(version, &tree.at, hive).ok_or_else(|| Error::not_found(Subject::Version))?;
    Ok(document(call, call.lifetime(&plan, Keeping::Revalidated), rendered(&leaf, verdict, coding(hive))))
}

/// What is said of a version, alone: what a registration's `catalogEntry` leads to.
async fn catalog_entry(call: &Call<'_>, tree: &Tree, name: &PackageName, version: &Version) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let found = registration_with(call, &grant, &plan, Hive::Semver2, version).await;
    let (registration, verdict) = or_sign_in(call, tree, Some(&plan), found).await?;
    let said: &Entry = registration.entry(version).ok_or_else(|| Error::not_found(Subject::Version))?;
    let view = said.view(&entry::Links { at: &tree.at, name }, Hive::Semver2);
    let rendered = rendered(&Value::Object(view), verdict, negotiate::coding(call.headers));
    Ok(document(call, call.lifetime(&plan, Keeping::Revalidated), rendered))
}

/// The registrations of a package among which one version is: the index, or a page that an upstream keeps for itself.
async fn registration_with(
    call: &Call<'_>,
    grant: &Grant,
    plan: &Plan,
    hive: Hive,
    version: &Version,
) -> Result<(Arc<Registration>, Verdict)> {
    let plan = call.registry.keeper::<Versions>(grant, plan).await?;
    for need in [Need::Usual, Need::Newest] {
        let topic = Topic { grant, plan: &plan, part: &index_of(hive) };
        let (index, verdict) = call.registry.parsed::<Registration>(topic, need).await?;
        if index.entry(version).is_some() {
            return Ok((index, verdict));
        }
        for part in index.further(Some(version)) {
            let topic = Topic { grant, plan: &plan, part: &part };
            let (page, verdict) = call.registry.parsed::<Registration>(topic, need).await?;
            if page.entry(version).is_some() {
                return Ok((page, verdict));
            }
        }
    }
    Err(Error::not_found(Subject::Version))
}

fn index_of(hive: Hive) -> Part {
    Part::Index { semver2: hive == Hive::Semver2 }
}

/// A hive's documents are compressed or not, whoever asks: clients choose a hive by that.
fn coding(hive: Hive) -> Coding {
    match hive {
        Hive::Plain => Coding::Identity,
        Hive::Gzip | Hive::Semver2 => Coding::Gzip,
    }
}

/// The right to read a package, noted for the log only once it is given.
async fn read_grant(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<(Plan, Grant)> {
    let granted = call.registry.grant_in(tree.view, INFO.name, &call.caller, name, Action::Read).await;
    let granted = or_sign_in(call, tree, None, granted).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(granted)
}

/// Asks whoever has no token for one where it would say that there is nothing: clients send what they were given only when
/// they are asked. The tree of an owner always asks; that of all does if anybody but the operator is known here, unless new
/// packages are for everybody here. Neither tells thereby what is hosted. Of a package that everybody may read it can be
/// said that a version of it is not there.
///
/// Otherwise «not found» it is. A client with other sources besides goes on with those, but takes anything else for the
/// failure of them all.
async fn or_sign_in<T>(call: &Call<'_>, tree: &Tree, plan: Option<&Plan>, result: Result<T>) -> Result<T> {
    let absent = result.as_ref().is_err_and(|error| error.kind() == Kind::NotFound);
    let known = plan.and_then(Plan::head).is_some_and(|head| is_public(head));
    if !absent || known || call.caller.token().is_some() {
        return result;
    }
    let open = call.registry.access().default_visibility == Visibility::Public;
    if tree.owner.is_some() || (!open && call.registry.identity().has_people().await?) {
        return Err(Error::new(Kind::Unauthenticated, Subject::Package));
    }
    result
}

fn is_public(head: &Head) -> bool {
    head.policy.visibility() == Visibility::Public
}

/// Asks whoever has no token for one before a search in a tree where there is nothing for everybody: an owner's of whom
/// nothing is public, and the tree of all if upstreams are not for everybody either. So a client that was given one finds
/// what its user may read.
async fn expect_public(call: &Call<'_>, tree: &Tree) -> Result<()> {
    if call.caller.token().is_some() {
        return Ok(());
    }
    let owners = call.registry.public_owners(INFO.name).await?;
    let public = match tree.view {
        View::Owner(owner) => owners.contains(&owner),
        View::Root => call.registry.access().anonymous_proxy || !owners.is_empty() || call.registry.upstreams(INFO.name).is_empty(),
    };
    if public { Ok(()) } else { Err(Error::new(Kind::Unauthenticated, Subject::Owner)) }
}

/// Whether the caller may be told what upstreams have.
fn may_ask_upstreams(call: &Call<'_>) -> bool {
    let everything = PackageName::new("*").ok();
    let allowed =
        |name: &PackageName| access::grant_upstream(&call.caller, INFO.name, name, Action::Read, call.registry.access().anonymous_proxy);
    everything.is_some_and(|name| allowed(&name).is_ok())
}

/// How long an answer may be kept that depends on who asks.
fn by_caller(call: &Call<'_>) -> HeaderValue {
    match call.caller.token() {
        None => const { HeaderValue::from_static("public, no-cache") },
        Some(_) => const { HeaderValue::from_static("private, no-cache") },
    }
}

/// A document, and how long it may be kept.
fn document(call: &Call<'_>, lifetime: HeaderValue, rendered: Rendered) -> Response {
    call.note_verdict(rendered.verdict);
    let mut response = if conditional::none_match(call.headers, &rendered.etag) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = reply::typed(StatusCode::OK, "application/json", rendered.bytes);
        if let Some(coding) = rendered.coding.name() {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, rendered.etag);
    headers.insert(header::VARY, const { HeaderValue::from_static("Accept-Encoding") });
    headers.insert(header::CACHE_CONTROL, lifetime);
    headers.insert(CACHE_STATUS, rendered.verdict.header());
    response
}

/// A document that is made for one request.
fn rendered(value: &Value, verdict: Verdict, coding: Coding) -> Rendered {
    // A value always serialises.
    let bytes = Bytes::from(serde_json::to_vec(value).unwrap_or_default());
    registry::document::packed(bytes, coding, verdict)
}

/// An answer that depends on who asks.
fn answer(call: &Call<'_>, value: &Value) -> Response {
    let rendered = rendered(value, Verdict::Hosted, negotiate::coding(call.headers));
    document(call, by_caller(call), rendered)
}

fn at_hand(bytes: Bytes) -> Artifact {
    Artifact {
        size: Some(bytes.len() as u64),
        etag: Some(registry::tag_of(&bytes)),
        content: Content::Bytes(bytes),
        verdict: Verdict::Hosted,
        downloads: None,
    }
}
