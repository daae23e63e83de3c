//! Memory for the frames of large bodies, used again.
//!
//! The first touch of memory is dear, in a virtual machine most of all: clearing fresh pages for the
//! frames that wait to be hashed and stored took a sixth of the processor time of a 100 MB fill.
//! So frames of one size are kept for the next ones, by this fill or another, and given back to the
//! system once no fill has wanted them for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Size of a frame.
pub(in crate::blob) const FRAME: usize = 64 << 10;

/// Idle frames.
#[derive(Default)]
pub(in crate::blob) struct Frames(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    frames: Vec<Box<[u8]>>,
    /// Most bytes that may be idle.
    limit_bytes: usize,
    /// The fewest idle frames since the last [`Frames::shrink`]: so many were not wanted.
    fewest: usize,
}

impl Frames {
    pub(in crate::blob) fn new(limit_bytes: u64) -> Self {
        let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        Self(Mutex::new(Idle { limit_bytes, ..Idle::default() }))
    }

    /// A copy of at most [`FRAME`] bytes. Short ones are memory of their own, and no larger than they must be.
    pub(in crate::blob) fn copy(self: &Arc<Self>, bytes: &[u8]) -> Bytes {
        if bytes.len() < FRAME / 2 || bytes.len() > FRAME {
            return Bytes::copy_from_slice(bytes);
        }
        let idle = {
            let mut idle = self.lock();
            let frame = idle.frames.pop();
            idle.fewest = idle.fewest.min(idle.frames.len());
            frame
        };
        let mut frame = Frame { bytes: idle.unwrap_or_else(|| vec![0; FRAME].into()), length: bytes.len(), home: Arc::clone(self) };
        frame.bytes[..bytes.len()].copy_from_slice(bytes);
        Bytes::from_owner(frame)
    }

    /// Frees the frames that nobody has wanted since the last call.
    pub(in crate::blob) fn shrink(&self) {
        let unwanted = {
            let mut idle = self.lock();
            let keep = idle.frames.len() - idle.fewest.min(idle.frames.len());
            let unwanted = idle.frames.split_off(keep);
            idle.fewest = idle.frames.len();
            unwanted
        };
        drop(unwanted);
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Frame {
    bytes: Box<[u8]>,
    length: usize,
    home: Arc<Frames>,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut idle = self.home.lock();
        if (idle.frames.len() + 1) * FRAME <= idle.limit_bytes {
            idle.frames.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(frames: &Frames) -> usize {
        frames.lock().frames.len()
    }

    #[test]
    fn frames_are_used_again_and_hold_what_was_copied() {
        let frames = Arc::new(Frames::new(2 * FRAME as u64));
        let long = vec![1; FRAME];
        let first = frames.copy(&long);
        let part = first.slice(5..7);
        drop(first);
        let second = frames.copy(&long[1..]);
        assert_eq!((idle(&frames), &part[..], second.len()), (0, &[1, 1][..], FRAME - 1));
        drop((part, second));
        assert_eq!(idle(&frames), 2);
        let third = frames.copy(&long[..FRAME / 2]);
        assert!(third.iter().all(|byte| *byte == 1) && third.len() == FRAME / 2 && idle(&frames) == 1);
        assert_eq!(frames.copy(&[4; 10])[..], [4; 10]);
        assert_eq!(frames.copy(&vec![5; FRAME + 1]).len(), FRAME + 1);
        let all: Vec<_> = (0..5).map(|_| frames.copy(&long)).collect();
        drop((all, third));
        assert_eq!(idle(&frames), 2, "more is idle than may be");
    }

    #[test]
    fn what_nobody_wants_is_given_back() {
        let frames = Arc::new(Frames::new(10 * FRAME as u64));
        let long = vec![0; FRAME];
        let hold = |count| (0..count).map(|_| frames.copy(&long)).collect::<Vec<_>>();
        drop(hold(6));
        frames.shrink();
        drop(hold(2));
        frames.shrink();
        assert_eq!(idle(&frames), 2, "four were not wanted");
        frames.shrink();
        frames.shrink();
        assert_eq!(idle(&frames), 0);
    }
}
