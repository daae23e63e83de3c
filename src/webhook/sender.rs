//! Sending one delivery: signed, past the guard, within its time.
//!
//! Each connection goes to an address that the guard has vetted a moment before; a
//! redirect is an answer like any other and leads nowhere. No forward proxy is
//! used: it would resolve names behind the guard's back.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect;
use tokio::time::Instant;
use url::Url;

use super::record::{ContentType, Delivery, Exchange, Hook, Payload, Target, Try};
use super::{Config, Hooks, signature};
use crate::clock::Clock;
use crate::error::{Error, Result, Subject};
use crate::http::{HeaderMap, HeaderValue, StatusCode};
use crate::upstream::guard::Guard;

/// Receivers know GitHub by the first half.
const USER_AGENT: &str = concat!("GitHub-Hookshot/packhouse-", env!("CARGO_PKG_VERSION"));

/// Sends deliveries.
pub struct Sender {
    careful: reqwest::Client,
    /// For webhooks whose receiver's certificate is not checked.
    careless: reqwest::Client,
    guard: Guard,
    config: Config,
    clock: Clock,
}

/// What became of a sending.
#[derive(Clone, Debug)]
pub struct Sent {
    /// For the log of deliveries.
    pub outcome: Try,
    /// What went over the wire.
    pub exchange: Exchange,
    /// Whether trying again may help: nobody answered, or the answer said «not now».
    pub may_pass: bool,
}

impl Sender {
    /// A sender for these webhooks.
    ///
    /// # Errors
    /// `Invalid` when the certificates of the configuration cannot be read.
    pub fn new(hooks: &Hooks) -> Result<Self> {
        let config = hooks.config().clone();
        let guard = hooks.guard().clone();
        let client = |careless| client(&config, &guard, careless).map_err(|why| Error::invalid(Subject::Config, format!("webhook.{why}")));
        Ok(Self { careful: client(false)?, careless: client(true)?, guard, clock: hooks.clock().clone(), config })
    }

    /// Sends a delivery once.
    pub async fn send(&self, hook: &Hook, delivery: &Delivery, payload: &Payload) -> Sent {
        let (at, started) = (self.clock.now(), Instant::now());
        let body = body(hook.settings.content_type, payload.json());
        let headers = headers(hook, delivery, &body);
        let mut exchange = Exchange { url: hook.settings.url.clone(), request: listed(&headers), ..Exchange::default() };
        let limit = Duration::from_secs(self.config.answer_seconds);
        let answered = match tokio::time::timeout(limit, self.exchange(hook, headers, body)).await {
            Ok(answered) => answered,
            Err(_) => Err("timed out".to_owned()),
        };
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (code, status) = match answered {
            Err(status) => (None, status),
            Ok(answer) => {
                (exchange.response, exchange.body) = (listed(&answer.headers), answer.body);
                let text = match answer.status {
                    status if status.is_success() => status.canonical_reason().unwrap_or("OK").to_owned(),
                    status => format!("Invalid HTTP Response: {}", status.as_u16()),
                };
                (Some(answer.status.as_u16()), text)
            }
        };
        let may_pass = code.is_none_or(|code| matches!(code, 408 | 425 | 429 | 500..=599));
        Sent { outcome: Try { at, millis, code, status }, exchange, may_pass }
    }

    async fn exchange(&self, hook: &Hook, headers: HeaderMap, body: Bytes) -> Result<Answer, String> {
        let url = Url::parse(&hook.settings.url).map_err(|error| error.to_string())?;
        // The operator may have closed a network since the address was given.
        self.guard.check(&url).map_err(|error| error.message().to_owned())?;
        let http = if hook.settings.insecure_ssl { &self.careless } else { &self.careful };
        let sent = http.post(url).headers(headers).body(body).send().await;
        let mut response = sent.map_err(|error| reason(&error).to_owned())?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        // What does not come, or is past the limit, is left; the status is the answer.
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = self.config.answer_limit_bytes.saturating_sub(body.len());
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() >= room {
                break;
            }
        }
        Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn client(config: &Config, guard: &Guard, careless: bool) -> Result<reqwest::Client, String> {
    let mut authorities = Vec::new();
    for file in &config.ca_files {
        let pem = std::fs::read(file).map_err(|error| format!("ca_files: {}: {error}", file.display()))?;
        authorities.extend(reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| format!("ca_files: {}: {error}", file.display()))?);
    }
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::new(guard.clone()))
        .connect_timeout(Duration::from_secs(config.answer_seconds))
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(config.at_once_per_target.max(1))
        .tls_danger_accept_invalid_certs(careless);
    if !authorities.is_empty() {
        builder = builder.tls_certs_merge(authorities);
    }
    builder.build().map_err(|error| error.to_string())
}

/// The body as it is sent and signed.
fn body(content_type: ContentType, payload: &str) -> Bytes {
    match content_type {
        ContentType::Json => Bytes::copy_from_slice(payload.as_bytes()),
        ContentType::Form => url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", payload).finish().into(),
    }
}

