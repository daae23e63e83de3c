//! Cleaning and checking while everybody works: RC03 and RC04 of the catalogue, in small.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Caller, Package, Server, Setup, Upstream, files_below};
use crate::npm_wire::publish;
use crate::proxy::fetch;

/// Makes every blob look two hours old, so that a sweep may take it if nothing refers to it.
pub(crate) fn age(server: &Server) {
    let old = SystemTime::now() - Duration::from_secs(7200);
    for path in files_below(&server.data().join("blobs")) {
        // One may be removed at this very moment.
        let _ = std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(old));
    }
}

/// Publishes versions until told to stop. Every third is tried twice with other bytes, which leaves a blob that nothing refers to.
async fn push(caller: Caller, name: String, going: Arc<AtomicBool>) -> Vec<Package> {
    let mut acked = Vec::new();
    for n in 0.. {
        if !going.load(Ordering::SeqCst) {
            break;
        }
        let package = Package::with(&name, &format!("1.{n}.0"), json!({}), 1000 + 40_000 * (n % 4));
        let answer = publish(&caller, &package).await;
        assert!(answer.status < 300, "a push failed beside gc: {} {}", answer.status, answer.text());
        assert!(fetch(&caller, &package).await.expect(200).body == package.tarball, "gone right after its publish");
        if n % 3 == 0 {
            let other = Package::with(&name, &package.version, json!({ "other": true }), 90_000);
            publish(&caller, &other).await.expect(409);
        }
        acked.push(package);
    }
    acked
}

/// Installs proxied packages until told to stop.
async fn pull(caller: Caller, packages: Vec<Package>, going: Arc<AtomicBool>) -> usize {
    let mut done = 0;
    while going.load(Ordering::SeqCst) {
        let package = &packages[done % packages.len()];
        let answer = fetch(&caller, package).await.expect(200);
        assert!(!answer.cut && answer.body == package.tarball, "a download was hurt by gc");
        done += 1;
    }
    done
}

#[tokio::test]
async fn rc03_gc_and_fsck_beside_pushes_break_nothing() {
    let packages: Vec<Package> = (0..8).map(|n| Package::with(&format!("dep{n}"), "1.0.0", json!({}), 300_000)).collect();
    let upstream = Upstream::with(&packages);
    // Leases of a second and a cache that is always too full: everything that may go goes at once.
    let server = Setup::default().upstream(&upstream).blob("lease_seconds = 1\ncache_limit_bytes = 800000").start().await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    let going = Arc::new(AtomicBool::new(true));
    let pushing: Vec<_> = (0..3).map(|n| tokio::spawn(push(caller.clone(), format!("@alice/tool-{n}"), Arc::clone(&going)))).collect();
    let pulling: Vec<_> = (0..2).map(|_| tokio::spawn(pull(caller.clone(), packages.clone(), Arc::clone(&going)))).collect();
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    let (mut rounds, mut removed) = (0, 0);
    while tokio::time::Instant::now() < end {
        age(&server);
        let report: Value = serde_json::from_str(&server.cli(&["gc"]).await).unwrap();
        removed += report["removed"].as_u64().unwrap();
        if rounds % 5 == 0 {
            server.cli(&["fsck"]).await;
        }
        rounds += 1;
    }
    going.store(false, Ordering::SeqCst);
    let mut acked = 0;
    for task in pushing {
        for package in task.await.unwrap() {
            acked += 1;
            let answer = fetch(&caller, &package).await.expect(200);
            assert!(answer.body == package.tarball, "{} is broken", package.path());
        }
    }
    let mut pulled = 0;
    for task in pulling {
        pulled += task.await.unwrap();
    }
    assert!(rounds > 5 && acked > 20 && pulled > 20, "{rounds} rounds, {acked} pushes, {pulled} downloads");
    assert!(removed > 0, "gc never removed anything, so nothing was tried");
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn gc_takes_what_nothing_refers_to_and_offline_too() {
    let mut server = Setup::default().blob("lease_seconds = 1").start().await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    let kept = Package::with("@alice/tool", "1.0.0", json!({}), 100_000);
    assert!(publish(&caller, &kept).await.status < 300);
    publish(&caller, &Package::with("@alice/tool", "1.0.0", json!({ "other": 1 }), 100_000)).await.expect(409);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let blobs = |server: &Server| files_below(&server.data().join("blobs")).len();
    let before = blobs(&server);
    server.cli(&["gc"]).await;
    assert_eq!(blobs(&server), before, "what is young may be somebody's who is about to refer to it");
    age(&server);
    server.cli(&["gc"]).await;
    assert_eq!(blobs(&server), 1, "of {before} only the published one stays");
    // The same with no server running.
    assert!(server.stop().await.success());
    let orphan = server.data().join("blobs/sha256/00").join("0".repeat(64));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "nobody's").unwrap();
    age(&server);
    server.cli(&["gc"]).await;
    assert!(!orphan.exists());
    server.cli(&["fsck"]).await;
    server.start_again().await;
    assert!(fetch(&server.caller_with(&token), &kept).await.expect(200).body == kept.tarball);
    server.finish().await;
}
