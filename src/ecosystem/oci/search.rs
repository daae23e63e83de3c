//! Content discovery: tags, referrers, repositories.
//!
//! Lists come in pages, each with the way to the next one. Source: OCI Distribution
//! Specification 1.1, «Content Discovery»; for the list of repositories the «HTTP API V2»
//! of the distribution project.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::answer::listed;
use super::manifest::{LIMIT_BYTES, OCI_INDEX};
use super::mirror;
use super::referrers::{self, Entry, PAGE, PAGE_BYTES};
use super::route::Reference;
use super::scope::{self, Access};
use super::{INFO, hidden, is_mirror, manifest_check, manner, permit, readable, refusal, relayed, route, scope_of, with_namespace};
use crate::access::{self, Action, Grant};
use crate::catalog::Head;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::http::{HeaderName, HeaderValue, Response, StatusCode, path, reply};
use crate::identity::Caller;
use crate::name::{PackageName, Tag};
use crate::registry::relay::{Mirrored, Source};
use crate::registry::{Call, Content};
use crate::upstream::{Check, Manner, Need};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Most entries of one page of tags or repositories.
const LIST_LIMIT: usize = 10_000;
/// Entries of a page of repositories when the client does not say.
const CATALOG_PAGE: usize = 100;
/// Pages of an upstream's list of referrers that are asked for.
const REFERRERS_PAGES: usize = 64;
/// Repositories that are looked at to fill a page, whether the caller may know of them or not.
const CATALOG_REACH: usize = 10_000;

/// How many entries the client wants at most.
fn wanted(call: &Call<'_>) -> Result<Option<usize>> {
    let Some(text) = path::query(call.query, "n") else { return Ok(None) };
    let wrong = || Error::invalid(Subject::Request, "n is a number of entries");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    // More than can be counted is as good as all.
    Ok(Some(text.parse::<usize>().unwrap_or(usize::MAX).min(LIST_LIMIT)))
}

/// `GET /v2/NAME/tags/list`: in the order of their names, or with `orderby=timeasc` or `timedesc` in that in which what they
/// point at was pushed.
///
/// # Errors
/// As for reading; [`Kind::Invalid`] for a number of entries that is none, and for an order that is none.
pub async fn tags(call: &Call<'_>, name: &PackageName) -> Result<Response> {
    let (head, grant) = readable(call, name).await?;
    let limit = wanted(call)?.unwrap_or(LIST_LIMIT);
    let last = path::query(call.query, "last").unwrap_or_default();
    let all = &head.package.tags;
    let (rest, order): (Vec<&Tag>, &str) = match path::query(call.query, "orderby").as_deref() {
        None => (all.keys().filter(|tag| last.is_empty() || tag.as_str() > &*last).take(limit.saturating_add(1)).collect(), ""),
        Some(order @ ("timeasc" | "timedesc")) => {
            let mut tags = by_time(call, &grant, &head).await?;
            if order == "timedesc" {
                tags.reverse();
            }
            let after = tags.iter().position(|tag| tag.as_str() == last).map_or(0, |at| at + 1);
            (tags.split_off(after), if order == "timeasc" { "&orderby=timeasc" } else { "&orderby=timedesc" })
        }
        Some(_) => return Err(Error::invalid(Subject::Request, "orderby is one of timeasc, timedesc")),
    };
    let tags = &rest[..rest.len().min(limit)];
    let next = tags.last().filter(|_| rest.len() > limit).map(|last| format!("/{name}/tags/list?n={limit}&last={last}{order}"));
    listed(&call.base, reply::json(StatusCode::OK, &json!({ "name": name, "tags": tags })), next)
}

/// As [`tags`], of an upstream, page by page as it gives them.
///
/// # Errors
/// The upstream's failures.
pub async fn mirrored_tags(call: &Call<'_>, name: &PackageName, source: Source) -> Result<Response> {
    let (mirrored, grant) = relayed(call, source)?;
    let limit = wanted(call)?.unwrap_or(mirror::PAGE);
    let last = path::query(call.query, "last").unwrap_or_default();
    if !last.is_empty() {
        route::parse_tag(&last)?;
    }
    let absent = || Error::not_found(Subject::Package);
    let (tags, more) = if limit == 0 {
        (Vec::new(), false)
    } else {
        let ask = mirror::tags_after(&mirrored.name, limit, &last);
        let check: Check = Arc::new(|bytes| mirror::tags(bytes).map(drop));
        let found = call.registry.relayed(&grant, &mirrored.upstream, &ask, Need::Usual, (&check, &plainly(&mirrored))).await;
        let found = found.map_err(|error| mirror::absent_if_denied(error, Subject::Package))?.ok_or_else(absent)?;
        call.note_verdict(found.verdict);
        let mut tags = mirror::tags(&found.bytes)?;
        tags.sort_unstable();
        // Some upstreams know no pages and give all, in whatever order.
        if tags.len() > limit || tags.binary_search_by(|tag| tag.as_str().cmp(&last)).is_ok() {
            tags.retain(|tag| tag.as_str() > &*last);
        }
        let more = tags.len() > limit || mirror::rest_of(&ask, found.entry.link.as_deref()).is_some();
        tags.truncate(limit);
        (tags, more)
    };
    let next = tags.last().filter(|_| more).map(|last| {
        let namespace = path::query(call.query, "ns").map(|host| ("ns", host));
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("n", &limit.to_string()).append_pair("last", last).extend_pairs(namespace);
        format!("/{name}/tags/list?{}", query.finish())
    });
    let response = listed(&call.base, reply::json(StatusCode::OK, &json!({ "name": name, "tags": tags })), next)?;
    with_namespace(response, &mirrored)
}

