//! Accounts, organisations, teams, repositories and tokens.

use std::time::Duration;

use serde_json::json;

use super::world;
use crate::api::rest::*;
use crate::identity::Scopes;

#[tokio::test]
async fn people_repositories_and_teams() {
    let w = world().await;
    let me = w.check("own", "GET /user", "", 200).await;
    assert_eq!((&me["login"], &me["type"], &me["site_admin"]), (&json!("own"), &json!("User"), &json!(false)));
    assert_eq!(w.check("own", "GET /users/acme", "", 200).await["type"], "Organization");
    assert_eq!(w.check("own", "GET /user/orgs", "", 200).await[0]["login"], "acme");
    assert_eq!(w.check("out", "GET /users/own/orgs", "", 200).await, json!([]));
    assert_eq!(w.check("rea", "GET /orgs/acme/members", "", 200).await.as_array().unwrap().len(), 5);
    assert_eq!(w.check("rea", "GET /orgs/acme/members?role=admin", "", 200).await[0]["login"], "own");
    assert_eq!(w.check("out", "GET /orgs/acme/members", "", 200).await, json!([]));
    let owner = w.check("own", "PUT /orgs/acme/memberships/mem", r#"{"role":"admin"}"#, 200).await;
    assert_eq!((&owner["role"], &owner["state"]), (&json!("admin"), &json!("active")));
    w.check("mem", "DELETE /orgs/acme/members/own", "", 204).await;
    w.check("mem", "DELETE /orgs/acme/members/mem", "", 403).await;
    w.check("mem", "PUT /orgs/acme/memberships/mem", r#"{"role":"member"}"#, 403).await;
    w.check("mem", "PUT /orgs/acme/memberships/own", r#"{"role":"king"}"#, 422).await;

    let repository = w.check("wes", "POST /orgs/acme/repos", r#"{"name":"New.App","private":true}"#, 201).await;
    assert_eq!((&repository["full_name"], &repository["visibility"]), (&json!("acme/new.app"), &json!("private")));
    assert_eq!(repository["permissions"]["admin"], true);
    let taken = w.check("wes", "POST /orgs/acme/repos", r#"{"name":"new.app"}"#, 422).await;
    assert_eq!(taken["errors"][0], json!({ "resource": "Repository", "field": "name", "code": "already_exists" }));
    w.check("wes", "PATCH /repos/acme/new.app", r#"{"name":"app","visibility":"internal"}"#, 200).await;
    w.check("wes", "GET /repos/acme/new.app", "", 404).await;
    assert_eq!(w.check("out", "GET /repos/acme/app", "", 200).await["visibility"], "internal");
    w.check("wes", "PATCH /repos/acme/app", r#"{"name":"web"}"#, 422).await;
    w.check("wes", "PUT /repos/acme/app/collaborators/rea", r#"{"permission":"maintain"}"#, 204).await;
    w.check("wes", "PUT /repos/acme/app/collaborators/out", r#"{"permission":"pull"}"#, 422).await;
    let permission = w.check("wes", "GET /repos/acme/app/collaborators/rea/permission", "", 200).await;
    assert_eq!((&permission["permission"], &permission["role_name"]), (&json!("write"), &json!("maintain")));
    w.check("wes", "PUT /orgs/acme/teams/core/repos/acme/app", r#"{"permission":"pull"}"#, 204).await;
    assert_eq!(w.check("wes", "GET /repos/acme/app/teams", "", 200).await[0]["permission"], "pull");
    assert_eq!(w.check("mem", "GET /orgs/acme/teams/core/repos", "", 200).await[0]["name"], "app");
    w.check("wes", "DELETE /repos/acme/app", "", 204).await;
}

#[tokio::test]
async fn a_token_makes_none_that_may_more_or_lives_longer() {
    let mut w = world().await;
    let scopes: Scopes = "user,write:packages".parse().unwrap();
    let minter = w.mint_until("out", scopes, Some(Duration::from_secs(3600))).await;
    let post = async |body: &str| w.ask_with(Some(&minter), Method::POST, "/user/tokens", body, &[]).await;
    let end = r#""expires_at":"2023-11-14T23:00:00Z""#;
    let made = post(&format!(r#"{{"scopes":["read:packages"],"note":"ci",{end}}}"#)).await;
    assert_eq!((made.status, &made.body["note"]), (201, &json!("ci")), "{}", made.body);
    let text = made.body["token"].as_str().unwrap().to_owned();
    assert_eq!(post(&format!(r#"{{"scopes":["repo"],{end}}}"#)).await.status, 403);
    assert_eq!(post(r#"{"scopes":[]}"#).await.status, 422, "no end at all");
    assert_eq!(post(r#"{"scopes":[],"expires_at":"2030-01-01T00:00:00Z"}"#).await.status, 422);
    assert_eq!(post(r#"{"scopes":["king"]}"#).await.status, 422);
    assert_eq!(post(r#"{"scopes":"repo"}"#).await.status, 422);
    assert_eq!(post("{}").await.body["errors"][0]["code"], "missing_field");
    let scope = w.ask_with(Some(&text), Method::GET, "/user", "", &[]).await;
    assert_eq!((scope.status, scope.header("x-oauth-scopes")), (200, "read:packages"));
    let id = &made.body["id"];
    assert!(w.check("out", &format!("GET /user/tokens/{id}"), "", 200).await.get("token").is_none());
    w.check("own", &format!("DELETE /user/tokens/{id}"), "", 404).await;
    w.check("out", &format!("DELETE /user/tokens/{id}"), "", 204).await;
    assert_eq!(w.ask_with(Some(&text), Method::GET, "/user", "", &[]).await.status, 401);
}

#[tokio::test]
async fn accounts_are_renamed_and_nothing_dangles() {
    let w = world().await;
    w.check("site", "PATCH /admin/organizations/acme", r#"{"login":"apex"}"#, 202).await;
    w.check("own", "GET /orgs/acme", "", 404).await;
    let package = w.check("rea", "GET /orgs/apex/packages/npm/@acme/tool", "", 200).await;
    assert_eq!((&package["name"], &package["owner"]["login"]), (&json!("@acme/tool"), &json!("apex")));
    let again = package["url"].as_str().unwrap().strip_prefix("http://h/api/v3").unwrap().to_owned();
    assert_eq!(w.check("rea", &format!("GET {again}"), "", 200).await["id"], package["id"]);
    // The old name is nobody else's.
    let taken = w.check("site", "POST /admin/users", r#"{"login":"acme"}"#, 422).await;
    assert_eq!(taken["errors"][0]["code"], "already_exists");
    w.check("site", "POST /admin/users", r#"{"login":"no spaces"}"#, 422).await;
    w.check("site", "POST /admin/users", r#"{"login":"zoe","email":"z"}"#, 422).await;
    w.check("site", "POST /admin/users", r#"{"login":"zoe","email":"z@acme.example"}"#, 201).await;
    w.check("site", "DELETE /admin/users/zoe", "", 204).await;
    w.check("site", "PUT /users/site/suspended", "", 403).await;
    w.check("site", "PUT /admin/reserved-names/npm/@Apex%2F*", r#"{"owner":"apex"}"#, 204).await;
    let reserved = w.check("rea", "GET /orgs/apex/reserved-names", "", 200).await;
    assert_eq!(reserved, json!([{ "package_type": "npm", "pattern": "@apex/*", "owner": "apex", "merge": false }]));
    w.check("site", "DELETE /admin/reserved-names/npm/@apex/*", "", 204).await;
}
