//! Rules about a package's versions: which of them go, looked at first and then applied.
//!
//! A version stays that a rule keeps, or that one needs which stays: the images of an
//! index, and what is about an image. So no image for many platforms breaks and no
//! signature is lost. What would go has a mark made from the numbers; who applies it
//! names the mark that he saw, and something else is never deleted instead.

use std::collections::HashSet;
use std::time::Duration;

use super::Registry;
use super::family::{Family, Tagging};
use super::publish::{TRIES, contended};
use super::removal::without;
use crate::access::{Action, Grant};
use crate::catalog::{Applied, Head, change};
use crate::clock::Timestamp;
use crate::digest::{Algorithm, Hasher};
use crate::error::{Error, Result, Subject};
use crate::event::Deed;
use crate::package::{Package, Version};
use crate::rules::{Retention, Rules};
use crate::store::table::Stored;

/// What rules let go.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The versions that go, the oldest first.
    pub gone: Vec<Version>,
    /// How many stay.
    pub kept: usize,
    /// Names exactly these versions.
    pub mark: String,
}

impl Registry {
    /// Lays down the rules of a package.
    ///
    /// # Errors
    /// As [`Registry::edit`].
    pub async fn set_rules(&self, grant: &Grant, rules: Rules) -> Result<()> {
        grant.require(Action::Admin)?;
        let detail = serde_json::to_string(&rules).map_err(|error| Error::internal(Subject::Package, error))?;
        let edit = |head: &Head, now| {
            let mut change = change::edit(head, Deed::RulesChanged, now, |package| package.rules = rules.clone())?.saying(detail.clone());
            if head.package.rules == rules {
                change.batch.changes.clear();
            }
            Ok(change)
        };
        self.edit(grant, edit).await
    }

    /// Which versions rules would let go now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn select(&self, grant: &Grant, retention: &Retention, tagging: &(impl Tagging + ?Sized)) -> Result<Selection> {
        grant.require(Action::Delete)?;
        let kept = self.kept(grant).await?;
        let head = self.hosted_head(grant).await?;
        let live = self.catalog().live_versions(grant, &head).await?;
        let undeletable = |number: &str| kept.keeps(&head, number);
        let gone = numbers_gone(&head.package, &live, retention, tagging, &undeletable, self.clock().now());
        Ok(selection(live, &gone).0)
    }

    /// Deletes what rules let go, if that is what `mark` names; returns how many versions that were.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::Kind::Conflict) when it is not.
    pub async fn apply(&self, grant: &Grant, retention: &Retention, mark: &str, tagging: &(impl Tagging + ?Sized)) -> Result<usize> {
        grant.require(Action::Delete)?;
        let kept = self.kept(grant).await?;
        let _turn = self.turn(grant.ecosystem(), grant.name()).await;
        for _ in 0..TRIES {
            let head = self.hosted_head(grant).await?;
            let live = self.catalog().live_versions(grant, &head).await?;
            let undeletable = |number: &str| kept.keeps(&head, number);
            let now = self.clock().now();
            let gone = numbers_gone(&head.package, &live, retention, tagging, &undeletable, now);
            let (gone, left): (Vec<_>, Vec<_>) = live.into_iter().partition(|stored| gone.contains(&stored.value.number));
            if mark_of(&gone) != mark {
                return Err(Error::conflict(Subject::Version, "other versions would go now than those you saw; look again"));
            }
            if gone.is_empty() {
                return Ok(0);
            }
            let change = without(&head, &gone, &left, tagging, now)?.saying("retention");
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(gone.len());
            }
        }
        Err(contended())
    }
}

fn selection(live: Vec<Stored<Version>>, gone: &HashSet<String>) -> (Selection, Vec<Stored<Version>>) {
    let (mut gone, left): (Vec<_>, Vec<_>) = live.into_iter().partition(|stored| gone.contains(&stored.value.number));
    gone.sort_by_key(|stored| (stored.value.created_at, stored.value.id));
    let mark = mark_of(&gone);
    let gone = gone.into_iter().map(|stored| stored.value).collect();
    (Selection { gone, kept: left.len(), mark }, left)
}

/// A text that names exactly these versions.
fn mark_of(gone: &[Stored<Version>]) -> String {
    let mut ids: Vec<u64> = gone.iter().map(|stored| stored.value.id.0).collect();
    ids.sort_unstable();
    let mut hasher = Hasher::new(&[Algorithm::Sha256]);
    for id in ids {
        hasher.update(&id.to_be_bytes());
    }
    hasher.finish().get(Algorithm::Sha256).map(|digest| digest.hex()[..32].to_owned()).unwrap_or_default()
}

/// The numbers of the versions that go.
fn numbers_gone(
    package: &Package,
    live: &[Stored<Version>],
    retention: &Retention,
    tagging: &(impl Tagging + ?Sized),
    undeletable: &dyn Fn(&str) -> bool,
    now: Timestamp,
) -> HashSet<String> {
    let family = Family::new(live.iter().map(|stored| &stored.value), &package.tags, tagging);
    let kept = family.kept_with(seeds(&family, &package.rules, retention, undeletable, now));
    family.versions().map(|version| &version.number).filter(|number| !kept.contains(number.as_str())).cloned().collect()
}

