//! One request: who asks, who answers, and what is said when it goes wrong.

use std::convert::Infallible;
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, Ready, ready};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::State;
use super::answer::{Answer, Line};
use super::hit;
use super::origin::{self, Origin, Setting};
use super::router::{self, Located};
use super::sendfile::Lane;
use crate::api::rest;
use crate::ecosystem::{Asked, Ecosystem};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::BaseUrl;
use crate::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Upload, Version, header, reply, request};
use crate::identity::{Caller, Identified, Identity};
use crate::observe::{METRICS, Trace, Tries};
use crate::registry::{Call, Registry};

/// Counts wrong tokens by address, so that guessing is slow.
pub struct FailedLogins {
    limit: u32,
    counts: moka::sync::Cache<IpAddr, Arc<AtomicU32>>,
}

impl FailedLogins {
    /// Allows `limit` wrong tokens from one address in a minute.
    pub fn new(limit: u32) -> Self {
        let counts = moka::sync::Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(60)).build();
        Self { limit, counts }
    }

    fn check(&self, client: IpAddr) -> Result<()> {
        let count = self.counts.get(&client).map_or(0, |count| count.load(Ordering::Relaxed));
        if count < self.limit {
            return Ok(());
        }
        let error = Error::new(Kind::TooMany, Subject::Token).saying("too many requests with a wrong token");
        Err(error.retry_after(Duration::from_secs(60)))
    }

    fn count(&self, client: IpAddr) {
        self.counts.get_with(client, Arc::default).fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection, as its requests see it.
pub struct Client {
    /// What requests are answered with.
    pub state: Arc<ArcSwap<State>>,
    /// Who has guessed how often.
    pub failed_logins: Arc<FailedLogins>,
    /// The other end.
    pub peer: SocketAddr,
    /// Whether it speaks TLS with us.
    pub tls: bool,
    /// The way of stored files, which a connection without TLS has.
    pub lane: Option<Arc<Lane>>,
}

type Answered = std::result::Result<http::Response<Answer>, Infallible>;

/// Answers a request.
///
/// What memory holds is answered at once, so that what hyper moves about, several times with HTTP/2, is an answer and no work.
pub fn serve(client: &Arc<Client>, request: hyper::Request<Incoming>) -> Either<Ready<Answered>, BoxFuture<'static, Answered>> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let trace = Trace::default();
    let state = client.state.load();
    let setting = Setting {
        public_url: state.public_url.as_deref(),
        hosts: state.config.hosts.as_deref(),
        trusted_proxies: &state.config.trusted_proxies,
        peer: client.peer.ip(),
        tls: client.tls,
    };
    let (response, address) = match origin::origin(&parts.headers, &parts.uri, &setting) {
        Err(error) => (plain_error(&error), client.peer.ip()),
        Ok(origin) => {
            let Some(response) = hit::hit(&state, &parts, &origin, &trace, started) else {
                let Origin { url, host, client: address } = origin;
                let (url, host) = (url.into_owned(), host.to_owned());
                let (state, client) = (Guard::into_inner(state), Arc::clone(client));
                let work = async move {
                    let body = Upload::incoming(body, &parts.headers, Duration::from_secs(state.config.body_seconds));
                    let origin = Origin { url: url.into(), host: &host, client: address };
                    let work = answer(&state, &parts, body, &origin, &trace, &client.failed_logins);
                    let tries = Tries::default();
                    let response = tries.clone().counting(work).await;
                    Ok(finish(response, parts, (address, started), (trace, Some(tries)), client.lane.as_ref()))
                };
                return Either::Right(work.boxed());
            };
            (response, origin.client)
        }
    };
    Either::Left(ready(Ok(finish(response, parts, (address, started), (trace, None), client.lane.as_ref()))))
}

/// The answer with all that its log line says.
fn finish(
    response: Response,
    mut parts: request::Parts,
    (client, started): (IpAddr, Instant),
    (trace, tries): (Trace, Option<Tries>),
    lane: Option<&Arc<Lane>>,
) -> http::Response<Answer> {
    let line = Line {
        client,
        method: parts.method,
        uri: parts.uri,
        version: parts.version,
        agent: parts.headers.remove(header::USER_AGENT),
        notes: trace.into_notes(),
        tries,
        started,
        status: 0,
        sent: 0,
        whole: false,
    };
    // HTTP/2 cuts bodies into frames, which takes a copy.
    let lane = lane.filter(|_| line.version < Version::HTTP_2);
    Answer::new(response, line, lane)
}

