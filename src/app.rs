//! Builds the parts from the configuration and runs them: the only wiring.
//!
//! The order of a start: take the lock, open the stores, open the blobs, listen. The
//! order of a stop: close the doors, let requests finish, stop the jobs, flush,
//! close the stores. A reload builds a new engine on the same stores and blobs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::socket::Socket;
use crate::api::webhooks::{Moment, Teller};
use crate::api::{self, Api};
use crate::blob::Blobs;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::ecosystem;
use crate::error::{Error, Result, Subject};
use crate::event;
use crate::format::BaseUrl;
use crate::http::HeaderValue;
use crate::identity::{Identity, TokenText};
use crate::jobs::{Jobs, Upkeep};
use crate::observe::log;
use crate::registry::{self, Registry};
use crate::server::tls::Certificates;
use crate::server::{Server, State};
use crate::store::Store;
use crate::store::redb::{Durability, Redb};
use crate::upstream::config::{Credentials, ProxyEnvironment};
use crate::upstream::{Fetcher, Upstream, UpstreamConfig};
use crate::usage::Downloads;
use crate::webhook::Hooks;

/// What a data folder holds, opened: everything but the network.
pub struct Data {
    /// Truth.
    pub truth: Arc<Redb>,
    /// Cache.
    pub cache: Arc<Redb>,
    /// Stored bytes.
    pub blobs: Blobs,
    /// Accounts and tokens.
    pub identity: Arc<Identity>,
    /// Hosted packages.
    pub catalog: Catalog,
    /// Who is told of events.
    pub hooks: Hooks,
    restorable: Duration,
    unfinished: Duration,
    audit: event::Config,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl Data {
    /// Opens the data folder, making it if it is absent.
    ///
    /// # Errors
    /// When another process uses it, or a part of it cannot be opened.
    pub async fn open(config: &Config, clock: &Clock) -> Result<Self> {
        let folder = &config.data_dir;
        let lock = lock(folder)?;
        let (truth_file, cache_file, settings) = (folder.join("state.redb"), folder.join("cache.redb"), config.store.clone());
        // Opening after a crash repairs, which takes time.
        let open = tokio::task::spawn_blocking(move || {
            Ok::<_, Error>((Redb::open(&truth_file, &settings, Durability::Truth)?, Redb::open(&cache_file, &settings, Durability::Cache)?))
        });
        let (truth, cache) = open.await.map_err(|error| Error::internal(Subject::Store, error))??;
        let (truth, cache) = (Arc::new(truth), Arc::new(cache));
        let index: Arc<dyn Store> = Arc::<Redb>::clone(&cache);
        let state: Arc<dyn Store> = Arc::<Redb>::clone(&truth);
        let blobs = Blobs::open(folder, index, clock.clone(), config.blob.clone()).await?;
        let identity = Arc::new(Identity::with_config(Arc::clone(&state), clock.clone(), config.identity.clone()));
        let downloads = Arc::new(Downloads::new(Arc::clone(&state), clock.clone(), config.usage.clone()));
        let hooks = Hooks::new(Arc::clone(&state), clock.clone(), config.webhook.clone());
        let catalog = Catalog::new(state, Arc::clone(&identity), downloads, clock.clone());
        let restorable = Duration::from_secs(config.registry.restore_days.saturating_mul(86_400));
        let unfinished = Duration::from_secs(config.registry.unfinished_hours.saturating_mul(3600));
        let audit = config.audit.clone();
        Ok(Self { truth, cache, blobs, identity, catalog, hooks, restorable, unfinished, audit, _lock: lock })
    }

    /// What jobs work on.
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        Jobs {
            blobs: self.blobs.clone(),
            catalog: self.catalog.clone(),
            identity: Arc::clone(&self.identity),
            hooks: self.hooks.clone(),
            restorable: self.restorable,
            unfinished: self.unfinished,
            audit: self.audit.clone(),
        }
    }

    /// Writes what is in memory and closes the stores.
    pub fn close(&self) {
        self.blobs.end_sessions();
        self.blobs.close_journal();
        self.truth.close();
        self.cache.close();
    }

