//! Identity through its public face, on a store in memory.

use std::time::Duration;

use tokio::time::Instant;

use super::rows::Rows;
use super::*;
use crate::clock::Timestamp;
use crate::http::{HeaderMap, HeaderValue, header};
use crate::name::{OwnerName, PackageName, RepositoryName, TeamName};
use crate::package::{AccountId, Principal, RepositoryId, Visibility};
use crate::store::memory::Failing;

struct Fixture {
    identity: Identity,
    clock: Clock,
}

fn fixture() -> Fixture {
    let clock = Clock::stopped(Timestamp::from_millis(1_700_000_000_000));
    Fixture { identity: Identity::new(Arc::new(Rows::default()), clock.clone()), clock }
}

fn login(text: &str) -> OwnerName {
    OwnerName::new(text).unwrap()
}

impl Fixture {
    async fn user(&self, name: &str) -> AccountId {
        self.identity.create_user(NewUser { login: login(name), email: None, site_admin: false }).await.unwrap().id
    }

    async fn organisation(&self, name: &str) -> AccountId {
        self.identity.create_organisation(login(name), None).await.unwrap().id
    }

    async fn token(&self, user: AccountId, expires_at: Option<Timestamp>) -> (Token, TokenText) {
        let scopes = [Scope::ReadPackages].into_iter().collect();
        self.identity.mint_token(user, NewToken { note: "test".into(), scopes, expires_at }).await.unwrap()
    }

    async fn caller(&self, token: &TokenText) -> Result<Arc<Caller>> {
        self.identity.identify(&bearer(token.expose())).await
    }
}

