//! The order of Maven's versions.
//!
//! A version is a list of numbers and words, cut at dots, at dashes, and where digits
//! meet letters; a dash or such a meeting begins a list of its own inside. Known words
//! have places: `alpha` before `beta`, `milestone`, `rc`, `snapshot`, the release
//! itself, then `sp`; other words come after those, and numbers after all words. Zeros
//! and words that mean the release, at the end of a list, say nothing: `1.0` is `1`.
//! Source: the version order of Maven's POM reference.

use std::cmp::Ordering;

/// A version, taken apart for comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparable(Vec<Item>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// Digits without leading zeros; empty for zero. Numbers have no bound.
    Number(String),
    Word(Place),
    List(Vec<Item>),
}

/// Where a word stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Known(usize),
    Other(String),
}

/// In their order; the empty word is the release.
const WORDS: [&str; 7] = ["alpha", "beta", "milestone", "rc", "snapshot", "", "sp"];
const RELEASE: usize = 5;

impl Comparable {
    /// Takes a version apart.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let version = version.to_lowercase();
        // Lists that are open, the innermost last.
        let mut open: Vec<Vec<Item>> = vec![Vec::new()];
        let mut rest = version.as_str();
        loop {
            let digits = rest.starts_with(|c: char| c.is_ascii_digit());
            let end = rest.find(|c: char| c == '.' || c == '-' || c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            let next = after.chars().next();
            let item = match token {
                "" if next.is_none() => break,
                "" => Item::Number(String::new()),
                _ if digits => Item::Number(token.trim_start_matches('0').to_owned()),
                _ => Item::Word(place(token, next.is_some_and(|c| c.is_ascii_digit()))),
            };
            if let Some(list) = open.last_mut() {
                list.push(item);
            }
            match next {
                None => break,
                Some('.') => rest = &after[1..],
                Some('-') => {
                    rest = &after[1..];
                    open.push(Vec::new());
                }
                Some(_) => {
                    rest = after;
                    open.push(Vec::new());
                }
            }
        }
        let mut inner = None;
        while let Some(mut list) = open.pop() {
            list.extend(inner.map(Item::List));
            trim(&mut list);
            inner = Some(list);
        }
        Self(inner.unwrap_or_default())
    }
}

/// Drops what says nothing from the end of a list. What stands before a list inside is an end too.
fn trim(list: &mut Vec<Item>) {
    let mut index = list.len();
    while index > 0 {
        index -= 1;
        if list[index].is_nothing() {
            list.remove(index);
        } else if !matches!(list[index], Item::List(_)) {
            return;
        }
    }
}

fn place(word: &str, before_digit: bool) -> Place {
    let word = match word {
        "a" if before_digit => "alpha",
        "b" if before_digit => "beta",
        "m" if before_digit => "milestone",
        "ga" | "final" | "release" => "",
        "cr" => "rc",
        other => other,
    };
    WORDS.iter().position(|known| *known == word).map_or_else(|| Place::Other(word.to_owned()), Place::Known)
}

impl Item {
    fn is_nothing(&self) -> bool {
        match self {
            Self::Number(digits) => digits.is_empty(),
            Self::Word(place) => *place == Place::Known(RELEASE),
            Self::List(list) => list.is_empty(),
        }
    }

    /// Compares with the absence of an item.
    fn with_nothing(&self) -> Ordering {
        match self {
            Self::Number(digits) => digits.len().cmp(&0),
            Self::Word(place) => place.cmp(&Place::Known(RELEASE)),
            Self::List(list) => list.iter().map(Self::with_nothing).find(|order| order.is_ne()).unwrap_or(Ordering::Equal),
        }
    }

