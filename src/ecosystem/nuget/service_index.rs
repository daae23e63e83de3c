//! The service index: where a source keeps what, by names that clients look for.
//!
//! Clients take the first name that they know from a list of their own, so every name of a purpose leads to
//! an equally good place, and what is not served is not named. Ours is made from scratch; of an upstream's only
//! the addresses of what we ask it for are read. Source: NuGet's server API, and the lists in its client.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::route::Hive;
use crate::error::{Error, Result, Subject};
use crate::format::{Ask, BaseUrl, Guide};

/// Names that lead to the flat container.
const FLAT: [&str; 1] = ["PackageBaseAddress/3.0.0"];
/// Names of the registrations, those that clients of today like best first.
const SEMVER2: [&str; 2] = ["RegistrationsBaseUrl/Versioned", "RegistrationsBaseUrl/3.6.0"];
const GZIP: [&str; 1] = ["RegistrationsBaseUrl/3.4.0"];
const PLAIN: [&str; 3] = ["RegistrationsBaseUrl/3.0.0-rc", "RegistrationsBaseUrl/3.0.0-beta", "RegistrationsBaseUrl"];
const SEARCH: [&str; 6] = [
    "SearchQueryService/3.5.0",
    "SearchQueryService/Versioned",
    "SearchQueryService/3.4.0",
    "SearchQueryService/3.0.0-rc",
    "SearchQueryService/3.0.0-beta",
    "SearchQueryService",
];
const AUTOCOMPLETE: [&str; 5] = [
    "SearchAutocompleteService/3.5.0",
    "SearchAutocompleteService/Versioned",
    "SearchAutocompleteService/3.0.0-rc",
    "SearchAutocompleteService/3.0.0-beta",
    "SearchAutocompleteService",
];
const VULNERABILITIES: [&str; 1] = ["VulnerabilityInfo/6.7.0"];
const README: [&str; 1] = ["ReadmeUriTemplate/6.13.0"];
const PUSH: [&str; 1] = ["PackagePublish/2.0.0"];
const PUSH_SYMBOLS: [&str; 1] = ["SymbolPackagePublish/4.9.0"];

/// Our service index, of a tree at an address.
#[must_use]
pub fn render(at: &BaseUrl) -> Value {
    let at = at.as_str();
    let hive = |hive: Hive| format!("{at}/{}/", hive.segment());
    let resources: [(&[&str], String, &str); 10] = [
        (&FLAT, format!("{at}/download/"), "Packages, their specifications, and lists of their versions"),
        (&SEMVER2, hive(Hive::Semver2), "Registrations, compressed, with versions of SemVer 2"),
        (&GZIP, hive(Hive::Gzip), "Registrations, compressed"),
        (&PLAIN, hive(Hive::Plain), "Registrations"),
        (&SEARCH, format!("{at}/query"), "Search"),
        (&AUTOCOMPLETE, format!("{at}/autocomplete"), "Ids and versions while they are typed"),
        (&PUSH, format!("{at}/package"), "Push, unlist and list again"),
        (&PUSH_SYMBOLS, format!("{at}/symbolpackage"), "Push of symbols"),
        (&VULNERABILITIES, format!("{at}/vulnerabilities/index.json"), "Known vulnerabilities"),
        (&README, format!("{at}/download/{{lower_id}}/{{lower_version}}/readme"), "Readmes"),
    ];
    let entries = resources
        .iter()
        .flat_map(|(names, address, comment)| names.iter().map(move |name| json!({ "@id": address, "@type": name, "comment": comment })));
    json!({ "version": "3.0.0", "resources": entries.collect::<Vec<_>>() })
}

/// An upstream's service index: where it keeps what.
#[derive(Clone, Debug, Default)]
pub struct ServiceIndex(Arc<Places>);

#[derive(Debug, Default)]
struct Places {
    flat: String,
    plain: Option<String>,
    semver2: Option<String>,
    search: Option<String>,
    autocomplete: Option<String>,
    vulnerabilities: Option<String>,
    readme: Option<String>,
}

#[derive(Deserialize)]
struct Read {
    version: String,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "@id")]
    id: Value,
    #[serde(rename = "@type")]
    kind: Value,
}

impl Resource {
    /// Whether it is called so. Some servers give all names of a place in one list.
    fn is(&self, name: &str) -> bool {
        match &self.kind {
            Value::String(kind) => kind == name,
            Value::Array(kinds) => kinds.iter().any(|kind| kind == name),
            _ => false,
        }
    }
}

impl Guide for ServiceIndex {
    fn ask() -> Option<Ask> {
        Some(Ask { path: String::new(), accept: "application/json", grows: false })
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: &'static str| Error::invalid(Subject::Upstream, what);
        let index: Read = serde_json::from_slice(bytes)
            .map_err(|error| wrong("this is no service index; the address of an upstream is that of its index.json").because(error))?;
        if index.version.split('.').next() != Some("3") {
            return Err(wrong("this is no service index of the third version"));
        }
        let find = |names: &[&str]| {
            let found = names.iter().find_map(|name| index.resources.iter().find(|resource| resource.is(name)));
            found.and_then(|resource| resource.id.as_str()).map(str::to_owned)
        };
        let folder = |names: &[&str]| find(names).map(|place| format!("{}/", place.trim_end_matches('/')));
        // Each hive may be all that an upstream has; what does not belong is left out here.
        let old = || [&GZIP[..], &PLAIN].concat();
        Ok(Self(Arc::new(Places {
            flat: folder(&FLAT).ok_or_else(|| wrong("the upstream's service index names no place of packages"))?,
            semver2: folder(&[&SEMVER2[..], &old()].concat()),
            plain: folder(&[old(), SEMVER2.to_vec()].concat()),
            search: find(&SEARCH),
            autocomplete: find(&AUTOCOMPLETE),
            vulnerabilities: find(&VULNERABILITIES),
            readme: find(&README),
        })))
    }
}

