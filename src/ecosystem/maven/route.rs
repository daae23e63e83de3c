//! Maven's request paths, as typed requests.
//!
//! A repository is one tree of files: `GROUP…/ARTIFACT/VERSION/FILE`, with the group's dots
//! as slashes, and `maven-metadata.xml` at three heights of it. Every file may have checksum
//! files beside it. Source: Maven's repository layout.
//!
//! The tree of an owner begins with the owner and a repository, or `*` for all of them:
//! `OWNER/REPO/GROUP…`. The tree of all begins with the group. A path could mean both, so an
//! account's login comes first, except for words with which groups begin by convention
//! ([`begins_groups`]): otherwise whoever has the account `org` could stand in front of
//! everything below `org/`.

use crate::digest::Algorithm;
use crate::error::{Error, Result, Subject};
use crate::http::path;
use crate::name::{OwnerName, PackageName, RepositoryName};

/// The name of the metadata files.
pub const METADATA: &str = "maven-metadata.xml";

/// The ending of a version that stands for builds to come.
pub const SNAPSHOT: &str = "-SNAPSHOT";

/// A file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file of a version.
    File(Coordinates),
    /// The metadata of a folder.
    Metadata(Folder),
}

/// What is asked for: a file, or the checksum of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The file.
    pub target: Target,
    /// Which of its checksums, if not the file itself.
    pub checksum: Option<Algorithm>,
}

/// Where a file stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinates {
    /// The group, with dots.
    pub group: String,
    /// The artifact's id.
    pub artifact: String,
    /// The version, as its folder says it.
    pub version: String,
    /// The file's name.
    pub file: String,
}

/// A folder of the tree: its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(pub Vec<String>);

/// What a file's name says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape<'a> {
    /// The build it belongs to, for a file of a snapshot.
    pub build: Option<Build<'a>>,
    /// What stands between version and extension.
    pub classifier: Option<&'a str>,
    /// All after the first dot that follows version or classifier.
    pub extension: &'a str,
}

/// One build of a snapshot: `20261120.081502-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build<'a> {
    /// `yyyyMMdd.HHmmss`, UTC.
    pub timestamp: &'a str,
    /// The build's number.
    pub number: u64,
}

/// The files that checksums are kept in.
const CHECKSUMS: [(&str, Algorithm); 4] =
    [(".md5", Algorithm::Md5), (".sha1", Algorithm::Sha1), (".sha256", Algorithm::Sha256), (".sha512", Algorithm::Sha512)];

/// Endings of files that sign others.
const SIGNATURES: [&str; 4] = ["asc", "sigstore.json", "sigstore", "sig"];

/// Words with which groups begin, besides those of two letters: they are countries.
const BEGINNINGS: [&str; 28] = [
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "dev", "app", "pro", "xyz", "tech", "cloud", "online",
    "software", "systems", "java", "javax", "jakarta", "android", "androidx", "junit", "kotlin", "groovy", "clojure",
];

/// Whether a word is one that groups begin with, so that it is no owner in a path.
#[must_use]
pub fn begins_groups(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.len() == 2 || BEGINNINGS.contains(&word.as_str())
}

/// Cuts a path into its segments.
///
/// # Errors
/// `Invalid` for a path that no file can have.
pub fn segments(raw: &str) -> Result<Vec<String>> {
    let malformed = || Error::invalid(Subject::Route, "the path is malformed");
    let segments = path::segments(raw).map_err(|_| malformed())?;
    // A folder is asked for with a slash at its end.
    let segments: Vec<String> = segments.into_iter().map(std::borrow::Cow::into_owned).collect();
    let inner = segments.strip_suffix(&[String::new()]).unwrap_or(&segments);
    if inner.iter().any(|segment| segment.is_empty() || segment.contains('/') || segment.contains("${")) {
        return Err(malformed());
    }
    Ok(segments)
}

/// The owner and the repository with which a path may begin; `*` stands for every repository.
#[must_use]
pub fn owner(segments: &[String]) -> Option<(OwnerName, Option<RepositoryName>)> {
    let [owner, repository, ..] = segments else { return None };
    if begins_groups(owner) {
        return None;
    }
    let repository = match repository.as_str() {
        "*" => None,
        name => Some(RepositoryName::new(name).ok()?),
    };
    Some((OwnerName::new(owner).ok()?, repository))
}

