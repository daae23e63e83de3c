//! How accounts, repositories, packages and versions look in GitHub's JSON.
//!
//! Every field that GitHub's schema requires is there. Counts of what this server
//! does not have (followers, stars, issues) are zero.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::links::Links;
use crate::clock::Timestamp;
use crate::ecosystem::Ecosystem;
use crate::http::path;
use crate::identity::{Account, Membership, OrganisationRole, Repository, RepositoryRole, Team, Token};
use crate::name::OwnerName;
use crate::package::{Package, Version, Visibility};

/// An instant in GitHub's form: RFC 3339 in UTC, in whole seconds.
pub(crate) fn instant(at: Timestamp) -> String {
    let mut text = at.to_string();
    if let Some(dot) = text.find('.') {
        text.replace_range(dot.., "Z");
    }
    text
}

/// The name of a thing among things of all types: opaque to clients.
fn node_id(kind: &str, id: u64) -> String {
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("0{}:{kind}{id}", kind.len()))
}

/// GitHub's word for an account's kind.
fn kind(account: &Account) -> &'static str {
    if account.is_organisation() { "Organization" } else { "User" }
}

/// GitHub's `SimpleUser`: a user or an organisation.
pub(crate) fn account(links: &Links, account: &Account) -> Map<String, Value> {
    someone(links, account.login.as_str(), account.id.0, kind(account), account.site_admin)
}

/// GitHub's `SimpleUser` for whoever is no user, or no longer one.
pub(crate) fn ghost(links: &Links) -> Map<String, Value> {
    someone(links, "ghost", 0, "User", false)
}

fn someone(links: &Links, login: &str, id: u64, kind: &str, site_admin: bool) -> Map<String, Value> {
    let below = |rest: &str| links.api(&format!("/users/{login}{rest}"));
    members(json!({
        "login": login,
        "id": id,
        "node_id": node_id(kind, id),
        "avatar_url": links.web(&format!("/avatars/{login}")),
        "gravatar_id": "",
        "url": below(""),
        "html_url": links.web(&format!("/{login}")),
        "followers_url": below("/followers"),
        "following_url": below("/following{/other_user}"),
        "gists_url": below("/gists{/gist_id}"),
        "starred_url": below("/starred{/owner}{/repo}"),
        "subscriptions_url": below("/subscriptions"),
        "organizations_url": below("/orgs"),
        "repos_url": below("/repos"),
        "events_url": below("/events{/privacy}"),
        "received_events_url": below("/received_events"),
        "type": kind,
        "user_view_type": "public",
        "site_admin": site_admin,
    }))
}

/// GitHub's `PublicUser`. The address is shown to those who may see it.
pub(crate) fn profile(links: &Links, of: &Account, public_repositories: usize, with_email: bool) -> Map<String, Value> {
    let mut view = account(links, of);
    view.extend(members(json!({
        "name": null,
        "company": null,
        "blog": null,
        "location": null,
        "email": of.email.as_deref().filter(|_| with_email),
        "hireable": null,
        "bio": null,
        "public_repos": public_repositories,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": instant(of.created_at),
        "updated_at": instant(of.created_at),
    })));
    view
}

/// GitHub's `OrganizationSimple`.
pub(crate) fn organisation(links: &Links, of: &Account) -> Map<String, Value> {
    let login = &of.login;
    let below = |rest: &str| links.api(&format!("/orgs/{login}{rest}"));
    members(json!({
        "login": login,
        "id": of.id,
        "node_id": node_id(kind(of), of.id.0),
        "url": below(""),
        "repos_url": below("/repos"),
        "events_url": below("/events"),
        "hooks_url": below("/hooks"),
        "issues_url": below("/issues"),
        "members_url": below("/members{/member}"),
        "public_members_url": below("/public_members{/member}"),
        "avatar_url": links.web(&format!("/avatars/{login}")),
        "description": null,
    }))
}

/// GitHub's `OrganizationFull`.
pub(crate) fn organisation_profile(links: &Links, of: &Account, public_repositories: usize) -> Map<String, Value> {
    let mut view = organisation(links, of);
    view.extend(members(json!({
        "html_url": links.web(&format!("/{}", of.login)),
        "email": of.email,
        "has_organization_projects": false,
        "has_repository_projects": false,
        "public_repos": public_repositories,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "type": kind(of),
        "created_at": instant(of.created_at),
        "updated_at": instant(of.created_at),
        "archived_at": null,
    })));
    view
}

