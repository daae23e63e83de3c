//! Pages of lists: `page` and `per_page`, and the `Link` header that leads on.
//!
//! Source: GitHub's REST documentation, «Using pagination», and RFC 8288. Values
//! out of range are moved into it, as GitHub does.

use std::ops::Range;

use super::refusal::{Outcome, Refusal};
use crate::http::{HeaderValue, Response, header, path};

const PER_PAGE_DEFAULT: usize = 30;
const PER_PAGE_LIMIT: usize = 100;

/// Most items that a list leads to.
pub(crate) const REACH: usize = 10_000;

/// Which part of a list a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    number: usize,
    per_page: usize,
}

impl Page {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 for a page that begins past the reach of lists.
    pub(crate) fn read(query: Option<&str>) -> Outcome<Self> {
        let number = |name: &str| path::query(query, name).and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
        let page =
            Self { number: number("page").unwrap_or(1), per_page: number("per_page").unwrap_or(PER_PAGE_DEFAULT).min(PER_PAGE_LIMIT) };
        if page.number.saturating_mul(page.per_page) > REACH {
            return Err(Refusal::invalid("The value of `per_page` multiplied by `page` cannot be greater than 10000."));
        }
        Ok(page)
    }

    /// How many items a page has at most.
    pub(crate) fn per_page(self) -> usize {
        self.per_page
    }

    /// The part of a list of `total` items that this page is.
    pub(crate) fn range(self, total: usize) -> Range<usize> {
        let start = (self.number - 1).saturating_mul(self.per_page).min(total);
        start..start.saturating_add(self.per_page).min(total)
    }

    /// The part of a list at hand.
    pub(crate) fn of<T>(self, items: &[T]) -> &[T] {
        items.get(self.range(items.len())).unwrap_or_default()
    }

    /// Adds the way to the other pages of a list of `total` items, if there are any. `address` is the request's own, without its query.
    pub(crate) fn link(self, response: &mut Response, address: &str, query: Option<&str>, total: usize) {
        let last = total.min(REACH).div_ceil(self.per_page).max(1);
        let mut links = Vec::new();
        let mut lead = |number: usize, name: &str| {
            let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).filter(|(key, _)| key != "page");
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(pairs).append_pair("page", &number.to_string());
            links.push(format!("<{address}?{}>; rel=\"{name}\"", query.finish()));
        };
        if self.number > 1 {
            lead((self.number - 1).min(last), "prev");
        }
        if self.number < last {
            lead(self.number + 1, "next");
            lead(last, "last");
        }
        if self.number > 1 {
            lead(1, "first");
        }
        if let (false, Ok(value)) = (links.is_empty(), HeaderValue::try_from(links.join(", "))) {
            response.headers_mut().insert(header::LINK, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{StatusCode, reply};

    #[test]
    fn values_are_moved_into_their_range() {
        for (query, number, per_page) in [
            (None, 1, 30),
            (Some("page=0&per_page=0"), 1, 30),
            (Some("page=x&per_page=-1"), 1, 30),
            (Some("page=3&per_page=7"), 3, 7),
            (Some("per_page=1000"), 1, 100),
        ] {
            assert_eq!(Page::read(query).unwrap(), Page { number, per_page }, "{query:?}");
        }
        assert!(Page::read(Some("page=101&per_page=100")).is_err());
        assert!(Page::read(Some("page=18446744073709551615&per_page=100")).is_err());
    }

    #[test]
    fn a_page_past_the_end_is_empty() {
        assert_eq!(Page { number: 2, per_page: 30 }.range(31), 30..31);
        assert_eq!(Page { number: 9, per_page: 30 }.range(31), 31..31);
        assert!(Page { number: 1, per_page: 30 }.of::<u8>(&[]).is_empty());
    }

    #[test]
    fn links_lead_to_the_other_pages_and_keep_the_query() {
        let check = |number, total, query, expected: Option<&str>| {
            let mut response = reply::empty(StatusCode::OK);
            Page { number, per_page: 10 }.link(&mut response, "http://h/x", query, total);
            assert_eq!(response.headers().get(header::LINK).map(|value| value.to_str().unwrap()), expected);
        };
        check(1, 10, Some("per_page=10"), None);
        check(1, 0, None, None);
        let next = "<http://h/x?a=b+c&per_page=10&page=2>; rel=\"next\", <http://h/x?a=b+c&per_page=10&page=3>; rel=\"last\"";
        check(1, 21, Some("page=1&a=b+c&per_page=10"), Some(next));
        let all = "<http://h/x?page=1>; rel=\"prev\", <http://h/x?page=3>; rel=\"next\", <http://h/x?page=3>; rel=\"last\", <http://h/x?page=1>; rel=\"first\"";
        check(2, 30, None, Some(all));
        check(3, 30, None, Some("<http://h/x?page=2>; rel=\"prev\", <http://h/x?page=1>; rel=\"first\""));
        check(9, 30, None, Some("<http://h/x?page=3>; rel=\"prev\", <http://h/x?page=1>; rel=\"first\""));
    }
}
