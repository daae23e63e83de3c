//! The administration API: a table of endpoints, JSON in and out.
//!
//! [`ENDPOINTS`] is the one list of what there is: method, path, what a caller
//! needs, handler. The server walks it to serve, tests walk it to try every
//! endpoint as every kind of caller. It is served over a Unix socket in the data
//! folder ([`socket`]), where the file's mode says who may connect and the caller
//! is this server itself.
//!
//! Paths are split at raw slashes and each segment is decoded once, so a package
//! name with a slash is one segment: `/packages/ECOSYSTEM/@acme%2Ftool`. Errors have
//! GitHub's shape. A list answers at most `limit` items (query, 100 unless told,
//! at most 1000) after the one that `after` names; if there may be more, a `Link`
//! header with `rel="next"` leads on.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::ecosystem::Ecosystem;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderValue, Method, Request, Response, StatusCode, header, path, reply};
use crate::identity::{Account, AccountKind, Caller, Identity, Scope};
use crate::name::OwnerName;
use crate::registry::Registry;

mod accounts;
mod audit;
mod organisations;
mod packages;
mod repositories;
mod reservations;
pub mod rest;
pub mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod upkeep;
pub mod webhooks;

pub use upkeep::Upkeep;

/// Largest body of a request.
const BODY_LIMIT_BYTES: u64 = 64 << 10;

const PAGE_DEFAULT: usize = 100;
const PAGE_LIMIT: usize = 1000;

