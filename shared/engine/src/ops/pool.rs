//! MaxPool and AveragePool over the two axes of an image, its channels in planes or in blocks.

use super::window::{Axis, axes};
use super::{filled, plan_op};
use glowplug_pack::plan::{CHANNEL_BLOCK, Window};
use tract_core::internal::{EvalContext, EvalOp, TValue, TVec, TractResult, not_out_of_plan};

/// What becomes of the values under a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolKind {
    /// The largest; padding never wins.
    Max,
    /// Their mean; padding counts as zeros, or not at all.
    Average { count_include_pad: bool },
}

/// One value for each position of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    kind: PoolKind,
    vertical: Axis,
    horizontal: Axis,
    /// Whether each position holds a block of channels instead of one value.
    blocked: bool,
    /// `[.., OH, OW]`, or `[.., OH, OW, 8]`.
    shape: Vec<usize>,
}
plan_op!(Pool);

impl Pool {
    /// Over planes of `height x width` positions.
    pub(crate) fn new(
        kind: PoolKind,
        window: &Window,
        (height, width): (usize, usize),
        shape: &[usize],
    ) -> Pool {
        let (vertical, horizontal) = axes(window, height, width);
        Pool { kind, vertical, horizontal, blocked: shape.len() == 5, shape: shape.to_vec() }
    }

    /// All planes, each position of `LANES` values.
    fn planes<const LANES: usize>(&self, input: &[f32], output: &mut [f32]) {
        let (v, h) = (&self.vertical, &self.horizontal);
        let (input, output) = (input.as_chunks::<LANES>().0, output.as_chunks_mut::<LANES>().0);
        let rows = output.chunks_exact_mut(h.output);
        let places = input.chunks_exact(v.input * h.input).flat_map(|p| (0..v.output).map(move |oy| (p, oy)));
        for (row, (plane, oy)) in rows.zip(places) {
            match self.kind {
                PoolKind::Max => self.row(plane, oy, row, f32::NEG_INFINITY, maximum),
                PoolKind::Average { count_include_pad } => {
                    self.row(plane, oy, row, 0.0, |a, b| a + b);
                    for (ox, out) in row.iter_mut().enumerate() {
                        let weight = self.weight(oy, ox, count_include_pad);
                        out.iter_mut().for_each(|o| *o *= weight);
                    }
                }
            }
        }
    }

    /// Row `oy` of a plane: `fold` over the values that each window sees.
    fn row<const LANES: usize>(
        &self,
        plane: &[[f32; LANES]],
        oy: usize,
        row: &mut [[f32; LANES]],
        start: f32,
        fold: impl Fn(f32, f32) -> f32,
    ) {
        let (v, h) = (&self.vertical, &self.horizontal);
        row.fill([start; LANES]);
        for y in v.taps(oy).filter_map(|ky| v.at(oy, ky)) {
            let input = &plane[y * h.input..][..h.input];
            for (ox, out) in row.iter_mut().enumerate() {
                let taps = h.taps(ox);
                let Some(x) = h.at(ox, taps.start) else { continue };
                for values in input[x..].iter().step_by(h.dilation).take(taps.len()) {
                    for (out, value) in out.iter_mut().zip(values) {
                        *out = fold(*out, *value);
                    }
                }
            }
        }
    }

    /// One over the number of values that count. A window that lies in the padding has none, and its mean is 0.
    #[allow(clippy::cast_precision_loss, reason = "as kernels of that size would be")]
    fn weight(&self, oy: usize, ox: usize, count_include_pad: bool) -> f32 {
        let (v, h) = (&self.vertical, &self.horizontal);
        let seen = v.taps(oy).len() * h.taps(ox).len();
        let count = if count_include_pad { v.kernel * h.kernel } else { seen.max(1) };
        (count as f32).recip()
    }
}

/// The larger one; NaN where either is.
pub(super) fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b <= a { a } else { b }
}

impl EvalOp for Pool {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        filled(&inputs, &self.shape, |input, output| {
            match self.blocked {
                true => self.planes::<CHANNEL_BLOCK>(input, output),
                false => self.planes::<1>(input, output),
            }
            Ok(())
        })
    }
}
