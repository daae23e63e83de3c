//! What happened to accounts and what hangs on them: members, teams, repositories,
//! tokens, reserved names.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Actor;
use crate::clock::Timestamp;
use crate::name::{OwnerName, RepositoryName, TeamName};
use crate::package::{AccountId, HookId, RepositoryId, TokenId, Visibility};

macro_rules! deeds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What was done, under the name that GitHub's audit log has for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum AccountDeed {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl AccountDeed {
            /// Its name: what it was done to, a dot, and what was done.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

deeds! {
    /// A user was made.
    UserCreated = "user.create",
    /// A user has another login.
    UserRenamed = "user.rename",
    /// A user was deleted.
    UserDeleted = "user.delete",
    /// A user's tokens are refused.
    UserSuspended = "user.suspend",
    /// They no longer are.
    UserUnsuspended = "user.unsuspend",
    /// A user became a site admin.
    UserPromoted = "user.promote",
    /// A user is no site admin any more.
    UserDemoted = "user.demote",
    /// An account has another address.
    EmailChanged = "account.update_email",
    /// An organisation was made.
    OrganisationCreated = "org.create",
    /// An organisation has another login.
    OrganisationRenamed = "org.rename",
    /// An organisation was deleted.
    OrganisationDeleted = "org.delete",
    /// A user became a member.
    MemberAdded = "org.add_member",
    /// A member has another role.
    MemberChanged = "org.update_member",
    /// A user is no member any more.
    MemberRemoved = "org.remove_member",
    /// A team was made.
    TeamCreated = "team.create",
    /// A team has another name.
    TeamRenamed = "team.rename",
    /// A team was deleted.
    TeamDeleted = "team.destroy",
    /// A member came into a team.
    TeamMemberAdded = "team.add_member",
    /// A member left a team.
    TeamMemberRemoved = "team.remove_member",
    /// A team was given a role on a repository.
    TeamRepositoryAdded = "team.add_repository",
    /// A team has another role on a repository.
    TeamRepositoryChanged = "team.update_repository_permission",
    /// A team has no role on a repository any more.
    TeamRepositoryRemoved = "team.remove_repository",
    /// A repository was made.
    RepositoryCreated = "repo.create",
    /// A repository has another name.
    RepositoryRenamed = "repo.rename",
    /// A repository went to another owner.
    RepositoryTransferred = "repo.transfer",
    /// A repository is seen by others than before.
    RepositoryVisibilityChanged = "repo.access",
    /// A repository was deleted.
    RepositoryDeleted = "repo.destroy",
    /// A user was given a role on a repository.
    CollaboratorAdded = "repo.add_member",
    /// A user has another role on a repository.
    CollaboratorChanged = "repo.update_member",
    /// A user has no role on a repository any more.
    CollaboratorRemoved = "repo.remove_member",
    /// A token was made.
    TokenMinted = "oauth_access.create",
    /// A token was revoked.
    TokenRevoked = "oauth_access.destroy",
    /// A webhook was made.
    HookCreated = "hook.create",
    /// A webhook sends to another address, in another way or of other events.
    HookChanged = "hook.config_changed",
    /// A webhook was deleted.
    HookDeleted = "hook.destroy",
    /// A pattern of names was reserved, or merges with upstreams or no longer does.
    NameReserved = "reserved_name.create",
    /// A reserved pattern was given up.
    NameUnreserved = "reserved_name.destroy",
}

impl fmt::Display for AccountDeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Something that happened to an account or to what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEvent {
    /// Its id, of the same sequence as the ids of packages' events.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub deed: AccountDeed,
    /// Who.
    pub actor: Actor,
    /// The account whose log tells it: the one it happened to, or whose member, team or repository it was.
    pub owner: AccountId,
    /// The account's login then.
    pub login: OwnerName,
    /// What it was about.
    #[serde(flatten)]
    pub about: Particulars,
}

/// What an event of an account was about, by the names that things had then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each name is the field's own word")]
pub struct Particulars {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<OwnerName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<TeamName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_id: Option<RepositoryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookId>,
}

/// The log's line.
pub fn log(event: &AccountEvent) {
    let AccountEvent { id, deed, actor, login, about, .. } = event;
    tracing::info!(
        target: super::TARGET,
        event = id,
        deed = deed.word(),
        account = %login,
        member = about.user.as_ref().map(tracing::field::display),
        team = about.team.as_ref().map(tracing::field::display),
        repository = about.repository.as_ref().map(tracing::field::display),
        role = about.role.as_deref(),
        subject_token = about.token.map(|token| token.0),
        hook = about.hook.map(|hook| hook.0),
        user = actor.user.map(|user| user.0),
        token = actor.token.map(|token| token.0),
        client = actor.client.map(tracing::field::display),
        "audit"
    );
}
