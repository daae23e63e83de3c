//! The manifest of a publish: what the request says, checked against the tarball.
//!
//! Installers resolve from the packument and not from the tarball, so a manifest
//! that says something else than the `package.json` inside hides what will be
//! installed ("manifest confusion"). Name, version, dependencies and install
//! scripts must therefore agree. Pure: bytes to checked values.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::hosted::README_LIMIT_BYTES;
use super::tarball::Contents;
use super::{route, version};
use crate::digest::{Algorithm, Digest, Digests};
use crate::error::{Error, Kind, Result, Subject};
use crate::name::{PackageName, Tag};

/// The body of a `PUT` to a package, without attachment data.
#[derive(Debug, Deserialize)]
pub struct Body<'a> {
    /// The package's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The same, as CouchDB names it.
    #[serde(rename = "_id", default)]
    pub id: Option<String>,
    /// Tags to set, or all tags.
    #[serde(rename = "dist-tags", default)]
    pub tags: Option<BTreeMap<String, String>>,
    /// Versions: the one to publish, or all of them.
    #[serde(borrow, default)]
    pub versions: Option<BTreeMap<String, &'a RawValue>>,
    /// `public` or `restricted`, for a new package.
    #[serde(default)]
    pub access: Option<String>,
    /// The readme.
    #[serde(default)]
    pub readme: Option<String>,
    /// The package's owners.
    #[serde(default)]
    pub maintainers: Option<Vec<Person>>,
    /// Who marked it with a star.
    #[serde(default)]
    pub users: Option<BTreeMap<String, bool>>,
    /// Attachments by name.
    #[serde(rename = "_attachments", default)]
    pub attachments: Option<BTreeMap<String, Attached>>,
}

/// An owner as clients write one.
#[derive(Debug, Deserialize)]
pub struct Person {
    /// Login.
    pub name: String,
}

/// An attachment's description. The data of a tarball was taken out before.
#[derive(Debug, Deserialize)]
pub struct Attached {
    /// Length of the decoded data in bytes.
    #[serde(default)]
    pub length: Option<u64>,
    /// A signature bundle's text.
    #[serde(default)]
    pub data: Option<String>,
}

/// A checked publish.
#[derive(Debug)]
pub struct Publish {
    /// The version's number.
    pub number: String,
    /// The manifest as it was sent.
    pub manifest: Map<String, Value>,
    /// Tags to point at it.
    pub tags: Vec<Tag>,
}

impl<'a> Body<'a> {
    /// Reads the body of a `PUT` to `name`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is no such body, [`Kind::Unprocessable`] when it is another package's.
    pub fn parse(name: &PackageName, json: &'a [u8]) -> Result<Self> {
        let body: Self = serde_json::from_slice(json)
            .map_err(|error| Error::invalid(Subject::Request, format!("the request body cannot be read: {error}")))?;
        for given in [&body.name, &body.id].into_iter().flatten() {
            if given != name.as_str() {
                return Err(unprocessable(format!("the body is for {given:?}, the address for {:?}", name.as_str())));
            }
        }
        Ok(body)
    }

    /// Whether anything is attached.
    #[must_use]
    pub fn has_attachments(&self) -> bool {
        self.attachments.as_ref().is_some_and(|attachments| !attachments.is_empty())
    }

