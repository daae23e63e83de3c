//! Organisations and their members.
//!
//! Who is in an organisation is known to its members; who may change it is its owners.

use super::page::REACH;
use super::refusal::{Outcome, Refusal};
use super::repositories::count_public;
use super::users::is_inside;
use super::{Call, done, shown, view};
use crate::http::{Response, StatusCode, reply};
use crate::identity::{Account, Membership, OrganisationRole};
use crate::package::AccountId;

/// Members that are read at once.
const CHUNK: usize = 1000;

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let organisation = call.organisation().await?;
    let public = count_public(&call, organisation.id).await?;
    Ok(shown(&view::organisation_profile(call.links, &organisation, public)))
}

/// Deletes an organisation that owns nothing any more.
pub(super) async fn delete(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let provided = call.registry.catalog().owns_nothing(organisation.id).await?;
    call.identity().delete_account(organisation.id, provided).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &serde_json::json!({})))
}

pub(super) async fn members(call: Call<'_>) -> Outcome {
    let organisation = call.organisation().await?;
    let page = call.page()?;
    let role = match call.query("role").as_deref() {
        None | Some("all") => None,
        Some("admin") => Some(OrganisationRole::Owner),
        Some("member") => Some(OrganisationRole::Member),
        Some(_) => return Err(Refusal::invalid("Invalid argument: role is one of all, admin, member.")),
    };
    if !is_inside(call.signed()?, &organisation) {
        // Outsiders see public members, and membership is never public here.
        return Ok(call.list::<()>(page, &[]));
    }
    let mut all = memberships(&call, organisation.id).await?;
    all.retain(|membership| role.is_none_or(|role| membership.role == role));
    list_users(&call, all.into_iter().map(|membership| membership.user).collect()).await
}

/// The page of a list of users.
pub(super) async fn list_users(call: &Call<'_>, users: Vec<AccountId>) -> Outcome {
    let page = call.page()?;
    let mut items = Vec::new();
    for user in page.of(&users) {
        if let Some(user) = super::known(call.identity().account(*user).await)? {
            items.push(view::account(call.links, &user));
        }
    }
    Ok(call.part(page, &items, users.len()))
}

/// All memberships of an organisation, as many as pages lead to.
pub(super) async fn memberships(call: &Call<'_>, organisation: AccountId) -> Outcome<Vec<Membership>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = call.identity().members(organisation, after, CHUNK).await?;
        all.extend(page.items);
        after = page.next.map(AccountId);
        if after.is_none() || all.len() >= REACH {
            all.truncate(REACH);
            return Ok(all);
        }
    }
}

pub(super) async fn check_member(call: Call<'_>) -> Outcome {
    let organisation = call.organisation().await?;
    let user = call.user("username").await?;
    let signed = call.signed()?;
    if !is_inside(signed, &organisation) && signed.user != user.id {
        return Err(Refusal::not_found());
    }
    call.identity().membership(organisation.id, user.id).await?;
    Ok(done())
}

pub(super) async fn show_membership(call: Call<'_>) -> Outcome {
    let organisation = call.organisation().await?;
    let user = call.user("username").await?;
    let signed = call.signed()?;
    if !is_inside(signed, &organisation) && signed.user != user.id {
        return Err(Refusal::not_found());
    }
    let membership = call.identity().membership(organisation.id, user.id).await?;
    Ok(shown(&view::membership(call.links, &organisation, &user, &membership)))
}

pub(super) async fn set_membership(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    let fields = call.fields("Membership")?;
    let role = match fields.text("role")? {
        None | Some("member") => OrganisationRole::Member,
        Some("admin") => OrganisationRole::Owner,
        Some(_) => return Err(fields.wrong("role", "is one of admin, member")),
    };
    let user = call.user("username").await?;
    let membership = call.registry.set_member(organisation.id, user.id, role).await?;
    Ok(shown(&view::membership(call.links, &organisation, &user, &membership)))
}

pub(super) async fn remove_member(call: Call<'_>) -> Outcome<Response> {
    let organisation = administered(&call).await?;
    let user = call.user("username").await?;
    call.identity().remove_member(organisation.id, user.id).await?;
    Ok(done())
}

/// The organisation, if the caller may administer it.
pub(super) async fn administered(call: &Call<'_>) -> Outcome<Account> {
    let organisation = call.organisation().await?;
    let signed = call.signed()?;
    if signed.site_admin || signed.role_in(organisation.id) == Some(OrganisationRole::Owner) {
        return Ok(organisation);
    }
    Err(Refusal::forbidden("You must be an owner of the organization to do that."))
}

/// Whether somebody may make a repository that the account owns.
pub(super) fn may_own(call: &Call<'_>, owner: &Account) -> Outcome<()> {
    let signed = call.signed()?;
    let may = match signed.role_in(owner.id) {
        _ if signed.site_admin || signed.user == owner.id => true,
        Some(OrganisationRole::Owner) => true,
        Some(OrganisationRole::Member) => call.registry.access().members_can_publish,
        None => false,
    };
    if may { Ok(()) } else { Err(Refusal::forbidden("You may not create repositories for this organization.")) }
}
