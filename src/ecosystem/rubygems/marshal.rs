//! Ruby's Marshal 4.8, as much of it as RubyGems' older indexes are written in.
//!
//! What is written uses full symbols and no references, which every reader takes. What is
//! read is an upstream's list of gems and nothing else: arrays, strings and versions, with
//! the references that Ruby's writer makes between them. No class is ever made by its name.
//! Source: the Marshal format of Ruby's documentation.

use std::io::Write as _;

use super::gemspec::{Dependency, RUBY, Requirement, Spec};
use crate::error::{Error, Kind, Result, Subject};

/// A gem in a list: name, version, platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The gem's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its platform.
    pub platform: String,
}

/// Most rows that are read.
const ROWS: usize = 5_000_000;
/// Deepest nesting that is read.
const DEPTH: usize = 8;

/// Writes a list of gems: `specs.4.8` and its relatives, unpacked.
#[must_use]
pub fn rows<'a>(rows: impl ExactSizeIterator<Item = &'a Row>) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(rows.len());
    rows.for_each(|row| out.row(row));
    out.0
}

/// Writes a gem's `quick/Marshal.4.8/NAME.gemspec.rz`: its specification for installers, without its files, packed.
#[must_use]
pub fn quick(spec: &Spec) -> Vec<u8> {
    let mut inner = Writer::new();
    inner.array(19);
    inner.text(if spec.rubygems_version.is_empty() { "3.0.0" } else { &spec.rubygems_version });
    inner.integer(4);
    inner.text(&spec.name);
    inner.version(&spec.version);
    inner.optional(spec.date.as_deref());
    inner.text(spec.summary.as_deref().unwrap_or_default());
    inner.requirement(&spec.required_ruby);
    inner.requirement(&spec.required_rubygems);
    inner.text(&spec.platform);
    inner.array(spec.dependencies.len());
    spec.dependencies.iter().for_each(|dependency| inner.dependency(dependency));
    inner.text("");
    inner.texts(&spec.email);
    inner.texts(&spec.authors);
    inner.optional(spec.description.as_deref());
    inner.optional(spec.homepage.as_deref());
    inner.0.push(b'T');
    inner.text(&spec.platform);
    inner.texts(&spec.licenses);
    inner.0.push(b'{');
    inner.length(spec.metadata.len());
    for (name, value) in &spec.metadata {
        inner.text(name);
        inner.text(value);
    }
    let mut out = Writer::new();
    out.0.push(b'u');
    out.symbol("Gem::Specification");
    out.bytes(&inner.0);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to a vector cannot fail.
    let _ = packed.write_all(&out.0);
    packed.finish().unwrap_or_default()
}

/// A gem in the answer of the dependency API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Which gem.
    pub gem: Row,
    /// The names of those it needs, each with its bounds in one text.
    pub dependencies: Vec<(String, String)>,
}

