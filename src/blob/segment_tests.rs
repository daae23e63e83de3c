//! Small cached blobs in segments: restarts, torn ends, flipped bytes, holes.

use std::path::PathBuf;

use super::tests::{Place, content};
use super::*;

impl Place {
    /// Has a body come from an upstream, and waits until it is written.
    async fn fetched(&self, body: &Bytes) -> Digest {
        let digest = Digest::sha256(body);
        let expect = Expect { length: Some(body.len() as u64), promised: vec![digest], inspection: None, limit_bytes: u64::MAX };
        let (mut filler, _spool) = self.blobs.fill(expect).await.unwrap();
        filler.push(body.clone()).await.unwrap();
        assert!(filler.finish().await.unwrap().stored);
        self.blobs.settle().await;
        digest
    }

    async fn all_fetched(&self, bodies: &[Bytes]) -> Vec<Digest> {
        let mut digests = Vec::new();
        for body in bodies {
            digests.push(self.fetched(body).await);
        }
        digests
    }

    async fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        Some(self.blobs.read(digest).await.unwrap()?.bytes(u64::MAX).await.unwrap())
    }

    /// The files of the segments that end so, in the order of their numbers.
    fn segments(&self, end: &str) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.folder.path().join("segments")).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = found.filter(|path| path.extension().is_some_and(|extension| extension == end)).collect();
        found.sort_by_key(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u32>().unwrap());
        found
    }

    fn segment_bytes(&self) -> u64 {
        self.segments("data").iter().map(|path| path.metadata().unwrap().len()).sum()
    }
}

/// Different bodies of 1000 bytes.
fn bodies(count: usize) -> Vec<Bytes> {
    (0..count).map(|number| [format!("{number:09} ").into_bytes(), content(990).to_vec()].concat().into()).collect()
}

#[tokio::test]
async fn small_bodies_are_read_from_one_file_also_after_a_restart() {
    let mut place = Place::new(Config::default()).await;
    let bodies = bodies(5);
    let digests = place.all_fetched(&bodies[..3]).await;
    for _ in 0..2 {
        for (digest, body) in digests.iter().zip(&bodies) {
            place.blobs.0.small.clear();
            assert_eq!(place.bytes(digest).await.as_ref(), Some(body));
            assert!(!place.path(digest).exists() && place.blobs.holds(digest).await.unwrap());
            assert!(!place.blobs.contains(digest).await.unwrap(), "what is hosted may not rest upon it");
        }
        assert_eq!((place.segments("data").len(), place.segment_bytes()), (1, 3000));
        assert_eq!((place.blobs.usage().cached_count, place.blobs.usage().cached_bytes), (3, 3000));
        place.blobs.flush().await.unwrap();
        place.reopen().await;
    }
    // What comes after a restart is added, and what is there already is not written again.
    place.all_fetched(&bodies).await;
    assert_eq!((place.segments("data").len(), place.segment_bytes()), (1, 5000));
    assert_eq!(place.blobs.usage().cached_count, 5);
}

