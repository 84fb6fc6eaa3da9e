//! AveragePool over the last two axes.

use super::plan_op;
use super::window::{Axis, axes};
use glowplug_pack::plan::Window;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, not_out_of_plan, tvec,
};

/// The mean of the values under the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AveragePool {
    vertical: Axis,
    horizontal: Axis,
    /// Whether padding counts as zeros, or not at all.
    count_include_pad: bool,
    /// `[.., OH, OW]`.
    shape: Vec<usize>,
}
plan_op!(AveragePool);

impl AveragePool {
    pub(crate) fn new(
        window: &Window,
        count_include_pad: bool,
        (height, width): (usize, usize),
        shape: &[usize],
    ) -> AveragePool {
        let (vertical, horizontal) = axes(window, height, width);
        AveragePool { vertical, horizontal, count_include_pad, shape: shape.to_vec() }
    }

    fn output_row(&self, plane: &[f32], oy: usize, row: &mut [f32]) {
        let (v, h) = (&self.vertical, &self.horizontal);
        row.fill(0.0);
        for y in (0..v.kernel).filter_map(|ky| v.at(oy, ky)) {
            let input = &plane[y * h.input..][..h.input];
            for (ox, out) in row.iter_mut().enumerate() {
                let taps = h.taps(ox);
                if let Some(x) = h.at(ox, taps.start) {
                    *out += input[x..].iter().step_by(h.dilation).take(taps.len()).sum::<f32>();
                }
            }
        }
        for (ox, out) in row.iter_mut().enumerate() {
            *out *= self.weight(oy, ox);
        }
    }

    /// One over the number of values that count. A window that lies in the padding has none, and its mean is 0.
    #[allow(clippy::cast_precision_loss, reason = "as kernels of that size would be")]
    fn weight(&self, oy: usize, ox: usize) -> f32 {
        let (v, h) = (&self.vertical, &self.horizontal);
        let seen = v.taps(oy).len() * h.taps(ox).len();
        let count = if self.count_include_pad { v.kernel * h.kernel } else { seen.max(1) };
        (count as f32).recip()
    }
}

impl EvalOp for AveragePool {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let input = input.try_as_plain_ram()?;
        let planes = input.as_slice::<f32>()?.chunks_exact(self.vertical.input * self.horizontal.input);
        let mut plain = output.try_as_plain_ram_mut()?;
        let rows = plain.as_slice_mut::<f32>()?.chunks_exact_mut(self.horizontal.output);
        let places = planes.flat_map(|p| (0..self.vertical.output).map(move |oy| (p, oy)));
        rows.zip(places).for_each(|(row, (plane, oy))| self.output_row(plane, oy, row));
        Ok(tvec!(output.into_tvalue()))
    }
}
