//! The default store: one redb file, one writer thread, group commit.
//!
//! One durable commit costs one or two waits for the disk, whatever it holds, so
//! the writer takes all batches that are waiting into one transaction: 64
//! publishers at once got ten times the commits of one after the other. A lone batch
//! is committed alone and at once; where several came together just before, the next
//! group is given a moment to gather too.
//!
//! Truth is in a journal before it is acknowledged (see `journal`), and in the file itself every few seconds. That
//! commit is made with redb's quick-repair, which writes in two phases and saves the allocator's state: a crash,
//! and a crash during the recovery from it, keep every acknowledged batch, and opening again walks no tree. The cache
//! file has no journal: what it loses is fetched again.
//!
//! The first error of the disk stops all writing until the file is opened anew:
//! after a failed sync nobody can say which pages the disk holds, and a second try
//! may report success for pages that the kernel has dropped. Reads go on: see `aside`.
//! So that a full disk is no such error, changes are refused while there is still
//! [`Config::disk_reserve_bytes`] of room, and taken again when there is more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ::redb::{Database, ReadableDatabase as _, StorageBackend, TableDefinition, TableError};
use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot};

use self::journal::{Journal, Medium, OnDisk};
use self::writer::{Waiting, Writer};
use super::{Batch, Change, KeyRange, Outcome, Row, Store, TableId, holds_nothing};
use crate::error::{Error, Kind, Result, Subject};

mod aside;
mod journal;
mod writer;

/// Limits of a redb store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory for pages of the file.
    pub page_cache_bytes: u64,
    /// Most rows of one transaction. A larger single batch is still committed whole.
    pub group_rows: usize,
    /// Most batches that wait for the writer; further ones wait before the queue.
    pub queue_batches: usize,
    /// Largest key and largest value.
    pub record_limit_bytes: u64,
    /// Free disk space below which no change is taken: a write that fails half way would end all
    /// writing until the file is opened anew, and a refusal ends nothing.
    pub disk_reserve_bytes: u64,
    /// Longest time that a file's commits stay unsynced. Those of truth are in its journal meanwhile, which is always synced.
    pub flush_seconds: u64,
    /// How long the journal of truth becomes before the file is synced. The next start after a crash applies what is in it.
    pub journal_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            page_cache_bytes: 64 << 20,
            group_rows: 1000,
            queue_batches: 4096,
            record_limit_bytes: 64 << 20,
            disk_reserve_bytes: 16 << 20,
            flush_seconds: 5,
            journal_bytes: 16 << 20,
        }
    }
}

/// What a committed batch survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the machine at any later instant.
    Truth,
    /// A crash of the machine once [`Config::flush_seconds`] have passed.
    Cache,
}

/// A store in one redb file.
pub struct Redb {
    /// Taken when the store is dropped.
    database: Option<Arc<Database>>,
    /// What is read once writing has stopped, if the file can still be opened.
    aside: OnceLock<Option<Database>>,
    path: Option<PathBuf>,
    page_cache_bytes: u64,
    /// Taken by [`Redb::close`].
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    places: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    stopped: Arc<AtomicBool>,
    record_limit_bytes: u64,
}

impl Redb {
    /// Opens or makes the file at `path` and starts its writer. One process at a time may have it open.
    ///
    /// Reads the disk, so it belongs before the serving of requests or on a blocking thread.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when the file is in use, damaged, of another format, or cannot be opened.
    pub fn open(path: &Path, config: &Config, durability: Durability) -> Result<Self> {
        let journal = (durability == Durability::Truth).then(|| Box::new(OnDisk::of(path)) as Box<dyn Medium>);
        Self::start(Some(path), config, durability, journal, |builder| {
            if !path.try_exists()? {
                create(builder, path)?;
            }
            builder.open(path)
        })
    }

