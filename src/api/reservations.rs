//! Reserved names.

use serde::Deserialize;
use serde_json::json;

use super::accounts::login;
use super::{Call, done, shown};
use crate::error::{Error, Kind, Result, Subject};
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
    let ecosystem = ecosystem(&call)?;
    let body: Body = call.json()?;
    let owner = call.account_of(&login(&body.owner)?).await?.id;
    let pattern = call.parameter(1).to_owned();
    call.identity().reserve(Reservation { ecosystem, pattern, owner, merge: body.merge }).await?;
    Ok(done())
}

pub(super) async fn unreserve(call: Call<'_>) -> Result<Response> {
    call.identity().unreserve(&ecosystem(&call)?, call.parameter(1)).await?;
    Ok(done())
}

fn ecosystem(call: &Call<'_>) -> Result<String> {
    let name = call.parameter(0);
    let known = &call.api.ecosystems;
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Error::not_found(Subject::Route).saying(format!("there is no ecosystem {name:?}, expected {}", known.join(", "))))
}
