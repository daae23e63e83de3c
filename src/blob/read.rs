//! Reading a blob: from memory when it is small, else from its file, which the
//! connection sends in the way it can (`http::file`). A file that ends before its
//! length is an error of the stream: a client never takes a part for the whole.
//!
//! A disk may give back other bytes than it was given. A small blob is hashed when it is
//! taken into memory. A larger one is hashed for its first reader, once for each run of
//! the server and each day: before the first byte leaves, or, from a MiB on, while they
//! leave. Then the last chunk goes only if the digest is right, so wrong bytes never look
//! like a whole file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use tokio::time::Instant;

use super::disk::failed;
use super::{Blobs, Id, id_of};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::conditional::entity_tag;
pub(super) use crate::http::file::{Buffers, CHUNK, read_some};
use crate::http::file::{FileBody, StoredFile};
use crate::http::{Body, ChunkStream, HeaderValue};

/// A blob at hand. Its file may be removed meanwhile; this handle still reads all of it.
pub struct Blob {
    digest: Digest,
    size: u64,
    source: Source,
}

enum Source {
    /// With its entity tag.
    Memory(Bytes, HeaderValue),
    /// With what is left to prove before the bytes count as the blob's.
    File(Arc<StoredFile>, Option<Proof>),
}

impl Blob {
    pub(super) fn memory(digest: Digest, bytes: Bytes, etag: HeaderValue) -> Self {
        Self { digest, size: bytes.len() as u64, source: Source::Memory(bytes, etag) }
    }

    pub(super) fn file(digest: Digest, file: Arc<StoredFile>, proof: Option<Proof>) -> Self {
        Self { digest, size: file.size(), source: Source::File(file, proof) }
    }

    /// Proves a file's content now, if that is still to be done. `false` if it is cached and damaged,
    /// and was put away.
    pub(super) async fn prove(&mut self) -> Result<bool> {
        if let Source::File(file, proof) = &mut self.source
            && let Some(proof) = proof.take()
        {
            let found = proof.hash(file.file()).await.map_err(failed)?;
            return proof.conclude(&found);
        }
        Ok(true)
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The entity tag of the whole content.
    #[must_use]
    pub fn etag(&self) -> HeaderValue {
        match &self.source {
            Source::Memory(_, etag) => etag.clone(),
            Source::File(..) => entity_tag(&self.digest, None),
        }
    }

    /// The whole content, if it is small enough to be kept in memory.
    #[must_use]
    pub fn small(&self) -> Option<Bytes> {
        match &self.source {
            Source::Memory(bytes, _) => Some(bytes.clone()),
            Source::File(..) => None,
        }
    }

    /// The whole content.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] past the limit; [`Kind::Internal`] when the file is not what it was or the disk fails.
    pub async fn bytes(&self, limit_bytes: u64) -> Result<Bytes> {
        if self.size > limit_bytes {
            return Err(Error::new(Kind::TooLarge, Subject::Blob).saying(format!("larger than {limit_bytes} bytes")));
        }
        match &self.source {
            Source::Memory(bytes, _) => Ok(bytes.clone()),
            Source::File(file, proof) => {
                let bytes = file.read_whole().await.map_err(failed)?;
                if let Some(proof) = proof {
                    proof.insist(&Digest::sha256(&bytes)).map_err(failed)?;
                }
                Ok(bytes)
            }
        }
    }

    /// A range, cut to the blob's size, as a body. It ends with an error if the bytes cannot all be read.
    #[must_use]
    pub fn body(self, range: Range<u64>) -> Body {
        let range = self.within(range);
        match self.source {
            // Both are at most the length of a slice.
            Source::Memory(bytes, _) => {
                Body::Bytes(bytes.slice(usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0)))
            }
            Source::File(file, None) => Body::File(FileBody { file, range }),
            Source::File(file, Some(proof)) => {
                let length = Some(range.end - range.start);
                Body::Stream { chunks: proving(file, range, proof), length }
            }
        }
    }

    /// The bytes of a range, cut to the blob's size. The stream ends with an error if they cannot all be read.
    #[must_use]
    pub fn chunks(self, range: Range<u64>) -> ChunkStream {
        match self.body(range) {
            Body::Bytes(bytes) => Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))),
            Body::File(file) => file.chunks(),
            Body::Stream { chunks, .. } => chunks,
            Body::Empty => Box::pin(stream::empty()),
        }
    }

    fn within(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.size);
        range.start.min(end)..end
    }
}

