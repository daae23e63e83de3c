//! Packuments: npm's index document of one package.
//!
//! The largest are tens of megabytes, so a packument is never a tree in memory. It
//! is kept as the bytes it came in, cut once into versions; each version remembers
//! where its `dist.tarball` stands. Rendering copies the bytes and writes our
//! address into that place, so every field that we do not know survives.
//!
//! There are two forms. The full one is what the registry holds. The abbreviated
//! one keeps what an installer needs; npm calls it "corgi".
//! Source: the npm registry's package metadata document, and what clients read of it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::route;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result, Subject};
use crate::format::{Ask, BaseUrl, Document, Facts, Hosted, Promise};
use crate::name::PackageName;

#[cfg(test)]
mod tests;

/// The media type of the abbreviated form.
pub const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";

/// A representation of a packument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Everything.
    Full,
    /// What an installer needs.
    Abbreviated,
}

/// A package's index document.
#[derive(Clone, Debug)]
pub struct Packument {
    name: PackageName,
    tags: Vec<(String, String)>,
    versions: Vec<VersionEntry>,
    /// Publication times as they stand: values are JSON texts.
    time: Vec<(String, Bytes)>,
    /// All other top-level fields as they stand, in their order.
    rest: Vec<(String, Bytes)>,
}

/// One version: its manifest's bytes, and the places in it that hold addresses.
#[derive(Clone, Debug)]
struct VersionEntry {
    number: String,
    manifest: Bytes,
    tarball: Option<Range<usize>>,
    attestations: Option<Range<usize>>,
    /// Addresses under a repeated key that a later one overrides. No honest document has any.
    overridden: Vec<Range<usize>>,
}

/// Version fields of the abbreviated form. `hasInstallScript` is computed instead of copied.
const ABBREVIATED_FIELDS: [&str; 18] = [
    "name",
    "version",
    "dist",
    "deprecated",
    "dependencies",
    "optionalDependencies",
    "devDependencies",
    "peerDependencies",
    "peerDependenciesMeta",
    "acceptDependencies",
    "bundleDependencies",
    "bin",
    "directories",
    "engines",
    "os",
    "cpu",
    "libc",
    "funding",
];

impl Document for Packument {
    type Guide = ();
    type Part = ();

    type Form = Form;

    fn ask(name: &PackageName, (): &(), (): &()) -> Ask {
        // The full form serves both of ours; the slash is escaped as npm itself does.
        Ask { path: name.as_str().replace('/', "%2f"), accept: "application/json", grows: false }
    }

    fn parse(name: &PackageName, (): &(), bytes: Bytes) -> Result<Self> {
        let bad = |what: &'static str| Error::invalid(Subject::Package, what);
        let top: Fields<'_> = serde_json::from_slice(&bytes).map_err(|error| bad("not a packument").because(error))?;
        let mut packument = Self { name: name.clone(), tags: Vec::new(), versions: Vec::new(), time: Vec::new(), rest: Vec::new() };
        let mut named = false;
        for (key, raw) in &last_of_each(top.0) {
            match key.as_ref() {
                "name" => {
                    let given: Cow<'_, str> = serde_json::from_str(raw.get()).map_err(|_| bad("a packument's name is a text"))?;
                    if given != name.as_str() {
                        return Err(bad("the packument is another package's"));
                    }
                    named = true;
                }
                "dist-tags" => {
                    packument.tags = last_of_each(texts(raw).ok_or_else(|| bad("dist-tags are not a map of texts"))?);
                }
                "versions" => {
                    let versions: Fields<'_> = serde_json::from_str(raw.get()).map_err(|_| bad("versions are not a map"))?;
                    let versions = last_of_each(versions.0);
                    packument.versions = versions.iter().map(|(number, raw)| VersionEntry::cut(&bytes, number, raw)).collect();
                }
                "time" => {
                    let time: Fields<'_> = serde_json::from_str(raw.get()).map_err(|_| bad("time is not a map"))?;
                    packument.time = last_of_each(time.0).iter().map(|(key, raw)| (key.to_string(), slice(&bytes, raw))).collect();
                }
                _ => packument.rest.push((key.to_string(), slice(&bytes, raw))),
            }
        }
        if !named {
            return Err(bad("the packument has no name"));
        }
        Ok(packument)
    }

    fn hosted(records: Hosted<'_>, (): &()) -> Result<Self> {
        super::hosted::packument(records)
    }

