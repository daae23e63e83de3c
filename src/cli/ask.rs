//! From a command to the request it makes. Pure.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::commands::{Command, Org, Package, PackageRole, Repo, Reserve, Team, Token, User};
use super::show::Show;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result, Subject};
use crate::http::{Method, path::encode};
use crate::jobs::Upkeep;

/// A request to the administration API, and how its answer is shown.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) show: Show,
}

const USER: &[&str] = &["login", "email", "site_admin", "disabled", "created_at"];
const ORG: &[&str] = &["login", "created_at"];
const MEMBER: &[&str] = &["login", "role", "created_at"];
const TEAM: &[&str] = &["name", "created_at"];
const REPO: &[&str] = &["full_name", "visibility", "created_at"];
const ROLE: &[&str] = &["principal", "role"];
const TOKEN: &[&str] = &["id", "note", "scopes", "expires_at", "last_used_at", "revoked"];
const AUDIT: &[&str] = &["id", "at", "user", "token", "client", "deed", "owner", "ecosystem", "package", "version", "about"];
const RESERVATION: &[&str] = &["ecosystem", "pattern", "owner", "merge"];
const PACKAGE: &[&str] = &["name", "owner", "visibility", "repository", "versions", "deleted_at"];

/// The request of a command that administers.
///
/// # Errors
/// `Invalid` for an `OWNER/REPO` that is none.
pub(super) fn ask(command: Command) -> Result<Ask> {
    Ok(match command {
        Command::Status => get("/status".to_owned(), Show::Record(&["version", "ecosystems"])),
        Command::User(command) => user(command),
        Command::Org(command) => org(command),
        Command::Team(command) => team(command),
        Command::Repo(command) => repo(command)?,
        Command::Token(command) => token(command, Clock::system().now()),
        Command::Reserve(command) => reserve(command),
        Command::Audit { owner, package, after } => audit(owner, package, after),
        Command::Package(command) => package(command)?,
        Command::Fsck => upkeep(Upkeep::Fsck),
        Command::Gc => upkeep(Upkeep::Gc),
        Command::Serve | Command::CheckConfig | Command::Clients { .. } => {
            return Err(Error::internal(Subject::Request, "this command asks no server"));
        }
    })
}

/// The request for work on the data folder.
pub(super) fn upkeep(work: Upkeep) -> Ask {
    let path = match work {
        Upkeep::Fsck => "/fsck",
        Upkeep::Gc => "/gc",
    };
    send(Method::POST, path.to_owned(), None, Show::Json)
}

fn user(command: User) -> Ask {
    let at = |login: &str| format!("/users/{}", encode(login));
    let change = |login: &str, body: Value, what| send(Method::PATCH, at(login), Some(body), Show::Done(format!("user {login} {what}")));
    match command {
        User::List => get("/users".to_owned(), Show::Table(USER)),
        User::Show { login } => get(at(&login), Show::Record(USER)),
        User::Add { login, email, admin } => {
            let body = json!({ "login": login, "email": email, "site_admin": admin });
            send(Method::POST, "/users".to_owned(), Some(body), Show::Done(format!("user {login} made")))
        }
        User::Change { login, rename, email, admin } => {
            change(&login, json!({ "login": rename, "email": email, "site_admin": admin }), "changed")
        }
        User::Disable { login } => change(&login, json!({ "disabled": true }), "disabled"),
        User::Enable { login } => change(&login, json!({ "disabled": false }), "enabled"),
        User::Delete { login } => delete(at(&login), format!("user {login} deleted")),
    }
}

fn org(command: Org) -> Ask {
    let at = |org: &str| format!("/orgs/{}", encode(org));
    let member = |org: &str, user: &str| format!("/orgs/{}/members/{}", encode(org), encode(user));
    match command {
        Org::List => get("/orgs".to_owned(), Show::Table(ORG)),
        Org::Show { org } => get(at(&org), Show::Record(ORG)),
        Org::Add { org, owner } => {
            let body = json!({ "login": org, "owner": owner });
            send(Method::POST, "/orgs".to_owned(), Some(body), Show::Done(format!("organisation {org} made")))
        }
        Org::Rename { org, login } => {
            let done = format!("organisation {org} is now {login}");
            send(Method::PATCH, at(&org), Some(json!({ "login": login })), Show::Done(done))
        }
        Org::Delete { org } => delete(at(&org), format!("organisation {org} deleted")),
        Org::Members { org } => get(format!("{}/members", at(&org)), Show::Table(MEMBER)),
        Org::AddMember { org, user, role } => {
            let done = format!("{user} is {} of {org}", word(&role));
            send(Method::PUT, member(&org, &user), Some(json!({ "role": word(&role) })), Show::Done(done))
        }
        Org::RemoveMember { org, user } => delete(member(&org, &user), format!("{user} left {org}")),
    }
}

