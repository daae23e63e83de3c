//! Small cached blobs, many to a file.
//!
//! Making a file, writing 20 KB to it and giving it its name costs 42 µs, putting the bytes at the end of a file that is
//! open 8 µs. So small bodies from upstreams are put one after another in segments:
//!
//! ```text
//! segments/<number>.data   the bytes
//! segments/<number>.list   48 bytes for each: SHA-256, offset, length (8 bytes each, big end first)
//! ```
//!
//! Nothing is synced, and nothing has to be: these are copies, and each is hashed whenever it is taken into memory, which
//! is the only way it is read. What a crash has torn, a line cut short or bytes that never came, is found by that and
//! counts as absent. So is a line for a blob that was evicted in an earlier run: it comes back, to be evicted again.
//!
//! What is evicted leaves a hole. A segment in which nothing lives goes at once; one that is less than half alive is
//! copied by the eviction that made it so. Holes are therefore never more than what lives, and far less as a rule: what was
//! fetched at one time is evicted at one time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::Id;
use super::disk::{self, Disk};
use crate::clock::Timestamp;

/// Length of a line in a list.
const LINE: usize = 48;

/// Where in the segments a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u32,
    pub offset: u64,
}

/// A blob in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub id: Id,
    pub place: Place,
    pub size: u64,
    /// When its segment was last written to, as far as that is known.
    pub written: Timestamp,
}

/// All segments of a data directory.
pub(super) struct Segments {
    disk: Arc<Disk>,
    /// From this size on a segment is not added to.
    full_bytes: u64,
    all: RwLock<BTreeMap<u32, Arc<Segment>>>,
    last: Mutex<Last>,
}

struct Segment {
    data: Arc<File>,
    bytes: AtomicU64,
    live: AtomicU64,
    /// Whether nothing is added to it any more.
    sealed: AtomicBool,
}

/// The segment that is added to.
struct Last {
    open: Option<(u32, Arc<Segment>, File)>,
    next: u32,
}

impl Segments {
    /// Opens the segments; gives what they hold, a newer copy after an older one. All of it counts as alive.
    pub(super) fn open(disk: &Arc<Disk>, full_bytes: u64) -> io::Result<(Self, Vec<Placed>)> {
        let last = Mutex::new(Last { open: None, next: 0 });
        let segments = Self { disk: Arc::clone(disk), full_bytes, all: RwLock::default(), last };
        let found = disk.list(disk::Folder::Segments)?;
        let number = |name: &[u8], end: &str| std::str::from_utf8(name).ok()?.strip_suffix(end)?.parse::<u32>().ok();
        let mut numbers: Vec<_> = found.iter().filter(|found| found.regular).filter_map(|found| number(&found.name, ".data")).collect();
        numbers.sort_unstable();
        let mut all = Vec::new();
        for number in numbers {
            let modified = found.iter().find(|found| found.name == data_name(number).as_bytes()).map(|found| found.modified);
            segments.load(number, modified.unwrap_or_default(), &mut all)?;
        }
        for stray in found.iter().filter_map(|found| number(&found.name, ".list")).filter(|number| !segments.has(*number)) {
            segments.remove(stray)?;
        }
        segments.go_on()?;
        Ok((segments, all))
    }

    /// Opens the newest segment to be added to, if it is not full.
    fn go_on(&self) -> io::Result<()> {
        let newest =
            self.all.read().unwrap_or_else(PoisonError::into_inner).last_key_value().map(|(number, newest)| (*number, Arc::clone(newest)));
        let Some((number, segment)) = newest.filter(|(_, segment)| segment.bytes.load(Ordering::Relaxed) < self.full_bytes) else {
            return Ok(());
        };
        let list = self.file(&list_name(number), OFlags::RDWR | OFlags::APPEND)?;
        // A line that a crash has cut short would put all that follow out of step.
        let length = list.metadata()?.len();
        list.set_len(length - length % LINE as u64)?;
        segment.sealed.store(false, Ordering::SeqCst);
        lock(&self.last).open = Some((number, segment, list));
        Ok(())
    }

