//! The first group of the conformance suite: pulling.

use serde_json::json;

use super::{Repository, refused, repository};
use crate::harness::{Blob, Image, MANIFEST};

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (server, repository) = repository().await;
    let nothing = Blob::new("nothing");
    // Before there is a repository, and when there is one.
    for _ in 0..2 {
        for path in [format!("blobs/{}", nothing.digest), format!("manifests/{}", nothing.digest), "manifests/none".into()] {
            assert_eq!((repository.head(&path).await.status, repository.get(&path).await.status), (404, 404), "{path}");
        }
        repository.push(&Image::new("one"), "v1").await;
    }
    refused(&repository.get(&format!("blobs/{}", nothing.digest)).await, 404, "BLOB_UNKNOWN");
    refused(&repository.get("manifests/none").await, 404, "MANIFEST_UNKNOWN");
    refused(&Repository::new(&repository.caller, "alice/none").get("tags/list").await, 404, "NAME_UNKNOWN");
    server.finish().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    let layer = &image.blobs[1];
    let paths = [
        (format!("blobs/{}", layer.digest), &layer.bytes, &layer.digest),
        (format!("manifests/{}", image.digest()), &image.manifest.bytes, &image.manifest.digest),
        ("manifests/v1".to_owned(), &image.manifest.bytes, &image.manifest.digest),
    ];
    for (path, bytes, digest) in paths {
        let (head, get) = (repository.head(&path).await, repository.get(&path).await);
        assert_eq!((head.status, get.status), (200, 200), "{path}");
        assert!(get.body == *bytes && head.body.is_empty(), "{path}");
        for name in ["content-length", "content-type", "docker-content-digest", "etag", "accept-ranges", "cache-control"] {
            assert!(!get.header(name).is_empty(), "{path}: no {name}");
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        assert_eq!(get.header("docker-content-digest"), digest);
        assert_eq!(get.header("content-length"), bytes.len().to_string());
        assert_eq!(get.header("content-encoding"), "");
        assert_eq!(get.header("docker-distribution-api-version"), "registry/2.0");
    }
    let (missing_head, missing_get) = (repository.head("manifests/v2").await, repository.get("manifests/v2").await);
    assert_eq!(missing_head.header("content-type"), missing_get.header("content-type"));
    assert_eq!((missing_head.status, missing_head.body.len()), (404, 0));
    server.finish().await;
}

#[tokio::test]
async fn ranges_of_content() {
    let (server, repository) = repository().await;
    let blob = Blob::noise("ranges", 2048);
    repository.upload(&blob).await;
    let path = format!("blobs/{}", blob.digest);
    let ranged = async |range: &str| repository.ask("GET", &path).header("range", range).send().await;
    for (range, start, end) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2048),
        ("bytes=-500", 1548, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-0", 0, 1),
    ] {
        let answer = ranged(range).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/2048", end - 1));
        assert_eq!(answer.header("content-length"), (end - start).to_string());
        assert!(answer.body == blob.bytes[start..end], "{range}");
        assert_eq!(answer.header("docker-content-digest"), blob.digest);
    }
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=2048-"] {
        let answer = ranged(range).await;
        refused(&answer, 416, "RANGE_INVALID");
        assert_eq!(answer.header("content-range"), "bytes */2048");
    }
    // Several ranges at once may be answered with all of it.
    let answer = ranged("bytes=0-1,5-6").await;
    assert!(answer.status == 200 && answer.body == blob.bytes);
    server.finish().await;
}

#[tokio::test]
async fn content_of_no_bytes_and_of_an_empty_object() {
    let (server, repository) = repository().await;
    for blob in [Blob::new(""), Blob::new("{}"), Blob::sha512(""), Blob::sha512("{}")] {
        repository.upload(&blob).await;
        let path = format!("blobs/{}", blob.digest);
        let (head, get) = (repository.head(&path).await, repository.get(&path).await);
        assert_eq!((head.status, get.status), (200, 200), "{path}");
        assert_eq!(head.header("content-length"), blob.bytes.len().to_string());
        assert!(get.body == blob.bytes);
    }
    server.finish().await;
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    let digest = image.digest();
    assert_eq!(repository.get("manifests/v1").await.header("etag"), format!("\"{digest}\""));
    for path in ["manifests/v1".to_owned(), format!("manifests/{digest}")] {
        for known in [format!("\"{digest}\""), digest.to_owned(), "*".into()] {
            let answer = repository.ask("GET", &path).header("if-none-match", &known).send().await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{path} {known}");
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        }
        let other = repository.ask("GET", &path).header("if-none-match", "\"sha256:00\"").send().await;
        assert_eq!(other.status, 200);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_manifest_is_sent_as_it_is_or_not_at_all() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    let accepting = async |accept: &[&str]| {
        let mut request = repository.ask("GET", "manifests/v1");
        for accept in accept {
            request = request.header("accept", accept);
        }
        request.send().await
    };
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let index = "application/vnd.oci.image.index.v1+json";
    for accept in [&[MANIFEST][..], &["*/*"], &["application/json"], &[docker, index, MANIFEST], &[&format!("{docker}, {MANIFEST};q=0.5")]]
    {
        let answer = accepting(accept).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, MANIFEST), "{accept:?}");
        assert!(answer.body == image.manifest.bytes);
    }
    refused(&accepting(&[docker, index]).await, 404, "MANIFEST_UNKNOWN");
    server.finish().await;
}

#[tokio::test]
async fn a_stranger_sees_what_is_public_and_is_asked_to_sign_in_for_the_rest() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    let stranger = Repository::new(&server.caller(), "alice/app");
    let challenge = |scope: &str| {
        let (realm, service) = (format!("{}/v2/token", server.origin()), format!("127.0.0.1:{}", server.port()));
        format!("Bearer realm=\"{realm}\",service=\"{service}\",scope=\"{scope}\"")
    };
    let hidden = stranger.get("manifests/v1").await;
    refused(&hidden, 401, "UNAUTHORIZED");
    assert_eq!(hidden.header("www-authenticate"), challenge("repository:alice/app:pull"));
    // What is not there at all is answered in the same words.
    let absent = Repository::new(&server.caller(), "alice/nil").get("manifests/v1").await;
    assert_eq!((absent.status, absent.text()), (hidden.status, hidden.text()));
    assert_eq!(absent.header("www-authenticate"), challenge("repository:alice/nil:pull"));
    repository
        .caller
        .ask("PATCH", "/api/v3/user/packages/container/app")
        .header("user-agent", "t")
        .json(&json!({ "visibility": "public" }))
        .send()
        .await
        .expect(200);
    for path in
        ["manifests/v1".to_owned(), format!("manifests/{}", image.digest()), format!("blobs/{}", image.blobs[0].digest), "tags/list".into()]
    {
        assert_eq!(stranger.get(&path).await.status, 200, "{path}");
    }
    let refusal = stranger.ask("PUT", "manifests/v2").header("content-type", MANIFEST).body(image.manifest.bytes.clone()).send().await;
    refused(&refusal, 401, "UNAUTHORIZED");
    assert_eq!(refusal.header("www-authenticate"), challenge("repository:alice/app:pull,push"));
    server.finish().await;
}
