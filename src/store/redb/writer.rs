//! The one thread that changes the file.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ::redb::{Database, ReadableTable as _, TableError, WriteTransaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::journal::Journal;
use super::{Durability, definition, unavailable};
use crate::error::Result;
use crate::store::{Batch, Change, Condition, Outcome, TableId};

/// Longest pause between two batches that go into one group, when others came in groups just before.
const GATHER_GAP: Duration = Duration::from_micros(500);
/// Longest time that a group is gathered for; nor is it longer than the last commit took.
const GATHER_MOST: Duration = Duration::from_millis(4);

/// A batch in the queue and whoever waits for its outcome.
pub(super) struct Waiting {
    pub batch: Batch,
    pub reply: oneshot::Sender<Result<Outcome>>,
    /// Given back once the batch is answered.
    pub place: OwnedSemaphorePermit,
}

impl Waiting {
    fn answer(self, outcome: Result<Outcome>) {
        // Nobody may be waiting any more; the outcome is the same.
        let _ = self.reply.send(outcome);
        drop(self.place);
    }
}

/// Takes batches from the queue and commits them in groups.
pub(super) struct Writer {
    pub database: Arc<Database>,
    /// What makes truth durable between durable commits; without one each commit is durable.
    pub journal: Option<Journal>,
    pub queue: mpsc::Receiver<Waiting>,
    pub stopped: Arc<AtomicBool>,
    pub durability: Durability,
    pub group_rows: usize,
    pub flush: Duration,
    /// When the first commit was made that is not synced yet.
    pub unsynced_since: Option<Instant>,
    /// How many batches the last group had, and how long its commit took.
    pub last: (usize, Duration),
    /// The file, and the free space its disk must have.
    pub room: Option<(PathBuf, u64)>,
}

