//! What is shown to whom: versions that are hidden from lists, packages that a caller may read, and whose are public.

use std::collections::HashSet;
use std::sync::Arc;

use super::Registry;
use crate::access::{self, Action, Grant, Target};
use crate::catalog::{Head, View, change};
use crate::error::{Error, Result, Subject};
use crate::identity::Caller;
use crate::package::{AccountId, Version, Visibility};
use crate::store::table::Stored;

/// Whose packages of an ecosystem everybody may read, with the counts of changes that it was found at.
pub(super) type Publics = quick_cache::sync::Cache<&'static str, (u64, u64, Arc<HashSet<AccountId>>)>;

impl Registry {
    /// Hides a version from all but those who ask for it by its number.
    ///
    /// # Errors
    /// `NotFound` when there is no such live version.
    pub async fn unlist(&self, grant: &Grant, number: &str, reason: &str) -> Result<()> {
        grant.require(Action::Delete)?;
        self.list(grant, number, Some(reason)).await
    }

    /// Shows a version again that was hidden.
    ///
    /// # Errors
    /// As [`Registry::unlist`].
    pub async fn relist(&self, grant: &Grant, number: &str) -> Result<()> {
        grant.require(Action::Admin)?;
        self.list(grant, number, None).await
    }

    async fn list(&self, grant: &Grant, number: &str, unlisted: Option<&str>) -> Result<()> {
        let find = |live: Vec<Stored<Version>>| live.into_iter().find(|stored| stored.value.number == number);
        self.edit_versions(grant, |head, live, now| {
            let stored = find(live).ok_or_else(|| Error::not_found(Subject::Version))?;
            change::list(head, &stored, unlisted.map(str::to_owned), now)
        })
        .await
    }

    /// Live packages of a view that a caller may read, each with the proof of it, at most `limit` of them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn readable_heads(
        &self,
        view: View,
        ecosystem: &'static str,
        caller: &Caller,
        limit: usize,
    ) -> Result<Vec<(Arc<Head>, Grant)>> {
        let mut heads = Vec::new();
        self.catalog().each_head(ecosystem, |head| heads.push(head)).await?;
        let mut found = Vec::new();
        for head in heads.into_iter().filter(|head| head.package.deleted_at.is_none()) {
            let package = &head.package;
            let target = Target { ecosystem, name: &package.name, package: Some(package.id) };
            let Ok(grant) = access::grant(caller, target, &head.policy, Action::Read) else { continue };
            let here = match view {
                View::Owner(owner) => package.owner == owner,
                View::Root => self.catalog().head(ecosystem, &package.name).await?.is_some_and(|root| root.package.id == package.id),
            };
            if here {
                found.push((head, grant));
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// The owners of packages of an ecosystem that everybody may read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn public_owners(&self, ecosystem: &'static str) -> Result<Arc<HashSet<AccountId>>> {
        let (changes, identity) = (self.catalog().changes(), self.identity().generation());
        if let Some((at, of, owners)) = self.publics.get(ecosystem)
            && (at, of) == (changes, identity)
        {
            return Ok(owners);
        }
        let mut owners = HashSet::new();
        self.catalog()
            .each_head(ecosystem, |head| {
                if head.package.deleted_at.is_none() && head.policy.visibility() == Visibility::Public {
                    owners.insert(head.package.owner);
                }
            })
            .await?;
        let owners = Arc::new(owners);
        self.publics.insert(ecosystem, (changes, identity, Arc::clone(&owners)));
        Ok(owners)
    }
}
