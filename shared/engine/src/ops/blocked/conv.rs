//! BlockedConv: a convolution with one group, its filters read in place as panels of sixteen output channels.
//!
//! A tile is six neighbouring outputs of two blocks of channels: twelve vectors of sums. Each step of depth takes
//! two vectors of the panel and one value of each of the six inputs. What surrounds that loop keeps its operands
//! near: some channels of the input at a time, so that their part of a panel stays in the first cache while it is read
//! for one tile after the other, and some rows of output at a time, so that the inputs they see stay in the second.

use super::lanes::{Array, Lanes, prefetch};
use super::steps::{Step, apply, bind};
use crate::expanded::{FloatPanels, Matrix};
use crate::kernels::has_avx2;
use crate::ops::plan_op;
use crate::ops::window::{Axis, axes};
use crate::share::{Output, for_each, threads};
use glowplug_pack::plan::{CHANNEL_BLOCK, ConvStep, FILTER_PANEL, Window};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, ensure, not_out_of_plan, tvec,
};

/// Outputs of a tile.
const TILE: usize = 6;
/// Values of the inputs that one piece of work sees: they stay in the second cache beside a panel.
const INPUT_VALUES: usize = 56 << 10;
/// Values of a panel that are read for one tile after the other: they stay in the first cache.
const PANEL_VALUES: usize = 5 << 10;
/// One more line between planes, so that they do not all fall into the same few places of a cache.
const PLANE_GAP: usize = 16;

thread_local! {
    /// What this thread lays out for the piece of work at hand; kept, so that no run allocates.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

struct Scratch {
    values: Vec<f32>,
    /// Where each output's window begins.
    places: Vec<usize>,
    /// How far the taps of one plane lie behind a window's beginning, channel by channel.
    taps: Vec<usize>,
}

impl Scratch {
    const fn new() -> Scratch {
        Scratch { values: Vec::new(), places: Vec::new(), taps: Vec::new() }
    }

    /// At least `len` values, whatever they hold.
    fn values(&mut self, len: usize) -> &mut [f32] {
        if self.values.len() < len {
            self.values.resize(len, 0.0);
        }
        &mut self.values[..len]
    }
}

/// A kernel of `C * kh * kw` taps for each output channel.
#[derive(Clone)]
pub(crate) struct BlockedConv {
    vertical: Axis,
    horizontal: Axis,
    /// Images.
    images: usize,
    /// Channels of the input that lie side by side: eight, or one where it is not in blocks.
    lanes: usize,
    /// Input channels.
    channels: usize,
    /// Output channels.
    filters: usize,
    /// `[N, ceil(O / 8), OH, OW, 8]`.
    shape: Vec<usize>,
    kernel: FloatPanels,
    steps: Vec<ConvStep>,
    avx2: bool,
}
plan_op!(BlockedConv);

impl BlockedConv {
    /// Over `input` of `[N, C, H, W]`, or `[N, ceil(C / 8), H, W, 8]`; gives `shape`. The plan was validated.
    pub(crate) fn new(
        window: &Window,
        input: &[usize],
        shape: &[usize],
        filters: Matrix,
        steps: &[ConvStep],
    ) -> TractResult<BlockedConv> {
        ensure!(input.len() >= 4 && shape.len() == 5, "an input of shape {input:?}");
        let (vertical, horizontal) = axes(window, input[2], input[3]);
        Ok(BlockedConv {
            vertical,
            horizontal,
            images: input[0],
            lanes: if input.len() == 5 { CHANNEL_BLOCK } else { 1 },
            channels: filters.depth / (vertical.kernel * horizontal.kernel),
            filters: filters.columns,
            shape: shape.to_vec(),
            kernel: filters.panels,
            steps: steps.to_vec(),
            avx2: has_avx2(),
        })
    }

    /// Planes of the input: blocks of channels, or channels.
    fn planes(&self) -> usize {
        self.channels.div_ceil(self.lanes)
    }

    fn taps(&self) -> usize {
        self.vertical.kernel * self.horizontal.kernel
    }

    fn panels(&self) -> usize {
        self.filters.div_ceil(FILTER_PANEL)
    }

    /// Values of one plane of the input.
    fn input_plane(&self) -> usize {
        self.vertical.input * self.horizontal.input * self.lanes
    }

    /// Values of one block of the output.
    fn output_plane(&self) -> usize {
        self.vertical.output * self.horizontal.output * CHANNEL_BLOCK
    }

    /// Whether each output sees one position of the input, in blocks, never the padding.
    fn is_pointwise(&self) -> bool {
        let inside = |a: &Axis| a.kernel == 1 && a.pad == 0 && (a.output - 1) * a.stride < a.input;
        self.lanes == CHANNEL_BLOCK && inside(&self.vertical) && inside(&self.horizontal)
    }

    /// Rows of the input that `rows` rows of output see, and columns that a whole row sees.
    fn seen(&self, rows: usize) -> (usize, usize) {
        let reach = |a: &Axis, n: usize| (n - 1) * a.stride + (a.kernel - 1) * a.dilation + 1;
        (reach(&self.vertical, rows), reach(&self.horizontal, self.horizontal.output))
    }

    /// Rows of output that one piece of work makes.
    fn rows_at_once(&self) -> usize {
        let (reach, width) = self.seen(1);
        let rows_in = INPUT_VALUES / (width * self.lanes * self.planes_at_once());
        let more = rows_in.saturating_sub(reach) / self.vertical.stride;
        (1 + more).min(self.vertical.output)
    }

    /// Planes whose part of a panel is read for one tile after the other.
    fn planes_at_once(&self) -> usize {
        let each = self.lanes * self.taps() * FILTER_PANEL;
        let most = (PANEL_VALUES / each).max(1);
        self.planes().div_ceil(self.planes().div_ceil(most))
    }
}

/// One run of the operator.
struct Run<'a> {
    conv: &'a BlockedConv,
    input: &'a [f32],
    panels: &'a [f32],
    bias: &'a [f32],
    steps: &'a [Step<'a>],
    output: Output<f32>,
}

