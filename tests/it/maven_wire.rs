//! A Maven repository over the wire: deploying file by file, metadata, checksums, refusals, rights, and an upstream.

use serde_json::{Value, json};

use crate::harness::{Answer, Caller, Fault, Server, Setup, Token, Upstream};
use crate::rest::check;

/// A POM of these coordinates, with more elements.
pub(crate) fn pom(group: &str, artifact: &str, version: &str, more: &str) -> String {
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
         <version>{version}</version>{more}</project>"
    )
}

fn hex(digest: &dyn Fn(&mut Vec<u8>)) -> String {
    let mut bytes = Vec::new();
    digest(&mut bytes);
    hex::encode(bytes)
}

fn sha1(bytes: &[u8]) -> String {
    use sha1::Digest as _;
    hex(&|out| out.extend_from_slice(&sha1::Sha1::digest(bytes)))
}

/// The organisation `acme` with its owner `ann` and the private repository `web`.
pub(crate) async fn hosting(setup: Setup) -> (Server, Token) {
    let server = setup.start().await;
    server.user("ann").await;
    server.cli(&["org", "add", "acme", "--owner", "ann"]).await;
    server.cli(&["repo", "add", "acme/web"]).await;
    let scopes = ["read:packages", "write:packages", "delete:packages", "repo", "admin:org"];
    let token = server.token("ann", &scopes).await;
    (server, token)
}

const TREE: &str = "/maven/acme/web";

async fn put(caller: &Caller, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    caller.ask("PUT", path).body(body).send().await
}

/// Puts jar and POM of a version.
async fn deploy(caller: &Caller, tree: &str, version: &str) {
    let folder = format!("{tree}/com/acme/tool/{version}");
    put(caller, &format!("{folder}/tool-{version}.jar"), format!("jar of {version}")).await.expect(201);
    put(caller, &format!("{folder}/tool-{version}.pom"), pom("com.acme", "tool", version, "")).await.expect(201);
}

async fn versions(caller: &Caller) -> String {
    caller.get(&format!("{TREE}/com/acme/tool/maven-metadata.xml")).send().await.expect(200).text()
}

