//! Who may do what: one pure function, and the proof that it said yes.
//!
//! [`decide`] carries GitHub Packages' whole model. A caller may act when a token
//! scope **and** a role allow it:
//!
//! | action | scopes | role |
//! |---|---|---|
//! | read | `read:packages` | read |
//! | write | `write:packages` | write |
//! | delete | `delete:packages` and `read:packages` | admin |
//! | admin (visibility, link, roles) | `write:packages` | admin |
//!
//! - `write:packages` includes `read:packages`. Where a package's rights are its
//!   repository's ([`Policy::repository_scoped`]), `repo` is needed besides, except to read what is public.
//! - A public package is read by everyone, whatever the token lacks: nobody is
//!   worse off for signing in. An internal one is read by every signed-in user.
//! - The owner is admin; so are the owners of an owning organisation, and site
//!   admins. A site admin is still held to the token's scopes.
//! - A role granted on an organisation's thing counts only while the user is a
//!   member; who is removed keeps nothing. Teams have roles on organisations' things only.
//! - A package that inherits takes its roles from its repository **instead of**
//!   its own: read and triage give read, write and maintain give write, admin gives admin.
//! - A repository of another owner than the package's gives no roles.
//! - A workflow has the rights of its repository and of no user. Its repository is admin of the packages that
//!   take their roles from it, and has the role that others give it by name; only among its owner's packages.
//!
//! What a caller learns from a refusal is decided here once, so that no format can
//! leak it: who may not read a thing that is not public is told that it does not
//! exist, whatever was tried.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Kind, Result, Subject};
use crate::identity::{Caller, OrganisationRole, Repository, RepositoryRole, Scope, Scopes, Signed, Workflow};
use crate::package::{AccountId, Principal, RepositoryId, Role, Visibility};

mod grant;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

pub use grant::{Grant, Target, grant, grant_create, grant_own, grant_upstream};

/// What the operator decides for the whole server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether packages of the upstreams are served without a token.
    pub anonymous_proxy: bool,
    /// Visibility of a package on its first publish.
    pub default_visibility: Visibility,
    /// Whether members of an organisation, and not only its owners, may publish new packages under it.
    pub members_can_publish: bool,
    /// Whether a public package stays public.
    pub public_is_permanent: bool,
    /// A public version that was downloaded more often than this cannot be deleted, nor can its package; zero for no such rule.
    pub undeletable_downloads: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            anonymous_proxy: true,
            default_visibility: Visibility::Private,
            members_can_publish: true,
            public_is_permanent: true,
            undeletable_downloads: 5000,
        }
    }
}

/// Something to be done to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Download, read metadata, list.
    Read,
    /// Publish, deprecate, tag.
    Write,
    /// Delete a version or the package.
    Delete,
    /// Change visibility, link or roles; restore what was deleted.
    Admin,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Delete, Self::Admin];

    const fn role(self) -> Role {
        match self {
            Self::Read => Role::Read,
            Self::Write => Role::Write,
            Self::Delete | Self::Admin => Role::Admin,
        }
    }

    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Read => &[Scope::ReadPackages],
            Self::Write | Self::Admin => &[Scope::WritePackages],
            Self::Delete => &[Scope::DeletePackages, Scope::ReadPackages],
        }
    }
}

/// What rights on a package hang on. The catalog fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The account whose package it is.
    pub owner: AccountId,
    /// Whether the owner is an organisation.
    pub owner_is_organisation: bool,
    /// Who may read it without a role. Unused when `repository_scoped`.
    pub visibility: Visibility,
    /// Whether roles on the linked repository stand in for `roles`.
    pub inherits: bool,
    /// Roles granted on the package itself.
    pub roles: BTreeMap<Principal, Role>,
    /// Roles of the workflows of repositories.
    pub workflows: BTreeMap<RepositoryId, Role>,
    /// The repository it is linked to.
    pub repository: Option<RepositoryPolicy>,
    /// Whether the package has no rights of its own but those of its repository (Maven, legacy docker).
    pub repository_scoped: bool,
}

