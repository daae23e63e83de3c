//! Which blobs are cached, how large they are and when they were last used.
//!
//! Kept in memory, since every download touches an entry; rows in the cache's store
//! let it survive a restart. Rows are written now and then, in bulk. What a crash
//! loses is harmless: an unknown file is swept and fetched again, a row without a
//! file is dropped when somebody asks for it. What lies in a segment has no row: the
//! segment's own list says so, and it counts as used when that was written.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Id;
use super::segment::{Place, Placed, Segments};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::store::table::{Key, KeyParts, Table};
use crate::store::{Batch, Store};

/// A cached blob as stored; the key is its SHA-256.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct CachedRow {
    size: u64,
    used: Timestamp,
}

static CACHED: Table<CachedRow> = Table::new("cached_blobs");

/// Rows of one read or write of the store.
const PAGE: usize = 1000;

/// A use is written down again after this time only; the order of eviction needs no more.
const TOUCH: Duration = Duration::from_secs(60);

/// The index. Split by digest, so that downloads on several cores seldom meet.
pub(super) struct Index {
    parts: [Mutex<Part>; 16],
    bytes: AtomicU64,
    count: AtomicU64,
    /// One flush at a time: two could write an older row over a newer one.
    flushing: tokio::sync::Mutex<()>,
    segments: Arc<Segments>,
}

#[derive(Default)]
struct Part {
    /// Hashed as the caches hash: each read looks here, and the standard library's hash takes some 300 instructions of it.
    entries: HashMap<Id, Entry, quick_cache::DefaultHashBuilder>,
    /// Entries whose row is behind, also those that are gone.
    changed: HashSet<Id>,
}

#[derive(Clone, Copy)]
struct Entry {
    size: u64,
    used: Timestamp,
    /// What the row says.
    written: Timestamp,
    /// Where in the segments it lies, if that is where it lies.
    place: Option<Place>,
}

/// A cached blob in the order of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Aged {
    pub used: Timestamp,
    pub id: Id,
    pub size: u64,
}

