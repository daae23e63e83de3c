//! The audit log: who did what to which package or account, with which token, from where.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Call;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{Entry, Order, Whose};
use crate::http::{Response, path};
use crate::identity::Identity;
use crate::name::{OwnerName, PackageName};
use crate::package::AccountId;

/// Events of an owner (`owner`), of a package (`ecosystem` and `name`), or all, in the order they happened.
pub(super) async fn list(call: Call<'_>) -> Result<Response> {
    let page = call.page()?;
    let after = page.after::<u64>()?;
    let whose = whose(&call).await?;
    let entries = call.registry().catalog().events(whose, Order::OldestFirst, after, page.limit).await?;
    let next = if entries.len() < page.limit { None } else { entries.last().map(|entry| entry.id().to_string()) };
    let mut names = Names { identity: call.identity(), known: HashMap::new() };
    let mut items = Vec::with_capacity(entries.len());
    for entry in &entries {
        items.push(item(&mut names, entry).await?);
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

async fn item(names: &mut Names<'_>, entry: &Entry) -> Result<Value> {
    let actor = entry.actor();
    let mut item = json!({
        "id": entry.id(),
        "at": entry.at(),
        "user": match actor.user {
            None => None,
            Some(id) => Some(names.of(id).await?),
        },
        "token": actor.token,
        "client": actor.client,
    });
    match entry {
        Entry::Package(event) => {
            item["deed"] = json!(event.deed);
            item["owner"] = names.of(event.owner).await?.into();
            item["ecosystem"] = json!(event.ecosystem);
            item["package"] = json!(event.name);
            item["version"] = json!(event.version.as_ref().map(|version| &version.number));
            item["about"] = json!(event.detail);
        }
        Entry::Account(event) => {
            item["deed"] = json!(event.deed);
            item["owner"] = json!(event.login);
            item["about"] = json!(event.about);
        }
    }
    Ok(item)
}

/// Logins by the accounts' ids; of a deleted account the id is left.
pub(super) struct Names<'a> {
    pub(super) identity: &'a Identity,
    pub(super) known: HashMap<AccountId, String>,
}

impl Names<'_> {
    pub(super) async fn of(&mut self, id: AccountId) -> Result<String> {
        if let Some(login) = self.known.get(&id) {
            return Ok(login.clone());
        }
        let login = match self.identity.account(id).await {
            Ok(account) => account.login.to_string(),
            Err(error) if error.kind() == Kind::NotFound => id.to_string(),
            Err(error) => return Err(error),
        };
        self.known.insert(id, login.clone());
        Ok(login)
    }
}
