//! Names, parsed once.
//!
//! A value of these types holds a name in its one canonical spelling, checked
//! against the limits; code further up compares and stores them without looking
//! again. How an ecosystem spells its package names (case, separators, scopes) is
//! decided by that ecosystem's own parser, which ends in [`PackageName::new`].

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// A name that breaks a rule, with the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName(pub &'static str);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidName {}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The canonical spelling.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The login of a user or an organisation; also the npm scope, the Maven owner
    /// segment, the first segment of an image name. Lower case: GitHub compares
    /// logins without case, and one spelling leaves no second key.
    OwnerName
}

impl OwnerName {
    /// Longest login, in bytes. GitHub's limit is 39.
    pub const LONGEST: usize = 39;

    /// Words that are routes of this server and so cannot be accounts.
    const RESERVED: [&'static str; 8] = ["api", "v2", "graphql", "login", "settings", "orgs", "users", "download"];

    /// Parses a login of any case.
    ///
    /// # Errors
    /// When it is empty, longer than [`Self::LONGEST`], holds anything but ASCII
    /// letters, digits, `-` and `_`, begins or ends with a separator, or is a
    /// route word.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(InvalidName("an account name has 1 to 39 characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(InvalidName("an account name holds only letters, digits, '-' and '_'"));
        }
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !edge(text.bytes().next()) || !edge(text.bytes().last()) {
            return Err(InvalidName("an account name begins and ends with a letter or a digit"));
        }
        let lower = text.to_ascii_lowercase();
        if Self::RESERVED.contains(&lower.as_str()) {
            return Err(InvalidName("this account name is reserved"));
        }
        Ok(Self(lower.into()))
    }
}

name_type! {
    /// The name of a repository within its owner. Lower case, compared like a login.
    RepositoryName
}

impl RepositoryName {
    /// Parses a repository name of any case.
    ///
    /// # Errors
    /// When it is empty, longer than 100 bytes, is `.` or `..`, or holds anything
    /// but ASCII letters, digits, `-`, `_` and `.`.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 100 {
            return Err(InvalidName("a repository name has 1 to 100 characters"));
        }
        if text == "." || text == ".." {
            return Err(InvalidName("'.' and '..' are no repository names"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(InvalidName("a repository name holds only letters, digits, '-', '_' and '.'"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// Owner and name of the repository that an address leads to, however it is written:
/// `github:acme/tool`, `acme/tool`, `git+https://host/acme/tool.git`, `git@host:acme/tool.git`.
#[must_use]
pub fn repository_in(address: &str) -> Option<(String, String)> {
    let text = address.trim().split(['#', '?']).next()?;
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => text.rsplit_once(':').map_or(text, |(_, path)| path),
    };
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let (owner, name) = path.rsplit_once('/')?;
    let owner = owner.rsplit('/').next()?;
    (!owner.is_empty() && !name.is_empty()).then(|| (owner.to_owned(), name.to_owned()))
}

name_type! {
    /// The slug of a team within its organisation.
    TeamName
}

impl TeamName {
    /// Parses a team slug of any case.
    ///
    /// # Errors
    /// As for [`OwnerName::new`], without the reserved words.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 100 {
            return Err(InvalidName("a team name has 1 to 100 characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(InvalidName("a team name holds only letters, digits, '-' and '_'"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

name_type! {
    /// A package name in its ecosystem's canonical spelling, such as `@acme/tool`
    /// or `com.acme:lib`.
    PackageName
}

impl PackageName {
    /// Longest package name of any ecosystem, in bytes.
    pub const LONGEST: usize = 512;

    /// Takes a name that an ecosystem's parser made canonical.
    ///
    /// # Errors
    /// When it is empty, too long, or holds a control character: rules that hold in
    /// every ecosystem because the name becomes a key and a log field.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(InvalidName("a package name has 1 to 512 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidName("a package name holds no control characters"));
        }
        Ok(Self(text.into()))
    }
}

name_type! {
    /// A movable name for a version: an npm dist-tag, an image tag.
    Tag
}

impl Tag {
    /// Takes a tag; the ecosystem has checked its own rules.
    ///
    /// # Errors
    /// When it is empty, longer than 256 bytes, or holds a control character.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 256 {
            return Err(InvalidName("a tag has 1 to 256 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidName("a tag holds no control characters"));
        }
        Ok(Self(text.into()))
    }
}

/// A 128-bit key of an ecosystem's package name, for caches.
///
/// Made without allocating, with hash keys drawn at the start of the process, so
/// that no client can aim at a collision. Caches still compare the full name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackageKey(u128);

/// One pass of SipHash gives 128 bits; two passes for 64 each took twice as long.
static HASHER: LazyLock<SipHasher13> = LazyLock::new(|| {
    let drawn = RandomState::new();
    SipHasher13::new_with_keys(drawn.hash_one(0), drawn.hash_one(1))
});

impl PackageKey {
    /// The key of a name in an ecosystem.
    #[must_use]
    pub fn new(ecosystem: &str, name: &str) -> Self {
        Self::of(&(ecosystem, name))
    }

    /// This key narrowed by anything hashable: a file name, a form, a base address.
    #[must_use]
    pub fn with(self, part: impl Hash) -> Self {
        Self::of(&(self.0, part))
    }

    /// The key's place among `slots`, at least one.
    #[must_use]
    pub fn slot(self, slots: usize) -> usize {
        usize::try_from(self.0 % slots.max(1) as u128).unwrap_or(0)
    }

    /// The key of anything hashable that says what it is about, and of what sort it is.
    #[must_use]
    pub fn of(value: &impl Hash) -> Self {
        let mut hasher = *HASHER;
        value.hash(&mut hasher);
        Self(hasher.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_have_one_spelling() {
        assert_eq!(OwnerName::new("Acme-Corp").unwrap().as_str(), "acme-corp");
        for wrong in ["", "-a", "a-", "a b", "a/b", "..", "é", "v2", "API", &"a".repeat(40)] {
            assert!(OwnerName::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn repositories_are_no_paths() {
        assert_eq!(RepositoryName::new("Web.App_1").unwrap().as_str(), "web.app_1");
        for wrong in ["", ".", "..", "a/b", "a\0", &"a".repeat(101)] {
            assert!(RepositoryName::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn deserialising_validates() {
        assert!(serde_json::from_str::<OwnerName>("\"ok\"").is_ok());
        assert!(serde_json::from_str::<OwnerName>("\"../x\"").is_err());
        assert!(serde_json::from_str::<PackageName>("\"a\\u0000\"").is_err());
    }

    #[test]
    fn keys_tell_names_apart() {
        let key = PackageKey::new("npm", "a");
        assert_eq!(key, PackageKey::new("npm", "a"));
        assert_ne!(key, PackageKey::new("npm", "b"));
        assert_ne!(key, PackageKey::new("gem", "a"));
        assert_ne!(key.with("x"), key.with("y"));
    }
}
