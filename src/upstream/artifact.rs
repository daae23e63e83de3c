//! Files from upstreams: streamed to every waiting client while they arrive, verified, kept.
//!
//! One task per file does the fetching, whoever waits. It pushes what comes into a
//! [`Spool`], which clients follow. A body that breaks off is resumed with `Range`.
//! The spool holds back the end until length and digests are proven, so a wrong
//! body never ends cleanly, and nothing of it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use super::client::{Answer, Pace};
use super::flight::{Announce, Landed};
use super::{Fetcher, Shared, Upstream, Verdict};
use crate::blob::Purpose;
use crate::blob::{Expect, Filler, Spool};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Inspection;
use crate::http::{HeaderMap, HeaderValue, Method, header};
use crate::name::{PackageKey, PackageName};
use crate::observe::Tries;
use crate::store::Batch;
use crate::store::table::{Key, Table};

/// A file that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Its blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A file that was asked for.
#[derive(Clone)]
pub enum Filling {
    /// It is arriving.
    Arriving(Spool),
    /// It is small and has been waited for: it is here, or failed.
    Come(Spool),
    /// It is kept: it was fetched between the caller's look and its asking.
    Kept(Arc<KeptFile>),
}

/// What to fetch, and what is known of it.
#[derive(Clone)]
pub struct Wanted {
    /// The package it belongs to.
    pub name: PackageName,
    /// Its name in our download path.
    pub file: String,
    /// Where the upstream keeps it.
    pub url: Url,
    /// Digests that the index promised.
    pub promised: Vec<Digest>,
    /// What it is proved by where none was. Then it must also be the file that was fetched before, if one was.
    pub inspection: Option<Inspection>,
    /// What a token for it is for, where the upstream may want one.
    pub scope: Option<Arc<str>>,
}

/// Size up to which a file is received in one piece.
const SMALL_BYTES: u64 = 64 << 10;

const FILES: Table<KeptFile> = Table::new("upstream_files");

impl Fetcher {
    /// A file that is kept already, without asking anyone.
    ///
    /// # Errors
    /// When the cache's store fails.
    pub async fn kept(&self, upstream: &Upstream, name: &PackageName, file: &str) -> Result<Option<Arc<KeptFile>>> {
        if let Some(kept) = self.kept_in_memory(upstream, name, file) {
            return Ok(Some(kept));
        }
        // What is named by its digest is not kept if there is no such blob; that is found out at a quarter of the store's price.
        if let Ok(digest) = file.parse::<Digest>()
            && digest.algorithm() == Algorithm::Sha256
            && !self.0.blobs.holds(&digest).await?
        {
            return Ok(None);
        }
        let Some(stored) = Box::pin(FILES.get(&*self.0.store, row_key(upstream, name, file))).await? else { return Ok(None) };
        let kept = Arc::new(stored.value);
        self.0.files.insert(file_key(upstream, name, file), Arc::clone(&kept));
        Ok(Some(kept))
    }

    /// As [`Fetcher::kept`], if memory knows of it.
    #[must_use]
    pub fn kept_in_memory(&self, upstream: &Upstream, name: &PackageName, file: &str) -> Option<Arc<KeptFile>> {
        self.0.files.get(&file_key(upstream, name, file))
    }

    /// Forgets a kept file whose blob turned out to be gone.
    pub fn forget_file(&self, upstream: &Upstream, name: &PackageName, file: &str) {
        self.0.files.remove(&file_key(upstream, name, file));
    }

