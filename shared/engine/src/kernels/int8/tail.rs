//! What becomes of a sum: the definition, and the same for sixteen channels at once.

use glowplug_pack::int8::PIXEL;
use glowplug_pack::plan::{Int8Function, Int8Tail};
use tract_core::internal::{TractResult, ensure};

/// An image that is added to the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Residual<'a> {
    /// Laid out as an output of bytes.
    pub(crate) values: &'a [u8],
    /// What its values are multiplied by. Its zero is in the bias.
    pub(crate) scale: f32,
}

/// What follows a sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail<'a> {
    /// A factor for each channel, as many as whole panels have.
    pub(crate) multiplier: &'a [f32],
    /// As the multipliers.
    pub(crate) bias: &'a [f32],
    pub(crate) residual: Option<Residual<'a>>,
    /// A function and limits.
    pub(crate) last: Int8Tail,
}

impl Tail<'_> {
    /// Errors: constants for fewer than `channels`, or a residual of fewer than `values`.
    pub(super) fn check(&self, channels: usize, values: usize) -> TractResult<()> {
        let constants = self.multiplier.len().min(self.bias.len());
        ensure!(constants >= channels, "constants of {constants} channels, {channels} are read");
        ensure!(self.residual.is_none_or(|r| r.values.len() >= values), "a residual of another size");
        Ok(())
    }

    /// The value for `sum` in channel `channel`, `residual` being the other image's; a byte's is whole.
    pub(super) fn value(&self, sum: i32, channel: usize, residual: Option<u8>) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "to nearest, as the vector instruction")]
        let mut x = sum as f32 * self.multiplier[channel] + self.bias[channel];
        if let (Some(value), Some(residual)) = (residual, self.residual) {
            x += f32::from(value) * residual.scale;
        }
        let Int8Tail { function, scale, zero, low, high } = self.last;
        if function == Int8Function::HardSwish {
            x = x * clamp(x * (1.0 / 6.0) + 0.5, 0.0, 1.0) * scale + zero;
        }
        clamp(x, low, high)
    }
}

/// What is no number becomes `low`, as in the vector instructions.
pub(super) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// The nearest byte, ties to even, of a value from 0 to 255.
pub(super) fn byte(x: f32) -> u8 {
    // From here on neighbours are 1 apart, so that the sum is rounded, and its last bits are the number.
    const WHOLE: f32 = 8_388_608.0;
    let [byte, ..] = (x + WHOLE).to_bits().to_le_bytes();
    byte
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use super::{PIXEL, Tail};
    use std::arch::x86_64::*;

    /// What all channels have in common.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Common {
        low: __m256,
        high: __m256,
        residual: __m256,
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn common(tail: &Tail<'_>) -> Common {
        Common {
            low: _mm256_set1_ps(tail.last.low),
            high: _mm256_set1_ps(tail.last.high),
            residual: _mm256_set1_ps(tail.residual.map_or(0.0, |r| r.scale)),
        }
    }

    /// Multiplier and bias of as many channels as a vector holds.
    pub(in super::super) type Constants = [__m256; 2];

    /// Those of the sixteen channels from `channel` on, eight and eight.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn eights(tail: &Tail<'_>, channel: usize) -> [Constants; 2] {
        let load = |values: &[f32], i: usize| {
            let values: &[f32; 8] = values[channel + 8 * i..].first_chunk().unwrap_or(&[0.0; 8]);
            // SAFETY: eight floats are there; loads ask for no alignment.
            #[allow(unsafe_code, reason = "loads take pointers")]
            unsafe {
                _mm256_loadu_ps(values.as_ptr())
            }
        };
        std::array::from_fn(|i| [load(tail.multiplier, i), load(tail.bias, i)])
    }

    /// Those of the sixteen channels from `channel` on, in the order of what depthwise sums are: each half of vector `i`
    /// holds the channels from `4 * i` on.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn quads(tail: &Tail<'_>, channel: usize) -> [Constants; PIXEL / 4] {
        let load = |values: &[f32], i: usize| {
            let values: &[f32; 4] = values[channel + 4 * i..].first_chunk().unwrap_or(&[0.0; 4]);
            // SAFETY: four floats are there; loads ask for no alignment.
            #[allow(unsafe_code, reason = "loads take pointers")]
            let quad = unsafe { _mm_loadu_ps(values.as_ptr()) };
            _mm256_set_m128(quad, quad)
        };
        std::array::from_fn(|i| [load(tail.multiplier, i), load(tail.bias, i)])
    }

    /// As [`Tail::value`]; `residual` holds as many whole numbers, `SWISH` says whether the function is HardSwish.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn value<const SWISH: bool>(
        (tail, common): (&Tail<'_>, &Common),
        [multiplier, bias]: Constants,
        sums: __m256i,
        residual: Option<__m256i>,
    ) -> __m256 {
        let mut x = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), multiplier), bias);
        if let Some(values) = residual {
            x = _mm256_add_ps(x, _mm256_mul_ps(_mm256_cvtepi32_ps(values), common.residual));
        }
        if SWISH {
            let gate = _mm256_mul_ps(x, _mm256_set1_ps(1.0 / 6.0));
            let gate = _mm256_add_ps(gate, _mm256_set1_ps(0.5));
            let gate = clamp(gate, _mm256_setzero_ps(), _mm256_set1_ps(1.0));
            let scaled = _mm256_mul_ps(_mm256_mul_ps(x, gate), _mm256_set1_ps(tail.last.scale));
            x = _mm256_add_ps(scaled, _mm256_set1_ps(tail.last.zero));
        }
        clamp(x, common.low, common.high)
    }

    /// The second operand is what an instruction gives where one is no number.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn clamp(x: __m256, low: __m256, high: __m256) -> __m256 {
        _mm256_min_ps(_mm256_max_ps(x, low), high)
    }

    /// Bytes out of sixteen values, in order.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn bytes(values: [__m256; 2]) -> __m128i {
        let [low, high] = values.map(|v| _mm256_cvtps_epi32(v));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
    }
}
