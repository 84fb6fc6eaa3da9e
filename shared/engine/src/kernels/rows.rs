//! What is done to whole rows: normalisation and softmax.

use super::activation::Activation;
use super::has_avx2;

/// `out = (x - mean) / sqrt(variance + epsilon) * scale + bias`, over the row. All four are equally long.
#[allow(unsafe_code, reason = "vector functions need their instruction sets")]
pub(crate) fn layer_norm(x: &[f32], scale: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the CPU has them.
        unsafe { avx2::layer_norm(x, scale, bias, epsilon, out) };
        return;
    }
    plain::layer_norm(x, scale, bias, epsilon, out);
}

/// `row = softmax(row * scale + mask)`. The mask is as long as the row.
#[allow(unsafe_code, reason = "vector functions need their instruction sets")]
pub(crate) fn softmax(row: &mut [f32], scale: f32, mask: Option<&[f32]>) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the CPU has them.
        unsafe { avx2::softmax(row, scale, mask) };
        return;
    }
    plain::softmax(row, scale, mask);
}

/// `out = activation(row + bias)`. All three are equally long.
#[allow(unsafe_code, reason = "vector functions need their instruction sets")]
pub(crate) fn add_and_activate(row: &[f32], bias: &[f32], activation: Activation, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the CPU has them.
        unsafe { avx2::add_and_activate(row, bias, activation, out) };
        return;
    }
    plain::add_and_activate(row, bias, activation, out);
}

mod plain {
    use super::super::activation::{Activation, activate, exp};

    pub(super) fn add_and_activate(row: &[f32], bias: &[f32], activation: Activation, out: &mut [f32]) {
        for ((out, x), bias) in out.iter_mut().zip(row).zip(bias) {
            *out = activate(activation, x + bias);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "rows are far shorter than 2^24")]
    pub(super) fn layer_norm(x: &[f32], scale: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let n = x.len() as f32;
        let mean = x.iter().sum::<f32>() / n;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
        let factor = (variance + epsilon).sqrt().recip();
        for ((out, x), (scale, bias)) in out.iter_mut().zip(x).zip(scale.iter().zip(bias)) {
            *out = (x - mean) * factor * scale + bias;
        }
    }

