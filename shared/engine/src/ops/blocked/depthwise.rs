//! BlockedDepthwiseConv: a convolution with one channel per group, eight channels at a time.

use super::lanes::{Array, Lanes};
use super::steps::{Step, apply, bind};
use crate::kernels::has_avx2;
use crate::ops::plan_op;
use crate::ops::window::{Axis, axes};
use crate::panels::deadline;
use crate::share::{Output, for_each};
use crate::values::floats;
use glowplug_pack::Region;
use glowplug_pack::plan::{CHANNEL_BLOCK, ConvStep, Window};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, ensure, not_out_of_plan, tvec,
};

/// Outputs that are summed up side by side.
const TILE: usize = 8;

/// Positions of the largest plane that is copied with its padding: it stays in the first cache. In larger ones few
/// outputs see the padding.
const PADDED_POSITIONS: usize = 640;

thread_local! {
    /// What this thread lays out for the block at hand; kept, so that no run allocates.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

struct Scratch {
    /// `[kh, kw, 8]`.
    taps: Vec<[f32; CHANNEL_BLOCK]>,
    /// How many values each lies behind the first.
    places: Vec<usize>,
    /// The plane with its padding.
    padded: Vec<[f32; CHANNEL_BLOCK]>,
}

impl Scratch {
    const fn new() -> Scratch {
        Scratch { taps: Vec::new(), places: Vec::new(), padded: Vec::new() }
    }
}

/// One kernel of `kh x kw` taps per channel.
#[derive(Clone)]
pub(crate) struct BlockedDepthwiseConv {
    vertical: Axis,
    horizontal: Axis,
    /// `[N, ceil(C / 8), OH, OW, 8]`.
    shape: Vec<usize>,
    region: Arc<Region>,
    /// The kernels' bytes in the file.
    kernel: Range<u64>,
    steps: Vec<ConvStep>,
    avx2: bool,
}
plan_op!(BlockedDepthwiseConv);

/// One block of channels of one image.
struct Block<'a> {
    vertical: Axis,
    horizontal: Axis,
    input: &'a [[f32; CHANNEL_BLOCK]],
    /// `[kh, kw, 8]`.
    taps: &'a [[f32; CHANNEL_BLOCK]],
    /// How many values each tap lies behind the first.
    places: &'a [usize],
    bias: [f32; CHANNEL_BLOCK],
    steps: &'a [Step<'a>],
    output: Output<f32>,
    /// Where the block begins in the output.
    offset: usize,
    /// Which of its image's blocks it is.
    index: usize,
}

impl BlockedDepthwiseConv {
    /// Over `[N, ceil(C / 8), height, width, 8]`; gives `shape`. The plan was validated.
    pub(crate) fn new(
        window: &Window,
        (height, width): (usize, usize),
        shape: &[usize],
        (region, kernel): (Arc<Region>, Range<u64>),
        steps: &[ConvStep],
    ) -> TractResult<BlockedDepthwiseConv> {
        ensure!(shape.len() == 5, "an output of shape {shape:?}");
        let (vertical, horizontal) = axes(window, height, width);
        let (shape, steps) = (shape.to_vec(), steps.to_vec());
        Ok(BlockedDepthwiseConv { vertical, horizontal, shape, region, kernel, steps, avx2: has_avx2() })
    }
}

impl EvalOp for BlockedDepthwiseConv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.output(&inputs)?.into_tvalue()))
    }
}

impl BlockedDepthwiseConv {
    /// The same without vectors of this CPU's.
    #[cfg(test)]
    pub(super) fn for_any_cpu(&self) -> BlockedDepthwiseConv {
        BlockedDepthwiseConv { avx2: false, ..self.clone() }
    }

    /// The output for an image, the bias and what the steps read.
    pub(super) fn output(&self, inputs: &[TValue]) -> TractResult<Tensor> {
        let [x, bias, ..] = inputs else { return Err(crate::ops::too_few(inputs)) };
        let kernel = floats(self.region.wait(self.kernel.clone(), deadline())?)?;
        let (input, bias) = (x.try_as_plain_ram()?, bias.try_as_plain_ram()?);
        let (input, bias) = (input.as_slice::<f32>()?.as_chunks().0, bias.as_slice::<f32>()?);
        // SAFETY: each block below writes all of its rows.
        #[allow(unsafe_code, reason = "as the SAFETY comment says")]
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.shape) }?;
        let steps = bind(&self.steps, inputs, &output)?;
        let (blocks, count) = (self.shape[1], self.shape[0] * self.shape[1]);
        let run = Run {
            conv: self,
            input,
            kernel,
            bias,
            steps: &steps,
            output: Output(output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.as_mut_ptr()),
            blocks,
        };
        for_each(count, |index| SCRATCH.with_borrow_mut(|scratch| run.block(index, scratch)));
        Ok(output)
    }
}

