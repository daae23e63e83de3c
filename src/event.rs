//! What happened to packages: the audit log.
//!
//! An event is written in the same batch as the change it speaks of, so neither is
//! ever there without the other, whatever instant the server is killed at.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Result;
use crate::name::PackageName;
use crate::package::{AccountId, PackageId, RepositoryId, TokenId, VersionId};
use crate::store::table::{Key, KeyParts, Table};
use crate::store::{Batch, Store};

/// By id.
static LOG: Table<Event> = Table::new("event.log");
/// By owner and id: the same events, for an owner's log.
static OF_OWNER: Table<()> = Table::new("event.of_owner");
/// By package and id.
static OF_PACKAGE: Table<()> = Table::new("event.of_package");

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
    /// A star was set or removed.
    Starred,
}

impl Deed {
    /// Its name in logs and queries.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Extended => "extended",
            Self::Deprecated => "deprecated",
            Self::Tagged => "tagged",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
            Self::VisibilityChanged => "visibility_changed",
            Self::Linked => "linked",
            Self::RolesChanged => "roles_changed",
            Self::Starred => "starred",
        }
    }
}

/// Who did it, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user; none for the server itself and its operator on the local socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<AccountId>,
    /// The token that was used. Its id, which is safe to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
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
    /// Its owner then.
    pub owner: AccountId,
    /// The repository it was linked to then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryId>,
    /// The version it was about, if it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<About>,
}

/// The version an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its id.
    pub id: VersionId,
    /// Its number.
    pub number: String,
}

/// Whose events to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those of an owner's packages.
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
    OF_OWNER.put(batch, Key::new().number(event.owner.0).number(event.id), &())?;
    OF_PACKAGE.put(batch, Key::new().number(event.package.0).number(event.id), &())
}

/// Events in the order of their ids, after the id `after`, at most `limit`.
///
/// # Errors
/// When the store fails.
pub async fn read(store: &dyn Store, whose: Whose, after: Option<u64>, limit: usize) -> Result<Vec<Event>> {
    let (index, under) = match whose {
        Whose::All => {
            let after = after.map(|id| Key::new().number(id).encode());
            let rows = LOG.scan(store, Key::new(), after, limit).await?;
            return Ok(rows.into_iter().map(|(_, stored)| stored.value).collect());
        }
        Whose::Owner(owner) => (&OF_OWNER, Key::new().number(owner.0)),
        Whose::Package(package) => (&OF_PACKAGE, Key::new().number(package.0)),
    };
    let after = after.map(|id| under.clone().number(id).encode());
    let rows = index.scan(store, under, after, limit).await?;
    events(store, rows.iter().filter_map(|(key, _)| last_number(key))).await
}

async fn events(store: &dyn Store, ids: impl Iterator<Item = u64>) -> Result<Vec<Event>> {
    let mut found = Vec::new();
    for id in ids {
        found.extend(LOG.get(store, Key::new().number(id)).await?.map(|stored| stored.value));
    }
    Ok(found)
}

fn last_number(key: &Bytes) -> Option<u64> {
    let start = key.len().checked_sub(8)?;
    KeyParts(&key[start..]).number()
}

#[cfg(test)]
mod tests {
    use super::*;
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
            repository: None,
            version: Some(About { id: VersionId(9), number: "1.0".to_owned() }),
        }
    }

    #[tokio::test]
    async fn events_are_read_by_whose_they_are() {
        let store = Memory::new();
        for (id, owner, package) in [(1, 1, 1), (2, 2, 2), (300, 1, 3)] {
            let mut batch = Batch::new();
            record(&mut batch, &event(id, owner, package)).unwrap();
            store.commit(batch).await.unwrap();
        }
        let ids = async |whose, after| read(&store, whose, after, 10).await.unwrap().iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(ids(Whose::All, None).await, [1, 2, 300]);
        assert_eq!(ids(Whose::All, Some(2)).await, [300]);
        assert_eq!(ids(Whose::Owner(AccountId(1)), None).await, [1, 300]);
        assert_eq!(ids(Whose::Owner(AccountId(1)), Some(1)).await, [300]);
        assert_eq!(ids(Whose::Package(PackageId(2)), None).await, [2]);
    }
}
