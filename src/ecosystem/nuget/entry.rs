//! What a registration says of one version.
//!
//! A hosted version's entry is made of its specification. An upstream's is read by the names of its members: servers
//! differ in whether a text is a text or a list, and in what they leave out, and clients give up at what they do not
//! expect, so what is read is brought into one shape. No address of an upstream stays in it that we serve ourselves,
//! and members that nobody here knows are left out, since they might hold one.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::nuspec::{Dependency, Group, Nuspec, PackageType, lower};
use super::route::{Hive, Kept};
use super::version::{self, Version};
use crate::digest::Algorithm;
use crate::error::{Error, Result, Subject};
use crate::format::BaseUrl;
use crate::http::path;
use crate::name::PackageName;
use crate::package;

/// The instant at which a version that is not listed was published, as clients know it.
const UNLISTED: &str = "1900-01-01T00:00:00+00:00";

/// An address that is served here, or stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// One of the version's files.
    Ours,
    /// Somewhere else.
    Elsewhere(String),
}

/// What is said of a version.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The id, as it is written.
    pub id: String,
    /// The version, with its metadata.
    pub version: Version,
    /// Whether it is shown to those who do not ask for it.
    pub listed: bool,
    /// When it was published, with an offset.
    pub published: String,
    /// What people call it.
    pub title: Option<String>,
    /// Who made it, separated by commas.
    pub authors: String,
    /// What it is.
    pub description: Option<String>,
    /// The same in short.
    pub summary: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Its icon.
    pub icon: Option<Address>,
    /// Its readme, which is always ours.
    pub readme: bool,
    /// Its licence's page.
    pub license: Option<Address>,
    /// Its licence as an SPDX expression.
    pub license_expression: Option<String>,
    /// Its page.
    pub project_url: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// The oldest client that can use it.
    pub min_client_version: Option<String>,
    /// Whether the licence is to be accepted first.
    pub require_license_acceptance: bool,
    /// What it needs.
    pub groups: Vec<Group>,
    /// What kinds of package it is.
    pub package_types: Vec<PackageType>,
    /// Why it should not be used.
    pub deprecation: Option<Deprecation>,
    /// What is known to be wrong with it: the address that tells of it, and how bad it is.
    pub vulnerabilities: Vec<(String, String)>,
    /// The SHA-512 of its package in Base64, and the package's size in bytes.
    pub hash: Option<(String, u64)>,
}

/// Why a version should not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deprecation {
    /// In words that clients know.
    pub reasons: Vec<String>,
    /// In words for people.
    pub message: Option<String>,
    /// What to use instead: id and range.
    pub alternate: Option<(String, String)>,
}

