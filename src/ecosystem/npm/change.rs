//! Changes of hosted packages: deprecation, dist-tags, owners, access, unpublishing.
//!
//! npm's clients change a package by sending back the whole packument they were
//! given. Taken at its word, such a body could rewrite old versions or lose new
//! ones, so it is compared with what is stored, and only the differences that a
//! client may ask for are made.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::manifest::{Body, Person};
use super::{INFO, Npm, hosted, publish, read_json, version};
use crate::access::Action;
use crate::catalog::Head;
use crate::catalog::change::{self, Change};
use crate::ecosystem::Ecosystem;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{About, Deed};
use crate::http::{Response, StatusCode, reply};
use crate::identity::Caller;
use crate::name::{OwnerName, PackageName, Tag};
use crate::package::{AccountId, Principal, Role, Version, Visibility};
use crate::registry::{Call, Registry, Settings};
use crate::store::table::Stored;

/// Largest body of a small change, in bytes.
const SMALL_BODY_BYTES: u64 = 64 << 10;

/// What a body says of a version that matters here.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    deprecated: Option<serde_json::Value>,
}

/// Applies a body without attachments as a difference.
///
/// # Errors
/// With the right that is missing; `denied` is why the caller may not write.
pub async fn apply(
    registry: &Registry,
    caller: &Caller,
    name: &PackageName,
    body: &Body<'_>,
    revision: Option<&str>,
    denied: Option<Error>,
) -> Result<Response> {
    if let (None, Some(users)) = (&body.versions, &body.users) {
        let starred = caller.login().is_some_and(|login| users.get(login.as_str()).copied().unwrap_or(false));
        set_star(registry, caller, name, starred).await?;
    } else if let (Some(people), None) = (&body.maintainers, &body.versions) {
        set_maintainers(registry, caller, name, people, revision).await?;
    } else {
        if let Some(denied) = denied {
            return Err(denied);
        }
        let said = versions(body)?;
        if revision.is_some() {
            unpublish_missing(registry, caller, name, &said, revision).await?;
        }
        deprecate(registry, caller, name, &said).await?;
    }
    publish::done(registry, name, StatusCode::CREATED).await
}

fn versions(body: &Body<'_>) -> Result<BTreeMap<String, Option<String>>> {
    let mut said = BTreeMap::new();
    for (number, raw) in body.versions.iter().flatten() {
        let version: Said = serde_json::from_str(raw.get())
            .map_err(|_| Error::invalid(Subject::Version, format!("the manifest of version {number} is not an object")))?;
        // Old packages have `deprecated: true` and the like; only a text is a warning.
        said.insert(number.clone(), version.deprecated.and_then(|value| value.as_str().map(str::to_owned)));
    }
    Ok(said)
}

async fn deprecate(registry: &Registry, caller: &Caller, name: &PackageName, said: &BTreeMap<String, Option<String>>) -> Result<()> {
    let (_, grant) = registry.grant_hosted(INFO.name, caller, name, Action::Write).await?;
    registry
        .edit_versions(&grant, |head, live, now| {
            let changed: Vec<(Stored<Version>, Option<String>)> = live
                .into_iter()
                .filter_map(|stored| {
                    let warning = said.get(&stored.value.number)?.clone()?;
                    let warning = (!warning.is_empty()).then_some(warning);
                    (stored.value.deprecated != warning).then_some((stored, warning))
                })
                .collect();
            change::deprecate(head, &changed, now)
        })
        .await
}

/// Deletes the live versions that a body with a revision does not name.
async fn unpublish_missing(
    registry: &Registry,
    caller: &Caller,
    name: &PackageName,
    said: &BTreeMap<String, Option<String>>,
    revision: Option<&str>,
) -> Result<()> {
    let (head, grant) = registry.grant_hosted(INFO.name, caller, name, Action::Write).await?;
    check_revision(&head, revision)?;
    let missing = |stored: &Stored<Version>| !said.contains_key(&stored.value.number);
    if !registry.catalog().live_versions(&grant, &head).await?.iter().any(missing) {
        return Ok(());
    }
    let (_, grant) = registry.grant_hosted(INFO.name, caller, name, Action::Delete).await?;
    let check = |head: &Head| check_revision(head, revision);
    let gone = |number: &str| !said.contains_key(number);
    let npm: &dyn Ecosystem = &Npm;
    registry.delete_versions(&grant, &check, &gone, npm).await
}

