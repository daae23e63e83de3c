//! Any index document: gather its sources, merge, filter, render, compress, remember.
//!
//! A rendered document is remembered under a key that contains everything it was
//! made from: the head's generation, the digest of the upstream's body, the base
//! address, the form and the coding. So a change needs no invalidation: it makes
//! another key. Rendering is done once per key however many callers wait for it,
//! off the reactor, and only a few large ones at a time, because a packument can
//! have tens of megabytes.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Parsed, Plan, Registry};
use crate::access::Grant;
use crate::catalog::Head;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{Ask, BaseParts, BaseUrl, Document, Guide, Hosted};
use crate::http::HeaderValue;
use crate::http::conditional::entity_tag;
use crate::http::negotiate::Coding;
use crate::name::{PackageKey, PackageName};
use crate::package::{Package, Version};
use crate::upstream::{BodyRef, Check, Fetched, Need, Upstream, Verdict};

/// Documents above this size wait for one of a few places to be read or rendered.
const LARGE_BYTES: u64 = 1 << 20;

/// Which document: of which package, from which sources, and which part of it.
#[derive(Clone)]
pub struct Topic<'a, D: Document> {
    /// The right to read the package.
    pub grant: &'a Grant,
    /// Its sources.
    pub plan: &'a Plan,
    /// Which of its documents.
    pub part: &'a D::Part,
}

impl<D: Document> Copy for Topic<'_, D> {}

impl<'a, D: Document<Part = ()>> Topic<'a, D> {
    /// The one document of a package.
    #[must_use]
    pub fn whole(grant: &'a Grant, plan: &'a Plan) -> Self {
        Self { grant, plan, part: &() }
    }
}

/// A document ready to be sent.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Its bytes, in the coding asked for.
    pub bytes: Bytes,
    /// Its entity tag, which differs by form, coding and base address.
    pub etag: HeaderValue,
    /// The coding the bytes are in: identity when compressing gains nothing.
    pub coding: Coding,
    /// How it was come by.
    pub verdict: Verdict,
}

/// A rendered document as it is remembered.
#[derive(Debug)]
pub struct Kept {
    bytes: Bytes,
    etag: HeaderValue,
    coding: Coding,
}

impl Kept {
    /// In a coding, if that is smaller.
    fn of(bytes: Bytes, coding: Coding) -> Self {
        let digest = Digest::sha256(&bytes);
        match compressed(&bytes, coding) {
            Some(packed) => Self { bytes: packed, etag: entity_tag(&digest, coding.name()), coding },
            None => Self { bytes, etag: entity_tag(&digest, None), coding: Coding::Identity },
        }
    }

    fn rendered(&self, verdict: Verdict) -> Rendered {
        Rendered { bytes: self.bytes.clone(), etag: self.etag.clone(), coding: self.coding, verdict }
    }
}

/// Documents that were rendered a while ago. A look takes 50 ns, where one of moka takes 100 to 600.
pub(super) type RenderedCache = quick_cache::sync::Cache<PackageKey, Arc<Kept>, KeptWeight>;

/// What a rendered document costs.
#[derive(Clone)]
pub(super) struct KeptWeight;

impl quick_cache::Weighter<PackageKey, Arc<Kept>> for KeptWeight {
    fn weight(&self, _: &PackageKey, kept: &Arc<Kept>) -> u64 {
        // An entry costs about this much besides its bytes.
        kept.bytes.len() as u64 + 300
    }
}

/// Room for so many bytes of rendered documents.
pub(super) fn rendered_cache(bytes: u64) -> RenderedCache {
    // A guess at how many there will be; only the weight is a limit. A document must fit into one part of the cache, so that
    // there are few, however many cores there are.
    let expected = usize::try_from(bytes / (32 << 10)).unwrap_or(usize::MAX).max(1);
    let options = quick_cache::OptionsBuilder::new().estimated_items_capacity(expected).weight_capacity(bytes).shards(4).build();
    match options {
        Ok(options) => {
            let (hasher, lifecycle) = (quick_cache::DefaultHashBuilder::default(), quick_cache::sync::DefaultLifecycle::default());
            quick_cache::sync::Cache::with_options(options, KeptWeight, hasher, lifecycle)
        }
        Err(_) => quick_cache::sync::Cache::with_weighter(expected, bytes, KeptWeight),
    }
}

