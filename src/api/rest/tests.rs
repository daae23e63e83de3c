//! The API as its clients use it, over an engine in memory.

use std::collections::HashMap;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::identity::{AccountChange, NewToken, NewUser, OrganisationRole, RepositoryRole, Scopes};
use crate::name::{PackageName, RepositoryName, TeamName};
use crate::package::{AccountId, Principal, Role, TokenId, Visibility};
use crate::registry::{Settings, fixture};

/// People, an organisation `acme` with a package `@acme/tool` of two versions, and a package of everybody's own.
///
/// `own` owns acme, `adm`, `wes` and `rea` are members with the roles admin, write and
/// read on the package and on the repository `web`, `mem` is a member in the team `core`
/// without any, `former` had the role admin and left, `out` never came in, `site` is a site admin.
pub(super) struct World {
    engine: fixture::Fixture,
    accounts: HashMap<&'static str, AccountId>,
    tokens: HashMap<&'static str, String>,
    ids: HashMap<String, TokenId>,
    versions: HashMap<&'static str, u64>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn headers_but_id(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.remove(REQUEST_ID);
        headers
    }
}

impl World {
    pub(super) async fn new(visibility: Visibility) -> Self {
        let engine = fixture::fixture().await;
        let mut world = Self { engine, accounts: HashMap::new(), tokens: HashMap::new(), ids: HashMap::new(), versions: HashMap::new() };
        for login in ["own", "adm", "wes", "rea", "mem", "former", "out", "site"] {
            let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: login == "site" };
            let user = world.engine.identity.create_user(new).await.unwrap().id;
            world.accounts.insert(login, user);
            let token = world.mint(login, Scopes::all()).await;
            world.tokens.insert(login, token);
            let name = format!("@{login}/tool");
            world.publish(login, &name, user, &["1.0.0", "1.1.0"]).await;
        }
        world.organisation(visibility).await;
        world
    }

    async fn organisation(&mut self, visibility: Visibility) {
        let identity = Arc::clone(&self.engine.identity);
        let acme = identity.create_organisation(OwnerName::new("acme").unwrap(), Some(self.accounts["own"])).await.unwrap().id;
        self.accounts.insert("acme", acme);
        for login in ["adm", "wes", "rea", "mem", "former"] {
            identity.set_member(acme, self.accounts[login], OrganisationRole::Member).await.unwrap();
        }
        let team = identity.create_team(acme, TeamName::new("core").unwrap()).await.unwrap();
        identity.add_team_member(team.id, self.accounts["mem"]).await.unwrap();
        let web = identity.create_repository(acme, RepositoryName::new("web").unwrap(), Visibility::Private).await.unwrap();
        self.publish("acme", "@acme/tool", acme, &["1.0.0", "1.1.0"]).await;
        let name = PackageName::new("@acme/tool").unwrap();
        let grant = crate::access::Grant::system(("npm", &name, None));
        let settings = Settings { visibility: Some(visibility), ..Settings::default() };
        self.engine.registry.change_settings(&grant, settings).await.unwrap();
        for (login, on_package, on_repository) in [
            ("adm", Role::Admin, RepositoryRole::Admin),
            ("former", Role::Admin, RepositoryRole::Admin),
            ("wes", Role::Write, RepositoryRole::Write),
            ("rea", Role::Read, RepositoryRole::Read),
        ] {
            let principal = Principal::User(self.accounts[login]);
            self.engine.registry.set_role(&grant, principal, Some(on_package)).await.unwrap();
            identity.set_repository_role(web.id, principal, Some(on_repository)).await.unwrap();
        }
        identity.remove_member(acme, self.accounts["former"]).await.unwrap();
    }

    /// Publishes versions of a package and remembers the id of the last one under a key.
    async fn publish(&mut self, key: &'static str, name: &str, owner: AccountId, numbers: &[&str]) {
        for number in numbers {
            self.engine.publish("npm", name, owner, number).await.unwrap();
        }
        let name = PackageName::new(name).unwrap();
        let catalog = self.engine.registry.catalog();
        let head = catalog.head("npm", &name).await.unwrap().unwrap();
        let listed = catalog.listed(&crate::access::Grant::system(("npm", &name, None)), &head).await.unwrap();
        self.versions.insert(key, listed[0].id.0);
    }

    /// The id of a version of an owner's package.
    pub(super) fn version(&self, owner: &str) -> u64 {
        self.versions.get(owner).copied().unwrap_or(1)
    }

    pub(super) async fn mint(&mut self, login: &'static str, scopes: Scopes) -> String {
        self.mint_until(login, scopes, None).await
    }

    pub(super) async fn mint_until(&mut self, login: &'static str, scopes: Scopes, lifetime: Option<Duration>) -> String {
        let expires_at = lifetime.map(|lifetime| self.engine.registry.clock().now().plus(lifetime));
        let new = NewToken { note: String::new(), scopes, expires_at };
        let (token, text) = self.engine.identity.mint_token(self.accounts[login], new).await.unwrap();
        self.ids.insert(text.expose().to_owned(), token.id);
        text.expose().to_owned()
    }

    pub(super) async fn revoke(&self, login: &str, token: &str) {
        self.engine.identity.revoke_token(self.accounts[login], self.ids[token]).await.unwrap();
    }

    pub(super) async fn suspend(&self, login: &str) {
        let change = AccountChange { disabled: Some(true), ..AccountChange::default() };
        self.engine.identity.change_account(self.accounts[login], change).await.unwrap();
    }

    pub(super) fn advance(&self, span: Duration) {
        self.engine.registry.clock().advance(span);
    }

    /// A request of someone by login; nobody's login is empty.
    pub(super) async fn ask(&self, caller: &str, method: Method, target: &str, body: &str) -> Answer {
        self.ask_with(self.tokens.get(caller).map(String::as_str), method, target, body, &[]).await
    }

    pub(super) async fn ask_with(&self, token: Option<&str>, method: Method, target: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = http::Request::builder().method(method).uri(target).header(header::USER_AGENT, "test");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("token {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let caller = self.engine.identity.identify(&parts.headers).await;
        let body = Upload::memory(body.to_owned());
        let response = serve(&self.engine.registry, "http://h", caller, &parts, parts.uri.path(), body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// A request that is answered with a status; gives the body.
    async fn check(&self, caller: &str, line: &str, body: &str, status: u16) -> Value {
        let (method, target) = line.split_once(' ').unwrap();
        let answer = self.ask(caller, method.parse().unwrap(), target, body).await;
        assert_eq!(answer.status, status, "{line} {body} as {caller}: {}", answer.body);
        answer.body
    }
}

async fn world() -> World {
    World::new(Visibility::Private).await
}

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
