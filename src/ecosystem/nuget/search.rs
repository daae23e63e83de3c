//! What packages there are, for whoever looks for some: search, and completing what is typed.
//!
//! Of what is hosted only that is searched which the caller may read. What an upstream finds follows it, without
//! the names that are not asked for there; how it finds is its own affair. Without an answer from it ours stands alone.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::entry::{self, Address, Entry, Links};
use super::query::{self, Query};
use super::registration::{Part, Registration};
use super::route::{self, Hive, Kept};
use super::service_index::ServiceIndex;
use super::version::Version;
use super::versions::Versions;
use super::{INFO, Tree, answer, expect_public, may_ask_upstreams, nuspec};
use crate::access::{Action, Grant};
use crate::catalog::Head;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::http::{Response, path};
use crate::registry::roll::Mask;
use crate::registry::{Call, Plan, Topic};
use crate::upstream::{Check, Need};

/// Most hosted packages that one search looks at.
const HOSTED: usize = 10_000;
/// Farthest that a search goes, and most hits of one answer.
const SKIP: usize = 3000;
const TAKE: usize = 1000;
/// Most pages of a package's registrations that are read for its versions.
const PAGES: usize = 200;

/// What is asked for.
struct Asked {
    text: String,
    skip: usize,
    take: usize,
    prerelease: bool,
    semver2: bool,
    package_type: Option<String>,
}

