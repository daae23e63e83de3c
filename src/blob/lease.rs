//! Leases: what must not be removed because somebody is about to refer to it.
//!
//! A publish stores its blobs first and commits the rows that name them later. In
//! between, and when it finds a blob that is there already, only its lease stands
//! between the blob and a sweep. Taking a lease and taking a blob's name away are
//! under one lock, so a blob is either leased in time or gone when the lease is there.
//!
//! A lease ends some time after it was dropped, since a sweep may go by a list of
//! references that was read before the commit. For the same reason a sweep removes
//! only what it had found unreferenced once before and nobody has leased since.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Id;
use crate::clock::{Clock, Timestamp};
use crate::digest::Digest;

/// Keeps a blob from removal for as long as it lives, and some time more.
pub struct Lease {
    leases: Arc<Leases>,
    id: Id,
    digest: Digest,
    size: u64,
}

impl Lease {
    /// The blob.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The blob's size in bytes; zero if there was no such blob when the lease was taken.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("digest", &self.digest).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.release(&self.id);
    }
}

/// All leases of a data directory, and the sweep's candidates.
pub(super) struct Leases {
    clock: Clock,
    grace: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    held: HashMap<Id, Held>,
    /// Ended entries are dropped when the table has grown to this.
    tidy_at: usize,
    candidates: HashSet<Id>,
}

#[derive(Clone, Copy)]
struct Held {
    count: usize,
    /// For a count of zero: when the grace ends.
    until: Timestamp,
}

impl Leases {
    pub(super) fn new(clock: Clock, grace: Duration) -> Self {
        Self { clock, grace, table: Mutex::default() }
    }

    /// Takes a lease; `size` is found out under it.
    pub(super) fn take(self: &Arc<Self>, id: Id, digest: Digest, size: impl FnOnce() -> u64) -> Lease {
        let mut table = self.lock();
        table.held.entry(id).or_insert(Held { count: 0, until: Timestamp::default() }).count += 1;
        table.candidates.remove(&id);
        drop(table);
        let mut lease = Lease { leases: Arc::clone(self), id, digest, size: 0 };
        lease.size = size();
        lease
    }

    /// Runs `act` unless the blob is leased. No lease can be taken meanwhile, so it must be short.
    pub(super) fn unless_leased<T>(&self, id: &Id, act: impl FnOnce() -> T) -> Option<T> {
        let table = self.lock();
        (!table.is_leased(id, self.clock.now())).then(act)
    }

    /// As [`Leases::unless_leased`], and only if the blob is a candidate of the last sweep.
    pub(super) fn if_candidate<T>(&self, id: &Id, act: impl FnOnce() -> T) -> Option<T> {
        let table = self.lock();
        (table.candidates.contains(id) && !table.is_leased(id, self.clock.now())).then(act)
    }

    /// Notes a blob as unreferenced, unless it is leased.
    pub(super) fn suspect(&self, id: &Id) -> bool {
        let mut table = self.lock();
        !table.is_leased(id, self.clock.now()) && table.candidates.insert(*id)
    }

    /// Forgets candidates that a sweep has not seen unreferenced again.
    pub(super) fn retain_candidates(&self, seen: &HashSet<Id>) {
        self.lock().candidates.retain(|id| seen.contains(id));
    }

    fn release(&self, id: &Id) {
        let now = self.clock.now();
        let mut table = self.lock();
        if let Some(held) = table.held.get_mut(id) {
            held.count = held.count.saturating_sub(1);
            held.until = now.plus(self.grace);
        }
        if table.held.len() >= table.tidy_at {
            table.held.retain(|_, held| held.count > 0 || held.until > now);
            table.tidy_at = table.held.len() * 2 + 1024;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn is_leased(&self, id: &Id, now: Timestamp) -> bool {
        self.held.get(id).is_some_and(|held| held.count > 0 || held.until > now)
    }
}
