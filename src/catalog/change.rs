//! Changes of hosted packages, each a plain function from what was read to one batch
//! and the name of what it does, for the log of events.
//!
//! Every change replaces the head on the condition that it is still the one that
//! was read, and adds one to its generation. So two changes of one package never
//! both win on the same ground, and no rendered document outlives its records.
//!
//! A deletion is a mark on the records: names and numbers stay used for ever, blobs
//! stay referenced, and a restore takes the mark away again.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::value::RawValue;

use super::links;
use super::{
    BLOB_REFERENCES, FILES, FileRow, Head, LISTED, Listed, NAMES, OWN_NAMES, OWNED, OWNERS, PACKAGES, VERSIONS, VERSIONS_LIMIT, blob_key,
    file_key, listed_key, name_key, own_name_key, owned_key, owner_key, package_key, relations, version_key,
};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{About, Deed};
use crate::name::{PackageName, Tag};
use crate::package::{AccountId, File, Package, PackageId, Principal, Relations, RepositoryId, Role, Version, VersionId, Visibility};
use crate::rules::Rules;
use crate::store::Batch;
use crate::store::table::Stored;

/// A change ready to be committed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The conditions and changes. Empty when there is nothing to do.
    pub batch: Batch,
    /// What it does.
    pub deed: Deed,
    /// The package as it will be.
    pub package: Package,
    /// The versions it is about; none when it is about the package.
    pub versions: Vec<About>,
    /// Whose the package was, if the change gives it to another owner.
    pub former_owner: Option<AccountId>,
    /// What exactly it does, in a few words for the audit log, where the deed leaves that open.
    pub detail: Option<String>,
}

impl Change {
    /// Says what exactly it does.
    #[must_use]
    pub fn saying(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

impl From<Change> for Batch {
    fn from(change: Change) -> Self {
        change.batch
    }
}

/// A version about to be published.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The ecosystem's name.
    pub ecosystem: &'static str,
    /// The package.
    pub name: PackageName,
    /// How its name is written here, where that is not the canonical one.
    pub spelling: Option<PackageName>,
    /// The account a new package will belong to.
    pub owner: AccountId,
    /// Who publishes.
    pub publisher: AccountId,
    /// Visibility of a new package.
    pub visibility: Visibility,
    /// Repository a new package is linked to, whose roles it then inherits.
    pub repository: Option<RepositoryId>,
    /// Whether a new package has no rights of its own but those of its repository.
    pub repository_scoped: bool,
    /// The version's number, canonical.
    pub number: String,
    /// The format's metadata.
    pub manifest: Box<RawValue>,
    /// Its files; their blobs are kept and leased.
    pub files: Vec<File>,
    /// Tags to point at it.
    pub tags: Vec<Tag>,
    /// A tag to point at it if the package does not have that tag yet.
    pub first_tag: Option<Tag>,
    /// Whether it is only a part of a larger publish that follows, as the image for one platform is of an image for
    /// many. Who wants to hear of whole publishes alone is not told of it.
    pub part: bool,
}

/// What a publish makes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct New {
    /// The package's id, if there is no package yet.
    pub package: PackageId,
    /// Whether a new package takes its name in the root view too, and not only among its owner's.
    pub in_root: bool,
    /// The version's id.
    pub version: VersionId,
}

/// Publishes a version; the package is made if `head` is `None`.
///
/// The batch holds the conditions *head unchanged* and *number never used*. Whoever
/// commits it for a package that is not live adds that the owner's account is.
///
/// # Errors
/// When a record cannot be encoded.
pub fn publish(head: Option<&Head>, draft: &Draft, ids: New, now: Timestamp) -> Result<Change> {
    publish_related(head, draft, Relations::default(), None, ids, now)
}

