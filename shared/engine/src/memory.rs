//! How the process gets its memory: an allocator and one call at the start of `main`, the same for functions
//! and the CLI.
//!
//! A first inference touches tens of megabytes that no one touched before, the values between nodes above all,
//! and the system hands them out in pages of 4 KiB: a fault each, thousands of them, a third of the time.
//! What is freed goes back to the system, to be faulted in once more a node later. So large blocks come from an
//! arena of huge pages that keeps what it has, and small ones from a heap of huge pages
//! (docs/adr/0009-memory.md has the figures).

mod arena;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc;

use arena::{Arena, GRAIN};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses of the arena: what does not fit is the system's. Pages come when they are touched.
const ARENA_BYTES: usize = 1 << 30;
/// What is large: tensors and panels, and little else. What is larger still goes back to the system when freed.
const LARGE: Range<usize> = 64 << 10..32 << 20;

/// The arena's range; no address lies in it before [`prepare_process`].
static BASE: AtomicUsize = AtomicUsize::new(0);
static ARENA: Mutex<Arena> = Mutex::new(Arena::empty());

/// Prepares the process' memory for inference. Call it first in `main`; a second call changes nothing.
///
/// Takes addresses and no memory. Memory that was once used stays with the process. Where the system offers
/// less (no huge pages, no glibc) the calls that fail are left out: slower then, and nothing else.
pub fn prepare_process() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if BASE.load(Ordering::Relaxed) == 0 {
        glibc::prepare_heap();
        if let Some(base) = glibc::huge_pages(ARENA_BYTES) {
            // SAFETY: a fresh map of that many bytes at a huge page's boundary, which nobody knows and nobody ends.
            #[allow(unsafe_code, reason = "as the SAFETY comment says")]
            let arena = unsafe { Arena::over(base, ARENA_BYTES) };
            *lock() = arena;
            BASE.store(base.addr().get(), Ordering::Release);
        }
    }
}

/// No code that holds the lock panics, and none of it allocates.
fn lock() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's allocator for small blocks, an arena of huge pages for large ones once [`prepare_process`] ran.
/// For `#[global_allocator]`.
#[derive(Debug)]
pub struct Allocator;

impl Allocator {
    fn is_large(layout: Layout) -> bool {
        LARGE.contains(&layout.size()) && layout.align() <= GRAIN && BASE.load(Ordering::Acquire) != 0
    }

    /// Whether `block` lies in the arena.
    fn owns(block: *mut u8) -> bool {
        let base = BASE.load(Ordering::Acquire);
        base != 0 && block.addr().wrapping_sub(base) < ARENA_BYTES
    }
}

// SAFETY: a block comes either from the arena, which hands out disjoint ones, aligned to more than was asked for,
// or from `System`; and the address tells to whom it goes back. The arena's range never changes once it is set.
#[allow(unsafe_code, reason = "an allocator is an unsafe trait")]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Allocator::is_large(layout)
            && let Some(block) = lock().take(layout.size())
        {
            return block.as_ptr();
        }
        // SAFETY: the caller's promise about the layout is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Allocator::is_large(layout)
            && let Some(block) = lock().take(layout.size())
        {
            // SAFETY: the block has at least `size` bytes.
            unsafe { ptr::write_bytes(block.as_ptr(), 0, layout.size()) };
            return block.as_ptr();
        }
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match NonNull::new(block).filter(|_| Allocator::owns(block)) {
            // SAFETY: the caller gives back, once, a block that `alloc` took from the arena with this layout.
            Some(block) => unsafe { lock().give(block, layout.size()) },
            // SAFETY: the same, and it was `System` that gave it.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size` is not 0 and fits an `isize` when rounded up to the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if !Allocator::owns(block) && !Allocator::is_large(new_layout) {
            // SAFETY: the block is `System`'s, with this layout.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: as above; both blocks have the bytes that are copied, and a new one overlaps no other.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that grow and shrink across the border between system and arena keep their bytes.
    #[test]
    #[allow(unsafe_code, reason = "the allocator's contract")]
    fn blocks_move_between_system_and_arena() {
        prepare_process();
        let (least, limit) = (LARGE.start, LARGE.end);
        let sizes = [least / 2, least, 3 * least, least - 1, 40, limit - 1, limit, least + 1];
        let mut layout = Layout::from_size_align(40, 8).unwrap();
        // SAFETY: each block is used within its size and given back once, with its layout.
        unsafe {
            let mut block = Allocator.alloc_zeroed(layout);
            block.write_bytes(7, layout.size());
            for size in sizes {
                block = Allocator.realloc(block, layout, size);
                let kept = std::slice::from_raw_parts(block, 40);
                assert!(kept.iter().all(|b| *b == 7), "{size}");
                assert!(
                    cfg!(not(target_os = "linux")) || Allocator::owns(block) == LARGE.contains(&size),
                    "{size}"
                );
                layout = Layout::from_size_align(size, 8).unwrap();
            }
            Allocator.dealloc(block, layout);
            let odd = 4 * GRAIN;
            let layout = Layout::from_size_align(least, odd).unwrap();
            let block = Allocator.alloc(layout);
            assert!(!Allocator::owns(block) && block.addr().is_multiple_of(odd));
            Allocator.dealloc(block, layout);
        }
    }

    #[test]
    #[allow(unsafe_code, reason = "the allocator's contract")]
    fn zeroed_blocks_are_zero_though_they_were_used() {
        prepare_process();
        let layout = Layout::from_size_align(2 * LARGE.start, 64).unwrap();
        for _ in 0..3 {
            // SAFETY: the block is used within its size and given back once, with its layout.
            unsafe {
                let block = Allocator.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(block, layout.size()).iter().all(|b| *b == 0));
                block.write_bytes(1, layout.size());
                Allocator.dealloc(block, layout);
            }
        }
    }
}