fn headers(hook: &Hook, delivery: &Delivery, body: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        // Numbers, hex, GUIDs and names of events are always valid values.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set("accept", "*/*");
    set("user-agent", USER_AGENT);
    set(
        "content-type",
        match hook.settings.content_type {
            ContentType::Json => "application/json",
            ContentType::Form => "application/x-www-form-urlencoded",
        },
    );
    set("x-github-event", &delivery.event);
    set("x-github-delivery", &delivery.guid);
    set("x-github-hook-id", &hook.id.to_string());
    let (kind, id) = match hook.target {
        Target::Repository(id) => ("repository", id.0),
        Target::Organisation(id) => ("organization", id.0),
    };
    set("x-github-hook-installation-target-type", kind);
    set("x-github-hook-installation-target-id", &id.to_string());
    if let Some(secret) = &hook.settings.secret {
        set("x-hub-signature", &signature::sha1(secret.expose(), body));
        set("x-hub-signature-256", &signature::sha256(secret.expose(), body));
    }
    headers
}

/// Headers for the log of deliveries, by the names that GitHub writes.
fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (spelled(name.as_str()), shown(value))).collect()
}

/// `x-github-event` as `X-GitHub-Event`.
fn spelled(name: &str) -> String {
    let word = |word: &str| match word {
        "github" => "GitHub".to_owned(),
        "id" => "ID".to_owned(),
        word => word.char_indices().map(|(at, letter)| if at == 0 { letter.to_ascii_uppercase() } else { letter }).collect(),
    };
    name.split('-').map(word).collect::<Vec<String>>().join("-")
}

/// Why nobody answered, in words that say nothing of the network here.
fn reason(error: &reqwest::Error) -> &'static str {
    let mut cause = error.source();
    while let Some(found) = cause {
        if is_of_tls(found) {
            return "peer certificate cannot be authenticated";
        }
        cause = found.source();
    }
    if error.is_connect() { "failed to connect to host" } else { "the connection broke" }
}

/// Whether an error is TLS's, also inside those of input and output, which do not name what they hold as their source.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inside.is_some_and(|inside| is_of_tls(inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::package::{AccountId, DeliveryId, HookId, RepositoryId};
    use crate::webhook::{Secret, Settings};

    fn hook() -> Hook {
        Hook {
            id: HookId(5),
            target: Target::Organisation(AccountId(7)),
            author: AccountId(3),
            active: true,
            events: Vec::new(),
            settings: Settings {
                secret: Some(Secret::new("It's a Secret to Everybody")),
                ..Settings::to("https://example.com/".to_owned())
            },
            origin: String::new(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    fn delivery() -> Delivery {
        Delivery {
            id: DeliveryId(9),
            hook: HookId(5),
            guid: "guid".to_owned(),
            event: "package".to_owned(),
            action: None,
            package: None,
            repository: None,
            by_hand: false,
            redelivery: false,
            queued_at: Timestamp::default(),
            tries: 0,
            waiting: true,
            last: None,
            bytes: 0,
        }
    }

    #[test]
    fn headers_are_githubs() {
        let listed = listed(&headers(&hook(), &delivery(), b"Hello, World!"));
        let value = |name: &str| listed.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(value("X-GitHub-Event"), Some("package"));
        assert_eq!(value("X-GitHub-Delivery"), Some("guid"));
        assert_eq!(value("X-GitHub-Hook-ID"), Some("5"));
        assert_eq!(value("X-GitHub-Hook-Installation-Target-Type"), Some("organization"));
        assert_eq!(value("X-GitHub-Hook-Installation-Target-ID"), Some("7"));
        assert_eq!(value("Content-Type"), Some("application/x-www-form-urlencoded"));
        assert!(value("User-Agent").is_some_and(|agent| agent.starts_with("GitHub-Hookshot/")));
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(value("X-Hub-Signature-256"), Some(signature));
        assert!(value("X-Hub-Signature").is_some_and(|signature| signature.starts_with("sha1=")));
        let mut open = hook();
        open.settings.secret = None;
        open.target = Target::Repository(RepositoryId(8));
        let unsigned = headers(&open, &delivery(), b"");
        assert_eq!(unsigned.get("x-hub-signature-256"), None);
        assert_eq!(unsigned["x-github-hook-installation-target-type"], "repository");
    }

    /// A name is judged by what it resolves to at the moment it is sent to, whatever was said of it before.
    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Arc::new(crate::store::memory::Memory::new());
        let sender = Sender::new(&Hooks::new(store, Clock::system(), Config::default())).unwrap();
        let hook = Hook { settings: Settings::to(format!("http://localhost:{port}/")), ..hook() };
        let sent = sender.send(&hook, &delivery(), &Payload::new("{}".to_owned()).unwrap()).await;
        assert_eq!((sent.outcome.code, sent.outcome.status.as_str(), sent.may_pass), (None, "failed to connect to host", true));
        let connected = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(connected.is_err(), "somebody connected");
    }

    #[test]
    fn a_form_holds_the_json() {
        assert_eq!(body(ContentType::Form, r#"{"a":"b c&d"}"#), "payload=%7B%22a%22%3A%22b+c%26d%22%7D");
        assert_eq!(body(ContentType::Json, "{}"), "{}");
    }
}
