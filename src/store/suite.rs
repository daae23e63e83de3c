//! What every store must do, run against each back end by `store_suite!`.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use super::{Batch, Change, Condition, KeyRange, Outcome, Row, Store, TableId, prefix};
use crate::error::Kind;

/// Two tables, to see that key spaces are apart.
pub(super) const LEFT: TableId = TableId("left");
pub(super) const RIGHT: TableId = TableId("right");

/// One test per requirement. The argument makes a fresh store and whatever must live as long as it.
macro_rules! store_suite {
    ($open:expr) => {
        $crate::store::suite::store_suite!($open;
            reads_what_was_written, refuses_a_batch_that_changes_a_key_twice, names_the_first_condition_that_fails,
            changes_nothing_on_conflict, scans_in_order_within_bounds_and_limit, scans_a_prefix,
            an_absent_table_is_empty, one_of_many_racing_writers_wins);
    };
    ($open:expr; $($name:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (store, _alive) = ($open)();
                $crate::store::suite::$name(store).await;
            }
        )*
    };
}
pub(super) use store_suite;

pub(super) fn put(table: TableId, key: &str, value: &str) -> Change {
    Change::Put(table, bytes(key), bytes(value))
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn batch(conditions: impl Into<Vec<Condition>>, changes: impl Into<Vec<Change>>) -> Batch {
    Batch { conditions: conditions.into(), changes: changes.into() }
}

fn row(key: &str, value: &str) -> Row {
    (bytes(key), bytes(value))
}

async fn fill<S: Store>(store: &S, rows: &[(&str, &str)]) {
    let changes: Vec<_> = rows.iter().map(|(key, value)| put(LEFT, key, value)).collect();
    assert_eq!(store.commit(batch([], changes)).await.unwrap(), Outcome::Committed);
}

pub(super) async fn reads_what_was_written<S: Store>(store: Arc<S>) {
    fill(&*store, &[("a", "1"), ("b", "")]).await;
    assert_eq!(store.get(LEFT, b"a").await.unwrap(), Some(bytes("1")));
    assert_eq!(store.get(LEFT, b"b").await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.get(LEFT, b"c").await.unwrap(), None);
    assert_eq!(store.get(RIGHT, b"a").await.unwrap(), None);
    let changes = [put(LEFT, "a", "2"), Change::Delete(LEFT, bytes("b")), Change::Delete(LEFT, bytes("never"))];
    assert_eq!(store.commit(batch([], changes)).await.unwrap(), Outcome::Committed);
    assert_eq!(store.get(LEFT, b"a").await.unwrap(), Some(bytes("2")));
    assert_eq!(store.get(LEFT, b"b").await.unwrap(), None);
    assert_eq!(store.commit(Batch::new()).await.unwrap(), Outcome::Committed);
}

pub(super) async fn refuses_a_batch_that_changes_a_key_twice<S: Store>(store: Arc<S>) {
    let twice = batch([], [put(LEFT, "a", "1"), Change::Delete(LEFT, bytes("a"))]);
    assert_eq!(store.commit(twice).await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(store.get(LEFT, b"a").await.unwrap(), None);
    let apart = batch([], [put(LEFT, "a", "1"), put(RIGHT, "a", "2")]);
    assert_eq!(store.commit(apart).await.unwrap(), Outcome::Committed);
}

pub(super) async fn names_the_first_condition_that_fails<S: Store>(store: Arc<S>) {
    fill(&*store, &[("a", "1")]).await;
    let absent = |key: &str| Condition::Absent(LEFT, bytes(key));
    let equals = |key: &str, value: &str| Condition::Equals(LEFT, bytes(key), bytes(value));
    let outcome = |conditions: Vec<Condition>| store.commit(batch(conditions, []));
    assert_eq!(outcome(vec![absent("b"), equals("a", "1")]).await.unwrap(), Outcome::Committed);
    assert_eq!(outcome(vec![absent("b"), absent("a"), equals("a", "2")]).await.unwrap(), Outcome::Conflict { condition: 1 });
    assert_eq!(outcome(vec![equals("a", "2")]).await.unwrap(), Outcome::Conflict { condition: 0 });
    assert_eq!(outcome(vec![equals("b", "")]).await.unwrap(), Outcome::Conflict { condition: 0 });
    assert_eq!(outcome(vec![Condition::Equals(RIGHT, bytes("a"), bytes("1"))]).await.unwrap(), Outcome::Conflict { condition: 0 });
}

pub(super) async fn changes_nothing_on_conflict<S: Store>(store: Arc<S>) {
    fill(&*store, &[("a", "1")]).await;
    let changes = [put(LEFT, "a", "2"), put(RIGHT, "b", "2")];
    let conflict = store.commit(batch([Condition::Absent(LEFT, bytes("a"))], changes)).await.unwrap();
    assert_eq!(conflict, Outcome::Conflict { condition: 0 });
    assert_eq!(store.get(LEFT, b"a").await.unwrap(), Some(bytes("1")));
    assert_eq!(store.get(RIGHT, b"b").await.unwrap(), None);
}

pub(super) async fn scans_in_order_within_bounds_and_limit<S: Store>(store: Arc<S>) {
    fill(&*store, &[("d", "4"), ("b", "2"), ("a", "1"), ("c", "3")]).await;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let keys = |rows: Vec<Row>| rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect::<String>();
    assert_eq!(store.scan(LEFT, all.clone(), 2).await.unwrap(), [row("a", "1"), row("b", "2")]);
    assert_eq!(keys(store.scan(LEFT, all.clone(), usize::MAX).await.unwrap()), "abcd");
    assert_eq!(keys(store.scan(LEFT, all, 0).await.unwrap()), "");
    let scan = |start: Bound<&str>, end: Bound<&str>| store.scan(LEFT, (start.map(bytes), end.map(bytes)), 9);
    assert_eq!(keys(scan(Bound::Included("b"), Bound::Excluded("d")).await.unwrap()), "bc");
    assert_eq!(keys(scan(Bound::Excluded("b"), Bound::Included("d")).await.unwrap()), "cd");
    assert_eq!(keys(scan(Bound::Included("b"), Bound::Included("b")).await.unwrap()), "b");
    let back = |start: Bound<&str>, end: Bound<&str>, limit| store.scan_back(LEFT, (start.map(bytes), end.map(bytes)), limit);
    assert_eq!(keys(back(Bound::Unbounded, Bound::Unbounded, 9).await.unwrap()), "dcba");
    assert_eq!(keys(back(Bound::Included("b"), Bound::Excluded("d"), 9).await.unwrap()), "cb");
    assert_eq!(keys(back(Bound::Excluded("a"), Bound::Included("d"), 2).await.unwrap()), "dc");
    for (start, end) in [
        (Bound::Included("c"), Bound::Included("b")),
        (Bound::Excluded("b"), Bound::Excluded("b")),
        (Bound::Included("b"), Bound::Excluded("b")),
        (Bound::Excluded("b"), Bound::Included("b")),
        (Bound::Excluded("d"), Bound::Excluded("a")),
    ] {
        assert_eq!(keys(scan(start, end).await.unwrap()), "", "{start:?} {end:?}");
        assert_eq!(keys(back(start, end, 9).await.unwrap()), "", "{start:?} {end:?}");
    }
}

pub(super) async fn scans_a_prefix<S: Store>(store: Arc<S>) {
    let changes = [&b"a"[..], b"a\xff", b"a\xff\xff", b"b", b"", b"\xff", b"\xff\xff", b"\xff\x00"]
        .map(|key| Change::Put(LEFT, Bytes::from_static(key), Bytes::new()));
    store.commit(batch([], changes)).await.unwrap();
    let count = async |under: &[u8]| store.scan(LEFT, prefix(under), 99).await.unwrap().len();
    assert_eq!([count(b"a").await, count(b"a\xff").await, count(b"\xff").await, count(b"").await, count(b"c").await], [3, 2, 3, 8, 0]);
}

pub(super) async fn an_absent_table_is_empty<S: Store>(store: Arc<S>) {
    assert_eq!(store.get(RIGHT, b"a").await.unwrap(), None);
    assert_eq!(store.scan(RIGHT, prefix(b""), 9).await.unwrap(), []);
    assert_eq!(store.commit(batch([], [Change::Delete(RIGHT, bytes("a"))])).await.unwrap(), Outcome::Committed);
}

pub(super) async fn one_of_many_racing_writers_wins<S: Store + 'static>(store: Arc<S>) {
    for round in 0..8 {
        let key = format!("version {round}");
        let race = (0..32).map(|writer| {
            let (store, key) = (Arc::clone(&store), bytes(&key));
            tokio::spawn(async move {
                let mine = format!("event {writer}");
                let changes = vec![Change::Put(LEFT, key.clone(), bytes(&mine)), Change::Put(RIGHT, bytes(&mine), key.clone())];
                store.commit(batch([Condition::Absent(LEFT, key)], changes)).await.unwrap()
            })
        });
        let outcomes: Vec<_> = futures_util::future::join_all(race).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Committed).count(), 1);
        let events = store.scan(RIGHT, prefix(b"event"), 99).await.unwrap();
        assert_eq!(events.iter().filter(|(_, version)| *version == bytes(&key)).count(), 1, "the losers left something");
    }
}