/// A piece of work: some outputs of one image, for some of the panels.
struct Piece {
    image: usize,
    /// Outputs (pointwise) or rows of them.
    outputs: Range<usize>,
    panels: Range<usize>,
}

impl EvalOp for BlockedConv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.output(&inputs)?.into_tvalue()))
    }
}

impl BlockedConv {
    /// The same without vectors of this CPU's.
    #[cfg(test)]
    pub(super) fn for_any_cpu(&self) -> BlockedConv {
        BlockedConv { avx2: false, ..self.clone() }
    }

    /// The output for an image, the bias and what the steps read.
    pub(super) fn output(&self, inputs: &[TValue]) -> TractResult<Tensor> {
        let [x, bias, ..] = inputs else { return Err(crate::ops::too_few(inputs)) };
        let panels = self.kernel.get(0..self.panels())?;
        // SAFETY: every value is written below: the pieces of work cover all outputs of all panels, and a panel
        // of the last, odd block writes that block alone.
        #[allow(unsafe_code, reason = "as the SAFETY comment says")]
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.shape) }?;
        let steps = bind(&self.steps, inputs, &output)?;
        let run = Run {
            conv: self,
            input: x.try_as_plain_ram()?.as_slice::<f32>()?,
            panels,
            bias: bias.try_as_plain_ram()?.as_slice::<f32>()?,
            steps: &steps,
            output: Output(output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.as_mut_ptr()),
        };
        run.all();
        Ok(output)
    }
}

