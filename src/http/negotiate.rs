//! Content negotiation: `Accept` and `Accept-Encoding`, as pure functions.
//!
//! Source: RFC 9110, section 12. Real quality values are honoured, because npm's
//! choice between the full and the abbreviated packument is made by them.

use super::{HeaderMap, HeaderValue, header};

/// A content coding that documents are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// The bytes as they are.
    Identity,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// The coding's registered name; `None` for identity, which is never named.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
        }
    }

    /// The value of `Content-Encoding`; none for identity.
    #[must_use]
    pub const fn header(self) -> Option<HeaderValue> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some(HeaderValue::from_static("gzip")),
        }
    }
}

/// The coding to answer with. Identity when the client does not ask for gzip.
#[must_use]
pub fn coding(headers: &HeaderMap) -> Coding {
    let mut gzip = None;
    let mut any = None;
    for (token, quality) in items(headers, &header::ACCEPT_ENCODING) {
        match token {
            token if token.eq_ignore_ascii_case("gzip") || token.eq_ignore_ascii_case("x-gzip") => gzip = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    if gzip.or(any).unwrap_or(0) > 0 { Coding::Gzip } else { Coding::Identity }
}

/// The index of the offered media type that the client wants most.
///
/// Offers are in our order of preference, which breaks ties. A more specific range
/// in `Accept` beats a wildcard. The first offer is the answer when the header is
/// absent or nothing in it fits: sending something beats 406 for every client seen.
#[must_use]
pub fn media_type<const N: usize>(headers: &HeaderMap, offers: &[&str; N]) -> usize {
    // Of each offer, how exactly the best range names it and the quality that range gives it.
    let mut found = [(0, 0); N];
    for (range, quality) in items(headers, &header::ACCEPT) {
        for (offer, found) in offers.iter().zip(&mut found) {
            let precision = precision(range, offer);
            if precision > found.0 {
                *found = (precision, quality);
            }
        }
    }
    let mut best = (0, 0);
    for (index, (_, quality)) in found.into_iter().enumerate() {
        if quality > best.1 {
            best = (index, quality);
        }
    }
    best.0
}

/// How exactly a range of `Accept` names a media type; zero if it does not.
fn precision(range: &str, offer: &str) -> u8 {
    if range.eq_ignore_ascii_case(offer) {
        return 3;
    }
    if range == "*/*" || range == "*" {
        return 1;
    }
    let Some(family) = range.strip_suffix("/*") else { return 0 };
    if offer.split('/').next().is_some_and(|own| own.eq_ignore_ascii_case(family)) { 2 } else { 0 }
}

/// The elements of a list header with their quality in thousandths.
fn items<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = (&'a str, u16)> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| Pieces(Some(list), b',')).map(|item| {
        let mut parts = Pieces(Some(item), b';').map(str::trim_ascii);
        let token = parts.next().unwrap_or_default();
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(key, _)| key.trim_ascii().eq_ignore_ascii_case("q"))
            .map_or(1000, |(_, value)| thousandths(value.trim_ascii()));
        (token, quality)
    })
}

/// The pieces of a short text between ASCII characters: byte by byte, which costs a third of what `str::split` does for these.
struct Pieces<'a>(Option<&'a str>, u8);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0?;
        let Some(end) = text.bytes().position(|byte| byte == self.1) else { return self.0.take() };
        self.0 = Some(&text[end + 1..]);
        Some(&text[..end])
    }
}

/// A quality value in thousandths; nonsense counts as zero.
fn thousandths(text: &str) -> u16 {
    match *text.as_bytes() {
        [b'1'] | [b'1', b'.', b'0'] => return 1000,
        [b'0', b'.', tenth @ b'0'..=b'9'] => return u16::from(tenth - b'0') * 100,
        _ => {}
    }
    let value = text.parse::<f32>().unwrap_or(0.0);
    if !(0.0..=1.0).contains(&value) {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is between 0 and 1000")]
    let thousandths = (value * 1000.0).round() as u16;
    thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn chooses_by_quality_then_by_our_order() {
        const OFFERS: [&str; 2] = ["application/json", "application/vnd.npm.install-v1+json"];
        let check = |accept, expected| assert_eq!(media_type(&headers(header::ACCEPT, accept), &OFFERS), expected, "{accept}");
        check("application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*", 1);
        check("application/vnd.npm.install-v1+json;q=0.5, application/json;q=0.8", 0);
        check("application/json", 0);
        check("*/*", 0);
        check("application/*;q=0.1, application/vnd.npm.install-v1+json", 1);
        check("text/html", 0);
        check("application/vnd.npm.install-v1+json;q=nonsense, */*;q=0.1", 0);
        check("application/json;q=0.25,application/vnd.npm.install-v1+json ; x=y ; Q = 0.255", 1);
        assert_eq!(media_type(&HeaderMap::new(), &OFFERS), 0);
    }

    #[test]
    fn gzip_only_when_wanted() {
        let check = |accept, expected| assert_eq!(coding(&headers(header::ACCEPT_ENCODING, accept)), expected, "{accept}");
        check("gzip, deflate, br", Coding::Gzip);
        check("gzip;q=0", Coding::Identity);
        check("identity", Coding::Identity);
        check("*", Coding::Gzip);
        check("*;q=1, gzip;q=0", Coding::Identity);
        check("br", Coding::Identity);
        assert_eq!(coding(&HeaderMap::new()), Coding::Identity);
    }
}
