//! What is renamed, moved and deleted: nothing dangles, no right survives, no name is taken over.

use std::time::Duration;

use serde_json::json;

use super::{World, world};
use crate::access::Grant;
use crate::api::rest::*;
use crate::catalog::View;
use crate::name::{PackageName, RepositoryName};
use crate::package::Visibility;
use crate::registry::Settings;

const TOOL: &str = "/orgs/acme/packages/npm/tool";

impl World {
    /// A second organisation, which `own` owns and `rea` is a member of.
    async fn second(&mut self) {
        let own = self.accounts["own"];
        let beta = self.engine.identity.create_organisation(OwnerName::new("beta").unwrap(), Some(own)).await.unwrap().id;
        self.accounts.insert("beta", beta);
        self.check("own", "PUT /orgs/beta/memberships/rea", r#"{"role":"member"}"#, 200).await;
    }

    /// Everybody's answer to a question of a package, by caller.
    async fn answers(&self, line: &str) -> Vec<u16> {
        let (method, target) = line.split_once(' ').unwrap();
        let mut statuses = Vec::new();
        for caller in ["out", "former", "mem", "rea", "wes", "adm", "own"] {
            statuses.push(self.ask(caller, method.parse().unwrap(), target, "").await.status);
        }
        statuses
    }
}

#[tokio::test]
async fn a_package_that_moves_takes_no_right_along() {
    let mut w = world().await;
    w.second().await;
    w.check("own", &format!("PUT {TOOL}/repository"), r#"{"repository":"acme/web"}"#, 200).await;
    w.check("own", &format!("PUT {TOOL}/roles/teams/core"), r#"{"role":"admin"}"#, 204).await;
    w.check("own", &format!("PUT {TOOL}/actions-access/web"), r#"{"role":"admin"}"#, 204).await;
    assert_eq!(w.answers(&format!("GET {TOOL}")).await, [404, 404, 200, 200, 200, 200, 200]);
    // Who administers the package but may make none there cannot bring it.
    w.check("adm", &format!("POST {TOOL}/transfer"), r#"{"new_owner":"beta"}"#, 403).await;
    w.check("adm", &format!("POST {TOOL}/transfer"), r#"{"new_owner":"nobody"}"#, 403).await;
    w.check("rea", &format!("POST {TOOL}/transfer"), r#"{"new_owner":"beta"}"#, 403).await;
    w.check("own", &format!("POST {TOOL}/transfer"), "{}", 422).await;
    let moved = w.check("own", &format!("POST {TOOL}/transfer"), r#"{"new_owner":"beta"}"#, 200).await;
    assert_eq!((&moved["owner"]["login"], &moved["name"], moved.get("repository")), (&json!("beta"), &json!("@acme/tool"), None));
    let there = moved["url"].as_str().unwrap().strip_prefix("http://h/api/v3").unwrap().to_owned();
    assert_eq!(w.answers(&format!("GET {there}")).await, [404, 404, 404, 404, 404, 404, 200]);
    assert_eq!(w.answers(&format!("GET {TOOL}")).await, [404; 7]);
    assert_eq!(w.check("own", &format!("GET {there}/actions-access"), "", 200).await, json!([]));
    assert_eq!(w.check("own", &format!("GET {there}/versions"), "", 200).await.as_array().unwrap().len(), 2);
    assert_eq!(w.check("own", "GET /orgs/acme/packages?package_type=npm", "", 200).await, json!([]));
    for log in ["/orgs/acme/audit-log", "/orgs/beta/audit-log"] {
        let log = w.check("own", &format!("GET {log}?phrase=action:packages.package_transfer"), "", 200).await;
        assert_eq!((&log[0]["detail"], &log[0]["operation_type"]), (&json!("from acme to beta"), &json!("transfer")));
    }
    // The owner that is left without packages can go, the other cannot.
    w.check("own", "DELETE /repos/acme/web", "", 204).await;
    w.check("own", "DELETE /orgs/beta", "", 409).await;
    w.check("own", "DELETE /orgs/acme", "", 202).await;
}

#[tokio::test]
async fn the_name_of_a_moved_package_is_nobody_elses() {
    let mut w = world().await;
    w.second().await;
    w.check("own", &format!("POST {TOOL}/transfer"), r#"{"new_owner":"beta"}"#, 200).await;
    let name = PackageName::new("@acme/tool").unwrap();
    let catalog = w.engine.registry.catalog();
    let (acme, beta) = (View::Owner(w.accounts["acme"]), View::Owner(w.accounts["beta"]));
    let found = async |view| catalog.head_in(view, "npm", &name).await.unwrap().map(|head| head.package.owner);
    assert_eq!((found(View::Root).await, found(beta).await), (Some(w.accounts["beta"]), Some(w.accounts["beta"])));
    assert_eq!(found(acme).await, None);
    assert!(catalog.moved_away(acme, "npm", &name).await.unwrap() && !catalog.moved_away(beta, "npm", &name).await.unwrap());
    // Neither in the root view nor among its former owner's packages can another package have it.
    assert!(w.engine.publish("npm", "@acme/tool", w.accounts["acme"], "9.0.0").await.is_err());
    // Where the new owner has one of that name already, it does not come.
    w.engine.publish("npm", "thing", w.accounts["own"], "1.0.0").await.unwrap();
    w.check("own", "POST /user/packages/npm/thing/transfer", r#"{"new_owner":"beta"}"#, 200).await;
    w.check("own", "POST /orgs/beta/packages/npm/thing/transfer", r#"{"new_owner":"own"}"#, 200).await;
    // It came home, and may go again.
    w.check("own", "GET /user/packages/npm/thing", "", 200).await;
    w.check("own", "POST /user/packages/npm/thing/transfer", r#"{"new_owner":"beta"}"#, 200).await;
    w.check("own", "GET /user/packages/npm/thing", "", 404).await;
    // What is deleted is not moved, and comes back where it was.
    w.check("own", "DELETE /orgs/beta/packages/npm/thing", "", 204).await;
    w.check("own", "POST /orgs/beta/packages/npm/thing/transfer", r#"{"new_owner":"own"}"#, 404).await;
    w.check("own", "POST /orgs/beta/packages/npm/thing/restore", "", 204).await;
}

#[tokio::test]
async fn a_repository_that_moves_lets_go_of_everything() {
    let mut w = world().await;
    w.second().await;
    let package = w.check("own", &format!("PUT {TOOL}/repository"), r#"{"repository":"acme/web"}"#, 200).await;
    assert_eq!(package["repository"]["name"], "web");
    w.check("own", &format!("PUT {TOOL}/access"), r#"{"mode":"inherit"}"#, 200).await;
    w.check("own", &format!("PUT {TOOL}/actions-access/web"), r#"{"role":"write"}"#, 204).await;
    w.check("own", "PUT /orgs/acme/teams/core/repos/acme/web", r#"{"permission":"admin"}"#, 204).await;
    let id = w.check("own", "GET /repos/acme/web", "", 200).await["id"].clone();
    w.check("adm", "POST /repos/acme/web/transfer", r#"{"new_owner":"beta"}"#, 403).await;
    w.check("own", "POST /repos/acme/web/transfer", r#"{"new_owner":"nobody"}"#, 422).await;
    let moved = w.check("own", "POST /repos/acme/web/transfer", r#"{"new_owner":"beta","new_name":"site"}"#, 202).await;
    assert_eq!((&moved["full_name"], &moved["id"]), (&json!("beta/site"), &id));
    w.check("own", "GET /repos/acme/web", "", 404).await;
    // The member of both has no role on it, nor has the old team; the package has its own roles again.
    w.check("rea", "GET /repos/beta/site", "", 404).await;
    assert_eq!(w.check("own", "GET /repos/beta/site/teams", "", 200).await, json!([]));
    assert_eq!(w.check("own", "GET /repos/beta/site/collaborators", "", 200).await[0]["login"], "own");
    assert_eq!(w.check("own", &format!("GET {TOOL}/access"), "", 200).await["mode"], "granular");
    assert!(w.check("own", &format!("GET {TOOL}"), "", 200).await.get("repository").is_none());
    assert_eq!(w.check("own", &format!("GET {TOOL}/actions-access"), "", 200).await, json!([]));
    // Nothing comes back with it.
    w.check("own", "POST /repos/beta/site/transfer", r#"{"new_owner":"acme","new_name":"web"}"#, 202).await;
    assert!(w.check("own", &format!("GET {TOOL}"), "", 200).await.get("repository").is_none());
    assert_eq!(w.check("own", &format!("GET {TOOL}/actions-access"), "", 200).await, json!([]));
    w.check("wes", "GET /repos/acme/web", "", 404).await;
    // A name that is taken stays who has it.
    w.check("own", "POST /orgs/beta/repos", r#"{"name":"web"}"#, 201).await;
    let taken = w.check("own", "POST /repos/acme/web/transfer", r#"{"new_owner":"beta"}"#, 422).await;
    assert_eq!(taken["errors"][0]["code"], "already_exists");
    for org in ["acme", "beta"] {
        let log = w.check("own", &format!("GET /orgs/{org}/audit-log?phrase=action:repo.transfer"), "", 200).await;
        assert_eq!(log.as_array().unwrap().len(), 2, "{org}");
        assert_eq!((&log[1]["repo"], &log[1]["old_name"]), (&json!(format!("{org}/site")), &json!("acme/web")));
    }
}

#[tokio::test]
async fn packages_of_a_repository_go_with_it_and_keep_it_from_going_alone() {
    let mut w = world().await;
    w.second().await;
    let web = w.engine.identity.repository(w.accounts["acme"], &RepositoryName::new("web").unwrap()).await.unwrap();
    w.engine.publish_in_repository("npm", "scoped", &web, "1.0.0").await.unwrap();
    let scoped = "/orgs/acme/packages/npm/scoped";
    assert_eq!(w.answers(&format!("GET {scoped}")).await, [404, 404, 404, 200, 200, 200, 200]);
    w.check("own", &format!("POST {scoped}/transfer"), r#"{"new_owner":"beta"}"#, 422).await;
    assert_eq!(w.check("own", "DELETE /repos/acme/web", "", 409).await["status"], "409");
    w.check("own", "POST /repos/acme/web/transfer", r#"{"new_owner":"beta"}"#, 202).await;
    assert_eq!(w.answers(&format!("GET {scoped}")).await, [404; 7]);
    let there = "/orgs/beta/packages/npm/scoped";
    assert_eq!(w.answers(&format!("GET {there}")).await, [404, 404, 404, 404, 404, 404, 200]);
    // Its roles are the repository's, there too.
    w.check("own", "PUT /repos/beta/web/collaborators/rea", r#"{"permission":"pull"}"#, 204).await;
    w.check("rea", &format!("GET {there}"), "", 200).await;
    w.check("own", &format!("DELETE {there}"), "", 204).await;
    w.check("own", "DELETE /repos/beta/web", "", 204).await;
    // What was deleted before its repository is its owner's alone when it comes back.
    w.check("own", &format!("POST {there}/restore"), "", 204).await;
    assert_eq!(w.answers(&format!("GET {there}")).await, [404, 404, 404, 404, 404, 404, 200]);
}

#[tokio::test]
async fn who_comes_back_has_no_role_of_then() {
    let w = world().await;
    w.check("own", "PUT /repos/acme/web/collaborators/adm", r#"{"permission":"admin"}"#, 204).await;
    for (caller, expected) in [("adm", 200), ("former", 404)] {
        w.check(caller, &format!("GET {TOOL}"), "", expected).await;
    }
    w.check("own", "DELETE /orgs/acme/members/adm", "", 204).await;
    w.check("adm", &format!("GET {TOOL}"), "", 404).await;
    for login in ["adm", "former"] {
        w.check("own", &format!("PUT /orgs/acme/memberships/{login}"), r#"{"role":"member"}"#, 200).await;
        w.check(login, &format!("GET {TOOL}"), "", 404).await;
        w.check(login, "GET /repos/acme/web", "", 404).await;
    }
    let roles = w.check("own", &format!("GET {TOOL}/roles"), "", 200).await;
    assert!(!roles.to_string().contains("\"adm\"") && roles.to_string().contains("\"wes\""), "{roles}");
    // A role of now counts.
    w.check("own", &format!("PUT {TOOL}/roles/users/adm"), r#"{"role":"read"}"#, 204).await;
    w.check("adm", &format!("GET {TOOL}"), "", 200).await;
}

#[tokio::test]
async fn teams_are_renamed_with_all_they_have() {
    let w = world().await;
    w.check("own", &format!("PUT {TOOL}/roles/teams/core"), r#"{"role":"read"}"#, 204).await;
    w.check("own", "POST /orgs/acme/teams", r#"{"name":"other"}"#, 201).await;
    w.check("own", "PATCH /orgs/acme/teams/core", r#"{"name":"other"}"#, 422).await;
    let renamed = w.check("own", "PATCH /orgs/acme/teams/core", r#"{"name":"Kernel"}"#, 200).await;
    assert_eq!(renamed["slug"], "kernel");
    w.check("own", "GET /orgs/acme/teams/core", "", 404).await;
    w.check("mem", &format!("GET {TOOL}"), "", 200).await;
    // Who takes the old name gets nothing with it.
    w.check("own", "POST /orgs/acme/teams", r#"{"name":"core"}"#, 201).await;
    w.check("own", "PUT /orgs/acme/memberships/out", r#"{"role":"member"}"#, 200).await;
    w.check("own", "PUT /orgs/acme/teams/core/memberships/out", "", 200).await;
    w.check("out", &format!("GET {TOOL}"), "", 404).await;
}

#[tokio::test]
async fn nobody_takes_over_what_a_renamed_account_was_called() {
    let w = world().await;
    w.check("site", "PATCH /admin/organizations/acme", r#"{"login":"apex"}"#, 202).await;
    let name = PackageName::new("@acme/tool").unwrap();
    let settings = Settings { visibility: Some(Visibility::Public), ..Settings::default() };
    w.engine.registry.change_settings(&Grant::system(("npm", &name, None)), settings).await.unwrap();
    for (line, body) in [
        ("POST /admin/users", r#"{"login":"acme"}"#),
        ("POST /admin/organizations", r#"{"login":"acme","admin":"out"}"#),
        ("PATCH /admin/users/out", r#"{"login":"acme"}"#),
    ] {
        assert_eq!(w.check("site", line, body, 422).await["errors"][0]["code"], "already_exists", "{line}");
    }
    // The old login leads nowhere; the package is found under the new one, by its name of always.
    w.check("own", "GET /orgs/acme/packages/npm/tool", "", 404).await;
    assert_eq!(w.check("", "GET /orgs/apex/packages/npm/@acme%2Ftool", "", 200).await["owner"]["login"], "apex");
    w.check("site", "PATCH /admin/organizations/apex", r#"{"login":"acme"}"#, 202).await;
    w.check("own", "GET /orgs/acme/packages/npm/tool", "", 200).await;
}

#[tokio::test]
async fn an_organisation_keeps_an_owner() {
    let w = world().await;
    let refused = w.check("own", "DELETE /orgs/acme/members/own", "", 403).await;
    assert_eq!(refused["message"], "The last owner of an organization cannot leave it.");
    w.check("own", "PUT /orgs/acme/memberships/own", r#"{"role":"member"}"#, 403).await;
    w.check("own", "DELETE /user/packages/npm/tool", "", 204).await;
    let refused = w.check("site", "DELETE /admin/users/own", "", 409).await;
    assert_eq!(refused["message"], "the user is the last owner of acme");
    w.check("own", "PUT /orgs/acme/memberships/adm", r#"{"role":"admin"}"#, 200).await;
    w.check("site", "DELETE /admin/users/own", "", 204).await;
    w.check("adm", "DELETE /orgs/acme/members/adm", "", 403).await;
    w.advance(Duration::from_secs(2));
    w.check("adm", "GET /orgs/acme/members", "", 200).await;
}
