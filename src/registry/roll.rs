//! The roll: one file that lists every package of an ecosystem, and only ever grows.
//!
//! RubyGems' `versions` is one. Clients keep a copy of tens of megabytes and ask for what
//! came after it, so whatever was once told stays where it is. The upstream's file comes
//! first, whole; each line of ours keeps the place it was first told at, which is the length
//! that the upstream's file had then. Lines about packages that a caller may not read are
//! left out for that caller, and an upstream's lines about names that are ours for everyone.
//!
//! Our lines are made by looking at what changed since the last look, and remembered in the
//! cache: without them, and when the upstream writes its file anew, everything is told again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Plan, Registry, Topic};
use crate::access::{self, Action, Grant, Target};
use crate::catalog::{Head, View};
use crate::digest::{Algorithm, Digest, Digests, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{Ask, Roll};
use crate::identity::{Caller, Reservations};
use crate::name::{PackageKey, PackageName};
use crate::package::PackageId;
use crate::store::Batch;
use crate::store::table::{Key, KeyParts, Table};
use crate::upstream::{BodyRef, Check, Need, Upstream, Verdict};

/// Lines in the order they were told, by ecosystem and number.
static LINES: Table<Line> = Table::new("roll.line");
/// What was told of each package, by ecosystem and package.
static MARKS: Table<Mark> = Table::new("roll.mark");
/// By ecosystem: the upstream's file as it was last seen.
static SEEN: Table<Seen> = Table::new("roll.seen");

/// A line of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    package: PackageId,
    /// Length of the upstream's file when it was told.
    offset: u64,
    text: String,
}

/// What was told of a package.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Mark {
    /// The head's count of changes then.
    generation: u64,
    /// The versions that the lines told so far add up to.
    told: Vec<String>,
}

/// The upstream's file as it was last seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seen {
    length: u64,
    digest: Digest,
    /// When the roll was begun, for the opening of a file that no upstream has a part in.
    begun: String,
}

/// The roll of one ecosystem.
#[derive(Default)]
pub(super) struct State {
    loaded: bool,
    /// The catalog's count of changes when packages were last looked at.
    changes: Option<u64>,
    lines: Vec<Line>,
    marks: HashMap<PackageId, Mark>,
    seen: Option<Seen>,
}

/// The rolls that are in use.
pub(super) type Rolls = tokio::sync::Mutex<HashMap<&'static str, Arc<tokio::sync::Mutex<State>>>>;

/// A roll as one caller sees it.
#[derive(Debug)]
pub struct Rolled {
    /// The file.
    pub bytes: Bytes,
    /// Its digests: SHA-256 and MD5.
    pub digests: Digests,
}

/// The upstream's part.
struct Above {
    upstream: Arc<Upstream>,
    body: BodyRef,
    verdict: Verdict,
}

