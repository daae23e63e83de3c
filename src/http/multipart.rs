//! A form in parts (`multipart/form-data`), read part by part as it arrives.
//!
//! Files of any size come in such forms, also without a length. So a part is handed on in
//! chunks, and never more than a few are in memory. Source: RFC 7578, and RFC 2046, section 5.1.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{HeaderValue, Upload};
use crate::error::{Error, Result, Subject};

/// Longest head of a part, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Most bytes before the first part.
const PREAMBLE_BYTES: usize = 64 << 10;
/// Longest boundary that the RFC allows.
const BOUNDARY_BYTES: usize = 70;

/// What the head of a part says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The field's name.
    pub name: String,
    /// The name of the file, if it is one.
    pub file: Option<String>,
}

/// A form that is arriving.
pub struct Multipart {
    body: Upload,
    /// What ends a part: the boundary with what stands before it.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    parts_left: usize,
    within: Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// What comes before the first part.
    Preamble,
    /// A part's content.
    Content,
    /// Right behind a delimiter.
    Delimiter,
    /// What comes after the last part.
    Epilogue,
}

/// The boundary that a content type names, if it is one of a form in parts.
///
/// # Errors
/// `Invalid` when it names none, or one that cannot be.
pub fn boundary(content_type: Option<&HeaderValue>) -> Result<Option<String>> {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    if !kind.trim().to_ascii_lowercase().starts_with("multipart/") {
        return Ok(None);
    }
    let boundary = parameter(parameters, "boundary").filter(|boundary| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES && boundary.bytes().all(plain) && !boundary.ends_with(' ')
    });
    boundary.map(Some).ok_or_else(|| malformed("the form's content type names no boundary"))
}

impl Multipart {
    /// A form of at most so many parts.
    #[must_use]
    pub fn new(body: Upload, boundary: &str, parts: usize) -> Self {
        // The line end before the first delimiter may be missing.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Self { body, delimiter: format!("\r\n--{boundary}").into_bytes(), buffer, parts_left: parts, within: Within::Preamble }
    }

    /// The head of the next part; `None` after the last. What is left of the part before it is skipped.
    ///
    /// # Errors
    /// `Invalid` for what is malformed, breaks off, or has too many parts; the errors of [`Upload::chunk`].
    pub async fn part(&mut self) -> Result<Option<Part>> {
        let mut skipped = 0;
        while matches!(self.within, Within::Preamble | Within::Content) {
            let preamble = self.within == Within::Preamble;
            skipped += self.content().await?.map_or(0, |bytes| bytes.len());
            if preamble && skipped > PREAMBLE_BYTES {
                return Err(malformed("the form does not begin with a part"));
            }
        }
        if self.within == Within::Epilogue {
            return Ok(None);
        }
        let line = self.line().await?;
        match line.trim_ascii() {
            b"--" => {
                self.within = Within::Epilogue;
                return Ok(None);
            }
            b"" => {}
            _ => return Err(malformed("the form's boundary is malformed")),
        }
        self.parts_left = self.parts_left.checked_sub(1).ok_or_else(|| malformed("the form has too many parts"))?;
        let mut part = Part::default();
        let mut length = 0;
        loop {
            let line = self.line().await?;
            length += line.len();
            if line.is_empty() {
                break;
            }
            if length > HEAD_BYTES {
                return Err(malformed("the head of a part is too long"));
            }
            let text = std::str::from_utf8(&line).map_err(|_| malformed("the head of a part is no text"))?;
            let (name, value) = text.split_once(':').ok_or_else(|| malformed("the head of a part is malformed"))?;
            if name.trim().eq_ignore_ascii_case("content-disposition") {
                let parameters = value.split_once(';').map_or("", |(_, rest)| rest);
                part = Part { name: parameter(parameters, "name").unwrap_or_default(), file: parameter(parameters, "filename") };
            }
        }
        self.within = Within::Content;
        Ok(Some(part))
    }

