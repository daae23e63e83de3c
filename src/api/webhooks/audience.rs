//! Who may hear of what.
//!
//! A webhook is told what its author may know at the moment it is told, and not a
//! moment longer: the author's account must be live, must still see what the webhook
//! listens to (the repository; or be in the organisation), and must be able to read
//! the package. Whoever lost one of these is told nothing, also of what waits.

use std::sync::Arc;

use crate::access::{self, Action, RepositoryPolicy};
use crate::catalog::Head;
use crate::error::{Kind, Result};
use crate::identity::{Account, Caller, Repository, Scopes, Signed};
use crate::package::{PackageId, RepositoryId, TokenId, Visibility};
use crate::registry::Registry;
use crate::webhook::{Hook, Target};

/// A webhook's author as somebody who asks, with every scope: the webhook has no token of its own.
pub(super) struct Listener(Caller);

impl Listener {
    /// The author of a webhook, if they may still see what it listens to.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn of(registry: &Registry, hook: &Hook) -> Result<Option<Self>> {
        let identity = registry.identity();
        let Some(author) = known(identity.account(hook.author).await)? else { return Ok(None) };
        if author.disabled || author.is_organisation() {
            return Ok(None);
        }
        let signed = identity.seen(&author, TokenId(0), Scopes::all()).await?;
        let sees = match hook.target {
            Target::Organisation(id) => {
                let live = known(identity.account(id).await)?.is_some_and(|account| account.is_organisation());
                live && is_inside(&signed, id)
            }
            Target::Repository(id) => match repository(registry, id).await? {
                Some((repository, owner)) => sees_repository(&signed, &repository, &owner),
                None => false,
            },
        };
        Ok(sees.then_some(Self(Caller::Signed(signed))))
    }

    /// Whether they may know of a package, also of one that is deleted.
    pub(super) fn may_read(&self, head: &Head) -> bool {
        access::decide(&self.0, &head.policy, Action::Read).is_ok()
    }

    /// Whether they may know of a repository.
    pub(super) fn may_see(&self, repository: &Repository, owner: &Account) -> bool {
        self.0.signed().is_some_and(|signed| sees_repository(signed, repository, owner))
    }
}

/// Whether a webhook may be sent what it was to be told, of a package if it is of one.
///
/// # Errors
/// When the store fails.
pub(super) async fn may_hear(registry: &Registry, hook: &Hook, package: Option<PackageId>) -> Result<bool> {
    let Some(listener) = Listener::of(registry, hook).await? else { return Ok(false) };
    match package {
        None => Ok(true),
        Some(id) => Ok(head(registry, id).await?.is_some_and(|head| listener.may_read(&head))),
    }
}

/// The head of a package, also of a deleted one.
pub(super) async fn head(registry: &Registry, id: PackageId) -> Result<Option<Arc<Head>>> {
    registry.catalog().head_by_id(id).await
}

/// A repository with its owner.
pub(super) async fn repository(registry: &Registry, id: RepositoryId) -> Result<Option<(Repository, Account)>> {
    let Some(repository) = known(registry.identity().repository_by_id(id).await)? else { return Ok(None) };
    let owner = known(registry.identity().account(repository.owner).await)?;
    Ok(owner.map(|owner| (repository, owner)))
}

/// What was deleted since is absent.
pub(super) fn known<T>(looked_up: Result<T>) -> Result<Option<T>> {
    match looked_up {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_inside(signed: &Signed, organisation: crate::package::AccountId) -> bool {
    signed.site_admin || signed.role_in(organisation).is_some()
}

fn sees_repository(signed: &Signed, repository: &Repository, owner: &Account) -> bool {
    let role = || {
        let caller = Caller::Signed(signed.clone());
        access::role_on_repository(&caller, &RepositoryPolicy::from(repository), owner.is_organisation())
    };
    repository.visibility != Visibility::Private || role().is_some()
}
