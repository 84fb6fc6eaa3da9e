//! Rounding a matrix so that its products change least.
//!
//! Rounding each weight by itself makes the error of a weight small. What counts is the error of the products,
//! `e X` for the errors `e` of a channel and the inputs `X` of calibration, and inputs are correlated: what one weight's
//! error does, others can undo. With the second moments `H = X X^T` of the inputs, the loss is `e H e^T`. Write
//! `H = M D M^T` with M unit upper triangular: the loss is `sum_k D_k (e M)_k^2`, and weights that are rounded
//! one after the other, each to the value nearest to `w_k + sum_(j<k) e_j M_jk`, leave a rounding error only in each term
//! (LDLQ, as Chee and others, QuIP, 2023, write it; the same numbers as GPTQ, Frantar and others, 2022). One factorization for
//! a matrix, `depth^3 / 3` multiplications, and `depth^2 / 2` for each channel.

use glowplug_pack::encoding::int8_nearest;
use std::sync::OnceLock;

/// What is added to the diagonal, in parts of its mean: inputs that never vary would leave H singular.
const DAMPING: f64 = 0.01;

/// The second moments of what a weight is multiplied with, `[depth, depth]`, summed over calibration.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    depth: usize,
    /// Row by row; symmetric.
    sums: Vec<f64>,
    /// M, once it was asked for: a search asks often.
    factor: OnceLock<Option<Vec<f32>>>,
}

impl Moments {
    /// None so far.
    pub(crate) fn new(depth: usize) -> Moments {
        Moments { depth, sums: vec![0.0; depth * depth], factor: OnceLock::new() }
    }

    /// Adds `x^T x` of rows of inputs, given as `[depth, depth]`.
    pub(crate) fn add(&mut self, sums: impl IntoIterator<Item = f32>) {
        self.factor = OnceLock::new();
        self.sums.iter_mut().zip(sums).for_each(|(sum, more)| *sum += f64::from(more));
    }

