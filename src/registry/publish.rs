//! Publishing and changing hosted packages: the transaction all ecosystems share.
//!
//! The rights are decided before the body is read. The blobs are on disk, synced
//! and leased before the batch that names them is committed, and the client hears
//! of success after that. A crash in between leaves an unreferenced blob, which a
//! sweep takes.

use std::sync::Arc;

use super::{Plan, Registry};
use crate::access::{self, Action, Grant, Owner, Policy, RepositoryPolicy, Target};
use crate::catalog::change::{Change, New};
use crate::catalog::{Applied, Draft, Head, View, change};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{self, About, Actor, Event};
use crate::format::Document;
use crate::identity::{Account, Caller, RepositoryRole};
use crate::name::{OwnerName, PackageName, RepositoryName};
use crate::package::{AccountId, PackageId, RepositoryId, Version, VersionId};
use crate::store::Batch;
use crate::store::table::Stored;
use crate::upstream::{Need, Upstream};

/// Tries of a change against others of the same package.
pub(super) const TRIES: usize = 32;

/// Where a package is published, and whose a new one will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the root view. The owner is the account that the name itself names (an npm scope, the
    /// first segment of an image), or the publisher where it names none.
    Root(Option<&'a OwnerName>),
    /// Among one owner's packages, as the path says.
    Owner(&'a OwnerName),
    /// In one repository of an owner: a new package has no rights but those of the repository.
    Repository(&'a OwnerName, &'a RepositoryName),
}

/// The right to publish under a name, worked out before the body is read.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// Proof of the right.
    pub grant: Grant,
    /// The account the package belongs to, or will.
    pub owner: AccountId,
    /// Who publishes.
    pub publisher: AccountId,
    /// Where the name is looked up.
    pub view: View,
    /// Whether a new package takes the name in the root view, if it is free there.
    pub in_root: bool,
    /// The repository that a new package has its rights from.
    pub repository: Option<RepositoryId>,
}

impl Registry {
    /// Decides whether the caller may publish under a name.
    ///
    /// A new name in the root view must not be an upstream's, unless it is reserved for the
    /// owner: else a member could put a package in front of everybody's `react`. Among an
    /// owner's packages it may be; then it is found there alone.
    ///
    /// # Errors
    /// As `access` decides; [`Kind::Conflict`] when an upstream has the name.
    pub async fn grant_publish<D: Document>(
        &self,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        place: Place<'_>,
    ) -> Result<Publishing> {
        let (mut publishing, new_owner) = self.may_publish(ecosystem, caller, name, place).await?;
        if let Some(owner) = new_owner {
            publishing.in_root = self.check_new_name::<D>(&publishing.grant, &owner, publishing.view).await?;
        }
        Ok(publishing)
    }

    /// As [`Registry::grant_publish`] in the root view, for names that hold their owner's login, so that no upstream can have one.
    ///
    /// # Errors
    /// As `access` decides.
    pub async fn grant_publish_own(
        &self,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        owner: &OwnerName,
    ) -> Result<Publishing> {
        let (publishing, new_owner) = self.may_publish(ecosystem, caller, name, Place::Root(Some(owner))).await?;
        if let Some(owner) = new_owner {
            self.is_reserved_for(&publishing.grant, &owner).await?;
        }
        Ok(Publishing { in_root: true, ..publishing })
    }

