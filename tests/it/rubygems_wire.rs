//! A RubyGems registry over the wire: pushing, the indexes of every age, yanking, rights, and an upstream that is a registry too.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use serde_json::json;

use crate::harness::{Answer, Caller, Server, Setup, Token, until};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

fn tar(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o444);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A gem, with further lines of its metadata.
pub(crate) fn gem(name: &str, version: &str, more: &str) -> Vec<u8> {
    let metadata = format!(
        "--- !ruby/object:Gem::Specification\nname: {name}\nversion: !ruby/object:Gem::Version\n  version: {version}\nsummary: The {name}\n\
         authors:\n- Ann\nlicenses:\n- MIT\n{more}"
    );
    tar(&[("metadata.gz", gzip(metadata.as_bytes())), ("data.tar.gz", gzip(b"files"))])
}

async fn hosting(setup: Setup) -> (Server, Token) {
    let server = setup.start().await;
    let token = server.publisher("ann").await;
    (server, token)
}

async fn push(caller: &Caller, tree: &str, gem: Vec<u8>) -> Answer {
    caller.ask("POST", &format!("/rubygems{tree}/api/v1/gems")).header("content-type", "application/octet-stream").body(gem).send().await
}

async fn text(caller: &Caller, path: &str) -> String {
    caller.get(&format!("/rubygems{path}")).send().await.expect(200).text()
}

fn md5(text: &str) -> String {
    use md5::Digest as _;
    hex::encode(md5::Md5::digest(text.as_bytes()))
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}

#[tokio::test]
async fn a_pushed_gem_is_in_every_index() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let more = "dependencies:\n- !ruby/object:Gem::Dependency\n  name: rack\n  type: :runtime\n  requirement: !ruby/object:Gem::Requirement\n    requirements:\n    - - '>='\n      - !ruby/object:Gem::Version\n        version: '2'\nrequired_ruby_version: !ruby/object:Gem::Requirement\n  requirements:\n  - - '>='\n    - !ruby/object:Gem::Version\n      version: '2.7'\n";
    let file = gem("Tool", "1.0", more);
    let said = push(&ann, "", file.clone()).await.expect(200).text();
    assert!(said.contains("Successfully registered gem: Tool (1.0)"), "{said}");
    push(&ann, "", gem("Tool", "1.1.rc1", "")).await.expect(200);
    push(&ann, "", gem("Tool", "1.0", "platform: java\n")).await.expect(200);

    let info = text(&ann, "/info/Tool").await;
    let lines: Vec<&str> = info.lines().collect();
    assert_eq!(lines[0], "---");
    assert!(lines[1].starts_with(&format!("1.0 rack:>= 2|checksum:{},ruby:>= 2.7,created_at:", hex::encode(sha256(&file)))), "{info}");
    assert!(lines[2].starts_with("1.1.rc1 |checksum:") && lines[3].starts_with("1.0-java |checksum:"), "{info}");
    let versions = text(&ann, "/versions").await;
    assert!(versions.starts_with("created_at: ") && versions.contains("\n---\n"), "{versions}");
    assert!(versions.ends_with(&format!("{}\n", md5(&info))), "the digest is that of the info file: {versions}");
    assert_eq!(text(&ann, "/names").await, "---\nTool\n");
    assert_eq!(ann.get("/rubygems/gems/Tool-1.0.gem").send().await.expect(200).body, file);
    assert!(ann.get("/rubygems/gems/Tool-1.0-java.gem").send().await.expect(200).body != file);
    ann.get("/rubygems/gems/tool-1.0.gem").send().await.expect(404);
    for (list, count) in [("specs", 2), ("latest_specs", 2), ("prerelease_specs", 1)] {
        let packed = gunzip(&ann.get(&format!("/rubygems/{list}.4.8.gz")).send().await.expect(200).body);
        assert_eq!(packed, ann.get(&format!("/rubygems/{list}.4.8")).send().await.expect(200).body);
        assert_eq!((&packed[..3], packed[3]), (&b"\x04\x08["[..], count + 5), "{list}");
    }
    let quick = ann.get("/rubygems/quick/Marshal.4.8/Tool-1.0.gemspec.rz").send().await.expect(200).body;
    let mut unpacked = Vec::new();
    flate2::read::ZlibDecoder::new(&quick[..]).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked.starts_with(b"\x04\x08u:\x17Gem::Specification"));
    let shown = ann.get("/rubygems/api/v1/gems/Tool.json").send().await.expect(200).json();
    assert_eq!((&shown["version"], &shown["dependencies"]["runtime"][0]["name"]), (&json!("1.0"), &json!("rack")));
    assert_eq!(ann.get("/rubygems/api/v1/versions/Tool.json").send().await.expect(200).json().as_array().unwrap().len(), 3);
    assert_eq!(ann.get("/rubygems/api/v1/search.json?query=tool").send().await.expect(200).json()[0]["name"], "Tool");
    let listed = crate::rest::check(&ann, "GET /users/ann/packages/rubygems/Tool/versions", 200).await;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    server.finish().await;
}