fn bearer(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {text}")).unwrap())])
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn the_first_start_makes_one_admin_and_shows_its_token_once() {
    let f = fixture();
    let text = f.identity.first_start().await.unwrap().unwrap();
    assert!(f.identity.first_start().await.unwrap().is_none());
    let caller = f.caller(&text).await.unwrap();
    let signed = caller.signed().unwrap();
    assert!(signed.site_admin);
    assert_eq!((signed.login.as_str(), signed.scopes), ("admin", Scopes::all()));
    assert_eq!(caller.to_string(), format!("admin#{}", signed.token));
}

#[tokio::test]
async fn the_text_of_a_token_is_stored_nowhere() {
    let store = Arc::new(Rows::default());
    let identity = Identity::new(Arc::clone(&store) as Arc<dyn Store>, Clock::stopped(Timestamp::from_millis(0)));
    let text = identity.first_start().await.unwrap().unwrap();
    assert!(store.values().iter().all(|value| !value.windows(36).any(|part| part == &text.expose().as_bytes()[4..])));
}

#[tokio::test]
async fn a_login_names_one_account_for_ever() {
    let f = fixture();
    let ann = f.user("ann").await;
    let again = NewUser { login: login("ANN"), email: None, site_admin: false };
    assert_eq!(kind(f.identity.create_user(again.clone()).await), Kind::Conflict);
    assert_eq!(kind(f.identity.create_organisation(login("ann"), None).await), Kind::Conflict);

    let change = AccountChange { login: Some(login("anna")), ..AccountChange::default() };
    f.identity.change_account(ann, change).await.unwrap();
    assert_eq!(f.identity.account_by_login(&login("anna")).await.unwrap().id, ann);
    assert_eq!(kind(f.identity.account_by_login(&login("ann")).await), Kind::NotFound);
    assert_eq!(kind(f.identity.create_user(again.clone()).await), Kind::Conflict);
    let back = AccountChange { login: Some(login("ann")), ..AccountChange::default() };
    assert_eq!(f.identity.change_account(ann, back).await.unwrap().login, login("ann"));

    f.identity.delete_account(ann, Batch::new()).await.unwrap();
    assert_eq!(kind(f.identity.account(ann).await), Kind::NotFound);
    assert_eq!(kind(f.identity.account_by_login(&login("ann")).await), Kind::NotFound);
    assert_eq!(kind(f.identity.create_user(again).await), Kind::Conflict);
    assert!(f.identity.accounts(AccountKind::User, None, 10).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_users_of_one_login_have_one_winner() {
    let f = Arc::new(fixture());
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let f = Arc::clone(&f);
        let new = NewUser { login: login("one"), email: None, site_admin: false };
        tries.spawn(async move { f.identity.create_user(new).await.is_ok() });
    }
    assert_eq!(tries.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

#[tokio::test]
async fn every_bad_credential_gets_the_same_answer_and_is_never_anonymous() {
    let f = fixture();
    let (ann, bob, cat) = (f.user("ann").await, f.user("bob").await, f.user("cat").await);
    let (revoked, revoked_text) = f.token(ann, None).await;
    let (_, expired) = f.token(ann, Some(f.clock.now().plus(Duration::from_secs(1)))).await;
    let (_, disabled) = f.token(bob, None).await;
    let (_, deleted) = f.token(cat, None).await;
    for text in [&revoked_text, &expired, &disabled, &deleted] {
        assert!(f.caller(text).await.is_ok());
    }
    f.identity.revoke_token(ann, revoked.id).await.unwrap();
    f.identity.disable(bob).await.unwrap();
    f.identity.delete_account(cat, Batch::new()).await.unwrap();
    f.clock.advance(Duration::from_secs(1));

    let unknown = TokenText::mint().unwrap();
    let mut answers = Vec::new();
    for text in [revoked_text.expose(), expired.expose(), disabled.expose(), deleted.expose(), unknown.expose(), "pkh_x", "secret"] {
        let error = f.identity.identify(&bearer(text)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthenticated);
        assert!(!error.message().contains(text));
        answers.push((error.subject(), error.message().to_owned(), error.wait()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert!(matches!(*f.identity.identify(&HeaderMap::new()).await.unwrap(), Caller::Anonymous));
}

#[tokio::test]
async fn a_token_expires_at_its_instant_although_remembered() {
    let f = fixture();
    let ann = f.user("ann").await;
    let (_, text) = f.token(ann, Some(f.clock.now().plus(Duration::from_millis(500)))).await;
    f.clock.advance(Duration::from_millis(499));
    assert!(f.caller(&text).await.is_ok());
    f.clock.advance(Duration::from_millis(1));
    assert_eq!(kind(f.caller(&text).await), Kind::Unauthenticated);
}

#[tokio::test]
async fn a_remembered_caller_is_shared_until_anything_changes() {
    let f = fixture();
    let ann = f.user("ann").await;
    let (_, text) = f.token(ann, None).await;
    let first = f.caller(&text).await.unwrap();
    assert!(Arc::ptr_eq(&first, &f.caller(&text).await.unwrap()));
    let generation = f.identity.generation();
    f.user("bob").await;
    assert!(f.identity.generation() > generation);
    assert!(!Arc::ptr_eq(&first, &f.caller(&text).await.unwrap()));
}

#[tokio::test]
async fn who_leaves_an_organisation_leaves_its_teams_at_once() {
    let f = fixture();
    let (ann, acme) = (f.user("ann").await, f.organisation("acme").await);
    let team = f.identity.create_team(acme, TeamName::new("core").unwrap()).await.unwrap();
    assert_eq!(kind(f.identity.create_team(acme, TeamName::new("Core").unwrap()).await), Kind::Conflict);
    assert_eq!(kind(f.identity.add_team_member(team.id, ann).await), Kind::NotFound);
    f.identity.set_member(acme, ann, OrganisationRole::Member).await.unwrap();
    f.identity.add_team_member(team.id, ann).await.unwrap();
    let (_, text) = f.token(ann, None).await;
    let before = f.caller(&text).await.unwrap();
    assert_eq!(before.signed().unwrap().role_in(acme), Some(OrganisationRole::Member));
    assert!(before.signed().unwrap().teams.contains(&team.id));

    // A new role keeps the teams.
    let bob = f.user("bob").await;
    f.identity.set_member(acme, bob, OrganisationRole::Owner).await.unwrap();
    f.identity.set_member(acme, ann, OrganisationRole::Owner).await.unwrap();
    assert!(f.caller(&text).await.unwrap().signed().unwrap().teams.contains(&team.id));

    f.identity.remove_member(acme, ann).await.unwrap();
    let after = f.caller(&text).await.unwrap();
    assert_eq!(after.signed().unwrap().role_in(acme), None);
    assert!(after.signed().unwrap().teams.is_empty());
    f.identity.set_member(acme, ann, OrganisationRole::Member).await.unwrap();
    assert!(f.caller(&text).await.unwrap().signed().unwrap().teams.is_empty());
    assert_eq!(f.identity.members(acme, None, 10).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_deleted_team_grants_nothing() {
    let f = fixture();
    let (ann, acme) = (f.user("ann").await, f.organisation("acme").await);
    f.identity.set_member(acme, ann, OrganisationRole::Member).await.unwrap();
    let name = TeamName::new("core").unwrap();
    let team = f.identity.create_team(acme, name.clone()).await.unwrap();
    f.identity.add_team_member(team.id, ann).await.unwrap();
    let (_, text) = f.token(ann, None).await;
    f.identity.delete_team(team.id).await.unwrap();
    assert!(f.caller(&text).await.unwrap().signed().unwrap().teams.is_empty());
    assert_eq!(kind(f.identity.delete_team(team.id).await), Kind::NotFound);
    let again = f.identity.create_team(acme, name.clone()).await.unwrap();
    assert_ne!(again.id, team.id);
    assert_eq!(f.identity.team_by_name(acme, &name).await.unwrap().id, again.id);
    assert_eq!(f.identity.teams(acme, None, 10).await.unwrap(), [again]);
}

#[tokio::test]
async fn deleting_accounts_ends_memberships() {
    let f = fixture();
    let (ann, bob, acme) = (f.user("ann").await, f.user("bob").await, f.organisation("acme").await);
    for user in [ann, bob] {
        f.identity.set_member(acme, user, OrganisationRole::Member).await.unwrap();
    }
    f.identity.delete_account(ann, Batch::new()).await.unwrap();
    assert_eq!(f.identity.members(acme, None, 10).await.unwrap().items.len(), 1);
    assert_eq!(kind(f.identity.set_member(acme, ann, OrganisationRole::Owner).await), Kind::NotFound);
    f.identity.delete_account(acme, Batch::new()).await.unwrap();
    assert!(f.identity.memberships(bob).await.unwrap().is_empty());
    assert_eq!(kind(f.identity.set_member(acme, bob, OrganisationRole::Owner).await), Kind::NotFound);
}

#[tokio::test]
async fn repositories_have_names_visibility_and_roles() {
    let f = fixture();
    let (ann, bob, acme) = (f.user("ann").await, f.user("bob").await, f.organisation("acme").await);
    let name = RepositoryName::new("Web").unwrap();
    let repository = f.identity.create_repository(acme, name.clone(), Visibility::Private).await.unwrap();
    assert_eq!(kind(f.identity.create_repository(acme, name.clone(), Visibility::Public).await), Kind::Conflict);
    f.identity.create_repository(ann, name.clone(), Visibility::Public).await.unwrap();
    assert_eq!(f.identity.repository(acme, &name).await.unwrap(), repository);
    assert_eq!(f.identity.set_visibility(repository.id, Visibility::Internal).await.unwrap().visibility, Visibility::Internal);

    let role = Some(RepositoryRole::Maintain);
    let grant = |principal| f.identity.set_repository_role(repository.id, principal, role);
    assert_eq!(kind(grant(Principal::User(bob)).await), Kind::Invalid);
    f.identity.set_member(acme, bob, OrganisationRole::Member).await.unwrap();
    assert_eq!(grant(Principal::User(bob)).await.unwrap().roles.len(), 1);
    let team = f.identity.create_team(acme, TeamName::new("core").unwrap()).await.unwrap();
    assert_eq!(grant(Principal::Team(team.id)).await.unwrap().roles.len(), 2);
    assert_eq!(kind(grant(Principal::User(AccountId(999))).await), Kind::NotFound);
    assert_eq!(kind(grant(Principal::User(acme)).await), Kind::Invalid);
    let other = f.organisation("other").await;
    let foreign = f.identity.create_team(other, TeamName::new("core").unwrap()).await.unwrap();
    assert_eq!(kind(grant(Principal::Team(foreign.id)).await), Kind::Invalid);
    let left = f.identity.set_repository_role(repository.id, Principal::User(bob), None).await.unwrap();
    assert_eq!(left.roles.len(), 1);

    assert_eq!(kind(f.identity.delete_account(acme, Batch::new()).await), Kind::Conflict);
    f.identity.delete_repository(repository.id, Batch::new()).await.unwrap();
    assert_eq!(kind(f.identity.repository(acme, &name).await), Kind::NotFound);
    assert_eq!(kind(f.identity.repository_by_id(RepositoryId(77)).await), Kind::NotFound);
    f.identity.delete_account(acme, Batch::new()).await.unwrap();
}

#[tokio::test]
async fn tokens_are_listed_and_revoked_by_their_user_only() {
    let f = fixture();
    let (ann, bob) = (f.user("ann").await, f.user("bob").await);
    let (token, _) = f.token(ann, None).await;
    assert_eq!(kind(f.identity.revoke_token(bob, token.id).await), Kind::NotFound);
    assert_eq!(f.identity.list_tokens(ann).await.unwrap(), std::slice::from_ref(&token));
    assert!(f.identity.list_tokens(bob).await.unwrap().is_empty());
    f.identity.revoke_token(ann, token.id).await.unwrap();
    assert!(f.identity.list_tokens(ann).await.unwrap()[0].revoked);

    let acme = f.organisation("acme").await;
    let new = || NewToken { note: String::new(), scopes: Scopes::all(), expires_at: None };
    assert_eq!(kind(f.identity.mint_token(acme, new()).await), Kind::Invalid);
    let past = NewToken { expires_at: Some(f.clock.now()), ..new() };
    assert_eq!(kind(f.identity.mint_token(ann, past).await), Kind::Invalid);
    let long = NewToken { note: "x".repeat(201), ..new() };
    assert_eq!(kind(f.identity.mint_token(ann, long).await), Kind::Invalid);
}

#[tokio::test]
async fn a_user_at_the_limit_loses_dead_tokens_and_no_live_one() {
    let clock = Clock::stopped(Timestamp::from_millis(0));
    let identity = Identity::with_config(Arc::new(Rows::default()), clock, Config { tokens_per_user: 2, ..Config::default() });
    let ann = identity.create_user(NewUser { login: login("ann"), email: None, site_admin: false }).await.unwrap().id;
    let new = || NewToken { note: String::new(), scopes: Scopes::default(), expires_at: None };
    let (dead, _) = identity.mint_token(ann, new()).await.unwrap();
    identity.mint_token(ann, new()).await.unwrap();
    assert_eq!(kind(identity.mint_token(ann, new()).await), Kind::Conflict);
    identity.revoke_token(ann, dead.id).await.unwrap();
    identity.mint_token(ann, new()).await.unwrap();
    let left = identity.list_tokens(ann).await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|token| token.id != dead.id));
}

#[tokio::test]
async fn last_use_is_written_by_the_flush_only() {
    let f = fixture();
    let ann = f.user("ann").await;
    let (_, text) = f.token(ann, None).await;
    f.clock.advance(Duration::from_secs(5));
    f.caller(&text).await.unwrap();
    assert_eq!(f.identity.list_tokens(ann).await.unwrap()[0].last_used_at, None);
    let generation = f.identity.generation();
    assert_eq!(f.identity.flush_last_used().await.unwrap(), 1);
    assert_eq!(f.identity.flush_last_used().await.unwrap(), 0);
    assert_eq!(f.identity.generation(), generation);
    assert_eq!(f.identity.list_tokens(ann).await.unwrap()[0].last_used_at, Some(f.clock.now()));
    f.clock.advance(Duration::from_millis(10));
    f.caller(&text).await.unwrap();
    assert_eq!(f.identity.flush_last_used().await.unwrap(), 1);
}

#[tokio::test]
async fn a_store_that_fails_denies_as_unavailable() {
    let f = fixture();
    let store = Arc::new(Failing);
    let identity = Identity::new(store, f.clock.clone());
    let text = TokenText::mint().unwrap();
    assert_eq!(kind(identity.identify(&bearer(text.expose())).await), Kind::Unavailable);
}

#[tokio::test]
async fn reserved_patterns_of_two_owners_never_overlap() {
    let f = fixture();
    let (acme, evil) = (f.organisation("acme").await, f.organisation("evil").await);
    let of = |owner, pattern: &str, merge| Reservation { ecosystem: "npm".into(), pattern: pattern.into(), owner, merge };
    f.identity.reserve(of(acme, "@acme/*", false)).await.unwrap();
    assert_eq!(kind(f.identity.reserve(of(evil, "@acme/tool", false)).await), Kind::Conflict);
    assert_eq!(kind(f.identity.reserve(of(evil, "@a*", false)).await), Kind::Conflict);
    f.identity.reserve(of(acme, "@acme/fork", true)).await.unwrap();
    let find = async |name: &str| {
        let all = f.identity.reservations().await.unwrap();
        all.find("npm", &PackageName::new(name).unwrap()).map(|found| found.merge)
    };
    assert_eq!(find("@acme/tool").await, Some(false));
    assert_eq!(find("@acme/fork").await, Some(true));
    assert_eq!(find("left-pad").await, None);
    f.identity.unreserve("npm", "@acme/*").await.unwrap();
    assert_eq!(find("@acme/tool").await, None);
    assert_eq!(kind(f.identity.unreserve("npm", "@acme/*").await), Kind::NotFound);
    assert_eq!(kind(f.identity.reserve(of(AccountId(99), "x", false)).await), Kind::NotFound);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let f = fixture();
    for index in 0..5 {
        f.user(&format!("user{index}")).await;
    }
    f.organisation("acme").await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = f.identity.accounts(AccountKind::User, after, 2).await.unwrap();
        seen.extend(page.items.into_iter().map(|account| account.login.to_string()));
        match page.next {
            None => break,
            Some(next) => after = Some(AccountId(next)),
        }
    }
    assert_eq!(seen, ["user0", "user1", "user2", "user3", "user4"]);
}

#[tokio::test]
async fn a_session_stands_for_its_token_and_ends_with_it() {
    let f = fixture();
    let ann = f.user("ann").await;
    let (token, text) = f.token(ann, None).await;
    let caller = f.caller(&text).await.unwrap();
    let session = f.identity.open_session(caller.signed().unwrap(), "for this").unwrap();
    let found = f.identity.identify_session(&bearer(&session)).await.unwrap();
    assert_eq!((found.caller.id(), found.session.as_deref()), (Some(ann), Some("for this")));
    assert!(!session.contains(text.expose()), "it says nothing secret");
    // Only those who asked for sessions take them.
    assert_eq!(f.identity.identify(&bearer(&session)).await.unwrap_err().kind(), Kind::Unauthenticated);
    // A personal token is no session.
    let own = f.identity.identify_session(&bearer(text.expose())).await.unwrap();
    assert_eq!((own.caller.id(), own.session), (Some(ann), None));
    f.clock.advance(Duration::from_secs(299));
    assert!(f.identity.identify_session(&bearer(&session)).await.is_ok());
    f.clock.advance(Duration::from_secs(1));
    assert_eq!(f.identity.identify_session(&bearer(&session)).await.unwrap_err().kind(), Kind::Unauthenticated);
    let another = f.identity.open_session(caller.signed().unwrap(), "").unwrap();
    assert!(f.identity.identify_session(&bearer(&another)).await.is_ok());
    f.identity.revoke_token(ann, token.id).await.unwrap();
    assert_eq!(f.identity.identify_session(&bearer(&another)).await.unwrap_err().kind(), Kind::Unauthenticated);
}

#[tokio::test]
async fn memory_knows_the_words_of_a_caller_as_long_as_they_hold() {
    let f = fixture();
    let ann = f.user("ann").await;
    let (token, text) = f.token(ann, None).await;
    let session = f.identity.open_session(f.caller(&text).await.unwrap().signed().unwrap(), "for this").unwrap();
    let (own, session) = (bearer(text.expose()), bearer(&session));
    let known = |headers: &HeaderMap, sessions| f.identity.identify_in_memory(headers, None, sessions, (f.clock.now(), Instant::now()));
    assert!(matches!(*known(&HeaderMap::new(), false).unwrap().caller, Caller::Anonymous));
    assert!(known(&session, true).is_none() && known(&bearer("pkh_x"), true).is_none(), "nobody said so before");
    f.identity.identify_session(&session).await.unwrap();
    for sessions in [true, false] {
        let found = known(&own, sessions).unwrap();
        assert_eq!((found.caller.id(), found.session), (Some(ann), None));
    }
    assert_eq!(known(&session, true).unwrap().session.as_deref(), Some("for this"));
    assert!(known(&session, false).is_none(), "a session is for those who handed it out");
    let mut twice = own.clone();
    twice.append(header::AUTHORIZATION, own[header::AUTHORIZATION].clone());
    assert!(known(&twice, true).is_none());
    f.clock.advance(Duration::from_secs(3600));
    assert!(known(&own, true).is_none() && known(&session, true).is_none());
    f.identity.identify(&own).await.unwrap();
    assert!(known(&own, true).is_some() && known(&session, true).is_none());
    f.identity.revoke_token(ann, token.id).await.unwrap();
    assert!(known(&own, true).is_none());
}

#[tokio::test]
async fn a_session_cannot_be_changed_or_made_up() {
    let f = fixture();
    let ann = f.user("ann").await;
    let (_, text) = f.token(ann, None).await;
    let caller = f.caller(&text).await.unwrap();
    let session = f.identity.open_session(caller.signed().unwrap(), "pull").unwrap();
    for place in 0..session.len() {
        let mut changed = session.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(f.identity.identify_session(&bearer(&changed)).await.is_err(), "place {place}");
    }
    let elsewhere = fixture();
    elsewhere.user("ann").await;
    assert!(elsewhere.identity.identify_session(&bearer(&session)).await.is_err(), "another server's key");
    for wrong in ["pks_", "pks_!!", "pks_AAAA", "pks_anonymouS"] {
        assert!(f.identity.identify_session(&bearer(wrong)).await.is_err(), "{wrong}");
    }
    let anonymous = f.identity.identify_session(&bearer(ANONYMOUS_SESSION)).await.unwrap();
    assert!(matches!(*anonymous.caller, Caller::Anonymous) && anonymous.session.is_some());
    assert!(f.identity.open_session(caller.signed().unwrap(), &"x".repeat(LIMITS_BYTES + 1)).is_err());
}
