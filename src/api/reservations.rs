//! Reserved names.

use serde::Deserialize;
use serde_json::json;

use super::accounts::login;
use super::{Call, done, shown};
use crate::error::{Kind, Result};
use crate::http::Response;
use crate::identity::Reservation;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The owner's login.
    owner: String,
    #[serde(default)]
    merge: bool,
}

pub(super) async fn list(call: Call<'_>) -> Result<Response> {
    let all = call.identity().reservations().await?;
    let mut items = Vec::new();
    for reservation in all.iter() {
        let owner = match call.identity().account(reservation.owner).await {
            Ok(account) => Some(account.login),
            // Of a deleted account: the names stay closed to everyone.
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Reservation { ecosystem, pattern, merge, .. } = reservation;
        items.push(json!({ "ecosystem": ecosystem, "pattern": pattern, "owner": owner, "merge": merge }));
    }
    Ok(shown(&items))
}

pub(super) async fn reserve(call: Call<'_>) -> Result<Response> {
    let ecosystem = call.ecosystem()?;
    let body: Body = call.json()?;
    let owner = call.account_of(&login(&body.owner)?).await?.id;
    let pattern = ecosystem.pattern(call.parameter(1))?;
    call.identity().reserve(Reservation { ecosystem: ecosystem.info().name.to_owned(), pattern, owner, merge: body.merge }).await?;
    Ok(done())
}

pub(super) async fn unreserve(call: Call<'_>) -> Result<Response> {
    let ecosystem = call.ecosystem()?;
    call.identity().unreserve(ecosystem.info().name, &ecosystem.pattern(call.parameter(1))?).await?;
    Ok(done())
}
