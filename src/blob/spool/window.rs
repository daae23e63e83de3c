//! What of a body that is being fetched is in memory, what is on disk, and what readers may see.
//!
//! No IO and no waiting here, only arithmetic on positions:
//!
//! ```text
//! 0 ........ start ........ stored ........ hashed ........ received
//!   (dropped)      on disk too      in memory, hashed  in memory only
//! ```
//!
//! What is hashed is stored a while later. Once the disk is full `stored` stands still,
//! and frames past it stay until every reader had them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// How much may be kept, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Not yet hashed and stored; when nothing is stored any more, all that is kept.
    pub ahead: u64,
    /// Kept although it is on disk.
    pub window: u64,
}

/// Who hashes: each takes in every byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Whose SHA-256 names the blob, and who stores.
    Main,
    /// Who computes the further digests, where that is done beside.
    Beside,
}

/// The frames of a body.
#[derive(Debug)]
pub(super) struct Window {
    /// Length of the whole body, once it is known.
    pub length: Option<u64>,
    /// Whether what is hashed is to be stored too.
    pub storing: bool,
    /// Whether the whole body has proved right.
    pub proven: bool,
    frames: VecDeque<Frame>,
    received: u64,
    /// Where the newest frame begins.
    newest: u64,
    /// How far each lane is.
    hashed: [u64; 2],
    stored: u64,
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
}

#[derive(Debug)]
struct Frame {
    start: u64,
    bytes: Bytes,
}

impl Frame {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// Where a reader finds its next bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Here they are.
    Bytes(Bytes),
    /// In the file, at least this many.
    File(u64),
    /// They have not come yet, or may not be shown yet.
    Wait,
    /// They are neither in memory nor on disk: the reader came or was too late.
    Lost,
    /// The reader had all it asked for.
    End,
    /// The body is shorter than what the reader asked for.
    Short,
}

impl Window {
    /// `lanes` is one or two.
    pub(super) fn new(length: Option<u64>, storing: bool, lanes: usize) -> Self {
        Self {
            length,
            storing,
            proven: false,
            frames: VecDeque::new(),
            received: 0,
            newest: 0,
            // A lane that is not there has everything.
            hashed: if lanes > 1 { [0, 0] } else { [0, u64::MAX] },
            stored: 0,
            readers: BTreeMap::new(),
            next_reader: 0,
        }
    }

