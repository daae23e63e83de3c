//! Reads a `.nupkg`: a zip with one specification at its root.
//!
//! The package's bytes are kept as they came; signatures and lock files depend on them. What
//! is shown of it (readme, icon, licence) is read out of it once, when it is published.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use super::nuspec::{Nuspec, lower};
use crate::archive::{Archive, Limits, Source};
use crate::error::{Error, Kind, Result, Subject};
use crate::name::PackageName;

use super::route::{self, Kept};
use super::version::Version;

/// Largest icon, readme and licence, in bytes.
const SHOWN_BYTES: u64 = 1 << 20;

/// What is read out of a package.
#[derive(Debug)]
pub struct Package {
    /// What its specification says.
    pub nuspec: Nuspec,
    /// Files of it that are served on their own: the specification itself, and what that names.
    pub shown: Vec<(Kept, Vec<u8>)>,
}

/// Reads a package that is published.
///
/// # Errors
/// `Unprocessable` when it is no sound package, `TooLarge` past a limit; `nuspec_bytes` bounds the specification.
pub fn inspect(source: impl Read + Seek, limits: &Limits, nuspec_bytes: u64) -> Result<Package> {
    let mut archive = Archive::open(source, limits)?;
    archive.check_layout()?;
    let entry = nuspec_entry(archive.names())?.to_owned();
    let bytes = archive.read(&entry, nuspec_bytes)?;
    let mut nuspec = Nuspec::parse(&bytes)?;
    nuspec.check_new()?;
    nuspec.frameworks = frameworks(archive.names());
    let mut shown = vec![(Kept::Nuspec, bytes)];
    let named = [(Kept::Icon, &nuspec.icon), (Kept::Readme, &nuspec.readme), (Kept::License, &nuspec.license_file)];
    for (kept, file) in named {
        let Some(file) = file else { continue };
        let entry = find(archive.names(), file).map(str::to_owned);
        let entry = entry.ok_or_else(|| refused(format!("the {} that the nuspec names is not in the package", kept.ending())))?;
        shown.push((kept, archive.read(&entry, SHOWN_BYTES)?));
    }
    if let Some((_, icon)) = shown.iter().find(|(kept, _)| *kept == Kept::Icon)
        && image_type(icon).is_none()
    {
        return Err(refused("the icon is neither PNG nor JPEG"));
    }
    Ok(Package { nuspec, shown })
}

/// Proves that a file of an upstream is a whole package, and this one.
///
/// # Errors
/// `Unprocessable` when it is not.
pub fn prove(source: &mut dyn Source, name: &PackageName, version: &Version, limits: &Limits) -> Result<()> {
    let mut archive = Archive::open(source, limits)?;
    let entry = nuspec_entry(archive.names())?.to_owned();
    let nuspec = archive.read(&entry, SHOWN_BYTES)?;
    is_of(&nuspec, name, version)?;
    archive.prove()
}

/// Proves that a specification is that of a package.
///
/// # Errors
/// `Unprocessable` when it is not.
pub fn is_of(nuspec: &[u8], name: &PackageName, version: &Version) -> Result<()> {
    let nuspec = Nuspec::parse(nuspec)?;
    let same = lower(&nuspec.id) == name.as_str() && Version::parse(&nuspec.version).is_some_and(|said| said.key() == version.key());
    if same { Ok(()) } else { Err(refused(format!("this is {} {}", nuspec.id, nuspec.version))) }
}

/// Proves that a file beside a package is what it should be.
///
/// # Errors
/// `Unprocessable` when it is not.
pub fn prove_file(kept: Kept, source: &mut dyn Source, name: &PackageName, version: &Version, limits: &Limits) -> Result<()> {
    if kept == Kept::Package {
        return prove(source, name, version, limits);
    }
    let mut bytes = Vec::new();
    source.take(SHOWN_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::internal(Subject::File, error))?;
    if bytes.len() as u64 > SHOWN_BYTES {
        return Err(refused("it is too large"));
    }
    let sound = match kept {
        Kept::Nuspec => return is_of(&bytes, name, version),
        Kept::Icon => image_type(&bytes).is_some(),
        Kept::Readme | Kept::License => std::str::from_utf8(&bytes).is_ok_and(|text| !looks_like_a_page(text)),
        Kept::Package | Kept::PackageHash | Kept::Symbols => false,
    };
    if sound { Ok(()) } else { Err(refused("it is not what its name says")) }
}

