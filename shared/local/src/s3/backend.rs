//! The objects: buckets of keys in memory, with conditional writes decided under one lock.
//!
//! Also the Rust API for demos and tests, which put and get without HTTP; their puts are announced like any other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use s3s::crypto::{Checksum, Md5};
use tokio::sync::mpsc;

use super::multipart::Uploads;
use super::notify::Created;
use super::shape::{Fault, Link, Shape};
use crate::error::LocalError;

/// An object: its bytes and what S3 tells about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub bytes: Bytes,
    /// The MD5 of the content in hex; for a multipart upload the MD5 of the parts' MD5s, a dash, and their number.
    pub e_tag: String,
    /// The content type, if one was given.
    pub content_type: Option<String>,
    /// User metadata: `x-amz-meta-*` without the prefix.
    pub metadata: BTreeMap<String, String>,
    /// When it was written.
    pub modified: SystemTime,
}

impl Object {
    pub(crate) fn new(
        bytes: Bytes,
        content_type: Option<String>,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        let e_tag = hex(Md5::checksum(&bytes).as_ref());
        Self { bytes, e_tag, content_type, metadata, modified: SystemTime::now() }
    }
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match` with this tag.
    Matches(String),
}

/// Why a write did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
}

/// All buckets of the local S3; a cheap handle.
#[derive(Clone)]
pub struct Buckets(Arc<Inner>);

struct Inner {
    state: Mutex<BTreeMap<String, BTreeMap<String, Object>>>,
    uploads: Mutex<Uploads>,
    link: Link,
    created: mpsc::UnboundedSender<Created>,
    since: SystemTime,
}

impl Buckets {
    /// Empty buckets; what is created is told to `created`.
    pub(crate) fn new(names: &[String], shape: Shape, created: mpsc::UnboundedSender<Created>) -> Self {
        let state = Mutex::new(names.iter().map(|name| (name.clone(), BTreeMap::new())).collect());
        Self(Arc::new(Inner {
            state,
            uploads: Mutex::default(),
            link: Link::new(shape),
            created,
            since: SystemTime::now(),
        }))
    }

    /// Creates a bucket; false if it was there.
    pub(crate) fn create(&self, bucket: &str) -> bool {
        let mut state = self.state();
        let new = !state.contains_key(bucket);
        state.entry(bucket.to_owned()).or_default();
        new
    }

    /// Writes an object, as PUT does.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> Result<Object, LocalError> {
        if key.is_empty() || key.len() > 1024 {
            return Err(LocalError::payload(format!("object key has {} bytes, wanted 1..=1024", key.len())));
        }
        let object = Object::new(bytes.into(), None, BTreeMap::new());
        self.write(bucket, key, object, &Condition::None, "ObjectCreated:Put")
            .map_err(|_| LocalError::not_found("bucket", bucket))
    }

    /// Reads an object.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Object, LocalError> {
        let state = self.state();
        let objects = state.get(bucket).ok_or_else(|| LocalError::not_found("bucket", bucket))?;
        objects.get(key).cloned().ok_or_else(|| LocalError::not_found("object", key))
    }

    /// The keys of a bucket that begin with `prefix`, in order.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, LocalError> {
        let state = self.state();
        let objects = state.get(bucket).ok_or_else(|| LocalError::not_found("bucket", bucket))?;
        Ok(objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    /// Changes the link from now on.
    pub fn set_shape(&self, shape: Shape) {
        self.0.link.set_shape(shape);
    }

    /// Arms a fault; faults fire once each.
    pub fn inject(&self, fault: Fault) {
        self.0.link.inject(fault);
    }

    /// The buckets' names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state().keys().cloned().collect()
    }

    /// When the local S3 was started, which is told as the age of every bucket.
    pub(crate) fn since(&self) -> SystemTime {
        self.0.since
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
    }

    pub(crate) fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.0.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of one bucket, under the lock.
    pub(crate) fn with<T>(
        &self,
        bucket: &str,
        read: impl FnOnce(&BTreeMap<String, Object>) -> T,
    ) -> Result<T, Refused> {
        self.state().get(bucket).map(read).ok_or(Refused::NoSuchBucket)
    }

    /// Writes if the condition holds, atomically, and announces it.
    pub(crate) fn write(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        condition: &Condition,
        event_name: &'static str,
    ) -> Result<Object, Refused> {
        let mut state = self.state();
        let objects = state.get_mut(bucket).ok_or(Refused::NoSuchBucket)?;
        check(objects.get(key), condition)?;
        objects.insert(key.to_owned(), object.clone());
        // Sent under the lock, so that events of one key come in the order of its writes. Nobody listens only while
        // the cloud is being shut down.
        let _ = self.0.created.send(Created {
            bucket: bucket.into(),
            key: key.into(),
            object: object.clone(),
            event_name,
        });
        Ok(object)
    }

    /// Removes a key; absent ones are no error, as on S3.
    pub(crate) fn remove(&self, bucket: &str, key: &str) -> Result<(), Refused> {
        self.state().get_mut(bucket).ok_or(Refused::NoSuchBucket)?.remove(key);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Object>>> {
        // Every change is one insert or remove, so a panic elsewhere cannot leave it half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(present: Option<&Object>, condition: &Condition) -> Result<(), Refused> {
    match (condition, present) {
        (Condition::None, _) | (Condition::Absent, None) => Ok(()),
        (Condition::Matches(_), None) => Err(Refused::NoSuchKey),
        (Condition::Matches(wanted), Some(object)) if *wanted == object.e_tag => Ok(()),
        (Condition::Absent | Condition::Matches(_), Some(_)) => Err(Refused::PreconditionFailed),
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LocalErrorKind;

    fn buckets() -> (Buckets, mpsc::UnboundedReceiver<Created>) {
        let (give, take) = mpsc::unbounded_channel();
        (Buckets::new(&["b".to_owned()], Shape::default(), give), take)
    }

    fn write(buckets: &Buckets, text: &'static str, condition: &Condition) -> Result<String, Refused> {
        let object = Object::new(text.into(), None, BTreeMap::new());
        buckets.write("b", "k", object, condition, "ObjectCreated:Put").map(|object| object.e_tag)
    }

    #[test]
    fn a_write_happens_only_if_its_condition_holds() {
        let (buckets, mut created) = buckets();
        assert_eq!(write(&buckets, "0", &Condition::Matches("x".into())), Err(Refused::NoSuchKey));
        let first = write(&buckets, "1", &Condition::Absent).unwrap();
        assert_eq!(first, "c4ca4238a0b923820dcc509a6f75849b");
        assert_eq!(write(&buckets, "2", &Condition::Absent), Err(Refused::PreconditionFailed));
        assert_eq!(write(&buckets, "2", &Condition::Matches("x".into())), Err(Refused::PreconditionFailed));
        write(&buckets, "3", &Condition::Matches(first)).unwrap();
        assert_eq!(buckets.get("b", "k").unwrap().bytes, "3");
        let announced: Vec<Bytes> =
            std::iter::from_fn(|| created.try_recv().ok().map(|c| c.object.bytes)).collect();
        assert_eq!(announced, ["1", "3"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let (buckets, _created) = buckets();
        let errors = [buckets.get("b", "k").unwrap_err(), buckets.put("no", "k", "").unwrap_err()];
        assert_eq!(errors.each_ref().map(LocalError::kind), [LocalErrorKind::NotFound; 2]);
        assert_eq!(errors.map(|e| e.to_string()), ["no object named \"k\"", "no bucket named \"no\""]);
        let long = buckets.put("b", &"k".repeat(1025), "").unwrap_err();
        assert_eq!(
            (long.kind(), long.to_string().as_str()),
            (LocalErrorKind::Payload, "object key has 1025 bytes, wanted 1..=1024")
        );
    }
}
