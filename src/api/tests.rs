//! The API as a client sees it, and every endpoint as every kind of caller.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::http::{Upload, header};
use crate::identity::rows::Rows;
use crate::identity::{NewToken, Scopes};

struct Fixture {
    api: Api,
}

fn fixture() -> Fixture {
    let clock = Clock::stopped(Timestamp::from_millis(1_700_000_000_000));
    let identity = Arc::new(Identity::new(Arc::new(Rows::default()), clock));
    Fixture { api: Api::new(identity, vec!["npm"]) }
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
    let f = fixture();
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
    f.check("PUT /reservations/npm/@acme%2F*", r#"{"owner":"acme"}"#, 204).await;
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
    let f = fixture();
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
    let f = fixture();
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
    let f = fixture();
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
    let f = fixture();
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
    tasks.spawn(socket.serve(Arc::new(fixture().api), stopped));
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
