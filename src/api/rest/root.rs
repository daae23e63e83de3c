//! What the API says of itself: where things are, and which versions it has.

use serde_json::{Map, Value, json};

use super::refusal::{Outcome, Refusal};
use super::{Call, ENDPOINTS, VERSIONS, shown};
use crate::http::{Response, StatusCode};

/// The addresses of everything that can be read, as URI templates (RFC 6570), and the list of all endpoints.
pub(super) fn index(call: &Call<'_>) -> Response {
    let mut members = Map::new();
    for (name, below) in [
        ("current_user_url", "/user"),
        ("current_user_repositories_url", "/user/repos"),
        ("organization_url", "/orgs/{org}"),
        ("organization_repositories_url", "/orgs/{org}/repos"),
        ("organization_teams_url", "/orgs/{org}/teams"),
        ("repository_url", "/repos/{owner}/{repo}"),
        ("user_url", "/users/{user}"),
        ("user_organizations_url", "/user/orgs"),
        ("user_repositories_url", "/users/{user}/repos"),
    ] {
        members.insert(name.to_owned(), call.links.api(below).into());
    }
    let endpoints: Vec<Value> = ENDPOINTS
        .iter()
        .map(|endpoint| {
            let scopes: Vec<&str> = endpoint.scopes.iter().map(|scope| scope.name()).collect();
            json!({ "method": endpoint.method.as_str(), "path": endpoint.template, "scopes": scopes })
        })
        .collect();
    members.insert("endpoints".to_owned(), endpoints.into());
    shown(&members)
}

pub(super) fn meta() -> Response {
    shown(&json!({ "verifiable_password_authentication": false, "installed_version": env!("CARGO_PKG_VERSION") }))
}

pub(super) fn versions() -> Response {
    shown(&VERSIONS)
}

/// GitHub Enterprise Server's words where it does not limit rates.
pub(super) fn rate_limit() -> Outcome {
    Err(Refusal::new(StatusCode::NOT_FOUND, "Rate limiting is not enabled."))
}
