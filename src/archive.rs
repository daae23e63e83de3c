//! Zip archives, strictly framed and within bounds.
//!
//! Two readers of one zip can see two different archives: bytes before or after it, a
//! directory that names what the headers do not, a second directory in the comment, a
//! name twice. What is published here must be the same to every reader, so an archive is
//! taken only if there is one way to read it. Nothing is ever unpacked to disk.
//!
//! Source: PKWARE's APPNOTE, and what package indexes have refused since such archives were used against them.

use std::collections::HashSet;
use std::io::{BufReader, Read, Seek, SeekFrom};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::{Error, Kind, Result, Subject};

/// Bytes that can be read from any place.
pub trait Source: Read + Seek {}

impl<T: Read + Seek + ?Sized> Source for T {}

/// Bounds of reading an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes that all entries together unpack to.
    pub unpacked_bytes: u64,
}

/// An archive whose directory is read.
pub struct Archive<S> {
    zip: ZipArchive<BufReader<S>>,
    names: Vec<String>,
}

/// The record at the end of an archive, without its comment.
const END_BYTES: usize = 22;
/// The longest comment.
const COMMENT_BYTES: u64 = 1 << 16;
const END: [u8; 4] = *b"PK\x05\x06";
const WIDE_END: [u8; 4] = *b"PK\x06\x06";
const WIDE_END_LOCATOR: [u8; 4] = *b"PK\x06\x07";

impl<S: Read + Seek> Archive<S> {
    /// Reads the directory of an archive that fills its file from the first byte to the last.
    ///
    /// # Errors
    /// `Unprocessable` for what is no such archive, `TooLarge` past a limit.
    pub fn open(mut source: S, limits: &Limits) -> Result<Self> {
        // Before the directory is read, which takes memory for every entry.
        if count(&mut source)? > limits.entries {
            return Err(Error::new(Kind::TooLarge, Subject::File).saying(format!("the archive has more than {} entries", limits.entries)));
        }
        let zip = ZipArchive::new(BufReader::new(source)).map_err(|error| broken(&error))?;
        if zip.offset() != 0 {
            return Err(refused("the archive does not begin where its file does"));
        }
        let mut names = Vec::with_capacity(zip.len());
        let mut unpacked: u64 = 0;
        for index in 0..zip.len() {
            let entry = zip.by_index_data(index).map_err(|error| broken(&error))?;
            names.push(entry.name().map_err(|error| broken(&error))?.into_owned());
            unpacked = unpacked.saturating_add(entry.size());
            if entry.encrypted() {
                return Err(refused("an entry is encrypted"));
            }
        }
        if unpacked > limits.unpacked_bytes {
            let text = format!("the archive unpacks to more than {} bytes", limits.unpacked_bytes);
            return Err(Error::new(Kind::TooLarge, Subject::File).saying(text));
        }
        Ok(Self { zip, names })
    }

    /// The names of its entries, in the directory's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// That every reader sees these entries and no others, and that each stays below the folder it is unpacked to.
    ///
    /// # Errors
    /// `Unprocessable` naming what is wrong.
    pub fn check_layout(&mut self) -> Result<()> {
        self.zip.validate_header_consistency().map_err(|error| broken(&error))?;
        let mut seen = HashSet::with_capacity(self.names.len());
        for (index, name) in self.names.iter().enumerate() {
            if !is_below(name) {
                return Err(refused("an entry's name leads out of the archive"));
            }
            if !seen.insert(name.trim_end_matches('/').to_lowercase()) {
                return Err(refused("two entries differ in nothing but the case of their names"));
            }
            let entry = self.zip.by_index_data(index).map_err(|error| broken(&error))?;
            if entry.name_raw() != name.as_bytes() {
                return Err(refused("an entry's name is not in UTF-8"));
            }
            if entry.is_symlink() {
                return Err(refused("an entry is a link"));
            }
        }
        Ok(())
    }

    /// An entry's bytes, at most `limit_bytes`.
    ///
    /// # Errors
    /// `Unprocessable` when there is none of this name or it is damaged, `TooLarge` past the limit.
    pub fn read(&mut self, name: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let index = self.names.iter().position(|known| known == name).ok_or_else(|| refused("the archive has no such entry"))?;
        let entry = self.zip.by_index(index).map_err(|error| broken(&error))?;
        let mut bytes = Vec::new();
        entry.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 > limit_bytes {
            return Err(Error::new(Kind::TooLarge, Subject::File).saying(format!("{name} is larger than {limit_bytes} bytes")));
        }
        Ok(bytes)
    }

    /// Unpacks every entry into nothing: their checksums are all that proves the bytes where no digest is promised.
    ///
    /// # Errors
    /// `Unprocessable` when one is damaged.
    pub fn prove(&mut self) -> Result<()> {
        for index in 0..self.names.len() {
            let mut entry = self.zip.by_index(index).map_err(|error| broken(&error))?;
            // An entry that unpacks to more than it says is damaged too.
            let size = entry.size();
            let unpacked = std::io::copy(&mut Read::take(&mut entry, size.saturating_add(1)), &mut std::io::sink()).map_err(damaged)?;
            if unpacked != size {
                return Err(refused("an entry is not as long as it says"));
            }
        }
        Ok(())
    }
}