    fn over(mut self, lower: Self) -> Self {
        let ours: HashSet<String> = self.versions.iter().map(|version| version.number.clone()).collect();
        self.versions.extend(lower.versions.into_iter().filter(|version| !ours.contains(&version.number)));
        add_missing(&mut self.time, lower.time);
        add_missing(&mut self.tags, lower.tags);
        add_missing(&mut self.rest, lower.rest);
        self
    }

    fn keep(&mut self, rule: &dyn Fn(&Facts<'_>) -> bool) {
        let times: HashMap<&str, &Bytes> = self.time.iter().map(|(key, raw)| (key.as_str(), raw)).collect();
        let published = |number: &str| serde_json::from_slice::<String>(times.get(number)?).ok();
        let before = self.versions.len();
        self.versions.retain(|version| rule(&Facts { version: &version.number, published: published(&version.number).as_deref() }));
        if self.versions.len() != before {
            self.mend();
        }
    }

    fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    fn promise(&self, file: &str, (): &()) -> Option<Promise> {
        let number = route::version_in_file(&self.name, file);
        let canonical = number.and_then(|number| self.versions.iter().find(|version| version.number == number));
        let version = canonical.or_else(|| self.versions.iter().find(|version| version.upstream_file().as_deref() == Some(file)))?;
        Some(Promise { version: version.number.clone(), url: version.tarball_url()?, digests: version.digests() })
    }

    fn is_download(file: &str) -> bool {
        file.strip_suffix(".tgz").is_some()
    }

    fn render(&self, at: &BaseUrl, form: Self::Form) -> Bytes {
        let mut out = Vec::with_capacity(self.versions.iter().map(|version| version.manifest.len() + 64).sum::<usize>() + 1024);
        out.push(b'{');
        write_text(&mut out, "name");
        out.push(b':');
        write_text(&mut out, self.name.as_str());
        match form {
            Form::Full => self.rest.iter().for_each(|(key, raw)| write_field(&mut out, key, raw)),
            Form::Abbreviated => {
                if let Some(modified) = self.modified() {
                    write_field(&mut out, "modified", &modified);
                }
            }
        }
        write_key(&mut out, "dist-tags");
        write_map(&mut out, self.tags.iter(), |out, tag| write_text(out, tag));
        write_key(&mut out, "versions");
        out.push(b'{');
        for (index, version) in self.versions.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(&mut out, &version.number);
            out.push(b':');
            match form {
                Form::Full => version.write_full(&mut out, &self.name, at),
                Form::Abbreviated => version.write_abbreviated(&mut out, &self.name, at),
            }
        }
        out.push(b'}');
        if form == Form::Full && !self.time.is_empty() {
            write_key(&mut out, "time");
            write_map(&mut out, self.time.iter(), |out, raw| out.extend_from_slice(raw));
        }
        out.push(b'}');
        out.into()
    }
}

impl Packument {
    /// Builds one from parts, for hosted packages. Manifests are JSON objects whose
    /// `dist.tarball` holds any text; rendering replaces it.
    #[must_use]
    pub fn build(
        name: PackageName,
        tags: Vec<(String, String)>,
        versions: Vec<(String, Bytes)>,
        time: Vec<(String, Bytes)>,
        rest: Vec<(String, Bytes)>,
    ) -> Self {
        let versions = versions
            .into_iter()
            .map(|(number, manifest)| {
                // The manifest is a record of ours and parses; were it damaged, it is served as it stands, without addresses.
                let raw: Option<&RawValue> = serde_json::from_slice(&manifest).ok();
                match raw {
                    Some(raw) => VersionEntry::cut(&manifest, &number, raw),
                    None => VersionEntry { number, manifest, tarball: None, attestations: None, overridden: Vec::new() },
                }
            })
            .collect();
        Self { name, tags, versions, time, rest }
    }

    /// The dist-tags and the version each points at.
    #[must_use]
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// One version's manifest in full, by number or by tag, with our addresses.
    #[must_use]
    pub fn manifest(&self, wanted: &str, at: &BaseUrl) -> Option<Bytes> {
        let number = self.tags.iter().find(|(tag, _)| tag == wanted).map_or(wanted, |(_, number)| number);
        let version = self.versions.iter().find(|version| version.number == number)?;
        let mut out = Vec::with_capacity(version.manifest.len() + 64);
        version.write_full(&mut out, &self.name, at);
        Some(out.into())
    }

