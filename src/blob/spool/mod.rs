//! A blob being fetched that many readers follow.
//!
//! One [`Filler`] takes the bytes as they come from an upstream. Readers get them at
//! once from memory, without waiting for the hash or the disk; who is slower than the
//! window, or comes late, follows the growing file, so slow readers hold no memory and
//! one fetch serves all. A reader that leaves ends nothing.
//!
//! The last frame is held back until length and digests have proved right and the blob
//! is kept. When something is wrong every reader's stream ends with an error, so a bad
//! body never ends cleanly, and nothing is kept.
//!
//! Hashing and writing run on a blocking thread for as long as a part's worth of bytes
//! is waiting; a small body takes one hop to such a thread in all, at its end.
//!
//! A full disk does not end a fetch: from then on frames stay in memory until every
//! reader had them, and the slowest one sets the pace.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Notify, watch};

use self::window::{Limits, Next, Window};
use super::read::CHUNK;
use super::write::{Sink, Staged};
use super::{Blobs, Lease, Purpose, blocking};
use crate::digest::{Algorithm, Digest, Digests};
use crate::error::{Error, Kind, Result, Subject};
use crate::http::ChunkStream;

mod window;

/// What is known of a body before it comes.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Its length in bytes, if the upstream said so.
    pub length: Option<u64>,
    /// Digests that it must have.
    pub promised: Vec<Digest>,
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
    /// Keeps the blob from eviction; `None` when the body is right and was passed on, but there was no room to keep it.
    pub lease: Option<Lease>,
}

impl Kept {
    /// Whether the blob is in the cache now.
    #[must_use]
    pub fn stored(&self) -> bool {
        self.lease.is_some()
    }
}

/// What a follower learns about the end of a fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// SHA-256 and the digests of the promised algorithms.
    pub digests: Digests,
    /// Size in bytes.
    pub size: u64,
    /// Whether the blob is in the cache.
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
        let state = State {
            window: Window::new(expect.length, self.has_room(expect.length.unwrap_or(0))),
            phase: Phase::Filling,
            sink: Some(Sink::new(self, Purpose::Cached, &further)),
            file: None,
            hashing: false,
            concluding: false,
        };
        let shared = Arc::new(Shared {
            blobs: self.clone(),
            promised: expect.promised,
            limit_bytes: expect.limit_bytes,
            state: Mutex::new(state),
            moved: watch::Sender::new(()),
            room: Notify::new(),
        });
        self.0.fills.fetch_add(1, Ordering::Relaxed);
        Ok((Filler { shared: Arc::clone(&shared) }, Spool { shared }))
    }

    /// Whether a cached blob of this size may be stored.
    fn has_room(&self, size: u64) -> bool {
        let config = &self.0.config;
        let free = self.0.disk.free().unwrap_or(0);
        size <= config.cache_limit_bytes && free >= config.hosted_reserve_bytes.saturating_add(size)
    }

    /// What one fill may keep in memory: its share of what all may.
    fn spool_limits(&self) -> Limits {
        let config = &self.0.config;
        let fills = self.0.fills.load(Ordering::Relaxed).max(1) as u64;
        let ahead = (config.spool_ahead_bytes / fills).max(config.write_coalesce_bytes);
        Limits { ahead, window: config.spool_window_bytes.min(ahead) }
    }
}

/// The writing end of a spool. Dropping it before [`Filler::finish`] fails the fill.
pub struct Filler {
    shared: Arc<Shared>,
}

