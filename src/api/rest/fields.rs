//! The fields of a request's body, with GitHub's errors for those that are missing or wrong.
//!
//! Fields that nobody asks for are ignored, as GitHub does.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::refusal::{Outcome, Refusal};

/// A JSON object that a request brought; an absent body is an empty one.
#[derive(Debug)]
pub(crate) struct Fields {
    resource: &'static str,
    members: Map<String, Value>,
}

impl Fields {
    /// Reads a body. `resource` is what errors call the thing described.
    ///
    /// # Errors
    /// 400 for what is no JSON, or no object.
    pub(crate) fn read(resource: &'static str, body: &[u8]) -> Outcome<Self> {
        if body.is_empty() {
            return Ok(Self { resource, members: Map::new() });
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self { resource, members }),
            Ok(_) => Err(Refusal::invalid("Body should be a JSON object")),
            Err(_) => Err(Refusal::invalid("Problems parsing JSON")),
        }
    }

    /// Members of an object that stands inside a body.
    pub(crate) fn of(resource: &'static str, members: Map<String, Value>) -> Self {
        Self { resource, members }
    }

    /// Any value; null counts as absent.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub(crate) fn text(&self, name: &'static str) -> Outcome<Option<&str>> {
        self.value(name).map(|value| value.as_str().ok_or_else(|| self.wrong(name, "is not a string"))).transpose()
    }

    /// A text that must be there.
    pub(crate) fn needed(&self, name: &'static str) -> Outcome<&str> {
        self.text(name)?.ok_or_else(|| Refusal::missing_field(self.resource, name))
    }

    /// A text that is read as something.
    pub(crate) fn parsed<T: FromStr<Err: ToString>>(&self, name: &'static str) -> Outcome<Option<T>> {
        self.text(name)?.map(|text| text.parse().map_err(|error: T::Err| self.wrong(name, error.to_string()))).transpose()
    }

    /// As [`Fields::parsed`], for what must be there.
    pub(crate) fn needed_as<T: FromStr<Err: ToString>>(&self, name: &'static str) -> Outcome<T> {
        self.parsed(name)?.ok_or_else(|| Refusal::missing_field(self.resource, name))
    }

    /// Yes or no.
    pub(crate) fn flag(&self, name: &'static str) -> Outcome<Option<bool>> {
        self.value(name).map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "is not a boolean"))).transpose()
    }

    /// The refusal of a field's value.
    pub(crate) fn wrong(&self, name: &'static str, why: impl Into<String>) -> Refusal {
        Refusal::invalid_field(self.resource, name, why)
    }
}