impl Entry {
    /// A hosted version's.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn of_record(record: &package::Version) -> Result<Self> {
        let nuspec: Nuspec = serde_json::from_str(record.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))?;
        let version = nuspec.parsed_version()?;
        let kept = |kept: Kept| record.files.iter().any(|file| Kept::of_file(&file.name) == Some(kept));
        let package = record.files.iter().find(|file| Kept::of_file(&file.name) == Some(Kept::Package));
        let hash = package.and_then(|file| Some((base64_sha512(file)?, file.size)));
        let address = |embedded: Kept, url: Option<String>| if kept(embedded) { Some(Address::Ours) } else { url.and_then(elsewhere) };
        let deprecation = record.deprecated.as_ref().map(|message| Deprecation {
            reasons: vec!["Other".to_owned()],
            message: Some(message.clone()).filter(|message| !message.is_empty()),
            alternate: None,
        });
        let listed = record.unlisted.is_none();
        Ok(Self {
            id: nuspec.id,
            version,
            listed,
            published: if listed { instant(&record.created_at.to_string()) } else { UNLISTED.to_owned() },
            title: nuspec.title,
            authors: nuspec.authors,
            description: nuspec.description,
            summary: nuspec.summary,
            tags: nuspec.tags,
            icon: address(Kept::Icon, nuspec.icon_url),
            readme: kept(Kept::Readme),
            license: address(Kept::License, nuspec.license_url),
            license_expression: nuspec.license_expression,
            project_url: nuspec.project_url.filter(|url| is_web(url)),
            language: nuspec.language,
            min_client_version: nuspec.min_client_version,
            require_license_acceptance: nuspec.require_license_acceptance,
            groups: nuspec.dependency_groups,
            package_types: nuspec.package_types,
            deprecation,
            vulnerabilities: Vec::new(),
            hash,
        })
    }

    /// Whether clients before the second version of SemVer cannot read it, or what it needs.
    #[must_use]
    pub fn is_semver2(&self) -> bool {
        let needs = self.groups.iter().flat_map(|group| &group.dependencies);
        self.version.is_semver2() || needs.into_iter().any(|dependency| version::range_is_semver2(&dependency.range))
    }

    /// The authors, one by one.
    #[must_use]
    pub fn author_list(&self) -> Vec<&str> {
        self.authors.split(',').map(str::trim).filter(|author| !author.is_empty()).collect()
    }

    /// The kinds of package that it is; one that says nothing is a dependency.
    #[must_use]
    pub fn type_names(&self) -> Vec<&str> {
        if self.package_types.is_empty() { vec!["Dependency"] } else { self.package_types.iter().map(|kind| kind.name.as_str()).collect() }
    }

    /// The entry as registrations show it.
    #[must_use]
    pub fn view(&self, links: &Links<'_>, hive: Hive) -> Map<String, Value> {
        let key = self.version.key();
        let mut view = Map::new();
        let mut put = |name: &str, value: Value| drop(view.insert(name.to_owned(), value));
        put("@id", links.entry(&key).into());
        put("@type", "PackageDetails".into());
        put("id", self.id.as_str().into());
        put("version", self.version.to_string().into());
        put("authors", self.authors.as_str().into());
        put("description", self.description.as_deref().unwrap_or_default().into());
        put("listed", self.listed.into());
        put("published", self.published.as_str().into());
        put("packageContent", links.file(&key, Kept::Package).into());
        put("requireLicenseAcceptance", self.require_license_acceptance.into());
        put("tags", json!(self.tags));
        put("dependencyGroups", self.groups.iter().map(|group| group_view(group, links, hive)).collect());
        let texts = [
            ("title", self.title.as_deref()),
            ("summary", self.summary.as_deref()),
            ("licenseExpression", self.license_expression.as_deref()),
            ("projectUrl", self.project_url.as_deref()),
            ("language", self.language.as_deref()),
            ("minClientVersion", self.min_client_version.as_deref()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                put(name, text.into());
            }
        }
        if let Some(icon) = links.address(self.icon.as_ref(), &key, Kept::Icon) {
            put("iconUrl", icon.into());
        }
        if let Some(license) = links.address(self.license.as_ref(), &key, Kept::License) {
            put("licenseUrl", license.into());
        }
        if self.readme {
            put("readmeUrl", links.file(&key, Kept::Readme).into());
        }
        if !self.package_types.is_empty() {
            put("packageTypes", json!(self.package_types));
        }
        if let Some(deprecation) = &self.deprecation {
            put("deprecation", deprecation.view());
        }
        if !self.vulnerabilities.is_empty() {
            let known = self.vulnerabilities.iter().map(|(url, severity)| json!({ "advisoryUrl": url, "severity": severity }));
            put("vulnerabilities", known.collect());
        }
        if let Some((hash, size)) = &self.hash {
            put("packageHash", hash.as_str().into());
            put("packageHashAlgorithm", "SHA512".into());
            put("packageSize", (*size).into());
        }
        view
    }
}

impl Deprecation {
    fn view(&self) -> Value {
        let mut view = json!({ "reasons": self.reasons });
        if let (Some(message), Some(view)) = (&self.message, view.as_object_mut()) {
            view.insert("message".to_owned(), message.as_str().into());
        }
        if let (Some((id, range)), Some(view)) = (&self.alternate, view.as_object_mut()) {
            view.insert("alternatePackage".to_owned(), json!({ "id": id, "range": range }));
        }
        view
    }
}

fn group_view(group: &Group, links: &Links<'_>, hive: Hive) -> Value {
    let needs: Vec<Value> = group
        .dependencies
        .iter()
        .map(|one| json!({ "id": one.id, "range": one.range, "registration": links.registration_of(hive, &lower(&one.id)) }))
        .collect();
    let mut view = Map::new();
    view.extend(group.framework.as_ref().map(|framework| ("targetFramework".to_owned(), framework.as_str().into())));
    if !needs.is_empty() {
        view.insert("dependencies".to_owned(), needs.into());
    }
    view.into()
}

/// Addresses of what is served here of one package.
#[derive(Clone, Copy, Debug)]
pub struct Links<'a> {
    /// The tree that they are in.
    pub at: &'a BaseUrl,
    /// The package.
    pub name: &'a PackageName,
}