/// The tags in the order in which what they point at was pushed.
async fn by_time<'a>(call: &Call<'_>, grant: &Grant, head: &'a Head) -> Result<Vec<&'a Tag>> {
    let listed = call.registry.catalog().listed(grant, head).await?;
    let pushed: HashMap<&str, _> = listed.iter().map(|version| (version.number.as_str(), (version.created_at, version.id))).collect();
    let mut tags: Vec<&Tag> = head.package.tags.keys().collect();
    tags.sort_by_key(|tag| head.package.tags.get(*tag).and_then(|number| pushed.get(number.as_str())));
    Ok(tags)
}

/// `GET /v2/_catalog`: the repositories that the caller may read, in the order of their names.
///
/// # Errors
/// [`Kind::Unauthenticated`] for who brings nothing; [`Kind::Invalid`] for a number of entries that is none.
pub async fn catalog(call: &Call<'_>) -> Result<Response> {
    if is_mirror(call) {
        return Err(Error::new(Kind::MethodNotAllowed, Subject::Route).saying("the upstream's repositories are not listed"));
    }
    match (&*call.caller, &call.session) {
        (Caller::Anonymous, None) => return Err(Error::new(Kind::Unauthenticated, Subject::Route)),
        (Caller::Signed(_), Some(scopes)) if !scopes.split(' ').any(|scope| scope == scope::CATALOG) => {
            return Err(Error::new(Kind::Unauthenticated, Subject::Request).saying(refusal::INSUFFICIENT));
        }
        _ => {}
    }
    let limit = wanted(call)?.unwrap_or(CATALOG_PAGE);
    let mut after = path::query(call.query, "last").and_then(|last| route::parse_name(&last).ok());
    let (mut names, mut looked_at, mut more) = (Vec::new(), 0, limit > 0);
    while more && names.len() < limit && looked_at < CATALOG_REACH {
        let page = (limit - names.len()).clamp(100, 1000);
        let heads = call.registry.catalog().heads(INFO.name, after.as_ref(), page).await?;
        more = heads.len() == page;
        for head in heads {
            if names.len() == limit {
                more = true;
                break;
            }
            looked_at += 1;
            after = Some(head.package.name.clone());
            if is_listed(call, &head) {
                names.push(head.package.name.clone());
            }
        }
        tokio::task::yield_now().await;
    }
    let next = after.filter(|_| more).map(|last| format!("/_catalog?n={limit}&last={last}"));
    listed(&call.base, reply::json(StatusCode::OK, &json!({ "repositories": names })), next)
}

fn is_listed(call: &Call<'_>, head: &Head) -> bool {
    head.package.deleted_at.is_none() && access::decide(&call.caller, &head.policy, Action::Read).is_ok()
}

/// `GET /v2/NAME/referrers/DIGEST`: the manifests that are about another one.
///
/// # Errors
/// [`Kind::Unauthenticated`] for who brings nothing and may not know of the repository. To others a repository
/// that is not there has no referrers.
pub async fn referrers(call: &Call<'_>, name: &PackageName, digest: &Digest) -> Result<Response> {
    let artifact_type = path::query(call.query, "artifactType").filter(|text| !text.is_empty());
    let (mut entries, mut more) = (Vec::new(), false);
    match call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Read).await.map_err(|error| hidden(call, error)) {
        Ok((head, grant)) => {
            permit(call, name, Access::Pull)?;
            call.trace.note(|notes| notes.package = Some(name.clone()));
            let last = path::query(call.query, "last").unwrap_or_default();
            (entries, more) = page(call, (&head, &grant), digest, artifact_type.as_deref(), &last).await?;
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    let next = entries.last().filter(|_| more).map(|last| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(artifact_type.as_ref().map(|artifact_type| ("artifactType", &**artifact_type)));
        format!("/{name}/referrers/{digest}?{}", query.append_pair("last", &last.digest).finish())
    });
    // Clients compare this type as a text, so it has no parameter.
    let mut response = reply::typed(StatusCode::OK, OCI_INDEX, bytes::Bytes::from(referrers::write(&entries)));
    if artifact_type.is_some() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    listed(&call.base, response, next)
}

