//! RubyGems: the registry that `gem` and Bundler speak to, of every age.
//!
//! Newer clients read the compact index: one file that lists everything and only grows, and
//! one small file for each gem. Older ones read Ruby's own serialised lists. Gems never
//! change; a yanked one leaves every list. Errors are plain text, which `gem` prints.

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{Announcement, Asked, Description, Ecosystem, Info, Snippet, Told};
use crate::access::{Action, Grant};
use crate::catalog::View;
use crate::digest::{Algorithm, Digest, Digests, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{BaseUrl, Document as _};
use crate::http::negotiate::Coding;
use crate::http::{HeaderValue, Method, Response, StatusCode, conditional, header, path, reply};
use crate::name::{OwnerName, PackageName};
use crate::package::{File, Version};
use crate::registry::{Artifact, Call, Content, Keeping, Location, Look, NamedFile, Plan, Topic};
use crate::upstream::{Need, Verdict};

pub mod account;
pub mod archive;
pub mod change;
pub mod compact_index;
pub mod gemspec;
pub mod marshal;
pub mod publish;
#[cfg(test)]
mod rights;
pub mod route;
pub mod search;
pub mod version;
pub mod yaml;

use compact_index::InfoFile;
use gemspec::Spec;
use route::Route;

/// The ecosystem.
pub struct RubyGems;

static INFO: Info = Info {
    name: "rubygems",
    mount: "rubygems",
    hosts: &["rubygems"],
    fixed_mount: false,
    sessions: false,
    key_header: None,
    root_paths: &[],
    package_types: &["rubygems"],
};

/// Most gems that the dependency API is asked for at once.
const DEPENDENCIES: usize = 200;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

impl Ecosystem for RubyGems {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn serve<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Response>> {
        serve(call).boxed()
    }

    fn hit(&self, look: &Look<'_>) -> Option<Response> {
        hit(look)
    }

    fn error(&self, error: &Error, _: &Asked<'_>) -> Response {
        let mut response = reply::text(reply::status(error), format!("{}\n", error.message()));
        if error.kind() == Kind::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"packhouse\", charset=\"UTF-8\""));
        }
        response
    }

    fn describe(&self, version: &Version, _: &[&str]) -> Description {
        let spec: Spec = serde_json::from_str(version.manifest.get()).unwrap_or_default();
        let license = (!spec.licenses.is_empty()).then(|| spec.licenses.join(", "));
        Description { summary: spec.summary.or(spec.description), license, metadata: Map::new() }
    }

    fn announce(&self, told: Told<'_>) -> Announcement {
        let spec: Spec = serde_json::from_str(told.version.manifest.get()).unwrap_or_default();
        let base = format!("{}/{}", told.base.as_str(), told.owner);
        let folder = |file: &File| if gemspec::is_gem(&file.name) { "gems" } else { "quick/Marshal.4.8" };
        let address = |file: &File| format!("{base}/{}/{}", folder(file), path::encode(&file.name));
        let platform = if spec.platform == gemspec::RUBY { String::new() } else { format!(" --platform {}", spec.platform) };
        let needed =
            spec.dependencies.iter().map(|one| json!({ "name": one.name, "requirements": one.requirements, "runtime": one.runtime }));
        let metadata = json!([{
            "name": spec.name,
            "description": spec.description,
            "homepage": spec.homepage,
            "version_info": { "version": spec.version },
            "platform": spec.platform,
            "metadata": spec.metadata,
            "dependencies": needed.collect::<Vec<_>>(),
        }]);
        Announcement {
            installation_command: format!("gem install {} --version {}{platform} --source {base}/", spec.name, spec.version),
            package_url: format!("{base}/gems/{}.gem", path::encode(&spec.full_name())),
            prerelease: version::is_prerelease(&spec.version),
            downloads: told.version.files.iter().map(|file| Some(address(file))).collect(),
            members: Map::from_iter([("rubygems_metadata".to_owned(), metadata)]),
            ..Announcement::default()
        }
    }

    fn clients(&self, base: &BaseUrl) -> Vec<Snippet> {
        let address = base.as_str();
        let key = address.replace("://", "__").replace([':', '/'], "__").replace('.', "__").to_uppercase();
        let snippet = |client, place, lines: String| Snippet { client, place, lines };
        vec![
            snippet("bundler", "Gemfile", format!("source \"{address}/\"\n")),
            snippet(
                "bundler token",
                "shell",
                format!("bundle config set --global {address}/ token:$PACKHOUSE_TOKEN   # or BUNDLE_{key}\n"),
            ),
            snippet("gem", "shell", format!("gem sources --add {address}/\n")),
            snippet("gem push", "shell", format!("GEM_HOST_API_KEY=$PACKHOUSE_TOKEN gem push FILE --host {address}/OWNER\n")),
        ]
    }

    #[cfg(test)]
    fn rights(&self) -> super::rights::Table {
        rights::table()
    }
}

/// Whose gems a request is about.
#[derive(Debug)]
struct Tree {
    view: View,
    owner: Option<OwnerName>,
}

