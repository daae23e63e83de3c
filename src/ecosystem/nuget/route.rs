//! NuGet's request paths, as typed requests.
//!
//! The tree of an owner begins with the owner: `OWNER/index.json`. The tree of all has a few words at its beginning, and
//! an account with such a name has no tree of its own. Ids and versions are taken in any case and spelling, since some
//! clients ask as they read it somewhere, and mean one package all the same.

use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Method, path};
use crate::name::{OwnerName, PackageName};

use super::nuspec;
use super::version::Version;

/// A request that the clients make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the path's own parts")]
pub enum Route {
    /// `GET index.json`.
    Index,
    /// `GET download/ID/index.json`.
    Versions { name: PackageName },
    /// `GET download/ID/VERSION/FILE`.
    File { name: PackageName, version: Version, kind: Kept },
    /// `GET HIVE/ID/index.json`.
    Registration { name: PackageName, hive: Hive },
    /// `GET HIVE/ID/page/LOWER/UPPER.json`.
    Page { name: PackageName, hive: Hive, lower: Version, upper: Version },
    /// `GET HIVE/ID/VERSION.json`.
    Leaf { name: PackageName, hive: Hive, version: Version },
    /// `GET catalog/ID/VERSION.json`.
    Entry { name: PackageName, version: Version },
    /// `GET query`.
    Search,
    /// `GET autocomplete`.
    Autocomplete,
    /// `GET vulnerabilities/index.json`.
    Vulnerabilities,
    /// `GET vulnerabilities/PAGE.json`.
    VulnerabilityPage { page: String },
    /// `PUT package`.
    Push,
    /// `PUT symbolpackage`.
    PushSymbols,
    /// `DELETE package/ID/VERSION`.
    Unlist { name: PackageName, version: Version },
    /// `POST package/ID/VERSION`.
    Relist { name: PackageName, version: Version },
}

/// The files of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The package.
    Package,
    /// The SHA-512 of the package, in Base64.
    PackageHash,
    /// Its specification.
    Nuspec,
    /// Its symbols.
    Symbols,
    /// The icon in it.
    Icon,
    /// The readme in it.
    Readme,
    /// The licence in it.
    License,
}

impl Kept {
    /// What its name ends in, after `ID.VERSION.`.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Package => "nupkg",
            Self::PackageHash => "nupkg.sha512",
            Self::Nuspec => "nuspec",
            Self::Symbols => "snupkg",
            Self::Icon => "icon",
            Self::Readme => "readme",
            Self::License => "license",
        }
    }

    /// The last segment of the address of a version's file.
    #[must_use]
    pub fn segment(self, name: &PackageName, version: &str) -> String {
        match self {
            Self::Package | Self::PackageHash | Self::Symbols => file(name, version, self),
            Self::Nuspec => format!("{name}.nuspec"),
            Self::Icon | Self::Readme | Self::License => self.ending().to_owned(),
        }
    }

    /// What a file's name among the package's says that it is.
    #[must_use]
    pub fn of_file(file: &str) -> Option<Self> {
        let ending = file.rsplit('.').next()?;
        [Self::Package, Self::Nuspec, Self::Symbols, Self::Icon, Self::Readme, Self::License]
            .into_iter()
            .find(|kept| kept.ending() == ending)
    }
}

/// The name of a version's file among the package's. `version` is the version's key.
#[must_use]
pub fn file(name: &PackageName, version: &str, kept: Kept) -> String {
    format!("{name}.{version}.{}", kept.ending())
}

/// The version and the kind of a file by its name among the package's.
#[must_use]
pub fn of_file<'a>(name: &PackageName, file: &'a str) -> Option<(&'a str, Kept)> {
    let kept = Kept::of_file(file)?;
    let version = file.strip_prefix(name.as_str())?.strip_prefix('.')?.strip_suffix(kept.ending())?.strip_suffix('.')?;
    Some((version, kept))
}

/// The registrations come three times: clients differ in what they can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hive {
    /// As they are, without versions of the second SemVer.
    Plain,
    /// Compressed, without versions of the second SemVer.
    Gzip,
    /// Compressed, with all versions.
    Semver2,
}

impl Hive {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Gzip, Self::Semver2];

    /// The first segment of its addresses.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Plain => "registration",
            Self::Gzip => "registration-gz",
            Self::Semver2 => "registration-gz-semver2",
        }
    }
}

/// First segments of the tree of all.
const WORDS: [&str; 11] = [
    "index.json",
    "download",
    "registration",
    "registration-gz",
    "registration-gz-semver2",
    "catalog",
    "query",
    "autocomplete",
    "vulnerabilities",
    "package",
    "symbolpackage",
];

/// What clients put before `package` that were told no more than a host.
const OLD: [&str; 2] = ["api", "v2"];

