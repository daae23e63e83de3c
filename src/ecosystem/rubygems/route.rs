//! RubyGems' request paths, as typed requests.
//!
//! The tree of an owner begins with the owner: `OWNER/versions`. The tree of all has a few
//! words at its beginning, and an account with such a name has no tree of its own. A gem's
//! file is called `NAME-VERSION[-PLATFORM]`, and where the name ends cannot be told from the
//! text alone ([`candidates`]). Source: the paths that `gem` and Bundler ask for.

use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Method, path};
use crate::name::{OwnerName, PackageName};

use super::gemspec;

/// A request that the clients make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the path's own parts")]
pub enum Route {
    /// `GET /`: older clients look whether anything answers here.
    Front,
    /// `GET /versions`.
    Versions,
    /// `GET /names`.
    Names,
    /// `GET /info/NAME`.
    Info { name: PackageName },
    /// `GET /gems/FULL.gem`.
    Gem { full: String },
    /// `GET /quick/Marshal.4.8/FULL.gemspec.rz`.
    Quick { full: String },
    /// `GET /specs.4.8.gz` and its relatives.
    Specs { kind: Specs, packed: bool },
    /// `GET /api/v1/dependencies`.
    Dependencies,
    /// `GET /api/v1/gems/NAME.json`.
    Show { name: PackageName },
    /// `GET /api/v1/versions/NAME.json`.
    ListVersions { name: PackageName },
    /// `GET /api/v1/versions/NAME/latest.json`.
    Latest { name: PackageName },
    /// `GET /api/v2/rubygems/NAME/versions/NUMBER.json`.
    ShowVersion { name: PackageName, number: String },
    /// `GET /api/v1/search.json`.
    Search,
    /// `POST /api/v1/gems`.
    Push,
    /// `DELETE /api/v1/gems/yank`.
    Yank,
    /// `PUT /api/v1/gems/unyank`.
    Unyank,
    /// `GET /api/v1/gems/NAME/owners.yaml` or `.json`.
    Owners { name: PackageName, yaml: bool },
    /// `POST /api/v1/gems/NAME/owners`.
    AddOwner { name: PackageName },
    /// `DELETE /api/v1/gems/NAME/owners`.
    RemoveOwner { name: PackageName },
    /// `GET`, `POST` or `PUT /api/v1/api_key`.
    SignIn,
    /// `GET /api/v1/profile/me.yaml`.
    Profile,
}

/// Which list of gems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Specs {
    /// Every release.
    All,
    /// The newest release of each gem on each platform.
    Latest,
    /// What comes before a release.
    Prerelease,
}

impl Specs {
    /// The file's name, packed.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::All => "specs.4.8.gz",
            Self::Latest => "latest_specs.4.8.gz",
            Self::Prerelease => "prerelease_specs.4.8.gz",
        }
    }
}

/// First segments of the tree of all.
const WORDS: [&str; 5] = ["versions", "names", "info", "gems", "quick"];

/// Cuts a path into its segments.
///
/// # Errors
/// `Invalid` for a path that no request can mean.
pub fn segments(raw: &str) -> Result<Vec<String>> {
    let segments = path::segments(raw).map_err(|_| Error::invalid(Subject::Route, "the path is malformed"))?;
    let segments: Vec<String> = segments.into_iter().map(std::borrow::Cow::into_owned).filter(|segment| !segment.is_empty()).collect();
    if segments.iter().any(|segment| segment.contains('/')) {
        return Err(Error::invalid(Subject::Route, "the path is malformed"));
    }
    Ok(segments)
}

/// The owner with which a path may begin.
#[must_use]
pub fn owner(segments: &[String]) -> Option<OwnerName> {
    let first = segments.first()?;
    let word = WORDS.contains(&first.as_str()) || first == "api" || first.contains("specs.4.8");
    if word { None } else { OwnerName::new(first).ok() }
}