fn team(command: Team) -> Ask {
    let at = |org: &str, team: &str| format!("/orgs/{}/teams/{}", encode(org), encode(team));
    let member = |org: &str, team: &str, user: &str| format!("{}/members/{}", at(org, team), encode(user));
    match command {
        Team::List { org } => get(format!("/orgs/{}/teams", encode(&org)), Show::Table(TEAM)),
        Team::Add { org, team } => {
            let done = format!("team {team} of {org} made");
            send(Method::POST, format!("/orgs/{}/teams", encode(&org)), Some(json!({ "name": team })), Show::Done(done))
        }
        Team::Delete { org, team } => delete(at(&org, &team), format!("team {team} of {org} deleted")),
        Team::Members { org, team } => get(format!("{}/members", at(&org, &team)), Show::Table(MEMBER)),
        Team::AddMember { org, team, user } => {
            send(Method::PUT, member(&org, &team, &user), None, Show::Done(format!("{user} is in team {team} of {org}")))
        }
        Team::RemoveMember { org, team, user } => delete(member(&org, &team, &user), format!("{user} left team {team} of {org}")),
    }
}

fn repo(command: Repo) -> Result<Ask> {
    let at = |repo: &str| split(repo).map(|(owner, name)| format!("/repos/{}/{}", encode(owner), encode(name)));
    let role = |repo: &str, principal: &str| Ok::<_, Error>(format!("{}/roles/{}", at(repo)?, encode(principal)));
    Ok(match command {
        Repo::List { owner } => get(format!("/repos/{}", encode(&owner)), Show::Table(REPO)),
        Repo::Show { repo } => get(at(&repo)?, Show::Record(REPO)),
        Repo::Add { repo, visibility } => {
            let (owner, name) = split(&repo)?;
            let body = json!({ "name": name, "visibility": word(&visibility) });
            send(Method::POST, format!("/repos/{}", encode(owner)), Some(body), Show::Done(format!("repository {repo} made")))
        }
        Repo::Visibility { repo, visibility } => {
            let done = format!("repository {repo} is {}", word(&visibility));
            send(Method::PATCH, at(&repo)?, Some(json!({ "visibility": word(&visibility) })), Show::Done(done))
        }
        Repo::Delete { repo } => delete(at(&repo)?, format!("repository {repo} deleted")),
        Repo::Roles { repo } => get(format!("{}/roles", at(&repo)?), Show::Table(ROLE)),
        Repo::Grant { repo, principal, role: granted } => {
            let done = format!("{principal} has the role {} on {repo}", word(&granted));
            send(Method::PUT, role(&repo, &principal)?, Some(json!({ "role": word(&granted) })), Show::Done(done))
        }
        Repo::Withdraw { repo, principal } => delete(role(&repo, &principal)?, format!("{principal} has no role on {repo}")),
    })
}

fn token(command: Token, now: Timestamp) -> Ask {
    let at = |user: &str| format!("/users/{}/tokens", encode(user));
    match command {
        Token::List { user } => get(at(&user), Show::Table(TOKEN)),
        Token::Add { user, scopes, note, expires_in } => {
            let days = |days: u32| now.plus(std::time::Duration::from_secs(u64::from(days) * 24 * 3600));
            let body = json!({ "scopes": scopes, "note": note, "expires_at": expires_in.map(days) });
            send(Method::POST, at(&user), Some(body), Show::Field("token"))
        }
        Token::Revoke { user, id } => delete(format!("{}/{id}", at(&user)), format!("token {id} of {user} revoked")),
    }
}