/// What rights on a repository hang on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPolicy {
    /// Its id.
    pub id: RepositoryId,
    /// Who may read it without a role.
    pub visibility: Visibility,
    /// The account whose repository it is.
    pub owner: AccountId,
    /// Roles granted on it.
    pub roles: BTreeMap<Principal, RepositoryRole>,
}

impl From<&Repository> for RepositoryPolicy {
    fn from(repository: &Repository) -> Self {
        Self { id: repository.id, visibility: repository.visibility, owner: repository.owner, roles: repository.roles.clone() }
    }
}

impl Policy {
    /// The policy of a package that has no rights but those of its repository.
    #[must_use]
    pub fn of_repository(repository: &Repository, owner_is_organisation: bool) -> Self {
        Self {
            owner: repository.owner,
            owner_is_organisation,
            visibility: repository.visibility,
            inherits: true,
            roles: BTreeMap::new(),
            workflows: BTreeMap::new(),
            repository: Some(repository.into()),
            repository_scoped: true,
        }
    }

    /// Who may read the package without a role.
    #[must_use]
    pub fn visibility(&self) -> Visibility {
        if self.repository_scoped {
            self.own_repository().map_or(Visibility::Private, |repository| repository.visibility)
        } else {
            self.visibility
        }
    }

    /// The linked repository, unless it is another owner's.
    fn own_repository(&self) -> Option<&RepositoryPolicy> {
        self.repository.as_ref().filter(|repository| repository.owner == self.owner)
    }
}

/// Whether a caller may do something to a package that exists.
///
/// # Errors
/// `NotFound` of a package when the caller may not read it and it is not public;
/// else `Unauthenticated` for the anonymous caller, and `Forbidden` naming the
/// scope or role that is missing.
pub fn decide(caller: &Caller, policy: &Policy, action: Action) -> Result<()> {
    let visibility = policy.visibility();
    let scopes = match caller {
        Caller::System => return Ok(()),
        Caller::Anonymous if visibility != Visibility::Public => return Err(Error::not_found(Subject::Package)),
        Caller::Anonymous if action == Action::Read => return Ok(()),
        Caller::Anonymous => return Err(Error::new(Kind::Unauthenticated, Subject::Package)),
        Caller::Signed(signed) => signed.scopes,
        Caller::Workflow(workflow) => workflow.scopes,
    };
    let role = role(caller, policy);
    let readable = match visibility {
        Visibility::Public => true,
        Visibility::Internal => missing_scope(scopes, policy, Action::Read).is_none(),
        Visibility::Private => role.is_some() && missing_scope(scopes, policy, Action::Read).is_none(),
    };
    if !readable {
        return Err(Error::not_found(Subject::Package));
    }
    if action == Action::Read {
        return Ok(());
    }
    if let Some(scope) = missing_scope(scopes, policy, action) {
        return Err(lacks_scope(scope));
    }
    if role >= Some(action.role()) { Ok(()) } else { Err(lacks_role(action.role())) }
}

/// The role a caller has on a package, whatever the token's scopes.
#[must_use]
pub fn role(caller: &Caller, policy: &Policy) -> Option<Role> {
    match caller {
        Caller::System => Some(Role::Admin),
        Caller::Anonymous => None,
        Caller::Signed(signed) => user_role(signed, policy),
        Caller::Workflow(workflow) => workflow_role(workflow, policy),
    }
}

fn workflow_role(workflow: &Workflow, policy: &Policy) -> Option<Role> {
    if workflow.owner != policy.owner {
        return None;
    }
    let own = policy.own_repository().is_some_and(|repository| repository.id == workflow.repository);
    match own {
        true if policy.repository_scoped || policy.inherits => Some(Role::Admin),
        _ if policy.repository_scoped => None,
        _ => policy.workflows.get(&workflow.repository).copied(),
    }
}

fn user_role(signed: &Signed, policy: &Policy) -> Option<Role> {
    if is_admin(signed, policy.owner) {
        return Some(Role::Admin);
    }
    let through = |repository: &RepositoryPolicy| granted(signed, policy, &repository.roles).map(RepositoryRole::on_packages);
    match policy.own_repository() {
        Some(repository) if policy.repository_scoped || policy.inherits => through(repository),
        None if policy.repository_scoped => None,
        _ => granted(signed, policy, &policy.roles),
    }
}

