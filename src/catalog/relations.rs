//! What the versions of a package share and refer to.
//!
//! An image's layers belong to every image that names them, an index is made of other
//! versions, a signature is about one. Each such relation of a live version is a row
//! that can be looked up from its other end; all rows follow from the version's record,
//! so that deleting a version takes them away and restoring it brings them back. Blobs
//! stay referenced by deleted versions until those are purged.

use std::collections::HashSet;
use std::sync::Arc;

use super::{BLOB_REFERENCES, Catalog, Head, VERSIONS, blob_key, hosted_key, package_key, version_key};
use crate::access::Grant;
use crate::digest::Digest;
use crate::error::{Error, Result, Subject};
use crate::package::{Content, PackageId, Version};
use crate::store::Batch;
use crate::store::table::{Key, KeyParts, Table};

/// By package, digest, and number of the version that holds it.
static CONTENTS: Table<Content> = Table::new("catalog.content");
/// By package, number of the part, and number of the version that is made of it.
static PARTS: Table<()> = Table::new("catalog.part");
/// By package, number of the subject, and number of the version that is about it.
static SUBJECTS: Table<()> = Table::new("catalog.subject");

/// Most relations of one version.
pub const RELATIONS_LIMIT: usize = 10_000;

/// Adds to a batch: a version that comes alive holds its content and stands in its relations.
pub(super) fn enter(batch: &mut Batch, package: PackageId, version: &Version) -> Result<()> {
    let number = version.number.as_str();
    for content in &version.relations.contents {
        CONTENTS.put(batch, content_key(package, &content.digest).text(number), content)?;
        BLOB_REFERENCES.put(batch, reference(package, version, content), &())?;
    }
    for part in &version.relations.parts {
        PARTS.put(batch, version_key(package, part).text(number), &())?;
    }
    if let Some(subject) = &version.relations.subject {
        SUBJECTS.put(batch, version_key(package, subject).text(number), &())?;
    }
    Ok(())
}

/// Adds to a batch: a version that is deleted stands in no relation any more. Its blobs stay referenced.
pub(super) fn leave(batch: &mut Batch, package: PackageId, version: &Version) {
    let number = version.number.as_str();
    for content in &version.relations.contents {
        CONTENTS.delete(batch, content_key(package, &content.digest).text(number));
    }
    for part in &version.relations.parts {
        PARTS.delete(batch, version_key(package, part).text(number));
    }
    if let Some(subject) = &version.relations.subject {
        SUBJECTS.delete(batch, version_key(package, subject).text(number));
    }
}

/// Adds to a batch: a deleted version refers to its content no more, but for what `kept` names.
pub(super) fn release(batch: &mut Batch, package: PackageId, version: &Version, kept: &[Content]) {
    let kept: HashSet<&Digest> = kept.iter().map(|content| &content.digest).collect();
    for content in version.relations.contents.iter().filter(|content| !kept.contains(&content.digest)) {
        BLOB_REFERENCES.delete(batch, reference(package, version, content));
    }
}

impl Catalog {
    /// Content that a live version of a package holds, by its digest.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn content(&self, grant: &Grant, head: &Head, digest: &Digest) -> Result<Option<Arc<Content>>> {
        if let Some(found) = self.content_in_memory(grant, head, digest) {
            return Ok(found);
        }
        let rows = Box::pin(CONTENTS.scan(&*self.0.store, content_key(head.package.id, digest), None, 1)).await?;
        let found = rows.into_iter().next().map(|(_, stored)| Arc::new(stored.value));
        self.0.contents.insert(hosted_key(head, digest), found.clone());
        Ok(found)
    }

    /// As [`Catalog::content`], if memory knows it.
    #[must_use]
    pub fn content_in_memory(&self, _grant: &Grant, head: &Head, digest: &Digest) -> Option<Option<Arc<Content>>> {
        self.0.contents.get(&hosted_key(head, digest))
    }

    /// The number of a live version that another one is a part of.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn whole_of(&self, _grant: &Grant, head: &Head, part: &str) -> Result<Option<String>> {
        let rows = PARTS.scan(&*self.0.store, version_key(head.package.id, part), None, 1).await?;
        rows.first().map(|(key, _)| last_text(key)).transpose()
    }

    /// The live versions that are about another one, which need not be there, by their numbers, after a
    /// number, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn about(&self, _grant: &Grant, head: &Head, subject: &str, after: Option<&str>, limit: usize) -> Result<Vec<Version>> {
        let (store, id) = (&*self.0.store, head.package.id);
        let after = after.map(|number| version_key(id, subject).text(number).encode());
        let rows = SUBJECTS.scan(store, version_key(id, subject), after, limit).await?;
        let mut versions = Vec::with_capacity(rows.len());
        for (key, _) in rows {
            let stored = VERSIONS.get(store, version_key(id, &last_text(&key)?)).await?;
            versions.extend(stored.map(|stored| stored.value));
        }
        Ok(versions)
    }

    /// The packages that refer to a blob by their content, each once, of the first `limit` references.
    /// Whoever uses this decides for each package whether its own caller may read it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn holders(&self, blob: &Digest, limit: usize) -> Result<Vec<PackageId>> {
        let rows = BLOB_REFERENCES.scan(&*self.0.store, Key::new().bytes(blob.bytes()), None, limit).await?;
        let mut packages: Vec<PackageId> = Vec::new();
        for (key, _) in rows {
            let mut parts = KeyParts(&key);
            let package = parts.bytes(blob.bytes().len()).and_then(|_| parts.number()).map(PackageId);
            let package = package.ok_or_else(|| Error::internal(Subject::Store, "malformed key in catalog.blob_reference"))?;
            // The references of a package stand together; those of uploads are of the package zero.
            if package.0 != 0 && packages.last() != Some(&package) {
                packages.push(package);
            }
        }
        Ok(packages)
    }
}

fn content_key(package: PackageId, digest: &Digest) -> Key {
    package_key(package).text(&digest.to_string())
}

fn reference(package: PackageId, version: &Version, content: &Content) -> Key {
    blob_key(content.blob(), package, version.id, &content.digest.to_string())
}

/// The last part of a key of package, number and number.
fn last_text(key: &[u8]) -> Result<String> {
    let mut parts = KeyParts(key);
    let last = parts.number().and_then(|_| parts.text()).and_then(|_| parts.text());
    last.map(str::to_owned).ok_or_else(|| Error::internal(Subject::Store, "malformed key of a relation"))
}