/// As [`referrers()`], of an upstream: by its list, or where it has none by the one that clients keep.
///
/// # Errors
/// The upstream's failures: an empty list would say that nothing is signed.
pub async fn mirrored_referrers(call: &Call<'_>, source: Source, digest: &Digest) -> Result<Response> {
    let (mirrored, grant) = relayed(call, source)?;
    let artifact_type = path::query(call.query, "artifactType").filter(|text| !text.is_empty());
    let mut entries = upstream_referrers(call, &mirrored, &grant, digest).await?;
    entries.retain(|entry| entry.is_of(artifact_type.as_deref()));
    let mut response = reply::typed(StatusCode::OK, OCI_INDEX, bytes::Bytes::from(referrers::write(&entries)));
    if artifact_type.is_some() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    with_namespace(listed(&call.base, response, None)?, &mirrored)
}

/// How an upstream is asked for a list.
fn plainly(mirrored: &Mirrored) -> Manner {
    Manner { scope: Some(scope_of(mirrored)), names_digest: None }
}

async fn upstream_referrers(call: &Call<'_>, mirrored: &Mirrored, grant: &Grant, digest: &Digest) -> Result<Vec<Entry>> {
    let relay = async |ask: &Ask, check: &Check, manner: &Manner| {
        call.registry.relayed(grant, &mirrored.upstream, ask, Need::Usual, (check, manner)).await
    };
    let check: Check = Arc::new(|bytes| mirror::entries(bytes).map(drop));
    let (mut entries, mut weight, mut next) = (Vec::new(), 0, Some(mirror::referrers_of(&mirrored.name, digest)));
    for page in 0.. {
        let Some(ask) = next else { return Ok(entries) };
        let found = match relay(&ask, &check, &plainly(mirrored)).await {
            // Some upstreams that have no such list refuse the question, or answer with something else altogether.
            Err(error) if page == 0 && matches!(error.subject(), Subject::Request | Subject::Manifest) => None,
            found => found?,
        };
        let Some(found) = found else { break };
        for entry in mirror::entries(&found.bytes)? {
            weight += entry.weight();
            if weight > PAGE_BYTES {
                return Ok(entries);
            }
            entries.push(entry);
        }
        next = mirror::rest_of(&ask, found.entry.link.as_deref()).filter(|_| page < REFERRERS_PAGES);
    }
    let tag = Reference::Tag(Tag::new(&referrers::fallback_tag(digest)).map_err(|rule| Error::invalid(Subject::Tag, rule.0))?);
    let found = relay(&mirror::manifest(&mirrored.name, &tag), &manifest_check(&tag), &manner(mirrored, &tag)).await?;
    Ok(found.map(|found| referrers::kept_by_clients(&found.bytes)).unwrap_or_default())
}

/// Entries after one, in the order of their digests, and whether there are more.
async fn page(
    call: &Call<'_>,
    (head, grant): (&Head, &Grant),
    digest: &Digest,
    artifact_type: Option<&str>,
    last: &str,
) -> Result<(Vec<Entry>, bool)> {
    let mut kept = kept_by_clients(call, head, grant, digest).await?;
    kept.retain(|entry| entry.digest.as_str() > last && entry.is_of(artifact_type));
    kept.sort_by(|a, b| a.digest.cmp(&b.digest));
    kept.dedup_by(|a, b| a.digest == b.digest);
    let mut kept = kept.into_iter().peekable();
    let (mut entries, mut weight, mut after) = (Vec::new(), 0, last.to_owned());
    let subject = digest.to_string();
    loop {
        let versions =
            call.registry.catalog().about(grant, head, &subject, Some(after.as_str()).filter(|after| !after.is_empty()), PAGE).await?;
        let at_end = versions.len() < PAGE;
        after = versions.last().map_or(after, |version| version.number.clone());
        let mut found = versions.iter().map(Entry::of).collect::<Result<Vec<_>>>()?;
        found.retain(|entry| entry.is_of(artifact_type));
        // What clients keep lies between: up to where the look went, or all at the end.
        while let Some(entry) = kept.next_if(|entry| at_end || entry.digest <= after) {
            if !found.iter().any(|known| known.digest == entry.digest) {
                found.push(entry);
            }
        }
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        for entry in found {
            weight += entry.weight();
            if entries.len() == PAGE || weight > PAGE_BYTES && !entries.is_empty() {
                return Ok((entries, true));
            }
            entries.push(entry);
        }
        if at_end {
            return Ok((entries, false));
        }
        tokio::task::yield_now().await;
    }
}

/// What clients list themselves, under a tag made from the digest, as far as it is here.
async fn kept_by_clients(call: &Call<'_>, head: &Head, grant: &Grant, digest: &Digest) -> Result<Vec<Entry>> {
    let Some(number) = head.package.tags.get(referrers::fallback_tag(digest).as_str()) else { return Ok(Vec::new()) };
    let Some((row, artifact)) = call.registry.hosted_file(grant, head, number, false).await? else { return Ok(Vec::new()) };
    let Content::Blob(blob) = artifact.content else { return Ok(Vec::new()) };
    if row.file.media_type != OCI_INDEX {
        return Ok(Vec::new());
    }
    let mut entries = referrers::kept_by_clients(&blob.bytes(LIMIT_BYTES).await?);
    let mut here = Vec::with_capacity(entries.len());
    for entry in entries.drain(..) {
        if call.registry.catalog().file(grant, head, &entry.digest).await?.is_some() {
            here.push(entry);
        }
    }
    Ok(here)
}
