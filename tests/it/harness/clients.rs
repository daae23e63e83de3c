//! The real package clients, each in an environment of its own.
//!
//! A client reads settings from many places: its user's and the machine's config
//! files, dozens of environment variables, a cache. A test that lets any of them
//! through tests the machine. So the environment starts empty, and home, config and
//! cache are fresh for every [`Client`].

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::program::{Ran, run};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// npm.
    Npm,
    /// yarn 1.
    Yarn1,
    /// yarn 2 and later.
    Berry,
    /// pnpm.
    Pnpm,
    /// bun.
    Bun,
}

impl Tool {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Npm, Self::Yarn1, Self::Berry, Self::Pnpm, Self::Bun];

    fn command(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Yarn1 => "yarn1",
            Self::Berry => "berry",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        }
    }

    /// The lock file it writes.
    pub(crate) fn lock_file(self) -> &'static str {
        match self {
            Self::Npm => "package-lock.json",
            Self::Yarn1 | Self::Berry => "yarn.lock",
            Self::Pnpm => "pnpm-lock.yaml",
            Self::Bun => "bun.lock",
        }
    }

    /// The arguments that install what the lock file says and nothing else.
    pub(crate) fn frozen(self) -> &'static [&'static str] {
        match self {
            Self::Npm => &["ci"],
            Self::Yarn1 => &["install", "--frozen-lockfile", "--non-interactive"],
            Self::Berry => &["install", "--immutable"],
            Self::Pnpm | Self::Bun => &["install", "--frozen-lockfile"],
        }
    }

    /// The arguments that install what `package.json` says and write the lock file.
    pub(crate) fn install(self) -> &'static [&'static str] {
        match self {
            Self::Npm | Self::Berry | Self::Bun => &["install"],
            Self::Yarn1 => &["install", "--non-interactive"],
            Self::Pnpm => &["install", "--no-frozen-lockfile"],
        }
    }
}

/// A client with a home, settings and a cache of its own.
pub(crate) struct Client {
    tool: Tool,
    home: TempDir,
    token: Option<String>,
}

impl Client {
    /// A client pointed at `registry`, which ends in a slash, with or without a token.
    pub(crate) fn new(tool: Tool, registry: &str, token: Option<&str>) -> Self {
        let home = TempDir::with_prefix("packhouse-home-").expect("a folder");
        let client = Self { tool, home, token: token.map(str::to_owned) };
        client.configure(registry);
        client
    }

    /// A client without any settings, to ask for its defaults.
    pub(crate) fn unset(tool: Tool) -> Self {
        Self { tool, home: TempDir::with_prefix("packhouse-home-").expect("a folder"), token: None }
    }

    /// Writes the settings for a registry, over any earlier ones.
    fn configure(&self, registry: &str) {
        let token = self.token.as_deref();
        let (file, text) = match self.tool {
            Tool::Berry => (".yarnrc.yml", berry_settings(registry, token)),
            tool => (".npmrc", npm_settings(tool, registry, token)),
        };
        std::fs::write(self.home.path().join(file), text).expect("settings");
    }

    /// Adds a line to its settings.
    pub(crate) fn with_setting(self, line: &str) -> Self {
        let file = if self.tool == Tool::Berry { ".yarnrc.yml" } else { ".npmrc" };
        let path = self.home.path().join(file);
        let text = std::fs::read_to_string(&path).expect("settings") + line + "\n";
        std::fs::write(path, text).expect("settings");
        self
    }

    /// Runs the client in a folder.
    pub(crate) async fn run(&self, folder: &Path, arguments: &[&str]) -> Ran {
        self.run_with(folder, arguments, &[]).await
    }

    /// Runs the client in a folder with more environment.
    pub(crate) async fn run_with(&self, folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let bin = clients().join("bin");
        let mut all = self.environment(&bin);
        all.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        run(&bin.join(self.tool.command()), arguments, folder, &all).await
    }