/// How many entries the record at the end says there are. It must be the only one, and end with the file.
fn count(source: &mut (impl Read + Seek)) -> Result<u64> {
    let length = source.seek(SeekFrom::End(0)).map_err(damaged)?;
    let start = length.saturating_sub(COMMENT_BYTES + END_BYTES as u64);
    let mut tail = Vec::new();
    source.seek(SeekFrom::Start(start)).and_then(|_| source.read_to_end(&mut tail)).map_err(damaged)?;
    let at = memchr::memmem::rfind(&tail, &END).ok_or_else(|| refused("this is no zip archive"))?;
    let comment = number(&tail, at + 20, 2).map(|length| at as u64 + END_BYTES as u64 + length);
    if comment != Some(tail.len() as u64) {
        return Err(refused("the archive does not end where its file does"));
    }
    let few = number(&tail, at + 10, 2).unwrap_or_default();
    if few != 0xffff {
        return Ok(few);
    }
    let locator = at.checked_sub(20).and_then(|at| tail.get(at..)).filter(|locator| locator.starts_with(&WIDE_END_LOCATOR));
    let Some(locator) = locator else { return Ok(few) };
    let place = number(locator, 8, 8).unwrap_or_default();
    let mut wide = [0; 56];
    source.seek(SeekFrom::Start(place)).and_then(|_| source.read_exact(&mut wide)).map_err(damaged)?;
    if wide.starts_with(&WIDE_END) { Ok(number(&wide, 32, 8).unwrap_or_default()) } else { Err(refused("this is no zip archive")) }
}

/// A number of so many bytes, the lowest first.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Whether a name means the same below every folder: relative, plain, without steps up.
fn is_below(name: &str) -> bool {
    let plain = !name.chars().any(|c| c.is_control() || c == '\\' || c == ':');
    let inner = name.strip_suffix('/').unwrap_or(name);
    plain && !inner.is_empty() && name.len() <= 4096 && inner.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn refused(why: &'static str) -> Error {
    Error::new(Kind::Unprocessable, Subject::File).saying(why)
}

fn broken(error: &ZipError) -> Error {
    refused("the archive cannot be read").because(error.to_string())
}

fn damaged(error: std::io::Error) -> Error {
    refused("the archive is damaged").because(error)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;

    use super::*;

    const LIMITS: Limits = Limits { entries: 10, unpacked_bytes: 10_000 };

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// Everything that is looked at of what is published.
    fn take(bytes: &[u8]) -> Result<Vec<String>> {
        let mut archive = Archive::open(Cursor::new(bytes), &LIMITS)?;
        archive.check_layout()?;
        archive.prove()?;
        Ok(archive.names().to_vec())
    }

    #[test]
    fn a_sound_archive_is_read() {
        let bytes = archive(&[("a.txt", b"one"), ("b/c.txt", &[7; 500])]);
        assert_eq!(take(&bytes).unwrap(), ["a.txt", "b/c.txt"]);
        let mut archive = Archive::open(Cursor::new(&bytes), &LIMITS).unwrap();
        assert_eq!(archive.read("a.txt", 3).unwrap(), b"one");
        assert_eq!(archive.read("a.txt", 2).unwrap_err().kind(), Kind::TooLarge);
        assert!(archive.read("nothing", 3).is_err());
    }

    #[test]
    fn what_two_readers_would_see_differently_is_refused() {
        let sound = archive(&[("a.txt", b"one"), ("b.txt", b"two")]);
        let with = |before: &[u8], after: &[u8]| [before, &sound, after].concat();
        let renamed = |directory: bool| {
            let mut bytes = sound.clone();
            let places: Vec<usize> = memchr::memmem::find_iter(&bytes, b"a.txt").collect();
            bytes[places[usize::from(directory)]] = b'c';
            bytes
        };
        let twice = {
            let mut bytes = sound.clone();
            for at in memchr::memmem::find_iter(&sound, b"b.txt") {
                bytes[at] = b'A';
            }
            bytes
        };
        let commented = {
            let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
            writer.start_file("a", SimpleFileOptions::default()).unwrap();
            writer.set_comment(String::from_utf8([&b"x"[..], &END, &[0; 18]].concat()).unwrap()).unwrap();
            writer.finish().unwrap().into_inner()
        };
        for (index, wrong) in
            [with(b"MZ", b""), with(b"", b"x"), with(b"", &sound), renamed(true), renamed(false), twice, commented].into_iter().enumerate()
        {
            assert!(take(&wrong).is_err(), "{index}");
        }
    }

    #[test]
    fn names_stay_below_the_folder() {
        for wrong in ["../a", "/a", "a/../../b", "C:/a", "a\\b", "a//b", ".", "a/.", "a\nb", "a\0b"] {
            assert!(take(&archive(&[(wrong, b"x")])).is_err(), "{wrong}");
            assert!(!is_below(wrong));
        }
        for right in ["a", "a/", "a.b/c-d/e", "..a", "a%20b", "\u{e9}"] {
            assert!(is_below(right), "{right}");
        }
    }

    #[test]
    fn limits_hold_and_damage_is_found() {
        let many: Vec<String> = (0..11).map(|index| index.to_string()).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert_eq!(take(&archive(&many)).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(take(&archive(&[("zeros", &[0; 10_001])])).unwrap_err().kind(), Kind::TooLarge);
        let noise: Vec<u8> = (0..2000_u32).map(|index| ((index * 7919) >> 3).to_le_bytes()[0]).collect();
        let sound = archive(&[("noise", &noise)]);
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        assert!(take(&flipped).is_err());
        for cut in 0..sound.len() {
            assert!(take(&sound[..cut]).is_err(), "cut at {cut}");
        }
        for nothing in [&b""[..], b"<html>", &[0; 100], &END] {
            assert!(take(nothing).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0_usize..400, value: u8, cut in 0_usize..400) {
            let mut bytes = archive(&[("a.txt", b"one"), ("b/c.txt", &[7; 50])]);
            let length = bytes.len();
            bytes[at % length] = value;
            let _ = take(&bytes);
            bytes.truncate(cut);
            let _ = take(&bytes);
        }
    }
}