impl Run<'_> {
    fn all(&self) {
        let conv = self.conv;
        let pointwise = conv.is_pointwise();
        let (count, at_once) = if pointwise {
            let outputs = conv.vertical.output * conv.horizontal.output;
            let most = (INPUT_VALUES / (conv.planes_at_once() * conv.lanes)).max(2 * TILE) / TILE * TILE;
            (outputs, most)
        } else {
            (conv.vertical.output, conv.rows_at_once())
        };
        // Threads get as many ranges each. Where there are fewer ranges than threads, they share the panels.
        let threads = threads();
        let (ranges, shares) = match conv.images * count.div_ceil(at_once) {
            all if all < threads => (count.div_ceil(at_once), threads.min(conv.panels())),
            _ => (count.div_ceil(at_once).next_multiple_of(threads), 1),
        };
        let at_once = count.div_ceil(ranges).next_multiple_of(if pointwise { TILE } else { 1 });
        let ranges = count.div_ceil(at_once);
        for_each(conv.images * ranges * shares, |i| {
            let (share, range, image) = (i % shares, i / shares % ranges, i / shares / ranges);
            let each = conv.panels().div_ceil(shares);
            let piece = Piece {
                image,
                outputs: range * at_once..((range + 1) * at_once).min(count),
                panels: (share * each).min(conv.panels())..((share + 1) * each).min(conv.panels()),
            };
            SCRATCH.with_borrow_mut(|scratch| match pointwise {
                true => self.points(&piece, scratch),
                false => self.rows(&piece, scratch),
            });
        });
    }

    fn image(&self, image: usize) -> &[f32] {
        let len = self.conv.planes() * self.conv.input_plane();
        &self.input[image * len..][..len]
    }

    /// Outputs that see one position each. The positions are laid out tile by tile, so that each tile's are read
    /// from one place; where a panel or two is all there is, they are read where they lie.
    fn points(&self, piece: &Piece, scratch: &mut Scratch) {
        let (conv, image) = (self.conv, self.image(piece.image));
        let (planes, plane) = (conv.planes(), conv.input_plane());
        let Piece { outputs, panels, .. } = piece;
        let (v, h) = (&conv.vertical, &conv.horizontal);
        let in_place =
            panels.len() <= 2 && (v.stride, h.stride) == (1, 1) && (v.output, h.output) == (v.input, h.input);
        let at_once = conv.planes_at_once();
        for first in (0..planes).step_by(at_once) {
            let depth = first..(first + at_once).min(planes);
            let image = &image[depth.start * plane..depth.end * plane];
            let packed = match in_place {
                true => &[],
                false => {
                    self.lay_out(image, outputs, scratch.values(outputs.len() * depth.len() * CHANNEL_BLOCK))
                }
            };
            for panel in panels.clone() {
                let part = self.part(piece.image, panel, &depth);
                let mut ahead = self.ahead(panel, panels, &depth, outputs);
                for at in outputs.clone().step_by(TILE) {
                    ahead.next().into_iter().for_each(prefetch);
                    let width = TILE.min(outputs.end - at);
                    let (input, plane_stride) = match in_place {
                        true => (&image[at * CHANNEL_BLOCK..], plane),
                        false => {
                            let tile = (at - outputs.start) * depth.len();
                            (&packed[tile * CHANNEL_BLOCK..], width * CHANNEL_BLOCK)
                        }
                    };
                    self.tile(Inputs::Points { input, plane_stride }, width, &part, at);
                }
            }
        }
    }

    /// The positions that `outputs` see, of all planes of `image`, tile by tile.
    fn lay_out<'s>(&self, image: &[f32], outputs: &Range<usize>, packed: &'s mut [f32]) -> &'s [f32] {
        let (v, h) = (&self.conv.vertical, &self.conv.horizontal);
        let plane = self.conv.input_plane() / CHANNEL_BLOCK;
        let image = image.as_chunks::<CHANNEL_BLOCK>().0;
        let one_after_the_other = (v.stride, h.stride) == (1, 1) && h.output == h.input;
        let mut to = packed.as_chunks_mut::<CHANNEL_BLOCK>().0.iter_mut();
        for first in outputs.clone().step_by(TILE) {
            let tile = first..(first + TILE).min(outputs.end);
            let at: [usize; TILE] = match one_after_the_other {
                true => std::array::from_fn(|i| first + i),
                false => std::array::from_fn(|i| {
                    (first + i) / h.output * v.stride * h.input + (first + i) % h.output * h.stride
                }),
            };
            for block in image.chunks_exact(plane) {
                for (to, at) in to.by_ref().take(tile.len()).zip(at) {
                    *to = block[at];
                }
            }
        }
        packed
    }

    /// Whole rows of output. The rows of input that they see are copied with their padding, where there is any.
    fn rows(&self, piece: &Piece, scratch: &mut Scratch) {
        let (conv, image) = (self.conv, self.image(piece.image));
        let (v, h, lanes) = (&conv.vertical, &conv.horizontal, conv.lanes);
        let rows = piece.outputs.clone();
        let (height, width) = conv.seen(rows.len());
        let (top, left) = (v.origin(rows.start), h.origin(0));
        let inside = top >= 0
            && left >= 0
            && top.cast_unsigned() + height <= v.input
            && left.cast_unsigned() + width <= h.input;
        let (row, plane) = match inside {
            true => (h.input * lanes, conv.input_plane()),
            false => (width * lanes, height * width * lanes + PLANE_GAP),
        };
        let Scratch { values, places, taps } = scratch;
        places.clear();
        let starts = (0..rows.len()).flat_map(|y| (0..h.output).map(move |x| (y, x)));
        places.extend(starts.map(|(y, x)| y * v.stride * row + x * h.stride * lanes));
        taps.clear();
        for lane in 0..lanes {
            for ky in 0..v.kernel {
                taps.extend((0..h.kernel).map(|kx| ky * v.dilation * row + kx * h.dilation * lanes + lane));
            }
        }
        let (planes, at_once) = (conv.planes(), conv.planes_at_once());
        let outputs = rows.start * h.output..rows.end * h.output;
        for first in (0..planes).step_by(at_once) {
            let depth = first..(first + at_once).min(planes);
            let image = &image[depth.start * conv.input_plane()..depth.end * conv.input_plane()];
            let input = if inside {
                &image[(top.cast_unsigned() * h.input + left.cast_unsigned()) * lanes..]
            } else {
                let len = depth.len() * plane;
                if values.len() < len {
                    values.resize(len, 0.0);
                }
                for (to, from) in values.chunks_exact_mut(plane).zip(image.chunks_exact(conv.input_plane())) {
                    self.pad(from, to, (top, left), (height, width));
                }
                &values[..len]
            };
            for panel in piece.panels.clone() {
                let part = self.part(piece.image, panel, &depth);
                let mut ahead = self.ahead(panel, &piece.panels, &depth, &outputs);
                for at in outputs.clone().step_by(TILE) {
                    ahead.next().into_iter().for_each(prefetch);
                    let width = TILE.min(outputs.end - at);
                    let places = &places[at - outputs.start..][..width];
                    self.tile(Inputs::Windows { input, plane_stride: plane, places, taps }, width, &part, at);
                }
            }
        }
    }

    /// The part of a plane from `(top, left)` on, of `height x width` positions, zeros where it has none.
    fn pad(
        &self,
        from: &[f32],
        to: &mut [f32],
        (top, left): (isize, isize),
        (height, width): (usize, usize),
    ) {
        let (v, h, lanes) = (&self.conv.vertical, &self.conv.horizontal, self.conv.lanes);
        let before = left.min(0).unsigned_abs().min(width);
        let start = left.max(0).cast_unsigned().min(h.input);
        let len = (h.input - start).min(width - before);
        for (y, to) in to.chunks_exact_mut(width * lanes).take(height).enumerate() {
            let y = top + y.cast_signed();
            let row = usize::try_from(y).ok().filter(|y| *y < v.input);
            let Some(row) = row else {
                to.fill(0.0);
                continue;
            };
            to[..before * lanes].fill(0.0);
            let from = &from[(row * h.input + start) * lanes..][..len * lanes];
            to[before * lanes..][..len * lanes].copy_from_slice(from);
            to[(before + len) * lanes..].fill(0.0);
        }
    }

    /// What `panel` adds to its outputs for the planes `depth`.
    fn part(&self, image: usize, panel: usize, depth: &Range<usize>) -> Part<'_> {
        let conv = self.conv;
        let plane = conv.output_plane();
        let blocks = conv.filters.div_ceil(CHANNEL_BLOCK);
        let channels = depth.start * conv.lanes..(depth.end * conv.lanes).min(conv.channels);
        let weights = panel * conv.kernel.stride() + channels.start * conv.taps() * FILTER_PANEL;
        let len = channels.len() * conv.taps() * FILTER_PANEL;
        let filters = panel * FILTER_PANEL..((panel + 1) * FILTER_PANEL).min(conv.filters);
        let mut bias = [0.0; FILTER_PANEL];
        bias.iter_mut().zip(&self.bias[filters]).for_each(|(to, from)| *to = *from);
        Part {
            weights: &self.panels[weights..][..len],
            channels: channels.len(),
            bias: (depth.start == 0).then_some(bias),
            steps: if depth.end == conv.planes() { self.steps } else { &[] },
            output: self.output,
            offset: (image * blocks + panel * 2) * plane,
            block_stride: plane,
            block: panel * 2,
            one_block: panel * 2 + 1 == blocks,
        }
    }

    /// What comes after this part of `panel`, in as many pieces as `outputs` has tiles: weights are read once a run,
    /// mostly from far away, and the first tile to need them would wait for them all.
    fn ahead(
        &self,
        panel: usize,
        panels: &Range<usize>,
        depth: &Range<usize>,
        outputs: &Range<usize>,
    ) -> std::slice::Chunks<'_, f32> {
        let conv = self.conv;
        let of_plane = conv.lanes * conv.taps() * FILTER_PANEL;
        let start = match panel + 1 < panels.end {
            true => (panel + 1) * conv.kernel.stride() + depth.start * of_plane,
            false => panels.start * conv.kernel.stride() + depth.end * of_plane,
        };
        let next = self.panels.get(start..).unwrap_or(&[]);
        let next = &next[..next.len().min(depth.len() * of_plane)];
        next.chunks(next.len().div_ceil(outputs.len().div_ceil(TILE)).next_multiple_of(16).max(16))
    }

    /// The outputs from `at` on, `width` of them.
    #[allow(unsafe_code, reason = "kernels are chosen by what the CPU has")]
    #[inline]
    fn tile(&self, inputs: Inputs<'_>, width: usize, part: &Part<'_>, at: usize) {
        let offset = part.offset + at * CHANNEL_BLOCK;
        macro_rules! kernel {
            ($($p:literal),*) => {
                match (width, part.one_block) {
                    $(
                        ($p, false) => kernel!(@ $p, 2),
                        ($p, true) => kernel!(@ $p, 1),
                    )*
                    // A tile has from one to six outputs.
                    _ => {}
                }
            };
            (@ $p:literal, $v:literal) => {
                // SAFETY: `avx2` is what this CPU was found to have. The geometry is that of a validated plan:
                // every window lies in `input` (`points`, `rows`), the weights are as long as the channels ask
                // for, and the outputs of the tile lie in the output.
                unsafe {
                    #[cfg(target_arch = "x86_64")]
                    if self.conv.avx2 {
                        return avx2_tile::<$p, $v>(inputs, part, offset);
                    }
                    any_tile::<Array, $p, $v>(inputs, part, offset);
                }
            };
        }
        kernel!(6, 5, 4, 3, 2, 1);
    }
}

