//! A store in memory: for tests, and the model that other back ends are checked against.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt as _};

use super::{Batch, Change, Condition, KeyRange, Outcome, Row, Store, TableId, holds_nothing};
use crate::error::Result;

type Tables = BTreeMap<TableId, BTreeMap<Bytes, Bytes>>;

/// An ordered map behind a mutex. Nothing survives the process.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Tables>);

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> T {
        // A panic elsewhere cannot leave the maps half changed: `apply` cannot panic between two changes.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        let value = self.with(|tables| tables.get(&table).and_then(|rows| rows.get(key)).cloned());
        future::ready(Ok(value)).boxed()
    }

    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        let rows = self.with(|tables| match tables.get(&table) {
            Some(rows) if !holds_nothing(&range) => {
                rows.range(range).take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
            }
            _ => Vec::new(),
        });
        future::ready(Ok(rows)).boxed()
    }

    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        let rows = self.with(|tables| match tables.get(&table) {
            Some(rows) if !holds_nothing(&range) => {
                rows.range(range).rev().take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
            }
            _ => Vec::new(),
        });
        future::ready(Ok(rows)).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>> {
        let outcome = batch.check().map(|()| self.with(|tables| apply(tables, batch)));
        future::ready(outcome).boxed()
    }
}

fn apply(tables: &mut Tables, batch: Batch) -> Outcome {
    let value = |table: &TableId, key: &Bytes| tables.get(table).and_then(|rows| rows.get(key));
    let broken = batch.conditions.iter().position(|condition| match condition {
        Condition::Absent(table, key) => value(table, key).is_some(),
        Condition::Equals(table, key, expected) => value(table, key) != Some(expected),
    });
    if let Some(condition) = broken {
        return Outcome::Conflict { condition };
    }
    for change in batch.changes {
        match change {
            Change::Put(table, key, value) => {
                tables.entry(table).or_default().insert(key, value);
            }
            Change::Delete(table, key) => {
                tables.entry(table).or_default().remove(&key);
            }
        }
    }
    Outcome::Committed
}

/// A store whose disk is gone.
#[cfg(test)]
pub(crate) struct Failing;

#[cfg(test)]
impl Store for Failing {
    fn get<'a>(&'a self, _: TableId, _: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        future::ready(Err(gone())).boxed()
    }

    fn scan(&self, _: TableId, _: KeyRange, _: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        future::ready(Err(gone())).boxed()
    }

    fn scan_back(&self, _: TableId, _: KeyRange, _: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        future::ready(Err(gone())).boxed()
    }

    fn commit(&self, _: Batch) -> BoxFuture<'_, Result<Outcome>> {
        future::ready(Err(gone())).boxed()
    }
}

#[cfg(test)]
fn gone() -> crate::error::Error {
    crate::error::Error::internal(crate::error::Subject::Store, "no disk")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Memory;

    crate::store::suite::store_suite!(|| (Arc::new(Memory::new()), ()));
}
