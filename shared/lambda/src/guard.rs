//! The one place where handler code runs: a task of its own, so that neither a panic nor lateness takes the process.
//!
//! A task rather than `catch_unwind`: the timer also fires when the handler blocks its thread.

use tokio::time::timeout_at;
use tracing::{Instrument, Span};

use crate::{Error, ErrorKind, Invocation};

/// Why guarded work has no result.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It panicked. What it said is in the log, where the panic hook wrote it, and nowhere else: it may name anything.
    Panicked,
    /// The deadline came first; the work was cancelled.
    Late,
}

impl Broken {
    /// The error to report.
    pub(crate) fn error(&self, invocation: &Invocation) -> Error {
        let id = &invocation.request_id;
        match self {
            Self::Panicked => Error::internal(format!("the handler panicked, see the log of request {id}")),
            Self::Late => {
                Error::new(ErrorKind::Timeout, "the deadline of the invocation came before the answer")
            }
        }
    }
}

/// Runs `work` until it is done, panics, or the invocation's deadline passes. After the deadline nothing is begun.
pub(crate) async fn guard<T: Send + 'static>(
    invocation: &Invocation,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Broken> {
    if invocation.remaining().is_zero() {
        return Err(Broken::Late);
    }
    let mut task = tokio::spawn(work.instrument(Span::current()));
    let broken = match timeout_at(invocation.deadline.into(), &mut task).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(_)) => Broken::Panicked,
        Err(_) => {
            task.abort();
            Broken::Late
        }
    };
    tracing::error!(reason = ?broken, "handler gave no result");
    Err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn invocation(ms: u64) -> Invocation {
        Invocation::new("req-1", Duration::from_millis(ms))
    }

    #[tokio::test]
    async fn result_passes_through() {
        assert_eq!(guard(&invocation(10_000), async { 7 }).await.expect("a result"), 7);
    }

    #[tokio::test]
    async fn a_panic_is_caught_and_its_text_kept_from_the_caller() {
        let invocation = invocation(10_000);
        let broken = guard(&invocation, async { panic!("secret {}", 42) }).await.expect_err("a panic");
        assert!(matches!(&broken, Broken::Panicked), "{broken:?}");
        let error = broken.error(&invocation);
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("req-1") && !error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn late_work_is_cancelled() {
        let invocation = invocation(20);
        let broken = guard(&invocation, std::future::pending::<()>()).await.expect_err("late");
        assert_eq!(broken.error(&invocation).kind(), ErrorKind::Timeout);
    }

    #[tokio::test]
    async fn nothing_is_begun_after_the_deadline() {
        let broken = guard(&invocation(0), async { std::process::abort() }).await.expect_err("late");
        assert!(matches!(broken, Broken::Late));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_blocking_handler_is_still_late() {
        let (over, is_over) = std::sync::mpsc::channel();
        let blocking = async move {
            std::thread::sleep(Duration::from_secs(4));
            let _ = over.send(());
        };
        let broken = guard(&invocation(50), blocking).await.expect_err("late");
        assert!(matches!(broken, Broken::Late) && is_over.try_recv().is_err(), "the handler was waited for");
    }
}
