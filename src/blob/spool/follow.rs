//! Reading a body that is still being fetched.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::window::Next;
use super::{Finished, Phase, Shared};
use crate::blob::read::CHUNK;
use crate::error::Result;
use crate::http::ChunkStream;

/// The reading end of a spool. Clones follow the same fill.
#[derive(Clone)]
pub struct Spool {
    pub(super) shared: Arc<Shared>,
}

impl Spool {
    /// Whether what has arrived so far is being stored; on a full disk it is passed on only.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.shared.lock().window.storing
    }

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
        let reader = Reader { shared: Arc::clone(&self.shared), id, position, end, moved, held: None, broken: false };
        Box::pin(stream::unfold(reader, |mut reader| async move { reader.next().await.map(|chunk| (chunk, reader)) }))
    }

    /// All of a small body that has proved right, if it is in memory.
    #[must_use]
    pub fn at_hand(&self) -> Option<(Bytes, Finished)> {
        let state = self.shared.lock();
        match &state.phase {
            Phase::Done(finished) if finished.size <= self.shared.blobs.0.config.small_limit_bytes => {
                Some((state.window.whole()?, finished.clone()))
            }
            _ => None,
        }
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
    /// The last byte of a range, until the whole body has proved right. It is held here and not in
    /// the window: with a full disk, waiting for it there would stop the fill that it waits for.
    held: Option<Bytes>,
    broken: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.broken {
                return None;
            }
            match self.find().await {
                Ok(None) => return self.held.take().map(Ok),
                Ok(Some((mut bytes, proven))) => {
                    self.position += bytes.len() as u64;
                    let at_end = self.end.is_some_and(|end| self.position >= end);
                    self.shared.note_reader(self.id, if at_end { u64::MAX } else { self.position });
                    if at_end && !proven {
                        let last = bytes.split_off(bytes.len().saturating_sub(1));
                        self.held = Some(Bytes::copy_from_slice(&last));
                    }
                    if !bytes.is_empty() {
                        return Some(Ok(bytes));
                    }
                }
                Err(error) => {
                    self.broken = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The next bytes, and whether the body has proved right; `None` at the end, which is after the proof.
    async fn find(&mut self) -> io::Result<Option<(Bytes, bool)>> {
        loop {
            self.moved.borrow_and_update();
            let (next, file, proven, most_of_file) = {
                let state = self.shared.lock();
                if let Phase::Failed(failure) = &state.phase {
                    return Err(io::Error::other(failure.error()));
                }
                (
                    state.window.next(self.position, self.end),
                    state.file.clone(),
                    state.window.proven,
                    chunk_for(state.window.reader_count()),
                )
            };
            match (next, file) {
                (Next::Bytes(bytes), _) => return Ok(Some((bytes, proven))),
                (Next::File(most), Some(file)) => {
                    let chunk = self.shared.blobs.0.buffers.read(&file, self.position, most.min(most_of_file)).await?;
                    return Ok(Some((chunk, proven)));
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

/// What one of so many readers takes from the file at once. Each holds that much until its client has taken
/// it, and a thousand with a whole chunk each held 250 MB.
fn chunk_for(readers: usize) -> u64 {
    const FEW: usize = 32;
    const SHARE: u64 = 16 << 10;
    if readers <= FEW { CHUNK as u64 } else { SHARE }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().window.detach(self.id);
        self.shared.room.notify_one();
    }
}
