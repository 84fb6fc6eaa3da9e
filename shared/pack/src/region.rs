//! `Region`: the bytes of one pack in memory, some of which may still be on their way.
//!
//! The store makes it (over a mapped file, or over a buffer that a transfer fills) and delivers chunks;
//! the engine waits for ranges and reads them. The two never meet otherwise: bytes can only be waited for
//! once their chunk's hash held, and they never change after that.
//!
//! Entropy-coded chunks are decoded on their way in: as they are delivered, or, where the file lies on this machine, by
//! whoever waits for them first.

use crate::entropy;
use crate::error::{ErrorKind, PackError};
use crate::header::Chunk;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Memory that a [`Region`] reads from.
///
/// # Safety
/// For as long as the value lives, `base()` returns the same pointer, and `len()` bytes from it on are
/// initialised and valid for reads by any thread. For [`Region::pending`] they are also valid for writes
/// through that pointer, and nobody else writes or reads them.
#[allow(unsafe_code, reason = "a region reads memory that an opaque owner keeps alive")]
pub unsafe trait Memory: Send + Sync + 'static {
    /// The first byte.
    fn base(&self) -> NonNull<u8>;
    /// How many bytes there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Zeroed heap memory, aligned so that the kernel may back large ones by huge pages.
pub struct Buffer {
    base: NonNull<u8>,
    len: usize,
    /// What was allocated: `base` lies inside of it.
    allocation: NonNull<u8>,
    layout: Layout,
}

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

#[allow(unsafe_code, reason = "aligned memory that threads fill chunk by chunk cannot be a Vec")]
impl Buffer {
    /// `len` zero bytes, 4 KiB aligned (2 MiB aligned from 2 MiB on). Errors: `len` exceeds the address
    /// space. The pages are not touched before they are used.
    pub fn zeroed(len: usize) -> Result<Buffer, PackError> {
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
        // Aligned by hand: an allocation of larger alignment is zeroed by writing to all of it (a quarter of
        // a second for 96 MB), while one of the allocator's own alignment comes as untouched pages.
        let layout = len.checked_add(align).and_then(|size| Layout::from_size_align(size, 16).ok());
        let layout = layout.ok_or_else(|| {
            PackError::new(ErrorKind::Invalid, format!("a buffer of {len} bytes is too large"))
        })?;
        // SAFETY: the layout's size is at least `align`, which is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(start) else { handle_alloc_error(layout) };
        let gap = start.addr().next_multiple_of(align) - start.addr();
        // SAFETY: `gap < align`, so `base` and the `len` bytes from it on lie inside of the allocation.
        let base = unsafe { allocation.add(gap) };
        Ok(Buffer { base, len, allocation, layout })
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Result<Buffer, PackError> {
        let buffer = Buffer::zeroed(bytes.len())?;
        // SAFETY: `base` is valid for `len` writes, and a fresh allocation overlaps nothing.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.base.as_ptr(), bytes.len()) };
        Ok(buffer)
    }
}

#[allow(unsafe_code, reason = "frees what `zeroed` allocated")]
impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `allocation` was allocated with this layout and is freed only here.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) };
    }
}

// SAFETY: `base` is owned, never moves, was zeroed, and is valid for reads and writes until drop; the only
// way to write through a `Buffer` is the region that owns it.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Memory for Buffer {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
}
// SAFETY: the pointer is to owned heap memory without thread affinity.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Send for Buffer {}
// SAFETY: `&Buffer` offers no access to the bytes but through `Memory`, whose contract the region keeps.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Sync for Buffer {}

const MISSING: u8 = 0;
/// Missing, and somebody waits for it or will soon.
const WANTED: u8 = 1;
const WRITING: u8 = 2;
const VERIFIED: u8 = 3;