/// GitHub's `OrgMembership`.
pub(crate) fn membership(links: &Links, organisation_account: &Account, user: &Account, membership: &Membership) -> Value {
    let login = &organisation_account.login;
    json!({
        "url": links.api(&format!("/orgs/{login}/memberships/{}", user.login)),
        "state": "active",
        "role": if membership.role == OrganisationRole::Owner { "admin" } else { "member" },
        "direct_membership": true,
        "organization_url": links.api(&format!("/orgs/{login}")),
        "organization": organisation(links, organisation_account),
        "user": account(links, user),
    })
}

/// GitHub's `Team`.
pub(crate) fn team(links: &Links, organisation: &Account, team: &Team) -> Value {
    let below = |rest: &str| links.api(&format!("/orgs/{}/teams/{}{rest}", organisation.login, team.name));
    json!({
        "id": team.id,
        "node_id": node_id("Team", team.id.0),
        "name": team.name,
        "slug": team.name,
        "description": null,
        "privacy": "closed",
        "notification_setting": "notifications_disabled",
        "permission": "pull",
        "url": below(""),
        "html_url": links.web(&format!("/orgs/{}/teams/{}", organisation.login, team.name)),
        "members_url": below("/members{/member}"),
        "repositories_url": below("/repos"),
        "parent": null,
    })
}

