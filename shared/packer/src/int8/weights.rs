//! Filters in int8 whose sums fit 16 bits.

use glowplug_pack::Encoding;
use glowplug_pack::encoding::{int8_nearest, int8_scale};
use glowplug_pack::int8::{MOST_STEPS, MOST_TAPS, Runs, SUM_LIMIT, most_of_a_group, tap_group};
use tract_core::internal::*;

/// How often a scale is made larger until its filter fits.
const MOST_TRIES: usize = 32;

/// Filters of a convolution, rounded.
pub(super) struct Filters {
    /// What they are now.
    pub(super) rounded: Arc<Tensor>,
    /// Of each filter.
    pub(super) scales: Vec<f32>,
    /// Each filter's weights, summed up.
    pub(super) sums: Vec<i32>,
}

impl Filters {
    pub(super) fn count(&self) -> usize {
        self.scales.len()
    }

    /// Of a kernel `[O, I, kh, kw]`, its bytes met as `runs` say, or `[C, 1, kh, kw]` of one channel per group. What fits
    /// already stays as it is. `None` where a filter holds what int8 has no place for, or is deeper than sums of 32 bits allow.
    pub(super) fn of(kernel: &Tensor, runs: Option<&Runs>) -> TractResult<Option<Filters>> {
        let [count, ..] = *kernel.shape() else { bail!("filters without an axis") };
        let plain = kernel.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        let depth = values.len() / count.max(1);
        if runs.map_or(depth > MOST_TAPS, |runs| runs.steps() > MOST_STEPS) {
            return Ok(None);
        }
        let group = |at: usize| match runs {
            Some(runs) => {
                let taps = runs.kernel.0 * runs.kernel.1;
                runs.group(at / taps, at % taps)
            }
            None => tap_group(at),
        };
        let (mut rounded, mut scales, mut sums) = (Vec::with_capacity(values.len()), Vec::new(), Vec::new());
        for filter in values.chunks_exact(depth.max(1)) {
            let Some(row) = row(filter, &group) else { return Ok(None) };
            let Some(bytes) = Encoding::Int8.encode_row(&row) else { return Ok(None) };
            let Some((scale, weights)) = bytes.split_first_chunk() else { return Ok(None) };
            scales.push(f32::from_le_bytes(*scale));
            sums.push(weights.iter().map(|w| i32::from(w.cast_signed())).sum());
            rounded.extend(row);
        }
        let rounded = Tensor::from_shape(kernel.shape(), &rounded)?.into_arc_tensor();
        Ok(Some(Filters { rounded, scales, sums }))
    }
}

/// One filter, rounded with the least scale that its sums fit with.
fn row(filter: &[f32], group: &impl Fn(usize) -> usize) -> Option<Vec<f32>> {
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let limit = SUM_LIMIT as f32;
    let most = |row: &[f32], scale: f32| {
        most_of_a_group(row.iter().enumerate().map(|(at, value)| (group(at), value / scale)))
    };
    if let Some(bytes) = Encoding::Int8.encode_row(filter) {
        let scale = f32::from_le_bytes(*bytes.first_chunk()?);
        if scale == 0.0 || most(filter, scale) <= limit {
            return Some(filter.to_vec());
        }
    }
    let mut scale = int8_scale(filter, 0.0).ok()?;
    for _ in 0..MOST_TRIES {
        if scale == 0.0 {
            return Some(vec![0.0; filter.len()]);
        }
        let row: Vec<f32> = filter.iter().map(|value| int8_nearest(*value, scale)).collect();
        let found = most(&row, scale);
        if found <= limit {
            return Some(row);
        }
        scale = int8_scale(filter, scale * (found / limit)).ok()?;
    }
    None
}