/// `DELETE /<p>/-rev/<rev>`: deletes the package.
///
/// # Errors
/// With the right that is missing, or a conflict when the revision is not the newest.
pub async fn unpublish(call: &Call<'_>, name: &PackageName, revision: &str) -> Result<Response> {
    let (head, grant) = call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Delete).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    check_revision(&head, Some(revision))?;
    call.registry.delete_package(&grant).await?;
    Ok(reply::json(StatusCode::OK, &serde_json::json!({ "ok": true })))
}

/// `DELETE /<p>/-/<file>/-rev/<rev>`: the last step of unpublishing a version. The
/// file went with its version; what is left is to answer, and only to those who may delete.
///
/// # Errors
/// With the right that is missing.
pub async fn unpublish_file(call: &Call<'_>, name: &PackageName) -> Result<Response> {
    call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Delete).await?;
    Ok(reply::json(StatusCode::OK, &serde_json::json!({ "ok": true })))
}

/// Sets a dist-tag; the body is the version's number as a JSON text.
///
/// # Errors
/// [`Kind::Invalid`] for a bad tag or a version that is not there.
pub async fn put_tag(call: Call<'_>, name: &PackageName, tag: &str) -> Result<Response> {
    let (_, grant) = call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Write).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    version::check_tag(tag)?;
    let tag = Tag::new(tag).map_err(|rule| Error::invalid(Subject::Tag, rule.0))?;
    let registry = call.registry;
    let body = read_json(call, SMALL_BODY_BYTES).await?;
    let wanted: String =
        serde_json::from_slice(&body).map_err(|_| Error::invalid(Subject::Version, "the body is a version as a JSON text"))?;
    let number = version::identity(&wanted)?;
    registry
        .edit_versions(&grant, |head, live, now| {
            let target = live.iter().find(|stored| stored.value.number == number);
            let target = target.ok_or_else(|| Error::invalid(Subject::Version, format!("version {number} is not published")))?;
            let change = change::edit(head, Deed::Tagged, now, |package| drop(package.tags.insert(tag.clone(), number.clone())))?;
            Ok(Change { versions: vec![About::from(&target.value)], ..change })
        })
        .await?;
    publish::done(registry, name, StatusCode::CREATED).await
}

/// Removes a dist-tag. `latest` stays: without it a plain install finds nothing.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such tag.
pub async fn delete_tag(call: &Call<'_>, name: &PackageName, tag: &str) -> Result<Response> {
    let (_, grant) = call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Write).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    if tag == "latest" {
        return Err(Error::invalid(Subject::Tag, "the dist-tag latest cannot be removed; point it at another version instead"));
    }
    call.registry
        .edit(&grant, |head, now| {
            if !head.package.tags.keys().any(|known| known.as_str() == tag) {
                return Err(Error::not_found(Subject::Tag).saying(format!("there is no dist-tag {tag}")));
            }
            change::edit(head, Deed::Tagged, now, |package| package.tags.retain(|known, _| known.as_str() != tag))
        })
        .await?;
    publish::done(call.registry, name, StatusCode::OK).await
}

/// `POST /-/package/<p>/access`: sets the visibility.
///
/// # Errors
/// [`Kind::Invalid`] for a body that says neither public nor restricted.
pub async fn set_access(call: Call<'_>, name: &PackageName) -> Result<Response> {
    #[derive(Deserialize)]
    struct Access {
        #[serde(default)]
        access: Option<String>,
    }
    let (_, grant) = call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Admin).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    let registry = call.registry;
    let body = read_json(call, SMALL_BODY_BYTES).await?;
    let said: Access = serde_json::from_slice(&body).map_err(|_| Error::invalid(Subject::Request, "the body is not an object"))?;
    let visibility = match said.access.as_deref() {
        Some("public") => Visibility::Public,
        Some("restricted" | "private") => Visibility::Private,
        _ => return Err(Error::invalid(Subject::Request, "access is public or restricted; two-factor settings are not offered")),
    };
    registry.change_settings(&grant, Settings { visibility: Some(visibility), ..Settings::default() }).await?;
    publish::done(registry, name, StatusCode::OK).await
}

