//! Hiding a version from lists, and showing it again.
//!
//! What clients call deleting takes nothing away here, as on the public registry: a build that was pinned to the
//! version goes on. To remove one for good there is the API.

use std::sync::Arc;

use super::version::Version;
use super::{INFO, Tree};
use crate::access::{Action, Grant};
use crate::catalog::Head;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Response, StatusCode, reply};
use crate::identity::Caller;
use crate::name::PackageName;
use crate::registry::{Call, Registry};

/// `DELETE package/ID/VERSION`: the version is in no search any more, and still restored where it is asked for by number.
///
/// # Errors
/// `NotFound` when there is no such version.
pub(super) async fn unlist(call: &Call<'_>, tree: &Tree, name: &PackageName, version: &Version) -> Result<Response> {
    let (_, grant) = hosted(call.registry, &call.caller, tree, name, Action::Delete).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    call.registry.unlist(&grant, &version.key(), "").await.map_err(|error| no_version(error, name, version))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST package/ID/VERSION`.
///
/// # Errors
/// As [`unlist`].
pub(super) async fn relist(call: &Call<'_>, tree: &Tree, name: &PackageName, version: &Version) -> Result<Response> {
    let (_, grant) = hosted(call.registry, &call.caller, tree, name, Action::Admin).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    call.registry.relist(&grant, &version.key()).await.map_err(|error| no_version(error, name, version))?;
    Ok(reply::empty(StatusCode::OK))
}

/// A hosted package, and the right to do something with it.
///
/// # Errors
/// `Unauthenticated` without a token; as [`Registry::grant_in`], and `NotFound` for a
/// package that is an upstream's.
pub(super) async fn hosted(
    registry: &Registry,
    caller: &Caller,
    tree: &Tree,
    name: &PackageName,
    action: Action,
) -> Result<(Arc<Head>, Grant)> {
    if caller.token().is_none() {
        return Err(Error::new(Kind::Unauthenticated, Subject::Package)
            .saying("no valid token came along; send one as the API key, or as the password of the source"));
    }
    // Reading comes first: what may not be read is not there, whatever else was to be done with it.
    let absent = || Error::not_found(Subject::Package).saying(format!("there is no package {name} here"));
    let granted = async |action| registry.grant_in(tree.view, INFO.name, caller, name, action).await;
    let (plan, grant) = match granted(Action::Read).await {
        Ok((plan, _)) if plan.head().is_some() => granted(action).await?,
        Ok(_) => return Err(absent()),
        Err(error) if error.kind() == Kind::NotFound => return Err(absent()),
        Err(error) => return Err(error),
    };
    match plan.head() {
        Some(head) => Ok((Arc::clone(head), grant)),
        None => Err(absent()),
    }
}

pub(super) fn no_version(error: Error, name: &PackageName, version: &Version) -> Error {
    match (error.kind(), error.subject()) {
        (Kind::NotFound, Subject::Version) => {
            Error::not_found(Subject::Version).saying(format!("there is no version {} of {name}", version.normalised()))
        }
        _ => error,
    }
}
