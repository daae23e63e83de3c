//! From TOML to a value, with every problem placed at its line and column.
//!
//! The deserialiser stops at its first problem. So the text is parsed to a tree
//! with positions first; when the tree does not fit, the entry at fault is noted
//! and taken out, and the rest is tried again, until it fits or there is nothing
//! to take out. A problem that only shows up later (a rule across keys) is placed
//! by the path of its key.

use std::fmt::Write as _;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Problems that are reported at once; each round reads the whole text again.
const PROBLEMS_LIMIT: usize = 50;

/// A configuration text with its positions.
pub(super) struct Document<'a> {
    text: &'a str,
    origin: &'a str,
    root: DeTable<'a>,
    problems: Vec<(usize, String)>,
}

impl<'a> Document<'a> {
    /// Reads the text. With errors in the grammar the tree is empty, so that they are all that is reported.
    pub(super) fn parse(text: &'a str, origin: &'a str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let problems: Vec<_> = errors
            .iter()
            .take(PROBLEMS_LIMIT)
            .map(|error| (error.span().map_or(0, |span| span.start), error.message().replace('\n', ", ")))
            .collect();
        let root = if problems.is_empty() { root.into_inner() } else { DeTable::new() };
        Self { text, origin, root, problems }
    }

    /// Reads the tree as a value; entries that do not fit are noted and left out.
    pub(super) fn read<T: DeserializeOwned + Default>(&mut self) -> T {
        let mut tree = self.root.clone();
        while self.problems.len() < PROBLEMS_LIMIT {
            let whole = Spanned::new(0..self.text.len(), tree.clone());
            let error = match T::deserialize(toml::Deserializer::from(whole)) {
                Ok(value) => return value,
                Err(error) => error,
            };
            let Some(place) = error.span().and_then(|span| take_out(&mut tree, &span, &mut Vec::new())) else {
                self.problems.push((error.span().map_or(0, |span| span.start), plain(error.message())));
                break;
            };
            let message = match place.found {
                Found::Key => unknown(&place.path, error.message()),
                Found::Value => format!("{}: {}", place.path.join("."), plain(error.message())),
            };
            self.problems.push((place.at, message));
        }
        T::default()
    }

    /// Notes a problem with the key of a path such as `ecosystem.NAME.upstream.0.url`;
    /// if the text does not have it, at what is nearest above.
    pub(super) fn note(&mut self, path: &str, message: &str) {
        self.problems.push((self.locate(path), format!("{path}: {message}")));
    }

    /// All problems in the order of the text, one a line; `None` if there are none.
    pub(super) fn report(mut self) -> Option<String> {
        self.problems.sort_by_key(|(at, _)| *at);
        let mut report = String::new();
        for (at, message) in &self.problems {
            let before = self.text.get(..*at).unwrap_or(self.text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            let separator = if report.is_empty() { "" } else { "\n" };
            // Writing to a string cannot fail.
            let _ = write!(report, "{separator}{}:{line}:{column}: {message}", self.origin);
        }
        (!report.is_empty()).then_some(report)
    }

    /// Where a path leads: the position of the deepest part of it that the text has.
    fn locate(&self, path: &str) -> usize {
        let mut at = 0;
        let mut table = Some(&self.root);
        let mut array = None;
        for part in path.split('.') {
            let value = if let Some(items) = array {
                let items: &[Spanned<DeValue<'_>>] = items;
                part.parse::<usize>().ok().and_then(|index| items.get(index)).inspect(|value| at = value.span().start)
            } else {
                table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == part)).map(|(key, value)| {
                    at = key.span().start;
                    value
                })
            };
            let Some(value) = value else { break };
            table = value.get_ref().as_table();
            array = value.get_ref().as_array().map(|items| &**items);
        }
        at
    }
}

struct Place {
    at: usize,
    path: Vec<String>,
    found: Found,
}

enum Found {
    Key,
    Value,
}

/// Takes out the entry whose key or value, or an item of whose value, is at a span.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) -> Option<Place> {
    let mut hit = None;
    for (key, value) in table.iter_mut() {
        path.push(key.get_ref().to_string());
        let (key_span, value_span) = (key.span(), value.span());
        if key_span == *span {
            hit = Some((key_span.start, Found::Key));
        } else if value_span == *span || holds(value.get_ref(), span) {
            // The item's own place is the better one to show.
            hit = Some((span.start, Found::Value));
        } else {
            let below = match value.get_mut() {
                DeValue::Table(below) => take_out(below, span, path),
                DeValue::Array(items) => items.iter_mut().enumerate().find_map(|(index, item)| match item.get_mut() {
                    DeValue::Table(below) => {
                        path.push(index.to_string());
                        let place = take_out(below, span, path);
                        path.pop();
                        place
                    }
                    _ => None,
                }),
                _ => None,
            };
            if below.is_some() {
                return below;
            }
        }
        if let Some((at, found)) = hit {
            let place = Place { at, path: path.clone(), found };
            if let Some(key) = path.pop() {
                table.remove(key.as_str());
            }
            return Some(place);
        }
        path.pop();
    }
    None
}

/// Whether a list has an item at a span.
fn holds(value: &DeValue<'_>, span: &Range<usize>) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(|item| item.span() == *span || holds(item.get_ref(), span)))
}

/// The message for a key that no section has. serde says what it knows after `expected`.
fn unknown(path: &[String], message: &str) -> String {
    let (key, section) = path.split_last().map_or(("", &[][..]), |(key, section)| (key, section));
    let place = if section.is_empty() { "at the top".to_owned() } else { format!("in [{}]", section.join(".")) };
    match message.split_once("expected ") {
        Some((_, expected)) => format!("unknown key {key:?} {place}, expected {}", expected.replace('`', "").trim_end()),
        None => format!("unknown key {key:?} {place}"),
    }
}

/// serde's words for types, in the reader's.
fn plain(message: &str) -> String {
    let message = message.trim_end().replace("unknown variant", "unknown value").replace('`', "\"");
    if message == "invalid socket address syntax" {
        return "expected an address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_owned();
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.replace("field", "key") };
    let expected = match expected {
        "u32" | "u64" | "usize" => "a whole number, zero or more",
        "a sequence" => "a list",
        "a map" => "a table",
        "path string" => "a path",
        "a string" => "a text",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{}, expected {expected}", found.replace("sequence", "list").replace("map", "table"))
}
