//! Conditional requests and ranges, as pure functions.
//!
//! Source: RFC 9110, sections 13 (conditional requests) and 14 (range requests).
//! All our validators are strong: a representation's bytes decide its `ETag`.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{HeaderMap, HeaderValue, header};
use crate::digest::{Algorithm, Digest};

/// The entity tag of a representation: its digest, and the coding if it is not identity.
#[must_use]
pub fn entity_tag(digest: &Digest, coding: Option<&str>) -> HeaderValue {
    let mut hex = [0; 32];
    let length = digest.bytes().len().min(16);
    // The slice has room for two characters a byte.
    let _ = hex::encode_to_slice(&digest.bytes()[..length], &mut hex[..2 * length]);
    let mut text = Vec::with_capacity(48);
    text.push(b'"');
    text.extend_from_slice(&hex[..2 * length]);
    if let Some(coding) = coding {
        text.push(b'-');
        text.extend_from_slice(coding.as_bytes());
    }
    text.push(b'"');
    // Hex, a dash and a coding's name are always a valid value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` names this entity tag, so that 304 is the answer.
/// Uses the weak comparison, as the RFC asks for this header.
#[must_use]
pub fn none_match(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        let ours = etag.as_bytes();
        list.trim() == "*" || list.split(',').any(|tag| opaque(tag).as_bytes() == opaque_bytes(ours))
    })
}

fn opaque(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn opaque_bytes(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The SHA-256 of a whole representation that its head promises: `Repr-Digest` (RFC 9530), or the older `Digest` (RFC 3230).
#[must_use]
pub fn digest(headers: &HeaderMap) -> Option<Digest> {
    let field = |name: &str, prefix: &str| {
        let fields = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
        let mut values = fields.filter_map(|one| {
            let (algorithm, value) = one.trim().split_once('=')?;
            algorithm.eq_ignore_ascii_case("sha-256").then(|| strip(value, prefix))
        });
        let bytes = BASE64.decode(values.next()?).ok()?;
        Digest::new(Algorithm::Sha256, &bytes).ok()
    };
    field("repr-digest", ":").or_else(|| field("digest", ""))
}

fn strip<'a>(value: &'a str, quote: &str) -> &'a str {
    value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote)).unwrap_or(value)
}

/// Promises the SHA-256 of a whole representation, in both spellings.
pub fn promise(headers: &mut HeaderMap, sha256: &Digest) {
    let text = BASE64.encode(sha256.bytes());
    for (name, value) in [("repr-digest", format!("sha-256=:{text}:")), ("digest", format!("sha-256={text}"))] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// What part of a representation a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, with 200.
    Whole,
    /// One range of byte offsets, with 206.
    Range(Range<u64>),
    /// Nothing that exists, with 416.
    Unsatisfiable,
}

/// Reads `Range` and `If-Range` for a representation of `length` bytes.
///
/// Only a single range is honoured; a header with several, or one that is
/// malformed, is ignored, which the RFC allows and which bounds the work.
#[must_use]
pub fn part(headers: &HeaderMap, etag: Option<&HeaderValue>, length: u64) -> Part {
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Part::Whole;
    };
    if let Some(validator) = headers.get(header::IF_RANGE)
        && Some(validator) != etag
    {
        return Part::Whole;
    }
    let Some(spec) = range.strip_prefix("bytes=") else { return Part::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Part::Whole };
    if spec.contains(',') {
        return Part::Whole;
    }
    let number =
        |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => Part::Whole,
            Some(0) => Part::Unsatisfiable,
            Some(_) if length == 0 => Part::Unsatisfiable,
            Some(count) => Part::Range(length.saturating_sub(count)..length),
        },
        (first, last) => {
            let Some(first) = number(first) else { return Part::Whole };
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match last {
                None => Part::Whole,
                Some(last) if last < first => Part::Whole,
                Some(_) if first >= length => Part::Unsatisfiable,
                Some(last) => Part::Range(first..last.saturating_add(1).min(length)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_digest_is_promised_and_read_in_both_spellings() {
        let digest = Digest::sha256(b"x");
        let mut headers = HeaderMap::new();
        promise(&mut headers, &digest);
        assert_eq!(super::digest(&headers), Some(digest));
        for name in ["repr-digest", "digest"] {
            let only = HeaderMap::from_iter([(header::HeaderName::from_static(name), headers[name].clone())]);
            assert_eq!(super::digest(&only), Some(digest), "{name}");
        }
        for wrong in ["", "sha-256", "sha-256=:!:", "sha-256=:YQ==:", "sha-512=:YQ==:"] {
            let wrong = HeaderMap::from_iter([(header::HeaderName::from_static("repr-digest"), HeaderValue::from_static(wrong))]);
            assert_eq!(super::digest(&wrong), None);
        }
    }

    #[test]
    fn matches_entity_tags_weakly() {
        let etag = HeaderValue::from_static("\"abc\"");
        for yes in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(none_match(&with(header::IF_NONE_MATCH, yes), &etag), "{yes}");
        }
        for no in ["\"abcd\"", "abc", "", "\"x\",\"y\""] {
            assert!(!none_match(&with(header::IF_NONE_MATCH, no), &etag), "{no}");
        }
        assert!(!none_match(&HeaderMap::new(), &etag));
    }

    #[test]
    fn reads_one_range_and_ignores_nonsense() {
        let check = |range: &'static str, expected: Part| {
            assert_eq!(part(&with(header::RANGE, range), None, 10), expected, "{range}");
        };
        check("bytes=0-0", Part::Range(0..1));
        check("bytes=2-", Part::Range(2..10));
        check("bytes=2-99999999999999999999999", Part::Range(2..10));
        check("bytes=-3", Part::Range(7..10));
        check("bytes=-99", Part::Range(0..10));
        check("bytes=10-", Part::Unsatisfiable);
        check("bytes=-0", Part::Unsatisfiable);
        for ignored in ["bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "items=0-1", "bytes=0-1,3-4", "bytes=+1-2"] {
            check(ignored, Part::Whole);
        }
        assert_eq!(part(&with(header::RANGE, "bytes=-1"), None, 0), Part::Unsatisfiable);
    }

    #[test]
    fn if_range_must_name_the_same_entity() {
        let etag = HeaderValue::from_static("\"a\"");
        let mut headers = with(header::RANGE, "bytes=1-");
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(part(&headers, Some(&etag), 3), Part::Range(1..3));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"b\""));
        assert_eq!(part(&headers, Some(&etag), 3), Part::Whole);
        assert_eq!(part(&headers, None, 3), Part::Whole);
    }
}
