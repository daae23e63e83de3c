//! The catalog on a store in memory: what it remembers, and the laws of its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::change::{
    Change, New, delete_package, delete_versions, deleted_together, edit, list, publish, restore_package, restore_versions,
};
use super::*;
use crate::clock::Timestamp;
use crate::event::Deed;
use crate::identity::NewUser;
use crate::name::{OwnerName, RepositoryName, Tag};
use crate::package::Visibility;
use crate::store::memory::Memory;
use crate::store::{KeyRange, Row, TableId};
use crate::usage;

const ECOSYSTEM: &str = "npm";

struct Fixture {
    store: Arc<dyn Store>,
    identity: Arc<Identity>,
    catalog: Catalog,
    owner: AccountId,
    name: PackageName,
}

async fn fixture_on(store: Arc<dyn Store>) -> Fixture {
    let clock = Clock::stopped(Timestamp::from_millis(1_700_000_000_000));
    let identity = Arc::new(Identity::new(Arc::clone(&store), clock.clone()));
    let new = NewUser { login: OwnerName::new("ann").unwrap(), email: Some("ann@acme.example".to_owned()), site_admin: false };
    let owner = identity.create_user(new).await.unwrap().id;
    let downloads = Arc::new(Downloads::new(Arc::clone(&store), clock.clone(), usage::Config::default()));
    let catalog = Catalog::new(Arc::clone(&store), Arc::clone(&identity), downloads, clock);
    Fixture { store, identity, catalog, owner, name: PackageName::new("@ann/tool").unwrap() }
}

async fn fixture() -> Fixture {
    fixture_on(Arc::new(Memory::new())).await
}

/// A version with one file, and `latest` for the first.
pub(crate) fn draft(ecosystem: &'static str, name: &PackageName, owner: AccountId, number: &str) -> Draft {
    let file = File {
        name: format!("{}-{number}.tgz", name.as_str().rsplit('/').next().unwrap_or_default()),
        size: 3,
        sha256: Digest::sha256(number.as_bytes()),
        digests: Vec::new(),
        media_type: "application/octet-stream".to_owned(),
    };
    Draft {
        ecosystem,
        name: name.clone(),
        spelling: None,
        owner,
        publisher: owner,
        visibility: Visibility::Private,
        repository: None,
        repository_scoped: false,
        number: number.to_owned(),
        manifest: RawValue::from_string(format!("{{\"version\":\"{number}\"}}")).unwrap(),
        files: vec![file],
        tags: Vec::new(),
        first_tag: Tag::new("latest").ok(),
        part: false,
    }
}

fn latest() -> Tag {
    Tag::new("latest").unwrap()
}

impl Fixture {
    fn now(&self) -> Timestamp {
        self.catalog.clock().now()
    }

    fn grant(&self) -> Grant {
        Grant::system((ECOSYSTEM, &self.name, None))
    }

    fn draft(&self, number: &str) -> Draft {
        draft(ECOSYSTEM, &self.name, self.owner, number)
    }

    async fn try_head(&self) -> Option<Arc<Head>> {
        self.catalog.head(ECOSYSTEM, &self.name).await.unwrap()
    }

    async fn head(&self) -> Arc<Head> {
        self.try_head().await.unwrap()
    }

    async fn commit(&self, change: Change) -> Applied {
        self.catalog.commit(&change.package, change.batch).await.unwrap()
    }

    async fn ids(&self) -> New {
        let id = async || self.catalog.next_id().await.unwrap();
        New { package: PackageId(id().await), version: VersionId(id().await), in_root: true }
    }

    async fn publish_draft(&self, draft: &Draft) -> Applied {
        let head = self.try_head().await;
        self.commit(publish(head.as_deref(), draft, self.ids().await, self.now()).unwrap()).await
    }

    async fn publish(&self, number: &str) -> Applied {
        self.publish_draft(&self.draft(number)).await
    }

    async fn stored(&self, number: &str) -> Stored<Version> {
        self.catalog.version(&self.grant(), &*self.head().await, number).await.unwrap().unwrap()
    }

    async fn live(&self) -> Vec<Stored<Version>> {
        self.catalog.live_versions(&self.grant(), &*self.head().await).await.unwrap()
    }