    fn environment(&self, bin: &Path) -> Vec<(&'static str, String)> {
        let home = self.home.path();
        let at = |name: &str| home.join(name).display().to_string();
        let mut environment = vec![
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())),
            ("HOME", home.display().to_string()),
            ("TMPDIR", home.display().to_string()),
            ("LANG", "C.UTF-8".into()),
            ("NPM_CONFIG_USERCONFIG", at(".npmrc")),
            ("NPM_CONFIG_GLOBALCONFIG", at("global-npmrc")),
            ("NPM_CONFIG_CACHE", at("npm-cache")),
            ("NPM_CONFIG_UPDATE_NOTIFIER", "false".into()),
            ("YARN_CACHE_FOLDER", at("yarn-cache")),
            ("XDG_CACHE_HOME", at("cache")),
            ("XDG_CONFIG_HOME", at("config")),
            ("XDG_DATA_HOME", at("share")),
            ("XDG_STATE_HOME", at("state")),
        ];
        match self.tool {
            Tool::Berry => environment.push(("YARN_RC_FILENAME", ".yarnrc.yml".into())),
            Tool::Bun => {
                environment.push(("BUN_INSTALL_CACHE_DIR", at("bun-cache")));
                environment.extend(self.token.clone().map(|token| ("NPM_CONFIG_TOKEN", token)));
            }
            _ => {}
        }
        environment
    }
}

/// Where `tests/run` installs the clients.
pub(crate) fn clients() -> PathBuf {
    std::env::var_os("PACKHOUSE_CLIENTS_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.clients"), PathBuf::from)
}

/// `.npmrc`, which npm, yarn 1, pnpm and bun read.
fn npm_settings(tool: Tool, registry: &str, token: Option<&str>) -> String {
    let place = registry.split_once(':').map_or(registry, |(_, rest)| rest);
    let mut text = format!("registry={registry}\n");
    if let Some(token) = token {
        writeln!(text, "{place}:_authToken={token}").expect("a string");
    }
    match tool {
        Tool::Npm => text.push_str("fund=false\n"),
        // What was published a second ago is what these tests install.
        Tool::Pnpm => text.push_str("minimum-release-age=0\n"),
        _ => {}
    }
    text
}

fn berry_settings(registry: &str, token: Option<&str>) -> String {
    let mut text = format!(
        "npmRegistryServer: {registry:?}\nunsafeHttpWhitelist: [\"127.0.0.1\"]\nenableTelemetry: false\nenableGlobalCache: false\nnodeLinker: node-modules\nnpmMinimalAgeGate: 0\n"
    );
    if let Some(token) = token {
        writeln!(text, "npmAuthToken: {token:?}\nnpmAlwaysAuth: true").expect("a string");
    }
    text
}

/// A folder with a `package.json`.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// An application that depends on these packages, as `name@range`.
    pub(crate) fn depending_on(tool: Tool, dependencies: &[&str]) -> Self {
        let mut wanted = json!({});
        for dependency in dependencies {
            let (name, range) = dependency.rsplit_once('@').filter(|(name, _)| !name.is_empty()).unwrap_or((dependency, "*"));
            wanted[name] = json!(range);
        }
        Self::of(tool, &json!({ "name": "app", "version": "1.0.0", "private": true, "dependencies": wanted }))
    }

    /// A folder with this `package.json`.
    pub(crate) fn of(tool: Tool, manifest: &Value) -> Self {
        let folder = TempDir::with_prefix("packhouse-app-").expect("a folder");
        std::fs::write(folder.path().join("package.json"), serde_json::to_vec_pretty(manifest).expect("JSON")).expect("a manifest");
        std::fs::write(folder.path().join("index.js"), "module.exports = 'ours';\n").expect("a module");
        if tool == Tool::Berry {
            // Berry looks for the project's root by its lock file.
            std::fs::write(folder.path().join("yarn.lock"), "").expect("a lock file");
        }
        Self { folder }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The text of a file.
    #[track_caller]
    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// The version of a dependency as it stands in `node_modules`.
    #[track_caller]
    pub(crate) fn installed(&self, name: &str) -> String {
        let manifest: Value = serde_json::from_str(&self.read(&format!("node_modules/{name}/package.json"))).expect("JSON");
        manifest["version"].as_str().expect("a version").to_owned()
    }

    /// Removes everything but `package.json` and the lock file.
    pub(crate) fn forget_install(&self) {
        for name in ["node_modules", ".yarn", ".pnp.cjs"] {
            let path = self.path().join(name);
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}
