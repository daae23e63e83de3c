//! `maven-metadata.xml`: which versions there are, which builds of a snapshot, which plugins of a group.
//!
//! What is hosted is computed from the records, never from what a client uploads: a client
//! writes the file from the copy it read before, and two at once would drop each other's
//! versions. What an upstream says is merged below that; alone, its bytes pass through as
//! they are, so that checksums made from them hold. One file may speak of versions and of
//! plugins, because a folder may be an artifact and a group. Source: Maven's repository metadata model.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::order;
use super::route::{self, METADATA, SNAPSHOT, shape};
use crate::error::{Error, Result, Subject};
use crate::format::{Ask, BaseUrl, Document, Facts, Hosted, Promise};
use crate::http::path;
use crate::name::PackageName;
use crate::package::Version;
use crate::xml::{Element, escape};

/// Which metadata of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Part {
    /// Its versions.
    #[default]
    Versions,
    /// The builds of one snapshot.
    Builds(String),
}

/// A metadata file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// An upstream's bytes, as long as nothing was changed.
    raw: Option<Bytes>,
    group: String,
    artifact: String,
    /// The snapshot whose builds these are.
    snapshot: Option<String>,
    versions: Vec<String>,
    builds: BTreeMap<Kind, Newest>,
    plugins: Vec<Plugin>,
    /// `yyyyMMddHHmmss`.
    updated: String,
}

/// Files of a snapshot that replace each other build by build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    extension: String,
    classifier: String,
}

/// The newest of such files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Newest {
    /// `yyyyMMdd.HHmmss`; empty where the file has no build in its name.
    timestamp: String,
    number: u64,
    /// The version in the file's name.
    value: String,
}

/// A plugin of a group, by which its goals are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// What it is called.
    pub name: String,
    /// What stands before its goals.
    pub prefix: String,
    /// Its artifact's id.
    pub artifact: String,
}

impl Document for Metadata {
    type Guide = ();
    type Part = Part;
    type Form = ();

    fn ask(name: &PackageName, part: &Part, (): &()) -> Ask {
        let folder = route::package_folder(name);
        let path = match part {
            Part::Versions => format!("{folder}/{METADATA}"),
            Part::Builds(version) => format!("{folder}/{}/{METADATA}", path::encode(version)),
        };
        Ask { path, accept: "*/*", grows: false }
    }

    fn parse(name: &PackageName, part: &Part, bytes: Bytes) -> Result<Self> {
        let root = Element::parse(&bytes)?;
        if root.name != "metadata" {
            return Err(Error::invalid(Subject::Manifest, "it has no element metadata"));
        }
        let (group, artifact) = split(name);
        let mut metadata = Self { group, artifact, ..Self::default() };
        let versioning = root.child("versioning");
        let updated = versioning.and_then(|versioning| versioning.text_of("lastUpdated"));
        metadata.updated = updated.map(str::to_owned).unwrap_or_default();
        match part {
            Part::Versions => {
                let versions = versioning.and_then(|versioning| versioning.child("versions"));
                metadata.versions = versions.into_iter().flat_map(|list| list.all("version")).map(|version| version.text.clone()).collect();
            }
            Part::Builds(version) => {
                metadata.builds = versioning.map(|versioning| builds(versioning, version)).unwrap_or_default();
                metadata.snapshot = Some(version.clone());
            }
        }
        let plugins = root.child("plugins").into_iter().flat_map(|plugins| plugins.all("plugin"));
        metadata.plugins = plugins.filter_map(plugin).collect();
        metadata.raw = Some(bytes);
        Ok(metadata)
    }

    fn hosted(records: Hosted<'_>, part: &Part) -> Result<Self> {
        let (group, artifact) = split(&records.package.name);
        let mut metadata = Self { group, artifact, ..Self::default() };
        match part {
            Part::Versions => {
                metadata.versions = order::sorted(records.versions.iter().map(|version| version.number.clone()));
                metadata.updated = records.versions.iter().map(updated).max().unwrap_or_default();
            }
            Part::Builds(number) => {
                metadata.snapshot = Some(number.clone());
                if let Some(version) = records.versions.iter().find(|version| version.number == *number) {
                    metadata.updated = updated(version);
                    metadata.builds = hosted_builds(&metadata.artifact, version);
                }
            }
        }
        Ok(metadata)
    }

