//! Who the client is, and who a gem's owners are.
//!
//! There are no passwords here: what is sent as one is a personal access token, and signing
//! in gives it back as the key that `gem` keeps.

use serde_json::json;

use super::change::hosted;
use super::{Tree, field, form};
use crate::access::Action;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, Response, StatusCode, header, reply};
use crate::name::{OwnerName, PackageName};
use crate::package::{AccountId, Principal, Role};
use crate::registry::{Call, Registry};

/// `GET`, `POST` or `PUT /api/v1/api_key`: the answer's body is the key, kept to the last byte.
///
/// # Errors
/// `Unauthenticated` without a token as user name or password.
pub(super) fn sign_in(call: &Call<'_>) -> Result<Response> {
    let refused = || Error::new(Kind::Unauthenticated, Subject::Token).saying("sign in with a token as the password");
    if call.caller.id().is_none() {
        return Err(refused());
    }
    let key = token(call.headers).ok_or_else(refused)?;
    Ok(reply::text(StatusCode::OK, key))
}

/// The token in Basic credentials, as user name or as password.
fn token(headers: &HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let packed = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))?.1;
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed.trim()).ok()?;
    let pair = String::from_utf8(bytes).ok()?;
    let (user, password) = pair.split_once(':')?;
    [password, user].into_iter().find(|text| text.starts_with(crate::identity::PREFIX)).map(str::to_owned)
}

/// `GET /api/v1/profile/me.yaml`.
///
/// # Errors
/// `Unauthenticated` without a token.
pub(super) fn profile(call: &Call<'_>) -> Result<Response> {
    let login = call.caller.login().ok_or_else(|| Error::new(Kind::Unauthenticated, Subject::Token))?;
    Ok(reply::typed(StatusCode::OK, "application/yaml", format!("---\nhandle: {login}\nmfa: disabled\nwarning: \n")))
}

/// `GET /api/v1/gems/NAME/owners.yaml`: those who administer it.
///
/// # Errors
/// As for the right to read the gem.
pub(super) async fn owners(call: &Call<'_>, tree: &Tree, name: &PackageName, yaml: bool) -> Result<Response> {
    let (head, _) = hosted(call.registry, tree, &call.caller, name, Action::Read).await?;
    let people = call.registry.catalog().maintainers(&head).await?;
    if !yaml {
        let list: Vec<_> = people.iter().map(|person| json!({ "handle": person.login })).collect();
        return Ok(reply::json(StatusCode::OK, &list));
    }
    // `gem` shows the address; a login is one here.
    let lines: Vec<String> = people.iter().map(|person| format!("- handle: {0}\n  email: {0}\n", person.login)).collect();
    let text = lines.concat();
    Ok(reply::typed(StatusCode::OK, "application/yaml", if text.is_empty() { "--- []\n".to_owned() } else { format!("---\n{text}") }))
}

/// `POST /api/v1/gems/NAME/owners`: makes a user, named by login, one of those who administer the gem.
///
/// # Errors
/// As for the right to administer the gem; `NotFound` for nobody's login.
pub(super) async fn add_owner(call: Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    change_owner(call, tree, name, Some(Role::Admin), "Owner added successfully.").await
}

/// `DELETE /api/v1/gems/NAME/owners`.
///
/// # Errors
/// As [`add_owner`].
pub(super) async fn remove_owner(call: Call<'_>, tree: &Tree, name: &PackageName) -> Result<Response> {
    change_owner(call, tree, name, None, "Owner removed successfully.").await
}

async fn change_owner(call: Call<'_>, tree: &Tree, name: &PackageName, role: Option<Role>, done: &'static str) -> Result<Response> {
    let (registry, caller) = (call.registry, std::sync::Arc::clone(&call.caller));
    let (_, grant) = hosted(registry, tree, &caller, name, Action::Admin).await?;
    let form = form(call).await?;
    let login = field(&form, "email").ok_or_else(|| Error::invalid(Subject::Request, "the form has no email"))?;
    let user = user(registry, login).await?;
    registry.set_role(&grant, Principal::User(user), role).await?;
    Ok(reply::text(StatusCode::OK, done))
}

async fn user(registry: &Registry, login: &str) -> Result<AccountId> {
    let absent = || Error::not_found(Subject::Account).saying("Owner could not be found; name a user by login");
    let login = OwnerName::new(login).map_err(|_| absent())?;
    match registry.identity().account_by_login(&login).await {
        Ok(account) if !account.is_organisation() => Ok(account.id),
        Ok(_) => Err(absent()),
        Err(error) if error.kind() == Kind::NotFound => Err(absent()),
        Err(error) => Err(error),
    }
}
