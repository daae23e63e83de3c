//! Registrations: what is said of each version of a package, in pages by ranges of versions.
//!
//! A short list is one document. A long one is an index of pages that are asked for one by one, when their range is
//! of interest. Ours are made anew from what is known of each version, also of an upstream's, so that every address
//! in them is ours; a page that an upstream keeps for itself stays one, with its bounds, and is fetched when it is asked for.
//! Source: NuGet's package metadata API, and the sizes that the public registry keeps to.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::entry::{self, Entry, Links, Raw};
use super::route::Hive;
use super::service_index::ServiceIndex;
use super::version::Version;
use crate::error::{Error, Result, Subject};
use crate::format::{Ask, BaseUrl, Document, Facts, Hosted, Promise};
use crate::http::path;
use crate::name::PackageName;

/// From this many versions on, pages are documents of their own.
const INLINE: usize = 128;
/// Versions of a page.
const PAGE: usize = 64;

/// Which of a package's registrations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The index.
    Index {
        /// With versions of the second SemVer.
        semver2: bool,
    },
    /// The versions between two, these included.
    Page {
        /// With versions of the second SemVer.
        semver2: bool,
        /// The lowest.
        lower: Version,
        /// The highest.
        upper: Version,
        /// Where the upstream keeps the page, if its index does not hold it.
        address: Option<String>,
    },
}

impl Default for Part {
    fn default() -> Self {
        Self::Index { semver2: true }
    }
}

impl Part {
    const fn semver2(&self) -> bool {
        match self {
            Self::Index { semver2 } | Self::Page { semver2, .. } => *semver2,
        }
    }
}

/// An index of registrations, or a page of one.
#[derive(Clone, Debug)]
pub struct Registration {
    name: PackageName,
    semver2: bool,
    /// Lowest first.
    pages: Vec<Page>,
    /// Whether this is a page: then it is the only one.
    is_page: bool,
}

#[derive(Clone, Debug)]
struct Page {
    lower: Version,
    upper: Version,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// Lowest first.
    Entries(Vec<Entry>),
    /// What the upstream keeps in a document of its own, and how many there are.
    At { address: String, count: u64 },
}

impl Page {
    /// A page of entries, of which there is one at least.
    fn of(entries: Vec<Entry>) -> Option<Self> {
        let (lower, upper) = (entries.first()?.version.clone(), entries.last()?.version.clone());
        Some(Self { lower, upper, content: Content::Entries(entries) })
    }

    fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Entries(entries) => entries,
            Content::At { .. } => &[],
        }
    }

    fn is_here(&self) -> bool {
        matches!(self.content, Content::Entries(_))
    }

    fn covers(&self, version: &Version) -> bool {
        self.lower <= *version && *version <= self.upper
    }
}

/// In order, each version once: of two the first that came.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|one, two| one.version.cmp(&two.version));
    entries.dedup_by(|later, first| later.version == first.version);
    entries
}

/// In pages of our own size.
fn paged(entries: Vec<Entry>) -> Vec<Page> {
    let mut entries = sorted(entries).into_iter().peekable();
    let mut pages = Vec::new();
    while entries.peek().is_some() {
        pages.extend(Page::of(entries.by_ref().take(PAGE).collect()));
    }
    pages
}

