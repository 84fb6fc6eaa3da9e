//! Eight lanes of f32: a 256-bit vector where the CPU has them, an array elsewhere.

use super::steps::activation;
use glowplug_pack::plan::{CHANNEL_BLOCK, UnaryOp};

/// A vector of a block of channels. All operations are lane by lane.
///
/// # Safety
/// Every method may be called only where the CPU has what the implementation is made of: any CPU for [`Array`],
/// AVX2 and FMA for [`Avx2`]. Pointers are valid for [`CHANNEL_BLOCK`] values, aligned or not.
#[allow(unsafe_code, reason = "vector instructions")]
pub(super) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * by + to`, rounded once where the CPU can.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// Where either is NaN, `other`, as the next one.
    unsafe fn min(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// The nearest whole number, ties to even.
    unsafe fn round(self) -> Self;
    /// `2 ^ self` for whole numbers from -126 to 127.
    unsafe fn exp2_of_whole(self) -> Self;
    /// `op` of each. A call, not a part of each kernel that ends with it.
    unsafe fn activate(op: UnaryOp, values: &mut [Self]);
}

/// Any CPU; also what vectors are compared with.
#[derive(Clone, Copy)]
pub(super) struct Array([f32; CHANNEL_BLOCK]);

impl Array {
    fn map2(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Array(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

#[allow(unsafe_code, reason = "the trait's methods are unsafe")]
impl Lanes for Array {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Array([value; CHANNEL_BLOCK])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of floats needs no more alignment than one.
        Array(unsafe { from.cast::<[f32; CHANNEL_BLOCK]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; CHANNEL_BLOCK]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // Where the CPU has no such instruction, `f32::mul_add` is a slow call.
        let fused = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        Array(std::array::from_fn(|i| match fused {
            true => self.0[i].mul_add(by.0[i], to.0[i]),
            false => self.0[i] * by.0[i] + to.0[i],
        }))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.map2(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.map2(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.map2(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.map2(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.map2(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.map2(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Array(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, from 1 to 254")]
    unsafe fn exp2_of_whole(self) -> Self {
        Array(self.0.map(|x| f32::from_bits(((x + 127.0) as u32) << 23)))
    }

    #[inline(never)]
    unsafe fn activate(op: UnaryOp, values: &mut [Self]) {
        // SAFETY: any CPU runs it.
        values.iter_mut().for_each(|v| *v = unsafe { activation(op, *v) });
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::Lanes;
    use crate::ops::blocked::steps::activation;
    use glowplug_pack::plan::UnaryOp;
    use std::arch::x86_64::{
        __m256, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_add_epi32, _mm256_add_ps,
        _mm256_castsi256_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
    };

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in crate::ops::blocked) struct Avx2(__m256);

    macro_rules! instructions {
        ($($method:ident($($operand:ident),*) is $instruction:ident;)*) => {$(
            #[inline(always)]
            unsafe fn $method(self $(, $operand: Self)*) -> Self {
                // SAFETY: the caller promises AVX2 and FMA.
                Avx2(unsafe { $instruction(self.0 $(, $operand.0)*) })
            }
        )*};
    }

    #[allow(unsafe_code, reason = "vector instructions")]
    impl Lanes for Avx2 {
        instructions! {
            mul_add(by, to) is _mm256_fmadd_ps;
            add(other) is _mm256_add_ps;
            sub(other) is _mm256_sub_ps;
            mul(other) is _mm256_mul_ps;
            div(other) is _mm256_div_ps;
            min(other) is _mm256_min_ps;
            max(other) is _mm256_max_ps;
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller promises AVX2 and FMA.
            Avx2(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller promises AVX2 and FMA, and eight values.
            Avx2(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as in `load`.
            unsafe { _mm256_storeu_ps(to, self.0) };
        }

        #[inline(always)]
        unsafe fn round(self) -> Self {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            // SAFETY: the caller promises AVX2 and FMA.
            Avx2(unsafe { _mm256_round_ps::<NEAREST>(self.0) })
        }

        #[inline(always)]
        unsafe fn exp2_of_whole(self) -> Self {
            // SAFETY: the caller promises AVX2 and FMA.
            Avx2(unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            })
        }

        #[inline(always)]
        unsafe fn activate(op: UnaryOp, values: &mut [Self]) {
            #[inline(never)]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn call(op: UnaryOp, values: &mut [Avx2]) {
                // SAFETY: the caller promises AVX2 and FMA.
                values.iter_mut().for_each(|v| *v = unsafe { activation(op, *v) });
            }
            // SAFETY: the same.
            unsafe { call(op, values) };
        }
    }
}

/// Asks for values that will be read soon, where the CPU can be asked.
#[inline(always)]
pub(super) fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, whatever the address; every x86-64 has it.
        #[allow(unsafe_code, reason = "an instruction")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// `e ^ x` to about two units in the last place; 0 and infinity are never reached, since `x` is held between the
/// exponents of the smallest and the largest normal number.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
#[allow(unsafe_code, reason = "as the trait")]
pub(super) unsafe fn exp<L: Lanes>(x: L) -> L {
    // The polynomial of Cephes' expf on half of ln 2 either way; ln 2 is split so that `n * HIGH` is exact.
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // SAFETY: the caller's promise is the trait's.
    unsafe {
        // In this order NaN stays NaN.
        let x = L::splat(-87.3).max(L::splat(87.3).min(x));
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(L::splat(-HIGH), x);
        let r = n.mul_add(L::splat(-LOW), r);
        let [first, rest @ ..] = COEFFICIENTS;
        let p = rest.iter().fold(L::splat(first), |p, c| p.mul_add(r, L::splat(*c)));
        p.mul_add(r.mul(r), r).add(L::splat(1.0)).mul(n.exp2_of_whole())
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "the trait's methods are unsafe")]
mod tests {
    use super::*;
    use crate::kernels::has_avx2;

    fn each<L: Lanes>(x: [f32; 8], f: unsafe fn(L) -> L) -> [f32; 8] {
        let mut out = [0.0; 8];
        // SAFETY: eight values either way; callers ask for vectors this CPU has.
        unsafe { f(L::load(x.as_ptr())).store(out.as_mut_ptr()) };
        out
    }

    #[test]
    fn exp_is_exact_to_a_few_parts_in_ten_million() {
        for i in -1740..1740i16 {
            let x: [f32; 8] = std::array::from_fn(|lane| f32::from(i) / 20.0 + lane as f32 * 0.006);
            let found = each::<Array>(x, exp);
            for (found, x) in found.iter().zip(x) {
                let wanted = f64::from(x.clamp(-87.3, 87.3)).exp();
                assert!((f64::from(*found) / wanted - 1.0).abs() < 3e-7, "exp({x}) = {found}, not {wanted}");
            }
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                let vector = each::<Avx2>(x, exp);
                for (a, b) in vector.iter().zip(found) {
                    assert!((a / b - 1.0).abs() < 3e-7, "{a} and {b}");
                }
            }
        }
    }
}
