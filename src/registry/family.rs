//! Which versions of a package go, stay and come back together.
//!
//! An index is made of images, a signature is about one. Taking such a version away
//! alone leaves the others broken or without meaning. So what only it was made of
//! goes with it, and what was about it; what others need stays. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Error, Result, Subject};
use crate::name::Tag;
use crate::package::Version;

/// What an ecosystem says of the tags of a package.
pub trait Tagging: Sync {
    /// The tag that a plain install follows, and the version it should point at among these when nobody has said.
    fn default(&self, numbers: &[&str]) -> Option<(Tag, String)>;

    /// The number of the version that whatever has this tag is about, if the tag is made from it.
    fn subject(&self, tag: &Tag) -> Option<String>;
}

/// What is said where tags play no part.
#[derive(Clone, Copy, Debug)]
pub struct Untagged;

impl Tagging for Untagged {
    fn default(&self, _: &[&str]) -> Option<(Tag, String)> {
        None
    }

    fn subject(&self, _: &Tag) -> Option<String> {
        None
    }
}

/// A live version among its relatives.
struct Member<'a> {
    version: &'a Version,
    /// The live versions that it is about.
    subjects: Vec<&'a str>,
    /// Its tags, but for those made from a live version that it is about.
    tags: Vec<&'a Tag>,
    /// The live versions that are made of it.
    wholes: Vec<&'a str>,
    /// The live versions that are about it.
    about: Vec<&'a str>,
}

/// The live versions of a package.
pub struct Family<'a> {
    members: HashMap<&'a str, Member<'a>>,
}

impl<'a> Family<'a> {
    /// The live versions of a package, with its tags.
    pub fn new(
        versions: impl Iterator<Item = &'a Version> + Clone,
        tags: &'a BTreeMap<Tag, String>,
        tagging: &(impl Tagging + ?Sized),
    ) -> Self {
        let mut members: HashMap<&str, Member<'_>> = versions
            .clone()
            .map(|version| {
                let member = Member { version, subjects: Vec::new(), tags: Vec::new(), wholes: Vec::new(), about: Vec::new() };
                (version.number.as_str(), member)
            })
            .collect();
        let mut about: Vec<(&str, &str)> = Vec::new();
        for version in versions {
            for part in &version.relations.parts {
                if let Some(part) = members.get_mut(part.as_str()) {
                    part.wholes.push(&version.number);
                }
            }
            let subject = version.relations.subject.as_deref().and_then(|subject| members.get_key_value(subject));
            about.extend(subject.map(|(subject, _)| (version.number.as_str(), *subject)));
        }
        for (tag, number) in tags {
            let subject = tagging.subject(tag).and_then(|subject| members.get_key_value(subject.as_str()).map(|(key, _)| *key));
            match (subject, members.get_mut(number.as_str())) {
                (Some(subject), Some(_)) => about.push((number, subject)),
                (None, Some(member)) => member.tags.push(tag),
                (_, None) => {}
            }
        }
        for (number, subject) in about.into_iter().filter(|(number, subject)| number != subject) {
            if let Some(member) = members.get_mut(subject) {
                member.about.push(number);
            }
            if let Some(member) = members.get_mut(number) {
                member.subjects.push(subject);
            }
        }
        Self { members }
    }

