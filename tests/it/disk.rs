//! The disk runs full, on a real file system of a few megabytes: ST01 and ST09 of the catalogue.

use serde_json::json;

use crate::harness::{Caller, Package, Server, Setup, Upstream, files_below};
use crate::npm_wire::{at, publish};
use crate::proxy::fetch;

const MEBIBYTE: usize = 1 << 20;

/// A server on 64 MiB: the last 16 are closed to the cache, the last 8 to publishes, the last 4 to metadata.
async fn on_a_small_disk(upstream: &Upstream) -> Server {
    let blob = "hosted_reserve_bytes = 16777216\nmetadata_reserve_bytes = 8388608";
    let store = "[store]\ndisk_reserve_bytes = 4194304";
    Setup::default().upstream(upstream).disk(64).blob(blob).more(store).start().await
}

/// A version of `@alice/tool` with three megabytes of its own.
fn version(number: usize) -> Package {
    Package::with("@alice/tool", &format!("1.{number}.0"), json!({}), 3 * MEBIBYTE)
}

/// Every version is there to the byte, and is listed.
async fn all_whole(caller: &Caller, versions: &[Package]) {
    let listed = caller.packument("@alice/tool").await;
    assert_eq!(listed["versions"].as_object().unwrap().len(), versions.len(), "listed are others than were acked");
    for package in versions {
        let answer = fetch(caller, package).await;
        assert!(answer.status == 200 && !answer.cut && answer.body == package.tarball, "{} is damaged", package.path());
        assert_eq!(listed["versions"][&package.version]["dist"]["integrity"], json!(package.integrity()));
    }
}

/// Writes a file on the server's disk until it takes no more bytes.
fn fill(server: &Server) {
    use std::io::Write;
    let mut file = std::fs::File::create(server.data().join("filler")).unwrap();
    for block in [vec![7; 65_536], vec![7; 512]] {
        while file.write_all(&block).is_ok() {}
    }
}

