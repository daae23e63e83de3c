//! A NuGet feed over the wire, with upstreams: whose addresses it gives, what it keeps, what it never asks, and what faults do.

use serde_json::{Value, json};

use crate::harness::{Caller, Fault, Package, Server, Setup, Upstream, files_below, until};
use crate::nuget_wire::{entries, hosting, nupkg, nuspec, publish, push, read, versions, zip};

/// A feed of the scripted upstream, which keeps its things at places of its own.
struct Feed {
    upstream: Upstream,
}

impl Feed {
    fn new() -> Self {
        Self::with(&[
            "RegistrationsBaseUrl",
            "RegistrationsBaseUrl/3.6.0",
            "SearchQueryService/3.4.0",
            "SearchAutocompleteService",
            "VulnerabilityInfo/6.7.0",
        ])
    }

    fn with(kinds: &[&str]) -> Self {
        let feed = Self { upstream: Upstream::start() };
        let place = |kind: &str| match kind {
            "RegistrationsBaseUrl" => "/reg-old/",
            "RegistrationsBaseUrl/3.6.0" => "/reg",
            "SearchQueryService/3.4.0" => "/search",
            "SearchAutocompleteService" => "/complete",
            _ => "/vulnerable.json",
        };
        let resource = |kind: &str, path: &str| json!({ "@id": feed.address(path), "@type": kind });
        let resources: Vec<Value> =
            kinds.iter().map(|kind| resource(kind, place(kind))).chain([resource("PackageBaseAddress/3.0.0", "/flat/")]).collect();
        feed.json("/v3/index.json", &json!({ "version": "3.0.0", "resources": resources }));
        feed
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.upstream.url())
    }

    fn json(&self, path: &str, value: &Value) {
        self.upstream.file(path, "application/json", value.to_string());
    }

    /// Packages with these versions, all in one page of the registrations.
    fn package(&self, id: &str, numbers: &[&str]) {
        let lower = id.to_lowercase();
        self.json(&format!("/flat/{lower}/index.json"), &json!({ "versions": numbers }));
        for number in numbers {
            let folder = format!("/flat/{lower}/{number}");
            self.upstream.file(&format!("{folder}/{lower}.{number}.nupkg"), "application/octet-stream", nupkg(id, number, ""));
            self.upstream.file(&format!("{folder}/{lower}.nuspec"), "application/xml", nuspec(id, number, ""));
        }
        let leaves: Vec<Value> = numbers.iter().map(|number| self.leaf(id, number)).collect();
        let page =
            json!({ "@id": self.address("/p"), "count": numbers.len(), "lower": numbers[0], "upper": numbers.last(), "items": leaves });
        for hive in ["reg", "reg-old"] {
            self.json(&format!("/{hive}/{lower}/index.json"), &json!({ "@id": self.address("/i"), "count": 1, "items": [page] }));
        }
    }

    fn leaf(&self, id: &str, number: &str) -> Value {
        let (lower, plain) = (id.to_lowercase(), number.split('+').next().unwrap().to_lowercase());
        json!({
            "@id": self.address("/leaf"), "packageContent": self.address("/content"), "registration": self.address("/r"),
            "catalogEntry": {
                "@id": self.address("/entry"), "id": id, "version": number, "authors": ["Ann"], "tags": "one two", "published": "2024-01-02T03:04:05Z",
                "iconUrl": self.address(&format!("/flat/{lower}/{plain}/icon")), "packageContent": self.address("/content"),
                "dependencyGroups": [{ "@id": self.address("/g"), "dependencies": [{ "id": "Base", "range": "1.0", "registration": self.address("/b") }] }],
            },
        })
    }

    fn setup(&self) -> Setup {
        let setup = Setup::default().upstream_of("nuget", "feed", &self.address("/v3/index.json"), "fresh_seconds = 0");
        setup.engine("stale_while_revalidate_seconds = 0\nnegative_seconds = 1\nretries = 0\nbreaker_failures = 1000")
    }

    fn asked_for(&self, word: &str) -> bool {
        self.upstream.requests().iter().any(|seen| seen.target.to_lowercase().contains(word))
    }
}

const NUPKG: &str = "/nuget/download/tool/1.0.0/tool.1.0.0.nupkg";

