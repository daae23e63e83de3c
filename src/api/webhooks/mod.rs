//! Telling of events: from the outbox to the webhooks that may hear of them, and from
//! their queues to their receivers.
//!
//! Two loops, each woken when there is something to do and otherwise asleep. The
//! first takes events out of the outbox and queues, in one batch, a delivery for each
//! webhook that is to be told. The second sends what waits, in lanes. Right
//! before it sends it asks once more whether the webhook may still hear of it.
//!
//! A stop lets what is under way end; a kill loses nothing, see [`crate::webhook`].

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rest::links::Links;
use super::rest::packages::shown_name;
use super::rest::view::Shown;
use crate::access::Grant;
use crate::ecosystem;
use crate::error::Result;
use crate::event::Event;
use crate::observe::METRICS;
use crate::package::{AccountId, HookId};
use crate::registry::Registry;
use crate::webhook::{Draft, Due, Hook, Hooks, PackageAction, Sender, Target, Try};

mod audience;
mod lanes;
mod payload;
#[cfg(test)]
mod tests;

use audience::{Listener, known};
use lanes::{Lanes, Next};
use payload::Story;

/// Events that are taken out of the outbox at once.
const CHUNK: usize = 100;

/// How long to leave a store alone that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// How long to let events gather after a look at which nobody was to be told anything: each look reads the whole outbox.
const GATHER: Duration = Duration::from_millis(20);

/// How long an event that cannot be told is tried before it is left out.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stands for a target that is not known.
const NOBODY: Target = Target::Organisation(AccountId(0));

/// After one in so many deliveries a webhook's log is trimmed; by chance, as ids follow patterns.
const TRIM_EVERY: u32 = 16;

/// What events are told with; a reload of the configuration makes a new one.
pub struct Moment {
    /// The engine.
    pub registry: Arc<Registry>,
    /// The address that clients use, if the operator says so; without a trailing slash.
    pub public_url: Option<String>,
}

/// Tells webhooks of events.
pub struct Teller {
    hooks: Hooks,
    sender: Sender,
    moment: Box<dyn Fn() -> Moment + Send + Sync>,
}

impl Teller {
    /// A teller for these webhooks.
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub fn new(hooks: Hooks, moment: Box<dyn Fn() -> Moment + Send + Sync>) -> Result<Self> {
        let sender = Sender::new(&hooks)?;
        Ok(Self { hooks, sender, moment })
    }