/// An index or a page as upstreams write them: items of one are pages, of the other versions.
#[derive(Deserialize)]
struct Items {
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Item {
    #[serde(rename = "@id")]
    id: Value,
    count: Value,
    lower: Value,
    upper: Value,
    items: Option<Vec<Item>>,
    catalog_entry: Option<Box<RawOr>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawOr {
    Entry(Box<Raw>),
    Other(serde::de::IgnoredAny),
}

impl Item {
    fn entry(&self, name: &PackageName) -> Option<Entry> {
        match self.catalog_entry.as_deref()? {
            RawOr::Entry(raw) => raw.read(name),
            RawOr::Other(_) => None,
        }
    }
}

impl Registration {
    fn new(name: &PackageName, part: &Part, entries: Vec<Entry>) -> Self {
        let semver2 = part.semver2();
        let shown = |entry: &Entry| semver2 || !entry.is_semver2();
        let entries = entries.into_iter().filter(shown);
        let (pages, is_page) = match part {
            Part::Index { .. } => (paged(entries.collect()), false),
            Part::Page { lower, upper, .. } => {
                let within = entries.filter(|entry| *lower <= entry.version && entry.version <= *upper);
                let content = Content::Entries(sorted(within.collect()));
                (vec![Page { lower: lower.clone(), upper: upper.clone(), content }], true)
            }
        };
        Self { name: name.clone(), semver2, pages, is_page }
    }

    /// What is said of every version that is here.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.pages.iter().flat_map(Page::entries)
    }

    /// What is said of one version, if that is here.
    #[must_use]
    pub fn entry(&self, version: &Version) -> Option<&Entry> {
        self.entries().find(|entry| entry.version == *version)
    }

    /// The page of these bounds.
    #[must_use]
    pub fn page(&self, lower: &Version, upper: &Version) -> Option<Part> {
        self.pages.iter().find(|page| page.lower == *lower && page.upper == *upper).map(|page| self.part_of(page))
    }

    /// The pages that the upstream keeps for itself and that may hold a version; or all of them.
    #[must_use]
    pub fn further(&self, version: Option<&Version>) -> Vec<Part> {
        let wanted = |page: &&Page| !page.is_here() && version.is_none_or(|version| page.covers(version));
        self.pages.iter().filter(wanted).map(|page| self.part_of(page)).collect()
    }

    fn part_of(&self, page: &Page) -> Part {
        let address = match &page.content {
            Content::Entries(_) => None,
            Content::At { address, .. } => Some(address.clone()),
        };
        Part::Page { semver2: self.semver2, lower: page.lower.clone(), upper: page.upper.clone(), address }
    }

    /// The document of one version.
    #[must_use]
    pub fn leaf(&self, version: &Version, at: &BaseUrl, hive: Hive) -> Option<Value> {
        let entry = self.entry(version)?;
        let (links, key) = (Links { at, name: &self.name }, entry.version.key());
        Some(json!({
            "@id": links.leaf(hive, &key),
            "@type": "Package",
            "catalogEntry": links.entry(&key),
            "listed": entry.listed,
            "packageContent": links.file(&key, super::route::Kept::Package),
            "published": entry.published,
            "registration": links.registration(hive),
        }))
    }
}

impl Document for Registration {
    type Guide = ServiceIndex;
    type Part = Part;
    type Form = Hive;

    fn ask(name: &PackageName, part: &Part, guide: &ServiceIndex) -> Ask {
        let path = match part {
            Part::Page { address: Some(address), .. } => address.clone(),
            Part::Index { .. } | Part::Page { .. } => {
                // Without registrations there is nothing at that place that could be read as one.
                let folder = guide.registrations(part.semver2()).unwrap_or_else(|| guide.flat());
                format!("{folder}{}/index.json", path::encode(name.as_str()))
            }
        };
        Ask { path, accept: "application/json", grows: false }
    }

    fn parse(name: &PackageName, part: &Part, bytes: Bytes) -> Result<Self> {
        let wrong = |what: &'static str| Error::invalid(Subject::Package, what);
        let read: Items = serde_json::from_slice(&bytes).map_err(|error| wrong("these are no registrations").because(error))?;
        let all = |items: &[Item]| items.iter().filter_map(|item| item.entry(name)).collect::<Vec<_>>();
        let inner = read.items.iter().filter_map(|item| item.items.as_deref());
        let elsewhere = || read.items.iter().any(|item| item.items.is_none() && item.catalog_entry.is_none());
        if matches!(part, Part::Page { .. }) || !elsewhere() {
            // The page itself, or the index that holds it.
            let entries = inner.flat_map(all).chain(all(&read.items)).collect();
            return Ok(Self::new(name, part, entries));
        }
        let semver2 = part.semver2();
        let mut pages = Vec::with_capacity(read.items.len());
        for item in &read.items {
            if let Some(items) = &item.items {
                let shown = all(items).into_iter().filter(|entry| semver2 || !entry.is_semver2());
                pages.extend(Page::of(sorted(shown.collect())));
                continue;
            }
            let bound = |value: &Value| entry::text(value).and_then(|text| Version::parse(&text));
            let address = item.id.as_str().filter(|address| entry::is_web(address));
            match (bound(&item.lower), bound(&item.upper), address) {
                (Some(lower), Some(upper), Some(address)) if lower <= upper => {
                    let content = Content::At { address: address.to_owned(), count: item.count.as_u64().unwrap_or_default() };
                    pages.push(Page { lower, upper, content });
                }
                _ => return Err(wrong("a page of the registrations has no bounds or no address")),
            }
        }
        pages.sort_by(|one, two| one.lower.cmp(&two.lower));
        Ok(Self { name: name.clone(), semver2, pages, is_page: false })
    }

