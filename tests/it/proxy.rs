//! The pull-through cache: what it owes its users while the upstream behaves, and whose name is whose.
//!
//! What happens when the upstream misbehaves is in `proxy_faults`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Caller, Fault, Package, Server, Setup, Upstream, gunzip};
use crate::npm_refusals::peak_kilobytes;
use crate::npm_wire::{ABBREVIATED, at, publish};

/// An upstream with these packages and a server in front of it.
pub(crate) async fn in_front_of(packages: &[Package]) -> (Upstream, Server, Caller) {
    let upstream = Upstream::with(packages);
    let server = Setup::default().upstream(&upstream).start().await;
    let caller = server.caller();
    (upstream, server, caller)
}

/// Keys of `[upstream]` under which every packument is asked for again at once, with a validator.
pub(crate) const NEVER_FRESH: &str = "fresh_seconds = 0\nstale_while_revalidate_seconds = 0\nnegative_seconds = 0";

/// Gets a tarball below the mount.
pub(crate) async fn fetch(caller: &Caller, package: &Package) -> Answer {
    caller.get(&format!("/npm{}", package.path())).send().await
}

#[tokio::test]
async fn the_first_fetch_is_a_miss_and_the_second_a_hit() {
    let package = Package::with("@acme/dep", "1.0.0", json!({}), 100_000);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    let first = caller.get(&at("@acme/dep")).send().await.expect(200);
    assert!(first.verdict().contains("fwd=uri-miss"), "{}", first.verdict());
    let second = caller.get(&at("@acme/dep")).send().await.expect(200);
    assert!(second.verdict().starts_with("hit"), "{}", second.verdict());
    assert_eq!(upstream.count("/@acme/dep"), 1);

    let first = fetch(&caller, &package).await.expect(200);
    assert!(first.verdict().contains("fwd=uri-miss") && first.body == package.tarball && !first.cut);
    let second = fetch(&caller, &package).await.expect(200);
    assert!(second.verdict().starts_with("hit") && second.body == package.tarball, "{}", second.verdict());
    assert_eq!(second.header("content-length"), package.tarball.len().to_string());
    assert_eq!(upstream.count(&package.path()), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_tarball_is_found_without_asking_for_its_packument_first() {
    let package = Package::new("dep", "1.0.0");
    let (_upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    assert!(fetch(&caller, &package).await.expect(200).body == package.tarball, "npm ci asks for tarballs alone");
    server.finish().await;
}

#[tokio::test]
async fn addresses_are_ours_and_the_rest_is_untouched() {
    let upstream = Upstream::start();
    let plain = Package::with("dep", "1.0.0", json!({ "ourField": { "a": 1 } }), 0);
    let odd = Package::new("dep", "1.1.0");
    upstream.add(&plain);
    upstream.add_at(&odd, Some("/download/dep/1.1.0/abcdef"));
    upstream.tag("dep", "next", "1.0.0");
    upstream.more("dep", json!({ "futureField": [1, { "x": null }], "users": { "bob": true } }));
    let server = Setup::default().upstream(&upstream).start().await;
    let caller = server.caller();
    let ours = caller.packument("dep").await;
    let theirs = Caller::new(&upstream.url(), None).get("/dep").send().await.json();
    for (version, package) in [("1.0.0", &plain), ("1.1.0", &odd)] {
        let address = format!("{}dep/-/dep-{version}.tgz", server.registry());
        assert_eq!(ours["versions"][version]["dist"]["tarball"], json!(address));
        let mut expected = theirs["versions"][version].clone();
        expected["dist"]["tarball"] = json!(address);
        assert_eq!(ours["versions"][version], expected);
        assert!(fetch(&caller, package).await.expect(200).body == package.tarball, "{version}");
    }
    for key in ["time", "dist-tags", "futureField", "users", "readme"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(upstream.count("/download/dep/1.1.0/abcdef"), 1, "fetched where the upstream keeps it");
    server.finish().await;
}

#[tokio::test]
async fn both_forms_come_from_one_fetch() {
    let (upstream, server, caller) = in_front_of(&[Package::with("dep", "1.0.0", json!({ "scripts": { "install": "x" }, "keywords": vec!["word"; 200], "dependencies": { "a-dependency-with-a-name": "^1.0.0", "another-dependency-with-a-name": "^1.0.0" }, "funding": "https://example.test/".repeat(60) }), 0)]).await;
    let short = caller.get(&at("dep")).header("accept", ABBREVIATED).header("accept-encoding", "gzip").send().await.expect(200);
    assert_eq!((short.header("content-type"), short.header("content-encoding")), ("application/vnd.npm.install-v1+json", "gzip"));
    let value: Value = serde_json::from_slice(&gunzip(&short.body)).unwrap();
    assert_eq!(value["versions"]["1.0.0"]["hasInstallScript"], json!(true));
    assert!(value["time"].is_null());
    let full = caller.get(&at("dep")).send().await.expect(200);
    assert!(full.json()["time"]["1.0.0"].is_string(), "trap 5: berry refuses everything without it");
    assert!(full.header("etag") != short.header("etag") && !full.header("etag").is_empty());
    assert_eq!(upstream.count("/dep"), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_changed_packument_is_revalidated_with_its_validator() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let server = Setup::default().upstream(&upstream).engine(NEVER_FRESH).start().await;
    let caller = server.caller();
    let first = caller.get(&at("dep")).send().await.expect(200);
    let second = caller.get(&at("dep")).send().await.expect(200);
    assert_eq!(first.body, second.body);
    let seen = upstream.requests();
    assert!(seen.iter().any(|seen| seen.header("if-none-match").is_some()), "asked again with If-None-Match");
    upstream.add(&Package::new("dep", "1.1.0"));
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while caller.packument("dep").await["versions"]["1.1.0"].is_null() {
        assert!(tokio::time::Instant::now() < end, "a new version is never seen");
    }
    server.finish().await;
}

#[tokio::test]
async fn an_upstream_without_validators_serves_too() {
    let package = Package::new("dep", "1.0.0");
    let upstream = Upstream::with(std::slice::from_ref(&package));
    upstream.without_validators();
    let server = Setup::default().upstream(&upstream).engine(NEVER_FRESH).start().await;
    let caller = server.caller();
    for _ in 0..3 {
        let answer = caller.get(&at("dep")).send().await.expect(200);
        assert!(!answer.header("etag").is_empty(), "the validator is ours");
        assert_eq!(caller.get(&at("dep")).header("if-none-match", answer.header("etag")).send().await.status, 304);
    }
    assert!(fetch(&caller, &package).await.expect(200).body == package.tarball);
    server.finish().await;
}

#[tokio::test]
async fn a_version_that_the_cached_packument_does_not_know_is_looked_for_once() {
    let (upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    caller.packument("dep").await;
    let fresh = Package::new("dep", "1.1.0");
    upstream.add(&fresh);
    assert!(fetch(&caller, &fresh).await.expect(200).body == fresh.tarball, "a lock file may know more than our copy");
    assert_eq!(upstream.count("/dep"), 2);
    fetch(&caller, &Package::new("dep", "9.9.9")).await.expect(404);
    let before = upstream.count("/dep");
    for _ in 0..10 {
        fetch(&caller, &Package::new("dep", "9.9.9")).await.expect(404);
    }
    assert!(upstream.count("/dep") <= before + 1, "UP19: asked {} times", upstream.count("/dep") - before);
    server.finish().await;
}

#[tokio::test]
async fn up19_a_miss_is_remembered_briefly() {
    let (upstream, server, caller) = in_front_of(&[]).await;
    for _ in 0..5 {
        caller.get(&at("none")).send().await.expect(404);
    }
    assert_eq!(upstream.count("/none"), 1);
    server.finish().await;
}

#[tokio::test]
async fn up20_a_caller_that_leaves_ends_nothing() {
    let package = Package::with("dep", "1.0.0", json!({}), 2 << 20);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    caller.packument("dep").await;
    upstream.fault(&package.path(), Fault::HoldAfter(1 << 20), 1);
    let first = tokio::spawn(caller.get(&format!("/npm{}", package.path())).send());
    upstream.held(1).await;
    let second = tokio::spawn(caller.get(&format!("/npm{}", package.path())).send());
    first.abort();
    let _ = first.await;
    upstream.release();
    let answer = second.await.unwrap();
    assert!(answer.status == 200 && !answer.cut && answer.body == package.tarball);
    assert_eq!(upstream.count(&package.path()), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_fill_goes_on_when_everybody_has_left() {
    let package = Package::with("dep", "1.0.0", json!({}), 2 << 20);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    caller.packument("dep").await;
    upstream.fault(&package.path(), Fault::HoldAfter(1 << 20), 1);
    let only = tokio::spawn(caller.get(&format!("/npm{}", package.path())).send());
    upstream.held(1).await;
    only.abort();
    let _ = only.await;
    upstream.release();
    assert!(fetch(&caller, &package).await.expect(200).body == package.tarball);
    assert_eq!(upstream.count(&package.path()), 1, "the first download was not thrown away");
    server.finish().await;
}

/// Reads an answer and compares it as it comes, so that a thousand of them need no memory.
async fn reads_exactly(mut answer: reqwest::Response, bytes: &[u8]) -> bool {
    let mut position = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        if !bytes[position..].starts_with(&chunk) {
            return false;
        }
        position += chunk.len();
    }
    position == bytes.len()
}

#[tokio::test]
async fn up21_many_callers_of_a_cold_file_are_one_fetch() {
    let package = Package::with("dep", "1.0.0", json!({}), 1 << 20);
    let (upstream, server, _) = in_front_of(std::slice::from_ref(&package)).await;
    upstream.fault("/dep", Fault::Hold, 1);
    upstream.fault(&package.path(), Fault::HoldAfter(5000), 1);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
    let (address, tarball) = (format!("{}/npm{}", server.origin(), package.path()), Arc::new(package.tarball.clone()));
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let (asked, tarball) = (http.get(&address).send(), Arc::clone(&tarball));
            tokio::spawn(async move { reads_exactly(asked.await.unwrap(), &tarball).await })
        })
        .collect();
    upstream.held(1).await;
    upstream.release();
    upstream.held(1).await;
    upstream.release();
    for exact in callers {
        assert!(exact.await.unwrap(), "a caller got other bytes");
    }
    assert_eq!((upstream.count("/dep"), upstream.count(&package.path())), (1, 1));
    server.finish().await;
}

#[tokio::test]
async fn the_first_byte_does_not_wait_for_the_last() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let package = Package::with("dep", "1.0.0", json!({}), 4 << 20);
    let (upstream, server, caller) = in_front_of(std::slice::from_ref(&package)).await;
    caller.packument("dep").await;
    upstream.fault(&package.path(), Fault::HoldAfter(3 << 20), 1);
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = format!("GET /npm{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", package.path());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = vec![0; 1 << 20];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut start)).await.expect("bytes while the upstream waits").unwrap();
    upstream.release();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(&package.tarball[package.tarball.len() - 1000..]));
    server.finish().await;
}

#[tokio::test]
async fn upstreams_are_asked_in_order_and_never_mixed() {
    let (ours, theirs) = (Package::with("both", "1.0.0", json!({}), 1000), Package::with("both", "1.0.0", json!({ "x": 1 }), 2000));
    let first = Upstream::with(std::slice::from_ref(&ours));
    let second = Upstream::with(&[theirs, Package::new("both", "2.0.0"), Package::new("second-only", "1.0.0")]);
    let server = Setup::default().upstream_with("first", &first.url(), "").upstream_with("second", &second.url(), "").start().await;
    let caller = server.caller();
    let value = caller.packument("both").await;
    assert!(value["versions"]["2.0.0"].is_null(), "UP22: the first that has a name keeps it");
    assert!(fetch(&caller, &ours).await.expect(200).body == ours.tarball);
    assert_eq!(second.count("/both"), 0);
    caller.packument("second-only").await;
    assert_eq!(first.count("/second-only"), 1);
    server.finish().await;
}

#[tokio::test]
async fn an_upstream_that_is_down_is_not_one_without_the_package() {
    let first = Upstream::start();
    let second = Upstream::with(&[Package::new("dep", "6.6.6")]);
    let server = Setup::default().upstream_with("first", &first.url(), "").upstream_with("second", &second.url(), "").start().await;
    first.stop();
    let answer = server.caller().get(&at("dep")).send().await;
    assert!(matches!(answer.status, 502..=504), "{}", answer.status);
    assert_eq!(second.count("/dep"), 0, "a lower upstream may not answer for one that is down");
    server.finish().await;
}

#[tokio::test]
async fn az20_a_hosted_name_is_never_asked_upstream() {
    let upstream = Upstream::start();
    let server = Setup::default().upstream(&upstream).start().await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    let package = Package::new("@alice/tool", "1.0.0");
    assert!(publish(&caller, &package).await.status < 300);
    // From the first publish on; somebody else then takes the name upstream.
    upstream.add(&Package::new("@alice/tool", "9.0.0"));
    upstream.forget();
    let value = caller.packument("@alice/tool").await;
    assert_eq!(value["dist-tags"]["latest"], json!("1.0.0"));
    fetch(&caller, &Package::new("@alice/tool", "9.0.0")).await.expect(404);
    server.caller().get(&at("@alice/tool")).send().await.expect(404);
    let rev = caller.get(&format!("{}?write=true", at("@alice/tool"))).send().await.json()["_rev"].as_str().unwrap().to_owned();
    assert!(caller.ask("DELETE", &format!("{}/-rev/{rev}", at("@alice/tool"))).send().await.status < 300);
    caller.get(&at("@alice/tool")).send().await.expect(404);
    fetch(&server.caller(), &Package::new("@alice/tool", "9.0.0")).await.expect(404);
    caller.get("/npm/-/v1/search?text=@alice/tool").send().await;
    let audit = json!({ "@alice/tool": ["1.0.0"], "left": ["1.0.0"] });
    caller.ask("POST", "/npm/-/npm/v1/security/advisories/bulk").json(&audit).send().await.expect(200);
    for seen in upstream.requests() {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(!seen.path.contains("@alice/tool") && !body.contains("@alice/tool"), "asked upstream: {} {body}", seen.target);
    }
    server.finish().await;
}

#[tokio::test]
async fn what_a_client_says_of_itself_stays_here() {
    let package = Package::new("dep", "1.0.0");
    let upstream = Upstream::with(std::slice::from_ref(&package));
    let server = Setup::default().upstream(&upstream).start().await;
    let token = server.publisher("alice").await;
    for path in [at("dep"), format!("/npm{}", package.path()), "/npm/-/v1/search?text=dep".into()] {
        let ask = server.caller_with(&token).get(&path).header("cookie", "session=canary").header("npm-session", "canary");
        ask.header("x-forwarded-for", "203.0.113.9").header("referer", "canary").send().await.expect(200);
    }
    let bulk = server.caller_with(&token).ask("POST", "/npm/-/npm/v1/security/advisories/bulk").json(&json!({ "dep": ["1.0.0"] }));
    bulk.send().await.expect(200);
    assert!(!upstream.requests().is_empty());
    for seen in upstream.requests() {
        for name in ["authorization", "cookie", "npm-session", "x-forwarded-for", "referer", "forwarded", "via"] {
            let value = seen.header(name).unwrap_or_default();
            assert!(value.is_empty() || name == "via", "{name}: {value} went upstream with {}", seen.target);
        }
        assert!(!seen.headers.iter().any(|(_, value)| value.contains("canary")), "{:?}", seen.headers);
    }
    server.finish().await;
}

#[tokio::test]
async fn an_upstream_gets_the_credentials_that_are_its_own() {
    let package = Package::new("dep", "1.0.0");
    let upstream = Upstream::with(std::slice::from_ref(&package));
    upstream.require("Bearer upstream-canary-token");
    let server = Setup::default().upstream_with_token(&upstream, "upstream-canary-token").start().await;
    assert!(fetch(&server.caller(), &package).await.expect(200).body == package.tarball);
    server.finish().await;
}

#[tokio::test]
async fn the_audit_of_the_upstream_is_relayed() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let found =
        json!({ "dep": [{ "id": 7, "url": "https://example.test/7", "title": "bad", "severity": "high", "vulnerable_versions": "<2" }] });
    upstream.file("/-/npm/v1/security/advisories/bulk", "application/json", serde_json::to_vec(&found).unwrap());
    let server = Setup::default().upstream(&upstream).start().await;
    let caller = server.caller();
    let path = "/npm/-/npm/v1/security/advisories/bulk";
    let body = serde_json::to_vec(&json!({ "dep": ["1.0.0"] })).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&body).unwrap();
    let gzipped = caller.ask("POST", path).header("content-encoding", "gzip").body(encoder.finish().unwrap()).send().await.expect(200);
    assert_eq!(gzipped.json(), found, "npm sends its list gzipped");
    upstream.always("/-/npm/v1/security/advisories/bulk", Fault::Status(500));
    let other = caller.ask("POST", path).json(&json!({ "other": ["1.0.0"] })).send().await.expect(200);
    assert_eq!(other.json(), json!({}), "an upstream that fails is no failed audit");
    server.finish().await;
}

