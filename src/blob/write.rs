//! Writing a blob: hashed while it is written, kept when the caller says so.
//!
//! Hashing and writing are work for a blocking thread. A hop to one costs about 6 µs,
//! so bytes are collected to about a MiB first; while one part is hashed and written
//! the next is collected. A body that never reaches that size takes one hop in all.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::disk::{self, Disk, Temporary, failed, full};
use super::read::Stamp;
use super::{Blobs, Lease, Purpose, blocking, id_of};
use crate::digest::{Algorithm, Digest, Digests, Further, Hasher};
use crate::error::{Error, Kind, Result, Subject};

/// What is read at once of a file that has to be hashed again.
const READ_BYTES: usize = 256 << 10;

/// A blob that is being written. Dropping it removes what was written.
pub struct BlobWriter {
    blobs: Blobs,
    purpose: Purpose,
    limit_bytes: u64,
    written: u64,
    collected: Vec<Bytes>,
    collected_bytes: usize,
    progress: Progress,
}

enum Progress {
    Idle(Box<Sink>),
    Writing(JoinHandle<Result<Box<Sink>>>),
    /// An error was reported already.
    Broken,
}

impl BlobWriter {
    pub(super) fn new(blobs: Blobs, purpose: Purpose, further: &[Algorithm], limit_bytes: u64) -> Self {
        let sink = Sink::new(&blobs, purpose, further);
        let progress = Progress::Idle(Box::new(sink));
        Self { blobs, purpose, limit_bytes, written: 0, collected: Vec::new(), collected_bytes: 0, progress }
    }

    /// Adds an algorithm to those wanted, unless bytes were taken already.
    pub(super) fn want(&mut self, algorithm: Algorithm) {
        if self.written == 0
            && let Progress::Idle(sink) = &mut self.progress
        {
            sink.hasher = Hasher::new(&[algorithm]);
        }
    }

    /// Takes the next bytes. Waits while the disk is more than a part behind.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] past the limit; [`Kind::Unavailable`] with [`Subject::Blob`] when the disk is full.
    /// After an error the blob cannot be completed.
    ///
    /// A caller that stops waiting loses nothing: the bytes are taken, and the next call goes on.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.limit_bytes {
            self.progress = Progress::Broken;
            return Err(Error::new(Kind::TooLarge, Subject::Blob).saying(format!("larger than {} bytes", self.limit_bytes)));
        }
        self.collected_bytes += bytes.len();
        self.collected.push(bytes);
        if self.collected_bytes as u64 >= self.blobs.0.config.write_coalesce_bytes {
            self.write_collected().await?;
        }
        Ok(())
    }

    /// Writes what is collected and holds no more than a name and a hash until the next write.
    /// A caller may stop waiting, as for [`BlobWriter::write`].
    ///
    /// # Errors
    /// As [`BlobWriter::write`].
    pub async fn pause(&mut self) -> Result<()> {
        if !self.collected.is_empty() {
            self.write_collected().await?;
        }
        self.settle().await?.close();
        Ok(())
    }

    /// Whether a part is in memory or a file open; [`BlobWriter::pause`] changes that.
    pub(super) fn is_paused(&self) -> bool {
        self.collected.is_empty() && matches!(&self.progress, Progress::Idle(sink) if sink.is_closed())
    }

    /// Starts to write what is collected, once the part before it is written.
    async fn write_collected(&mut self) -> Result<()> {
        self.settle().await?;
        let frames = std::mem::take(&mut self.collected);
        self.collected_bytes = 0;
        if let Progress::Idle(mut sink) = std::mem::replace(&mut self.progress, Progress::Broken) {
            self.progress = Progress::Writing(tokio::task::spawn_blocking(move || {
                sink.write(&frames)?;
                Ok(sink)
            }));
        }
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the rest. The blob is not kept yet.
    ///
    /// # Errors
    /// As [`BlobWriter::write`].
    pub async fn finish(mut self) -> Result<Staged> {
        self.settle().await?;
        let Progress::Idle(mut sink) = std::mem::replace(&mut self.progress, Progress::Broken) else { return Err(broken()) };
        let frames = std::mem::take(&mut self.collected);
        let (blobs, purpose, size) = (self.blobs.clone(), self.purpose, self.written);
        if blobs.is_journaled(purpose, size) && sink.is_untouched() {
            // Hashing this much takes less than the hop would.
            sink.hash(&frames);
            return Ok(Staged::in_memory(blobs, purpose, sink.digests(), joined(frames)));
        }
        blocking(move || {
            sink.write(&frames)?;
            let digests = sink.digests();
            Ok(Staged::new(blobs, purpose, digests, size, sink.finish()?))
        })
        .await
    }

    /// The sink, once it is idle. Who stops waiting leaves the part to be waited for by the next.
    async fn settle(&mut self) -> Result<&mut Sink> {
        if let Progress::Writing(part) = &mut self.progress {
            let written = part.await.map_err(|error| Error::internal(Subject::Blob, error)).and_then(|written| written);
            self.progress = Progress::Broken;
            self.progress = Progress::Idle(written?);
        }
        match &mut self.progress {
            Progress::Idle(sink) => Ok(sink),
            _ => Err(broken()),
        }
    }
}

