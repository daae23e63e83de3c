//! Filling and following: what readers see, when, and what stays behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};

use super::*;
use crate::blob::Config;
use crate::blob::tests::{Place, content, wait_until};
use crate::digest::Hasher;
use crate::http::ChunkStream;
use crate::store::Batch;
use crate::store::table::{Key, Table};

/// Small parts, so that small bodies take all the ways that large ones do.
fn config() -> Config {
    Config {
        write_coalesce_bytes: 10_000,
        spool_ahead_bytes: 50_000,
        spool_window_bytes: 20_000,
        small_limit_bytes: 1000,
        ..Config::default()
    }
}

/// Two digests, so that large bodies of known length are hashed by two threads.
fn expect(body: &[u8]) -> Expect {
    Expect { length: Some(body.len() as u64), promised: vec![Digest::sha256(body), sha512(body)], inspection: None, limit_bytes: u64::MAX }
}

fn sha512(body: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&[Algorithm::Sha512]);
    hasher.update(body);
    hasher.finish().get(Algorithm::Sha512).unwrap()
}

/// What a reader got, and whether its stream ended without an error.
async fn read(mut chunks: ChunkStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        if let Ok(chunk) = chunk {
            bytes.extend_from_slice(&chunk);
        } else {
            assert!(chunks.next().await.is_none(), "something came after the error");
            return (bytes, false);
        }
    }
    (bytes, true)
}