/// Reads a path below the tree's beginning.
///
/// # Errors
/// `NotFound` for what is no file of a repository.
pub fn parse(segments: &[String]) -> Result<Route> {
    let absent = || Error::not_found(Subject::Route);
    let (file, folder) = segments.split_last().ok_or_else(absent)?;
    let sum = CHECKSUMS.iter().find_map(|(suffix, algorithm)| Some((file.strip_suffix(suffix)?, *algorithm)));
    let (file, checksum) = sum.map_or((file.as_str(), None), |(file, algorithm)| (file, Some(algorithm)));
    if file == METADATA && !folder.is_empty() {
        return Ok(Route { target: Target::Metadata(Folder(folder.to_vec())), checksum });
    }
    let [group @ .., artifact, version] = folder else { return Err(absent()) };
    if group.is_empty() || file.is_empty() || folder.iter().any(|segment| !is_plain(segment)) {
        return Err(absent());
    }
    let (artifact, version) = (artifact.clone(), version.clone());
    let coordinates = Coordinates { group: group.join("."), artifact, version, file: file.to_owned() };
    Ok(Route { target: Target::File(coordinates), checksum })
}

/// Whether a segment can be part of a group, an artifact's id or a version.
fn is_plain(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+~!$@".contains(&byte))
}

/// The name of a package: `com.acme:tool`.
///
/// # Errors
/// `NotFound` when it is too long to be anybody's.
pub fn name(group: &str, artifact: &str) -> Result<PackageName> {
    PackageName::new(&format!("{group}:{artifact}")).map_err(|_| Error::not_found(Subject::Package))
}

/// The path of a package's folder below an upstream.
#[must_use]
pub fn package_folder(name: &PackageName) -> String {
    let (group, artifact) = name.as_str().split_once(':').unwrap_or((name.as_str(), ""));
    let segments = group.split('.').chain([artifact]).filter(|segment| !segment.is_empty());
    segments.map(path::encode).collect::<Vec<_>>().join("/")
}

impl Coordinates {
    /// The package's name.
    ///
    /// # Errors
    /// As [`name`].
    pub fn name(&self) -> Result<PackageName> {
        name(&self.group, &self.artifact)
    }

    /// The file's name within its package: two versions may have files of one name.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.version, self.file)
    }

    /// Whether the version stands for builds to come.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.version.ends_with(SNAPSHOT)
    }

    /// What the file's name says.
    ///
    /// # Errors
    /// `Invalid` when the file does not belong into its folder.
    pub fn shape(&self) -> Result<Shape<'_>> {
        shape(&self.artifact, &self.version, &self.file)
            .ok_or_else(|| Error::invalid(Subject::File, format!("{} is no file of {} {}", self.file, self.artifact, self.version)))
    }
}

impl Shape<'_> {
    /// Whether it signs another file.
    #[must_use]
    pub fn is_signature(&self) -> bool {
        SIGNATURES.iter().any(|ending| self.extension.strip_suffix(ending).is_some_and(|rest| rest.ends_with('.')))
    }
}

/// What the name of a file in a version's folder says of it.
#[must_use]
pub fn shape<'a>(artifact: &str, version: &str, file: &'a str) -> Option<Shape<'a>> {
    let rest = file.strip_prefix(artifact)?.strip_prefix('-')?;
    let (build, rest) = if let Some(rest) = rest.strip_prefix(version) {
        (None, rest)
    } else {
        let rest = rest.strip_prefix(version.strip_suffix(SNAPSHOT)?)?.strip_prefix('-')?;
        let (build, rest) = build(rest)?;
        (Some(build), rest)
    };
    let (classifier, extension) = match rest.strip_prefix('-') {
        // A classifier may hold dots; extensions of several parts are these.
        Some(rest) => {
            let dot = compound(rest).or_else(|| rest.rfind('.'))?;
            (Some(&rest[..dot]), &rest[dot + 1..])
        }
        None => (None, rest.strip_prefix('.')?),
    };
    let whole = !extension.is_empty() && !extension.contains('-') && classifier.is_none_or(|classifier| !classifier.is_empty());
    whole.then_some(Shape { build, classifier, extension })
}

/// Where the extension of several parts begins in a name such as `sources.tar.gz.asc`.
fn compound(name: &str) -> Option<usize> {
    let signed = SIGNATURES.iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'));
    let body = signed.unwrap_or(name);
    let dot = body.rfind(".tar.").or_else(|| body.rfind('.'));
    dot.filter(|_| signed.is_some() || body.rfind(".tar.").is_some())
}