#[tokio::test]
async fn the_list_only_grows() {
    let (mut server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    push(&ann, "", gem("one", "1.0", "")).await.expect(200);
    let before = ann.get("/rubygems/versions").send().await.expect(200);
    let (etag, length) = (before.header("etag").to_owned(), before.body.len());
    assert_eq!(etag, format!("\"{}\"", md5(&before.text())));
    ann.get("/rubygems/versions").header("if-none-match", &etag).send().await.expect(304);
    push(&ann, "", gem("two", "1.0", "")).await.expect(200);
    push(&ann, "", gem("one", "1.1", "")).await.expect(200);
    ann.ask("DELETE", "/rubygems/api/v1/gems/yank").body("gem_name=one&version=1.0").send().await.expect(200);
    // As Bundler asks: the last byte that is known, and what follows.
    let range = format!("bytes={}-", length - 1);
    let tail = ann.get("/rubygems/versions").header("if-none-match", &etag).header("range", &range).send().await.expect(206);
    let whole = [&before.body[..length - 1], &tail.body[..]].concat();
    let promised = format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(sha256(&whole)));
    assert_eq!(tail.header("repr-digest"), promised);
    assert_eq!(ann.get("/rubygems/versions").send().await.expect(200).body, whole);
    let info = text(&ann, "/info/one").await;
    assert!(!info.contains("\n1.0 ") && info.contains("\n1.1 "), "{info}");
    let told = String::from_utf8(whole.clone()).unwrap();
    assert!(told.contains("one 1.1") || told.contains("one -1.0,1.1"), "{told}");
    assert!(told.ends_with(&format!("{}\n", md5(&info))), "{told}");
    // A new process goes on where the last one was.
    server.stop().await;
    server.start_again().await;
    let ann = server.caller_with(&token);
    assert_eq!(ann.get("/rubygems/versions").send().await.expect(200).body, whole);
    server.finish().await;
}

