//! Who is told of what, over an engine in memory: nothing is sent here, only queued.

use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::access::Grant;
use crate::catalog::tests::draft;
use crate::catalog::{Draft as Version, View};
use crate::identity::{AccountChange, NewUser, OrganisationRole, RepositoryRole};
use crate::name::{OwnerName, PackageName, RepositoryName};
use crate::package::{PackageId, Principal, RepositoryId, Role, Visibility};
use crate::registry::publish::Publishing;
use crate::registry::{Settings as PackageSettings, fixture};
use crate::webhook::Settings;

/// The organisation `acme` with the private repository `web`; `own` owns it, `adm` administers `web`, `mem` is a member.
struct World {
    engine: fixture::Fixture,
    accounts: HashMap<&'static str, AccountId>,
    web: RepositoryId,
    teller: Teller,
}

impl World {
    async fn new() -> Self {
        let engine = fixture::fixture().await;
        let mut accounts = HashMap::new();
        for login in ["own", "adm", "mem"] {
            let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: false };
            accounts.insert(login, engine.identity.create_user(new).await.unwrap().id);
        }
        let acme = engine.identity.create_organisation(OwnerName::new("acme").unwrap(), Some(accounts["own"])).await.unwrap().id;
        accounts.insert("acme", acme);
        for login in ["adm", "mem"] {
            engine.identity.set_member(acme, accounts[login], OrganisationRole::Member).await.unwrap();
        }
        let name = RepositoryName::new("web").unwrap();
        let web = engine.identity.create_repository(acme, name, Visibility::Private).await.unwrap().id;
        engine.identity.set_repository_role(web, Principal::User(accounts["adm"]), Some(RepositoryRole::Admin)).await.unwrap();
        let registry = Arc::clone(&engine.registry);
        let moment = move || Moment { registry: Arc::clone(&registry), public_url: Some("https://packages.example".to_owned()) };
        let teller = Teller::new(engine.registry.hooks().clone(), Box::new(moment)).unwrap();
        Self { engine, accounts, web, teller }
    }

    fn hooks(&self) -> &Hooks {
        self.engine.registry.hooks()
    }

    /// A webhook of `acme` or of `web` that somebody set up, with its ping sent.
    async fn hook(&self, target: Target, author: &str, events: &[&str], settings: Settings) -> HookId {
        let hooks = self.hooks();
        let now = hooks.clock().now();
        let id = HookId(hooks.next_id().await.unwrap());
        let settings = Settings { url: format!("https://example.com/{id}"), ..settings };
        let events = events.iter().map(|name| (*name).to_owned()).collect();
        let author = self.accounts[author];
        let hook =
            Hook { id, target, author, active: true, events, settings, origin: "http://own".to_owned(), created_at: now, updated_at: now };
        let ping = Draft { hook: id, event: "ping", action: None, package: None, repository: None, payload: "{}".to_owned() };
        hooks.create(&hook, ping, None).await.unwrap();
        let due = hooks.due(id).await.unwrap().unwrap();
        hooks.take_back(&due).await.unwrap();
        id
    }

    fn acme(&self) -> Target {
        Target::Organisation(self.accounts["acme"])
    }

    async fn of_acme(&self, events: &[&str], settings: Settings) -> HookId {
        self.hook(self.acme(), "own", events, settings).await
    }

    async fn publish(&self, name: &str, number: &str, change: impl FnOnce(&mut Version)) -> PackageId {
        let name = PackageName::new(name).unwrap();
        let owner = self.accounts["acme"];
        let mut version = draft("npm", &name, owner, number);
        version.publisher = self.accounts["mem"];
        change(&mut version);
        let grant = Grant::system(("npm", &name, None));
        let publishing = Publishing { grant, owner, publisher: self.accounts["mem"], view: View::Root, in_root: true, repository: None };
        self.engine.registry.publish(&publishing, &version).await.unwrap();
        self.engine.registry.catalog().head("npm", &name).await.unwrap().unwrap().package.id
    }

    /// Tells what there is to tell.
    async fn tell(&self) {
        let mut aside = Aside::default();
        while self.teller.tell(&mut aside).await.unwrap() {}
        self.hooks().tell(&aside.take(), Vec::new()).await.unwrap();
    }

    /// Tells what there is to tell and takes what waits for a webhook off its queue, as event and payload.
    async fn told(&self, hook: HookId) -> Vec<(String, Value)> {
        self.tell().await;
        let mut seen = Vec::new();
        while let Some(due) = self.hooks().due(hook).await.unwrap() {
            seen.push((due.delivery.event.clone(), serde_json::from_str(due.payload.json()).unwrap()));
            self.hooks().take_back(&due).await.unwrap();
        }
        seen
    }

    /// As [`World::told`], as event and action.
    async fn heard(&self, hook: HookId) -> Vec<String> {
        let said = |(event, payload): (String, Value)| format!("{event} {}", payload["action"].as_str().unwrap());
        self.told(hook).await.into_iter().map(said).collect()
    }
}

