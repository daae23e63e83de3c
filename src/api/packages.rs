//! Hosted packages: listing, visibility, links, roles, deletion, restore.
//!
//! A package is named as it is stored, in its ecosystem's canonical spelling. Rights
//! are decided here for each package, besides what the endpoint's row asks for. A
//! deleted package is there only for those who may restore it.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::repositories::{granted, principal};
use super::{Call, done, shown, unprocessable};
use crate::access::{self, Action, Grant, Target};
use crate::catalog::Head;
use crate::ecosystem::Ecosystem;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::Response;
use crate::identity::{Account, RepositoryRole};
use crate::name::{OwnerName, PackageName, RepositoryName};
use crate::package::{AccountId, Package, RepositoryId, Role, Version, Visibility};
use crate::registry::{Registry, Settings};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    visibility: Option<Visibility>,
    #[serde(default)]
    repository: Link,
    inherits: Option<bool>,
}

/// What a change says of the linked repository.
#[derive(Default)]
enum Link {
    /// Nothing: it stays.
    #[default]
    Unsaid,
    /// Null: the link goes.
    Removed,
    /// `OWNER/REPO`.
    To(String),
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Removed, Self::To))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    role: Role,
}

pub(super) async fn list(call: Call<'_>) -> Result<Response> {
    let ecosystem = call.ecosystem()?.info().name;
    let page = call.page()?;
    let registry = call.registry();
    let heads = registry.catalog().heads(ecosystem, page.after()?.as_ref(), page.limit).await?;
    let next = heads.last().filter(|_| heads.len() == page.limit).map(|head| head.package.name.to_string());
    let mut items = Vec::with_capacity(heads.len());
    for head in &heads {
        if let Ok(grant) = decide(&call, ecosystem, head, Action::Read) {
            let live = registry.catalog().live_versions(&grant, head).await?.len();
            let mut item = view(&call, &head.package).await?;
            item["versions"] = json!(live);
            items.push(item);
        }
    }
    Ok(call.list(&items, &page, next))
}

pub(super) async fn show(call: Call<'_>) -> Result<Response> {
    let Found { head, grant, registry, ecosystem } = find(&call, Action::Read).await?;
    let manages = decide(&call, ecosystem.info().name, &head, Action::Admin).is_ok();
    let mut versions = registry.catalog().all_versions(&grant, &head).await?;
    versions.retain(|stored| manages || stored.value.deleted_at.is_none());
    versions.sort_by_key(|stored| (stored.value.created_at, stored.value.id));
    let mut publishers = HashMap::new();
    let mut items = Vec::with_capacity(versions.len());
    for stored in &versions {
        let publisher = stored.value.published_by;
        if let std::collections::hash_map::Entry::Vacant(entry) = publishers.entry(publisher) {
            entry.insert(login(&call, publisher).await?);
        }
        items.push(version_view(&stored.value, publishers.get(&publisher)));
    }
    let mut item = view(&call, &head.package).await?;
    item["inherits"] = json!(head.package.inherits);
    if manages {
        item["roles"] = json!(granted(&call, &head.package.roles).await?);
    }
    item["tags"] = json!(head.package.tags);
    item["versions"] = json!(items);
    Ok(shown(&item))
}

pub(super) async fn change(call: Call<'_>) -> Result<Response> {
    let Found { head, grant, registry, .. } = find_live(&call, Action::Admin).await?;
    let ChangeBody { visibility, repository, inherits } = call.json()?;
    let link = match &repository {
        Link::Unsaid | Link::Removed => None,
        Link::To(name) => Some(linkable(&call, head.package.owner, name).await?),
    };
    let repository = if matches!(repository, Link::Unsaid) { None } else { Some(link) };
    registry.change_settings(&grant, Settings { visibility, repository, inherits }).await?;
    match registry.catalog().head_by_id(head.package.id).await? {
        Some(head) => Ok(shown(&view(&call, &head.package).await?)),
        None => Err(absent(&head.package.name)),
    }
}

pub(super) async fn delete(call: Call<'_>) -> Result<Response> {
    let Found { grant, registry, .. } = find_live(&call, Action::Delete).await?;
    registry.delete_package(&grant).await?;
    Ok(done())
}

pub(super) async fn restore(call: Call<'_>) -> Result<Response> {
    let Found { grant, registry, ecosystem, .. } = find(&call, Action::Admin).await?;
    registry.restore_package(&grant, ecosystem).await?;
    Ok(done())
}

pub(super) async fn delete_version(call: Call<'_>) -> Result<Response> {
    let Found { grant, registry, ecosystem, .. } = find_live(&call, Action::Delete).await?;
    let number = call.parameter(2);
    registry.delete_version(&grant, number, ecosystem).await.map_err(|error| no_version(error, number))?;
    Ok(done())
}

pub(super) async fn restore_version(call: Call<'_>) -> Result<Response> {
    let Found { grant, registry, ecosystem, .. } = find(&call, Action::Admin).await?;
    let number = call.parameter(2);
    registry.restore_version(&grant, number, ecosystem).await.map_err(|error| no_version(error, number))?;
    Ok(done())
}

pub(super) async fn grant_role(call: Call<'_>) -> Result<Response> {
    let Found { head, grant, registry, .. } = find_live(&call, Action::Admin).await?;
    let owner = owner(&call, &head.package).await?;
    let principal = principal(&call, &owner, 2).await?;
    let RoleBody { role } = call.json()?;
    registry.set_role(&grant, principal, Some(role)).await?;
    Ok(done())
}