impl Index {
    /// Reads all rows, and takes in what the segments hold.
    pub(super) async fn load(store: &dyn Store, segments: Arc<Segments>, placed: Vec<Placed>) -> Result<Self> {
        let index = Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            bytes: AtomicU64::new(0),
            count: AtomicU64::new(0),
            flushing: tokio::sync::Mutex::default(),
            segments,
        };
        let mut after: Option<Bytes> = None;
        loop {
            let rows = CACHED.scan(store, Key::new(), after.take(), PAGE).await?;
            for (key, row) in &rows {
                if let Some(id) = KeyParts(key).bytes(size_of::<Id>()).and_then(|id| Id::try_from(id).ok()) {
                    let CachedRow { size, used } = row.value;
                    index.part(&id).entries.insert(id, Entry { size, used, written: used, place: None });
                    index.bytes.fetch_add(size, Ordering::Relaxed);
                    index.count.fetch_add(1, Ordering::Relaxed);
                }
            }
            match rows.into_iter().nth(PAGE - 1) {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        for Placed { id, place, size, written } in placed {
            index.insert(id, Entry { size, used: written, written: Timestamp::default(), place: Some(place) });
        }
        Ok(index)
    }

    /// Enters a blob that is a file, or notes its use.
    pub(super) fn enter(&self, id: Id, size: u64, now: Timestamp) {
        self.insert(id, Entry { size, used: now, written: Timestamp::default(), place: None });
    }

    /// Enters a blob that is in a segment.
    pub(super) fn enter_at(&self, id: Id, place: Place, size: u64, now: Timestamp) {
        self.insert(id, Entry { size, used: now, written: Timestamp::default(), place: Some(place) });
    }

    fn insert(&self, id: Id, entry: Entry) {
        let mut part = self.part(&id);
        let before = part.entries.insert(id, entry);
        // A row is written for a file, and taken away from what is none any more.
        if entry.place.is_none() || before.is_some_and(|before| before.place.is_none()) {
            part.changed.insert(id);
        }
        drop(part);
        self.bytes.fetch_add(entry.size, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = before {
            self.left(&before);
        }
    }

    /// Counts an entry that is gone.
    fn left(&self, entry: &Entry) {
        self.bytes.fetch_sub(entry.size, Ordering::Relaxed);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(place) = entry.place {
            self.segments.release(place, entry.size);
        }
    }

    /// Where in the segments a blob lies, if it does, and its size.
    pub(super) fn place(&self, id: &Id) -> Option<(Place, u64)> {
        self.part(id).entries.get(id).and_then(|entry| Some((entry.place?, entry.size)))
    }

    /// Notes that a blob was copied to another place, unless it is gone or elsewhere by now: then the copy is a hole.
    pub(super) fn relocate(&self, placed: &Placed, to: Place) {
        let mut part = self.part(&placed.id);
        let entry = part.entries.get_mut(&placed.id).filter(|entry| entry.place == Some(placed.place));
        let hole = entry.and_then(|entry| entry.place.replace(to)).unwrap_or(to);
        drop(part);
        self.segments.release(hole, placed.size);
    }

    /// Notes a use of a blob, if it is cached. Gives its size.
    pub(super) fn touch(&self, id: &Id, clock: &Clock) -> Option<u64> {
        let mut part = self.part(id);
        let entry = part.entries.get_mut(id)?;
        let now = clock.now();
        entry.used = entry.used.max(now);
        let Entry { size, written, place, .. } = *entry;
        if place.is_none() && now.since(written) >= TOUCH {
            part.changed.insert(*id);
        }
        Some(size)
    }

    /// Drops a blob. Whether it was there.
    pub(super) fn forget(&self, id: &Id) -> bool {
        let mut part = self.part(id);
        let Some(entry) = part.entries.remove(id) else { return false };
        if entry.place.is_none() {
            part.changed.insert(*id);
        }
        drop(part);
        self.left(&entry);
        true
    }

    /// Size and last use of a blob, if it is cached.
    pub(super) fn get(&self, id: &Id) -> Option<(u64, Timestamp)> {
        self.part(id).entries.get(id).map(|entry| (entry.size, entry.used))
    }

    /// All cached blobs, the longest unused first.
    pub(super) fn oldest_first(&self) -> Vec<Aged> {
        let mut all = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            all.extend(part.entries.iter().map(|(id, entry)| Aged { used: entry.used, id: *id, size: entry.size }));
        }
        all.sort_unstable();
        all
    }

    /// Total size in bytes of the cached blobs.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of cached blobs.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Puts a blob's row into a batch that is about to be committed, so that [`Index::flush`] need not.
    pub(super) fn put_row(&self, batch: &mut Batch, id: &Id) -> Result<()> {
        self.part(id).changed.remove(id);
        batch.extend(self.rows(&[*id])?);
        Ok(())
    }

    /// Writes what changed to the store.
    pub(super) async fn flush(&self, store: &dyn Store) -> Result<()> {
        let _alone = self.flushing.lock().await;
        for number in 0..self.parts.len() {
            let changed: Vec<Id> = std::mem::take(&mut lock(&self.parts[number]).changed).into_iter().collect();
            for (done, page) in changed.chunks(PAGE).enumerate() {
                let batch = self.rows(page)?;
                if let Err(error) = store.commit(batch).await {
                    lock(&self.parts[number]).changed.extend(&changed[done * PAGE..]);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn rows(&self, changed: &[Id]) -> Result<Batch> {
        let mut batch = Batch::new();
        for id in changed {
            let key = Key::new().bytes(id);
            let row = self.part(id).entries.get_mut(id).filter(|entry| entry.place.is_none()).map(|entry| {
                entry.written = entry.used;
                CachedRow { size: entry.size, used: entry.used }
            });
            match row {
                Some(row) => CACHED.put(&mut batch, key, &row)?,
                None => CACHED.delete(&mut batch, key),
            }
        }
        Ok(batch)
    }

    fn part(&self, id: &Id) -> MutexGuard<'_, Part> {
        lock(&self.parts[usize::from(id[0] & 15)])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
