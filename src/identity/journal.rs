//! What is told of changes: each is written together with its event for the audit log.

use super::Identity;
use super::record::Account;
use crate::error::Result;
use crate::event::{self, AccountDeed, AccountEvent, Actor, Particulars};
use crate::store::Batch;

/// What a change is to be told as.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// The account whose log tells it.
    pub(super) owner: &'a Account,
    /// What is done.
    pub(super) deed: AccountDeed,
    /// What it is about.
    pub(super) about: Particulars,
}

impl Identity {
    /// A number for an event of the audit log, of accounts or of packages: one sequence orders both.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_event_id(&self) -> Result<u64> {
        self.event_ids.next(&*self.store).await
    }

    /// Applies a change together with the events that tell of it; `false` when a condition did not hold.
    pub(super) async fn commit_told<'a>(&self, mut batch: Batch, told: impl IntoIterator<Item = Told<'a>>) -> Result<bool> {
        let mut events = Vec::new();
        for Told { owner, deed, about } in told {
            let id = self.next_event_id().await?;
            let (at, actor) = (self.clock.now(), Actor::current());
            let event = AccountEvent { id, at, deed, actor, owner: owner.id, login: owner.login.clone(), about };
            event::record_account(&mut batch, &event)?;
            events.push(event);
        }
        let committed = self.commit(batch).await?;
        if committed {
            events.iter().for_each(event::log_account);
        }
        Ok(committed)
    }
}

/// Particulars that name a user.
pub(super) fn user(user: &Account) -> Particulars {
    Particulars { user: Some(user.login.clone()), user_id: Some(user.id), ..Particulars::default() }
}
