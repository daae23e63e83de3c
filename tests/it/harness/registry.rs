//! A real container registry, Debian's `docker-registry`, behind a token service of the test's own.
//!
//! The registry trusts the tokens that the service signs and nothing else. `robot` gets
//! whatever it asks for, and nobody may pull what is below `public/`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::clients::clients;
use super::{Caller, free_port};

/// The password of `robot`.
pub(crate) const PASSWORD: &str = "robots-password";
const SERVICE: &str = "the registry";
const ISSUER: &str = "the tests";

/// The registry and its token service.
pub(crate) struct Registry {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    service: Arc<TokenRealm>,
}

/// Signs tokens.
struct TokenRealm {
    port: u16,
    key: KeyPair,
    certificate: Vec<u8>,
    given: AtomicUsize,
}

impl Registry {
    /// Starts both.
    pub(crate) async fn start() -> Self {
        let folder = TempDir::with_prefix("packhouse-registry-").expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["tokens.test".to_owned()]).expect("a name").self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("tokens.pem"), certificate.pem()).expect("a file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let service = Arc::new(TokenRealm { port, key, certificate: certificate.der().to_vec(), given: AtomicUsize::default() });
        let serving = Arc::downgrade(&service);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Some(service)) = (stream, serving.upgrade()) else { return };
                let _ = service.answer(stream);
            }
        });
        let mut registry = Self { folder, port: free_port(), child: None, service };
        registry.start_again().await;
        registry
    }

    /// Starts the registry on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {0:?}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"127.0.0.1:{1}\", secret: x}}\n\
             auth: {{token: {{realm: \"http://127.0.0.1:{2}/token\", service: {SERVICE:?}, issuer: {ISSUER:?}, rootcertbundle: {3:?}}}}}\n",
            self.path("data").display().to_string(),
            self.port,
            self.service.port,
            self.path("tokens.pem").display().to_string(),
        );
        std::fs::write(self.path("config.yml"), config).expect("a config");
        let program = clients().join("registry/usr/bin/docker-registry");
        assert!(program.exists(), "docker-registry is not installed; tests/run --install installs every client");
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new(program);
        command.arg("serve").arg(self.path("config.yml")).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("it starts"));
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        let caller = Caller::new(&self.url(), None);
        while caller.get("/v2/").try_send().await.is_none_or(|answer| answer.status != 401) {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(tokio::time::Instant::now() < end, "docker-registry does not answer:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the registry; the token service stays.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("it can be killed");
    }

    /// Its address, without a trailing slash.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Somebody with a token for everything in one repository.
    pub(crate) fn caller(&self, name: &str) -> Caller {
        let token = self.service.token(&[json!({ "type": "repository", "name": name, "actions": ["pull", "push", "delete"] })]);
        Caller::new(&self.url(), Some(&token))
    }

    /// How many tokens were asked for.
    pub(crate) fn tokens(&self) -> usize {
        self.service.given.load(Ordering::SeqCst)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(Path::new(name))
    }
}

impl TokenRealm {
    /// Answers one request for a token.
    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        self.given.fetch_add(1, Ordering::SeqCst);
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1)?;
        let said =
            head.lines().find_map(|line| line.to_ascii_lowercase().starts_with("authorization:").then(|| line[14..].trim().to_owned()));
        let robot = format!("Basic {}", STANDARD.encode(format!("robot:{PASSWORD}")));
        if said.as_ref().is_some_and(|said| *said != robot) {
            return stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
        }
        let query = url::form_urlencoded::parse(target.split_once('?')?.1.as_bytes());
        let granted: Vec<Value> =
            query.filter(|(key, _)| key == "scope").filter_map(|(_, scope)| granted(&scope, said.is_some())).collect();
        let body = json!({ "token": self.token(&granted), "expires_in": 300 }).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).ok()
    }

    /// A signed token (RFC 7519, ES256).
    fn token(&self, access: &[Value]) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)] });
        let claims = json!({
            "iss": ISSUER, "sub": "robot", "aud": SERVICE, "jti": "1", "access": access,
            "iat": now, "nbf": now.saturating_sub(10), "exp": now + 300,
        });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(plain(&signature)))
    }
}

/// What of a scope is granted.
fn granted(scope: &str, is_robot: bool) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let may = |action: &&str| is_robot || *action == "pull" && name.starts_with("public/");
    let actions: Vec<&str> = actions.split(',').filter(may).collect();
    (!actions.is_empty()).then(|| json!({ "type": kind, "name": name, "actions": actions }))
}

/// A signature of two numbers in DER as those two numbers, 32 bytes each.
fn plain(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut plain = Vec::with_capacity(64);
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        plain.extend(std::iter::repeat_n(0, 32 - number.len()));
        plain.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    plain
}
