//! Rules about a package's tags and versions, which GitHub has nothing like, in the style of its API.
//!
//! - `GET` and `PUT …/{package}/rules` with `immutable_tags`, a list of patterns, and `retention`.
//! - `POST …/{package}/retention` says which versions the rules would let go, and a mark that names them; with that mark
//!   as `apply` it deletes them. Other rules than the package's own can be tried as `retention`.

use serde_json::{Value, json};

use super::fields::Fields;
use super::packages::{find, shown_name};
use super::refusal::{Outcome, Refusal};
use super::view::Shown;
use super::{Call, shown};
use crate::access::Action;
use crate::rules::{Retention, Rules};

const RESOURCE: &str = "Package";

/// Versions that one answer shows; the mark names them all.
const SHOWN_LIMIT: usize = 1000;

pub(super) async fn show(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Read).await?;
    Ok(shown(&found.head.package.rules))
}

pub(super) async fn set(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Admin).await?;
    let fields = call.fields(RESOURCE)?;
    let immutable_tags = part(&fields, "immutable_tags")?.immutable_tags;
    let rules = Rules { immutable_tags, retention: part(&fields, "retention")?.retention };
    call.registry.set_rules(&found.grant, rules.clone()).await?;
    Ok(shown(&rules))
}

pub(super) async fn retain(call: Call<'_>) -> Outcome {
    let found = find(&call, Action::Delete).await?;
    let fields = call.fields(RESOURCE)?;
    let given = part(&fields, "retention")?.retention;
    let retention: Retention =
        given.or_else(|| found.head.package.rules.retention.clone()).ok_or_else(|| Refusal::missing_field(RESOURCE, "retention"))?;
    if let Some(mark) = fields.text("apply")? {
        let count = call.registry.apply(&found.grant, &retention, mark, found.ecosystem).await?;
        return Ok(shown(&json!({ "applied": true, "mark": mark, "delete_count": count })));
    }
    let selection = call.registry.select(&found.grant, &retention, found.ecosystem).await?;
    let name = shown_name(call.registry, &found.owner, found.ecosystem, &found.head.package).await?;
    let package = &found.head.package;
    let mut versions: Vec<Value> = Vec::new();
    for version in selection.gone.iter().take(SHOWN_LIMIT) {
        let downloads = call.registry.catalog().downloads().total(package.id, Some(&version.number)).await?;
        let view = Shown { package, ecosystem: found.ecosystem, name: &name, owner: &found.owner, repository: None, downloads };
        versions.push(view.version(call.links, version));
    }
    Ok(shown(&json!({
        "applied": false,
        "mark": selection.mark,
        "delete_count": selection.gone.len(),
        "keep_count": selection.kept,
        "incomplete_results": selection.gone.len() > versions.len(),
        "versions": versions,
    })))
}

/// Rules of which only one field is read.
fn part(fields: &Fields, name: &'static str) -> Outcome<Rules> {
    let Some(value) = fields.value(name) else { return Ok(Rules::default()) };
    serde_json::from_value(json!({ name: value })).map_err(|error| fields.wrong(name, error.to_string()))
}
