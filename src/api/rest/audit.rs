//! The audit log: of an organisation for its owners, of oneself, and of everything for site admins.
//!
//! An entry has GitHub's names for what happened, and for whom and what it happened
//! to. The list is newest first and cut by cursors, since it grows while it is read.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::organisations::administered;
use super::phrase::Phrase;
use super::refusal::{Outcome, Refusal};
use super::{Call, known, shown, view};
use crate::ecosystem;
use crate::event::{AccountEvent, Deed, Entry, Event, Order, Whose};
use crate::http::{HeaderValue, Response, header};
use crate::identity::{Account, Identity, Repository};
use crate::package::{AccountId, RepositoryId};

/// Events read from the log at once.
const CHUNK: usize = 500;
/// Most events that one request looks at for those that fit its phrase.
const LOOKED_AT: usize = 20_000;

pub(super) async fn of_organisation(call: Call<'_>) -> Outcome {
    let organisation = administered(&call).await?;
    list(&call, Whose::Owner(organisation.id)).await
}

pub(super) async fn own(call: Call<'_>) -> Outcome {
    let user = call.signed()?.user;
    list(&call, Whose::Owner(user)).await
}

pub(super) async fn all(call: Call<'_>) -> Outcome {
    list(&call, Whose::All).await
}

/// Where a page of the log begins, and which way it goes.
struct Cursor {
    order: Order,
    from: Option<u64>,
    /// Whether the page ends where it was said to begin.
    back: bool,
}

impl Cursor {
    fn read(call: &Call<'_>) -> Outcome<Self> {
        let cursor = |name: &str| match call.query(name) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| Refusal::invalid(format!("Invalid argument: {name} is no cursor."))),
        };
        let order = match call.query("order").as_deref() {
            None | Some("desc") => Order::NewestFirst,
            Some("asc") => Order::OldestFirst,
            Some(_) => return Err(Refusal::invalid("Invalid argument: order is one of desc, asc.")),
        };
        match (cursor("after")?, cursor("before")?) {
            (Some(_), Some(_)) => Err(Refusal::invalid("Invalid argument: give after or before, not both.")),
            (from, None) => Ok(Self { order, from, back: false }),
            (None, from) => Ok(Self { order, from, back: true }),
        }
    }

    /// The order in which the log is read for this page.
    const fn reading(&self) -> Order {
        match (self.order, self.back) {
            (Order::NewestFirst, false) | (Order::OldestFirst, true) => Order::NewestFirst,
            (Order::OldestFirst, false) | (Order::NewestFirst, true) => Order::OldestFirst,
        }
    }
}

/// A page of the log in the order of reading, and where reading goes on if there is more.
struct Part {
    items: Vec<(u64, Map<String, Value>)>,
    more: Option<u64>,
}

async fn list(call: &Call<'_>, whose: Whose) -> Outcome {
    let phrase =
        Phrase::parse(&call.query("phrase").unwrap_or_default()).map_err(|why| Refusal::invalid(format!("Invalid phrase: {why}.")))?;
    let per_page = call.page()?.per_page();
    let cursor = Cursor::read(call)?;
    let part = match call.query("include").as_deref() {
        None | Some("web" | "all") => collect(call, whose, &phrase, &cursor, per_page).await?,
        // What git does is not done here.
        Some("git") => Part { items: Vec::new(), more: None },
        Some(_) => return Err(Refusal::invalid("Invalid argument: include is one of web, git, all.")),
    };
    let mut items = part.items;
    if cursor.back {
        items.reverse();
    }
    let ends = (items.first().map(|(id, _)| *id), items.last().map(|(id, _)| *id));
    let (previous, next) = if cursor.back { (part.more, ends.1.or(cursor.from)) } else { (cursor.from.and(ends.0), part.more) };
    let mut response = shown(&items.into_iter().map(|(_, item)| item).collect::<Vec<_>>());
    link(call, &mut response, previous, next);
    Ok(response)
}