/// Where a tile's inputs are.
#[derive(Clone, Copy)]
enum Inputs<'a> {
    /// One position after the other; the next block of channels `plane_stride` on.
    Points { input: &'a [f32], plane_stride: usize },
    /// A window from each of `places` on, whose taps lie at `taps`; the next plane `plane_stride` on.
    Windows { input: &'a [f32], plane_stride: usize, places: &'a [usize], taps: &'a [usize] },
}

/// A panel and the channels that its sums are about to grow by.
struct Part<'a> {
    /// `[channels, taps, 16]`.
    weights: &'a [f32],
    channels: usize,
    /// What sums begin with; where absent, with what the output holds.
    bias: Option<[f32; FILTER_PANEL]>,
    /// What follows the sums, once they are complete.
    steps: &'a [Step<'a>],
    output: Output<f32>,
    /// Where the panel's first output goes.
    offset: usize,
    /// From a block of output channels to the next.
    block_stride: usize,
    /// The panel's first block of the image's channels.
    block: usize,
    /// Whether the panel's second block does not exist.
    one_block: bool,
}

/// # Safety
/// The CPU has AVX2 and FMA; as [`any_tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code, reason = "vector instructions")]
unsafe fn avx2_tile<const P: usize, const V: usize>(inputs: Inputs<'_>, part: &Part<'_>, offset: usize) {
    // SAFETY: the caller's promise.
    unsafe { any_tile::<super::lanes::Avx2, P, V>(inputs, part, offset) }
}

