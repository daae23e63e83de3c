//! Every row of the table as every kind of caller.
//!
//! What is expected is written down from GitHub's documentation and the plan of
//! rights, not taken from the code: a table of statuses for the rows of accounts and
//! repositories, the model of rights for those of packages. A row that nobody wrote
//! an expectation for fails.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde_json::Value;

use super::{Answer, World};
use crate::access::model::{self, Answer as Heard, Asker, Mode, Person, Thing};
use crate::api::rest::*;
use crate::identity::Scopes;
use crate::package::Visibility;

/// The callers of the tables, in the order of their columns.
const CALLERS: [&str; 9] = ["", "out", "former", "mem", "rea", "wes", "adm", "own", "site"];

/// What is expected of a row that is not about packages: method, template, the scopes it
/// needs, a body, and the status for each of [`CALLERS`].
struct Row(&'static str, &'static str, &'static str, &'static str, [u16; 9]);

/// Those who administer the repository.
const ADMINS: [u16; 9] = [401, 404, 404, 404, 404, 404, 200, 200, 200];
/// Those who own the organisation.
const OWNERS: [u16; 9] = [401, 404, 404, 404, 404, 404, 404, 200, 200];
const HOOK: &str = r#"{"name":"web","config":{"url":"https://example.org/hook"}}"#;