async fn collect(call: &Call<'_>, whose: Whose, phrase: &Phrase, cursor: &Cursor, per_page: usize) -> Outcome<Part> {
    let mut names = Names { identity: call.identity(), accounts: HashMap::new(), repositories: HashMap::new() };
    let (mut items, mut last, mut looked_at) = (Vec::new(), cursor.from, 0);
    loop {
        let entries = call.registry.catalog().events(whose, cursor.reading(), last, CHUNK).await?;
        let end = entries.len() < CHUNK;
        for entry in &entries {
            if items.len() == per_page {
                return Ok(Part { items, more: last });
            }
            last = Some(entry.id());
            let item = item(&mut names, entry).await?;
            if phrase.fits(&item, entry.at()) {
                items.push((entry.id(), item));
            }
        }
        looked_at += entries.len();
        if end || looked_at >= LOOKED_AT {
            return Ok(Part { items, more: last.filter(|_| !end) });
        }
    }
}

/// The way to the pages beside this one.
fn link(call: &Call<'_>, response: &mut Response, previous: Option<u64>, next: Option<u64>) {
    let address = call.links.api(call.path);
    let lead = |name: &str, cursor: Option<(&str, u64)>| {
        let pairs =
            url::form_urlencoded::parse(call.query.unwrap_or_default().as_bytes()).filter(|(key, _)| key != "after" && key != "before");
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs).extend_pairs(cursor.map(|(name, id)| (name, id.to_string())));
        format!("<{address}?{}>; rel=\"{name}\"", query.finish())
    };
    let mut links = Vec::new();
    links.extend(next.map(|id| lead("next", Some(("after", id)))));
    if let Some(id) = previous {
        links.push(lead("first", None));
        links.push(lead("prev", Some(("before", id))));
    }
    if let (false, Ok(value)) = (links.is_empty(), HeaderValue::try_from(links.join(", "))) {
        response.headers_mut().insert(header::LINK, value);
    }
}

/// What ids are called now, looked up once for each list.
struct Names<'a> {
    identity: &'a Identity,
    accounts: HashMap<AccountId, Option<Account>>,
    repositories: HashMap<RepositoryId, Option<Repository>>,
}

impl Names<'_> {
    async fn account(&mut self, id: AccountId) -> Outcome<Option<Account>> {
        if let Some(known) = self.accounts.get(&id) {
            return Ok(known.clone());
        }
        let account = known(self.identity.account(id).await)?;
        self.accounts.insert(id, account.clone());
        Ok(account)
    }

    async fn repository(&mut self, id: RepositoryId) -> Outcome<Option<Repository>> {
        if let Some(known) = self.repositories.get(&id) {
            return Ok(known.clone());
        }
        let repository = known(self.identity.repository_by_id(id).await)?;
        self.repositories.insert(id, repository.clone());
        Ok(repository)
    }
}

/// An entry in GitHub's shape; what is not known or not there is left out.
async fn item(names: &mut Names<'_>, entry: &Entry) -> Outcome<Map<String, Value>> {
    let actor = entry.actor();
    let login = match actor.user {
        None => None,
        Some(id) => names.account(id).await?.map(|account| account.login),
    };
    let (action, specific) = match entry {
        Entry::Package(event) => (package_action(event.deed, event.version.is_some()), package(names, event).await?),
        Entry::Account(event) => (event.deed.word(), account(names, event).await?),
    };
    let mut item = view::members(json!({
        "@timestamp": entry.at().as_millis(),
        "_document_id": entry.id().to_string(),
        "action": action,
        "operation_type": operation(action),
        "created_at": entry.at().as_millis(),
        "actor": login,
        "actor_id": actor.user,
        "actor_ip": actor.client,
        "token_id": actor.token,
    }));
    item.extend(specific);
    item.retain(|_, value| !value.is_null());
    Ok(item)
}

