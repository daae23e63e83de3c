//! Fills a data folder with made-up npm packages, for measurements of a large store: `fill CONFIG OWNER PACKAGES VERSIONS [SECONDS]`.
//!
//! The server must not run. The rows are those of a real publish, made by the same functions; all versions share one
//! small file, and no events are told. A publish of each version would take days for millions of them: it waits for the
//! disk. So the rows of many packages are one batch, and many batches one transaction. It ends early after `SECONDS`
//! or when the disk has little room, and prints how many packages there are then.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use packhouse::app::Data;
use packhouse::blob::Purpose;
use packhouse::catalog::Draft;
use packhouse::catalog::change::{self, New};
use packhouse::clock::Clock;
use packhouse::config::Config;
use packhouse::digest::Digest;
use packhouse::error::{Error, Result, Subject};
use packhouse::name::{OwnerName, PackageName, Tag};
use packhouse::package::{AccountId, File, Package, PackageId, VersionId, Visibility};
use packhouse::store::{Batch, Change, Store as _, TableId};

/// Packages of one batch, and batches that wait at once, which the writer makes large transactions of.
const BATCH: u64 = 50;
const AT_ONCE: usize = 32;
const GROUP_ROWS: usize = 50_000;
const PAGE_CACHE_BYTES: u64 = 1 << 30;
/// Where the ids of what is made begin: far above those of the sequence, which waits for the disk now and then.
const FIRST_ID: u64 = 1 << 40;
/// Free disk space at which it ends.
const ROOM_BYTES: u64 = 10 << 30;
/// Where the heads are.
const PACKAGES: TableId = TableId("catalog.package");

/// Rows by table and key. Packages of one owner share one, which says what came last.
type Rows = HashMap<(TableId, Bytes), Bytes>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, owner, packages, versions, longest @ ..] = arguments.as_slice() else {
        return Err(Error::invalid(Subject::Config, "usage: fill CONFIG OWNER PACKAGES VERSIONS [SECONDS]"));
    };
    let number = |text: &str| text.parse::<u64>().map_err(|error| Error::invalid(Subject::Config, format!("{text}: {error}")));
    let longest = longest.first().map_or(Ok(u64::from(u32::MAX)), |text| number(text)).map(Duration::from_secs)?;
    let (packages, versions) = (number(packages)?, number(versions)?);
    let mut config = Config::load(Some(Path::new(config)))?;
    config.store.group_rows = GROUP_ROWS;
    config.store.page_cache_bytes = PAGE_CACHE_BYTES;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Error::internal(Subject::Config, error))?;
    let made = runtime.block_on(fill(&config, owner, packages, versions, longest))?;
    println!("{made}");
    Ok(())
}

async fn fill(config: &Config, owner: &str, packages: u64, versions: u64, longest: Duration) -> Result<u64> {
    let data = Data::open(config, &Clock::system()).await?;
    let login = OwnerName::new(owner).map_err(|rule| Error::invalid(Subject::Owner, rule.to_string()))?;
    let owner = data.identity.account_by_login(&login).await?.id;
    let lease = data.blobs.put(Purpose::Hosted, Bytes::from_static(b"made up")).await?;
    let filler = Filler { data: &data, scope: login.as_str(), owner, blob: *lease.digest(), versions };
    let end = tokio::time::Instant::now() + longest;
    let room = || rustix::fs::statvfs(&config.data_dir).is_ok_and(|disk| disk.f_bavail * disk.f_frsize > ROOM_BYTES);
    let made = futures_util::stream::iter((0..packages.div_ceil(BATCH)).map(|batch| batch * BATCH..packages.min((batch + 1) * BATCH)))
        .take_while(|_| std::future::ready(tokio::time::Instant::now() < end && room()))
        .map(|numbers| filler.batch(numbers))
        .buffer_unordered(AT_ONCE)
        .try_fold(0, async |sum, made| Ok(sum + made))
        .await?;
    data.close();
    Ok(made)
}

struct Filler<'a> {
    data: &'a Data,
    scope: &'a str,
    owner: AccountId,
    blob: Digest,
    versions: u64,
}

impl Filler<'_> {
    /// Makes packages in one batch, and says how many.
    async fn batch(&self, numbers: std::ops::Range<u64>) -> Result<u64> {
        let mut rows = Rows::new();
        for number in numbers.clone() {
            self.package(number, &mut rows)?;
        }
        let changes = rows.into_iter().map(|((table, key), value)| Change::Put(table, key, value)).collect();
        self.data.truth.commit(Batch { conditions: Vec::new(), changes }).await?;
        Ok(numbers.end - numbers.start)
    }

    /// Adds the rows of a package with all its versions.
    fn package(&self, number: u64, rows: &mut Rows) -> Result<()> {
        let name = PackageName::new(&format!("@{}/made-up-{number}", self.scope));
        let name = name.map_err(|rule| Error::invalid(Subject::Package, rule.to_string()))?;
        let package = PackageId(FIRST_ID + number * (self.versions + 1));
        for minor in 0..self.versions {
            let draft = self.draft(&name, &format!("1.{minor}.0"))?;
            let ids = New { package, in_root: true, version: VersionId(package.0 + 1 + minor) };
            let change = change::publish(None, &draft, ids, self.data.catalog.clock().now())?;
            // Each is made as if it were the package's first: of the heads the last one stands, and counts them all.
            let head = Package { versions: self.versions, generation: self.versions, ..change.package };
            for made in change.batch.changes {
                match made {
                    Change::Put(PACKAGES, key, _) => rows.insert((PACKAGES, key), encoded(&head)?),
                    Change::Put(table, key, value) => rows.insert((table, key), value),
                    Change::Delete(table, key) => rows.remove(&(table, key)),
                };
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
            tags: vec![Tag::new("latest").map_err(|rule| Error::invalid(Subject::Package, rule.to_string()))?],
            first_tag: None,
            part: false,
        })
    }
}

fn encoded(package: &Package) -> Result<Bytes> {
    serde_json::to_vec(package).map(Bytes::from).map_err(|error| Error::internal(Subject::Store, error))
}
