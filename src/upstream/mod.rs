//! Upstream registries: documents and files fetched once, verified, kept, served again.
//!
//! Nothing here knows an ecosystem. A document is asked for with an
//! [`Ask`] and a check that
//! refuses what is not such a document; a file is asked for with the digests that
//! an index promised. What is kept is described in `cache.redb` by [`Entry`] and
//! [`KeptFile`] records; the bytes are cached blobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::blob::{Blobs, Purpose};
use crate::clock::{Clock, Timestamp};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Ask;
use crate::http::conditional;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use crate::name::{PackageKey, PackageName};
use crate::observe::Tries;
use crate::store::table::{Key, Table};
use crate::store::{Batch, Store};

pub mod artifact;
pub mod breaker;
pub mod client;
pub mod config;
pub mod flight;
pub mod freshness;
pub mod guard;
mod token;
pub mod verdict;

pub use artifact::{Filling, KeptFile};
pub use client::Upstream;
pub use config::{Config, UpstreamConfig};
pub use verdict::Verdict;

use client::Answer;
use flight::{Flights, Landed};
use freshness::Judgement;

/// What is known of a document, or of its absence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The body, or `None` when the upstream said there is none.
    pub body: Option<BodyRef>,
    /// The upstream's entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The upstream's modification date, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// Its media type, without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The upstream's `Link` header: where a list goes on (RFC 8288).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When the upstream last confirmed it.
    pub checked_at: Timestamp,
}

/// A body among the cached blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRef {
    /// Its blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A document and how it was come by.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What is known.
    pub entry: Arc<Entry>,
    /// How it was come by.
    pub verdict: Verdict,
}

/// How new a document must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// As the lifetimes say.
    Usual,
    /// Any that ever was fetched: it never changes.
    Any,
    /// Confirmed by the upstream now, because the caller misses something in the one it
    /// has; unless that was done a moment ago.
    Newest,
}

/// How an upstream is asked for a document, where a plain question does not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// What a token for it is for, in the words of the token protocol.
    pub scope: Option<Arc<str>>,
    /// The header in which an answer names the digest of its body. Then a HEAD tells whether what is known is the newest,
    /// which some upstreams count for less than a GET.
    pub names_digest: Option<HeaderName>,
}

/// Refuses bytes that are not the document that was asked for.
pub type Check = Arc<dyn Fn(&Bytes) -> Result<()> + Send + Sync>;

type Shared<T> = std::result::Result<T, Arc<Error>>;

/// Where the flight of a document announces what became of it.
type Announced = flight::Announce<Shared<(Arc<Entry>, Verdict)>>;

/// Fetches from upstreams and remembers. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    config: Config,
    store: Arc<dyn Store>,
    blobs: Blobs,
    clock: Clock,
    entries: quick_cache::sync::Cache<PackageKey, Arc<Entry>>,
    documents: Flights<PackageKey, Shared<(Arc<Entry>, Verdict)>>,
    /// Documents that were asked for anew a moment ago because a caller missed something in them.
    forced: moka::sync::Cache<PackageKey, ()>,
    /// Bodies for which the disk had no room, for those who want them a moment later.
    unkept: moka::sync::Cache<Digest, Bytes>,
    /// What upstreams are asked for instead of a hidden name.
    decoy: String,
    files: quick_cache::sync::Cache<PackageKey, Arc<KeptFile>>,
    /// Files that an upstream said a moment ago it does not have.
    missing: moka::sync::Cache<PackageKey, ()>,
    fills: Flights<PackageKey, Shared<Filling>>,
    /// Files that have come whole and are being kept.
    closing: AtomicUsize,
}

/// The longest that a stop waits for files that are being kept.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory for documents that the disk has no room for.
const UNKEPT_BYTES: u64 = 64 << 20;

/// Begins the keys of names that are hidden. No address has a space in it, so none of theirs does.
const HIDDEN: &str = "hidden ";

const ENTRIES: Table<Entry> = Table::new("upstream_documents");

