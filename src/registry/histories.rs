//! Rights after random histories, against the model.
//!
//! A history is a few dozen changes of people, repositories and packages, chosen by a
//! seed: members come and go, things are linked, moved, renamed, deleted. Each is made
//! through the engine and noted down in plain maps beside it. At the end everyone asks
//! for everything, and the engine's answers are the model's.

use std::collections::{BTreeMap, BTreeSet};

use super::fixture::{Fixture, fixture};
use super::{Registry, Settings, Untagged};
use crate::access::model::{
    self, ACTIONS, Answer, Asker, Dice, Job, Mode, Person, REPOSITORY_ROLES, ROLES, SCOPES, Source, Thing, VISIBILITIES,
};
use crate::access::{self, Action, Grant};
use crate::error::{Kind, Result};
use crate::identity::{Account, AccountChange, Caller, NewUser, OrganisationRole, Workflow};
use crate::name::{OwnerName, PackageName, RepositoryName, TeamName};
use crate::package::{AccountId, PackageId, Principal, RepositoryId, Role, TeamId, TokenId};

/// Histories, and the changes of each.
const SEEDS: u64 = 150;
const CHANGES: usize = 150;
/// To the engine one is like another.
const ECOSYSTEM: &str = "pie";

/// What is noted down of a repository.
#[derive(Clone)]
struct Repository {
    owner: u64,
    visibility: &'static str,
    users: BTreeMap<u64, &'static str>,
    teams: BTreeMap<u64, &'static str>,
}

/// What is noted down of a package.
struct Package {
    name: PackageName,
    thing: Thing,
    source: Option<u64>,
    deleted: bool,
}

struct History {
    engine: Fixture,
    dice: Dice,
    users: Vec<u64>,
    organisations: Vec<u64>,
    /// Whether each member is an owner.
    members: BTreeMap<(u64, u64), bool>,
    /// The organisation and the members of each team.
    teams: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    repositories: BTreeMap<u64, Repository>,
    packages: BTreeMap<u64, Package>,
    /// For names that were never used.
    fresh: u64,
}

impl History {
    async fn begin(seed: u64) -> Self {
        let engine = fixture().await;
        let mut history = Self {
            engine,
            dice: Dice(seed),
            users: Vec::new(),
            organisations: Vec::new(),
            members: BTreeMap::new(),
            teams: BTreeMap::new(),
            repositories: BTreeMap::new(),
            packages: BTreeMap::new(),
            fresh: 0,
        };
        for index in 0..6 {
            let new = NewUser { login: OwnerName::new(&format!("user{index}")).unwrap(), email: None, site_admin: index == 5 };
            history.users.push(history.engine.identity.create_user(new).await.unwrap().id.0);
        }
        for index in 0..2 {
            let owner = history.users[index];
            let login = OwnerName::new(&format!("org{index}")).unwrap();
            let organisation = history.engine.identity.create_organisation(login, Some(AccountId(owner))).await.unwrap().id.0;
            history.organisations.push(organisation);
            history.members.insert((organisation, owner), true);
            for _ in 0..2 {
                let name = TeamName::new(&history.name("team")).unwrap();
                let team = history.engine.identity.create_team(AccountId(organisation), name).await.unwrap().id.0;
                history.teams.insert(team, (organisation, BTreeSet::new()));
            }
        }
        for owner in [history.organisations[0], history.organisations[0], history.organisations[1], history.users[2]] {
            history.make_repository(owner).await;
            history.make_package(owner, None).await;
        }
        let source = *history.repositories.keys().next().unwrap();
        history.make_package(history.organisations[0], Some(source)).await;
        history
    }

    fn name(&mut self, what: &str) -> String {
        self.fresh += 1;
        format!("{what}{}", self.fresh)
    }

    async fn make_repository(&mut self, owner: u64) {
        let name = RepositoryName::new(&self.name("repo")).unwrap();
        let visibility = self.dice.of(&VISIBILITIES);
        let made = self.engine.identity.create_repository(AccountId(owner), name, visibility.parse().unwrap()).await.unwrap();
        self.repositories.insert(made.id.0, Repository { owner, visibility, users: BTreeMap::new(), teams: BTreeMap::new() });
    }

