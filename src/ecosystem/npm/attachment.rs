//! Takes the tarball out of a publish request while the request arrives.
//!
//! npm sends the tarball as base64 inside JSON. Parsed as a whole, a 200 MB tarball
//! would stand in memory three times. So the body runs through a small scanner that
//! follows the JSON's structure, decodes the text at `_attachments.<name>.data` as
//! it comes, and leaves an empty text in its place. What remains is small, and is
//! parsed as ordinary JSON. A `.sigstore` attachment is JSON in a text, not base64,
//! and small, so it stays.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, Kind, Result, Subject};

/// Deepest nesting of arrays and objects.
const DEEPEST: usize = 64;
/// Longest key that is looked at, in bytes as it stands in the JSON.
const LONGEST_KEY: usize = 1024;

/// The scanner. Feed it the body in pieces of any size.
#[derive(Debug)]
pub struct Scanner {
    /// The JSON without the attachment's data.
    remainder: Vec<u8>,
    remainder_limit_bytes: usize,
    /// Open arrays and objects, outermost first.
    open: Vec<Container>,
    /// The key each open object is at, for the outermost three.
    keys: [Vec<u8>; 3],
    state: State,
    /// Base64 characters not yet decoded, fewer than four.
    pending: Vec<u8>,
    padded: bool,
    attachment: Option<Attachment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Array,
    /// An object, and whether its next text is a key.
    Object {
        at_key: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Structure,
    Text { is_key: bool, escaped: bool },
    Data { escaped: bool },
}

/// The attachment that was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its key under `_attachments`, as it stands in the JSON.
    pub name: String,
    /// Its decoded length in bytes.
    pub length: u64,
}

impl Scanner {
    /// A scanner that keeps at most `remainder_limit_bytes` of JSON besides the attachment.
    #[must_use]
    pub fn new(remainder_limit_bytes: usize) -> Self {
        Self {
            remainder: Vec::new(),
            remainder_limit_bytes,
            open: Vec::new(),
            keys: [Vec::new(), Vec::new(), Vec::new()],
            state: State::Structure,
            pending: Vec::new(),
            padded: false,
            attachment: None,
        }
    }

    /// Takes in the next bytes of the body and returns the attachment's bytes among them.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when the JSON besides the attachment is, [`Kind::Invalid`]
    /// for bad base64, a second attachment, or nesting that is too deep.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>> {
        let mut decoded = Vec::new();
        while !bytes.is_empty() {
            let used = match self.state {
                State::Structure => self.structure(bytes)?,
                State::Text { is_key, escaped } => self.text(bytes, is_key, escaped),
                State::Data { escaped } => self.data(bytes, escaped, &mut decoded)?,
            };
            bytes = &bytes[used..];
            if self.remainder.len() > self.remainder_limit_bytes {
                return Err(Error::new(Kind::TooLarge, Subject::Request)
                    .saying(format!("the metadata of the publish is larger than {} bytes", self.remainder_limit_bytes)));
            }
        }
        Ok(decoded)
    }

    /// The JSON without the attachment's data, and the attachment.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the body ended too early.
    pub fn finish(self) -> Result<(Vec<u8>, Option<Attachment>)> {
        if self.state != State::Structure || !self.open.is_empty() {
            return Err(invalid("the request body is not complete JSON"));
        }
        Ok((self.remainder, self.attachment))
    }

    /// Takes one byte of structure, or all up to the next byte that matters.
    fn structure(&mut self, bytes: &[u8]) -> Result<usize> {
        let byte = bytes[0];
        self.remainder.push(byte);
        match byte {
            b'{' | b'[' => {
                if self.open.len() == DEEPEST {
                    return Err(invalid("the JSON is nested too deeply"));
                }
                self.open.push(if byte == b'{' { Container::Object { at_key: true } } else { Container::Array });
            }
            b'}' | b']' => {
                self.open.pop();
            }
            b',' => {
                if let Some(Container::Object { at_key }) = self.open.last_mut() {
                    *at_key = true;
                }
            }
            b':' => {
                if let Some(Container::Object { at_key }) = self.open.last_mut() {
                    *at_key = false;
                }
            }
            b'"' => {
                let is_key = self.open.last() == Some(&Container::Object { at_key: true });
                if is_key && let Some(key) = self.keys.get_mut(self.open.len() - 1) {
                    key.clear();
                }
                if !is_key && self.at_data() {
                    self.begin_data()?;
                } else {
                    self.state = State::Text { is_key, escaped: false };
                }
            }
            _ => {}
        }
        Ok(1)
    }

    fn text(&mut self, bytes: &[u8], is_key: bool, escaped: bool) -> usize {
        let used = if escaped {
            self.state = State::Text { is_key, escaped: false };
            1
        } else {
            match memchr::memchr2(b'"', b'\\', bytes) {
                None => bytes.len(),
                Some(at) => {
                    self.state = if bytes[at] == b'"' { State::Structure } else { State::Text { is_key, escaped: true } };
                    at + 1
                }
            }
        };
        let piece = &bytes[..used];
        self.remainder.extend_from_slice(piece);
        if is_key && let Some(key) = self.keys.get_mut(self.open.len() - 1) {
            let piece = if self.state == State::Structure { &piece[..used - 1] } else { piece };
            let room = LONGEST_KEY.saturating_sub(key.len());
            key.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        used
    }

    fn data(&mut self, bytes: &[u8], escaped: bool, decoded: &mut Vec<u8>) -> Result<usize> {
        if escaped {
            // The only escape that base64 can need: some writers escape the slash.
            if bytes[0] != b'/' {
                return Err(bad_base64());
            }
            self.decode(b"/", decoded)?;
            self.state = State::Data { escaped: false };
            return Ok(1);
        }
        let end = memchr::memchr2(b'"', b'\\', bytes);
        self.decode(&bytes[..end.unwrap_or(bytes.len())], decoded)?;
        let Some(at) = end else { return Ok(bytes.len()) };
        if bytes[at] == b'\\' {
            self.state = State::Data { escaped: true };
        } else {
            if !self.pending.is_empty() {
                return Err(bad_base64());
            }
            self.remainder.push(b'"');
            self.state = State::Structure;
        }
        Ok(at + 1)
    }

    /// Decodes whole groups of four characters and keeps the rest for the next piece.
    fn decode(&mut self, text: &[u8], decoded: &mut Vec<u8>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.padded {
            return Err(bad_base64());
        }
        let before = decoded.len();
        let mut text = text;
        if !self.pending.is_empty() {
            let missing = (4 - self.pending.len()).min(text.len());
            let (head, rest) = text.split_at(missing);
            self.pending.extend_from_slice(head);
            text = rest;
            if self.pending.len() == 4 {
                let group = std::mem::take(&mut self.pending);
                self.decode_groups(&group, decoded)?;
            }
        }
        let (whole, rest) = text.split_at(text.len() / 4 * 4);
        self.decode_groups(whole, decoded)?;
        self.pending.extend_from_slice(rest);
        if let Some(attachment) = &mut self.attachment {
            attachment.length += (decoded.len() - before) as u64;
        }
        Ok(())
    }

    fn decode_groups(&mut self, text: &[u8], decoded: &mut Vec<u8>) -> Result<()> {
        if self.padded && !text.is_empty() {
            return Err(bad_base64());
        }
        BASE64.decode_vec(text, decoded).map_err(|_| bad_base64())?;
        self.padded = text.last() == Some(&b'=');
        Ok(())
    }

    /// Whether the value that begins here is `_attachments.<name>.data` of a base64 attachment.
    fn at_data(&self) -> bool {
        self.open.len() == 3
            && self.open.iter().all(|container| matches!(container, Container::Object { .. }))
            && self.keys[0] == b"_attachments"
            && self.keys[2] == b"data"
            && !self.keys[1].ends_with(b".sigstore")
    }

    fn begin_data(&mut self) -> Result<()> {
        if self.attachment.is_some() {
            return Err(invalid("a publish has exactly one tarball"));
        }
        let quoted = [b"\"", self.keys[1].as_slice(), b"\""].concat();
        let name: String = serde_json::from_slice(&quoted).map_err(|_| invalid("the attachment's name is malformed"))?;
        self.attachment = Some(Attachment { name, length: 0 });
        self.state = State::Data { escaped: false };
        Ok(())
    }
}

