//! Repositories and their collaborators.
//!
//! A repository is what packages link to and can take their roles from; nothing is
//! in it here. To see one that is not public a token needs `repo`.

use serde_json::json;

use super::organisations::may_own;
use super::page::REACH;
use super::refusal::{Outcome, Refusal, field};
use super::{Call, created, done, known, shown, view};
use crate::access::{self, RepositoryPolicy};
use crate::error::{Kind, Subject};
use crate::http::{StatusCode, reply};
use crate::identity::{Account, Caller, Repository, RepositoryRole, Scope, Scopes};
use crate::name::{OwnerName, RepositoryName};
use crate::package::{AccountId, Principal, Visibility};

const RESOURCE: &str = "Repository";

/// Repositories that are read at once.
const CHUNK: usize = 1000;

/// A repository that the caller may see.
pub(super) struct Seen {
    pub(super) owner: Account,
    pub(super) repository: Repository,
    role: Option<RepositoryRole>,
}

pub(super) async fn list(call: Call<'_>) -> Outcome {
    let owner = call.owner().await?;
    let page = call.page()?;
    let mut found = all(&call, owner.id).await?;
    found.retain(|repository| sees(&call, repository, owner.is_organisation()));
    if found.is_empty() && matches!(**call.caller, Caller::Anonymous) {
        return Err(Refusal::not_found());
    }
    let items: Vec<_> = page
        .of(&found)
        .iter()
        .map(|repository| {
            let role = access::role_on_repository(call.caller, &repository.into(), owner.is_organisation());
            view::full_repository(call.links, &owner, repository, role)
        })
        .collect();
    Ok(call.part(page, &items, found.len()))
}

/// Repositories of an owner by name, as many as pages lead to.
async fn all(call: &Call<'_>, owner: AccountId) -> Outcome<Vec<Repository>> {
    let mut found: Vec<Repository> = Vec::new();
    loop {
        let after = found.last().map(|repository| repository.name.clone());
        let more = call.identity().repositories(owner, after.as_ref(), CHUNK).await?;
        let end = more.len() < CHUNK;
        found.extend(more);
        if end || found.len() >= REACH {
            return Ok(found);
        }
    }
}

/// How many public repositories an account has, as far as pages lead.
pub(super) async fn count_public(call: &Call<'_>, owner: AccountId) -> Outcome<usize> {
    Ok(all(call, owner).await?.iter().filter(|repository| repository.visibility == Visibility::Public).count())
}

pub(super) async fn create(call: Call<'_>) -> Outcome {
    let owner = call.owner().await?;
    may_own(&call, &owner)?;
    let fields = call.fields(RESOURCE)?;
    let name: RepositoryName = fields.needed_as("name")?;
    let visibility = visibility(&fields)?.unwrap_or(Visibility::Public);
    let creator = call.signed()?;
    let admin = creator.role_in(owner.id).is_some().then_some(creator.user);
    let made = call.identity().create_repository_by(admin, owner.id, name, visibility).await;
    let repository = made.map_err(field(RESOURCE, "name"))?;
    Ok(created(&view::full_repository(call.links, &owner, &repository, Some(RepositoryRole::Admin))))
}

/// What a body says of who may see a repository: `visibility`, or GitHub's older `private`.
fn visibility(fields: &super::Fields) -> Outcome<Option<Visibility>> {
    if let Some(visibility) = fields.parsed("visibility")? {
        return Ok(Some(visibility));
    }
    Ok(fields.flag("private")?.map(|private| if private { Visibility::Private } else { Visibility::Public }))
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let Seen { owner, repository, role } = find(&call, None).await?;
    Ok(shown(&view::full_repository(call.links, &owner, &repository, role)))
}

