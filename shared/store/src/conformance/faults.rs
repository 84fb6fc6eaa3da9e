//! A store that fails on purpose.

use crate::error::{StoreError, StoreErrorKind};
use crate::object::{ETag, ObjectInfo, ObjectStore, PutOutcome, Sink};
use crate::retry::Retry;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Which method was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`ObjectStore::read`].
    Read,
    /// [`ObjectStore::put_if_absent`] or [`ObjectStore::put`].
    Write,
    /// [`ObjectStore::list`].
    List,
}

/// One call, as the one who decides about faults sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Counts the calls of all operations, from 0.
    pub number: u64,
    /// The method.
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub key: &'a str,
    /// The bytes asked for by a read.
    pub range: Option<Range<u64>>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails at once, with this kind.
    Refuse(StoreErrorKind),
    /// A read breaks off with `Unavailable` after this many bytes; a write happens and its answer is lost.
    BreakAfter(usize),
    /// A read ends early, after this many bytes, as if that were all.
    EndAfter(usize),
    /// A read brings this byte of its range inverted.
    Invert(usize),
    /// The call never ends.
    Hang,
}

type Decide = dyn Fn(&Call<'_>) -> Option<Fault> + Send + Sync;

/// An [`ObjectStore`] that asks a function, before each call to another store, what should go wrong.
///
/// It never offers a local file, so every byte comes by way of [`ObjectStore::read`].
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    decide: Box<Decide>,
    calls: AtomicU64,
}

impl FaultyStore {
    /// `inner`, with the faults that `decide` tells per call; `None` lets a call through.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        decide: impl Fn(&Call<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> FaultyStore {
        FaultyStore { inner, decide: Box::new(decide), calls: AtomicU64::new(0) }
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Decides about a call. Faults that are the same for all operations happen here.
    async fn fault(
        &self,
        operation: Operation,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Option<Fault>, StoreError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        match (self.decide)(&Call { number, operation, key, range }) {
            Some(Fault::Refuse(kind)) => {
                Err(StoreError::new(kind, format!("object {key:?}: injected {kind:?}")))
            }
            Some(Fault::Hang) => std::future::pending().await,
            fault => Ok(fault),
        }
    }
}

fn broken(key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("object {key:?}: injected break of the connection"))
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
        sink: &mut Sink<'_>,
    ) -> Result<ObjectInfo, StoreError> {
        let fault = self.fault(Operation::Read, key, range.clone()).await?;
        let mut body = BytesMut::new();
        let mut collect = |_: &ObjectInfo, piece: Bytes| {
            body.extend_from_slice(&piece);
            Ok(())
        };
        let info = self.inner.read(key, range, if_match, &mut collect).await?;
        match fault {
            Some(Fault::BreakAfter(len) | Fault::EndAfter(len)) => body.truncate(len),
            Some(Fault::Invert(at)) => body[at] = !body[at],
            _ => {}
        }
        // Pieces of a size that divides nothing, as a network has them.
        while !body.is_empty() {
            sink(&info, body.split_to(body.len().min(10_007)).freeze())?;
        }
        if matches!(fault, Some(Fault::BreakAfter(_))) { Err(broken(key)) } else { Ok(info) }
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        let fault = self.fault(Operation::Write, key, None).await?;
        let outcome = self.inner.put_if_absent(key, bytes).await?;
        if matches!(fault, Some(Fault::BreakAfter(_))) { Err(broken(key)) } else { Ok(outcome) }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let fault = self.fault(Operation::Write, key, None).await?;
        self.inner.put(key, bytes).await?;
        if matches!(fault, Some(Fault::BreakAfter(_))) { Err(broken(key)) } else { Ok(()) }
    }

    /// Quick: what waits is the test.
    fn retry(&self) -> Retry {
        Retry { first_wait: Duration::from_millis(1), ..Retry::default() }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.fault(Operation::List, prefix, None).await?;
        self.inner.list(prefix).await
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?}, {} calls)", self.inner, self.calls())
    }
}
