//! The part of a fetch that runs in the background: a few workers bring what the first request did not.
//!
//! A part that fails on the way is taken up again where it broke off, after a wait that grows and is never the
//! same twice. All reads are pinned to the object's state by its ETag.

use crate::error::{StoreError, StoreErrorKind};
use crate::fetch::{FetchOptions, FetchStats, Outcome};
use crate::object::{ETag, ObjectInfo, ObjectStore};
use crate::packs::of_pack;
use crate::parts::{Assembler, Part, Queue};
use crate::retry::{Retry, with_retries};
use bytes::Bytes;
use glowplug_pack::{ErrorKind, PackError, Region};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where a pack is read from, and how.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) key: String,
    pub(crate) options: FetchOptions,
}

impl Source {
    /// One request for `range`: the pieces go to `sink` until the body ends, stalls, or takes too long.
    pub(crate) async fn attempt(
        &self,
        range: Range<u64>,
        if_match: Option<&ETag>,
        mut sink: impl FnMut(&ObjectInfo, Bytes) -> Result<(), StoreError> + Send,
    ) -> Result<ObjectInfo, StoreError> {
        tracing::debug!(key = self.key, start = range.start, end = range.end, "asking for bytes");
        let progress = Progress::new();
        let mut watched = |info: &ObjectInfo, piece: Bytes| {
            progress.note();
            sink(info, piece)
        };
        let read = self.objects.read(&self.key, Some(range.clone()), if_match, &mut watched);
        let FetchOptions { stall_timeout, attempt_timeout, .. } = self.options;
        tokio::select! {
            biased;
            result = tokio::time::timeout(attempt_timeout, read) => {
                result.unwrap_or_else(|_| Err(self.late(&range, "did not arrive in", attempt_timeout)))
            }
            () = progress.stalled_for(stall_timeout) => Err(self.late(&range, "stalled for", stall_timeout)),
        }
    }

    /// A small range, in one buffer, over as many requests as it takes; as impatient as with a pack.
    pub(crate) async fn get(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        with_retries(self.objects.retry(), || async {
            let mut bytes = Vec::new();
            let sink = |_: &ObjectInfo, piece: Bytes| {
                bytes.extend_from_slice(&piece);
                Ok(())
            };
            self.attempt(range.clone(), None, sink).await?;
            Ok(bytes)
        })
        .await
    }

    fn late(&self, range: &Range<u64>, what: &str, limit: Duration) -> StoreError {
        let text = format!("object {:?}: bytes {} to {} {what} {limit:?}", self.key, range.start, range.end);
        StoreError::new(StoreErrorKind::Timeout, text)
    }

    /// Where the length was checked, a short body is the connection's fault.
    pub(crate) fn too_short(&self, range: &Range<u64>) -> StoreError {
        let text = format!("object {:?}: bytes {} to {} came incomplete", self.key, range.start, range.end);
        StoreError::new(StoreErrorKind::Unavailable, text)
    }
}

/// When a request last brought something.
struct Progress {
    started: Instant,
    /// Nanoseconds from the start to the last piece.
    last_ns: AtomicU64,
}

impl Progress {
    fn new() -> Progress {
        Progress { started: Instant::now(), last_ns: AtomicU64::new(0) }
    }

    fn note(&self) {
        self.last_ns.store(nanos(self.started), Ordering::Relaxed);
    }

