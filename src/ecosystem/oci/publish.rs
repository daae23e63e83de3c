//! `PUT` of a manifest: what makes a version, or moves a tag.
//!
//! The bytes are kept as they came, under the digest that they have. What the manifest
//! names has to be in the repository already; what it is about need not be. Pushing the
//! same manifest again is no error and changes nothing but its tags. Source: OCI
//! Distribution Specification 1.1, «Pushing manifests».

use super::manifest::{LIMIT_BYTES, Manifest};
use super::record::Record;
use super::route::Reference;
use super::{INFO, LEGACY_HOST, location, placed, publishing, route};
use crate::access::Action;
use crate::blob::Purpose;
use crate::catalog::Draft;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use crate::identity::Caller;
use crate::name::{PackageName, Tag};
use crate::package::{File, RepositoryId};
use crate::registry::publish::Publishing;
use crate::registry::{Call, Content, Needs, Registry, Settings};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Most tags of one push.
const TAGS_LIMIT: usize = 64;
/// Largest configuration that is looked into, in bytes.
const CONFIG_BYTES: u64 = 4 << 20;

/// Answers `PUT /v2/NAME/manifests/REFERENCE`.
///
/// # Errors
/// With the rule that is broken; nothing is published then.
pub async fn put(call: Call<'_>, name: &PackageName, reference: &Reference) -> Result<Response> {
    let publishing = publishing(&call, name).await?;
    let tags = tags(call.query, reference)?;
    let content_type = content_type(call.headers)?.map(str::to_owned);
    let bytes = call.body.read(LIMIT_BYTES).await?;
    let algorithm = match reference {
        Reference::Digest(digest) => digest.algorithm(),
        Reference::Tag(_) => Algorithm::Sha256,
    };
    let digest = digest_of(&bytes, algorithm)?;
    if let Reference::Digest(named) = reference
        && *named != digest
    {
        return Err(Error::invalid(Subject::Digest, "the manifest is not what its digest says"));
    }
    let registry = call.registry;
    let manifest = Manifest::parse(content_type.as_deref(), &bytes)?;
    let config = config(registry, &publishing, &manifest).await?;
    let record = Record::new(&manifest, config.as_deref());
    let is_legacy = call.own_host.is_some_and(|label| label.eq_ignore_ascii_case(LEGACY_HOST));
    let repository = repository(registry, &call.caller, &publishing, &record, is_legacy).await?;
    let lease = registry.blobs().put(Purpose::Hosted, bytes).await?;
    let number = digest.to_string();
    let is_part = tags.is_empty() && manifest.subject.is_none();
    let file = File {
        name: number.clone(),
        size: lease.size(),
        sha256: *lease.digest(),
        digests: Some(digest).filter(|digest| digest != lease.digest()).into_iter().collect(),
        media_type: manifest.media_type.to_owned(),
    };
    let draft = Draft {
        ecosystem: INFO.name,
        name: name.clone(),
        spelling: None,
        owner: publishing.owner,
        publisher: publishing.publisher,
        visibility: registry.access().default_visibility,
        repository,
        repository_scoped: false,
        number,
        manifest: record.write()?,
        files: vec![file],
        tags,
        first_tag: None,
        // What has neither a name nor a subject is what an index names next.
        part: is_part,
    };
    let was_tagged = registry.catalog().head(INFO.name, name).await?.is_some_and(|head| !head.package.tags.is_empty());
    registry.push(&publishing, &draft, &needs(&manifest)).await?;
    // The manifest is named by committed rows now; until here the lease kept sweeps away.
    drop(lease);
    if let Some(repository) = repository {
        link(registry, &call.caller, name, repository, !was_tagged).await?;
    }
    let mut response = placed(StatusCode::CREATED, location(&call.base, &format!("/{name}/manifests/{digest}"))?, &digest)?;
    let text = |text: String| HeaderValue::try_from(text).map_err(|error| Error::internal(Subject::Manifest, error));
    let headers = response.headers_mut();
    if let Some(subject) = manifest.subject {
        // Without this a client keeps the list of referrers itself.
        headers.insert(OCI_SUBJECT, text(subject.to_string())?);
    }
    if let Reference::Digest(_) = reference {
        for tag in &draft.tags {
            headers.append(OCI_TAG, text(tag.to_string())?);
        }
    }
    Ok(response)
}