    fn hosted(records: Hosted<'_>, part: &Part) -> Result<Self> {
        let entries = records.versions.iter().map(Entry::of_record).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(&records.package.name, part, entries))
    }

    fn over(self, lower: Self) -> Self {
        let own: HashSet<Version> = self.entries().map(|entry| entry.version.clone()).collect();
        let Self { name, semver2, pages, is_page } = self;
        let ours: Vec<Entry> = pages.iter().flat_map(Page::entries).cloned().collect();
        if lower.pages.iter().all(Page::is_here) {
            let theirs = lower.entries().filter(|entry| !own.contains(&entry.version)).cloned();
            let entries = sorted(ours.into_iter().chain(theirs).collect());
            if !is_page {
                return Self { name, semver2, pages: paged(entries), is_page };
            }
            let pages = pages.into_iter().map(|page| Page { content: Content::Entries(entries.clone()), ..page }).collect();
            return Self { name, semver2, pages, is_page };
        }
        // Our versions within a page of the upstream are put to it when it is asked for; the others get pages of their own.
        let mut rest = Vec::new();
        let mut pages = lower.pages;
        for entry in ours {
            match pages.iter_mut().find(|page| page.covers(&entry.version)) {
                Some(Page { content: Content::Entries(entries), .. }) => {
                    entries.retain(|theirs| theirs.version != entry.version);
                    entries.push(entry);
                    *entries = sorted(std::mem::take(entries));
                }
                Some(Page { content: Content::At { count, .. }, .. }) => *count += 1,
                None => rest.push(entry),
            }
        }
        // A page must not reach over another one.
        for entry in sorted(rest) {
            pages.extend(Page::of(vec![entry]));
        }
        pages.sort_by(|one, two| one.lower.cmp(&two.lower));
        Self { name, semver2, pages, is_page }
    }

    fn keep(&mut self, rule: &dyn Fn(&Facts<'_>) -> bool) {
        for page in &mut self.pages {
            if let Content::Entries(entries) = &mut page.content {
                entries.retain(|entry| rule(&Facts { version: &entry.version.key(), published: Some(&entry.published) }));
            }
        }
        let is_page = self.is_page;
        self.pages.retain(|page| is_page || !page.is_here() || !page.entries().is_empty());
    }

    fn is_empty(&self) -> bool {
        self.pages.iter().all(|page| page.is_here() && page.entries().is_empty())
    }

    fn promise(&self, _: &str, _: &ServiceIndex) -> Option<Promise> {
        None
    }

    fn render(&self, at: &BaseUrl, hive: Hive) -> Bytes {
        let links = Links { at, name: &self.name };
        let view = match self.pages.first() {
            Some(page) if self.is_page => page_view(page, &links, hive, true),
            _ => {
                let long = self.pages.iter().all(Page::is_here) && self.entries().count() >= INLINE;
                let pages: Vec<Value> =
                    self.pages.iter().map(|page| page_view(page, &links, hive, page.is_here() && !long).into()).collect();
                let mut view = Map::new();
                view.insert("@id".to_owned(), links.registration(hive).into());
                view.insert("@type".to_owned(), json!(["catalog:CatalogRoot", "PackageRegistration", "catalog:Permalink"]));
                view.insert("count".to_owned(), pages.len().into());
                view.insert("items".to_owned(), pages.into());
                view
            }
        };
        // A map with texts for names always serialises.
        serde_json::to_vec(&view).unwrap_or_default().into()
    }
}

fn page_view(page: &Page, links: &Links<'_>, hive: Hive, with_items: bool) -> Map<String, Value> {
    let (lower, upper) = (page.lower.key(), page.upper.key());
    let count = match &page.content {
        Content::Entries(entries) => entries.len() as u64,
        Content::At { count, .. } => *count,
    };
    let mut view = Map::new();
    view.insert("@id".to_owned(), links.page(hive, &lower, &upper).into());
    view.insert("@type".to_owned(), "catalog:CatalogPage".into());
    view.insert("count".to_owned(), count.into());
    view.insert("lower".to_owned(), page.lower.normalised().into());
    view.insert("upper".to_owned(), page.upper.normalised().into());
    view.insert("parent".to_owned(), links.registration(hive).into());
    if with_items {
        view.insert("items".to_owned(), page.entries().iter().map(|entry| leaf_view(entry, links, hive)).collect());
    }
    view
}

fn leaf_view(entry: &Entry, links: &Links<'_>, hive: Hive) -> Value {
    let key = entry.version.key();
    json!({
        "@id": links.leaf(hive, &key),
        "@type": "Package",
        "catalogEntry": entry.view(links, hive),
        "packageContent": links.file(&key, super::route::Kept::Package),
        "registration": links.registration(hive),
    })
}

#[cfg(test)]
mod tests {
    use super::super::route;
    use super::super::service_index::tests::index;
    use super::*;

