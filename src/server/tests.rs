//! Every route of every ecosystem as every kind of caller, through the server's own way in.
//!
//! What is right is said twice and apart from the code: each ecosystem says what its routes
//! need (`ecosystem::rights`), and `access::model` says who has that. What somebody may not
//! know of is compared, to the last byte, with a name that nobody has, and with a server
//! that holds nothing at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::origin::{Setting, origin};
use super::serve::{FailedLogins, answer};
use super::{Config, State};
use crate::access::Grant;
use crate::access::model::{self, Answer, Asker, Mode, Person, SCOPES, Source, Thing, VISIBILITIES};
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table};
use crate::ecosystem::{ALL, Ecosystem};
use crate::http::{HeaderMap, Method, Upload, header};
use crate::identity::{AccountChange, NewToken, NewUser, OrganisationRole, RepositoryRole, Scopes};
use crate::name::{OwnerName, PackageName, RepositoryName, TeamName};
use crate::observe::Trace;
use crate::package::{AccountId, Principal, Role, TeamId};
use crate::registry::Settings;
use crate::registry::fixture::{Fixture, fixture};
use crate::store::redb::{self, Durability, Redb};

/// The people. `own` owns the organisation, `tea` is in its team, `former` was a member, `out`
/// never was, `site` is a site admin; the others are members, named for their roles.
const USERS: [&str; 9] = ["own", "adm", "wes", "rea", "tea", "mem", "former", "out", "site"];
/// The package that is there, and one that is not.
const NAME: &str = "tool";
const NOBODYS: &str = "t00l";

/// A caller: nobody, or a user by login with scopes.
#[derive(Clone, Debug)]
struct Who(Option<(&'static str, BTreeSet<&'static str>)>);

/// Nobody, each user with all scopes, an owner and a writer with one missing, an owner with one alone and with none.
fn everyone() -> Vec<Who> {
    let who = |login, choice: &dyn Fn(&str) -> bool| Who(Some((login, SCOPES.into_iter().filter(|scope| choice(scope)).collect())));
    let mut all = vec![Who(None), who("own", &|_| false)];
    all.extend(USERS.map(|login| who(login, &|_| true)));
    for one in SCOPES {
        all.extend([who("own", &|scope| scope == one), who("own", &|scope| scope != one), who("wes", &|scope| scope != one)]);
    }
    all
}

/// An answer, in all that a client sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn says(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// The same of the name that nobody has.
    fn of_nobodys(&self) -> Self {
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
struct World {
    engine: Fixture,
    state: State,
    failed_logins: FailedLogins,
    ecosystem: &'static dyn Ecosystem,
    users: HashMap<&'static str, u64>,
    acme: u64,
    team: u64,
    source: Source,
    name: PackageName,
    thing: Option<Thing>,
    token: String,
}

/// What a world is built for.
#[derive(Clone, Copy)]
struct Plot<'a> {
    ecosystem: &'static dyn Ecosystem,
    table: &'a Table,
    truth: &'a Arc<Redb>,
    mode: Mode,
    visibility: &'static str,
}

