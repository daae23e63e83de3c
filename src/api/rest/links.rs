//! The addresses that answers hold.
//!
//! Those of the API answer; those of pages are where the pages of accounts,
//! repositories and packages stand. All are built from the origin that the client used.

use crate::http::path;
use crate::identity::Account;
use crate::name::OwnerName;

/// Where the API is mounted.
pub(crate) const MOUNT: &str = "/api/v3";

/// Builds addresses below one origin.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    web: String,
}

impl Links {
    /// Addresses below an origin, which has no trailing slash.
    pub(crate) fn new(origin: &str) -> Self {
        Self { web: origin.to_owned() }
    }

    /// An address of the API; `below` begins with a slash and is escaped.
    pub(crate) fn api(&self, below: &str) -> String {
        format!("{}{MOUNT}{below}", self.web)
    }

    /// An address of a page; `below` begins with a slash and is escaped.
    pub(crate) fn web(&self, below: &str) -> String {
        format!("{}{below}", self.web)
    }

    /// Where an error sends its reader: the list of what there is, at the endpoint's line.
    pub(super) fn documentation(&self, place: &str) -> String {
        if place.is_empty() { self.api("") } else { format!("{}#{}", self.api(""), path::encode(place)) }
    }

    /// `users/LOGIN` or `orgs/LOGIN`: what addresses of an account's things begin with.
    pub(super) fn owner_prefix(owner: &Account) -> String {
        format!("{}/{}", if owner.is_organisation() { "orgs" } else { "users" }, owner.login)
    }

    /// The API's address of a package.
    pub(crate) fn package(&self, owner: &Account, package_type: &str, name: &str) -> String {
        self.api(&format!("/{}/packages/{package_type}/{}", Self::owner_prefix(owner), path::encode(name)))
    }

    /// The page of a package.
    pub(crate) fn package_page(&self, owner: &Account, package_type: &str, name: &str) -> String {
        self.web(&format!("/{}/packages/{package_type}/package/{}", Self::owner_prefix(owner), path::encode(name)))
    }

    /// The API's address of a repository.
    pub(crate) fn repository(&self, owner: &OwnerName, name: &str) -> String {
        self.api(&format!("/repos/{owner}/{name}"))
    }
}