    const INDEX: Part = Part::Index { semver2: true };

    fn name() -> PackageName {
        route::id("tool").unwrap()
    }

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn leaf(number: &str) -> Value {
        json!({ "catalogEntry": { "id": "Tool", "version": number, "description": format!("of {number}") }, "packageContent": "http://up/x" })
    }

    fn page_of(lower: &str, upper: &str, items: Option<&[Value]>) -> Value {
        json!({ "@id": format!("http://up/page/{lower}"), "count": 64, "lower": lower, "upper": upper, "items": items })
    }

    fn read(part: &Part, value: &Value) -> Result<Registration> {
        Registration::parse(&name(), part, Bytes::from(value.to_string()))
    }

    fn inline(numbers: &[&str]) -> Registration {
        read(
            &INDEX,
            &json!({ "count": 1, "items": [page_of("0.0.1", "99.0.0", Some(&numbers.iter().map(|number| leaf(number)).collect::<Vec<_>>()))] }),
        )
        .unwrap()
    }

    fn rendered(registration: &Registration) -> Value {
        serde_json::from_slice(&registration.render(&BaseUrl::new("http://h/nuget"), Hive::Gzip)).unwrap()
    }

    fn numbers(registration: &Registration) -> Vec<String> {
        registration.entries().map(|entry| entry.version.to_string()).collect()
    }

    #[test]
    fn pages_are_in_the_order_of_versions_and_bounded_by_them() {
        let registration = inline(&["1.10.0", "1.2.0-beta", "1.0.0", "1.2.0", "1.2.0+again"]);
        let shown = rendered(&registration);
        assert_eq!((&shown["count"], &shown["items"][0]["count"]), (&json!(1), &json!(4)));
        assert_eq!((&shown["items"][0]["lower"], &shown["items"][0]["upper"]), (&json!("1.0.0"), &json!("1.10.0")));
        assert_eq!(numbers(&registration), ["1.0.0", "1.2.0-beta", "1.2.0", "1.10.0"]);
        assert!(!shown.to_string().contains("http://up"), "{shown}");
        let first = &shown["items"][0]["items"][0];
        assert_eq!(first["@id"], "http://h/nuget/registration-gz/tool/1.0.0.json");
        assert_eq!(first["packageContent"], "http://h/nuget/download/tool/1.0.0/tool.1.0.0.nupkg");
        assert_eq!(shown["items"][0]["parent"], shown["@id"]);
    }