/// Writes the answer of the dependency API.
#[must_use]
pub fn needs(gems: &[Needs]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(gems.len());
    for Needs { gem, dependencies } in gems {
        out.0.push(b'{');
        out.length(4);
        for (name, text) in [("name", &gem.name), ("number", &gem.version), ("platform", &gem.platform)] {
            out.0.push(b':');
            out.bytes(name.as_bytes());
            out.text(text);
        }
        out.0.push(b':');
        out.bytes(b"dependencies");
        out.array(dependencies.len());
        for (name, bounds) in dependencies {
            out.array(2);
            out.text(name);
            out.text(bounds);
        }
    }
    out.0
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![4, 8])
    }

    /// A length, packed: one byte up to 122, else the count of bytes and the bytes, the low ones first.
    fn length(&mut self, value: usize) {
        match u8::try_from(value) {
            Ok(0) => self.0.push(0),
            Ok(small @ 1..=122) => self.0.push(small + 5),
            _ => {
                let bytes = value.to_le_bytes();
                let count = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1).min(4);
                self.0.push(u8::try_from(count).unwrap_or(4));
                self.0.extend_from_slice(&bytes[..count]);
            }
        }
    }

    fn integer(&mut self, value: usize) {
        self.0.push(b'i');
        self.length(value);
    }

    fn array(&mut self, length: usize) {
        self.0.push(b'[');
        self.length(length);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn symbol(&mut self, name: &str) {
        self.0.push(b':');
        self.bytes(name.as_bytes());
    }

    /// A text in UTF-8: a string with the variable that says so.
    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(b"I\"");
        self.bytes(text.as_bytes());
        self.length(1);
        self.symbol("E");
        self.0.push(b'T');
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.0.push(b'0'),
        }
    }

    fn texts(&mut self, texts: &[String]) {
        self.array(texts.len());
        for text in texts {
            self.text(text);
        }
    }

    fn row(&mut self, row: &Row) {
        self.array(3);
        self.text(&row.name);
        self.version(&row.version);
        self.text(&row.platform);
    }

    fn version(&mut self, version: &str) {
        self.0.push(b'U');
        self.symbol("Gem::Version");
        self.array(1);
        self.text(version);
    }

    fn requirement(&mut self, requirements: &[Requirement]) {
        self.0.push(b'U');
        self.symbol("Gem::Requirement");
        self.array(1);
        self.array(requirements.len());
        for Requirement(operator, version) in requirements {
            self.array(2);
            self.text(operator);
            self.version(version);
        }
    }

    fn dependency(&mut self, dependency: &Dependency) {
        self.0.push(b'o');
        self.symbol("Gem::Dependency");
        self.length(5);
        self.symbol("@name");
        self.text(&dependency.name);
        self.symbol("@requirement");
        self.requirement(&dependency.requirements);
        self.symbol("@type");
        self.symbol(if dependency.runtime { "runtime" } else { "development" });
        self.symbol("@prerelease");
        self.0.push(b'F');
        self.symbol("@version_requirements");
        self.requirement(&dependency.requirements);
    }
}

/// Reads an upstream's list of gems, unpacked.
///
/// # Errors
/// `BadUpstream` when it is no such list.
pub fn read_rows(bytes: &[u8]) -> Result<Vec<Row>> {
    let rest = bytes.strip_prefix(&[4, 8]).ok_or_else(unreadable)?;
    let mut reader = Reader { rest, symbols: Vec::new(), objects: Vec::new() };
    // Every row has three parts of at least a byte each; what claims more rows is not believed.
    let count = match reader.byte()? {
        b'[' => reader.length()?,
        _ => return Err(unreadable()),
    };
    if count > ROWS || count > bytes.len() {
        return Err(unreadable());
    }
    reader.objects.push(None);
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let Value::List(parts) = reader.value(0)? else { return Err(unreadable()) };
        let parts: Vec<String> = parts.into_iter().map(Value::into_text).collect::<Option<_>>().ok_or_else(unreadable)?;
        let [name, version, platform] = <[String; 3]>::try_from(parts).map_err(|_| unreadable())?;
        let platform = if platform.is_empty() { RUBY.to_owned() } else { platform };
        rows.push(Row { name, version, platform });
    }
    Ok(rows)
}

#[derive(Clone, Debug)]
enum Value {
    Nothing,
    Text(String),
    List(Vec<Value>),
}

