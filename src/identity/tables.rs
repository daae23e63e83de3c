//! The tables of identity and their keys, in one place.

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::name::{OwnerName, RepositoryName, TeamName};
use crate::package::{AccountId, RepositoryId, TeamId, TokenId};
use crate::store::table::{Key, Table};

use super::record::{Account, Membership, Repository, Team, Token};
use super::reservations::Reservation;
use super::token::TokenHash;

/// By [`account`].
pub(super) static ACCOUNTS: Table<Account> = Table::new("identity.account");
/// Whose a login is or was, by [`login`]. An account's former logins stay its own: see [`Account::deleted_at`].
pub(super) static LOGINS: Table<AccountId> = Table::new("identity.login");
/// By [`pair`] of user and organisation.
pub(super) static MEMBERSHIPS: Table<Membership> = Table::new("identity.membership");
/// Index of [`MEMBERSHIPS`], by [`pair`] of organisation and user.
pub(super) static MEMBERS: Table<AccountId> = Table::new("identity.member");
/// The owners of an organisation, by [`account`]. One record for all of them, so that the last one cannot go unnoticed.
pub(super) static OWNERS: Table<BTreeSet<AccountId>> = Table::new("identity.owners");
/// Who was a member and left, by [`pair`] of organisation and user: roles from then may still stand in records.
pub(super) static FORMER_MEMBERS: Table<()> = Table::new("identity.former_member");
/// By [`team`].
pub(super) static TEAMS: Table<Team> = Table::new("identity.team");
/// By [`team_name`].
pub(super) static TEAM_NAMES: Table<TeamId> = Table::new("identity.team_name");
/// By [`repository`].
pub(super) static REPOSITORIES: Table<Repository> = Table::new("identity.repository");
/// By [`repository_name`].
pub(super) static REPOSITORY_NAMES: Table<RepositoryId> = Table::new("identity.repository_name");
/// A mark of an account, by [`account`], unlike every earlier one whenever a repository comes to be its own.
pub(super) static HOLDINGS: Table<u64> = Table::new("identity.holding");
/// By [`token`].
pub(super) static TOKENS: Table<Token> = Table::new("identity.token");
/// The hash of a token in hex, by [`token_of`]; the index behind a user's list.
pub(super) static TOKENS_OF: Table<String> = Table::new("identity.token_of");
/// When a token was last used, by [`token_use`].
pub(super) static TOKEN_USES: Table<Timestamp> = Table::new("identity.token_use");
/// All reserved patterns of an ecosystem in one record, so that overlaps are refused under concurrency too; by ecosystem.
pub(super) static RESERVATIONS: Table<Vec<Reservation>> = Table::new("identity.reservation");

pub(super) fn account(id: AccountId) -> Key {
    Key::new().number(id.0)
}

pub(super) fn login(login: &OwnerName) -> Key {
    Key::new().text(login.as_str())
}

pub(super) fn pair(first: AccountId, second: AccountId) -> Key {
    Key::new().number(first.0).number(second.0)
}

pub(super) fn team(id: TeamId) -> Key {
    Key::new().number(id.0)
}

pub(super) fn team_name(organisation: AccountId, name: &TeamName) -> Key {
    Key::new().number(organisation.0).text(name.as_str())
}

pub(super) fn repository(id: RepositoryId) -> Key {
    Key::new().number(id.0)
}

pub(super) fn repository_name(owner: AccountId, name: &RepositoryName) -> Key {
    Key::new().number(owner.0).text(name.as_str())
}

pub(super) fn token(hash: TokenHash) -> Key {
    Key::new().bytes(&hash.0)
}

pub(super) fn token_of(user: AccountId, id: TokenId) -> Key {
    Key::new().number(user.0).number(id.0)
}

pub(super) fn token_use(id: TokenId) -> Key {
    Key::new().number(id.0)
}

pub(super) fn ecosystem(name: &str) -> Key {
    Key::new().text(name)
}