/// The bytes of one pack, addressed by their offset in memory: that in the file, where nothing is entropy-coded.
pub struct Region {
    memory: Box<dyn Memory>,
    /// The file, where chunks are decoded from one on this machine.
    file: Option<Box<Region>>,
    /// Empty where all bytes have been there from the start.
    chunks: Vec<Chunk>,
    states: Vec<AtomicU8>,
    /// Why no more chunks will come, if so.
    stopped: Mutex<Option<PackError>>,
    arrived: Condvar,
}

impl Region {
    /// A region whose bytes are all there: a mapped file, or a copy.
    #[must_use]
    pub fn complete(memory: impl Memory) -> Region {
        Region::new(Box::new(memory), Vec::new())
    }

    /// A region whose `chunks` will be delivered. Errors: a chunk outside of the memory, chunks that
    /// overlap or are out of order.
    pub fn pending(memory: impl Memory, chunks: Vec<Chunk>) -> Result<Region, PackError> {
        let mut end = 0u64;
        for (i, chunk) in chunks.iter().enumerate() {
            let next = chunk.offset.checked_add(chunk.len as u64);
            match next {
                Some(next) if chunk.offset >= end && next <= memory.len() as u64 => end = next,
                _ => {
                    let text = format!(
                        "chunk {i} at {} of {} bytes, region of {}",
                        chunk.offset,
                        chunk.len,
                        memory.len()
                    );
                    return Err(PackError::new(ErrorKind::Invalid, text));
                }
            }
        }
        Ok(Region::new(Box::new(memory), chunks))
    }

    /// A region whose `chunks` are brought from `file`, which is complete: each when it is waited for first, by the thread
    /// that does, or by [`Region::bring`] before. What comes from such a file is not hashed.
    ///
    /// Errors: as [`Region::pending`]; a chunk outside of the file.
    pub fn decoding(memory: impl Memory, file: Region, chunks: Vec<Chunk>) -> Result<Region, PackError> {
        for (index, chunk) in chunks.iter().enumerate() {
            file.wait(chunk.stored(), None).map_err(|e| e.within(format_args!("chunk {index}")))?;
        }
        Ok(Region { file: Some(Box::new(file)), ..Region::pending(memory, chunks)? })
    }

    fn new(memory: Box<dyn Memory>, chunks: Vec<Chunk>) -> Region {
        let states = chunks.iter().map(|_| AtomicU8::new(MISSING)).collect();
        Region { memory, file: None, chunks, states, stopped: Mutex::new(None), arrived: Condvar::new() }
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no byte is missing any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.states.iter().all(|s| s.load(Ordering::Acquire) == VERIFIED)
    }

    /// Hands over what the file has for chunk `index`: hashes it, copies or decodes it into place and wakes who waits.
    /// A chunk that is already there is left alone. Errors: no such chunk, another length, another hash
    /// ([`ErrorKind::Corrupt`]; nothing is written then, and the right bytes may still be delivered); a chunk that cannot be
    /// decoded.
    pub fn deliver(&self, index: usize, bytes: &[u8]) -> Result<(), PackError> {
        let chunk = self.chunk(index)?;
        if bytes.len() != chunk.stored_len {
            return Err(PackError::corrupt(format!(
                "chunk {index}: {} bytes, expected {}",
                bytes.len(),
                chunk.stored_len
            )));
        }
        chunk.check(index, bytes)?;
        if self.claim(index) { self.fill(index, chunk, bytes) } else { Ok(()) }
    }

    /// Decodes chunk `index` from the file that the region was made over, unless it is there or another thread is at it. Of
    /// no effect on other regions. Errors: no such chunk; a chunk that cannot be decoded, which whoever waits for it is told
    /// too.
    pub fn bring(&self, index: usize) -> Result<(), PackError> {
        let chunk = self.chunk(index)?;
        match &self.file {
            Some(file) if self.claim(index) => self.fill(index, chunk, file.wait(chunk.stored(), None)?),
            _ => Ok(()),
        }
    }

