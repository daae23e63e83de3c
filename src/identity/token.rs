//! Personal access tokens: their text, their checksum, their scopes. Pure.
//!
//! A token is `pkh_`, thirty base-62 characters drawn from the system's random
//! source (178 bits), and six more that are the CRC-32 of the thirty. The prefix
//! lets a secret scanner find one; the checksum lets it drop false hits and lets
//! the server refuse a typo without a look-up. Only the SHA-256 of the text is
//! kept: with that much entropy a slow hash would add nothing.

use std::fmt;
use std::str::FromStr;

use rand::TryRng as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Error, Kind, Result, Subject};

/// What every token begins with.
pub const PREFIX: &str = "pkh_";

const RANDOM: usize = 30;
const CHECKSUM: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The text of a token: a secret. It has no `Display`, and `Debug` hides it.
#[derive(Clone)]
pub struct TokenText(String);

impl TokenText {
    /// Draws a new token.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn mint() -> Result<Self> {
        // 248 is the largest multiple of 62 in a byte; what lies above is drawn again so that all characters are equally likely.
        const FAIR: u8 = 248;
        let mut text = String::with_capacity(PREFIX.len() + RANDOM + CHECKSUM);
        text.push_str(PREFIX);
        let mut pool = [0; 64];
        // A pool falls short with a chance below 1e-30; more than a few means the source is broken.
        for _ in 0..16 {
            rand::rngs::SysRng.try_fill_bytes(&mut pool).map_err(|error| Error::new(Kind::Unavailable, Subject::Token).because(error))?;
            let fair = pool.iter().filter(|byte| **byte < FAIR).map(|byte| char::from(ALPHABET[usize::from(*byte % 62)]));
            text.extend(fair.take(PREFIX.len() + RANDOM - text.len()));
            if text.len() == PREFIX.len() + RANDOM {
                let sum = checksum(&text.as_bytes()[PREFIX.len()..]);
                text.extend(sum.map(char::from));
                return Ok(Self(text));
            }
        }
        Err(Error::new(Kind::Unavailable, Subject::Token).because("the random source repeats itself"))
    }

    /// The secret itself, to show once or to write to a file of mode 0600.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key it is stored under.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(sha2::Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pkh_…")
    }
}

/// The SHA-256 of a token's text: what is stored and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub(super) [u8; 32]);

impl TokenHash {
    /// The key of a text from a client, or `None` if it cannot be a token of ours: wrong shape or wrong checksum.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?.as_bytes();
        if rest.len() != RANDOM + CHECKSUM || !rest.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let (random, sum) = rest.split_at(RANDOM);
        // Both sides come from the client's own text, so nothing secret is compared.
        (checksum(random) == sum).then(|| Self(sha2::Sha256::digest(text.as_bytes()).into()))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// The CRC-32 of the random part in six base-62 digits, most significant first.
fn checksum(random: &[u8]) -> [u8; CHECKSUM] {
    // Of the implementations at hand this one is quick for a few bytes; others copy tables of 24 KiB first.
    let mut rest = libdeflater::crc32(random);
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// What a token may be used for. The names are GitHub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Download, read metadata, list.
    ReadPackages,
    /// Publish, restore; includes reading.
    WritePackages,
    /// Delete, together with reading.
    DeletePackages,
    /// Repositories that are not public, and what hangs on them: their webhooks, packages whose rights are theirs.
    Repo,
    /// The user's own profile.
    User,
    /// Organisations, their members and teams; includes reading them.
    AdminOrg,
    /// Read organisations, their members and teams.
    ReadOrg,
    /// Webhooks of repositories, also deleting them; includes writing them.
    AdminRepoHook,
    /// Make, change and try webhooks of repositories; includes reading them.
    WriteRepoHook,
    /// Read webhooks of repositories and what was sent to them.
    ReadRepoHook,
    /// Webhooks of organisations.
    AdminOrgHook,
    /// Read who did what.
    ReadAuditLog,
}

impl Scope {
    /// All scopes, in the order they are shown.
    pub const ALL: [Self; 12] = [
        Self::ReadPackages,
        Self::WritePackages,
        Self::DeletePackages,
        Self::Repo,
        Self::User,
        Self::AdminOrg,
        Self::ReadOrg,
        Self::AdminRepoHook,
        Self::WriteRepoHook,
        Self::ReadRepoHook,
        Self::AdminOrgHook,
        Self::ReadAuditLog,
    ];

