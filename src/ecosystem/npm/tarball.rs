//! Reads what the server needs from a package's tarball: the manifest, the readme, the counts.
//!
//! Nothing is unpacked to disk. The archive is listed through limits on entries and
//! unpacked bytes, so that a small upload cannot cost much, and refused when it
//! holds what no packing tool writes and an installer could be hurt by: links,
//! devices, paths that climb, a second manifest.

use std::cell::RefCell;
use std::io::Read;

use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use super::hosted::README_LIMIT_BYTES;
use crate::error::{Error, Kind, Result, Subject};

/// The most that is unpacked in one go.
const UNPACKED_AT_ONCE_BYTES: u64 = 16 << 10;

/// Bounds of reading an archive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most files and folders.
    pub entries: u64,
    /// Most unpacked bytes, headers included.
    pub unpacked_bytes: u64,
    /// Largest `package.json`, in bytes.
    pub manifest_bytes: u64,
}

/// The most that an archive of `packed_bytes` unpacks to if it is what it looks like: real
/// packages stay far below a hundredfold, bombs reach a thousandfold. Small ones are let be.
#[must_use]
pub fn plausible_bytes(packed_bytes: u64) -> u64 {
    packed_bytes.saturating_mul(100).max(64 << 20)
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The bytes of `package.json`.
    pub manifest: Vec<u8>,
    /// The readme's file name and text, cut to what is shown.
    pub readme: Option<(String, String)>,
    /// Number of files.
    pub files: u64,
    /// Their sizes added up, in bytes.
    pub unpacked_bytes: u64,
}

/// Lists the archive.
///
/// # Errors
/// [`Kind::Unprocessable`] when it is not a sound package archive,
/// [`Kind::TooLarge`] when a limit is passed.
pub fn inspect(archive: impl Read, limits: &Limits) -> Result<Contents> {
    let counted = Bounded { inner: GzDecoder::new(std::io::BufReader::new(archive)), left: limits.unpacked_bytes };
    let (contents, mut rest) = list(counted, limits)?;
    // The gzip trailer is checked only when the stream is read to its end.
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| broken(error, limits))?;
    let mut after = rest.inner.into_inner();
    if after.read(&mut [0]).map_err(|error| broken(error, limits))? > 0 {
        return Err(unsound("bytes follow the archive"));
    }
    Ok(contents)
}

/// As [`inspect`], of an archive in memory. A small sound one is unpacked in one go, by an inflater that is kept: to make
/// one took half of the time of looking at a tarball of 700 bytes.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_bytes(archive: &[u8], limits: &Limits) -> Result<Contents> {
    match unpacked(archive, limits.unpacked_bytes.min(UNPACKED_AT_ONCE_BYTES)) {
        Some(unpacked) => Ok(list(&unpacked[..], limits)?.0),
        None => inspect(archive, limits),
    }
}

/// What a gzip file of one plain member holds (RFC 1952), if it is whole, nothing follows it, and it is not too long.
fn unpacked(archive: &[u8], limit: u64) -> Option<Vec<u8>> {
    thread_local! {
        static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
    }
    // Magic, deflate, no flags.
    let body = archive.strip_prefix(&[0x1f, 0x8b, 8, 0])?.get(6..)?;
    let (body, trailer) = body.split_last_chunk::<8>()?;
    let mut unpacked = Vec::with_capacity(usize::try_from(limit).ok()?);
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let ended = matches!(inflater.decompress_vec(body, &mut unpacked, FlushDecompress::Finish), Ok(Status::StreamEnd));
        (ended && inflater.total_in() == body.len() as u64).then_some(())
    })?;
    let sums = [libdeflater::crc32(&unpacked), u32::try_from(unpacked.len()).ok()?];
    (*trailer == sums.map(u32::to_le_bytes).as_flattened()).then_some(unpacked)
}

/// Lists a tar archive; gives also what was not read of it.
fn list<R: Read>(archive: R, limits: &Limits) -> Result<(Contents, R)> {
    let mut archive = tar::Archive::new(archive);
    let mut contents = Contents { manifest: Vec::new(), readme: None, files: 0, unpacked_bytes: 0 };
    let mut manifests = 0;
    let entries = archive.entries().map_err(|error| broken(error, limits))?;
    for (index, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| broken(error, limits))?;
        if index as u64 >= limits.entries {
            return Err(too_large(format!("the archive holds more than {} entries", limits.entries)));
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            return Err(unsound("the archive holds a link, a device or another entry that is not a file"));
        }
        let path = entry.path_bytes().into_owned();
        let name = inner_name(&path)?;
        contents.files += 1;
        contents.unpacked_bytes += entry.size();
        if name.eq_ignore_ascii_case("package.json") {
            manifests += 1;
            if name != "package.json" || manifests > 1 {
                return Err(unsound("the archive holds more than one package.json"));
            }
            if entry.size() > limits.manifest_bytes {
                return Err(too_large(format!("package.json is larger than {} bytes", limits.manifest_bytes)));
            }
            entry.read_to_end(&mut contents.manifest).map_err(|error| broken(error, limits))?;
        } else if contents.readme.is_none() && is_readme(&name) {
            let mut text = Vec::new();
            entry.by_ref().take(README_LIMIT_BYTES as u64).read_to_end(&mut text).map_err(|error| broken(error, limits))?;
            contents.readme = Some((name, String::from_utf8_lossy(&text).into_owned()));
        }
    }
    if manifests == 0 {
        return Err(unsound("the archive holds no package.json"));
    }
    Ok((contents, archive.into_inner()))
}

