//! Members and teams of organisations.

use std::collections::{BTreeSet, HashSet};

use super::accounts::expect_user;
use super::journal::{self, Told};
use super::record::{Account, Membership, OrganisationRole, Team};
use super::tables::{self, ACCOUNTS, FORMER_MEMBERS, MEMBERS, MEMBERSHIPS, TEAM_NAMES, TEAMS};
use super::{Identity, Page, TRIES, contended, page_end};
use crate::error::{Error, Result, Subject};
use crate::event::{AccountDeed, Particulars};
use crate::name::TeamName;
use crate::package::{AccountId, TeamId};
use crate::store::Batch;
use crate::store::table::{Key, Stored};

/// Rows removed in one batch.
const CHUNK: usize = 256;

/// Most organisations of one user that count. GitHub has no such figure; each is read when a token is first seen.
const ORGANISATIONS_PER_USER: usize = 10_000;

impl Identity {
    /// Makes a user a member of an organisation, or changes the member's role. Whoever makes a member anew of one who
    /// [was one before](Self::was_member) first takes the roles away that are left from then.
    ///
    /// # Errors
    /// `NotFound` when either is absent, `Invalid` when they are not an organisation and a user; `Forbidden` when the
    /// organisation would have no owner any more.
    pub async fn set_member(&self, organisation: AccountId, user: AccountId, role: OrganisationRole) -> Result<Membership> {
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            let (owner, member) = self.expect_pair(&mut batch, organisation, user).await?;
            let key = || tables::pair(user, organisation);
            let mut owned = false;
            let (membership, deed) = if let Some(stored) = MEMBERSHIPS.get(&*self.store, key()).await? {
                if stored.value.role == role {
                    return Ok(stored.value);
                }
                MEMBERSHIPS.unchanged(&mut batch, key(), &stored);
                owned = stored.value.role == OrganisationRole::Owner;
                (Membership { role, ..stored.value }, AccountDeed::MemberChanged)
            } else {
                MEMBERSHIPS.absent(&mut batch, key());
                FORMER_MEMBERS.delete(&mut batch, tables::pair(organisation, user));
                let joined = Membership { organisation, user, role, teams: BTreeSet::new(), created_at: self.clock.now() };
                (joined, AccountDeed::MemberAdded)
            };
            let owns = role == OrganisationRole::Owner;
            if owns != owned {
                self.change_owners(&mut batch, organisation, user, owns).await?;
            }
            MEMBERSHIPS.put(&mut batch, key(), &membership)?;
            MEMBERS.put(&mut batch, tables::pair(organisation, user), &user)?;
            let about = Particulars { role: Some(role.word().to_owned()), ..journal::user(&member) };
            if self.commit_told(batch, [Told { owner: &owner, deed, about }]).await? {
                return Ok(membership);
            }
        }
        Err(contended(Subject::Account))
    }

    /// Whether a user was a member of an organisation and is none now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn was_member(&self, organisation: AccountId, user: AccountId) -> Result<bool> {
        Ok(FORMER_MEMBERS.get(&*self.store, tables::pair(organisation, user)).await?.is_some())
    }

    /// Ends a membership, and with it the member's places in the organisation's teams.
    ///
    /// # Errors
    /// `NotFound` when the user is no member, `Forbidden` when it is the last owner.
    pub async fn remove_member(&self, organisation: AccountId, user: AccountId) -> Result<()> {
        let (owner, member) = (self.account(organisation).await?, self.account(user).await?);
        for _ in 0..TRIES {
            let stored = self.stored_membership(organisation, user).await?;
            let mut batch = Batch::new();
            MEMBERSHIPS.unchanged(&mut batch, tables::pair(user, organisation), &stored);
            MEMBERSHIPS.delete(&mut batch, tables::pair(user, organisation));
            MEMBERS.delete(&mut batch, tables::pair(organisation, user));
            FORMER_MEMBERS.put(&mut batch, tables::pair(organisation, user), &())?;
            if stored.value.role == OrganisationRole::Owner {
                self.change_owners(&mut batch, organisation, user, false).await?;
            }
            let told = Told { owner: &owner, deed: AccountDeed::MemberRemoved, about: journal::user(&member) };
            if self.commit_told(batch, [told]).await? {
                return Ok(());
            }
        }
        Err(contended(Subject::Account))
    }

    /// A user's membership of an organisation.
    ///
    /// # Errors
    /// `NotFound` when the user is no member.
    pub async fn membership(&self, organisation: AccountId, user: AccountId) -> Result<Membership> {
        Ok(self.stored_membership(organisation, user).await?.value)
    }

    /// Memberships of an organisation by user id, at most `limit`, after the user given.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn members(&self, organisation: AccountId, after: Option<AccountId>, limit: usize) -> Result<Page<Membership>> {
        let after = after.map(|user| tables::pair(organisation, user).encode());
        let rows = MEMBERS.scan(&*self.store, Key::new().number(organisation.0), after, limit).await?;
        let next = page_end(&rows, limit, |(_, stored)| stored.value.0);
        let mut items = Vec::with_capacity(rows.len());
        for (_, user) in rows {
            // The index row may outlive the record for a moment.
            if let Some(stored) = MEMBERSHIPS.get(&*self.store, tables::pair(user.value, organisation)).await? {
                items.push(stored.value);
            }
        }
        Ok(Page { items, next })
    }

    /// All memberships of a user, at most 10,000.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn memberships(&self, user: AccountId) -> Result<Vec<Membership>> {
        let rows = MEMBERSHIPS.scan(&*self.store, Key::new().number(user.0), None, ORGANISATIONS_PER_USER).await?;
        Ok(rows.into_iter().map(|(_, stored)| stored.value).collect())
    }

    /// Makes a team.
    ///
    /// # Errors
    /// `NotFound` or `Invalid` when there is no such organisation, `Conflict` when it has a team of that name.
    pub async fn create_team(&self, organisation: AccountId, name: TeamName) -> Result<Team> {
        let stored = self.live(organisation).await?;
        expect_organisation(&stored.value)?;
        let team = Team { id: TeamId(self.next_id().await?), organisation, name, created_at: self.clock.now() };
        let mut batch = Batch::new();
        ACCOUNTS.unchanged(&mut batch, tables::account(organisation), &stored);
        TEAM_NAMES.absent(&mut batch, tables::team_name(organisation, &team.name));
        TEAM_NAMES.put(&mut batch, tables::team_name(organisation, &team.name), &team.id)?;
        TEAMS.put(&mut batch, tables::team(team.id), &team)?;
        let told = Told { owner: &stored.value, deed: AccountDeed::TeamCreated, about: about_team(&team) };
        self.commit_told(batch, [told]).await?.then_some(team).ok_or_else(team_taken)
    }

    /// Gives a team another name. Its members and roles stay; the old name is the organisation's to use again.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the organisation has a team of the new name.
    pub async fn rename_team(&self, id: TeamId, name: TeamName) -> Result<Team> {
        for _ in 0..TRIES {
            let stored = self.stored_team(id).await?;
            let Team { organisation, name: old, .. } = stored.value.clone();
            if old == name {
                return Ok(stored.value);
            }
            if TEAM_NAMES.get(&*self.store, tables::team_name(organisation, &name)).await?.is_some() {
                return Err(team_taken());
            }
            let owner = self.account(organisation).await?;
            let team = Team { name: name.clone(), ..stored.value.clone() };
            let mut batch = Batch::new();
            TEAMS.unchanged(&mut batch, tables::team(id), &stored);
            TEAMS.put(&mut batch, tables::team(id), &team)?;
            TEAM_NAMES.absent(&mut batch, tables::team_name(organisation, &name));
            TEAM_NAMES.put(&mut batch, tables::team_name(organisation, &name), &id)?;
            TEAM_NAMES.delete(&mut batch, tables::team_name(organisation, &old));
            let about = Particulars { old_name: Some(old.to_string()), ..about_team(&team) };
            if self.commit_told(batch, [Told { owner: &owner, deed: AccountDeed::TeamRenamed, about }]).await? {
                return Ok(team);
            }
        }
        Err(contended(Subject::Team))
    }

    /// Deletes a team. Roles granted to it mean nothing from then on.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_team(&self, id: TeamId) -> Result<()> {
        for _ in 0..TRIES {
            let stored = self.stored_team(id).await?;
            let mut batch = Batch::new();
            TEAMS.unchanged(&mut batch, tables::team(id), &stored);
            TEAMS.delete(&mut batch, tables::team(id));
            TEAM_NAMES.delete(&mut batch, tables::team_name(stored.value.organisation, &stored.value.name));
            let owner = self.account(stored.value.organisation).await?;
            let told = Told { owner: &owner, deed: AccountDeed::TeamDeleted, about: about_team(&stored.value) };
            if self.commit_told(batch, [told]).await? {
                return Ok(());
            }
        }
        Err(contended(Subject::Team))
    }

    /// The team of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn team(&self, id: TeamId) -> Result<Team> {
        Ok(self.stored_team(id).await?.value)
    }

    /// The team of a name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn team_by_name(&self, organisation: AccountId, name: &TeamName) -> Result<Team> {
        let id = TEAM_NAMES.get(&*self.store, tables::team_name(organisation, name)).await?;
        self.team(id.ok_or_else(|| Error::not_found(Subject::Team))?.value).await
    }

    /// Teams of an organisation by name, at most `limit`, after the name given.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn teams(&self, organisation: AccountId, after: Option<&TeamName>, limit: usize) -> Result<Vec<Team>> {
        let after = after.map(|name| tables::team_name(organisation, name).encode());
        let rows = TEAM_NAMES.scan(&*self.store, Key::new().number(organisation.0), after, limit).await?;
        let mut teams = Vec::with_capacity(rows.len());
        for (_, id) in rows {
            if let Some(stored) = TEAMS.get(&*self.store, tables::team(id.value)).await? {
                teams.push(stored.value);
            }
        }
        Ok(teams)
    }

    /// Puts a member of the team's organisation into the team.
    ///
    /// # Errors
    /// `NotFound` when the team is absent or the user no member of its organisation.
    pub async fn add_team_member(&self, team: TeamId, user: AccountId) -> Result<()> {
        self.change_teams(team, user, AccountDeed::TeamMemberAdded, |membership| membership.teams.insert(team)).await
    }

    /// Takes a user out of a team.
    ///
    /// # Errors
    /// `NotFound` when the team is absent or the user no member of its organisation.
    pub async fn remove_team_member(&self, team: TeamId, user: AccountId) -> Result<()> {
        self.change_teams(team, user, AccountDeed::TeamMemberRemoved, |membership| membership.teams.remove(&team)).await
    }

    async fn change_teams(&self, team: TeamId, user: AccountId, deed: AccountDeed, change: impl Fn(&mut Membership) -> bool) -> Result<()> {
        let team = self.team(team).await?;
        for _ in 0..TRIES {
            let stored = self.stored_membership(team.organisation, user).await?;
            let mut membership = stored.value.clone();
            if !change(&mut membership) {
                return Ok(());
            }
            let mut batch = Batch::new();
            MEMBERSHIPS.unchanged(&mut batch, tables::pair(user, team.organisation), &stored);
            MEMBERSHIPS.put(&mut batch, tables::pair(user, team.organisation), &membership)?;
            let (owner, member) = (self.account(team.organisation).await?, self.account(user).await?);
            let about = Particulars { team: Some(team.name.clone()), ..journal::user(&member) };
            if self.commit_told(batch, [Told { owner: &owner, deed, about }]).await? {
                return Ok(());
            }
        }
        Err(contended(Subject::Team))
    }

    /// The teams of memberships that still exist: a deleted team's id stays in the records and must grant nothing.
    pub(super) async fn live_teams(&self, memberships: &[Membership]) -> Result<HashSet<TeamId>> {
        let mut teams = HashSet::new();
        for id in memberships.iter().flat_map(|membership| &membership.teams) {
            if TEAMS.get(&*self.store, tables::team(*id)).await?.is_some() {
                teams.insert(*id);
            }
        }
        Ok(teams)
    }

    /// Removes the membership rows of a deleted account.
    pub(super) async fn end_memberships(&self, account: &Account) -> Result<()> {
        loop {
            let pairs: Vec<(AccountId, AccountId)> = if account.is_organisation() {
                let rows = MEMBERS.scan(&*self.store, Key::new().number(account.id.0), None, CHUNK).await?;
                rows.into_iter().map(|(_, user)| (user.value, account.id)).collect()
            } else {
                let rows = MEMBERSHIPS.scan(&*self.store, Key::new().number(account.id.0), None, CHUNK).await?;
                rows.into_iter().map(|(_, stored)| (account.id, stored.value.organisation)).collect()
            };
            if pairs.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (user, organisation) in pairs {
                MEMBERSHIPS.delete(&mut batch, tables::pair(user, organisation));
                MEMBERS.delete(&mut batch, tables::pair(organisation, user));
            }
            self.commit(batch).await?;
        }
    }

    async fn stored_team(&self, id: TeamId) -> Result<Stored<Team>> {
        TEAMS.get(&*self.store, tables::team(id)).await?.ok_or_else(|| Error::not_found(Subject::Team))
    }

    async fn stored_membership(&self, organisation: AccountId, user: AccountId) -> Result<Stored<Membership>> {
        let stored = MEMBERSHIPS.get(&*self.store, tables::pair(user, organisation)).await?;
        stored.ok_or_else(|| Error::not_found(Subject::Account).saying("the user is not a member of the organisation"))
    }

    /// That the two are an organisation and a user, now and when the batch is applied.
    async fn expect_pair(&self, batch: &mut Batch, organisation: AccountId, user: AccountId) -> Result<(Account, Account)> {
        let owner = self.live(organisation).await?;
        expect_organisation(&owner.value)?;
        ACCOUNTS.unchanged(batch, tables::account(organisation), &owner);
        let member = self.live(user).await?;
        expect_user(&member.value)?;
        ACCOUNTS.unchanged(batch, tables::account(user), &member);
        Ok((owner.value, member.value))
    }
}

fn team_taken() -> Error {
    Error::conflict(Subject::Team, "the organisation has a team of that name")
}

fn about_team(team: &Team) -> Particulars {
    Particulars { team: Some(team.name.clone()), ..Particulars::default() }
}

fn expect_organisation(account: &Account) -> Result<()> {
    if account.is_organisation() { Ok(()) } else { Err(Error::invalid(Subject::Account, "this account is a user, not an organisation")) }
}
