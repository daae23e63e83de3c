//! The engine that all ecosystems share: documents, files, publishes.
//!
//! An ecosystem turns a path into a typed request and calls one of the functions
//! here with a [`Grant`]; it supplies pure functions for its documents and cannot
//! go round the rules of names, rights, caching and durability that live here.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::access::{self, Action, Grant, Target};
use crate::blob::Blobs;
use crate::catalog::{Catalog, Head, View};
use crate::clock::{Clock, Timestamp};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::BaseUrl;
use crate::http::conditional::entity_tag;
use crate::http::{HeaderMap, HeaderValue, Method, Upload};
use crate::identity::{Caller, Identity};
use crate::name::{OwnerName, PackageKey, PackageName};
use crate::observe::Trace;
use crate::package::Visibility;
use crate::upstream::{Fetcher, Upstream, Verdict};
use crate::webhook::Hooks;

pub mod arrival;
pub mod artifact;
pub mod content;
pub mod document;
pub mod family;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod histories;
pub mod listing;
pub mod look;
pub mod publish;
pub mod relay;
pub mod removal;
pub mod retention;
pub mod roll;
pub mod settings;
pub mod source;
pub mod transfer;

pub use artifact::{Artifact, Content, Location};
pub use content::Needs;
pub use document::{Rendered, Topic};
pub use family::{Tagging, Untagged};
pub use look::{Look, NamedFile};
pub use settings::Settings;
pub use source::Plan;

/// `[registry]`: the engine's limits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory for request paths that were read a while ago.
    pub route_cache_bytes: u64,
    /// Memory for rendered and compressed documents.
    pub rendered_cache_bytes: u64,
    /// Memory for documents that are cut but not rendered.
    pub parsed_cache_bytes: u64,
    /// Documents above 1 MiB that are read or rendered at once.
    pub large_documents_at_once: usize,
    /// Largest publish, file included.
    pub publish_limit_bytes: u64,
    /// Largest file of those that are published one by one, and largest content that is uploaded before a version names it.
    pub file_limit_bytes: u64,
    /// Largest metadata of a publish besides its file.
    pub publish_metadata_limit_bytes: usize,
    /// Most entries of a published archive.
    pub archive_entries: u64,
    /// Most bytes a published archive unpacks to.
    pub archive_unpacked_bytes: u64,
    /// Most files of one version.
    pub version_files: usize,
    /// Builds of one version that are kept; older ones go when a new one comes.
    pub builds_per_version: usize,
    /// How long the files of a version that nothing completes, and uploads that no version names, are kept, in hours.
    pub unfinished_hours: u64,
    /// How long what was deleted can be restored, in days.
    pub restore_days: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            route_cache_bytes: 8 << 20,
            rendered_cache_bytes: 256 << 20,
            parsed_cache_bytes: 128 << 20,
            large_documents_at_once: 2,
            publish_limit_bytes: 350 << 20,
            file_limit_bytes: 10 << 30,
            publish_metadata_limit_bytes: 16 << 20,
            archive_entries: 100_000,
            archive_unpacked_bytes: 2 << 30,
            version_files: 10_000,
            builds_per_version: 100,
            unfinished_hours: 24,
            restore_days: 30,
        }
    }
}

/// Versions whose upstream is remembered.
const KEEPERS_REMEMBERED: u64 = 100_000;

/// The handles an ecosystem works with.
pub struct Registry {
    config: Config,
    access: access::Config,
    catalog: Catalog,
    identity: Arc<Identity>,
    blobs: Blobs,
    fetcher: Fetcher,
    /// Upstreams of each ecosystem, in order.
    upstreams: Vec<(String, Vec<Arc<Upstream>>)>,
    hooks: Hooks,
    clock: Clock,
    /// Paths that were read a while ago.
    routes: look::Routes,
    rendered: document::RenderedCache,
    parsed: moka::future::Cache<PackageKey, Parsed>,
    large_documents: Arc<tokio::sync::Semaphore>,
    /// Which upstream the files of a version came from, where no index says so.
    keepers: moka::sync::Cache<PackageKey, Arc<str>>,
    /// The rolls of ecosystems that have one, and the files made of them.
    rolls: roll::Rolls,
    rolled: moka::sync::Cache<PackageKey, Arc<roll::Rolled>>,
    /// Content that clients were told is there a while ago.
    shown: content::Shown,
    /// Of each ecosystem, whose packages are public.
    publics: listing::Publics,
    /// Changes of packages take turns, by the package's key.
    turns: Vec<tokio::sync::Mutex<()>>,
}

