//! Hosted packages over npm's wire protocol: publish, read, change, remove.

use serde_json::{Value, json};

use crate::harness::{Answer, Caller, Package, Server, Setup, Token, gunzip, integrity, shasum};

/// What npm and the others send when they want the short form.
pub(crate) const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// A path below the server of a package's packument.
pub(crate) fn at(name: &str) -> String {
    format!("/npm/{}", name.replace('/', "%2f"))
}

/// Publishes under `latest`.
pub(crate) async fn publish(caller: &Caller, package: &Package) -> Answer {
    caller.put(&at(&package.name), &package.publish("latest")).send().await
}

/// A server that only hosts, and someone who may publish under `@alice`.
pub(crate) async fn hosting() -> (Server, Token) {
    let server = Setup::default().start().await;
    let token = server.publisher("alice").await;
    (server, token)
}

/// A hosting server with `@alice/tool` 1.0.0, and its publisher.
async fn with_tool() -> (Server, Caller, Package) {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let more = json!({ "dependencies": { "left": "^1.0.0" }, "scripts": { "postinstall": "node x" }, "ourField": { "kept": [1, 2] }, "libc": ["glibc"] });
    let package = Package::with("@alice/tool", "1.0.0", more, 5000);
    assert!(publish(&caller, &package).await.status < 300);
    (server, caller, package)
}

#[tokio::test]
async fn a_publish_reads_back() {
    let (server, caller, package) = with_tool().await;
    let answer = caller.get(&at("@alice/tool")).send().await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let full = answer.json();
    assert_eq!((&full["name"], &full["_id"]), (&json!("@alice/tool"), &json!("@alice/tool")));
    assert_eq!(full["dist-tags"], json!({ "latest": "1.0.0" }));
    let version = &full["versions"]["1.0.0"];
    assert_eq!(version["dist"]["tarball"], json!(format!("{}@alice/tool/-/tool-1.0.0.tgz", server.registry())));
    assert_eq!(version["dist"]["integrity"], json!(integrity(&package.tarball)));
    assert_eq!(version["dist"]["shasum"], json!(shasum(&package.tarball)));
    assert_eq!(version["dependencies"], json!({ "left": "^1.0.0" }));
    assert_eq!(version["ourField"], json!({ "kept": [1, 2] }), "unknown fields are kept");
    for key in ["created", "modified", "1.0.0"] {
        assert!(full["time"][key].as_str().is_some_and(|time| time.ends_with('Z')), "time.{key}: {}", full["time"]);
    }
    assert!(!answer.text().contains("elsewhere.invalid"), "the address that the client made up is gone");
    server.finish().await;
}

#[tokio::test]
async fn the_abbreviated_form_is_another_representation() {
    let (server, caller, _) = with_tool().await;
    let full = caller.get(&at("@alice/tool")).header("accept", "application/json").send().await.expect(200);
    let short = caller.get(&at("@alice/tool")).header("accept", ABBREVIATED).send().await.expect(200);
    assert_eq!(short.header("content-type"), "application/vnd.npm.install-v1+json");
    for answer in [&full, &short] {
        let vary = answer.header("vary").to_ascii_lowercase();
        assert!(vary.contains("accept") && vary.contains("accept-encoding"), "Vary: {vary}");
    }
    assert!(!full.header("etag").is_empty() && full.header("etag") != short.header("etag"));
    let value = short.json();
    assert_eq!(value["versions"]["1.0.0"]["hasInstallScript"], json!(true));
    assert_eq!(value["versions"]["1.0.0"]["libc"], json!(["glibc"]));
    assert!(value["modified"].is_string() && value["time"].is_null() && value["versions"]["1.0.0"]["ourField"].is_null(), "{value}");
    // q-values decide, not the order.
    let accept = "application/vnd.npm.install-v1+json; q=0.1, application/json; q=0.9";
    let chosen = caller.get(&at("@alice/tool")).header("accept", accept).send().await;
    assert_eq!(chosen.header("content-type"), "application/json");
    server.finish().await;
}

