//! GitHub's REST API for packages and for the people around them, under `/api/v3`.
//!
//! Paths, JSON, headers and errors are GitHub's, so that what speaks to a GitHub
//! Enterprise Server speaks to this one: Octokit, PyGithub, `gh`. [`ENDPOINTS`] is
//! the one list of what there is; the server walks it to serve, tests walk it to
//! try every endpoint as every kind of caller. What GitHub has no API for is here
//! in the same style.
//!
//! Three things are decided before a handler runs, from the row alone and so alike
//! for everything its path could name: whether a token is needed, which scopes it
//! must have, and whether only site admins may ask. What may be known of one thing
//! is decided by `access`; what may not be known is answered like what is not there.
//!
//! Source: GitHub's REST documentation, version 2022-11-28.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, Kind, Result, Subject};
use crate::http::{
    Body, HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Upload, conditional, header, path, reply, request,
};
use crate::identity::{Account, Caller, Identity, Scope, Signed};
use crate::name::OwnerName;
use crate::registry::Registry;

mod audit;
mod downloads;
mod fields;
pub(crate) mod hooks;
pub(crate) mod links;
mod organisations;
mod package_access;
pub(crate) mod packages;
mod page;
mod phrase;
mod refusal;
mod repositories;
mod root;
mod rows;
mod rules;
mod site;
mod table;
mod teams;
#[cfg(test)]
mod tests;
mod tokens;
mod users;
mod versions;
pub(crate) mod view;

pub use table::{ENDPOINTS, Endpoint, Need};

use fields::Fields;
use links::Links;
use page::Page;
use refusal::{Outcome, Refusal};
use table::Parameters;

/// Where the API is mounted.
pub const MOUNT: &str = links::MOUNT;

/// Versions of the API that a client may ask for. What is served here is the same in both.
const VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];

/// Largest body of a request.
const BODY_LIMIT_BYTES: u64 = 1 << 20;

const API_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");
const API_VERSION_SELECTED: HeaderName = HeaderName::from_static("x-github-api-version-selected");
const MEDIA_TYPE: HeaderName = HeaderName::from_static("x-github-media-type");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-github-request-id");
const SCOPES: HeaderName = HeaderName::from_static("x-oauth-scopes");
const ACCEPTED_SCOPES: HeaderName = HeaderName::from_static("x-accepted-oauth-scopes");

/// Answers a request; failures too. `origin` is the server's address as the client
/// knows it, `client` the client's own, `path` what follows the mount, `caller` what
/// became of the credentials.
pub async fn serve(
    registry: &Registry,
    (origin, client): (&str, IpAddr),
    caller: Result<Arc<Caller>>,
    parts: &request::Parts,
    path: &str,
    body: Upload,
) -> Response {
    let links = Links::new(origin);
    let located = table::locate(&parts.method, path);
    let endpoint = located.as_ref().ok().map(|(endpoint, _)| *endpoint);
    let signed = caller.as_ref().ok().and_then(|caller| caller.signed()).map(|signed| signed.scopes);
    let place = endpoint.map_or(String::new(), |endpoint| format!("{} {}", endpoint.method, endpoint.template));
    let asked = Asked { registry, links: &links, client, parts, path };
    let mut response = match answer(asked, caller, located, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.respond(&links, &place),
    };
    finish(&mut response, parts);
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| HeaderValue::try_from(value).map(|value| headers.insert(name, value));
    // Names of scopes, hex and dates are always valid values.
    let _ = set(REQUEST_ID, &request_id());
    let _ = set(MEDIA_TYPE, "github.v3; format=json");
    let _ = set(API_VERSION_SELECTED, VERSIONS.into_iter().find(|version| asks_for(&parts.headers, version)).unwrap_or(VERSIONS[0]));
    if let Some(scopes) = signed {
        let _ = set(SCOPES, &scopes.to_string());
    }
    if let Some(endpoint) = endpoint {
        let _ = set(ACCEPTED_SCOPES, &endpoint.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", "));
    }
    response
}

