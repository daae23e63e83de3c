//! The rows of the table: every endpoint, who may ask for it, with which scopes.

use std::borrow::Cow;

use futures_util::FutureExt as _;

use super::root;
use super::table::{Endpoint, Handler, Need};
use super::{audit, downloads, hooks, organisations, package_access, packages, repositories, rules, site, teams, tokens, users, versions};
use crate::http::Method;
use crate::identity::Scope;

const NONE: &[Scope] = &[];
const READ: &[Scope] = &[Scope::ReadPackages];
const DELETE: &[Scope] = &[Scope::ReadPackages, Scope::DeletePackages];
const USER: &[Scope] = &[Scope::User];
const REPO: &[Scope] = &[Scope::Repo];
const READ_ORG: &[Scope] = &[Scope::ReadOrg];
const AUDIT: &[Scope] = &[Scope::ReadAuditLog];
const ADMIN_ORG: &[Scope] = &[Scope::AdminOrg];
const TEAM_REPO: &[Scope] = &[Scope::ReadOrg, Scope::Repo];
const WRITE: &[Scope] = &[Scope::ReadPackages, Scope::WritePackages];
const READ_HOOK: &[Scope] = &[Scope::ReadRepoHook];
const WRITE_HOOK: &[Scope] = &[Scope::WriteRepoHook];
const ADMIN_HOOK: &[Scope] = &[Scope::AdminRepoHook];
const ORG_HOOK: &[Scope] = &[Scope::AdminOrgHook];

/// All rows.
pub(super) fn all() -> Vec<Endpoint> {
    let mut rows = vec![
        row(Method::GET, "/", Need::Anyone, NONE, |call| std::future::ready(Ok(root::index(&call))).boxed()),
        row(Method::GET, "/meta", Need::Anyone, NONE, |_| std::future::ready(Ok(root::meta())).boxed()),
        row(Method::GET, "/versions", Need::Anyone, NONE, |_| std::future::ready(Ok(root::versions())).boxed()),
        row(Method::GET, "/rate_limit", Need::Anyone, NONE, |_| std::future::ready(root::rate_limit()).boxed()),
    ];
    for prefix in ["/orgs/{org}", "/users/{username}", "/user"] {
        owned(&mut rows, prefix);
    }
    accounts(&mut rows);
    organisations_and_teams(&mut rows);
    repositories_and_roles(&mut rows);
    webhooks(&mut rows, "/repos/{owner}/{repo}", [READ_HOOK, WRITE_HOOK, ADMIN_HOOK]);
    webhooks(&mut rows, "/orgs/{org}", [ORG_HOOK; 3]);
    administration(&mut rows);
    rows
}

fn row(method: Method, template: impl Into<Cow<'static, str>>, need: Need, scopes: &'static [Scope], handler: Handler) -> Endpoint {
    Endpoint { method, template: template.into(), need, scopes, handler }
}

