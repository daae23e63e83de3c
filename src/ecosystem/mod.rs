//! The package ecosystems, and the border between them and the server.
//!
//! An ecosystem owns four things: how a raw path becomes a typed request, what of
//! its documents is mutable, the pure functions that parse, merge and render them,
//! and how a publish is read. All else is the shared engine's.
//!
//! To add one: a folder beside `npm`, and a line in [`ALL`]. What its routes ask of their
//! callers it says once more for the tests, in `rights.rs`.

use std::borrow::Cow;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::format::BaseUrl;
use crate::http::{Method, Response};
use crate::name::{OwnerName, PackageName, Tag};
use crate::package::{Package, Version};
use crate::registry::{Call, Look, Tagging};

pub mod maven;
pub mod npm;
pub mod nuget;
pub mod oci;
#[cfg(test)]
pub mod rights;
pub mod rubygems;

/// Every ecosystem this server speaks.
pub static ALL: &[&dyn Ecosystem] = &[&npm::Npm, &maven::Maven, &rubygems::RubyGems, &oci::Oci, &nuget::NuGet];

/// What the server must know of an ecosystem before it can hand a request to it.
#[derive(Debug)]
pub struct Info {
    /// The name in the configuration, in reports and in metrics.
    pub name: &'static str,
    /// The first path segment of its mount.
    pub mount: &'static str,
    /// The labels of its own hosts, the usual one first.
    pub hosts: &'static [&'static str],
    /// Whether its protocol fixes the mount, so that clients ask below it on its own hosts too.
    pub fixed_mount: bool,
    /// Whether its clients exchange their token for session tokens.
    pub sessions: bool,
    /// A header of its own in which its clients send a token, in lower case.
    pub key_header: Option<&'static str>,
    /// Paths that its clients send to the origin's root, dropping the mount they are configured with.
    pub root_paths: &'static [&'static str],
    /// What GitHub's API calls its packages: the first is shown, each is accepted.
    pub package_types: &'static [&'static str],
}

/// The package types of GitHub's API. One that no ecosystem of this server has is known, and has no packages.
pub static PACKAGE_TYPES: [&str; 6] = ["npm", "maven", "rubygems", "docker", "nuget", "container"];

/// What a version's own metadata says, as far as GitHub's API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// One line about it.
    pub summary: Option<String>,
    /// Its licence.
    pub license: Option<String>,
    /// Members of the version's `metadata` besides `package_type`.
    pub metadata: Map<String, Value>,
}

/// A version that webhooks tell of.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The package.
    pub package: &'a Package,
    /// The version.
    pub version: &'a Version,
    /// The owner's login.
    pub owner: &'a OwnerName,
    /// The ecosystem's mount as clients address it.
    pub base: &'a BaseUrl,
}

/// What webhooks say of a version besides what every ecosystem has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The command that installs it.
    pub installation_command: String,
    /// Where its clients find it, as they write it.
    pub package_url: String,
    /// Its readme, as it was written.
    pub readme: Option<String>,
    /// Whether it is one that a plain install does not choose.
    pub prerelease: bool,
    /// Where each of its files is downloaded, in their order.
    pub downloads: Vec<Option<String>>,
    /// Members of `package_version` in the ecosystem's own terms, such as GitHub's `container_metadata`.
    pub members: Map<String, Value>,
}

/// Lines that point one client at this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// The client's name.
    pub client: &'static str,
    /// Where the lines belong.
    pub place: &'static str,
    /// The lines.
    pub lines: String,
}

/// What is known of a request before it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The raw path below the mount, with its leading slash.
    pub path: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The mount as the client addresses it.
    pub base: &'a BaseUrl,
}

/// The border between the server and an ecosystem.
pub trait Ecosystem: Send + Sync {
    /// What the server must know.
    fn info(&self) -> &'static Info;

    /// Answers a request below the mount.
    fn serve<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Response>>;

    /// Answers a request to read something out of memory; `None` leaves it to [`Ecosystem::serve`], refusals too.
    fn hit(&self, look: &Look<'_>) -> Option<Response> {
        let _ = look;
        None
    }

    /// Whether a request brings its credentials in its body, so that a stale token in a header must not refuse it.
    fn signs_in(&self, method: &Method, path: &str) -> bool {
        let _ = (method, path);
        false
    }

    /// An error in the protocol's own words, as the answer to a request.
    fn error(&self, error: &Error, asked: &Asked<'_>) -> Response;

    /// A pattern of names to reserve, in the spelling in which its names are compared.
    /// One `*` at its end stands for the rest of a name.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) when no name could ever fit it.
    fn pattern(&self, text: &str) -> Result<String> {
        Ok(text.to_owned())
    }

    /// The tag that a plain install follows, and the version it should point at among these when nobody has said.
    fn default_tag(&self, numbers: &[&str]) -> Option<(Tag, String)> {
        let _ = numbers;
        None
    }

    /// The number of the version that whatever has this tag is about, where clients make tags from numbers.
    fn tag_subject(&self, tag: &Tag) -> Option<String> {
        let _ = tag;
        None
    }

    /// How GitHub's API names an owner's package, where that differs from its own name.
    fn short_name<'a>(&self, name: &'a PackageName, owner: &OwnerName) -> Option<Cow<'a, str>> {
        let _ = (name, owner);
        None
    }

    /// The names that a package of an owner may have when GitHub's API calls it so, the likeliest first.
    fn full_names(&self, short: &str, owner: &OwnerName) -> Vec<String> {
        let _ = owner;
        vec![short.to_owned()]
    }

    /// What a version says of itself; `tags` are those that point at it.
    fn describe(&self, version: &Version, tags: &[&str]) -> Description {
        let _ = (version, tags);
        Description::default()
    }

    /// What webhooks call the type of its packages, where GitHub's differ from its REST API.
    fn webhook_type(&self) -> &'static str {
        self.info().package_types.first().copied().unwrap_or(self.info().name)
    }

    /// What webhooks say of a version.
    fn announce(&self, told: Told<'_>) -> Announcement {
        let _ = told;
        Announcement::default()
    }

    /// The lines that point its clients at a mount.
    fn clients(&self, base: &BaseUrl) -> Vec<Snippet>;

    /// What each of its routes asks of a caller, for the tests that ask them all.
    #[cfg(test)]
    fn rights(&self) -> rights::Table;
}

impl Tagging for dyn Ecosystem {
    fn default(&self, numbers: &[&str]) -> Option<(Tag, String)> {
        self.default_tag(numbers)
    }

    fn subject(&self, tag: &Tag) -> Option<String> {
        self.tag_subject(tag)
    }
}

/// The ecosystem of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Ecosystem> {
    ALL.iter().copied().find(|ecosystem| ecosystem.info().name == name)
}

/// The ecosystem whose packages GitHub's API calls by this type.
#[must_use]
pub fn of_type(package_type: &str) -> Option<&'static dyn Ecosystem> {
    ALL.iter().copied().find(|ecosystem| ecosystem.info().package_types.contains(&package_type))
}
