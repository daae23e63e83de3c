//! How often a hit asks for memory, from the bytes of the request to the bytes of the answer, and how much a connection keeps.
//!
//! Each allocation is 20 to 100 ns, and what creeps into the path of a hit shows here first. Everything runs on the test's own
//! thread over a stream in memory, so the count is the same each time, whatever else runs.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::super::{Limits, Server, serve};
use super::counting::{allocations, held};
use super::world::{NAME, Plot, World};
use super::{Mode, truth};
use crate::ecosystem::ALL;
use crate::ecosystem::rights::Needs;
use crate::http::Method;

/// Most allocations of a hit, by its route. Of them hyper takes five: the read buffer and its share, the timer of the next head,
/// and two for the map of the request's headers.
const MOST: [(&str, u64); 3] = [("Tarball", 7), ("Packument", 7), ("Blob", 7)];

/// A client that asks for the same again and again, each time when it has the answer.
struct Repeated {
    request: Vec<u8>,
    /// How much of it was read.
    read: usize,
    left: u64,
    waiting: Option<Waker>,
    answered: bool,
    statuses: Arc<AtomicU64>,
}

impl AsyncRead for Repeated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.answered {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let end = self.request.len().min(self.read + buffer.remaining());
        buffer.put_slice(&self.request[self.read..end]);
        self.read = end % self.request.len();
        if self.read == 0 {
            self.left -= 1;
            self.answered = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Repeated {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.statuses.fetch_add(u64::from(bytes.starts_with(b"HTTP/1.1 200 ")), Ordering::Relaxed);
        self.answered = true;
        self.waiting.take().inspect(Waker::wake_by_ref);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Allocations of so many requests on one connection.
async fn count(world: &Arc<World>, request: &str, times: u64) -> u64 {
    let statuses = Arc::<AtomicU64>::default();
    let client = Repeated { request: request.into(), read: 0, left: times, waiting: None, answered: true, statuses: Arc::clone(&statuses) };
    let state = Arc::new(ArcSwap::new(Arc::clone(&world.state)));
    let peer = ([192, 0, 2, 7], 1).into();
    let asking = Arc::new(serve::Client { state, failed_logins: Arc::clone(&world.failed_logins), peer, tls: false, lane: None });
    let before = allocations();
    let service = service_fn(move |request| serve::serve(&asking, request));
    Limits::of(&world.state.config).http1().serve_connection(TokioIo::new(client), service).await.unwrap();
    assert_eq!(statuses.load(Ordering::Relaxed), times, "{request}");
    allocations() - before
}

#[tokio::test]
async fn a_hit_allocates_no_more_than_it_needs() {
    let (_folder, truth) = truth();
    let mut found = BTreeMap::new();
    for ecosystem in ALL {
        let table = ecosystem.rights();
        let plot = Plot { ecosystem: *ecosystem, table: &table, truth: &truth, mode: Mode::Inherit, visibility: "private" };
        let world = Arc::new(World::new(plot).await);
        for row in table.rows.iter().filter(|row| matches!(row.needs, Needs::Rights(["read"])) && row.status == 200) {
            let request = world.request(row, NAME).await;
            let route = (table.route)(&request);
            if request.method != Method::GET || !MOST.iter().any(|(hot, _)| *hot == route) || found.contains_key(route) {
                continue;
            }
            let target = format!("/{}{}", ecosystem.info().mount, request.target);
            let head = format!("GET {target} HTTP/1.1\r\nhost: h\r\naccept: */*\r\nauthorization: Bearer {}\r\n\r\n", world.token);
            count(&world, &head, 100).await;
            let (few, many) = (count(&world, &head, 100).await, count(&world, &head, 1100).await);
            found.insert(route, (many - few).div_ceil(1000));
        }
    }
    let most = BTreeMap::from(MOST);
    assert!(found.len() == most.len() && found.iter().all(|(route, count)| *count <= most[route]), "{found:?}, and at most {most:?}");
}

/// Most memory of a connection that was answered and waits for its next request. Of it hyper takes 16 KiB for what it reads and
/// writes.
const RESTING_BYTES: i64 = 23_500;

/// Asks without waiting in a way that would stop the thread, which is the server's too.
async fn ask(client: &mut TcpStream, request: &[u8], buffer: &mut [u8]) {
    client.write_all(request).unwrap();
    let mut length = 0;
    while !buffer[..length].ends_with(b"\r\n\r\nok\n") {
        tokio::time::sleep(Duration::from_micros(100)).await;
        match client.read(&mut buffer[length..]) {
            Ok(read) => length += read,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

#[tokio::test]
async fn a_resting_connection_holds_little() {
    let (_folder, truth) = truth();
    let ecosystem = ALL[0];
    let plot = Plot { ecosystem, table: &ecosystem.rights(), truth: &truth, mode: Mode::Inherit, visibility: "private" };
    let World { state, engine, .. } = World::new(plot).await;
    let mut state = Arc::into_inner(state).unwrap();
    state.config.listen = vec![([127, 0, 0, 1], 0).into()];
    let server = Server::bind(Arc::new(ArcSwap::from_pointee(state)), None).await.unwrap();
    let address = server.addresses()[0].strip_prefix("http://").unwrap().to_owned();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(server.run(stopped));
    let request = b"GET /-/health HTTP/1.1\r\nhost: h\r\naccept: */*\r\nuser-agent: test\r\n\r\n";
    let mut buffer = vec![0; 4096];
    let mut clients = Vec::with_capacity(200);
    let mut before = 0;
    for number in 0..110 {
        if number == 10 {
            before = held();
        }
        let mut client = TcpStream::connect(&address).unwrap();
        client.set_nonblocking(true).unwrap();
        ask(&mut client, request, &mut buffer).await;
        clients.push(client);
    }
    let each = (held() - before) / 100;
    drop(clients);
    stop.send(true).unwrap();
    running.await.unwrap();
    drop(engine);
    assert!(each <= RESTING_BYTES, "{each}");
}
