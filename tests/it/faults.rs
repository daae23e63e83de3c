//! Crashes: SIGKILL at any instant, and what must be true afterwards.
//!
//! The checker keeps its log outside the server: a publish is `acked` once its answer
//! has arrived. After each restart every acked version is there to the byte, and a
//! version that was not acked is absent or whole.

use std::time::Duration;

use rand::RngExt;
use serde_json::json;

use crate::harness::{Caller, Fault, Package, Setup, Upstream, files_below, until};
use crate::npm_wire::{at, hosting, publish};
use crate::proxy::fetch;

/// How many times the server is killed; `PACKHOUSE_KILLS` says otherwise.
fn kills() -> usize {
    std::env::var("PACKHOUSE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(15)
}

/// Publishes one version after another until the server is gone; gives those that were acked, and the one in flight.
async fn publish_until_killed(caller: Caller, name: String, round: usize) -> (Vec<Package>, Option<Package>) {
    let mut acked = Vec::new();
    for n in 0..10_000 {
        let package = Package::with(&name, &format!("{round}.{n}.0"), json!({}), 20_000);
        match caller.put(&at(&name), &package.publish("latest")).try_send().await {
            Some(answer) if answer.status < 300 => acked.push(package),
            Some(answer) if !answer.cut => panic!("{} {}", answer.status, answer.text()),
            _ => return (acked, Some(package)),
        }
    }
    (acked, None)
}

#[tokio::test]
async fn kp01_a_kill_at_any_instant_loses_nothing_acked() {
    let (mut server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let mut acked: Vec<Package> = Vec::new();
    let mut flying: Vec<Package> = Vec::new();
    for round in 1..=kills() {
        let writers: Vec<_> =
            (0..4).map(|n| tokio::spawn(publish_until_killed(caller.clone(), format!("@alice/tool-{n}"), round))).collect();
        let wait = rand::rng().random_range(5..400);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        server.kill().await;
        for writer in writers {
            let (done, flew) = writer.await.unwrap();
            acked.extend(done);
            flying.extend(flew);
        }
        server.start_again().await;
        for package in acked.iter().rev().take(12).chain(&flying) {
            let answer = caller.get(&format!("/npm{}", package.path())).send().await;
            let listed = caller.get(&at(&package.name)).send().await;
            let listed = listed.status == 200 && listed.json()["versions"][&package.version].is_object();
            if flying.iter().any(|flew| flew.path() == package.path()) && !listed {
                assert_eq!(answer.status, 404, "a version that is not listed is served");
            } else {
                assert!(listed && answer.status == 200 && answer.body == package.tarball, "round {round}: {} was acked", package.path());
            }
        }
    }
    assert!(!acked.is_empty(), "no publish was ever acked before a kill");
    for package in &acked {
        let answer = caller.get(&format!("/npm{}", package.path())).send().await;
        assert!(answer.status == 200 && answer.body == package.tarball, "{} was acked", package.path());
    }
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn kp06_a_kill_in_the_middle_of_a_fill_leaves_no_part() {
    let package = Package::with("dep", "1.0.0", json!({}), 2 << 20);
    let upstream = Upstream::with(std::slice::from_ref(&package));
    let mut server = Setup::default().upstream(&upstream).start().await;
    let caller = server.caller();
    caller.packument("dep").await;
    for after in [1, 500_000, 2_000_000] {
        upstream.fault(&package.path(), Fault::HoldAfter(after), 1);
        let cut = tokio::spawn(caller.get(&format!("/npm{}", package.path())).try_send());
        upstream.held(1).await;
        server.kill().await;
        let cut = cut.await.unwrap();
        assert!(cut.is_none_or(|answer| answer.cut), "a killed server ended a body cleanly");
        upstream.release();
        server.start_again().await;
        let whole = fetch(&caller, &package).await;
        assert!(whole.status == 200 && !whole.cut && whole.body == package.tarball, "after a kill at {after}: {}", whole.status);
        assert!(server.stop().await.success());
        std::fs::remove_file(server.data().join("cache.redb")).expect("the cache may be deleted at any time");
        server.start_again().await;
    }
    server.finish().await;
}

#[tokio::test]
async fn kp10_a_revocation_that_was_acked_survives_a_kill() {
    let (mut server, _) = hosting().await;
    let spare = server.token("alice", &["read:packages"]).await;
    server.revoke(&spare).await;
    server.kill().await;
    server.start_again().await;
    server.caller_with(&spare).get("/npm/-/whoami").send().await.expect(401);
    server.finish().await;
}

#[tokio::test]
async fn kp09_a_retry_after_a_lost_answer_is_told_plainly() {
    let (mut server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let package = Package::new("@alice/tool", "1.0.0");
    assert!(publish(&caller, &package).await.status < 300);
    server.kill().await;
    server.start_again().await;
    let again = publish(&caller, &package).await;
    assert!(matches!(again.status, 200 | 201 | 403 | 409), "{}", again.status);
    assert!(caller.get(&format!("/npm{}", package.path())).send().await.body == package.tarball);
    server.finish().await;
}

#[tokio::test]
async fn the_cache_may_be_deleted_at_any_time() {
    let package = Package::with("dep", "1.0.0", json!({}), 50_000);
    let upstream = Upstream::with(std::slice::from_ref(&package));
    let mut server = Setup::default().upstream(&upstream).start().await;
    let token = server.publisher("alice").await;
    let hosted = Package::new("@alice/tool", "1.0.0");
    publish(&server.caller_with(&token), &hosted).await;
    fetch(&server.caller(), &package).await.expect(200);
    assert!(server.stop().await.success());
    std::fs::remove_file(server.data().join("cache.redb")).unwrap();
    server.start_again().await;
    assert!(fetch(&server.caller(), &package).await.expect(200).body == package.tarball);
    assert!(fetch(&server.caller_with(&token), &hosted).await.expect(200).body == hosted.tarball);
    server.finish().await;
}

/// Cached files are not synced before they are named: this is what a loss of power may make of them.
#[tokio::test]
async fn kp06_a_loss_of_power_behind_the_answers_costs_fetches_and_no_bytes() {
    let sizes = [300, 20_000, 60_000, 700_000, 2 << 20];
    let packages: Vec<_> = sizes.iter().enumerate().map(|(n, size)| Package::with("dep", &format!("1.0.{n}"), json!({}), *size)).collect();
    let upstream = Upstream::with(&packages);
    // What refers to the files is on disk at once.
    let mut server = Setup::default().upstream(&upstream).more("[store]\nflush_seconds = 0").start().await;
    let caller = server.caller();
    let losses: [fn(u64) -> u64; 3] = [|_| 0, |size| size / 2, |size| size];
    for (round, left) in losses.into_iter().enumerate() {
        for package in &packages {
            assert!(fetch(&caller, package).await.expect(200).body == package.tarball);
        }
        // A file gets its name behind its last reader, and small ones come to where many are.
        let files = || ["blobs/sha256", "segments"].iter().flat_map(|folder| files_below(&server.data().join(folder))).collect::<Vec<_>>();
        let expected: usize = packages.iter().map(|package| package.tarball.len()).sum();
        until("the files", || {
            files().iter().map(|path| std::fs::metadata(path).map_or(0, |found| found.len())).sum::<u64>() > expected as u64
        })
        .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let files = files();
        server.kill().await;
        for path in files {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let size = file.metadata().unwrap().len();
            file.set_len(left(size) / 2).unwrap();
            file.set_len(left(size)).unwrap();
        }
        server.start_again().await;
        for package in &packages {
            // What turns out to be wrong while it is sent does not end cleanly.
            let first = fetch(&caller, package).await;
            let right = first.status == 200 && !first.cut && first.body == package.tarball;
            assert!(right || first.cut, "round {round}: {} {} bytes", first.status, first.body.len());
            assert!(fetch(&caller, package).await.expect(200).body == package.tarball, "round {round}: {}", package.path());
        }
    }
    server.finish().await;
}
