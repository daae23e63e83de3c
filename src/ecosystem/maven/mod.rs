//! Maven: the repository that Maven, Gradle and their relatives read and deploy to.
//!
//! A repository is a tree of files without an index. Release files never change; metadata
//! does, and is computed here. Checksum files are made from the bytes that are served. In an
//! owner's tree whoever has no token is asked for one instead of being told that a file is
//! not there: on a 404 a client that deploys a snapshot begins to count builds anew.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Map;

use super::{Announcement, Asked, Description, Ecosystem, Info, Snippet, Told};
use crate::access::{self, Action, Grant, Target};
use crate::catalog::{Head, View};
use crate::digest::{Algorithm, Digests, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{BaseUrl, Document as _};
use crate::http::negotiate::Coding;
use crate::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, path, reply};
use crate::name::{OwnerName, PackageName, RepositoryName};
use crate::package::{Version, Visibility};
use crate::registry::{self, Artifact, Call, Content, Keeping, Location, Look, NamedFile, Plan, Topic};
use crate::upstream::{Need, Verdict};

pub mod metadata;
pub mod order;
pub mod plugin;
pub mod pom;
pub mod publish;
#[cfg(test)]
mod rights;
pub mod route;

use metadata::{Metadata, Part, Plugin};
use pom::Pom;
use route::{Coordinates, Folder, Route};

/// The ecosystem.
pub struct Maven;

static INFO: Info = Info {
    name: "maven",
    mount: "maven",
    hosts: &["maven"],
    fixed_mount: false,
    sessions: false,
    key_header: None,
    root_paths: &[],
    package_types: &["maven"],
};

/// Where upstreams keep the digests of their files.
const CHECKSUMS: &[(&str, Algorithm)] = &[(".sha1", Algorithm::Sha1), (".md5", Algorithm::Md5)];

/// Headers that spare clients the checksum file.
const CHECKSUM_HEADERS: [(HeaderName, Algorithm); 4] = [
    (HeaderName::from_static("x-checksum-md5"), Algorithm::Md5),
    (HeaderName::from_static("x-checksum-sha1"), Algorithm::Sha1),
    (HeaderName::from_static("x-checksum-sha256"), Algorithm::Sha256),
    (HeaderName::from_static("x-checksum-sha512"), Algorithm::Sha512),
];

/// Packages of a group that are looked at for plugins.
const PLUGINS: usize = 1000;

impl Ecosystem for Maven {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn serve<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Response>> {
        serve(call).boxed()
    }

    fn hit(&self, look: &Look<'_>) -> Option<Response> {
        hit(look)
    }

