//! Work on the whole data folder, by the running server.
//!
//! It takes as long as there is data to read; the answer comes when it is done. Whoever
//! hangs up ends it.

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Call, shown};
use crate::error::{Error, Result, Subject};
use crate::http::Response;

/// One kind of work; its report.
type Work = Box<dyn Fn() -> BoxFuture<'static, Result<Value>> + Send + Sync>;

/// The work that an operator may ask for. It is done on a floor above this one, so the functions are handed in.
pub struct Upkeep {
    fsck: Work,
    gc: Work,
    /// Two at once would only read the same disk twice.
    running: Mutex<()>,
}

impl Upkeep {
    /// From a check of everything, and from the removal of what nothing refers to.
    #[must_use]
    pub fn new(fsck: Work, gc: Work) -> Self {
        Self { fsck, gc, running: Mutex::default() }
    }

    async fn run(&self, work: &Work) -> Result<Response> {
        let Ok(_turn) = self.running.try_lock() else {
            return Err(Error::conflict(Subject::Request, "a check or clean-up is running already, try again later"));
        };
        Ok(shown(&work().await?))
    }
}

pub(super) async fn fsck(call: Call<'_>) -> Result<Response> {
    let upkeep = &call.api.upkeep;
    upkeep.run(&upkeep.fsck).await
}

pub(super) async fn gc(call: Call<'_>) -> Result<Response> {
    let upkeep = &call.api.upkeep;
    upkeep.run(&upkeep.gc).await
}
