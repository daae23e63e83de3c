//! What webhooks say of a manifest: GitHub's `container_metadata`.
//!
//! Receivers are written against GitHub's schema, so each member has the type that the
//! schema names; what is no address stands nowhere where one is expected.

use serde_json::{Map, Value, json};
use url::Url;

use super::manifest::{Annotations, Descriptor};
use super::record::Record;
use super::refusal::service;
use crate::ecosystem::{Announcement, Told};

/// The announcement of a version.
#[must_use]
pub fn of(told: Told<'_>) -> Announcement {
    // What is stored was written by this server; a record that cannot be read says nothing.
    let record = Record::of(told.version).unwrap_or_default();
    let (name, digest) = (&told.package.name, &told.version.number);
    let tag = told.package.tags.iter().find(|(_, number)| *number == digest).map(|(tag, _)| tag.as_str());
    let host = service(told.base.as_str());
    let package_url = tag.map_or_else(|| format!("{host}/{name}@{digest}"), |tag| format!("{host}/{name}:{tag}"));
    let size = told.version.files.first().map_or(0, |file| file.size);
    let metadata = json!({
        "tag": { "name": tag.unwrap_or_default(), "digest": digest },
        "labels": labels(&record),
        "manifest": {
            "digest": digest,
            "media_type": record.media_type,
            "uri": format!("repositories/{name}/manifests/{digest}"),
            "size": size,
            "config": record.config.as_ref().map_or_else(|| json!({}), descriptor),
            "layers": record.layers.iter().map(descriptor).collect::<Vec<_>>(),
        },
    });
    Announcement {
        installation_command: format!("docker pull {package_url}"),
        package_url,
        downloads: vec![Some(format!("{}/{name}/manifests/{digest}", told.base.as_str()))],
        members: Map::from_iter([("container_metadata".to_owned(), metadata)]),
        ..Announcement::default()
    }
}

fn descriptor(descriptor: &Descriptor) -> Value {
    json!({ "digest": descriptor.digest, "media_type": descriptor.media_type, "size": descriptor.size })
}

/// What the image says of itself, by annotations and by labels.
fn labels(record: &Record) -> Value {
    let all: Annotations = record.labels.iter().chain(&record.annotations).map(|(key, value)| (key.clone(), value.clone())).collect();
    let address = |key: &str| record.said(key).filter(|text| Url::parse(text).is_ok());
    let mut labels = Map::from_iter([
        ("description".to_owned(), json!(record.said("description").unwrap_or_default())),
        ("revision".to_owned(), json!(record.said("revision").unwrap_or_default())),
        ("licenses".to_owned(), json!(record.said("licenses").unwrap_or_default())),
        ("all_labels".to_owned(), json!(all)),
    ]);
    for (member, key) in [("source", "source"), ("image_url", "url")] {
        labels.extend(address(key).map(|address| (member.to_owned(), address.into())));
    }
    Value::Object(labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::Timestamp;
    use crate::digest::Digest;
    use crate::ecosystem::oci::manifest::Manifest;
    use crate::format::BaseUrl;
    use crate::name::{OwnerName, PackageName, Tag};
    use crate::package::{AccountId, File, Package, PackageId, Relations, Version, VersionId, Visibility};

    fn announced(tags: &[&str], labels: &Value) -> Announcement {
        let descriptor = |kind: &str, text: &str| json!({ "mediaType": kind, "digest": Digest::sha256(text.as_bytes()), "size": 4 });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", "config"),
            "layers": [descriptor("a/b", "one"), descriptor("a/b", "two")],
        });
        let manifest = Manifest::parse(None, manifest.to_string().as_bytes()).unwrap();
        let record = Record::new(&manifest, Some(json!({ "config": { "Labels": labels } }).to_string().as_bytes()));
        let digest = Digest::sha256(b"manifest");
        let (number, now) = (digest.to_string(), Timestamp::default());
        let package = Package {
            id: PackageId(1),
            ecosystem: "container".to_owned(),
            name: PackageName::new("acme/app").unwrap(),
            spelling: None,
            owner: AccountId(1),
            visibility: Visibility::Private,
            repository: None,
            repository_scoped: false,
            inherits: false,
            roles: BTreeMap::new(),
            workflows: BTreeMap::new(),
            tags: tags.iter().map(|tag| (Tag::new(tag).unwrap(), number.clone())).collect(),
            rules: crate::rules::Rules::default(),
            stars: BTreeMap::new(),
            versions: 1,
            generation: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let file = File { name: number.clone(), size: 8, sha256: digest, digests: Vec::new(), media_type: record.media_type.clone() };
        let version = Version {
            id: VersionId(2),
            number,
            published_by: AccountId(1),
            created_at: now,
            updated_at: now,
            manifest: record.write().unwrap(),
            files: vec![file],
            relations: Relations::default(),
            deprecated: None,
            unlisted: None,
            deleted_at: None,
            lost_tags: Vec::new(),
            purged: false,
        };
        let (owner, base) = (OwnerName::new("acme").unwrap(), BaseUrl::new("https://packages.example/v2"));
        of(Told { package: &package, version: &version, owner: &owner, base: &base })
    }

    #[test]
    fn an_image_is_told_with_its_tag_labels_and_layers() {
        let labels = json!({
            "org.opencontainers.image.source": "https://packages.example/acme/web",
            "org.opencontainers.image.url": "no address",
            "org.opencontainers.image.licenses": "MIT",
            "maintainer": "ann",
        });
        let told = announced(&["v1", "v2"], &labels);
        assert_eq!(told.installation_command, "docker pull packages.example/acme/app:v1");
        let metadata = &told.members["container_metadata"];
        assert_eq!(metadata["tag"]["name"], "v1");
        let said = &metadata["labels"];
        assert_eq!((&said["source"], &said["licenses"]), (&json!("https://packages.example/acme/web"), &json!("MIT")));
        assert!(said["image_url"].is_null() && said["all_labels"]["maintainer"] == "ann", "{said}");
        let manifest = &metadata["manifest"];
        assert_eq!((&manifest["size"], manifest["layers"].as_array().unwrap().len()), (&json!(8), 2));
        assert_eq!(manifest["config"]["media_type"], "application/vnd.oci.image.config.v1+json");
    }

    #[test]
    fn what_has_no_tag_is_told_by_its_digest() {
        let told = announced(&[], &json!({}));
        let digest = Digest::sha256(b"manifest");
        assert_eq!(told.package_url, format!("packages.example/acme/app@{digest}"));
        assert_eq!(told.members["container_metadata"]["tag"], json!({ "name": "", "digest": digest }));
        assert_eq!(told.downloads, [Some(format!("https://packages.example/v2/acme/app/manifests/{digest}"))]);
    }
}
