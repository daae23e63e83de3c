//! What a format must be able to do: all pure, bytes to types to bytes.
//!
//! An index document of any ecosystem (a packument, a compact index, a metadata
//! file) is a [`Document`]. The engine in `registry` gathers its sources, merges,
//! filters, renders and remembers it; the format supplies the functions and knows
//! nothing of sockets, stores or clocks. Where upstreams are not laid out alike, each
//! says in a [`Guide`] where it keeps what.

use std::fmt::Debug;
use std::hash::Hash;

use bytes::Bytes;

use crate::archive;
use crate::digest::Digest;
use crate::error::Result;
use crate::name::PackageName;
use crate::package::{Package, Version};

/// The address prefix under which a client reaches an ecosystem, without a trailing slash:
/// `https://packages.example/npm`. Addresses inside documents are built from it,
/// so that a lock file holds the origin its client is configured with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(std::sync::Arc<str>);

/// A base address in two parts that are not put together yet: the origin, and the path of the mount.
#[derive(Clone, Copy, Debug)]
pub struct BaseParts<'a>(pub &'a str, pub &'a str);

/// Equal for all ways to cut one address in two, so that a key can be made without putting it together.
impl Hash for BaseParts<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
        state.write(self.1.as_bytes());
        // No address holds this byte.
        state.write_u8(0xff);
    }
}

impl BaseUrl {
    /// A base address; a trailing slash is dropped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches('/').into())
    }

    /// The address as parts.
    #[must_use]
    pub fn parts(&self) -> BaseParts<'_> {
        BaseParts(&self.0, "")
    }

    /// The address, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What to ask an upstream for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Path and query below the upstream's address, without a leading slash, already escaped. Empty for that address itself;
    /// a whole address, with its scheme, where the upstream gave one.
    pub path: String,
    /// The `Accept` header to send.
    pub accept: &'static str,
    /// Whether the document only grows, so that what is known of it need not be sent again.
    pub grows: bool,
}

/// What an index document promises about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The version the file belongs to.
    pub version: String,
    /// Where the upstream keeps it: whole, or relative to the upstream's address.
    pub url: String,
    /// Digests the index gives; all of them must hold.
    pub digests: Vec<Digest>,
}

/// What a policy may judge about one version.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The version's number.
    pub version: &'a str,
    /// When it was published, in the document's own text, if it says so.
    pub published: Option<&'a str>,
}

/// The records a hosted package's document is built from.
#[derive(Clone, Copy, Debug)]
pub struct Hosted<'a> {
    /// The head.
    pub package: &'a Package,
    /// Its versions in the order of their publication, without deleted ones.
    pub versions: &'a [Version],
    /// Those who administer it.
    pub maintainers: &'a [Maintainer],
}

/// A person as index documents show one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintainer {
    /// Login.
    pub login: String,
    /// Address, if the account has one.
    pub email: Option<String>,
}

/// What an upstream says of itself before it can be asked for packages: where it keeps what. NuGet calls it a service
/// index; Cargo's is `config.json`. `()` is for upstreams that are all laid out alike.
pub trait Guide: Clone + Default + Send + Sync + 'static {
    /// What to ask an upstream for; `None` where there is nothing to ask.
    fn ask() -> Option<Ask>;

    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are no such document.
    fn parse(bytes: &[u8]) -> Result<Self>;
}

impl Guide for () {
    fn ask() -> Option<Ask> {
        None
    }

    fn parse(_: &[u8]) -> Result<Self> {
        Ok(())
    }
}

/// Looks at a whole file; refuses one that is not what its name says.
pub type Inspection = std::sync::Arc<dyn Fn(&mut dyn archive::Source) -> Result<()> + Send + Sync>;

/// An index document of one package, or of a part of it.
pub trait Document: Clone + Send + Sync + 'static {
    /// What says where an upstream keeps such documents and their files.
    type Guide: Guide;

    /// Which of a package's documents: `()` where it has one, else a version or a page. The
    /// default is the one that tells whether there is such a package.
    type Part: Clone + Eq + Hash + Debug + Default + Send + Sync + 'static;

    /// The representations it can be rendered in: full or abbreviated, HTML or JSON.
    type Form: Copy + Eq + Hash + Debug + Send + Sync + 'static;

    /// What to ask an upstream for. One request serves all forms.
    fn ask(name: &PackageName, part: &Self::Part, guide: &Self::Guide) -> Ask;

    /// Reads an upstream's document.
    ///
    /// # Errors
    /// When the bytes are not such a document, or not this package's.
    fn parse(name: &PackageName, part: &Self::Part, bytes: Bytes) -> Result<Self>;

    /// Builds the document of a hosted package from its records.
    ///
    /// # Errors
    /// When a stored record cannot be read.
    fn hosted(records: Hosted<'_>, part: &Self::Part) -> Result<Self>;

    /// Lays this document over a lower one; on equal versions this one wins.
    #[must_use]
    fn over(self, lower: Self) -> Self;

    /// Drops the versions the rule refuses.
    fn keep(&mut self, rule: &dyn Fn(&Facts<'_>) -> bool);

    /// Whether no version is left.
    fn is_empty(&self) -> bool;

    /// What the document promises about a file, by the name it has in our download path.
    fn promise(&self, file: &str, guide: &Self::Guide) -> Option<Promise>;

    /// What an upstream's file is proved by where no digest of it is promised. Such a file never changes either: other bytes
    /// than were once fetched are refused.
    fn inspection(name: &PackageName, file: &str, limits: &archive::Limits) -> Option<Inspection> {
        let _ = (name, file, limits);
        None
    }

    /// Whether fetching a file is a download of its version, and not of something
    /// beside it: a signature, a checksum.
    fn is_download(file: &str) -> bool {
        let _ = file;
        true
    }

    /// The document as bytes, with addresses below `at`.
    fn render(&self, at: &BaseUrl, form: Self::Form) -> Bytes;
}

/// An index document whose packages are all listed in one file that only grows: a log of
/// which versions came and went.
pub trait Roll: Document {
    /// What to ask an upstream's file for.
    fn ask_roll() -> Ask;

    /// The beginning of a file that no upstream has a part in, made at an instant (RFC 3339).
    fn opening(at: &str) -> String;

    /// Where the lines of an upstream's file begin; `None` when it is no such file.
    fn body_start(text: &str) -> Option<usize>;

    /// The name of the package that a line speaks of.
    fn name_of(line: &str) -> &str;

    /// The versions that this document lists.
    fn numbers(&self) -> Vec<String>;

    /// The line that tells of the versions that came and went since those were told, with its
    /// line end; `None` when nothing did.
    fn tell(&self, told: &[String]) -> Option<String>;

    /// The document of a package of which nothing is left.
    fn gone(name: &PackageName) -> Self;
}
