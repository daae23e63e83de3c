//! An upstream that lies, stalls, or is gone: the rows UP and CA of the catalogue, by name.
//!
//! One promise holds throughout: a caller gets the right bytes or an error it can
//! tell, never a part that looks whole and never bytes that were not promised.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Answer, Caller, Fault, Package, Server, Setup, Upstream};
use crate::npm_refusals::peak_kilobytes;
use crate::npm_wire::at;
use crate::proxy::{NEVER_FRESH, fetch, in_front_of};

/// Time-outs short enough for a test.
const IMPATIENT: &str = "connect_seconds = 1\nheader_seconds = 1\nidle_seconds = 1\n";

/// Right and whole, or an error: a status from 500 on in npm's shape, or an answer that breaks off, be it in its head.
#[track_caller]
fn right_or_refused(what: &str, answer: Option<&Answer>, whole: &[u8]) {
    let Some(answer) = answer else { return };
    if answer.status == 200 {
        assert!(answer.cut || answer.body == whole, "{what}: 200 and {} bytes that are not the package", answer.body.len());
        assert!(answer.cut || answer.body.len() == whole.len());
    } else {
        assert!(matches!(answer.status, 502..=504), "{what}: {}", answer.status);
        assert!(answer.json()["error"].is_string(), "{what}: {}", answer.text());
    }
}

/// Gets a tarball, or `None` when the connection ends before the answer begins.
async fn try_fetch(caller: &Caller, package: &Package) -> Option<Answer> {
    caller.get(&format!("/npm{}", package.path())).try_send().await
}

/// A fault on a tarball: callers are never lied to, nothing bad is kept, and the next fetch succeeds.
async fn tarball_fault(what: &str, fault: Fault) {
    let package = Package::with("dep", "1.0.0", json!({}), 300_000);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    caller.packument("dep").await;
    // Often enough that retries within one request meet it too.
    upstream.always(&package.path(), fault);
    right_or_refused(what, try_fetch(&caller, &package).await.as_ref(), &package.tarball);
    upstream.heal(&package.path());
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let healed = try_fetch(&caller, &package).await;
        right_or_refused(what, healed.as_ref(), &package.tarball);
        if healed.is_some_and(|answer| answer.status == 200 && !answer.cut) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: never well again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.finish().await;
}

