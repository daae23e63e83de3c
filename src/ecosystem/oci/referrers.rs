//! The list of manifests that are about another one.
//!
//! It is an index like any other. Registries without this list make their clients keep it
//! themselves, as an index under a tag made from the digest; such an index may have come
//! here with its image, so that what it lists is listed too. Source: OCI Distribution
//! Specification 1.1, «Listing Referrers» and «Referrers Tag Schema».

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::manifest::{Annotations, OCI_INDEX};
use super::record::Record;
use crate::digest::Digest;
use crate::error::Result;
use crate::package::Version;

/// Most entries of one answer.
pub const PAGE: usize = 1000;
/// Most bytes of entries in one answer. Clients stop reading at 4 MiB.
pub const PAGE_BYTES: usize = 2 << 20;

/// An entry: a manifest that is about another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its media type.
    pub media_type: String,
    /// Its digest, which is its place in the list.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
}

impl Entry {
    /// The entry of a version.
    ///
    /// # Errors
    /// When the version's record cannot be read.
    pub fn of(version: &Version) -> Result<Self> {
        let Record { media_type, artifact_type, annotations, .. } = Record::of(version)?;
        let size = version.files.first().map_or(0, |file| file.size);
        Ok(Self { media_type, digest: version.number.clone(), size, artifact_type, annotations })
    }

    /// About how many bytes it takes in an answer.
    #[must_use]
    pub fn weight(&self) -> usize {
        let annotations: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        200 + self.artifact_type.as_ref().map_or(0, String::len) + annotations
    }

    /// Whether it is of a kind; without one every entry is.
    #[must_use]
    pub fn is_of(&self, artifact_type: Option<&str>) -> bool {
        artifact_type.is_none_or(|wanted| self.artifact_type.as_deref() == Some(wanted))
    }
}

/// The digest that a client made a tag from: `sha256-HEX`, with `.sig` or another ending or without. SHA-512 is cut there, so
/// that nothing can be told of it.
#[must_use]
pub fn tag_subject(tag: &str) -> Option<String> {
    let hex = tag.strip_prefix("sha256-")?;
    let hex = hex.split_once('.').map_or(hex, |(hex, _)| hex);
    let digest: Digest = format!("sha256:{hex}").parse().ok()?;
    Some(digest.to_string())
}

/// The tag under which clients keep the list where the registry does not.
#[must_use]
pub fn fallback_tag(digest: &Digest) -> String {
    let encoded = digest.hex();
    format!("{}-{}", digest.algorithm().name(), &encoded[..encoded.len().min(64)])
}

/// The entries of an index.
///
/// # Errors
/// When it is none.
pub fn read(index: &[u8]) -> serde_json::Result<Vec<Entry>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    serde_json::from_slice::<Index>(index).map(|index| index.manifests)
}

/// The entries of an index that a client keeps; what is none has none.
#[must_use]
pub fn kept_by_clients(index: &[u8]) -> Vec<Entry> {
    read(index).unwrap_or_default()
}

/// Entries as an index.
#[must_use]
pub fn write(entries: &[Entry]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_tag_is_the_digest_within_the_length_of_tags() {
        let digest = Digest::sha256(b"");
        assert_eq!(fallback_tag(&digest), format!("sha256-{}", digest.hex()));
        let long: Digest = format!("sha512:{}", "ab".repeat(64)).parse().unwrap();
        assert_eq!(fallback_tag(&long), format!("sha512-{}", "ab".repeat(32)));
    }

    #[test]
    fn a_tag_made_from_a_digest_leads_to_it() {
        let digest = Digest::sha256(b"");
        for ending in ["", ".sig", ".att", ".sbom"] {
            assert_eq!(tag_subject(&format!("{}{ending}", fallback_tag(&digest))), Some(digest.to_string()));
        }
        for other in ["v1", "sha256-", "sha256-abc", "sha512-abc", "latest.sig", &format!("sha256-{}", "G".repeat(64))] {
            assert_eq!(tag_subject(other), None, "{other}");
        }
    }

    #[test]
    fn an_index_of_entries_reads_back() {
        let entry = Entry {
            media_type: "a/b".into(),
            digest: Digest::sha256(b"x").to_string(),
            size: 7,
            artifact_type: Some("t".into()),
            annotations: Annotations::from([("k".into(), "v".into())]),
        };
        assert_eq!(kept_by_clients(&write(std::slice::from_ref(&entry))), std::slice::from_ref(&entry));
        assert!(entry.is_of(None) && entry.is_of(Some("t")) && !entry.is_of(Some("u")));
        for none in [&b""[..], b"{}", b"[]", b"{\"manifests\":[{}]}"] {
            assert!(kept_by_clients(none).is_empty());
        }
        let empty: serde_json::Value = serde_json::from_slice(&write(&[])).unwrap();
        assert_eq!(empty, json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
    }
}
