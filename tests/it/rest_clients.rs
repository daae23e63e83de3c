//! Client libraries of GitHub's API, with nothing changed but the base address.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{Server, clients};
use crate::rest::{hosting, publish};

/// Runs a program with an environment of its own and gives what it printed.
pub(crate) async fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let home = tempfile::TempDir::with_prefix("packhouse-home-").expect("a folder");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(home.path()).env_clear().env("HOME", home.path()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("LANG", "C.UTF-8").envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let run = tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("it ends");
    let output = run.unwrap_or_else(|error| panic!("{}: {error}; tests/run --install installs every client", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{} failed:\n{}\n{}", program.display(), text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a script with Node; it prints one JSON value.
async fn node(script: &str, server: &Server, token: &str) -> Value {
    node_with(script, server, token, &[]).await
}

/// As [`node`], with folders of further clients in variables of the environment.
pub(crate) async fn node_with(script: &str, server: &Server, token: &str, folders: &[(&str, &str)]) -> Value {
    let program = clients().join("bin/node");
    let modules = |folder: &str| clients().join(folder).join("package.json").display().to_string();
    let mut environment =
        vec![("MODULES", modules("octokit")), ("API", format!("{}/api/v3", server.origin())), ("TOKEN", token.to_owned())];
    environment.extend(folders.iter().map(|(name, folder)| (*name, modules(folder))));
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let printed = run(&program, &["--input-type=module", "--eval", script], &environment).await;
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("no JSON ({error}): {printed}"))
}

#[tokio::test]
async fn octokit_lists_deletes_restores_and_paginates() {
    let (server, token) = hosting(&["1.0.0", "1.1.0", "1.2.0"]).await;
    for index in 0..35 {
        publish(&server, &token, &format!("@acme/p{index:02}"), "1.0.0").await;
    }
    let said = node(include_str!("rest_clients/packages.mjs"), &server, &token.text).await;
    assert_eq!(said["listed"], 36);
    assert_eq!(said["pages"], serde_json::json!([10, 10, 10, 6]));
    assert_eq!(said["versions"], serde_json::json!(["1.2.0", "1.1.0", "1.0.0"]));
    assert_eq!(said["left"], serde_json::json!(["1.1.0", "1.0.0"]));
    assert_eq!(said["deleted"], serde_json::json!(["1.2.0"]));
    assert_eq!(said["restored"], 3);
    assert_eq!(said["gone"], 404);
    assert_eq!(said["back"], "tool");
    assert_eq!(said["missing_type"], 400);
    assert_eq!(said["bad_credentials"], serde_json::json!([401, "Bad credentials"]));
    assert_eq!(said["me"], "ann");
    assert_eq!(said["repository"], "acme/web");
    assert_eq!(said["taken"], serde_json::json!([422, "already_exists"]));
    assert_eq!(said["teams"], serde_json::json!(["core"]));
    server.finish().await;
}

/// What the action delete-package-versions does, by the same calls: everything of the user routes, also for an organisation.
#[tokio::test]
async fn old_versions_are_cleaned_up_as_githubs_action_does() {
    let versions: Vec<String> = (0..12).map(|minor| format!("1.{minor}.0")).collect();
    let numbers: Vec<&str> = versions.iter().map(String::as_str).collect();
    let (server, token) = hosting(&numbers).await;
    let said = node(include_str!("rest_clients/delete_versions.mjs"), &server, &token.text).await;
    assert_eq!(said["before"], 12);
    assert_eq!(said["deleted"], 9);
    assert_eq!(said["after"], serde_json::json!(["1.11.0", "1.10.0", "1.9.0"]));
    assert_eq!(
        said["last"],
        serde_json::json!([400, "You cannot delete the last version of a package. You must delete the package instead."])
    );
    server.finish().await;
}

#[tokio::test]
async fn pygithub_reads_people_and_packages() {
    let (server, token) = hosting(&["1.0.0", "1.1.0"]).await;
    let program = clients().join("pygithub/bin/python");
    let api = format!("{}/api/v3", server.origin());
    let environment = [("API", api.as_str()), ("TOKEN", token.text.as_str())];
    let printed = run(&program, &["-c", include_str!("rest_clients/people.py")], &environment).await;
    let said: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("no JSON ({error}): {printed}"));
    assert_eq!(said["login"], "ann");
    assert_eq!(said["organization"], "acme");
    assert_eq!(said["repository"], serde_json::json!(["acme/web", true]));
    assert_eq!(said["collaborators"], serde_json::json!(["ann"]));
    assert_eq!(said["teams"], serde_json::json!(["core"]));
    assert_eq!(said["missing"], 404);
    assert_eq!(said["packages"], serde_json::json!(["tool"]));
    server.finish().await;
}

#[tokio::test]
async fn gh_reads_every_page() {
    let (server, token) = hosting(&["1.0.0"]).await;
    for index in 0..5 {
        publish(&server, &token, &format!("@acme/p{index}"), "1.0.0").await;
    }
    let host = format!("127.0.0.1:{}", server.port());
    let environment = [("GH_HOST", host.as_str()), ("GH_ENTERPRISE_TOKEN", token.text.as_str()), ("GH_NO_UPDATE_NOTIFIER", "1")];
    let gh = Path::new("/usr/bin/gh");
    let address = |below: &str| format!("{}/api/v3{below}", server.origin());
    let list = address("/orgs/acme/packages?package_type=npm&per_page=2");
    let names = run(gh, &["api", "--paginate", &list, "--jq", ".[].name"], &environment).await;
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["tool", "p0", "p1", "p2", "p3", "p4"]);
    let scoped = address("/orgs/acme/packages/npm/%40acme%2Ftool");
    assert_eq!(run(gh, &["api", &scoped, "--jq", ".name"], &environment).await.trim(), "tool");
    run(gh, &["api", "-X", "DELETE", &scoped], &environment).await;
    run(gh, &["api", "-X", "POST", &format!("{scoped}/restore")], &environment).await;
    assert_eq!(run(gh, &["api", &address("/user"), "--jq", ".login"], &environment).await.trim(), "ann");
    server.finish().await;
}