    /// Bytes that have come in.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Takes in the next bytes, which are not empty.
    pub(super) fn push(&mut self, bytes: Bytes) {
        let start = self.received;
        self.newest = start;
        self.received += bytes.len() as u64;
        self.frames.push_back(Frame { start, bytes });
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> u64 {
        self.received - self.start()
    }

    /// Whether no more bytes should be taken in for now.
    pub(super) fn is_crowded(&self, limits: Limits) -> bool {
        let kept_from = if self.storing { self.stored.min(self.hashed()) } else { self.start() };
        self.received - kept_from > limits.ahead
    }

    /// Up to where every lane has hashed.
    fn hashed(&self) -> u64 {
        self.hashed[0].min(self.hashed[1]).min(self.received)
    }

    /// Whether every lane has hashed what has come.
    pub(super) fn is_hashed(&self) -> bool {
        self.hashed() == self.received
    }

    /// Bytes that wait to be hashed by a lane.
    pub(super) fn waiting(&self, lane: Lane) -> u64 {
        self.received.saturating_sub(self.hashed[lane as usize])
    }

    /// Bytes that are hashed and wait to be stored.
    pub(super) fn unstored(&self) -> u64 {
        if self.storing { self.hashed[Lane::Main as usize] - self.stored } else { 0 }
    }

    /// Frames that wait to be hashed by a lane, in all at most `most` bytes but at least one frame.
    pub(super) fn to_hash(&self, lane: Lane, most: u64) -> Vec<Bytes> {
        self.frames_from(self.hashed[lane as usize], self.received, most)
    }

    /// As [`Window::to_hash`], what waits to be stored.
    pub(super) fn to_store(&self, most: u64) -> Vec<Bytes> {
        self.frames_from(self.stored, self.hashed[Lane::Main as usize], most)
    }

    fn frames_from(&self, from: u64, to: u64, most: u64) -> Vec<Bytes> {
        let first = self.frames.partition_point(|frame| frame.start < from);
        let mut bytes = 0;
        let mut take = |frame: &&Frame| {
            let room = bytes < most && frame.start < to;
            bytes += frame.bytes.len() as u64;
            room
        };
        self.frames.range(first..).take_while(|frame| take(frame)).map(|frame| frame.bytes.clone()).collect()
    }

    /// Notes that a lane has hashed the next so many bytes.
    pub(super) fn note_hashed(&mut self, lane: Lane, bytes: u64) {
        self.hashed[lane as usize] += bytes;
    }

    /// Notes that the next so many bytes are on disk.
    pub(super) fn note_stored(&mut self, bytes: u64) {
        self.stored += bytes;
    }

    /// Notes that the body is whole and right.
    pub(super) fn prove(&mut self) {
        self.proven = true;
        self.length = Some(self.received);
    }

    /// Drops what is on disk from memory, whatever readers have still to read.
    pub(super) fn leave_to_disk(&mut self) {
        while self.frames.front().is_some_and(|front| front.end() <= self.stored) {
            self.frames.pop_front();
        }
    }

    /// Drops frames that nobody needs from memory.
    pub(super) fn trim(&mut self, limits: Limits) {
        let slowest = self.readers.values().copied().min().unwrap_or(u64::MAX);
        let hashed = self.hashed();
        while let Some(front) = self.frames.front() {
            let droppable = if front.end() > hashed {
                false
            } else if front.end() <= self.stored {
                front.end() <= slowest || self.stored - front.start > limits.window
            } else {
                // Without readers the newest frames are kept, for one that is about to come.
                !self.storing && !self.proven && front.end() <= slowest && self.received - front.start > limits.ahead
            };
            if !droppable {
                break;
            }
            self.frames.pop_front();
        }
    }

    /// Whether a reader who comes now can have every byte.
    pub(super) fn is_whole(&self) -> bool {
        self.start() <= self.stored
    }

    /// Whether no frame was dropped.
    pub(super) fn is_in_memory(&self) -> bool {
        self.start() == 0
    }

    /// All frames as one, if none was dropped.
    pub(super) fn whole(&self) -> Option<Bytes> {
        if !self.is_in_memory() {
            return None;
        }
        if let [only] = self.frames.as_slices().0
            && self.frames.len() == 1
        {
            return Some(only.bytes.clone());
        }
        let frames: Vec<&[u8]> = self.frames.iter().map(|frame| &frame.bytes[..]).collect();
        Some(frames.concat().into())
    }

    /// Lets a reader in.
    pub(super) fn attach(&mut self, position: u64) -> u64 {
        self.next_reader += 1;
        self.readers.insert(self.next_reader, position);
        self.next_reader
    }

    /// Notes how far a reader is.
    pub(super) fn advance(&mut self, reader: u64, position: u64) {
        self.readers.insert(reader, position);
    }

    /// How many readers there are.
    pub(super) fn reader_count(&self) -> usize {
        self.readers.len()
    }

    /// Lets a reader go.
    pub(super) fn detach(&mut self, reader: u64) {
        self.readers.remove(&reader);
    }

    /// What a reader at `position` gets next; `end` is where its range ends, if it has one.
    pub(super) fn next(&self, position: u64, end: Option<u64>) -> Next {
        let visible = self.visible(end);
        if self.proven && position >= visible {
            return if end.is_some_and(|end| end > self.received) { Next::Short } else { Next::End };
        }
        if position >= visible {
            return Next::Wait;
        }
        if position >= self.start() {
            let index = self.frames.partition_point(|frame| frame.start <= position);
            let Some(frame) = index.checked_sub(1).and_then(|index| self.frames.get(index)) else { return Next::Lost };
            // Both differences are within the frame, whose length is one of memory.
            let from = usize::try_from(position - frame.start).unwrap_or(usize::MAX).min(frame.bytes.len());
            let to = usize::try_from(visible - frame.start).unwrap_or(usize::MAX).min(frame.bytes.len());
            return Next::Bytes(frame.bytes.slice(from..to));
        }
        if position < self.stored {
            return Next::File(self.stored.min(visible) - position);
        }
        Next::Lost
    }

    /// How far a reader may see. Until the body has proved right its last frame is held back, so
    /// that no reader ends cleanly on what may turn out wrong. A range is held back by its reader.
    fn visible(&self, end: Option<u64>) -> u64 {
        if self.proven {
            return end.unwrap_or(u64::MAX).min(self.received);
        }
        let complete = self.length.is_none_or(|length| self.received >= length);
        let safe = if complete { self.newest } else { self.received };
        end.map_or(safe, |end| safe.min(end))
    }

    /// Position of the first byte in memory.
    fn start(&self) -> u64 {
        self.frames.front().map_or(self.received, |front| front.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { ahead: 30, window: 10 };

    fn frame(length: usize) -> Bytes {
        vec![7; length].into()
    }

    #[test]
    fn the_last_frame_is_held_back_until_the_proof() {
        for length in [Some(30), None] {
            let mut window = Window::new(length, true, 1);
            assert_eq!(window.next(0, None), Next::Wait);
            window.push(frame(10));
            assert_eq!(window.next(0, None), if length.is_some() { Next::Bytes(frame(10)) } else { Next::Wait });
            window.push(frame(20));
            assert_eq!(window.next(0, None), Next::Bytes(frame(10)));
            assert_eq!(window.next(10, None), Next::Wait);
            window.note_hashed(Lane::Main, 30);
            window.note_stored(30);
            window.trim(LIMITS);
            assert_eq!(window.next(10, None), Next::Wait, "trimming showed the last frame");
            window.prove();
            assert_ne!(window.next(10, None), Next::Wait);
            assert_eq!(window.next(30, None), Next::End);
        }
    }

    #[test]
    fn a_range_is_cut_and_ends_after_the_proof() {
        let mut window = Window::new(Some(100), true, 1);
        window.push(frame(50));
        assert_eq!(window.next(5, Some(20)), Next::Bytes(frame(15)));
        assert_eq!(window.next(20, Some(20)), Next::Wait);
        window.push(frame(50));
        window.note_hashed(Lane::Main, 100);
        window.note_stored(100);
        window.prove();
        assert_eq!(window.next(19, Some(20)), Next::Bytes(frame(1)));
        assert_eq!(window.next(20, Some(20)), Next::End);
        assert_eq!(window.next(100, Some(101)), Next::Short);
    }

    #[test]
    fn frames_leave_when_they_are_on_disk_and_read_or_too_many() {
        let mut window = Window::new(Some(1000), true, 1);
        let reader = window.attach(0);
        for _ in 0..4 {
            window.push(frame(10));
        }
        assert!(window.is_crowded(LIMITS));
        window.note_hashed(Lane::Main, 20);
        assert!(window.is_crowded(LIMITS), "what is not stored is in memory");
        window.note_stored(20);
        assert!(!window.is_crowded(LIMITS));
        window.trim(LIMITS);
        assert_eq!(window.next(0, None), Next::File(20), "the first frame is past the window");
        assert_eq!(window.next(10, None), Next::Bytes(frame(10)));
        window.advance(reader, 20);
        window.trim(LIMITS);
        assert_eq!(window.next(15, None), Next::File(5));
        assert!(window.is_whole());
    }

    #[test]
    fn what_one_lane_has_yet_to_hash_stays() {
        let mut window = Window::new(Some(1000), true, 2);
        for _ in 0..4 {
            window.push(frame(10));
        }
        window.note_hashed(Lane::Main, 40);
        window.note_stored(40);
        window.trim(LIMITS);
        assert!(window.is_crowded(LIMITS) && window.is_in_memory() && !window.is_hashed());
        assert_eq!((window.waiting(Lane::Main), window.waiting(Lane::Beside)), (0, 40));
        assert_eq!(window.to_hash(Lane::Beside, 15), [frame(10), frame(10)]);
        window.note_hashed(Lane::Beside, 40);
        window.trim(LIMITS);
        assert!(window.is_hashed() && !window.is_crowded(LIMITS) && window.kept() == 0);
    }

    #[test]
    fn without_a_disk_the_slowest_reader_holds_the_frames() {
        let mut window = Window::new(Some(1000), false, 1);
        let (slow, fast) = (window.attach(0), window.attach(0));
        for _ in 0..4 {
            window.push(frame(10));
        }
        window.note_hashed(Lane::Main, 40);
        window.advance(fast, 40);
        window.trim(LIMITS);
        assert!(window.is_crowded(LIMITS));
        window.advance(slow, 10);
        window.trim(LIMITS);
        assert!(!window.is_crowded(LIMITS) && !window.is_whole());
        assert_eq!(window.next(0, None), Next::Lost);
        window.push(frame(10));
        window.detach(slow);
        window.note_hashed(Lane::Main, 10);
        window.trim(LIMITS);
        assert!(!window.is_crowded(LIMITS), "a reader that left still holds frames");
    }
}
