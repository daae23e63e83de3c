//! The harness itself: each real client installs straight from the scripted upstream, and each fault is really committed.
//!
//! What these tests prove is that a failure elsewhere is the server's.

use std::time::Duration;

use crate::harness::{Caller, Client, Fault, Package, Project, Tool, Upstream, exchange};

async fn installs_without_us(tool: Tool) {
    let upstream = Upstream::with(&[
        Package::new("dep", "1.0.0"),
        Package::with("@acme/tool", "2.1.0", serde_json::json!({ "dependencies": { "dep": "^1.0.0" } }), 20_000),
    ]);
    let client = Client::new(tool, &format!("{}/", upstream.url()), None);
    let project = Project::depending_on(tool, &["@acme/tool@^2.0.0"]);
    client.run(project.path(), tool.install()).await.ok();
    assert_eq!(project.installed("@acme/tool"), "2.1.0");
    project.forget_install();
    let fresh = Client::new(tool, &format!("{}/", upstream.url()), None);
    fresh.run(project.path(), tool.frozen()).await.ok();
    assert_eq!(project.installed("@acme/tool"), "2.1.0");
    assert!(upstream.requests().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn npm_installs_from_the_scripted_upstream() {
    installs_without_us(Tool::Npm).await;
}

#[tokio::test]
async fn yarn1_installs_from_the_scripted_upstream() {
    installs_without_us(Tool::Yarn1).await;
}

#[tokio::test]
async fn berry_installs_from_the_scripted_upstream() {
    installs_without_us(Tool::Berry).await;
}

#[tokio::test]
async fn pnpm_installs_from_the_scripted_upstream() {
    installs_without_us(Tool::Pnpm).await;
}

#[tokio::test]
async fn bun_installs_from_the_scripted_upstream() {
    installs_without_us(Tool::Bun).await;
}

#[tokio::test]
async fn faults_are_committed_as_told() {
    let package = Package::with("dep", "1.0.0", serde_json::json!({}), 3000);
    let upstream = Upstream::with(std::slice::from_ref(&package));
    let caller = Caller::new(&upstream.url(), None);
    let path = package.path();
    let whole = package.tarball.clone();

    upstream.fault(&path, Fault::Status(503), 1);
    assert_eq!(caller.get(&path).send().await.status, 503);
    upstream.fault(&path, Fault::CutAfter(100), 1);
    let cut = caller.get(&path).send().await;
    assert!(cut.cut && cut.body == whole[..100]);
    upstream.fault(&path, Fault::CutChunkedAfter(100), 1);
    assert!(caller.get(&path).send().await.cut);
    upstream.fault(&path, Fault::Short, 1);
    assert!(caller.get(&path).send().await.cut);
    upstream.fault(&path, Fault::Flipped, 1);
    let flipped = caller.get(&path).send().await;
    assert!(flipped.body.len() == whole.len() && flipped.body != whole);
    upstream.fault(&path, Fault::Padded, 1);
    assert!(caller.get(&path).send().await.body.len() > whole.len());
    upstream.fault(&path, Fault::Portal, 1);
    assert!(caller.get(&path).send().await.text().contains("<html>"));
    upstream.fault(&path, Fault::Hang, 1);
    assert!(tokio::time::timeout(Duration::from_millis(100), caller.get(&path).send()).await.is_err());

    upstream.fault(&path, Fault::HoldAfter(100), 1);
    let follow = tokio::spawn(caller.get(&path).send());
    upstream.held(1).await;
    upstream.release();
    assert!(follow.await.unwrap().body == whole);

    let etag = caller.get("/dep").send().await.header("etag").to_owned();
    assert_eq!(caller.get("/dep").header("if-none-match", &etag).send().await.status, 304);
    let tail = caller.get(&path).header("range", "bytes=100-").send().await;
    assert!(tail.status == 206 && tail.body == whole[100..]);

    upstream.stop();
    assert!(caller.get("/dep").try_send().await.is_none());
    upstream.start_again();
    assert_eq!(caller.get("/dep").send().await.status, 200);
}

#[tokio::test]
async fn raw_exchanges_are_taken_apart() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let port = upstream.url().rsplit(':').next().unwrap().parse().unwrap();
    let got = exchange(port, b"GET /-/ping HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(got.statuses, [200, 404]);
    assert_eq!(got.responses[0].1, b"{}");
    assert!(!got.closed);
}
