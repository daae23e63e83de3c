//! Power loss: what was not synced may be lost, in any part and any order, also during recovery.
//!
//! A run is recorded as the writes and syncs that reached the storage. For a cut at
//! any point of the record, images of the disk are made: all that was synced, and of
//! the later writes some, whole or torn. Each image must open, with every batch that
//! was acknowledged before the cut and no half batch. The order of loss is drawn from
//! a seeded sequence, so a failure names an image that can be made again.

use std::io;

use super::*;
use crate::store::suite::{LEFT, RIGHT, batch, put};

#[derive(Clone, Debug)]
enum Event {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
    /// A batch was acknowledged.
    Answer(usize),
}

/// Storage in memory that records what was done to it.
#[derive(Clone, Debug, Default)]
struct Recorder {
    image: Arc<Mutex<Vec<u8>>>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    fn of(image: Vec<u8>) -> Self {
        Self { image: Arc::new(Mutex::new(image)), events: Arc::default() }
    }

    fn record(&self, event: Event) {
        lock(&self.events).push(event);
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.image).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let image = lock(&self.image);
        let part = image.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        lock(&self.image).resize(len, 0);
        self.record(Event::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.record(Event::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        write(&mut lock(&self.image), offset, data);
        self.record(Event::Write(offset, data.to_vec()));
        Ok(())
    }
}

fn write(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// What a disk may hold after a cut behind `events`, having held `before` at first.
fn image(before: &[u8], events: &[Event], chance: &mut Chance) -> Vec<u8> {
    let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |last| last + 1);
    let mut image = before.to_vec();
    // How many of the unsynced writes are lost: none, some, most, all.
    let lost = [0, 30, 80, 100][chance.below(4)];
    for (index, event) in events.iter().enumerate() {
        let unsynced = index >= synced;
        if unsynced && chance.below(100) < lost {
            continue;
        }
        match event {
            Event::Length(length) => image.resize(*length, 0),
            Event::Write(offset, data) if unsynced && chance.below(4) == 0 => {
                // Torn between two sectors.
                let kept = chance.below(data.len() / 512 + 1) * 512;
                write(&mut image, *offset, &data[..kept.min(data.len())]);
            }
            Event::Write(offset, data) => write(&mut image, *offset, data),
            Event::Sync | Event::Answer(_) => {}
        }
    }
    image
}

const BATCHES: usize = 12;

/// Rows of a batch: two tables, and a value that takes several pages.
fn rows(index: usize) -> Batch {
    let key = format!("{index}");
    batch([], [put(LEFT, &key, &"left".repeat(700)), put(RIGHT, &key, "right"), put(LEFT, "last", &key)])
}

async fn assert_whole(store: &Redb, acknowledged: &[usize], cut: &str) {
    let mut newest = None;
    for index in 0..BATCHES {
        let key = format!("{index}");
        let left = store.get(LEFT, key.as_bytes()).await.unwrap();
        let right = store.get(RIGHT, key.as_bytes()).await.unwrap();
        assert_eq!(left.is_some(), right.is_some(), "half of batch {index}: {cut}");
        assert!(left.is_some() || !acknowledged.contains(&index), "batch {index} is lost: {cut}");
        newest = if left.is_some() { Some(key) } else { newest };
    }
    let last = store.get(LEFT, b"last").await.unwrap();
    assert_eq!(last.as_deref(), newest.as_deref().map(str::as_bytes), "{cut}");
}

#[tokio::test]
async fn no_cut_of_power_loses_an_acknowledged_batch() {
    let recorder = Recorder::default();
    let store = Redb::open_backend(recorder.clone(), &Config::default(), Durability::Truth).unwrap();
    // The file was laid out and synced under another name: that part is not cut.
    lock(&recorder.events).push(Event::Sync);
    let laid_out = lock(&recorder.events).len();
    for index in 0..BATCHES {
        store.commit(rows(index)).await.unwrap();
        recorder.record(Event::Answer(index));
    }
    drop(store);
    let events = lock(&recorder.events).clone();
    let mut images = 0;
    for cut in laid_out..=events.len() {
        for seed in 0..3 {
            let mut chance = Chance((cut * 100 + seed) as u64);
            let first = image(&[], &events[..cut], &mut chance);
            let acknowledged: Vec<usize> =
                events[..cut].iter().filter_map(|event| if let Event::Answer(index) = event { Some(*index) } else { None }).collect();
            let name = format!("cut {cut}, seed {seed}");
            let recovering = Recorder::of(first.clone());
            let store = Redb::open_backend(recovering.clone(), &Config::default(), Durability::Truth)
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_whole(&store, &acknowledged, &name).await;
            images += 1;
            // A second cut during the recovery, or during the closing after it.
            drop(store);
            let recovery = lock(&recovering.events).clone();
            if seed == 0 && !recovery.is_empty() {
                let again = chance.below(recovery.len() + 1);
                let second = Recorder::of(image(&first, &recovery[..again], &mut chance));
                let name = format!("{name}, again at {again}");
                let store =
                    Redb::open_backend(second, &Config::default(), Durability::Truth).unwrap_or_else(|error| panic!("{name}: {error:?}"));
                assert_whole(&store, &acknowledged, &name).await;
                images += 1;
            }
        }
    }
    assert!(images > 300, "only {images} images");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_wait_share_a_sync() {
    let recorder = Recorder::default();
    let store = Arc::new(Redb::open_backend(recorder.clone(), &Config::default(), Durability::Truth).unwrap());
    let before = lock(&recorder.events).len();
    // As long as this is held the writer stands still in its first transaction.
    let held = lock(&recorder.image);
    let commits: Vec<_> = (0..64)
        .map(|index| {
            let store = Arc::clone(&store);
            let mut commit = Box::pin(async move { store.commit(batch([], [put(LEFT, &format!("{index}"), "")])).await });
            // The first poll queues the batch.
            let _ = commit.as_mut().now_or_never();
            commit
        })
        .collect();
    drop(held);
    for commit in commits {
        assert_eq!(commit.await.unwrap(), Outcome::Committed);
    }
    let syncs = lock(&recorder.events)[before..].iter().filter(|event| matches!(event, Event::Sync)).count();
    assert!((2..=16).contains(&syncs), "{syncs} syncs for 64 batches");
}
