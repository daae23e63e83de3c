//! Small cached blobs on their way to the disk.
//!
//! Making a file costs 30 to 40 µs and a hop to a blocking thread 6 µs and more, while the
//! readers of a small body need only its hash. So it is queued here when they have it,
//! and one thread writes all that has queued up meanwhile. The queue is bounded in bytes,
//! and who finds it full waits before its readers get their last byte, so that the disk sets the
//! pace. What a crash finds in the queue is fetched again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::disk::{self, failed, full};
use super::{Blobs, Lease};
use crate::digest::Digest;
use crate::error::{Error, Result, Subject};

/// What is waiting.
pub(super) struct Behind {
    queue: Mutex<Queue>,
    /// Room, in KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a thread is at work.
    busy: bool,
}

/// A blob that is to be written, and who waits for that.
struct Waiting {
    digest: Digest,
    bytes: Bytes,
    done: oneshot::Sender<Result<Lease>>,
    _place: OwnedSemaphorePermit,
}

impl Behind {
    /// A queue that holds at most so many bytes.
    pub(super) fn new(limit_bytes: u64) -> Self {
        let room_kib = u32::try_from(limit_bytes >> 10).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self { queue: Mutex::default(), room: Arc::new(Semaphore::new(room_kib as usize)), room_kib }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs {
    /// Waits for room for so many bytes in the queue.
    pub(super) async fn place_behind(&self, size: u64) -> Result<OwnedSemaphorePermit> {
        let behind = &self.0.behind;
        let kib = u32::try_from(size >> 10).unwrap_or(u32::MAX).saturating_add(1).min(behind.room_kib);
        let place = Arc::clone(&behind.room).acquire_many_owned(kib).await;
        place.map_err(|error| Error::internal(Subject::Blob, error))
    }

    /// Queues a cached blob, whose digest is proved, and waits until it is kept. It is written also if nobody waits.
    pub(super) async fn keep_behind(&self, digest: Digest, bytes: Bytes, place: OwnedSemaphorePermit) -> Result<Lease> {
        let (done, kept) = oneshot::channel();
        let idle = {
            let mut queue = self.0.behind.lock();
            queue.waiting.push_back(Waiting { digest, bytes, done, _place: place });
            !std::mem::replace(&mut queue.busy, true)
        };
        if idle {
            let run = Run(self.clone());
            tokio::task::spawn_blocking(move || run.run());
        }
        kept.await.unwrap_or_else(|_| Err(Error::internal(Subject::Blob, "writing behind broke off")))
    }

    fn write_behind(&self, digest: &Digest, bytes: &Bytes) -> Result<Lease> {
        let disk = &self.0.disk;
        let (temporary, file) = disk.temporary().map_err(failed)?;
        disk::append(&file, std::slice::from_ref(bytes)).map_err(failed)?;
        let lease = self.place_cached(digest, bytes.len() as u64, temporary, &file)?;
        self.remember(digest, bytes.clone());
        Ok(lease)
    }
}

/// A thread's work on the queue. When it panics, what waits is dropped, and who waits for it is told.
struct Run(Blobs);

impl Run {
    fn run(self) {
        while let Some(batch) = self.next() {
            let bytes: u64 = batch.iter().map(|waiting| waiting.bytes.len() as u64).sum();
            let roomy = self.0.has_room(bytes);
            for Waiting { digest, bytes, done, _place } in batch {
                let kept = if roomy { self.0.write_behind(&digest, &bytes) } else { Err(full()) };
                // Nobody may be waiting any more; the blob is kept all the same.
                let _ = done.send(kept);
            }
        }
    }

    /// All that waits. When there is nothing the work ends in the same instant.
    fn next(&self) -> Option<VecDeque<Waiting>> {
        let mut queue = self.0.0.behind.lock();
        queue.busy = !queue.waiting.is_empty();
        queue.busy.then(|| std::mem::take(&mut queue.waiting))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.0.behind.lock() = Queue::default();
        }
    }
}