    /// M of `H = M D M^T`, row by row, in f32. `None` where H is no second moment of anything: NaN, or all zeros.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "factors of a correction"
    )]
    fn factor(&self) -> Option<Vec<f32>> {
        let (n, mut h) = (self.depth, self.sums.clone());
        let trace: f64 = (0..n).map(|i| h[i * n + i]).sum();
        let damping = DAMPING * trace / n as f64;
        if !(damping.is_finite() && damping > 0.0) {
            return None;
        }
        (0..n).for_each(|i| h[i * n + i] += damping);
        let mut m = vec![0f32; n * n];
        for k in (0..n).rev() {
            let (above, row) = h.split_at_mut(k * n);
            let (row, d) = (&row[..k], row[k]);
            if !(d.is_finite() && d > 0.0) {
                return None;
            }
            m[k * n + k] = 1.0;
            // H is symmetric, so that its row k is column k. Only the lower half is kept up to date.
            for (i, ri) in row.iter().enumerate() {
                let factor = ri / d;
                m[i * n + k] = factor as f32;
                above[i * n..=i * n + i].iter_mut().zip(row).for_each(|(h, r)| *h -= factor * r);
            }
        }
        Some(m)
    }

    /// Each channel of `rows` in multiples of its scale, errors carried on to the weights that follow. `None` where there is
    /// nothing to go by: inputs that are all zero or no numbers, or of another depth.
    pub(crate) fn compensated(&self, rows: &[Vec<f32>], scales: &[f32]) -> Option<Vec<Vec<f32>>> {
        let (n, channels) = (self.depth, rows.len());
        if rows.iter().any(|row| row.len() != n) {
            return None;
        }
        let m = self.factor.get_or_init(|| self.factor()).as_ref()?;
        let mut rounded = vec![vec![0f32; n]; channels];
        // [depth, channels]: all channels at once.
        let mut wanted: Vec<f32> = (0..n).flat_map(|k| rows.iter().map(move |row| row[k])).collect();
        let mut errors = vec![0f32; channels];
        for k in 0..n {
            let (done, rest) = wanted.split_at_mut((k + 1) * channels);
            for (c, value) in done[k * channels..].iter().enumerate() {
                let to = int8_nearest(*value, scales[c]);
                rounded[c][k] = to;
                errors[c] = rows[c][k] - to;
            }
            for (wanted, factor) in rest.chunks_exact_mut(channels).zip(&m[k * n + k + 1..(k + 1) * n]) {
                wanted.iter_mut().zip(&errors).for_each(|(w, e)| *w += e * factor);
            }
        }
        Some(rounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random in -1..1.
    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Inputs `[rows, depth]`, all of them mixtures of a few.
    fn inputs(rows: usize, depth: usize) -> Vec<f32> {
        let (few, mix) = (noise(rows * 3, 1), noise(depth * 3, 2));
        let own = noise(rows * depth, 3);
        let value = |r: usize, d: usize| {
            (0..3).map(|i| few[r * 3 + i] * mix[d * 3 + i]).sum::<f32>() + 0.1 * own[r * depth + d]
        };
        (0..rows * depth).map(|i| value(i / depth, i % depth)).collect()
    }

    fn moments(x: &[f32], depth: usize) -> Moments {
        let mut moments = Moments::new(depth);
        for row in x.chunks(depth) {
            moments.add(row.iter().flat_map(|a| row.iter().map(move |b| a * b)));
        }
        moments
    }

    fn loss(x: &[f32], w: &[f32], rounded: &[f32]) -> f32 {
        let error =
            |row: &[f32]| row.iter().zip(w.iter().zip(rounded)).map(|(x, (w, r))| x * (w - r)).sum::<f32>();
        x.chunks(w.len()).map(|row| error(row).powi(2)).sum()
    }

    #[test]
    fn products_change_less_than_by_rounding_to_the_nearest() {
        let (depth, scale) = (48, 0.25f32);
        let (x, fresh) = (inputs(400, depth), inputs(500, depth)[400 * depth..].to_vec());
        let rows: Vec<Vec<f32>> = (0..6).map(|c| noise(depth, 10 + c)).collect();
        let rounded = moments(&x, depth).compensated(&rows, &[scale; 6]).unwrap();
        for (row, rounded) in rows.iter().zip(&rounded) {
            assert!(rounded.iter().all(|v| (v / scale).fract() == 0.0));
            let nearest: Vec<f32> = row.iter().map(|v| int8_nearest(*v, scale)).collect();
            let (ours, theirs) = (loss(&fresh, row, rounded), loss(&fresh, row, &nearest));
            assert!(ours < 0.5 * theirs, "{ours} {theirs}");
        }
    }

    #[test]
    fn the_factors_give_the_moments_again() {
        let depth = 7;
        let moments = moments(&inputs(50, depth), depth);
        let m = moments.factor().unwrap();
        // D from the last row up: H = M D M^T.
        let trace: f64 = (0..depth).map(|i| moments.sums[i * depth + i]).sum();
        let h = |i: usize, j: usize| {
            moments.sums[i * depth + j] + if i == j { DAMPING * trace / depth as f64 } else { 0.0 }
        };
        let at = |i: usize, j: usize| f64::from(m[i * depth + j]);
        let mut d = vec![0.0; depth];
        for k in (0..depth).rev() {
            d[k] = h(k, k) - (k + 1..depth).map(|l| at(k, l).powi(2) * d[l]).sum::<f64>();
            assert!(d[k] > 0.0);
        }
        for i in 0..depth {
            for j in 0..depth {
                let found: f64 = (0..depth).map(|k| at(i, k) * d[k] * at(j, k)).sum();
                assert!((found - h(i, j)).abs() < 1e-4 * trace, "{i} {j}: {found} {}", h(i, j));
            }
        }
    }

    #[test]
    fn inputs_that_are_all_zero_or_no_numbers_or_of_another_depth_tell_nothing() {
        let row = vec![0.3f32, -0.8, 0.55];
        for value in [0.0, f32::NAN] {
            let mut moments = Moments::new(3);
            moments.add([value; 9]);
            assert_eq!(moments.compensated(std::slice::from_ref(&row), &[0.5]), None);
        }
        let other = moments(&inputs(20, 4), 4);
        assert_eq!(other.compensated(&[row], &[0.5]), None);
    }
}
