//! The records of identity, as they are stored: plain data.
//!
//! Relations are by numeric id, and ids are never reused, so a rename touches one
//! record and leaves nothing dangling, and nothing new can ever be meant by an old relation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Scopes;
use crate::clock::Timestamp;
use crate::name::{OwnerName, RepositoryName, TeamName};
use crate::package::{AccountId, Principal, RepositoryId, Role, TeamId, TokenId, Visibility};

/// What an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// Someone who signs in with a token.
    User,
    /// A group of users that owns things.
    Organisation,
}

/// A user or an organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its login, unique among users and organisations.
    pub login: OwnerName,
    /// User or organisation.
    pub kind: AccountKind,
    /// Whether the user may do everything on this server that the token's scopes allow.
    #[serde(default)]
    pub site_admin: bool,
    /// Address shown as the author of packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether its tokens are refused.
    #[serde(default)]
    pub disabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Set when it was deleted. The record stays, and so does its claim on the login:
    /// whoever took the name next would inherit the trust that clients put in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

impl Account {
    /// Whether it is an organisation.
    #[must_use]
    pub fn is_organisation(&self) -> bool {
        self.kind == AccountKind::Organisation
    }
}

/// A member's place in an organisation. Ordered: an owner is also a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrganisationRole {
    /// Sees internal things, may be granted roles, may be in teams.
    Member,
    /// Admin of everything the organisation owns.
    Owner,
}

impl OrganisationRole {
    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Owner => "owner",
        }
    }
}

impl std::str::FromStr for OrganisationRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "member" => Ok(Self::Member),
            "owner" => Ok(Self::Owner),
            _ => Err("a role in an organisation is one of owner, member"),
        }
    }
}

/// A user's membership of an organisation. The teams are part of it, so that who
/// leaves the organisation leaves its teams in the same change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The organisation.
    pub organisation: AccountId,
    /// The user.
    pub user: AccountId,
    /// The user's place in it.
    pub role: OrganisationRole,
    /// The organisation's teams that the user is in. May name deleted teams; whoever reads it leaves those out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub teams: BTreeSet<TeamId>,
    /// When the user joined.
    pub created_at: Timestamp,
}

/// A team of an organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// The organisation it belongs to.
    pub organisation: AccountId,
    /// Its slug, unique in the organisation.
    pub name: TeamName,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A role on a repository, as GitHub names them. Ordered: each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each name is the field's own word")]
pub enum RepositoryRole {
    Read,
    Triage,
    Write,
    Maintain,
    Admin,
}

impl RepositoryRole {
    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Triage => "triage",
            Self::Write => "write",
            Self::Maintain => "maintain",
            Self::Admin => "admin",
        }
    }

    /// The role on packages that a role on the repository amounts to.
    #[must_use]
    pub const fn on_packages(self) -> Role {
        match self {
            Self::Read | Self::Triage => Role::Read,
            Self::Write | Self::Maintain => Role::Write,
            Self::Admin => Role::Admin,
        }
    }
}

impl std::str::FromStr for RepositoryRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "triage" => Ok(Self::Triage),
            "write" => Ok(Self::Write),
            "maintain" => Ok(Self::Maintain),
            "admin" => Ok(Self::Admin),
            _ => Err("a role on a repository is one of read, triage, write, maintain, admin"),
        }
    }
}

/// A repository: what packages link to and can take their roles from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its id.
    pub id: RepositoryId,
    /// The account whose repository it is.
    pub owner: AccountId,
    /// Its name, unique among the owner's repositories.
    pub name: RepositoryName,
    /// Who may see it.
    pub visibility: Visibility,
    /// Roles granted on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<Principal, RepositoryRole>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What is kept of a personal access token. Its text is not: only the SHA-256 of it, as the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id, safe to log.
    pub id: TokenId,
    /// Whose token it is.
    pub user: AccountId,
    /// What the user calls it.
    pub note: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// The instant from which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to within the flush interval. Kept in a table of its own, so that use is no change of truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// Whether it was revoked. Never undone.
    #[serde(default)]
    pub revoked: bool,
}

impl Token {
    /// Whether it may still be used at an instant, its user's state aside.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_roles_map_to_package_roles_in_order() {
        let roles = ["read", "triage", "write", "maintain", "admin"].map(|text| text.parse::<RepositoryRole>().unwrap());
        assert!(roles.is_sorted());
        assert_eq!(roles.map(RepositoryRole::on_packages), [Role::Read, Role::Read, Role::Write, Role::Write, Role::Admin]);
        assert!("owner".parse::<RepositoryRole>().is_err());
    }

    #[test]
    fn a_repository_survives_its_encoding() {
        let repository = Repository {
            id: RepositoryId(3),
            owner: AccountId(1),
            name: RepositoryName::new("web").unwrap(),
            visibility: Visibility::Internal,
            roles: BTreeMap::from([
                (Principal::User(AccountId(2)), RepositoryRole::Triage),
                (Principal::Team(TeamId(9)), RepositoryRole::Admin),
            ]),
            created_at: Timestamp::from_millis(1_700_000_000_000),
        };
        let text = serde_json::to_vec(&repository).unwrap();
        assert_eq!(serde_json::from_slice::<Repository>(&text).unwrap(), repository);
    }

    #[test]
    fn a_token_ends_at_its_instant() {
        let token = Token {
            id: TokenId(1),
            user: AccountId(1),
            note: String::new(),
            scopes: Scopes::default(),
            created_at: Timestamp::from_millis(0),
            expires_at: Some(Timestamp::from_millis(10)),
            last_used_at: None,
            revoked: false,
        };
        assert!(token.holds(Timestamp::from_millis(9)));
        assert!(!token.holds(Timestamp::from_millis(10)));
        assert!(!Token { revoked: true, ..token }.holds(Timestamp::from_millis(0)));
    }
}
