//! A user's tokens.

use serde::Deserialize;
use serde_json::{Value, json};

use super::accounts::of_kind;
use super::{Call, created, done, shown};
use crate::clock::Timestamp;
use crate::error::{Result, Subject};
use crate::http::{HeaderValue, Response, header};
use crate::identity::{AccountKind, NewToken, Scopes, Token};
use crate::package::TokenId;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    #[serde(default)]
    note: String,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
}

pub(super) async fn list(call: Call<'_>) -> Result<Response> {
    let user = of_kind(&call, AccountKind::User).await?;
    let tokens = call.identity().list_tokens(user.id).await?;
    Ok(shown(&tokens.iter().map(view).collect::<Vec<_>>()))
}

/// Answers with the token's text, this once.
pub(super) async fn create(call: Call<'_>) -> Result<Response> {
    let user = of_kind(&call, AccountKind::User).await?;
    let body: NewBody = call.json()?;
    let new = NewToken { note: body.note, scopes: body.scopes, expires_at: body.expires_at };
    let (token, text) = call.identity().mint_token(user.id, new).await?;
    let mut view = view(&token);
    view["token"] = text.expose().into();
    let mut response = created(&view);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) async fn revoke(call: Call<'_>) -> Result<Response> {
    let user = of_kind(&call, AccountKind::User).await?;
    let id = TokenId(call.name(1, Subject::Token)?);
    call.identity().revoke_token(user.id, id).await?;
    Ok(done())
}

fn view(token: &Token) -> Value {
    json!({
        "id": token.id,
        "note": token.note,
        "scopes": token.scopes,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked": token.revoked,
    })
}
