//! What gems there are: Ruby's serialised lists for older clients, and the JSON that tools read.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::change::hosted;
use super::gemspec::{self, Dependency, Spec};
use super::marshal::{self, Row};
use super::route::Specs;
use super::{BINARY, INFO, Tree, list_lifetime, sha256_of, spec, version as versions_order};
use crate::access::{self, Action, Grant, Target};
use crate::catalog::{Head, View};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::http::{Response, StatusCode, header, path, reply};
use crate::name::PackageName;
use crate::package::Version;
use crate::registry::roll::Mask;
use crate::registry::{Artifact, Call, Content};
use crate::upstream::{Check, Verdict};

/// Most bytes that an upstream's list unpacks to.
const LIST_BYTES: u64 = 512 << 20;
/// Hits of one search.
const HITS: usize = 30;

/// `GET /specs.4.8.gz` and its relatives.
pub(super) async fn specs(call: &Call<'_>, tree: &Tree, kind: Specs, packed: bool) -> Result<Response> {
    let mut ours = Vec::new();
    for (head, grant) in readable(call, tree).await? {
        for listed in call.registry.catalog().listed(&grant, &head).await? {
            if listed.deleted_at.is_none() {
                let (version, platform) = listed.number.split_once('-').unwrap_or((&listed.number, gemspec::RUBY));
                ours.push(Row { name: head.package.name.to_string(), version: version.to_owned(), platform: platform.to_owned() });
            }
        }
    }
    let (upper, verdict) = upstream(call, kind, !ours.is_empty()).await?;
    let mask = call.registry.mask(tree.view, INFO.name).await?;
    let work = tokio::task::spawn_blocking(move || list(kind, ours, upper.as_ref(), &mask, packed));
    let bytes = work.await.map_err(|error| Error::internal(Subject::Package, error))??;
    call.note_verdict(verdict);
    let etag = Some(crate::registry::tag_of(&bytes));
    let artifact = Artifact { size: Some(bytes.len() as u64), etag, content: Content::Bytes(bytes.into()), verdict, downloads: None };
    Ok(artifact.respond(&call.method, call.headers, BINARY, list_lifetime(call)))
}

/// The upstream's list, packed. Where there is something of ours, its failure only leaves it out.
async fn upstream(call: &Call<'_>, kind: Specs, ours: bool) -> Result<(Option<Bytes>, Verdict)> {
    let ask = Ask { path: kind.file().to_owned(), accept: "*/*", grows: false };
    let check: Check = Arc::new(|bytes| {
        let mut head = [0; 3];
        let read = flate2::read::GzDecoder::new(&bytes[..]).read_exact(&mut head);
        let list = read.is_ok() && head == [4, 8, b'['];
        if list { Ok(()) } else { Err(Error::new(Kind::BadUpstream, Subject::Upstream).saying("this is no list of gems")) }
    });
    match call.registry.upstream_list(INFO.name, &call.caller, &ask, &check).await {
        Ok(Some((bytes, verdict))) => Ok((Some(bytes), verdict)),
        Ok(None) => Ok((None, Verdict::Hosted)),
        Err(error) if ours && error.kind() != Kind::Unauthenticated => {
            tracing::warn!(error = ?error, "upstream failed, serving the list of hosted gems alone");
            Ok((None, Verdict::StaleError))
        }
        Err(error) => Err(error),
    }
}

fn list(kind: Specs, ours: Vec<Row>, upper: Option<&Bytes>, mask: &Mask, packed: bool) -> Result<Vec<u8>> {
    let mut rows = chosen(kind, ours);
    if let Some(upper) = upper {
        let mut unpacked = Vec::new();
        let read = flate2::read::GzDecoder::new(&upper[..]).take(LIST_BYTES).read_to_end(&mut unpacked);
        read.map_err(|error| Error::new(Kind::BadUpstream, Subject::Upstream).because(error))?;
        let mut theirs = marshal::read_rows(&unpacked)?;
        theirs.retain(|row| !mask.hides(&row.name));
        rows.append(&mut theirs);
    }
    rows.sort_unstable();
    let bytes = marshal::rows(rows.iter());
    if !packed {
        return Ok(bytes);
    }
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(&bytes).and_then(|()| out.finish()).map_err(|error| Error::internal(Subject::Package, error))
}

