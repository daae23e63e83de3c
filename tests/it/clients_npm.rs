//! The real clients against the server: install, lock, install again without an upstream, publish, and the rest of npm's commands.

use serde_json::{Value, json};

use crate::harness::{Client, Package, Project, Server, Setup, Tool, Upstream};
use crate::npm_wire::{at, hosting, publish};

/// A small tree: an application's dependency, its dependency, and a scoped one.
fn tree() -> [Package; 3] {
    [
        Package::with("left", "1.2.3", json!({}), 2000),
        Package::with("right", "2.0.0", json!({ "dependencies": { "left": "^1.0.0" }, "bin": { "right": "index.js" } }), 50_000),
        Package::with(
            "@acme/both",
            "3.1.0",
            json!({ "dependencies": { "right": "^2.0.0" }, "optionalDependencies": { "left": "*" } }),
            500,
        ),
    ]
}

/// Every address in a lock file is ours.
#[track_caller]
fn only_ours(lock: &str, server: &Server, upstream: &Upstream) {
    assert!(!lock.contains(&upstream.url()), "the upstream's address is in the lock file:\n{lock}");
    for at in
        lock.match_indices("http").map(|(at, _)| &lock[at..]).filter(|rest| rest.starts_with("http://") || rest.starts_with("https://"))
    {
        assert!(at.starts_with(&server.registry()), "a foreign address in the lock file: {at:.80}");
    }
}

/// Installs through the server, and again from the lock file in a fresh client with the upstream gone and the server's memory too.
async fn installs_and_installs_again(tool: Tool) {
    let upstream = Upstream::with(&tree());
    let mut server = Setup::default().upstream(&upstream).start().await;
    let project = Project::depending_on(tool, &["@acme/both@^3.0.0", "left@1.2.3"]);
    Client::new(tool, &server.registry(), None).run(project.path(), tool.install()).await.ok();
    for (name, version) in [("@acme/both", "3.1.0"), ("left", "1.2.3")] {
        assert_eq!(project.installed(name), version);
    }
    let lock = project.read(tool.lock_file());
    only_ours(&lock, &server, &upstream);
    let checked = match tool {
        // Berry keeps a checksum of its own archive.
        Tool::Berry => lock.contains("checksum:"),
        _ => lock.contains(&tree()[0].integrity()),
    };
    assert!(checked, "no integrity in the lock file:\n{lock}");

    upstream.stop();
    assert!(server.stop().await.success());
    server.start_again().await;
    project.forget_install();
    Client::new(tool, &server.registry(), None).run(project.path(), tool.frozen()).await.ok();
    assert_eq!(project.installed("@acme/both"), "3.1.0");
    assert_eq!(project.read(tool.lock_file()), lock);

    let cold = Project::depending_on(tool, &["never-seen@1.0.0"]);
    let said = Client::new(tool, &server.registry(), None);
    // npm and pnpm wait minutes between retries unless told otherwise, each in a variable of its own.
    let quick = [("NPM_CONFIG_FETCH_RETRIES", "0"), ("PNPM_CONFIG_FETCH_RETRIES", "0"), ("YARN_HTTP_RETRY", "0")];
    said.run_with(cold.path(), tool.install(), &quick).await.fails_with(&[]);
    server.finish().await;
}

