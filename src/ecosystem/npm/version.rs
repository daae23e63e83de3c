//! Version numbers and dist-tags.
//!
//! New versions are strict SemVer 2. Old ones upstream may be loose (`v1.0`,
//! `1.2.3beta`): they are served as they stand and sort below every strict one.
//! Source: Semantic Versioning 2.0.0; npm's rules for dist-tags.

use std::cmp::Ordering;

use crate::error::{Error, Result, Subject};

/// Longest version number, in bytes; npm's own limit.
const LONGEST: usize = 256;

/// Checks a version number for publishing and returns it without build metadata,
/// which is not part of a version's identity.
///
/// # Errors
/// When it is not strict SemVer 2.
pub fn identity(text: &str) -> Result<String> {
    let wrong = || Error::invalid(Subject::Version, "the version is not a semantic version such as 1.2.3 or 1.2.3-beta.1");
    if text.len() > LONGEST {
        return Err(wrong());
    }
    let mut version = semver::Version::parse(text).map_err(|_| wrong())?;
    // JavaScript's clients cannot compare numbers past 2^53 - 1.
    if [version.major, version.minor, version.patch].iter().any(|part| *part > (1 << 53) - 1) {
        return Err(wrong());
    }
    version.build = semver::BuildMetadata::EMPTY;
    Ok(version.to_string())
}

/// SemVer precedence; loose versions below strict ones, then as texts.
#[must_use]
pub fn order(left: &str, right: &str) -> Ordering {
    match (semver::Version::parse(left), semver::Version::parse(right)) {
        (Ok(left), Ok(right)) => left.cmp_precedence(&right),
        (Ok(_), Err(_)) => Ordering::Greater,
        (Err(_), Ok(_)) => Ordering::Less,
        (Err(_), Err(_)) => left.cmp(right),
    }
}

/// The highest release, or the highest prerelease when there is no release.
#[must_use]
pub fn latest<'a>(numbers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    numbers.max_by(|left, right| is_prerelease(right).cmp(&is_prerelease(left)).then_with(|| order(left, right)))
}

/// Whether it is no release; what is no semantic version is none either.
#[must_use]
pub fn is_prerelease(number: &str) -> bool {
    !semver::Version::parse(number).is_ok_and(|version| version.pre.is_empty())
}

/// Checks a dist-tag: it must not be readable as a version or a range, or `npm install name@tag` would mean two things.
///
/// # Errors
/// When it is.
pub fn check_tag(tag: &str) -> Result<()> {
    let refuse = |rule: &'static str| Err(Error::invalid(Subject::Tag, rule));
    if tag.is_empty() || tag.len() > LONGEST {
        return refuse("a dist-tag has 1 to 256 bytes");
    }
    if tag.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/' || c == '\\' || c == '%') {
        return refuse("a dist-tag holds no spaces, slashes, '%' or control characters");
    }
    if nodejs_semver::Range::parse(tag).is_ok() {
        return refuse("a dist-tag must not be a version or a version range");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_strict_and_drops_build_metadata() {
        assert_eq!(identity("1.2.3-beta.1+build.5").unwrap(), "1.2.3-beta.1");
        let huge = format!("1.0.0-{}", "a".repeat(300));
        for wrong in [
            "",
            "1",
            "1.2",
            "v1.2.3",
            "=1.2.3",
            "1.2.3.4",
            "01.2.3",
            "latest",
            "..",
            "18446744073709551616.0.0",
            "9007199254740992.0.0",
            &huge,
        ] {
            assert!(identity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sorts_by_precedence() {
        let mut numbers =
            ["1.0.0", "1.0.0-rc.1", "1.0.0-beta.11", "1.0.0-beta.2", "1.0.0-alpha.beta", "1.0.0-alpha.1", "1.0.0-alpha", "v0.9"];
        numbers.sort_by(|left, right| order(left, right));
        assert_eq!(
            numbers,
            ["v0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
        );
        assert_eq!(order("1.0.0+a", "1.0.0+b"), Ordering::Equal);
        assert_eq!(latest(["1.0.0", "2.0.0-rc.1", "0.9.0"].into_iter()), Some("1.0.0"));
        assert_eq!(latest(["2.0.0-rc.1", "2.0.0-rc.2"].into_iter()), Some("2.0.0-rc.2"));
    }

    #[test]
    fn a_tag_is_no_version_or_range() {
        for good in ["latest", "next", "beta-2", "canary", "v2-lts"] {
            assert!(check_tag(good).is_ok(), "{good}");
        }
        for wrong in ["", "1.0.0", "v1", "1.x", "^2.0.0", ">=1", "*", "x", "a b", "a/b"] {
            assert!(check_tag(wrong).is_err(), "{wrong}");
        }
    }
}
