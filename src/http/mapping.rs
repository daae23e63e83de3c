//! A file as memory, so that its bytes can be passed on as [`Bytes`] without being read.
//!
//! Large files leave a plain connection by `sendfile`, which needs a file and an offset, while hyper passes on slices of
//! memory. A slice of a mapping is both: the connection finds file and offset by its address (`server::sendfile`). Whoever
//! does not know that and copies it gets the right bytes all the same.
//!
//! # Proof of the `unsafe`
//!
//! [`Mmap::map`] is unsafe because memory behind a `&[u8]` must not change, and because reading past the end of a file that was
//! cut short after it was mapped kills the process (SIGBUS). Both need somebody who changes the file.
//!
//! - Of ours nobody does. Only blobs are mapped. `blob::disk` opens them to read, and writes to a file only under its name in
//!   `tmp`, before it becomes a blob; removal and quarantine rename and unlink, which leaves what is mapped alone.
//! - Of others, only who may write in the data folder could. Were a blob cut short by hand, the server would live on as long as
//!   the mapping is not read, and it is not: `sendfile` reads from the file's descriptor, where the end of the file is an error
//!   in words. Bodies that must be copied (TLS, HTTP/2) are read from the descriptor too and are not mapped at all.
#![expect(unsafe_code, reason = "mapping a file is unsafe; the proof is above")]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

/// Maps the first `length` bytes of a file that nobody changes any more.
///
/// # Errors
/// When the system refuses: too many mappings, or a file system that has none.
pub(super) fn map(file: &File, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    // SAFETY: the file is a blob, which nobody changes; see the module's text.
    let mapping: Mmap = unsafe { MmapOptions::new().len(length).map(file) }?;
    Ok(Bytes::from_owner(mapping))
}
