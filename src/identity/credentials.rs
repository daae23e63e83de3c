//! Where clients put their token: header values to a token's text. Pure.
//!
//! | client | header |
//! |---|---|
//! | npm, pnpm, yarn, bun, docker after its exchange | `Authorization: Bearer T` |
//! | GitHub's API clients | `Authorization: token T` |
//! | Maven, pip, docker login, npm `_auth`, git | `Authorization: Basic` with T as password, or as user name and an empty password |
//! | gem, cargo | `Authorization: T` |
//! | dotnet, nuget | a header of their own, `X-NuGet-ApiKey: T` |
//! | what was written for GitHub's container registry | `Authorization: Bearer base64(T)` |
//!
//! Basic with neither user name nor password is what some container clients send who have no
//! credentials: nothing, and no failed login.
//!
//! A user name beside a token is not looked at, as GitHub does: the token says who it is.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::session;
use super::token::TokenHash;
use crate::http::{HeaderMap, HeaderValue, header};

/// Longest header value that is looked at, in bytes. A token has 40, in Basic with a long user name a few hundred.
const LONGEST_BYTES: usize = 4096;

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What a request's headers say about who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nothing.
    Absent,
    /// Something that cannot be a token of ours.
    Malformed,
    /// A token, by its hash.
    Token(TokenHash),
    /// The text of a session token.
    Session(String),
}

/// Reads the headers. `key` is the value of a header that an ecosystem's clients send a token in; `Authorization` goes
/// before it, because a client that has both was told a stored password for this source and only a placeholder as key.
pub(super) fn read(headers: &HeaderMap, key: Option<&HeaderValue>) -> Credentials {
    let found = match said(headers, key) {
        Said::Nothing => Some(Credentials::Absent),
        Said::Once(value) => authorization(value),
        Said::Twice => None,
    };
    found.unwrap_or(Credentials::Malformed)
}

/// What a request's headers say about who is asking, not yet taken apart.
pub(super) enum Said<'a> {
    /// Nothing.
    Nothing,
    /// This.
    Once(&'a HeaderValue),
    /// More than one thing.
    Twice,
}

/// The value that is read for [`read`].
pub(super) fn said<'a>(headers: &'a HeaderMap, key: Option<&'a HeaderValue>) -> Said<'a> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Said::Once(value),
        (Some(_), Some(_)) => Said::Twice,
        (None, _) => key.map_or(Said::Nothing, Said::Once),
    }
}

fn authorization(value: &HeaderValue) -> Option<Credentials> {
    let value = text(value)?.trim();
    let Some((scheme, rest)) = value.split_once(' ') else { return token(value) };
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        basic(rest)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        if rest.starts_with(session::PREFIX) {
            return Some(Credentials::Session(rest.to_owned()));
        }
        token(rest).or_else(|| token(&decode(rest)?))
    } else if scheme.eq_ignore_ascii_case("token") {
        token(rest)
    } else {
        None
    }
}

/// The password if it is a token, else the user name. Source: RFC 7617.
fn basic(encoded: &str) -> Option<Credentials> {
    let pair = decode(encoded)?;
    match pair.split_once(':')? {
        ("", "") => Some(Credentials::Absent),
        (user, "" | "x-oauth-basic") => token(user),
        (_, password) => token(password),
    }
}

fn token(text: &str) -> Option<Credentials> {
    TokenHash::of(text).map(Credentials::Token)
}

fn text(value: &HeaderValue) -> Option<&str> {
    if value.len() > LONGEST_BYTES { None } else { value.to_str().ok() }
}

fn decode(encoded: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::TokenText;

    fn read_one(name: &'static str, value: &[u8]) -> Credentials {
        read(&HeaderMap::from_iter([(header::HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())]), None)
    }

    fn read_key(value: &[u8]) -> Credentials {
        read(&HeaderMap::new(), Some(&HeaderValue::from_bytes(value).unwrap()))
    }

    #[test]
    fn understands_every_place_for_a_token() {
        let token = TokenText::mint().unwrap();
        let t = token.expose();
        let expected = Credentials::Token(token.hash());
        let basic = |user: &str, password: &str| format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
        for value in [
            format!("Bearer {t}"),
            format!("bearer  {t} "),
            format!("token {t}"),
            format!("Token {t}"),
            t.to_owned(),
            basic("anyone", t),
            basic("", t),
            basic(t, ""),
            basic(t, "x-oauth-basic"),
            basic("a", t).replace('=', ""),
            format!("bASIC {}", BASE64.encode(format!("u:{t}"))),
            format!("Bearer {}", BASE64.encode(t)),
            format!("Bearer {}", BASE64.encode(t).trim_end_matches('=')),
        ] {
            assert_eq!(read_one("authorization", value.as_bytes()), expected, "{value}");
        }
        for value in [t.to_owned(), format!(" {t} "), format!("Bearer {t}")] {
            assert_eq!(read_key(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_token_is_malformed_and_never_absent() {
        let token = TokenText::mint().unwrap();
        let t = token.expose();
        let colonless = format!("Basic {}", BASE64.encode(t));
        let wrong_password = format!("Basic {}", BASE64.encode(format!("{t}:secret")));
        let megabyte = "a".repeat(1 << 20);
        let cases: [&[u8]; 13] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer undefined",
            b"Bearer ${NPM_TOKEN}",
            b"Basic",
            b"Basic !!!",
            b"Basic gIGC",
            b"Digest x",
            b"\xff\xfe",
            colonless.as_bytes(),
            wrong_password.as_bytes(),
            megabyte.as_bytes(),
        ];
        for value in cases {
            assert_eq!(read_one("authorization", value), Credentials::Malformed);
        }
        assert_eq!(read_key(b"az"), Credentials::Malformed);
        assert_eq!(read(&HeaderMap::new(), None), Credentials::Absent);
    }

    #[test]
    fn empty_names_and_passwords_are_nothing_and_sessions_are_told_apart() {
        assert_eq!(read_one("authorization", b"Basic Og=="), Credentials::Absent);
        assert_eq!(read_one("authorization", b"Basic Og"), Credentials::Absent);
        assert_eq!(read_one("authorization", b"Bearer pks_x"), Credentials::Session("pks_x".to_owned()));
        for other in [&b"token pks_x"[..], b"pks_x", b"Basic cGtzX3g6", b"Basic"] {
            assert_eq!(read_one("authorization", other), Credentials::Malformed);
        }
    }

    #[test]
    fn two_authorizations_are_refused_and_a_stored_password_beats_a_placeholder_key() {
        let token = TokenText::mint().unwrap();
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose())).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, bearer.clone());
        let placeholder = HeaderValue::from_static("az");
        assert_eq!(read(&headers, Some(&placeholder)), Credentials::Token(token.hash()));
        headers.append(header::AUTHORIZATION, bearer);
        assert_eq!(read(&headers, None), Credentials::Malformed);
    }
}
