//! The compact index: a file that lists every gem, and a file for each with its versions.
//!
//! `info/NAME` has a line for each live version, oldest first:
//! `VERSION[-PLATFORM] DEPENDENCY:BOUND&BOUND,…|checksum:SHA256,ruby:BOUND,…`. `versions` is a
//! log that only grows: `NAME VERSION,-VERSION MD5`, where a dash says that a version went and the
//! digest is of the info file after the change. Source: the compact index of Bundler and RubyGems.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;

use super::gemspec::{self, RUBY, Requirement, Spec, is_any};
use super::marshal::{Needs, Row};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::{Ask, BaseUrl, Document, Facts, Hosted, Promise, Roll};
use crate::http::path;
use crate::name::PackageName;

/// What stands before the first line.
const OPENING: &str = "---\n";

/// An info file.
#[derive(Clone, Debug)]
pub struct InfoFile {
    name: PackageName,
    text: Bytes,
    lines: Vec<Range<usize>>,
}

impl InfoFile {
    fn new(name: &PackageName, text: Bytes) -> Result<Self> {
        let body = std::str::from_utf8(&text).map_err(|_| unreadable())?;
        let start = body.find(OPENING).filter(|at| *at == 0 || body[..*at].ends_with('\n')).ok_or_else(unreadable)? + OPENING.len();
        let mut lines = Vec::new();
        let mut at = start;
        for line in body[start..].split_inclusive('\n') {
            let end = at + line.trim_end_matches('\n').len();
            if end > at {
                lines.push(at..end);
            }
            at += line.len();
        }
        Ok(Self { name: name.clone(), text, lines })
    }

    fn of_lines<'a>(name: &PackageName, lines: impl Iterator<Item = &'a str>) -> Self {
        let mut text = OPENING.to_owned();
        let mut ranges = Vec::new();
        for line in lines {
            ranges.push(text.len()..text.len() + line.len());
            text.push_str(line);
            text.push('\n');
        }
        Self { name: name.clone(), text: text.into(), lines: ranges }
    }

    fn line(&self, range: &Range<usize>) -> &str {
        // The ranges were cut from text.
        std::str::from_utf8(&self.text[range.clone()]).unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|range| self.line(range))
    }

    /// The versions it lists, each with its platform.
    pub fn numbers(&self) -> impl Iterator<Item = &str> {
        self.all().map(number)
    }

    /// What the versions need, as the dependency API says it.
    pub fn needs(&self) -> impl Iterator<Item = Needs> {
        self.all().map(|line| {
            let (version, platform) = number(line).split_once('-').unwrap_or((number(line), RUBY));
            let gem = Row { name: self.name.to_string(), version: version.to_owned(), platform: platform.to_owned() };
            let needed = line.split_once(' ').map_or("", |(_, rest)| rest.split('|').next().unwrap_or_default());
            let needed = needed.split(',').filter_map(|one| one.split_once(':'));
            Needs { gem, dependencies: needed.map(|(name, bounds)| (name.to_owned(), bounds.replace('&', ", "))).collect() }
        })
    }
}

