//! What was sent: read newest first, and bounded.

use super::Hooks;
use super::queue::remove;
use super::record::{Delivery, Exchange, Payload};
use super::tables::{self, EXCHANGES, HOOKS, LOG, PAYLOADS};
use crate::error::{Error, Result, Subject};
use crate::package::{DeliveryId, HookId};
use crate::store::Batch;
use crate::store::table::{Key, KeyParts};

/// Rows of the log that are looked at or removed at once.
const CHUNK: usize = 200;

impl Hooks {
    /// Deliveries of a webhook, newest first, older than the one given, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn deliveries(&self, hook: HookId, before: Option<DeliveryId>, limit: usize) -> Result<Vec<Delivery>> {
        let after = before.map(|id| tables::logged(hook, id).encode());
        let rows = LOG.scan(self.store(), tables::hook(hook), after, limit).await?;
        Ok(rows.into_iter().map(|(_, stored)| stored.value).collect())
    }

    /// One delivery of a webhook.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delivery(&self, hook: HookId, id: DeliveryId) -> Result<Delivery> {
        let stored = LOG.get(self.store(), tables::logged(hook, id)).await?;
        stored.map(|stored| stored.value).ok_or_else(|| Error::not_found(Subject::Webhook))
    }

    /// The JSON that a delivery sends.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn payload(&self, delivery: &Delivery) -> Result<Option<Payload>> {
        Ok(PAYLOADS.get(self.store(), tables::content(delivery.hook, delivery.id)).await?.map(|stored| stored.value))
    }

    /// What went over the wire at a delivery's last try.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn exchange(&self, delivery: &Delivery) -> Result<Option<Exchange>> {
        Ok(EXCHANGES.get(self.store(), tables::content(delivery.hook, delivery.id)).await?.map(|stored| stored.value))
    }

    /// Removes the oldest of a webhook's deliveries that are past the limits. What waits stays.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn trim(&self, hook: HookId) -> Result<()> {
        let (mut count, mut bytes) = (0, 0);
        let mut before = None;
        loop {
            let page = self.deliveries(hook, before, CHUNK).await?;
            let mut batch = Batch::new();
            for delivery in page.iter().filter(|delivery| !delivery.waiting) {
                count += 1;
                bytes += delivery.bytes;
                if count > self.config().deliveries_kept || bytes > self.config().deliveries_kept_bytes {
                    remove(&mut batch, delivery);
                }
            }
            if !batch.changes.is_empty() {
                self.commit(batch).await?;
            }
            match page.last() {
                Some(last) if page.len() == CHUNK => before = Some(last.id),
                _ => return Ok(()),
            }
        }
    }

    /// Removes all deliveries of a webhook that is no more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self, hook: HookId) -> Result<()> {
        loop {
            let page = self.deliveries(hook, None, CHUNK).await?;
            if page.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for delivery in &page {
                remove(&mut batch, delivery);
            }
            self.commit(batch).await?;
        }
    }

    /// Removes deliveries whose webhooks are no more: whoever deleted those was killed before he was done.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_orphans(&self) -> Result<()> {
        let mut after = None;
        loop {
            let rows = LOG.scan(self.store(), Key::new(), after, 1).await?;
            let Some(hook) = rows.first().and_then(|(key, _)| KeyParts(key).number()).map(HookId) else { return Ok(()) };
            if HOOKS.get(self.store(), tables::hook(hook)).await?.is_none() {
                self.forget(hook).await?;
            }
            // Behind the oldest that this one can have.
            after = Some(tables::hook(hook).number(u64::MAX).encode());
        }
    }
}