async fn package(names: &mut Names<'_>, event: &Event) -> Outcome<Map<String, Value>> {
    let owner = names.account(event.owner).await?;
    let repository = match event.repository {
        None => None,
        Some(id) => names.repository(id).await?,
    };
    let login = owner.as_ref().map(|owner| &owner.login);
    let package_type = ecosystem::find(&event.ecosystem).and_then(|ecosystem| ecosystem.info().package_types.first().copied());
    let mut item = whose(owner.as_ref());
    item.extend(view::members(json!({
        "package": event.name,
        "package_id": event.package,
        "package_type": package_type.unwrap_or(&event.ecosystem),
        "version": event.version.as_ref().map(|version| &version.number),
        "version_id": event.version.as_ref().map(|version| version.id),
        "detail": event.detail,
        "repo": login.zip(repository).map(|(login, repository)| format!("{login}/{}", repository.name)),
        "repo_id": event.repository,
    })));
    Ok(item)
}

async fn account(names: &mut Names<'_>, event: &AccountEvent) -> Outcome<Map<String, Value>> {
    let AccountEvent { login, about, .. } = event;
    let mut item = whose(names.account(event.owner).await?.as_ref());
    item.extend(view::members(json!({
        "user": about.user,
        "user_id": about.user_id,
        "team": about.team.as_ref().map(|team| format!("{login}/{team}")),
        "repo": about.repository.as_ref().map(|repository| format!("{login}/{repository}")),
        "repo_id": about.repository_id,
        "visibility": about.visibility,
        "permission": about.role,
        "old_name": about.old_name,
        "subject_token_id": about.token,
        "token_scopes": about.scopes,
        "pattern": about.pattern,
        "hook_id": about.hook,
    })));
    Ok(item)
}

/// The account that an entry is of.
fn whose(owner: Option<&Account>) -> Map<String, Value> {
    match owner {
        Some(owner) if owner.is_organisation() => view::members(json!({ "org": owner.login, "org_id": owner.id })),
        Some(owner) => view::members(json!({ "owner": owner.login, "owner_id": owner.id })),
        None => Map::new(),
    }
}

/// GitHub's name for what happens to a package or one of its versions, and names in its style where it has none.
const fn package_action(deed: Deed, version: bool) -> &'static str {
    match (deed, version) {
        (Deed::Published, _) => "packages.package_version_published",
        (Deed::Extended, _) => "packages.package_version_updated",
        (Deed::Deleted, true) => "packages.package_version_deleted",
        (Deed::Deleted, false) => "packages.package_deleted",
        (Deed::Restored, true) => "packages.package_version_restored",
        (Deed::Restored, false) => "packages.package_restored",
        (Deed::Deprecated, _) => "packages.package_version_deprecated",
        (Deed::Unlisted, _) => "packages.package_version_unlisted",
        (Deed::Relisted, _) => "packages.package_version_relisted",
        (Deed::Tagged, _) => "packages.package_tagged",
        (Deed::VisibilityChanged, _) => "packages.package_visibility_changed",
        (Deed::Linked, _) => "packages.package_repository_changed",
        (Deed::RolesChanged, _) => "packages.package_access_changed",
        (Deed::RulesChanged, _) => "packages.package_rules_changed",
        (Deed::Starred, _) => "packages.package_starred",
        (Deed::Moved, _) => "packages.package_transfer",
    }
}

/// GitHub's class of what an action does.
fn operation(action: &str) -> &'static str {
    let done = action.rsplit(['.', '_']).collect::<Vec<_>>();
    let is = |words: &[&str]| done.iter().any(|word| words.contains(word));
    if is(&["transfer"]) {
        "transfer"
    } else if is(&["restored"]) {
        "restore"
    } else if is(&["remove", "destroy", "delete", "deleted"]) {
        "remove"
    } else if is(&["create", "add", "published"]) {
        "create"
    } else {
        "modify"
    }
}
