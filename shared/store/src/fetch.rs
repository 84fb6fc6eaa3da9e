//! Bringing a pack from a store that is not a local file: a small read for the front, parallel ranges for the rest.
//!
//! The front part comes first and is checked at once. Everything behind it is cut into parts, which a few workers
//! fetch in file order (which is execution order) into the region, hashing chunk by chunk as the bytes arrive. A part
//! that fails on the way is taken up again behind its last whole chunk. All reads after the first are pinned
//! to the object's state by its ETag.

use crate::error::{StoreError, StoreErrorKind};
use crate::map;
use crate::model::{OpenedPack, Resolved};
use crate::object::{ETag, ObjectStore};
use crate::packs::{check_digest, of_pack};
use crate::parts::{Assembler, cut};
use crate::retry::Retry;
use bytes::Bytes;
use glowplug_pack::header::FIRST_READ_BYTES;
use glowplug_pack::{ErrorKind, Header, Pack, PackError, Region};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What is asked for first.
pub(crate) const FIRST_READ: Range<u64> = 0..FIRST_READ_BYTES as u64;

/// How a pack is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Bytes of one range request; rounded to whole chunks, at least one.
    pub part_bytes: u64,
    /// Range requests in flight; 0 counts as 1.
    pub parallel: usize,
    /// Longest time of one request, from its start to its last byte.
    pub attempt_timeout: Duration,
    /// Tries per part. A try that brought at least one chunk starts the count anew.
    pub retry: Retry,
}

impl Default for FetchOptions {
    /// 8 MiB ranges, 4 at once, 15 s each: one S3 connection gives 55-90 MB/s.
    fn default() -> FetchOptions {
        let retry = Retry::default();
        FetchOptions { part_bytes: 8 << 20, parallel: 4, attempt_timeout: Duration::from_secs(15), retry }
    }
}

/// What a finished fetch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// From the first request to the last verified byte.
    pub fetch: Duration,
    /// The part of it spent on checking: hashes of all chunks, summed over the workers.
    pub verify: Duration,
    /// Bytes of the file.
    pub bytes: u64,
}

type Outcome = Result<FetchStats, StoreError>;

/// Keeps a transfer alive. Dropping it ends the transfer, and every wait for what has not arrived.
#[derive(Debug)]
pub struct FetchGuard {
    region: Arc<Region>,
    task: Option<AbortHandle>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl FetchGuard {
    /// A transfer that is over: there was nothing to bring.
    pub(crate) fn done(region: &Arc<Region>, started: Instant) -> FetchGuard {
        let stats =
            FetchStats { fetch: started.elapsed(), verify: Duration::ZERO, bytes: region.len() as u64 };
        let (_, outcome) = watch::channel(Some(Ok(stats)));
        FetchGuard { region: region.clone(), task: None, outcome }
    }

    /// How the transfer ended, or `None` while it runs.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<FetchStats, StoreError>> {
        self.outcome.borrow().clone()
    }

    /// Waits for the end of the transfer.
    ///
    /// # Errors
    /// What ended it early; waits on the region fail for the same reason. `Cancelled` if its runtime is gone.
    pub async fn finished(&self) -> Result<FetchStats, StoreError> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await.map(|o| o.clone());
        ended.ok().flatten().unwrap_or_else(|| Err(cancelled()))
    }
}

impl Drop for FetchGuard {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.region.cancel();
        }
    }
}

fn cancelled() -> StoreError {
    StoreError::new(StoreErrorKind::Cancelled, "the fetch was cancelled")
}

/// Reads the front part of the pack under `key`, then has the rest brought in the background.
pub(crate) async fn open(
    objects: &Arc<dyn ObjectStore>,
    key: &str,
    model: &Resolved,
    options: FetchOptions,
) -> Result<OpenedPack, StoreError> {
    let started = Instant::now();
    let (front, etag) = read_front(objects.as_ref(), key, model).await?;
    let pack = Arc::new(Pack::parse(&front).map_err(|e| of_pack(key, &e))?);
    let (region, missing) = region_with_front(&pack, &front).map_err(|e| of_pack(key, &e))?;
    let region = Arc::new(region);
    if missing.is_empty() {
        let fetch = FetchGuard::done(&region, started);
        return Ok(OpenedPack { pack, region, fetch });
    }
    let job = Job {
        parts: cut(pack.chunks(), missing, options.part_bytes),
        objects: objects.clone(),
        key: key.to_owned(),
        etag,
        options,
        pack: pack.clone(),
        region: region.clone(),
        next_part: AtomicUsize::new(0),
        verify_ns: AtomicU64::new(0),
    };
    let fetch = spawn(job, started);
    Ok(OpenedPack { pack, region, fetch })
}

/// The first bytes of the file, at least its front part, and the state they are of.
async fn read_front(
    objects: &dyn ObjectStore,
    key: &str,
    model: &Resolved,
) -> Result<(Bytes, ETag), StoreError> {
    let first = objects.get(key, Some(FIRST_READ), None).await?;
    let header = Header::parse(&first.bytes).map_err(|e| of_pack(key, &e))?;
    check_digest(model, &header)?;
    if header.file_len != first.total_len {
        let text =
            format!("object {key:?} has {} bytes, its header tells {}", first.total_len, header.file_len);
        return Err(StoreError::new(StoreErrorKind::Corrupt, text));
    }
    let have = first.bytes.len() as u64;
    if header.front_len <= have {
        return Ok((first.bytes, first.etag));
    }
    let second = objects.get(key, Some(have..header.front_len), Some(&first.etag)).await?;
    Ok(([first.bytes, second.bytes].concat().into(), first.etag))
}

