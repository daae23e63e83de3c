//! Webhooks of repositories and organisations, managed as on GitHub.
//!
//! Who administers a repository, and who owns an organisation, has its webhooks; to
//! all others they are not there, whatever else they may know of it. A secret is
//! never shown. What GitHub does not have is opt-in, in `config`:
//!
//! - `package_actions`: what of packages is told, of `published`, `updated` (GitHub's
//!   two, and what counts without it), `deleted`, `restored`, `visibility_changed`, `linked`.
//! - `package_grouping`: `publish` leaves out what is only a part of a larger publish,
//!   such as the images for single platforms; `version`, as GitHub, does not.
//!
//! Source: GitHub's REST documentation, «Repository webhooks», «Organization webhooks».

use super::refusal::{Outcome, Refusal};
use super::{Call, created, done, known, shown};
use crate::access::{self, Action, RepositoryPolicy};
use crate::api::rest::links::Links;
use crate::error::{Error, Kind};
use crate::event::{AccountDeed, AccountEvent, Actor, Particulars};
use crate::http::{HeaderValue, Response, StatusCode, header, reply};
use crate::identity::{Account, Caller, OrganisationRole, RepositoryRole, Scopes};
use crate::name::RepositoryName;
use crate::package::{DeliveryId, HookId};
use crate::webhook::{Delivery, Draft, Hook, Settings, Target};

mod settings;
pub(crate) mod view;

use settings::{RESOURCE, refuse};
use view::Place;

/// What a list of deliveries shows unless it is told, and at most.
const PER_PAGE: usize = 30;
const PER_PAGE_LIMIT: usize = 100;

pub(super) async fn list(call: Call<'_>) -> Outcome {
    let place = place(&call).await?;
    let page = call.page()?;
    let hooks = call.registry.hooks().of(place.target()).await?;
    let mut items = Vec::new();
    for hook in page.of(&hooks) {
        let last = call.registry.hooks().last_try(hook.id).await?;
        items.push(view::hook(call.links, &place, hook, last.as_ref()));
    }
    Ok(call.part(page, &items, hooks.len()))
}

pub(super) async fn create(call: Call<'_>) -> Outcome {
    let place = place(&call).await?;
    let hooks = call.registry.hooks();
    let fields = call.fields(RESOURCE)?;
    settings::check_name(&fields)?;
    if place.repository.is_none() && fields.value("name").is_none() {
        return Err(Refusal::missing_field(RESOURCE, "name"));
    }
    let config = settings::config(&fields)?.unwrap_or_else(settings::nothing);
    let settings = settings::read(&config, None, Settings::to(String::new()), hooks.guard())?;
    let now = hooks.clock().now();
    let sender = call.identity().account(call.signed()?.user).await?;
    let hook = Hook {
        id: HookId(hooks.next_id().await?),
        target: place.target(),
        author: sender.id,
        active: fields.flag("active")?.unwrap_or(true),
        events: settings::events(&fields, "events")?.unwrap_or_else(|| vec!["push".to_owned()]),
        settings,
        origin: call.links.web(""),
        created_at: now,
        updated_at: now,
    };
    settings::expect_events(&hook)?;
    let told = told(&call, &place, hook.id, AccountDeed::HookCreated).await?;
    hooks.create(&hook, ping_draft(call.links, &place, &hook, &sender), Some(&told)).await.map_err(alike)?;
    Ok(created(&view::hook(call.links, &place, &hook, None)))
}

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let (place, hook) = find(&call).await?;
    respond(&call, &place, &hook).await
}

pub(super) async fn change(call: Call<'_>) -> Outcome {
    let (place, hook) = find(&call).await?;
    let fields = call.fields(RESOURCE)?;
    settings::check_name(&fields)?;
    let config = settings::config(&fields)?;
    let active = fields.flag("active")?;
    let hooks = call.registry.hooks();
    let told = told(&call, &place, hook.id, AccountDeed::HookChanged).await?;
    let changed = hooks.change(place.target(), hook.id, Some(&told), |hook| {
        if let Some(config) = &config {
            // A config is replaced as a whole, but for the address: a hook always has one.
            let base = Settings::to(hook.settings.url.clone());
            let settings = settings::read(config, Some(&hook.settings), base, hooks.guard())?;
            answer_for(&call, hook, settings)?;
        }
        hook.active = active.unwrap_or(hook.active);
        settings::change_events(&fields, hook)
    });
    respond(&call, &place, &changed.await.map_err(alike)??).await
}

