//! Packages of an owner: listing, reading, deleting, restoring.
//!
//! A package is found by its owner, its type and the name that GitHub's API gives
//! it. A deleted one is there only for those who may restore it, and only where the
//! request says that it wants deleted ones.

use std::sync::Arc;

use super::page::REACH;
use super::refusal::{Outcome, Refusal};
use super::view::Shown;
use super::{Call, done, known, shown};
use crate::access::{self, Action, Grant, RepositoryPolicy, Target};
use crate::catalog::{Head, View};
use crate::ecosystem::{self, Ecosystem};
use crate::error::{Kind, Result, Subject};
use crate::http::Response;
use crate::identity::{Account, Caller, Repository};
use crate::name::{OwnerName, PackageName};
use crate::package::{Package, Role, Visibility};
use crate::registry::Registry;

/// Packages of an owner that are looked at before another task may run.
const CHUNK: usize = 500;

/// Whether deleted things are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Deleted,
}

impl State {
    pub(super) fn read(call: &Call<'_>) -> Outcome<Self> {
        match call.query("state").as_deref() {
            None | Some("active") => Ok(Self::Active),
            Some("deleted") => Ok(Self::Deleted),
            Some(_) => Err(Refusal::invalid("Invalid argument: state is one of active, deleted.")),
        }
    }
}

pub(super) async fn list(call: Call<'_>) -> Outcome {
    let owner = call.owner().await?;
    let page = call.page()?;
    let state = State::read(&call)?;
    let package_type = call.query("package_type").ok_or_else(|| Refusal::invalid("Invalid argument: package_type is required."))?;
    let only: Option<Visibility> = match call.query("visibility") {
        None => None,
        Some(text) => Some(text.parse().map_err(|why| Refusal::invalid(format!("Invalid argument: {why}.")))?),
    };
    let found = match ecosystem::of_type(&package_type) {
        Some(ecosystem) => visible(&call, &owner, ecosystem, state, only).await?,
        None if ecosystem::PACKAGE_TYPES.contains(&&*package_type) => Vec::new(),
        None => return Err(Refusal::invalid("Invalid argument: package_type is none that is known.")),
    };
    if found.is_empty() && matches!(**call.caller, Caller::Anonymous) {
        // Who has nothing to show to everyone is not there for everyone.
        return Err(Refusal::not_found());
    }
    let mut items = Vec::new();
    if let Some(ecosystem) = ecosystem::of_type(&package_type) {
        for head in page.of(&found) {
            items.push(view(&call, &owner, ecosystem, &head.package).await?);
        }
    }
    Ok(call.part(page, &items, found.len()))
}

/// Those of an owner's packages that the caller may know of, as many as pages lead to.
async fn visible(
    call: &Call<'_>,
    owner: &Account,
    ecosystem: &'static dyn Ecosystem,
    state: State,
    only: Option<Visibility>,
) -> Outcome<Vec<Arc<Head>>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let (heads, next) = call.registry.catalog().owned(owner.id, Some(ecosystem.info().name), after, CHUNK).await?;
        found.extend(heads.into_iter().filter(|head| {
            let wanted = only.is_none_or(|only| head.policy.visibility() == only);
            wanted
                && match (state, head.package.deleted_at) {
                    (State::Active, None) => access::decide(call.caller, &head.policy, Action::Read).is_ok(),
                    (State::Deleted, Some(_)) => manages(call.caller, head),
                    _ => false,
                }
        }));
        if found.len() >= REACH {
            found.truncate(REACH);
            return Ok(found);
        }
        after = next;
        if after.is_none() {
            return Ok(found);
        }
        tokio::task::yield_now().await;
    }
}

/// Whether a caller has the role that restoring needs, whatever the token allows.
pub(super) fn manages(caller: &Caller, head: &Head) -> bool {
    access::role(caller, &head.policy) == Some(Role::Admin)
}

/// Conflicts of a migration that this server never made; there are none.
pub(super) async fn conflicts(call: Call<'_>) -> Outcome {
    call.owner().await?;
    Ok(shown(&[(); 0]))
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Read).await?;
    found.respond(&call).await
}

pub(super) async fn delete(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Delete).await?;
    call.registry.delete_package(&found.grant).await?;
    Ok(done())
}

pub(super) async fn restore(call: Call<'_>) -> Outcome {
    let found = find_any(&call, Action::Admin).await?;
    call.registry.restore_package(&found.grant, found.ecosystem).await?;
    Ok(done())
}

