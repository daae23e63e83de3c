//! The suite on redb, and what only a file can show: opening again, damage, errors of the disk.

use std::io;
use std::sync::atomic::AtomicUsize;

use ::redb::backends::InMemoryBackend;
use proptest::test_runner::{Config as Cases, TestRunner};

use super::*;
use crate::store::memory::Memory;
use crate::store::suite::{self, LEFT, RIGHT, Step, batch, bytes, put};
use crate::store::{Condition, prefix};

fn fresh(durability: Durability) -> (Arc<Redb>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Redb::open(&folder.path().join("store.redb"), &Config::default(), durability).unwrap();
    (Arc::new(store), folder)
}

mod truth {
    use super::{Durability, fresh};
    use crate::store::suite;
    suite::store_suite!(|| fresh(Durability::Truth));
}

mod cache {
    use super::{Durability, fresh};
    use crate::store::suite;
    suite::store_suite!(|| fresh(Durability::Cache));
}

#[test]
fn does_as_the_model_does_in_random_histories() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Cases { cases: 48, ..Cases::default() };
    let run = |steps: Vec<Step>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let open = || Redb::open(&path, &Config::default(), Durability::Cache).unwrap();
        let (model, mut store) = (Memory::new(), Some(open()));
        runtime.block_on(async {
            for step in steps {
                match step {
                    Step::Reopen => {
                        drop(store.take());
                        store = Some(open());
                    }
                    Step::Commit(batch) => {
                        let outcome = |result: Result<Outcome>| result.map_err(|error| error.kind());
                        let real = store.as_ref().unwrap().commit(batch.clone()).await;
                        assert_eq!(outcome(real), outcome(model.commit(batch).await));
                    }
                    Step::Scan(table, range, limit) => {
                        let real = store.as_ref().unwrap().scan(table, range.clone(), limit).await.unwrap();
                        assert_eq!(real, model.scan(table, range, limit).await.unwrap());
                    }
                }
            }
            for table in [LEFT, RIGHT] {
                let real = store.as_ref().unwrap().scan(table, prefix(b""), 999).await.unwrap();
                assert_eq!(real, model.scan(table, prefix(b""), 999).await.unwrap());
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&suite::history(), run).unwrap();
}

#[tokio::test]
async fn a_second_opening_is_refused_and_a_later_one_finds_the_rows() {
    for durability in [Durability::Truth, Durability::Cache] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = Redb::open(&path, &Config::default(), durability).unwrap();
        store.commit(batch([], [put(LEFT, "a", "1")])).await.unwrap();
        assert_eq!(Redb::open(&path, &Config::default(), durability).err().unwrap().kind(), Kind::Unavailable);
        store.close();
        assert_eq!(store.commit(batch([], [put(LEFT, "a", "2")])).await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(store.get(LEFT, b"a").await.unwrap(), Some(bytes("1")));
        drop(store);
        let store = Redb::open(&path, &Config::default(), durability).unwrap();
        assert_eq!(store.get(LEFT, b"a").await.unwrap(), Some(bytes("1")));
    }
}

#[tokio::test]
async fn closing_drains_the_queue() {
    let (store, _folder) = fresh(Durability::Truth);
    let commits: Vec<_> = (0..100)
        .map(|index| {
            let store = Arc::clone(&store);
            let mut commit = Box::pin(async move { store.commit(batch([], [put(LEFT, &format!("{index}"), "")])).await });
            // The first poll queues the batch.
            let _ = commit.as_mut().now_or_never();
            commit
        })
        .collect();
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    for commit in commits {
        assert_eq!(commit.await.unwrap(), Outcome::Committed);
    }
    assert_eq!(store.scan(LEFT, prefix(b""), 999).await.unwrap().len(), 100);
}

#[tokio::test]
async fn refuses_a_record_past_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { record_limit_bytes: 8, ..Config::default() };
    let store = Redb::open(&folder.path().join("store.redb"), &config, Durability::Truth).unwrap();
    assert_eq!(store.commit(batch([], [put(LEFT, "key", "123456789")])).await.unwrap_err().kind(), Kind::TooLarge);
    assert_eq!(store.commit(batch([], [put(LEFT, "key", "12345678")])).await.unwrap(), Outcome::Committed);
}

