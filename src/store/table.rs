//! Typed tables over the store: key layout and record encoding in one place.
//!
//! Keys are made of parts that sort as their values do: numbers are eight bytes,
//! big end first; texts end in a zero byte (no name holds one), so that a key of
//! fewer parts is a prefix of the keys below it and of no other. Records are JSON:
//! readable in any dump, and old records stay readable as fields are added.

use std::marker::PhantomData;
use std::ops::Bound;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Batch, Change, Condition, Store, TableId, prefix};
use crate::error::{Error, Result, Subject};

/// Builds a key from parts.
#[derive(Clone, Debug, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key without parts, the prefix of all keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a text. A zero byte inside it would end it early, so it is dropped; no parsed name has one.
    #[must_use]
    pub fn text(mut self, value: &str) -> Self {
        self.0.extend(value.bytes().filter(|byte| *byte != 0));
        self.0.push(0);
        self
    }

    /// Adds bytes of a fixed length, a digest for example.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    /// The encoded key.
    #[must_use]
    pub fn encode(self) -> Bytes {
        self.0.into()
    }
}

/// Takes a key apart again, in the order it was built.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a>(pub &'a [u8]);

impl<'a> KeyParts<'a> {
    /// The next part as a number.
    pub fn number(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*head))
    }

    /// The next part as a text.
    pub fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (head, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        std::str::from_utf8(head).ok()
    }

    /// The next part as bytes of a fixed length.
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}

/// A record as read, with its stored bytes, so that a later batch can say «unchanged since».
#[derive(Clone, Debug)]
pub struct Stored<V> {
    /// The record.
    pub value: V,
    /// Its bytes in the store.
    pub raw: Bytes,
}

/// A table of records of one type.
pub struct Table<V> {
    id: TableId,
    record: PhantomData<fn() -> V>,
}

impl<V: Serialize + DeserializeOwned> Table<V> {
    /// Declares a table. Names are unique within a store.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { id: TableId(name), record: PhantomData }
    }

    /// The record of a key.
    ///
    /// # Errors
    /// When the store fails or the record cannot be read.
    pub async fn get(&self, store: &dyn Store, key: Key) -> Result<Option<Stored<V>>> {
        let key = key.encode();
        match store.get(self.id, &key).await? {
            None => Ok(None),
            Some(raw) => Ok(Some(Stored { value: self.decode(&raw)?, raw })),
        }
    }

    /// The rows whose keys begin with `under`, in key order, at most `limit`, after the key `after` if it is given.
    ///
    /// # Errors
    /// When the store fails or a record cannot be read.
    pub async fn scan(&self, store: &dyn Store, under: Key, after: Option<Bytes>, limit: usize) -> Result<Vec<(Bytes, Stored<V>)>> {
        let (start, end) = prefix(&under.encode());
        let start = after.map_or(start, Bound::Excluded);
        let rows = store.scan(self.id, (start, end), limit).await?;
        rows.into_iter().map(|(key, raw)| Ok((key, Stored { value: self.decode(&raw)?, raw }))).collect()
    }

    /// The rows whose keys begin with `under`, in reverse key order, at most `limit`, before the key `before` if it is given.
    ///
    /// # Errors
    /// When the store fails or a record cannot be read.
    pub async fn scan_back(&self, store: &dyn Store, under: Key, before: Option<Bytes>, limit: usize) -> Result<Vec<(Bytes, Stored<V>)>> {
        let (start, end) = prefix(&under.encode());
        let end = before.map_or(end, Bound::Excluded);
        let rows = store.scan_back(self.id, (start, end), limit).await?;
        rows.into_iter().map(|(key, raw)| Ok((key, Stored { value: self.decode(&raw)?, raw }))).collect()
    }

    /// Adds to a batch: set this record.
    ///
    /// # Errors
    /// When the record cannot be written as JSON.
    pub fn put(&self, batch: &mut Batch, key: Key, value: &V) -> Result<()> {
        let record = serde_json::to_vec(value).map_err(|error| Error::internal(Subject::Store, error))?;
        batch.changes.push(Change::Put(self.id, key.encode(), record.into()));
        Ok(())
    }

    /// Adds to a batch: remove this key.
    pub fn delete(&self, batch: &mut Batch, key: Key) {
        batch.changes.push(Change::Delete(self.id, key.encode()));
    }

    /// Adds to a batch: this key must be absent.
    pub fn absent(&self, batch: &mut Batch, key: Key) {
        batch.conditions.push(Condition::Absent(self.id, key.encode()));
    }

    /// Adds to a batch: this key must still hold what was read.
    pub fn unchanged(&self, batch: &mut Batch, key: Key, stored: &Stored<V>) {
        batch.conditions.push(Condition::Equals(self.id, key.encode(), stored.raw.clone()));
    }

    fn decode(&self, raw: &[u8]) -> Result<V> {
        serde_json::from_slice(raw).map_err(|error| Error::internal(Subject::Store, format!("record in table {}: {error}", self.id.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_parts_and_come_apart_again() {
        let key = |number: u64, text: &str| Key::new().number(number).text(text).encode();
        assert!(key(1, "b") < key(2, "a"));
        assert!(key(1, "a") < key(1, "aa"));
        let encoded = Key::new().text("npm").number(7).bytes(&[1, 0, 2]).encode();
        let mut parts = KeyParts(&encoded);
        assert_eq!((parts.text(), parts.number(), parts.bytes(3)), (Some("npm"), Some(7), Some(&[1, 0, 2][..])));
        assert_eq!(parts.number(), None);
    }

    #[test]
    fn a_prefix_covers_its_keys_and_no_others() {
        let (start, end) = prefix(&Key::new().text("a").encode());
        let inside = |key: Bytes| {
            (match &start {
                Bound::Included(start) => key >= *start,
                _ => true,
            }) && (match &end {
                Bound::Excluded(end) => key < *end,
                _ => true,
            })
        };
        assert!(inside(Key::new().text("a").text("x").encode()));
        assert!(!inside(Key::new().text("ab").text("x").encode()));
        assert_eq!(prefix(&[255, 255]).1, Bound::Unbounded);
    }
}