async fn push_all(filler: &mut Filler, body: &Bytes, frame: usize) -> Result<()> {
    for start in (0..body.len()).step_by(frame) {
        filler.push(body.slice(start..(start + frame).min(body.len()))).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Nothing is kept, indexed or left over.
async fn assert_nothing_stays(place: &Place, body: &[u8]) {
    place.blobs.settle().await;
    wait_until(|| place.temporaries() == 0).await;
    assert!(!place.blobs.holds(&Digest::sha256(body)).await.unwrap());
    assert_eq!(place.blobs.usage().cached_count, 0);
    assert_eq!(place.blobs.0.fills.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_get_every_byte_whenever_they_come() {
    for length in [0, 1, 999, 10_000, 10_001, 400_000] {
        let place = Place::new(config()).await;
        let body = content(length);
        let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
        assert_eq!(spool.length(), Some(length as u64));
        let early = (0..8).map(|_| tokio::spawn(read(spool.chunks(None)))).collect::<Vec<_>>();
        let slow = tokio::spawn({
            let mut chunks = spool.chunks(None);
            async move {
                let mut bytes = Vec::new();
                while let Some(chunk) = chunks.next().await {
                    bytes.extend_from_slice(&chunk.unwrap());
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
                bytes
            }
        });
        let half = body.slice(..length / 2);
        push_all(&mut filler, &half, 1700).await.unwrap();
        let late = (0..4).map(|_| tokio::spawn(read(spool.chunks(None)))).collect::<Vec<_>>();
        let middle = length as u64 / 3..length as u64 / 3 * 2;
        let part = tokio::spawn(read(spool.chunks(Some(middle.clone()))));
        // One that leaves at once.
        drop(spool.chunks(None));
        push_all(&mut filler, &body.slice(length / 2..), 1700).await.unwrap();
        assert_eq!(filler.received(), length as u64);
        let kept = filler.finish().await.unwrap();
        assert!(kept.stored);
        assert_eq!((kept.size, kept.digests.sha256), (length as u64, Digest::sha256(&body)));
        let after = read(spool.chunks(None)).await;
        for (bytes, clean) in join_all(early.into_iter().chain(late)).await.into_iter().map(std::result::Result::unwrap).chain([after]) {
            assert!(clean && bytes == body, "{length}: {} bytes, clean: {clean}", bytes.len());
        }
        assert!(slow.await.unwrap() == body);
        let (bytes, clean) = part.await.unwrap();
        assert!(clean && bytes == body[usize::try_from(middle.start).unwrap()..usize::try_from(middle.end).unwrap()]);
        let finished = spool.finished().await.unwrap();
        assert_eq!((finished.size, finished.stored, finished.digests), (length as u64, true, kept.digests));
        let blob = place.blobs.read(&Digest::sha256(&body)).await.unwrap().unwrap();
        assert_eq!(blob.bytes(u64::MAX).await.unwrap(), body);
        place.blobs.settle().await;
        assert_eq!((place.temporaries(), place.blobs.usage().cached_bytes), (0, length as u64));
    }
}

#[tokio::test]
async fn the_last_frame_comes_after_the_proof_only() {
    for length in [Some(20_000), None] {
        let place = Place::new(config()).await;
        let body = content(20_000);
        let (mut filler, spool) = place.blobs.fill(Expect { length, ..expect(&body) }).await.unwrap();
        let mut chunks = spool.chunks(None);
        filler.push(body.slice(..15_000)).await.unwrap();
        filler.push(body.slice(15_000..)).await.unwrap();
        assert_eq!(chunks.next().await.unwrap().unwrap(), body[..15_000]);
        assert!(chunks.next().now_or_never().is_none());
        let mut part = spool.chunks(Some(5..10));
        let mut got = Vec::new();
        while let Some(Some(chunk)) = part.next().now_or_never() {
            got.extend_from_slice(&chunk.unwrap());
        }
        assert!(got.len() < 5, "a range ended before the proof");
        filler.finish().await.unwrap();
        assert_eq!(chunks.next().await.unwrap().unwrap(), body[15_000..]);
        assert!(chunks.next().await.is_none());
        got.extend(read(part).await.0);
        assert_eq!(got, body[5..10]);
    }
}

#[tokio::test]
async fn copies_are_readable_in_frames_and_the_last_comes_after_the_proof() {
    let place = Place::new(Config { write_coalesce_bytes: 1 << 20, ..Config::default() }).await;
    let body = content(1_000_000);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    let mut chunks = spool.chunks(None);
    filler.push_copy(&body[..400_000]).await.unwrap();
    filler.push_copy(&[]).await.unwrap();
    filler.push_copy(&body[400_000..]).await.unwrap();
    let mut got = Vec::new();
    while let Some(Some(chunk)) = chunks.next().now_or_never() {
        got.extend_from_slice(&chunk.unwrap());
    }
    assert!((900_000..body.len()).contains(&got.len()) && got == body[..got.len()], "{} bytes before the proof", got.len());
    assert!(filler.finish().await.unwrap().stored);
    got.extend(read(chunks).await.0);
    assert!(got == body);
}

#[tokio::test]
async fn a_broken_promise_ends_no_reader_cleanly_and_keeps_nothing() {
    for length in [1, 999, 60_000] {
        for promise in [Digest::sha256(b"other"), Digest::new(Algorithm::Sha1, &[7; 20]).unwrap(), sha512(b"other")] {
            let place = Place::new(config()).await;
            let body = content(length);
            let expect = Expect { promised: vec![Digest::sha256(&body), promise], ..expect(&body) };
            let (mut filler, spool) = place.blobs.fill(expect).await.unwrap();
            let readers: Vec<_> = [None, Some(0..length as u64), Some(0..1)].into_iter().map(|range| spool.chunks(range)).collect();
            let readers: Vec<_> = readers.into_iter().map(|chunks| tokio::spawn(read(chunks))).collect();
            push_all(&mut filler, &body, 1000).await.unwrap();
            let error = filler.finish().await.unwrap_err();
            assert_eq!((error.kind(), error.subject()), (Kind::BadUpstream, Subject::Blob));
            for reader in readers {
                let (bytes, clean) = reader.await.unwrap();
                assert!(!clean && bytes.len() < length);
            }
            assert_eq!(spool.finished().await.unwrap_err().kind(), Kind::BadUpstream);
            assert!(!read(spool.chunks(None)).await.1);
            assert_nothing_stays(&place, &body).await;
        }
    }
}

#[tokio::test]
async fn a_body_is_looked_at_as_a_whole_before_its_end_leaves() {
    for length in [1, 999, 60_000] {
        for right in [true, false] {
            let place = Place::new(config()).await;
            let body = content(length);
            let wanted = if right { body.clone() } else { Bytes::from_static(b"other") };
            let inspection: Inspection = Arc::new(move |source| {
                let mut read = Vec::new();
                std::io::Read::read_to_end(source, &mut read).unwrap();
                if read == wanted { Ok(()) } else { Err(Error::invalid(Subject::File, "it is another")) }
            });
            let expect = Expect { promised: Vec::new(), inspection: Some(inspection), ..expect(&body) };
            let (mut filler, spool) = place.blobs.fill(expect).await.unwrap();
            let reader = tokio::spawn(read(spool.chunks(None)));
            push_all(&mut filler, &body, 1000).await.unwrap();
            let kept = filler.finish().await;
            let (bytes, clean) = reader.await.unwrap();
            if right {
                assert!(kept.unwrap().stored && clean && bytes == body);
            } else {
                assert_eq!(kept.unwrap_err().kind(), Kind::BadUpstream);
                assert!(!clean && bytes.len() < length);
                assert_nothing_stays(&place, &body).await;
            }
        }
    }
}

#[tokio::test]
async fn a_body_of_another_length_fails() {
    let place = Place::new(config()).await;
    let body = content(30_000);
    let wrong = |length| Expect { length: Some(length), promised: Vec::new(), inspection: None, limit_bytes: 40_000 };
    // Too short.
    let (mut filler, spool) = place.blobs.fill(wrong(30_001)).await.unwrap();
    push_all(&mut filler, &body, 1000).await.unwrap();
    let reader = spool.chunks(None);
    assert_eq!(filler.finish().await.unwrap_err().kind(), Kind::BadUpstream);
    assert!(!read(reader).await.1);
    // Too long.
    let (mut filler, spool) = place.blobs.fill(wrong(29_999)).await.unwrap();
    let reader = spool.chunks(None);
    assert_eq!(push_all(&mut filler, &body, 1000).await.unwrap_err().kind(), Kind::BadUpstream);
    assert_eq!(filler.push(body.slice(..1)).await.unwrap_err().kind(), Kind::BadUpstream);
    drop(filler);
    let (bytes, clean) = read(reader).await;
    assert!(!clean && bytes.len() < 29_999);
    // Past the limit, announced and not.
    assert_eq!(place.blobs.fill(wrong(40_001)).await.err().unwrap().kind(), Kind::TooLarge);
    let (mut filler, _spool) =
        place.blobs.fill(Expect { length: None, promised: Vec::new(), inspection: None, limit_bytes: 29_999 }).await.unwrap();
    assert_eq!(push_all(&mut filler, &body, 1000).await.unwrap_err().kind(), Kind::TooLarge);
    drop(filler);
    // A length that becomes known later.
    let (mut filler, _spool) =
        place.blobs.fill(Expect { length: None, promised: Vec::new(), inspection: None, limit_bytes: 40_000 }).await.unwrap();
    push_all(&mut filler, &body, 1000).await.unwrap();
    filler.set_length(29_000);
    assert_eq!(filler.finish().await.unwrap_err().kind(), Kind::BadUpstream);
    assert_nothing_stays(&place, &body).await;
}

#[tokio::test]
async fn giving_up_at_any_point_fails_every_reader() {
    let body = content(60_000);
    for pushed in [0, 500, 15_000, 60_000] {
        let place = Place::new(config()).await;
        let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
        let reader = tokio::spawn(read(spool.chunks(None)));
        push_all(&mut filler, &body.slice(..pushed), 1000).await.unwrap();
        if pushed == 500 {
            filler.fail(&Error::new(Kind::TimedOut, Subject::Upstream).saying("stalled"));
            let error = spool.finished().await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::TimedOut, "stalled"));
        } else {
            drop(filler);
            assert_eq!(spool.finished().await.unwrap_err().kind(), Kind::BadUpstream);
        }
        let (bytes, clean) = reader.await.unwrap();
        assert!(!clean && bytes.len() <= pushed && !spool.is_whole());
        assert_nothing_stays(&place, &body).await;
    }
}

#[tokio::test]
async fn a_dropped_finish_still_has_an_outcome() {
    let place = Place::new(config()).await;
    let body = content(60_000);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    let reader = spool.chunks(None);
    push_all(&mut filler, &body, 1000).await.unwrap();
    wait_until(|| !spool.shared.is_busy()).await;
    // Polled once and dropped, as a rule before the thread that concludes is done.
    let _ = filler.finish().now_or_never();
    assert!(spool.finished().await.unwrap().stored);
    assert!(read(reader).await.1);
}

#[tokio::test]
async fn a_slow_reader_holds_no_memory_while_the_disk_takes_the_bytes() {
    let place = Place::new(config()).await;
    let body = content(2_000_000);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    let idle = spool.chunks(None);
    for start in (0..body.len()).step_by(1000) {
        filler.push(body.slice(start..start + 1000)).await.unwrap();
        let kept = spool.shared.lock().window.kept();
        assert!(kept <= 50_000 + 20_000 + 1000 + 40_000, "{kept} bytes in memory");
    }
    filler.finish().await.unwrap();
    assert_eq!(spool.shared.lock().window.kept(), 0);
    let (bytes, clean) = read(idle).await;
    assert!(clean && bytes == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_passes_the_body_on_to_who_follows() {
    // Full from the start, and full after a while.
    for free in [0, 300_000] {
        let place = Place::new(Config { hosted_reserve_bytes: 1000, metadata_reserve_bytes: 0, ..config() }).await;
        let body = content(200_000);
        let length = if free == 0 { Some(200_000) } else { None };
        place.free.store(free, Ordering::Relaxed);
        let (mut filler, spool) = place.blobs.fill(Expect { length, ..expect(&body) }).await.unwrap();
        let readers: Vec<_> = (0..3)
            .map(|pace| {
                let mut chunks = spool.chunks(None);
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    while let Some(chunk) = chunks.next().await {
                        bytes.extend_from_slice(&chunk.unwrap());
                        tokio::time::sleep(Duration::from_micros(pace * 500)).await;
                    }
                    bytes
                })
            })
            .collect();
        for start in (0..body.len()).step_by(1000) {
            if start == 60_000 {
                place.free.store(0, Ordering::Relaxed);
            }
            filler.push(body.slice(start..start + 1000)).await.unwrap();
            assert!(spool.shared.lock().window.kept() <= 50_000 + 20_000 + 1000 + 40_000);
        }
        let kept = filler.finish().await.unwrap();
        assert!(!kept.stored);
        assert_eq!(kept.digests.sha256, Digest::sha256(&body));
        for reader in readers {
            assert!(reader.await.unwrap() == body);
        }
        assert!(!spool.is_whole());
        assert!(!read(spool.chunks(None)).await.1, "a late reader was not told");
        drop(spool);
        assert_nothing_stays(&place, &body).await;
    }
}

#[tokio::test]
async fn without_disk_and_readers_the_fill_still_ends() {
    let place = Place::new(config()).await;
    place.free.store(0, Ordering::Relaxed);
    let body = content(200_000);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    push_all(&mut filler, &body, 1000).await.unwrap();
    assert!(!filler.finish().await.unwrap().stored);
    assert!(!spool.is_whole());
    let small = content(5000);
    let (mut filler, spool) = place.blobs.fill(expect(&small)).await.unwrap();
    push_all(&mut filler, &small, 1000).await.unwrap();
    assert!(!filler.finish().await.unwrap().stored);
    assert!(spool.is_whole());
    assert_eq!(read(spool.chunks(None)).await, (small.to_vec(), true));
    assert_nothing_stays(&place, &body).await;
}

#[tokio::test]
async fn a_range_does_not_stop_a_fill_without_disk() {
    let place = Place::new(config()).await;
    place.free.store(0, Ordering::Relaxed);
    let body = content(200_000);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    let early = tokio::spawn(read(spool.chunks(Some(0..100))));
    let late = tokio::spawn(read(spool.chunks(Some(150_000..150_001))));
    let whole = tokio::spawn(read(spool.chunks(None)));
    let fill = async {
        push_all(&mut filler, &body, 1000).await.unwrap();
        filler.finish().await.unwrap()
    };
    tokio::time::timeout(Duration::from_secs(20), fill).await.expect("the fill hangs");
    assert_eq!(early.await.unwrap(), (body[..100].to_vec(), true));
    assert_eq!(late.await.unwrap(), (body[150_000..150_001].to_vec(), true));
    assert!(whole.await.unwrap() == (body.to_vec(), true));
}

#[tokio::test]
async fn a_stuck_reader_without_disk_holds_the_fill_until_it_leaves() {
    let place = Place::new(config()).await;
    place.free.store(0, Ordering::Relaxed);
    let body = content(200_000);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    let stuck = spool.chunks(None);
    let pushing = tokio::spawn(async move {
        push_all(&mut filler, &body, 1000).await.unwrap();
        filler.finish().await.unwrap().stored
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!pushing.is_finished());
    drop(stuck);
    assert!(!pushing.await.unwrap());
}

#[tokio::test]
async fn a_range_past_the_end_is_an_error() {
    let place = Place::new(config()).await;
    let body = content(100);
    let (mut filler, spool) = place.blobs.fill(Expect { length: None, ..expect(&body) }).await.unwrap();
    filler.push(body.clone()).await.unwrap();
    let past = [spool.chunks(Some(50..101)), spool.chunks(Some(200..300))];
    let empty = spool.chunks(Some(10..10));
    filler.finish().await.unwrap();
    for chunks in past {
        assert!(!read(chunks).await.1);
    }
    assert_eq!(read(empty).await, (Vec::new(), true));
}

/// The thread that hashes comes and goes while bytes are pushed; none may be left behind, however they meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushing_and_hashing_never_miss_each_other() {
    let place = Place::new(Config { write_coalesce_bytes: 50, spool_ahead_bytes: 100, spool_window_bytes: 50, ..config() }).await;
    for round in 0..150 {
        place.free.store(if round % 3 == 0 { 0 } else { u64::MAX }, Ordering::Relaxed);
        let body = content(3000 + round);
        let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
        let reader = tokio::spawn(read(spool.chunks(None)));
        let fill = async {
            for start in (0..body.len()).step_by(40) {
                filler.push(body.slice(start..(start + 40).min(body.len()))).await.unwrap();
            }
            filler.finish().await.unwrap()
        };
        let kept = tokio::time::timeout(Duration::from_secs(20), fill).await.expect("the fill hangs");
        assert_eq!(kept.stored, round % 3 != 0);
        let (bytes, clean) = reader.await.unwrap();
        assert!(clean && bytes == body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_bodies_at_once_are_all_kept_behind_their_readers() {
    // Room for two of them at a time.
    let place = Place::new(Config { write_behind_bytes: 2048, ..config() }).await;
    let fills = (0..200).map(|number| {
        let blobs = place.blobs.clone();
        tokio::spawn(async move {
            let body: Bytes = format!("{number:0900}").into();
            let (mut filler, spool) = blobs.fill(expect(&body)).await.unwrap();
            let reader = tokio::spawn(read(spool.chunks(None)));
            filler.push(body.slice(..500)).await.unwrap();
            filler.push(body.slice(500..)).await.unwrap();
            let kept = filler.finish().await.unwrap();
            assert!(kept.stored && reader.await.unwrap() == (body.to_vec(), true));
            body
        })
    });
    for fill in join_all(fills).await {
        let body = fill.unwrap();
        // From the disk and not from memory.
        place.blobs.settle().await;
        place.blobs.0.small.clear();
        let blob = place.blobs.read(&Digest::sha256(&body)).await.unwrap().unwrap();
        assert_eq!(blob.bytes(u64::MAX).await.unwrap(), body);
    }
    assert_eq!((place.blobs.usage().cached_count, place.temporaries()), (200, 0));
}

static REFERENCES: Table<u64> = Table::new("references");

fn refer(digest: &Digest, size: u64) -> Result<Batch> {
    let mut rows = Batch::new();
    REFERENCES.put(&mut rows, Key::new().bytes(digest.bytes()), &size)?;
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refers_to_a_blob_is_committed_with_it() {
    let mut place = Place::new(config()).await;
    for length in [900, 60_000] {
        let body = content(length);
        let digest = Digest::sha256(&body);
        // One body by two names at once: each refers to it.
        let fill = async || {
            let (mut filler, _spool) = place.blobs.fill(expect(&body)).await.unwrap();
            push_all(&mut filler, &body, 1000).await.unwrap();
            assert!(filler.finish_with(refer).await.unwrap().stored);
            // Whether it is written by now or not.
            assert!(place.blobs.holds(&digest).await.unwrap());
            assert_eq!(place.blobs.read(&digest).await.unwrap().unwrap().bytes(u64::MAX).await.unwrap(), body);
        };
        tokio::join!(fill(), fill());
        place.blobs.settle().await;
        place.reopen().await;
        let row = REFERENCES.get(&*place.store, Key::new().bytes(digest.bytes())).await.unwrap();
        assert_eq!(row.unwrap().value, length as u64);
        assert_eq!(place.blobs.read(&digest).await.unwrap().unwrap().bytes(u64::MAX).await.unwrap(), body);
    }
    assert_eq!(place.blobs.usage().cached_count, 2, "the index was not written with them");
}

#[tokio::test]
async fn nothing_refers_to_what_could_not_be_kept() {
    let place = Place::new(Config { hosted_reserve_bytes: 1000, metadata_reserve_bytes: 0, ..config() }).await;
    for length in [900, 5000] {
        let body = content(length);
        let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
        let chunks = spool.chunks(None);
        push_all(&mut filler, &body, 1000).await.unwrap();
        place.free.store(0, Ordering::Relaxed);
        assert!(!filler.finish_with(refer).await.unwrap().stored);
        assert_eq!(read(chunks).await, (body.to_vec(), true));
        assert_nothing_stays(&place, &body).await;
        assert!(REFERENCES.get(&*place.store, Key::new().bytes(Digest::sha256(&body).bytes())).await.unwrap().is_none());
        place.free.store(u64::MAX, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_small_body_is_in_memory_from_its_second_use_on() {
    let place = Place::new(config()).await;
    let body = content(900);
    let digest = Digest::sha256(&body);
    let (mut filler, _spool) = place.blobs.fill(expect(&body)).await.unwrap();
    filler.push(body.clone()).await.unwrap();
    filler.finish().await.unwrap();
    place.blobs.settle().await;
    assert_eq!(place.blobs.0.small.len(), 0, "nobody has asked for it again");
    assert_eq!(place.blobs.read(&digest).await.unwrap().unwrap().small().unwrap(), body);
    assert_eq!(place.blobs.0.small.len(), 1);
}

#[tokio::test]
async fn a_small_body_is_written_though_nobody_waits_for_it() {
    let place = Place::new(config()).await;
    let body = content(900);
    let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
    filler.push(body.clone()).await.unwrap();
    // Polled once and dropped.
    let _ = filler.finish().now_or_never();
    assert_eq!(read(spool.chunks(None)).await, (body.to_vec(), true));
    wait_until(|| place.blobs.usage().cached_count == 1).await;
    assert!(place.blobs.holds(&Digest::sha256(&body)).await.unwrap());
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_end_takes_nothing_from_the_readers() {
    let place = Place::new(Config { hosted_reserve_bytes: 1000, metadata_reserve_bytes: 0, ..config() }).await;
    for length in [900, 5000] {
        place.free.store(u64::MAX, Ordering::Relaxed);
        let body = content(length);
        let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
        let chunks = spool.chunks(None);
        filler.push(body.clone()).await.unwrap();
        place.free.store(0, Ordering::Relaxed);
        assert!(!filler.finish().await.unwrap().stored);
        assert_eq!(read(chunks).await, (body.to_vec(), true));
        drop(spool);
        assert_nothing_stays(&place, &body).await;
    }
}

/// What was hosted is on disk; a copy from an upstream that is not must not take its place.
#[tokio::test]
async fn a_filled_blob_of_a_hosted_name_is_on_disk_first() {
    let place = Place::new(config()).await;
    for length in [900, 60_000] {
        let body = content(length);
        place.blobs.put(Purpose::Hosted, body.clone()).await.unwrap();
        let (mut filler, spool) = place.blobs.fill(expect(&body)).await.unwrap();
        push_all(&mut filler, &body, 1000).await.unwrap();
        assert!(filler.finish().await.unwrap().stored);
        assert_eq!(read(spool.chunks(None)).await, (body.to_vec(), true));
        assert_eq!(place.temporaries(), 0);
    }
}
