//! Users and organisations.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, created, done, shown, unprocessable};
use crate::error::{Error, Result, Subject};
use crate::http::Response;
use crate::identity::{Account, AccountChange, AccountKind, NewUser};
use crate::name::OwnerName;
use crate::package::AccountId;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    login: String,
    email: Option<String>,
    #[serde(default)]
    site_admin: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrganisationBody {
    login: String,
    /// The first owner's login.
    owner: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    login: Option<String>,
    email: Option<String>,
    disabled: Option<bool>,
    site_admin: Option<bool>,
}

pub(super) async fn list(call: Call<'_>, kind: AccountKind) -> Result<Response> {
    let page = call.page()?;
    let found = call.identity().accounts(kind, page.after()?.map(AccountId), page.limit).await?;
    let items: Vec<_> = found.items.iter().map(view).collect();
    Ok(call.list(&items, &page, found.next.map(|next| next.to_string())))
}

pub(super) async fn create_user(call: Call<'_>) -> Result<Response> {
    let body: UserBody = call.json()?;
    let new = NewUser { login: login(&body.login)?, email: body.email, site_admin: body.site_admin };
    Ok(created(&view(&call.identity().create_user(new).await?)))
}

pub(super) async fn create_organisation(call: Call<'_>) -> Result<Response> {
    let body: OrganisationBody = call.json()?;
    let owner = match body.owner {
        None => None,
        Some(owner) => Some(call.account_of(&login(&owner)?).await?.id),
    };
    Ok(created(&view(&call.identity().create_organisation(login(&body.login)?, owner).await?)))
}

pub(super) async fn show(call: Call<'_>, kind: AccountKind) -> Result<Response> {
    Ok(shown(&view(&of_kind(&call, kind).await?)))
}

pub(super) async fn change(call: Call<'_>, kind: AccountKind) -> Result<Response> {
    let account = of_kind(&call, kind).await?;
    let body: ChangeBody = call.json()?;
    let new_login = body.login.as_deref().map(login).transpose()?;
    let change = AccountChange { login: new_login, email: body.email, disabled: body.disabled, site_admin: body.site_admin };
    Ok(shown(&view(&call.identity().change_account(account.id, change).await?)))
}

pub(super) async fn delete(call: Call<'_>, kind: AccountKind) -> Result<Response> {
    let account = of_kind(&call, kind).await?;
    let provided = call.registry().catalog().owns_nothing(account.id).await?;
    call.identity().delete_account(account.id, provided).await?;
    Ok(done())
}

/// The account of the first open segment, if it is of the kind.
pub(super) async fn of_kind(call: &Call<'_>, kind: AccountKind) -> Result<Account> {
    let account = call.account(0).await?;
    if account.kind == kind {
        return Ok(account);
    }
    let what = if account.is_organisation() { "an organisation" } else { "a user" };
    Err(Error::not_found(Subject::Account).saying(format!("{} is {what}", account.login)))
}

/// A login from a body.
pub(super) fn login(text: &str) -> Result<OwnerName> {
    OwnerName::new(text).map_err(|error| unprocessable(Subject::Account, &error))
}

fn view(account: &Account) -> Value {
    json!({
        "id": account.id,
        "login": account.login,
        "type": if account.is_organisation() { "Organization" } else { "User" },
        "site_admin": account.site_admin,
        "email": account.email,
        "disabled": account.disabled,
        "created_at": account.created_at,
    })
}
