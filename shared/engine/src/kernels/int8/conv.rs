//! Convolutions with one group. A tile is three neighbouring outputs of sixteen channels.

use super::layout::STEP;
use super::slide::{Scratch, Slide};
use super::tail::byte;
use super::{Code, Out, Output, Tail};
use crate::share::{for_each, threads};
use glowplug_pack::int8::{OCTET, Runs};
use glowplug_pack::plan::{CHANNEL_BLOCK, FILTER_PANEL};
use std::cell::RefCell;
use std::ops::Range;
use tract_core::internal::{TractResult, ensure};

/// Outputs of a tile.
const TILE: usize = 3;
/// Bytes of the input that one piece of work sees: they stay in the second cache beside a panel.
const INPUT_BYTES: usize = 160 << 10;
/// Bytes of the output that one piece of work writes panel by panel: they stay there too.
const OUTPUT_BYTES: usize = 128 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// A convolution whose operands are about to be checked.
pub(crate) struct Conv<'a> {
    pub(crate) slide: Slide,
    pub(crate) runs: Runs,
    pub(crate) filters: usize,
    pub(crate) input: &'a [u8],
    /// Laid out panel by panel.
    pub(crate) weights: &'a [i8],
    pub(crate) tail: Tail<'a>,
    /// One that this CPU has.
    pub(crate) code: Code,
}

/// A piece of work: some rows of output of one image, for some of the panels.
struct Piece {
    image: usize,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Conv<'_> {
    fn panels(&self) -> usize {
        self.filters.div_ceil(FILTER_PANEL)
    }

    /// Writes all of the output. Errors: operands of other sizes than the geometry asks for.
    pub(crate) fn run(&self, output: Output<'_>) -> TractResult<()> {
        let (slide, panels) = (&self.slide, self.panels());
        let outputs = slide.images * slide.outputs();
        ensure!(self.runs.pixel == slide.pixel && slide.pixel > 0, "a run over another image");
        ensure!(
            self.runs.kernel == (slide.vertical.kernel, slide.horizontal.kernel)
                && (!self.runs.joined || slide.horizontal.dilation == 1),
            "a run over another window"
        );
        ensure!(self.input.len() >= slide.images * slide.image(), "{} bytes of input", self.input.len());
        ensure!(self.weights.len() >= panels * self.runs.panel_bytes(), "{} weights", self.weights.len());
        self.tail.check(panels * FILTER_PANEL, outputs * panels * FILTER_PANEL)?;
        let wanted = match output {
            Output::Bytes(_) => outputs * panels * FILTER_PANEL,
            Output::Floats(_) => outputs * self.filters.div_ceil(CHANNEL_BLOCK) * CHANNEL_BLOCK,
        };
        ensure!(output.len() >= wanted, "an output of {} values, {wanted} are written", output.len());
        let output = output.shared();
        let in_place = slide.is_inside() && slide.pixel.is_multiple_of(OCTET);
        // Threads get as many ranges each. Where there are fewer ranges than threads, they share the panels.
        let (threads, rows) = (threads(), slide.vertical.output);
        let most = OUTPUT_BYTES / (slide.horizontal.output * panels * FILTER_PANEL).max(1);
        let at_once = slide.rows_within(INPUT_BYTES).min(most).max(1);
        let (ranges, shares) = match slide.images * rows.div_ceil(at_once) {
            all if all < threads => (rows.div_ceil(at_once), threads.min(panels)),
            _ => (rows.div_ceil(at_once).next_multiple_of(threads), 1),
        };
        let at_once = rows.div_ceil(ranges);
        let ranges = rows.div_ceil(at_once);
        for_each(slide.images * ranges * shares, |i| {
            let (share, range, image) = (i % shares, i / shares % ranges, i / shares / ranges);
            let each = panels.div_ceil(shares);
            let piece = Piece {
                image,
                rows: range * at_once..((range + 1) * at_once).min(rows),
                panels: (share * each).min(panels)..((share + 1) * each).min(panels),
            };
            SCRATCH.with_borrow_mut(|scratch| self.piece(&piece, in_place, output, scratch));
        });
        Ok(())
    }

