//! DepthwiseConv: a convolution with one channel per group, its kernel read in place.

use super::plan_op;
use super::window::{Axis, axes};
use crate::panels::deadline;
use crate::values::floats;
use glowplug_pack::Region;
use glowplug_pack::plan::Window;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_2, not_out_of_plan, tvec,
};
use tract_linalg::routines::{DepthwiseWF32, depthwise_w_f32};

/// One kernel of `kh x kw` taps per channel.
#[derive(Clone)]
pub(crate) struct DepthwiseConv {
    vertical: Axis,
    horizontal: Axis,
    /// `[.., OH, OW]`.
    shape: Vec<usize>,
    /// How far each tap lies behind tap 0, in a plane.
    offsets: Vec<isize>,
    region: Arc<Region>,
    /// The kernels' bytes in the file.
    weights: Range<u64>,
    kernel: Option<DepthwiseWF32>,
}
plan_op!(DepthwiseConv);

impl DepthwiseConv {
    pub(crate) fn new(
        window: &Window,
        (height, width): (usize, usize),
        shape: &[usize],
        region: Arc<Region>,
        weights: Range<u64>,
    ) -> DepthwiseConv {
        let (vertical, horizontal) = axes(window, height, width);
        // Those beyond the image are never used.
        let tap = |ky: usize, kx: usize| {
            (ky * vertical.dilation).saturating_mul(width).saturating_add(kx * horizontal.dilation)
        };
        let rows = (0..vertical.kernel)
            .flat_map(|ky| (0..horizontal.kernel).map(move |kx| tap(ky, kx).cast_signed()));
        let offsets = rows.collect();
        DepthwiseConv {
            vertical,
            horizontal,
            shape: shape.to_vec(),
            offsets,
            region,
            weights,
            kernel: depthwise_w_f32(),
        }
    }

    /// One plane of one image: `output[oy, ox] = bias + sum over taps`.
    fn plane(&self, input: &[f32], taps: &[f32], bias: f32, output: &mut [f32]) {
        let interior = self.horizontal.interior();
        for (oy, row) in output.chunks_exact_mut(self.horizontal.output).enumerate() {
            let rows = self.vertical.taps(oy);
            for ox in (0..interior.start).chain(interior.end..self.horizontal.output) {
                row[ox] = self.border(input, taps, bias, oy, ox);
            }
            if !rows.is_empty() && !interior.is_empty() {
                self.run(input, taps, bias, (oy, rows), interior.start, &mut row[interior.clone()]);
            } else {
                row[interior.clone()].fill(bias);
            }
        }
    }

    /// One output whose window may reach into the padding.
    fn border(&self, input: &[f32], taps: &[f32], bias: f32, oy: usize, ox: usize) -> f32 {
        let (v, h) = (&self.vertical, &self.horizontal);
        let columns = h.taps(ox);
        let Some(x) = h.at(ox, columns.start) else { return bias };
        let mut sum = bias;
        for ky in v.taps(oy) {
            let row = v.at(oy, ky).map_or(0, |y| y * h.input) + x;
            let taps = &taps[ky * h.kernel..][columns.clone()];
            let values = input[row..].iter().step_by(h.dilation);
            sum = taps.iter().zip(values).fold(sum, |sum, (tap, v)| sum + tap * v);
        }
        sum
    }

    /// The outputs `ox..` of row `oy`, all of whose horizontal taps lie inside; `rows` are the vertical ones
    /// that do.
    #[allow(unsafe_code, reason = "the vector kernel takes raw pointers")]
    fn run(
        &self,
        input: &[f32],
        taps: &[f32],
        bias: f32,
        (oy, rows): (usize, Range<usize>),
        ox: usize,
        output: &mut [f32],
    ) {
        let kw = self.horizontal.kernel;
        let taps = &taps[rows.start * kw..rows.end * kw];
        let offsets = &self.offsets[..rows.len() * kw];
        let (Some(y), Some(x)) = (self.vertical.at(oy, rows.start), self.horizontal.at(ox, 0)) else {
            return;
        };
        let (stride, start) = (self.horizontal.stride, y * self.horizontal.input + x);
        let furthest = offsets.last().map_or(0, |o| o.cast_unsigned()) + (output.len() - 1) * stride;
        let input = &input[start..=start + furthest];
        if let Some(kernel) = self.kernel {
            // SAFETY: offsets ascend from 0, so every `offset + i * stride` with i below the output's length
            // is at most `furthest`, the last index of `input`; the output is a slice of that length; taps
            // and offsets are equally many. The registry gives only kernels that this CPU can run.
            unsafe {
                kernel(
                    input.as_ptr(),
                    output.as_mut_ptr(),
                    taps,
                    offsets,
                    bias,
                    output.len(),
                    stride.cast_signed(),
                );
            }
            return;
        }
        for (i, out) in output.iter_mut().enumerate() {
            let term = |(tap, offset): (&f32, &isize)| tap * input[offset.cast_unsigned() + i * stride];
            *out = taps.iter().zip(offsets).map(term).fold(bias, |sum, v| sum + v);
        }
    }
}

impl EvalOp for DepthwiseConv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (input, bias) = args_2!(inputs);
        let (input, bias) = (input.try_as_plain_ram()?, bias.try_as_plain_ram()?);
        let (input, bias) = (input.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let weights = floats(self.region.wait(self.weights.clone(), deadline())?)?;
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let outputs =
            plain.as_slice_mut::<f32>()?.chunks_exact_mut(self.vertical.output * self.horizontal.output);
        let planes = input.chunks_exact(self.vertical.input * self.horizontal.input);
        let kernels = weights.chunks_exact(self.offsets.len()).zip(bias).cycle();
        for ((input, output), (taps, bias)) in planes.zip(outputs).zip(kernels) {
            self.plane(input, taps, *bias, output);
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl PartialEq for DepthwiseConv {
    fn eq(&self, other: &DepthwiseConv) -> bool {
        Arc::ptr_eq(&self.region, &other.region) && self.weights == other.weights
    }
}

impl Eq for DepthwiseConv {}

impl fmt::Debug for DepthwiseConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DepthwiseConv({:?}, {:?})", self.vertical, self.horizontal)
    }
}
