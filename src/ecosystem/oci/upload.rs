//! Uploads of content: in one request, in a stream, or in chunks.
//!
//! `POST` opens a session, `PATCH` adds to it, `PUT` ends it with the digest that the whole
//! must have; `GET` says how far it is, `DELETE` gives it up. A chunk says where it belongs
//! and is refused elsewhere, which leaves the session as it was. Bytes go to disk as they
//! come and are hashed on the way. Source: OCI Distribution Specification 1.1, «Pushing blobs».

use super::{INFO, location, placed, publishing, refusal, route};
use crate::blob::{Holder, SessionWriter};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind, Result, Subject};
use crate::format::BaseUrl;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Upload, header, path, reply};
use crate::name::PackageName;
use crate::registry::publish::Publishing;
use crate::registry::{Call, Registry};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST /v2/NAME/blobs/uploads/`: opens a session, or takes or links content at once.
///
/// # Errors
/// With the right that is missing; [`Kind::Invalid`] for a malformed digest or other content than it says.
pub async fn open(call: Call<'_>, name: &PackageName) -> Result<Response> {
    let publishing = publishing(&call, name).await?;
    let query = |key| path::query(call.query, key);
    if let Some(digest) = query("mount") {
        let digest = route::parse_digest(&digest)?;
        let linked = match (query("from"), refusal::mounted_from(call.query)) {
            // A name that none can have.
            (Some(_), None) => false,
            (_, from) => call.registry.link_content(&publishing, &call.caller, from.as_ref(), &digest).await?,
        };
        if linked {
            return uploaded(&call.base, name, &digest);
        }
    }
    let digest = query("digest").map(|digest| route::parse_digest(&digest)).transpose()?;
    let hint = match query("digest-algorithm").as_deref() {
        None | Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(_) => return Err(Error::invalid(Subject::Digest, "a digest is made by sha256 or sha512")),
    };
    let algorithm = digest.map_or(hint, |digest| digest.algorithm());
    let holder = holder(&publishing);
    let limit_bytes = call.registry.config().file_limit_bytes;
    let id = call.registry.blobs().open_session(holder.clone(), &[algorithm], limit_bytes).await?;
    match digest {
        // Without a body there is a session to go on with, unless nothing is what the digest means.
        Some(digest) if call.body.length() != Some(0) || digest == Digest::sha256(&[]) => {
            let writer = call.registry.blobs().resume_session(&id, &holder).await?;
            complete(call, name, &publishing, writer, &digest).await
        }
        _ => progress(&call.base, name, &id, StatusCode::ACCEPTED, 0),
    }
}

/// `PATCH /v2/NAME/blobs/uploads/ID`: adds a chunk, or a stream.
///
/// # Errors
/// As [`open`]; [`Kind::NotFound`] when the caller has no such session.
pub async fn patch(call: Call<'_>, name: &PackageName, id: &str) -> Result<Response> {
    let publishing = publishing(&call, name).await?;
    let mut writer = call.registry.blobs().resume_session(id, &holder(&publishing)).await?;
    let Some(expected) = Chunk::read(call.headers, &call.body)?.starting_at(writer.written()) else {
        return misplaced(&call.base, name, id, writer.written());
    };
    let received = receive(call.registry, call.body, &mut writer, expected).await;
    // What came stays, also when the rest did not.
    let paused = writer.pause().await;
    received?;
    let written = paused?;
    progress(&call.base, name, id, StatusCode::ACCEPTED, written)
}

/// `PUT /v2/NAME/blobs/uploads/ID?digest=`: ends the session, with a last chunk or without.
///
/// # Errors
/// As [`patch`]; [`Kind::Invalid`] when the whole is not what the digest says.
pub async fn put(call: Call<'_>, name: &PackageName, id: &str) -> Result<Response> {
    let publishing = publishing(&call, name).await?;
    let digest = path::query(call.query, "digest");
    let digest = digest.ok_or_else(|| Error::invalid(Subject::Digest, "the upload is ended with ?digest="))?;
    let digest = route::parse_digest(&digest)?;
    let mut writer = call.registry.blobs().resume_session(id, &holder(&publishing)).await?;
    if Chunk::read(call.headers, &call.body)?.starting_at(writer.written()).is_none() {
        return misplaced(&call.base, name, id, writer.written());
    }
    writer.want(digest.algorithm());
    complete(call, name, &publishing, writer, &digest).await
}

/// `GET /v2/NAME/blobs/uploads/ID`: how far it is.
///
/// # Errors
/// As [`patch`].
pub async fn status(call: &Call<'_>, name: &PackageName, id: &str) -> Result<Response> {
    let publishing = publishing(call, name).await?;
    let written = call.registry.blobs().session_size(id, &holder(&publishing))?;
    progress(&call.base, name, id, StatusCode::NO_CONTENT, written)
}

/// `DELETE /v2/NAME/blobs/uploads/ID`: gives it up.
///
/// # Errors
/// As [`patch`].
pub async fn cancel(call: &Call<'_>, name: &PackageName, id: &str) -> Result<Response> {
    let publishing = publishing(call, name).await?;
    call.registry.blobs().cancel_session(id, &holder(&publishing))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Takes the rest of the body and keeps the whole, if it is what its digest says.
async fn complete(
    call: Call<'_>,
    name: &PackageName,
    publishing: &Publishing,
    mut writer: SessionWriter,
    digest: &Digest,
) -> Result<Response> {
    let expected = Chunk::read(call.headers, &call.body)?.length;
    if let Err(error) = receive(call.registry, call.body, &mut writer, expected).await {
        // The first error is the one to tell.
        let _ = writer.pause().await;
        return Err(error);
    }
    let staged = writer.finish().await?;
    call.registry.keep_content(publishing, staged, digest).await?;
    uploaded(&call.base, name, digest)
}

/// Moves a body into a session; `expected` is how many bytes it should have, if that was said.
async fn receive(registry: &Registry, mut body: Upload, writer: &mut SessionWriter, expected: Option<u64>) -> Result<()> {
    body.check_length(registry.config().file_limit_bytes)?;
    let mut received = 0;
    // A body that breaks off is the upload's trouble, and the session's to go on from.
    let broken = |error: Error| match error.kind() {
        Kind::Invalid => Error::invalid(Subject::Upload, "the upload broke off").because(error),
        _ => error,
    };
    while let Some(chunk) = body.chunk().await.map_err(broken)? {
        received += chunk.len() as u64;
        if expected.is_some_and(|expected| received > expected) {
            return Err(wrong_length());
        }
        writer.write(chunk).await?;
    }
    if expected.is_some_and(|expected| received != expected) { Err(wrong_length()) } else { Ok(()) }
}

fn wrong_length() -> Error {
    Error::invalid(Subject::File, "the body has another length than the headers say")
}

/// What a request says about the bytes that it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    /// Where they belong; without it they follow what is there.
    start: Option<u64>,
    /// How many there are, if that is said.
    length: Option<u64>,
}

impl Chunk {
    /// Reads `Content-Range: FIRST-LAST`, which some write like an answer's: `bytes FIRST-LAST/*`.
    fn read(headers: &HeaderMap, body: &Upload) -> Result<Self> {
        let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(Self { start: None, length: body.length() }) };
        let range = value.to_str().ok().and_then(range).ok_or_else(|| Error::invalid(Subject::Upload, "Content-Range is FIRST-LAST"))?;
        let length = range.1 - range.0 + 1;
        if body.length().is_some_and(|announced| announced != length) {
            return Err(wrong_length());
        }
        Ok(Self { start: Some(range.0), length: Some(length) })
    }

    /// How many bytes there are, if they belong where a session is; `None` if they do not.
    #[expect(clippy::option_option, reason = "whether they belong there, and how many there are, are two questions")]
    fn starting_at(self, written: u64) -> Option<Option<u64>> {
        (self.start.is_none_or(|start| start == written)).then_some(self.length)
    }
}

fn range(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let (first, last) = text.split('/').next()?.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    // The last byte that can be has a successor.
    (first <= last && last < u64::MAX).then_some((first, last))
}

fn holder(publishing: &Publishing) -> Holder {
    Holder { user: publishing.publisher, place: format!("{} {}", INFO.name, publishing.grant.name()) }
}

/// The answer that content is there.
fn uploaded(base: &BaseUrl, name: &PackageName, digest: &Digest) -> Result<Response> {
    placed(StatusCode::CREATED, location(base, &format!("/{name}/blobs/{digest}"))?, digest)
}

/// The answer that a session is there and how far it is.
fn progress(base: &BaseUrl, name: &PackageName, id: &str, status: StatusCode, written: u64) -> Result<Response> {
    let mut response = reply::empty(status);
    let uuid = HeaderValue::try_from(id).map_err(|error| Error::internal(Subject::Upload, error))?;
    // Of no bytes the range is `0-0`, as every registry says it; the specification has no other word.
    let range =
        HeaderValue::try_from(format!("0-{}", written.saturating_sub(1))).map_err(|error| Error::internal(Subject::Upload, error))?;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location(base, &format!("/{name}/blobs/uploads/{id}"))?);
    headers.insert(UPLOAD_UUID, uuid);
    headers.insert(header::RANGE, range);
    Ok(response)
}

/// The answer to a chunk that belongs elsewhere.
fn misplaced(base: &BaseUrl, name: &PackageName, id: &str, written: u64) -> Result<Response> {
    let place = progress(base, name, id, StatusCode::RANGE_NOT_SATISFIABLE, written)?;
    let mut response = refusal::refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", "the chunk does not follow what is there");
    for name in [header::LOCATION, header::RANGE, UPLOAD_UUID] {
        response.headers_mut().extend(place.headers().get(&name).cloned().map(|value| (name, value)));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_chunks_are_read_as_clients_write_them() {
        for (text, expected) in [
            ("0-9", Some((0, 9))),
            ("10-10", Some((10, 10))),
            ("bytes 0-9/*", Some((0, 9))),
            ("bytes=5-9", Some((5, 9))),
            (" 0 - 9 ", Some((0, 9))),
            ("9-0", None),
            ("-5", None),
            ("5-", None),
            ("", None),
            ("x-y", None),
            ("0-18446744073709551615", None),
            ("0-99999999999999999999", None),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    #[test]
    fn a_chunk_belongs_where_the_session_is() {
        let headers = HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::from_static("5-9"))]);
        let chunk = Chunk::read(&headers, &Upload::memory("01234")).unwrap();
        assert_eq!((chunk.starting_at(5), chunk.starting_at(4), chunk.starting_at(6)), (Some(Some(5)), None, None));
        assert!(Chunk::read(&headers, &Upload::memory("0123")).is_err(), "the length contradicts the range");
        let stream = Chunk::read(&HeaderMap::new(), &Upload::memory("01234")).unwrap();
        assert_eq!(stream.starting_at(77), Some(Some(5)));
    }
}
