//! The port for objects: bytes under keys, as S3 has them.
//!
//! [`MemoryStore`](crate::MemoryStore), [`DirectoryStore`](crate::DirectoryStore) and the S3 crate implement it,
//! and [`conformance::objects`](crate::conformance::objects) holds all three to what is written here.

use crate::error::{StoreError, StoreErrorKind};
use crate::retry::{Retry, with_retries};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Names one state of one object: a replaced object has another. Opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(Arc<str>);

impl ETag {
    /// The tag of this text, in the store's own spelling (S3's holds quotation marks).
    pub fn new(text: impl Into<Arc<str>>) -> ETag {
        ETag(text.into())
    }

    /// The store's own spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is known about an object once it begins to arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The state that was read.
    pub etag: ETag,
    /// Bytes of the whole object, whatever part was asked for.
    pub total_len: u64,
}

/// An object, or the part of it that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The bytes of the range.
    pub bytes: Bytes,
    /// The state that was read.
    pub etag: ETag,
    /// Bytes of the whole object, whatever part was asked for.
    pub total_len: u64,
}

/// What a put-if-absent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object was not there; now it is.
    Created,
    /// An object of this key was there already and stays as it was.
    AlreadyExists,
}

/// Takes the pieces of a body, in order, as they arrive, each with what the answer's head told about the object.
/// An error ends the read with that error.
pub type Sink<'a> = dyn FnMut(&ObjectInfo, Bytes) -> Result<(), StoreError> + Send + 'a;

/// Bytes under keys. Every store takes the keys of [`check_key`](crate::check_key), and none reads anything else
/// into a key: S3 takes other keys literally, memory and directory refuse them.
///
/// `Send + Sync` and used behind `Arc<dyn ObjectStore>`. Every call may touch a network.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Reads an object, or one byte range of it, and hands its pieces to `sink` in order. One attempt.
    ///
    /// A range that runs past the end is cut there. With `if_match`, only that state of the object is read.
    /// When the call fails, `sink` may have had some of the bytes: resume behind them.
    ///
    /// # Errors
    /// `NotFound`; `Changed` where `if_match` does not hold; `Invalid` for a key or an empty range;
    /// `Corrupt` for a range that begins at or past the end, or a body shorter than announced; `Denied`; `Timeout`; `Unavailable`.
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
        sink: &mut Sink<'_>,
    ) -> Result<ObjectInfo, StoreError>;

    /// Creates an object, unless one of this key exists. Of several at once, exactly one creates.
    /// Readers see all of the bytes or no object. Transient failures are tried again.
    ///
    /// A try whose answer was lost can make the next one say [`PutOutcome::AlreadyExists`] of the caller's own bytes.
    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError>;

    /// Creates or replaces an object. Readers see the old bytes or the new ones. Transient failures are tried again.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// All keys that begin with `prefix` (a plain string prefix; empty lists everything), sorted by bytes.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// The file that holds an object, where objects are local files that may be mapped; `None` elsewhere.
    fn local_file(&self, _key: &str) -> Result<Option<File>, StoreError> {
        Ok(None)
    }

    /// How often transient failures are tried again.
    fn retry(&self) -> Retry {
        Retry::default()
    }

    /// An object, or one byte range of it, in one buffer. Transient failures are tried again.
    ///
    /// # Errors
    /// Those of [`ObjectStore::read`].
    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Object, StoreError> {
        with_retries(self.retry(), || async {
            let mut pieces = Vec::new();
            let mut sink = |_: &ObjectInfo, piece: Bytes| {
                pieces.push(piece);
                Ok(())
            };
            let info = self.read(key, range.clone(), if_match, &mut sink).await?;
            Ok(Object { bytes: join(pieces), etag: info.etag, total_len: info.total_len })
        })
        .await
    }
}

/// The part of an object of `total_len` bytes that `range` means.
///
/// # Errors
/// `Invalid`: the range is empty. `Corrupt`: it begins at or past the end.
pub(crate) fn clip(key: &str, range: Option<Range<u64>>, total_len: u64) -> Result<Range<u64>, StoreError> {
    let Some(range) = range else { return Ok(0..total_len) };
    check_range(key, &range)?;
    if range.start >= total_len {
        return Err(past_the_end(key, &range, Some(total_len)));
    }
    Ok(range.start..range.end.min(total_len))
}

/// `Invalid` where `range` is empty. For adapters, which share the wording.
pub fn check_range(key: &str, range: &Range<u64>) -> Result<(), StoreError> {
    if range.start < range.end {
        return Ok(());
    }
    let text = format!("object {key:?}: an empty range, bytes {} to {}", range.start, range.end);
    Err(StoreError::new(StoreErrorKind::Invalid, text))
}

/// The error of a range that begins at or past the end. For adapters, which share the wording.
#[must_use]
pub fn past_the_end(key: &str, range: &Range<u64>, total_len: Option<u64>) -> StoreError {
    let len = total_len.map_or("fewer".to_owned(), |n| n.to_string());
    let text = format!("object {key:?} has {len} bytes, bytes {} to {} wanted", range.start, range.end);
    StoreError::new(StoreErrorKind::Corrupt, text)
}

pub(crate) fn check_etag(key: &str, wanted: Option<&ETag>, found: &ETag) -> Result<(), StoreError> {
    match wanted {
        Some(wanted) if wanted != found => Err(changed(key, wanted)),
        _ => Ok(()),
    }
}

/// The error of an `if_match` that does not hold. For adapters, which share the wording.
#[must_use]
pub fn changed(key: &str, wanted: &ETag) -> StoreError {
    let text = format!("object {key:?} has changed: it is no longer {}", wanted.as_str());
    StoreError::new(StoreErrorKind::Changed, text)
}

/// One buffer of all pieces; a single piece is not copied.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.swap_remove(0),
        _ => pieces.concat().into(),
    }
}