fn grant(name: &str) -> Grant {
    Grant::system(("npm", &PackageName::new(name).unwrap(), None))
}

fn usual() -> Settings {
    Settings::to(String::new())
}

fn everything() -> Settings {
    Settings { actions: PackageAction::ALL.into(), ..usual() }
}

#[tokio::test]
async fn a_webhook_hears_the_events_that_it_names() {
    let w = World::new().await;
    let both = w.of_acme(&["*"], usual()).await;
    let old = w.of_acme(&["registry_package", "push"], usual()).await;
    let neither = w.of_acme(&["push"], usual()).await;
    w.publish("@acme/tool", "1.0.0", |_| ()).await;
    assert_eq!(w.heard(both).await, ["package published", "registry_package published"]);
    assert_eq!(w.heard(old).await, ["registry_package published"]);
    assert_eq!(w.heard(neither).await, [""; 0]);
    assert!(w.hooks().untold(1).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_github_does_not_tell_is_told_to_those_who_ask_for_it() {
    let w = World::new().await;
    let usual = w.of_acme(&["package"], usual()).await;
    let all = w.of_acme(&["package"], everything()).await;
    w.publish("@acme/tool", "1.0.0", |_| ()).await;
    w.publish("@acme/tool", "1.1.0", |_| ()).await;
    let grant = grant("@acme/tool");
    let registry = &w.engine.registry;
    registry.delete_version(&grant, "1.1.0", &crate::registry::Untagged).await.unwrap();
    registry.restore_version(&grant, "1.1.0", &crate::registry::Untagged).await.unwrap();
    registry.delete_package(&grant).await.unwrap();
    registry.restore_package(&grant, &crate::registry::Untagged).await.unwrap();
    let settings = PackageSettings { visibility: Some(Visibility::Internal), ..PackageSettings::default() };
    registry.change_settings(&grant, settings).await.unwrap();
    let settings = PackageSettings { repository: Some(Some(w.web)), ..PackageSettings::default() };
    registry.change_settings(&grant, settings).await.unwrap();
    registry.set_role(&grant, Principal::User(w.accounts["mem"]), Some(Role::Read)).await.unwrap();
    assert_eq!(w.heard(usual).await, ["package published", "package published"]);
    let told = w.told(all).await;
    let actions: Vec<&str> = told.iter().map(|(_, payload)| payload["action"].as_str().unwrap()).collect();
    let expected = ["published", "published", "deleted", "restored", "deleted", "restored", "visibility_changed", "linked"];
    assert_eq!(actions, expected);
    let versions: Vec<&Value> = told.iter().map(|(_, payload)| &payload["package"]["package_version"]["version"]).collect();
    assert_eq!((versions[2], versions[3], versions[4]), (&"1.1.0".into(), &"1.1.0".into(), &Value::Null));
}

#[tokio::test]
async fn parts_of_a_larger_publish_are_left_out_where_that_is_asked_for() {
    let w = World::new().await;
    let each = w.of_acme(&["package"], usual()).await;
    let whole = w.of_acme(&["package"], Settings { whole_publishes: true, ..usual() }).await;
    for (number, part) in [("1.0.0", true), ("1.0.1", true), ("1.1.0", false)] {
        w.publish("@acme/image", number, |draft| draft.part = part).await;
    }
    assert_eq!(w.told(each).await.len(), 3);
    let told = w.told(whole).await;
    assert_eq!(told.iter().map(|(_, payload)| &payload["package"]["package_version"]["version"]).collect::<Vec<_>>(), ["1.1.0"]);
}

#[tokio::test]
async fn a_repositorys_webhook_hears_of_the_packages_that_are_linked_to_it() {
    let w = World::new().await;
    let web = Target::Repository(w.web);
    let hook = w.hook(web, "adm", &["package"], usual()).await;
    w.publish("@acme/other", "1.0.0", |_| ()).await;
    assert_eq!(w.heard(hook).await, [""; 0]);
    w.publish("@acme/tool", "1.0.0", |draft| draft.repository = Some(w.web)).await;
    let told = w.told(hook).await;
    let payload = &told[0].1;
    assert_eq!((told.len(), &payload["repository"]["full_name"]), (1, &"acme/web".into()));
    assert_eq!((&payload["repository"]["private"], payload["repository"].get("permissions")), (&true.into(), None));
    // The package's own roles take the place of the repository's: of those the author has none.
    let settings = PackageSettings { inherits: Some(false), ..PackageSettings::default() };
    w.engine.registry.change_settings(&grant("@acme/tool"), settings).await.unwrap();
    w.publish("@acme/tool", "1.1.0", |_| ()).await;
    assert_eq!(w.heard(hook).await, [""; 0]);
}

#[tokio::test]
async fn whose_author_lost_the_right_is_told_nothing_more() {
    let w = World::new().await;
    let identity = &w.engine.identity;
    let publish = async |number: &str| w.publish("@acme/tool", number, |draft| draft.repository = Some(w.web)).await;
    let acme = w.of_acme(&["package"], usual()).await;
    let web = w.hook(Target::Repository(w.web), "adm", &["package"], usual()).await;
    publish("1.0.0").await;
    assert_eq!((w.heard(acme).await.len(), w.heard(web).await.len()), (1, 1));

    // Without the role on the repository there is none on what inherits from it, nor is it seen.
    identity.set_repository_role(w.web, Principal::User(w.accounts["adm"]), None).await.unwrap();
    publish("1.1.0").await;
    assert_eq!((w.heard(acme).await.len(), w.heard(web).await.len()), (1, 0));
    identity.set_repository_role(w.web, Principal::User(w.accounts["adm"]), Some(RepositoryRole::Admin)).await.unwrap();
    publish("1.2.0").await;
    assert_eq!((w.heard(acme).await.len(), w.heard(web).await.len()), (1, 1));

    // An owner who becomes a member reads what members read; who leaves is told of nothing at all.
    identity.set_member(w.accounts["acme"], w.accounts["adm"], OrganisationRole::Owner).await.unwrap();
    identity.set_member(w.accounts["acme"], w.accounts["own"], OrganisationRole::Member).await.unwrap();
    publish("1.3.0").await;
    w.publish("@acme/open", "1.0.0", |draft| draft.visibility = Visibility::Internal).await;
    let told = w.told(acme).await;
    assert_eq!(told.iter().map(|(_, payload)| &payload["package"]["name"]).collect::<Vec<_>>(), ["open"]);
    identity.remove_member(w.accounts["acme"], w.accounts["own"]).await.unwrap();
    w.publish("@acme/open", "1.1.0", |_| ()).await;
    assert_eq!(w.heard(acme).await, [""; 0]);
    // A suspended user hears nothing either.
    let change = AccountChange { disabled: Some(true), ..AccountChange::default() };
    w.told(web).await;
    identity.change_account(w.accounts["adm"], change).await.unwrap();
    publish("1.4.0").await;
    assert_eq!(w.heard(web).await, [""; 0]);
}

#[tokio::test]
async fn what_waits_is_taken_back_when_the_right_is_lost_meanwhile() {
    let w = World::new().await;
    let hook = w.hook(Target::Repository(w.web), "adm", &["package"], usual()).await;
    w.publish("@acme/tool", "1.0.0", |draft| draft.repository = Some(w.web)).await;
    w.tell().await;
    assert!(w.hooks().due(hook).await.unwrap().is_some());
    w.engine.identity.set_repository_role(w.web, Principal::User(w.accounts["adm"]), None).await.unwrap();
    assert_eq!(w.teller.send_one(hook).await.unwrap(), Next::More);
    assert_eq!(w.teller.send_one(hook).await.unwrap(), Next::Nothing);
    assert_eq!(w.hooks().deliveries(hook, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_switched_off_webhook_is_sent_nothing() {
    let w = World::new().await;
    let hook = w.of_acme(&["package"], usual()).await;
    w.publish("@acme/tool", "1.0.0", |_| ()).await;
    w.tell().await;
    let off = w.hooks().change::<()>(w.acme(), hook, None, |hook| {
        hook.active = false;
        Ok(())
    });
    off.await.unwrap().unwrap();
    assert_eq!(w.teller.send_one(hook).await.unwrap(), Next::More);
    w.publish("@acme/tool", "1.1.0", |_| ()).await;
    assert_eq!(w.heard(hook).await, [""; 0]);
}

#[tokio::test]
async fn payloads_have_everything_that_githubs_schema_requires() {
    let w = World::new().await;
    let hook = w.of_acme(&["package"], usual()).await;
    w.publish("@acme/tool", "1.0.0-rc.1", |_| ()).await;
    let payload = w.told(hook).await.remove(0).1;
    let has = |value: &Value, names: &str| {
        for name in names.split_whitespace() {
            assert!(value.get(name).is_some(), "{name} is missing in {value}");
        }
    };
    has(&payload, "action package sender organization");
    assert_eq!((payload.get("repository"), &payload["sender"]["login"]), (None, &"ghost".into()));
    let package = &payload["package"];
    has(package, "id name namespace description ecosystem package_type html_url created_at updated_at owner package_version registry");
    assert_eq!((&package["name"], &package["namespace"], &package["package_type"]), (&"tool".into(), &"acme".into(), &"npm".into()));
    has(&package["registry"], "about_url name type url vendor");
    assert_eq!(package["registry"]["url"], "https://packages.example/npm");
    let version = &package["package_version"];
    has(version, "id version name description summary html_url installation_command metadata package_files author npm_metadata");
    assert_eq!((&version["prerelease"], &version["author"]["login"]), (&true.into(), &"mem".into()));
    assert_eq!(version["installation_command"], "npm install @acme/tool@1.0.0-rc.1");
    let file = &version["package_files"][0];
    has(file, "download_url id name sha256 sha1 md5 content_type state size created_at updated_at");
    assert_eq!(file["download_url"], "https://packages.example/npm/@acme/tool/-/tool-1.0.0-rc.1.tgz");
    assert!(file["id"].as_u64().is_some_and(|id| id < 1 << 53));
}

#[tokio::test]
async fn a_payload_past_the_limit_loses_what_only_its_ecosystem_has() {
    let w = World::new().await;
    let hook = w.of_acme(&["package"], usual()).await;
    let manifest = format!(r#"{{"description":"small","readme":"{}"}}"#, "x".repeat(5 << 20));
    w.publish("@acme/tool", "1.0.0", |draft| draft.manifest = serde_json::value::RawValue::from_string(manifest).unwrap()).await;
    let version = w.told(hook).await.remove(0).1["package"]["package_version"].clone();
    assert_eq!((version.get("npm_metadata"), version.get("body"), &version["summary"]), (None, None, &"small".into()));
    let manifest = format!(r#"{{"description":"{}"}}"#, "x".repeat(5 << 20));
    w.publish("@acme/tool", "1.1.0", |draft| draft.manifest = serde_json::value::RawValue::from_string(manifest).unwrap()).await;
    assert_eq!(w.heard(hook).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_is_told_of_leaves_the_outbox_in_bulk() {
    let w = World::new().await;
    let mut aside = Aside::default();
    w.publish("@acme/tool", "1.0.0", |_| ()).await;
    w.publish("@acme/tool", "1.1.0", |_| ()).await;
    assert!(!w.teller.tell(&mut aside).await.unwrap());
    assert_eq!((w.hooks().untold(9).await.unwrap().len(), aside.quiet.len()), (2, 2));
    tokio::time::advance(PAUSE).await;
    w.publish("@acme/tool", "1.2.0", |_| ()).await;
    assert!(!w.teller.tell(&mut aside).await.unwrap());
    assert_eq!((w.hooks().untold(9).await.unwrap(), aside.quiet.len()), (Vec::new(), 0));
    // Or with the next one that somebody is told of.
    w.publish("@acme/tool", "1.3.0", |_| ()).await;
    w.teller.tell(&mut aside).await.unwrap();
    let hook = w.of_acme(&["package"], usual()).await;
    w.publish("@acme/tool", "1.4.0", |_| ()).await;
    w.teller.tell(&mut aside).await.unwrap();
    assert_eq!((w.hooks().untold(9).await.unwrap(), w.heard(hook).await.len()), (Vec::new(), 1));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_told_keeps_no_other_waiting() {
    let w = World::new().await;
    let hook = w.of_acme(&["package"], usual()).await;
    let id = w.publish("@acme/tool", "1.0.0", |_| ()).await;
    // Its package's record is damaged.
    let catalog = w.engine.registry.catalog();
    let package = catalog.package(id).await.unwrap().unwrap();
    let mut batch = crate::store::Batch::new();
    let key = crate::store::table::Key::new().number(id.0).encode();
    batch.changes.push(crate::store::Change::Put(crate::store::TableId("catalog.package"), key, "nonsense".into()));
    catalog.commit(&package, batch).await.unwrap();
    w.publish("@acme/other", "1.0.0", |_| ()).await;
    let mut aside = Aside::default();
    assert!(!w.teller.tell(&mut aside).await.unwrap());
    assert_eq!(w.hooks().due(hook).await.unwrap().unwrap().delivery.event, "package");
    assert_eq!((w.hooks().untold(9).await.unwrap().len(), aside.failing.len()), (1, 1));
    tokio::time::advance(PATIENCE).await;
    w.teller.tell(&mut aside).await.unwrap();
    tokio::time::advance(PAUSE).await;
    w.teller.tell(&mut aside).await.unwrap();
    assert_eq!((w.hooks().untold(9).await.unwrap(), aside.failing.len()), (Vec::new(), 0));
}