/// The bytes of a file that is yet to be proved: all of it while they pass, or before the first of a part.
fn proving(file: Arc<StoredFile>, range: Range<u64>, proof: Proof) -> ChunkStream {
    let is_whole = range == (0..file.size());
    let check = Some(Check { proof, hasher: is_whole.then(|| Hasher::new(&[])) });
    let parts = FileBody { file: Arc::clone(&file), range: range.clone() }.chunks();
    let end = range.end;
    Box::pin(stream::try_unfold((range.start, check, parts), move |(position, check, mut parts)| {
        let file = Arc::clone(&file);
        async move {
            let mut check = match check {
                // Part of a file proves nothing, so all of it is read first.
                Some(Check { proof, hasher: None }) if position < end => {
                    proof.insist(&proof.hash(file.file()).await?)?;
                    None
                }
                check => check,
            };
            let Some(chunk) = parts.try_next().await? else { return Ok(None) };
            let next = position + chunk.len() as u64;
            if let Some(Check { hasher: Some(hasher), .. }) = &mut check {
                hasher.update(&chunk);
            }
            if next >= end
                && let Some(Check { proof, hasher: Some(hasher) }) = check.take()
            {
                proof.insist(&hasher.finish().sha256)?;
            }
            Ok(Some((chunk, (next, check, parts))))
        }
    }))
}

/// A file read from any place without moving anybody else's.
pub(super) struct Reading<'a> {
    file: &'a File,
    size: u64,
    position: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &'a File, size: u64) -> Self {
        Self { file, size, position: 0 }
    }
}

impl io::Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl io::Seek for Reading<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(position) => Some(position),
            io::SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// What is to be proved of a large blob's file.
pub(super) struct Proof {
    pub blobs: Blobs,
    pub digest: Digest,
    pub stamp: Stamp,
}

/// A proof that a stream of chunks is to give; without a hasher it has to come first.
struct Check {
    proof: Proof,
    hasher: Option<Hasher>,
}

impl Proof {
    /// Remembers that the file is right, or that it is not: then a cached blob is put away, and
    /// this is `false`.
    fn conclude(&self, found: &Digest) -> Result<bool> {
        let Some(id) = id_of(&self.digest) else { return Ok(true) };
        let right = *found == self.digest;
        self.blobs.0.proved.note(id, self.stamp, right);
        if !right {
            self.blobs.damaged(&id, &self.digest)?;
        }
        Ok(right)
    }

    /// As [`Proof::conclude`], where there is no other end than an error.
    fn insist(&self, found: &Digest) -> io::Result<()> {
        let wrong = |cause: String| io::Error::new(io::ErrorKind::InvalidData, cause);
        match self.conclude(found) {
            Ok(true) => Ok(()),
            Ok(false) => Err(wrong("a cached blob is damaged".to_owned())),
            Err(error) => Err(wrong(format!("{error:?}"))),
        }
    }

    /// Reads and hashes the whole file.
    async fn hash(&self, file: &Arc<File>) -> io::Result<Digest> {
        let file = Arc::clone(file);
        let hashed = tokio::task::spawn_blocking(move || {
            let (mut hasher, mut buffer, mut position) = (Hasher::new(&[]), vec![0; CHUNK], 0);
            loop {
                let read = read_some(&file, &mut buffer, position)?;
                if read == 0 {
                    return Ok(hasher.finish().sha256);
                }
                hasher.update(&buffer[..read]);
                position += read as u64;
            }
        });
        hashed.await.map_err(io::Error::other)?
    }
}

/// What tells a file from another one, or from itself after it was changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    names: u64,
}

/// How many names a file has says nothing of its content.
impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }
}

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = file.metadata()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { inode: metadata.ino(), size: metadata.len(), modified, names: metadata.nlink() })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file can still be found under some name.
    pub(super) fn is_named(&self) -> bool {
        self.names > 0
    }
}

/// Files that were hashed a while ago, and what came of it.
pub(super) struct Proved(quick_cache::sync::Cache<Id, Outcome>);

/// What came of hashing a file.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    stamp: Stamp,
    pub right: bool,
    pub when: Instant,
}

/// How long a proof holds. A disk that forgets does so without a trace in the file's times.
pub(super) const PROOF_HOLDS: Duration = Duration::from_secs(24 * 3600);
/// How many are remembered, in about 150 bytes each; the rest is proved again.
const PROOFS: usize = 100_000;

impl Default for Proved {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(PROOFS))
    }
}

impl Proved {
    /// What was found when this very file was hashed; `None` if it was not looked at.
    pub(super) fn get(&self, id: &Id, stamp: Stamp) -> Option<Outcome> {
        self.0.get(id).filter(|outcome| outcome.stamp == stamp && outcome.when.elapsed() < PROOF_HOLDS)
    }

    pub(super) fn note(&self, id: Id, stamp: Stamp, right: bool) {
        self.0.insert(id, Outcome { stamp, right, when: Instant::now() });
    }
}
