//! The specification in a package: what it is, who made it, what it needs.
//!
//! There are eight namespaces of it, and none says more than the others, so they are all one here. Owners that it
//! names are not read: whose a package is the server decides. Source: the `.nuspec` reference.

use serde::{Deserialize, Serialize};

use super::version::{self, Version};
use crate::error::{Error, Kind, Result, Subject};
use crate::xml::Element;

/// Longest id that a new package may have, in characters.
const NEW_ID: usize = 100;
/// Longest id that is read.
const ID: usize = 128;
/// Longest version of a new package, normalised.
const NEW_VERSION: usize = 64;
/// Longest text that is kept of a field, in bytes.
const TEXT_BYTES: usize = 40_000;
/// Most groups of dependencies, dependencies of one group, types and frameworks.
const MANY: usize = 2000;

/// What a specification says, and what the package beside it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nuspec {
    /// The id, as it is written.
    pub id: String,
    /// The version as it is written.
    pub version: String,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who made it, separated by commas.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authors: String,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The same in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Words to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The licence as an SPDX expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_expression: Option<String>,
    /// The file in the package that holds the licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_file: Option<String>,
    /// The licence's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_url: Option<String>,
    /// The file in the package that is its icon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// The icon's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon_url: Option<String>,
    /// The file in the package that is its readme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readme: Option<String>,
    /// Its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_url: Option<String>,
    /// Where its source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// What is new in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_notes: Option<String>,
    /// Whose rights it is under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copyright: Option<String>,
    /// Its language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The oldest client that can use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_client_version: Option<String>,
    /// Whether the licence is to be accepted first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_license_acceptance: bool,
    /// Whether it is for building alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub development_dependency: bool,
    /// What it needs, by target framework.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependency_groups: Vec<Group>,
    /// What kinds of package it is; none means a dependency.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub package_types: Vec<PackageType>,
    /// Frameworks of the platform that it refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub framework_references: Vec<String>,
    /// The target frameworks that it has files for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frameworks: Vec<String>,
}

/// Where the source of a package is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repository {
    /// Such as `git`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its address.
    pub url: String,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit that was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// What is needed for one target framework.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// The framework; none is for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// The packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
}

/// A package that is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependency {
    /// Its id.
    pub id: String,
    /// Which of its versions, normalised.
    pub range: String,
}

/// A kind of package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageType {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What a package is that has nothing but symbols.
const SYMBOLS: &str = "SymbolsPackage";

impl Nuspec {
    /// Reads a specification, as an upstream may have it: only what is needed to know which one it is must be there.
    ///
    /// # Errors
    /// `Unprocessable` when it is none, or has no id or no version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let root = Element::parse(bytes).map_err(|error| refused(format!("the nuspec cannot be read: {}", error.message())))?;
        let metadata = Some(&root).filter(|root| root.name == "package").and_then(|root| root.child("metadata"));
        let metadata = metadata.ok_or_else(|| refused("the nuspec has no element metadata"))?;
        let text = |name: &str| metadata.text_of(name).map(shortened);
        let needed = |name: &'static str| text(name).ok_or_else(|| refused(format!("the nuspec has no {name}")));
        let license = |kind: &str| {
            let license = metadata.child("license")?;
            (license.attribute("type") == Some(kind)).then(|| shortened(&license.text))
        };
        let truth = |name: &str| metadata.text_of(name).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let types = metadata.child("packageTypes").into_iter().flat_map(|types| types.all("packageType"));
        Ok(Self {
            id: needed("id")?,
            version: needed("version")?,
            title: text("title"),
            authors: text("authors").unwrap_or_default(),
            description: text("description"),
            summary: text("summary"),
            tags: text("tags")
                .unwrap_or_default()
                .split([' ', ',', ';', '\t', '\n', '\r'])
                .filter(|tag| !tag.is_empty())
                .take(MANY)
                .map(str::to_owned)
                .collect(),
            license_expression: license("expression"),
            license_file: license("file"),
            license_url: text("licenseUrl"),
            icon: text("icon"),
            icon_url: text("iconUrl"),
            readme: text("readme"),
            project_url: text("projectUrl"),
            repository: metadata.child("repository").and_then(repository),
            release_notes: text("releaseNotes"),
            copyright: text("copyright"),
            language: text("language"),
            min_client_version: metadata.attribute("minClientVersion").map(shortened),
            require_license_acceptance: truth("requireLicenseAcceptance"),
            development_dependency: truth("developmentDependency"),
            dependency_groups: metadata.child("dependencies").map(groups).unwrap_or_default(),
            package_types: types
                .take(MANY)
                .filter_map(|element| {
                    let name = element.attribute("name").map(shortened)?;
                    Some(PackageType { name, version: element.attribute("version").map(shortened) })
                })
                .collect(),
            framework_references: framework_references(metadata),
            frameworks: Vec::new(),
        })
    }

    /// The version.
    ///
    /// # Errors
    /// `Unprocessable` when it is none.
    pub fn parsed_version(&self) -> Result<Version> {
        Version::parse(&self.version).ok_or_else(|| refused(format!("the nuspec's version {:?} is none that NuGet knows", self.version)))
    }

    /// Whether the package holds nothing but symbols.
    #[must_use]
    pub fn is_symbols(&self) -> bool {
        self.package_types.iter().any(|kind| kind.name.eq_ignore_ascii_case(SYMBOLS))
    }

    /// Whether clients before the second version of SemVer cannot read it, or what it needs.
    #[must_use]
    pub fn is_semver2(&self) -> bool {
        let needs = || self.dependency_groups.iter().flat_map(|group| &group.dependencies);
        Version::parse(&self.version).is_some_and(|version| version.is_semver2())
            || needs().any(|dependency| version::range_is_semver2(&dependency.range))
    }

    /// Checks what is asked of a new package besides.
    ///
    /// # Errors
    /// `Unprocessable` naming what is wrong.
    pub fn check_new(&self) -> Result<()> {
        if !is_id(&self.id) || self.id.chars().count() > NEW_ID {
            let text = format!(
                "the id {:?} has to be of letters, digits and _, with single dots and dashes in between, and not longer than {NEW_ID}",
                shown(&self.id)
            );
            return Err(refused(text));
        }
        if self.parsed_version()?.normalised().len() > NEW_VERSION {
            return Err(refused(format!("the version is longer than {NEW_VERSION} characters")));
        }
        for dependency in self.dependency_groups.iter().flat_map(|group| &group.dependencies) {
            if !is_id(&dependency.id) {
                return Err(refused(format!("the dependency {:?} is no id", shown(&dependency.id))));
            }
        }
        let texts = [&self.title, &self.description, &self.summary, &self.project_url, &self.license_url, &self.icon_url];
        let texts = texts.into_iter().flatten().chain([&self.authors]).chain(&self.tags);
        if texts.into_iter().any(|text| text.chars().any(|c| c.is_control() && !c.is_whitespace())) {
            return Err(refused("the nuspec holds control characters"));
        }
        Ok(())
    }
}