#[tokio::test]
async fn a_version_appears_with_its_pom_and_not_before() {
    let (mut server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let folder = format!("{TREE}/com/acme/tool/1.0");
    let jar = format!("{folder}/tool-1.0.jar");
    put(&ann, &jar, "the jar").await.expect(201);
    put(&ann, &format!("{folder}/tool-1.0-sources.jar"), "the sources").await.expect(201);
    for path in [&jar, &format!("{TREE}/com/acme/tool/maven-metadata.xml")] {
        ann.get(path).send().await.expect(404);
    }
    check(&ann, "GET /orgs/acme/packages/maven/com.acme.tool", 404).await;
    // What the client was told has arrived outlives a crash and a sweep.
    server.kill().await;
    server.start_again().await;
    server.cli(&["gc"]).await;
    let ann = server.caller_with(&token);
    let more = "<name>Tool</name><description>A tool</description><licenses><license><name>MIT</name></license></licenses>";
    put(&ann, &format!("{folder}/tool-1.0.pom"), pom("com.acme", "tool", "1.0", more)).await.expect(201);
    assert_eq!(ann.get(&jar).send().await.expect(200).text(), "the jar");
    assert_eq!(ann.get(&format!("{folder}/tool-1.0-sources.jar")).send().await.expect(200).text(), "the sources");
    assert!(versions(&ann).await.contains("<release>1.0</release>"));

    let package = check(&ann, "GET /orgs/acme/packages/maven/com.acme.tool", 200).await;
    assert_eq!((&package["version_count"], &package["visibility"]), (&json!(1), &json!("private")));
    assert_eq!(package["repository"]["full_name"], "acme/web");
    let listed = check(&ann, "GET /orgs/acme/packages/maven/com.acme.tool/versions", 200).await;
    assert_eq!((&listed[0]["name"], &listed[0]["description"], &listed[0]["license"]), (&json!("1.0"), &json!("A tool"), &json!("MIT")));
    // What comes after the POM is there at once.
    put(&ann, &format!("{folder}/tool-1.0-javadoc.jar"), "words").await.expect(201);
    assert_eq!(ann.get(&format!("{folder}/tool-1.0-javadoc.jar")).send().await.expect(200).text(), "words");
    server.finish().await;
}

#[tokio::test]
async fn checksums_are_made_from_the_bytes_and_claims_are_compared() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let folder = format!("{TREE}/com/acme/tool/1.0");
    let jar = format!("{folder}/tool-1.0.jar");
    // Before the file: right for the sources, wrong for the jar.
    put(&ann, &format!("{folder}/tool-1.0-sources.jar.sha1"), sha1(b"sources")).await.expect(201);
    put(&ann, &format!("{folder}/tool-1.0-sources.jar"), "sources").await.expect(201);
    put(&ann, &format!("{jar}.sha1"), sha1(b"other")).await.expect(201);
    put(&ann, &jar, "jar").await.expect(422);
    put(&ann, &jar, "jar").await.expect(201);
    // After it.
    put(&ann, &format!("{jar}.sha1"), format!("{}  tool-1.0.jar\n", sha1(b"jar").to_uppercase())).await.expect(201);
    put(&ann, &format!("{jar}.sha1"), sha1(b"other")).await.expect(422);
    put(&ann, &format!("{jar}.md5"), "nonsense").await.expect(400);
    put(&ann, &format!("{folder}/tool-1.0.pom"), pom("com.acme", "tool", "1.0", "")).await.expect(201);
    assert_eq!(ann.get(&format!("{jar}.sha1")).send().await.expect(200).text(), sha1(b"jar"));
    for (kind, length) in [("md5", 32), ("sha256", 64), ("sha512", 128)] {
        assert_eq!(ann.get(&format!("{jar}.{kind}")).send().await.expect(200).text().len(), length);
    }
    let got = ann.get(&jar).send().await.expect(200);
    assert_eq!(got.header("x-checksum-sha1"), sha1(b"jar"));
    assert_eq!(got.header("content-type"), "application/java-archive");
    let head = ann.ask("HEAD", &jar).send().await.expect(200);
    for name in ["x-checksum-sha1", "content-length", "etag", "content-type", "cache-control"] {
        assert_eq!(head.header(name), got.header(name), "{name}");
    }
    ann.get(&jar).header("if-none-match", got.header("etag")).send().await.expect(304);
    assert_eq!(ann.get(&jar).header("range", "bytes=1-").send().await.expect(206).text(), "ar");
    let metadata = versions(&ann).await;
    let sum = ann.get(&format!("{TREE}/com/acme/tool/maven-metadata.xml.sha1")).send().await.expect(200).text();
    assert_eq!(sum, sha1(metadata.as_bytes()));
    server.finish().await;
}

#[tokio::test]
async fn releases_do_not_change_and_the_same_bytes_may_come_twice() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    deploy(&ann, TREE, "1.0").await;
    let folder = format!("{TREE}/com/acme/tool/1.0");
    put(&ann, &format!("{folder}/tool-1.0.jar"), "jar of 1.0").await.expect(200);
    let refused = put(&ann, &format!("{folder}/tool-1.0.jar"), "another").await.expect(409);
    assert!(refused.text().contains("already"), "{}", refused.text());
    put(&ann, &format!("{folder}/tool-1.0.pom"), pom("com.acme", "tool", "1.0", "<name>x</name>")).await.expect(409);
    for signature in ["one", "two"] {
        assert!(put(&ann, &format!("{folder}/tool-1.0.jar.asc"), signature).await.status < 300);
        assert_eq!(ann.get(&format!("{folder}/tool-1.0.jar.asc")).send().await.expect(200).text(), signature);
    }
    assert_eq!(ann.get(&format!("{folder}/tool-1.0.jar")).send().await.expect(200).text(), "jar of 1.0");
    server.finish().await;
}

