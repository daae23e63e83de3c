//! The people, the package and the server that the tests speak of, and what a caller sees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::super::origin::{Setting, origin};
use super::super::serve::{FailedLogins, answer};
use super::super::{Config, State};
use crate::access::Grant;
use crate::access::model::{self, Answer, Asker, Mode, Person, SCOPES, Source, Thing};
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table};
use crate::ecosystem::{ALL, Ecosystem};
use crate::http::{HeaderMap, Upload, header};
use crate::identity::{NewToken, NewUser, OrganisationRole, RepositoryRole, Scopes};
use crate::name::{OwnerName, PackageName, RepositoryName, TeamName};
use crate::observe::Trace;
use crate::package::{AccountId, Principal, RepositoryId, Role, TeamId};
use crate::registry::Settings;
use crate::registry::fixture::{Fixture, fixture};
use crate::store::redb::Redb;

/// The people. `own` owns the organisation, `tea` is in its team, `former` was a member, `out`
/// never was, `site` is a site admin; the others are members, named for their roles.
pub(super) const USERS: [&str; 9] = ["own", "adm", "wes", "rea", "tea", "mem", "former", "out", "site"];
/// The package that is there, and one that is not.
pub(super) const NAME: &str = "tool";
pub(super) const NOBODYS: &str = "t00l";

/// A caller: nobody, or a user by login with scopes.
#[derive(Clone, Debug)]
pub(super) struct Who(pub(super) Option<(&'static str, BTreeSet<&'static str>)>);

/// An answer, in all that a client sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn says(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// The same without members that are new each time.
    pub(super) fn without(mut self, members: &[&str]) -> Self {
        if !members.is_empty() && self.status < 400 {
            let mut body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
            for member in members {
                assert!(body.as_object_mut().unwrap().remove(*member).is_some(), "{self:?}");
            }
            self.body = body.to_string().into();
        }
        self
    }

    /// The same of the name that nobody has.
    pub(super) fn of_nobodys(&self) -> Self {
        let replace = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for at in 0..bytes.len().saturating_sub(NAME.len() - 1) {
                if bytes[at..].starts_with(NAME.as_bytes()) {
                    bytes[at..at + NAME.len()].copy_from_slice(NOBODYS.as_bytes());
                }
            }
            bytes
        };
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), replace(value.as_bytes()).try_into().unwrap()));
        Self { status: self.status, headers: headers.collect(), body: replace(&self.body).into() }
    }
}

/// A server with people, and with one package of the organisation's, if it has one.
pub(super) struct World {
    pub(super) engine: Fixture,
    pub(super) state: Arc<State>,
    pub(super) failed_logins: Arc<FailedLogins>,
    ecosystem: &'static dyn Ecosystem,
    pub(super) users: HashMap<&'static str, u64>,
    acme: u64,
    team: u64,
    source: Source,
    name: PackageName,
    pub(super) thing: Option<Thing>,
    pub(super) token: String,
}

/// What a world is built for.
#[derive(Clone, Copy)]
pub(super) struct Plot<'a> {
    pub(super) ecosystem: &'static dyn Ecosystem,
    pub(super) table: &'a Table,
    pub(super) truth: &'a Arc<Redb>,
    pub(super) mode: Mode,
    pub(super) visibility: &'static str,
}

impl World {
    /// A world without the package.
    pub(super) async fn empty(plot: Plot<'_>) -> Self {
        let world = Self::people(plot).await;
        world.former_leaves().await;
        world
    }

    async fn former_leaves(&self) {
        self.engine.identity.remove_member(AccountId(self.acme), AccountId(self.users["former"])).await.unwrap();
    }

