//! A gem's specification: what its metadata says, as far as indexes, pages and the API show it.
//!
//! It comes as YAML that Ruby has written of its objects; it is read by structure, whatever
//! the Ruby. Source: `Gem::Specification` and the layout of a gem's `metadata.gz`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::version;
use super::yaml::{Node, refused};
use crate::error::{Error, Kind, Result, Subject};

/// The platform of a gem that runs wherever Ruby does.
pub const RUBY: &str = "ruby";

/// Longest name, in bytes.
const NAME_BYTES: usize = 200;
/// Longest text that is kept, in bytes.
const TEXT_BYTES: usize = 64 << 10;
/// Most items of any list.
const ITEMS: usize = 5000;

/// A specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The gem's name, in its own spelling.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it runs on: [`RUBY`], or a processor and a system.
    pub platform: String,
    /// One line about it.
    pub summary: Option<String>,
    /// More about it.
    pub description: Option<String>,
    /// Its page.
    pub homepage: Option<String>,
    /// Who wrote it.
    pub authors: Vec<String>,
    /// How to reach them.
    pub email: Vec<String>,
    /// Its licences.
    pub licenses: Vec<String>,
    /// Further addresses and settings.
    pub metadata: BTreeMap<String, String>,
    /// Which Ruby it needs.
    pub required_ruby: Vec<Requirement>,
    /// Which RubyGems it needs.
    pub required_rubygems: Vec<Requirement>,
    /// Which gems it needs.
    pub dependencies: Vec<Dependency>,
    /// The day that its maker gave it, `YYYY-MM-DD`.
    pub date: Option<String>,
    /// The RubyGems that packed it.
    pub rubygems_version: String,
}

/// A bound on a version: an operator and a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement(pub String, pub String);

/// Another gem that is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Whether it is needed to run, and not only to work on the gem.
    pub runtime: bool,
    /// Which versions.
    pub requirements: Vec<Requirement>,
}

impl Requirement {
    /// The bound that everything keeps.
    #[must_use]
    pub fn any() -> Self {
        Self(">=".to_owned(), "0".to_owned())
    }

    fn is_any(&self) -> bool {
        self.0 == ">=" && self.1.split('.').all(|part| part.bytes().all(|byte| byte == b'0'))
    }
}

/// Whether bounds keep nothing out.
#[must_use]
pub fn is_any(requirements: &[Requirement]) -> bool {
    requirements.iter().all(Requirement::is_any)
}

impl Spec {
    /// Reads a gem's `metadata.gz`, unpacked.
    ///
    /// # Errors
    /// `Unprocessable` for what is no specification, or has a name, version or platform that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        // Old gems come in whatever encoding their maker's machine had.
        let text = String::from_utf8_lossy(bytes);
        let node = Node::parse(&text)?;
        let text = |name: &str| node.get(name).and_then(Node::text).map(shortened).filter(|text| !text.is_empty());
        let name = text("name").ok_or_else(|| refused("the metadata has no name"))?;
        check_name(&name)?;
        let version = node.get("version").and_then(version_text).ok_or_else(|| refused("the metadata has no version"))?;
        if !version::is_valid(&version) {
            return Err(unfit(format!("{version} is no version of a gem")));
        }
        let platform = node.get("platform").map(platform).unwrap_or_default().unwrap_or_else(|| RUBY.to_owned());
        check_platform(&platform)?;
        let dependencies = node.get("dependencies").map(Node::items).unwrap_or_default();
        let metadata = match node.get("metadata") {
            Some(Node::Map(members)) => {
                members.iter().take(ITEMS).filter_map(|(key, value)| Some((shortened(key), shortened(value.text()?)))).collect()
            }
            _ => BTreeMap::new(),
        };
        Ok(Self {
            summary: text("summary"),
            description: text("description"),
            homepage: text("homepage"),
            authors: texts(node.get("authors").or_else(|| node.get("author"))),
            email: texts(node.get("email")),
            licenses: texts(node.get("licenses").or_else(|| node.get("license"))),
            metadata,
            required_ruby: requirements(node.get("required_ruby_version"))?,
            required_rubygems: requirements(node.get("required_rubygems_version"))?,
            dependencies: dependencies.iter().take(ITEMS).map(dependency).collect::<Result<_>>()?,
            date: text("date").and_then(|date| date.get(..10).map(str::to_owned)),
            rubygems_version: text("rubygems_version").unwrap_or_default(),
            name,
            version,
            platform,
        })
    }

    /// The version's number in lists: with the platform, unless that is Ruby's own.
    #[must_use]
    pub fn number(&self) -> String {
        number(&self.version, &self.platform)
    }

    /// The gem's full name, which its files have.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.number())
    }
}

