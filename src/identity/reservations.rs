//! Reserved names: patterns of package names that belong to an owner.
//!
//! A reserved name is hosted here or nowhere: it is never asked upstream, whether
//! or not a package of that name was published yet, unless the owner opts the
//! pattern into merging. That is what keeps an outsider from publishing the
//! company's internal name on a public registry and being installed instead.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::journal::Told;
use super::tables::{self, ACCOUNTS, RESERVATIONS};
use super::{Identity, TRIES, contended};
use crate::clock::Timestamp;
use crate::error::{Error, Result, Subject};
use crate::event::{AccountDeed, Particulars};
use crate::name::PackageName;
use crate::package::AccountId;
use crate::store::Batch;
use crate::store::table::Key;

/// Ecosystems that can have reservations; there are not as many ecosystems.
const ECOSYSTEMS_LIMIT: usize = 1000;

/// A pattern of names and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The ecosystem whose names it speaks of.
    pub ecosystem: String,
    /// A name, or the beginning of names followed by one `*`: `@acme/*`, `com.acme.*`, `acme-tool`.
    pub pattern: String,
    /// The account the names belong to.
    pub owner: AccountId,
    /// Whether versions from upstream are merged in nevertheless.
    #[serde(default)]
    pub merge: bool,
}

impl Reservation {
    fn prefix(&self) -> Option<&str> {
        self.pattern.strip_suffix('*')
    }

    fn covers(&self, name: &str) -> bool {
        self.prefix().map_or_else(|| self.pattern == name, |prefix| name.starts_with(prefix))
    }

    /// Whether some name is covered by both.
    fn overlaps(&self, other: &Self) -> bool {
        match (self.prefix(), other.prefix()) {
            (None, _) => other.covers(&self.pattern),
            (_, None) => self.covers(&other.pattern),
            (Some(one), Some(two)) => one.starts_with(two) || two.starts_with(one),
        }
    }

    /// How exactly it speaks of the names it covers.
    fn precision(&self) -> (bool, usize) {
        (self.prefix().is_none(), self.pattern.len())
    }
}

/// All reservations at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reservations(Vec<Reservation>);

impl Reservations {
    /// The most precise reservation that covers a name: an exact one, else the longest prefix.
    #[must_use]
    pub fn find(&self, ecosystem: &str, name: &PackageName) -> Option<&Reservation> {
        let covering = self.0.iter().filter(|reservation| reservation.ecosystem == ecosystem && reservation.covers(name.as_str()));
        covering.max_by_key(|reservation| reservation.precision())
    }

    /// Every reservation, by ecosystem and pattern.
    pub fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.0.iter()
    }
}

/// The reservations as last read.
#[derive(Default)]
pub(super) struct Remembered(ArcSwapOption<Read>);

struct Read {
    generation: u64,
    until: Timestamp,
    all: Arc<Reservations>,
}

impl Identity {
    /// Reserves a pattern for an owner, or changes whether the owner's reservation merges.
    ///
    /// # Errors
    /// `Invalid` for a pattern that is none, `NotFound` for an absent owner, `Conflict` when it overlaps another owner's.
    pub async fn reserve(&self, new: Reservation) -> Result<()> {
        check(&new)?;
        for _ in 0..TRIES {
            let account = self.live(new.owner).await?;
            let mut batch = Batch::new();
            ACCOUNTS.unchanged(&mut batch, tables::account(new.owner), &account);
            let mut all = self.take(&mut batch, &new.ecosystem).await?;
            if let Some(other) = all.iter().find(|other| other.owner != new.owner && other.overlaps(&new)) {
                let text = format!("the pattern overlaps {:?}, which another owner has reserved", other.pattern);
                return Err(Error::conflict(Subject::Package, text));
            }
            all.retain(|other| other.pattern != new.pattern);
            if all.len() >= self.config.reservations_per_ecosystem {
                return Err(Error::conflict(Subject::Package, "too many reserved patterns in this ecosystem"));
            }
            all.push(new.clone());
            all.sort_by(|one, two| one.pattern.cmp(&two.pattern));
            RESERVATIONS.put(&mut batch, tables::ecosystem(&new.ecosystem), &all)?;
            let told = Told { owner: &account.value, deed: AccountDeed::NameReserved, about: about(&new.pattern) };
            if self.commit_told(batch, [told]).await? {
                return Ok(());
            }
        }
        Err(contended(Subject::Package))
    }

