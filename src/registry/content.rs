//! Content that is asked for by its digest, and versions whose number is the digest of what they are.
//!
//! Such content belongs to packages, never to everybody: a digest opens what a package
//! holds that the caller may read, and nothing else. It comes before the version that
//! names it, is linked from one package to another where the caller may read it there,
//! and stays with a package as long as a live version names it or it was uploaded lately.

use std::sync::Arc;

use super::artifact::whole;
use super::publish::{Publishing, TRIES, cannot_publish, contended};
use super::{Artifact, Registry};
use crate::access::{self, Action, Grant, Target};
use crate::blob::{Lease, Staged};
use crate::catalog::change::{self, New};
use crate::catalog::relations::RELATIONS_LIMIT;
use crate::catalog::{Applied, Draft, Head};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Subject};
use crate::identity::Caller;
use crate::name::{PackageKey, PackageName};
use crate::package::{Content, PackageId, Relations, VersionId};
use crate::upstream::Verdict;

/// References to a blob that are looked at to find a package the caller may read it in.
const HOLDERS_LIMIT: usize = 200;

/// What a version needs to be there, by the names its publisher gives, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Content.
    pub contents: Vec<Digest>,
    /// Versions of the package; where there is none of such a number, content.
    pub parts: Vec<String>,
    /// The number of the version that it is about, which need not be there.
    pub subject: Option<String>,
}

/// What a client was told is there, for a while: it goes on without sending it.
pub(super) type Shown = moka::sync::Cache<PackageKey, Arc<Content>>;

/// How long, and of how much.
pub(super) fn shown() -> Shown {
    moka::sync::Cache::builder().max_capacity(100_000).time_to_live(std::time::Duration::from_secs(3600)).build()
}

impl Registry {
    /// Content of a package by its digest. Without a live package it is what the caller has uploaded for it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the grant opens no such content.
    pub async fn content(&self, grant: &Grant, head: Option<&Head>, digest: &Digest) -> Result<Artifact> {
        let content = self.find_content(grant, head, digest).await?.ok_or_else(|| unknown(digest))?;
        let blob = self.blobs.read(content.blob()).await?;
        let blob = blob.ok_or_else(|| Error::internal(Subject::Blob, format!("hosted blob {} is missing", content.blob())))?;
        Ok(whole(blob, Verdict::Hosted))
    }

    /// As [`Registry::content`], of a live package and if it can be sent without waiting.
    #[must_use]
    pub fn content_at_hand(&self, grant: &Grant, head: &Head, digest: &Digest) -> Option<Artifact> {
        if head.package.deleted_at.is_some() {
            return None;
        }
        let content = self.catalog.content_in_memory(grant, head, digest)??;
        self.blobs.at_hand(content.blob()).map(|blob| whole(blob, Verdict::Hosted))
    }

    /// As [`Registry::content`], for a client that asks whether it is there and may then name it in a version:
    /// for a while it can, also when what held the content is deleted in between.
    ///
    /// # Errors
    /// As [`Registry::content`].
    pub async fn show_content(&self, grant: &Grant, head: Option<&Head>, digest: &Digest) -> Result<Artifact> {
        let artifact = self.content(grant, head, digest).await?;
        if let (Some(key), Some(content)) = (shown_key(grant, head, digest), self.find_content(grant, head, digest).await?) {
            drop(self.blobs.lease(content.blob()));
            self.shown.insert(key, content);
        }
        Ok(artifact)
    }

    async fn find_content(&self, grant: &Grant, head: Option<&Head>, digest: &Digest) -> Result<Option<Arc<Content>>> {
        if let Some(head) = head.filter(|head| head.package.deleted_at.is_none())
            && let Some(content) = self.catalog.content(grant, head, digest).await?
        {
            return Ok(Some(content));
        }
        Box::pin(self.catalog.uploaded(grant, head, digest)).await
    }