    /// The right to publish, and the owner of a package that is new.
    async fn may_publish(
        &self,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        place: Place<'_>,
    ) -> Result<(Publishing, Option<Account>)> {
        let publisher =
            caller.id().ok_or_else(|| Error::new(Kind::Unauthenticated, Subject::Package).saying("publishing needs a token"))?;
        let account = self.place_owner(ecosystem, publisher, name, place).await?;
        let view = match (place, &account) {
            (Place::Owner(_) | Place::Repository(..), Some(account)) => View::Owner(account.id),
            _ => View::Root,
        };
        let unknown = !matches!(place, Place::Root(_)) && account.is_none();
        let head = if unknown { None } else { self.catalog.head_in(view, ecosystem, name).await? };
        if let Some(head) = &head {
            let target = Target { ecosystem, name, package: Some(head.package.id) };
            match access::grant(caller, target, &head.policy, Action::Write) {
                Ok(grant) => {
                    let publishing = Publishing { grant, owner: head.package.owner, publisher, view, in_root: false, repository: None };
                    return Ok((publishing, None));
                }
                // Who may not know of it hears what is wrong with making one of that name.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let target = Target { ecosystem, name, package: None };
        let (grant, repository) = self.grant_new(caller, target, account.as_ref(), place).await.map_err(|error| hide(error, name))?;
        let account = account.filter(|_| head.is_none()).ok_or_else(|| cannot_publish(name))?;
        let publishing = Publishing { grant, owner: account.id, publisher, view, in_root: false, repository };
        Ok((publishing, Some(account)))
    }

    /// The account that a new package would belong to: the one that the place names; for a bare name the
    /// one it is reserved for, and else the publisher.
    async fn place_owner(&self, ecosystem: &str, publisher: AccountId, name: &PackageName, place: Place<'_>) -> Result<Option<Account>> {
        let found = match place {
            Place::Root(Some(login)) | Place::Owner(login) | Place::Repository(login, _) => self.identity.account_by_login(login).await,
            Place::Root(None) => {
                let reservations = self.identity.reservations().await?;
                let owner = reservations.find(ecosystem, name).map_or(publisher, |reservation| reservation.owner);
                self.identity.account(owner).await
            }
        };
        match found {
            Ok(account) => Ok(Some(account)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The right to make a package, and the repository it is made in.
    async fn grant_new(
        &self,
        caller: &Caller,
        target: Target<'_>,
        account: Option<&Account>,
        place: Place<'_>,
    ) -> Result<(Grant, Option<RepositoryId>)> {
        let (Place::Repository(_, repository), Some(account)) = (place, account) else {
            let members_can_publish = self.access.members_can_publish;
            let owner = account.map(|account| Owner { account: account.id, members_can_publish });
            return Ok((access::grant_create(caller, target, owner)?, None));
        };
        let repository = self.identity.repository(account.id, repository).await?;
        let policy = Policy::of_repository(&repository, account.is_organisation());
        Ok((access::grant(caller, target, &policy, Action::Write)?, Some(repository.id)))
    }

    /// Whether the name is reserved for an owner.
    ///
    /// # Errors
    /// `Forbidden` when it is reserved for another one.
    async fn is_reserved_for(&self, grant: &Grant, owner: &Account) -> Result<bool> {
        match self.identity.reservations().await?.find(grant.ecosystem(), grant.name()) {
            Some(reservation) if reservation.owner == owner.id => Ok(true),
            Some(_) => Err(cannot_publish(grant.name())),
            None => Ok(false),
        }
    }

    /// Whether a new package may take its name in the root view.
    async fn check_new_name<D: Document>(&self, grant: &Grant, owner: &Account, view: View) -> Result<bool> {
        let (ecosystem, name) = (grant.ecosystem(), grant.name());
        if self.catalog.moved_away(View::Owner(owner.id), ecosystem, name).await? {
            let text = format!("{name} belonged to a package that is another owner's now; the name is not given to another one");
            return Err(Error::conflict(Subject::Package, text));
        }
        if self.is_reserved_for(grant, owner).await? {
            return Ok(true);
        }
        let upstreams: Vec<Arc<Upstream>> = self.upstreams(ecosystem).iter().filter(|upstream| upstream.serves(name)).cloned().collect();
        if upstreams.is_empty() {
            return Ok(true);
        }
        match self.upstream_index::<D>(grant, &Plan::Proxied(upstreams), Need::Usual).await {
            Ok(_) if view != View::Root => Ok(false),
            Ok(_) => Err(Error::conflict(
                Subject::Package,
                format!("{name} is a package of an upstream registry; an administrator can reserve the name for its owner here"),
            )),
            Err(error) if error.kind() == Kind::NotFound => Ok(true),
            Err(error) => Err(Error::new(Kind::Unavailable, Subject::Upstream)
                .saying(format!("cannot tell whether {name} is a package of an upstream registry; try again, or reserve the name"))
                .because(error)),
        }
    }

    /// Publishes a version whose blobs are kept; gives the package's generation with it.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the number was ever used in this package.
    pub async fn publish(&self, publishing: &Publishing, draft: &Draft) -> Result<u64> {
        let (ecosystem, name) = (publishing.grant.ecosystem(), publishing.grant.name());
        let _turn = self.turn(ecosystem, name).await;
        let (package, version) = (PackageId(self.catalog.next_id().await?), VersionId(self.catalog.next_id().await?));
        for _ in 0..TRIES {
            let head = self.catalog.head_for(&publishing.grant, publishing.view).await?;
            if let Some(head) = &head
                && self.catalog.version(&publishing.grant, head, &draft.number).await?.is_some()
            {
                return Err(Error::conflict(Subject::Version, "Cannot publish over existing version"));
            }
            if let Some(head) = &head
                && head.package.owner != publishing.owner
            {
                // The name was taken by someone else while the body was read.
                return Err(cannot_publish(name));
            }
            let in_root = self.takes_root(publishing).await?;
            let new = New { package, in_root, version };
            let mut change = change::publish(head.as_deref(), draft, new, self.clock.now())?;
            if head.is_none_or(|head| head.package.deleted_at.is_some()) {
                self.expect_owner(&mut change.batch, publishing.owner).await?;
            }
            let generation = change.package.generation;
            if self.commit(&publishing.grant, change).await? == Applied::Yes {
                return Ok(generation);
            }
        }
        Err(contended())
    }

    /// Whether a new package takes its name in the root view now: in an owner's view only if nobody has it there.
    pub(super) async fn takes_root(&self, publishing: &Publishing) -> Result<bool> {
        let (ecosystem, name) = (publishing.grant.ecosystem(), publishing.grant.name());
        match publishing.view {
            View::Root => Ok(true),
            View::Owner(_) => Ok(publishing.in_root && self.catalog.head(ecosystem, name).await?.is_none()),
        }
    }

    /// Changes a hosted package's head. `build` is a plain function from what was read
    /// to a change; it is called anew when something changed in between.
    ///
    /// # Errors
    /// Those of `build`, and [`Kind::Unavailable`] when every try lost.
    pub async fn edit(&self, grant: &Grant, build: impl Fn(&Head, Timestamp) -> Result<Change> + Send + Sync) -> Result<()> {
        let _turn = self.turn(grant.ecosystem(), grant.name()).await;
        for _ in 0..TRIES {
            let head = self.hosted_head(grant).await?;
            let change = build(&head, self.clock.now())?;
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// As [`Registry::edit`], for changes that depend on the package's live versions.
    ///
    /// # Errors
    /// As [`Registry::edit`].
    pub async fn edit_versions(
        &self,
        grant: &Grant,
        build: impl Fn(&Head, Vec<Stored<Version>>, Timestamp) -> Result<Change> + Send + Sync,
    ) -> Result<()> {
        let _turn = self.turn(grant.ecosystem(), grant.name()).await;
        for _ in 0..TRIES {
            let head = self.hosted_head(grant).await?;
            let live = self.catalog.live_versions(grant, &head).await?;
            let change = build(&head, live, self.clock.now())?;
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// The head of the hosted package that a grant is about.
    pub(super) async fn hosted_head(&self, grant: &Grant) -> Result<Arc<Head>> {
        self.catalog.head_for(grant, View::Root).await?.ok_or_else(|| Error::not_found(Subject::Package))
    }

    /// Commits a change together with the events that tell of it. An empty change is none.
    ///
    /// # Errors
    /// When the store fails; the change is then not made, or not known to be made.
    pub(super) async fn commit(&self, grant: &Grant, change: Change) -> Result<Applied> {
        if change.batch.changes.is_empty() {
            return Ok(Applied::Yes);
        }
        let actor = Actor { user: grant.caller(), token: grant.token(), client: Actor::current().client };
        let package = change.package.clone();
        let (batch, events) = self.told(actor, change).await?;
        let applied = self.catalog.commit(&package, batch).await?;
        if applied == Applied::Yes {
            self.announce(&events);
        }
        Ok(applied)
    }

    /// Tells of events that are committed: the log, and whoever waits for webhooks.
    pub(super) fn announce(&self, events: &[Event]) {
        events.iter().for_each(log);
        self.hooks.announce();
    }

    /// A change's batch together with the events that tell of it.
    pub(super) async fn told(&self, actor: Actor, change: Change) -> Result<(Batch, Vec<Event>)> {
        let Change { mut batch, deed, package, versions, former_owner, detail } = change;
        let about: Vec<Option<About>> = if versions.is_empty() { vec![None] } else { versions.into_iter().map(Some).collect() };
        let mut events = Vec::with_capacity(about.len());
        for version in about {
            let event = Event {
                id: self.identity.next_event_id().await?,
                at: package.updated_at,
                deed,
                actor,
                ecosystem: package.ecosystem.clone(),
                package: package.id,
                name: package.name.clone(),
                owner: package.owner,
                former_owner,
                repository: package.repository,
                version,
                detail: detail.clone(),
            };
            event::record(&mut batch, &event)?;
            events.push(event);
        }
        Ok((batch, events))
    }

    /// The repository a publisher may link a new package to, by owner and name.
    ///
    /// A link hands the repository's roles to the package, so it is made only to a
    /// repository of the package's own owner on which the publisher may write.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn linkable(&self, caller: &Caller, owner: AccountId, full_name: (&str, &str)) -> Result<Option<RepositoryId>> {
        let (Ok(login), Ok(name)) = (OwnerName::new(full_name.0), RepositoryName::new(full_name.1)) else { return Ok(None) };
        let found = async {
            let account = self.identity.account_by_login(&login).await?;
            Ok::<_, Error>((self.identity.repository(account.id, &name).await?, account.is_organisation()))
        };
        let (repository, organisation) = match found.await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let may = repository.owner == owner
            && access::role_on_repository(caller, &RepositoryPolicy::from(&repository), organisation) >= Some(RepositoryRole::Write);
        Ok(may.then_some(repository.id))
    }

    /// Adds to a batch that makes a package live: its owner's account is not deleted at the same moment.
    pub(super) async fn expect_owner(&self, batch: &mut Batch, owner: AccountId) -> Result<()> {
        self.identity.expect_live(batch, owner).await.map_err(|error| match error.kind() {
            Kind::NotFound => Error::conflict(Subject::Owner, "the account that the package belongs to was deleted"),
            _ => error,
        })
    }

    /// Changes of one package take turns within this process, so that many
    /// publishers of one package do not make each other's tries fail.
    pub(super) async fn turn(&self, ecosystem: &str, name: &PackageName) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[crate::name::PackageKey::new(ecosystem, name.as_str()).slot(self.turns.len())].lock().await
    }
}

/// The audit log's line: who did what to which package, with which token, from where.
pub(super) fn log(event: &Event) {
    tracing::info!(
        target: event::TARGET,
        event = event.id,
        deed = event.deed.word(),
        ecosystem = event.ecosystem,
        package = %event.name,
        version = event.version.as_ref().map(|version| version.number.as_str()),
        detail = event.detail.as_deref(),
        user = event.actor.user.map(|user| user.0),
        token = event.actor.token.map(|token| token.0),
        client = event.actor.client.map(tracing::field::display),
        "audit"
    );
}

/// What a caller hears who may not know whether the package exists: the same as for a new name.
fn hide(error: Error, name: &PackageName) -> Error {
    match error.kind() {
        Kind::NotFound => cannot_publish(name),
        Kind::Forbidden if error.subject() == Subject::Owner => cannot_publish(name),
        _ => error,
    }
}

pub(super) fn cannot_publish(name: &PackageName) -> Error {
    Error::forbidden(Subject::Package, format!("you do not have permission to publish {name}"))
}

pub(super) fn contended() -> Error {
    Error::new(Kind::Unavailable, Subject::Package).saying("too many changes of this package at once, try again")
}