/// As [`serve`], once it is known where the request came from.
pub(super) async fn answer(
    state: &State,
    parts: &request::Parts,
    body: Upload,
    origin: &Origin<'_>,
    trace: &Trace,
    failed_logins: &FailedLogins,
) -> Response {
    let own_host = state.config.hosts.as_deref().and_then(|base| router::own_host(origin.host, base));
    match router::locate(own_host, parts.uri.path()) {
        Located::Ecosystem(ecosystem, mount, rest) if state.enabled.iter().any(|name| name == ecosystem.info().name) => {
            let name = ecosystem.info().name;
            trace.note(|notes| notes.ecosystem = Some(name));
            let base = base(ecosystem, (origin, mount, rest), own_host);
            let asked = Asked { method: &parts.method, path: rest, query: parts.uri.query(), base: &base };
            // A defect must cost its own request and no other. Not bound to a name first, which would keep a second place for it.
            let answered =
                AssertUnwindSafe(ecosystem_answer(state, ecosystem, parts, body, (&asked, origin, own_host), trace, failed_logins))
                    .catch_unwind()
                    .await;
            let result = answered.unwrap_or_else(|_| Err(Error::internal(Subject::Request, "a handler panicked")));
            let mut response = result.unwrap_or_else(|error| failed(ecosystem, &error, &asked, trace));
            // What says nothing of caches was made for this caller alone.
            response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            response
        }
        Located::Rest(path) => {
            // Boxed, so that the future of a download is small: it is moved several times.
            let work = AssertUnwindSafe(rest_answer(state, parts, body, (origin, path), trace, failed_logins).boxed());
            work.catch_unwind().await.unwrap_or_else(|_| rest::broken(&origin.url))
        }
        Located::Operation(operation) => operate(state, &parts.method, operation),
        Located::Root if matches!(parts.method, Method::GET | Method::HEAD) => front_page(state, origin),
        Located::Ecosystem(..) | Located::Root | Located::Nobody => plain_error(&Error::not_found(Subject::Route)),
    }
}