    /// How long a file is by its upstream's word, without fetching it; `None` when the upstream does not say.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub async fn size(&self, upstream: &Upstream, wanted: &Wanted) -> Result<Option<u64>> {
        if self.0.config.offline {
            return Err(Error::new(Kind::Unavailable, Subject::Upstream).saying("this server is offline and does not hold the file"));
        }
        let key = file_key(upstream, &wanted.name, &wanted.file);
        if self.0.missing.contains_key(&key) {
            return Err(Error::not_found(Subject::File));
        }
        if self.0.fills.is_under_way(&key) {
            return Ok(None);
        }
        match upstream.ask(&Method::HEAD, &wanted.url, identity_headers(), wanted.scope.as_deref()).await? {
            Answer::Body(response) => {
                let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                Ok(length.and_then(|length| length.parse().ok()))
            }
            Answer::Absent => {
                self.0.missing.insert(key, ());
                Err(Error::not_found(Subject::File))
            }
            Answer::NotModified | Answer::OutOfRange | Answer::Refused => Ok(None),
        }
    }

    /// Starts to fetch a file, or joins those who wait for it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the upstream has no such file, [`Kind::BadUpstream`]
    /// or [`Kind::Unavailable`] when it fails before the first byte.
    pub async fn fetch(&self, upstream: &Arc<Upstream>, wanted: Wanted) -> Result<(Filling, Verdict)> {
        if self.0.config.offline {
            return Err(Error::new(Kind::Unavailable, Subject::Upstream).saying("this server is offline and does not hold the file"));
        }
        let key = file_key(upstream, &wanted.name, &wanted.file);
        if self.0.missing.contains_key(&key) {
            return Err(Error::not_found(Subject::File));
        }
        let (fetcher, upstream) = (self.clone(), Arc::clone(upstream));
        let tries = Tries::current();
        let start = move |announce| tries.counting(async move { fetcher.fill(&upstream, wanted, announce).await });
        match self.0.fills.join(key, start).await {
            Landed::Led(Ok(filling)) => Ok((filling, Verdict::Miss)),
            Landed::Joined(Ok(filling)) => Ok((filling, Verdict::Joined)),
            Landed::Led(Err(error)) | Landed::Joined(Err(error)) => Err(error.repeat()),
            Landed::Lost => Err(Error::new(Kind::Unavailable, Subject::Upstream)),
        }
    }

    /// The whole work of one file, from the first request to the record of what was kept.
    async fn fill(&self, upstream: &Upstream, mut wanted: Wanted, announce: Announce<Shared<Filling>>) {
        // Fetched between the caller's look and this flight's start; a record whose blob was evicted is none.
        if let Some(kept) = self.0.files.get(&file_key(upstream, &wanted.name, &wanted.file))
            && self.0.blobs.holds(&kept.digest).await.unwrap_or(false)
        {
            return announce.result(Ok(Filling::Kept(kept)));
        }
        if wanted.inspection.is_some() && wanted.promised.is_empty() {
            match FILES.get(&*self.0.store, row_key(upstream, &wanted.name, &wanted.file)).await {
                Ok(before) => wanted.promised.extend(before.map(|before| before.value.digest)),
                Err(error) => return announce.result(Err(Arc::new(error))),
            }
        }
        let opened = match self.begin(upstream, &wanted).await {
            Ok(opened) => opened,
            Err(error) => {
                announce.leave();
                return announce.result(Err(Arc::new(error)));
            }
        };
        let Opened { mut filler, spool, mut source } = opened;
        // Who wants a small file has no use for a part of it, and is woken once.
        let is_small = source.length.is_some_and(|length| length <= SMALL_BYTES);
        if !is_small {
            announce.result(Ok(Filling::Arriving(spool.clone())));
        }
        let has_come = match self.pour(upstream, &wanted, &mut filler, &mut source).await {
            Ok(()) => {
                let _closing = Closing::begin(&self.0.closing);
                self.finish(upstream, &wanted, filler).await
            }
            Err(error) => {
                tracing::warn!(upstream = upstream.name(), package = %wanted.name, file = wanted.file, error = ?error, "fetching a file failed");
                upstream.count_failure();
                announce.leave();
                filler.fail(&error);
                false
            }
        };
        if is_small {
            if !has_come {
                announce.leave();
            }
            announce.result(Ok(Filling::Come(spool)));
        }
    }

    /// Has a file that has come proved and kept. `false` if it is not what it should be.
    async fn finish(&self, upstream: &Upstream, wanted: &Wanted, filler: Filler) -> bool {
        let key = row_key(upstream, &wanted.name, &wanted.file);
        let record = |digest: &Digest, size| {
            let mut rows = Batch::new();
            FILES.put(&mut rows, key, &KeptFile { digest: *digest, size })?;
            Ok(rows)
        };
        match filler.finish_with(record).await {
            Ok(kept) if kept.stored => {
                let record = KeptFile { digest: kept.digests.sha256, size: kept.size };
                self.0.files.insert(file_key(upstream, &wanted.name, &wanted.file), Arc::new(record));
                true
            }
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(upstream = upstream.name(), package = %wanted.name, file = wanted.file, error = ?error, "a fetched file is not what was promised");
                false
            }
        }
    }

    async fn begin(&self, upstream: &Upstream, wanted: &Wanted) -> Result<Opened> {
        let response = match upstream.ask(&Method::GET, &wanted.url, identity_headers(), wanted.scope.as_deref()).await? {
            Answer::Body(response) => response,
            Answer::Absent => {
                self.0.missing.insert(file_key(upstream, &wanted.name, &wanted.file), ());
                return Err(Error::not_found(Subject::File));
            }
            Answer::NotModified | Answer::OutOfRange | Answer::Refused => return Err(Error::new(Kind::BadUpstream, Subject::Upstream)),
        };
        let length = response.content_length();
        let limit_bytes = self.0.config.artifact_limit_bytes;
        if length.is_some_and(|length| length > limit_bytes) {
            return Err(
                Error::new(Kind::BadUpstream, Subject::Upstream).saying(format!("the upstream's file is larger than {limit_bytes} bytes"))
            );
        }
        // Only a promised digest can tell that a coding was undone or not; without one, other bytes than ours are refused.
        let coded = response.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        if coded && wanted.promised.is_empty() {
            return Err(Error::new(Kind::BadUpstream, Subject::Upstream).saying("the upstream sent the file in a content coding"));
        }
        let validator = strong_validator(response.headers());
        let expect = Expect { length, promised: wanted.promised.clone(), inspection: wanted.inspection.clone(), limit_bytes };
        let (filler, spool) = self.0.blobs.fill(expect).await?;
        Ok(Opened { filler, spool, source: Source { response, validator, length, skip: 0 } })
    }

    /// Moves the body into the spool, resuming it when it breaks off.
    async fn pour(&self, upstream: &Upstream, wanted: &Wanted, filler: &mut Filler, source: &mut Source) -> Result<()> {
        let mut tries = 0;
        loop {
            let error = match self.pour_once(upstream, filler, source).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // Only what a new request can mend is tried again.
            if error.kind() != Kind::BadUpstream || tries >= self.0.config.retries {
                return Err(error);
            }
            tries += 1;
            tracing::debug!(upstream = upstream.name(), file = wanted.file, received = filler.received(), error = ?error, "resuming a broken file");
            *source = resume(upstream, wanted, source, filler.received()).await?;
        }
    }

    async fn pour_once(&self, upstream: &Upstream, filler: &mut Filler, source: &mut Source) -> Result<()> {
        let mut pace = Pace::default();
        if source.skip == 0
            && let Some(length) = source.length.filter(|length| *length <= SMALL_BYTES)
        {
            return self.pour_small(upstream, filler, source, length).await;
        }
        while let Some(mut chunk) = upstream.next_chunk(&mut source.response, &mut pace).await? {
            if source.skip > 0 {
                let skipped = source.skip.min(chunk.len() as u64);
                source.skip -= skipped;
                chunk = chunk.slice(usize::try_from(skipped).unwrap_or(usize::MAX)..);
            }
            // The HTTP client reads into one buffer of up to 400 KiB, which it can use again when nobody holds a slice.
            filler.push_copy(&chunk).await?;
        }
        whole(filler, source)
    }

    /// As [`Fetcher::pour_once`], of a small file: one piece of memory that is no larger than it, since it may stay in
    /// memory. As slices of the HTTP client's buffers, 24,000 files of 20 KB took half a gigabyte, and clearing fresh
    /// pages for those buffers a quarter of the processor time.
    async fn pour_small(&self, upstream: &Upstream, filler: &mut Filler, source: &mut Source, length: u64) -> Result<()> {
        let mut pace = Pace::default();
        let missing = usize::try_from(length.saturating_sub(filler.received())).unwrap_or_default();
        let mut bytes = Vec::with_capacity(missing);
        let end = loop {
            match upstream.next_chunk(&mut source.response, &mut pace).await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > missing => {
                    break Err(Error::new(Kind::Unavailable, Subject::Upstream).saying("the upstream's file is longer than it said"));
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What has come is not asked for again.
        filler.push(bytes.into()).await?;
        end.and_then(|()| whole(filler, source))
    }

    /// Keeps small bytes that were computed or relayed, as a cached blob.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn keep(&self, bytes: Bytes) -> Result<Digest> {
        Ok(*self.0.blobs.put(Purpose::Cached, bytes).await?.digest())
    }
}

