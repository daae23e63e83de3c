//! NuGet's versions and ranges: their spelling, their order, their identity.
//!
//! One to four numbers, a prerelease of dotted labels, metadata. `1.0`, `1.0.0.0` and `1.0.0+x` are
//! one version: what it is known by ([`Version::key`]) has three numbers, or four if the last counts, the prerelease in
//! lower case, and no metadata. Labels are compared without case. Source: the reference of NuGet's package versioning.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest version that is read, in bytes.
pub const LONGEST: usize = 256;

/// A version.
#[derive(Clone, Debug, Eq)]
pub struct Version {
    numbers: [u32; 4],
    /// Labels, as they were written; empty for a release.
    prerelease: String,
    /// After the plus sign, as it was written.
    metadata: String,
}

impl Version {
    /// Reads a version. Leading zeros are taken, as upstreams have them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > LONGEST {
            return None;
        }
        let (rest, metadata) = text.split_once('+').map_or((text, None), |(rest, metadata)| (rest, Some(metadata)));
        let (release, prerelease) = rest.split_once('-').map_or((rest, None), |(release, labels)| (release, Some(labels)));
        let mut numbers = [0; 4];
        for (place, part) in release.split('.').enumerate() {
            // Clients hold each number in 32 bits, with a sign.
            let number = part.parse::<i32>().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))?;
            *numbers.get_mut(place)? = number.unsigned_abs();
        }
        let labels = |text: Option<&str>| match text {
            None => Some(String::new()),
            Some(text) if text.split('.').all(is_label) => Some(text.to_owned()),
            Some(_) => None,
        };
        Some(Self { numbers, prerelease: labels(prerelease)?, metadata: labels(metadata)? })
    }

    /// What it is known by: normalised, in lower case, without metadata.
    #[must_use]
    pub fn key(&self) -> String {
        self.normalised().to_ascii_lowercase()
    }

    /// Normalised, with its labels as they were written and without metadata.
    #[must_use]
    pub fn normalised(&self) -> String {
        let [major, minor, patch, revision] = self.numbers;
        let mut text = format!("{major}.{minor}.{patch}");
        if revision > 0 {
            text = format!("{text}.{revision}");
        }
        if self.is_prerelease() {
            text.push('-');
            text.push_str(&self.prerelease);
        }
        text
    }

    /// The first number.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.numbers[0]
    }

    /// Whether a plain install passes it over.
    #[must_use]
    pub fn is_prerelease(&self) -> bool {
        !self.prerelease.is_empty()
    }

    /// Whether clients before the second version of SemVer cannot read it.
    #[must_use]
    pub fn is_semver2(&self) -> bool {
        self.prerelease.contains('.') || !self.metadata.is_empty()
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Normalised, with metadata.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.normalised())?;
        if self.metadata.is_empty() { Ok(()) } else { write!(f, "+{}", self.metadata) }
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

/// As equality: labels are one in any case, metadata says nothing.
impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let release = |version: &Self| !version.is_prerelease();
        self.numbers.cmp(&other.numbers).then_with(|| release(self).cmp(&release(other))).then_with(|| {
            let (mut one, mut two) = (self.prerelease.split('.'), other.prerelease.split('.'));
            loop {
                match (one.next(), two.next()) {
                    (None, None) => return Ordering::Equal,
                    (None, Some(_)) => return Ordering::Less,
                    (Some(_), None) => return Ordering::Greater,
                    (Some(one), Some(two)) => match compare_labels(one, two) {
                        Ordering::Equal => {}
                        order => return order,
                    },
                }
            }
        })
    }
}

fn compare_labels(one: &str, two: &str) -> Ordering {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.trim_start_matches('0').to_owned());
    match (number(one), number(two)) {
        // Without leading zeros the longer number is the greater one, however long.
        (Some(one), Some(two)) => (one.len(), one).cmp(&(two.len(), two)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.to_ascii_lowercase().cmp(&two.to_ascii_lowercase()),
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a version"))
    }
}

/// Which versions a dependency allows, in the spelling of registrations: `[1.0.0, 2.0.0)`. What is no range stays as it is.
#[must_use]
pub fn range(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "(, )".to_owned();
    }
    if let Some(least) = Version::parse(text) {
        return format!("[{least}, )");
    }
    normalised_range(text).unwrap_or_else(|| text.to_owned())
}

