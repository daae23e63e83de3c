//! What happened to packages and accounts: the audit log, and the outbox of what is still to be told.
//!
//! An event is written in the same batch as the change it speaks of, so neither is
//! ever there without the other, whatever instant the server is killed at. The same
//! batch puts it into the outbox, which it leaves in the batch that queues what is
//! to be sent about it: so nobody who is to hear of it misses it. Accounts' events are
//! told to nobody and only logged.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Result;
use crate::name::PackageName;
use crate::package::{AccountId, PackageId, RepositoryId, Version, VersionId};
use crate::store::table::{Key, KeyParts, Stored, Table};
use crate::store::{Batch, Store};

mod account;
mod actor;

pub use account::{AccountDeed, AccountEvent, Particulars, log as log_account};
pub use actor::Actor;

/// The target that filters know the log's lines by: one for each event.
pub const TARGET: &str = "packhouse::audit";

/// Events removed in one batch.
const CHUNK: usize = 256;

/// `[audit]`: how much is remembered of what happened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long events are kept, in days; zero for ever.
    pub keep_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep_days: 400 }
    }
}

/// Events of packages, by id.
static LOG: Table<Event> = Table::new("event.log");
/// Events of accounts, by id.
static ACCOUNT_LOG: Table<AccountEvent> = Table::new("event.account_log");
/// By owner and id: the same events of both kinds, for an owner's log.
static OF_OWNER: Table<()> = Table::new("event.of_owner");
/// By package and id.
static OF_PACKAGE: Table<()> = Table::new("event.of_package");
/// By id: events that nothing was queued for yet.
static OUTBOX: Table<()> = Table::new("event.outbox");

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// A version was published.
    Published,
    /// Files were added to a version that was there.
    Extended,
    /// Metadata of a version changed: its warning.
    Deprecated,
    /// A version was hidden from all but those who ask for it by its number.
    Unlisted,
    /// It is shown again.
    Relisted,
    /// A tag was set or removed.
    Tagged,
    /// A version, or a package with all its versions, was deleted.
    Deleted,
    /// It was restored.
    Restored,
    /// The visibility changed.
    VisibilityChanged,
    /// The package was linked to a repository, unlinked, or began or ceased to take its roles from it.
    Linked,
    /// A role on the package was granted, changed or taken away.
    RolesChanged,
    /// The rules about its tags and versions changed.
    RulesChanged,
    /// A star was set or removed.
    Starred,
    /// The package went to another owner.
    Moved,
}

impl Deed {
    /// Its name in logs and queries.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Extended => "extended",
            Self::Deprecated => "deprecated",
            Self::Unlisted => "unlisted",
            Self::Relisted => "relisted",
            Self::Tagged => "tagged",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
            Self::VisibilityChanged => "visibility_changed",
            Self::Linked => "linked",
            Self::RolesChanged => "roles_changed",
            Self::RulesChanged => "rules_changed",
            Self::Starred => "starred",
            Self::Moved => "moved",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id. Later events of one package have greater ids.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub deed: Deed,
    /// Who.
    pub actor: Actor,
    /// The package's ecosystem.
    pub ecosystem: String,
    /// The package.
    pub package: PackageId,
    /// Its name then.
    pub name: PackageName,
    /// Its owner then; of a package that went to another owner the new one.
    pub owner: AccountId,
    /// Whose it was before, if it went to another owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_owner: Option<AccountId>,
    /// The repository it was linked to then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryId>,
    /// The version it was about, if it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<About>,
    /// What exactly was done, where the deed leaves that open: who was given which role, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The version an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its id.
    pub id: VersionId,
    /// Its number.
    pub number: String,
    /// Whether it is only a part of a larger publish, as the image for one platform is a part of an image for many.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
}

impl From<&Version> for About {
    fn from(version: &Version) -> Self {
        Self { id: version.id, number: version.number.clone(), part: false }
    }
}