#[tokio::test]
async fn a_clients_metadata_drops_no_version() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    for version in ["1.10", "1.9", "2.0-SNAPSHOT"] {
        deploy(&ann, TREE, version).await;
    }
    let stale = "<metadata><versioning><versions><version>7.7</version></versions></versioning></metadata>";
    put(&ann, &format!("{TREE}/com/acme/tool/maven-metadata.xml"), stale).await.expect(201);
    put(&ann, &format!("{TREE}/com/acme/tool/maven-metadata.xml.sha1"), sha1(stale.as_bytes())).await.expect(201);
    let now = versions(&ann).await;
    let listed: Vec<&str> = now.match_indices("<version>").map(|(at, tag)| now[at + tag.len()..].split('<').next().unwrap()).collect();
    assert_eq!(listed, ["1.9", "1.10", "2.0-SNAPSHOT"]);
    assert!(now.contains("<latest>2.0-SNAPSHOT</latest>") && now.contains("<release>1.10</release>"), "{now}");
    for wrong in ["<html/>", "nonsense", "<!DOCTYPE m [<!ENTITY a 'b'>]><metadata/>"] {
        put(&ann, &format!("{TREE}/com/acme/tool/maven-metadata.xml"), wrong).await.expect(400);
    }
    // Who deploys no POM says with the metadata that the version is whole.
    put(&ann, &format!("{TREE}/com/acme/tool/3.0/tool-3.0.zip"), "no pom").await.expect(201);
    ann.get(&format!("{TREE}/com/acme/tool/3.0/tool-3.0.zip")).send().await.expect(404);
    let whole = "<metadata><versioning><versions><version>3.0</version></versions></versioning></metadata>";
    put(&ann, &format!("{TREE}/com/acme/tool/maven-metadata.xml"), whole).await.expect(201);
    assert_eq!(ann.get(&format!("{TREE}/com/acme/tool/3.0/tool-3.0.zip")).send().await.expect(200).text(), "no pom");
    assert!(versions(&ann).await.contains("<version>3.0</version>"));
    server.finish().await;
}

