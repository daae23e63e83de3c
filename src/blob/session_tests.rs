//! Upload sessions: resuming, whose they are, how many there may be, and how long they live.

use std::time::Duration;

use bytes::Bytes;

use super::session::Holder;
use super::tests::Place;
use super::*;
use crate::error::Kind;
use crate::package::AccountId;

fn holder(user: u64, place: &str) -> Holder {
    Holder { user: AccountId(user), place: place.to_owned() }
}

async fn place() -> Place {
    let config = Config { upload_sessions: 3, upload_sessions_per_user: 2, upload_idle_seconds: 60, ..Config::default() };
    Place::new(config).await
}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn a_blob_is_written_over_several_requests_and_a_cut_loses_nothing() {
    let place = place().await;
    let (ann, whole) = (holder(1, "app"), bytes(5 << 20));
    let id = place.blobs.open_session(ann.clone(), &[], u64::MAX).await.unwrap();
    let cuts = [0, 10, 3 << 20, (3 << 20) + 1, whole.len()];
    for part in cuts.windows(2) {
        let mut writer = place.blobs.resume_session(&id, &ann).await.unwrap();
        assert_eq!(writer.written(), part[0] as u64);
        for chunk in whole[part[0]..part[1]].chunks(100_000) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        if part[0] == 10 {
            // The connection broke off: nobody said goodbye.
            drop(writer);
            assert_eq!(place.blobs.tidy_sessions().await, 0);
        } else {
            assert_eq!(writer.pause().await.unwrap(), part[1] as u64);
        }
        assert_eq!(place.blobs.session_size(&id, &ann).unwrap(), part[1] as u64);
    }
    let staged = place.blobs.resume_session(&id, &ann).await.unwrap().finish().await.unwrap();
    assert_eq!((staged.digests().sha256, staged.size()), (Digest::sha256(&whole), whole.len() as u64));
    let lease = staged.keep().await.unwrap();
    let kept = place.blobs.read(lease.digest()).await.unwrap().unwrap().bytes(u64::MAX).await.unwrap();
    assert!(kept == whole);
    assert_eq!(place.blobs.resume_session(&id, &ann).await.map(drop).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn a_request_that_stops_waiting_in_the_middle_of_a_write_loses_nothing() {
    let place = place().await;
    let (ann, whole) = (holder(1, "app"), bytes(8 << 20));
    let id = place.blobs.open_session(ann.clone(), &[], u64::MAX).await.unwrap();
    let mut sent = 0;
    for chunk in whole.chunks(1 << 20) {
        let mut writer = place.blobs.resume_session(&id, &ann).await.unwrap();
        assert_eq!(writer.written(), sent);
        // Polled once and dropped, wherever it happens to wait.
        let _ = futures_util::FutureExt::now_or_never(writer.write(Bytes::copy_from_slice(chunk)));
        sent += chunk.len() as u64;
    }
    let staged = place.blobs.resume_session(&id, &ann).await.unwrap().finish().await.unwrap();
    assert_eq!(staged.digests().sha256, Digest::sha256(&whole));
}

#[tokio::test]
async fn a_digest_that_was_not_foreseen_is_computed_from_the_disk() {
    let place = place().await;
    let (ann, whole) = (holder(1, "app"), bytes(700_000));
    let expected = {
        let mut hasher = crate::digest::Hasher::new(&[Algorithm::Sha512]);
        hasher.update(&whole);
        hasher.finish().get(Algorithm::Sha512).unwrap()
    };
    for foreseen in [true, false] {
        let id = place.blobs.open_session(ann.clone(), &[], u64::MAX).await.unwrap();
        let mut writer = place.blobs.resume_session(&id, &ann).await.unwrap();
        if foreseen {
            writer.want(Algorithm::Sha512);
        }
        writer.write(whole.clone()).await.unwrap();
        if !foreseen {
            writer.want(Algorithm::Sha512);
        }
        let staged = writer.finish().await.unwrap();
        assert_eq!(staged.digests().get(Algorithm::Sha512).is_some(), foreseen);
        assert_eq!(staged.digest(Algorithm::Sha512).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_session_is_found_by_its_holder_alone() {
    let place = place().await;
    let ann = holder(1, "app");
    let id = place.blobs.open_session(ann.clone(), &[], 100).await.unwrap();
    for other in [holder(2, "app"), holder(1, "other")] {
        assert_eq!(place.blobs.session_size(&id, &other).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(place.blobs.resume_session(&id, &other).await.map(drop).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(place.blobs.cancel_session(&id, &other).unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(place.blobs.session_size("nonsense", &ann).unwrap_err().kind(), Kind::NotFound);
    place.blobs.resume_session(&id, &ann).await.unwrap().pause().await.unwrap();
    place.blobs.cancel_session(&id, &ann).unwrap();
    assert_eq!(place.blobs.session_size(&id, &ann).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn there_are_only_so_many_and_idle_ones_end() {
    let place = place().await;
    let open = async |user| place.blobs.open_session(holder(user, "app"), &[], 100).await;
    let first = open(1).await.unwrap();
    open(1).await.unwrap();
    assert_eq!(open(1).await.unwrap_err().kind(), Kind::TooMany, "one user has as many as that");
    open(2).await.unwrap();
    let full = open(3).await.unwrap_err();
    assert_eq!((full.kind(), full.wait().is_some()), (Kind::TooMany, true));
    let mut used = place.blobs.resume_session(&first, &holder(1, "app")).await.unwrap();
    used.write(Bytes::from_static(b"x")).await.unwrap();
    used.pause().await.unwrap();
    assert_eq!(place.temporaries(), 1);
    place.clock.advance(Duration::from_secs(59));
    assert_eq!(place.blobs.tidy_sessions().await, 0);
    assert_eq!(place.blobs.session_size(&first, &holder(1, "app")).unwrap(), 1, "asking keeps it");
    place.clock.advance(Duration::from_secs(1));
    // The place of an idle one is there at once, without waiting for the job.
    let third = open(3).await.unwrap();
    assert_eq!(place.blobs.session_size(&first, &holder(1, "app")).unwrap(), 1);
    let busy = place.blobs.resume_session(&first, &holder(1, "app")).await.unwrap();
    place.clock.advance(Duration::from_secs(60));
    assert_eq!(place.blobs.tidy_sessions().await, 1, "the one that is in use stays");
    assert!(place.blobs.session_size(&third, &holder(3, "app")).is_err());
    drop(busy);
    place.clock.advance(Duration::from_secs(60));
    assert_eq!(place.blobs.tidy_sessions().await, 1);
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_request_waits_for_the_first_and_not_for_ever() {
    let place = place().await;
    let ann = holder(1, "app");
    let id = place.blobs.open_session(ann.clone(), &[], 100).await.unwrap();
    let first = place.blobs.resume_session(&id, &ann).await.unwrap();
    assert_eq!(place.blobs.resume_session(&id, &ann).await.map(drop).unwrap_err().kind(), Kind::TooMany);
    let (second, ()) = tokio::join!(place.blobs.resume_session(&id, &ann), async { drop(first) });
    assert!(second.is_ok());
}

#[tokio::test]
async fn what_is_too_large_or_has_no_room_ends_the_session() {
    let place = place().await;
    let ann = holder(1, "app");
    let id = place.blobs.open_session(ann.clone(), &[], 10).await.unwrap();
    let mut writer = place.blobs.resume_session(&id, &ann).await.unwrap();
    assert_eq!(writer.write(Bytes::from_static(b"eleven byte")).await.unwrap_err().kind(), Kind::TooLarge);
    drop(writer);
    assert!(place.blobs.session_size(&id, &ann).is_err());
    let id = place.blobs.open_session(ann.clone(), &[], 10).await.unwrap();
    place.free.store(0, std::sync::atomic::Ordering::Relaxed);
    let mut writer = place.blobs.resume_session(&id, &ann).await.unwrap();
    writer.write(Bytes::from_static(b"ten bytes!")).await.unwrap();
    assert_eq!(writer.pause().await.unwrap_err().kind(), Kind::Unavailable);
    assert!(place.blobs.session_size(&id, &ann).is_err());
    assert_eq!(place.temporaries(), 0);
}
