//! Versions that are published file by file.
//!
//! Each request brings one file, and the client says neither which is the first nor
//! which is the last (Maven's deploy). The ecosystem names the unit that a file belongs
//! to and knows which file makes the unit whole; until that one comes, the others wait
//! where nobody sees them. So an aborted publish leaves nothing half visible. What
//! comes after that is added to the version at once.
//!
//! What a file says of its version are its facts: members of the version's manifest.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Registry;
use super::publish::{Publishing, TRIES, cannot_publish, contended};
use crate::catalog::change::{self, Change, Extension, New};
use crate::catalog::staged::{self, Staged, Unit};
use crate::catalog::{Applied, Draft, Head};
use crate::error::{Error, Kind, Result, Subject};
use crate::event::Deed;
use crate::package::{File, PackageId, Relations, Version, VersionId, Visibility};
use crate::store::Batch;
use crate::store::table::Stored;

/// A file of a version, or the word that a unit is whole.
pub struct Arrival<'a> {
    /// The version's number.
    pub number: &'a str,
    /// The files that become visible together: the version's number, or what names one build of it.
    pub unit: &'a str,
    /// The file, whose blob is kept and leased; none when only the word came.
    pub file: Option<File>,
    /// What the file says of the version.
    pub facts: Map<String, Value>,
    /// Whether the unit is whole with it.
    pub completes: bool,
    /// Whether it may take the place of a file of its name.
    pub replaces: bool,
    /// Whether the version stands for what is still to come, so that after its deletion it may begin anew.
    pub recurs: bool,
    /// Visibility of a new package.
    pub visibility: Visibility,
    /// Whether a live version holds the unit already, so that its further files are added at once.
    pub holds: &'a (dyn Fn(&Version) -> bool + Sync),
    /// Of all files of a version, the names of those to give up.
    pub outdated: &'a (dyn Fn(&[File]) -> Vec<String> + Sync),
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It is new, visible or waiting.
    New,
    /// It took the place of another, or was there already with the same bytes.
    Known,
}

impl Registry {
    /// Takes a file of a version. The blob's lease must live until this returns.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when there is another file of its name, or the version was deleted;
    /// [`Kind::Unprocessable`] past the limit of files.
    pub async fn arrive(&self, publishing: &Publishing, arrival: &Arrival<'_>) -> Result<Arrived> {
        let (ecosystem, name) = (publishing.grant.ecosystem(), publishing.grant.name());
        let unit = Unit { ecosystem, name, owner: publishing.owner, unit: arrival.unit };
        let limit = self.config.version_files;
        let _turn = self.turn(ecosystem, name).await;
        for _ in 0..TRIES {
            let head = self.catalog.head_for(&publishing.grant, publishing.view).await?;
            if head.as_ref().is_some_and(|head| head.package.owner != publishing.owner) {
                return Err(cannot_publish(name));
            }
            let version = match &head {
                Some(head) => self.catalog.version(&publishing.grant, head, arrival.number).await?,
                None => None,
            };
            if let Some(known) = version.as_ref().map(|version| meets(arrival, &version.value)).transpose()?.flatten() {
                return Ok(known);
            }
            let (version, former) = match version {
                Some(deleted) if deleted.value.deleted_at.is_some() => (None, Some(deleted)),
                live => (live, None),
            };
            let waiting = self.catalog.staged(unit, limit).await?;
            if waiting.len() + version.as_ref().map_or(0, |version| version.value.files.len()) >= limit {
                return Err(Error::new(Kind::Unprocessable, Subject::Version).saying(format!("a version has at most {limit} files")));
            }
            let visible = arrival.completes || version.as_ref().is_some_and(|version| (arrival.holds)(&version.value));
            let applied = if visible {
                let Some(change) =
                    self.visible(publishing, arrival, head.as_deref(), (version.as_ref(), former.as_ref()), &waiting).await?
                else {
                    return Ok(Arrived::Known);
                };
                self.commit(&publishing.grant, change).await?
            } else {
                match self.wait(unit, arrival, &waiting).await? {
                    Some(applied) => applied,
                    None => return Ok(Arrived::Known),
                }
            };
            if applied == Applied::Yes {
                return Ok(Arrived::New);
            }
        }
        Err(contended())
    }

