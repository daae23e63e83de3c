//! Pushing a package, and the symbols that belong to one: the body is the file, and all else is in it.

use std::sync::Arc;

use serde_json::Map;
use serde_json::value::to_raw_value;

use super::change::{hosted, no_version};
use super::nuspec::Nuspec;
use super::package::{self, Package};
use super::route::{self, Kept};
use super::version::Version;
use super::versions::Versions;
use super::{INFO, Tree, warn};
use crate::access::Action;
use crate::archive::Limits;
use crate::blob::{Lease, Purpose, Staged};
use crate::catalog::Draft;
use crate::digest::Algorithm;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::multipart::{self, Multipart};
use crate::http::{Response, StatusCode, header, reply};
use crate::identity::Caller;
use crate::name::{PackageName, repository_in};
use crate::package::{File, RepositoryId};
use crate::registry::arrival::{Arrival, Arrived};
use crate::registry::publish::{Place, Publishing};
use crate::registry::{Call, Registry};

/// Most parts of a form; clients send one.
const PARTS: usize = 10;

/// `PUT package`.
///
/// # Errors
/// `Unauthenticated` before the body is read; `Unprocessable` for what is no sound package; `Conflict` for a version that
/// was ever published, also with the same bytes.
pub(super) async fn push(call: Call<'_>, tree: &Tree) -> Result<Response> {
    // The id is in the package, so that the right to it is decided after that has come; who may publish nothing is refused at once.
    expect_token(&call)?;
    let (registry, caller, trace) = (call.registry, Arc::clone(&call.caller), call.trace);
    let staged = receive(call).await?;
    let Package { nuspec, shown } = inspect(registry, &staged).await?;
    if nuspec.is_symbols() {
        return Err(refused("this is a package of symbols, which is pushed where the service index says for those"));
    }
    let (name, version) = identity(&nuspec)?;
    let place = tree.owner.as_ref().map_or(Place::Root(None), Place::Owner);
    let publishing = registry.grant_publish::<Versions>(INFO.name, &caller, &name, place).await?;
    trace.note(|notes| notes.package = Some(name.clone()));
    let repository = repository(registry, &caller, &publishing, &nuspec).await?;
    let mut files = vec![file(&name, &version, Kept::Package, staged.size(), staged.digests().sha256)];
    files[0].digests.extend(staged.digests().get(Algorithm::Sha512));
    let mut leases: Vec<Lease> = Vec::new();
    for (kept, bytes) in shown {
        let media_type = if kept == Kept::Icon { package::image_type(&bytes) } else { None };
        let lease = registry.blobs().put(Purpose::Hosted, bytes.into()).await?;
        let mut file = file(&name, &version, kept, lease.size(), *lease.digest());
        if let Some(media_type) = media_type {
            media_type.clone_into(&mut file.media_type);
        }
        files.push(file);
        leases.push(lease);
    }
    leases.push(staged.keep().await?);
    let draft = Draft {
        ecosystem: INFO.name,
        name: name.clone(),
        spelling: PackageName::new(&nuspec.id).ok().filter(|spelling| *spelling != name),
        owner: publishing.owner,
        publisher: publishing.publisher,
        visibility: registry.access().default_visibility,
        repository: repository.linked,
        repository_scoped: false,
        number: version.key(),
        manifest: to_raw_value(&nuspec).map_err(|error| Error::internal(Subject::Version, error))?,
        files,
        tags: Vec::new(),
        first_tag: None,
        part: false,
    };
    registry.publish(&publishing, &draft).await.map_err(|error| match (error.kind(), error.subject()) {
        (Kind::Conflict, Subject::Version) => {
            let text =
                format!("{} {} was pushed before; a version is never replaced, nor its number used again", nuspec.id, version.normalised());
            Error::conflict(Subject::Version, text)
        }
        _ => error,
    })?;
    // The blobs are named by committed rows now; until here the leases kept sweeps away.
    drop(leases);
    let mut response = reply::text(StatusCode::CREATED, format!("{} {} is published\n", nuspec.id, version.normalised()));
    if let Some(said) = repository.said {
        warn(&mut response, &said);
    }
    Ok(response)
}

/// `PUT symbolpackage`: symbols of a version that is there.
///
/// # Errors
/// As [`push`]; `NotFound` when there is no such version, `Conflict` when it has symbols already.
pub(super) async fn push_symbols(call: Call<'_>, tree: &Tree) -> Result<Response> {
    expect_token(&call)?;
    let (registry, caller, trace) = (call.registry, Arc::clone(&call.caller), call.trace);
    let staged = receive(call).await?;
    let Package { nuspec, .. } = inspect(registry, &staged).await?;
    if !nuspec.is_symbols() {
        return Err(refused("this is no package of symbols: its nuspec has to say so by its package type"));
    }
    let (name, version) = identity(&nuspec)?;
    let (head, grant) = hosted(registry, &caller, tree, &name, Action::Write).await?;
    trace.note(|notes| notes.package = Some(name.clone()));
    let number = version.key();
    let known = registry.catalog().version(&grant, &head, &number).await?;
    if known.is_none_or(|known| known.value.deleted_at.is_some()) {
        return Err(no_version(Error::not_found(Subject::Version), &name, &version));
    }
    let publisher = caller.id().ok_or_else(unsigned)?;
    let owner = head.package.owner;
    let publishing = Publishing { grant, owner, publisher, view: tree.view, in_root: false, repository: None };
    let symbols = file(&name, &version, Kept::Symbols, staged.size(), staged.digests().sha256);
    let lease = staged.keep().await?;
    let arrival = Arrival {
        number: &number,
        unit: &number,
        file: Some(symbols),
        facts: Map::new(),
        completes: false,
        replaces: false,
        recurs: false,
        visibility: head.package.visibility,
        holds: &|_| true,
        outdated: &|_| Vec::new(),
    };
    let arrived = registry.arrive(&publishing, &arrival).await;
    drop(lease);
    match arrived {
        Ok(Arrived::New) => {
            Ok(reply::text(StatusCode::CREATED, format!("the symbols of {} {} are published\n", nuspec.id, version.normalised())))
        }
        Ok(Arrived::Known) => Err(have_symbols(&nuspec, &version)),
        Err(error) if error.kind() == Kind::Conflict && error.subject() == Subject::File => Err(have_symbols(&nuspec, &version)),
        Err(error) => Err(error),
    }
}

