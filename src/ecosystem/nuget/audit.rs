//! Known vulnerabilities, as clients look for them on every restore: an upstream's pages, and an empty one without it.
//!
//! The pages speak of ids. Those of names that are not asked for upstream are taken out: what is known of another
//! package of that name says nothing of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::service_index::ServiceIndex;
use super::{INFO, Tree, answer, by_caller, document, may_ask_upstreams, nuspec};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::http::{Response, negotiate};
use crate::registry::{self, Call};
use crate::upstream::{Check, Need, Upstream, Verdict};

/// Most pages that clients read.
const PAGES: usize = 16;
/// The page of a feed without an upstream that knows any.
const OWN: &str = "base";

/// A page as an upstream's list names it.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@id")]
    id: String,
    #[serde(rename = "@updated")]
    updated: String,
}

/// `GET vulnerabilities/index.json`: the list of pages.
///
/// # Errors
/// An upstream's failures: that nothing is known must not be said by mistake.
pub(super) async fn index(call: &Call<'_>, tree: &Tree) -> Result<Response> {
    let at = tree.at.as_str();
    let page =
        |name: &str, updated: &str| json!({ "@name": name, "@id": format!("{at}/vulnerabilities/{name}.json"), "@updated": updated });
    let pages: Vec<Value> = match upstream(call).await? {
        Some((_, listed)) => listed.iter().map(|listed| page(&listed.name, &listed.updated)).collect(),
        None => vec![page(OWN, "2020-01-01T00:00:00Z")],
    };
    Ok(answer(call, &pages.into()))
}

/// `GET vulnerabilities/PAGE.json`.
///
/// # Errors
/// As [`index`]; `NotFound` for a page that is not on the list.
pub(super) async fn page(call: &Call<'_>, tree: &Tree, page: &str) -> Result<Response> {
    let (bytes, verdict) = match upstream(call).await? {
        None if page == OWN => (Bytes::from_static(b"{}"), Verdict::Hosted),
        None => return Err(Error::not_found(Subject::File)),
        Some((upstream, listed)) => {
            let listed = listed.into_iter().find(|listed| listed.name == page).ok_or_else(|| Error::not_found(Subject::File))?;
            let check: Check = Arc::new(|bytes| read(bytes).map(drop));
            let (bytes, verdict) = fetch(call, &upstream, &listed.id, &check).await?;
            let mask = call.registry.mask(tree.view, INFO.name).await?;
            let work = tokio::task::spawn_blocking(move || {
                let mut known = read(&bytes)?;
                known.retain(|id, _| !mask.hides(&nuspec::lower(id)));
                serde_json::to_vec(&known).map(Bytes::from).map_err(|error| Error::internal(Subject::File, error))
            });
            (work.await.map_err(|error| Error::internal(Subject::File, error))??, verdict)
        }
    };
    let packed = registry::document::packed(bytes, negotiate::coding(call.headers), verdict);
    Ok(document(call, by_caller(call), packed))
}

/// What is known of each id; an empty page is a list in the documentation and an object in clients.
fn read(bytes: &[u8]) -> Result<BTreeMap<String, Box<RawValue>>> {
    if bytes.trim_ascii() == b"[]" {
        return Ok(BTreeMap::new());
    }
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(Subject::File, "this is no page of vulnerabilities").because(error))
}

/// The first upstream that tells of vulnerabilities, and its pages.
async fn upstream(call: &Call<'_>) -> Result<Option<(Arc<Upstream>, Vec<Listed>)>> {
    if !may_ask_upstreams(call) {
        return Ok(None);
    }
    for upstream in call.registry.upstreams(INFO.name) {
        let guide: ServiceIndex = call.registry.guide(upstream).await?;
        let Some(address) = guide.vulnerabilities() else { continue };
        let check: Check = Arc::new(|bytes| list(bytes).map(drop));
        let (bytes, _) = fetch(call, upstream, address, &check).await?;
        return Ok(Some((Arc::clone(upstream), list(&bytes)?)));
    }
    Ok(None)
}

fn list(bytes: &[u8]) -> Result<Vec<Listed>> {
    let wrong = || Error::invalid(Subject::File, "this is no list of vulnerabilities");
    let mut listed: Vec<Listed> = serde_json::from_slice(bytes).map_err(|error| wrong().because(error))?;
    let plain =
        |name: &str| !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if listed.is_empty() || !listed.iter().all(|listed| plain(&listed.name)) {
        return Err(wrong());
    }
    listed.truncate(PAGES);
    Ok(listed)
}

async fn fetch(call: &Call<'_>, upstream: &Arc<Upstream>, address: &str, check: &Check) -> Result<(Bytes, Verdict)> {
    let ask = Ask { path: address.to_owned(), accept: "application/json", grows: false };
    let fetcher = call.registry.fetcher();
    let fetched = fetcher.document(upstream, &ask, Need::Usual, check).await?;
    let absent = || Error::new(Kind::BadUpstream, Subject::Upstream).saying("the upstream's list of vulnerabilities leads to nothing");
    let body = fetched.entry.body.ok_or_else(absent)?;
    let bytes = fetcher.body(&body).await.inspect_err(|_| fetcher.forget(upstream, &ask))?;
    Ok((bytes, fetched.verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_their_list_are_read_as_servers_write_them() {
        assert_eq!(list(br#"[{"@name":"base","@id":"http://up/1","@updated":"2024","comment":"x"}]"#).unwrap()[0].name, "base");
        for wrong in ["[]", "{}", "<html>", r#"[{"@name":"../x","@id":"a","@updated":"b"}]"#] {
            assert!(list(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(b" [] ").unwrap().is_empty() && read(b"{}").unwrap().is_empty());
        assert_eq!(read(br#"{"a":[{"severity":1}]}"#).unwrap()["a"].get(), r#"[{"severity":1}]"#);
        assert!(read(b"[1]").is_err() && read(b"<html>").is_err());
    }
}