fn joined(mut frames: Vec<Bytes>) -> Bytes {
    match frames.len() {
        1 => frames.remove(0),
        _ => frames.concat().into(),
    }
}

fn broken() -> Error {
    Error::internal(Subject::Blob, "written to after an error")
}

/// A blob that is written whole and hashed, to be kept or dropped.
pub struct Staged {
    blobs: Blobs,
    purpose: Purpose,
    digests: Digests,
    size: u64,
    content: Content,
}

/// Where a staged blob is.
enum Content {
    /// Small and hosted: it waits to be written together with others.
    Memory(Bytes),
    File(Temporary, File),
}

/// The content of a staged blob, from its beginning. Blocks.
pub enum Opened {
    /// It is in memory.
    Memory(Cursor<Bytes>),
    /// It is on disk.
    File(File),
}

impl Read for Opened {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(content) => content.read(out),
            Self::File(content) => content.read(out),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Memory(content) => content.seek(to),
            Self::File(content) => content.seek(to),
        }
    }
}

impl Staged {
    /// Its digests: SHA-256 and those asked for.
    #[must_use]
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its digest of an algorithm. One that was not asked for in time costs a reading of all of it.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn digest(&self, algorithm: Algorithm) -> Result<Digest> {
        if let Some(digest) = self.digests.get(algorithm) {
            return Ok(digest);
        }
        let mut content = self.open()?;
        let found = blocking(move || {
            let (mut hasher, mut buffer) = (Hasher::new(&[algorithm]), vec![0; READ_BYTES]);
            loop {
                match content.read(&mut buffer) {
                    Ok(0) => return Ok(hasher.finish().get(algorithm)),
                    Ok(read) => hasher.update(&buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        });
        found.await?.ok_or_else(|| Error::internal(Subject::Blob, "a digest was not computed"))
    }

    /// Opens the content from its beginning, to be read on a blocking thread.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> Result<Opened> {
        match &self.content {
            Content::Memory(bytes) => Ok(Opened::Memory(Cursor::new(bytes.clone()))),
            Content::File(temporary, _) => temporary.open().map(Opened::File).map_err(failed),
        }
    }

    /// The content, if it is in memory, as a small hosted blob's is.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Memory(bytes) => Some(bytes),
            Content::File(..) => None,
        }
    }

    /// Makes it a blob. When this returns a hosted blob survives a crash, name and all;
    /// of a cached one the content is on disk, so that its name never stands for less.
    ///
    /// # Errors
    /// When the disk fails; nothing is kept then.
    pub async fn keep(self) -> Result<Lease> {
        match self.content {
            Content::Memory(bytes) => self.blobs.keep_together(self.digests, bytes).await,
            Content::File(..) => blocking(move || self.keep_now()).await,
        }
    }

    pub(super) fn keep_now(self) -> Result<Lease> {
        let Self { blobs, purpose, digests, size, content } = self;
        let (temporary, file) = match content {
            Content::File(temporary, file) => (temporary, file),
            Content::Memory(bytes) => {
                let mut sink = Sink::new(&blobs, purpose, &[]);
                sink.store(&[bytes])?;
                sink.finish()?
            }
        };
        let id = id_of(&digests.sha256).ok_or_else(|| Error::internal(Subject::Blob, "not a SHA-256"))?;
        // Before the name exists, so that no sweep can see it without the lease.
        let lease = blobs.0.leases.take(id, digests.sha256, || size);
        match purpose {
            Purpose::Hosted => {
                file.sync_all().map_err(failed)?;
                temporary.into_place(&id).map_err(failed)?;
                blobs.0.disk.sync_names(&id).map_err(failed)?;
                // From now on the truth may name it, so it is no longer the cache's to evict.
                blobs.0.index.forget(&id);
            }
            Purpose::Cached => {
                file.sync_data().map_err(failed)?;
                temporary.into_place(&id).map_err(failed)?;
                blobs.0.index.enter(id, size, blobs.0.clock.now());
            }
        }
        // It was hashed just now. Without a stamp it is hashed once more by its first reader.
        if let Ok(stamp) = Stamp::of(&file) {
            blobs.0.proved.note(id, stamp, true);
        }
        Ok(lease)
    }
}

