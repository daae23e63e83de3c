//! Versions of a package, by their numeric ids.

use serde_json::{Value, json};

use super::packages::{Found, State, find, find_any, manages, shown_name};
use super::refusal::{Outcome, Refusal};
use super::view::Shown;
use super::{Call, defect, done, shown};
use crate::access::Action;
use crate::package::{Version, VersionId};

pub(super) async fn list(call: Call<'_>) -> Outcome {
    let state = State::read(&call)?;
    let page = call.page()?;
    let found = match state {
        State::Active => find(&call, Action::Read).await?,
        // The versions of a deleted package too: they come back with it.
        State::Deleted => find_any(&call, Action::Read).await?,
    };
    if state == State::Deleted && !manages(call.caller, &found.head) {
        return Err(Refusal::forbidden("You need the role admin on the package to list its deleted versions."));
    }
    let catalog = call.registry.catalog();
    let mut listed = catalog.listed(&found.grant, &found.head).await?;
    // What was given up cannot come back and is no longer spoken of.
    listed.retain(|version| !version.purged && version.deleted_at.is_some() == (state == State::Deleted));
    let name = shown_name(call.registry, &found.owner, found.ecosystem, &found.head.package).await?;
    let mut items = Vec::new();
    for row in page.of(&listed) {
        // What was deleted since the list was read is left out.
        if let Some(stored) = catalog.version(&found.grant, &found.head, &row.number).await? {
            items.push(view(&call, &found, &name, &stored.value).await?);
        }
    }
    Ok(call.part(page, &items, listed.len()))
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Read).await?;
    let version = readable(&call, &found).await?;
    let name = shown_name(call.registry, &found.owner, found.ecosystem, &found.head.package).await?;
    Ok(shown(&view(&call, &found, &name, &version).await?))
}

pub(super) async fn delete(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Delete).await?;
    let version = version(&call, &found).await?;
    call.registry.delete_version(&found.grant, &version.number, found.ecosystem).await?;
    Ok(done())
}

pub(super) async fn restore(call: Call<'_>) -> Outcome {
    let found = find_any(&call, Action::Admin).await?;
    let version = version(&call, &found).await?;
    call.registry.restore_version(&found.grant, &version.number, found.ecosystem).await?;
    Ok(done())
}

pub(super) async fn files(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Read).await?;
    let version = readable(&call, &found).await?;
    let items: Vec<_> = version
        .files
        .iter()
        .map(|file| {
            let mut digests = serde_json::Map::new();
            for digest in file.digests.iter().chain([&file.sha256]) {
                digests.insert(digest.algorithm().name().to_owned(), digest.hex().into());
            }
            json!({
                "name": file.name,
                "size": file.size,
                "content_type": file.media_type,
                "state": "uploaded",
                "digests": digests,
            })
        })
        .collect();
    Ok(call.list(call.page()?, &items))
}

/// The version that the path names; a deleted one only for those who may restore it.
pub(super) async fn readable(call: &Call<'_>, found: &Found) -> Outcome<Version> {
    let version = version(call, found).await?;
    if version.deleted_at.is_some() && !manages(call.caller, &found.head) { Err(Refusal::not_found()) } else { Ok(version) }
}

/// The version that the path names.
async fn version(call: &Call<'_>, found: &Found) -> Outcome<Version> {
    let id = VersionId(call.named("version_id")?);
    let stored = call.registry.catalog().version_by_id(&found.grant, &found.head, id).await?.ok_or_else(Refusal::not_found)?;
    if stored.value.id != id {
        return Err(defect("an id leads to another version"));
    }
    Ok(stored.value)
}

/// GitHub's `PackageVersion`, with the count of its downloads.
async fn view(call: &Call<'_>, found: &Found, name: &str, version: &Version) -> Outcome<Value> {
    let package = &found.head.package;
    let downloads = call.registry.catalog().downloads().total(package.id, Some(&version.number)).await?;
    let shown = Shown { package, ecosystem: found.ecosystem, name, owner: &found.owner, repository: None, downloads };
    Ok(shown.version(call.links, version))
}