/// Whether a text is a page of a proxy or a portal rather than words.
fn looks_like_a_page(text: &str) -> bool {
    let start = text.trim_start().get(..15).unwrap_or_default().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// The specification's entry: the one at the root.
fn nuspec_entry(names: &[String]) -> Result<&str> {
    let is_nuspec = |name: &&String| !name.contains('/') && lower(name).ends_with(".nuspec");
    let mut found = names.iter().filter(is_nuspec);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(refused("the package has no nuspec at its root")),
        (Some(_), Some(_)) => Err(refused("the package has two nuspecs at its root")),
    }
}

/// The entry that a nuspec means: with slashes of either kind, and as the entry's name may be escaped.
fn find<'a>(names: &'a [String], file: &str) -> Option<&'a str> {
    let wanted = file.replace('\\', "/");
    let wanted = wanted.trim_start_matches("./").trim_start_matches('/');
    let decoded =
        |name: &str| percent_encoding::percent_decode_str(name).decode_utf8().map(std::borrow::Cow::into_owned).unwrap_or_default();
    let plain = names.iter().find(|name| *name == wanted || decoded(name) == wanted);
    plain.or_else(|| names.iter().find(|name| lower(&decoded(name)) == lower(wanted))).map(String::as_str)
}

/// The target frameworks that a package has files for, by its folders.
fn frameworks(names: &[String]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for name in names {
        let parts: Vec<&str> = name.split('/').collect();
        let framework = match parts.as_slice() {
            ["lib" | "ref" | "build" | "buildTransitive" | "tools", framework, _, ..]
            | ["contentFiles", _, framework, _, ..]
            | ["runtimes", _, "lib", framework, _, ..] => Some(framework),
            _ => None,
        };
        found.extend(framework.filter(|framework| framework.len() <= 64).map(|framework| framework.to_lowercase()));
    }
    found.into_iter().take(200).collect()
}

/// The media type of an icon.
#[must_use]
pub fn image_type(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        Some("image/jpeg")
    } else {
        None
    }
}

/// The media type of a file.
#[must_use]
pub const fn media_type(kept: Kept) -> &'static str {
    match kept {
        Kept::Package | Kept::Symbols => "application/octet-stream",
        Kept::PackageHash | Kept::License => "text/plain; charset=utf-8",
        Kept::Nuspec => "application/xml",
        // Which of the two it is the browser sees; nothing else was let in.
        Kept::Icon => "image/png",
        Kept::Readme => "text/markdown; charset=utf-8",
    }
}

/// The name, version and kind of a file that an upstream's index speaks of.
#[must_use]
pub fn of_file(name: &PackageName, file: &str) -> Option<(Version, Kept)> {
    let (version, kept) = route::of_file(name, file)?;
    Some((Version::parse(version)?, kept))
}

fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Unprocessable, Subject::File).saying(why)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::super::nuspec::tests::XML;
    use super::*;

    type Entries<'a> = &'a [(&'a str, &'a [u8])];

    const LIMITS: Limits = Limits { entries: 20, unpacked_bytes: 4 << 20 };
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    fn zip(entries: Entries<'_>) -> Cursor<Vec<u8>> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(entries: Entries<'_>) -> Result<Package> {
        inspect(zip(entries), &LIMITS, 10_000)
    }

    #[test]
    fn reads_what_is_shown_of_a_package() {
        let package = read(&[
            ("Acme.Tool.nuspec", XML.as_bytes()),
            ("images/icon.png", PNG),
            ("docs/readme.md", b"# hello"),
            ("lib/netstandard2.0/Tool.dll", b"x"),
            ("lib/net48/Tool.dll", b"x"),
            ("tools/net8.0/any/x", b"x"),
        ])
        .unwrap();
        assert_eq!(package.nuspec.frameworks, ["net48", "net8.0", "netstandard2.0"]);
        let shown: Vec<(Kept, &[u8])> = package.shown.iter().map(|(kept, bytes)| (*kept, bytes.as_slice())).collect();
        assert_eq!(shown, [(Kept::Nuspec, XML.as_bytes()), (Kept::Icon, PNG), (Kept::Readme, b"# hello")]);
    }

    #[test]
    fn what_is_no_package_is_refused_in_words() {
        let plain = b"<package><metadata><id>a</id><version>1.0</version></metadata></package>".as_slice();
        let licensed = b"<package><metadata><id>a</id><version>1.0</version><license type='file'>L.txt</license></metadata></package>";
        let large = vec![b'x'; (1 << 20) + 1];
        let bomb = vec![0; (4 << 20) + 1];
        let cases: [(Entries<'_>, Kind); 10] = [
            (&[("x", b"")], Kind::Unprocessable),
            (&[("a.nuspec", plain), ("B.NUSPEC", plain)], Kind::Unprocessable),
            (&[("sub/a.nuspec", plain)], Kind::Unprocessable),
            (&[("a.nuspec", plain), ("../x", b"")], Kind::Unprocessable),
            (&[("a.nuspec", plain), ("X", b""), ("x", b"")], Kind::Unprocessable),
            (&[("a.nuspec", XML.as_bytes()), ("docs/README.md", b"")], Kind::Unprocessable),
            (&[("a.nuspec", XML.as_bytes()), ("docs/README.md", b""), ("images/icon.png", b"<svg/>")], Kind::Unprocessable),
            (&[("a.nuspec", licensed), ("L.txt", &large)], Kind::TooLarge),
            (&[("a.nuspec", plain), ("zeros", &bomb)], Kind::TooLarge),
            (&[("a.nuspec", &large)], Kind::TooLarge),
        ];
        for (index, (entries, kind)) in cases.into_iter().enumerate() {
            assert_eq!(read(entries).map(drop).map_err(|error| error.kind()), Err(kind), "{index}");
        }
        assert!(read(&[("a.nuspec", plain)]).is_ok());
    }

    #[test]
    fn an_upstreams_file_is_proved_to_be_what_was_asked_for() {
        let plain = b"<package><metadata><id>A</id><version>1.0.0.0</version></metadata></package>".as_slice();
        let (name, version) = (route::id("a").unwrap(), Version::parse("1.0.0").unwrap());
        let check = |kept, bytes: &[u8], version: &Version| prove_file(kept, &mut Cursor::new(bytes), &name, version, &LIMITS).is_ok();
        // Names that are refused in what is published here are the upstream's own affair.
        let package = zip(&[("a.nuspec", plain), ("lib\\x.dll", b"x")]).into_inner();
        assert!(check(Kept::Package, &package, &version));
        assert!(!check(Kept::Package, &package, &Version::parse("2.0").unwrap()));
        assert!(!check(Kept::Package, b"<html>log in</html>", &version) && !check(Kept::Package, b"", &version));
        let mut flipped = package.clone();
        let at = memchr::memmem::find(&flipped, b"lib\\x.dll").unwrap() + "lib\\x.dll".len();
        flipped[at] ^= 1;
        assert!(!check(Kept::Package, &flipped, &version));
        assert!(check(Kept::Nuspec, plain, &version) && !check(Kept::Nuspec, b"<html/>", &version));
        assert!(check(Kept::Icon, PNG, &version) && !check(Kept::Icon, b"<html/>", &version));
        assert!(check(Kept::Readme, b"# <b>x</b>", &version) && !check(Kept::Readme, b"\n<!DOCTYPE html><p>", &version));
    }
}
