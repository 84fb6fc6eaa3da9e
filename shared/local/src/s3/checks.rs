//! What must hold before an object is given or taken: preconditions of reads and writes, digests of bodies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{ETagCondition, StreamingBlob, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

use super::backend::{Condition, Object as Stored};

/// The largest body kept in memory, in bytes.
const MAX_OBJECT_BYTES: usize = 1 << 30;
/// The conditional headers of a read.
#[derive(Default)]
pub(super) struct Preconditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl Preconditions {
    /// RFC 9110 section 13.2.2: a tag wins over a date of the same direction.
    pub(super) fn check(&self, object: &Stored) -> S3Result<()> {
        let modified = Timestamp::from(object.modified);
        let failed = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !names(condition, object),
            (None, Some(since)) => newer(&modified, since),
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(PreconditionFailed));
        }
        let unchanged = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => names(condition, object),
            (None, Some(since)) => !newer(&modified, since),
            (None, None) => false,
        };
        if unchanged { Err(not_modified(object)) } else { Ok(()) }
    }
}

fn names(condition: &ETagCondition, object: &Stored) -> bool {
    condition.as_etag().is_none_or(|tag| tag.value() == object.e_tag)
}

/// HTTP dates have whole seconds, so the fraction of a second does not count as a change.
fn newer(modified: &Timestamp, since: &Timestamp) -> bool {
    let seconds = |at: &Timestamp| time::OffsetDateTime::from(at.clone()).unix_timestamp();
    seconds(modified) > seconds(since)
}

fn not_modified(object: &Stored) -> S3Error {
    let mut error = s3_error!(NotModified);
    let tag = http::HeaderValue::try_from(format!("\"{}\"", object.e_tag));
    if let Ok(tag) = tag {
        error.set_headers([(http::header::ETAG, tag)].into_iter().collect());
    }
    error
}

/// The condition of a write.
pub(super) fn condition(
    if_none_match: Option<ETagCondition>,
    if_match: Option<ETagCondition>,
) -> S3Result<Condition> {
    match (if_none_match, if_match) {
        (None, None) => Ok(Condition::None),
        (Some(ETagCondition::Any), None) => Ok(Condition::Absent),
        (None, Some(ETagCondition::ETag(tag))) => Ok(Condition::Matches(tag.into_value())),
        _ => Err(s3_error!(NotImplemented, "a write takes If-None-Match: * or If-Match with one tag")),
    }
}

/// The digests that a client declares for a body, base64 except for none.
pub(super) struct Digests {
    pub(super) md5: Option<String>,
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

/// Reads a body whole, and refuses it if it is not what its digests (headers or trailers) say.
pub(super) async fn receive(
    body: Option<StreamingBlob>,
    digests: Digests,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
            if bytes.len() + chunk.len() > MAX_OBJECT_BYTES {
                return Err(s3_error!(EntityTooLarge, "the local S3 keeps at most {MAX_OBJECT_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
    }
    let bytes = bytes.freeze();
    digests.with_trailers(trailers.as_ref()).check(&bytes)?;
    Ok(bytes)
}

impl Digests {
    fn with_trailers(mut self, trailers: Option<&TrailingHeaders>) -> Self {
        let read = |name: &str| trailers?.read(|map| map.get(name)?.to_str().ok().map(str::to_owned))?;
        for (digest, name) in [
            (&mut self.crc32, "x-amz-checksum-crc32"),
            (&mut self.crc32c, "x-amz-checksum-crc32c"),
            (&mut self.crc64nvme, "x-amz-checksum-crc64nvme"),
            (&mut self.sha1, "x-amz-checksum-sha1"),
            (&mut self.sha256, "x-amz-checksum-sha256"),
        ] {
            *digest = digest.take().or_else(|| read(name));
        }
        self
    }

    fn check(self, bytes: &[u8]) -> S3Result<()> {
        let mut hasher = ChecksumHasher {
            crc32: self.crc32.is_some().then(Crc32::new),
            crc32c: self.crc32c.is_some().then(Crc32c::new),
            sha1: self.sha1.is_some().then(Sha1::new),
            sha256: self.sha256.is_some().then(Sha256::new),
            crc64nvme: self.crc64nvme.is_some().then(Crc64Nvme::new),
        };
        hasher.update(bytes);
        let found = hasher.finalize();
        let md5 = self.md5.is_some().then(|| STANDARD.encode(Md5::checksum(bytes)));
        let pairs = [
            (self.md5, md5),
            (self.crc32, found.checksum_crc32),
            (self.crc32c, found.checksum_crc32c),
            (self.crc64nvme, found.checksum_crc64nvme),
            (self.sha1, found.checksum_sha1),
            (self.sha256, found.checksum_sha256),
        ];
        match pairs.into_iter().find(|(declared, found)| declared != found) {
            Some((declared, found)) => {
                let (declared, found) = (declared.unwrap_or_default(), found.unwrap_or_default());
                Err(s3_error!(BadDigest, "the body's digest is {found}, wanted {declared}"))
            }
            None => Ok(()),
        }
    }
}