/// Publishes a private package with the client, and installs it with the right token, a wrong one, and none.
async fn publishes_and_shares(tool: Tool, arguments: &[&str]) {
    let (server, token) = hosting().await;
    let package =
        json!({ "name": "@alice/widget", "version": "1.0.0", "main": "index.js", "license": "MIT", "repository": "alice/widget" });
    let project = Project::of(tool, &package);
    let client = Client::new(tool, &server.registry(), Some(&token.text));
    if tool == Tool::Berry {
        client.run(project.path(), &["install"]).await.ok();
    }
    client.run(project.path(), arguments).await.ok();
    let value = server.caller_with(&token).packument("@alice/widget").await;
    assert_eq!(value["dist-tags"], json!({ "latest": "1.0.0" }));
    assert_eq!(value["versions"]["1.0.0"]["main"], json!("index.js"));

    let user = Project::depending_on(tool, &["@alice/widget@1.0.0"]);
    Client::new(tool, &server.registry(), Some(&token.text)).run(user.path(), tool.install()).await.ok();
    assert_eq!(user.installed("@alice/widget"), "1.0.0");
    assert!(user.read("node_modules/@alice/widget/index.js").contains("ours"));

    user.forget_install();
    Client::new(tool, &server.registry(), Some(&token.text)).run(user.path(), tool.frozen()).await.ok();
    assert_eq!(user.installed("@alice/widget"), "1.0.0");

    let wrong = "pkh_000000000000000000000000000000000000";
    for other in [Some(wrong), None] {
        let stranger = Project::depending_on(tool, &["@alice/widget@1.0.0"]);
        let ran = Client::new(tool, &server.registry(), other).run(stranger.path(), tool.install()).await.fails_with(&[]);
        assert!(!stranger.path().join("node_modules/@alice/widget").exists(), "{ran:?}");
        assert!(!ran.said(wrong), "the token is printed");
    }
    let again = client.run(project.path(), arguments).await.fails_with(&[]);
    assert!(!again.said("500"), "{again:?}");
    server.finish().await;
}

#[tokio::test]
async fn npm_installs_and_installs_again() {
    installs_and_installs_again(Tool::Npm).await;
}

#[tokio::test]
async fn yarn1_installs_and_installs_again() {
    installs_and_installs_again(Tool::Yarn1).await;
}

#[tokio::test]
async fn berry_installs_and_installs_again() {
    installs_and_installs_again(Tool::Berry).await;
}

#[tokio::test]
async fn pnpm_installs_and_installs_again() {
    installs_and_installs_again(Tool::Pnpm).await;
}

#[tokio::test]
async fn bun_installs_and_installs_again() {
    installs_and_installs_again(Tool::Bun).await;
}

#[tokio::test]
async fn npm_publishes_and_shares() {
    publishes_and_shares(Tool::Npm, &["publish"]).await;
}

#[tokio::test]
async fn yarn1_publishes_and_shares() {
    publishes_and_shares(Tool::Yarn1, &["publish", "--non-interactive", "--new-version", "1.0.0"]).await;
}

#[tokio::test]
async fn berry_publishes_and_shares() {
    publishes_and_shares(Tool::Berry, &["npm", "publish"]).await;
}

#[tokio::test]
async fn pnpm_publishes_and_shares() {
    publishes_and_shares(Tool::Pnpm, &["publish", "--no-git-checks"]).await;
}

#[tokio::test]
async fn bun_publishes_and_shares() {
    publishes_and_shares(Tool::Bun, &["publish"]).await;
}

/// A server with `@alice/widget` in three versions, and npm as its publisher in an empty folder.
async fn npm_of_alice() -> (Server, Client, Project) {
    let (server, token) = hosting().await;
    for version in ["1.0.0", "1.1.0", "2.0.0-rc.1"] {
        let tag = if version.contains('-') { "next" } else { "latest" };
        let package = Package::new("@alice/widget", version);
        let answer = server.caller_with(&token).put(&at(&package.name), &package.publish(tag)).send().await;
        assert!(answer.status < 300, "{}", answer.text());
    }
    let client = Client::new(Tool::Npm, &server.registry(), Some(&token.text));
    (server, client, Project::depending_on(Tool::Npm, &[]))
}

#[tokio::test]
async fn npm_moves_tags() {
    let (server, npm, folder) = npm_of_alice().await;
    let listed = npm.run(folder.path(), &["dist-tag", "ls", "@alice/widget"]).await.ok();
    assert!(listed.said("latest: 1.1.0") && listed.said("next: 2.0.0-rc.1"), "{}", listed.out);
    npm.run(folder.path(), &["dist-tag", "add", "@alice/widget@1.0.0", "stable"]).await.ok();
    npm.run(folder.path(), &["dist-tag", "rm", "@alice/widget", "next"]).await.ok();
    let listed = npm.run(folder.path(), &["dist-tag", "ls", "@alice/widget"]).await.ok();
    assert!(listed.said("stable: 1.0.0") && !listed.said("next"), "{}", listed.out);
    let shown = npm.run(folder.path(), &["view", "@alice/widget@stable", "version"]).await.ok();
    assert_eq!(shown.out.trim(), "1.0.0");
    npm.run(folder.path(), &["dist-tag", "add", "@alice/widget@7.0.0", "stable"]).await.fails_with(&[]);
    server.finish().await;
}

