//! The API as a client sees it, and every endpoint as every kind of caller.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::*;
use crate::http::{Upload, header};
use crate::identity::{NewToken, Scopes};
use crate::registry::fixture;

struct Fixture {
    api: Api,
    engine: fixture::Fixture,
}

async fn fixture() -> Fixture {
    let engine = fixture::fixture().await;
    Fixture { api: over(&engine), engine }
}

/// The API over an engine; a check finds nothing wrong and a clean-up takes a while.
pub(crate) fn over(engine: &fixture::Fixture) -> Api {
    let registry = Arc::clone(&engine.registry);
    let fsck = || std::future::ready(Ok(json!({ "clean": true }))).boxed();
    let gc = || async { Ok(json!({ "waited": tokio::time::sleep(Duration::from_millis(200)).await })) }.boxed();
    Api {
        identity: Arc::clone(&engine.identity),
        ecosystems: crate::ecosystem::ALL.to_vec(),
        registry: Box::new(move || Arc::clone(&registry)),
        upkeep: Upkeep::new(Box::new(fsck), Box::new(gc)),
    }
}

struct Answer {
    status: u16,
    link: Option<String>,
    body: Value,
}

impl Fixture {
    async fn ask_as(&self, caller: &Caller, method: Method, target: &str, body: &str) -> Answer {
        let request = http::Request::builder().method(method).uri(target).body(Upload::memory(body.to_owned())).unwrap();
        let response = serve(&self.api, request, caller).await;
        let status = response.status().as_u16();
        let link = response.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status, link, body }
    }

    async fn ask(&self, method: Method, target: &str, body: &str) -> Answer {
        self.ask_as(&Caller::System, method, target, body).await
    }

    async fn check(&self, line: &str, body: &str, status: u16) -> Value {
        let (method, target) = line.split_once(' ').unwrap();
        let answer = self.ask(method.parse().unwrap(), target, body).await;
        assert_eq!(answer.status, status, "{line} {body}: {}", answer.body);
        if status >= 400 {
            assert!(answer.body["message"].is_string() && answer.body["documentation_url"].is_string());
        }
        answer.body
    }
}

