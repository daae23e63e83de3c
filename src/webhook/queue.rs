//! What waits to be sent: queued in one batch with its payload, taken off in one batch with what became of it.

use std::collections::HashMap;

use super::record::{Delivery, Draft, Exchange, Hook, Payload, Try};
use super::tables::{self, EXCHANGES, HOOKS, LAST, LOG, PAYLOADS, QUEUE};
use super::{Hooks, guid};
use crate::error::{Error, Kind, Result, Subject};
use crate::event;
use crate::observe::METRICS;
use crate::package::{DeliveryId, HookId};
use crate::store::Batch;
use crate::store::table::{Key, KeyParts, Stored};

/// A delivery whose turn it is.
#[derive(Clone, Debug)]
pub struct Due {
    /// The webhook as it is now.
    pub hook: Hook,
    /// The delivery.
    pub delivery: Delivery,
    /// The JSON to send.
    pub payload: Payload,
    stored: Stored<Delivery>,
}

/// What is noted of a delivery for which there was no room in the queue.
const NO_ROOM: &str = "not sent: too many deliveries wait for this hook";

impl Hooks {
    /// Takes events out of the outbox and queues what is to be sent about them, at once or not at all.
    /// What does not fit a webhook's queue is noted as failed, so that it can be asked for by hand.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tell(&self, told: &[u64], drafts: Vec<Draft>) -> Result<()> {
        let mut batch = Batch::new();
        for id in told {
            event::told(&mut batch, *id);
        }
        let mut waiting: HashMap<HookId, usize> = HashMap::new();
        for draft in drafts {
            let hook = draft.hook;
            let count = match waiting.get(&hook) {
                Some(count) => *count,
                None => self.waiting(hook).await?,
            };
            waiting.insert(hook, count + 1);
            if count < self.config().queue_limit {
                self.enqueue(&mut batch, draft, false).await?;
            } else {
                self.note_unsent(&mut batch, draft).await?;
            }
        }
        // Only the outbox's one reader takes out of it, so there is no condition to fail.
        self.commit(batch).await?;
        for hook in waiting.into_keys() {
            self.ring(hook, false);
        }
        Ok(())
    }

    /// Queues a delivery that somebody asks for.
    ///
    /// # Errors
    /// `TooMany` when the webhook's queue is full.
    pub async fn send_by_hand(&self, draft: Draft) -> Result<()> {
        let hook = draft.hook;
        self.expect_room(hook).await?;
        let mut batch = Batch::new();
        self.enqueue(&mut batch, draft, true).await?;
        self.commit(batch).await?;
        self.ring(hook, true);
        Ok(())
    }

    /// Queues a delivery once more, with the same payload under the same GUID.
    ///
    /// # Errors
    /// `NotFound` when its payload is gone, `TooMany` when the webhook's queue is full.
    pub async fn redeliver(&self, earlier: &Delivery) -> Result<()> {
        self.expect_room(earlier.hook).await?;
        let payload = self.payload(earlier).await?.ok_or_else(|| Error::not_found(Subject::Webhook))?;
        let delivery = Delivery {
            id: DeliveryId(self.next_id().await?),
            by_hand: true,
            redelivery: true,
            queued_at: self.clock().now(),
            tries: 0,
            waiting: true,
            last: None,
            ..earlier.clone()
        };
        let mut batch = Batch::new();
        put(&mut batch, &delivery, &payload)?;
        self.commit(batch).await?;
        self.ring(earlier.hook, true);
        Ok(())
    }

    /// The delivery of a webhook whose turn it is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn due(&self, hook: HookId) -> Result<Option<Due>> {
        loop {
            let rows = QUEUE.scan(self.store(), tables::hook(hook), None, 1).await?;
            let Some((_, row)) = rows.first() else { return Ok(None) };
            let id = row.value;
            let Some(record) = HOOKS.get(self.store(), tables::hook(hook)).await? else {
                // Deleted; whoever did it may have been killed before all was cleared away.
                self.forget(hook).await?;
                return Ok(None);
            };
            let stored = LOG.get(self.store(), tables::logged(hook, id)).await?;
            let payload = PAYLOADS.get(self.store(), tables::content(hook, id)).await?;
            if let (Some(stored), Some(payload)) = (stored, payload) {
                let (delivery, payload) = (stored.value.clone(), payload.value);
                return Ok(Some(Due { hook: record.value, delivery, payload, stored }));
            }
            // A row without its record means nothing.
            let mut batch = Batch::new();
            for by_hand in [true, false] {
                QUEUE.delete(&mut batch, tables::queued(hook, by_hand, id));
            }
            self.commit(batch).await?;
        }
    }

    /// Notes what became of a try. With `again`, the delivery keeps its place in the queue.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note(&self, due: &Due, outcome: Try, exchange: &Exchange, again: bool) -> Result<()> {
        let (hook, id) = (due.hook.id, due.delivery.id);
        let delivery =
            Delivery { tries: due.delivery.tries.saturating_add(1), waiting: again, last: Some(outcome.clone()), ..due.delivery.clone() };
        let mut batch = Batch::new();
        // A webhook that was deleted meanwhile keeps nothing.
        LOG.unchanged(&mut batch, tables::logged(hook, id), &due.stored);
        LOG.put(&mut batch, tables::logged(hook, id), &delivery)?;
        EXCHANGES.put(&mut batch, tables::content(hook, id), exchange)?;
        LAST.put(&mut batch, tables::hook(hook), &outcome)?;
        if !again {
            QUEUE.delete(&mut batch, tables::queued(hook, delivery.by_hand, id));
        }
        self.commit(batch).await.map(drop)
    }

    /// Takes a delivery back as if it had never been: whoever it was meant for may no longer know of it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn take_back(&self, due: &Due) -> Result<()> {
        let mut batch = Batch::new();
        remove(&mut batch, &due.delivery);
        self.commit(batch).await.map(drop)
    }

    /// The webhooks for which anything waits.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn waiting_hooks(&self) -> Result<Vec<HookId>> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let rows = QUEUE.scan(self.store(), Key::new(), after, 1).await?;
            let Some(hook) = rows.first().and_then(|(key, _)| KeyParts(key).number()).map(HookId) else { return Ok(found) };
            found.push(hook);
            // Behind the last that this one can have.
            after = Some(tables::hook(hook).number(u64::MAX).number(u64::MAX).encode());
        }
    }

    async fn expect_room(&self, hook: HookId) -> Result<()> {
        if self.waiting(hook).await? < self.config().queue_limit {
            return Ok(());
        }
        Err(Error::new(Kind::TooMany, Subject::Webhook).saying("too many deliveries wait for this hook"))
    }

    /// How many deliveries wait for a webhook, counted up to its limit.
    async fn waiting(&self, hook: HookId) -> Result<usize> {
        Ok(QUEUE.scan(self.store(), tables::hook(hook), None, self.config().queue_limit).await?.len())
    }

    /// Adds to a batch: a delivery that waits.
    pub(super) async fn enqueue(&self, batch: &mut Batch, draft: Draft, by_hand: bool) -> Result<()> {
        let (delivery, payload) = self.drafted(draft, by_hand).await?;
        put(batch, &delivery, &payload)
    }

    /// Adds to a batch: a delivery that was not sent and waits for somebody to ask for it.
    async fn note_unsent(&self, batch: &mut Batch, draft: Draft) -> Result<()> {
        let (mut delivery, payload) = self.drafted(draft, false).await?;
        tracing::warn!(target: "packhouse::webhook", hook = delivery.hook.0, guid = delivery.guid, event = delivery.event, "{NO_ROOM}");
        METRICS.told(&delivery.event, "not sent");
        delivery.waiting = false;
        delivery.last = Some(Try { at: delivery.queued_at, millis: 0, code: None, status: NO_ROOM.to_owned() });
        LOG.put(batch, tables::logged(delivery.hook, delivery.id), &delivery)?;
        PAYLOADS.put(batch, tables::content(delivery.hook, delivery.id), &payload)
    }

    async fn drafted(&self, draft: Draft, by_hand: bool) -> Result<(Delivery, Payload)> {
        let bytes = draft.payload.len() as u64;
        let payload = Payload::new(draft.payload)?;
        let delivery = Delivery {
            id: DeliveryId(self.next_id().await?),
            hook: draft.hook,
            guid: guid(),
            event: draft.event.to_owned(),
            action: draft.action.map(|action| action.name().to_owned()),
            package: draft.package,
            repository: draft.repository,
            by_hand,
            redelivery: false,
            queued_at: self.clock().now(),
            tries: 0,
            waiting: true,
            last: None,
            bytes,
        };
        Ok((delivery, payload))
    }
}

fn put(batch: &mut Batch, delivery: &Delivery, payload: &Payload) -> Result<()> {
    let (hook, id) = (delivery.hook, delivery.id);
    LOG.put(batch, tables::logged(hook, id), delivery)?;
    PAYLOADS.put(batch, tables::content(hook, id), payload)?;
    QUEUE.put(batch, tables::queued(hook, delivery.by_hand, id), &id)
}

/// Adds to a batch: nothing is left of a delivery.
pub(super) fn remove(batch: &mut Batch, delivery: &Delivery) {
    let (hook, id) = (delivery.hook, delivery.id);
    LOG.delete(batch, tables::logged(hook, id));
    PAYLOADS.delete(batch, tables::content(hook, id));
    EXCHANGES.delete(batch, tables::content(hook, id));
    QUEUE.delete(batch, tables::queued(hook, delivery.by_hand, id));
}
