//! Power loss: what was not synced may be lost, in any part and any order, also during recovery.
//!
//! A run is recorded as the writes and syncs that reached the storage, of the store's file
//! and of its journal. For a cut at any point of the record, images of the disk are made: all
//! that was synced, and of the later writes some, whole or torn. Each image must open, with every batch that
//! was acknowledged before the cut and no half batch. The order of loss is drawn from
//! a seeded sequence, so a failure names an image that can be made again.

use std::io;

use super::*;
use crate::store::suite::{self, LEFT, RIGHT, batch, put};

/// The files of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Store,
    Journal,
}

#[derive(Clone, Debug)]
enum Event {
    Write(Place, usize, Vec<u8>),
    Length(usize),
    Sync(Place),
    /// A batch was acknowledged.
    Answer(usize),
}

/// What a disk holds.
#[derive(Clone, Debug, Default)]
struct Image {
    store: Vec<u8>,
    journal: Vec<u8>,
}

impl Image {
    fn of(&mut self, place: Place) -> &mut Vec<u8> {
        match place {
            Place::Store => &mut self.store,
            Place::Journal => &mut self.journal,
        }
    }
}

/// Storage in memory that records what was done to it.
#[derive(Clone, Debug, Default)]
struct Recorder {
    image: Arc<Mutex<Vec<u8>>>,
    journal: Arc<Mutex<Vec<u8>>>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    fn of(image: Image) -> Self {
        Self { image: Arc::new(Mutex::new(image.store)), journal: Arc::new(Mutex::new(image.journal)), events: Arc::default() }
    }

    /// Opens a store on it. A journal has room for three groups, and then there is no memory for pages either: they are
    /// written, unsynced, long before the commit that makes them durable.
    fn open(&self, journaled: bool) -> Result<Redb> {
        let page_cache_bytes = if journaled { 0 } else { Config::default().page_cache_bytes };
        let config = Config { journal_bytes: 3 * 4096, page_cache_bytes, ..Config::default() };
        let journal = journaled.then(|| Box::new(self.clone()) as Box<dyn Medium>);
        let disk = self.clone();
        Redb::start(None, &config, Durability::Truth, journal, |builder| builder.create_with_backend(disk))
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
        self.record(Event::Sync(Place::Store));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        write(&mut lock(&self.image), offset, data);
        self.record(Event::Write(Place::Store, offset, data.to_vec()));
        Ok(())
    }
}

impl Medium for Recorder {
    fn read(&self, position: usize, length: usize) -> io::Result<Vec<u8>> {
        let journal = lock(&self.journal);
        let rest = journal.get(position..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }

    fn write(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        write(&mut lock(&self.journal), position, bytes);
        self.record(Event::Write(Place::Journal, position, bytes.to_vec()));
        self.record(Event::Sync(Place::Journal));
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
fn image(before: &Image, events: &[Event], chance: &mut Chance) -> Image {
    let synced =
        |wanted| events.iter().rposition(|event| matches!(event, Event::Sync(place) if *place == wanted)).map_or(0, |last| last + 1);
    let (store, journal) = (synced(Place::Store), synced(Place::Journal));
    let mut image = before.clone();
    // How many of the unsynced writes are lost: none, some, most, all.
    let lost = [0, 30, 80, 100][chance.below(4)];
    for (index, event) in events.iter().enumerate() {
        let unsynced = index >= if matches!(event, Event::Write(Place::Journal, ..)) { journal } else { store };
        if unsynced && chance.below(100) < lost {
            continue;
        }
        match event {
            Event::Length(length) => image.store.resize(*length, 0),
            Event::Write(place, offset, data) if unsynced && chance.below(4) == 0 => {
                // Torn between two sectors.
                let kept = chance.below(data.len() / 512 + 1) * 512;
                write(image.of(*place), *offset, &data[..kept.min(data.len())]);
            }
            Event::Write(place, offset, data) => write(image.of(*place), *offset, data),
            Event::Sync(_) | Event::Answer(_) => {}
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

/// What was acknowledged before a cut.
fn acknowledged(events: &[Event]) -> Vec<usize> {
    events.iter().filter_map(|event| if let Event::Answer(index) = event { Some(*index) } else { None }).collect()
}

/// Cuts a run at any point, and its recovery at some; gives how many images there were, and the run.
async fn cut_everywhere(journaled: bool) -> (usize, Vec<Event>) {
    let recorder = Recorder::default();
    let store = recorder.open(journaled).unwrap();
    // The file was laid out and synced under another name: that part is not cut.
    lock(&recorder.events).push(Event::Sync(Place::Store));
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
            let first = image(&Image::default(), &events[..cut], &mut chance);
            let acknowledged = acknowledged(&events[..cut]);
            let name = format!("cut {cut}, seed {seed}, journaled {journaled}");
            let recovering = Recorder::of(first.clone());
            let store = recovering.open(journaled).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_whole(&store, &acknowledged, &name).await;
            images += 1;
            // A second cut during the recovery, or during the closing after it.
            drop(store);
            let recovery = lock(&recovering.events).clone();
            if seed == 0 && !recovery.is_empty() {
                let again = chance.below(recovery.len() + 1);
                let second = Recorder::of(image(&first, &recovery[..again], &mut chance));
                let name = format!("{name}, again at {again}");
                let store = second.open(journaled).unwrap_or_else(|error| panic!("{name}: {error:?}"));
                assert_whole(&store, &acknowledged, &name).await;
                images += 1;
            }
        }
    }
    (images, events)
}

#[tokio::test]
async fn no_cut_of_power_loses_an_acknowledged_batch() {
    let (images, _) = cut_everywhere(false).await;
    assert!(images > 300, "only {images} images");
}

#[tokio::test]
async fn no_cut_of_power_loses_a_batch_that_only_the_journal_holds() {
    let (images, events) = cut_everywhere(true).await;
    let records = events.iter().filter(|event| matches!(event, Event::Sync(Place::Journal))).count();
    assert_eq!(records, 9, "three of four groups go to the journal");
    assert!(images > 150, "only {images} images");
}

#[tokio::test]
async fn a_journal_says_nothing_to_another_store_nor_to_an_older_state_of_its_own() {
    let recorder = Recorder::default();
    let store = recorder.open(true).unwrap();
    let older = lock(&recorder.image).clone();
    for index in 0..4 {
        store.commit(rows(index)).await.unwrap();
    }
    store.commit(rows(4)).await.unwrap();
    let (newest, journal) = (lock(&recorder.image).clone(), lock(&recorder.journal).clone());
    std::mem::forget(store);
    for (state, kept) in [(Vec::new(), false), (older, false), (newest, true)] {
        let restored = Recorder::of(Image { store: state, journal: journal.clone() });
        let store = restored.open(true).unwrap();
        assert_eq!(store.get(LEFT, b"4").await.unwrap().is_some(), kept);
        // What it writes from here on is what the next opening finds.
        store.commit(batch([], [put(RIGHT, "new", "1")])).await.unwrap();
        std::mem::forget(store);
        let store =
            Recorder::of(Image { store: lock(&restored.image).clone(), journal: lock(&restored.journal).clone() }).open(true).unwrap();
        assert_eq!(store.get(RIGHT, b"new").await.unwrap(), Some(suite::bytes("1")));
        assert_eq!(store.get(LEFT, b"4").await.unwrap().is_some(), kept);
    }
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
    let syncs = lock(&recorder.events)[before..].iter().filter(|event| matches!(event, Event::Sync(_))).count();
    assert!((2..=16).contains(&syncs), "{syncs} syncs for 64 batches");
}
