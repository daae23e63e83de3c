//! Webhooks: who wants to be told of events, what waits to be told, and what became of it.
//!
//! A webhook and its deliveries are truth. An event enters the outbox in the batch
//! of its change; it leaves the outbox in the batch that queues one delivery, with
//! its payload and its GUID, for each webhook that is to hear of it; a delivery
//! leaves the queue in the batch that notes what became of it. So a kill at any
//! instant loses none, and what was sent but not noted is sent again under the same
//! GUID, by which its receiver knows it.
//!
//! Deliveries of one webhook are sent in the order of their events. One that fails
//! is tried again after growing pauses, and what follows it waits. What somebody
//! asks for by hand (a ping, a redelivery) goes first and is tried once.
//!
//! This module keeps, signs and sends. Who may hear of what, and in which words, is
//! decided where GitHub's API is: `api::webhooks`.
//!
//! Source: GitHub's REST documentation, «Repository webhooks» and «Organization
//! webhooks», and «Webhook events and payloads».

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{self, AccountEvent, Event};
use crate::identity::Sequence;
use crate::package::HookId;
use crate::store::table::{Key, Stored};
use crate::store::{Batch, Outcome, Store};
use crate::upstream::guard::Guard;

pub mod address;
pub mod config;
mod log;
mod queue;
pub mod record;
pub mod sender;
pub mod signature;
mod tables;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use queue::Due;
pub use record::{ContentType, Delivery, Draft, Exchange, Hook, PackageAction, Payload, Secret, Settings, Target, Try};
pub use sender::Sender;

use tables::{HOOKS, LAST, TARGETS};

/// Tries of a change against concurrent ones before it fails.
const TRIES: usize = 16;

/// The webhooks of this server. Cheap to clone.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Clock,
    config: Config,
    guard: Guard,
    ids: Sequence,
    /// Rings when there may be events in the outbox.
    outbox: Notify,
    /// Rings when something was queued.
    bell: Notify,
    /// Webhooks for which something was queued since anybody looked, and whether somebody waits for it.
    rung: Mutex<HashMap<HookId, bool>>,
}

