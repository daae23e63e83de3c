//! The container clients, each in an environment of its own.
//!
//! They treat loopback as a registry that needs no TLS, so a test of TLS gives them
//! another name for it, in a mount namespace of their own. Engines run as processes
//! with all they store in a folder of the test's.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::clients::clients;
use super::program::{Ran, execute};
use super::{Authority, Blob, Image, Server};

/// Where container clients run.
pub(crate) struct Dock {
    home: TempDir,
    /// The registry as clients name it: host and port.
    registry: String,
    is_tls: bool,
}

impl Dock {
    /// A place from which a server is reached over plain HTTP.
    pub(crate) fn new(server: &Server) -> Self {
        Self::at(format!("127.0.0.1:{}", server.port()), None)
    }

    /// A place from which a server is reached over TLS, by a name that is not loopback's.
    pub(crate) fn with_tls(server: &Server, authority: &Authority) -> Self {
        Self::at(format!("registry.test:{}", server.tls_port()), Some(authority))
    }

    fn at(registry: String, authority: Option<&Authority>) -> Self {
        let home = TempDir::with_prefix("packhouse-dock-").expect("a folder");
        let dock = Self { home, registry, is_tls: authority.is_some() };
        for folder in ["run", "tmp", ".docker", "certs"] {
            std::fs::create_dir(dock.path(folder)).expect("a folder");
        }
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            dock.path("storage").display().to_string(),
            dock.path("storage-run").display().to_string()
        );
        std::fs::write(dock.path("storage.conf"), storage).expect("a file");
        // Some of them ask for the file before anyone has signed in.
        std::fs::write(dock.path("auth.json"), "{}").expect("a file");
        std::fs::write(dock.path("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("a file");
        if let Some(authority) = authority {
            std::fs::write(dock.path("certs/ca.crt"), authority.pem()).expect("a file");
        }
        let machine = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        std::fs::write(dock.path("hosts"), format!("{machine}\n127.0.0.1 registry.test mirror.test\n")).expect("a file");
        dock
    }

    /// A path below its home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The same as text.
    pub(crate) fn at_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `HOST:PORT/NAME`.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    /// The registry as clients name it.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Whether it is reached over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Runs a client: its name and arguments.
    pub(crate) async fn run(&self, line: &[&str]) -> Ran {
        self.run_with(line, "").await
    }

    /// Runs a client that reads something.
    pub(crate) async fn run_with(&self, line: &[&str], input: &str) -> Ran {
        execute(self.command(line), &line.join(" "), input.as_bytes()).await
    }

    fn command(&self, line: &[&str]) -> Command {
        let (name, arguments) = line.split_first().expect("a client");
        let bin = clients().join("bin");
        let ours = bin.join(name);
        let program = if ours.exists() { ours } else { Path::new("/usr/bin").join(name) };
        assert!(program.exists(), "{name} is not installed; tests/run --install installs every client");
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(self.path("hosts")).arg(program).args(arguments);
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.current_dir(self.home.path()).env_clear().env("PATH", format!("{}:{system}", bin.display()));
        for (name, path) in [
            ("HOME", ""),
            ("TMPDIR", "tmp"),
            ("XDG_RUNTIME_DIR", "run"),
            ("REGISTRY_AUTH_FILE", "auth.json"),
            ("DOCKER_CONFIG", ".docker"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("HELM_CACHE_HOME", "helm-cache"),
            ("HELM_CONFIG_HOME", "helm-config"),
            ("HELM_DATA_HOME", "helm-data"),
        ] {
            command.env(name, self.path(path));
        }
        if self.is_tls {
            command.env("SSL_CERT_FILE", self.path("certs/ca.crt"));
        }
        command.envs([("LANG", "C.UTF-8"), ("COSIGN_PASSWORD", "secret"), ("BUILDAH_ISOLATION", "chroot")]);
        command
    }

    /// Writes images as an OCI layout, the last one under the tag `v1`; gives its path.
    pub(crate) fn layout(&self, name: &str, images: &[&Image]) -> String {
        let folder = self.path(name);
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("a folder");
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        let mut last = json!(null);
        for image in images {
            for Blob { digest, bytes } in image.blobs.iter().chain([&image.manifest]) {
                std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("a file");
            }
            last = image.descriptor();
        }
        last["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
        let index = json!({ "schemaVersion": 2, "manifests": [last] });
        std::fs::write(folder.join("index.json"), index.to_string()).expect("a file");
        folder.display().to_string()
    }

    /// Starts Docker's engine.
    pub(crate) async fn docker(&self, arguments: &[&str]) -> Engine {
        let socket = self.at_path("docker.sock");
        let mut line: Vec<String> = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
            .iter()
            .map(|text| (*text).to_owned())
            .collect();
        line.extend(["--data-root".into(), self.at_path("docker"), "--exec-root".into(), self.at_path("docker-run")]);
        line.extend(["--pidfile".into(), self.at_path("docker.pid"), "--host".into(), format!("unix://{socket}")]);
        line.extend(arguments.iter().map(|text| (*text).to_owned()));
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.engine(&line, &socket, &["docker", "--host", &format!("unix://{socket}"), "version"]).await
    }

    /// Starts containerd.
    pub(crate) async fn containerd(&self) -> Engine {
        let (socket, root, state) = (self.at_path("containerd.sock"), self.at_path("containerd"), self.at_path("containerd-run"));
        let line = ["containerd", "--root", &root, "--state", &state, "--address", &socket, "--log-level", "warn"];
        self.engine(&line, &socket, &["ctr", "--address", &socket, "version"]).await
    }

    async fn engine(&self, line: &[&str], socket: &str, probe: &[&str]) -> Engine {
        let log = self.path(&format!("{}.log", line[0]));
        let out = std::fs::File::create(&log).expect("a log");
        let mut command = self.command(line);
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a log")).stderr(out).process_group(0).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", line[0]));
        let mut engine = Engine { child, socket: socket.to_owned(), log };
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.run(probe).await.code != 0 {
            let gone = engine.child.try_wait().ok().flatten();
            assert!(gone.is_none() && tokio::time::Instant::now() < end, "{} does not answer:\n{}", line[0], engine.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        engine
    }
}

/// A running engine.
pub(crate) struct Engine {
    child: Child,
    socket: String,
    log: PathBuf,
}

impl Engine {
    /// Where it listens.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        assert!(ended.is_ok(), "the engine does not stop:\n{}", self.log());
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()?).ok()?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The group holds what the engine started itself.
        if let Some(group) = self.pid() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
