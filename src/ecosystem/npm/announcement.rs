//! What webhooks say of a version: GitHub's `npm_metadata`, from the published manifest.
//!
//! A manifest holds whatever its publisher wrote, and receivers are written against
//! GitHub's schema. So each member has the type that the schema names: what can be
//! read as that type is, and anything else is left out or empty.

use serde_json::{Map, Value, json};

use super::{route, version};
use crate::digest::Algorithm;
use crate::ecosystem::{Announcement, Told};
use crate::package::File;

/// The announcement of a version.
#[must_use]
pub fn of(told: Told<'_>) -> Announcement {
    let manifest: Map<String, Value> = serde_json::from_str(told.version.manifest.get()).unwrap_or_default();
    let (name, number) = (&told.package.name, &told.version.number);
    let installation_command = format!("npm install {name}@{number}");
    let downloads: Vec<Option<String>> = told.version.files.iter().map(|file| download(told, file)).collect();
    let tarball = downloads.iter().flatten().next().cloned().unwrap_or_default();
    let readme = text(&manifest, "readme").map(str::to_owned);
    let mut members = Map::new();
    members.insert("npm_metadata".to_owned(), metadata(told, &manifest, &installation_command, &tarball).into());
    members.insert("manifest".to_owned(), shown(manifest).into());
    Announcement { installation_command, package_url: tarball, readme, prerelease: version::is_prerelease(number), downloads, members }
}

/// Where a tarball is downloaded; other files of a version have addresses of their own kind.
fn download(told: Told<'_>, file: &File) -> Option<String> {
    let name = &told.package.name;
    let is_tarball = file.name == route::tarball_file(name, &told.version.number);
    is_tarball.then(|| format!("{}/{name}/-/{}", told.base.as_str(), file.name))
}

/// The manifest as a text, without the readme, which stands beside it.
fn shown(mut manifest: Map<String, Value>) -> String {
    manifest.remove("readme");
    Value::Object(manifest).to_string()
}

