//! The list of a package's versions in the flat container: all that a restore asks before it fetches.
//!
//! It names versions that are not listed too, so that what was once pinned is still found, and never one whose
//! package is not there. Source: NuGet's package content API.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::nuspec::Nuspec;
use super::package;
use super::route::{self, Kept};
use super::service_index::ServiceIndex;
use super::version::Version;
use crate::archive::Limits;
use crate::error::{Error, Result, Subject};
use crate::format::{Ask, BaseUrl, Document, Facts, Hosted, Inspection, Promise};
use crate::http::path;
use crate::name::PackageName;

/// The versions of a package, lowest first.
#[derive(Clone, Debug)]
pub struct Versions {
    name: PackageName,
    versions: Vec<Version>,
}

#[derive(Serialize, Deserialize)]
struct List {
    versions: Vec<String>,
}

impl Versions {
    fn new(name: &PackageName, mut versions: Vec<Version>) -> Self {
        versions.sort_unstable();
        versions.dedup();
        Self { name: name.clone(), versions }
    }

    /// Whether a version is among them.
    #[must_use]
    pub fn has(&self, version: &Version) -> bool {
        self.versions.binary_search(version).is_ok()
    }
}

impl Document for Versions {
    type Guide = ServiceIndex;
    type Part = ();
    type Form = ();

    fn ask(name: &PackageName, (): &(), guide: &ServiceIndex) -> Ask {
        Ask { path: format!("{}{}/index.json", guide.flat(), path::encode(name.as_str())), accept: "application/json", grows: false }
    }

    fn parse(name: &PackageName, (): &(), bytes: Bytes) -> Result<Self> {
        let list: List = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(Subject::Package, "this is no list of versions").because(error))?;
        // What is no version could not be asked for either.
        Ok(Self::new(name, list.versions.iter().filter_map(|text| Version::parse(text)).collect()))
    }

    fn hosted(records: Hosted<'_>, (): &()) -> Result<Self> {
        let mut versions = Vec::with_capacity(records.versions.len());
        for record in records.versions {
            let nuspec: Nuspec = serde_json::from_str(record.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))?;
            versions.extend(Version::parse(&nuspec.version));
        }
        Ok(Self::new(&records.package.name, versions))
    }

    fn over(self, lower: Self) -> Self {
        Self::new(&self.name.clone(), self.versions.into_iter().chain(lower.versions).collect())
    }

    fn keep(&mut self, rule: &dyn Fn(&Facts<'_>) -> bool) {
        self.versions.retain(|version| rule(&Facts { version: &version.key(), published: None }));
    }

    fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    fn is_download(file: &str) -> bool {
        Kept::of_file(file) == Some(Kept::Package)
    }

    fn promise(&self, file: &str, guide: &ServiceIndex) -> Option<Promise> {
        let (version, kept) = package::of_file(&self.name, file)?;
        if !self.has(&version) {
            return None;
        }
        let (id, number) = (path::encode(self.name.as_str()).into_owned(), version.key());
        let beside = || {
            let segment = kept.segment(&self.name, &number);
            format!("{}{id}/{}/{}", guide.flat(), path::encode(&number), path::encode(&segment))
        };
        let url = match kept {
            Kept::Readme => guide.readme(&id, &path::encode(&number)).unwrap_or_else(beside),
            // Nobody offers the symbols of others in the flat container.
            Kept::Symbols => return None,
            _ => beside(),
        };
        Some(Promise { version: number, url, digests: Vec::new() })
    }

    fn inspection(name: &PackageName, file: &str, limits: &Limits) -> Option<Inspection> {
        let (version, kept) = package::of_file(name, file)?;
        let (name, limits) = (name.clone(), *limits);
        Some(std::sync::Arc::new(move |source| package::prove_file(kept, source, &name, &version, &limits)))
    }

    fn render(&self, _: &BaseUrl, (): ()) -> Bytes {
        let list = List { versions: self.versions.iter().map(Version::key).collect() };
        // A list of texts always serialises.
        serde_json::to_vec(&list).unwrap_or_default().into()
    }
}

/// The name that a version's file has, whatever the request called it.
#[must_use]
pub fn file(name: &PackageName, version: &Version, kept: Kept) -> String {
    route::file(name, &version.key(), kept)
}

#[cfg(test)]
mod tests {
    use super::super::service_index::tests::index;
    use super::*;

    fn read(text: &str) -> Result<Versions> {
        Versions::parse(&route::id("acme.tool").unwrap(), &(), Bytes::copy_from_slice(text.as_bytes()))
    }

    fn rendered(versions: &Versions) -> String {
        String::from_utf8(versions.render(&BaseUrl::new("http://h"), ()).to_vec()).unwrap()
    }

    #[test]
    fn versions_are_in_order_and_normalised() {
        let versions = read(r#"{"versions":["1.10","1.9.0-Beta","1.9.0","1.9.0+x","nonsense"],"more":1}"#).unwrap();
        assert_eq!(rendered(&versions), r#"{"versions":["1.9.0-beta","1.9.0","1.10.0"]}"#);
        let mut both = read(r#"{"versions":["1.9.0.0","2.0"]}"#).unwrap().over(versions);
        assert_eq!(rendered(&both), r#"{"versions":["1.9.0-beta","1.9.0","1.10.0","2.0.0"]}"#);
        both.keep(&|facts| facts.version == "2.0.0");
        assert_eq!(rendered(&both), r#"{"versions":["2.0.0"]}"#);
        assert!(read(r#"{"versions":[]}"#).unwrap().is_empty());
        for wrong in ["<html>", "[]", "{}", r#"{"versions":"1.0"}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_are_promised_where_the_upstream_keeps_them() {
        let versions = read(r#"{"versions":["1.0","2.0.0-Beta"]}"#).unwrap();
        let plain = index(&[("PackageBaseAddress/3.0.0", "https://a/flat/")]).unwrap();
        assert_eq!(Versions::ask(&versions.name, &(), &plain).path, "https://a/flat/acme.tool/index.json");
        let url = |file: &str| versions.promise(file, &plain).map(|promise| promise.url);
        assert_eq!(url("acme.tool.1.0.0.nupkg").as_deref(), Some("https://a/flat/acme.tool/1.0.0/acme.tool.1.0.0.nupkg"));
        assert_eq!(url("acme.tool.2.0.0-beta.nuspec").as_deref(), Some("https://a/flat/acme.tool/2.0.0-beta/acme.tool.nuspec"));
        assert_eq!(url("acme.tool.1.0.0.readme").as_deref(), Some("https://a/flat/acme.tool/1.0.0/readme"));
        for absent in ["acme.tool.3.0.0.nupkg", "acme.tool.1.0.0.snupkg", "acme.1.0.0.nupkg", "acme.tool.nupkg"] {
            assert_eq!(url(absent), None, "{absent}");
        }
        let elsewhere =
            index(&[("PackageBaseAddress/3.0.0", "https://a/"), ("ReadmeUriTemplate/6.13.0", "https://b/{lower_id}?v={lower_version}")]);
        let promise = versions.promise("acme.tool.1.0.0.readme", &elsewhere.unwrap()).unwrap();
        assert_eq!(promise.url, "https://b/acme.tool?v=1.0.0");
        assert!(Versions::is_download("acme.tool.1.0.0.nupkg") && !Versions::is_download("acme.tool.1.0.0.nuspec"));
    }
}
