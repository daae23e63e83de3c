//! Stored files over plain HTTP/1 without a copy: hyper passes slices of a mapping on, and the socket tells them by their address
//! and has the kernel send them from the file.
//!
//! - A [`Departure`] is the body: it makes sure that the kernel has the next part in its cache, notes the file in the
//!   connection's [`Lane`] and gives hyper the part as a slice of the file's mapping. hyper queues it as it is.
//! - A [`Socket`] is what hyper writes to. It looks up each slice in the lane. What comes before a file's slice (the head) is sent
//!   with `MSG_MORE`, so that it leaves in one packet with the file's first bytes, which `sendfile` sends in the same turn.
//! - Were a slice ever not recognised, it would be sent as the memory that it is, so the bytes are right in any case.
//!
//! A part is at most 2 MiB, and after each the connection lets others have their turn: one fast reader would keep a worker
//! to itself.
//!
//! Measured against nginx (`sendfile`, `open_file_cache`) with the same bytes, as the server's CPU time over nginx's, on a machine
//! that was busy all the while, with every run counted:
//!
//! | load | by `sendfile` | from memory | in chunks |
//! |---|---|---|---|
//! | 100 MB | 1.00 to 1.62, median 1.3 of six runs | | 2.6 (one run) |
//! | 100 MB, eight at once | 0.94 to 1.60, median 1.2 of five | | 3.2 (one) |
//! | 1 MB, eight connections | 1.09 to 1.14 (three) | 1.42 to 2.12 (four) | 1.85 (one) |
//!
//! CPU time comes in ticks of 10 ms, of which one run of the first two rows is 6 to 20.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::http::file::{FileBody, StoredFile};

/// Most bytes of a file that are handed on, and sent, in one turn.
const PART: u64 = 2 << 20;

/// Which memory on its way through a connection is a file's.
pub struct Lane {
    /// How many files there are below, so that all other writes need no lock.
    count: AtomicUsize,
    files: Mutex<Vec<Sending>>,
    /// What hyper may hold of a body that it has let go of.
    buffer_bytes: u64,
}

/// A file that a connection has bytes of.
struct Sending {
    file: Arc<StoredFile>,
    /// The addresses of its mapping.
    memory: Range<usize>,
    /// Bytes handed on that have not left.
    unsent: u64,
}

/// A slice that is a file's.
struct Place {
    file: Arc<StoredFile>,
    offset: u64,
}

impl Lane {
    /// A lane for a connection that buffers at most `buffer_bytes` of small parts.
    #[must_use]
    pub fn new(buffer_bytes: usize) -> Self {
        Self { count: AtomicUsize::new(0), files: Mutex::default(), buffer_bytes: buffer_bytes as u64 }
    }

    fn files(&self) -> MutexGuard<'_, Vec<Sending>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `part`, a slice of the file's mapping, is on its way.
    fn enter(&self, file: &Arc<StoredFile>, mapping: &Bytes, part: &Bytes) {
        let mut files = self.files();
        let length = part.len() as u64;
        if let Some(sending) = files.iter_mut().find(|sending| Arc::ptr_eq(&sending.file, file)) {
            sending.unsent += length;
            return;
        }
        let start = mapping.as_ptr().addr();
        files.push(Sending { file: Arc::clone(file), memory: start..start + mapping.len(), unsent: length });
        self.count.store(files.len(), Ordering::Release);
    }

    /// The file that a slice belongs to.
    fn find(&self, slice: &[u8]) -> Option<Place> {
        if self.count.load(Ordering::Acquire) == 0 || slice.is_empty() {
            return None;
        }
        let address = slice.as_ptr().addr();
        let files = self.files();
        let sending = files.iter().find(|sending| sending.memory.contains(&address))?;
        Some(Place { file: Arc::clone(&sending.file), offset: (address - sending.memory.start) as u64 })
    }

    /// Notes that bytes of a file have left. The last of them let go of it.
    fn leave(&self, file: &Arc<StoredFile>, bytes: u64) {
        let mut files = self.files();
        if let Some(at) = files.iter().position(|sending| Arc::ptr_eq(&sending.file, file)) {
            files[at].unsent = files[at].unsent.saturating_sub(bytes);
            if files[at].unsent == 0 {
                files.swap_remove(at);
                self.count.store(files.len(), Ordering::Release);
            }
        }
    }

    /// Bytes of a file that were handed on and will never leave, once its body was let go of.
    fn lost(&self, file: &Arc<StoredFile>) -> u64 {
        let unsent = self.files().iter().find(|sending| Arc::ptr_eq(&sending.file, file)).map_or(0, |sending| sending.unsent);
        // hyper lets go of a body when the last of it is in its buffer, or when the connection has ended.
        if unsent > self.buffer_bytes { unsent } else { 0 }
    }
}