/// A version with its platform, unless that is Ruby's own.
#[must_use]
pub fn number(version: &str, platform: &str) -> String {
    if platform == RUBY { version.to_owned() } else { format!("{version}-{platform}") }
}

/// Whether a file is a gem itself, by its name.
#[must_use]
pub fn is_gem(file: &str) -> bool {
    file.strip_suffix(".gem").is_some()
}

/// Whether a text can be a gem's name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let special = |byte: Option<u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let file = [".gem", ".json", ".html", ".gemspec", ".rz", ".gz"].iter().any(|ending| name.ends_with(ending));
    let edges = special(name.bytes().next()) || special(name.bytes().last());
    !edges && !file && name.len() <= NAME_BYTES && name.bytes().all(plain) && name.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn check_name(name: &str) -> Result<()> {
    if is_name(name) { Ok(()) } else { Err(unfit(format!("{name} cannot be the name of a gem"))) }
}

fn check_platform(platform: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = platform.len() <= 100 && platform.starts_with(|c: char| c.is_ascii_alphabetic()) && platform.bytes().all(plain);
    if good { Ok(()) } else { Err(unfit(format!("{platform} is no platform"))) }
}

fn unfit(why: String) -> Error {
    Error::new(Kind::Unprocessable, Subject::Manifest).saying(why)
}

/// A version: an object with its text, or the text.
fn version_text(node: &Node) -> Option<String> {
    let text = node.text().or_else(|| node.get("version").and_then(Node::text))?;
    Some(shortened(text.trim()))
}

/// A platform: its text, or an object of processor, system and release.
fn platform(node: &Node) -> Option<String> {
    if let Some(text) = node.text() {
        return Some(shortened(text.trim())).filter(|text| !text.is_empty());
    }
    let parts = ["cpu", "os", "version"].into_iter().filter_map(|part| node.get(part).and_then(Node::text));
    let joined = parts.map(shortened).collect::<Vec<_>>().join("-");
    Some(joined).filter(|text| !text.is_empty())
}

fn requirements(node: Option<&Node>) -> Result<Vec<Requirement>> {
    let Some(node) = node else { return Ok(vec![Requirement::any()]) };
    let pairs = node.get("requirements").map_or(&[][..], Node::items);
    let mut found = Vec::new();
    for pair in pairs.iter().take(ITEMS) {
        let [operator, version] = pair.items() else { return Err(refused("the metadata has a malformed requirement")) };
        let operator = operator.text().unwrap_or_default();
        let version = version_text(version).unwrap_or_default();
        let known = ["=", "!=", ">", "<", ">=", "<=", "~>"].contains(&operator);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        if !known || version.is_empty() || !version.bytes().all(plain) {
            return Err(refused("the metadata has a malformed requirement"));
        }
        found.push(Requirement(operator.to_owned(), version));
    }
    if found.is_empty() {
        found.push(Requirement::any());
    }
    Ok(found)
}

fn dependency(node: &Node) -> Result<Dependency> {
    let name = node.get("name").and_then(Node::text).unwrap_or_default();
    if !is_name(name) {
        return Err(refused("the metadata has a dependency without a proper name"));
    }
    let bounds = node.get("requirement").or_else(|| node.get("version_requirements")).or_else(|| node.get("version_requirement"));
    let kind = node.get("type").and_then(Node::text).unwrap_or(":runtime");
    Ok(Dependency { name: name.to_owned(), runtime: kind.trim_start_matches(':') == "runtime", requirements: requirements(bounds)? })
}

