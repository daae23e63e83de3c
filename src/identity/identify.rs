//! From a request's headers to its caller, remembered for a moment.
//!
//! On a hit this reads no store and takes no lock across an await. A caller is
//! remembered under the hash of its token, together with the generation it was
//! read under and the instant until which it holds, whichever is first of the
//! cache's time and the token's own expiry. Uses of a token are noted in an atomic
//! beside it and written by [`Identity::flush_last_used`], never on a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::caller::{Caller, Signed};
use super::credentials::{self, Credentials};
use super::record::{Account, Token};
use super::tables::{self, ACCOUNTS, TOKEN_USES, TOKENS};
use super::token::{Scopes, TokenHash};
use super::{Config, Identified, Identity};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderValue};
use crate::name::PackageKey;
use crate::package::TokenId;
use crate::store::Batch;

/// Uses written in one batch.
const FLUSH_CHUNK: usize = 256;

/// The remembered callers and the uses not yet written.
pub(super) struct Callers {
    known: quick_cache::sync::Cache<TokenHash, Arc<Known>>,
    /// By what the whole header said, so that a client that says the same again costs no decoding and no SHA-256. The key is a
    /// keyed hash of 128 bits: no text of a token is held, and nobody outside can aim at a key.
    said: quick_cache::sync::Cache<PackageKey, Arc<Said>>,
    uses: Mutex<HashMap<TokenHash, Arc<Use>>>,
    lifetime: Duration,
}

pub(super) struct Known {
    generation: u64,
    /// By the wall clock, since a token's expiry is.
    until: Timestamp,
    /// By the machine's monotonic clock, so that a wall clock that is set back cannot prolong an entry for ever.
    deadline: Instant,
    caller: Arc<Caller>,
    noted: Arc<Use>,
}

/// What a header's value stands for.
struct Said {
    known: Arc<Known>,
    /// The limits of the session that it is, and when that ends.
    session: Option<(Arc<str>, Timestamp)>,
}

/// The last use of a token, in milliseconds since the epoch; zero for none in this process.
struct Use {
    token: TokenId,
    seen: AtomicI64,
    written: AtomicI64,
}

impl Callers {
    pub(super) fn new(config: &Config) -> Self {
        let lifetime = Duration::from_secs(config.cache_seconds);
        let most = usize::try_from(config.cached_callers).unwrap_or(usize::MAX);
        let (known, said) = (quick_cache::sync::Cache::new(most), quick_cache::sync::Cache::new(most));
        Self { known, said, uses: Mutex::default(), lifetime }
    }

    fn use_of(&self, hash: TokenHash, token: TokenId) -> Arc<Use> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Use { token, seen: AtomicI64::new(0), written: AtomicI64::new(0) });
        Arc::clone(uses.entry(hash).or_insert_with(fresh))
    }

    /// Uses to be written, with their instants. Forgets the written ones that no remembered caller holds.
    fn unwritten(&self) -> Vec<(Arc<Use>, i64)> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |noted: &Use| noted.seen.load(Ordering::Relaxed) != noted.written.load(Ordering::Relaxed);
        uses.retain(|_, noted| is_new(noted) || Arc::strong_count(noted) > 1);
        uses.values().filter(|noted| is_new(noted)).map(|noted| (Arc::clone(noted), noted.seen.load(Ordering::Relaxed))).collect()
    }
}

impl Known {
    /// Whether it still stands for its caller.
    fn holds(&self, generation: u64, (now, instant): (Timestamp, Instant)) -> bool {
        self.generation == generation && now < self.until && instant < self.deadline
    }

    /// Its caller, who is using the token now.
    fn used(&self, now: Timestamp) -> Arc<Caller> {
        self.noted.seen.store(now.as_millis(), Ordering::Relaxed);
        Arc::clone(&self.caller)
    }
}

impl Identity {
    /// Who asks, if memory knows the very words that the request says it with; `key` as for [`Identity::identify_with`].
    /// Whether a session's word is taken, the caller says, and what time it is by both clocks: reading one takes 25 ns. `None` is
    /// no refusal: it leaves the request to the other functions.
    ///
    /// Nothing is remembered longer than by them: each entry ends with the generation it was read under.
    #[must_use]
    pub fn identify_in_memory(
        &self,
        headers: &HeaderMap,
        key: Option<&HeaderValue>,
        sessions: bool,
        (now, instant): (Timestamp, Instant),
    ) -> Option<Identified> {
        let said = match credentials::said(headers, key) {
            credentials::Said::Nothing => return Some(Identified { caller: Caller::anonymous(), session: None }),
            credentials::Said::Once(value) => self.callers.said.get(&said_key(value))?,
            credentials::Said::Twice => return None,
        };
        let session = match &said.session {
            Some((limits, ends)) if sessions && now < *ends => Some(Arc::clone(limits)),
            Some(_) => return None,
            None => None,
        };
        said.known.holds(self.generation(), (now, instant)).then(|| Identified { caller: said.known.used(now), session })
    }

