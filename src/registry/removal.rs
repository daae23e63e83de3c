//! Deleting and restoring hosted packages and their versions.
//!
//! What is deleted vanishes from index and download at once; its name and numbers
//! stay used. A restore gives everything back as it was, so nothing else may have
//! taken its place: a package that was published anew is not restored over, its
//! old versions can be one by one.

use std::collections::HashSet;
use std::time::Duration;

use super::Registry;
use super::family::{Family, Tagging, back_with, is_part};
use super::publish::{TRIES, contended};
use crate::access::{Action, Grant};
use crate::catalog::change::Change;
use crate::catalog::{Applied, Head, change};
use crate::clock::Timestamp;
use crate::error::{Error, Result, Subject};
use crate::event::Deed;
use crate::name::Tag;
use crate::package::{Version, Visibility};
use crate::store::table::Stored;

/// The refusal to delete the last version, in GitHub's words.
pub const LAST_VERSION: &str = "You cannot delete the last version of a package. You must delete the package instead.";

/// The versions that the rule about downloads keeps from being deleted.
pub(super) struct Kept {
    limit: u64,
    versions: HashSet<String>,
}

impl Registry {
    /// Deletes a package with all its versions.
    ///
    /// # Errors
    /// As [`Registry::edit`]; `Invalid` when it is public and was downloaded too often.
    pub async fn delete_package(&self, grant: &Grant) -> Result<()> {
        grant.require(Action::Delete)?;
        let kept = self.kept(grant).await?;
        let delete = |head: &Head, live: Vec<Stored<Version>>, now| {
            kept.allow(head, &live, "packages")?;
            change::delete_package(head, &live, now)
        };
        self.edit_versions(grant, delete).await
    }

    /// Deletes one version, with what [goes with it](Family::gone_with). If the default tag pointed at it, it moves to another
    /// version.
    ///
    /// # Errors
    /// As [`Registry::delete_versions`].
    pub async fn delete_version(&self, grant: &Grant, number: &str, tagging: &(impl Tagging + ?Sized)) -> Result<()> {
        self.delete_versions(grant, &|_| Ok(()), &|candidate| candidate == number, tagging).await
    }

    /// Deletes the live versions that `gone` names, all at once, if `check` lets the newest head pass.
    ///
    /// # Errors
    /// Those of `check`; `NotFound` when no live version is named, `Invalid` with [`LAST_VERSION`] when all are,
    /// and when one of a public package was downloaded too often; `Conflict` when one that stays is made of one of these.
    pub async fn delete_versions(
        &self,
        grant: &Grant,
        check: &(dyn Fn(&Head) -> Result<()> + Sync),
        gone: &(dyn Fn(&str) -> bool + Sync),
        tagging: &(impl Tagging + ?Sized),
    ) -> Result<()> {
        grant.require(Action::Delete)?;
        let kept = self.kept(grant).await?;
        self.edit_versions(grant, |head, live, now| {
            check(head)?;
            let named: HashSet<String> = live.iter().map(|stored| &stored.value.number).filter(|number| gone(number)).cloned().collect();
            if named.is_empty() {
                return Err(Error::not_found(Subject::Version));
            }
            let family = Family::new(live.iter().map(|stored| &stored.value), &head.package.tags, tagging);
            let together: HashSet<String> = family.gone_with(named.iter().map(String::as_str))?.into_iter().map(str::to_owned).collect();
            let (gone, left): (Vec<_>, Vec<_>) = live.into_iter().partition(|stored| together.contains(&stored.value.number));
            if left.is_empty() {
                return Err(Error::invalid(Subject::Version, LAST_VERSION));
            }
            kept.allow(head, &gone, "package versions")?;
            let mut change = without(head, &gone, &left, tagging, now)?;
            for about in &mut change.versions {
                about.part = !named.contains(&about.number);
            }
            Ok(change)
        })
        .await
    }

