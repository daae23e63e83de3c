//! What is kept of a manifest beside its bytes: what lists and other formats show of it.
//!
//! The record is the version's manifest in the catalog. It holds what is said about the
//! image, by annotations of the manifest and by labels of its configuration, as far as
//! somebody asks for it here, so that a list of ten thousand need not open one manifest.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::manifest::{Annotations, Descriptor, Manifest};
use crate::error::{Error, Result, Subject};
use crate::package::Version;

/// Annotations that are kept of every manifest begin with this.
const OPEN_CONTAINERS: &str = "org.opencontainers.image.";
/// Longest value of an annotation or a label that is kept where nothing refers to it, in bytes.
const VALUE_BYTES: usize = 4096;
/// Room for labels, in bytes; those of images are kept in any case.
const LABELS_BYTES: usize = 16 << 10;
/// Most layers that are kept in a record. What engines run has at most 127.
const LAYERS: usize = 128;
/// Longest description that is shown, in characters, as on GitHub.
const DESCRIPTION_LENGTH: usize = 512;
/// Longest licence that is shown, in characters, as on GitHub.
const LICENSE_LENGTH: usize = 256;

/// What is kept of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Its media type.
    pub media_type: String,
    /// What kind of artifact it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations: all, if it is about another manifest, since they are shown with that; else those of images.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// Labels of its configuration, as far as there is room for them.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub labels: Annotations,
    /// Operating system and architecture, if its configuration says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The sizes of configuration and layers added up, in bytes.
    pub size: u64,
    /// The configuration, of an image manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// The first layers, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
}

/// What an image's configuration says, as far as it is shown.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    os: Option<String>,
    architecture: Option<String>,
    #[serde(rename = "config")]
    runtime: Option<Runtime>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Runtime {
    labels: Option<Annotations>,
}

impl Record {
    /// The record of a manifest; `config` are the bytes of its configuration, where that is an image's.
    #[must_use]
    pub fn new(manifest: &Manifest, config: Option<&[u8]>) -> Self {
        // A configuration is its publisher's; one that cannot be read says nothing.
        let config: Config = config.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        let mut annotations = manifest.annotations.clone();
        if manifest.subject.is_none() {
            annotations.retain(|key, value| is_shown(key, value));
        }
        let mut labels = config.runtime.unwrap_or_default().labels.unwrap_or_default();
        let mut room = LABELS_BYTES;
        labels.retain(|key, value| {
            let weight = key.len() + value.len();
            let fits = is_shown(key, value) || weight <= room;
            room = room.saturating_sub(if fits { weight } else { 0 });
            fits
        });
        Self {
            media_type: manifest.media_type.to_owned(),
            artifact_type: manifest.artifact_type.clone(),
            annotations,
            labels,
            platform: config.os.zip(config.architecture).map(|(os, architecture)| format!("{os}/{architecture}")),
            size: manifest.size,
            config: manifest.config.clone(),
            layers: manifest.layers.iter().take(LAYERS).cloned().collect(),
        }
    }

