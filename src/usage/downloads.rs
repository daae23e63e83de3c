//! Counts of downloads: by version and by package, over all time and by day.
//!
//! Whoever serves a version's file holds its [`Count`] and adds to it, which is one
//! atomic addition. A count that is written stays in memory while anyone holds it,
//! so that nobody adds to one that no flush sees. Reading adds what is not written
//! yet to what is stored, so an answer is right at every moment. A download belongs
//! to the day on which it is written, which is seconds after it was made.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::RwLock;

use super::{Config, Day, Days};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Subject};
use crate::package::PackageId;
use crate::store::table::{Key, KeyParts, Table};
use crate::store::{Batch, Outcome, Store};

/// Over all time, by [`subject`].
static TOTALS: Table<u64> = Table::new("usage.downloads");
/// By [`subject`] and day.
static BY_DAY: Table<u64> = Table::new("usage.downloads_by_day");

/// Versions and packages written in one batch.
const CHUNK: usize = 256;
/// Tries of a chunk against other processes on the same store.
const TRIES: usize = 16;
/// Rows read or removed at once.
const PAGE: usize = 1000;

/// Downloads of one version that are not written yet.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn pending(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What has downloads: a version, or a package as the sum of all its versions.
type Counted = (PackageId, Option<String>);

/// Counts of versions, for each package.
#[derive(Default)]
struct Counts {
    packages: HashMap<PackageId, HashMap<String, Arc<Count>>>,
    versions: usize,
}

/// The downloads of all hosted versions.
pub struct Downloads {
    store: Arc<dyn Store>,
    clock: Clock,
    config: Config,
    counts: Mutex<Counts>,
    /// Taken for writing while counts become rows, so that no reader counts them twice or not at all.
    written: RwLock<()>,
}

