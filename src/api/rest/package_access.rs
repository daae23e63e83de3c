//! Who may do what with a package: what GitHub has only pages for, in the style of its API.
//!
//! - `PATCH …/{package}` with `visibility`.
//! - `PUT` and `DELETE …/{package}/repository` link and unlink.
//! - `PUT …/{package}/access` with `mode`: `inherit` takes the repository's roles, `granular` the package's own.
//! - `GET …/{package}/roles`, `PUT` and `DELETE …/roles/users/{login}` and `…/roles/teams/{team}`.
//! - `GET …/{package}/actions-access`, `PUT` and `DELETE …/actions-access/{repo}`: which of the owner's repositories'
//!   workflows have which role. GitHub's page for it is called «Manage Actions access».
//! - `GET …/{package}/permissions?user=` says what a user may do, and why not; `?repository=` what its workflows may do.

use serde_json::{Value, json};

use super::packages::{Found, find};
use super::refusal::{Outcome, Refusal, field};
use super::{Call, done, known, repositories, shown, view};
use crate::access::{self, Action, Policy};
use crate::identity::{Account, Caller, OrganisationRole, Repository, RepositoryRole, Scopes, Signed, Workflow};
use crate::name::{OwnerName, RepositoryName, TeamName};
use crate::package::{Principal, Role, Visibility};
use crate::registry::Settings;

const RESOURCE: &str = "Package";

pub(super) async fn change(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let visibility: Visibility = call.fields(RESOURCE)?.needed_as("visibility")?;
    let settings = Settings { visibility: Some(visibility), ..Settings::default() };
    call.registry.change_settings(&found.grant, settings).await.map_err(field(RESOURCE, "visibility"))?;
    found.respond(&call).await
}

pub(super) async fn link(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let fields = call.fields(RESOURCE)?;
    let full_name = fields.needed("repository")?;
    // A repository of the package's owner may be named without its owner.
    let pair = full_name.split_once('/').unwrap_or((found.owner.login.as_str(), full_name));
    let linked = call.registry.linkable(call.caller, found.head.package.owner, pair).await?;
    let Some(linked) = linked else {
        return Err(fields.wrong("repository", "is no repository of the package's owner that you may write to"));
    };
    let settings = Settings { repository: Some(Some(linked)), ..Settings::default() };
    call.registry.change_settings(&found.grant, settings).await?;
    found.respond(&call).await
}

pub(super) async fn unlink(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    if found.head.package.repository.is_none() {
        return Err(Refusal::not_found());
    }
    call.registry.change_settings(&found.grant, Settings { repository: Some(None), ..Settings::default() }).await?;
    Ok(done())
}

pub(super) async fn show_mode(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Read).await?;
    Ok(mode(found.head.package.inherits))
}

pub(super) async fn set_mode(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let fields = call.fields(RESOURCE)?;
    let inherits = match fields.needed("mode")? {
        "inherit" => true,
        "granular" => false,
        _ => return Err(fields.wrong("mode", "is one of inherit, granular")),
    };
    let settings = Settings { inherits: Some(inherits), ..Settings::default() };
    call.registry.change_settings(&found.grant, settings).await.map_err(field(RESOURCE, "mode"))?;
    Ok(mode(inherits))
}

fn mode(inherits: bool) -> crate::http::Response {
    shown(&json!({ "mode": if inherits { "inherit" } else { "granular" } }))
}