    async fn make_package(&mut self, owner: u64, source: Option<u64>) {
        let name = PackageName::new(&self.name("package")).unwrap();
        if let Some(source) = source {
            let repository = self.engine.identity.repository_by_id(RepositoryId(source)).await.unwrap();
            self.engine.publish_in_repository(ECOSYSTEM, name.as_str(), &repository, "1.0.0").await.unwrap();
        } else {
            self.engine.publish(ECOSYSTEM, name.as_str(), AccountId(owner), "1.0.0").await.unwrap();
        }
        let id = self.registry().catalog().head(ECOSYSTEM, &name).await.unwrap().unwrap().package.id.0;
        let thing = Thing {
            owner,
            owner_is_organisation: self.organisations.contains(&owner),
            visibility: "private",
            mode: if source.is_some() { Mode::Scoped } else { Mode::Granular },
            // Whoever publishes is admin; here that is the owner itself.
            users: [(owner, "admin")].into(),
            teams: BTreeMap::new(),
            jobs: BTreeMap::new(),
            source: None,
        };
        self.packages.insert(id, Package { name, thing, source, deleted: false });
    }

    fn registry(&self) -> &Registry {
        &self.engine.registry
    }

    /// Where something goes: to an organisation, mostly, so that it often meets what was there before.
    fn destination(&mut self) -> u64 {
        let (everyone, organisations) = (self.everyone(), self.organisations.clone());
        if self.dice.chance(70) { self.dice.of(&organisations) } else { self.dice.of(&everyone) }
    }

    fn everyone(&self) -> Vec<u64> {
        self.users.iter().chain(&self.organisations).copied().collect()
    }

    async fn account(&self, id: u64) -> Account {
        self.engine.identity.account(AccountId(id)).await.unwrap()
    }

    fn grant(&self, package: u64) -> Grant {
        Grant::system((ECOSYSTEM, &self.packages[&package].name, Some(PackageId(package))))
    }

    /// One change by chance, made and, if the engine took it, noted.
    async fn change(&mut self) {
        match self.dice.below(17) {
            0 | 1 => self.set_member().await,
            2 => self.remove_member().await,
            3 | 4 => self.change_team().await,
            5 | 6 => self.grant_on_repository().await,
            7 | 8 => self.grant_on_package().await,
            9..=11 => self.grant_to_workflows().await,
            12 => self.change_settings().await,
            13 | 14 => self.move_repository().await,
            15 => self.move_package().await,
            _ => self.rename_or_delete().await,
        }
    }

    /// How many owners an organisation has besides a user.
    fn other_owners(&self, organisation: u64, user: u64) -> usize {
        self.members.iter().filter(|((of, who), owner)| *of == organisation && *who != user && **owner).count()
    }

    async fn set_member(&mut self) {
        let (organisation, user, owner) = (self.dice.of(&self.organisations), self.dice.of(&self.users), self.dice.chance(30));
        let role = if owner { OrganisationRole::Owner } else { OrganisationRole::Member };
        let set = self.registry().set_member(AccountId(organisation), AccountId(user), role).await;
        let before = self.members.get(&(organisation, user)).copied();
        let leaves_none = before == Some(true) && !owner && self.other_owners(organisation, user) == 0;
        assert_eq!(set.is_err(), leaves_none, "{set:?}");
        if leaves_none {
            return;
        }
        self.members.insert((organisation, user), owner);
        if before.is_none() {
            // Who comes, or comes back, has no role of before.
            self.repositories.values_mut().filter(|repository| repository.owner == organisation).for_each(|repository| {
                repository.users.remove(&user);
            });
            self.packages.values_mut().filter(|package| package.thing.owner == organisation).for_each(|package| {
                package.thing.users.remove(&user);
            });
        }
    }

    async fn remove_member(&mut self) {
        let members: Vec<(u64, u64)> = self.members.keys().copied().collect();
        let (organisation, user) = self.dice.of(&members);
        let removed = self.engine.identity.remove_member(AccountId(organisation), AccountId(user)).await;
        let leaves_none = self.members[&(organisation, user)] && self.other_owners(organisation, user) == 0;
        assert_eq!(removed.is_err(), leaves_none, "{removed:?}");
        if !leaves_none {
            self.members.remove(&(organisation, user));
            for (of, members) in self.teams.values_mut() {
                if *of == organisation {
                    members.remove(&user);
                }
            }
        }
    }