/// The build at the beginning of a text, and what follows it.
fn build(text: &str) -> Option<(Build<'_>, &str)> {
    let digits = |part: &str, count: usize| part.len() >= count && part.bytes().take(count).all(|byte| byte.is_ascii_digit());
    if !digits(text, 8) || !digits(text.get(9..)?, 6) || text.get(8..9) != Some(".") || text.get(15..16) != Some("-") {
        return None;
    }
    let rest = &text[16..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..end].parse().ok()?;
    Some((Build { timestamp: &text[..15], number }, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<Route> {
        parse(&segments(path)?)
    }

    #[test]
    fn reads_files_metadata_and_checksums() {
        let file = |group: &str, artifact: &str, version: &str, file: &str| {
            let [group, artifact, version, file] = [group, artifact, version, file].map(str::to_owned);
            Target::File(Coordinates { group, artifact, version, file })
        };
        let folder = |segments: &[&str]| Target::Metadata(Folder(segments.iter().map(|segment| (*segment).to_owned()).collect()));
        for (path, target, checksum) in [
            ("/com/acme/tool/1.0/tool-1.0.jar", file("com.acme", "tool", "1.0", "tool-1.0.jar"), None),
            ("/junit/junit/4.13/junit-4.13.pom.sha1", file("junit", "junit", "4.13", "junit-4.13.pom"), Some(Algorithm::Sha1)),
            ("/a/b/1/b-1.jar.asc.md5", file("a", "b", "1", "b-1.jar.asc"), Some(Algorithm::Md5)),
            ("/com/acme/maven-metadata.xml", folder(&["com", "acme"]), None),
            ("/a/maven-metadata.xml.sha512", folder(&["a"]), Some(Algorithm::Sha512)),
            ("/a/b-SNAPSHOT/c/maven-metadata.xml", folder(&["a", "b-SNAPSHOT", "c"]), None),
        ] {
            assert_eq!(read(path).unwrap(), Route { target, checksum }, "{path}");
        }
        for path in
            ["/", "/maven-metadata.xml", "/a/b/c", "/a/b/", "/com/acme/", "/.meta/prefixes.txt", "/archetype-catalog.xml", "/a/b c/1/x"]
        {
            assert!(read(path).is_err(), "{path}");
        }
        for path in ["/a//b/1/b-1.jar", "/a/../b/1/b-1.jar", "/a/b%2f1/b-1.jar", "/a/${b}/1/b-1.jar", "/a/%00/1/x"] {
            assert_eq!(read(path).unwrap_err().kind(), crate::error::Kind::Invalid, "{path}");
        }
    }

    #[test]
    fn names_say_build_classifier_and_extension() {
        let build = Some(Build { timestamp: "20261120.081502", number: 3 });
        for (version, file, expected) in [
            ("1.0", "b-1.0.jar", (None, None, "jar")),
            ("1.0", "b-1.0-sources.jar", (None, Some("sources"), "jar")),
            ("1.0", "b-1.0.tar.gz", (None, None, "tar.gz")),
            ("1.0", "b-1.0-bin.tar.gz.asc", (None, Some("bin"), "tar.gz.asc")),
            ("1.0", "b-1.0-linux-2.28.jar", (None, Some("linux-2.28"), "jar")),
            ("1.0", "b-1.0-linux-2.28.jar.asc", (None, Some("linux-2.28"), "jar.asc")),
            ("1.0-SNAPSHOT", "b-1.0-SNAPSHOT.jar", (None, None, "jar")),
            ("1.0-SNAPSHOT", "b-1.0-20261120.081502-3.pom", (build, None, "pom")),
            ("1.0-SNAPSHOT", "b-1.0-20261120.081502-3-sources.jar", (build, Some("sources"), "jar")),
        ] {
            let shape = shape("b", version, file).unwrap();
            assert_eq!((shape.build, shape.classifier, shape.extension), expected, "{file}");
        }
        for (version, file) in [
            ("1.0", "c-1.0.jar"),
            ("1.0", "b-2.0.jar"),
            ("1.0", "b-1.0"),
            ("1.0", "b-1.0."),
            ("1.0", "b-1.0x.jar"),
            ("1.0", "b-1.0-.jar"),
            ("1.0-SNAPSHOT", "b-1.0-20261120-3.jar"),
            ("1.0-SNAPSHOT", "b-1.0.jar"),
            ("1.0", "b-1.0-20261120.081502-3"),
            ("1.0", "\u{e9}"),
        ] {
            assert_eq!(shape("b", version, file), None, "{file}");
        }
    }

    #[test]
    fn an_owner_is_no_word_that_groups_begin_with() {
        let found = |path: &str| owner(&segments(path).unwrap());
        let acme = OwnerName::new("acme").unwrap();
        assert_eq!(found("/Acme/Web/com/x"), Some((acme.clone(), RepositoryName::new("web").ok())));
        assert_eq!(found("/acme/*/com/x"), Some((acme, None)));
        for path in ["/org/apache/x", "/com/acme", "/io/x/y", "/acme", "/a b/c"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