#[tokio::test]
async fn every_address_is_ours_and_an_upstreams_pages_are_followed() {
    let feed = Feed::new();
    feed.package("Tool", &["1.0.0", "1.1.0-Beta"]);
    let page = |lower: &str, upper: &str, path: &str| json!({ "@id": feed.address(path), "count": 2, "lower": lower, "upper": upper });
    feed.json("/flat/large/index.json", &json!({ "versions": ["1.0.0", "1.5.0", "2.0.0", "2.5.0-rc.1"] }));
    feed.json(
        "/reg/large/index.json",
        &json!({ "count": 2, "items": [page("2.0.0", "2.5.0-rc.1", "/pages/2"), page("1.0.0", "1.5.0", "/pages/1")] }),
    );
    feed.json("/pages/1", &json!({ "items": [feed.leaf("Large", "1.5.0"), feed.leaf("Large", "1.0.0")] }));
    feed.json("/pages/2", &json!({ "items": [feed.leaf("Large", "2.0.0"), feed.leaf("Large", "2.5.0-rc.1+sha")] }));
    let server = feed.setup().start().await;
    let anyone = server.caller();
    let ours = |document: &Value| assert!(!document.to_string().contains(&feed.upstream.url()), "{document}");

    for hive in ["registration", "registration-gz", "registration-gz-semver2"] {
        let registration = read(&anyone, &format!("/nuget/{hive}/tool/index.json")).await;
        ours(&registration);
        let entry = entries(&registration)[1];
        assert_eq!((&entry["version"], &entry["authors"], &entry["tags"]), (&json!("1.1.0-Beta"), &json!("Ann"), &json!(["one", "two"])));
        let needs = entry.pointer("/dependencyGroups/0/dependencies/0").unwrap();
        assert_eq!(needs["registration"], format!("{}/nuget/{hive}/base/index.json", server.origin()));
        assert_eq!(entry["iconUrl"], format!("{}/nuget/download/tool/1.1.0-beta/icon", server.origin()));
    }
    assert!(feed.asked_for("/reg-old/tool/index.json") && feed.asked_for("/reg/tool/index.json"), "each hive where the upstream has it");

    let index = read(&anyone, "/nuget/registration-gz-semver2/large/index.json").await;
    ours(&index);
    let bounds: Vec<(&str, &str)> =
        index["items"].as_array().unwrap().iter().map(|page| (page["lower"].as_str().unwrap(), page["upper"].as_str().unwrap())).collect();
    assert_eq!(bounds, [("1.0.0", "1.5.0"), ("2.0.0", "2.5.0-rc.1")]);
    assert!(!feed.asked_for("/pages/"), "until somebody wants one");
    for (at, expected) in [(0, ["1.0.0", "1.5.0"]), (1, ["2.0.0", "2.5.0-rc.1+sha"])] {
        let path = index["items"][at]["@id"].as_str().unwrap().strip_prefix(&server.origin()).unwrap();
        let page = read(&anyone, path).await;
        ours(&page);
        let found: Vec<&str> =
            page["items"].as_array().unwrap().iter().map(|leaf| leaf["catalogEntry"]["version"].as_str().unwrap()).collect();
        assert_eq!(found, expected);
    }
    let leaf = read(&anyone, "/nuget/registration-gz-semver2/large/2.0.0.json").await;
    ours(&leaf);
    let entry = read(&anyone, leaf["catalogEntry"].as_str().unwrap().strip_prefix(&server.origin()).unwrap()).await;
    assert_eq!(entry["version"], "2.0.0");
    anyone.get("/nuget/registration-gz-semver2/large/1.2.0.json").send().await.expect(404);
    anyone.get("/nuget/registration-gz-semver2/large/page/1.0.0/2.0.0.json").send().await.expect(404);
    let all = read(&anyone, "/nuget/autocomplete?id=large&prerelease=true&semVerLevel=2.0.0").await;
    assert_eq!(all["data"], json!(["1.0.0", "1.5.0", "2.0.0", "2.5.0-rc.1"]));
    assert_eq!(versions(&anyone, "", "LARGE").await, ["1.0.0", "1.5.0", "2.0.0", "2.5.0-rc.1"]);
    // What comes packed is unpacked, and sent on as the client reads it.
    let leaf = feed.leaf("Packed", "1.0.0");
    let index = json!({ "items": [{ "items": [leaf], "lower": "1.0.0", "upper": "1.0.0" }] });
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, index.to_string().as_bytes()).unwrap();
    feed.upstream.file("/reg/packed/index.json", "application/json", packed.finish().unwrap());
    feed.upstream.always("/reg/packed/index.json", Fault::Extra(vec![("Content-Encoding", "gzip".into())]));
    assert_eq!(entries(&read(&anyone, "/nuget/registration-gz-semver2/packed/index.json").await)[0]["id"], "Packed");
    server.finish().await;
}