    /// GitHub's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadPackages => "read:packages",
            Self::WritePackages => "write:packages",
            Self::DeletePackages => "delete:packages",
            Self::Repo => "repo",
            Self::User => "user",
            Self::AdminOrg => "admin:org",
            Self::ReadOrg => "read:org",
            Self::AdminRepoHook => "admin:repo_hook",
            Self::WriteRepoHook => "write:repo_hook",
            Self::ReadRepoHook => "read:repo_hook",
            Self::AdminOrgHook => "admin:org_hook",
            Self::ReadAuditLog => "read:audit_log",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A text that names no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownScope;

impl fmt::Display for UnknownScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scope is one of ")?;
        for (index, scope) in Scope::ALL.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, scope.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownScope {}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or(UnknownScope)
    }
}

/// A set of scopes, as granted. What one scope includes is decided by [`Scopes::allow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether the scope itself was granted.
    #[must_use]
    pub const fn holds(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether the set allows what a scope stands for: writing packages includes
    /// reading them, administering organisations includes reading them, and
    /// repositories include their webhooks.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.holds(scope)
            || match scope {
                Scope::ReadPackages => self.holds(Scope::WritePackages),
                Scope::ReadOrg => self.holds(Scope::AdminOrg),
                Scope::ReadRepoHook => self.allow(Scope::WriteRepoHook),
                Scope::WriteRepoHook => self.allow(Scope::AdminRepoHook),
                Scope::AdminRepoHook => self.holds(Scope::Repo),
                _ => false,
            }
    }

    /// The granted scopes.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.holds(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    /// Comma-separated, as in GitHub's `X-OAuth-Scopes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, scope.name())?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    /// Reads names separated by commas or spaces.
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split([',', ' ']).filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::name))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse::<Scope>()).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_has_its_shape_and_passes_its_checksum() {
        let token = TokenText::mint().unwrap();
        let text = token.expose();
        assert_eq!(text.len(), 40);
        assert!(text.starts_with(PREFIX));
        assert_eq!(TokenHash::of(text), Some(token.hash()));
        assert_ne!(TokenText::mint().unwrap().expose(), text);
        assert_eq!(format!("{token:?}"), "pkh_…");
    }

    #[test]
    fn the_checksum_is_the_crc_32_of_the_random_part() {
        let digits = checksum(b"000000000000000000000000000000");
        let value = digits.iter().fold(0_u64, |sum, digit| sum * 62 + ALPHABET.iter().position(|known| known == digit).unwrap() as u64);
        assert_eq!(value, u64::from(crc_by_bits(b"000000000000000000000000000000")));
    }

    /// CRC-32 (IEEE 802.3) straight from its definition.
    fn crc_by_bits(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn every_single_wrong_character_is_refused_without_a_look_up() {
        let token = TokenText::mint().unwrap();
        for place in 0..40 {
            let mut text = token.expose().as_bytes().to_vec();
            text[place] = if text[place] == b'x' { b'y' } else { b'x' };
            assert_eq!(TokenHash::of(std::str::from_utf8(&text).unwrap()), None, "place {place}");
        }
        for wrong in ["", "pkh_", "ghp_000000000000000000000000000000000000", &token.expose()[..39], &format!("{}0", token.expose())] {
            assert_eq!(TokenHash::of(wrong), None);
        }
        assert_eq!(TokenHash::of(&format!("pkh_{}", "é".repeat(18))), None);
    }

    #[test]
    fn writing_includes_reading_and_deleting_does_not() {
        let scopes = |text: &str| text.parse::<Scopes>().unwrap();
        assert!(scopes("write:packages").allow(Scope::ReadPackages));
        assert!(!scopes("delete:packages").allow(Scope::ReadPackages));
        assert!(!scopes("repo").allow(Scope::ReadPackages));
        assert!(scopes("admin:org").allow(Scope::ReadOrg));
        assert!(!scopes("read:org").allow(Scope::AdminOrg));
        for wider in ["read:repo_hook", "write:repo_hook", "admin:repo_hook", "repo"] {
            assert!(scopes(wider).allow(Scope::ReadRepoHook), "{wider}");
        }
        assert!(scopes("repo").allow(Scope::AdminRepoHook) && scopes("admin:repo_hook").allow(Scope::WriteRepoHook));
        assert!(!scopes("write:repo_hook").allow(Scope::AdminRepoHook) && !scopes("read:repo_hook").allow(Scope::WriteRepoHook));
        assert!(!scopes("admin:org,repo").allow(Scope::AdminOrgHook));
        assert!(!scopes("read:packages,user,repo").allow(Scope::WritePackages));
    }

    #[test]
    fn scopes_are_read_and_written_by_name() {
        let scopes: Scopes = "user, read:packages delete:packages".parse().unwrap();
        assert_eq!(scopes.to_string(), "read:packages, delete:packages, user");
        let json = serde_json::to_string(&scopes).unwrap();
        assert_eq!(json, r#"["read:packages","delete:packages","user"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&json).unwrap(), scopes);
        assert!("admin".parse::<Scopes>().is_err());
        assert_eq!("".parse::<Scopes>().unwrap(), Scopes::default());
    }
}