impl Downloads {
    /// Counts on a state store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, config: Config) -> Self {
        Self { store, clock, config, counts: Mutex::default(), written: RwLock::default() }
    }

    /// The count of a version. Takes a lock, so whoever serves files asks once and remembers it.
    #[must_use]
    pub fn count(&self, package: PackageId, number: &str) -> Arc<Count> {
        let mut counts = self.counts();
        if let Some(count) = counts.packages.get(&package).and_then(|versions| versions.get(number)) {
            return Arc::clone(count);
        }
        let count = Arc::<Count>::default();
        if counts.versions < self.config.counted_versions {
            counts.versions += 1;
            counts.packages.entry(package).or_default().insert(number.to_owned(), Arc::clone(&count));
        }
        count
    }

    /// Downloads of a version, or of all versions of a package, over all time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn total(&self, package: PackageId, number: Option<&str>) -> Result<u64> {
        let _written = self.written.read().await;
        let stored = TOTALS.get(&*self.store, subject(package, number)).await?;
        Ok(stored.map_or(0, |stored| stored.value) + self.pending(package, number))
    }

    /// The versions of a package that were downloaded more often than a number of times, over all time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn above(&self, package: PackageId, limit: u64) -> Result<HashSet<String>> {
        let sums = self.by_version(package).await?;
        Ok(sums.into_iter().filter(|(_, sum)| *sum > limit).map(|(number, _)| number).collect())
    }

    /// Downloads of each version of a package that has any, over all time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_version(&self, package: PackageId) -> Result<HashMap<String, u64>> {
        let _written = self.written.read().await;
        let mut sums: HashMap<String, u64> = {
            let counts = self.counts();
            let versions = counts.packages.get(&package).into_iter().flatten();
            versions.map(|(number, count)| (number.clone(), count.pending())).collect()
        };
        let mut after = None;
        loop {
            let rows = TOTALS.scan(&*self.store, Key::new().number(package.0), after, PAGE).await?;
            for (key, stored) in &rows {
                if let (_, Some(number)) = counted_of(key)? {
                    *sums.entry(number).or_default() += stored.value;
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(sums),
            }
        }
    }

    /// Downloads by day, without the days that had none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_day(&self, package: PackageId, number: Option<&str>, days: Days) -> Result<BTreeMap<Day, u64>> {
        let _written = self.written.read().await;
        let first = days.first.max(self.oldest());
        let after = first.number().checked_sub(1).map(|day| subject(package, number).number(day).encode());
        let limit = usize::try_from(days.last.number().saturating_sub(first.number())).unwrap_or(usize::MAX).saturating_add(1);
        let rows = BY_DAY.scan(&*self.store, subject(package, number), after, limit).await?;
        let mut found = BTreeMap::new();
        for (key, stored) in rows {
            found.insert(day_of(&key)?, stored.value);
        }
        let pending = self.pending(package, number);
        if pending > 0 {
            *found.entry(Day::of(self.clock.now())).or_default() += pending;
        }
        found.retain(|day, _| (days.first..=days.last).contains(day));
        Ok(found)
    }

    /// Writes what was counted since the last time; returns of how many versions. For a
    /// periodic job and for the end of the process.
    ///
    /// # Errors
    /// When the store fails; what is not written is tried again next time.
    pub async fn flush(&self) -> Result<usize> {
        let _written = self.written.write().await;
        let taken = self.take();
        for chunk in taken.chunks(CHUNK) {
            let pending: Vec<u64> = chunk.iter().map(|(_, _, count)| count.pending()).collect();
            let mut sums: BTreeMap<Counted, u64> = BTreeMap::new();
            for ((package, number, _), downloads) in chunk.iter().zip(&pending) {
                *sums.entry((*package, Some(number.clone()))).or_default() += downloads;
                *sums.entry((*package, None)).or_default() += downloads;
            }
            self.write(&sums).await?;
            for ((_, _, count), downloads) in chunk.iter().zip(&pending) {
                count.0.fetch_sub(*downloads, Ordering::Relaxed);
            }
        }
        Ok(taken.len())
    }

    /// Forgets the days that are longer ago than they are kept; returns how many rows that were.
    /// Looks once at each version, not at each day.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn prune(&self) -> Result<usize> {
        let oldest = self.oldest();
        let (mut removed, mut after) = (0, None);
        loop {
            let Some((key, _)) = BY_DAY.scan(&*self.store, Key::new(), after.clone(), 1).await?.pop() else { return Ok(removed) };
            let (package, number) = counted_of(&key)?;
            if day_of(&key)? < oldest {
                removed += self.prune_one(package, number.as_deref(), oldest).await?;
            }
            after = Some(subject(package, number.as_deref()).number(u64::MAX).encode());
        }
    }

    async fn prune_one(&self, package: PackageId, number: Option<&str>, oldest: Day) -> Result<usize> {
        let mut removed = 0;
        loop {
            let mut batch = Batch::new();
            for (key, _) in BY_DAY.scan(&*self.store, subject(package, number), None, PAGE).await? {
                let day = day_of(&key)?;
                if day < oldest {
                    BY_DAY.delete(&mut batch, subject(package, number).number(day.number()));
                }
            }
            let old = batch.changes.len();
            if old > 0 {
                self.store.commit(batch).await?;
            }
            removed += old;
            if old < PAGE {
                return Ok(removed);
            }
        }
    }

    /// The first day that is kept.
    fn oldest(&self) -> Day {
        Day::of(self.clock.now()).before(u64::from(self.config.download_days.max(1)) - 1)
    }

    fn pending(&self, package: PackageId, number: Option<&str>) -> u64 {
        let counts = self.counts();
        let Some(versions) = counts.packages.get(&package) else { return 0 };
        match number {
            Some(number) => versions.get(number).map_or(0, |count| count.pending()),
            None => versions.values().map(|count| count.pending()).sum(),
        }
    }

    /// The counts to be written. Forgets those that are written and that nobody holds.
    fn take(&self) -> Vec<(PackageId, String, Arc<Count>)> {
        let mut counts = self.counts();
        let (mut taken, mut left) = (Vec::new(), 0);
        counts.packages.retain(|package, versions| {
            versions.retain(|number, count| {
                let held = Arc::strong_count(count) > 1;
                if count.pending() > 0 {
                    taken.push((*package, number.clone(), Arc::clone(count)));
                    return true;
                }
                held
            });
            left += versions.len();
            !versions.is_empty()
        });
        counts.versions = left;
        taken
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, sums: &BTreeMap<Counted, u64>) -> Result<()> {
        let today = Day::of(self.clock.now());
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            for ((package, number), downloads) in sums {
                let subject = || subject(*package, number.as_deref());
                self.add(&mut batch, &TOTALS, subject, *downloads).await?;
                self.add(&mut batch, &BY_DAY, || subject().number(today.number()), *downloads).await?;
            }
            if self.store.commit(batch).await? == Outcome::Committed {
                return Ok(());
            }
        }
        Err(Error::new(Kind::Unavailable, Subject::Store).because("the counts of downloads are contended"))
    }

    async fn add(&self, batch: &mut Batch, table: &Table<u64>, key: impl Fn() -> Key, downloads: u64) -> Result<()> {
        let stored = table.get(&*self.store, key()).await?;
        match &stored {
            None => table.absent(batch, key()),
            Some(stored) => table.unchanged(batch, key(), stored),
        }
        table.put(batch, key(), &stored.map_or(0, |stored| stored.value).saturating_add(downloads))
    }
}

