//! What a loss of power may leave of small hosted blobs, and what the journal makes of it.

use std::os::unix::fs::FileExt as _;

use super::tests::{Place, content};
use super::*;

async fn put_all(place: &Place, contents: &[Bytes]) -> Vec<Digest> {
    let kept = contents.iter().map(|content| place.put(Purpose::Hosted, content));
    futures_util::future::join_all(kept).await
}

fn journal(place: &Place, number: usize) -> std::path::PathBuf {
    place.folder.path().join("journal").join(number.to_string())
}

async fn expect_whole(place: &Place, contents: &[Bytes]) {
    for content in contents {
        assert!(is_whole(place, content).await);
    }
}

async fn is_whole(place: &Place, content: &Bytes) -> bool {
    let digest = Digest::sha256(content);
    let read = async { place.blobs.read(&digest).await.ok().flatten() };
    read.await.is_some() && std::fs::read(place.path(&digest)).is_ok_and(|found| found == *content)
}

/// Contents of different lengths, the empty one among them.
fn contents(count: usize) -> Vec<Bytes> {
    let all = content(count * 400);
    (0..count).map(|number| all.slice(number * 400..number * 400 + number * 7 % 400)).collect()
}

#[tokio::test]
async fn files_that_a_loss_of_power_has_spoilt_are_restored() {
    let mut place = Place::new(Config::default()).await;
    let contents = contents(60);
    let digests = put_all(&place, &contents).await;
    for (number, digest) in digests.iter().enumerate() {
        let path = place.path(digest);
        match number % 4 {
            0 => std::fs::remove_file(path).unwrap(),
            1 => std::fs::write(path, b"").unwrap(),
            2 => std::fs::write(&path, vec![0; contents[number].len()]).unwrap(),
            _ => {}
        }
    }
    place.reopen().await;
    for content in &contents {
        assert!(is_whole(&place, content).await, "{} bytes", content.len());
    }
    assert!(!journal(&place, 0).exists(), "all is on disk");
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn what_was_not_written_whole_is_left_out() {
    let mut place = Place::new(Config::default()).await;
    let contents = [content(500), content(700), content(900)];
    for content in &contents {
        // One after the other, so that each is a group on a block of its own.
        place.put(Purpose::Hosted, content).await;
        std::fs::remove_file(place.path(&Digest::sha256(content))).unwrap();
    }
    let torn = std::fs::OpenOptions::new().write(true).open(journal(&place, 0)).unwrap();
    torn.write_all_at(b"?", 2 * 4096 + 300).unwrap();
    place.reopen().await;
    let whole = [is_whole(&place, &contents[0]).await, is_whole(&place, &contents[1]).await, is_whole(&place, &contents[2]).await];
    assert_eq!(whole, [true, true, false]);
}

#[tokio::test]
async fn the_files_are_taken_in_turn_and_old_records_count_no_more() {
    // Each file has room for two blocks.
    let mut place = Place::new(Config { journal_bytes: 1, small_limit_bytes: 1000, ..Config::default() }).await;
    let contents: Vec<Bytes> = (0..21).map(|number| content(400 + number)).collect();
    for content in &contents {
        place.put(Purpose::Hosted, content).await;
    }
    let sizes = [0, 1].map(|number| std::fs::metadata(journal(&place, number)).unwrap().len());
    assert_eq!(sizes, [8192, 8192]);
    for content in &contents {
        assert!(is_whole(&place, content).await);
        std::fs::remove_file(place.path(&Digest::sha256(content))).unwrap();
    }
    place.reopen().await;
    let mut restored = Vec::new();
    for (number, content) in contents.iter().enumerate() {
        if is_whole(&place, content).await {
            restored.push(number);
        }
    }
    // The last one, in a file whose second block is of an earlier generation, and the two of the other file.
    assert_eq!(restored, [18, 19, 20]);
}

#[tokio::test]
async fn a_group_larger_than_a_file_takes_both() {
    let mut place = Place::new(Config { journal_bytes: 1, small_limit_bytes: 1000, ..Config::default() }).await;
    let contents: Vec<Bytes> = (0..60).map(|number| content(900 + number)).collect();
    put_all(&place, &contents).await;
    place.reopen().await;
    expect_whole(&place, &contents).await;
}

#[tokio::test]
async fn after_a_stop_the_journal_is_empty_and_blobs_are_kept_without_it() {
    let place = Place::new(Config::default()).await;
    place.put(Purpose::Hosted, &content(10)).await;
    place.blobs.close_journal();
    assert!(!journal(&place, 0).exists());
    place.put(Purpose::Hosted, &content(20)).await;
    assert!(!journal(&place, 0).exists());
    assert!(is_whole(&place, &content(10)).await && is_whole(&place, &content(20)).await);
}

#[tokio::test]
async fn without_a_journal_each_blob_is_synced_by_itself() {
    let mut place = Place::new(Config::default()).await;
    std::fs::create_dir(journal(&place, 0)).unwrap();
    let contents = contents(9);
    put_all(&place, &contents).await;
    std::fs::remove_dir(journal(&place, 0)).unwrap();
    place.reopen().await;
    expect_whole(&place, &contents).await;
}

#[tokio::test]
async fn a_full_disk_takes_no_small_blob() {
    let place = Place::new(Config::default()).await;
    place.free.store(1000, std::sync::atomic::Ordering::Relaxed);
    let error = place.blobs.put(Purpose::Hosted, content(10)).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Unavailable);
    assert!(!is_whole(&place, &content(10)).await);
}
