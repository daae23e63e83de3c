//! The API as its clients use it, over an engine in memory. Here is the world that the tests speak of.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::*;
use crate::identity::{AccountChange, NewToken, NewUser, OrganisationRole, RepositoryRole, Scopes};
use crate::name::{PackageName, RepositoryName, TeamName};
use crate::package::{AccountId, HookId, Principal, Role, TokenId, Visibility};
use crate::registry::{self, fixture};
use crate::webhook::{Draft, Exchange, Hook, Secret, Settings, Target, Try};

mod audit;
mod downloads;
mod hooks;
mod matrix;
mod moves;
mod packages;
mod people;

/// People, an organisation `acme` with a package `@acme/tool` of two versions, and a package of everybody's own.
///
/// `own` owns acme, `adm`, `wes` and `rea` are members with the roles admin, write and
/// read on the package and on the repository `web`, `mem` is a member in the team `core`
/// without any, `former` had the role admin and left, `out` never came in, `site` is a site admin.
struct World {
    engine: fixture::Fixture,
    accounts: HashMap<&'static str, AccountId>,
    tokens: HashMap<&'static str, String>,
    ids: HashMap<String, TokenId>,
    versions: HashMap<&'static str, u64>,
    /// Of the webhooks of the repository and of the organisation, and of their first deliveries.
    hooks: HashMap<&'static str, (u64, u64)>,
}

/// Where every request comes from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn headers_but_id(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.remove(REQUEST_ID);
        headers
    }
}

impl World {
    async fn new(visibility: Visibility) -> Self {
        let engine = fixture::fixture().await;
        let mut world = Self {
            engine,
            accounts: HashMap::new(),
            tokens: HashMap::new(),
            ids: HashMap::new(),
            versions: HashMap::new(),
            hooks: HashMap::new(),
        };
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
        let settings = registry::Settings { visibility: Some(visibility), ..registry::Settings::default() };
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
        self.hook("repository", Target::Repository(web.id)).await;
        self.hook("organisation", Target::Organisation(acme)).await;
    }

    /// Makes a webhook of an owner of acme, and sends it its ping.
    async fn hook(&mut self, key: &'static str, target: Target) {
        let hooks = self.engine.registry.hooks();
        let now = hooks.clock().now();
        let hook = Hook {
            id: HookId(hooks.next_id().await.unwrap()),
            target,
            author: self.accounts["own"],
            active: true,
            events: vec!["package".to_owned()],
            settings: Settings { secret: Some(Secret::new("hush")), ..Settings::to("https://example.com/".to_owned()) },
            origin: "http://h".to_owned(),
            created_at: now,
            updated_at: now,
        };
        let payload = "{\"zen\":\"be\"}".to_owned();
        let ping = Draft { hook: hook.id, event: "ping", action: None, package: None, repository: None, payload };
        hooks.create(&hook, ping, None).await.unwrap();
        let due = hooks.due(hook.id).await.unwrap().unwrap();
        let outcome = Try { at: now, millis: 120, code: Some(200), status: "OK".to_owned() };
        hooks.note(&due, outcome, &Exchange::default(), false).await.unwrap();
        self.hooks.insert(key, (hook.id.0, due.delivery.id.0));
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
    fn version(&self, owner: &str) -> u64 {
        self.versions.get(owner).copied().unwrap_or(1)
    }

    async fn mint(&mut self, login: &'static str, scopes: Scopes) -> String {
        self.mint_until(login, scopes, None).await
    }

    async fn mint_until(&mut self, login: &'static str, scopes: Scopes, lifetime: Option<Duration>) -> String {
        let expires_at = lifetime.map(|lifetime| self.engine.registry.clock().now().plus(lifetime));
        let new = NewToken { note: String::new(), scopes, expires_at };
        let (token, text) = self.engine.identity.mint_token(self.accounts[login], new).await.unwrap();
        self.ids.insert(text.expose().to_owned(), token.id);
        text.expose().to_owned()
    }

    async fn revoke(&self, login: &str, token: &str) {
        self.engine.identity.revoke_token(self.accounts[login], self.ids[token]).await.unwrap();
    }

    async fn suspend(&self, login: &str) {
        let change = AccountChange { disabled: Some(true), ..AccountChange::default() };
        self.engine.identity.change_account(self.accounts[login], change).await.unwrap();
    }

    fn advance(&self, span: Duration) {
        self.engine.registry.clock().advance(span);
    }

    /// A request of someone by login; nobody's login is empty.
    async fn ask(&self, caller: &str, method: Method, target: &str, body: &str) -> Answer {
        self.ask_with(self.tokens.get(caller).map(String::as_str), method, target, body, &[]).await
    }

    async fn ask_with(&self, token: Option<&str>, method: Method, target: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = http::Request::builder().method(method).uri(target).header(header::USER_AGENT, "test");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("token {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let caller = self.engine.identity.identify(&parts.headers).await;
        self.serve(caller, &parts, body).await
    }

    /// A request of a caller that no token in a header stands for.
    async fn ask_as(&self, caller: Result<Arc<Caller>>, method: Method, target: &str, body: &str) -> Answer {
        let request = http::Request::builder().method(method).uri(target).header(header::USER_AGENT, "test").body(()).unwrap();
        self.serve(caller, &request.into_parts().0, body).await
    }

    async fn serve(&self, caller: Result<Arc<Caller>>, parts: &request::Parts, body: &str) -> Answer {
        let body = Upload::memory(body.to_owned());
        let response = serve(&self.engine.registry, ("http://h", CLIENT), caller, parts, parts.uri.path(), body).await;
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