/// A document that is cut but not rendered, of whatever format, and its weight in bytes.
#[derive(Clone)]
struct Parsed {
    document: Arc<dyn Any + Send + Sync>,
    weight: u32,
}

/// What a registry is built from.
pub struct Parts {
    /// Limits.
    pub config: Config,
    /// What the operator decided about rights.
    pub access: access::Config,
    /// Hosted packages.
    pub catalog: Catalog,
    /// Accounts and reservations.
    pub identity: Arc<Identity>,
    /// Bytes.
    pub blobs: Blobs,
    /// Upstream access.
    pub fetcher: Fetcher,
    /// Upstreams of each ecosystem, in order.
    pub upstreams: HashMap<String, Vec<Arc<Upstream>>>,
    /// Who is told of events.
    pub hooks: Hooks,
    /// The present time.
    pub clock: Clock,
}

/// One request, as an ecosystem sees it.
pub struct Call<'a> {
    /// The engine.
    pub registry: &'a Registry,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// What a session token limits the request to, if it came with one.
    pub session: Option<Arc<str>>,
    /// The method.
    pub method: Method,
    /// The raw path below the mount, with its leading slash.
    pub path: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: Upload,
    /// The mount as the client addresses it.
    pub base: BaseUrl,
    /// The host that the client asked, with its port if it named one.
    pub host: &'a str,
    /// The label of the ecosystem's own host by which it was asked.
    pub own_host: Option<&'a str>,
    /// Notes for the log line.
    pub trace: &'a Trace,
}

/// How long a client may keep an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// For ever: the address always means these bytes.
    Immutable,
    /// What an upstream has, for a minute; what is hosted must be asked for each time, so that a change is seen at once.
    Revalidated,
}

impl Call<'_> {
    /// As [`Registry::lifetime`].
    #[must_use]
    pub fn lifetime(&self, plan: &Plan, keeping: Keeping) -> HeaderValue {
        self.registry.lifetime(plan, keeping)
    }

    /// As [`Registry::is_private`].
    #[must_use]
    pub fn is_private(&self, plan: &Plan) -> bool {
        self.registry.is_private(plan)
    }

    /// Notes for the log line how the answer was come by.
    pub fn note_verdict(&self, verdict: Verdict) {
        self.trace.note(|notes| notes.verdict = Some(verdict.word()));
    }
}

impl Registry {
    /// The `Cache-Control` of an answer made from these sources.
    #[must_use]
    pub fn lifetime(&self, plan: &Plan, keeping: Keeping) -> HeaderValue {
        // Made when this is compiled: making a header's value looks at every byte.
        match (keeping, plan, self.is_private(plan)) {
            (Keeping::Immutable, _, false) => const { HeaderValue::from_static("public, max-age=31536000, immutable") },
            (Keeping::Immutable, _, true) => const { HeaderValue::from_static("private, max-age=31536000, immutable") },
            (Keeping::Revalidated, Plan::Proxied(_), false) => const { HeaderValue::from_static("public, max-age=60") },
            (Keeping::Revalidated, Plan::Proxied(_), true) => const { HeaderValue::from_static("private, max-age=60") },
            (Keeping::Revalidated, _, false) => const { HeaderValue::from_static("public, no-cache") },
            (Keeping::Revalidated, _, true) => const { HeaderValue::from_static("private, no-cache") },
        }
    }

    /// Whether a shared cache on the way must not keep an answer: it would give it to those who may not read it.
    #[must_use]
    pub fn is_private(&self, plan: &Plan) -> bool {
        let nobody_may_proxy = !plan.upstreams().is_empty() && !self.access.anonymous_proxy;
        nobody_may_proxy || plan.head().is_some_and(|head| head.policy.visibility() != Visibility::Public)
    }