/// The role a caller has on a repository itself; whoever links a package to it needs write.
/// `organisation` says whether the repository's owner is one.
#[must_use]
pub fn role_on_repository(caller: &Caller, repository: &RepositoryPolicy, organisation: bool) -> Option<RepositoryRole> {
    match caller {
        Caller::System => Some(RepositoryRole::Admin),
        Caller::Anonymous => None,
        Caller::Signed(signed) if is_admin(signed, repository.owner) => Some(RepositoryRole::Admin),
        Caller::Signed(signed) => highest(signed, repository.owner, organisation, &repository.roles),
        Caller::Workflow(workflow) => (workflow.repository == repository.id).then_some(RepositoryRole::Write),
    }
}

fn is_admin(signed: &Signed, owner: AccountId) -> bool {
    signed.site_admin || signed.user == owner || signed.role_in(owner) == Some(OrganisationRole::Owner)
}

fn granted<R: Copy + Ord>(signed: &Signed, policy: &Policy, roles: &BTreeMap<Principal, R>) -> Option<R> {
    highest(signed, policy.owner, policy.owner_is_organisation, roles)
}

fn highest<R: Copy + Ord>(signed: &Signed, owner: AccountId, organisation: bool, roles: &BTreeMap<Principal, R>) -> Option<R> {
    if organisation && signed.role_in(owner).is_none() {
        return None;
    }
    let holds = |principal: &Principal| match principal {
        Principal::User(user) => *user == signed.user,
        Principal::Team(team) => organisation && signed.teams.contains(team),
    };
    roles.iter().filter(|(principal, _)| holds(principal)).map(|(_, role)| *role).max()
}

fn missing_scope(scopes: Scopes, policy: &Policy, action: Action) -> Option<Scope> {
    let repository = policy.repository_scoped.then_some(Scope::Repo);
    action.scopes().iter().copied().chain(repository).find(|scope| !scopes.allow(*scope))
}

fn lacks_scope(scope: Scope) -> Error {
    Error::forbidden(Subject::Token, format!("the token lacks the scope {}", scope.name()))
}

fn lacks_role(role: Role) -> Error {
    Error::forbidden(Subject::Package, format!("the role {} on the package is required", role.word()))
}

/// The account under which a package would be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub account: AccountId,
    /// Whether members may publish, if it is an organisation: [`Config::members_can_publish`].
    pub members_can_publish: bool,
}

/// Whether a caller may publish a new package under an owner; `None` is an owner
/// that does not exist. For a package that is repository-scoped the repository's
/// [`decide`] with [`Action::Write`] takes this one's place.
///
/// # Errors
/// `Unauthenticated` for the anonymous caller, `Forbidden` for a missing scope or
/// place in the organisation. The answer is the same for an owner that does not
/// exist, except to the server itself and to site admins, who are told `NotFound`.
pub fn decide_create(caller: &Caller, owner: Option<Owner>) -> Result<()> {
    let absent = || Error::not_found(Subject::Owner).saying("no such user or organisation");
    let scopes = match caller {
        Caller::System => return owner.map(|_| ()).ok_or_else(absent),
        Caller::Anonymous => return Err(Error::new(Kind::Unauthenticated, Subject::Owner)),
        Caller::Signed(signed) => signed.scopes,
        Caller::Workflow(workflow) => workflow.scopes,
    };
    if !scopes.allow(Scope::WritePackages) {
        return Err(lacks_scope(Scope::WritePackages));
    }
    let may = match (caller, owner) {
        (Caller::Signed(signed), None) if signed.site_admin => return Err(absent()),
        (Caller::Signed(signed), Some(owner)) => {
            is_admin(signed, owner.account) || owner.members_can_publish && signed.role_in(owner.account).is_some()
        }
        (Caller::Workflow(workflow), Some(owner)) => workflow.owner == owner.account,
        _ => false,
    };
    if may { Ok(()) } else { Err(Error::forbidden(Subject::Owner, "you may not publish packages under this owner")) }
}
