//! The owners of organisations: one at least, at every moment.
//!
//! Who owns an organisation stands in the memberships. Besides, all owners of one
//! organisation stand in one record, which every change of them replaces on the
//! condition that it is still the one that was read: so of two owners who leave at
//! the same moment one stays.

use std::collections::BTreeSet;

use super::Identity;
use super::record::{Account, OrganisationRole};
use super::tables::{self, MEMBERS, MEMBERSHIPS, OWNERS};
use crate::error::{Error, Kind, Result, Subject};
use crate::package::AccountId;
use crate::store::Batch;
use crate::store::table::{Key, Stored};

/// Most members of an organisation that are looked at for its owners, where the record is missing.
const MEMBERS_LIMIT: usize = 1_000_000;

impl Identity {
    /// Adds to a batch: a user becomes an owner of an organisation, or ceases to be one.
    ///
    /// # Errors
    /// `Forbidden` when the organisation would be left without an owner.
    pub(super) async fn change_owners(&self, batch: &mut Batch, organisation: AccountId, user: AccountId, owns: bool) -> Result<()> {
        let key = || tables::account(organisation);
        let stored: Option<Stored<BTreeSet<AccountId>>> = OWNERS.get(&*self.store, key()).await?;
        let mut owners = if let Some(stored) = stored {
            OWNERS.unchanged(batch, key(), &stored);
            stored.value
        } else {
            OWNERS.absent(batch, key());
            self.counted_owners(organisation).await?
        };
        let changed = if owns { owners.insert(user) } else { owners.remove(&user) };
        if changed && owners.is_empty() {
            return Err(Error::forbidden(Subject::Account, "The last owner of an organization cannot leave it."));
        }
        OWNERS.put(batch, key(), &owners)
    }

    /// Adds to the batch that deletes a user: the organisations that the user owns keep an owner.
    ///
    /// # Errors
    /// `Conflict`, naming the organisation that would have none.
    pub(super) async fn expect_other_owners(&self, batch: &mut Batch, user: &Account) -> Result<()> {
        for membership in self.memberships(user.id).await? {
            if membership.role != OrganisationRole::Owner {
                continue;
            }
            let organisation = match self.account(membership.organisation).await {
                // Of an organisation that is gone nobody is an owner.
                Err(error) if error.kind() == Kind::NotFound => continue,
                organisation => organisation?,
            };
            self.change_owners(batch, organisation.id, user.id, false).await.map_err(|error| match error.kind() {
                Kind::Forbidden => Error::conflict(Subject::Account, format!("the user is the last owner of {}", organisation.login)),
                _ => error,
            })?;
        }
        Ok(())
    }

    async fn counted_owners(&self, organisation: AccountId) -> Result<BTreeSet<AccountId>> {
        let mut owners = BTreeSet::new();
        for (_, user) in MEMBERS.scan(&*self.store, Key::new().number(organisation.0), None, MEMBERS_LIMIT).await? {
            let membership = MEMBERSHIPS.get(&*self.store, tables::pair(user.value, organisation)).await?;
            if membership.is_some_and(|stored| stored.value.role == OrganisationRole::Owner) {
                owners.insert(user.value);
            }
        }
        Ok(owners)
    }
}