/// A fault on a packument: 502 in npm's shape, nothing kept, and the next fetch succeeds.
async fn packument_fault(what: &str, fault: Fault) {
    let (upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    upstream.always("/dep", fault);
    let answer = caller.get(&at("dep")).send().await;
    assert!(matches!(answer.status, 502..=504), "{what}: {} {}", answer.status, answer.text());
    assert!(answer.json()["error"].is_string(), "{what}");
    upstream.heal("/dep");
    well_again(&caller, what).await;
    server.finish().await;
}

async fn well_again(caller: &Caller, what: &str) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while caller.get(&at("dep")).send().await.status != 200 {
        assert!(tokio::time::Instant::now() < end, "{what}: never well again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn up01_tarballs_cut_short() {
    for after in [0, 1, 100_000, 299_000] {
        tarball_fault("cut", Fault::CutAfter(after)).await;
        tarball_fault("cut, chunked", Fault::CutChunkedAfter(after)).await;
    }
}

#[tokio::test]
async fn up01_a_broken_fill_resumes_where_it_broke() {
    let package = Package::with("dep", "1.0.0", json!({}), 1 << 20);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    caller.packument("dep").await;
    upstream.fault(&package.path(), Fault::CutAfter(600_000), 1);
    let answer = fetch(&caller, &package).await.expect(200);
    assert!(!answer.cut && answer.body == package.tarball);
    let second = upstream.requests().into_iter().rfind(|seen| seen.path == package.path()).unwrap();
    assert!(second.header("range").is_some_and(|range| range.starts_with("bytes=")), "{:?}", second.headers);
    assert!(second.header("if-range").is_some(), "only the same bytes may be joined");
    server.finish().await;
}

#[tokio::test]
async fn up02_lengths_that_lie() {
    tarball_fault("short", Fault::Short).await;
    tarball_fault("padded", Fault::Padded).await;
    packument_fault("a short packument", Fault::Short).await;
}

#[tokio::test]
async fn up02_bytes_after_the_end_are_nobodys() {
    let package = Package::with("dep", "1.0.0", json!({}), 3000);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    caller.packument("dep").await;
    upstream.fault(&package.path(), Fault::Long, 1);
    right_or_refused("long", try_fetch(&caller, &package).await.as_ref(), &package.tarball);
    right_or_refused("after a long one", try_fetch(&caller, &package).await.as_ref(), &package.tarball);
    server.finish().await;
}

#[tokio::test]
async fn up03_nothing_and_login_pages() {
    tarball_fault("an empty tarball", Fault::Empty).await;
    tarball_fault("a login page for a tarball", Fault::Portal).await;
    packument_fault("an empty packument", Fault::Empty).await;
    packument_fault("a login page for a packument", Fault::Portal).await;
}

#[tokio::test]
async fn up04_a_wrong_hash() {
    tarball_fault("a flipped byte", Fault::Flipped).await;
}

#[tokio::test]
async fn up05_a_version_that_changes_its_bytes() {
    let old = Package::with("dep", "1.0.0", json!({}), 2000);
    let upstream = Upstream::with(std::slice::from_ref(&old));
    let server = Setup::default().upstream(&upstream).engine(NEVER_FRESH).start().await;
    let caller = server.caller();
    assert!(fetch(&caller, &old).await.expect(200).body == old.tarball);
    upstream.remove("dep");
    let new = Package::with("dep", "1.0.0", json!({ "evil": true }), 2100);
    upstream.add(&new);
    for _ in 0..3 {
        caller.packument("dep").await;
    }
    let answer = fetch(&caller, &old).await;
    assert!(answer.status == 200 && answer.body == old.tarball, "the bytes once served stay: {}", answer.status);
    server.finish().await;
}

#[tokio::test]
async fn up06_encodings_that_lie() {
    packument_fault("gzip that is none", Fault::GzipGarbage).await;
    packument_fault("gzip twice", Fault::GzipTwice).await;
    tarball_fault("a tarball as gzip that is none", Fault::GzipGarbage).await;
}

#[tokio::test]
async fn up07_redirects_lead_nowhere_bad() {
    let (upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    let targets =
        [format!("{}/dep", upstream.url()), "file:///etc/passwd".into(), "http://10.1.2.3/x".into(), "gopher://127.0.0.1/".into()];
    for target in targets {
        upstream.always("/dep", Fault::Redirect(target.clone()));
        let started = tokio::time::Instant::now();
        let answer = caller.get(&at("dep")).send().await;
        assert!(matches!(answer.status, 502..=504), "{target}: {}", answer.status);
        assert!(answer.header("location").is_empty() && started.elapsed() < Duration::from_secs(10), "{target}");
        upstream.heal("/dep");
    }
    assert!(upstream.count("/dep") < 100, "a loop is ended");
    server.finish().await;
}

#[tokio::test]
async fn up07_credentials_do_not_follow_to_another_host() {
    let package = Package::with("dep", "1.0.0", json!({}), 5000);
    let elsewhere = Upstream::with(std::slice::from_ref(&package));
    let upstream = Upstream::with(std::slice::from_ref(&package));
    upstream.require("Bearer upstream-canary-token");
    upstream.always(&package.path(), Fault::Redirect(format!("{}{}", elsewhere.url(), package.path())));
    let server = Setup::default().upstream_with_token(&upstream, "upstream-canary-token").start().await;
    assert!(fetch(&server.caller(), &package).await.expect(200).body == package.tarball);
    assert!(elsewhere.requests().iter().all(|seen| seen.header("authorization").is_none()), "a credential left its host");
    assert!(upstream.requests().iter().all(|seen| seen.header("authorization").is_some()));
    server.finish().await;
}

#[tokio::test]
async fn up17_a_tarball_on_another_host_is_ours_and_gets_no_credential() {
    let package = Package::with("dep", "1.0.0", json!({}), 5000);
    let elsewhere = Upstream::with(std::slice::from_ref(&package));
    let upstream = Upstream::start();
    upstream.require("Bearer upstream-canary-token");
    upstream.add_elsewhere(&package, &format!("{}{}", elsewhere.url(), package.path()));
    let private = Package::new("inner", "1.0.0");
    upstream.add_elsewhere(&private, "http://10.9.8.7/inner-1.0.0.tgz");
    let server = Setup::default().upstream_with_token(&upstream, "upstream-canary-token").start().await;
    let caller = server.caller();
    let text = caller.packument("dep").await.to_string();
    assert!(!text.contains(&elsewhere.url()) && text.contains(&server.registry()), "{text}");
    right_or_refused("a foreign tarball", try_fetch(&caller, &package).await.as_ref(), &package.tarball);
    assert!(elsewhere.requests().iter().all(|seen| seen.header("authorization").is_none()), "a credential left its host");
    let refused = fetch(&caller, &private).await;
    assert!(matches!(refused.status, 502..=504), "a private address: {}", refused.status);
    server.finish().await;
}

#[tokio::test]
async fn a_private_address_is_refused_unless_allowed() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let server = Setup::default().upstream(&upstream).engine("allow_private = []").start().await;
    let answer = server.caller().get(&at("dep")).send().await;
    assert!(matches!(answer.status, 502..=504), "{}", answer.status);
    assert!(upstream.requests().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn up10_storms_are_answered_from_the_cache_or_as_an_error() {
    for fault in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::StatusWith(429, vec![("Retry-After", "1000000000".into())]),
        Fault::StatusWith(503, vec![("Retry-After", "nonsense".into())]),
    ] {
        let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
        let server = Setup::default().upstream(&upstream).engine(NEVER_FRESH).start().await;
        let caller = server.caller();
        let before = caller.get(&at("dep")).send().await.expect(200);
        for path in ["/dep", "/cold"] {
            upstream.always(path, fault.clone());
        }
        let started = tokio::time::Instant::now();
        for _ in 0..5 {
            let stale = caller.get(&at("dep")).send().await.expect(200);
            assert!(stale.body == before.body, "{fault:?}");
        }
        let cold = caller.get(&at("cold")).send().await;
        assert!(matches!(cold.status, 429 | 502..=504), "{fault:?}: {}", cold.status);
        assert!(cold.json()["error"].is_string());
        assert!(started.elapsed() < Duration::from_secs(30), "{fault:?}: {:?}", started.elapsed());
        server.finish().await;
    }
}

#[tokio::test]
async fn ca09_an_error_is_not_replayed() {
    let (upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    for status in [401, 403, 500] {
        upstream.always("/dep", Fault::Status(status));
        let answer = caller.get(&at("dep")).send().await;
        assert!(answer.status >= 400 && answer.status != 404, "trap 20: {status} became {}", answer.status);
        upstream.heal("/dep");
    }
    well_again(&caller, "after errors").await;
    server.finish().await;
}

/// A server that waits one second at most for each phase.
async fn impatient(upstream: &Upstream) -> Server {
    Setup::default().upstream(upstream).engine(IMPATIENT).start().await
}

#[tokio::test]
async fn up11_stalls_end_in_time() {
    let package = Package::with("dep", "1.0.0", json!({}), 300_000);
    let upstream = Upstream::with(std::slice::from_ref(&package));
    let server = impatient(&upstream).await;
    let caller = server.caller();
    let started = tokio::time::Instant::now();
    upstream.always("/dep", Fault::Hang);
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(caller.get(&at("dep")).send())).collect();
    for answer in waiting {
        let status = answer.await.unwrap().status;
        assert!(matches!(status, 502..=504), "{status}");
    }
    upstream.heal("/dep");
    well_again(&caller, "after a hang").await;
    upstream.always(&package.path(), Fault::HoldAfter(1000));
    right_or_refused("a stalled body", try_fetch(&caller, &package).await.as_ref(), &package.tarball);
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    server.finish().await;
}

#[tokio::test]
async fn up11_a_drip_starves_nobody_else() {
    let package = Package::with("dep", "1.0.0", json!({}), 300_000);
    let upstream = Upstream::with(&[package.clone(), Package::new("other", "1.0.0")]);
    let server = impatient(&upstream).await;
    let caller = server.caller();
    caller.packument("dep").await;
    upstream.always(&package.path(), Fault::Drip(Duration::from_millis(200)));
    let slow = tokio::spawn(caller.get(&format!("/npm{}", package.path())).send());
    let started = tokio::time::Instant::now();
    caller.packument("other").await;
    assert!(started.elapsed() < Duration::from_secs(2));
    slow.abort();
    upstream.stop();
    server.finish().await;
}

#[tokio::test]
async fn up12_a_name_that_does_not_resolve() {
    let server = Setup::default().upstream_with("fake", "http://no-such-host.invalid", "").start().await;
    let answer = server.caller().get(&at("dep")).send().await;
    assert!(matches!(answer.status, 502..=504), "{}", answer.status);
    assert!(answer.json()["error"].is_string());
    server.finish().await;
}

#[tokio::test]
async fn up13_bad_tls_is_not_downgraded() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let url = upstream.url().replace("http://", "https://");
    let server = Setup::default().upstream_with("fake", &url, "").start().await;
    let answer = server.caller().get(&at("dep")).send().await;
    assert!(matches!(answer.status, 502..=504), "{}", answer.status);
    assert!(upstream.requests().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn up14_a_packument_without_end_is_cut_off() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let server = Setup::default().upstream(&upstream).start().await;
    let before = peak_kilobytes(server.pid());
    upstream.always("/dep", Fault::Endless);
    let answer = server.caller().get(&at("dep")).send().await;
    assert!(matches!(answer.status, 502..=504), "{}", answer.status);
    let grown = peak_kilobytes(server.pid()) - before;
    assert!(grown < 700 << 10, "memory grew by {grown} kB");
    server.finish().await;
}

#[tokio::test]
async fn up15_only_harmless_headers_pass() {
    let package = Package::new("dep", "1.0.0");
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    let odd = vec![
        ("Set-Cookie", "session=canary".to_owned()),
        ("Content-Security-Policy", "default-src evil".into()),
        ("Location", "http://evil.example/".into()),
        ("Link", "<http://evil.example/>; rel=preload".into()),
        ("npm-notice", "read me".into()),
        ("X-Powered-By", "canary".into()),
        ("Cache-Control", "private, no-store".into()),
        ("Content-Disposition", "inline; filename=x.html".into()),
    ];
    upstream.always("/dep", Fault::Extra(odd.clone()));
    upstream.always(&package.path(), Fault::Extra(odd));
    for _ in 0..2 {
        for answer in [caller.get(&at("dep")).send().await.expect(200), fetch(&caller, &package).await.expect(200)] {
            for (name, value) in &answer.headers {
                let value = value.to_str().unwrap_or_default();
                assert!(!value.contains("evil") && !value.contains("canary") && !value.contains("read me"), "{name}: {value}");
            }
            for name in ["set-cookie", "location", "content-disposition", "npm-notice"] {
                assert_eq!(answer.header(name), "", "{name}");
            }
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn up16_answers_nobody_asked_for() {
    packument_fault("an unasked 304", Fault::Unasked304).await;
    packument_fault("an unasked 206", Fault::Unasked206).await;
    tarball_fault("an unasked 304", Fault::Unasked304).await;
    tarball_fault("an unasked 206", Fault::Unasked206).await;
}

#[tokio::test]
async fn up16_a_flood_of_interim_answers() {
    let (upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    upstream.fault("/dep", Fault::Interim(50_000), 1);
    let answer = caller.get(&at("dep")).send().await;
    assert!(matches!(answer.status, 200 | 502..=504), "{}", answer.status);
    well_again(&caller, "after a flood").await;
    server.finish().await;
}

#[tokio::test]
async fn up18_what_is_cached_outlives_the_upstream() {
    let package = Package::with("dep", "1.0.0", json!({}), 50_000);
    let upstream = Upstream::with(&[package.clone(), Package::new("cold", "1.0.0")]);
    let mut server = Setup::default().upstream(&upstream).engine(NEVER_FRESH).start().await;
    let caller = server.caller();
    let before = caller.get(&at("dep")).send().await.expect(200);
    fetch(&caller, &package).await.expect(200);
    upstream.stop();
    for round in 0..2 {
        let stale = caller.get(&at("dep")).send().await.expect(200);
        assert!(stale.body == before.body);
        assert!(stale.verdict().contains("stale") || stale.verdict().contains("hit"), "{}", stale.verdict());
        assert!(fetch(&caller, &package).await.expect(200).body == package.tarball);
        let cold = caller.get(&at("cold")).send().await;
        assert!(matches!(cold.status, 502..=504) && cold.json()["error"].is_string(), "trap 20: {}", cold.status);
        if round == 0 {
            assert!(server.stop().await.success());
            server.start_again().await;
        }
    }
    upstream.start_again();
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while caller.get(&at("cold")).send().await.status != 200 {
        assert!(tokio::time::Instant::now() < end, "the breaker never closes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn ca08_the_same_name_at_another_upstream_is_another_thing() {
    let (one, two) = (Package::with("dep", "1.0.0", json!({}), 1000), Package::with("dep", "1.0.0", json!({ "x": 1 }), 3000));
    let (first, second) = (Upstream::with(std::slice::from_ref(&one)), Upstream::with(std::slice::from_ref(&two)));
    let mut server = Setup::default().upstream_with("first", &first.url(), "").start().await;
    assert!(fetch(&server.caller(), &one).await.expect(200).body == one.tarball);
    assert!(server.stop().await.success());
    let text = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), text.replace(&first.url(), &second.url()).replace("\"first\"", "\"second\"")).unwrap();
    server.start_again().await;
    assert!(fetch(&server.caller(), &two).await.expect(200).body == two.tarball, "bytes of another upstream");
    server.finish().await;
}
