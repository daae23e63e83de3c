//! Webhooks on a store in memory: what is kept, in which order it waits, what becomes of it.

use super::*;
use crate::clock::Timestamp;
use crate::package::{AccountId, RepositoryId};
use crate::store::memory::Memory;

const WEB: Target = Target::Repository(RepositoryId(1));

fn hooks_with(config: Config) -> Hooks {
    Hooks::new(Arc::new(Memory::new()), Clock::stopped(Timestamp::from_millis(1_700_000_000_000)), config)
}

fn hooks() -> Hooks {
    hooks_with(Config::default())
}

async fn make(hooks: &Hooks, url: &str) -> Result<Hook> {
    let id = HookId(hooks.next_id().await?);
    let now = hooks.clock().now();
    let hook = Hook {
        id,
        target: WEB,
        author: AccountId(2),
        active: true,
        events: vec!["package".to_owned()],
        settings: Settings::to(url.to_owned()),
        origin: "http://h".to_owned(),
        created_at: now,
        updated_at: now,
    };
    hooks.create(&hook, draft(id, "ping"), None).await?;
    Ok(hook)
}

fn draft(hook: HookId, event: &'static str) -> Draft {
    Draft { hook, event, action: None, package: None, repository: None, payload: format!("{{\"about\":{event:?}}}") }
}

fn outcome(code: u16) -> Try {
    Try { at: Timestamp::default(), millis: 3, code: Some(code), status: "OK".to_owned() }
}

async fn settle(hooks: &Hooks, due: &Due) {
    hooks.note(due, outcome(200), &Exchange::default(), false).await.unwrap();
}

/// Takes everything off a webhook's queue; gives the events in their order.
async fn drain(hooks: &Hooks, hook: HookId) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(due) = hooks.due(hook).await.unwrap() {
        assert_eq!(due.payload.json(), format!("{{\"about\":{:?}}}", due.delivery.event));
        seen.push(due.delivery.event.clone());
        settle(hooks, &due).await;
    }
    seen
}

#[tokio::test]
async fn deliveries_wait_in_order_and_what_is_asked_for_goes_first() {
    let hooks = hooks();
    let hook = make(&hooks, "https://example.com/").await.unwrap().id;
    let other = make(&hooks, "https://example.org/").await.unwrap().id;
    assert_eq!(drain(&hooks, hook).await, ["ping"]);
    hooks.tell(&[], vec![draft(hook, "first"), draft(other, "others"), draft(hook, "second")]).await.unwrap();
    hooks.tell(&[], vec![draft(hook, "third")]).await.unwrap();
    hooks.send_by_hand(draft(hook, "ping")).await.unwrap();
    assert_eq!(hooks.waiting_hooks().await.unwrap(), [hook, other]);
    let rung = hooks.take_rung();
    assert_eq!((rung[&hook], rung.len()), (true, 2));
    assert_eq!(drain(&hooks, hook).await, ["ping", "first", "second", "third"]);
    assert_eq!(drain(&hooks, other).await, ["ping", "others"]);
    assert_eq!(hooks.waiting_hooks().await.unwrap(), []);
}

#[tokio::test]
async fn a_try_that_failed_keeps_its_place_and_its_guid() {
    let hooks = hooks();
    let hook = make(&hooks, "https://example.com/").await.unwrap().id;
    drain(&hooks, hook).await;
    hooks.tell(&[], vec![draft(hook, "first"), draft(hook, "second")]).await.unwrap();
    let first = hooks.due(hook).await.unwrap().unwrap();
    // Killed before anything was noted.
    let again = hooks.due(hook).await.unwrap().unwrap();
    assert_eq!((&first.delivery.guid, again.delivery.tries), (&again.delivery.guid, 0));
    hooks.note(&again, outcome(503), &Exchange::default(), true).await.unwrap();
    let again = hooks.due(hook).await.unwrap().unwrap();
    assert_eq!((&first.delivery.guid, again.delivery.tries, again.delivery.waiting), (&again.delivery.guid, 1, true));
    assert_eq!(hooks.last_try(hook).await.unwrap().unwrap().code, Some(503));
    settle(&hooks, &again).await;
    let kept = hooks.delivery(hook, again.delivery.id).await.unwrap();
    assert_eq!((kept.tries, kept.waiting), (2, false));
    assert_eq!(drain(&hooks, hook).await, ["second"]);
}

#[tokio::test]
async fn a_redelivery_has_the_same_guid_and_payload() {
    let hooks = hooks();
    let hook = make(&hooks, "https://example.com/").await.unwrap().id;
    let ping = hooks.due(hook).await.unwrap().unwrap();
    settle(&hooks, &ping).await;
    hooks.redeliver(&ping.delivery).await.unwrap();
    let again = hooks.due(hook).await.unwrap().unwrap();
    assert_eq!((&again.delivery.guid, again.payload.json()), (&ping.delivery.guid, ping.payload.json()));
    assert!(again.delivery.redelivery && again.delivery.id != ping.delivery.id && again.delivery.tries == 0);
    let page = hooks.deliveries(hook, None, 10).await.unwrap();
    assert_eq!(page.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), [again.delivery.id, ping.delivery.id]);
    assert_eq!(hooks.deliveries(hook, Some(again.delivery.id), 10).await.unwrap(), page[1..]);
}

