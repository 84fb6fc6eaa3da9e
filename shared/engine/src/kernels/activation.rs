//! What follows a product, value by value.

pub(crate) use glowplug_pack::plan::Activation;

/// Where erf is +-1 in f32.
pub(super) const ERF_LIMIT: f32 = 3.95;
/// `erf(x) / x` is the quotient of these two polynomials of `x * x`, lowest coefficients first: the best of their
/// degrees up to the limit by weighted least squares, 2e-8 off before rounding, 4e-7 with it.
pub(super) const ERF_NUMERATOR: [f32; 6] = [
    std::f32::consts::FRAC_2_SQRT_PI,
    0.191_546_92,
    0.052_874_543,
    0.003_807_898,
    0.000_284_662_06,
    0.000_002_025_675_7,
];
/// See [`ERF_NUMERATOR`].
pub(super) const ERF_DENOMINATOR: [f32; 6] =
    [1.0, 0.503_086_7, 0.114_557_81, 0.015_054_57, 0.001_170_625_3, 0.000_037_828_046];
/// Beyond these exp is 0 or infinite, or nearly.
pub(super) const EXP_LIMITS: (f32, f32) = (-87.3, 88.3);
/// The series of exp, whose rest is below 1e-8 within half of ln 2.
pub(super) const EXP_SERIES: [f32; 8] =
    [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
/// ln 2 in two parts, the first of few bits: multiples of it are exact.
pub(super) const LN2: (f32, f32) = (0.693_359_4, -0.000_212_194_44);
/// `sqrt(2 / pi)`, and the factor of the cube.
pub(super) const GELU_TANH: (f32, f32) = (0.797_884_6, 0.044_715);

/// `activation` of one value: Relu `max(x, 0)`; Gelu `x / 2 * (1 + erf(x / sqrt(2)))`; GeluTanh
/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`; Silu `x / (1 + exp(-x))`.
pub(crate) fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Identity => x,
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
        Activation::Gelu => x * 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = x + GELU_TANH.1 * x * x * x;
            x / (1.0 + exp(-2.0 * GELU_TANH.0 * inner))
        }
        Activation::Silu => x / (1.0 + exp(-x)),
    }
}

/// The error function.
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-ERF_LIMIT, ERF_LIMIT);
    let polynomial = |c: &[f32]| c.iter().rev().fold(0.0, |p, c| p * (x * x) + c);
    (x * polynomial(&ERF_NUMERATOR) / polynomial(&ERF_DENOMINATOR)).clamp(-1.0, 1.0)
}

/// The exponential function; what would be too small or too large for a float is the nearest limit's.
pub(super) fn exp(x: f32) -> f32 {
    x.clamp(EXP_LIMITS.0, EXP_LIMITS.1).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From below -100 to above 100, dense around 0.
    fn values() -> impl Iterator<Item = f32> {
        (-4000i16..=4000).map(|i| {
            let x = f32::from(i) / 200.0;
            x * x * x / 70.0
        })
    }

    #[test]
    fn the_error_function_is_that_of_tables() {
        // Abramowitz and Stegun, table 7.1.
        let table =
            [(0.0, 0.0), (0.1, 0.112_462_92), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)];
        for (x, y) in table {
            assert!((erf(x) - y).abs() < 6e-7 && (erf(-x) + y).abs() < 6e-7, "erf({x}) = {}", erf(x));
        }
        assert_eq!((erf(9.0), erf(-9.0)), (erf(ERF_LIMIT), erf(-ERF_LIMIT)));
        assert!((erf(9.0) - 1.0).abs() < 4e-7);
    }

    #[test]
    fn activations_are_what_their_formulas_say() {
        for x in values() {
            let (wide, tanh_of) = (f64::from(x), 0.044_715 * f64::from(x).powi(3) + f64::from(x));
            let wanted = [
                (Activation::Identity, wide),
                (Activation::Relu, wide.max(0.0)),
                (
                    Activation::GeluTanh,
                    wide / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * tanh_of).tanh()),
                ),
                (Activation::Silu, wide / (1.0 + (-wide).exp())),
            ];
            for (activation, wanted) in wanted {
                let found = f64::from(activate(activation, x));
                assert!(
                    (found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
                    "{activation:?} of {x}: {found}"
                );
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[allow(unsafe_code, reason = "vector functions need their instruction sets")]
    fn vectors_say_what_scalars_say() {
        use super::super::vector;
        use std::arch::x86_64::__m256;

        #[target_feature(enable = "avx2,fma")]
        fn all(x: &[f32; 8]) -> [[f32; 8]; 5] {
            let v = vector::load(x);
            let out = |v: __m256| {
                let mut out = [0.0; 8];
                vector::store(&mut out, v);
                out
            };
            [
                vector::gelu(v),
                vector::gelu_tanh(v),
                vector::silu(v),
                vector::exp(v),
                vector::activate(Activation::Relu, v),
            ]
            .map(out)
        }

        if !super::super::has_avx2() {
            return;
        }
        let values: Vec<f32> = values().collect();
        for x in values.as_chunks::<8>().0 {
            // SAFETY: the CPU has them.
            let found = unsafe { all(x) };
            for (i, x) in x.iter().enumerate() {
                let [gelu, tanh, silu, relu] =
                    [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu]
                        .map(|a| activate(a, *x));
                let wanted = [gelu, tanh, silu, exp(*x), relu];
                for (which, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                    let error = (found[i] - wanted).abs();
                    assert!(
                        error <= 1e-6 * wanted.abs().max(x.abs()).max(1.0),
                        "{which} of {x}: {} for {wanted}",
                        found[i]
                    );
                }
            }
        }
        // SAFETY: as above.
        let found = unsafe { all(&[f32::NAN; 8]) };
        assert!(found.as_flattened().iter().all(|x| x.is_nan()), "{found:?}");
        for a in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
            assert!(activate(a, f32::NAN).is_nan(), "{a:?}");
        }
    }
}