    /// Assembles the engine.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, access, catalog, identity, blobs, fetcher, upstreams, hooks, clock } = parts;
        let rendered = document::rendered_cache(config.rendered_cache_bytes);
        let parsed = moka::future::Cache::builder()
            .max_capacity(config.parsed_cache_bytes)
            .weigher(|_, parsed: &Parsed| parsed.weight)
            .time_to_idle(std::time::Duration::from_secs(300))
            .build();
        let large_documents = Arc::new(tokio::sync::Semaphore::new(config.large_documents_at_once.max(1)));
        let keepers = moka::sync::Cache::new(KEEPERS_REMEMBERED);
        let rolled = moka::sync::Cache::builder()
            .max_capacity(config.rendered_cache_bytes)
            .weigher(|_, rolled: &Arc<roll::Rolled>| rolled.weight())
            .time_to_idle(std::time::Duration::from_secs(3600))
            .build();
        let turns = std::iter::repeat_with(tokio::sync::Mutex::default).take(256).collect();
        Self {
            access,
            catalog,
            identity,
            blobs,
            fetcher,
            // A few, which are found faster one by one than by a hash.
            upstreams: upstreams.into_iter().collect(),
            hooks,
            clock,
            routes: look::Routes::new(config.route_cache_bytes),
            rendered,
            parsed,
            large_documents,
            keepers,
            rolls: roll::Rolls::default(),
            rolled,
            shown: content::shown(),
            publics: listing::Publics::new(100),
            turns,
            config,
        }
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the operator decided about rights.
    #[must_use]
    pub fn access(&self) -> &access::Config {
        &self.access
    }

    /// Hosted packages.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Accounts and reservations.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who is told of events.
    #[must_use]
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Stored bytes.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Access to upstreams.
    #[must_use]
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// The present time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The upstreams of an ecosystem, in order.
    #[must_use]
    pub fn upstreams(&self, ecosystem: &str) -> &[Arc<Upstream>] {
        self.upstreams.iter().find(|(of, _)| of == ecosystem).map_or(&[], |(_, upstreams)| upstreams)
    }

    /// Every upstream of every ecosystem.
    pub fn all_upstreams(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.upstreams.iter().flat_map(|(ecosystem, upstreams)| upstreams.iter().map(move |upstream| (ecosystem.as_str(), upstream)))
    }

    /// Where a name of the root view comes from, and the proof that the caller may do this with it.
    ///
    /// # Errors
    /// As [`Registry::grant_in`].
    pub async fn grant(&self, ecosystem: &'static str, caller: &Caller, name: &PackageName, action: Action) -> Result<(Plan, Grant)> {
        self.grant_in(View::Root, ecosystem, caller, name, action).await
    }

    /// Where a name comes from, and the proof that the caller may do this with it.
    ///
    /// The answer for a name the caller may not know of is the answer for a name
    /// that does not exist.
    ///
    /// # Errors
    /// As `access` decides; also for a deleted package, which only its record remembers.
    pub async fn grant_in(
        &self,
        view: View,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        action: Action,
    ) -> Result<(Plan, Grant)> {
        let head = self.catalog.head_in(view, ecosystem, name).await?;
        let reservations = self.identity.reservations().await?;
        let merges = reservations.find(ecosystem, name).map(|reservation| reservation.merge);
        // A hosted name is not asked for upstream in the view of an owner who does not have it either.
        let elsewhere = head.is_none() && view != View::Root && self.is_known(view, ecosystem, name).await?;
        let plan = self.plan(head, merges, ecosystem, name, elsewhere);
        let error = match self.decide(&plan, ecosystem, caller, name, action) {
            Ok(grant) => return Ok((plan, grant)),
            Err(error) => error,
        };
        let hidden = match &plan {
            Plan::Hosted(_) | Plan::Merged(..) => true,
            Plan::Proxied(_) => false,
            Plan::Nowhere => elsewhere,
        };
        if error.kind() == Kind::NotFound {
            // What the caller would hear of a name that nobody hosts. Where that is not
            // «not found», a hidden package must not answer «not found» either.
            access::grant_upstream(caller, ecosystem, name, action, self.access.anonymous_proxy)?;
            if hidden && merges.is_none() {
                Box::pin(self.pretend_absent(ecosystem, name)).await?;
            }
        }
        Err(error)
    }

