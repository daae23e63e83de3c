//! Search over hosted packages and the upstream, and the list of stars.
//!
//! Only what the caller may read is searched; a private name is found by nobody
//! else. The upstream is asked with the caller's words, and its hits follow ours,
//! without those that a hosted name masks.

use serde_json::{Map, Value, json};

use super::{INFO, route};
use crate::access::{Action, Grant, Target, grant};
use crate::catalog::Head;
use crate::error::{Error, Result, Subject};
use crate::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, path, reply};
use crate::name::PackageName;
use crate::registry::Call;

/// Most hits of one answer.
const SIZE_LIMIT: usize = 250;
/// Most hosted packages that one search looks at.
const HOSTED_LIMIT: usize = 10_000;
/// Packages read from the catalog at once.
const PAGE: usize = 500;
/// Largest answer of an upstream, in bytes.
const UPSTREAM_BYTES: u64 = 8 << 20;

/// A search as npm's clients write one.
struct Search {
    words: Vec<String>,
    scope: Option<String>,
    keywords: Vec<String>,
    maintainer: Option<String>,
}

impl Search {
    fn parse(text: &str) -> Self {
        let mut search = Self { words: Vec::new(), scope: None, keywords: Vec::new(), maintainer: None };
        for word in text.split_whitespace().take(20) {
            match word.split_once(':') {
                Some(("scope", scope)) => search.scope = Some(scope.trim_start_matches('@').to_lowercase()),
                Some(("keywords", list)) => search.keywords.extend(list.split(',').map(str::to_lowercase)),
                Some(("maintainer" | "author", login)) => search.maintainer = Some(login.to_lowercase()),
                _ => search.words.push(word.to_lowercase()),
            }
        }
        search
    }

    fn matches(&self, name: &PackageName, manifest: &Map<String, Value>) -> bool {
        let text = |field: &str| manifest.get(field).and_then(Value::as_str).unwrap_or_default().to_lowercase();
        let keywords: Vec<String> = manifest
            .get("keywords")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_lowercase)
            .collect();
        let publisher = manifest.get("_npmUser").and_then(|user| user.get("name")).and_then(Value::as_str).unwrap_or_default();
        let haystack = [name.as_str().to_lowercase(), text("description"), keywords.join(" ")].join(" ");
        self.words.iter().all(|word| haystack.contains(word.as_str()))
            && self.scope.as_deref().is_none_or(|scope| route::scope(name) == Some(scope))
            && self.keywords.iter().all(|keyword| keywords.contains(keyword))
            && self.maintainer.as_deref().is_none_or(|login| publisher.eq_ignore_ascii_case(login))
    }
}

