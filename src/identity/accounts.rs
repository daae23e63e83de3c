//! Making, changing, finding and deleting users and organisations.

use std::collections::BTreeSet;

use super::journal::{self, Told};
use super::record::{Account, AccountKind, Membership, OrganisationRole};
use super::tables::{self, ACCOUNTS, HOLDINGS, LOGINS, MEMBERS, MEMBERSHIPS, OWNERS};
use super::token::{Scopes, TokenText};
use super::tokens::NewToken;
use super::{Identity, Page, TRIES, contended, page_end};
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{AccountDeed, Particulars};
use crate::name::OwnerName;
use crate::package::AccountId;
use crate::store::Batch;
use crate::store::table::{Key, Stored};

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The login, never used by any account before.
    pub login: OwnerName,
    /// Address shown as the author of packages.
    pub email: Option<String>,
    /// Whether the user may do everything on this server.
    pub site_admin: bool,
}

/// What to change of an account; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// A new login. The old one stays the account's own and names nothing.
    pub login: Option<OwnerName>,
    /// A new address.
    pub email: Option<String>,
    /// Whether its tokens are refused.
    pub disabled: Option<bool>,
    /// Whether the user may do everything on this server.
    pub site_admin: Option<bool>,
}

/// Longest address, in bytes. RFC 5321 allows 254.
const EMAIL_LONGEST: usize = 254;

impl Identity {
    /// Makes a user.
    ///
    /// # Errors
    /// `Conflict` when the login is or was another account's.
    pub async fn create_user(&self, new: NewUser) -> Result<Account> {
        let mut batch = Batch::new();
        let account = self.draft_user(&mut batch, new).await?;
        let committed = self.commit_told(batch, [made(&account)]).await?;
        committed.then_some(account).ok_or_else(taken)
    }

    /// Makes an organisation, with its first owner if one is named.
    ///
    /// # Errors
    /// `Conflict` when the login is or was another account's, `NotFound` when the owner is no user.
    pub async fn create_organisation(&self, login: OwnerName, owner: Option<AccountId>) -> Result<Account> {
        let mut batch = Batch::new();
        let organisation = self.draft(&mut batch, login, AccountKind::Organisation).await?;
        put_new(&mut batch, &organisation)?;
        let mut told = made(&organisation);
        if let Some(owner) = owner {
            let user = self.live(owner).await?;
            expect_user(&user.value)?;
            ACCOUNTS.unchanged(&mut batch, tables::account(owner), &user);
            let membership = Membership {
                organisation: organisation.id,
                user: owner,
                role: OrganisationRole::Owner,
                teams: BTreeSet::new(),
                created_at: organisation.created_at,
            };
            MEMBERSHIPS.put(&mut batch, tables::pair(owner, organisation.id), &membership)?;
            MEMBERS.put(&mut batch, tables::pair(organisation.id, owner), &owner)?;
            OWNERS.put(&mut batch, tables::account(organisation.id), &BTreeSet::from([owner]))?;
            told.about = journal::user(&user.value);
        }
        let committed = self.commit_told(batch, [told]).await?;
        committed.then_some(organisation).ok_or_else(taken)
    }