/// Cuts a path into its segments; the slash at its end says nothing.
///
/// # Errors
/// `Invalid` for a path that no request can mean.
pub fn segments(raw: &str) -> Result<Vec<String>> {
    let segments = path::segments(raw).map_err(|_| malformed())?;
    let segments: Vec<String> = segments.into_iter().map(std::borrow::Cow::into_owned).filter(|segment| !segment.is_empty()).collect();
    if segments.iter().any(|segment| segment.contains('/')) { Err(malformed()) } else { Ok(segments) }
}

fn malformed() -> Error {
    Error::invalid(Subject::Route, "the path is malformed")
}

/// The owner with which a path may begin.
#[must_use]
pub fn owner(segments: &[String]) -> Option<OwnerName> {
    let first = segments.first()?.to_ascii_lowercase();
    if WORDS.contains(&first.as_str()) || first == OLD[0] { None } else { OwnerName::new(&first).ok() }
}

/// Reads a path below the tree's beginning.
///
/// # Errors
/// `NotFound` for what is no route or no package's id, `Invalid` for a version that is none where one is written to,
/// `MethodNotAllowed` for a route under another method.
pub fn parse(method: &Method, segments: &[String]) -> Result<Route> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let parts = parts.strip_prefix(&OLD[..]).unwrap_or(&parts);
    if method == Method::GET || method == Method::HEAD {
        return reading(parts);
    }
    let written = match (method, parts) {
        (&Method::PUT | &Method::POST, [] | ["package"]) => Route::Push,
        (&Method::PUT | &Method::POST, ["symbolpackage"]) => Route::PushSymbols,
        (&Method::DELETE, ["package", name, version]) => Route::Unlist { name: id(name)?, version: written(version)? },
        (&Method::POST, ["package", name, version]) => Route::Relist { name: id(name)?, version: written(version)? },
        _ => return Err(Error::new(Kind::MethodNotAllowed, Subject::Route)),
    };
    Ok(written)
}

fn written(text: &str) -> Result<Version> {
    Version::parse(text).ok_or_else(|| Error::invalid(Subject::Version, "the version is none that NuGet knows"))
}

fn reading(parts: &[&str]) -> Result<Route> {
    let absent = || Error::not_found(Subject::Route);
    let hive = |segment: &str| Hive::ALL.into_iter().find(|hive| hive.segment() == segment);
    Ok(match parts {
        ["index.json"] => Route::Index,
        ["download", name, "index.json"] => Route::Versions { name: id(name)? },
        ["download", name, version, file] => {
            let (name, version) = (id(name)?, known(version)?);
            let kind = kept(&name, &version, file).ok_or_else(|| Error::not_found(Subject::File))?;
            Route::File { name, version, kind }
        }
        ["query"] => Route::Search,
        ["autocomplete"] => Route::Autocomplete,
        ["catalog", name, file] => Route::Entry { name: id(name)?, version: known(json(file)?)? },
        ["vulnerabilities", "index.json"] => Route::Vulnerabilities,
        ["vulnerabilities", file] => Route::VulnerabilityPage { page: json(file)?.to_owned() },
        [first, name, "index.json"] => Route::Registration { hive: hive(first).ok_or_else(absent)?, name: id(name)? },
        [first, name, "page", lower, upper] => {
            Route::Page { hive: hive(first).ok_or_else(absent)?, name: id(name)?, lower: known(lower)?, upper: known(json(upper)?)? }
        }
        [first, name, file] => Route::Leaf { hive: hive(first).ok_or_else(absent)?, name: id(name)?, version: known(json(file)?)? },
        [] | ["package" | "symbolpackage", ..] => return Err(Error::new(Kind::MethodNotAllowed, Subject::Route)),
        _ => return Err(absent()),
    })
}

fn json(file: &str) -> Result<&str> {
    file.strip_suffix(".json").ok_or_else(|| Error::not_found(Subject::Route))
}

fn known(text: &str) -> Result<Version> {
    Version::parse(text).ok_or_else(|| Error::not_found(Subject::Version))
}

/// Which file of a version the last segment means, if it is one of this package and this version.
fn kept(name: &PackageName, version: &Version, file: &str) -> Option<Kept> {
    let file = nuspec::lower(file);
    if let Some(plain) = [Kept::Icon, Kept::Readme, Kept::License].into_iter().find(|kept| kept.ending() == file) {
        return Some(plain);
    }
    if file.strip_suffix(".nuspec") == Some(name.as_str()) {
        return Some(Kept::Nuspec);
    }
    // The hash's ending has the package's in it.
    let kinds = [Kept::PackageHash, Kept::Package, Kept::Symbols];
    let (rest, kept) = kinds.into_iter().find_map(|kept| Some((file.strip_suffix(kept.ending())?.strip_suffix('.')?, kept)))?;
    let of = rest.strip_prefix(name.as_str())?.strip_prefix('.')?;
    (Version::parse(of)?.key() == version.key()).then_some(kept)
}

