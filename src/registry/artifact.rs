//! One file: from what is hosted, what is kept, or an upstream.
//!
//! What the index shows and what the download serves are decided by the same plan.
//! A file from an upstream is checked against what that upstream's own index
//! promised before its last byte leaves.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};

use super::{Plan, Registry};
use crate::access::Grant;
use crate::archive::Limits;
use crate::blob::{Blob, Finished, Spool};
use crate::catalog::{Head, HostedFile};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{Ask, Document, Promise};
use crate::http::conditional::{self, Part, entity_tag};
use crate::http::{Body, HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, reply};
use crate::name::PackageKey;
use crate::upstream::artifact::Wanted;
use crate::upstream::{Check, Filling, KeptFile, Need, Upstream, Verdict};
use crate::usage::Count;

/// Files up to this size are received whole before the first byte leaves, so that a
/// bad one is a clear error and not a broken connection.
const WHOLE_BYTES: u64 = 256 << 10;

/// Tries to get hold of a file that an eviction takes between its fetch and its reading.
const EVICTED_TRIES: usize = 4;

/// A file ready to be sent.
pub struct Artifact {
    /// Its bytes, or where they are arriving.
    pub content: Content,
    /// Its length in bytes, if known.
    pub size: Option<u64>,
    /// Its entity tag; none while its digest is not known.
    pub etag: Option<HeaderValue>,
    /// How it was come by.
    pub verdict: Verdict,
    /// The downloads of its version, if it is hosted and this is one.
    pub downloads: Option<Arc<Count>>,
}

/// The bytes of a file.
pub enum Content {
    /// All of them, in memory.
    Bytes(Bytes),
    /// All of them, on disk.
    Blob(Blob),
    /// Those that have arrived, and more to come.
    Spool(Spool),
}

/// Where upstreams keep a file that no index speaks of.
#[derive(Clone, Debug)]
pub struct Location<'a> {
    /// The version it belongs to.
    pub version: &'a str,
    /// Its path below an upstream's address, escaped, without a leading slash.
    pub path: String,
    /// What to add to the path for the file that holds a digest, the best first.
    pub checksums: &'a [(&'a str, Algorithm)],
    /// Whether fetching it is a download of the version, and not of something beside it: a signature, a checksum.
    pub is_download: bool,
}

impl Registry {
    /// A file of a package, by its name in the download path.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when no source has it, and an upstream's failures.
    pub async fn artifact<D: Document>(&self, grant: &Grant, plan: &Plan, file: &str) -> Result<Artifact> {
        if let Some(artifact) = self.stored(grant, plan, file, D::is_download(file)).await? {
            return Ok(artifact);
        }
        // Boxed, so that the future of a hit is small.
        Box::pin(self.fetch_file::<D>(grant, plan, file)).await
    }

    /// A file that no index speaks of: every upstream keeps it at the same path, and its digest in a file beside it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when no source has it, and an upstream's failures.
    pub async fn artifact_at(&self, grant: &Grant, plan: &Plan, file: &str, location: &Location<'_>) -> Result<Artifact> {
        if let Some(artifact) = self.stored(grant, plan, file, location.is_download).await? {
            return Ok(artifact);
        }
        Box::pin(self.fetch_file_at(grant, plan, file, location)).await
    }

    /// A file of a hosted package, with what is known of it; `None` when no live version has it. Whether fetching it is a
    /// download of its version the caller says.
    ///
    /// # Errors
    /// When the store or the disk fails.
    pub async fn hosted_file(
        &self,
        grant: &Grant,
        head: &Head,
        file: &str,
        is_download: bool,
    ) -> Result<Option<(Arc<HostedFile>, Artifact)>> {
        let Some(row) = self.catalog.file(grant, head, file).await? else { return Ok(None) };
        let blob = self.blobs.read(&row.file.sha256).await?;
        let blob = blob.ok_or_else(|| Error::internal(Subject::Blob, format!("hosted blob {} is missing", row.file.sha256)))?;
        let downloads = is_download.then(|| Arc::clone(&row.downloads));
        Ok(Some((row, Artifact { downloads, ..whole(blob, Verdict::Hosted) })))
    }

    /// As [`Registry::artifact`] and its like, if it can be sent without waiting; whether fetching it is a download of its version
    /// the format says.
    #[must_use]
    pub fn artifact_at_hand(&self, grant: &Grant, plan: &Plan, file: &str, is_download: bool) -> Option<Artifact> {
        if let Some(head) = plan.head()
            && let Some(row) = self.catalog.file_in_memory(grant, head, file)?
        {
            return self.hosted_at_hand(&row, is_download);
        }
        // Whether the first upstream keeps it must be known before another one's may be sent.
        let kept = self.fetcher.kept_in_memory(plan.upstreams().first()?, grant.name(), file)?;
        let blob = self.blobs.at_hand(&kept.digest).filter(|blob| blob.size() == kept.size)?;
        Some(whole(blob, Verdict::Hit))
    }