impl ServiceIndex {
    /// Where packages are, with a slash at its end.
    #[must_use]
    pub fn flat(&self) -> &str {
        &self.0.flat
    }

    /// Where registrations are, with a slash at its end; those with all versions or those for older clients.
    #[must_use]
    pub fn registrations(&self, semver2: bool) -> Option<&str> {
        if semver2 { self.0.semver2.as_deref() } else { self.0.plain.as_deref() }
    }

    /// Where to search.
    #[must_use]
    pub fn search(&self) -> Option<&str> {
        self.0.search.as_deref()
    }

    /// Where ids are completed.
    #[must_use]
    pub fn autocomplete(&self) -> Option<&str> {
        self.0.autocomplete.as_deref()
    }

    /// Where the list of pages of vulnerabilities is.
    #[must_use]
    pub fn vulnerabilities(&self) -> Option<&str> {
        self.0.vulnerabilities.as_deref()
    }

    /// Where the readme of a version is.
    #[must_use]
    pub fn readme(&self, id: &str, version: &str) -> Option<String> {
        self.0.readme.as_ref().map(|template| template.replace("{lower_id}", id).replace("{lower_version}", version))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The index of an upstream at an address, with places of these names.
    pub(in super::super) fn index(places: &[(&str, &str)]) -> Result<ServiceIndex> {
        let resources: Vec<Value> = places.iter().map(|(kind, id)| json!({ "@id": id, "@type": kind })).collect();
        ServiceIndex::parse(json!({ "version": "3.0.0", "resources": resources }).to_string().as_bytes())
    }

    #[test]
    fn ours_has_every_name_that_clients_look_for() {
        let index = render(&BaseUrl::new("https://h/nuget/acme"));
        let found = |name: &str| {
            let of = |one: &&Value| one["@type"] == name;
            let all: Vec<&Value> = index["resources"].as_array().unwrap().iter().filter(of).collect();
            assert_eq!(all.len(), 1, "{name}");
            all[0]["@id"].as_str().unwrap().to_owned()
        };
        assert_eq!(index["version"], "3.0.0");
        assert_eq!(found("PackageBaseAddress/3.0.0"), "https://h/nuget/acme/download/");
        for (name, segment) in [
            ("RegistrationsBaseUrl", "registration"),
            ("RegistrationsBaseUrl/3.0.0-beta", "registration"),
            ("RegistrationsBaseUrl/3.0.0-rc", "registration"),
            ("RegistrationsBaseUrl/3.4.0", "registration-gz"),
            ("RegistrationsBaseUrl/3.6.0", "registration-gz-semver2"),
            ("RegistrationsBaseUrl/Versioned", "registration-gz-semver2"),
        ] {
            assert_eq!(found(name), format!("https://h/nuget/acme/{segment}/"));
        }
        for name in SEARCH.iter().chain(&AUTOCOMPLETE).chain(&PUSH).chain(&PUSH_SYMBOLS).chain(&VULNERABILITIES).chain(&README) {
            found(name);
        }
        // Named over http it makes clients fail, and unsigned packages are refused where it says that all are signed.
        assert!(!index.to_string().contains("RepositorySignatures"));
    }

    #[test]
    fn an_upstreams_is_read_as_the_client_reads_it() {
        let all = index(&[
            ("PackageBaseAddress/3.0.0", "https://a/flat"),
            ("RegistrationsBaseUrl", "https://a/plain/"),
            ("RegistrationsBaseUrl/3.4.0", "https://a/gz/"),
            ("RegistrationsBaseUrl/3.6.0", "https://a/gz2/"),
            ("SearchQueryService", "https://a/old"),
            ("SearchQueryService/3.4.0", "https://a/query"),
            ("ReadmeUriTemplate/6.13.0", "https://a/{lower_id}/{lower_version}/readme"),
        ])
        .unwrap();
        assert_eq!((all.flat(), all.search(), all.autocomplete()), ("https://a/flat/", Some("https://a/query"), None));
        assert_eq!((all.registrations(true), all.registrations(false)), (Some("https://a/gz2/"), Some("https://a/gz/")));
        assert_eq!(all.readme("x", "1.0.0").as_deref(), Some("https://a/x/1.0.0/readme"));
        let one = index(&[("PackageBaseAddress/3.0.0", "https://a/"), ("RegistrationsBaseUrl/3.6.0", "https://a/r")]).unwrap();
        assert_eq!(one.registrations(false), Some("https://a/r/"));
        let listed = br#"{"version":"3.0.0-beta","resources":[{"@id":"https://a","@type":["x","PackageBaseAddress/3.0.0"]}]}"#;
        assert_eq!(ServiceIndex::parse(listed).unwrap().flat(), "https://a/");
        for wrong in ["<html>", "{}", r#"{"version":"2.0","resources":[]}"#, r#"{"version":"3.0.0","resources":[]}"#] {
            assert!(ServiceIndex::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
