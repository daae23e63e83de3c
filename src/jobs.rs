//! Periodic work, as a table: what is done, how often, by which function.
//!
//! Jobs run one at a time in a task of their own and never on the path of a
//! request. A job that fails is logged and tried again at its next time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::access::Grant;
use crate::blob::{Blobs, EvictReport, SweepReport, VerifyReport};
use crate::catalog::Catalog;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Kind, Result};
use crate::event;
use crate::identity::Identity;
use crate::webhook::{Hooks, Target};

/// Files younger than this are left alone by a sweep: their rows may still be on the way.
const SWEEP_GRACE: Duration = Duration::from_secs(3600);

/// What jobs work on.
#[derive(Clone)]
pub struct Jobs {
    /// Stored bytes.
    pub blobs: Blobs,
    /// Hosted packages.
    pub catalog: Catalog,
    /// Accounts and tokens.
    pub identity: Arc<Identity>,
    /// Who is told of events.
    pub hooks: Hooks,
    /// How long what was deleted can be restored.
    pub restorable: Duration,
    /// How long the files of a version that nothing completes, and uploads that no version names, are kept.
    pub unfinished: Duration,
    /// How long it is known what happened.
    pub audit: event::Config,
}

/// Work on the whole data folder that an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Check everything against its digest and every reference against what is there.
    Fsck,
    /// Remove what nothing refers to.
    Gc,
}

/// One line of the table.
struct Job {
    name: &'static str,
    every: Duration,
    run: fn(Jobs) -> BoxFuture<'static, Result<()>>,
}

static TABLE: &[Job] = &[
    Job { name: "flush", every: Duration::from_secs(5), run: |jobs| async move { jobs.flush().await }.boxed() },
    Job {
        name: "uploads",
        every: Duration::from_secs(60),
        run: |jobs| {
            async move {
                jobs.blobs.tidy_sessions().await;
                Ok(())
            }
            .boxed()
        },
    },
    Job { name: "count", every: Duration::from_secs(30), run: |jobs| async move { jobs.count().await }.boxed() },
    Job { name: "evict", every: Duration::from_secs(15), run: |jobs| async move { jobs.evict().await.map(drop) }.boxed() },
    Job {
        name: "unfinished",
        every: Duration::from_secs(3600),
        run: |jobs| async move { jobs.give_up_unfinished().await.map(drop) }.boxed(),
    },
    // Whoever made an event says so; if that was cut short, this does.
    Job {
        name: "announce",
        every: Duration::from_secs(5),
        run: |jobs| {
            jobs.hooks.announce();
            std::future::ready(Ok(())).boxed()
        },
    },
    Job { name: "webhooks", every: Duration::from_secs(3600), run: |jobs| async move { jobs.clear_webhooks().await.map(drop) }.boxed() },
    Job { name: "sweep", every: Duration::from_secs(3600), run: |jobs| async move { jobs.sweep(SWEEP_GRACE).await.map(drop) }.boxed() },
    Job { name: "forget", every: Duration::from_secs(3600), run: |jobs| async move { jobs.forget().await }.boxed() },
];