/// A small document that is made for one request, as if it had been remembered.
#[must_use]
pub fn packed(bytes: Bytes, coding: Coding, verdict: Verdict) -> Rendered {
    let Kept { bytes, etag, coding } = Kept::of(bytes, coding);
    Rendered { bytes, etag, coding, verdict }
}

/// The parts a document is made of, before any is read.
struct Sources {
    hosted: Option<Arc<Head>>,
    upstream: Option<Found>,
    verdict: Verdict,
}

/// What an upstream has.
struct Found {
    upstream: Arc<Upstream>,
    ask: Ask,
    body: BodyRef,
}

impl Registry {
    /// A package's document, rendered.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when no source has the package or no version of it is left;
    /// `BadUpstream` or `Unavailable` when an upstream fails and nothing usable is kept.
    pub async fn document<D: Document>(&self, topic: Topic<'_, D>, form: D::Form, at: &BaseUrl, coding: Coding) -> Result<Rendered> {
        // A body can be evicted between the look and the read: then everything is done once more.
        match self.render_from::<D>(topic, form, at, coding).await {
            Err(error) if error.subject() == Subject::Blob => self.render_from::<D>(topic, form, at, coding).await,
            result => result,
        }
    }

    /// A package's document as a value, for requests that need a part of it.
    ///
    /// # Errors
    /// As [`Registry::document`].
    pub async fn parsed<D: Document>(&self, topic: Topic<'_, D>, need: Need) -> Result<(Arc<D>, Verdict)> {
        let sources = self.gather::<D>(topic, need).await?;
        let verdict = sources.verdict;
        Ok((self.merged::<D>(topic, &sources).await?, verdict))
    }

    /// The plan without the upstreams that do not keep the name, for formats whose documents lead from one to the next: what
    /// one upstream says is not for another.
    ///
    /// # Errors
    /// As [`Registry::document`].
    pub async fn keeper<D: Document>(&self, grant: &Grant, plan: &Plan) -> Result<Plan> {
        if plan.upstreams().len() < 2 {
            return Ok(plan.clone());
        }
        let part = D::Part::default();
        let found = self.upstream_document::<D>(Topic { grant, plan, part: &part }, plan.upstreams(), Need::Usual).await?;
        Ok(plan.only(found.map(|(found, _)| found.upstream)))
    }

    /// What an upstream says of where it keeps what.
    ///
    /// # Errors
    /// An upstream's failures, also when it has no such document.
    pub async fn guide<G: Guide>(&self, upstream: &Arc<Upstream>) -> Result<G> {
        let Some(ask) = G::ask() else { return Ok(G::default()) };
        let check: Check = Arc::new(|bytes: &Bytes| G::parse(bytes).map(drop));
        let fetched = self.fetcher.document(upstream, &ask, Need::Usual, &check).await?;
        let absent = || Error::new(Kind::BadUpstream, Subject::Upstream).saying("the upstream does not say where it keeps what");
        let body = fetched.entry.body.ok_or_else(absent)?;
        let key = PackageKey::new("guide", upstream.identity()).with((TypeId::of::<G>(), body.digest));
        let read = async {
            let bytes = self.fetcher.body(&body).await.inspect_err(|_| self.fetcher.forget(upstream, &ask))?;
            Ok(Parsed { document: Arc::new(G::parse(&bytes)?), weight: weight(body.size) })
        };
        let parsed = self.parsed.try_get_with(key, read).await.map_err(|error: Arc<Error>| error.repeat())?;
        let guide = parsed.document.downcast_ref::<G>().cloned();
        guide.ok_or_else(|| Error::internal(Subject::Upstream, "a guide of another format under this key"))
    }