    /// When anything last changed, as a JSON text: what the document says, or else its latest publication.
    fn modified(&self) -> Option<Bytes> {
        let said = self.time.iter().find(|(key, _)| key == "modified").map(|(_, raw)| raw.clone());
        said.or_else(|| self.time.iter().filter(|(_, raw)| raw.starts_with(b"\"")).map(|(_, raw)| raw.clone()).max())
    }

    /// After versions went: drops their times, and moves or drops tags that pointed at them.
    fn mend(&mut self) {
        let left: HashSet<&str> = self.versions.iter().map(|version| version.number.as_str()).collect();
        self.time.retain(|(key, _)| key == "created" || key == "modified" || left.contains(key.as_str()));
        let lost_latest = self.tags.iter().any(|(tag, number)| tag == "latest" && !left.contains(number.as_str()));
        self.tags.retain(|(_, number)| left.contains(number.as_str()));
        if lost_latest && let Some(best) = super::version::latest(left.iter().copied()) {
            self.tags.insert(0, ("latest".to_owned(), best.to_owned()));
        }
    }
}

impl VersionEntry {
    fn cut(document: &Bytes, number: &str, raw: &RawValue) -> Self {
        let dists = named(raw, "dist");
        let places = |found: Vec<&RawValue>| -> Vec<_> {
            found.into_iter().filter(|value| value.get().starts_with('"')).map(|value| span(raw, value)).collect()
        };
        let mut tarballs = places(dists.iter().flat_map(|dist| named(dist, "tarball")).collect());
        let attestations = dists.iter().flat_map(|dist| named(dist, "attestations"));
        let mut attestations = places(attestations.flat_map(|found| named(found, "url")).collect());
        // Of a repeated key the last counts, as every client reads it.
        let (tarball, url) = (tarballs.pop(), attestations.pop());
        tarballs.append(&mut attestations);
        Self { number: number.to_owned(), manifest: slice(document, raw), tarball, attestations: url, overridden: tarballs }
    }

    /// The upstream's own address of the tarball.
    fn tarball_url(&self) -> Option<String> {
        serde_json::from_slice(&self.manifest[self.tarball.clone()?]).ok()
    }

    /// The last segment of the upstream's address, decoded; old packages have other names than ours.
    fn upstream_file(&self) -> Option<String> {
        let url = self.tarball_url()?;
        let path = url.split(['?', '#']).next()?;
        let file = path.rsplit('/').next()?;
        crate::http::path::decode(file).ok().map(Cow::into_owned)
    }

    /// What the manifest promises of the tarball: the strongest integrity, or else the SHA-1.
    fn digests(&self) -> Vec<Digest> {
        let manifest: Option<&RawValue> = serde_json::from_slice(&self.manifest).ok();
        let dist = manifest.and_then(|manifest| named(manifest, "dist").pop());
        let text = |field| dist.and_then(|dist| serde_json::from_str::<Cow<'_, str>>(named(dist, field).pop()?.get()).ok());
        if let Some(digest) = text("integrity").and_then(|integrity| Digest::from_integrity(&integrity)) {
            return vec![digest];
        }
        text("shasum").and_then(|hex| Digest::from_hex(Algorithm::Sha1, &hex).ok()).into_iter().collect()
    }

    fn write_full(&self, out: &mut Vec<u8>, name: &PackageName, at: &BaseUrl) {
        self.write_part(out, 0..self.manifest.len(), name, at);
    }

    fn write_abbreviated(&self, out: &mut Vec<u8>, name: &PackageName, at: &BaseUrl) {
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(&self.manifest) else {
            // Not an object: nothing an installer could use, but valid JSON.
            out.extend_from_slice(b"{}");
            return;
        };
        out.push(b'{');
        let mut first = true;
        let mut key = |out: &mut Vec<u8>, text: &str| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write_text(out, text);
            out.push(b':');
        };
        for (field, raw) in &fields.0 {
            if ABBREVIATED_FIELDS.contains(&field.as_ref()) {
                key(out, field);
                self.write_part(out, span_in(&self.manifest, raw), name, at);
            }
        }
        if has_install_script(&fields) {
            key(out, "hasInstallScript");
            out.extend_from_slice(b"true");
        }
        if fields.0.iter().any(|(field, raw)| field == "_hasShrinkwrap" && raw.get() == "true") {
            key(out, "_hasShrinkwrap");
            out.extend_from_slice(b"true");
        }
        out.push(b'}');
    }

