//! MaxPool over the last two axes.

use super::plan_op;
use super::window::{Axis, axes};
use glowplug_pack::plan::Window;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, not_out_of_plan, tvec,
};

/// The largest value under the window; padding never wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaxPool {
    pub(crate) vertical: Axis,
    pub(crate) horizontal: Axis,
    /// `[.., OH, OW]`.
    pub(crate) shape: Vec<usize>,
}
plan_op!(MaxPool);

impl MaxPool {
    pub(crate) fn new(window: &Window, height: usize, width: usize, shape: &[usize]) -> MaxPool {
        let (vertical, horizontal) = axes(window, height, width);
        MaxPool { vertical, horizontal, shape: shape.to_vec() }
    }

    fn output_row(&self, plane: &[f32], oy: usize, row: &mut [f32]) {
        row.fill(f32::NEG_INFINITY);
        for y in (0..self.vertical.kernel).filter_map(|ky| self.vertical.at(oy, ky)) {
            let input = &plane[y * self.horizontal.input..][..self.horizontal.input];
            for (ox, out) in row.iter_mut().enumerate() {
                let first = self.horizontal.origin(ox);
                for kx in self.horizontal.taps(ox) {
                    let x = first + (kx * self.horizontal.dilation).cast_signed();
                    *out = out.max(input[x.cast_unsigned()]);
                }
            }
        }
    }
}

impl EvalOp for MaxPool {
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