/// Reads a path below the tree's beginning.
///
/// # Errors
/// `NotFound` for what is no route, `MethodNotAllowed` for a route under another method.
pub fn parse(method: &Method, segments: &[String]) -> Result<Route> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let read = method == Method::GET || method == Method::HEAD;
    let written = match parts.as_slice() {
        ["api", "v1", "gems"] if method == Method::POST => Some(Route::Push),
        ["api", "v1", "gems", "yank"] if method == Method::DELETE => Some(Route::Yank),
        ["api", "v1", "gems", "unyank"] if method == Method::PUT => Some(Route::Unyank),
        ["api", "v1", "gems", name, "owners"] if method == Method::POST => Some(Route::AddOwner { name: gem(name)? }),
        ["api", "v1", "gems", name, "owners"] if method == Method::DELETE => Some(Route::RemoveOwner { name: gem(name)? }),
        ["api", "v1", "api_key" | "api_key.json" | "api_key.yaml"] if read || method == Method::POST || method == Method::PUT => {
            Some(Route::SignIn)
        }
        ["api", "v1", "gems" | "gems.json"] => return Err(Error::new(Kind::MethodNotAllowed, Subject::Route)),
        _ => None,
    };
    if let Some(route) = written {
        return Ok(route);
    }
    let route = reading(&parts)?;
    if read { Ok(route) } else { Err(Error::new(Kind::MethodNotAllowed, Subject::Route)) }
}

fn reading(parts: &[&str]) -> Result<Route> {
    let absent = || Error::not_found(Subject::Route);
    Ok(match parts {
        [] => Route::Front,
        ["versions"] => Route::Versions,
        ["names"] => Route::Names,
        ["info", name] => Route::Info { name: gem(name)? },
        ["gems", file] => Route::Gem { full: full(file, ".gem")? },
        ["quick", "Marshal.4.8", file] => Route::Quick { full: full(file, ".gemspec.rz")? },
        ["api", "v1", "dependencies" | "dependencies.marshal"] => Route::Dependencies,
        ["api", "v1", "search.json"] => Route::Search,
        ["api", "v1", "profile", "me.yaml"] => Route::Profile,
        ["api", "v1", "gems", name, "owners.yaml"] => Route::Owners { name: gem(name)?, yaml: true },
        ["api", "v1", "gems", name, "owners.json"] => Route::Owners { name: gem(name)?, yaml: false },
        ["api", "v1", "gems", file] => Route::Show { name: gem(file.strip_suffix(".json").ok_or_else(absent)?)? },
        ["api", "v1", "versions", name, "latest.json"] => Route::Latest { name: gem(name)? },
        ["api", "v1", "versions", file] => Route::ListVersions { name: gem(file.strip_suffix(".json").ok_or_else(absent)?)? },
        ["api", "v2", "rubygems", name, "versions", file] => {
            Route::ShowVersion { name: gem(name)?, number: file.strip_suffix(".json").ok_or_else(absent)?.to_owned() }
        }
        [file] => specs(file).ok_or_else(absent)?,
        _ => return Err(absent()),
    })
}

fn specs(file: &str) -> Option<Route> {
    [Specs::All, Specs::Latest, Specs::Prerelease].into_iter().find_map(|kind| {
        let packed = file == kind.file();
        (packed || Some(file) == kind.file().strip_suffix(".gz")).then_some(Route::Specs { kind, packed })
    })
}

fn full(file: &str, ending: &str) -> Result<String> {
    let full = file.strip_suffix(ending).filter(|full| full.len() <= 400 && !full.is_empty());
    full.map(str::to_owned).ok_or_else(|| Error::not_found(Subject::File))
}

/// A gem's name.
///
/// # Errors
/// `NotFound` for what no gem can be called.
pub fn gem(name: &str) -> Result<PackageName> {
    let name = Some(name).filter(|name| gemspec::is_name(name)).and_then(|name| PackageName::new(name).ok());
    name.ok_or_else(|| Error::not_found(Subject::Package))
}