async fn rest_answer(
    state: &State,
    parts: &request::Parts,
    body: Upload,
    (origin, path): (&Origin<'_>, &str),
    trace: &Trace,
    failed_logins: &FailedLogins,
) -> Response {
    let registry = &*state.registry;
    let mut caller = registry.identity().identify(&parts.headers).await;
    match &caller {
        Err(error) if error.kind() == Kind::Unauthenticated => {
            if let Err(error) = failed_logins.check(origin.client) {
                caller = Err(error);
            } else {
                failed_logins.count(origin.client);
            }
        }
        Ok(caller) => note_caller(trace, caller),
        Err(_) => {}
    }
    rest::serve(registry, (&origin.url, origin.client), caller, parts, path, body).await
}

pub(super) fn note_caller(trace: &Trace, caller: &Arc<Caller>) {
    if !matches!(**caller, Caller::Anonymous) {
        let shown: Arc<dyn Display + Send + Sync> = Arc::<Caller>::clone(caller);
        trace.note(|notes| notes.caller = Some(shown));
    }
}

async fn ecosystem_answer(
    state: &State,
    ecosystem: &'static dyn Ecosystem,
    parts: &request::Parts,
    body: Upload,
    (asked, origin, own_host): (&Asked<'_>, &Origin<'_>, Option<&str>),
    trace: &Trace,
    failed_logins: &FailedLogins,
) -> Result<Response> {
    let registry = &*state.registry;
    let signs_in = ecosystem.signs_in(asked.method, asked.path);
    if signs_in {
        failed_logins.check(origin.client)?;
    }
    let Identified { caller, session } = match identify(registry, ecosystem, &parts.headers).await {
        Ok(identified) => identified,
        Err(error) if error.kind() == Kind::Unauthenticated => {
            failed_logins.check(origin.client)?;
            if !signs_in {
                // A session that has ended is no guess.
                if !Identity::is_session(&parts.headers) {
                    failed_logins.count(origin.client);
                }
                return Err(error);
            }
            Identified { caller: Caller::anonymous(), session: None }
        }
        Err(error) => return Err(error),
    };
    note_caller(trace, &caller);
    let call = Call {
        registry,
        caller,
        session,
        method: parts.method.clone(),
        path: asked.path,
        query: asked.query,
        headers: &parts.headers,
        body,
        base: asked.base.clone(),
        host: origin.host,
        own_host,
        trace,
    };
    let actor = call.caller.actor(origin.client);
    let answered = actor.acting(ecosystem.serve(call)).await;
    if signs_in && answered.as_ref().is_err_and(|error| error.kind() == Kind::Unauthenticated) {
        // What was guessed came in the body.
        failed_logins.count(origin.client);
    }
    answered
}

async fn identify(registry: &Registry, ecosystem: &dyn Ecosystem, headers: &HeaderMap) -> Result<Identified> {
    if ecosystem.info().sessions {
        return registry.identity().identify_session(headers).await;
    }
    let key = ecosystem.info().key_header.and_then(|name| headers.get(name));
    Ok(Identified { caller: registry.identity().identify_with(headers, key).await?, session: None })
}

/// The mount as the client addresses it. An ecosystem's root paths keep their mount's address where documents need one.
fn base(ecosystem: &dyn Ecosystem, (origin, mount, path): (&Origin<'_>, &str, &str), own_host: Option<&str>) -> BaseUrl {
    let info = ecosystem.info();
    if mount.is_empty() && own_host.is_none() && info.root_paths.iter().any(|root| path.starts_with(root)) {
        return BaseUrl::new(&format!("{}/{}", origin.url, info.mount));
    }
    BaseUrl::new(&[&*origin.url, mount].concat())
}

fn failed(ecosystem: &dyn Ecosystem, error: &Error, asked: &Asked<'_>, trace: &Trace) -> Response {
    if error.kind() == Kind::Internal {
        tracing::error!(error = ?error, ecosystem = ecosystem.info().name, "request failed");
    }
    trace.note(|notes| notes.error = Some(format!("{error:?}")));
    let mut response = ecosystem.error(error, asked);
    finish_error(&mut response, error);
    response
}

/// An error where no protocol is known.
fn plain_error(error: &Error) -> Response {
    let mut response = reply::text(reply::status(error), format!("{error}\n"));
    finish_error(&mut response, error);
    response
}

fn finish_error(response: &mut Response, error: &Error) {
    reply::retry_after(response, error.wait());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn operate(state: &State, method: &Method, operation: &str) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return plain_error(&Error::new(Kind::MethodNotAllowed, Subject::Route));
    }
    let mut response = match operation {
        "health" => reply::text(StatusCode::OK, "ok\n"),
        "ready" => readiness(state),
        "metrics" => {
            let usage = state.registry.blobs().usage();
            METRICS.blobs(usage.cached_count, usage.cached_bytes, usage.free_bytes);
            METRICS.cold_reads(state.registry.blobs().take_cold_reads());
            reply::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", METRICS.text())
        }
        _ => plain_error(&Error::not_found(Subject::Route)),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Ready means that requests can be answered; an upstream's outage does not change that.
fn readiness(state: &State) -> Response {
    if state.truth.is_stopped() {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "the metadata store has stopped taking changes\n");
    }
    if state.registry.blobs().usage().full {
        // Everything that is stored can still be read, so nobody should be sent elsewhere.
        return reply::text(StatusCode::OK, "ready, but the disk is full: nothing can be published\n");
    }
    reply::text(StatusCode::OK, "ready\n")
}

/// Says what this is and how clients are pointed at it.
fn front_page(state: &State, origin: &Origin<'_>) -> Response {
    let mut text = format!("packhouse {}\n", env!("CARGO_PKG_VERSION"));
    for ecosystem in crate::ecosystem::ALL.iter().filter(|ecosystem| state.enabled.iter().any(|name| name == ecosystem.info().name)) {
        let base = BaseUrl::new(&format!("{}/{}", origin.url, ecosystem.info().mount));
        for snippet in ecosystem.clients(&base) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n# {}: {}\n{}", snippet.client, snippet.place, snippet.lines);
        }
    }
    reply::text(StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_down_by_address() {
        let failed = FailedLogins::new(2);
        let (guesser, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        failed.count(guesser);
        assert!(failed.check(guesser).is_ok());
        failed.count(guesser);
        assert_eq!(failed.check(guesser).unwrap_err().kind(), Kind::TooMany);
        assert!(failed.check(other).is_ok());
    }
}
