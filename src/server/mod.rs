//! The listening side: accept, serve, drain.
//!
//! One task per connection; hyper speaks HTTP/1.1 and HTTP/2. Everything a client
//! can hold on to has a limit: the number of connections, the time for a head, for
//! a part of a body, for taking an answer, the size of a head. A reload replaces
//! what requests are answered with; requests that have begun finish with what they
//! began with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result, Subject};
use crate::observe::METRICS;
use crate::registry::Registry;
use crate::store::redb::Redb;

pub mod answer;
pub mod config;
pub mod connection;
mod hit;
pub mod origin;
pub mod router;
pub mod sendfile;
pub mod serve;
#[cfg(test)]
mod tests;
pub mod tls;

pub use config::{Config, Tls};

use connection::{Opened, Patient, Protocol};
use sendfile::{Lane, Socket};
use serve::{Client, FailedLogins};

/// What requests are answered with; a reload replaces it as a whole.
pub struct State {
    /// Settings of the listening side.
    pub config: Config,
    /// The address clients use, if the operator says so; without a trailing slash.
    pub public_url: Option<String>,
    /// The engine.
    pub registry: Arc<Registry>,
    /// Whether requests for packages are answered by the ecosystems named here.
    pub enabled: Vec<String>,
    /// The truth; a server that cannot write it is not ready.
    pub truth: Arc<Redb>,
}

/// A server that listens.
pub struct Server {
    state: Arc<ArcSwap<State>>,
    listeners: Vec<(TcpListener, Option<TlsAcceptor>)>,
    connections: Arc<Semaphore>,
    failed_logins: Arc<FailedLogins>,
}

impl Server {
    /// Opens the listening sockets.
    ///
    /// # Errors
    /// With the address that cannot be listened on.
    pub async fn bind(state: Arc<ArcSwap<State>>, certificates: Option<&Arc<tls::Certificates>>) -> Result<Self> {
        let config = state.load().config.clone();
        raise_descriptor_limit();
        let mut listeners = Vec::new();
        for address in &config.listen {
            listeners.push((listen(*address).await?, None));
        }
        if let Some(certificates) = certificates {
            let acceptor = TlsAcceptor::from(certificates.server_config()?);
            for address in &config.tls.listen {
                listeners.push((listen(*address).await?, Some(acceptor.clone())));
            }
        }
        let connections = Arc::new(Semaphore::new(config.max_connections));
        let failed_logins = Arc::new(FailedLogins::new(config.wrong_tokens_per_minute));
        Ok(Self { state, listeners, connections, failed_logins })
    }

    /// The addresses listened on, with their scheme: `http://127.0.0.1:8080`.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let scheme = |tls: &Option<TlsAcceptor>| if tls.is_some() { "https" } else { "http" };
        self.listeners.iter().filter_map(|(listener, tls)| Some(format!("{}://{}", scheme(tls), listener.local_addr().ok()?))).collect()
    }

    /// Serves until `stop` turns true, then lets running requests finish for a while.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let graceful = Arc::new(GracefulShutdown::new());
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, tls) in self.listeners {
            let door = Door {
                state: Arc::clone(&self.state),
                tls,
                connections: Arc::clone(&self.connections),
                failed_logins: Arc::clone(&self.failed_logins),
            };
            accepting.spawn(door.accept(listener, Arc::clone(&graceful), stop.clone()));
        }
        // An error means that the sender is gone, which is a stop too.
        let _ = stop.wait_for(|stop| *stop).await;
        while accepting.join_next().await.is_some() {}
        // The doors are closed, so theirs are gone and this is the last one.
        let Some(graceful) = Arc::into_inner(graceful) else { return };
        let drain = Duration::from_secs(self.state.load().config.drain_seconds);
        if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still running at the end of the drain time");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| Error::invalid(Subject::Config, format!("cannot listen on {address}: {error}")))
}

/// Lets this process open as many files and sockets as it may. What a shell hands on is often far less, for the sake of programs
/// that would not stand more.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

/// One listening socket's way in.
struct Door {
    state: Arc<ArcSwap<State>>,
    tls: Option<TlsAcceptor>,
    connections: Arc<Semaphore>,
    failed_logins: Arc<FailedLogins>,
}

