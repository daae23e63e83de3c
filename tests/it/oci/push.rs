//! The second group of the conformance suite: pushing, in every way there is.

use serde_json::json;

use super::{Repository, refused, repository};
use crate::harness::{Answer, Blob, INDEX, Image, LAYER, MANIFEST};

/// Sends a part of an upload; `range` is its `Content-Range`.
async fn part(repository: &Repository, method: &str, place: &str, bytes: &[u8], range: Option<&str>) -> Answer {
    let mut request = repository.caller.ask(method, place).header("content-type", "application/octet-stream");
    if let Some(range) = range {
        request = request.header("content-range", range);
    }
    request.body(bytes).send().await
}

fn with_digest(place: &str, blob: &Blob) -> String {
    let gap = if place.contains('?') { '&' } else { '?' };
    format!("{place}{gap}digest={}", blob.digest.replace(':', "%3A"))
}

/// The content is there at once, whole.
async fn is_there(repository: &Repository, answer: &Answer, blob: &Blob) {
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("docker-content-digest"), blob.digest);
    assert_eq!(answer.header("location"), format!("/v2/{}/blobs/{}", repository.name, blob.digest));
    let got = repository.caller.get(answer.header("location")).send().await;
    assert!(got.status == 200 && got.body == blob.bytes);
    assert_eq!(repository.head(&format!("blobs/{}", blob.digest)).await.header("content-length"), blob.bytes.len().to_string());
}

/// Content of both algorithms.
fn both(seed: &str, length: usize) -> [Blob; 2] {
    let blob = Blob::noise(seed, length);
    [Blob::sha512(blob.bytes.clone()), blob]
}

#[tokio::test]
async fn in_one_request() {
    let (server, repository) = repository().await;
    for blob in both("post only", 512) {
        let answer = part(&repository, "POST", &with_digest("/v2/alice/app/blobs/uploads/", &blob), &blob.bytes, None).await;
        is_there(&repository, &answer, &blob).await;
        // Once more is no error.
        let again = part(&repository, "POST", &with_digest("/v2/alice/app/blobs/uploads/", &blob), &blob.bytes, None).await;
        assert_eq!(again.status, 201);
        let wrong = part(&repository, "POST", &with_digest("/v2/alice/app/blobs/uploads/", &blob), b"oh no", None).await;
        refused(&wrong, 400, "DIGEST_INVALID");
    }
    server.finish().await;
}

#[tokio::test]
async fn in_two_requests() {
    let (server, repository) = repository().await;
    for blob in both("post and put", 512) {
        let place = repository.open().await;
        let answer = part(&repository, "PUT", &with_digest(&place, &blob), &blob.bytes, None).await;
        is_there(&repository, &answer, &blob).await;
        assert_eq!(repository.caller.get(&place).send().await.status, 404, "the session has ended");
    }
    server.finish().await;
}

