//! The decision against the model: on every cell of the matrix, and on thousands of random ones.

use std::collections::BTreeMap;

use super::model::{self, ACTIONS, Answer, Asker, Dice, Job, Mode, Person, REPOSITORY_ROLES, ROLES, SCOPES, Source, Thing, VISIBILITIES};
use super::*;
use crate::clock::Timestamp;
use crate::name::{PackageName, RepositoryName};
use crate::package::{PackageId, TokenId};

const OWNER: u64 = 1;
const OTHER_OWNER: u64 = 2;
const USER: u64 = 3;
const TEAM: u64 = 4;
const REPOSITORY: u64 = 5;

fn action(name: &str) -> Action {
    match name {
        "read" => Action::Read,
        "write" => Action::Write,
        "delete" => Action::Delete,
        _ => Action::Admin,
    }
}

fn answer(result: &Result<()>) -> Answer {
    match result {
        Ok(()) => Answer::Allowed,
        Err(error) => match (error.kind(), error.subject()) {
            (Kind::NotFound, Subject::Package) => Answer::Hidden,
            (Kind::Unauthenticated, _) => Answer::SignIn,
            (Kind::Forbidden, _) => Answer::Denied,
            other => panic!("{other:?}"),
        },
    }
}

fn person(scopes: &[&'static str]) -> Person {
    Person { id: USER, scopes: scopes.iter().copied().collect(), teams: [TEAM].into(), ..Person::default() }
}

/// A package without any roles, of an organisation.
fn thing(visibility: &'static str) -> Thing {
    Thing {
        owner: OWNER,
        owner_is_organisation: true,
        visibility,
        mode: Mode::Granular,
        users: BTreeMap::new(),
        teams: BTreeMap::new(),
        jobs: BTreeMap::new(),
        source: None,
    }
}

/// Every kind of asker: nobody, the server, an owner, a member, an outsider and a site admin with every set of scopes.
fn askers(organisation: bool) -> Vec<Asker> {
    let mut askers = vec![Asker::Nobody, Asker::Server];
    for bits in 0..16_u8 {
        let scopes: Vec<&str> = SCOPES.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, scope)| scope).collect();
        let someone = person(&scopes);
        askers.push(Asker::Person(someone.clone()));
        askers.push(Asker::Person(Person { site_admin: true, ..someone.clone() }));
        if organisation {
            askers.push(Asker::Person(Person { organisations: [(OWNER, true)].into(), ..someone.clone() }));
            askers.push(Asker::Person(Person { organisations: [(OWNER, false)].into(), ..someone }));
        } else {
            askers.push(Asker::Person(Person { id: OWNER, ..someone }));
        }
    }
    askers
}

/// Jobs of the linked repository and of another one, of the owner and of somebody else.
fn jobs() -> Vec<Asker> {
    let all = [(REPOSITORY, OWNER), (REPOSITORY, OTHER_OWNER), (9, OWNER), (9, OTHER_OWNER)];
    all.into_iter().flat_map(|(repository, owner)| [false, true].map(|writes| Asker::Job(Job { repository, owner, writes }))).collect()
}