impl Filler {
    /// Takes the next bytes. Waits while hash and disk, or with a full disk the slowest reader, are too far behind.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] past the limit, [`Kind::BadUpstream`] past the length. The fill has failed then.
    pub async fn push(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        loop {
            let limits = self.shared.blobs.spool_limits();
            {
                let mut state = self.shared.lock();
                state.check()?;
                state.window.trim(limits);
                if !state.window.is_crowded(limits) {
                    break;
                }
            }
            self.shared.hash_what_waits();
            // A permit is remembered, so nothing that happens in between is missed.
            self.shared.room.notified().await;
        }
        let fits = {
            let mut state = self.shared.lock();
            let end = state.window.received() + bytes.len() as u64;
            if end > self.shared.limit_bytes {
                Err(too_large(self.shared.limit_bytes))
            } else if state.window.length.is_some_and(|length| end > length) {
                Err(bad_body("the upstream sent more than it had announced"))
            } else {
                state.window.push(bytes);
                Ok(())
            }
        };
        match fits {
            Ok(()) => {
                self.shared.moved.send_replace(());
                self.shared.hash_what_waits();
                Ok(())
            }
            Err(error) => {
                self.shared.fail(&error);
                Err(error)
            }
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.lock().window.received()
    }

    /// Sets the length, when it became known after the start.
    pub fn set_length(&mut self, length: u64) {
        self.shared.lock().window.length = Some(length);
        self.shared.moved.send_replace(());
    }

    /// Proves length and digests, keeps the blob, and only then lets the readers have the rest.
    ///
    /// # Errors
    /// [`Kind::BadUpstream`] when the length or a promised digest is not met. That the blob cannot
    /// be stored is no error: see [`Kept::lease`].
    pub async fn finish(self) -> Result<Kept> {
        let mut moved = self.shared.moved.subscribe();
        loop {
            moved.borrow_and_update();
            if !self.shared.lock().hashing {
                break;
            }
            // The sender lives in `shared`.
            let _ = moved.changed().await;
        }
        let sink = {
            let mut state = self.shared.lock();
            state.check()?;
            let length = state.window.length;
            if length.is_some_and(|length| length != state.window.received()) {
                drop(state);
                let error = bad_body("the upstream's body is not as long as it had announced");
                self.shared.fail(&error);
                return Err(error);
            }
            state.concluding = true;
            state.sink.take()
        };
        let Some(sink) = sink else { return Err(Error::internal(Subject::Blob, "a fill without its file")) };
        // From here on the outcome does not depend on this future: if it is dropped, followers still learn of it.
        let concluding = Concluding(Arc::clone(&self.shared));
        blocking(move || {
            let outcome = concluding.0.conclude(sink);
            if let Err(error) = &outcome {
                concluding.0.fail(error);
            }
            outcome
        })
        .await
    }

    /// Ends the fill with an error for all readers; nothing is kept.
    pub fn fail(self, error: &Error) {
        self.shared.fail(error);
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.shared.blobs.0.fills.fetch_sub(1, Ordering::Relaxed);
        if !self.shared.lock().concluding {
            self.shared.fail(&bad_body("the transfer was given up"));
        }
    }
}

/// The reading end of a spool. Clones follow the same fill.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Length of the whole body in bytes, if it is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.shared.lock().window.length
    }

    /// Whether a reader who comes now can still have every byte. `false` only if the disk was
    /// full and the beginning has left the memory.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let state = self.shared.lock();
        !matches!(state.phase, Phase::Failed(_)) && state.window.is_whole()
    }

    /// The body, or a range of it, as it comes. The reader counts from this call on, so that
    /// what it needs stays in memory if there is no disk to hold it.
    ///
    /// The stream ends with an error if the fill fails or the range goes past the body's end.
    #[must_use]
    pub fn chunks(&self, range: Option<Range<u64>>) -> ChunkStream {
        let (position, end) = match range {
            Some(range) => (range.start, Some(range.end.max(range.start))),
            None => (0, None),
        };
        let id = self.shared.lock().window.attach(position);
        let moved = self.shared.moved.subscribe();
        let reader = Reader { shared: Arc::clone(&self.shared), id, position, end, moved, broken: false };
        Box::pin(stream::unfold(reader, |mut reader| async move { reader.next().await.map(|chunk| (chunk, reader)) }))
    }

    /// Waits for the end of the fill.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn finished(&self) -> Result<Finished> {
        let mut moved = self.shared.moved.subscribe();
        loop {
            moved.borrow_and_update();
            match &self.shared.lock().phase {
                Phase::Filling => {}
                Phase::Done(finished) => return Ok(finished.clone()),
                Phase::Failed(failure) => return Err(failure.error()),
            }
            // The sender lives in `shared`.
            let _ = moved.changed().await;
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    id: u64,
    position: u64,
    end: Option<u64>,
    moved: watch::Receiver<()>,
    broken: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.broken {
            return None;
        }
        let chunk = self.find().await.transpose()?;
        match &chunk {
            Ok(bytes) => {
                self.position += bytes.len() as u64;
                self.shared.note_reader(self.id, self.position);
            }
            Err(_) => self.broken = true,
        }
        Some(chunk)
    }

    async fn find(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            self.moved.borrow_and_update();
            let (next, file) = {
                let state = self.shared.lock();
                if let Phase::Failed(failure) = &state.phase {
                    return Err(io::Error::other(failure.error()));
                }
                (state.window.next(self.position, self.end), state.file.clone())
            };
            match (next, file) {
                (Next::Bytes(bytes), _) => return Ok(Some(bytes)),
                (Next::File(most), Some(file)) => {
                    let chunk = self.shared.blobs.0.buffers.read(&file, self.position, most.min(CHUNK as u64)).await?;
                    return Ok(Some(chunk));
                }
                (Next::Wait, _) => {
                    // The sender lives in `shared`.
                    let _ = self.moved.changed().await;
                }
                (Next::End, _) => return Ok(None),
                (Next::Short, _) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ends before the range")),
                (Next::Lost | Next::File(_), _) => return Err(io::Error::other("fell behind a transfer that is not stored")),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().window.detach(self.id);
        self.shared.room.notify_one();
    }
}

