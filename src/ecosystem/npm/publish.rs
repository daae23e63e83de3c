//! `PUT` to a package: a publish, or a change that carries no attachment.
//!
//! Rights are decided before the body is read. The tarball is decoded, hashed and
//! written while it arrives; nothing of it is kept unless everything about it holds.

use bytes::Bytes;
use serde_json::{Value, json};

use super::attachment::{Attachment, Scanner};
use super::manifest::{self, Body, Publish};
use super::packument::Packument;
use super::tarball::{self, Contents, Limits};
use super::{INFO, change, hosted, route, unsupported_coding};
use crate::access::Action;
use crate::blob::{BlobWriter, Lease, Purpose, Staged};
use crate::catalog::Draft;
use crate::digest::{Algorithm, Digests};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Response, StatusCode, Upload, header, reply};
use crate::identity::Caller;
use crate::name::{OwnerName, PackageName, Tag};
use crate::package::{File, Visibility};
use crate::registry::publish::{Place, Publishing};
use crate::registry::{Call, Registry};

/// Media type of a Sigstore bundle's file among a version's files.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle+json";

/// What a small tarball may unpack to and be looked at without the hop to another thread, which costs as much as unpacking this.
const UNPACKED_HERE_BYTES: u64 = 16 << 10;

/// Answers `PUT /<p>` and `PUT /<p>/-rev/<rev>`.
///
/// # Errors
/// With the rule that is broken; nothing is published then.
pub async fn put(call: Call<'_>, name: &PackageName, revision: Option<&str>) -> Result<Response> {
    if call.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(unsupported_coding());
    }
    let Call { registry, caller, body, trace, .. } = call;
    let may_publish = may_publish(registry, &caller, name).await;
    // Who may only read may still mark the package with a star; anything else ends in this error below.
    if let Err(denied) = &may_publish
        && registry.grant_hosted(INFO.name, &caller, name, Action::Read).await.is_err()
    {
        return Err(denied.repeat());
    }
    trace.note(|notes| notes.package = Some(name.clone()));
    let received = receive(registry, body, may_publish.as_ref().err()).await?;
    let parsed = Body::parse(name, &received.json)?;
    match received.tarball {
        None if parsed.has_attachments() || registry.catalog().head(INFO.name, name).await?.is_none() => {
            Err(Error::invalid(Subject::Request, "the publish has no tarball"))
        }
        None => change::apply(registry, &caller, name, &parsed, revision, may_publish.err()).await,
        Some(tarball) => publish(registry, &caller, name, &parsed, tarball, &may_publish?).await,
    }
}

async fn may_publish(registry: &Registry, caller: &Caller, name: &PackageName) -> Result<Publishing> {
    if registry.catalog().head(INFO.name, name).await?.is_none() {
        route::new_name(name)?;
    }
    let owner = route::scope(name)
        .map(OwnerName::new)
        .transpose()
        .map_err(|rule| Error::invalid(Subject::Owner, format!("the scope of the package is the account that owns it: {rule}")))?;
    registry.grant_publish::<Packument>(INFO.name, caller, name, Place::Root(owner.as_ref())).await
}

/// What came in the body.
struct Received {
    json: Vec<u8>,
    tarball: Option<(Staged, Attachment)>,
}