    async fn change_team(&mut self) {
        let teams: Vec<u64> = self.teams.keys().copied().collect();
        if teams.is_empty() {
            return;
        }
        let (team, user, identity) = (self.dice.of(&teams), self.dice.of(&self.users), &self.engine.identity);
        let chance = self.dice.below(10);
        if chance == 0 {
            identity.delete_team(TeamId(team)).await.unwrap();
            self.teams.remove(&team);
        } else if chance < 7 {
            let added = identity.add_team_member(TeamId(team), AccountId(user)).await;
            let (organisation, members) = self.teams.get_mut(&team).unwrap();
            assert_eq!(added.is_ok(), self.members.contains_key(&(*organisation, user)));
            if added.is_ok() {
                members.insert(user);
            }
        } else if identity.remove_team_member(TeamId(team), AccountId(user)).await.is_ok() {
            self.teams.get_mut(&team).unwrap().1.remove(&user);
        }
    }

    fn principal(&mut self) -> Principal {
        let teams: Vec<u64> = self.teams.keys().copied().collect();
        if self.dice.chance(40) && !teams.is_empty() {
            Principal::Team(TeamId(self.dice.of(&teams)))
        } else {
            Principal::User(AccountId(self.dice.of(&self.users)))
        }
    }

    async fn grant_on_repository(&mut self) {
        let repositories: Vec<u64> = self.repositories.keys().copied().collect();
        let (id, principal) = (self.dice.of(&repositories), self.principal());
        let role = self.dice.chance(80).then(|| self.dice.of(&REPOSITORY_ROLES));
        let parsed = role.map(|role| role.parse().unwrap());
        let granted = self.engine.identity.set_repository_role(RepositoryId(id), principal, parsed).await;
        if granted.is_ok() {
            let repository = self.repositories.get_mut(&id).unwrap();
            note(&mut repository.users, &mut repository.teams, principal, role);
        }
    }

    async fn grant_on_package(&mut self) {
        let packages: Vec<u64> = self.packages.keys().copied().collect();
        let (id, principal) = (self.dice.of(&packages), self.principal());
        let role = self.dice.chance(80).then(|| self.dice.of(&ROLES));
        let parsed: Option<Role> = role.map(|role| role.parse().unwrap());
        if self.registry().set_role(&self.grant(id), principal, parsed).await.is_ok() {
            let thing = &mut self.packages.get_mut(&id).unwrap().thing;
            assert_ne!(thing.mode, Mode::Scoped);
            note(&mut thing.users, &mut thing.teams, principal, role);
        }
    }

    async fn grant_to_workflows(&mut self) {
        let (packages, mut repositories): (Vec<u64>, Vec<u64>) =
            (self.packages.keys().copied().collect(), self.repositories.keys().copied().collect());
        let id = self.dice.of(&packages);
        // Of another owner's repositories one will do to see it refused.
        let owner = self.packages[&id].thing.owner;
        let others = repositories.iter().position(|repository| self.repositories[repository].owner != owner);
        let kept = others.map(|place| repositories[place]);
        repositories.retain(|repository| self.repositories[repository].owner == owner || Some(*repository) == kept);
        let repository = self.dice.of(&repositories);
        let role = self.dice.chance(80).then(|| self.dice.of(&ROLES));
        let of = self.engine.identity.repository_by_id(RepositoryId(repository)).await.unwrap();
        let parsed: Option<Role> = role.map(|role| role.parse().unwrap());
        if self.registry().set_workflow_role(&self.grant(id), &of, parsed).await.is_ok() {
            let jobs = &mut self.packages.get_mut(&id).unwrap().thing.jobs;
            match role {
                Some(role) => drop(jobs.insert(repository, role)),
                None => drop(jobs.remove(&repository)),
            }
        }
    }

    async fn change_settings(&mut self) {
        let packages: Vec<u64> = self.packages.keys().copied().collect();
        let id = self.dice.of(&packages);
        let owner = self.packages[&id].thing.owner;
        let own: Vec<u64> = self.repositories.iter().filter(|(_, repository)| repository.owner == owner).map(|(id, _)| *id).collect();
        let source = (!own.is_empty() && self.dice.chance(80)).then(|| self.dice.of(&own));
        let (visibility, inherits) = (self.dice.of(&VISIBILITIES), self.dice.chance(50) && source.is_some());
        let settings = Settings {
            visibility: Some(visibility.parse().unwrap()),
            repository: Some(source.map(RepositoryId)),
            inherits: Some(inherits),
        };
        if self.registry().change_settings(&self.grant(id), settings).await.is_ok() {
            let package = self.packages.get_mut(&id).unwrap();
            (package.thing.visibility, package.source) = (visibility, source);
            package.thing.mode = if inherits { Mode::Inherit } else { Mode::Granular };
        }
        // A repository's own visibility changes now and then too.
        let (repositories, visibility): (Vec<u64>, _) = (self.repositories.keys().copied().collect(), self.dice.of(&VISIBILITIES));
        let id = self.dice.of(&repositories);
        self.engine.identity.set_visibility(RepositoryId(id), visibility.parse().unwrap()).await.unwrap();
        self.repositories.get_mut(&id).unwrap().visibility = visibility;
    }

