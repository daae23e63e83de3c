//! Small hosted blobs become durable together.
//!
//! A file survives a loss of power once its content, its inode and its folder are synced:
//! two calls, each with its own waits for the disk and its share of CPU, for a tarball of a
//! few hundred bytes. So what is small is first appended to a journal, all that waits in
//! one write and one `fdatasync`, and then made a file that nobody waits to see synced.
//!
//! ```text
//! journal/0, journal/1    taken in turn; of fixed size, so that a sync writes nothing but their data
//! record                  magic, generation, length, SHA-256, then the blob
//! ```
//!
//! Why nothing that was acknowledged is lost: a blob is acknowledged after its record was
//! synced, and the record is overwritten only after a `syncfs` that began when the blob's file had
//! its name. Until then each start puts right what the loss of power left of the file, before
//! anybody reads. An older file of that name, which may be acknowledged too, is replaced only
//! after the sync, so it never makes way for content that is nowhere on disk. A group begins
//! on a block of its own: writing it touches no block of an earlier one.
//!
//! When the journal fails, each blob is synced by itself, as large ones are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::disk::{Disk, failed, full};
use super::write::Staged;
use super::{Blobs, Id, Lease, Purpose, id_of};
use crate::digest::{Digest, Digests};
use crate::error::{Error, Result, Subject};

const MAGIC: [u8; 8] = *b"ph-blob1";
/// Magic, generation, length and digest.
const HEADER: usize = 8 + 8 + 8 + 32;
/// What the disk may tear or lose as one.
const BLOCK: usize = 4096;

/// How long a stop waits for what is under way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The journal and what waits for it.
pub(super) struct Journal {
    queue: Mutex<Queue>,
    /// Told when the thread at work has ended.
    idle: Condvar,
    pages: Mutex<Pages>,
    /// It failed, so blobs are synced one by one.
    broken: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Whether a thread is at work.
    busy: bool,
}

/// A blob that is to be kept, and who waits for that.
struct Waiting {
    digests: Digests,
    bytes: Bytes,
    done: oneshot::Sender<Result<Lease>>,
}

/// The two files.
struct Pages {
    disk: Arc<Disk>,
    bytes: usize,
    generation: u64,
    current: usize,
    /// Where the next group goes in the current file.
    position: usize,
    files: [Option<File>; 2],
    /// Whether what a file's records stand for is on disk, if that is under way.
    checkpoints: [Option<mpsc::Receiver<io::Result<()>>>; 2],
}

impl Journal {
    /// A journal in files of so many bytes. Puts right what the last run left in them. Blocks.
    pub(super) fn open(disk: &Arc<Disk>, bytes: u64, largest: u64) -> io::Result<Self> {
        let least = (HEADER as u64).saturating_add(largest).saturating_add(2 * BLOCK as u64);
        let bytes = usize::try_from(bytes.max(least)).unwrap_or(usize::MAX) / BLOCK * BLOCK;
        let generation = recover(disk)?;
        let pages =
            Pages { disk: Arc::clone(disk), bytes, generation, current: 0, position: 0, files: [None, None], checkpoints: [None, None] };
        Ok(Self { queue: Mutex::default(), idle: Condvar::new(), pages: Mutex::new(pages), broken: AtomicBool::new(false) })
    }

    /// Makes the first of these blobs durable, as many as there is room for; gives their number, or zero when the journal cannot do it.
    fn append(&self, blobs: &[Waiting]) -> usize {
        if self.broken.load(Ordering::Acquire) {
            return 0;
        }
        lock(&self.pages).append(blobs).unwrap_or_else(|error| {
            // What the file holds is not known now, and a second sync may report success for pages that the kernel has dropped.
            self.broken.store(true, Ordering::Release);
            tracing::error!(%error, "the journal of small blobs failed; they are synced one by one until the next start");
            0
        })
    }