/// Reads the body; the tarball goes to disk. With `denied`, a tarball ends the reading with that error.
async fn receive(registry: &Registry, mut body: Upload, denied: Option<&Error>) -> Result<Received> {
    let config = registry.config();
    body.check_length(config.publish_limit_bytes)?;
    let mut scanner = Scanner::new(config.publish_metadata_limit_bytes);
    let mut writer: Option<BlobWriter> = None;
    let mut received = 0;
    while let Some(chunk) = body.chunk().await? {
        received += chunk.len() as u64;
        if received > config.publish_limit_bytes {
            return Err(crate::http::upload::too_large(config.publish_limit_bytes));
        }
        let decoded = scanner.feed(&chunk)?;
        if decoded.is_empty() {
            continue;
        }
        if let Some(denied) = denied {
            return Err(denied.repeat());
        }
        if writer.is_none() {
            let digests = [Algorithm::Sha1, Algorithm::Sha512];
            writer = Some(registry.blobs().create(Purpose::Hosted, &digests, config.publish_limit_bytes).await?);
        }
        if let Some(writer) = &mut writer {
            writer.write(decoded.into()).await?;
        }
    }
    let (json, attachment) = scanner.finish()?;
    let tarball = match (writer, attachment) {
        (Some(writer), Some(attachment)) => Some((writer.finish().await?, attachment)),
        (None, Some(_)) => return Err(Error::invalid(Subject::File, "the tarball is empty")),
        _ => None,
    };
    Ok(Received { json, tarball })
}

async fn publish(
    registry: &Registry,
    caller: &Caller,
    name: &PackageName,
    body: &Body<'_>,
    (staged, attachment): (Staged, Attachment),
    publishing: &Publishing,
) -> Result<Response> {
    let publish = body.publish(name)?;
    check_attachment(body, &attachment)?;
    manifest::check_digests(&publish.manifest, staged.digests())?;
    let contents = inspect(registry, &staged).await?;
    manifest::check_contents(&publish, name, &contents)?;
    let (number, tags, digests) = (publish.number.clone(), publish.tags.clone(), staged.digests().clone());
    let repository = match manifest::repository(&publish.manifest) {
        Some((owner, repository)) => registry.linkable(caller, publishing.owner, (&owner, &repository)).await?,
        None => None,
    };
    let visibility = match body.access.as_deref() {
        Some("public") => Visibility::Public,
        Some("restricted" | "private") => Visibility::Private,
        _ => registry.access().default_visibility,
    };
    let login = caller.login().map(OwnerName::as_str).unwrap_or_default();
    let user = hosted::person_record(login, email(registry, caller).await?.as_deref());
    let bundle = bundle(registry, body).await?;
    let manifest = record(publish, name, &digests, &contents, body, &user, bundle.as_ref())?;
    let tarball = file(name, &number, &staged, &digests);
    let (tarball_lease, mut files) = (staged.keep().await?, vec![tarball]);
    if let Some(bundle) = &bundle {
        files.push(File {
            name: format!("{}.sigstore", files[0].name.trim_end_matches(".tgz")),
            size: bundle.lease.size(),
            sha256: *bundle.lease.digest(),
            digests: Vec::new(),
            media_type: BUNDLE.to_owned(),
        });
    }
    let draft = Draft {
        ecosystem: INFO.name,
        name: name.clone(),
        spelling: None,
        owner: publishing.owner,
        publisher: publishing.publisher,
        visibility,
        repository,
        repository_scoped: false,
        number,
        manifest,
        files,
        tags,
        first_tag: Tag::new("latest").ok(),
        part: false,
    };
    let generation = registry.publish(publishing, &draft).await?;
    // The blobs are named by committed rows now; until here the leases kept sweeps away.
    drop((tarball_lease, bundle));
    Ok(changed(name, generation, StatusCode::CREATED))
}

/// The answer to a change: the package's id and its new revision.
///
/// # Errors
/// When the store fails.
pub async fn done(registry: &Registry, name: &PackageName, status: StatusCode) -> Result<Response> {
    let head = registry.catalog().head(INFO.name, name).await?;
    Ok(changed(name, head.map_or(0, |head| head.package.generation), status))
}

fn changed(name: &PackageName, generation: u64, status: StatusCode) -> Response {
    reply::json(status, &json!({ "ok": true, "success": true, "id": name, "rev": hosted::revision(generation) }))
}

fn check_attachment(body: &Body<'_>, attachment: &Attachment) -> Result<()> {
    let described = body.attachments.as_ref().and_then(|all| all.get(&attachment.name));
    if described.and_then(|described| described.length).is_some_and(|length| length != attachment.length) {
        return Err(Error::new(Kind::Unprocessable, Subject::File).saying("the attachment's length is not the length of its data"));
    }
    Ok(())
}

