//! What webhooks say of a version: GitHub's `nuget_metadata`, a list of names and values.

use serde_json::{Map, Value, json};

use super::entry::Links;
use super::nuspec::{Dependency, Group, Nuspec, Repository};
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
        ("dependencies", Some(&*dependencies(&nuspec))),
        ("tags", Some(&*nuspec.tags.join(" "))),
        ("target_frameworks", Some(&*nuspec.frameworks.join(" "))),
        ("package_types", Some(&*nuspec.package_types.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" "))),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, json!(text?))));
    let repository = nuspec.repository.as_ref().map(|repository| ("repository", told_of(repository)));
    let metadata: Vec<Value> =
        texts.chain(repository).enumerate().map(|(id, (name, value))| json!({ "id": id, "name": name, "value": value })).collect();
    Announcement {
        installation_command: format!("dotnet add package {} --version {}", nuspec.id, nuspec.version),
        package_url: links.file(&told.version.number, Kept::Package),
        prerelease: Version::parse(&told.version.number).is_some_and(|version| version.is_prerelease()),
        downloads: told.version.files.iter().map(address).collect(),
        members: Map::from_iter([("nuget_metadata".to_owned(), metadata.into())]),
        ..Announcement::default()
    }
}

/// A repository, with nothing in it but texts.
fn told_of(repository: &Repository) -> Value {
    let kind = Some(&repository.kind).filter(|kind| !kind.is_empty());
    let members =
        [("type", kind), ("url", Some(&repository.url)), ("branch", repository.branch.as_ref()), ("commit", repository.commit.as_ref())];
    members.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))).collect::<Map<_, _>>().into()
}

/// Dependencies in one text, as the protocol before this one has them: `ID:RANGE:FRAMEWORK|…`, a framework that needs nothing
/// being `::FRAMEWORK`.
fn dependencies(nuspec: &Nuspec) -> String {
    let group = |group: &Group| {
        let framework = group.framework.as_deref().unwrap_or_default();
        let dependency = |one: &Dependency| format!("{}:{}:{framework}", one.id, one.range);
        let none = group.dependencies.is_empty().then(|| format!("::{framework}"));
        group.dependencies.iter().map(dependency).chain(none).collect::<Vec<_>>().join("|")
    };
    nuspec.dependency_groups.iter().map(group).collect::<Vec<_>>().join("|")
}
