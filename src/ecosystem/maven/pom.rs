//! What a POM says of its version: who made it, what it needs, under which licence.
//!
//! The file itself is kept as it came; this is for search, pages and the API. Group and
//! version may come from the parent, and any value may hold `${…}`, which only the whole
//! build could resolve; such a value is shown as it stands and compared with nothing.

use serde::{Deserialize, Serialize};

use super::route::Coordinates;
use crate::error::{Error, Kind, Result, Subject};
use crate::xml::Element;

/// The parts of a POM that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pom {
    /// The display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the build makes: `jar` where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packaging: Option<String>,
    /// Names of its licences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// The page of its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The parent, as `group:artifact:version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
}

/// What a version needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependency {
    /// `group:artifact`.
    pub name: String,
    /// The version or range, unless the parent says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it is needed: `compile` where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whether it can be left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Most dependencies that are shown.
const DEPENDENCIES: usize = 2000;
/// Longest text that is shown, in bytes.
const TEXT_BYTES: usize = 4096;

impl Pom {
    /// Reads a POM that is published at these coordinates.
    ///
    /// # Errors
    /// `Unprocessable` for what is no POM, or another one's.
    pub fn parse(bytes: &[u8], at: &Coordinates) -> Result<Self> {
        let project = Element::parse(bytes).map_err(|error| refused(&format!("the POM cannot be read: {}", error.message())))?;
        if project.name != "project" {
            return Err(refused("the POM has no element project"));
        }
        let parent = project.child("parent");
        let own_or_parents = |name: &str| project.text_of(name).or_else(|| parent.and_then(|parent| parent.text_of(name)));
        check("groupId", own_or_parents("groupId"), &at.group)?;
        check("artifactId", project.text_of("artifactId"), &at.artifact)?;
        check("version", own_or_parents("version"), &at.version)?;
        let text = |element: &Element, name: &str| element.text_of(name).map(shortened);
        let licenses = project.child("licenses").into_iter().flat_map(|licenses| licenses.all("license"));
        let dependencies = project.child("dependencies").into_iter().flat_map(|dependencies| dependencies.all("dependency"));
        Ok(Self {
            name: text(&project, "name"),
            description: text(&project, "description"),
            url: text(&project, "url"),
            packaging: text(&project, "packaging"),
            licenses: licenses.filter_map(|license| text(license, "name").or_else(|| text(license, "url"))).take(100).collect(),
            source: project.child("scm").and_then(|scm| text(scm, "url").or_else(|| text(scm, "connection"))),
            parent: parent
                .map(|parent| ["groupId", "artifactId", "version"].map(|part| parent.text_of(part).unwrap_or_default()).join(":")),
            dependencies: dependencies.take(DEPENDENCIES).map(dependency).collect(),
        })
    }
}

fn dependency(element: &Element) -> Dependency {
    let text = |name: &str| element.text_of(name).map(shortened);
    Dependency {
        name: format!("{}:{}", text("groupId").unwrap_or_default(), text("artifactId").unwrap_or_default()),
        version: text("version"),
        scope: text("scope"),
        optional: element.text_of("optional") == Some("true"),
    }
}

fn check(what: &str, said: Option<&str>, folder: &str) -> Result<()> {
    match said {
        Some(said) if !said.contains("${") && said != folder => {
            Err(refused(&format!("the POM's {what} is {}, but it is published as {folder}", shortened(said))))
        }
        _ => Ok(()),
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

fn refused(why: &str) -> Error {
    Error::new(Kind::Unprocessable, Subject::Manifest).saying(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(group: &str, artifact: &str, version: &str) -> Coordinates {
        let file = format!("{artifact}-{version}.pom");
        Coordinates { group: group.to_owned(), artifact: artifact.to_owned(), version: version.to_owned(), file }
    }

    #[test]
    fn reads_what_is_shown() {
        let pom = br#"<?xml version="1.0"?>
<project xmlns="urn:pom">
  <parent><groupId>com.acme</groupId><artifactId>parent</artifactId><version>7</version></parent>
  <artifactId>tool</artifactId><version>${revision}</version><packaging>maven-plugin</packaging>
  <name>Tool</name><description>A &lt;tool&gt;</description><url>https://acme.example</url>
  <licenses><license><name>Apache-2.0</name></license><license><url>https://x.example</url></license></licenses>
  <scm><url>https://code.example/acme/tool</url></scm>
  <dependencyManagement><dependencies><dependency><groupId>no</groupId></dependency></dependencies></dependencyManagement>
  <dependencies>
    <dependency><groupId>a</groupId><artifactId>b</artifactId><version>[1,2)</version></dependency>
    <dependency><groupId>c</groupId><artifactId>d</artifactId><scope>test</scope><optional>true</optional></dependency>
  </dependencies>
</project>"#;
        let pom = Pom::parse(pom, &at("com.acme", "tool", "1.0")).unwrap();
        assert_eq!(pom.description.as_deref(), Some("A <tool>"));
        assert_eq!(pom.licenses, ["Apache-2.0", "https://x.example"]);
        assert_eq!(pom.parent.as_deref(), Some("com.acme:parent:7"));
        assert_eq!(pom.dependencies.len(), 2);
        assert_eq!((pom.dependencies[0].name.as_str(), pom.dependencies[0].version.as_deref()), ("a:b", Some("[1,2)")));
        assert!(pom.dependencies[1].optional);
    }

    #[test]
    fn another_ones_pom_is_refused_in_words() {
        let pom = b"<project><groupId>g</groupId><artifactId>a</artifactId><version>1</version></project>";
        assert!(Pom::parse(pom, &at("g", "a", "1")).is_ok());
        for (group, artifact, version, said) in [("h", "a", "1", "groupId"), ("g", "b", "1", "artifactId"), ("g", "a", "2", "version")] {
            let error = Pom::parse(pom, &at(group, artifact, version)).unwrap_err();
            assert_eq!(error.kind(), Kind::Unprocessable);
            assert!(error.message().contains(said), "{}", error.message());
        }
        for wrong in [&b"<html/>"[..], b"nonsense", b"<!DOCTYPE x><project/>"] {
            assert!(Pom::parse(wrong, &at("g", "a", "1")).is_err());
        }
        let long = format!("<project><name>{}</name></project>", "\u{e9}".repeat(9000));
        assert!(Pom::parse(long.as_bytes(), &at("g", "a", "1")).unwrap().name.unwrap().len() <= TEXT_BYTES);
    }
}
