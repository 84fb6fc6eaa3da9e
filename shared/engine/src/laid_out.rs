//! Weights of convolutions in bytes, out of the pack's panels and rows in the order in which the kernels read them.
//!
//! Packs keep one form of a weight, which plans in f32 and the portable graph read too. Kernels take it in another order,
//! made when a weight is first read and kept, one for all plans of a pack.

use crate::kernels::int8::layout::{lay_out, lay_out_taps};
use crate::panels::deadline;
use glowplug_pack::int8::{PIXEL, Runs, taps_bytes};
use glowplug_pack::{EncodedPanel, Encoding, Form, Pack, Region, WeightId};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tract_core::internal::{TractErrorContext as _, TractResult, bail, ensure};

/// How a weight is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// Panels of filters that meet runs of bytes.
    Runs(Runs),
    /// The taps of one channel per group.
    Taps,
}

/// The weights of a pack that were asked for so far, in each order.
#[derive(Default)]
pub(crate) struct LaidOutWeights(Mutex<HashMap<(WeightId, Reading), Arc<LaidOut>>>);

impl LaidOutWeights {
    /// Weight `id`. Errors: one that is not stored in int8. Takes no memory for values yet.
    pub(crate) fn get(
        &self,
        pack: &Pack,
        region: &Arc<Region>,
        id: WeightId,
        reading: Reading,
    ) -> TractResult<Arc<LaidOut>> {
        // A panic of whoever held the lock cannot leave the table half-changed.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&(id, reading)) {
            return Ok(found.clone());
        }
        let stored = match (&pack.weight(id)?.form, reading) {
            (
                &Form::EncodedPanels {
                    panel: panel @ EncodedPanel { encoding: Encoding::Int8, .. },
                    panel_bytes,
                    ..
                },
                Reading::Runs(runs),
            ) => {
                let taps = runs.kernel.0 * runs.kernel.1;
                ensure!(panel.k == runs.channels * taps, "panels {} deep for {runs:?}", panel.k);
                Stored { skip: panel.r * size_of::<f32>(), len: panel.k * panel.r, stride: panel_bytes }
            }
            (Form::EncodedRows { encoding: Encoding::Int8, shape }, Reading::Taps) => {
                let len = shape.iter().skip(1).product();
                Stored { skip: size_of::<f32>(), len, stride: size_of::<f32>() + len }
            }
            (form, _) => bail!("a weight of {form:?}, expected int8"),
        };
        let range = pack.weight_range(id)?;
        let made =
            Arc::new(LaidOut { region: region.clone(), range, stored, reading, values: OnceLock::new() });
        known.insert((id, reading), made.clone());
        Ok(made)
    }
}

/// Where the bytes of a panel or row lie in the pack: behind its scales.
#[derive(Clone, Copy, Debug)]
struct Stored {
    skip: usize,
    len: usize,
    /// From one to the next.
    stride: usize,
}

/// A weight in the order of the kernels.
pub(crate) struct LaidOut {
    region: Arc<Region>,
    /// Its bytes in the file.
    range: Range<u64>,
    stored: Stored,
    reading: Reading,
    values: OnceLock<Box<[i8]>>,
}

/// The same weight of the same region, read alike.
impl PartialEq for LaidOut {
    fn eq(&self, other: &LaidOut) -> bool {
        Arc::ptr_eq(&self.region, &other.region)
            && (&self.range, self.reading) == (&other.range, other.reading)
    }
}

impl Eq for LaidOut {}

impl fmt::Debug for LaidOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaidOut({:?}, {:?})", self.range, self.reading)
    }
}

impl LaidOut {
    /// Its values, once its bytes are there. Errors: bytes that do not come until this run's deadline; weights whose sums
    /// could exceed 16 bits.
    pub(crate) fn get(&self) -> TractResult<&[i8]> {
        if let Some(values) = self.values.get() {
            return Ok(values);
        }
        let made = self.lay_out(self.region.wait(self.range.clone(), deadline())?)?;
        // Who comes second made the same.
        Ok(self.values.get_or_init(|| made))
    }

    fn lay_out(&self, bytes: &[u8]) -> TractResult<Box<[i8]>> {
        let Stored { skip, len, stride } = self.stored;
        let parts = bytes.chunks(stride).map(|part| part.get(skip..skip + len));
        let parts = parts.collect::<Option<Vec<_>>>().context("a weight shorter than its form")?;
        // Parts that lie together, and the bytes that these take.
        let (together, each) = match &self.reading {
            Reading::Runs(runs) => (1, runs.panel_bytes()),
            Reading::Taps => (PIXEL, taps_bytes(len)),
        };
        let count = parts.len().div_ceil(together);
        let mut values = vec![0i8; each.checked_mul(count).context("a weight too large")?];
        let fits = parts.iter().enumerate().all(|(i, part)| {
            let to = &mut values[i / together * each..][..each];
            match &self.reading {
                Reading::Runs(runs) => lay_out(runs, part, to),
                Reading::Taps => lay_out_taps(part, i % together, to),
            }
        });
        ensure!(fits, "weights in int8 whose sums could exceed 16 bits");
        Ok(values.into_boxed_slice())
    }
}
