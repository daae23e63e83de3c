//! The token service: docker's exchange of credentials for a session.
//!
//! A client that was challenged asks here, with the scopes of the challenge and with its
//! personal token as password, or with nothing. What it gets is a session for as much of
//! that as it may do; fewer scopes are no error, wrong credentials are. The refresh token
//! that some clients want to keep is the personal token itself: nothing else would end
//! with it. Source: «Token Authentication Specification» and «OAuth2 Token Authentication»
//! of the distribution project.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::route;
use super::scope::{self, Access, Scope};
use super::{INFO, refusal};
use crate::access::Action;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, reply};
use crate::identity::{ANONYMOUS_SESSION, Caller, LIMITS_BYTES};
use crate::name::PackageName;
use crate::registry::relay::{self, Asking, Source};
use crate::registry::{Call, Registry};

/// Largest form, in bytes.
const FORM_BYTES: u64 = 64 << 10;

/// Where it was asked.
#[derive(Clone, Copy)]
struct Place<'a> {
    registry: &'a Registry,
    asking: Asking<'a>,
}

/// What was asked for.
#[derive(Default)]
struct Wanted {
    scopes: Vec<String>,
    offline: bool,
    grant_type: String,
    username: String,
    password: String,
    refresh_token: String,
}

impl Wanted {
    fn read(text: &[u8]) -> Self {
        let mut wanted = Self::default();
        for (key, value) in url::form_urlencoded::parse(text) {
            match &*key {
                "scope" => wanted.scopes.push(value.into_owned()),
                "offline_token" => wanted.offline |= value == "true" || value == "1",
                "access_type" => wanted.offline |= value == "offline",
                "grant_type" => wanted.grant_type = value.into_owned(),
                "username" => wanted.username = value.into_owned(),
                "password" => wanted.password = value.into_owned(),
                "refresh_token" => wanted.refresh_token = value.into_owned(),
                _ => {}
            }
        }
        wanted
    }
}

/// Answers `GET` and `POST` of `/v2/token`.
///
/// # Errors
/// [`Kind::Unauthenticated`] for credentials that do not hold.
pub async fn serve(call: Call<'_>) -> Result<Response> {
    let registry = call.registry;
    let place = Place { registry, asking: Asking { host: call.host, own: refusal::service(call.base.as_str()), namespace: None } };
    if call.method == Method::POST {
        let wanted = Wanted::read(&call.body.read(FORM_BYTES).await?);
        let (caller, secret) = match wanted.grant_type.as_str() {
            "password" => by_password(registry, &wanted.username, &wanted.password).await?,
            "refresh_token" => by_password(registry, "", &wanted.refresh_token).await?,
            _ => return Ok(refusal::refuse(StatusCode::BAD_REQUEST, "UNSUPPORTED", "grant_type is one of password, refresh_token")),
        };
        return respond(place, &caller, &wanted, secret.as_deref()).await;
    }
    if call.session.is_some() {
        // Else it could be prolonged for ever, and widened.
        return Err(Error::new(Kind::Unauthenticated, Subject::Token).saying("a session opens no other; sign in with a token"));
    }
    let wanted = Wanted::read(call.query.unwrap_or_default().as_bytes());
    respond(place, &call.caller, &wanted, secret_of(call.headers).as_deref()).await
}

/// Who a user name and a password stand for, and which of them is the token.
async fn by_password(registry: &Registry, username: &str, password: &str) -> Result<(Arc<Caller>, Option<String>)> {
    let wrong = || Error::new(Kind::Unauthenticated, Subject::Token).saying("bad credentials");
    let value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(format!("{username}:{password}")))).map_err(|_| wrong())?;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    let caller = registry.identity().identify(&headers).await?;
    if matches!(*caller, Caller::Anonymous) {
        // A form with nothing in it is no sign-in.
        return Err(wrong());
    }
    Ok((caller, secret_of(&headers)))
}

/// The token in Basic credentials that hold.
fn secret_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(if matches!(password, "" | "x-oauth-basic") { user } else { password }.to_owned()).filter(|secret| !secret.is_empty())
}

async fn respond(place: Place<'_>, caller: &Caller, wanted: &Wanted, secret: Option<&str>) -> Result<Response> {
    let registry = place.registry;
    let granted = granted(place, caller, scope::parse(wanted.scopes.iter().map(String::as_str))).await?;
    let token = match caller.signed() {
        Some(signed) => registry.identity().open_session(signed, &granted)?,
        None => ANONYMOUS_SESSION.to_owned(),
    };
    let mut body = json!({
        "token": token,
        "access_token": token,
        "scope": granted,
        "expires_in": registry.identity().session_lifetime().as_secs(),
        "issued_at": registry.clock().now(),
        "token_type": "Bearer",
    });
    if let Some(secret) = secret.filter(|_| wanted.offline) {
        body["refresh_token"] = Value::from(secret);
    }
    Ok(reply::json(StatusCode::OK, &body))
}

/// As much of the scopes as the caller has, within the length of a token.
async fn granted(place: Place<'_>, caller: &Caller, scopes: Vec<Scope>) -> Result<String> {
    let mut text = String::new();
    for scope in scopes {
        let scope = match scope {
            Scope::Catalog => Scope::Catalog,
            Scope::Repository(name, actions) => {
                let mut had = Vec::new();
                for action in actions {
                    if may(place, caller, &name, action).await? {
                        had.push(action);
                    }
                }
                Scope::Repository(name, had)
            }
        };
        let one = scope::write(&[scope]);
        if !one.is_empty() && text.len() + one.len() < LIMITS_BYTES {
            let gap = if text.is_empty() { "" } else { " " };
            text = format!("{text}{gap}{one}");
        }
    }
    Ok(text)
}

async fn may(place: Place<'_>, caller: &Caller, name: &PackageName, access: Access) -> Result<bool> {
    let registry = place.registry;
    match relay::locate(registry.upstreams(INFO.name), place.asking, name, route::parse_name) {
        Ok(Source::Here) => {}
        Ok(Source::Upstream(mirrored)) if access == Access::Pull => {
            return yes(registry.grant_relayed(INFO.name, caller, &mirrored.known_as));
        }
        _ => return Ok(false),
    }
    let may_publish = async || match route::owner(name) {
        Ok(owner) => yes(registry.grant_publish_own(INFO.name, caller, name, &owner).await),
        Err(_) => Ok(false),
    };
    let has = async |action| yes(registry.grant_hosted(INFO.name, caller, name, action).await);
    match access {
        Access::Push => may_publish().await,
        // Who may make the repository may look at and take back what was sent to it.
        Access::Pull => Ok(has(Action::Read).await? || may_publish().await?),
        Access::Delete => {
            let is_there = registry.catalog().head(INFO.name, name).await?.is_some();
            Ok(has(Action::Delete).await? || !is_there && may_publish().await?)
        }
    }
}

/// Whether a right was given; a store that cannot say is an error and no refusal.
fn yes<T>(decided: Result<T>) -> Result<bool> {
    match decided {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Internal) => Err(error),
        Err(_) => Ok(false),
    }
}
