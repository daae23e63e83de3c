//! A store in memory for this floor's tests.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use crate::error::Result;
use crate::store::{Batch, Change, Condition, KeyRange, Outcome, Row, Store, TableId};

#[derive(Default)]
pub(crate) struct Rows(Mutex<BTreeMap<TableId, BTreeMap<Bytes, Bytes>>>);

impl Rows {
    pub(crate) fn values(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().values().flat_map(|rows| rows.values().cloned()).collect()
    }
}

impl Store for Rows {
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        ready(Ok(self.0.lock().unwrap().get(&table).and_then(|rows| rows.get(key)).cloned())).boxed()
    }

    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        let tables = self.0.lock().unwrap();
        let rows = tables.get(&table).map(|rows| rows.range(range).take(limit).map(|(key, value)| (key.clone(), value.clone())).collect());
        ready(Ok(rows.unwrap_or_default())).boxed()
    }

    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        let tables = self.0.lock().unwrap();
        let rows =
            tables.get(&table).map(|rows| rows.range(range).rev().take(limit).map(|(key, value)| (key.clone(), value.clone())).collect());
        ready(Ok(rows.unwrap_or_default())).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>> {
        let mut tables = self.0.lock().unwrap();
        let value = |table: &TableId, key: &Bytes| tables.get(table).and_then(|rows| rows.get(key));
        for (condition, wanted) in batch.conditions.iter().enumerate() {
            let holds = match wanted {
                Condition::Absent(table, key) => value(table, key).is_none(),
                Condition::Equals(table, key, expected) => value(table, key) == Some(expected),
            };
            if !holds {
                return ready(Ok(Outcome::Conflict { condition })).boxed();
            }
        }
        let mut named = std::collections::HashSet::new();
        for change in batch.changes {
            let (table, key, value) = match change {
                Change::Put(table, key, value) => (table, key, Some(value)),
                Change::Delete(table, key) => (table, key, None),
            };
            assert!(named.insert((table, key.clone())), "a batch changes a key once");
            let rows = tables.entry(table).or_default();
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        ready(Ok(Outcome::Committed)).boxed()
    }
}