impl Door {
    async fn accept(self, listener: TcpListener, graceful: Arc<GracefulShutdown>, mut stop: watch::Receiver<bool>) {
        let door = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: waiting lets some be freed.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&door.connections).try_acquire_owned() else {
                tracing::debug!(%peer, "too many connections");
                continue;
            };
            let (door, watcher, stop) = (Arc::clone(&door), graceful.watcher(), stop.clone());
            // A connection ends by its own time-outs, and the drain waits for it through its watcher.
            #[expect(clippy::disallowed_methods, reason = "the graceful shutdown watches every connection")]
            tokio::spawn(async move {
                METRICS.connection(1);
                door.connection(stream, peer, watcher, stop).await;
                METRICS.connection(-1);
                drop(place);
            });
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher, stop: watch::Receiver<bool>) {
        // Small answers must not wait for the acknowledgement of earlier ones; failing to say so only costs time.
        let _ = stream.set_nodelay(true);
        let limits = Limits::of(&self.state.load().config);
        // Boxed, here and below, so that a connection that rests holds room for what it is and not for what it might have been.
        match &self.tls {
            None => {
                let lane = Arc::new(Lane::new(limits.buffer_bytes));
                let stream = Patient::new(Socket::new(stream, Arc::clone(&lane)), limits.write);
                self.speak(stream, peer, limits, Some(lane), watcher, stop).boxed().await;
            }
            Some(acceptor) => {
                self.speak_secretly(acceptor, Patient::new(stream, limits.write), (peer, limits), watcher, stop).boxed().await;
            }
        }
    }

    /// Speaks HTTP once the keys are agreed.
    async fn speak_secretly(
        &self,
        acceptor: &TlsAcceptor,
        stream: Patient<TcpStream>,
        (peer, limits): (SocketAddr, Limits),
        watcher: Watcher,
        mut stop: watch::Receiver<bool>,
    ) {
        // A stop waits for requests; before the end of its handshake a connection has none.
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(limits.head, acceptor.accept(stream)).boxed() => handshake,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.speak(stream, peer, limits, None, watcher, stop).boxed().await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    /// Speaks HTTP. Stored files take the lane, which a connection without TLS has.
    async fn speak<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        limits: Limits,
        lane: Option<Arc<Lane>>,
        watcher: Watcher,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = tokio::select! {
            opened = Opened::wait(stream, limits.head).boxed() => opened,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        drop(stop);
        let (state, failed_logins) = (Arc::clone(&self.state), Arc::clone(&self.failed_logins));
        let client = Arc::new(Client { state, failed_logins, peer, tls: lane.is_none(), lane });
        let service = service_fn(move |request| serve::serve(&client, request));
        let ended = match opened {
            Ok((Protocol::Http1, stream)) => watcher.watch(limits.http1().serve_connection(TokioIo::new(stream), service)).await,
            Ok((Protocol::Http2, stream)) => watcher.watch(limits.http2().serve_connection(TokioIo::new(stream), service)).boxed().await,
            Err(error) => return tracing::debug!(%peer, %error, "connection ended before its first request"),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended with an error");
        }
    }
}

/// Most headers that hyper takes if nothing is said.
const HEADERS_OF_HYPER: usize = 100;

/// What one connection may take; of the settings when it began.
#[derive(Clone, Copy)]
struct Limits {
    /// Longest wait for a head.
    head: Duration,
    /// Longest wait for a write.
    write: Duration,
    /// What hyper may buffer of a head, or of small parts of a body.
    buffer_bytes: usize,
    headers: usize,
    header_bytes: u32,
    streams: u32,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Self {
            head: Duration::from_secs(config.header_seconds),
            write: Duration::from_secs(config.write_seconds),
            buffer_bytes: config.header_limit_bytes.max(8 << 10),
            headers: config.max_headers,
            header_bytes: u32::try_from(config.header_limit_bytes).unwrap_or(u32::MAX),
            streams: config.max_streams,
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.head).max_buf_size(self.buffer_bytes).half_close(false);
        if self.headers != HEADERS_OF_HYPER {
            // Saying so, even of the same number, has hyper fill two lists of it for each request: 1.7 of 36 thousand instructions.
            builder.max_headers(self.headers);
        }
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_bytes)
            .max_pending_accept_reset_streams(20)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(1 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        builder
    }
}