/// A text that may be anything, short enough to be told.
fn shown(text: &str) -> String {
    text.chars().take(NEW_ID + 1).collect()
}

fn repository(element: &Element) -> Option<Repository> {
    let attribute = |name: &str| element.attribute(name).map(shortened).filter(|text| !text.is_empty());
    let url = attribute("url")?;
    Some(Repository { kind: attribute("type").unwrap_or_default(), url, branch: attribute("branch"), commit: attribute("commit") })
}

/// Dependencies are in groups, or, as older packages have them, all together.
fn groups(element: &Element) -> Vec<Group> {
    let mut groups: Vec<Group> = element
        .all("group")
        .take(MANY)
        .map(|group| Group {
            framework: group.attribute("targetFramework").map(shortened).filter(|text| !text.is_empty()),
            dependencies: dependencies(group),
        })
        .collect();
    let loose = dependencies(element);
    if !loose.is_empty() {
        groups.insert(0, Group { framework: None, dependencies: loose });
    }
    groups
}

fn dependencies(element: &Element) -> Vec<Dependency> {
    let read = |one: &Element| {
        let range = version::range(one.attribute("version").unwrap_or_default());
        Some(Dependency { id: shortened(one.attribute("id")?.trim()), range: shortened(&range) })
    };
    element.all("dependency").take(MANY).filter_map(read).collect()
}