    pub(super) fn softmax(row: &mut [f32], scale: f32, mask: Option<&[f32]>) {
        row.iter_mut().for_each(|x| *x *= scale);
        if let Some(mask) = mask {
            row.iter_mut().zip(mask).for_each(|(x, mask)| *x += mask);
        }
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for x in row.iter_mut() {
            *x = exp(*x - most);
            sum += *x;
        }
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::activation::Activation;
    use super::super::vector::{self, LANES, load, load_part, store, store_part};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    #[allow(clippy::cast_precision_loss, reason = "rows are far shorter than 2^24")]
    pub(super) fn layer_norm(x: &[f32], scale: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let n = x.len() as f32;
        let (whole, part) = x.as_chunks::<LANES>();
        let mut sum = load_part(part, 0.0);
        for x in whole {
            sum = _mm256_add_ps(sum, load(x));
        }
        let mean = vector::sum(sum) / n;
        let means = _mm256_set1_ps(mean);
        // Lanes that are not there are the mean: they add nothing.
        let apart = _mm256_sub_ps(load_part(part, mean), means);
        let mut squares = _mm256_mul_ps(apart, apart);
        for x in whole {
            let apart = _mm256_sub_ps(load(x), means);
            squares = _mm256_fmadd_ps(apart, apart, squares);
        }
        let factor = _mm256_set1_ps((vector::sum(squares) / n + epsilon).sqrt().recip());
        let ((scales, scale), (biases, bias)) = (scale.as_chunks::<LANES>(), bias.as_chunks::<LANES>());
        let (outs, out) = out.as_chunks_mut::<LANES>();
        for (((x, scale), bias), out) in whole.iter().zip(scales).zip(biases).zip(outs) {
            let apart = _mm256_mul_ps(_mm256_sub_ps(load(x), means), factor);
            store(out, _mm256_fmadd_ps(apart, load(scale), load(bias)));
        }
        let apart = _mm256_mul_ps(_mm256_sub_ps(load_part(part, mean), means), factor);
        store_part(out, _mm256_fmadd_ps(apart, load_part(scale, 0.0), load_part(bias, 0.0)));
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn add_and_activate(row: &[f32], bias: &[f32], activation: Activation, out: &mut [f32]) {
        let ((rows, row), (biases, bias)) = (row.as_chunks::<LANES>(), bias.as_chunks::<LANES>());
        let (outs, out) = out.as_chunks_mut::<LANES>();
        for ((x, bias), out) in rows.iter().zip(biases).zip(outs) {
            store(out, vector::activate(activation, _mm256_add_ps(load(x), load(bias))));
        }
        let last = _mm256_add_ps(load_part(row, 0.0), load_part(bias, 0.0));
        store_part(out, vector::activate(activation, last));
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn softmax(row: &mut [f32], scale: f32, mask: Option<&[f32]>) {
        let scales = _mm256_set1_ps(scale);
        let (whole, part) = row.as_chunks_mut::<LANES>();
        let (masks, mask) = mask.map(|mask| mask.as_chunks::<LANES>()).unzip();
        let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
        match masks {
            Some(masks) => {
                for (x, mask) in whole.iter_mut().zip(masks) {
                    let v = _mm256_fmadd_ps(load(x), scales, load(mask));
                    most = _mm256_max_ps(most, v);
                    store(x, v);
                }
            }
            None => {
                for x in whole.iter_mut() {
                    let v = _mm256_mul_ps(load(x), scales);
                    most = _mm256_max_ps(most, v);
                    store(x, v);
                }
            }
        }
        for (i, x) in part.iter_mut().enumerate() {
            *x = *x * scale + mask.map_or(0.0, |mask| mask[i]);
        }
        let most = part.iter().copied().fold(vector::max(most), f32::max);
        let mosts = _mm256_set1_ps(most);
        let mut sum = _mm256_setzero_ps();
        for x in whole.iter_mut() {
            let v = vector::exp(_mm256_sub_ps(load(x), mosts));
            sum = _mm256_add_ps(sum, v);
            store(x, v);
        }
        let mut total = vector::sum(sum);
        if !part.is_empty() {
            store_part(part, vector::exp(_mm256_sub_ps(load_part(part, 0.0), mosts)));
            total += part.iter().sum::<f32>();
        }
        let factor = total.recip();
        let factors = _mm256_set1_ps(factor);
        for x in whole.iter_mut() {
            let v = _mm256_mul_ps(load(x), factors);
            store(x, v);
        }
        part.iter_mut().for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 126.0 - 4.0).collect()
    }

    fn assert_close(found: &[f32], wanted: &[f32], what: &str) {
        for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            assert!(
                (found - wanted).abs() <= 2e-6 * wanted.abs().max(1.0),
                "{what} at {i}: {found} {wanted}"
            );
        }
    }

    #[test]
    fn rows_of_any_length_are_normalised_as_plain_code_does() {
        for n in (1..70).chain([384, 1023]) {
            let (x, scale, bias) = (numbers(n, 1), numbers(n, 2), numbers(n, 3));
            let (mut found, mut wanted) = (vec![0.0; n], vec![0.0; n]);
            layer_norm(&x, &scale, &bias, 1e-5, &mut found);
            plain::layer_norm(&x, &scale, &bias, 1e-5, &mut wanted);
            assert_close(&found, &wanted, &format!("{n} values"));
        }
        let mut out = [0.0; 2];
        layer_norm(&[1.0, 3.0], &[2.0, 2.0], &[10.0, 20.0], 0.0, &mut out);
        assert_eq!(out, [8.0, 22.0]);
    }

    #[test]
    fn rows_of_any_length_are_activated_as_plain_code_does() {
        for n in (1..40).chain([257]) {
            let (row, bias) = (numbers(n, 6), numbers(n, 7));
            for activation in [Activation::Identity, Activation::Relu, Activation::GeluTanh] {
                let (mut found, mut wanted) = (vec![0.0; n], vec![0.0; n]);
                add_and_activate(&row, &bias, activation, &mut found);
                plain::add_and_activate(&row, &bias, activation, &mut wanted);
                assert_close(&found, &wanted, &format!("{activation:?} of {n} values"));
            }
        }
    }

    #[test]
    fn softmax_of_any_length_is_that_of_plain_code() {
        for n in (1..70).chain([384, 1023]) {
            let mut mask = numbers(n, 5);
            mask[n / 2] = -1e9;
            for mask in [None, Some(mask.as_slice())] {
                let (mut found, mut wanted) = (numbers(n, 4), numbers(n, 4));
                softmax(&mut found, 0.3, mask);
                plain::softmax(&mut wanted, 0.3, mask);
                assert_close(&found, &wanted, &format!("{n} values"));
                assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{found:?}");
                assert!(n == 1 || mask.is_none() || found[n / 2] < 1e-30, "{found:?}");
            }
        }
    }
}