    /// The version to publish and its tags.
    ///
    /// # Errors
    /// [`Kind::Invalid`] or [`Kind::Unprocessable`] with the rule that is broken.
    pub fn publish(&self, name: &PackageName) -> Result<Publish> {
        let versions = self.versions.as_ref().filter(|versions| versions.len() == 1);
        let Some((key, raw)) = versions.and_then(|versions| versions.first_key_value()) else {
            return Err(unprocessable("a publish has exactly one version"));
        };
        let number = version::identity(key)?;
        let manifest: Map<String, Value> =
            serde_json::from_str(raw.get()).map_err(|_| Error::invalid(Subject::Version, "the version's manifest is not an object"))?;
        let says = |field: &str| manifest.get(field).and_then(Value::as_str);
        if says("name") != Some(name.as_str()) {
            return Err(unprocessable("the manifest's name is not the package's"));
        }
        if says("version").map(version::identity).transpose()?.as_deref() != Some(&number) {
            return Err(unprocessable("the manifest's version is not the version"));
        }
        let mut tags = Vec::new();
        for (tag, target) in self.tags.iter().flatten() {
            version::check_tag(tag)?;
            if version::identity(target).ok().as_deref() != Some(&number) {
                return Err(Error::invalid(Subject::Tag, format!("the dist-tag {tag} points at a version that is not being published")));
            }
            tags.push(Tag::new(tag).map_err(|rule| Error::invalid(Subject::Tag, rule.0))?);
        }
        Ok(Publish { number, manifest, tags })
    }
}

/// Checks the tarball's digests against what the manifest promises.
///
/// # Errors
/// [`Kind::Unprocessable`] when a promise is malformed or not kept.
pub fn check_digests(manifest: &Map<String, Value>, digests: &Digests) -> Result<()> {
    let dist = manifest.get("dist").and_then(Value::as_object);
    let says = |field: &str| dist.and_then(|dist| dist.get(field)).and_then(Value::as_str);
    if let Some(text) = says("integrity") {
        let promise = Digest::from_integrity(text).ok_or_else(|| unprocessable("dist.integrity is malformed"))?;
        if digests.get(promise.algorithm()).is_some_and(|digest| digest != promise) {
            return Err(unprocessable("the tarball does not have the digest that dist.integrity promises"));
        }
    }
    if let Some(text) = says("shasum") {
        let promise = Digest::from_hex(Algorithm::Sha1, text).map_err(|_| unprocessable("dist.shasum is malformed"))?;
        if digests.get(Algorithm::Sha1) != Some(promise) {
            return Err(unprocessable("the tarball does not have the digest that dist.shasum promises"));
        }
    }
    Ok(())
}

/// Checks the manifest against the `package.json` in the tarball.
///
/// # Errors
/// [`Kind::Unprocessable`] with what disagrees.
pub fn check_contents(publish: &Publish, name: &PackageName, contents: &Contents) -> Result<()> {
    let inside = contents.manifest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&contents.manifest);
    let inside: Map<String, Value> =
        serde_json::from_slice(inside).map_err(|error| unprocessable("package.json in the tarball cannot be read").because(error))?;
    let says = |field: &str| inside.get(field).and_then(Value::as_str);
    if says("name") != Some(name.as_str()) {
        return Err(unprocessable("package.json in the tarball has another name"));
    }
    if says("version").and_then(|text| version::identity(text).ok()).as_deref() != Some(&publish.number) {
        return Err(unprocessable("package.json in the tarball has another version"));
    }
    // Clients move optional dependencies about between the two fields, so they count as one.
    for fields in [&["dependencies", "optionalDependencies"][..], &["peerDependencies"][..]] {
        if dependencies(&inside, fields) != dependencies(&publish.manifest, fields) {
            return Err(unprocessable(format!("{} in the manifest and in the tarball's package.json differ", fields[0])));
        }
    }
    // npm itself adds an install script for native code; one may not be hidden.
    for script in ["preinstall", "install", "postinstall"] {
        let has = |manifest: &Map<String, Value>| manifest.get("scripts").and_then(|scripts| scripts.get(script)).is_some();
        if has(&inside) && !has(&publish.manifest) {
            return Err(unprocessable(format!("the tarball's package.json has the script {script}, which the manifest hides")));
        }
    }
    Ok(())
}

fn dependencies(manifest: &Map<String, Value>, fields: &[&str]) -> BTreeMap<String, String> {
    let maps = fields.iter().filter_map(|field| manifest.get(*field).and_then(Value::as_object));
    maps.flatten().filter_map(|(name, range)| Some((name.clone(), range.as_str()?.to_owned()))).collect()
}

