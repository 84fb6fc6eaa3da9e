//! What glibc and Linux are told.

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, c_int};
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;
/// Blocks from here on are maps of their own: glibc's own figure, which would move without being set.
const MAPPED: c_int = 128 << 10;
/// By how much the heap grows beyond what is asked for.
const STEP: c_int = 2 << 20;

/// Makes the heap keep what it has, and one for all threads: a model is loaded on one thread and run on another.
#[allow(unsafe_code, reason = "the C library's settings are a foreign function")]
pub(super) fn prepare_heap() {
    // SAFETY: `mallopt` only sets numbers.
    unsafe {
        libc::mallopt(M_ARENA_MAX, 1);
        libc::mallopt(M_TRIM_THRESHOLD, c_int::MAX);
        libc::mallopt(M_TOP_PAD, STEP);
        libc::mallopt(M_MMAP_THRESHOLD, MAPPED);
    }
}

/// A map of `len` bytes for ever, at a huge page's boundary, made of huge pages where the system has them.
#[allow(unsafe_code, reason = "mapping memory is a foreign function")]
pub(super) fn huge_pages(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: an anonymous map at a place of the system's choice touches nothing that exists; the advice is about
    // whole pages inside of it.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            len + HUGE_PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if map == libc::MAP_FAILED {
            return None;
        }
        let base = map.with_addr(map.addr().next_multiple_of(HUGE_PAGE));
        libc::madvise(base, len, libc::MADV_HUGEPAGE);
        NonNull::new(base.cast())
    }
}