    /// Plain text; older clients show nothing but the reason in the status line, so it says the same.
    fn error(&self, error: &Error, _: &Asked<'_>) -> Response {
        let status = reply::status(error);
        let mut response = reply::text(status, format!("{}\n", error.message()));
        if error.kind() == Kind::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"packhouse\", charset=\"UTF-8\""));
        }
        if error.kind() == Kind::MethodNotAllowed {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, PUT"));
        }
        reply::reason(&mut response, error.message());
        response
    }

    /// GitHub joins group and artifact by a dot.
    fn short_name<'a>(&self, name: &'a PackageName, _: &OwnerName) -> Option<Cow<'a, str>> {
        Some(name.as_str().replacen(':', ".", 1).into())
    }

    fn full_names(&self, short: &str, _: &OwnerName) -> Vec<String> {
        if short.contains(':') {
            return vec![short.to_owned()];
        }
        // Artifacts' ids seldom have dots, so that the last one is tried first.
        let dots = short.rmatch_indices('.').take(64);
        dots.map(|(at, _)| format!("{}:{}", &short[..at], &short[at + 1..])).collect()
    }

    fn describe(&self, version: &Version, _: &[&str]) -> Description {
        let Facts { pom, .. } = facts(version);
        let license = (!pom.licenses.is_empty()).then(|| pom.licenses.join(", "));
        Description { summary: pom.description.or(pom.name), license, metadata: Map::new() }
    }

    fn announce(&self, told: Told<'_>) -> Announcement {
        let folder = route::package_folder(&told.package.name);
        // A word that begins groups is read as no owner; the package is in the common tree too.
        let tree = if route::begins_groups(told.owner.as_str()) { String::new() } else { format!("{}/*/", told.owner) };
        let base = format!("{}/{tree}{folder}", told.base.as_str());
        Announcement {
            installation_command: format!("mvn dependency:get -Dartifact={}:{}", told.package.name, told.version.number),
            package_url: format!("{base}/{}", path::encode(&told.version.number)),
            prerelease: told.version.number.ends_with(route::SNAPSHOT),
            // A file's name in its package begins with the folder of its version.
            downloads: told.version.files.iter().map(|file| Some(format!("{base}/{}", address(&file.name)))).collect(),
            ..Announcement::default()
        }
    }

    fn clients(&self, base: &BaseUrl) -> Vec<Snippet> {
        let address = base.as_str();
        let insecure = if address.starts_with("http:") { "allowInsecureProtocol = true; " } else { "" };
        let mirror = format!("<mirror><id>packhouse</id><mirrorOf>*</mirrorOf><url>{address}/</url></mirror>\n");
        let server =
            "<server><id>packhouse</id><username>token</username><password>${env.PACKHOUSE_TOKEN}</password></server>\n".to_owned();
        let distribution = format!("<repository><id>packhouse</id><url>{address}/OWNER/REPO</url></repository>\n");
        let credentials = "credentials { username = 'token'; password = System.getenv('PACKHOUSE_TOKEN') }";
        let gradle = format!("maven {{ url = '{address}/'; {insecure}{credentials} }}\n");
        let snippet = |client, place, lines: String| Snippet { client, place, lines };
        vec![
            snippet("maven", "~/.m2/settings.xml, mirrors", mirror),
            snippet("maven token", "~/.m2/settings.xml, servers", server),
            snippet("maven deploy", "pom.xml, distributionManagement", distribution),
            snippet("gradle", "build.gradle, repositories", gradle),
        ]
    }

    #[cfg(test)]
    fn rights(&self) -> super::rights::Table {
        rights::table()
    }
}

/// A path with its segments escaped.
fn address(path: &str) -> String {
    path.split('/').map(path::encode).collect::<Vec<_>>().join("/")
}

/// What the record of a version holds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    pom: Pom,
    plugin: Option<plugin::Descriptor>,
}

fn facts(version: &Version) -> Facts {
    serde_json::from_str(version.manifest.get()).unwrap_or_default()
}

/// Whose tree a request is about.
#[derive(Debug)]
struct Tree {
    view: View,
    owner: Option<(OwnerName, Option<RepositoryName>)>,
}

/// A file that is stored, as its path names it where the owner that it may begin with is one.
fn named(path: &str) -> Option<NamedFile> {
    let segments = route::segments(path).ok()?;
    let owner = route::owner(&segments).map(|(owner, _)| owner);
    let rest = if owner.is_some() { &segments[2..] } else { &segments };
    let Route { target: route::Target::File(coordinates), checksum: None } = route::parse(rest).ok()? else { return None };
    Some(NamedFile {
        owner,
        name: coordinates.name().ok()?,
        file: coordinates.key().into(),
        is_download: is_download(&coordinates),
        media_type: media_type(&coordinates.file),
        keeping: keeping(&coordinates),
    })
}

fn hit(look: &Look<'_>) -> Option<Response> {
    let named = look.route(named)?;
    let (plan, grant) = look.grant(look.view(named.owner.as_ref())?, INFO.name, &named.name)?;
    let hosted = match plan.head() {
        Some(head) => look.registry.catalog().file_in_memory(&grant, head, &named.file)?,
        None => None,
    };
    let mut response = look.send(INFO.name, &named)?;
    if let Some(row) = hosted {
        checksum_headers(&mut response, |algorithm| row.file.digest(algorithm).map(|digest| digest.hex()));
    }
    Some(response)
}