#[tokio::test]
async fn a_target_has_no_two_alike_and_no_more_than_its_limit() {
    let hooks = hooks_with(Config { hooks_per_target: 2, ..Config::default() });
    let first = make(&hooks, "https://example.com/").await.unwrap();
    assert_eq!(make(&hooks, "https://example.com/").await.unwrap_err().message(), "Hook already exists on this repository");
    let second = make(&hooks, "https://example.org/").await.unwrap();
    assert_eq!(make(&hooks, "https://example.net/").await.unwrap_err().message(), "A target cannot have more than 2 hooks");
    let alike = hooks.change::<()>(WEB, second.id, None, |hook| {
        hook.settings.url.clone_from(&first.settings.url);
        Ok(())
    });
    assert_eq!(alike.await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(hooks.of(WEB).await.unwrap(), [first.clone(), second]);
    let elsewhere = Target::Organisation(AccountId(1));
    assert_eq!(hooks.hook(elsewhere, first.id).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(hooks.delete(elsewhere, first.id, None).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn what_is_deleted_leaves_nothing() {
    let store = Arc::new(Memory::new());
    let hooks = Hooks::new(Arc::clone(&store) as Arc<dyn Store>, Clock::stopped(Timestamp::default()), Config::default());
    let hook = make(&hooks, "https://example.com/").await.unwrap().id;
    drain(&hooks, hook).await;
    hooks.tell(&[], (0..5).map(|_| draft(hook, "package")).collect()).await.unwrap();
    let due = hooks.due(hook).await.unwrap().unwrap();
    hooks.delete(WEB, hook, None).await.unwrap();
    // What was under way meanwhile is not noted any more, and what was queued meanwhile is cleared away.
    settle(&hooks, &due).await;
    hooks.tell(&[], vec![draft(hook, "package")]).await.unwrap();
    assert!(hooks.due(hook).await.unwrap().is_none());
    hooks.forget_orphans().await.unwrap();
    for table in ["hook", "target", "delivery", "queue", "payload", "exchange", "last"] {
        let name = format!("webhook.{table}");
        let table = crate::store::TableId(Box::leak(name.into_boxed_str()));
        assert_eq!(store.scan(table, crate::store::prefix(&[]), 10).await.unwrap(), [], "{table:?}");
    }
}

#[tokio::test]
async fn the_log_is_bounded_and_what_waits_stays() {
    let hooks = hooks_with(Config { deliveries_kept: 3, deliveries_kept_bytes: 1000, queue_limit: 4, ..Config::default() });
    let hook = make(&hooks, "https://example.com/").await.unwrap().id;
    drain(&hooks, hook).await;
    for _ in 0..10 {
        hooks.tell(&[], vec![draft(hook, "old")]).await.unwrap();
        drain(&hooks, hook).await;
    }
    hooks.tell(&[], (0..6).map(|_| draft(hook, "new")).collect()).await.unwrap();
    hooks.trim(hook).await.unwrap();
    let kept = hooks.deliveries(hook, None, 100).await.unwrap();
    // Four wait, two found no room, and one of the old ones is kept besides those two.
    let states: Vec<_> = kept.iter().map(|delivery| (delivery.event.as_str(), delivery.waiting)).collect();
    assert_eq!(states, [("new", false), ("new", false), ("new", true), ("new", true), ("new", true), ("new", true), ("old", false)]);
    assert!(kept[0].last.as_ref().unwrap().status.contains("too many deliveries wait"));
    // Those can be asked for by hand, once there is room.
    assert_eq!(hooks.redeliver(&kept[0]).await.unwrap_err().kind(), Kind::TooMany);
    assert_eq!(hooks.send_by_hand(draft(hook, "ping")).await.unwrap_err().kind(), Kind::TooMany);
    settle(&hooks, &hooks.due(hook).await.unwrap().unwrap()).await;
    hooks.redeliver(&kept[0]).await.unwrap();
    assert!(hooks.due(hook).await.unwrap().unwrap().delivery.redelivery);

    let small = hooks_with(Config { deliveries_kept_bytes: 30, ..Config::default() });
    let hook = make(&small, "https://example.com/").await.unwrap().id;
    for _ in 0..5 {
        small.tell(&[], vec![draft(hook, "12345")]).await.unwrap();
    }
    drain(&small, hook).await;
    small.trim(hook).await.unwrap();
    assert_eq!(small.deliveries(hook, None, 100).await.unwrap().len(), 1, "each has 17 bytes");
}

#[tokio::test]
async fn told_events_leave_the_outbox_with_what_is_queued_for_them() {
    let hooks = hooks();
    let hook = make(&hooks, "https://example.com/").await.unwrap().id;
    drain(&hooks, hook).await;
    let mut batch = Batch::new();
    for id in [3, 4] {
        let event = Event {
            id,
            at: Timestamp::default(),
            deed: event::Deed::Published,
            actor: event::Actor::default(),
            ecosystem: "pie".to_owned(),
            package: crate::package::PackageId(1),
            name: crate::name::PackageName::new("apple").unwrap(),
            owner: AccountId(1),
            former_owner: None,
            repository: None,
            version: None,
            detail: None,
        };
        event::record(&mut batch, &event).unwrap();
    }
    hooks.commit(batch).await.unwrap();
    hooks.tell(&[3], vec![draft(hook, "package")]).await.unwrap();
    assert_eq!(hooks.untold(10).await.unwrap(), [4]);
    assert_eq!(drain(&hooks, hook).await, ["package"]);
}

#[test]
fn guids_look_like_guids() {
    let one = guid();
    assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!(&one[14..15], "4");
    assert_ne!(one, guid());
}
