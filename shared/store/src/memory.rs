//! Objects in memory: for tests, and for what need not outlive the process.

use crate::error::{StoreError, StoreErrorKind};
use crate::names::check_key;
use crate::object::{ETag, ObjectInfo, ObjectStore, PutOutcome, Sink, check_etag, clip};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An [`ObjectStore`] in memory. Empty at first.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, (Bytes, ETag)>,
    writes: u64,
}

impl State {
    fn insert(&mut self, key: &str, bytes: Bytes) {
        self.writes += 1;
        let etag = ETag::new(format!("\"{}\"", self.writes));
        self.objects.insert(key.to_owned(), (bytes, etag));
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// No call leaves the map half-changed, so poison is of no concern.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &str) -> Result<(Bytes, ETag), StoreError> {
        let found = self.lock().objects.get(key).cloned();
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, format!("no object {key:?} in memory")))
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
        sink: &mut Sink<'_>,
    ) -> Result<ObjectInfo, StoreError> {
        check_key(key)?;
        let (bytes, etag) = self.find(key)?;
        check_etag(key, if_match, &etag)?;
        let range = clip(key, range, bytes.len() as u64)?;
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let info = ObjectInfo { etag, total_len: bytes.len() as u64 };
        sink(&info, bytes.slice(index(range.start)..index(range.end)))?;
        Ok(info)
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        check_key(key)?;
        let mut state = self.lock();
        if state.objects.contains_key(key) {
            return Ok(PutOutcome::AlreadyExists);
        }
        state.insert(key, bytes);
        Ok(PutOutcome::Created)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_key(key)?;
        self.lock().insert(key, bytes);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let state = self.lock();
        let from_prefix = state.objects.range(prefix.to_owned()..);
        Ok(from_prefix.map(|(key, _)| key.clone()).take_while(|key| key.starts_with(prefix)).collect())
    }
}
