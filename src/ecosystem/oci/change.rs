//! Deleting: a tag, a manifest with all its tags, content that no manifest names.
//!
//! A deleted manifest is gone at once and can be restored through the API for a while.
//! What another manifest is made of stays until that one is deleted. Source: OCI
//! Distribution Specification 1.1, «Content Management».

use std::sync::Arc;

use super::route::Reference;
use super::scope::Access;
use super::{INFO, hidden, permit, publishing};
use crate::access::{Action, Grant};
use crate::catalog::Head;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Response, StatusCode, reply};
use crate::name::PackageName;
use crate::registry::Call;

/// `DELETE /v2/NAME/manifests/REFERENCE`.
///
/// # Errors
/// With the right that is missing; [`Kind::NotFound`] when there is no such manifest or tag;
/// [`Kind::Conflict`] when another manifest is made of it.
pub async fn delete_manifest(call: &Call<'_>, name: &PackageName, reference: &Reference) -> Result<Response> {
    let (_, grant) =
        call.registry.grant_hosted(INFO.name, &call.caller, name, Action::Delete).await.map_err(|error| hidden(call, error))?;
    permit(call, name, Access::Delete)?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    let unknown = |error: Error| match error.kind() {
        Kind::NotFound if error.subject() != Subject::Package => Error::not_found(Subject::Manifest),
        _ => error,
    };
    match reference {
        Reference::Tag(tag) => call.registry.untag(&grant, tag).await.map_err(unknown)?,
        Reference::Digest(digest) => call.registry.withdraw(&grant, &digest.to_string()).await.map_err(unknown)?,
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// `DELETE /v2/NAME/blobs/DIGEST`.
///
/// # Errors
/// As [`delete_manifest`].
pub async fn delete_blob(call: &Call<'_>, name: &PackageName, digest: &Digest) -> Result<Response> {
    match deletable(call, name).await {
        Ok((head, grant)) => call.registry.give_up_content(&grant, Some(&head), digest).await?,
        // What was sent to a repository that is not there yet can be taken back by its sender.
        Err(error) if error.kind() == Kind::NotFound => {
            let own = publishing(call, name).await.map_err(|_| error)?;
            call.registry.give_up_content(&own.grant, None, digest).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// The right to delete in a repository. Who may not read it is told what is told of none.
async fn deletable(call: &Call<'_>, name: &PackageName) -> Result<(Arc<Head>, Grant)> {
    let granted = async |action| call.registry.grant_hosted(INFO.name, &call.caller, name, action).await;
    granted(Action::Read).await.map_err(|error| hidden(call, error))?;
    let granted = granted(Action::Delete).await?;
    permit(call, name, Access::Delete)?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(granted)
}