/// As [`publish`], with a version's relations, and in the place of a deleted version of the same number.
///
/// # Errors
/// As [`publish`]; [`Forbidden`](crate::error::Kind::Forbidden) when a tag may not move.
pub fn publish_related(
    head: Option<&Head>,
    draft: &Draft,
    relations: Relations,
    former: Option<&Stored<Version>>,
    ids: New,
    now: Timestamp,
) -> Result<Change> {
    let version = former.map_or(ids.version, |former| former.value.id);
    let mut batch = Batch::new();
    let mut package = found(&mut batch, (head, draft), ids, now)?;
    let before = package.clone();
    package.versions += 1;
    expect_room(&package)?;
    if head.is_none_or(|head| head.package.deleted_at.is_some()) {
        come_alive(&mut batch, &package)?;
    }
    for tag in &draft.tags {
        package.tags.insert(tag.clone(), draft.number.clone());
    }
    if let Some(tag) = &draft.first_tag {
        package.tags.entry(tag.clone()).or_insert_with(|| draft.number.clone());
    }
    package.spelling.clone_from(&draft.spelling);
    expect_fixed_tags(&before, &package)?;
    let package = touch(&mut batch, package, now)?;
    if head.is_none() {
        links::index(&mut batch, None, &package)?;
    }
    let record = Version {
        id: version,
        number: draft.number.clone(),
        published_by: draft.publisher,
        created_at: now,
        updated_at: now,
        manifest: draft.manifest.clone(),
        files: draft.files.clone(),
        relations,
        deprecated: None,
        unlisted: None,
        deleted_at: None,
        lost_tags: Vec::new(),
        purged: false,
    };
    enter(&mut batch, package.id, &record, former)?;
    let versions = vec![About { part: draft.part, ..About::from(&record) }];
    Ok(Change { versions, ..made(batch, Deed::Published, package) })
}

/// The package that a publish finds, as the batch expects it, or the new one that the batch makes.
fn found(batch: &mut Batch, (head, draft): (Option<&Head>, &Draft), ids: New, now: Timestamp) -> Result<Package> {
    let mut package = if let Some(head) = head {
        PACKAGES.unchanged(batch, package_key(head.package.id), &head.stored());
        head.package.clone()
    } else {
        let own_name = || own_name_key(draft.ecosystem, &draft.name, draft.owner);
        OWN_NAMES.absent(batch, own_name());
        OWN_NAMES.put(batch, own_name(), &ids.package)?;
        if ids.in_root {
            NAMES.absent(batch, name_key(draft.ecosystem, &draft.name));
            NAMES.put(batch, name_key(draft.ecosystem, &draft.name), &ids.package)?;
        }
        OWNED.put(batch, owned_key(draft.owner, ids.package), &())?;
        new(draft, ids.package, now)
    };
    if package.deleted_at.take().is_some() {
        // Publishing again under a deleted name begins anew; what was deleted stays deleted.
        package.tags.clear();
        package.created_at = now;
    }
    Ok(package)
}

/// The rows of a published version, in the place of those of `former` if there was one.
fn enter(batch: &mut Batch, package: PackageId, record: &Version, former: Option<&Stored<Version>>) -> Result<()> {
    let key = || version_key(package, &record.number);
    match former {
        Some(former) => {
            relations::release(batch, package, &former.value, &record.relations.contents);
            let kept = |old: &File| record.files.iter().any(|new| (&new.name, &new.sha256) == (&old.name, &old.sha256));
            for file in former.value.files.iter().filter(|file| !kept(file)) {
                BLOB_REFERENCES.delete(batch, blob_key(&file.sha256, package, record.id, &file.name));
            }
            VERSIONS.unchanged(batch, key(), former);
        }
        None => VERSIONS.absent(batch, key()),
    }
    VERSIONS.put(batch, key(), record)?;
    LISTED.put(batch, listed_key(package, record.id), &Listed::of(record))?;
    for file in &record.files {
        let row = FileRow { version: record.number.clone(), file: file.clone() };
        FILES.absent(batch, file_key(package, &file.name));
        FILES.put(batch, file_key(package, &file.name), &row)?;
        BLOB_REFERENCES.put(batch, blob_key(&file.sha256, package, record.id, &file.name), &())?;
    }
    relations::enter(batch, package, record)
}

