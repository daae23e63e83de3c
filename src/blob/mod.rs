//! Content by digest: hosted blobs, which are truth, and cached ones, which are not.
//!
//! A blob is a file named by the SHA-256 of its content; it is written once and never
//! changed. Both kinds lie in one place, so a package that is cached and later hosted
//! is stored once. What makes a blob hosted is a row of the truth that names it; what
//! makes it cached is an entry of the cache's index. Without either it is an orphan,
//! of a publish that failed or a crash, and a sweep removes it.
//!
//! - `disk` knows files and folders, `index` the cached blobs, `lease` what is in use.
//! - [`BlobWriter`] stores bytes, [`Blob`] reads them, [`Spool`] lets many read what is
//!   still being fetched. `session` is a blob that is written over several requests.
//! - `sweep` removes, `verify` checks.
//!
//! The disk has to hold the truth first: cached blobs stop being written when free
//! space falls to [`Config::hosted_reserve_bytes`], and are evicted, longest unused
//! first, down to [`Config::cache_limit_bytes`] and [`Config::cache_limit_files`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use self::behind::Behind;
use self::disk::{Disk, FreeSpace, failed};
use self::index::Index;
use self::journal::Journal;
use self::lease::Leases;
use self::open::{Open, OpenFiles};
use self::read::{Buffers, PROOF_HOLDS, Proof, Proved, Stamp};
use self::segment::{Place, Segments};
use self::spool::frames::Frames;
use self::write::Sink;
use crate::clock::Clock;
use crate::digest::{Algorithm, Digest, Digests};
use crate::error::{Error, Result, Subject};
use crate::http::HeaderValue;
use crate::http::conditional::entity_tag;
use crate::http::file::StoredFile;
use crate::store::{Batch, Store};

mod behind;
mod disk;
mod index;
mod journal;
mod lease;
mod open;
mod read;
mod segment;
mod session;
mod spool;
mod sweep;
mod verify;
mod write;

pub use lease::Lease;
pub use read::Blob;
pub use session::{Holder, SessionWriter};
pub use spool::{Expect, Filler, Finished, Kept, Spool};
pub use sweep::{EvictReport, SweepReport};
pub use verify::VerifyReport;
pub use write::{BlobWriter, Opened, Staged};

/// Limits of the blob storage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Free disk space that only hosted blobs may use.
    pub hosted_reserve_bytes: u64,
    /// Free disk space that not even hosted blobs may use: it is the metadata's, which has to take
    /// note of deletions and revoked tokens on a full disk too.
    pub metadata_reserve_bytes: u64,
    /// Total size of cached blobs that eviction keeps to.
    pub cache_limit_bytes: u64,
    /// Number of cached blobs that eviction keeps to. Each takes about 150 bytes of memory.
    pub cache_limit_files: u64,
    /// How far all fills together may run ahead of the disk, in memory.
    pub spool_ahead_bytes: u64,
    /// How much of a fill stays in memory for its readers after it was written.
    pub spool_window_bytes: u64,
    /// Small blobs that wait, in memory, to be written.
    pub write_behind_bytes: u64,
    /// Size from which on a file that holds many small cached blobs is not added to. Such a file is removed once nothing of
    /// it is cached any more; while less than half of it is, the rest is copied to another.
    pub segment_bytes: u64,
    /// Size of each of the two files in which small hosted blobs are synced together.
    pub journal_bytes: u64,
    /// Size of the parts in which files are written.
    pub write_coalesce_bytes: u64,
    /// Largest blob that is kept in memory.
    pub small_limit_bytes: u64,
    /// Total size of the blobs that are kept in memory.
    pub small_cache_bytes: u64,
    /// Most files that stay open to be sent again; each takes a file descriptor.
    pub open_limit_files: usize,
    /// Memory for buffers that are waiting to be used again.
    pub idle_buffer_bytes: u64,
    /// How long a blob stays leased after its lease was dropped.
    pub lease_seconds: u64,
    /// Most files that sweeping and evicting remove in a second: after mass removal, ext4 makes
    /// new files ten times slower for half a minute.
    pub remove_files_per_second: u32,
    /// Most uploads over several requests that are under way at once.
    pub upload_sessions: usize,
    /// Most of them of one user.
    pub upload_sessions_per_user: usize,
    /// How long such an upload is kept that nobody goes on with.
    pub upload_idle_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosted_reserve_bytes: 1 << 30,
            metadata_reserve_bytes: 64 << 20,
            cache_limit_bytes: 20 << 30,
            cache_limit_files: 1_000_000,
            spool_ahead_bytes: 64 << 20,
            spool_window_bytes: 4 << 20,
            write_behind_bytes: 16 << 20,
            segment_bytes: 64 << 20,
            journal_bytes: 8 << 20,
            write_coalesce_bytes: 1 << 20,
            small_limit_bytes: 64 << 10,
            small_cache_bytes: 256 << 20,
            open_limit_files: 512,
            idle_buffer_bytes: 8 << 20,
            lease_seconds: 300,
            remove_files_per_second: 500,
            upload_sessions: 10_000,
            upload_sessions_per_user: 2000,
            upload_idle_seconds: 3600,
        }
    }
}

