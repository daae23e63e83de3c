//! Fills a data folder with made-up npm packages, for measurements of a large store: `fill CONFIG OWNER PACKAGES VERSIONS`.
//!
//! The server must not run. The rows are those of a real publish, made by the same functions; all versions share one
//! small file, and no events are told.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use packhouse::app::Data;
use packhouse::blob::Purpose;
use packhouse::catalog::change::{self, New};
use packhouse::catalog::{Applied, Draft};
use packhouse::clock::Clock;
use packhouse::config::Config;
use packhouse::digest::Digest;
use packhouse::error::{Error, Result, Subject};
use packhouse::name::{OwnerName, PackageName, Tag};
use packhouse::package::{AccountId, File, PackageId, VersionId, Visibility};

/// Packages that are made at once: as many batches fill a group of the store's writer.
const AT_ONCE: usize = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, owner, packages, versions] = arguments.as_slice() else {
        return Err(Error::invalid(Subject::Config, "usage: fill CONFIG OWNER PACKAGES VERSIONS"));
    };
    let number = |text: &str| text.parse::<u64>().map_err(|error| Error::invalid(Subject::Config, format!("{text}: {error}")));
    let (packages, versions) = (number(packages)?, number(versions)?);
    let config = Config::load(Some(Path::new(config)))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Error::internal(Subject::Config, error))?;
    runtime.block_on(async {
        let data = Data::open(&config, &Clock::system()).await?;
        let login = OwnerName::new(owner).map_err(|rule| Error::invalid(Subject::Owner, rule.to_string()))?;
        let owner = data.identity.account_by_login(&login).await?.id;
        let lease = data.blobs.put(Purpose::Hosted, Bytes::from_static(b"made up")).await?;
        let filler = Filler { data: &data, scope: login.as_str(), owner, blob: *lease.digest(), versions };
        let done = AtomicU64::new(0);
        let each = |number| {
            let (filler, done) = (&filler, &done);
            async move {
                filler.package(number).await?;
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                if done.is_multiple_of(10_000) {
                    eprintln!("{done} of {packages} packages");
                }
                Ok::<_, Error>(())
            }
        };
        futures_util::stream::iter(0..packages).map(each).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        data.close();
        Ok(())
    })
}

struct Filler<'a> {
    data: &'a Data,
    scope: &'a str,
    owner: AccountId,
    blob: Digest,
    versions: u64,
}

impl Filler<'_> {
    /// Makes a package with all its versions.
    async fn package(&self, number: u64) -> Result<()> {
        let catalog = &self.data.catalog;
        let name = PackageName::new(&format!("@{}/made-up-{number}", self.scope));
        let name = name.map_err(|rule| Error::invalid(Subject::Package, rule.to_string()))?;
        for minor in 0..self.versions {
            let draft = self.draft(&name, &format!("1.{minor}.0"))?;
            let head = catalog.head("npm", &name).await?;
            let ids = New { package: PackageId(catalog.next_id().await?), in_root: true, version: VersionId(catalog.next_id().await?) };
            let change = change::publish(head.as_deref(), &draft, ids, catalog.clock().now())?;
            let package = change.package.clone();
            if catalog.commit(&package, change.into()).await? == Applied::Stale {
                return Err(Error::conflict(Subject::Package, format!("{name} is there already")));
            }
        }
        Ok(())
    }

    fn draft(&self, name: &PackageName, number: &str) -> Result<Draft> {
        let manifest = serde_json::json!({
            "name": name.as_str(), "version": number, "description": "made up to fill a store", "license": "MIT",
            "dependencies": { "left": "^1.0.0", "right": "~2.0.0" },
            "dist": { "shasum": "0000000000000000000000000000000000000000", "tarball": "" },
        });
        let file = name.as_str().rsplit('/').next().unwrap_or_default();
        Ok(Draft {
            ecosystem: "npm",
            name: name.clone(),
            spelling: None,
            owner: self.owner,
            publisher: self.owner,
            visibility: Visibility::Private,
            repository: None,
            repository_scoped: false,
            number: number.to_owned(),
            manifest: serde_json::value::to_raw_value(&manifest).map_err(|error| Error::internal(Subject::Version, error))?,
            files: vec![File {
                name: format!("{file}-{number}.tgz"),
                size: 7,
                sha256: self.blob,
                digests: Vec::new(),
                media_type: "application/octet-stream".to_owned(),
            }],
            tags: Vec::new(),
            first_tag: Tag::new("latest").ok(),
            part: false,
        })
    }
}