    async fn move_repository(&mut self) {
        let repositories: Vec<u64> = self.repositories.keys().copied().collect();
        let (id, to) = (self.dice.of(&repositories), self.destination());
        if self.repositories[&id].owner == to {
            return;
        }
        let account = self.account(to).await;
        self.registry().transfer_repository(RepositoryId(id), &Caller::System, &account, None).await.unwrap();
        let visibility = self.repositories[&id].visibility;
        self.repositories.insert(id, Repository { owner: to, visibility, users: BTreeMap::new(), teams: BTreeMap::new() });
        let is_organisation = account.is_organisation();
        self.let_go(id, |thing| (thing.owner, thing.owner_is_organisation) = (to, is_organisation));
    }

    /// What becomes of the packages of a repository that is not what it was: its own go with it, others lose the link.
    fn let_go(&mut self, repository: u64, goes_along: impl Fn(&mut Thing)) {
        for Package { thing, source, .. } in self.packages.values_mut() {
            if thing.mode == Mode::Scoped && *source == Some(repository) {
                (thing.users, thing.teams, thing.jobs) = Default::default();
                goes_along(thing);
            } else if *source == Some(repository) {
                (*source, thing.mode) = (None, Mode::Granular);
            }
            thing.jobs.remove(&repository);
        }
    }

    async fn move_package(&mut self) {
        let packages: Vec<u64> = self.packages.keys().copied().collect();
        let (id, to) = (self.dice.of(&packages), self.destination());
        let account = self.account(to).await;
        let moved = self.registry().move_package(&self.grant(id), &Caller::System, &account).await;
        let package = self.packages.get_mut(&id).unwrap();
        assert_eq!(moved.is_err(), package.thing.mode == Mode::Scoped || package.deleted, "{moved:?}");
        if moved.is_ok() && package.thing.owner != to {
            let thing = &mut package.thing;
            (thing.owner, thing.owner_is_organisation) = (to, account.is_organisation());
            (thing.users, thing.teams, thing.jobs) = Default::default();
            (thing.mode, package.source) = (Mode::Granular, None);
        }
    }

    async fn rename_or_delete(&mut self) {
        match self.dice.below(5) {
            0 => {
                let (id, name) = (self.dice.of(&self.everyone()), self.name("renamed"));
                let change = AccountChange { login: Some(OwnerName::new(&name).unwrap()), ..AccountChange::default() };
                self.engine.identity.change_account(AccountId(id), change).await.unwrap();
            }
            1 => {
                let (teams, name): (Vec<u64>, _) = (self.teams.keys().copied().collect(), self.name("team"));
                if !teams.is_empty() {
                    let team = self.dice.of(&teams);
                    self.engine.identity.rename_team(TeamId(team), TeamName::new(&name).unwrap()).await.unwrap();
                }
            }
            2 => {
                let (repositories, name): (Vec<u64>, _) = (self.repositories.keys().copied().collect(), self.name("repo"));
                let id = self.dice.of(&repositories);
                self.engine.identity.rename_repository(RepositoryId(id), RepositoryName::new(&name).unwrap()).await.unwrap();
            }
            3 if self.repositories.len() > 2 => {
                let repositories: Vec<u64> = self.repositories.keys().copied().collect();
                let id = self.dice.of(&repositories);
                let deleted = self.registry().delete_repository(RepositoryId(id)).await;
                let holds = |package: &Package| package.thing.mode == Mode::Scoped && package.source == Some(id) && !package.deleted;
                assert_eq!(deleted.is_err(), self.packages.values().any(holds), "{deleted:?}");
                if deleted.is_ok() {
                    self.repositories.remove(&id);
                    for package in self.packages.values_mut().filter(|package| package.source == Some(id)) {
                        package.source = None;
                        if package.thing.mode == Mode::Inherit {
                            package.thing.mode = Mode::Granular;
                        }
                    }
                    self.packages.values_mut().for_each(|package| {
                        package.thing.jobs.remove(&id);
                    });
                }
            }
            _ => {
                let packages: Vec<u64> = self.packages.keys().copied().collect();
                let id = self.dice.of(&packages);
                let grant = self.grant(id);
                if self.packages[&id].deleted {
                    self.registry().restore_package(&grant, &Untagged).await.unwrap();
                } else {
                    self.registry().delete_package(&grant).await.unwrap();
                }
                let package = self.packages.get_mut(&id).unwrap();
                package.deleted = !package.deleted;
            }
        }
    }