async fn serve(call: Call<'_>) -> Result<Response> {
    let segments = route::segments(call.path)?;
    let (tree, rest) = locate(&call, &segments).await?;
    match call.method {
        Method::GET | Method::HEAD => {
            let route = route::parse(rest)?;
            read(&call, &tree, &route).await
        }
        Method::PUT => publish::put(call, &tree, rest).boxed().await,
        _ => Err(Error::new(Kind::MethodNotAllowed, Subject::Route)),
    }
}

/// Whose tree a path is in, and the path within it.
async fn locate<'a>(call: &Call<'_>, segments: &'a [String]) -> Result<(Tree, &'a [String])> {
    if let Some(owner) = route::owner(segments)
        && let Some(view) = call.registry.view_of(&owner.0).await?
    {
        return Ok((Tree { view, owner: Some(owner) }, &segments[2..]));
    }
    Ok((Tree { view: View::Root, owner: None }, segments))
}

async fn read(call: &Call<'_>, tree: &Tree, route: &Route) -> Result<Response> {
    match &route.target {
        route::Target::File(coordinates) => file(call, tree, coordinates, route.checksum).await,
        route::Target::Metadata(folder) => metadata(call, tree, folder, route.checksum).boxed().await,
    }
}

async fn file(call: &Call<'_>, tree: &Tree, coordinates: &Coordinates, checksum: Option<Algorithm>) -> Result<Response> {
    let name = coordinates.name()?;
    let (plan, grant) = read_grant(call, tree, &name).await?;
    let key = coordinates.key();
    call.trace.note(|notes| notes.item = Some(key.as_str().into()));
    let answer = async {
        match checksum {
            None => whole_file(call, &plan, &grant, coordinates, &key).await,
            Some(algorithm) => checksum_of(call, &plan, &grant, coordinates, &key, algorithm).await,
        }
    };
    answer.await.map_err(|error| or_sign_in(call, tree, plan.head().map(|head| &**head), error))
}

async fn whole_file(call: &Call<'_>, plan: &Plan, grant: &Grant, coordinates: &Coordinates, key: &str) -> Result<Response> {
    let artifact = call.registry.artifact_at(grant, plan, key, &location(coordinates, CHECKSUMS)).await?;
    call.note_verdict(artifact.verdict);
    let hosted = artifact.verdict == Verdict::Hosted;
    let lifetime = call.lifetime(plan, keeping(coordinates));
    let mut response = artifact.respond(&call.method, call.headers, media_type(&coordinates.file), lifetime);
    if hosted
        && let Some(head) = plan.head()
        && let Some(row) = call.registry.catalog().file(grant, head, key).await?
    {
        checksum_headers(&mut response, |algorithm| row.file.digest(algorithm).map(|digest| digest.hex()));
    }
    Ok(response)
}

/// A snapshot's file without the number of its build is another one with the next build.
fn keeping(coordinates: &Coordinates) -> Keeping {
    let changes = coordinates.is_snapshot() && coordinates.shape().is_ok_and(|shape| shape.build.is_none());
    if changes { Keeping::Revalidated } else { Keeping::Immutable }
}

async fn checksum_of(
    call: &Call<'_>,
    plan: &Plan,
    grant: &Grant,
    coordinates: &Coordinates,
    key: &str,
    algorithm: Algorithm,
) -> Result<Response> {
    let hosted = match plan.head() {
        Some(head) => call.registry.catalog().file(grant, head, key).await?,
        None => None,
    };
    let (digest, verdict) = if let Some(row) = hosted {
        (row.file.digest(algorithm), Verdict::Hosted)
    } else {
        let suffix = format!(".{}", algorithm.name());
        let checksums = [(suffix.as_str(), algorithm)];
        (call.registry.checksum_at(grant, plan, &location(coordinates, &checksums)).await?, Verdict::Hit)
    };
    let digest = digest.ok_or_else(|| Error::not_found(Subject::File))?;
    call.note_verdict(verdict);
    Ok(bytes(digest.hex().into(), verdict).respond(&call.method, call.headers, TEXT, call.lifetime(plan, Keeping::Revalidated)))
}