impl Value {
    /// A text; of a version its only part.
    fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nothing => Some(String::new()),
            Self::List(parts) => match <[Self; 1]>::try_from(parts) {
                Ok([only @ Self::Text(_)]) => only.into_text(),
                _ => None,
            },
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    symbols: Vec<&'a [u8]>,
    /// Every value that can be referred to, in the order they begin; only texts and versions are ever meant.
    objects: Vec<Option<Value>>,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(unreadable)?;
        self.rest = rest;
        Ok(*first)
    }

    fn length(&mut self) -> Result<usize> {
        match self.byte()? {
            0 => Ok(0),
            small @ 6..=127 => Ok(usize::from(small - 5)),
            count @ 1..=4 => {
                let mut value = 0;
                for shift in 0..u32::from(count) {
                    value |= usize::from(self.byte()?) << (8 * shift);
                }
                Ok(value)
            }
            _ => Err(unreadable()),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(unreadable)?;
        self.rest = rest;
        Ok(head)
    }

    fn symbol(&mut self) -> Result<&'a [u8]> {
        match self.byte()? {
            b':' => {
                let name = self.bytes()?;
                self.symbols.push(name);
                Ok(name)
            }
            b';' => {
                let index = self.length()?;
                self.symbols.get(index).copied().ok_or_else(unreadable)
            }
            _ => Err(unreadable()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > DEPTH {
            return Err(unreadable());
        }
        match self.byte()? {
            b'0' | b'T' | b'F' => Ok(Value::Nothing),
            b'"' => self.text(),
            b'I' => {
                if self.byte()? != b'"' {
                    return Err(unreadable());
                }
                let text = self.text()?;
                for _ in 0..self.length()? {
                    self.symbol()?;
                    self.value(depth + 1)?;
                }
                Ok(text)
            }
            b'[' => {
                let place = self.place();
                let list = self.list(depth)?;
                let _ = place;
                Ok(Value::List(list))
            }
            b'U' => {
                if self.symbol()? != b"Gem::Version" {
                    return Err(unreadable());
                }
                let place = self.place();
                let inner = self.value(depth + 1)?;
                self.objects[place] = Some(inner.clone());
                Ok(inner)
            }
            b'@' => {
                let index = self.length()?;
                self.objects.get(index).cloned().flatten().ok_or_else(unreadable)
            }
            _ => Err(unreadable()),
        }
    }

    fn place(&mut self) -> usize {
        self.objects.push(None);
        self.objects.len() - 1
    }

    fn text(&mut self) -> Result<Value> {
        let text = Value::Text(String::from_utf8_lossy(self.bytes()?).into_owned());
        self.objects.push(Some(text.clone()));
        Ok(text)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>> {
        let length = self.length()?;
        if length > 1000 {
            return Err(unreadable());
        }
        (0..length).map(|_| self.value(depth + 1)).collect()
    }
}

fn unreadable() -> Error {
    Error::new(Kind::BadUpstream, Subject::Upstream).saying("the upstream's list of gems cannot be read")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::gemspec::tests::YAML;
    use super::*;
    use proptest::prelude::*;

    fn row(name: &str, version: &str, platform: &str) -> Row {
        Row { name: name.into(), version: version.into(), platform: platform.into() }
    }

    #[test]
    fn a_row_is_written_byte_by_byte() {
        let written = rows([row("rake", "13.0.6", "ruby")].iter());
        let expected = b"\x04\x08[\x06[\x08I\"\x09rake\x06:\x06ETU:\x11Gem::Version[\x06I\"\x0b13.0.6\x06:\x06ETI\"\x09ruby\x06:\x06ET";
        assert_eq!(written, expected);
    }

    #[test]
    fn rows_are_read_with_rubys_references() {
        // What Ruby writes: symbols once, then by their number; the same object once, then by its number.
        let mut text = b"\x04\x08[\x07".to_vec();
        text.extend_from_slice(b"[\x08I\"\x06a\x06:\x06ETU:\x11Gem::Version[\x06I\"\x061\x06;\x00TI\"\x09ruby\x06;\x00T");
        // The second row: a name of its own, the first row's version and platform again.
        text.extend_from_slice(b"[\x08I\"\x06b\x06;\x00T@\x08@\x0b");
        assert_eq!(read_rows(&text).unwrap(), [row("a", "1", "ruby"), row("b", "1", "ruby")]);
    }

    #[test]
    fn lengths_of_every_size() {
        for count in [0, 1, 122, 123, 255, 256, 70_000] {
            let mut writer = Writer(Vec::new());
            writer.length(count);
            let mut reader = Reader { rest: &writer.0, symbols: Vec::new(), objects: Vec::new() };
            assert_eq!(reader.length().unwrap(), count);
        }
    }

    #[test]
    fn a_quick_specification_unpacks_to_a_user_dump() {
        let mut unpacked = Vec::new();
        flate2::read::ZlibDecoder::new(&quick(&Spec::parse(YAML.as_bytes()).unwrap())[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked.starts_with(b"\x04\x08u:\x17Gem::Specification"), "{unpacked:?}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(names in proptest::collection::vec("[a-z\u{e9}]{1,200}", 0..300)) {
            let all: Vec<Row> = names.iter().map(|name| row(name, "1.0", "java")).collect();
            prop_assert_eq!(read_rows(&rows(all.iter())).unwrap(), all);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_rows(&bytes);
            let _ = read_rows(&[&[4, 8, b'['], &bytes[..]].concat());
        }
    }
}