    /// Ends once nothing has been noted for `limit`.
    async fn stalled_for(&self, limit: Duration) {
        loop {
            let until = self.started + Duration::from_nanos(self.last_ns.load(Ordering::Relaxed)) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// All that the workers of one fetch share.
pub(crate) struct Transfer {
    pub(crate) source: Source,
    pub(crate) etag: ETag,
    pub(crate) region: Arc<Region>,
    pub(crate) pack: Arc<glowplug_pack::Pack>,
    pub(crate) queue: Queue,
    /// What the first request brings.
    pub(crate) first: Part,
    pub(crate) started: Instant,
    pub(crate) verify_ns: AtomicU64,
}

impl Transfer {
    /// Brings all that is missing, and tells `done` how it ended. `first` brings what the first request was for.
    ///
    /// However that is, and be the future dropped before it began, the waits on the region end with it.
    pub(crate) fn run(
        self: Arc<Self>,
        first: impl Future<Output = Result<(), StoreError>> + Send,
        done: watch::Sender<Option<Outcome>>,
    ) -> impl Future<Output = ()> + Send {
        let ending = Ending { region: self.region.clone() };
        async move {
            self.run_to_end(first, done).await;
            drop(ending);
        }
    }

    async fn run_to_end(
        self: Arc<Self>,
        first: impl Future<Output = Result<(), StoreError>> + Send,
        done: watch::Sender<Option<Outcome>>,
    ) {
        let result = self.clone().bring_all(first).await;
        if let Err(error) = &result {
            tracing::debug!(key = self.source.key, %error, "transfer ended");
            self.region.fail(PackError::new(ErrorKind::Failed, error.to_string()));
        }
        let verify = Duration::from_nanos(self.verify_ns.load(Ordering::Relaxed));
        let stats = FetchStats { fetch: self.started.elapsed(), verify, bytes: self.pack.header().file_len };
        // Nobody left to tell is fine.
        let _ = done.send(Some(result.map(|()| stats)));
    }

    /// Lets workers take parts until none is left, or one fails for good. Dropping this ends them all.
    async fn bring_all(
        self: Arc<Self>,
        first: impl Future<Output = Result<(), StoreError>> + Send,
    ) -> Result<(), StoreError> {
        let mut workers = JoinSet::new();
        for _ in 1..self.source.options.parallel.max(1) {
            workers.spawn(self.clone().work());
        }
        let this = self.clone();
        let first = async move {
            first.await?;
            this.queue.arrived(&this.first);
            this.work().await
        };
        let others = async {
            while let Some(worker) = workers.join_next().await {
                worker.map_err(|e| {
                    StoreError::new(StoreErrorKind::Other, format!("fetch of {:?}: {e}", self.source.key))
                })??;
            }
            Ok(())
        };
        tokio::try_join!(first, others).map(drop)
    }

    /// One worker: brings what is next, until nothing is.
    async fn work(self: Arc<Self>) -> Result<(), StoreError> {
        while let Some(part) = self.queue.next().await {
            let assembler = Assembler::new(self.pack.clone(), self.region.clone(), part.chunks.clone());
            self.finish(assembler, Tries::default()).await?;
            self.queue.arrived(&part);
        }
        Ok(())
    }

    /// Brings what `assembler` lacks, over as many requests as it takes; `tries` counts those that were made already.
    pub(crate) async fn finish(&self, mut assembler: Assembler, mut tries: Tries) -> Result<(), StoreError> {
        while !assembler.is_done() {
            let before = assembler.next();
            let Err(error) = self.attempt(&mut assembler).await else { continue };
            tries
                .failed(assembler.next() > before, assembler.wrong(), error, self.source.options.retry)
                .await?;
        }
        Ok(())
    }

    /// One request for what the assembler still lacks.
    async fn attempt(&self, assembler: &mut Assembler) -> Result<(), StoreError> {
        let range = assembler.missing();
        assembler.start_at(range.start);
        let sink = |_: &ObjectInfo, piece: Bytes| self.push(assembler, &piece);
        self.source.attempt(range.clone(), Some(&self.etag), sink).await?;
        if assembler.is_done() { Ok(()) } else { Err(self.source.too_short(&range)) }
    }

    /// Hands a piece to the assembler, and counts the time.
    pub(crate) fn push(&self, assembler: &mut Assembler, piece: &[u8]) -> Result<(), StoreError> {
        let started = Instant::now();
        let pushed = assembler.push(piece);
        self.verify_ns.fetch_add(nanos(started), Ordering::Relaxed);
        pushed.map_err(|e| of_pack(&self.source.key, &e))
    }
}

/// The failed tries of one part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// In a row, without a chunk between them.
    failed: u32,
    /// The chunk that came wrong last.
    wrong: Option<usize>,
}

impl Tries {
    /// What follows a try that failed: a wait, if another may help, else the error. Wrong bytes are asked for once
    /// more, at once: they may have been spoiled on the way, and if not, no patience will mend them.
    pub(crate) async fn failed(
        &mut self,
        brought_some: bool,
        wrong: Option<usize>,
        error: StoreError,
        retry: Retry,
    ) -> Result<(), StoreError> {
        self.failed = if brought_some { 1 } else { self.failed + 1 };
        match wrong {
            Some(chunk) if self.wrong != Some(chunk) => {
                tracing::warn!(%error, "asking for the chunk once more");
                self.wrong = Some(chunk);
                Ok(())
            }
            Some(_) => Err(error.within("wrong twice")),
            None => retry.pause(self.failed, error).await,
        }
    }
}

/// Ends the waits on the region however the transfer ends: with its runtime, by a panic, at its end.
struct Ending {
    region: Arc<Region>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Of no effect on bytes that are there, nor where a reason was given before.
        self.region.cancel();
    }
}