/// A list of texts, or one text, as a list.
fn texts(node: Option<&Node>) -> Vec<String> {
    match node {
        Some(Node::Text(text)) => vec![shortened(text)],
        Some(Node::List(items)) => items.iter().take(ITEMS).filter_map(|item| item.text().map(shortened)).collect(),
        _ => Vec::new(),
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A specification as RubyGems writes one.
    pub(crate) const YAML: &str = r#"--- !ruby/object:Gem::Specification
name: Tool
version: !ruby/object:Gem::Version
  version: 1.2.0
platform: x86_64-linux
authors:
- Ann
- "Bob \u00e9"
autorequire:
bindir: bin
cert_chain: []
date: 2026-01-02 00:00:00.000000000 Z
dependencies:
- !ruby/object:Gem::Dependency
  name: rake
  requirement: !ruby/object:Gem::Requirement
    requirements:
    - - "~>"
      - !ruby/object:Gem::Version
        version: '13.0'
    - - "!="
      - !ruby/object:Gem::Version
        version: 13.0.1
  type: :runtime
  prerelease: false
  version_requirements: &1 !ruby/object:Gem::Requirement
    requirements:
    - - "~>"
      - !ruby/object:Gem::Version
        version: '13.0'
- !ruby/object:Gem::Dependency
  name: minitest
  requirement: *1
  type: :development
description: |-
  Two
  lines
email: ann@acme.example
executables: []
homepage: https://acme.example
licenses:
- MIT
metadata:
  source_code_uri: https://code.example/acme/tool
required_ruby_version: !ruby/object:Gem::Requirement
  requirements:
  - - ">="
    - !ruby/object:Gem::Version
      version: 2.7.0
required_rubygems_version: !ruby/object:Gem::Requirement
  requirements:
  - - ">="
    - !ruby/object:Gem::Version
      version: '0'
rubygems_version: 3.3.15
specification_version: 4
summary: A tool
test_files: []
"#;

    #[test]
    fn reads_what_indexes_show() {
        let spec = Spec::parse(YAML.as_bytes()).unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.number().as_str(), spec.full_name().as_str()),
            ("Tool", "1.2.0-x86_64-linux", "Tool-1.2.0-x86_64-linux")
        );
        assert_eq!(
            (spec.authors.len(), spec.email.as_slice(), spec.licenses.as_slice()),
            (2, &["ann@acme.example".to_owned()][..], &["MIT".to_owned()][..])
        );
        assert_eq!(spec.dependencies.len(), 2);
        assert!(spec.dependencies[0].runtime && !spec.dependencies[1].runtime);
        assert_eq!(spec.dependencies[0].requirements[1], Requirement("!=".into(), "13.0.1".into()));
        assert_eq!(spec.dependencies[1].requirements, [Requirement("~>".into(), "13.0".into())]);
        assert!(is_any(&spec.required_rubygems) && !is_any(&spec.required_ruby));
        assert_eq!(spec.date.as_deref(), Some("2026-01-02"));
    }

    #[test]
    fn reads_old_and_sparse_ones() {
        let spec = Spec::parse(b"name: a\nversion: 1\nplatform: !ruby/object:Gem::Platform\n  cpu: x86\n  os: mswin32\n  version: '60'\n")
            .unwrap();
        assert_eq!((spec.number().as_str(), is_any(&spec.required_ruby)), ("1-x86-mswin32-60", true));
        assert_eq!(Spec::parse(b"name: a\nversion: 1\nplatform: \nsummary: caf\xe9").unwrap().platform, RUBY);
    }

    #[test]
    fn refuses_what_cannot_be() {
        for wrong in [
            "name: a",
            "version: 1",
            "name: ''\nversion: 1",
            "name: a/b\nversion: 1",
            "name: a\nversion: x",
            "name: a\nversion: 1-java",
            "name: '1'\nversion: 1",
            "name: a.gem\nversion: 1",
            "name: -a\nversion: 1",
            "name: a\nversion: 1\nplatform: a b",
            "- a",
            "name: a\nversion: 1\ndependencies:\n- name: x y\n",
            "name: a\nversion: 1\nrequired_ruby_version:\n  requirements:\n  - [x, y]\n",
            "name: a\nversion: 1\nrequired_ruby_version:\n  requirements:\n  - ['>=', '1,2']\n",
        ] {
            assert_eq!(Spec::parse(wrong.as_bytes()).map_err(|error| error.kind()), Err(Kind::Unprocessable), "{wrong}");
        }
    }
}
