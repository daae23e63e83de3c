//! Blobs that are asked for again and again stay open.
//!
//! Opening a file, asking for its size and mapping it cost 6 µs a request. What is kept is the pair of descriptor and mapping
//! (`http::file::StoredFile`), with what the file looked like when its content was proved. One `fstat` (0.3 µs) tells that it is
//! still that file, and that it still has a name: somebody may have changed, replaced or removed it behind our back. Whatever
//! removes a blob drops its pair at once, so that its space is free as soon as its last reader is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Id;
use super::read::Stamp;
use crate::http::file::StoredFile;

/// A blob's file whose content was proved.
#[derive(Clone)]
pub(super) struct Open {
    pub file: Arc<StoredFile>,
    /// What the file looked like then.
    pub stamp: Stamp,
    /// When that was.
    pub proved: Instant,
}

/// The files that stay open, the most used of them.
pub(super) struct OpenFiles(quick_cache::sync::Cache<Id, Open>);

impl OpenFiles {
    /// Keeps at most `limit` files open.
    pub(super) fn new(limit: usize) -> Self {
        Self(quick_cache::sync::Cache::new(limit))
    }

    /// The file of a blob, if it is open and as it was when it was proved, no longer ago than `holds`.
    pub(super) fn get(&self, id: &Id, holds: Duration) -> Option<Arc<StoredFile>> {
        let open = self.0.get(id)?;
        let same = Stamp::of(open.file.file()).is_ok_and(|stamp| stamp.is_named() && stamp == open.stamp);
        if same && open.proved.elapsed() < holds {
            return Some(open.file);
        }
        self.0.remove(id);
        None
    }

    /// Keeps a file open. Whoever removed the blob meanwhile cannot have dropped this, so the caller looks once more.
    pub(super) fn keep(&self, id: Id, open: Open) {
        self.0.insert(id, open);
    }

    /// Closes a file, once its last reader is done.
    pub(super) fn forget(&self, id: &Id) {
        self.0.remove(id);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}
