//! A whole engine on memory and a temporary folder, for tests of this floor and those below it.

use std::collections::HashMap;
use std::sync::Arc;

use super::publish::Publishing;
use super::{Config, Parts, Registry};
use crate::access::{self, Grant};
use crate::blob::{self, Blobs};
use crate::catalog::tests::draft;
use crate::catalog::{Catalog, Draft, View};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::identity::{Identity, Repository};
use crate::name::PackageName;
use crate::package::AccountId;
use crate::store::Store;
use crate::store::memory::Memory;
use crate::upstream::{self, Fetcher};
use crate::usage::{self, Downloads};
use crate::webhook::{self, Hooks};

pub(crate) struct Fixture {
    pub(crate) registry: Arc<Registry>,
    pub(crate) identity: Arc<Identity>,
    _folder: tempfile::TempDir,
}

pub(crate) async fn fixture() -> Fixture {
    fixture_on(Arc::new(Memory::new())).await
}

/// As [`fixture`], with the truth in a store of the test's own.
pub(crate) async fn fixture_on(truth: Arc<dyn Store>) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::stopped(Timestamp::from_millis(1_700_000_000_000));
    let cache: Arc<dyn Store> = Arc::new(Memory::new());
    let blobs = Blobs::open(folder.path(), Arc::clone(&cache), clock.clone(), blob::Config::default()).await.unwrap();
    let identity = Arc::new(Identity::new(Arc::clone(&truth), clock.clone()));
    let downloads = Arc::new(Downloads::new(Arc::clone(&truth), clock.clone(), usage::Config::default()));
    let hooks = Hooks::new(Arc::clone(&truth), clock.clone(), webhook::Config::default());
    let registry = Registry::new(Parts {
        config: Config::default(),
        access: access::Config::default(),
        catalog: Catalog::new(truth, Arc::clone(&identity), downloads, clock.clone()),
        identity: Arc::clone(&identity),
        blobs: blobs.clone(),
        fetcher: Fetcher::new(upstream::Config::default(), cache, blobs, clock.clone()),
        upstreams: HashMap::new(),
        hooks,
        clock,
    });
    Fixture { registry: Arc::new(registry), identity, _folder: folder }
}

impl Fixture {
    /// Publishes a version with one file, as this server itself.
    pub(crate) async fn publish(&self, ecosystem: &'static str, name: &str, owner: AccountId, number: &str) -> Result<()> {
        let name = PackageName::new(name).unwrap();
        let grant = Grant::system((ecosystem, &name, None));
        let publishing = Publishing { grant, owner, publisher: owner, view: View::Root, in_root: true, repository: None };
        self.registry.publish(&publishing, &draft(ecosystem, &name, owner, number)).await.map(drop)
    }

    /// As [`Fixture::publish`], of a package that has its rights from a repository.
    pub(crate) async fn publish_in_repository(
        &self,
        ecosystem: &'static str,
        name: &str,
        repository: &Repository,
        number: &str,
    ) -> Result<()> {
        let (name, owner) = (PackageName::new(name).unwrap(), repository.owner);
        let grant = Grant::system((ecosystem, &name, None));
        let view = View::Owner(owner);
        let publishing = Publishing { grant, owner, publisher: owner, view, in_root: true, repository: Some(repository.id) };
        let draft = Draft { repository: Some(repository.id), repository_scoped: true, ..draft(ecosystem, &name, owner, number) };
        self.registry.publish(&publishing, &draft).await.map(drop)
    }
}
