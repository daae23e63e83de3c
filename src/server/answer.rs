//! A body that counts what it sends and writes the request's log line at its end.
//!
//! The line is written when the body is done or dropped, so it tells how much a
//! client that left early has got.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::sendfile::{Departure, Lane};
use crate::http::{Body, HeaderValue, Method, Response, Uri, Version, header};
use crate::identity::PREFIX;
use crate::name::PackageName;
use crate::observe::log::{self, Entry};
use crate::observe::{METRICS, Notes, Tries};

/// A response's body with its log line.
pub struct Answer {
    way: Way,
    line: Line,
}

/// How a body's bytes get to the socket.
enum Way {
    /// Through our hands.
    Passed(Body),
    /// From a file, by the kernel.
    Sent(Departure),
}

/// What the log line says.
pub struct Line {
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: Method,
    /// The address asked for; of it only the path is told, without secrets.
    pub uri: Uri,
    /// The protocol's version.
    pub version: Version,
    /// The client's name for itself.
    pub agent: Option<HeaderValue>,
    /// Notes of those who answered.
    pub notes: Notes,
    /// Requests that were sent to upstreams meanwhile; what memory answered has none.
    pub tries: Option<Tries>,
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
    /// Joins a response and its line. The answer to HEAD keeps its head alone. A stored file takes the lane, if the
    /// connection has one.
    pub fn new(mut response: Response, mut line: Line, lane: Option<&Arc<Lane>>) -> http::Response<Self> {
        if line.method == Method::HEAD {
            leave_out_body(&mut response);
        }
        line.status = response.status().as_u16();
        METRICS.answered(&line.notes, line.status, line.started.elapsed());
        response.map(|body| {
            line.whole = body.is_empty();
            let way = match (body, lane) {
                (Body::File(file), Some(lane)) => Departure::new(file, lane).map_or_else(|file| Way::Passed(Body::File(file)), Way::Sent),
                (body, _) => Way::Passed(body),
            };
            Self { way, line }
        })
    }
}

/// Takes the body away, which HTTP/2 would send otherwise, and says how long it would have been.
fn leave_out_body(response: &mut Response) {
    let body = std::mem::replace(response.body_mut(), Body::Empty);
    if let Some(length) = http_body::Body::size_hint(&body).exact().filter(|length| *length > 0) {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { way, line } = &mut *self;
        let polled = match way {
            Way::Passed(body) => http_body::Body::poll_frame(Pin::new(body), cx),
            Way::Sent(file) => file.poll_part(cx).map(|part| part.map(|part| part.map(Frame::data))),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                line.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                line.whole |= way.remaining() == Some(0);
            }
            Poll::Ready(None) => line.whole = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.way {
            Way::Passed(body) => http_body::Body::is_end_stream(body),
            // It ends when the last of it has left, so that the line tells what did.
            Way::Sent(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.way.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Way {
    /// Bytes that were not handed on yet, if that is known.
    fn remaining(&self) -> Option<u64> {
        match self {
            Self::Passed(body) => body.len(),
            Self::Sent(file) => Some(file.remaining()),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Way::Sent(file) = &self.way {
            let lost = file.lost();
            self.line.sent -= lost.min(self.line.sent);
            self.line.whole &= lost == 0;
        }
        METRICS.sent(self.line.sent);
        self.line.write();
    }
}

/// The target that filters know the line by.
const TARGET: &str = "packhouse::request";

/// Longest path in a log line, in characters.
const PATH_LENGTH: usize = 1024;
/// Longest piece of a header that a log line repeats, in characters.
const HEADER_LENGTH: usize = 120;

impl Line {
    fn write(&self) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let took = self.started.elapsed();
        let cut = !self.whole && self.status != 304;
        log::entry(TARGET, "request", |entry| {
            entry.word("client", self.client);
            if let Some(caller) = &self.notes.caller {
                entry.text("caller", &caller.to_string());
            }
            entry.word("method", self.method.as_str());
            entry.text("path", &redacted(self.uri.path()));
            entry.word("protocol", protocol(self.version));
            entry.plain("status", self.status);
            optional(entry, "ecosystem", self.notes.ecosystem);
            optional(entry, "package", self.notes.package.as_ref().map(PackageName::as_str));
            optional(entry, "item", self.notes.item.as_deref());
            optional(entry, "cache", self.notes.verdict);
            entry.plain("upstream_tries", self.tries.as_ref().map_or(0, Tries::count));
            entry.plain("bytes", self.sent);
            entry.plain("cut", cut);
            entry.plain("milliseconds", took.as_millis());
            let agent = self.agent.as_ref().and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            entry.text("agent", start(agent, HEADER_LENGTH));
            optional(entry, "error", self.notes.error.as_deref());
        });
    }
}

fn optional(entry: &mut Entry<'_>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        entry.text(name, value);
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// The first so many characters.
fn start(text: &str, characters: usize) -> &str {
    if text.len() <= characters {
        return text;
    }
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

/// A path for the log: a token in it is cut to its prefix.
fn redacted(path: &str) -> Cow<'_, str> {
    let path = start(path, PATH_LENGTH);
    if memchr::memmem::find(path.as_bytes(), PREFIX.as_bytes()).is_none() {
        return Cow::Borrowed(path);
    }
    let mut text = path.to_owned();
    let mut from = 0;
    while let Some(at) = text[from..].find(PREFIX) {
        let start = from + at + PREFIX.len();
        let end = text[start..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(text.len(), |end| start + end);
        text.replace_range(start..end, "…");
        from = start;
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_paths_are_not_logged() {
        let path = format!("/-/user/token/{PREFIX}abcDEF123/x/{PREFIX}zz");
        assert_eq!(redacted(&path), format!("/-/user/token/{PREFIX}…/x/{PREFIX}…"));
        assert_eq!(redacted("/plain"), "/plain");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(start("äöü", 2), "äö");
        assert_eq!(start("äöü", 3), "äöü");
        assert_eq!(start("abc", 5), "abc");
        assert_eq!(redacted(&"a".repeat(5000)).len(), PATH_LENGTH);
    }
}
