//! The catalog: hosted packages, their versions, files and tags, looked up by name.
//!
//! A package's *head* is its record together with the policy that says who may do
//! what. Heads are remembered, also the fact that a name has none, so a hit reads
//! no store. A remembered head is used as long as neither the package nor any
//! identity record has changed.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::access::{Grant, Policy, RepositoryPolicy};
use crate::clock::{Clock, Timestamp};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::event;
use crate::format::Maintainer;
use crate::identity::{Identity, Sequence};
use crate::name::{PackageKey, PackageName};
use crate::package::{AccountId, Content, File, Package, PackageId, Principal, Role, Version, VersionId};
use crate::store::table::{Key, KeyParts, Stored, Table};
use crate::store::{Batch, Outcome, Store};
use crate::usage::{Count, Downloads};

pub mod change;
mod links;
mod lists;
pub mod relations;
pub mod staged;
#[cfg(test)]
pub(crate) mod tests;
pub mod uploads;

pub use change::Draft;

static PACKAGES: Table<Package> = Table::new("catalog.package");
/// Which package a name means in the root view, by ecosystem and name.
static NAMES: Table<PackageId> = Table::new("catalog.name");
/// Which package a name means among its owner's, by ecosystem, name and owner.
static OWN_NAMES: Table<PackageId> = Table::new("catalog.own_name");
/// By package and number.
static VERSIONS: Table<Version> = Table::new("catalog.version");
/// Which version a file in the download path belongs to, by package and file name.
static FILES: Table<FileRow> = Table::new("catalog.file");
/// References to blobs, as rows: by digest, package, version and file name.
static BLOB_REFERENCES: Table<()> = Table::new("catalog.blob_reference");

/// Index of [`VERSIONS`], by package and the version's id: what a list needs without reading manifests.
static LISTED: Table<Listed> = Table::new("catalog.listed");

/// Index of packages by their owner, also deleted ones; by owner and package.
static OWNED: Table<()> = Table::new("catalog.owned");
/// Which package of an owner last came alive, and in which generation; by owner.
static OWNERS: Table<(PackageId, u64)> = Table::new("catalog.owner");

/// Most live versions of one package.
pub const VERSIONS_LIMIT: usize = 50_000;

/// Rows that are read at once where all are wanted.
const PAGE: usize = 5000;

/// A file and the version it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRow {
    /// The version's number.
    pub version: String,
    /// The file.
    pub file: File,
}

/// A file of a live version as it is remembered.
#[derive(Debug)]
pub struct HostedFile {
    /// The version's number.
    pub version: String,
    /// The file.
    pub file: File,
    /// The downloads of its version.
    pub downloads: Arc<Count>,
}

/// A version in the index by ids.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: VersionId,
    /// Its number.
    pub number: String,
    /// When it was published.
    pub created_at: Timestamp,
    /// When it was deleted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Whether its files were given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purged: bool,
}

impl Listed {
    fn of(version: &Version) -> Self {
        let Version { id, created_at, deleted_at, purged, .. } = *version;
        Self { id, number: version.number.clone(), created_at, deleted_at, purged }
    }
}

/// A package with its policy.
#[derive(Debug)]
pub struct Head {
    /// The record.
    pub package: Package,
    /// Who may do what.
    pub policy: Policy,
    raw: Bytes,
    identity_generation: u64,
}

impl Head {
    /// The record as stored, for conditions.
    fn stored(&self) -> Stored<Package> {
        Stored { value: self.package.clone(), raw: self.raw.clone() }
    }
}

/// Where a name is looked up: whose package it means depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// All packages under one roof: a name is the first owner's that published it here.
    Root,
    /// One owner's packages.
    Owner(AccountId),
}

impl View {
    /// Whether a package is in it; one that moved to another owner is no longer among its former owner's.
    fn shows(self, package: &Package) -> bool {
        match self {
            Self::Root => true,
            Self::Owner(owner) => package.owner == owner,
        }
    }
}

/// Hosted packages. Cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    identity: Arc<Identity>,
    downloads: Arc<Downloads>,
    clock: Clock,
    ids: Sequence,
    /// Which package a name means in a view, also that it means none.
    names: quick_cache::sync::Cache<PackageKey, Named>,
    heads: quick_cache::sync::Cache<PackageId, Arc<Head>>,
    files: quick_cache::sync::Cache<PackageKey, Option<Arc<HostedFile>>>,
    contents: quick_cache::sync::Cache<PackageKey, Option<Arc<Content>>>,
    /// Count of changes; guards against remembering what was read before one.
    epoch: Mutex<u64>,
}

#[derive(Clone)]
struct Named {
    name: PackageName,
    package: Option<PackageId>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is committed.
    Yes,
    /// Something it was based on has changed; read again and retry.
    Stale,
}