/// Points tags at a live version. Where all point there already there is nothing to do.
///
/// # Errors
/// As [`edit`]; [`Forbidden`](crate::error::Kind::Forbidden) when a tag may not move.
pub fn tag(head: &Head, version: &Stored<Version>, tags: &[Tag], now: Timestamp) -> Result<Change> {
    let number = &version.value.number;
    let change = edit(head, Deed::Tagged, now, |package| package.tags.extend(tags.iter().map(|tag| (tag.clone(), number.clone()))))?;
    let same = tags.iter().all(|tag| head.package.tags.get(tag) == Some(number));
    let batch = if same { Batch::new() } else { change.batch };
    Ok(Change { batch, versions: vec![about(version)], ..change })
}

fn new(draft: &Draft, id: PackageId, now: Timestamp) -> Package {
    Package {
        id,
        ecosystem: draft.ecosystem.to_owned(),
        name: draft.name.clone(),
        spelling: None,
        owner: draft.owner,
        visibility: draft.visibility,
        repository: draft.repository,
        inherits: draft.repository.is_some(),
        repository_scoped: draft.repository_scoped && draft.repository.is_some(),
        roles: BTreeMap::from([(Principal::User(draft.publisher), Role::Admin)]),
        workflows: BTreeMap::new(),
        tags: BTreeMap::new(),
        rules: Rules::default(),
        stars: BTreeMap::new(),
        versions: 0,
        generation: 0,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    }
}

/// Changes the head alone: tags, roles, visibility, links, stars.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when the package was deleted meanwhile.
pub fn edit(head: &Head, deed: Deed, now: Timestamp, change: impl FnOnce(&mut Package)) -> Result<Change> {
    if head.package.deleted_at.is_some() {
        return Err(Error::not_found(Subject::Package));
    }
    rewrite(head, deed, now, change)
}

/// As [`edit`], for deleted packages too.
fn rewrite(head: &Head, deed: Deed, now: Timestamp, change: impl FnOnce(&mut Package)) -> Result<Change> {
    let mut batch = Batch::new();
    PACKAGES.unchanged(&mut batch, package_key(head.package.id), &head.stored());
    let mut package = head.package.clone();
    change(&mut package);
    expect_fixed_tags(&head.package, &package)?;
    let package = touch(&mut batch, package, now)?;
    links::index(&mut batch, Some(&head.package), &package)?;
    Ok(made(batch, deed, package))
}

fn made(batch: Batch, deed: Deed, package: Package) -> Change {
    Change { batch, deed, package, versions: Vec::new(), former_owner: None, detail: None }
}

/// Takes a repository's hold off a package, be it deleted: its link and the rights of its workflows.
///
/// # Errors
/// When a record cannot be encoded.
pub fn unlink(head: &Head, repository: RepositoryId, now: Timestamp) -> Result<Change> {
    rewrite(head, Deed::Linked, now, |package| {
        if package.repository == Some(repository) {
            (package.repository, package.inherits) = (None, false);
        }
        package.workflows.remove(&repository);
    })
}

/// Takes somebody's role on a package away, be the package deleted.
///
/// # Errors
/// When a record cannot be encoded.
pub fn withdraw(head: &Head, principal: Principal, now: Timestamp) -> Result<Change> {
    rewrite(head, Deed::RolesChanged, now, |package| {
        package.roles.remove(&principal);
    })
}

