//! The search phrase of the audit log: which entries a reader wants. Pure.
//!
//! A phrase is words and qualifiers, all of which must fit: `action:team` (a category
//! or a whole name), `actor:ann`, `user:bob`, `repo:acme/web`, `org:acme`, `ip:`,
//! `package:`, `operation:create`, and `created:` with a date, a range `A..B`, or one
//! side of it (`>=A`). A `-` before a part turns it round. Source: GitHub's
//! documentation of searching an organisation's audit log.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::usage::Day;

/// What an entry must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Phrase(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    wanted: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// Some field holds the word.
    Word(String),
    /// The action is this, or of this category.
    Action(String),
    /// A field is this text.
    Field(&'static str, String),
    /// It happened from the first instant on and before the second.
    Created(Timestamp, Timestamp),
}

/// Qualifiers of one field, and the field.
const FIELDS: [(&str, &str); 7] = [
    ("actor", "actor"),
    ("user", "user"),
    ("org", "org"),
    ("repo", "repo"),
    ("package", "package"),
    ("ip", "actor_ip"),
    ("operation", "operation_type"),
];

/// Fields that a bare word is looked for in.
const SEARCHED: [&str; 8] = ["action", "actor", "user", "org", "repo", "team", "package", "pattern"];

impl Phrase {
    /// Reads a phrase.
    ///
    /// # Errors
    /// With what is wrong: a qualifier that is none, a date that is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        text.split_whitespace().map(Part::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an entry, as it is shown, is wanted.
    pub(super) fn fits(&self, entry: &Map<String, Value>, at: Timestamp) -> bool {
        self.0.iter().all(|part| part.test.holds(entry, at) == part.wanted)
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, String> {
        let (wanted, text) = text.strip_prefix('-').map_or((true, text), |rest| (false, rest));
        let Some((qualifier, value)) = text.split_once(':') else {
            return Ok(Self { wanted, test: Test::Word(text.to_lowercase()) });
        };
        let value = value.trim_matches('"');
        let test = match qualifier {
            "action" => Test::Action(value.to_lowercase()),
            "created" => created(value)?,
            _ => match FIELDS.iter().find(|(name, _)| *name == qualifier) {
                Some((_, field)) => Test::Field(field, value.to_lowercase()),
                None => return Err(format!("{qualifier:?} is no qualifier of the audit log")),
            },
        };
        Ok(Self { wanted, test })
    }
}

impl Test {
    fn holds(&self, entry: &Map<String, Value>, at: Timestamp) -> bool {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        match self {
            Self::Word(word) => SEARCHED.iter().any(|field| text(field).to_lowercase().contains(word)),
            Self::Action(action) => {
                text("action").strip_prefix(action.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
            Self::Field(field, value) => text(field).eq_ignore_ascii_case(value),
            Self::Created(from, until) => (*from..*until).contains(&at),
        }
    }
}

/// The instants that a date or a range of dates means.
fn created(text: &str) -> Result<Test, String> {
    let (first, last) = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
    let span = |text: &str| span(text).ok_or_else(|| format!("{text:?} is no date; write YYYY-MM-DD or an instant of RFC 3339"));
    if let Some((from, until)) = text.split_once("..") {
        let from = if from == "*" { first } else { span(from)?.0 };
        let until = if until == "*" { last } else { span(until)?.1 };
        return Ok(Test::Created(from, until));
    }
    for (sign, bounds) in [
        (">=", (|(start, _)| (start, Timestamp::from_millis(i64::MAX))) as fn((Timestamp, Timestamp)) -> (Timestamp, Timestamp)),
        ("<=", |(_, end)| (Timestamp::from_millis(i64::MIN), end)),
        (">", |(_, end)| (end, Timestamp::from_millis(i64::MAX))),
        ("<", |(start, _)| (Timestamp::from_millis(i64::MIN), start)),
    ] {
        if let Some(date) = text.strip_prefix(sign) {
            let (from, until) = bounds(span(date)?);
            return Ok(Test::Created(from, until));
        }
    }
    let (from, until) = span(text)?;
    Ok(Test::Created(from, until))
}

/// The first instant of a date, and the first after it; of an instant itself it is a millisecond.
fn span(text: &str) -> Option<(Timestamp, Timestamp)> {
    let after = |at: Timestamp, millis: u64| at.plus(std::time::Duration::from_millis(millis));
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some((at, after(at, 1)));
    }
    let start = text.parse::<Day>().ok()?.start();
    Some((start, after(start, 86_400_000)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_must_fit() {
        let Value::Object(entry) = json!({
            "action": "team.add_member", "actor": "ann", "user": "bob", "org": "acme", "repo": "acme/web", "actor_ip": "10.0.0.1",
            "operation_type": "create"
        }) else {
            panic!()
        };
        let at: Timestamp = "2023-11-14T22:13:20Z".parse().unwrap();
        for (phrase, fits) in [
            ("", true),
            ("action:team", true),
            ("action:team.add_member", true),
            ("action:tea", false),
            ("action:team.add", false),
            ("actor:ann user:bob", true),
            ("actor:ann user:ann", false),
            ("-actor:bob repo:acme/web", true),
            ("-actor:ann", false),
            ("ip:10.0.0.1 operation:create org:\"acme\"", true),
            ("package:x", false),
            ("add_mem", true),
            ("-add_mem", false),
            ("nowhere", false),
            ("created:2023-11-14", true),
            ("created:2023-11-13", false),
            ("created:>=2023-11-14 created:<=2023-11-14", true),
            ("created:>2023-11-14", false),
            ("created:<2023-11-14", false),
            ("created:<2023-11-15", true),
            ("created:2023-11-01..2023-11-14", true),
            ("created:2023-11-01..2023-11-13", false),
            ("created:*..2023-11-14", true),
            ("created:2023-11-14..*", true),
            ("created:>=2023-11-14T22:13:20Z", true),
            ("created:>2023-11-14T22:13:20Z", false),
        ] {
            assert_eq!(Phrase::parse(phrase).unwrap().fits(&entry, at), fits, "{phrase}");
        }
        for wrong in ["country:de", "created:soon", "created:>=", ":", "created:2023-11-01..", "é:x"] {
            assert!(Phrase::parse(wrong).is_err(), "{wrong}");
        }
    }
}