#[tokio::test]
async fn attestations_are_relayed() {
    let upstream = Upstream::with(&[Package::new("@acme/dep", "1.0.0")]);
    let bundle = json!({ "attestations": [{ "predicateType": "x", "bundle": { "a": 1 } }] });
    upstream.file("/-/npm/v1/attestations/@acme/dep@1.0.0", "application/json", serde_json::to_vec(&bundle).unwrap());
    let server = Setup::default().upstream(&upstream).start().await;
    for path in ["@acme%2fdep@1.0.0", "@acme/dep@1.0.0"] {
        let answer = server.caller().get(&format!("/npm/-/npm/v1/attestations/{path}")).send().await.expect(200);
        assert_eq!(answer.json(), bundle);
    }
    server.caller().get("/npm/-/npm/v1/attestations/dep@2.0.0").send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn ca04_noise_in_the_address_changes_nothing() {
    let (upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    let expected = caller.get(&at("dep")).send().await.body;
    for path in ["dep?x=1", "dep?cachebuster=%00", "d%65p", "dep?write=false"] {
        assert!(caller.get(&format!("/npm/{path}")).send().await.body == expected, "{path}");
    }
    assert_eq!(upstream.count("/dep"), 1);
    server.finish().await;
}

#[tokio::test]
async fn ca02_ca03_variants_never_cross() {
    let (_upstream, server, caller) = in_front_of(&[Package::new("dep", "1.0.0")]).await;
    let accepts = [ABBREVIATED, "application/json", "*/*"];
    let encodings = ["identity", "gzip", "zstd, gzip;q=0.5", "br"];
    let mut first = Vec::new();
    for round in 0..2 {
        for (index, (accept, encoding)) in accepts.iter().flat_map(|accept| encodings.map(|encoding| (*accept, encoding))).enumerate() {
            let ask = caller.get(&at("dep")).header("accept", accept).header("accept-encoding", encoding);
            let answer = ask.header("x-forwarded-host", "evil.example").header("x-original-url", "/etc").send().await.expect(200);
            let plain = if answer.header("content-encoding") == "gzip" { gunzip(&answer.body) } else { answer.body };
            assert!(!String::from_utf8_lossy(&plain).contains("evil.example"), "CA03");
            if round == 0 { first.push(plain) } else { assert!(first[index] == plain) }
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn ca05_tricks_with_suffixes_reach_no_other_page() {
    let (server, token) = crate::npm_wire::hosting().await;
    publish(&server.caller_with(&token), &Package::new("@alice/tool", "1.0.0")).await;
    for path in ["@alice%2ftool;.css", "@alice%2ftool/x.css", "@alice%2ftool%3f.js", "@alice%2ftool.json;/x.css"] {
        let answer = server.caller().get(&format!("/npm/{path}")).send().await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.header("cache-control").contains("public"), "{path}: {}", answer.header("cache-control"));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_packument_of_tens_of_megabytes_is_bounded_work() {
    let upstream = Upstream::start();
    let one = Package::with("huge", "1.0.0", json!({ "blurb": "x".repeat(3000) }), 0);
    for minor in 0..10_000 {
        let mut package = one.clone();
        package.version = format!("1.{minor}.0");
        package.manifest["version"] = json!(package.version);
        upstream.add(&package);
    }
    let server = Setup::default().upstream(&upstream).start().await;
    let caller = server.caller();
    let started = tokio::time::Instant::now();
    let short = caller.get(&at("huge")).header("accept", ABBREVIATED).header("accept-encoding", "gzip").send().await.expect(200);
    assert!(!short.body.is_empty());
    let full = caller.get(&at("huge")).header("accept-encoding", "gzip").send().await.expect(200);
    assert!(gunzip(&full.body).len() > 30 << 20);
    let hot = tokio::time::Instant::now();
    caller.get(&at("huge")).header("accept", ABBREVIATED).header("accept-encoding", "gzip").send().await.expect(200);
    assert!(hot.elapsed() < Duration::from_secs(1), "a hit took {:?}", hot.elapsed());
    let peak = peak_kilobytes(server.pid());
    assert!(peak < 600 << 10, "{peak} kB after {:?}", started.elapsed());
    server.finish().await;
}