/// The rows of an owner's packages, for one way of naming the owner.
fn owned(rows: &mut Vec<Endpoint>, prefix: &str) {
    const PACKAGE: &str = "/packages/{package_type}/{package_name+}";
    const VERSION: &str = "/packages/{package_type}/{package_name+}/versions/{version_id}";
    // Who asks for their own must say who they are; what is public can be read by everyone.
    let readers = if prefix == "/user" { Need::SignedIn } else { Need::Anyone };
    let mut add = |method: Method, below: &str, need: Need, scopes: &'static [Scope], handler: Handler| {
        rows.push(row(method, format!("{prefix}{below}"), need, scopes, handler));
    };
    let package = |below: &str| format!("{PACKAGE}{below}");
    let version = |below: &str| format!("{VERSION}{below}");
    let signed = Need::SignedIn;
    add(Method::GET, "/packages", readers, READ, |call| packages::list(call).boxed());
    add(Method::GET, "/docker/conflicts", signed, READ, |call| packages::conflicts(call).boxed());
    add(Method::GET, PACKAGE, readers, READ, |call| packages::show(call).boxed());
    add(Method::DELETE, PACKAGE, signed, DELETE, |call| packages::delete(call).boxed());
    add(Method::POST, &package("/restore"), signed, WRITE, |call| packages::restore(call).boxed());
    add(Method::GET, &package("/versions"), readers, READ, |call| versions::list(call).boxed());
    add(Method::GET, VERSION, readers, READ, |call| versions::show(call).boxed());
    add(Method::DELETE, VERSION, signed, DELETE, |call| versions::delete(call).boxed());
    add(Method::POST, &version("/restore"), signed, WRITE, |call| versions::restore(call).boxed());
    // What GitHub has no API for.
    add(Method::GET, &version("/files"), readers, READ, |call| versions::files(call).boxed());
    add(Method::POST, &package("/transfer"), signed, WRITE, |call| packages::transfer(call).boxed());
    add(Method::GET, &package("/downloads"), readers, READ, |call| downloads::of_package(call).boxed());
    add(Method::GET, &version("/downloads"), readers, READ, |call| downloads::of_version(call).boxed());
    add(Method::PATCH, PACKAGE, signed, WRITE, |call| package_access::change(call).boxed());
    add(Method::PUT, &package("/repository"), signed, WRITE, |call| package_access::link(call).boxed());
    add(Method::DELETE, &package("/repository"), signed, WRITE, |call| package_access::unlink(call).boxed());
    add(Method::GET, &package("/access"), readers, READ, |call| package_access::show_mode(call).boxed());
    add(Method::PUT, &package("/access"), signed, WRITE, |call| package_access::set_mode(call).boxed());
    add(Method::GET, &package("/roles"), signed, WRITE, |call| package_access::roles(call).boxed());
    add(Method::PUT, &package("/roles/users/{login}"), signed, WRITE, |call| package_access::grant_user(call).boxed());
    add(Method::DELETE, &package("/roles/users/{login}"), signed, WRITE, |call| package_access::withdraw_user(call).boxed());
    add(Method::PUT, &package("/roles/teams/{team}"), signed, WRITE, |call| package_access::grant_team(call).boxed());
    add(Method::DELETE, &package("/roles/teams/{team}"), signed, WRITE, |call| package_access::withdraw_team(call).boxed());
    add(Method::GET, &package("/actions-access"), signed, WRITE, |call| package_access::workflows(call).boxed());
    add(Method::PUT, &package("/actions-access/{repo}"), signed, WRITE, |call| package_access::grant_workflows(call).boxed());
    add(Method::DELETE, &package("/actions-access/{repo}"), signed, WRITE, |call| package_access::withdraw_workflows(call).boxed());
    add(Method::GET, &package("/rules"), readers, READ, |call| rules::show(call).boxed());
    add(Method::PUT, &package("/rules"), signed, WRITE, |call| rules::set(call).boxed());
    add(Method::POST, &package("/retention"), signed, DELETE, |call| rules::retain(call).boxed());
    add(Method::GET, &package("/permissions"), signed, READ, |call| package_access::explain(call).boxed());
}

/// The rows of users and their tokens.
fn accounts(rows: &mut Vec<Endpoint>) {
    let signed = Need::SignedIn;
    rows.extend([
        row(Method::GET, "/user", signed, NONE, |call| users::current(call).boxed()),
        row(Method::GET, "/users/{username}", signed, NONE, |call| users::show(call).boxed()),
        row(Method::GET, "/user/orgs", signed, READ_ORG, |call| users::own_organisations(call).boxed()),
        row(Method::GET, "/users/{username}/orgs", signed, NONE, |call| users::organisations_of(call).boxed()),
        row(Method::GET, "/user/memberships/orgs", signed, READ_ORG, |call| users::own_memberships(call).boxed()),
        row(Method::GET, "/user/memberships/orgs/{organisation}", signed, READ_ORG, |call| users::own_membership(call).boxed()),
        row(Method::GET, "/user/audit-log", signed, AUDIT, |call| audit::own(call).boxed()),
        row(Method::GET, "/user/tokens", signed, USER, |call| tokens::list(call).boxed()),
        row(Method::POST, "/user/tokens", signed, USER, |call| tokens::create(call).boxed()),
        row(Method::GET, "/user/tokens/{token_id}", signed, USER, |call| tokens::show(call).boxed()),
        row(Method::DELETE, "/user/tokens/{token_id}", signed, USER, |call| tokens::revoke(call).boxed()),
    ]);
}