#[tokio::test]
async fn an_empty_body_is_kept_too() {
    let mut place = Place::new(Config::default()).await;
    let digest = place.fetched(&Bytes::new()).await;
    place.reopen().await;
    assert!(place.bytes(&digest).await.is_none_or(|bytes| bytes.is_empty()));
    let digest = place.fetched(&Bytes::new()).await;
    assert_eq!(place.bytes(&digest).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_torn_end_is_fetched_again() {
    let mut place = Place::new(Config::default()).await;
    let bodies = bodies(6);
    let digests = place.all_fetched(&bodies[..4]).await;
    let (data, list) = (place.segments("data").remove(0), place.segments("list").remove(0));
    // The last body did not come to the disk whole, the one before as zeros, and of a fifth line a part.
    let written = std::fs::read(&data).unwrap();
    std::fs::write(&data, [&written[..2000], &[0; 1000], &written[3000..3500]].concat()).unwrap();
    let lines = std::fs::read(&list).unwrap();
    assert_eq!(lines.len(), 4 * 48);
    std::fs::write(&list, [&lines[..], &lines[..17]].concat()).unwrap();
    place.reopen().await;
    assert_eq!(place.blobs.usage().cached_count, 3, "a line past the end counts");
    for (number, digest) in digests.iter().enumerate() {
        assert_eq!(place.bytes(digest).await, (number < 2).then(|| bodies[number].clone()));
        assert_eq!(place.blobs.holds(digest).await.unwrap(), number < 2);
    }
    // They come again, others too, and the next start finds all.
    place.all_fetched(&bodies).await;
    place.reopen().await;
    for body in &bodies {
        assert_eq!(place.bytes(&Digest::sha256(body)).await.as_ref(), Some(body));
    }
}

#[tokio::test]
async fn lists_that_make_no_sense_are_no_blobs() {
    let mut place = Place::new(Config::default()).await;
    let folder = place.folder.path().join("segments");
    let line = |id: [u8; 32], offset: u64, size: u64| [&id[..], &offset.to_be_bytes(), &size.to_be_bytes()].concat();
    std::fs::write(folder.join("7.data"), [9; 100]).unwrap();
    let lines = [line([0; 32], 0, 0), line([1; 32], 90, 11), line([2; 32], u64::MAX, 2), line([3; 32], 10, 20)].concat();
    std::fs::write(folder.join("7.list"), lines).unwrap();
    std::fs::write(folder.join("8.data"), [9; 100]).unwrap();
    std::fs::write(folder.join("9.list"), [9; 100]).unwrap();
    std::fs::write(folder.join("notes"), "").unwrap();
    place.reopen().await;
    assert_eq!((place.blobs.usage().cached_count, place.blobs.usage().cached_bytes), (1, 20));
    assert!(place.bytes(&Digest::new(Algorithm::Sha256, &[3; 32]).unwrap()).await.is_none(), "it was not looked at");
    assert_eq!(place.blobs.usage().cached_count, 0);
    let body = content(50);
    let digest = place.fetched(&body).await;
    place.reopen().await;
    assert_eq!(place.bytes(&digest).await, Some(body));
    assert!(folder.join("notes").exists() && !folder.join("8.data").exists() && !folder.join("9.list").exists());
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_its_reader_or_a_check() {
    let mut place = Place::new(Config::default()).await;
    let bodies = bodies(4);
    let digests = place.all_fetched(&bodies).await;
    let data = place.segments("data").remove(0);
    let mut written = std::fs::read(&data).unwrap();
    written[500] ^= 1;
    written[2500] ^= 1;
    std::fs::write(&data, written).unwrap();
    assert_eq!(place.bytes(&digests[0]).await, None);
    let report = place.blobs.verify(&|_, _| {}).await.unwrap();
    assert_eq!((report.damaged, report.checked, report.missing), (vec![digests[2]], 3, Vec::new()));
    assert_eq!(place.blobs.usage().cached_count, 2);
    place.all_fetched(&bodies).await;
    place.reopen().await;
    for (digest, body) in digests.iter().zip(&bodies) {
        assert_eq!(place.bytes(digest).await.as_ref(), Some(body), "the older copy was taken");
    }
    assert!(place.blobs.verify(&|_, _| {}).await.unwrap().damaged.is_empty());
}

#[tokio::test(start_paused = true)]
async fn eviction_frees_whole_segments_and_closes_holes() {
    let config = Config { cache_limit_bytes: 20_000, segment_bytes: 10_000, write_coalesce_bytes: 3000, ..Config::default() };
    let mut place = Place::new(config).await;
    let bodies = bodies(60);
    let mut digests = Vec::new();
    for body in &bodies {
        place.clock.advance(Duration::from_secs(1));
        digests.push(place.fetched(body).await);
    }
    assert_eq!((place.segments("data").len(), place.segment_bytes()), (6, 60_000));
    // Of each segment one is used.
    place.clock.advance(Duration::from_secs(1));
    let used: Vec<_> = digests.iter().step_by(10).copied().collect();
    for digest in &used {
        assert!(place.bytes(digest).await.is_some());
    }
    let report = place.blobs.evict(&|_| panic!("a copy is nobody's")).await.unwrap();
    assert_eq!(report, EvictReport { removed: 40, removed_bytes: 40_000, hosted: 0, unfinished: false });
    assert_eq!(place.blobs.usage().cached_bytes, 20_000);
    assert!(place.segment_bytes() < 40_000, "{} bytes for 20,000", place.segment_bytes());
    for restarted in [false, true] {
        place.blobs.0.small.clear();
        let mut kept = 0;
        for (digest, body) in digests.iter().zip(&bodies) {
            let found = place.bytes(digest).await;
            kept += usize::from(found.is_some());
            assert!(found.is_none_or(|bytes| bytes == body));
        }
        for digest in &used {
            assert!(place.blobs.holds(digest).await.unwrap(), "a used one went before those that were not");
        }
        // What had left a hole comes back after a restart.
        assert!(if restarted { kept >= 20 } else { kept == 20 }, "{kept}");
        place.reopen().await;
    }
    place.blobs.0.small.clear();
    for digest in &digests {
        place.blobs.0.index.forget(&Id::try_from(digest.bytes()).unwrap());
    }
    assert!(place.segments("data").len() <= 1, "only what is added to may be empty");
}

#[tokio::test(start_paused = true)]
async fn what_is_hosted_does_not_rest_upon_a_segment() {
    let place = Place::new(Config { cache_limit_files: 0, ..Config::default() }).await;
    let bodies = bodies(2);
    // Published after it came from an upstream, and before.
    place.fetched(&bodies[0]).await;
    for body in &bodies {
        place.put(Purpose::Hosted, body).await;
    }
    place.fetched(&bodies[1]).await;
    place.pass_grace();
    place.blobs.evict(&|_| true).await.unwrap();
    assert_eq!(place.blobs.usage().cached_count, 0);
    place.blobs.0.small.clear();
    for body in &bodies {
        assert!(place.blobs.contains(&Digest::sha256(body)).await.unwrap());
        assert_eq!(place.bytes(&Digest::sha256(body)).await.as_ref(), Some(body));
    }
}
