//! Packages and repositories that go to another owner, and what hangs on them.
//!
//! No right outlives the move: roles, links and workflows' rights are taken off in
//! the very batch that moves the thing. A package keeps its name, so nothing that
//! installs it breaks, and among its former owner's packages that name is given to
//! no other. Of a repository's packages those that have all their rights from it go
//! along, as on GitHub; the others stay with their owner and lose the link.

use std::sync::Arc;

use super::Registry;
use super::publish::{TRIES, contended};
use crate::access::{self, Action, Grant, Owner};
use crate::catalog::change::Change;
use crate::catalog::{Applied, Head, change};
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{Actor, Event};
use crate::identity::{Account, Caller, Membership, OrganisationRole, Repository};
use crate::name::RepositoryName;
use crate::package::{AccountId, Package, Principal, RepositoryId};
use crate::store::Batch;

/// Packages of an owner that are read at once.
const PAGE: usize = 1000;

/// What several packages become together with something else.
#[derive(Default)]
struct Together {
    batch: Batch,
    packages: Vec<Package>,
    events: Vec<Event>,
}

impl Registry {
    /// Gives a package to another owner. The caller must be allowed to make packages there, and is the one who keeps a
    /// role on it, if a member may have one.
    ///
    /// # Errors
    /// `Forbidden` when the caller may not; `Conflict` when the new owner has or had a package of that name;
    /// `Unprocessable` when the package's rights are its repository's: then the repository is moved.
    pub async fn move_package(&self, grant: &Grant, caller: &Caller, to: &Account) -> Result<()> {
        grant.require(Action::Admin)?;
        let members_can_publish = self.access().members_can_publish;
        access::decide_create(caller, Some(Owner { account: to.id, members_can_publish }))?;
        let admin = keeps_role(caller, to);
        let _turn = self.turn(grant.ecosystem(), grant.name()).await;
        for _ in 0..TRIES {
            let head = self.hosted_head(grant).await?;
            if head.package.repository_scoped {
                let text = "the package belongs to its repository; transfer the repository";
                return Err(Error::new(Kind::Unprocessable, Subject::Package).saying(text));
            }
            if head.package.deleted_at.is_some() {
                return Err(Error::not_found(Subject::Package));
            }
            if head.package.owner == to.id {
                return Ok(());
            }
            let mut change = self.relocation(&head, to, admin).await?;
            self.expect_owner(&mut change.batch, to.id).await?;
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Gives a repository to another owner, perhaps under another name, with the packages that have their rights from it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the new owner has a repository, or has or had a package, of a name that comes with it.
    pub async fn transfer_repository(
        &self,
        id: RepositoryId,
        caller: &Caller,
        to: &Account,
        name: Option<RepositoryName>,
    ) -> Result<Repository> {
        for _ in 0..TRIES {
            let (batch, heads) = self.catalog().linked(id).await?;
            let mut together = Together { batch, ..Together::default() };
            for head in heads {
                let change = if head.package.repository_scoped {
                    self.relocation(&head, to, None).await?
                } else {
                    change::unlink(&head, id, self.clock().now())?
                };
                self.join(&mut together, change).await?;
            }
            let Together { batch, packages, events } = together;
            let forget = self.catalog().forgetting(&packages);
            let moved = self.identity().transfer_repository(id, to.id, name.clone(), keeps_role(caller, to), batch).await?;
            drop(forget);
            if let Some(repository) = moved {
                self.announce(&events);
                return Ok(repository);
            }
        }
        Err(contended())
    }

    /// Deletes a repository, and the links to it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while there are packages that have their rights from it.
    pub async fn delete_repository(&self, id: RepositoryId) -> Result<()> {
        for _ in 0..TRIES {
            let (batch, heads) = self.catalog().linked(id).await?;
            let holds = |head: &Arc<Head>| head.package.repository_scoped && head.package.deleted_at.is_none();
            if heads.iter().any(holds) {
                return Err(Error::conflict(Subject::Repository, "the repository still holds packages; delete or transfer them first"));
            }
            let mut together = Together { batch, ..Together::default() };
            for head in heads {
                self.join(&mut together, change::unlink(&head, id, self.clock().now())?).await?;
            }
            let Together { batch, packages, events } = together;
            let forget = self.catalog().forgetting(&packages);
            let deleted = self.identity().delete_repository(id, batch).await?;
            drop(forget);
            if deleted {
                self.announce(&events);
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Makes a user a member of an organisation, or changes the member's role. Who was a member before comes back
    /// without the roles of then.
    ///
    /// # Errors
    /// As [`Identity::set_member`](crate::identity::Identity::set_member).
    pub async fn set_member(&self, organisation: AccountId, user: AccountId, role: OrganisationRole) -> Result<Membership> {
        if self.identity().was_member(organisation, user).await? {
            self.identity().strip_roles(organisation, user).await?;
            self.strip_package_roles(organisation, user).await?;
        }
        self.identity().set_member(organisation, user, role).await
    }

    async fn strip_package_roles(&self, owner: AccountId, user: AccountId) -> Result<()> {
        let principal = Principal::User(user);
        let mut after = None;
        loop {
            let (heads, next) = self.catalog().owned(owner, None, after, PAGE).await?;
            for head in heads.into_iter().filter(|head| head.package.roles.contains_key(&principal)) {
                self.strip_role(head, principal).await?;
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn strip_role(&self, mut head: Arc<Head>, principal: Principal) -> Result<()> {
        for _ in 0..TRIES {
            let change = change::withdraw(&head, principal, self.clock().now())?.saying("left from an earlier membership");
            let package = change.package.clone();
            let (batch, events) = self.told(Actor::current(), change).await?;
            if self.catalog().commit(&package, batch).await? == Applied::Yes {
                self.announce(&events);
                return Ok(());
            }
            head = self.catalog().head_by_id(package.id).await?.ok_or_else(|| Error::not_found(Subject::Package))?;
        }
        Err(contended())
    }

    async fn relocation(&self, head: &Head, to: &Account, admin: Option<AccountId>) -> Result<Change> {
        let before = self.catalog().own_name(&head.package, to.id).await?;
        let change = change::relocate(head, to.id, admin, before.as_ref(), self.clock().now())?;
        let from = match self.identity().account(head.package.owner).await {
            Ok(from) => from.login.to_string(),
            Err(error) if error.kind() == Kind::NotFound => head.package.owner.to_string(),
            Err(error) => return Err(error),
        };
        Ok(change.saying(format!("from {from} to {}", to.login)))
    }

    /// Takes a change of one more package in, with what tells of it.
    async fn join(&self, together: &mut Together, change: Change) -> Result<()> {
        let package = change.package.clone();
        let (batch, events) = self.told(Actor::current(), change).await?;
        together.batch.extend(batch);
        together.packages.push(package);
        together.events.extend(events);
        Ok(())
    }
}

/// Who keeps a role on what goes to another owner: whoever brought it, if a member of an organisation.
fn keeps_role(caller: &Caller, to: &Account) -> Option<AccountId> {
    caller.signed().filter(|signed| signed.role_in(to.id).is_some()).map(|signed| signed.user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NewUser;
    use crate::name::{OwnerName, PackageName};
    use crate::package::{Role, Visibility};
    use crate::registry::{Settings, fixture};
    use crate::store::slow::Slow;

    /// Whatever is first, a link or the move of its repository: at the end there is no link, or both are of one owner.
    #[tokio::test]
    async fn a_link_and_a_move_at_once_leave_no_link_to_another_owner() {
        for seed in 0..100 {
            let f = fixture::fixture_on(Arc::new(Slow::new(seed))).await;
            let user = async |login: &str| {
                let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: false };
                f.identity.create_user(new).await.unwrap()
            };
            let (ann, bob) = (user("ann").await, user("bob").await);
            let web = f.identity.create_repository(ann.id, RepositoryName::new("web").unwrap(), Visibility::Private).await.unwrap();
            f.publish("npm", "tool", ann.id, "1.0.0").await.unwrap();
            let name = PackageName::new("tool").unwrap();
            let catalog = f.registry.catalog();
            let id = catalog.head("npm", &name).await.unwrap().unwrap().package.id;
            let grant = Grant::system(("npm", &name, Some(id)));
            let link = async {
                if seed % 2 == 0 {
                    let settings = Settings { repository: Some(Some(web.id)), inherits: Some(true), ..Settings::default() };
                    f.registry.change_settings(&grant, settings).await
                } else {
                    f.registry.set_workflow_role(&grant, &web, Some(Role::Admin)).await
                }
            };
            let moving = f.registry.transfer_repository(web.id, &Caller::System, &bob, None);
            let (linked, moved) = tokio::join!(link, moving);
            assert!(linked.is_ok() && moved.is_ok(), "seed {seed}: {linked:?} {moved:?}");
            // Should the repository come back, nothing does with it.
            f.registry.transfer_repository(web.id, &Caller::System, &ann, None).await.unwrap();
            let head = catalog.head_by_id(id).await.unwrap().unwrap();
            assert_eq!((head.package.repository, head.package.workflows.len()), (None, 0), "seed {seed}");
        }
    }

    /// Nobody is left with a package of an account that is gone.
    #[tokio::test]
    async fn a_package_moves_to_a_living_owner_or_not_at_all() {
        let mut arrived = 0;
        for seed in 0..100 {
            let f = fixture::fixture_on(Arc::new(Slow::new(seed))).await;
            let user = async |login: &str| {
                let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: false };
                f.identity.create_user(new).await.unwrap()
            };
            let (ann, bob) = (user("ann").await, user("bob").await);
            f.publish("npm", "tool", ann.id, "1.0.0").await.unwrap();
            let name = PackageName::new("tool").unwrap();
            let grant = Grant::system(("npm", &name, None));
            let deletion = async {
                let provided = f.registry.catalog().owns_nothing(bob.id).await?;
                f.identity.delete_account(bob.id, provided).await
            };
            let (moved, deleted) = tokio::join!(f.registry.move_package(&grant, &Caller::System, &bob), deletion);
            let owner = f.registry.catalog().head("npm", &name).await.unwrap().unwrap().package.owner;
            assert_eq!(owner == bob.id, moved.is_ok(), "seed {seed}");
            assert!(moved.is_ok() != deleted.is_ok(), "seed {seed}: {moved:?} {deleted:?}");
            arrived += u64::from(moved.is_ok());
        }
        assert!((1..100).contains(&arrived), "the same was first every time");
    }
}