    /// Empties it once all is on disk, so that the next start has nothing to look at. Later blobs are synced one by one. Blocks.
    pub(super) fn close(&self) -> io::Result<()> {
        let was_broken = self.broken.swap(true, Ordering::AcqRel);
        // Who is at work may have blobs in the journal whose files have no name yet.
        let waited = self.idle.wait_timeout_while(lock(&self.queue), CLOSE_PATIENCE, |queue| queue.busy);
        let busy = waited.unwrap_or_else(PoisonError::into_inner).0.busy;
        if was_broken || busy { Ok(()) } else { lock(&self.pages).close() }
    }
}

impl Pages {
    fn append(&mut self, blobs: &[Waiting]) -> io::Result<usize> {
        let length = |blob: &Waiting| HEADER + blob.bytes.len();
        if blobs.first().is_some_and(|first| blocks(length(first)) > self.bytes - self.position) {
            self.turn()?;
        }
        let (mut group, mut count) = (Vec::new(), 0);
        for blob in blobs {
            if blocks(group.len() + length(blob)) > self.bytes - self.position {
                break;
            }
            group.extend_from_slice(&MAGIC);
            group.extend_from_slice(&self.generation.to_le_bytes());
            group.extend_from_slice(&(blob.bytes.len() as u64).to_le_bytes());
            group.extend_from_slice(blob.digests.sha256.bytes());
            group.extend_from_slice(&blob.bytes);
            count += 1;
        }
        self.write(group)?;
        Ok(count)
    }

    /// Writes a group and waits until it is on disk.
    fn write(&mut self, mut group: Vec<u8>) -> io::Result<()> {
        group.resize(blocks(group.len()), 0);
        let position = self.position as u64;
        let file = self.file()?;
        file.write_all_at(&group, position)?;
        file.sync_data()?;
        self.position += group.len();
        Ok(())
    }

    /// The current file; it is made when it is first asked for.
    fn file(&mut self) -> io::Result<&File> {
        let file = match self.files[self.current].take() {
            Some(file) => file,
            None => self.disk.journal_file(self.current, self.bytes)?,
        };
        Ok(self.files[self.current].insert(file))
    }

    /// Goes on with the other file, once all that its records stand for is on disk. The blobs of the current one have their files.
    fn turn(&mut self) -> io::Result<()> {
        let (told, done) = mpsc::channel();
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || {
            // Who waits may be gone, with the process.
            let _ = told.send(disk.sync_all());
        });
        self.checkpoints[self.current] = Some(done);
        self.current = 1 - self.current;
        if let Some(checkpoint) = self.checkpoints[self.current].take() {
            checkpoint.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        }
        self.position = 0;
        self.generation += 1;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        if self.files.iter().any(Option::is_some) {
            self.disk.sync_all()?;
            (0..2).try_for_each(|number| self.disk.clear_journal(number))?;
        }
        Ok(())
    }
}

impl Blobs {
    /// Keeps a small hosted blob together with all others that wait. It is kept also if nobody waits.
    pub(super) async fn keep_together(&self, digests: Digests, bytes: Bytes) -> Result<Lease> {
        let (done, kept) = oneshot::channel();
        let idle = {
            let mut queue = lock(&self.0.journal.queue);
            queue.waiting.push(Waiting { digests, bytes, done });
            !std::mem::replace(&mut queue.busy, true)
        };
        if idle {
            let run = Run(self.clone());
            tokio::task::spawn_blocking(move || run.run());
        }
        kept.await.unwrap_or_else(|_| Err(Error::internal(Subject::Blob, "keeping a blob broke off")))
    }

    /// Empties the journal, when the server stops. Waits for the disk.
    pub fn close_journal(&self) {
        if let Err(error) = self.0.journal.close() {
            tracing::warn!(%error, "the journal of small blobs is left to the next start");
        }
    }

    /// Whether a blob is made durable by the journal.
    pub(super) fn is_journaled(&self, purpose: Purpose, size: u64) -> bool {
        purpose == Purpose::Hosted && size <= self.0.config.small_limit_bytes
    }

