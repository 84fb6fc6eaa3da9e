//! Into bytes and back, and pooling.

use super::slide::Slide;
use super::tail::{byte, clamp};
use crate::share::for_each;
use glowplug_pack::int8::FEW;
use glowplug_pack::plan::CHANNEL_BLOCK;
use tract_core::internal::{TractResult, ensure};

/// `byte = nearest(value * inverse + zero)`, ties to even, held within 0 and `most`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantize {
    pub(crate) inverse: f32,
    pub(crate) zero: f32,
    pub(crate) most: f32,
}

/// One image of floats, in blocks of eight channels or plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floats {
    pub(crate) channels: usize,
    /// Positions of a plane.
    pub(crate) plane: usize,
    /// Channels that lie side by side: eight or one.
    pub(crate) lanes: usize,
}

impl Floats {
    pub(super) fn len(&self) -> usize {
        self.channels.div_ceil(self.lanes) * self.lanes * self.plane
    }
}

impl Quantize {
    fn of(&self, value: f32) -> u8 {
        byte(clamp(value * self.inverse + self.zero, 0.0, self.most))
    }

    /// Images of floats as images of bytes, `pixel` for each position. Bytes beyond the channels are 0.
    pub(crate) fn run(
        &self,
        from: &[f32],
        layout: &Floats,
        to: &mut [u8],
        pixel: usize,
        vectors: bool,
    ) -> TractResult<()> {
        let Floats { channels, plane, lanes } = *layout;
        ensure!(lanes > 0 && channels > 0 && plane > 0 && pixel >= channels, "{layout:?} in {pixel} bytes");
        ensure!(to.len().is_multiple_of(plane * pixel), "{} bytes", to.len());
        ensure!(from.len() == to.len() / (plane * pixel) * layout.len(), "{} values", from.len());
        for (from, to) in from.chunks_exact(layout.len()).zip(to.chunks_exact_mut(plane * pixel)) {
            if lanes == CHANNEL_BLOCK && pixel >= channels.next_multiple_of(CHANNEL_BLOCK) {
                let blocks = channels.div_ceil(CHANNEL_BLOCK);
                let from = from.as_chunks::<CHANNEL_BLOCK>().0;
                for (position, to) in to.chunks_exact_mut(pixel).enumerate() {
                    let (whole, rest) = to.as_chunks_mut::<CHANNEL_BLOCK>();
                    for (block, to) in whole.iter_mut().enumerate() {
                        *to = match block < blocks {
                            true => self.eight(&from[block * plane + position], vectors),
                            false => [0; CHANNEL_BLOCK],
                        };
                    }
                    rest.fill(0);
                }
                continue;
            }
            let done = if lanes == 1 && pixel == FEW { self.few(from, layout, to, vectors) } else { 0 };
            let to = &mut to[done * pixel..];
            to.fill(0);
            for channel in 0..channels {
                let from = from[(channel / lanes * plane + done) * lanes + channel % lanes..].iter();
                let to = to.iter_mut().skip(channel).step_by(pixel);
                to.zip(from.step_by(lanes)).for_each(|(to, from)| *to = self.of(*from));
            }
        }
        Ok(())
    }

    /// An image of few planes, eight positions at a time, as far as these go; gives how many were done.
    fn few(&self, from: &[f32], layout: &Floats, to: &mut [u8], vectors: bool) -> usize {
        let (whole, _) = to.as_chunks_mut::<{ FEW * CHANNEL_BLOCK }>();
        for (at, to) in whole.iter_mut().enumerate() {
            let mut bytes = [[0; CHANNEL_BLOCK]; FEW];
            for (bytes, plane) in bytes.iter_mut().zip(from.chunks_exact(layout.plane)) {
                *bytes = self.eight(&plane.as_chunks::<CHANNEL_BLOCK>().0[at], vectors);
            }
            for (position, to) in to.as_chunks_mut::<FEW>().0.iter_mut().enumerate() {
                *to = bytes.map(|bytes| bytes[position]);
            }
        }
        whole.len() * CHANNEL_BLOCK
    }

    fn eight(&self, values: &[f32; CHANNEL_BLOCK], vectors: bool) -> [u8; CHANNEL_BLOCK] {
        #[cfg(target_arch = "x86_64")]
        if vectors {
            // SAFETY: `vectors` is what this CPU was found to have.
            #[allow(unsafe_code, reason = "vector functions need their instruction sets")]
            return unsafe { avx2::eight(self, values) };
        }
        let _ = vectors;
        values.map(|value| self.of(value))
    }
}

