//! The rights on packages once more, for tests: written from GitHub's documentation and
//! the product's plan, not from the code, in plain numbers and words.
//!
//! Whatever asks for rights can be checked against it: the pure decision on every cell
//! and on thousands of random ones, the engine after random histories, and every route
//! of every ecosystem. It shares no type with what it checks but in [`Asker::caller`]
//! and [`Thing::policy`], which only translate.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Policy, RepositoryPolicy};
use crate::identity::{Caller, OrganisationRole, Signed, Workflow};
use crate::name::OwnerName;
use crate::package::{AccountId, Principal, RepositoryId, TeamId, TokenId};

/// What may be done to a package.
pub(crate) const ACTIONS: [&str; 4] = ["read", "write", "delete", "admin"];
/// Who may see a thing without a role.
pub(crate) const VISIBILITIES: [&str; 3] = ["private", "internal", "public"];
/// Roles on packages, from the least.
pub(crate) const ROLES: [&str; 3] = ["read", "write", "admin"];
/// Roles on repositories, from the least.
pub(crate) const REPOSITORY_ROLES: [&str; 5] = ["read", "triage", "write", "maintain", "admin"];
/// Scopes that bear on packages.
pub(crate) const SCOPES: [&str; 4] = ["read:packages", "write:packages", "delete:packages", "repo"];

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    Nobody,
    Server,
    Person(Person),
    Job(Job),
}

/// A user with a token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Person {
    pub(crate) id: u64,
    pub(crate) site_admin: bool,
    pub(crate) scopes: BTreeSet<&'static str>,
    /// Organisations, and whether the user is an owner of each.
    pub(crate) organisations: BTreeMap<u64, bool>,
    pub(crate) teams: BTreeSet<u64>,
}

/// A job of a repository's workflow.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) repository: u64,
    /// Whose repository that is.
    pub(crate) owner: u64,
    /// Whether it may write packages.
    pub(crate) writes: bool,
}

/// Where a package has its rights from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// From itself.
    Granular,
    /// Its roles from the repository it is linked to.
    Inherit,
    /// Its roles and its visibility from its repository, and nothing else.
    Scoped,
}

/// A package, with all that rights on it can hang on.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) owner: u64,
    pub(crate) owner_is_organisation: bool,
    pub(crate) visibility: &'static str,
    pub(crate) mode: Mode,
    pub(crate) users: BTreeMap<u64, &'static str>,
    pub(crate) teams: BTreeMap<u64, &'static str>,
    /// Roles of repositories' workflows.
    pub(crate) jobs: BTreeMap<u64, &'static str>,
    pub(crate) source: Option<Source>,
}

/// A repository that a package is linked to.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) id: u64,
    pub(crate) owner: u64,
    pub(crate) visibility: &'static str,
    pub(crate) users: BTreeMap<u64, &'static str>,
    pub(crate) teams: BTreeMap<u64, &'static str>,
}

/// What the asker hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Allowed,
    /// As if there were no such package.
    Hidden,
    /// Who are you?
    SignIn,
    Denied,
}

/// The answer that is right.
pub(crate) fn expected(asker: &Asker, thing: &Thing, action: &str) -> Answer {
    // A repository of somebody else's gives nothing.
    let source = thing.source.as_ref().filter(|source| source.owner == thing.owner);
    let visibility = match (thing.mode, source) {
        (Mode::Scoped, None) => "private",
        (Mode::Scoped, Some(source)) => source.visibility,
        _ => thing.visibility,
    };
    let rank = rank(asker, thing, source);
    let may = |scope| has(asker, scope, thing.mode);
    let reads = match (asker, visibility) {
        (Asker::Server, _) | (_, "public") => true,
        (Asker::Nobody, _) => false,
        (_, "internal") => may("read:packages"),
        _ => rank >= 1 && may("read:packages"),
    };
    let acts = match action {
        "read" => true,
        "write" => rank >= 2 && may("write:packages"),
        "admin" => rank >= 3 && may("write:packages"),
        _ => rank >= 3 && may("delete:packages") && may("read:packages"),
    };
    match (reads, acts) {
        (false, _) => Answer::Hidden,
        (true, true) => Answer::Allowed,
        (true, false) if matches!(asker, Asker::Nobody) => Answer::SignIn,
        (true, false) => Answer::Denied,
    }
}

/// Whether the asker may make a package under an owner who lets members do that.
pub(crate) fn creates(asker: &Asker, owner: u64) -> bool {
    has(asker, "write:packages", Mode::Granular)
        && match asker {
            Asker::Nobody => false,
            Asker::Server => true,
            Asker::Person(person) => person.site_admin || person.id == owner || person.organisations.contains_key(&owner),
            Asker::Job(job) => job.owner == owner,
        }
}