/// The rows of organisations, their members and teams.
fn organisations_and_teams(rows: &mut Vec<Endpoint>) {
    const MEMBER: &str = "/orgs/{org}/members/{username}";
    const MEMBERSHIP: &str = "/orgs/{org}/memberships/{username}";
    const TEAM: &str = "/orgs/{org}/teams/{team_slug}";
    const TEAM_MEMBERSHIP: &str = "/orgs/{org}/teams/{team_slug}/memberships/{username}";
    const TEAM_REPOSITORY: &str = "/orgs/{org}/teams/{team_slug}/repos/{owner}/{repo}";
    let signed = Need::SignedIn;
    rows.extend([
        row(Method::GET, "/orgs/{org}", signed, NONE, |call| organisations::show(call).boxed()),
        row(Method::DELETE, "/orgs/{org}", signed, ADMIN_ORG, |call| organisations::delete(call).boxed()),
        row(Method::GET, "/orgs/{org}/audit-log", signed, AUDIT, |call| audit::of_organisation(call).boxed()),
        row(Method::GET, "/orgs/{org}/members", signed, READ_ORG, |call| organisations::members(call).boxed()),
        row(Method::GET, MEMBER, signed, READ_ORG, |call| organisations::check_member(call).boxed()),
        row(Method::DELETE, MEMBER, signed, ADMIN_ORG, |call| organisations::remove_member(call).boxed()),
        row(Method::GET, MEMBERSHIP, signed, READ_ORG, |call| organisations::show_membership(call).boxed()),
        row(Method::PUT, MEMBERSHIP, signed, ADMIN_ORG, |call| organisations::set_membership(call).boxed()),
        row(Method::DELETE, MEMBERSHIP, signed, ADMIN_ORG, |call| organisations::remove_member(call).boxed()),
        row(Method::GET, "/orgs/{org}/teams", signed, READ_ORG, |call| teams::list(call).boxed()),
        row(Method::POST, "/orgs/{org}/teams", signed, ADMIN_ORG, |call| teams::create(call).boxed()),
        row(Method::GET, TEAM, signed, READ_ORG, |call| teams::show(call).boxed()),
        row(Method::PATCH, TEAM, signed, ADMIN_ORG, |call| teams::change(call).boxed()),
        row(Method::DELETE, TEAM, signed, ADMIN_ORG, |call| teams::delete(call).boxed()),
        row(Method::GET, format!("{TEAM}/members"), signed, READ_ORG, |call| teams::members(call).boxed()),
        row(Method::GET, TEAM_MEMBERSHIP, signed, READ_ORG, |call| teams::show_membership(call).boxed()),
        row(Method::PUT, TEAM_MEMBERSHIP, signed, ADMIN_ORG, |call| teams::add_member(call).boxed()),
        row(Method::DELETE, TEAM_MEMBERSHIP, signed, ADMIN_ORG, |call| teams::remove_member(call).boxed()),
        row(Method::GET, format!("{TEAM}/repos"), signed, READ_ORG, |call| teams::repositories(call).boxed()),
        row(Method::PUT, TEAM_REPOSITORY, signed, TEAM_REPO, |call| teams::grant(call).boxed()),
        row(Method::DELETE, TEAM_REPOSITORY, signed, TEAM_REPO, |call| teams::withdraw(call).boxed()),
    ]);
}

/// The rows of repositories and the roles on them.
fn repositories_and_roles(rows: &mut Vec<Endpoint>) {
    const REPOSITORY: &str = "/repos/{owner}/{repo}";
    const COLLABORATOR: &str = "/repos/{owner}/{repo}/collaborators/{username}";
    let signed = Need::SignedIn;
    rows.extend([
        row(Method::GET, "/user/repos", signed, REPO, |call| repositories::list(call).boxed()),
        row(Method::POST, "/user/repos", signed, REPO, |call| repositories::create(call).boxed()),
        row(Method::GET, "/users/{username}/repos", Need::Anyone, NONE, |call| repositories::list(call).boxed()),
        row(Method::GET, "/orgs/{org}/repos", Need::Anyone, NONE, |call| repositories::list(call).boxed()),
        row(Method::POST, "/orgs/{org}/repos", signed, REPO, |call| repositories::create(call).boxed()),
        row(Method::GET, REPOSITORY, Need::Anyone, NONE, |call| repositories::show(call).boxed()),
        row(Method::PATCH, REPOSITORY, signed, REPO, |call| repositories::change(call).boxed()),
        row(Method::POST, format!("{REPOSITORY}/transfer"), signed, REPO, |call| repositories::transfer(call).boxed()),
        row(Method::DELETE, REPOSITORY, signed, REPO, |call| repositories::delete(call).boxed()),
        row(Method::GET, format!("{REPOSITORY}/teams"), signed, REPO, |call| repositories::teams(call).boxed()),
        row(Method::GET, format!("{REPOSITORY}/collaborators"), signed, REPO, |call| repositories::collaborators(call).boxed()),
        row(Method::GET, COLLABORATOR, signed, REPO, |call| repositories::check_collaborator(call).boxed()),
        row(Method::PUT, COLLABORATOR, signed, REPO, |call| repositories::add_collaborator(call).boxed()),
        row(Method::DELETE, COLLABORATOR, signed, REPO, |call| repositories::remove_collaborator(call).boxed()),
        row(Method::GET, format!("{COLLABORATOR}/permission"), signed, REPO, |call| repositories::show_permission(call).boxed()),
    ]);
}

