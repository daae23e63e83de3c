//! Checking every blob: is what lies under a digest's name of that digest, and is there anything else?
//!
//! What is wrong is moved to `quarantine`, never removed: a person may want to see
//! it. A cached blob among it is fetched again when somebody asks for it; a hosted
//! one has to come from a backup or a new upload.

use std::fs::File;
use std::io::{self, Read as _};

use super::disk::{Folder, Found, failed};
use super::segment::Placed;
use super::{Blobs, Id, blocking, digest_of};
use crate::digest::{Digest, Hasher};
use crate::error::Result;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs read whole.
    pub checked: u64,
    /// Their size in bytes.
    pub checked_bytes: u64,
    /// Blobs whose content or size is not what it should be; they are in `quarantine` now.
    pub damaged: Vec<Digest>,
    /// Paths under the data directory that are no blobs; they are in `quarantine` now.
    pub foreign: Vec<String>,
    /// Cached blobs whose file is gone; the index has dropped them.
    pub missing: Vec<Digest>,
    /// How many findings are not listed above, because there were too many.
    pub unlisted: u64,
}

/// Most findings that a report lists of each sort.
const LISTED: usize = 10_000;

impl Blobs {
    /// Reads and hashes every blob. `progress` is told how many of how many are done.
    ///
    /// Runs beside everything else: blobs that come or go meanwhile are no findings.
    ///
    /// # Errors
    /// When a folder cannot be read or a finding cannot be moved. An unreadable blob is a damaged one.
    pub async fn verify(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        self.put_foreign_away(Folder::Blobs, &mut report, |found| found.folder && found.name == b"sha256").await?;
        self.put_foreign_away(Folder::Sha256, &mut report, is_shard).await?;
        let mut total = 0;
        for shard in 0..=u8::MAX {
            total += self.blobs_of(shard).await?.len() as u64;
        }
        let mut done = 0;
        let segments = self.0.segments.numbers();
        for number in &segments {
            total += self.placed_in(*number).await?.len() as u64;
        }
        progress(done, total);
        for shard in 0..=u8::MAX {
            self.put_foreign_away(Folder::Shard(shard), &mut report, move |found| found.id(shard).is_some()).await?;
            for id in self.blobs_of(shard).await? {
                self.check(id, &mut report).await?;
                done += 1;
                progress(done, total.max(done));
            }
        }
        for number in segments {
            for placed in self.placed_in(number).await? {
                self.check_placed(placed, &mut report).await?;
                done += 1;
                progress(done, total.max(done));
            }
        }
        self.drop_missing(&mut report).await?;
        Ok(report)
    }

    async fn blobs_of(&self, shard: u8) -> Result<Vec<Id>> {
        let blobs = self.clone();
        let found = blocking(move || blobs.0.disk.list(Folder::Shard(shard)).map_err(failed)).await?;
        Ok(found.iter().filter_map(|found| found.id(shard)).collect())
    }

    /// Moves away what does not belong in a folder.
    async fn put_foreign_away(
        &self,
        folder: Folder,
        report: &mut VerifyReport,
        belongs: impl Fn(&Found) -> bool + Send + 'static,
    ) -> Result<()> {
        let blobs = self.clone();
        let foreign = blocking(move || {
            let disk = &blobs.0.disk;
            let mut foreign = disk.list(folder).map_err(failed)?;
            foreign.retain(|found| !belongs(found));
            for found in &foreign {
                disk.quarantine(folder, &found.name).map_err(failed)?;
            }
            Ok(foreign)
        })
        .await?;
        for found in foreign {
            let path = folder.path(&found.name);
            tracing::error!(path, "not a blob; moved to quarantine");
            note(&mut report.foreign, path, &mut report.unlisted);
        }
        Ok(())
    }

    async fn check(&self, id: Id, report: &mut VerifyReport) -> Result<()> {
        let blobs = self.clone();
        let content = blocking(move || Ok(blobs.0.disk.blob(&id).and_then(|file| file.map(hash).transpose()))).await?;
        let digest = digest_of(&id);
        let right = match content {
            // It was removed after it was listed.
            Ok(None) => return Ok(()),
            Ok(Some((found, size))) => {
                report.checked += 1;
                report.checked_bytes += size;
                found == digest && self.0.index.get(&id).is_none_or(|(indexed, _)| indexed == size)
            }
            Err(error) => {
                tracing::error!(%digest, %error, "a blob cannot be read");
                false
            }
        };
        if !right {
            tracing::error!(%digest, "a blob is damaged; moved to quarantine");
            self.0.index.forget(&id);
            let blobs = self.clone();
            blocking(move || blobs.0.disk.quarantine(Folder::Shard(id[0]), hex::encode(id).as_bytes()).map_err(failed)).await?;
            self.forget_content(&id);
            note(&mut report.damaged, digest, &mut report.unlisted);
        }
        Ok(())
    }

    /// What lives in a segment.
    async fn placed_in(&self, number: u32) -> Result<Vec<Placed>> {
        let blobs = self.clone();
        let listed = blocking(move || blobs.0.segments.listed(number).map_err(failed)).await?;
        Ok(listed.into_iter().filter(|placed| self.0.index.place(&placed.id) == Some((placed.place, placed.size))).collect())
    }

    /// As [`Blobs::check`], of a blob in a segment. There is nothing to put away of one that is damaged.
    async fn check_placed(&self, placed: Placed, report: &mut VerifyReport) -> Result<()> {
        let blobs = self.clone();
        let found = blocking(move || Ok(blobs.0.segments.read(&placed).map(|bytes| Digest::sha256(&bytes)))).await?;
        let digest = digest_of(&placed.id);
        report.checked += 1;
        report.checked_bytes += placed.size;
        // By now it may be gone, or elsewhere.
        let lives = self.0.index.place(&placed.id) == Some((placed.place, placed.size));
        if lives && found.as_ref().ok() != Some(&digest) {
            tracing::error!(%digest, ?found, "a cached blob is damaged");
            self.0.index.forget(&placed.id);
            self.forget_content(&placed.id);
            note(&mut report.damaged, digest, &mut report.unlisted);
        }
        Ok(())
    }

    async fn drop_missing(&self, report: &mut VerifyReport) -> Result<()> {
        let blobs = self.clone();
        let missing = blocking(move || {
            let mut missing = Vec::new();
            for blob in blobs.0.index.oldest_first() {
                // The second look at the index: it may have been evicted since the list was made.
                if blobs.0.index.place(&blob.id).is_none()
                    && blobs.0.disk.size(&blob.id).map_err(failed)?.is_none()
                    && blobs.0.index.forget(&blob.id)
                {
                    missing.push(digest_of(&blob.id));
                }
            }
            Ok(missing)
        })
        .await?;
        for digest in missing {
            note(&mut report.missing, digest, &mut report.unlisted);
        }
        Ok(())
    }
}

fn note<T>(list: &mut Vec<T>, finding: T, unlisted: &mut u64) {
    if list.len() < LISTED {
        list.push(finding);
    } else {
        *unlisted += 1;
    }
}

/// Whether a name in `blobs/sha256` is a folder of blobs.
fn is_shard(found: &Found) -> bool {
    found.folder && found.name.len() == 2 && found.name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hash(mut file: File) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(&[]);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish().sha256, size)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