    /// Keeps what was uploaded for a package, if it is what its digest says.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is not; nothing is kept then.
    pub async fn keep_content(&self, publishing: &Publishing, staged: Staged, digest: &Digest) -> Result<()> {
        if staged.digest(digest.algorithm()).await? != *digest {
            return Err(Error::invalid(Subject::Digest, "the content is not what its digest says"));
        }
        let size = staged.size();
        let lease = staged.keep().await?;
        self.catalog.enter_upload(&publishing.grant, Content::new(*digest, size, *lease.digest())).await
    }

    /// Links content of another package to this one; `false` when there is none of which the caller may know.
    ///
    /// Without a package it is looked for in all that the caller may read, as far as that is soon found.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn link_content(
        &self,
        publishing: &Publishing,
        caller: &Caller,
        from: Option<&PackageName>,
        digest: &Digest,
    ) -> Result<bool> {
        let ecosystem = publishing.grant.ecosystem();
        let found = match from {
            Some(name) => self.readable_content(ecosystem, caller, name, digest).await?,
            None => self.content_anywhere(ecosystem, caller, digest).await?,
        };
        let Some(content) = found else { return Ok(false) };
        let lease = self.blobs.lease(content.blob());
        if !self.blobs.contains(content.blob()).await? {
            return Ok(false);
        }
        self.catalog.enter_upload(&publishing.grant, (*content).clone()).await?;
        drop(lease);
        Ok(true)
    }

    /// Content of a package, if the caller may read it there.
    async fn readable_content(
        &self,
        ecosystem: &'static str,
        caller: &Caller,
        name: &PackageName,
        digest: &Digest,
    ) -> Result<Option<Arc<Content>>> {
        let head = self.catalog.head(ecosystem, name).await?;
        let target = Target { ecosystem, name, package: head.as_ref().map(|head| head.package.id) };
        let grant = match &head {
            Some(head) => access::grant(caller, target, &head.policy, Action::Read),
            // Nobody has made the package; what the caller uploaded for it is the caller's.
            None => access::grant_own(caller, target),
        };
        match grant {
            Ok(grant) => self.find_content(&grant, head.as_deref(), digest).await,
            Err(_) => Ok(None),
        }
    }

    async fn content_anywhere(&self, ecosystem: &'static str, caller: &Caller, digest: &Digest) -> Result<Option<Arc<Content>>> {
        for id in self.catalog.holders(digest, HOLDERS_LIMIT).await? {
            let Some(head) = self.catalog.head_by_id(id).await? else { continue };
            if head.package.ecosystem == ecosystem
                && let Some(found) = self.readable_content(ecosystem, caller, &head.package.name, digest).await?
            {
                return Ok(Some(found));
            }
        }
        for name in self.catalog.uploaded_for(digest, ecosystem, HOLDERS_LIMIT).await? {
            if let Some(found) = self.readable_content(ecosystem, caller, &name, digest).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Gives up content of a package that no version holds; without a package what the caller has uploaded for it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, [`Kind::Conflict`] when a live version holds it.
    pub async fn give_up_content(&self, grant: &Grant, head: Option<&Head>, digest: &Digest) -> Result<()> {
        if let Some(head) = head.filter(|head| head.package.deleted_at.is_none())
            && self.catalog.content(grant, head, digest).await?.is_some()
        {
            return Err(Error::conflict(Subject::Blob, "a version holds the content; delete that first"));
        }
        if self.catalog.give_up_upload(grant, digest).await? { Ok(()) } else { Err(unknown(digest)) }
    }

    /// Publishes a version whose number is the digest of what it is. What is there already is
    /// no conflict: tags move to it, and it comes back if it was deleted.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming what is needed and not there; [`Kind::Forbidden`] when a tag may not move.
    pub async fn push(&self, publishing: &Publishing, draft: &Draft, needs: &Needs) -> Result<()> {
        let (grant, name) = (&publishing.grant, publishing.grant.name());
        let _turn = self.turn(grant.ecosystem(), name).await;
        let (package, version) = (PackageId(self.catalog.next_id().await?), VersionId(self.catalog.next_id().await?));
        for _ in 0..TRIES {
            let head = self.catalog.head_for(grant, publishing.view).await?;
            if head.as_ref().is_some_and(|head| head.package.owner != publishing.owner) {
                // The name was taken by someone else while the body was read.
                return Err(cannot_publish(name));
            }
            let former = match &head {
                Some(head) => self.catalog.version(grant, head, &draft.number).await?,
                None => None,
            };
            let now = self.clock.now();
            let (change, _leases) = match (&head, &former) {
                (Some(head), Some(former)) if former.value.deleted_at.is_none() => {
                    (change::tag(head, former, &draft.tags, now)?, Vec::new())
                }
                _ => {
                    let (relations, leases) = self.relate(grant, head.as_deref(), needs).await?;
                    let new = New { package, in_root: self.takes_root(publishing).await?, version };
                    let change = change::publish_related(head.as_deref(), draft, relations, former.as_ref(), new, now)?;
                    (change, leases)
                }
            };
            let mut change = change;
            if head.is_none_or(|head| head.package.deleted_at.is_some()) {
                self.expect_owner(&mut change.batch, publishing.owner).await?;
            }
            if self.commit(grant, change).await? == Applied::Yes {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// What a version needs as relations, with leases on the blobs.
    async fn relate(&self, grant: &Grant, head: Option<&Head>, needs: &Needs) -> Result<(Relations, Vec<Lease>)> {
        if needs.contents.len() + needs.parts.len() > RELATIONS_LIMIT {
            return Err(Error::invalid(Subject::Manifest, format!("a version refers to at most {RELATIONS_LIMIT} others")));
        }
        let live = head.filter(|head| head.package.deleted_at.is_none());
        let mut relations = Relations { subject: needs.subject.clone(), ..Relations::default() };
        let mut leases = Vec::new();
        for digest in &needs.contents {
            relations.contents.push(self.needed_content(grant, head, digest, &mut leases).await?);
        }
        for part in &needs.parts {
            let version = match live {
                Some(head) => self.catalog.version(grant, head, part).await?,
                None => None,
            };
            if version.is_some_and(|version| version.value.deleted_at.is_none()) {
                relations.parts.push(part.clone());
                continue;
            }
            let digest = part.parse().map_err(|_| missing(part))?;
            let content = self.needed_content(grant, head, &digest, &mut leases).await?;
            if !relations.contents.contains(&content) {
                relations.contents.push(content);
            }
        }
        Ok((relations, leases))
    }

    async fn needed_content(&self, grant: &Grant, head: Option<&Head>, digest: &Digest, leases: &mut Vec<Lease>) -> Result<Content> {
        let found = match self.find_content(grant, head, digest).await? {
            None => shown_key(grant, head, digest).and_then(|key| self.shown.get(&key)),
            found => found,
        };
        let content = found.ok_or_else(|| missing(&digest.to_string()))?;
        // In this order: what is there under a lease stays.
        leases.push(self.blobs.lease(content.blob()));
        if !self.blobs.contains(content.blob()).await? {
            return Err(missing(&digest.to_string()));
        }
        Ok((*content).clone())
    }
}

/// The key of what one user was told is there in one package.
fn shown_key(grant: &Grant, head: Option<&Head>, digest: &Digest) -> Option<PackageKey> {
    let (user, package) = (grant.caller()?, head?.package.id);
    Some(PackageKey::new(grant.ecosystem(), grant.name().as_str()).with((package, user, digest)))
}

fn unknown(digest: &Digest) -> Error {
    Error::not_found(Subject::Blob).saying(format!("there is no {digest} here"))
}

fn missing(digest: &str) -> Error {
    Error::new(Kind::Invalid, Subject::Blob).saying(format!("{digest} is not there; it has to be uploaded first"))
}
