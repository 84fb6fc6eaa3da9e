//! Convolutions with one channel per group: sixteen channels of two neighbouring outputs at a time.

use super::slide::{Scratch, Slide};
use super::tail::byte;
use super::{Out, Output, Tail};
use crate::share::{for_each, threads};
use glowplug_pack::int8::{PIXEL, taps_bytes};
use std::cell::RefCell;
use std::ops::Range;
use tract_core::internal::{TractResult, ensure};

/// Bytes of the input that one piece of work sees.
const INPUT_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// A convolution whose operands are about to be checked. It gives bytes; the tail has no residual.
pub(crate) struct Depthwise<'a> {
    pub(crate) slide: Slide,
    pub(crate) input: &'a [u8],
    /// Laid out for sixteen channels after the other.
    pub(crate) weights: &'a [i8],
    pub(crate) tail: Tail<'a>,
    /// Whether this CPU's vectors are used.
    pub(crate) vectors: bool,
}

impl Depthwise<'_> {
    fn taps(&self) -> usize {
        self.slide.vertical.kernel * self.slide.horizontal.kernel
    }

    /// Writes all of the output. Errors: operands of other sizes than the geometry asks for.
    pub(crate) fn run(&self, output: &mut [u8]) -> TractResult<()> {
        let slide = &self.slide;
        let wanted = slide.images * slide.outputs() * slide.pixel;
        let weights = slide.pixel / PIXEL * taps_bytes(self.taps());
        ensure!(slide.pixel > 0 && slide.pixel.is_multiple_of(PIXEL), "positions of {} bytes", slide.pixel);
        ensure!(self.input.len() >= slide.images * slide.image(), "{} bytes of input", self.input.len());
        ensure!(self.weights.len() >= weights, "{} weights of {weights}", self.weights.len());
        ensure!(self.tail.residual.is_none(), "a residual");
        self.tail.check(slide.pixel, 0)?;
        ensure!(output.len() >= wanted, "an output of {} values, {wanted} are written", output.len());
        let output = Output::Bytes(output).shared();
        let in_place = slide.is_inside();
        let rows = slide.vertical.output;
        let ranges = rows.div_ceil(slide.rows_within(INPUT_BYTES)).next_multiple_of(threads());
        let at_once = rows.div_ceil(ranges);
        let ranges = rows.div_ceil(at_once);
        for_each(slide.images * ranges, |i| {
            let (image, range) = (i / ranges, i % ranges);
            let rows = range * at_once..((range + 1) * at_once).min(rows);
            SCRATCH.with_borrow_mut(|scratch| self.rows(image, &rows, in_place, output, scratch));
        });
        Ok(())
    }

    fn rows(&self, image: usize, rows: &Range<usize>, in_place: bool, output: Out, scratch: &mut Scratch) {
        let slide = &self.slide;
        let (v, h, pixel) = (&slide.vertical, &slide.horizontal, slide.pixel);
        let first = image * slide.outputs() + rows.start * h.output;
        let image = &self.input[image * slide.image()..][..slide.image()];
        let Scratch { rows: copied, places } = scratch;
        let (input, row) = slide.rows(image, rows, in_place, copied);
        // Taps in pairs; the last one of an odd number is paired with itself, its weight being 0.
        places.clear();
        let tap = |ky: usize| (0..h.kernel).map(move |kx| ky * v.dilation * row + kx * h.dilation * pixel);
        places.extend((0..v.kernel).flat_map(tap));
        if !places.len().is_multiple_of(2) {
            places.push(0);
        }
        let plane = Plane {
            input,
            taps: places,
            weights: self.weights,
            tail: &self.tail,
            output,
            pixel,
            row: v.stride * row,
            step: h.stride * pixel,
            first,
            extents: (rows.len(), h.output),
        };
        plane.all(self.vectors);
    }
}

