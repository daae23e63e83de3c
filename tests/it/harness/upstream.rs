//! A registry that does as it is told: an upstream with packages, and with faults on request.
//!
//! It writes its answers byte by byte, without an HTTP library in between, because most
//! of what it is for (a body shorter than its length, bytes after the end, a head that
//! never comes) is what a library refuses to send. One thread per connection keeps it
//! independent of the test's own runtime.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::image::{Blob, Image};
use super::package::{Package, shasum};
use super::{free_port, until};

/// What the upstream does instead of a plain answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status with a short JSON error.
    Status(u16),
    /// This status with these headers.
    StatusWith(u16, Vec<(&'static str, String)>),
    /// Takes the request and never answers.
    Hang,
    /// Answers when [`Upstream::release`] is called.
    Hold,
    /// Sends the head and this many bytes, and the rest when [`Upstream::release`] is called.
    HoldAfter(usize),
    /// Cuts the connection after this many bytes of the body.
    CutAfter(usize),
    /// The same with chunked framing.
    CutChunkedAfter(usize),
    /// Announces ten bytes more than it sends.
    Short,
    /// Sends bytes beyond the announced length.
    Long,
    /// A well-framed body that is longer than the real one.
    Padded,
    /// A body of the right length with one byte changed.
    Flipped,
    /// 200 with a page of HTML.
    Portal,
    /// 200 with no bytes.
    Empty,
    /// Claims gzip and sends something else.
    GzipGarbage,
    /// A gzip of a gzip, announced once.
    GzipTwice,
    /// 302 to this address.
    Redirect(String),
    /// One byte per this time.
    Drip(Duration),
    /// The plain answer with these headers added.
    Extra(Vec<(&'static str, String)>),
    /// 304 to a request that asked for no such thing.
    Unasked304,
    /// 206 to a request that asked for no range.
    Unasked206,
    /// This many interim answers first.
    Interim(usize),
    /// A body that never ends, chunked.
    Endless,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method.
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// Decoded path without the query.
    pub(crate) path: String,
    /// Headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The scripted registry, on loopback.
pub(crate) struct Upstream {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    port: u16,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<Vec<TcpStream>>,
    running: AtomicBool,
    gate: Mutex<Gate>,
    gate_moved: Condvar,
}

#[derive(Default)]
struct Gate {
    waiting: usize,
    releases: usize,
}

#[derive(Default)]
struct Script {
    packages: BTreeMap<String, Entry>,
    /// Bytes at a path of their own, with a media type.
    files: HashMap<String, (String, Vec<u8>)>,
    faults: HashMap<String, VecDeque<(Fault, usize)>>,
    /// Met by every request that has no fault of its own.
    everywhere: Option<Fault>,
    silent_validators: bool,
    password: Option<String>,
    challenge: Option<String>,
    folder: Option<PathBuf>,
    /// Where tokens are had, and which turn of them holds.
    tokens: Option<(String, usize)>,
}

#[derive(Default)]
struct Entry {
    versions: Vec<(Package, Option<String>)>,
    tags: BTreeMap<String, String>,
    more: Option<Value>,
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    /// Starts one without packages.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let upstream = Self { port, shared: Arc::new(Shared { port, ..Shared::default() }) };
        upstream.start_again();
        upstream
    }

    /// Starts one that has these packages.
    pub(crate) fn with(packages: &[Package]) -> Self {
        let upstream = Self::start();
        for package in packages {
            upstream.add(package);
        }
        upstream
    }

    /// Its address, without a trailing slash.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Listens again on the same port after [`Upstream::stop`].
    pub(crate) fn start_again(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the upstream's port is free");
        self.shared.running.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !shared.running.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                if let Ok(copy) = stream.try_clone() {
                    lock(&shared.open).push(copy);
                }
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
    }

    /// Cuts every connection and listens no more: to a client the host is down.
    pub(crate) fn stop(&self) {
        if self.shared.running.swap(false, Ordering::SeqCst) {
            // Wakes the thread that accepts, which then drops the listener.
            let _ = TcpStream::connect(("127.0.0.1", self.port));
            for stream in lock(&self.shared.open).drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            self.release();
            while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                std::thread::yield_now();
            }
        }
    }

    /// Adds a version and moves `latest` to it.
    pub(crate) fn add(&self, package: &Package) {
        self.add_at(package, None);
    }

    /// Adds a version whose tarball has a path of its own, as a registry with other address shapes has.
    pub(crate) fn add_at(&self, package: &Package, path: Option<&str>) {
        let mut script = lock(&self.shared.script);
        if let Some(path) = path {
            script.files.insert(path.into(), ("application/octet-stream".into(), package.tarball.clone()));
        }
        let entry = script.packages.entry(package.name.clone()).or_default();
        entry.versions.push((package.clone(), path.map(|path| format!("http://127.0.0.1:{}{path}", self.port))));
        entry.tags.insert("latest".into(), package.version.clone());
    }

    /// Adds a version that the packument places at any address, of this host or another.
    pub(crate) fn add_elsewhere(&self, package: &Package, address: &str) {
        let mut script = lock(&self.shared.script);
        let entry = script.packages.entry(package.name.clone()).or_default();
        entry.versions.push((package.clone(), Some(address.into())));
        entry.tags.insert("latest".into(), package.version.clone());
    }

    /// Fields laid over the packument of a name: `time`, unknown fields, whatever a test wants to see kept.
    pub(crate) fn more(&self, name: &str, more: Value) {
        lock(&self.shared.script).packages.entry(name.into()).or_default().more = Some(more);
    }

    /// Sets a tag.
    pub(crate) fn tag(&self, name: &str, tag: &str, version: &str) {
        lock(&self.shared.script).packages.entry(name.into()).or_default().tags.insert(tag.into(), version.into());
    }

    /// Forgets a package.
    pub(crate) fn remove(&self, name: &str) {
        lock(&self.shared.script).packages.remove(name);
    }

    /// Puts bytes at a path.
    pub(crate) fn file(&self, path: &str, media_type: &str, bytes: impl Into<Vec<u8>>) {
        lock(&self.shared.script).files.insert(path.into(), (media_type.into(), bytes.into()));
    }

    /// Serves every file below a folder, with a `.sha1` beside each.
    pub(crate) fn folder(&self, folder: &Path) {
        lock(&self.shared.script).folder = Some(folder.to_owned());
    }

    /// Sends no `ETag` any more, and answers no conditional request.
    pub(crate) fn without_validators(&self) {
        lock(&self.shared.script).silent_validators = true;
    }

    /// Answers 401 to who does not send exactly this `Authorization`.
    pub(crate) fn require(&self, authorization: &str) {
        lock(&self.shared.script).password = Some(authorization.into());
    }

    /// Has an image under a name and a tag, as a container registry.
    pub(crate) fn image(&self, name: &str, image: &Image, tag: &str) {
        for Blob { digest, bytes } in &image.blobs {
            self.file(&format!("/v2/{name}/blobs/{digest}"), "application/octet-stream", bytes.clone());
        }
        for reference in [tag, image.digest()] {
            self.file(&format!("/v2/{name}/manifests/{reference}"), image.media_type, image.manifest.bytes.clone());
        }
    }

    /// Lets nobody have anything of a repository without a token for it, had at `realm`, or else at this registry's own service.
    pub(crate) fn want_tokens(&self, realm: Option<&str>) {
        let realm = realm.map_or_else(|| format!("{}/token", self.url()), str::to_owned);
        lock(&self.shared.script).tokens = Some((realm, 1));
    }

    /// Refuses the tokens that were given so far.
    pub(crate) fn forget_tokens(&self) {
        if let Some((_, turn)) = &mut lock(&self.shared.script).tokens {
            *turn += 1;
        }
    }

    /// Takes what is at a path away.
    pub(crate) fn remove_file(&self, path: &str) {
        lock(&self.shared.script).files.remove(path);
    }

    /// Says how it wants to be asked when it answers 401.
    pub(crate) fn challenge(&self, challenge: &str) {
        lock(&self.shared.script).challenge = Some(challenge.to_owned());
    }

    /// The next `times` requests for a decoded path meet this fault.
    pub(crate) fn fault(&self, path: &str, fault: Fault, times: usize) {
        lock(&self.shared.script).faults.entry(path.into()).or_default().push_back((fault, times));
    }

    /// Every request for anything meets this fault, or none any more.
    pub(crate) fn everywhere(&self, fault: Option<Fault>) {
        lock(&self.shared.script).everywhere = fault;
    }

    /// Every request for a path meets this fault, until [`Upstream::heal`].
    pub(crate) fn always(&self, path: &str, fault: Fault) {
        self.fault(path, fault, usize::MAX);
    }

    /// Takes back the faults of a path.
    pub(crate) fn heal(&self, path: &str) {
        lock(&self.shared.script).faults.remove(path);
    }

    /// Lets go everybody whom [`Fault::Hold`] or [`Fault::HoldAfter`] keeps waiting.
    pub(crate) fn release(&self) {
        let mut gate = lock(&self.shared.gate);
        gate.releases += 1;
        self.shared.gate_moved.notify_all();
        // Who is let go must be gone, or the next `held` would count it.
        while gate.waiting > 0 {
            gate = self.shared.gate_moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `count` requests are held.
    pub(crate) async fn held(&self, count: usize) {
        until("requests held upstream", || lock(&self.shared.gate).waiting >= count).await;
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests came for a decoded path.
    pub(crate) fn count(&self, path: &str) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.path == path).count()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget(&self) {
        lock(&self.shared.seen).clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer) {
        if !shared.running.load(Ordering::SeqCst) {
            return;
        }
        lock(&shared.seen).push(seen.clone());
        let (reply, fault) = {
            let mut script = lock(&shared.script);
            (script.answer(&seen, shared.port), script.next_fault(&seen.path))
        };
        let keep = match fault {
            None => write_reply(&mut stream, &seen, &reply).is_some(),
            Some(fault) => misbehave(shared, &mut stream, &seen, reply, fault).is_some(),
        };
        if !keep {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let head_end = read_until(stream, buffer, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    buffer.drain(..head_end);
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if let Some(length) = header("content-length").and_then(|text| text.parse::<usize>().ok()) {
        while buffer.len() < length {
            read_more(stream, buffer)?;
        }
        body = buffer.drain(..length).collect();
    } else if header("transfer-encoding").is_some() {
        loop {
            let end = read_until(stream, buffer, b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&buffer[..end - 2]).ok()?.trim(), 16).ok()?;
            while buffer.len() < end + size + 2 {
                read_more(stream, buffer)?;
            }
            body.extend_from_slice(&buffer[end..end + size]);
            buffer.drain(..end + size + 2);
            if size == 0 {
                break;
            }
        }
    }
    let path = target.split('?').next().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    Some(Seen { method, target, path, headers, body })
}

fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, mark: &[u8]) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(mark.len()).position(|window| window == mark) {
            return Some(at + mark.len());
        }
        read_more(stream, buffer)?;
    }
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 16_384];
    let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
    buffer.extend_from_slice(&chunk[..count]);
    Some(())
}

impl Script {
    fn next_fault(&mut self, path: &str) -> Option<Fault> {
        let Some((fault, left)) = self.faults.get_mut(path).and_then(VecDeque::front_mut) else { return self.everywhere.clone() };
        let fault = fault.clone();
        if *left != usize::MAX {
            *left -= 1;
            if *left == 0 {
                self.faults.get_mut(path).and_then(VecDeque::pop_front);
            }
        }
        Some(fault)
    }

    fn answer(&self, seen: &Seen, port: u16) -> Reply {
        if self.password.is_some() && self.password.as_deref() != seen.header("authorization") {
            let mut reply = Reply::json(401, &json!({ "error": "authentication required" }));
            reply.headers.extend(self.challenge.iter().map(|challenge| ("WWW-Authenticate".into(), challenge.clone())));
            return reply;
        }
        if let Some(reply) = self.token(seen) {
            return reply;
        }
        let mut reply = self.plain(seen, port);
        if reply.status == 200 && !self.silent_validators && seen.method != "POST" {
            let etag = format!("\"{}\"", shasum(&reply.body));
            if seen.header("if-none-match") == Some(&etag) {
                reply = Reply { status: 304, headers: reply.headers, body: Vec::new() };
            } else if let Some(start) = seen.header("range").and_then(range_start).filter(|start| *start < reply.body.len())
                && seen.header("if-range").is_none_or(|validator| validator == etag)
            {
                let total = reply.body.len();
                reply.headers.push(("Content-Range".into(), format!("bytes {start}-{}/{total}", total - 1)));
                reply = Reply { status: 206, headers: reply.headers, body: reply.body.split_off(start) };
            }
            reply.headers.push(("ETag".into(), etag));
        }
        reply
    }

    /// A token, or the refusal of a request that comes without.
    fn token(&self, seen: &Seen) -> Option<Reply> {
        let (realm, turn) = self.tokens.as_ref()?;
        if seen.path == "/token" {
            let query = url::form_urlencoded::parse(seen.target.split_once('?').unwrap_or_default().1.as_bytes());
            let scope = query.into_iter().find(|(key, _)| key == "scope").map(|(_, scope)| scope.into_owned()).unwrap_or_default();
            return Some(Reply::json(200, &json!({ "token": format!("turn{turn}:{scope}"), "expires_in": 300 })));
        }
        let path = seen.path.strip_prefix("/v2/")?;
        let end = ["/manifests/", "/blobs/", "/tags/", "/referrers/"].iter().find_map(|word| path.rfind(word))?;
        let scope = format!("repository:{}:pull", &path[..end]);
        if seen.header("authorization") == Some(&format!("Bearer turn{turn}:{scope}")) {
            return None;
        }
        let mut reply = Reply::json(401, &json!({ "errors": [{ "code": "UNAUTHORIZED" }] }));
        reply.headers.push(("WWW-Authenticate".into(), format!("Bearer realm=\"{realm}\",service=\"told\",scope=\"{scope}\"")));
        Some(reply)
    }

    fn plain(&self, seen: &Seen, port: u16) -> Reply {
        let path = seen.path.as_str();
        if let Some((media_type, bytes)) = self.files.get(path) {
            let mut headers = vec![("Content-Type".into(), media_type.clone())];
            if path.contains("/manifests/") && !self.silent_validators {
                headers.push(("Docker-Content-Digest".into(), Blob::new(bytes.clone()).digest));
            }
            return Reply { status: 200, headers, body: bytes.clone() };
        }
        if let Some(folder) = &self.folder {
            return from_folder(folder, path).unwrap_or_else(Reply::missing);
        }
        match path {
            "/-/ping" => return Reply::json(200, &json!({})),
            "/-/v1/search" => return Reply::json(200, &self.search()),
            "/-/npm/v1/security/advisories/bulk" if seen.method == "POST" => return Reply::json(200, &json!({})),
            _ => {}
        }
        if let Some((name, file)) = path.trim_start_matches('/').split_once("/-/") {
            let version = self.packages.get(name).and_then(|entry| entry.versions.iter().find(|(package, _)| package.file() == file));
            return version.map_or_else(Reply::missing, |(package, _)| Reply {
                status: 200,
                headers: vec![("Content-Type".into(), "application/octet-stream".into())],
                body: package.tarball.clone(),
            });
        }
        let name = path.trim_start_matches('/');
        let abbreviated = seen.header("accept").is_some_and(|accept| accept.contains("application/vnd.npm.install-v1+json"));
        match self.packages.get(name) {
            Some(entry) => entry.packument(name, port, abbreviated),
            None => Reply::missing(),
        }
    }

    fn search(&self) -> Value {
        let package = |(name, entry): (&String, &Entry)| json!({ "package": { "name": name, "version": entry.tags.get("latest") }, "score": { "final": 1, "detail": {} }, "searchScore": 1 });
        let objects: Vec<Value> = self.packages.iter().map(package).collect();
        json!({ "total": objects.len(), "objects": objects, "time": "Thu Jan 01 2026 00:00:00 GMT+0000" })
    }
}

/// A file below a folder, or the SHA-1 of one.
fn from_folder(folder: &Path, path: &str) -> Option<Reply> {
    let whole = |path: &str| std::fs::read(folder.join(path.trim_start_matches('/'))).ok();
    let body = match path.strip_suffix(".sha1") {
        Some(path) => shasum(&whole(path)?).into_bytes(),
        None => whole(path)?,
    };
    Some(Reply { status: 200, headers: vec![("Content-Type".into(), "application/octet-stream".into())], body })
}

impl Entry {
    fn packument(&self, name: &str, port: u16, abbreviated: bool) -> Reply {
        let mut versions = json!({});
        let mut time = json!({ "created": "2024-01-01T00:00:00.000Z", "modified": "2024-02-01T00:00:00.000Z" });
        for (index, (package, address)) in self.versions.iter().enumerate() {
            let address = address.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}{}", package.path()));
            versions[&package.version] = package.listed(&address);
            time[&package.version] = json!(format!("2024-01-{:02}T00:00:00.000Z", index % 28 + 1));
        }
        let mut document = if abbreviated {
            json!({ "name": name, "modified": time["modified"], "dist-tags": self.tags, "versions": versions })
        } else {
            json!({ "_id": name, "_rev": "3-abc", "name": name, "dist-tags": self.tags, "versions": versions, "time": time, "readme": "# upstream" })
        };
        if let (Some(document), Some(Value::Object(more))) = (document.as_object_mut(), self.more.clone()) {
            document.extend(more);
        }
        let mut reply = Reply::json(200, &document);
        if abbreviated {
            reply.headers[0].1 = "application/vnd.npm.install-v1+json".into();
        }
        reply.headers.push(("Vary".into(), "Accept".into()));
        reply
    }
}

fn range_start(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

impl Reply {
    fn json(status: u16, value: &Value) -> Self {
        let body = serde_json::to_vec(value).expect("JSON");
        Self { status, headers: vec![("Content-Type".into(), "application/json".into())], body }
    }

    fn missing() -> Self {
        Self::json(404, &json!({ "error": "Not found" }))
    }

    /// The answer as a fault changes it, for the faults whose framing is right.
    fn altered(mut self, fault: Fault) -> Self {
        let owned = |headers: Vec<(&'static str, String)>| headers.into_iter().map(|(name, value)| (name.to_owned(), value));
        match fault {
            Fault::Status(status) => return Self::json(status, &json!({ "error": "told so" })),
            Fault::StatusWith(status, headers) => {
                let mut told = Self::json(status, &json!({ "error": "told so" }));
                told.headers.extend(owned(headers));
                return told;
            }
            Fault::Redirect(to) => return Self { status: 302, headers: vec![("Location".into(), to)], body: Vec::new() },
            Fault::Portal => {
                let body = b"<html><body>Please log in to the guest network</body></html>".to_vec();
                return Self { status: 200, headers: vec![("Content-Type".into(), "text/html".into())], body };
            }
            Fault::Padded => self.body.extend_from_slice(b"and some more"),
            Fault::Flipped => {
                let middle = self.body.len() / 2;
                self.body[middle] ^= 1;
            }
            Fault::Empty => self.body.clear(),
            Fault::GzipGarbage => {
                self.headers.push(("Content-Encoding".into(), "gzip".into()));
                self.body = b"this was never gzip".to_vec();
            }
            Fault::GzipTwice => {
                self.headers.push(("Content-Encoding".into(), "gzip".into()));
                self.body = gzip(&gzip(&self.body));
            }
            Fault::Extra(headers) => self.headers.extend(owned(headers)),
            Fault::Unasked304 => {
                self.status = 304;
                self.body.clear();
            }
            Fault::Unasked206 => {
                self.status = 206;
                let half = self.body.len() / 2;
                self.headers.push(("Content-Range".into(), format!("bytes 0-{}/{}", half - 1, self.body.len())));
                self.body.truncate(half);
            }
            other => unreachable!("{other:?} changes the framing"),
        }
        self
    }

    /// The head; `framing` is the header that says how the body ends.
    fn head(&self, framing: &str) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Told\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str(framing);
        head.push_str("\r\n\r\n");
        head.into_bytes()
    }
}

fn length(bytes: usize) -> String {
    format!("Content-Length: {bytes}")
}

/// Writes a whole answer. `None` when the connection is to be closed.
fn write_reply(stream: &mut TcpStream, seen: &Seen, reply: &Reply) -> Option<()> {
    let mut bytes = reply.head(&length(reply.body.len()));
    if seen.method != "HEAD" && reply.status != 304 {
        bytes.extend_from_slice(&reply.body);
    }
    stream.write_all(&bytes).ok()
}

fn misbehave(shared: &Shared, stream: &mut TcpStream, seen: &Seen, reply: Reply, fault: Fault) -> Option<()> {
    match fault {
        Fault::Hang => {
            hang(shared, Duration::from_secs(120));
            None
        }
        Fault::Hold => {
            wait(shared, Duration::from_secs(60));
            write_reply(stream, seen, &reply)
        }
        Fault::HoldAfter(count) => {
            let count = count.min(reply.body.len());
            send(stream, &[&reply.head(&length(reply.body.len())), &reply.body[..count]])?;
            wait(shared, Duration::from_secs(60));
            send(stream, &[&reply.body[count..]])
        }
        Fault::CutAfter(count) => {
            let count = count.min(reply.body.len());
            send(stream, &[&reply.head(&length(reply.body.len())), &reply.body[..count]])?;
            None
        }
        Fault::CutChunkedAfter(count) => {
            let part = &reply.body[..count.min(reply.body.len())];
            let size = format!("{:x}\r\n", part.len());
            send(stream, &[&reply.head("Transfer-Encoding: chunked"), size.as_bytes(), part, b"\r\n"])?;
            None
        }
        Fault::Short => {
            send(stream, &[&reply.head(&length(reply.body.len() + 10)), &reply.body])?;
            None
        }
        Fault::Long => {
            send(stream, &[&reply.head(&length(reply.body.len())), &reply.body, b"and some more"])?;
            None
        }
        Fault::Drip(pause) => drip(shared, stream, &reply, pause),
        Fault::Interim(count) => {
            for _ in 0..count {
                send(stream, &[b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"])?;
            }
            write_reply(stream, seen, &reply)
        }
        Fault::Endless => {
            send(stream, &[&reply.head("Transfer-Encoding: chunked")])?;
            let block = vec![b' '; 65_536];
            while shared.running.load(Ordering::SeqCst) {
                send(stream, &[b"10000\r\n", &block, b"\r\n"])?;
            }
            None
        }
        well_framed => write_reply(stream, seen, &reply.altered(well_framed)),
    }
}

fn send(stream: &mut TcpStream, parts: &[&[u8]]) -> Option<()> {
    parts.iter().try_for_each(|part| stream.write_all(part)).ok()
}

fn drip(shared: &Shared, stream: &mut TcpStream, reply: &Reply, pause: Duration) -> Option<()> {
    send(stream, &[&reply.head(&length(reply.body.len()))])?;
    for byte in &reply.body {
        std::thread::sleep(pause);
        if !shared.running.load(Ordering::SeqCst) {
            return None;
        }
        send(stream, &[&[*byte]])?;
    }
    Some(())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip in memory")
}

/// Waits for the upstream to stop, at most `most`.
fn hang(shared: &Shared, most: Duration) {
    let end = Instant::now() + most;
    let mut gate = lock(&shared.gate);
    while shared.running.load(Ordering::SeqCst) && Instant::now() < end {
        gate = shared.gate_moved.wait_timeout(gate, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Waits for [`Upstream::release`], at most `most`.
fn wait(shared: &Shared, most: Duration) {
    let end = Instant::now() + most;
    let mut gate = lock(&shared.gate);
    let before = gate.releases;
    gate.waiting += 1;
    while gate.releases == before && shared.running.load(Ordering::SeqCst) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        gate = shared.gate_moved.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    gate.waiting -= 1;
    shared.gate_moved.notify_all();
}