/// The version of a line, with its platform.
fn number(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn checksum(line: &str) -> Option<Digest> {
    let fields = line.split_once('|')?.1;
    let hex = fields.split(',').find_map(|field| field.strip_prefix("checksum:"))?;
    Digest::from_hex(Algorithm::Sha256, hex.trim()).ok()
}

impl Document for InfoFile {
    type Guide = ();
    type Part = ();
    type Form = ();

    fn ask(name: &PackageName, (): &(), (): &()) -> Ask {
        Ask { path: format!("info/{}", path::encode(name.as_str())), accept: "text/plain, */*", grows: false }
    }

    fn parse(name: &PackageName, (): &(), bytes: Bytes) -> Result<Self> {
        Self::new(name, bytes)
    }

    fn hosted(records: Hosted<'_>, (): &()) -> Result<Self> {
        let mut lines = Vec::with_capacity(records.versions.len());
        for version in records.versions {
            let spec: Spec = serde_json::from_str(version.manifest.get()).map_err(|error| Error::internal(Subject::Version, error))?;
            let gem = version.files.iter().find(|file| gemspec::is_gem(&file.name));
            lines.push(info_line(&spec, gem.map(|file| &file.sha256), &version.created_at.to_string()));
        }
        Ok(Self::of_lines(&records.package.name, lines.iter().map(String::as_str)))
    }

    fn over(self, lower: Self) -> Self {
        let own: Vec<&str> = self.numbers().collect();
        let below = lower.all().filter(|line| !own.contains(&number(line)));
        Self::of_lines(&self.name, below.chain(self.all()))
    }

    fn keep(&mut self, rule: &dyn Fn(&Facts<'_>) -> bool) {
        let published = |line: &str| line.split(',').find_map(|field| field.strip_prefix("created_at:")).map(str::to_owned);
        let kept = |line: &&str| rule(&Facts { version: number(line), published: published(line).as_deref() });
        if !self.all().all(|line| kept(&line)) {
            *self = Self::of_lines(&self.name, self.all().filter(kept));
        }
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn is_download(file: &str) -> bool {
        gemspec::is_gem(file)
    }

    fn promise(&self, file: &str, (): &()) -> Option<Promise> {
        let wanted = file.strip_suffix(".gem")?.strip_prefix(self.name.as_str())?.strip_prefix('-')?;
        let line = self.all().find(|line| number(line) == wanted)?;
        Some(Promise {
            version: wanted.to_owned(),
            url: format!("gems/{}", path::encode(file)),
            digests: checksum(line).into_iter().collect(),
        })
    }

    fn render(&self, _: &BaseUrl, (): ()) -> Bytes {
        self.text.clone()
    }
}

impl Roll for InfoFile {
    fn ask_roll() -> Ask {
        Ask { path: "versions".to_owned(), accept: "text/plain, */*", grows: true }
    }

    fn opening(at: &str) -> String {
        format!("created_at: {at}\n{OPENING}")
    }

    fn body_start(text: &str) -> Option<usize> {
        text.find("\n---\n").map(|at| at + "\n---\n".len()).or_else(|| text.starts_with(OPENING).then_some(OPENING.len()))
    }

    fn name_of(line: &str) -> &str {
        number(line)
    }

    fn numbers(&self) -> Vec<String> {
        Self::numbers(self).map(str::to_owned).collect()
    }

    fn tell(&self, told: &[String]) -> Option<String> {
        let now: Vec<&str> = Self::numbers(self).collect();
        let gone = told.iter().filter(|number| !now.contains(&number.as_str())).map(|number| format!("-{number}"));
        let new = now.iter().filter(|number| !told.iter().any(|told| told == *number)).map(|number| (*number).to_owned());
        let changes: Vec<String> = gone.chain(new).collect();
        let mut hasher = Hasher::new(&[Algorithm::Md5]);
        hasher.update(&self.text);
        let digest = hasher.finish().get(Algorithm::Md5)?;
        (!changes.is_empty()).then(|| format!("{} {} {}\n", self.name, changes.join(","), digest.hex()))
    }

    fn gone(name: &PackageName) -> Self {
        Self::of_lines(name, std::iter::empty())
    }
}

/// The names of a log that have a version left, as the file of names.
#[must_use]
pub fn names(versions: &str) -> String {
    let mut left: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for line in versions[InfoFile::body_start(versions).unwrap_or(versions.len())..].lines() {
        let mut parts = line.split(' ');
        let (Some(name), Some(changes)) = (parts.next(), parts.next()) else { continue };
        let live = left.entry(name).or_default();
        for change in changes.split(',') {
            match change.strip_prefix('-') {
                Some(gone) => live.remove(gone),
                None => live.insert(change),
            };
        }
    }
    let mut out = OPENING.to_owned();
    for (name, _) in left.iter().filter(|(_, live)| !live.is_empty()) {
        out.push_str(name);
        out.push('\n');
    }
    out
}

/// The line of a version.
#[must_use]
pub fn info_line(spec: &Spec, sha256: Option<&Digest>, created_at: &str) -> String {
    let mut needed: Vec<String> = spec
        .dependencies
        .iter()
        .filter(|dependency| dependency.runtime)
        .map(|dependency| format!("{}:{}", dependency.name, bounds(&dependency.requirements)))
        .collect();
    needed.sort_unstable();
    let mut fields = Vec::new();
    fields.extend(sha256.map(|digest| format!("checksum:{}", digest.hex())));
    for (name, requirements) in [("ruby", &spec.required_ruby), ("rubygems", &spec.required_rubygems)] {
        if !is_any(requirements) {
            fields.push(format!("{name}:{}", bounds(requirements)));
        }
    }
    let moment: String = created_at.chars().take(19).collect();
    fields.push(format!("created_at:{moment}Z"));
    let mut line = spec.number();
    // Writing to a string cannot fail.
    let _ = write!(line, " {}|{}", needed.join(","), fields.join(","));
    line
}

fn bounds(requirements: &[Requirement]) -> String {
    let mut sorted: Vec<String> = requirements.iter().map(|Requirement(operator, version)| format!("{operator} {version}")).collect();
    sorted.sort_unstable();
    sorted.join("&")
}

fn unreadable() -> Error {
    Error::new(Kind::Invalid, Subject::Package).saying("this is no compact index")
}

#[cfg(test)]
mod tests {
    use super::super::gemspec::tests::YAML;
    use super::*;

    fn name() -> PackageName {
        PackageName::new("tool").unwrap()
    }

    fn info(text: &'static str) -> InfoFile {
        InfoFile::parse(&name(), &(), Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_version_is_one_line() {
        let spec = Spec::parse(YAML.as_bytes()).unwrap();
        let digest = Digest::sha256(b"x");
        let line = info_line(&spec, Some(&digest), "2023-11-14T22:13:20.123Z");
        assert_eq!(
            line,
            format!("1.2.0-x86_64-linux rake:!= 13.0.1&~> 13.0|checksum:{},ruby:>= 2.7.0,created_at:2023-11-14T22:13:20Z", digest.hex())
        );
        let bare = Spec { name: "a".into(), version: "1".into(), platform: RUBY.into(), ..Spec::default() };
        assert_eq!(
            info_line(&bare, Some(&digest), "1970-01-01T00:00:00Z"),
            format!("1 |checksum:{},created_at:1970-01-01T00:00:00Z", digest.hex())
        );
    }

    #[test]
    fn an_upstreams_file_passes_as_it_is_and_promises_its_gems() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = "---\n1.0 a:>= 1&< 3,b:= 2|checksum:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad,new_key:x:y\n1.0-java |checksum:zz\n";
        let info = info(text);
        assert_eq!(info.render(&BaseUrl::new("http://x"), ()), text);
        assert_eq!(info.numbers().collect::<Vec<_>>(), ["1.0", "1.0-java"]);
        let promise = info.promise("tool-1.0.gem", &()).unwrap();
        assert_eq!((promise.url.as_str(), promise.digests[0].hex().as_str()), ("gems/tool-1.0.gem", hex));
        assert_eq!(info.promise("tool-1.0-java.gem", &()).unwrap().digests, []);
        for absent in ["tool-2.0.gem", "tool-1.0.gemspec", "other-1.0.gem", "tool1.0.gem"] {
            assert_eq!(info.promise(absent, &()), None, "{absent}");
        }
        let needs: Vec<Needs> = info.needs().collect();
        assert_eq!(needs[0].dependencies, [("a".into(), ">= 1, < 3".into()), ("b".into(), "= 2".into())]);
        assert_eq!((needs[1].gem.version.as_str(), needs[1].gem.platform.as_str()), ("1.0", "java"));
    }

    #[test]
    fn hosted_versions_win_and_held_ones_vanish() {
        let own = info("---\n1.0 |checksum:own\n");
        let mut merged = own.over(info("---\n0.9 |x\n1.0 |checksum:theirs\n"));
        assert_eq!(merged.text, "---\n0.9 |x\n1.0 |checksum:own\n");
        merged.keep(&|facts| facts.version == "1.0");
        assert_eq!(merged.text, "---\n1.0 |checksum:own\n");
        assert!(InfoFile::parse(&name(), &(), Bytes::from_static(b"<html>")).is_err());
        assert!(InfoFile::parse(&name(), &(), Bytes::from_static(b"---\n\xff\n")).is_err());
    }

    #[test]
    fn the_log_tells_of_what_came_and_what_went() {
        let info = info("---\n1.0 |x\n2.0-java |y\n");
        let line = info.tell(&["0.9".into(), "1.0".into()]).unwrap();
        let digest = line.rsplit(' ').next().unwrap().trim();
        assert_eq!(line, format!("tool -0.9,2.0-java {digest}\n"));
        assert_eq!(digest.len(), 32);
        assert_eq!(info.tell(&["1.0".into(), "2.0-java".into()]), None);
        assert!(InfoFile::gone(&name()).tell(&["1.0".into()]).unwrap().starts_with("tool -1.0 "));
        assert_eq!(InfoFile::body_start("created_at: x\n---\na 1 y\n"), Some(18));
        assert_eq!(InfoFile::body_start("<html>"), None);
    }
}
