//! What webhooks say of a version: GitHub's `nuget_metadata`, a list of names and values.

use serde_json::{Map, Value, json};

use super::entry::Links;
use super::nuspec_of;
use super::route::{self, Kept};
use super::version::Version;
use crate::ecosystem::{Announcement, Told};
use crate::format::BaseUrl;
use crate::package::File;

/// The announcement of a version.
#[must_use]
pub fn of(told: Told<'_>) -> Announcement {
    let nuspec = nuspec_of(told.version);
    let at = BaseUrl::new(&format!("{}/{}", told.base.as_str(), told.owner));
    let links = Links { at: &at, name: &told.package.name };
    let address = |file: &File| route::of_file(&told.package.name, &file.name).map(|(key, kept)| links.file(key, kept));
    let texts = [
        ("id", Some(nuspec.id.as_str())),
        ("version", Some(nuspec.version.as_str())),
        ("title", nuspec.title.as_deref()),
        ("authors", Some(nuspec.authors.as_str())),
        ("description", nuspec.description.as_deref()),
        ("summary", nuspec.summary.as_deref()),
        ("project_url", nuspec.project_url.as_deref()),
        ("license_expression", nuspec.license_expression.as_deref()),
        ("license_url", nuspec.license_url.as_deref()),
        ("icon_url", nuspec.icon_url.as_deref()),
        ("release_notes", nuspec.release_notes.as_deref()),
        ("copyright", nuspec.copyright.as_deref()),
        ("language", nuspec.language.as_deref()),
        ("min_client_version", nuspec.min_client_version.as_deref()),
        ("repository_url", nuspec.repository.as_ref().map(|repository| repository.url.as_str())),
        ("repository_commit", nuspec.repository.as_ref().and_then(|repository| repository.commit.as_deref())),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, json!(text?))));
    let others = [
        ("tags", json!(nuspec.tags.join(" "))),
        ("dependency_groups", json!({ "groups": nuspec.dependency_groups })),
        ("target_frameworks", json!(nuspec.frameworks.join(" "))),
        ("package_types", json!({ "types": nuspec.package_types })),
    ];
    let metadata: Vec<Value> =
        texts.chain(others).enumerate().map(|(id, (name, value))| json!({ "id": id, "name": name, "value": value })).collect();
    Announcement {
        installation_command: format!("dotnet add package {} --version {}", nuspec.id, nuspec.version),
        package_url: links.file(&told.version.number, Kept::Package),
        prerelease: Version::parse(&told.version.number).is_some_and(|version| version.is_prerelease()),
        downloads: told.version.files.iter().map(address).collect(),
        members: Map::from_iter([("nuget_metadata".to_owned(), metadata.into())]),
        ..Announcement::default()
    }
}
