//! Storing, reading, leasing: what holds for every blob.

use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::*;
use crate::error::Kind;
use crate::store::memory::Memory;

/// Blobs in a folder of their own, with a clock and a disk that tests rule.
pub(super) struct Place {
    pub blobs: Blobs,
    pub store: Arc<Memory>,
    pub clock: Clock,
    pub free: Arc<AtomicU64>,
    pub folder: tempfile::TempDir,
}

impl Place {
    pub(super) async fn new(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, free) = (Arc::new(Memory::new()), Arc::new(AtomicU64::new(u64::MAX)));
        let clock = Clock::stopped(Clock::system().now());
        let blobs = Self::open(&folder, &store, &clock, &free, config).await;
        Self { blobs, store, clock, free, folder }
    }

    async fn open(folder: &tempfile::TempDir, store: &Arc<Memory>, clock: &Clock, free: &Arc<AtomicU64>, config: Config) -> Blobs {
        let probe = Arc::clone(free);
        let probe = Box::new(move |_: &_| Ok(probe.load(Ordering::Relaxed)));
        let store = Arc::clone(store) as Arc<dyn Store>;
        Blobs::open_with(folder.path(), store, clock.clone(), config, probe).await.unwrap()
    }

    /// As after a restart.
    pub(super) async fn reopen(&mut self) {
        let config = self.blobs.0.config.clone();
        self.blobs = Self::open(&self.folder, &self.store, &self.clock, &self.free, config).await;
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.hex();
        self.folder.path().join("blobs/sha256").join(&name[..2]).join(name)
    }

    /// As [`Place::path`], with the folder made.
    pub(super) fn planted(&self, digest: &Digest) -> PathBuf {
        let path = self.path(digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Names in `tmp`, which should be none.
    pub(super) fn temporaries(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("tmp")).unwrap().count()
    }

    pub(super) fn quarantined(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("quarantine")).unwrap().count()
    }

    pub(super) async fn put(&self, purpose: Purpose, content: &[u8]) -> Digest {
        *self.blobs.put(purpose, Bytes::copy_from_slice(content)).await.unwrap().digest()
    }

    /// Lets the grace of all dropped leases run out.
    pub(super) fn pass_grace(&self) {
        self.clock.advance(Duration::from_secs(self.blobs.0.config.lease_seconds + 1));
    }
}