impl World {
    /// A world without the package.
    async fn empty(plot: Plot<'_>) -> Self {
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
            state,
            failed_logins: FailedLogins::new(u32::MAX),
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

    async fn new(plot: Plot<'_>) -> Self {
        let mut world = Self::empty(plot).await;
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
                repository: Some(Some(crate::package::RepositoryId(world.source.id))),
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
        world.engine.identity.remove_member(AccountId(world.acme), AccountId(world.users["former"])).await.unwrap();
        world.thing = Some(thing);
        world
    }

    async fn grant_on_repository(&mut self, roles: &[(&'static str, &'static str)], team: &'static str) {
        let principals = roles.iter().map(|(login, role)| (Principal::User(AccountId(self.users[login])), *role));
        for (principal, role) in principals.chain([(Principal::Team(TeamId(self.team)), team)]) {
            let parsed: RepositoryRole = role.parse().unwrap();
            self.engine.identity.set_repository_role(crate::package::RepositoryId(self.source.id), principal, Some(parsed)).await.unwrap();
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
    async fn generation(&self) -> Option<u64> {
        let head = self.engine.registry.catalog().head(self.ecosystem.info().name, &self.name).await.unwrap();
        head.filter(|head| head.package.deleted_at.is_none()).map(|head| head.package.generation)
    }

    async fn mint(&self, who: &Who) -> Option<String> {
        self.mint_until(who, None).await
    }

    async fn mint_until(&self, who: &Who, lifetime: Option<Duration>) -> Option<String> {
        let (login, scopes) = who.0.as_ref()?;
        let scopes: Scopes = scopes.iter().copied().collect::<Vec<_>>().join(",").parse().unwrap();
        let expires_at = lifetime.map(|lifetime| self.engine.registry.clock().now().plus(lifetime));
        let new = NewToken { note: String::new(), scopes, expires_at };
        let (_, text) = self.engine.identity.mint_token(AccountId(self.users[login]), new).await.unwrap();
        Some(text.expose().to_owned())
    }

    /// The caller as the model knows it.
    fn asker(&self, who: &Who) -> Asker {
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

    async fn ask(&self, token: Option<&str>, request: &Request, headers: &[(&str, &str)]) -> Seen {
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
    async fn request(&self, row: &Row, name: &str) -> Request {
        let generation = self.generation().await.unwrap_or(1);
        (row.request)(&Known { name, generation, token: &self.token })
    }

    /// Whether the caller may make a package where a row makes one.
    fn makes(&self, row: &Row, asker: &Asker) -> bool {
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
    fn status(&self, row: &Row, asker: &Asker) -> u16 {
        let thing = self.thing.as_ref().unwrap();
        let actions: &[&str] = match row.needs {
            Needs::Token | Needs::TokenToRead if matches!(asker, Asker::Nobody) => return 401,
            Needs::Nothing | Needs::Listed | Needs::Token | Needs::TokenToRead => &[],
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

/// What is sent besides: a hidden package is not given away by what a client says that it has either.
const VARIANTS: [&[(&str, &str)]; 2] =
    [&[], &[("if-none-match", "*"), ("range", "bytes=0-0"), ("if-modified-since", "Wed, 01 Jan 2070 00:00:00 GMT")]];

/// Asks one row as one caller; says whether the world is another one now.
async fn check(world: &World, empty: &World, row: &Row, who: &Who) -> bool {
    let (asker, token) = (world.asker(who), world.mint(who).await);
    let (before, request) = (world.generation().await, world.request(row, NAME).await);
    let line = format!("{} {} {who:?}", request.method, request.target);
    let hidden = model::expected(&asker, world.thing.as_ref().unwrap(), "read") == Answer::Hidden;
    let reads = request.method == Method::GET;
    let seen = world.ask(token.as_deref(), &request, &[]).await;
    if !hidden {
        assert_eq!(seen.status, world.status(row, &asker), "{line}: {seen:?}");
        assert!(row.needs != Needs::Listed || seen.says(NAME), "{line}: {seen:?}");
    } else if world.makes(row, &asker) {
        // Whoever might make one is told that it is not theirs to make.
        assert_eq!(seen.status, 403, "{line}: {seen:?}");
    } else {
        let needs_none = matches!(row.needs, Needs::Nothing | Needs::Listed | Needs::Token);
        assert!(if needs_none { seen.status == world.status(row, &asker) } else { seen.status >= 400 }, "{line}: {seen:?}");
        for headers in VARIANTS.iter().filter(|headers| reads || headers.is_empty()) {
            let seen = world.ask(token.as_deref(), &request, headers).await;
            let absent = world.ask(token.as_deref(), &world.request(row, NOBODYS).await, headers).await;
            assert_eq!(seen.of_nobodys(), absent.of_nobodys(), "{line} {headers:?}");
            // What somebody says of a token is about that token.
            if reads && row.needs != Needs::Token {
                let nothing = empty.ask(empty.mint(who).await.as_deref(), &request, headers).await;
                assert_eq!(seen, nothing, "{line} {headers:?}");
            }
        }
    }
    if reads {
        let head = Request { method: Method::HEAD, ..request };
        assert_eq!(world.ask(token.as_deref(), &head, &[]).await.status, seen.status, "HEAD: {line}");
    }
    let changed = world.generation().await != before;
    assert!(!changed || (seen.status < 400 && !reads), "{line}: {seen:?}");
    changed
}

/// What the server wants of a store; what is asked here stands in memory.
fn truth() -> (tempfile::TempDir, Arc<Redb>) {
    let folder = tempfile::tempdir().unwrap();
    let truth = Redb::open(&folder.path().join("state.redb"), &redb::Config::default(), Durability::Truth).unwrap();
    (folder, Arc::new(truth))
}

/// Every row of every ecosystem, of a package of a visibility.
async fn ask_everything(visibility: &'static str) {
    let (_folder, truth) = truth();
    for ecosystem in ALL {
        let table = ecosystem.rights();
        let modes = [Mode::Granular, Mode::Inherit].into_iter().chain(table.publish_in_repository.map(|_| Mode::Scoped));
        for mode in modes {
            let plot = Plot { ecosystem: *ecosystem, table: &table, truth: &truth, mode, visibility };
            let (mut world, empty) = (World::new(plot).await, World::empty(plot).await);
            for row in &table.rows {
                for who in everyone() {
                    if check(&world, &empty, row, &who).await {
                        world = World::new(plot).await;
                    }
                }
            }
        }
    }
}

#[test]
fn every_route_has_a_row() {
    for ecosystem in ALL {
        let table = ecosystem.rights();
        let known = Known { name: NAME, generation: 1, token: "" };
        let rows: HashSet<&str> = table.rows.iter().map(|row| (table.route)(&(row.request)(&known))).collect();
        let routes: HashSet<&str> = table.routes.iter().copied().collect();
        assert_eq!(rows, routes, "{}", ecosystem.info().name);
    }
}

#[tokio::test]
async fn credentials_that_do_not_hold_are_refused_by_every_route_alike() {
    let (_folder, truth) = truth();
    for ecosystem in ALL {
        let table = ecosystem.rights();
        let world =
            World::new(Plot { ecosystem: *ecosystem, table: &table, truth: &truth, mode: Mode::Granular, visibility: "public" }).await;
        let (identity, own) = (&world.engine.identity, Who(Some(("own", SCOPES.into()))));
        let mut tokens = vec!["nonsense".to_owned(), format!("{}x", &world.token[..world.token.len() - 1])];
        tokens.extend(world.mint_until(&own, Some(Duration::from_secs(60))).await);
        tokens.extend(world.mint(&own).await);
        let all = identity.list_tokens(AccountId(world.users["own"])).await.unwrap();
        let revoked = all.iter().max_by_key(|token| token.id).unwrap();
        identity.revoke_token(AccountId(world.users["own"]), revoked.id).await.unwrap();
        tokens.extend(world.mint(&Who(Some(("adm", SCOPES.into())))).await);
        let suspended = AccountChange { disabled: Some(true), ..AccountChange::default() };
        identity.change_account(AccountId(world.users["adm"]), suspended).await.unwrap();
        world.engine.registry.clock().advance(Duration::from_secs(61));
        for row in &table.rows {
            let request = world.request(row, NAME).await;
            let mut answers = Vec::new();
            for token in &tokens {
                answers.push(world.ask(Some(token), &request, &[]).await);
            }
            let path = request.target.split('?').next().unwrap();
            let expected = if ecosystem.signs_in(&request.method, path) { row.status } else { 401 };
            assert!(answers.iter().all(|seen| seen.status == expected && *seen == answers[0]), "{}: {answers:?}", request.target);
        }
    }
}

#[tokio::test]
async fn private_packages_as_every_kind_of_caller() {
    ask_everything(VISIBILITIES[0]).await;
}

#[tokio::test]
async fn internal_packages_as_every_kind_of_caller() {
    ask_everything(VISIBILITIES[1]).await;
}

#[tokio::test]
async fn public_packages_as_every_kind_of_caller() {
    ask_everything(VISIBILITIES[2]).await;
}