/// The path without its first component, which packing tools name as they like.
fn inner_name(path: &[u8]) -> Result<String> {
    let climbs = || unsound("the archive holds a path that leads out of it");
    let text = std::str::from_utf8(path).map_err(|_| unsound("the archive holds a path that is not UTF-8"))?;
    if text.len() > 4096 || text.starts_with('/') || text.contains('\\') || text.chars().any(char::is_control) {
        return Err(climbs());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || parts.first().is_some_and(|part| part.ends_with(':')) {
        return Err(climbs());
    }
    Ok(if parts.len() > 1 { parts[1..].join("/") } else { parts.concat() })
}

fn is_readme(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !lower.contains('/') && (lower == "readme" || lower.starts_with("readme."))
}

/// A reader that fails once more than its share was read.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(out)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| std::io::Error::other(PastLimit))?;
        Ok(read)
    }
}

#[derive(Debug)]
struct PastLimit;

impl std::fmt::Display for PastLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the archive unpacks to more than its limit")
    }
}

impl std::error::Error for PastLimit {}

fn broken(error: std::io::Error, limits: &Limits) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(inner) = cause {
        if inner.is::<PastLimit>() {
            return too_large(format!("the archive unpacks to more than {} bytes", limits.unpacked_bytes));
        }
        // tar wraps the reader's error in one of its own, inside an io::Error.
        cause = inner.downcast_ref::<std::io::Error>().and_then(|inner| inner.get_ref().map(|inner| inner as _)).or_else(|| inner.source());
    }
    unsound("the tarball is not a sound gzipped tar archive").because(error)
}

fn unsound(message: &'static str) -> Error {
    Error::new(Kind::Unprocessable, Subject::File).saying(message)
}

fn too_large(message: String) -> Error {
    Error::new(Kind::TooLarge, Subject::File).saying(message)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LIMITS: Limits = Limits { entries: 20, unpacked_bytes: 1 << 20, manifest_bytes: 1 << 10 };

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        gzip(&builder.into_inner().unwrap())
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    fn check(bytes: &[u8]) -> Result<Contents> {
        inspect(bytes, &LIMITS)
    }

    #[test]
    fn finds_the_manifest_whatever_the_folder_is_called() {
        let found =
            check(&archive(&[("any/package.json", FILE, b"{}"), ("any/README.md", FILE, b"# Hi"), ("any/lib/readme.md", FILE, b"no")]))
                .unwrap();
        assert_eq!(found.manifest, b"{}");
        assert_eq!(found.readme, Some(("README.md".into(), "# Hi".into())));
        assert_eq!((found.files, found.unpacked_bytes), (3, 8));
    }

    #[test]
    fn refuses_what_could_hurt() {
        let manifest = ("p/package.json", FILE, &b"{}"[..]);
        let unsound =
            |entries: &[(&str, tar::EntryType, &[u8])]| assert_eq!(check(&archive(entries)).unwrap_err().kind(), Kind::Unprocessable);
        unsound(&[manifest, ("p/link", tar::EntryType::Symlink, b"")]);
        unsound(&[manifest, ("p/hard", tar::EntryType::Link, b"")]);
        unsound(&[manifest, ("p/dev", tar::EntryType::Char, b"")]);
        unsound(&[manifest, ("p/fifo", tar::EntryType::Fifo, b"")]);
        unsound(&[manifest, ("p/../../x", FILE, b"")]);
        unsound(&[manifest, ("/etc/x", FILE, b"")]);
        unsound(&[manifest, ("p\\..\\x", FILE, b"")]);
        unsound(&[manifest, ("C:/x", FILE, b"")]);
        unsound(&[manifest, ("q/package.json", FILE, b"{}")]);
        unsound(&[manifest, ("p/Package.json", FILE, b"{}")]);
        unsound(&[("p/index.js", FILE, b"")]);
        unsound(&[]);
    }

    #[test]
    fn refuses_bombs_and_floods() {
        let manifest = ("p/package.json", FILE, &b"{}"[..]);
        let zeros = vec![0; 2 << 20];
        assert_eq!(check(&archive(&[manifest, ("p/bomb", FILE, &zeros)])).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(check(&archive(&[("p/bomb", FILE, &zeros), manifest])).unwrap_err().kind(), Kind::TooLarge);
        let many = vec![("p/x", FILE, &b""[..]); 30];
        assert_eq!(check(&archive(&many)).unwrap_err().kind(), Kind::TooLarge);
        let long = vec![b' '; 2000];
        assert_eq!(check(&archive(&[("p/package.json", FILE, &long)])).unwrap_err().kind(), Kind::TooLarge);
    }

    #[test]
    fn refuses_truncation_anywhere_and_trailing_bytes() {
        let whole = archive(&[("p/package.json", FILE, b"{}"), ("p/a.js", FILE, b"let a = 1;")]);
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err(), "{length}");
        }
        let trailing = [whole.as_slice(), b"x"].concat();
        assert!(check(&trailing).is_err());
        assert!(check(b"not gzip").is_err());
        assert!(check(&gzip(b"not tar")).is_err());
    }
}
