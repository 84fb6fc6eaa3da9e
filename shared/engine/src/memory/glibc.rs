//! What glibc and Linux are told.

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, c_int, c_void};
use std::ptr::NonNull;

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
/// Blocks from here on are maps of their own: glibc's own figure, which would move without being set.
const MAPPED: c_int = 128 << 10;
/// Addresses of the heap's huge pages: several times what plans, parsers and connections take.
const HEAP: c_int = 16 << 20;
/// More than the heap has before it is made to grow.
const FIRST_BLOCK: usize = 256 << 10;
/// By how much the heap grows beyond what is asked for, once its huge pages are used up.
const STEP: c_int = 2 << 20;

/// Makes the heap of huge pages, and one for all threads: a model is loaded on one thread and run on another.
/// What was allocated before stays where it is.
#[allow(unsafe_code, reason = "the C library's settings and the system's advice are foreign functions")]
pub(super) fn prepare_heap() {
    // SAFETY: `mallopt` only sets numbers. The blocks are this function's own: freed, or kept for ever. `madvise`
    // is given whole pages between two addresses of this process' heap, which only ever grows, and changes no
    // content.
    unsafe {
        libc::mallopt(M_ARENA_MAX, 1);
        libc::mallopt(M_TRIM_THRESHOLD, c_int::MAX);
        libc::mallopt(M_MMAP_THRESHOLD, HEAP);
        libc::mallopt(M_TOP_PAD, HEAP);
        // Hidden from the compiler, which leaves out an allocation that nobody uses.
        let block = std::hint::black_box(libc::malloc(FIRST_BLOCK));
        libc::mallopt(M_TOP_PAD, STEP);
        if !block.is_null() {
            advise(block);
        }
        libc::mallopt(M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Asks for huge pages from behind `block` on, which was just allocated by making the heap grow, and frees it.
///
/// # Safety
/// `block` has [`FIRST_BLOCK`] bytes, and nobody uses it.
#[allow(unsafe_code, reason = "as `prepare_heap`")]
unsafe fn advise(block: *mut c_void) {
    // SAFETY: as `prepare_heap` says.
    unsafe {
        // Allocating has touched the page behind the block, so that one cannot be huge any more.
        let first_page = (block.addr() + FIRST_BLOCK + PAGE).next_multiple_of(HUGE_PAGE);
        let start: *mut c_void = block.with_addr(first_page);
        let len = libc::sbrk(0).addr().saturating_sub(first_page) / HUGE_PAGE * HUGE_PAGE;
        // Elsewhere than expected if the block came from a map of its own: then there is no heap to advise.
        let is_heap = len > 0 && len <= HEAP.unsigned_abs() as usize;
        if is_heap {
            libc::madvise(start, len, libc::MADV_HUGEPAGE);
        }
        libc::free(block);
        if is_heap {
            // What lies below the first huge page is kept from use: a plan built there would fault page by page.
            std::hint::black_box(libc::malloc(first_page - block.addr()));
        }
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