#[tokio::test]
async fn an_unchanged_packument_is_not_sent_again() {
    let (server, caller, _) = with_tool().await;
    for (accept, encoding) in [(ABBREVIATED, "identity"), ("application/json", "gzip")] {
        let ask = || caller.get(&at("@alice/tool")).header("accept", accept).header("accept-encoding", encoding);
        let first = ask().send().await.expect(200);
        let second = ask().header("if-none-match", first.header("etag")).send().await;
        assert_eq!((second.status, second.body.len()), (304, 0));
        for name in ["etag", "vary", "cache-control"] {
            assert_eq!(first.header(name), second.header(name), "{name}");
        }
    }
    let etag = caller.get(&at("@alice/tool")).send().await.header("etag").to_owned();
    assert!(publish(&caller, &Package::new("@alice/tool", "1.1.0")).await.status < 300);
    let changed = caller.get(&at("@alice/tool")).header("if-none-match", &etag).send().await;
    assert_eq!(changed.status, 200, "a publish is seen at once");
    server.finish().await;
}

#[tokio::test]
async fn compression_is_another_representation() {
    let (server, caller, _) = with_tool().await;
    let plain = caller.get(&at("@alice/tool")).header("accept-encoding", "identity").send().await.expect(200);
    let small = caller.get(&at("@alice/tool")).header("accept-encoding", "gzip").send().await.expect(200);
    assert_eq!(small.header("content-encoding"), "gzip");
    assert!(gunzip(&small.body) == plain.body && small.header("etag") != plain.header("etag"));
    let refused = caller.get(&at("@alice/tool")).header("accept-encoding", "gzip;q=0").send().await;
    assert_eq!(refused.header("content-encoding"), "");
    server.finish().await;
}

#[tokio::test]
async fn every_spelling_of_a_name_is_one_name() {
    let (server, caller, package) = with_tool().await;
    let expected = caller.packument("@alice/tool").await;
    for path in ["@alice%2ftool", "@alice%2Ftool", "@alice/tool", "%40alice%2ftool", "%40alice/tool"] {
        assert_eq!(caller.get(&format!("/npm/{path}")).send().await.expect(200).json(), expected, "{path}");
    }
    for path in ["@alice/tool/-/tool-1.0.0.tgz", "@alice%2ftool/-/tool-1.0.0.tgz", "%40alice%2Ftool/-/tool-1.0.0.tgz"] {
        assert!(caller.get(&format!("/npm/{path}")).send().await.expect(200).body == package.tarball, "{path}");
    }
    for path in ["@alice%252ftool", "@alice%2f%2e%2e%2ftool", "@alice%2ftool%00", "@alice%5ctool", "@ALICE%2ftool%2f"] {
        let answer = caller.get(&format!("/npm/{path}")).send().await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    }
    server.finish().await;
}

#[tokio::test]
async fn the_alias_of_the_mount_names_itself() {
    let (server, caller, package) = with_tool().await;
    let value = caller.get("/_registry/npm/@alice%2ftool").send().await.expect(200).json();
    let tarball = value["versions"]["1.0.0"]["dist"]["tarball"].as_str().unwrap().to_owned();
    assert_eq!(tarball, format!("{}/_registry/npm/@alice/tool/-/tool-1.0.0.tgz", server.origin()));
    let path = tarball.strip_prefix(&server.origin()).unwrap();
    assert!(caller.get(path).send().await.expect(200).body == package.tarball);
    server.finish().await;
}

