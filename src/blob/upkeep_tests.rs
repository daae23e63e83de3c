//! Sweeping, evicting and checking.

use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use futures_util::future::{BoxFuture, FutureExt as _};

use super::tests::{Place, content, wait_until};
use super::*;
use crate::error::Kind;
use crate::store::{Batch, KeyRange, Outcome, Row, TableId};

const GRACE: Duration = Duration::from_secs(600);

fn nothing(_: &Digest) -> bool {
    false
}

async fn there(place: &Place, digests: &[Digest]) -> Vec<bool> {
    let mut there = Vec::new();
    for digest in digests {
        there.push(place.blobs.contains(digest).await.unwrap());
    }
    there
}

#[tokio::test(start_paused = true)]
async fn an_orphan_goes_after_the_grace_and_in_the_second_sweep() {
    let place = Place::new(Config::default()).await;
    let orphan = place.put(Purpose::Hosted, b"orphan").await;
    let hosted = place.put(Purpose::Hosted, b"hosted").await;
    let cached = place.put(Purpose::Cached, b"cached").await;
    let is_hosted = |digest: &Digest| *digest == hosted;
    for _ in 0..3 {
        assert_eq!(place.blobs.sweep(&is_hosted, GRACE).await.unwrap().waiting, 0, "swept before the grace");
    }
    place.clock.advance(GRACE * 2);
    let first = place.blobs.sweep(&is_hosted, GRACE).await.unwrap();
    assert_eq!(first, SweepReport { seen: 3, waiting: 1, ..SweepReport::default() });
    let second = place.blobs.sweep(&is_hosted, GRACE).await.unwrap();
    assert_eq!(second, SweepReport { seen: 3, removed: 1, removed_bytes: 6, waiting: 0 });
    assert_eq!(there(&place, &[orphan, hosted, cached]).await, [false, true, true]);
    assert!(place.blobs.read(&orphan).await.unwrap().is_none(), "still in memory");
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leased_orphan_survives_and_the_count_of_sweeps_begins_anew() {
    let place = Place::new(Config::default()).await;
    let orphan = place.put(Purpose::Hosted, b"orphan").await;
    place.clock.advance(GRACE * 2);
    let waiting = async || place.blobs.sweep(&nothing, GRACE).await.unwrap();
    assert_eq!(waiting().await.waiting, 1);
    let lease = place.blobs.lease(&orphan);
    for _ in 0..3 {
        assert_eq!(waiting().await.removed, 0);
    }
    drop(lease);
    for _ in 0..3 {
        assert_eq!(waiting().await.removed, 0, "no grace after the lease");
    }
    place.pass_grace();
    assert_eq!(waiting().await.removed, 0, "the sweep before the lease still counts");
    // Storing it again does the same.
    place.put(Purpose::Hosted, b"orphan").await;
    place.clock.advance(GRACE * 2);
    assert_eq!(waiting().await.removed, 0);
    assert_eq!(waiting().await.removed, 1);
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_became_hosted_between_two_sweeps_stays() {
    let place = Place::new(Config::default()).await;
    let orphan = place.put(Purpose::Hosted, b"orphan").await;
    place.clock.advance(GRACE * 2);
    assert_eq!(place.blobs.sweep(&nothing, GRACE).await.unwrap().waiting, 1);
    assert_eq!(place.blobs.sweep(&|digest| *digest == orphan, GRACE).await.unwrap().removed, 0);
    assert_eq!(place.blobs.sweep(&nothing, GRACE).await.unwrap().removed, 0, "the older sweep still counts");
}

#[tokio::test(start_paused = true)]
async fn eviction_takes_the_longest_unused_down_to_the_limit() {
    let place = Place::new(Config { cache_limit_bytes: 5000, ..Config::default() }).await;
    let mut blobs = Vec::new();
    for seed in 0..10_u8 {
        place.clock.advance(Duration::from_secs(1));
        blobs.push(place.put(Purpose::Cached, &[seed; 1000]).await);
    }
    place.clock.advance(Duration::from_secs(1));
    assert!(place.blobs.read(&blobs[0]).await.unwrap().is_some());
    let held = place.blobs.lease(&blobs[1]);
    place.pass_grace();
    let is_hosted = |digest: &Digest| *digest == blobs[2];
    let report = place.blobs.evict(&is_hosted).await.unwrap();
    assert_eq!(report, EvictReport { removed: 4, removed_bytes: 4000, hosted: 1, unfinished: false });
    let expected = [true, true, true, false, false, false, false, true, true, true];
    assert_eq!(there(&place, &blobs).await, expected);
    assert_eq!(place.blobs.usage().cached_bytes, 5000);
    assert_eq!(place.blobs.evict(&is_hosted).await.unwrap(), EvictReport::default());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_blob_stored_by_a_publish_is_never_evicted() {
    let place = Place::new(Config { cache_limit_bytes: 0, ..Config::default() }).await;
    let digest = place.put(Purpose::Cached, b"cached, then published").await;
    assert_eq!(place.put(Purpose::Hosted, b"cached, then published").await, digest);
    place.pass_grace();
    assert_eq!(place.blobs.evict(&nothing).await.unwrap(), EvictReport::default());
    assert!(place.blobs.contains(&digest).await.unwrap());
    // The other way round it is in both, and the references decide.
    place.put(Purpose::Cached, b"cached, then published").await;
    place.pass_grace();
    assert_eq!(place.blobs.evict(&|other| *other == digest).await.unwrap().hosted, 1);
    assert!(place.blobs.contains(&digest).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn eviction_frees_the_reserve_and_no_more() {
    let place = Place::new(Config { hosted_reserve_bytes: 10_000, ..Config::default() }).await;
    for seed in 0..10_u8 {
        place.clock.advance(Duration::from_secs(1));
        place.put(Purpose::Cached, &[seed; 1000]).await;
    }
    place.pass_grace();
    // The probe stands still, as if all removed files were still being read.
    place.free.store(7500, Ordering::Relaxed);
    let report = place.blobs.evict(&nothing).await.unwrap();
    assert_eq!((report.removed, report.unfinished), (3, false));
    assert_eq!(place.blobs.usage().cached_count, 7);
}

#[tokio::test(start_paused = true)]
async fn eviction_keeps_to_a_number_of_files() {
    let place = Place::new(Config { cache_limit_files: 2, ..Config::default() }).await;
    for seed in 0..5_u8 {
        place.clock.advance(Duration::from_secs(1));
        place.put(Purpose::Cached, &[seed]).await;
    }
    place.pass_grace();
    assert_eq!(place.blobs.evict(&nothing).await.unwrap().removed, 3);
    let newest = Digest::sha256(&[4]);
    assert!(place.blobs.contains(&newest).await.unwrap());
    assert_eq!(place.blobs.evict(&nothing).await.unwrap(), EvictReport::default());
}

#[tokio::test(start_paused = true)]
async fn eviction_is_paced_and_ends_in_time() {
    let config = Config { cache_limit_bytes: 0, remove_files_per_second: 20, lease_seconds: 4, ..Config::default() };
    let place = Place::new(config).await;
    for seed in 0..100_u8 {
        place.put(Purpose::Cached, &[seed; 10]).await;
    }
    place.pass_grace();
    let report = place.blobs.evict(&nothing).await.unwrap();
    assert!(report.unfinished && (30..=45).contains(&report.removed), "{report:?}");
}

#[tokio::test]
async fn a_stream_is_exact_while_its_blob_is_evicted() {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let place = Place::new(Config { cache_limit_bytes: 0, ..Config::default() }).await;
    let body = content(2 << 20);
    let digest = place.put(Purpose::Cached, &body).await;
    let mut chunks = place.blobs.read(&digest).await.unwrap().unwrap().chunks(0..u64::MAX);
    let mut bytes = chunks.next().await.unwrap().unwrap().to_vec();
    place.pass_grace();
    assert_eq!(place.blobs.evict(&nothing).await.unwrap().removed, 1);
    assert!(place.blobs.read(&digest).await.unwrap().is_none());
    let rest: Vec<Bytes> = chunks.try_collect().await.unwrap();
    bytes.extend(rest.concat());
    assert!(bytes == body);
}

/// Publishers that store, look, and only later refer, against sweeps and evictions without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sweep_takes_what_a_publish_refers_to() {
    let config = Config { cache_limit_bytes: 0, remove_files_per_second: u32::MAX, lease_seconds: 0, ..Config::default() };
    let place = Arc::new(Place::new(config).await);
    // How many publishes refer to a blob.
    let hosted = Arc::new(Mutex::new(std::collections::HashMap::<Digest, usize>::new()));
    // Files are older than any grace from here on.
    place.clock.advance(GRACE);
    let publishers: Vec<_> = (0..4_u8)
        .map(|publisher| {
            let (place, hosted) = (Arc::clone(&place), Arc::clone(&hosted));
            tokio::spawn(async move {
                for round in 0..60_u8 {
                    // Few contents, so that publishers meet orphans and each other's blobs.
                    let content = Bytes::from(vec![round % 7, publisher / 2]);
                    let purpose = if round % 2 == 0 { Purpose::Hosted } else { Purpose::Cached };
                    if (round + publisher) % 3 == 0 {
                        // A publish that failed after its upload: an orphan.
                        drop(place.blobs.put(purpose, content).await.unwrap());
                        continue;
                    }
                    let digest = Digest::sha256(&content);
                    let mut lease = place.blobs.lease(&digest);
                    if !place.blobs.contains(&digest).await.unwrap() {
                        lease = place.blobs.put(Purpose::Hosted, content).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                    *hosted.lock().unwrap().entry(digest).or_default() += 1;
                    drop(lease);
                    tokio::task::yield_now().await;
                    assert!(place.blobs.contains(&digest).await.unwrap(), "a sweep took a published blob");
                    *hosted.lock().unwrap().entry(digest).or_default() -= 1;
                }
            })
        })
        .collect();
    let is_hosted = |digest: &Digest| hosted.lock().unwrap().get(digest).is_some_and(|count| *count > 0);
    let mut removed = 0;
    for _ in 0..200 {
        removed += place.blobs.sweep(&is_hosted, Duration::ZERO).await.unwrap().removed;
        if publishers.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for _ in 0..2 {
        removed += place.blobs.sweep(&nothing, Duration::ZERO).await.unwrap().removed;
    }
    assert!(removed > 0, "the sweeps had nothing to do");
    wait_until(|| place.temporaries() == 0).await;
}

#[tokio::test]
async fn a_check_finds_what_is_wrong_and_puts_it_away() {
    let place = Place::new(Config::default()).await;
    let sound = [place.put(Purpose::Hosted, &content(100_000)).await, place.put(Purpose::Cached, b"").await];
    let flipped = place.put(Purpose::Hosted, &content(3_000_000)).await;
    let cached = place.put(Purpose::Cached, &content(50)).await;
    let gone = place.put(Purpose::Cached, b"gone").await;
    let path = place.path(&flipped);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2_345_678] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(place.path(&cached), "longer than fifty bytes, which is what it should have been").unwrap();
    std::fs::remove_file(place.path(&gone)).unwrap();
    // Planted: a link, upper case, a wrong folder, odd names.
    let blobs = place.folder.path().join("blobs");
    symlink("/etc/hostname", place.planted(&Digest::sha256(b"link"))).unwrap();
    let upper = place.planted(&Digest::sha256(b"upper"));
    std::fs::write(upper.with_file_name(Digest::sha256(b"upper").hex().to_uppercase()), "upper").unwrap();
    for shard in ["00", "07"] {
        std::fs::create_dir_all(blobs.join("sha256").join(shard)).unwrap();
    }
    std::fs::write(blobs.join("sha256/00").join(Digest::sha256(b"elsewhere").hex()), "elsewhere").unwrap();
    std::fs::write(blobs.join("sha256/notes"), "").unwrap();
    std::fs::create_dir(blobs.join("md5")).unwrap();
    std::fs::write(blobs.join("sha256/07/a\nb"), "").unwrap();
    let progress = Mutex::new(Vec::new());
    let report = place.blobs.verify(&|done, total| progress.lock().unwrap().push((done, total))).await.unwrap();
    assert_eq!(report.damaged.len(), 2);
    assert!(report.damaged.contains(&flipped) && report.damaged.contains(&cached));
    assert_eq!(report.missing, [gone]);
    assert_eq!(report.foreign.len(), 6, "{:?}", report.foreign);
    assert!(report.foreign.contains(&"blobs/sha256/07/a\\nb".to_owned()));
    assert_eq!((report.checked, report.unlisted), (4, 0));
    assert_eq!(progress.into_inner().unwrap().last(), Some(&(4, 4)));
    assert_eq!(place.quarantined(), 8);
    let again = place.blobs.verify(&|_, _| {}).await.unwrap();
    assert_eq!(again, VerifyReport { checked: 2, checked_bytes: 100_000, ..VerifyReport::default() });
    assert_eq!(there(&place, &sound).await, [true, true]);
    assert!(place.blobs.read(&cached).await.unwrap().is_none());
    assert_eq!(place.blobs.usage().cached_count, 1);
}

#[tokio::test]
async fn a_check_removes_a_planted_blob_folder() {
    let place = Place::new(Config::default()).await;
    let shard = place.folder.path().join("blobs/sha256/ab");
    symlink("/tmp", &shard).unwrap();
    let report = place.blobs.verify(&|_, _| {}).await.unwrap();
    assert_eq!(report.foreign, ["blobs/sha256/ab"]);
    assert!(!shard.is_symlink());
}

#[tokio::test]
async fn an_index_that_cannot_be_written_is_written_later() {
    let mut place = Place::new(Config::default()).await;
    let digest = place.put(Purpose::Cached, b"x").await;
    let failing = Failing(Arc::clone(&place.store), AtomicUsize::new(1));
    assert_eq!(place.blobs.0.index.flush(&failing).await.unwrap_err().kind(), Kind::Unavailable);
    place.blobs.0.index.flush(&failing).await.unwrap();
    place.reopen().await;
    assert_eq!(place.blobs.usage().cached_count, 1);
    assert!(place.blobs.read(&digest).await.unwrap().is_some());
}

/// A store whose first commits fail.
struct Failing(Arc<crate::store::memory::Memory>, AtomicUsize);

impl Store for Failing {
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.0.get(table, key)
    }

    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        self.0.scan(table, range, limit)
    }

    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        self.0.scan_back(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>> {
        if self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return futures_util::future::ready(Err(Error::new(Kind::Unavailable, Subject::Store))).boxed();
        }
        self.0.commit(batch)
    }
}
