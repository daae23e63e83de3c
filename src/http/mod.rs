//! HTTP as the rest of the crate sees it: requests, responses and bodies.
//!
//! The one place that re-exports the `http` crate. [`Body`] is an enum of our own
//! so that the ways bytes reach a socket (memory, file, growing file) are told
//! apart where it matters and later tricks change one file.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};

pub mod conditional;
pub mod file;
mod mapping;
pub mod multipart;
pub mod negotiate;
pub mod path;
pub mod reply;
pub mod upload;

pub use file::FileBody;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response};
pub use upload::Upload;

/// A request whose body is read on demand and within limits.
pub type Request = http::Request<Upload>;
/// A response.
pub type Response = http::Response<Body>;

/// A stream of body chunks. It ends with an error when the body cannot be completed, and the
/// connection is then cut, so that a client never takes a part for the whole.
pub type ChunkStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// A response body.
pub enum Body {
    /// No bytes.
    Empty,
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stored file, or a range of it.
    File(FileBody),
    /// Chunks as they come, with their total length if it is known.
    Stream {
        /// The chunks.
        chunks: ChunkStream,
        /// Total length in bytes, if known.
        length: Option<u64>,
    },
}

impl Body {
    /// A body of chunks with a known or unknown total length.
    pub fn stream(chunks: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, length: Option<u64>) -> Self {
        Self::Stream { chunks: Box::pin(chunks), length }
    }

    /// Total length in bytes, if known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.len()),
            Self::Stream { length, .. } => *length,
        }
    }

    /// Whether the body is known to hold no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::File(FileBody { file, range }) => {
                let body = FileBody { file: Arc::clone(file), range: range.clone() };
                *self = Self::Stream { length: Some(body.len()), chunks: body.chunks() };
                self.poll_frame(cx)
            }
            Self::Stream { chunks, length } => {
                let next = std::task::ready!(chunks.as_mut().poll_next(cx));
                if let (Some(length), Some(Ok(chunk))) = (length, &next) {
                    *length = length.saturating_sub(chunk.len() as u64);
                }
                Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(file) => file.is_empty(),
            Self::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.len().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
