//! XML into a tree, within bounds.
//!
//! What packages carry as XML is small and plain: elements, attributes, text. A document
//! type declaration is refused outright, and with it every entity but the five that XML
//! has itself, so that nothing can be drawn in from outside and nothing can grow. Namespaces
//! are dropped: no reader of ours tells two elements apart by them.

use std::borrow::Cow;

use encoding_rs::Encoding;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::error::{Error, Result, Subject};

/// Deepest nesting of elements.
const DEPTH: usize = 64;
/// Most elements of one document.
const ELEMENTS: usize = 500_000;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, without a namespace prefix.
    pub name: String,
    /// Its attributes, in their order, without namespace prefixes.
    pub attributes: Vec<(String, String)>,
    /// The elements inside it.
    pub children: Vec<Element>,
    /// The text directly inside it, without the white space around it.
    pub text: String,
}

impl Element {
    /// Reads a document and returns its outermost element. UTF-8, UTF-16 by its mark, and the
    /// encodings of the WHATWG standard where the declaration names one.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Kind::Invalid) for what is not well-formed, too deep or too large, or has a document type.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = decode(bytes)?;
        let mut reader = Reader::from_str(&text);
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        let mut count = 0;
        loop {
            let event = reader.read_event().map_err(|error| invalid("it is not well-formed XML").because(error))?;
            match event {
                Event::Start(start) => {
                    begin(&mut count, open.len(), root.is_some() && open.is_empty())?;
                    open.push(element(&start)?);
                }
                Event::Empty(start) => {
                    begin(&mut count, open.len(), root.is_some() && open.is_empty())?;
                    close(element(&start)?, &mut open, &mut root);
                }
                Event::End(_) => {
                    let done = open.pop().ok_or_else(|| invalid("it is not well-formed XML"))?;
                    close(done, &mut open, &mut root);
                }
                Event::Text(text) => add(&mut open, &text.xml10_content()),
                Event::CData(text) => add(&mut open, &text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let name = reference.xml10_content();
                    match reference.resolve_char_ref() {
                        Ok(Some(c)) => add(&mut open, c.encode_utf8(&mut [0; 4])),
                        Ok(None) => add(&mut open, quick_xml::escape::resolve_xml_entity(&name).unwrap_or_default()),
                        Err(error) => return Err(invalid("it has a character that XML does not have").because(error)),
                    }
                }
                Event::DocType(_) => return Err(invalid("a document type declaration is not taken")),
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        match root {
            Some(root) if open.is_empty() => Ok(root),
            _ => Err(invalid("it is not well-formed XML")),
        }
    }

    /// The first child of a name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of a name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of a name, if it has any.
    #[must_use]
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str()).filter(|text| !text.is_empty())
    }

    /// An attribute's value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn begin(count: &mut usize, depth: usize, second_root: bool) -> Result<()> {
    *count += 1;
    if *count > ELEMENTS || depth >= DEPTH {
        return Err(invalid("it has too many elements, or too deep ones"));
    }
    if second_root { Err(invalid("it has more than one outermost element")) } else { Ok(()) }
}

fn element(start: &BytesStart<'_>) -> Result<Element> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| invalid("it has a malformed attribute").because(error))?;
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Implicit1_0)
            .map_err(|error| invalid("it has a malformed attribute").because(error))?;
        attributes.push((attribute.key.local_name().as_ref().to_owned(), value.into_owned()));
    }
    let name = start.local_name().as_ref().to_owned();
    Ok(Element { name, attributes, ..Element::default() })
}

fn close(mut done: Element, open: &mut [Element], root: &mut Option<Element>) {
    let trimmed = done.text.trim();
    if trimmed.len() != done.text.len() {
        done.text = String::from(trimmed);
    }
    match open.last_mut() {
        Some(parent) => parent.children.push(done),
        None => *root = Some(done),
    }
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn decode(bytes: &[u8]) -> Result<Cow<'_, str>> {
    let encoding = Encoding::for_bom(bytes).map(|(encoding, _)| encoding).or_else(|| declared(bytes)).unwrap_or(encoding_rs::UTF_8);
    let (text, _, wrong) = encoding.decode(bytes);
    if wrong { Err(invalid("its bytes are not of the encoding it claims")) } else { Ok(text) }
}

/// The encoding that the declaration at the beginning names.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..bytes.len().min(200))?;
    let declaration = head.strip_prefix(b"<?xml")?;
    let end = memchr::memmem::find(declaration, b"?>")?;
    let declaration = std::str::from_utf8(&declaration[..end]).ok()?;
    let value = declaration.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
    let label = value[1..].split(quote).next()?;
    // A declaration that could be read byte by byte is not in UTF-16, whatever it says.
    Encoding::for_label(label.as_bytes()).filter(|encoding| encoding.is_ascii_compatible())
}

/// Text as it is written inside an element or an attribute.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    quick_xml::escape::escape(text)
}

fn invalid(why: &'static str) -> Error {
    Error::invalid(Subject::Manifest, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_elements_attributes_and_text() {
        let root = Element::parse(
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x --><p:a xmlns:p='u' k='1 &lt; 2'> one <b/>&amp;<![CDATA[<two>]]> &#233;<b>x</b></p:a>",
        )
        .unwrap();
        assert_eq!((root.name.as_str(), root.text.as_str()), ("a", "one &<two> \u{e9}"));
        assert_eq!((root.attribute("k"), root.all("b").count(), root.text_of("b")), (Some("1 < 2"), 2, None));
        assert_eq!(root.all("b").last().unwrap().text, "x");
    }

    #[test]
    fn reads_other_encodings() {
        let utf16: Vec<u8> =
            "\u{feff}<?xml version='1.0' encoding='UTF-16'?><a>\u{e9}</a>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Element::parse(&utf16).unwrap().text, "\u{e9}");
        assert_eq!(Element::parse(b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a>\xe9</a>").unwrap().text, "\u{e9}");
        assert!(Element::parse(b"<a>\xe9</a>").is_err());
    }

    #[test]
    fn refuses_what_is_malformed_or_grows() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        for wrong in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "</a>",
            "<a b=1/>",
            "<a b='1' b='2'/>",
            "<a>&#0;</a>",
            &deep,
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        ] {
            assert!(Element::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        // An entity that nobody has declared is nothing.
        assert_eq!(Element::parse(b"<a>x&nbsp;y</a>").unwrap().text, "xy");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[<>/a-b &;#!\\[\\]='\"-]{0,60}") {
            let _ = Element::parse(&bytes);
            let _ = Element::parse(text.as_bytes());
        }

        #[test]
        fn what_is_escaped_is_read_back(text in "\\PC{0,40}") {
            let document = format!("<a b=\"{0}\">x{0}x</a>", escape(&text));
            let root = Element::parse(document.as_bytes()).unwrap();
            prop_assert_eq!(&root.text, &format!("x{text}x"));
        }
    }
}
