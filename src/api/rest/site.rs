//! What site admins do: accounts made, renamed, suspended, deleted; names reserved.
//!
//! Source for the accounts: the enterprise administration part of GitHub Enterprise
//! Server's REST API. Names are reserved in the same style.

use serde_json::json;

use super::refusal::{Outcome, Refusal, field};
use super::users::is_inside;
use super::{Call, created, done, known, view};
use crate::ecosystem;
use crate::error::Kind;
use crate::http::{StatusCode, reply};
use crate::identity::{Account, AccountChange, NewUser, Reservation};
use crate::name::OwnerName;

pub(super) async fn create_user(call: Call<'_>) -> Outcome {
    let fields = call.fields("User")?;
    let login: OwnerName = fields.needed_as("login")?;
    let email = fields.text("email")?.map(str::to_owned);
    let user = call.identity().create_user(NewUser { login, email, site_admin: false }).await.map_err(|error| match error.kind() {
        Kind::Invalid => fields.wrong("email", error.message()),
        _ => field("User", "login")(error),
    })?;
    Ok(created(&view::account(call.links, &user)))
}

pub(super) async fn create_organisation(call: Call<'_>) -> Outcome {
    const RESOURCE: &str = "Organization";
    let fields = call.fields(RESOURCE)?;
    let login: OwnerName = fields.needed_as("login")?;
    let admin: OwnerName = fields.needed_as("admin")?;
    let admin = call.identity().account_by_login(&admin).await.map_err(field(RESOURCE, "admin"))?;
    if admin.is_organisation() {
        return Err(fields.wrong("admin", "is an organization, not a user"));
    }
    let organisation = call.identity().create_organisation(login, Some(admin.id)).await.map_err(field(RESOURCE, "login"))?;
    Ok(created(&view::organisation(call.links, &organisation)))
}

pub(super) async fn rename_user(call: Call<'_>) -> Outcome {
    let user = call.user("username").await?;
    rename(&call, &user, "User").await
}

pub(super) async fn rename_organisation(call: Call<'_>) -> Outcome {
    let organisation = call.organisation().await?;
    rename(&call, &organisation, "Organization").await
}

/// GitHub renames later and answers with 202 and where to look; here it is done by then.
async fn rename(call: &Call<'_>, account: &Account, resource: &'static str) -> Outcome {
    let login: OwnerName = call.fields(resource)?.needed_as("login")?;
    let change = AccountChange { login: Some(login), ..AccountChange::default() };
    let renamed = call.identity().change_account(account.id, change).await.map_err(field(resource, "login"))?;
    let kind = if renamed.is_organisation() { "orgs" } else { "users" };
    let url = call.links.api(&format!("/{kind}/{}", renamed.login));
    Ok(reply::json(StatusCode::ACCEPTED, &json!({ "message": "The account has been renamed.", "url": url })))
}

/// Deletes a user who owns nothing any more.
pub(super) async fn delete_user(call: Call<'_>) -> Outcome {
    let user = other_user(&call).await?;
    let provided = call.registry.catalog().owns_nothing(user.id).await?;
    call.identity().delete_account(user.id, provided).await?;
    Ok(done())
}

pub(super) async fn promote(call: Call<'_>) -> Outcome {
    let user = call.user("username").await?;
    set(&call, &user, AccountChange { site_admin: Some(true), ..AccountChange::default() }).await
}

pub(super) async fn demote(call: Call<'_>) -> Outcome {
    let user = other_user(&call).await?;
    set(&call, &user, AccountChange { site_admin: Some(false), ..AccountChange::default() }).await
}

pub(super) async fn suspend(call: Call<'_>) -> Outcome {
    let user = other_user(&call).await?;
    set(&call, &user, AccountChange { disabled: Some(true), ..AccountChange::default() }).await
}

pub(super) async fn unsuspend(call: Call<'_>) -> Outcome {
    let user = call.user("username").await?;
    set(&call, &user, AccountChange { disabled: Some(false), ..AccountChange::default() }).await
}

async fn set(call: &Call<'_>, user: &Account, change: AccountChange) -> Outcome {
    call.identity().change_account(user.id, change).await?;
    Ok(done())
}

/// The user that the path names; not who asks, who could lock the last one out.
async fn other_user(call: &Call<'_>) -> Outcome<Account> {
    let user = call.user("username").await?;
    if user.id == call.signed()?.user { Err(Refusal::forbidden("You cannot do that to yourself.")) } else { Ok(user) }
}

/// The names reserved for an owner: known to it, its members and site admins.
pub(super) async fn reserved(call: Call<'_>) -> Outcome {
    let owner = call.owner().await?;
    let signed = call.signed()?;
    if signed.user != owner.id && !is_inside(signed, &owner) {
        return Err(Refusal::not_found());
    }
    let all = call.identity().reservations().await?;
    let mut items = Vec::new();
    for reservation in all.iter().filter(|reservation| reservation.owner == owner.id) {
        items.push(shape(reservation, Some(&owner.login)));
    }
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn all_reserved(call: Call<'_>) -> Outcome {
    let all = call.identity().reservations().await?;
    let all: Vec<&Reservation> = all.iter().collect();
    let page = call.page()?;
    let mut items = Vec::new();
    for reservation in page.of(&all) {
        // Of a deleted account: the names stay closed to everyone.
        let owner = known(call.identity().account(reservation.owner).await)?;
        items.push(shape(reservation, owner.as_ref().map(|owner| &owner.login)));
    }
    Ok(call.part(page, &items, all.len()))
}

fn shape(reservation: &Reservation, owner: Option<&OwnerName>) -> serde_json::Value {
    let package_type = ecosystem::find(&reservation.ecosystem).and_then(|ecosystem| ecosystem.info().package_types.first().copied());
    view::reservation(package_type.unwrap_or(&reservation.ecosystem), &reservation.pattern, owner, reservation.merge)
}

pub(super) async fn reserve(call: Call<'_>) -> Outcome {
    const RESOURCE: &str = "ReservedName";
    let (ecosystem, pattern) = pattern(&call)?;
    let fields = call.fields(RESOURCE)?;
    let owner: OwnerName = fields.needed_as("owner")?;
    let owner = call.identity().account_by_login(&owner).await.map_err(field(RESOURCE, "owner"))?.id;
    let reservation = Reservation { ecosystem: ecosystem.to_owned(), pattern, owner, merge: fields.flag("merge")?.unwrap_or(false) };
    call.identity().reserve(reservation).await.map_err(field(RESOURCE, "pattern"))?;
    Ok(done())
}

pub(super) async fn unreserve(call: Call<'_>) -> Outcome {
    let (ecosystem, pattern) = pattern(&call)?;
    call.identity().unreserve(ecosystem, &pattern).await?;
    Ok(done())
}

/// The ecosystem and the pattern that the path names.
fn pattern(call: &Call<'_>) -> Outcome<(&'static str, String)> {
    let ecosystem = ecosystem::of_type(call.parameter("package_type")).ok_or_else(Refusal::not_found)?;
    let pattern = ecosystem.pattern(call.parameter("pattern")).map_err(|error| Refusal::invalid(error.message().to_owned()))?;
    Ok((ecosystem.info().name, pattern))
}
