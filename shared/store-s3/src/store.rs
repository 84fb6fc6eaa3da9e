//! `S3Store`: objects under one prefix of one bucket.

use crate::client::{client, timeouts};
use crate::error::{chain, read_error, store_error};
use crate::options::S3Options;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Config;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use glowplug_store::object::check_range;
use glowplug_store::{
    ETag, ObjectInfo, ObjectStore, PutOutcome, Retry, Sink, StoreError, StoreErrorKind, with_retries,
};
use std::fmt;
use std::ops::Range;

/// Longest key, prefix included, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// An [`ObjectStore`] on S3. Clones share their connections.
#[derive(Clone)]
pub struct S3Store {
    client: Client,
    options: S3Options,
}

impl S3Store {
    /// A store by these options. No IO: whether the bucket can be reached, the first request finds out.
    ///
    /// # Errors
    /// `Invalid`: an option that cannot work.
    pub fn connect(options: S3Options) -> Result<S3Store, StoreError> {
        options.check()?;
        Ok(S3Store { client: client(&options), options })
    }

    /// Another bucket and prefix, over the same connections.
    ///
    /// # Errors
    /// `Invalid`: no name of a bucket, no legal prefix.
    pub fn with_bucket(
        &self,
        bucket: impl Into<String>,
        prefix: impl Into<String>,
    ) -> Result<S3Store, StoreError> {
        let options = S3Options { bucket: bucket.into(), prefix: prefix.into(), ..self.options.clone() };
        options.check()?;
        Ok(S3Store { client: self.client.clone(), options })
    }

    /// The key within the bucket. S3 takes any text for a name; only its length has a limit.
    fn full_key(&self, key: &str) -> Result<String, StoreError> {
        let full = format!("{}{key}", self.key_prefix());
        if key.is_empty() || full.len() > MAX_KEY_BYTES || key.contains('\0') {
            let text = format!(
                "object key of {} bytes in {}: expected 1 to {MAX_KEY_BYTES}, none of them 0",
                full.len(),
                self.place("")
            );
            return Err(StoreError::new(StoreErrorKind::Invalid, text));
        }
        Ok(full)
    }

    /// What the keys of this store begin with in the bucket: nothing, or `prefix/`.
    fn key_prefix(&self) -> String {
        let prefix = &self.options.prefix;
        if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
    }

    /// The address of a key, for messages.
    fn place(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.options.bucket, self.key_prefix())
    }

    /// One PUT; `if_absent` makes it fail where the object exists.
    async fn put_once(&self, key: &str, bytes: Bytes, if_absent: bool) -> Result<PutOutcome, StoreError> {
        let config = Config::builder().timeout_config(timeouts(&self.options, bytes.len()));
        let request = self.client.put_object().bucket(&self.options.bucket).key(self.full_key(key)?);
        let request = request
            .set_if_none_match(if_absent.then(|| "*".to_owned()))
            .set_content_type(key.ends_with(".json").then(|| "application/json".to_owned()))
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(config);
        match Box::pin(request.send()).await {
            Ok(_) => Ok(PutOutcome::Created),
            Err(e) if if_absent && e.raw_response().is_some_and(|r| r.status().as_u16() == 412) => {
                Ok(PutOutcome::AlreadyExists)
            }
            Err(e) => Err(store_error(&self.place(key), &e)),
        }
    }

    /// One page of a listing: up to 1000 keys.
    async fn list_page(
        &self,
        prefix: &str,
        token: Option<String>,
    ) -> Result<ListObjectsV2Output, StoreError> {
        let request = self.client.list_objects_v2().bucket(&self.options.bucket);
        let request = request.prefix(format!("{}{prefix}", self.key_prefix())).set_continuation_token(token);
        Box::pin(request.send()).await.map_err(|e| store_error(&self.place(prefix), &e))
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
        sink: &mut Sink<'_>,
    ) -> Result<ObjectInfo, StoreError> {
        if let Some(range) = &range {
            check_range(key, range)?;
        }
        let request = self.client.get_object().bucket(&self.options.bucket).key(self.full_key(key)?);
        let request = request
            .set_range(range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end - 1)))
            .set_if_match(if_match.map(|etag| etag.as_str().to_owned()));
        let place = self.place(key);
        let output = Box::pin(request.send()).await;
        let mut output = output.map_err(|e| read_error(&place, range.as_ref(), if_match, &e))?;
        let info = info(&place, &output)?;
        let mut left = u64::try_from(output.content_length().unwrap_or(-1)).ok();
        while let Some(piece) = output.body.try_next().await.map_err(|e| broken(&place, &chain(&e)))? {
            left = left.map(|left| left.saturating_sub(piece.len() as u64));
            sink(&info, piece)?;
        }
        match left {
            None | Some(0) => Ok(info),
            Some(left) => Err(broken(&place, &format!("{left} bytes of the body are missing"))),
        }
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        with_retries(self.retry(), || self.put_once(key, bytes.clone(), true)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        with_retries(self.retry(), || self.put_once(key, bytes.clone(), false)).await.map(drop)
    }

    fn retry(&self) -> Retry {
        self.options.retry
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut keys, mut token) = (Vec::new(), None);
        loop {
            let page = with_retries(self.retry(), || self.list_page(prefix, token.clone())).await?;
            let full = page.contents().iter().filter_map(|object| object.key());
            keys.extend(full.filter_map(|key| key.strip_prefix(&self.key_prefix())).map(str::to_owned));
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(keys);
            }
        }
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.place(""))
    }
}

/// State and whole length, from the headers of an answer.
fn info(place: &str, output: &GetObjectOutput) -> Result<ObjectInfo, StoreError> {
    let total_len = match output.content_range() {
        Some(text) => text.rsplit_once('/').and_then(|(_, total)| total.parse().ok()),
        None => output.content_length().and_then(|len| u64::try_from(len).ok()),
    };
    match (total_len, output.e_tag()) {
        (Some(total_len), Some(etag)) => Ok(ObjectInfo { etag: ETag::new(etag), total_len }),
        _ => {
            Err(StoreError::new(StoreErrorKind::Other, format!("{place}: an answer without length or ETag")))
        }
    }
}

/// A body that broke off. The next try may get through.
fn broken(place: &str, why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("{place}: {why}"))
}
