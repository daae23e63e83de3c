//! Publishes that must be refused: rows NP and AR of the catalogue, by name.
//!
//! Each leaves nothing behind: the version is absent afterwards, and so is every
//! temporary file (`Server::finish` looks).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::harness::{Caller, Package, Setup, integrity, shasum};
use crate::npm_wire::{at, base64_of, hosting, publish};

const NAME: &str = "@alice/tool";

/// Publishes a body and sees it refused with one of these statuses, in npm's shape, with nothing published.
#[track_caller]
fn refused(caller: &Caller, what: &'static str, body: Value) -> impl Future<Output = ()> {
    let caller = caller.clone();
    async move {
        let answer = caller.put(&at(NAME), &body).send().await;
        assert!(matches!(answer.status, 400 | 413 | 415 | 422), "{what}: {} {}", answer.status, answer.text());
        assert!(answer.json()["error"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {}", answer.text());
        assert_eq!(caller.get(&at(NAME)).send().await.status, 404, "{what}: something was published");
    }
}

/// The publish body of 1.0.0 with these bytes as its tarball and true checksums.
fn with_tarball(bytes: &[u8]) -> Value {
    let mut package = Package::new(NAME, "1.0.0");
    package.tarball = bytes.to_vec();
    package.publish("latest")
}

#[tokio::test]
async fn np01_manifest_and_package_json_disagree() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let other = |name: &str, version: &str| Package::new(name, version).tarball;
    refused(&caller, "another name", with_tarball(&other("@alice/else", "1.0.0"))).await;
    refused(&caller, "another version", with_tarball(&other(NAME, "1.0.1"))).await;
    server.finish().await;
}

#[tokio::test]
async fn np02_attachments_that_lie() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let key = "@alice/tool-1.0.0.tgz";
    let body = || Package::new(NAME, "1.0.0").publish("latest");
    let change = |path: &str, value: Value| {
        let mut body = body();
        body["_attachments"][key][path] = value;
        body
    };
    refused(&caller, "no base64", change("data", json!("!!!!"))).await;
    refused(&caller, "cut base64", change("data", json!("AAAAA"))).await;
    refused(&caller, "data is a number", change("data", json!(7))).await;
    refused(&caller, "length too small", change("length", json!(3))).await;
    refused(&caller, "length too large", change("length", json!(1u64 << 60))).await;
    let mut two = body();
    two["_attachments"]["@alice/tool-1.0.1.tgz"] = two["_attachments"][key].clone();
    refused(&caller, "two tarballs", two).await;
    let mut none = body();
    none["_attachments"] = json!({});
    let answer = caller.put(&at(NAME), &none).send().await;
    assert!(matches!(answer.status, 400 | 404 | 422), "no tarball, and no package to change: {} {}", answer.status, answer.text());
    let mut two = body();
    two["versions"]["1.0.1"] = two["versions"]["1.0.0"].clone();
    refused(&caller, "two versions", two).await;
    server.finish().await;
}

#[tokio::test]
async fn np02_the_name_of_an_attachment_reaches_no_path() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let mut body = Package::new(NAME, "1.0.0").publish("latest");
    let attachment = body["_attachments"].as_object_mut().unwrap().remove("@alice/tool-1.0.0.tgz").unwrap();
    body["_attachments"]["../../../../x.tgz"] = attachment;
    let answer = caller.put(&at(NAME), &body).send().await;
    assert!(matches!(answer.status, 200 | 201 | 400 | 422), "{}", answer.status);
    assert!(!server.data().join("../x.tgz").exists() && !server.data().join("x.tgz").exists());
    server.finish().await;
}

#[tokio::test]
async fn np03_wrong_checksums() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    for (field, value) in
        [("integrity", json!(integrity(b"other"))), ("shasum", json!(shasum(b"other"))), ("integrity", json!("sha512-??"))]
    {
        let mut body = Package::new(NAME, "1.0.0").publish("latest");
        body["versions"]["1.0.0"]["dist"][field] = value;
        refused(&caller, field, body).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn np04_a_publish_leaves_older_versions_alone() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    publish(&caller, &Package::new(NAME, "1.0.0")).await;
    let before = caller.packument(NAME).await["versions"]["1.0.0"].clone();
    let mut body = Package::new(NAME, "1.1.0").publish("latest");
    body["versions"]["1.0.0"] = json!({ "name": NAME, "version": "1.0.0", "dependencies": { "evil": "*" } });
    let answer = caller.put(&at(NAME), &body).send().await;
    assert!(answer.status < 500);
    assert_eq!(caller.packument(NAME).await["versions"]["1.0.0"], before);
    server.finish().await;
}

