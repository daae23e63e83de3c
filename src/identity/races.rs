//! Changes that race: whatever the order, the laws hold at the end.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Identity, NewUser, OrganisationRole};
use crate::clock::{Clock, Timestamp};
use crate::error::Kind;
use crate::name::{OwnerName, RepositoryName};
use crate::package::{AccountId, Visibility};
use crate::store::slow::Slow;
use crate::store::{Batch, Store};

/// Seeds that each race is run with.
const SEEDS: u64 = 300;

/// Two processes on one store: what one remembers the other does not know of.
struct Twins([Arc<Identity>; 2]);

impl Twins {
    fn new(seed: u64) -> Self {
        let store: Arc<dyn Store> = Arc::new(Slow::new(seed));
        let clock = Clock::stopped(Timestamp::from_millis(1_700_000_000_000));
        Self([0, 1].map(|_| Arc::new(Identity::new(Arc::clone(&store), clock.clone()))))
    }

    async fn user(&self, login: &str) -> AccountId {
        let new = NewUser { login: OwnerName::new(login).unwrap(), email: None, site_admin: false };
        self.0[0].create_user(new).await.unwrap().id
    }

    async fn organisation(&self, login: &str, owner: AccountId) -> AccountId {
        self.0[0].create_organisation(OwnerName::new(login).unwrap(), Some(owner)).await.unwrap().id
    }
}

#[tokio::test]
async fn of_owners_who_leave_at_once_one_stays() {
    for seed in 0..SEEDS {
        let twins = Twins::new(seed);
        let owners = [twins.user("ann").await, twins.user("bob").await];
        let acme = twins.organisation("acme", owners[0]).await;
        twins.0[0].set_member(acme, owners[1], OrganisationRole::Owner).await.unwrap();
        let mut race = JoinSet::new();
        for (place, owner) in owners.into_iter().enumerate() {
            let identity = Arc::clone(&twins.0[place]);
            // One leaves, steps down, or is deleted; whichever it is, the other has to stay.
            race.spawn(async move {
                match (seed + place as u64) % 3 {
                    0 => identity.remove_member(acme, owner).await,
                    1 => identity.set_member(acme, owner, OrganisationRole::Member).await.map(drop),
                    _ => identity.delete_account(owner, Batch::new()).await,
                }
            });
        }
        let ended: Vec<_> = race.join_all().await;
        assert_eq!(ended.iter().filter(|left| left.is_ok()).count(), 1, "seed {seed}: {ended:?}");
        assert!(ended.iter().filter_map(|left| left.as_ref().err()).all(|error| [Kind::Forbidden, Kind::Conflict].contains(&error.kind())));
        let members = twins.0[1].members(acme, None, 10).await.unwrap().items;
        assert_eq!(members.iter().filter(|membership| membership.role == OrganisationRole::Owner).count(), 1, "seed {seed}");
    }
}

#[tokio::test]
async fn no_repository_outlives_its_owner() {
    let mut deletions = 0;
    for seed in 0..SEEDS {
        let twins = Twins::new(seed);
        let (ann, bob) = (twins.user("ann").await, twins.user("bob").await);
        let name = || RepositoryName::new("web").unwrap();
        let moving = twins.0[0].create_repository(bob, name(), Visibility::Private).await.unwrap();
        let [one, two] = twins.0.clone();
        let deleted = tokio::spawn(async move { one.delete_account(ann, Batch::new()).await });
        let came = tokio::spawn(async move {
            match seed % 2 {
                0 => two.create_repository(ann, name(), Visibility::Private).await.map(Some),
                _ => two.transfer_repository(moving.id, ann, None, None, Batch::new()).await,
            }
        });
        let (deleted, came) = (deleted.await.unwrap(), came.await.unwrap());
        let owned = twins.0[0].repositories(ann, None, 10).await.unwrap().len();
        assert!(deleted.is_ok() != matches!(came, Ok(Some(_))), "seed {seed}: {deleted:?} {came:?}");
        assert_eq!(owned == 0, deleted.is_ok(), "seed {seed}");
        deletions += u64::from(deleted.is_ok());
    }
    assert!((1..SEEDS).contains(&deletions), "the same was first every time");
}

#[tokio::test]
async fn owners_are_counted_where_their_record_is_missing() {
    let twins = Twins::new(0);
    let (ann, bob) = (twins.user("ann").await, twins.user("bob").await);
    let acme = twins.organisation("acme", ann).await;
    let identity = &twins.0[0];
    let mut batch = Batch::new();
    super::tables::OWNERS.delete(&mut batch, super::tables::account(acme));
    identity.commit(batch).await.unwrap();
    assert_eq!(identity.remove_member(acme, ann).await.unwrap_err().kind(), Kind::Forbidden);
    identity.set_member(acme, bob, OrganisationRole::Owner).await.unwrap();
    identity.remove_member(acme, ann).await.unwrap();
    assert_eq!(identity.remove_member(acme, bob).await.unwrap_err().kind(), Kind::Forbidden);
    assert!(identity.was_member(acme, ann).await.unwrap());
}