#[tokio::test]
async fn damage_opens_or_is_refused_and_never_panics_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = Redb::open(&path, &Config::default(), Durability::Truth).unwrap();
    for index in 0..50 {
        store.commit(batch([], [put(LEFT, &format!("key {index}"), &"value".repeat(index))])).await.unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.redb");
    let mut refused = 0;
    let mut open = async |content: &[u8]| {
        std::fs::write(&damaged, content).unwrap();
        match Redb::open(&damaged, &Config::default(), Durability::Truth) {
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable);
                refused += 1;
            }
            Ok(store) => {
                let _ = store.scan(LEFT, prefix(b""), 999).await;
                let _ = store.commit(batch([], [put(RIGHT, "a", "1")])).await;
            }
        }
    };
    open(&[7; 5000]).await;
    open(b"short").await;
    for part in 1..8 {
        open(&whole[..whole.len() * part / 8]).await;
    }
    // A fixed sequence, so that a failure can be run again.
    let mut seed = 0x9e37_79b9_u64;
    for _ in 0..150 {
        let mut content = whole.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(seed >> 33).unwrap() % content.len().min(64 << 10);
            content[place] ^= 1 << (seed >> 20 & 7);
        }
        open(&content).await;
    }
    assert!(refused > 5, "only {refused} damaged files were refused");
}

/// Storage that outlives its store and fails from the N-th operation on, for good or once.
#[derive(Clone, Debug)]
struct Failing {
    disk: Arc<dyn StorageBackend>,
    left: Arc<AtomicUsize>,
    forever: bool,
}

impl Failing {
    fn spend(&self) -> io::Result<()> {
        let spend = |left: usize| match left {
            usize::MAX => Some(left),
            0 if self.forever => None,
            0 => Some(usize::MAX),
            left => Some(left - 1),
        };
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend) {
            Ok(0) | Err(_) => Err(io::Error::other("the disk fails here")),
            Ok(_) => Ok(()),
        }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.spend()?;
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.spend()?;
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.spend()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.spend()?;
        self.disk.write(offset, data)
    }
}

/// Commits ten batches of two rows each and gives back how many were acknowledged before the first failure.
async fn script(store: &Redb) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    for index in 0..10 {
        let key = format!("{index}");
        match store.commit(batch([Condition::Absent(LEFT, bytes(&key))], [put(LEFT, &key, "x"), put(RIGHT, &key, "x")])).await {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Committed);
                acknowledged.push(index);
            }
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable),
        }
    }
    acknowledged
}

#[tokio::test]
async fn an_error_at_any_operation_loses_no_acknowledged_batch_and_halves_none() {
    for forever in [false, true] {
        let mut hurt = 0;
        for operation in 0.. {
            assert!(operation < 5000, "the script never ended unhurt");
            let backend = Failing { disk: Arc::new(InMemoryBackend::new()), left: Arc::new(AtomicUsize::new(operation)), forever };
            let opened = Redb::open_backend(backend.clone(), &Config::default(), Durability::Truth);
            let acknowledged = match &opened {
                Ok(store) => {
                    let acknowledged = script(store).await;
                    if let Some(last) = acknowledged.last() {
                        assert_eq!(acknowledged.len(), last + 1, "a commit was made after one had failed");
                        // The pages are in memory: reading goes on after the failure.
                        assert_eq!(store.get(LEFT, b"0").await.unwrap(), Some(bytes("x")));
                    }
                    acknowledged
                }
                Err(_) => Vec::new(),
            };
            let unhurt = acknowledged.len() == 10;
            if opened.is_err() {
                // Nothing was acknowledged, and on disk a new file is laid out under another name first.
                hurt += 1;
                continue;
            }
            drop(opened);
            backend.left.store(usize::MAX, Ordering::SeqCst);
            let store = Redb::open_backend(backend, &Config::default(), Durability::Truth).unwrap();
            for index in 0..10 {
                let key = format!("{index}");
                let rows = [store.get(LEFT, key.as_bytes()).await.unwrap(), store.get(RIGHT, key.as_bytes()).await.unwrap()];
                assert_eq!(rows[0].is_some(), rows[1].is_some(), "half of batch {index} after error {operation}");
                assert!(rows[0].is_some() || !acknowledged.contains(&index), "batch {index} was lost by error {operation}");
            }
            if unhurt {
                break;
            }
            hurt += 1;
        }
        assert!(hurt > 30, "only {hurt} operations were made to fail");
    }
}