    /// As [`Registry::hosted_file`], if it can be sent without waiting.
    #[must_use]
    pub fn hosted_file_at_hand(&self, grant: &Grant, head: &Head, file: &str, is_download: bool) -> Option<(Arc<HostedFile>, Artifact)> {
        let row = self.catalog.file_in_memory(grant, head, file)??;
        let artifact = self.hosted_at_hand(&row, is_download)?;
        Some((row, artifact))
    }

    fn hosted_at_hand(&self, row: &HostedFile, is_download: bool) -> Option<Artifact> {
        let blob = self.blobs.at_hand(&row.file.sha256)?;
        let downloads = is_download.then(|| Arc::clone(&row.downloads));
        Some(Artifact { downloads, ..whole(blob, Verdict::Hosted) })
    }

    /// A file that is hosted or kept; whether fetching it is a download of its version the format says.
    async fn stored(&self, grant: &Grant, plan: &Plan, file: &str, is_download: bool) -> Result<Option<Artifact>> {
        if let Some(head) = plan.head()
            && let Some((_, artifact)) = self.hosted_file(grant, head, file, is_download).await?
        {
            return Ok(Some(artifact));
        }
        for upstream in plan.upstreams() {
            if let Some(artifact) = self.kept_artifact(grant, upstream, file).await? {
                return Ok(Some(artifact));
            }
        }
        Ok(None)
    }

    /// A file that was fetched from an upstream before.
    pub(super) async fn kept_artifact(&self, grant: &Grant, upstream: &Upstream, file: &str) -> Result<Option<Artifact>> {
        Ok(self.kept_file(grant, upstream, file).await?.map(|blob| whole(blob, Verdict::Hit)))
    }

    async fn kept_file(&self, grant: &Grant, upstream: &Upstream, file: &str) -> Result<Option<Blob>> {
        let Some(kept) = self.fetcher.kept(upstream, grant.name(), file).await? else { return Ok(None) };
        let KeptFile { digest, size } = *kept;
        let blob = self.blobs.read(&digest).await?.filter(|blob| blob.size() == size);
        if blob.is_none() {
            self.fetcher.forget_file(upstream, grant.name(), file);
        }
        Ok(blob)
    }

    async fn fetch_file<D: Document>(&self, grant: &Grant, plan: &Plan, file: &str) -> Result<Artifact> {
        if plan.upstreams().is_empty() {
            return Err(Error::not_found(Subject::File));
        }
        let (upstream, promise) = self.promise::<D>(grant, plan, file).await?;
        let url = upstream.address_in_document(&promise.url)?;
        let limits = Limits { entries: self.config.archive_entries, unpacked_bytes: self.config.archive_unpacked_bytes };
        let inspection = if promise.digests.is_empty() { D::inspection(grant.name(), file, &limits) } else { None };
        let wanted = Wanted { name: grant.name().clone(), file: file.to_owned(), url, promised: promise.digests, inspection, scope: None };
        self.obtain(&upstream, &wanted).await
    }

