//! Many packages at once: the lists of a view, an ecosystem or an owner, and what upkeep goes through.
//!
//! All are read page by page, so that none needs memory for every row there is.

use std::collections::HashSet;
use std::sync::Arc;

use super::{
    Applied, BLOB_REFERENCES, Catalog, Head, LISTED, NAMES, OWN_NAMES, OWNED, OWNERS, PACKAGES, View, change, name_key, owned_id,
    owned_key, owner_key, package_key,
};
use crate::access::Grant;
use crate::clock::Timestamp;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result, Subject};
use crate::name::PackageName;
use crate::package::{AccountId, Package, PackageId};
use crate::store::Batch;
use crate::store::table::{Key, KeyParts};

impl Catalog {
    /// Heads of an ecosystem's root view in the order of their names, after a name, at most `limit`.
    /// The caller of this function decides for each what its own caller may see.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn heads(&self, ecosystem: &'static str, after: Option<&PackageName>, limit: usize) -> Result<Vec<Arc<Head>>> {
        let after = after.map(|name| name_key(ecosystem, name).encode());
        let rows = NAMES.scan(&*self.0.store, Key::new().text(ecosystem), after, limit).await?;
        let mut heads = Vec::with_capacity(rows.len());
        for (key, _) in rows {
            let mut parts = KeyParts(&key);
            let name = parts.text().and_then(|_| parts.text()).and_then(|text| PackageName::new(text).ok());
            let name = name.ok_or_else(|| Error::internal(Subject::Store, "malformed key in catalog.name"))?;
            heads.extend(self.head(ecosystem, &name).await?);
        }
        Ok(heads)
    }

    /// Shows every head of an ecosystem, of all owners, deleted ones too.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn each_head(&self, ecosystem: &str, mut show: impl FnMut(Arc<Head>) + Send) -> Result<()> {
        const PAGE: usize = 1000;
        let mut after = None;
        loop {
            let rows = OWN_NAMES.scan(&*self.0.store, Key::new().text(ecosystem), after, PAGE).await?;
            for (_, id) in &rows {
                if let Some(head) = self.head_by_id(id.value).await? {
                    show(head);
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Heads of the live packages of a view whose names begin so, at most `limit`, in the order of
    /// their names. The caller of this function decides for each what its own caller may see.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn heads_in(&self, view: View, ecosystem: &str, beginning: &str, limit: usize) -> Result<Vec<Arc<Head>>> {
        const PAGE: usize = 1000;
        let Ok(first) = PackageName::new(beginning) else { return Ok(Vec::new()) };
        let table = match view {
            View::Root => &NAMES,
            View::Owner(_) => &OWN_NAMES,
        };
        let (mut heads, mut after) = (Vec::new(), Some(name_key(ecosystem, &first).encode()));
        loop {
            let rows = table.scan(&*self.0.store, Key::new().text(ecosystem), after, PAGE).await?;
            for (key, id) in &rows {
                let mut parts = KeyParts(key);
                let name = parts.text().and_then(|_| parts.text()).unwrap_or_default();
                if !name.starts_with(beginning) || heads.len() >= limit {
                    return Ok(heads);
                }
                let owner = parts.number().map(AccountId);
                if owner.is_none_or(|owner| view == View::Owner(owner)) {
                    let head = self.head_by_id(id.value).await?;
                    heads.extend(head.filter(|head| head.package.deleted_at.is_none()));
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(heads),
            }
        }
    }

    /// Heads of an owner's packages, of one ecosystem or of all, deleted ones too, by id, after a package.
    /// Looks at no more than `limit` of the owner's packages of all ecosystems; the second value is
    /// what to go on after, `None` at the end. The caller of this function decides for each what
    /// its own caller may see.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn owned(
        &self,
        owner: AccountId,
        ecosystem: Option<&str>,
        after: Option<PackageId>,
        limit: usize,
    ) -> Result<(Vec<Arc<Head>>, Option<PackageId>)> {
        let store = &*self.0.store;
        let after = after.map(|id| owned_key(owner, id).encode());
        let rows = OWNED.scan(store, owner_key(owner), after, limit).await?;
        let mut heads = Vec::new();
        let mut last = None;
        for (key, _) in &rows {
            let id = owned_id(key)?;
            last = Some(id);
            let Some(stored) = PACKAGES.get(store, package_key(id)).await? else { continue };
            if ecosystem.is_none_or(|ecosystem| stored.value.ecosystem == ecosystem) {
                heads.extend(self.head_by_id(id).await?);
            }
        }
        Ok((heads, last.filter(|_| rows.len() == limit)))
    }

    /// The condition under which an account owns no live package. Deleted ones do not count: nobody can see them.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::Kind::Conflict) when it owns one.
    pub async fn owns_nothing(&self, owner: AccountId) -> Result<Batch> {
        const PAGE: usize = 1000;
        let store = &*self.0.store;
        let mut batch = Batch::new();
        match OWNERS.get(store, owner_key(owner)).await? {
            Some(mark) => OWNERS.unchanged(&mut batch, owner_key(owner), &mark),
            None => OWNERS.absent(&mut batch, owner_key(owner)),
        }
        let mut after = None;
        loop {
            let rows = OWNED.scan(store, owner_key(owner), after, PAGE).await?;
            for (key, _) in &rows {
                let package = PACKAGES.get(store, package_key(owned_id(key)?)).await?;
                if package.is_some_and(|stored| stored.value.deleted_at.is_none()) {
                    return Err(Error::conflict(Subject::Account, "the account still owns packages"));
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(batch),
            }
        }
    }

    /// Whether a hosted file refers to a blob.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_hosted(&self, digest: &Digest) -> Result<bool> {
        let rows = BLOB_REFERENCES.scan(&*self.0.store, Key::new().bytes(digest.bytes()), None, 1).await?;
        Ok(!rows.is_empty())
    }

    /// Every blob that a hosted file refers to, for sweeps.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hosted_blobs(&self) -> Result<HashSet<Digest>> {
        const PAGE: usize = 10_000;
        let mut blobs = HashSet::new();
        let mut after = None;
        loop {
            let rows = BLOB_REFERENCES.scan(&*self.0.store, Key::new(), after, PAGE).await?;
            for (key, _) in &rows {
                let digest = KeyParts(key).bytes(Algorithm::Sha256.length()).and_then(|bytes| Digest::new(Algorithm::Sha256, bytes).ok());
                blobs.insert(digest.ok_or_else(|| Error::internal(Subject::Store, "malformed key in catalog.blob_reference"))?);
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(blobs),
            }
        }
    }

    /// Packages with versions that were deleted before an instant and whose files are still kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn expired(&self, before: Timestamp) -> Result<Vec<Package>> {
        const PAGE: usize = 10_000;
        let store = &*self.0.store;
        let mut found: Vec<Package> = Vec::new();
        let mut after = None;
        loop {
            let rows = LISTED.scan(store, Key::new(), after, PAGE).await?;
            for (key, row) in &rows {
                if row.value.purged || row.value.deleted_at.is_none_or(|at| at >= before) {
                    continue;
                }
                let id = KeyParts(key).number().map(PackageId);
                let id = id.ok_or_else(|| Error::internal(Subject::Store, "malformed key in catalog.listed"))?;
                // The rows of a package stand together.
                if found.last().is_none_or(|last| last.id != id) {
                    found.extend(self.package(id).await?);
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(found),
            }
        }
    }

    /// Gives up the files of a package's versions that were deleted before an instant; returns of how many.
    /// Nothing is given up of a package that changes meanwhile; the next time does it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn purge(&self, grant: &Grant, before: Timestamp) -> Result<usize> {
        let Some(head) = self.head_for(grant, View::Root).await? else { return Ok(0) };
        let mut versions = self.all_versions(grant, &head).await?;
        versions.retain(|stored| !stored.value.purged && stored.value.deleted_at.is_some_and(|at| at < before));
        if versions.is_empty() {
            return Ok(0);
        }
        let batch = change::purge(&head, &versions, self.0.clock.now())?;
        let applied = self.commit(&head.package, batch).await?;
        Ok(if applied == Applied::Yes { versions.len() } else { 0 })
    }
}
