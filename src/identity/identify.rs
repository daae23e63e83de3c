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
use super::{Config, Identity};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderValue};
use crate::package::TokenId;
use crate::store::Batch;

/// Uses written in one batch.
const FLUSH_CHUNK: usize = 256;

/// The remembered callers and the uses not yet written.
pub(super) struct Callers {
    known: quick_cache::sync::Cache<TokenHash, Arc<Known>>,
    uses: Mutex<HashMap<TokenHash, Arc<Use>>>,
    lifetime: Duration,
}

struct Known {
    generation: u64,
    /// By the wall clock, since a token's expiry is.
    until: Timestamp,
    /// By the machine's monotonic clock, so that a wall clock that is set back cannot prolong an entry for ever.
    deadline: Instant,
    caller: Arc<Caller>,
    noted: Arc<Use>,
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
        let known = quick_cache::sync::Cache::new(usize::try_from(config.cached_callers).unwrap_or(usize::MAX));
        Self { known, uses: Mutex::default(), lifetime }
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

impl Identity {
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
            Credentials::Token(hash) => self.caller_of(hash).await,
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

    pub(super) async fn caller_of(&self, hash: TokenHash) -> Result<Arc<Caller>> {
        let now = self.clock.now();
        // Read before the store is: what changes in between makes the entry stale, not wrong.
        let generation = self.generation();
        if let Some(known) = self.callers.known.get(&hash)
            && known.generation == generation
            && now < known.until
            && Instant::now() < known.deadline
        {
            known.noted.seen.store(now.as_millis(), Ordering::Relaxed);
            return Ok(Arc::clone(&known.caller));
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
        let known = Known { generation, until, deadline: Instant::now() + self.callers.lifetime, caller: Arc::clone(&caller), noted };
        self.callers.known.insert(hash, Arc::new(known));
        Ok(caller)
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

/// One answer for every cause, so that a guess learns nothing.
pub(super) fn refused() -> Error {
    Error::new(Kind::Unauthenticated, Subject::Token).saying("bad credentials")
}
