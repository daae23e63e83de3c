//! Who is asking, and what they may not learn: the rows AU and AZ of the catalogue, by name.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Answer, Caller, Fault, Package, Server, Setup, Token, Upstream};
use crate::npm_wire::{at, base64_of, hosting, publish};

/// A server with the private package `@alice/tool`, its publisher, and a stranger with a token.
async fn with_private() -> (Server, Token, Token, Package) {
    let (server, alice) = hosting().await;
    let bob = server.publisher("bob").await;
    let package = Package::with("@alice/tool", "1.0.0", json!({}), 2000);
    assert!(publish(&server.caller_with(&alice), &package).await.status < 300);
    (server, alice, bob, package)
}

#[tokio::test]
async fn au01_garbage_credentials() {
    let (server, _) = hosting().await;
    let long = "x".repeat(30_000);
    let many = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer canary-garbage",
        "Basic !!!!",
        "Basic Y2FuYXJ5",
        "Digest canary",
        "token canary",
        "canary",
        &long,
    ];
    for value in many {
        let answer = server.caller().get("/npm/-/whoami").header("authorization", value).send().await;
        assert!(matches!(answer.status, 400 | 401 | 431), "{value:.30}: {}", answer.status);
        assert!(!answer.text().contains("canary") && !answer.text().contains("xxxx"), "echoed: {}", answer.text());
    }
    let raw = b"GET /npm/-/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\x80\r\nConnection: close\r\n\r\n";
    let got = crate::harness::exchange(server.port(), raw).await;
    assert!(matches!(got.statuses[..], [400 | 401]), "{:?}", got.statuses);
    server.finish().await;
}

