//! Who the client is: login, whoami, profile, and the people of a package.
//!
//! There are no passwords here. npm's legacy login sends a name and a password; the
//! password is a personal access token, as on GitHub Packages, and login checks it
//! and gives it back. The newer web login is not offered: a 404 makes npm fall back.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{INFO, read_grant, read_json};
use crate::access::Action;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderValue, Response, StatusCode, header, reply};
use crate::identity::Caller;
use crate::name::{OwnerName, PackageName};
use crate::package::{Principal, Role};
use crate::registry::{Call, Registry};

/// Largest login body, in bytes.
const LOGIN_BYTES: u64 = 16 << 10;

/// `GET /-/whoami`.
///
/// # Errors
/// [`Kind::Unauthenticated`] without a token.
pub fn whoami(call: &Call<'_>) -> Result<Response> {
    let login = call.caller.login().ok_or_else(|| Error::new(Kind::Unauthenticated, Subject::Token))?;
    Ok(reply::json(StatusCode::OK, &json!({ "username": login })))
}

/// `GET /-/npm/v1/user`.
///
/// # Errors
/// [`Kind::Unauthenticated`] without a token.
pub async fn profile(call: &Call<'_>) -> Result<Response> {
    let id = call.caller.id().ok_or_else(|| Error::new(Kind::Unauthenticated, Subject::Token))?;
    let account = call.registry.identity().account(id).await?;
    let profile = json!({
        "tfa": false,
        "name": account.login,
        "email": account.email,
        "email_verified": false,
        "created": account.created_at,
        "updated": account.created_at,
        "fullname": "",
    });
    Ok(reply::json(StatusCode::OK, &profile))
}

/// `GET /-/user/org.couchdb.user:<name>`: npm asks it before it adds an owner.
///
/// # Errors
/// [`Kind::Unauthenticated`] without a token, [`Kind::NotFound`] for a name that is no user.
pub async fn user(call: &Call<'_>, login: &str) -> Result<Response> {
    if call.caller.login().is_none() {
        return Err(Error::new(Kind::Unauthenticated, Subject::Token));
    }
    let login = OwnerName::new(login).map_err(|_| Error::not_found(Subject::Account))?;
    let account = call.registry.identity().account_by_login(&login).await?;
    if account.is_organisation() {
        return Err(Error::not_found(Subject::Account));
    }
    // The address is the user's own business; npm only needs one to write back.
    let own = call.caller.id() == Some(account.id);
    let email = account.email.filter(|_| own).unwrap_or_default();
    Ok(reply::json(StatusCode::OK, &json!({ "_id": format!("org.couchdb.user:{login}"), "name": account.login, "email": email })))
}

/// `PUT /-/user/org.couchdb.user:<name>`: legacy login.
///
/// # Errors
/// [`Kind::Unauthenticated`] with the same text whatever is wrong.
pub async fn login(call: Call<'_>, login: &str) -> Result<Response> {
    #[derive(Deserialize)]
    struct Credentials {
        #[serde(default)]
        name: String,
        #[serde(default)]
        password: String,
    }
    let wrong = || Error::new(Kind::Unauthenticated, Subject::Token).saying("the name or the token is wrong");
    let registry = call.registry;
    let body = read_json(call, LOGIN_BYTES).await?;
    let credentials: Credentials =
        serde_json::from_slice(&body).map_err(|_| Error::invalid(Subject::Request, "the body holds no name and password"))?;
    let caller = by_token(registry, &credentials.password).await?.ok_or_else(wrong)?;
    let known = caller.login().ok_or_else(wrong)?;
    let same = |name: &str| name.eq_ignore_ascii_case(known.as_str());
    if !same(login) || !same(&credentials.name) {
        return Err(wrong());
    }
    let body = json!({ "ok": true, "id": format!("org.couchdb.user:{known}"), "rev": "1-0", "token": credentials.password });
    Ok(reply::json(StatusCode::CREATED, &body))
}

/// `DELETE /-/user/token/<token>`: revokes the token, which must be the caller's own.
///
/// # Errors
/// [`Kind::Unauthenticated`] without a token, [`Kind::NotFound`] for a token that is not the caller's.
pub async fn logout(call: &Call<'_>, token: &str) -> Result<Response> {
    let user = call.caller.id().ok_or_else(|| Error::new(Kind::Unauthenticated, Subject::Token))?;
    let owner = by_token(call.registry, token).await?;
    let signed = owner.as_deref().and_then(Caller::signed).filter(|signed| signed.user == user);
    let signed = signed.ok_or_else(|| Error::not_found(Subject::Token))?;
    call.registry.identity().revoke_token(user, signed.token).await?;
    Ok(reply::json(StatusCode::OK, &json!({ "ok": true })))
}

/// `GET /-/package/<p>/collaborators`: users with a role on the package, for those who may write it.
///
/// # Errors
/// As for the rights on the package.
pub async fn collaborators(call: &Call<'_>, name: &PackageName) -> Result<Response> {
    read_grant(call, name).await?;
    let (head, _) = call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Write).await?;
    let mut people = Map::new();
    for (principal, role) in &head.package.roles {
        let Principal::User(id) = principal else { continue };
        let account = match call.registry.identity().account(*id).await {
            Ok(account) => account,
            Err(error) if error.kind() == Kind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let word = if *role == Role::Read { "read-only" } else { "read-write" };
        people.insert(account.login.to_string(), Value::from(word));
    }
    Ok(reply::json(StatusCode::OK, &people))
}

/// The caller that a token stands for; `None` when it does not hold.
async fn by_token(registry: &Registry, token: &str) -> Result<Option<Arc<Caller>>> {
    let Ok(value) = HeaderValue::try_from(format!("Bearer {token}")) else { return Ok(None) };
    match registry.identity().identify(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])).await {
        Ok(caller) => Ok(Some(caller)),
        Err(error) if error.kind() == Kind::Unauthenticated => Ok(None),
        Err(error) => Err(error),
    }
}