fn normalised_range(text: &str) -> Option<String> {
    let opening = text.chars().next().filter(|c| "[(".contains(*c))?;
    let closing = text.chars().last().filter(|c| "])".contains(*c))?;
    let inner = text.get(1..text.len() - 1)?;
    let bound = |text: &str| match text.trim() {
        "" => Some(String::new()),
        text => Version::parse(text).map(|version| version.to_string()),
    };
    match inner.split_once(',') {
        Some((least, most)) => Some(format!("{opening}{}, {}{closing}", bound(least)?, bound(most)?)),
        None if (opening, closing) == ('[', ']') && !inner.trim().is_empty() => {
            let exact = bound(inner)?;
            Some(format!("[{exact}, {exact}]"))
        }
        None => None,
    }
}

/// Whether a range names a version that clients before the second version of SemVer cannot read.
#[must_use]
pub fn range_is_semver2(text: &str) -> bool {
    let bounds = text.trim_matches(|c: char| "[]() ".contains(c)).split(',');
    bounds.filter_map(Version::parse).any(|version| version.is_semver2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn one_version_has_one_key() {
        for (text, key, shown) in [
            ("1.0", "1.0.0", "1.0.0"),
            ("1", "1.0.0", "1.0.0"),
            ("1.00.0.0", "1.0.0", "1.0.0"),
            ("01.2.3.4", "1.2.3.4", "1.2.3.4"),
            ("1.0.0+sha.5", "1.0.0", "1.0.0+sha.5"),
            ("1.0-Beta.01+X", "1.0.0-beta.01", "1.0.0-Beta.01+X"),
            (" 2.0.0-rc-1 ", "2.0.0-rc-1", "2.0.0-rc-1"),
        ] {
            assert_eq!((version(text).key().as_str(), version(text).to_string().as_str()), (key, shown), "{text}");
        }
        for wrong in [
            "",
            "a",
            "1.",
            ".1",
            "1.2.3.4.5",
            "1.0-",
            "1.0-a..b",
            "1.0+",
            "1.0-\u{e9}",
            "-1",
            "+1.0",
            "1.0 beta",
            "2147483648",
            "v1.0",
            "1.0+a+b",
        ] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn versions_are_ordered_as_clients_order_them() {
        let ordered = [
            "0.9",
            "1.0.0-1",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0-alpha",
            "1.0.0-ALPHA.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0",
            "1.0.0.1",
            "1.2",
            "1.10",
        ];
        for pair in ordered.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.0-BETA+a"), version("1.0.0.0-beta+b"));
    }

    #[test]
    fn semver2_is_told_apart() {
        for (text, is) in [("1.0.0-a.b", true), ("1.0.0+a", true), ("1.0.0-a", false), ("1.0.0.1", false)] {
            assert_eq!(version(text).is_semver2(), is, "{text}");
        }
        for (text, is) in [("[1.0.0-a.1, 2.0.0)", true), ("1.0", false), ("(, 1.0.0+x]", true), ("", false)] {
            assert_eq!(range_is_semver2(text), is, "{text}");
        }
    }

    #[test]
    fn ranges_have_one_spelling() {
        for (text, expected) in [
            ("1.0", "[1.0.0, )"),
            ("[1.0]", "[1.0.0, 1.0.0]"),
            ("[1.0,2.0)", "[1.0.0, 2.0.0)"),
            ("(,1.0]", "(, 1.0.0]"),
            ("(1.0,)", "(1.0.0, )"),
            ("", "(, )"),
            ("1.*", "1.*"),
            ("nonsense", "nonsense"),
            ("[]", "[]"),
            ("(1.0)", "(1.0)"),
            ("[", "["),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_a_version_of_the_same_key(text in "[0-9]{1,3}(\\.[0-9]{1,3}){0,3}(-[0-9A-Za-z.-]{1,8})?(\\+[0-9a-z]{1,4})?") {
            if let Some(version) = Version::parse(&text) {
                let again = Version::parse(&version.key()).unwrap();
                prop_assert_eq!(&again, &version);
                prop_assert_eq!(again.key(), version.key());
                prop_assert_eq!(Version::parse(&version.to_string()).unwrap().to_string(), version.to_string());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(one in "\\PC{0,20}", two in "[0-9a-zA-Z.+-]{0,20}") {
            let _ = (range(&one), range_is_semver2(&one), Version::parse(&one));
            if let (Some(a), Some(b)) = (Version::parse(&two), Version::parse("1.0.0-a.1")) {
                prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            }
        }
    }
}