/// The names that a gem with this full name may have, the likeliest first: those after which
/// a version follows, and then a platform, or nothing.
#[must_use]
pub fn candidates(full: &str) -> Vec<PackageName> {
    let mut found: Vec<(u8, PackageName)> = Vec::new();
    for (at, _) in full.rmatch_indices('-').take(16) {
        let rest = &full[at + 1..];
        let (version, platform) = rest.split_once('-').map_or((rest, None), |(version, platform)| (version, Some(platform)));
        if !super::version::is_valid(version) {
            continue;
        }
        let rank = match platform {
            Some(platform) if is_platform(platform) => 0,
            None => 1,
            Some(_) => 2,
        };
        found.extend(gem(&full[..at]).ok().map(|name| (rank, name)));
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Whether a text looks like a platform.
fn is_platform(text: &str) -> bool {
    const SYSTEMS: [&str; 16] = [
        "java", "jruby", "linux", "darwin", "mingw", "mswin", "mri", "freebsd", "openbsd", "netbsd", "solaris", "aix", "wasi", "dalvik",
        "cygwin", "macruby",
    ];
    SYSTEMS.iter().any(|system| text.contains(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, path: &str) -> Result<Route> {
        parse(method, &segments(path)?)
    }

    #[test]
    fn reads_what_clients_ask() {
        let tool = || gem("tool").unwrap();
        for (path, route) in [
            ("/", Route::Front),
            ("/versions", Route::Versions),
            ("/info/tool", Route::Info { name: tool() }),
            ("/gems/tool-1.0.gem", Route::Gem { full: "tool-1.0".into() }),
            ("/quick/Marshal.4.8/tool-1.0-java.gemspec.rz", Route::Quick { full: "tool-1.0-java".into() }),
            ("/specs.4.8.gz", Route::Specs { kind: Specs::All, packed: true }),
            ("/prerelease_specs.4.8", Route::Specs { kind: Specs::Prerelease, packed: false }),
            ("/api/v1/gems/tool.json", Route::Show { name: tool() }),
            ("/api/v1/versions/tool/latest.json", Route::Latest { name: tool() }),
            ("/api/v2/rubygems/tool/versions/1.0.json", Route::ShowVersion { name: tool(), number: "1.0".into() }),
            ("/api/v1/gems/tool/owners.yaml", Route::Owners { name: tool(), yaml: true }),
        ] {
            assert_eq!(read(&Method::GET, path).unwrap(), route, "{path}");
        }
        assert_eq!(read(&Method::POST, "/api/v1/gems").unwrap(), Route::Push);
        assert_eq!(read(&Method::DELETE, "/api/v1/gems/yank").unwrap(), Route::Yank);
        assert_eq!(read(&Method::POST, "/versions").unwrap_err().kind(), Kind::MethodNotAllowed);
        for path in ["/nothing", "/info/a%2fb", "/info/..", "/gems/tool", "/info/a b", "/api/v1/gems/tool", "/quick/tool-1.gemspec.rz"] {
            assert!(read(&Method::GET, path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_full_name_may_end_its_name_at_several_places() {
        let names = |full: &str| candidates(full).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("tool-1.0"), ["tool"]);
        assert_eq!(names("foo-2-bar-1.0"), ["foo-2-bar", "foo"]);
        assert_eq!(names("nokogiri-1.16.0-arm64-darwin-22")[0], "nokogiri");
        assert_eq!(names("nokogiri-1.16.0-x86_64-linux-gnu"), ["nokogiri"]);
        assert_eq!(names("tool"), [""; 0]);
        assert!(candidates(&"-1".repeat(200)).len() <= 16);
    }

    #[test]
    fn an_owner_is_no_word_of_the_tree_of_all() {
        let found = |path: &str| owner(&segments(path).unwrap());
        assert_eq!(found("/Acme/versions"), OwnerName::new("acme").ok());
        for path in ["/versions", "/gems/x", "/api/v1/gems", "/specs.4.8.gz", "/"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