/// The metadata of a folder: of a snapshot, of an artifact, of a group's plugins, or of several of these at once.
async fn metadata(call: &Call<'_>, tree: &Tree, folder: &Folder, checksum: Option<Algorithm>) -> Result<Response> {
    let plugins = plugins(call, tree, &folder.0.join(".")).await?;
    let mut refusal = Error::not_found(Subject::Package);
    let mut head = None;
    for (name, part) in candidates(folder) {
        let found = async {
            let (plan, grant) = read_grant(call, tree, &name).await?;
            head = plan.head().cloned();
            let topic = Topic { grant: &grant, plan: &plan, part: &part };
            let rendered = call.registry.document::<Metadata>(topic, (), &call.base, Coding::Identity).await?;
            if plugins.is_empty() {
                return Ok::<_, Error>((rendered.bytes, rendered.verdict, call.lifetime(&plan, Keeping::Revalidated)));
            }
            let (document, verdict) = call.registry.parsed::<Metadata>(topic, Need::Usual).await?;
            let mut document = (*document).clone();
            document.add_plugins(plugins.clone());
            Ok((document.render(&call.base, ()), verdict, call.lifetime(&plan, Keeping::Revalidated)))
        };
        match found.await {
            Ok((text, verdict, lifetime)) => return Ok(metadata_response(call, text, verdict, lifetime, checksum)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) if error.kind() == Kind::Unauthenticated => refusal = error,
            Err(error) => return Err(error),
        }
    }
    if plugins.is_empty() {
        return Err(or_sign_in(call, tree, head.as_deref(), refusal));
    }
    let text = Metadata::of_plugins(plugins).render(&call.base, ());
    Ok(metadata_response(call, text, Verdict::Hosted, const { HeaderValue::from_static("private, no-cache") }, checksum))
}

/// What a folder's metadata can be of: the builds of a snapshot, the versions of an artifact.
fn candidates(folder: &Folder) -> impl Iterator<Item = (PackageName, Part)> {
    let name = |segments: &[String]| {
        let (artifact, group) = segments.split_last().filter(|(_, group)| !group.is_empty())?;
        route::name(&group.join("."), artifact).ok()
    };
    let builds = folder.0.split_last().filter(|(version, _)| version.ends_with(route::SNAPSHOT));
    let builds = builds.and_then(|(version, rest)| Some((name(rest)?, Part::Builds(version.clone()))));
    builds.into_iter().chain(name(&folder.0).map(|name| (name, Part::Versions)))
}

fn metadata_response(call: &Call<'_>, text: Bytes, verdict: Verdict, lifetime: HeaderValue, checksum: Option<Algorithm>) -> Response {
    call.note_verdict(verdict);
    let digests = digests(&text);
    if let Some(algorithm) = checksum {
        let hex = digests.get(algorithm).map(|digest| digest.hex()).unwrap_or_default();
        return bytes(hex.into(), verdict).respond(&call.method, call.headers, TEXT, lifetime);
    }
    let mut response = bytes(text, verdict).respond(&call.method, call.headers, XML, lifetime);
    checksum_headers(&mut response, |algorithm| digests.get(algorithm).map(|digest| digest.hex()));
    response
}