/// A region of the whole file into which the chunks that lie in `front` have been put, and the chunks that miss.
fn region_with_front(pack: &Pack, front: &[u8]) -> Result<(Region, Range<usize>), PackError> {
    let chunks = pack.chunks();
    let len = usize::try_from(pack.header().file_len)
        .map_err(|_| PackError::new(ErrorKind::Invalid, "a pack larger than the address space"))?;
    let region = Region::pending(map::anonymous(len)?, chunks.to_vec())?;
    let mut assembler = Assembler::new(&region, chunks, 0..chunks.len());
    assembler.start_at(0);
    assembler.push(front)?;
    let missing = assembler.next()..chunks.len();
    Ok((region, missing))
}

/// All that the workers of one fetch share.
struct Job {
    objects: Arc<dyn ObjectStore>,
    key: String,
    etag: ETag,
    options: FetchOptions,
    pack: Arc<Pack>,
    region: Arc<Region>,
    /// Ranges of the chunk table, in file order.
    parts: Vec<Range<usize>>,
    next_part: AtomicUsize,
    verify_ns: AtomicU64,
}

fn spawn(job: Job, started: Instant) -> FetchGuard {
    let (sender, outcome) = watch::channel(None);
    let region = job.region.clone();
    let ending = Ending { region: region.clone() };
    let task = tokio::spawn(async move {
        let job = Arc::new(job);
        let result = run(&job).await;
        if let Err(error) = &result {
            job.region.fail(PackError::new(ErrorKind::Failed, error.to_string()));
        }
        let verify = Duration::from_nanos(job.verify_ns.load(Ordering::Relaxed));
        let bytes = job.region.len() as u64;
        let stats = FetchStats { fetch: started.elapsed(), verify, bytes };
        // Nobody left to tell is fine.
        let _ = sender.send(Some(result.map(|()| stats)));
        drop(ending);
    });
    FetchGuard { region, task: Some(task.abort_handle()), outcome }
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

/// Lets workers take parts until none is left, or one fails for good. Dropping this ends them all.
async fn run(job: &Arc<Job>) -> Result<(), StoreError> {
    let mut workers = JoinSet::new();
    for _ in 0..job.options.parallel.max(1).min(job.parts.len()) {
        workers.spawn(work(job.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker
            .map_err(|e| StoreError::new(StoreErrorKind::Other, format!("fetch of {:?}: {e}", job.key)))??;
    }
    Ok(())
}

async fn work(job: Arc<Job>) -> Result<(), StoreError> {
    while let Some(part) = job.parts.get(job.next_part.fetch_add(1, Ordering::Relaxed)) {
        job.fetch_part(part.clone()).await?;
    }
    Ok(())
}

impl Job {
    /// Brings the chunks `part`, over as many requests as it takes.
    async fn fetch_part(&self, part: Range<usize>) -> Result<(), StoreError> {
        let mut assembler = Assembler::new(&self.region, self.pack.chunks(), part);
        let mut failed = 0;
        while !assembler.is_done() {
            let before = assembler.next();
            let Err(error) = self.attempt(&mut assembler).await else { continue };
            failed = if assembler.next() > before { 1 } else { failed + 1 };
            self.options.retry.pause(failed, error).await?;
        }
        Ok(())
    }

    /// One request for what the assembler still lacks.
    async fn attempt(&self, assembler: &mut Assembler<'_>) -> Result<(), StoreError> {
        let range = assembler.missing();
        assembler.start_at(range.start);
        let mut sink = |piece: Bytes| {
            let started = Instant::now();
            let pushed = assembler.push(&piece);
            let spent = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.verify_ns.fetch_add(spent, Ordering::Relaxed);
            pushed.map_err(|e| of_pack(&self.key, &e))
        };
        let read = self.objects.read(&self.key, Some(range.clone()), Some(&self.etag), &mut sink);
        match tokio::time::timeout(self.options.attempt_timeout, read).await {
            Err(_) => Err(self.too_slow(&range)),
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) if assembler.is_done() => Ok(()),
            Ok(Ok(_)) => Err(self.too_short(&range)),
        }
    }

    fn too_slow(&self, range: &Range<u64>) -> StoreError {
        let (key, limit) = (&self.key, self.options.attempt_timeout);
        let text =
            format!("object {key:?}: bytes {} to {} did not arrive in {limit:?}", range.start, range.end);
        StoreError::new(StoreErrorKind::Timeout, text)
    }

    /// The state is pinned and its length was checked, so a short body is the connection's fault.
    fn too_short(&self, range: &Range<u64>) -> StoreError {
        let text = format!("object {:?}: bytes {} to {} came incomplete", self.key, range.start, range.end);
        StoreError::new(StoreErrorKind::Unavailable, text)
    }
}
