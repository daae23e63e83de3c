//! The packument of a hosted package, from its records.
//!
//! A version's record holds the manifest as it was published, plus what the server
//! computed (`dist`, `_id`, `_npmUser`); everything that can change later (tags,
//! deprecation, maintainers, stars) stands in the records' own fields and is laid
//! over the manifest here.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::packument::Packument;
use crate::error::{Error, Result, Subject};
use crate::format::Hosted;
use crate::package::Version;

/// Fields of the newest version that the packument repeats at its top.
const REPEATED: [&str; 8] = ["description", "author", "license", "repository", "homepage", "bugs", "keywords", "readmeFilename"];

/// Longest readme that is kept and shown, in bytes.
pub const README_LIMIT_BYTES: usize = 64 << 10;

/// Builds it.
///
/// # Errors
/// When a stored manifest cannot be read.
pub fn packument(records: Hosted<'_>) -> Result<Packument> {
    let Hosted { package, versions, maintainers } = records;
    let people: Vec<Value> = maintainers.iter().map(|person| person_record(&person.login, person.email.as_deref())).collect();
    let mut manifests = Vec::with_capacity(versions.len());
    let mut time = vec![("created".to_owned(), text(&package.created_at)), ("modified".to_owned(), text(&package.updated_at))];
    for version in versions {
        manifests.push((version.number.clone(), manifest(version, &people)?));
        time.push((version.number.clone(), text(&version.created_at)));
    }
    let tags = package.tags.iter().map(|(tag, number)| (tag.to_string(), number.clone())).collect();

    let shown = package.tags.iter().find(|(tag, _)| tag.as_str() == "latest").map(|(_, number)| number.as_str());
    let newest = versions.iter().find(|version| Some(version.number.as_str()) == shown).or(versions.last());
    let newest: Map<String, Value> = match newest {
        Some(version) => read(version)?,
        None => Map::new(),
    };
    let mut rest = vec![
        ("_id".to_owned(), text(&package.name)),
        ("_rev".to_owned(), text(&revision(package.generation))),
        ("maintainers".to_owned(), text(&people)),
        ("users".to_owned(), text(&package.stars)),
        ("readme".to_owned(), text(&newest.get("readme").and_then(Value::as_str).unwrap_or_default())),
    ];
    rest.extend(REPEATED.iter().filter_map(|field| Some(((*field).to_owned(), text(newest.get(*field)?)))));
    Ok(Packument::build(package.name.clone(), tags, manifests, time, rest))
}

/// A person as npm writes one; an address that is not known is left out.
#[must_use]
pub fn person_record(login: &str, email: Option<&str>) -> Value {
    match email {
        Some(email) => json!({ "name": login, "email": email }),
        None => json!({ "name": login }),
    }
}

/// The `_rev` that stands for a generation of the head.
#[must_use]
pub fn revision(generation: u64) -> String {
    format!("{generation}-{generation:016x}")
}

fn manifest(version: &Version, maintainers: &[Value]) -> Result<Bytes> {
    let mut fields = read(version)?;
    // The readme stands once, at the packument's top, as on the public registry.
    fields.remove("readme");
    fields.insert("maintainers".to_owned(), Value::Array(maintainers.to_vec()));
    match &version.deprecated {
        Some(warning) => fields.insert("deprecated".to_owned(), Value::String(warning.clone())),
        None => fields.remove("deprecated"),
    };
    Ok(text(&fields))
}

fn read(version: &Version) -> Result<Map<String, Value>> {
    serde_json::from_str(version.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))
}

fn text(value: &(impl serde::Serialize + ?Sized)) -> Bytes {
    let mut out = Vec::new();
    // Maps with text keys and our own records always serialise.
    let _ = value.serialize(&mut serde_json::Serializer::new(&mut out));
    out.into()
}