fn every_thing(mut check: impl FnMut(&Thing)) {
    let none_or =
        |roles: &[&'static str]| -> Vec<Option<&'static str>> { [None].into_iter().chain(roles.iter().copied().map(Some)).collect() };
    let sources = [None].into_iter().chain([OWNER, OTHER_OWNER].into_iter().flat_map(|owner| VISIBILITIES.map(|v| Some((owner, v)))));
    for source in sources.collect::<Vec<_>>() {
        for mode in [Mode::Granular, Mode::Inherit, Mode::Scoped] {
            for (on_package, on_source) in
                none_or(&ROLES).into_iter().flat_map(|one| none_or(&REPOSITORY_ROLES).into_iter().map(move |two| (one, two)))
            {
                for (visibility, flags) in VISIBILITIES.into_iter().flat_map(|visibility| (0..4_u8).map(move |flags| (visibility, flags))) {
                    let by_team = flags & 1 == 1;
                    let to =
                        |role: Option<&'static str>, id, wanted: bool| role.filter(|_| wanted).map(|role| (id, role)).into_iter().collect();
                    check(&Thing {
                        owner: OWNER,
                        owner_is_organisation: flags & 2 == 2,
                        visibility,
                        mode,
                        users: to(on_package, USER, !by_team),
                        teams: to(on_package, TEAM, by_team),
                        jobs: on_package.map(|role| (9, role)).into_iter().collect(),
                        source: source.map(|(owner, visibility)| Source {
                            id: REPOSITORY,
                            owner,
                            visibility,
                            users: to(on_source, USER, !by_team),
                            teams: to(on_source, TEAM, by_team),
                        }),
                    });
                }
            }
        }
    }
}

#[test]
fn the_whole_matrix_agrees_with_the_model() {
    let mut cells = 0;
    let mut seen = std::collections::HashMap::<String, usize>::new();
    let people = [askers(false), askers(true)]
        .map(|askers| askers.into_iter().chain(jobs()).map(|asker| (asker.caller(), asker)).collect::<Vec<_>>());
    every_thing(|thing| {
        let policy = thing.policy();
        for (caller, asker) in &people[usize::from(thing.owner_is_organisation)] {
            for name in ACTIONS {
                let (expected, actual) = (model::expected(asker, thing, name), answer(&decide(caller, &policy, action(name))));
                assert_eq!(actual, expected, "{name} {asker:?} {thing:?}");
                *seen.entry(format!("{name} {expected:?}")).or_default() += 1;
                cells += 1;
            }
        }
    });
    assert!(cells > 1_000_000, "{cells}");
    // Every action meets every answer that it can have.
    assert_eq!(seen.len(), 4 * 4 - 2, "{seen:?}");
}

#[test]
fn who_may_not_read_gets_one_answer_for_every_action() {
    let people = [askers(false), askers(true)].map(|askers| askers.iter().chain(&jobs()).map(Asker::caller).collect::<Vec<_>>());
    every_thing(|thing| {
        let policy = thing.policy();
        for caller in &people[usize::from(thing.owner_is_organisation)] {
            if let Err(error) = decide(caller, &policy, Action::Read) {
                for action in Action::ALL {
                    let other = decide(caller, &policy, action).unwrap_err();
                    assert_eq!((error.kind(), error.message()), (other.kind(), other.message()));
                }
            }
        }
    });
}

/// An asker and a thing by chance. Few ids, so that they often have to do with each other.
fn throw(seed: u64) -> (Asker, Thing, &'static str) {
    let mut dice = Dice(seed);
    let roles = |dice: &mut Dice, choice: &[&'static str]| -> BTreeMap<u64, &'static str> {
        (0..dice.below(4)).map(|_| (dice.below(4) as u64, dice.of(choice))).collect()
    };
    let (users, teams, jobs) = (roles(&mut dice, &ROLES), roles(&mut dice, &ROLES), roles(&mut dice, &ROLES));
    let source = dice.chance(70).then(|| Source {
        id: dice.below(4) as u64,
        owner: dice.below(2) as u64,
        visibility: dice.of(&VISIBILITIES),
        users: roles(&mut dice, &REPOSITORY_ROLES),
        teams: roles(&mut dice, &REPOSITORY_ROLES),
    });
    let thing = Thing {
        owner: dice.below(2) as u64,
        owner_is_organisation: dice.chance(60),
        visibility: dice.of(&VISIBILITIES),
        mode: dice.of(&[Mode::Granular, Mode::Inherit, Mode::Scoped]),
        users,
        teams,
        jobs,
        source,
    };
    let asker = match dice.below(10) {
        0 => Asker::Nobody,
        1 => Asker::Server,
        2 | 3 => Asker::Job(Job { repository: dice.below(4) as u64, owner: dice.below(2) as u64, writes: dice.chance(70) }),
        _ => Asker::Person(Person {
            id: dice.below(4) as u64,
            site_admin: dice.chance(5),
            scopes: SCOPES.into_iter().filter(|_| dice.chance(70)).collect(),
            organisations: (0..dice.below(3)).map(|_| (dice.below(3) as u64, dice.chance(20))).collect(),
            teams: (0..dice.below(3)).map(|_| dice.below(4) as u64).collect(),
        }),
    };
    (asker, thing, dice.of(&ACTIONS))
}

#[test]
fn a_hundred_thousand_random_cells_agree_with_the_model() {
    let mut seen = std::collections::HashMap::<Answer, usize>::new();
    for seed in 0..100_000 {
        let (asker, thing, name) = throw(seed);
        let expected = model::expected(&asker, &thing, name);
        let actual = answer(&decide(&asker.caller(), &thing.policy(), action(name)));
        assert_eq!(actual, expected, "seed {seed}: {name} {asker:?} {thing:?}");
        *seen.entry(expected).or_default() += 1;
    }
    assert!(seen.len() == 4 && seen.values().all(|cells| *cells > 1000), "{seen:?}");
}

#[test]
fn a_refusal_names_what_is_missing() {
    let message = |asker: Person, thing: &Thing, action| {
        decide(&Asker::Person(asker).caller(), &thing.policy(), action).unwrap_err().message().to_owned()
    };
    let owner = |scopes: &[&'static str]| Person { organisations: [(OWNER, true)].into(), ..person(scopes) };
    let member = |scopes: &[&'static str]| Person { organisations: [(OWNER, false)].into(), ..person(scopes) };
    let public = thing("public");
    assert_eq!(message(owner(&["read:packages"]), &public, Action::Write), "the token lacks the scope write:packages");
    assert_eq!(message(owner(&["delete:packages"]), &public, Action::Delete), "the token lacks the scope read:packages");
    assert_eq!(message(member(&["write:packages"]), &public, Action::Write), "the role write on the package is required");
    let source = Source { id: REPOSITORY, owner: OWNER, visibility: "public", users: BTreeMap::new(), teams: BTreeMap::new() };
    let scoped = Thing { mode: Mode::Scoped, source: Some(source), ..public };
    assert_eq!(message(owner(&["write:packages"]), &scoped, Action::Write), "the token lacks the scope repo");
}

#[test]
fn a_first_publish_tells_nothing_about_owners() {
    let owner = |members_can_publish| Some(Owner { account: AccountId(OWNER), members_can_publish });
    let ask = |asker: &Asker, owner| decide_create(&asker.caller(), owner).map_err(|error| (error.kind(), error.message().to_owned()));
    let outsiders = [&[][..], &["read:packages"], &["write:packages"]].map(|scopes| Asker::Person(person(scopes)));
    for asker in outsiders.iter().chain([&Asker::Nobody]) {
        assert_eq!(ask(asker, owner(true)), ask(asker, None));
        assert!(ask(asker, None).is_err());
    }
    assert_eq!(ask(&Asker::Nobody, None).unwrap_err().0, Kind::Unauthenticated);
    let with = |owner, scopes: &[&'static str]| Asker::Person(Person { organisations: [(OWNER, owner)].into(), ..person(scopes) });
    let (member, chief) = (with(false, &["write:packages"]), with(true, &["write:packages"]));
    assert!(ask(&member, owner(true)).is_ok() && ask(&member, owner(false)).is_err());
    assert!(ask(&chief, owner(false)).is_ok());
    assert!(ask(&with(true, &["read:packages"]), owner(false)).is_err());
    let site_admin = Asker::Person(Person { site_admin: true, ..person(&["write:packages"]) });
    assert!(ask(&site_admin, owner(false)).is_ok());
    assert_eq!(ask(&site_admin, None).unwrap_err().0, Kind::NotFound);
    assert!(ask(&Asker::Server, owner(false)).is_ok());
    for seed in 0..10_000 {
        let (asker, ..) = throw(seed);
        assert_eq!(ask(&asker, owner(true)).is_ok(), model::creates(&asker, OWNER), "seed {seed}: {asker:?}");
    }
}

#[test]
fn linking_asks_for_the_role_on_the_repository() {
    let policy = RepositoryPolicy {
        id: RepositoryId(REPOSITORY),
        visibility: Visibility::Private,
        owner: AccountId(OWNER),
        roles: BTreeMap::from([(Principal::User(AccountId(USER)), RepositoryRole::Triage)]),
    };
    let role = |asker: &Asker| role_on_repository(&asker.caller(), &policy, true);
    let with = |owner| Asker::Person(Person { organisations: [(OWNER, owner)].into(), ..person(&[]) });
    assert_eq!((role(&with(false)), role(&with(true))), (Some(RepositoryRole::Triage), Some(RepositoryRole::Admin)));
    assert_eq!((role(&Asker::Person(person(&[]))), role(&Asker::Nobody)), (None, None));
    let job = |repository| Asker::Job(Job { repository, owner: OWNER, writes: true });
    assert_eq!((role(&job(REPOSITORY)), role(&job(9))), (Some(RepositoryRole::Write), None));
}

#[test]
fn a_workflows_token_is_what_its_job_was_given() {
    let repository = Repository {
        id: RepositoryId(REPOSITORY),
        owner: AccountId(OWNER),
        name: RepositoryName::new("web").unwrap(),
        visibility: Visibility::Private,
        roles: BTreeMap::new(),
        created_at: Timestamp::from_millis(0),
    };
    for writes in [false, true] {
        let made = Workflow::new(&repository, TokenId(1), writes);
        let Caller::Workflow(modelled) = Asker::Job(Job { repository: REPOSITORY, owner: OWNER, writes }).caller() else { panic!() };
        assert_eq!((made.scopes, made.repository, made.owner), (modelled.scopes, modelled.repository, modelled.owner));
    }
}

#[test]
fn grants_cover_what_was_decided_and_reading() {
    let name = PackageName::new("@acme/tool").unwrap();
    let target = Target { ecosystem: "npm", name: &name, package: Some(PackageId(7)) };
    let owner = Asker::Person(Person { organisations: [(OWNER, true)].into(), ..person(&["write:packages"]) });
    let write = grant(&owner.caller(), target, &thing("public").policy(), Action::Write).unwrap();
    assert!(write.allows(Action::Read) && write.allows(Action::Write) && !write.allows(Action::Delete));
    assert!(write.require(Action::Admin).is_err());
    assert_eq!((write.ecosystem(), write.name(), write.package()), ("npm", &name, Some(PackageId(7))));
    assert_eq!((write.caller(), write.token()), (Some(AccountId(USER)), Some(TokenId(1))));
    let system = Grant::system(target);
    assert!(Action::ALL.into_iter().all(|action| system.allows(action)) && system.is_system());
    assert!(grant_create(&Caller::Anonymous, target, None).is_err());
}

#[test]
fn the_operator_decides_who_uses_the_upstreams() {
    let name = PackageName::new("left-pad").unwrap();
    let read =
        |asker: &Asker, anonymous| grant_upstream(&asker.caller(), "npm", &name, Action::Read, anonymous).map_err(|error| error.kind());
    let (reader, other) = (Asker::Person(person(&["read:packages"])), Asker::Person(person(&["repo"])));
    assert!([&Asker::Nobody, &Asker::Server, &reader, &other].into_iter().all(|asker| read(asker, true).is_ok()));
    assert_eq!(read(&Asker::Nobody, false).unwrap_err(), Kind::Unauthenticated);
    assert_eq!(read(&other, false).unwrap_err(), Kind::Forbidden);
    let grant = read(&reader, false).unwrap();
    assert!(!grant.allows(Action::Write));
    assert_eq!(grant.package(), None);
    let write = |asker: &Asker| grant_upstream(&asker.caller(), "npm", &name, Action::Write, true).unwrap_err().kind();
    assert_eq!([write(&Asker::Nobody), write(&reader), write(&Asker::Server)], [Kind::Unauthenticated, Kind::Forbidden, Kind::Forbidden]);
}
