//! Manifests and indexes: what a registry must know of them, and which it must refuse.
//!
//! A manifest is kept byte for byte; here it is only looked at. Unknown fields, types and
//! empty lists are its publisher's business. What is refused is what two clients could read
//! in two ways, and what an old client would choke on. Source: OCI Image Specification 1.1,
//! `manifest.md` and `image-index.md`; Docker «Image Manifest Version 2, Schema 2».

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result, Subject};

/// Largest manifest, in bytes: what the specification asks every registry to take, and what clients read.
pub const LIMIT_BYTES: u64 = 4 << 20;

/// OCI's image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The configuration of an artifact that has none.
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
/// Configurations that hold labels.
const IMAGE_CONFIGS: [&str; 2] = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Annotations of a manifest.
pub type Annotations = BTreeMap<String, String>;

/// What a manifest says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The media type it is kept and served with.
    pub media_type: &'static str,
    /// What kind of artifact it is; of an image its configuration's type says so.
    pub artifact_type: Option<String>,
    /// The configuration, of an image manifest.
    pub config: Option<Descriptor>,
    /// The layers, in their order.
    pub layers: Vec<Descriptor>,
    /// Content that it names and that has to be there, each once: configuration and layers.
    pub contents: Vec<Digest>,
    /// Manifests that it names and that have to be there, each once.
    pub parts: Vec<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// Its annotations.
    pub annotations: Annotations,
    /// The sizes of configuration and layers added up, in bytes.
    pub size: u64,
}

/// A reference to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Descriptor {
    /// Whether it is the configuration of an image, which holds labels.
    #[must_use]
    pub fn is_image_config(&self) -> bool {
        IMAGE_CONFIGS.contains(&self.media_type.as_str())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    schema_version: serde_json::Value,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<SaidDescriptor>,
    #[serde(default)]
    layers: Option<Vec<SaidDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<SaidDescriptor>>,
    #[serde(default)]
    subject: Option<SaidDescriptor>,
    #[serde(default)]
    annotations: Option<Annotations>,
    /// Schema 1 had these.
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
}

impl SaidDescriptor {
    fn read(&self) -> Result<Descriptor> {
        let digest = super::route::parse_digest(&self.digest).map_err(|_| invalid(format!("{:?} is no digest", self.digest)))?;
        let size = u64::try_from(self.size).map_err(|_| invalid("a descriptor's size is negative"))?;
        Ok(Descriptor { media_type: self.media_type.clone(), digest, size })
    }

    /// Whether the layer is kept elsewhere, at addresses that clients go to themselves.
    fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".rootfs.foreign.")
    }
}

impl Manifest {
    /// Reads a manifest that came with a `Content-Type`.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) of a manifest, with the rule that it breaks.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self> {
        if !is_object(bytes) {
            return Err(invalid("a manifest is a JSON object"));
        }
        let said: Said = serde_json::from_slice(bytes).map_err(|error| invalid(format!("the manifest cannot be read: {error}")))?;
        if said.fs_layers.is_some() || said.schema_version != 2 {
            return Err(invalid("manifests of schema 1 are not taken; the image has to be built or converted by a newer client"));
        }
        let media_type = media_type(content_type, &said)?;
        let is_index = matches!(media_type, OCI_INDEX | DOCKER_LIST);
        if said.manifests.is_some() && (said.layers.is_some() || said.config.is_some()) {
            return Err(invalid("a manifest has either layers or manifests, not both"));
        }
        let mut manifest = Self {
            media_type,
            artifact_type: said.artifact_type.clone().filter(|text| !text.is_empty()),
            config: None,
            layers: Vec::new(),
            contents: Vec::new(),
            parts: Vec::new(),
            subject: said.subject.as_ref().map(|subject| subject.read().map(|subject| subject.digest)).transpose()?,
            annotations: said.annotations.clone().unwrap_or_default(),
            size: 0,
        };
        if is_index {
            manifest.index(&said)?;
        } else {
            manifest.image(&said)?;
        }
        Ok(manifest)
    }

    fn index(&mut self, said: &Said) -> Result<()> {
        let parts = said.manifests.as_ref().ok_or_else(|| invalid("an index has a list of manifests"))?;
        let read = parts.iter().map(|part| part.read().map(|part| part.digest)).collect::<Result<_>>()?;
        self.parts = each_once(read);
        Ok(())
    }

    fn image(&mut self, said: &Said) -> Result<()> {
        let config = said.config.as_ref().ok_or_else(|| invalid("an image manifest has a config"))?.read()?;
        let layers = said.layers.as_ref().ok_or_else(|| invalid("an image manifest has a list of layers"))?;
        if config.media_type == EMPTY_CONFIG && self.artifact_type.is_none() {
            return Err(invalid("a manifest with the empty config says its artifactType"));
        }
        let mut contents = vec![config.digest];
        self.size = config.size;
        for layer in layers {
            let foreign = layer.is_foreign();
            let layer = layer.read()?;
            if !foreign {
                contents.push(layer.digest);
                self.size = self.size.saturating_add(layer.size);
            }
            self.layers.push(layer);
        }
        if self.artifact_type.is_none() && !config.media_type.is_empty() {
            self.artifact_type = Some(config.media_type.clone());
        }
        self.config = Some(config);
        self.contents = each_once(contents);
        Ok(())
    }
}

