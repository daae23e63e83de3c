//! What makes a group of batches durable before its pages are: one write and one sync of a file beside the store's.
//!
//! A durable commit of redb writes some fifty pages for a group of publishes, waits for the disk twice and saves the
//! allocator's state, which grows with the file: about 1 ms of CPU, whatever the group holds. So a group is
//! appended here, synced, and then committed without waiting for the disk. Every few seconds, and when the journal is
//! full, one commit is durable, and the journal begins anew.
//!
//! ```text
//! record      magic, run, sequence, length, SHA-256, then the changes; begins on a block of its own
//! change      kind, table, key, value; lengths in four bytes, little end first
//! ```
//!
//! Why nothing that was acknowledged is lost: a group is answered after its record was synced, and records are
//! overwritten only after a durable commit of everything that they tell of. That commit notes the sequence of the last
//! record in it. Opening the store applies the records that follow upon that one, in their order, up to the first that is
//! not whole. Changes set and remove keys and ask for nothing, so applying one again changes nothing.
//!
//! Each opening draws a new name for its run, which its first commit, a durable one, notes and its records bear. So
//! what stands in the file from before, or belongs to another store or to a later state of a restored one, says nothing.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ::redb::{Database, ReadableDatabase as _, TableDefinition, TableError, WriteTransaction};
use rand::TryRng as _;

use crate::digest::Digest;
use crate::store::{Batch, Change};

const MAGIC: [u8; 8] = *b"ph-batch";
/// What the digest is of besides the changes: run, sequence and length.
const NAMED: usize = 16 + 8 + 8;
/// Magic, what is named, digest.
const HEADER: usize = 8 + NAMED + 32;
/// What the disk may tear or lose as one.
const BLOCK: usize = 4096;
/// By how much the file grows: to write over what is there is cheaper than to append, which changes the file's length too.
const GROWTH: usize = 1 << 20;
/// Memory that is kept for the next record.
const KEPT: usize = 1 << 20;

/// Where the store says which records are in it.
const NOTES: TableDefinition<&str, &[u8]> = TableDefinition::new("store.journal");
const NOTE: &str = "committed";

/// The name of a run.
type Run = [u8; 16];

/// Where a journal is kept.
pub(super) trait Medium: Send {
    /// What stands from a position on, at most so many bytes; fewer at the end.
    fn read(&self, position: usize, length: usize) -> io::Result<Vec<u8>>;

    /// Writes, and waits until that is on disk.
    fn write(&mut self, position: usize, bytes: &[u8]) -> io::Result<()>;
}

/// A journal in a file, which is made by the first record.
pub(super) struct OnDisk {
    path: PathBuf,
    file: Option<(File, usize)>,
}

impl OnDisk {
    /// The journal of the store at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.with_extension("journal"), file: None }
    }

    fn open(path: &Path) -> io::Result<(File, usize)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok((file, length))
    }
}

impl Medium for OnDisk {
    fn read(&self, position: usize, length: usize) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        file.seek(SeekFrom::Start(position as u64))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        let (file, length) = match self.file.take() {
            Some(open) => open,
            None => Self::open(&self.path)?,
        };
        let (file, length) = self.file.insert((file, length));
        let end = position + bytes.len();
        if end > *length {
            let grown = end.next_multiple_of(GROWTH);
            file.write_all_at(&vec![0; grown - *length], *length as u64)?;
            *length = grown;
        }
        file.write_all_at(bytes, position as u64)?;
        file.sync_data()
    }
}

/// The journal of an open store.
pub(super) struct Journal {
    medium: Box<dyn Medium>,
    run: Run,
    /// Of the last record.
    sequence: u64,
    /// Where the next record goes; past every limit until the run is noted.
    position: usize,
    limit_bytes: usize,
    record: Vec<u8>,
}

impl Journal {
    /// Opens the journal of a store, and brings the store up to it.
    pub(super) fn open(database: &Database, medium: Box<dyn Medium>, limit_bytes: usize) -> Result<Self, ::redb::Error> {
        let mut journal = Self { medium, run: drawn()?, sequence: 0, position: usize::MAX, limit_bytes, record: Vec::new() };
        if let Some((run, sequence)) = note(database)? {
            let mut transaction = database.begin_write()?;
            let last = replay(&transaction, &*journal.medium, run, sequence)?;
            if last > sequence {
                tracing::info!(groups = last - sequence, "the store takes in what its journal holds");
                transaction.set_quick_repair(true);
                journal.note(&transaction)?;
                transaction.commit()?;
                journal.restart();
            } else {
                transaction.abort()?;
            }
        }
        Ok(journal)
    }

    /// Appends a group, and waits until it is on disk. `false` if there is no room for it.
    pub(super) fn append<'a>(&mut self, batches: impl Iterator<Item = &'a Batch>) -> io::Result<bool> {
        let room = self.limit_bytes.saturating_sub(self.position);
        self.record.clear();
        self.record.resize(HEADER, 0);
        for change in batches.flat_map(|batch| &batch.changes) {
            encode(&mut self.record, change)?;
            if self.record.len() > room {
                self.record = Vec::new();
                return Ok(false);
            }
        }
        let sequence = self.sequence + 1;
        seal(&mut self.record, self.run, sequence);
        self.record.resize(self.record.len().next_multiple_of(BLOCK), 0);
        self.medium.write(self.position, &self.record)?;
        (self.sequence, self.position) = (sequence, self.position + self.record.len());
        if self.record.len() > KEPT {
            self.record = Vec::new();
        }
        Ok(true)
    }

    /// Writes into a transaction that is to be durable that it has everything up to the last record.
    pub(super) fn note(&self, transaction: &WriteTransaction) -> Result<(), ::redb::Error> {
        let value = [&self.run[..], &self.sequence.to_be_bytes()[..]].concat();
        transaction.open_table(NOTES)?.insert(NOTE, &value[..])?;
        Ok(())
    }

    /// Begins anew: the store has everything durably.
    pub(super) fn restart(&mut self) {
        self.position = 0;
    }
}