#[tokio::test]
async fn npm_installs_are_counted() {
    let (server, npm, _) = npm_of_alice().await;
    for _ in 0..2 {
        let user = Project::depending_on(Tool::Npm, &["@alice/widget@1.0.0"]);
        npm.run(user.path(), &["install"]).await.ok();
        user.forget_install();
        // The client kept the tarball and asks for none.
        npm.run(user.path(), &["ci"]).await.ok();
    }
    let token = server.token("alice", &["read:packages"]).await;
    let fresh = Client::new(Tool::Npm, &server.registry(), Some(&token.text));
    fresh.run(Project::depending_on(Tool::Npm, &["@alice/widget"]).path(), &["install"]).await.ok();
    let versions = crate::rest::check(&server.caller_with(&token), "GET /users/alice/packages/npm/widget/versions", 200).await;
    let counts: Vec<_> = versions.as_array().unwrap().iter().map(|version| (&version["name"], &version["download_count"])).collect();
    assert_eq!(counts, [(&json!("2.0.0-rc.1"), &json!(0)), (&json!("1.1.0"), &json!(1)), (&json!("1.0.0"), &json!(1))]);
    server.finish().await;
}

#[tokio::test]
async fn npm_deprecates_and_takes_it_back() {
    let (server, npm, folder) = npm_of_alice().await;
    npm.run(folder.path(), &["deprecate", "@alice/widget@1.0.0", "use 1.1.0 instead"]).await.ok();
    let shown = npm.run(folder.path(), &["view", "@alice/widget@1.0.0", "deprecated"]).await.ok();
    assert!(shown.said("use 1.1.0 instead"), "{shown:?}");
    let user = Project::depending_on(Tool::Npm, &["@alice/widget@1.0.0"]);
    let installed = npm.run(user.path(), &["install"]).await.ok();
    assert!(installed.said("use 1.1.0 instead"), "{installed:?}");
    npm.run(folder.path(), &["undeprecate", "@alice/widget@1.0.0"]).await.ok();
    let shown = npm.run(folder.path(), &["view", "@alice/widget@1.0.0", "deprecated"]).await.ok();
    assert!(!shown.said("use 1.1.0"), "{shown:?}");
    server.finish().await;
}

#[tokio::test]
async fn npm_unpublishes_one_and_then_all() {
    let (server, npm, folder) = npm_of_alice().await;
    npm.run(folder.path(), &["unpublish", "@alice/widget@1.1.0"]).await.ok();
    let shown = npm.run(folder.path(), &["view", "@alice/widget", "versions", "--json"]).await.ok();
    let versions: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(versions, json!(["1.0.0", "2.0.0-rc.1"]));
    npm.run(folder.path(), &["unpublish", "@alice/widget", "--force"]).await.ok();
    npm.run(folder.path(), &["view", "@alice/widget"]).await.fails_with(&["E404"]);
    let project = Project::of(Tool::Npm, &json!({ "name": "@alice/widget", "version": "1.1.0" }));
    npm.run(project.path(), &["publish"]).await.fails_with(&["E403", "E409"]);
    server.finish().await;
}

#[tokio::test]
async fn npm_knows_owners_itself_and_the_registry() {
    let (server, npm, folder) = npm_of_alice().await;
    server.user("bob").await;
    let owners = npm.run(folder.path(), &["owner", "ls", "@alice/widget"]).await.ok();
    assert!(owners.said("alice"), "{}", owners.out);
    npm.run(folder.path(), &["owner", "add", "bob", "@alice/widget"]).await.ok();
    assert!(npm.run(folder.path(), &["owner", "ls", "@alice/widget"]).await.ok().said("bob"));
    npm.run(folder.path(), &["owner", "rm", "bob", "@alice/widget"]).await.ok();
    assert_eq!(npm.run(folder.path(), &["whoami"]).await.ok().out.trim(), "alice");
    npm.run(folder.path(), &["ping"]).await.ok();
    let found = npm.run(folder.path(), &["search", "widget", "--json"]).await.ok();
    assert!(found.said("@alice/widget"), "{}", found.out);
    server.finish().await;
}