#[tokio::test]
async fn reading_goes_on_after_the_disk_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    // No memory for pages: every read needs the file.
    let config = Config { page_cache_bytes: 0, ..Config::default() };
    let store = Redb::open(&path, &config, Durability::Truth).unwrap();
    for index in 0..100 {
        store.commit(batch([], [put(LEFT, &format!("{index}"), &"x".repeat(5000))])).await.unwrap();
    }
    drop(store);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let disk = Arc::new(::redb::backends::FileBackend::new(file).unwrap());
    let backend = Failing { disk, left: Arc::new(AtomicUsize::new(usize::MAX)), forever: true };
    let left = Arc::clone(&backend.left);
    let store = Redb::start(Some(&path), &config, Durability::Truth, None, |builder| builder.create_with_backend(backend)).unwrap();
    store.commit(batch([], [put(RIGHT, "a", "1")])).await.unwrap();
    left.store(0, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(store.commit(batch([], [put(RIGHT, "b", "1")])).await.unwrap_err().kind(), Kind::Unavailable);
        assert!(store.is_stopped());
        assert_eq!(store.scan(LEFT, prefix(b""), 999).await.unwrap().len(), 100);
        assert_eq!(store.get(RIGHT, b"a").await.unwrap(), Some(bytes("1")));
        left.store(usize::MAX, Ordering::SeqCst);
    }
    let before = std::fs::read(&path).unwrap();
    drop(store);
    assert!(std::fs::read(&path).unwrap() == before, "something was written after the failure");
    let store = Redb::open(&path, &config, Durability::Truth).unwrap();
    assert_eq!(store.scan(LEFT, prefix(b""), 999).await.unwrap().len(), 100);
}

#[tokio::test]
async fn what_only_the_journal_holds_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (path, left) = (folder.path().join("store.redb"), folder.path().join("left.redb"));
    let store = Redb::open(&path, &Config::default(), Durability::Truth).unwrap();
    for index in 0..20 {
        store.commit(batch([], [put(LEFT, &format!("{index}"), "1"), put(RIGHT, "last", &format!("{index}"))])).await.unwrap();
    }
    store.commit(batch([], [Change::Delete(LEFT, bytes("3"))])).await.unwrap();
    for extension in ["redb", "journal"] {
        std::fs::copy(path.with_extension(extension), left.with_extension(extension)).unwrap();
    }
    // Twice, as the second opening finds what the first has taken in.
    for _ in 0..2 {
        let store = Redb::open(&left, &Config::default(), Durability::Truth).unwrap();
        assert_eq!(store.scan(LEFT, prefix(b""), 999).await.unwrap().len(), 19);
        assert_eq!(store.get(RIGHT, b"last").await.unwrap(), Some(bytes("19")));
    }
}

#[tokio::test]
async fn what_only_the_journal_holds_can_be_read_after_the_disk_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    // Room for two groups: the next is to be in the file itself.
    let config = Config { page_cache_bytes: 0, journal_bytes: 2 * 4096, ..Config::default() };
    drop(Redb::open(&path, &config, Durability::Truth).unwrap());
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let disk = Arc::new(::redb::backends::FileBackend::new(file).unwrap());
    let backend = Failing { disk, left: Arc::new(AtomicUsize::new(usize::MAX)), forever: true };
    let left = Arc::clone(&backend.left);
    let journal: Box<dyn Medium> = Box::new(OnDisk::of(&path));
    let store =
        Redb::start(Some(&path), &config, Durability::Truth, Some(journal), |builder| builder.create_with_backend(backend)).unwrap();
    for index in 0..3 {
        store.commit(batch([], [put(LEFT, &format!("{index}"), "1")])).await.unwrap();
    }
    left.store(0, Ordering::SeqCst);
    assert_eq!(store.commit(batch([], [put(LEFT, "3", "1")])).await.unwrap_err().kind(), Kind::Unavailable);
    assert!(store.is_stopped());
    let rows = store.scan(LEFT, prefix(b""), 999).await.unwrap();
    assert_eq!(rows.len(), 3);
}

#[tokio::test]
async fn a_cache_file_is_synced_after_the_flush_time() {
    let backend = Failing { disk: Arc::new(InMemoryBackend::new()), left: Arc::new(AtomicUsize::new(usize::MAX)), forever: true };
    let config = Config { flush_seconds: 1, ..Config::default() };
    let store = Redb::open_backend(backend.clone(), &config, Durability::Cache).unwrap();
    store.commit(batch([], [put(LEFT, "a", "1")])).await.unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    // From here on the disk is gone, as in a crash: what was synced is all there is.
    backend.left.store(0, Ordering::SeqCst);
    store.commit(batch([], [put(LEFT, "b", "1")])).await.ok();
    drop(store);
    backend.left.store(usize::MAX, Ordering::SeqCst);
    let store = Redb::open_backend(backend, &config, Durability::Cache).unwrap();
    assert_eq!(store.get(LEFT, b"a").await.unwrap(), Some(bytes("1")));
}