/// A package's name, by its id in any case.
///
/// # Errors
/// `NotFound` for what no package can be called.
pub fn id(text: &str) -> Result<PackageName> {
    let name = Some(text).filter(|text| nuspec::is_id(text)).and_then(|text| PackageName::new(&nuspec::lower(text)).ok());
    name.ok_or_else(|| Error::not_found(Subject::Package))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, path: &str) -> Result<Route> {
        parse(method, &segments(path)?)
    }

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn reads_what_clients_ask() {
        let name = || id("Acme.Tool").unwrap();
        let file = |kind| Route::File { name: name(), version: version("1.0.0"), kind };
        for (path, route) in [
            ("/index.json", Route::Index),
            ("/download/acme.tool/index.json", Route::Versions { name: name() }),
            ("/download/acme.tool/1.0.0/acme.tool.1.0.0.nupkg", file(Kept::Package)),
            ("/download/Acme.Tool/1.0/Acme.Tool.1.0.0.0.nupkg", file(Kept::Package)),
            ("/download/acme.tool/1.0.0%2Bsha/acme.tool.1.0.0.nupkg.sha512", file(Kept::PackageHash)),
            ("/download/acme.tool/1.0.0/acme.tool.nuspec", file(Kept::Nuspec)),
            ("/download/acme.tool/1.0.0/icon", file(Kept::Icon)),
            ("/download/acme.tool/1.0.0/acme.tool.1.0.0.snupkg", file(Kept::Symbols)),
            ("/registration/acme.tool/index.json", Route::Registration { name: name(), hive: Hive::Plain }),
            ("/registration-gz/acme.tool/1.0.0.json", Route::Leaf { name: name(), hive: Hive::Gzip, version: version("1.0.0") }),
            (
                "/registration-gz-semver2/acme.tool/page/1.0.0/2.0.0-a.b.json",
                Route::Page { name: name(), hive: Hive::Semver2, lower: version("1.0.0"), upper: version("2.0.0-a.b") },
            ),
            ("/catalog/acme.tool/1.0.0.json", Route::Entry { name: name(), version: version("1.0.0") }),
            ("/query", Route::Search),
            ("/vulnerabilities/base.json", Route::VulnerabilityPage { page: "base".into() }),
        ] {
            assert_eq!(read(&Method::GET, path).unwrap(), route, "{path}");
        }
        for path in ["/package/", "/package", "/", "/api/v2/package/"] {
            assert_eq!(read(&Method::PUT, path).unwrap(), Route::Push, "{path}");
        }
        let unlist = Route::Unlist { name: name(), version: version("1.0.0") };
        assert_eq!(read(&Method::DELETE, "/package/Acme.Tool/1.0.0+x").unwrap(), unlist);
        assert_eq!(read(&Method::DELETE, "/api/v2/package/Acme.Tool/1.0").unwrap(), unlist);
        assert!(matches!(read(&Method::POST, "/package/a/1.0").unwrap(), Route::Relist { .. }));
        assert_eq!(read(&Method::PUT, "/symbolpackage/").unwrap(), Route::PushSymbols);
    }

    #[test]
    fn what_means_nothing_is_absent_or_refused() {
        for path in [
            "/nothing",
            "/download/a%23b/index.json",
            "/download/a%3fb/index.json",
            "/download/a%2523/index.json",
            "/download/-a/index.json",
            "/download/a/1.0.0/b.1.0.0.nupkg",
            "/download/a/1.0.0/a.2.0.0.nupkg",
            "/download/a/latest/a.latest.nupkg",
            "/registration/a/latest.json",
            "/v3/index.json",
        ] {
            assert_eq!(read(&Method::GET, path).map_err(|error| error.kind()), Err(Kind::NotFound), "{path}");
        }
        for path in ["/download/a%2fb/index.json", "/download/../index.json", "/download/a%00/index.json"] {
            assert_eq!(read(&Method::GET, path).map_err(|error| error.kind()), Err(Kind::Invalid), "{path}");
        }
        assert_eq!(read(&Method::DELETE, "/package/a/latest").unwrap_err().kind(), Kind::Invalid);
        for (method, path) in [(Method::GET, "/package/"), (Method::DELETE, "/index.json"), (Method::PUT, "/query")] {
            assert_eq!(read(&method, path).unwrap_err().kind(), Kind::MethodNotAllowed, "{path}");
        }
    }

    #[test]
    fn a_files_name_says_what_it_is() {
        let name = id("a.1").unwrap();
        for kept in [Kept::Package, Kept::Nuspec, Kept::Symbols, Kept::Icon, Kept::Readme, Kept::License] {
            let file = file(&name, "1.0.0-icon", kept);
            assert_eq!(of_file(&name, &file), Some(("1.0.0-icon", kept)), "{file}");
        }
        assert_eq!(of_file(&name, "b.1.0.0.nupkg"), None);
        assert_eq!(of_file(&name, "a.1.nupkg"), None);
    }

    #[test]
    fn an_owner_is_no_word_of_the_tree_of_all() {
        let found = |path: &str| owner(&segments(path).unwrap());
        assert_eq!(found("/Acme/index.json"), OwnerName::new("acme").ok());
        for path in ["/index.json", "/query", "/Package/", "/api/v2/package", "/"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