impl Fetcher {
    /// A fetcher that keeps its records in `store` (the cache, not the truth) and bodies in `blobs`.
    #[must_use]
    pub fn new(config: Config, store: Arc<dyn Store>, blobs: Blobs, clock: Clock) -> Self {
        let brief = Duration::from_secs(config.negative_seconds.max(1));
        Self(Arc::new(Inner {
            forced: moka::sync::Cache::builder().max_capacity(100_000).time_to_live(brief).build(),
            unkept: moka::sync::Cache::builder()
                .max_capacity(UNKEPT_BYTES)
                .weigher(|_, bytes: &Bytes| u32::try_from(bytes.len() + 200).unwrap_or(u32::MAX))
                .time_to_live(Duration::from_secs(60))
                .build(),
            decoy: format!("packhouse-{:016x}", rand::rng().random::<u64>()),
            config,
            store,
            blobs,
            clock,
            entries: quick_cache::sync::Cache::new(100_000),
            documents: Flights::default(),
            files: quick_cache::sync::Cache::new(200_000),
            missing: moka::sync::Cache::builder().max_capacity(100_000).time_to_live(brief).build(),
            fills: Flights::default(),
            closing: AtomicUsize::new(0),
        }))
    }

    /// Waits until what has come whole is kept, for a stop that would have it fetched again otherwise. Not for long, and not
    /// for what is still on its way.
    pub async fn settle(&self) {
        let end = tokio::time::Instant::now() + SETTLE;
        while self.0.closing.load(Ordering::SeqCst) > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A disk that takes longer has them fetched again.
        let _ = tokio::time::timeout_at(end, self.0.blobs.settle()).await;
    }