impl Links<'_> {
    /// A version's file. `key` is the version's.
    #[must_use]
    pub fn file(&self, key: &str, kept: Kept) -> String {
        let segment = kept.segment(self.name, key);
        format!("{}/download/{}/{}/{}", self.at.as_str(), self.id(), path::encode(key), path::encode(&segment))
    }

    /// The registrations of this package.
    #[must_use]
    pub fn registration(&self, hive: Hive) -> String {
        self.registration_of(hive, self.name.as_str())
    }

    fn registration_of(&self, hive: Hive, id: &str) -> String {
        format!("{}/{}/{}/index.json", self.at.as_str(), hive.segment(), path::encode(id))
    }

    /// One page of them.
    #[must_use]
    pub fn page(&self, hive: Hive, lower: &str, upper: &str) -> String {
        let (lower, upper) = (path::encode(lower), path::encode(upper));
        format!("{}/{}/{}/page/{lower}/{upper}.json", self.at.as_str(), hive.segment(), self.id())
    }

    /// One of them.
    #[must_use]
    pub fn leaf(&self, hive: Hive, key: &str) -> String {
        format!("{}/{}/{}/{}.json", self.at.as_str(), hive.segment(), self.id(), path::encode(key))
    }

    /// What is said of a version, alone.
    #[must_use]
    pub fn entry(&self, key: &str) -> String {
        format!("{}/catalog/{}/{}.json", self.at.as_str(), self.id(), path::encode(key))
    }

    /// An address that is ours or elsewhere.
    #[must_use]
    pub fn address(&self, address: Option<&Address>, key: &str, kept: Kept) -> Option<String> {
        address.map(|address| match address {
            Address::Ours => self.file(key, kept),
            Address::Elsewhere(url) => url.clone(),
        })
    }

    fn id(&self) -> std::borrow::Cow<'_, str> {
        path::encode(self.name.as_str())
    }
}

/// An upstream's entry, whose members may be of any type.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Raw {
    id: Value,
    version: Value,
    listed: Value,
    published: Value,
    title: Value,
    authors: Value,
    description: Value,
    summary: Value,
    tags: Value,
    icon_url: Value,
    readme_url: Value,
    license_url: Value,
    license_expression: Value,
    project_url: Value,
    language: Value,
    min_client_version: Value,
    require_license_acceptance: Value,
    dependency_groups: Value,
    package_types: Value,
    deprecation: Value,
    vulnerabilities: Value,
}

impl Raw {
    /// The entry of a package; `None` when it is another's or has no version.
    #[must_use]
    pub fn read(&self, name: &PackageName) -> Option<Entry> {
        let id = text(&self.id).filter(|id| lower(id) == name.as_str())?;
        let version = Version::parse(&text(&self.version)?)?;
        let published = text(&self.published).map(|text| instant(&text)).unwrap_or_default();
        let listed = truth(&self.listed).unwrap_or(true) && !published.starts_with("1900");
        let own = |url: &Value, kept: Kept| address(url, name, &version, kept);
        let icon = own(&self.icon_url, Kept::Icon);
        let readme = own(&self.readme_url, Kept::Readme) == Some(Address::Ours);
        let license = own(&self.license_url, Kept::License);
        Some(Entry {
            id,
            listed,
            published: if listed && !published.is_empty() { published } else { UNLISTED.to_owned() },
            title: text(&self.title),
            authors: list(&self.authors, &[]).join(", "),
            description: text(&self.description),
            summary: text(&self.summary),
            tags: list(&self.tags, &[' ', ',', ';']),
            icon,
            readme,
            license,
            license_expression: text(&self.license_expression),
            project_url: text(&self.project_url).filter(|url| is_web(url)),
            language: text(&self.language),
            min_client_version: text(&self.min_client_version),
            require_license_acceptance: truth(&self.require_license_acceptance).unwrap_or_default(),
            groups: members(&self.dependency_groups).map(group).collect(),
            package_types: package_types(&self.package_types),
            deprecation: self.deprecation.as_object().map(deprecation),
            vulnerabilities: members(&self.vulnerabilities)
                .filter_map(|one| Some((text(&one["advisoryUrl"]).filter(|url| is_web(url))?, text(&one["severity"]).unwrap_or_default())))
                .collect(),
            hash: None,
            version,
        })
    }
}