/// An event of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of a package.
    Package(Event),
    /// Of an account.
    Account(AccountEvent),
}

impl Entry {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> u64 {
        match self {
            Self::Package(event) => event.id,
            Self::Account(event) => event.id,
        }
    }

    /// When it happened.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Package(event) => event.at,
            Self::Account(event) => event.at,
        }
    }

    /// Who did it.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        match self {
            Self::Package(event) => event.actor,
            Self::Account(event) => event.actor,
        }
    }
}

/// In which order to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As it happened.
    OldestFirst,
    /// What happened last comes first.
    NewestFirst,
}

/// Whose events to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those of an account and of its packages.
    Owner(AccountId),
    /// Those of one package.
    Package(PackageId),
}

/// Adds an event to the batch of the change that it speaks of.
///
/// # Errors
/// When it cannot be encoded.
pub fn record(batch: &mut Batch, event: &Event) -> Result<()> {
    LOG.put(batch, Key::new().number(event.id), event)?;
    for owner in [Some(event.owner), event.former_owner].into_iter().flatten() {
        OF_OWNER.put(batch, Key::new().number(owner.0).number(event.id), &())?;
    }
    OF_PACKAGE.put(batch, Key::new().number(event.package.0).number(event.id), &())?;
    OUTBOX.put(batch, Key::new().number(event.id), &())
}

/// The ids of the events in the outbox, in their order, at most `limit`.
///
/// # Errors
/// When the store fails.
pub async fn untold(store: &dyn Store, limit: usize) -> Result<Vec<u64>> {
    let rows = OUTBOX.scan(store, Key::new(), None, limit).await?;
    Ok(rows.iter().filter_map(|(key, _)| last_number(key)).collect())
}

/// The event of an id.
///
/// # Errors
/// When the store fails.
pub async fn find(store: &dyn Store, id: u64) -> Result<Option<Event>> {
    Ok(LOG.get(store, Key::new().number(id)).await?.map(|stored| stored.value))
}

/// Adds to a batch: the event leaves the outbox.
pub fn told(batch: &mut Batch, id: u64) {
    OUTBOX.delete(batch, Key::new().number(id));
}

/// Adds an account's event to the batch of the change that it speaks of.
///
/// # Errors
/// When it cannot be encoded.
pub fn record_account(batch: &mut Batch, event: &AccountEvent) -> Result<()> {
    ACCOUNT_LOG.put(batch, Key::new().number(event.id), event)?;
    OF_OWNER.put(batch, Key::new().number(event.owner.0).number(event.id), &())
}

/// Events by their ids, beyond the id `after` in the order asked for, at most `limit`.
///
/// # Errors
/// When the store fails.
pub async fn read(store: &dyn Store, whose: Whose, order: Order, after: Option<u64>, limit: usize) -> Result<Vec<Entry>> {
    let (index, under) = match whose {
        Whose::All => return all(store, order, after, limit).await,
        Whose::Owner(owner) => (&OF_OWNER, Key::new().number(owner.0)),
        Whose::Package(package) => (&OF_PACKAGE, Key::new().number(package.0)),
    };
    let rows = scan(store, index, under, order, after, limit).await?;
    let mut found = Vec::with_capacity(rows.len());
    for id in rows.iter().filter_map(|(key, _)| last_number(key)) {
        let key = || Key::new().number(id);
        // An index row may outlive its event for a moment.
        match LOG.get(store, key()).await? {
            Some(stored) => found.push(Entry::Package(stored.value)),
            None => found.extend(ACCOUNT_LOG.get(store, key()).await?.map(|stored| Entry::Account(stored.value))),
        }
    }
    Ok(found)
}