    /// Tells until `stop` turns true, and ends what is under way then.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let teller = Arc::new(self);
        tokio::join!(teller.tell_all(stop.clone()), Arc::clone(&teller).send_all(stop));
    }

    async fn tell_all(&self, mut stop: watch::Receiver<bool>) {
        let mut aside = Aside::default();
        loop {
            let turn = async {
                match self.tell(&mut aside).await {
                    Ok(true) => {}
                    Ok(false) => {
                        self.hooks.announced().await;
                        tokio::time::sleep_until(aside.look_again).await;
                    }
                    Err(error) => {
                        tracing::error!(error = ?error, "events cannot be told");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            tokio::select! {
                () = turn => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Takes events out of the outbox and queues what is to be sent; says whether there may be more.
    async fn tell(&self, aside: &mut Aside) -> Result<bool> {
        let limit = CHUNK + aside.quiet.len() + aside.failing.len();
        let ids = self.hooks.untold(limit).await?;
        let moment = (self.moment)();
        let fresh: Vec<u64> = ids.iter().copied().filter(|id| !aside.quiet.contains(id)).collect();
        for id in fresh {
            let drafts = match self.about(&moment, id).await {
                Ok(drafts) => drafts,
                // What follows is not kept waiting for it.
                Err(error) if aside.failed(id) => {
                    tracing::warn!(event = id, error = ?error, "an event cannot be told now");
                    continue;
                }
                Err(error) => {
                    tracing::error!(event = id, error = ?error, "an event cannot be told and is left out");
                    Vec::new()
                }
            };
            aside.add(id);
            if drafts.is_empty() {
                aside.look_again = Instant::now() + GATHER;
            } else {
                self.hooks.tell(&aside.take(), drafts).await?;
            }
        }
        if aside.is_due() {
            self.hooks.tell(&aside.take(), Vec::new()).await?;
        }
        Ok(ids.len() == limit)
    }

    async fn about(&self, moment: &Moment, id: u64) -> Result<Vec<Draft>> {
        match self.hooks.event(id).await? {
            Some(event) => self.drafts(moment, &event).await,
            None => Ok(Vec::new()),
        }
    }

    /// What is to be sent about an event.
    async fn drafts(&self, moment: &Moment, event: &Event) -> Result<Vec<Draft>> {
        let Some(action) = PackageAction::of(event.deed) else { return Ok(Vec::new()) };
        let mut hooks = match event.repository {
            Some(repository) => self.hooks.of(Target::Repository(repository)).await?,
            None => Vec::new(),
        };
        hooks.extend(self.hooks.of(Target::Organisation(event.owner)).await?);
        let part = event.version.as_ref().is_some_and(|about| about.part);
        hooks.retain(|hook| {
            let settings = &hook.settings;
            let named = payload::EVENTS.iter().any(|name| hook.wants(name));
            // What happened before there was the webhook may be looked at after it.
            let since = hook.created_at <= event.at;
            named && since && settings.actions.contains(&action) && !(part && settings.whole_publishes)
        });
        if hooks.is_empty() { Ok(Vec::new()) } else { self.write(moment, event, action, &hooks).await }
    }

    /// The payloads of an event for those of these webhooks that may hear of it.
    async fn write(&self, moment: &Moment, event: &Event, action: PackageAction, hooks: &[Hook]) -> Result<Vec<Draft>> {
        let registry = &*moment.registry;
        let identity = registry.identity();
        let (Some(head), Some(ecosystem)) = (audience::head(registry, event.package).await?, ecosystem::find(&event.ecosystem)) else {
            return Ok(Vec::new());
        };
        let package = &head.package;
        let Some(owner) = known(identity.account(package.owner).await)? else { return Ok(Vec::new()) };
        let version = match &event.version {
            None => None,
            Some(about) => {
                let grant = Grant::system((ecosystem.info().name, &package.name, Some(package.id)));
                registry.catalog().version_by_id(&grant, &head, about.id).await?.map(|stored| stored.value)
            }
        };
        let author = match &version {
            Some(version) => known(identity.account(version.published_by).await)?,
            None => None,
        };
        let sender = match event.actor.user {
            Some(user) => known(identity.account(user).await)?,
            None => None,
        };
        let linked = match event.repository {
            // A link to another owner's repository is none.
            Some(id) => audience::repository(registry, id).await?.filter(|(repository, _)| repository.owner == owner.id),
            None => None,
        };
        let name = shown_name(registry, &owner, ecosystem, package).await?;
        let shown = Shown { package, ecosystem, name: &name, owner: &owner, repository: None, downloads: 0 };
        let story = Story { shown, action, version: version.as_ref(), author: author.as_ref(), sender: sender.as_ref() };
        let mut drafts = Vec::new();
        for hook in hooks {
            let Some(listener) = Listener::of(registry, hook).await? else { continue };
            if !listener.may_read(&head) {
                continue;
            }
            let seen = linked.as_ref().filter(|(repository, owner)| listener.may_see(repository, owner)).map(|(repository, _)| repository);
            let links = Links::new(moment.public_url.as_deref().unwrap_or(&hook.origin));
            for name in payload::EVENTS.into_iter().filter(|name| hook.wants(name)) {
                let Some(payload) = story.payload(&links, name, seen, self.hooks.config().payload_limit_bytes) else {
                    METRICS.told(name, "not sent");
                    tracing::warn!(target: "packhouse::webhook", hook = hook.id.0, event = event.id, "a payload is too large and is not sent");
                    continue;
                };
                drafts.push(Draft {
                    hook: hook.id,
                    event: name,
                    action: Some(action),
                    package: Some(package.id),
                    repository: seen.map(|repository| repository.id),
                    payload,
                });
            }
        }
        Ok(drafts)
    }

    async fn send_all(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let config = self.hooks.config();
        let mut lanes = Lanes::new(config.at_once, config.at_once_per_target);
        let mut sending: JoinSet<(HookId, Next)> = JoinSet::new();
        // What waits from before the start.
        while let Err(error) = self.hooks.ring_waiting().await {
            tracing::error!(error = ?error, "what waits to be sent cannot be read");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        loop {
            for (hook, by_hand) in self.hooks.take_rung() {
                lanes.came(hook, self.target(hook).await, by_hand);
            }
            while let Some(hook) = lanes.next(Instant::now()) {
                let teller = Arc::clone(&self);
                sending.spawn(async move { (hook, teller.send(hook).await) });
            }
            let wake = lanes.wakes_at();
            let pause = async {
                match wake {
                    Some(instant) => tokio::time::sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.hooks.rung() => {}
                () = pause => {}
                Some(Ok((hook, next))) = sending.join_next() => lanes.done(hook, next, Instant::now()),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        while sending.join_next().await.is_some() {}
    }

    /// What a webhook listens to, for its share of what is under way.
    async fn target(&self, hook: HookId) -> Target {
        match self.hooks.hook_by_id(hook).await {
            Ok(Some(hook)) => hook.target,
            // Deleted, or not to be read now: sending finds out which.
            Ok(None) | Err(_) => NOBODY,
        }
    }

    /// Sends the delivery of a webhook whose turn it is.
    async fn send(&self, hook: HookId) -> Next {
        let work = AssertUnwindSafe(self.send_one(hook)).catch_unwind();
        match work.await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::error!(hook = hook.0, error = ?error, "a delivery cannot be sent");
                Next::Later(PAUSE)
            }
            Err(_) => Next::Later(PAUSE),
        }
    }

    async fn send_one(&self, hook: HookId) -> Result<Next> {
        let Some(due) = self.hooks.due(hook).await? else { return Ok(Next::Nothing) };
        let wanted = due.hook.active || due.delivery.by_hand;
        if !wanted || !audience::may_hear(&(self.moment)().registry, &due.hook, due.delivery.package).await? {
            self.hooks.take_back(&due).await?;
            return Ok(Next::More);
        }
        let sent = self.sender.send(&due.hook, &due.delivery, &due.payload).await;
        let tries = due.delivery.tries.saturating_add(1);
        let again = sent.may_pass && !due.delivery.by_hand && tries <= self.hooks.config().retries;
        self.hooks.note(&due, sent.outcome.clone(), &sent.exchange, again).await?;
        report(&due, &sent.outcome, again);
        if rand::rng().random_ratio(1, TRIM_EVERY) {
            self.hooks.trim(hook).await?;
        }
        Ok(if again { Next::Later(self.hooks.config().pause(tries)) } else { Next::More })
    }
}

/// Events that are still in the outbox and need no looking at.
struct Aside {
    /// Not to be looked for more before that.
    look_again: Instant,
    /// Events that nobody is told of. They leave the outbox with the next one that somebody is, or when
    /// they are many or old: a server without webhooks must not write twice for each publish.
    quiet: BTreeSet<u64>,
    since: Option<Instant>,
    /// Events that could not be told, and since when.
    failing: HashMap<u64, Instant>,
}

impl Default for Aside {
    fn default() -> Self {
        Self { look_again: Instant::now(), quiet: BTreeSet::new(), since: None, failing: HashMap::new() }
    }
}

impl Aside {
    fn add(&mut self, id: u64) {
        self.failing.remove(&id);
        self.since.get_or_insert_with(Instant::now);
        self.quiet.insert(id);
    }

    fn is_due(&self) -> bool {
        self.quiet.len() >= CHUNK || self.since.is_some_and(|since| since.elapsed() >= PAUSE)
    }

    fn take(&mut self) -> Vec<u64> {
        self.since = None;
        std::mem::take(&mut self.quiet).into_iter().collect()
    }

    /// Notes that an event could not be told; says whether to try it again.
    fn failed(&mut self, id: u64) -> bool {
        self.failing.entry(id).or_insert_with(Instant::now).elapsed() < PATIENCE
    }
}

/// The line and the count of a try. The address is left out but for its host: it may hold a secret of the receiver's.
fn report(due: &Due, outcome: &Try, again: bool) {
    let word = match (outcome.succeeded(), again) {
        (true, _) => "delivered",
        (false, true) => "to be retried",
        (false, false) => "failed",
    };
    METRICS.told(&due.delivery.event, word);
    let url = url::Url::parse(&due.hook.settings.url).ok();
    tracing::info!(
        target: "packhouse::webhook",
        hook = due.hook.id.0,
        guid = due.delivery.guid,
        event = due.delivery.event,
        action = due.delivery.action,
        host = url.as_ref().and_then(url::Url::host_str),
        tries = due.delivery.tries + 1,
        status = outcome.status,
        millis = outcome.millis,
        "{word}"
    );
}