    /// The record of a version.
    ///
    /// # Errors
    /// When it is none, which is a defect.
    pub fn of(version: &Version) -> Result<Self> {
        serde_json::from_str(version.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))
    }

    /// The record as a version's manifest.
    ///
    /// # Errors
    /// When it cannot be encoded, which is a defect.
    pub fn write(&self) -> Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self).map_err(|error| Error::internal(Subject::Version, error))
    }

    /// What is said of the image under a key of `org.opencontainers.image`: the manifest's own word before its configuration's.
    #[must_use]
    pub fn said(&self, key: &str) -> Option<&str> {
        let key = format!("{OPEN_CONTAINERS}{key}");
        let said = self.annotations.get(&key).or_else(|| self.labels.get(&key));
        said.map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    /// What the image is, in a line or a few.
    #[must_use]
    pub fn description(&self) -> Option<String> {
        self.said("description").map(|text| text.chars().take(DESCRIPTION_LENGTH).collect())
    }

    /// Its licences, as an SPDX expression.
    #[must_use]
    pub fn license(&self) -> Option<String> {
        self.said("licenses").map(|text| text.chars().take(LICENSE_LENGTH).collect())
    }

    /// Owner and name of the repository that its source is in, by the end of the address.
    #[must_use]
    pub fn source(&self) -> Option<(&str, &str)> {
        let address = self.said("source")?;
        let path = address.split_once("://").map_or(address, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        // git@host:OWNER/REPO
        let path = path.split_once(':').map_or(path, |(_, rest)| rest);
        let mut parts = path.trim_matches('/').split('/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let name = name.split(['#', '?']).next()?;
        Some((owner, name.strip_suffix(".git").unwrap_or(name)))
    }
}

fn is_shown(key: &str, value: &str) -> bool {
    key.starts_with(OPEN_CONTAINERS) && value.len() <= VALUE_BYTES
}

#[cfg(test)]
mod tests {
    use super::super::manifest::OCI_MANIFEST;
    use super::*;
    use crate::digest::Digest;

    fn manifest(annotations: &[(&str, &str)], subject: bool) -> Manifest {
        Manifest {
            media_type: OCI_MANIFEST,
            artifact_type: None,
            config: None,
            layers: Vec::new(),
            contents: Vec::new(),
            parts: Vec::new(),
            subject: subject.then(|| Digest::sha256(b"x")),
            annotations: annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            size: 7,
        }
    }

    fn sourced(address: &str) -> Record {
        Record::new(&manifest(&[("org.opencontainers.image.source", address)], false), None)
    }

    #[test]
    fn annotations_speak_before_labels() {
        let config = br#"{"os":"linux","architecture":"arm64","config":{"Labels":{
            "org.opencontainers.image.description":"from the label","org.opencontainers.image.licenses":"MIT","other":"x"}}}"#;
        let record = Record::new(&manifest(&[("org.opencontainers.image.description", " from the annotation ")], false), Some(config));
        assert_eq!(record.description().as_deref(), Some("from the annotation"));
        assert_eq!((record.license().as_deref(), record.platform.as_deref()), (Some("MIT"), Some("linux/arm64")));
        assert_eq!(record.labels.len(), 3);
        for odd in [&b"{}"[..], b"[]", b"nonsense", br#"{"config":{"Labels":null}}"#, br#"{"config":{"Labels":{"a":1}}}"#] {
            assert_eq!(Record::new(&manifest(&[], false), Some(odd)).labels.len(), 0);
        }
    }

    #[test]
    fn long_texts_are_cut_and_other_annotations_kept_only_of_referrers() {
        let long = "ä".repeat(1000);
        let record = Record::new(&manifest(&[("org.opencontainers.image.description", &long), ("a", "b")], false), None);
        assert_eq!(record.description().unwrap().chars().count(), DESCRIPTION_LENGTH);
        assert!(!record.annotations.contains_key("a"));
        let huge = "x".repeat(10_000);
        let record = Record::new(&manifest(&[("a", &huge)], true), None);
        assert_eq!(record.annotations["a"].len(), 10_000);
        assert_eq!(serde_json::from_str::<Record>(record.write().unwrap().get()).unwrap(), record);
    }

    #[test]
    fn a_source_names_a_repository() {
        for address in [
            "https://packages.example/acme/web",
            "https://packages.example/acme/web.git",
            "https://packages.example/acme/web/tree/main",
            "https://packages.example/acme/web#readme",
            "git@packages.example:acme/web.git",
            "ssh://git@packages.example/acme/web",
            "acme/web",
        ] {
            assert_eq!(sourced(address).source(), Some(("acme", "web")), "{address}");
        }
        for address in ["", "https://packages.example", "https://packages.example/acme", "web"] {
            assert_eq!(sourced(address).source(), None, "{address}");
        }
    }
}