    async fn people(plot: Plot<'_>) -> Self {
        let engine = fixture().await;
        let identity = &engine.identity;
        let mut users = HashMap::new();
        for login in USERS {
            let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: login == "site" };
            users.insert(login, identity.create_user(new).await.unwrap().id.0);
        }
        let acme = identity.create_organisation(OwnerName::new("acme").unwrap(), Some(AccountId(users["own"]))).await.unwrap().id;
        for login in ["adm", "wes", "rea", "tea", "mem", "former"] {
            identity.set_member(acme, AccountId(users[login]), OrganisationRole::Member).await.unwrap();
        }
        let team = identity.create_team(acme, TeamName::new("core").unwrap()).await.unwrap().id;
        identity.add_team_member(team, AccountId(users["tea"])).await.unwrap();
        // Where the repository says nothing of the package's visibility, it has another one.
        let visibility = match plot.mode {
            Mode::Scoped => plot.visibility,
            _ if plot.visibility == "public" => "private",
            _ => "public",
        };
        let web = identity.create_repository(acme, RepositoryName::new("web").unwrap(), visibility.parse().unwrap()).await.unwrap();
        let source = Source { id: web.id.0, owner: acme.0, visibility, users: BTreeMap::new(), teams: BTreeMap::new() };
        let state = State {
            config: Config::default(),
            public_url: None,
            registry: Arc::clone(&engine.registry),
            enabled: ALL.iter().map(|ecosystem| ecosystem.info().name.to_owned()).collect(),
            truth: Arc::clone(plot.truth),
        };
        let mut world = Self {
            state: Arc::new(state),
            failed_logins: Arc::new(FailedLogins::new(u32::MAX)),
            ecosystem: plot.ecosystem,
            users,
            acme: acme.0,
            team: team.0,
            source,
            name: PackageName::new(&(plot.table.name)(NAME)).unwrap(),
            thing: None,
            token: String::new(),
            engine,
        };
        world.token = world.mint(&Who(Some(("own", SCOPES.into())))).await.unwrap();
        let (roles, team): (&[_], _) = match plot.mode {
            // What does not count where the package has roles of its own.
            Mode::Granular => (&[("mem", "admin")], "read"),
            _ => (&[("adm", "admin"), ("wes", "maintain"), ("rea", "triage"), ("former", "admin")], "write"),
        };
        world.grant_on_repository(roles, team).await;
        world
    }

    pub(super) async fn new(plot: Plot<'_>) -> Self {
        let mut world = Self::people(plot).await;
        let publish = match plot.mode {
            Mode::Scoped => plot.table.publish_in_repository.unwrap(),
            _ => plot.table.publish,
        };
        let token = world.token.clone();
        for request in publish(&Known { name: NAME, generation: 0, token: &token }) {
            let seen = world.ask(Some(&token), &request, &[]).await;
            assert!(seen.status < 400, "{} {}: {seen:?}", request.method, request.target);
        }
        let mut thing = Thing {
            owner: world.acme,
            owner_is_organisation: true,
            visibility: plot.visibility,
            mode: plot.mode,
            users: [(world.users["own"], "admin")].into(),
            teams: BTreeMap::new(),
            jobs: BTreeMap::new(),
            source: Some(world.source.clone()),
        };
        if plot.mode != Mode::Scoped {
            let settings = Settings {
                visibility: Some(plot.visibility.parse().unwrap()),
                repository: Some(Some(RepositoryId(world.source.id))),
                inherits: Some(plot.mode == Mode::Inherit),
            };
            world.engine.registry.change_settings(&world.grant(), settings).await.unwrap();
            let (roles, team): (&[_], _) = match plot.mode {
                Mode::Granular => (&[("adm", "admin"), ("wes", "write"), ("rea", "read"), ("former", "admin")], "write"),
                _ => (&[("mem", "admin")], "read"),
            };
            for (login, role) in roles {
                world.grant_on_package(Principal::User(AccountId(world.users[login])), role).await;
                thing.users.insert(world.users[login], role);
            }
            world.grant_on_package(Principal::Team(TeamId(world.team)), team).await;
            thing.teams.insert(world.team, team);
        }
        world.former_leaves().await;
        world.thing = Some(thing);
        world
    }

    async fn grant_on_repository(&mut self, roles: &[(&'static str, &'static str)], team: &'static str) {
        let principals = roles.iter().map(|(login, role)| (Principal::User(AccountId(self.users[login])), *role));
        for (principal, role) in principals.chain([(Principal::Team(TeamId(self.team)), team)]) {
            let parsed: RepositoryRole = role.parse().unwrap();
            self.engine.identity.set_repository_role(RepositoryId(self.source.id), principal, Some(parsed)).await.unwrap();
        }
        self.source.users = roles.iter().map(|(login, role)| (self.users[login], *role)).collect();
        self.source.teams = [(self.team, team)].into();
    }

    async fn grant_on_package(&self, principal: Principal, role: &str) {
        let parsed: Role = role.parse().unwrap();
        self.engine.registry.set_role(&self.grant(), principal, Some(parsed)).await.unwrap();
    }

    fn grant(&self) -> Grant {
        Grant::system((self.ecosystem.info().name, &self.name, None))
    }

    /// How often the package was changed; nothing once it is deleted.
    pub(super) async fn generation(&self) -> Option<u64> {
        let head = self.engine.registry.catalog().head(self.ecosystem.info().name, &self.name).await.unwrap();
        head.filter(|head| head.package.deleted_at.is_none()).map(|head| head.package.generation)
    }

    pub(super) async fn mint(&self, who: &Who) -> Option<String> {
        self.mint_until(who, None).await
    }

    pub(super) async fn mint_until(&self, who: &Who, lifetime: Option<Duration>) -> Option<String> {
        let (login, scopes) = who.0.as_ref()?;
        let scopes: Scopes = scopes.iter().copied().collect::<Vec<_>>().join(",").parse().unwrap();
        let expires_at = lifetime.map(|lifetime| self.engine.registry.clock().now().plus(lifetime));
        let new = NewToken { note: String::new(), scopes, expires_at };
        let (_, text) = self.engine.identity.mint_token(AccountId(self.users[login]), new).await.unwrap();
        Some(text.expose().to_owned())
    }

    /// The caller as the model knows it.
    pub(super) fn asker(&self, who: &Who) -> Asker {
        let Some((login, scopes)) = &who.0 else { return Asker::Nobody };
        let member = ["own", "adm", "wes", "rea", "tea", "mem"].contains(login);
        Asker::Person(Person {
            id: self.users[login],
            site_admin: *login == "site",
            scopes: scopes.clone(),
            organisations: member.then_some((self.acme, *login == "own")).into_iter().collect(),
            teams: (*login == "tea").then_some(self.team).into_iter().collect(),
        })
    }

    pub(super) async fn ask(&self, token: Option<&str>, request: &Request, headers: &[(&str, &str)]) -> Seen {
        let target = format!("/{}{}", self.ecosystem.info().mount, request.target);
        let mut head = http::Request::builder().method(&request.method).uri(target).header(header::HOST, "h");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        if let Some(token) = token {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("token:{token}"));
            head = head.header(header::AUTHORIZATION, format!("Basic {pair}"));
        }
        let (parts, ()) = head.body(()).unwrap().into_parts();
        let setting = Setting { public_url: None, hosts: None, trusted_proxies: &[], peer: [192, 0, 2, 7].into(), tls: false };
        let origin = origin(&parts.headers, &parts.uri, &setting).unwrap();
        let body = Upload::memory(request.body.clone());
        let response = answer(&self.state, &parts, body, &origin, &Trace::default(), &self.failed_logins).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Seen { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// The request of a row about a name.
    pub(super) async fn request(&self, row: &Row, name: &str) -> Request {
        let generation = self.generation().await.unwrap_or(1);
        (row.request)(&Known { name, generation, token: &self.token })
    }

    /// Whether the caller may make a package where a row makes one.
    pub(super) fn makes(&self, row: &Row, asker: &Asker) -> bool {
        match (row.makes, asker) {
            (Some(Maker::Organisation), _) => model::creates(asker, self.acme),
            (Some(Maker::Asker), Asker::Person(person)) => model::creates(asker, person.id),
            (Some(Maker::Repository), _) => {
                let thing = Thing { mode: Mode::Scoped, ..self.thing.clone().unwrap() };
                model::expected(asker, &thing, "write") == Answer::Allowed
            }
            _ => false,
        }
    }

    /// The status of a row that is about a package which the caller may read.
    pub(super) fn status(&self, row: &Row, asker: &Asker) -> u16 {
        let thing = self.thing.as_ref().unwrap();
        let actions: &[&str] = match row.needs {
            Needs::Token | Needs::TokenListed | Needs::TokenToRead if matches!(asker, Asker::Nobody) => return 401,
            Needs::Nothing | Needs::Listed | Needs::Token | Needs::TokenListed | Needs::TokenToRead => &[],
            Needs::Rights(actions) => actions,
        };
        let missing = actions.iter().map(|action| model::expected(asker, thing, action)).find(|answer| *answer != Answer::Allowed);
        match missing {
            None => row.status,
            Some(Answer::SignIn) => 401,
            Some(_) => 403,
        }
    }
}