#[tokio::test]
async fn one_version_is_a_document_too() {
    let (server, caller, _) = with_tool().await;
    for which in ["1.0.0", "latest"] {
        let value = caller.get(&format!("{}/{which}", at("@alice/tool"))).send().await.expect(200).json();
        assert_eq!((&value["name"], &value["version"]), (&json!("@alice/tool"), &json!("1.0.0")));
        assert!(value["dist"]["tarball"].as_str().unwrap().starts_with(&server.registry()));
    }
    caller.get(&format!("{}/9.9.9", at("@alice/tool"))).send().await.expect(404);
    caller.get(&format!("{}/canary", at("@alice/tool"))).send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn a_tarball_is_exactly_its_bytes() {
    let (server, caller, package) = with_tool().await;
    let path = format!("/npm{}", package.path());
    let whole = package.tarball.clone();
    let answer = caller.get(&path).header("accept-encoding", "gzip, br").send().await.expect(200);
    assert!(answer.body == whole && answer.header("content-encoding").is_empty());
    assert_eq!(answer.header("content-length"), whole.len().to_string());
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert!(answer.header("cache-control").contains("immutable"), "{}", answer.header("cache-control"));
    let etag = answer.header("etag").to_owned();
    let head = caller.ask("HEAD", &path).send().await;
    assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, answer.header("content-length"), etag.as_str()));
    assert!(head.body.is_empty());

    let part = |range: &'static str, condition: String| {
        let ask = caller.get(&path).header("range", range);
        if condition.is_empty() { ask } else { ask.header("if-range", &condition) }
    };
    let middle = part("bytes=10-19", String::new()).send().await;
    assert!(middle.status == 206 && middle.body == whole[10..20]);
    assert_eq!(middle.header("content-range"), format!("bytes 10-19/{}", whole.len()));
    let tail = part("bytes=-5", etag.clone()).send().await;
    assert!(tail.status == 206 && tail.body == whole[whole.len() - 5..]);
    let stale = part("bytes=10-19", "\"other\"".into()).send().await;
    assert!(stale.status == 200 && stale.body == whole);
    assert_eq!(part("bytes=99999999-", String::new()).send().await.status, 416);
    assert_eq!(caller.get(&path).header("if-none-match", &etag).send().await.status, 304);
    caller.get("/npm/@alice/tool/-/tool-2.0.0.tgz").send().await.expect(404);
    caller.get("/npm/@alice/tool/-/..%2ftool-1.0.0.tgz").send().await;
    server.finish().await;
}

