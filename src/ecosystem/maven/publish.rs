//! Deploying: one file a request, in any order, with neither a beginning nor an end.
//!
//! A version appears with its POM: until that has come, its files wait unseen. Each build of
//! a snapshot is such a unit of its own. A client's metadata says that a unit is whole too, for
//! those that deploy no POM; beyond that it is read and forgotten, because metadata is computed.
//! A checksum is compared with the file it is of, which may come later, and never stored.

use std::io::Read as _;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::metadata::{Metadata, Part, build_value};
use super::plugin::{self, Limits};
use super::pom::Pom;
use super::route::{self, Coordinates, Folder, Shape};
use super::{INFO, Tree, candidates, media_type_of};
use crate::blob::{Purpose, Staged};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Document as _;
use crate::http::{Response, StatusCode, reply};
use crate::name::PackageName;
use crate::package::{File, Version};
use crate::registry::arrival::{Arrival, Arrived};
use crate::registry::publish::{Place, Publishing};
use crate::registry::{Call, Registry};

/// Digests that are kept of a file besides its SHA-256.
const DIGESTS: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha512];

/// Largest checksum file.
const CHECKSUM_BYTES: u64 = 1024;

/// Checksums whose files have not come yet: some clients send both at once. By package, owner and file.
static EARLY: LazyLock<moka::sync::Cache<(PackageName, u64, String, Algorithm), Digest>> =
    LazyLock::new(|| moka::sync::Cache::builder().max_capacity(20_000).time_to_live(Duration::from_secs(600)).build());

pub(super) async fn put(call: Call<'_>, tree: &Tree, path: &[String]) -> Result<Response> {
    let route = route::parse(path)
        .map_err(|_| Error::invalid(Subject::Route, "this is no path of a Maven repository: GROUP/ARTIFACT/VERSION/FILE"))?;
    match (route.target, route.checksum) {
        (route::Target::Metadata(folder), checksum) => metadata(call, tree, &folder, checksum.is_some()).await,
        (route::Target::File(coordinates), Some(algorithm)) => checksum(call, tree, &coordinates, algorithm).await,
        (route::Target::File(coordinates), None) => file(call, tree, &coordinates).await,
    }
}

async fn may_publish(call: &Call<'_>, tree: &Tree, name: &PackageName) -> Result<Publishing> {
    let place = match &tree.owner {
        None => Place::Root(None),
        Some((owner, None)) => Place::Owner(owner),
        Some((owner, Some(repository))) => Place::Repository(owner, repository),
    };
    let publishing = call.registry.grant_publish::<Metadata>(INFO.name, &call.caller, name, place).await?;
    call.trace.note(|notes| notes.package = Some(name.clone()));
    Ok(publishing)
}

async fn file(call: Call<'_>, tree: &Tree, coordinates: &Coordinates) -> Result<Response> {
    let name = coordinates.name()?;
    let shape = coordinates.shape()?;
    let publishing = may_publish(&call, tree, &name).await?;
    let registry = call.registry;
    let staged = receive(call).await?;
    check_early(&name, &publishing, coordinates, &staged)?;
    let facts = facts(registry, coordinates, &shape, &staged).await?;
    let (size, digests) = (staged.size(), staged.digests().clone());
    let stored = File {
        name: coordinates.key(),
        size,
        sha256: digests.sha256,
        digests: DIGESTS.into_iter().filter_map(|algorithm| digests.get(algorithm)).collect(),
        media_type: media_type_of(&coordinates.file).to_owned(),
    };
    // Until the rows that name the blob are committed its lease keeps sweeps away.
    let lease = staged.keep().await?;
    let arrived = arrive(registry, &publishing, coordinates, &shape, stored, facts).await?;
    drop(lease);
    Ok(done(arrived))
}

async fn arrive(
    registry: &Registry,
    publishing: &Publishing,
    coordinates: &Coordinates,
    shape: &Shape<'_>,
    file: File,
    facts: Map<String, Value>,
) -> Result<Arrived> {
    let unit = shape.build.map_or_else(|| coordinates.version.clone(), |build| build_value(&coordinates.version, build));
    let arrival = Arrival {
        number: &coordinates.version,
        unit: &unit,
        file: Some(file),
        facts,
        completes: is_pom(shape),
        recurs: coordinates.is_snapshot(),
        replaces: shape.is_signature() || (coordinates.is_snapshot() && shape.build.is_none()),
        visibility: registry.access().default_visibility,
        holds: &|version| holds(version, coordinates, &unit),
        outdated: &|files| outdated(&coordinates.artifact, &coordinates.version, files, registry.config().builds_per_version),
    };
    registry.arrive(publishing, &arrival).await
}