/// What a blob is stored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A publish: the blob must survive anything the disk survives.
    Hosted,
    /// A copy of what an upstream has.
    Cached,
}

/// The blobs of a data directory. Cheap to clone.
#[derive(Clone)]
pub struct Blobs(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    disk: Arc<Disk>,
    leases: Arc<Leases>,
    store: Arc<dyn Store>,
    index: Index,
    segments: Arc<Segments>,
    behind: Behind,
    journal: Journal,
    frames: Arc<Frames>,
    small: quick_cache::sync::Cache<Id, Small, SmallWeight>,
    open: OpenFiles,
    buffers: Arc<Buffers>,
    proved: Proved,
    /// Fills in progress; they share [`Config::spool_ahead_bytes`].
    fills: AtomicUsize,
    sessions: session::Sessions,
}

/// A blob in memory, with its entity tag as each answer says it.
#[derive(Clone)]
struct Small {
    bytes: Bytes,
    etag: HeaderValue,
}

/// What a blob in memory costs.
#[derive(Clone)]
struct SmallWeight;

impl quick_cache::Weighter<Id, Small> for SmallWeight {
    fn weight(&self, _: &Id, small: &Small) -> u64 {
        // An entry costs about this much besides its bytes.
        small.bytes.len() as u64 + 300
    }
}

/// How much the blobs take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Cached blobs.
    pub cached_count: u64,
    /// Total size of the cached blobs.
    pub cached_bytes: u64,
    /// Free space of the disk; zero if it cannot be found out.
    pub free_bytes: u64,
    /// Whether the disk has no room for hosted blobs of any size to speak of.
    pub full: bool,
}

/// Size up to which a blob is proved before its first byte leaves and not while it does: a client
/// then gets another copy, or an error in words, instead of a broken connection.
const PROVED_FIRST_BYTES: u64 = 1 << 20;

/// Size up to which a blob is taken into memory when it is read for the second time within a while. At 200 KB memory and
/// `sendfile` cost about the same (1.07 to 1.15 against 1.22 of nginx's CPU time, the latter one run); at 1 MB `sendfile` is clearly
/// cheaper (`server::sendfile`).
const MEMORY_MOST_BYTES: u64 = 256 << 10;

/// The SHA-256 that names a blob.
type Id = [u8; 32];

impl Blobs {
    /// Opens the blobs under the data directory `root`, making its folders if they are absent,
    /// and removes temporary files that a crash has left. `index` is the cache's store.
    ///
    /// No other process may use the directory; the lock of the stores in it sees to that.
    ///
    /// # Errors
    /// When a folder cannot be made or opened, or the index cannot be read.
    pub async fn open(root: &Path, index: Arc<dyn Store>, clock: Clock, config: Config) -> Result<Self> {
        Self::open_with(root, index, clock, config, Box::new(disk::free_space)).await
    }

    async fn open_with(root: &Path, store: Arc<dyn Store>, clock: Clock, config: Config, free: FreeSpace) -> Result<Self> {
        let root = root.to_path_buf();
        let (journal_bytes, largest, segment_bytes) = (config.journal_bytes, config.small_limit_bytes, config.segment_bytes);
        let (disk, journal, (segments, placed)) = blocking(move || {
            let disk = Arc::new(Disk::open(&root, free).map_err(failed)?);
            let journal = Journal::open(&disk, journal_bytes, largest).map_err(failed)?;
            let segments = Segments::open(&disk, segment_bytes).map_err(failed)?;
            Ok((disk, journal, segments))
        })
        .await?;
        let segments = Arc::new(segments);
        let index = Index::load(&*store, Arc::clone(&segments), placed).await?;
        // A guess at how many there will be; only the weight is a limit.
        let expected = usize::try_from(config.small_cache_bytes / (16 << 10)).unwrap_or(usize::MAX);
        let small = quick_cache::sync::Cache::with_weighter(expected, config.small_cache_bytes, SmallWeight);
        let idle = usize::try_from(config.idle_buffer_bytes).unwrap_or(usize::MAX) / read::CHUNK;
        Ok(Self(Arc::new(Inner {
            leases: Arc::new(Leases::new(clock.clone(), Duration::from_secs(config.lease_seconds))),
            disk,
            journal,
            open: OpenFiles::new(config.open_limit_files),
            buffers: Arc::new(Buffers::new(idle)),
            proved: Proved::default(),
            frames: Arc::new(Frames::new(config.spool_ahead_bytes)),
            behind: Behind::new(config.write_behind_bytes),
            fills: AtomicUsize::new(0),
            sessions: session::Sessions::default(),
            config,
            clock,
            store,
            index,
            segments,
            small,
        })))
    }