/// `P` outputs of `V` blocks.
///
/// # Safety
/// As [`Lanes`]. The input reaches from every place (or every one of `P` positions) over all taps of all channels;
/// `weights` holds sixteen values for each tap of each channel; from `offset` on, `P` vectors of `V` blocks are the
/// tile's alone in the output.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn any_tile<L: Lanes, const P: usize, const V: usize>(
    inputs: Inputs<'_>,
    part: &Part<'_>,
    offset: usize,
) {
    // SAFETY: the caller's promise, place by place.
    unsafe {
        let output = part.output.0.add(offset);
        let mut sums = [[L::splat(0.0); V]; P];
        match &part.bias {
            Some(bias) => {
                for sum in &mut sums {
                    for (v, sum) in sum.iter_mut().enumerate() {
                        *sum = L::load(bias.as_ptr().add(v * CHANNEL_BLOCK));
                    }
                }
            }
            None => {
                for (p, sum) in sums.iter_mut().enumerate() {
                    for (v, sum) in sum.iter_mut().enumerate() {
                        *sum = L::load(output.add(v * part.block_stride + p * CHANNEL_BLOCK));
                    }
                }
            }
        }
        match inputs {
            Inputs::Points { input, plane_stride } => {
                sums = points(input.as_ptr(), plane_stride, part, sums);
            }
            Inputs::Windows { input, plane_stride, places, taps } => {
                sums = windows(input.as_ptr(), plane_stride, (places, taps), part, sums);
            }
        }
        sums = apply(part.steps, sums, (offset, part.block_stride), part.block);
        for (p, sum) in sums.iter().enumerate() {
            for (v, sum) in sum.iter().enumerate() {
                sum.store(output.add(v * part.block_stride + p * CHANNEL_BLOCK));
            }
        }
    }
}