#[tokio::test]
async fn builds_of_a_snapshot_are_listed_and_the_oldest_go() {
    let (server, token) = hosting(Setup::default().registry("builds_per_version = 2")).await;
    let ann = server.caller_with(&token);
    let folder = format!("{TREE}/com/acme/tool/1.0-SNAPSHOT");
    for number in 1..=3 {
        let build = format!("tool-1.0-2026112{number}.081502-{number}");
        put(&ann, &format!("{folder}/{build}.jar"), format!("jar {number}")).await.expect(201);
        let pom = pom("com.acme", "tool", "1.0-SNAPSHOT", "");
        put(&ann, &format!("{folder}/{build}.pom"), pom).await.expect(201);
        if number == 2 {
            put(&ann, &format!("{folder}/{build}-sources.jar"), "sources").await.expect(201);
        }
    }
    let metadata = ann.get(&format!("{folder}/maven-metadata.xml")).send().await.expect(200).text();
    assert!(metadata.contains("<buildNumber>3</buildNumber>") && metadata.contains("<timestamp>20261123.081502</timestamp>"), "{metadata}");
    assert!(metadata.contains("<value>1.0-20261122.081502-2</value>"), "the sources are of build 2: {metadata}");
    ann.get(&format!("{folder}/tool-1.0-20261121.081502-1.jar")).send().await.expect(404);
    assert_eq!(ann.get(&format!("{folder}/tool-1.0-20261123.081502-3.jar")).send().await.expect(200).text(), "jar 3");
    // Deleted, a snapshot begins anew, as a release does not.
    let path = "/orgs/acme/packages/maven/com.acme.tool";
    deploy(&ann, TREE, "2.0").await;
    for (version, status) in [("1.0-SNAPSHOT", 201), ("2.0", 409)] {
        let listed = check(&ann, &format!("GET {path}/versions"), 200).await;
        let found = listed.as_array().unwrap().iter().find(|one| one["name"] == version).unwrap().clone();
        check(&ann, &format!("DELETE {path}/versions/{}", found["id"]), 204).await;
        let name = format!("{TREE}/com/acme/tool/{version}/tool-{}", version.replace("SNAPSHOT", "20261123.081502-3"));
        ann.get(&format!("{name}.jar")).send().await.expect(404);
        put(&ann, &format!("{name}.jar"), "jar 3").await.expect(status);
        put(&ann, &format!("{name}.pom"), pom("com.acme", "tool", version, "")).await.expect(status);
    }
    assert_eq!(ann.get(&format!("{folder}/tool-1.0-20261123.081502-3.jar")).send().await.expect(200).text(), "jar 3");
    ann.get(&format!("{folder}/tool-1.0-20261122.081502-2.jar")).send().await.expect(404);
    // A build's files are immutable, files without a build in their name are not.
    put(&ann, &format!("{folder}/tool-1.0-20261123.081502-3.jar"), "other").await.expect(409);
    for text in ["one", "two"] {
        assert!(put(&ann, &format!("{folder}/tool-1.0-SNAPSHOT.pom"), pom("com.acme", "tool", "1.0-SNAPSHOT", text)).await.status < 300);
    }
    let last = ann.get(&format!("{folder}/tool-1.0-SNAPSHOT.pom")).send().await.expect(200);
    assert!(last.text().contains("two") && last.header("cache-control").contains("no-cache"));
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_file_of_a_repository_is_refused() {
    let (server, token) = hosting(Setup::default().registry("file_limit_bytes = 1000")).await;
    let ann = server.caller_with(&token);
    for (path, status) in [
        ("com/acme/tool/1.0/other-1.0.jar", 400),
        ("com/acme/tool/1.0/tool-2.0.jar", 400),
        ("com/acme/tool/1.0", 400),
        ("tool.jar", 400),
        ("com/../x/1/x-1.jar", 400),
        ("com/acme/tool/1.0/%2e%2e%2fx.jar", 400),
        ("com/acme/${x}/1.0/x-1.0.jar", 400),
        ("com/acme/tool/1.0/tool-1.0.jar", 413),
    ] {
        let answer = put(&ann, &format!("{TREE}/{path}"), vec![b'x'; 1001]).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.header("content-type").starts_with("text/plain"), "{path}");
    }
    let folder = format!("{TREE}/com/acme/tool/1.0");
    for wrong in [pom("com.acme", "other", "1.0", ""), pom("org.evil", "tool", "1.0", ""), pom("com.acme", "tool", "2.0", ""), "<a>".into()]
    {
        put(&ann, &format!("{folder}/tool-1.0.pom"), wrong).await.expect(422);
    }
    put(&ann, &format!("{folder}/tool-1.0.pom"), pom("com.acme", "tool", "${revision}", "")).await.expect(201);
    for method in ["DELETE", "POST", "PROPFIND", "MKCOL"] {
        assert_eq!(ann.ask(method, &folder).send().await.expect(405).header("allow"), "GET, HEAD, PUT");
    }
    for absent in ["", "com/", "com/acme/tool/", ".meta/prefixes.txt", "archetype-catalog.xml", "com/acme/tool/1.0/"] {
        ann.get(&format!("{TREE}/{absent}")).send().await.expect(404);
    }
    server.finish().await;
}

