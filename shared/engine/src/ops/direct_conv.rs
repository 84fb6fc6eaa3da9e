//! DirectConv: a convolution with one group, its kernel read in place, window by window.
//!
//! Stems of image models have so few input channels that laying out patches for a matrix product costs more
//! than the product. Here four output channels at a time slide along a row.

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
use tract_linalg::routines::{ConvW4F32, conv_w4_f32};

/// Output channels that the vector kernel makes at once.
const GROUP: usize = 4;

/// A kernel of `C * kh * kw` taps for each output channel.
#[derive(Clone)]
pub(crate) struct DirectConv {
    vertical: Axis,
    horizontal: Axis,
    channels: usize,
    filters: usize,
    /// `[.., O, OH, OW]`.
    shape: Vec<usize>,
    region: Arc<Region>,
    /// The kernels' bytes in the file.
    weights: Range<u64>,
    kernel: Option<ConvW4F32>,
}
plan_op!(DirectConv);

/// The taps of one group of output channels that some row of windows sees, and where they fall.
#[derive(Default)]
struct Taps {
    /// For each channel of the group in turn, as many as `offsets`.
    values: Vec<f32>,
    /// How far each lies behind the first.
    offsets: Vec<isize>,
}

impl DirectConv {
    /// Over an input of `channels` planes of `height x width`.
    pub(crate) fn new(
        window: &Window,
        (channels, height, width): (usize, usize, usize),
        shape: &[usize],
        region: Arc<Region>,
        weights: Range<u64>,
    ) -> DirectConv {
        let (vertical, horizontal) = axes(window, height, width);
        let filters = shape[shape.len() - 3];
        let kernel = conv_w4_f32();
        DirectConv { vertical, horizontal, channels, filters, shape: shape.to_vec(), region, weights, kernel }
    }

    fn filter_len(&self) -> usize {
        self.channels * self.vertical.kernel * self.horizontal.kernel
    }

    /// The taps of `filters` (one or several, one after the other) under the vertical taps `rows`.
    fn gather(&self, filters: &[f32], rows: &Range<usize>, taps: &mut Taps) {
        let (v, h) = (&self.vertical, &self.horizontal);
        taps.values.clear();
        for filter in filters.chunks_exact(self.filter_len()) {
            for plane in filter.chunks_exact(v.kernel * h.kernel) {
                taps.values.extend_from_slice(&plane[rows.start * h.kernel..rows.end * h.kernel]);
            }
        }
        taps.offsets.clear();
        for channel in 0..self.channels {
            for ky in 0..rows.len() {
                let row = (channel * v.input + ky * v.dilation) * h.input;
                taps.offsets.extend((0..h.kernel).map(|kx| (row + kx * h.dilation).cast_signed()));
            }
        }
    }

    /// Up to four planes of output, one after the other, of one image.
    fn planes(&self, image: &[f32], filters: &[f32], bias: &[f32], output: &mut [f32], taps: &mut Taps) {
        let (v, h) = (&self.vertical, &self.horizontal);
        let (plane, interior) = (v.output * h.output, h.interior());
        let mut gathered = None;
        for oy in 0..v.output {
            let rows = v.taps(oy);
            for (filter, (bias, out)) in
                filters.chunks_exact(self.filter_len()).zip(bias.iter().zip(output.chunks_exact_mut(plane)))
            {
                let row = &mut out[oy * h.output..][..h.output];
                for ox in (0..interior.start).chain(interior.end..h.output) {
                    row[ox] = self.border(image, filter, *bias, oy, ox);
                }
                if rows.is_empty() {
                    row[interior.clone()].fill(*bias);
                }
            }
            if rows.is_empty() || interior.is_empty() {
                continue;
            }
            if gathered.as_ref() != Some(&rows) {
                self.gather(filters, &rows, taps);
                gathered = Some(rows.clone());
            }
            self.run(image, taps, bias, (oy, rows.start), &interior, output);
        }
    }