    async fn numbers(&self) -> Vec<String> {
        self.catalog.versions(&self.grant(), &*self.head().await).await.unwrap().into_iter().map(|version| version.number).collect()
    }

    async fn has_file(&self, file: &str) -> bool {
        self.catalog.file(&self.grant(), &*self.head().await, file).await.unwrap().is_some()
    }

    async fn delete_version(&self, number: &str) -> Applied {
        let stored = self.stored(number).await;
        self.commit(delete_versions(&*self.head().await, &[stored], None, self.now()).unwrap()).await
    }

    async fn delete_package(&self) -> Applied {
        self.commit(delete_package(&*self.head().await, &self.live().await, self.now()).unwrap()).await
    }

    async fn restore_version(&self, number: &str) -> Result<Applied> {
        let stored = self.stored(number).await;
        let default = Some((latest(), number.to_owned()));
        Ok(self.commit(restore_versions(&*self.head().await, &self.live().await, &[stored], default, self.now())?).await)
    }

    async fn restore_package(&self) -> Result<Applied> {
        let head = self.head().await;
        let together = deleted_together(&head, self.catalog.all_versions(&self.grant(), &head).await.unwrap());
        Ok(self.commit(restore_package(&head, &together, None, self.now())?).await)
    }
}

/// A version's record as text, without the time of its last change.
fn text(version: &Version) -> String {
    let version = Version { updated_at: version.created_at, ..version.clone() };
    serde_json::to_string(&version).unwrap()
}

