//! A caller that sends what a test says and keeps every byte of the answer, compressed or not.

use reqwest::{Client, Method, redirect};
use serde_json::Value;

/// Somebody who speaks HTTP to one origin, with or without a token.
#[derive(Clone)]
pub(crate) struct Caller {
    http: Client,
    origin: String,
    token: Option<String>,
}

/// A request being put together.
pub(crate) struct Ask(reqwest::RequestBuilder);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: ::http::HeaderMap,
    /// The bytes of the body, as they came.
    pub(crate) body: Vec<u8>,
    /// Whether the body ended before its end.
    pub(crate) cut: bool,
}

impl Caller {
    /// Someone at `origin`, which has no trailing slash.
    pub(crate) fn new(origin: &str, token: Option<&str>) -> Self {
        let http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(std::time::Duration::from_secs(60))
            .build()
            .expect("a client");
        Self { http, origin: origin.into(), token: token.map(str::to_owned) }
    }

    /// A request for a path below the origin, with the caller's token.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.origin));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Ask(request)
    }

    /// A GET.
    pub(crate) fn get(&self, path: &str) -> Ask {
        self.ask("GET", path)
    }

    /// A PUT of JSON.
    pub(crate) fn put(&self, path: &str, value: &Value) -> Ask {
        self.ask("PUT", path).json(value)
    }

    /// A full packument; panics when there is none.
    pub(crate) async fn packument(&self, name: &str) -> Value {
        let answer = self.get(&format!("/npm/{}", name.replace('/', "%2f"))).send().await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        answer.json()
    }
}

impl Ask {
    /// Adds a header.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    /// Sets a body of JSON.
    pub(crate) fn json(self, value: &Value) -> Self {
        Self(self.0.header("content-type", "application/json").body(serde_json::to_vec(value).expect("JSON")))
    }

    /// Sets a body.
    pub(crate) fn body(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self(self.0.body(bytes.into()))
    }

    /// Sets a body that is sent in chunks, without saying how long it is.
    pub(crate) fn stream(self, bytes: &[u8], chunk: usize) -> Self {
        let chunks: Vec<std::io::Result<Vec<u8>>> = bytes.chunks(chunk).map(|chunk| Ok(chunk.to_vec())).collect();
        Self(self.0.body(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))))
    }

    /// Sends it; panics when no answer comes.
    pub(crate) async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// Sends it; says whether the answer was a success.
    pub(crate) async fn send_once(self) -> bool {
        self.try_send().await.is_some_and(|answer| (200..300).contains(&answer.status))
    }

    /// Sends it; `None` when no answer comes.
    pub(crate) async fn try_send(self) -> Option<Answer> {
        let mut response = self.0.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        let cut = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        Some(Answer { status, headers, body, cut })
    }
}

impl Answer {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{} with no JSON ({error}): {}", self.status, self.text()))
    }

    /// Panics unless the status is this one and, from 400 on, the body says why: as plain text, or in npm's shape.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        if status >= 400 {
            let says = match self.header("content-type") {
                text if text.starts_with("text/plain") => !self.body.trim_ascii().is_empty(),
                _ => self.json()["error"].as_str().is_some_and(|text| !text.is_empty()),
            };
            assert!(says, "{status} without an error: {}", self.text());
        }
        self
    }

    /// Why the cache answered as it did: what follows `packhouse;` in `Cache-Status` (RFC 9211).
    #[track_caller]
    pub(crate) fn verdict(&self) -> &str {
        let header = self.header("cache-status");
        let rest = header.strip_prefix("packhouse").unwrap_or_else(|| panic!("Cache-Status is {header:?}, status {}", self.status));
        rest.trim_start_matches([';', ' '])
    }
}