    /// One output whose window may reach into the padding.
    fn border(&self, image: &[f32], filter: &[f32], bias: f32, oy: usize, ox: usize) -> f32 {
        let (v, h) = (&self.vertical, &self.horizontal);
        let columns = h.taps(ox);
        let Some(x) = h.at(ox, columns.start) else { return bias };
        let mut sum = bias;
        for (plane, taps) in
            image.chunks_exact(v.input * h.input).zip(filter.chunks_exact(v.kernel * h.kernel))
        {
            for ky in v.taps(oy) {
                let row = v.at(oy, ky).map_or(0, |y| y * h.input) + x;
                let taps = &taps[ky * h.kernel..][columns.clone()];
                sum =
                    taps.iter().zip(plane[row..].iter().step_by(h.dilation)).fold(sum, |s, (t, v)| s + t * v);
            }
        }
        sum
    }

    /// The outputs `interior` of row `oy` in every plane of `output`; their taps all lie inside.
    #[allow(unsafe_code, reason = "the vector kernel takes raw pointers")]
    fn run(
        &self,
        image: &[f32],
        taps: &Taps,
        bias: &[f32],
        (oy, first_row): (usize, usize),
        interior: &Range<usize>,
        output: &mut [f32],
    ) {
        let (v, h) = (&self.vertical, &self.horizontal);
        let (Some(y), Some(x)) = (v.at(oy, first_row), h.at(interior.start, 0)) else { return };
        let plane = v.output * h.output;
        let furthest = taps.offsets.last().map_or(0, |o| o.cast_unsigned()) + (interior.len() - 1) * h.stride;
        let image = &image[y * h.input + x..][..=furthest];
        let at = oy * h.output + interior.start;
        if let (Some(kernel), Ok(bias)) = (self.kernel, <&[f32; GROUP]>::try_from(bias)) {
            let output = &mut output[at..][..(GROUP - 1) * plane + interior.len()];
            // SAFETY: offsets ascend from 0, so every `offset + i * stride` with i below the run's length is at
            // most `furthest`, the last index of `image`; the output reaches from the first run to the end of
            // the fourth, one plane apart each; there are four taps for each offset. The registry gives only
            // kernels that this CPU can run.
            unsafe {
                kernel(
                    image.as_ptr(),
                    output.as_mut_ptr(),
                    &taps.values,
                    &taps.offsets,
                    bias,
                    interior.len(),
                    h.stride.cast_signed(),
                    plane.cast_signed(),
                );
            }
            return;
        }
        for ((taps_of, bias), out) in
            taps.values.chunks_exact(taps.offsets.len()).zip(bias).zip(output.chunks_exact_mut(plane))
        {
            for (i, out) in out[at..][..interior.len()].iter_mut().enumerate() {
                let term = |(tap, offset): (&f32, &isize)| tap * image[offset.cast_unsigned() + i * h.stride];
                *out = taps_of.iter().zip(&taps.offsets).map(term).fold(*bias, |sum, v| sum + v);
            }
        }
    }
}

impl EvalOp for DirectConv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (input, bias) = args_2!(inputs);
        let (input, bias) = (input.try_as_plain_ram()?, bias.try_as_plain_ram()?);
        let (input, bias) = (input.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let weights = floats(self.region.wait(self.weights.clone(), deadline())?)?;
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let plane = self.vertical.output * self.horizontal.output;
        let images = input.chunks_exact(self.channels * self.vertical.input * self.horizontal.input);
        let mut taps = Taps::default();
        for (image, output) in images.zip(plain.as_slice_mut::<f32>()?.chunks_exact_mut(self.filters * plane))
        {
            let groups = weights.chunks(GROUP * self.filter_len()).zip(bias.chunks(GROUP));
            for ((filters, bias), output) in groups.zip(output.chunks_mut(GROUP * plane)) {
                self.planes(image, filters, bias, output, &mut taps);
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl PartialEq for DirectConv {
    fn eq(&self, other: &DirectConv) -> bool {
        Arc::ptr_eq(&self.region, &other.region) && self.weights == other.weights
    }
}

impl Eq for DirectConv {}

impl fmt::Debug for DirectConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectConv({:?}, {:?})", self.vertical, self.horizontal)
    }
}