/// What follows a repository's address in each of its fields of addresses.
const REPOSITORY_ADDRESSES: [(&str, &str); 37] = [
    ("archive_url", "/{archive_format}{/ref}"),
    ("assignees_url", "/assignees{/user}"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("branches_url", "/branches{/branch}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("comments_url", "/comments{/number}"),
    ("commits_url", "/commits{/sha}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("contents_url", "/contents/{+path}"),
    ("contributors_url", "/contributors"),
    ("deployments_url", "/deployments"),
    ("downloads_url", "/downloads"),
    ("events_url", "/events"),
    ("forks_url", "/forks"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("hooks_url", "/hooks"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("issue_events_url", "/issues/events{/number}"),
    ("issues_url", "/issues{/number}"),
    ("keys_url", "/keys{/key_id}"),
    ("labels_url", "/labels{/name}"),
    ("languages_url", "/languages"),
    ("merges_url", "/merges"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("pulls_url", "/pulls{/number}"),
    ("releases_url", "/releases{/id}"),
    ("stargazers_url", "/stargazers"),
    ("statuses_url", "/statuses/{sha}"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("tags_url", "/tags"),
    ("teams_url", "/teams"),
    ("trees_url", "/git/trees{/sha}"),
    ("url", ""),
];

/// GitHub's `MinimalRepository`.
pub(crate) fn repository(links: &Links, owner: &Account, repository: &Repository) -> Map<String, Value> {
    let full_name = format!("{}/{}", owner.login, repository.name);
    let mut view = members(json!({
        "id": repository.id,
        "node_id": node_id("Repository", repository.id.0),
        "name": repository.name,
        "full_name": full_name,
        "private": repository.visibility != Visibility::Public,
        "owner": account(links, owner),
        "html_url": links.web(&format!("/{full_name}")),
        "description": null,
        "fork": false,
    }));
    let address = links.repository(&owner.login, repository.name.as_str());
    view.extend(REPOSITORY_ADDRESSES.iter().map(|(name, rest)| ((*name).to_owned(), format!("{address}{rest}").into())));
    view
}

/// GitHub's `FullRepository`, with what the caller may do to it.
pub(crate) fn full_repository(links: &Links, owner: &Account, of: &Repository, role: Option<RepositoryRole>) -> Map<String, Value> {
    let mut view = repository(links, owner, of);
    let created = instant(of.created_at);
    view.extend(members(json!({
        "visibility": of.visibility,
        "homepage": null,
        "language": null,
        "size": 0,
        "default_branch": "main",
        "is_template": false,
        "topics": [],
        "has_issues": false,
        "has_projects": false,
        "has_wiki": false,
        "has_pages": false,
        "has_downloads": false,
        "has_discussions": false,
        "archived": false,
        "disabled": false,
        "forks": 0,
        "forks_count": 0,
        "stargazers_count": 0,
        "watchers": 0,
        "watchers_count": 0,
        "subscribers_count": 0,
        "network_count": 0,
        "open_issues": 0,
        "open_issues_count": 0,
        "license": null,
        "pushed_at": created,
        "created_at": created,
        "updated_at": created,
        "permissions": permissions(role),
    })));
    if owner.is_organisation() {
        view.insert("organization".to_owned(), account(links, owner).into());
    }
    view
}

/// GitHub's five yes-or-no answers for a role; without one, reading is what is left to who sees the repository at all.
pub(crate) fn permissions(role: Option<RepositoryRole>) -> Value {
    json!({
        "admin": role >= Some(RepositoryRole::Admin),
        "maintain": role >= Some(RepositoryRole::Maintain),
        "push": role >= Some(RepositoryRole::Write),
        "triage": role >= Some(RepositoryRole::Triage),
        "pull": true,
    })
}

/// A package with what its view needs besides its record.
pub(crate) struct Shown<'a> {
    /// The record.
    pub(crate) package: &'a Package,
    /// Its ecosystem.
    pub(crate) ecosystem: &'static dyn Ecosystem,
    /// Its name in the API.
    pub(crate) name: &'a str,
    /// Whose it is.
    pub(crate) owner: &'a Account,
    /// The repository it is linked to, if the caller may see it.
    pub(crate) repository: Option<&'a Repository>,
    /// How often what is shown was downloaded; GitHub shows such a count of a release's files.
    pub(crate) downloads: u64,
}

impl Shown<'_> {
    pub(crate) fn package_type(&self) -> &'static str {
        self.ecosystem.info().package_types.first().copied().unwrap_or(self.ecosystem.info().name)
    }

    fn visibility(&self) -> Visibility {
        if !self.package.repository_scoped {
            return self.package.visibility;
        }
        // Who sees the package sees its repository, unless that is gone.
        self.repository.map_or(Visibility::Private, |repository| repository.visibility)
    }

    /// GitHub's `Package`.
    pub(crate) fn package(&self, links: &Links) -> Map<String, Value> {
        let package = self.package;
        let mut view = members(json!({
            "id": package.id,
            "node_id": node_id("Package", package.id.0),
            "name": self.name,
            "package_type": self.package_type(),
            "owner": account(links, self.owner),
            "version_count": package.versions,
            "download_count": self.downloads,
            "visibility": self.visibility(),
            "url": links.package(self.owner, self.package_type(), self.name),
            "html_url": links.package_page(self.owner, self.package_type(), self.name),
            "created_at": instant(package.created_at),
            "updated_at": instant(package.updated_at),
        }));
        // A package of a repository is its owner's.
        if let Some(linked) = self.repository {
            view.insert("repository".to_owned(), repository(links, self.owner, linked).into());
        }
        if let Some(at) = package.deleted_at {
            view.insert("deleted_at".to_owned(), instant(at).into());
        }
        view
    }

    /// The page of a version.
    pub(crate) fn version_page(&self, links: &Links, version: &Version) -> String {
        let page = format!("/{}/packages/{}/{}", Links::owner_prefix(self.owner), self.package_type(), path::encode(self.name));
        format!("{}/{}", links.web(&page), version.id)
    }

    /// GitHub's `PackageVersion`.
    pub(crate) fn version(&self, links: &Links, version: &Version) -> Value {
        let page = links.package_page(self.owner, self.package_type(), self.name);
        let tags: Vec<&str> =
            self.package.tags.iter().filter(|(_, number)| **number == version.number).map(|(tag, _)| tag.as_str()).collect();
        let said = self.ecosystem.describe(version, &tags);
        let mut metadata = members(json!({ "package_type": self.package_type() }));
        metadata.extend(said.metadata);
        let mut view = members(json!({
            "id": version.id,
            "node_id": node_id("PackageVersion", version.id.0),
            "name": version.number,
            "url": format!("{}/versions/{}", links.package(self.owner, self.package_type(), self.name), version.id),
            "package_html_url": page,
            "html_url": self.version_page(links, version),
            "license": said.license,
            "description": said.summary,
            "download_count": self.downloads,
            "created_at": instant(version.created_at),
            "updated_at": instant(version.updated_at),
            "metadata": metadata,
        }));
        // GitHub has no such member; who does not know it loses nothing.
        if version.unlisted.is_some() {
            view.insert("unlisted".to_owned(), true.into());
        }
        if let Some(at) = version.deleted_at {
            view.insert("deleted_at".to_owned(), instant(at).into());
        }
        view.into()
    }
}

/// A token, without its text.
pub(crate) fn token(links: &Links, token: &Token) -> Map<String, Value> {
    members(json!({
        "id": token.id,
        "url": links.api(&format!("/user/tokens/{}", token.id)),
        "note": token.note,
        "scopes": token.scopes,
        "created_at": instant(token.created_at),
        "updated_at": instant(token.last_used_at.unwrap_or(token.created_at)),
        "last_used_at": token.last_used_at.map(instant),
        "expires_at": token.expires_at.map(instant),
        "revoked": token.revoked,
    }))
}

/// A reserved name and whose it is.
pub(crate) fn reservation(package_type: &str, pattern: &str, owner: Option<&OwnerName>, merge: bool) -> Value {
    json!({ "package_type": package_type, "pattern": pattern, "owner": owner, "merge": merge })
}

/// The members of an object.
pub(crate) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_in_whole_seconds() {
        assert_eq!(instant(Timestamp::from_millis(1_700_000_000_123)), "2023-11-14T22:13:20Z");
    }
}