fn framework_references(metadata: &Element) -> Vec<String> {
    let groups = metadata.child("frameworkReferences").into_iter().flat_map(|references| references.all("group"));
    let references = groups.flat_map(|group| group.all("frameworkReference"));
    let mut names: Vec<String> = references.filter_map(|one| one.attribute("name").map(shortened)).take(MANY).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn shortened(text: &str) -> String {
    let end = (0..=TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// Whether a text is a package's id: words, with single dots and dashes in between.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    text.chars().count() <= ID && text.split(['.', '-']).all(word)
}

/// A text in lower case, one character for one, as clients make the paths of packages.
#[must_use]
pub fn lower(text: &str) -> String {
    let one = |c: char| {
        let mut lower = c.to_lowercase();
        match (lower.next(), lower.next()) {
            (Some(only), None) => only,
            _ => c,
        }
    };
    text.chars().map(one).collect()
}

fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Unprocessable, Subject::Manifest).saying(why)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const XML: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd">
  <metadata minClientVersion="2.12">
    <id>Acme.Tool</id><version>1.2-Beta.1+sha</version><title>The tool</title><authors>Ann, Bob</authors><owners>evil</owners>
    <description>A &lt;tool&gt;</description><tags>one, two  three</tags>
    <license type="expression">MIT</license><licenseUrl>https://licenses.example/MIT</licenseUrl>
    <icon>images\icon.png</icon><readme>docs\README.md</readme><projectUrl>https://acme.example</projectUrl>
    <repository type="git" url="https://code.example/acme/tool.git" commit="abc" />
    <requireLicenseAcceptance>true</requireLicenseAcceptance>
    <packageTypes><packageType name="DotnetTool" /></packageTypes>
    <dependencies>
      <group targetFramework=".NETStandard2.0"><dependency id="Base" version="1.0" exclude="Build" /></group>
      <group targetFramework="net48" />
    </dependencies>
    <frameworkReferences><group targetFramework="net8.0"><frameworkReference name="Microsoft.AspNetCore.App" /></group></frameworkReferences>
  </metadata>
</package>"#;

    fn with(id: &str, version: &str, more: &str) -> Result<Nuspec> {
        Nuspec::parse(format!("<package><metadata><id>{id}</id><version>{version}</version>{more}</metadata></package>").as_bytes())
    }

    #[test]
    fn reads_what_is_shown() {
        let nuspec = Nuspec::parse([b"\xef\xbb\xbf", XML.as_bytes()].concat().as_slice()).unwrap();
        assert_eq!((nuspec.id.as_str(), nuspec.parsed_version().unwrap().key().as_str()), ("Acme.Tool", "1.2.0-beta.1"));
        assert_eq!((nuspec.description.as_deref(), nuspec.tags.len()), (Some("A <tool>"), 3));
        assert_eq!((nuspec.license_expression.as_deref(), nuspec.license_file.as_deref()), (Some("MIT"), None));
        assert_eq!(nuspec.repository.as_ref().map(|repository| repository.url.as_str()), Some("https://code.example/acme/tool.git"));
        let base = Dependency { id: "Base".into(), range: "[1.0.0, )".into() };
        let groups = [
            Group { framework: Some(".NETStandard2.0".into()), dependencies: vec![base] },
            Group { framework: Some("net48".into()), dependencies: vec![] },
        ];
        assert_eq!(nuspec.dependency_groups, groups);
        assert_eq!((nuspec.package_types[0].name.as_str(), nuspec.min_client_version.as_deref()), ("DotnetTool", Some("2.12")));
        assert_eq!(nuspec.framework_references, ["Microsoft.AspNetCore.App"]);
        assert!(nuspec.require_license_acceptance && nuspec.is_semver2() && !nuspec.is_symbols());
        nuspec.check_new().unwrap();
        let kept = serde_json::to_string(&nuspec).unwrap();
        assert_eq!(serde_json::from_str::<Nuspec>(&kept).unwrap(), nuspec);
    }

    #[test]
    fn dependencies_may_stand_outside_of_groups() {
        let nuspec = with("a", "1.0", "<dependencies><dependency id='b'/><dependency id='c' version='[1.0-x.1]'/></dependencies>").unwrap();
        assert_eq!(nuspec.dependency_groups.len(), 1);
        assert_eq!(nuspec.dependency_groups[0].dependencies[0].range, "(, )");
        assert!(nuspec.is_semver2(), "by what it needs");
    }

    #[test]
    fn what_is_no_new_package_is_refused_in_words() {
        let long = "a".repeat(101);
        for id in ["a..b", "-a", "a b", "a/b", "a#b", "a%23b", "a?b", ".", "../x", long.as_str()] {
            let error = with(id, "1.0", "").and_then(|nuspec| nuspec.check_new()).unwrap_err();
            assert_eq!(error.kind(), Kind::Unprocessable);
            assert!(error.message().contains("id"), "{}", error.message());
        }
        for version in ["latest", "1.0.0.0.0", "..", "99999999999", &format!("1.0.0-{}", "a".repeat(60))] {
            assert!(with("a", version, "").and_then(|nuspec| nuspec.check_new()).unwrap_err().message().contains("version"), "{version}");
        }
        assert!(with("a", "1.0", "<dependencies><dependency id='../b'/></dependencies>").unwrap().check_new().is_err());
        assert!(with("a", "1.0", "<title>a&#x7f;b</title>").unwrap().check_new().is_err());
        assert!(with("\u{e9}t\u{e9}.\u{4f8b}", "1.0", "").unwrap().check_new().is_ok());
        for wrong in [
            "<package/>",
            "<nuspec><metadata/></nuspec>",
            "",
            "<!DOCTYPE a><package/>",
            "<package><metadata><id>a</id></metadata></package>",
        ] {
            assert_eq!(Nuspec::parse(wrong.as_bytes()).unwrap_err().kind(), Kind::Unprocessable, "{wrong}");
        }
    }

    #[test]
    fn lower_case_is_one_character_for_one() {
        assert_eq!(lower("Acme.Tool-\u{c9}"), "acme.tool-\u{e9}");
        assert_eq!(lower("\u{130}I"), "\u{130}i", "no dots come or go");
    }
}
