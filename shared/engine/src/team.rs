//! The threads of one run. They are a pool's; while the run lasts they look for work without going to sleep.
//!
//! Waking a thread takes longer than many an operator runs, so workers of a pool that sleep between operators would
//! help with large ones only.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Sets the flag when it goes, also in a panic.
struct SetWhenGone<'a>(&'a AtomicBool);

impl Drop for SetWhenGone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` on one of the executor's threads, the others at its call; on this thread where there is but one.
pub(crate) fn with<R: Send>(executor: Option<&Executor>, work: impl FnOnce() -> R + Send) -> R {
    let Some(executor @ Executor::MultiThread(pool)) = executor else { return work() };
    pool.install(|| {
        let (done, this) = (AtomicBool::new(false), pool.current_thread_index());
        pool.scope(|scope| {
            scope.spawn_broadcast(|_, thread| {
                while Some(thread.index()) != this && !done.load(Ordering::Acquire) {
                    // Does whatever waits to be done.
                    pool.yield_now();
                    spin_loop();
                }
            });
            let _done = SetWhenGone(&done);
            multithread_tract_scope(executor.clone(), work)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;

    /// A panic, several runs at once, and work that is shared out inside: everybody comes back.
    #[test]
    fn a_run_ends_for_all_of_its_threads() {
        let executor = Executor::multithread(3);
        let sum = |n: usize| {
            let sum = AtomicUsize::new(0);
            crate::ops::for_each(n, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            sum.into_inner()
        };
        for _ in 0..50 {
            let panicked = catch_unwind(AssertUnwindSafe(|| with(Some(&executor), || panic!("on purpose"))));
            assert!(panicked.is_err());
            std::thread::scope(|scope| {
                let runs: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| with(Some(&executor), || sum(100)))).collect();
                assert!(runs.into_iter().all(|run| run.join().unwrap() == 4950));
            });
        }
        assert_eq!(with(None, || sum(10)), 45);
    }
}