/// Every endpoint.
pub static ENDPOINTS: &[Endpoint] = &[
    endpoint(Method::GET, "/status", Need::Operator(Scope::ReadOrg), |call| std::future::ready(Ok(status(&call))).boxed()),
    endpoint(Method::GET, "/users", Need::Operator(Scope::User), |call| accounts::list(call, AccountKind::User).boxed()),
    endpoint(Method::POST, "/users", Need::Operator(Scope::User), |call| accounts::create_user(call).boxed()),
    endpoint(Method::GET, "/users/{login}", Need::Operator(Scope::User), |call| accounts::show(call, AccountKind::User).boxed()),
    endpoint(Method::PATCH, "/users/{login}", Need::Operator(Scope::User), |call| accounts::change(call, AccountKind::User).boxed()),
    endpoint(Method::DELETE, "/users/{login}", Need::Operator(Scope::User), |call| accounts::delete(call, AccountKind::User).boxed()),
    endpoint(Method::GET, "/users/{login}/tokens", Need::System, |call| tokens::list(call).boxed()),
    endpoint(Method::POST, "/users/{login}/tokens", Need::System, |call| tokens::create(call).boxed()),
    endpoint(Method::DELETE, "/users/{login}/tokens/{id}", Need::System, |call| tokens::revoke(call).boxed()),
    endpoint(Method::GET, "/orgs", Need::Operator(Scope::ReadOrg), |call| accounts::list(call, AccountKind::Organisation).boxed()),
    endpoint(Method::POST, "/orgs", Need::Operator(Scope::AdminOrg), |call| accounts::create_organisation(call).boxed()),
    endpoint(Method::GET, "/orgs/{login}", Need::Operator(Scope::ReadOrg), |call| accounts::show(call, AccountKind::Organisation).boxed()),
    endpoint(Method::PATCH, "/orgs/{login}", Need::Operator(Scope::AdminOrg), |call| {
        accounts::change(call, AccountKind::Organisation).boxed()
    }),
    endpoint(Method::DELETE, "/orgs/{login}", Need::Operator(Scope::AdminOrg), |call| {
        accounts::delete(call, AccountKind::Organisation).boxed()
    }),
    endpoint(Method::GET, "/orgs/{login}/members", Need::Operator(Scope::ReadOrg), |call| organisations::members(call).boxed()),
    endpoint(Method::PUT, "/orgs/{login}/members/{user}", Need::Operator(Scope::AdminOrg), |call| organisations::set_member(call).boxed()),
    endpoint(Method::DELETE, "/orgs/{login}/members/{user}", Need::Operator(Scope::AdminOrg), |call| {
        organisations::remove_member(call).boxed()
    }),
    endpoint(Method::GET, "/orgs/{login}/teams", Need::Operator(Scope::ReadOrg), |call| organisations::teams(call).boxed()),
    endpoint(Method::POST, "/orgs/{login}/teams", Need::Operator(Scope::AdminOrg), |call| organisations::create_team(call).boxed()),
    endpoint(Method::DELETE, "/orgs/{login}/teams/{team}", Need::Operator(Scope::AdminOrg), |call| {
        organisations::delete_team(call).boxed()
    }),
    endpoint(Method::GET, "/orgs/{login}/teams/{team}/members", Need::Operator(Scope::ReadOrg), |call| {
        organisations::team_members(call).boxed()
    }),
    endpoint(Method::PUT, "/orgs/{login}/teams/{team}/members/{user}", Need::Operator(Scope::AdminOrg), |call| {
        organisations::add_team_member(call).boxed()
    }),
    endpoint(Method::DELETE, "/orgs/{login}/teams/{team}/members/{user}", Need::Operator(Scope::AdminOrg), |call| {
        organisations::remove_team_member(call).boxed()
    }),
    endpoint(Method::GET, "/repos/{login}", Need::Operator(Scope::Repo), |call| repositories::list(call).boxed()),
    endpoint(Method::POST, "/repos/{login}", Need::Operator(Scope::Repo), |call| repositories::create(call).boxed()),
    endpoint(Method::GET, "/repos/{login}/{repo}", Need::Operator(Scope::Repo), |call| repositories::show(call).boxed()),
    endpoint(Method::PATCH, "/repos/{login}/{repo}", Need::Operator(Scope::Repo), |call| repositories::change(call).boxed()),
    endpoint(Method::DELETE, "/repos/{login}/{repo}", Need::Operator(Scope::Repo), |call| repositories::delete(call).boxed()),
    endpoint(Method::GET, "/repos/{login}/{repo}/roles", Need::Operator(Scope::Repo), |call| repositories::roles(call).boxed()),
    endpoint(Method::PUT, "/repos/{login}/{repo}/roles/{principal}", Need::Operator(Scope::Repo), |call| repositories::grant(call).boxed()),
    endpoint(Method::DELETE, "/repos/{login}/{repo}/roles/{principal}", Need::Operator(Scope::Repo), |call| {
        repositories::withdraw(call).boxed()
    }),
    endpoint(Method::GET, "/audit", Need::Operator(Scope::AdminOrg), |call| audit::list(call).boxed()),
    endpoint(Method::GET, "/reservations", Need::Operator(Scope::ReadOrg), |call| reservations::list(call).boxed()),
    endpoint(Method::PUT, "/reservations/{ecosystem}/{pattern}", Need::Operator(Scope::AdminOrg), |call| {
        reservations::reserve(call).boxed()
    }),
    endpoint(Method::DELETE, "/reservations/{ecosystem}/{pattern}", Need::Operator(Scope::AdminOrg), |call| {
        reservations::unreserve(call).boxed()
    }),
    endpoint(Method::GET, "/packages/{ecosystem}", Need::Operator(Scope::ReadPackages), |call| packages::list(call).boxed()),
    endpoint(Method::GET, "/packages/{ecosystem}/{name}", Need::Operator(Scope::ReadPackages), |call| packages::show(call).boxed()),
    endpoint(Method::PATCH, "/packages/{ecosystem}/{name}", Need::Operator(Scope::WritePackages), |call| packages::change(call).boxed()),
    endpoint(Method::DELETE, "/packages/{ecosystem}/{name}", Need::Operator(Scope::DeletePackages), |call| packages::delete(call).boxed()),
    endpoint(Method::POST, "/packages/{ecosystem}/{name}/restore", Need::Operator(Scope::WritePackages), |call| {
        packages::restore(call).boxed()
    }),
    endpoint(Method::DELETE, "/packages/{ecosystem}/{name}/versions/{version}", Need::Operator(Scope::DeletePackages), |call| {
        packages::delete_version(call).boxed()
    }),
    endpoint(Method::POST, "/packages/{ecosystem}/{name}/versions/{version}/restore", Need::Operator(Scope::WritePackages), |call| {
        packages::restore_version(call).boxed()
    }),
    endpoint(Method::PUT, "/packages/{ecosystem}/{name}/roles/{principal}", Need::Operator(Scope::WritePackages), |call| {
        packages::grant_role(call).boxed()
    }),
    endpoint(Method::DELETE, "/packages/{ecosystem}/{name}/roles/{principal}", Need::Operator(Scope::WritePackages), |call| {
        packages::withdraw_role(call).boxed()
    }),
    endpoint(Method::POST, "/fsck", Need::System, |call| upkeep::fsck(call).boxed()),
    endpoint(Method::POST, "/gc", Need::System, |call| upkeep::gc(call).boxed()),
];

