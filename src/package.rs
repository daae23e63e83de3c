//! Packages, versions, files and tags as plain data that all formats share.
//!
//! These are the records of the catalog: numeric ids that never change, so that a
//! renamed account or a moved package leaves nothing dangling, and everything
//! else as fields. What only one format knows stays in the version's manifest.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::digest::{Algorithm, Digest};
use crate::name::{PackageName, Tag};
use crate::rules::Rules;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id_type! {
    /// A user or an organisation.
    AccountId
}
id_type! {
    /// A team of an organisation.
    TeamId
}
id_type! {
    /// A repository.
    RepositoryId
}
id_type! {
    /// A personal access token; the token's text is not derivable from it.
    TokenId
}
id_type! {
    /// A hosted package.
    PackageId
}
id_type! {
    /// A version of a hosted package.
    VersionId
}
id_type! {
    /// A webhook.
    HookId
}
id_type! {
    /// One telling of an event to a webhook.
    DeliveryId
}

/// Who may see a thing without a role on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Only those with a role.
    Private,
    /// Every signed-in user of this server.
    Internal,
    /// Everyone, without a token.
    Public,
}

impl Visibility {
    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }
}

impl std::str::FromStr for Visibility {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "private" => Ok(Self::Private),
            "internal" => Ok(Self::Internal),
            "public" => Ok(Self::Public),
            _ => Err("a visibility is one of public, internal, private"),
        }
    }
}

/// A role on a package. Ordered: each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Download, read metadata.
    Read,
    /// Also publish and edit metadata.
    Write,
    /// Also delete, manage, grant.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            _ => Err("a role is one of read, write, admin"),
        }
    }
}

/// Someone who can be granted a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// A user.
    User(AccountId),
    /// Every member of a team.
    Team(TeamId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Team(id) => write!(f, "team:{id}"),
        }
    }
}

impl Serialize for Principal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let parsed = text.split_once(':').and_then(|(kind, id)| {
            let id = id.parse().ok()?;
            match kind {
                "user" => Some(Self::User(AccountId(id))),
                "team" => Some(Self::Team(TeamId(id))),
                _ => None,
            }
        });
        parsed.ok_or_else(|| serde::de::Error::custom("a principal is user:ID or team:ID"))
    }
}

/// A hosted package: the head record that every write of its versions touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its id.
    pub id: PackageId,
    /// The ecosystem's name, `npm` for example.
    pub ecosystem: String,
    /// Canonical name.
    pub name: PackageName,
    /// How its publisher last wrote the name, where that is not the canonical one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spelling: Option<PackageName>,
    /// The account whose package it is.
    pub owner: AccountId,
    /// Who may see it.
    pub visibility: Visibility,
    /// The repository it is linked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryId>,
    /// Whether the roles on the linked repository are roles on the package.
    #[serde(default)]
    pub inherits: bool,
    /// Whether it has no visibility and no roles of its own but those of its repository.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repository_scoped: bool,
    /// Roles granted on the package itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<Principal, Role>,
    /// Roles that the workflows of its owner's repositories have on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workflows: BTreeMap<RepositoryId, Role>,
    /// Tags and the version number each points at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Tag, String>,
    /// What its owner lays down about its tags and versions.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
    /// Users who marked it with a star, by login.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stars: BTreeMap<String, bool>,
    /// How many versions it has that are not deleted.
    #[serde(default)]
    pub versions: u64,
    /// Count of changes: a rendered document is valid for one generation.
    pub generation: u64,
    /// When the first version was published.
    pub created_at: Timestamp,
    /// When anything last changed.
    pub updated_at: Timestamp,
    /// Set when the package is deleted. The record stays: the name is a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

/// A version of a hosted package.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// The number or name, canonical in its ecosystem.
    pub number: String,
    /// Who published it.
    pub published_by: AccountId,
    /// When it was published.
    pub created_at: Timestamp,
    /// When its metadata last changed.
    pub updated_at: Timestamp,
    /// The format's own metadata, as JSON, without addresses of this server.
    pub manifest: Box<RawValue>,
    /// Its files.
    pub files: Vec<File>,
    /// What of its package it shares with other versions or refers to.
    #[serde(default, skip_serializing_if = "Relations::is_empty")]
    pub relations: Relations,
    /// The publisher's warning against using it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Set when only those still find it who ask for this very version, as NuGet's unlisting and the yanks of Cargo and PyPI
    /// want it: the reason, which may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<String>,
    /// Set when it is deleted. The record stays: the number is never reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// The tags that pointed at it when it was deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_tags: Vec<Tag>,
    /// Whether its files were given up after it was deleted, so that it cannot come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purged: bool,
}

/// How a version hangs together with others of its package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relations {
    /// Content that versions may share, each once: the layers of an image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Content>,
    /// The numbers of the versions that it is made of, each once: the images of an index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// The number of the version that it is about, which need not be there: the image of a signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl Relations {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty() && self.parts.is_empty() && self.subject.is_none()
    }
}

/// Content that is asked for by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The digest that it is asked for by.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// The digest that names its blob, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
}

impl Content {
    /// Content of a digest, kept in the blob that `sha256` names.
    #[must_use]
    pub fn new(digest: Digest, size: u64, sha256: Digest) -> Self {
        Self { digest, size, sha256: Some(sha256).filter(|sha256| *sha256 != digest) }
    }

    /// The digest that names its blob.
    #[must_use]
    pub fn blob(&self) -> &Digest {
        self.sha256.as_ref().unwrap_or(&self.digest)
    }
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Name in the download path.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// The digest that names its blob.
    pub sha256: Digest,
    /// Other digests its protocol shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Digest>,
    /// Media type it is served with.
    pub media_type: String,
}

impl File {
    /// Its digest by an algorithm, if that is kept.
    #[must_use]
    pub fn digest(&self, algorithm: Algorithm) -> Option<Digest> {
        std::iter::once(&self.sha256).chain(&self.digests).find(|digest| digest.algorithm() == algorithm).copied()
    }
}
