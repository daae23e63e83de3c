//! The real program, started as its users start it: a process with a config file.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::disk::Disk;
use super::{Caller, Identity, Upstream, free_port};

/// Every ecosystem, so that none keeps the upstreams that it has by default.
const ECOSYSTEMS: [&str; 5] = ["npm", "maven", "rubygems", "container", "nuget"];

/// What a server is started with.
#[derive(Default)]
pub(crate) struct Setup {
    upstreams: Vec<(&'static str, String)>,
    server: String,
    engine: String,
    registry: String,
    files: Vec<(String, String)>,
    environment: Vec<(&'static str, String)>,
    tls_port: Option<u16>,
    blob: String,
    more: String,
    disk_megabytes: Option<u32>,
}

impl Setup {
    /// One upstream at this address. Without any the server only hosts.
    pub(crate) fn upstream(self, upstream: &Upstream) -> Self {
        self.upstream_with("fake", &upstream.url(), "")
    }

    /// An upstream with more keys of its table, as TOML lines.
    pub(crate) fn upstream_with(self, name: &str, url: &str, more: &str) -> Self {
        self.upstream_of("npm", name, url, more)
    }

    /// An upstream of any ecosystem, with more keys of its table, as TOML lines.
    pub(crate) fn upstream_of(mut self, ecosystem: &'static str, name: &str, url: &str, more: &str) -> Self {
        self.upstreams.push((ecosystem, format!("[[ecosystem.{ecosystem}.upstream]]\nname = {name:?}\nurl = {url:?}\n{more}\n")));
        self
    }

    /// An upstream that is sent a bearer token, which must be found nowhere afterwards.
    pub(crate) fn upstream_with_token(mut self, upstream: &Upstream, token: &str) -> Self {
        self.files.push(("upstream-token".into(), token.into()));
        self.upstream_with("fake", &upstream.url(), "token_file = \"upstream-token\"")
    }

    /// A file beside the configuration that only the server may read, and whose text must be found nowhere afterwards.
    pub(crate) fn secret_file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// More keys of `[server]`, as TOML lines.
    pub(crate) fn server(mut self, lines: &str) -> Self {
        self.server.push_str(lines);
        self.server.push('\n');
        self
    }

    /// More keys of `[upstream]`, as TOML lines.
    pub(crate) fn engine(mut self, lines: &str) -> Self {
        self.engine.push_str(lines);
        self.engine.push('\n');
        self
    }

    /// More keys of `[registry]`, as TOML lines.
    pub(crate) fn registry(mut self, lines: &str) -> Self {
        self.registry.push_str(lines);
        self.registry.push('\n');
        self
    }

    /// More keys of `[blob]`, as TOML lines.
    pub(crate) fn blob(mut self, lines: &str) -> Self {
        self.blob.push_str(lines);
        self.blob.push('\n');
        self
    }

    /// More tables of the configuration, as TOML.
    pub(crate) fn more(mut self, tables: &str) -> Self {
        self.more.push_str(tables);
        self.more.push('\n');
        self
    }

    /// Serves TLS besides, and builds addresses from what the client used.
    pub(crate) fn tls(mut self, identity: &Identity) -> Self {
        self.files.push(("cert.pem".into(), identity.certificate.clone()));
        self.files.push(("key.pem".into(), identity.key.clone()));
        self.tls_port = Some(free_port());
        self
    }

    /// Keeps the data on a file system of its own with this much room.
    pub(crate) fn disk(mut self, megabytes: u32) -> Self {
        self.disk_megabytes = Some(megabytes);
        self
    }

    /// A variable of the server's environment.
    pub(crate) fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Starts the server and waits until it says that it is ready.
    pub(crate) async fn start(self) -> Server {
        Server::start(self).await
    }

    fn config(&self, port: u16, folder: &Path) -> String {
        let tls = self
            .tls_port
            .map(|port| format!("[server.tls]\nlisten = [\"127.0.0.1:{port}\"]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n"));
        let public_url = if tls.is_some() { String::new() } else { format!("public_url = \"http://127.0.0.1:{port}\"\n") };
        let data = folder.join("data");
        let loopback = if self.engine.contains("allow_private") { "" } else { "allow_private = [\"127.0.0.1/32\"]\n" };
        let mut text = format!(
            "{public_url}data_dir = \"{}\"\n\n\
             [server]\nlisten = [\"127.0.0.1:{port}\"]\n{}\n{}\n[upstream]\n{loopback}{}\n[registry]\n{}\n[blob]\n{}\n{}\n",
            data.display(),
            self.server,
            tls.unwrap_or_default(),
            self.engine,
            self.registry,
            self.blob,
            self.more
        );
        // No test asks a public registry by accident.
        let given = |ecosystem: &&str| self.upstreams.iter().any(|(of, _)| of == ecosystem);
        for ecosystem in ECOSYSTEMS.iter().filter(|ecosystem| !given(ecosystem)) {
            text = text + "[ecosystem." + ecosystem + "]\nupstream = []\n";
        }
        text + &self.upstreams.iter().map(|(_, table)| table.as_str()).collect::<String>()
    }
}

/// A token as the command line hands it out.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Whose it is.
    pub(crate) login: String,
    /// What revokes it.
    pub(crate) id: String,
    /// The secret.
    pub(crate) text: String,
}

/// A running server with a data folder of its own.
///
/// Every test ends with [`Server::finish`], which stops the server as an operator
/// does and looks at what it leaves behind.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    secrets: Mutex<Vec<String>>,
    environment: Vec<(&'static str, String)>,
    tls_port: Option<u16>,
    disk: Option<Disk>,
    finished: bool,
}

impl Server {
    async fn start(setup: Setup) -> Self {
        let folder = TempDir::with_prefix("packhouse-it-").expect("a folder");
        let port = free_port();
        std::fs::write(folder.path().join("config.toml"), setup.config(port, folder.path())).expect("a config");
        for (name, text) in &setup.files {
            write_private(&folder.path().join(name), text);
        }
        // What a certificate's file holds is sent to everybody.
        let secrets = Mutex::new(setup.files.into_iter().filter(|(name, _)| name != "cert.pem").map(|(_, text)| text).collect());
        let disk = match setup.disk_megabytes {
            Some(megabytes) => Some(Disk::mount(&folder.path().join("data"), megabytes).await),
            None => None,
        };
        let (tls_port, environment) = (setup.tls_port, setup.environment);
        let mut server = Self { folder, port, child: None, log: Arc::default(), secrets, environment, tls_port, disk, finished: false };
        server.start_again().await;
        server
    }

