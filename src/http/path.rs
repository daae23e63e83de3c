//! Request paths: split first, decode once, refuse what no route can mean.
//!
//! Decoding before splitting, or decoding twice, is how path traversal and
//! authorisation bypasses are made. So a path is cut at its raw slashes, each
//! segment is percent-decoded exactly once, and a segment that then is `.` or
//! `..`, or holds a NUL, another control character or a backslash, or is not
//! UTF-8, ends the matter. An encoded slash stays inside its segment; the
//! ecosystem decides what it means.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Longest path in bytes.
pub const LONGEST_BYTES: usize = 4096;

/// A path that no route can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPath;

/// Cuts a raw path (with or without its leading slash) into decoded segments.
///
/// An empty segment is kept, so that `//` and a trailing slash are seen by the
/// caller and not silently equal to something else.
///
/// # Errors
/// See the module text.
pub fn segments(raw: &str) -> Result<Vec<Cow<'_, str>>, InvalidPath> {
    if raw.len() > LONGEST_BYTES {
        return Err(InvalidPath);
    }
    let raw = raw.strip_prefix('/').unwrap_or(raw);
    let (mut segments, mut start) = (Vec::with_capacity(8), 0);
    for slash in memchr::memchr_iter(b'/', raw.as_bytes()) {
        segments.push(decode(&raw[start..slash])?);
        start = slash + 1;
    }
    segments.push(decode(&raw[start..])?);
    Ok(segments)
}

/// Bytes that mean themselves and no more, wherever they stand. A table, since every path of every request is looked at.
const PLAIN: [bool; 256] = {
    let all = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~@+:";
    let (mut plain, mut at) = ([false; 256], 0);
    while at < all.len() {
        plain[all[at] as usize] = true;
        at += 1;
    }
    plain
};

/// Decodes one segment once.
///
/// # Errors
/// See the module text.
pub fn decode(segment: &str) -> Result<Cow<'_, str>, InvalidPath> {
    // Nearly every segment is plain; a dot at its beginning may be more than that.
    if !segment.starts_with('.') && segment.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return Ok(Cow::Borrowed(segment));
    }
    let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| InvalidPath)?;
    let dots = |text: &str| text == "." || text == "..";
    if decoded.split('/').any(dots) || decoded.chars().any(|c| c.is_control() || c == '\\') {
        return Err(InvalidPath);
    }
    Ok(decoded)
}

/// What must be escaped in one path segment: all but unreserved characters,
/// sub-delimiters, `:` and `@` (RFC 3986, section 3.3).
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Escapes text for use as one path segment.
#[must_use]
pub fn encode(segment: &str) -> Cow<'_, str> {
    utf8_percent_encode(segment, SEGMENT).into()
}

/// The first value of a query parameter, decoded, with `+` as a space.
#[must_use]
pub fn query<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    url::form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_each_segment_once() {
        assert_eq!(segments("/@a%2fb/-/c").unwrap(), ["@a/b", "-", "c"]);
        assert_eq!(segments("/%40a%2Fb").unwrap(), ["@a/b"]);
        assert_eq!(segments("/a%252fb").unwrap(), ["a%2fb"]);
        assert_eq!(segments("/a//b/").unwrap(), ["a", "", "b", ""]);
    }

    #[test]
    fn refuses_what_no_route_can_mean() {
        for wrong in ["/..", "/a/%2e%2e/b", "/a%2f..%2fb", "/%2F%2F..", "/..%5cx", "/a%00", "/a%0d%0ab", "/%c0%ae", "/%ff"] {
            assert_eq!(segments(wrong), Err(InvalidPath), "{wrong}");
        }
        assert!(segments(&"a".repeat(LONGEST_BYTES + 1)).is_err());
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        for text in ["plain", "@a/b", "a b%c", "ü", "a+b~c", "a?b#c"] {
            assert_eq!(decode(&encode(text)).unwrap(), text);
        }
    }

    #[test]
    fn reads_query_parameters() {
        assert_eq!(query(Some("text=a+b&size=2"), "text").unwrap(), "a b");
        assert_eq!(query(Some("text=a"), "size"), None);
        assert_eq!(query(None, "size"), None);
    }
}