    /// As [`Redb::open`], on any storage. There is no journal: each commit of truth is synced.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub fn open_backend(backend: impl StorageBackend, config: &Config, durability: Durability) -> Result<Self> {
        Self::start(None, config, durability, None, |builder| builder.create_with_backend(backend))
    }

    fn start(
        path: Option<&Path>,
        config: &Config,
        durability: Durability,
        journal: Option<Box<dyn Medium>>,
        open: impl FnOnce(&mut ::redb::Builder) -> Result<Database, ::redb::DatabaseError>,
    ) -> Result<Self> {
        let refuse = |cause: String| {
            let name = path.map(|path| path.display().to_string()).unwrap_or_default();
            let cause = format!("cannot open the store {name}: {cause}");
            Error::new(Kind::Unavailable, Subject::Store).saying("the store cannot be opened").because(cause)
        };
        let mut builder = Database::builder();
        builder.set_cache_size(usize::try_from(config.page_cache_bytes).unwrap_or(usize::MAX));
        // redb checks what it reads, but a hostile file may still trip an assertion of it.
        let limit = usize::try_from(config.journal_bytes).unwrap_or(usize::MAX);
        let open = || {
            let database = open(&mut builder)?;
            let journal = journal.map(|medium| Journal::open(&database, medium, limit)).transpose()?;
            Ok::<_, ::redb::Error>((database, journal))
        };
        let (database, journal) = catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| refuse("the file is damaged".to_owned()))?
            .map_err(|error| refuse(error.to_string()))?;
        let database = Arc::new(database);
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let writer = Writer {
            database: Arc::clone(&database),
            journal,
            queue: receiver,
            stopped: Arc::clone(&stopped),
            durability,
            group_rows: config.group_rows,
            flush: Duration::from_secs(config.flush_seconds),
            unsynced_since: None,
            last: (0, Duration::ZERO),
            room: path.map(|path| (path.to_path_buf(), config.disk_reserve_bytes)),
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run());
        Ok(Self {
            database: Some(database),
            aside: OnceLock::new(),
            path: path.map(Path::to_path_buf),
            page_cache_bytes: config.page_cache_bytes,
            queue: Mutex::new(Some(sender)),
            places: Arc::new(Semaphore::new(config.queue_batches.clamp(1, Semaphore::MAX_PERMITS))),
            writer: Mutex::new(Some(thread.map_err(|error| refuse(error.to_string()))?)),
            stopped,
            record_limit_bytes: config.record_limit_bytes,
        })
    }

    /// Commits what waits, syncs the file and ends the writer. Later commits answer
    /// [`Kind::Unavailable`]; reads go on. Blocks for as long as the disk takes.
    pub fn close(&self) {
        drop(lock(&self.queue).take());
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            // A writer that panicked has set `stopped`; there is nothing to add.
            let _ = writer.join();
        }
    }

    /// Whether an error of the disk has ended all writing until the file is opened anew.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    async fn queue(&self, batch: Batch) -> Result<Outcome> {
        batch.check()?;
        self.check_sizes(&batch)?;
        if self.is_stopped() {
            return Err(unavailable("writing has stopped after an error of the disk"));
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| unavailable("the store is closed"))?;
        let (reply, answer) = oneshot::channel();
        let sent = match &*lock(&self.queue) {
            Some(queue) => queue.send(Waiting { batch, reply, place }).is_ok(),
            None => false,
        };
        if !sent {
            return Err(unavailable("the store is closed"));
        }
        answer.await.unwrap_or_else(|_| Err(unavailable("the writer has ended")))
    }

    fn check_sizes(&self, batch: &Batch) -> Result<()> {
        let longest = batch.changes.iter().map(|change| match change {
            Change::Put(_, key, value) => key.len().max(value.len()),
            Change::Delete(_, key) => key.len(),
        });
        if longest.max().unwrap_or(0) as u64 > self.record_limit_bytes {
            return Err(
                Error::new(Kind::TooLarge, Subject::Store).saying(format!("a record is larger than {} bytes", self.record_limit_bytes))
            );
        }
        Ok(())
    }

    /// The database to read from.
    fn readable(&self) -> Option<&Database> {
        if !self.is_stopped() {
            return self.database.as_deref();
        }
        let open = || {
            let path = self.path.as_deref()?;
            let opened = aside::open(path, self.page_cache_bytes).map_err(::redb::Error::from).and_then(|database| {
                journal::bring_up(&database, &OnDisk::of(path))?;
                Ok(database)
            });
            opened.inspect_err(|error| tracing::error!(%error, "the store cannot be read aside")).ok()
        };
        // Without it, what is in memory can still be read.
        self.aside.get_or_init(open).as_ref().or(self.database.as_deref())
    }

    fn read<T>(&self, table: TableId, none: T, read: impl FnOnce(Rows) -> Result<T, ::redb::StorageError>) -> Result<T> {
        let read = || {
            let Some(database) = self.readable() else { return Err(unavailable("the store is closed")) };
            let transaction = database.begin_read().map_err(failed)?;
            match transaction.open_table(definition(table)) {
                Ok(rows) => read(rows).map_err(failed),
                Err(TableError::TableDoesNotExist(_)) => Ok(none),
                Err(error) => Err(failed(error)),
            }
        };
        // A damaged page may trip an assertion of redb; that is no worse than an error of the disk.
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(unavailable("the store is damaged")))
    }

    fn rows(
        &self,
        table: TableId,
        range: &KeyRange,
        take: impl FnOnce(::redb::Range<'_, &'static [u8], &'static [u8]>) -> Result<Vec<Row>, ::redb::StorageError>,
    ) -> Result<Vec<Row>> {
        self.read(table, Vec::new(), |rows| {
            if holds_nothing(range) {
                return Ok(Vec::new());
            }
            let range = (range.0.as_ref().map(|key| &key[..]), range.1.as_ref().map(|key| &key[..]));
            take(rows.range::<&[u8]>(range)?)
        })
    }
}

type Rows = ::redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Store for Redb {
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        let value = self.read(table, None, |rows| Ok(rows.get(key)?.map(|value| Bytes::copy_from_slice(value.value()))));
        future::ready(value).boxed()
    }

    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        future::ready(self.rows(table, &range, |rows| rows.take(limit).map(copy).collect())).boxed()
    }

    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        future::ready(self.rows(table, &range, |rows| rows.rev().take(limit).map(copy).collect())).boxed()
    }

    /// A commit whose future is dropped after its batch was queued is still made.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>> {
        self.queue(batch).boxed()
    }
}

type Guard<'a> = ::redb::AccessGuard<'a, &'static [u8]>;

fn copy(row: Result<(Guard<'_>, Guard<'_>), ::redb::StorageError>) -> Result<Row, ::redb::StorageError> {
    row.map(|(key, value)| (Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
}

impl Drop for Redb {
    fn drop(&mut self) {
        self.close();
        let database = self.database.take();
        // The writer is gone, so this closes the file. On a damaged file that may panic; what could be synced was.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// Makes a new file under another name first: a crash while redb lays it out would leave one that is no database.
fn create(builder: &::redb::Builder, path: &Path) -> Result<(), ::redb::DatabaseError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unfinished = Path::new(&name);
    match std::fs::remove_file(unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    drop(builder.create(unfinished)?);
    std::fs::rename(unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

fn definition(table: TableId) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.0)
}

fn unavailable(message: &'static str) -> Error {
    Error::new(Kind::Unavailable, Subject::Store).saying(message)
}

fn failed(error: impl Into<::redb::Error>) -> Error {
    unavailable("the store cannot be read").because(error.into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
