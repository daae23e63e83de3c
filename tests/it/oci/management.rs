//! The fourth group of the conformance suite: deleting.

use serde_json::json;

use super::{Repository, refused, repository};
use crate::harness::{Blob, Image};

#[tokio::test]
async fn a_tag_goes_alone_and_a_manifest_with_all_its_tags() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    for tag in ["a", "b", "c"] {
        repository.push(&image, tag).await;
    }
    assert_eq!(repository.delete("manifests/a").await.status, 202);
    assert_eq!(repository.head("manifests/a").await.status, 404);
    assert_eq!(repository.tags().await, ["b", "c"]);
    assert_eq!(repository.get(&format!("manifests/{}", image.digest())).await.status, 200);
    refused(&repository.delete("manifests/a").await, 404, "MANIFEST_UNKNOWN");
    assert_eq!(repository.delete(&format!("manifests/{}", image.digest())).await.status, 202);
    for reference in ["b", "c", image.digest()] {
        assert_eq!(repository.head(&format!("manifests/{reference}")).await.status, 404);
    }
    assert!(repository.tags().await.is_empty(), "the repository is still there");
    refused(&repository.delete(&format!("manifests/{}", image.digest())).await, 404, "MANIFEST_UNKNOWN");
    // What was uploaded lately is there until it is deleted itself.
    for blob in &image.blobs {
        let path = format!("blobs/{}", blob.digest);
        assert_eq!(repository.delete(&path).await.status, 202);
        assert_eq!(repository.head(&path).await.status, 404);
        refused(&repository.delete(&path).await, 404, "BLOB_UNKNOWN");
    }
    server.finish().await;
}

#[tokio::test]
async fn content_that_a_manifest_names_stays() {
    let (server, repository) = repository().await;
    let (one, base) = (Image::new("one"), Image::new("one"));
    let two = Image::of(&Blob::new("{\"two\":2}"), "application/vnd.oci.image.config.v1+json", &base.blobs[1..], &json!({}));
    repository.push(&one, "one").await;
    repository.push(&two, "two").await;
    let shared = format!("blobs/{}", one.blobs[1].digest);
    refused(&repository.delete(&shared).await, 405, "UNSUPPORTED");
    assert_eq!(repository.delete(&format!("manifests/{}", one.digest())).await.status, 202);
    refused(&repository.delete(&shared).await, 405, "UNSUPPORTED");
    assert_eq!(repository.get(&shared).await.status, 200);
    assert_eq!(repository.delete(&format!("manifests/{}", two.digest())).await.status, 202);
    assert_eq!(repository.delete(&shared).await.status, 202);
    assert_eq!(repository.get(&shared).await.status, 404);
    server.finish().await;
}

#[tokio::test]
async fn what_an_index_is_made_of_goes_after_it() {
    let (server, repository) = repository().await;
    let images = [Image::new("amd64"), Image::new("arm64")];
    for image in &images {
        repository.push_untagged(image).await;
    }
    let index = Image::index(&images, &json!({}));
    repository.push(&index, "v1").await;
    let outer = Image::index(std::slice::from_ref(&index), &json!({}));
    repository.push(&outer, "outer").await;
    refused(&repository.delete(&format!("manifests/{}", images[0].digest())).await, 405, "UNSUPPORTED");
    refused(&repository.delete(&format!("manifests/{}", index.digest())).await, 405, "UNSUPPORTED");
    for image in [&outer, &index, &images[0], &images[1]] {
        assert_eq!(repository.delete(&format!("manifests/{}", image.digest())).await.status, 202);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_deleted_manifest_is_pushed_again() {
    let (mut server, repository) = repository().await;
    let (image, other) = (Image::new("one"), Image::new("two"));
    repository.push(&other, "other").await;
    for round in 0..3 {
        repository.push(&image, "v1").await;
        assert_eq!(repository.get("manifests/v1").await.body, image.manifest.bytes, "round {round}");
        for blob in &image.blobs {
            assert_eq!(repository.get(&format!("blobs/{}", blob.digest)).await.body, blob.bytes);
        }
        assert_eq!(repository.delete(&format!("manifests/{}", image.digest())).await.status, 202);
        server.kill().await;
        server.start_again().await;
        assert_eq!(repository.get("manifests/v1").await.status, 404);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_layer_that_a_client_was_shown_can_be_named_although_its_image_was_deleted() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    let layer = &image.blobs[1];
    // A push has begun: the client asks for the layer, is told that it is there, and will not send it.
    assert_eq!(repository.head(&format!("blobs/{}", layer.digest)).await.status, 200);
    assert_eq!(repository.delete(&format!("manifests/{}", image.digest())).await.status, 202);
    assert_eq!(repository.delete(&format!("blobs/{}", layer.digest)).await.status, 202);
    let config = Blob::new("{\"second\":2}");
    repository.upload(&config).await;
    let second = Image::of(&config, "application/vnd.oci.image.config.v1+json", std::slice::from_ref(layer), &json!({}));
    let answer = repository.put(&second, "v2").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(repository.get(&format!("blobs/{}", layer.digest)).await.body == layer.bytes);
    // Nobody else was shown it.
    server.user("bob").await;
    let bob = server.token("bob", &["write:packages"]).await;
    let theirs = Repository::new(&server.caller_with(&bob), "bob/app");
    theirs.upload(&config).await;
    refused(&theirs.put(&second, "v2").await, 400, "MANIFEST_BLOB_UNKNOWN");
    server.finish().await;
}

#[tokio::test]
async fn who_may_not_delete_deletes_nothing() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    let writer = server.token("alice", &["write:packages"]).await;
    let writer = Repository::new(&server.caller_with(&writer), "alice/app");
    for path in ["manifests/v1".to_owned(), format!("manifests/{}", image.digest()), format!("blobs/{}", image.blobs[0].digest)] {
        refused(&writer.delete(&path).await, 403, "DENIED");
        refused(&Repository::new(&server.caller(), "alice/app").delete(&path).await, 401, "UNAUTHORIZED");
    }
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    server.finish().await;
}