    fn over(self, lower: Self) -> Self {
        let mut merged = self;
        merged.raw = None;
        let added = lower.versions.into_iter().filter(|version| !merged.versions.contains(version)).collect::<Vec<_>>();
        merged.versions = order::sorted(merged.versions.into_iter().chain(added));
        for (kind, build) in lower.builds {
            let newest = merged.builds.entry(kind).or_insert_with(|| build.clone());
            *newest = (*newest).clone().max(build);
        }
        merged.add_plugins(lower.plugins);
        merged.updated = merged.updated.max(lower.updated);
        merged
    }

    fn keep(&mut self, rule: &dyn Fn(&Facts<'_>) -> bool) {
        let before = self.versions.len();
        self.versions.retain(|version| rule(&Facts { version, published: None }));
        if self.versions.len() != before {
            self.raw = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.raw.is_none() && self.versions.is_empty() && self.builds.is_empty() && self.plugins.is_empty()
    }

    fn promise(&self, _: &str, (): &()) -> Option<Promise> {
        None
    }

    fn render(&self, _: &BaseUrl, (): ()) -> Bytes {
        match &self.raw {
            Some(raw) => raw.clone(),
            None => self.write().into(),
        }
    }
}

impl Metadata {
    /// Metadata of a group's plugins alone.
    #[must_use]
    pub fn of_plugins(plugins: Vec<Plugin>) -> Self {
        Self { plugins, ..Self::default() }
    }

    /// Adds plugins whose prefixes are not taken.
    pub fn add_plugins(&mut self, plugins: Vec<Plugin>) {
        for plugin in plugins {
            if !self.plugins.iter().any(|known| known.prefix == plugin.prefix) {
                self.plugins.push(plugin);
                self.raw = None;
            }
        }
    }

    /// The units of files that an uploaded file names: its versions, or the builds of its snapshot.
    #[must_use]
    pub fn units(&self) -> Vec<String> {
        let mut units = self.versions.clone();
        units.extend(self.builds.values().filter(|build| !build.timestamp.is_empty()).map(|build| build.value.clone()));
        units.sort_unstable();
        units.dedup();
        units
    }

    fn write(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        out.push_str(if self.builds.is_empty() { "<metadata>\n" } else { "<metadata modelVersion=\"1.1.0\">\n" });
        if !self.versions.is_empty() || !self.builds.is_empty() {
            line(&mut out, 2, "groupId", &self.group);
            line(&mut out, 2, "artifactId", &self.artifact);
            if let Some(snapshot) = &self.snapshot {
                line(&mut out, 2, "version", snapshot);
            }
            out.push_str("  <versioning>\n");
            self.write_versions(&mut out);
            self.write_builds(&mut out);
            if !self.updated.is_empty() {
                line(&mut out, 4, "lastUpdated", &self.updated);
            }
            out.push_str("  </versioning>\n");
        }
        if !self.plugins.is_empty() {
            out.push_str("  <plugins>\n");
            for plugin in &self.plugins {
                out.push_str("    <plugin>\n");
                line(&mut out, 6, "name", &plugin.name);
                line(&mut out, 6, "prefix", &plugin.prefix);
                line(&mut out, 6, "artifactId", &plugin.artifact);
                out.push_str("    </plugin>\n");
            }
            out.push_str("  </plugins>\n");
        }
        out.push_str("</metadata>\n");
        out
    }

    fn write_versions(&self, out: &mut String) {
        let Some(latest) = self.versions.last() else { return };
        line(out, 4, "latest", latest);
        if let Some(release) = self.versions.iter().rfind(|version| !version.ends_with(SNAPSHOT)) {
            line(out, 4, "release", release);
        }
        out.push_str("    <versions>\n");
        for version in &self.versions {
            line(out, 6, "version", version);
        }
        out.push_str("    </versions>\n");
    }

    fn write_builds(&self, out: &mut String) {
        let Some(newest) = self.builds.values().max() else { return };
        if !newest.timestamp.is_empty() {
            out.push_str("    <snapshot>\n");
            line(out, 6, "timestamp", &newest.timestamp);
            line(out, 6, "buildNumber", &newest.number.to_string());
            out.push_str("    </snapshot>\n");
        }
        out.push_str("    <snapshotVersions>\n");
        for (kind, build) in &self.builds {
            out.push_str("      <snapshotVersion>\n");
            if !kind.classifier.is_empty() {
                line(out, 8, "classifier", &kind.classifier);
            }
            line(out, 8, "extension", &kind.extension);
            line(out, 8, "value", &build.value);
            let moment = if build.timestamp.is_empty() { self.updated.clone() } else { build.timestamp.replace('.', "") };
            line(out, 8, "updated", &moment);
            out.push_str("      </snapshotVersion>\n");
        }
        out.push_str("    </snapshotVersions>\n");
    }
}

fn line(out: &mut String, indent: usize, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{:indent$}<{name}>{}</{name}>", "", escape(text));
}

fn split(name: &PackageName) -> (String, String) {
    let (group, artifact) = name.as_str().split_once(':').unwrap_or((name.as_str(), ""));
    (group.to_owned(), artifact.to_owned())
}

fn plugin(element: &Element) -> Option<Plugin> {
    let (prefix, artifact) = (element.text_of("prefix")?.to_owned(), element.text_of("artifactId")?.to_owned());
    Some(Plugin { name: element.text_of("name").unwrap_or_default().to_owned(), prefix, artifact })
}

/// The builds that an upstream's or a client's file lists.
fn builds(versioning: &Element, version: &str) -> BTreeMap<Kind, Newest> {
    let base = version.strip_suffix(SNAPSHOT).unwrap_or(version);
    let mut builds = BTreeMap::new();
    for listed in versioning.child("snapshotVersions").into_iter().flat_map(|list| list.all("snapshotVersion")) {
        let (Some(extension), Some(value)) = (listed.text_of("extension"), listed.text_of("value")) else { continue };
        let kind = Kind { extension: extension.to_owned(), classifier: listed.text_of("classifier").unwrap_or_default().to_owned() };
        let build = value.strip_prefix(base).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split_once('-'));
        let number = build.and_then(|(_, number)| number.parse().ok());
        let timestamp = number.and(build).map(|(timestamp, _)| timestamp.to_owned()).unwrap_or_default();
        let build = Newest { timestamp, number: number.unwrap_or_default(), value: value.to_owned() };
        let newest = builds.entry(kind).or_insert_with(|| build.clone());
        *newest = newest.clone().max(build);
    }
    builds
}

/// The newest build of each kind of file that a version holds.
fn hosted_builds(artifact: &str, version: &Version) -> BTreeMap<Kind, Newest> {
    let mut builds: BTreeMap<Kind, Newest> = BTreeMap::new();
    for file in &version.files {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        let Some(shape) = shape(artifact, &version.number, name) else { continue };
        let kind = Kind { extension: shape.extension.to_owned(), classifier: shape.classifier.unwrap_or_default().to_owned() };
        let build = match shape.build {
            Some(build) => {
                let value = build_value(&version.number, build);
                Newest { timestamp: build.timestamp.to_owned(), number: build.number, value }
            }
            None => Newest { timestamp: String::new(), number: 0, value: version.number.clone() },
        };
        let newest = builds.entry(kind).or_insert_with(|| build.clone());
        *newest = newest.clone().max(build);
    }
    builds
}

/// How a build is written in place of its version: `1.0-20261120.081502-3`.
#[must_use]
pub fn build_value(version: &str, build: route::Build<'_>) -> String {
    format!("{}-{}-{}", version.strip_suffix(SNAPSHOT).unwrap_or(version), build.timestamp, build.number)
}

fn updated(version: &Version) -> String {
    version.updated_at.to_string().bytes().filter(u8::is_ascii_digit).take(14).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> PackageName {
        PackageName::new("com.acme:tool").unwrap()
    }

    fn read(part: &Part, text: &str) -> Metadata {
        Metadata::parse(&name(), part, Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    const VERSIONS: &str = "<metadata><groupId>com.acme</groupId><artifactId>tool</artifactId><versioning><latest>9</latest>\
        <versions><version>1.10</version><version>1.9</version><version>2.0-SNAPSHOT</version></versions>\
        <lastUpdated>20260101000000</lastUpdated></versioning></metadata>";

    #[test]
    fn an_upstreams_file_alone_passes_as_it_is() {
        let metadata = read(&Part::Versions, VERSIONS);
        assert_eq!(metadata.render(&BaseUrl::new("http://x"), ()), VERSIONS);
        assert_eq!(Metadata::ask(&name(), &Part::Versions, &()).path, "com/acme/tool/maven-metadata.xml");
        assert_eq!(Metadata::ask(&name(), &Part::Builds("1-SNAPSHOT".into()), &()).path, "com/acme/tool/1-SNAPSHOT/maven-metadata.xml");
    }

    #[test]
    fn versions_are_merged_in_mavens_order() {
        let own = "<metadata><versioning><versions><version>1.9.5</version><version>1.10</version></versions>\
            <lastUpdated>20260202000000</lastUpdated></versioning></metadata>";
        let mut merged = read(&Part::Versions, own).over(read(&Part::Versions, VERSIONS));
        insta::assert_snapshot!(std::str::from_utf8(&merged.render(&BaseUrl::new("http://x"), ())).unwrap(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <metadata>
          <groupId>com.acme</groupId>
          <artifactId>tool</artifactId>
          <versioning>
            <latest>2.0-SNAPSHOT</latest>
            <release>1.10</release>
            <versions>
              <version>1.9</version>
              <version>1.9.5</version>
              <version>1.10</version>
              <version>2.0-SNAPSHOT</version>
            </versions>
            <lastUpdated>20260202000000</lastUpdated>
          </versioning>
        </metadata>
        "#);
        merged.keep(&|facts| facts.version == "1.9");
        assert_eq!(merged.units(), ["1.9"]);
        merged.keep(&|_| false);
        assert!(merged.is_empty());
    }

    #[test]
    fn of_each_kind_of_file_the_newest_build_counts() {
        let part = Part::Builds("1.0-SNAPSHOT".into());
        let entry = |kind: &str, value: &str| {
            format!("<snapshotVersion>{kind}<value>1.0-{value}</value><updated>20260101000000</updated></snapshotVersion>")
        };
        let file = |entries: &[String]| {
            format!("<metadata><versioning><snapshotVersions>{}</snapshotVersions></versioning></metadata>", entries.concat())
        };
        let (jar, sources) = ("<extension>jar</extension>", "<classifier>sources</classifier><extension>jar</extension>");
        let one = read(&part, &file(&[entry(jar, "20260101.000000-9"), entry(sources, "20260101.000000-9")]));
        let two = read(&part, &file(&[entry(jar, "20260102.000000-10")]));
        assert_eq!(one.units(), ["1.0-20260101.000000-9"]);
        let merged = one.over(two);
        let text = merged.render(&BaseUrl::new("http://x"), ());
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("<timestamp>20260102.000000</timestamp>") && text.contains("<buildNumber>10</buildNumber>"), "{text}");
        assert!(text.contains("<value>1.0-20260101.000000-9</value>") && text.contains("modelVersion"), "{text}");
        assert_eq!(read(&part, text).units().len(), 2);
    }

    #[test]
    fn the_first_plugin_of_a_prefix_counts() {
        let plugin = |artifact: &str| Plugin { name: "A & B".into(), prefix: "go".into(), artifact: artifact.into() };
        let mut metadata = Metadata::of_plugins(vec![plugin("one")]);
        metadata.add_plugins(vec![plugin("two")]);
        let text = metadata.render(&BaseUrl::new("http://x"), ());
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("A &amp; B") && !text.contains("two") && !text.contains("versioning"), "{text}");
        assert_eq!(read(&Part::Versions, text).plugins, [plugin("one")]);
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        for wrong in ["<html/>", "", "<!DOCTYPE x><metadata/>"] {
            assert!(Metadata::parse(&name(), &Part::Versions, Bytes::copy_from_slice(wrong.as_bytes())).is_err(), "{wrong}");
        }
    }
}