pub(super) async fn change(call: Call<'_>) -> Outcome {
    let Seen { owner, mut repository, role } = find(&call, Some(RepositoryRole::Admin)).await?;
    let fields = call.fields(RESOURCE)?;
    let name: Option<RepositoryName> = fields.parsed("name")?;
    let visibility = visibility(&fields)?;
    if let Some(name) = name.filter(|name| *name != repository.name) {
        repository = call.identity().rename_repository(repository.id, name).await.map_err(field(RESOURCE, "name"))?;
    }
    if let Some(visibility) = visibility.filter(|visibility| *visibility != repository.visibility) {
        repository = call.identity().set_visibility(repository.id, visibility).await?;
    }
    Ok(shown(&view::full_repository(call.links, &owner, &repository, role)))
}

/// GitHub moves it later, once a new owner who is a user has agreed; here whoever moves it must be allowed to make
/// repositories there, and it is done by then.
pub(super) async fn transfer(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Admin)).await?;
    let fields = call.fields(RESOURCE)?;
    let login: OwnerName = fields.needed_as("new_owner")?;
    let name: Option<RepositoryName> = fields.parsed("new_name")?;
    let to = call.identity().account_by_login(&login).await.map_err(field(RESOURCE, "new_owner"))?;
    may_own(&call, &to)?;
    if to.id == seen.owner.id {
        return Err(fields.wrong("new_owner", "is the owner already"));
    }
    let moved = call.registry.transfer_repository(seen.repository.id, call.caller, &to, name).await;
    let moved = moved.map_err(|error| match (error.kind(), error.subject()) {
        (Kind::Conflict, Subject::Repository) => Refusal::already_exists(RESOURCE, "name"),
        (Kind::Conflict, Subject::Package) => fields.wrong("new_owner", error.message()),
        _ => error.into(),
    })?;
    Ok(reply::json(StatusCode::ACCEPTED, &view::repository(call.links, &to, &moved)))
}

pub(super) async fn delete(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Admin)).await?;
    call.registry.delete_repository(seen.repository.id).await?;
    Ok(done())
}

pub(super) async fn collaborators(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Write)).await?;
    let mut items = Vec::new();
    if !seen.owner.is_organisation() {
        items.push(collaborator(&call, &seen.owner, RepositoryRole::Admin));
    }
    for (principal, role) in &seen.repository.roles {
        if let Principal::User(user) = principal
            && *user != seen.owner.id
            && let Some(user) = known(call.identity().account(*user).await)?
        {
            items.push(collaborator(&call, &user, *role));
        }
    }
    Ok(call.list(call.page()?, &items))
}

/// GitHub's `Collaborator`.
fn collaborator(call: &Call<'_>, user: &Account, role: RepositoryRole) -> serde_json::Map<String, serde_json::Value> {
    let mut item = view::account(call.links, user);
    item.insert("permissions".to_owned(), view::permissions(Some(role)));
    item.insert("role_name".to_owned(), json!(role));
    item
}

pub(super) async fn check_collaborator(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Write)).await?;
    let user = call.user("username").await?;
    match role_of(&call, &seen, &user).await? {
        Some(_) => Ok(done()),
        None => Err(Refusal::not_found()),
    }
}

pub(super) async fn show_permission(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Write)).await?;
    let user = call.user("username").await?;
    let role = role_of(&call, &seen, &user).await?;
    // GitHub folds the five roles into three here and names the role itself beside it.
    let permission = match role {
        Some(RepositoryRole::Admin) => "admin",
        Some(RepositoryRole::Write | RepositoryRole::Maintain) => "write",
        None if seen.repository.visibility == Visibility::Private => "none",
        Some(RepositoryRole::Read | RepositoryRole::Triage) | None => "read",
    };
    let mut view = view::account(call.links, &user);
    view.insert("permissions".to_owned(), view::permissions(role));
    Ok(shown(&json!({ "permission": permission, "role_name": role.map_or(json!(permission), |role| json!(role)), "user": view })))
}

/// The role that a user has on a repository, wherever it comes from.
async fn role_of(call: &Call<'_>, seen: &Seen, user: &Account) -> Outcome<Option<RepositoryRole>> {
    let signed = call.identity().seen(user, call.signed()?.token, Scopes::all()).await?;
    let policy = RepositoryPolicy::from(&seen.repository);
    Ok(access::role_on_repository(&Caller::Signed(signed), &policy, seen.owner.is_organisation()))
}

