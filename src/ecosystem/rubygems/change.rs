//! Yanking a version, and taking that back.

use std::sync::Arc;

use super::{INFO, Tree, field, form, gemspec, route};
use crate::access::{Action, Grant};
use crate::catalog::Head;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Response, StatusCode, reply};
use crate::name::PackageName;
use crate::registry::{Call, Registry, Untagged};

/// What a form names.
struct Named {
    name: PackageName,
    /// The version with its platform.
    number: String,
}

async fn named(call: Call<'_>) -> Result<Named> {
    let form = form(call).await?;
    let missing = |what: &str| Error::invalid(Subject::Request, format!("the form has no {what}"));
    let name = route::gem(field(&form, "gem_name").ok_or_else(|| missing("gem_name"))?)?;
    let version = field(&form, "version").ok_or_else(|| missing("version"))?;
    Ok(Named { name, number: gemspec::number(version, field(&form, "platform").unwrap_or(gemspec::RUBY)) })
}

/// `DELETE /api/v1/gems/yank`: the version leaves every list and cannot be fetched.
///
/// # Errors
/// `NotFound` with the version's name when there is no such version.
pub(super) async fn yank(call: Call<'_>, tree: &Tree) -> Result<Response> {
    let (registry, caller) = (call.registry, Arc::clone(&call.caller));
    let Named { name, number } = named(call).await?;
    let (_, grant) = hosted(registry, tree, &caller, &name, Action::Delete).await?;
    registry.withdraw(&grant, &number).await.map_err(|error| no_version(error, &name, &number))?;
    Ok(reply::text(StatusCode::OK, format!("Successfully deleted gem: {name} ({number})")))
}

/// `PUT /api/v1/gems/unyank`: takes a yank back, which the other clients do by the API.
///
/// # Errors
/// As [`yank`].
pub(super) async fn unyank(call: Call<'_>, tree: &Tree) -> Result<Response> {
    let (registry, caller) = (call.registry, Arc::clone(&call.caller));
    let Named { name, number } = named(call).await?;
    let (_, grant) = hosted(registry, tree, &caller, &name, Action::Admin).await?;
    registry.restore_version(&grant, &number, &Untagged).await.map_err(|error| no_version(error, &name, &number))?;
    Ok(reply::text(StatusCode::OK, format!("Successfully undeleted gem: {name} ({number})")))
}

/// A hosted gem, and the right to do something with it.
///
/// # Errors
/// As [`Registry::grant_in`]; `NotFound` for a gem that is an upstream's.
pub(super) async fn hosted(
    registry: &Registry,
    tree: &Tree,
    caller: &crate::identity::Caller,
    name: &PackageName,
    action: Action,
) -> Result<(Arc<Head>, Grant)> {
    // Reading comes first: what may not be read is not there, whatever else was to be done with it.
    let readable = registry.grant_in(tree.view, INFO.name, caller, name, Action::Read).await;
    let (plan, grant) = match readable {
        Ok((plan, _)) if plan.head().is_some() => registry.grant_in(tree.view, INFO.name, caller, name, action).await?,
        Ok(_) => return Err(absent(name)),
        Err(error) if error.kind() == Kind::NotFound => return Err(absent(name)),
        Err(error) => return Err(error),
    };
    match plan.head() {
        Some(head) => Ok((Arc::clone(head), grant)),
        None => Err(absent(name)),
    }
}

fn absent(name: &PackageName) -> Error {
    Error::not_found(Subject::Package).saying(format!("This gem could not be found: {name}"))
}

fn no_version(error: Error, name: &PackageName, number: &str) -> Error {
    match (error.kind(), error.subject()) {
        (Kind::NotFound, Subject::Version) => {
            Error::not_found(Subject::Version).saying(format!("The version {number} of {name} does not exist or was yanked"))
        }
        _ => error,
    }
}