/// The rows that a list is of.
fn chosen(kind: Specs, rows: Vec<Row>) -> Vec<Row> {
    let before = |row: &Row| versions_order::is_prerelease(&row.version);
    match kind {
        Specs::All => rows.into_iter().filter(|row| !before(row)).collect(),
        Specs::Prerelease => rows.into_iter().filter(before).collect(),
        Specs::Latest => {
            let mut newest: HashMap<(String, String), Row> = HashMap::new();
            for row in rows.into_iter().filter(|row| !before(row)) {
                let key = (row.name.clone(), row.platform.clone());
                let known = newest.entry(key).or_insert_with(|| row.clone());
                if versions_order::compare(&row.version, &known.version).is_gt() {
                    *known = row;
                }
            }
            newest.into_values().collect()
        }
    }
}

/// Hosted gems of a view that the caller may read.
async fn readable(call: &Call<'_>, tree: &Tree) -> Result<Vec<(Arc<Head>, Grant)>> {
    let catalog = call.registry.catalog();
    let mut heads = Vec::new();
    catalog.each_head(INFO.name, |head| heads.push(head)).await?;
    let mut found = Vec::new();
    for head in heads.into_iter().filter(|head| head.package.deleted_at.is_none()) {
        let name = &head.package.name;
        let here = match tree.view {
            View::Owner(owner) => head.package.owner == owner,
            View::Root => catalog.head(INFO.name, name).await?.is_some_and(|root| root.package.id == head.package.id),
        };
        let target = Target { ecosystem: INFO.name, name, package: Some(head.package.id) };
        if here && let Ok(grant) = access::grant(&call.caller, target, &head.policy, Action::Read) {
            found.push((head, grant));
        }
    }
    Ok(found)
}

/// `GET /api/v1/gems/NAME.json`.
pub(super) async fn show(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    let (_, newest) = newest(call, tree, name).await?;
    Ok(private(reply::json(StatusCode::OK, &view(call, tree, &newest)?)))
}

/// `GET /api/v1/versions/NAME.json`: all versions, newest first.
pub(super) async fn versions(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    let (head, grant) = hosted(call.registry, tree, &call.caller, name, Action::Read).await?;
    let mut versions = call.registry.catalog().versions(&grant, &head).await?;
    versions.reverse();
    let shown = versions.iter().map(version_view).collect::<Result<Vec<_>>>()?;
    Ok(private(reply::json(StatusCode::OK, &shown)))
}

/// `GET /api/v1/versions/NAME/latest.json`.
pub(super) async fn latest(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    let (_, newest) = newest(call, tree, name).await?;
    Ok(private(reply::json(StatusCode::OK, &json!({ "version": spec(&newest)?.version }))))
}

/// `GET /api/v2/rubygems/NAME/versions/NUMBER.json`, with `?platform=`.
pub(super) async fn version(call: &Call<'_>, tree: &Tree, name: &PackageName, number: &str) -> Result<Response> {
    let (head, grant) = hosted(call.registry, tree, &call.caller, name, Action::Read).await?;
    let platform = path::query(call.query, "platform");
    let number = platform.map_or_else(|| number.to_owned(), |platform| gemspec::number(number, &platform));
    let stored = call.registry.catalog().version(&grant, &head, &number).await?;
    let stored = stored.filter(|stored| stored.value.deleted_at.is_none()).ok_or_else(|| Error::not_found(Subject::Version))?;
    Ok(private(reply::json(StatusCode::OK, &version_view(&stored.value)?)))
}

