//! Finds in a plugin's jar what its goals are called by.
//!
//! Maven writes `META-INF/maven/plugin.xml` into the jar of every plugin; from it the
//! metadata of the plugin's group is made. Only that one entry is read, within limits.

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

use crate::xml::Element;

const DESCRIPTOR: &str = "META-INF/maven/plugin.xml";

/// Bounds of reading a jar.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Largest descriptor, in bytes.
    pub descriptor_bytes: u64,
}

/// What a plugin is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What stands before its goals.
    pub prefix: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// The descriptor in a jar; none when it is no plugin's, or no archive that can be read.
///
/// A jar that cannot be read is stored all the same: what it holds is its reader's affair.
#[must_use]
pub fn descriptor(jar: impl Read + Seek, limits: &Limits) -> Option<Descriptor> {
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(jar)).ok()?;
    if archive.len() as u64 > limits.entries {
        return None;
    }
    let entry = archive.by_name(DESCRIPTOR).ok()?;
    let mut bytes = Vec::new();
    entry.take(limits.descriptor_bytes + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > limits.descriptor_bytes {
        return None;
    }
    let plugin = Element::parse(&bytes).ok()?;
    let prefix = plugin.text_of("goalPrefix").filter(|prefix| prefix.len() <= 200)?.to_owned();
    let name = plugin.text_of("name").filter(|name| name.len() <= 1000).unwrap_or_default().to_owned();
    Some(Descriptor { prefix, name })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    const LIMITS: Limits = Limits { entries: 10, descriptor_bytes: 1000 };

    fn jar(entries: &[(&str, &[u8])]) -> Cursor<Vec<u8>> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn finds_what_goals_are_called_by() {
        let plugin = b"<plugin><name>Hello</name><goalPrefix>hello</goalPrefix></plugin>";
        let found = descriptor(jar(&[("A.class", b""), (DESCRIPTOR, plugin)]), &LIMITS).unwrap();
        assert_eq!((found.prefix.as_str(), found.name.as_str()), ("hello", "Hello"));
    }

    #[test]
    fn what_is_no_plugin_or_past_a_limit_has_none() {
        let large = [b'x'; 2000];
        let many: Vec<String> = (0..11).map(|index| format!("{index}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
        for jar in [jar(&[("A.class", b"")]), jar(&[(DESCRIPTOR, b"<plugin/>")]), jar(&[(DESCRIPTOR, &large)]), jar(&many)] {
            assert_eq!(descriptor(jar, &LIMITS), None);
        }
        assert_eq!(descriptor(Cursor::new(b"no archive"), &LIMITS), None);
    }
}