/// Gives a package to another owner. Its name stays, so what installs it goes on working.
pub(super) async fn transfer(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let fields = call.fields("Package")?;
    let login: OwnerName = fields.needed_as("new_owner")?;
    let to = known(call.identity().account_by_login(&login).await)?;
    // Who may make nothing there is not told whether there is such an owner.
    let Some(to) = to else { return Err(Refusal::forbidden(NOT_THERE)) };
    call.registry.move_package(&found.grant, call.caller, &to).await.map_err(|error| match (error.kind(), error.subject()) {
        (Kind::Forbidden, Subject::Owner) => Refusal::forbidden(NOT_THERE),
        (Kind::Conflict, Subject::Package) => fields.wrong("new_owner", error.message()),
        _ => error.into(),
    })?;
    Found { owner: to, ..found }.respond(&call).await
}

const NOT_THERE: &str = "You may not create packages for this owner.";

/// A package, and the right to do something with it.
pub(super) struct Found {
    pub(super) head: Arc<Head>,
    pub(super) grant: Grant,
    pub(super) owner: Account,
    pub(super) ecosystem: &'static dyn Ecosystem,
}

impl Found {
    /// The package as it is now, as an answer.
    pub(super) async fn respond(&self, call: &Call<'_>) -> Outcome<Response> {
        let now = call.registry.catalog().head_by_id(self.head.package.id).await?;
        let package = now.as_ref().map_or(&self.head.package, |head| &head.package);
        Ok(shown(&view(call, &self.owner, self.ecosystem, package).await?))
    }
}

/// The live package that the path names.
pub(super) async fn find(call: &Call<'_>, action: Action) -> Outcome<Found> {
    let found = find_any(call, action).await?;
    if found.head.package.deleted_at.is_some() { Err(Refusal::not_found()) } else { Ok(found) }
}

/// The package that the path names, be it deleted.
pub(super) async fn find_any(call: &Call<'_>, action: Action) -> Outcome<Found> {
    let owner = call.owner().await?;
    let ecosystem = ecosystem::of_type(call.parameter("package_type")).ok_or_else(Refusal::not_found)?;
    let head = head(call.registry, &owner, ecosystem, call.parameter("package_name")).await?.ok_or_else(Refusal::not_found)?;
    if head.package.deleted_at.is_some() && !manages(call.caller, &head) {
        return Err(Refusal::not_found());
    }
    let target = Target { ecosystem: ecosystem.info().name, name: &head.package.name, package: Some(head.package.id) };
    let grant = access::grant(call.caller, target, &head.policy, action)?;
    Ok(Found { head, grant, owner, ecosystem })
}

/// An owner's package of the name that GitHub's API would give it.
async fn head(registry: &Registry, owner: &Account, ecosystem: &'static dyn Ecosystem, short: &str) -> Result<Option<Arc<Head>>> {
    for name in ecosystem.full_names(short, &owner.login) {
        let Ok(name) = PackageName::new(&name) else { continue };
        let head = registry.catalog().head_in(View::Owner(owner.id), ecosystem.info().name, &name).await?;
        if head.is_some() {
            return Ok(head);
        }
    }
    Ok(None)
}

/// GitHub's `Package`, as far as the caller may see what it is linked to.
async fn view(
    call: &Call<'_>,
    owner: &Account,
    ecosystem: &'static dyn Ecosystem,
    package: &Package,
) -> Outcome<serde_json::Map<String, serde_json::Value>> {
    let name = shown_name(call.registry, owner, ecosystem, package).await?;
    let repository = linked(call, owner, package).await?;
    let downloads = call.registry.catalog().downloads().total(package.id, None).await?;
    let shown = Shown { package, ecosystem, name: &name, owner, repository: repository.as_ref(), downloads };
    Ok(shown.package(call.links))
}

/// A package's name in the API: the short one, unless another package of the owner has it.
pub(crate) async fn shown_name(
    registry: &Registry,
    owner: &Account,
    ecosystem: &'static dyn Ecosystem,
    package: &Package,
) -> Result<String> {
    if let Some(short) = ecosystem.short_name(&package.name, &owner.login)
        && head(registry, owner, ecosystem, &short).await?.is_some_and(|head| head.package.id == package.id)
    {
        return Ok(short.into_owned());
    }
    Ok(package.spelling.as_ref().unwrap_or(&package.name).to_string())
}

/// The repository a package is linked to, if the caller may know of it.
async fn linked(call: &Call<'_>, owner: &Account, package: &Package) -> Outcome<Option<Repository>> {
    let Some(id) = package.repository else { return Ok(None) };
    let repository = known(call.identity().repository_by_id(id).await)?;
    Ok(repository.filter(|repository| {
        let role = || access::role_on_repository(call.caller, &RepositoryPolicy::from(repository), owner.is_organisation());
        repository.owner == owner.id
            && match repository.visibility {
                Visibility::Public => true,
                Visibility::Internal => !matches!(**call.caller, Caller::Anonymous),
                Visibility::Private => role().is_some(),
            }
    }))
}