#[tokio::test]
async fn a_yanked_version_is_gone_and_its_number_used() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let file = gem("tool", "1.0", "");
    for more in ["", "platform: java\n"] {
        push(&ann, "", gem("tool", "1.0", more)).await.expect(200);
    }
    assert!(push(&ann, "", file.clone()).await.expect(200).text().contains("already"), "the same bytes may come again");
    let refused = push(&ann, "", gem("tool", "1.0", "description: other\n")).await.expect(409);
    assert!(refused.text().contains("tool (1.0)"), "{}", refused.text());
    let yank = async |form: &'static str| ann.ask("DELETE", "/rubygems/api/v1/gems/yank").body(form).send().await;
    assert!(yank("gem_name=tool&version=9.0").await.expect(404).text().contains("9.0"));
    yank("gem_name=tool").await.expect(400);
    yank("gem_name=nothing&version=1.0").await.expect(404);
    yank("gem_name=tool&version=1.0&platform=java").await.expect(200);
    ann.get("/rubygems/gems/tool-1.0-java.gem").send().await.expect(404);
    ann.get("/rubygems/gems/tool-1.0.gem").send().await.expect(200);
    push(&ann, "", gem("tool", "1.0", "platform: java\n")).await.expect(409);
    ann.ask("PUT", "/rubygems/api/v1/gems/unyank").body("gem_name=tool&version=1.0&platform=java").send().await.expect(200);
    ann.get("/rubygems/gems/tool-1.0-java.gem").send().await.expect(200);
    // Of a gem without versions an empty listing stays.
    assert!(text(&ann, "/versions").await.contains("tool 1.0"));
    yank("gem_name=tool&version=1.0&platform=java").await.expect(200);
    yank("gem_name=tool&version=1.0").await.expect(200);
    assert_eq!(text(&ann, "/info/tool").await, "---\n");
    assert_eq!(text(&ann, "/names").await, "---\n");
    assert!(text(&ann, "/versions").await.contains("tool -1.0"));
    push(&ann, "", file).await.expect(409);
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_sound_gem_is_refused_in_words() {
    let (server, token) = hosting(Setup::default().registry("publish_metadata_limit_bytes = 20000")).await;
    let ann = server.caller_with(&token);
    push(&ann, "", gem("a-1", "2", "")).await.expect(200);
    let metadata = gzip(b"name: x\nversion: 1\n");
    let cases = [
        (b"nonsense".to_vec(), 422),
        (tar(&[("metadata.gz", metadata.clone())]), 422),
        (tar(&[("metadata.gz", metadata.clone()), ("metadata.gz", metadata.clone()), ("data.tar.gz", vec![])]), 422),
        (tar(&[("metadata.gz", metadata), ("data.tar.gz", vec![]), ("checksums.yaml.gz", gzip(b"SHA256:\n  data.tar.gz: '00'\n"))]), 422),
        (gem("x", "1", "extra: !ruby/object:Kernel {}\n"), 422),
        (gem("../x", "1", ""), 422),
        (gem("x", "not-a-version", ""), 422),
        (gem("x", "1", &format!("description: {}\n", "x".repeat(30_000))), 413),
        // Its files would be called a-1-2.gem, as another gem's are.
        (gem("a", "1", "platform: x-2\n"), 200),
        (gem("A-1", "3", ""), 409),
    ];
    for (index, (body, status)) in cases.into_iter().enumerate() {
        let answer = push(&ann, "", body).await;
        assert_eq!(answer.status, status, "{index}: {}", answer.text());
        assert!(answer.header("content-type").starts_with("text/plain") && !answer.text().contains('<'), "{index}: {}", answer.text());
    }
    push(&server.caller(), "", gem("x", "1", "")).await.expect(401);
    for path in
        ["/rubygems/info/nothing", "/rubygems/gems/nothing-1.0.gem", "/rubygems/gems/nothing", "/rubygems/quick/Marshal.4.8/x-1.gemspec.rz"]
    {
        ann.get(path).send().await.expect(404);
    }
    assert_eq!(server.caller().ask("HEAD", "/rubygems/").send().await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn a_private_gem_is_in_no_list_of_others() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    push(&ann, "/ann", gem("secret", "1.0", "")).await.expect(200);
    let other = server.publisher("bob").await;
    let (bob, anyone) = (server.caller_with(&other), server.caller());
    for caller in [&bob, &anyone] {
        for tree in ["", "/ann"] {
            for list in ["versions", "names", "specs.4.8", "latest_specs.4.8", "prerelease_specs.4.8"] {
                let answer = caller.get(&format!("/rubygems{tree}/{list}")).send().await.expect(200);
                assert!(!answer.text().contains("secret"), "{tree}/{list}");
            }
            for path in ["info/secret", "gems/secret-1.0.gem", "quick/Marshal.4.8/secret-1.0.gemspec.rz", "api/v1/gems/secret.json"] {
                let (there, absent) = (format!("/rubygems{tree}/{path}"), format!("/rubygems{tree}/{path}").replace("secret", "absent"));
                let (one, two) = (caller.get(&there).send().await, caller.get(&absent).send().await);
                assert_eq!((one.status, one.text().replace("secret", "absent")), (two.status, two.text()), "{there}");
            }
        }
    }
    assert!(text(&ann, "/versions").await.contains("secret 1.0 "));
    // Another owner's gem of the name, which is found in that owner's tree alone.
    push(&bob, "/bob", gem("secret", "2.0", "")).await.expect(200);
    assert!(text(&bob, "/bob/info/secret").await.contains("\n2.0 "));
    assert!(text(&ann, "/info/secret").await.contains("\n1.0 "));
    bob.get("/rubygems/info/secret").send().await.expect(404);
    push(&bob, "", gem("secret", "3.0", "")).await.expect(403);
    // Public: everybody sees it, with the same bytes.
    server.cli(&["package", "visibility", "rubygems", "secret", "public"]).await;
    assert!(text(&anyone, "/versions").await.contains("secret 1.0 "));
    anyone.get("/rubygems/gems/secret-1.0.gem").send().await.expect(200);
    server.finish().await;
}

#[tokio::test]
async fn owners_are_listed_added_and_removed() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    push(&ann, "", gem("tool", "1.0", "")).await.expect(200);
    server.user("bob").await;
    let path = "/rubygems/api/v1/gems/tool/owners";
    assert!(text(&ann, "/api/v1/gems/tool/owners.yaml").await.contains("handle: ann"));
    // Administering needs the right to.
    let admin = server.caller_with(&server.admin());
    admin.ask("POST", path).body("email=nobody").send().await.expect(404);
    admin.ask("POST", path).body("email=bob").send().await.expect(200);
    assert!(text(&ann, "/api/v1/gems/tool/owners.yaml").await.contains("handle: bob"));
    admin.ask("DELETE", path).body("email=bob").send().await.expect(200);
    assert!(!text(&ann, "/api/v1/gems/tool/owners.yaml").await.contains("handle: bob"));
    let packed = base64::engine::general_purpose::STANDARD.encode(format!("ann:{}", token.text));
    let key = server.caller().ask("POST", "/rubygems/api/v1/api_key").header("authorization", &format!("Basic {packed}")).send().await;
    assert_eq!(key.expect(200).text(), token.text, "the body is the key and nothing else");
    server.caller().get("/rubygems/api/v1/api_key").send().await.expect(401);
    server.finish().await;
}

