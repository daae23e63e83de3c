//! Content that was uploaded and that no version needs to name yet.
//!
//! Clients send an image's layers before the manifest that names them, to a package
//! that may not be there yet. Such content is its uploader's; once there is a package
//! it is open to all who may read that. A version that names it holds it from then on;
//! what nobody names is given up in time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BLOB_REFERENCES, Catalog, Head, blob_key};
use crate::access::{Action, Grant};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, Result, Subject};
use crate::name::PackageName;
use crate::package::{AccountId, Content, PackageId, VersionId};
use crate::store::table::{Key, KeyParts, Table};
use crate::store::{Batch, Outcome};

/// By ecosystem, name, digest and uploader.
static UPLOADS: Table<Uploaded> = Table::new("catalog.upload");

/// Uploaders of one content in one package that are looked at.
const UPLOADERS: usize = 100;

/// Content that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Uploaded {
    #[serde(flatten)]
    content: Content,
    by: AccountId,
    at: Timestamp,
}

impl Catalog {
    /// Content that was uploaded for the package of a grant and that the grant opens: the caller's own, with a
    /// live package what came since the package was made, and nothing that came before the package was deleted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn uploaded(&self, grant: &Grant, head: Option<&Head>, digest: &Digest) -> Result<Option<Arc<Content>>> {
        let deleted_at = head.and_then(|head| head.package.deleted_at);
        let since = head.filter(|_| deleted_at.is_none()).map(|head| head.package.created_at);
        let under = upload_key(grant.ecosystem(), grant.name(), digest);
        let rows = UPLOADS.scan(&*self.0.store, under, None, UPLOADERS).await?;
        let open = |row: &Uploaded| {
            let own = Some(row.by) == grant.caller() && deleted_at.is_none_or(|at| row.at >= at);
            own || since.is_some_and(|since| row.at >= since)
        };
        Ok(rows.into_iter().map(|(_, stored)| stored.value).find(open).map(|row| Arc::new(row.content)))
    }

    /// Enters content as uploaded by the holder of a grant, whose blob is kept and leased.
    ///
    /// # Errors
    /// When the store fails, or the grant is nobody's.
    pub async fn enter_upload(&self, grant: &Grant, content: Content) -> Result<()> {
        let by = grant.caller().ok_or_else(|| Error::internal(Subject::Upload, "an upload of nobody's"))?;
        let mut batch = Batch::new();
        let row = Uploaded { content, by, at: self.0.clock.now() };
        let key = upload_key(grant.ecosystem(), grant.name(), &row.content.digest).number(by.0);
        BLOB_REFERENCES.put(&mut batch, reference(&key, &row), &())?;
        UPLOADS.put(&mut batch, key, &row)?;
        self.0.store.commit(batch).await.map(drop)
    }

    /// Gives up uploaded content: with the right to delete everybody's, else the caller's own. Whether there was any.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn give_up_upload(&self, grant: &Grant, digest: &Digest) -> Result<bool> {
        let under = upload_key(grant.ecosystem(), grant.name(), digest);
        let mut rows = UPLOADS.scan(&*self.0.store, under, None, UPLOADERS).await?;
        rows.retain(|(_, stored)| grant.allows(Action::Delete) || Some(stored.value.by) == grant.caller());
        let mut batch = Batch::new();
        for (key, stored) in &rows {
            remove(&mut batch, key, &stored.value);
        }
        if !rows.is_empty() {
            self.0.store.commit(batch).await?;
        }
        Ok(!rows.is_empty())
    }

    /// Gives up uploads from before an instant; returns how many. What versions hold of them stays theirs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn give_up_uploads(&self, before: Timestamp) -> Result<usize> {
        const PAGE: usize = 1000;
        let (mut given_up, mut after) = (0, None);
        loop {
            let rows = UPLOADS.scan(&*self.0.store, Key::new(), after, PAGE).await?;
            for (key, stored) in rows.iter().filter(|(_, stored)| stored.value.at < before) {
                let mut batch = Batch::new();
                // It may have been uploaded again since it was read.
                UPLOADS.unchanged(&mut batch, raw(key), stored);
                remove(&mut batch, key, &stored.value);
                given_up += usize::from(self.0.store.commit(batch).await? == Outcome::Committed);
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(given_up),
            }
        }
    }

    /// The packages for which a blob was uploaded by a user, of the first `limit` references to it.
    /// Whoever uses this decides for each whether its own caller may read it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn uploaded_for(&self, blob: &Digest, ecosystem: &str, limit: usize) -> Result<Vec<PackageName>> {
        let under = Key::new().bytes(blob.bytes()).number(0);
        let rows = BLOB_REFERENCES.scan(&*self.0.store, under, None, limit).await?;
        let names = rows.iter().filter_map(|(key, _)| {
            let mut parts = KeyParts(key);
            let holder =
                parts.bytes(blob.bytes().len()).and_then(|_| parts.number()).and_then(|_| parts.number()).and_then(|_| parts.text())?;
            let rest = holder.strip_prefix(HOLDER)?.strip_prefix(ecosystem)?.strip_prefix(' ')?;
            PackageName::new(rest.rsplitn(3, ' ').nth(2)?).ok()
        });
        Ok(names.collect())
    }
}

/// What the references of uploads begin with.
const HOLDER: &str = "upload ";

fn remove(batch: &mut Batch, key: &[u8], row: &Uploaded) {
    BLOB_REFERENCES.delete(batch, reference(&raw(key), row));
    UPLOADS.delete(batch, raw(key));
}

fn upload_key(ecosystem: &str, name: &PackageName, digest: &Digest) -> Key {
    Key::new().text(ecosystem).text(name.as_str()).text(&digest.to_string())
}

fn raw(key: &[u8]) -> Key {
    Key::new().bytes(key)
}

/// The reference that keeps the blob of an upload, from the upload's key. No package and no version has the number zero.
fn reference(key: &Key, row: &Uploaded) -> Key {
    let key = key.clone().encode();
    let mut parts = KeyParts(&key);
    let (ecosystem, name) = (parts.text().unwrap_or_default(), parts.text().unwrap_or_default());
    let holder = format!("{HOLDER}{ecosystem} {name} {} {}", row.content.digest, row.by);
    blob_key(row.content.blob(), PackageId(0), VersionId(0), &holder)
}
