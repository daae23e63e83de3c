//! Users as they are seen: by themselves, by others, by site admins.
//!
//! Accounts are known to everyone who is signed in, and to nobody else.

use serde_json::Value;

use super::refusal::Outcome;
use super::repositories::count_public;
use super::{Call, known, shown, view};
use crate::identity::{Account, Scope, Signed};

pub(super) async fn current(call: Call<'_>) -> Outcome {
    let user = call.owner().await?;
    profile(&call, &user).await
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let account = call.account("username").await?;
    profile(&call, &account).await
}

async fn profile(call: &Call<'_>, account: &Account) -> Outcome {
    let signed = call.signed()?;
    let own = signed.site_admin || (signed.user == account.id && signed.scopes.allow(Scope::User));
    let public = count_public(call, account.id).await?;
    Ok(shown(&view::profile(call.links, account, public, own)))
}

pub(super) async fn own_organisations(call: Call<'_>) -> Outcome {
    let user = call.owner().await?;
    organisations(&call, &user).await
}

pub(super) async fn organisations_of(call: Call<'_>) -> Outcome {
    let user = call.user("username").await?;
    organisations(&call, &user).await
}

/// A user's organisations; of others those that one is in oneself.
async fn organisations(call: &Call<'_>, user: &Account) -> Outcome {
    let signed = call.signed()?;
    let mut items = Vec::new();
    for membership in call.identity().memberships(user.id).await? {
        if signed.user == user.id || signed.site_admin || signed.role_in(membership.organisation).is_some() {
            let organisation = known(call.identity().account(membership.organisation).await)?;
            items.extend(organisation.map(|organisation| view::organisation(call.links, &organisation)));
        }
    }
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn own_memberships(call: Call<'_>) -> Outcome {
    let user = call.owner().await?;
    let mut items: Vec<Value> = Vec::new();
    for membership in call.identity().memberships(user.id).await? {
        if let Some(organisation) = known(call.identity().account(membership.organisation).await)? {
            items.push(view::membership(call.links, &organisation, &user, &membership));
        }
    }
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn own_membership(call: Call<'_>) -> Outcome {
    let organisation = call.account("organisation").await?;
    let user = call.identity().account(call.signed()?.user).await?;
    let membership = call.identity().membership(organisation.id, user.id).await?;
    Ok(shown(&view::membership(call.links, &organisation, &user, &membership)))
}

/// Whether somebody belongs to an organisation, or may see everything.
pub(super) fn is_inside(signed: &Signed, organisation: &Account) -> bool {
    signed.site_admin || signed.role_in(organisation.id).is_some()
}