impl Catalog {
    /// A catalog on the state store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, identity: Arc<Identity>, downloads: Arc<Downloads>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            store,
            identity,
            downloads,
            clock,
            ids: Sequence::new("catalog"),
            names: quick_cache::sync::Cache::new(200_000),
            heads: quick_cache::sync::Cache::new(200_000),
            files: quick_cache::sync::Cache::new(200_000),
            contents: quick_cache::sync::Cache::new(200_000),
            epoch: Mutex::new(0),
        }))
    }

    /// The head of a name in an ecosystem's root view, also of a deleted package;
    /// `None` when nobody ever hosted the name there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head(&self, ecosystem: &'static str, name: &PackageName) -> Result<Option<Arc<Head>>> {
        self.head_in(View::Root, ecosystem, name).await
    }

    /// The head of a name in a view, also of a deleted package; `None` when nobody ever hosted the name there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head_in(&self, view: View, ecosystem: &str, name: &PackageName) -> Result<Option<Arc<Head>>> {
        if let Some(known) = self.head_in_memory(view, ecosystem, name) {
            return Ok(known);
        }
        let key = view_key(view, ecosystem, name);
        let package = match self.0.names.get(&key) {
            Some(named) if named.name == *name => named.package,
            _ => Box::pin(self.read_name(key, view, ecosystem, name)).await?,
        };
        match package {
            None => Ok(None),
            Some(id) => match self.head_by_id(id).await? {
                Some(head) => Ok(Some(head).filter(|head| view.shows(&head.package))),
                None => Err(Error::internal(Subject::Store, format!("{ecosystem} name {name} leads to no package"))),
            },
        }
    }

    /// As [`Catalog::head_in`], if memory knows it.
    #[must_use]
    pub fn head_in_memory(&self, view: View, ecosystem: &str, name: &PackageName) -> Option<Option<Arc<Head>>> {
        let named = self.0.names.get(&view_key(view, ecosystem, name)).filter(|named| named.name == *name)?;
        let Some(id) = named.package else { return Some(None) };
        let head = self.0.heads.get(&id).filter(|head| head.identity_generation == self.0.identity.generation())?;
        Some(Some(head).filter(|head| view.shows(&head.package)))
    }

    /// Whether a name was among an owner's packages once, and is not now that its package is another owner's.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn moved_away(&self, view: View, ecosystem: &str, name: &PackageName) -> Result<bool> {
        let View::Owner(owner) = view else { return Ok(false) };
        match OWN_NAMES.get(&*self.0.store, own_name_key(ecosystem, name, owner)).await? {
            None => Ok(false),
            Some(id) => Ok(self.head_by_id(id.value).await?.is_none_or(|head| head.package.owner != owner)),
        }
    }

    /// What a package's name means among an owner's packages, whether or not it is still there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn own_name(&self, package: &Package, owner: AccountId) -> Result<Option<Stored<PackageId>>> {
        OWN_NAMES.get(&*self.0.store, own_name_key(&package.ecosystem, &package.name, owner)).await
    }

    /// The head of the hosted package that a grant is about, or will be about once it is made:
    /// then the one of that name in the view.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head_for(&self, grant: &Grant, view: View) -> Result<Option<Arc<Head>>> {
        match grant.package() {
            Some(id) => self.head_by_id(id).await,
            None => self.head_in(view, grant.ecosystem(), grant.name()).await,
        }
    }

    /// The head of a package, also of a deleted one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head_by_id(&self, id: PackageId) -> Result<Option<Arc<Head>>> {
        let generation = self.0.identity.generation();
        if let Some(head) = self.0.heads.get(&id)
            && head.identity_generation == generation
        {
            return Ok(Some(head));
        }
        Box::pin(self.read_head(id, generation)).await
    }

    async fn read_name(&self, key: PackageKey, view: View, ecosystem: &str, name: &PackageName) -> Result<Option<PackageId>> {
        let store = &*self.0.store;
        let epoch = *self.epoch();
        let row = match view {
            View::Root => NAMES.get(store, name_key(ecosystem, name)).await?,
            View::Owner(owner) => OWN_NAMES.get(store, own_name_key(ecosystem, name, owner)).await?,
        };
        let package = row.map(|row| row.value);
        let now = self.epoch();
        if *now == epoch {
            self.0.names.insert(key, Named { name: name.clone(), package });
        }
        Ok(package)
    }

    async fn read_head(&self, id: PackageId, identity_generation: u64) -> Result<Option<Arc<Head>>> {
        let epoch = *self.epoch();
        let Some(Stored { value: package, raw }) = PACKAGES.get(&*self.0.store, package_key(id)).await? else { return Ok(None) };
        let policy = self.policy(&package).await?;
        let head = Arc::new(Head { package, policy, raw, identity_generation });
        let now = self.epoch();
        if *now == epoch {
            self.0.heads.insert(id, Arc::clone(&head));
        }
        Ok(Some(head))
    }

    async fn policy(&self, package: &Package) -> Result<Policy> {
        let owner_is_organisation = match self.0.identity.account(package.owner).await {
            Ok(owner) => owner.is_organisation(),
            // Of a deleted account nothing is left to be a member of, so that roles on its packages count for nobody.
            Err(error) if error.kind() == Kind::NotFound => true,
            Err(error) => return Err(error),
        };
        let repository = match package.repository {
            None => None,
            Some(id) => match self.0.identity.repository_by_id(id).await {
                Ok(repository) => Some(RepositoryPolicy::from(&repository)),
                // A deleted repository gives no rights and takes none.
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        Ok(Policy {
            owner: package.owner,
            owner_is_organisation,
            visibility: package.visibility,
            inherits: package.inherits,
            roles: package.roles.clone(),
            workflows: package.workflows.clone(),
            repository,
            repository_scoped: package.repository_scoped,
        })
    }

    /// Versions of a package in the order of their publication, without deleted ones.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn versions(&self, grant: &Grant, head: &Head) -> Result<Vec<Version>> {
        let mut versions: Vec<Version> = self.live_versions(grant, head).await?.into_iter().map(|stored| stored.value).collect();
        versions.sort_by_key(|version| (version.created_at, version.id));
        Ok(versions)
    }

    /// Versions that are not deleted, as stored, for changes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn live_versions(&self, _grant: &Grant, head: &Head) -> Result<Vec<Stored<Version>>> {
        self.versions_that(head, |version| version.deleted_at.is_none()).await
    }

    /// Versions as stored, also deleted ones, by number as a text.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all_versions(&self, _grant: &Grant, head: &Head) -> Result<Vec<Stored<Version>>> {
        self.versions_that(head, |_| true).await
    }

    /// The versions that are wanted, of however many there have ever been.
    async fn versions_that(&self, head: &Head, wanted: impl Fn(&Version) -> bool) -> Result<Vec<Stored<Version>>> {
        let (mut versions, mut after) = (Vec::new(), None);
        loop {
            let rows = VERSIONS.scan(&*self.0.store, package_key(head.package.id), after, PAGE).await?;
            after = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
            versions.extend(rows.into_iter().map(|(_, stored)| stored).filter(|stored| wanted(&stored.value)));
            if after.is_none() {
                return Ok(versions);
            }
        }
    }

    /// One version, also a deleted one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn version(&self, _grant: &Grant, head: &Head, number: &str) -> Result<Option<Stored<Version>>> {
        VERSIONS.get(&*self.0.store, version_key(head.package.id, number)).await
    }

    /// One version by its id, also a deleted one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn version_by_id(&self, grant: &Grant, head: &Head, id: VersionId) -> Result<Option<Stored<Version>>> {
        match LISTED.get(&*self.0.store, listed_key(head.package.id, id)).await? {
            Some(row) => self.version(grant, head, &row.value.number).await,
            None => Ok(None),
        }
    }

    /// The versions of a package without their metadata, also deleted ones, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn listed(&self, _grant: &Grant, head: &Head) -> Result<Vec<Listed>> {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let rows = LISTED.scan(&*self.0.store, package_key(head.package.id), after, PAGE).await?;
            after = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
            listed.extend(rows.into_iter().map(|(_, stored): (_, Stored<Listed>)| stored.value));
            if after.is_none() {
                break;
            }
        }
        listed.sort_by_key(|version| std::cmp::Reverse((version.created_at, version.id)));
        Ok(listed)
    }

    /// A file of a live version, by its name in the download path.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn file(&self, grant: &Grant, head: &Head, file: &str) -> Result<Option<Arc<HostedFile>>> {
        if let Some(found) = self.file_in_memory(grant, head, file) {
            return Ok(found);
        }
        let row = Box::pin(FILES.get(&*self.0.store, file_key(head.package.id, file))).await?;
        let found = row.map(|Stored { value: FileRow { version, file }, .. }| {
            let downloads = self.0.downloads.count(head.package.id, &version);
            Arc::new(HostedFile { version, file, downloads })
        });
        self.0.files.insert(hosted_key(head, file), found.clone());
        Ok(found)
    }

    /// As [`Catalog::file`], if memory knows it.
    #[must_use]
    pub fn file_in_memory(&self, _grant: &Grant, head: &Head, file: &str) -> Option<Option<Arc<HostedFile>>> {
        self.0.files.get(&hosted_key(head, file))
    }

    /// The people who administer a package, for index documents.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn maintainers(&self, head: &Head) -> Result<Vec<Maintainer>> {
        let mut people: Vec<AccountId> = head
            .package
            .roles
            .iter()
            .filter_map(|(principal, role)| match principal {
                Principal::User(id) if *role == Role::Admin => Some(*id),
                _ => None,
            })
            .collect();
        if !head.policy.owner_is_organisation && !people.contains(&head.package.owner) {
            people.insert(0, head.package.owner);
        }
        let mut maintainers = Vec::with_capacity(people.len());
        for id in people {
            match self.0.identity.account(id).await {
                Ok(account) => maintainers.push(Maintainer { login: account.login.to_string(), email: account.email }),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(maintainers)
    }

    /// Count of changes of packages made through this process.
    #[must_use]
    pub fn changes(&self) -> u64 {
        *self.epoch()
    }

    /// The package of an id, also a deleted one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn package(&self, id: PackageId) -> Result<Option<Package>> {
        Ok(PACKAGES.get(&*self.0.store, package_key(id)).await?.map(|stored| stored.value))
    }

    /// What happened, beyond the event `after` in the order asked for.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events(&self, whose: event::Whose, order: event::Order, after: Option<u64>, limit: usize) -> Result<Vec<event::Entry>> {
        event::read(&*self.0.store, whose, order, after, limit).await
    }

    /// Forgets events that are older than they are kept; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_events(&self, config: &event::Config) -> Result<usize> {
        event::prune(&*self.0.store, config, self.0.clock.now()).await
    }

    /// The downloads of hosted versions.
    #[must_use]
    pub fn downloads(&self) -> &Downloads {
        &self.0.downloads
    }

    /// A number for a new package or version.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_id(&self) -> Result<u64> {
        self.0.ids.next(&*self.0.store).await
    }

    /// The clock that changes are stamped with.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Commits a change of one package, given as it will be. Whoever looks the package up afterwards sees it.
    ///
    /// # Errors
    /// When the store fails; the change is then not made, or not known to be made.
    pub async fn commit(&self, package: &Package, batch: Batch) -> Result<Applied> {
        let forget = self.forgetting(std::slice::from_ref(package));
        let outcome = self.0.store.commit(batch).await;
        drop(forget);
        Ok(match outcome? {
            Outcome::Committed => Applied::Yes,
            Outcome::Conflict { .. } => Applied::Stale,
        })
    }

    /// Forgets what is remembered of packages, given as they will be, when the guard is dropped: also when the caller
    /// gives up waiting, since the change may still be made.
    pub fn forgetting<'a>(&'a self, packages: &'a [Package]) -> Forgetting<'a> {
        Forgetting { catalog: self, packages }
    }

    fn epoch(&self) -> std::sync::MutexGuard<'_, u64> {
        self.0.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while packages change.