/// One step of depth: the sums of `P` outputs grow by a value of each times two vectors of the panel.
///
/// # Safety
/// As [`Lanes`]; `weights` is valid for `V` vectors, `value` gives pointers to a value.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn step<L: Lanes, const P: usize, const V: usize>(
    weights: *const f32,
    value: impl Fn(usize) -> *const f32,
    mut sums: [[L; V]; P],
) -> [[L; V]; P] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut vectors = [L::splat(0.0); V];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = L::load(weights.add(v * CHANNEL_BLOCK));
        }
        for (p, sum) in sums.iter_mut().enumerate() {
            let value = L::splat(*value(p));
            for (sum, vector) in sum.iter_mut().zip(vectors) {
                *sum = vector.mul_add(value, *sum);
            }
        }
    }
    sums
}

/// # Safety
/// As [`any_tile`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn points<L: Lanes, const P: usize, const V: usize>(
    mut input: *const f32,
    plane_stride: usize,
    part: &Part<'_>,
    mut sums: [[L; V]; P],
) -> [[L; V]; P] {
    let mut weights = part.weights.as_ptr();
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..part.channels / CHANNEL_BLOCK {
            for lane in 0..CHANNEL_BLOCK {
                sums = step(weights.add(lane * FILTER_PANEL), |p| input.add(p * CHANNEL_BLOCK + lane), sums);
            }
            weights = weights.add(CHANNEL_BLOCK * FILTER_PANEL);
            input = input.wrapping_add(plane_stride);
        }
        for lane in 0..part.channels % CHANNEL_BLOCK {
            sums = step(weights.add(lane * FILTER_PANEL), |p| input.add(p * CHANNEL_BLOCK + lane), sums);
        }
    }
    sums
}

/// # Safety
/// As [`any_tile`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn windows<L: Lanes, const P: usize, const V: usize>(
    input: *const f32,
    plane_stride: usize,
    (places, taps): (&[usize], &[usize]),
    part: &Part<'_>,
    mut sums: [[L; V]; P],
) -> [[L; V]; P] {
    let mut weights = part.weights.as_ptr();
    let mut left = part.weights.len() / FILTER_PANEL;
    let mut plane = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while left > 0 {
            let at: [*const f32; P] = std::array::from_fn(|p| input.wrapping_add(plane + places[p]));
            for tap in &taps[..taps.len().min(left)] {
                sums = step(weights, |p| at[p].add(*tap), sums);
                weights = weights.add(FILTER_PANEL);
            }
            left = left.saturating_sub(taps.len());
            plane += plane_stride;
        }
    }
    sums
}

impl PartialEq for BlockedConv {
    fn eq(&self, other: &BlockedConv) -> bool {
        self.kernel == other.kernel && self.shape == other.shape
    }
}

impl Eq for BlockedConv {}

impl fmt::Debug for BlockedConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockedConv({:?}, {:?}, {:?})", self.vertical, self.horizontal, self.steps)
    }
}