    /// What the file has for `chunk`, where the region was made over one.
    pub(crate) fn stored(&self, chunk: &Chunk) -> Option<Result<&[u8], PackError>> {
        self.file.as_ref().map(|file| file.wait(chunk.stored(), None))
    }

    fn chunk(&self, index: usize) -> Result<&Chunk, PackError> {
        self.chunks.get(index).ok_or_else(|| {
            PackError::new(ErrorKind::Invalid, format!("chunk {index} of a region of {}", self.chunks.len()))
        })
    }

    /// Turns a missing chunk into one that this thread is writing. False where it is there, or another thread's.
    fn claim(&self, index: usize) -> bool {
        let state = &self.states[index];
        let claim =
            |from| state.compare_exchange(from, WRITING, Ordering::Acquire, Ordering::Acquire).is_ok();
        // Missing chunks become wanted at any time, wanted ones never missing again: in this order none slips by.
        claim(MISSING) || claim(WANTED)
    }

    /// Writes a chunk that this thread has claimed, from what the file has for it, and wakes who waits. A chunk that cannot
    /// be decoded is missing again.
    #[allow(unsafe_code, reason = "writes into memory that readers hold no reference to yet")]
    fn fill(&self, index: usize, chunk: &Chunk, stored: &[u8]) -> Result<(), PackError> {
        let start = usize::try_from(chunk.offset).map_err(|_| PackError::corrupt("chunk offset"))?;
        // SAFETY: `pending` checked that the chunk lies inside the memory and overlaps no other, and the
        // memory's contract makes it initialised and valid for writes. This thread alone turned the state to WRITING,
        // and `wait` gives out references only to VERIFIED chunks, so nobody else reads or writes these bytes now.
        let to = unsafe { std::slice::from_raw_parts_mut(self.memory.base().as_ptr().add(start), chunk.len) };
        let filled = if chunk.is_coded() {
            entropy::decode(stored, to).map_err(|e| e.within(format_args!("chunk {index}")))
        } else {
            to.copy_from_slice(stored);
            Ok(())
        };
        self.states[index].store(if filled.is_ok() { VERIFIED } else { WANTED }, Ordering::Release);
        // The lock orders this store before any check that a waiter makes under it: no wake-up is lost.
        drop(self.lock());
        self.arrived.notify_all();
        filled
    }