    /// The upstream that has the name, and its document.
    pub(super) async fn upstream_index<D: Document>(&self, grant: &Grant, plan: &Plan, need: Need) -> Result<(Arc<Upstream>, Arc<D>)> {
        match self.upstream_index_once::<D>(grant, plan, need).await {
            // As for a whole document: a body that is gone is fetched again.
            Err(error) if error.subject() == Subject::Blob => self.upstream_index_once::<D>(grant, plan, need).await,
            result => result,
        }
    }

    async fn upstream_index_once<D: Document>(&self, grant: &Grant, plan: &Plan, need: Need) -> Result<(Arc<Upstream>, Arc<D>)> {
        let part = D::Part::default();
        let topic = Topic { grant, plan, part: &part };
        let sources = self.gather::<D>(topic, need).await?;
        let found = sources.upstream.ok_or_else(|| Error::not_found(Subject::Package))?;
        let document = self.read_upstream::<D>(topic, &found).await?;
        Ok((found.upstream, document))
    }

    async fn render_from<D: Document>(&self, topic: Topic<'_, D>, form: D::Form, at: &BaseUrl, coding: Coding) -> Result<Rendered> {
        let sources = self.gather::<D>(topic, Need::Usual).await?;
        let key = rendered_key(topic, &sources, form, at.parts(), coding);
        let kept = if let Some(kept) = self.rendered.get(&key) {
            kept
        } else {
            let render = async { self.render::<D>(topic, &sources, form, at, coding).await.map(Arc::new) };
            // Boxed, so that the future of a hit is small.
            Box::pin(self.rendered.get_or_insert_async(&key, render)).await?
        };
        Ok(kept.rendered(sources.verdict))
    }

    /// As [`Registry::document`], if it was rendered and nothing needs to be asked whether it is still the same.
    #[must_use]
    pub fn document_in_memory<D: Document>(
        &self,
        topic: Topic<'_, D>,
        form: D::Form,
        at: BaseParts<'_>,
        coding: Coding,
    ) -> Option<Rendered> {
        let sources = self.sources_in_memory::<D>(topic)?;
        let kept = self.rendered.get(&rendered_key(topic, &sources, form, at, coding))?;
        Some(kept.rendered(sources.verdict))
    }

    /// As `gather`, where memory knows it: with more than one upstream it takes more to find the one that keeps the name.
    fn sources_in_memory<D: Document>(&self, topic: Topic<'_, D>) -> Option<Sources> {
        let hosted = topic.plan.head().cloned();
        let upstream = match topic.plan.upstreams() {
            [] => return hosted.is_some().then_some(Sources { hosted, upstream: None, verdict: Verdict::Hosted }),
            [upstream] if D::Guide::ask().is_none() => upstream,
            _ => return None,
        };
        let ask = D::ask(topic.grant.name(), topic.part, &D::Guide::default());
        let body = self.fetcher.fresh_in_memory(upstream, &ask.path)?.body?;
        Some(Sources { hosted, upstream: Some(Found { upstream: Arc::clone(upstream), ask, body }), verdict: Verdict::Hit })
    }

    /// Finds out which sources there are, asking upstreams as their lifetimes say.
    async fn gather<D: Document>(&self, topic: Topic<'_, D>, need: Need) -> Result<Sources> {
        let hosted = topic.plan.head().cloned();
        let (upstream, verdict) = match topic.plan.upstreams() {
            [] => (None, Verdict::Hosted),
            upstreams => match self.upstream_document::<D>(topic, upstreams, need).await {
                Ok(Some((found, verdict))) => (Some(found), verdict),
                Ok(None) => (None, Verdict::Miss),
                // What is hosted is served whatever the upstream does.
                Err(error) if hosted.is_some() => {
                    tracing::warn!(package = %topic.grant.name(), error = ?error, "upstream failed, serving the hosted versions alone");
                    (None, Verdict::StaleError)
                }
                Err(error) => return Err(error),
            },
        };
        if hosted.is_none() && upstream.is_none() {
            return Err(Error::not_found(Subject::Package));
        }
        Ok(Sources { hosted, upstream, verdict })
    }

