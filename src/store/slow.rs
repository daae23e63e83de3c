//! A store in memory whose answers take a while, for tests of changes that race.
//!
//! Tasks on one thread take turns wherever they wait for the store, in an order that a
//! seed decides. So a run over many seeds meets many orders, and a failing seed the
//! same one again.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::memory::Memory;
use super::{Batch, KeyRange, Outcome, Row, Store, TableId};
use crate::error::Result;

pub(crate) struct Slow {
    rows: Memory,
    state: AtomicU64,
}

impl Slow {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rows: Memory::new(), state: AtomicU64::new(seed) }
    }

    /// Lets the others go on for none to three turns. The numbers are those of SplitMix64.
    async fn wait(&self) {
        let state = self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mut turns = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 62;
        while turns > 0 {
            tokio::task::yield_now().await;
            turns -= 1;
        }
    }
}

impl Store for Slow {
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.wait().then(move |()| self.rows.get(table, key)).boxed()
    }

    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        self.wait().then(move |()| self.rows.scan(table, range, limit)).boxed()
    }

    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        self.wait().then(move |()| self.rows.scan_back(table, range, limit)).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>> {
        self.wait().then(move |()| self.rows.commit(batch)).boxed()
    }
}