    async fn fetch_file_at(&self, grant: &Grant, plan: &Plan, file: &str, location: &Location<'_>) -> Result<Artifact> {
        // A hosted version masks the upstream's files of the same number too.
        if let Some(head) = plan.head()
            && self.catalog.version(grant, head, location.version).await?.is_some()
        {
            return Err(Error::not_found(Subject::File));
        }
        let key = keeper_key(grant, location);
        for upstream in self.keeper_first(grant, plan, location) {
            let promised = self.checksum(upstream, location).await?;
            let url = upstream.address(&location.path)?;
            let wanted = Wanted { name: grant.name().clone(), file: file.to_owned(), url, promised, inspection: None, scope: None };
            match self.obtain(upstream, &wanted).await {
                Ok(artifact) => {
                    self.keepers.insert(key, upstream.identity().into());
                    return Ok(artifact);
                }
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::not_found(Subject::File))
    }

    /// The digest that an upstream keeps beside a file.
    ///
    /// # Errors
    /// An upstream's failures.
    pub async fn checksum_at(&self, grant: &Grant, plan: &Plan, location: &Location<'_>) -> Result<Option<Digest>> {
        for upstream in self.keeper_first(grant, plan, location) {
            let found = self.checksum(upstream, location).await?;
            if let Some(digest) = found.first() {
                return Ok(Some(*digest));
            }
        }
        Ok(None)
    }

    /// The upstreams in their order, but first the one that other files of the version came
    /// from: a signature of another's would not fit.
    fn keeper_first<'a>(&self, grant: &Grant, plan: &'a Plan, location: &Location<'_>) -> Vec<&'a Arc<Upstream>> {
        let mut upstreams: Vec<&Arc<Upstream>> = plan.upstreams().iter().collect();
        if upstreams.len() > 1
            && let Some(keeper) = self.keepers.get(&keeper_key(grant, location))
        {
            upstreams.sort_by_key(|upstream| upstream.identity() != &*keeper);
        }
        upstreams
    }

    /// The digest that an upstream keeps beside a file; none when it keeps none.
    async fn checksum(&self, upstream: &Arc<Upstream>, location: &Location<'_>) -> Result<Vec<Digest>> {
        for (suffix, algorithm) in location.checksums {
            let ask = Ask { path: format!("{}{suffix}", location.path), accept: "*/*", grows: false };
            let algorithm = *algorithm;
            let check: Check = Arc::new(move |bytes| match checksum_in(bytes, algorithm) {
                Some(_) => Ok(()),
                None => Err(Error::new(Kind::BadUpstream, Subject::Digest).saying("this is no checksum")),
            });
            let fetched = self.fetcher.document(upstream, &ask, Need::Usual, &check).await?;
            let Some(body) = fetched.entry.body else { continue };
            let bytes = self.fetcher.body(&body).await.inspect_err(|_| self.fetcher.forget(upstream, &ask))?;
            return Ok(checksum_in(&bytes, algorithm).into_iter().collect());
        }
        Ok(Vec::new())
    }

    /// A file from one upstream: kept since the last look, or arriving.
    pub(super) async fn obtain(&self, upstream: &Arc<Upstream>, wanted: &Wanted) -> Result<Artifact> {
        let sha256 = wanted.promised.iter().find(|digest| digest.algorithm() == Algorithm::Sha256).copied();
        for _ in 0..EVICTED_TRIES {
            let (filling, verdict) = self.fetcher.fetch(upstream, wanted.clone()).await?;
            match filling {
                Filling::Arriving(spool) => {
                    // Who comes when all is there, but not recorded yet, has waited for nothing.
                    let is_there = verdict == Verdict::Joined && spool.finished().now_or_never().is_some();
                    return follow(spool, sha256, if is_there { Verdict::Hit } else { verdict }).await;
                }
                Filling::Come(spool) => return follow(spool, sha256, verdict).await,
                Filling::Kept(kept) => {
                    if let Some(blob) = self.blobs.read(&kept.digest).await? {
                        return Ok(whole(blob, Verdict::Hit));
                    }
                    self.fetcher.forget_file(upstream, &wanted.name, &wanted.file);
                }
            }
        }
        Err(Error::new(Kind::Unavailable, Subject::Blob).saying("the file is evicted faster than it is fetched; try again"))
    }

    /// What the index promises of a file. An index that does not know it is asked for anew, once.
    async fn promise<D: Document>(&self, grant: &Grant, plan: &Plan, file: &str) -> Result<(Arc<Upstream>, Promise)> {
        let upstream_only = Plan::Proxied(plan.upstreams().to_vec());
        for need in [Need::Usual, Need::Newest] {
            let (upstream, document) = self.upstream_index::<D>(grant, &upstream_only, need).await?;
            if let Some(promise) = document.promise(file, &self.guide(&upstream).await?) {
                // A hosted version of the same number masks the upstream's file too.
                if let Some(head) = plan.head()
                    && self.catalog.version(grant, head, &promise.version).await?.is_some()
                {
                    break;
                }
                return Ok((upstream, promise));
            }
        }
        Err(Error::not_found(Subject::File))
    }
}

fn keeper_key(grant: &Grant, location: &Location<'_>) -> PackageKey {
    PackageKey::new(grant.ecosystem(), grant.name().as_str()).with(location.version)
}

/// The digest in a checksum file: hex, and perhaps the file's name after it.
fn checksum_in(bytes: &[u8], algorithm: Algorithm) -> Option<Digest> {
    let text = std::str::from_utf8(bytes).ok()?;
    Digest::from_hex(algorithm, text.split_ascii_whitespace().next()?).ok()
}

/// A file that is arriving. A small one is waited for.
async fn follow(spool: Spool, sha256: Option<Digest>, verdict: Verdict) -> Result<Artifact> {
    if let Some((bytes, finished)) = spool.at_hand() {
        return Ok(arrived(bytes, &finished, verdict));
    }
    let Some(length) = spool.length().filter(|length| *length <= WHOLE_BYTES) else {
        // The tag must be the one of the next request, and that is made from the SHA-256.
        let etag = sha256.map(|digest| entity_tag(&digest, None));
        // A disk that fills up later is not foreseen.
        let verdict = if spool.is_storing() { verdict } else { Verdict::PassedThrough };
        return Ok(Artifact { size: spool.length(), content: Content::Spool(spool), etag, verdict, downloads: None });
    };
    // Followed from the start, so that the bytes are here even if the disk had no room for them.
    let mut chunks = spool.chunks(None);
    // Most come in one piece.
    let mut bytes = match chunks.next().await {
        Some(Ok(chunk)) => chunk,
        _ => Bytes::new(),
    };
    if (bytes.len() as u64) < length {
        let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        whole.extend_from_slice(&bytes);
        while let Some(Ok(chunk)) = chunks.next().await {
            whole.extend_from_slice(&chunk);
        }
        bytes = whole.freeze();
    }
    let finished = spool.finished().await?;
    if bytes.len() as u64 != finished.size {
        // Came too late for a file that the disk had no room for.
        return Err(Error::new(Kind::Unavailable, Subject::Blob).saying("the file could not be kept; try again"));
    }
    Ok(arrived(bytes, &finished, verdict))
}

/// A file of which all has arrived.
fn arrived(bytes: Bytes, finished: &Finished, verdict: Verdict) -> Artifact {
    let etag = Some(entity_tag(&finished.digests.sha256, None));
    let verdict = if finished.stored { verdict } else { Verdict::PassedThrough };
    Artifact { content: Content::Bytes(bytes), size: Some(finished.size), etag, verdict, downloads: None }
}

impl Artifact {
    /// The answer to a request for this file: whole, a range of it, or «not modified».
    ///
    /// Who is given its first byte has downloaded it. What follows in parts is the
    /// same download, and who only asks whether it is there made none.
    #[must_use]
    pub fn respond(mut self, method: &Method, headers: &HeaderMap, media_type: HeaderValue, cache_control: HeaderValue) -> Response {
        let downloads = self.downloads.take().filter(|_| method == Method::GET);
        let mut response = self.answer(headers);
        if let Some(downloads) = downloads
            && begins(&response)
        {
            downloads.add();
        }
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, media_type);
        fields.insert(header::CACHE_CONTROL, cache_control);
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
        response
    }