#[tokio::test]
async fn files_are_kept_and_proved_by_what_is_in_them() {
    let feed = Feed::new();
    feed.package("Tool", &["1.0.0", "2.0.0"]);
    feed.upstream.file("/flat/tool/1.0.0/icon", "image/png", b"\x89PNG\r\n\x1a\nicon".to_vec());
    feed.upstream.file("/flat/tool/1.0.0/readme", "text/markdown", "# Tool");
    let server = feed.setup().start().await;
    let anyone = server.caller();
    let noise = Package::with("noise", "1.0.0", json!({}), 10_000).tarball;
    let right = zip(&[("Tool.nuspec", nuspec("Tool", "1.0.0", "").as_bytes()), ("noise", &noise)]);
    let path = "/flat/tool/1.0.0/tool.1.0.0.nupkg";
    feed.upstream.file(path, "application/octet-stream", right.clone());
    for (what, fault) in [
        ("a portal", Fault::Portal),
        ("nothing", Fault::Empty),
        ("a changed byte", Fault::Flipped),
        ("a byte too many", Fault::Padded),
        ("a coding", Fault::Extra(vec![("Content-Encoding", "gzip".into())])),
        ("a refusal", Fault::Status(403)),
        ("a failure", Fault::Status(500)),
    ] {
        feed.upstream.fault(path, fault, 1);
        let answer = anyone.get(NUPKG).send().await;
        assert_eq!(answer.status, 502, "{what}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store", "{what}");
    }
    feed.upstream.fault(path, Fault::CutAfter(100), 1);
    assert!(anyone.get(NUPKG).send().await.status >= 500);
    // Another package under its name.
    for other in [nupkg("Other", "1.0.0", ""), nupkg("Tool", "9.0.0", ""), zip(&[("x", b"y")])] {
        feed.upstream.file(path, "application/octet-stream", other);
        anyone.get(NUPKG).send().await.expect(502);
    }
    feed.upstream.file(path, "application/octet-stream", right.clone());
    let got = anyone.get(NUPKG).send().await.expect(200);
    assert_eq!((got.verdict(), got.header("content-type"), &got.body), ("fwd=uri-miss; stored", "application/octet-stream", &right));
    assert_eq!(anyone.get("/nuget/download/TOOL/1.0/Tool.1.0.0.nupkg").send().await.expect(200).verdict(), "hit");
    assert_eq!(anyone.get("/nuget/download/tool/1.0.0/icon").send().await.expect(200).header("content-type"), "image/png");
    assert_eq!(anyone.get("/nuget/download/tool/1.0.0/readme").send().await.expect(200).text(), "# Tool");
    assert!(anyone.get("/nuget/download/tool/1.0.0/tool.nuspec").send().await.expect(200).text().contains("<id>Tool</id>"));
    for absent in ["tool/1.0.0/license", "tool/3.0.0/tool.3.0.0.nupkg", "tool/1.0.0/tool.1.0.0.snupkg", "none/1.0.0/none.1.0.0.nupkg"] {
        anyone.get(&format!("/nuget/download/{absent}")).send().await.expect(404);
    }
    feed.upstream.fault("/flat/tool/2.0.0/tool.nuspec", Fault::Portal, 1);
    anyone.get("/nuget/download/tool/2.0.0/tool.nuspec").send().await.expect(502);
    // A version that came since the list was kept is found at once.
    let server_slow = Setup::default().upstream_of("nuget", "feed", &feed.address("/v3/index.json"), "fresh_seconds = 3600").start().await;
    let slow = server_slow.caller();
    assert_eq!(versions(&slow, "", "tool").await, ["1.0.0", "2.0.0"]);
    feed.package("Tool", &["1.0.0", "2.0.0", "3.0.0"]);
    slow.get("/nuget/download/tool/3.0.0/tool.3.0.0.nupkg").send().await.expect(200);
    slow.get("/nuget/registration-gz-semver2/tool/3.0.0.json").send().await.expect(200);
    server_slow.finish().await;
    // The upstream is gone: what was fetched is served, what was not is no «not found».
    feed.upstream.stop();
    assert_eq!(anyone.get(NUPKG).send().await.expect(200).body, right);
    anyone.get("/nuget/download/tool/2.0.0/tool.2.0.0.nupkg").send().await.expect(502);
    server.finish().await;
}

