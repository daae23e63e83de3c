//! How webhooks and their deliveries look in GitHub's JSON, and the ping that greets a new one.

use rand::RngExt as _;
use serde_json::{Map, Value, json};

use crate::api::rest::links::Links;
use crate::api::rest::view::{self, instant, members};
use crate::identity::{Account, Repository};
use crate::webhook::{ContentType, Delivery, Exchange, Hook, PackageAction, Payload, Try};

/// What stands in place of a secret.
pub(crate) const MASK: &str = "********";

/// What a webhook listens to, by name.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The repository's owner, or the organisation.
    pub(crate) owner: Account,
    /// The repository; without one it is the organisation.
    pub(crate) repository: Option<Repository>,
}

impl Place {
    /// The API's address of a webhook, with what follows it.
    fn address(&self, links: &Links, hook: &Hook, rest: &str) -> String {
        let base = match &self.repository {
            Some(repository) => links.repository(&self.owner.login, repository.name.as_str()),
            None => links.api(&format!("/orgs/{}", self.owner.login)),
        };
        format!("{base}/hooks/{}{rest}", hook.id)
    }

    /// The members `repository` and `organization` of a payload.
    fn introduce(&self, links: &Links, payload: &mut Map<String, Value>) {
        if let Some(repository) = &self.repository {
            payload.insert("repository".to_owned(), repository_told(links, &self.owner, repository).into());
        }
        if self.owner.is_organisation() {
            payload.insert("organization".to_owned(), view::organisation(links, &self.owner).into());
        }
    }
}

/// GitHub's `Hook`, or its `OrgHook`.
pub(crate) fn hook(links: &Links, place: &Place, hook: &Hook, last: Option<&Try>) -> Map<String, Value> {
    let address = |rest: &str| place.address(links, hook, rest);
    let mut shown = members(json!({
        "type": if place.repository.is_some() { "Repository" } else { "Organization" },
        "id": hook.id,
        "name": "web",
        "active": hook.active,
        "events": hook.events,
        "config": config(hook),
        "updated_at": instant(hook.updated_at),
        "created_at": instant(hook.created_at),
        "url": address(""),
        "ping_url": address("/pings"),
        "deliveries_url": address("/deliveries"),
    }));
    if place.repository.is_some() {
        shown.insert("test_url".to_owned(), address("/tests").into());
        shown.insert("last_response".to_owned(), last_response(last));
    }
    shown
}

fn last_response(last: Option<&Try>) -> Value {
    match last {
        None => json!({ "code": null, "status": "unused", "message": null }),
        Some(last) => json!({
            "code": last.code.unwrap_or(0),
            "status": if last.succeeded() { "active" } else { "failed" },
            "message": last.status,
        }),
    }
}

/// Where a webhook sends to, and how. What GitHub does not have is there only where it is set.
pub(crate) fn config(hook: &Hook) -> Map<String, Value> {
    let settings = &hook.settings;
    let mut shown = members(json!({
        "url": settings.url,
        "content_type": match settings.content_type {
            ContentType::Json => "json",
            ContentType::Form => "form",
        },
        "insecure_ssl": if settings.insecure_ssl { "1" } else { "0" },
    }));
    if settings.secret.is_some() {
        shown.insert("secret".to_owned(), MASK.into());
    }
    if settings.actions != PackageAction::usual() {
        let names: Vec<&str> = settings.actions.iter().map(|action| action.name()).collect();
        shown.insert("package_actions".to_owned(), names.into());
    }
    if settings.whole_publishes {
        shown.insert("package_grouping".to_owned(), "publish".into());
    }
    shown
}