    /// The document of the first upstream that has the name. One that is known to
    /// have it is asked first and keeps the name until it says 404 or 410. A failure
    /// is an error and not an absence: otherwise a later upstream would answer for an earlier one.
    async fn upstream_document<D: Document>(
        &self,
        topic: Topic<'_, D>,
        upstreams: &[Arc<Upstream>],
        need: Need,
    ) -> Result<Option<(Found, Verdict)>> {
        let (name, part) = (topic.grant.name(), topic.part);
        let mut order: Vec<&Arc<Upstream>> = upstreams.iter().collect();
        if order.len() > 1 {
            for index in 0..order.len() {
                // An upstream that cannot even say where it keeps what keeps nothing that is known here.
                let Ok(guide) = self.guide(order[index]).await else { continue };
                if self.fetcher.holds(order[index], &D::ask(name, part, &guide)).await? {
                    let keeper = order.remove(index);
                    order.insert(0, keeper);
                    break;
                }
            }
        }
        for upstream in order {
            let ask = D::ask(name, part, &self.guide(upstream).await?);
            let slot = Arc::new(Mutex::new(None));
            let fetched = self.fetcher.document(upstream, &ask, need, &check::<D>(name, part, &slot)).await?;
            let Fetched { entry, verdict } = fetched;
            if let Some(body) = entry.body {
                let parsed = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(document) = parsed {
                    self.parsed.insert(parsed_key::<D>(name, part, &body.digest), remembered::<D>(document, body.size)).await;
                }
                return Ok(Some((Found { upstream: Arc::clone(upstream), ask, body }, verdict)));
            }
        }
        Ok(None)
    }

    async fn render<D: Document>(
        &self,
        topic: Topic<'_, D>,
        sources: &Sources,
        form: D::Form,
        at: &BaseUrl,
        coding: Coding,
    ) -> Result<Kept> {
        let document = self.merged::<D>(topic, sources).await?;
        if document.is_empty() {
            return Err(Error::not_found(Subject::Package));
        }
        let size = sources.upstream.as_ref().map_or(0, |found| found.body.size);
        let place = self.place(size).await;
        let at = at.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            Kept::of(document.render(&at, form), coding)
        });
        work.await.map_err(|error| Error::internal(Subject::Package, error))
    }

    /// The sources as one document.
    async fn merged<D: Document>(&self, topic: Topic<'_, D>, sources: &Sources) -> Result<Arc<D>> {
        match (&sources.hosted, &sources.upstream) {
            (Some(head), None) => self.hosted_value::<D>(topic, head).await,
            (None, Some(found)) => self.read_upstream::<D>(topic, found).await,
            (Some(head), Some(found)) => {
                let lower = self.read_upstream::<D>(topic, found).await?;
                Ok(Arc::new(self.hosted::<D>(topic, head).await?.over((*lower).clone())))
            }
            (None, None) => Err(Error::not_found(Subject::Package)),
        }
    }

    /// What is hosted alone, remembered for as long as the package does not change.
    async fn hosted_value<D: Document>(&self, topic: Topic<'_, D>, head: &Head) -> Result<Arc<D>> {
        let Package { id, generation, .. } = head.package;
        // Whoever administers it has a name of its own that may change.
        let state = (id, generation, self.identity.generation());
        let key = PackageKey::new("hosted", topic.grant.name().as_str()).with((TypeId::of::<D>(), topic.part, state));
        let read = async {
            let versions = self.catalog.versions(topic.grant, head).await?;
            let size: usize = versions.iter().map(|version| version.manifest.get().len() + 200 * version.files.len()).sum();
            let document = self.hosted_of::<D>(topic, head, &versions).await?;
            Ok(remembered::<D>(Arc::new(document), size as u64))
        };
        let parsed = self.parsed.try_get_with(key, read).await.map_err(|error: Arc<Error>| error.repeat())?;
        parsed.document.downcast::<D>().map_err(|_| Error::internal(Subject::Package, "a document of another format under this key"))
    }

    pub(super) async fn hosted<D: Document>(&self, topic: Topic<'_, D>, head: &Head) -> Result<D> {
        let versions = self.catalog.versions(topic.grant, head).await?;
        self.hosted_of::<D>(topic, head, &versions).await
    }

    async fn hosted_of<D: Document>(&self, topic: Topic<'_, D>, head: &Head, versions: &[Version]) -> Result<D> {
        let maintainers = self.catalog.maintainers(head).await?;
        D::hosted(Hosted { package: &head.package, versions, maintainers: &maintainers }, topic.part)
    }

    async fn read_upstream<D: Document>(&self, topic: Topic<'_, D>, found: &Found) -> Result<Arc<D>> {
        let (name, part) = (topic.grant.name(), topic.part);
        let Found { upstream, ask, body } = found;
        let key = parsed_key::<D>(name, part, &body.digest);
        let read = async {
            let place = self.place(body.size).await;
            let bytes = self.fetcher.body(body).await.inspect_err(|_| self.fetcher.forget(upstream, ask))?;
            let (name, part) = (name.clone(), part.clone());
            let work = tokio::task::spawn_blocking(move || {
                let _place = place;
                D::parse(&name, &part, bytes)
            });
            let document = work.await.map_err(|error| Error::internal(Subject::Package, error))??;
            Ok(remembered::<D>(Arc::new(document), body.size))
        };
        let parsed = self.parsed.try_get_with(key, read).await.map_err(|error: Arc<Error>| error.repeat())?;
        parsed.document.downcast::<D>().map_err(|_| Error::internal(Subject::Package, "a document of another format under this key"))
    }

    /// Waits for a place if the work is large.
    async fn place(&self, size: u64) -> Option<tokio::sync::OwnedSemaphorePermit> {
        if size < LARGE_BYTES {
            return None;
        }
        // The semaphore is never closed; without a place the work would only be unbounded, not wrong.
        Arc::clone(&self.large_documents).acquire_owned().await.ok()
    }
}

