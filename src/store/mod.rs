//! The metadata store: ordered keys, conditional batches, nothing else.
//!
//! Domain logic is written once over `get`, `scan` (forth or back) and `commit`. A change of truth
//! is a [`Batch`]: a value built by plain functions, committed at once or not at
//! all. Back ends are small and pass one suite. Counters are not in the interface:
//! under compare-and-swap they need many tries, so sums are kept in memory and
//! references are rows.

use std::collections::HashSet;
use std::ops::Bound;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::{Error, Result, Subject};

pub mod memory;
pub mod redb;
#[cfg(test)]
pub(crate) mod slow;
#[cfg(test)]
mod suite;
pub mod table;

/// A named key space. Each back end keeps key spaces apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub &'static str);

/// What must hold for a batch to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key has no value.
    Absent(TableId, Bytes),
    /// The key has exactly this value.
    Equals(TableId, Bytes, Bytes),
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the value of a key.
    Put(TableId, Bytes, Bytes),
    /// Removes a key; an absent key is fine.
    Delete(TableId, Bytes),
}

/// Conditions and changes that are applied together or not at all.
///
/// A batch may change a key once; building one that does so twice is a defect and
/// is refused by [`Store::commit`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// All are made.
    pub changes: Vec<Change>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in another batch's conditions and changes.
    pub fn extend(&mut self, other: Self) {
        self.conditions.extend(other.conditions);
        self.changes.extend(other.changes);
    }

    /// Refuses a batch that changes one key twice: which change counts would be an accident of order.
    fn check(&self) -> Result<()> {
        let mut keys = HashSet::with_capacity(self.changes.len());
        for Change::Put(table, key, _) | Change::Delete(table, key) in &self.changes {
            if !keys.insert((*table, key)) {
                return Err(Error::internal(Subject::Store, format!("a batch changes a key of table {} twice", table.0)));
            }
        }
        Ok(())
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is applied and, by the store's durability, safe.
    Committed,
    /// Nothing was changed: this condition, by its place in the batch, did not hold.
    Conflict {
        /// Index into [`Batch::conditions`].
        condition: usize,
    },
}

/// A half-open or bounded range of keys.
pub type KeyRange = (Bound<Bytes>, Bound<Bytes>);

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// An ordered key-value store with conditional batches.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// Rows of a range in key order, at most `limit`. One scan is one snapshot.
    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>>;

    /// Rows of a range in reverse key order, at most `limit`: the last ones first. One scan is one snapshot.
    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>>;

    /// Applies a batch. When the future is ready with [`Outcome::Committed`], the
    /// batch survives a crash (of `state`; `cache` may lose the last moments).
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>>;
}

/// The range of all keys that begin with `prefix`.
#[must_use]
pub fn prefix(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return (Bound::Included(Bytes::copy_from_slice(prefix)), Bound::Excluded(end.into()));
        }
        end.pop();
    }
    (Bound::Included(Bytes::copy_from_slice(prefix)), Bound::Unbounded)
}

/// Whether a range can hold no key at all. The ordered maps underneath panic on some of these.
fn holds_nothing((start, end): &KeyRange) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}