/// Applies the records that a store has not got, if there are any.
pub(super) fn bring_up(database: &Database, medium: &dyn Medium) -> Result<(), ::redb::Error> {
    if let Some((run, sequence)) = note(database)? {
        let transaction = database.begin_write()?;
        replay(&transaction, medium, run, sequence)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Whose records follow upon what the store has durably, and upon which of them.
fn note(database: &Database) -> Result<Option<(Run, u64)>, ::redb::Error> {
    let notes = match database.begin_read()?.open_table(NOTES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        notes => notes?,
    };
    let Some(value) = notes.get(NOTE)? else { return Ok(None) };
    let parts = value.value().split_first_chunk::<16>().and_then(|(run, rest)| Some((*run, u64::from_be_bytes(rest.try_into().ok()?))));
    parts.map(Some).ok_or_else(|| io::Error::other("the store's note of its journal is malformed").into())
}

fn drawn() -> io::Result<Run> {
    let mut run = [0; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut run).map_err(io::Error::other)?;
    Ok(run)
}

/// Applies the records that follow upon `sequence`; gives the sequence of the last.
fn replay(transaction: &WriteTransaction, medium: &dyn Medium, run: Run, sequence: u64) -> Result<u64, ::redb::Error> {
    let (mut last, mut position) = (sequence, 0);
    let mut tables = HashMap::new();
    while let Some(changes) = unsealed(medium, position, run, last + 1)? {
        let mut rest = &changes[..];
        while !rest.is_empty() {
            let (change, behind) = decode(rest).ok_or_else(|| io::Error::other("a record of the journal is malformed"))?;
            rest = behind;
            if !tables.contains_key(change.table) {
                tables.insert(change.table.to_owned(), transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(change.table))?);
            }
            if let Some(table) = tables.get_mut(change.table) {
                match change.value {
                    Some(value) => table.insert(change.key, value)?,
                    None => table.remove(change.key)?,
                };
            }
        }
        last += 1;
        position += (HEADER + changes.len()).next_multiple_of(BLOCK);
    }
    Ok(last)
}

/// Fills in the header of a record.
fn seal(record: &mut [u8], run: Run, sequence: u64) {
    let length = (record.len() - HEADER) as u64;
    let (header, changes) = record.split_at_mut(HEADER);
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&run);
    header[24..32].copy_from_slice(&sequence.to_le_bytes());
    header[32..40].copy_from_slice(&length.to_le_bytes());
    let digest = digest(&header[8..8 + NAMED], changes);
    header[8 + NAMED..].copy_from_slice(digest.bytes());
}

/// The changes of the record at a position, if it is whole, of this run and of this sequence.
fn unsealed(medium: &dyn Medium, position: usize, run: Run, sequence: u64) -> io::Result<Option<Vec<u8>>> {
    let header = medium.read(position, HEADER)?;
    let number = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let length = number(32).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|_| header.len() == HEADER && header[..8] == MAGIC && header[8..24] == run) else {
        return Ok(None);
    };
    if number(24) != Some(sequence) {
        return Ok(None);
    }
    let changes = medium.read(position + HEADER, length)?;
    let whole = changes.len() == length && digest(&header[8..8 + NAMED], &changes).bytes() == &header[8 + NAMED..];
    Ok(whole.then_some(changes))
}

fn digest(named: &[u8], changes: &[u8]) -> Digest {
    let mut hasher = crate::digest::Hasher::new(&[]);
    hasher.update(named);
    hasher.update(changes);
    hasher.finish().sha256
}

/// A change as it stands in a record; a removal has no value.
struct Found<'a> {
    table: &'a str,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

fn encode(record: &mut Vec<u8>, change: &Change) -> io::Result<()> {
    let (table, key, value) = match change {
        Change::Put(table, key, value) => (table, key, Some(value)),
        Change::Delete(table, key) => (table, key, None),
    };
    record.push(u8::from(value.is_some()));
    for part in [Some(table.0.as_bytes()), Some(&key[..]), value.map(|value| &value[..])].into_iter().flatten() {
        record.extend_from_slice(&u32::try_from(part.len()).map_err(io::Error::other)?.to_le_bytes());
        record.extend_from_slice(part);
    }
    Ok(())
}

/// The first change, and what follows it.
fn decode(bytes: &[u8]) -> Option<(Found<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (table, rest) = part(rest)?;
    let (key, rest) = part(rest)?;
    let (value, rest) = if *kind == 0 { (None, rest) } else { part(rest).map(|(value, rest)| (Some(value), rest))? };
    Some((Found { table: std::str::from_utf8(table).ok()?, key, value }, rest))
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}