    /// Remembers what the headers say: whose token it is, or whose session with which limits and which end.
    pub(super) fn remember_said(
        &self,
        headers: &HeaderMap,
        key: Option<&HeaderValue>,
        known: Arc<Known>,
        session: Option<(Arc<str>, Timestamp)>,
    ) {
        if let credentials::Said::Once(value) = credentials::said(headers, key) {
            self.callers.said.insert(said_key(value), Arc::new(Said { known, session }));
        }
    }

    /// The caller of a request, from its headers.
    ///
    /// No credentials are the anonymous caller. Credentials that do not hold are an
    /// error, never the anonymous caller, and the error is the same whatever the
    /// cause. See the module `credentials` for the places a token may be in.
    ///
    /// # Errors
    /// `Unauthenticated` for a token that is malformed, unknown, expired, revoked or
    /// of a disabled user; `Unavailable` when the store cannot say.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Caller>> {
        self.identify_with(headers, None).await
    }

    /// As [`Identity::identify`], where a token may also be in a header of the protocol's own, whose value is `key`.
    ///
    /// # Errors
    /// As [`Identity::identify`].
    pub async fn identify_with(&self, headers: &HeaderMap, key: Option<&HeaderValue>) -> Result<Arc<Caller>> {
        match credentials::read(headers, key) {
            Credentials::Absent => Ok(Caller::anonymous()),
            // A session is for those who handed it out.
            Credentials::Malformed | Credentials::Session(_) => Err(refused()),
            Credentials::Token(hash) => {
                let (caller, known) = self.caller_of(hash).await?;
                self.remember_said(headers, key, known, None);
                Ok(caller)
            }
        }
    }

    /// Writes when tokens were last used; returns how many. For a periodic job and for shutdown.
    ///
    /// # Errors
    /// When the store fails; what is not written is tried again next time.
    pub async fn flush_last_used(&self) -> Result<usize> {
        let unwritten = self.callers.unwritten();
        for chunk in unwritten.chunks(FLUSH_CHUNK) {
            let mut batch = Batch::new();
            for (noted, seen) in chunk {
                TOKEN_USES.put(&mut batch, tables::token_use(noted.token), &Timestamp::from_millis(*seen))?;
            }
            // Not through `commit`: a use changes nobody's rights.
            self.store.commit(batch).await?;
            for (noted, seen) in chunk {
                noted.written.store(*seen, Ordering::Relaxed);
            }
        }
        Ok(unwritten.len())
    }

    /// The caller of a token, and what is remembered of it.
    pub(super) async fn caller_of(&self, hash: TokenHash) -> Result<(Arc<Caller>, Arc<Known>)> {
        let now = self.clock.now();
        // Read before the store is: what changes in between makes the entry stale, not wrong.
        let generation = self.generation();
        if let Some(known) = self.callers.known.get(&hash).filter(|known| known.holds(generation, (now, Instant::now()))) {
            return Ok((known.used(now), known));
        }
        // Boxed, as all that a hit does not need, so that a request's future is small: it is moved several times.
        let (token, signed) = Box::pin(self.load(hash, now)).await.map_err(|error| match error.kind() {
            Kind::Unauthenticated | Kind::Unavailable => error,
            _ => Error::new(Kind::Unavailable, Subject::Store).because(error),
        })?;
        let noted = self.callers.use_of(hash, token.id);
        noted.seen.store(now.as_millis(), Ordering::Relaxed);
        let until = now.plus(self.callers.lifetime).min(token.expires_at.unwrap_or(Timestamp::from_millis(i64::MAX)));
        let caller = Arc::new(Caller::Signed(signed));
        let deadline = Instant::now() + self.callers.lifetime;
        let known = Arc::new(Known { generation, until, deadline, caller: Arc::clone(&caller), noted });
        self.callers.known.insert(hash, Arc::clone(&known));
        Ok((caller, known))
    }

    async fn load(&self, hash: TokenHash, now: Timestamp) -> Result<(Token, Signed)> {
        let token = TOKENS.get(&*self.store, tables::token(hash)).await?.ok_or_else(refused)?.value;
        let account = ACCOUNTS.get(&*self.store, tables::account(token.user)).await?.ok_or_else(refused)?.value;
        if !token.holds(now) || account.disabled || account.deleted_at.is_some() || account.is_organisation() {
            return Err(refused());
        }
        let signed = self.seen(&account, token.id, token.scopes).await?;
        Ok((token, signed))
    }

    /// A user as seen through a token of these scopes, whether there is one or not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn seen(&self, account: &Account, token: TokenId, scopes: Scopes) -> Result<Signed> {
        let memberships = self.memberships(account.id).await?;
        Ok(Signed {
            user: account.id,
            login: account.login.clone(),
            site_admin: account.site_admin,
            token,
            scopes,
            teams: self.live_teams(&memberships).await?,
            organisations: memberships.into_iter().map(|membership| (membership.organisation, membership.role)).collect(),
        })
    }
}

fn said_key(value: &HeaderValue) -> PackageKey {
    PackageKey::of(&value.as_bytes())
}

/// One answer for every cause, so that a guess learns nothing.
pub(super) fn refused() -> Error {
    Error::new(Kind::Unauthenticated, Subject::Token).saying("bad credentials")
}
