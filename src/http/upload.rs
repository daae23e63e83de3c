//! A request body, read on demand, within a time-out and a size limit.
//!
//! hyper bounds the time for a request's head, not for its body; the bound is here:
//! a client that sends nothing for the idle time-out is cut off.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::error::{Error, Kind, Result, Subject};

/// The body of a request.
pub struct Upload {
    source: Source,
    idle: Duration,
    /// `Content-Length`, if the client gave one.
    length: Option<u64>,
}

enum Source {
    Incoming(Incoming),
    Memory(Option<Bytes>),
}

impl Upload {
    /// Wraps a body that arrives on a connection. `idle` is the longest pause between two chunks.
    #[must_use]
    pub fn incoming(body: Incoming, idle: Duration) -> Self {
        use hyper::body::Body as _;
        let length = body.size_hint().exact();
        Self { source: Source::Incoming(body), idle, length }
    }

    /// A body at hand.
    #[must_use]
    pub fn memory(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = Some(bytes.len() as u64);
        Self { source: Source::Memory(Some(bytes)), idle: Duration::MAX, length }
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
            Source::Incoming(body) => body,
        };
        loop {
            let frame = tokio::time::timeout(self.idle, body.frame())
                .await
                .map_err(|_| Error::new(Kind::TimedOut, Subject::Request).saying("the request body stalled"))?;
            match frame {
                None => return Ok(None),
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

/// The error of a body past `limit` bytes.
#[must_use]
pub fn too_large(limit: u64) -> Error {
    Error::new(Kind::TooLarge, Subject::Request).saying(format!("the request body is larger than {limit} bytes"))
}
