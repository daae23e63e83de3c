//! The proof that an action was decided, and the deciding of what has no policy yet.

use super::{Action, Owner, Policy, decide, decide_create, lacks_role, lacks_scope};
use crate::error::{Error, Kind, Result, Subject};
use crate::identity::{Caller, Scope};
use crate::name::PackageName;
use crate::package::{AccountId, PackageId, TokenId};

/// The package a grant is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The ecosystem's name.
    pub ecosystem: &'static str,
    /// The package's canonical name.
    pub name: &'a PackageName,
    /// Its id, if it is hosted.
    pub package: Option<PackageId>,
}

impl<'a> From<(&'static str, &'a PackageName, Option<PackageId>)> for Target<'a> {
    fn from((ecosystem, name, package): (&'static str, &'a PackageName, Option<PackageId>)) -> Self {
        Self { ecosystem, name, package }
    }
}

/// Proof that an action on a package was decided and allowed.
///
/// Past the package head everything asks for one, and only this module makes them,
/// so that forgetting to ask does not compile.
#[derive(Clone, Debug)]
pub struct Grant {
    ecosystem: &'static str,
    name: PackageName,
    package: Option<PackageId>,
    action: Action,
    holder: Holder,
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    Anonymous,
    User(AccountId, TokenId),
    Workflow(TokenId),
    System,
}

/// Decides an action on a package that exists.
///
/// # Errors
/// As for [`decide`].
pub fn grant<'a>(caller: &Caller, target: impl Into<Target<'a>>, policy: &Policy, action: Action) -> Result<Grant> {
    decide(caller, policy, action)?;
    Ok(Grant::of(caller, target.into(), action))
}

/// Decides the first publish of a package under an owner; see [`decide_create`].
///
/// # Errors
/// As for [`decide_create`].
pub fn grant_create<'a>(caller: &Caller, target: impl Into<Target<'a>>, owner: Option<Owner>) -> Result<Grant> {
    decide_create(caller, owner)?;
    Ok(Grant::of(caller, target.into(), Action::Write))
}

/// Decides the reading of what the caller has brought for a package that nobody has made yet.
///
/// # Errors
/// `Unauthenticated` for the anonymous caller, `Forbidden` for a token without `read:packages`.
pub fn grant_own<'a>(caller: &Caller, target: impl Into<Target<'a>>) -> Result<Grant> {
    match caller {
        Caller::Anonymous => Err(Error::new(Kind::Unauthenticated, Subject::Package)),
        Caller::Signed(signed) if !signed.scopes.allow(Scope::ReadPackages) => Err(lacks_scope(Scope::ReadPackages)),
        _ => Ok(Grant::of(caller, target.into(), Action::Read)),
    }
}

/// Decides an action on a name that only the upstreams have. They can be read, by
/// everyone where `anonymous` ([`Config::anonymous_proxy`](super::Config)) says so, and never changed.
///
/// # Errors
/// `Unauthenticated` for the anonymous caller where a token is needed, `Forbidden`
/// for a token without `read:packages` there, and for every other action than reading.
pub fn grant_upstream(caller: &Caller, ecosystem: &'static str, name: &PackageName, action: Action, anonymous: bool) -> Result<Grant> {
    match caller {
        Caller::Anonymous if action != Action::Read || !anonymous => Err(Error::new(Kind::Unauthenticated, Subject::Package)),
        _ if action != Action::Read => Err(Error::forbidden(Subject::Package, "the package is an upstream's and cannot be changed here")),
        Caller::Signed(signed) if !anonymous && !signed.scopes.allow(Scope::ReadPackages) => Err(lacks_scope(Scope::ReadPackages)),
        _ => Ok(Grant::of(caller, Target { ecosystem, name, package: None }, action)),
    }
}

impl Grant {
    /// A grant for this server's own work on a package: jobs, bundles, repair. Allows every action.
    #[must_use]
    pub fn system<'a>(target: impl Into<Target<'a>>) -> Self {
        Self::of(&Caller::System, target.into(), Action::Admin)
    }

    /// The ecosystem's name.
    #[must_use]
    pub const fn ecosystem(&self) -> &'static str {
        self.ecosystem
    }

    /// The package's canonical name.
    #[must_use]
    pub const fn name(&self) -> &PackageName {
        &self.name
    }

    /// The hosted package's id; `None` for one that is only proxied or not yet made.
    #[must_use]
    pub const fn package(&self) -> Option<PackageId> {
        self.package
    }

    /// What was allowed.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// The user it was allowed to; `None` for the anonymous caller, a workflow, and this server itself.
    #[must_use]
    pub const fn caller(&self) -> Option<AccountId> {
        match self.holder {
            Holder::User(user, _) => Some(user),
            Holder::Anonymous | Holder::Workflow(_) | Holder::System => None,
        }
    }

    /// The token by which it was asked for.
    #[must_use]
    pub const fn token(&self) -> Option<TokenId> {
        match self.holder {
            Holder::User(_, token) | Holder::Workflow(token) => Some(token),
            Holder::Anonymous | Holder::System => None,
        }
    }

    /// Whether it is this server's own.
    #[must_use]
    pub const fn is_system(&self) -> bool {
        matches!(self.holder, Holder::System)
    }

    /// Whether it covers an action: the one that was decided, and reading, which every other needs. The server's own covers all.
    #[must_use]
    pub fn allows(&self, action: Action) -> bool {
        action == self.action || action == Action::Read || self.is_system()
    }

    /// That it covers an action. Failing this is a defect of the calling code, and is refused like a missing right.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn require(&self, action: Action) -> Result<()> {
        if self.allows(action) { Ok(()) } else { Err(lacks_role(action.role())) }
    }

    fn of(caller: &Caller, target: Target<'_>, action: Action) -> Self {
        let holder = match caller {
            Caller::Anonymous => Holder::Anonymous,
            Caller::System => Holder::System,
            Caller::Signed(signed) => Holder::User(signed.user, signed.token),
            Caller::Workflow(workflow) => Holder::Workflow(workflow.token),
        };
        Self { ecosystem: target.ecosystem, name: target.name.clone(), package: target.package, action, holder }
    }
}
