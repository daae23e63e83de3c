//! Teams of an organisation: known to its members, changed by its owners.

use serde_json::{Value, json};

use super::organisations::{administered, list_users, memberships};
use super::page::REACH;
use super::refusal::{Outcome, Refusal, field};
use super::repositories::{self, Seen};
use super::users::is_inside;
use super::{Call, created, done, shown, view};
use crate::identity::{Account, Membership, RepositoryRole, Team};
use crate::name::TeamName;
use crate::package::Principal;

const RESOURCE: &str = "Team";

pub(super) async fn list(call: Call<'_>) -> Outcome {
    let organisation = inside(&call).await?;
    let teams = call.identity().teams(organisation.id, None, REACH).await?;
    let items: Vec<_> = teams.iter().map(|team| view::team(call.links, &organisation, team)).collect();
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn create(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let name: TeamName = call.fields(RESOURCE)?.needed_as("name")?;
    let team = call.identity().create_team(organisation.id, name).await.map_err(field(RESOURCE, "name"))?;
    Ok(created(&view::team(call.links, &organisation, &team)))
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let organisation = inside(&call).await?;
    let team = team(&call, &organisation).await?;
    Ok(shown(&view::team(call.links, &organisation, &team)))
}

pub(super) async fn change(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let mut team = team(&call, &organisation).await?;
    let name: Option<TeamName> = call.fields(RESOURCE)?.parsed("name")?;
    if let Some(name) = name {
        team = call.identity().rename_team(team.id, name).await.map_err(field(RESOURCE, "name"))?;
    }
    Ok(shown(&view::team(call.links, &organisation, &team)))
}

pub(super) async fn delete(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let team = team(&call, &organisation).await?;
    call.identity().delete_team(team.id).await?;
    Ok(done())
}

pub(super) async fn members(call: Call<'_>) -> Outcome {
    let organisation = inside(&call).await?;
    let team = team(&call, &organisation).await?;
    let mut all = memberships(&call, organisation.id).await?;
    all.retain(|membership| membership.teams.contains(&team.id));
    list_users(&call, all.into_iter().map(|membership| membership.user).collect()).await
}

pub(super) async fn show_membership(call: Call<'_>) -> Outcome {
    let organisation = inside(&call).await?;
    let team = team(&call, &organisation).await?;
    let user = call.user("username").await?;
    let membership: Membership = call.identity().membership(organisation.id, user.id).await?;
    if membership.teams.contains(&team.id) {
        Ok(shown(&membership_view(&call, &organisation, &team, &user)))
    } else {
        Err(Refusal::not_found())
    }
}

pub(super) async fn add_member(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let team = team(&call, &organisation).await?;
    let user = call.user("username").await?;
    // GitHub would invite who is no member; here an owner makes a member first.
    call.identity().add_team_member(team.id, user.id).await.map_err(field("TeamMember", "username"))?;
    Ok(shown(&membership_view(&call, &organisation, &team, &user)))
}

pub(super) async fn remove_member(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let team = team(&call, &organisation).await?;
    let user = call.user("username").await?;
    call.identity().remove_team_member(team.id, user.id).await?;
    Ok(done())
}

fn membership_view(call: &Call<'_>, organisation: &Account, team: &Team, user: &Account) -> Value {
    let below = format!("/orgs/{}/teams/{}/memberships/{}", organisation.login, team.name, user.login);
    json!({ "url": call.links.api(&below), "role": "member", "state": "active" })
}

pub(super) async fn repositories(call: Call<'_>) -> Outcome {
    let organisation = inside(&call).await?;
    let team = team(&call, &organisation).await?;
    let mut found = call.identity().repositories(organisation.id, None, REACH).await?;
    found.retain(|repository| repository.roles.contains_key(&Principal::Team(team.id)));
    found.retain(|repository| repositories::sees(&call, repository, true));
    let page = call.page()?;
    let items: Vec<_> = page
        .of(&found)
        .iter()
        .map(|repository| {
            let role = repository.roles.get(&Principal::Team(team.id)).copied();
            view::full_repository(call.links, &organisation, repository, role)
        })
        .collect();
    Ok(call.part(page, &items, found.len()))
}

pub(super) async fn grant(call: Call<'_>) -> Outcome {
    let (team, seen) = team_and_repository(&call).await?;
    let role = repositories::permission(&call)?;
    call.identity()
        .set_repository_role(seen.repository.id, Principal::Team(team.id), Some(role))
        .await
        .map_err(field(RESOURCE, "permission"))?;
    Ok(done())
}

pub(super) async fn withdraw(call: Call<'_>) -> Outcome {
    let (team, seen) = team_and_repository(&call).await?;
    call.identity().set_repository_role(seen.repository.id, Principal::Team(team.id), None).await?;
    Ok(done())
}

/// A team of an organisation, and a repository that the caller administers.
async fn team_and_repository(call: &Call<'_>) -> Outcome<(Team, Seen)> {
    let organisation = inside(call).await?;
    let team = team(call, &organisation).await?;
    Ok((team, repositories::find(call, Some(RepositoryRole::Admin)).await?))
}

/// The organisation, if the caller belongs to it.
async fn inside(call: &Call<'_>) -> Outcome<Account> {
    let organisation = call.organisation().await?;
    if is_inside(call.signed()?, &organisation) { Ok(organisation) } else { Err(Refusal::not_found()) }
}

async fn team(call: &Call<'_>, organisation: &Account) -> Outcome<Team> {
    Ok(call.identity().team_by_name(organisation.id, &call.named("team_slug")?).await?)
}