#[tokio::test]
async fn other_bytes_than_were_once_fetched_are_refused() {
    let feed = Feed::new();
    feed.package("Tool", &["1.0.0"]);
    let large = |name: &str| {
        let noise = Package::with(name, "1.0.0", json!({}), 100_000).tarball;
        zip(&[("Tool.nuspec", nuspec("Tool", "1.0.0", "").as_bytes()), ("noise", &noise)])
    };
    let (first, second) = (large("first"), large("second"));
    let path = "/flat/tool/1.0.0/tool.1.0.0.nupkg";
    feed.upstream.file(path, "application/octet-stream", first.clone());
    let server = feed.setup().start().await;
    let anyone = server.caller();
    assert_eq!(anyone.get(NUPKG).send().await.expect(200).body, first);
    let name = {
        use sha2::Digest as _;
        hex::encode(sha2::Sha256::digest(&first))
    };
    let kept =
        || files_below(&server.data().join("blobs")).into_iter().find(|path| path.to_string_lossy().replace('/', "").ends_with(&name));
    until("the file to be kept", || kept().is_some()).await;
    std::fs::remove_file(kept().unwrap()).unwrap();
    feed.upstream.file(path, "application/octet-stream", second);
    let refused = anyone.get(NUPKG).send().await;
    assert!(refused.status == 502 || refused.cut, "{}", refused.status);
    feed.upstream.file(path, "application/octet-stream", first.clone());
    assert_eq!(anyone.get(NUPKG).send().await.expect(200).body, first);
    server.finish().await;
}