/// Gives a package to another owner, where nobody has a role on it but `admin`, if one is named. A package that has its
/// rights from its repository goes with it; any other leaves its repository. Its name stays, and among its former
/// owner's packages no other can have it. `before` is what the name means among the new owner's.
///
/// # Errors
/// [`Conflict`](crate::error::Kind::Conflict) when the new owner has or had a package of that name.
pub fn relocate(
    head: &Head,
    owner: AccountId,
    admin: Option<AccountId>,
    before: Option<&Stored<PackageId>>,
    now: Timestamp,
) -> Result<Change> {
    let id = head.package.id;
    let mut change = rewrite(head, Deed::Moved, now, |package| {
        package.owner = owner;
        package.roles = admin.map(|admin| (Principal::User(admin), Role::Admin)).into_iter().collect();
        package.workflows.clear();
        if !package.repository_scoped {
            (package.repository, package.inherits) = (None, false);
        }
    })?;
    let batch = &mut change.batch;
    let own_name = || own_name_key(&head.package.ecosystem, &head.package.name, owner);
    match before {
        None => {
            OWN_NAMES.absent(batch, own_name());
            OWN_NAMES.put(batch, own_name(), &id)?;
        }
        // It was the new owner's before.
        Some(before) if before.value == id => OWN_NAMES.unchanged(batch, own_name(), before),
        Some(_) => {
            let text = format!("the new owner has or had a package called {}", head.package.name);
            return Err(Error::conflict(Subject::Package, text));
        }
    }
    OWNED.delete(batch, owned_key(head.package.owner, id));
    OWNED.put(batch, owned_key(owner, id), &())?;
    if change.package.deleted_at.is_none() {
        come_alive(batch, &change.package)?;
    }
    change.former_owner = Some(head.package.owner);
    Ok(change)
}

/// That a package has not too many live versions.
fn expect_room(package: &Package) -> Result<()> {
    if package.versions <= VERSIONS_LIMIT as u64 {
        return Ok(());
    }
    let text = format!("a package has at most {VERSIONS_LIMIT} versions; delete some first");
    Err(Error::new(Kind::Unprocessable, Subject::Version).saying(text))
}

/// That every tag which the rules of a package fix is where it was.
fn expect_fixed_tags(before: &Package, after: &Package) -> Result<()> {
    if before.rules.immutable_tags.is_empty() {
        return Ok(());
    }
    let moved = before.tags.iter().find(|(tag, number)| after.tags.get(*tag) != Some(number) && before.rules.fixes(tag));
    match moved {
        Some((tag, _)) => Err(Error::forbidden(Subject::Tag, format!("the tag {tag} is immutable: it neither moves nor goes"))),
        None => Ok(()),
    }
}

/// Sets or removes the warnings of versions.
///
/// # Errors
/// As [`edit`].
pub fn deprecate(head: &Head, versions: &[(Stored<Version>, Option<String>)], now: Timestamp) -> Result<Change> {
    let mut change = edit(head, Deed::Deprecated, now, |_| {})?;
    if versions.is_empty() {
        return Ok(Change { batch: Batch::new(), ..change });
    }
    for (stored, warning) in versions {
        let key = || version_key(head.package.id, &stored.value.number);
        VERSIONS.unchanged(&mut change.batch, key(), stored);
        let changed = Version { deprecated: warning.clone(), updated_at: now, ..stored.value.clone() };
        VERSIONS.put(&mut change.batch, key(), &changed)?;
        change.versions.push(about(stored));
    }
    Ok(change)
}

/// Hides a live version from all but those who ask for it by its number, for a reason; or shows it again.
/// Of one that is as it should be there is nothing to do.
///
/// # Errors
/// As [`edit`]; [`NotFound`](crate::error::Kind::NotFound) when the version is deleted.
pub fn list(head: &Head, stored: &Stored<Version>, unlisted: Option<String>, now: Timestamp) -> Result<Change> {
    if stored.value.deleted_at.is_some() {
        return Err(Error::not_found(Subject::Version));
    }
    let deed = if unlisted.is_some() { Deed::Unlisted } else { Deed::Relisted };
    let mut change = edit(head, deed, now, |_| {})?;
    change.versions.push(about(stored));
    if stored.value.unlisted == unlisted {
        return Ok(Change { batch: Batch::new(), ..change });
    }
    let key = || version_key(head.package.id, &stored.value.number);
    VERSIONS.unchanged(&mut change.batch, key(), stored);
    VERSIONS.put(&mut change.batch, key(), &Version { unlisted, updated_at: now, ..stored.value.clone() })?;
    Ok(change)
}