/// Whether a text could be a JSON object. A list of the members' values would be read as one.
#[must_use]
pub fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

/// The type it is kept with: what the header says and the body does not contradict, or what the body says.
fn media_type(content_type: Option<&str>, said: &Said) -> Result<&'static str> {
    let header = content_type.map(|text| text.split(';').next().unwrap_or_default().trim()).filter(|text| !text.is_empty());
    let body = said.media_type.as_deref().filter(|text| !text.is_empty());
    // A client that sets no type of its own sends what its HTTP library does.
    let header = header.filter(|text| body.is_none() || !["application/json", "application/octet-stream"].contains(text));
    if let (Some(header), Some(body)) = (header, body)
        && !header.eq_ignore_ascii_case(body)
    {
        return Err(invalid(format!("the Content-Type is {header}, and the manifest says {body}")));
    }
    let named = header.or(body).unwrap_or_default();
    let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].into_iter().find(|known| known.eq_ignore_ascii_case(named));
    known.ok_or_else(|| invalid(format!("{named:?} is no type of manifest that is taken here")))
}

fn each_once(digests: Vec<Digest>) -> Vec<Digest> {
    let mut seen = std::collections::HashSet::with_capacity(digests.len());
    digests.into_iter().filter(|digest| seen.insert(*digest)).collect()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(Subject::Manifest, message.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn descriptor(media_type: &str, text: &str) -> Value {
        json!({ "mediaType": media_type, "digest": digest(text), "size": text.len() })
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(IMAGE_CONFIGS[0], "config"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "layer")],
        })
    }

    fn index() -> Value {
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, "a"), descriptor(OCI_MANIFEST, "b")] })
    }

    fn read(content_type: &str, value: &Value) -> Result<Manifest> {
        Manifest::parse(Some(content_type).filter(|text| !text.is_empty()), value.to_string().as_bytes())
    }

    fn with(mut value: Value, key: &str, member: Value) -> Value {
        value[key] = member;
        value
    }

    fn without(mut value: Value, key: &str) -> Value {
        value.as_object_mut().unwrap().remove(key);
        value
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        let found = read(OCI_MANIFEST, &image()).unwrap();
        assert_eq!(found.contents, [digest("config"), digest("layer")]);
        assert_eq!((found.media_type, found.size, found.parts.len()), (OCI_MANIFEST, 11, 0));
        assert!(found.config.is_some_and(|config| config.is_image_config()));
        assert_eq!(found.artifact_type.as_deref(), Some(IMAGE_CONFIGS[0]));
    }

    #[test]
    fn an_index_names_its_parts_each_once() {
        let twice = with(index(), "manifests", json!([descriptor(OCI_MANIFEST, "a"), descriptor(OCI_INDEX, "a"), descriptor("odd", "b")]));
        let found = read(OCI_INDEX, &twice).unwrap();
        assert_eq!(found.parts, [digest("a"), digest("b")]);
        assert_eq!((found.contents.len(), found.artifact_type), (0, None));
        assert!(read(OCI_INDEX, &with(index(), "manifests", json!([]))).is_ok());
    }

    #[test]
    fn a_layer_that_is_the_config_counts_once_and_foreign_ones_not_at_all() {
        let layers = json!([
            descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "far"),
            descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "away"),
            descriptor("application/octet-stream", "config"),
        ]);
        assert_eq!(read(OCI_MANIFEST, &with(image(), "layers", layers)).unwrap().contents, [digest("config")]);
    }

    #[test]
    fn the_type_is_the_headers_and_the_bodys() {
        let charset = format!("{OCI_MANIFEST}; charset=utf-8");
        for content_type in [OCI_MANIFEST, charset.as_str(), "", "application/json"] {
            assert_eq!(read(content_type, &image()).unwrap().media_type, OCI_MANIFEST, "{content_type}");
        }
        assert_eq!(read(OCI_MANIFEST, &without(image(), "mediaType")).unwrap().media_type, OCI_MANIFEST);
        let docker = with(image(), "mediaType", json!(DOCKER_MANIFEST));
        assert_eq!(read(DOCKER_MANIFEST, &docker).unwrap().media_type, DOCKER_MANIFEST);
        for (content_type, value) in [
            (OCI_INDEX, image()),
            (DOCKER_MANIFEST, image()),
            ("", without(image(), "mediaType")),
            ("text/html", without(image(), "mediaType")),
        ] {
            assert!(read(content_type, &value).is_err(), "{content_type}");
        }
    }

    #[test]
    fn oc03_what_can_be_read_in_two_ways_is_refused() {
        let both = with(image(), "manifests", json!([]));
        for content_type in [OCI_MANIFEST, ""] {
            assert!(read(content_type, &both).is_err());
        }
        assert!(read(OCI_INDEX, &with(index(), "layers", json!([]))).is_err());
        assert!(read(OCI_INDEX, &with(index(), "config", descriptor("x", "y"))).is_err());
    }

    #[test]
    fn schema_1_is_refused_whatever_it_is_called() {
        let old = json!({ "schemaVersion": 1, "name": "a/b", "tag": "t", "fsLayers": [], "history": [] });
        for content_type in [
            "application/vnd.docker.distribution.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            OCI_MANIFEST,
            "",
        ] {
            assert!(read(content_type, &old).is_err(), "{content_type}");
        }
        assert!(read(OCI_MANIFEST, &with(image(), "schemaVersion", json!(1))).is_err());
        assert!(read(OCI_MANIFEST, &with(image(), "fsLayers", json!([]))).is_err());
    }

    #[test]
    fn what_lacks_a_part_is_refused() {
        let cases = [
            without(image(), "config"),
            without(image(), "layers"),
            without(image(), "schemaVersion"),
            with(image(), "config", json!({ "mediaType": "x", "digest": "sha256:abc", "size": 1 })),
            with(image(), "config", json!({ "mediaType": "x", "digest": digest("x"), "size": -1 })),
            with(image(), "layers", json!([{ "digest": digest("x") }])),
            with(image(), "layers", json!("none")),
            with(image(), "config", descriptor(EMPTY_CONFIG, "{}")),
            with(image(), "subject", json!({ "digest": "nonsense", "size": 1 })),
            json!([]),
            json!("x"),
        ];
        for value in cases {
            assert!(read(OCI_MANIFEST, &value).is_err(), "{value}");
        }
        assert!(read(OCI_INDEX, &without(index(), "manifests")).is_err());
        for broken in ["", "{", "{}", "\u{feff}{}", "nul"] {
            assert!(Manifest::parse(Some(OCI_MANIFEST), broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_nobody_here_knows_is_taken() {
        let odd = with(with(image(), "extra", json!({ "deep": [1] })), "layers", json!([]));
        assert!(read(OCI_MANIFEST, &odd).is_ok());
        let artifact = with(with(image(), "artifactType", json!("application/vnd.acme")), "config", descriptor(EMPTY_CONFIG, "{}"));
        assert_eq!(read(OCI_MANIFEST, &artifact).unwrap().artifact_type.as_deref(), Some("application/vnd.acme"));
        let about = with(artifact, "subject", descriptor(OCI_MANIFEST, "image"));
        assert_eq!(read(OCI_MANIFEST, &about).unwrap().subject, Some(digest("image")));
    }

    proptest! {
        #[test]
        fn no_manifest_panics(text in "\\PC{0,200}", key in "config|layers|manifests|subject|annotations|schemaVersion|mediaType", value in "null|1|\"x\"|\\[\\]|\\{\\}|\\[null\\]") {
            let _ = Manifest::parse(None, text.as_bytes());
            let member: Value = serde_json::from_str(&value).unwrap();
            let _ = read("", &with(image(), &key, member));
        }
    }
}