    /// Whether no upstream is asked for anything, by configuration.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.0.config.offline
    }

    /// A document, from the cache or the upstream.
    ///
    /// # Errors
    /// [`Kind::BadUpstream`] or [`Kind::Unavailable`] when the upstream fails and nothing usable is kept.
    pub async fn document(&self, upstream: &Arc<Upstream>, ask: &Ask, need: Need, check: &Check) -> Result<Fetched> {
        self.document_by(upstream, ask, need, check, &Manner::default()).await
    }

    /// As [`Fetcher::document`], asking in a manner.
    ///
    /// # Errors
    /// As [`Fetcher::document`].
    pub async fn document_by(&self, upstream: &Arc<Upstream>, ask: &Ask, need: Need, check: &Check, manner: &Manner) -> Result<Fetched> {
        let key = document_key(upstream, &ask.path);
        let known = self.known(key, upstream, &ask.path).await?;
        let now = self.0.clock.now();
        if let Some(entry) = &known {
            if need == Need::Any && entry.body.is_some() {
                return Ok(Fetched { entry: Arc::clone(entry), verdict: Verdict::Hit });
            }
            let mut judgement = freshness::judge(entry.body.is_some(), entry.checked_at, now, upstream.lifetimes());
            if self.0.config.offline {
                let verdict = if judgement == Judgement::Fresh { Verdict::Hit } else { Verdict::StaleOffline };
                return Ok(Fetched { entry: Arc::clone(entry), verdict });
            }
            if need == Need::Newest && self.0.forced.get(&key).is_none() {
                self.0.forced.insert(key, ());
                judgement = Judgement::Expired;
            }
            match judgement {
                Judgement::Fresh => return Ok(Fetched { entry: Arc::clone(entry), verdict: Verdict::Hit }),
                Judgement::Usable => {
                    self.0.documents.depart(key, self.refresh(key, upstream, ask, check, manner, known.clone()));
                    return Ok(Fetched { entry: Arc::clone(entry), verdict: Verdict::StaleUpdating });
                }
                Judgement::Expired => {}
            }
        } else if self.0.config.offline {
            return Err(offline());
        }
        let landed = Box::pin(self.0.documents.join(key, self.refresh(key, upstream, ask, check, manner, known.clone()))).await;
        let error = match landed {
            Landed::Led(Ok((entry, verdict))) => return Ok(Fetched { entry, verdict }),
            Landed::Joined(Ok((entry, _))) => return Ok(Fetched { entry, verdict: Verdict::Joined }),
            Landed::Led(Err(error)) | Landed::Joined(Err(error)) => error.repeat(),
            Landed::Lost => Error::new(Kind::Unavailable, Subject::Upstream),
        };
        match known {
            Some(entry) if freshness::serves_after_failure(entry.body.is_some(), entry.checked_at, now, upstream.lifetimes()) => {
                tracing::warn!(upstream = upstream.name(), path = ask.path, error = ?error, "upstream failed, serving the kept document");
                Ok(Fetched { entry, verdict: Verdict::StaleError })
            }
            _ => Err(error),
        }
    }

    /// What memory knows of a document, if that is fresh: what [`Fetcher::document`] would give without asking anyone.
    #[must_use]
    pub fn fresh_in_memory(&self, upstream: &Upstream, path: &str) -> Option<Arc<Entry>> {
        let entry = self.0.entries.get(&document_key(upstream, path))?;
        let judgement = freshness::judge(entry.body.is_some(), entry.checked_at, self.0.clock.now(), upstream.lifetimes());
        (judgement == Judgement::Fresh).then_some(entry)
    }

    /// Whether an upstream is known to have a document, without asking it.
    ///
    /// # Errors
    /// When the cache's store fails.
    pub async fn holds(&self, upstream: &Upstream, ask: &Ask) -> Result<bool> {
        let known = self.known(document_key(upstream, &ask.path), upstream, &ask.path).await?;
        Ok(known.is_some_and(|entry| entry.body.is_some()))
    }

    /// Does for a hidden name what is done for one that the upstream does not have, with the same
    /// waits, the same memory of it and the same failures. The upstream is asked for another name,
    /// which nobody has: the hidden one is never sent out. So who may not know of a hosted package
    /// cannot tell it from one that nobody has, also while the upstream is slow, down or not asked.
    ///
    /// # Errors
    /// What asking would have ended in, but for the absence itself.
    pub async fn pretend_absent(&self, upstream: &Arc<Upstream>, name: &PackageName) -> Result<()> {
        let ask = Ask { path: format!("{HIDDEN}{name}"), accept: "*/*", grows: false };
        let check: Check = Arc::new(|_| Err(Error::new(Kind::BadUpstream, Subject::Upstream)));
        self.document(upstream, &ask, Need::Usual, &check).await.map(drop)
    }

    /// Remembers a document under another path of its upstream too: there it is the same.
    ///
    /// # Errors
    /// When the cache's store fails.
    pub async fn remember_at(&self, upstream: &Upstream, path: &str, entry: &Arc<Entry>) -> Result<()> {
        let key = document_key(upstream, path);
        let known = self.known(key, upstream, path).await?;
        if known.is_some_and(|known| known.body == entry.body) {
            return Ok(());
        }
        let mut batch = Batch::new();
        ENTRIES.put(&mut batch, entry_key(upstream, path), entry)?;
        self.0.store.commit(batch).await?;
        self.0.entries.insert(key, Arc::clone(entry));
        Ok(())
    }

    /// The bytes of a document's body.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when they were evicted meanwhile.
    pub async fn body(&self, body: &BodyRef) -> Result<Bytes> {
        match self.0.blobs.read(&body.digest).await? {
            Some(blob) => blob.bytes(body.size).await,
            None => self.0.unkept.get(&body.digest).ok_or_else(|| Error::not_found(Subject::Blob)),
        }
    }

    /// What is known of a document without asking anyone; `None` also when its body was evicted.
    async fn known(&self, key: PackageKey, upstream: &Upstream, path: &str) -> Result<Option<Arc<Entry>>> {
        if let Some(entry) = self.0.entries.get(&key) {
            return Ok(Some(entry));
        }
        let Some(stored) = Box::pin(ENTRIES.get(&*self.0.store, entry_key(upstream, path))).await? else { return Ok(None) };
        if let Some(body) = &stored.value.body
            && !self.0.blobs.contains(&body.digest).await?
        {
            return Ok(None);
        }
        let entry = Arc::new(stored.value);
        self.0.entries.insert(key, Arc::clone(&entry));
        Ok(Some(entry))
    }

    /// The store of the cache, for what can be made anew.
    #[must_use]
    pub fn cache(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Forgets what memory holds of a document whose body turned out to be gone.
    pub fn forget(&self, upstream: &Upstream, ask: &Ask) {
        self.0.entries.remove(&document_key(upstream, &ask.path));
    }

    /// The work of asking the upstream, as a flight's start.
    fn refresh(
        &self,
        key: PackageKey,
        upstream: &Arc<Upstream>,
        ask: &Ask,
        check: &Check,
        manner: &Manner,
        known: Option<Arc<Entry>>,
    ) -> impl FnOnce(Announced) -> futures_util::future::BoxFuture<'static, ()> + use<> {
        let (fetcher, upstream, ask, check, manner) = (self.clone(), Arc::clone(upstream), ask.clone(), Arc::clone(check), manner.clone());
        let tries = Tries::current();
        move |announce| {
            Box::pin(tries.counting(async move {
                // Somebody may have asked between this caller's look and the start of its flight.
                let newer =
                    fetcher.0.entries.get(&key).filter(|entry| known.as_ref().is_none_or(|known| known.checked_at < entry.checked_at));
                if let Some(entry) = newer {
                    return announce.result(Ok((entry, Verdict::Hit)));
                }
                let result = fetcher.ask(key, &upstream, &ask, (&check, &manner), known).await;
                announce.result(result.map_err(Arc::new));
            }))
        }
    }

    async fn ask(
        &self,
        key: PackageKey,
        upstream: &Upstream,
        ask: &Ask,
        (check, manner): (&Check, &Manner),
        known: Option<Arc<Entry>>,
    ) -> Result<(Arc<Entry>, Verdict)> {
        let known = known.filter(|entry| entry.body.is_some());
        let headers = conditional_headers(ask, known.as_deref());
        let path = if ask.path.starts_with(HIDDEN) { &self.0.decoy } else { &ask.path };
        let address = upstream.address(path)?;
        let grown = if ask.grows { self.grown(upstream, &address, &headers, known.as_deref()).await? } else { None };
        let answer = match grown {
            Some(grown) => grown,
            None => Grown::Answer(newest(upstream, &address, headers, manner, known.as_deref()).await?),
        };
        let now = self.0.clock.now();
        let (entry, verdict) = match answer {
            Grown::Whole(answered, bytes) => self.keep_document(upstream, check, &answered, bytes, now).await?,
            Grown::Answer(Answer::OutOfRange | Answer::Refused) => return Err(Error::new(Kind::BadUpstream, Subject::Upstream)),
            Grown::Answer(Answer::Absent) => {
                (Entry { body: None, etag: None, last_modified: None, media_type: None, link: None, checked_at: now }, Verdict::Miss)
            }
            Grown::Answer(Answer::NotModified) => {
                // The client only reports this for a conditional request, so something is known.
                let known = known.ok_or_else(|| Error::new(Kind::BadUpstream, Subject::Upstream))?;
                (Entry { checked_at: now, ..(*known).clone() }, Verdict::Revalidated)
            }
            Grown::Answer(Answer::Body(response)) => {
                let answered = response.headers().clone();
                let bytes = upstream.read(response, self.0.config.document_limit_bytes).await.inspect_err(|_| upstream.count_failure())?;
                expect_named(&answered, manner, &bytes)?;
                self.keep_document(upstream, check, &answered, bytes, now).await?
            }
        };
        self.remember_document(key, upstream, ask, (entry, verdict)).await
    }

    /// What an upstream's file has grown by, put to what is known of it; `None` when that does not work out and
    /// the whole must be asked for. Only a digest of the whole proves that both parts are of one file (RFC 9530).
    async fn grown(&self, upstream: &Upstream, address: &url::Url, headers: &HeaderMap, known: Option<&Entry>) -> Result<Option<Grown>> {
        let Some(body) = known.and_then(|known| known.body.as_ref()).filter(|body| body.size > 0) else { return Ok(None) };
        let Ok(old) = self.body(body).await else { return Ok(None) };
        let mut headers = headers.clone();
        // One byte of what is known comes again: a range that begins at the end would be refused.
        let range =
            HeaderValue::try_from(format!("bytes={}-", body.size - 1)).map_err(|error| Error::internal(Subject::Upstream, error))?;
        headers.insert(header::RANGE, range);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = match upstream.get(address, headers).await? {
            Answer::Body(response) => response,
            Answer::OutOfRange => return Ok(None),
            other => return Ok(Some(Grown::Answer(other))),
        };
        if response.status() != crate::http::StatusCode::PARTIAL_CONTENT {
            return Ok(Some(Grown::Answer(Answer::Body(response))));
        }
        let answered = response.headers().clone();
        let part = upstream.read(response, self.0.config.document_limit_bytes).await?;
        let Some((_, tail)) = part.split_first().filter(|(first, _)| old.last() == Some(*first)) else { return Ok(None) };
        let whole: Bytes = [&old[..], tail].concat().into();
        let proven = conditional::digest(&answered).is_some_and(|promised| promised == Digest::sha256(&whole));
        Ok(proven.then_some(Grown::Whole(answered, whole)))
    }

    /// Checks a document and puts its bytes among the cached blobs.
    async fn keep_document(
        &self,
        upstream: &Upstream,
        check: &Check,
        answered: &HeaderMap,
        bytes: Bytes,
        now: Timestamp,
    ) -> Result<(Entry, Verdict)> {
        let text = |name| answered.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (etag, last_modified, link) = (text(header::ETAG), text(header::LAST_MODIFIED), text(header::LINK));
        let media_type = text(header::CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let (checked, check) = (bytes.clone(), Arc::clone(check));
        // Reading tens of megabytes of JSON would hold up the reactor.
        tokio::task::spawn_blocking(move || check(&checked)).await.map_err(|error| Error::internal(Subject::Upstream, error))?.map_err(
            |error| Error::new(Kind::BadUpstream, error.subject()).saying("the upstream's document cannot be read").because(error),
        )?;
        let size = bytes.len() as u64;
        let (digest, verdict) = match self.0.blobs.put(Purpose::Cached, bytes.clone()).await {
            Ok(lease) => (*lease.digest(), Verdict::Miss),
            // A full disk keeps nothing, and is no reason to refuse what is at hand.
            Err(error) => {
                tracing::warn!(upstream = upstream.name(), error = ?error, "a document is passed on without being stored");
                let digest = Digest::sha256(&bytes);
                self.0.unkept.insert(digest, bytes);
                (digest, Verdict::PassedThrough)
            }
        };
        Ok((Entry { body: Some(BodyRef { digest, size }), etag, last_modified, media_type, link, checked_at: now }, verdict))
    }

    async fn remember_document(
        &self,
        key: PackageKey,
        upstream: &Upstream,
        ask: &Ask,
        (entry, verdict): (Entry, Verdict),
    ) -> Result<(Arc<Entry>, Verdict)> {
        let entry = Arc::new(entry);
        let mut batch = Batch::new();
        ENTRIES.put(&mut batch, entry_key(upstream, &ask.path), &entry)?;
        if verdict != Verdict::PassedThrough {
            let kept = entry.body.filter(|_| verdict == Verdict::Miss);
            if let Some(body) = kept {
                self.0.blobs.put_row(&mut batch, &body.digest)?;
            }
            if let Err(error) = self.0.store.commit(batch).await {
                tracing::warn!(upstream = upstream.name(), error = ?error, "a document is remembered in memory alone");
                if let Some(body) = kept {
                    self.0.blobs.mark_cached(&body.digest, body.size);
                }
            }
        }
        self.0.entries.insert(key, Arc::clone(&entry));
        Ok((entry, verdict))
    }
}