    /// Makes the user `admin`, a site admin, with a token of every scope and no
    /// expiry, if there is no account yet. The text is returned this once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn first_start(&self) -> Result<Option<TokenText>> {
        if !ACCOUNTS.scan(&*self.store, Key::new(), None, 1).await?.is_empty() {
            return Ok(None);
        }
        let login = OwnerName::new("admin").map_err(|error| Error::internal(Subject::Account, error))?;
        let mut batch = Batch::new();
        let admin = self.draft_user(&mut batch, NewUser { login, email: None, site_admin: true }).await?;
        let new = NewToken { note: "first start".to_owned(), scopes: Scopes::all(), expires_at: None };
        let (_, text) = self.draft_token(&mut batch, admin.id, new).await?;
        // If another process was first, it has the text.
        Ok(self.commit_told(batch, [made(&admin)]).await?.then_some(text))
    }

    /// Whether there was ever an account besides that of the [first start](Identity::first_start).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_people(&self) -> Result<bool> {
        Ok(ACCOUNTS.scan(&*self.store, Key::new(), None, 2).await?.len() > 1)
    }

    /// The account of an id.
    ///
    /// # Errors
    /// `NotFound` when there is none, or it was deleted.
    pub async fn account(&self, id: AccountId) -> Result<Account> {
        Ok(self.live(id).await?.value)
    }

    /// The account that has a login now.
    ///
    /// # Errors
    /// `NotFound` when there is none, also for a login that an account once had.
    pub async fn account_by_login(&self, login: &OwnerName) -> Result<Account> {
        let id = LOGINS.get(&*self.store, tables::login(login)).await?.ok_or_else(|| Error::not_found(Subject::Account))?.value;
        let account = self.account(id).await?;
        if account.login == *login { Ok(account) } else { Err(Error::not_found(Subject::Account)) }
    }

    /// The id of the account that has a login now, remembered as long as no account changes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn id_of(&self, login: &OwnerName) -> Result<Option<AccountId>> {
        if let Some(id) = self.id_in_memory(login) {
            return Ok(id);
        }
        let generation = self.generation();
        let id = match self.account_by_login(login).await {
            Ok(account) => Some(account.id),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.logins.insert(login.clone(), (generation, id));
        Ok(id)
    }

    /// As [`Identity::id_of`], if memory knows it.
    #[must_use]
    pub fn id_in_memory(&self, login: &OwnerName) -> Option<Option<AccountId>> {
        self.logins.get(login).filter(|(known, _)| *known == self.generation()).map(|(_, id)| id)
    }

    /// Accounts of a kind by id, at most about `limit`, after the one given.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn accounts(&self, kind: AccountKind, after: Option<AccountId>, limit: usize) -> Result<Page<Account>> {
        let after = after.map(|id| tables::account(id).encode());
        let rows = ACCOUNTS.scan(&*self.store, Key::new(), after, limit).await?;
        let next = page_end(&rows, limit, |(_, stored)| stored.value.id.0);
        let accounts = rows.into_iter().map(|(_, stored)| stored.value);
        Ok(Page { items: accounts.filter(|account| account.kind == kind && account.deleted_at.is_none()).collect(), next })
    }

    /// Changes an account.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a new login is or was another account's; `Invalid` for an organisation as site admin.
    pub async fn change_account(&self, id: AccountId, change: AccountChange) -> Result<Account> {
        check_email(change.email.as_deref())?;
        for _ in 0..TRIES {
            let stored = self.live(id).await?;
            let mut account = stored.value.clone();
            let mut batch = Batch::new();
            ACCOUNTS.unchanged(&mut batch, tables::account(id), &stored);
            if let Some(login) = change.login.as_ref().filter(|login| **login != account.login) {
                match LOGINS.get(&*self.store, tables::login(login)).await? {
                    Some(holder) if holder.value != id => return Err(taken()),
                    Some(_) => {}
                    None => {
                        LOGINS.absent(&mut batch, tables::login(login));
                        LOGINS.put(&mut batch, tables::login(login), &id)?;
                    }
                }
                account.login = login.clone();
            }
            if change.site_admin == Some(true) {
                expect_user(&account)?;
            }
            account.email = change.email.clone().or(account.email);
            account.disabled = change.disabled.unwrap_or(account.disabled);
            account.site_admin = change.site_admin.unwrap_or(account.site_admin);
            ACCOUNTS.put(&mut batch, tables::account(id), &account)?;
            if self.commit_told(batch, changed(&stored.value, &account)).await? {
                return Ok(account);
            }
        }
        Err(contended(Subject::Account))
    }

    /// Refuses an account's tokens from now on.
    ///
    /// # Errors
    /// As for [`Identity::change_account`].
    pub async fn disable(&self, id: AccountId) -> Result<Account> {
        self.change_account(id, AccountChange { disabled: Some(true), ..AccountChange::default() }).await
    }

    /// Adds to a batch: this account is still as it is now, in particular not deleted.
    ///
    /// # Errors
    /// `NotFound` when it is deleted already.
    pub async fn expect_live(&self, batch: &mut Batch, id: AccountId) -> Result<()> {
        let stored = self.live(id).await?;
        ACCOUNTS.unchanged(batch, tables::account(id), &stored);
        Ok(())
    }

    /// Deletes an account. Its login stays taken, its tokens are refused, its memberships end.
    /// `provided` holds conditions of the floors above: that nothing of theirs belongs to it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it owns repositories, or is the last owner of an organisation; `Unavailable` when a
    /// condition of `provided` does not hold any more.
    pub async fn delete_account(&self, id: AccountId, provided: Batch) -> Result<()> {
        for _ in 0..TRIES {
            let stored = self.live(id).await?;
            let mut batch = provided.clone();
            match HOLDINGS.get(&*self.store, tables::account(id)).await? {
                Some(mark) => HOLDINGS.unchanged(&mut batch, tables::account(id), &mark),
                None => HOLDINGS.absent(&mut batch, tables::account(id)),
            }
            if !self.repositories(id, None, 1).await?.is_empty() {
                return Err(Error::conflict(Subject::Account, "the account still owns repositories"));
            }
            if stored.value.is_organisation() {
                OWNERS.delete(&mut batch, tables::account(id));
            } else {
                self.expect_other_owners(&mut batch, &stored.value).await?;
            }
            let deleted = Account { deleted_at: Some(self.clock.now()), disabled: true, site_admin: false, ..stored.value.clone() };
            ACCOUNTS.unchanged(&mut batch, tables::account(id), &stored);
            ACCOUNTS.put(&mut batch, tables::account(id), &deleted)?;
            let deed = if deleted.is_organisation() { AccountDeed::OrganisationDeleted } else { AccountDeed::UserDeleted };
            if self.commit_told(batch, [Told { owner: &deleted, deed, about: Particulars::default() }]).await? {
                // The rows that are left mean nothing, since the id is dead; removing them keeps lists short.
                return self.end_memberships(&deleted).await;
            }
        }
        Err(contended(Subject::Account))
    }

    /// The record of an account that was not deleted.
    pub(super) async fn live(&self, id: AccountId) -> Result<Stored<Account>> {
        let stored = ACCOUNTS.get(&*self.store, tables::account(id)).await?;
        stored.filter(|stored| stored.value.deleted_at.is_none()).ok_or_else(|| Error::not_found(Subject::Account))
    }

    async fn draft_user(&self, batch: &mut Batch, new: NewUser) -> Result<Account> {
        check_email(new.email.as_deref())?;
        let draft = self.draft(batch, new.login, AccountKind::User).await?;
        let account = Account { email: new.email, site_admin: new.site_admin, ..draft };
        put_new(batch, &account)?;
        Ok(account)
    }

    async fn draft(&self, batch: &mut Batch, login: OwnerName, kind: AccountKind) -> Result<Account> {
        LOGINS.absent(batch, tables::login(&login));
        let id = AccountId(self.next_id().await?);
        let created_at = self.clock.now();
        Ok(Account { id, login, kind, site_admin: false, email: None, disabled: false, created_at, deleted_at: None })
    }
}