impl Asked {
    fn of(call: &Call<'_>) -> Self {
        let parameter = |name: &str| path::query(call.query, name).filter(|text| !text.is_empty());
        let number =
            |name: &str, usual: usize, most: usize| parameter(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(usual).min(most);
        let text = parameter("q").unwrap_or_default().into_owned();
        let end = (0..=query::LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        Self {
            text: text[..end].to_owned(),
            skip: number("skip", 0, SKIP),
            take: number("take", 20, TAKE),
            prerelease: parameter("prerelease").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            semver2: parameter("semVerLevel").and_then(|text| Version::parse(&text)).is_some_and(|level| level.major() >= 2),
            package_type: parameter("packageType").or_else(|| parameter("packageTypeFilter")).map(std::borrow::Cow::into_owned),
        }
    }

    fn hive(&self) -> Hive {
        if self.semver2 { Hive::Semver2 } else { Hive::Gzip }
    }

    /// Whether a version is shown.
    fn shows(&self, entry: &Entry) -> bool {
        entry.listed && (self.prerelease || !entry.version.is_prerelease()) && (self.semver2 || !entry.is_semver2())
    }

    /// What to ask an upstream at an address: the same, from its own beginning.
    fn upstream(&self, address: &str, (skip, take): (usize, usize)) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("q", &self.text).append_pair("skip", &skip.to_string()).append_pair("take", &take.to_string());
        query.append_pair("prerelease", if self.prerelease { "true" } else { "false" });
        if self.semver2 {
            query.append_pair("semVerLevel", "2.0.0");
        }
        if let Some(kind) = &self.package_type {
            query.append_pair("packageType", kind);
        }
        format!("{address}{}{}", if address.contains('?') { '&' } else { '?' }, query.finish())
    }
}

/// A hosted package that fits.
struct Hit {
    rank: u8,
    head: Arc<Head>,
    registration: Arc<Registration>,
}

/// `GET query`.
///
/// # Errors
/// `Unauthenticated` without a token where there is nothing for everybody.
pub(super) async fn search(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    expect_public(call, tree).await?;
    let asked = Asked::of(call);
    let hits = hosted(call, tree, &asked).await?;
    let ours: HashSet<String> = hits.iter().map(|hit| hit.head.package.name.to_string()).collect();
    let mut found = Vec::new();
    let total = hits.len();
    for hit in hits.into_iter().skip(asked.skip).take(asked.take) {
        found.push(hosted_view(call, tree, &asked, &hit).await?);
    }
    let page = (asked.skip.saturating_sub(total), asked.take - found.len());
    let Upstream { hits, total: more } = upstream(call, &asked, page, ServiceIndex::search).await;
    let mask = call.registry.mask(tree.view, INFO.name).await?;
    let theirs = hits.iter().filter_map(|hit| upstream_view(tree, &asked, hit, &mask));
    found.extend(theirs.filter(|(name, _)| !ours.contains(name)).map(|(_, view)| view));
    Ok(answer(call, &json!({ "totalHits": total + more, "data": found })))
}

/// Hosted packages that fit, the best first and always in the same order.
async fn hosted(call: &Call<'_>, tree: &Tree, asked: &Asked) -> Result<Vec<Hit>> {
    let query = Query::parse(&asked.text);
    let mut owners: HashMap<_, String> = HashMap::new();
    let mut hits = Vec::new();
    for (head, grant) in call.registry.readable_heads(tree.view, INFO.name, &call.caller, HOSTED).await? {
        let owner = head.package.owner;
        let known = match owners.remove(&owner) {
            Some(known) => known,
            None => login(call, owner).await?,
        };
        let known = owners.entry(owner).or_insert(known);
        let registration = registration(call, &grant, &head).await?;
        let Some(newest) = registration.entries().rev().find(|entry| asked.shows(entry)) else { continue };
        let kind = |wanted: &String| newest.type_names().iter().any(|kind| kind.eq_ignore_ascii_case(wanted));
        if asked.package_type.as_ref().is_none_or(kind)
            && let Some(rank) = query.rank(newest, known)
        {
            hits.push(Hit { rank, head, registration });
        }
    }
    hits.sort_by(|one, two| (one.rank, &one.head.package.name).cmp(&(two.rank, &two.head.package.name)));
    Ok(hits)
}

async fn login(call: &Call<'_>, owner: crate::package::AccountId) -> Result<String> {
    match call.registry.identity().account(owner).await {
        Ok(account) => Ok(account.login.to_string()),
        Err(error) if error.kind() == Kind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// All that is said of a hosted package, as it is remembered.
async fn registration(call: &Call<'_>, grant: &Grant, head: &Arc<Head>) -> Result<Arc<Registration>> {
    let plan = Plan::Hosted(Arc::clone(head));
    let topic = Topic { grant, plan: &plan, part: &Part::default() };
    Ok(call.registry.parsed::<Registration>(topic, Need::Usual).await?.0)
}

async fn hosted_view(call: &Call<'_>, tree: &Tree, asked: &Asked, hit: &Hit) -> Result<Value> {
    let package = &hit.head.package;
    let links = Links { at: &tree.at, name: &package.name };
    let downloads = call.registry.catalog().downloads().by_version(package.id).await?;
    let shown: Vec<&Entry> = hit.registration.entries().filter(|entry| asked.shows(entry)).collect();
    let newest = shown.last().ok_or_else(|| Error::not_found(Subject::Version))?;
    let versions: Vec<Value> = shown
        .iter()
        .map(|entry| {
            let key = entry.version.key();
            let count = downloads.get(&key).copied().unwrap_or_default();
            json!({ "@id": links.leaf(asked.hive(), &key), "version": entry.version.to_string(), "downloads": count })
        })
        .collect();
    let reservations = call.registry.identity().reservations().await?;
    let verified = reservations.find(INFO.name, &package.name).is_some_and(|reservation| reservation.owner == package.owner);
    let key = newest.version.key();
    let mut view = Map::new();
    let mut put = |name: &str, value: Value| drop(view.insert(name.to_owned(), value));
    put("@id", links.registration(asked.hive()).into());
    put("@type", "Package".into());
    put("registration", links.registration(asked.hive()).into());
    put("id", newest.id.as_str().into());
    put("version", newest.version.to_string().into());
    put("description", newest.description.as_deref().unwrap_or_default().into());
    put("summary", newest.summary.as_deref().unwrap_or_default().into());
    put("title", newest.title.as_deref().unwrap_or(&newest.id).into());
    put("authors", json!(newest.author_list()));
    put("owners", json!([login(call, package.owner).await?]));
    put("tags", json!(newest.tags));
    put("totalDownloads", downloads.values().sum::<u64>().into());
    put("verified", verified.into());
    put("packageTypes", newest.type_names().iter().map(|name| json!({ "name": name })).collect());
    put("versions", versions.into());
    let addresses = [
        ("iconUrl", links.address(newest.icon.as_ref(), &key, Kept::Icon)),
        ("licenseUrl", links.address(newest.license.as_ref(), &key, Kept::License)),
        ("projectUrl", newest.project_url.clone()),
        ("readmeUrl", newest.readme.then(|| links.file(&key, Kept::Readme))),
    ];
    for (name, address) in addresses {
        if let Some(address) = address {
            put(name, address.into());
        }
    }
    Ok(view.into())
}

/// What an upstream found.
#[derive(Default)]
struct Upstream {
    hits: Vec<Value>,
    total: usize,
}

/// What the first upstream finds at one of its places; a failure only leaves it out.
async fn upstream(call: &Call<'_>, asked: &Asked, page: (usize, usize), place: fn(&ServiceIndex) -> Option<&str>) -> Upstream {
    let found = async {
        let Some(upstream) = call.registry.upstreams(INFO.name).first().filter(|_| may_ask_upstreams(call)) else {
            return Ok(Upstream::default());
        };
        let guide: ServiceIndex = call.registry.guide(upstream).await?;
        let Some(address) = place(&guide) else { return Ok(Upstream::default()) };
        let ask = Ask { path: asked.upstream(address, page), accept: "application/json", grows: false };
        let check: Check = Arc::new(|bytes| read(bytes).map(drop));
        let fetcher = call.registry.fetcher();
        let fetched = fetcher.document(upstream, &ask, Need::Usual, &check).await?;
        let Some(body) = fetched.entry.body else { return Ok(Upstream::default()) };
        let bytes = fetcher.body(&body).await.inspect_err(|_| fetcher.forget(upstream, &ask))?;
        read(&bytes)
    };
    found.await.unwrap_or_else(|error| {
        tracing::warn!(error = ?error, "searching the upstream failed");
        Upstream::default()
    })
}

fn read(bytes: &[u8]) -> Result<Upstream> {
    let wrong = || Error::invalid(Subject::Package, "this is no answer to a search");
    let mut found: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| wrong().because(error))?;
    let total = found.get("totalHits").and_then(Value::as_u64).unwrap_or_default();
    match found.remove("data") {
        Some(Value::Array(hits)) => Ok(Upstream { hits, total: usize::try_from(total).unwrap_or(usize::MAX / 2) }),
        _ => Err(wrong()),
    }
}

/// A hit of an upstream with our addresses, and the name that it is of; `None` for what is not asked for there.
fn upstream_view(tree: &Tree, asked: &Asked, hit: &Value, mask: &Mask) -> Option<(String, Value)> {
    let text = |name: &str| entry::text(&hit[name]);
    let id = text("id")?;
    let name = route::id(&id).ok().filter(|name| !mask.hides(name.as_str()))?;
    let newest = Version::parse(&text("version")?)?;
    let links = Links { at: &tree.at, name: &name };
    let versions: Vec<Value> = hit["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let version = Version::parse(&entry::text(&one["version"])?)?;
            let downloads = one["downloads"].as_u64().unwrap_or_default();
            Some(json!({ "@id": links.leaf(asked.hive(), &version.key()), "version": version.to_string(), "downloads": downloads }))
        })
        .collect();
    let kinds = entry::package_types(&hit["packageTypes"]);
    let mut view = Map::new();
    let mut put = |name: &str, value: Value| drop(view.insert(name.to_owned(), value));
    put("@id", links.registration(asked.hive()).into());
    put("@type", "Package".into());
    put("registration", links.registration(asked.hive()).into());
    put("id", id.as_str().into());
    put("version", newest.to_string().into());
    for member in ["description", "summary"] {
        put(member, text(member).unwrap_or_default().into());
    }
    put("title", text("title").unwrap_or_else(|| id.clone()).into());
    put("authors", json!(entry::list(&hit["authors"], &[','])));
    put("owners", json!(entry::list(&hit["owners"], &[','])));
    put("tags", json!(entry::list(&hit["tags"], &[' ', ','])));
    put("totalDownloads", hit["totalDownloads"].as_u64().unwrap_or_default().into());
    // That an upstream knows whose an id is says nothing of whose it is here.
    put("verified", false.into());
    let types: Vec<Value> = kinds.iter().map(|kind| json!({ "name": kind.name })).collect();
    put("packageTypes", if types.is_empty() { json!([{ "name": "Dependency" }]) } else { types.into() });
    put("versions", versions.into());
    for (member, kept) in [("iconUrl", Kept::Icon), ("licenseUrl", Kept::License)] {
        let address = entry::address(&hit[member], &name, &newest, kept);
        if let Some(address) = links.address(address.as_ref(), &newest.key(), kept) {
            put(member, address.into());
        }
    }
    if entry::address(&hit["readmeUrl"], &name, &newest, Kept::Readme) == Some(Address::Ours) {
        put("readmeUrl", links.file(&newest.key(), Kept::Readme).into());
    }
    if let Some(url) = text("projectUrl").filter(|url| entry::is_web(url)) {
        put("projectUrl", url.into());
    }
    Some((name.to_string(), view.into()))
}

/// `GET autocomplete`: ids that begin so, or with `id` the versions of a package.
///
/// # Errors
/// As [`search`].
pub(super) async fn autocomplete(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    expect_public(call, tree).await?;
    let asked = Asked::of(call);
    if let Some(id) = path::query(call.query, "id") {
        return versions(call, tree, &asked, &id).await;
    }
    let wanted = nuspec::lower(&asked.text);
    let all = Asked { text: String::new(), take: TAKE, ..Asked::of(call) };
    let hits = hosted(call, tree, &all).await?;
    let mut ours: Vec<(Reverse<bool>, String)> = hits
        .iter()
        .filter(|hit| hit.head.package.name.as_str().contains(&wanted))
        .map(|hit| {
            let package = &hit.head.package;
            let shown = package.spelling.as_ref().unwrap_or(&package.name).to_string();
            (Reverse(package.name.as_str().starts_with(&wanted)), shown)
        })
        .collect();
    ours.sort();
    let total = ours.len();
    let mut found: Vec<String> = ours.into_iter().skip(asked.skip).take(asked.take).map(|(_, id)| id).collect();
    let page = (asked.skip.saturating_sub(total), asked.take - found.len());
    let Upstream { hits, total: more } = upstream(call, &asked, page, ServiceIndex::autocomplete).await;
    let mask = call.registry.mask(tree.view, INFO.name).await?;
    for id in hits.iter().filter_map(Value::as_str) {
        let known = found.iter().any(|known| nuspec::lower(known) == nuspec::lower(id));
        if !known && route::id(id).is_ok_and(|name| !mask.hides(name.as_str())) {
            found.push(id.to_owned());
        }
    }
    Ok(answer(call, &json!({ "totalHits": total + more, "data": found })))
}

/// The versions of a package that are shown, as many pages as its registrations have.
async fn versions(call: &Call<'_>, tree: &Tree, asked: &Asked, id: &str) -> Result<Response> {
    let found = async {
        let name = route::id(id)?;
        let (plan, grant) = call.registry.grant_in(tree.view, INFO.name, &call.caller, &name, Action::Read).await?;
        let plan = call.registry.keeper::<Versions>(&grant, &plan).await?;
        let topic = Topic { grant: &grant, plan: &plan, part: &Part::Index { semver2: asked.semver2 } };
        let (index, _) = call.registry.parsed::<Registration>(topic, Need::Usual).await?;
        let mut shown: Vec<Version> = index.entries().filter(|entry| asked.shows(entry)).map(|entry| entry.version.clone()).collect();
        for part in index.further(None).iter().take(PAGES) {
            let topic = Topic { grant: &grant, plan: &plan, part };
            let (page, _) = call.registry.parsed::<Registration>(topic, Need::Usual).await?;
            shown.extend(page.entries().filter(|entry| asked.shows(entry)).map(|entry| entry.version.clone()));
        }
        shown.sort_unstable();
        Ok::<_, Error>(shown)
    };
    let shown = match found.await {
        Ok(shown) => shown,
        Err(error) if error.kind() == Kind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let data: Vec<String> = shown.iter().map(Version::normalised).collect();
    Ok(answer(call, &json!({ "totalHits": data.len(), "data": data })))
}