    /// Starts the program on the same config and data, after [`Server::kill`] or [`Server::stop`].
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut child =
            self.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("the program starts");
        self.collect(child.stdout.take().expect("piped"));
        self.collect(child.stderr.take().expect("piped"));
        self.child = Some(child);
        self.ready().await;
    }

    /// The program, with its config, in its folder.
    fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_packhouse");
        let mut command = match &self.disk {
            None => Command::new(program),
            Some(disk) => disk.command(program, self.folder.path()),
        };
        command.args(arguments).arg("--config").arg(self.config_path()).current_dir(self.folder.path());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn collect(&self, stream: impl AsyncRead + Send + Unpin + 'static) {
        let log = Arc::clone(&self.log);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
    }

    async fn ready(&mut self) {
        let caller = self.caller();
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = caller.get("/-/ready").try_send().await
                && answer.status == 200
            {
                return;
            }
            let gone = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(gone.is_none(), "the server ended with {gone:?}:\n{}", self.log());
            assert!(tokio::time::Instant::now() < end, "the server is not ready after 20 s:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where the server is reached, without a trailing slash.
    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a client is configured with, with its trailing slash.
    pub(crate) fn registry(&self) -> String {
        format!("{}/npm/", self.origin())
    }

    /// The folder it keeps everything under.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        self.disk.as_ref().map_or(data.clone(), |disk| disk.seen_from_here(&data))
    }

    /// The folder with its config and certificates.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it is reached with TLS, without a trailing slash.
    pub(crate) fn tls_origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.tls_port())
    }

    /// The port that speaks TLS.
    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port.expect("started with tls")
    }

    /// Its config file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Someone without a token.
    pub(crate) fn caller(&self) -> Caller {
        Caller::new(&self.origin(), None)
    }

    /// Someone with this token.
    pub(crate) fn caller_with(&self, token: &Token) -> Caller {
        Caller::new(&self.origin(), Some(&token.text))
    }

    /// Everything it has printed so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("it runs")
    }

    /// Runs a subcommand; gives what it printed, and panics when it fails.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> String {
        let (status, out, err) = self.try_cli(arguments).await;
        assert!(status.success(), "packhouse {} failed: {out}{err}\n{}", arguments.join(" "), self.log());
        out
    }

    /// Runs a subcommand; gives its exit status and what it printed to standard output and standard error.
    pub(crate) async fn try_cli(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let run = self.command(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(20), run).await.expect("a subcommand ends").expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stdout), text(&output.stderr))
    }

    /// The token of the first start's administrator.
    pub(crate) fn admin(&self) -> Token {
        let text = std::fs::read_to_string(self.data().join("admin-token")).expect("an admin-token").trim().to_owned();
        Token { login: "admin".into(), id: String::new(), text }
    }

    /// Makes a user.
    pub(crate) async fn user(&self, login: &str) {
        self.cli(&["user", "add", login]).await;
    }

    /// Makes a token with these scopes for a user.
    pub(crate) async fn token(&self, login: &str, scopes: &[&str]) -> Token {
        let printed = self.cli(&["token", "add", login, "--json", "--scopes", &scopes.join(",")]).await;
        let value: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("no JSON ({error}): {printed}"));
        let text = value["token"].as_str().expect("a token").to_owned();
        self.secret(&text);
        Token { login: login.into(), id: value["id"].to_string(), text }
    }

    /// Makes a user who may read, publish and delete, and a token for all of it.
    pub(crate) async fn publisher(&self, login: &str) -> Token {
        self.user(login).await;
        self.token(login, &["read:packages", "write:packages", "delete:packages"]).await
    }

    /// Names a text that must not be found in logs, metrics or files afterwards.
    pub(crate) fn secret(&self, text: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }

    /// Revokes a token.
    pub(crate) async fn revoke(&self, token: &Token) {
        self.cli(&["token", "revoke", &token.login, &token.id]).await;
    }

    /// Kills the server at once, as a crash does.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("it can be killed");
    }

    /// Asks the server to stop and waits for its end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
        assert!(ended.is_ok(), "the server did not stop within 30 s of SIGTERM:\n{}", self.log());
        ended.expect("in time").expect("a status")
    }

    /// Asks the server to read its config again.
    pub(crate) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the signal is sent");
    }

    /// Stops the server and looks at what it leaves: a clean exit, no panic, no temporary file, and no secret in anything
    /// it printed, counted or stored.
    pub(crate) async fn finish(mut self) {
        self.finished = true;
        let metrics = self.caller().get("/-/metrics").send().await.text();
        let status = self.stop().await;
        let log = self.log();
        assert!(status.success(), "it ended with {status}:\n{log}");
        assert!(!log.contains("panicked"), "a panic:\n{log}");
        let left = files_below(&self.data().join("tmp"));
        assert!(left.is_empty(), "left in tmp: {left:?}\n{log}");
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        secrets.extend(std::fs::read_to_string(self.data().join("admin-token")).map(|text| text.trim().to_owned()));
        let places = files_below(&self.data()).into_iter().filter(|path| !path.ends_with("admin-token"));
        let contents = places.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        // The token of the first start is printed once, with the lines that greet the operator.
        let first_token = secrets.last().cloned().unwrap_or_default();
        let log = log.replacen(&first_token, "", 1);
        let told = [("the log".to_owned(), log.into_bytes()), ("the metrics".to_owned(), metrics.into_bytes())];
        for (place, bytes) in told.into_iter().chain(contents) {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "a secret is in {place}");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        } else {
            assert!(self.finished, "a test ends with server.finish()");
        }
    }
}

/// Writes a file that only its owner may read, as the server wants of secrets.
fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