impl Hooks {
    /// Webhooks on the state store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, config: Config) -> Self {
        let guard = Guard::new(config.allow_private.clone(), []);
        let ids = Sequence::new("webhook");
        Self(Arc::new(Inner { store, clock, config, guard, ids, outbox: Notify::new(), bell: Notify::new(), rung: Mutex::default() }))
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Which addresses may be sent to.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// The present time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// A number for a new webhook or delivery.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_id(&self) -> Result<u64> {
        self.0.ids.next(self.store()).await
    }

    /// Makes a webhook and queues its first delivery, which tells the receiver of it. `told` is for
    /// the audit log, here and below.
    ///
    /// # Errors
    /// `Conflict` when the target has one that is alike, or too many.
    pub async fn create(&self, hook: &Hook, ping: Draft, told: Option<&AccountEvent>) -> Result<()> {
        for _ in 0..TRIES {
            let (mut batch, mut ids, others) = self.of_target(hook.target).await?;
            if others.len() >= self.0.config.hooks_per_target {
                let text = format!("A target cannot have more than {} hooks", self.0.config.hooks_per_target);
                return Err(Error::conflict(Subject::Webhook, text));
            }
            expect_unlike(hook, &others)?;
            ids.push(hook.id);
            TARGETS.put(&mut batch, tables::target(hook.target), &ids)?;
            HOOKS.put(&mut batch, tables::hook(hook.id), hook)?;
            self.enqueue(&mut batch, ping.clone(), true).await?;
            if self.commit_told(batch, told).await? {
                self.ring(hook.id, true);
                return Ok(());
            }
        }
        Err(contended())
    }

    /// The webhooks of a target, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of(&self, target: Target) -> Result<Vec<Hook>> {
        Ok(self.of_target(target).await?.2)
    }

    /// A webhook of a target.
    ///
    /// # Errors
    /// `NotFound`, also for one of another target.
    pub async fn hook(&self, target: Target, id: HookId) -> Result<Hook> {
        Ok(self.stored(target, id).await?.value)
    }

    /// A webhook, whatever its target.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hook_by_id(&self, id: HookId) -> Result<Option<Hook>> {
        Ok(HOOKS.get(self.store(), tables::hook(id)).await?.map(|stored| stored.value))
    }

    /// Changes a webhook. `edit` is called anew when it was changed in between; what it fails with is
    /// the inner error.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it would be like another one of its target.
    pub async fn change<E>(
        &self,
        target: Target,
        id: HookId,
        told: Option<&AccountEvent>,
        mut edit: impl FnMut(&mut Hook) -> Result<(), E>,
    ) -> Result<Result<Hook, E>> {
        for _ in 0..TRIES {
            let (mut batch, _, others) = self.of_target(target).await?;
            let stored = self.stored(target, id).await?;
            let mut hook = stored.value.clone();
            if let Err(refused) = edit(&mut hook) {
                return Ok(Err(refused));
            }
            expect_unlike(&hook, &others)?;
            hook.updated_at = self.0.clock.now();
            HOOKS.unchanged(&mut batch, tables::hook(id), &stored);
            HOOKS.put(&mut batch, tables::hook(id), &hook)?;
            if self.commit_told(batch, told).await? {
                // What waits may go to a receiver that answers now.
                self.ring(id, true);
                return Ok(Ok(hook));
            }
        }
        Err(contended())
    }

    /// Deletes a webhook with all that was, and was to be, sent to it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, target: Target, id: HookId, told: Option<&AccountEvent>) -> Result<()> {
        for _ in 0..TRIES {
            let (mut batch, mut ids, _) = self.of_target(target).await?;
            let stored = self.stored(target, id).await?;
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                TARGETS.delete(&mut batch, tables::target(target));
            } else {
                TARGETS.put(&mut batch, tables::target(target), &ids)?;
            }
            HOOKS.unchanged(&mut batch, tables::hook(id), &stored);
            HOOKS.delete(&mut batch, tables::hook(id));
            LAST.delete(&mut batch, tables::hook(id));
            if self.commit_told(batch, told).await? {
                return self.forget(id).await;
            }
        }
        Err(contended())
    }

    /// The last try of a webhook's deliveries.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn last_try(&self, id: HookId) -> Result<Option<Try>> {
        Ok(LAST.get(self.store(), tables::hook(id)).await?.map(|stored| stored.value))
    }

    /// All webhooks by id, after one, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all(&self, after: Option<HookId>, limit: usize) -> Result<Vec<Hook>> {
        let after = after.map(|id| tables::hook(id).encode());
        let rows = HOOKS.scan(self.store(), Key::new(), after, limit).await?;
        Ok(rows.into_iter().map(|(_, stored)| stored.value).collect())
    }

    /// Events that nothing was queued for yet, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn untold(&self, limit: usize) -> Result<Vec<u64>> {
        event::untold(self.store(), limit).await
    }

    /// The event of an id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn event(&self, id: u64) -> Result<Option<Event>> {
        event::find(self.store(), id).await
    }

    /// Says that there may be events in the outbox.
    pub fn announce(&self) {
        self.0.outbox.notify_one();
    }

    /// Waits until somebody has said so.
    pub async fn announced(&self) {
        self.0.outbox.notified().await;
    }

    /// Waits until something was queued.
    pub async fn rung(&self) {
        self.0.bell.notified().await;
    }

    /// Counts everything that waits as queued just now, for a start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ring_waiting(&self) -> Result<()> {
        for hook in self.waiting_hooks().await? {
            self.ring(hook, false);
        }
        Ok(())
    }

    /// The webhooks for which something was queued since this was last asked, and whether somebody waits for it.
    #[must_use]
    pub fn take_rung(&self) -> HashMap<HookId, bool> {
        std::mem::take(&mut *self.0.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ring(&self, hook: HookId, by_hand: bool) {
        let mut rung = self.0.rung.lock().unwrap_or_else(PoisonError::into_inner);
        *rung.entry(hook).or_default() |= by_hand;
        drop(rung);
        self.0.bell.notify_one();
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// Applies a change together with the event that tells of it; `false` when a condition did not hold.
    async fn commit_told(&self, mut batch: Batch, told: Option<&AccountEvent>) -> Result<bool> {
        if let Some(event) = told {
            event::record_account(&mut batch, event)?;
        }
        let committed = self.commit(batch).await?;
        if committed {
            told.into_iter().for_each(event::log_account);
        }
        Ok(committed)
    }

    async fn commit(&self, batch: Batch) -> Result<bool> {
        Ok(self.store().commit(batch).await? == Outcome::Committed)
    }

    /// A batch on the condition that a target's webhooks are these, and they.
    async fn of_target(&self, target: Target) -> Result<(Batch, Vec<HookId>, Vec<Hook>)> {
        let mut batch = Batch::new();
        let key = || tables::target(target);
        let ids = match TARGETS.get(self.store(), key()).await? {
            None => {
                TARGETS.absent(&mut batch, key());
                Vec::new()
            }
            Some(stored) => {
                TARGETS.unchanged(&mut batch, key(), &stored);
                stored.value
            }
        };
        let mut hooks = Vec::with_capacity(ids.len());
        for id in &ids {
            hooks.extend(self.hook_by_id(*id).await?);
        }
        Ok((batch, ids, hooks))
    }

    async fn stored(&self, target: Target, id: HookId) -> Result<Stored<Hook>> {
        let stored = HOOKS.get(self.store(), tables::hook(id)).await?;
        stored.filter(|stored| stored.value.target == target).ok_or_else(|| Error::not_found(Subject::Webhook))
    }
}

/// GitHub refuses a webhook that sends the same events to the same address in the same form.
fn expect_unlike(hook: &Hook, others: &[Hook]) -> Result<()> {
    let alike = |other: &Hook| {
        let same = other.settings.url == hook.settings.url && other.settings.content_type == hook.settings.content_type;
        other.id != hook.id && same && other.events == hook.events
    };
    if !others.iter().any(alike) {
        return Ok(());
    }
    let text = match hook.target {
        Target::Repository(_) => "Hook already exists on this repository",
        Target::Organisation(_) => "Hook already exists on this organization",
    };
    Err(Error::conflict(Subject::Webhook, text))
}

fn contended() -> Error {
    Error::new(Kind::Unavailable, Subject::Webhook).saying("too many changes at once, try again")
}

/// A GUID of random bits (RFC 9562, version 4).
fn guid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
