//! A user's own tokens: listed, made, revoked.
//!
//! A token makes no token that may do more than itself, or lives longer.

use super::refusal::{Outcome, Refusal};
use super::{Call, created, done, shown, view};
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::http::{HeaderValue, header};
use crate::identity::{NewToken, Scope, Scopes};
use crate::package::TokenId;

const RESOURCE: &str = "Token";

pub(super) async fn list(call: Call<'_>) -> Outcome {
    let tokens = call.identity().list_tokens(call.signed()?.user).await?;
    let items: Vec<_> = tokens.iter().map(|token| view::token(call.links, token)).collect();
    Ok(call.list(call.page()?, &items))
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let id = TokenId(call.named("token_id")?);
    let tokens = call.identity().list_tokens(call.signed()?.user).await?;
    let token = tokens.iter().find(|token| token.id == id).ok_or_else(Refusal::not_found)?;
    Ok(shown(&view::token(call.links, token)))
}

/// Answers with the token's text, this once.
pub(super) async fn create(call: Call<'_>) -> Outcome {
    let signed = call.signed()?;
    let fields = call.fields(RESOURCE)?;
    let scopes: Scopes = match fields.value("scopes") {
        None => return Err(Refusal::missing_field(RESOURCE, "scopes")),
        Some(value) => serde_json::from_value(value.clone()).map_err(|error| fields.wrong("scopes", error.to_string()))?,
    };
    let new = NewToken {
        note: fields.text("note")?.unwrap_or_default().to_owned(),
        scopes,
        expires_at: fields.parsed::<Timestamp>("expires_at")?,
    };
    if let Some(wider) = scopes.iter().find(|scope| !signed.scopes.allow(*scope)) {
        return Err(Refusal::forbidden(format!("A token cannot make one with a scope that it lacks itself: {}.", Scope::name(wider))));
    }
    let minted = call.identity().mint_token_by(signed.user, signed.token, new).await;
    let (token, text) = minted.map_err(|error| match error.kind() {
        Kind::Invalid => fields.wrong("expires_at", error.message()),
        _ => error.into(),
    })?;
    let mut view = view::token(call.links, &token);
    view.insert("token".to_owned(), text.expose().into());
    let mut response = created(&view);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) async fn revoke(call: Call<'_>) -> Outcome {
    call.identity().revoke_token(call.signed()?.user, TokenId(call.named("token_id")?)).await?;
    Ok(done())
}