#[tokio::test]
async fn what_is_published_is_found() {
    let f = fixture().await;
    assert!(f.try_head().await.is_none());
    assert_eq!(f.publish("1.0.0").await, Applied::Yes);
    // That there was none had been remembered.
    let head = f.head().await;
    assert_eq!(head.package.tags, BTreeMap::from([(latest(), "1.0.0".to_owned())]));
    assert_eq!((head.policy.owner, head.policy.owner_is_organisation), (f.owner, false));
    assert_eq!(f.catalog.maintainers(&head).await.unwrap()[0].login, "ann");
    f.catalog.clock().advance(Duration::from_secs(1));
    assert_eq!(f.publish("0.9.0").await, Applied::Yes);
    assert_eq!(f.numbers().await, ["1.0.0", "0.9.0"], "in the order of publication");
    assert_eq!(f.head().await.package.tags[&latest()], "1.0.0");
    let row = f.catalog.file(&f.grant(), &*f.head().await, "tool-0.9.0.tgz").await.unwrap().unwrap();
    assert_eq!(row.version, "0.9.0");
    assert!(f.catalog.is_hosted(&row.file.sha256).await.unwrap());
    assert_eq!(f.catalog.hosted_blobs().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_head_is_remembered_until_it_or_identity_changes() {
    let f = fixture().await;
    f.publish("1.0.0").await;
    let first = f.head().await;
    assert!(Arc::ptr_eq(&first, &f.head().await));
    let batch = edit(&first, Deed::VisibilityChanged, f.now(), |package| package.visibility = Visibility::Public).unwrap();
    f.commit(batch).await;
    assert_eq!(f.head().await.policy.visibility, Visibility::Public);

    let repository = f.identity.create_repository(f.owner, RepositoryName::new("web").unwrap(), Visibility::Private).await.unwrap();
    f.commit(edit(&*f.head().await, Deed::Linked, f.now(), |package| package.repository = Some(repository.id)).unwrap()).await;
    assert_eq!(f.head().await.policy.repository.as_ref().unwrap().visibility, Visibility::Private);
    f.identity.set_visibility(repository.id, Visibility::Internal).await.unwrap();
    assert_eq!(f.head().await.policy.repository.as_ref().unwrap().visibility, Visibility::Internal);
    f.identity.delete_repository(repository.id, Batch::new()).await.unwrap();
    assert!(f.head().await.policy.repository.is_none(), "a deleted repository gives no rights and takes none");
}

/// A store that hands out package records only when it may, though it reads them at once.
struct Slow {
    inner: Memory,
    may: Semaphore,
}

impl Store for Slow {
    fn get<'a>(&'a self, table: TableId, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            let value = self.inner.get(table, key).await;
            if table == TableId("catalog.package") {
                self.may.acquire().await.unwrap().forget();
            }
            value
        }
        .boxed()
    }

    fn scan(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        self.inner.scan(table, range, limit)
    }

    fn scan_back(&self, table: TableId, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Row>>> {
        self.inner.scan_back(table, range, limit)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Outcome>> {
        self.inner.commit(batch)
    }
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_remembered_after_it() {
    let slow = Arc::new(Slow { inner: Memory::new(), may: Semaphore::new(0) });
    let f = fixture_on(Arc::<Slow>::clone(&slow)).await;
    f.publish("1.0.0").await;
    slow.may.add_permits(1);
    let head = f.head().await;
    f.identity.disable(f.owner).await.unwrap();

    let mut reading = std::pin::pin!(f.try_head());
    assert!((&mut reading).now_or_never().is_none(), "it has read and waits");
    f.commit(edit(&head, Deed::Linked, f.now(), |package| package.visibility = Visibility::Public).unwrap()).await;
    slow.may.add_permits(10);
    assert_eq!(reading.await.unwrap().policy.visibility, Visibility::Private, "it began before the change");
    assert_eq!(f.head().await.policy.visibility, Visibility::Public);
}

#[tokio::test]
async fn a_change_on_an_old_head_is_stale_and_changes_nothing() {
    let f = fixture().await;
    f.publish("1.0.0").await;
    let head = f.head().await;
    let change = || edit(&head, Deed::Linked, f.now(), |package| package.visibility = Visibility::Public).unwrap();
    assert_eq!(f.commit(change()).await, Applied::Yes);
    assert_eq!(f.commit(change()).await, Applied::Stale);
    assert_eq!(f.head().await.package.generation, head.package.generation + 1);
}

#[tokio::test]
async fn of_racing_publishers_of_one_version_exactly_one_wins() {
    let f = fixture().await;
    for round in ["1.0.0", "1.0.1"] {
        let head = f.try_head().await;
        let mut won = Vec::new();
        for racer in 0..8 {
            // All of them read the same state.
            let change = publish(head.as_deref(), &f.draft(round), f.ids().await, f.now()).unwrap();
            if f.commit(change).await == Applied::Yes {
                won.push(racer);
            }
        }
        assert_eq!(won, [0], "{round}");
    }
    assert_eq!(f.numbers().await, ["1.0.0", "1.0.1"]);
}

#[tokio::test]
async fn a_deleted_version_vanishes_and_its_number_stays_used() {
    let f = fixture().await;
    f.publish("1.0.0").await;
    f.publish("2.0.0").await;
    assert!(f.has_file("tool-1.0.0.tgz").await);
    assert_eq!(f.delete_version("1.0.0").await, Applied::Yes);
    assert_eq!(f.numbers().await, ["2.0.0"]);
    assert!(!f.has_file("tool-1.0.0.tgz").await);
    assert!(f.head().await.package.tags.is_empty());
    let blob = f.draft("1.0.0").files[0].sha256;
    assert!(f.catalog.is_hosted(&blob).await.unwrap(), "a restore needs the blob");
    assert_eq!(f.publish("1.0.0").await, Applied::Stale);

    assert_eq!(f.restore_version("1.0.0").await.unwrap(), Applied::Yes);
    assert_eq!(f.numbers().await, ["1.0.0", "2.0.0"]);
    assert!(f.has_file("tool-1.0.0.tgz").await);
    assert_eq!(f.head().await.package.tags[&latest()], "1.0.0", "there was no latest, so it is set");
    assert_eq!(f.restore_version("1.0.0").await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn an_unlisted_version_is_there_and_hidden() {
    let f = fixture().await;
    f.publish("1.0.0").await;
    let hide = async |reason: Option<&str>| {
        let head = f.head().await;
        let change = list(&head, &f.live().await[0], reason.map(str::to_owned), f.now()).unwrap();
        let made = (change.deed, change.versions[0].number.clone(), change.batch.changes.is_empty());
        f.commit(change).await;
        made
    };
    assert_eq!(hide(Some("broken")).await, (Deed::Unlisted, "1.0.0".to_owned(), false));
    assert_eq!(f.live().await[0].value.unlisted.as_deref(), Some("broken"));
    assert!(f.has_file("tool-1.0.0.tgz").await && f.numbers().await == ["1.0.0"]);
    assert!(hide(Some("broken")).await.2, "it is so already");
    assert_eq!(hide(None).await, (Deed::Relisted, "1.0.0".to_owned(), false));
    assert_eq!(f.live().await[0].value.unlisted, None);
    f.delete_version("1.0.0").await;
    let stored = f.stored("1.0.0").await;
    assert_eq!(list(&*f.head().await, &stored, Some(String::new()), f.now()).unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_restored_package_is_as_it_was() {
    let f = fixture().await;
    for number in ["1.0.0", "2.0.0", "3.0.0"] {
        f.publish(number).await;
    }
    // In the same millisecond as the package's deletion below, and yet not with it.
    f.delete_version("3.0.0").await;
    let before = (f.head().await.package.tags.clone(), f.live().await.iter().map(|stored| text(&stored.value)).collect::<Vec<_>>());
    assert_eq!(f.delete_package().await, Applied::Yes);
    assert!(f.head().await.package.deleted_at.is_some());
    assert!(f.live().await.is_empty() && !f.has_file("tool-1.0.0.tgz").await);
    for refused in [edit(&*f.head().await, Deed::Linked, f.now(), |_| {}), delete_package(&*f.head().await, &[], f.now())] {
        assert_eq!(refused.unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(f.restore_version("1.0.0").await.unwrap_err().kind(), Kind::Conflict);

    assert_eq!(f.restore_package().await.unwrap(), Applied::Yes);
    let after = (f.head().await.package.tags.clone(), f.live().await.iter().map(|stored| text(&stored.value)).collect::<Vec<_>>());
    assert_eq!(before, after);
    assert!(f.has_file("tool-2.0.0.tgz").await && !f.has_file("tool-3.0.0.tgz").await);
    assert_eq!(f.restore_package().await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn a_package_published_anew_is_not_restored_over() {
    let f = fixture().await;
    f.publish("1.0.0").await;
    f.delete_package().await;
    assert_eq!(f.publish("1.0.0").await, Applied::Stale, "the number stays used");
    assert_eq!(f.publish("1.0.1").await, Applied::Yes);
    assert_eq!(f.numbers().await, ["1.0.1"]);
    assert_eq!(f.head().await.package.tags[&latest()], "1.0.1");
    assert_eq!(f.restore_package().await.unwrap_err().kind(), Kind::Conflict);
    f.restore_version("1.0.0").await.unwrap();
    assert_eq!(f.live().await.len(), 2);
}

#[tokio::test]
async fn a_file_name_that_is_taken_is_not_given_back() {
    let f = fixture().await;
    f.publish("1.0.0").await;
    f.publish("2.0.0").await;
    f.delete_version("1.0.0").await;
    let mut other = f.draft("3.0.0");
    other.files[0].name = "tool-1.0.0.tgz".to_owned();
    assert_eq!(f.publish_draft(&other).await, Applied::Yes);
    let error = f.restore_version("1.0.0").await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (Kind::Conflict, Subject::File));
    other.number = "4.0.0".to_owned();
    assert_eq!(f.publish_draft(&other).await, Applied::Stale);
}

#[tokio::test]
async fn heads_come_in_the_order_of_names_and_deleted_ones_too() {
    let f = fixture().await;
    for name in ["c", "a", "b"] {
        let name = PackageName::new(name).unwrap();
        let draft = draft(ECOSYSTEM, &name, f.owner, "1.0.0");
        f.commit(publish(None, &draft, f.ids().await, f.now()).unwrap()).await;
    }
    f.publish("1.0.0").await;
    f.delete_package().await;
    let names = |heads: Vec<Arc<Head>>| heads.iter().map(|head| head.package.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(f.catalog.heads(ECOSYSTEM, None, 10).await.unwrap()), ["@ann/tool", "a", "b", "c"]);
    let after = PackageName::new("a").unwrap();
    assert_eq!(names(f.catalog.heads(ECOSYSTEM, Some(&after), 1).await.unwrap()), ["b"]);
    assert!(f.catalog.heads("gem", None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_is_the_first_owners_in_the_root_view_and_each_owners_in_its_own() {
    let f = fixture().await;
    let new = NewUser { login: OwnerName::new("bob").unwrap(), email: None, site_admin: false };
    let bob = f.identity.create_user(new).await.unwrap().id;
    let name = PackageName::new("rack").unwrap();
    assert!(f.catalog.head_in(View::Owner(bob), ECOSYSTEM, &name).await.unwrap().is_none());
    let first = publish(None, &draft(ECOSYSTEM, &name, f.owner, "1.0.0"), f.ids().await, f.now()).unwrap();
    assert_eq!(f.commit(first).await, Applied::Yes);
    // The root view has it, so that bob's must not take it there.
    let second = |in_root, ids: New| publish(None, &draft(ECOSYSTEM, &name, bob, "1.0.0"), New { in_root, ..ids }, f.now()).unwrap();
    assert_eq!(f.commit(second(true, f.ids().await)).await, Applied::Stale);
    assert_eq!(f.commit(second(false, f.ids().await)).await, Applied::Yes);
    assert_eq!(f.commit(second(false, f.ids().await)).await, Applied::Stale, "bob has one of that name");

    let owner = async |view| f.catalog.head_in(view, ECOSYSTEM, &name).await.unwrap().map(|head| head.package.owner);
    for _ in 0..2 {
        assert_eq!(owner(View::Root).await, Some(f.owner));
        assert_eq!(owner(View::Owner(f.owner)).await, Some(f.owner));
        assert_eq!(owner(View::Owner(bob)).await, Some(bob));
        assert_eq!(owner(View::Owner(AccountId(99))).await, None);
    }
    // Both stand at one generation, and have a file of the same name: it is each package's own.
    let grant = Grant::system((ECOSYSTEM, &name, None));
    let mine = f.catalog.head_in(View::Owner(bob), ECOSYSTEM, &name).await.unwrap().unwrap();
    let theirs = f.catalog.head(ECOSYSTEM, &name).await.unwrap().unwrap();
    assert_eq!(mine.package.generation, theirs.package.generation);
    let stored = f.catalog.version(&grant, &theirs, "1.0.0").await.unwrap().unwrap();
    assert!(f.catalog.file(&grant, &mine, "rack-1.0.0.tgz").await.unwrap().is_some());
    f.commit(delete_versions(&theirs, &[stored], None, f.now()).unwrap()).await;
    f.commit(edit(&mine, Deed::Starred, f.now(), |_| {}).unwrap()).await;
    let mine = f.catalog.head_by_id(mine.package.id).await.unwrap().unwrap();
    let theirs = f.catalog.head_by_id(theirs.package.id).await.unwrap().unwrap();
    assert_eq!(mine.package.generation, theirs.package.generation);
    assert!(f.catalog.file(&grant, &theirs, "rack-1.0.0.tgz").await.unwrap().is_none());
    assert!(f.catalog.file(&grant, &mine, "rack-1.0.0.tgz").await.unwrap().is_some());
}

#[tokio::test]
async fn an_account_goes_only_without_live_packages() {
    let f = fixture().await;
    let unowned = f.catalog.owns_nothing(f.owner).await.unwrap();
    f.publish("1.0.0").await;
    assert_eq!(f.catalog.owns_nothing(f.owner).await.unwrap_err().kind(), Kind::Conflict);
    // Looked before the publish: the deletion does not go through on old knowledge.
    assert_eq!(f.identity.delete_account(f.owner, unowned).await.unwrap_err().kind(), Kind::Unavailable);

    f.delete_package().await;
    let unowned = f.catalog.owns_nothing(f.owner).await.unwrap();
    f.restore_package().await.unwrap();
    assert!(f.identity.delete_account(f.owner, unowned).await.is_err(), "it was restored in between");
    f.delete_package().await;
    let unowned = f.catalog.owns_nothing(f.owner).await.unwrap();
    let head = f.head().await;
    let mut revived = publish(Some(&head), &f.draft("2.0.0"), f.ids().await, f.now()).unwrap();
    f.identity.expect_live(&mut revived.batch, f.owner).await.unwrap();
    f.identity.delete_account(f.owner, unowned).await.unwrap();
    assert_eq!(f.commit(revived).await, Applied::Stale, "the account went in between");
    assert!(f.head().await.policy.owner_is_organisation, "roles on it count for nobody");
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    DeleteVersion(u8),
    RestoreVersion(u8),
    DeletePackage,
    RestorePackage,
    Edit,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..5_u8;
    prop_oneof![
        3 => number.clone().prop_map(Step::Publish),
        2 => number.clone().prop_map(Step::DeleteVersion),
        2 => number.prop_map(Step::RestoreVersion),
        1 => Just(Step::DeletePackage),
        1 => Just(Step::RestorePackage),
        1 => Just(Step::Edit),
    ]
}

/// What must be true, in the plainest words.
#[derive(Default)]
struct Model {
    ever: BTreeSet<u8>,
    live: BTreeSet<u8>,
    /// What was live when the package was deleted.
    deleted: Option<BTreeSet<u8>>,
    generation: u64,
}

impl Model {
    /// Whether the step is allowed; then it is made.
    fn make(&mut self, step: &Step) -> bool {
        let exists = !self.ever.is_empty();
        let up = exists && self.deleted.is_none();
        let allowed = match step {
            Step::Publish(number) => !self.ever.contains(number),
            Step::DeleteVersion(number) => up && self.live.contains(number),
            Step::RestoreVersion(number) => up && self.ever.contains(number) && !self.live.contains(number),
            Step::DeletePackage | Step::Edit => up,
            Step::RestorePackage => self.deleted.is_some(),
        };
        if allowed {
            self.generation += 1;
            match step {
                Step::Publish(number) => {
                    self.deleted = None;
                    self.ever.insert(*number);
                    self.live.insert(*number);
                }
                Step::DeleteVersion(number) => drop(self.live.remove(number)),
                Step::RestoreVersion(number) => drop(self.live.insert(*number)),
                Step::DeletePackage => self.deleted = Some(std::mem::take(&mut self.live)),
                Step::RestorePackage => self.live = self.deleted.take().unwrap_or_default(),
                Step::Edit => {}
            }
        }
        allowed
    }
}

/// Whether the catalog made the step. Steps on what never existed are not even put to it.
async fn attempt(f: &Fixture, step: &Step) -> bool {
    let number = |number: &u8| format!("{number}.0.0");
    let Some(head) = f.try_head().await else {
        return match step {
            Step::Publish(given) => f.publish(&number(given)).await == Applied::Yes,
            _ => false,
        };
    };
    let made = |result: Result<Applied>| result.is_ok_and(|applied| applied == Applied::Yes);
    match step {
        Step::Publish(given) => f.publish(&number(given)).await == Applied::Yes,
        Step::DeleteVersion(given) => {
            let live = f.live().await;
            let Some(stored) = live.iter().find(|stored| stored.value.number == number(given)) else { return false };
            match delete_versions(&head, std::slice::from_ref(stored), None, f.now()) {
                Ok(batch) => f.commit(batch).await == Applied::Yes,
                Err(_) => false,
            }
        }
        Step::RestoreVersion(given) => match f.catalog.version(&f.grant(), &head, &number(given)).await.unwrap() {
            Some(_) => made(f.restore_version(&number(given)).await),
            None => false,
        },
        Step::DeletePackage => match delete_package(&head, &f.live().await, f.now()) {
            Ok(batch) => f.commit(batch).await == Applied::Yes,
            Err(_) => false,
        },
        Step::RestorePackage => made(f.restore_package().await),
        Step::Edit => match edit(&head, Deed::Linked, f.now(), |_| {}) {
            Ok(batch) => f.commit(batch).await == Applied::Yes,
            Err(_) => false,
        },
    }
}

#[tokio::test]
async fn what_was_deleted_long_ago_gives_its_blobs_up_and_cannot_come_back() {
    let f = fixture().await;
    for number in ["1.0.0", "2.0.0", "3.0.0"] {
        f.publish(number).await;
    }
    let grant = Grant::system((ECOSYSTEM, &f.name, None));
    let delete = async |number: &str| {
        let head = f.try_head().await.unwrap();
        let gone = f.catalog.version(&grant, &head, number).await.unwrap().unwrap();
        let batch = delete_versions(&head, &[gone], None, f.catalog.clock().now()).unwrap();
        assert_eq!(f.commit(batch).await, Applied::Yes);
    };
    delete("1.0.0").await;
    f.catalog.clock().advance(Duration::from_secs(100));
    delete("2.0.0").await;
    let before = f.catalog.clock().now();
    assert_eq!(f.catalog.expired(before).await.unwrap().len(), 1);
    assert_eq!(f.catalog.purge(&grant, before).await.unwrap(), 1);
    assert_eq!(f.catalog.purge(&grant, before).await.unwrap(), 0);
    assert!(f.catalog.expired(before).await.unwrap().is_empty());
    let hosted = f.catalog.hosted_blobs().await.unwrap();
    let kept = ["1.0.0", "2.0.0", "3.0.0"].map(|number| hosted.contains(&Digest::sha256(number.as_bytes())));
    assert_eq!(kept, [false, true, true]);
    let head = f.try_head().await.unwrap();
    let live = f.catalog.live_versions(&grant, &head).await.unwrap();
    for (number, comes_back) in [("1.0.0", false), ("2.0.0", true)] {
        let deleted = f.catalog.version(&grant, &head, number).await.unwrap().unwrap();
        assert_eq!(restore_versions(&head, &live, std::slice::from_ref(&deleted), None, before).is_ok(), comes_back, "{number}");
    }
}

#[tokio::test]
async fn an_owners_packages_are_listed_by_ecosystem_in_pages() {
    let f = fixture().await;
    for name in ["a", "b", "c"] {
        let name = PackageName::new(name).unwrap();
        for ecosystem in [ECOSYSTEM, "other"] {
            let change = publish(None, &draft(ecosystem, &name, f.owner, "1.0.0"), f.ids().await, f.now()).unwrap();
            assert_eq!(f.commit(change).await, Applied::Yes);
        }
    }
    let mut seen = Vec::new();
    let (mut after, mut pages) = (None, 0);
    loop {
        let (heads, next) = f.catalog.owned(f.owner, Some(ECOSYSTEM), after, 2).await.unwrap();
        seen.extend(heads.iter().map(|head| head.package.name.to_string()));
        pages += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 4));
    assert!(f.catalog.owned(AccountId(999), None, None, 2).await.unwrap().0.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_history_keeps_the_laws(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let f = fixture().await;
            let mut model = Model::default();
            let mut first_seen: BTreeMap<String, String> = BTreeMap::new();
            for step in &steps {
                let allowed = model.make(step);
                prop_assert_eq!(attempt(&f, step).await, allowed, "{:?} of {:?}", step, steps);
                let Some(head) = f.try_head().await else { continue };
                prop_assert_eq!(head.package.generation, model.generation);
                prop_assert_eq!(head.package.deleted_at.is_some(), model.deleted.is_some());
                let expected: Vec<String> = model.live.iter().map(|number| format!("{number}.0.0")).collect();
                let live = f.live().await;
                let numbers: Vec<String> = live.iter().map(|stored| stored.value.number.clone()).collect();
                prop_assert_eq!(&numbers, &expected);
                for stored in &live {
                    let text = text(&stored.value);
                    let first = first_seen.entry(stored.value.number.clone()).or_insert_with(|| text.clone());
                    prop_assert_eq!(&text, &*first, "a number always means the same");
                }
                prop_assert_eq!(head.package.versions, live.len() as u64);
                let grant = Grant::system((ECOSYSTEM, &f.name, None));
                let listed = f.catalog.listed(&grant, &head).await.unwrap();
                let all = f.catalog.all_versions(&grant, &head).await.unwrap();
                prop_assert_eq!(listed.len(), all.len());
                for stored in all {
                    let id = stored.value.id;
                    prop_assert!(listed.contains(&Listed::of(&stored.value)), "{:?}", listed);
                    prop_assert_eq!(f.catalog.version_by_id(&grant, &head, id).await.unwrap().map(|found| found.raw), Some(stored.raw));
                }
                for number in 0..5_u8 {
                    prop_assert_eq!(f.has_file(&format!("tool-{number}.0.0.tgz")).await, model.live.contains(&number));
                }
                // A catalog that remembers nothing sees the same.
                let fresh = Catalog::new(Arc::clone(&f.store), Arc::clone(&f.identity), Arc::clone(&f.catalog.0.downloads), f.catalog.clock().clone());
                prop_assert_eq!(&fresh.head(ECOSYSTEM, &f.name).await.unwrap().unwrap().package, &head.package);
            }
            Ok(())
        })?;
    }
}