struct Shared {
    blobs: Blobs,
    promised: Vec<Digest>,
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
    /// The growing file, once there is one.
    file: Option<Arc<File>>,
    /// Whether a thread is at work on what waits.
    hashing: bool,
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

    /// Ends a thread's work. A sink of a fill that has failed stays with the thread, which drops it.
    fn give_back(&mut self, sink: &mut Option<Sink>) {
        if sink.is_some() && matches!(self.phase, Phase::Filling) {
            self.sink = sink.take();
        }
        self.hashing = false;
    }
}

impl Shared {
    /// Has a thread hash and store what waits, if that is worth a thread's hop and none is at it.
    fn hash_what_waits(self: &Arc<Self>) {
        let sink = {
            let mut state = self.lock();
            if state.hashing || !self.is_worth_hashing(&state) {
                return;
            }
            let Some(sink) = state.sink.take() else { return };
            state.hashing = true;
            sink
        };
        let hashing = Hashing { shared: Arc::clone(self), sink: Some(sink) };
        tokio::task::spawn_blocking(move || hashing.run());
    }

    fn is_worth_hashing(&self, state: &State) -> bool {
        let waiting = state.window.waiting();
        let crowded = state.window.is_crowded(self.blobs.spool_limits());
        matches!(state.phase, Phase::Filling) && (waiting >= self.blobs.0.config.write_coalesce_bytes || waiting > 0 && crowded)
    }

    /// Stores frames if that is still done. An error of the disk ends the storing, not the fill.
    fn store(&self, sink: &mut Sink, frames: &[Bytes]) {
        if !self.lock().window.storing {
            return;
        }
        let stored = sink.store(frames).and_then(|()| {
            if self.lock().file.is_some() {
                return Ok(None);
            }
            sink.file()?.try_clone().map(Some).map_err(super::disk::failed)
        });
        match stored {
            Ok(None) => {}
            Ok(Some(file)) => self.lock().file = Some(Arc::new(file)),
            Err(error) => self.pass_through(&error),
        }
    }

    fn pass_through(&self, error: &Error) {
        tracing::warn!(?error, "a body is passed on without being stored");
        self.lock().window.storing = false;
    }