    /// Writes a part of the manifest, with our addresses in place of those it holds.
    fn write_part(&self, out: &mut Vec<u8>, part: Range<usize>, name: &PackageName, at: &BaseUrl) {
        let mut places: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
        places.extend(self.overridden.iter().map(|place| (place.clone(), String::new())));
        if let Some(place) = self.tarball.clone() {
            let file = route::tarball_file(name, &self.number);
            let file = crate::http::path::encode(&file);
            places.push((place, format!("{}/{name}/-/{file}", at.as_str())));
        }
        if let Some(place) = self.attestations.clone() {
            places.push((place, format!("{}/-/npm/v1/attestations/{}@{}", at.as_str(), name.as_str().replace('/', "%2f"), self.number)));
        }
        places.sort_by_key(|(place, _)| place.start);
        let mut from = part.start;
        for (place, address) in places {
            if place.start >= from && place.end <= part.end {
                out.extend_from_slice(&self.manifest[from..place.start]);
                write_text(out, &address);
                from = place.end;
            }
        }
        out.extend_from_slice(&self.manifest[from..part.end]);
    }
}

/// A JSON object as its fields in order, values untouched. A repeated key stays repeated.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// A key that borrows where its text has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The values of a key in a JSON object, all of them if it is repeated; none if it is no object.
fn named<'a>(object: &'a RawValue, key: &'static str) -> Vec<&'a RawValue> {
    struct Named(&'static str);

    impl<'de> Visitor<'de> for Named {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(Key(key)) = map.next_key()? {
                if key == self.0 {
                    found.push(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    serde_json::Deserializer::from_str(object.get()).deserialize_map(Named(key)).unwrap_or_default()
}

/// Of a repeated key the last value, in the place of the first, as JavaScript reads it.
fn last_of_each<K: Eq + std::hash::Hash + Clone, V>(fields: Vec<(K, V)>) -> Vec<(K, V)> {
    let mut places = HashMap::with_capacity(fields.len());
    let mut settled: Vec<(K, V)> = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        if let Some(place) = places.get(&key) {
            settled[*place] = (key, value);
        } else {
            places.insert(key.clone(), settled.len());
            settled.push((key, value));
        }
    }
    settled
}

/// Whether npm would run a script of this version when it is installed.
fn has_install_script(fields: &Fields<'_>) -> bool {
    let Some((_, scripts)) = fields.0.iter().find(|(field, _)| field == "scripts") else { return false };
    serde_json::from_str::<Fields<'_>>(scripts.get())
        .is_ok_and(|scripts| scripts.0.iter().any(|(name, _)| ["preinstall", "install", "postinstall"].contains(&name.as_ref())))
}

fn texts(raw: &RawValue) -> Option<Vec<(String, String)>> {
    let fields: Fields<'_> = serde_json::from_str(raw.get()).ok()?;
    fields.0.iter().map(|(key, raw)| Some((key.to_string(), serde_json::from_str(raw.get()).ok()?))).collect()
}

fn add_missing<V>(ours: &mut Vec<(String, V)>, theirs: Vec<(String, V)>) {
    let known: HashSet<String> = ours.iter().map(|(key, _)| key.clone()).collect();
    ours.extend(theirs.into_iter().filter(|(key, _)| !known.contains(key)));
}

/// The part of the document that a value borrowed from it covers; no bytes are copied.
fn slice(document: &Bytes, raw: &RawValue) -> Bytes {
    document.slice_ref(raw.get().as_bytes())
}

/// Where a value stands within the value it was borrowed from.
fn span(whole: &RawValue, part: &RawValue) -> Range<usize> {
    span_in(whole.get().as_bytes(), part)
}

fn span_in(whole: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.get().len()
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing a text to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_key(out: &mut Vec<u8>, key: &str) {
    out.push(b',');
    write_text(out, key);
    out.push(b':');
}

fn write_field(out: &mut Vec<u8>, key: &str, raw: &[u8]) {
    write_key(out, key);
    out.extend_from_slice(raw);
}

fn write_map<'a, V: 'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = &'a (String, V)>, write: impl Fn(&mut Vec<u8>, &V)) {
    out.push(b'{');
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}
