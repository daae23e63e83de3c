//! Pushing a gem: the body is the file, and all else is in it.

use serde_json::value::to_raw_value;

use super::gemspec::Spec;
use super::{INFO, Tree, archive, compact_index::InfoFile, marshal, route};
use crate::blob::{Purpose, Staged};
use crate::catalog::Draft;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Response, StatusCode, reply};
use crate::identity::Caller;
use crate::name::{PackageName, repository_in};
use crate::package::{File, RepositoryId};
use crate::registry::publish::{Place, Publishing};
use crate::registry::{Call, Registry};

/// `POST /api/v1/gems`.
///
/// # Errors
/// `Unauthenticated` before the body is read; `Unprocessable` for what is no sound gem; `Conflict` for other bytes of a
/// version that was ever published, and for a gem whose files would be called as another's.
pub(super) async fn push(call: Call<'_>, tree: &Tree) -> Result<Response> {
    // The name is in the file, so that the right to it is decided after the file has come; who may publish nothing is refused at once.
    if call.caller.id().is_none() {
        return Err(Error::new(Kind::Unauthenticated, Subject::Package).saying("pushing a gem needs a token"));
    }
    let (registry, caller) = (call.registry, std::sync::Arc::clone(&call.caller));
    let trace = call.trace;
    let staged = receive(call).await?;
    let spec = inspect(registry, &staged).await?;
    let name = PackageName::new(&spec.name).map_err(|rule| Error::invalid(Subject::Package, rule.0))?;
    let place = tree.owner.as_ref().map_or(Place::Root(None), Place::Owner);
    let publishing = registry.grant_publish::<InfoFile>(INFO.name, &caller, &name, place).await?;
    trace.note(|notes| notes.package = Some(name.clone()));
    check_collisions(registry, tree, &spec, &name).await?;
    let sha256 = staged.digests().sha256;
    match publish(registry, &caller, &publishing, &spec, staged).await {
        Ok(()) => Ok(reply::text(StatusCode::OK, format!("Successfully registered gem: {} ({})", spec.name, spec.number()))),
        Err(error) if error.kind() == Kind::Conflict && is_same(registry, &publishing, &spec, &sha256).await? => {
            Ok(reply::text(StatusCode::OK, format!("Gem was already pushed: {} ({})", spec.name, spec.number())))
        }
        Err(error) if error.kind() == Kind::Conflict && error.subject() == Subject::Version => {
            let text = format!("Repushing of gem versions is not allowed: {} ({}) exists or was yanked", spec.name, spec.number());
            Err(Error::conflict(Subject::Version, text))
        }
        Err(error) => Err(error),
    }
}

async fn receive(mut call: Call<'_>) -> Result<Staged> {
    let limit = call.registry.config().publish_limit_bytes;
    call.body.check_length(limit)?;
    let mut writer = call.registry.blobs().create(Purpose::Hosted, &[], limit).await?;
    while let Some(chunk) = call.body.chunk().await? {
        writer.write(chunk).await?;
    }
    writer.finish().await
}

async fn inspect(registry: &Registry, staged: &Staged) -> Result<Spec> {
    let (gem, limit) = (staged.open()?, registry.config().publish_metadata_limit_bytes as u64);
    let work = tokio::task::spawn_blocking(move || archive::inspect(gem, limit));
    work.await.map_err(|error| Error::internal(Subject::File, error))?
}

/// Refuses a gem whose files would be called as another's, or whose name differs from another's by case alone.
async fn check_collisions(registry: &Registry, tree: &Tree, spec: &Spec, name: &PackageName) -> Result<()> {
    let full = spec.full_name();
    for other in route::candidates(&full).iter().filter(|other| *other != name) {
        if let Some(head) = registry.catalog().head_in(tree.view, INFO.name, other).await? {
            let grant = crate::access::Grant::system((INFO.name, other, Some(head.package.id)));
            if registry.catalog().file(&grant, &head, &format!("{full}.gem")).await?.is_some() {
                return Err(Error::conflict(Subject::File, format!("{full} is the full name of another gem")));
            }
        }
    }
    let mut variant = false;
    let differs = |other: &PackageName| other != name && other.as_str().eq_ignore_ascii_case(name.as_str());
    registry.catalog().each_head(INFO.name, |head| variant |= differs(&head.package.name)).await?;
    if variant {
        Err(Error::conflict(Subject::Package, format!("there is a gem whose name differs from {name} by case alone")))
    } else {
        Ok(())
    }
}

async fn publish(registry: &Registry, caller: &Caller, publishing: &Publishing, spec: &Spec, staged: Staged) -> Result<()> {
    let full = spec.full_name();
    let quick = registry.blobs().put(Purpose::Hosted, marshal::quick(spec).into()).await?;
    let file =
        |name: String, size, sha256| File { name, size, sha256, digests: Vec::new(), media_type: "application/octet-stream".to_owned() };
    let gem = file(format!("{full}.gem"), staged.size(), staged.digests().sha256);
    let lease = staged.keep().await?;
    let draft = Draft {
        ecosystem: INFO.name,
        name: publishing.grant.name().clone(),
        spelling: None,
        owner: publishing.owner,
        publisher: publishing.publisher,
        visibility: registry.access().default_visibility,
        repository: repository(registry, caller, publishing, spec).await?,
        repository_scoped: false,
        number: spec.number(),
        manifest: to_raw_value(spec).map_err(|error| Error::internal(Subject::Version, error))?,
        files: vec![gem, file(format!("{full}.gemspec.rz"), quick.size(), *quick.digest())],
        tags: Vec::new(),
        first_tag: None,
        part: false,
    };
    registry.publish(publishing, &draft).await?;
    // The blobs are named by committed rows now; until here the leases kept sweeps away.
    drop((lease, quick));
    Ok(())
}

/// The repository that the gem says it comes from, if the publisher may link to it.
async fn repository(registry: &Registry, caller: &Caller, publishing: &Publishing, spec: &Spec) -> Result<Option<RepositoryId>> {
    let named = ["github_repo", "source_code_uri"].into_iter().filter_map(|key| spec.metadata.get(key)).chain(&spec.homepage);
    for address in named {
        if let Some((owner, repository)) = repository_in(address)
            && let Some(id) = registry.linkable(caller, publishing.owner, (&owner, &repository)).await?
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether the version is there with these very bytes.
async fn is_same(registry: &Registry, publishing: &Publishing, spec: &Spec, sha256: &Digest) -> Result<bool> {
    let Some(head) = registry.catalog().head_for(&publishing.grant, publishing.view).await? else { return Ok(false) };
    let file = registry.catalog().file(&publishing.grant, &head, &format!("{}.gem", spec.full_name())).await?;
    Ok(file.is_some_and(|row| row.file.sha256 == *sha256))
}
