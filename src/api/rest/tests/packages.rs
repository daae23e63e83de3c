//! Packages and their versions, as clients list, read, delete and restore them.

use std::time::Duration;

use serde_json::{Value, json};

use super::world;
use crate::api::rest::*;
use crate::identity::Workflow;
use crate::package::TokenId;

#[tokio::test]
async fn a_package_has_all_that_github_requires() {
    let w = world().await;
    let package = w.check("rea", "GET /orgs/acme/packages/npm/tool", "", 200).await;
    assert_eq!(package["name"], "tool");
    assert_eq!((&package["package_type"], &package["visibility"]), (&json!("npm"), &json!("private")));
    assert_eq!((&package["version_count"], &package["created_at"]), (&json!(2), &json!("2023-11-14T22:13:20Z")));
    assert_eq!(package["url"], "http://h/api/v3/orgs/acme/packages/npm/tool");
    assert_eq!(package["html_url"], "http://h/orgs/acme/packages/npm/package/tool");
    assert_eq!((&package["owner"]["login"], &package["owner"]["type"]), (&json!("acme"), &json!("Organization")));
    for name in "id node_id avatar_url gravatar_id url html_url followers_url following_url gists_url starred_url subscriptions_url \
                 organizations_url repos_url events_url received_events_url site_admin"
        .split_whitespace()
    {
        assert!(package["owner"].get(name).is_some(), "{name}");
    }
    assert!(package["id"].is_u64() && package.get("repository").is_none());
    let versions = w.check("rea", "GET /orgs/acme/packages/npm/tool/versions", "", 200).await;
    let names: Vec<_> = versions.as_array().unwrap().iter().map(|version| version["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["1.1.0", "1.0.0"], "newest first");
    let version = &versions[0];
    assert_eq!(version["metadata"], json!({ "package_type": "npm" }));
    let id = version["id"].as_u64().unwrap();
    assert_eq!(version["url"], format!("http://h/api/v3/orgs/acme/packages/npm/tool/versions/{id}"));
    assert_eq!(version["package_html_url"], package["html_url"]);
    let one = w.check("rea", &format!("GET /orgs/acme/packages/npm/tool/versions/{id}"), "", 200).await;
    assert_eq!(one, *version);
    let files = w.check("rea", &format!("GET /orgs/acme/packages/npm/tool/versions/{id}/files"), "", 200).await;
    assert_eq!((&files[0]["name"], &files[0]["size"]), (&json!("tool-1.1.0.tgz"), &json!(3)));
    assert_eq!(files[0]["digests"]["sha256"].as_str().unwrap().len(), 64);
    w.check("rea", "GET /orgs/acme/packages/npm/tool/versions/99999", "", 404).await;
    w.check("rea", "GET /orgs/acme/packages/npm/tool/versions/x", "", 404).await;
    // Another package's version is not this one's.
    let other = w.version("own");
    w.check("own", &format!("GET /orgs/acme/packages/npm/tool/versions/{other}"), "", 404).await;
}

#[tokio::test]
async fn a_name_may_be_written_in_each_way() {
    let w = world().await;
    for owner in ["/orgs/acme", "/users/acme", "/orgs/ACME"] {
        for name in ["tool", "@acme/tool", "%40acme%2Ftool", "@acme%2ftool"] {
            let package = w.check("own", &format!("GET {owner}/packages/npm/{name}"), "", 200).await;
            assert_eq!(package["name"], "tool");
            w.check("own", &format!("GET {owner}/packages/npm/{name}/versions"), "", 200).await;
        }
    }
    w.check("own", "GET /orgs/acme/packages/npm/tool/", "", 404).await;
    w.check("own", "GET /orgs/acme/packages/npm/@own/tool", "", 404).await;
    w.check("own", "GET /orgs/own/packages/npm/tool", "", 404).await;
    w.check("own", "GET /orgs/acme/packages/pip/tool", "", 404).await;
    w.check("own", "GET /users/own/packages/npm/tool", "", 200).await;
    w.check("own", "GET /user/packages/npm/tool", "", 200).await;
    // Where another package of the owner has the short name, the scoped one keeps its long name.
    w.engine.publish("npm", "tool", w.accounts["acme"], "1.0.0").await.unwrap();
    let list = w.check("own", "GET /orgs/acme/packages?package_type=npm", "", 200).await;
    let names: Vec<_> = list.as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["@acme/tool", "tool"]);
    let unscoped = w.check("own", "GET /orgs/acme/packages/npm/tool", "", 200).await;
    assert_eq!(unscoped["id"], list[1]["id"]);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let w = world().await;
    let acme = w.accounts["acme"];
    for index in 0..34 {
        w.engine.publish("npm", &format!("@acme/p{index:02}"), acme, "1.0.0").await.unwrap();
    }
    w.check("own", "PATCH /orgs/acme/packages/npm/p07", r#"{"visibility":"public"}"#, 200).await;
    let list = "/orgs/acme/packages?package_type=npm";
    let first = w.ask("own", Method::GET, list, "").await;
    assert_eq!(first.body.as_array().unwrap().len(), 30);
    let expected = "<http://h/api/v3/orgs/acme/packages?package_type=npm&page=2>; rel=\"next\", \
                    <http://h/api/v3/orgs/acme/packages?package_type=npm&page=2>; rel=\"last\"";
    assert_eq!(first.header("link"), expected);
    let second = w.ask("own", Method::GET, &format!("{list}&per_page=10&page=4"), "").await;
    assert_eq!(second.body.as_array().unwrap().len(), 5);
    assert!(second.header("link").contains("page=3>; rel=\"prev\"") && !second.header("link").contains("next"));
    assert_eq!(w.check("own", &format!("GET {list}&per_page=10&page=9"), "", 200).await, json!([]));
    let all = w.ask("own", Method::GET, &format!("{list}&per_page=100"), "").await;
    assert_eq!((all.body.as_array().unwrap().len(), all.header("link")), (35, ""));
    w.check("own", &format!("GET {list}&per_page=100&page=101"), "", 400).await;
    // Of 35 packages a member without roles sees the public one, and so does everybody else.
    for caller in ["mem", "out", ""] {
        let seen = w.check(caller, &format!("GET {list}"), "", 200).await;
        let names: Vec<_> = seen.as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["p07"], "{caller}");
    }
    assert_eq!(w.check("own", &format!("GET {list}&visibility=public"), "", 200).await.as_array().unwrap().len(), 1);
    assert_eq!(w.check("own", &format!("GET {list}&visibility=internal"), "", 200).await, json!([]));
    assert_eq!(w.check("own", "GET /orgs/acme/packages?package_type=container", "", 200).await, json!([]));
    for wrong in ["", "?package_type=", "?package_type=pip", "?package_type=npm&visibility=x", "?package_type=npm&state=x"] {
        w.check("own", &format!("GET /orgs/acme/packages{wrong}"), "", 400).await;
    }
    w.check("own", "GET /orgs/nobody/packages?package_type=npm", "", 404).await;
}

#[tokio::test]
async fn deleted_versions_come_back_by_their_ids() {
    let w = world().await;
    let id = w.version("acme");
    let version = format!("/orgs/acme/packages/npm/tool/versions/{id}");
    w.check("adm", &format!("DELETE {version}"), "", 204).await;
    w.check("adm", &format!("DELETE {version}"), "", 404).await;
    w.check("rea", &format!("GET {version}"), "", 404).await;
    let last = w.check("rea", "GET /orgs/acme/packages/npm/tool/versions", "", 200).await;
    assert_eq!(last.as_array().unwrap().len(), 1);
    let refused = w.check("adm", &format!("DELETE /orgs/acme/packages/npm/tool/versions/{}", last[0]["id"]), "", 400).await;
    assert_eq!(refused["message"], "You cannot delete the last version of a package. You must delete the package instead.");
    let deleted = w.check("adm", "GET /orgs/acme/packages/npm/tool/versions?state=deleted", "", 200).await;
    assert_eq!((deleted.as_array().unwrap().len(), &deleted[0]["id"]), (1, &json!(id)));
    assert!(deleted[0]["deleted_at"].is_string());
    w.check("wes", "GET /orgs/acme/packages/npm/tool/versions?state=deleted", "", 403).await;
    assert_eq!(w.check("rea", "GET /orgs/acme/packages/npm/tool", "", 200).await["version_count"], 1);
    w.check("wes", &format!("POST {version}/restore"), "", 403).await;
    w.check("adm", &format!("POST {version}/restore"), "", 204).await;
    let back = w.check("rea", &format!("GET {version}"), "", 200).await;
    assert_eq!((&back["name"], back.get("deleted_at")), (&json!("1.1.0"), None));
    assert_eq!(w.check("rea", "GET /orgs/acme/packages/npm/tool", "", 200).await["version_count"], 2);
}

#[tokio::test]
async fn deleted_packages_come_back_within_the_window() {
    let w = world().await;
    let package = "/orgs/acme/packages/npm/tool";
    let before = w.check("rea", &format!("GET {package}"), "", 200).await;
    w.check("adm", &format!("DELETE {package}"), "", 204).await;
    for caller in ["rea", "adm", "own"] {
        w.check(caller, &format!("GET {package}"), "", 404).await;
        w.check(caller, &format!("DELETE {package}"), "", 404).await;
    }
    assert_eq!(w.check("rea", "GET /orgs/acme/packages?package_type=npm", "", 200).await, json!([]));
    assert_eq!(w.check("rea", "GET /orgs/acme/packages?package_type=npm&state=deleted", "", 200).await, json!([]));
    let deleted = w.check("adm", "GET /orgs/acme/packages?package_type=npm&state=deleted", "", 200).await;
    assert_eq!((&deleted[0]["name"], &deleted[0]["version_count"]), (&json!("tool"), &json!(0)));
    w.check("rea", &format!("POST {package}/restore"), "", 404).await;
    w.advance(Duration::from_secs(30 * 86_400));
    w.check("adm", &format!("POST {package}/restore"), "", 204).await;
    let after = w.check("rea", &format!("GET {package}"), "", 200).await;
    assert_eq!((&after["id"], &after["version_count"]), (&before["id"], &json!(2)));
    // Once more, and a second too late.
    w.check("adm", &format!("DELETE {package}"), "", 204).await;
    w.advance(Duration::from_secs(30 * 86_400 + 1));
    w.check("adm", &format!("POST {package}/restore"), "", 404).await;
}

#[tokio::test]
async fn a_name_taken_anew_is_not_restored_over() {
    let w = world().await;
    let package = "/orgs/acme/packages/npm/tool";
    w.check("adm", &format!("DELETE {package}"), "", 204).await;
    w.engine.publish("npm", "@acme/tool", w.accounts["acme"], "2.0.0").await.unwrap();
    w.check("adm", &format!("POST {package}/restore"), "", 409).await;
    assert_eq!(w.check("adm", &format!("GET {package}"), "", 200).await["version_count"], 1);
    // What was published anew stands, and the old versions can come one by one.
    w.check("adm", &format!("POST {package}/versions/{}/restore", w.version("acme")), "", 204).await;
    assert_eq!(w.check("adm", &format!("GET {package}"), "", 200).await["version_count"], 2);
}

#[tokio::test]
async fn settings_that_github_has_only_pages_for() {
    let w = world().await;
    let package = "/orgs/acme/packages/npm/tool";
    let linked = w.check("adm", &format!("PUT {package}/repository"), r#"{"repository":"acme/web"}"#, 200).await;
    assert_eq!(linked["repository"]["full_name"], "acme/web");
    for name in "archive_url hooks_url trees_url node_id private fork description html_url".split_whitespace() {
        assert!(linked["repository"].get(name).is_some(), "{name}");
    }
    // The link does not tell of a repository whoever may not know of it.
    w.check("adm", &format!("PATCH {package}"), r#"{"visibility":"public"}"#, 200).await;
    assert!(w.check("out", &format!("GET {package}"), "", 200).await.get("repository").is_none());
    assert_eq!(w.check("rea", &format!("GET {package}"), "", 200).await["repository"]["name"], "web");
    let stays = w.check("adm", &format!("PATCH {package}"), r#"{"visibility":"private"}"#, 422).await;
    assert_eq!((&stays["errors"][0]["code"], &stays["errors"][0]["field"]), (&json!("invalid"), &json!("visibility")));
    for (body, code) in
        [("", "missing_field"), ("{}", "missing_field"), (r#"{"visibility":"x"}"#, "invalid"), (r#"{"visibility":1}"#, "invalid")]
    {
        let refused = w.check("adm", &format!("PATCH {package}"), body, 422).await;
        assert_eq!((&refused["message"], &refused["errors"][0]["code"]), (&json!("Validation Failed"), &json!(code)), "{body}");
    }
    for body in ["[]", "7", "\"x\""] {
        assert_eq!(w.check("adm", &format!("PATCH {package}"), body, 400).await["message"], "Body should be a JSON object");
    }
    assert_eq!(w.check("adm", &format!("PATCH {package}"), "{", 400).await["message"], "Problems parsing JSON");

    assert_eq!(w.check("adm", &format!("PUT {package}/access"), r#"{"mode":"inherit"}"#, 200).await["mode"], "inherit");
    assert_eq!(w.check("rea", &format!("GET {package}/access"), "", 200).await["mode"], "inherit");
    w.check("adm", &format!("PUT {package}/access"), r#"{"mode":"both"}"#, 422).await;
    w.check("adm", &format!("DELETE {package}/repository"), "", 204).await;
    w.check("adm", &format!("PUT {package}/access"), r#"{"mode":"inherit"}"#, 422).await;

    w.check("adm", &format!("PUT {package}/roles/teams/core"), r#"{"role":"write"}"#, 204).await;
    w.check("adm", &format!("PUT {package}/roles/users/out"), r#"{"role":"write"}"#, 422).await;
    w.check("adm", &format!("PUT {package}/roles/users/nobody"), r#"{"role":"write"}"#, 404).await;
    let roles = w.check("adm", &format!("GET {package}/roles"), "", 200).await;
    let seen: Vec<_> =
        roles.as_array().unwrap().iter().map(|role| (role["user"]["login"].as_str(), role["team"]["slug"].as_str())).collect();
    assert!(seen.contains(&(Some("adm"), None)) && seen.contains(&(None, Some("core"))), "{seen:?}");
    w.check("adm", &format!("DELETE {package}/roles/teams/core"), "", 204).await;
    w.check("adm", &format!("DELETE {package}/roles/users/rea"), "", 204).await;
}

#[tokio::test]
async fn why_somebody_may_or_may_not() {
    let w = world().await;
    let why = "/orgs/acme/packages/npm/tool/permissions";
    let own = w.check("rea", &format!("GET {why}"), "", 200).await;
    assert_eq!((&own["role"], &own["actions"]["read"]["allowed"]), (&json!("read"), &json!(true)));
    assert_eq!(own["actions"]["write"], json!({ "allowed": false, "reason": "the role write on the package is required" }));
    assert_eq!(own["sources"], json!([{ "source": "package_user", "role": "read", "counts": true }]));
    w.check("rea", &format!("GET {why}?user=wes"), "", 403).await;
    let former = w.check("adm", &format!("GET {why}?user=former"), "", 200).await;
    assert_eq!((&former["role"], &former["actions"]["read"]["allowed"]), (&Value::Null, &json!(false)));
    assert_eq!(former["sources"], json!([{ "source": "package_user", "role": "admin", "counts": false }]));
    let owner = w.check("adm", &format!("GET {why}?user=own"), "", 200).await;
    assert_eq!(owner["sources"][0]["source"], "organization_owner");
    w.check("adm", &format!("GET {why}?user=nobody"), "", 404).await;
    w.check("adm", &format!("GET {why}?user=acme"), "", 404).await;
}

#[tokio::test]
async fn workflows_of_chosen_repositories_use_a_package() {
    let w = world().await;
    let package = "/orgs/acme/packages/npm/tool";
    let may = async |repository: &str| {
        let said = w.check("own", &format!("GET {package}/permissions?repository={repository}"), "", 200).await;
        ["read", "write", "delete", "admin"].map(|action| said["actions"][action]["allowed"].as_bool().unwrap())
    };
    w.check("own", "POST /orgs/acme/repos", r#"{"name":"ci","private":true}"#, 201).await;
    assert_eq!((may("ci").await, may("web").await), ([false; 4], [false; 4]));
    for (role, allowed) in [("read", [true, false, false, false]), ("write", [true, true, false, false]), ("admin", [true; 4])] {
        w.check("own", &format!("PUT {package}/actions-access/ci"), &format!(r#"{{"role":"{role}"}}"#), 204).await;
        assert_eq!((may("ci").await, may("web").await), (allowed, [false; 4]), "{role}");
    }
    let listed = w.check("own", &format!("GET {package}/actions-access"), "", 200).await;
    assert_eq!((&listed[0]["repository"]["full_name"], &listed[0]["role"]), (&json!("acme/ci"), &json!("admin")));
    w.check("own", &format!("PUT {package}/actions-access/ci"), r#"{"role":"king"}"#, 422).await;
    w.check("own", &format!("PUT {package}/actions-access/none"), r#"{"role":"read"}"#, 404).await;
    // Whoever administers the package learns nothing of repositories that are not for them to see.
    w.check("adm", &format!("PUT {package}/actions-access/ci"), r#"{"role":"read"}"#, 404).await;
    w.check("wes", &format!("GET {package}/permissions?repository=web"), "", 403).await;
    let log = w.check("own", "GET /orgs/acme/audit-log?phrase=action:packages.package_access_changed&per_page=1", "", 200).await;
    assert_eq!(log[0]["detail"], "workflows of ci: admin");
    // A repository whose roles the package takes is admin of it.
    w.check("own", &format!("PUT {package}/repository"), r#"{"repository":"acme/web"}"#, 200).await;
    assert_eq!(may("web").await, [false; 4]);
    w.check("own", &format!("PUT {package}/access"), r#"{"mode":"inherit"}"#, 200).await;
    assert_eq!(may("web").await, [true; 4]);
    w.check("own", &format!("DELETE {package}/actions-access/ci"), "", 204).await;
    assert_eq!(may("ci").await, [false; 4]);
    w.check("own", "DELETE /repos/acme/ci", "", 204).await;
    assert_eq!(w.check("own", &format!("GET {package}/actions-access"), "", 200).await, json!([]));
}

#[tokio::test]
async fn a_workflows_token_is_good_for_packages_alone() {
    let w = world().await;
    let web = w.engine.identity.repository(w.accounts["acme"], &"web".parse().unwrap()).await.unwrap();
    let workflow = Arc::new(Caller::Workflow(Workflow::new(&web, TokenId(9), false)));
    w.check("own", "PUT /orgs/acme/packages/npm/tool/actions-access/web", r#"{"role":"admin"}"#, 204).await;
    for (line, status) in [
        ("GET /orgs/acme/packages/npm/tool", 200),
        ("GET /orgs/acme/packages?package_type=npm", 200),
        ("GET /repos/acme/web", 200),
        ("DELETE /orgs/acme/packages/npm/tool", 403),
        ("GET /orgs/acme/packages/npm/tool/permissions", 403),
        ("GET /user", 403),
        ("GET /user/packages?package_type=npm", 403),
        ("GET /orgs/acme/members", 403),
        ("GET /admin/audit-log", 403),
        ("POST /user/tokens", 403),
    ] {
        let (method, target) = line.split_once(' ').unwrap();
        let answer = w.ask_as(Ok(Arc::clone(&workflow)), method.parse().unwrap(), target, "").await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
    }
}

#[tokio::test]
async fn headers_are_githubs() {
    let w = world().await;
    let answer = w.ask("rea", Method::GET, "/orgs/acme/packages/npm/tool", "").await;
    assert_eq!(answer.header("x-accepted-oauth-scopes"), "read:packages");
    assert!(answer.header("x-oauth-scopes").contains("delete:packages"));
    assert_eq!(answer.header("x-github-media-type"), "github.v3; format=json");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(answer.header("x-github-api-version-selected"), "2022-11-28");
    let other = w.ask("rea", Method::GET, "/orgs/acme/packages/npm/tool", "").await;
    assert_ne!(answer.header("x-github-request-id"), other.header("x-github-request-id"));
    let token = w.tokens["rea"].as_str();
    let with = async |name: &str, value: &str, method: Method| {
        w.ask_with(Some(token), method, "/orgs/acme/packages/npm/tool", "", &[(name, value)]).await
    };
    let same = with("if-none-match", answer.header("etag"), Method::GET).await;
    assert_eq!((same.status, &same.body), (304, &Value::Null));
    let head = with("accept", "application/vnd.github+json", Method::HEAD).await;
    assert_eq!((head.status, &head.body, head.header("etag")), (200, &Value::Null, answer.header("etag")));
    assert!(head.header("content-length").parse::<usize>().unwrap() > 500);
    assert_eq!(with("x-github-api-version", "2026-03-10", Method::GET).await.header("x-github-api-version-selected"), "2026-03-10");
    assert_eq!(with("x-github-api-version", "1999-01-01", Method::GET).await.status, 400);
    assert_eq!(with("user-agent", "", Method::GET).await.status, 200, "a second, empty one does not matter");
    let refused = w.ask("rea", Method::PUT, "/user", "").await;
    assert_eq!((refused.status, refused.header("allow")), (405, "GET"));
    let gone = w.ask("rea", Method::GET, "/nothing", "").await;
    assert_eq!((gone.status, &gone.body["message"]), (404, &json!("Not Found")));
}