    /// The versions, in no order.
    pub fn versions(&self) -> impl Iterator<Item = &'a Version> {
        self.members.values().map(|member| member.version)
    }

    /// The tags of a version that are its own, and not made from what it is about.
    #[must_use]
    pub fn tags(&self, number: &str) -> &[&'a Tag] {
        self.members.get(number).map_or(&[], |member| &member.tags)
    }

    /// Whether a version stands for itself: no other is made of it, and it is about none.
    #[must_use]
    pub fn is_root(&self, number: &str) -> bool {
        self.members.get(number).is_some_and(|member| member.wholes.is_empty() && member.subjects.is_empty())
    }

    /// These versions with all that has to stay for them to be whole: what they are made of, and what is about them.
    #[must_use]
    pub fn kept_with(&self, seeds: impl IntoIterator<Item = &'a str>) -> HashSet<&'a str> {
        let mut kept = HashSet::new();
        let mut open: Vec<&str> = seeds.into_iter().collect();
        while let Some(number) = open.pop() {
            if let Some(member) = self.members.get(number)
                && kept.insert(number)
            {
                open.extend(member.version.relations.parts.iter().map(String::as_str));
                open.extend(&member.about);
            }
        }
        kept
    }

    /// These versions with all that goes with them: what only they are made of, and what is about nothing else, unless it
    /// has a tag of its own.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::Kind::Conflict) when a version that stays is made of one of these.
    pub fn gone_with(&self, seeds: impl IntoIterator<Item = &'a str>) -> Result<HashSet<&'a str>> {
        let seeds: Vec<&str> = seeds.into_iter().collect();
        let mut gone: HashSet<&str> = seeds.iter().copied().collect();
        loop {
            let relatives = gone.iter().filter_map(|number| self.members.get(number)).flat_map(|member| {
                let parts = member.version.relations.parts.iter().map(String::as_str);
                parts.chain(member.about.iter().copied())
            });
            let next: Vec<&str> = relatives.filter(|number| !gone.contains(number) && self.goes_with(number, &gone)).collect();
            if next.is_empty() {
                break;
            }
            gone.extend(next);
        }
        for number in seeds {
            let wholes = self.members.get(number).map(|member| member.wholes.iter());
            if let Some(whole) = wholes.into_iter().flatten().find(|whole| !gone.contains(*whole)) {
                return Err(is_part(whole));
            }
        }
        Ok(gone)
    }

    fn goes_with(&self, number: &str, gone: &HashSet<&str>) -> bool {
        let is_gone = |other: &&str| gone.contains(other);
        self.members
            .get(number)
            .is_some_and(|member| member.tags.is_empty() && member.wholes.iter().all(is_gone) && member.subjects.iter().all(is_gone))
    }
}

/// The refusal to take a version away that another is made of.
pub(super) fn is_part(whole: &str) -> Error {
    Error::conflict(Subject::Version, format!("{whole} is made of it; delete that first"))
}

/// A deleted version with all deleted ones that come back with it: what it is made of, and what was about it and went together
/// with it. `all` are all versions of the package.
pub fn back_with<'a>(all: impl Iterator<Item = &'a Version>, number: &str, tagging: &(impl Tagging + ?Sized)) -> HashSet<&'a str> {
    let deleted: HashMap<&str, &Version> =
        all.filter(|version| version.deleted_at.is_some()).map(|version| (version.number.as_str(), version)).collect();
    let Some(&first) = deleted.get(number) else { return HashSet::new() };
    let mut about: HashMap<String, Vec<&str>> = HashMap::new();
    for version in deleted.values().filter(|version| version.deleted_at == first.deleted_at && !version.purged) {
        let tagged = version.lost_tags.iter().filter_map(|tag| tagging.subject(tag));
        for subject in version.relations.subject.iter().cloned().chain(tagged) {
            about.entry(subject).or_default().push(&version.number);
        }
    }
    let mut back = HashSet::new();
    let mut open = vec![first.number.as_str()];
    while let Some(number) = open.pop() {
        if let Some(version) = deleted.get(number)
            && back.insert(version.number.as_str())
        {
            open.extend(version.relations.parts.iter().map(String::as_str));
            open.extend(about.get(number).into_iter().flatten());
        }
    }
    back
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::package::{AccountId, Relations, VersionId};

    /// Tags like `about-NUMBER` are made from what they are about.
    pub(in crate::registry) struct Plain;

    impl Tagging for Plain {
        fn default(&self, _: &[&str]) -> Option<(Tag, String)> {
            None
        }

        fn subject(&self, tag: &Tag) -> Option<String> {
            tag.as_str().strip_prefix("about-").map(str::to_owned)
        }
    }

    /// A version as `NUMBER[=PART+PART][>SUBJECT]`, each later than the one before.
    pub(in crate::registry) fn versions(texts: &[&str]) -> Vec<Version> {
        let version = |(index, text): (u32, &&str)| {
            let (text, subject) = text.split_once('>').map_or((*text, None), |(text, subject)| (text, Some(subject.to_owned())));
            let (number, parts) = text.split_once('=').unwrap_or((text, ""));
            let parts = parts.split('+').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            let at = Timestamp::from_millis(i64::from(index) * 1000);
            Version {
                id: VersionId(u64::from(index) + 1),
                number: number.into(),
                published_by: AccountId(1),
                created_at: at,
                updated_at: at,
                manifest: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
                files: Vec::new(),
                relations: Relations { contents: Vec::new(), parts, subject },
                deprecated: None,
                unlisted: None,
                deleted_at: None,
                lost_tags: Vec::new(),
                purged: false,
            }
        };
        (0..).zip(texts).map(version).collect()
    }

    pub(in crate::registry) fn tags(pairs: &[(&str, &str)]) -> BTreeMap<Tag, String> {
        pairs.iter().map(|(tag, number)| (Tag::new(tag).unwrap(), (*number).to_owned())).collect()
    }

    pub(in crate::registry) fn sorted(set: &HashSet<&str>) -> String {
        let mut numbers: Vec<&str> = set.iter().copied().collect();
        numbers.sort_unstable();
        numbers.join(" ")
    }

    fn gone(texts: &[&str], pairs: &[(&str, &str)], seeds: &[&str]) -> Result<String> {
        let (versions, tags) = (versions(texts), tags(pairs));
        let family = Family::new(versions.iter(), &tags, &Plain);
        let seeds: Vec<&str> = versions.iter().map(|version| version.number.as_str()).filter(|number| seeds.contains(number)).collect();
        family.gone_with(seeds).map(|gone| sorted(&gone))
    }

    #[test]
    fn parts_and_what_is_about_them_go_along_unless_others_need_them() {
        let check = |texts: &[&str], pairs: &[(&str, &str)], seeds: &[&str], expected: &str| {
            assert_eq!(gone(texts, pairs, seeds).unwrap(), expected, "{texts:?} {pairs:?} without {seeds:?}");
        };
        check(&["a", "b"], &[], &["a"], "a");
        check(&["a", "b", "i=a+b"], &[("v1", "i")], &["i"], "a b i");
        check(&["a", "b", "i=a+b"], &[("v1", "i"), ("amd", "a")], &["i"], "b i");
        check(&["a", "b", "i=a+b", "j=b"], &[], &["i"], "a i");
        check(&["a", "b", "i=a+b", "j=b"], &[], &["i", "j"], "a b i j");
        check(&["a", "i=a", "j=i", "k=j+a"], &[], &["k"], "a i j k");
        check(&["a", "i=a", "s>a", "t>i", "u>s", "x>gone"], &[], &["i"], "a i s t u");
        check(&["a", "s>a"], &[("mine", "s")], &["a"], "a");
        check(&["a", "s"], &[("about-a", "s")], &["a"], "a s");
        check(&["a", "s"], &[("about-a", "s"), ("mine", "s")], &["a"], "a");
        check(&["a", "b", "s>a"], &[("about-b", "s")], &["a"], "a");
        check(&["a", "b", "i=a+s", "s>b"], &[], &["i"], "a i");
        check(&["a=a>a"], &[("about-a", "a")], &["a"], "a");
        check(&["a=b", "b=a"], &[], &["a"], "a b");
    }

    #[test]
    fn a_part_of_what_stays_does_not_go() {
        for seeds in [&["a"] as &[_], &["a", "b"], &["b", "j"]] {
            let error = gone(&["a", "b", "i=a+b", "j=b"], &[], seeds).unwrap_err();
            assert_eq!(error.message(), "i is made of it; delete that first", "{seeds:?}");
        }
    }

    #[test]
    fn what_is_kept_is_kept_whole() {
        let (versions, tags) = (versions(&["a", "b", "i=a+b", "s>a", "t>i", "c", "u>c", "x"]), tags(&[("about-b", "x")]));
        let family = Family::new(versions.iter(), &tags, &Plain);
        assert_eq!(sorted(&family.kept_with(["i"])), "a b i s t x");
        assert_eq!(sorted(&family.kept_with(["u"])), "u");
        assert_eq!(sorted(&family.kept_with(["none"])), "");
        let roots: HashSet<&str> =
            family.versions().map(|version| version.number.as_str()).filter(|number| family.is_root(number)).collect();
        assert_eq!(sorted(&roots), "c i");
    }

    #[test]
    fn what_went_together_comes_back_together() {
        let mut all = versions(&["a", "b", "i=a+b", "s>a", "t>i", "c", "d=c"]);
        let mark = |version: &mut Version, at| version.deleted_at = Some(Timestamp::from_millis(at));
        for version in &mut all {
            match version.number.as_str() {
                "b" | "t" | "c" => mark(version, 1),
                "d" => {}
                _ => mark(version, 2),
            }
        }
        let check = |number, expected| assert_eq!(sorted(&back_with(all.iter(), number, &Plain)), expected, "{number}");
        // Its parts, whenever they went; what is about it as far as it went with it.
        check("i", "a b i s");
        check("a", "a s");
        check("s", "s");
        check("d", "");
        check("none", "");
    }
}