/// A check that reads the document and leaves it in the slot, so that it is not read twice.
fn check<D: Document>(name: &PackageName, part: &D::Part, slot: &Arc<Mutex<Option<Arc<D>>>>) -> Check {
    let (name, part, slot) = (name.clone(), part.clone(), Arc::clone(slot));
    Arc::new(move |bytes: &Bytes| {
        let document = D::parse(&name, &part, bytes.clone())?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(document));
        Ok(())
    })
}

fn remembered<D: Document>(document: Arc<D>, size: u64) -> Parsed {
    let document: Arc<dyn Any + Send + Sync> = document;
    Parsed { document, weight: weight(size) }
}

/// What a document of so many bytes costs in memory.
fn weight(size: u64) -> u32 {
    u32::try_from(size.saturating_mul(5) / 4 + 512).unwrap_or(u32::MAX)
}

fn rendered_key<D: Document>(topic: Topic<'_, D>, sources: &Sources, form: D::Form, at: BaseParts<'_>, coding: Coding) -> PackageKey {
    let generation = sources.hosted.as_ref().map(|head| (head.package.id, head.package.generation));
    let body = sources.upstream.as_ref().map(|found| (found.upstream.identity(), found.body.digest));
    let kind = (TypeId::of::<D>(), topic.part, form);
    PackageKey::of(&(topic.grant.ecosystem(), topic.grant.name(), kind, generation, body, at, coding))
}

fn parsed_key<D: Document>(name: &PackageName, part: &D::Part, digest: &Digest) -> PackageKey {
    PackageKey::new("parsed", name.as_str()).with((TypeId::of::<D>(), part, digest))
}

/// The bytes in a coding, if that is smaller.
fn compressed(bytes: &Bytes, coding: Coding) -> Option<Bytes> {
    if coding == Coding::Identity || bytes.len() < 200 {
        return None;
    }
    let level = libdeflater::CompressionLvl::new(6).unwrap_or_default();
    let mut compressor = libdeflater::Compressor::new(level);
    let mut packed = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut packed).ok()?;
    if length >= bytes.len() {
        return None;
    }
    packed.truncate(length);
    packed.shrink_to_fit();
    Some(packed.into())
}