async fn inspect(registry: &Registry, staged: &Staged) -> Result<Contents> {
    let config = registry.config();
    let limits = Limits {
        entries: config.archive_entries,
        unpacked_bytes: config.archive_unpacked_bytes.min(tarball::plausible_bytes(staged.size())),
        manifest_bytes: config.publish_metadata_limit_bytes as u64,
    };
    if let Some(bytes) = staged.bytes() {
        let here = Limits { unpacked_bytes: limits.unpacked_bytes.min(UNPACKED_HERE_BYTES), ..limits };
        match tarball::inspect_bytes(bytes, &here) {
            Err(error) if error.kind() == Kind::TooLarge => {}
            looked => return looked,
        }
    }
    let archive = staged.open()?;
    let work = tokio::task::spawn_blocking(move || tarball::inspect(archive, &limits));
    work.await.map_err(|error| Error::internal(Subject::File, error))?
}

fn record(
    publish: Publish,
    name: &PackageName,
    digests: &Digests,
    contents: &Contents,
    body: &Body<'_>,
    user: &Value,
    bundle: Option<&Bundle>,
) -> Result<Box<serde_json::value::RawValue>> {
    let record = manifest::record(publish, name, digests, contents, body.readme.as_deref(), user)?;
    let Some(bundle) = bundle else { return Ok(record) };
    let internal = |error| Error::internal(Subject::Version, error);
    let mut record: Value = serde_json::from_str(record.get()).map_err(internal)?;
    record["dist"]["attestations"] = json!({ "url": "", "provenance": { "predicateType": bundle.predicate_type } });
    serde_json::value::to_raw_value(&record).map_err(internal)
}

fn file(name: &PackageName, number: &str, staged: &Staged, digests: &Digests) -> File {
    File {
        name: manifest::tarball_name(name, number),
        size: staged.size(),
        sha256: digests.sha256,
        digests: [Algorithm::Sha1, Algorithm::Sha512].into_iter().filter_map(|algorithm| digests.get(algorithm)).collect(),
        media_type: "application/octet-stream".to_owned(),
    }
}

async fn email(registry: &Registry, caller: &Caller) -> Result<Option<String>> {
    match caller.id() {
        Some(id) => Ok(registry.identity().account(id).await?.email),
        None => Ok(None),
    }
}

/// A provenance bundle that came with a publish.
struct Bundle {
    lease: Lease,
    predicate_type: String,
}

async fn bundle(registry: &Registry, body: &Body<'_>) -> Result<Option<Bundle>> {
    let bundles = || body.attachments.iter().flatten().filter(|(name, _)| name.ends_with(".sigstore"));
    let Some((_, attached)) = bundles().next() else { return Ok(None) };
    if bundles().count() > 1 {
        return Err(Error::invalid(Subject::File, "a publish has at most one provenance bundle"));
    }
    let text = attached.data.as_deref().unwrap_or_default();
    let predicate_type = predicate_type(text).ok_or_else(|| Error::invalid(Subject::File, "the provenance bundle cannot be read"))?;
    let lease = registry.blobs().put(Purpose::Hosted, Bytes::copy_from_slice(text.as_bytes())).await?;
    Ok(Some(Bundle { lease, predicate_type }))
}

/// The predicate type of the statement that a Sigstore bundle signs (in-toto Statement in a DSSE envelope).
pub fn predicate_type(bundle: &str) -> Option<String> {
    use base64::Engine as _;
    let bundle: Value = serde_json::from_str(bundle).ok()?;
    let payload = bundle.get("dsseEnvelope")?.get("payload")?.as_str()?;
    let statement = base64::engine::general_purpose::STANDARD.decode(payload).ok()?;
    let statement: Value = serde_json::from_slice(&statement).ok()?;
    statement.get("predicateType")?.as_str().map(str::to_owned)
}
