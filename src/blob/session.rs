//! Upload sessions: a blob that is written over several requests.
//!
//! A session belongs to one user and one place and is found by nobody else. Its bytes
//! go to disk as they come and are hashed on the way; what a request has brought stays
//! when its connection breaks off, and the next one goes on there. Between requests a
//! session holds no open file and no bytes in memory. There are only so many, of each
//! user and in all, and who leaves one idle for too long loses it.
//!
//! Sessions end with the process: their clients begin anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::TryRng as _;
use tokio::sync::OwnedMutexGuard;

use super::{BlobWriter, Blobs, Purpose, Staged};
use crate::clock::Timestamp;
use crate::digest::Algorithm;
use crate::error::{Error, Kind, Result, Subject};
use crate::package::AccountId;

/// How long a request waits for an earlier one of its session to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a client should try again that was told to wait.
const LATER: Duration = Duration::from_secs(5);

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user: AccountId,
    /// What it is for, in the caller's own words: an ecosystem and a package's name.
    pub place: String,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

struct Session {
    holder: Holder,
    /// `None` once the blob is complete.
    writer: Arc<tokio::sync::Mutex<Option<BlobWriter>>>,
    /// What is written, for those who ask while a request is writing.
    written: AtomicU64,
    /// When it was last used, in milliseconds since the epoch.
    used: AtomicI64,
}

impl Session {
    fn touch(&self, now: Timestamp) {
        self.used.store(now.as_millis(), Ordering::Relaxed);
    }
}

/// A session in the hands of one request. Dropping it leaves the session as it is.
pub struct SessionWriter {
    blobs: Blobs,
    id: String,
    session: Arc<Session>,
    writer: OwnedMutexGuard<Option<BlobWriter>>,
}

impl Blobs {
    /// Opens a session for a blob of at most `limit_bytes`; gives its id. `further` is as for [`Blobs::create`].
    ///
    /// # Errors
    /// [`Kind::TooMany`] when there are too many, of this user or in all.
    pub async fn open_session(&self, holder: Holder, further: &[Algorithm], limit_bytes: u64) -> Result<String> {
        let id = random_id()?;
        let writer = self.create(Purpose::Hosted, further, limit_bytes).await?;
        let (config, now) = (&self.0.config, self.0.clock.now());
        let session = Session {
            holder,
            writer: Arc::new(tokio::sync::Mutex::new(Some(writer))),
            written: AtomicU64::new(0),
            used: AtomicI64::new(now.as_millis()),
        };
        let mut all = self.sessions();
        let is_full = |all: &HashMap<String, Arc<Session>>| {
            let own = all.values().filter(|other| other.holder.user == session.holder.user).count();
            all.len() >= config.upload_sessions || own >= config.upload_sessions_per_user
        };
        if is_full(&all) && (self.drop_idle(&mut all) == 0 || is_full(&all)) {
            let error = Error::new(Kind::TooMany, Subject::Upload).saying("too many uploads are under way; finish or cancel some");
            return Err(error.retry_after(LATER));
        }
        all.insert(id.clone(), Arc::new(session));
        Ok(id)
    }

    /// Takes a session in hand, to write to it or to end it. Waits a while for an earlier request of the session.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the holder has no such session, [`Kind::TooMany`] when the other request does not end.
    pub async fn resume_session(&self, id: &str, holder: &Holder) -> Result<SessionWriter> {
        let session = self.session(id, holder)?;
        let lock = Arc::clone(&session.writer).lock_owned();
        let writer = tokio::time::timeout(PATIENCE, lock).await.map_err(|_| {
            let error = Error::new(Kind::TooMany, Subject::Upload).saying("another request is writing to this upload");
            error.retry_after(LATER)
        })?;
        if writer.is_none() {
            return Err(unknown());
        }
        session.touch(self.0.clock.now());
        Ok(SessionWriter { blobs: self.clone(), id: id.to_owned(), session, writer })
    }