impl Jobs {
    /// Runs every job at its times until `stop` turns true.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let mut running = tokio::task::JoinSet::new();
        for job in TABLE {
            let (jobs, mut stop) = (self.clone(), stop.clone());
            running.spawn(async move {
                let mut ticks = tokio::time::interval_at(Instant::now() + job.every, job.every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = ticks.tick() => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                    if let Err(error) = (job.run)(jobs.clone()).await {
                        tracing::error!(job = job.name, error = ?error, "job failed");
                    }
                }
            });
        }
        while running.join_next().await.is_some() {}
    }

    /// Writes all that was summed in memory, once the last request has ended.
    pub async fn finish(&self) {
        for written in [self.flush().await, self.count().await] {
            if let Err(error) = written {
                tracing::error!(error = ?error, "the last flush failed");
            }
        }
    }

    /// Writes what was summed in memory: when blobs and tokens were last used.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn flush(&self) -> Result<()> {
        self.blobs.flush().await?;
        self.identity.flush_last_used().await.map(drop)
    }

    /// Writes how often versions were downloaded.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count(&self) -> Result<()> {
        self.catalog.downloads().flush().await.map(drop)
    }

    /// Forgets what is older than it is kept: on which days downloads were made, and what happened.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self) -> Result<()> {
        self.catalog.downloads().prune().await?;
        self.catalog.forget_events(&self.audit).await.map(drop)
    }

    /// Removes the least recently used cached blobs down to the limits.
    ///
    /// # Errors
    /// When the disk or a store fails.
    pub async fn evict(&self) -> Result<EvictReport> {
        let report = self.blobs.evict(&self.hosted()).await?;
        if report.removed > 0 {
            tracing::info!(removed = report.removed, bytes = report.removed_bytes, unfinished = report.unfinished, "evicted cached blobs");
        }
        Ok(report)
    }

    /// Removes blobs that nothing refers to.
    ///
    /// # Errors
    /// When the disk or a store fails.
    pub async fn sweep(&self, grace: Duration) -> Result<SweepReport> {
        let report = self.blobs.sweep(&self.hosted(), grace).await?;
        if report.removed > 0 {
            tracing::info!(removed = report.removed, bytes = report.removed_bytes, "swept unreferenced blobs");
        }
        Ok(report)
    }

    /// Gives up the files of versions that were deleted too long ago to be restored; returns of how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn purge(&self) -> Result<usize> {
        let before = self.ago(self.restorable);
        let mut purged = 0;
        for package in self.catalog.expired(before).await? {
            // Of an ecosystem that this build does not know nothing is touched.
            if let Some(ecosystem) = crate::ecosystem::find(&package.ecosystem) {
                let grant = Grant::system((ecosystem.info().name, &package.name, Some(package.id)));
                purged += self.catalog.purge(&grant, before).await?;
            }
        }
        if purged > 0 {
            tracing::info!(versions = purged, "gave up the files of versions deleted too long ago to be restored");
        }
        Ok(purged)
    }

    /// Gives up files of versions that nothing has completed, and uploads that no version has named; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn give_up_unfinished(&self) -> Result<usize> {
        let before = self.ago(self.unfinished);
        let (files, uploads) = (self.catalog.give_up_staged(before).await?, self.catalog.give_up_uploads(before).await?);
        if files + uploads > 0 {
            tracing::info!(files, uploads, "gave up files of versions that were never completed, and uploads that none names");
        }
        Ok(files + uploads)
    }

    fn ago(&self, window: Duration) -> Timestamp {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.catalog.clock().now().as_millis().saturating_sub(window))
    }

    /// Removes webhooks whose repository or organisation is gone, what is left of removed ones, and deliveries
    /// past their limits; returns how many webhooks went.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn clear_webhooks(&self) -> Result<usize> {
        const CHUNK: usize = 1000;
        let mut removed = 0;
        let mut after = None;
        loop {
            let hooks = self.hooks.all(after, CHUNK).await?;
            for hook in &hooks {
                let found = match hook.target {
                    Target::Repository(id) => self.identity.repository_by_id(id).await.map(drop),
                    Target::Organisation(id) => self.identity.account(id).await.map(drop),
                };
                match found {
                    Err(error) if error.kind() == Kind::NotFound => {
                        self.hooks.delete(hook.target, hook.id, None).await?;
                        removed += 1;
                    }
                    found => {
                        found?;
                        self.hooks.trim(hook.id).await?;
                    }
                }
            }
            match hooks.last() {
                Some(last) if hooks.len() == CHUNK => after = Some(last.id),
                _ => break,
            }
        }
        self.hooks.forget_orphans().await?;
        Ok(removed)
    }

    /// Hashes every blob, and looks whether every hosted one is there.
    ///
    /// # Errors
    /// When the disk or a store fails.
    pub async fn check(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<CheckReport> {
        let blobs = self.blobs.verify(progress).await?;
        let mut lost = Vec::new();
        for digest in self.catalog.hosted_blobs().await? {
            if !self.blobs.contains(&digest).await? {
                lost.push(digest);
            }
        }
        Ok(CheckReport { blobs, lost })
    }

    /// Does what an operator asks for and reports it as JSON.
    ///
    /// # Errors
    /// When the disk or a store fails.
    pub async fn upkeep(&self, work: Upkeep) -> Result<serde_json::Value> {
        match work {
            Upkeep::Fsck => {
                let report = self.check(&|_, _| {}).await?;
                let CheckReport { blobs, lost } = &report;
                Ok(serde_json::json!({
                    "clean": report.is_clean(),
                    "checked": blobs.checked,
                    "checked_bytes": blobs.checked_bytes,
                    "damaged": blobs.damaged,
                    "foreign": blobs.foreign,
                    "missing_from_cache": blobs.missing,
                    "unlisted": blobs.unlisted,
                    "lost": lost,
                }))
            }
            Upkeep::Gc => {
                let purged = self.purge().await?;
                self.blobs.tidy_sessions().await;
                self.give_up_unfinished().await?;
                let evicted = self.evict().await?;
                // Twice: the first sweep marks what the second may take.
                let first = self.sweep(SWEEP_GRACE).await?;
                let second = self.sweep(SWEEP_GRACE).await?;
                Ok(serde_json::json!({
                    "purged": purged,
                    "seen": second.seen,
                    "removed": evicted.removed + first.removed + second.removed,
                    "removed_bytes": evicted.removed_bytes + first.removed_bytes + second.removed_bytes,
                    "waiting": second.waiting,
                }))
            }
        }
    }

    /// Whether a committed row refers to a blob. When that cannot be told at once, it counts as referred to.
    fn hosted(&self) -> impl Fn(&Digest) -> bool + Sync + use<> {
        let catalog = self.catalog.clone();
        move |digest| catalog.is_hosted(digest).now_or_never().is_none_or(|answer| answer.unwrap_or(true))
    }
}

