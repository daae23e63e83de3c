//! Errors in the words of the distribution specification, and the challenge that says where a token is had.
//!
//! Every answer below the mount that says no is `{"errors":[{"code","message","detail"}]}`, also
//! those the server makes itself: some clients read the body only if it is JSON, and all tell their
//! user what the code means. Source: OCI Distribution Specification 1.1, «Error Codes»; for the
//! challenge RFC 6750 and «Token Authentication Specification» of the distribution project.

use std::fmt::Write as _;

use serde_json::json;

use super::route::{self, Route};
use super::scope::{self, Access};
use crate::ecosystem::Asked;
use crate::error::{Error, Kind, Subject};
use crate::http::{HeaderValue, Method, Response, StatusCode, header, path, reply};
use crate::name::PackageName;

/// What a session is told that is not for what it was used for. Clients then ask for one that is.
pub const INSUFFICIENT: &str = "the token is not for this";

/// An error as an answer.
#[must_use]
pub fn respond(error: &Error, asked: &Asked<'_>) -> Response {
    let (status, code) = code(error);
    let mut response = refuse(status, code, error.message());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(error, asked));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED
        && let Ok(route) = route::locate(asked.path)
    {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.methods()));
    }
    response
}

/// An answer that says no.
#[must_use]
pub fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    reply::json(status, &json!({ "errors": [{ "code": code, "message": message, "detail": null }] }))
}

/// The status and the code of an error.
fn code(error: &Error) -> (StatusCode, &'static str) {
    let status = reply::status(error);
    match (error.kind(), error.subject()) {
        (Kind::Unauthenticated, _) => (status, "UNAUTHORIZED"),
        // Clients know no other code for what will not become right by trying again.
        (Kind::Forbidden | Kind::Withheld | Kind::OverQuota, _) => (StatusCode::FORBIDDEN, "DENIED"),
        (Kind::NotFound, Subject::Manifest | Subject::Version | Subject::Tag | Subject::File) => (status, "MANIFEST_UNKNOWN"),
        (Kind::NotFound, Subject::Blob | Subject::Digest) => (status, "BLOB_UNKNOWN"),
        (Kind::NotFound, Subject::Upload) => (status, "BLOB_UPLOAD_UNKNOWN"),
        (Kind::NotFound, _) => (status, "NAME_UNKNOWN"),
        (Kind::Invalid, Subject::Digest) => (status, "DIGEST_INVALID"),
        (Kind::Invalid, Subject::Tag) => (status, "TAG_INVALID"),
        (Kind::Invalid, Subject::Blob) => (status, "MANIFEST_BLOB_UNKNOWN"),
        (Kind::Invalid, Subject::Upload) => (status, "BLOB_UPLOAD_INVALID"),
        (Kind::Invalid, Subject::Request) => (status, "PAGINATION_NUMBER_INVALID"),
        (Kind::Invalid, Subject::Package | Subject::Route) => (status, "NAME_INVALID"),
        (Kind::TooLarge, _) | (Kind::Invalid, Subject::File) => (status, "SIZE_INVALID"),
        (Kind::Invalid | Kind::Unprocessable, _) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
        // What a version or a layer hangs on cannot be deleted from under it.
        (Kind::Conflict, Subject::Version | Subject::Blob) => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        (Kind::Conflict, _) => (status, "DENIED"),
        (Kind::MethodNotAllowed | Kind::UnsupportedMedia, _) => (status, "UNSUPPORTED"),
        (Kind::TooMany, _) => (status, "TOOMANYREQUESTS"),
        (Kind::Unavailable | Kind::TimedOut, _) => (status, "UNAVAILABLE"),
        (Kind::BadUpstream | Kind::Internal, _) => (status, "UNKNOWN"),
    }
}

/// Where a token is had for what was asked, and what was wrong with the one that came.
fn challenge(error: &Error, asked: &Asked<'_>) -> HeaderValue {
    let base = asked.base.as_str();
    let mut text = format!("Bearer realm=\"{base}/token\",service=\"{}\"", service(base));
    let scope = wanted(asked);
    if !scope.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, ",scope=\"{scope}\"");
    }
    if error.message() == INSUFFICIENT {
        text.push_str(",error=\"insufficient_scope\"");
    } else if error.subject() == Subject::Token {
        text.push_str(",error=\"invalid_token\"");
    }
    // An origin, a parsed name and our own words are always a valid value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}

