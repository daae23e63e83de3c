//! Fills a data folder with many packages, so that a measurement can be made of a server that hosts them.
//!
//!     cargo run --release --example fill -- CONFIG PACKAGES VERSIONS SECONDS
//!
//! The folder must hold one npm version, and no server may run on it. That version is published again under other names
//! and numbers: the records are those that a publish makes, in the batches of `catalog::change`, but many at once and
//! without its events. All refer to the one tarball, which keeps the disk from filling. It stops after `SECONDS`, or
//! when the disk has little room, and prints how many packages it made.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use packhouse::app::Data;
use packhouse::catalog::Draft;
use packhouse::catalog::change::{self, New};
use packhouse::clock::Clock;
use packhouse::config::Config;
use packhouse::error::{Error, Result, Subject};
use packhouse::name::PackageName;
use packhouse::package::{File, Package, PackageId, Version, VersionId};
use packhouse::store::{Batch, Change, Store as _, TableId, prefix};

/// Packages of one batch, and batches that wait at once: the writer takes as many as make a large transaction.
const BATCH: u64 = 50;
const AT_ONCE: usize = 32;
/// Rows of one transaction.
const GROUP_ROWS: usize = 50_000;
/// Where the ids of what is made begin.
const FIRST_ID: u64 = 1 << 40;
/// Free disk space at which it stops.
const ROOM_BYTES: u64 = 10 << 30;

const PACKAGES: TableId = TableId("catalog.package");
const VERSIONS: TableId = TableId("catalog.version");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, packages, versions, seconds] = arguments.as_slice() else {
        eprintln!("fill CONFIG PACKAGES VERSIONS SECONDS");
        return ExitCode::from(2);
    };
    let numbers = [packages, versions, seconds].map(|text| text.parse::<u64>());
    let [Ok(packages), Ok(versions), Ok(seconds)] = numbers else {
        eprintln!("PACKAGES, VERSIONS and SECONDS are numbers");
        return ExitCode::from(2);
    };
    let done = tokio::runtime::Runtime::new()
        .map_err(|error| Error::internal(Subject::Store, error))
        .and_then(|runtime| runtime.block_on(fill(config, packages, versions, Duration::from_secs(seconds))));
    match done {
        Ok(made) => {
            println!("{made}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn fill(config: &str, packages: u64, versions: u64, longest: Duration) -> Result<u64> {
    let mut config = Config::load(Some(Path::new(config)))?;
    config.store.group_rows = GROUP_ROWS;
    config.store.page_cache_bytes = 1 << 30;
    let data = Data::open(&config, &Clock::system()).await?;
    let pattern = Pattern::of(&data).await?;
    let end = tokio::time::Instant::now() + longest;
    let room = || rustix::fs::statvfs(&config.data_dir).is_ok_and(|disk| disk.f_bavail * disk.f_frsize > ROOM_BYTES);
    let batches = stream::iter((0..packages).step_by(usize::try_from(BATCH).unwrap_or(1)))
        .take_while(|_| std::future::ready(tokio::time::Instant::now() < end && room()))
        .map(|first| {
            let (data, pattern) = (&data, &pattern);
            async move {
                let count = BATCH.min(packages - first);
                let mut rows = Rows::new();
                for number in first..first + count {
                    pattern.package(data, number, versions, &mut rows)?;
                }
                let changes = rows.into_iter().map(|((table, key), value)| Change::Put(table, key, value)).collect();
                data.truth.commit(Batch { conditions: Vec::new(), changes }).await.map(|_| count)
            }
        })
        .buffered(AT_ONCE);
    let made: Vec<Result<u64>> = batches.collect().await;
    data.close();
    made.into_iter().sum()
}

/// Rows by table and key: packages of one owner share one that says which came last.
type Rows = HashMap<(TableId, Bytes), Bytes>;

fn encoded(package: &Package) -> Result<Bytes> {
    serde_json::to_vec(package).map(Bytes::from).map_err(|error| Error::internal(Subject::Store, error))
}

/// The version that is published again and again.
struct Pattern {
    package: Package,
    version: Version,
    file: File,
}

impl Pattern {
    async fn of(data: &Data) -> Result<Self> {
        let none = || Error::not_found(Subject::Version).saying("the data folder holds no published version");
        let unread = |error: serde_json::Error| Error::internal(Subject::Store, error);
        let packages = data.truth.scan(PACKAGES, prefix(b""), 1).await?;
        let versions = data.truth.scan(VERSIONS, prefix(b""), 1).await?;
        let package = serde_json::from_slice(&packages.first().ok_or_else(none)?.1).map_err(unread)?;
        let version: Version = serde_json::from_slice(&versions.first().ok_or_else(none)?.1).map_err(unread)?;
        let file = version.files.first().ok_or_else(none)?.clone();
        Ok(Self { package, version, file })
    }

    /// Adds the rows of one package with its versions.
    fn package(&self, data: &Data, number: u64, versions: u64, rows: &mut Rows) -> Result<()> {
        let name = PackageName::new(&format!("@bench/filler-{number}")).map_err(|error| Error::internal(Subject::Package, error))?;
        // Above all ids that the sequence gives, which waits for the disk now and then.
        let first = FIRST_ID + number * (versions + 1);
        let package = PackageId(first);
        for minor in 0..versions {
            let draft = self.draft(&name, number, &format!("1.{minor}.0"));
            let new = New { package, in_root: true, version: VersionId(first + 1 + minor) };
            let mut change = change::publish(None, &draft, new, data.catalog.clock().now())?;
            // Each publish is made as if it were the package's first: of the heads the last one stands, and counts them all.
            change.package = Package { versions, generation: versions, ..change.package };
            for made in change.batch.changes {
                match made {
                    Change::Put(PACKAGES, key, _) => rows.insert((PACKAGES, key), encoded(&change.package)?),
                    Change::Put(table, key, value) => rows.insert((table, key), value),
                    Change::Delete(table, key) => rows.remove(&(table, key)),
                };
            }
        }
        Ok(())
    }

    fn draft(&self, name: &PackageName, number: u64, version: &str) -> Draft {
        let file = File { name: format!("filler-{number}-{version}.tgz"), ..self.file.clone() };
        Draft {
            ecosystem: "npm",
            name: name.clone(),
            spelling: None,
            owner: self.package.owner,
            publisher: self.version.published_by,
            visibility: self.package.visibility,
            repository: None,
            repository_scoped: false,
            number: version.to_owned(),
            manifest: self.version.manifest.clone(),
            files: vec![file],
            tags: self.package.tags.keys().cloned().collect(),
            first_tag: None,
            part: false,
        }
    }
}