    /// Begins a blob of at most `limit_bytes`. `further` are the digests wanted besides SHA-256.
    ///
    /// # Errors
    /// None today; a full disk shows at the first write.
    #[expect(clippy::unused_async, reason = "a remote tier will have to wait here")]
    pub async fn create(&self, purpose: Purpose, further: &[Algorithm], limit_bytes: u64) -> Result<BlobWriter> {
        Ok(BlobWriter::new(self.clone(), purpose, further, limit_bytes))
    }

    /// Stores bytes at hand.
    ///
    /// # Errors
    /// As [`BlobWriter::write`] and [`Staged::keep`].
    pub async fn put(&self, purpose: Purpose, bytes: Bytes) -> Result<Lease> {
        if self.is_journaled(purpose, bytes.len() as u64) {
            let lease = self.keep_together(Digests::only(Digest::sha256(&bytes)), bytes.clone()).await?;
            self.remember(lease.digest(), bytes);
            return Ok(lease);
        }
        let blobs = self.clone();
        blocking(move || {
            let mut sink = Sink::new(&blobs, purpose, &[]);
            let frames = [bytes];
            sink.write(&frames)?;
            let [bytes] = frames;
            let digests = sink.digests();
            let file = sink.finish()?;
            let lease = Staged::new(blobs.clone(), purpose, digests, bytes.len() as u64, file).keep_now()?;
            blobs.remember(lease.digest(), bytes);
            Ok(lease)
        })
        .await
    }

    /// Opens a blob to read; `None` if there is none. A small one is checked against its digest
    /// when it is taken into memory, a large one while it is read.
    ///
    /// A cached blob that turns out to be damaged is put away and counts as absent, so that it is
    /// fetched again.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when the disk fails or a hosted blob is damaged.
    pub async fn read(&self, digest: &Digest) -> Result<Option<Blob>> {
        if let Some(blob) = self.at_hand(digest) {
            return Ok(Some(blob));
        }
        let Some(id) = id_of(digest) else { return Ok(None) };
        let Inner { open, index, .. } = &*self.0;
        if let Some(file) = open.get(&id, PROOF_HOLDS).filter(|file| file.size() <= MEMORY_MOST_BYTES) {
            // Its second reader within a while; where memory is the better way, there will be more.
            let bytes = Box::pin(file.read_whole()).await.map_err(failed)?;
            return self.keep_in_memory(id, digest, bytes).map(Some);
        }
        if let Some(bytes) = self.0.behind.get(&id) {
            // Its second user; it is in memory already.
            let etag = entity_tag(digest, None);
            self.0.small.insert(id, Small { bytes: bytes.clone(), etag: etag.clone() });
            return Ok(Some(Blob::memory(*digest, bytes, etag)));
        }
        // Boxed, so that the future of a hit is small.
        Box::pin(self.read_file(id, digest, index.get(&id).map(|(size, _)| size))).await
    }

    /// A blob that can be sent without waiting: it is in memory, or it is large and its file is open and proved.
    /// `None` says nothing of whether there is one.
    #[must_use]
    pub fn at_hand(&self, digest: &Digest) -> Option<Blob> {
        let id = id_of(digest)?;
        let Inner { small, open, index, clock, .. } = &*self.0;
        index.touch(&id, clock);
        if let Some(Small { bytes, etag }) = small.get(&id) {
            return Some(Blob::memory(*digest, bytes, etag));
        }
        let file = open.get(&id, PROOF_HOLDS).filter(|file| file.size() > MEMORY_MOST_BYTES)?;
        Some(Blob::file(*digest, file, None))
    }