    fn engine(&self, config: &Config, clock: &Clock) -> Result<Registry> {
        let environment = proxy_environment();
        let mut upstreams = HashMap::new();
        for (name, settings) in &config.ecosystem {
            let list: Result<Vec<_>> = settings.upstreams().iter().map(|own| upstream(own, config, &environment, clock)).collect();
            upstreams.insert(name.clone(), list?);
        }
        let store: Arc<dyn Store> = Arc::<Redb>::clone(&self.cache);
        let fetcher = Fetcher::new(config.upstream.clone(), store, self.blobs.clone(), clock.clone());
        Ok(Registry::new(registry::Parts {
            config: config.registry.clone(),
            access: config.access.clone(),
            catalog: self.catalog.clone(),
            identity: Arc::clone(&self.identity),
            blobs: self.blobs.clone(),
            fetcher,
            upstreams,
            hooks: self.hooks.clone(),
            clock: clock.clone(),
        }))
    }

    /// The administration API over the engine that `state` holds at each moment.
    fn api(&self, state: &Arc<ArcSwap<State>>) -> Api {
        let state = Arc::clone(state);
        let (checks, cleans) = (self.jobs(), self.jobs());
        let fsck = move || {
            let jobs = checks.clone();
            async move { jobs.upkeep(Upkeep::Fsck).await }.boxed()
        };
        let gc = move || {
            let jobs = cleans.clone();
            async move { jobs.upkeep(Upkeep::Gc).await }.boxed()
        };
        Api {
            identity: Arc::clone(&self.identity),
            ecosystems: ecosystem::ALL.to_vec(),
            registry: Box::new(move || Arc::clone(&state.load().registry)),
            upkeep: api::Upkeep::new(Box::new(fsck), Box::new(gc)),
        }
    }

    /// What tells webhooks of events, with the engine that `state` holds at each moment.
    fn teller(&self, state: &Arc<ArcSwap<State>>) -> Result<Teller> {
        let state = Arc::clone(state);
        let moment = move || {
            let state = state.load();
            Moment { registry: Arc::clone(&state.registry), public_url: state.public_url.clone() }
        };
        Teller::new(self.hooks.clone(), Box::new(moment))
    }

    fn state(&self, config: &Config, clock: &Clock) -> Result<State> {
        let enabled = ecosystem::ALL.iter().map(|ecosystem| ecosystem.info().name);
        let enabled = enabled.filter(|name| config.ecosystem.get(*name).is_some_and(|settings| settings.enabled));
        Ok(State {
            config: config.server.clone(),
            public_url: config.public_url.as_deref().map(|url| url.trim_end_matches('/').to_owned()),
            registry: Arc::new(self.engine(config, clock)?),
            enabled: enabled.map(str::to_owned).collect(),
            truth: Arc::clone(&self.truth),
        })
    }
}

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn serve(config: Config) -> Result<()> {
    let _log = log::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal(Subject::Config, error))?;
    runtime.block_on(run(config))
}

/// Checks or cleans the data folder while no server runs.
///
/// # Errors
/// When the folder is in use or damaged beyond opening.
pub fn upkeep(config: &Config, work: Upkeep) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal(Subject::Config, error))?;
    runtime.block_on(async {
        let data = Data::open(config, &Clock::system()).await?;
        let report = data.jobs().upkeep(work).await;
        data.close();
        report
    })
}

async fn run(config: Config) -> Result<()> {
    let clock = Clock::system();
    let data = Data::open(&config, &clock).await?;
    let first_token = data.identity.first_start().await?;
    let certificates = if config.server.tls.listen.is_empty() { None } else { Some(Certificates::load(&config.server.tls)?) };
    let state = Arc::new(ArcSwap::from_pointee(data.state(&config, &clock)?));
    // Before the ports: whoever finds one open may count on the commands too.
    let socket = Socket::bind(&config.admin_socket()).await?;
    let server = Server::bind(Arc::clone(&state), certificates.as_ref()).await?;
    let (stop, stopped) = watch::channel(false);

    let admin = Arc::new(data.api(&state));
    let mut tasks = JoinSet::new();
    tasks.spawn(socket.serve(admin, stopped.clone()));
    tasks.spawn(data.jobs().run(stopped.clone()));
    tasks.spawn(data.teller(&state)?.run(stopped.clone()));
    greet(&config, &server.addresses(), first_token.as_ref())?;
    tasks.spawn(server.run(stopped));

    watch_signals(&data, config, &clock, &state, certificates.as_ref()).await?;
    tracing::info!("stopping");
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task failed");
        }
    }
    state.load().registry.fetcher().settle().await;
    data.jobs().finish().await;
    data.close();
    tracing::info!("stopped");
    Ok(())
}

