//! Removing what nobody needs: orphans, and the cached blobs that were unused longest.
//!
//! A sweep may go by an old list of references, so age alone proves nothing. An
//! orphan is removed when it was one in two sweeps, nobody leased it in between, and
//! its file is older than the grace; see `lease`. A publish that finds an orphan in
//! its way takes a lease, and with that the two sweeps begin anew.
//!
//! Removal goes at a limited pace, and a blob's name goes before its bytes: readers
//! that have it open read on.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::disk::{Folder, failed};
use super::index::Aged;
use super::{Blobs, Id, Inner, blocking, digest_of};
use crate::digest::Digest;
use crate::error::Result;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs looked at.
    pub seen: u64,
    /// Orphans that the next sweep may remove.
    pub waiting: u64,
    /// Orphans removed.
    pub removed: u64,
    /// Their size in bytes.
    pub removed_bytes: u64,
}

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Cached blobs removed.
    pub removed: u64,
    /// Their size in bytes.
    pub removed_bytes: u64,
    /// Blobs that left the cache's index because they are hosted.
    pub hosted: u64,
    /// Whether the cache is still above its limits: blobs are leased, or the time was up.
    pub unfinished: bool,
}

impl Blobs {
    /// Removes blobs that are neither hosted nor cached. `hosted` must know every reference that
    /// was committed before this call; files younger than `grace` are left alone.
    ///
    /// # Errors
    /// When the disk fails. What was removed until then stays removed.
    pub async fn sweep(&self, hosted: &(dyn Fn(&Digest) -> bool + Sync), grace: Duration) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        let mut suspects = HashSet::new();
        let mut pace = Pace::new(self);
        for shard in 0..=u8::MAX {
            let blobs = self.clone();
            let found = blocking(move || blobs.0.disk.list(Folder::Shard(shard)).map_err(failed)).await?;
            for found in found {
                let Some(id) = found.id(shard) else { continue };
                report.seen += 1;
                let young = self.0.clock.now().since(found.modified) < grace;
                if young || self.0.index.get(&id).is_some() || hosted(&digest_of(&id)) {
                    continue;
                }
                if self.remove_suspect(id).await? {
                    report.removed += 1;
                    report.removed_bytes += found.size;
                    pace.step().await;
                } else {
                    self.0.leases.suspect(&id);
                    suspects.insert(id);
                }
            }
        }
        self.0.leases.retain_candidates(&suspects);
        report.waiting = suspects.len() as u64;
        Ok(report)
    }

    /// Removes a blob that the last sweep suspected and nobody has leased since.
    async fn remove_suspect(&self, id: Id) -> Result<bool> {
        let blobs = self.clone();
        blocking(move || {
            let Some(detached) = blobs.0.leases.if_candidate(&id, || blobs.0.disk.detach(&id)) else { return Ok(false) };
            blobs.forget_content(&id);
            drop(detached.map_err(failed)?);
            Ok(true)
        })
        .await
    }

    /// Removes cached blobs, the longest unused first, until the cache is within its limits and
    /// the disk has its reserve. A blob that is `hosted` is never removed and leaves the cache's index.
    ///
    /// Takes at most half of [`super::Config::lease_seconds`], so that `hosted` may go by a list as
    /// old as the other half: a publish commits under a lease, which outlives it for that time.
    ///
    /// # Errors
    /// When the disk fails. What was removed until then stays removed.
    pub async fn evict(&self, hosted: &(dyn Fn(&Digest) -> bool + Sync)) -> Result<EvictReport> {
        let mut report = EvictReport::default();
        // What the disk lacks is counted once: a file that is still being read frees its space only
        // later, and removing more for its sake would empty the cache.
        let lacking = self.lacking()?;
        let is_over = |removed_bytes| {
            let short = removed_bytes < lacking && self.lacking()? > 0;
            let (config, index) = (&self.0.config, &self.0.index);
            let full = index.bytes() > config.cache_limit_bytes || index.count() > config.cache_limit_files;
            Result::Ok(full || short && index.count() > 0)
        };
        if !is_over(0)? {
            return Ok(report);
        }
        let began = tokio::time::Instant::now();
        let most = Duration::from_secs(self.0.config.lease_seconds) / 2;
        let index = self.clone();
        let aged = blocking(move || Ok(index.0.index.oldest_first())).await?;
        let mut pace = Pace::new(self);
        for blob in aged {
            if began.elapsed() > most || !is_over(report.removed_bytes)? {
                break;
            }
            let used_since = self.0.index.get(&blob.id).is_none_or(|(_, used)| used != blob.used);
            if used_since {
                continue;
            }
            if self.0.index.place(&blob.id).is_some() {
                // A copy, also of what is hosted, and no file to be paced for.
                self.0.index.forget(&blob.id);
                self.forget_content(&blob.id);
                self.close_holes().await?;
            } else if hosted(&digest_of(&blob.id)) {
                self.0.index.forget(&blob.id);
                report.hosted += 1;
                continue;
            } else if self.remove_cached(blob).await? {
                pace.step().await;
            } else {
                continue;
            }
            report.removed += 1;
            report.removed_bytes += blob.size;
        }
        report.unfinished = is_over(report.removed_bytes)?;
        Ok(report)
    }

    /// Copies what lives in segments that are mostly holes, and so removes them.
    async fn close_holes(&self) -> Result<()> {
        for number in self.0.segments.wasteful() {
            let blobs = self.clone();
            blocking(move || blobs.empty_segment(number).map_err(failed)).await?;
        }
        Ok(())
    }

    /// Copies what lives in a segment elsewhere. What is damaged is dropped.
    fn empty_segment(&self, number: u32) -> io::Result<()> {
        let Inner { segments, index, config, .. } = &*self.0;
        let mut living = segments.listed(number)?;
        living.retain(|placed| index.place(&placed.id) == Some((placed.place, placed.size)));
        let mut living = living.into_iter().peekable();
        while living.peek().is_some() {
            let (mut group, mut bytes, mut size) = (Vec::new(), Vec::new(), 0);
            while let Some(placed) = living.next_if(|_| size < config.write_coalesce_bytes) {
                match segments.read(&placed) {
                    Ok(content) if Digest::sha256(&content) == digest_of(&placed.id) => {
                        size += placed.size;
                        group.push(placed);
                        bytes.push((placed.id, content));
                    }
                    _ => drop(index.forget(&placed.id)),
                }
            }
            for (placed, place) in group.iter().zip(segments.append(&bytes)?) {
                index.relocate(placed, place);
            }
        }
        Ok(())
    }

    async fn remove_cached(&self, blob: Aged) -> Result<bool> {
        let blobs = self.clone();
        blocking(move || blobs.remove_now(&blob.id)).await
    }

    /// Bytes that the disk lacks to have its reserve free.
    fn lacking(&self) -> Result<u64> {
        Ok(self.0.config.hosted_reserve_bytes.saturating_sub(self.0.disk.free().map_err(failed)?))
    }
}

/// Keeps removals to so many in a second.
struct Pace {
    at_once: u32,
    left: u32,
    pause: Duration,
}

impl Pace {
    fn new(blobs: &Blobs) -> Self {
        let per_second = blobs.0.config.remove_files_per_second.max(1);
        let at_once = per_second.div_ceil(20);
        Self { at_once, left: at_once, pause: Duration::from_secs(1) * at_once / per_second }
    }

    async fn step(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.left = self.at_once;
            tokio::time::sleep(self.pause).await;
        }
    }
}