async fn all(store: &dyn Store, order: Order, after: Option<u64>, limit: usize) -> Result<Vec<Entry>> {
    let packages = scan(store, &LOG, Key::new(), order, after, limit).await?;
    let accounts = scan(store, &ACCOUNT_LOG, Key::new(), order, after, limit).await?;
    let packages = packages.into_iter().map(|(_, stored)| Entry::Package(stored.value));
    let mut found: Vec<Entry> = packages.chain(accounts.into_iter().map(|(_, stored)| Entry::Account(stored.value))).collect();
    found.sort_unstable_by_key(Entry::id);
    if order == Order::NewestFirst {
        found.reverse();
    }
    found.truncate(limit);
    Ok(found)
}

async fn scan<V: Serialize + serde::de::DeserializeOwned>(
    store: &dyn Store,
    table: &Table<V>,
    under: Key,
    order: Order,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(Bytes, Stored<V>)>> {
    let after = after.map(|id| under.clone().number(id).encode());
    match order {
        Order::OldestFirst => table.scan(store, under, after, limit).await,
        Order::NewestFirst => table.scan_back(store, under, after, limit).await,
    }
}

/// Forgets events that are older than they are kept; returns how many. What is still to be told stays.
///
/// # Errors
/// When the store fails.
pub async fn prune(store: &dyn Store, config: &Config, now: Timestamp) -> Result<usize> {
    let kept = Duration::from_secs(u64::from(config.keep_days) * 86_400);
    let mut removed = 0;
    if config.keep_days == 0 {
        return Ok(removed);
    }
    loop {
        let mut batch = Batch::new();
        let old = |at: Timestamp| now.since(at) > kept;
        for (_, Stored { value: event, .. }) in LOG.scan(store, Key::new(), None, CHUNK).await? {
            let key = || Key::new().number(event.id);
            if old(event.at) && OUTBOX.get(store, key()).await?.is_none() {
                LOG.delete(&mut batch, key());
                for owner in [Some(event.owner), event.former_owner].into_iter().flatten() {
                    OF_OWNER.delete(&mut batch, Key::new().number(owner.0).number(event.id));
                }
                OF_PACKAGE.delete(&mut batch, Key::new().number(event.package.0).number(event.id));
                removed += 1;
            }
        }
        for (_, Stored { value: event, .. }) in ACCOUNT_LOG.scan(store, Key::new(), None, CHUNK).await? {
            if old(event.at) {
                ACCOUNT_LOG.delete(&mut batch, Key::new().number(event.id));
                OF_OWNER.delete(&mut batch, Key::new().number(event.owner.0).number(event.id));
                removed += 1;
            }
        }
        if batch.changes.is_empty() {
            return Ok(removed);
        }
        store.commit(batch).await?;
    }
}

fn last_number(key: &Bytes) -> Option<u64> {
    let start = key.len().checked_sub(8)?;
    KeyParts(&key[start..]).number()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::OwnerName;
    use crate::package::TokenId;
    use crate::store::memory::Memory;

    fn event(id: u64, owner: u64, package: u64) -> Event {
        Event {
            id,
            at: Timestamp::from_millis(1_700_000_000_000),
            deed: Deed::Published,
            actor: Actor { user: Some(AccountId(1)), token: Some(TokenId(2)), client: "10.0.0.1".parse().ok() },
            ecosystem: "pie".to_owned(),
            package: PackageId(package),
            name: PackageName::new("apple").unwrap(),
            owner: AccountId(owner),
            former_owner: None,
            repository: None,
            version: Some(About { id: VersionId(9), number: "1.0".to_owned(), part: false }),
            detail: None,
        }
    }

    fn account_event(id: u64, owner: u64) -> AccountEvent {
        AccountEvent {
            id,
            at: Timestamp::from_millis(1_700_000_000_000),
            deed: AccountDeed::MemberAdded,
            actor: Actor::default(),
            owner: AccountId(owner),
            login: OwnerName::new("acme").unwrap(),
            about: Particulars { user: OwnerName::new("ann").ok(), role: Some("member".to_owned()), ..Particulars::default() },
        }
    }

    async fn filled() -> Memory {
        let store = Memory::new();
        for (id, owner, package) in [(1, 1, 1), (2, 2, 2), (300, 1, 3)] {
            let mut batch = Batch::new();
            record(&mut batch, &event(id, owner, package)).unwrap();
            store.commit(batch).await.unwrap();
        }
        let mut batch = Batch::new();
        record_account(&mut batch, &account_event(7, 1)).unwrap();
        store.commit(batch).await.unwrap();
        store
    }

    #[tokio::test]
    async fn events_are_read_by_whose_they_are_in_either_order() {
        let store = filled().await;
        let ids =
            async |whose, order, after| read(&store, whose, order, after, 10).await.unwrap().iter().map(Entry::id).collect::<Vec<_>>();
        let (old, new) = (Order::OldestFirst, Order::NewestFirst);
        assert_eq!(ids(Whose::All, old, None).await, [1, 2, 7, 300]);
        assert_eq!(ids(Whose::All, old, Some(2)).await, [7, 300]);
        assert_eq!(ids(Whose::All, new, None).await, [300, 7, 2, 1]);
        assert_eq!(ids(Whose::All, new, Some(7)).await, [2, 1]);
        assert_eq!(read(&store, Whose::All, new, None, 2).await.unwrap().len(), 2);
        assert_eq!(ids(Whose::Owner(AccountId(1)), old, None).await, [1, 7, 300]);
        assert_eq!(ids(Whose::Owner(AccountId(1)), old, Some(7)).await, [300]);
        assert_eq!(ids(Whose::Owner(AccountId(1)), new, Some(300)).await, [7, 1]);
        assert_eq!(ids(Whose::Package(PackageId(2)), old, None).await, [2]);
        let Entry::Account(read) = &read(&store, Whose::All, old, Some(2), 1).await.unwrap()[0] else { panic!("of an account") };
        assert_eq!(*read, account_event(7, 1));
    }

    #[tokio::test]
    async fn old_events_are_forgotten_unless_they_are_still_to_be_told() {
        let store = filled().await;
        let mut batch = Batch::new();
        told(&mut batch, 1);
        told(&mut batch, 300);
        store.commit(batch).await.unwrap();
        let day = Duration::from_secs(86_400);
        let config = Config { keep_days: 2 };
        let at = Timestamp::from_millis(1_700_000_000_000);
        assert_eq!(prune(&store, &config, at.plus(day * 2)).await.unwrap(), 0);
        assert_eq!(prune(&store, &Config { keep_days: 0 }, at.plus(day * 9)).await.unwrap(), 0);
        assert_eq!(prune(&store, &config, at.plus(day * 3)).await.unwrap(), 3);
        let left = read(&store, Whose::All, Order::OldestFirst, None, 10).await.unwrap();
        assert_eq!(left.iter().map(Entry::id).collect::<Vec<_>>(), [2]);
        assert!(read(&store, Whose::Owner(AccountId(1)), Order::OldestFirst, None, 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_acts_goes_with_the_work() {
        let actor = Actor { user: Some(AccountId(1)), ..Actor::default() };
        assert_eq!(Actor::current(), Actor::default());
        assert_eq!(actor.acting(async { Actor::current() }).await, actor);
        assert_eq!(Actor::current(), Actor::default());
    }

    #[tokio::test]
    async fn events_wait_in_the_outbox_until_they_are_told() {
        let store = Memory::new();
        for id in [7, 300, 8] {
            let mut batch = Batch::new();
            record(&mut batch, &event(id, 1, 1)).unwrap();
            store.commit(batch).await.unwrap();
        }
        assert_eq!(untold(&store, 2).await.unwrap(), [7, 8]);
        assert_eq!(find(&store, 7).await.unwrap().unwrap(), event(7, 1, 1));
        let mut batch = Batch::new();
        told(&mut batch, 7);
        told(&mut batch, 300);
        store.commit(batch).await.unwrap();
        assert_eq!(untold(&store, 9).await.unwrap(), [8]);
    }
}