/// The registry as the token service knows it: the host that the client uses.
#[must_use]
pub fn service(base: &str) -> &str {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// The scopes that a request needs, as a client asks for them.
fn wanted(asked: &Asked<'_>) -> String {
    let Ok(route) = route::locate(asked.path) else { return String::new() };
    if route == Route::Catalog {
        return scope::CATALOG.to_owned();
    }
    let Some(name) = route.name() else { return String::new() };
    let mut scopes = vec![scope::Scope::Repository(name.clone(), access(asked.method, &route))];
    if let (Route::Uploads { .. }, Some(from)) = (&route, mounted_from(asked.query)) {
        scopes.push(scope::Scope::Repository(from, vec![Access::Pull]));
    }
    scope::write(&scopes)
}

/// The repository that content is to be mounted from.
#[must_use]
pub fn mounted_from(query: Option<&str>) -> Option<PackageName> {
    path::query(query, "from").and_then(|from| route::parse_name(&from).ok())
}

fn access(method: &Method, route: &Route) -> Vec<Access> {
    match (method, route) {
        (&Method::DELETE, Route::Blob { .. } | Route::Manifest { .. }) => vec![Access::Delete],
        (_, Route::Uploads { .. } | Route::Upload { .. }) => vec![Access::Pull, Access::Push],
        (&Method::GET | &Method::HEAD, _) => vec![Access::Pull],
        _ => vec![Access::Pull, Access::Push],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BaseUrl;

    fn said(error: &Error, method: &Method, path: &str, query: Option<&str>) -> (u16, String, String) {
        let base = BaseUrl::new("https://packages.example:8443/v2");
        let response = respond(error, &Asked { method, path, query, base: &base });
        let (parts, body) = response.into_parts();
        let crate::http::Body::Bytes(bytes) = body else { panic!("no body") };
        let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let header = parts.headers.get(header::WWW_AUTHENTICATE).or_else(|| parts.headers.get(header::ALLOW));
        let header = header.map_or("", |value| value.to_str().unwrap()).to_owned();
        (parts.status.as_u16(), body["errors"][0]["code"].as_str().unwrap().to_owned(), header)
    }

    #[test]
    fn a_challenge_says_where_and_for_what() {
        let error = Error::new(Kind::Unauthenticated, Subject::Package);
        let said = |method, path, query| said(&error, &method, path, query).2;
        let start = "Bearer realm=\"https://packages.example:8443/v2/token\",service=\"packages.example:8443\"";
        assert_eq!(said(Method::GET, "/", None), start);
        let scoped = |scope: &str| format!("{start},scope=\"{scope}\"");
        assert_eq!(said(Method::HEAD, "/acme/app/manifests/v1", None), scoped("repository:acme/app:pull"));
        assert_eq!(said(Method::PUT, "/acme/app/manifests/v1", None), scoped("repository:acme/app:pull,push"));
        assert_eq!(said(Method::DELETE, "/acme/app/manifests/v1", None), scoped("repository:acme/app:delete"));
        assert_eq!(said(Method::GET, "/acme/app/blobs/uploads/1", None), scoped("repository:acme/app:pull,push"));
        assert_eq!(said(Method::DELETE, "/acme/app/blobs/uploads/1", None), scoped("repository:acme/app:pull,push"));
        assert_eq!(said(Method::GET, "/_catalog", None), scoped("registry:catalog:*"));
        let mount = said(Method::POST, "/acme/app/blobs/uploads/", Some("mount=x&from=acme/base"));
        assert_eq!(mount, scoped("repository:acme/app:pull,push repository:acme/base:pull"));
    }

    #[test]
    fn what_was_wrong_with_a_token_is_said() {
        let bad = said(&Error::new(Kind::Unauthenticated, Subject::Token), &Method::GET, "/", None).2;
        assert!(bad.ends_with(",error=\"invalid_token\""), "{bad}");
        let weak = Error::new(Kind::Unauthenticated, Subject::Request).saying(INSUFFICIENT);
        let weak = said(&weak, &Method::GET, "/a/b/tags/list", None).2;
        assert!(weak.ends_with("scope=\"repository:a/b:pull\",error=\"insufficient_scope\""), "{weak}");
    }

    #[test]
    fn each_condition_has_its_code() {
        let table = [
            (Kind::NotFound, Subject::Package, 404, "NAME_UNKNOWN"),
            (Kind::NotFound, Subject::Route, 404, "NAME_UNKNOWN"),
            (Kind::NotFound, Subject::Manifest, 404, "MANIFEST_UNKNOWN"),
            (Kind::NotFound, Subject::Blob, 404, "BLOB_UNKNOWN"),
            (Kind::NotFound, Subject::Upload, 404, "BLOB_UPLOAD_UNKNOWN"),
            (Kind::Invalid, Subject::Package, 400, "NAME_INVALID"),
            (Kind::Invalid, Subject::Digest, 400, "DIGEST_INVALID"),
            (Kind::Invalid, Subject::Tag, 400, "TAG_INVALID"),
            (Kind::Invalid, Subject::Manifest, 400, "MANIFEST_INVALID"),
            (Kind::Invalid, Subject::Blob, 400, "MANIFEST_BLOB_UNKNOWN"),
            (Kind::Invalid, Subject::Request, 400, "PAGINATION_NUMBER_INVALID"),
            (Kind::Forbidden, Subject::Token, 403, "DENIED"),
            (Kind::TooLarge, Subject::Request, 413, "SIZE_INVALID"),
            (Kind::TooMany, Subject::Token, 429, "TOOMANYREQUESTS"),
            (Kind::Conflict, Subject::Version, 405, "UNSUPPORTED"),
            (Kind::Unavailable, Subject::Blob, 503, "UNAVAILABLE"),
            (Kind::Internal, Subject::Store, 500, "UNKNOWN"),
        ];
        for (kind, subject, status, code) in table {
            let found = said(&Error::new(kind, subject), &Method::GET, "/", None);
            assert_eq!((found.0, found.1.as_str()), (status, code), "{kind:?} {subject:?}");
        }
        let found = said(&Error::new(Kind::MethodNotAllowed, Subject::Route), &Method::PUT, "/a/b/tags/list", None);
        assert_eq!((found.0, found.1.as_str(), found.2.as_str()), (405, "UNSUPPORTED", "GET, HEAD"));
    }
}
