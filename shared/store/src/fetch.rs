//! How packs are fetched from a store that is not a local file: the options, and the handle on a running transfer.
//!
//! One request brings the front part and the first weights; it is read as a stream, so that the plan can be built
//! as soon as the front part is here (`first`). The rest comes in parts over a few connections at once: what somebody
//! waits for first, then in file order, which is execution order (`transfer`). Every chunk is hashed as it arrives, and
//! only then can it be waited for.

use crate::cache::Keep;
use crate::error::{StoreError, StoreErrorKind};
use crate::retry::Retry;
use glowplug_pack::{Pack, Region};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How a pack is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Bytes of the first request, at least 256 KiB: the front part, and the first weights behind it.
    pub first_bytes: u64,
    /// Bytes of each further range request; rounded to whole chunks, at least one.
    pub part_bytes: u64,
    /// Range requests in flight; 0 counts as 1.
    pub parallel: usize,
    /// A request that brings nothing for so long is given up, and what it lacks is asked for again.
    pub stall_timeout: Duration,
    /// Longest time of one request, from its start to its last byte.
    pub attempt_timeout: Duration,
    /// Tries per part. A try that brought at least one chunk starts the count anew.
    pub retry: Retry,
}

impl FetchOptions {
    /// Requests of `part_bytes`, so many at once. The first, whose bytes arrive in order and without a second wait, is two and a half times
    /// as long.
    #[must_use]
    pub fn of_parts(part_bytes: u64, parallel: usize) -> FetchOptions {
        FetchOptions {
            first_bytes: part_bytes / 2 * 5,
            part_bytes,
            parallel,
            stall_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_secs(15),
            retry: Retry::default(),
        }
    }
}

impl Default for FetchOptions {
    /// What docs/adr/0008 measured to be best on links of 50 to 300 MB/s.
    fn default() -> FetchOptions {
        FetchOptions::of_parts(2 << 20, 4)
    }
}

/// Asked with a pack's bytes before memory for them is taken; an error, `TooLarge` by custom, refuses the pack.
pub type Admit = Arc<dyn Fn(u64) -> Result<(), StoreError> + Send + Sync>;

/// Refuses nothing.
#[must_use]
pub fn admit_all() -> Admit {
    Arc::new(|_| Ok(()))
}

/// What a finished fetch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// From the first request to the last verified byte.
    pub fetch: Duration,
    /// The part of it spent on checking: hashes of all chunks, and decoding those that are coded, summed over the workers.
    pub verify: Duration,
    /// Bytes of the file.
    pub bytes: u64,
}

pub(crate) type Outcome = Result<FetchStats, StoreError>;

/// Keeps a transfer alive. Dropping it ends the transfer, and every wait for what has not arrived.
#[derive(Debug)]
pub struct FetchGuard {
    region: Arc<Region>,
    task: Option<AbortHandle>,
    outcome: watch::Receiver<Option<Outcome>>,
    keep: Option<Keep>,
}

impl FetchGuard {
    /// A transfer that is over: there was nothing to bring.
    pub(crate) fn done(pack: &Pack, region: &Arc<Region>, started: Instant) -> FetchGuard {
        let bytes = pack.header().file_len;
        let stats = FetchStats { fetch: started.elapsed(), verify: Duration::ZERO, bytes };
        let (_, outcome) = watch::channel(Some(Ok(stats)));
        FetchGuard { region: region.clone(), task: None, outcome, keep: None }
    }

    /// A transfer by `task`, which tells its end through `outcome`.
    pub(crate) fn running(
        region: &Arc<Region>,
        task: AbortHandle,
        outcome: watch::Receiver<Option<Outcome>>,
        keep: Option<Keep>,
    ) -> FetchGuard {
        FetchGuard { region: region.clone(), task: Some(task), outcome, keep }
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
        finished(self.outcome.clone()).await
    }

    /// Has the pack written into the store's cache, once all of it is here, in the background; returns at once. Of no
    /// effect without a cache, and on a pack that came from one. For when the first answer is out: until then the
    /// write would be in its way. Must be called within a tokio runtime.
    pub fn keep(&self) {
        if let Some(keep) = self.keep.clone() {
            let (region, outcome) = (self.region.clone(), self.outcome.clone());
            tokio::spawn(async move {
                if finished(outcome).await.is_ok() {
                    keep.write(region).await;
                }
            });
        }
    }
}

async fn finished(mut outcome: watch::Receiver<Option<Outcome>>) -> Outcome {
    let ended = outcome.wait_for(Option::is_some).await.map(|o| o.clone());
    let cancelled = || StoreError::new(StoreErrorKind::Cancelled, "the fetch was cancelled");
    ended.ok().flatten().unwrap_or_else(|| Err(cancelled()))
}

impl Drop for FetchGuard {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.region.cancel();
        }
    }
}