#[must_use]
pub struct Forgetting<'a> {
    catalog: &'a Catalog,
    packages: &'a [Package],
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        let catalog = self.catalog;
        let mut epoch = catalog.epoch();
        *epoch += 1;
        for package in self.packages {
            catalog.0.heads.remove(&package.id);
            for view in [View::Root, View::Owner(package.owner)] {
                catalog.0.names.remove(&view_key(view, &package.ecosystem, &package.name));
            }
        }
    }
}

/// The key of a name in a view, for memory.
/// The key of what a package holds in its present generation.
fn hosted_key(head: &Head, what: impl std::hash::Hash) -> PackageKey {
    PackageKey::of(&(head.package.id, head.package.generation, what))
}

fn view_key(view: View, ecosystem: &str, name: &PackageName) -> PackageKey {
    PackageKey::of(&(ecosystem, name, view))
}

fn own_name_key(ecosystem: &str, name: &PackageName, owner: AccountId) -> Key {
    name_key(ecosystem, name).number(owner.0)
}

fn name_key(ecosystem: &str, name: &PackageName) -> Key {
    Key::new().text(ecosystem).text(name.as_str())
}

fn package_key(id: PackageId) -> Key {
    Key::new().number(id.0)
}

fn owner_key(owner: AccountId) -> Key {
    Key::new().number(owner.0)
}

fn owned_key(owner: AccountId, package: PackageId) -> Key {
    owner_key(owner).number(package.0)
}

fn owned_id(key: &[u8]) -> Result<PackageId> {
    let mut parts = KeyParts(key);
    let id = parts.number().and_then(|_| parts.number()).map(PackageId);
    id.ok_or_else(|| Error::internal(Subject::Store, "malformed key in catalog.owned"))
}

fn listed_key(package: PackageId, version: VersionId) -> Key {
    package_key(package).number(version.0)
}

fn version_key(id: PackageId, number: &str) -> Key {
    package_key(id).text(number)
}

fn file_key(id: PackageId, file: &str) -> Key {
    package_key(id).text(file)
}

fn blob_key(digest: &Digest, package: PackageId, version: VersionId, file: &str) -> Key {
    Key::new().bytes(digest.bytes()).number(package.0).number(version.0).text(file)
}
