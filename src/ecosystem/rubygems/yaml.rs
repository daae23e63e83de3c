//! The YAML of a gem's metadata into a plain tree, within bounds.
//!
//! Ruby writes its objects as mappings with a tag that names their class. Here no tag makes
//! anything: those of a specification are passed over, any other is refused. Old gems repeat
//! parts by alias; an alias is a copy, and all copies together are bounded.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Tag};

use crate::error::{Error, Kind, Result, Subject};

/// Most nodes, copies included.
const NODES: usize = 200_000;
/// Deepest nesting.
const DEPTH: usize = 32;

/// Classes of which a specification is made.
const CLASSES: [&str; 8] = [
    "Gem::Specification",
    "Gem::Version",
    "Gem::Version::Requirement",
    "Gem::Requirement",
    "Gem::Dependency",
    "Gem::Platform",
    "YAML::Syck::DefaultKey",
    "Time",
];

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A text.
    Text(String),
    /// Nothing: `~`, or nothing at all.
    Nothing,
    /// A list.
    List(Vec<Node>),
    /// A mapping, in its order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Reads the first document.
    ///
    /// # Errors
    /// `Unprocessable` for what is no YAML, has a tag that is not a specification's, or passes a bound.
    pub fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader { anchors: HashMap::new(), nodes: 0 };
        let mut parser = Parser::new_from_str(text);
        loop {
            match next(&mut parser)? {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd | Event::DocumentEnd => return Err(refused("the metadata is empty")),
                event => return reader.node(event, &mut parser, 0),
            }
        }
    }

    /// A member of a mapping.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }
}

type Source<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

fn next<'a>(parser: &mut Source<'a>) -> Result<Event<'a>> {
    match parser.next() {
        Some(Ok((event, _))) => Ok(event),
        Some(Err(error)) => Err(refused("the metadata is no YAML").because(error)),
        None => Err(refused("the metadata ends too early")),
    }
}

struct Reader {
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl Reader {
    /// Reads the node that an event begins.
    fn node(&mut self, event: Event<'_>, parser: &mut Source<'_>, depth: usize) -> Result<Node> {
        if depth > DEPTH {
            return Err(refused("the metadata is nested too deep"));
        }
        let before = self.nodes;
        self.count(1)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == saphyr_parser::ScalarStyle::Plain;
                (scalar(text, plain, tag.as_deref())?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check(tag.as_deref())?;
                let mut items = Vec::new();
                loop {
                    match next(parser)? {
                        Event::SequenceEnd => break,
                        event => items.push(self.node(event, parser, depth + 1)?),
                    }
                }
                (Node::List(items), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                check(tag.as_deref())?;
                let mut members = Vec::new();
                loop {
                    let key = match next(parser)? {
                        Event::MappingEnd => break,
                        event => self.node(event, parser, depth + 1)?,
                    };
                    let event = next(parser)?;
                    let value = self.node(event, parser, depth + 1)?;
                    // A key that is no text is nothing we look for.
                    if let Node::Text(key) = key {
                        members.push((key, value));
                    }
                }
                (Node::Map(members), anchor)
            }
            Event::Alias(anchor) => {
                let (node, size) = self.anchors.get(&anchor).cloned().ok_or_else(|| refused("the metadata has an alias of nothing"))?;
                self.count(size)?;
                return Ok(node);
            }
            _ => return Err(refused("the metadata is no YAML")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize) -> Result<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES { Err(refused("the metadata is too large")) } else { Ok(()) }
    }
}

fn scalar(text: Cow<'_, str>, plain: bool, tag: Option<&Tag>) -> Result<Node> {
    use base64::Engine as _;
    if tag.is_some_and(|tag| tag.suffix == "binary") {
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| refused("the metadata has a malformed text"))?;
        return Ok(Node::Text(String::from_utf8_lossy(&bytes).into_owned()));
    }
    check(tag)?;
    let nothing = plain && tag.is_none() && ["", "~", "null"].contains(&&*text);
    Ok(if nothing { Node::Nothing } else { Node::Text(text.into_owned()) })
}

/// Refuses a tag that would have Ruby make an object of another kind.
fn check(tag: Option<&Tag>) -> Result<()> {
    let Some(tag) = tag else { return Ok(()) };
    if tag.is_yaml_core_schema() || tag.suffix == "str" || tag.suffix.is_empty() {
        return Ok(());
    }
    let class = tag.suffix.strip_prefix("ruby/object:").filter(|class| CLASSES.contains(class));
    if class.is_some() { Ok(()) } else { Err(refused("the metadata holds an object that no specification has")) }
}

pub(super) fn refused(why: &'static str) -> Error {
    Error::new(Kind::Unprocessable, Subject::Manifest).saying(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_rubys_objects_as_mappings() {
        let text = "--- !ruby/object:Gem::Specification\nname: foo\nversion: &1 !ruby/object:Gem::Version\n  version: '1.0'\n\
            nothing: \nlist:\n- - \"~>\"\n  - *1\n- :runtime\nbin: !binary |-\n  Zm9v\n";
        let node = Node::parse(text).unwrap();
        assert_eq!(node.get("name").and_then(Node::text), Some("foo"));
        assert_eq!(node.get("nothing"), Some(&Node::Nothing));
        assert_eq!(node.get("bin").and_then(Node::text), Some("foo"));
        let list = node.get("list").unwrap().items();
        assert_eq!(list[0].items()[1].get("version").and_then(Node::text), Some("1.0"));
        assert_eq!(list[1].text(), Some(":runtime"));
    }

    #[test]
    fn refuses_other_objects_and_what_grows() {
        let bomb = (1..12).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            let item = format!("*a{}", n - 1);
            format!("{text}a{n}: &a{n} [{}]\n", vec![item; 10].join(", "))
        });
        let deep = "[".repeat(100);
        for wrong in [
            "--- !ruby/object:Kernel\na: b",
            "--- !ruby/regexp /x/",
            "a: !ruby/object:Gem::Installer\n  x: y",
            "--- !ruby/hash:Evil\na: b",
            "",
            "a: [",
            "a: *nowhere",
            &bomb,
            &deep,
        ] {
            assert_eq!(Node::parse(wrong).map_err(|error| error.kind()), Err(Kind::Unprocessable), "{wrong:.60}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c:&*!\\[\\]{}\"'\n -]{0,80}|\\PC{0,60}") {
            let _ = Node::parse(&text);
        }
    }
}
