//! The audit log: who did what to which package, with which token.

use serde_json::{Value, json};

use super::Call;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{Event, Whose};
use crate::http::{Response, path};
use crate::identity::Identity;
use crate::name::{OwnerName, PackageName};

/// Events of an owner (`owner`), of a package (`ecosystem` and `name`), or all, in the order they happened.
pub(super) async fn list(call: Call<'_>) -> Result<Response> {
    let page = call.page()?;
    let after = page.after::<u64>()?;
    let whose = whose(&call).await?;
    let events = call.registry().events(whose, after, page.limit).await?;
    let next = if events.len() < page.limit { None } else { events.last().map(|event| event.id.to_string()) };
    let mut items = Vec::with_capacity(events.len());
    for event in &events {
        items.push(item(call.identity(), event).await?);
    }
    Ok(call.list(&items, &page, next))
}

async fn whose(call: &Call<'_>) -> Result<Whose> {
    let text = |name| path::query(call.query, name);
    match (text("owner"), text("ecosystem"), text("name")) {
        (None, None, None) => Ok(Whose::All),
        (Some(owner), None, None) => {
            let login: OwnerName = owner.parse().map_err(|_| Error::not_found(Subject::Account))?;
            Ok(Whose::Owner(call.account_of(&login).await?.id))
        }
        (None, Some(ecosystem), Some(name)) => {
            let absent = || Error::not_found(Subject::Package);
            let ecosystem = call.api.ecosystems.iter().find(|known| known.info().name == ecosystem).ok_or_else(absent)?;
            let name = PackageName::new(&name).map_err(|_| absent())?;
            let head = call.registry().catalog().head(ecosystem.info().name, &name).await?;
            Ok(Whose::Package(head.ok_or_else(absent)?.package.id))
        }
        _ => Err(Error::invalid(Subject::Request, "give owner, or ecosystem and name, or neither")),
    }
}

async fn item(identity: &Identity, event: &Event) -> Result<Value> {
    let user = match event.actor.user {
        None => None,
        Some(id) => match identity.account(id).await {
            Ok(account) => Some(account.login.to_string()),
            // Of a deleted account the id is left.
            Err(error) if error.kind() == Kind::NotFound => Some(id.to_string()),
            Err(error) => return Err(error),
        },
    };
    Ok(json!({
        "id": event.id,
        "at": event.at,
        "deed": event.deed,
        "ecosystem": event.ecosystem,
        "package": event.name,
        "version": event.version.as_ref().map(|version| &version.number),
        "user": user,
        "token": event.actor.token,
        "client": event.actor.client,
    }))
}