    fn piece(&self, piece: &Piece, in_place: bool, output: Out, scratch: &mut Scratch) {
        let slide = &self.slide;
        let (v, h, pixel) = (&slide.vertical, &slide.horizontal, slide.pixel);
        let Scratch { rows, places } = scratch;
        let image = &self.input[piece.image * slide.image()..][..slide.image()];
        let (input, row) = slide.rows(image, &piece.rows, in_place, rows);
        places.clear();
        for y in 0..piece.rows.len() {
            places.extend((0..h.output).map(|x| y * v.stride * row + x * h.stride * pixel));
        }
        let step =
            if self.runs.joined { (v.dilation * row, 0) } else { (v.dilation * row, h.dilation * pixel) };
        let taps = if self.runs.joined { 1 } else { h.kernel };
        let first = piece.image * slide.outputs() + piece.rows.start * h.output;
        for panel in piece.panels.clone() {
            let len = self.runs.panel_bytes();
            let tile = Tile {
                input,
                step,
                rows: v.kernel,
                taps,
                octets: self.runs.octets(),
                weights: &self.weights[panel * len..][..len],
                tail: &self.tail,
                output,
                panel,
                panels: self.panels(),
                blocks: self.filters.div_ceil(CHANNEL_BLOCK),
                image: piece.image,
                plane: slide.outputs(),
            };
            tile.all(places, first, self.code);
        }
    }
}

/// A panel, and the input that it meets.
struct Tile<'a> {
    input: &'a [u8],
    /// From a row of taps to the next, and from a run in it to the next.
    step: (usize, usize),
    rows: usize,
    /// Runs in a row.
    taps: usize,
    octets: usize,
    weights: &'a [i8],
    tail: &'a Tail<'a>,
    output: Out,
    panel: usize,
    panels: usize,
    /// Blocks of an image of floats.
    blocks: usize,
    image: usize,
    /// Positions of an image of the output.
    plane: usize,
}

