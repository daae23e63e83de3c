//! Small cached blobs on their way to the disk.
//!
//! A hop to a blocking thread costs 6 µs, waking one that sleeps more, a commit of its own 60,
//! while the readers of a small body need only its hash. So it is queued here when they have
//! it, and whoever fetched it is done: until it is written it is read from the queue. One
//! thread gives others a moment to gather, puts all that has queued up at the end of a file
//! (`segment`) in one go, and commits the rows that refer to it in one batch.
//! The queue is bounded in bytes, and who finds it full waits before its readers get their
//! last byte, so that the disk sets the pace. What a crash finds in the queue is fetched again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::disk::{failed, full};
use super::{Blobs, Id};
use crate::error::{Error, Result, Subject};
use crate::store::{Batch, Change};

/// How long a thread lets small bodies gather before it writes them, unless the queue fills up or somebody waits.
const GATHER: Duration = Duration::from_millis(10);

/// What is waiting.
pub(super) struct Behind {
    queue: Mutex<Queue>,
    /// Room, in KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
    /// Wakes the thread that lets them gather.
    hurry: Condvar,
    /// Wakes who waits until nothing is queued.
    idle: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// The bytes of what waits or is being written, and how often it does.
    unwritten: HashMap<Id, (Bytes, usize)>,
    /// Whether a thread is at work.
    busy: bool,
    /// Whether it should not wait for more.
    hurried: bool,
}

impl Queue {
    /// What was written, or could not be, is no longer read from here.
    fn forget(&mut self, round: &[Waiting]) {
        for Waiting { id, .. } in round {
            if let Entry::Occupied(mut unwritten) = self.unwritten.entry(*id) {
                unwritten.get_mut().1 -= 1;
                if unwritten.get().1 == 0 {
                    unwritten.remove();
                }
            }
        }
    }
}

/// A blob that is to be written, and the rows that refer to it.
struct Waiting {
    id: Id,
    bytes: Bytes,
    rows: Batch,
    _place: OwnedSemaphorePermit,
}

impl Behind {
    /// A queue that holds at most so many bytes.
    pub(super) fn new(limit_bytes: u64) -> Self {
        let room_kib = u32::try_from(limit_bytes >> 10).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self {
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(room_kib as usize)),
            room_kib,
            hurry: Condvar::new(),
            idle: Notify::new(),
        }
    }

    /// The bytes of a blob that is not written yet.
    pub(super) fn get(&self, id: &Id) -> Option<Bytes> {
        self.lock().unwritten.get(id).map(|(bytes, _)| bytes.clone())
    }

    /// Has what is queued written now.
    fn hurry(&self) {
        self.lock().hurried = true;
        self.hurry.notify_all();
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
        if let Ok(place) = Arc::clone(&behind.room).try_acquire_many_owned(kib) {
            if behind.room.available_permits() < behind.room_kib as usize / 2 {
                behind.hurry();
            }
            return Ok(place);
        }
        behind.hurry();
        let place = Arc::clone(&behind.room).acquire_many_owned(kib).await;
        place.map_err(|error| Error::internal(Subject::Blob, error))
    }

    /// Queues a cached blob, whose digest is proved, and the rows that are committed once it is written. From now on it can
    /// be read. When it cannot be written it is gone again, as if it were evicted.
    pub(super) fn keep_behind(&self, id: Id, bytes: Bytes, rows: Batch, place: OwnedSemaphorePermit) {
        let idle = {
            let mut queue = self.0.behind.lock();
            queue.unwritten.entry(id).or_insert_with(|| (bytes.clone(), 0)).1 += 1;
            queue.waiting.push(Waiting { id, bytes, rows, _place: place });
            !std::mem::replace(&mut queue.busy, true)
        };
        if idle {
            let run = Run(self.clone());
            tokio::task::spawn_blocking(move || run.run());
        }
    }

    /// Waits until every small blob that has come is written, and the rows that refer to it.
    pub async fn settle(&self) {
        loop {
            // Whoever is told only later has been told.
            let idle = self.0.behind.idle.notified();
            if !self.0.behind.lock().busy {
                return;
            }
            self.0.behind.hurry();
            idle.await;
        }
    }

    /// Writes what has gathered and commits the rows that refer to it, each key once, in order, as the store likes it best.
    fn write_round(&self, round: &mut [Waiting]) -> Result<()> {
        let mut blobs: BTreeMap<Id, Bytes> = round.iter().map(|waiting| (waiting.id, waiting.bytes.clone())).collect();
        // What is cached already was asked for by another name.
        blobs.retain(|id, _| self.0.index.place(id).is_none());
        let blobs: Vec<_> = blobs.into_iter().collect();
        if !self.has_room(blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum()) {
            return Err(full());
        }
        let now = self.0.clock.now();
        let places = self.0.segments.append(&blobs).map_err(failed)?;
        for ((id, bytes), place) in blobs.iter().zip(places) {
            self.0.index.enter_at(*id, place, bytes.len() as u64, now);
        }
        let mut changes = BTreeMap::new();
        for change in round.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.rows).changes) {
            let (Change::Put(table, key, _) | Change::Delete(table, key)) = &change;
            changes.insert((*table, key.clone()), change);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let rows = Batch { conditions: Vec::new(), changes: changes.into_values().collect() };
        Handle::current().block_on(self.0.store.commit(rows)).map(drop)
    }
}

/// A thread's work on the queue. When it panics, what waits is dropped.
struct Run(Blobs);

impl Run {
    fn run(self) {
        while let Some(mut round) = self.next() {
            if let Err(error) = self.0.write_round(&mut round) {
                tracing::warn!(?error, "small bodies were passed on without being stored");
            }
            self.0.0.behind.lock().forget(&round);
        }
    }

    /// All that waits, after a moment. When there is nothing the work ends in the same instant.
    fn next(&self) -> Option<Vec<Waiting>> {
        let behind = &self.0.0.behind;
        let mut queue = behind.lock();
        queue.busy = !queue.waiting.is_empty();
        if !queue.busy {
            queue.hurried = false;
            return None;
        }
        let gathered = behind.hurry.wait_timeout_while(queue, GATHER, |queue| !queue.hurried);
        let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        queue.hurried = false;
        Some(std::mem::take(&mut queue.waiting))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.0.behind.lock() = Queue::default();
        }
        self.0.0.behind.idle.notify_waiters();
    }
}
