//! `Arena`: large blocks out of one range of memory, lowest place first.
//!
//! A run takes and frees a few dozen large blocks, most of them in the order of a stack. The lowest place that
//! fits, with free neighbours joined, keeps such a run within little more than it holds at its fullest moment.

use std::ptr::NonNull;

/// Every block starts at a multiple of this, and so is as long.
pub(super) const GRAIN: usize = 4096;

/// A free stretch, told in its own first bytes: they were used before, so writing there touches no new page.
struct Free {
    len: usize,
    next: Option<NonNull<Free>>,
}

/// A range of memory: blocks in use, free stretches between them, and a part that was never used.
pub(super) struct Arena {
    /// The free stretches, by address. No two of them touch, and none touches `top`.
    first: Option<NonNull<Free>>,
    /// The lowest address that was never used, or is free as all above it is.
    top: Option<NonNull<u8>>,
    /// Bytes from `top` on.
    left: usize,
}

// SAFETY: the memory that the pointers lead to belongs to the arena alone, on whichever thread it is.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Send for Arena {}

#[allow(unsafe_code, reason = "an allocator keeps its books in the memory that it hands out")]
impl Arena {
    /// An arena without memory.
    pub(super) const fn empty() -> Arena {
        Arena { first: None, top: None, left: 0 }
    }

    /// The `len` bytes from `base` on. For ever, since nobody knows when the last block is given back.
    ///
    /// # Safety
    /// They are valid for reads and writes as long as the process lives, nobody else uses them, and `base` is a
    /// multiple of [`GRAIN`].
    pub(super) const unsafe fn over(base: NonNull<u8>, len: usize) -> Arena {
        Arena { first: None, top: Some(base), left: len / GRAIN * GRAIN }
    }

    /// A block of at least `size` bytes, at a multiple of [`GRAIN`]; nothing where none fits.
    pub(super) fn take(&mut self, size: usize) -> Option<NonNull<u8>> {
        let size = grains(size)?;
        let mut link = &raw mut self.first;
        // SAFETY: `link` is `first` or the `next` of a free stretch, and free stretches belong to the arena.
        // A stretch of `len` bytes is split inside of itself, at a multiple of GRAIN, which leaves the rest room
        // for its own record.
        unsafe {
            while let Some(free) = *link {
                let Free { len, next } = free.read();
                if len >= size {
                    *link = match len - size {
                        0 => next,
                        rest => {
                            let after = free.byte_add(size);
                            after.write(Free { len: rest, next });
                            Some(after)
                        }
                    };
                    return Some(free.cast());
                }
                link = &raw mut (*free.as_ptr()).next;
            }
        }
        let block = self.top.filter(|_| size <= self.left)?;
        // SAFETY: `left` bytes follow `top`.
        self.top = Some(unsafe { block.add(size) });
        self.left -= size;
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from [`Arena::take`] of this arena with the same `size`, was not given back since, and nobody
    /// uses it any more.
    pub(super) unsafe fn give(&mut self, block: NonNull<u8>, size: usize) {
        let (Some(size), Some(top)) = (grains(size), self.top) else { return };
        let mut given = block.cast::<Free>();
        let mut len = size;
        let mut link = &raw mut self.first;
        let mut below: Option<(*mut Option<NonNull<Free>>, NonNull<Free>)> = None;
        // SAFETY: as in `take`; the block given back is the arena's again. Joined stretches are adjacent.
        unsafe {
            while let Some(free) = (*link).filter(|free| free.addr() < block.addr()) {
                below = Some((link, free));
                link = &raw mut (*free.as_ptr()).next;
            }
            let mut next = *link;
            if let Some(above) = next.filter(|above| block.byte_add(size).addr() == above.addr()) {
                len += above.as_ref().len;
                next = above.as_ref().next;
            }
            if let Some((to_below, free)) = below
                && free.byte_add(free.as_ref().len).addr() == block.addr()
            {
                len += free.as_ref().len;
                (given, link) = (free, to_below);
            }
            if given.byte_add(len).addr() == top.addr() {
                *link = next;
                self.top = Some(given.cast());
                self.left += len;
            } else {
                given.write(Free { len, next });
                *link = Some(given);
            }
        }
    }
}

/// `size` rounded up; nothing where that overflows.
fn grains(size: usize) -> Option<usize> {
    size.max(1).checked_next_multiple_of(GRAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{Layout, alloc, dealloc};

    const LEN: usize = 256 * GRAIN;

    /// Runs `f` on an arena over memory of its own.
    #[allow(unsafe_code, reason = "the arena's contract")]
    fn with_arena(f: impl FnOnce(&mut Arena, NonNull<u8>)) {
        let layout = Layout::from_size_align(LEN, GRAIN).unwrap();
        // SAFETY: the layout is not empty; the memory outlives the arena, which `f` cannot keep.
        unsafe {
            let base = NonNull::new(alloc(layout)).unwrap();
            f(&mut Arena::over(base, LEN), base);
            dealloc(base.as_ptr(), layout);
        }
    }

    #[allow(unsafe_code, reason = "the arena's contract")]
    fn give(arena: &mut Arena, block: NonNull<u8>, size: usize) {
        // SAFETY: the tests give back what they took, once, with its size.
        unsafe { arena.give(block, size) };
    }

    #[test]
    fn the_lowest_place_that_fits_is_taken() {
        with_arena(|arena, base| {
            let blocks: Vec<_> = [3, 1, 2, 1].map(|n| arena.take(n * GRAIN).unwrap()).into();
            give(arena, blocks[0], 3 * GRAIN);
            give(arena, blocks[2], 2 * GRAIN);
            assert_eq!(arena.take(GRAIN + 1), Some(base), "in the first hole, though the second fits better");
            assert_eq!(arena.take(2 * GRAIN), Some(blocks[2]));
            assert_eq!(arena.take(1).unwrap().addr().get(), base.addr().get() + 2 * GRAIN);
            assert!(arena.take(LEN).is_none() && arena.take(usize::MAX).is_none());
        });
        assert!(Arena::empty().take(1).is_none());
    }

    #[test]
    fn blocks_do_not_overlap_and_everything_comes_back() {
        with_arena(|arena, base| {
            let (mut live, mut random): (Vec<(NonNull<u8>, usize)>, u64) = (Vec::new(), 7);
            for _ in 0..20_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pick = usize::try_from(random >> 33).unwrap();
                if pick % 5 < 2 && !live.is_empty() {
                    let (block, size) = live.swap_remove(pick % live.len());
                    give(arena, block, size);
                } else if let Some(block) = arena.take(pick % (9 * GRAIN)) {
                    let (size, start) = (pick % (9 * GRAIN), block.addr().get());
                    let end = start + grains(size).unwrap();
                    assert!(start.is_multiple_of(GRAIN) && end <= base.addr().get() + LEN);
                    for (other, size) in &live {
                        let other = other.addr().get();
                        assert!(end <= other || other + grains(*size).unwrap() <= start);
                    }
                    live.push((block, size));
                }
            }
            live.drain(..).for_each(|(block, size)| give(arena, block, size));
            assert_eq!((arena.first, arena.top, arena.left), (None, Some(base), LEN));
        });
    }
}
