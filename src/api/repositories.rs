//! Repositories and the roles on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Call, created, done, shown, unprocessable};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::Response;
use crate::identity::{Account, Repository, RepositoryRole};
use crate::name::{RepositoryName, TeamName};
use crate::package::{Principal, Visibility};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    name: String,
    #[serde(default = "private")]
    visibility: Visibility,
}

fn private() -> Visibility {
    Visibility::Private
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    visibility: Visibility,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    role: RepositoryRole,
}

pub(super) async fn list(call: Call<'_>) -> Result<Response> {
    let owner = call.account(0).await?;
    let page = call.page()?;
    let found = call.identity().repositories(owner.id, page.after()?.as_ref(), page.limit).await?;
    let next = found.last().filter(|_| found.len() == page.limit).map(|repository| repository.name.to_string());
    Ok(call.list(&found.iter().map(|repository| view(&owner, repository)).collect::<Vec<_>>(), &page, next))
}

pub(super) async fn create(call: Call<'_>) -> Result<Response> {
    let owner = call.account(0).await?;
    let body: NewBody = call.json()?;
    let name = RepositoryName::new(&body.name).map_err(|error| unprocessable(Subject::Repository, &error))?;
    Ok(created(&view(&owner, &call.identity().create_repository(owner.id, name, body.visibility).await?)))
}

pub(super) async fn show(call: Call<'_>) -> Result<Response> {
    let (owner, repository) = repository(&call).await?;
    Ok(shown(&view(&owner, &repository)))
}

pub(super) async fn change(call: Call<'_>) -> Result<Response> {
    let (owner, repository) = repository(&call).await?;
    let body: ChangeBody = call.json()?;
    Ok(shown(&view(&owner, &call.identity().set_visibility(repository.id, body.visibility).await?)))
}

pub(super) async fn delete(call: Call<'_>) -> Result<Response> {
    let (_, repository) = repository(&call).await?;
    call.registry().delete_repository(repository.id).await?;
    Ok(done())
}

pub(super) async fn roles(call: Call<'_>) -> Result<Response> {
    let (_, repository) = repository(&call).await?;
    Ok(shown(&granted(&call, &repository.roles).await?))
}

/// Who has which role, by the names that a request would use.
pub(super) async fn granted<R: Serialize + Sync>(call: &Call<'_>, roles: &BTreeMap<Principal, R>) -> Result<Vec<Value>> {
    let mut items = Vec::with_capacity(roles.len());
    for (principal, role) in roles {
        let name = match *principal {
            Principal::User(user) => call.identity().account(user).await.map(|account| format!("user:{}", account.login)),
            Principal::Team(team) => call.identity().team(team).await.map(|team| format!("team:{}", team.name)),
        };
        match name {
            Ok(name) => items.push(json!({ "principal": name, "role": role })),
            // Granted to something that was deleted since: it means nothing.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(items)
}

pub(super) async fn grant(call: Call<'_>) -> Result<Response> {
    let (owner, repository) = repository(&call).await?;
    let principal = principal(&call, &owner, 2).await?;
    let body: RoleBody = call.json()?;
    call.identity().set_repository_role(repository.id, principal, Some(body.role)).await?;
    Ok(done())
}

pub(super) async fn withdraw(call: Call<'_>) -> Result<Response> {
    let (owner, repository) = repository(&call).await?;
    let principal = principal(&call, &owner, 2).await?;
    if !repository.roles.contains_key(&principal) {
        return Err(Error::not_found(Subject::Repository).saying("it has no role on this repository"));
    }
    call.identity().set_repository_role(repository.id, principal, None).await?;
    Ok(done())
}

/// The repository that the first two open segments name, and its owner.
pub(super) async fn repository(call: &Call<'_>) -> Result<(Account, Repository)> {
    let owner = call.account(0).await?;
    let name: RepositoryName = call.name(1, Subject::Repository)?;
    let repository = call.identity().repository(owner.id, &name).await.map_err(|error| match error.kind() {
        Kind::NotFound => Error::not_found(Subject::Repository).saying(format!("there is no repository {}/{name}", owner.login)),
        _ => error,
    })?;
    Ok((owner, repository))
}

/// The principal that a segment names: `user:LOGIN`, or `team:NAME` of the owner's teams.
pub(super) async fn principal(call: &Call<'_>, owner: &Account, index: usize) -> Result<Principal> {
    let absent = || Error::not_found(Subject::Account).saying("a principal is user:LOGIN or team:NAME");
    match call.parameter(index).split_once(':').ok_or_else(absent)? {
        ("user", login) => Ok(Principal::User(call.account_of(&login.parse().map_err(|_| absent())?).await?.id)),
        ("team", name) => {
            let name = TeamName::new(name).map_err(|_| absent())?;
            Ok(Principal::Team(call.identity().team_by_name(owner.id, &name).await?.id))
        }
        _ => Err(absent()),
    }
}

fn view(owner: &Account, repository: &Repository) -> Value {
    json!({
        "id": repository.id,
        "name": repository.name,
        "full_name": format!("{}/{}", owner.login, repository.name),
        "owner": owner.login,
        "private": repository.visibility != Visibility::Public,
        "visibility": repository.visibility,
        "created_at": repository.created_at,
    })
}