    fn answer(self, headers: &HeaderMap) -> Response {
        let mut response = match (&self.etag, self.size) {
            (Some(etag), _) if conditional::none_match(headers, etag) => reply::empty(StatusCode::NOT_MODIFIED),
            (etag, Some(size)) => match conditional::part(headers, etag.as_ref(), size) {
                Part::Whole => Response::new(self.content.body(0..size, size)),
                Part::Range(range) => {
                    let described = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                    let mut response = Response::new(self.content.body(range, size));
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    describe_range(&mut response, described);
                    response
                }
                Part::Unsatisfiable => {
                    let mut response = reply::empty(StatusCode::RANGE_NOT_SATISFIABLE);
                    describe_range(&mut response, format!("bytes */{size}"));
                    response
                }
            },
            (_, None) => Response::new(match self.content {
                Content::Spool(spool) => Body::stream(spool.chunks(None), None),
                // Only a file that is still arriving can be of unknown length.
                Content::Bytes(bytes) => Body::Bytes(bytes),
                Content::Blob(blob) => {
                    let size = blob.size();
                    blob.body(0..size)
                }
            }),
        };
        let fields = response.headers_mut();
        // At once for all that follow, also the caller's.
        fields.reserve(8);
        if let Some(etag) = self.etag {
            fields.insert(header::ETAG, etag);
        }
        if self.size.is_some() {
            fields.insert(header::ACCEPT_RANGES, const { HeaderValue::from_static("bytes") });
        }
        fields.insert(CACHE_STATUS, self.verdict.header());
        response
    }
}

/// Whether an answer holds a file's first byte.
fn begins(response: &Response) -> bool {
    match response.status() {
        StatusCode::OK => true,
        StatusCode::PARTIAL_CONTENT => {
            response.headers().get(header::CONTENT_RANGE).is_some_and(|range| range.as_bytes().starts_with(b"bytes 0-"))
        }
        _ => false,
    }
}

/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

fn describe_range(response: &mut Response, text: String) {
    // Digits, spaces and a slash are always a valid value.
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
}

impl Content {
    /// The bytes of a range as a body; `size` is the whole file's.
    fn body(self, range: Range<u64>, size: u64) -> Body {
        let length = range.end - range.start;
        let cut = |bytes: &Bytes| {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Body::Bytes(bytes.slice(at(range.start)..at(range.end)))
        };
        match self {
            Self::Bytes(bytes) => cut(&bytes),
            Self::Blob(blob) => blob.body(range),
            Self::Spool(spool) => Body::stream(spool.chunks((length < size).then_some(range)), Some(length)),
        }
    }
}

pub(super) fn whole(blob: Blob, verdict: Verdict) -> Artifact {
    Artifact { size: Some(blob.size()), etag: Some(blob.etag()), content: Content::Blob(blob), verdict, downloads: None }
}
