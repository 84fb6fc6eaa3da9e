//! Work shared out among the threads of a run.

use std::sync::atomic::{AtomicUsize, Ordering};
use tract_linalg::multithread::{Executor, current_tract_executor};

/// The output of an operator, written by several threads in places of their own.
#[derive(Clone, Copy)]
pub(crate) struct Output<T>(pub(crate) *mut T);

// SAFETY: whoever writes through it on several threads writes to disjoint places.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl<T: Send> Sync for Output<T> {}

/// How many threads this run may use.
pub(crate) fn threads() -> usize {
    match current_tract_executor() {
        Executor::MultiThread(pool) => pool.current_num_threads(),
        _ => 1,
    }
}

/// Calls `work` once with every number below `count`, on all threads of the run; in order where it has one.
pub(crate) fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    match current_tract_executor() {
        Executor::MultiThread(pool) if count > 1 => {
            let next = AtomicUsize::new(0);
            let take = || {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                numbers.take_while(|i| *i < count).for_each(&work);
            };
            pool.scope(|scope| {
                for _ in 1..pool.current_num_threads().min(count) {
                    scope.spawn(|_| take());
                }
                take();
            });
        }
        _ => (0..count).for_each(work),
    }
}