/// What a check of the whole data folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Of the blobs on disk.
    pub blobs: VerifyReport,
    /// Blobs that hosted files refer to and that are not there.
    pub lost: Vec<Digest>,
}

impl CheckReport {
    /// Whether nothing that matters is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.blobs.damaged.is_empty() && self.blobs.foreign.is_empty() && self.blobs.unlisted == 0 && self.lost.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NewUser;
    use crate::name::{OwnerName, RepositoryName};
    use crate::package::{HookId, Visibility};
    use crate::registry::fixture;
    use crate::store::Batch;
    use crate::webhook::{Draft, Hook, Settings};

    #[tokio::test]
    async fn webhooks_go_with_what_they_listened_to() {
        let engine = fixture::fixture().await;
        let (identity, hooks) = (&engine.identity, engine.registry.hooks().clone());
        let new = NewUser { login: OwnerName::new("ann").unwrap(), email: None, site_admin: false };
        let ann = identity.create_user(new).await.unwrap().id;
        let acme = identity.create_organisation(OwnerName::new("acme").unwrap(), Some(ann)).await.unwrap().id;
        let web = identity.create_repository(acme, RepositoryName::new("web").unwrap(), Visibility::Public).await.unwrap().id;
        for target in [Target::Repository(web), Target::Organisation(acme)] {
            let id = HookId(hooks.next_id().await.unwrap());
            let now = hooks.clock().now();
            let settings = Settings::to("https://example.com/".to_owned());
            let (events, origin) = (vec!["package".to_owned()], String::new());
            let hook = Hook { id, target, author: ann, active: true, events, settings, origin, created_at: now, updated_at: now };
            let ping = Draft { hook: id, event: "ping", action: None, package: None, repository: None, payload: "{}".to_owned() };
            hooks.create(&hook, ping, None).await.unwrap();
        }
        let jobs = Jobs {
            blobs: engine.registry.blobs().clone(),
            catalog: engine.registry.catalog().clone(),
            identity: Arc::clone(identity),
            hooks: hooks.clone(),
            restorable: Duration::ZERO,
            unfinished: Duration::ZERO,
            audit: event::Config::default(),
        };
        assert_eq!(jobs.clear_webhooks().await.unwrap(), 0);
        identity.delete_repository(web, Batch::new()).await.unwrap();
        assert_eq!(jobs.clear_webhooks().await.unwrap(), 1);
        let left = hooks.all(None, 10).await.unwrap();
        assert_eq!(left.iter().map(|hook| hook.target).collect::<Vec<_>>(), [Target::Organisation(acme)]);
    }
}