/// An address in an upstream's document: ours if it is that of a file that we serve.
#[must_use]
pub fn address(value: &Value, name: &PackageName, version: &Version, kept: Kept) -> Option<Address> {
    let url = text(value)?;
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let file = format!("/{}/{}/{}", path::encode(name.as_str()), path::encode(&version.key()), kept.ending());
    if path.ends_with(&file.to_ascii_lowercase()) { Some(Address::Ours) } else { elsewhere(url) }
}

fn elsewhere(url: String) -> Option<Address> {
    is_web(&url).then_some(Address::Elsewhere(url))
}

/// Whether a text is an address that a browser may be sent to.
#[must_use]
pub fn is_web(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| scheme == "https" || scheme == "http") && !text.chars().any(|c| c.is_control() || c == ' ')
}

fn group(value: &Value) -> Group {
    let needs = members(&value["dependencies"]).filter_map(|one| {
        let id = text(&one["id"])?;
        Some(Dependency { id, range: version::range(&text(&one["range"]).unwrap_or_default()) })
    });
    Group { framework: text(&value["targetFramework"]), dependencies: needs.collect() }
}

/// Kinds of package as an upstream lists them.
#[must_use]
pub fn package_types(value: &Value) -> Vec<PackageType> {
    members(value).filter_map(|one| Some(PackageType { name: text(&one["name"])?, version: text(&one["version"]) })).collect()
}

fn deprecation(of: &Map<String, Value>) -> Deprecation {
    let of = |name: &str| of.get(name).unwrap_or(&Value::Null);
    let alternate = of("alternatePackage");
    let id = text(&alternate["id"]);
    Deprecation {
        reasons: list(of("reasons"), &[]),
        message: text(of("message")),
        alternate: id.map(|id| (id, text(&alternate["range"]).unwrap_or_else(|| "*".to_owned()))),
    }
}

fn members(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten().take(10_000)
}

/// A text, whatever it was written as; `None` for nothing and for no words.
#[must_use]
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Array(_) => Some(list(value, &[]).join(", ")).filter(|text| !text.is_empty()),
        Value::Null | Value::Object(_) => None,
    }
}