/// A range of a stored file on its way through a lane.
pub struct Departure {
    lane: Arc<Lane>,
    file: Arc<StoredFile>,
    mapping: Bytes,
    rest: Range<u64>,
    /// The kernel reads the next part from the disk.
    fetching: Option<JoinHandle<io::Result<()>>>,
}

impl Departure {
    /// Sends a body through a lane; gives it back if its file cannot be mapped.
    ///
    /// # Errors
    /// The body itself, which can be read instead.
    pub fn new(body: FileBody, lane: &Arc<Lane>) -> Result<Self, FileBody> {
        let Ok(mapping) = body.file.mapped().cloned() else { return Err(body) };
        let FileBody { file, range } = body;
        Ok(Self { lane: Arc::clone(lane), file, mapping, rest: range, fetching: None })
    }

    /// Bytes that were not handed on yet.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.rest.end.saturating_sub(self.rest.start)
    }

    /// Bytes that were handed on and will never leave, once this body was let go of.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lane.lost(&self.file)
    }

    /// The next part as a slice of the mapping; `None` at the end.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        // Parts end where the kernel's large pages do.
        let part = self.rest.start..self.rest.end.min((self.rest.start / PART + 1) * PART);
        if let Err(error) = ready!(self.poll_cached(cx, &part)) {
            return Poll::Ready(Some(Err(error)));
        }
        self.rest.start = part.end;
        // The mapping is memory, so its offsets are a slice's.
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.mapping.slice(at(part.start)..at(part.end));
        self.lane.enter(&self.file, &self.mapping, &bytes);
        Poll::Ready(Some(Ok(bytes)))
    }

    /// Has the kernel get a part into its cache, so that sending it waits for no disk.
    fn poll_cached(&mut self, cx: &mut Context<'_>, part: &Range<u64>) -> Poll<io::Result<()>> {
        if self.fetching.is_none() {
            match self.file.is_cached(part) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {
                    let (file, part) = (Arc::clone(&self.file), part.clone());
                    self.fetching = Some(tokio::task::spawn_blocking(move || file.fetch(part)));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Some(fetching) = &mut self.fetching else { return Poll::Ready(Ok(())) };
        let fetched = ready!(Pin::new(fetching).poll(cx));
        self.fetching = None;
        Poll::Ready(fetched.map_err(io::Error::other).and_then(|fetched| fetched))
    }
}

/// A plain connection's socket, which sends a lane's files by `sendfile`.
pub struct Socket {
    stream: TcpStream,
    lane: Arc<Lane>,
    /// Whether a whole part was sent just now, so that it is others' turn.
    rests: bool,
}

impl Socket {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: TcpStream, lane: Arc<Lane>) -> Self {
        Self { stream, lane, rests: false }
    }

    /// Sends `before` and then the file, as far as the socket takes them.
    fn poll_send(&mut self, cx: &mut Context<'_>, before: &[IoSlice<'_>], place: &Place, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let mut sent = Sent::default();
            let outcome = self.stream.try_io(Interest::WRITABLE, || send(&self.stream, before, place, bytes, &mut sent));
            if sent.of_file > 0 {
                self.lane.leave(&place.file, sent.of_file as u64);
                self.rests = sent.of_file as u64 >= PART;
            }
            match outcome {
                // What left counts, whatever stopped the rest: the next call meets it again.
                _ if sent.before + sent.of_file > 0 => return Poll::Ready(Ok(sent.before + sent.of_file)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(|()| 0)),
            }
        }
    }
}

/// Bytes that have left.
#[derive(Default)]
struct Sent {
    before: usize,
    of_file: usize,
}

