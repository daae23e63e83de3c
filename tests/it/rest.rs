//! The REST API from outside: over the wire, beside the package protocol, across restarts.

use serde_json::{Value, json};

use crate::harness::{Answer, Caller, Package, Server, Setup, Token};

/// A request with a User-Agent, as every client of the API sends one.
pub(crate) async fn ask(caller: &Caller, line: &str, body: Option<&Value>) -> Answer {
    let (method, target) = line.split_once(' ').expect("a method and a path");
    let mut request = caller.ask(method, &format!("/api/v3{target}")).header("user-agent", "packhouse-tests");
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await
}

/// As [`ask`], with the status it must have.
pub(crate) async fn check(caller: &Caller, line: &str, status: u16) -> Value {
    let answer = ask(caller, line, None).await;
    assert_eq!(answer.status, status, "{line}: {}", answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// A server with the organisation `acme`, whose owner `ann` has published versions of `@acme/tool`.
pub(crate) async fn hosting(versions: &[&str]) -> (Server, Token) {
    hosting_with(Setup::default(), versions).await
}

async fn hosting_with(setup: Setup, versions: &[&str]) -> (Server, Token) {
    let server = setup.start().await;
    server.user("ann").await;
    server.cli(&["org", "add", "acme", "--owner", "ann"]).await;
    let scopes = ["read:packages", "write:packages", "delete:packages", "repo", "user", "admin:org", "read:org"];
    let token = server.token("ann", &scopes).await;
    for version in versions {
        publish(&server, &token, "@acme/tool", version).await;
    }
    (server, token)
}

pub(crate) async fn publish(server: &Server, token: &Token, name: &str, version: &str) -> Package {
    let package = Package::new(name, version);
    let path = format!("/npm/{}", name.replace('/', "%2f"));
    server.caller_with(token).put(&path, &package.publish("latest")).send().await.expect(201);
    package
}

#[tokio::test]
async fn what_is_deleted_vanishes_from_index_and_download_and_comes_back_whole() {
    let (mut server, token) = hosting(&["1.0.0", "1.1.0"]).await;
    let ann = server.caller_with(&token);
    let package = Package::new("@acme/tool", "1.1.0");
    let tarball = format!("/npm{}", package.path());
    let versions = check(&ann, "GET /orgs/acme/packages/npm/tool/versions", 200).await;
    assert_eq!((&versions[0]["name"], &versions[0]["license"]), (&json!("1.1.0"), &json!("MIT")));
    assert_eq!(versions[0]["description"], "a test package");
    let id = &versions[0]["id"];
    let version = format!("/users/acme/packages/npm/@acme/tool/versions/{id}");
    assert_eq!(ann.get(&tarball).send().await.status, 200);

    check(&ann, &format!("DELETE {version}"), 204).await;
    assert_eq!(ann.get(&tarball).send().await.status, 404);
    let packument = ann.packument("@acme/tool").await;
    assert_eq!((packument["versions"].get("1.1.0"), &packument["dist-tags"]["latest"]), (None, &json!("1.0.0")));
    // The number is never used again.
    let again = ann.put("/npm/@acme%2ftool", &package.publish("latest")).send().await;
    assert!([403, 409].contains(&again.status), "{}", again.text());

    check(&ann, &format!("POST {version}/restore"), 204).await;
    assert_eq!(ann.get(&tarball).send().await.body, package.tarball);
    assert!(ann.packument("@acme/tool").await["versions"].get("1.1.0").is_some());

    check(&ann, "DELETE /orgs/acme/packages/npm/tool", 204).await;
    assert_eq!(ann.get("/npm/@acme%2ftool").send().await.status, 404);
    assert_eq!(ann.get(&tarball).send().await.status, 404);
    server.kill().await;
    server.start_again().await;
    check(&ann, "POST /orgs/acme/packages/npm/tool/restore", 204).await;
    assert_eq!(ann.get(&tarball).send().await.body, package.tarball);
    let after = check(&ann, "GET /orgs/acme/packages/npm/tool/versions", 200).await;
    assert_eq!((&after[0]["id"], &after[0]["created_at"]), (id, &versions[0]["created_at"]));
    server.finish().await;
}

#[tokio::test]
async fn addresses_in_answers_answer() {
    let (server, token) = hosting(&["1.0.0"]).await;
    let ann = server.caller_with(&token);
    let made = ask(&ann, "POST /orgs/acme/repos", Some(&json!({ "name": "web", "visibility": "private" }))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let linked = ask(&ann, "PUT /orgs/acme/packages/npm/tool/repository", Some(&json!({ "repository": "acme/web" }))).await;
    let package = linked.json();
    let version = check(&ann, "GET /orgs/acme/packages/npm/tool/versions", 200).await[0].clone();
    let api = format!("{}/api/v3", server.origin());
    for url in [
        &package["url"],
        &package["owner"]["url"],
        &package["owner"]["repos_url"],
        &package["repository"]["url"],
        &package["repository"]["teams_url"],
        &version["url"],
    ] {
        let below = url.as_str().and_then(|url| url.strip_prefix(&api)).unwrap_or_else(|| panic!("{url}"));
        check(&ann, &format!("GET {below}"), 200).await;
    }
    let missing = ask(&ann, "GET /orgs/acme/packages/npm/none", None).await.json();
    let documentation = missing["documentation_url"].as_str().and_then(|url| url.strip_prefix(&api)).expect("an address of ours");
    check(&ann, &format!("GET {}", documentation.split('#').next().expect("a path")), 200).await;
    server.finish().await;
}

#[tokio::test]
async fn bad_input_is_refused_in_githubs_shape() {
    let (server, token) = hosting_with(Setup::default().server("wrong_tokens_per_minute = 20"), &["1.0.0"]).await;
    let (ann, nobody) = (server.caller_with(&token), server.caller());
    let bare = nobody.get("/api/v3/meta").send().await;
    assert_eq!((bare.status, bare.json()["message"].as_str().is_some_and(|text| text.contains("User-Agent"))), (403, true));
    for (line, status) in [
        ("GET /%zz", 404),
        ("GET /orgs/acme/packages/npm/..%2f..%2fx", 404),
        ("GET /orgs/acme/packages/npm/a%00b", 404),
        ("GET /orgs/acme/packages/npm/tool/versions/99999999999999999999", 404),
        ("GET /orgs/acme/packages/npm/tool/versions?per_page=-1&page=x", 200),
        ("GET /orgs/acme/packages?package_type=npm&per_page=100&page=99999999999999999999", 200),
        ("GET /orgs/acme/packages", 400),
        ("PUT /orgs/acme/packages", 405),
        ("BREW /user", 405),
        ("GET //user", 404),
        ("GET /orgs//packages", 404),
    ] {
        let answer = ask(&ann, line, None).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert!(answer.header("content-type").starts_with("application/json"), "{line}");
        if status >= 400 {
            let error = answer.json();
            assert!(error["message"].is_string() && error["documentation_url"].is_string(), "{line}: {error}");
        }
    }
    let large = ann.ask("POST", "/api/v3/user/tokens").header("user-agent", "t").body(vec![b' '; 2 << 20]).send().await;
    assert_eq!((large.status, large.json()["status"].as_str()), (413, Some("413")));
    let deep = ann.ask("POST", "/api/v3/user/repos").header("user-agent", "t").body("[".repeat(100_000)).send().await;
    assert_eq!((deep.status, deep.json()["message"].as_str()), (400, Some("Problems parsing JSON")));
    // Guessing tokens is slow here too.
    let mut statuses = Vec::new();
    for _ in 0..40 {
        let guess = nobody.get("/api/v3/user").header("user-agent", "t").header("authorization", "token pkh_wrong").send().await;
        statuses.push(guess.status);
        if guess.status == 429 {
            assert!(!guess.header("retry-after").is_empty());
            break;
        }
        assert_eq!((guess.status, guess.json()["message"].as_str()), (401, Some("Bad credentials")));
    }
    assert_eq!(statuses.last(), Some(&429), "{} wrong tokens", statuses.len());
    server.finish().await;
}

#[tokio::test]
async fn downloads_are_counted_and_what_many_have_is_kept() {
    let (mut server, token) = hosting_with(Setup::default().more("[access]\nundeletable_downloads = 3"), &["1.0.0", "1.1.0"]).await;
    let ann = server.caller_with(&token);
    let tarball = format!("/npm{}", Package::new("@acme/tool", "1.1.0").path());
    let first = ann.get(&tarball).send().await;
    let with = async |method: &str, name: &'static str, value: &str| ann.ask(method, &tarball).header(name, value).send().await.status;
    // Asking, and fetching what follows the first byte, is no download.
    assert_eq!(with("HEAD", "accept", "*/*").await, 200);
    assert_eq!(with("GET", "if-none-match", first.header("etag")).await, 304);
    assert_eq!(with("GET", "range", "bytes=1-").await, 206);
    assert_eq!(with("GET", "range", "bytes=0-9").await, 206);
    assert_eq!(ann.get("/npm/@acme%2ftool").send().await.status, 200);
    let counts = async |server: &Server| {
        let ann = server.caller_with(&token);
        let versions = check(&ann, "GET /orgs/acme/packages/npm/tool/versions", 200).await;
        let package = check(&ann, "GET /orgs/acme/packages/npm/tool/downloads", 200).await;
        (versions[0]["download_count"].clone(), versions[1]["download_count"].clone(), package["count"].clone(), versions[0]["id"].clone())
    };
    let (latest, other, package, id) = counts(&server).await;
    assert_eq!((&latest, &other, &package), (&json!(2), &json!(0), &json!(2)));
    // What was counted is written when the server stops.
    assert!(server.stop().await.success());
    server.start_again().await;
    assert_eq!(counts(&server).await, (latest, other, package, id.clone()));
    for _ in 0..2 {
        ann.get(&tarball).send().await.expect(200);
    }
    check(&ann, "DELETE /orgs/acme/packages/npm/tool", 204).await;
    check(&ann, "POST /orgs/acme/packages/npm/tool/restore", 204).await;
    let public = ask(&ann, "PATCH /orgs/acme/packages/npm/tool", Some(&json!({ "visibility": "public" }))).await;
    assert_eq!(public.status, 200, "{}", public.text());
    let version = check(&ann, &format!("DELETE /orgs/acme/packages/npm/tool/versions/{id}"), 400).await;
    assert!(version["message"].as_str().is_some_and(|text| text.contains("more than 3 downloads")), "{version}");
    check(&ann, "DELETE /orgs/acme/packages/npm/tool", 400).await;
    // A package client hears it in its own words.
    let packument = ann.packument("@acme/tool").await;
    let unpublish = ann.ask("DELETE", &format!("/npm/@acme%2ftool/-rev/{}", packument["_rev"].as_str().expect("a revision"))).send().await;
    assert_eq!(unpublish.status, 400);
    assert!(unpublish.json()["error"].as_str().is_some_and(|text| text.contains("more than 3 downloads")), "{}", unpublish.text());
    // The operator is not held to it.
    server.cli(&["package", "delete", "npm", "@acme/tool"]).await;
    server.finish().await;
}
