//! The byte stream of one connection, with limits on how long a client may keep still.
//!
//! hyper bounds the reading of heads; a client that asks for a large file and never
//! reads it would hold its buffers for ever. Here a write that makes no progress for
//! too long fails, which ends the connection ([`Patient`]). hyper's bound begins once it
//! is known whether the client speaks HTTP/1 or HTTP/2; that is found out here, and a
//! client that never says so is cut off ([`Opened`]).

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose writes must make progress.
pub struct Patient<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Wraps a stream; `limit` is the longest time a write may wait.
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, deadline: None }
    }

    /// Passes a write's outcome on, and fails it when it waited too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client took nothing for too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1, or nothing at all.
    Http1,
    /// HTTP/2, begun by its preface (RFC 9113, section 3.4).
    Http2,
}

const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes were looked at, and are there to be read all the same.
///
/// hyper-util can tell the protocols apart too. It hands on what it looked at as a read of its own, which has hyper's buffer
/// grow to 16 KiB on every connection, and keeps room for both protocols.
pub struct Opened<S> {
    stream: S,
    first: [u8; PREFACE.len()],
    /// What was not handed on yet.
    left: Range<usize>,
}

impl<S: AsyncRead + Unpin> Opened<S> {
    /// Waits at most `limit` until it is clear what the client speaks.
    ///
    /// # Errors
    /// When it is not clear in time, and when reading fails.
    pub async fn wait(mut stream: S, limit: Duration) -> io::Result<(Protocol, Self)> {
        let mut first = PREFACE;
        let mut length = 0;
        let look = async {
            // What is not there yet is as it should be, so one comparison tells whether it can still be HTTP/2.
            while first == PREFACE && length < first.len() {
                match stream.read(&mut first[length..]).await? {
                    0 => break,
                    read => length += read,
                }
            }
            Ok(())
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client said nothing for too long");
        tokio::time::timeout(limit, look).await.map_err(late).flatten()?;
        let whole = length == first.len() && first == PREFACE;
        let protocol = if whole { Protocol::Http2 } else { Protocol::Http1 };
        Ok((protocol, Self { stream, first, left: 0..length }))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, first, left } = &mut *self;
        if left.start == left.end {
            return Pin::new(stream).poll_read(cx, buffer);
        }
        let end = left.end.min(left.start + buffer.remaining());
        buffer.put_slice(&first[left.start..end]);
        left.start = end;
        if buffer.remaining() > 0 {
            // The rest of the head, which is there as a rule. What ends the stream ends the next read as well.
            let _ = Pin::new(stream).poll_read(cx, buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(4);
        let mut stream = Patient::new(ours, Duration::from_secs(5));
        let error = stream.write_all(b"more than four bytes").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_cut_off() {
        for said in [&b""[..], b"PRI * HT"] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            theirs.write_all(said).await.unwrap();
            let error = Opened::wait(ours, Duration::from_secs(5)).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_looked_at_is_there_to_be_read() {
        let more = [&PREFACE[..], b"and more"].concat();
        let cases = [
            (&b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"[..], Protocol::Http1),
            (b"G", Protocol::Http1),
            (b"PRI * HTTP/1.1\r\n", Protocol::Http1),
            (&PREFACE[..23], Protocol::Http1),
            (b"", Protocol::Http1),
            (&PREFACE, Protocol::Http2),
            (&more, Protocol::Http2),
        ];
        for (said, protocol) in cases {
            for at_once in [1, 3, 24, 64] {
                let (ours, mut theirs) = tokio::io::duplex(at_once);
                let said = said.to_vec();
                let expected = said.clone();
                let saying = tokio::spawn(async move { theirs.write_all(&said).await });
                let (told, mut opened) = Opened::wait(ours, Duration::from_secs(5)).await.unwrap();
                assert_eq!(told, protocol, "{expected:?}");
                let mut read = Vec::new();
                opened.read_to_end(&mut read).await.unwrap();
                assert_eq!(read, expected);
                saying.await.unwrap().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_head_that_is_there_takes_one_read() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(&[b'x'; 1000]).await.unwrap();
        let (_, mut opened) = Opened::wait(ours, Duration::from_secs(5)).await.unwrap();
        assert_eq!(opened.read(&mut [0; 8192]).await.unwrap(), 1000);
    }
}
