//! Eight floats at a time.

use super::activation::Activation;
use super::activation::{ERF_DENOMINATOR, ERF_LIMIT, ERF_NUMERATOR, EXP_LIMITS, EXP_SERIES, GELU_TANH, LN2};
use std::arch::x86_64::*;
use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// How many floats a vector holds.
pub(super) const LANES: usize = 8;

#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(unsafe_code, reason = "loads take pointers")]
pub(super) fn load(values: &[f32; LANES]) -> __m256 {
    // SAFETY: eight floats are there; the load asks for no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(unsafe_code, reason = "stores take pointers")]
pub(super) fn store(values: &mut [f32; LANES], v: __m256) {
    // SAFETY: eight floats are there; the store asks for no alignment.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), v) }
}

/// Up to seven floats, then `rest`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn load_part(values: &[f32], rest: f32) -> __m256 {
    let mut whole = [rest; LANES];
    whole[..values.len()].copy_from_slice(values);
    load(&whole)
}

/// The first lanes, as many as `values` has.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn store_part(values: &mut [f32], v: __m256) {
    let mut whole = [0.0; LANES];
    store(&mut whole, v);
    values.copy_from_slice(&whole[..values.len()]);
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn max(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// As [`super::activation::exp`].
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn exp(x: __m256) -> __m256 {
    let x = _mm256_max_ps(_mm256_set1_ps(EXP_LIMITS.0), _mm256_min_ps(_mm256_set1_ps(EXP_LIMITS.1), x));
    let n = _mm256_mul_ps(x, _mm256_set1_ps(LOG2_E));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2.0), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2.1), r);
    let p = polynomial(&EXP_SERIES, r);
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(p, _mm256_castsi256_ps(power))
}

/// Coefficients lowest first.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn polynomial<const N: usize>(coefficients: &[f32; N], x: __m256) -> __m256 {
    let mut p = _mm256_set1_ps(coefficients[N - 1]);
    for c in coefficients[..N - 1].iter().rev() {
        p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(*c));
    }
    p
}

/// As [`super::activation::erf`].
#[target_feature(enable = "avx2,fma")]
#[inline]
fn erf(x: __m256) -> __m256 {
    let x = _mm256_max_ps(_mm256_set1_ps(-ERF_LIMIT), _mm256_min_ps(_mm256_set1_ps(ERF_LIMIT), x));
    let t = _mm256_mul_ps(x, x);
    let numerator = _mm256_mul_ps(x, polynomial(&ERF_NUMERATOR, t));
    _mm256_div_ps(numerator, polynomial(&ERF_DENOMINATOR, t))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn gelu(x: __m256) -> __m256 {
    let half = _mm256_mul_ps(x, _mm256_set1_ps(0.5));
    _mm256_fmadd_ps(half, erf(_mm256_mul_ps(x, _mm256_set1_ps(FRAC_1_SQRT_2))), half)
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn gelu_tanh(x: __m256) -> __m256 {
    let cubic = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
    let inner = _mm256_fmadd_ps(cubic, _mm256_set1_ps(GELU_TANH.1), x);
    sigmoid_of(x, _mm256_mul_ps(inner, _mm256_set1_ps(2.0 * GELU_TANH.0)))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn silu(x: __m256) -> __m256 {
    sigmoid_of(x, x)
}

/// `x * sigmoid(y)`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn sigmoid_of(x: __m256, y: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    _mm256_div_ps(x, _mm256_add_ps(one, exp(_mm256_sub_ps(_mm256_setzero_ps(), y))))
}

/// As the function of the same name for one value.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn activate(activation: Activation, x: __m256) -> __m256 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => _mm256_max_ps(_mm256_setzero_ps(), x),
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Silu => silu(x),
    }
}