    /// The units of a package for which files wait.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn waiting(&self, publishing: &Publishing) -> Result<Vec<String>> {
        let (ecosystem, name) = (publishing.grant.ecosystem(), publishing.grant.name());
        self.catalog.staged_units(ecosystem, name, publishing.owner, self.config.version_files).await
    }

    /// A file that has arrived, visible or waiting.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn arrived(&self, publishing: &Publishing, unit: &str, number: &str, file: &str) -> Result<Option<File>> {
        let (ecosystem, name) = (publishing.grant.ecosystem(), publishing.grant.name());
        if let Some(head) = self.catalog.head_for(&publishing.grant, publishing.view).await?
            && let Some(version) = self.catalog.version(&publishing.grant, &head, number).await?
            && let Some(known) = version.value.files.into_iter().find(|known| known.name == file)
        {
            return Ok(Some(known));
        }
        let waiting = self.catalog.staged(Unit { ecosystem, name, owner: publishing.owner, unit }, self.config.version_files).await?;
        Ok(waiting.into_iter().map(|row| row.value.file).find(|known| known.name == file))
    }

    /// Puts the file among those that wait; `None` when it is there already.
    async fn wait(&self, unit: Unit<'_>, arrival: &Arrival<'_>, waiting: &[Stored<Staged>]) -> Result<Option<Applied>> {
        let Some(file) = &arrival.file else { return Ok(None) };
        let before = waiting.iter().find(|row| row.value.file.name == file.name);
        if before.is_some_and(|row| row.value.file.sha256 == file.sha256) {
            return Ok(None);
        }
        let mut batch = Batch::new();
        staged::stage(&mut batch, unit, file.clone(), arrival.facts.clone(), before, self.clock.now())?;
        self.catalog.commit_staged(batch).await.map(Some)
    }

    /// The change that makes the file and those that waited for it visible; `None` when there is nothing to show.
    async fn visible(
        &self,
        publishing: &Publishing,
        arrival: &Arrival<'_>,
        head: Option<&Head>,
        (version, former): (Option<&Stored<Version>>, Option<&Stored<Version>>),
        waiting: &[Stored<Staged>],
    ) -> Result<Option<Change>> {
        let newest = arrival.file.as_ref();
        let others = waiting.iter().filter(|row| newest.is_none_or(|file| file.name != row.value.file.name));
        let mut files: Vec<File> = others.clone().map(|row| row.value.file.clone()).collect();
        files.extend(newest.cloned());
        if files.is_empty() {
            return Ok(None);
        }
        let mut facts: Map<String, Value> = match version {
            Some(version) => {
                serde_json::from_str(version.value.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))?
            }
            None => Map::new(),
        };
        others.for_each(|row| facts.extend(row.value.facts.clone()));
        facts.extend(arrival.facts.clone());
        let manifest = serde_json::value::to_raw_value(&facts).map_err(|error| Error::internal(Subject::Version, error))?;
        let mut change = match (head, version) {
            (Some(head), Some(version)) => {
                let deed = if arrival.completes { Deed::Published } else { Deed::Extended };
                let mut all: Vec<File> =
                    version.value.files.iter().filter(|old| files.iter().all(|new| new.name != old.name)).cloned().collect();
                all.extend(files.iter().cloned());
                let dropped = (arrival.outdated)(&all);
                change::extend(head, version, Extension { files, dropped, manifest, deed }, self.clock.now())?
            }
            _ => self.first(publishing, arrival, (head, former), manifest, files).await?,
        };
        staged::take(&mut change.batch, waiting);
        Ok(Some(change))
    }

    /// The change that makes the version.
    async fn first(
        &self,
        publishing: &Publishing,
        arrival: &Arrival<'_>,
        (head, former): (Option<&Head>, Option<&Stored<Version>>),
        manifest: Box<RawValue>,
        files: Vec<File>,
    ) -> Result<Change> {
        let draft = Draft {
            ecosystem: publishing.grant.ecosystem(),
            name: publishing.grant.name().clone(),
            spelling: None,
            owner: publishing.owner,
            publisher: publishing.publisher,
            visibility: arrival.visibility,
            repository: publishing.repository,
            repository_scoped: publishing.repository.is_some(),
            number: arrival.number.to_owned(),
            manifest,
            files,
            tags: Vec::new(),
            first_tag: None,
            part: false,
        };
        let new = New {
            package: PackageId(self.catalog.next_id().await?),
            in_root: self.takes_root(publishing).await?,
            version: VersionId(self.catalog.next_id().await?),
        };
        let mut change = change::publish_related(head, &draft, Relations::default(), former, new, self.clock.now())?;
        if head.is_none_or(|head| head.package.deleted_at.is_some()) {
            self.expect_owner(&mut change.batch, publishing.owner).await?;
        }
        Ok(change)
    }
}

/// What the version that is there says to the file: that it is known, that it may come, or that it may not.
fn meets(arrival: &Arrival<'_>, version: &Version) -> Result<Option<Arrived>> {
    if version.deleted_at.is_some() {
        if arrival.recurs {
            return Ok(None);
        }
        return Err(Error::conflict(Subject::Version, "the version was deleted, and its number is not used again"));
    }
    let Some(file) = &arrival.file else { return Ok(None) };
    match version.files.iter().find(|known| known.name == file.name) {
        Some(known) if known.sha256 == file.sha256 => Ok(Some(Arrived::Known)),
        Some(_) if !arrival.replaces => Err(Error::conflict(Subject::File, "there is such a file already, with other content")),
        _ => Ok(None),
    }
}
