//! Blobs as files, named by digest, in folders of our own.
//!
//! ```text
//! blobs/sha256/ab/abcd…   a blob; whole, hashed, never changed
//! segments/               small cached blobs, many to a file; see `segment`
//! journal/                small hosted blobs until their files are on disk; see `journal`
//! tmp/<number>            being written or on its way out; emptied at start
//! quarantine/             what a check found wrong, for the operator to look at
//! ```
//!
//! A blob is written in `tmp`, synced, and renamed into place, so that a name in
//! `blobs` always stands for the whole content. All are on one file system. Files
//! are opened relative to folders that are held open and never through a symbolic
//! link: a planted link must not make the server read, or name as a blob, a file
//! from elsewhere. Everything here blocks for as long as the disk takes.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Id;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Subject};

/// Tells how many bytes may still be written, given the blobs' folder. Tests replace it to fill the disk.
pub(super) type FreeSpace = Box<dyn Fn(&OwnedFd) -> io::Result<u64> + Send + Sync>;

/// The folders of a data directory.
pub(super) struct Disk {
    blobs: OwnedFd,
    sha256: OwnedFd,
    temporaries: OwnedFd,
    quarantine: OwnedFd,
    journal: OwnedFd,
    segments: OwnedFd,
    next: AtomicU64,
    free: FreeSpace,
    /// Which folders of blobs have been synced into `blobs/sha256`.
    synced: [AtomicBool; 256],
}

/// A name in a folder that holds blobs.
#[derive(Debug)]
pub(super) struct Found {
    pub name: Vec<u8>,
    pub regular: bool,
    pub folder: bool,
    pub size: u64,
    pub modified: Timestamp,
}

impl Found {
    /// The digest that this name stands for in `shard`, if it is one.
    pub(super) fn id(&self, shard: u8) -> Option<Id> {
        let mut id = Id::default();
        hex::decode_to_slice(&self.name, &mut id).ok()?;
        // Decoding takes upper case too; a blob has one name.
        (self.regular && id[0] == shard && !self.name.iter().any(u8::is_ascii_uppercase)).then_some(id)
    }
}

/// Which folder of [`Disk`] is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Folder {
    /// `blobs`
    Blobs,
    /// `blobs/sha256`
    Sha256,
    /// `blobs/sha256/ab`
    Shard(u8),
    /// `segments`
    Segments,
}

impl Folder {
    /// The path of a name in this folder, for reports.
    pub(super) fn path(self, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name).escape_default().to_string();
        match self {
            Self::Blobs => format!("blobs/{name}"),
            Self::Sha256 => format!("blobs/sha256/{name}"),
            Self::Shard(shard) => format!("blobs/sha256/{shard:02x}/{name}"),
            Self::Segments => format!("segments/{name}"),
        }
    }
}