/// The answer where a handler broke.
pub fn broken(origin: &str) -> Response {
    Refusal::from(Error::internal(Subject::Request, "a handler panicked")).respond(&Links::new(origin), "")
}

/// What is known of a request before its row is.
#[derive(Clone, Copy)]
struct Asked<'a> {
    registry: &'a Registry,
    links: &'a Links,
    client: IpAddr,
    parts: &'a request::Parts,
    path: &'a str,
}

async fn answer(
    asked: Asked<'_>,
    caller: Result<Arc<Caller>>,
    located: Result<(&'static Endpoint, Parameters), Refusal>,
    body: Upload,
) -> Outcome {
    let Asked { registry, links, client, parts, path } = asked;
    if parts.headers.get(header::USER_AGENT).is_none_or(|agent| agent.as_bytes().trim_ascii().is_empty()) {
        let text = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.";
        return Err(Refusal::forbidden(text));
    }
    if parts.headers.contains_key(API_VERSION) && !VERSIONS.iter().any(|version| asks_for(&parts.headers, version)) {
        let text = format!("The requested API version is not supported. Supported versions: {}.", VERSIONS.join(", "));
        return Err(Refusal::invalid(text));
    }
    let caller = caller?;
    let (endpoint, parameters) = located?;
    admit(&caller, endpoint)?;
    let body = body.read(BODY_LIMIT_BYTES).await?;
    let call = Call { registry, links, path, query: parts.uri.query(), parameters, body, caller: &caller };
    caller.actor(client).acting((endpoint.handler)(call)).await
}

/// What the row alone decides.
fn admit(caller: &Caller, endpoint: &Endpoint) -> Outcome<()> {
    let scopes = match caller {
        Caller::System => return Ok(()),
        Caller::Anonymous if endpoint.need == Need::Anyone => return Ok(()),
        Caller::Anonymous => return Err(Refusal::unauthenticated()),
        Caller::Signed(signed) if endpoint.need == Need::SiteAdmin && !signed.site_admin => return Err(Refusal::not_found()),
        Caller::Signed(signed) => signed.scopes,
        // A workflow's token is good for packages; the rest is for people.
        Caller::Workflow(_) if endpoint.need != Need::Anyone && !endpoint.scopes.contains(&Scope::ReadPackages) => {
            return Err(Refusal::not_for_workflows());
        }
        Caller::Workflow(workflow) => workflow.scopes,
    };
    match endpoint.scopes.iter().find(|scope| !scopes.allow(**scope)) {
        None => Ok(()),
        Some(missing) => Err(lacks_scope(*missing)),
    }
}

fn lacks_scope(scope: Scope) -> Refusal {
    Refusal::forbidden(format!("Your token has not been granted the required scopes to execute this request: it lacks {}.", scope.name()))
}

fn asks_for(headers: &HeaderMap, version: &str) -> bool {
    headers.get(API_VERSION).is_some_and(|value| value == version)
}

/// Adds the validator and answers 304 where the client has the answer already; leaves the body out for HEAD.
fn finish(response: &mut Response, parts: &request::Parts) {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(if reads { "private, no-cache" } else { "no-store" }));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Authorization, X-GitHub-Api-Version"));
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    }
    if !reads {
        return;
    }
    let etag = match response.body() {
        Body::Bytes(bytes) if response.status() == StatusCode::OK => validator(bytes),
        _ => None,
    };
    if let Some(etag) = etag {
        let same = conditional::none_match(&parts.headers, &etag);
        response.headers_mut().insert(header::ETAG, etag);
        if same {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::Empty;
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
    }
    if parts.method == Method::HEAD
        && let Body::Bytes(bytes) = response.body()
    {
        let length = HeaderValue::from(bytes.len());
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        *response.body_mut() = Body::Empty;
    }
}