/// Sends in at most two calls. Ends with [`io::ErrorKind::WouldBlock`] when the socket took less than it was given, also when
/// it took something: then it is known to be full without another call.
fn send(stream: &TcpStream, before: &[IoSlice<'_>], place: &Place, bytes: &[u8], sent: &mut Sent) -> io::Result<()> {
    let all: usize = before.iter().map(|slice| slice.len()).sum();
    if all > 0 {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sent.before = rustix::net::sendmsg(stream, before, &mut SendAncillaryBuffer::default(), flags)?;
        if sent.before < all {
            return Err(io::ErrorKind::WouldBlock.into());
        }
    }
    let most = usize::try_from(PART).unwrap_or(usize::MAX).min(bytes.len());
    let mut offset = place.offset;
    let of_file = match rustix::fs::sendfile(stream, &**place.file.file(), Some(&mut offset), most) {
        Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob's file is shorter than the blob")),
        // A file system that cannot: the slice is memory all the same.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::net::send(stream, &bytes[..most], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?,
        of_file => of_file?,
    };
    sent.of_file = of_file;
    if of_file < most { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let found = slices.iter().enumerate().find_map(|(at, slice)| Some((at, self.lane.find(slice)?)));
        match found {
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
            Some((at, place)) => self.poll_send(cx, &slices[..at], &place, &slices[at]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
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
    use std::fs::File;
    use std::io::Write as _;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::file::Buffers;

    const LENGTH: usize = 5_000_001;

    /// A file whose mapping holds other bytes, so that what comes out tells which of the two was sent.
    fn marked() -> (Arc<StoredFile>, Vec<u8>) {
        let bytes: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (stored(file), bytes)
    }

    fn stored(file: File) -> Arc<StoredFile> {
        let mapping = Bytes::from(vec![255; LENGTH]);
        Arc::new(StoredFile::with_mapping(file, mapping, Arc::new(Buffers::new(1))))
    }

    async fn connection(lane: &Arc<Lane>) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0, Arc::clone(lane)), theirs)
    }

    /// Sends what hyper would: a head, the parts, and the head of what comes next.
    async fn depart(socket: &mut Socket, mut departure: Departure, head: &'static [u8]) -> io::Result<()> {
        let mut first = head;
        while let Some(part) = std::future::poll_fn(|cx| departure.poll_part(cx)).await {
            let part = part?;
            let mut rest = [IoSlice::new(first), IoSlice::new(&part), IoSlice::new(b"next")];
            let mut rest = &mut rest[..];
            IoSlice::advance_slices(&mut rest, 0);
            // `next` stays behind.
            while rest.len() > 1 {
                let sent = std::future::poll_fn(|cx| Pin::new(&mut *socket).poll_write_vectored(cx, rest)).await?;
                IoSlice::advance_slices(&mut rest, sent);
            }
            first = b"";
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_files_slices_leave_from_the_file() {
        let (file, bytes) = marked();
        for range in [0..LENGTH as u64, 4_999_999..LENGTH as u64, 100..4_000_000] {
            let lane = Arc::new(Lane::new(65_536));
            let (mut socket, mut theirs) = connection(&lane).await;
            let departure = Departure::new(FileBody { file: Arc::clone(&file), range: range.clone() }, &lane).ok().unwrap();
            assert_eq!(departure.remaining(), range.end - range.start);
            let reading = tokio::spawn(async move {
                let mut got = Vec::new();
                theirs.read_to_end(&mut got).await.unwrap();
                got
            });
            depart(&mut socket, departure, b"head").await.unwrap();
            socket.shutdown().await.unwrap();
            let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            assert!(reading.await.unwrap() == [b"head", &bytes[start..end]].concat(), "{range:?}");
            assert_eq!((lane.files().len(), lane.count.load(Ordering::Relaxed)), (0, 0), "it lets go of the file");
        }
    }

    #[tokio::test]
    async fn a_file_cut_short_ends_with_an_error() {
        let (file, _) = marked();
        let lane = Arc::new(Lane::new(65_536));
        let (mut socket, mut theirs) = connection(&lane).await;
        let departure = || Departure::new(FileBody { file: Arc::clone(&file), range: 0..LENGTH as u64 }, &lane).ok().unwrap();
        file.file().set_len(1_000_000).unwrap();
        let error = depart(&mut socket, departure(), b"").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        // Cut between the look and the sending.
        file.file().set_len(LENGTH as u64).unwrap();
        let mut late = departure();
        let part = std::future::poll_fn(|cx| late.poll_part(cx)).await.unwrap().unwrap();
        file.file().set_len(100).unwrap();
        let reading = tokio::spawn(async move { theirs.read_exact(&mut [0; 100]).await });
        let error = socket.write_all(&part).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        reading.await.unwrap().unwrap();
        assert_eq!(late.lost(), part.len() as u64 - 100);
    }

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off() {
        let (file, _) = marked();
        let lane = Arc::new(Lane::new(65_536));
        let (socket, _theirs) = connection(&lane).await;
        // Its memory would take all of it.
        rustix::net::sockopt::set_socket_send_buffer_size(&socket.stream, 4096).unwrap();
        let mut patient = super::super::connection::Patient::new(socket, Duration::from_millis(50));
        let mut departure = Departure::new(FileBody { file, range: 0..LENGTH as u64 }, &lane).ok().unwrap();
        let error = loop {
            let part = std::future::poll_fn(|cx| departure.poll_part(cx)).await.expect("more than the sockets hold").unwrap();
            if let Err(error) = patient.write_all(&part).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
