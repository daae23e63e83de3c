//! A body that counts what it sends and writes the request's log line at its end.
//!
//! The line is written when the body is done or dropped, so it tells how much a
//! client that left early has got.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::http::{Body, Method, Response, Version};
use crate::observe::{METRICS, Notes, Trace};

/// A response's body with its log line.
pub struct Answer {
    body: Body,
    line: Line,
}

/// What the log line says.
pub struct Line {
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: Method,
    /// The path, without secrets.
    pub path: String,
    /// The protocol's version.
    pub version: Version,
    /// The client's name for itself.
    pub agent: String,
    /// Notes of those who answered.
    pub trace: Arc<Trace>,
    /// When the head had been read.
    pub started: Instant,
    /// The answer's status.
    pub status: u16,
    /// Bytes sent so far.
    pub sent: u64,
    /// Whether the body ended as it should.
    pub whole: bool,
}

impl Answer {
    /// Joins a response and its line.
    pub fn new(response: Response, mut line: Line) -> http::Response<Self> {
        line.status = response.status().as_u16();
        METRICS.answered(&line.trace.notes(), line.status, line.started.elapsed());
        response.map(|body| {
            line.whole = body.is_empty();
            Self { body, line }
        })
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.body), cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.line.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.line.whole |= http_body::Body::is_end_stream(&self.body);
            }
            Poll::Ready(None) => self.line.whole = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        METRICS.sent(self.line.sent);
        self.line.write(self.line.started.elapsed());
    }
}

impl Line {
    fn write(&self, took: Duration) {
        let Notes { ecosystem, caller, package, item, verdict, error } = self.trace.notes();
        // A body of known length that hyper sends in one piece for HEAD is never polled; that is no early end.
        let cut = !self.whole && self.method != Method::HEAD && self.status != 304;
        tracing::info!(
            target: "packhouse::request",
            client = %self.client,
            caller = caller.as_deref(),
            method = %self.method,
            path = self.path,
            protocol = ?self.version,
            status = self.status,
            ecosystem,
            package,
            item,
            cache = verdict,
            upstream_tries = self.trace.tries().count(),
            bytes = self.sent,
            cut,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            agent = self.agent,
            error,
            "request"
        );
    }
}
