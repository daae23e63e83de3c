//! RubyGems' versions: their spelling and their order.
//!
//! A version is cut into runs of digits and runs of letters. Numbers compare as numbers of
//! any size; letters come before every number and before nothing at all, so that
//! `1.0.a` < `1.0` < `1.0.1`. Zeros at the end say nothing, nor do zeros before the first
//! letters. Source: the order that `Gem::Version` documents.

use std::cmp::Ordering;

/// Longest version that is taken, in bytes.
const LONGEST: usize = 200;

/// Whether a text is a version that can be published: no dash, which would begin a platform in a file's name.
#[must_use]
pub fn is_valid(text: &str) -> bool {
    let mut parts = text.split('.');
    let first = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    first && text.len() <= LONGEST && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Whether a version comes before its release: it holds a letter.
#[must_use]
pub fn is_prerelease(version: &str) -> bool {
    version.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment<'a> {
    Letters(&'a str),
    /// Without leading zeros; empty for zero.
    Number(&'a str),
}

/// Compares two versions.
#[must_use]
pub fn compare(one: &str, two: &str) -> Ordering {
    let (one, two) = (canonical(one), canonical(two));
    for index in 0..one.len().max(two.len()) {
        let zero = Segment::Number("");
        let (left, right) = (one.get(index).unwrap_or(&zero), two.get(index).unwrap_or(&zero));
        let order = match (left, right) {
            (Segment::Letters(left), Segment::Letters(right)) => left.cmp(right),
            (Segment::Number(left), Segment::Number(right)) => (left.len(), left).cmp(&(right.len(), right)),
            (Segment::Letters(_), Segment::Number(_)) => Ordering::Less,
            (Segment::Number(_), Segment::Letters(_)) => Ordering::Greater,
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn canonical(version: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut rest = version;
    while let Some(first) = rest.bytes().next() {
        let kind = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_alphabetic());
        let end = rest.bytes().position(|byte| kind(byte) != kind(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(if first.is_ascii() { end.max(1) } else { rest.chars().next().map_or(1, char::len_utf8) });
        match kind(first) {
            (true, _) => segments.push(Segment::Number(run.trim_start_matches('0'))),
            (_, true) => segments.push(Segment::Letters(run)),
            _ => {}
        }
        rest = after;
    }
    let zero = |segment: &Segment<'_>| *segment == Segment::Number("");
    let letters = segments.iter().position(|segment| matches!(segment, Segment::Letters(_))).unwrap_or(segments.len());
    let mut tail = segments.split_off(letters);
    while segments.last().is_some_and(zero) {
        segments.pop();
    }
    while tail.last().is_some_and(zero) {
        tail.pop();
    }
    segments.extend(tail);
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_stand_in_their_order() {
        let ascending = [
            "0.a",
            "0",
            "0.0.1",
            "1.0.a",
            "1.0.a.2",
            "1.0.b1",
            "1.0.b2",
            "1.0.b10",
            "1.0.rc",
            "1",
            "1.0.1",
            "1.9",
            "1.10",
            "2",
            "99999999999999999999",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        for (one, two) in [("1", "1.0"), ("1.0", "1.0.0"), ("1.0.0.a", "1.a"), ("1.a.0", "1.a"), ("01", "1")] {
            assert_eq!(compare(one, two), Ordering::Equal, "{one} = {two}");
        }
    }

    #[test]
    fn a_version_has_no_dash_and_begins_with_a_number() {
        for good in ["1", "1.0", "1.0.rc1", "20261120.1a"] {
            assert!(is_valid(good), "{good}");
        }
        for wrong in ["", "a", "1.", ".1", "1-1", "1..2", "1.0 ", "1.\u{e9}", &"1".repeat(300)] {
            assert!(!is_valid(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_texts_have_one_order(mut some in proptest::collection::vec("[0-2ab.-]{0,6}|\\PC{0,4}", 3)) {
            some.sort_by(|one, two| compare(one, two));
            prop_assert!(compare(&some[0], &some[2]).is_le());
            prop_assert_eq!(compare(&some[0], &some[1]), compare(&some[1], &some[0]).reverse());
        }
    }
}