/// The manifest as it is kept: what was sent, with what the server computed.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn record(
    publish: Publish,
    name: &PackageName,
    digests: &Digests,
    contents: &Contents,
    readme: Option<&str>,
    user: &Value,
) -> Result<Box<RawValue>> {
    let Publish { number, mut manifest, .. } = publish;
    // Fields that are the server's to write.
    for field in ["_rev", "_attachments", "maintainers", "deprecated"] {
        manifest.remove(field);
    }
    let mut dist = manifest.get("dist").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["signatures", "npm-signature", "attestations"] {
        dist.remove(field);
    }
    dist.insert("tarball".to_owned(), json!(""));
    let text = |algorithm| digests.get(algorithm);
    if let Some(sha512) = text(Algorithm::Sha512) {
        dist.insert("integrity".to_owned(), json!(sha512.to_integrity()));
    }
    if let Some(sha1) = text(Algorithm::Sha1) {
        dist.insert("shasum".to_owned(), json!(sha1.hex()));
    }
    dist.insert("fileCount".to_owned(), json!(contents.files));
    dist.insert("unpackedSize".to_owned(), json!(contents.unpacked_bytes));
    manifest.insert("version".to_owned(), json!(number));
    manifest.insert("_id".to_owned(), json!(format!("{name}@{number}")));
    manifest.insert("_npmUser".to_owned(), user.clone());
    manifest.insert("dist".to_owned(), Value::Object(dist));
    let sent = manifest.get("readme").and_then(Value::as_str).map(str::to_owned).or_else(|| readme.map(str::to_owned));
    let sent = sent.filter(|text| !text.is_empty() && !text.starts_with("ERROR: No README"));
    let readme = sent.or_else(|| contents.readme.as_ref().map(|(_, text)| text.clone()));
    manifest.remove("readme");
    if let Some(readme) = readme {
        manifest.insert("readme".to_owned(), json!(cut(&readme, README_LIMIT_BYTES)));
    }
    if let Some((file, _)) = &contents.readme {
        manifest.entry("readmeFilename").or_insert_with(|| json!(file));
    }
    let text = serde_json::to_string(&manifest).map_err(|error| Error::internal(Subject::Version, error))?;
    RawValue::from_string(text).map_err(|error| Error::internal(Subject::Version, error))
}

/// Owner and name of the repository that the manifest names, however it is written:
/// `github:acme/tool`, `acme/tool`, `git+https://host/acme/tool.git`, `git@host:acme/tool.git`.
#[must_use]
pub fn repository(manifest: &Map<String, Value>) -> Option<(String, String)> {
    let field = manifest.get("repository")?;
    let text = field.as_str().or_else(|| field.get("url")?.as_str())?.trim();
    crate::name::repository_in(text)
}

/// The file name and media type under which a publish keeps its tarball.
#[must_use]
pub fn tarball_name(name: &PackageName, number: &str) -> String {
    route::tarball_file(name, number)
}

fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn unprocessable(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Unprocessable, Subject::Version).saying(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> PackageName {
        PackageName::new("@acme/tool").unwrap()
    }

    fn body(version: &str, manifest: &Value, tag_target: &str) -> Vec<u8> {
        let body = json!({"_id": "@acme/tool", "name": "@acme/tool", "dist-tags": {"latest": tag_target}, "versions": {version: manifest}});
        serde_json::to_vec(&body).unwrap()
    }

    fn publish(manifest: &Value) -> Result<Publish> {
        let bytes = body("1.0.0", manifest, "1.0.0");
        Body::parse(&name(), &bytes)?.publish(&name())
    }

    fn contents(inside: &Value) -> Contents {
        Contents { manifest: serde_json::to_vec(inside).unwrap(), readme: None, files: 1, unpacked_bytes: 2 }
    }

    #[test]
    fn reads_a_publish() {
        let found = publish(&json!({"name": "@acme/tool", "version": "1.0.0"})).unwrap();
        assert_eq!((found.number.as_str(), found.tags.len()), ("1.0.0", 1));
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        assert!(publish(&json!({"name": "other", "version": "1.0.0"})).is_err());
        assert!(publish(&json!({"name": "@acme/tool", "version": "1.0.1"})).is_err());
        assert!(publish(&json!({"name": "@acme/tool"})).is_err());
        assert!(publish(&json!([])).is_err());
        let manifest = json!({"name": "@acme/tool", "version": "1.0.0"});
        for (version, target) in [("1.0.0", "2.0.0"), ("v1", "v1"), ("1.0.0", "latest")] {
            let bytes = body(version, &manifest, target);
            assert!(Body::parse(&name(), &bytes).and_then(|body| body.publish(&name())).is_err(), "{version} {target}");
        }
        let other = PackageName::new("other").unwrap();
        let bytes = body("1.0.0", &manifest, "1.0.0");
        assert_eq!(Body::parse(&other, &bytes).unwrap_err().kind(), Kind::Unprocessable);
        assert!(Body::parse(&name(), b"{").is_err());
    }

    #[test]
    fn the_tarball_must_say_the_same() {
        let manifest = json!({"name": "@acme/tool", "version": "1.0.0", "dependencies": {"a": "1", "b": "2"}, "scripts": {"install": "x"}});
        let check = |inside: Value| check_contents(&publish(&manifest).unwrap(), &name(), &contents(&inside));
        let same = json!({"name": "@acme/tool", "version": "1.0.0", "dependencies": {"a": "1"}, "optionalDependencies": {"b": "2"}});
        assert!(check(same).is_ok(), "optional dependencies count as dependencies, and npm may add an install script");
        for (field, value) in [
            ("name", json!("x")),
            ("version", json!("1.0.1")),
            ("dependencies", json!({"a": "1"})),
            ("peerDependencies", json!({"c": "1"})),
            ("scripts", json!({"postinstall": "evil"})),
        ] {
            let mut inside = manifest.clone();
            inside[field] = value;
            assert!(check(inside).is_err(), "{field}");
        }
    }

    #[test]
    fn finds_the_repository_however_it_is_written() {
        let find = |value: Value| repository(json!({"repository": value}).as_object().unwrap());
        let expected = Some(("acme".to_owned(), "tool".to_owned()));
        for text in [
            "acme/tool",
            "github:acme/tool",
            "https://git.example/acme/tool",
            "git+https://git.example/acme/tool.git",
            "git+ssh://git@git.example/acme/tool.git#main",
            "git@git.example:acme/tool.git",
            "https://git.example/group/acme/tool/",
        ] {
            assert_eq!(find(json!(text)), expected, "{text}");
            assert_eq!(find(json!({"type": "git", "url": text})), expected, "{text}");
        }
        for none in [json!(null), json!(""), json!("tool"), json!("https://git.example"), json!({"url": 3})] {
            assert_eq!(find(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn the_record_holds_what_the_server_computed() {
        let mut sent = publish(&json!({"name": "@acme/tool", "version": "1.0.0", "_rev": "9", "x-custom": 1, "dist": {"tarball": "http://evil/", "signatures": []}})).unwrap();
        sent.manifest.insert("readme".to_owned(), json!("é".repeat(README_LIMIT_BYTES)));
        let mut hasher = crate::digest::Hasher::new(&[Algorithm::Sha1, Algorithm::Sha512]);
        hasher.update(b"abc");
        let record = record(sent, &name(), &hasher.finish(), &contents(&json!({})), None, &json!({"name": "bob"})).unwrap();
        let record: Value = serde_json::from_str(record.get()).unwrap();
        assert_eq!(record["dist"]["tarball"], "");
        assert_eq!(record["dist"]["shasum"], "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!((&record["_id"], &record["x-custom"], &record["_rev"]), (&json!("@acme/tool@1.0.0"), &json!(1), &Value::Null));
        assert_eq!(record["dist"].get("signatures"), None);
        assert!(record["readme"].as_str().unwrap().len() <= README_LIMIT_BYTES);
    }
}