    /// Where a name comes from. `elsewhere` says that it is hosted where the caller's view does not show it.
    fn plan(&self, head: Option<Arc<Head>>, merges: Option<bool>, ecosystem: &str, name: &PackageName, elsewhere: bool) -> Plan {
        let upstreams = if elsewhere { &[] } else { self.upstreams(ecosystem) };
        Plan::new(head, merges, upstreams, name)
    }

    /// Whether the caller may do this with a name that has these sources. «Not found» is the answer for what is hidden,
    /// deleted or nowhere.
    fn decide(&self, plan: &Plan, ecosystem: &'static str, caller: &Caller, name: &PackageName, action: Action) -> Result<Grant> {
        let absent = || Error::not_found(Subject::Package);
        match plan {
            Plan::Hosted(head) | Plan::Merged(head, _) => {
                let target = Target { ecosystem, name, package: Some(head.package.id) };
                let grant = access::grant(caller, target, &head.policy, action)?;
                if head.package.deleted_at.is_none() { Ok(grant) } else { Err(absent()) }
            }
            Plan::Proxied(_) => access::grant_upstream(caller, ecosystem, name, action, self.access.anonymous_proxy),
            Plan::Nowhere => Err(absent()),
        }
    }

    /// As [`Registry::grant_in`] to read, if memory holds all that it takes and the caller has the right.
    #[must_use]
    pub fn read_grant_in_memory(
        &self,
        view: View,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        now: Timestamp,
    ) -> Option<(Plan, Grant)> {
        let head = self.catalog.head_in_memory(view, ecosystem, name)?;
        if head.is_none() && view != View::Root {
            return None;
        }
        let merges = self.identity.reservations_in_memory(now)?.find(ecosystem, name).map(|reservation| reservation.merge);
        let plan = self.plan(head, merges, ecosystem, name, false);
        let grant = self.decide(&plan, ecosystem, caller, name, Action::Read).ok()?;
        Some((plan, grant))
    }

    /// Whether a name that an owner's view does not have was hosted in it once, or is in the root view.
    async fn is_known(&self, view: View, ecosystem: &'static str, name: &PackageName) -> Result<bool> {
        Ok(self.catalog.head(ecosystem, name).await?.is_some() || self.catalog.moved_away(view, ecosystem, name).await?)
    }

    /// Takes as long, and fails in the same way, as looking for a name that no upstream has.
    async fn pretend_absent(&self, ecosystem: &str, name: &PackageName) -> Result<()> {
        for upstream in self.upstreams(ecosystem).iter().filter(|upstream| upstream.serves(name)) {
            self.fetcher.pretend_absent(upstream, name).await?;
        }
        Ok(())
    }

    /// The view of an owner's packages; `None` for a login that no account has.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn view_of(&self, owner: &OwnerName) -> Result<Option<View>> {
        Ok(self.identity.id_of(owner).await?.map(View::Owner))
    }

    /// As [`Registry::grant`], for a request that only a hosted package can answer.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the name is not hosted; otherwise as [`Registry::grant`].
    pub async fn grant_hosted(
        &self,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        action: Action,
    ) -> Result<(Arc<Head>, Grant)> {
        let (plan, grant) = self.grant(ecosystem, caller, name, action).await?;
        match plan.head() {
            Some(head) => Ok((Arc::clone(head), grant)),
            None if action == Action::Read => Err(Error::not_found(Subject::Package)),
            None => Err(Error::new(Kind::Forbidden, Subject::Package).saying("the package is an upstream's and cannot be changed here")),
        }
    }
}

/// The entity tag of a representation that is at hand.
#[must_use]
pub fn tag_of(bytes: &[u8]) -> HeaderValue {
    entity_tag(&Digest::sha256(bytes), None)
}
