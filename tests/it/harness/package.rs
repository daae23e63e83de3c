//! Packages made on the spot: a manifest, and a tarball that really holds it.

use std::io::Read;

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha512};

/// One version of a package.
#[derive(Clone)]
pub(crate) struct Package {
    /// Name with its scope.
    pub(crate) name: String,
    /// Version number.
    pub(crate) version: String,
    /// What `package.json` in the tarball says.
    pub(crate) manifest: Value,
    /// The gzipped archive.
    pub(crate) tarball: Vec<u8>,
}

impl Package {
    /// A package with one small module that exports its own name and version.
    pub(crate) fn new(name: &str, version: &str) -> Self {
        Self::with(name, version, json!({}), 0)
    }

    /// A package whose manifest holds `more`, and whose tarball holds `bytes` bytes that do not compress.
    pub(crate) fn with(name: &str, version: &str, more: Value, bytes: usize) -> Self {
        let mut manifest =
            json!({ "name": name, "version": version, "description": "a test package", "main": "index.js", "license": "MIT" });
        if let (Some(manifest), Value::Object(more)) = (manifest.as_object_mut(), more) {
            manifest.extend(more);
        }
        let module = format!("module.exports = {};\n", json!(format!("{name}@{version}")));
        let mut files = vec![
            ("package/package.json", serde_json::to_vec_pretty(&manifest).expect("JSON")),
            ("package/index.js", module.into_bytes()),
            ("package/README.md", format!("# {name}\n").into_bytes()),
        ];
        if bytes > 0 {
            files.push(("package/filler.bin", noise(name, version, bytes)));
        }
        let tarball = archive(&files);
        Self { name: name.into(), version: version.into(), manifest, tarball }
    }

    /// The name without its scope.
    pub(crate) fn base(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// `base-version.tgz`.
    pub(crate) fn file(&self) -> String {
        format!("{}-{}.tgz", self.base(), self.version)
    }

    /// Path of the tarball below a registry's base address, with a leading slash.
    pub(crate) fn path(&self) -> String {
        format!("/{}/-/{}", self.name, self.file())
    }

    /// The SHA-512 in the form clients compare.
    pub(crate) fn integrity(&self) -> String {
        integrity(&self.tarball)
    }

    /// The manifest with the `dist` a packument shows.
    pub(crate) fn listed(&self, tarball: &str) -> Value {
        let mut listed = self.manifest.clone();
        listed["_id"] = json!(format!("{}@{}", self.name, self.version));
        listed["dist"] = json!({
            "tarball": tarball,
            "shasum": shasum(&self.tarball),
            "integrity": self.integrity(),
            "fileCount": 3,
            "unpackedSize": self.tarball.len() * 3,
        });
        listed
    }

    /// The body of a publish, as npm sends it.
    pub(crate) fn publish(&self, tag: &str) -> Value {
        let key = format!("{}-{}.tgz", self.name, self.version);
        let mut versions = json!({});
        // The address npm sends is never right; the server makes its own.
        versions[&self.version] = self.listed(&format!("http://elsewhere.invalid/{key}"));
        let mut tags = json!({});
        tags[tag] = json!(self.version);
        let mut attachments = json!({});
        attachments[key] = json!({
            "content_type": "application/octet-stream",
            "data": BASE64_STANDARD.encode(&self.tarball),
            "length": self.tarball.len(),
        });
        json!({
            "_id": self.name,
            "name": self.name,
            "description": "a test package",
            "dist-tags": tags,
            "versions": versions,
            "access": null,
            "_attachments": attachments,
        })
    }
}

/// Bytes that do not compress and differ from package to package.
fn noise(name: &str, version: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut block = Sha512::digest(format!("{name}@{version}")).to_vec();
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = Sha512::digest(&block).to_vec();
    }
    bytes.truncate(length);
    bytes
}

/// A gzipped tar of files.
pub(crate) fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(499_162_500);
        tar.append_data(&mut header, path, bytes.as_slice()).expect("an entry");
    }
    tar.into_inner().expect("a tar").finish().expect("a gzip")
}

/// `sha512-…`, as in `dist.integrity` and lock files.
pub(crate) fn integrity(bytes: &[u8]) -> String {
    format!("sha512-{}", BASE64_STANDARD.encode(Sha512::digest(bytes)))
}

/// SHA-1 in hexadecimal, as in `dist.shasum`.
pub(crate) fn shasum(bytes: &[u8]) -> String {
    hex::encode(Sha1::digest(bytes))
}

/// Undoes a `Content-Encoding: gzip`.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("whole gzip");
    plain
}
