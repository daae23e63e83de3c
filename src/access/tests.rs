//! The matrix: every cell against a model that was written from GitHub's documents, not from the code.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::clock::Timestamp;
use crate::name::{OwnerName, PackageName, RepositoryName};
use crate::package::{PackageId, TeamId, TokenId};

const OWNER: AccountId = AccountId(1);
const OTHER_OWNER: AccountId = AccountId(2);
const USER: AccountId = AccountId(3);
const TEAM: TeamId = TeamId(4);
const REPOSITORY: RepositoryId = RepositoryId(5);
const OTHER_REPOSITORY: RepositoryId = RepositoryId(6);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    System,
    /// The owning user, or an owner of the owning organisation.
    Owner,
    /// A member of the owning organisation; of no meaning under a user.
    Member,
    /// No member, though perhaps still named in the roles.
    Outsider,
    SiteAdmin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    None,
    SameOwner(Visibility),
    OtherOwner(Visibility),
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
struct Cell {
    who: Who,
    scopes: Scopes,
    organisation: bool,
    visibility: Visibility,
    link: Link,
    inherits: bool,
    repository_scoped: bool,
    /// Role granted on the package, to the user or the team.
    package_role: Option<Role>,
    /// Role granted on the repository, to the user or the team.
    repository_role: Option<RepositoryRole>,
    /// Whether roles are granted to the user's team instead of the user.
    by_team: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Allowed,
    Hidden,
    SignIn,
    Denied,
}

/// The model: facts first, answer last.
fn model(cell: Cell, action: Action) -> Answer {
    let has = |scope| cell.scopes.holds(scope);
    let may_read_scope = has(Scope::ReadPackages) || has(Scope::WritePackages);
    let repository_ok = !cell.repository_scoped || has(Scope::Repo);

    let linked = match cell.link {
        Link::SameOwner(visibility) => Some(visibility),
        Link::None | Link::OtherOwner(_) => None,
    };
    let visibility = match (cell.repository_scoped, linked) {
        (true, None) => Visibility::Private,
        (true, Some(visibility)) => visibility,
        (false, _) => cell.visibility,
    };

    // 0 none, 1 read, 2 write, 3 admin
    let from_package = match cell.package_role {
        None => 0,
        Some(Role::Read) => 1,
        Some(Role::Write) => 2,
        Some(Role::Admin) => 3,
    };
    let from_repository = match cell.repository_role {
        None => 0,
        Some(RepositoryRole::Read | RepositoryRole::Triage) => 1,
        Some(RepositoryRole::Write | RepositoryRole::Maintain) => 2,
        Some(RepositoryRole::Admin) => 3,
    };
    let role_counts = if cell.organisation { cell.who == Who::Member } else { !cell.by_team };
    let rank = match cell.who {
        Who::Anonymous => 0,
        Who::System | Who::Owner | Who::SiteAdmin => 3,
        Who::Member | Who::Outsider if !role_counts => 0,
        Who::Member | Who::Outsider => match (cell.repository_scoped, linked.is_some(), cell.inherits) {
            (true, true, _) | (false, true, true) => from_repository,
            (true, false, _) => 0,
            (false, _, _) => from_package,
        },
    };

    let reads = match (cell.who, visibility) {
        (Who::System, _) | (_, Visibility::Public) => true,
        (Who::Anonymous, _) => false,
        (_, Visibility::Internal) => may_read_scope && repository_ok,
        (_, Visibility::Private) => rank >= 1 && may_read_scope && repository_ok,
    };
    let acts = match action {
        Action::Read => true,
        Action::Write => rank >= 2 && has(Scope::WritePackages) && repository_ok,
        Action::Admin => rank >= 3 && has(Scope::WritePackages) && repository_ok,
        Action::Delete => rank >= 3 && has(Scope::DeletePackages) && may_read_scope && repository_ok,
    };
    match (reads, acts || cell.who == Who::System, cell.who) {
        (false, _, _) => Answer::Hidden,
        (true, true, _) => Answer::Allowed,
        (true, false, Who::Anonymous) => Answer::SignIn,
        (true, false, _) => Answer::Denied,
    }
}

