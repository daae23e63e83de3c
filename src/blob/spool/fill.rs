//! Taking a body in: hashing and storing it beside the readers, and proving it at the end.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::window::Limits;
use super::{Finished, Kept, Phase, Shared, State, bad_body, too_large};
use crate::blob::read::Reading;
use crate::blob::write::{Sink, Staged};
use crate::blob::{Lease, Purpose, blocking, disk};
use crate::digest::Digests;
use crate::error::{Error, Result, Subject};

/// The writing end of a spool. Dropping it before [`Filler::finish`] fails the fill.
pub struct Filler {
    pub(super) shared: Arc<Shared>,
}

impl Filler {
    /// Takes the next bytes. Waits while hash and disk, or with a full disk the slowest reader, are too far behind.
    ///
    /// # Errors
    /// `TooLarge` past the limit, `BadUpstream` past the length. The fill has failed then.
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
            self.shared.hash_what_waits(limits);
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
                self.shared.hash_what_waits(self.shared.blobs.spool_limits());
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

    /// Proves length and digests, lets the readers have the rest, and keeps the blob. The readers do not
    /// wait for the disk to confirm it; a body that is in memory as a whole is not even written before they have it.
    ///
    /// # Errors
    /// `BadUpstream` when the length or a promised digest is not met. That the blob cannot
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
        // From here on the outcome does not depend on this future: if it is dropped, followers still learn of it.
        let concluding = Concluding(Arc::clone(&self.shared));
        let Some(mut sink) = sink else { return Err(Error::internal(Subject::Blob, "a fill without its file")) };
        let early = self.shared.prove_small(&mut sink).inspect_err(|error| self.shared.fail(error))?;
        blocking(move || {
            let outcome = concluding.0.conclude(sink, early);
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

impl Shared {
    /// Has a thread hash and store what waits, if that is worth a thread's hop and none is at it.
    fn hash_what_waits(self: &Arc<Self>, limits: Limits) {
        let sink = {
            let mut state = self.lock();
            if state.hashing || !self.is_worth_hashing(&state, limits) {
                return;
            }
            let Some(sink) = state.sink.take() else { return };
            state.hashing = true;
            sink
        };
        let hashing = Hashing { shared: Arc::clone(self), sink: Some(sink) };
        tokio::task::spawn_blocking(move || hashing.run());
    }

    fn is_worth_hashing(&self, state: &State, limits: Limits) -> bool {
        let waiting = state.window.waiting();
        let crowded = state.window.is_crowded(limits);
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
            sink.file()?.try_clone().map(Some).map_err(disk::failed)
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

    /// Proves a small body that is all in memory and has only to be hashed, here and now: hashing it takes less than a thread's hop and
    /// the file's making take, and those need not be waited for.
    fn prove_small(&self, sink: &mut Sink) -> Result<Option<Digests>> {
        let frames = {
            let state = self.lock();
            // Looking into a body may take longer than a thread's hop.
            let large = state.window.received() > self.blobs.0.config.small_limit_bytes || self.inspection.is_some();
            if large || !state.window.is_in_memory() {
                return Ok(None);
            }
            state.window.unhashed(u64::MAX)
        };
        sink.hash(&frames);
        let digests = self.prove(sink.digests())?;
        self.announce(&digests);
        Ok(Some(digests))
    }

    /// The end of a fill, on a blocking thread. `early` are the digests if the readers have the rest already.
    fn conclude(&self, mut sink: Sink, early: Option<Digests>) -> Result<Kept> {
        let rest = self.lock().window.unhashed(u64::MAX);
        let is_early = early.is_some();
        let digests = if let Some(digests) = early {
            digests
        } else {
            sink.hash(&rest);
            self.prove(sink.digests())?
        };
        self.store(&mut sink, &rest);
        self.inspect(&mut sink)?;
        let size = {
            let mut state = self.lock();
            let waiting = state.window.waiting();
            state.window.note_hashed(waiting);
            state.window.received()
        };
        if !is_early {
            self.announce(&digests);
        }
        let lease = self.keep(sink, &digests, size);
        Ok(Kept { digests, size, lease })
    }

    /// Looks at the whole body, if that is to be done.
    fn inspect(&self, sink: &mut Sink) -> Result<()> {
        let Some(inspection) = &self.inspection else { return Ok(()) };
        let (stored, whole, size) = {
            let state = self.lock();
            (state.window.storing, state.window.whole(), state.window.received())
        };
        let looked = match whole {
            Some(whole) => inspection(&mut Cursor::new(whole)),
            None if stored => inspection(&mut Reading::new(sink.file()?, size)),
            None => {
                tracing::warn!("a body is passed on without being looked at");
                Ok(())
            }
        };
        looked.map_err(|error| bad_body("the upstream's file is not what its name says").because(error))
    }

    /// Makes the file a blob, if it was stored. An error of the disk is no error of the fill.
    fn keep(&self, sink: Sink, digests: &Digests, size: u64) -> Option<Lease> {
        if !self.lock().window.storing {
            return None;
        }
        let staged = sink.finish().map(|file| Staged::new(self.blobs.clone(), Purpose::Cached, digests.clone(), size, file));
        match staged.and_then(Staged::keep_now) {
            Ok(lease) => {
                let small = size <= self.blobs.0.config.small_limit_bytes;
                if let Some(whole) = small.then(|| self.lock().window.whole()).flatten() {
                    self.blobs.remember(&digests.sha256, whole);
                }
                Some(lease)
            }
            Err(error) => {
                self.pass_through(&error);
                None
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
    fn announce(&self, digests: &Digests) {
        {
            let mut state = self.lock();
            let size = state.window.received();
            let small = size <= self.blobs.0.config.small_limit_bytes;
            // What is on disk need not stay in memory for as long as the slowest reader reads.
            let keep_frames = small || state.file.is_none();
            state.window.prove(keep_frames);
            state.phase = Phase::Done(Finished { digests: digests.clone(), size, stored: state.window.storing });
        }
        self.moved.send_replace(());
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
        if !self.shared.is_worth_hashing(&state, self.shared.blobs.spool_limits()) {
            state.give_back(&mut self.sink);
            return None;
        }
        Some(state.window.unhashed(self.shared.blobs.0.config.write_coalesce_bytes))
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        // Once it is given back another thread may be at work with it.
        if self.sink.is_some() {
            self.shared.lock().give_back(&mut self.sink);
        }
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
