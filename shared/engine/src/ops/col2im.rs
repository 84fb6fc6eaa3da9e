//! Col2Im: what a matrix product made of every window position, summed up where the windows overlap.

use super::plan_op;
use super::window::{Axis, axes};
use glowplug_pack::plan::Window;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_2, not_out_of_plan, tvec,
};

/// The second half of a transposed convolution. The window slides over the output; its positions are the
/// input's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Col2Im {
    vertical: Axis,
    horizontal: Axis,
    /// `[.., C, H, W]`.
    shape: Vec<usize>,
}
plan_op!(Col2Im);

impl Col2Im {
    pub(crate) fn new(window: &Window, (height, width): (usize, usize), shape: &[usize]) -> Col2Im {
        let (vertical, horizontal) = axes(window, height, width);
        Col2Im { vertical, horizontal, shape: shape.to_vec() }
    }

    /// Adds the `[kh, kw, positions]` values of one channel of one image to its plane.
    fn scatter(&self, columns: &[f32], plane: &mut [f32]) {
        let (v, h) = (&self.vertical, &self.horizontal);
        let taps = (0..v.kernel).flat_map(|ky| (0..h.kernel).map(move |kx| (ky, kx)));
        for ((ky, kx), column) in taps.zip(columns.chunks_exact(v.output * h.output)) {
            for (oy, values) in column.chunks_exact(h.output).enumerate() {
                let Some(y) = v.at(oy, ky) else { continue };
                let row = &mut plane[y * h.input..][..h.input];
                for (ox, value) in values.iter().enumerate() {
                    if let Some(x) = h.at(ox, kx) {
                        row[x] += value;
                    }
                }
            }
        }
    }
}

impl EvalOp for Col2Im {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (columns, bias) = args_2!(inputs);
        let (columns, bias) = (columns.try_as_plain_ram()?, bias.try_as_plain_ram()?);
        let (columns, bias) = (columns.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let output_values = plain.as_slice_mut::<f32>()?;
        let plane = self.vertical.input * self.horizontal.input;
        if bias.len() == output_values.len() {
            output_values.copy_from_slice(bias);
        } else {
            output_values.chunks_exact_mut(plane).zip(bias.iter().cycle()).for_each(|(p, b)| p.fill(*b));
        }
        let taps = self.vertical.kernel * self.horizontal.kernel;
        let columns = columns.chunks_exact(taps * self.vertical.output * self.horizontal.output);
        columns.zip(output_values.chunks_exact_mut(plane)).for_each(|(c, p)| self.scatter(c, p));
        Ok(tvec!(output.into_tvalue()))
    }
}