/// The file and the hash of a blob in the making. Blocks.
pub(super) struct Sink {
    disk: Arc<Disk>,
    /// Free bytes that must be left on the disk.
    reserve_bytes: u64,
    hasher: Hasher,
    temporary: Option<Temporary>,
    /// Closed between the requests of an upload that takes several.
    file: Option<File>,
}

impl Sink {
    pub(super) fn new(blobs: &Blobs, purpose: Purpose, further: &[Algorithm]) -> Self {
        let reserve_bytes = match purpose {
            Purpose::Hosted => blobs.0.config.metadata_reserve_bytes,
            Purpose::Cached => blobs.0.config.hosted_reserve_bytes.max(blobs.0.config.metadata_reserve_bytes),
        };
        Self { disk: Arc::clone(&blobs.0.disk), reserve_bytes, hasher: Hasher::new(further), temporary: None, file: None }
    }

    /// Takes in the frames and writes them.
    pub(super) fn write(&mut self, frames: &[Bytes]) -> Result<()> {
        self.hash(frames);
        self.store(frames)
    }

    /// Takes out what computes the further digests, if there are any, for another thread.
    pub(super) fn split_hasher(&mut self) -> Option<Further> {
        self.hasher.split()
    }

    /// Puts back what [`Sink::split_hasher`] took out, once it has seen the same bytes.
    pub(super) fn join_hasher(&mut self, further: Further) {
        self.hasher.join(further);
    }

    pub(super) fn hash(&mut self, frames: &[Bytes]) {
        for frame in frames {
            self.hasher.update(frame);
        }
    }

    pub(super) fn store(&mut self, frames: &[Bytes]) -> Result<()> {
        let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        let free = self.disk.free().map_err(failed)?;
        if free < self.reserve_bytes.saturating_add(bytes) {
            return Err(full());
        }
        disk::append(self.file()?, frames).map_err(failed)
    }

    /// The file; it is made when it is first asked for.
    pub(super) fn file(&mut self) -> Result<&File> {
        let file = match (self.file.take(), &self.temporary) {
            (Some(file), _) => file,
            (None, Some(temporary)) => temporary.reopen().map_err(failed)?,
            (None, None) => {
                let (temporary, file) = self.disk.temporary().map_err(failed)?;
                self.temporary = Some(temporary);
                file
            }
        };
        Ok(self.file.insert(file))
    }

    /// Closes the file, until it is asked for again.
    fn close(&mut self) {
        self.file = None;
    }

    fn is_closed(&self) -> bool {
        self.file.is_none()
    }

    /// Whether nothing was written yet.
    fn is_untouched(&self) -> bool {
        self.temporary.is_none()
    }

    /// The digests of all that was taken in, once.
    pub(super) fn digests(&mut self) -> Digests {
        std::mem::take(&mut self.hasher).finish()
    }

    /// The file.
    pub(super) fn finish(mut self) -> Result<(Temporary, File)> {
        self.file()?;
        self.temporary.zip(self.file).ok_or_else(|| Error::internal(Subject::Blob, "no file"))
    }
}

impl Blobs {
    /// Makes a file that an upstream's body was written to a cached blob, without waiting for the disk: after a
    /// loss of power a file that is not what its name says counts as absent and is fetched again. It never takes
    /// the place of a file that is there, though, before it is on disk: that one may be of a hosted blob.
    pub(super) fn place_cached(&self, digest: &Digest, size: u64, temporary: Temporary, file: &File) -> Result<Lease> {
        let id = id_of(digest).ok_or_else(|| Error::internal(Subject::Blob, "not a SHA-256"))?;
        // Before the name exists, so that no sweep can see it without the lease.
        let lease = self.0.leases.take(id, *digest, || size);
        if let Some(temporary) = temporary.into_vacant(&id).map_err(failed)? {
            file.sync_data().map_err(failed)?;
            temporary.into_place(&id).map_err(failed)?;
        }
        self.0.index.enter(id, size, self.0.clock.now());
        // It was hashed just now. Without a stamp it is hashed once more by its first reader, as a small one always is.
        if size > self.0.config.small_limit_bytes
            && let Ok(stamp) = Stamp::of(file)
        {
            self.0.proved.note(id, stamp, true);
        }
        Ok(lease)
    }
}

impl Staged {
    pub(super) fn new(blobs: Blobs, purpose: Purpose, digests: Digests, size: u64, (temporary, file): (Temporary, File)) -> Self {
        Self { blobs, purpose, digests, size, content: Content::File(temporary, file) }
    }

    /// A hosted blob that is small enough to wait in memory.
    pub(super) fn in_memory(blobs: Blobs, purpose: Purpose, digests: Digests, bytes: Bytes) -> Self {
        Self { blobs, purpose, digests, size: bytes.len() as u64, content: Content::Memory(bytes) }
    }
}