/// That an account is a user.
pub(super) fn expect_user(account: &Account) -> Result<()> {
    if account.is_organisation() { Err(Error::invalid(Subject::Account, "this account is an organisation, not a user")) } else { Ok(()) }
}

/// That an account was made.
fn made(account: &Account) -> Told<'_> {
    let deed = if account.is_organisation() { AccountDeed::OrganisationCreated } else { AccountDeed::UserCreated };
    let about = if account.is_organisation() { Particulars::default() } else { journal::user(account) };
    Told { owner: account, deed, about }
}

/// What became of an account, change by change.
fn changed<'a>(old: &Account, new: &'a Account) -> Vec<Told<'a>> {
    let mut told = Vec::new();
    let mut tell = |deed, about| told.push(Told { owner: new, deed, about });
    if old.login != new.login {
        let deed = if new.is_organisation() { AccountDeed::OrganisationRenamed } else { AccountDeed::UserRenamed };
        tell(deed, Particulars { old_name: Some(old.login.to_string()), ..Particulars::default() });
    }
    if old.email != new.email {
        tell(AccountDeed::EmailChanged, Particulars::default());
    }
    for (was, is, yes, no) in [
        (old.disabled, new.disabled, AccountDeed::UserSuspended, AccountDeed::UserUnsuspended),
        (old.site_admin, new.site_admin, AccountDeed::UserPromoted, AccountDeed::UserDemoted),
    ] {
        if was != is {
            tell(if is { yes } else { no }, Particulars::default());
        }
    }
    told
}

fn put_new(batch: &mut Batch, account: &Account) -> Result<()> {
    ACCOUNTS.put(batch, tables::account(account.id), account)?;
    LOGINS.put(batch, tables::login(&account.login), &account.id)
}

fn check_email(email: Option<&str>) -> Result<()> {
    let fits = |text: &str| text.len() <= EMAIL_LONGEST && text.contains('@') && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    match email {
        Some(text) if !fits(text) => Err(Error::invalid(Subject::Account, "an email address has an '@', no spaces and at most 254 bytes")),
        _ => Ok(()),
    }
}

fn taken() -> Error {
    Error::conflict(Subject::Account, "the login is taken")
}