/// The rows of webhooks, for one kind of target; with the scopes to read them, to write them and to delete them.
fn webhooks(rows: &mut Vec<Endpoint>, prefix: &str, [read, write, delete]: [&'static [Scope]; 3]) {
    let mut add = |method: Method, below: &str, scopes: &'static [Scope], handler: Handler| {
        rows.push(row(method, format!("{prefix}/hooks{below}"), Need::SignedIn, scopes, handler));
    };
    add(Method::GET, "", read, |call| hooks::list(call).boxed());
    add(Method::POST, "", write, |call| hooks::create(call).boxed());
    add(Method::GET, "/{hook_id}", read, |call| hooks::show(call).boxed());
    add(Method::PATCH, "/{hook_id}", write, |call| hooks::change(call).boxed());
    add(Method::DELETE, "/{hook_id}", delete, |call| hooks::delete(call).boxed());
    add(Method::GET, "/{hook_id}/config", read, |call| hooks::show_config(call).boxed());
    add(Method::PATCH, "/{hook_id}/config", write, |call| hooks::change_config(call).boxed());
    add(Method::POST, "/{hook_id}/pings", read, |call| hooks::ping(call).boxed());
    if prefix.starts_with("/repos") {
        add(Method::POST, "/{hook_id}/tests", read, |call| hooks::test(call).boxed());
    }
    add(Method::GET, "/{hook_id}/deliveries", read, |call| hooks::deliveries(call).boxed());
    add(Method::GET, "/{hook_id}/deliveries/{delivery_id}", read, |call| hooks::show_delivery(call).boxed());
    add(Method::POST, "/{hook_id}/deliveries/{delivery_id}/attempts", write, |call| hooks::redeliver(call).boxed());
}

/// The rows of site admins, and of reserved names.
fn administration(rows: &mut Vec<Endpoint>) {
    const USER_OF_SITE: &str = "/admin/users/{username}";
    const RESERVED: &str = "/admin/reserved-names/{package_type}/{pattern+}";
    let admin = Need::SiteAdmin;
    rows.extend([
        row(Method::POST, "/admin/users", admin, USER, |call| site::create_user(call).boxed()),
        row(Method::PATCH, USER_OF_SITE, admin, USER, |call| site::rename_user(call).boxed()),
        row(Method::DELETE, USER_OF_SITE, admin, USER, |call| site::delete_user(call).boxed()),
        row(Method::PUT, "/users/{username}/site_admin", admin, USER, |call| site::promote(call).boxed()),
        row(Method::DELETE, "/users/{username}/site_admin", admin, USER, |call| site::demote(call).boxed()),
        row(Method::PUT, "/users/{username}/suspended", admin, USER, |call| site::suspend(call).boxed()),
        row(Method::DELETE, "/users/{username}/suspended", admin, USER, |call| site::unsuspend(call).boxed()),
        row(Method::POST, "/admin/organizations", admin, ADMIN_ORG, |call| site::create_organisation(call).boxed()),
        row(Method::PATCH, "/admin/organizations/{org}", admin, ADMIN_ORG, |call| site::rename_organisation(call).boxed()),
        row(Method::GET, "/admin/audit-log", admin, AUDIT, |call| audit::all(call).boxed()),
        row(Method::GET, "/admin/reserved-names", admin, READ_ORG, |call| site::all_reserved(call).boxed()),
        row(Method::PUT, RESERVED, admin, ADMIN_ORG, |call| site::reserve(call).boxed()),
        row(Method::DELETE, RESERVED, admin, ADMIN_ORG, |call| site::unreserve(call).boxed()),
    ]);
    for prefix in ["/orgs/{org}", "/users/{username}", "/user"] {
        let template = format!("{prefix}/reserved-names");
        rows.push(row(Method::GET, template, Need::SignedIn, READ, |call| site::reserved(call).boxed()));
    }
}
