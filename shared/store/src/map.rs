//! Memory for a pack: a local file is mapped, so that nothing is copied and unread weights cost nothing; what
//! comes over the network, or is entropy-coded, gets a map of its own, of huge pages, that goes back to the system with
//! the pack.

use crate::error::{StoreError, StoreErrorKind};
use crate::packs::of_pack;
use glowplug_pack::header::SectionKind;
use glowplug_pack::{ErrorKind, Header, Memory, Pack, PackError, Region};
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

/// A mapped file, as memory of a region.
struct Mapped {
    base: NonNull<u8>,
    map: Arc<Mmap>,
}

// SAFETY: the map lives in the same value as `base`, does not move its bytes, and is initialised memory that any
// thread may read. Nothing of ours writes to it: a region over a `Mapped` is made by `Region::complete` only.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Memory for Mapped {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.map.len()
    }
}

// SAFETY: `base` points into `map`, which is itself `Send` and `Sync`, and is only ever read through.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Send for Mapped {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Sync for Mapped {}

/// Zeroed memory that a transfer fills.
pub(crate) struct Anonymous {
    base: NonNull<u8>,
    map: MmapMut,
}

// SAFETY: as for `Mapped`; the map is private to this process and writable, and the only way to write is the
// region that owns it.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Memory for Anonymous {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.map.len()
    }
}

// SAFETY: as for `Mapped`.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Send for Anonymous {}
// SAFETY: as for `Mapped`.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Sync for Anonymous {}

/// `len` bytes, of huge pages where the system has them; no page is touched before it is used.
/// Errors: more than the system has addresses for.
pub(crate) fn anonymous(len: usize) -> Result<Anonymous, PackError> {
    let map = MmapMut::map_anon(len.max(1));
    let mut map = map
        .map_err(|e| PackError::new(ErrorKind::Invalid, format!("memory for a pack of {len} bytes: {e}")))?;
    // Only advice: where it is not taken, pages come one by one.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let base = NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling());
    Ok(Anonymous { base, map })
}

/// The pack in `file`, if `admit` has it, and a region over a map of it: complete, or where the pack is entropy-coded, one
/// whose chunks are decoded from the map as they are read. Reads and hashes the front part only.
pub(crate) fn open(
    key: &str,
    file: &File,
    admit: impl FnOnce(&Header) -> Result<(), StoreError>,
) -> Result<(Pack, Arc<Region>), StoreError> {
    let mapped = map(key, file)?;
    let (map, file) = (mapped.map.clone(), Region::complete(mapped));
    let pack = Pack::of_file(&file).map_err(|e| of_pack(key, &e))?;
    admit(pack.header())?;
    let blobs = pack.header().section(SectionKind::Blobs);
    if !pack.header().is_coded() {
        if let Some(blobs) = blobs {
            expect(map, blobs.range());
        }
        return Ok((pack, Arc::new(file)));
    }
    let decoding = || Region::decoding(anonymous(pack.memory_len()?)?, file, pack.chunks().to_vec());
    let region = Arc::new(decoding().map_err(|e| of_pack(key, &e))?);
    if let Some(blobs) = blobs {
        decode(&region, blobs.chunks.clone());
    }
    Ok((pack, region))
}

/// A file of the cache: what a pack is in memory, with as many bytes behind it as `behind` says. The region is complete.
pub(crate) fn open_memory(
    key: &str,
    file: &File,
    behind: impl FnOnce(&Header) -> u64,
) -> Result<(Pack, Region), StoreError> {
    let mapped = map(key, file)?;
    let (map, region) = (mapped.map.clone(), Region::complete(mapped));
    let read = || {
        let pack = Pack::parse(region.wait(0..region.len() as u64, None)?)?;
        let wanted = pack.header().memory_len.saturating_add(behind(pack.header()));
        let found = region.len() as u64;
        if found != wanted {
            let text = format!("{wanted} bytes wanted, found {found}");
            return Err(PackError::new(ErrorKind::Truncated, text));
        }
        Ok(pack)
    };
    let pack = read().map_err(|e| of_pack(key, &e))?;
    if let Some(blobs) = pack.header().section(SectionKind::Blobs) {
        expect(map, blobs.range());
    }
    Ok((pack, region))
}

/// Bytes from which on another thread may bring pages in, and how many it does at a time: no single step holds up
/// for long who maps or unmaps something meanwhile.
const STEP: usize = 1 << 20;

/// Brings the file's pages `range` into this process on a thread of its own, in order, since a first run reads them
/// all and each would be a fault. Only where there is a processor for it: it is the same work in another place.
fn expect(map: Arc<Mmap>, range: Range<u64>) {
    let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else { return };
    if end - start < STEP || !has_processor_for_it() {
        return;
    }
    let bring = move || {
        for at in (start..end.min(map.len())).step_by(STEP) {
            // Only advice: where it is not taken, pages come one by one.
            #[cfg(target_os = "linux")]
            let advice = memmap2::Advice::PopulateRead;
            #[cfg(not(target_os = "linux"))]
            let advice = memmap2::Advice::WillNeed;
            if map.advise_range(advice, at, STEP.min(end - at)).is_err() {
                return;
            }
        }
    };
    // Without a thread, pages come one by one.
    let _ = std::thread::Builder::new().name("glowplug-pages".into()).spawn(bring);
}

/// Decodes `chunks` on a thread of its own, in order, ahead of who reads them. It ends with the region.
fn decode(region: &Arc<Region>, chunks: Range<usize>) {
    if chunks.len() < 2 || !has_processor_for_it() {
        return;
    }
    let region = Arc::downgrade(region);
    let bring = move || {
        for index in chunks {
            // A chunk that cannot be decoded: whoever waits for it is told.
            if Weak::upgrade(&region).is_none_or(|region| region.bring(index).is_err()) {
                return;
            }
        }
    };
    // Without a thread, chunks are decoded one by one by who reads them.
    let _ = std::thread::Builder::new().name("glowplug-decode".into()).spawn(bring);
}

fn has_processor_for_it() -> bool {
    std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
}

fn map(key: &str, file: &File) -> Result<Mapped, StoreError> {
    try_map(file)
        .map_err(|e| StoreError::new(StoreErrorKind::Other, format!("object {key:?} cannot be mapped: {e}")))
}

#[allow(unsafe_code, reason = "mapping is what makes a local pack load in a millisecond, whatever its size")]
fn try_map(file: &File) -> std::io::Result<Mapped> {
    // JUSTIFICATION: reading a 100 MB pack takes tens of milliseconds and as much memory; a map takes neither.
    // SAFETY: the bytes must not change while mapped. The store never changes a file in place, it only creates new
    // ones; packs are immutable by contract. Another program that writes into a pack in spite of that gets wrong
    // numbers, and one that truncates it a bus error: the same trust that a process has in its own executable.
    let map = unsafe { Mmap::map(file)? };
    // An empty map has a dangling, but not a null, pointer.
    let base = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
    Ok(Mapped { base, map: Arc::new(map) })
}
