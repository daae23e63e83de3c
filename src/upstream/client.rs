//! Requests to one upstream: credentials, redirects, time-outs, retries, the breaker.
//!
//! Redirects are followed here and not by the HTTP client, because each hop must
//! pass the guard and only hops to the configured origin may carry credentials.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use globset::{Glob, GlobSet, GlobSetBuilder};
use rand::RngExt as _;
use reqwest::redirect;
use url::Url;

use super::breaker::{self, Breaker};
use super::config::{Config, Credentials, ProxyEnvironment, UpstreamConfig};
use super::freshness::Lifetimes;
use super::guard::Guard;
use super::token::{self, Challenge, Token, Tokens};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Subject};
use crate::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use crate::name::PackageName;
use crate::observe::{METRICS, Tries};

/// One configured upstream.
pub struct Upstream {
    name: String,
    /// As it is configured.
    own: Url,
    /// The same, as the beginning of what is below it.
    base: Url,
    lifetimes: Lifetimes,
    include: Option<GlobSet>,
    exclude: GlobSet,
    hosts: Vec<String>,
    mirrors: Vec<String>,
    namespace: Option<String>,
    token_hosts: Vec<String>,
    credentials: Credentials,
    tokens: Tokens,
    /// Whether it has asked for its credentials themselves, where a token was expected to be wanted.
    wants_basic: AtomicBool,
    http: reqwest::Client,
    guard: Guard,
    breaker: Mutex<Breaker>,
    breaker_limits: breaker::Limits,
    limits: Config,
    clock: Clock,
}

/// How much of a body came since when.
#[derive(Debug, Default)]
pub struct Pace {
    started: Option<tokio::time::Instant>,
    bytes: u64,
}

/// An answer whose status the caller has a use for.
#[derive(Debug)]
pub enum Answer {
    /// 200 or, if a range was asked for, 206.
    Body(reqwest::Response),
    /// 304 to a conditional request.
    NotModified,
    /// 404 or 410.
    Absent,
    /// 416 to a request for a range.
    OutOfRange,
    /// Any other refusal of a HEAD, which says nothing of a GET.
    Refused,
}

