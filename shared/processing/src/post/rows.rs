//! What is done to one row of an output's last axis.

/// `exp(x - max) / sum`, in place: the exponentials in binary32, their sum in binary64. A row with NaN
/// becomes NaN throughout.
pub(super) fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum += f64::from(*x);
    }
    divide(row, sum);
}

/// To Euclidean length 1, in place; the squares are summed in binary64. A length below 1e-12 counts as
/// 1e-12, so that zeros stay zeros.
pub(super) fn normalize(row: &mut [f32]) {
    let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    divide(row, length.max(1e-12));
}

#[allow(clippy::cast_possible_truncation, reason = "binary64 to binary32 is the rounding that is meant")]
fn divide(row: &mut [f32], by: f64) {
    for x in row {
        *x = (f64::from(*x) / by) as f32;
    }
}

/// The `k` largest as `(index, value)`, largest first, equal values by index. Linear, then sorts k.
pub(super) fn top(row: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    // -0.0 and 0.0 are equal here, as they are to whoever reads them.
    let by_rank = |a: &usize, b: &usize| (row[*b] + 0.0).total_cmp(&(row[*a] + 0.0)).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_rank);
        order.truncate(k);
    }
    order.sort_unstable_by(by_rank);
    order.into_iter().map(|index| (index, row[index])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_logits() {
        let mut row = [1000.0, 1000.0, -1000.0];
        softmax(&mut row);
        assert_eq!(row, [0.5, 0.5, 0.0]);
        let mut nan = [1.0, f32::NAN];
        softmax(&mut nan);
        assert!(nan.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn normalize_gives_length_one_and_leaves_zeros() {
        let mut row = [3.0, -4.0];
        normalize(&mut row);
        assert_eq!(row, [0.6, -0.8]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }

    #[test]
    fn top_breaks_ties_by_index() {
        let row = [1.0, 3.0, 3.0, 2.0, 3.0];
        assert_eq!(top(&row, 2), [(1, 3.0), (2, 3.0)]);
        assert_eq!(top(&row, 5), [(1, 3.0), (2, 3.0), (4, 3.0), (3, 2.0), (0, 1.0)]);
        assert_eq!(top(&[0.0, -0.0], 1), [(0, 0.0)]);
        assert_eq!(top(&[-0.0, 0.0], 1)[0].0, 0);
    }
}