    /// As [`Blobs::read`], of what is neither in memory nor open.
    async fn read_file(&self, id: Id, digest: &Digest, expected: Option<u64>) -> Result<Option<Blob>> {
        let Inner { open, index, disk, config, buffers, proved, .. } = &*self.0;
        while let Some((place, size)) = index.place(&id) {
            if let Some(bytes) = self.read_placed(place, size, digest).await {
                return self.keep_in_memory(id, digest, bytes).map(Some);
            }
            // It may have been copied to another place meanwhile.
            if index.place(&id) == Some((place, size)) {
                tracing::error!(%digest, "a cached blob is damaged");
                index.forget(&id);
            }
        }
        // What lay in a segment says nothing of a file of that name.
        let expected = expected.filter(|_| index.get(&id).is_some());
        // Opening takes 2 µs when the name is in the kernel's cache; a thread's hop would cost three times that.
        let Some(file) = disk.blob(&id).map_err(failed)? else {
            index.forget(&id);
            return Ok(None);
        };
        let stamp = Stamp::of(&file).map_err(failed)?;
        let size = stamp.size();
        if expected.is_some_and(|expected| expected != size) {
            return self.damaged(&id, digest);
        }
        let file = Arc::new(StoredFile::new(file, size, Arc::clone(buffers)));
        if size <= config.small_limit_bytes {
            let bytes = file.read_whole().await.map_err(failed)?;
            if Digest::sha256(&bytes) != *digest {
                return self.damaged(&id, digest);
            }
            return self.keep_in_memory(id, digest, bytes).map(Some);
        }
        let proof = match proved.get(&id, stamp) {
            Some(outcome) if outcome.right => {
                open.keep(id, Open { file: Arc::clone(&file), stamp, proved: outcome.when });
                self.unless_removed(&id)?;
                None
            }
            Some(_) => return self.damaged(&id, digest),
            None => Some(Proof { blobs: self.clone(), digest: *digest, stamp }),
        };
        let mut blob = Blob::file(*digest, file, proof);
        if size <= PROVED_FIRST_BYTES && !blob.prove().await? {
            return Ok(None);
        }
        Ok(Some(blob))
    }

    /// The bytes of a blob in a segment; `None` if they are not there or not right.
    async fn read_placed(&self, place: Place, size: u64, digest: &Digest) -> Option<Bytes> {
        let data = self.0.segments.data(place)?;
        let read = self.0.buffers.read_exact(&data, place.offset, size).await;
        let bytes = read.inspect_err(|error| tracing::warn!(%error, "a segment cannot be read")).ok()?;
        (Digest::sha256(&bytes) == *digest).then_some(bytes)
    }

    /// Takes a blob that is proved into memory.
    fn keep_in_memory(&self, id: Id, digest: &Digest, bytes: Bytes) -> Result<Blob> {
        let etag = entity_tag(digest, None);
        self.0.small.insert(id, Small { bytes: bytes.clone(), etag: etag.clone() });
        self.0.open.forget(&id);
        self.unless_removed(&id)?;
        Ok(Blob::memory(*digest, bytes, etag))
    }

    /// Drops what was just kept of a blob that is gone: whoever removed it may have done so before that was kept.
    fn unless_removed(&self, id: &Id) -> Result<()> {
        if self.0.index.place(id).is_none() && self.0.disk.size(id).map_err(failed)?.is_none() {
            self.forget_content(id);
        }
        Ok(())
    }

    /// Drops what is kept of a blob's content besides its file.
    fn forget_content(&self, id: &Id) {
        self.0.small.remove(id);
        self.0.open.forget(id);
    }

    /// Keeps a blob from removal while the lease lives. Take it first and look whether the blob
    /// is there afterwards.
    #[must_use]
    pub fn lease(&self, digest: &Digest) -> Lease {
        // A digest of another algorithm names no blob; the lease is then of something that is not there.
        let id = id_of(digest).unwrap_or_default();
        self.0.leases.take(id, *digest, || self.0.disk.size(&id).ok().flatten().unwrap_or(0))
    }

