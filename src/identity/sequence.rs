//! Numeric ids that are never used twice.
//!
//! A block of ids is reserved by one conditional change of a counter row, then
//! handed out from memory. What is left of a block when the process ends is lost,
//! which only leaves a gap.

use std::ops::Range;

use tokio::sync::Mutex;

use crate::error::{Error, Kind, Result, Subject};
use crate::store::table::{Key, Table};
use crate::store::{Batch, Outcome, Store};

static COUNTERS: Table<u64> = Table::new("sequence");

/// Ids reserved at once. A reservation is a commit that all who want an id wait for: at 64 every second group of
/// sixteen publishes, which draw three ids each, waited for one.
const BLOCK: u64 = 1024;

/// Tries to reserve a block against other processes before giving up.
const TRIES: usize = 16;

/// A source of ids. One per name and process; several processes may share a store.
pub struct Sequence {
    name: &'static str,
    free: Mutex<Range<u64>>,
}

impl Sequence {
    /// The sequence of a name. The first id is 1.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, free: Mutex::const_new(0..0) }
    }

    /// An id that was never returned before, by this or any other process on the store.
    ///
    /// # Errors
    /// When the store fails, or other processes win every try.
    pub async fn next(&self, store: &dyn Store) -> Result<u64> {
        let mut free = self.free.lock().await;
        if free.is_empty() {
            *free = self.reserve(store).await?;
        }
        let id = free.start;
        free.start += 1;
        Ok(id)
    }

    async fn reserve(&self, store: &dyn Store) -> Result<Range<u64>> {
        let key = || Key::new().text(self.name);
        for _ in 0..TRIES {
            let stored = COUNTERS.get(store, key()).await?;
            let mut batch = Batch::new();
            let start = match &stored {
                None => {
                    COUNTERS.absent(&mut batch, key());
                    1
                }
                Some(stored) => {
                    COUNTERS.unchanged(&mut batch, key(), stored);
                    stored.value
                }
            };
            let end = start.checked_add(BLOCK).ok_or_else(|| Error::internal(Subject::Store, "ids ran out"))?;
            COUNTERS.put(&mut batch, key(), &end)?;
            if store.commit(batch).await? == Outcome::Committed {
                return Ok(start..end);
            }
        }
        Err(Error::new(Kind::Unavailable, Subject::Store).because("the id counter is contended"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::identity::rows::Rows;

    #[tokio::test]
    async fn two_processes_never_draw_the_same_id() {
        let store = Rows::default();
        let (one, two) = (Sequence::new("test"), Sequence::new("test"));
        let mut seen = HashSet::new();
        for _ in 0..200 {
            assert!(seen.insert(one.next(&store).await.unwrap()));
            assert!(seen.insert(two.next(&store).await.unwrap()));
        }
        assert!(!seen.contains(&0));
        let restarted = Sequence::new("test");
        assert!(seen.insert(restarted.next(&store).await.unwrap()));
    }
}
