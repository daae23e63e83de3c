//! Ready-made responses.

use std::time::Duration;

use serde::Serialize;

use super::{Body, HeaderValue, Response, StatusCode, header};
use crate::error::{Error, Kind};

/// A JSON response.
#[must_use]
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Our own values always serialise; if one ever did not, an empty object is
    // valid JSON and the status still tells.
    let text = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    typed(status, "application/json", Body::Bytes(text.into()))
}

/// A plain-text response.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    typed(status, "text/plain; charset=utf-8", text)
}

/// Says in the status line, where HTTP/1 has room for it, what went wrong: some clients show their users nothing else.
pub fn reason(response: &mut Response, text: &str) {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(200).collect();
    if let Ok(reason) = hyper::ext::ReasonPhrase::try_from(plain) {
        response.extensions_mut().insert(reason);
    }
}

/// A response of a given media type.
#[must_use]
pub fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response {
    of_type(status, HeaderValue::from_static(media_type), body)
}

/// As [`typed`], with the header's value made before: making one looks at every byte.
#[must_use]
pub fn of_type(status: StatusCode, media_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    // At once for all that follow, also the caller's.
    response.headers_mut().reserve(8);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
    response
}

/// A response without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

/// The status that an error has in plain HTTP; a protocol may choose another.
#[must_use]
pub fn status(error: &Error) -> StatusCode {
    match error.kind() {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden | Kind::Withheld => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::OverQuota => StatusCode::INSUFFICIENT_STORAGE,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::BadUpstream => StatusCode::BAD_GATEWAY,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Adds `Retry-After` when the error knows when to try again.
pub fn retry_after(response: &mut Response, wait: Option<Duration>) {
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
}