    /// Whether there is such a blob, as a file of its own: what is hosted always is one.
    ///
    /// # Errors
    /// When the disk fails.
    #[expect(clippy::unused_async, reason = "a remote tier will have to wait here")]
    pub async fn contains(&self, digest: &Digest) -> Result<bool> {
        match id_of(digest) {
            Some(id) => Ok(self.0.disk.size(&id).map_err(failed)?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether a blob can be read here: as [`Blobs::contains`], with those that are in a segment or about to be.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn holds(&self, digest: &Digest) -> Result<bool> {
        match id_of(digest) {
            Some(id) if self.0.behind.get(&id).is_some() || self.0.index.place(&id).is_some() => Ok(true),
            _ => self.contains(digest).await,
        }
    }

    /// Removes a blob at once, whoever refers to it. `false` if it is leased and stays.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove(&self, digest: &Digest) -> Result<bool> {
        let Some(id) = id_of(digest) else { return Ok(true) };
        let blobs = self.clone();
        blocking(move || blobs.remove_now(&id)).await
    }

    /// Enters a blob that is stored already in the cache's index, as used just now.
    pub fn mark_cached(&self, digest: &Digest, size: u64) {
        if let Some(id) = id_of(digest) {
            self.0.index.enter(id, size, self.0.clock.now());
        }
    }

    /// Puts what the index knows of a cached blob into the batch that will refer to it. So who finds the reference
    /// after a crash finds a blob that may be damaged as a cached one, to be fetched again. When the batch cannot be
    /// committed, [`Blobs::mark_cached`] has the row written later.
    ///
    /// # Errors
    /// When the row cannot be written down.
    pub fn put_row(&self, batch: &mut Batch, digest: &Digest) -> Result<()> {
        id_of(digest).map_or(Ok(()), |id| self.0.index.put_row(batch, &id))
    }

    /// Commits rows that refer to a cached blob, and what the index knows of it; see [`Blobs::put_row`].
    async fn commit_row(&self, digest: &Digest, size: u64, mut rows: Batch) {
        let committed = match self.put_row(&mut rows, digest) {
            Ok(()) => self.0.store.commit(rows).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            tracing::error!(?error, "recording a kept file failed");
            self.mark_cached(digest, size);
        }
    }

    /// Writes new cached blobs, and when they were used, to the index, and gives idle memory back.
    ///
    /// # Errors
    /// When the store fails; what was not written is tried again by the next flush.
    pub async fn flush(&self) -> Result<()> {
        self.0.frames.shrink();
        self.0.index.flush(&*self.0.store).await
    }

    /// How much the blobs take.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let free_bytes = self.0.disk.free().unwrap_or(0);
        // Publishes stop before they reach the reserve, by as much as they have yet to write.
        let full = free_bytes < self.0.config.metadata_reserve_bytes.saturating_add(self.0.config.write_coalesce_bytes);
        Usage { cached_count: self.0.index.count(), cached_bytes: self.0.index.bytes(), free_bytes, full }
    }

    /// How many reads had to wait for the disk since this was last asked.
    #[must_use]
    pub fn take_cold_reads(&self) -> u64 {
        self.0.buffers.take_cold_reads()
    }

    fn remove_now(&self, id: &Id) -> Result<bool> {
        let Some(detached) = self.0.leases.unless_leased(id, || self.0.disk.detach(id)) else { return Ok(false) };
        self.0.index.forget(id);
        self.forget_content(id);
        drop(detached.map_err(failed)?);
        Ok(true)
    }

    /// Takes a small blob into memory.
    fn remember(&self, digest: &Digest, bytes: Bytes) {
        if let Some(id) = id_of(digest)
            && bytes.len() as u64 <= self.0.config.small_limit_bytes
        {
            self.0.small.insert(id, Small { bytes, etag: entity_tag(digest, None) });
        }
    }

    fn damaged(&self, id: &Id, digest: &Digest) -> Result<Option<Blob>> {
        tracing::error!(%digest, "a blob is damaged");
        self.forget_content(id);
        if !self.0.index.forget(id) {
            return Err(Error::internal(Subject::Blob, format!("{digest} is damaged")));
        }
        let name = hex::encode(id);
        self.0.disk.quarantine(disk::Folder::Shard(id[0]), name.as_bytes()).map_err(failed)?;
        Ok(None)
    }
}

/// The name of the blob with a digest; `None` for an algorithm that names no blobs.
fn id_of(digest: &Digest) -> Option<Id> {
    match digest.algorithm() {
        Algorithm::Sha256 => Id::try_from(digest.bytes()).ok(),
        _ => None,
    }
}

fn digest_of(id: &Id) -> Digest {
    Digest::new(Algorithm::Sha256, id).unwrap_or_else(|_| Digest::sha256(&[]))
}

/// Runs work that waits for the disk on a thread for such work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(Subject::Blob, error)))
}

#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod segment_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upkeep_tests;