/// A gem, as its path names it: of the likeliest name, which goes before the others for whoever may read both.
fn named(path: &str) -> Option<NamedFile> {
    let segments = route::segments(path).ok()?;
    let owner = route::owner(&segments);
    let Route::Gem { full } = route::parse(&Method::GET, &segments[usize::from(owner.is_some())..]).ok()? else { return None };
    let (name, file) = (route::candidates(&full).into_iter().next()?, format!("{full}{}", Part::Gem.ending()));
    let is_download = InfoFile::is_download(&file);
    Some(NamedFile { owner, name, file: file.into(), is_download, media_type: BINARY, keeping: Keeping::Immutable })
}

fn hit(look: &Look<'_>) -> Option<Response> {
    look.send(INFO.name, &*look.route(named)?)
}

async fn serve(call: Call<'_>) -> Result<Response> {
    let segments = route::segments(call.path)?;
    let (tree, rest) = locate(&call, &segments).await?;
    match route::parse(&call.method, rest)? {
        Route::Gem { full } => file(&call, &tree, &full, Part::Gem).await,
        Route::Info { name } => info(&call, &tree, &name).await,
        Route::Versions => versions(&call, &tree).await,
        // Boxed, so that the future of the requests that matter is not as large as that of a publish.
        route => serve_other(call, tree, route).boxed().await,
    }
}

async fn serve_other(call: Call<'_>, tree: Tree, route: Route) -> Result<Response> {
    match route {
        Route::Gem { full } => file(&call, &tree, &full, Part::Gem).await,
        Route::Info { name } => info(&call, &tree, &name).await,
        Route::Versions => versions(&call, &tree).await,
        Route::Front => Ok(reply::text(StatusCode::OK, "packhouse\n")),
        Route::Names => names(&call, &tree).await,
        Route::Quick { full } => file(&call, &tree, &full, Part::Quick).await,
        Route::Specs { kind, packed } => search::specs(&call, &tree, kind, packed).await,
        Route::Dependencies => dependencies(&call, &tree).await,
        Route::Show { name } => search::show(&call, &tree, &name).await,
        Route::ListVersions { name } => search::versions(&call, &tree, &name).await,
        Route::Latest { name } => search::latest(&call, &tree, &name).await,
        Route::ShowVersion { name, number } => search::version(&call, &tree, &name, &number).await,
        Route::Search => search::search(&call, &tree).await,
        Route::Push => publish::push(call, &tree).await,
        Route::Yank => change::yank(call, &tree).await,
        Route::Unyank => change::unyank(call, &tree).await,
        Route::Owners { name, yaml } => account::owners(&call, &tree, &name, yaml).await,
        Route::AddOwner { name } => account::add_owner(call, &tree, &name).await,
        Route::RemoveOwner { name } => account::remove_owner(call, &tree, &name).await,
        Route::SignIn => account::sign_in(&call),
        Route::Profile => account::profile(&call),
    }
}

/// Whose gems a path is about, and the path below that.
async fn locate<'a>(call: &Call<'_>, segments: &'a [String]) -> Result<(Tree, &'a [String])> {
    let Some(owner) = route::owner(segments) else { return Ok((Tree { view: View::Root, owner: None }, segments)) };
    match call.registry.view_of(&owner).await? {
        Some(view) => Ok((Tree { view, owner: Some(owner) }, &segments[1..])),
        None => Err(Error::not_found(Subject::Owner)),
    }
}

async fn versions(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    let (rolled, verdict) = call.registry.roll::<InfoFile>(tree.view, INFO.name, &call.caller).await?;
    call.note_verdict(verdict);
    Ok(index(call, rolled.bytes.clone(), &rolled.digests, verdict, list_lifetime(call)))
}

/// Every name of the list that has a version left.
async fn names(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    let (rolled, verdict) = call.registry.roll::<InfoFile>(tree.view, INFO.name, &call.caller).await?;
    let text = compact_index::names(std::str::from_utf8(&rolled.bytes).unwrap_or_default());
    let digests = digests(text.as_bytes());
    Ok(index(call, text.into(), &digests, verdict, list_lifetime(call)))
}

/// What is listed depends on who asks, so that no shared cache may keep it for another.
fn list_lifetime(call: &Call<'_>) -> HeaderValue {
    match call.caller.id() {
        None => const { HeaderValue::from_static("public, no-cache") },
        Some(_) => const { HeaderValue::from_static("private, no-cache") },
    }
}

async fn info(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    let (plan, grant) = read_grant(call, tree, name).await?;
    let rendered = call.registry.document::<InfoFile>(Topic::whole(&grant, &plan), (), &call.base, Coding::Identity).await?;
    call.note_verdict(rendered.verdict);
    let digests = digests(&rendered.bytes);
    Ok(index(call, rendered.bytes, &digests, rendered.verdict, call.lifetime(&plan, Keeping::Revalidated)))
}

