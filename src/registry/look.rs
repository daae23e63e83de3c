//! Answers out of memory.
//!
//! Nearly every request asks for what was asked for a moment ago. Such a one is answered by plain functions that look into
//! memory and wait for nothing, so that no future is made, moved and polled for it. `None` means everywhere «not from here»:
//! then the request takes the ordinary way, which asks the stores and the upstreams, and says what is refused and why. A look
//! decides the same right by the same function before it looks at anything of a package, so it can answer less than the
//! ordinary way and never more.

use std::any::{Any, TypeId};
use std::sync::Arc;

use super::{Keeping, Plan, Registry, Rendered, Topic};
use crate::access::Grant;
use crate::catalog::View;
use crate::clock::Timestamp;
use crate::format::{BaseParts, Document};
use crate::http::negotiate::Coding;
use crate::http::{HeaderMap, HeaderValue, Method, Response};
use crate::identity::Caller;
use crate::name::{OwnerName, PackageKey, PackageName};
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
    /// The mount as the client addresses it.
    pub base: BaseParts<'a>,
    /// The host that the client asked, with its port if it named one.
    pub host: &'a str,
    /// Notes for the log line.
    pub trace: &'a Trace,
    /// When it came.
    pub now: Timestamp,
}

/// A file that a path names, with what every answer says of it.
pub struct NamedFile {
    /// Whose packages the path is about; `None` for those under one roof.
    pub owner: Option<OwnerName>,
    /// The package.
    pub name: PackageName,
    /// The file's name in the download path.
    pub file: Arc<str>,
    /// Whether fetching it is a download of its version.
    pub is_download: bool,
    /// Its media type.
    pub media_type: HeaderValue,
    /// How long a client may keep it.
    pub keeping: Keeping,
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

    /// The view of an owner's packages, or the one of all.
    #[must_use]
    pub fn view(&self, owner: Option<&OwnerName>) -> Option<View> {
        match owner {
            None => Some(View::Root),
            Some(owner) => self.registry.identity().id_in_memory(owner)?.map(View::Owner),
        }
    }

    /// The answer to a request for a file.
    #[must_use]
    pub fn send(&self, ecosystem: &'static str, named: &NamedFile) -> Option<Response> {
        let NamedFile { owner, name, file, is_download, media_type, keeping } = named;
        let (plan, grant) = self.grant(self.view(owner.as_ref())?, ecosystem, name)?;
        let artifact = self.registry.artifact_at_hand(&grant, &plan, file, *is_download)?;
        self.note(&grant, Some(file), artifact.verdict);
        Some(artifact.respond(self.method, self.headers, media_type.clone(), self.registry.lifetime(&plan, *keeping)))
    }

    /// The right to read a package, and where it comes from.
    #[must_use]
    pub fn grant(&self, view: View, ecosystem: &'static str, name: &PackageName) -> Option<(Plan, Grant)> {
        self.registry.read_grant_in_memory(view, ecosystem, self.caller, name, self.now)
    }

    /// A package's document, rendered.
    #[must_use]
    pub fn document<D: Document>(&self, topic: Topic<'_, D>, form: D::Form, coding: Coding) -> Option<Rendered> {
        self.registry.document_in_memory::<D>(topic, form, self.base, coding)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Action;
    use crate::format::BaseUrl;
    use crate::identity::{NewUser, Scope};
    use crate::package::{TokenId, Visibility};
    use crate::registry::Settings;
    use crate::registry::fixture::{Fixture, fixture};

    async fn user(f: &Fixture, login: &str) -> Caller {
        let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: false };
        let account = f.identity.create_user(new).await.unwrap();
        Caller::Signed(f.identity.seen(&account, TokenId(1), [Scope::ReadPackages].into_iter().collect()).await.unwrap())
    }

    #[tokio::test]
    async fn memory_gives_no_right_that_is_none_any_more() {
        let f = fixture().await;
        let (ann, bob) = (user(&f, "ann").await, user(&f, "bob").await);
        f.publish("npm", "tool", ann.id().unwrap(), "1.0.0").await.unwrap();
        let name = PackageName::new("tool").unwrap();
        let system = Grant::system(("npm", &name, None));
        let now = f.registry.clock().now();
        let may = |caller: &Caller| f.registry.read_grant_in_memory(View::Root, "npm", caller, &name, now).is_some();
        let ask = async |caller: &Caller| f.registry.grant("npm", caller, &name, Action::Read).await;
        ask(&ann).await.unwrap();
        assert_eq!([&ann, &bob, &Caller::Anonymous].map(may), [true, false, false]);
        let public = Settings { visibility: Some(Visibility::Public), ..Settings::default() };
        f.registry.change_settings(&system, public).await.unwrap();
        ask(&ann).await.unwrap();
        assert_eq!([&ann, &bob, &Caller::Anonymous].map(may), [true, true, true]);
        let private = Settings { visibility: Some(Visibility::Private), ..Settings::default() };
        f.registry.change_settings(&system, private).await.unwrap();
        assert_eq!([&bob, &Caller::Anonymous].map(may), [false, false]);
        ask(&ann).await.unwrap();
        assert_eq!([&ann, &bob, &Caller::Anonymous].map(may), [true, false, false]);
        f.registry.delete_package(&system).await.unwrap();
        assert!(ask(&ann).await.is_err());
        assert_eq!([&ann, &bob, &Caller::Anonymous].map(may), [false, false, false]);
    }

    #[tokio::test]
    async fn memory_has_the_files_of_the_present_generation_alone() {
        let f = fixture().await;
        let ann = user(&f, "ann").await;
        let name = PackageName::new("tool").unwrap();
        f.publish("npm", "tool", ann.id().unwrap(), "1.0.0").await.unwrap();
        let (plan, grant) = f.registry.grant("npm", &ann, &name, Action::Read).await.unwrap();
        let (catalog, head) = (f.registry.catalog(), plan.head().unwrap());
        assert!(catalog.file_in_memory(&grant, head, "tool-1.0.0.tgz").is_none(), "nobody looked");
        catalog.file(&grant, head, "tool-1.0.0.tgz").await.unwrap().unwrap();
        assert!(catalog.file_in_memory(&grant, head, "tool-1.0.0.tgz").unwrap().is_some());
        f.publish("npm", "tool", ann.id().unwrap(), "1.1.0").await.unwrap();
        let (plan, grant) = f.registry.grant("npm", &ann, &name, Action::Read).await.unwrap();
        assert!(catalog.file_in_memory(&grant, plan.head().unwrap(), "tool-1.0.0.tgz").is_none());
    }

    #[test]
    fn an_address_in_parts_makes_the_key_of_the_whole() {
        let whole = BaseUrl::new("http://host.example/npm/");
        assert_eq!(PackageKey::of(&BaseParts("http://host.example", "/npm")), PackageKey::of(&whole.parts()));
        assert_ne!(PackageKey::of(&BaseParts("http://host.example", "/gem")), PackageKey::of(&whole.parts()));
    }
}