fn is_pom(shape: &Shape<'_>) -> bool {
    shape.extension == "pom" && shape.classifier.is_none()
}

/// Whether a version that is there holds the unit: of a release it does, of a snapshot if the build's POM is there.
fn holds(version: &Version, coordinates: &Coordinates, unit: &str) -> bool {
    let pom = format!("{}/{}-{unit}.pom", coordinates.version, coordinates.artifact);
    !coordinates.is_snapshot() || version.files.iter().any(|file| file.name == pom)
}

/// The files of builds past the number that is kept.
fn outdated(artifact: &str, version: &str, files: &[File], keep: usize) -> Vec<String> {
    let build =
        |file: &File| route::shape(artifact, version, file.name.rsplit('/').next()?)?.build.map(|build| build_value(version, build));
    let order = |file: &File| {
        let name = file.name.rsplit('/').next()?;
        route::shape(artifact, version, name)?.build.map(|build| (build.timestamp.to_owned(), build.number))
    };
    let mut builds: Vec<_> = files.iter().filter_map(order).collect();
    builds.sort_unstable();
    builds.dedup();
    let Some(oldest) = builds.len().checked_sub(keep.max(1)).and_then(|index| builds.get(index)) else { return Vec::new() };
    let old = |file: &&File| build(file).is_some() && order(file).is_some_and(|at| at < *oldest);
    files.iter().filter(old).map(|file| file.name.clone()).collect()
}

async fn receive(mut call: Call<'_>) -> Result<Staged> {
    let limit = call.registry.config().file_limit_bytes;
    call.body.check_length(limit)?;
    let mut writer = call.registry.blobs().create(Purpose::Hosted, &DIGESTS, limit).await?;
    while let Some(chunk) = call.body.chunk().await? {
        writer.write(chunk).await?;
    }
    writer.finish().await
}

/// What a file says of its version.
async fn facts(registry: &Registry, coordinates: &Coordinates, shape: &Shape<'_>, staged: &Staged) -> Result<Map<String, Value>> {
    let config = registry.config();
    let limit = config.publish_metadata_limit_bytes as u64;
    let mut facts = Map::new();
    if is_pom(shape) {
        if staged.size() > limit {
            return Err(crate::http::upload::too_large(limit));
        }
        let (mut content, coordinates) = (staged.open()?, coordinates.clone());
        let read = move || {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|error| Error::internal(Subject::File, error))?;
            Pom::parse(&bytes, &coordinates)
        };
        let pom = tokio::task::spawn_blocking(read).await.map_err(|error| Error::internal(Subject::File, error))??;
        facts.insert("pom".to_owned(), json!(pom));
    } else if shape.extension == "jar" && shape.classifier.is_none() {
        let (content, limits) = (staged.open()?, Limits { entries: config.archive_entries, descriptor_bytes: limit });
        let read = tokio::task::spawn_blocking(move || plugin::descriptor(content, &limits));
        if let Some(descriptor) = read.await.map_err(|error| Error::internal(Subject::File, error))? {
            facts.insert("plugin".to_owned(), json!(descriptor));
        }
    }
    Ok(facts)
}

/// Compares a file with the checksums that came before it.
fn check_early(name: &PackageName, publishing: &Publishing, coordinates: &Coordinates, staged: &Staged) -> Result<()> {
    for algorithm in DIGESTS.into_iter().chain([Algorithm::Sha256]) {
        let early = EARLY.remove(&early_key(name, publishing, coordinates, algorithm));
        if early.is_some_and(|early| staged.digests().get(algorithm) != Some(early)) {
            return Err(mismatch(coordinates, algorithm));
        }
    }
    Ok(())
}

fn early_key(
    name: &PackageName,
    publishing: &Publishing,
    coordinates: &Coordinates,
    algorithm: Algorithm,
) -> (PackageName, u64, String, Algorithm) {
    (name.clone(), publishing.owner.0, coordinates.key(), algorithm)
}

