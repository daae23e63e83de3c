//! Files of versions that are not whole yet.
//!
//! Some clients publish a version file by file, without a beginning or an end (Maven's
//! deploy: the jar, then the POM, each with its checksums). Until the file that makes
//! a version whole has come, its files wait here: durable, since the client was told
//! that they arrived, but in no index, no download and no list. Then one batch takes
//! them from here and makes the version. What nobody completes is given up in time.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Applied, BLOB_REFERENCES, Catalog, blob_key};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::name::PackageName;
use crate::package::{AccountId, File, PackageId, VersionId};
use crate::store::table::{Key, Stored, Table};
use crate::store::{Batch, Outcome};

/// By ecosystem, name, owner, unit and file name.
static STAGED: Table<Staged> = Table::new("catalog.staged");

/// Files that become visible together: a version, or a build of one.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// The ecosystem's name.
    pub ecosystem: &'a str,
    /// The package, which need not be there yet.
    pub name: &'a PackageName,
    /// Whose it is.
    pub owner: AccountId,
    /// The version's number, or what names one build of it.
    pub unit: &'a str,
}

/// A file that waits for its version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// The file. Its blob is referred to.
    pub file: File,
    /// What it says of the version: members of the version's manifest.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    /// When it came.
    pub at: Timestamp,
    ecosystem: String,
    name: PackageName,
    owner: AccountId,
    unit: String,
}

impl Staged {
    fn unit(&self) -> Unit<'_> {
        Unit { ecosystem: &self.ecosystem, name: &self.name, owner: self.owner, unit: &self.unit }
    }
}

/// Adds to a batch: a file waits. `before` is the row of its name that it takes the place of.
///
/// # Errors
/// When the row cannot be encoded.
pub fn stage(
    batch: &mut Batch,
    unit: Unit<'_>,
    file: File,
    facts: Map<String, Value>,
    before: Option<&Stored<Staged>>,
    now: Timestamp,
) -> Result<()> {
    let key = || file_key(unit, &file.name);
    match before {
        Some(before) => {
            STAGED.unchanged(batch, key(), before);
            if before.value.file.sha256 != file.sha256 {
                BLOB_REFERENCES.delete(batch, reference(unit, &before.value.file));
            }
        }
        None => STAGED.absent(batch, key()),
    }
    BLOB_REFERENCES.put(batch, reference(unit, &file), &())?;
    let Unit { ecosystem, name, owner, unit } = unit;
    let (ecosystem, name, unit) = (ecosystem.to_owned(), name.clone(), unit.to_owned());
    let row = Staged { file, facts, at: now, ecosystem, name, owner, unit };
    let key = file_key(row.unit(), &row.file.name);
    STAGED.put(batch, key, &row)
}

/// Adds to a batch: these files wait no longer, if they still do.
pub fn take(batch: &mut Batch, rows: &[Stored<Staged>]) {
    for row in rows {
        let unit = row.value.unit();
        let key = || file_key(unit, &row.value.file.name);
        STAGED.unchanged(batch, key(), row);
        STAGED.delete(batch, key());
        BLOB_REFERENCES.delete(batch, reference(unit, &row.value.file));
    }
}

impl Catalog {
    /// The files that wait for a unit, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn staged(&self, unit: Unit<'_>, limit: usize) -> Result<Vec<Stored<Staged>>> {
        let rows = STAGED.scan(&*self.0.store, unit_key(unit), None, limit).await?;
        Ok(rows.into_iter().map(|(_, stored)| stored).collect())
    }

    /// The units of a package for which files wait. Looks at no more than `limit` files.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn staged_units(&self, ecosystem: &str, name: &PackageName, owner: AccountId, limit: usize) -> Result<Vec<String>> {
        let under = Key::new().text(ecosystem).text(name.as_str()).number(owner.0);
        let rows = STAGED.scan(&*self.0.store, under, None, limit).await?;
        let mut units: Vec<String> = rows.into_iter().map(|(_, stored)| stored.value.unit).collect();
        units.dedup();
        Ok(units)
    }

    /// Commits a change of waiting files alone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn commit_staged(&self, batch: Batch) -> Result<Applied> {
        Ok(match self.0.store.commit(batch).await? {
            Outcome::Committed => Applied::Yes,
            Outcome::Conflict { .. } => Applied::Stale,
        })
    }

    /// Gives up files that came before an instant and that nothing has completed; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn give_up_staged(&self, before: Timestamp) -> Result<usize> {
        const PAGE: usize = 1000;
        let (mut given_up, mut after) = (0, None);
        loop {
            let rows = STAGED.scan(&*self.0.store, Key::new(), after, PAGE).await?;
            for (_, row) in rows.iter().filter(|(_, row)| row.value.at < before) {
                let mut batch = Batch::new();
                take(&mut batch, std::slice::from_ref(row));
                given_up += usize::from(self.commit_staged(batch).await? == Applied::Yes);
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(given_up),
            }
        }
    }
}

fn unit_key(unit: Unit<'_>) -> Key {
    Key::new().text(unit.ecosystem).text(unit.name.as_str()).number(unit.owner.0).text(unit.unit)
}

fn file_key(unit: Unit<'_>, file: &str) -> Key {
    unit_key(unit).text(file)
}

/// The reference that keeps a waiting file's blob. No package and no version has the number zero.
fn reference(unit: Unit<'_>, file: &File) -> Key {
    let holder = format!("{} {} {} {} {}", unit.ecosystem, unit.name, unit.owner, unit.unit, file.name);
    blob_key(&file.sha256, PackageId(0), VersionId(0), &holder)
}