#[tokio::test]
async fn np06_odd_names_and_keys() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let mut body = Package::new(NAME, "1.0.0").publish("latest");
    body["__proto__"] = json!({ "polluted": true });
    body["versions"]["1.0.0"]["__proto__"] = json!({ "polluted": true });
    assert!(caller.put(&at(NAME), &body).send().await.status < 300);
    assert_eq!(caller.packument(NAME).await["name"], json!(NAME));
    for name in [
        "@alice/../x",
        "@alice/.hidden",
        "@alice/_x",
        "@alice/UPPER",
        "@alice/a b",
        "@alice/node_modules",
        "@alice/\u{e9}",
        "@alice/x\u{0}",
    ] {
        let mut package = Package::new("@alice/ok", "1.0.0");
        package.name = name.into();
        let path = format!("/npm/{}", name.replace('/', "%2f").replace(' ', "%20").replace('\u{0}', "%00").replace('\u{e9}', "%c3%a9"));
        let answer = caller.put(&path, &package.publish("latest")).send().await;
        assert!((400..500).contains(&answer.status), "{name:?}: {}", answer.status);
    }
    let long = format!("@alice/{}", "a".repeat(300));
    assert_eq!(publish(&caller, &Package::new(&long, "1.0.0")).await.status / 100, 4);
    server.finish().await;
}

#[tokio::test]
async fn az08_the_address_and_the_body_name_different_packages() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let body = Package::new("@alice/other", "1.0.0").publish("latest");
    refused(&caller, "another name in the body", body).await;
    caller.get(&at("@alice/other")).send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn odd_versions_and_bodies() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let huge = format!("1.0.{}", u64::MAX);
    for version in ["", "latest", "..", "1.0", "v1.0.0", "=1.0.0", "1.0.0 ", "../1.0.0", huge.as_str(), "01.0.0"] {
        let mut body = Package::new(NAME, "1.0.0").publish("latest");
        let manifest = body["versions"]["1.0.0"].clone();
        body["versions"] = json!({});
        body["versions"][version] = manifest;
        body["versions"][version]["version"] = json!(version);
        body["dist-tags"]["latest"] = json!(version);
        refused(&caller, "an odd version", body).await;
    }
    for bytes in ["", "{", "[]", "null", "7", "{\"_attachments\":7}", "\u{feff}{}", "{\"a\":1e400}"] {
        let answer = caller.ask("PUT", &at(NAME)).header("content-type", "application/json").body(bytes).send().await;
        assert_eq!(answer.status / 100, 4, "{bytes}: {}", answer.text());
    }
    assert_eq!(caller.ask("PUT", &at(NAME)).header("content-encoding", "br").body("x").send().await.status / 100, 4, "HT14");
    server.finish().await;
}

#[tokio::test]
async fn a_large_body_that_is_refused_early_still_gets_its_answer() {
    let (server, token) = hosting().await;
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    for (what, caller) in [("nested deeply", server.caller_with(&token)), ("without a token", server.caller())] {
        for _ in 0..5 {
            let answer = caller.ask("PUT", &at(NAME)).body(deep.clone()).try_send().await;
            let status = answer.map(|answer| answer.status);
            assert!(
                matches!(status, Some(400 | 401 | 413 | 422)),
                "{what}: {status:?}; None is a reset connection, which tells a user nothing"
            );
        }
    }
    server.finish().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar entry written by hand, so that no library stands in the way of a bad one.
fn entry(path: &str, kind: u8, link: &str, bytes: &[u8], claimed: u64) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{claimed:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut entry = header.to_vec();
    entry.extend_from_slice(bytes);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn manifest_entry() -> Vec<u8> {
    let text = serde_json::to_vec(&json!({ "name": NAME, "version": "1.0.0" })).unwrap();
    entry("package/package.json", b'0', "", &text, text.len() as u64)
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 1024]);
    gzip(&bytes)
}