/// pnpm's star: `PUT` sets it, `DELETE` removes it.
///
/// # Errors
/// As for reading the package.
pub async fn star(call: Call<'_>) -> Result<Response> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "packageName", alias = "package")]
        name: String,
    }
    let (registry, caller) = (call.registry, std::sync::Arc::clone(&call.caller));
    let starred = call.method == crate::http::Method::PUT;
    let body = read_json(call, SMALL_BODY_BYTES).await?;
    let named: Named = serde_json::from_slice(&body).map_err(|_| Error::invalid(Subject::Request, "the body names no package"))?;
    let name = super::route::lenient_name(&named.name)?;
    set_star(registry, &caller, &name, starred).await?;
    publish::done(registry, &name, StatusCode::OK).await
}

async fn set_star(registry: &Registry, caller: &Caller, name: &PackageName, starred: bool) -> Result<()> {
    let login = caller.login().ok_or_else(|| Error::new(Kind::Unauthenticated, Subject::Token))?;
    let (_, grant) = registry.grant_hosted(INFO.name, caller, name, Action::Read).await?;
    registry
        .edit(&grant, |head, now| {
            change::edit(head, Deed::Starred, now, |package| {
                if starred {
                    package.stars.insert(login.to_string(), true);
                } else {
                    package.stars.remove(login.as_str());
                }
            })
        })
        .await
}

/// Makes exactly these users administrators of the package; other users keep the roles below admin that they have.
async fn set_maintainers(
    registry: &Registry,
    caller: &Caller,
    name: &PackageName,
    people: &[Person],
    revision: Option<&str>,
) -> Result<()> {
    let (head, grant) = registry.grant_hosted(INFO.name, caller, name, Action::Admin).await?;
    if people.is_empty() {
        return Err(Error::new(Kind::Unprocessable, Subject::Package).saying("a package keeps at least one owner"));
    }
    let accounts = accounts(registry, &head, people).await?;
    let detail = format!("admins: {}", people.iter().map(|person| person.name.as_str()).collect::<Vec<_>>().join(", "));
    registry
        .edit(&grant, |head, now| {
            check_revision(head, revision)?;
            let change = change::edit(head, Deed::RolesChanged, now, |package| {
                package.roles.retain(|principal, role| match principal {
                    Principal::User(id) => *role != Role::Admin || accounts.contains(id),
                    Principal::Team(_) => true,
                });
                package.roles.extend(accounts.iter().map(|id| (Principal::User(*id), Role::Admin)));
            })?;
            Ok(change.saying(detail.clone()))
        })
        .await
}

async fn accounts(registry: &Registry, head: &Head, people: &[Person]) -> Result<Vec<AccountId>> {
    let unknown =
        |name: &str| Error::new(Kind::Unprocessable, Subject::Account).saying(format!("there is no user {name:?} who can own the package"));
    let mut accounts = Vec::with_capacity(people.len());
    for person in people {
        let login = OwnerName::new(&person.name).map_err(|_| unknown(&person.name))?;
        let account = registry.identity().account_by_login(&login).await.map_err(|error| match error.kind() {
            Kind::NotFound => unknown(&person.name),
            _ => error,
        })?;
        registry.identity().expect_grantable(head.package.owner, Principal::User(account.id)).await?;
        accounts.push(account.id);
    }
    Ok(accounts)
}

/// Refuses a change that was made on an older state than the newest.
fn check_revision(head: &Head, revision: Option<&str>) -> Result<()> {
    match revision {
        Some(revision) if revision != hosted::revision(head.package.generation) => {
            Err(Error::conflict(Subject::Package, "the package was changed meanwhile; read it again and retry"))
        }
        _ => Ok(()),
    }
}