/// What a caller needs for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be this server itself: only over the local socket. For what would let a
    /// token make a stronger one.
    System,
    /// To be this server, or a site admin whose token has the scope.
    Operator(Scope),
}

/// One row of the table.
pub struct Endpoint {
    /// Its method.
    pub method: Method,
    /// Its path; `{name}` stands for one segment.
    pub path: &'static str,
    /// What a caller needs.
    pub need: Need,
    handler: Handler,
}

type Handler = for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Response>>;

const fn endpoint(method: Method, path: &'static str, need: Need, handler: Handler) -> Endpoint {
    Endpoint { method, path, need, handler }
}

/// The handles behind the endpoints.
pub struct Api {
    /// Accounts and reservations.
    pub identity: Arc<Identity>,
    /// The ecosystems that packages and reservations may be of.
    pub ecosystems: Vec<&'static dyn Ecosystem>,
    /// The engine of the moment; a reload of the configuration makes a new one.
    pub registry: Box<dyn Fn() -> Arc<Registry> + Send + Sync>,
    /// Work on the whole data folder.
    pub upkeep: Upkeep,
}

/// Answers a request; failures too.
pub async fn serve(api: &Api, request: Request, caller: &Caller) -> Response {
    answer(api, request, caller).await.unwrap_or_else(|error| refuse(&error))
}

async fn answer(api: &Api, request: Request, caller: &Caller) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let segments = path::segments(parts.uri.path()).map_err(|_| Error::not_found(Subject::Route))?;
    let (endpoint, parameters) = locate(&parts.method, &segments)?;
    check(caller, endpoint.need)?;
    let body = body.read(BODY_LIMIT_BYTES).await?;
    let call = Call { api, path: parts.uri.path(), query: parts.uri.query(), parameters, body, caller };
    (endpoint.handler)(call).await
}

/// The endpoint for a path, and the segments its template leaves open.
fn locate<'a>(method: &Method, segments: &'a [Cow<'a, str>]) -> Result<(&'static Endpoint, Vec<&'a str>)> {
    let mut elsewhere = false;
    for endpoint in ENDPOINTS {
        if let Some(parameters) = fit(endpoint.path, segments) {
            if endpoint.method == *method {
                return Ok((endpoint, parameters));
            }
            elsewhere = true;
        }
    }
    Err(Error::new(if elsewhere { Kind::MethodNotAllowed } else { Kind::NotFound }, Subject::Route))
}

fn fit<'a>(template: &str, segments: &'a [Cow<'a, str>]) -> Option<Vec<&'a str>> {
    let mut parameters = Vec::new();
    let mut rest = segments.iter();
    for part in template.trim_start_matches('/').split('/') {
        let segment = rest.next()?;
        match part.starts_with('{') {
            true if segment.is_empty() => return None,
            true => parameters.push(&**segment),
            false if part == segment => {}
            false => return None,
        }
    }
    rest.next().is_none().then_some(parameters)
}

fn check(caller: &Caller, need: Need) -> Result<()> {
    match (caller, need) {
        (Caller::System, _) => Ok(()),
        (_, Need::System) | (Caller::Workflow(_), _) => Err(Error::not_found(Subject::Route)),
        (Caller::Anonymous, _) => Err(Error::new(Kind::Unauthenticated, Subject::Route)),
        (Caller::Signed(signed), _) if !signed.site_admin => Err(Error::not_found(Subject::Route)),
        (Caller::Signed(signed), Need::Operator(scope)) if signed.scopes.allow(scope) => Ok(()),
        (_, Need::Operator(scope)) => Err(Error::forbidden(Subject::Token, format!("the token lacks the scope {}", scope.name()))),
    }
}

/// An error in GitHub's shape.
fn refuse(error: &Error) -> Response {
    let status = reply::status(error);
    if status.is_server_error() {
        tracing::error!(?error, "administration request failed");
    }
    let body = json!({ "message": error.message(), "documentation_url": "", "status": status.as_str() });
    let mut response = reply::json(status, &body);
    reply::retry_after(&mut response, error.wait());
    response
}

/// One request, as a handler sees it.
struct Call<'a> {
    api: &'a Api,
    path: &'a str,
    query: Option<&'a str>,
    /// What the template leaves open, in order, decoded.
    parameters: Vec<&'a str>,
    body: Bytes,
    caller: &'a Caller,
}

