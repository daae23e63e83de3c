//! Taking a body in: hashing and storing it beside the readers, and proving it at the end.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::frames::FRAME;
use super::window::{Lane, Limits};
use super::{Finished, Kept, Phase, Shared, State, bad_body, hands, too_large};
use crate::blob::read::Reading;
use crate::blob::write::Sink;
use crate::blob::{blocking, disk, id_of};
use crate::digest::{Digest, Digests, Further};
use crate::error::{Error, Result, Subject};
use crate::format::Inspection;
use crate::store::Batch;

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
        self.push_all(vec![bytes]).await
    }

    /// Takes frames, of which readers are told once: waking thirty of them for each 64 KiB cost more than the bytes.
    async fn push_all(&mut self, frames: Vec<Bytes>) -> Result<()> {
        let bytes = total(&frames);
        if bytes == 0 {
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
            self.shared.work_off(limits);
            // A permit is remembered, so nothing that happens in between is missed.
            self.shared.room.notified().await;
        }
        let fits = {
            let mut state = self.shared.lock();
            let end = state.window.received() + bytes;
            if end > self.shared.limit_bytes {
                Err(too_large(self.shared.limit_bytes))
            } else if state.window.length.is_some_and(|length| end > length) {
                Err(bad_body("the upstream sent more than it had announced"))
            } else {
                for frame in frames {
                    state.window.push(frame);
                }
                Ok(())
            }
        };
        match fits {
            Ok(()) => {
                self.shared.moved.send_replace(());
                self.shared.work_off(self.shared.blobs.spool_limits());
                Ok(())
            }
            Err(error) => {
                self.shared.fail(&error);
                Err(error)
            }
        }
    }

    /// As [`Filler::push`], of bytes that the caller wants back: they are copied, in frames of a size that readers can
    /// have at once.
    ///
    /// # Errors
    /// As [`Filler::push`].
    pub async fn push_copy(&mut self, bytes: &[u8]) -> Result<()> {
        let frames = bytes.chunks(FRAME).map(|frame| self.shared.blobs.0.frames.copy(frame)).collect();
        self.push_all(frames).await
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
    /// wait for the disk.
    ///
    /// # Errors
    /// `BadUpstream` when the length or a promised digest is not met. That the blob cannot
    /// be stored is no error: see [`Kept::stored`].
    pub async fn finish(self) -> Result<Kept> {
        self.finish_with(|_, _| Ok(Batch::new())).await
    }

    /// As [`Filler::finish`]. `refer` makes the rows that refer to the blob, from its digest and size; they are committed
    /// once it is written.
    ///
    /// # Errors
    /// As [`Filler::finish`]. Rows that cannot be committed are no error: the blob is fetched again after the next start.
    pub async fn finish_with(self, refer: impl FnOnce(&Digest, u64) -> Result<Batch>) -> Result<Kept> {
        let mut moved = self.shared.moved.subscribe();
        self.shared.lock().ending = true;
        loop {
            moved.borrow_and_update();
            if !self.shared.is_busy() {
                break;
            }
            // The sender lives in `shared`.
            let _ = moved.changed().await;
        }
        let (sink, beside) = {
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
            (state.sink.take(), state.beside.take())
        };
        // From here on the fill has an outcome whatever becomes of this future, and followers learn of it.
        let concluding = Concluding(Arc::clone(&self.shared));
        let Some(sink) = sink else { return Err(Error::internal(Subject::Blob, "a fill without its file")) };
        if beside.is_none()
            && let Some(whole) = self.shared.small()
        {
            return self.shared.conclude_small(sink, whole, refer).await.inspect_err(|error| self.shared.fail(error));
        }
        let kept = blocking(move || concluding.0.conclude(sink, beside).inspect_err(|error| concluding.0.fail(error))).await?;
        if kept.stored {
            let rows = refer(&kept.digests.sha256, kept.size)?;
            self.shared.blobs.commit_row(&kept.digests.sha256, kept.size, rows).await;
        }
        Ok(kept)
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

/// What a lane does next, with which frames.
enum Step {
    Hash(Vec<Bytes>),
    Store(Vec<Bytes>),
}

impl Shared {
    /// Has threads hash and store what waits, where that is worth a thread's hop and none is at it.
    fn work_off(self: &Arc<Self>, limits: Limits) {
        for lane in [Lane::Main, Lane::Beside] {
            let tool = {
                let mut state = self.lock();
                if state.busy[lane as usize] || self.step(&state, lane, limits).is_none() {
                    continue;
                }
                let tool = match lane {
                    Lane::Main => state.sink.take().map(Tool::Main),
                    Lane::Beside => state.beside.take().map(Tool::Beside),
                };
                state.busy[lane as usize] = tool.is_some();
                tool
            };
            if tool.is_some() {
                let work = Work { shared: Arc::clone(self), lane, tool };
                hands::work(move || work.run());
            }
        }
    }

    /// What a lane is to do next: to hash a part; to store one when none waits to be hashed. Less than a part is
    /// worth it only at the end, or when there is no more room in memory.
    fn step(&self, state: &State, lane: Lane, limits: Limits) -> Option<Step> {
        if !matches!(state.phase, Phase::Filling) {
            return None;
        }
        let (window, part) = (&state.window, self.blobs.0.config.write_coalesce_bytes);
        let crowded = window.is_crowded(limits);
        let waiting = window.waiting(lane);
        if waiting >= part || waiting > 0 && (crowded || state.ending) {
            return Some(Step::Hash(window.to_hash(lane, part)));
        }
        // The readers wait for the end of hashing, and then nothing more is to be begun.
        if lane == Lane::Beside || state.ending && window.is_hashed() {
            return None;
        }
        let unstored = window.unstored();
        (unstored >= part || unstored > 0 && crowded).then(|| Step::Store(window.to_store(part)))
    }

    /// Stores frames if that is still done. An error of the disk ends the storing, not the fill.
    fn store(&self, sink: &mut Sink, frames: Vec<Bytes>) {
        if !self.lock().window.storing {
            return;
        }
        let stored = sink.store(&frames).and_then(|()| {
            if self.lock().file.is_some() {
                return Ok(None);
            }
            sink.file()?.try_clone().map(Some).map_err(disk::failed)
        });
        let bytes = total(&frames);
        // The copies go first, so that trimming frees the memory.
        drop(frames);
        match stored {
            Ok(file) => {
                let limits = self.blobs.spool_limits();
                let mut state = self.lock();
                if let Some(file) = file {
                    state.file = Some(Arc::new(file));
                }
                state.window.note_stored(bytes);
                state.window.trim(limits);
            }
            Err(error) => self.pass_through(&error),
        }
        self.room.notify_one();
    }

    /// Notes what a lane has hashed.
    fn note_hashed(&self, lane: Lane, frames: Vec<Bytes>) {
        let bytes = total(&frames);
        drop(frames);
        let limits = self.blobs.spool_limits();
        {
            let mut state = self.lock();
            state.window.note_hashed(lane, bytes);
            state.window.trim(limits);
        }
        self.room.notify_one();
    }

    fn pass_through(&self, error: &Error) {
        tracing::warn!(?error, "a body is passed on without being stored");
        self.lock().window.storing = false;
    }

    /// The whole body, if it is small and in memory and has only to be hashed: looking into it may take longer.
    fn small(&self) -> Option<Bytes> {
        let state = self.lock();
        if state.window.received() > self.blobs.0.config.small_limit_bytes || self.inspection.is_some() {
            return None;
        }
        state.window.whole()
    }

    /// The end of a small fill, here and now: hashing takes less than a thread's hop and the file's making
    /// take, and the readers need not wait for those.
    async fn conclude_small(&self, mut sink: Sink, whole: Bytes, refer: impl FnOnce(&Digest, u64) -> Result<Batch>) -> Result<Kept> {
        let size = whole.len() as u64;
        sink.hash(std::slice::from_ref(&whole));
        let digests = self.prove(sink.digests())?;
        let id = id_of(&digests.sha256).ok_or_else(|| Error::internal(Subject::Blob, "not a SHA-256"))?;
        let rows = refer(&digests.sha256, size)?;
        // Whoever fills faster than the disk takes waits for a place here, with the last frame held back.
        let place = if self.lock().window.storing { Some(self.blobs.place_behind(size).await?) } else { None };
        // It may have filled up since the fill began.
        let stored = place.is_some() && self.blobs.has_room(size);
        self.lock().window.storing = stored;
        if let Some(place) = place.filter(|_| stored) {
            // First, so that whoever hears of it finds it.
            self.blobs.keep_behind(id, whole, rows, place);
        }
        self.announce(&digests);
        Ok(Kept { digests, size, stored })
    }

    /// The end of a fill, on a blocking thread.
    fn conclude(&self, mut sink: Sink, beside: Option<Further>) -> Result<Kept> {
        let rest = |lane| self.lock().window.to_hash(lane, u64::MAX);
        let frames = rest(Lane::Main);
        sink.hash(&frames);
        self.note_hashed(Lane::Main, frames);
        if let Some(mut beside) = beside {
            let frames = rest(Lane::Beside);
            for frame in &frames {
                beside.update(frame);
            }
            self.note_hashed(Lane::Beside, frames);
            sink.join_hasher(beside);
        }
        let digests = self.prove(sink.digests())?;
        if let Some(inspection) = &self.inspection {
            self.store_rest(&mut sink);
            self.inspect(inspection, &mut sink)?;
        }
        self.announce(&digests);
        self.store_rest(&mut sink);
        let size = self.lock().window.received();
        let stored = self.keep(sink, &digests, size);
        // What is on disk need not stay in memory for as long as the slowest reader reads.
        self.lock().window.leave_to_disk();
        Ok(Kept { digests, size, stored })
    }

    /// Looks at the whole body.
    fn inspect(&self, inspection: &Inspection, sink: &mut Sink) -> Result<()> {
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

    /// Stores what is left, in parts, so that its memory is freed on the way.
    fn store_rest(&self, sink: &mut Sink) {
        loop {
            let frames = {
                let state = self.lock();
                if state.window.unstored() == 0 {
                    return;
                }
                state.window.to_store(self.blobs.0.config.write_coalesce_bytes)
            };
            self.store(sink, frames);
        }
    }

    /// Makes the file a blob, if it was stored. An error of the disk is no error of the fill.
    fn keep(&self, sink: Sink, digests: &Digests, size: u64) -> bool {
        if !self.lock().window.storing {
            return false;
        }
        let kept = sink.finish().and_then(|(temporary, file)| self.blobs.place_cached(&digests.sha256, size, temporary, &file));
        kept.inspect_err(|error| self.pass_through(error)).is_ok()
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
            state.window.prove();
            state.phase = Phase::Done(Finished { digests: digests.clone(), size, stored: state.window.storing });
        }
        self.moved.send_replace(());
    }
}

fn total(frames: &[Bytes]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

/// What a lane works with.
enum Tool {
    Main(Sink),
    Beside(Further),
}

/// A thread's work for a lane. Dropping it gives the tool back, also when it panicked.
struct Work {
    shared: Arc<Shared>,
    lane: Lane,
    tool: Option<Tool>,
}

impl Work {
    fn run(mut self) {
        while let Some(step) = self.next() {
            match (&mut self.tool, step) {
                (Some(Tool::Main(sink)), Step::Store(frames)) => self.shared.store(sink, frames),
                (Some(tool), Step::Hash(frames)) => {
                    match tool {
                        Tool::Main(sink) => sink.hash(&frames),
                        Tool::Beside(further) => {
                            for frame in &frames {
                                further.update(frame);
                            }
                        }
                    }
                    self.shared.note_hashed(self.lane, frames);
                }
                (Some(Tool::Beside(_)) | None, _) => return,
            }
        }
    }

    /// What to do next. When there is nothing the tool is given back in the same instant, so that a push
    /// either is seen here or finds the tool in its place.
    fn next(&mut self) -> Option<Step> {
        let limits = self.shared.blobs.spool_limits();
        let mut state = self.shared.lock();
        let step = self.shared.step(&state, self.lane, limits);
        if step.is_none() {
            Self::give_back(&mut state, self.lane, &mut self.tool);
        }
        step
    }

    /// Ends the work. The tool of a fill that has failed stays with the thread, which drops it.
    fn give_back(state: &mut State, lane: Lane, tool: &mut Option<Tool>) {
        if matches!(state.phase, Phase::Filling) {
            match tool.take() {
                Some(Tool::Main(sink)) => state.sink = Some(sink),
                Some(Tool::Beside(further)) => state.beside = Some(further),
                None => {}
            }
        }
        state.busy[lane as usize] = false;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Once it is given back another thread may be at work with it.
        if self.tool.is_some() {
            Self::give_back(&mut self.shared.lock(), self.lane, &mut self.tool);
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