/// A registry above another: both real.
async fn chained() -> (Server, Caller, Server) {
    let (above, token) = hosting(Setup::default().more("[access]\ndefault_visibility = \"public\"")).await;
    let maker = above.caller_with(&token);
    for (name, version) in [("rack", "1.0"), ("rack", "2.0"), ("rake", "13.0")] {
        push(&maker, "", gem(name, version, "")).await.expect(200);
    }
    let setup = Setup::default().upstream_of("rubygems", "above", &format!("{}/rubygems/", above.origin()), "fresh_seconds = 0");
    let server = setup.engine("stale_while_revalidate_seconds = 0\nnegative_seconds = 1").start().await;
    (above, maker, server)
}

#[tokio::test]
async fn an_upstreams_list_is_passed_on_and_grows_with_ours() {
    let (above, maker, server) = chained().await;
    let token = server.publisher("zoe").await;
    let (zoe, anyone) = (server.caller_with(&token), server.caller());
    let plain = anyone.get("/rubygems/versions").send().await.expect(200);
    assert_eq!(plain.body, maker.get("/rubygems/versions").send().await.expect(200).body, "alone it passes as it is");
    push(&zoe, "", gem("ours", "1.0", "")).await.expect(200);
    let with_ours = zoe.get("/rubygems/versions").send().await.expect(200);
    assert!(with_ours.body.starts_with(&plain.body) && with_ours.text().contains("\nours 1.0 "), "{}", with_ours.text());
    assert_eq!(anyone.get("/rubygems/versions").send().await.expect(200).body, plain.body, "ours is private");
    // What comes after stands after, for everyone.
    push(&maker, "", gem("new", "1.0", "")).await.expect(200);
    let later = zoe.get("/rubygems/versions").send().await.expect(200);
    assert!(later.body.starts_with(&with_ours.body), "{}", later.text());
    assert!(later.text().contains("\nnew 1.0 "), "{}", later.text());
    assert!(anyone.get("/rubygems/versions").send().await.expect(200).body.starts_with(&plain.body));
    until("the tail alone to be fetched", || above.log().contains("path=\"/rubygems/versions\" protocol=HTTP/1.1 status=206")).await;

    assert_eq!(zoe.get("/rubygems/gems/rack-2.0.gem").send().await.expect(200).body, gem("rack", "2.0", ""));
    assert_eq!(text(&zoe, "/info/rack").await, text(&maker, "/info/rack").await);
    zoe.get("/rubygems/quick/Marshal.4.8/rack-2.0.gemspec.rz").send().await.expect(200);
    let specs = gunzip(&zoe.get("/rubygems/specs.4.8.gz").send().await.expect(200).body);
    assert_eq!(specs[3], 5 + 5, "four above, one of ours");
    // A name of the upstream's is not taken in front of everybody.
    push(&zoe, "", gem("rake", "99.0", "")).await.expect(409);
    above.finish().await;
    // The upstream is gone: all of it is served from here.
    for path in ["/rubygems/versions", "/rubygems/info/rack", "/rubygems/gems/rack-2.0.gem", "/rubygems/specs.4.8.gz"] {
        zoe.get(path).send().await.expect(200);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_gem_that_is_not_what_the_index_says_is_not_passed_on() {
    let upstream = crate::harness::Upstream::start();
    upstream.file("/versions", "text/plain", "created_at: x\n---\nbad 1.0 00000000000000000000000000000000\n");
    let info = format!("---\n1.0 |checksum:{}\n", hex::encode(sha256(b"the gem")));
    upstream.file("/info/bad", "text/plain", info);
    upstream.file("/gems/bad-1.0.gem", "application/octet-stream", "another gem");
    let server = Setup::default().upstream_of("rubygems", "fake", &upstream.url(), "").start().await;
    let anyone = server.caller();
    anyone.get("/rubygems/gems/bad-1.0.gem").send().await.expect(502);
    upstream.file("/gems/bad-1.0.gem", "application/octet-stream", "the gem");
    assert_eq!(text(&anyone, "/gems/bad-1.0.gem").await, "the gem");
    upstream.file("/info/odd", "text/html", "<html>");
    anyone.get("/rubygems/info/odd").send().await.expect(502);
    server.finish().await;
}