    /// A package as the model sees it.
    fn thing(&self, package: &Package) -> Thing {
        let source = package.source.map(|id| {
            let Repository { owner, visibility, users, teams } = self.repositories[&id].clone();
            Source { id, owner, visibility, users, teams }
        });
        Thing { source, ..package.thing.clone() }
    }

    /// Everyone who could ask, as the model and as the engine see them.
    async fn askers(&mut self) -> Vec<(Asker, Caller)> {
        let mut askers = vec![(Asker::Nobody, Caller::Anonymous), (Asker::Server, Caller::System)];
        for (index, user) in self.users.clone().into_iter().enumerate() {
            let scopes: BTreeSet<&'static str> = SCOPES.into_iter().filter(|_| self.dice.chance(80)).collect();
            let organisations = self.members.iter().filter(|((_, who), _)| *who == user).map(|((of, _), owner)| (*of, *owner)).collect();
            let teams = self.teams.iter().filter(|(_, (_, members))| members.contains(&user)).map(|(team, _)| *team).collect();
            let granted = scopes.iter().copied().collect::<Vec<_>>().join(",").parse().unwrap();
            let signed = self.engine.identity.seen(&self.account(user).await, TokenId(1), granted).await.unwrap();
            let person = Person { id: user, site_admin: index == 5, scopes, organisations, teams };
            askers.push((Asker::Person(person), Caller::Signed(signed)));
        }
        for (id, Repository { owner, .. }) in self.repositories.clone() {
            let (writes, repository) = (self.dice.chance(80), self.engine.identity.repository_by_id(RepositoryId(id)).await.unwrap());
            let caller = Caller::Workflow(Workflow::new(&repository, TokenId(1), writes));
            askers.push((Asker::Job(Job { repository: id, owner, writes }), caller));
        }
        askers
    }
}

fn note(
    users: &mut BTreeMap<u64, &'static str>,
    teams: &mut BTreeMap<u64, &'static str>,
    principal: Principal,
    role: Option<&'static str>,
) {
    let (map, id) = match principal {
        Principal::User(user) => (users, user.0),
        Principal::Team(team) => (teams, team.0),
    };
    match role {
        Some(role) => drop(map.insert(id, role)),
        None => drop(map.remove(&id)),
    }
}

fn answer(result: &Result<()>) -> Answer {
    match result.as_ref().map_err(crate::error::Error::kind) {
        Ok(()) => Answer::Allowed,
        Err(Kind::NotFound) => Answer::Hidden,
        Err(Kind::Unauthenticated) => Answer::SignIn,
        Err(Kind::Forbidden) => Answer::Denied,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_engine_agrees_with_the_model_after_any_history() {
    let (mut cells, mut seen) = (0, BTreeMap::<String, usize>::new());
    for seed in 0..SEEDS {
        let mut history = History::begin(seed).await;
        for _ in 0..CHANGES {
            history.change().await;
        }
        for (asker, caller) in history.askers().await {
            for (id, package) in history.packages.iter().filter(|(_, package)| !package.deleted) {
                let thing = history.thing(package);
                let head = history.registry().catalog().head_by_id(PackageId(*id)).await.unwrap().unwrap();
                for (name, action) in ACTIONS.into_iter().zip(Action::ALL) {
                    let expected = model::expected(&asker, &thing, name);
                    let actual = answer(&access::decide(&caller, &head.policy, action));
                    assert_eq!(actual, expected, "seed {seed}: {name} {asker:?} {thing:?} {:?}", head.policy);
                    *seen.entry(format!("{expected:?}")).or_default() += 1;
                    cells += 1;
                }
            }
        }
    }
    assert!(cells > 20_000, "{cells}");
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 200), "{seen:?}");
}