const ROWS: &[Row] = &[
    Row("GET", "/", "", "", [200; 9]),
    Row("GET", "/meta", "", "", [200; 9]),
    Row("GET", "/versions", "", "", [200; 9]),
    Row("GET", "/rate_limit", "", "", [404; 9]),
    Row("GET", "/user", "", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/users/{username}", "", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/user/orgs", "read:org", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/users/{username}/orgs", "", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/user/memberships/orgs", "read:org", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/user/memberships/orgs/{organisation}", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 404]),
    Row("GET", "/user/tokens", "user", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("POST", "/user/tokens", "user", r#"{"scopes":[]}"#, [401, 201, 201, 201, 201, 201, 201, 201, 201]),
    Row("GET", "/user/tokens/{token_id}", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 404]),
    Row("DELETE", "/user/tokens/{token_id}", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 404]),
    Row("GET", "/orgs/{org}", "", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("DELETE", "/orgs/{org}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 409, 409]),
    Row("GET", "/orgs/{org}/audit-log", "read:audit_log", "", [401, 403, 403, 403, 403, 403, 403, 200, 200]),
    Row("GET", "/user/audit-log", "read:audit_log", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/admin/audit-log", "read:audit_log", "", [401, 404, 404, 404, 404, 404, 404, 404, 200]),
    Row("GET", "/orgs/{org}/members", "read:org", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/orgs/{org}/members/{username}", "read:org", "", [401, 404, 404, 204, 204, 204, 204, 204, 204]),
    Row("DELETE", "/orgs/{org}/members/{username}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 204, 204]),
    Row("GET", "/orgs/{org}/memberships/{username}", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    Row("PUT", "/orgs/{org}/memberships/{username}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 200, 200]),
    Row("DELETE", "/orgs/{org}/memberships/{username}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 204, 204]),
    Row("GET", "/orgs/{org}/teams", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    Row("POST", "/orgs/{org}/teams", "admin:org", r#"{"name":"new"}"#, [401, 403, 403, 403, 403, 403, 403, 201, 201]),
    Row("GET", "/orgs/{org}/teams/{team_slug}", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    Row("PATCH", "/orgs/{org}/teams/{team_slug}", "admin:org", r#"{"name":"new"}"#, [401, 403, 403, 403, 403, 403, 403, 200, 200]),
    Row("DELETE", "/orgs/{org}/teams/{team_slug}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 204, 204]),
    Row("GET", "/orgs/{org}/teams/{team_slug}/members", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/orgs/{org}/teams/{team_slug}/memberships/{username}", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    Row("PUT", "/orgs/{org}/teams/{team_slug}/memberships/{username}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 200, 200]),
    Row("DELETE", "/orgs/{org}/teams/{team_slug}/memberships/{username}", "admin:org", "", [401, 403, 403, 403, 403, 403, 403, 204, 204]),
    Row("GET", "/orgs/{org}/teams/{team_slug}/repos", "read:org", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    Row("PUT", "/orgs/{org}/teams/{team_slug}/repos/{owner}/{repo}", "read:org,repo", "", [401, 404, 404, 404, 403, 403, 204, 204, 204]),
    Row("DELETE", "/orgs/{org}/teams/{team_slug}/repos/{owner}/{repo}", "read:org,repo", "", [401, 404, 404, 404, 403, 403, 204, 204, 204]),
    Row("GET", "/user/repos", "repo", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("POST", "/user/repos", "repo", r#"{"name":"new"}"#, [401, 201, 201, 201, 201, 201, 201, 201, 201]),
    Row("GET", "/users/{username}/repos", "", "", [404, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("GET", "/orgs/{org}/repos", "", "", [404, 200, 200, 200, 200, 200, 200, 200, 200]),
    Row("POST", "/orgs/{org}/repos", "repo", r#"{"name":"new"}"#, [401, 403, 403, 201, 201, 201, 201, 201, 201]),
    Row("GET", "/repos/{owner}/{repo}", "", "", [404, 404, 404, 404, 200, 200, 200, 200, 200]),
    Row("PATCH", "/repos/{owner}/{repo}", "repo", r#"{"visibility":"internal"}"#, [401, 404, 404, 404, 403, 403, 200, 200, 200]),
    // It is its owner's already.
    Row("POST", "/repos/{owner}/{repo}/transfer", "repo", r#"{"new_owner":"acme"}"#, [401, 404, 404, 404, 403, 403, 422, 422, 422]),
    Row("DELETE", "/repos/{owner}/{repo}", "repo", "", [401, 404, 404, 404, 403, 403, 204, 204, 204]),
    Row("GET", "/repos/{owner}/{repo}/teams", "repo", "", [401, 404, 404, 404, 403, 200, 200, 200, 200]),
    Row("GET", "/repos/{owner}/{repo}/collaborators", "repo", "", [401, 404, 404, 404, 403, 200, 200, 200, 200]),
    // Who has no role on it is no collaborator.
    Row("GET", "/repos/{owner}/{repo}/collaborators/{username}", "repo", "", [401, 404, 404, 404, 403, 404, 404, 404, 404]),
    Row("PUT", "/repos/{owner}/{repo}/collaborators/{username}", "repo", "", [401, 404, 404, 404, 403, 403, 204, 204, 204]),
    Row("DELETE", "/repos/{owner}/{repo}/collaborators/{username}", "repo", "", [401, 404, 404, 404, 403, 403, 404, 404, 404]),
    Row("GET", "/repos/{owner}/{repo}/collaborators/{username}/permission", "repo", "", [401, 404, 404, 404, 403, 200, 200, 200, 200]),
    // Webhooks are there for those who administer what they are of, and for nobody else.
    Row("GET", "/repos/{owner}/{repo}/hooks", "read:repo_hook", "", ADMINS),
    Row("POST", "/repos/{owner}/{repo}/hooks", "write:repo_hook", HOOK, [401, 404, 404, 404, 404, 404, 201, 201, 201]),
    Row("GET", "/repos/{owner}/{repo}/hooks/{hook_id}", "read:repo_hook", "", ADMINS),
    Row("PATCH", "/repos/{owner}/{repo}/hooks/{hook_id}", "write:repo_hook", r#"{"active":false}"#, ADMINS),
    Row("DELETE", "/repos/{owner}/{repo}/hooks/{hook_id}", "admin:repo_hook", "", [401, 404, 404, 404, 404, 404, 204, 204, 204]),
    Row("GET", "/repos/{owner}/{repo}/hooks/{hook_id}/config", "read:repo_hook", "", ADMINS),
    Row("PATCH", "/repos/{owner}/{repo}/hooks/{hook_id}/config", "write:repo_hook", r#"{"content_type":"json"}"#, ADMINS),
    Row("POST", "/repos/{owner}/{repo}/hooks/{hook_id}/pings", "read:repo_hook", "", [401, 404, 404, 404, 404, 404, 204, 204, 204]),
    Row("POST", "/repos/{owner}/{repo}/hooks/{hook_id}/tests", "read:repo_hook", "", [401, 404, 404, 404, 404, 404, 204, 204, 204]),
    Row("GET", "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries", "read:repo_hook", "", ADMINS),
    Row("GET", "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}", "read:repo_hook", "", ADMINS),
    Row(
        "POST",
        "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}/attempts",
        "write:repo_hook",
        "",
        [401, 404, 404, 404, 404, 404, 202, 202, 202],
    ),
    Row("GET", "/orgs/{org}/hooks", "admin:org_hook", "", OWNERS),
    Row("POST", "/orgs/{org}/hooks", "admin:org_hook", HOOK, [401, 404, 404, 404, 404, 404, 404, 201, 201]),
    Row("GET", "/orgs/{org}/hooks/{hook_id}", "admin:org_hook", "", OWNERS),
    Row("PATCH", "/orgs/{org}/hooks/{hook_id}", "admin:org_hook", r#"{"active":false}"#, OWNERS),
    Row("DELETE", "/orgs/{org}/hooks/{hook_id}", "admin:org_hook", "", [401, 404, 404, 404, 404, 404, 404, 204, 204]),
    Row("GET", "/orgs/{org}/hooks/{hook_id}/config", "admin:org_hook", "", OWNERS),
    Row("PATCH", "/orgs/{org}/hooks/{hook_id}/config", "admin:org_hook", r#"{"content_type":"json"}"#, OWNERS),
    Row("POST", "/orgs/{org}/hooks/{hook_id}/pings", "admin:org_hook", "", [401, 404, 404, 404, 404, 404, 404, 204, 204]),
    Row("GET", "/orgs/{org}/hooks/{hook_id}/deliveries", "admin:org_hook", "", OWNERS),
    Row("GET", "/orgs/{org}/hooks/{hook_id}/deliveries/{delivery_id}", "admin:org_hook", "", OWNERS),
    Row(
        "POST",
        "/orgs/{org}/hooks/{hook_id}/deliveries/{delivery_id}/attempts",
        "admin:org_hook",
        "",
        [401, 404, 404, 404, 404, 404, 404, 202, 202],
    ),
    Row("POST", "/admin/users", "user", r#"{"login":"new"}"#, [401, 404, 404, 404, 404, 404, 404, 404, 201]),
    Row("PATCH", "/admin/users/{username}", "user", r#"{"login":"new"}"#, [401, 404, 404, 404, 404, 404, 404, 404, 202]),
    // It still owns a package.
    Row("DELETE", "/admin/users/{username}", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 409]),
    Row("PUT", "/users/{username}/site_admin", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 204]),
    Row("DELETE", "/users/{username}/site_admin", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 204]),
    Row("PUT", "/users/{username}/suspended", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 204]),
    Row("DELETE", "/users/{username}/suspended", "user", "", [401, 404, 404, 404, 404, 404, 404, 404, 204]),
    Row("POST", "/admin/organizations", "admin:org", r#"{"login":"new","admin":"mem"}"#, [401, 404, 404, 404, 404, 404, 404, 404, 201]),
    Row("PATCH", "/admin/organizations/{org}", "admin:org", r#"{"login":"new"}"#, [401, 404, 404, 404, 404, 404, 404, 404, 202]),
    Row("GET", "/admin/reserved-names", "read:org", "", [401, 404, 404, 404, 404, 404, 404, 404, 200]),
    Row(
        "PUT",
        "/admin/reserved-names/{package_type}/{pattern+}",
        "admin:org",
        r#"{"owner":"acme"}"#,
        [401, 404, 404, 404, 404, 404, 404, 404, 204],
    ),
    Row("DELETE", "/admin/reserved-names/{package_type}/{pattern+}", "admin:org", "", [401, 404, 404, 404, 404, 404, 404, 404, 404]),
    Row("GET", "/orgs/{org}/reserved-names", "read:packages", "", [401, 404, 404, 200, 200, 200, 200, 200, 200]),
    // Its own user, and whoever is site admin.
    Row("GET", "/users/{username}/reserved-names", "read:packages", "", [401, 404, 404, 200, 404, 404, 404, 404, 200]),
    Row("GET", "/user/reserved-names", "read:packages", "", [401, 200, 200, 200, 200, 200, 200, 200, 200]),
];

/// What the rows of packages ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// Nothing but to be signed in.
    Signed,
    /// To read one, for a list of them: the list is there for all who are signed in.
    List,
    /// To read it.
    Read,
    /// To read it, and to be signed in.
    ReadSigned,
    /// To administer it.
    Admin,
}

/// What is expected of a row of packages: method, template below the owner, scopes, a body, what it asks for, the status if all is well.
struct PackageRow(&'static str, &'static str, &'static str, &'static str, Right, u16);

const PACKAGE_ROWS: &[PackageRow] = &[
    PackageRow("GET", "/packages", "read:packages", "", Right::List, 200),
    PackageRow("GET", "/docker/conflicts", "read:packages", "", Right::Signed, 200),
    PackageRow("GET", "/packages/T/N", "read:packages", "", Right::Read, 200),
    PackageRow("DELETE", "/packages/T/N", "read:packages,delete:packages", "", Right::Admin, 204),
    // It is not deleted.
    PackageRow("POST", "/packages/T/N/restore", "read:packages,write:packages", "", Right::Admin, 409),
    PackageRow("GET", "/packages/T/N/versions", "read:packages", "", Right::Read, 200),
    PackageRow("GET", "/packages/T/N/versions/V", "read:packages", "", Right::Read, 200),
    PackageRow("DELETE", "/packages/T/N/versions/V", "read:packages,delete:packages", "", Right::Admin, 204),
    PackageRow("POST", "/packages/T/N/versions/V/restore", "read:packages,write:packages", "", Right::Admin, 409),
    PackageRow("GET", "/packages/T/N/versions/V/files", "read:packages", "", Right::Read, 200),
    // To whoever owns the organisation, who is no member of theirs.
    PackageRow("POST", "/packages/T/N/transfer", "read:packages,write:packages", r#"{"new_owner":"nobody"}"#, Right::Admin, 403),
    PackageRow("GET", "/packages/T/N/downloads", "read:packages", "", Right::Read, 200),
    PackageRow("GET", "/packages/T/N/versions/V/downloads", "read:packages", "", Right::Read, 200),
    PackageRow("PATCH", "/packages/T/N", "read:packages,write:packages", r#"{"visibility":"public"}"#, Right::Admin, 200),
    PackageRow("PUT", "/packages/T/N/repository", "read:packages,write:packages", r#"{"repository":"none"}"#, Right::Admin, 422),
    // It is linked to none.
    PackageRow("DELETE", "/packages/T/N/repository", "read:packages,write:packages", "", Right::Admin, 404),
    PackageRow("GET", "/packages/T/N/access", "read:packages", "", Right::Read, 200),
    PackageRow("PUT", "/packages/T/N/access", "read:packages,write:packages", r#"{"mode":"granular"}"#, Right::Admin, 200),
    PackageRow("GET", "/packages/T/N/roles", "read:packages,write:packages", "", Right::Admin, 200),
    PackageRow("PUT", "/packages/T/N/roles/users/{login}", "read:packages,write:packages", r#"{"role":"boss"}"#, Right::Admin, 422),
    // There are none to take.
    PackageRow("DELETE", "/packages/T/N/roles/users/{login}", "read:packages,write:packages", "", Right::Admin, 404),
    PackageRow("PUT", "/packages/T/N/roles/teams/{team}", "read:packages,write:packages", r#"{"role":"read"}"#, Right::Admin, 204),
    PackageRow("DELETE", "/packages/T/N/roles/teams/{team}", "read:packages,write:packages", "", Right::Admin, 404),
    PackageRow("GET", "/packages/T/N/actions-access", "read:packages,write:packages", "", Right::Admin, 200),
    PackageRow("PUT", "/packages/T/N/actions-access/{repo}", "read:packages,write:packages", r#"{"role":"write"}"#, Right::Admin, 204),
    // There is none to take.
    PackageRow("DELETE", "/packages/T/N/actions-access/{repo}", "read:packages,write:packages", "", Right::Admin, 404),
    PackageRow("GET", "/packages/T/N/rules", "read:packages", "", Right::Read, 200),
    PackageRow("PUT", "/packages/T/N/rules", "read:packages,write:packages", r#"{"immutable_tags":["v*"]}"#, Right::Admin, 200),
    PackageRow("POST", "/packages/T/N/retention", "read:packages,delete:packages", r#"{"retention":{"keep_last":1}}"#, Right::Admin, 200),
    PackageRow("GET", "/packages/T/N/permissions", "read:packages", "", Right::ReadSigned, 200),
];

/// The three ways to name an owner.
const PREFIXES: [&str; 3] = ["/orgs/{org}", "/users/{username}", "/user"];

impl PackageRow {
    fn template(&self, prefix: &str) -> String {
        let below = self.1.replace("/T/N", "/{package_type}/{package_name+}").replace("/versions/V", "/versions/{version_id}");
        format!("{prefix}{below}")
    }

    /// The status for a caller, of a package that the organisation owns.
    fn expected(&self, world: &World, caller: &str, visibility: Visibility) -> u16 {
        let (asker, thing) = (asker(world, caller), thing(world, visibility));
        let answer = |action| model::expected(&asker, &thing, action);
        let (anonymous, hidden) = (caller.is_empty(), answer("read") == Heard::Hidden);
        match self.4 {
            Right::Signed | Right::ReadSigned | Right::Admin if anonymous => 401,
            Right::List if anonymous && hidden => 404,
            Right::Signed | Right::List => self.5,
            _ if hidden => 404,
            Right::Read | Right::ReadSigned => self.5,
            Right::Admin if answer("admin") == Heard::Allowed => self.5,
            Right::Admin => 403,
        }
    }

    /// The status for the owner itself, under `/user`.
    fn expected_of_own(&self, caller: &str) -> u16 {
        match caller {
            "" => 401,
            // A user has no teams, and these have no repository of that name.
            _ if self.1.contains("{team}") || self.1.contains("{repo}") => 404,
            // Who published it has a role on it besides owning it.
            "mem" if (self.0, self.1) == ("DELETE", "/packages/T/N/roles/users/{login}") => 204,
            _ => self.5,
        }
    }
}

/// A caller with all scopes, as the model of rights knows it.
fn asker(world: &World, caller: &str) -> Asker {
    if caller.is_empty() {
        return Asker::Nobody;
    }
    let member = ["mem", "rea", "wes", "adm", "own"].contains(&caller);
    Asker::Person(Person {
        id: world.accounts[caller].0,
        site_admin: caller == "site",
        scopes: model::SCOPES.into(),
        organisations: member.then_some((world.accounts["acme"].0, caller == "own")).into_iter().collect(),
        teams: BTreeSet::new(),
    })
}

/// The package of the organisation.
fn thing(world: &World, visibility: Visibility) -> Thing {
    let roles = [("adm", "admin"), ("former", "admin"), ("wes", "write"), ("rea", "read")];
    Thing {
        owner: world.accounts["acme"].0,
        owner_is_organisation: true,
        visibility: model::VISIBILITIES.into_iter().find(|text| text.parse() == Ok(visibility)).unwrap(),
        mode: Mode::Granular,
        users: roles.map(|(login, role)| (world.accounts[login].0, role)).into(),
        teams: BTreeMap::new(),
        jobs: BTreeMap::new(),
        source: None,
    }
}

fn method(text: &str) -> Method {
    text.parse().unwrap()
}

fn scopes(text: &str) -> Vec<Scope> {
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect()
}

#[test]
fn every_row_has_an_expectation_and_its_scopes() {
    let mut expected: HashSet<(String, String)> = HashSet::new();
    let mut expect = |method: &str, template: String, wanted: &str| {
        let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.method.as_str() == method && endpoint.template == *template);
        let endpoint = endpoint.unwrap_or_else(|| panic!("there is no row {method} {template}"));
        assert_eq!(endpoint.scopes, scopes(wanted), "{method} {template}");
        assert!(expected.insert((method.to_owned(), template)));
    };
    for Row(method, template, wanted, ..) in ROWS {
        expect(method, (*template).to_owned(), wanted);
    }
    for row in PACKAGE_ROWS {
        for prefix in PREFIXES {
            expect(row.0, row.template(prefix), row.2);
        }
    }
    for endpoint in ENDPOINTS.iter() {
        let row = (endpoint.method.to_string(), endpoint.template.to_string());
        assert!(expected.contains(&row), "nobody says what is expected of {} {}", row.0, row.1);
    }
}

/// Fills a template in.
fn path(template: &str, world: &World, owner: &str, user: &str) -> String {
    let hook = world.hooks[if template.starts_with("/orgs") { "organisation" } else { "repository" }];
    template
        .replace("{org}", "acme")
        .replace("{organisation}", "acme")
        .replace("{owner}", "acme")
        .replace("{repo}", "web")
        .replace("{team_slug}", "core")
        .replace("{team}", "core")
        .replace("{token_id}", "999999")
        .replace("{login}", "mem")
        .replace("{username}", user)
        .replace("{package_type}", "npm")
        .replace("{pattern+}", "@acme%2F*")
        .replace("{package_name+}", "tool")
        .replace("{version_id}", &world.version(owner).to_string())
        .replace("{hook_id}", &hook.0.to_string())
        .replace("{delivery_id}", &hook.1.to_string())
}

/// A world of its own for what changes it; one for all that only reads.
struct Worlds {
    visibility: Visibility,
    read: World,
    changed: World,
}

impl Worlds {
    async fn new(visibility: Visibility) -> Self {
        Self { visibility, read: World::new(visibility).await, changed: World::new(visibility).await }
    }

    async fn of(&mut self, method: &str) -> &World {
        if method == "GET" {
            return &self.read;
        }
        self.changed = World::new(self.visibility).await;
        &self.changed
    }
}

#[tokio::test]
async fn accounts_and_repositories_as_every_kind_of_caller() {
    let mut cells = 0;
    let mut worlds = Worlds::new(Visibility::Private).await;
    for Row(verb, template, _, body, statuses) in ROWS {
        for (caller, expected) in CALLERS.into_iter().zip(statuses) {
            let world = worlds.of(verb).await;
            let answer = world.ask(caller, method(verb), &path(template, world, "acme", "mem"), body).await;
            assert_eq!(answer.status, *expected, "{verb} {template} as {caller:?}: {}", answer.body);
            is_an_error(&answer);
            cells += 1;
        }
    }
    assert_eq!(cells, ROWS.len() * CALLERS.len());
}

#[tokio::test]
async fn packages_as_every_kind_of_caller() {
    for visibility in [Visibility::Private, Visibility::Internal, Visibility::Public] {
        let mut worlds = Worlds::new(visibility).await;
        for row in PACKAGE_ROWS {
            for caller in CALLERS {
                for prefix in ["/orgs/{org}", "/users/{username}"] {
                    let world = worlds.of(row.0).await;
                    let target = format!("{}{}", path(&row.template(prefix), world, "acme", "acme"), query(row));
                    let answer = world.ask(caller, method(row.0), &target, row.3).await;
                    let expected = row.expected(world, caller, visibility);
                    assert_eq!(answer.status, expected, "{} {target} as {caller:?}, {visibility:?}: {}", row.0, answer.body);
                    is_an_error(&answer);
                }
            }
        }
    }
}

#[tokio::test]
async fn ones_own_packages() {
    let mut worlds = Worlds::new(Visibility::Private).await;
    for row in PACKAGE_ROWS {
        for caller in CALLERS {
            let world = worlds.of(row.0).await;
            let target = format!("{}{}", path(&row.template("/user"), world, caller, ""), query(row));
            let answer = world.ask(caller, method(row.0), &target, row.3).await;
            assert_eq!(answer.status, row.expected_of_own(caller), "{} {target} as {caller:?}: {}", row.0, answer.body);
            is_an_error(&answer);
        }
    }
}

fn query(row: &PackageRow) -> &'static str {
    if row.1 == "/packages" { "?package_type=npm" } else { "" }
}

/// An error says what it is, in GitHub's shape.
fn is_an_error(answer: &Answer) {
    if answer.status >= 400 {
        let text = |name: &str| answer.body[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("message") && text("documentation_url"), "{}", answer.body);
        assert_eq!(answer.body["status"], answer.status.to_string());
    }
}

/// The scopes that neither are nor include a scope.
fn without(scope: Scope) -> Scopes {
    let wider: &[Scope] = match scope {
        Scope::ReadPackages => &[Scope::WritePackages],
        Scope::ReadOrg => &[Scope::AdminOrg],
        Scope::ReadRepoHook => &[Scope::WriteRepoHook, Scope::AdminRepoHook, Scope::Repo],
        Scope::WriteRepoHook => &[Scope::AdminRepoHook, Scope::Repo],
        Scope::AdminRepoHook => &[Scope::Repo],
        _ => &[],
    };
    Scope::ALL.into_iter().filter(|held| *held != scope && !wider.contains(held)).collect()
}

#[tokio::test]
async fn a_token_without_a_scope_is_told_so_whatever_it_asks_for() {
    let mut world = World::new(Visibility::Public).await;
    let mut tokens = Vec::new();
    for scope in Scope::ALL {
        tokens.push((scope, world.mint("site", without(scope)).await));
    }
    for endpoint in ENDPOINTS.iter() {
        let target = path(&endpoint.template, &world, "acme", "acme");
        for (scope, token) in tokens.iter().filter(|(scope, _)| endpoint.scopes.contains(scope)) {
            let answer = world.ask_with(Some(token), endpoint.method.clone(), &target, "", &[]).await;
            assert_eq!(answer.status, 403, "{} {target} without {}: {}", endpoint.method, scope.name(), answer.body);
            assert!(answer.body["message"].as_str().unwrap().contains(scope.name()), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn credentials_that_do_not_hold_are_refused_everywhere_alike() {
    let mut world = World::new(Visibility::Public).await;
    let expiring = world.mint_until("own", Scopes::all(), Some(Duration::from_secs(60))).await;
    let revoked = world.mint("own", Scopes::all()).await;
    world.revoke("own", &revoked).await;
    let suspended = world.mint("out", Scopes::all()).await;
    world.suspend("out").await;
    world.advance(Duration::from_secs(61));
    let mistyped = format!("{}x", &revoked[..revoked.len() - 1]);
    let mut bodies: HashSet<String> = HashSet::new();
    for endpoint in ENDPOINTS.iter() {
        let target = path(&endpoint.template, &world, "acme", "acme");
        for token in [&expiring, &revoked, &suspended, &mistyped, &"nonsense".to_owned()] {
            let answer = world.ask_with(Some(token), endpoint.method.clone(), &target, "", &[]).await;
            assert_eq!(answer.status, 401, "{} {target}", endpoint.method);
            let mut body = answer.body.clone();
            body["documentation_url"] = Value::Null;
            bodies.insert(body.to_string());
        }
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(bodies.iter().all(|body| body.contains("\"Bad credentials\"")));
}

#[tokio::test]
async fn what_may_not_be_known_answers_like_what_is_not_there() {
    // Nothing here is allowed, so nothing changes.
    let world = World::new(Visibility::Private).await;
    for row in PACKAGE_ROWS.iter().filter(|row| row.1.contains("/T/N")) {
        for caller in ["", "out", "former", "mem"] {
            for prefix in ["/orgs/{org}", "/users/{username}"] {
                let hidden = path(&row.template(prefix), &world, "acme", "acme");
                let missing = hidden.replace("/npm/tool", "/npm/loot");
                let hidden = world.ask(caller, method(row.0), &hidden, row.3).await;
                let missing = world.ask(caller, method(row.0), &missing, row.3).await;
                assert_eq!((hidden.status, &hidden.body), (missing.status, &missing.body), "{} as {caller:?}", row.1);
                assert_eq!(hidden.headers_but_id(), missing.headers_but_id(), "{} as {caller:?}", row.1);
            }
        }
    }
    for caller in ["", "out", "former", "mem"] {
        let hidden = world.ask(caller, Method::GET, "/repos/acme/web", "").await;
        let missing = world.ask(caller, Method::GET, "/repos/acme/bew", "").await;
        assert_eq!((hidden.status, &hidden.body), (missing.status, &missing.body), "{caller:?}");
        assert_eq!(hidden.headers_but_id(), missing.headers_but_id(), "{caller:?}");
    }
}