impl Registry {
    /// The roll of an ecosystem, of what a caller may read in a view.
    ///
    /// # Errors
    /// `Unauthenticated` where reading an upstream needs a token; an upstream's failures when nothing is hosted here either.
    pub async fn roll<R: Roll<Part = ()>>(&self, view: View, ecosystem: &'static str, caller: &Caller) -> Result<(Arc<Rolled>, Verdict)> {
        let check: Check = Arc::new(|bytes| {
            let start = std::str::from_utf8(bytes).ok().and_then(R::body_start);
            start.map(drop).ok_or_else(|| Error::new(Kind::BadUpstream, Subject::Upstream).saying("this is no list of packages"))
        });
        let above = self.above(ecosystem, caller, &R::ask_roll(), &check).await;
        let state = Arc::clone(self.rolls.lock().await.entry(ecosystem).or_default());
        let mut state = state.lock().await;
        self.load(ecosystem, &mut state).await?;
        let above = match above {
            Ok(above) => above,
            // What is hosted is served whatever the upstream does.
            Err(error) if error.kind() != Kind::Unauthenticated && !state.lines.is_empty() => {
                tracing::warn!(ecosystem, error = ?error, "upstream failed, serving the roll of what is hosted alone");
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(above) = &above {
            self.see(ecosystem, &mut state, above).await?;
        }
        self.tell::<R>(ecosystem, &mut state).await?;
        let readable = self.readable(view, ecosystem, caller, &state).await?;
        let verdict = above.as_ref().map_or(Verdict::Hosted, |above| above.verdict);
        let reservations = self.identity.reservations().await?;
        let key = rolled_key(view, ecosystem, &state, above.as_ref(), &readable, &reservations);
        if let Some(rolled) = self.rolled.get(&key) {
            return Ok((rolled, verdict));
        }
        let lines: Vec<(u64, String)> =
            state.lines.iter().filter(|line| readable.contains(&line.package)).map(|line| (line.offset, line.text.clone())).collect();
        let begun = state.seen.as_ref().map_or_else(|| self.clock.now().to_string(), |seen| seen.begun.clone());
        drop(state);
        let upper = match &above {
            Some(above) => Some(self.fetcher.body(&above.body).await?),
            None => None,
        };
        let mask = self.mask(view, ecosystem).await?;
        let work = tokio::task::spawn_blocking(move || {
            let text = upper.as_deref().map(std::str::from_utf8).transpose().map_err(|error| Error::internal(Subject::Upstream, error))?;
            Ok::<_, Error>(assemble::<R>(text, &lines, &mask, &begun))
        });
        let rolled = Arc::new(work.await.map_err(|error| Error::internal(Subject::Package, error))??);
        self.rolled.insert(key, Arc::clone(&rolled));
        Ok((rolled, verdict))
    }

    /// An upstream's list; `None` where no upstream has it.
    async fn above(&self, ecosystem: &'static str, caller: &Caller, ask: &Ask, check: &Check) -> Result<Option<Above>> {
        let Some(upstream) = self.upstreams(ecosystem).first() else { return Ok(None) };
        let everything = PackageName::new("*").map_err(|error| Error::internal(Subject::Package, error))?;
        access::grant_upstream(caller, ecosystem, &everything, Action::Read, self.access.anonymous_proxy)?;
        let fetched = self.fetcher.document(upstream, ask, Need::Usual, check).await?;
        let verdict = fetched.verdict;
        Ok(fetched.entry.body.map(|body| Above { upstream: Arc::clone(upstream), body, verdict }))
    }

    /// Reads from the cache what was told before this process began.
    async fn load(&self, ecosystem: &str, state: &mut State) -> Result<()> {
        const PAGE: usize = 10_000;
        if state.loaded {
            return Ok(());
        }
        let (store, under) = (&**self.fetcher.cache(), || Key::new().text(ecosystem));
        state.seen = SEEN.get(store, under()).await?.map(|stored| stored.value);
        let mut after = None;
        loop {
            let rows = LINES.scan(store, under(), after, PAGE).await?;
            after = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
            state.lines.extend(rows.into_iter().map(|(_, stored)| stored.value));
            if after.is_none() {
                break;
            }
        }
        loop {
            let rows = MARKS.scan(store, under(), after, PAGE).await?;
            after = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
            for (key, stored) in rows {
                let mut parts = KeyParts(&key);
                let id = parts.text().and_then(|_| parts.number()).map(PackageId);
                state.marks.extend(id.map(|id| (id, stored.value)));
            }
            if after.is_none() {
                break;
            }
        }
        if state.seen.is_none() {
            let begun = self.clock.now().to_string();
            state.seen = Some(Seen { length: 0, digest: Digest::sha256(&[]), begun });
        }
        state.loaded = true;
        Ok(())
    }

    /// Notes the upstream's file. If it is not the one that was seen before, grown, every line of ours moves to its beginning.
    async fn see(&self, ecosystem: &str, state: &mut State, above: &Above) -> Result<()> {
        let Some(seen) = &mut state.seen else { return Ok(()) };
        if seen.digest == above.body.digest {
            return Ok(());
        }
        let bytes = self.fetcher.body(&above.body).await?;
        let (length, digest) = (usize::try_from(seen.length).unwrap_or(usize::MAX), seen.digest);
        let grown = bytes.clone();
        let same = tokio::task::spawn_blocking(move || grown.get(..length).is_some_and(|head| Digest::sha256(head) == digest));
        let same = same.await.map_err(|error| Error::internal(Subject::Upstream, error))?;
        *seen = Seen { length: above.body.size, digest: above.body.digest, begun: seen.begun.clone() };
        let mut batch = Batch::new();
        SEEN.put(&mut batch, Key::new().text(ecosystem), seen)?;
        if !same {
            for (number, line) in state.lines.iter_mut().enumerate() {
                line.offset = 0;
                LINES.put(&mut batch, line_key(ecosystem, number), line)?;
            }
        }
        self.remember(batch).await;
        Ok(())
    }

    /// Looks for packages that changed since the last look, and tells of them.
    async fn tell<R: Roll<Part = ()>>(&self, ecosystem: &'static str, state: &mut State) -> Result<()> {
        let changes = self.catalog.changes();
        if state.changes == Some(changes) {
            return Ok(());
        }
        let mut changed: BTreeMap<_, Arc<Head>> = BTreeMap::new();
        self.catalog
            .each_head(ecosystem, |head| {
                let known = state.marks.get(&head.package.id).is_some_and(|mark| mark.generation == head.package.generation);
                if !known {
                    changed.insert((head.package.updated_at, head.package.id), head);
                }
            })
            .await?;
        let mut batch = Batch::new();
        let offset = state.seen.as_ref().map_or(0, |seen| seen.length);
        for head in changed.into_values() {
            let package = &head.package;
            let document = if package.deleted_at.is_some() {
                R::gone(&package.name)
            } else {
                let grant = Grant::system((ecosystem, &package.name, Some(package.id)));
                let plan = Plan::Hosted(Arc::clone(&head));
                self.hosted::<R>(Topic::whole(&grant, &plan), &head).await?
            };
            let mark = state.marks.entry(package.id).or_default();
            if let Some(text) = document.tell(&mark.told) {
                let line = Line { package: package.id, offset, text };
                LINES.put(&mut batch, line_key(ecosystem, state.lines.len()), &line)?;
                state.lines.push(line);
            }
            *mark = Mark { generation: package.generation, told: document.numbers() };
            MARKS.put(&mut batch, Key::new().text(ecosystem).number(package.id.0), mark)?;
        }
        if let Some(seen) = &state.seen {
            SEEN.put(&mut batch, Key::new().text(ecosystem), seen)?;
        }
        self.remember(batch).await;
        state.changes = Some(changes);
        Ok(())
    }

    /// Writes to the cache. What is not written is told again by the next process.
    async fn remember(&self, batch: Batch) {
        if let Err(error) = self.fetcher.cache().commit(batch).await {
            tracing::warn!(error = ?error, "the roll is remembered in memory alone");
        }
    }

    /// The packages of a view that a caller may read, deleted ones too: of those the roll tells that they went.
    async fn readable(&self, view: View, ecosystem: &'static str, caller: &Caller, state: &State) -> Result<HashSet<PackageId>> {
        let mut readable = HashSet::with_capacity(state.marks.len());
        for id in state.marks.keys() {
            let Some(head) = self.catalog.head_by_id(*id).await? else { continue };
            let package = &head.package;
            let here = match view {
                View::Owner(owner) => package.owner == owner,
                View::Root => self.catalog.head(ecosystem, &package.name).await?.is_some_and(|root| root.package.id == *id),
            };
            let target = Target { ecosystem, name: &package.name, package: Some(*id) };
            if here && access::grant(caller, target, &head.policy, Action::Read).is_ok() {
                readable.insert(*id);
            }
        }
        Ok(readable)
    }

    /// Which names of an upstream's list say nothing in a view.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn mask(&self, view: View, ecosystem: &'static str) -> Result<Mask> {
        let reservations = self.identity.reservations().await?;
        let mut heads = Vec::new();
        self.catalog.each_head(ecosystem, |head| heads.push(head)).await?;
        let mut hosted = HashSet::new();
        for head in heads {
            let name = &head.package.name;
            let merges = reservations.find(ecosystem, name).is_some_and(|reservation| reservation.merge);
            let own = view == View::Owner(head.package.owner);
            if !merges && (own || self.catalog.head(ecosystem, name).await?.is_some()) {
                hosted.insert(name.to_string());
            }
        }
        let reserved = reservations.iter().any(|reservation| reservation.ecosystem == ecosystem && !reservation.merge);
        let reservations = reserved.then_some(reservations);
        let upstream = self.upstreams(ecosystem).first().filter(|upstream| !upstream.serves_all()).cloned();
        Ok(Mask { ecosystem, hosted, reservations, upstream })
    }

    /// A list that the first upstream of an ecosystem keeps, whole; `None` where there is none.
    ///
    /// # Errors
    /// `Unauthenticated` where reading an upstream needs a token; an upstream's failures.
    pub async fn upstream_list(
        &self,
        ecosystem: &'static str,
        caller: &Caller,
        ask: &Ask,
        check: &Check,
    ) -> Result<Option<(Bytes, Verdict)>> {
        let Some(above) = self.above(ecosystem, caller, ask, check).await? else { return Ok(None) };
        Ok(Some((self.fetcher.body(&above.body).await?, above.verdict)))
    }
}

/// The names of an upstream's list that say nothing here: they are not asked for there.
#[derive(Clone)]
pub struct Mask {
    ecosystem: &'static str,
    hosted: HashSet<String>,
    /// If any could matter.
    reservations: Option<Arc<Reservations>>,
    /// If it does not serve every name.
    upstream: Option<Arc<Upstream>>,
}

impl Mask {
    /// Whether every name stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosted.is_empty() && self.reservations.is_none() && self.upstream.is_none()
    }