/// What is added to a version that is there.
#[derive(Clone, Debug)]
pub struct Extension {
    /// Files to add, or to put in the place of those that have their names. Their blobs are kept and leased.
    pub files: Vec<File>,
    /// Names of files to drop.
    pub dropped: Vec<String>,
    /// The version's metadata from now on.
    pub manifest: Box<RawValue>,
    /// What the addition is.
    pub deed: Deed,
}

/// Adds files to a live version, and drops some.
///
/// # Errors
/// As [`edit`]; [`Conflict`](crate::error::Kind::Conflict) when the version is deleted.
pub fn extend(head: &Head, stored: &Stored<Version>, extension: Extension, now: Timestamp) -> Result<Change> {
    let Extension { files, dropped, manifest, deed } = extension;
    if stored.value.deleted_at.is_some() {
        return Err(Error::conflict(Subject::Version, "the version was deleted"));
    }
    let id = head.package.id;
    let mut change = edit(head, deed, now, |_| {})?;
    let batch = &mut change.batch;
    let mut version = Version { updated_at: now, manifest, ..stored.value.clone() };
    let (number, version_id) = (version.number.clone(), version.id);
    let added = |name: &str| files.iter().find(|file| file.name == name);
    version.files.retain(|old| {
        let replaced = added(&old.name);
        let stays = replaced.is_none() && !dropped.contains(&old.name);
        if !stays && replaced.is_none_or(|new| new.sha256 != old.sha256) {
            BLOB_REFERENCES.delete(batch, blob_key(&old.sha256, id, version_id, &old.name));
        }
        if !stays && replaced.is_none() {
            FILES.delete(batch, file_key(id, &old.name));
        }
        stays
    });
    let before = |name: &str| stored.value.files.iter().any(|old| old.name == name);
    for file in files {
        if !before(&file.name) {
            FILES.absent(batch, file_key(id, &file.name));
        }
        FILES.put(batch, file_key(id, &file.name), &FileRow { version: number.clone(), file: file.clone() })?;
        BLOB_REFERENCES.put(batch, blob_key(&file.sha256, id, version_id, &file.name), &())?;
        version.files.push(file);
    }
    VERSIONS.unchanged(batch, version_key(id, &number), stored);
    VERSIONS.put(batch, version_key(id, &number), &version)?;
    change.versions.push(about(stored));
    Ok(change)
}

/// Deletes versions: they vanish from index and download at once, and their numbers
/// stay used. Tags that pointed at them go; `moving` is a tag to point elsewhere
/// instead, with the number it then has. Blobs stay referenced, so that a restore
/// finds them.
///
/// # Errors
/// As [`edit`].
pub fn delete_versions(head: &Head, versions: &[Stored<Version>], moving: Option<(Tag, String)>, now: Timestamp) -> Result<Change> {
    let gone: HashSet<&str> = versions.iter().map(|stored| stored.value.number.as_str()).collect();
    let change = remove(head, versions, mark(head, now), |package| {
        package.tags.retain(|_, number| !gone.contains(number.as_str()));
        package.versions = package.versions.saturating_sub(versions.len() as u64);
        package.tags.extend(moving);
    })?;
    Ok(Change { versions: versions.iter().map(about).collect(), ..change })
}

/// Deletes a package with all its live versions. The name stays taken. Its tags
/// stay in the record, for a restore.
///
/// # Errors
/// As [`edit`].
pub fn delete_package(head: &Head, live: &[Stored<Version>], now: Timestamp) -> Result<Change> {
    let mark = mark(head, now);
    remove(head, live, mark, |package| {
        package.deleted_at = Some(mark);
        package.versions = 0;
    })
}