    /// Gives a reserved pattern up. Names under it that are hosted stay hosted.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn unreserve(&self, ecosystem: &str, pattern: &str) -> Result<()> {
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            let mut all = self.take(&mut batch, ecosystem).await?;
            let place = all.iter().position(|other| other.pattern == pattern);
            let given_up = all.remove(place.ok_or_else(|| Error::not_found(Subject::Package).saying("no such reservation"))?);
            RESERVATIONS.put(&mut batch, tables::ecosystem(ecosystem), &all)?;
            // Also of a deleted account, whose record stays.
            let owner = ACCOUNTS.get(&*self.store, tables::account(given_up.owner)).await?;
            let told = owner.as_ref().map(|owner| Told { owner: &owner.value, deed: AccountDeed::NameUnreserved, about: about(pattern) });
            if self.commit_told(batch, told).await? {
                return Ok(());
            }
        }
        Err(contended(Subject::Package))
    }

    /// All reservations. Remembered like callers: until something changes, and not longer than the cache's time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reservations(&self) -> Result<Arc<Reservations>> {
        if let Some(all) = self.reservations_in_memory(self.clock.now()) {
            return Ok(all);
        }
        let (generation, now) = (self.generation(), self.clock.now());
        let rows = Box::pin(RESERVATIONS.scan(&*self.store, Key::new(), None, ECOSYSTEMS_LIMIT)).await?;
        let all = Arc::new(Reservations(rows.into_iter().flat_map(|(_, stored)| stored.value).collect()));
        let until = now.plus(Duration::from_secs(self.config.cache_seconds));
        self.reservations.0.store(Some(Arc::new(Read { generation, until, all: Arc::clone(&all) })));
        Ok(all)
    }

    /// Every reservation, if memory knows them as they are now.
    #[must_use]
    pub fn reservations_in_memory(&self, now: Timestamp) -> Option<Arc<Reservations>> {
        let generation = self.generation();
        let known = self.reservations.0.load();
        known.as_ref().filter(|known| known.generation == generation && now < known.until).map(|known| Arc::clone(&known.all))
    }

    /// The reservations of an ecosystem, with the condition that they are still these.
    async fn take(&self, batch: &mut Batch, ecosystem: &str) -> Result<Vec<Reservation>> {
        let key = || tables::ecosystem(ecosystem);
        match RESERVATIONS.get(&*self.store, key()).await? {
            None => {
                RESERVATIONS.absent(batch, key());
                Ok(Vec::new())
            }
            Some(stored) => {
                RESERVATIONS.unchanged(batch, key(), &stored);
                Ok(stored.value)
            }
        }
    }
}

fn about(pattern: &str) -> Particulars {
    Particulars { pattern: Some(pattern.to_owned()), ..Particulars::default() }
}

fn check(new: &Reservation) -> Result<()> {
    let plain = |text: &str| !text.is_empty() && text.len() <= PackageName::LONGEST && !text.chars().any(|c| c.is_control() || c == '*');
    if !plain(new.prefix().unwrap_or(&new.pattern)) {
        let text = "a pattern is a name, or the beginning of names followed by one '*' at its end";
        return Err(Error::invalid(Subject::Package, text));
    }
    if !plain(&new.ecosystem) || new.ecosystem.len() > 32 {
        return Err(Error::invalid(Subject::Package, "no such ecosystem"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation(pattern: &str) -> Reservation {
        Reservation { ecosystem: "npm".into(), pattern: pattern.into(), owner: AccountId(1), merge: false }
    }

    #[test]
    fn the_most_precise_pattern_wins() {
        let all = Reservations(["@acme/*", "@acme/tool", "acme*", "acme-in*"].map(reservation).into());
        let check = |name: &str, expected: Option<&str>| {
            let found = all.find("npm", &PackageName::new(name).unwrap());
            assert_eq!(found.map(|reservation| reservation.pattern.as_str()), expected, "{name}");
        };
        check("@acme/tool", Some("@acme/tool"));
        check("@acme/tools", Some("@acme/*"));
        check("@acmex/tool", None);
        check("acme-internal", Some("acme-in*"));
        check("acme", Some("acme*"));
        check("acm", None);
        assert!(all.find("rubygems", &PackageName::new("acme").unwrap()).is_none());
    }

    #[test]
    fn overlap_is_mutual() {
        for (one, two, expected) in [
            ("a*", "ab*", true),
            ("a*", "abc", true),
            ("a", "a", true),
            ("a", "b", false),
            ("a*", "b*", false),
            ("ab*", "a", false),
            ("@a/*", "@ab/*", false),
        ] {
            assert_eq!(reservation(one).overlaps(&reservation(two)), expected, "{one} {two}");
            assert_eq!(reservation(two).overlaps(&reservation(one)), expected, "{two} {one}");
        }
    }

    #[test]
    fn patterns_are_checked() {
        for wrong in ["", "*", "a*b", "**", "a**", "a\n", &"a".repeat(513)] {
            assert!(check(&reservation(wrong)).is_err(), "{wrong}");
        }
        assert!(check(&reservation("@acme/*")).is_ok());
    }
}