#[tokio::test]
async fn a_failing_upstream_is_covered_by_what_is_kept() {
    let feed = Feed::new();
    feed.package("Tool", &["1.0.0"]);
    let (server, token) = hosting(feed.setup()).await;
    let ann = server.caller_with(&token);
    publish(&ann, "", "Ours", "1.0").await;
    let known = [
        "/nuget/download/tool/index.json",
        NUPKG,
        "/nuget/registration/tool/index.json",
        "/nuget/registration-gz-semver2/tool/1.0.0.json",
        "/nuget/catalog/tool/1.0.0.json",
    ];
    for path in known {
        ann.get(path).send().await.expect(200);
    }
    ann.get("/nuget/download/absent/index.json").send().await.expect(404);
    for fault in [Fault::Status(500), Fault::Status(401), Fault::Status(403), Fault::Status(429), Fault::Portal, Fault::GzipGarbage] {
        feed.upstream.everywhere(Some(fault.clone()));
        for path in known {
            let answer = ann.get(path).send().await;
            assert_eq!(answer.status, 200, "{fault:?} {path}: {}", answer.text());
        }
        // What nobody knows yet is an error and not an absence: a client would go on without it.
        if !matches!(fault, Fault::GzipGarbage) {
            let unknown = ann.get("/nuget/download/unknown/index.json").send().await;
            assert!([502, 503].contains(&unknown.status), "{fault:?}: {}", unknown.status);
        }
        // What is ours is served whatever the upstream does.
        assert_eq!(versions(&ann, "", "ours").await, ["1.0.0"]);
        assert_eq!(read(&ann, "/nuget/query?q=ours").await["data"][0]["id"], "Ours");
        ann.get("/nuget/index.json").send().await.expect(200);
    }
    feed.upstream.stop();
    for path in known {
        ann.get(path).send().await.expect(200);
    }
    assert!(ann.get("/nuget/download/unknown/index.json").send().await.status >= 500);
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_feed_is_an_error_that_says_so() {
    let feed = Feed::new();
    for (index, said) in [
        (json!({ "version": "2.0.0", "resources": [] }), "third version"),
        (json!({ "version": "3.0.0", "resources": [] }), "no place of packages"),
        (json!([]), "no service index"),
    ] {
        feed.json("/v3/index.json", &index);
        let server = feed.setup().start().await;
        let answer = server.caller().get("/nuget/download/tool/index.json").send().await.expect(502);
        assert!(answer.text().contains("cannot be read"), "{}", answer.text());
        until("the log to say why", || server.log().contains(said)).await;
        server.finish().await;
    }
}

#[tokio::test]
async fn a_name_of_ours_is_never_asked_for() {
    let feed = Feed::new();
    for id in ["Hosted", "Deleted", "Reserved.One", "Public"] {
        feed.package(id, &["9.0.0"]);
    }
    let (server, token) = hosting(feed.setup()).await;
    let ann = server.caller_with(&token);
    // While the names are free elsewhere.
    feed.upstream.stop();
    for id in ["hosted", "deleted"] {
        server.cli(&["reserve", "add", "nuget", id, "--owner", "ann"]).await;
        publish(&ann, "/ann", id, "1.0").await;
        server.cli(&["reserve", "remove", "nuget", id]).await;
    }
    crate::rest::check(&ann, "DELETE /users/ann/packages/nuget/deleted", 204).await;
    server.cli(&["reserve", "add", "nuget", "Reserved.*", "--owner", "ann"]).await;
    feed.upstream.start_again();
    feed.upstream.forget();
    let bob = server.caller_with(&server.publisher("bob").await);
    server.user("eve").await;
    for caller in [&ann, &bob, &server.caller()] {
        for tree in ["", "/ann", "/bob", "/eve"] {
            for id in ["hosted", "deleted", "reserved.one"] {
                for path in [
                    "download/ID/index.json",
                    "download/ID/9.0.0/ID.9.0.0.nupkg",
                    "registration/ID/index.json",
                    "registration-gz-semver2/ID/9.0.0.json",
                    "autocomplete?id=ID",
                ] {
                    let answer = caller.get(&format!("/nuget{tree}/{}", path.replace("ID", id))).send().await;
                    assert!(!answer.text().contains("9.0.0"), "{tree}/{path}: {}", answer.text());
                }
            }
        }
    }
    for id in ["hosted", "deleted", "reserved.one"] {
        assert!(!feed.asked_for(id), "{id}");
    }
    assert_eq!(versions(&ann, "", "hosted").await, ["1.0.0"]);
    // And the other way round: a name of the upstream's is not taken in front of everybody, but among an owner's.
    assert!(push(&bob, "", &nupkg("Public", "99.0", "")).await.expect(409).text().contains("upstream"));
    publish(&bob, "/bob", "Public", "99.0").await;
    assert_eq!(versions(&bob, "", "public").await, ["9.0.0"]);
    assert_eq!(versions(&bob, "/bob", "public").await, ["99.0.0"]);
    server.finish().await;
}

#[tokio::test]
async fn search_puts_what_an_upstream_finds_behind_what_is_hosted() {
    let feed = Feed::new();
    let hit = |id: &str| {
        json!({
            "@id": feed.address("/r"), "@type": "Package", "registration": feed.address("/r"), "id": id, "version": "2.0.0", "description": "theirs",
            "authors": ["Eve"], "tags": [], "totalDownloads": 7, "verified": true, "iconUrl": feed.address(&format!("/flat/{}/2.0.0/icon", id.to_lowercase())),
            "versions": [{ "@id": feed.address("/v"), "version": "2.0.0", "downloads": 7 }],
        })
    };
    feed.json(
        "/search",
        &json!({ "totalHits": 100, "data": [hit("Ours"), hit("Reserved.X"), hit("Theirs"), { "id": "../x", "version": "1" }, 5] }),
    );
    feed.json("/complete", &json!({ "totalHits": 3, "data": ["ours", "Theirs", "Reserved.X", 7] }));
    let (server, token) = hosting(feed.setup()).await;
    let ann = server.caller_with(&token);
    publish(&ann, "", "Ours", "1.0").await;
    server.cli(&["reserve", "add", "nuget", "Reserved.*", "--owner", "ann"]).await;
    let found = read(&ann, "/nuget/query?q=x&prerelease=true&semVerLevel=2.0.0&packageType=&take=5").await;
    assert_eq!((&found["totalHits"], found["data"].as_array().unwrap().len()), (&json!(100), 1));
    let theirs = &found["data"][0];
    assert!(!theirs.to_string().contains(&feed.upstream.url()), "{theirs}");
    assert_eq!(
        (&theirs["id"], &theirs["verified"], &theirs["packageTypes"]),
        (&json!("Theirs"), &json!(false), &json!([{ "name": "Dependency" }]))
    );
    let registration = format!("{}/nuget/registration-gz-semver2/theirs", server.origin());
    assert_eq!(theirs["registration"], format!("{registration}/index.json"));
    assert_eq!(theirs["versions"][0]["@id"], format!("{registration}/2.0.0.json"));
    assert_eq!(theirs["iconUrl"], format!("{}/nuget/download/theirs/2.0.0/icon", server.origin()));
    let query = feed.upstream.requests().into_iter().find(|seen| seen.path == "/search").unwrap().target;
    for part in ["q=x", "skip=0", "take=5", "prerelease=true", "semVerLevel=2.0.0"] {
        assert!(query.contains(part), "{query}");
    }
    let ids = async |query: &str| {
        let found = read(&ann, &format!("/nuget/{query}")).await;
        found["data"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().or(hit.as_str()).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("query?q=ours").await, ["Ours", "Theirs"]);
    assert_eq!(ids("query?q=ours&skip=1").await, ["Theirs"]);
    assert_eq!(ids("autocomplete?q=o").await, ["Ours", "Theirs"]);
    assert!(
        feed.upstream
            .requests()
            .iter()
            .any(|seen| seen.path == "/search" && seen.target.contains("skip=0") && seen.target.contains("take=19"))
    );
    // However long the words are.
    ids(&format!("query?q={}", "%26%2f%c3%a9".repeat(1000))).await;
    feed.upstream.everywhere(Some(Fault::Status(500)));
    assert_eq!(ids("query?q=ours&take=3").await, ["Ours"], "ours alone");
    assert_eq!(ids("query?q=ours").await, ["Ours", "Theirs"], "what was asked before is still known");
    server.finish().await;
}

#[tokio::test]
async fn vulnerabilities_are_passed_on_but_for_names_of_ours() {
    let feed = Feed::new();
    let listed =
        |name: &str, path: &str| json!({ "@name": name, "@id": feed.address(path), "@updated": "2026-01-01T00:00:00Z", "comment": "x" });
    feed.json("/vulnerable.json", &json!([listed("base", "/v/base.json"), listed("update", "/v/update.json")]));
    feed.json(
        "/v/base.json",
        &json!({ "theirs": [{ "severity": 2, "url": "https://advisories.example/1", "versions": "(, 2.0.0)" }], "ours": [] }),
    );
    feed.json("/v/update.json", &json!([]));
    let (server, token) = hosting(feed.setup()).await;
    let ann = server.caller_with(&token);
    publish(&ann, "", "Ours", "1.0").await;
    let index = read(&ann, "/nuget/vulnerabilities/index.json").await;
    assert!(!index.to_string().contains(&feed.upstream.url()));
    let path = |at: usize| index[at]["@id"].as_str().unwrap().strip_prefix(&server.origin()).unwrap().to_owned();
    let base = read(&ann, &path(0)).await;
    assert_eq!(base, json!({ "theirs": [{ "severity": 2, "url": "https://advisories.example/1", "versions": "(, 2.0.0)" }] }));
    assert_eq!(read(&ann, &path(1)).await, json!({}));
    ann.get("/nuget/vulnerabilities/other.json").send().await.expect(404);
    feed.upstream.stop();
    assert_eq!(read(&ann, &path(0)).await, base);
    server.finish().await;
    // That nothing is known must not be said by mistake.
    let feed = Feed::new();
    feed.upstream.always("/vulnerable.json", Fault::Status(500));
    let server = feed.setup().start().await;
    server.caller().get("/nuget/vulnerabilities/index.json").send().await.expect(502);
    server.finish().await;
    let feed = Feed::with(&["RegistrationsBaseUrl"]);
    let server = feed.setup().start().await;
    assert_eq!(read(&server.caller(), "/nuget/vulnerabilities/base.json").await, json!({}));
    server.finish().await;
}

#[tokio::test]
async fn a_merged_name_has_the_versions_of_both() {
    let feed = Feed::new();
    feed.package("Shared", &["1.0.0", "2.0.0"]);
    feed.json("/search", &json!({ "totalHits": 1, "data": [{ "id": "Shared", "version": "2.0.0" }] }));
    let (server, token) = hosting(feed.setup()).await;
    let ann = server.caller_with(&token);
    server.cli(&["reserve", "add", "nuget", "shared", "--owner", "ann", "--merge"]).await;
    let own = nupkg("SHARED", "2.0.0", "<title>ours</title>");
    push(&ann, "", &own).await.expect(201);
    publish(&ann, "", "SHARED", "3.0").await;
    assert_eq!(versions(&ann, "", "shared").await, ["1.0.0", "2.0.0", "3.0.0"]);
    assert_eq!(ann.get("/nuget/download/shared/2.0.0/shared.2.0.0.nupkg").send().await.expect(200).body, own);
    ann.get("/nuget/download/shared/1.0.0/shared.1.0.0.nupkg").send().await.expect(200);
    // Of a version that is hosted, every file is.
    ann.get("/nuget/download/shared/2.0.0/icon").send().await.expect(404);
    let registration = read(&ann, "/nuget/registration-gz-semver2/shared/index.json").await;
    let ids: Vec<(&str, &str)> =
        entries(&registration).iter().map(|entry| (entry["id"].as_str().unwrap(), entry["version"].as_str().unwrap())).collect();
    assert_eq!(ids, [("Shared", "1.0.0"), ("SHARED", "2.0.0"), ("SHARED", "3.0.0")]);
    assert_eq!(read(&ann, "/nuget/query?q=shared").await["data"].as_array().unwrap().len(), 1, "found once");
    feed.upstream.stop();
    assert_eq!(versions(&ann, "", "shared").await, ["1.0.0", "2.0.0", "3.0.0"]);
    server.finish().await;
}

#[tokio::test]
async fn two_upstreams_are_never_mixed() {
    let (one, two) = (Feed::new(), Feed::new());
    one.package("Both", &["1.0.0"]);
    two.package("Both", &["1.0.0", "2.0.0"]);
    two.package("Second", &["1.0.0"]);
    // The first has the package, but says nothing more of it.
    one.upstream.always("/reg/both/index.json", Fault::Status(404));
    let setup = one.setup().upstream_of("nuget", "second", &two.address("/v3/index.json"), "");
    let server = setup.start().await;
    let anyone = server.caller();
    assert_eq!(versions(&anyone, "", "both").await, ["1.0.0"]);
    anyone.get("/nuget/registration-gz-semver2/both/index.json").send().await.expect(404);
    anyone.get("/nuget/download/both/2.0.0/both.2.0.0.nupkg").send().await.expect(404);
    assert_eq!(versions(&anyone, "", "second").await, ["1.0.0"]);
    assert_eq!(entries(&read(&anyone, "/nuget/registration/second/index.json").await).len(), 1);
    anyone.get("/nuget/download/second/1.0.0/second.1.0.0.nupkg").send().await.expect(200);
    assert!(!two.asked_for("both"));
    // The first one's failure is not the second one's chance.
    one.upstream.stop();
    assert!(anyone.get("/nuget/download/other/index.json").send().await.status >= 500);
    assert_eq!(versions(&anyone, "", "second").await, ["1.0.0"], "who has it is known");
    server.finish().await;
}

#[tokio::test]
async fn upstreams_that_are_not_for_everybody_ask_for_a_token_at_once() {
    let feed = Feed::new();
    feed.package("Tool", &["1.0.0"]);
    let (server, token) = hosting(feed.setup().more("[access]\nanonymous_proxy = false")).await;
    let anyone = server.caller();
    for path in ["query?q=tool", "autocomplete?q=tool", "download/tool/index.json", "download/none/index.json"] {
        let answer = anyone.get(&format!("/nuget/{path}")).send().await.expect(401);
        assert!(answer.header("www-authenticate").starts_with("Basic "), "{path}");
    }
    let ann = server.caller_with(&token);
    assert_eq!(versions(&ann, "", "tool").await, ["1.0.0"]);
    assert!(ann.get("/nuget/download/tool/index.json").send().await.header("cache-control").starts_with("private"));
    assert!(feed.upstream.requests().iter().all(|seen| seen.header("authorization").is_none() && seen.header("x-nuget-apikey").is_none()));
    server.finish().await;
}

/// A feed above another: both real.
async fn chained() -> (Server, Caller, Server) {
    let (above, token) = hosting(Setup::default().more("[access]\ndefault_visibility = \"public\"")).await;
    let maker = above.caller_with(&token);
    for number in 0..130 {
        publish(&maker, "", "Many", &format!("1.{number}.0")).await;
    }
    let more = "<readme>r.md</readme><license type=\"file\">l.txt</license>";
    let package = zip(&[("Doc.nuspec", nuspec("Doc", "1.0.0-rc.1+x", more).as_bytes()), ("r.md", b"# Doc"), ("l.txt", b"free")]);
    push(&maker, "", &package).await.expect(201);
    let setup = Setup::default().upstream_of("nuget", "above", &format!("{}/nuget/index.json", above.origin()), "fresh_seconds = 0");
    let server = setup.engine("stale_while_revalidate_seconds = 0\nnegative_seconds = 1").start().await;
    (above, maker, server)
}

#[tokio::test]
async fn a_feed_above_another_shows_the_same() {
    let (above, maker, server) = chained().await;
    let anyone = server.caller();
    let here = |document: Value| serde_json::from_str::<Value>(&document.to_string().replace(&above.origin(), &server.origin())).unwrap();
    let documents = [
        "/nuget/download/many/index.json",
        "/nuget/registration/many/index.json",
        "/nuget/registration-gz/many/page/1.0.0/1.63.0.json",
        "/nuget/registration-gz-semver2/many/page/1.128.0/1.129.0.json",
        "/nuget/registration-gz-semver2/many/1.100.0.json",
    ];
    for path in documents {
        assert_eq!(read(&anyone, path).await, here(read(&maker, path).await).tap(forget_hashes), "{path}");
    }
    let doc = read(&anyone, "/nuget/registration-gz-semver2/doc/index.json").await;
    assert_eq!(entries(&doc)[0]["readmeUrl"], format!("{}/nuget/download/doc/1.0.0-rc.1/readme", server.origin()));
    anyone.get("/nuget/registration-gz/doc/index.json").send().await.expect(404);
    assert_eq!(anyone.get("/nuget/download/doc/1.0.0-rc.1/readme").send().await.expect(200).text(), "# Doc");
    assert_eq!(anyone.get("/nuget/download/doc/1.0.0-rc.1/license").send().await.expect(200).text(), "free");
    let package = anyone.get("/nuget/download/doc/1.0.0-rc.1/doc.1.0.0-rc.1.nupkg").send().await.expect(200).body;
    assert_eq!(package, maker.get("/nuget/download/doc/1.0.0-rc.1/doc.1.0.0-rc.1.nupkg").send().await.expect(200).body);
    let found = read(&anyone, "/nuget/query?q=doc&prerelease=true&semVerLevel=2.0.0").await;
    assert_eq!(found["data"][0]["version"], "1.0.0-rc.1+x");
    // Unlisting above is seen below.
    maker.ask("DELETE", "/nuget/package/Many/1.129.0").send().await;
    assert_eq!(read(&anyone, "/nuget/registration-gz-semver2/many/1.129.0.json").await["listed"], false);
    above.finish().await;
    for path in documents {
        read(&anyone, path).await;
    }
    server.finish().await;
}

trait Tap: Sized {
    /// The value after something was done to it.
    fn tap(mut self, change: impl Fn(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Value {}

/// Takes out what is not passed on: who cannot prove a digest does not repeat it.
fn forget_hashes(document: &mut Value) {
    match document {
        Value::Object(members) => {
            members.retain(|name, _| !["packageHash", "packageHashAlgorithm", "packageSize"].contains(&name.as_str()));
            members.values_mut().for_each(forget_hashes);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_hashes),
        _ => {}
    }
}