/// A server with a second organisation of ann's, and a token of hers that may read the audit log.
async fn two_organisations() -> (Server, String) {
    let (server, _) = hosting(&["1.0.0"]).await;
    server.cli(&["org", "add", "beta", "--owner", "ann"]).await;
    let scopes = ["write:packages", "repo", "admin:org", "read:audit_log"];
    let token = server.token("ann", &scopes).await.text;
    (server, token)
}

#[tokio::test]
async fn octokit_renames_moves_and_audits() {
    let (server, token) = two_organisations().await;
    let said = node(include_str!("rest_clients/control.mjs"), &server, &token).await;
    assert_eq!(said["team"], "platform");
    assert_eq!(said["moved"], serde_json::json!([202, "beta/web"]));
    assert_eq!(said["left"], 404);
    assert_eq!(said["workflows"], serde_json::json!([["site", "write"]]));
    assert_eq!(said["downloads"], 0);
    assert_eq!(said["package"], "beta");
    assert_eq!(said["same"], true, "pages by cursor are the whole log");
    let actions: Vec<&str> = said["actions"].as_array().expect("actions").iter().filter_map(Value::as_str).collect();
    for action in ["org.create", "repo.create", "team.create", "team.rename", "repo.transfer", "packages.package_transfer"] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
    assert_eq!(said["teams"], serde_json::json!(["team.rename", "team.create"]));
    assert!(said["actors"].as_array().is_some_and(|actors| actors.contains(&"ann".into())), "{said}");
    assert!(said["ips"].as_array().is_some_and(|addresses| addresses.contains(&"127.0.0.1".into())), "{said}");
    server.finish().await;
}

#[tokio::test]
async fn pygithub_renames_moves_and_audits() {
    let (server, token) = two_organisations().await;
    let program = clients().join("pygithub/bin/python");
    let api = format!("{}/api/v3", server.origin());
    let environment = [("API", api.as_str()), ("TOKEN", token.as_str())];
    let printed = run(&program, &["-c", include_str!("rest_clients/moves.py")], &environment).await;
    let said: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("no JSON ({error}): {printed}"));
    assert_eq!(said["team"], serde_json::json!(["platform", "platform"]));
    assert_eq!(said["transferred"], true);
    assert_eq!(said["full_name"], "beta/web");
    assert_eq!(said["actions"], serde_json::json!(["repo.create", "repo.transfer"]));
    server.finish().await;
}

#[tokio::test]
async fn gh_reads_the_whole_audit_log() {
    let (server, token) = two_organisations().await;
    let host = format!("127.0.0.1:{}", server.port());
    let environment = [("GH_HOST", host.as_str()), ("GH_ENTERPRISE_TOKEN", token.as_str()), ("GH_NO_UPDATE_NOTIFIER", "1")];
    let gh = Path::new("/usr/bin/gh");
    let address = |query: &str| format!("{}/api/v3/orgs/acme/audit-log?{query}", server.origin());
    let whole = run(gh, &["api", &address("per_page=100"), "--jq", ".[].action"], &environment).await;
    assert_eq!(whole.lines().collect::<Vec<_>>(), ["packages.package_version_published", "org.create"]);
    let paged = run(gh, &["api", "--paginate", &address("per_page=1"), "--jq", ".[].action"], &environment).await;
    assert_eq!(paged, whole);
    server.finish().await;
}