    /// Words come before lists, and lists before numbers.
    const fn rank(&self) -> u8 {
        match self {
            Self::Word(_) => 0,
            Self::List(_) => 1,
            Self::Number(_) => 2,
        }
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => (one.len(), one).cmp(&(two.len(), two)),
            (Self::Word(one), Self::Word(two)) => one.cmp(two),
            (Self::List(one), Self::List(two)) => lists(one, two),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn lists(one: &[Item], two: &[Item]) -> Ordering {
    for index in 0..one.len().max(two.len()) {
        let order = match (one.get(index), two.get(index)) {
            (Some(one), Some(two)) => one.cmp(two),
            (Some(one), None) => one.with_nothing(),
            (None, Some(two)) => two.with_nothing().reverse(),
            (None, None) => Ordering::Equal,
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

impl Ord for Comparable {
    fn cmp(&self, other: &Self) -> Ordering {
        lists(&self.0, &other.0)
    }
}

impl PartialOrd for Comparable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares two versions; equal ones that are written differently are put in the order of their texts.
#[must_use]
pub fn compare(one: &str, two: &str) -> Ordering {
    Comparable::new(one).cmp(&Comparable::new(two)).then_with(|| one.cmp(two))
}

/// Versions in their order.
///
/// Maven's order has circles among odd versions (`aa` < `` < `-a0` < `aa`), and the standard
/// library's sort may panic on one. So this is a merge sort: on a circle it gives some order.
#[must_use]
pub fn sorted(versions: impl Iterator<Item = String>) -> Vec<String> {
    let keyed = versions.map(|version| (Comparable::new(&version), version)).collect();
    merge_sort(keyed).into_iter().map(|(_, version)| version).collect()
}

fn merge_sort(mut one: Vec<(Comparable, String)>) -> Vec<(Comparable, String)> {
    if one.len() < 2 {
        return one;
    }
    let two = one.split_off(one.len() / 2);
    let (mut one, mut two) = (merge_sort(one).into_iter().peekable(), merge_sort(two).into_iter().peekable());
    let mut merged = Vec::with_capacity(one.len() + two.len());
    while let (Some(left), Some(right)) = (one.peek(), two.peek()) {
        merged.extend(if left <= right { one.next() } else { two.next() });
    }
    merged.extend(one);
    merged.extend(two);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_stand_in_mavens_order() {
        let ascending = [
            "1-alpha-1",
            "1-alpha2",
            "1-beta",
            "1-milestone",
            "1-rc",
            "1-snapshot",
            "1",
            "1-sp",
            "1-abc",
            "1-1-alpha",
            "1-1",
            "1.1-alpha",
            "1.1",
            "1.1.1",
            "1.2",
            "1.10",
            "2",
            "20261120",
            "99999999999999999999999",
            "100000000000000000000000",
        ];
        for (index, one) in ascending.iter().enumerate() {
            for two in &ascending[index + 1..] {
                assert_eq!(Comparable::new(one).cmp(&Comparable::new(two)), Ordering::Less, "{one} < {two}");
                assert_eq!(Comparable::new(two).cmp(&Comparable::new(one)), Ordering::Greater, "{two} > {one}");
            }
        }
    }

    #[test]
    fn what_says_nothing_counts_nothing() {
        for (one, two) in [
            ("1", "1.0"),
            ("1", "1.0.0"),
            ("1", "1-0"),
            ("1", "1-ga"),
            ("1", "1.final"),
            ("1", "1-RELEASE"),
            ("1-a1", "1-alpha-1"),
            ("1-cr1", "1-rc-1"),
            ("1-1.0", "1-1"),
            ("01", "1"),
            ("1.0-SNAPSHOT", "1-snapshot"),
        ] {
            assert_eq!(Comparable::new(one).cmp(&Comparable::new(two)), Ordering::Equal, "{one} = {two}");
        }
        assert_ne!(compare("1", "1.0"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn any_texts_have_one_order(one in "[0-9a-c.\\-]{0,12}", two in "[0-9a-c.\\-]{0,12}", three in "\\PC{0,8}") {
            prop_assert_eq!(compare(&one, &two), compare(&two, &one).reverse());
            prop_assert_eq!(compare(&three, &three), Ordering::Equal);
            let _ = compare(&one, &three);
        }

        #[test]
        fn sorting_keeps_everything_and_neighbours_in_order(versions in proptest::collection::vec("[0-2a-c.\\-]{0,6}", 0..40)) {
            let sorted = sorted(versions.iter().cloned());
            for pair in sorted.windows(2) {
                prop_assert!(compare(&pair[0], &pair[1]).is_le(), "{:?}", sorted);
            }
            let (mut before, mut after) = (versions, sorted);
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }
    }
}