    /// Whether a name says nothing.
    #[must_use]
    pub fn hides(&self, name: &str) -> bool {
        if self.hosted.contains(name) {
            return true;
        }
        if self.reservations.is_none() && self.upstream.is_none() {
            return false;
        }
        let Ok(name) = PackageName::new(name) else { return true };
        let held = |all: &Arc<Reservations>| all.find(self.ecosystem, &name).is_some_and(|reservation| !reservation.merge);
        self.reservations.as_ref().is_some_and(held) || self.upstream.as_ref().is_some_and(|upstream| !upstream.serves(&name))
    }
}

/// The key of everything that a roll is made from.
fn rolled_key(
    view: View,
    ecosystem: &str,
    state: &State,
    above: Option<&Above>,
    readable: &HashSet<PackageId>,
    reservations: &Reservations,
) -> PackageKey {
    static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // A sum, since a set has no order.
    let readable = readable.iter().fold(0_u64, |sum, id| sum.wrapping_add(HASH.hash_one(id)));
    let reserved = reservations.iter().fold(0_u64, |sum, one| sum.wrapping_add(HASH.hash_one((&one.ecosystem, &one.pattern, one.merge))));
    let body = above.map(|above| (above.upstream.identity(), above.body.digest));
    PackageKey::new(ecosystem, "*").with((view, body, state.lines.len(), state.marks.len(), readable, reserved))
}