    /// The end of a fill, on a blocking thread.
    fn conclude(&self, mut sink: Sink) -> Result<Kept> {
        let rest = self.lock().window.unhashed(u64::MAX);
        sink.hash(&rest);
        self.store(&mut sink, &rest);
        let (size, storing) = {
            let mut state = self.lock();
            let waiting = state.window.waiting();
            state.window.note_hashed(waiting);
            (state.window.received(), state.window.storing)
        };
        let kept = if storing { self.keep(sink, size)? } else { (self.prove(sink.digests())?, None) };
        let (digests, lease) = kept;
        self.announce(&digests, size, lease.is_some());
        Ok(Kept { digests, size, lease })
    }

    fn keep(&self, sink: Sink, size: u64) -> Result<(Digests, Option<Lease>)> {
        let (digests, file) = sink.finish()?;
        let digests = self.prove(digests)?;
        let staged = Staged::new(self.blobs.clone(), Purpose::Cached, digests.clone(), size, file);
        match staged.keep_now() {
            Ok(lease) => Ok((digests, Some(lease))),
            Err(error) => {
                self.pass_through(&error);
                Ok((digests, None))
            }
        }
    }

    fn prove(&self, digests: Digests) -> Result<Digests> {
        if digests.keep(&self.promised) {
            return Ok(digests);
        }
        let error = bad_body("the upstream's body has another digest than was promised");
        Err(error.because(format!("{} is not {:?}", digests.sha256, self.promised)))
    }

    /// Lets readers have the rest.
    fn announce(&self, digests: &Digests, size: u64, stored: bool) {
        let small = size <= self.blobs.0.config.small_limit_bytes;
        let whole = {
            let mut state = self.lock();
            let whole = if small { state.window.whole() } else { None };
            // What is on disk need not stay in memory for as long as the slowest reader reads.
            let keep_frames = small || state.file.is_none();
            state.window.prove(keep_frames);
            state.phase = Phase::Done(Finished { digests: digests.clone(), size, stored });
            whole
        };
        if let (Some(whole), true) = (whole, stored) {
            self.blobs.remember(&digests.sha256, whole);
        }
        self.moved.send_replace(());
    }

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

/// A thread's work on what waits. Dropping it gives the sink back, also when it panicked.
struct Hashing {
    shared: Arc<Shared>,
    sink: Option<Sink>,
}

impl Hashing {
    fn run(mut self) {
        while let Some(frames) = self.take_in() {
            let Some(sink) = &mut self.sink else { return };
            sink.hash(&frames);
            let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
            self.shared.store(sink, &frames);
            // The copies go first, so that trimming frees the memory.
            drop(frames);
            let limits = self.shared.blobs.spool_limits();
            {
                let mut state = self.shared.lock();
                state.window.note_hashed(bytes);
                state.window.trim(limits);
            }
            self.shared.moved.send_replace(());
            self.shared.room.notify_one();
        }
    }

    /// The frames to work on. When there are none the sink is given back in the same instant,
    /// so that a push either is seen here or finds the sink in its place.
    fn take_in(&mut self) -> Option<Vec<Bytes>> {
        let mut state = self.shared.lock();
        if !self.shared.is_worth_hashing(&state) {
            state.give_back(&mut self.sink);
            return None;
        }
        Some(state.window.unhashed(4 * self.shared.blobs.0.config.write_coalesce_bytes))
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.shared.lock().give_back(&mut self.sink);
        if std::thread::panicking() {
            self.shared.fail(&Error::internal(Subject::Blob, "hashing panicked"));
        }
        self.shared.moved.send_replace(());
        self.shared.room.notify_one();
    }
}

/// The last step of a fill. Dropping it without an outcome, by an error or a panic, fails the fill.
struct Concluding(Arc<Shared>);

impl Drop for Concluding {
    fn drop(&mut self) {
        self.0.fail(&Error::internal(Subject::Blob, "the last step of a transfer broke off"));
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
