//! Every route of every ecosystem as every kind of caller, through the server's own way in.
//!
//! What is right is said twice and apart from the code: each ecosystem says what its routes
//! need (`ecosystem::rights`), and `access::model` says who has that. What somebody may not
//! know of is compared, to the last byte, with a name that nobody has, and with a server
//! that holds nothing at all.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::access::model::{self, Answer, Asker, Mode, SCOPES, VISIBILITIES};
use crate::ecosystem::ALL;
use crate::ecosystem::rights::{Known, Needs, Request, Row};
use crate::http::Method;
use crate::identity::AccountChange;
use crate::package::AccountId;
use crate::store::redb::{self, Durability, Redb};

mod allocations;
mod counting;
mod world;

use world::{NAME, NOBODYS, Plot, USERS, Who, World};

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

/// What is sent besides: a hidden package is not given away by what a client says that it has either.
const VARIANTS: [&[(&str, &str)]; 2] =
    [&[], &[("if-none-match", "*"), ("range", "bytes=0-0"), ("if-modified-since", "Wed, 01 Jan 2070 00:00:00 GMT")]];

/// Asks one row as one caller; says whether the world is another one now.
async fn check(world: &World, empty: &World, row: &Row, who: &Who) -> bool {
    let (asker, token) = (world.asker(who), world.mint(who).await);
    let (before, request) = (world.generation().await, world.request(row, NAME).await);
    let line = format!("{} {} {who:?}", request.method, request.target);
    let hidden = model::expected(&asker, world.thing.as_ref().unwrap(), "read") == Answer::Hidden;
    let (reads, lists) = (request.method == Method::GET, matches!(row.needs, Needs::Listed | Needs::TokenListed));
    let seen = world.ask(token.as_deref(), &request, &[]).await.without(row.new);
    if !hidden {
        assert_eq!(seen.status, world.status(row, &asker), "{line}: {seen:?}");
        assert!(!lists || seen.status >= 400 || seen.says(NAME), "{line}: {seen:?}");
    } else if world.makes(row, &asker) {
        // Whoever might make one learns that it is not theirs to make, and no more.
        assert!(if lists { seen.status == row.status && !seen.says(NAME) } else { [403, 404].contains(&seen.status) }, "{line}: {seen:?}");
    } else {
        let needs_no_right = !matches!(row.needs, Needs::TokenToRead | Needs::Rights(_));
        // Where nobody would be shown nothing, they may be asked who they are instead.
        let asked = matches!(asker, Asker::Nobody) && seen.status == 401;
        let right = if needs_no_right { asked || seen.status == world.status(row, &asker) } else { seen.status >= 400 };
        assert!(right, "{line}: {seen:?}");
        for headers in VARIANTS.iter().filter(|headers| reads || headers.is_empty()) {
            let seen = world.ask(token.as_deref(), &request, headers).await.without(row.new);
            let absent = world.ask(token.as_deref(), &world.request(row, NOBODYS).await, headers).await.without(row.new);
            assert_eq!(seen.of_nobodys(), absent.of_nobodys(), "{line} {headers:?}");
            // What somebody says of a token is about that token.
            if reads && row.needs != Needs::Token {
                let nothing = empty.ask(empty.mint(who).await.as_deref(), &request, headers).await.without(row.new);
                assert_eq!(seen, nothing, "{line} {headers:?}");
            }
        }
    }
    if reads {
        let head = Request { method: Method::HEAD, ..request };
        let status = world.ask(token.as_deref(), &head, &[]).await.status;
        assert!(status == seen.status || status == 405, "HEAD: {line}: {status}");
    }
    let done = seen.status < 400 && !reads && matches!(row.needs, Needs::TokenToRead | Needs::Rights(_));
    assert!(done || world.generation().await == before, "{line}: {seen:?}");
    done
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
fn the_limit_of_open_files_is_raised() {
    let limit = getrlimit(Resource::Nofile);
    let lower = limit.maximum.map(|most| most - 1);
    setrlimit(Resource::Nofile, Rlimit { current: lower, ..limit }).unwrap();
    super::raise_descriptor_limit();
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
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
        let mut tokens = vec!["nonsense".to_owned(), format!("{}x", world.token)];
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
                answers.push(world.ask(Some(token), &request, &[]).await.without(row.new));
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
