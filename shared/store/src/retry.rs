//! Trying again: only after errors that may pass, a few times, waiting longer each time.

use crate::error::StoreError;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// How often and how patiently to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all; 0 counts as 1.
    pub tries: u32,
    /// The wait before the second try. Doubles with each further one; a random part of up to a half is taken off.
    pub first_wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
}

impl Default for Retry {
    /// Four tries within 0.7 s of waiting: what the caller of a cold function still bears.
    fn default() -> Retry {
        Retry { tries: 4, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(2) }
    }
}

impl Retry {
    /// Waits before the next try after `failed` tries in a row failed, or gives the error back: with its
    /// number of tries, if there will be no next one.
    pub(crate) async fn pause(&self, failed: u32, error: StoreError) -> Result<(), StoreError> {
        if !error.kind().is_transient() || failed >= self.tries {
            return Err(if failed > 1 { error.within(format_args!("after {failed} tries")) } else { error });
        }
        tracing::debug!(%error, failed, "trying again");
        tokio::time::sleep(self.wait(failed)).await;
        Ok(())
    }

    fn wait(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(20);
        let wait = self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait);
        wait - wait * random_percent() / 200
    }
}

/// Runs `attempt` until it succeeds, fails for good, or has been tried often enough.
///
/// # Errors
/// The last error. After more than one try its text says how many there were.
pub async fn with_retries<T, F>(retry: Retry, mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut failed = 0;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                failed += 1;
                retry.pause(failed, error).await?;
            }
        }
    }
}

/// 0 to 99. Many functions that fail together must not come back together; nothing else depends on it.
fn random_percent() -> u32 {
    // A fresh RandomState is the standard library's only source of randomness.
    u32::try_from(RandomState::new().build_hasher().finish() % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind::{self, *};

    const QUICK: Retry =
        Retry { tries: 3, first_wait: Duration::from_micros(1), longest_wait: Duration::from_micros(2) };

    async fn tries_until(kinds: &[StoreErrorKind]) -> (u32, Result<(), StoreError>) {
        let mut calls = 0;
        let mut kinds = kinds.iter();
        let result = with_retries(QUICK, || {
            calls += 1;
            let result = kinds.next().map_or(Ok(()), |kind| Err(StoreError::new(*kind, "k")));
            async { result }
        })
        .await;
        (calls, result)
    }

    #[tokio::test]
    async fn only_what_may_pass_is_tried_again_and_only_so_often() {
        assert_eq!(tries_until(&[Timeout, Unavailable]).await.0, 3);
        let (calls, result) = tries_until(&[Timeout; 9]).await;
        assert_eq!((calls, result.unwrap_err().to_string().as_str()), (3, "after 3 tries: k"));
        for kind in [NotFound, AlreadyExists, Invalid, Changed, Denied, Corrupt, Cancelled, Other] {
            let (calls, result) = tries_until(&[kind; 9]).await;
            assert_eq!((calls, result.unwrap_err().to_string().as_str()), (1, "k"));
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry {
            tries: 9,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_millis(350),
        };
        for (failed, most) in [(1, 100), (2, 200), (3, 350), (90, 350)] {
            let (wait, most) = (retry.wait(failed), Duration::from_millis(most));
            assert!(wait <= most && wait >= most / 2, "{failed}: {wait:?}");
        }
    }
}