/// Where a page of a list begins and how long it may be.
struct PageQuery {
    after: Option<String>,
    limit: usize,
}

impl Call<'_> {
    fn identity(&self) -> &Identity {
        &self.api.identity
    }

    fn registry(&self) -> Arc<Registry> {
        (self.api.registry)()
    }

    /// The ecosystem that the first open segment names.
    fn ecosystem(&self) -> Result<&'static dyn Ecosystem> {
        let name = self.parameter(0);
        let known = || self.api.ecosystems.iter().copied();
        known().find(|ecosystem| ecosystem.info().name == name).ok_or_else(|| {
            let names: Vec<_> = known().map(|ecosystem| ecosystem.info().name).collect();
            Error::not_found(Subject::Route).saying(format!("there is no ecosystem {name:?}, expected {}", names.join(", ")))
        })
    }

    /// A segment that the template leaves open. The table and the handlers agree on how many there are; a test walks both.
    fn parameter(&self, index: usize) -> &str {
        self.parameters.get(index).copied().unwrap_or_default()
    }

    /// A segment as a name; what is no name names nothing.
    fn name<T: std::str::FromStr>(&self, index: usize, subject: Subject) -> Result<T> {
        self.parameter(index).parse().map_err(|_| Error::not_found(subject))
    }

    /// The account that a segment names.
    async fn account(&self, index: usize) -> Result<Account> {
        self.account_of(&self.name(index, Subject::Account)?).await
    }

    async fn account_of(&self, login: &OwnerName) -> Result<Account> {
        let absent = |error: Error| match error.kind() {
            Kind::NotFound => Error::not_found(Subject::Account).saying(format!("there is no account {login}")),
            _ => error,
        };
        self.identity().account_by_login(login).await.map_err(absent)
    }

    /// The body as JSON.
    fn json<T: DeserializeOwned>(&self) -> Result<T> {
        use serde_json::error::Category;
        serde_json::from_slice(&self.body).map_err(|error| match error.classify() {
            Category::Data => Error::new(Kind::Unprocessable, Subject::Request).saying(error.to_string()),
            _ => Error::invalid(Subject::Request, "Problems parsing JSON").because(error),
        })
    }

    fn page(&self) -> Result<PageQuery> {
        let limit = match path::query(self.query, "limit") {
            None => PAGE_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_LIMIT).contains(limit))
                .ok_or_else(|| Error::invalid(Subject::Request, "limit is a number from 1 to 1000"))?,
        };
        Ok(PageQuery { after: path::query(self.query, "after").map(Cow::into_owned), limit })
    }

    /// A part of a list, with the way to the next.
    fn list(&self, items: &impl Serialize, page: &PageQuery, next: Option<String>) -> Response {
        let mut response = reply::json(StatusCode::OK, items);
        if let Some(next) = next {
            let filters = url::form_urlencoded::parse(self.query.unwrap_or_default().as_bytes());
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(filters.filter(|(name, _)| name != "limit" && name != "after"))
                .append_pair("limit", &page.limit.to_string())
                .append_pair("after", &next)
                .finish();
            if let Ok(link) = HeaderValue::try_from(format!("<{}?{query}>; rel=\"next\"", self.path)) {
                response.headers_mut().insert(header::LINK, link);
            }
        }
        response
    }
}

impl PageQuery {
    fn after<T: std::str::FromStr>(&self) -> Result<Option<T>> {
        self.after
            .as_deref()
            .map(|text| text.parse().map_err(|_| Error::invalid(Subject::Request, "after names no item of this list")))
            .transpose()
    }
}

fn created(value: &impl Serialize) -> Response {
    reply::json(StatusCode::CREATED, value)
}

fn shown(value: &impl Serialize) -> Response {
    reply::json(StatusCode::OK, value)
}

fn done() -> Response {
    reply::empty(StatusCode::NO_CONTENT)
}

/// A value in a body that breaks a rule.
fn unprocessable(subject: Subject, why: &impl ToString) -> Error {
    Error::new(Kind::Unprocessable, subject).saying(why.to_string())
}

fn status(call: &Call<'_>) -> Response {
    let ecosystems: Vec<_> = call.api.ecosystems.iter().map(|ecosystem| ecosystem.info().name).collect();
    shown(&json!({ "version": env!("CARGO_PKG_VERSION"), "ecosystems": ecosystems }))
}