/// `GET /api/v1/search.json?query=`: hosted gems whose name or summary holds the words.
pub(super) async fn search(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    let query = path::query(call.query, "query").unwrap_or_default().to_lowercase();
    let words: Vec<&str> = query.split_whitespace().collect();
    let mut hits = Vec::new();
    for (head, grant) in readable(call, tree).await? {
        if hits.len() >= HITS {
            break;
        }
        let versions = call.registry.catalog().versions(&grant, &head).await?;
        let Some(newest) = choose(versions) else { continue };
        let said = spec(&newest)?;
        let text = format!("{} {}", said.name, said.summary.as_deref().unwrap_or_default()).to_lowercase();
        if words.iter().all(|word| text.contains(word)) {
            hits.push(view(call, tree, &newest)?);
        }
    }
    Ok(private(reply::json(StatusCode::OK, &hits)))
}

fn private(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, crate::http::HeaderValue::from_static("private, no-cache"));
    response
}

async fn newest(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<(Arc<Head>, Version)> {
    let (head, grant) = hosted(call.registry, tree, &call.caller, name, Action::Read).await?;
    let versions = call.registry.catalog().versions(&grant, &head).await?;
    let newest = choose(versions).ok_or_else(|| Error::not_found(Subject::Version))?;
    Ok((head, newest))
}

/// The version that a plain install takes: the highest release, or the highest at all.
fn choose(versions: Vec<Version>) -> Option<Version> {
    let parts = |version: &Version| {
        let (number, platform) = version.number.split_once('-').unwrap_or((&version.number, gemspec::RUBY));
        (number.to_owned(), platform == gemspec::RUBY)
    };
    versions.into_iter().max_by(|one, two| {
        let ((one, everywhere), (two, too)) = (parts(one), parts(two));
        let released = |number: &str| !versions_order::is_prerelease(number);
        let order = released(&one).cmp(&released(&two)).then_with(|| versions_order::compare(&one, &two));
        order.then_with(|| everywhere.cmp(&too))
    })
}

fn view(call: &Call<'_>, tree: &Tree, version: &Version) -> Result<Value> {
    let said = spec(version)?;
    let owner = tree.owner.as_ref().map(|owner| format!("/{owner}")).unwrap_or_default();
    let mut value = version_view(version)?;
    let more = json!({
        "name": said.name,
        "info": said.description.as_deref().or(said.summary.as_deref()),
        "version": said.version,
        "sha": sha256_of(version).map(|digest| digest.hex()),
        "gem_uri": format!("{}{owner}/gems/{}.gem", call.base.as_str(), said.full_name()),
        "homepage_uri": said.homepage,
        "source_code_uri": said.metadata.get("source_code_uri"),
        "dependencies": dependencies(&said),
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    Ok(value)
}

fn version_view(version: &Version) -> Result<Value> {
    let said = spec(version)?;
    Ok(json!({
        "authors": said.authors.join(", "),
        "built_at": said.date,
        "created_at": version.created_at,
        "description": said.description,
        "summary": said.summary,
        "number": said.version,
        "platform": said.platform,
        "prerelease": versions_order::is_prerelease(&said.version),
        "licenses": said.licenses,
        "metadata": said.metadata,
        "ruby_version": bounds(&said.required_ruby),
        "rubygems_version": bounds(&said.required_rubygems),
        "sha": sha256_of(version).map(|digest| digest.hex()),
        "dependencies": dependencies(&said),
    }))
}

fn dependencies(spec: &Spec) -> Value {
    let list = |runtime: bool| -> Vec<Value> {
        let wanted = spec.dependencies.iter().filter(|dependency| dependency.runtime == runtime);
        wanted.map(|Dependency { name, requirements, .. }| json!({ "name": name, "requirements": bounds(requirements) })).collect()
    };
    json!({ "development": list(false), "runtime": list(true) })
}

fn bounds(requirements: &[gemspec::Requirement]) -> String {
    requirements.iter().map(|gemspec::Requirement(operator, version)| format!("{operator} {version}")).collect::<Vec<_>>().join(", ")
}