    #[test]
    fn a_long_list_is_an_index_of_pages() {
        let all: Vec<String> = (0..128).map(|number| format!("1.{number}.0")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(rendered(&inline(&all[1..]))["items"][0]["items"].is_array());
        let long = inline(&all);
        let shown = rendered(&long);
        assert_eq!((shown["items"].as_array().unwrap().len(), shown["items"][0].get("items")), (2, None));
        assert_eq!(shown["items"][1]["@id"], "http://h/nuget/registration-gz/tool/page/1.64.0/1.127.0.json");
        let part = long.page(&version("1.64"), &version("1.127.0.0")).unwrap();
        assert_eq!(long.page(&version("1.64"), &version("1.100")), None);
        let source = json!({ "items": [page_of("1.0.0", "1.127.0", Some(&all.iter().map(|number| leaf(number)).collect::<Vec<_>>()))] });
        let page = rendered(&read(&part, &source).unwrap());
        assert_eq!((page["items"].as_array().unwrap().len(), &page["lower"], &page["count"]), (64, &json!("1.64.0"), &json!(64)));
        assert_eq!(page["@id"], shown["items"][1]["@id"]);
    }

    #[test]
    fn an_upstreams_pages_are_fetched_where_it_keeps_them() {
        let source = json!({ "count": 2, "items": [page_of("2.0.0", "2.9.0", Some(&[leaf("2.0.0"), leaf("2.9.0")])), page_of("1.0.0", "1.9.0", None)] });
        let registration = read(&INDEX, &source).unwrap();
        let shown = rendered(&registration);
        assert_eq!(
            (&shown["items"][0]["lower"], shown["items"][0].get("items"), &shown["items"][0]["count"]),
            (&json!("1.0.0"), None, &json!(64))
        );
        assert!(shown["items"][1]["items"].is_array() && !shown.to_string().contains("http://up"));
        let further = registration.further(Some(&version("1.5")));
        assert_eq!(further.len(), 1);
        assert!(registration.further(Some(&version("2.5"))).is_empty());
        let guide = index(&[("PackageBaseAddress/3.0.0", "http://up/flat"), ("RegistrationsBaseUrl/3.6.0", "http://up/reg/")]).unwrap();
        assert_eq!(Registration::ask(&name(), &INDEX, &guide).path, "http://up/reg/tool/index.json");
        assert_eq!(Registration::ask(&name(), &further[0], &guide).path, "http://up/page/1.0.0");
        let page = read(&further[0], &page_of("1.0.0", "1.9.0", Some(&[leaf("1.9.0"), leaf("1.0.0"), leaf("3.0.0")]))).unwrap();
        assert_eq!(numbers(&page), ["1.0.0", "1.9.0"]);
        for wrong in [
            page_of("x", "1.0.0", None),
            page_of("2.0.0", "1.0.0", None),
            json!({ "lower": "1.0.0", "upper": "2.0.0", "@id": "file:///etc" }),
        ] {
            assert!(read(&INDEX, &json!({ "items": [wrong] })).is_err());
        }
        assert!(read(&INDEX, &json!([])).is_err() && read(&INDEX, &json!({ "versions": ["1.0"] })).is_err());
    }

    #[test]
    fn hosted_versions_lie_over_an_upstreams() {
        let ours = || inline(&["1.0.0", "3.0.0", "1.5.0"]);
        let merged = ours().over(inline(&["1.0.0", "2.0.0"]));
        assert_eq!(numbers(&merged), ["1.0.0", "1.5.0", "2.0.0", "3.0.0"]);
        let paged = json!({ "items": [page_of("1.0.0", "1.9.0", None), page_of("2.0.0", "2.9.0", Some(&[leaf("2.0.0")]))] });
        let merged = ours().over(read(&INDEX, &paged).unwrap());
        let shown = rendered(&merged);
        let bounds: Vec<&str> = shown["items"].as_array().unwrap().iter().map(|page| page["lower"].as_str().unwrap()).collect();
        assert_eq!(bounds, ["1.0.0", "2.0.0", "3.0.0"]);
        assert_eq!(shown["items"][0]["count"], 66);
        let part = merged.page(&version("1.0.0"), &version("1.9.0")).unwrap();
        let own = Registration::new(&name(), &part, ours().entries().cloned().collect());
        let page = own.over(read(&part, &page_of("1.0.0", "1.9.0", Some(&[leaf("1.0.0"), leaf("1.9.0")]))).unwrap());
        assert_eq!(numbers(&page), ["1.0.0", "1.5.0", "1.9.0"]);
        assert_eq!(rendered(&page)["upper"], "1.9.0");
    }

    #[test]
    fn older_clients_see_no_versions_that_they_cannot_read() {
        let source = json!({ "items": [page_of("1.0.0", "2.0.0", Some(&[leaf("1.0.0"), leaf("1.0.0-a.b"), leaf("2.0.0+x")]))] });
        let old = read(&Part::Index { semver2: false }, &source).unwrap();
        assert_eq!(numbers(&old), ["1.0.0"]);
        let none = json!({ "items": [page_of("2.0.0", "2.0.0", Some(&[leaf("2.0.0+x")]))] });
        assert!(read(&Part::Index { semver2: false }, &none).unwrap().is_empty());
        let mut held = read(&INDEX, &source).unwrap();
        held.keep(&|facts| facts.version == "2.0.0");
        assert_eq!(numbers(&held), ["2.0.0+x"]);
        held.keep(&|_| false);
        assert!(held.is_empty());
    }
}