/// One run of the operator.
struct Run<'a> {
    conv: &'a BlockedDepthwiseConv,
    input: &'a [[f32; CHANNEL_BLOCK]],
    kernel: &'a [f32],
    bias: &'a [f32],
    steps: &'a [Step<'a>],
    output: Output<f32>,
    /// Blocks of an image.
    blocks: usize,
}

impl Run<'_> {
    /// All outputs of block `index`, counted over all images.
    fn block(&self, index: usize, scratch: &mut Scratch) {
        let BlockedDepthwiseConv { vertical, horizontal, .. } = self.conv;
        let Scratch { taps, places, padded } = scratch;
        let channels = index % self.blocks * CHANNEL_BLOCK;
        let taps_of_one = vertical.kernel * horizontal.kernel;
        taps.clear();
        taps.resize(taps_of_one, [0.0; CHANNEL_BLOCK]);
        let kernels = self.kernel.chunks_exact(taps_of_one).skip(channels).take(CHANNEL_BLOCK);
        for (lane, values) in kernels.enumerate() {
            taps.iter_mut().zip(values).for_each(|(tap, value)| tap[lane] = *value);
        }
        let mut bias = [0.0; CHANNEL_BLOCK];
        bias.iter_mut().zip(&self.bias[channels..]).for_each(|(to, from)| *to = *from);
        let plane = vertical.input * horizontal.input;
        let input = &self.input[index * plane..][..plane];
        let offset = index * vertical.output * horizontal.output * CHANNEL_BLOCK;
        let (input, vertical, horizontal) = self.conv.padded(input, padded);
        places.clear();
        for ky in 0..vertical.kernel {
            // Those beyond the image are never used.
            let row = (ky * vertical.dilation).saturating_mul(horizontal.input);
            let place =
                |kx: usize| row.saturating_add(kx * horizontal.dilation).saturating_mul(CHANNEL_BLOCK);
            places.extend((0..horizontal.kernel).map(place));
        }
        let (steps, output, index) = (self.steps, self.output, index % self.blocks);
        let block = Block { vertical, horizontal, input, taps, places, bias, steps, output, offset, index };
        // SAFETY: `avx2` is what this CPU was found to have; the block is this call's alone.
        #[allow(unsafe_code, reason = "kernels are chosen by what the CPU has")]
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if self.conv.avx2 {
                return avx2_block(&block);
            }
            any_block::<Array>(&block);
        }
    }
}

impl BlockedDepthwiseConv {
    /// A plane with its padding, where that is small, and its axes; else as it is.
    fn padded<'a>(
        &self,
        input: &'a [[f32; CHANNEL_BLOCK]],
        padded: &'a mut Vec<[f32; CHANNEL_BLOCK]>,
    ) -> (&'a [[f32; CHANNEL_BLOCK]], Axis, Axis) {
        let (v, h) = (&self.vertical, &self.horizontal);
        let seen = |a: &Axis| {
            let reach = (a.output - 1).saturating_mul(a.stride).saturating_add((a.kernel - 1) * a.dilation);
            Axis { input: reach.saturating_add(1).max(a.input + a.pad), pad: 0, ..*a }
        };
        let (tall, wide) = (seen(v), seen(h));
        let inside = (v.pad, h.pad) == (0, 0) && (tall.input, wide.input) == (v.input, h.input);
        if inside || tall.input.saturating_mul(wide.input) > PADDED_POSITIONS {
            return (input, *v, *h);
        }
        padded.clear();
        padded.resize(tall.input * wide.input, [0.0; CHANNEL_BLOCK]);
        let rows = padded.chunks_exact_mut(wide.input).skip(v.pad);
        for (to, from) in rows.zip(input.chunks_exact(h.input)) {
            to[h.pad..][..h.input].copy_from_slice(from);
        }
        (padded, tall, wide)
    }
}

/// # Safety
/// The CPU has AVX2 and FMA; as [`any_block`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code, reason = "vector instructions")]
unsafe fn avx2_block(block: &Block<'_>) {
    // SAFETY: the caller's promise.
    unsafe { any_block::<super::lanes::Avx2>(block) }
}