impl Writer {
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Ok(first) => {
                    let group = self.group(first);
                    let (batches, since) = (group.len(), Instant::now());
                    self.answer(group);
                    self.last = (batches, since.elapsed());
                }
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
        }
    }

    /// Waits for a batch, but not past the time at which earlier commits must be synced.
    fn next(&self) -> Result<Waiting, RecvTimeoutError> {
        match self.unsynced_since {
            None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(since) => self.queue.recv_timeout(self.flush.saturating_sub(since.elapsed())),
        }
    }

    /// The batches that wait already, up to the limit of rows, and those that follow closely if the last group had several.
    ///
    /// A commit costs the most by being one, and of sixteen publishers on one core only four or five had come by the time
    /// the one before it was done. Who is alone is kept waiting for nobody.
    fn group(&self, first: Waiting) -> Vec<Waiting> {
        let crowded = self.last.0 > 1 && self.durability == Durability::Truth;
        let until = Instant::now() + if crowded { self.last.1.min(GATHER_MOST) } else { Duration::ZERO };
        let mut rows = first.batch.changes.len();
        let mut group = vec![first];
        while rows < self.group_rows && group.len() < self.group_rows {
            let left = until.saturating_duration_since(Instant::now()).min(GATHER_GAP);
            // Without time left this takes what is there.
            let Ok(next) = self.queue.recv_timeout(left) else { break };
            rows += next.batch.changes.len();
            group.push(next);
        }
        group
    }

    fn answer(&mut self, group: Vec<Waiting>) {
        if !self.has_room() {
            for waiting in group {
                waiting.answer(Err(unavailable("the disk is full")));
            }
            // What is not synced yet waits, and keeps the thread from looking without a pause.
            self.unsynced_since = self.unsynced_since.map(|_| Instant::now());
            return;
        }
        let due = self.unsynced_since.is_some_and(|since| since.elapsed() >= self.flush);
        let batches = group.iter().map(|waiting| &waiting.batch);
        let outcomes = self.guarded(|writer| writer.apply(batches, due));
        match outcomes {
            Ok(outcomes) => {
                for (waiting, outcome) in group.into_iter().zip(outcomes) {
                    waiting.answer(Ok(outcome));
                }
            }
            Err(cause) => {
                for waiting in group {
                    let error = unavailable("writing has stopped after an error of the disk").because(cause.clone());
                    waiting.answer(Err(error));
                }
            }
        }
    }

    /// Whether the disk has room for a transaction. A disk that does not say has.
    fn has_room(&self) -> bool {
        let Some((path, reserve_bytes)) = &self.room else { return true };
        rustix::fs::statvfs(path).map_or(true, |stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= *reserve_bytes)
    }

    fn sync(&mut self) {
        if self.unsynced_since.is_some() && !self.has_room() {
            self.unsynced_since = Some(Instant::now());
            return;
        }
        if self.unsynced_since.is_some() {
            // What went wrong is in the log.
            let _ = self.guarded(|writer| writer.apply(std::iter::empty(), true));
        }
    }

    /// Runs a transaction unless an earlier one failed. A failure, of any kind, is the last transaction.
    fn guarded<T>(&mut self, transaction: impl FnOnce(&mut Self) -> Result<T, ::redb::Error>) -> Result<T, String> {
        if self.stopped.load(Ordering::Acquire) {
            return Err("an earlier commit failed".to_owned());
        }
        let done = catch_unwind(AssertUnwindSafe(|| transaction(self)));
        let done = done.map_err(|_| "the storage engine panicked".to_owned()).and_then(|done| done.map_err(|error| error.to_string()));
        if let Err(cause) = &done {
            tracing::error!(cause, "the store stops writing until it is opened anew");
            self.stopped.store(true, Ordering::Release);
            self.unsynced_since = None;
        }
        done
    }

    /// Applies batches in order in one transaction. Each sees the ones before it. `due` says that what was committed
    /// must be synced now.
    fn apply<'a>(&mut self, batches: impl Iterator<Item = &'a Batch>, due: bool) -> Result<Vec<Outcome>, ::redb::Error> {
        let mut transaction = self.database.begin_write()?;
        let (mut outcomes, mut made) = (Vec::new(), Vec::new());
        {
            let mut tables = Tables { transaction: &transaction, open: HashMap::new() };
            for batch in batches {
                let outcome = tables.apply(batch)?;
                if outcome == Outcome::Committed && !batch.changes.is_empty() {
                    made.push(batch);
                }
                outcomes.push(outcome);
            }
        }
        // Nothing changed and nothing to sync: the outcomes are as true without a commit.
        if made.is_empty() && !due {
            transaction.abort()?;
            return Ok(outcomes);
        }
        let durable = due
            || match &mut self.journal {
                // Before anybody can read it.
                Some(journal) => !journal.append(made.into_iter())?,
                None => self.durability == Durability::Truth,
            };
        if durable {
            transaction.set_quick_repair(true);
            self.journal.iter().try_for_each(|journal| journal.note(&transaction))?;
        } else {
            transaction.set_durability(::redb::Durability::None)?;
        }
        transaction.commit()?;
        if durable && let Some(journal) = &mut self.journal {
            journal.restart();
        }
        self.unsynced_since = if durable { None } else { self.unsynced_since.or_else(|| Some(Instant::now())) };
        Ok(outcomes)
    }
}

/// The tables of a transaction that were touched. One is made by the first touch.
struct Tables<'a> {
    transaction: &'a WriteTransaction,
    open: HashMap<TableId, ::redb::Table<'a, &'static [u8], &'static [u8]>>,
}

impl<'a> Tables<'a> {
    fn apply(&mut self, batch: &Batch) -> Result<Outcome, ::redb::Error> {
        for (index, condition) in batch.conditions.iter().enumerate() {
            let holds = match condition {
                Condition::Absent(table, key) => self.table(*table)?.get(&key[..])?.is_none(),
                Condition::Equals(table, key, expected) => {
                    self.table(*table)?.get(&key[..])?.is_some_and(|value| value.value() == &expected[..])
                }
            };
            if !holds {
                return Ok(Outcome::Conflict { condition: index });
            }
        }
        for change in &batch.changes {
            match change {
                Change::Put(table, key, value) => self.table(*table)?.insert(&key[..], &value[..])?,
                Change::Delete(table, key) => self.table(*table)?.remove(&key[..])?,
            };
        }
        Ok(Outcome::Committed)
    }

    fn table(&mut self, table: TableId) -> Result<&mut ::redb::Table<'a, &'static [u8], &'static [u8]>, TableError> {
        use std::collections::hash_map::Entry;
        match self.open.entry(table) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(self.transaction.open_table(definition(table))?)),
        }
    }
}