pub(super) async fn add_collaborator(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Admin)).await?;
    let role = permission(&call)?;
    let user = call.user("username").await?;
    // GitHub would invite who is not in the organisation; here an owner makes a member first.
    let set = call.identity().set_repository_role(seen.repository.id, Principal::User(user.id), Some(role)).await;
    set.map_err(|error| match error.kind() {
        Kind::Invalid => Refusal::invalid_field("Collaborator", "username", error.message()),
        _ => error.into(),
    })?;
    Ok(done())
}

pub(super) async fn remove_collaborator(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Admin)).await?;
    let user = call.user("username").await?;
    let principal = Principal::User(user.id);
    if !seen.repository.roles.contains_key(&principal) {
        return Err(Refusal::not_found());
    }
    call.identity().set_repository_role(seen.repository.id, principal, None).await?;
    Ok(done())
}

pub(super) async fn teams(call: Call<'_>) -> Outcome {
    let seen = find(&call, Some(RepositoryRole::Write)).await?;
    let mut items = Vec::new();
    for (principal, role) in &seen.repository.roles {
        if let Principal::Team(team) = principal
            && let Some(team) = known(call.identity().team(*team).await)?
        {
            let mut item = view::members(view::team(call.links, &seen.owner, &team));
            item.insert("permission".to_owned(), spelled(*role).into());
            item.insert("permissions".to_owned(), view::permissions(Some(*role)));
            items.push(item);
        }
    }
    Ok(call.list(call.page()?, &items))
}

/// GitHub's words for roles where they are granted.
const fn spelled(role: RepositoryRole) -> &'static str {
    match role {
        RepositoryRole::Read => "pull",
        RepositoryRole::Triage => "triage",
        RepositoryRole::Write => "push",
        RepositoryRole::Maintain => "maintain",
        RepositoryRole::Admin => "admin",
    }
}

/// The role that a body grants; write where it says nothing.
pub(super) fn permission(call: &Call<'_>) -> Outcome<RepositoryRole> {
    let fields = call.fields("Collaborator")?;
    match fields.text("permission")? {
        None | Some("push" | "write") => Ok(RepositoryRole::Write),
        Some("pull" | "read") => Ok(RepositoryRole::Read),
        Some("triage") => Ok(RepositoryRole::Triage),
        Some("maintain") => Ok(RepositoryRole::Maintain),
        Some("admin") => Ok(RepositoryRole::Admin),
        Some(_) => Err(fields.wrong("permission", "is one of pull, triage, push, maintain, admin")),
    }
}

/// The repository that the path names, if the caller may see it and has the role.
pub(super) async fn find(call: &Call<'_>, needed: Option<RepositoryRole>) -> Outcome<Seen> {
    let owner = call.account("owner").await?;
    let repository = call.identity().repository(owner.id, &call.named::<RepositoryName>("repo")?).await?;
    if !sees(call, &repository, owner.is_organisation()) {
        return Err(Refusal::not_found());
    }
    let role = access::role_on_repository(call.caller, &RepositoryPolicy::from(&repository), owner.is_organisation());
    if role < needed {
        return Err(Refusal::forbidden(match needed {
            Some(RepositoryRole::Admin) => "Must have admin rights to Repository.",
            _ => "Must have push access to Repository.",
        }));
    }
    Ok(Seen { owner, repository, role })
}

/// Whether the caller may see a repository.
pub(super) fn sees(call: &Call<'_>, repository: &Repository, organisation: bool) -> bool {
    let private = match &**call.caller {
        Caller::System => true,
        Caller::Anonymous => false,
        Caller::Signed(signed) => signed.scopes.allow(Scope::Repo),
        Caller::Workflow(workflow) => workflow.scopes.allow(Scope::Repo),
    };
    match repository.visibility {
        Visibility::Public => true,
        Visibility::Internal => private,
        Visibility::Private => private && access::role_on_repository(call.caller, &repository.into(), organisation).is_some(),
    }
}
