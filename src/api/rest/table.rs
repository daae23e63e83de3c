//! How endpoints are found.
//!
//! A template's `{name}` stands for one segment, `{name+}` for one or more: a
//! package's name may be escaped, and then is one segment, or bring its slashes as
//! they are, as some client libraries send it. Where a path fits several templates
//! the one that leaves least open is meant.

use std::borrow::Cow;
use std::sync::LazyLock;

use futures_util::future::BoxFuture;

use super::refusal::{Outcome, Refusal};
use super::{Call, rows};
use crate::http::{Method, Response, path};
use crate::identity::Scope;

/// Every endpoint.
pub static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(rows::all);

/// Who may ask, before anything is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everyone.
    Anyone,
    /// Who has a token.
    SignedIn,
    /// Site admins; to others it is not there.
    SiteAdmin,
}

/// One row of the table.
pub struct Endpoint {
    /// Its method. HEAD is answered like GET.
    pub method: Method,
    /// Its path below the mount.
    pub template: Cow<'static, str>,
    /// Who may ask.
    pub need: Need,
    /// The scopes that a token must allow, all of them.
    pub scopes: &'static [Scope],
    pub(super) handler: Handler,
}

pub(super) type Handler = for<'a> fn(Call<'a>) -> BoxFuture<'a, Outcome<Response>>;

/// What the template leaves open, by name, decoded.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// The endpoint of a path, and what its template leaves open.
pub(super) fn locate(method: &Method, raw: &str) -> Result<(&'static Endpoint, Parameters), Refusal> {
    let segments = path::segments(raw).map_err(|_| Refusal::not_found())?;
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let endpoints: &'static [Endpoint] = &ENDPOINTS;
    let fitting: Vec<(&Endpoint, Parameters)> =
        endpoints.iter().filter_map(|endpoint| Some((endpoint, fit(&endpoint.template, &segments)?))).collect();
    let allow = allowed(&fitting);
    let meant =
        fitting.into_iter().filter(|(endpoint, _)| endpoint.method == *method).max_by_key(|(endpoint, _)| fixed(&endpoint.template));
    match (meant, allow) {
        (Some(meant), _) => Ok(meant),
        (None, Some(allow)) => Err(Refusal::method_not_allowed(allow)),
        (None, None) => Err(Refusal::not_found()),
    }
}

fn allowed(fitting: &[(&Endpoint, Parameters)]) -> Option<String> {
    let mut methods: Vec<&str> = fitting.iter().map(|(endpoint, _)| endpoint.method.as_str()).collect();
    methods.sort_unstable();
    methods.dedup();
    (!methods.is_empty()).then(|| methods.join(", "))
}

/// How many of a template's parts are fixed.
fn fixed(template: &str) -> usize {
    parts(template).filter(|part| !part.starts_with('{')).count()
}

fn parts(template: &str) -> impl Iterator<Item = &str> {
    template.strip_prefix('/').unwrap_or(template).split('/')
}

fn fit(template: &'static str, segments: &[Cow<'_, str>]) -> Option<Parameters> {
    let count = parts(template).count();
    // What the part that takes several may have.
    let spare = segments.len().checked_sub(count)? + 1;
    let mut rest = segments;
    let mut parameters = Vec::new();
    for part in parts(template) {
        let open = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let several = open.and_then(|open| open.strip_suffix('+'));
        let (taken, left) = rest.split_at_checked(if several.is_some() { spare } else { 1 })?;
        rest = left;
        match (several.or(open), taken) {
            (Some(_), taken) if taken.iter().any(|segment| segment.is_empty()) => return None,
            (Some(name), taken) => parameters.push((name, taken.join("/"))),
            (None, [segment]) if segment == part => {}
            (None, _) => return None,
        }
    }
    rest.is_empty().then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(template: &'static str, raw: &str) -> Option<Vec<String>> {
        let found = fit(template, &path::segments(raw).unwrap())?;
        Some(found.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn a_name_may_bring_its_slashes() {
        let template = "/orgs/{org}/packages/{type}/{name+}/versions/{id}";
        for name in ["tool", "a%2Fb", "a/b", "%40a/b", "versions/7"] {
            let found = fits(template, &format!("/orgs/o/packages/t/{name}/versions/5")).unwrap();
            assert_eq!(found, ["o", "t", &name.replace("%2F", "/").replace("%40", "@"), "5"]);
        }
        for wrong in [
            "/orgs/o/packages/t/versions/5",
            "/orgs/o/packages/t/n/versions/5/",
            "/orgs/o/packages/t//versions/5",
            "/orgs/o/packages/t/a//b/versions/5",
            "/orgs//packages/t/n/versions/5",
            "/users/o/packages/t/n/versions/5",
            "/orgs/o/packages/t/n/versions",
            "/orgs",
            "/",
        ] {
            assert_eq!(fits(template, wrong), None, "{wrong}");
        }
        assert_eq!(fits("/", "/"), Some(Vec::new()));
    }

    #[test]
    fn the_template_that_leaves_least_open_is_meant() {
        let found = |method: &Method, raw: &str| match locate(method, raw) {
            Ok((endpoint, parameters)) => {
                format!("{} {}", endpoint.template, parameters.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" "))
            }
            Err(refusal) => format!("{refusal:?}"),
        };
        let package = "/orgs/{org}/packages/{package_type}/{package_name+}";
        assert_eq!(found(&Method::GET, "/orgs/o/packages/t/a/versions/5"), format!("{package}/versions/{{version_id}} o t a 5"));
        assert_eq!(found(&Method::GET, "/orgs/o/packages/t/a%2Fversions%2F5"), format!("{package} o t a/versions/5"));
        assert_eq!(found(&Method::HEAD, "/orgs/o/packages/t/a/versions"), format!("{package}/versions o t a"));
        assert_eq!(found(&Method::POST, "/orgs/o/packages/t/a/b/restore"), format!("{package}/restore o t a/b"));
        assert!(found(&Method::PUT, "/user").contains("405"));
        assert!(found(&Method::GET, "/user/").contains("404"));
        assert!(found(&Method::GET, "/user/../user").contains("404"));
    }

    #[test]
    fn rows_are_told_apart() {
        let mut seen = std::collections::HashSet::new();
        for endpoint in ENDPOINTS.iter() {
            assert!(seen.insert((endpoint.method.clone(), endpoint.template.clone())), "{} {}", endpoint.method, endpoint.template);
            assert!(parts(&endpoint.template).filter(|part| part.ends_with("+}")).count() <= 1);
        }
    }
}
