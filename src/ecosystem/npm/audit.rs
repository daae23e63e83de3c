//! Audits, signing keys and attestations, relayed from the upstream.
//!
//! An audit tells the upstream which packages a project uses. Names that are hosted
//! or reserved here are nobody's business there, so they are taken out first, and
//! so is the project's own name. Advisories for hosted packages are not kept yet.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{INFO, note_verdict, publish, read_grant, read_json, route};
use crate::access::Action;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, reply};
use crate::identity::Caller;
use crate::name::PackageName;
use crate::registry::artifact::CACHE_STATUS;
use crate::registry::{Call, Plan, Registry};
use crate::upstream::{Check, Fetched, Need, Upstream};

/// Largest audit request and answer, in bytes, unpacked.
const AUDIT_BYTES: u64 = 16 << 20;
/// Most different names in one audit.
const AUDIT_NAMES: usize = 20_000;

/// `POST /-/npm/v1/security/advisories/bulk`: `{name: [versions]}` in, advisories by name out.
///
/// # Errors
/// [`Kind::Invalid`] for a body that is no such map.
pub async fn bulk(call: Call<'_>) -> Result<Response> {
    let (registry, caller) = (call.registry, Arc::clone(&call.caller));
    let body = read_json(call, AUDIT_BYTES).await?;
    let asked: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|_| Error::invalid(Subject::Request, "the body is not a map of names to versions"))?;
    if asked.len() > AUDIT_NAMES {
        return Err(Error::new(Kind::TooLarge, Subject::Request).saying(format!("an audit names at most {AUDIT_NAMES} packages")));
    }
    let mut public = Map::new();
    for (name, versions) in asked {
        if is_public(registry, &caller, &name).await? {
            public.insert(name, versions);
        }
    }
    let answer = if public.is_empty() { None } else { relay(registry, "-/npm/v1/security/advisories/bulk", &Value::Object(public)).await };
    Ok(reply::json(StatusCode::OK, &answer.unwrap_or_else(|| json!({}))))
}

/// `POST /-/npm/v1/security/audits` and `…/quick`: the older form, a whole tree.
///
/// # Errors
/// [`Kind::Invalid`] for a body that is no object.
pub async fn quick(call: Call<'_>) -> Result<Response> {
    let (registry, caller) = (call.registry, Arc::clone(&call.caller));
    let path = format!("-/npm/v1/security/{}", if call.path.ends_with("/quick") { "audits/quick" } else { "audits" });
    let body = read_json(call, AUDIT_BYTES).await?;
    let mut tree: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|_| Error::invalid(Subject::Request, "the body is not an object"))?;
    let mut names = std::collections::BTreeSet::new();
    collect_names(&tree, &mut names);
    if names.len() > AUDIT_NAMES {
        return Err(Error::new(Kind::TooLarge, Subject::Request).saying(format!("an audit names at most {AUDIT_NAMES} packages")));
    }
    let total = names.len();
    let mut private = std::collections::BTreeSet::new();
    for name in names {
        if !is_public(registry, &caller, &name).await? {
            private.insert(name);
        }
    }
    tree.remove("name");
    tree.remove("version");
    remove_names(&mut tree, &private);
    let answer = relay(registry, &path, &Value::Object(tree)).await;
    Ok(reply::json(StatusCode::OK, &answer.filter(|answer| answer.get("metadata").is_some()).unwrap_or_else(|| nothing_found(total))))
}

/// `GET /-/npm/v1/keys`: the upstream's signing keys; hosted packages are not signed here.
///
/// # Errors
/// [`Kind::NotFound`] when the upstream signs nothing: only then may a client skip the check.
pub async fn keys(call: &Call<'_>) -> Result<Response> {
    let check: Check = Arc::new(|bytes: &Bytes| has_list(bytes, "keys"));
    let upstream = call.registry.upstreams(INFO.name).first().ok_or_else(|| Error::not_found(Subject::File))?;
    relay_document(call, upstream, "-/npm/v1/keys".to_owned(), &check).await
}

/// `GET /-/npm/v1/attestations/<p>@<version>`.
///
/// # Errors
/// [`Kind::NotFound`] when there are none.
pub async fn attestations(call: &Call<'_>, name: &PackageName, version: &str) -> Result<Response> {
    let (plan, grant) = read_grant(call, name).await?;
    let registry = call.registry;
    if let Some(head) = plan.head() {
        let stored = registry.catalog().version(&grant, head, version).await?.filter(|stored| stored.value.deleted_at.is_none());
        let files = stored.map(|stored| stored.value.files).unwrap_or_default();
        let Some(file) = files.iter().find(|file| file.media_type == publish::BUNDLE) else { return Err(Error::not_found(Subject::File)) };
        let blob =
            registry.blobs().read(&file.sha256).await?.ok_or_else(|| Error::internal(Subject::Blob, "a hosted bundle is missing"))?;
        let bytes = blob.bytes(file.size).await?;
        let bundle: Value = serde_json::from_slice(&bytes).map_err(|error| Error::internal(Subject::File, error))?;
        let predicate_type = std::str::from_utf8(&bytes).ok().and_then(publish::predicate_type);
        let body = json!({ "attestations": [{ "predicateType": predicate_type, "bundle": bundle }] });
        return Ok(reply::json(StatusCode::OK, &body));
    }
    let check: Check = Arc::new(|bytes: &Bytes| has_list(bytes, "attestations"));
    let upstream = plan.upstreams().first().ok_or_else(|| Error::not_found(Subject::File))?;
    let path = format!("-/npm/v1/attestations/{}@{}", name.as_str().replace('/', "%2f"), crate::http::path::encode(version));
    relay_document(call, upstream, path, &check).await
}