    /// Marks the missing chunks of `range` as wanted, so that the transfer brings them next. Never
    /// waits and needs no thanks: what lies outside of the region is passed over. For who needs several ranges
    /// and would otherwise tell of each only when it waits for it.
    pub fn want(&self, range: &Range<u64>) {
        let first = self.chunks.partition_point(|c| c.range().end <= range.start);
        let chunks = self.chunks.iter().zip(&self.states).skip(first);
        for (_, state) in chunks.take_while(|(chunk, _)| chunk.offset < range.end) {
            // Of no effect on what is there or on its way in. Orders no memory: it is a hint.
            let _ = state.compare_exchange(MISSING, WANTED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether chunk `index` is missing and was asked for by [`Region::wait`] or [`Region::want`].
    #[must_use]
    pub fn is_wanted(&self, index: usize) -> bool {
        self.states.get(index).is_some_and(|state| state.load(Ordering::Relaxed) == WANTED)
    }

    /// Ends every wait, now and later, for bytes that are not there. The first reason stays.
    pub fn fail(&self, error: PackError) {
        self.lock().get_or_insert(error);
        self.arrived.notify_all();
    }

    /// [`Region::fail`] with [`ErrorKind::Cancelled`]: nobody needs the rest.
    pub fn cancel(&self) {
        self.fail(PackError::new(ErrorKind::Cancelled, "the load was cancelled"));
    }

    /// The bytes `range`, waiting until their chunks have been verified or `deadline` passes; chunks of a file on this
    /// machine are decoded by the caller instead. Errors: a range outside of the region or of its chunks;
    /// [`ErrorKind::Timeout`]; whatever the transfer failed with; a chunk that cannot be decoded. Cost: one atomic load per
    /// chunk where the bytes are there.
    pub fn wait(&self, range: Range<u64>, deadline: Option<Instant>) -> Result<&[u8], PackError> {
        let (start, end) = match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) if start <= end && end <= self.len() => (start, end),
            _ => {
                let text = format!("bytes {range:?} of a pack of {}", self.len());
                return Err(PackError::new(ErrorKind::Invalid, text));
            }
        };
        if !self.chunks.is_empty() && start < end {
            self.wait_for_chunks(&range, deadline)?;
        }
        Ok(self.slice(start, end))
    }

    #[allow(unsafe_code, reason = "the one place where verified bytes become a slice")]
    fn slice(&self, start: usize, end: usize) -> &[u8] {
        // SAFETY: `wait` checked `start <= end <= len`; the memory is initialised and lives as long as
        // `self`; the bytes are either complete from the start or in VERIFIED chunks, which `deliver`
        // never writes again, and the Acquire load that saw VERIFIED pairs with its Release store.
        unsafe { std::slice::from_raw_parts(self.memory.base().as_ptr().add(start), end - start) }
    }

    fn wait_for_chunks(&self, range: &Range<u64>, deadline: Option<Instant>) -> Result<(), PackError> {
        let first = self.chunks.partition_point(|c| c.range().end <= range.start);
        let (mut at, mut index) = (range.start, first);
        while at < range.end {
            match self.chunks.get(index) {
                Some(chunk) if chunk.offset <= at => {
                    if !self.is_there(index) {
                        self.want(&(at..range.end));
                        self.wait_for_chunk(index, deadline)?;
                    }
                    at = chunk.range().end;
                    index += 1;
                }
                _ => {
                    let text = format!("byte {at} belongs to no chunk, bytes {range:?} wanted");
                    return Err(PackError::new(ErrorKind::Invalid, text));
                }
            }
        }
        Ok(())
    }

    fn is_there(&self, index: usize) -> bool {
        self.states[index].load(Ordering::Acquire) == VERIFIED
    }

    fn wait_for_chunk(&self, index: usize, deadline: Option<Instant>) -> Result<(), PackError> {
        let mut stopped = self.lock();
        loop {
            if self.is_there(index) {
                return Ok(());
            }
            if let Some(file) = self.file.as_ref().filter(|_| self.claim(index)) {
                drop(stopped);
                let chunk = &self.chunks[index];
                return self.fill(index, chunk, file.wait(chunk.stored(), None)?);
            }
            if let Some(error) = &*stopped {
                return Err(error.clone());
            }
            stopped = match deadline {
                None => self.arrived.wait(stopped).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let text = format!("chunk {index} of {} did not arrive in time", self.chunks.len());
                        return Err(PackError::new(ErrorKind::Timeout, text));
                    }
                    self.arrived.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// A panic elsewhere cannot leave the reason half-written, so poison is of no concern.
    fn lock(&self) -> MutexGuard<'_, Option<PackError>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let there = self.states.iter().filter(|s| s.load(Ordering::Relaxed) == VERIFIED).count();
        write!(f, "Region({} bytes, {there} of {} chunks)", self.len(), self.chunks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    /// Two chunks of 4 bytes with a hole of 2 between them.
    fn region() -> (Region, [[u8; 4]; 2]) {
        let bytes = [[1, 2, 3, 4], [5, 6, 7, 8]];
        let chunk = |offset, i: usize| Chunk {
            offset,
            len: 4,
            stored_offset: offset,
            stored_len: 4,
            hash: *blake3::hash(&bytes[i]).as_bytes(),
        };
        let region = Region::pending(Buffer::zeroed(10).unwrap(), vec![chunk(0, 0), chunk(6, 1)]).unwrap();
        (region, bytes)
    }

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        for (len, align) in [(0, PAGE), (1, PAGE), (HUGE_PAGE - 1, PAGE), (HUGE_PAGE + 1, HUGE_PAGE)] {
            let buffer = Buffer::zeroed(len).unwrap();
            assert!(buffer.base().addr().get().is_multiple_of(align) && buffer.len() == len);
            let region = Region::complete(buffer);
            assert!(region.wait(0..len as u64, None).unwrap().iter().all(|b| *b == 0));
        }
        assert!(Buffer::zeroed(usize::MAX).is_err());
    }

    #[test]
    fn bytes_can_be_waited_for_once_their_hash_held() {
        let (region, bytes) = region();
        let now = Some(Instant::now());
        assert_eq!(region.wait(0..2, now).unwrap_err().kind(), ErrorKind::Timeout);
        let e = region.deliver(0, &bytes[1]).unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains("chunk 0 (bytes 0 to 4)"), "{e}");
        region.deliver(0, &bytes[0]).unwrap();
        region.deliver(0, &bytes[0]).unwrap();
        assert_eq!(region.wait(1..4, now).unwrap(), [2, 3, 4]);
        assert_eq!(region.wait(6..7, now).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(!region.is_complete());
        region.deliver(1, &bytes[1]).unwrap();
        assert!(region.is_complete());
    }

    #[test]
    fn what_is_waited_for_is_wanted_until_it_is_there() {
        let (region, bytes) = region();
        let wanted = |region: &Region| [0, 1, 2].map(|i| region.is_wanted(i));
        assert_eq!(wanted(&region), [false; 3]);
        region.want(&(8..99));
        assert_eq!(wanted(&region), [false, true, false]);
        region.wait(0..1, Some(Instant::now())).unwrap_err();
        assert_eq!(wanted(&region), [true, true, false]);
        region.deliver(1, &bytes[1]).unwrap();
        region.want(&(0..10));
        assert_eq!(wanted(&region), [true, false, false]);
        assert_eq!(region.wait(6..10, None).unwrap(), bytes[1]);
    }

    #[test]
    fn a_range_outside_or_between_chunks_is_an_error_and_not_a_wait() {
        let (region, bytes) = region();
        region.deliver(0, &bytes[0]).unwrap();
        #[allow(clippy::reversed_empty_ranges)]
        for range in [0..11, 3..6, 4..5, 5..2] {
            assert_eq!(region.wait(range, None).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(region.wait(9..9, None).unwrap(), [0u8; 0]);
    }

    #[test]
    fn a_waiter_wakes_for_bytes_and_for_failures() {
        for fail in [false, true] {
            let (region, bytes) = region();
            let region = Arc::new(region);
            let waiter = std::thread::spawn({
                let region = region.clone();
                move || region.wait(0..4, None).map(<[u8]>::to_vec)
            });
            std::thread::sleep(Duration::from_millis(5));
            if fail {
                region.fail(PackError::new(ErrorKind::Failed, "403"));
                region.cancel();
                assert_eq!(waiter.join().unwrap().unwrap_err().to_string(), "403");
            } else {
                region.deliver(0, &bytes[0]).unwrap();
                assert_eq!(waiter.join().unwrap().unwrap(), bytes[0]);
            }
        }
    }

    #[test]
    fn chunks_outside_of_the_memory_are_refused() {
        let chunk =
            |offset, len| Chunk { offset, len, stored_offset: offset, stored_len: len, hash: [0; 32] };
        for chunks in [vec![chunk(8, 4)], vec![chunk(u64::MAX, 4)], vec![chunk(0, 4), chunk(2, 4)]] {
            assert!(Region::pending(Buffer::zeroed(10).unwrap(), chunks).is_err());
        }
    }

    #[test]
    fn concurrent_deliveries_of_one_chunk_write_it_once() {
        let (region, bytes) = region();
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| region.deliver(0, &bytes[0]).unwrap());
                s.spawn(|| assert_eq!(region.wait(0..4, None).unwrap(), bytes[0]));
            }
        });
    }
}