/// All outputs of a block.
///
/// # Safety
/// As [`Lanes`]. The output has room for the block from its offset on, where nobody else writes.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn any_block<L: Lanes>(block: &Block<'_>) {
    let Block { vertical: v, horizontal: h, .. } = block;
    let interior = h.interior();
    let tiles = interior.len().div_ceil(TILE);
    for oy in 0..v.output {
        let rows = v.taps(oy);
        let first = v.at(oy, rows.start).unwrap_or(0) * h.input;
        let at = |ox| block.offset + (oy * h.output + ox) * CHANNEL_BLOCK;
        // SAFETY: the caller's promise. `interior` holds the outputs whose columns all lie inside; `rows` and
        // `columns` are the taps that do.
        unsafe {
            for ox in (0..interior.start).chain(interior.end..h.output) {
                let columns = h.taps(ox);
                let x = h.at(ox, columns.start).unwrap_or(0);
                border::<L>(block, first + x, &rows, &columns, at(ox));
            }
            let taps = rows.start * h.kernel..rows.end * h.kernel;
            // Tiles as equal as can be: a last one of one output would cost as much as one of eight.
            let mut ox = interior.start;
            for left in (1..=tiles).rev() {
                let width = (interior.end - ox).div_ceil(left);
                let start = first + h.at(ox, 0).unwrap_or(0);
                match h.stride {
                    1 => tile::<L, 1>(block, start, &taps, width, at(ox)),
                    2 => tile::<L, 2>(block, start, &taps, width, at(ox)),
                    _ => tile::<L, 0>(block, start, &taps, width, at(ox)),
                }
                ox += width;
            }
        }
    }
}

/// `width` outputs beside each other, from one to [`TILE`], the first of which sees its first tap at `start`. `S` is
/// the stride where it is known.
///
/// # Safety
/// As [`Lanes`]. The taps `taps` of the outputs lie inside of the input; as many vectors from `offset` on in the
/// output are the caller's.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn tile<L: Lanes, const S: usize>(
    block: &Block<'_>,
    start: usize,
    taps: &Range<usize>,
    width: usize,
    offset: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            8 => sums::<L, 8, S>(block, start, taps, offset),
            7 => sums::<L, 7, S>(block, start, taps, offset),
            6 => sums::<L, 6, S>(block, start, taps, offset),
            5 => sums::<L, 5, S>(block, start, taps, offset),
            4 => sums::<L, 4, S>(block, start, taps, offset),
            3 => sums::<L, 3, S>(block, start, taps, offset),
            2 => sums::<L, 2, S>(block, start, taps, offset),
            _ => sums::<L, 1, S>(block, start, taps, offset),
        }
    }
}

/// # Safety
/// As [`tile`], for `P` outputs.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn sums<L: Lanes, const P: usize, const S: usize>(
    block: &Block<'_>,
    start: usize,
    taps: &Range<usize>,
    offset: usize,
) {
    let stride = if S == 0 { block.horizontal.stride } else { S } * CHANNEL_BLOCK;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[L::load(block.bias.as_ptr()); 1]; P];
        let input = block.input.as_ptr().add(start).cast::<f32>();
        let taps = block.taps[taps.clone()].iter().zip(&block.places[..taps.len()]);
        for (tap, place) in taps {
            let tap = L::load(tap.as_ptr());
            let input = input.add(*place);
            for (p, sum) in sums.iter_mut().enumerate() {
                sum[0] = L::load(input.add(p * stride)).mul_add(tap, sum[0]);
            }
        }
        sums = apply(block.steps, sums, (offset, 0), block.index);
        for (p, [sum]) in sums.iter().enumerate() {
            sum.store(block.output.0.add(offset + p * CHANNEL_BLOCK));
        }
    }
}

/// One output, some of whose columns lie in the padding; its first tap inside is at `start`.
///
/// # Safety
/// As [`Lanes`]. All taps `rows x columns` lie inside of the input; the vector at `offset` in the output is the
/// caller's.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn border<L: Lanes>(
    block: &Block<'_>,
    start: usize,
    rows: &Range<usize>,
    columns: &Range<usize>,
    offset: usize,
) {
    let Block { vertical: v, horizontal: h, .. } = block;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[L::load(block.bias.as_ptr()); 1]; 1];
        for ky in rows.clone() {
            let row = start + (ky - rows.start) * v.dilation * h.input;
            for kx in columns.clone() {
                let tap = L::load(block.taps.as_ptr().add(ky * h.kernel + kx).cast());
                let input = block.input.as_ptr().add(row + (kx - columns.start) * h.dilation);
                sums[0][0] = L::load(input.cast()).mul_add(tap, sums[0][0]);
            }
        }
        let [[sum]] = apply(block.steps, sums, (offset, 0), block.index);
        sum.store(block.output.0.add(offset));
    }
}

impl PartialEq for BlockedDepthwiseConv {
    fn eq(&self, other: &BlockedDepthwiseConv) -> bool {
        Arc::ptr_eq(&self.region, &other.region) && self.kernel == other.kernel && self.shape == other.shape
    }
}

impl Eq for BlockedDepthwiseConv {}

impl fmt::Debug for BlockedDepthwiseConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockedDepthwiseConv({:?}, {:?}, {:?})", self.vertical, self.horizontal, self.steps)
    }
}