/// The plugins of a group that the caller may read.
async fn plugins(call: &Call<'_>, tree: &Tree, group: &str) -> Result<Vec<Plugin>> {
    let catalog = call.registry.catalog();
    let mut plugins = Vec::new();
    for head in catalog.heads_in(tree.view, INFO.name, &format!("{group}:"), PLUGINS).await? {
        let target = Target { ecosystem: INFO.name, name: &head.package.name, package: Some(head.package.id) };
        let Ok(grant) = access::grant(&call.caller, target, &head.policy, Action::Read) else { continue };
        let listed = catalog.listed(&grant, &head).await?;
        let Some(newest) = listed.iter().find(|version| version.deleted_at.is_none()) else { continue };
        let Some(version) = catalog.version(&grant, &head, &newest.number).await? else { continue };
        if let Some(descriptor) = facts(&version.value).plugin {
            let artifact = head.package.name.as_str().split_once(':').map_or("", |(_, artifact)| artifact).to_owned();
            plugins.push(Plugin { name: descriptor.name, prefix: descriptor.prefix, artifact });
        }
    }
    Ok(plugins)
}

/// The right to read a package, noted for the log only once it is given.
async fn read_grant(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<(Plan, Grant)> {
    let granted = call.registry.grant_in(tree.view, INFO.name, &call.caller, name, Action::Read).await;
    let granted = granted.map_err(|error| or_sign_in(call, tree, None, error))?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(granted)
}

/// An owner's tree asks whoever has no token for one where it would say that there is nothing,
/// unless the package is there for everyone to see.
fn or_sign_in(call: &Call<'_>, tree: &Tree, head: Option<&Head>, error: Error) -> Error {
    let public = head.is_some_and(|head| head.policy.visibility() == Visibility::Public);
    if error.kind() == Kind::NotFound && tree.owner.is_some() && call.caller.id().is_none() && !public {
        return Error::new(Kind::Unauthenticated, Subject::Package);
    }
    error
}

fn location<'a>(coordinates: &'a Coordinates, checksums: &'a [(&'a str, Algorithm)]) -> Location<'a> {
    let Coordinates { group, artifact, version, file } = coordinates;
    let segments = group.split('.').chain([artifact.as_str(), version.as_str(), file.as_str()]);
    let path = segments.map(path::encode).collect::<Vec<_>>().join("/");
    Location { version, path, checksums, is_download: is_download(coordinates) }
}

/// Whether fetching a file is fetching its version: of the files beside it, most clients take some and others do not.
fn is_download(coordinates: &Coordinates) -> bool {
    let shape = coordinates.shape();
    shape.is_ok_and(|shape| shape.classifier.is_none() && !["pom", "module"].contains(&shape.extension) && !shape.is_signature())
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const XML: HeaderValue = HeaderValue::from_static("application/xml");

fn media_type(file: &str) -> HeaderValue {
    HeaderValue::from_static(media_type_of(file))
}

/// The media type of a file, by its name.
fn media_type_of(file: &str) -> &'static str {
    match file.rsplit('.').next().unwrap_or_default() {
        "jar" | "war" | "ear" | "aar" => "application/java-archive",
        "pom" | "xml" => "application/xml",
        "module" => "application/vnd.org.gradle.module+json",
        "json" => "application/json",
        "asc" | "txt" => "text/plain",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        _ => "application/octet-stream",
    }
}

fn checksum_headers(response: &mut Response, hex: impl Fn(Algorithm) -> Option<String>) {
    if response.status() == StatusCode::NOT_MODIFIED {
        return;
    }
    for (name, algorithm) in CHECKSUM_HEADERS {
        if let Some(value) = hex(algorithm).and_then(|hex| HeaderValue::try_from(hex).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn digests(bytes: &[u8]) -> Digests {
    let mut hasher = Hasher::new(&[Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha512]);
    hasher.update(bytes);
    hasher.finish()
}

fn bytes(bytes: Bytes, verdict: Verdict) -> Artifact {
    Artifact {
        size: Some(bytes.len() as u64),
        etag: Some(registry::tag_of(&bytes)),
        content: Content::Bytes(bytes),
        verdict,
        downloads: None,
    }
}