/// Content without a pattern that a mistake in offsets could hide behind.
pub(super) fn content(length: usize) -> Bytes {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn collect(blob: Blob, range: Range<u64>) -> Vec<u8> {
    let chunks: Vec<Bytes> = blob.chunks(range).try_collect().await.unwrap();
    chunks.concat()
}

#[tokio::test]
async fn what_was_written_is_read() {
    let place = Place::new(Config { write_coalesce_bytes: 100_000, ..Config::default() }).await;
    for (purpose, length) in [
        (Purpose::Hosted, 0),
        (Purpose::Cached, 1),
        (Purpose::Hosted, 64 << 10),
        (Purpose::Cached, (64 << 10) + 1),
        (Purpose::Hosted, 900_000),
    ] {
        let content = content(length);
        let mut writer = place.blobs.create(purpose, &[Algorithm::Sha512], u64::MAX).await.unwrap();
        for part in content.chunks(7001) {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        assert_eq!(writer.written(), length as u64);
        let staged = writer.finish().await.unwrap();
        assert_eq!(staged.digests().sha256, Digest::sha256(&content));
        assert!(staged.digests().get(Algorithm::Sha512).is_some());
        let mut again = Vec::new();
        std::io::Read::read_to_end(&mut staged.open().unwrap(), &mut again).unwrap();
        assert_eq!(again, content);
        assert!(place.blobs.read(&Digest::sha256(&content)).await.unwrap().is_none(), "visible before it was kept");
        let lease = staged.keep().await.unwrap();
        assert_eq!((*lease.digest(), lease.size()), (Digest::sha256(&content), length as u64));
        for _ in 0..2 {
            let open = async || place.blobs.read(lease.digest()).await.unwrap().unwrap();
            assert_eq!(open().await.size(), length as u64);
            assert!(open().await.small().is_some() || length > 64 << 10);
            assert_eq!(open().await.bytes(length as u64).await.unwrap(), content);
            assert_eq!(collect(open().await, 0..u64::MAX).await, content);
            let middle = length / 3..length / 2;
            assert_eq!(collect(open().await, middle.start as u64..middle.end as u64).await, content[middle]);
            if length > 0 {
                assert_eq!(open().await.bytes(length as u64 - 1).await.unwrap_err().kind(), Kind::TooLarge);
            }
        }
        assert!(place.blobs.contains(lease.digest()).await.unwrap());
    }
    assert_eq!(place.temporaries(), 0);
    assert_eq!(place.blobs.usage().cached_count, 2);
    assert_eq!(place.blobs.usage().cached_bytes, (64 << 10) + 2);
}

#[tokio::test]
async fn an_absent_blob_is_none_and_other_digests_name_no_blob() {
    let place = Place::new(Config::default()).await;
    let sha512 = Digest::from_integrity("sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==");
    for digest in [Digest::sha256(b"never stored"), sha512.unwrap()] {
        assert!(place.blobs.read(&digest).await.unwrap().is_none());
        assert!(!place.blobs.contains(&digest).await.unwrap());
        assert_eq!(place.blobs.lease(&digest).size(), 0);
    }
    assert!(place.blobs.remove(&sha512.unwrap()).await.unwrap());
}

#[tokio::test]
async fn too_much_is_refused_and_nothing_stays() {
    let place = Place::new(Config { write_coalesce_bytes: 10, ..Config::default() }).await;
    let mut writer = place.blobs.create(Purpose::Hosted, &[], 100).await.unwrap();
    writer.write(content(100)).await.unwrap();
    assert_eq!(writer.write(content(1)).await.unwrap_err().kind(), Kind::TooLarge);
    assert!(writer.write(content(1)).await.is_err());
    assert!(writer.finish().await.is_err());
    wait_until(|| place.temporaries() == 0).await;
}

/// Work on a blocking thread may end a little after its future was dropped.
pub(super) async fn wait_until(holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(holds(), "it never came true");
}

#[tokio::test]
async fn dropping_at_any_stage_leaves_nothing() {
    let place = Place::new(Config { write_coalesce_bytes: 10, ..Config::default() }).await;
    let mut writer = place.blobs.create(Purpose::Cached, &[], u64::MAX).await.unwrap();
    writer.write(content(1000)).await.unwrap();
    drop(writer);
    let mut writer = place.blobs.create(Purpose::Cached, &[], u64::MAX).await.unwrap();
    writer.write(content(1000)).await.unwrap();
    let staged = writer.finish().await.unwrap();
    assert!(place.temporaries() > 0);
    drop(staged);
    wait_until(|| place.temporaries() == 0).await;
    assert_eq!(place.blobs.usage().cached_count, 0);
}

#[tokio::test]
async fn a_full_disk_stops_cached_blobs_before_hosted_ones() {
    let place =
        Place::new(Config { hosted_reserve_bytes: 1000, metadata_reserve_bytes: 100, write_coalesce_bytes: 20, ..Config::default() }).await;
    place.free.store(1050, Ordering::Relaxed);
    place.put(Purpose::Cached, &content(50)).await;
    let error = place.blobs.put(Purpose::Cached, content(51)).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (Kind::Unavailable, Subject::Blob));
    place.put(Purpose::Hosted, &content(950)).await;
    assert!(!place.blobs.usage().full);
    let error = place.blobs.put(Purpose::Hosted, content(951)).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (Kind::Unavailable, Subject::Blob));
    place.free.store(119, Ordering::Relaxed);
    assert!(place.blobs.usage().full);
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn a_large_blob_is_proved_by_its_first_reader() {
    let mut place = Place::new(Config::default()).await;
    let content = content(2_000_000);
    for (purpose, range) in [(Purpose::Cached, 0..2_000_000), (Purpose::Cached, 10..20), (Purpose::Hosted, 0..2_000_000)] {
        let digest = place.put(purpose, &content).await;
        let right = place.blobs.read(&digest).await.unwrap().unwrap();
        assert!(collect(right, 0..2_000_000).await == content);
        // The same times and size: only its bytes tell.
        let times = std::fs::metadata(place.path(&digest)).unwrap().modified().unwrap();
        let mut flipped = content.to_vec();
        flipped[700_000] ^= 1;
        std::fs::write(place.path(&digest), flipped).unwrap();
        std::fs::File::options().write(true).open(place.path(&digest)).unwrap().set_modified(times).unwrap();
        place.blobs.flush().await.unwrap();
        place.reopen().await;
        let wrong = place.blobs.read(&digest).await.unwrap().unwrap();
        let sent: Vec<_> = wrong.chunks(range.clone()).collect().await;
        assert!(sent.last().unwrap().is_err(), "{purpose:?} {range:?} ended cleanly");
        let again = place.blobs.read(&digest).await;
        match purpose {
            Purpose::Cached => assert!(again.unwrap().is_none(), "it is to be fetched again"),
            Purpose::Hosted => assert_eq!(again.err().map(|error| error.kind()), Some(Kind::Internal)),
        }
    }
}

#[tokio::test]
async fn what_is_read_again_stays_open_or_in_memory() {
    let place = Place::new(Config { open_limit_files: 2, ..Config::default() }).await;
    let read = async |digest: &Digest| place.blobs.read(digest).await.unwrap().unwrap();
    let middling = place.put(Purpose::Hosted, &content(100_000)).await;
    assert!(read(&middling).await.small().is_none(), "once is no habit");
    assert_eq!(read(&middling).await.small().unwrap(), content(100_000));
    assert_eq!(place.blobs.0.open.count(), 0, "what is in memory needs no file");
    let mut large = Vec::new();
    for length in [1_100_000, 1_200_000, 1_300_000] {
        large.push(place.put(Purpose::Cached, &content(length)).await);
        for _ in 0..3 {
            let blob = read(large.last().unwrap()).await;
            assert!(blob.small().is_none());
            assert!(collect(blob, 0..u64::MAX).await == content(length));
        }
    }
    assert_eq!(place.blobs.0.open.count(), 2, "the limit holds");
    place.pass_grace();
    for digest in large.iter().chain([&middling]) {
        assert!(place.blobs.remove(digest).await.unwrap());
        assert!(place.blobs.read(digest).await.unwrap().is_none());
    }
    assert_eq!(place.blobs.0.open.count(), 0);
}

#[tokio::test]
async fn an_open_file_that_was_touched_is_looked_at_anew() {
    let place = Place::new(Config::default()).await;
    let content = content(1_500_000);
    let digest = place.put(Purpose::Cached, &content).await;
    let read = async || place.blobs.read(&digest).await;
    let path = place.path(&digest);
    for _ in 0..2 {
        assert!(collect(read().await.unwrap().unwrap(), 0..u64::MAX).await == content);
    }
    // Right bytes in another file, as from a backup, are taken; without a name it is gone; a flipped bit is found.
    std::fs::remove_file(&path).unwrap();
    assert!(read().await.unwrap().is_none());
    std::fs::write(&path, &content).unwrap();
    for _ in 0..2 {
        assert!(collect(read().await.unwrap().unwrap(), 0..u64::MAX).await == content);
    }
    assert_eq!(place.blobs.0.open.count(), 1);
    let mut flipped = content.to_vec();
    flipped[700_000] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    let sent: Vec<_> = read().await.unwrap().unwrap().chunks(0..u64::MAX).collect().await;
    assert!(sent.last().unwrap().is_err());
}

#[tokio::test]
async fn planted_names_are_not_followed() {
    let place = Place::new(Config::default()).await;
    let secret = place.folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let digest = Digest::sha256(b"secret");
    symlink(&secret, place.planted(&digest)).unwrap();
    assert!(place.blobs.read(&digest).await.unwrap().is_none());
    assert!(!place.blobs.contains(&digest).await.unwrap());
    let folder = Digest::sha256(b"folder");
    std::fs::create_dir(place.planted(&folder)).unwrap();
    assert!(place.blobs.read(&folder).await.unwrap().is_none());
    // Storing replaces the link and leaves its target alone.
    place.put(Purpose::Hosted, b"secret").await;
    assert!(!place.path(&digest).is_symlink());
    assert!(place.blobs.read(&digest).await.unwrap().is_some());
    assert!(!secret.is_symlink());
}

#[tokio::test]
async fn a_planted_blob_folder_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    symlink("/", folder.path().join("blobs/sha256/ab")).unwrap();
    let opened = Blobs::open(folder.path(), Arc::new(Memory::new()), Clock::system(), Config::default()).await;
    assert!(opened.is_err());
}