#[tokio::test]
async fn rights_are_the_repositorys() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    deploy(&ann, TREE, "1.0").await;
    let stranger = server.publisher("bob").await;
    let bob = server.caller_with(&stranger);
    let anyone = server.caller();
    let jar = format!("{TREE}/com/acme/tool/1.0/tool-1.0.jar");
    let metadata = format!("{TREE}/com/acme/tool/maven-metadata.xml");
    for (there, absent) in [
        (jar.clone(), format!("{TREE}/com/acme/none/1.0/none-1.0.jar")),
        (metadata.clone(), format!("{TREE}/com/acme/none/maven-metadata.xml")),
        (format!("{jar}.sha1"), format!("{TREE}/com/acme/none/1.0/none-1.0.jar.sha1")),
    ] {
        for caller in [&anyone, &bob] {
            let (one, two) = (caller.get(&there).send().await, caller.get(&absent).send().await);
            assert_eq!((one.status, one.body.len(), one.headers.len()), (two.status, two.body.len(), two.headers.len()), "{there}");
        }
        let asked = anyone.get(&there).send().await.expect(401);
        assert!(asked.header("www-authenticate").starts_with("Basic realm="), "a client comes back with its password");
        bob.get(&there).send().await.expect(404);
    }
    put(&anyone, &jar, "x").await.expect(401);
    let (existing, fresh) = (put(&bob, &jar, "x").await.expect(403), put(&bob, &jar.replace("tool", "fresh"), "x").await.expect(403));
    assert_eq!(existing.text().replace("tool", "fresh"), fresh.text());
    put(&ann, "/maven/acme/none/com/acme/x/1/x-1.pom", pom("com.acme", "x", "1", "")).await.expect(403);
    // The package has no settings of its own.
    let path = "/orgs/acme/packages/maven/com.acme.tool";
    let answer = crate::rest::ask(&ann, &format!("PATCH {path}"), Some(&json!({ "visibility": "public" }))).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    // The repository's are the package's.
    server.cli(&["repo", "visibility", "acme/web", "public"]).await;
    assert_eq!(anyone.get(&jar).send().await.expect(200).text(), "jar of 1.0");
    assert_eq!(check(&ann, &format!("GET {path}"), 200).await["visibility"], Value::from("public"));
    // Of a public package it may be said that a file is not there.
    anyone.get(&jar.replace("1.0", "9.0")).send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn names_are_found_in_the_tree_of_all_and_in_their_owners() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    deploy(&ann, TREE, "1.0").await;
    // Another owner's artifact of the same name is found in that owner's tree alone.
    let other = server.publisher("bob").await;
    let bob = server.caller_with(&other);
    deploy(&bob, "/maven/bob/*", "2.0").await;
    let root = "/maven/com/acme/tool";
    assert!(ann.get(&format!("{root}/maven-metadata.xml")).send().await.expect(200).text().contains("<release>1.0</release>"));
    bob.get(&format!("{root}/maven-metadata.xml")).send().await.expect(404);
    assert_eq!(ann.get("/maven/acme/*/com/acme/tool/1.0/tool-1.0.jar").send().await.expect(200).text(), "jar of 1.0");
    assert_eq!(bob.get("/maven/bob/*/com/acme/tool/2.0/tool-2.0.jar").send().await.expect(200).text(), "jar of 2.0");
    bob.get("/maven/bob/*/com/acme/tool/1.0/tool-1.0.jar").send().await.expect(404);
    ann.get("/maven/com/acme/tool/2.0/tool-2.0.jar").send().await.expect(404);
    // An account is not in front of the groups that begin like it.
    server.user("org").await;
    let token = server.token("org", &["read:packages", "write:packages", "repo"]).await;
    let org = server.caller_with(&token);
    put(&org, "/maven/org/acme/x/1/x-1.pom", pom("org.acme", "x", "1", "")).await.expect(201);
    org.get("/maven/org/acme/x/1/x-1.pom").send().await.expect(200);
    server.finish().await;
}

