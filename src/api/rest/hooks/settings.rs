//! What a request's body says of a webhook, checked, with GitHub's errors.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::view::MASK;
use crate::api::rest::fields::Fields;
use crate::api::rest::refusal::{Outcome, Refusal};
use crate::upstream::guard::Guard;
use crate::webhook::record::EVERYTHING;
use crate::webhook::{ContentType, Hook, PackageAction, Secret, Settings, address};

pub(super) const RESOURCE: &str = "Hook";

/// Longest secret, in bytes.
const SECRET_LONGEST: usize = 1024;

/// The events of GitHub's webhooks. Those of packages happen here; the others never do, but
/// whoever sets a webhook up for both need not know that.
const EVENTS: [&str; 74] = [
    "branch_protection_configuration",
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "code_scanning_alert",
    "commit_comment",
    "create",
    "custom_property",
    "custom_property_promoted_to_enterprise",
    "custom_property_values",
    "delete",
    "dependabot_alert",
    "deploy_key",
    "deployment",
    "deployment_protection_rule",
    "deployment_review",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "exemption_request_push_ruleset",
    "exemption_request_secret_scanning",
    "fork",
    "gollum",
    "issue_comment",
    "issue_dependencies",
    "issues",
    "label",
    "member",
    "membership",
    "merge_group",
    "meta",
    "milestone",
    "org_block",
    "organization",
    "package",
    "package_v2",
    "page_build",
    "personal_access_token_request",
    "ping",
    "project",
    "project_card",
    "project_column",
    "projects_v2",
    "projects_v2_item",
    "projects_v2_status_update",
    "public",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_review_thread",
    "push",
    "registry_package",
    "release",
    "repository",
    "repository_advisory",
    "repository_dispatch",
    "repository_import",
    "repository_ruleset",
    "repository_vulnerability_alert",
    "secret_scanning_alert",
    "secret_scanning_alert_location",
    "secret_scanning_scan",
    "security_advisory",
    "security_and_analysis",
    "sponsorship",
    "star",
    "status",
    "sub_issues",
    "team",
    "team_add",
    "watch",
    "workflow_dispatch",
    "workflow_job",
    "workflow_run",
];

/// That a body does not ask for another kind of hook: there is only one.
pub(super) fn check_name(fields: &Fields) -> Outcome<()> {
    match fields.text("name")? {
        None | Some("web") => Ok(()),
        Some(_) => Err(Refusal::invalid_field(RESOURCE, "name", "is web")),
    }
}

/// The `config` of a body as fields of their own.
pub(super) fn config(fields: &Fields) -> Outcome<Option<Fields>> {
    match fields.value("config") {
        None => Ok(None),
        Some(Value::Object(members)) => Ok(Some(Fields::of(RESOURCE, members.clone()))),
        Some(_) => Err(fields.wrong("config", "is an object")),
    }
}

/// What a `config` makes of earlier settings. Where it does not say something, `kept` has it;
/// a mask in place of a secret is what was shown, and means the one that is kept.
pub(super) fn read(config: &Fields, kept: Option<&Settings>, base: Settings, guard: &Guard) -> Outcome<Settings> {
    for name in ["headers", "username", "password"] {
        if config.value(name).is_some() {
            return Err(refuse(format!("The config member {name} is not supported; set a secret and check the signature")));
        }
    }
    let mut settings = base;
    if let Some(url) = config.text("url")? {
        address::read(url, guard).map_err(|refused| refuse(refused.0))?;
        url.clone_into(&mut settings.url);
    }
    if settings.url.is_empty() {
        return Err(Refusal::missing_field(RESOURCE, "url"));
    }
    match config.text("content_type")? {
        None => {}
        Some("json") => settings.content_type = ContentType::Json,
        Some("form") => settings.content_type = ContentType::Form,
        Some(_) => return Err(config.wrong("content_type", "is one of json, form")),
    }
    match config.text("secret")? {
        None => {}
        Some(MASK) => settings.secret = kept.and_then(|kept| kept.secret.clone()),
        Some("") => settings.secret = None,
        Some(text) if text.len() <= SECRET_LONGEST => settings.secret = Some(Secret::new(text)),
        Some(_) => return Err(config.wrong("secret", "has at most 1024 bytes")),
    }
    if let Some(value) = config.value("insecure_ssl") {
        settings.insecure_ssl = yes_or_no(value).ok_or_else(|| config.wrong("insecure_ssl", "is one of 0, 1"))?;
    }
    if let Some(value) = config.value("package_actions") {
        settings.actions = actions(value).ok_or_else(|| {
            let known = PackageAction::ALL.map(PackageAction::name).join(", ");
            config.wrong("package_actions", format!("is a list of {known}"))
        })?;
    }
    match config.text("package_grouping")? {
        None => {}
        Some("version") => settings.whole_publishes = false,
        Some("publish") => settings.whole_publishes = true,
        Some(_) => return Err(config.wrong("package_grouping", "is one of version, publish")),
    }
    Ok(settings)
}

/// GitHub takes and shows texts here; client libraries send numbers too.
fn yes_or_no(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) if text == "0" || text == "1" => Some(text == "1"),
        Value::Number(number) if number.as_u64().is_some_and(|number| number <= 1) => Some(number.as_u64() == Some(1)),
        _ => None,
    }
}

fn actions(value: &Value) -> Option<BTreeSet<PackageAction>> {
    let list = value.as_array()?;
    list.iter().map(|item| PackageAction::ALL.into_iter().find(|action| item.as_str() == Some(action.name()))).collect()
}

/// The events that a field lists, each once, in their order.
pub(super) fn events(fields: &Fields, name: &'static str) -> Outcome<Option<Vec<String>>> {
    let Some(value) = fields.value(name) else { return Ok(None) };
    let list = value.as_array().ok_or_else(|| fields.wrong(name, "is a list of texts"))?;
    let mut events: Vec<String> = Vec::new();
    for item in list {
        let event = item.as_str().ok_or_else(|| fields.wrong(name, "is a list of texts"))?;
        if event != EVERYTHING && !EVENTS.contains(&event) {
            return Err(fields.wrong(name, format!("{event:?} is no event")));
        }
        if !events.iter().any(|known| known == event) {
            events.push(event.to_owned());
        }
    }
    Ok(Some(events))
}

/// Applies `events`, `add_events` and `remove_events` to a webhook's list.
pub(super) fn change_events(fields: &Fields, hook: &mut Hook) -> Outcome<()> {
    if let Some(events) = events(fields, "events")? {
        hook.events = events;
    }
    for event in events(fields, "add_events")?.unwrap_or_default() {
        if !hook.events.contains(&event) {
            hook.events.push(event);
        }
    }
    let gone = events(fields, "remove_events")?.unwrap_or_default();
    hook.events.retain(|event| !gone.contains(event));
    expect_events(hook)
}

/// A webhook without events would be one that nothing is ever sent to.
pub(super) fn expect_events(hook: &Hook) -> Outcome<()> {
    if hook.events.is_empty() { Err(Refusal::invalid_field(RESOURCE, "events", "names at least one event")) } else { Ok(()) }
}

/// 422 in GitHub's form for what is wrong with a webhook as a whole.
pub(super) fn refuse(why: String) -> Refusal {
    Refusal::custom(RESOURCE, why)
}

/// No members at all.
pub(super) fn nothing() -> Fields {
    Fields::of(RESOURCE, Map::new())
}
