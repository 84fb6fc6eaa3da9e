//! A pack in a local file: mapped, so that nothing is copied and unread weights cost nothing.

use crate::error::{StoreError, StoreErrorKind};
use crate::packs::of_pack;
use glowplug_pack::{Memory, Pack, Region};
use memmap2::Mmap;
use std::fs::File;
use std::ptr::NonNull;

/// A mapped file, as memory of a region.
struct Mapped {
    base: NonNull<u8>,
    map: Mmap,
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

/// The pack in `file` and a complete region over a map of it. Reads and hashes the front part only.
pub(crate) fn open(key: &str, file: &File) -> Result<(Pack, Region), StoreError> {
    let region = Region::complete(map(file).map_err(|e| {
        StoreError::new(StoreErrorKind::Other, format!("object {key:?} cannot be mapped: {e}"))
    })?);
    let pack = Pack::from_complete(&region);
    Ok((pack.map_err(|e| of_pack(key, &e))?, region))
}

#[allow(unsafe_code, reason = "mapping is what makes a local pack load in a millisecond, whatever its size")]
fn map(file: &File) -> std::io::Result<Mapped> {
    // JUSTIFICATION: reading a 100 MB pack takes tens of milliseconds and as much memory; a map takes neither.
    // SAFETY: the bytes must not change while mapped. The store never changes a file in place, it only creates new
    // ones; packs are immutable by contract. Another program that writes into a pack in spite of that gets wrong
    // numbers, and one that truncates it a bus error: the same trust that a process has in its own executable.
    let map = unsafe { Mmap::map(file)? };
    // An empty map has a dangling, but not a null, pointer.
    let base = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
    Ok(Mapped { base, map })
}
