//! Answers out of memory.
//!
//! Nearly every request asks for what was asked for a moment ago. Such a one is answered by plain functions that look into
//! memory and wait for nothing, so that no future is made, moved and polled for it. `None` means everywhere «not from here»:
//! then the request takes the ordinary way, which asks the stores and the upstreams, and says what is refused and why. A look
//! decides the same right by the same function before it looks at anything of a package, so it can answer less than the
//! ordinary way and never more.

use std::any::{Any, TypeId};
use std::sync::Arc;

use super::{Artifact, Plan, Registry, Rendered, Topic};
use crate::access::Grant;
use crate::catalog::View;
use crate::format::{BaseUrl, Document};
use crate::http::negotiate::Coding;
use crate::http::{HeaderMap, Method};
use crate::identity::Caller;
use crate::name::{PackageKey, PackageName};
use crate::observe::Trace;
use crate::upstream::Verdict;

/// A request to read something, as far as an answer out of memory needs it.
pub struct Look<'a> {
    /// The engine.
    pub registry: &'a Registry,
    /// Who asks.
    pub caller: &'a Caller,
    /// What a session token limits the request to, if it came with one.
    pub session: Option<&'a str>,
    /// GET or HEAD.
    pub method: &'a Method,
    /// The raw path below the mount, with its leading slash.
    pub path: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The origin as the client addresses it, and the path of the mount there.
    pub base: (&'a str, &'a str),
    /// The host that the client asked, with its port if it named one.
    pub host: &'a str,
    /// Notes for the log line.
    pub trace: &'a Trace,
}

impl Look<'_> {
    /// What the path means, read once for many requests: `read` is a pure function of the path, and its value `R` is its only
    /// user's own type. What it does not understand is not remembered.
    pub fn route<R: Any + Send + Sync>(&self, read: impl FnOnce(&str) -> Option<R>) -> Option<Arc<R>> {
        let key = PackageKey::of(&(TypeId::of::<R>(), self.path));
        if let Some(route) = self.registry.routes.0.get(&key) {
            return route.value.downcast().ok();
        }
        let value = Arc::new(read(self.path)?);
        let weight = self.path.len() as u64 * 3 + 400;
        self.registry.routes.0.insert(key, Route { value: Arc::<R>::clone(&value), weight });
        Some(value)
    }

    /// The right to read a package, and where it comes from.
    #[must_use]
    pub fn grant(&self, view: View, ecosystem: &'static str, name: &PackageName) -> Option<(Plan, Grant)> {
        self.registry.read_grant_in_memory(view, ecosystem, self.caller, name)
    }

    /// A file of a package, by its name in the download path; whether fetching it is a download of its version the format says.
    #[must_use]
    pub fn artifact(&self, grant: &Grant, plan: &Plan, file: &str, is_download: bool) -> Option<Artifact> {
        self.registry.artifact_at_hand(grant, plan, file, is_download)
    }

    /// A package's document, rendered.
    #[must_use]
    pub fn document<D: Document>(&self, topic: Topic<'_, D>, form: D::Form, coding: Coding) -> Option<Rendered> {
        let at = BaseUrl::new(&[self.base.0, self.base.1].concat());
        self.registry.document_in_memory::<D>(topic, form, &at, coding)
    }

    /// Notes for the log line what was answered, once the right to it is given.
    pub fn note(&self, grant: &Grant, item: Option<&Arc<str>>, verdict: Verdict) {
        self.trace.note(|notes| {
            notes.package = Some(grant.name().clone());
            notes.item = item.cloned();
            notes.verdict = Some(verdict.word());
        });
    }
}

/// What paths mean, by the path and the type of what it means.
pub(super) struct Routes(quick_cache::sync::Cache<PackageKey, Route, RouteWeight>);

#[derive(Clone)]
struct Route {
    value: Arc<dyn Any + Send + Sync>,
    /// About what it takes, in bytes.
    weight: u64,
}

#[derive(Clone)]
struct RouteWeight;

impl quick_cache::Weighter<PackageKey, Route> for RouteWeight {
    fn weight(&self, _: &PackageKey, route: &Route) -> u64 {
        route.weight
    }
}

impl Routes {
    /// Remembers as many as take about so much memory.
    pub(super) fn new(bytes: u64) -> Self {
        // A guess at how many there will be; only the weight is a limit.
        let expected = usize::try_from(bytes / 600).unwrap_or(usize::MAX);
        Self(quick_cache::sync::Cache::with_weighter(expected, bytes, RouteWeight))
    }
}