    /// The next bytes of the part; `None` at its end.
    ///
    /// # Errors
    /// `Invalid` when the form breaks off; the errors of [`Upload::chunk`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if self.within == Within::Content { self.content().await } else { Ok(None) }
    }

    /// The next bytes before a delimiter; none when it has come.
    async fn content(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, &self.delimiter) {
                if at > 0 {
                    return Ok(Some(self.buffer.split_to(at).freeze()));
                }
                self.buffer.advance(self.delimiter.len());
                self.within = Within::Delimiter;
                return Ok(None);
            }
            // The end of what is here may be the beginning of a delimiter.
            let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if sure > 0 {
                return Ok(Some(self.buffer.split_to(sure).freeze()));
            }
            self.more().await?;
        }
    }

    /// The bytes up to the next line end, without it.
    async fn line(&mut self) -> Result<Bytes> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(at).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            // The last delimiter may have no line end.
            if self.buffer.starts_with(b"--") {
                return Ok(self.buffer.split_to(2).freeze());
            }
            if self.buffer.len() > HEAD_BYTES {
                return Err(malformed("the head of a part is too long"));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        let chunk = self.body.chunk().await?.ok_or_else(|| malformed("the form breaks off"))?;
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

/// A parameter of a header's value, `; name=value` or `; name="value"`.
fn parameter(mut parameters: &str, wanted: &str) -> Option<String> {
    while !parameters.is_empty() {
        let (name, rest) = parameters.split_once('=')?;
        let rest = rest.trim_start();
        let (value, after) = match rest.strip_prefix('"') {
            None => {
                let (value, after) = rest.split_once(';').unwrap_or((rest, ""));
                (value.trim().to_owned(), after)
            }
            Some(quoted) => {
                let (value, end) = unquote(quoted)?;
                (value, quoted[end..].split_once(';').map_or("", |(_, after)| after))
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        parameters = after;
    }
    None
}

/// The text up to the closing quote, and where what follows that begins.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, at + 1)),
            // A path of Windows is sent as it is, so that only what must be escaped counts as escaped.
            '\\' if text[at + 1..].starts_with(['"', '\\']) => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    None
}

fn malformed(what: &'static str) -> Error {
    Error::invalid(Subject::Request, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const FORM: &str = "ignored\r\n--b1\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nwords\r\n--b1\r\n\
        content-disposition: form-data; name=package; filename=\"a \\\"b\\\".nupkg\"; x=y\r\nContent-Type: application/octet-stream\r\n\r\n\
        bytes\r\n--b\r\nmore\r\n\r\n--b1--\r\nafterwards";

    /// The form sent in pieces of this size.
    async fn read(text: &[u8], parts: usize) -> Result<Vec<(Part, Vec<u8>)>> {
        let mut form = Multipart::new(Upload::memory(text.to_vec()), "b1", parts);
        let mut found = Vec::new();
        while let Some(part) = form.part().await? {
            let mut bytes = Vec::new();
            while let Some(chunk) = form.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            found.push((part, bytes));
        }
        assert!(form.part().await?.is_none() && form.chunk().await?.is_none());
        Ok(found)
    }

    #[tokio::test]
    async fn parts_are_told_apart() {
        let found = read(FORM.as_bytes(), 2).await.unwrap();
        assert_eq!(found[0], (Part { name: "note".into(), file: None }, b"words".to_vec()));
        assert_eq!(found[1].0, Part { name: "package".into(), file: Some("a \"b\".nupkg".into()) });
        assert_eq!(found[1].1, b"bytes\r\n--b\r\nmore\r\n");
        let bare = read(b"--b1\r\n\r\n\r\n--b1--", 1).await.unwrap();
        assert_eq!(bare, [(Part::default(), Vec::new())]);
        assert_eq!(read(b"--b1--", 0).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_part_that_is_not_read_is_skipped() {
        let mut form = Multipart::new(Upload::memory(FORM.as_bytes().to_vec()), "b1", 2);
        form.part().await.unwrap();
        assert_eq!(form.part().await.unwrap().unwrap().name, "package");
        assert!(form.part().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_malformed_is_refused() {
        let long = format!("--b1\r\n{}: x\r\n\r\n\r\n--b1--", "x".repeat(HEAD_BYTES + 1));
        let endless = format!("{}\r\n--b1--", "x".repeat(PREAMBLE_BYTES + 100));
        for wrong in
            ["", "--b1", "--b1\r\n", "--b1\r\n\r\nx", "--b1x\r\n\r\nx\r\n--b1--", "--b1\r\nx\r\n\r\n\r\n--b1--", "text", &long, &endless]
        {
            assert_eq!(read(wrong.as_bytes(), 9).await.map_err(|error| error.kind()), Err(Kind::Invalid), "{wrong}");
        }
        assert!(read(FORM.as_bytes(), 1).await.is_err(), "too many parts");
        for cut in 0..FORM.len() - "--\r\nafterwards".len() {
            assert!(read(&FORM.as_bytes()[..cut], 9).await.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_boundary_is_read_from_the_content_type() {
        let read = |text: &'static str| boundary(Some(&HeaderValue::from_static(text)));
        assert_eq!(read("multipart/form-data; boundary=\"a b\"").unwrap().as_deref(), Some("a b"));
        assert_eq!(read("Multipart/Form-Data;charset=x; BOUNDARY=-x-").unwrap().as_deref(), Some("-x-"));
        assert_eq!(read("application/octet-stream; boundary=x").unwrap(), None);
        assert_eq!(boundary(None).unwrap(), None);
        for wrong in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"x",
            "multipart/form-data; boundary=a\"b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(boundary(Some(&HeaderValue::try_from(format!("multipart/x; boundary={}", "x".repeat(71))).unwrap())).is_err());
    }
}
