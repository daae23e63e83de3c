//! Session tokens: short-lived stand-ins for a personal access token.
//!
//! A container client exchanges its token for one that holds a few minutes and for a
//! few repositories. Such a text says whose token it stands for, by number, when it
//! ends and what it is limited to, in the words of the protocol that handed it out;
//! an HMAC over all of it (RFC 2104, with SHA-256) makes it this server's. It holds
//! nothing secret. Each use looks the personal token up again, so that it never
//! carries more than that one does and ends with it.
//!
//! The key lives as long as the process: after a restart clients are told that their
//! session has ended, and open another.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryRng as _;

use super::caller::Caller;
use super::credentials::{self, Credentials};
use super::identify::{Known, refused};
use super::tables::{self, TOKENS_OF};
use super::token::TokenHash;
use super::tokens::hash_from;
use super::{Identity, Signed};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::HeaderMap;
use crate::package::{AccountId, TokenId};

/// What every session token begins with.
pub(super) const PREFIX: &str = "pks_";

/// The session of who has no personal token. It gives what everybody has, so anyone may make it up.
pub const ANONYMOUS_SESSION: &str = "pks_anonymous";

/// Longest text of limits, in bytes. Clients send the token in a header.
pub const LIMITS_BYTES: usize = 2048;

/// User, token and end, eight bytes each.
const HEAD_BYTES: usize = 24;
const MAC_BYTES: usize = 32;

/// Which personal token a user's number and token's number lead to; never changes, so it is remembered for long.
type Hashes = quick_cache::sync::Cache<(AccountId, TokenId), TokenHash>;

/// The key, and what was looked up.
pub(super) struct Sessions {
    key: OnceLock<[u8; 32]>,
    hashes: Hashes,
}

/// Who asks, and what a session token limits that to.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The limits of the session that the request came with; `None` without one.
    pub session: Option<Arc<str>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { key: OnceLock::new(), hashes: quick_cache::sync::Cache::new(10_000) }
    }
}

impl Identity {
    /// How long a session lasts.
    #[must_use]
    pub fn session_lifetime(&self) -> Duration {
        Duration::from_secs(self.config.session_seconds)
    }

    /// A session token for a user, as good as the token that the user came with but for `limits`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the limits are longer than [`LIMITS_BYTES`]; when the system's random source fails.
    pub fn open_session(&self, signed: &Signed, limits: &str) -> Result<String> {
        if limits.len() > LIMITS_BYTES {
            return Err(Error::invalid(Subject::Token, "a session for so many things at once is not given"));
        }
        let ends = self.clock.now().plus(self.session_lifetime()).as_millis();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + limits.len() + MAC_BYTES);
        bytes.extend_from_slice(&signed.user.0.to_be_bytes());
        bytes.extend_from_slice(&signed.token.0.to_be_bytes());
        bytes.extend_from_slice(&ends.to_be_bytes());
        bytes.extend_from_slice(limits.as_bytes());
        let mac = self.session_mac(&bytes)?.finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        Ok(format!("{PREFIX}{}", BASE64.encode(bytes)))
    }

    /// As [`Identity::identify`], where session tokens are taken too.
    ///
    /// # Errors
    /// As [`Identity::identify`].
    pub async fn identify_session(&self, headers: &HeaderMap) -> Result<Identified> {
        match credentials::read(headers, None) {
            Credentials::Session(text) if text == ANONYMOUS_SESSION => {
                Ok(Identified { caller: Caller::anonymous(), session: Some(Arc::from("")) })
            }
            Credentials::Session(text) => {
                let (caller, known, (limits, ends)) = Box::pin(self.caller_in_session(&text)).await?;
                self.remember_said(headers, None, known, Some((Arc::clone(&limits), ends)));
                Ok(Identified { caller, session: Some(limits) })
            }
            // Not by way of `identify`, which would read and hash the token once more.
            Credentials::Token(hash) => {
                let (caller, known) = self.caller_of(hash).await?;
                self.remember_said(headers, None, known, None);
                Ok(Identified { caller, session: None })
            }
            Credentials::Absent => Ok(Identified { caller: Caller::anonymous(), session: None }),
            Credentials::Malformed => Err(refused()),
        }
    }

    /// Whether a request came with a session token, whatever it is worth. Nobody guesses those.
    #[must_use]
    pub fn is_session(headers: &HeaderMap) -> bool {
        matches!(credentials::read(headers, None), Credentials::Session(_))
    }

    /// The caller whose session a text is, what is remembered of the caller, and the session's limits and end.
    async fn caller_in_session(&self, text: &str) -> Result<(Arc<Caller>, Arc<Known>, (Arc<str>, Timestamp))> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok()).ok_or_else(refused)?;
        let end = bytes.len().checked_sub(MAC_BYTES).filter(|end| *end >= HEAD_BYTES).ok_or_else(refused)?;
        let (signed, mac) = bytes.split_at(end);
        self.session_mac(signed)?.verify_slice(mac).map_err(|_| refused())?;
        let number = |at: usize| <[u8; 8]>::try_from(&signed[at..at + 8]).map(u64::from_be_bytes).unwrap_or_default();
        let ends = Timestamp::from_millis(number(16).cast_signed());
        if ends <= self.clock.now() {
            return Err(refused());
        }
        let limits = std::str::from_utf8(&signed[HEAD_BYTES..]).map_err(|_| refused())?;
        let hash = self.token_hash(AccountId(number(0)), TokenId(number(8))).await?;
        let (caller, known) = self.caller_of(hash).await?;
        Ok((caller, known, (Arc::from(limits), ends)))
    }

    async fn token_hash(&self, user: AccountId, token: TokenId) -> Result<TokenHash> {
        if let Some(hash) = self.sessions.hashes.get(&(user, token)) {
            return Ok(hash);
        }
        let hash = TOKENS_OF.get(&*self.store, tables::token_of(user, token)).await?.ok_or_else(refused)?;
        let hash = hash_from(&hash.value)?;
        self.sessions.hashes.insert((user, token), hash);
        Ok(hash)
    }

    fn session_mac(&self, bytes: &[u8]) -> Result<Hmac<sha2::Sha256>> {
        let key = if let Some(key) = self.sessions.key.get() {
            key
        } else {
            let mut drawn = [0; 32];
            let failed = |error| Error::new(Kind::Unavailable, Subject::Token).because(error);
            rand::rngs::SysRng.try_fill_bytes(&mut drawn).map_err(failed)?;
            // Of two at once, both then use the one that came first.
            self.sessions.key.get_or_init(|| drawn)
        };
        let mut mac = Hmac::new_from_slice(key).map_err(|error| Error::internal(Subject::Token, error))?;
        mac.update(bytes);
        Ok(mac)
    }
}