#[tokio::test]
async fn st01_a_full_disk_refuses_publishes_and_harms_nothing() {
    let (cold, warm) = (Package::with("cold", "1.0.0", json!({}), MEBIBYTE), Package::with("warm", "1.0.0", json!({}), 2000));
    let upstream = Upstream::with(&[cold.clone(), warm.clone()]);
    let mut server = on_a_small_disk(&upstream).await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    let mut acked = Vec::new();
    // Somebody else's file, which will be what makes room in the end.
    std::fs::write(server.data().join("ballast"), vec![7; 8 * MEBIBYTE]).unwrap();
    // Large ones until there is no room for one more, and small ones until there is none at all.
    for bytes in [3 * MEBIBYTE, 100_000] {
        let refused = loop {
            let package = Package::with("@alice/tool", &format!("1.{}.0", acked.len()), json!({}), bytes);
            let answer = publish(&caller, &package).await;
            if answer.status >= 300 {
                break answer;
            }
            acked.push(package);
            assert!(acked.len() < 100, "64 MiB hold no 100 versions");
        };
        assert!(refused.expect(503).text().contains("full"), "the error says why");
    }
    assert!(acked.len() > 5);
    all_whole(&caller, &acked).await;
    assert!(files_below(&server.data().join("tmp")).is_empty(), "left in tmp");
    let ready = server.caller().get("/-/ready").send().await;
    assert!(ready.status == 200 && ready.text().contains("full"), "nobody is told: {}", ready.text());
    // There is room for metadata yet: a token can be revoked, a version withdrawn.
    let spare = server.token("alice", &["read:packages"]).await;
    server.revoke(&spare).await;
    server.caller_with(&spare).get("/npm/-/whoami").send().await.expect(401);

    // What the cache has no room for is passed on, document and file.
    for _ in 0..2 {
        let document = caller.get(&at("cold")).send().await.expect(200);
        assert_eq!(document.json()["versions"]["1.0.0"]["dist"]["integrity"], json!(cold.integrity()));
        let file = fetch(&caller, &cold).await.expect(200);
        assert!(!file.cut && file.body == cold.tarball);
        assert_eq!(file.verdict(), "fwd=uri-miss", "it claims to have stored it");
    }
    let small = fetch(&caller, &warm).await.expect(200);
    assert!(small.body == warm.tarball && small.verdict() == "fwd=uri-miss", "it claims to have stored it: {}", small.verdict());
    // Who comes while a transfer is ending shares it; after that it is fetched anew.
    let (before, end) = (upstream.count(&cold.path()), tokio::time::Instant::now() + std::time::Duration::from_secs(5));
    while upstream.count(&cold.path()) == before {
        assert!(tokio::time::Instant::now() < end, "it was kept on a full disk");
        fetch(&caller, &cold).await.expect(200);
    }

    // Somebody else takes every last byte. Reads go on, changes are refused, nothing breaks.
    fill(&server);
    let next = version(100);
    for package in [&next, &Package::new("@alice/small", "1.0.0")] {
        let answer = publish(&caller, package).await;
        assert!(matches!(answer.status, 503 | 507), "{}", answer.status);
        assert!(answer.json()["error"].is_string());
    }
    all_whole(&caller, &acked).await;
    assert!(fetch(&caller, &cold).await.expect(200).body == cold.tarball);
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert!(files_below(&server.data().join("tmp")).is_empty(), "left in tmp");

    // With room again everything goes on, without a restart.
    for name in ["filler", "ballast"] {
        std::fs::remove_file(server.data().join(name)).unwrap();
    }
    server.cli(&["package", "delete", "npm", "@alice/tool", &acked[0].version]).await;
    let again = publish(&caller, &Package::new("@alice/small", "1.0.0")).await;
    let free = server.caller().get("/-/metrics").send().await.text();
    let free = free.lines().find(|line| line.starts_with("packhouse_disk_free_bytes ")).unwrap_or_default().to_owned();
    assert!(again.status < 300, "nothing is written again: {} {}, {free}", again.status, again.text());
    server.cli(&["fsck"]).await;
    assert!(server.stop().await.success());
    server.start_again().await;
    acked.remove(0);
    all_whole(&caller, &acked).await;
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_disk_with_room_again_stores_again() {
    let (one, two) = (Package::with("one", "1.0.0", json!({}), MEBIBYTE), Package::with("two", "1.0.0", json!({}), MEBIBYTE));
    let upstream = Upstream::with(&[one.clone(), two.clone()]);
    let server = on_a_small_disk(&upstream).await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    assert!(publish(&caller, &version(0)).await.status < 300);
    fill(&server);
    assert!(fetch(&caller, &one).await.expect(200).body == one.tarball);
    assert!(publish(&caller, &version(1)).await.status >= 500);
    std::fs::remove_file(server.data().join("filler")).unwrap();
    assert!(publish(&caller, &version(1)).await.status < 300, "the same number, now that there is room");
    for package in [&one, &two] {
        assert!(fetch(&caller, package).await.expect(200).body == package.tarball);
        // The record of what was kept is written a moment after the last byte has left.
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
        while fetch(&caller, package).await.expect(200).verdict() != "hit" {
            assert!(tokio::time::Instant::now() < end, "{} is not kept", package.path());
        }
    }
    all_whole(&caller, &[version(0), version(1)]).await;
    assert_eq!(server.caller().get("/-/ready").send().await.text(), "ready\n");
    server.cli(&["fsck"]).await;
    server.finish().await;
}

/// Bytes of all blobs on the server's disk.
fn stored(server: &Server) -> u64 {
    files_below(&server.data().join("blobs")).iter().map(|path| std::fs::metadata(path).map_or(0, |found| found.len())).sum()
}

#[tokio::test]
async fn st09_eviction_frees_what_was_used_longest_ago_and_nothing_hosted() {
    let packages: Vec<Package> = (0..6).map(|n| Package::with(&format!("dep{n}"), "1.0.0", json!({}), MEBIBYTE)).collect();
    let upstream = Upstream::with(&packages);
    let limits = format!("cache_limit_bytes = {}\nlease_seconds = 1\nhosted_reserve_bytes = 0", 7 * MEBIBYTE / 2);
    let server = Setup::default().upstream(&upstream).blob(&limits).start().await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    let hosted = Package::with("@alice/tool", "1.0.0", json!({}), 2 * MEBIBYTE);
    assert!(publish(&caller, &hosted).await.status < 300);
    for package in &packages {
        fetch(&caller, package).await.expect(200);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // The first one is used again, so it is the last to go. The leases of the others run out.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(fetch(&caller, &packages[0]).await.expect(200).verdict(), "hit");
    let before = stored(&server);
    server.cli(&["gc"]).await;
    let after = stored(&server);
    let limit = (7 * MEBIBYTE / 2 + hosted.tarball.len()) as u64;
    assert!(after <= limit && after < before, "{before} bytes before, {after} after, {limit} allowed");
    assert_eq!(fetch(&caller, &packages[0]).await.expect(200).verdict(), "hit", "what was used last is gone");
    let gone = fetch(&caller, &packages[1]).await.expect(200);
    assert!(gone.verdict().contains("miss") && gone.body == packages[1].tarball, "{}", gone.verdict());
    assert_eq!(upstream.count(&packages[1].path()), 2);
    let ours = fetch(&caller, &hosted).await.expect(200);
    assert!(ours.body == hosted.tarball);
    server.cli(&["fsck"]).await;
    server.finish().await;
}