    /// How many bytes a session has taken.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the holder has no such session.
    pub fn session_size(&self, id: &str, holder: &Holder) -> Result<u64> {
        let session = self.session(id, holder)?;
        session.touch(self.0.clock.now());
        Ok(session.written.load(Ordering::Relaxed))
    }

    /// Ends a session and gives up what it has taken.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the holder has no such session.
    pub fn cancel_session(&self, id: &str, holder: &Holder) -> Result<()> {
        self.session(id, holder)?;
        self.sessions().remove(id);
        Ok(())
    }

    /// Ends the sessions that nobody has used for too long, and writes out what requests that
    /// broke off have left in memory. For a periodic job; returns how many have ended.
    pub async fn tidy_sessions(&self) -> usize {
        let (ended, left): (usize, Vec<Arc<Session>>) = {
            let mut all = self.sessions();
            let ended = self.drop_idle(&mut all);
            (ended, all.values().cloned().collect())
        };
        for session in left {
            let Ok(mut writer) = Arc::clone(&session.writer).try_lock_owned() else { continue };
            if let Some(unpaused) = writer.as_mut().filter(|writer| !writer.is_paused())
                && let Err(error) = unpaused.pause().await
            {
                tracing::warn!(?error, "an upload cannot go on");
                *writer = None;
            }
        }
        ended
    }

    /// Ends all sessions, when the server stops. Each holds these blobs, so they would never go by themselves.
    pub fn end_sessions(&self) {
        self.sessions().clear();
    }

    /// Drops sessions that no request is using and none has for too long.
    fn drop_idle(&self, all: &mut HashMap<String, Arc<Session>>) -> usize {
        let (before, now) = (all.len(), self.0.clock.now());
        let most = Duration::from_secs(self.0.config.upload_idle_seconds);
        all.retain(|_, session| {
            let used = Timestamp::from_millis(session.used.load(Ordering::Relaxed));
            let writing = session.writer.try_lock().is_err();
            writing || now.since(used) < most
        });
        before - all.len()
    }

    fn session(&self, id: &str, holder: &Holder) -> Result<Arc<Session>> {
        let found = self.sessions().get(id).cloned();
        found.filter(|session| session.holder == *holder).ok_or_else(unknown)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.sessions.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionWriter {
    /// How many bytes the session has taken.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.writer.as_ref().map_or(0, BlobWriter::written)
    }

    /// Says which digest will be asked for at the end. Known before the first byte it costs no second reading.
    pub fn want(&mut self, algorithm: Algorithm) {
        if let Some(writer) = self.writer.as_mut() {
            writer.want(algorithm);
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As [`BlobWriter::write`]; the session has ended then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(unknown)?;
        let written = writer.write(bytes).await;
        self.session.written.store(writer.written(), Ordering::Relaxed);
        self.session.touch(self.blobs.0.clock.now());
        written.inspect_err(|_| self.end())
    }

    /// Leaves the session to the next request; gives how many bytes it has taken.
    ///
    /// # Errors
    /// As [`BlobWriter::pause`]; the session has ended then.
    pub async fn pause(mut self) -> Result<u64> {
        let writer = self.writer.as_mut().ok_or_else(unknown)?;
        let paused = writer.pause().await;
        let written = writer.written();
        paused.inspect_err(|_| self.end())?;
        Ok(written)
    }

    /// Ends the session; the blob is written whole, to be kept or dropped.
    ///
    /// # Errors
    /// As [`BlobWriter::finish`].
    pub async fn finish(mut self) -> Result<Staged> {
        let writer = self.writer.take().ok_or_else(unknown)?;
        self.end();
        writer.finish().await
    }

    fn end(&mut self) {
        self.blobs.sessions().remove(&self.id);
    }
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|error| Error::new(Kind::Unavailable, Subject::Upload).because(error))?;
    Ok(hex::encode(bytes))
}

fn unknown() -> Error {
    Error::not_found(Subject::Upload)
}
