//! Large things, as far as a test has time for them: layers that no memory holds, many tags, platforms and referrers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Repository, next, repository, texts};
use crate::harness::{Blob, Image, Setup};
use crate::npm_refusals::peak_kilobytes;

/// Bytes of a layer that is larger than the memory it may take.
const LAYER: u64 = 1 << 30;
/// What the server may take for it, in kilobytes.
const CEILING: u64 = 64 << 10;
const CHUNK: usize = 1 << 20;

/// The chunks of the layer, each unlike the others.
fn chunks() -> impl Iterator<Item = Bytes> {
    (0..LAYER / CHUNK as u64).map(|number| {
        let mut chunk = vec![7; CHUNK];
        chunk[..8].copy_from_slice(&number.to_be_bytes());
        chunk.into()
    })
}

#[tokio::test]
async fn a_large_layer_goes_up_and_down_in_little_memory() {
    let (server, repository) = repository().await;
    let mut hasher = Sha256::new();
    chunks().for_each(|chunk| hasher.update(&chunk));
    let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build().unwrap();
    let token = server.token("alice", &["read:packages", "write:packages"]).await;
    let before = peak_kilobytes(server.pid());
    let place = repository.open().await;
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks().map(Ok::<_, std::io::Error>)));
    let put = http.put(format!("{}{place}?digest={digest}", server.origin())).bearer_auth(&token.text).body(body);
    assert_eq!(put.send().await.unwrap().status(), 201);
    let get = http.get(format!("{}/v2/alice/app/blobs/{digest}", server.origin())).bearer_auth(&token.text);
    let answer = get.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(LAYER)));
    let (mut hasher, mut stream) = (Sha256::new(), answer.bytes_stream());
    while let Some(chunk) = stream.next().await {
        hasher.update(chunk.unwrap());
    }
    assert_eq!(format!("sha256:{}", hex::encode(hasher.finalize())), digest);
    let grown = peak_kilobytes(server.pid()) - before;
    assert!(grown < CEILING, "memory grew by {grown} kB");
    server.finish().await;
}

#[tokio::test]
async fn a_thousand_tags() {
    let (server, repository) = repository().await;
    let image = Image::new("tagged");
    repository.push(&image, "v0000").await;
    for start in (1..1000).step_by(50) {
        let query: Vec<String> = (start..(start + 50).min(1000)).map(|number| format!("tag=v{number:04}")).collect();
        let path = format!("manifests/{}?{}", image.digest(), query.join("&"));
        let put = repository.ask("PUT", &path).header("content-type", image.media_type).body(image.manifest.bytes.clone());
        let answer = put.send().await;
        assert_eq!((answer.status, answer.headers.get_all("oci-tag").iter().count()), (201, query.len()));
    }
    let (mut path, mut seen) = (Some("/v2/alice/app/tags/list?n=100".to_owned()), Vec::new());
    while let Some(page) = path {
        let answer = repository.caller.get(&page).send().await.expect(200);
        seen.extend(texts(&answer.json()["tags"]));
        path = next(&answer);
    }
    assert_eq!((seen.len(), seen.is_sorted()), (1000, true));
    assert_eq!(repository.tags().await.len(), 1000);
    assert!(repository.get("manifests/v0777").await.body == image.manifest.bytes);
    assert_eq!(repository.delete("manifests/v0777").await.status, 202);
    assert_eq!(repository.tags().await.len(), 999);
    server.finish().await;
}

#[tokio::test]
async fn an_index_of_fifty_platforms() {
    let (server, repository) = repository().await;
    let images: Vec<Image> = (0..50).map(|number| Image::new(&format!("platform {number}"))).collect();
    let pushes: FuturesUnordered<_> = images.iter().map(|image| repository.push_untagged(image)).collect();
    pushes.collect::<Vec<()>>().await;
    let index = Image::index(&images, &json!({}));
    repository.push(&index, "v1").await;
    let served = repository.get("manifests/v1").await;
    assert!(served.body == index.manifest.bytes);
    for entry in served.json()["manifests"].as_array().unwrap() {
        let digest = entry["digest"].as_str().unwrap();
        assert_eq!(repository.get(&format!("manifests/{digest}")).await.body.len() as u64, entry["size"].as_u64().unwrap());
    }
    server.finish().await;
}

#[tokio::test]
async fn oc08_ten_thousand_referrers_come_in_pages() {
    const COUNT: usize = 10_000;
    // In memory, where ten thousand pushes need not wait for ten thousand writes to a disk.
    let server = Setup::default().disk(1024).start().await;
    let token = server.publisher("alice").await;
    let repository = Repository::new(&server.caller_with(&token), "alice/app");
    let image = Image::new("image");
    repository.push(&image, "v1").await;
    repository.upload(&Blob::new("{}")).await;
    let config = Blob::new("{}");
    let referrer = |number: usize| {
        let kind = if number.is_multiple_of(100) { "application/vnd.rare" } else { "application/vnd.sig" };
        let more = json!({ "artifactType": kind, "subject": image.descriptor(), "annotations": { "number": number.to_string() } });
        Image::of(&config, "application/vnd.oci.empty.v1+json", &[], &more)
    };
    let push = |number: usize| {
        let repository = &repository;
        async move {
            let image = referrer(number);
            let answer = repository.put(&image, image.digest()).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            image.digest().to_owned()
        }
    };
    let mut expected: Vec<String> = futures_util::stream::iter(0..COUNT).map(push).buffer_unordered(8).collect().await;
    expected.sort();
    let all = async |query: &str| {
        let (mut path, mut seen, mut pages) = (Some(format!("/v2/alice/app/referrers/{}{query}", image.digest())), Vec::new(), 0);
        while let Some(page) = path {
            let answer = repository.caller.get(&page).send().await.expect(200);
            assert!(answer.body.len() < 4 << 20, "clients read no more of a page");
            let index = answer.json();
            seen.extend(index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
            pages += 1;
            path = next(&answer);
        }
        (seen, pages)
    };
    let (seen, pages) = all("").await;
    assert!(pages > 1 && seen == expected, "{} in {pages} pages", seen.len());
    let (rare, _) = all("?artifactType=application/vnd.rare").await;
    assert_eq!(rare.len(), COUNT / 100);
    assert_eq!(Repository::new(&repository.caller, "alice/app").tags().await, ["v1"]);
    server.finish().await;
}