/// Some rows of output, and the input that they see.
struct Plane<'a> {
    input: &'a [u8],
    taps: &'a [usize],
    weights: &'a [i8],
    tail: &'a Tail<'a>,
    output: Out,
    pixel: usize,
    /// From what a row of output sees to what the next one does.
    row: usize,
    /// The same from output to output.
    step: usize,
    /// The first output's number, counted over all images.
    first: usize,
    /// Rows and columns.
    extents: (usize, usize),
}

impl Plane<'_> {
    fn all(&self, vectors: bool) {
        #[cfg(target_arch = "x86_64")]
        if vectors {
            // SAFETY: `vectors` is what this CPU was found to have. `Depthwise::run` checked all sizes: every tap of every
            // output lies in `input`, sixteen bytes of it; the outputs lie in the output.
            #[allow(unsafe_code, reason = "kernels are chosen by what the CPU has")]
            unsafe {
                avx2::all(self);
            }
            return;
        }
        let _ = vectors;
        self.plain();
    }

    /// As the vectors do it, one value after the other.
    #[allow(unsafe_code, reason = "threads share the output")]
    fn plain(&self) {
        let Out::Bytes(output) = self.output else { return };
        let len = self.taps.len() * 2 * PIXEL;
        for y in 0..self.extents.0 {
            for x in 0..self.extents.1 {
                let (from, at) = (y * self.row + x * self.step, self.first + y * self.extents.1 + x);
                for channel in 0..self.pixel {
                    let weights = &self.weights[channel / PIXEL * len..][..len];
                    let lane = channel % PIXEL;
                    let weight = |tap: usize| {
                        weights[tap / 2 * 4 * PIXEL + lane / 8 * 2 * PIXEL + lane % 8 * 2 + tap % 2]
                    };
                    let product = |(i, tap): (usize, &usize)| {
                        i32::from(self.input[from + tap + channel]) * i32::from(weight(i))
                    };
                    let sum = self.taps.iter().enumerate().map(product).sum();
                    let value = byte(self.tail.value(sum, channel, None));
                    // SAFETY: `Depthwise::run` checked that the output holds all of it; nobody else writes these.
                    unsafe { output.0.add(at * self.pixel + channel).write(value) };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::tail::avx2::{common, quads, value};
    use super::{Out, PIXEL, Plane};
    use glowplug_pack::int8::{CHUNK, FIRST_TAPS};
    use glowplug_pack::plan::Int8Function;
    use std::arch::x86_64::*;

    /// Pairs of taps of a chunk, the first ones and all.
    const FIRST: usize = FIRST_TAPS / 2;
    const PAIRS: usize = CHUNK / 2;

    /// # Safety
    /// The CPU has AVX2. From each output's first tap on, `input` reaches over sixteen bytes of all taps of all channels;
    /// the outputs lie in the output and are this call's.
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "vector instructions")]
    pub(super) unsafe fn all(plane: &Plane<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            match plane.tail.last.function {
                Int8Function::Identity => rows::<false>(plane),
                Int8Function::HardSwish => rows::<true>(plane),
            }
        }
    }

    /// With HardSwish, or without.
    ///
    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn rows<const SWISH: bool>(plane: &Plane<'_>) {
        let Out::Bytes(output) = plane.output else { return };
        let common = common(plane.tail);
        let len = plane.taps.len() * 2 * PIXEL;
        for y in 0..plane.extents.0 {
            for (group, weights) in plane.weights.chunks_exact(len).enumerate().take(plane.pixel / PIXEL) {
                let constants = quads(plane.tail, group * PIXEL);
                let mut x = 0;
                while x < plane.extents.1 {
                    // A last one by itself is done twice.
                    let other = (x + 1).min(plane.extents.1 - 1);
                    let at = |x: usize| y * plane.row + x * plane.step + group * PIXEL;
                    let to = |x: usize| (plane.first + y * plane.extents.1 + x) * plane.pixel + group * PIXEL;
                    // SAFETY: the caller's promise.
                    unsafe {
                        let from = [at(x), at(other)].map(|at| plane.input.as_ptr().add(at));
                        let sums = sums::<SWISH>(from, plane.taps, weights);
                        let whole: [__m256i; 4] = std::array::from_fn(|i| {
                            _mm256_cvtps_epi32(value::<SWISH>(
                                (plane.tail, &common),
                                constants[i],
                                sums[i],
                                None,
                            ))
                        });
                        let [a, b, c, d] = whole;
                        let bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                        _mm_storeu_si128(output.0.add(to(x)).cast(), _mm256_castsi256_si128(bytes));
                        let second = _mm256_extracti128_si256::<1>(bytes);
                        _mm_storeu_si128(output.0.add(to(other)).cast(), second);
                    }
                    x += 2;
                }
            }
        }
    }

    /// The sums of two outputs, whatever follows them (each caller has its own, so that it is made a part of it): vector `i` holds channels from `4 * i` on of the first, then of the second.
    ///
    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2")]
    #[inline]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn sums<const SWISH: bool>(from: [*const u8; 2], taps: &[usize], weights: &[i8]) -> [__m256i; 4] {
        let mut sums = [_mm256_setzero_si256(); 4];
        let pairs = taps.as_chunks::<2>().0;
        let weights = weights.as_chunks::<{ 4 * PIXEL }>().0;
        for (pairs, weights) in pairs.chunks(PAIRS).zip(weights.chunks(PAIRS)) {
            // SAFETY: the caller's promise.
            let more = unsafe {
                match (pairs, weights) {
                    (&[a, b, c, d, e], [v, w, x, y, z]) => {
                        chunk::<_, SWISH>(from, [a, b, c, d, e], [v, w, x, y, z])
                    }
                    (&[a, b, c, d], [v, w, x, y]) => chunk::<_, SWISH>(from, [a, b, c, d], [v, w, x, y]),
                    (&[a, b, c], [v, w, x]) => chunk::<_, SWISH>(from, [a, b, c], [v, w, x]),
                    (&[a, b], [v, w]) => chunk::<_, SWISH>(from, [a, b], [v, w]),
                    (&[a], [v]) => chunk::<_, SWISH>(from, [a], [v]),
                    // As many pairs of weights as of taps, from one to five.
                    _ => sums,
                }
            };
            sums = std::array::from_fn(|i| _mm256_add_epi32(sums[i], more[i]));
        }
        sums
    }

    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2")]
    #[inline]
    #[allow(unsafe_code, reason = "vector instructions")]
    unsafe fn chunk<const N: usize, const SWISH: bool>(
        from: [*const u8; 2],
        pairs: [[usize; 2]; N],
        weights: [&[i8; 4 * PIXEL]; N],
    ) -> [__m256i; 4] {
        // In 16 bits: the first pairs and the others; channels 0 to 7 and 8 to 15.
        let mut words = [[_mm256_setzero_si256(); 2]; 2];
        for i in 0..N {
            // SAFETY: the caller's promise.
            let [x, y, w, v] = unsafe {
                let load = |tap: usize| {
                    let [a, b] = from.map(|from| _mm_loadu_si128(from.add(tap).cast()));
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b)
                };
                let w = weights[i].as_ptr();
                let of = |at: usize| _mm256_loadu_si256(w.add(at).cast());
                [load(pairs[i][0]), load(pairs[i][1]), of(0), of(2 * PIXEL)]
            };
            let products = [
                _mm256_maddubs_epi16(_mm256_unpacklo_epi8(x, y), w),
                _mm256_maddubs_epi16(_mm256_unpackhi_epi8(x, y), v),
            ];
            let words = &mut words[usize::from(i >= FIRST)];
            *words = std::array::from_fn(|half| _mm256_add_epi16(words[half], products[half]));
        }
        let ones = _mm256_set1_epi16(1);
        let [first, others] = words;
        std::array::from_fn(|i| {
            let (a, b) = (first[i / 2], others[i / 2]);
            let both = if i % 2 == 0 { _mm256_unpacklo_epi16(a, b) } else { _mm256_unpackhi_epi16(a, b) };
            _mm256_madd_epi16(both, ones)
        })
    }
}
