//! Reads a `.gem`: a plain tar of the metadata, the files, their checksums and signatures.
//!
//! Nothing is unpacked to disk, and of the files only the checksum is looked at. An archive
//! with a part missing, doubled or unknown is refused, as is one whose parts are not what
//! its own checksums say. Source: the layout that `Gem::Package` writes.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;

use super::gemspec::Spec;
use super::yaml::{Node, refused};
use crate::digest::{Algorithm, Digests, Hasher};
use crate::error::{Error, Kind, Result, Subject};

const METADATA: &str = "metadata.gz";
const DATA: &str = "data.tar.gz";
const CHECKSUMS: &str = "checksums.yaml.gz";

/// Reads a gem's specification. `limit_bytes` bounds its metadata and its checksums, unpacked.
///
/// # Errors
/// `Unprocessable` when it is no sound gem, `TooLarge` past the limit.
pub fn inspect(gem: impl Read, limit_bytes: u64) -> Result<Spec> {
    let mut archive = tar::Archive::new(gem);
    let mut parts: BTreeMap<String, Digests> = BTreeMap::new();
    let (mut metadata, mut checksums) = (None, None);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let known = [METADATA, DATA, CHECKSUMS];
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_contiguous()) || !known.contains(&name.trim_end_matches(".sig")) {
            return Err(refused("the gem holds something that no gem has"));
        }
        let mut hasher = Hasher::new(&[Algorithm::Sha512, Algorithm::Sha1]);
        let unpacked = match name.as_str() {
            METADATA => Some(&mut metadata),
            CHECKSUMS => Some(&mut checksums),
            _ => None,
        };
        match unpacked {
            Some(slot) => {
                let packed = read(&mut entry, limit_bytes)?;
                hasher.update(&packed);
                *slot = Some(read(&mut GzDecoder::new(&packed[..]), limit_bytes)?);
            }
            None => hash(&mut entry, &mut hasher)?,
        }
        if parts.insert(name, hasher.finish()).is_some() {
            return Err(refused("the gem holds a part twice"));
        }
    }
    if !parts.contains_key(DATA) {
        return Err(refused("the gem has no data.tar.gz"));
    }
    if let Some(checksums) = checksums {
        check(&checksums, &parts)?;
    }
    Spec::parse(&metadata.ok_or_else(|| refused("the gem has no metadata.gz"))?)
}

fn read(source: &mut impl Read, limit_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::new(Kind::TooLarge, Subject::File).saying(format!("the gem's metadata is larger than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

fn hash(source: &mut impl Read, hasher: &mut Hasher) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match source.read(&mut buffer).map_err(broken)? {
            0 => return Ok(()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Compares the parts with what the gem itself says of them.
fn check(checksums: &[u8], parts: &BTreeMap<String, Digests>) -> Result<()> {
    let text = String::from_utf8_lossy(checksums);
    let node = Node::parse(&text)?;
    for (name, algorithm) in [("SHA1", Algorithm::Sha1), ("SHA256", Algorithm::Sha256), ("SHA512", Algorithm::Sha512)] {
        let Some(Node::Map(said)) = node.get(name) else { continue };
        for (part, hex) in said {
            let digest = parts.get(part).and_then(|digests| digests.get(algorithm));
            let same = hex.text().is_some_and(|hex| digest.is_some_and(|digest| digest.hex().eq_ignore_ascii_case(hex)));
            if !same {
                return Err(refused("the gem's parts are not what its checksums say"));
            }
        }
    }
    Ok(())
}

fn broken(error: std::io::Error) -> Error {
    refused("the gem is no archive that can be read").because(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn gem(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in parts {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o444);
            builder.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn checksums(metadata: &[u8]) -> Vec<u8> {
        let digest = crate::digest::Digest::sha256(metadata).hex();
        gzip(format!("---\nSHA256:\n  metadata.gz: {digest}\n").as_bytes())
    }

    #[test]
    fn reads_the_metadata_of_a_sound_gem() {
        let metadata = gzip(b"name: a\nversion: 1.0\n");
        let sound =
            gem(&[(METADATA, metadata.clone()), (DATA, b"any".to_vec()), (CHECKSUMS, checksums(&metadata)), ("metadata.gz.sig", vec![1])]);
        assert_eq!(inspect(&sound[..], 1000).unwrap().full_name(), "a-1.0");
        assert_eq!(inspect(&gem(&[(METADATA, metadata), (DATA, Vec::new())])[..], 1000).unwrap().name, "a");
    }

    #[test]
    fn refuses_what_is_missing_doubled_unknown_or_wrong() {
        let metadata = || gzip(b"name: a\nversion: 1.0\n");
        let bomb = gzip(&vec![b' '; 100_000]);
        for (parts, kind) in [
            (vec![(METADATA, metadata())], Kind::Unprocessable),
            (vec![(DATA, Vec::new())], Kind::Unprocessable),
            (vec![(METADATA, metadata()), (METADATA, metadata()), (DATA, Vec::new())], Kind::Unprocessable),
            (vec![(METADATA, metadata()), (DATA, Vec::new()), ("evil", Vec::new())], Kind::Unprocessable),
            (vec![(METADATA, metadata()), (DATA, Vec::new()), (CHECKSUMS, checksums(b"other"))], Kind::Unprocessable),
            (vec![(METADATA, b"no gzip".to_vec()), (DATA, Vec::new())], Kind::Unprocessable),
            (vec![(METADATA, bomb), (DATA, Vec::new())], Kind::TooLarge),
        ] {
            assert_eq!(inspect(&gem(&parts)[..], 1000).map_err(|error| error.kind()), Err(kind), "{parts:?}");
        }
        for wrong in [&b""[..], b"no tar", &[0; 2000]] {
            assert!(inspect(wrong, 1000).is_err());
        }
        let whole = gem(&[(METADATA, metadata()), (DATA, vec![1; 3000])]);
        assert!(inspect(&whole[..2000], 1000).is_err(), "cut");
    }
}