fn validator(bytes: &[u8]) -> Option<HeaderValue> {
    let digest = crate::digest::Digest::sha256(bytes);
    HeaderValue::try_from(format!("W/\"{}\"", digest.hex())).ok()
}

/// A number that nothing else has, to find an answer in a report again.
fn request_id() -> String {
    format!("{:016X}", rand::random::<u64>())
}

/// One request, as a handler sees it.
pub(crate) struct Call<'a> {
    registry: &'a Registry,
    links: &'a Links,
    path: &'a str,
    query: Option<&'a str>,
    parameters: Parameters,
    body: Bytes,
    caller: &'a Arc<Caller>,
}

impl Call<'_> {
    fn identity(&self) -> &Identity {
        self.registry.identity()
    }

    /// What the template leaves open under a name. The table and the handlers agree on the names; a test walks both.
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.as_str())
    }

    fn has_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|(key, _)| *key == name)
    }

    /// A segment as a name or number; what is none names nothing.
    fn named<T: std::str::FromStr>(&self, name: &str) -> Outcome<T> {
        self.parameter(name).parse().map_err(|_| Refusal::not_found())
    }

    /// A query parameter; an empty one counts as absent.
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        path::query(self.query, name).filter(|value| !value.is_empty())
    }

    fn page(&self) -> Outcome<Page> {
        Page::read(self.query)
    }

    /// The body's fields.
    fn fields(&self, resource: &'static str) -> Outcome<Fields> {
        Fields::read(resource, &self.body)
    }

    /// The user who asks. Rows that need one say so, so that nobody else comes here.
    fn signed(&self) -> Outcome<&Signed> {
        self.caller.signed().ok_or_else(|| match **self.caller {
            Caller::Workflow(_) => Refusal::not_for_workflows(),
            _ => Refusal::unauthenticated(),
        })
    }

    /// The account of a login that a segment names.
    async fn account(&self, parameter: &str) -> Outcome<Account> {
        Ok(self.identity().account_by_login(&self.named::<OwnerName>(parameter)?).await?)
    }

    /// The user of a login that a segment names.
    async fn user(&self, parameter: &str) -> Outcome<Account> {
        let account = self.account(parameter).await?;
        if account.is_organisation() { Err(Refusal::not_found()) } else { Ok(account) }
    }

    /// The organisation of a login that a segment names.
    async fn organisation(&self) -> Outcome<Account> {
        let account = self.account("org").await?;
        if account.is_organisation() { Ok(account) } else { Err(Refusal::not_found()) }
    }

    /// The account that the path's beginning names: an organisation, a user or
    /// organisation, or whoever asks.
    async fn owner(&self) -> Outcome<Account> {
        if self.has_parameter("org") {
            self.organisation().await
        } else if self.has_parameter("username") {
            self.account("username").await
        } else {
            Ok(self.identity().account(self.signed()?.user).await?)
        }
    }

    /// The page of a list that is whole.
    fn list<T: Serialize>(&self, page: Page, items: &[T]) -> Response {
        self.part(page, page.of(items), items.len())
    }

    /// The page of a list of `total` items.
    fn part<T: Serialize>(&self, page: Page, items: &[T], total: usize) -> Response {
        let mut response = reply::json(StatusCode::OK, &items);
        page.link(&mut response, &self.links.api(self.path), self.query, total);
        response
    }
}

fn shown(value: &impl Serialize) -> Response {
    reply::json(StatusCode::OK, value)
}

fn created(value: &impl Serialize) -> Response {
    reply::json(StatusCode::CREATED, value)
}

fn done() -> Response {
    reply::empty(StatusCode::NO_CONTENT)
}

/// What was deleted since is shown as absent.
fn known<T>(looked_up: Result<T>) -> Result<Option<T>> {
    match looked_up {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A failure of our own, for what cannot happen.
fn defect(what: &'static str) -> Refusal {
    Error::internal(Subject::Request, what).into()
}
