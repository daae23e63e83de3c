//! Which packages hang on a repository: those that are linked to it, and those that its workflows may use.
//!
//! The index is kept by the changes themselves. When a repository goes to another
//! owner or is deleted, everything that hangs on it changes in the same batch, on the
//! condition that nothing was hung on it meanwhile: so no link and no right outlives
//! the moment, nor comes back should the repository do so.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Catalog, Head};
use crate::error::{Error, Result, Subject};
use crate::package::{Package, PackageId, RepositoryId};
use crate::store::Batch;
use crate::store::table::{Key, KeyParts, Table};

/// By repository and package.
static LINKED: Table<()> = Table::new("catalog.linked");
/// Which package was last hung on a repository, and in which generation; by repository.
static MARKS: Table<(PackageId, u64)> = Table::new("catalog.link_mark");

/// Most packages that change together with their repository.
const LIMIT: usize = 1000;

/// Adds to the batch of a change what it changes in the index. `after` is the record as it will be.
pub(super) fn index(batch: &mut Batch, before: Option<&Package>, after: &Package) -> Result<()> {
    let (before, now) = (before.map(repositories).unwrap_or_default(), repositories(after));
    for repository in before.difference(&now) {
        LINKED.delete(batch, linked_key(*repository, after.id));
    }
    for repository in now.difference(&before) {
        LINKED.put(batch, linked_key(*repository, after.id), &())?;
        MARKS.put(batch, repository_key(*repository), &(after.id, after.generation))?;
    }
    Ok(())
}

impl Catalog {
    /// The packages that hang on a repository, deleted ones too, and the condition that no other one was hung on it since.
    ///
    /// # Errors
    /// `Conflict` when there are too many to be changed at once.
    pub async fn linked(&self, repository: RepositoryId) -> Result<(Batch, Vec<Arc<Head>>)> {
        let store = &*self.0.store;
        let mut unchanged = Batch::new();
        match MARKS.get(store, repository_key(repository)).await? {
            Some(mark) => MARKS.unchanged(&mut unchanged, repository_key(repository), &mark),
            None => MARKS.absent(&mut unchanged, repository_key(repository)),
        }
        let rows = LINKED.scan(store, repository_key(repository), None, LIMIT + 1).await?;
        if rows.len() > LIMIT {
            let text = format!("more than {LIMIT} packages are linked to the repository; unlink some first");
            return Err(Error::conflict(Subject::Repository, text));
        }
        let mut heads = Vec::with_capacity(rows.len());
        for (key, _) in rows {
            let mut parts = KeyParts(&key);
            let id = parts.number().and_then(|_| parts.number()).map(PackageId);
            let id = id.ok_or_else(|| Error::internal(Subject::Store, "malformed key in catalog.linked"))?;
            heads.extend(self.head_by_id(id).await?);
        }
        Ok((unchanged, heads))
    }
}

fn repositories(package: &Package) -> BTreeSet<RepositoryId> {
    package.repository.iter().chain(package.workflows.keys()).copied().collect()
}

fn repository_key(repository: RepositoryId) -> Key {
    Key::new().number(repository.0)
}

fn linked_key(repository: RepositoryId, package: PackageId) -> Key {
    repository_key(repository).number(package.0)
}
