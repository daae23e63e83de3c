//! Rules that an owner lays down for a package: tags that never move, and versions that go in time.
//!
//! Plain data, and what is told from it about one tag. Which versions go is decided
//! in `registry::retention`, where their relatives are known.

use serde::{Deserialize, Deserializer, Serialize};

use crate::name::{InvalidName, Tag};

/// Longest pattern, in bytes.
const PATTERN_BYTES: usize = 128;
/// Most patterns of one list.
const PATTERNS_LIMIT: usize = 100;

/// A pattern of tags: `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TagPattern(String);

impl TagPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, too long, or holds other than printable ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > PATTERN_BYTES || !printable {
            return Err(InvalidName("a pattern of tags is 1 to 128 printable characters, of which * stands for any others"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether a tag is of this pattern.
    #[must_use]
    pub fn matches(&self, tag: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = tag.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            // The first place is the best: it leaves most for the others.
            match rest.find(piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl<'de> Deserialize<'de> for TagPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// The rules of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Tags that, once they are set, neither move nor go, and whose versions stay.
    #[serde(deserialize_with = "patterns")]
    pub immutable_tags: Vec<TagPattern>,
    /// Which versions go when the rules are applied; none without it.
    pub retention: Option<Retention>,
}

/// Which versions stay. One that none of this keeps goes; with neither `keep_last` nor `keep_days` every tagged one stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// So many of the newest tagged versions.
    pub keep_last: Option<u32>,
    /// Tagged versions that are younger than so many days.
    pub keep_days: Option<u32>,
    /// Versions with such a tag.
    #[serde(deserialize_with = "patterns")]
    pub keep_tags: Vec<TagPattern>,
    /// After how many days versions go that have no tag and belong to none that has one. Without it they stay.
    pub delete_untagged_after_days: Option<u32>,
}

impl Rules {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a tag neither moves nor goes once it is set.
    #[must_use]
    pub fn fixes(&self, tag: &Tag) -> bool {
        any(&self.immutable_tags, tag)
    }
}

impl Retention {
    /// Whether it keeps whatever has this tag.
    #[must_use]
    pub fn keeps(&self, tag: &Tag) -> bool {
        any(&self.keep_tags, tag)
    }
}

fn any(patterns: &[TagPattern], tag: &Tag) -> bool {
    patterns.iter().any(|pattern| pattern.matches(tag.as_str()))
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TagPattern>, D::Error> {
    let patterns = Vec::<TagPattern>::deserialize(deserializer)?;
    if patterns.len() > PATTERNS_LIMIT {
        return Err(serde::de::Error::custom(format!("at most {PATTERNS_LIMIT} patterns")));
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_tags() {
        let check = |pattern: &str, tag: &str, expected| {
            assert_eq!(TagPattern::new(pattern).unwrap().matches(tag), expected, "{pattern} on {tag}");
        };
        check("latest", "latest", true);
        check("latest", "latest2", false);
        check("latest", "late", false);
        check("*", "", true);
        check("*", "anything", true);
        check("v*", "v", true);
        check("v*", "v1.2", true);
        check("v*", "xv1", false);
        check("*-rc", "1.0-rc", true);
        check("*-rc", "1.0-rc2", false);
        check("v*.*.*", "v1.2.3", true);
        check("v*.*.*", "v1.2", false);
        check("a*b*c", "abc", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "ac", false);
        check("ab*ba", "aba", false);
        check("ab*ba", "abba", true);
        check("**", "x", true);
        check("a**b", "ab", true);
        check("a.b", "axb", false);
    }

    #[test]
    fn bad_patterns_and_too_many_are_refused() {
        for wrong in ["", "a b", "é", "a\n", &"x".repeat(129)] {
            assert!(TagPattern::new(wrong).is_err(), "{wrong:?}");
        }
        let parse = |text: &str| serde_json::from_str::<Rules>(text);
        assert!(parse(r#"{"immutable_tags":["v*"],"retention":{"keep_last":3,"keep_tags":["latest"]}}"#).is_ok());
        let many = vec!["x"; 101];
        for wrong in [
            r#"{"immutable_tags":[""]}"#,
            r#"{"immutable_tags":"v*"}"#,
            r#"{"retention":{"keep_last":-1}}"#,
            r#"{"retention":{"keep":1}}"#,
            r#"{"rules":1}"#,
            &serde_json::json!({ "immutable_tags": many }).to_string(),
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("{}").unwrap().is_empty());
    }
}