/// An index file: its entity tag is its MD5, which older Bundlers compare with what they have; newer ones want the digest.
fn index(call: &Call<'_>, bytes: Bytes, digests: &Digests, verdict: Verdict, lifetime: HeaderValue) -> Response {
    let md5 = digests.get(Algorithm::Md5).map(|digest| digest.hex()).unwrap_or_default();
    let etag = HeaderValue::try_from(format!("\"{md5}\"")).ok();
    let size = Some(bytes.len() as u64);
    let artifact = Artifact { content: Content::Bytes(bytes), size, etag, verdict, downloads: None };
    let mut response = artifact.respond(&call.method, call.headers, TEXT, lifetime);
    conditional::promise(response.headers_mut(), &digests.sha256);
    response
}

/// The two files of a gem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Itself.
    Gem,
    /// Its specification, for older installers.
    Quick,
}

impl Part {
    const fn ending(self) -> &'static str {
        match self {
            Self::Gem => ".gem",
            Self::Quick => ".gemspec.rz",
        }
    }
}

/// A file of the first gem that a full name may mean and that has it.
async fn file(call: &Call<'_>, tree: &Tree, full: &str, part: Part) -> Result<Response> {
    let file = format!("{full}{}", part.ending());
    call.trace.note(|notes| notes.item = Some(file.as_str().into()));
    for name in route::candidates(full) {
        let found = async {
            let (plan, grant) = read_grant(call, tree, &name).await?;
            let artifact = match part {
                Part::Gem => call.registry.artifact::<InfoFile>(&grant, &plan, &file).await?,
                Part::Quick => quick(call, &plan, &grant, full, &file).await?,
            };
            call.note_verdict(artifact.verdict);
            Ok::<_, Error>(artifact.respond(&call.method, call.headers, BINARY, call.lifetime(&plan, Keeping::Immutable)))
        };
        match found.await {
            Err(error) if error.kind() == Kind::NotFound => {}
            result => return result,
        }
    }
    Err(Error::not_found(Subject::File).saying(format!("there is no gem {full}")))
}

async fn quick(call: &Call<'_>, plan: &Plan, grant: &Grant, full: &str, file: &str) -> Result<Artifact> {
    let number = full.get(grant.name().as_str().len() + 1..).unwrap_or_default();
    if !plan.upstreams().is_empty() {
        // Only what the index lists is asked for: the name may end elsewhere.
        let (info, _) = call.registry.parsed::<InfoFile>(Topic::whole(grant, plan), Need::Usual).await?;
        if !info.numbers().any(|listed| listed == number) {
            return Err(Error::not_found(Subject::File));
        }
    }
    let path = format!("quick/Marshal.4.8/{}", path::encode(file));
    call.registry.artifact_at(grant, plan, file, &Location { version: number, path, checksums: &[], is_download: false }).await
}

/// What gems need, for Bundlers that do not know the compact index.
async fn dependencies(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    let asked = path::query(call.query, "gems").unwrap_or_default();
    let names: Vec<&str> = asked.split(',').filter(|name| !name.is_empty()).collect();
    if names.len() > DEPENDENCIES {
        return Err(Error::new(Kind::TooLarge, Subject::Request).saying(format!("at most {DEPENDENCIES} gems can be asked for at once")));
    }
    let mut needs = Vec::new();
    for name in names {
        let Ok(name) = route::gem(name) else { continue };
        let found = async {
            let (plan, grant) = read_grant(call, tree, &name).await?;
            call.registry.parsed::<InfoFile>(Topic::whole(&grant, &plan), Need::Usual).await
        };
        match found.await {
            Ok((info, _)) => needs.extend(info.needs()),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut response = reply::typed(StatusCode::OK, "application/octet-stream", Bytes::from(marshal::needs(&needs)));
    response.headers_mut().insert(header::CACHE_CONTROL, list_lifetime(call));
    Ok(response)
}

/// The right to read a gem, noted for the log only once it is given.
async fn read_grant(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<(Plan, Grant)> {
    let granted = call.registry.grant_in(tree.view, INFO.name, &call.caller, name, Action::Read).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(granted)
}

fn digests(bytes: &[u8]) -> Digests {
    let mut hasher = Hasher::new(&[Algorithm::Md5]);
    hasher.update(bytes);
    hasher.finish()
}

/// The specification in a version's record.
fn spec(version: &Version) -> Result<Spec> {
    serde_json::from_str(version.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))
}

/// A form that a client sends: in the body, or in the address as some proxies leave it.
async fn form(call: Call<'_>) -> Result<Map<String, Value>> {
    let query = call.query.unwrap_or_default().to_owned();
    let body = call.body.read(64 << 10).await?;
    let pairs = url::form_urlencoded::parse(query.as_bytes()).chain(url::form_urlencoded::parse(&body));
    Ok(pairs.map(|(name, value)| (name.into_owned(), json!(value))).collect())
}

fn field<'a>(form: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    form.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The digest of a blob as RubyGems shows it.
fn sha256_of(version: &Version) -> Option<Digest> {
    version.files.iter().find(|file| gemspec::is_gem(&file.name)).map(|file| file.sha256)
}
