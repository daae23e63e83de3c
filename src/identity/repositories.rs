//! Repositories and the roles granted on them.

use super::journal::{self, Told};
use super::record::{Repository, RepositoryRole};
use super::tables::{self, ACCOUNTS, HOLDINGS, REPOSITORIES, REPOSITORY_NAMES};
use super::{Identity, TRIES, contended};
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{AccountDeed, Particulars};
use crate::name::RepositoryName;
use crate::package::{AccountId, Principal, RepositoryId, Visibility};
use crate::store::Batch;
use crate::store::table::{Key, Stored};

/// Roles on one repository. They are read together on every decision that needs them.
const ROLES_LIMIT: usize = 1000;
/// Repositories that are read at once.
const PAGE: usize = 1000;

impl Identity {
    /// Makes a repository.
    ///
    /// # Errors
    /// `NotFound` when there is no such owner, `Conflict` when it has a repository of that name.
    pub async fn create_repository(&self, owner: AccountId, name: RepositoryName, visibility: Visibility) -> Result<Repository> {
        self.create_repository_by(None, owner, name, visibility).await
    }

    /// Makes a repository of which a member of the owning organisation is admin from its first moment.
    ///
    /// # Errors
    /// As [`Identity::create_repository`].
    pub async fn create_repository_by(
        &self,
        creator: Option<AccountId>,
        owner: AccountId,
        name: RepositoryName,
        visibility: Visibility,
    ) -> Result<Repository> {
        let id = RepositoryId(self.next_id().await?);
        let roles = creator.map(|creator| (Principal::User(creator), RepositoryRole::Admin)).into_iter().collect();
        let repository = Repository { id, owner, name, visibility, roles, created_at: self.clock.now() };
        for _ in 0..TRIES {
            let account = self.live(owner).await?;
            let key = || tables::repository_name(owner, &repository.name);
            if REPOSITORY_NAMES.get(&*self.store, key()).await?.is_some() {
                return Err(taken());
            }
            let mut batch = Batch::new();
            ACCOUNTS.unchanged(&mut batch, tables::account(owner), &account);
            HOLDINGS.put(&mut batch, tables::account(owner), &self.next_id().await?)?;
            REPOSITORY_NAMES.absent(&mut batch, key());
            REPOSITORY_NAMES.put(&mut batch, key(), &id)?;
            REPOSITORIES.put(&mut batch, tables::repository(id), &repository)?;
            let about = Particulars { visibility: Some(visibility), ..about(&repository) };
            let told = Told { owner: &account.value, deed: AccountDeed::RepositoryCreated, about };
            if self.commit_told(batch, [told]).await? {
                return Ok(repository);
            }
        }
        Err(contended(Subject::Repository))
    }