/// Reloads on SIGHUP, returns on SIGTERM or SIGINT.
async fn watch_signals(
    data: &Data,
    mut config: Config,
    clock: &Clock,
    state: &ArcSwap<State>,
    certificates: Option<&Arc<Certificates>>,
) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|error| Error::internal(Subject::Config, error));
    let (mut terminate, mut interrupt, mut hangup) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match reload(data, &config, clock, certificates) {
                Ok((new, new_state)) => {
                    state.store(Arc::new(new_state));
                    config = new;
                    tracing::info!("configuration reloaded");
                }
                Err(error) => tracing::error!(error = ?error, "the configuration was not reloaded; the old one stays"),
            }
        }
    }
}

fn reload(data: &Data, old: &Config, clock: &Clock, certificates: Option<&Arc<Certificates>>) -> Result<(Config, State)> {
    let new = Config::load(old.file.as_deref())?;
    let state = data.state(&new, clock)?;
    if let Some(certificates) = certificates {
        certificates.reload(&new.server.tls)?;
    }
    if fixed(&new) != fixed(old) {
        tracing::warn!(
            "data_dir, listening addresses, [blob], [store], [identity], [usage], [audit], [webhook] and [log] change only with a restart"
        );
    }
    Ok((new, state))
}

/// What is read at the start alone.
fn fixed(config: &Config) -> impl PartialEq {
    let Config { data_dir, server, blob, store, log, identity, usage, audit, webhook, .. } = config;
    (data_dir, &server.listen, &server.tls.listen, blob, store, log, identity, usage, audit, webhook)
}

fn upstream(own: &UpstreamConfig, config: &Config, environment: &ProxyEnvironment, clock: &Clock) -> Result<Arc<Upstream>> {
    let credentials = Credentials(credentials(own)?);
    Ok(Arc::new(Upstream::new(own, &config.upstream, credentials, environment, clock.clone())?))
}

fn credentials(own: &UpstreamConfig) -> Result<Option<HeaderValue>> {
    use base64::Engine as _;
    let text = if let Some(file) = &own.token_file {
        format!("Bearer {}", config::read_secret(file)?)
    } else if let (Some(user), Some(file)) = (&own.username, &own.password_file) {
        let pair = format!("{user}:{}", config::read_secret(file)?);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    } else {
        return Ok(None);
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Error::invalid(Subject::Config, format!("upstream {}: the credentials hold characters no header can", own.name)))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn proxy_environment() -> ProxyEnvironment {
    #[expect(clippy::disallowed_methods, reason = "forward proxies are set in the environment by long custom")]
    let read = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty());
    ProxyEnvironment {
        http: read(["http_proxy", "HTTP_PROXY"]),
        https: read(["https_proxy", "HTTPS_PROXY"]),
        except: read(["no_proxy", "NO_PROXY"]),
    }
}

/// Makes the data folder, readable by this user alone, and takes its lock.
fn lock(folder: &Path) -> Result<File> {
    let wrong = |what: String| Error::invalid(Subject::Config, format!("data_dir {}: {what}", folder.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| wrong(error.to_string()))?;
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(folder.join("LOCK"));
    let file = file.map_err(|error| wrong(error.to_string()))?;
    file.try_lock().map_err(|_| wrong("another process is using it".to_owned()))?;
    Ok(file)
}

/// Says where the server listens and, at the first start, how to begin.
fn greet(config: &Config, addresses: &[String], first_token: Option<&TokenText>) -> Result<()> {
    let mut text = String::new();
    if let Some(token) = first_token {
        let file = config.data_dir.join("admin-token");
        keep_token(&file, token)?;
        let _ = writeln!(text, "first start: user admin, token {} (kept in {})", token.expose(), file.display());
        let origin = config.public_url.as_deref().or(addresses.first().map(String::as_str)).unwrap_or_default();
        for ecosystem in ecosystem::ALL {
            let base = BaseUrl::new(&format!("{}/{}", origin.trim_end_matches('/'), ecosystem.info().mount));
            text.extend(ecosystem.clients(&base).iter().map(|snippet| {
                let first = snippet.lines.lines().next().unwrap_or_default();
                format!("  {:<13} {first}   # {}\n", snippet.client, snippet.place)
            }));
        }
    }
    text.extend(addresses.iter().map(|address| format!("listening on {address}\n")));
    let mut out = std::io::stdout().lock();
    // Nobody may be reading standard output; the server serves all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

fn keep_token(file: &Path, token: &TokenText) -> Result<()> {
    let written = File::options().create(true).truncate(true).write(true).mode(0o600).open(file).and_then(|mut out| {
        out.write_all(token.expose().as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()
    });
    written.map_err(|error| Error::invalid(Subject::Config, format!("cannot write {}: {error}", file.display())))
}