pub(super) async fn delete(call: Call<'_>) -> Outcome {
    let (place, hook) = find(&call).await?;
    let told = told(&call, &place, hook.id, AccountDeed::HookDeleted).await?;
    call.registry.hooks().delete(place.target(), hook.id, Some(&told)).await?;
    Ok(done())
}

pub(super) async fn show_config(call: Call<'_>) -> Outcome {
    let (_, hook) = find(&call).await?;
    Ok(shown(&view::config(&hook)))
}

pub(super) async fn change_config(call: Call<'_>) -> Outcome {
    let (place, hook) = find(&call).await?;
    let fields = call.fields(RESOURCE)?;
    let hooks = call.registry.hooks();
    let told = told(&call, &place, hook.id, AccountDeed::HookChanged).await?;
    let changed = hooks.change(place.target(), hook.id, Some(&told), |hook| {
        let settings = settings::read(&fields, Some(&hook.settings), hook.settings.clone(), hooks.guard())?;
        answer_for(&call, hook, settings)
    });
    Ok(shown(&view::config(&changed.await.map_err(alike)??)))
}

/// What the audit log has of a change: a webhook sends what happens here elsewhere.
async fn told(call: &Call<'_>, place: &Place, hook: HookId, deed: AccountDeed) -> Outcome<AccountEvent> {
    let repository = place.repository.as_ref();
    let about = Particulars {
        repository: repository.map(|repository| repository.name.clone()),
        repository_id: repository.map(|repository| repository.id),
        hook: Some(hook),
        ..Particulars::default()
    };
    let (id, at, actor) = (call.identity().next_event_id().await?, call.registry.clock().now(), Actor::current());
    Ok(AccountEvent { id, at, deed, actor, owner: place.owner.id, login: place.owner.login.clone(), about })
}

/// Gives a webhook other settings. Whoever says where it sends to answers for what it is told from then on.
fn answer_for(call: &Call<'_>, hook: &mut Hook, settings: Settings) -> Outcome<()> {
    if settings.url != hook.settings.url {
        hook.author = call.signed()?.user;
        hook.origin = call.links.web("");
    }
    hook.settings = settings;
    Ok(())
}

pub(super) async fn ping(call: Call<'_>) -> Outcome {
    let (place, hook) = find(&call).await?;
    let hooks = call.registry.hooks();
    let sender = call.identity().account(call.signed()?.user).await?;
    hooks.send_by_hand(ping_draft(call.links, &place, &hook, &sender)).await?;
    Ok(done())
}

/// GitHub sends the repository's last push once more, if there is one. Nothing is ever pushed to a repository here.
pub(super) async fn test(call: Call<'_>) -> Outcome {
    find(&call).await?;
    Ok(done())
}

fn ping_draft(links: &Links, place: &Place, hook: &Hook, sender: &Account) -> Draft {
    Draft {
        hook: hook.id,
        event: "ping",
        action: None,
        package: None,
        repository: place.repository.as_ref().map(|repository| repository.id),
        payload: view::ping(links, place, hook, sender),
    }
}