#[tokio::test]
async fn as_a_stream() {
    let (server, repository) = repository().await;
    for blob in both("stream", 3 << 20) {
        let place = repository.open().await;
        // Chunks of the transfer's, which no length goes before.
        let patched = repository.caller.ask("PATCH", &place).stream(&blob.bytes, 100_000).send().await;
        assert_eq!((patched.status, patched.header("range")), (202, format!("0-{}", blob.bytes.len() - 1).as_str()));
        assert!(!patched.header("docker-upload-uuid").is_empty());
        let answer = part(&repository, "PUT", &with_digest(patched.header("location"), &blob), b"", None).await;
        is_there(&repository, &answer, &blob).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn in_chunks_with_the_last_in_the_put_or_before_it() {
    let (server, repository) = repository().await;
    for last_in_put in [false, true] {
        for blob in both(&format!("chunks {last_in_put}"), 3067) {
            let mut place = repository.open().await;
            let mut answer = None;
            for (start, end) in [(0, 1024), (1024, 2048), (2048, 3067)] {
                let range = format!("{start}-{}", end - 1);
                if last_in_put && end == 3067 {
                    answer = Some(part(&repository, "PUT", &with_digest(&place, &blob), &blob.bytes[start..end], Some(&range)).await);
                } else {
                    let patched = part(&repository, "PATCH", &place, &blob.bytes[start..end], Some(&range)).await;
                    assert_eq!((patched.status, patched.header("range")), (202, format!("0-{}", end - 1).as_str()));
                    place = patched.header("location").to_owned();
                }
            }
            let answer = match answer {
                Some(answer) => answer,
                None => part(&repository, "PUT", &with_digest(&place, &blob), b"", None).await,
            };
            is_there(&repository, &answer, &blob).await;
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn oc01_a_chunk_out_of_place_is_refused_and_the_session_survives() {
    let (server, repository) = repository().await;
    let blob = Blob::noise("out of order", 3000);
    let place = repository.open().await;
    let status = async || {
        let answer = repository.caller.get(&place).send().await;
        assert_eq!((answer.status, answer.header("location")), (204, place.as_str()));
        answer.header("range").to_owned()
    };
    let misplaced = async |method: &str, target: &str, start: usize, end: usize, written: &str| {
        let answer = part(&repository, method, target, &blob.bytes[start..end], Some(&format!("{start}-{}", end - 1))).await;
        refused(&answer, 416, "RANGE_INVALID");
        assert_eq!((answer.header("location"), answer.header("range")), (place.as_str(), written));
        assert_eq!(status().await, written);
    };
    // A gap at the beginning, then a gap and an overlap.
    misplaced("PATCH", &place, 1000, 2000, "0-0").await;
    assert_eq!(part(&repository, "PATCH", &place, &blob.bytes[..1000], Some("0-999")).await.status, 202);
    misplaced("PATCH", &place, 2000, 3000, "0-999").await;
    misplaced("PATCH", &place, 0, 1000, "0-999").await;
    misplaced("PATCH", &place, 999, 2000, "0-999").await;
    misplaced("PUT", &with_digest(&place, &blob), 2000, 3000, "0-999").await;
    assert_eq!(part(&repository, "PATCH", &place, &blob.bytes[1000..2000], Some("bytes 1000-1999/*")).await.status, 202);
    let answer = part(&repository, "PUT", &with_digest(&place, &blob), &blob.bytes[2000..], Some("2000-2999")).await;
    is_there(&repository, &answer, &blob).await;
    server.finish().await;
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_refused() {
    let (server, repository) = repository().await;
    let place = repository.open().await;
    refused(&part(&repository, "PATCH", &place, b"12345", Some("0-9")).await, 400, "SIZE_INVALID");
    for nonsense in ["x", "9-0", "-5", "0-18446744073709551615"] {
        refused(&part(&repository, "PATCH", &place, b"12345", Some(nonsense)).await, 400, "BLOB_UPLOAD_INVALID");
    }
    assert_eq!(part(&repository, "PATCH", &place, b"12345", Some("0-4")).await.status, 202);
    server.finish().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_goes_on_where_it_was() {
    use tokio::io::AsyncWriteExt;
    let (server, repository) = repository().await;
    let token = server.token("alice", &["write:packages"]).await;
    let blob = Blob::noise("cut", 2 << 20);
    let place = repository.open().await;
    let head = format!(
        "PATCH {place} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        server.port(),
        token.text,
        blob.bytes.len()
    );
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&blob.bytes[..700_000]).await.unwrap();
    // All of it arrives before the connection goes.
    let written = async || repository.caller.get(&place).send().await.header("range").to_owned();
    while written().await != "0-699999" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(connection);
    let rest = part(&repository, "PATCH", &place, &blob.bytes[700_000..], Some(&format!("700000-{}", blob.bytes.len() - 1))).await;
    assert_eq!(rest.status, 202, "{}", rest.text());
    let answer = part(&repository, "PUT", &with_digest(&place, &blob), b"", None).await;
    is_there(&repository, &answer, &blob).await;
    server.finish().await;
}

#[tokio::test]
async fn an_upload_is_cancelled() {
    let (server, repository) = repository().await;
    let place = repository.open().await;
    assert_eq!(part(&repository, "PATCH", &place, b"some", None).await.status, 202);
    assert_eq!(repository.caller.ask("DELETE", &place).send().await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        refused(&repository.caller.ask(method, &place).send().await, 404, "BLOB_UPLOAD_UNKNOWN");
    }
    refused(&repository.finish(&place, &Blob::new("x")).await, 404, "BLOB_UPLOAD_UNKNOWN");
    server.finish().await;
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_not_kept() {
    let (server, repository) = repository().await;
    for blob in both("bad digest", 3067) {
        let spoilt = [blob.bytes.clone(), b"oh no".to_vec()].concat();
        let place = repository.open().await;
        refused(&part(&repository, "PUT", &with_digest(&place, &blob), &spoilt, None).await, 400, "DIGEST_INVALID");
        let place = repository.open().await;
        assert_eq!(part(&repository, "PATCH", &place, &spoilt, None).await.status, 202);
        refused(&part(&repository, "PUT", &with_digest(&place, &blob), b"", None).await, 400, "DIGEST_INVALID");
        assert_eq!(repository.head(&format!("blobs/{}", blob.digest)).await.status, 404);
    }
    let place = repository.open().await;
    refused(&part(&repository, "PUT", &place, b"x", None).await, 400, "DIGEST_INVALID");
    for wrong in ["sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "../../x", "SHA256:00"] {
        refused(&part(&repository, "PUT", &format!("{place}?digest={wrong}"), b"x", None).await, 400, "DIGEST_INVALID");
    }
    server.finish().await;
}

#[tokio::test]
async fn content_is_mounted_from_where_the_caller_may_read_it() {
    let (server, repository) = repository().await;
    let base = Repository::new(&repository.caller, "alice/base");
    let blob = Blob::noise("mount", 512);
    let mount = async |query: &str| repository.ask("POST", &format!("blobs/uploads/?{query}")).send().await;
    let named = format!("mount={}&from=alice/base", blob.digest);
    assert_eq!(mount(&named).await.status, 202, "it is not there yet");
    base.upload(&blob).await;
    let answer = mount(&named).await;
    is_there(&repository, &answer, &blob).await;
    assert_eq!(repository.delete(&format!("blobs/{}", blob.digest)).await.status, 202);
    assert_eq!(repository.head(&format!("blobs/{}", blob.digest)).await.status, 404);
    // Without a place it is looked for where the caller may read.
    is_there(&repository, &mount(&format!("mount={}", blob.digest)).await, &blob).await;
    let other = Blob::noise("nowhere", 512);
    for query in [
        format!("mount={}", other.digest),
        format!("mount={}&from=alice/none", blob.digest),
        format!("mount={}&from=No//name", blob.digest),
    ] {
        let answer = mount(&query).await;
        assert_eq!(answer.status, 202, "{query}");
        assert!(answer.header("location").contains("/blobs/uploads/"));
    }
    refused(&mount("mount=sha256:zz&from=alice/base").await, 400, "DIGEST_INVALID");
    server.finish().await;
}

#[tokio::test]
async fn a_manifest_is_kept_byte_for_byte() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    let spaced = serde_json::to_vec_pretty(&serde_json::from_slice::<serde_json::Value>(&image.manifest.bytes).unwrap()).unwrap();
    let image = Image { manifest: Blob::new([spaced, b" \n".to_vec()].concat()), ..image };
    repository.push(&image, "v1").await;
    for reference in ["v1", image.digest()] {
        let answer = repository.get(&format!("manifests/{reference}")).await;
        assert!(answer.body == image.manifest.bytes);
        assert_eq!((answer.header("content-type"), answer.header("docker-content-digest")), (MANIFEST, image.digest()));
    }
    let answer = repository.put(&image, "v1").await;
    assert_eq!(answer.header("location"), format!("/v2/alice/app/manifests/{}", image.digest()));
    server.finish().await;
}

#[tokio::test]
async fn pushing_again_moves_tags_and_nothing_else() {
    let (server, repository) = repository().await;
    let (one, two) = (Image::new("one"), Image::new("two"));
    repository.push(&one, "v1").await;
    repository.push(&two, "latest").await;
    for reference in ["v1", "latest", "again", one.digest()] {
        repository.push(&one, reference).await;
    }
    assert_eq!(repository.tags().await, ["again", "latest", "v1"]);
    assert_eq!(repository.head("manifests/latest").await.header("docker-content-digest"), one.digest());
    assert_eq!(repository.get(&format!("manifests/{}", two.digest())).await.status, 200, "what lost its tag is still there");
    server.finish().await;
}

#[tokio::test]
async fn many_tags_come_with_one_manifest() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    repository.push_untagged(&image).await;
    assert!(repository.tags().await.is_empty());
    for image in [image.clone(), Image { manifest: Blob::sha512(image.manifest.bytes.clone()), ..image.clone() }] {
        let tags: Vec<String> = (0..12).map(|number| format!("{}-{number}", &image.digest()[..6])).collect();
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let answer = repository.put(&image, &format!("{}?{}", image.digest(), query.join("&"))).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let said: Vec<_> = answer.headers.get_all("oci-tag").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(said, tags);
        for tag in &tags {
            let head = repository.head(&format!("manifests/{tag}")).await;
            assert_eq!((head.status, head.header("docker-content-digest")), (200, image.digest()), "{tag}");
        }
    }
    assert_eq!(repository.tags().await.len(), 24);
    let many: Vec<String> = (0..100).map(|number| format!("tag=t{number}")).collect();
    refused(&repository.put(&image, &format!("{}?{}", image.digest(), many.join("&"))).await, 400, "TAG_INVALID");
    refused(&repository.put(&image, &format!("{}?tag=-bad", image.digest())).await, 400, "TAG_INVALID");
    server.finish().await;
}

#[tokio::test]
async fn everything_of_sha512() {
    let (server, repository) = repository().await;
    let layer = Blob::sha512(Blob::noise("layer", 1000).bytes);
    let config = Blob::sha512(json!({ "os": "linux", "architecture": "amd64" }).to_string());
    let of = Image::of(&config, "application/vnd.oci.image.config.v1+json", &[layer], &json!({}));
    let image = Image { manifest: Blob::sha512(of.manifest.bytes.clone()), ..of };
    repository.push_untagged(&image).await;
    let index = Image::index(std::slice::from_ref(&image), &json!({}));
    let index = Image { manifest: Blob::sha512(index.manifest.bytes.clone()), ..index };
    repository.push_untagged(&index).await;
    for image in [&image, &index] {
        let answer = repository.get(&format!("manifests/{}", image.digest())).await;
        assert!(answer.status == 200 && answer.body == image.manifest.bytes);
    }
    server.finish().await;
}

#[tokio::test]
async fn indexes_nested_empty_and_odd() {
    let (server, repository) = repository().await;
    let images: Vec<Image> = (0..3).map(|number| Image::new(&format!("image {number}"))).collect();
    for image in &images {
        repository.push_untagged(image).await;
    }
    let (left, right) = (Image::index(&images[..2], &json!({})), Image::index(&images[2..], &json!({ "artifactType": "a/b" })));
    repository.push_untagged(&left).await;
    repository.push(&right, "right").await;
    repository.push(&Image::index(&[left, right], &json!({ "unknown": [1] })), "nested").await;
    repository.push(&Image::index(&[], &json!({})), "empty").await;
    // A build cache lists layers where manifests should be.
    let layer = Blob::noise("cached layer", 800);
    repository.upload(&layer).await;
    let cache = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [layer.descriptor(LAYER), images[0].descriptor()] });
    let cache = Image { blobs: Vec::new(), manifest: Blob::new(cache.to_string()), media_type: INDEX };
    repository.push(&cache, "buildcache").await;
    let sparse = Image::index(&[images[0].clone(), Image::new("never pushed")], &json!({}));
    refused(&repository.put(&sparse, "sparse").await, 400, "MANIFEST_BLOB_UNKNOWN");
    server.finish().await;
}

#[tokio::test]
async fn artifacts_foreign_layers_and_empty_lists() {
    let (server, repository) = repository().await;
    let empty = Blob::new("{}");
    repository
        .push(&Image::of(&empty, crate::harness::EMPTY, &[], &json!({ "artifactType": "application/vnd.example" })), "no-layers")
        .await;
    repository.push(&Image::artifact("artifact", "application/vnd.example", &json!({ "annotations": { "a": "b" } })), "artifact").await;
    let far = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": Blob::new("far away").digest,
        "size": 123_456,
        "urls": ["https://store.example/blobs/x"],
    });
    let config = Blob::new("{\"os\":\"windows\"}");
    let image = Image::of(&config, "application/vnd.oci.image.config.v1+json", &[], &json!({ "layers": [far] }));
    // OC04: the layer's address is its clients' business.
    repository.push(&image, "foreign").await;
    server.finish().await;
}

#[tokio::test]
async fn oc03_manifests_that_are_refused() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    let put = async |content_type: &str, bytes: Vec<u8>| {
        repository.ask("PUT", "manifests/v1").header("content-type", content_type).body(bytes).send().await
    };
    refused(&put(MANIFEST, image.manifest.bytes.clone()).await, 400, "MANIFEST_BLOB_UNKNOWN");
    repository.push(&image, "good").await;
    let value: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    let mut both = value.clone();
    both["manifests"] = json!([]);
    let old = json!({ "schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": [], "signatures": [] });
    for (content_type, bytes) in [
        (INDEX, image.manifest.bytes.clone()),
        ("application/vnd.docker.distribution.manifest.v2+json", image.manifest.bytes.clone()),
        (MANIFEST, both.to_string().into_bytes()),
        (MANIFEST, b"not json".to_vec()),
        (MANIFEST, b"{}".to_vec()),
        (MANIFEST, Vec::new()),
        (MANIFEST, old.to_string().into_bytes()),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", old.to_string().into_bytes()),
        ("text/plain", b"hello".to_vec()),
    ] {
        refused(&put(content_type, bytes).await, 400, "MANIFEST_INVALID");
    }
    let padded = |length: usize| {
        let mut value = value.clone();
        value["annotations"] = json!({ "pad": "" });
        let short = value.to_string().len();
        value["annotations"]["pad"] = json!("x".repeat(length - short));
        value.to_string().into_bytes()
    };
    assert_eq!(put(MANIFEST, padded(4 << 20)).await.status, 201, "four MiB are taken");
    refused(&put(MANIFEST, padded((4 << 20) + 1)).await, 413, "SIZE_INVALID");
    // OC02: a manifest under another digest than its own.
    let other = Blob::new("other").digest;
    refused(&repository.put(&image, &other).await, 400, "DIGEST_INVALID");
    refused(&repository.put(&image, "sha256:totallywrong").await, 400, "DIGEST_INVALID");
    assert_eq!(repository.tags().await, ["good", "v1"]);
    server.finish().await;
}