/// How far the asker's role goes: nowhere, to reading, to writing, to everything.
fn rank(asker: &Asker, thing: &Thing, source: Option<&Source>) -> u8 {
    let level = |role: &str| match role {
        "read" | "triage" => 1,
        "write" | "maintain" => 2,
        _ => 3,
    };
    match asker {
        Asker::Nobody => 0,
        Asker::Server => 3,
        Asker::Person(person) => {
            let membership = person.organisations.get(&thing.owner);
            if person.site_admin || person.id == thing.owner || membership == Some(&true) {
                return 3;
            }
            if thing.owner_is_organisation && membership.is_none() {
                return 0;
            }
            let (users, teams) = match (thing.mode, source) {
                (Mode::Scoped, None) => return 0,
                (Mode::Scoped | Mode::Inherit, Some(source)) => (&source.users, &source.teams),
                _ => (&thing.users, &thing.teams),
            };
            let own = users.get(&person.id).map_or(0, |role| level(role));
            let in_teams = teams.iter().filter(|(team, _)| thing.owner_is_organisation && person.teams.contains(team));
            in_teams.map(|(_, role)| level(role)).max().unwrap_or(0).max(own)
        }
        Asker::Job(job) if job.owner != thing.owner => 0,
        Asker::Job(job) => match (thing.mode, source.is_some_and(|source| source.id == job.repository)) {
            (Mode::Scoped | Mode::Inherit, true) => 3,
            (Mode::Scoped, false) => 0,
            _ => thing.jobs.get(&job.repository).map_or(0, |role| level(role)),
        },
    }
}

/// Whether the asker's token is good for something.
fn has(asker: &Asker, scope: &str, mode: Mode) -> bool {
    match asker {
        Asker::Nobody => false,
        Asker::Server => true,
        Asker::Job(job) => scope == "read:packages" || job.writes,
        Asker::Person(Person { scopes, .. }) => {
            let granted = scopes.contains(scope) || (scope == "read:packages" && scopes.contains("write:packages"));
            granted && (mode != Mode::Scoped || scopes.contains("repo"))
        }
    }
}

impl Asker {
    /// The caller that this is to the code.
    pub(crate) fn caller(&self) -> Caller {
        match self {
            Self::Nobody => Caller::Anonymous,
            Self::Server => Caller::System,
            Self::Person(person) => {
                let role = |owner: bool| if owner { OrganisationRole::Owner } else { OrganisationRole::Member };
                let organisations = person.organisations.iter().map(|(id, owner)| (AccountId(*id), role(*owner)));
                Caller::Signed(Signed {
                    user: AccountId(person.id),
                    login: OwnerName::new("someone").unwrap(),
                    site_admin: person.site_admin,
                    token: TokenId(1),
                    scopes: person.scopes.iter().map(|scope| scope.parse().unwrap()).collect::<Vec<_>>().into_iter().collect(),
                    organisations: organisations.collect::<HashMap<_, _>>(),
                    teams: person.teams.iter().map(|team| TeamId(*team)).collect::<HashSet<_>>(),
                })
            }
            Self::Job(job) => {
                let scopes: &[&str] = if job.writes { &SCOPES } else { &["read:packages", "repo"] };
                Caller::Workflow(Workflow {
                    repository: RepositoryId(job.repository),
                    owner: AccountId(job.owner),
                    token: TokenId(1),
                    scopes: scopes.join(",").parse().unwrap(),
                })
            }
        }
    }
}

fn roles<R: std::str::FromStr<Err: std::fmt::Debug>>(
    users: &BTreeMap<u64, &'static str>,
    teams: &BTreeMap<u64, &'static str>,
) -> BTreeMap<Principal, R> {
    let users = users.iter().map(|(id, role)| (Principal::User(AccountId(*id)), role));
    let teams = teams.iter().map(|(id, role)| (Principal::Team(TeamId(*id)), role));
    users.chain(teams).map(|(principal, role)| (principal, role.parse().unwrap())).collect()
}

impl Thing {
    /// The policy that this is to the code.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            owner: AccountId(self.owner),
            owner_is_organisation: self.owner_is_organisation,
            visibility: self.visibility.parse().unwrap(),
            inherits: self.mode != Mode::Granular,
            roles: roles(&self.users, &self.teams),
            workflows: self.jobs.iter().map(|(id, role)| (RepositoryId(*id), role.parse().unwrap())).collect(),
            repository: self.source.as_ref().map(|source| RepositoryPolicy {
                id: RepositoryId(source.id),
                visibility: source.visibility.parse().unwrap(),
                owner: AccountId(source.owner),
                roles: roles(&source.users, &source.teams),
            }),
            repository_scoped: self.mode == Mode::Scoped,
        }
    }
}

/// Numbers that look random and are the same for a seed every time (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % bound as u64).unwrap()
    }

    /// Yes in so many of a hundred throws.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn of<T: Clone>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())].clone()
    }
}
