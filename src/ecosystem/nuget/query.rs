//! What is searched for: words, and words for one member of a package.
//!
//! Every word must be found; `packageid:x` and its like look at one member alone. Source: the query syntax of the public
//! gallery, as far as clients and people use it.

use super::entry::Entry;
use super::nuspec::lower;

/// Longest query, in bytes.
pub const LONGEST: usize = 1000;
/// Most words of one.
const WORDS: usize = 20;

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: Field,
    /// In lower case.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Any,
    ExactId,
    Id,
    Version,
    Title,
    Tag,
    Author,
    Description,
    Summary,
    Owner,
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match lower(name).as_str() {
            "packageid" => Self::ExactId,
            "id" => Self::Id,
            "version" => Self::Version,
            "title" => Self::Title,
            "tag" | "tags" => Self::Tag,
            "author" | "authors" => Self::Author,
            "description" => Self::Description,
            "summary" => Self::Summary,
            "owner" | "owners" => Self::Owner,
            _ => return None,
        })
    }
}

impl Query {
    /// Reads a query as it is typed.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() && terms.len() < WORDS {
            let named = rest.split_once(':').and_then(|(name, after)| Some((Field::named(name)?, after)));
            let (field, after) = named.unwrap_or((Field::Any, rest));
            let (word, after) = match after.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
                Some(phrase) => phrase,
                None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
            };
            let word = lower(word.trim());
            if !word.is_empty() {
                terms.push(Term { field, text: word });
            }
            rest = after.trim_start();
        }
        Self(terms)
    }

    /// How well a package fits, by what is said of its newest version; the better the lower, `None` if it does not.
    #[must_use]
    pub fn rank(&self, entry: &Entry, owner: &str) -> Option<u8> {
        let id = lower(&entry.id);
        let holds = |text: Option<&str>, word: &str| text.is_some_and(|text| lower(text).contains(word));
        let tagged = |word: &str| entry.tags.iter().any(|tag| lower(tag) == *word);
        let fits = |term: &Term| {
            let word = term.text.as_str();
            match term.field {
                Field::Any => {
                    id.contains(word)
                        || entry.tags.iter().any(|tag| lower(tag).contains(word))
                        || holds(Some(&entry.authors), word)
                        || [&entry.title, &entry.description, &entry.summary].into_iter().any(|text| holds(text.as_deref(), word))
                }
                Field::ExactId => id == word,
                Field::Id => id.contains(word),
                Field::Version => lower(&entry.version.to_string()).starts_with(word),
                Field::Title => holds(entry.title.as_deref(), word) || (entry.title.is_none() && id.contains(word)),
                Field::Tag => tagged(word),
                Field::Author => holds(Some(&entry.authors), word),
                Field::Description => holds(entry.description.as_deref(), word),
                Field::Summary => holds(entry.summary.as_deref(), word),
                Field::Owner => owner.eq_ignore_ascii_case(word),
            }
        };
        if !self.0.iter().all(fits) {
            return None;
        }
        let of_ids = || self.0.iter().filter(|term| matches!(term.field, Field::Any | Field::ExactId | Field::Id));
        let each = |test: &dyn Fn(&str) -> bool| of_ids().any(|term| test(&term.text));
        Some(if each(&|word| id == word) {
            0
        } else if each(&|word| id.starts_with(word)) {
            1
        } else if each(&|word| id.contains(word)) {
            2
        } else {
            3
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::entry::Raw;
    use super::super::route;
    use super::*;

    fn entry() -> Entry {
        let raw = json!({ "id": "Acme.Tool", "version": "1.2.0", "title": "The hammer", "tags": ["nails", "wood"], "authors": "Ann", "description": "Drives NAILS in" });
        serde_json::from_value::<Raw>(raw).unwrap().read(&route::id("acme.tool").unwrap()).unwrap()
    }

    #[test]
    fn words_and_members_are_found() {
        let rank = |text: &str| Query::parse(text).rank(&entry(), "acme");
        for (text, expected) in [
            ("", Some(3)),
            ("acme.tool", Some(0)),
            ("ACME", Some(1)),
            ("tool", Some(2)),
            ("nails", Some(3)),
            ("drives ann", Some(3)),
            ("nothing", None),
            ("acme nothing", None),
            ("packageid:acme.tool", Some(0)),
            ("PackageId:acme", None),
            ("id:tool tags:wood", Some(2)),
            ("tag:woo", None),
            ("author:ann version:1.2", Some(3)),
            ("title:\"the hammer\"", Some(3)),
            ("owner:Acme", Some(3)),
            ("owner:bob", None),
            ("\"nails in\"", Some(3)),
            ("\"in nails\"", None),
            ("unknown:x", None),
        ] {
            assert_eq!(rank(text), expected, "{text}");
        }
    }

    #[test]
    fn odd_queries_are_words() {
        for text in ["id:", ":", "\"", "id:\"", "a:b:c", "\u{130}"] {
            let _ = Query::parse(text).rank(&entry(), "acme");
        }
        assert_eq!(Query::parse(&"a ".repeat(100)).0.len(), WORDS);
    }
}
