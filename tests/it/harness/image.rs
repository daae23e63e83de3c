//! Images made on the spot: layers, a configuration, and the manifest that names them.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use super::package::archive;

/// OCI's image manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A layer.
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An image's configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The configuration of what has none.
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Bytes with the digest that names them.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// `sha256:…`, or of another algorithm.
    pub(crate) digest: String,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    /// Bytes named by their SHA-256.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))), bytes }
    }

    /// Bytes named by their SHA-512.
    pub(crate) fn sha512(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { digest: format!("sha512:{}", hex::encode(Sha512::digest(&bytes))), bytes }
    }

    /// Bytes that do not compress and differ from seed to seed.
    pub(crate) fn noise(seed: &str, length: usize) -> Self {
        let mut bytes = Vec::with_capacity(length + 64);
        let mut block = Sha512::digest(seed).to_vec();
        while bytes.len() < length {
            bytes.extend_from_slice(&block);
            block = Sha512::digest(&block).to_vec();
        }
        bytes.truncate(length);
        Self::new(bytes)
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// A manifest with what it names.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Configuration and layers.
    pub(crate) blobs: Vec<Blob>,
    /// The manifest.
    pub(crate) manifest: Blob,
    /// Its media type.
    pub(crate) media_type: &'static str,
}

impl Image {
    /// An image with two layers of its own.
    pub(crate) fn new(seed: &str) -> Self {
        Self::with(seed, &json!({}), &json!({}))
    }

    /// An image with labels, and with more members in its manifest.
    pub(crate) fn with(seed: &str, labels: &Value, more: &Value) -> Self {
        let layers: Vec<Blob> = (0..2).map(|number| layer(seed, number)).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(unpacked).collect::<Vec<_>>() },
            "history": [{ "created_by": seed }],
        });
        Self::of(&Blob::new(config.to_string()), CONFIG, &layers, more)
    }

    /// An artifact: no configuration, one blob of any type.
    pub(crate) fn artifact(seed: &str, artifact_type: &str, more: &Value) -> Self {
        let mut members = json!({ "artifactType": artifact_type });
        members.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        Self::of(&Blob::new("{}"), EMPTY, &[Blob::noise(seed, 300)], &members)
    }

    /// A manifest over a configuration and layers.
    pub(crate) fn of(config: &Blob, config_type: &str, layers: &[Blob], more: &Value) -> Self {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(config_type),
            "layers": layers.iter().map(|layer| layer.descriptor(LAYER)).collect::<Vec<_>>(),
        });
        manifest.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let blobs = [config].into_iter().chain(layers).cloned().collect();
        Self { blobs, manifest: Blob::new(manifest.to_string()), media_type: MANIFEST }
    }

    /// An index over images, with more members.
    pub(crate) fn index(images: &[Self], more: &Value) -> Self {
        let platform = |number: usize| json!({ "os": "linux", "architecture": format!("arch{number}") });
        let manifests = images.iter().enumerate().map(|(number, image)| {
            let mut descriptor = image.descriptor();
            descriptor["platform"] = platform(number);
            descriptor
        });
        let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests.collect::<Vec<_>>() });
        index.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        Self { blobs: Vec::new(), manifest: Blob::new(index.to_string()), media_type: INDEX }
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> Value {
        self.manifest.descriptor(self.media_type)
    }

    /// Its digest.
    pub(crate) fn digest(&self) -> &str {
        &self.manifest.digest
    }
}

/// The digest of what a layer holds once it is decompressed.
fn unpacked(layer: &Blob) -> String {
    let mut archive = Vec::new();
    GzDecoder::new(&layer.bytes[..]).read_to_end(&mut archive).expect("a layer");
    Blob::new(archive).digest
}

fn layer(seed: &str, number: usize) -> Blob {
    let noise = Blob::noise(&format!("{seed} {number}"), 2000);
    Blob::new(archive(&[("etc/issue", format!("{seed} {number}\n").into_bytes()), ("noise", noise.bytes)]))
}