#[tokio::test]
async fn an_operator_sets_up_an_organisation() {
    let f = fixture().await;
    let user = f.check("POST /users", r#"{"login":"Ann","email":"ann@acme.example"}"#, 201).await;
    assert_eq!((user["login"].as_str(), user["type"].as_str()), (Some("ann"), Some("User")));
    f.check("POST /users", r#"{"login":"bob"}"#, 201).await;
    f.check("POST /orgs", r#"{"login":"acme","owner":"ann"}"#, 201).await;
    f.check("PUT /orgs/acme/members/bob", r#"{"role":"member"}"#, 200).await;
    f.check("POST /orgs/acme/teams", r#"{"name":"Core"}"#, 201).await;
    f.check("PUT /orgs/acme/teams/core/members/bob", "", 204).await;
    let members = f.check("GET /orgs/acme/teams/core/members", "", 200).await;
    assert_eq!(members.as_array().unwrap().len(), 1);
    f.check("POST /repos/acme", r#"{"name":"web","visibility":"internal"}"#, 201).await;
    f.check("PUT /repos/acme/web/roles/team:core", r#"{"role":"maintain"}"#, 204).await;
    f.check("PUT /repos/acme/web/roles/user:bob", r#"{"role":"read"}"#, 204).await;
    let roles = f.check("GET /repos/acme/web/roles", "", 200).await;
    assert_eq!(roles, json!([{ "principal": "user:bob", "role": "read" }, { "principal": "team:core", "role": "maintain" }]));
    f.check("DELETE /repos/acme/web/roles/user:bob", "", 204).await;
    f.check("DELETE /repos/acme/web/roles/user:bob", "", 404).await;
    let repository = f.check("PATCH /repos/acme/web", r#"{"visibility":"public"}"#, 200).await;
    assert_eq!((&repository["full_name"], &repository["private"]), (&json!("acme/web"), &json!(false)));
    f.check("PUT /reservations/npm/@Acme%2F*", r#"{"owner":"acme"}"#, 204).await;
    let reservations = f.check("GET /reservations", "", 200).await;
    assert_eq!(reservations, json!([{ "ecosystem": "npm", "pattern": "@acme/*", "owner": "acme", "merge": false }]));
    f.check("DELETE /reservations/npm/@acme%2F*", "", 204).await;
    f.check("DELETE /orgs/acme", "", 409).await;
    f.check("DELETE /repos/acme/web", "", 204).await;
    f.check("DELETE /orgs/acme/teams/core", "", 204).await;
    f.check("DELETE /orgs/acme/members/bob", "", 204).await;
    f.check("DELETE /orgs/acme", "", 204).await;
    let renamed = f.check("PATCH /users/bob", r#"{"login":"rob","disabled":true}"#, 200).await;
    assert_eq!((&renamed["login"], &renamed["disabled"]), (&json!("rob"), &json!(true)));
    f.check("DELETE /users/rob", "", 204).await;
    assert_eq!(f.check("GET /users", "", 200).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_is_shown_once() {
    let f = fixture().await;
    f.check("POST /users", r#"{"login":"ann"}"#, 201).await;
    let token =
        f.check("POST /users/ann/tokens", r#"{"scopes":["read:packages"],"note":"ci","expires_at":"2030-01-01T00:00:00Z"}"#, 201).await;
    assert!(token["token"].as_str().unwrap().starts_with("pkh_"));
    let list = f.check("GET /users/ann/tokens", "", 200).await;
    assert!(list[0].get("token").is_none() && list[0]["id"] == token["id"]);
    f.check("POST /users/bob/tokens", r#"{"scopes":[]}"#, 404).await;
    f.check("POST /users/ann/tokens", r#"{"scopes":["all"]}"#, 422).await;
    f.check(&format!("DELETE /users/ann/tokens/{}", token["id"]), "", 204).await;
    f.check("DELETE /users/ann/tokens/9999", "", 404).await;
    f.check("DELETE /users/ann/tokens/x", "", 404).await;
    assert_eq!(f.check("GET /users/ann/tokens", "", 200).await[0]["revoked"], true);
}

#[tokio::test]
async fn bad_input_gets_a_clear_error() {
    let f = fixture().await;
    f.check("POST /users", r#"{"login":"ann"}"#, 201).await;
    f.check("POST /users", r#"{"login":"ann"}"#, 409).await;
    assert_eq!(f.check("POST /users", "{", 400).await["message"], "Problems parsing JSON");
    f.check("POST /users", "", 400).await;
    f.check("POST /users", r#"{"name":"x"}"#, 422).await;
    f.check("POST /users", r#"{"login":"../x"}"#, 422).await;
    f.check("POST /users", r#"{"login":7}"#, 422).await;
    f.check("POST /users", &format!(r#"{{"login":"{}"}}"#, "x".repeat(70_000)), 413).await;
    f.check("GET /orgs/ann", "", 404).await;
    f.check("GET /users/nobody", "", 404).await;
    f.check("GET /users/a%00b", "", 404).await;
    f.check("GET /users/..", "", 404).await;
    f.check("GET /users/ann/", "", 404).await;
    f.check("GET /users//tokens", "", 404).await;
    f.check("GET /", "", 404).await;
    f.check("PUT /users", "", 405).await;
    f.check("GET /users?limit=0", "", 400).await;
    f.check("GET /users?limit=5000", "", 400).await;
    f.check("GET /users?after=x", "", 400).await;
    f.check("PUT /reservations/nmp/x", r#"{"owner":"ann"}"#, 404).await;
    f.check("PUT /reservations/npm/*", r#"{"owner":"ann"}"#, 400).await;
    f.check("PUT /orgs/ann/members/ann", r#"{"role":"owner"}"#, 404).await;
    f.check("POST /repos/ann", r#"{"name":".."}"#, 422).await;
    f.check("PUT /repos/ann/x/roles/user:ann", r#"{"role":"read"}"#, 404).await;
}

#[tokio::test]
async fn lists_lead_on_to_their_next_part() {
    let f = fixture().await;
    for index in 0..5 {
        f.check("POST /users", &format!(r#"{{"login":"u{index}"}}"#), 201).await;
    }
    let (mut target, mut seen) = ("/users?limit=2".to_owned(), 0);
    for _ in 0..10 {
        let answer = f.ask(Method::GET, &target, "").await;
        seen += answer.body.as_array().unwrap().len();
        match answer.link {
            None => break,
            Some(link) => target = link.strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned(),
        }
    }
    assert_eq!(seen, 5);
}

/// Every endpoint as every kind of caller, with the template's own text as segments.
#[tokio::test]
async fn every_endpoint_is_closed_to_all_but_the_operator() {
    let f = fixture().await;
    let identity = &f.api.identity;
    let admin = identity.first_start().await.unwrap().unwrap();
    let as_caller = async |text: &str| {
        let headers = [(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {text}")).unwrap())];
        identity.identify(&headers.into_iter().collect()).await.unwrap()
    };
    let login = OwnerName::new("ann").unwrap();
    let ann = identity.create_user(crate::identity::NewUser { login, email: None, site_admin: false }).await.unwrap();
    let admin_id = identity.account_by_login(&OwnerName::new("admin").unwrap()).await.unwrap().id;
    let new = |scopes| NewToken { note: String::new(), scopes, expires_at: None };
    let (_, user) = identity.mint_token(ann.id, new(Scopes::all())).await.unwrap();
    let (_, bare) = identity.mint_token(admin_id, new(Scopes::default())).await.unwrap();
    let (admin, user, bare) = (as_caller(admin.expose()).await, as_caller(user.expose()).await, as_caller(bare.expose()).await);
    for endpoint in ENDPOINTS {
        let status = async |caller: &Caller| f.ask_as(caller, endpoint.method.clone(), endpoint.path, "").await.status;
        let label = format!("{} {}", endpoint.method, endpoint.path);
        match endpoint.need {
            Need::System => {
                for caller in [&Caller::Anonymous, &*user, &*bare, &*admin] {
                    assert_eq!(status(caller).await, 404, "{label}");
                }
            }
            Need::Operator(_) => {
                assert_eq!(status(&Caller::Anonymous).await, 401, "{label}");
                assert_eq!(status(&user).await, 404, "{label}");
                assert_eq!(status(&bare).await, 403, "{label}");
                assert!(![401, 403, 405].contains(&status(&admin).await), "{label}");
            }
        }
        // Reaches its handler, which answers without a fault of the server's.
        assert!(status(&Caller::System).await < 500, "{label}");
    }
}

#[test]
fn no_two_endpoints_take_the_same_request() {
    for (index, one) in ENDPOINTS.iter().enumerate() {
        for two in &ENDPOINTS[index + 1..] {
            let segments = path::segments(two.path).unwrap();
            assert!(one.method != two.method || fit(one.path, &segments).is_none(), "{} {}", one.path, two.path);
        }
    }
}

#[tokio::test]
async fn the_socket_serves_the_operator_alone_and_goes_away() {
    use std::os::unix::fs::PermissionsExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // What a killed server leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = socket::Socket::bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(socket.serve(Arc::new(fixture().await.api), stopped));
    assert_eq!(socket::Socket::bind(&path).await.err().unwrap().kind(), Kind::Conflict);

    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    // An idle connection does not hold up the end.
    let _idle = tokio::net::UnixStream::connect(&path).await.unwrap();
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert!(!path.exists());
}

/// An organisation with a member, a team and a repository, another user, and packages of both.
async fn with_packages() -> Fixture {
    let f = fixture().await;
    for login in ["ann", "bob", "eve"] {
        f.check("POST /users", &format!(r#"{{"login":"{login}"}}"#), 201).await;
    }
    f.check("POST /orgs", r#"{"login":"acme","owner":"ann"}"#, 201).await;
    f.check("PUT /orgs/acme/members/bob", r#"{"role":"member"}"#, 200).await;
    f.check("POST /orgs/acme/teams", r#"{"name":"core"}"#, 201).await;
    f.check("POST /repos/acme", r#"{"name":"web"}"#, 201).await;
    f.check("POST /repos/eve", r#"{"name":"own"}"#, 201).await;
    let id = async |login: &str| f.engine.identity.account_by_login(&OwnerName::new(login).unwrap()).await.unwrap().id;
    let (acme, eve) = (id("acme").await, id("eve").await);
    for number in ["1.0.0", "1.1.0", "2.0.0-rc.1"] {
        f.engine.publish("npm", "@acme/tool", acme, number).await.unwrap();
    }
    f.engine.publish("npm", "eves", eve, "1.0.0").await.unwrap();
    f
}

const TOOL: &str = "/packages/npm/@acme%2Ftool";

impl Fixture {
    async fn tool(&self, method: &str, rest: &str, body: &str, status: u16) -> Value {
        self.check(&format!("{method} {TOOL}{rest}"), body, status).await
    }
}

#[tokio::test]
async fn an_operator_sees_packages() {
    let f = with_packages().await;
    let list = f.check("GET /packages/npm", "", 200).await;
    let line = |item: &Value| ["name", "owner", "visibility", "versions"].map(|field| item[field].clone());
    assert_eq!(line(&list[0]), [json!("@acme/tool"), json!("acme"), json!("private"), json!(3)]);
    assert_eq!(line(&list[1]), [json!("eves"), json!("eve"), json!("private"), json!(1)]);
    let part = f.ask(Method::GET, "/packages/npm?limit=1", "").await;
    assert_eq!(part.link.as_deref(), Some("</packages/npm?limit=1&after=%40acme%2Ftool>; rel=\"next\""));
    let rest = f.check("GET /packages/npm?limit=1&after=%40acme%2Ftool", "", 200).await;
    assert_eq!(rest[0]["name"], "eves");

    let tool = f.tool("GET", "", "", 200).await;
    assert_eq!(tool["tags"], json!({ "latest": "1.0.0" }));
    assert_eq!(tool["versions"].as_array().unwrap().len(), 3);
    assert_eq!((&tool["versions"][0]["version"], &tool["versions"][0]["published_by"]), (&json!("1.0.0"), &json!("acme")));
    assert_eq!(tool["versions"][0]["files"][0]["name"], "tool-1.0.0.tgz");
    assert_eq!(tool["roles"], json!([{ "principal": "user:acme", "role": "admin" }]));

    for wrong in ["/packages/nmp", "/packages/nmp/x", "/packages/npm/nothing", "/packages/npm/@Acme%2Ftool", "/packages/npm/@acme/tool"] {
        f.check(&format!("GET {wrong}"), "", 404).await;
    }
    f.check(&format!("GET /packages/npm/{}", "x".repeat(600)), "", 404).await;
    f.check("GET /packages/npm?after=", "", 400).await;
}

#[tokio::test]
async fn an_operator_changes_a_package() {
    let f = with_packages().await;
    assert_eq!(f.tool("PATCH", "", r#"{"visibility":"public"}"#, 200).await["visibility"], "public");
    f.tool("PATCH", "", r#"{"inherits":true}"#, 422).await;
    let linked = f.tool("PATCH", "", r#"{"repository":"Acme/web","inherits":true}"#, 200).await;
    assert_eq!((&linked["repository"], &linked["visibility"]), (&json!("acme/web"), &json!("public")));
    assert_eq!(f.tool("GET", "", "", 200).await["inherits"], true);
    f.tool("PATCH", "", "{}", 200).await;
    assert_eq!(f.tool("GET", "", "", 200).await["repository"], "acme/web", "what is not named stays");
    assert_eq!(f.tool("PATCH", "", r#"{"repository":null}"#, 200).await["repository"], Value::Null);
    assert_eq!(f.tool("GET", "", "", 200).await["inherits"], false);
    for (body, status) in [
        (r#"{"repository":"eve/own"}"#, 422),
        (r#"{"repository":"own"}"#, 422),
        (r#"{"repository":"acme/../x"}"#, 422),
        (r#"{"repository":"acme/nothing"}"#, 404),
        (r#"{"repository":"nobody/web"}"#, 404),
        (r#"{"repository":7}"#, 422),
        (r#"{"visibility":"secret"}"#, 422),
        (r#"{"visible":"public"}"#, 422),
        ("{", 400),
    ] {
        f.tool("PATCH", "", body, status).await;
    }
}

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let f = with_packages().await;
    let deeds = async |query: &str| -> Vec<String> {
        let events = f.check(&format!("GET /audit{query}"), "", 200).await;
        let line = |event: &Value| {
            let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("deed"), text("package"), text("version"))
        };
        events.as_array().unwrap().iter().filter(|event| event["package"].is_string()).map(line).collect()
    };
    f.tool("PATCH", "", r#"{"visibility":"public"}"#, 200).await;
    f.tool("PUT", "/roles/user:bob", r#"{"role":"write"}"#, 204).await;
    f.tool("DELETE", "/versions/1.1.0", "", 204).await;
    f.tool("POST", "/versions/1.1.0/restore", "", 204).await;
    f.tool("DELETE", "", "", 204).await;
    let of_tool = [
        "published @acme/tool 1.0.0",
        "published @acme/tool 1.1.0",
        "published @acme/tool 2.0.0-rc.1",
        "visibility_changed @acme/tool -",
        "roles_changed @acme/tool -",
        "deleted @acme/tool 1.1.0",
        "restored @acme/tool 1.1.0",
        "deleted @acme/tool -",
    ];
    assert_eq!(deeds("?owner=acme").await, of_tool);
    assert_eq!(deeds("?ecosystem=npm&name=%40acme%2Ftool").await, of_tool);
    assert_eq!(deeds("?owner=eve").await, ["published eves 1.0.0"]);
    assert_eq!(deeds("").await.len(), of_tool.len() + 1);
    let first = f.check("GET /audit?ecosystem=npm&name=%40acme%2Ftool&limit=1", "", 200).await;
    assert_eq!(deeds(&format!("?ecosystem=npm&name=%40acme%2Ftool&limit=1&after={}", first[0]["id"])).await, of_tool[1..2]);
    // What happened to accounts stands among it, in order.
    let all = f.check("GET /audit?owner=acme", "", 200).await;
    let ids: Vec<u64> = all.as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted());
    assert_eq!((&all[0]["deed"], &all[0]["owner"]), (&json!("org.create"), &json!("acme")));
    assert_eq!(all[1]["about"], json!({ "user": "bob", "user_id": all[1]["about"]["user_id"], "role": "member" }));
    let answer = f.ask(Method::GET, "/audit?owner=acme&limit=2", "").await;
    assert!(answer.link.unwrap().contains("owner=acme"));
    f.check("GET /audit?owner=nobody", "", 404).await;
    f.check("GET /audit?ecosystem=npm&name=nothing", "", 404).await;
    f.check("GET /audit?owner=acme&name=x", "", 400).await;
}

#[tokio::test]
async fn roles_go_to_those_who_can_have_one() {
    let f = with_packages().await;
    f.tool("PUT", "/roles/user:bob", r#"{"role":"write"}"#, 204).await;
    f.tool("PUT", "/roles/user:bob", r#"{"role":"read"}"#, 204).await;
    f.tool("PUT", "/roles/team:core", r#"{"role":"admin"}"#, 204).await;
    f.tool("DELETE", "/roles/user:acme", "", 204).await;
    let roles = f.tool("GET", "", "", 200).await["roles"].clone();
    assert_eq!(roles, json!([{ "principal": "user:bob", "role": "read" }, { "principal": "team:core", "role": "admin" }]));
    f.tool("PUT", "/roles/user:eve", r#"{"role":"read"}"#, 400).await;
    f.tool("PUT", "/roles/user:nobody", r#"{"role":"read"}"#, 404).await;
    f.tool("PUT", "/roles/team:nobody", r#"{"role":"read"}"#, 404).await;
    f.tool("PUT", "/roles/bob", r#"{"role":"read"}"#, 404).await;
    f.tool("PUT", "/roles/user:bob", r#"{"role":"maintain"}"#, 422).await;
    f.tool("DELETE", "/roles/user:bob", "", 204).await;
    f.tool("DELETE", "/roles/user:bob", "", 404).await;
}

#[tokio::test]
async fn versions_are_deleted_and_restored() {
    let f = with_packages().await;
    f.tool("DELETE", "/versions/1.0.0", "", 204).await;
    f.tool("DELETE", "/versions/1.0.0", "", 404).await;
    f.tool("DELETE", "/versions/9.0.0", "", 404).await;
    let tool = f.tool("GET", "", "", 200).await;
    assert_eq!(tool["tags"], json!({ "latest": "1.1.0" }), "the highest release is left the default");
    assert!(tool["versions"][0]["deleted_at"].is_string());
    assert_eq!(f.check("GET /packages/npm", "", 200).await[0]["versions"], 2);
    f.tool("DELETE", "/versions/2.0.0-rc.1", "", 204).await;
    let refused = f.tool("DELETE", "/versions/1.1.0", "", 400).await;
    assert_eq!(refused["message"], "You cannot delete the last version of a package. You must delete the package instead.");
    f.tool("POST", "/versions/1.1.0/restore", "", 409).await;
    f.tool("POST", "/versions/9.0.0/restore", "", 404).await;
    f.tool("POST", "/versions/1.0.0/restore", "", 204).await;
    let tool = f.tool("GET", "", "", 200).await;
    assert_eq!(tool["tags"], json!({ "latest": "1.1.0" }));
    assert!(tool["versions"][0]["deleted_at"].is_null());
    let acme = f.engine.identity.account_by_login(&OwnerName::new("acme").unwrap()).await.unwrap().id;
    assert_eq!(f.engine.publish("npm", "@acme/tool", acme, "2.0.0-rc.1").await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn packages_are_deleted_and_restored_and_hold_their_owner() {
    let f = with_packages().await;
    f.check("DELETE /repos/acme/web", "", 204).await;
    let refused = f.check("DELETE /orgs/acme", "", 409).await;
    assert_eq!(refused["message"], "the account still owns packages");
    f.tool("POST", "/restore", "", 409).await;
    f.tool("DELETE", "", "", 204).await;
    for (method, rest, body) in [
        ("DELETE", "", ""),
        ("PATCH", "", "{}"),
        ("DELETE", "/versions/1.0.0", ""),
        ("PUT", "/roles/user:bob", r#"{"role":"read"}"#),
        ("DELETE", "/roles/user:acme", ""),
    ] {
        f.tool(method, rest, body, 404).await;
    }
    f.tool("POST", "/versions/1.0.0/restore", "", 409).await;
    let list = f.check("GET /packages/npm", "", 200).await;
    assert!(list[0]["deleted_at"].is_string() && list[0]["versions"] == 0);
    f.tool("POST", "/restore", "", 204).await;
    let tool = f.tool("GET", "", "", 200).await;
    assert_eq!((&tool["tags"], &tool["deleted_at"]), (&json!({ "latest": "1.0.0" }), &Value::Null));
    f.tool("DELETE", "", "", 204).await;
    f.check("DELETE /orgs/acme", "", 204).await;
    assert!(f.tool("GET", "", "", 200).await["owner"].is_null());
    f.tool("POST", "/restore", "", 409).await;
}

#[tokio::test]
async fn rights_on_each_package_are_decided_besides() {
    let f = with_packages().await;
    let caller = |scopes: &[Scope]| {
        let scopes: Scopes = scopes.iter().copied().collect();
        Caller::Signed(crate::identity::Signed {
            user: crate::package::AccountId(9999),
            login: OwnerName::new("root").unwrap(),
            site_admin: true,
            token: crate::package::TokenId(1),
            scopes,
            organisations: std::collections::HashMap::new(),
            teams: std::collections::HashSet::new(),
        })
    };
    let status = async |caller: &Caller, method: Method, target: &str| f.ask_as(caller, method, target, "").await.status;
    // Deleting needs read:packages too, which the endpoint's row does not say.
    assert_eq!(status(&caller(&[Scope::DeletePackages]), Method::DELETE, TOOL).await, 404);
    assert_eq!(status(&caller(&[Scope::ReadPackages]), Method::GET, TOOL).await, 200);
    assert_eq!(status(&caller(&[Scope::ReadPackages]), Method::DELETE, TOOL).await, 403);
    assert_eq!(status(&caller(&[Scope::ReadPackages, Scope::DeletePackages]), Method::DELETE, TOOL).await, 204);
    let reader = f.ask_as(&caller(&[Scope::ReadPackages]), Method::GET, "/packages/npm", "").await;
    assert_eq!(reader.body.as_array().unwrap().len(), 1, "a deleted package is there only for who may restore it");
    assert_eq!(status(&caller(&[Scope::WritePackages]), Method::POST, &format!("{TOOL}/restore")).await, 204);
}

#[tokio::test]
async fn upkeep_reports_and_takes_turns() {
    let f = fixture().await;
    assert_eq!(f.check("POST /fsck", "", 200).await["clean"], true);
    let (first, second) = tokio::join!(f.ask(Method::POST, "/gc", ""), f.ask(Method::POST, "/fsck", ""));
    assert_eq!((first.status, second.status), (200, 409));
    f.check("POST /fsck", "", 200).await;
    f.check("GET /gc", "", 405).await;
}