#[tokio::test]
async fn ar02_ar03_paths_and_links_out_of_the_archive() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    for path in ["../evil", "package/../../evil", "/etc/evil", "package\\..\\..\\evil"] {
        refused(&caller, "a path out of the archive", with_tarball(&tar(&[manifest_entry(), entry(path, b'0', "", b"x", 1)]))).await;
    }
    for kind in *b"12346" {
        let entries = [manifest_entry(), entry("package/link", kind, "../../etc/passwd", b"", 0)];
        refused(&caller, "a link or a device", with_tarball(&tar(&entries))).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn ar04_ar06_archives_of_two_minds() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let other = serde_json::to_vec(&json!({ "name": NAME, "version": "6.6.6" })).unwrap();
    let twin = entry("package/package.json", b'0', "", &other, other.len() as u64);
    refused(&caller, "two manifests", with_tarball(&tar(&[manifest_entry(), twin]))).await;
    let pax = b"20 size=99999999999\n";
    let entries = [entry("package/pax", b'x', "", pax, pax.len() as u64), manifest_entry()];
    refused(&caller, "a PAX size that is not the header's", with_tarball(&tar(&entries))).await;
    refused(&caller, "no manifest", with_tarball(&tar(&[entry("package/a", b'0', "", b"x", 1)]))).await;
    refused(&caller, "a size beyond the end", with_tarball(&tar(&[entry("package/package.json", b'0', "", b"{}", 1 << 30)]))).await;
    server.finish().await;
}

#[tokio::test]
async fn ar08_truncated_and_mangled_archives() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let whole = Package::with(NAME, "1.0.0", json!({}), 3000).tarball;
    for part in 0..24 {
        let cut = whole.len() * part / 24;
        refused(&caller, "a truncated archive", with_tarball(&whole[..cut])).await;
    }
    refused(&caller, "no gzip at all", with_tarball(b"<html>no</html>")).await;
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    refused(&caller, "a flipped byte", with_tarball(&flipped)).await;
    server.finish().await;
}

#[tokio::test]
async fn ar01_ar07_bombs() {
    let server = Setup::default().registry("archive_unpacked_bytes = 268435456\narchive_entries = 10000").start().await;
    let caller = server.caller_with(&server.publisher("alice").await);
    let before = peak_kilobytes(server.pid());
    let size = 300 << 20;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&manifest_entry()).unwrap();
    encoder.write_all(&entry("package/zeros", b'0', "", b"", size)).unwrap();
    let block = vec![0u8; 1 << 20];
    for _ in 0..size >> 20 {
        encoder.write_all(&block).unwrap();
    }
    refused(&caller, "a bomb", with_tarball(&encoder.finish().unwrap())).await;
    let mut many = manifest_entry();
    for _ in 0..10_001 {
        many.extend_from_slice(&entry("package/a", b'0', "", b"", 0));
    }
    refused(&caller, "too many entries", with_tarball(&gzip(&many))).await;
    let grown = peak_kilobytes(server.pid()) - before;
    assert!(grown < 64 << 10, "memory grew by {grown} kB");
    server.finish().await;
}

/// The most memory a process ever held, in kB.
pub(crate) fn peak_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

#[tokio::test]
async fn provenance_attachments_are_no_second_tarball() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let statement =
        json!({ "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1", "predicate": {} });
    let payload = base64_of(&statement.to_string());
    let bundle = json!({ "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2", "dsseEnvelope": { "payload": payload, "signatures": [] } });
    let mut body = Package::new(NAME, "1.0.0").publish("latest");
    body["_attachments"]["@alice/tool-1.0.0.sigstore"] = json!({
        "content_type": "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "data": bundle.to_string(),
        "length": bundle.to_string().len(),
    });
    let answer = caller.put(&at(NAME), &body).send().await;
    assert!(answer.status < 300, "{}", answer.text());
    let listed = caller.packument(NAME).await;
    let url = listed["versions"]["1.0.0"]["dist"]["attestations"]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&server.origin()).unwrap_or_else(|| panic!("{url} is not ours"));
    let shown = caller.get(path).send().await.expect(200).json();
    assert_eq!(shown["attestations"][0]["bundle"], bundle);
    server.finish().await;
}

#[tokio::test]
async fn a_tarball_may_call_its_folder_anything() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let text = serde_json::to_vec(&json!({ "name": NAME, "version": "1.0.0" })).unwrap();
    let bytes = tar(&[entry("tool-main/package.json", b'0', "", &text, text.len() as u64)]);
    assert!(caller.put(&at(NAME), &with_tarball(&bytes)).send().await.status < 300);
    assert!(caller.get("/npm/@alice/tool/-/tool-1.0.0.tgz").send().await.body == bytes);
    server.finish().await;
}
