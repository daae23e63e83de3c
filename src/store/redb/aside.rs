//! Reading on after the disk has failed.
//!
//! After one error redb refuses every further access to its file, also to read. So
//! the file is opened a second time, only to be read: what redb writes to recover it
//! stays in memory. The first opening still holds the file's lock and is not used.
//!
//! What is read is the file as the disk gives it back, as after a restart. A batch
//! whose commit failed may be in it, whole, or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::redb::{Database, StorageBackend};

const BLOCK: u64 = 4096;

/// Opens the file to be read only. `page_cache_bytes` is memory for its pages.
pub(super) fn open(path: &Path, page_cache_bytes: u64) -> Result<Database, ::redb::DatabaseError> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let image = Mutex::new(Image { length, of_file: length, blocks: BTreeMap::new() });
    let mut builder = Database::builder();
    builder.set_cache_size(usize::try_from(page_cache_bytes).unwrap_or(usize::MAX));
    builder.create_with_backend(Aside { file, image })
}

/// A file with all changes in memory.
#[derive(Debug)]
struct Aside {
    file: File,
    image: Mutex<Image>,
}

#[derive(Debug)]
struct Image {
    length: u64,
    /// Up to where the file's own content counts.
    of_file: u64,
    /// Changed blocks by their number.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Aside {
    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's own content at `offset`; zeros past its end.
    fn read_file(&self, of_file: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let here = usize::try_from(of_file.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (content, zeros) = out.split_at_mut(here);
        zeros.fill(0);
        self.file.read_exact_at(content, offset)
    }
}

impl StorageBackend for Aside {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.image();
        if offset.saturating_add(out.len() as u64) > image.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(image.of_file, offset, out)?;
        for (block, within, part) in parts(offset, out.len()) {
            if let Some(changed) = image.blocks.get(&block) {
                out[part].copy_from_slice(&changed[within]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut image = self.image();
        image.length = len;
        image.of_file = image.of_file.min(len);
        image.blocks.retain(|block, _| block * BLOCK < len);
        if let Some(last) = image.blocks.get_mut(&(len / BLOCK)) {
            let kept = usize::try_from(len % BLOCK).unwrap_or(0);
            last[kept..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut image = self.image();
        image.length = image.length.max(offset.saturating_add(data.len() as u64));
        let of_file = image.of_file;
        for (block, within, part) in parts(offset, data.len()) {
            use std::collections::btree_map::Entry;
            let content = match image.blocks.entry(block) {
                Entry::Occupied(content) => content.into_mut(),
                Entry::Vacant(place) => {
                    let mut content = vec![0; within.end.max(usize::try_from(BLOCK).unwrap_or(within.end))];
                    self.read_file(of_file, block * BLOCK, &mut content)?;
                    place.insert(content)
                }
            };
            content[within].copy_from_slice(&data[part]);
        }
        Ok(())
    }
}

/// The blocks that a piece of the file touches: number, range within the block, range within the piece.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let within = usize::try_from(position % BLOCK).ok()?;
        let count = usize::try_from(BLOCK).ok()?.checked_sub(within)?.min(length - done);
        let part = done..done + count;
        done += count;
        (count > 0).then_some((position / BLOCK, within..within + count, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_stay_in_memory_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let original: Vec<u8> = (0..10_000_u32).map(|place| u8::try_from(place % 251).unwrap()).collect();
        std::fs::write(&path, &original).unwrap();
        let image = Mutex::new(Image { length: 10_000, of_file: 10_000, blocks: BTreeMap::new() });
        let aside = Aside { file: File::open(&path).unwrap(), image };
        let mut model = original.clone();
        let changes = [(0, 1), (4095, 2), (3000, 6000), (9999, 1), (9000, 3000)];
        for (number, (offset, length)) in changes.into_iter().enumerate() {
            let data = vec![200 + u8::try_from(number).unwrap(); length];
            aside.write(offset as u64, &data).unwrap();
            model.resize(model.len().max(offset + length), 0);
            model[offset..offset + length].copy_from_slice(&data);
        }
        for length in [11_000, 5000, 9000] {
            aside.set_len(length as u64).unwrap();
            model.resize(length, 0);
            assert_eq!(aside.len().unwrap(), length as u64);
            let mut content = vec![1; length];
            aside.read(0, &mut content).unwrap();
            assert!(content == model, "after a length of {length}");
            assert!(aside.read(1, &mut content).is_err());
        }
        assert_eq!(std::fs::read(&path).unwrap(), original);
    }
}
