//! Speaks to the running server through its socket.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::ask::Ask;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, header};

/// Largest answer.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;
/// Most parts of one list that are put together.
const PAGES_LIMIT: usize = 10_000;
/// Longest wait for the server to accept. Work itself may take long.
const CONNECT: Duration = Duration::from_secs(5);

/// Sends a request and returns the answer's JSON, null if it has none. A list is put together from all its parts.
///
/// # Errors
/// `Unavailable` when no server is running, else what the server says.
pub(super) async fn send(socket: &Path, ask: &Ask) -> Result<Value> {
    let mut connections = JoinSet::new();
    let mut sender = connect(socket, &mut connections).await?;
    let mut target = ask.path.clone();
    let mut list: Option<Vec<Value>> = None;
    for _ in 0..PAGES_LIMIT {
        let (next, answer) = exchange(&mut sender, ask, &target).await?;
        match (answer, &mut list) {
            (Value::Array(items), Some(list)) => list.extend(items),
            (Value::Array(items), None) => list = Some(items),
            (answer, _) => return Ok(answer),
        }
        match next {
            Some(next) => target = next,
            None => break,
        }
    }
    Ok(Value::Array(list.unwrap_or_default()))
}

/// Whether the error says that no server is running.
pub(super) fn is_absent(error: &Error) -> bool {
    error.kind() == Kind::Unavailable && error.subject() == Subject::Route
}

type Sender = http1::SendRequest<Full<bytes::Bytes>>;

async fn connect(socket: &Path, connections: &mut JoinSet<()>) -> Result<Sender> {
    let stream = tokio::time::timeout(CONNECT, UnixStream::connect(socket)).await.map_err(|_| broken("the server does not answer"))?;
    let stream = stream.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => absent(socket),
        std::io::ErrorKind::PermissionDenied => Error::forbidden(
            Subject::Route,
            format!("{} belongs to the user that runs the server; run this command as that user", socket.display()),
        ),
        _ => broken("cannot reach the server").because(error),
    })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken("the server hung up").because(error))?;
    connections.spawn(async move {
        // What goes wrong shows up at the sender.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn exchange(sender: &mut Sender, ask: &Ask, target: &str) -> Result<(Option<String>, Value)> {
    let body = ask.body.as_ref().map(Value::to_string).unwrap_or_default();
    let request = http::Request::builder()
        .method(&ask.method)
        .uri(target)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body))
        .map_err(|error| Error::invalid(Subject::Request, "this name cannot be part of a request").because(error))?;
    sender.ready().await.map_err(|error| broken("the server hung up").because(error))?;
    let response = sender.send_request(request).await.map_err(|error| broken("the server hung up").because(error))?;
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await.map_err(|_| broken("the server's answer broke off"))?.to_bytes();
    let answer: Value = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(|error| broken("the server's answer makes no sense").because(error))?
    };
    if parts.status.is_client_error() || parts.status.is_server_error() {
        let message = answer["message"].as_str().unwrap_or("the server refused");
        return Err(Error::new(Kind::Conflict, Subject::Request).saying(message.to_owned()));
    }
    Ok((next(&parts.headers), answer))
}

/// Where the `Link` header says that the list goes on.
fn next(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    (relation.contains("rel=\"next\"") && target.starts_with('/')).then(|| target.to_owned())
}

fn absent(socket: &Path) -> Error {
    let text = format!("no server is running: nothing answers on {}; start it with `packhouse serve`", socket.display());
    Error::new(Kind::Unavailable, Subject::Route).saying(text)
}

fn broken(what: &'static str) -> Error {
    Error::new(Kind::BadUpstream, Subject::Route).saying(what)
}