pub(super) async fn withdraw_role(call: Call<'_>) -> Result<Response> {
    let Found { head, grant, registry, .. } = find_live(&call, Action::Admin).await?;
    let principal = principal(&call, &owner(&call, &head.package).await?, 2).await?;
    registry.set_role(&grant, principal, None).await?;
    Ok(done())
}

/// A package and the right to do something with it.
struct Found {
    head: Arc<Head>,
    grant: Grant,
    registry: Arc<Registry>,
    ecosystem: &'static dyn Ecosystem,
}

/// The package that the first two open segments name, be it deleted.
async fn find(call: &Call<'_>, action: Action) -> Result<Found> {
    let ecosystem = call.ecosystem()?;
    let name: PackageName = call.name(1, Subject::Package)?;
    let registry = call.registry();
    let head = registry.catalog().head(ecosystem.info().name, &name).await?.ok_or_else(|| absent(&name))?;
    let grant = decide(call, ecosystem.info().name, &head, action).map_err(|error| match error.kind() {
        Kind::NotFound => absent(&name),
        _ => error,
    })?;
    Ok(Found { head, grant, registry, ecosystem })
}

async fn find_live(call: &Call<'_>, action: Action) -> Result<Found> {
    let found = find(call, action).await?;
    if found.head.package.deleted_at.is_some() {
        return Err(Error::not_found(Subject::Package).saying(format!("{} is deleted", found.head.package.name)));
    }
    Ok(found)
}

fn decide(call: &Call<'_>, ecosystem: &'static str, head: &Head, action: Action) -> Result<Grant> {
    let target = Target { ecosystem, name: &head.package.name, package: Some(head.package.id) };
    if head.package.deleted_at.is_some() {
        access::grant(call.caller, target, &head.policy, Action::Admin).map_err(|_| Error::not_found(Subject::Package))?;
    }
    access::grant(call.caller, target, &head.policy, action)
}

/// The repository of a name, if a package of this owner may be linked to it: a link
/// hands the repository's roles to the package.
async fn linkable(call: &Call<'_>, owner: AccountId, full_name: &str) -> Result<RepositoryId> {
    let wrong = |why: String| unprocessable(Subject::Repository, &why);
    let parsed = full_name.split_once('/').and_then(|(login, name)| Some((OwnerName::new(login).ok()?, RepositoryName::new(name).ok()?)));
    let (login, name) = parsed.ok_or_else(|| wrong(format!("{full_name:?} is no repository, expected OWNER/REPO")))?;
    let account = call.account_of(&login).await?;
    if account.id != owner {
        return Err(wrong("a package can only be linked to a repository of its own owner".to_owned()));
    }
    let repository = call.identity().repository(account.id, &name).await.map_err(|error| match error.kind() {
        Kind::NotFound => Error::not_found(Subject::Repository).saying(format!("there is no repository {login}/{name}")),
        _ => error,
    })?;
    if access::role_on_repository(call.caller, &(&repository).into(), account.is_organisation()) < Some(RepositoryRole::Write) {
        return Err(Error::forbidden(Subject::Repository, "the role write on the repository is required"));
    }
    Ok(repository.id)
}

async fn owner(call: &Call<'_>, package: &Package) -> Result<Account> {
    call.identity().account(package.owner).await.map_err(|error| match error.kind() {
        Kind::NotFound => Error::conflict(Subject::Owner, "the account that the package belongs to was deleted"),
        _ => error,
    })
}

async fn login(call: &Call<'_>, account: AccountId) -> Result<Option<OwnerName>> {
    known(call.identity().account(account).await.map(|account| account.login))
}

/// What was deleted since is shown as null.
fn known<T>(looked_up: Result<T>) -> Result<Option<T>> {
    match looked_up {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn absent(name: &PackageName) -> Error {
    Error::not_found(Subject::Package).saying(format!("there is no package {name}"))
}

fn no_version(error: Error, number: &str) -> Error {
    match (error.kind(), error.subject()) {
        (Kind::NotFound, Subject::Version) => Error::not_found(Subject::Version).saying(format!("there is no version {number}")),
        _ => error,
    }
}

async fn view(call: &Call<'_>, package: &Package) -> Result<Value> {
    let repository = match package.repository {
        None => None,
        Some(id) => known(call.identity().repository_by_id(id).await)?,
    };
    let owner = login(call, package.owner).await?;
    let full_name = repository.zip(owner.as_ref()).map(|(repository, owner)| format!("{owner}/{}", repository.name));
    Ok(json!({
        "id": package.id,
        "name": package.name,
        "spelling": package.spelling,
        "ecosystem": package.ecosystem,
        "owner": owner,
        "visibility": package.visibility,
        "repository": full_name,
        "created_at": package.created_at,
        "updated_at": package.updated_at,
        "deleted_at": package.deleted_at,
    }))
}

fn version_view(version: &Version, publisher: Option<&Option<OwnerName>>) -> Value {
    let files: Vec<_> =
        version.files.iter().map(|file| json!({ "name": file.name, "size": file.size, "sha256": file.sha256.hex() })).collect();
    json!({
        "id": version.id,
        "version": version.number,
        "published_by": publisher.and_then(Option::as_ref),
        "created_at": version.created_at,
        "updated_at": version.updated_at,
        "deleted_at": version.deleted_at,
        "deprecated": version.deprecated,
        "unlisted": version.unlisted,
        "files": files,
    })
}