/// A list of texts, also where it was written as one text; it is cut at these characters then.
#[must_use]
pub fn list(value: &Value, cut: &[char]) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter(|value| !value.is_array()).filter_map(text).collect(),
        Value::String(text) if !cut.is_empty() => text.split(cut).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        other => text(other).into_iter().collect(),
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// An instant as clients read it: with an offset. Empty for what is none.
fn instant(text: &str) -> String {
    let date = text.get(..19).filter(|date| {
        let digits = |range: std::ops::Range<usize>| date.as_bytes()[range].iter().all(u8::is_ascii_digit);
        digits(0..4) && digits(5..7) && digits(8..10) && digits(11..13) && digits(14..16) && digits(17..19)
    });
    let Some(date) = date else { return String::new() };
    let rest = text[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    match rest {
        "" | "Z" | "z" => format!("{date}+00:00"),
        offset if offset.len() == 6 && offset.is_ascii() && offset.starts_with(['+', '-']) => format!("{date}{offset}"),
        _ => String::new(),
    }
}

/// The SHA-512 of a file as clients write it.
#[must_use]
pub fn base64_sha512(file: &package::File) -> Option<String> {
    use base64::Engine as _;
    file.digest(Algorithm::Sha512).map(|digest| base64::engine::general_purpose::STANDARD.encode(digest.bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::route;
    use super::*;

    fn read(value: Value) -> Option<Entry> {
        serde_json::from_value::<Raw>(value).unwrap().read(&route::id("acme.tool").unwrap())
    }

    fn view(entry: &Entry) -> Value {
        let (at, name) = (BaseUrl::new("https://h/nuget"), route::id("acme.tool").unwrap());
        entry.view(&Links { at: &at, name: &name }, Hive::Semver2).into()
    }

    #[test]
    fn an_upstreams_entry_is_brought_into_one_shape() {
        let entry = read(json!({
            "@id": "https://up/catalog0/data/x.json", "id": "Acme.Tool", "version": "1.0.0-Beta+sha", "authors": ["Ann", "Bob"], "tags": "one two",
            "listed": "true", "published": "2024-02-03T04:05:06.789Z", "iconUrl": "https://up/flat/acme.tool/1.0.0-beta/icon",
            "licenseUrl": "https://www.example/license", "projectUrl": "javascript:alert(1)", "readmeUrl": "https://up/flat/Acme.Tool/1.0.0-beta/readme",
            "packageContent": "https://up/flat/acme.tool/1.0.0-beta/acme.tool.1.0.0-beta.nupkg", "unknown": "https://up/secret",
            "dependencyGroups": [{ "@id": "https://up/g", "targetFramework": "net8.0", "dependencies": [
                { "@id": "https://up/d", "id": "Base", "range": "[1.0, )", "registration": "https://up/base/index.json" }] }, {}],
            "deprecation": { "@id": "https://up/dep", "reasons": ["Legacy"], "message": "use another", "alternatePackage": { "id": "New", "range": "*" } },
            "vulnerabilities": [{ "@id": "https://up/v", "advisoryUrl": "https://advisories.example/1", "severity": 2 }],
        }))
        .unwrap();
        let shown = view(&entry);
        assert!(!shown.to_string().contains("https://up"), "{shown}");
        for (name, value) in [
            ("@id", json!("https://h/nuget/catalog/acme.tool/1.0.0-beta.json")),
            ("version", json!("1.0.0-Beta+sha")),
            ("authors", json!("Ann, Bob")),
            ("tags", json!(["one", "two"])),
            ("published", json!("2024-02-03T04:05:06+00:00")),
            ("iconUrl", json!("https://h/nuget/download/acme.tool/1.0.0-beta/icon")),
            ("readmeUrl", json!("https://h/nuget/download/acme.tool/1.0.0-beta/readme")),
            ("licenseUrl", json!("https://www.example/license")),
            ("packageContent", json!("https://h/nuget/download/acme.tool/1.0.0-beta/acme.tool.1.0.0-beta.nupkg")),
            ("vulnerabilities", json!([{ "advisoryUrl": "https://advisories.example/1", "severity": "2" }])),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        let need = &shown["dependencyGroups"][0]["dependencies"][0];
        assert_eq!(need["registration"], "https://h/nuget/registration-gz-semver2/base/index.json");
        assert_eq!((&need["range"], &shown["dependencyGroups"][1]), (&json!("[1.0.0, )"), &json!({})));
        assert_eq!(
            shown["deprecation"],
            json!({ "reasons": ["Legacy"], "message": "use another", "alternatePackage": { "id": "New", "range": "*" } })
        );
        assert!(shown.get("projectUrl").is_none() && shown.get("unknown").is_none());
    }

    #[test]
    fn what_is_left_out_or_odd_breaks_nothing() {
        let bare = read(json!({ "id": "acme.tool", "version": "1.0" })).unwrap();
        assert!(bare.listed);
        let shown = view(&bare);
        assert_eq!((&shown["published"], &shown["authors"], &shown["tags"]), (&json!(UNLISTED), &json!(""), &json!([])));
        let odd = read(json!({
            "id": "ACME.Tool", "version": 1, "listed": null, "published": "yesterday", "authors": null, "tags": [1, [2], null, {}],
            "dependencyGroups": "none", "deprecation": [], "vulnerabilities": {}, "packageTypes": [null, { "name": "Tool" }],
        }))
        .unwrap();
        assert_eq!((odd.version.key().as_str(), odd.tags.len(), odd.type_names()), ("1.0.0", 1, vec!["Tool"]));
        for hidden in [json!({ "listed": false }), json!({ "published": "1900-01-01T00:00:00Z" })] {
            let mut entry = json!({ "id": "acme.tool", "version": "1.0" });
            entry.as_object_mut().unwrap().extend(hidden.as_object().unwrap().clone());
            let entry = read(entry).unwrap();
            assert!(!entry.listed && entry.published == UNLISTED);
        }
        for wrong in [json!({}), json!({ "id": "other", "version": "1.0" }), json!({ "id": "acme.tool", "version": "x" })] {
            assert!(read(wrong).is_none());
        }
    }

    #[test]
    fn instants_have_an_offset() {
        assert_eq!(instant("2024-02-03T04:05:06+02:00"), "2024-02-03T04:05:06+02:00");
        assert_eq!(instant("2024-02-03T04:05:06"), "2024-02-03T04:05:06+00:00");
        for wrong in ["", "2024", "2024-02-03", "yesterday at this time", "2024-02-03T04:05:06 EST", "2024-02-03T04:05:0\u{e9}Z"] {
            assert_eq!(instant(wrong), "", "{wrong}");
        }
    }
}