/// The key of a version, and, since no version's number is empty, of a package.
fn subject(package: PackageId, number: Option<&str>) -> Key {
    Key::new().number(package.0).text(number.unwrap_or_default())
}

fn counted_of(key: &[u8]) -> Result<Counted> {
    let mut parts = KeyParts(key);
    let counted = parts.number().zip(parts.text()).map(|(package, number)| (PackageId(package), number));
    let (package, number) = counted.ok_or_else(malformed)?;
    Ok((package, (!number.is_empty()).then(|| number.to_owned())))
}

fn day_of(key: &[u8]) -> Result<Day> {
    let mut parts = KeyParts(key);
    let day = parts.number().and_then(|_| parts.text()).and_then(|_| parts.number());
    day.map(Day::new).ok_or_else(malformed)
}

fn malformed() -> Error {
    Error::internal(Subject::Store, "malformed key in the tables of downloads")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::store::memory::{Failing, Memory};

    const A: PackageId = PackageId(1);
    const B: PackageId = PackageId(2);

    fn downloads(store: &Arc<dyn Store>, clock: &Clock, counted_versions: usize) -> Downloads {
        Downloads::new(Arc::clone(store), clock.clone(), Config { download_days: 3, counted_versions })
    }

    fn memory() -> (Arc<dyn Store>, Clock) {
        (Arc::new(Memory::new()), Clock::stopped(Timestamp::from_millis(1_700_000_000_000)))
    }

    fn add(downloads: &Downloads, package: PackageId, number: &str, times: u64) {
        (0..times).for_each(|_| downloads.count(package, number).add());
    }

    #[tokio::test]
    async fn sums_are_the_same_before_and_after_they_are_written_and_by_the_next_process() {
        let (store, clock) = memory();
        let d = downloads(&store, &clock, 100);
        add(&d, A, "1.0.0", 3);
        add(&d, A, "1.1.0", 4);
        add(&d, B, "1.0.0", 5);
        let check = async |d: &Downloads| {
            for (package, number, sum) in
                [(A, Some("1.0.0"), 3), (A, Some("1.1.0"), 4), (A, None, 7), (B, None, 5), (B, Some("1.1.0"), 0), (PackageId(3), None, 0)]
            {
                assert_eq!(d.total(package, number).await.unwrap(), sum, "{package} {number:?}");
                let today = Day::of(clock.now());
                let days = d.by_day(package, number, Days { first: today, last: today }).await.unwrap();
                assert_eq!(days.values().sum::<u64>(), sum, "{package} {number:?}");
            }
        };
        check(&d).await;
        assert_eq!(d.flush().await.unwrap(), 3);
        check(&d).await;
        assert_eq!(d.flush().await.unwrap(), 0);
        check(&downloads(&store, &clock, 100)).await;
        add(&d, A, "1.0.0", 2);
        assert_eq!(d.above(A, 4).await.unwrap(), HashSet::from(["1.0.0".to_owned()]));
        assert_eq!(d.above(A, 3).await.unwrap().len(), 2);
        assert!(d.above(A, 5).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn days_are_told_apart_and_given_up_in_time() {
        let (store, clock) = memory();
        let d = downloads(&store, &clock, 100);
        let first = Day::of(clock.now());
        for times in [1, 2, 4, 8] {
            add(&d, A, "1.0.0", times);
            d.flush().await.unwrap();
            clock.advance(Duration::from_secs(86_400));
        }
        let all = Days { first: Day::new(0), last: Day::new(u64::MAX) };
        let seen = async || d.by_day(A, Some("1.0.0"), all).await.unwrap().into_values().collect::<Vec<_>>();
        // Three days are kept: today, on which there was no download, and two before.
        assert_eq!(seen().await, [4, 8]);
        assert_eq!(d.by_day(A, None, Days { first: first.before(1), last: Day::new(first.number() + 2) }).await.unwrap().len(), 1);
        assert_eq!(BY_DAY.scan(&*store, Key::new(), None, 100).await.unwrap().len(), 8);
        assert_eq!(d.prune().await.unwrap(), 4);
        assert_eq!(BY_DAY.scan(&*store, Key::new(), None, 100).await.unwrap().len(), 4);
        assert_eq!(seen().await, [4, 8]);
        assert_eq!(d.prune().await.unwrap(), 0);
        assert_eq!(d.total(A, None).await.unwrap(), 15);
    }

    #[tokio::test]
    async fn what_a_broken_store_does_not_take_is_written_later() {
        let (store, clock) = memory();
        let broken: Arc<dyn Store> = Arc::new(Failing);
        let d = downloads(&broken, &clock, 100);
        add(&d, A, "1.0.0", 2);
        assert!(d.flush().await.is_err());
        assert_eq!(d.pending(A, None), 2);
        let mended = Downloads { store, ..d };
        mended.flush().await.unwrap();
        assert_eq!(mended.total(A, Some("1.0.0")).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_given_back() {
        let (store, clock) = memory();
        let d = downloads(&store, &clock, 2);
        let held = d.count(A, "1.0.0");
        add(&d, A, "1.1.0", 1);
        add(&d, A, "1.2.0", 1);
        assert_eq!(d.total(A, None).await.unwrap(), 1);
        d.flush().await.unwrap();
        d.flush().await.unwrap();
        assert_eq!(d.counts().versions, 1, "only what somebody holds");
        held.add();
        assert_eq!(d.flush().await.unwrap(), 1);
        assert_eq!(d.total(A, Some("1.0.0")).await.unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_is_lost_or_counted_twice_while_flushes_run() {
        let (store, clock) = memory();
        let d = Arc::new(downloads(&store, &clock, 100));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let d = Arc::clone(&d);
            tasks.spawn(async move {
                for turn in 0..2000 {
                    d.count(A, &format!("1.{}.0", (task + turn) % 5)).add();
                    if turn % 100 == 0 {
                        d.flush().await.unwrap();
                        assert!(d.total(A, None).await.unwrap() <= 8000);
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        d.flush().await.unwrap();
        assert_eq!(TOTALS.get(&*store, subject(A, None)).await.unwrap().unwrap().value, 8000);
    }
}