/// When something is deleted. It tells what was deleted together from what was deleted before, so it is like no earlier one.
fn mark(head: &Head, now: Timestamp) -> Timestamp {
    now.max(head.package.updated_at.plus(Duration::from_millis(1)))
}

/// Of all versions of a deleted package, those that were deleted together with it.
#[must_use]
pub fn deleted_together(head: &Head, all: Vec<Stored<Version>>) -> Vec<Stored<Version>> {
    let mark = head.package.deleted_at;
    all.into_iter().filter(|stored| mark.is_some() && stored.value.deleted_at == mark).collect()
}

/// Gives up the files of deleted versions: their blobs are referred to no more, and
/// they cannot be restored. Numbers and name stay used.
///
/// # Errors
/// When a version is not deleted, which is a defect of the caller.
pub fn purge(head: &Head, versions: &[Stored<Version>], now: Timestamp) -> Result<Batch> {
    let id = head.package.id;
    let mut batch = Batch::new();
    PACKAGES.unchanged(&mut batch, package_key(id), &head.stored());
    for stored in versions {
        if stored.value.deleted_at.is_none() {
            return Err(Error::internal(Subject::Version, "a live version was to be purged"));
        }
        let key = || version_key(id, &stored.value.number);
        VERSIONS.unchanged(&mut batch, key(), stored);
        for file in &stored.value.files {
            BLOB_REFERENCES.delete(&mut batch, blob_key(&file.sha256, id, stored.value.id, &file.name));
        }
        relations::release(&mut batch, id, &stored.value, &[]);
        let relations = Relations::default();
        let purged = Version { purged: true, files: Vec::new(), relations, updated_at: now, ..stored.value.clone() };
        VERSIONS.put(&mut batch, key(), &purged)?;
        LISTED.put(&mut batch, listed_key(id, purged.id), &Listed::of(&purged))?;
    }
    touch(&mut batch, head.package.clone(), now)?;
    Ok(batch)
}

/// Restores deleted versions of a live package. `default` is a tag to set if the package has none of that name.
///
/// # Errors
/// [`Conflict`](crate::error::Kind::Conflict) when the package is deleted, a
/// version is not, or a live version has a file of the same name.
pub fn restore_versions(
    head: &Head,
    live: &[Stored<Version>],
    deleted: &[Stored<Version>],
    default: Option<(Tag, String)>,
    now: Timestamp,
) -> Result<Change> {
    if head.package.deleted_at.is_some() {
        return Err(Error::conflict(Subject::Package, "the package is deleted; restore the package"));
    }
    if deleted.iter().any(|stored| stored.value.deleted_at.is_none()) {
        return Err(Error::conflict(Subject::Version, "the version is not deleted"));
    }
    let taken: HashSet<&str> = live.iter().flat_map(|stored| &stored.value.files).map(|file| file.name.as_str()).collect();
    if let Some(file) = deleted.iter().flat_map(|stored| &stored.value.files).find(|file| taken.contains(file.name.as_str())) {
        let text = format!("the file name {} is another version's now; delete that version first", file.name);
        return Err(Error::conflict(Subject::File, text));
    }
    let change = bring_back(head, deleted, default, now)?;
    Ok(Change { versions: deleted.iter().map(about).collect(), ..change })
}

/// Restores a deleted package with the versions that were [deleted together with
/// it](deleted_together), and its tags. `default` is as for [`restore_versions`].
///
/// # Errors
/// [`Conflict`](crate::error::Kind::Conflict) when the package is not deleted, or
/// was published anew since.
pub fn restore_package(head: &Head, together: &[Stored<Version>], default: Option<(Tag, String)>, now: Timestamp) -> Result<Change> {
    let Some(mark) = head.package.deleted_at else {
        return Err(Error::conflict(Subject::Package, "the package is not deleted"));
    };
    if together.iter().any(|stored| stored.value.deleted_at != Some(mark)) {
        return Err(Error::internal(Subject::Version, "a version was not deleted together with its package"));
    }
    let mut change = bring_back(head, together, default, now)?;
    come_alive(&mut change.batch, &head.package)?;
    Ok(change)
}