fn metadata(told: Told<'_>, manifest: &Map<String, Value>, installation_command: &str, tarball: &str) -> Map<String, Value> {
    let text = |field: &str| text(manifest, field).unwrap_or_default();
    let mut dist = dist(manifest);
    dist.insert("tarball".to_owned(), tarball.into());
    if let Some(sha1) = told.version.files.iter().flat_map(|file| &file.digests).find(|digest| digest.algorithm() == Algorithm::Sha1) {
        dist.insert("shasum".to_owned(), sha1.hex().into());
    }
    let user = manifest.get("_npmUser").and_then(Value::as_object);
    let login = user.and_then(|user| user.get("name")).and_then(Value::as_str).unwrap_or_default();
    let members = json!({
        "name": told.package.name,
        "version": told.version.number,
        "id": format!("{}@{}", told.package.name, told.version.number),
        "npm_user": login,
        "author": person(manifest.get("author")),
        "bugs": described(manifest.get("bugs"), "url"),
        "dependencies": object(manifest, "dependencies"),
        "dev_dependencies": object(manifest, "devDependencies"),
        "peer_dependencies": object(manifest, "peerDependencies"),
        "optional_dependencies": object(manifest, "optionalDependencies"),
        "description": text("description"),
        "dist": dist,
        "git_head": text("gitHead"),
        "homepage": text("homepage"),
        "license": license(manifest),
        "main": text("main"),
        "repository": described(manifest.get("repository"), "url"),
        "scripts": object(manifest, "scripts"),
        "node_version": text("_nodeVersion"),
        "npm_version": text("_npmVersion"),
        "has_shrinkwrap": manifest.get("_hasShrinkwrap").and_then(Value::as_bool).unwrap_or(false),
        "maintainers": user.map(|user| json!([user])).unwrap_or(json!([])),
        "contributors": people(manifest.get("contributors")),
        "engines": object(manifest, "engines"),
        "keywords": texts(manifest, "keywords"),
        "files": texts(manifest, "files"),
        "bin": bin(manifest, route::bare(&told.package.name)),
        "man": object(manifest, "man"),
        "directories": object(manifest, "directories"),
        "os": texts(manifest, "os"),
        "cpu": texts(manifest, "cpu"),
        "readme": text("readme"),
        "installation_command": installation_command,
        "release_id": 0,
        "commit_oid": text("gitHead"),
        "published_via_actions": false,
        "deleted_by_id": 0,
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// What is said of the tarball, as texts all.
fn dist(manifest: &Map<String, Value>) -> Map<String, Value> {
    let said = manifest.get("dist").and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    said.filter_map(|(name, value)| Some((name.clone(), text(value)?.into()))).collect()
}

fn text<'a>(manifest: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    manifest.get(field).and_then(Value::as_str)
}

fn object(manifest: &Map<String, Value>, field: &str) -> Map<String, Value> {
    manifest.get(field).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A list of texts; one text alone is a list of one.
fn texts(manifest: &Map<String, Value>, field: &str) -> Vec<Value> {
    match manifest.get(field) {
        Some(Value::Array(items)) => items.iter().filter(|item| item.is_string()).cloned().collect(),
        Some(one @ Value::String(_)) => vec![one.clone()],
        _ => Vec::new(),
    }
}

/// An object, or a text that stands for its member `field`; null for what is neither.
fn described(value: Option<&Value>, field: &str) -> Value {
    match value {
        Some(whole @ Value::Object(_)) => whole.clone(),
        Some(Value::String(text)) => json!({ field: text }),
        _ => Value::Null,
    }
}

/// A person as an object, also where it was written `Name <address>`.
fn person(value: Option<&Value>) -> Value {
    let Some(Value::String(text)) = value else { return described(value, "name") };
    match text.split_once('<').and_then(|(name, rest)| Some((name.trim(), rest.split_once('>')?.0))) {
        Some((name, email)) => json!({ "name": name, "email": email }),
        None => json!({ "name": text }),
    }
}

fn people(value: Option<&Value>) -> Vec<Value> {
    let people = value.and_then(Value::as_array).into_iter().flatten();
    people.map(|one| person(Some(one))).filter(Value::is_object).collect()
}

/// The licence's name, also from the older form of an object.
fn license(manifest: &Map<String, Value>) -> &str {
    let field = manifest.get("license");
    field.and_then(|field| field.as_str().or_else(|| field.get("type")?.as_str())).unwrap_or_default()
}

/// Programs by name; a single one is called like the package.
fn bin(manifest: &Map<String, Value>, name: &str) -> Map<String, Value> {
    match manifest.get("bin") {
        Some(Value::Object(programs)) => programs.clone(),
        Some(program @ Value::String(_)) => Map::from_iter([(name.to_owned(), program.clone())]),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;
    use crate::clock::Timestamp;
    use crate::digest::Digest;
    use crate::format::BaseUrl;
    use crate::name::{OwnerName, PackageName};
    use crate::package::{AccountId, Package, PackageId, Relations, Version, VersionId, Visibility};

    fn announced(manifest: &str) -> Announcement {
        let package = Package {
            id: PackageId(1),
            ecosystem: "npm".to_owned(),
            name: PackageName::new("@acme/tool").unwrap(),
            spelling: None,
            owner: AccountId(1),
            visibility: Visibility::Private,
            repository: None,
            repository_scoped: false,
            inherits: false,
            roles: BTreeMap::new(),
            workflows: BTreeMap::new(),
            tags: BTreeMap::new(),
            rules: crate::rules::Rules::default(),
            stars: BTreeMap::new(),
            versions: 1,
            generation: 1,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            deleted_at: None,
        };
        let file = |name: &str| File {
            name: name.to_owned(),
            size: 3,
            sha256: Digest::sha256(b"abc"),
            digests: vec![Digest::from_hex(Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d").unwrap()],
            media_type: String::new(),
        };
        let version = Version {
            id: VersionId(2),
            number: "1.0.0-rc.1".to_owned(),
            published_by: AccountId(1),
            created_at: package.created_at,
            updated_at: package.created_at,
            manifest: RawValue::from_string(manifest.to_owned()).unwrap(),
            files: vec![file("tool-1.0.0-rc.1.tgz"), file("tool-1.0.0-rc.1.sigstore")],
            deprecated: None,
            unlisted: None,
            deleted_at: None,
            purged: false,
            lost_tags: Vec::new(),
            relations: Relations::default(),
        };
        let (owner, base) = (OwnerName::new("acme").unwrap(), BaseUrl::new("http://h/npm"));
        of(Told { package: &package, version: &version, owner: &owner, base: &base })
    }

    #[test]
    fn says_what_the_manifest_says() {
        let said = announced(
            r##"{"name":"@acme/tool","author":"Ann <ann@acme.example>","bin":"cli.js","os":"linux","license":{"type":"MIT"},
                "repository":"github:acme/tool","contributors":["Bob",7],"dependencies":{"a":"1"},"readme":"# tool",
                "_npmUser":{"name":"ann"},"dist":{"tarball":"","integrity":"sha512-x"},"keywords":["k",3]}"##,
        );
        assert_eq!(said.installation_command, "npm install @acme/tool@1.0.0-rc.1");
        assert_eq!(said.downloads, [Some("http://h/npm/@acme/tool/-/tool-1.0.0-rc.1.tgz".to_owned()), None]);
        assert_eq!((said.readme.as_deref(), said.prerelease), (Some("# tool"), true));
        let metadata = &said.members["npm_metadata"];
        assert_eq!(metadata["author"], json!({ "name": "Ann", "email": "ann@acme.example" }));
        assert_eq!(metadata["bin"], json!({ "tool": "cli.js" }));
        assert_eq!((&metadata["os"], &metadata["keywords"]), (&json!(["linux"]), &json!(["k"])));
        assert_eq!((&metadata["license"], &metadata["npm_user"]), (&json!("MIT"), &json!("ann")));
        assert_eq!(metadata["repository"], json!({ "url": "github:acme/tool" }));
        assert_eq!(metadata["contributors"], json!([{ "name": "Bob" }]));
        assert_eq!(metadata["dist"]["shasum"], "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(metadata["dist"]["tarball"], "http://h/npm/@acme/tool/-/tool-1.0.0-rc.1.tgz");
        let manifest: Value = serde_json::from_str(said.members["manifest"].as_str().unwrap()).unwrap();
        assert_eq!((&manifest["dependencies"], manifest.get("readme")), (&json!({ "a": "1" }), None));
    }

    #[test]
    fn nonsense_has_the_types_of_the_schema_all_the_same() {
        for manifest in ["[]", "{}", r#"{"author":7,"bugs":[],"dependencies":"x","keywords":{},"bin":3,"man":[],"description":{}}"#] {
            let metadata = announced(manifest).members["npm_metadata"].clone();
            for field in ["dependencies", "scripts", "engines", "bin", "man", "dist"] {
                assert!(metadata[field].is_object(), "{field}");
            }
            for field in ["description", "license", "main", "readme", "npm_user"] {
                assert!(metadata[field].is_string(), "{field}");
            }
            for field in ["keywords", "files", "os", "cpu", "contributors", "maintainers"] {
                assert!(metadata[field].is_array(), "{field}");
            }
            assert!(metadata["author"].is_null() && metadata["bugs"].is_null());
        }
    }
}
