//! The commands and their arguments, as clap reads them. Doc comments are the help texts.

use clap::{Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server until SIGTERM or Ctrl-C; SIGHUP reads the configuration and certificates again
    Serve,
    /// Check the configuration and report every problem in it
    CheckConfig,
    /// Print what points each package client at this server
    Clients {
        /// Only this ecosystem
        ecosystem: Option<String>,
    },
    /// Show whether the server runs, and which version
    Status,
    /// Users
    #[command(subcommand)]
    User(User),
    /// Organisations and their members
    #[command(subcommand)]
    Org(Org),
    /// Teams of organisations
    #[command(subcommand)]
    Team(Team),
    /// Repositories: what packages link to and can take their roles from
    #[command(subcommand)]
    Repo(Repo),
    /// Personal access tokens
    #[command(subcommand)]
    Token(Token),
    /// Reserved names: never asked upstream, whoever publishes them there
    #[command(subcommand)]
    Reserve(Reserve),
    /// Published packages
    #[command(subcommand)]
    Package(Package),
    /// Show who did what to which package or account, oldest first
    Audit {
        /// Only what happened to this user or organisation and to its packages
        #[arg(long, conflicts_with = "package")]
        owner: Option<String>,
        /// Only this package
        #[arg(long, num_args = 2, value_names = ["ECOSYSTEM", "NAME"])]
        package: Option<Vec<String>>,
        /// Begin after the event of this id
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
    },
    /// Check every stored file against its digest and every reference against what is there; fails when something is wrong
    Fsck,
    /// Remove stored files that nothing refers to
    Gc,
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// List users
    List,
    /// Show one user
    Show { login: String },
    /// Make a user
    Add {
        login: String,
        /// Address shown as the author of packages
        #[arg(long)]
        email: Option<String>,
        /// May do everything on this server
        #[arg(long)]
        admin: bool,
    },
    /// Change a user; an old login stays reserved
    Change {
        login: String,
        /// New login
        #[arg(long, value_name = "LOGIN")]
        rename: Option<String>,
        /// New address
        #[arg(long)]
        email: Option<String>,
        /// Whether the user may do everything on this server
        #[arg(long)]
        admin: Option<bool>,
    },
    /// Refuse a user's tokens
    Disable { login: String },
    /// Accept a disabled user's tokens again
    Enable { login: String },
    /// Delete a user; the login stays reserved
    Delete { login: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum Org {
    /// List organisations
    List,
    /// Show one organisation
    Show { org: String },
    /// Make an organisation
    Add {
        org: String,
        /// A user to be its first owner
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
    },
    /// Rename an organisation; the old login stays reserved
    Rename { org: String, login: String },
    /// Delete an organisation; its login stays reserved
    Delete { org: String },
    /// List members
    Members { org: String },
    /// Make a user a member, or change a member's role
    AddMember {
        org: String,
        user: String,
        /// An owner is admin of everything the organisation owns
        #[arg(long, value_enum, default_value = "member")]
        role: MemberRole,
    },
    /// End a membership, and with it the places in teams
    RemoveMember { org: String, user: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum Team {
    /// List an organisation's teams
    List { org: String },
    /// Make a team
    Add { org: String, team: String },
    /// Delete a team and the roles granted to it
    Delete { org: String, team: String },
    /// List a team's members
    Members { org: String, team: String },
    /// Put a member of the organisation into a team
    AddMember { org: String, team: String, user: String },
    /// Take a user out of a team
    RemoveMember { org: String, team: String, user: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum Repo {
    /// List an owner's repositories
    List { owner: String },
    /// Show one repository
    Show {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
    },
    /// Make a repository
    Add {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
        #[arg(long, value_enum, default_value = "private")]
        visibility: Visible,
    },
    /// Change who may see a repository
    Visibility {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
        visibility: Visible,
    },
    /// Delete a repository; packages linked to it keep their own roles
    Delete {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
    },
    /// List the roles granted on a repository
    Roles {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
    },
    /// Grant a role on a repository
    Grant {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
        /// user:LOGIN or team:NAME
        principal: String,
        role: RepoRole,
    },
    /// Take a role away
    Withdraw {
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
        /// user:LOGIN or team:NAME
        principal: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// List a user's tokens
    List { user: String },
    /// Make a token and print it, this once
    Add {
        user: String,
        /// Comma-separated: read:packages, write:packages, delete:packages, repo, user, admin:org, read:org, admin:repo_hook,
        /// write:repo_hook, read:repo_hook, admin:org_hook
        #[arg(long, value_delimiter = ',', default_value = "read:packages")]
        scopes: Vec<String>,
        /// What the token is for
        #[arg(long, default_value = "")]
        note: String,
        /// Days until it is refused [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_in: Option<u32>,
    },
    /// Revoke a token; it is refused within a second
    Revoke { user: String, id: u64 },
}

#[derive(Debug, Subcommand)]
pub(super) enum Reserve {
    /// List reserved names
    List,
    /// Reserve names for an owner
    Add {
        ecosystem: String,
        /// A name, or the beginning of names followed by `*`, such as '@acme/*'
        pattern: String,
        /// The user or organisation the names belong to
        #[arg(long)]
        owner: String,
        /// Merge versions from upstream in nevertheless
        #[arg(long)]
        merge: bool,
    },
    /// Give reserved names up
    Remove { ecosystem: String, pattern: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum Package {
    /// List an ecosystem's published packages
    List { ecosystem: String },
    /// Show one package with its versions, tags and roles
    Show { ecosystem: String, name: String },
    /// Change who may see a package
    Visibility { ecosystem: String, name: String, visibility: Visible },
    /// Delete a package, or one version; a name and a version number are never free for others again
    Delete { ecosystem: String, name: String, version: Option<String> },
    /// Restore a deleted package, or one version
    Restore { ecosystem: String, name: String, version: Option<String> },
    /// Link a package to a repository of its owner
    Link {
        ecosystem: String,
        name: String,
        #[arg(value_name = "OWNER/REPO")]
        repo: String,
        /// Take the roles from the repository, instead of the package's own
        #[arg(long)]
        inherit: bool,
    },
    /// Unlink a package from its repository
    Unlink { ecosystem: String, name: String },
    /// Grant a role on a package, or take it away
    Role {
        ecosystem: String,
        name: String,
        /// user:LOGIN or team:NAME
        principal: String,
        role: PackageRole,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MemberRole {
    Member,
    Owner,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Visible {
    Public,
    Internal,
    Private,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RepoRole {
    Read,
    Triage,
    Write,
    Maintain,
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PackageRole {
    Read,
    Write,
    Admin,
    /// Take the role away
    None,
}
