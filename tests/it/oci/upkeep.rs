//! Cleaning beside pushes, what is given up in time, and what a restart leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Repository, refused, repository};
use crate::harness::{Blob, Image, Server, Setup, files_below};
use crate::upkeep::age;

/// The files of blobs, and of uploads that are under way.
fn kept(server: &Server) -> (usize, usize) {
    let count = |folder: &str| files_below(&server.data().join(folder)).len();
    (count("blobs"), count("tmp"))
}

#[tokio::test]
async fn oc09_abandoned_sessions_expire_and_their_room_is_free_again() {
    let limits = "upload_sessions_per_user = 20\nupload_idle_seconds = 1";
    let server = Setup::default().blob(limits).start().await;
    let token = server.publisher("alice").await;
    let repository = Repository::new(&server.caller_with(&token), "alice/app");
    let chunk = Blob::noise("chunk", 50_000);
    let mut places = Vec::new();
    for _ in 0..20 {
        let place = repository.open().await;
        let answer = repository.caller.ask("PATCH", &place).body(chunk.bytes.clone()).send().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        places.push(place);
    }
    let answer = repository.ask("POST", "blobs/uploads/").send().await;
    refused(&answer, 429, "TOOMANYREQUESTS");
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    assert!(kept(&server).1 >= 20, "{:?}", kept(&server));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Whoever comes next finds the room that the others left.
    repository.upload(&chunk).await;
    server.cli(&["gc"]).await;
    assert_eq!(kept(&server), (1, 0));
    for place in places {
        refused(&repository.caller.get(&place).send().await, 404, "BLOB_UPLOAD_UNKNOWN");
    }
    server.finish().await;
}

#[tokio::test]
async fn what_no_manifest_names_is_given_up_and_what_one_names_stays() {
    let server = Setup::default().registry("unfinished_hours = 0").blob("lease_seconds = 1").start().await;
    let token = server.publisher("alice").await;
    let repository = Repository::new(&server.caller_with(&token), "alice/app");
    let (image, unnamed) = (Image::new("kept"), Blob::noise("unnamed", 1000));
    repository.push(&image, "v1").await;
    repository.upload(&unnamed).await;
    repository.upload(&image.blobs[0]).await;
    let other = Repository::new(&repository.caller, "alice/nothing");
    other.upload(&Blob::noise("of no repository", 1000)).await;
    assert_eq!(kept(&server).0, 6);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    age(&server);
    server.cli(&["gc"]).await;
    assert_eq!(kept(&server).0, 4, "the manifest and its three blobs");
    assert_eq!(repository.head(&format!("blobs/{}", unnamed.digest)).await.status, 404);
    for blob in &image.blobs {
        assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
    }
    server.cli(&["fsck"]).await;
    server.finish().await;
}

/// Pushes images that share a layer, and deletes every other one again.
async fn push(repository: Repository, shared: Blob, going: Arc<AtomicBool>) -> Vec<(String, Image)> {
    let mut acked = Vec::new();
    for number in 0.. {
        if !going.load(Ordering::SeqCst) {
            break;
        }
        let config = Blob::new(json!({ "number": number, "name": repository.name }).to_string());
        let own = Blob::noise(&format!("{} {number}", repository.name), 3000);
        let image = Image::of(&config, "application/vnd.example", &[shared.clone(), own], &json!({}));
        let tag = format!("v{number}");
        repository.push(&image, &tag).await;
        if number % 2 == 0 {
            assert_eq!(repository.delete(&format!("manifests/{}", image.digest())).await.status, 202);
        } else {
            acked.push((tag, image));
        }
    }
    acked
}

#[tokio::test]
async fn rc03_gc_beside_pushes_that_share_layers_breaks_none() {
    let server = Setup::default().blob("lease_seconds = 1").registry("restore_days = 0").start().await;
    let token = server.publisher("alice").await;
    let going = Arc::new(AtomicBool::new(true));
    let shared = Blob::noise("shared", 20_000);
    let repositories: Vec<_> = (0..3).map(|n| Repository::new(&server.caller_with(&token), &format!("alice/app{n}"))).collect();
    let pushing: Vec<_> =
        repositories.iter().map(|repository| tokio::spawn(push(repository.clone(), shared.clone(), Arc::clone(&going)))).collect();
    let end = tokio::time::Instant::now() + Duration::from_secs(6);
    let mut removed = 0;
    while tokio::time::Instant::now() < end {
        age(&server);
        let report: Value = serde_json::from_str(&server.cli(&["gc"]).await).unwrap();
        removed += report["removed"].as_u64().unwrap();
    }
    going.store(false, Ordering::SeqCst);
    let mut count = 0;
    for (repository, task) in repositories.iter().zip(pushing) {
        for (tag, image) in task.await.unwrap() {
            count += 1;
            assert!(repository.get(&format!("manifests/{tag}")).await.body == image.manifest.bytes);
            for blob in &image.blobs {
                assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes, "a layer of {tag} is gone");
            }
        }
    }
    assert!(count > 10 && removed > 0, "{count} images, {removed} blobs removed");
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn rc01_what_was_acknowledged_outlives_a_kill() {
    let (mut server, repository) = repository().await;
    let images: Vec<Image> = (0..5).map(|number| Image::new(&format!("kill {number}"))).collect();
    for image in &images {
        repository.push_untagged(image).await;
    }
    let index = Image::index(&images, &json!({}));
    repository.push(&index, "v1").await;
    let early = Blob::noise("early", 5000);
    repository.upload(&early).await;
    let place = repository.open().await;
    assert_eq!(repository.caller.ask("PATCH", &place).body(vec![1; 1000]).send().await.status, 202);
    server.kill().await;
    server.start_again().await;
    assert!(repository.get("manifests/v1").await.body == index.manifest.bytes);
    for image in &images {
        assert!(repository.get(&format!("manifests/{}", image.digest())).await.body == image.manifest.bytes);
        for blob in &image.blobs {
            assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
        }
    }
    assert!(
        repository.get(&format!("blobs/{}", early.digest)).await.body == early.bytes,
        "nothing has named it yet, but it was acknowledged"
    );
    // Sessions end with the process; their bytes go too.
    refused(&repository.caller.get(&place).send().await, 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(kept(&server).1, 0);
    server.cli(&["fsck"]).await;
    server.finish().await;
}