pub(super) async fn roles(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let mut items = Vec::new();
    for (principal, role) in &found.head.package.roles {
        match *principal {
            // Granted to something that was deleted since: it means nothing.
            Principal::User(id) => {
                if let Some(user) = known(call.identity().account(id).await)? {
                    items.push(json!({ "user": view::account(call.links, &user), "role": role }));
                }
            }
            Principal::Team(id) => {
                if let Some(team) = known(call.identity().team(id).await)? {
                    items.push(json!({ "team": view::team(call.links, &found.owner, &team), "role": role }));
                }
            }
        }
    }
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn grant_user(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let user = call.user("login").await?;
    grant(&call, &found, Principal::User(user.id)).await
}

pub(super) async fn grant_team(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let team = call.identity().team_by_name(found.owner.id, &call.named::<TeamName>("team")?).await?;
    grant(&call, &found, Principal::Team(team.id)).await
}

async fn grant(call: &Call<'_>, found: &Found, principal: Principal) -> Outcome {
    let fields = call.fields(RESOURCE)?;
    let role: Role = fields.needed_as("role")?;
    call.registry.set_role(&found.grant, principal, Some(role)).await.map_err(|error| match error.kind() {
        crate::error::Kind::Invalid => fields.wrong("role", error.message()),
        _ => error.into(),
    })?;
    Ok(done())
}

pub(super) async fn withdraw_user(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let user = call.user("login").await?;
    call.registry.set_role(&found.grant, Principal::User(user.id), None).await?;
    Ok(done())
}

pub(super) async fn withdraw_team(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let team = call.identity().team_by_name(found.owner.id, &call.named::<TeamName>("team")?).await?;
    call.registry.set_role(&found.grant, Principal::Team(team.id), None).await?;
    Ok(done())
}

pub(super) async fn workflows(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let mut items = Vec::new();
    for (repository, role) in &found.head.package.workflows {
        // One that was deleted or went to another owner since has no right any more.
        let repository = known(call.identity().repository_by_id(*repository).await)?;
        if let Some(repository) = repository.filter(|repository| repository.owner == found.owner.id) {
            items.push(json!({ "repository": view::repository(call.links, &found.owner, &repository), "role": role }));
        }
    }
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn grant_workflows(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let role: Role = call.fields(RESOURCE)?.needed_as("role")?;
    let repository = repository(&call, &found, call.parameter("repo")).await?;
    call.registry.set_workflow_role(&found.grant, &repository, Some(role)).await?;
    Ok(done())
}

pub(super) async fn withdraw_workflows(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let repository = repository(&call, &found, call.parameter("repo")).await?;
    call.registry.set_workflow_role(&found.grant, &repository, None).await?;
    Ok(done())
}

/// A repository of the package's owner that the caller may see.
async fn repository(call: &Call<'_>, found: &Found, name: &str) -> Outcome<Repository> {
    let name: RepositoryName = name.parse().map_err(|_| Refusal::not_found())?;
    let repository = call.identity().repository(found.owner.id, &name).await?;
    // Who administers the package need not know every repository of its owner.
    if repositories::sees(call, &repository, found.owner.is_organisation()) { Ok(repository) } else { Err(Refusal::not_found()) }
}

/// What the workflows of a repository may do with a package if their jobs may write packages.
async fn explain_workflows(call: &Call<'_>, found: &Found, name: &str) -> Outcome {
    if !super::packages::manages(call.caller, &found.head) {
        return Err(Refusal::forbidden("You need the role admin on the package to see what workflows may do."));
    }
    let repository = repository(call, found, name).await?;
    let caller = Caller::Workflow(Workflow::new(&repository, call.signed()?.token, true));
    let policy = &found.head.policy;
    Ok(shown(&json!({
        "repository": view::repository(call.links, &found.owner, &repository),
        "visibility": policy.visibility(),
        "mode": if policy.inherits { "inherit" } else { "granular" },
        "role": access::role(&caller, policy),
        "actions": actions(&caller, policy, false),
    })))
}

/// What somebody may do with a package, and where that comes from. Of others only who
/// administers the package is told, and as if their tokens had every scope.
pub(super) async fn explain(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Read).await?;
    let asks = call.signed()?;
    if let Some(name) = call.query("repository") {
        return explain_workflows(&call, &found, &name).await;
    }
    let wanted = match call.query("user") {
        None => None,
        Some(login) => Some(login.parse::<OwnerName>().map_err(|_| Refusal::not_found())?),
    };
    let (user, caller) = match wanted.filter(|login| *login != asks.login) {
        None => (call.identity().account(asks.user).await?, Caller::Signed(asks.clone())),
        Some(login) => {
            // The right is asked for before the login is looked up: who may not ask learns nothing of it.
            if !super::packages::manages(call.caller, &found.head) {
                return Err(Refusal::forbidden("You need the role admin on the package to see what others may do."));
            }
            let user = call.identity().account_by_login(&login).await?;
            if user.is_organisation() {
                return Err(Refusal::not_found());
            }
            let signed = call.identity().seen(&user, asks.token, Scopes::all()).await?;
            (user, Caller::Signed(signed))
        }
    };
    let Caller::Signed(signed) = &caller else { return Err(Refusal::unauthenticated()) };
    let policy = &found.head.policy;
    Ok(shown(&json!({
        "user": view::account(call.links, &user),
        "visibility": policy.visibility(),
        "mode": if policy.inherits { "inherit" } else { "granular" },
        "role": access::role(&caller, policy),
        "sources": sources(&call, signed, policy, &found.owner).await?,
        "actions": actions(&caller, policy, user.disabled),
    })))
}

/// What a caller may do, and if not, why not.
fn actions(caller: &Caller, policy: &Policy, suspended: bool) -> serde_json::Map<String, Value> {
    let mut actions = serde_json::Map::new();
    for (action, name) in [(Action::Read, "read"), (Action::Write, "write"), (Action::Delete, "delete"), (Action::Admin, "admin")] {
        let said = match access::decide(caller, policy, action) {
            Ok(()) if suspended => json!({ "allowed": false, "reason": "the user is suspended" }),
            Ok(()) => json!({ "allowed": true }),
            Err(error) if error.kind() == crate::error::Kind::NotFound => {
                json!({ "allowed": false, "reason": "the package is not public, and nothing gives a role on it that counts" })
            }
            Err(error) => json!({ "allowed": false, "reason": error.message() }),
        };
        actions.insert(name.to_owned(), said);
    }
    actions
}

/// Everything that gives a user a role, and what would if it counted.
async fn sources(call: &Call<'_>, signed: &Signed, policy: &Policy, owner: &Account) -> Outcome<Vec<Value>> {
    let mut found = Vec::new();
    let mut add = |source: &str, role: &str, counts: bool, more: Value| {
        let mut item = view::members(json!({ "source": source, "role": role, "counts": counts }));
        item.extend(view::members(more));
        found.push(Value::Object(item));
    };
    if signed.site_admin {
        add("site_admin", "admin", true, json!({}));
    }
    if signed.user == policy.owner {
        add("owner", "admin", true, json!({}));
    }
    let member = signed.role_in(policy.owner);
    if member == Some(OrganisationRole::Owner) {
        add("organization_owner", "admin", true, json!({}));
    }
    // On an organisation's things roles count for its members only, and of two lists of roles only one counts.
    let admitted = !policy.owner_is_organisation || member.is_some();
    let granted: Vec<(Principal, Role)> = policy.roles.iter().map(|(principal, role)| (*principal, *role)).collect();
    let repository = policy.repository.as_ref().filter(|repository| repository.owner == policy.owner);
    let through: Vec<(Principal, Role)> = repository
        .map(|repository| repository.roles.iter().map(|(principal, role)| (*principal, RepositoryRole::on_packages(*role))).collect())
        .unwrap_or_default();
    let inherits = policy.repository_scoped || (policy.inherits && repository.is_some());
    for (list, origin, counts) in [(granted, "package", !inherits), (through, "repository", inherits)] {
        for (principal, role) in list {
            let role = role.word();
            match principal {
                Principal::User(user) if user == signed.user => add(&format!("{origin}_user"), role, counts && admitted, json!({})),
                Principal::Team(team) if signed.teams.contains(&team) => {
                    if let Some(team) = known(call.identity().team(team).await)? {
                        let name = json!({ "team": team.name });
                        add(&format!("{origin}_team"), role, counts && admitted && owner.is_organisation(), name);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}