#[tokio::test]
async fn the_download_form_of_github_answers() {
    let (server, caller, package) = with_tool().await;
    let path = format!("/npm/download/@alice/tool/1.0.0/{}", shasum(&package.tarball));
    assert!(caller.get(&path).send().await.expect(200).body == package.tarball);
    let absent = format!("/npm/download/@alice/tool/1.0.1/{}", shasum(&package.tarball));
    caller.get(&absent).send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn dist_tags_are_set_moved_and_removed() {
    let (server, caller, _) = with_tool().await;
    publish(&caller, &Package::new("@alice/tool", "2.0.0-beta.1")).await;
    let tags = "/npm/-/package/@alice%2ftool/dist-tags";
    let tag = |name: &str| format!("{tags}/{name}");
    assert!(caller.put(&tag("beta"), &json!("2.0.0-beta.1")).send().await.status < 300);
    assert!(caller.put(&tag("latest"), &json!("1.0.0")).send().await.status < 300);
    let value = caller.get(tags).send().await.expect(200).json();
    assert_eq!((&value["latest"], &value["beta"]), (&json!("1.0.0"), &json!("2.0.0-beta.1")));
    assert_eq!(caller.packument("@alice/tool").await["dist-tags"], value);
    // NP07: a tag like a version or a range, and a tag to a version that is not there.
    for wrong in ["1.0.0", "v1", "^1.0.0", "1.x"] {
        caller.put(&tag(wrong), &json!("1.0.0")).send().await.expect(400);
    }
    let missing = caller.put(&tag("next"), &json!("7.0.0")).send().await;
    assert!(matches!(missing.status, 400 | 404), "{}", missing.status);
    assert!(caller.put(&tag("next"), &json!({ "no": 1 })).send().await.status == 400);
    assert!(caller.ask("DELETE", &tag("beta")).send().await.status < 300);
    assert!(caller.packument("@alice/tool").await["dist-tags"]["beta"].is_null());
    caller.ask("DELETE", &tag("beta")).send().await.expect(404);
    server.caller().put(&tag("evil"), &json!("1.0.0")).send().await;
    assert!(caller.packument("@alice/tool").await["dist-tags"]["evil"].is_null());
    server.finish().await;
}

#[tokio::test]
async fn a_body_without_attachments_changes_only_what_it_may() {
    let (server, caller, package) = with_tool().await;
    publish(&caller, &Package::new("@alice/tool", "1.1.0")).await;
    let before = caller.packument("@alice/tool").await;
    let mut body = caller.get(&format!("{}?write=true", at("@alice/tool"))).send().await.expect(200).json();
    body["versions"]["1.0.0"]["deprecated"] = json!("use 1.1.0");
    body["versions"]["1.0.0"]["dependencies"] = json!({ "evil": "*" });
    body["versions"]["1.0.0"]["dist"]["integrity"] = json!("sha512-AAAA");
    assert!(caller.put(&at("@alice/tool"), &body).send().await.status < 300);
    let after = caller.packument("@alice/tool").await;
    assert_eq!(after["versions"]["1.0.0"]["deprecated"], json!("use 1.1.0"));
    assert_eq!(after["versions"]["1.0.0"]["dependencies"], before["versions"]["1.0.0"]["dependencies"]);
    assert_eq!(after["versions"]["1.0.0"]["dist"], before["versions"]["1.0.0"]["dist"]);
    assert!(after["versions"]["1.1.0"]["deprecated"].is_null());
    let short = caller.get(&at("@alice/tool")).header("accept", ABBREVIATED).send().await.json();
    assert_eq!(short["versions"]["1.0.0"]["deprecated"], json!("use 1.1.0"));
    body["versions"]["1.0.0"]["deprecated"] = json!("");
    assert!(caller.put(&at("@alice/tool"), &body).send().await.status < 300);
    assert!(caller.packument("@alice/tool").await["versions"]["1.0.0"]["deprecated"].is_null());
    assert!(caller.get(&format!("/npm{}", package.path())).send().await.body == package.tarball);
    server.finish().await;
}

/// Removes one version as npm does: the packument without it, then the tarball.
async fn unpublish(caller: &Caller, name: &str, version: &str) {
    let write = format!("{}?write=true", at(name));
    let mut body = caller.get(&write).send().await.expect(200).json();
    let removed = body["versions"].as_object_mut().unwrap().remove(version).unwrap();
    let rev = body["_rev"].as_str().unwrap().to_owned();
    let changed = caller.put(&format!("{}/-rev/{rev}", at(name)), &body).send().await;
    assert!(changed.status < 300, "{}", changed.text());
    let rev = caller.get(&write).send().await.expect(200).json()["_rev"].as_str().unwrap().to_owned();
    let file = removed["dist"]["tarball"].as_str().unwrap().split("/npm/").nth(1).unwrap().to_owned();
    let gone = caller.ask("DELETE", &format!("/npm/{file}/-rev/{rev}")).send().await;
    assert!(gone.status < 300 || gone.status == 404, "{}", gone.text());
}

#[tokio::test]
async fn an_unpublished_number_is_never_used_again() {
    let (server, caller, first) = with_tool().await;
    let second = Package::new("@alice/tool", "1.1.0");
    publish(&caller, &second).await;
    unpublish(&caller, "@alice/tool", "1.1.0").await;
    let value = caller.packument("@alice/tool").await;
    assert!(value["versions"]["1.1.0"].is_null());
    assert_eq!(value["dist-tags"]["latest"], json!("1.0.0"), "latest moves to what is left");
    caller.get(&format!("/npm{}", second.path())).send().await.expect(404);
    assert!(caller.get(&format!("/npm{}", first.path())).send().await.body == first.tarball);
    let again = publish(&caller, &second).await;
    assert!(matches!(again.status, 403 | 409), "{}", again.status);
    assert!(again.json()["error"].is_string());
    server.finish().await;
}

#[tokio::test]
async fn an_unpublished_package_is_gone_and_stays_ours() {
    let (server, caller, package) = with_tool().await;
    let rev = caller.get(&format!("{}?write=true", at("@alice/tool"))).send().await.json()["_rev"].as_str().unwrap().to_owned();
    let stale = caller.ask("DELETE", &format!("{}/-rev/0-stale", at("@alice/tool"))).send().await;
    assert!(matches!(stale.status, 400 | 409), "NP04: {}", stale.status);
    assert!(caller.ask("DELETE", &format!("{}/-rev/{rev}", at("@alice/tool"))).send().await.status < 300);
    caller.get(&at("@alice/tool")).send().await.expect(404);
    caller.get(&format!("/npm{}", package.path())).send().await.expect(404);
    let again = publish(&caller, &package).await;
    assert!(matches!(again.status, 403 | 409), "{}: {}", again.status, again.text());
    server.finish().await;
}

#[tokio::test]
async fn a_version_cannot_be_published_twice() {
    let (server, caller, package) = with_tool().await;
    let other = Package::with("@alice/tool", "1.0.0", json!({ "description": "other bytes" }), 100);
    let again = publish(&caller, &other).await;
    assert!(matches!(again.status, 403 | 409), "{}", again.status);
    assert!(caller.get(&format!("/npm{}", package.path())).send().await.body == package.tarball, "the bytes are untouched");
    server.finish().await;
}

#[tokio::test]
async fn parallel_publishes_lose_nothing() {
    let (server, caller, _) = with_tool().await;
    let versions: Vec<Package> = (1..=12).map(|minor| Package::new("@alice/tool", &format!("1.{minor}.0"))).collect();
    let running: Vec<_> = versions.iter().map(|package| publish(&caller, package)).collect();
    for answer in futures_util::future::join_all(running).await {
        assert!(answer.status < 300, "{}", answer.text());
    }
    let value = caller.packument("@alice/tool").await;
    for package in &versions {
        assert_eq!(value["versions"][&package.version]["dist"]["integrity"], json!(package.integrity()));
    }
    server.finish().await;
}

#[tokio::test]
async fn rc01_of_many_publishers_of_one_version_one_wins() {
    let (server, caller, _) = with_tool().await;
    let racers: Vec<Package> = (0..50).map(|n| Package::with("@alice/tool", "3.0.0", json!({ "racer": n }), 2000 + n)).collect();
    // Readers beside them: whatever they see, they see for good.
    let reader = tokio::spawn({
        let caller = caller.clone();
        async move {
            let mut seen = Vec::new();
            for _ in 0..200 {
                let answer = caller.get("/npm/@alice/tool/-/tool-3.0.0.tgz").send().await;
                if answer.status == 200 {
                    seen.push(answer.body);
                }
            }
            seen
        }
    });
    let answers = futures_util::future::join_all(racers.iter().map(|package| publish(&caller, package))).await;
    let winners: Vec<usize> = (0..racers.len()).filter(|index| answers[*index].status < 300).collect();
    assert_eq!(winners.len(), 1, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    assert!(
        answers.iter().all(|answer| matches!(answer.status, 201 | 403 | 409)),
        "{:?}",
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    );
    let served = caller.get("/npm/@alice/tool/-/tool-3.0.0.tgz").send().await;
    assert!(served.body == racers[winners[0]].tarball);
    assert!(reader.await.unwrap().iter().all(|body| *body == served.body), "two digests were seen of one version");
    let listed = caller.packument("@alice/tool").await;
    assert_eq!(listed["versions"]["3.0.0"]["racer"], json!(winners[0]));
    assert_eq!(listed["versions"]["3.0.0"]["dist"]["integrity"], json!(integrity(&served.body)));
    server.finish().await;
}

#[tokio::test]
async fn rc02_a_deleted_number_stays_deleted_in_any_race() {
    let (server, caller, _) = with_tool().await;
    for minor in 1..=5 {
        let number = format!("2.{minor}.0");
        let first = Package::with("@alice/tool", &number, json!({}), 2000);
        assert!(publish(&caller, &first).await.status < 300);
        // Others try to take the number while it is being deleted.
        let others: Vec<Package> = (0..10).map(|n| Package::with("@alice/tool", &number, json!({ "other": n }), 2000)).collect();
        let racing = futures_util::future::join_all(others.iter().map(|package| publish(&caller, package)));
        let ((), answers) = tokio::join!(unpublish(&caller, "@alice/tool", &number), racing);
        assert!(answers.iter().all(|answer| matches!(answer.status, 403 | 409)), "{number} was published twice");
        assert!(caller.packument("@alice/tool").await["versions"][&number].is_null());
        caller.get(&format!("/npm{}", first.path())).send().await.expect(404);
        assert!(matches!(publish(&caller, &first).await.status, 403 | 409), "the same bytes are no excuse");
    }
    server.finish().await;
}

#[tokio::test]
async fn rc06_concurrent_edits_lose_no_tag_and_stale_ones_are_told() {
    let (server, caller, _) = with_tool().await;
    let tag = |n: usize| format!("/npm/-/package/@alice%2ftool/dist-tags/tag-{n}");
    let edits = futures_util::future::join_all((0..30).map(|n| caller.put(&tag(n), &json!("1.0.0")).send())).await;
    assert!(edits.iter().all(|answer| answer.status < 300), "{:?}", edits.iter().map(|answer| answer.status).collect::<Vec<_>>());
    let tags = caller.packument("@alice/tool").await["dist-tags"].as_object().unwrap().len();
    assert_eq!(tags, 31, "a tag is lost");
    let stale = caller.get(&format!("{}?write=true", at("@alice/tool"))).send().await.json();
    assert!(publish(&caller, &Package::new("@alice/tool", "1.1.0")).await.status < 300);
    let path = format!("{}/-rev/{}", at("@alice/tool"), stale["_rev"].as_str().unwrap());
    caller.put(&path, &stale).send().await.expect(409);
    assert!(caller.packument("@alice/tool").await["versions"]["1.1.0"].is_object(), "a stale edit removed a version");
    server.finish().await;
}

#[tokio::test]
async fn np07_a_tag_is_no_version_and_names_one_that_is_there() {
    let (server, caller, _) = with_tool().await;
    let before = caller.packument("@alice/tool").await["dist-tags"].clone();
    for (tag, version) in
        [("1.0.0", "1.0.0"), ("v2", "1.0.0"), ("2.x", "1.0.0"), ("beta", "9.9.9"), ("beta", "nonsense"), ("", "1.0.0"), ("%2e%2e", "1.0.0")]
    {
        let answer = caller.put(&format!("/npm/-/package/@alice%2ftool/dist-tags/{tag}"), &json!(version)).send().await;
        assert!(matches!(answer.status, 400 | 404 | 405 | 422), "{tag:?} to {version:?}: {}", answer.status);
    }
    for tag in ["2.0.0", "^1"] {
        let answer = caller.put(&at("@alice/tool"), &Package::new("@alice/tool", "1.5.0").publish(tag)).send().await;
        assert!(matches!(answer.status, 400 | 422), "published under {tag:?}: {}", answer.status);
    }
    assert_eq!(caller.packument("@alice/tool").await["dist-tags"], before);
    server.finish().await;
}

#[tokio::test]
async fn who_is_asking() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    assert_eq!(caller.get("/npm/-/whoami").send().await.expect(200).json(), json!({ "username": "alice" }));
    let anonymous = server.caller().get("/npm/-/whoami").send().await.expect(401);
    assert!(anonymous.header("www-authenticate").starts_with("Bearer"), "{}", anonymous.header("www-authenticate"));
    assert!(!anonymous.header("www-authenticate").to_ascii_lowercase().contains("otp"));
    assert_eq!(caller.get("/npm/-/ping").send().await.expect(200).json(), json!({}));
    let basic = base64_of(&format!("alice:{}", token.text));
    let answer = server.caller().get("/npm/-/whoami").header("authorization", &format!("Basic {basic}")).send().await;
    assert_eq!(answer.expect(200).json()["username"], json!("alice"));
    server.finish().await;
}

pub(crate) fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

#[tokio::test]
async fn the_legacy_login_takes_a_token_as_password() {
    let (server, token) = hosting().await;
    let anonymous = server.caller();
    let web = anonymous.ask("POST", "/npm/-/v1/login").json(&json!({ "hostname": "x" })).send().await;
    assert!((400..500).contains(&web.status), "npm falls back to the legacy login on any 4xx, not on {}", web.status);
    let login =
        |password: &str| json!({ "_id": "org.couchdb.user:alice", "name": "alice", "password": password, "type": "user", "roles": [] });
    let path = "/npm/-/user/org.couchdb.user:alice";
    let answer = anonymous.put(path, &login(&token.text)).send().await.expect(201).json();
    let given = answer["token"].as_str().expect("a token").to_owned();
    server.secret(&given);
    let with_it = Caller::new(&server.origin(), Some(&given));
    assert_eq!(with_it.get("/npm/-/whoami").send().await.expect(200).json()["username"], json!("alice"));
    anonymous.put(path, &login("wrong")).send().await.expect(401);
    anonymous.put("/npm/-/user/org.couchdb.user:bob", &login(&token.text)).send().await;
    assert_eq!(anonymous.put("/npm/-/user/org.couchdb.user:bob", &login(&token.text)).send().await.status / 100, 4);
    server.finish().await;
}

#[tokio::test]
async fn search_finds_what_the_caller_may_read() {
    let (server, caller, _) = with_tool().await;
    let found = caller.get("/npm/-/v1/search?text=tool&size=20&from=0").send().await.expect(200).json();
    assert_eq!(found["total"], json!(1), "{found}");
    let package = &found["objects"][0]["package"];
    assert_eq!((&package["name"], &package["version"]), (&json!("@alice/tool"), &json!("1.0.0")));
    assert!(found["objects"][0]["score"]["final"].is_number() && found["time"].is_string());
    let hidden = server.caller().get("/npm/-/v1/search?text=tool").send().await.expect(200).json();
    assert_eq!(hidden["objects"], json!([]), "a private package is found by nobody else");
    assert_eq!(caller.get("/npm/-/v1/search?text=tool&size=999999999&from=-1").send().await.status / 100, 2, "a size is clamped");
    server.finish().await;
}

#[tokio::test]
async fn what_clients_ask_besides() {
    let (server, caller, _) = with_tool().await;
    caller.get("/npm/-/npm/v1/keys").send().await.expect(404);
    let bulk = caller.ask("POST", "/npm/-/npm/v1/security/advisories/bulk").json(&json!({ "@alice/tool": ["1.0.0"] })).send().await;
    assert_eq!(bulk.expect(200).json(), json!({}));
    for path in ["/npm/-/npm/v1/security/audits", "/npm/-/npm/v1/security/audits/quick"] {
        let body = json!({ "name": "app", "version": "1.0.0", "requires": {}, "dependencies": {} });
        let value = caller.ask("POST", path).json(&body).send().await.expect(200).json();
        assert_eq!((&value["actions"], &value["advisories"], &value["muted"]), (&json!([]), &json!({}), &json!([])));
        for level in ["info", "low", "moderate", "high", "critical"] {
            assert_eq!(value["metadata"]["vulnerabilities"][level], json!(0), "{path}");
        }
    }
    let user = caller.get("/npm/-/user/org.couchdb.user:alice").send().await.expect(200).json();
    assert_eq!(user["name"], json!("alice"));
    for path in
        ["/npm/-/package/@alice%2ftool/collaborators", "/npm/-/org/alice/team", "/npm/-/npm/v1/hooks", "/npm/-/all", "/npm/-/none/such"]
    {
        let answer = caller.get(path).send().await;
        assert!(answer.status < 500 && answer.header("content-type").starts_with("application/json"), "{path}: {}", answer.status);
    }
    let batch = caller.put("/npm/-/pnpm/v1/publish", &json!({})).send().await;
    assert_eq!(batch.status, 404);
    server.finish().await;
}

#[tokio::test]
async fn owners_change_only_with_the_right_revision() {
    let (server, caller, _) = with_tool().await;
    server.user("bob").await;
    let mut body: Value = caller.get(&format!("{}?write=true", at("@alice/tool"))).send().await.json();
    let rev = body["_rev"].as_str().unwrap().to_owned();
    assert_eq!(body["maintainers"][0]["name"], json!("alice"));
    body["maintainers"].as_array_mut().unwrap().push(json!({ "name": "bob", "email": "bob@example.test" }));
    let change = json!({ "_id": "@alice/tool", "_rev": rev, "maintainers": body["maintainers"] });
    let answer = caller.put(&format!("{}/-rev/{rev}", at("@alice/tool")), &change).send().await;
    assert!(answer.status < 300, "{}", answer.text());
    let token = server.token("bob", &["read:packages", "write:packages"]).await;
    assert_eq!(publish(&server.caller_with(&token), &Package::new("@alice/tool", "1.2.0")).await.status / 100, 2, "an owner may publish");
    let stale = caller.put(&format!("{}/-rev/{rev}", at("@alice/tool")), &change).send().await;
    assert_eq!(stale.status, 409, "NP04: a stale revision");
    server.finish().await;
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let (mut server, caller, package) = with_tool().await;
    let before = caller.packument("@alice/tool").await;
    assert!(server.stop().await.success());
    server.start_again().await;
    assert_eq!(caller.packument("@alice/tool").await, before);
    assert!(caller.get(&format!("/npm{}", package.path())).send().await.body == package.tarball);
    server.finish().await;
}