async fn checksum(call: Call<'_>, tree: &Tree, coordinates: &Coordinates, algorithm: Algorithm) -> Result<Response> {
    let name = coordinates.name()?;
    coordinates.shape()?;
    let publishing = may_publish(&call, tree, &name).await?;
    let registry = call.registry;
    let body = call.body.read(CHECKSUM_BYTES).await?;
    let claimed = std::str::from_utf8(&body).ok().and_then(|text| text.split_ascii_whitespace().next());
    let claimed = claimed.and_then(|hex| Digest::from_hex(algorithm, hex).ok());
    let claimed = claimed.ok_or_else(|| Error::invalid(Subject::Digest, format!("this is no {} checksum", algorithm.name())))?;
    let unit = unit_of(coordinates)?;
    match registry.arrived(&publishing, &unit, &coordinates.version, &coordinates.key()).await? {
        Some(file) if file.digest(algorithm) == Some(claimed) => {}
        Some(_) => return Err(mismatch(coordinates, algorithm)),
        None => EARLY.insert(early_key(&name, &publishing, coordinates, algorithm), claimed),
    }
    Ok(done(Arrived::New))
}

fn unit_of(coordinates: &Coordinates) -> Result<String> {
    let build = coordinates.shape()?.build;
    Ok(build.map_or_else(|| coordinates.version.clone(), |build| build_value(&coordinates.version, build)))
}

fn mismatch(coordinates: &Coordinates, algorithm: Algorithm) -> Error {
    let text = format!("the {} checksum is not that of {}", algorithm.name(), coordinates.file);
    Error::new(Kind::Unprocessable, Subject::Digest).saying(text)
}

/// Takes the word of a client's metadata that units are whole.
async fn metadata(call: Call<'_>, tree: &Tree, folder: &Folder, checksum: bool) -> Result<Response> {
    let registry = call.registry;
    let Some((name, part)) = candidates(folder).next() else {
        // The metadata of a group of one word, which is no package's.
        return match call.caller.id() {
            Some(_) => Ok(done(Arrived::New)),
            None => Err(Error::new(Kind::Unauthenticated, Subject::Package)),
        };
    };
    let publishing = may_publish(&call, tree, &name).await?;
    if checksum {
        // Of metadata that is computed here, a client's checksum says nothing.
        call.body.read(CHECKSUM_BYTES).await?;
        return Ok(done(Arrived::New));
    }
    let body = call.body.read(registry.config().publish_metadata_limit_bytes as u64).await?;
    let sent = Metadata::parse(&name, &part, body)?;
    let named = sent.units();
    for unit in registry.waiting(&publishing).await?.iter().filter(|unit| named.contains(*unit)) {
        let number = match &part {
            Part::Versions => unit,
            Part::Builds(version) => version,
        };
        let arrival = Arrival {
            number,
            unit,
            file: None,
            facts: Map::new(),
            completes: true,
            replaces: false,
            recurs: matches!(part, Part::Builds(_)),
            visibility: registry.access().default_visibility,
            holds: &|_| false,
            outdated: &|_| Vec::new(),
        };
        registry.arrive(&publishing, &arrival).await?;
    }
    Ok(done(Arrived::New))
}

fn done(arrived: Arrived) -> Response {
    reply::empty(if arrived == Arrived::New { StatusCode::CREATED } else { StatusCode::OK })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        let name = format!("1.0-SNAPSHOT/{name}");
        File { sha256: Digest::sha256(name.as_bytes()), name, size: 1, digests: Vec::new(), media_type: String::new() }
    }

    #[test]
    fn the_oldest_builds_go_first() {
        let files: Vec<File> = ["1", "2", "10"]
            .iter()
            .flat_map(|number| ["jar", "pom"].map(|kind| file(&format!("tool-1.0-202611{number:0>2}.000000-{number}.{kind}"))))
            .chain([file("tool-1.0-SNAPSHOT.jar")])
            .collect();
        let gone = |keep| outdated("tool", "1.0-SNAPSHOT", &files, keep);
        assert_eq!(gone(3), [""; 0]);
        let expected = ["jar", "pom"].map(|kind| format!("1.0-SNAPSHOT/tool-1.0-20261101.000000-1.{kind}"));
        assert_eq!(gone(2), expected);
        assert_eq!(gone(1).len(), 4);
        assert_eq!(gone(0).len(), 4, "the newest build always stays");
    }
}
