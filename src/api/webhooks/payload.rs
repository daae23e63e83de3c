//! What webhooks say of a package: GitHub's events `package` and `registry_package`.
//!
//! The two are twins that differ in the name of one member. Everything that GitHub's
//! schema requires is there; what this server does not have (releases, commits) is
//! left out or empty, as the schema allows.
//!
//! Source: GitHub's «Webhook events and payloads», and the schemas in octokit/webhooks.

use serde_json::{Map, Value, json};

use crate::api::rest::hooks::view::repository_told;
use crate::api::rest::links::Links;
use crate::api::rest::view::{self, Shown, instant, members};
use crate::digest::{Algorithm, Digest};
use crate::ecosystem::Told;
use crate::format::BaseUrl;
use crate::identity::{Account, Repository};
use crate::package::{File, Version};
use crate::webhook::PackageAction;

/// The events that tell of packages. Each is the name of its own member.
pub(super) const EVENTS: [&str; 2] = ["package", "registry_package"];

/// What is told.
pub(super) struct Story<'a> {
    /// The package as it is now.
    pub(super) shown: Shown<'a>,
    /// What happened to it.
    pub(super) action: PackageAction,
    /// The version that it happened to, if it was one.
    pub(super) version: Option<&'a Version>,
    /// Who published that.
    pub(super) author: Option<&'a Account>,
    /// Who did it, unless it was this server or the account is gone.
    pub(super) sender: Option<&'a Account>,
}

impl Story<'_> {
    /// The payload of an event. `repository` is the one that the package is linked to, if the listener
    /// may know of it. What is larger than `limit_bytes` loses what only its ecosystem has; `None` is
    /// for what is larger all the same.
    pub(super) fn payload(&self, links: &Links, event: &str, repository: Option<&Repository>, limit_bytes: usize) -> Option<String> {
        [true, false].into_iter().map(|whole| self.text(links, event, repository, whole)).find(|text| text.len() <= limit_bytes)
    }

    fn text(&self, links: &Links, event: &str, repository: Option<&Repository>, whole: bool) -> String {
        let mut payload = Map::new();
        payload.insert("action".to_owned(), self.action.name().into());
        payload.insert(event.to_owned(), self.package(links, whole).into());
        if let Some(repository) = repository {
            payload.insert("repository".to_owned(), repository_told(links, self.shown.owner, repository).into());
        }
        if self.shown.owner.is_organisation() {
            payload.insert("organization".to_owned(), view::organisation(links, self.shown.owner).into());
        }
        let sender = self.sender.map_or_else(|| view::ghost(links), |sender| view::account(links, sender));
        payload.insert("sender".to_owned(), sender.into());
        Value::Object(payload).to_string()
    }

    fn package(&self, links: &Links, whole: bool) -> Map<String, Value> {
        let Shown { package, ecosystem, name, owner, .. } = self.shown;
        let kind = ecosystem.webhook_type();
        let said = self.version.map(|version| ecosystem.describe(version, &[]));
        let base = self.base(links);
        let mut told = members(json!({
            "id": package.id,
            "name": name,
            "namespace": owner.login,
            "description": said.and_then(|said| said.summary),
            "ecosystem": kind,
            "package_type": kind,
            "html_url": links.package_page(owner, self.shown.package_type(), name),
            "created_at": instant(package.created_at),
            "updated_at": instant(package.updated_at),
            "owner": view::account(links, owner),
            "package_version": self.version.map(|version| self.version(links, version, &base, whole)),
            "registry": {
                "about_url": links.web("/"),
                "name": format!("packhouse {kind} registry"),
                "type": kind,
                "url": base.as_str(),
                "vendor": "packhouse",
            },
        }));
        if self.action == PackageAction::VisibilityChanged {
            told.insert("visibility".to_owned(), json!(package.visibility));
        }
        told
    }

    fn version(&self, links: &Links, version: &Version, base: &BaseUrl, whole: bool) -> Map<String, Value> {
        let Shown { package, ecosystem, owner, .. } = self.shown;
        let said = ecosystem.describe(version, &[]);
        let announced = ecosystem.announce(Told { package, version, owner: &owner.login, base });
        let page = self.shown.version_page(links, version);
        let summary = said.summary.unwrap_or_default();
        let file = |(file, download): (&File, Option<Option<String>>)| {
            let address = download.flatten().unwrap_or_else(|| page.clone());
            self::file(version, file, &address)
        };
        let downloads = announced.downloads.into_iter().map(Some).chain(std::iter::repeat(None));
        let files: Vec<Value> = version.files.iter().zip(downloads).map(file).collect();
        let mut told = members(json!({
            "id": version.id,
            "version": version.number,
            "name": version.number,
            "description": summary,
            "summary": summary,
            "manifest": "",
            "html_url": page,
            "tag_name": version.number,
            "target_commitish": "",
            "target_oid": "",
            "draft": false,
            "prerelease": announced.prerelease,
            "created_at": instant(version.created_at),
            "updated_at": instant(version.updated_at),
            "metadata": [],
            "docker_metadata": [],
            "package_files": files,
            "installation_command": announced.installation_command,
            "package_url": announced.package_url,
        }));
        if let Some(author) = self.author {
            told.insert("author".to_owned(), view::account(links, author).into());
        }
        if whole {
            told.extend(announced.members);
            told.extend(announced.readme.map(|readme| ("body".to_owned(), readme.into())));
        }
        told
    }

    /// The ecosystem's mount, as clients address it.
    fn base(&self, links: &Links) -> BaseUrl {
        BaseUrl::new(&links.web(&format!("/{}", self.shown.ecosystem.info().mount)))
    }
}

fn file(version: &Version, file: &File, address: &str) -> Value {
    let hex = |algorithm| file.digests.iter().find(|digest| digest.algorithm() == algorithm).map(Digest::hex).unwrap_or_default();
    json!({
        "download_url": address,
        "id": number(version, file),
        "name": file.name,
        "sha256": file.sha256.hex(),
        "sha1": hex(Algorithm::Sha1),
        "md5": hex(Algorithm::Md5),
        "content_type": file.media_type,
        "state": "uploaded",
        "size": file.size,
        "created_at": instant(version.created_at),
        "updated_at": instant(version.updated_at),
    })
}

/// Files have no numbers of their own here: one is made of what tells a file from all others, and always the same
/// one. It is one that JavaScript can hold.
fn number(version: &Version, file: &File) -> u64 {
    let digest = Digest::sha256(format!("{}/{}", version.id, file.name).as_bytes());
    digest.bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)) >> 11
}