fn have_symbols(nuspec: &Nuspec, version: &Version) -> Error {
    Error::conflict(Subject::File, format!("{} {} has symbols already", nuspec.id, version.normalised()))
}

fn expect_token(call: &Call<'_>) -> Result<()> {
    if call.caller.id().is_none() { Err(unsigned()) } else { Ok(()) }
}

/// Clients come back without their key when it was refused, and show the second answer.
fn unsigned() -> Error {
    Error::new(Kind::Unauthenticated, Subject::Package)
        .saying("no valid token came along; push with one as the API key, or as the password of the source")
}

fn identity(nuspec: &Nuspec) -> Result<(PackageName, Version)> {
    let name = route::id(&nuspec.id).map_err(|_| refused("the id is none that a package can have"))?;
    Ok((name, nuspec.parsed_version()?))
}

/// The file of a push: alone, or the one part of a form that is not empty.
async fn receive(call: Call<'_>) -> Result<Staged> {
    let (registry, mut body) = (call.registry, call.body);
    let limit = registry.config().publish_limit_bytes;
    body.check_length(limit)?;
    let mut writer = registry.blobs().create(Purpose::Hosted, &[Algorithm::Sha512], limit).await?;
    let Some(boundary) = multipart::boundary(call.headers.get(header::CONTENT_TYPE))? else {
        while let Some(chunk) = body.chunk().await? {
            writer.write(chunk).await?;
        }
        return finish(writer).await;
    };
    let mut form = Multipart::new(body, &boundary, PARTS);
    while let Some(part) = form.part().await? {
        if part.file.as_deref().is_some_and(|file| file.contains(['/', '\\'])) {
            return Err(Error::invalid(Subject::Request, "the form's file has a path for its name"));
        }
        let before = writer.written();
        while let Some(chunk) = form.chunk().await? {
            if before > 0 {
                return Err(Error::invalid(Subject::Request, "the form holds more than one file"));
            }
            writer.write(chunk).await?;
        }
    }
    finish(writer).await
}

async fn finish(writer: crate::blob::BlobWriter) -> Result<Staged> {
    if writer.written() == 0 {
        return Err(Error::invalid(Subject::Request, "the request holds no package"));
    }
    writer.finish().await
}

async fn inspect(registry: &Registry, staged: &Staged) -> Result<Package> {
    let config = registry.config();
    let limits = Limits { entries: config.archive_entries, unpacked_bytes: config.archive_unpacked_bytes };
    let (content, nuspec_bytes) = (staged.open()?, config.publish_metadata_limit_bytes as u64);
    let work = tokio::task::spawn_blocking(move || package::inspect(content, &limits, nuspec_bytes));
    work.await.map_err(|error| Error::internal(Subject::File, error))?
}

fn file(name: &PackageName, version: &Version, kept: Kept, size: u64, sha256: crate::digest::Digest) -> File {
    let media_type = package::media_type(kept).to_owned();
    File { name: route::file(name, &version.key(), kept), size, sha256, digests: Vec::new(), media_type }
}

/// The repository that a package is linked to, or what to say of why it is not.
#[derive(Default)]
struct Linked {
    linked: Option<RepositoryId>,
    said: Option<String>,
}

/// The repository that the package says it comes from, if the publisher may link to it.
async fn repository(registry: &Registry, caller: &Caller, publishing: &Publishing, nuspec: &Nuspec) -> Result<Linked> {
    let declared = nuspec.repository.as_ref().map(|repository| repository.url.as_str());
    for address in declared.into_iter().chain(nuspec.project_url.as_deref()) {
        if let Some((owner, repository)) = repository_in(address)
            && let Some(linked) = registry.linkable(caller, publishing.owner, (&owner, &repository)).await?
        {
            return Ok(Linked { linked: Some(linked), said: None });
        }
    }
    // Who names a repository of the package's own owner means one of this server. Whether there is one is not said.
    let Some((owner, repository)) = declared.and_then(repository_in) else { return Ok(Linked::default()) };
    let login = registry.identity().account(publishing.owner).await?.login;
    let meant = owner.eq_ignore_ascii_case(login.as_str()) && publishing.grant.package().is_none();
    let said =
        meant.then(|| format!("the package is not linked to the repository {owner}/{repository}: there is none that you may write to"));
    Ok(Linked { linked: None, said })
}

fn refused(why: &'static str) -> Error {
    Error::new(Kind::Unprocessable, Subject::File).saying(why)
}