/// `value = (byte - zero) * scale`, into blocks of eight channels. Lanes beyond the channels hold anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dequantize {
    pub(crate) scale: f32,
    pub(crate) zero: f32,
}

impl Dequantize {
    pub(crate) fn run(&self, from: &[u8], pixel: usize, to: &mut [f32], layout: &Floats) -> TractResult<()> {
        let (plane, blocks) = (layout.plane, layout.channels.div_ceil(CHANNEL_BLOCK));
        ensure!(layout.lanes == CHANNEL_BLOCK && plane > 0 && blocks > 0, "{layout:?}");
        ensure!(pixel >= blocks * CHANNEL_BLOCK && from.len().is_multiple_of(plane * pixel), "{pixel} bytes");
        ensure!(to.len() == from.len() / (plane * pixel) * layout.len(), "{} values", to.len());
        for (from, to) in from.chunks_exact(plane * pixel).zip(to.chunks_exact_mut(layout.len())) {
            for (block, to) in to.chunks_exact_mut(plane * CHANNEL_BLOCK).enumerate() {
                let positions = from.chunks_exact(pixel).zip(to.as_chunks_mut::<CHANNEL_BLOCK>().0);
                for (from, to) in positions {
                    let from = from[block * CHANNEL_BLOCK..].iter();
                    to.iter_mut()
                        .zip(from)
                        .for_each(|(to, q)| *to = (f32::from(*q) - self.zero) * self.scale);
                }
            }
        }
        Ok(())
    }
}

/// Bytes of the output that one piece of work of [`max_pool`] writes, or one row: rows may be a few bytes long.
const POOLED_BYTES: usize = 16 << 10;

/// The largest byte under each window; padding never wins, since no byte is below 0.
pub(crate) fn max_pool(slide: &Slide, input: &[u8], output: &mut [u8]) -> TractResult<()> {
    let (v, h, pixel) = (slide.vertical, slide.horizontal, slide.pixel);
    let row = h.output * pixel;
    ensure!(row > 0 && output.len() == slide.images * v.output * row, "{} bytes", output.len());
    ensure!(input.len() >= slide.images * slide.image(), "{} bytes", input.len());
    let at_once = (POOLED_BYTES / row).max(1);
    let pieces: Vec<_> = output.chunks_mut(at_once * row).map(std::sync::Mutex::new).collect();
    for_each(pieces.len(), |piece| {
        // Nobody else takes these rows.
        let Ok(mut rows) = pieces[piece].lock() else { return };
        for (i, row) in rows.chunks_exact_mut(row).enumerate() {
            let i = piece * at_once + i;
            let (image, y) = (&input[i / v.output * slide.image()..], i % v.output);
            for (x, to) in row.chunks_exact_mut(pixel).enumerate() {
                to.fill(0);
                for y in v.taps(y).filter_map(|ky| v.at(y, ky)) {
                    for x in h.taps(x).filter_map(|kx| h.at(x, kx)) {
                        let from = &image[(y * h.input + x) * pixel..][..pixel];
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = (*to).max(*from));
                    }
                }
            }
        }
    });
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{CHANNEL_BLOCK, Quantize};
    use std::arch::x86_64::*;

    /// As the definition, of eight values.
    #[target_feature(enable = "avx2")]
    #[inline]
    #[allow(unsafe_code, reason = "loads and stores take pointers")]
    pub(super) fn eight(quantize: &Quantize, values: &[f32; CHANNEL_BLOCK]) -> [u8; CHANNEL_BLOCK] {
        // SAFETY: eight floats are there; the load asks for no alignment.
        let x = unsafe { _mm256_loadu_ps(values.as_ptr()) };
        let scaled = _mm256_mul_ps(x, _mm256_set1_ps(quantize.inverse));
        let x = _mm256_add_ps(scaled, _mm256_set1_ps(quantize.zero));
        // The second operand is what the instructions give where one is no number.
        let x = _mm256_max_ps(x, _mm256_setzero_ps());
        let x = _mm256_cvtps_epi32(_mm256_min_ps(x, _mm256_set1_ps(quantize.most)));
        let words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        _mm_cvtsi128_si64(_mm_packus_epi16(words, words)).to_le_bytes()
    }
}
