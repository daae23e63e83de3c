//! A package's settings: who sees it, which repository it belongs to, who has which role on it.

use super::Registry;
use crate::access::{Action, Grant};
use crate::catalog::change::Change;
use crate::catalog::{Head, change};
use crate::error::{Error, Kind, Result, Subject};
use crate::event::Deed;
use crate::identity::Repository;
use crate::package::{Principal, RepositoryId, Role, Visibility};
use crate::store::Batch;

/// Most roles on one package; teams hold more people.
const ROLES_LIMIT: usize = 1000;

/// What to change of a package; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may see it.
    pub visibility: Option<Visibility>,
    /// The repository it is linked to, or `Some(None)` for no longer any. Whoever links makes sure
    /// that the caller may, as [`Registry::linkable`] says.
    pub repository: Option<Option<RepositoryId>>,
    /// Whether the roles on the repository stand in for the package's own.
    pub inherits: Option<bool>,
}

impl Registry {
    /// Changes a package's settings.
    ///
    /// # Errors
    /// `Unprocessable` when a package without a repository is to inherit, or when what is
    /// public is to be so no longer and the operator has not allowed that.
    pub async fn change_settings(&self, grant: &Grant, settings: Settings) -> Result<()> {
        grant.require(Action::Admin)?;
        let permanent = self.access.public_is_permanent && !grant.is_system();
        let edit = |head: &Head, now| {
            if head.package.repository_scoped && settings != Settings::default() {
                return Err(refused(Subject::Package, "the package takes its visibility and its roles from its repository; change those"));
            }
            let linked = settings.repository.unwrap_or(head.package.repository);
            if settings.inherits == Some(true) && linked.is_none() {
                return Err(refused(Subject::Repository, "only a package that is linked to a repository can inherit its roles"));
            }
            let hides = settings.visibility.is_some_and(|visibility| visibility != Visibility::Public);
            if permanent && hides && head.package.visibility == Visibility::Public {
                return Err(refused(Subject::Package, "a public package stays public: others depend on it"));
            }
            let visibility = settings.visibility.unwrap_or(head.package.visibility);
            let inherits = linked.is_some() && settings.inherits.unwrap_or(head.package.inherits);
            let deed = if visibility == head.package.visibility { Deed::Linked } else { Deed::VisibilityChanged };
            let same = (visibility, linked, inherits) == (head.package.visibility, head.package.repository, head.package.inherits);
            let detail = format!(
                "visibility {}, repository {}, roles {}",
                visibility.word(),
                linked.map_or("none".to_owned(), |repository| repository.to_string()),
                if inherits { "of the repository" } else { "of its own" }
            );
            let change = change::edit(head, deed, now, |package| {
                (package.visibility, package.repository, package.inherits) = (visibility, linked, inherits);
            })?
            .saying(detail);
            // What is as it was asked to be has no event either.
            Ok(if same { Change { batch: Batch::new(), ..change } } else { change })
        };
        self.edit(grant, edit).await
    }

    /// Gives someone a role on a package, or takes it away.
    ///
    /// # Errors
    /// As [`Identity::expect_grantable`](crate::identity::Identity::expect_grantable);
    /// `Conflict` when there are too many roles, `NotFound` when there is none to take away.
    pub async fn set_role(&self, grant: &Grant, principal: Principal, role: Option<Role>) -> Result<()> {
        grant.require(Action::Admin)?;
        if role.is_some() {
            let head = self.hosted_head(grant).await?;
            self.identity().expect_grantable(head.package.owner, principal).await?;
        }
        let detail = format!("{}: {}", self.called(principal).await?, role.map_or("no role", Role::word));
        let edit = |head: &Head, now| {
            let roles = &head.package.roles;
            if head.package.repository_scoped {
                return Err(refused(Subject::Package, "the package takes its roles from its repository; grant them there"));
            }
            if role.is_none() && !roles.contains_key(&principal) {
                return Err(Error::not_found(Subject::Package).saying("it has no role on this package"));
            }
            if roles.len() >= ROLES_LIMIT && !roles.contains_key(&principal) {
                return Err(Error::conflict(Subject::Package, "a package has at most 1000 roles; use a team"));
            }
            let change = change::edit(head, Deed::RolesChanged, now, |package| {
                match role {
                    Some(role) => package.roles.insert(principal, role),
                    None => package.roles.remove(&principal),
                };
            })?;
            Ok(change.saying(detail.clone()))
        };
        self.edit(grant, edit).await
    }

    /// Gives the workflows of a repository a role on a package, or takes it away. GitHub calls it the management of
    /// Actions' access.
    ///
    /// # Errors
    /// `Unprocessable` when the repository is another owner's, or the package has no rights but those of its repository;
    /// `Conflict` when there are too many roles, `NotFound` when there is none to take away.
    pub async fn set_workflow_role(&self, grant: &Grant, repository: &Repository, role: Option<Role>) -> Result<()> {
        grant.require(Action::Admin)?;
        let detail = format!("workflows of {}: {}", repository.name, role.map_or("no role", Role::word));
        let edit = |head: &Head, now| {
            let workflows = &head.package.workflows;
            if head.package.repository_scoped {
                return Err(refused(Subject::Package, "the package is used by the workflows of its repository alone"));
            }
            if role.is_some() && repository.owner != head.package.owner {
                return Err(refused(Subject::Repository, "only repositories of the package's owner can use it"));
            }
            if role.is_none() && !workflows.contains_key(&repository.id) {
                return Err(Error::not_found(Subject::Repository));
            }
            if workflows.len() >= ROLES_LIMIT && !workflows.contains_key(&repository.id) {
                return Err(Error::conflict(Subject::Package, "at most 1000 repositories can use a package"));
            }
            let change = change::edit(head, Deed::RolesChanged, now, |package| {
                match role {
                    Some(role) => package.workflows.insert(repository.id, role),
                    None => package.workflows.remove(&repository.id),
                };
            })?;
            Ok(change.saying(detail.clone()))
        };
        self.edit(grant, edit).await
    }

    /// A name for a principal in the audit log; of a deleted one the id is left.
    async fn called(&self, principal: Principal) -> Result<String> {
        let name = match principal {
            Principal::User(user) => self.identity().account(user).await.map(|user| format!("user {}", user.login)),
            Principal::Team(team) => self.identity().team(team).await.map(|team| format!("team {}", team.name)),
        };
        match name {
            Err(error) if error.kind() == Kind::NotFound => Ok(principal.to_string()),
            name => name,
        }
    }
}

fn refused(subject: Subject, why: &'static str) -> Error {
    Error::new(Kind::Unprocessable, subject).saying(why)
}