fn bring_back(head: &Head, versions: &[Stored<Version>], default: Option<(Tag, String)>, now: Timestamp) -> Result<Change> {
    let id = head.package.id;
    if versions.iter().any(|stored| stored.value.purged) {
        return Err(Error::not_found(Subject::Version).saying("its files were given up after it was deleted"));
    }
    let mut batch = Batch::new();
    PACKAGES.unchanged(&mut batch, package_key(id), &head.stored());
    for stored in versions {
        let key = || version_key(id, &stored.value.number);
        VERSIONS.unchanged(&mut batch, key(), stored);
        let restored = Version { deleted_at: None, lost_tags: Vec::new(), updated_at: now, ..stored.value.clone() };
        for file in &restored.files {
            let row = FileRow { version: restored.number.clone(), file: file.clone() };
            FILES.absent(&mut batch, file_key(id, &file.name));
            FILES.put(&mut batch, file_key(id, &file.name), &row)?;
        }
        VERSIONS.put(&mut batch, key(), &restored)?;
        LISTED.put(&mut batch, listed_key(id, restored.id), &Listed::of(&restored))?;
        relations::enter(&mut batch, id, &restored)?;
    }
    let mut package = head.package.clone();
    package.deleted_at = None;
    package.versions += versions.len() as u64;
    expect_room(&package)?;
    for stored in versions {
        for tag in &stored.value.lost_tags {
            package.tags.entry(tag.clone()).or_insert_with(|| stored.value.number.clone());
        }
    }
    if let Some((tag, number)) = default {
        package.tags.entry(tag).or_insert(number);
    }
    let package = touch(&mut batch, package, now)?;
    Ok(made(batch, Deed::Restored, package))
}

fn remove(head: &Head, versions: &[Stored<Version>], now: Timestamp, change: impl FnOnce(&mut Package)) -> Result<Change> {
    let mut removal = edit(head, Deed::Deleted, now, change)?;
    let batch = &mut removal.batch;
    for stored in versions {
        let key = || version_key(head.package.id, &stored.value.number);
        VERSIONS.unchanged(batch, key(), stored);
        let pointed = head.package.tags.iter().filter(|(_, number)| **number == stored.value.number);
        let lost_tags = pointed.map(|(tag, _)| tag.clone()).collect();
        let deleted = Version { deleted_at: Some(now), lost_tags, updated_at: now, ..stored.value.clone() };
        VERSIONS.put(batch, key(), &deleted)?;
        LISTED.put(batch, listed_key(head.package.id, deleted.id), &Listed::of(&deleted))?;
        relations::leave(batch, head.package.id, &deleted);
        for file in &stored.value.files {
            FILES.delete(batch, file_key(head.package.id, &file.name));
        }
    }
    Ok(removal)
}

/// Marks that one more package of its owner is live: whoever found the owner without any must look again.
/// The generation makes the mark unlike every earlier one.
fn come_alive(batch: &mut Batch, package: &Package) -> Result<()> {
    OWNERS.put(batch, owner_key(package.owner), &(package.id, package.generation + 1))
}

fn about(stored: &Stored<Version>) -> About {
    About::from(&stored.value)
}

/// Puts the package's record, one generation on, and returns it.
fn touch(batch: &mut Batch, mut package: Package, now: Timestamp) -> Result<Package> {
    package.generation += 1;
    // Never back, also when the clock goes back: deletion marks stay apart by it.
    package.updated_at = now.max(package.updated_at);
    PACKAGES.put(batch, package_key(package.id), &package)?;
    Ok(package)
}
