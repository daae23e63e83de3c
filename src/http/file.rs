//! A stored file as a body: what a connection needs to send it, in either of two ways.
//!
//! Where bytes must pass through our hands (TLS, HTTP/2) they are read in chunks of 256 KiB into buffers that are used again.
//! On a plain HTTP/1 connection the kernel sends them from its own cache; see `server::sendfile`.
//!
//! Both are done on the thread that asks, so both first make sure that the bytes are in the kernel's cache (`preadv2` with
//! `RWF_NOWAIT`): 0.65 µs for 20 KB against 6 µs and more through a blocking thread, and 0.4 µs for a look at one page. What
//! must come from the disk is read by a blocking thread, and counted.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use rustix::io::{Errno, ReadWriteFlags};

use super::{ChunkStream, mapping};

/// Size of the chunks in which a file is read.
pub const CHUNK: usize = 256 << 10;

/// A file that never changes any more, open to be read by many at once.
pub struct StoredFile {
    file: Arc<File>,
    size: u64,
    buffers: Arc<Buffers>,
    /// Made when it is first asked for.
    mapping: OnceLock<Bytes>,
}

impl StoredFile {
    /// Wraps a file of `size` bytes.
    #[must_use]
    pub fn new(file: File, size: u64, buffers: Arc<Buffers>) -> Self {
        Self { file: Arc::new(file), size, buffers, mapping: OnceLock::new() }
    }

    /// A file with a mapping that holds other bytes, so that a test can tell which of the two it gets.
    #[cfg(test)]
    pub(crate) fn with_mapping(file: File, mapping: Bytes, buffers: Arc<Buffers>) -> Self {
        let stored = Self::new(file, mapping.len() as u64, buffers);
        Self { mapping: OnceLock::from(mapping), ..stored }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The whole file as memory, to be sent and not to be read; see `mapping`. The mapping lives as long as the file or a slice.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn mapped(&self) -> io::Result<&Bytes> {
        if let Some(mapping) = self.mapping.get() {
            return Ok(mapping);
        }
        let mapping = mapping::map(&self.file, self.size)?;
        Ok(self.mapping.get_or_init(|| mapping))
    }

    /// Whether the kernel has a range in its cache, by a look at a few of its pages. `false` if it cannot tell.
    ///
    /// # Errors
    /// When the file is shorter than the range, or the disk fails.
    pub fn is_cached(&self, range: &Range<u64>) -> io::Result<bool> {
        let places = (range.start..range.end).step_by(LOOK_EVERY).chain(range.end.checked_sub(1));
        for place in places {
            match rustix::io::preadv2(&*self.file, &mut [IoSliceMut::new(&mut [0])], place, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(short()),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Has the kernel read a range into its cache. Blocks as long as the disk takes.
    ///
    /// # Errors
    /// When the file is shorter than the range, or the disk fails.
    pub fn fetch(&self, range: Range<u64>) -> io::Result<()> {
        self.buffers.cold.fetch_add(1, Ordering::Relaxed);
        let mut buffer = self.buffers.take(CHUNK);
        let mut position = range.start;
        while position < range.end {
            let most = usize::try_from(range.end - position).unwrap_or(CHUNK).min(CHUNK);
            match read_some(&self.file, &mut buffer.bytes[..most], position)? {
                0 => return Err(short()),
                read => position += read as u64,
            }
        }
        Ok(())
    }

    /// The whole file, for one that is small: in one read, if the kernel has it in its cache.
    ///
    /// # Errors
    /// When the file is shorter than it should be, or the disk fails.
    pub async fn read_whole(&self) -> io::Result<Bytes> {
        self.buffers.read_exact(&self.file, 0, self.size).await
    }
}

/// Distance of the pages that are looked at to tell whether a range is in the kernel's cache.
const LOOK_EVERY: usize = 512 << 10;

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a blob's file is shorter than the blob")
}

/// A range of a stored file as a body.
pub struct FileBody {
    /// The file.
    pub file: Arc<StoredFile>,
    /// The bytes meant; they are within the file's size.
    pub range: Range<u64>,
}

impl FileBody {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Its bytes, read chunk by chunk.
    #[must_use]
    pub fn chunks(self) -> ChunkStream {
        let Self { file, range } = self;
        Box::pin(stream::try_unfold(range, move |range| {
            let file = Arc::clone(&file);
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let chunk = file.buffers.read(&file.file, range.start, range.end - range.start).await?;
                let rest = range.start + chunk.len() as u64..range.end;
                Ok(Some((chunk, rest)))
            }
        }))
    }
}

/// Buffers that are used again, so that reading neither allocates nor zeroes a chunk's memory each time.
pub struct Buffers {
    idle: Mutex<Vec<Box<[u8]>>>,
    most: usize,
    cold: AtomicU64,
}

impl Buffers {
    /// Keeps at most `most` idle buffers of 256 KiB each.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), most, cold: AtomicU64::new(0) }
    }

    /// How many reads had to wait for the disk since this was last asked.
    pub fn take_cold_reads(&self) -> u64 {
        self.cold.swap(0, Ordering::Relaxed)
    }

    /// Reads at least one and at most `most` bytes at `position`, at most one chunk.
    ///
    /// # Errors
    /// When the file ends before, or the disk fails.
    pub async fn read(self: &Arc<Self>, file: &Arc<File>, position: u64, most: u64) -> io::Result<Bytes> {
        let length = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = self.take(length);
        let read = match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut buffer.bytes[..length])], position, ReadWriteFlags::NOWAIT) {
            // Fewer than asked for is progress: the rest may be on disk only.
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => {
                self.cold.fetch_add(1, Ordering::Relaxed);
                let file = Arc::clone(file);
                let waited = tokio::task::spawn_blocking(move || {
                    let read = read_some(&file, &mut buffer.bytes[..length], position);
                    (buffer, read)
                });
                let (back, read) = waited.await.map_err(io::Error::other)?;
                buffer = back;
                read?
            }
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            return Err(short());
        }
        buffer.length = read;
        Ok(Bytes::from_owner(buffer))
    }

    /// Reads so many bytes at `position`, into memory of just that size: in one read, if the kernel has them in its cache.
    ///
    /// # Errors
    /// When the file ends before, or the disk fails.
    pub async fn read_exact(&self, file: &Arc<File>, position: u64, size: u64) -> io::Result<Bytes> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = vec![0; size];
        match rustix::io::preadv2(&**file, &mut [IoSliceMut::new(&mut bytes)], position, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == size => return Ok(bytes.into()),
            _ => self.cold.fetch_add(1, Ordering::Relaxed),
        };
        let file = Arc::clone(file);
        let read = move || file.read_exact_at(&mut bytes, position).map(|()| Bytes::from(bytes));
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn take(self: &Arc<Self>, length: usize) -> Buffer {
        if length < CHUNK / 4 {
            return Buffer { bytes: vec![0; length].into(), length, home: None };
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer { bytes: idle.unwrap_or_else(|| vec![0; CHUNK].into()), length, home: Some(Arc::clone(self)) }
    }
}

struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    home: Option<Arc<Buffers>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut idle = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < home.most {
                idle.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// Fills a buffer from a file, as far as the file goes. Blocks.
///
/// # Errors
/// When the disk fails before the first byte.
pub fn read_some(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], position + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What was read is good; the next call meets the error again.
            Err(_) if read > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