fn invalid(message: &'static str) -> Error {
    Error::invalid(Subject::Request, message)
}

fn bad_base64() -> Error {
    invalid("the attachment's data is not base64")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(body: &[u8], step: usize) -> Result<(Vec<u8>, Option<Attachment>, Vec<u8>)> {
        let mut scanner = Scanner::new(1 << 16);
        let mut data = Vec::new();
        for piece in body.chunks(step.max(1)) {
            data.extend(scanner.feed(piece)?);
        }
        let (remainder, attachment) = scanner.finish()?;
        Ok((remainder, attachment, data))
    }

    fn body(name: &str, data: &str) -> String {
        format!(r#"{{"a":[{{"data":"x"}}],"_attachments":{{"{name}":{{"content_type":"t","data":"{data}","length":3}}}},"z":"\"q\""}}"#)
    }

    #[test]
    fn takes_the_data_out_whatever_the_pieces() {
        let text = body("@s/n-1.0.0.tgz", "YWJjZGVmZw==");
        for step in 1..text.len() {
            let (remainder, attachment, data) = scan(text.as_bytes(), step).unwrap();
            assert_eq!(data, b"abcdefg", "{step}");
            assert_eq!(attachment, Some(Attachment { name: "@s/n-1.0.0.tgz".into(), length: 7 }));
            assert_eq!(String::from_utf8(remainder).unwrap(), body("@s/n-1.0.0.tgz", ""));
        }
    }

    #[test]
    fn escaped_slashes_are_base64_too() {
        assert_eq!(scan(body("x.tgz", r"\/\/8=").as_bytes(), 3).unwrap().2, [255, 255]);
    }

    #[test]
    fn a_sigstore_bundle_stays() {
        let text = body("x.sigstore", r#"{\"a\":1}"#);
        let (remainder, attachment, data) = scan(text.as_bytes(), 5).unwrap();
        assert_eq!((remainder, attachment, data), (text.into_bytes(), None, Vec::new()));
    }

    #[test]
    fn refuses_bad_input() {
        for wrong in ["YWJ", "Y W=", "YWJj=", "YQ==YQ==", r"\u0041AAA", "YQ=="] {
            let text = body("x.tgz", wrong);
            assert_eq!(scan(text.as_bytes(), 4).is_ok(), wrong == "YQ==", "{wrong}");
        }
        let two = r#"{"_attachments":{"a.tgz":{"data":"YQ=="},"b.tgz":{"data":"YQ=="}}}"#;
        assert!(scan(two.as_bytes(), 9).is_err());
        assert!(scan(&[b'['; 100], 7).is_err());
        assert!(scan(br#"{"_attachments":{"a":{"data":"YW"#, 7).is_err());
        assert_eq!(scan(&vec![b' '; 1 << 17], 1000).unwrap_err().kind(), Kind::TooLarge);
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_other_json(value in "[\\[\\]{}:,\"a_\\\\ ]{0,60}", step in 1usize..9) {
            if let Ok((remainder, None, data)) = scan(value.as_bytes(), step) {
                prop_assert_eq!(remainder, value.into_bytes());
                prop_assert!(data.is_empty());
            }
        }
    }
}