    fn load(&self, number: u32, written: Timestamp, all: &mut Vec<Placed>) -> io::Result<()> {
        let data = self.file(&data_name(number), OFlags::RDWR | OFlags::APPEND)?;
        let bytes = data.metadata()?.len();
        let before = all.len();
        all.extend(self.lines(number, bytes)?.into_iter().map(|placed| Placed { written, ..placed }));
        let live = all[before..].iter().map(|placed| placed.size).sum::<u64>();
        let (bytes, live) = (AtomicU64::new(bytes), AtomicU64::new(live));
        let segment = Segment { data: Arc::new(data), bytes, live, sealed: AtomicBool::new(true) };
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(segment));
        lock(&self.last).next = number.saturating_add(1);
        if all.len() == before {
            self.remove(number)?;
        }
        Ok(())
    }

    /// What the list of a segment of so many bytes says; lines that cannot be right are left out.
    fn lines(&self, number: u32, bytes: u64) -> io::Result<Vec<Placed>> {
        let mut list = Vec::new();
        match self.file(&list_name(number), OFlags::RDONLY) {
            Ok(mut file) => file.read_to_end(&mut list)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let line = |line: &[u8]| {
            let (id, rest) = line.split_first_chunk::<32>()?;
            let (offset, size) = rest.split_first_chunk::<8>()?;
            let (offset, size) = (u64::from_be_bytes(*offset), u64::from_be_bytes(*size.first_chunk()?));
            let right = *id != Id::default() && offset.checked_add(size).is_some_and(|end| end <= bytes);
            right.then(|| Placed { id: *id, place: Place { segment: number, offset }, size, written: Timestamp::default() })
        };
        Ok(list.chunks_exact(LINE).filter_map(line).collect())
    }

    /// Puts blobs at the end of the last segment. They count as alive from now on. Blocks.
    pub(super) fn append(&self, blobs: &[(Id, Bytes)]) -> io::Result<Vec<Place>> {
        let mut last = lock(&self.last);
        if last.open.as_ref().is_none_or(|(_, segment, _)| segment.bytes.load(Ordering::Relaxed) >= self.full_bytes) {
            self.begin(&mut last)?;
        }
        let Some((number, segment, mut list)) = last.open.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let begin = segment.bytes.load(Ordering::Relaxed);
        let mut end = begin;
        let (mut places, mut lines) = (Vec::with_capacity(blobs.len()), Vec::with_capacity(blobs.len() * LINE));
        for (id, bytes) in blobs {
            lines.extend_from_slice(id);
            lines.extend_from_slice(&end.to_be_bytes());
            lines.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            places.push(Place { segment: number, offset: end });
            end += bytes.len() as u64;
        }
        let frames: Vec<Bytes> = blobs.iter().map(|(_, bytes)| bytes.clone()).collect();
        if let Err(error) = disk::append(&segment.data, &frames).and_then(|()| list.write_all(&lines)) {
            // Nobody knows what is at the end now, so nothing is put after it.
            self.seal(number, &segment)?;
            return Err(error);
        }
        segment.bytes.store(end, Ordering::Relaxed);
        segment.live.fetch_add(end - begin, Ordering::SeqCst);
        last.open = Some((number, segment, list));
        Ok(places)
    }

    /// Adds nothing more to a segment.
    fn seal(&self, number: u32, segment: &Segment) -> io::Result<()> {
        segment.sealed.store(true, Ordering::SeqCst);
        if segment.live.load(Ordering::SeqCst) == 0 { self.remove(number) } else { Ok(()) }
    }

    /// Begins a new segment.
    fn begin(&self, last: &mut Last) -> io::Result<()> {
        if let Some((number, segment, _)) = last.open.take() {
            self.seal(number, &segment)?;
        }
        let number = last.next;
        last.next = number.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        let new = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let list = self.file(&list_name(number), new)?;
        let data = Arc::new(self.file(&data_name(number), new)?);
        let segment = Arc::new(Segment { data, bytes: AtomicU64::new(0), live: AtomicU64::new(0), sealed: AtomicBool::new(false) });
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&segment));
        last.open = Some((number, segment, list));
        Ok(())
    }

    /// The file that a place is in; `None` once nothing lives there.
    pub(super) fn data(&self, place: Place) -> Option<Arc<File>> {
        self.get(place.segment).map(|segment| Arc::clone(&segment.data))
    }

    /// Makes a hole of a blob. The last one of a segment removes it. Blocks then.
    pub(super) fn release(&self, place: Place, size: u64) {
        let Some(segment) = self.get(place.segment) else { return };
        let left = segment.live.fetch_sub(size, Ordering::SeqCst).saturating_sub(size);
        if left == 0
            && segment.sealed.load(Ordering::SeqCst)
            && let Err(error) = self.remove(place.segment)
        {
            tracing::warn!(%error, segment = place.segment, "a segment was not removed");
        }
    }

    /// Segments that are less than half alive and not added to.
    pub(super) fn wasteful(&self) -> Vec<u32> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, segment)| segment.is_wasteful()).map(|(number, _)| *number).collect()
    }

    /// All segments.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// What was put in a segment, holes included. Blocks.
    pub(super) fn listed(&self, number: u32) -> io::Result<Vec<Placed>> {
        match self.get(number) {
            Some(segment) => self.lines(number, segment.bytes.load(Ordering::Relaxed)),
            None => Ok(Vec::new()),
        }
    }

    /// Reads a blob's bytes, which are yet to be proved. Blocks.
    pub(super) fn read(&self, placed: &Placed) -> io::Result<Bytes> {
        let data = self.data(placed.place).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; usize::try_from(placed.size).map_err(io::Error::other)?];
        data.read_exact_at(&mut bytes, placed.place.offset)?;
        Ok(bytes.into())
    }

    fn get(&self, number: u32) -> Option<Arc<Segment>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    fn has(&self, number: u32) -> bool {
        self.get(number).is_some()
    }

    /// Removes a segment. Who reads it reads on.
    fn remove(&self, number: u32) -> io::Result<()> {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        for name in [data_name(number), list_name(number)] {
            match rustix::fs::unlinkat(self.disk.segments(), name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn file(&self, name: &str, how: OFlags) -> io::Result<File> {
        let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.disk.segments(), name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}

impl Segment {
    fn is_wasteful(&self) -> bool {
        let (live, bytes) = (self.live.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        self.sealed.load(Ordering::Relaxed) && live < bytes / 2
    }
}

fn data_name(number: u32) -> String {
    format!("{number}.data")
}

fn list_name(number: u32) -> String {
    format!("{number}.list")
}

fn lock(last: &Mutex<Last>) -> MutexGuard<'_, Last> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}