/// `GET /-/v1/search`.
///
/// # Errors
/// When the store fails.
pub async fn search(call: &Call<'_>) -> Result<Response> {
    let text = path::query(call.query, "text").unwrap_or_default();
    let number = |name: &str, default: usize| path::query(call.query, name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (size, from) = (number("size", 20).min(SIZE_LIMIT), number("from", 0));
    let search = Search::parse(&text);
    let mut hits = Vec::new();
    for head in readable(call).await? {
        if let Some(hit) = hit(call, &head, &search).await? {
            hits.push(hit);
        }
    }
    let hosted = hits.len();
    let mut objects: Vec<Value> = hits.into_iter().skip(from).take(size).collect();
    let mut total = hosted;
    if let Some((found, upstream_total)) = upstream(call, &text, size - objects.len(), from.saturating_sub(hosted)).await {
        total += upstream_total;
        for object in found {
            if objects.len() < size && !is_masked(call, &object).await? {
                objects.push(object);
            }
        }
    }
    let body = json!({ "objects": objects, "total": total, "time": call.registry.clock().now() });
    Ok(reply::json(StatusCode::OK, &body))
}

/// `GET /-/_view/starredByUser?key="login"`.
///
/// # Errors
/// When the store fails.
pub async fn starred(call: &Call<'_>) -> Result<Response> {
    let key = path::query(call.query, "key").unwrap_or_default();
    let login = key.trim_matches('"').to_lowercase();
    let heads = readable(call).await?;
    let rows: Vec<Value> =
        heads.iter().filter(|head| head.package.stars.contains_key(&login)).map(|head| json!({ "value": head.package.name })).collect();
    Ok(reply::json(StatusCode::OK, &json!({ "rows": rows })))
}

/// Hosted packages that the caller may read.
async fn readable(call: &Call<'_>) -> Result<Vec<std::sync::Arc<Head>>> {
    let catalog = call.registry.catalog();
    let mut found = Vec::new();
    let mut after: Option<PackageName> = None;
    let mut seen = 0;
    while seen < HOSTED_LIMIT {
        let heads = catalog.heads(INFO.name, after.as_ref(), PAGE).await?;
        let Some(last) = heads.last() else { break };
        after = Some(last.package.name.clone());
        seen += heads.len();
        let more = heads.len() == PAGE;
        found.extend(heads.into_iter().filter(|head| head.package.deleted_at.is_none() && grant_read(call, head).is_ok()));
        if !more {
            break;
        }
    }
    Ok(found)
}

fn grant_read(call: &Call<'_>, head: &Head) -> Result<Grant> {
    let target = Target { ecosystem: INFO.name, name: &head.package.name, package: Some(head.package.id) };
    grant(&call.caller, target, &head.policy, Action::Read)
}

async fn hit(call: &Call<'_>, head: &Head, search: &Search) -> Result<Option<Value>> {
    let grant = grant_read(call, head)?;
    let package = &head.package;
    let latest = package.tags.iter().find(|(tag, _)| tag.as_str() == "latest").or(package.tags.iter().next());
    let Some((_, number)) = latest else { return Ok(None) };
    let Some(stored) = call.registry.catalog().version(&grant, head, number).await? else { return Ok(None) };
    let manifest: Map<String, Value> =
        serde_json::from_str(stored.value.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))?;
    if !search.matches(&package.name, &manifest) {
        return Ok(None);
    }
    let maintainers: Vec<Value> = call
        .registry
        .catalog()
        .maintainers(head)
        .await?
        .into_iter()
        .map(|person| json!({ "username": person.login, "email": person.email }))
        .collect();
    let publisher = manifest.get("_npmUser").map(|user| json!({ "username": user.get("name"), "email": user.get("email") }));
    Ok(Some(json!({
        "package": {
            "name": package.name,
            "scope": route::scope(&package.name).unwrap_or("unscoped"),
            "version": number,
            "description": manifest.get("description"),
            "keywords": manifest.get("keywords").filter(|keywords| keywords.is_array()).cloned().unwrap_or_else(|| json!([])),
            "date": stored.value.created_at,
            "links": { "homepage": manifest.get("homepage") },
            "publisher": publisher,
            "maintainers": maintainers,
        },
        "score": { "final": 1.0, "detail": { "quality": 1.0, "popularity": 1.0, "maintenance": 1.0 } },
        "searchScore": 1.0,
    })))
}

/// The upstream's hits and their total; a failure only leaves them out.
async fn upstream(call: &Call<'_>, text: &str, size: usize, from: usize) -> Option<(Vec<Value>, usize)> {
    let upstream = call.registry.upstreams(INFO.name).first()?;
    if call.registry.fetcher().is_offline() || text.trim().is_empty() || size == 0 {
        return None;
    }
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("text", text)
        .append_pair("size", &size.to_string())
        .append_pair("from", &from.to_string())
        .finish();
    let headers = HeaderMap::from_iter([
        (header::ACCEPT, HeaderValue::from_static("application/json")),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let answer = upstream.relay(Method::GET, &format!("-/v1/search?{query}"), headers, None, UPSTREAM_BYTES).await;
    let (status, body) = answer.inspect_err(|error| tracing::warn!(error = ?error, "searching the upstream failed")).ok()?;
    if !status.is_success() {
        return None;
    }
    let mut found: Map<String, Value> = serde_json::from_slice(&body).ok()?;
    let total = found.get("total").and_then(Value::as_u64).unwrap_or(0);
    match found.remove("objects")? {
        Value::Array(objects) => Some((objects, usize::try_from(total).unwrap_or(usize::MAX))),
        _ => None,
    }
}

async fn is_masked(call: &Call<'_>, object: &Value) -> Result<bool> {
    let name = object.get("package").and_then(|package| package.get("name")).and_then(Value::as_str).unwrap_or_default();
    let Ok(name) = route::lenient_name(name) else { return Ok(true) };
    if call.registry.catalog().head(INFO.name, &name).await?.is_some() {
        return Ok(true);
    }
    Ok(call.registry.identity().reservations().await?.find(INFO.name, &name).is_some())
}