#[tokio::test]
async fn au03_au04_wrong_unknown_and_revoked_tokens_read_the_same() {
    let (server, alice) = hosting().await;
    let spare = server.token("alice", &["read:packages"]).await;
    let caller = server.caller_with(&spare);
    caller.get("/npm/-/whoami").send().await.expect(200);
    server.revoke(&spare).await;
    let revoked = tokio::time::Instant::now();
    while caller.get("/npm/-/whoami").send().await.status == 200 {
        assert!(revoked.elapsed() < Duration::from_secs(1), "a revoked token works after {:?}", revoked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut typo = alice.text.clone();
    typo.replace_range(10..11, if &typo[10..11] == "a" { "b" } else { "a" });
    let unknown = "pkh_000000000000000000000000000000000000";
    let answer = |text: &str| Caller::new(&server.origin(), Some(text)).get(&at("@alice/none")).send();
    let (revoked, typo, unknown) = (answer(&spare.text).await, answer(&typo).await, answer(unknown).await);
    assert_eq!(revoked.status, 401);
    same("a typo", &revoked, &typo);
    same("an unknown token", &revoked, &unknown);
    assert_eq!(server.caller_with(&alice).get("/npm/-/whoami").send().await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn au04_a_bad_token_reads_no_public_thing_either() {
    let (server, alice, _, package) = with_private().await;
    make_public(&server).await;
    publish(&server.caller_with(&alice), &Package::new("@alice/tool", "1.0.1")).await;
    let bad = Caller::new(&server.origin(), Some("pkh_000000000000000000000000000000000000"));
    bad.get(&at("@alice/tool")).send().await.expect(401);
    assert!(server.caller().get(&format!("/npm{}", package.path())).send().await.body == package.tarball, "public is anonymous");
    server.finish().await;
}

async fn make_public(server: &Server) {
    server.cli(&["package", "visibility", "npm", "@alice/tool", "public"]).await;
}

#[tokio::test]
async fn au05_a_token_does_what_its_scopes_say() {
    let (server, alice, _, _) = with_private().await;
    let reader = server.caller_with(&server.token("alice", &["read:packages"]).await);
    reader.get(&at("@alice/tool")).send().await.expect(200);
    let next = Package::new("@alice/tool", "1.1.0");
    let deprecation = {
        let mut body = reader.packument("@alice/tool").await;
        body["versions"]["1.0.0"]["deprecated"] = json!("no");
        body
    };
    let none = server.caller_with(&server.token("alice", &["user"]).await);
    let writer = server.caller_with(&server.token("alice", &["read:packages", "write:packages"]).await);
    let tag = "/npm/-/package/@alice%2ftool/dist-tags/beta";
    for (what, answer) in [
        ("publish", publish(&reader, &next).await),
        ("deprecate", reader.put(&at("@alice/tool"), &deprecation).send().await),
        ("tag", reader.put(tag, &json!("1.0.0")).send().await),
        ("delete with write", writer.ask("DELETE", &format!("{}/-rev/{}", at("@alice/tool"), rev(&writer).await)).send().await),
        ("read without a scope", none.get(&at("@alice/tool")).send().await),
    ] {
        assert!(matches!(answer.status, 403 | 404), "{what}: {}", answer.status);
        assert!(answer.json()["error"].is_string(), "{what}");
    }
    assert!(publish(&writer, &next).await.status < 300);
    let versions = server.caller_with(&alice).packument("@alice/tool").await;
    assert!(versions["versions"]["1.0.0"]["deprecated"].is_null() && versions["dist-tags"]["beta"].is_null());
    server.finish().await;
}

async fn rev(caller: &Caller) -> String {
    let body = caller.get(&format!("{}?write=true", at("@alice/tool"))).send().await.json();
    body["_rev"].as_str().unwrap_or("1-x").to_owned()
}

#[tokio::test]
async fn au06_a_login_gives_no_more_than_it_was_given() {
    let (server, _) = hosting().await;
    let reader = server.token("alice", &["read:packages"]).await;
    let login = json!({ "_id": "org.couchdb.user:alice", "name": "alice", "password": reader.text, "type": "user", "roles": [] });
    let answer = server.caller().put("/npm/-/user/org.couchdb.user:alice", &login).send().await.expect(201).json();
    let text = answer["token"].as_str().unwrap().to_owned();
    server.secret(&text);
    let caller = Caller::new(&server.origin(), Some(&text));
    let published = publish(&caller, &Package::new("@alice/tool", "1.0.0")).await;
    assert!(matches!(published.status, 403 | 404), "{}", published.status);
    server.revoke(&reader).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(1);
    while caller.get("/npm/-/whoami").send().await.status != 401 {
        assert!(tokio::time::Instant::now() < end, "it outlives its parent");
    }
    server.finish().await;
}

#[tokio::test]
async fn au15_nobody_is_who_a_header_says() {
    let (server, _, _, _) = with_private().await;
    let ask = server.caller().get(&at("@alice/tool"));
    let ask = ask.header("x-forwarded-user", "alice").header("x-webauth-user", "alice").header("remote-user", "alice");
    ask.header("x-real-ip", "127.0.0.1").header("npm-session", "alice").send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn au16_a_token_in_an_address_is_neither_used_nor_logged() {
    let (server, alice, _, _) = with_private().await;
    for path in [format!("{}?token={}", at("@alice/tool"), alice.text), format!("{}?_authToken={}", at("@alice/tool"), alice.text)] {
        server.caller().get(&path).send().await.expect(404);
    }
    server.caller().get(&format!("/npm/-/user/token/{}", alice.text)).send().await;
    server.caller().get(&format!("/npm/{}", alice.text)).send().await;
    server.finish().await;
}

/// Two answers that nobody can tell apart: status, headers but the date, body.
#[track_caller]
pub(crate) fn same(what: &str, one: &Answer, two: &Answer) {
    let headers = |answer: &Answer| {
        let mut headers: Vec<(String, Vec<u8>)> = answer
            .headers
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        headers.sort();
        headers
    };
    assert_eq!(one.status, two.status, "{what}");
    assert_eq!(one.text(), two.text(), "{what}");
    assert_eq!(headers(one), headers(two), "{what}");
}

#[tokio::test]
async fn az02_a_private_package_looks_absent() {
    let (server, _, bob, package) = with_private().await;
    let nobody = Caller::new(&server.origin(), None);
    let reading = server.token("bob", &["read:packages"]).await;
    // A name of the same length, so that a length says nothing either.
    let hidden = |path: &str| path.replace("tool", "t00l");
    let paths = [
        at("@alice/tool"),
        "/npm/@alice/tool".into(),
        format!("{}?write=true", at("@alice/tool")),
        format!("{}/1.0.0", at("@alice/tool")),
        format!("{}/latest", at("@alice/tool")),
        format!("/npm{}", package.path()),
        "/npm/-/package/@alice%2ftool/dist-tags".into(),
        "/npm/-/package/@alice%2ftool/collaborators".into(),
        "/npm/-/package/@alice%2ftool/visibility".into(),
        "/npm/-/npm/v1/attestations/@alice%2ftool@1.0.0".into(),
        format!("/npm/download/@alice/tool/1.0.0/{}", crate::harness::shasum(&package.tarball)),
    ];
    for caller in [nobody, server.caller_with(&bob), server.caller_with(&reading)] {
        for path in &paths {
            for method in ["GET", "HEAD"] {
                let there = caller.ask(method, path).send().await;
                let absent = caller.ask(method, &hidden(path)).send().await;
                let there = Answer { body: there.text().replace("tool", "t00l").into_bytes(), ..there };
                same(&format!("{method} {path}"), &there, &absent);
                assert!(there.status >= 400, "{method} {path}: {}", there.status);
            }
        }
        let tag = caller.put("/npm/-/package/@alice%2ftool/dist-tags/x", &json!("1.0.0")).send().await;
        let absent = caller.put("/npm/-/package/@alice%2ft00l/dist-tags/x", &json!("1.0.0")).send().await;
        let tag = Answer { body: tag.text().replace("tool", "t00l").into_bytes(), ..tag };
        same("PUT dist-tag", &tag, &absent);
    }
    server.finish().await;
}

/// Asks for a hidden name and for one that nobody has; whoever comes first has the same fate.
async fn hidden_as_absent(what: &str, caller: &Caller, hidden_first: bool) {
    let there = [at("@alice/tool"), "/npm/@alice/tool/-/tool-1.0.0.tgz".into(), "/npm/@alice/tool/latest".into()];
    for path in there {
        let other = path.replace("tool", if hidden_first { "t00l" } else { "t11l" });
        let (hidden, absent) = if hidden_first {
            let hidden = caller.get(&path).send().await;
            (hidden, caller.get(&other).send().await)
        } else {
            let absent = caller.get(&other).send().await;
            (caller.get(&path).send().await, absent)
        };
        assert!(hidden.status >= 400, "{what}: {path} is {}", hidden.status);
        let hidden = Answer { body: hidden.text().replace("tool", "????").into_bytes(), ..hidden };
        let text = absent.text().replace("t00l", "????").replace("t11l", "????");
        same(&format!("{what}: {path}"), &hidden, &Answer { body: text.into_bytes(), ..absent });
    }
}

async fn offline(server: &mut Server) {
    assert!(server.stop().await.success());
    let text = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), text.replace("[upstream]\n", "[upstream]\noffline = true\n")).unwrap();
    server.start_again().await;
}

#[tokio::test]
async fn az02_a_private_package_looks_absent_whatever_the_upstream_does() {
    let engine = "retries = 0\nconnect_seconds = 2\nnegative_seconds = 1\nbreaker_failures = 1000";
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    for hidden_first in [true, false] {
        let mut server = Setup::default().upstream(&upstream).engine(engine).start().await;
        let (alice, bob) = (server.publisher("alice").await, server.publisher("bob").await);
        assert!(publish(&server.caller_with(&alice), &Package::new("@alice/tool", "1.0.0")).await.status < 300);
        for caller in [server.caller(), server.caller_with(&bob)] {
            hidden_as_absent("up", &caller, hidden_first).await;
        }
        for fault in [Fault::Status(500), Fault::Portal, Fault::Status(429), Fault::Empty, Fault::Status(403)] {
            // What is remembered of either runs out.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            upstream.everywhere(Some(fault.clone()));
            hidden_as_absent(&format!("{fault:?}"), &server.caller(), hidden_first).await;
            upstream.everywhere(None);
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        upstream.stop();
        for caller in [server.caller(), server.caller_with(&bob)] {
            hidden_as_absent("down", &caller, hidden_first).await;
        }
        // Offline, also for names that were asked for before.
        offline(&mut server).await;
        hidden_as_absent("offline", &server.caller(), hidden_first).await;
        server.finish().await;
        upstream.start_again();
    }
    // An upstream that is left alone for a while.
    let server =
        Setup::default().upstream(&upstream).engine("retries = 0\nbreaker_failures = 1\nbreaker_pause_seconds = 100").start().await;
    let alice = server.publisher("alice").await;
    assert!(publish(&server.caller_with(&alice), &Package::new("@alice/tool", "1.0.0")).await.status < 300);
    upstream.stop();
    server.caller().get(&at("any")).send().await.expect(502);
    hidden_as_absent("left alone", &server.caller(), true).await;
    server.finish().await;
    // A name's first publish asks whether the upstream has it; nothing asks after that.
    assert_eq!(upstream.count("/@alice/tool"), 3, "a hidden name was sent out");
}

#[tokio::test]
async fn ca06_a_shared_cache_keeps_nothing_that_needs_a_token() {
    let dep = Package::with("dep", "1.0.0", json!({}), 3000);
    let upstream = Upstream::with(std::slice::from_ref(&dep));
    let server = Setup::default().upstream(&upstream).more("[access]\nanonymous_proxy = false").start().await;
    let alice = server.publisher("alice").await;
    let caller = server.caller_with(&alice);
    assert!(publish(&caller, &Package::new("@alice/tool", "1.0.0")).await.status < 300);
    let paths = [
        at("@alice/tool"),
        "/npm/@alice/tool/1.0.0".into(),
        "/npm/@alice/tool/-/tool-1.0.0.tgz".into(),
        "/npm/-/package/@alice%2ftool/dist-tags".into(),
        "/npm/-/package/@alice%2ftool/collaborators".into(),
        "/npm/-/package/@alice%2ftool/visibility".into(),
        at("dep"),
        "/npm/dep/latest".into(),
        format!("/npm{}", dep.path()),
        "/npm/-/package/dep/dist-tags".into(),
        "/npm/-/whoami".into(),
        "/npm/-/npm/v1/user".into(),
        "/npm/-/v1/search?text=tool".into(),
        "/npm/@alice/none".into(),
    ];
    for path in paths {
        let nobody = server.caller().get(&path).send().await;
        let stored = nobody.header("cache-control");
        assert!(stored.contains("no-store") || stored.contains("private"), "{path}, refused: {stored:?}");
        let answer = caller.get(&path).send().await;
        let stored = answer.header("cache-control");
        // RFC 9111, section 3.5: what answers a token is kept only if `public`, `s-maxage` or `must-revalidate` says so.
        assert!(stored.contains("no-store") || stored.contains("private"), "{path}: {stored:?}");
        assert!(!["public", "s-maxage", "must-revalidate"].iter().any(|word| stored.contains(word)), "{path}: {stored:?}");
    }
    server.finish().await;
}

#[tokio::test]
async fn az03_no_list_names_a_private_package() {
    let (server, _, bob, _) = with_private().await;
    for caller in [server.caller(), server.caller_with(&bob)] {
        for path in [
            "/npm/-/v1/search?text=tool",
            "/npm/-/v1/search?text=",
            "/npm/-/v1/search?text=scope:alice",
            "/npm/-/all",
            "/-/metrics",
            "/-/health",
            "/-/ready",
            "/",
            "/npm/",
            "/npm/-/user/alice/package",
            "/npm/-/org/alice/package",
            "/npm/-/_view/starredByUser?key=%22alice%22",
        ] {
            let text = caller.get(path).send().await.text();
            assert!(!text.contains("alice/tool") && !text.contains("alice%2ftool"), "{path}");
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn az04_ca07_a_right_that_is_taken_is_gone_within_a_second() {
    let (server, alice) = hosting().await;
    let bob = server.publisher("bob").await;
    server.cli(&["org", "add", "acme", "--owner", "alice"]).await;
    server.cli(&["org", "add-member", "acme", "bob"]).await;
    server.cli(&["repo", "add", "acme/app", "--visibility", "internal"]).await;
    let package = Package::with(
        "@acme/tool",
        "1.0.0",
        json!({ "repository": { "type": "git", "url": "git+https://example.test/acme/app.git" } }),
        100,
    );
    assert!(publish(&server.caller_with(&alice), &package).await.status < 300);
    server.cli(&["package", "visibility", "npm", "@acme/tool", "public"]).await;
    for caller in [server.caller(), server.caller_with(&bob)] {
        caller.get(&at("@acme/tool")).send().await.expect(200);
        caller.get(&format!("/npm{}", package.path())).send().await.expect(200);
    }
    server.cli(&["package", "visibility", "npm", "@acme/tool", "private"]).await;
    let changed = tokio::time::Instant::now();
    let nobody = server.caller();
    for path in [at("@acme/tool"), format!("/npm{}", package.path())] {
        while nobody.get(&path).send().await.status == 200 {
            assert!(changed.elapsed() < Duration::from_secs(1), "{path} is still public");
        }
    }
    server.caller_with(&alice).get(&at("@acme/tool")).send().await.expect(200);
    server.finish().await;
}

#[tokio::test]
async fn ca01_what_one_reads_another_does_not() {
    let (server, alice, bob, package) = with_private().await;
    for _ in 0..3 {
        let own = server.caller_with(&alice);
        let document = own.get(&at("@alice/tool")).send().await.expect(200);
        let file = own.get(&format!("/npm{}", package.path())).send().await.expect(200);
        for answer in [&document, &file] {
            let cache = answer.header("cache-control");
            assert!(cache.contains("private") || cache.contains("no-store"), "CA06: a shared cache would keep it: {cache}");
        }
        for other in [server.caller(), server.caller_with(&bob)] {
            other.get(&at("@alice/tool")).send().await.expect(404);
            other.get(&format!("/npm{}", package.path())).send().await.expect(404);
            let ask = other.get(&at("@alice/tool")).header("if-none-match", document.header("etag"));
            ask.send().await.expect(404);
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn az10_strangers_change_nothing() {
    let (server, alice, bob, _) = with_private().await;
    make_public(&server).await;
    let owner = server.caller_with(&alice);
    let before = owner.packument("@alice/tool").await;
    let rev = rev(&owner).await;
    let stranger = server.caller_with(&bob);
    let mut deprecated = before.clone();
    deprecated["versions"]["1.0.0"]["deprecated"] = json!("no");
    let mut emptied = before.clone();
    emptied["versions"] = json!({});
    let owners = json!({ "_id": "@alice/tool", "_rev": rev, "maintainers": [{ "name": "bob", "email": "b@example.test" }] });
    let with_rev = format!("{}/-rev/{rev}", at("@alice/tool"));
    for (who, caller) in [("a stranger", &stranger), ("nobody", &server.caller())] {
        for (what, answer) in [
            ("publish", publish(caller, &Package::new("@alice/tool", "2.0.0")).await),
            ("first publish", publish(caller, &Package::new("@alice/fresh", "1.0.0")).await),
            ("deprecate", caller.put(&at("@alice/tool"), &deprecated).send().await),
            ("unpublish", caller.put(&with_rev, &emptied).send().await),
            ("owners", caller.put(&with_rev, &owners).send().await),
            ("delete", caller.ask("DELETE", &with_rev).send().await),
            ("tag", caller.put("/npm/-/package/@alice%2ftool/dist-tags/x", &json!("1.0.0")).send().await),
            ("untag", caller.ask("DELETE", "/npm/-/package/@alice%2ftool/dist-tags/latest").send().await),
        ] {
            assert!(matches!(answer.status, 401 | 403 | 404), "{who}, {what}: {}", answer.status);
        }
    }
    assert_eq!(owner.packument("@alice/tool").await, before);
    server.finish().await;
}

#[tokio::test]
async fn ht21_ht22_no_other_spelling_or_method_is_a_way_in() {
    let (server, _, bob, package) = with_private().await;
    let caller = server.caller_with(&bob);
    let spellings = [
        "/npm//@alice/tool",
        "/npm/@alice/tool/",
        "/npm/@alice//tool",
        "/NPM/@alice/tool",
        "/npm/@Alice/tool",
        "/npm/@alice/tool;x=1",
        "/npm/@alice%2ftool%2f",
        "/npm/%2f@alice%2ftool",
        "/_registry/npm/@alice%2ftool",
        "/_registry//npm/@alice/tool",
        "/npm/x/%2e%2e/@alice/tool",
        "/npm/@bob/%2e%2e%2f@alice%2ftool",
        "/npm/@alice%2ftool%20",
        "/npm/@alice%2ftool%00",
        "/npm/@alice%252ftool",
    ];
    for path in spellings {
        let answer = caller.get(path).send().await;
        assert!(answer.status >= 400 && answer.status < 500, "{path}: {}", answer.status);
        assert!(!answer.text().contains("1.0.0"), "{path}");
    }
    for method in ["HEAD", "OPTIONS", "POST", "PATCH", "TRACE", "PROPFIND", "QUERY"] {
        let answer = caller.ask(method, &format!("/npm{}", package.path())).send().await;
        assert!((400..500).contains(&answer.status), "{method}: {}", answer.status);
        let ask = caller.ask("POST", &at("@alice/tool")).header("x-http-method-override", "DELETE").header("x-method-override", "GET");
        assert!((400..500).contains(&ask.send().await.status));
    }
    server.finish().await;
}

#[tokio::test]
async fn every_place_for_a_token_is_understood() {
    let (server, alice, _, _) = with_private().await;
    let values = [
        format!("Bearer {}", alice.text),
        format!("bearer {}", alice.text),
        format!("token {}", alice.text),
        format!("Basic {}", base64_of(&format!("alice:{}", alice.text))),
        format!("Basic {}", base64_of(&format!("{}:", alice.text))),
    ];
    for value in values {
        let answer = server.caller().get(&at("@alice/tool")).header("authorization", &value).send().await;
        assert_eq!(answer.status, 200, "{}", value.split(' ').next().unwrap());
    }
    let other = format!("Basic {}", base64_of(&format!("bob:{}", alice.text)));
    let answer = server.caller().get("/npm/-/whoami").header("authorization", &other).send().await;
    assert!(answer.status == 401 || answer.json()["username"] == "alice", "never bob: {}", answer.text());
    server.finish().await;
}

#[tokio::test]
async fn one_bad_login_after_another_ends_in_a_wait() {
    let server = Setup::default().start().await;
    server.user("alice").await;
    let login = |n: usize| json!({ "_id": "org.couchdb.user:alice", "name": "alice", "password": format!("guess-{n}"), "type": "user" });
    for n in 0..50 {
        let answer = server.caller().put("/npm/-/user/org.couchdb.user:alice", &login(n)).send().await;
        assert!(matches!(answer.status, 401 | 429), "AU14: {}", answer.status);
    }
    assert_eq!(server.caller().get("/-/health").send().await.status, 200, "others are served");
    server.finish().await;
}