/// The tags that a push sets: the one it names, or those in its query beside a digest.
fn tags(query: Option<&str>, reference: &Reference) -> Result<Vec<Tag>> {
    if let Reference::Tag(tag) = reference {
        return Ok(vec![tag.clone()]);
    }
    let mut tags: Vec<Tag> = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if key == "tag" {
            let tag = route::parse_tag(&value)?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
    }
    if tags.len() > TAGS_LIMIT {
        return Err(Error::invalid(Subject::Tag, format!("a push sets at most {TAGS_LIMIT} tags")));
    }
    Ok(tags)
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str).transpose();
    value.map_err(|_| Error::invalid(Subject::Manifest, "the Content-Type is malformed"))
}

fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Result<Digest> {
    let mut hasher = Hasher::new(&[algorithm]);
    hasher.update(bytes);
    hasher.finish().get(algorithm).ok_or_else(|| Error::internal(Subject::Digest, "a digest was not computed"))
}

fn needs(manifest: &Manifest) -> Needs {
    Needs {
        contents: manifest.contents.clone(),
        parts: manifest.parts.iter().map(Digest::to_string).collect(),
        subject: manifest.subject.map(|subject| subject.to_string()),
    }
}

/// The bytes of an image's configuration, which says more about the image than its manifest does.
async fn config(registry: &Registry, publishing: &Publishing, manifest: &Manifest) -> Result<Option<bytes::Bytes>> {
    let Some(config) = manifest.config.as_ref().filter(|config| config.is_image_config() && config.size <= CONFIG_BYTES) else {
        return Ok(None);
    };
    let head = registry.catalog().head_for(&publishing.grant, publishing.view).await?;
    match registry.content(&publishing.grant, head.as_deref(), &config.digest).await {
        Ok(artifact) => match artifact.content {
            Content::Blob(blob) if blob.size() <= CONFIG_BYTES => blob.bytes(CONFIG_BYTES).await.map(Some),
            Content::Bytes(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        },
        // That it is not there is said when all that the manifest names is looked for.
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The repository that an image says its source is in; on the host of the older registry the one that its name holds.
async fn repository(
    registry: &Registry,
    caller: &Caller,
    publishing: &Publishing,
    record: &Record,
    is_legacy: bool,
) -> Result<Option<RepositoryId>> {
    let name = publishing.grant.name().as_str();
    let mut parts = name.splitn(3, '/');
    let named = match (parts.next(), parts.next(), parts.next()) {
        (Some(owner), Some(repository), Some(_)) if is_legacy => Some((owner, repository)),
        _ => record.source(),
    };
    match named {
        Some(named) => registry.linkable(caller, publishing.owner, named).await,
        None => Ok(None),
    }
}

/// Links a package that is there and linked to none. It takes over the repository's roles only while it has no tag:
/// until then it is being pushed for the first time, and nobody counts on its own.
async fn link(registry: &Registry, caller: &Caller, name: &PackageName, repository: RepositoryId, inherits: bool) -> Result<()> {
    let unlinked = registry.catalog().head(INFO.name, name).await?.is_some_and(|head| head.package.repository.is_none());
    if !unlinked {
        return Ok(());
    }
    let Ok((_, grant)) = registry.grant_hosted(INFO.name, caller, name, Action::Admin).await else { return Ok(()) };
    let settings = Settings { repository: Some(Some(repository)), inherits: Some(inherits), ..Settings::default() };
    registry.change_settings(&grant, settings).await
}