/// GitHub's `HookDeliveryItem`. What was not tried yet has nothing to show of a try.
pub(crate) fn delivery(delivery: &Delivery) -> Map<String, Value> {
    let last = delivery.last.as_ref();
    #[expect(clippy::cast_precision_loss, reason = "seconds with two places, of a few seconds at most")]
    let seconds = last.map_or(0.0, |last| (last.millis / 10) as f64 / 100.0);
    members(json!({
        "id": delivery.id,
        "guid": delivery.guid,
        "delivered_at": instant(last.map_or(delivery.queued_at, |last| last.at)),
        "redelivery": delivery.redelivery,
        "duration": seconds,
        "status": last.map_or("pending", |last| last.status.as_str()),
        "status_code": last.and_then(|last| last.code).unwrap_or(0),
        "event": delivery.event,
        "action": delivery.action,
        "installation_id": null,
        "repository_id": delivery.repository,
        "throttled_at": null,
        // What GitHub does not have: it tries once.
        "attempts": delivery.tries,
        "pending": delivery.waiting,
    }))
}

/// GitHub's `HookDelivery`, with what went over the wire.
pub(crate) fn delivery_in_full(shown: &Delivery, payload: Option<&Payload>, exchange: Option<&Exchange>) -> Map<String, Value> {
    let mut view = delivery(shown);
    let headers = |list: &[(String, String)]| -> Map<String, Value> {
        let mut headers: Map<String, Value> = Map::new();
        for (name, value) in list {
            match headers.get_mut(name) {
                // A header that comes several times is one list (RFC 9110, 5.3).
                Some(Value::String(earlier)) => *earlier = format!("{earlier}, {value}"),
                _ => drop(headers.insert(name.clone(), value.as_str().into())),
            }
        }
        headers
    };
    let payload = payload.and_then(|payload| serde_json::from_str::<Value>(payload.json()).ok());
    view.insert("url".to_owned(), exchange.map_or("", |exchange| exchange.url.as_str()).into());
    view.insert("request".to_owned(), json!({ "headers": exchange.map(|exchange| headers(&exchange.request)), "payload": payload }));
    let answered = exchange.filter(|_| shown.last.as_ref().is_some_and(|last| last.code.is_some()));
    view.insert(
        "response".to_owned(),
        json!({
            "headers": answered.map(|exchange| headers(&exchange.response)),
            "payload": answered.map(|exchange| exchange.body.as_str()),
        }),
    );
    view
}

/// A repository as payloads show it: everything of it, but not what somebody may do to it.
pub(crate) fn repository_told(links: &Links, owner: &Account, repository: &Repository) -> Map<String, Value> {
    let mut told = view::full_repository(links, owner, repository, None);
    for name in ["permissions", "network_count", "subscribers_count"] {
        told.remove(name);
    }
    if owner.is_organisation() {
        // In payloads it is a name; the whole of it stands beside the repository.
        told.insert("organization".to_owned(), owner.login.as_str().into());
    }
    let page = links.web(&format!("/{}/{}", owner.login, repository.name));
    // There is nothing to clone here; the addresses are where it would be.
    told.extend(members(json!({
        "git_url": format!("{page}.git"),
        "ssh_url": format!("{page}.git"),
        "clone_url": format!("{page}.git"),
        "svn_url": page,
        "mirror_url": null,
        "web_commit_signoff_required": false,
        "custom_properties": {},
    })));
    told
}

/// What the first delivery of a webhook says, and every one that is asked for with `pings`.
pub(crate) fn ping(links: &Links, place: &Place, of: &Hook, sender: &Account) -> String {
    let mut payload = members(json!({
        "zen": WORDS[rand::rng().random_range(0..WORDS.len())],
        "hook_id": of.id,
        // As if nothing had been sent to it yet: so say the schemas, and a receiver knows what it answered.
        "hook": hook(links, place, of, None),
    }));
    place.introduce(links, &mut payload);
    payload.insert("sender".to_owned(), view::account(links, sender).into());
    Value::Object(payload).to_string()
}

/// GitHub's pings carry a maxim in `zen`.
const WORDS: [&str; 5] = [
    "What is published stays published.",
    "A cache is a promise to forget well.",
    "Name it once, keep it forever.",
    "Measure, then cut.",
    "The error message is the manual.",
];