impl Disk {
    /// Opens the folders under `root`, making what is absent, and empties `tmp`.
    pub(super) fn open(root: &Path, free: FreeSpace) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root = File::open(root)?;
        let blobs = folder(&root, "blobs")?;
        let sha256 = folder(&blobs, "sha256")?;
        for found in list(&sha256)? {
            // The folders of blobs are made when they are needed; what stands in place of one must be a folder.
            if found.name.len() == 2 && !found.folder {
                let name = String::from_utf8_lossy(&found.name).into_owned();
                return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("blobs/sha256/{name} is not a folder")));
            }
        }
        rustix::fs::fsync(&blobs)?;
        let temporaries = folder(&root, "tmp")?;
        let quarantine = folder(&root, "quarantine")?;
        let journal = folder(&root, "journal")?;
        let segments = folder(&root, "segments")?;
        rustix::fs::fsync(&root)?;
        let disk = Self {
            blobs,
            sha256,
            temporaries,
            quarantine,
            journal,
            segments,
            next: AtomicU64::new(0),
            free,
            synced: std::array::from_fn(|_| AtomicBool::new(false)),
        };
        for found in list(&disk.temporaries)? {
            if found.regular {
                rustix::fs::unlinkat(&disk.temporaries, &found.name[..], AtFlags::empty())?;
            } else {
                disk.put_away(&disk.temporaries, &found.name)?;
            }
        }
        Ok(disk)
    }

    /// The folder of the segments.
    pub(super) fn segments(&self) -> &OwnedFd {
        &self.segments
    }

    /// Bytes that may still be written.
    pub(super) fn free(&self) -> io::Result<u64> {
        (self.free)(&self.blobs)
    }

    /// A new empty file in `tmp`.
    pub(super) fn temporary(self: &Arc<Self>) -> io::Result<(Temporary, File)> {
        let name = self.temporary_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.temporaries, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((Temporary { disk: Arc::clone(self), name: Some(name) }, file.into()))
    }

    /// Opens a blob to read. `None` when there is no regular file of its name.
    pub(super) fn blob(&self, id: &Id) -> io::Result<Option<File>> {
        // Without NONBLOCK a planted pipe would hold up the caller for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.sha256, path(id), flags, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                Ok(file.metadata()?.is_file().then_some(file))
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Size of a blob. `None` when there is no regular file of its name.
    pub(super) fn size(&self, id: &Id) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.sha256, path(id), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => Ok(Some(u64::try_from(stat.st_size).unwrap_or(0))),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a blob's name away at once; its space is freed when the result is dropped.
    pub(super) fn detach(self: &Arc<Self>, id: &Id) -> io::Result<Option<Temporary>> {
        let name = self.temporary_name();
        match rustix::fs::renameat(&self.sha256, path(id), &self.temporaries, &name) {
            Ok(()) => Ok(Some(Temporary { disk: Arc::clone(self), name: Some(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the names in a blob's folder survive a crash.
    pub(super) fn sync_names(&self, id: &Id) -> io::Result<()> {
        let synced = &self.synced[usize::from(id[0])];
        if !synced.load(Ordering::Acquire) {
            rustix::fs::fsync(&self.sha256)?;
            synced.store(true, Ordering::Release);
        }
        Ok(rustix::fs::fsync(self.shard(id[0])?)?)
    }

    /// Makes a small blob of bytes. Nothing is synced.
    pub(super) fn place(self: &Arc<Self>, id: &Id, bytes: &[u8]) -> io::Result<()> {
        let (temporary, mut file) = self.temporary()?;
        file.write_all(bytes)?;
        temporary.into_place(id)
    }

    /// Whether a blob is there and is these bytes.
    pub(super) fn holds(&self, id: &Id, bytes: &[u8]) -> io::Result<bool> {
        let Some(mut file) = self.blob(id)? else { return Ok(false) };
        if file.metadata()?.len() != bytes.len() as u64 {
            return Ok(false);
        }
        let mut found = Vec::with_capacity(bytes.len());
        // After a loss of power some of it may not even be readable.
        Ok(file.read_to_end(&mut found).is_ok() && found == bytes)
    }

    /// Waits until all that was written before, names and all, is on disk.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.blobs)?)
    }

    /// A file of the journal, of so many bytes, all of them there already.
    pub(super) fn journal_file(&self, number: usize, bytes: usize) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File = rustix::fs::openat(&self.journal, number.to_string(), flags, Mode::RUSR | Mode::WUSR)?.into();
        if file.metadata()?.len() != bytes as u64 {
            file.set_len(0)?;
            io::copy(&mut io::repeat(0).take(bytes as u64), &mut file)?;
            file.sync_all()?;
            rustix::fs::fsync(&self.journal)?;
        }
        Ok(file)
    }

    /// All of a file of the journal; `None` when there is none.
    pub(super) fn read_journal(&self, number: usize) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.journal, number.to_string(), flags, Mode::empty()) {
            Ok(file) => {
                let mut page = Vec::new();
                File::from(file).read_to_end(&mut page)?;
                Ok(Some(page))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file of the journal.
    pub(super) fn clear_journal(&self, number: usize) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.journal, number.to_string(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(rustix::fs::fsync(&self.journal)?),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a name to `quarantine`, as it is: a link stays a link.
    pub(super) fn quarantine(&self, folder: Folder, name: &[u8]) -> io::Result<()> {
        match folder {
            Folder::Blobs => self.put_away(&self.blobs, name),
            Folder::Sha256 => self.put_away(&self.sha256, name),
            Folder::Shard(shard) => self.put_away(&self.shard(shard)?, name),
            Folder::Segments => self.put_away(&self.segments, name),
        }
    }

    /// All names in a folder. A folder that is absent or not one is empty.
    pub(super) fn list(&self, folder: Folder) -> io::Result<Vec<Found>> {
        let shard = match folder {
            Folder::Blobs => return list(&self.blobs),
            Folder::Sha256 => return list(&self.sha256),
            Folder::Segments => return list(&self.segments),
            Folder::Shard(shard) => self.shard(shard),
        };
        match shard {
            Ok(shard) => list(&shard),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn shard(&self, shard: u8) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.sha256, format!("{shard:02x}"), FOLDER, Mode::empty())
    }

    /// Makes the folder of a blob that is the first in it.
    fn make_shard(&self, id: &Id) -> io::Result<()> {
        self.synced[usize::from(id[0])].store(false, Ordering::Release);
        folder(&self.sha256, &format!("{:02x}", id[0])).map(drop)
    }

    fn put_away(&self, folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let readable = String::from_utf8_lossy(name).chars().filter(char::is_ascii_alphanumeric).take(80).collect::<String>();
        // A name may be taken from an earlier run; numbers are free sooner or later.
        for _ in 0..10_000 {
            let away = format!("{readable}-{}", self.next.fetch_add(1, Ordering::Relaxed));
            match rustix::fs::renameat_with(folder, name, &self.quarantine, away, rustix::fs::RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn temporary_name(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

/// A name in `tmp`. Dropping it removes the file.
pub(super) struct Temporary {
    disk: Arc<Disk>,
    /// `None` once it became a blob.
    name: Option<String>,
}

impl Temporary {
    /// Opens the file again, with a position of its own.
    pub(super) fn open(&self) -> io::Result<File> {
        let name = self.name.as_deref().unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.disk.temporaries, name, flags, Mode::empty())?.into())
    }

    /// Opens the file again, to write on at its end.
    pub(super) fn reopen(&self) -> io::Result<File> {
        let name = self.name.as_deref().unwrap_or_default();
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.disk.temporaries, name, flags, Mode::empty())?.into())
    }

    /// Gives the file its blob's name, unless there is one of that name: then it comes back.
    pub(super) fn into_vacant(mut self, id: &Id) -> io::Result<Option<Self>> {
        let Some(name) = &self.name else { return Ok(None) };
        let rename = || {
            let once = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&self.disk.temporaries, name, &self.disk.sha256, path(id), once)
        };
        let renamed = match rename() {
            Err(Errno::NOENT) => {
                self.disk.make_shard(id)?;
                rename()
            }
            renamed => renamed,
        };
        match renamed {
            Ok(()) => {
                self.name = None;
                Ok(None)
            }
            // Some file systems do not know how to rename so.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Some(self)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the file its blob's name, over an older one: equal content by name,
    /// and this copy was hashed just now, so it also heals one that is damaged.
    pub(super) fn into_place(mut self, id: &Id) -> io::Result<()> {
        if let Some(name) = &self.name {
            let rename = || rustix::fs::renameat(&self.disk.temporaries, name, &self.disk.sha256, path(id));
            match rename() {
                Err(Errno::NOENT) => {
                    self.disk.make_shard(id)?;
                    rename()?;
                }
                renamed => renamed?,
            }
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(error) = rustix::fs::unlinkat(&self.disk.temporaries, name, AtFlags::empty())
        {
            // The next start empties the folder.
            tracing::warn!(%error, name, "a temporary file was not removed");
        }
    }
}

/// Writes all frames at the file's end in as few calls as can be. How a file was
/// written decides how fast it is served later: calls of 256 KiB and more make
/// large pages in the kernel's cache, which were read 1.6 times as fast.
pub(super) fn append(mut file: &File, frames: &[Bytes]) -> io::Result<()> {
    /// The kernel's limit (`IOV_MAX`).
    const SLICES: usize = 1024;
    for frames in frames.chunks(SLICES) {
        let mut slices: Vec<_> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// What the file system has free for a user without privileges.
pub(super) fn free_space(folder: &OwnedFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether an error says that the disk takes no more bytes.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The error of a disk operation. What an operator can mend (space, rights, handles) is
/// [`Kind::Unavailable`]; the rest is [`Kind::Internal`].
pub(super) fn failed(error: io::Error) -> Error {
    let handles = error.raw_os_error().is_some_and(|code| code == Errno::MFILE.raw_os_error() || code == Errno::NFILE.raw_os_error());
    if is_full(&error) {
        full().because(error)
    } else if handles || matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
        Error::new(Kind::Unavailable, Subject::Blob).saying("the blob storage is not available").because(error)
    } else {
        Error::internal(Subject::Blob, error)
    }
}

/// The error of a full disk.
pub(super) fn full() -> Error {
    Error::new(Kind::Unavailable, Subject::Blob).saying("the disk is full")
}

/// How folders are opened.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn folder(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::openat(&parent, name, FOLDER, Mode::empty())
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{name} is not a folder that can be opened: {error}")))
}

fn list(folder: &OwnedFd) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        match rustix::fs::statat(folder, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let kind = FileType::from_raw_mode(stat.st_mode);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                all.push(Found { name, regular: kind.is_file(), folder: kind.is_dir(), size, modified: modified(&stat) });
            }
            // It was removed after it was listed.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

fn modified(stat: &rustix::fs::Stat) -> Timestamp {
    Timestamp::from_millis(stat.st_mtime.saturating_mul(1000))
}

fn path(id: &Id) -> String {
    let name = hex::encode(id);
    format!("{}/{name}", &name[..2])
}
