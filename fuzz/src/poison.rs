//! Bytes of a pack that the address sanitizer shall report, whoever reads them.

use glowplug_pack::{Form, Pack, PackError, Region, WeightId};

/// Poisons all of the file but the weights' values: the front, the gaps between weights and the ends of panels. The
/// allocator lifts it when the memory is used again. Without the sanitizer nothing happens.
pub fn all_but_weights(pack: &Pack, region: &Region) -> Result<(), PackError> {
    set(region.wait(0..region.len() as u64, None)?, true);
    for (weight, id) in pack.weights().iter().zip(0..) {
        let bytes = region.wait(pack.weight_range(WeightId(id))?, None)?;
        match &weight.form {
            Form::Plain { .. } | Form::EncodedRows { .. } => set(bytes, false),
            Form::Panels { dtype, k, r, panel_bytes, .. } => {
                bytes.chunks(*panel_bytes).for_each(|panel| set(&panel[..k * r * dtype.size()], false));
            }
            Form::EncodedPanels { panel, panel_bytes, .. } => {
                let len = panel.byte_len().unwrap_or(*panel_bytes);
                bytes.chunks(*panel_bytes).for_each(|panel| set(&panel[..len], false));
            }
        }
    }
    Ok(())
}

#[cfg(sanitize = "address")]
fn set(bytes: &[u8], poisoned: bool) {
    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const u8, len: usize);
        fn __asan_unpoison_memory_region(start: *const u8, len: usize);
    }
    // SAFETY: they touch the sanitizer's own books and none of `bytes`.
    unsafe {
        match poisoned {
            true => __asan_poison_memory_region(bytes.as_ptr(), bytes.len()),
            false => __asan_unpoison_memory_region(bytes.as_ptr(), bytes.len()),
        }
    }
}

#[cfg(not(sanitize = "address"))]
fn set(_bytes: &[u8], _poisoned: bool) {}