    /// Gives a blob that the journal holds its file.
    fn place_journaled(&self, digest: Digest, bytes: &Bytes) -> Result<Lease> {
        let id = id_of(&digest).ok_or_else(|| Error::internal(Subject::Blob, "not a SHA-256"))?;
        // Before the name exists, so that no sweep can see it without the lease.
        let lease = self.0.leases.take(id, digest, || bytes.len() as u64);
        self.0.disk.place(&id, bytes).map_err(failed)?;
        // From now on the truth may name it, so it is no longer the cache's to evict.
        self.0.index.forget(&id);
        Ok(lease)
    }
}

/// A thread's work on the queue. When it panics, what waits is dropped, and who waits for it is told.
struct Run(Blobs);

impl Run {
    fn run(self) {
        while let Some(group) = self.next() {
            self.keep(group);
        }
    }

    fn keep(&self, group: Vec<Waiting>) {
        let blobs = &self.0;
        let bytes: u64 = group.iter().map(|waiting| waiting.bytes.len() as u64).sum();
        let free = blobs.0.disk.free().map_err(failed);
        let roomy = free.map(|free| free >= blobs.0.config.metadata_reserve_bytes.saturating_add(bytes));
        let mut rest = group;
        while !rest.is_empty() {
            let durable = if matches!(roomy, Ok(true)) { blobs.0.journal.append(&rest) } else { 0 };
            let later = rest.split_off(if durable == 0 { rest.len() } else { durable });
            for Waiting { digests, bytes, done } in rest {
                let kept = match &roomy {
                    Err(error) => Err(error.repeat()),
                    Ok(false) => Err(full()),
                    Ok(true) if durable > 0 => blobs.place_journaled(digests.sha256, &bytes),
                    Ok(true) => Staged::in_memory(blobs.clone(), Purpose::Hosted, digests, bytes).keep_now(),
                };
                // Nobody may be waiting any more; the blob is kept all the same.
                let _ = done.send(kept);
            }
            rest = later;
        }
    }

    /// All that waits. When there is nothing the work ends in the same instant.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = lock(&self.0.0.journal.queue);
        queue.busy = !queue.waiting.is_empty();
        if !queue.busy {
            self.0.0.journal.idle.notify_all();
        }
        queue.busy.then(|| std::mem::take(&mut queue.waiting))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *lock(&self.0.0.journal.queue) = Queue::default();
        }
    }
}

/// Puts right every blob of the journal whose file is not as it should be, and empties the journal
/// once all is on disk. Gives a generation that no record has.
fn recover(disk: &Arc<Disk>) -> io::Result<u64> {
    let (mut last, mut found) = (0, false);
    for number in 0..2 {
        let Some(page) = disk.read_journal(number)? else { continue };
        for record in Records::of(&page) {
            (last, found) = (last.max(record.generation), true);
            if !disk.holds(&record.id, record.bytes)? {
                tracing::info!(blob = hex::encode(record.id), "a small blob is restored from the journal");
                disk.place(&record.id, record.bytes)?;
            }
        }
    }
    if found {
        disk.sync_all()?;
        (0..2).try_for_each(|number| disk.clear_journal(number))?;
    }
    Ok(last + 1)
}

/// A blob in the journal.
struct Record<'a> {
    generation: u64,
    id: Id,
    bytes: &'a [u8],
}

/// The records of a file, those of its first one's generation. Ends at what was not written whole.
struct Records<'a> {
    page: &'a [u8],
    position: usize,
    generation: Option<u64>,
}

impl<'a> Records<'a> {
    fn of(page: &'a [u8]) -> Self {
        Self { page, position: 0, generation: None }
    }

    fn record(&self) -> Option<Record<'a>> {
        let (magic, rest) = self.page.get(self.position..)?.split_first_chunk::<8>()?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let bytes = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let generation = u64::from_le_bytes(*generation);
        let sound = *magic == MAGIC && self.generation.is_none_or(|first| first == generation);
        (sound && Digest::sha256(bytes).bytes() == id).then_some(Record { generation, id: *id, bytes })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let record = self.record().or_else(|| {
            // The rest of a group's last block is empty.
            self.position = blocks(self.position);
            self.record()
        })?;
        self.generation = Some(record.generation);
        self.position += HEADER + record.bytes.len();
        Some(record)
    }
}

/// The length of whole blocks that hold so many bytes.
const fn blocks(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
