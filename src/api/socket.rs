//! The Unix socket through which commands reach the running server.
//!
//! It is a file of mode 0600 in the data folder: whoever may open it is the
//! operator, so its caller is the server itself. The file is made under another
//! name and renamed once its mode is set, so it is never open to others.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Api;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{Response, Upload};
use crate::identity::Caller;

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 64;
/// Longest wait for the head of a request, and between two parts of its body.
const IDLE: Duration = Duration::from_secs(30);
/// How long requests may finish after the stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket. Its file is removed when this is dropped.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket. A file that an ended server left behind is replaced.
    ///
    /// # Errors
    /// `Conflict` when another server answers there; `Unavailable` when the file cannot be made.
    pub async fn bind(path: &Path) -> Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::conflict(Subject::Config, format!("another server is running on {}", path.display())));
        }
        let failed = |error: std::io::Error| {
            Error::new(Kind::Unavailable, Subject::Config).saying(format!("cannot make the socket {}: {error}", path.display()))
        };
        let fresh = path.with_extension("sock.new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed)?;
        std::fs::rename(&fresh, path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until `stop` turns true or its sender is gone; then lets requests under way finish.
    pub async fn serve(self, api: Arc<Api>, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&api), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the administration socket cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let drained = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            connections.shutdown().await;
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it is gone already there is nothing to do; the next start replaces it anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, api: Arc<Api>, mut stop: watch::Receiver<bool>) {
    let service = service_fn(|request| answer(&api, request));
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(IDLE).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an administration connection broke off");
    }
}

/// Waits for the stop. The guard of the value must not live on, it may not cross threads.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn answer(api: &Api, request: http::Request<Incoming>) -> Result<Response, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = Upload::incoming(body, &parts.headers, IDLE);
    let request = http::Request::from_parts(parts, body);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = super::serve(api, request, &Caller::System).await;
    tracing::info!(%method, path, status = response.status().as_u16(), "administration request");
    Ok(response)
}