#[tokio::test]
async fn the_start_removes_what_a_crash_left() {
    let mut place = Place::new(Config::default()).await;
    std::fs::write(place.folder.path().join("tmp/17"), "half").unwrap();
    std::fs::create_dir(place.folder.path().join("tmp/odd")).unwrap();
    place.reopen().await;
    assert_eq!((place.temporaries(), place.quarantined()), (0, 1));
}

#[tokio::test]
async fn the_index_survives_a_restart_and_drops_what_is_gone() {
    let mut place = Place::new(Config::default()).await;
    let kept = place.put(Purpose::Cached, b"kept").await;
    let gone = place.put(Purpose::Cached, b"gone too").await;
    place.blobs.flush().await.unwrap();
    std::fs::remove_file(place.path(&gone)).unwrap();
    place.reopen().await;
    assert_eq!(place.blobs.usage().cached_bytes, 12);
    assert!(place.blobs.read(&gone).await.unwrap().is_none());
    assert!(place.blobs.read(&kept).await.unwrap().is_some());
    assert_eq!(place.blobs.usage().cached_count, 1);
    place.blobs.flush().await.unwrap();
    place.reopen().await;
    assert_eq!(place.blobs.usage().cached_bytes, 4);
}

#[tokio::test]
async fn a_lease_stops_removal_until_its_grace_has_passed() {
    let place = Place::new(Config::default()).await;
    let lease = place.blobs.put(Purpose::Hosted, Bytes::from_static(b"x")).await.unwrap();
    let digest = *lease.digest();
    let second = place.blobs.lease(&digest);
    assert_eq!(second.size(), 1);
    drop(lease);
    place.pass_grace();
    assert!(!place.blobs.remove(&digest).await.unwrap());
    drop(second);
    assert!(!place.blobs.remove(&digest).await.unwrap(), "no grace");
    place.pass_grace();
    assert!(place.blobs.remove(&digest).await.unwrap());
    assert!(place.blobs.read(&digest).await.unwrap().is_none());
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn a_damaged_cached_blob_is_absent_and_a_damaged_hosted_one_an_error() {
    let mut place = Place::new(Config::default()).await;
    let cached = place.put(Purpose::Cached, &content(1000)).await;
    let hosted = place.put(Purpose::Hosted, &content(2000)).await;
    place.blobs.flush().await.unwrap();
    // From here on the journal does not have it any more.
    place.reopen().await;
    for digest in [&cached, &hosted] {
        let mut bytes = std::fs::read(place.path(digest)).unwrap();
        bytes[500] ^= 1;
        std::fs::write(place.path(digest), bytes).unwrap();
    }
    let large = place.put(Purpose::Cached, &content(100_000)).await;
    place.blobs.flush().await.unwrap();
    std::fs::write(place.path(&large), "short").unwrap();
    place.reopen().await;
    assert!(place.blobs.read(&cached).await.unwrap().is_none());
    assert!(place.blobs.read(&large).await.unwrap().is_none());
    assert_eq!(place.quarantined(), 2);
    for _ in 0..2 {
        assert_eq!(place.blobs.read(&hosted).await.err().unwrap().kind(), Kind::Internal);
    }
    // Publishing it again heals it.
    place.put(Purpose::Hosted, &content(2000)).await;
    place.reopen().await;
    assert!(place.blobs.read(&hosted).await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_read_ends_the_stream_with_an_error() {
    let place = Place::new(Config::default()).await;
    let digest = place.put(Purpose::Hosted, &content(1 << 20)).await;
    let mut chunks = place.blobs.read(&digest).await.unwrap().unwrap().chunks(0..u64::MAX);
    chunks.next().await.unwrap().unwrap();
    std::fs::OpenOptions::new().write(true).open(place.path(&digest)).unwrap().set_len(300_000).unwrap();
    let rest: Vec<_> = chunks.collect().await;
    assert!(rest.last().unwrap().is_err());
}

#[tokio::test]
async fn a_removed_blob_is_read_to_its_end_by_who_opened_it() {
    let place = Place::new(Config::default()).await;
    let digest = place.put(Purpose::Hosted, &content(1 << 20)).await;
    place.pass_grace();
    let blob = place.blobs.read(&digest).await.unwrap().unwrap();
    assert!(place.blobs.remove(&digest).await.unwrap());
    assert_eq!(collect(blob, 0..u64::MAX).await, content(1 << 20));
}

#[tokio::test]
async fn a_lost_folder_is_made_again() {
    let place = Place::new(Config::default()).await;
    let digest = place.put(Purpose::Hosted, b"x").await;
    std::fs::remove_dir_all(place.path(&digest).parent().unwrap()).unwrap();
    assert!(!place.blobs.contains(&digest).await.unwrap());
    place.put(Purpose::Hosted, b"x").await;
    assert!(place.blobs.contains(&digest).await.unwrap());
}

#[tokio::test]
async fn a_blob_that_cannot_take_its_name_leaves_nothing() {
    let place = Place::new(Config::default()).await;
    // A folder with something in it stands where the blob belongs.
    std::fs::create_dir_all(place.path(&Digest::sha256(b"x")).join("inside")).unwrap();
    for purpose in [Purpose::Hosted, Purpose::Cached] {
        assert!(place.blobs.put(purpose, Bytes::from_static(b"x")).await.is_err());
    }
    assert_eq!((place.temporaries(), place.blobs.usage().cached_count), (0, 0));
}