async fn relay_document(call: &Call<'_>, upstream: &Arc<Upstream>, path: String, check: &Check) -> Result<Response> {
    let ask = Ask { path, accept: "application/json", grows: false };
    let fetcher = call.registry.fetcher();
    let Fetched { entry, verdict } = fetcher.document(upstream, &ask, Need::Usual, check).await?;
    note_verdict(call, verdict.word());
    let body = entry.body.as_ref().ok_or_else(|| Error::not_found(Subject::File))?;
    let bytes = fetcher.body(body).await.inspect_err(|_| fetcher.forget(upstream, &ask))?;
    let mut response = reply::typed(StatusCode::OK, "application/json", bytes);
    response.headers_mut().insert(CACHE_STATUS, verdict.header());
    Ok(response)
}

/// Whether a name may be spoken of to the upstream: nobody hosts or reserves it here.
async fn is_public(registry: &Registry, caller: &Caller, name: &str) -> Result<bool> {
    let Ok(name) = route::lenient_name(name) else { return Ok(false) };
    match registry.grant(INFO.name, caller, &name, Action::Read).await {
        Ok((Plan::Proxied(_), _)) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Forbidden | Kind::Unauthenticated) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The upstream's answer; a failure is logged and counts as «nothing known», because
/// an audit that fails would stop an install.
async fn relay(registry: &Registry, path: &str, body: &Value) -> Option<Value> {
    let upstream = registry.upstreams(INFO.name).first()?;
    if registry.fetcher().is_offline() {
        return None;
    }
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCEPT, HeaderValue::from_static("application/json")),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let body = serde_json::to_vec(body).ok()?;
    match upstream.relay(Method::POST, path, headers, Some(body.into()), AUDIT_BYTES).await {
        Ok((status, answer)) if status.is_success() => {
            serde_json::from_slice::<Value>(&answer).inspect_err(|error| tracing::warn!(%error, "the upstream's audit cannot be read")).ok()
        }
        Ok((status, _)) => {
            tracing::info!(status = status.as_u16(), "the upstream answers no audits");
            None
        }
        Err(error) => {
            tracing::warn!(error = ?error, "relaying an audit failed");
            None
        }
    }
}

fn has_list(bytes: &Bytes, field: &str) -> Result<()> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| Error::invalid(Subject::File, "not JSON").because(error))?;
    match document.get(field) {
        Some(Value::Array(_)) => Ok(()),
        _ => Err(Error::invalid(Subject::File, "the expected list is missing")),
    }
}

fn collect_names(node: &Map<String, Value>, names: &mut std::collections::BTreeSet<String>) {
    for field in ["requires", "dependencies"] {
        let Some(Value::Object(entries)) = node.get(field) else { continue };
        for (name, entry) in entries {
            names.insert(name.clone());
            if let Value::Object(entry) = entry {
                collect_names(entry, names);
            }
        }
    }
}

fn remove_names(node: &mut Map<String, Value>, names: &std::collections::BTreeSet<String>) {
    for field in ["requires", "dependencies"] {
        let Some(Value::Object(entries)) = node.get_mut(field) else { continue };
        entries.retain(|name, _| !names.contains(name));
        for (_, entry) in entries.iter_mut() {
            if let Value::Object(entry) = entry {
                remove_names(entry, names);
            }
        }
    }
}

/// The smallest answer that every client can read.
fn nothing_found(dependencies: usize) -> Value {
    json!({
        "actions": [],
        "advisories": {},
        "muted": [],
        "metadata": {
            "vulnerabilities": { "info": 0, "low": 0, "moderate": 0, "high": 0, "critical": 0 },
            "dependencies": dependencies,
            "devDependencies": 0,
            "optionalDependencies": 0,
            "totalDependencies": dependencies,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names_leave_the_tree_at_every_depth() {
        let tree = json!({
            "requires": {"a": "1", "@acme/x": "1"},
            "dependencies": {"a": {"version": "1", "requires": {"@acme/x": "1"}, "dependencies": {"@acme/x": {"version": "1"}, "b": {}}}},
        });
        let Value::Object(mut tree) = tree else { panic!() };
        let mut names = std::collections::BTreeSet::new();
        collect_names(&tree, &mut names);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["@acme/x", "a", "b"]);
        remove_names(&mut tree, &std::collections::BTreeSet::from(["@acme/x".to_owned()]));
        assert!(!serde_json::to_string(&tree).unwrap().contains("acme"));
        assert!(serde_json::to_string(&tree).unwrap().contains("\"b\""));
    }
}