/// A file that is being kept.
struct Closing<'a>(&'a AtomicUsize);

impl<'a> Closing<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// That all has come which was announced.
fn whole(filler: &Filler, source: &Source) -> Result<()> {
    match source.length {
        Some(length) if filler.received() < length => {
            Err(Error::new(Kind::BadUpstream, Subject::Upstream).saying("the upstream's file ended too early"))
        }
        _ => Ok(()),
    }
}

struct Opened {
    filler: Filler,
    spool: Spool,
    source: Source,
}

/// A body that is being read.
struct Source {
    response: reqwest::Response,
    /// A strong entity tag or a date, for `If-Range`.
    validator: Option<HeaderValue>,
    length: Option<u64>,
    /// Bytes at the beginning that are known already.
    skip: u64,
}

/// Asks for the rest of a file of which `received` bytes are there.
async fn resume(upstream: &Upstream, wanted: &Wanted, broken: &Source, received: u64) -> Result<Source> {
    let failed = |what: &'static str| Error::new(Kind::BadUpstream, Subject::Upstream).saying(what);
    // Without a validator only a promised digest can prove that both halves are of one file.
    if received > 0 && broken.validator.is_none() && wanted.promised.is_empty() {
        return Err(Error::new(Kind::Unavailable, Subject::Upstream).saying("the upstream's file broke off and cannot be resumed"));
    }
    let mut headers = identity_headers();
    if received > 0 {
        headers.insert(
            header::RANGE,
            HeaderValue::try_from(format!("bytes={received}-")).map_err(|error| Error::internal(Subject::Upstream, error))?,
        );
        if let Some(validator) = &broken.validator {
            headers.insert(header::IF_RANGE, validator.clone());
        }
    }
    let response = match upstream.ask(&Method::GET, &wanted.url, headers, wanted.scope.as_deref()).await? {
        Answer::Body(response) => response,
        Answer::Absent | Answer::NotModified | Answer::OutOfRange | Answer::Refused => return Err(failed("the upstream's file is gone")),
    };
    let partial = response.status() == crate::http::StatusCode::PARTIAL_CONTENT;
    if partial && content_range_start(response.headers()) != Some(received) {
        return Err(failed("the upstream resumed the file at another place"));
    }
    let validator = strong_validator(response.headers());
    let same = broken.validator.is_some() && validator == broken.validator;
    if !partial && received > 0 && wanted.promised.is_empty() && !same {
        return Err(failed("the upstream's file changed while it was fetched"));
    }
    Ok(Source { response, validator: broken.validator.clone(), length: broken.length, skip: if partial { 0 } else { received } })
}

fn identity_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::ACCEPT, HeaderValue::from_static("*/*")),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ])
}

fn strong_validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let etag = headers.get(header::ETAG).filter(|etag| etag.as_bytes().starts_with(b"\""));
    etag.or_else(|| headers.get(header::LAST_MODIFIED)).cloned()
}

/// The first byte of `Content-Range: bytes 10-99/100`.
fn content_range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn file_key(upstream: &Upstream, name: &PackageName, file: &str) -> PackageKey {
    PackageKey::new(upstream.identity(), name.as_str()).with(file)
}

fn row_key(upstream: &Upstream, name: &PackageName, file: &str) -> Key {
    Key::new().text(upstream.identity()).text(name.as_str()).text(file)
}
