//! What is used: downloads of hosted versions, counted by day.
//!
//! Counts are summed in memory, so that a download writes nothing and waits for
//! nothing, and are written by a periodic job and at the end of the process. A
//! crash loses the counts since the last time, and nothing else.

use serde::Deserialize;

mod day;
mod downloads;

pub use day::{Day, Days};
pub use downloads::{Count, Downloads};

/// `[usage]`: how much is remembered of use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long downloads are known by day, in days. The sum over all time is kept as long as the version's record.
    pub download_days: u32,
    /// Most versions whose downloads are summed in memory at once; downloads of further ones are not counted.
    pub counted_versions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { download_days: 400, counted_versions: 1_000_000 }
    }
}