fn caller(cell: Cell) -> Caller {
    let mut signed = Signed {
        user: USER,
        login: OwnerName::new("someone").unwrap(),
        site_admin: cell.who == Who::SiteAdmin,
        token: TokenId(1),
        scopes: cell.scopes,
        organisations: HashMap::new(),
        teams: HashSet::from([TEAM]),
    };
    match cell.who {
        Who::Anonymous => return Caller::Anonymous,
        Who::System => return Caller::System,
        Who::Owner if cell.organisation => {
            signed.organisations.insert(OWNER, OrganisationRole::Owner);
        }
        Who::Owner => signed.user = OWNER,
        Who::Member if cell.organisation => {
            signed.organisations.insert(OWNER, OrganisationRole::Member);
        }
        Who::Member | Who::Outsider | Who::SiteAdmin => {}
    }
    Caller::Signed(signed)
}

fn policy(cell: Cell) -> Policy {
    let principal = if cell.by_team { Principal::Team(TEAM) } else { Principal::User(USER) };
    let repository = |owner, visibility| RepositoryPolicy {
        id: REPOSITORY,
        visibility,
        owner,
        roles: cell.repository_role.map(|role| (principal, role)).into_iter().collect(),
    };
    Policy {
        owner: OWNER,
        owner_is_organisation: cell.organisation,
        visibility: cell.visibility,
        inherits: cell.inherits,
        roles: cell.package_role.map(|role| (principal, role)).into_iter().collect(),
        workflows: BTreeMap::new(),
        repository: match cell.link {
            Link::None => None,
            Link::SameOwner(visibility) => Some(repository(OWNER, visibility)),
            Link::OtherOwner(visibility) => Some(repository(OTHER_OWNER, visibility)),
        },
        repository_scoped: cell.repository_scoped,
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

const VISIBILITIES: [Visibility; 3] = [Visibility::Private, Visibility::Internal, Visibility::Public];
const WHO: [Who; 6] = [Who::Anonymous, Who::System, Who::Owner, Who::Member, Who::Outsider, Who::SiteAdmin];

fn every_cell(mut check: impl FnMut(Cell)) {
    let scope_sets: Vec<Scopes> = (0..16_u8)
        .map(|bits| {
            let all = [Scope::ReadPackages, Scope::WritePackages, Scope::DeletePackages, Scope::Repo];
            all.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, scope)| scope).collect()
        })
        .collect();
    let links = [Link::None].into_iter().chain(VISIBILITIES.map(Link::SameOwner)).chain(VISIBILITIES.map(Link::OtherOwner));
    let package_roles = [None, Some(Role::Read), Some(Role::Write), Some(Role::Admin)];
    let repository_roles = ["", "read", "triage", "write", "maintain", "admin"].map(|text| text.parse::<RepositoryRole>().ok());
    let mut turn = false;
    for link in links {
        for (package_role, repository_role) in package_roles.iter().flat_map(|one| repository_roles.map(|two| (*one, two))) {
            for flags in 0..8_u8 {
                for visibility in VISIBILITIES {
                    for who in WHO {
                        // Both ways of granting take turns, so that each meets every other dimension without doubling the run.
                        turn = !turn;
                        for scopes in &scope_sets {
                            check(Cell {
                                who,
                                scopes: *scopes,
                                organisation: flags & 1 == 1,
                                visibility,
                                link,
                                inherits: flags & 2 == 2,
                                repository_scoped: flags & 4 == 4,
                                package_role,
                                repository_role,
                                by_team: turn ^ (scopes.iter().count() % 2 == 1),
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_whole_matrix_agrees_with_the_model() {
    let mut cells = 0;
    let mut seen = HashMap::<String, usize>::new();
    every_cell(|cell| {
        let (caller, policy) = (caller(cell), policy(cell));
        for action in Action::ALL {
            let (expected, actual) = (model(cell, action), answer(&decide(&caller, &policy, action)));
            assert_eq!(actual, expected, "{action:?} {cell:?}");
            *seen.entry(format!("{action:?} {expected:?}")).or_default() += 1;
            cells += 1;
        }
    });
    assert!(cells > 1_000_000, "{cells}");
    // Every action meets every answer that it can have.
    assert_eq!(seen.len(), 4 * 4 - 2, "{seen:?}");
}

#[test]
fn who_may_not_read_gets_one_answer_for_every_action() {
    every_cell(|cell| {
        let (caller, policy) = (caller(cell), policy(cell));
        if let Err(error) = decide(&caller, &policy, Action::Read) {
            for action in Action::ALL {
                let other = decide(&caller, &policy, action).unwrap_err();
                assert_eq!((error.kind(), error.message()), (other.kind(), other.message()));
            }
        }
    });
}

fn cell(who: Who, scopes: &str) -> Cell {
    Cell {
        who,
        scopes: scopes.parse().unwrap(),
        organisation: true,
        visibility: Visibility::Public,
        link: Link::None,
        inherits: false,
        repository_scoped: false,
        package_role: None,
        repository_role: None,
        by_team: false,
    }
}

#[test]
fn a_refusal_names_what_is_missing() {
    let message = |cell: Cell, action| decide(&caller(cell), &policy(cell), action).unwrap_err().message().to_owned();
    assert_eq!(message(cell(Who::Owner, "read:packages"), Action::Write), "the token lacks the scope write:packages");
    assert_eq!(message(cell(Who::Owner, "delete:packages"), Action::Delete), "the token lacks the scope read:packages");
    assert_eq!(message(cell(Who::Member, "write:packages"), Action::Write), "the role write on the package is required");
    let maven = Cell { repository_scoped: true, link: Link::SameOwner(Visibility::Public), ..cell(Who::Owner, "write:packages") };
    assert_eq!(message(maven, Action::Write), "the token lacks the scope repo");
}

#[test]
fn the_highest_of_several_roles_counts() {
    let cell = cell(Who::Member, "write:packages");
    let mut policy = policy(cell);
    policy.roles = BTreeMap::from([(Principal::User(USER), Role::Read), (Principal::Team(TEAM), Role::Write)]);
    assert!(decide(&caller(cell), &policy, Action::Write).is_ok());
    assert!(decide(&caller(cell), &policy, Action::Admin).is_err());
}

#[test]
fn a_first_publish_tells_nothing_about_owners() {
    let owner = |members_can_publish| Some(Owner { account: OWNER, members_can_publish });
    let ask =
        |who, scopes, owner| decide_create(&caller(cell(who, scopes)), owner).map_err(|error| (error.kind(), error.message().to_owned()));
    for who in [Who::Anonymous, Who::Outsider] {
        for scopes in ["", "read:packages", "write:packages"] {
            assert_eq!(ask(who, scopes, owner(true)), ask(who, scopes, None));
            assert!(ask(who, scopes, None).is_err());
        }
    }
    assert_eq!(ask(Who::Anonymous, "", None).unwrap_err().0, Kind::Unauthenticated);
    assert!(ask(Who::Member, "write:packages", owner(true)).is_ok());
    assert!(ask(Who::Member, "write:packages", owner(false)).is_err());
    assert!(ask(Who::Owner, "write:packages", owner(false)).is_ok());
    assert!(ask(Who::Owner, "read:packages", owner(false)).is_err());
    assert!(ask(Who::SiteAdmin, "write:packages", owner(false)).is_ok());
    assert_eq!(ask(Who::SiteAdmin, "write:packages", None).unwrap_err().0, Kind::NotFound);
    assert!(ask(Who::System, "", owner(false)).is_ok());
}

/// A job of a workflow, and the package that it wants something of.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// Whether it runs for the repository that the package is linked to.
    in_linked: bool,
    /// Whether its repository is the package owner's.
    of_owner: bool,
    /// The role that the package gives its repository by name.
    listed: Option<Role>,
    /// Whether it may write packages.
    writes: bool,
    visibility: Visibility,
    link: Link,
    inherits: bool,
    repository_scoped: bool,
}

/// The model for workflows, from GitHub's table of what they may do.
fn workflow_model(job: Job, action: Action) -> Answer {
    let linked = match job.link {
        Link::SameOwner(visibility) => Some(visibility),
        Link::None | Link::OtherOwner(_) => None,
    };
    let runs_in_source = job.in_linked && linked.is_some();
    let visibility = if job.repository_scoped { linked.unwrap_or(Visibility::Private) } else { job.visibility };
    let named = match job.listed {
        None => 0,
        Some(Role::Read) => 1,
        Some(Role::Write) => 2,
        Some(Role::Admin) => 3,
    };
    let rank = match (job.of_owner, job.repository_scoped, runs_in_source) {
        (false, _, _) | (true, true, false) => 0,
        (true, true, true) => 3,
        (true, false, true) if job.inherits => 3,
        (true, false, _) => named,
    };
    let downloads = visibility != Visibility::Private || rank >= 1;
    let needed = match action {
        Action::Read => 0,
        Action::Write => 2,
        Action::Delete | Action::Admin => 3,
    };
    match (downloads, rank >= needed && (job.writes || action == Action::Read)) {
        (false, _) => Answer::Hidden,
        (true, true) => Answer::Allowed,
        (true, false) => Answer::Denied,
    }
}

#[test]
fn workflows_have_the_rights_of_their_repository_and_no_others() {
    let links = || [Link::None].into_iter().chain(VISIBILITIES.map(Link::SameOwner)).chain(VISIBILITIES.map(Link::OtherOwner));
    let roles = [None, Some(Role::Read), Some(Role::Write), Some(Role::Admin)];
    let mut seen = HashMap::<Answer, usize>::new();
    for (link, listed) in links().flat_map(|link| roles.map(|role| (link, role))) {
        for (visibility, flags) in VISIBILITIES.into_iter().flat_map(|visibility| (0..32_u8).map(move |flags| (visibility, flags))) {
            let flag = |bit: u8| flags >> bit & 1 == 1;
            let job = Job {
                in_linked: flag(0),
                of_owner: flag(1),
                listed,
                writes: flag(2),
                visibility,
                link,
                inherits: flag(3),
                repository_scoped: flag(4),
            };
            // The linked repository is the owner's exactly where the link says so.
            if job.in_linked && job.of_owner != matches!(link, Link::SameOwner(_)) {
                continue;
            }
            let repository = if job.in_linked { REPOSITORY } else { OTHER_REPOSITORY };
            let of = |owner| Repository {
                id: repository,
                owner,
                name: RepositoryName::new("web").unwrap(),
                visibility: Visibility::Private,
                roles: BTreeMap::new(),
                created_at: Timestamp::from_millis(0),
            };
            let owner = if job.of_owner { OWNER } else { OTHER_OWNER };
            let caller = Caller::Workflow(Workflow::new(&of(owner), TokenId(1), job.writes));
            let like = Cell { visibility, link, inherits: job.inherits, repository_scoped: job.repository_scoped, ..cell(Who::Member, "") };
            let policy = Policy { workflows: listed.map(|role| (repository, role)).into_iter().collect(), ..policy(like) };
            for action in Action::ALL {
                let (expected, actual) = (workflow_model(job, action), answer(&decide(&caller, &policy, action)));
                assert_eq!(actual, expected, "{action:?} {job:?}");
                *seen.entry(expected).or_default() += 1;
            }
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|cells| *cells > 500), "{seen:?}");
}

#[test]
fn a_workflow_makes_packages_under_its_own_owner_alone() {
    let repository = |owner| Repository {
        id: REPOSITORY,
        owner,
        name: RepositoryName::new("web").unwrap(),
        visibility: Visibility::Private,
        roles: BTreeMap::new(),
        created_at: Timestamp::from_millis(0),
    };
    let may = |of, writes| {
        let caller = Caller::Workflow(Workflow::new(&repository(of), TokenId(1), writes));
        decide_create(&caller, Some(Owner { account: OWNER, members_can_publish: false })).is_ok()
    };
    assert!(may(OWNER, true));
    assert!(!may(OWNER, false) && !may(OTHER_OWNER, true));
    let workflow = Caller::Workflow(Workflow::new(&repository(OWNER), TokenId(1), true));
    let policy = |id| RepositoryPolicy { id, ..RepositoryPolicy::from(&repository(OWNER)) };
    assert_eq!(role_on_repository(&workflow, &policy(REPOSITORY), true), Some(RepositoryRole::Write));
    assert_eq!(role_on_repository(&workflow, &policy(OTHER_REPOSITORY), true), None);
}

#[test]
fn linking_asks_for_the_role_on_the_repository() {
    let role = |who, given: Option<RepositoryRole>| {
        let cell = Cell { link: Link::SameOwner(Visibility::Private), repository_role: given, ..cell(who, "") };
        role_on_repository(&caller(cell), &policy(cell).repository.unwrap(), true)
    };
    assert_eq!(role(Who::Member, Some(RepositoryRole::Triage)), Some(RepositoryRole::Triage));
    assert_eq!(role(Who::Outsider, Some(RepositoryRole::Admin)), None);
    assert_eq!(role(Who::Owner, None), Some(RepositoryRole::Admin));
    assert_eq!(role(Who::Anonymous, None), None);
}

#[test]
fn grants_cover_what_was_decided_and_reading() {
    let name = PackageName::new("@acme/tool").unwrap();
    let target = Target { ecosystem: "npm", name: &name, package: Some(PackageId(7)) };
    let cell = cell(Who::Owner, "write:packages");
    let write = grant(&caller(cell), target, &policy(cell), Action::Write).unwrap();
    assert!(write.allows(Action::Read) && write.allows(Action::Write) && !write.allows(Action::Delete));
    assert!(write.require(Action::Admin).is_err());
    assert_eq!((write.ecosystem(), write.name(), write.package(), write.caller()), ("npm", &name, Some(PackageId(7)), Some(USER)));
    let system = Grant::system(target);
    assert!(Action::ALL.into_iter().all(|action| system.allows(action)) && system.is_system());
    assert!(grant_create(&Caller::Anonymous, target, None).is_err());
}

#[test]
fn the_operator_decides_who_uses_the_upstreams() {
    let name = PackageName::new("left-pad").unwrap();
    let read = |caller: &Caller, anonymous| grant_upstream(caller, "npm", &name, Action::Read, anonymous).map_err(|error| error.kind());
    let reader = caller(cell(Who::Outsider, "read:packages"));
    let other = caller(cell(Who::Outsider, "user"));
    assert!([&Caller::Anonymous, &Caller::System, &reader, &other].into_iter().all(|caller| read(caller, true).is_ok()));
    assert_eq!(read(&Caller::Anonymous, false).unwrap_err(), Kind::Unauthenticated);
    assert_eq!(read(&other, false).unwrap_err(), Kind::Forbidden);
    let grant = read(&reader, false).unwrap();
    assert!(!grant.allows(Action::Write));
    assert_eq!(grant.package(), None);
    let write = |caller: &Caller| grant_upstream(caller, "npm", &name, Action::Write, true).unwrap_err().kind();
    assert_eq!(
        [write(&Caller::Anonymous), write(&reader), write(&Caller::System)],
        [Kind::Unauthenticated, Kind::Forbidden, Kind::Forbidden]
    );
}