/// A step of a random history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Commit(Batch),
    Scan(TableId, KeyRange, usize),
    Reopen,
}

/// Histories over few keys, so that conditions hold and fail about equally.
pub(super) fn history() -> impl Strategy<Value = Vec<Step>> {
    let table = || prop_oneof![Just(LEFT), Just(RIGHT)];
    let key = || vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..3).prop_map(Bytes::from);
    let value = || vec(any::<u8>(), 0..2).prop_map(Bytes::from);
    let condition = prop_oneof![
        3 => (table(), key()).prop_map(|(table, key)| Condition::Absent(table, key)),
        1 => (table(), key(), value()).prop_map(|(table, key, value)| Condition::Equals(table, key, value)),
    ];
    let change = prop_oneof![
        3 => (table(), key(), value()).prop_map(|(table, key, value)| Change::Put(table, key, value)),
        1 => (table(), key()).prop_map(|(table, key)| Change::Delete(table, key)),
    ];
    let bound = || prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)];
    let step = prop_oneof![
        8 => (vec(condition, 0..3), vec(change, 0..5))
            .prop_map(|(conditions, changes)| Step::Commit(Batch { conditions, changes })),
        4 => (table(), (bound(), bound()), 0_usize..6).prop_map(|(table, range, limit)| Step::Scan(table, range, limit)),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..25)
}
