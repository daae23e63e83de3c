//! A thousand callers of one large file that nobody has yet: one question upstream, every byte right, little memory.
//!
//! Most of them are slow: they take the beginning and then wait until all has come from the upstream. What they
//! have not read must lie on the disk and not in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::harness::{Setup, Upstream};
use crate::npm_refusals::peak_kilobytes;

const LAYER: usize = 100 << 20;
const CALLERS: usize = 1000;
/// One in so many reads all of it, as fast as it comes.
const SWIFT: usize = 50;
/// What a slow one reads at first.
const BEGINNING: usize = 64 << 10;
/// Where a slow one looks again once all has come, how often, and how far from one place to the next.
const PLACES: usize = 4;
const APART: usize = 25 << 20;
/// What the server may take for all of them, in kilobytes.
const CEILING: u64 = 128 << 10;

/// Bytes that differ from place to place.
fn layer() -> Bytes {
    let mut state = 7_u64;
    let words = (0..LAYER / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect::<Vec<u8>>().into()
}

/// Compares an answer as it comes, up to `end`.
async fn same_until(answer: &mut reqwest::Response, layer: &Bytes, position: &mut usize, end: usize) {
    while *position < end {
        let chunk = answer.chunk().await.expect("an answer that does not break off").expect("more bytes");
        assert!(layer[*position..].starts_with(&chunk), "other bytes at {position}");
        *position += chunk.len();
    }
}

/// A caller that takes the beginning, waits, and then reads on for a while.
async fn slow(mut answer: reqwest::Response, layer: Bytes, mut gone: watch::Receiver<bool>) {
    let mut position = 0;
    same_until(&mut answer, &layer, &mut position, BEGINNING).await;
    let _ = gone.wait_for(|gone| *gone).await;
    let more = position + (1 << 20);
    same_until(&mut answer, &layer, &mut position, more).await;
}

/// A part of the file, asked for later.
async fn part(http: &reqwest::Client, address: &str, layer: &Bytes, from: usize) {
    let range = format!("bytes={from}-{}", from + BEGINNING - 1);
    let answer = http.get(address).header("range", range).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 206);
    assert!(answer.bytes().await.unwrap() == layer[from..from + BEGINNING]);
}

#[tokio::test]
async fn a_thousand_callers_of_a_cold_layer_are_one_fetch_in_little_memory() {
    let layer = layer();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    let upstream = Upstream::start();
    upstream.file(&format!("/v2/acme/app/blobs/{digest}"), "application/octet-stream", layer.to_vec());
    let server = Setup::default().upstream_of("container", "hub", &upstream.url(), "hosts = [\"hub.test\"]").start().await;
    let address = Arc::new(format!("{}/v2/hub.test/acme/app/blobs/{digest}", server.origin()));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(150)).build().unwrap();
    let before = peak_kilobytes(server.pid());
    let (all_there, gone) = watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    let mut swift = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let (http, address, layer, gone) = (http.clone(), Arc::clone(&address), layer.clone(), gone.clone());
        let ask = async move {
            let answer = http.get(&*address).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(LAYER as u64)));
            (answer, layer)
        };
        if number % SWIFT == 0 {
            swift.spawn(async move {
                let (mut answer, layer) = ask.await;
                same_until(&mut answer, &layer, &mut 0, LAYER).await;
                assert!(answer.chunk().await.unwrap().is_none(), "something follows the end");
            });
        } else {
            callers.spawn(async move {
                let (answer, layer) = ask.await;
                slow(answer, layer, gone).await;
            });
        }
    }
    swift.join_all().await;
    all_there.send(true).unwrap();
    callers.join_all().await;
    for place in 0..PLACES {
        part(&http, &address, &layer, place * APART).await;
    }
    assert_eq!(upstream.requests().len(), 1, "more than one question");
    let grown = peak_kilobytes(server.pid()) - before;
    assert!(grown <= CEILING, "memory grew by {grown} kB");
    server.finish().await;
}
