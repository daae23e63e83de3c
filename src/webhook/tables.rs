//! The tables of webhooks and their keys, in one place.

use super::record::{Delivery, Exchange, Hook, Payload, Target, Try};
use crate::package::{DeliveryId, HookId};
use crate::store::table::{Key, Table};

/// By [`hook`].
pub(super) static HOOKS: Table<Hook> = Table::new("webhook.hook");
/// The webhooks of a target in one record, so that their number and their likeness are bounded under concurrency too; by [`target`].
pub(super) static TARGETS: Table<Vec<HookId>> = Table::new("webhook.target");
/// By [`logged`]: the newest first.
pub(super) static LOG: Table<Delivery> = Table::new("webhook.delivery");
/// Which deliveries of [`LOG`] wait, by [`queued`]: in the order they are to be sent.
pub(super) static QUEUE: Table<DeliveryId> = Table::new("webhook.queue");
/// The JSON that is sent, by [`content`].
pub(super) static PAYLOADS: Table<Payload> = Table::new("webhook.payload");
/// What went over the wire at the last try, by [`content`].
pub(super) static EXCHANGES: Table<Exchange> = Table::new("webhook.exchange");
/// The last try of all, by [`hook`].
pub(super) static LAST: Table<Try> = Table::new("webhook.last");

pub(super) fn hook(id: HookId) -> Key {
    Key::new().number(id.0)
}

pub(super) fn target(target: Target) -> Key {
    match target {
        Target::Repository(id) => Key::new().text("repository").number(id.0),
        Target::Organisation(id) => Key::new().text("organisation").number(id.0),
    }
}

/// Deliveries are read from the newest on, and scans go upwards: so the number is turned over.
pub(super) fn logged(of: HookId, id: DeliveryId) -> Key {
    hook(of).number(!id.0)
}

/// What somebody asked for goes before what just happened.
pub(super) fn queued(of: HookId, by_hand: bool, id: DeliveryId) -> Key {
    hook(of).number(u64::from(!by_hand)).number(id.0)
}

pub(super) fn content(of: HookId, id: DeliveryId) -> Key {
    hook(of).number(id.0)
}