pub(super) async fn deliveries(call: Call<'_>) -> Outcome {
    let (_, hook) = find(&call).await?;
    let per_page = call.query("per_page").and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
    let per_page = per_page.unwrap_or(PER_PAGE).min(PER_PAGE_LIMIT);
    let cursor = call.query("cursor").map(|text| cursor(&text)).transpose()?;
    let page = call.registry.hooks().deliveries(hook.id, cursor, per_page).await?;
    let next = page.last().filter(|_| page.len() == per_page).map(|last| last.id);
    let mut items = Vec::new();
    for delivery in &page {
        // What was never tried is no delivery yet.
        if delivery.last.is_some() && sees(&call, delivery).await? {
            items.push(view::delivery(delivery));
        }
    }
    let mut response = shown(&items);
    if let Some(next) = next {
        let address = call.links.api(call.path);
        let link = format!("<{address}?per_page={per_page}&cursor=v1_{next}>; rel=\"next\"");
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

/// Where a page of deliveries begins: after the delivery of a number.
fn cursor(text: &str) -> Outcome<DeliveryId> {
    let number = text.strip_prefix("v1_").and_then(|number| number.parse().ok());
    number.map(DeliveryId).ok_or_else(|| Refusal::invalid("Invalid argument: cursor is none that was given here."))
}

pub(super) async fn show_delivery(call: Call<'_>) -> Outcome {
    let delivery = delivery(&call).await?;
    let hooks = call.registry.hooks();
    let (payload, exchange) = (hooks.payload(&delivery).await?, hooks.exchange(&delivery).await?);
    Ok(shown(&view::delivery_in_full(&delivery, payload.as_ref(), exchange.as_ref())))
}

pub(super) async fn redeliver(call: Call<'_>) -> Outcome {
    let delivery = delivery(&call).await?;
    call.registry.hooks().redeliver(&delivery).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &serde_json::json!({})))
}

/// The delivery that the path names, if the caller may see it.
async fn delivery(call: &Call<'_>) -> Outcome<Delivery> {
    let (_, hook) = find(call).await?;
    let delivery = call.registry.hooks().delivery(hook.id, DeliveryId(call.named("delivery_id")?)).await?;
    if sees(call, &delivery).await? { Ok(delivery) } else { Err(Refusal::not_found()) }
}

/// Whether the caller may know of what a delivery tells. Somebody else may have set the webhook
/// up, who may know more. A token of webhooks alone is enough: it could have itself told all the same.
async fn sees(call: &Call<'_>, delivery: &Delivery) -> Outcome<bool> {
    let Some(package) = delivery.package else { return Ok(true) };
    let Some(head) = call.registry.catalog().head_by_id(package).await? else { return Ok(false) };
    let caller = match &**call.caller {
        Caller::Signed(signed) => {
            let mut signed = signed.clone();
            signed.scopes = Scopes::all();
            Caller::Signed(signed)
        }
        other => other.clone(),
    };
    Ok(access::decide(&caller, &head.policy, Action::Read).is_ok())
}

async fn respond(call: &Call<'_>, place: &Place, hook: &Hook) -> Outcome<Response> {
    let last = call.registry.hooks().last_try(hook.id).await?;
    Ok(shown(&view::hook(call.links, place, hook, last.as_ref())))
}

/// The webhook that the path names.
async fn find(call: &Call<'_>) -> Outcome<(Place, Hook)> {
    let place = place(call).await?;
    let hook = call.registry.hooks().hook(place.target(), HookId(call.named("hook_id")?)).await?;
    Ok((place, hook))
}

impl Place {
    pub(crate) fn target(&self) -> Target {
        match &self.repository {
            Some(repository) => Target::Repository(repository.id),
            None => Target::Organisation(self.owner.id),
        }
    }
}

/// The repository or organisation that the path names, if the caller administers it.
async fn place(call: &Call<'_>) -> Outcome<Place> {
    if call.has_parameter("org") {
        let owner = call.organisation().await?;
        let administers = match &**call.caller {
            Caller::System => true,
            Caller::Anonymous | Caller::Workflow(_) => false,
            Caller::Signed(signed) => signed.site_admin || signed.role_in(owner.id) == Some(OrganisationRole::Owner),
        };
        return if administers { Ok(Place { owner, repository: None }) } else { Err(Refusal::not_found()) };
    }
    let owner = call.account("owner").await?;
    let repository = known(call.identity().repository(owner.id, &call.named::<RepositoryName>("repo")?).await)?;
    let repository = repository.ok_or_else(Refusal::not_found)?;
    let role = access::role_on_repository(call.caller, &RepositoryPolicy::from(&repository), owner.is_organisation());
    if role >= Some(RepositoryRole::Admin) { Ok(Place { owner, repository: Some(repository) }) } else { Err(Refusal::not_found()) }
}

/// GitHub's answer for a webhook that there is already, or too many of.
fn alike(error: Error) -> Refusal {
    if error.kind() == Kind::Conflict { refuse(error.message().to_owned()) } else { error.into() }
}
