//! Pieces of answers: what a client takes, where something is, how a list goes on. Pure.

use super::{CONTENT_DIGEST, refusal};
use crate::digest::Digest;
use crate::error::{Error, Result, Subject};
use crate::format::BaseUrl;
use crate::http::{HeaderMap, HeaderValue, Response, StatusCode, header, reply};

/// Whether a client takes a media type. All manifests are JSON, so who takes that takes them.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut said = false;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(list) = value.to_str() else { continue };
        for item in list.split(',') {
            let range = item.split(';').next().unwrap_or_default().trim();
            said |= !range.is_empty();
            if range.eq_ignore_ascii_case(media_type) || ["*/*", "application/*", "application/json"].contains(&range) {
                return true;
            }
        }
    }
    !said
}

/// Whether a client has a manifest already, with or without the quotes that some leave out.
pub(super) fn has_already(headers: &HeaderMap, digest: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value.as_bytes() == digest.as_bytes())
}

/// A range whose end lies before its beginning. HTTP would have it ignored; the specification's clients expect a refusal.
pub(super) fn is_backward_range(headers: &HeaderMap) -> bool {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let ends = range.and_then(|range| range.split_once('-')).map(|(first, last)| (first.trim().parse::<u64>(), last.trim().parse::<u64>()));
    matches!(ends, Some((Ok(first), Ok(last))) if last < first)
}

/// The refusal of a range.
pub(super) fn unsatisfiable(size: Option<u64>) -> Response {
    let mut response = refusal::refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", "the content has no such range");
    let described = size.and_then(|size| HeaderValue::try_from(format!("bytes */{size}")).ok());
    response.headers_mut().extend(described.map(|described| (header::CONTENT_RANGE, described)));
    response
}

/// The answer to HEAD for content that is not at hand, with the headers that its bytes would come with.
pub(super) fn described((size, digest, etag): (u64, &Digest, Option<HeaderValue>), cache: HeaderValue) -> Result<Response> {
    let mut response = reply::empty(StatusCode::OK);
    let text = |text: String| HeaderValue::try_from(text).map_err(|error| Error::internal(Subject::Digest, error));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(header::CONTENT_TYPE, const { HeaderValue::from_static("application/octet-stream") });
    headers.insert(header::ACCEPT_RANGES, const { HeaderValue::from_static("bytes") });
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(CONTENT_DIGEST, text(digest.to_string())?);
    headers.extend(etag.map(|etag| (header::ETAG, etag)));
    Ok(response)
}

/// A path below the mount as the client can ask for it on the same host.
pub(super) fn location(base: &BaseUrl, rest: &str) -> Result<HeaderValue> {
    let base = base.as_str();
    let after = base.split_once("://").map_or(base, |(_, rest)| rest);
    let mount = after.find('/').map_or("", |at| &after[at..]);
    HeaderValue::try_from(format!("{mount}{rest}")).map_err(|error| Error::internal(Subject::Route, error))
}

/// An answer without a body, with where something is and the digest it has.
pub(super) fn placed(status: StatusCode, location: HeaderValue, digest: &Digest) -> Result<Response> {
    let mut response = reply::empty(status);
    let digest = HeaderValue::try_from(digest.to_string()).map_err(|error| Error::internal(Subject::Digest, error))?;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(CONTENT_DIGEST, digest);
    Ok(response)
}

/// A part of a list, with the way to the next.
pub(super) fn listed(base: &BaseUrl, mut response: Response, next: Option<String>) -> Result<Response> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(next) = next {
        let next = location(base, &next)?;
        let link = [b"<", next.as_bytes(), b">; rel=\"next\""].concat();
        headers.insert(header::LINK, HeaderValue::try_from(link).map_err(|error| Error::internal(Subject::Route, error))?);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    use super::*;
    use crate::http::HeaderName;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_manifest_is_sent_to_who_takes_it() {
        let check = |accept: &[&'static str], expected: bool| {
            let pairs: Vec<_> = accept.iter().map(|value| (header::ACCEPT, *value)).collect();
            assert_eq!(accepts(&headers(&pairs), OCI_MANIFEST), expected, "{accept:?}");
        };
        check(&[], true);
        check(&[""], true);
        check(&["*/*"], true);
        check(&["text/html, application/json;q=0.9"], true);
        check(&[OCI_MANIFEST], true);
        check(&[DOCKER_MANIFEST, "application/vnd.oci.image.manifest.v1+json;q=0.5"], true);
        check(&[DOCKER_MANIFEST, OCI_INDEX], false);
    }

    #[test]
    fn ranges_that_run_backward_are_told() {
        let check = |range, expected| assert_eq!(is_backward_range(&headers(&[(header::RANGE, range)])), expected, "{range}");
        check("bytes=500-0", true);
        check("bytes=0-0", false);
        check("bytes=-5", false);
        check("bytes=5-", false);
        check("items=5-0", false);
    }
}