/// Asks for a document. Where a HEAD names the digest of what is known already, that is the newest.
async fn newest(upstream: &Upstream, address: &url::Url, headers: HeaderMap, manner: &Manner, known: Option<&Entry>) -> Result<Answer> {
    let scope = manner.scope.as_deref();
    if let (Some(names_digest), Some(body)) = (&manner.names_digest, known.and_then(|known| known.body)) {
        let mut asked = headers.clone();
        asked.remove(header::IF_NONE_MATCH);
        asked.remove(header::IF_MODIFIED_SINCE);
        match upstream.ask(&Method::HEAD, address, asked, scope).await? {
            Answer::Body(response) if named(response.headers(), names_digest) == Some(body.digest) => return Ok(Answer::NotModified),
            Answer::Absent => return Ok(Answer::Absent),
            _ => {}
        }
    }
    upstream.ask(&Method::GET, address, headers, scope).await
}

/// The digest that an answer says its body has.
fn named(headers: &HeaderMap, name: &HeaderName) -> Option<Digest> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// That a body has the digest that its answer names, if it names one.
fn expect_named(headers: &HeaderMap, manner: &Manner, bytes: &Bytes) -> Result<()> {
    let Some(named) = manner.names_digest.as_ref().and_then(|name| named(headers, name)) else { return Ok(()) };
    let mut hasher = Hasher::new(&[named.algorithm()]);
    hasher.update(bytes);
    if hasher.finish().get(named.algorithm()) == Some(named) {
        return Ok(());
    }
    Err(Error::new(Kind::BadUpstream, Subject::Digest).saying("the upstream's document is not what its digest says"))
}

/// What became of asking for what a file has grown by.
enum Grown {
    /// The whole file, put together, with the head of the answer that brought the rest.
    Whole(HeaderMap, Bytes),
    /// An answer as to any other request.
    Answer(Answer),
}

fn offline() -> Error {
    Error::new(Kind::Unavailable, Subject::Upstream).saying("this server is offline and does not hold the document")
}

fn conditional_headers(ask: &Ask, known: Option<&Entry>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(ask.accept));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let value = |text: &Option<String>| text.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    if let Some(known) = known {
        if let Some(etag) = value(&known.etag) {
            headers.insert(header::IF_NONE_MATCH, etag);
        } else if let Some(date) = value(&known.last_modified) {
            headers.insert(header::IF_MODIFIED_SINCE, date);
        }
    }
    headers
}

fn document_key(upstream: &Upstream, path: &str) -> PackageKey {
    PackageKey::new(upstream.identity(), path)
}

fn entry_key(upstream: &Upstream, path: &str) -> Key {
    Key::new().text(upstream.identity()).text(path)
}
