//! The threads of one run. They are a pool's; while the run lasts they look for work without going to sleep.
//!
//! Waking a thread takes longer than many an operator runs, so workers of a pool that sleep between operators would
//! help with large ones only.

use crate::panels::{Waits, with_waits};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Instant;
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// How often a thread looks for work before it lets others have its processor, in case the run waits for bytes.
const LOOKS: u32 = 1 << 12;

/// The threads that share a plan's runs.
pub(crate) struct Team {
    executor: Executor,
    /// Held by the run that they share. Two runs of one pool would wait for each other.
    shared: Mutex<()>,
}

/// Sets the flag when it goes, also in a panic.
struct SetWhenGone<'a>(&'a AtomicBool);

impl Drop for SetWhenGone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Team {
    pub(crate) fn new(threads: usize) -> Team {
        Team { executor: Executor::multithread(threads), shared: Mutex::new(()) }
    }
}

/// Runs `work` on one of the team's threads, the others at its call; on this thread alone where there is no team, or
/// it is at another run.
pub(crate) fn run<R: Send>(
    team: Option<&Team>,
    deadline: Option<Instant>,
    work: impl FnOnce() -> R + Send,
) -> R {
    let free = team.and_then(|team| match team.shared.try_lock() {
        Ok(held) => Some((team, held)),
        // Nothing is behind the lock that a panic could leave half done.
        Err(TryLockError::Poisoned(held)) => Some((team, held.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    });
    let Some((Team { executor: executor @ Executor::MultiThread(pool), .. }, _held)) = &free else {
        return with_waits(Waits { deadline, helpers: false }, work);
    };
    pool.install(|| {
        let (done, this) = (AtomicBool::new(false), pool.current_thread_index());
        pool.scope(|scope| {
            scope.spawn_broadcast(|_, thread| {
                let mut looks = 0;
                while Some(thread.index()) != this && !done.load(Ordering::Acquire) {
                    // Does whatever waits to be done.
                    pool.yield_now();
                    if looks < LOOKS {
                        looks += 1;
                        spin_loop();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            let _done = SetWhenGone(&done);
            scope_of(executor.clone(), || with_waits(Waits { deadline, helpers: true }, work))
        })
    })
}

/// Runs `work` with `executor`. This thread has its own again afterwards, also after a panic.
pub(crate) fn scope_of<R>(executor: Executor, work: impl FnOnce() -> R) -> R {
    let result = multithread_tract_scope(executor, || catch_unwind(AssertUnwindSafe(work)));
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// A panic, several runs at once, and work that is shared out inside: everybody comes back.
    #[test]
    fn a_run_ends_for_all_of_its_threads() {
        let team = Team::new(3);
        let sum = |n: usize| {
            let sum = AtomicUsize::new(0);
            crate::share::for_each(n, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            sum.into_inner()
        };
        for _ in 0..50 {
            let panicked = catch_unwind(AssertUnwindSafe(|| run(Some(&team), None, || panic!("on purpose"))));
            assert!(panicked.is_err());
            std::thread::scope(|scope| {
                let runs: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| run(Some(&team), None, || sum(100)))).collect();
                assert!(runs.into_iter().all(|run| run.join().unwrap() == 4950));
            });
        }
        assert_eq!(run(None, None, || sum(10)), 45);
    }
}