    /// The repository of a name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn repository(&self, owner: AccountId, name: &RepositoryName) -> Result<Repository> {
        let id = REPOSITORY_NAMES.get(&*self.store, tables::repository_name(owner, name)).await?;
        self.repository_by_id(id.ok_or_else(|| Error::not_found(Subject::Repository))?.value).await
    }

    /// The repository of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn repository_by_id(&self, id: RepositoryId) -> Result<Repository> {
        Ok(self.stored_repository(id).await?.value)
    }

    /// Repositories of an owner by name, at most `limit`, after the name given.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn repositories(&self, owner: AccountId, after: Option<&RepositoryName>, limit: usize) -> Result<Vec<Repository>> {
        let after = after.map(|name| tables::repository_name(owner, name).encode());
        let rows = REPOSITORY_NAMES.scan(&*self.store, Key::new().number(owner.0), after, limit).await?;
        let mut repositories = Vec::with_capacity(rows.len());
        for (_, id) in rows {
            if let Some(stored) = REPOSITORIES.get(&*self.store, tables::repository(id.value)).await? {
                repositories.push(stored.value);
            }
        }
        Ok(repositories)
    }

    /// Changes who may see a repository.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_visibility(&self, id: RepositoryId, visibility: Visibility) -> Result<Repository> {
        let about = Particulars { visibility: Some(visibility), ..Particulars::default() };
        self.change_repository(id, AccountDeed::RepositoryVisibilityChanged, about, |repository| {
            repository.visibility = visibility;
            Ok(())
        })
        .await
    }

    /// Gives a repository another name. What is linked to it stays linked; the old name is its owner's to use again.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the owner has a repository of the new name.
    pub async fn rename_repository(&self, id: RepositoryId, name: RepositoryName) -> Result<Repository> {
        for _ in 0..TRIES {
            let stored = self.stored_repository(id).await?;
            if stored.value.name == name {
                return Ok(stored.value);
            }
            let key = || tables::repository_name(stored.value.owner, &name);
            if REPOSITORY_NAMES.get(&*self.store, key()).await?.is_some() {
                return Err(taken());
            }
            let repository = Repository { name: name.clone(), ..stored.value.clone() };
            let mut batch = Batch::new();
            REPOSITORIES.unchanged(&mut batch, tables::repository(id), &stored);
            REPOSITORY_NAMES.absent(&mut batch, key());
            REPOSITORY_NAMES.put(&mut batch, key(), &id)?;
            REPOSITORY_NAMES.delete(&mut batch, tables::repository_name(stored.value.owner, &stored.value.name));
            REPOSITORIES.put(&mut batch, tables::repository(id), &repository)?;
            let owner = self.account(repository.owner).await?;
            let about = Particulars { old_name: Some(stored.value.name.to_string()), ..about(&repository) };
            if self.commit_told(batch, [Told { owner: &owner, deed: AccountDeed::RepositoryRenamed, about }]).await? {
                return Ok(repository);
            }
        }
        Err(contended(Subject::Repository))
    }

    /// Grants a role on a repository, or takes it away.
    ///
    /// A role of an organisation's repository goes to its members and teams: who leaves the organisation keeps nothing.
    ///
    /// # Errors
    /// `NotFound` when the repository or the principal is absent, `Invalid` when the principal cannot have a role here.
    pub async fn set_repository_role(&self, id: RepositoryId, principal: Principal, role: Option<RepositoryRole>) -> Result<Repository> {
        let before = self.repository_by_id(id).await?;
        if role.is_some() {
            self.expect_grantable(before.owner, principal).await?;
        }
        let (deed, about) = self.grant_told(principal, before.roles.get(&principal).copied(), role).await?;
        self.change_repository(id, deed, about, |repository| {
            match role {
                Some(role) => repository.roles.insert(principal, role),
                None => repository.roles.remove(&principal),
            };
            if repository.roles.len() > ROLES_LIMIT {
                return Err(Error::conflict(Subject::Repository, "a repository has at most 1000 roles; use a team"));
            }
            Ok(())
        })
        .await
    }

    /// What a change of a role on a repository is told as.
    async fn grant_told(
        &self,
        principal: Principal,
        old: Option<RepositoryRole>,
        new: Option<RepositoryRole>,
    ) -> Result<(AccountDeed, Particulars)> {
        let deeds = match principal {
            Principal::User(_) => (AccountDeed::CollaboratorAdded, AccountDeed::CollaboratorChanged, AccountDeed::CollaboratorRemoved),
            Principal::Team(_) => {
                (AccountDeed::TeamRepositoryAdded, AccountDeed::TeamRepositoryChanged, AccountDeed::TeamRepositoryRemoved)
            }
        };
        let deed = match (old, new) {
            (_, None) => deeds.2,
            (None, Some(_)) => deeds.0,
            (Some(_), Some(_)) => deeds.1,
        };
        // The role may be taken from somebody who was deleted since.
        let named = match principal {
            Principal::User(user) => self.account(user).await.map(|user| journal::user(&user)),
            Principal::Team(team) => self.team(team).await.map(|team| Particulars { team: Some(team.name), ..Particulars::default() }),
        };
        let named = match named {
            Err(error) if error.kind() == Kind::NotFound => Particulars::default(),
            named => named?,
        };
        Ok((deed, Particulars { role: new.map(|role| role.word().to_owned()), ..named }))
    }

    /// That a principal can have a role on something that `owner` owns: a user on a
    /// user's things, a member or a team on an organisation's. The same rule holds for packages.
    ///
    /// # Errors
    /// `NotFound` when the principal is absent, `Invalid` when it cannot.
    pub async fn expect_grantable(&self, owner: AccountId, principal: Principal) -> Result<()> {
        let owner = self.account(owner).await?;
        match principal {
            Principal::User(user) => {
                super::accounts::expect_user(&self.account(user).await?)?;
                if owner.is_organisation() {
                    self.membership(owner.id, user).await.map_err(|error| match error.kind() {
                        Kind::NotFound => Error::invalid(Subject::Account, "only members of the organisation can have a role here"),
                        _ => error,
                    })?;
                }
            }
            Principal::Team(team) => {
                if self.team(team).await?.organisation != owner.id {
                    return Err(Error::invalid(Subject::Team, "only teams of the owning organisation can have a role here"));
                }
            }
        }
        Ok(())
    }

    /// Gives a repository to another owner, perhaps under another name. Nobody has a role on it then but `admin`, if
    /// one is named. `provided` is what the floors above change together with it, if it is still as they read it;
    /// `None` when something is not.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the new owner has a repository of that name.
    pub async fn transfer_repository(
        &self,
        id: RepositoryId,
        owner: AccountId,
        name: Option<RepositoryName>,
        admin: Option<AccountId>,
        mut provided: Batch,
    ) -> Result<Option<Repository>> {
        let stored = self.stored_repository(id).await?;
        let (from, to) = (self.live(stored.value.owner).await?, self.live(owner).await?);
        let name = name.unwrap_or_else(|| stored.value.name.clone());
        let key = || tables::repository_name(owner, &name);
        if REPOSITORY_NAMES.get(&*self.store, key()).await?.is_some() {
            return Err(taken());
        }
        let roles = admin.map(|admin| (Principal::User(admin), RepositoryRole::Admin)).into_iter().collect();
        let repository = Repository { owner, name: name.clone(), roles, ..stored.value.clone() };
        ACCOUNTS.unchanged(&mut provided, tables::account(owner), &to);
        HOLDINGS.put(&mut provided, tables::account(owner), &self.next_id().await?)?;
        REPOSITORY_NAMES.absent(&mut provided, key());
        REPOSITORY_NAMES.put(&mut provided, key(), &id)?;
        REPOSITORY_NAMES.delete(&mut provided, tables::repository_name(stored.value.owner, &stored.value.name));
        REPOSITORIES.unchanged(&mut provided, tables::repository(id), &stored);
        REPOSITORIES.put(&mut provided, tables::repository(id), &repository)?;
        let about = Particulars { old_name: Some(format!("{}/{}", from.value.login, stored.value.name)), ..about(&repository) };
        let told = [&from, &to].map(|owner| Told { owner: &owner.value, deed: AccountDeed::RepositoryTransferred, about: about.clone() });
        Ok(self.commit_told(provided, told).await?.then_some(repository))
    }

    /// Takes a user's roles on an organisation's repositories away.
    ///
    /// # Errors
    /// When the store fails, or a repository is changed too often meanwhile.
    pub async fn strip_roles(&self, organisation: AccountId, user: AccountId) -> Result<()> {
        let (principal, mut after) = (Principal::User(user), None);
        loop {
            let found = self.repositories(organisation, after.as_ref(), PAGE).await?;
            for repository in found.iter().filter(|repository| repository.roles.contains_key(&principal)) {
                match self.set_repository_role(repository.id, principal, None).await {
                    Err(error) if error.kind() == Kind::NotFound => {}
                    other => drop(other?),
                }
            }
            match found.last() {
                Some(last) if found.len() == PAGE => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Deletes a repository. `provided` is as for [`Identity::transfer_repository`]; `false` when something of it is not
    /// as it was read.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_repository(&self, id: RepositoryId, mut provided: Batch) -> Result<bool> {
        let stored = self.stored_repository(id).await?;
        let owner = self.account(stored.value.owner).await?;
        REPOSITORIES.unchanged(&mut provided, tables::repository(id), &stored);
        REPOSITORIES.delete(&mut provided, tables::repository(id));
        REPOSITORY_NAMES.delete(&mut provided, tables::repository_name(stored.value.owner, &stored.value.name));
        let told = Told { owner: &owner, deed: AccountDeed::RepositoryDeleted, about: about(&stored.value) };
        self.commit_told(provided, [told]).await
    }

    /// Changes a record, unless it is so already, and tells of it.
    async fn change_repository(
        &self,
        id: RepositoryId,
        deed: AccountDeed,
        particulars: Particulars,
        change: impl Fn(&mut Repository) -> Result<()>,
    ) -> Result<Repository> {
        for _ in 0..TRIES {
            let stored = self.stored_repository(id).await?;
            let mut repository = stored.value.clone();
            change(&mut repository)?;
            if repository == stored.value {
                return Ok(repository);
            }
            let owner = self.account(repository.owner).await?;
            let Particulars { repository: name, repository_id, .. } = about(&repository);
            let about = Particulars { repository: name, repository_id, ..particulars.clone() };
            let mut batch = Batch::new();
            REPOSITORIES.unchanged(&mut batch, tables::repository(id), &stored);
            REPOSITORIES.put(&mut batch, tables::repository(id), &repository)?;
            if self.commit_told(batch, [Told { owner: &owner, deed, about }]).await? {
                return Ok(repository);
            }
        }
        Err(contended(Subject::Repository))
    }

    async fn stored_repository(&self, id: RepositoryId) -> Result<Stored<Repository>> {
        REPOSITORIES.get(&*self.store, tables::repository(id)).await?.ok_or_else(|| Error::not_found(Subject::Repository))
    }
}

fn about(repository: &Repository) -> Particulars {
    Particulars { repository: Some(repository.name.clone()), repository_id: Some(repository.id), ..Particulars::default() }
}

fn taken() -> Error {
    Error::conflict(Subject::Repository, "the owner has a repository of that name")
}
