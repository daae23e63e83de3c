//! Who there is: users, organisations, teams, repositories, tokens, reserved names.
//!
//! [`Identity`] holds the handles and does every change as one conditional batch
//! on the state store, together with the event that tells of it. All relations are by numeric id; ids are never reused. Of a
//! token only the SHA-256 is kept.
//!
//! A request's caller is worked out by [`Identity::identify`] and remembered for a
//! moment. Each change of identity made through this process advances
//! [`Identity::generation`], and what was remembered under an older generation is
//! not used, so that a revocation bites at once; the short memory bounds how late
//! a change by another process is seen. Whoever keeps something derived from
//! identity (a policy, say) compares the generation likewise.
//!
//! Nothing here decides what a caller may do: that is `access`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Subject};
use crate::name::OwnerName;
use crate::package::AccountId;
use crate::store::{Batch, Outcome, Store};

mod accounts;
mod caller;
mod credentials;
mod identify;
mod journal;
mod organisations;
mod owners;
#[cfg(test)]
mod races;
mod record;
mod repositories;
mod reservations;
#[cfg(test)]
pub(crate) mod rows;
mod sequence;
mod session;
mod tables;
mod token;
mod tokens;

pub use accounts::{AccountChange, NewUser};
pub use caller::{Caller, Signed, Workflow};
pub use record::{Account, AccountKind, Membership, OrganisationRole, Repository, RepositoryRole, Team, Token};
pub use reservations::{Reservation, Reservations};
pub use sequence::Sequence;
pub use session::{ANONYMOUS_SESSION, Identified, LIMITS_BYTES};
pub use token::{PREFIX, Scope, Scopes, TokenHash, TokenText, UnknownScope};
pub use tokens::NewToken;

use identify::Callers;

/// Tries of a change against concurrent ones before it fails.
const TRIES: usize = 16;

/// Limits of identity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a caller is remembered, in seconds. Bounds how late a change made by another process is seen.
    pub cache_seconds: u64,
    /// Callers remembered at once.
    pub cached_callers: u64,
    /// How long a session token holds that a client exchanged its token for, in seconds.
    pub session_seconds: u64,
    /// Live tokens of one user.
    pub tokens_per_user: usize,
    /// Reserved patterns of one ecosystem.
    pub reservations_per_ecosystem: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_seconds: 1, cached_callers: 100_000, session_seconds: 300, tokens_per_user: 1000, reservations_per_ecosystem: 10_000 }
    }
}

/// The users, organisations, teams, repositories, tokens and reserved names of this server.
pub struct Identity {
    store: Arc<dyn Store>,
    clock: Clock,
    config: Config,
    generation: AtomicU64,
    ids: Sequence,
    event_ids: Sequence,
    callers: Callers,
    sessions: session::Sessions,
    reservations: reservations::Remembered,
    /// Whose a login is, and in which generation that was read.
    logins: quick_cache::sync::Cache<OwnerName, (u64, Option<AccountId>)>,
}

/// Logins whose account is remembered.
const LOGINS_REMEMBERED: usize = 10_000;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of their keys.
    pub items: Vec<T>,
    /// What to ask the next part after; `None` when this is the last.
    pub next: Option<u64>,
}

impl Identity {
    /// Identity on a state store, with the default limits.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self::with_config(store, clock, Config::default())
    }

    /// Identity on a state store.
    #[must_use]
    pub fn with_config(store: Arc<dyn Store>, clock: Clock, config: Config) -> Self {
        let callers = Callers::new(&config);
        let generation = AtomicU64::new(0);
        Self {
            store,
            clock,
            config,
            generation,
            ids: Sequence::new("identity"),
            event_ids: Sequence::new("event"),
            callers,
            sessions: session::Sessions::default(),
            reservations: reservations::Remembered::default(),
            logins: quick_cache::sync::Cache::new(LOGINS_REMEMBERED),
        }
    }

    /// Count of changes of identity made through this process. What was derived under another number is stale.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Applies a change; `false` when a condition did not hold. Advances the
    /// generation in every case, also when the caller gives up waiting, because
    /// the change may still be applied then.
    async fn commit(&self, batch: Batch) -> Result<bool> {
        struct Advance<'a>(&'a AtomicU64);
        impl Drop for Advance<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }
        let _advance = Advance(&self.generation);
        Ok(self.store.commit(batch).await? == Outcome::Committed)
    }

    async fn next_id(&self) -> Result<u64> {
        self.ids.next(&*self.store).await
    }
}

/// The error of a change that lost every try to concurrent ones.
fn contended(subject: Subject) -> Error {
    Error::new(Kind::Unavailable, subject).saying("too many changes at once, try again")
}

/// The next page's mark after a scan that asked for `limit` rows.
fn page_end<T>(rows: &[T], limit: usize, id: impl Fn(&T) -> u64) -> Option<u64> {
    if rows.len() < limit { None } else { rows.last().map(id) }
}

#[cfg(test)]
mod tests;