impl Tile<'_> {
    /// The outputs whose windows begin at `places`, the first of which is number `first` of all images'.
    fn all(&self, places: &[usize], first: usize, code: Code) {
        #[cfg(target_arch = "x86_64")]
        if code != Code::Plain {
            // SAFETY: `code` is what this CPU was found to have. `Conv::run` checked all sizes: every run of a window
            // lies in `input`, octets included, since rows are copied with one more behind them and those that are
            // read in place are whole octets; the weights are a panel; the outputs lie in the output.
            #[allow(unsafe_code, reason = "kernels are chosen by what the CPU has")]
            unsafe {
                avx2::all(self, places, first, code);
            }
            return;
        }
        let _ = code;
        for (i, place) in places.iter().enumerate() {
            self.plain(*place, first + i);
        }
    }

    /// As the vectors do it, one value after the other.
    #[allow(unsafe_code, reason = "threads share the output")]
    fn plain(&self, place: usize, at: usize) {
        let mut sums = [0i32; FILTER_PANEL];
        let mut weights = self.weights.as_chunks::<STEP>().0.iter();
        for run in 0..self.rows * self.taps {
            let run = place + run / self.taps * self.step.0 + run % self.taps * self.step.1;
            let octets = self.input[run..][..self.octets * OCTET].as_chunks::<OCTET>().0;
            for (octet, weights) in octets.iter().zip(&mut weights) {
                for (quad, weights) in
                    octet.as_chunks::<4>().0.iter().zip(weights.as_chunks::<{ STEP / 2 }>().0)
                {
                    for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
                        let products = quad.iter().zip(weights).map(|(x, w)| i32::from(*x) * i32::from(*w));
                        *sum += products.sum::<i32>();
                    }
                }
            }
        }
        let channel = self.panel * FILTER_PANEL;
        for (lane, sum) in sums.into_iter().enumerate() {
            let place = (at * self.panels + self.panel) * FILTER_PANEL + lane;
            let residual = self.tail.residual.map(|r| r.values[place]);
            let value = self.tail.value(sum, channel + lane, residual);
            // SAFETY: `Conv::run` checked that the output holds all panels of all positions; nobody else writes
            // these. A block that floats do not have is left out.
            unsafe {
                match self.output {
                    Out::Bytes(to) => to.0.add(place).write(byte(value)),
                    Out::Floats(to) => {
                        if let Some(to_block) = self.block(at, lane / CHANNEL_BLOCK) {
                            to.0.add(to_block + lane % CHANNEL_BLOCK).write(value);
                        }
                    }
                }
            }
        }
    }

    /// Where half `half` of the panel's floats of position `at` of all images go, if there is such a block.
    fn block(&self, at: usize, half: usize) -> Option<usize> {
        let block = self.panel * 2 + half;
        let place = (self.image * self.blocks + block) * self.plane + at - self.image * self.plane;
        (block < self.blocks).then_some(place * CHANNEL_BLOCK)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::tail::avx2::{Common, Constants, bytes, common, eights, value};
    use super::{Code, FILTER_PANEL, OCTET, Out, STEP, TILE, Tile};
    use glowplug_pack::plan::Int8Function;
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// What adds four products: `vpmaddubsw` and two additions, or `vpdpbusd` as AVX-VNNI or as AVX-512 encodes it.
    const PAIRS: u8 = 0;
    const VEX: u8 = 1;
    const EVEX: u8 = 2;

    /// # Safety
    /// The CPU has AVX2 and what `code` says. From each place on, `input` reaches over all octets of all runs; `weights` are
    /// those of a panel; the outputs lie in the output and are this call's.
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "vector instructions")]
    pub(super) unsafe fn all(tile: &Tile<'_>, places: &[usize], first: usize, code: Code) {
        // SAFETY: the caller's promise.
        unsafe {
            match code {
                Code::Plain | Code::Avx2 => functions::<PAIRS>(tile, places, first),
                Code::AvxVnni => functions::<VEX>(tile, places, first),
                Code::Avx512Vnni => functions::<EVEX>(tile, places, first),
            }
        }
    }

    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn functions<const DOT: u8>(tile: &Tile<'_>, places: &[usize], first: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match (tile.tail.residual.is_some(), tile.tail.last.function) {
                (false, Int8Function::Identity) => tiles::<DOT, false, false>(tile, places, first),
                (true, Int8Function::Identity) => tiles::<DOT, true, false>(tile, places, first),
                (false, Int8Function::HardSwish) => tiles::<DOT, false, true>(tile, places, first),
                (true, Int8Function::HardSwish) => tiles::<DOT, true, true>(tile, places, first),
            }
        }
    }

    /// With a residual, and with HardSwish.
    ///
    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn tiles<const DOT: u8, const RESIDUAL: bool, const SWISH: bool>(
        tile: &Tile<'_>,
        places: &[usize],
        first: usize,
    ) {
        let constants = &(eights(tile.tail, tile.panel * FILTER_PANEL), common(tile.tail));
        let (whole, rest) = places.as_chunks::<TILE>();
        // SAFETY: the caller's promise.
        unsafe {
            for (i, places) in whole.iter().enumerate() {
                sums::<DOT, 3, RESIDUAL, SWISH>(tile, constants, places, first + i * TILE);
            }
            let first = first + whole.len() * TILE;
            match *rest {
                [a, b] => sums::<DOT, 2, RESIDUAL, SWISH>(tile, constants, &[a, b], first),
                [a] => sums::<DOT, 1, RESIDUAL, SWISH>(tile, constants, &[a], first),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2")]
    #[inline]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn sums<const DOT: u8, const P: usize, const RESIDUAL: bool, const SWISH: bool>(
        tile: &Tile<'_>,
        (constants, common): &([Constants; 2], Common),
        places: &[usize; P],
        first: usize,
    ) {
        let mut sums = [[_mm256_setzero_si256(); 2]; P];
        let mut others = sums;
        let ones = _mm256_set1_epi16(1);
        let mut weights = tile.weights.as_ptr();
        // SAFETY: the caller's promise.
        unsafe {
            for row in 0..tile.rows {
                for tap in 0..tile.taps {
                    let run = row * tile.step.0 + tap * tile.step.1;
                    let at: [*const u8; P] =
                        std::array::from_fn(|p| tile.input.as_ptr().add(places[p] + run));
                    for octet in 0..tile.octets {
                        let weights_at = |i: usize| _mm256_loadu_si256(weights.add(i * 32).cast());
                        let quad = |p: usize, i: usize| {
                            let at = at[p].add(octet * OCTET + i * 4);
                            _mm256_set1_epi32(at.cast::<i32>().read_unaligned())
                        };
                        if DOT != PAIRS {
                            // Sums of their own for each half of an octet: none waits for another.
                            for (half, sums) in [&mut sums, &mut others].into_iter().enumerate() {
                                let x: [__m256i; P] = std::array::from_fn(|p| quad(p, half));
                                for v in 0..2 {
                                    let w = weights_at(half * 2 + v);
                                    for (sums, x) in sums.iter_mut().zip(x) {
                                        sums[v] = dot::<DOT>(sums[v], x, w);
                                    }
                                }
                            }
                            weights = weights.add(STEP);
                            continue;
                        }
                        let w: [__m256i; 4] = std::array::from_fn(weights_at);
                        for (p, sums) in sums.iter_mut().enumerate() {
                            let x = quad(p, 0);
                            let low = [_mm256_maddubs_epi16(x, w[0]), _mm256_maddubs_epi16(x, w[1])];
                            let x = quad(p, 1);
                            let high = [_mm256_maddubs_epi16(x, w[2]), _mm256_maddubs_epi16(x, w[3])];
                            for v in 0..2 {
                                let both = _mm256_madd_epi16(_mm256_add_epi16(low[v], high[v]), ones);
                                sums[v] = _mm256_add_epi32(sums[v], both);
                            }
                        }
                        weights = weights.add(STEP);
                    }
                }
            }
            for (p, mut sums) in sums.into_iter().enumerate() {
                if DOT != PAIRS {
                    sums = std::array::from_fn(|v| _mm256_add_epi32(sums[v], others[p][v]));
                }
                let at = first + p;
                let place = (at * tile.panels + tile.panel) * FILTER_PANEL;
                let residual = tile.tail.residual.filter(|_| RESIDUAL).map(|r| {
                    let bytes = _mm_loadu_si128(r.values.as_ptr().add(place).cast());
                    [_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))]
                });
                let values: [__m256; 2] = std::array::from_fn(|v| {
                    value::<SWISH>((tile.tail, common), constants[v], sums[v], residual.map(|r| r[v]))
                });
                match tile.output {
                    Out::Bytes(to) => _mm_storeu_si128(to.0.add(place).cast(), bytes(values)),
                    Out::Floats(to) => {
                        for (half, values) in values.into_iter().enumerate() {
                            if let Some(block) = tile.block(at, half) {
                                _mm256_storeu_ps(to.0.add(block), values);
                            }
                        }
                    }
                }
            }
        }
    }

    /// `sums` and four products of each lane: bytes of `x`, unsigned, with those of `w`, signed. As assembly, since functions that
    /// have the instruction's feature are not made a part of those that have AVX2 alone.
    ///
    /// # Safety
    /// The CPU has AVX-VNNI (`VEX`), or AVX512-VNNI and AVX512-VL (`EVEX`).
    #[target_feature(enable = "avx2")]
    #[inline]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn dot<const DOT: u8>(mut sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        macro_rules! add {
            ($instruction:literal) => {
                // SAFETY: the caller's promise; registers are all that is read and written.
                unsafe {
                    asm!(
                        concat!($instruction, " {sums}, {x}, {w}"),
                        sums = inout(ymm_reg) sums,
                        x = in(ymm_reg) x,
                        w = in(ymm_reg) w,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            };
        }
        if DOT == EVEX {
            add!("vpdpbusd");
        } else {
            add!("{{vex}} vpdpbusd");
        }
        sums
    }
}