fn audit(owner: Option<String>, package: Option<Vec<String>>, after: Option<u64>) -> Ask {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", "1000");
    query.extend_pairs(owner.map(|owner| ("owner", owner)));
    query.extend_pairs(["ecosystem", "name"].into_iter().zip(package.into_iter().flatten()));
    query.extend_pairs(after.map(|after| ("after", after.to_string())));
    get(format!("/audit?{}", query.finish()), Show::Table(AUDIT))
}

fn reserve(command: Reserve) -> Ask {
    let at = |ecosystem: &str, pattern: &str| format!("/reservations/{}/{}", encode(ecosystem), encode(pattern));
    match command {
        Reserve::List => get("/reservations".to_owned(), Show::Table(RESERVATION)),
        Reserve::Add { ecosystem, pattern, owner, merge } => {
            let done = format!("{pattern} in {ecosystem} belongs to {owner}");
            send(Method::PUT, at(&ecosystem, &pattern), Some(json!({ "owner": owner, "merge": merge })), Show::Done(done))
        }
        Reserve::Remove { ecosystem, pattern } => {
            delete(at(&ecosystem, &pattern), format!("{pattern} in {ecosystem} is no longer reserved"))
        }
    }
}

fn package(command: Package) -> Result<Ask> {
    let at = |ecosystem: &str, name: &str| format!("/packages/{}/{}", encode(ecosystem), encode(name));
    let part = |ecosystem: &str, name: &str, version: Option<&str>| match version {
        None => (at(ecosystem, name), name.to_owned()),
        Some(version) => (format!("{}/versions/{}", at(ecosystem, name), encode(version)), format!("{name} {version}")),
    };
    Ok(match command {
        Package::List { ecosystem } => get(format!("/packages/{}", encode(&ecosystem)), Show::Table(PACKAGE)),
        Package::Show { ecosystem, name } => get(at(&ecosystem, &name), Show::Json),
        Package::Visibility { ecosystem, name, visibility } => {
            let done = format!("{name} is {}", word(&visibility));
            send(Method::PATCH, at(&ecosystem, &name), Some(json!({ "visibility": word(&visibility) })), Show::Done(done))
        }
        Package::Delete { ecosystem, name, version } => {
            let (path, what) = part(&ecosystem, &name, version.as_deref());
            delete(path, format!("{what} deleted"))
        }
        Package::Restore { ecosystem, name, version } => {
            let (path, what) = part(&ecosystem, &name, version.as_deref());
            send(Method::POST, format!("{path}/restore"), None, Show::Done(format!("{what} restored")))
        }
        Package::Link { ecosystem, name, repo, inherit } => {
            split(&repo)?;
            let body = json!({ "repository": repo, "inherits": inherit });
            send(Method::PATCH, at(&ecosystem, &name), Some(body), Show::Done(format!("{name} is linked to {repo}")))
        }
        Package::Unlink { ecosystem, name } => {
            let body = json!({ "repository": null, "inherits": false });
            send(Method::PATCH, at(&ecosystem, &name), Some(body), Show::Done(format!("{name} is linked to no repository")))
        }
        Package::Role { ecosystem, name, principal, role } => {
            let path = format!("{}/roles/{}", at(&ecosystem, &name), encode(&principal));
            if role == PackageRole::None {
                return Ok(delete(path, format!("{principal} has no role on {name}")));
            }
            let done = format!("{principal} has the role {} on {name}", word(&role));
            send(Method::PUT, path, Some(json!({ "role": word(&role) })), Show::Done(done))
        }
    })
}

fn get(path: String, show: Show) -> Ask {
    Ask { method: Method::GET, path, body: None, show }
}

fn delete(path: String, done: String) -> Ask {
    send(Method::DELETE, path, None, Show::Done(done))
}

fn send(method: Method, path: String, body: Option<Value>, show: Show) -> Ask {
    Ask { method, path, body, show }
}

/// The word that stands for a choice on the command line, which is the API's too.
fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn split(repo: &str) -> Result<(&str, &str)> {
    let parts = repo.split_once('/').filter(|(owner, name)| !owner.is_empty() && !name.is_empty() && !name.contains('/'));
    parts.ok_or_else(|| Error::invalid(Subject::Repository, format!("{repo:?} is no repository, expected OWNER/REPO")))
}
