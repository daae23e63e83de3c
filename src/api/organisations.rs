//! Members and teams of organisations.

use serde::Deserialize;
use serde_json::{Value, json};

use super::accounts::of_kind;
use super::{Call, created, done, shown, unprocessable};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::Response;
use crate::identity::{AccountKind, Membership, OrganisationRole, Team};
use crate::name::TeamName;
use crate::package::AccountId;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberBody {
    role: OrganisationRole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamBody {
    name: String,
}

pub(super) async fn members(call: Call<'_>) -> Result<Response> {
    listed(&call, |_| true).await
}

pub(super) async fn set_member(call: Call<'_>) -> Result<Response> {
    let organisation = of_kind(&call, AccountKind::Organisation).await?.id;
    let user = call.account(1).await?.id;
    let body: MemberBody = call.json()?;
    let membership = call.registry().set_member(organisation, user, body.role).await?;
    Ok(shown(&member_view(&call, &membership).await?))
}

pub(super) async fn remove_member(call: Call<'_>) -> Result<Response> {
    let organisation = of_kind(&call, AccountKind::Organisation).await?.id;
    let user = call.account(1).await?.id;
    call.identity().remove_member(organisation, user).await?;
    Ok(done())
}

pub(super) async fn teams(call: Call<'_>) -> Result<Response> {
    let organisation = of_kind(&call, AccountKind::Organisation).await?.id;
    let page = call.page()?;
    let teams = call.identity().teams(organisation, page.after()?.as_ref(), page.limit).await?;
    let next = teams.last().filter(|_| teams.len() == page.limit).map(|team| team.name.to_string());
    Ok(call.list(&teams.iter().map(team_view).collect::<Vec<_>>(), &page, next))
}

pub(super) async fn create_team(call: Call<'_>) -> Result<Response> {
    let organisation = of_kind(&call, AccountKind::Organisation).await?.id;
    let body: TeamBody = call.json()?;
    let name = TeamName::new(&body.name).map_err(|error| unprocessable(Subject::Team, &error))?;
    Ok(created(&team_view(&call.identity().create_team(organisation, name).await?)))
}

pub(super) async fn delete_team(call: Call<'_>) -> Result<Response> {
    call.identity().delete_team(team(&call).await?.id).await?;
    Ok(done())
}

pub(super) async fn team_members(call: Call<'_>) -> Result<Response> {
    let team = team(&call).await?.id;
    listed(&call, |membership| membership.teams.contains(&team)).await
}

pub(super) async fn add_team_member(call: Call<'_>) -> Result<Response> {
    let (team, user) = (team(&call).await?, call.account(2).await?);
    call.identity().add_team_member(team.id, user.id).await?;
    Ok(done())
}

pub(super) async fn remove_team_member(call: Call<'_>) -> Result<Response> {
    let (team, user) = (team(&call).await?, call.account(2).await?);
    call.identity().remove_team_member(team.id, user.id).await?;
    Ok(done())
}

/// The members that `keep` keeps. A page is cut before keeping, so it may be shorter than its limit and not the last.
async fn listed(call: &Call<'_>, keep: impl Fn(&Membership) -> bool) -> Result<Response> {
    let organisation = of_kind(call, AccountKind::Organisation).await?.id;
    let page = call.page()?;
    let found = call.identity().members(organisation, page.after()?.map(AccountId), page.limit).await?;
    let mut items = Vec::with_capacity(found.items.len());
    for membership in found.items.iter().filter(|membership| keep(membership)) {
        match member_view(call, membership).await {
            Ok(view) => items.push(view),
            // Deleted while the list was read.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(call.list(&items, &page, found.next.map(|next| next.to_string())))
}

async fn team(call: &Call<'_>) -> Result<Team> {
    let organisation = of_kind(call, AccountKind::Organisation).await?;
    let name: TeamName = call.name(1, Subject::Team)?;
    call.identity().team_by_name(organisation.id, &name).await.map_err(|error| match error.kind() {
        Kind::NotFound => Error::not_found(Subject::Team).saying(format!("{} has no team {name}", organisation.login)),
        _ => error,
    })
}

async fn member_view(call: &Call<'_>, membership: &Membership) -> Result<Value> {
    let user = call.identity().account(membership.user).await?;
    Ok(json!({ "id": user.id, "login": user.login, "role": membership.role, "created_at": membership.created_at }))
}

fn team_view(team: &Team) -> Value {
    json!({ "id": team.id, "name": team.name, "created_at": team.created_at })
}
