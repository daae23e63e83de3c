//! A request body, read on demand, within a time-out and a size limit.
//!
//! hyper bounds the time for a request's head, not for its body; the bound is here:
//! a client that sends nothing for the idle time-out is cut off.
//!
//! A body that a handler leaves unread, because it refuses the request, is read on
//! for a while and thrown away. Were the connection closed on it at once, the
//! client would see a reset and never the answer that says why.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{HeaderMap, header};
use crate::error::{Error, Kind, Result, Subject};

/// Most of an unread body that is thrown away, in bytes.
const DRAIN_LIMIT_BYTES: u64 = 32 << 20;
/// Longest time for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The body of a request.
pub struct Upload {
    source: Source,
    idle: Duration,
    /// `Content-Length`, if the client gave one.
    length: Option<u64>,
    /// Whether the client is still waiting to be told to send the body.
    held_back: bool,
}

enum Source {
    Incoming(Incoming),
    Memory(Option<Bytes>),
    /// The end was reached.
    Done,
}

impl Upload {
    /// Wraps the body that arrives with a request. `idle` is the longest pause between two chunks.
    #[must_use]
    pub fn incoming(body: Incoming, headers: &HeaderMap, idle: Duration) -> Self {
        use hyper::body::Body as _;
        let length = body.size_hint().exact();
        let held_back = headers.contains_key(header::EXPECT);
        Self { source: Source::Incoming(body), idle, length, held_back }
    }

    /// A body at hand.
    #[must_use]
    pub fn memory(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = Some(bytes.len() as u64);
        Self { source: Source::Memory(Some(bytes)), idle: Duration::MAX, length, held_back: false }
    }

    /// Total length in bytes, if the client said so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// [`Kind::TimedOut`] when the client pauses too long, [`Kind::Invalid`] when the
    /// body breaks off or is malformed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let body = match &mut self.source {
            Source::Memory(bytes) => return Ok(bytes.take().filter(|bytes| !bytes.is_empty())),
            Source::Done => return Ok(None),
            Source::Incoming(body) => body,
        };
        self.held_back = false;
        loop {
            let frame = tokio::time::timeout(self.idle, body.frame())
                .await
                .map_err(|_| Error::new(Kind::TimedOut, Subject::Request).saying("the request body stalled"))?;
            match frame {
                None => {
                    self.source = Source::Done;
                    return Ok(None);
                }
                Some(Err(error)) => return Err(Error::invalid(Subject::Request, "the request body broke off").because(error)),
                Some(Ok(frame)) => {
                    // Trailers carry nothing that any of our protocols uses.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] past the limit (decided from `Content-Length` before any
    /// byte is read, if there is one), and the errors of [`Upload::chunk`].
    pub async fn read(mut self, limit: u64) -> Result<Bytes> {
        self.check_length(limit)?;
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if (whole.len() + chunk.len()) as u64 > limit {
                return Err(too_large(limit));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Refuses a body whose announced length is past `limit` bytes.
    ///
    /// # Errors
    /// [`Kind::TooLarge`].
    pub fn check_length(&self, limit: u64) -> Result<()> {
        match self.length {
            Some(length) if length > limit => Err(too_large(limit)),
            _ => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Source::Incoming(body) = std::mem::replace(&mut self.source, Source::Done) else { return };
        if self.held_back || hyper::body::Body::is_end_stream(&body) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DRAIN_LIMIT, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = DRAIN_LIMIT_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// The error of a body past `limit` bytes.
#[must_use]
pub fn too_large(limit: u64) -> Error {
    Error::new(Kind::TooLarge, Subject::Request).saying(format!("the request body is larger than {limit} bytes"))
}