fn line_key(ecosystem: &str, number: usize) -> Key {
    Key::new().text(ecosystem).number(number as u64)
}

/// Puts the upstream's lines and ours together. `lines` are in the order they were told, each with its place.
fn assemble<R: Roll>(upper: Option<&str>, lines: &[(u64, String)], mask: &Mask, begun: &str) -> Rolled {
    let ours: usize = lines.iter().map(|(_, text)| text.len()).sum();
    let mut out = String::with_capacity(upper.map_or(64, str::len) + ours);
    let mut lines = lines.iter().peekable();
    let mask_is_empty = mask.is_empty();
    match upper.and_then(|text| Some((text, R::body_start(text)?))) {
        None => out.push_str(&R::opening(begun)),
        Some((text, start)) => {
            out.push_str(&text[..start]);
            let mut at = start;
            for line in text[start..].split_inclusive('\n') {
                while let Some((_, ours)) = lines.next_if(|(offset, _)| *offset <= at as u64) {
                    out.push_str(ours);
                }
                if mask_is_empty || !mask.hides(R::name_of(line)) {
                    out.push_str(line);
                }
                at += line.len();
            }
        }
    }
    lines.for_each(|(_, ours)| out.push_str(ours));
    let bytes = Bytes::from(out);
    let mut hasher = Hasher::new(&[Algorithm::Md5]);
    hasher.update(&bytes);
    Rolled { bytes, digests: hasher.finish() }
}

impl Rolled {
    /// What it costs in memory, in bytes.
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.bytes.len() + 512).unwrap_or(u32::MAX)
    }
}