#[tokio::test]
async fn plugins_of_a_group_are_found_by_their_prefix() {
    use std::io::{Cursor, Write as _};
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let mut jar = zip::ZipWriter::new(Cursor::new(Vec::new()));
    jar.start_file("META-INF/maven/plugin.xml", zip::write::SimpleFileOptions::default()).unwrap();
    jar.write_all(b"<plugin><name>Greeter</name><goalPrefix>greet</goalPrefix></plugin>").unwrap();
    let jar = jar.finish().unwrap().into_inner();
    let folder = format!("{TREE}/com/acme/greet-maven-plugin/1.0/greet-maven-plugin-1.0");
    put(&ann, &format!("{folder}.jar"), jar).await.expect(201);
    put(&ann, &format!("{folder}.pom"), pom("com.acme", "greet-maven-plugin", "1.0", "<packaging>maven-plugin</packaging>"))
        .await
        .expect(201);
    let sent = "<metadata><plugins><plugin><name>x</name><prefix>x</prefix><artifactId>x</artifactId></plugin></plugins></metadata>";
    put(&ann, &format!("{TREE}/com/acme/maven-metadata.xml"), sent).await.expect(201);
    let metadata = ann.get(&format!("{TREE}/com/acme/maven-metadata.xml")).send().await.expect(200).text();
    assert!(metadata.contains("<prefix>greet</prefix>") && metadata.contains("<name>Greeter</name>"), "{metadata}");
    assert!(!metadata.contains("<prefix>x</prefix>"), "{metadata}");
    server.caller().get(&format!("{TREE}/com/acme/maven-metadata.xml")).send().await.expect(401);
    server.finish().await;
}

#[tokio::test]
async fn deploys_at_once_lose_nothing() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let versions_of = (0..12).map(|number| format!("1.{number}")).collect::<Vec<_>>();
    futures_util::future::join_all(versions_of.iter().map(|version| deploy(&ann, TREE, version))).await;
    let builds = (0..12).map(|number| {
        let ann = ann.clone();
        async move {
            let name = format!("{TREE}/com/acme/tool/9.0-SNAPSHOT/tool-9.0-20261120.0815{number:02}-1");
            let parts = [("jar", format!("jar {number}")), ("pom", pom("com.acme", "tool", "9.0-SNAPSHOT", ""))];
            // The order of a parallel client is any.
            let sent = parts.into_iter().map(|(kind, body)| {
                let (ann, path) = (ann.clone(), format!("{name}.{kind}"));
                async move { put(&ann, &path, body).await.expect(201) }
            });
            futures_util::future::join_all(sent).await;
        }
    });
    futures_util::future::join_all(builds).await;
    let listed = versions(&ann).await;
    assert!(versions_of.iter().all(|version| listed.contains(&format!("<version>{version}</version>"))), "{listed}");
    for number in 0..12 {
        let path = format!("{TREE}/com/acme/tool/9.0-SNAPSHOT/tool-9.0-20261120.0815{number:02}-1.jar");
        assert_eq!(ann.get(&path).send().await.expect(200).text(), format!("jar {number}"));
    }
    server.finish().await;
}

fn upstream() -> Upstream {
    let upstream = Upstream::start();
    let folder = "/org/example/lib";
    let metadata = "<metadata><groupId>org.example</groupId><artifactId>lib</artifactId><versioning><release>1.0</release>\
        <versions><version>1.0</version></versions></versioning></metadata>";
    upstream.file(&format!("{folder}/maven-metadata.xml"), "text/xml", metadata);
    for (file, bytes) in [("lib-1.0.jar", &b"upstream jar"[..]), ("lib-1.0.pom", b"<project/>")] {
        upstream.file(&format!("{folder}/1.0/{file}"), "application/octet-stream", bytes);
        upstream.file(&format!("{folder}/1.0/{file}.sha1"), "text/plain", format!("{}  {file}", sha1(bytes)));
    }
    upstream
}