    /// Deletes one version with its tags, be it the last one of the package.
    ///
    /// # Errors
    /// `NotFound` when there is no such live version, `Conflict` when another live version is made of it.
    pub async fn withdraw(&self, grant: &Grant, number: &str) -> Result<()> {
        grant.require(Action::Delete)?;
        let kept = self.kept(grant).await?;
        let _turn = self.turn(grant.ecosystem(), grant.name()).await;
        for _ in 0..TRIES {
            let head = self.hosted_head(grant).await?;
            let stored = self.catalog().version(grant, &head, number).await?;
            let stored = stored.filter(|stored| stored.value.deleted_at.is_none()).ok_or_else(|| Error::not_found(Subject::Version))?;
            if let Some(whole) = self.catalog().whole_of(grant, &head, number).await? {
                return Err(is_part(&whole));
            }
            kept.allow(&head, std::slice::from_ref(&stored), "package versions")?;
            let change = change::delete_versions(&head, &[stored], None, self.clock().now())?;
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Takes a tag away; the version that it points at stays.
    ///
    /// # Errors
    /// `NotFound` when there is no such tag.
    pub async fn untag(&self, grant: &Grant, tag: &Tag) -> Result<()> {
        self.edit(grant, |head, now| {
            if !head.package.tags.contains_key(tag) {
                return Err(Error::not_found(Subject::Tag));
            }
            change::edit(head, Deed::Tagged, now, |package| drop(package.tags.remove(tag)))
        })
        .await
    }

    /// Restores a deleted package with the versions that were deleted together with it.
    ///
    /// # Errors
    /// As [`change::restore_package`]; `NotFound` when it was deleted too long ago, `Conflict` when its owner's account is gone.
    pub async fn restore_package(&self, grant: &Grant, tagging: &(impl Tagging + ?Sized)) -> Result<()> {
        self.restore(grant, |head, all, now| {
            self.expect_restorable(grant, head.package.deleted_at, now, Subject::Package)?;
            let together = change::deleted_together(head, all);
            let default = tagging.default(&numbers(&together));
            change::restore_package(head, &together, default, now)
        })
        .await
    }

    /// Restores a deleted version of a live package, with what [comes back with it](back_with).
    ///
    /// # Errors
    /// `NotFound` when the number was never published or deleted too long ago; otherwise as [`change::restore_versions`].
    pub async fn restore_version(&self, grant: &Grant, number: &str, tagging: &(impl Tagging + ?Sized)) -> Result<()> {
        self.restore(grant, |head, all, now| {
            let deleted = all.iter().find(|stored| stored.value.number == number);
            let deleted = deleted.ok_or_else(|| Error::not_found(Subject::Version))?;
            self.expect_restorable(grant, deleted.value.deleted_at, now, Subject::Version)?;
            let together: HashSet<String> =
                back_with(all.iter().map(|stored| &stored.value), number, tagging).into_iter().map(str::to_owned).collect();
            if together.is_empty() {
                return Err(Error::conflict(Subject::Version, "the version is not deleted"));
            }
            let (back, mut live): (Vec<_>, Vec<_>) = all.into_iter().partition(|stored| together.contains(&stored.value.number));
            live.retain(|stored| stored.value.deleted_at.is_none());
            let mut choice = numbers(&live);
            choice.extend(numbers(&back));
            let mut change = change::restore_versions(head, &live, &back, tagging.default(&choice), now)?;
            for about in &mut change.versions {
                about.part = about.number != number;
            }
            Ok(change)
        })
        .await
    }

    /// The versions that were downloaded too often to be deleted. The operator is not held to the rule.
    pub(super) async fn kept(&self, grant: &Grant) -> Result<Kept> {
        let limit = self.access().undeletable_downloads;
        let versions = match grant.package() {
            Some(package) if limit > 0 && !grant.is_system() => self.catalog().downloads().above(package, limit).await?,
            _ => HashSet::new(),
        };
        Ok(Kept { limit, versions })
    }

    /// That what was deleted can still be restored. The operator is not held to the window: nothing that is kept is out of reach.
    fn expect_restorable(&self, grant: &Grant, deleted_at: Option<Timestamp>, now: Timestamp, subject: Subject) -> Result<()> {
        let window = Duration::from_secs(self.config().restore_days.saturating_mul(86_400));
        match deleted_at {
            Some(at) if !grant.is_system() && now.since(at) > window => Err(Error::not_found(subject)),
            _ => Ok(()),
        }
    }

    /// As [`Registry::edit_versions`], with deleted versions too and for deleted packages.
    async fn restore(
        &self,
        grant: &Grant,
        build: impl Fn(&Head, Vec<Stored<Version>>, Timestamp) -> Result<Change> + Send + Sync,
    ) -> Result<()> {
        grant.require(Action::Admin)?;
        let _turn = self.turn(grant.ecosystem(), grant.name()).await;
        for _ in 0..TRIES {
            let head = self.hosted_head(grant).await?;
            let all = self.catalog().all_versions(grant, &head).await?;
            let mut change = build(&head, all, self.clock().now())?;
            self.expect_owner(&mut change.batch, head.package.owner).await?;
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(contended())
    }
}

impl Kept {
    /// Whether a version is kept.
    pub(super) fn keeps(&self, head: &Head, number: &str) -> bool {
        head.policy.visibility() == Visibility::Public && self.versions.contains(number)
    }

    /// That none of these versions is kept, in GitHub's words.
    fn allow(&self, head: &Head, gone: &[Stored<Version>], what: &str) -> Result<()> {
        if gone.iter().any(|stored| self.keeps(head, &stored.value.number)) {
            let text = format!(
                "Publicly visible {what} with more than {} downloads cannot be deleted. Contact an administrator of this server for further assistance.",
                self.limit
            );
            return Err(Error::invalid(Subject::Version, text));
        }
        Ok(())
    }
}

/// Deletes some of the live versions and leaves the others; the default tag moves to one of these.
pub(super) fn without(
    head: &Head,
    gone: &[Stored<Version>],
    left: &[Stored<Version>],
    tagging: &(impl Tagging + ?Sized),
    now: Timestamp,
) -> Result<Change> {
    let goes = |number: &String| gone.iter().any(|stored| stored.value.number == *number);
    let moved = tagging.default(&numbers(left)).filter(|(tag, _)| head.package.tags.get(tag).is_some_and(goes));
    change::delete_versions(head, gone, moved, now)
}

fn numbers(versions: &[Stored<Version>]) -> Vec<&str> {
    versions.iter().map(|stored| stored.value.number.as_str()).collect()
}
