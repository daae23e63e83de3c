//! Errors as GitHub's API words them: JSON, always, and never more than the caller may know.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::links::Links;
use crate::error::{Error, Kind, Subject};
use crate::http::{HeaderValue, Response, StatusCode, header, reply};

/// What a handler answers with.
pub(crate) type Outcome<T = Response> = Result<T, Refusal>;

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: Cow<'static, str>,
    problems: Vec<Problem>,
    wait: Option<Duration>,
    allow: Option<String>,
}

/// One thing that is wrong with a request's values.
#[derive(Debug, Serialize)]
struct Problem {
    resource: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Refusal {
    /// A refusal of a status, saying why.
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), problems: Vec::new(), wait: None, allow: None }
    }

    /// 404, in the same words whatever was looked for and why it is not there.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// 400, saying why.
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403, saying why.
    pub(crate) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 403 for what only people may do.
    pub(crate) fn not_for_workflows() -> Self {
        Self::forbidden("Resource not accessible by integration")
    }

    /// 401 for who sent no credentials.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Requires authentication")
    }

    /// 401 for a token that does not hold.
    pub(crate) fn bad_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Bad credentials")
    }

    /// 405, with the methods that would do.
    pub(crate) fn method_not_allowed(allow: String) -> Self {
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") }
    }

    /// 422 for a field that must be there.
    pub(crate) fn missing_field(resource: &'static str, field: &'static str) -> Self {
        Self::validation(resource, Some(field), "missing_field", None)
    }

    /// 422 for a field whose value cannot be.
    pub(crate) fn invalid_field(resource: &'static str, field: &'static str, why: impl Into<String>) -> Self {
        Self::validation(resource, Some(field), "invalid", Some(why.into()))
    }

    /// 422 for a name that is taken.
    pub(crate) fn already_exists(resource: &'static str, field: &'static str) -> Self {
        Self::validation(resource, Some(field), "already_exists", None)
    }

    /// 422 for a reference to something that is not there.
    pub(crate) fn missing(resource: &'static str, field: &'static str) -> Self {
        Self::validation(resource, Some(field), "missing", None)
    }

    /// 422 for a thing that is wrong as a whole.
    pub(crate) fn custom(resource: &'static str, why: impl Into<String>) -> Self {
        Self::validation(resource, None, "custom", Some(why.into()))
    }

    fn validation(resource: &'static str, field: Option<&'static str>, code: &'static str, message: Option<String>) -> Self {
        let problems = vec![Problem { resource, field, code, message }];
        Self { problems, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed") }
    }

    /// The answer. `place` is where the reader learns more.
    pub(super) fn respond(&self, links: &Links, place: &str) -> Response {
        let mut body = Map::new();
        body.insert("message".to_owned(), json!(self.message));
        if !self.problems.is_empty() {
            body.insert("errors".to_owned(), json!(self.problems));
        }
        body.insert("documentation_url".to_owned(), links.documentation(place).into());
        body.insert("status".to_owned(), self.status.as_str().into());
        let mut response = reply::json(self.status, &Value::Object(body));
        reply::retry_after(&mut response, self.wait);
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::try_from(allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = reply::status(&error);
        let refusal = match error.kind() {
            Kind::NotFound => Self::not_found(),
            Kind::Unauthenticated if error.subject() == Subject::Token => Self::bad_credentials(),
            Kind::Unauthenticated => Self::unauthenticated(),
            _ if status.is_server_error() => {
                tracing::error!(?error, "API request failed");
                Self::new(status, if status == StatusCode::SERVICE_UNAVAILABLE { "Service Unavailable" } else { "Server Error" })
            }
            _ => Self::new(status, error.message().to_owned()),
        };
        Self { wait: error.wait(), ..refusal }
    }
}

/// What a failed change of identity means for the field of a body that caused it.
pub(super) fn field(resource: &'static str, field: &'static str) -> impl Fn(Error) -> Refusal {
    move |error| match error.kind() {
        Kind::Conflict => Refusal::already_exists(resource, field),
        Kind::Invalid | Kind::Unprocessable => Refusal::invalid_field(resource, field, error.message()),
        Kind::NotFound => Refusal::missing(resource, field),
        _ => error.into(),
    }
}