#[tokio::test]
async fn an_upstreams_files_are_checked_kept_and_served_without_it() {
    let upstream = upstream();
    let server = Setup::default().upstream_of("maven", "fake", &upstream.url(), "").start().await;
    let anyone = server.caller();
    let folder = "/maven/org/example/lib";
    let jar = format!("{folder}/1.0/lib-1.0.jar");
    assert_eq!(anyone.get(&jar).send().await.expect(200).text(), "upstream jar");
    assert_eq!(anyone.get(&format!("{jar}.sha1")).send().await.expect(200).text(), sha1(b"upstream jar"));
    anyone.get(&format!("{jar}.sha512")).send().await.expect(404);
    let metadata = anyone.get(&format!("{folder}/maven-metadata.xml")).send().await.expect(200);
    assert_eq!(anyone.get(&format!("{folder}/maven-metadata.xml.sha1")).send().await.expect(200).text(), sha1(&metadata.body));
    // What is not there is asked for once in a while, not each time.
    for _ in 0..3 {
        anyone.get(&format!("{folder}/1.0/lib-1.0-sources.jar")).send().await.expect(404);
    }
    assert_eq!(upstream.count("/org/example/lib/1.0/lib-1.0-sources.jar"), 1);
    upstream.stop();
    let again = anyone.get(&jar).send().await.expect(200);
    assert_eq!((again.text().as_str(), again.verdict().contains("hit")), ("upstream jar", true));
    assert_eq!(anyone.get(&format!("{folder}/maven-metadata.xml")).send().await.expect(200).body, metadata.body);
    server.finish().await;
}

#[tokio::test]
async fn a_file_that_is_not_what_its_checksum_says_is_not_kept() {
    let upstream = upstream();
    upstream.file("/org/example/lib/1.0/lib-1.0.jar.sha1", "text/plain", sha1(b"something else"));
    let server = Setup::default().upstream_of("maven", "fake", &upstream.url(), "").start().await;
    let jar = "/maven/org/example/lib/1.0/lib-1.0.jar";
    server.caller().get(jar).send().await.expect(502);
    upstream.file("/org/example/lib/1.0/lib-1.0.jar.sha1", "text/plain", "<html>no checksum</html>");
    server.caller().get(jar).send().await.expect(502);
    server.finish().await;
}

#[tokio::test]
async fn an_upstream_that_fails_is_not_an_upstream_that_has_nothing() {
    let upstream = upstream();
    let server = Setup::default().upstream_of("maven", "fake", &upstream.url(), "").engine("retries = 0").start().await;
    let anyone = server.caller();
    upstream.always("/org/example/lib/1.0/lib-1.0.jar", Fault::Status(500));
    let failed = anyone.get("/maven/org/example/lib/1.0/lib-1.0.jar").send().await;
    assert!([502, 503].contains(&failed.status), "{}", failed.status);
    server.finish().await;
}

#[tokio::test]
async fn a_hosted_name_is_not_asked_for_upstream() {
    let upstream = upstream();
    let (server, token) = hosting(Setup::default().upstream_of("maven", "fake", &upstream.url(), "")).await;
    let ann = server.caller_with(&token);
    deploy(&ann, TREE, "1.0").await;
    upstream.forget();
    for path in [format!("{TREE}/com/acme/tool/2.0/tool-2.0.jar"), "/maven/com/acme/tool/2.0/tool-2.0.jar".to_owned()] {
        ann.get(&path).send().await.expect(404);
    }
    ann.get("/maven/acme/*/com/acme/tool/maven-metadata.xml").send().await.expect(200);
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    // An upstream's name is not taken in front of everybody, but may be in an owner's own tree.
    let taken = "org/example/lib/9.0/lib-9.0.pom";
    put(&ann, &format!("/maven/{taken}"), pom("org.example", "lib", "9.0", "")).await.expect(409);
    put(&ann, &format!("{TREE}/{taken}"), pom("org.example", "lib", "9.0", "")).await.expect(201);
    ann.get(&format!("{TREE}/{taken}")).send().await.expect(200);
    ann.get(&format!("/maven/{taken}")).send().await.expect(404);
    assert_eq!(server.caller().get("/maven/org/example/lib/1.0/lib-1.0.jar").send().await.expect(200).text(), "upstream jar");
    server.finish().await;
}
