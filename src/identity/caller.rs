//! Who is asking: nobody, this server itself, a user through a token, or a repository's workflow.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use super::{OrganisationRole, Repository, Scope, Scopes};
use crate::event::Actor;
use crate::name::OwnerName;
use crate::package::{AccountId, RepositoryId, TeamId, TokenId};

/// Who is asking, with all that decisions about rights need, so that `access` reads no store.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No credentials were given.
    Anonymous,
    /// This server's own work, or its operator over the local socket. Unlimited.
    System,
    /// A user, limited by the scopes of a token.
    Signed(Signed),
    /// A workflow that runs for a repository, limited by what its job may do to packages.
    Workflow(Workflow),
}

/// A user as seen through one of the user's tokens.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The user.
    pub user: AccountId,
    /// The user's login at the time it was read.
    pub login: OwnerName,
    /// Whether the user may do everything on this server that the scopes allow.
    pub site_admin: bool,
    /// The token; its id is safe to log.
    pub token: TokenId,
    /// What the token may be used for.
    pub scopes: Scopes,
    /// The user's organisations.
    pub organisations: HashMap<AccountId, OrganisationRole>,
    /// The user's teams, of all organisations.
    pub teams: HashSet<TeamId>,
}

/// A workflow as seen through the token of one of its jobs. It has the rights that
/// packages give to its repository, and none of the user's who started it.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// The repository it runs for.
    pub repository: RepositoryId,
    /// Whose repository that is now.
    pub owner: AccountId,
    /// The job's token; its id is safe to log.
    pub token: TokenId,
    /// What the token may be used for.
    pub scopes: Scopes,
}

impl Workflow {
    /// A workflow whose job may read packages, or also write and delete them: GitHub's `packages: read` and `packages: write`.
    #[must_use]
    pub fn new(repository: &Repository, token: TokenId, writes: bool) -> Self {
        let reading = [Scope::ReadPackages, Scope::Repo];
        let writing = [Scope::WritePackages, Scope::DeletePackages];
        let scopes = reading.into_iter().chain(writing.into_iter().filter(|_| writes)).collect();
        Self { repository: repository.id, owner: repository.owner, token, scopes }
    }
}

static ANONYMOUS: LazyLock<Arc<Caller>> = LazyLock::new(|| Arc::new(Caller::Anonymous));
static SYSTEM: LazyLock<Arc<Caller>> = LazyLock::new(|| Arc::new(Caller::System));

impl Caller {
    /// The caller without credentials.
    #[must_use]
    pub fn anonymous() -> Arc<Self> {
        Arc::clone(&ANONYMOUS)
    }

    /// This server itself.
    #[must_use]
    pub fn system() -> Arc<Self> {
        Arc::clone(&SYSTEM)
    }

    /// The user, if a token says who it is.
    #[must_use]
    pub const fn signed(&self) -> Option<&Signed> {
        match self {
            Self::Signed(signed) => Some(signed),
            Self::Anonymous | Self::System | Self::Workflow(_) => None,
        }
    }

    /// The token that says who it is.
    #[must_use]
    pub const fn token(&self) -> Option<TokenId> {
        match self {
            Self::Signed(signed) => Some(signed.token),
            Self::Workflow(workflow) => Some(workflow.token),
            Self::Anonymous | Self::System => None,
        }
    }

    /// The user's id.
    #[must_use]
    pub fn id(&self) -> Option<AccountId> {
        self.signed().map(|signed| signed.user)
    }

    /// Who acts when this caller does, from an address.
    #[must_use]
    pub fn actor(&self, client: IpAddr) -> Actor {
        Actor { user: self.id(), token: self.token(), client: Some(client) }
    }

    /// The user's login.
    #[must_use]
    pub fn login(&self) -> Option<&OwnerName> {
        self.signed().map(|signed| &signed.login)
    }
}

/// How the caller appears in logs: login and token id, never the token.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::System => f.write_str("system"),
            Self::Signed(signed) => write!(f, "{}#{}", signed.login, signed.token),
            Self::Workflow(workflow) => write!(f, "workflow of repository {}#{}", workflow.repository, workflow.token),
        }
    }
}

impl Signed {
    /// The user's place in an organisation.
    #[must_use]
    pub fn role_in(&self, organisation: AccountId) -> Option<OrganisationRole> {
        self.organisations.get(&organisation).copied()
    }
}