/// The versions that stay in their own right.
fn seeds<'a>(
    family: &Family<'a>,
    rules: &Rules,
    retention: &Retention,
    undeletable: &dyn Fn(&str) -> bool,
    now: Timestamp,
) -> Vec<&'a str> {
    let mut newest_first: Vec<&Version> = family.versions().collect();
    newest_first.sort_by_key(|version| std::cmp::Reverse((version.created_at, version.id)));
    // A restore is as good as a publish: what came back does not go with the next turn.
    let is_older = |version: &Version, days: u32| now.since(version.updated_at) >= Duration::from_secs(u64::from(days) * 86_400);
    let limited = retention.keep_last.is_some() || retention.keep_days.is_some();
    let (mut seeds, mut tagged) = (Vec::new(), 0);
    for version in &newest_first {
        let tags = family.tags(&version.number);
        let stays = if tags.is_empty() {
            let expired = retention.delete_untagged_after_days.is_some_and(|days| is_older(version, days));
            family.is_root(&version.number) && !expired
        } else {
            tagged += 1;
            let is_young = retention.keep_days.is_some_and(|days| !is_older(version, days));
            !limited || is_young || retention.keep_last.is_some_and(|last| tagged <= last)
        };
        let is_kept = tags.iter().any(|tag| rules.fixes(tag) || retention.keeps(tag));
        if stays || is_kept || undeletable(&version.number) {
            seeds.push(version.number.as_str());
        }
    }
    if seeds.is_empty() {
        // A package keeps its newest version: without any it would be gone itself.
        let root = newest_first.iter().find(|version| family.is_root(&version.number));
        seeds.extend(root.or(newest_first.first()).map(|version| version.number.as_str()));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::super::family::tests::{Plain, sorted, tags, versions};
    use super::*;
    use crate::rules::TagPattern;

    const DAY: i64 = 86_400_000;

    /// What stays of versions, one published every day, on the day of the last one.
    fn kept(texts: &[&str], pairs: &[(&str, &str)], retention: &Retention, rules: &Rules) -> String {
        let (mut versions, tags) = (versions(texts), tags(pairs));
        for (day, version) in (0..).zip(&mut versions) {
            version.created_at = Timestamp::from_millis(day * DAY);
            version.updated_at = version.created_at;
        }
        let now = versions.last().unwrap().created_at;
        let family = Family::new(versions.iter(), &tags, &Plain);
        let kept = family.kept_with(seeds(&family, rules, retention, &|number| number.starts_with('!'), now));
        sorted(&kept)
    }

    fn patterns(texts: &[&str]) -> Vec<TagPattern> {
        texts.iter().map(|text| TagPattern::new(text).unwrap()).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let texts = ["a", "b", "c", "d", "e"];
        let pairs = [("v1", "a"), ("v2", "b"), ("v3", "c"), ("v4", "d")];
        let check = |retention: Retention, expected: &str| {
            assert_eq!(kept(&texts, &pairs, &retention, &Rules::default()), expected, "{retention:?}");
        };
        let none = Retention::default;
        check(none(), "a b c d e");
        check(Retention { keep_last: Some(2), ..none() }, "c d e");
        check(Retention { keep_last: Some(0), ..none() }, "e");
        check(Retention { keep_last: Some(100), ..none() }, "a b c d e");
        check(Retention { keep_days: Some(3), ..none() }, "c d e");
        check(Retention { keep_last: Some(1), keep_days: Some(3), ..none() }, "c d e");
        check(Retention { keep_last: Some(1), keep_tags: patterns(&["v1"]), ..none() }, "a d e");
        check(Retention { delete_untagged_after_days: Some(0), ..none() }, "a b c d");
        check(Retention { delete_untagged_after_days: Some(1), ..none() }, "a b c d e");
        check(Retention { keep_last: Some(0), delete_untagged_after_days: Some(0), ..none() }, "e");
        check(Retention { keep_tags: patterns(&["v*"]), ..none() }, "a b c d e");
    }

    #[test]
    fn an_index_keeps_its_images_and_an_image_what_is_about_it() {
        let texts = ["a", "b", "i=a+b", "s>a", "c", "j=c", "t>c", "x", "y>x"];
        let pairs = [("v1", "i"), ("v2", "j"), ("about-i", "x")];
        let retention = Retention { keep_last: Some(1), delete_untagged_after_days: Some(0), ..Retention::default() };
        assert_eq!(kept(&texts, &pairs, &retention, &Rules::default()), "c j t");
        let retention = Retention { delete_untagged_after_days: Some(0), ..Retention::default() };
        assert_eq!(kept(&texts, &pairs, &retention, &Rules::default()), "a b c i j s t x y");
        // Its own tag does not save an image, but what it is needed for does.
        let pairs = [("v1", "i"), ("v1-amd", "a"), ("v2", "j")];
        let retention = Retention { keep_last: Some(1), keep_tags: patterns(&["v1"]), ..Retention::default() };
        assert_eq!(kept(&["a", "b", "i=a+b", "c", "j=c"], &pairs, &retention, &Rules::default()), "a b c i j");
    }

    #[test]
    fn immutable_and_undeletable_versions_stay() {
        let rules = Rules { immutable_tags: patterns(&["v1"]), retention: None };
        let retention = Retention { keep_last: Some(0), ..Retention::default() };
        let pairs = [("v1", "a"), ("v2", "!b"), ("v3", "c")];
        assert_eq!(kept(&["a", "!b", "c"], &pairs, &retention, &rules), "!b a");
    }

    #[test]
    fn a_package_is_never_emptied() {
        let retention = Retention { keep_last: Some(0), delete_untagged_after_days: Some(0), ..Retention::default() };
        assert_eq!(kept(&["a", "b", "i=b", "s>i"], &[("v1", "i"), ("old", "a")], &retention, &Rules::default()), "b i s");
        assert_eq!(kept(&["a"], &[], &retention, &Rules::default()), "a");
    }
}
