//! A blob being fetched that many readers follow.
//!
//! One [`Filler`] takes the bytes as they come from an upstream. Readers get them at
//! once from memory, without waiting for the hash or the disk; who is slower than the
//! window, or comes late, follows the growing file, so slow readers hold no memory and
//! one fetch serves all. A reader that leaves ends nothing.
//!
//! The last frame is held back until length and digests have proved right. When
//! something is wrong every reader's stream ends with an error, so a bad body never
//! ends cleanly, and nothing is kept. Once they are right nobody waits for the disk:
//! the blob gets its name after its readers got their last byte.
//!
//! Hashing and writing run on a blocking thread for as long as a part's worth of bytes
//! is waiting. Hashing goes first, since readers wait for its end and not for the disk's:
//! what is hashed and not yet written stays in memory, within limits. A further digest of
//! a large body has a thread of its own: SHA-256 runs at 2.1 GB/s and SHA-512 at 0.9.
//! A small body is hashed where it is received and written behind its readers, many in one go.
//!
//! A full disk does not end a fetch: from then on frames stay in memory until every
//! reader had them, and the slowest one sets the pace.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use self::window::{Limits, Window};
use super::write::Sink;
use super::{Blobs, Purpose};
use crate::digest::{Algorithm, Digest, Digests, Further};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::Inspection;

mod fill;
mod follow;
pub(super) mod frames;
mod hands;
mod window;

pub use fill::Filler;
pub use follow::Spool;

/// What is known of a body before it comes.
#[derive(Clone)]
pub struct Expect {
    /// Its length in bytes, if the upstream said so.
    pub length: Option<u64>,
    /// Digests that it must have.
    pub promised: Vec<Digest>,
    /// What it is proved by besides, when all of it is there. A body that the disk has no room for and that
    /// is not in memory as a whole goes without.
    pub inspection: Option<Inspection>,
    /// Most bytes that are taken.
    pub limit_bytes: u64,
}

/// What a fill came to.
#[derive(Debug)]
pub struct Kept {
    /// SHA-256 and the digests of the promised algorithms.
    pub digests: Digests,
    /// Size in bytes.
    pub size: u64,
    /// Whether the blob is in the cache or about to be; `false` when the body is right and was passed on, but there was no
    /// room to keep it.
    pub stored: bool,
}

/// What a follower learns about the end of a fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// SHA-256 and the digests of the promised algorithms.
    pub digests: Digests,
    /// Size in bytes.
    pub size: u64,
    /// Whether the blob is in the cache or about to be; `false` if there is no room for it.
    pub stored: bool,
}

impl Blobs {
    /// Begins to fill a cached blob.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when the announced length is past the limit.
    #[expect(clippy::unused_async, reason = "a remote tier will have to wait here")]
    pub async fn fill(&self, expect: Expect) -> Result<(Filler, Spool)> {
        if expect.length.is_some_and(|length| length > expect.limit_bytes) {
            return Err(too_large(expect.limit_bytes));
        }
        let further: Vec<Algorithm> = expect.promised.iter().map(Digest::algorithm).collect();
        let mut sink = Sink::new(self, Purpose::Cached, &further);
        let large = expect.length.is_some_and(|length| length / BESIDE_PARTS >= self.0.config.write_coalesce_bytes);
        let beside = if large { sink.split_hasher() } else { None };
        let lanes = 1 + usize::from(beside.is_some());
        let state = State {
            window: Window::new(expect.length, self.has_room(expect.length.unwrap_or(0)), lanes),
            phase: Phase::Filling,
            sink: Some(sink),
            beside,
            file: None,
            busy: [false; 2],
            ending: false,
            concluding: false,
        };
        let shared = Arc::new(Shared {
            blobs: self.clone(),
            promised: expect.promised,
            inspection: expect.inspection,
            limit_bytes: expect.limit_bytes,
            state: Mutex::new(state),
            moved: watch::Sender::new(()),
            room: Notify::new(),
        });
        self.0.fills.fetch_add(1, Ordering::Relaxed);
        Ok((Filler { shared: Arc::clone(&shared) }, Spool { shared }))
    }

    /// Whether a cached blob of this size may be stored.
    pub(super) fn has_room(&self, size: u64) -> bool {
        let config = &self.0.config;
        let free = self.0.disk.free().unwrap_or(0);
        size <= config.cache_limit_bytes && free >= config.hosted_reserve_bytes.max(config.metadata_reserve_bytes).saturating_add(size)
    }

    /// What one fill may keep in memory: its share of what all may.
    fn spool_limits(&self) -> Limits {
        let config = &self.0.config;
        let fills = self.0.fills.load(Ordering::Relaxed).max(1) as u64;
        let ahead = (config.spool_ahead_bytes / fills).max(config.write_coalesce_bytes);
        Limits { ahead, window: config.spool_window_bytes.min(ahead) }
    }
}

/// Parts from which on further digests have a thread of their own.
const BESIDE_PARTS: u64 = 4;

struct Shared {
    blobs: Blobs,
    promised: Vec<Digest>,
    inspection: Option<Inspection>,
    limit_bytes: u64,
    state: Mutex<State>,
    /// Wakes readers, and who waits for the end.
    moved: watch::Sender<()>,
    /// Wakes the filler.
    room: Notify,
}

struct State {
    window: Window,
    phase: Phase,
    /// `None` while a thread has it.
    sink: Option<Sink>,
    /// What computes the further digests beside; `None` while a thread has it, and where the sink computes them.
    beside: Option<Further>,
    /// The growing file, once there is one.
    file: Option<Arc<File>>,
    /// Whether a thread is at work for each [`window::Lane`].
    busy: [bool; 2],
    /// Whether all bytes have come.
    ending: bool,
    /// Whether the outcome is out of the filler's hands.
    concluding: bool,
}

enum Phase {
    Filling,
    Done(Finished),
    Failed(Failure),
}

/// An error that every follower gets a copy of.
struct Failure {
    kind: Kind,
    subject: Subject,
    message: String,
    cause: String,
}

impl Failure {
    fn error(&self) -> Error {
        Error::new(self.kind, self.subject).saying(self.message.clone()).because(self.cause.clone())
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.phase {
            Phase::Failed(failure) => Err(failure.error()),
            Phase::Filling | Phase::Done(_) => Ok(()),
        }
    }
}

impl Shared {
    fn fail(&self, error: &Error) {
        let sink = {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::Filling) {
                return;
            }
            state.phase = Phase::Failed(Failure {
                kind: error.kind(),
                subject: error.subject(),
                message: error.message().to_owned(),
                cause: format!("{error:?}"),
            });
            state.file = None;
            state.sink.take()
        };
        self.moved.send_replace(());
        self.room.notify_one();
        // Removing a large file takes its time; not on a thread that serves.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(sink))),
            Err(_) => drop(sink),
        }
    }

    /// Whether a thread is at work.
    fn is_busy(&self) -> bool {
        self.lock().busy.contains(&true)
    }

    fn note_reader(&self, reader: u64, position: u64) {
        let storing = {
            let mut state = self.lock();
            state.window.advance(reader, position);
            state.window.storing
        };
        if !storing {
            self.room.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_large(limit_bytes: u64) -> Error {
    Error::new(Kind::TooLarge, Subject::Blob).saying(format!("larger than {limit_bytes} bytes"))
}

fn bad_body(message: &'static str) -> Error {
    Error::new(Kind::BadUpstream, Subject::Blob).saying(message)
}

#[cfg(test)]
mod tests;