#[tokio::test]
async fn npm_publishes_under_a_tag_and_leaves_latest_alone() {
    let (server, npm, folder) = npm_of_alice().await;
    let beta = Project::of(Tool::Npm, &json!({ "name": "@alice/widget", "version": "3.0.0-beta.1" }));
    npm.run(beta.path(), &["publish", "--tag", "beta"]).await.ok();
    let old = Project::of(Tool::Npm, &json!({ "name": "@alice/widget", "version": "1.0.1" }));
    npm.run(old.path(), &["publish", "--tag", "old"]).await.ok();
    let shown = npm.run(folder.path(), &["view", "@alice/widget", "dist-tags", "--json"]).await.ok();
    let tags: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&tags["latest"], &tags["beta"], &tags["old"]), (&json!("1.1.0"), &json!("3.0.0-beta.1"), &json!("1.0.1")));
    server.finish().await;
}

#[tokio::test]
async fn audits_end_clean() {
    let upstream = Upstream::with(&tree());
    let server = Setup::default().upstream(&upstream).start().await;
    // Not yarn 1: its audit asks the public registry, whatever it is configured with.
    let audits: [(Tool, &[&str]); 3] = [(Tool::Npm, &["audit"]), (Tool::Pnpm, &["audit"]), (Tool::Berry, &["npm", "audit", "--all"])];
    for (tool, arguments) in audits {
        let project = Project::depending_on(tool, &["@acme/both@^3.0.0"]);
        let client = Client::new(tool, &server.registry(), None);
        client.run(project.path(), tool.install()).await.ok();
        upstream.stop();
        client.run(project.path(), arguments).await.ok();
        upstream.start_again();
    }
    server.finish().await;
}

#[tokio::test]
async fn a_warm_client_downloads_nothing_again() {
    let upstream = Upstream::with(&tree());
    let server = Setup::default().upstream(&upstream).start().await;
    let project = Project::depending_on(Tool::Npm, &["@acme/both@^3.0.0"]);
    let npm = Client::new(Tool::Npm, &server.registry(), None);
    npm.run(project.path(), &["install"]).await.ok();
    let lines = server.log().lines().filter(|line| line.contains(".tgz")).count();
    project.forget_install();
    std::fs::remove_file(project.path().join("package-lock.json")).unwrap();
    npm.run(project.path(), &["install"]).await.ok();
    assert_eq!(server.log().lines().filter(|line| line.contains(".tgz")).count(), lines, "tarballs were fetched again");
    server.finish().await;
}

#[tokio::test]
async fn hosted_and_proxied_on_one_url() {
    let upstream = Upstream::with(&tree());
    let server = Setup::default().upstream(&upstream).start().await;
    let token = server.publisher("alice").await;
    let ours = Package::with("@alice/app-core", "1.0.0", json!({ "dependencies": { "@acme/both": "^3.0.0" } }), 100);
    assert!(publish(&server.caller_with(&token), &ours).await.status < 300);
    upstream.forget();
    for tool in Tool::ALL {
        let project = Project::depending_on(tool, &["@alice/app-core@^1.0.0"]);
        Client::new(tool, &server.registry(), Some(&token.text)).run(project.path(), tool.install()).await.ok();
        assert_eq!(project.installed("@alice/app-core"), "1.0.0");
        only_ours(&project.read(tool.lock_file()), &server, &upstream);
    }
    assert!(upstream.requests().iter().all(|seen| !seen.target.contains("alice")), "a hosted name was asked upstream");
    server.finish().await;
}

#[tokio::test]
async fn npm_logs_in_and_out() {
    let (server, token) = hosting().await;
    let publisher = Client::new(Tool::Npm, &server.registry(), Some(&token.text));
    let folder = Project::depending_on(Tool::Npm, &[]);
    publisher.run(folder.path(), &["whoami"]).await.ok();
    publisher.run(folder.path(), &["logout"]).await.ok();
    publisher.run(folder.path(), &["whoami"]).await.fails_with(&["ENEEDAUTH", "E401"]);
    server.finish().await;
}