impl Upstream {
    /// Builds the client of one upstream.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with what is wrong in its settings.
    pub fn new(
        own: &UpstreamConfig,
        engine: &Config,
        credentials: Credentials,
        environment: &ProxyEnvironment,
        clock: Clock,
    ) -> Result<Self> {
        let wrong = |what: String| Error::invalid(Subject::Config, format!("upstream {}: {what}", own.name));
        let configured = Url::parse(&own.url).map_err(|error| wrong(format!("url: {error}")))?;
        let mut base = configured.clone();
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() || base.query().is_some() {
            return Err(wrong("url must be an http or https address without a query".to_owned()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("url must not hold credentials; use token_file, or username and password_file".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let (http, guard) = http_client(own, engine, environment).map_err(wrong)?;
        Ok(Self {
            name: own.name.clone(),
            own: configured,
            lifetimes: engine.lifetimes(own),
            include: if own.include.is_empty() { None } else { Some(patterns(&own.include).map_err(wrong)?) },
            exclude: patterns(&own.exclude).map_err(wrong)?,
            hosts: own_hosts(own, &base),
            mirrors: own.mirrors.iter().map(|host| host.to_ascii_lowercase()).collect(),
            namespace: own.namespace.clone(),
            token_hosts: own.token_hosts.clone(),
            credentials,
            tokens: Tokens::default(),
            wants_basic: AtomicBool::new(false),
            base,
            http,
            guard,
            breaker: Mutex::default(),
            breaker_limits: engine.breaker(),
            limits: engine.clone(),
            clock,
        })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A text that differs for upstreams with different addresses, for cache keys.
    #[must_use]
    pub fn identity(&self) -> &str {
        self.base.as_str()
    }

    /// The hosts that clients know it by, in lower case; the first is the one to show.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Whether all names under a host of this server, as the client named it, are this upstream's.
    #[must_use]
    pub fn is_mirrored_at(&self, host: &str) -> bool {
        if self.mirrors.is_empty() {
            return false;
        }
        let bare = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map_or(host, |(bare, _)| bare);
        self.mirrors.iter().any(|mirror| mirror.eq_ignore_ascii_case(host) || mirror.eq_ignore_ascii_case(bare))
    }

    /// What is put before a name of one part.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// How long its documents last.
    #[must_use]
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    /// Whether a name may be asked for here.
    #[must_use]
    pub fn serves(&self, name: &PackageName) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(name.as_str())) && !self.exclude.is_match(name.as_str())
    }

    /// Whether every name may be asked for here.
    #[must_use]
    pub fn serves_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// The address of a path as an [`Ask`](crate::format::Ask) names it: below the configured address, that address itself,
    /// or a whole one.
    ///
    /// # Errors
    /// When the path cannot be part of an address.
    pub fn address(&self, path: &str) -> Result<Url> {
        if path.is_empty() {
            return Ok(self.own.clone());
        }
        if path.starts_with("https://") || path.starts_with("http://") {
            return Url::parse(path).map_err(|error| failed("the upstream gave a malformed address").because(error));
        }
        Url::parse(&format!("{}{path}", self.base)).map_err(|error| Error::internal(Subject::Upstream, error))
    }

    /// Reads an address that a document of this upstream gives, possibly relative.
    ///
    /// # Errors
    /// When it is no address.
    pub fn address_in_document(&self, text: &str) -> Result<Url> {
        self.base.join(text).map_err(|error| failed("the upstream gave a malformed address").because(error))
    }

    /// Asks with GET, retrying what may pass, and counts the outcome in the breaker.
    ///
    /// # Errors
    /// [`Kind::BadUpstream`] when the upstream failed or answered with nothing usable,
    /// [`Kind::Unavailable`] when it asked to be left alone or is being left alone.
    pub async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Answer> {
        self.ask(&Method::GET, url, headers, None).await
    }

    /// As [`Upstream::get`], also with HEAD, for what may need a token: `scope` says for what, in the words of the token
    /// protocol.
    ///
    /// # Errors
    /// As [`Upstream::get`]; [`Kind::BadUpstream`] of a token when the upstream does not let this server have it, of a
    /// request when it refuses to be asked so.
    pub async fn ask(&self, method: &Method, url: &Url, headers: HeaderMap, scope: Option<&str>) -> Result<Answer> {
        let mut tries = 0;
        loop {
            self.admit()?;
            let outcome = match scope {
                Some(scope) => self.exchange_as(method, url, &headers, scope).await,
                None => self.exchange(method.clone(), url.clone(), headers.clone(), None, self.credentials.0.as_ref()).await,
            };
            let (error, wait) =
                match outcome.map(|response| judge(response, &headers)) {
                    Ok(Judged::Answer(answer)) => {
                        self.breaker().succeeded();
                        return Ok(answer);
                    }
                    // The upstream works and refuses this request: no reason to leave it alone.
                    Ok(Judged::Refused(status)) => {
                        self.breaker().succeeded();
                        return match status {
                            _ if *method == Method::HEAD => Ok(Answer::Refused),
                            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if scope.is_some() => Err(denied()),
                            status => Err(Error::new(Kind::BadUpstream, Subject::Request)
                                .saying(format!("the upstream answered {}", status.as_u16()))),
                        };
                    }
                    // So does its token service, which refuses what is wanted.
                    Err(error) if error.subject() == Subject::Token => {
                        self.breaker().succeeded();
                        return Err(error);
                    }
                    Ok(Judged::Failing(error, wait)) => (error, wait),
                    Err(error) => (error, None),
                };
            self.breaker().failed(self.clock.now(), wait, &self.breaker_limits);
            tracing::debug!(upstream = %self.name, tries, error = ?error, "upstream try failed");
            if tries >= self.limits.retries || wait.is_some() {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(pause(tries)).await;
        }
    }

    /// Relays a request once and reads its answer, at most `limit_bytes`.
    ///
    /// # Errors
    /// As [`Upstream::get`]; a status other than 2xx is returned, not an error.
    pub async fn relay(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
        limit_bytes: u64,
    ) -> Result<(StatusCode, Bytes)> {
        self.admit()?;
        let response = match self.exchange(method, self.address(path)?, headers, body, self.credentials.0.as_ref()).await {
            Ok(response) => response,
            Err(error) => {
                self.breaker().failed(self.clock.now(), None, &self.breaker_limits);
                return Err(error);
            }
        };
        if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait = retry_after(response.headers());
            self.breaker().failed(self.clock.now(), wait, &self.breaker_limits);
        } else {
            self.breaker().succeeded();
        }
        let status = response.status();
        Ok((status, self.read(response, limit_bytes).await?))
    }

    /// Reads a whole body, unpacked if it is gzipped, at most `limit_bytes` of it.
    ///
    /// # Errors
    /// [`Kind::BadUpstream`] when it breaks off, stalls, is too large or is not what its headers say.
    pub async fn read(&self, mut response: reqwest::Response, limit_bytes: u64) -> Result<Bytes> {
        let announced = response.content_length();
        if announced.is_some_and(|length| length > limit_bytes) {
            return Err(past_limit(limit_bytes));
        }
        let coding = response.headers().get(header::CONTENT_ENCODING).cloned();
        let mut body = BytesMut::with_capacity(usize::try_from(announced.unwrap_or(0)).unwrap_or(0).min(1 << 20));
        let mut pace = Pace::default();
        while let Some(chunk) = self.next_chunk(&mut response, &mut pace).await? {
            if (body.len() + chunk.len()) as u64 > limit_bytes {
                return Err(past_limit(limit_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        if announced.is_some_and(|length| length != body.len() as u64) {
            return Err(failed("the upstream's answer has another length than it said"));
        }
        match coding.as_ref().map(HeaderValue::as_bytes) {
            None | Some(b"identity" | b"") => Ok(body.freeze()),
            Some(b"gzip" | b"x-gzip") => {
                let packed = body.freeze();
                let unpack = tokio::task::spawn_blocking(move || unpack(&packed, limit_bytes));
                unpack.await.map_err(|error| Error::internal(Subject::Upstream, error))?
            }
            Some(_) => Err(failed("the upstream's answer has an unknown content coding")),
        }
    }

    /// The next part of a body, within the idle time-out and not slower than the limit.
    ///
    /// # Errors
    /// [`Kind::BadUpstream`] when the body breaks off, stalls or drips.
    pub async fn next_chunk(&self, response: &mut reqwest::Response, pace: &mut Pace) -> Result<Option<Bytes>> {
        let idle = Duration::from_secs(self.limits.idle_seconds);
        let started = *pace.started.get_or_insert_with(tokio::time::Instant::now);
        let chunk = tokio::time::timeout(idle, response.chunk())
            .await
            .map_err(|_| failed("the upstream's answer stalled"))?
            .map_err(|error| failed("the upstream's answer broke off").because(error.without_url()))?;
        let received = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        METRICS.fetched(received);
        pace.bytes += received;
        if chunk.is_some() && started.elapsed() >= Duration::from_secs(self.limits.slow_window_seconds) {
            if pace.bytes < self.limits.slow_window_bytes {
                return Err(failed("the upstream's answer came too slowly"));
            }
            *pace = Pace::default();
        }
        Ok(chunk)
    }

    /// Counts a failure that showed only in the body.
    pub fn count_failure(&self) {
        self.breaker().failed(self.clock.now(), None, &self.breaker_limits);
    }

    /// Whether this upstream is being left alone at present.
    #[must_use]
    pub fn is_left_alone(&self) -> bool {
        self.breaker().is_open(self.clock.now())
    }

    fn admit(&self) -> Result<()> {
        self.breaker().admit(self.clock.now(), &self.breaker_limits).map_err(left_alone)
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, with the token or the credentials that the upstream wants for it.
    async fn exchange_as(&self, method: &Method, url: &Url, headers: &HeaderMap, scope: &str) -> Result<reqwest::Response> {
        let exchange = async |authorization| self.exchange(method.clone(), url.clone(), headers.clone(), None, authorization).await;
        let own = self.credentials.0.as_ref();
        let is_bearer = own.is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
        if is_bearer || self.wants_basic.load(Ordering::Relaxed) {
            return exchange(own).await;
        }
        let known = self.tokens.get(scope).await;
        let response = exchange(known.as_ref().map(|token| &token.value)).await?;
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != self.base.origin() {
            return Ok(response);
        }
        match Challenge::read(response.headers()) {
            Some(Challenge::Basic) if own.is_some() => {
                self.wants_basic.store(true, Ordering::Relaxed);
                exchange(own).await
            }
            Some(Challenge::Bearer { realm, service, scope: wanted }) => {
                if let Some(known) = &known {
                    self.tokens.refused(scope, known).await;
                }
                let wanted = wanted.as_deref().unwrap_or(scope);
                let token = self.tokens.get_or(scope, self.fetch_token(realm, service.as_deref(), wanted)).await?;
                exchange(Some(&token.value)).await
            }
            _ => Ok(response),
        }
    }

    /// Asks the token service that the upstream named.
    async fn fetch_token(&self, mut realm: Url, service: Option<&str>, scope: &str) -> Result<Token> {
        self.guard.check(&realm)?;
        let credentials = self.credentials.0.as_ref().filter(|_| token::is_of(&self.base, &realm, &self.token_hosts));
        if self.credentials.0.is_some() && credentials.is_none() {
            let host = realm.host_str().unwrap_or_default();
            tracing::warn!(upstream = self.name, host, "a token service in another domain is asked without credentials; see token_hosts");
        }
        realm.query_pairs_mut().extend_pairs(service.map(|service| ("service", service))).append_pair("scope", scope);
        let mut request = self.http.get(realm);
        if let Some(credentials) = credentials {
            request = request.header(header::AUTHORIZATION, credentials.clone());
        }
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => Token::read(&self.read(response, token::ANSWER_BYTES).await?),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if credentials.is_some() => {
                tracing::error!(upstream = self.name, "the token service refuses the configured credentials");
                Err(failed("the upstream's token service refuses this server's credentials"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(denied()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(Error::new(Kind::Unavailable, Subject::Upstream).saying("the upstream's token service is overloaded"))
            }
            status => Err(failed_status(status)),
        }
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let response = tokio::time::timeout(Duration::from_secs(self.limits.header_seconds), request.send())
            .await
            .map_err(|_| failed("the upstream did not answer in time"))
            .and_then(|sent| sent.map_err(|error| failed("the upstream cannot be reached").because(error.without_url())));
        Tries::current().add();
        METRICS.asked_upstream(&self.name, response.as_ref().ok().map(|response| response.status().as_u16()));
        response
    }

    /// One request with its redirects. `authorization` goes to the upstream's own address alone.
    async fn exchange(
        &self,
        method: Method,
        mut url: Url,
        headers: HeaderMap,
        body: Option<Bytes>,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response> {
        for _ in 0..=self.limits.redirects {
            self.guard.check(&url)?;
            let mut request = self.http.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(credentials) = authorization
                && url.origin() == self.base.origin()
            {
                request = request.header(header::AUTHORIZATION, credentials.clone());
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let response = self.send(request).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).ok_or_else(|| failed("the upstream redirected to nowhere"))?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(failed("the upstream redirected from https to http"));
            }
            url = next;
        }
        Err(failed("the upstream redirected too often"))
    }
}

fn left_alone(wait: Duration) -> Error {
    Error::new(Kind::Unavailable, Subject::Upstream).saying("the upstream failed and is being left alone for a while").retry_after(wait)
}

enum Judged {
    Answer(Answer),
    Refused(StatusCode),
    Failing(Error, Option<Duration>),
}

/// Sorts an answer by its status. Statuses that were not asked for are failures.
fn judge(response: reqwest::Response, asked: &HeaderMap) -> Judged {
    let status = response.status();
    let conditional = asked.contains_key(header::IF_NONE_MATCH) || asked.contains_key(header::IF_MODIFIED_SINCE);
    match status {
        StatusCode::OK => Judged::Answer(Answer::Body(response)),
        StatusCode::PARTIAL_CONTENT if asked.contains_key(header::RANGE) => Judged::Answer(Answer::Body(response)),
        StatusCode::NOT_MODIFIED if conditional => Judged::Answer(Answer::NotModified),
        StatusCode::RANGE_NOT_SATISFIABLE if asked.contains_key(header::RANGE) => Judged::Answer(Answer::OutOfRange),
        StatusCode::NOT_FOUND | StatusCode::GONE => Judged::Answer(Answer::Absent),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let wait = retry_after(response.headers());
            let mut error = Error::new(Kind::Unavailable, Subject::Upstream).saying(format!("the upstream answered {}", status.as_u16()));
            if let Some(wait) = wait {
                error = error.retry_after(wait);
            }
            Judged::Failing(error, wait)
        }
        status if status.is_server_error() => Judged::Failing(failed_status(status), None),
        status => Judged::Refused(status),
    }
}

/// `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    // The date is the upstream's; compared with its own Date header no clock of ours is needed.
    let until = httpdate::parse_http_date(text).ok()?;
    let now = headers.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())?;
    until.duration_since(now).ok()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A growing pause with some chance in it, so that many waiters do not return at once.
fn pause(tries: u32) -> Duration {
    let base = 50u64 << tries.min(6);
    Duration::from_millis(base + rand::rng().random_range(0..base))
}

fn unpack(packed: &Bytes, limit_bytes: u64) -> Result<Bytes> {
    use std::io::Read as _;
    let mut body = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(&packed[..]).take(limit_bytes.saturating_add(1));
    reader.read_to_end(&mut body).map_err(|error| failed("the upstream's answer is not the gzip it claims to be").because(error))?;
    if body.len() as u64 > limit_bytes {
        return Err(past_limit(limit_bytes));
    }
    Ok(body.into())
}

fn patterns(texts: &[String]) -> Result<GlobSet, String> {
    let mut builder = GlobSetBuilder::new();
    for text in texts {
        builder.add(Glob::new(text).map_err(|error| format!("pattern {text:?}: {error}"))?);
    }
    builder.build().map_err(|error| error.to_string())
}

fn http_client(own: &UpstreamConfig, engine: &Config, environment: &ProxyEnvironment) -> Result<(reqwest::Client, Guard), String> {
    let mut proxies = Vec::new();
    let mut trusted_hosts = Vec::new();
    let except = environment.except.as_deref().and_then(reqwest::NoProxy::from_string);
    let mut add = |address: &str, make: fn(&str) -> reqwest::Result<reqwest::Proxy>| {
        let url = Url::parse(address).map_err(|error| format!("proxy address: {error}"))?;
        trusted_hosts.extend(url.host_str().map(str::to_owned));
        proxies.push(make(address).map_err(|error| format!("proxy address: {error}"))?.no_proxy(except.clone()));
        Ok::<(), String>(())
    };
    if let Some(address) = own.proxy_url.as_deref().or(engine.proxy_url.as_deref()) {
        add(address, |address| reqwest::Proxy::all(address))?;
    } else {
        if let Some(address) = &environment.http {
            add(address, |address| reqwest::Proxy::http(address))?;
        }
        if let Some(address) = &environment.https {
            add(address, |address| reqwest::Proxy::https(address))?;
        }
    }
    let guard = Guard::new(engine.allow_private.clone(), trusted_hosts);
    let mut authorities = Vec::new();
    for file in engine.ca_files.iter().chain(&own.ca_files) {
        let pem = std::fs::read(file).map_err(|error| format!("ca_files: {}: {error}", file.display()))?;
        authorities.extend(reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| format!("ca_files: {}: {error}", file.display()))?);
    }
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("packhouse/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .dns_resolver(std::sync::Arc::new(guard.clone()))
        .connect_timeout(Duration::from_secs(engine.connect_seconds))
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(64)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(Duration::from_secs(20));
    if !authorities.is_empty() {
        builder = builder.tls_certs_merge(authorities);
    }
    for proxy in proxies {
        builder = builder.proxy(proxy);
    }
    Ok((builder.build().map_err(|error| error.to_string())?, guard))
}

/// The hosts that clients know an upstream by: those that are configured, and that of its address, if that is a full name.
fn own_hosts(own: &UpstreamConfig, base: &Url) -> Vec<String> {
    let mut hosts: Vec<String> = own.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let host = base.host_str().unwrap_or_default();
    if host.contains('.') && !hosts.iter().any(|known| known == host) {
        hosts.push(host.to_owned());
    }
    hosts
}

/// The upstream or its token service refuses this server what it asks for, be it there or not.
fn denied() -> Error {
    Error::new(Kind::BadUpstream, Subject::Token).saying("the upstream does not let this server have it")
}

fn failed(what: &'static str) -> Error {
    Error::new(Kind::BadUpstream, Subject::Upstream).saying(what)
}

fn failed_status(status: StatusCode) -> Error {
    Error::new(Kind::BadUpstream, Subject::Upstream).saying(format!("the upstream answered {}", status.as_u16()))
}

fn past_limit(limit_bytes: u64) -> Error {
    Error::new(Kind::BadUpstream, Subject::Upstream).saying(format!("the upstream's answer is larger than {limit_bytes} bytes"))
}
