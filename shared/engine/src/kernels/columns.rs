//! What is done to columns: many rows to one.

use super::has_avx2;

/// How values of a column become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reduction {
    Sum,
    Max,
    Min,
    MeanOfSquares,
}

/// The most columns that are gone through at once: their sums stay in the nearest cache.
const COLUMNS_AT_ONCE: usize = 64;

/// Reduces the rows of `values`, each as long as `out`, into `out`.
///
/// Sums are rounded once: a variance written as `mean(x * x) - mean(x)^2` lives off their last bits (a column of magika's
/// first normalisation loses 1e-3 by one of them).
#[allow(unsafe_code, reason = "vector functions need their instruction sets")]
pub(crate) fn reduce(reduction: Reduction, values: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the CPU has them.
        unsafe { avx2(reduction, values, out) };
        return;
    }
    plain(reduction, values, out);
}

/// The same code, compiled for wider vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(reduction: Reduction, values: &[f32], out: &mut [f32]) {
    plain(reduction, values, out);
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "it takes on the instruction sets of who calls it")]
fn plain(reduction: Reduction, values: &[f32], out: &mut [f32]) {
    match reduction {
        Reduction::Sum => sums(values, out, |x| x),
        Reduction::MeanOfSquares => {
            sums(values, out, |x| x * x);
            #[allow(clippy::cast_precision_loss, reason = "columns are far shorter than 2^24")]
            let rows = (values.len() / out.len().max(1)) as f32;
            out.iter_mut().for_each(|x| *x /= rows);
        }
        Reduction::Max => extremes(values, out, |a, b| if a.is_nan() || b <= a { a } else { b }),
        Reduction::Min => extremes(values, out, |a, b| if a.is_nan() || b >= a { a } else { b }),
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "it takes on the instruction sets of who calls it")]
fn sums(values: &[f32], out: &mut [f32], of: impl Fn(f64) -> f64) {
    let columns = out.len();
    for (at, out) in out.chunks_mut(COLUMNS_AT_ONCE).enumerate() {
        let mut sums = [0.0; COLUMNS_AT_ONCE];
        let sums = &mut sums[..out.len()];
        for row in values.chunks_exact(columns) {
            let row = &row[at * COLUMNS_AT_ONCE..][..sums.len()];
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += of(f64::from(*x)));
        }
        #[allow(clippy::cast_possible_truncation, reason = "rounded to the nearest")]
        out.iter_mut().zip(&*sums).for_each(|(out, sum)| *out = *sum as f32);
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "it takes on the instruction sets of who calls it")]
fn extremes(values: &[f32], out: &mut [f32], better: impl Fn(f32, f32) -> f32) {
    let mut rows = values.chunks_exact(out.len());
    if let Some(first) = rows.next() {
        out.copy_from_slice(first);
    }
    for row in rows {
        out.iter_mut().zip(row).for_each(|(out, x)| *out = better(*out, *x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_with_a_value_that_is_no_number_is_none() {
        for at in 0..5 {
            let mut values: Vec<f32> = (0..5).map(|i| i as f32).collect();
            values[at] = f32::NAN;
            for reduction in [Reduction::Sum, Reduction::Max, Reduction::Min, Reduction::MeanOfSquares] {
                let mut found = [0.0];
                reduce(reduction, &values, &mut found);
                assert!(found[0].is_nan(), "{reduction:?} with row {at}");
            }
        }
    }

    #[test]
    fn columns_of_any_shape_are_reduced_as_the_definition_says() {
        for rows in [1, 2, 15, 16, 17, 100] {
            for columns in [1, 2, 7, 8, 63, 64, 65, 200] {
                let value = |i: usize| ((i * 7919) % 1009) as f32 / 8.0 - 60.0;
                let values: Vec<f32> = (0..rows * columns).map(value).collect();
                for reduction in [Reduction::Sum, Reduction::Max, Reduction::Min, Reduction::MeanOfSquares] {
                    let mut found = vec![7.0; columns];
                    reduce(reduction, &values, &mut found);
                    for (c, found) in found.iter().enumerate() {
                        let column = values.iter().skip(c).step_by(columns).map(|x| f64::from(*x));
                        let wanted = match reduction {
                            Reduction::Sum => column.sum(),
                            Reduction::Max => column.fold(f64::MIN, f64::max),
                            Reduction::Min => column.fold(f64::MAX, f64::min),
                            Reduction::MeanOfSquares => column.map(|x| x * x).sum::<f64>() / rows as f64,
                        };
                        assert!(
                            (f64::from(*found) - wanted).abs() <= 1.3e-7 * wanted.abs().max(1e-3),
                            "{reduction:?} of {rows} x {columns} at {c}: {found}, expected {wanted}"
                        );
                    }
                }
            }
        }
    }
}
