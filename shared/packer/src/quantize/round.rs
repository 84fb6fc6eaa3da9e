//! One weight, rounded.

use super::Candidate;
use super::compensate::Moments;
use glowplug_pack::Encoding;
use glowplug_pack::encoding::{int8_nearest, int8_scale};
use glowplug_pack::portable::Split;
use std::fmt;
use tract_core::internal::*;

/// How a weight is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rounding {
    /// To IEEE 754 binary16.
    F16,
    /// To multiples of a scale, at most 127 times it.
    Int8 {
        /// What the scale is at least, in parts of its channel's root mean square: a coarser scale takes fewer bits where
        /// bytes are entropy-coded. 0 for the finest that int8 has.
        step: f32,
    },
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rounding::F16 => f.write_str("f16"),
            Rounding::Int8 { step } if *step == 0.0 => f.write_str("int8"),
            Rounding::Int8 { step } => write!(f, "int8 in steps of {step:.3} rms"),
        }
    }
}

impl Rounding {
    /// How its values are stored.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Rounding::F16 => Encoding::F16,
            Rounding::Int8 { .. } => Encoding::Int8,
        }
    }

    /// `tensor` with each of its channels, which `axes` number, rounded; by what `moments` tell of what it is multiplied
    /// with, where they do. Or what the encoding has no place for.
    pub(crate) fn round(
        self,
        tensor: &Tensor,
        axes: &[usize],
        moments: Option<&Moments>,
    ) -> TractResult<Result<Tensor, String>> {
        let rows = channels(tensor, axes)?;
        let nearest =
            |(row, scale): (&Vec<f32>, &f32)| row.iter().map(|v| int8_nearest(*v, *scale)).collect();
        let rounded = match self {
            Rounding::F16 => {
                f16_reaches(&rows).and_then(|()| rows.iter().map(|row| Encoding::F16.round(row)).collect())
            }
            Rounding::Int8 { step } => {
                let scale = |row: &Vec<f32>| int8_scale(row, step * root_mean_square(row));
                let scales = rows.iter().map(scale).collect::<Result<Vec<_>, _>>();
                scales.map(|scales| {
                    let compensated = moments.and_then(|moments| moments.compensated(&rows, &scales));
                    compensated.unwrap_or_else(|| rows.iter().zip(&scales).map(nearest).collect())
                })
            }
        };
        let rounded = match rounded {
            Ok(rounded) => rounded,
            Err(why) => return Ok(Err(why)),
        };
        let mut to = vec![0f32; tensor.len()];
        let (starts, depth) = places(tensor.shape(), axes);
        for (at, row) in starts.iter().zip(&rounded) {
            depth.iter().zip(row).for_each(|(d, value)| to[at + d] = *value);
        }
        Tensor::from_shape(tensor.shape(), &to).map(Ok)
    }
}

/// Whether int8 holds a weight as it is.
pub(super) fn fits_int8(tensor: &Tensor, axes: &[usize]) -> TractResult<bool> {
    Ok(channels(tensor, axes)?.iter().all(|row| Encoding::Int8.encode_row(row).is_some()))
}

/// Errors: all values of a weight are so small that f16 has fewer than its 11 bits for them.
fn f16_reaches(rows: &[Vec<f32>]) -> Result<(), String> {
    /// The smallest that is normal: 2^-14.
    const LEAST: f32 = 1.0 / 16384.0;
    let most = rows.iter().flatten().fold(0f32, |most, v| most.max(v.abs()));
    if most > 0.0 && most < LEAST {
        return Err(format!("holds {most:e} at most, f16 loses bits below {LEAST:e}"));
    }
    Ok(())
}

/// Where each channel of a constant begins, and where its values are from there.
fn places(shape: &[usize], axes: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let others: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    (Split::offsets(shape, axes), Split::offsets(shape, &others))
}

/// The channels of a constant, each as a row.
fn channels(tensor: &Tensor, axes: &[usize]) -> TractResult<Vec<Vec<f32>>> {
    let (starts, depth) = places(tensor.shape(), axes);
    let plain = tensor.try_as_plain_ram()?;
    let values = plain.as_slice::<f32>()?;
    Ok(starts.into_iter().map(|at| depth.iter().map(|d| values[at + d]).collect()).collect())
}

/// The finest step that int8 has for most channels of a candidate, in parts of their root mean square: the median.
pub(crate) fn finest_step(candidate: &Candidate) -> f32 {
    let step = |row: &Vec<f32>| {
        let step = int8_scale(row, 0.0).unwrap_or_default() / root_mean_square(row);
        if step.is_finite() { step } else { 0.0 }
    };
    let rows = channels(&candidate.tensor, &candidate.axes).unwrap_or_default();
    let mut steps: Vec<f32> = rows.iter().map(step).collect();
    steps.sort_by(f32::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or_default()
}

/// The order-0 entropy of a weight as it is stored, in bits for each value; 32 of one that was not rounded.
#[allow(clippy::cast_precision_loss, reason = "counts below 2^53")]
pub(crate) fn entropy_bits(candidate: &Candidate, rounded: Option<&Tensor>) -> f64 {
    let Some(rounded) = rounded else { return 32.0 };
    let rows = channels(rounded, &candidate.axes).unwrap_or_default();
    let mut counts = [0u64; 256];
    for row in &rows {
        let encoded = [Encoding::Int8, Encoding::F16].iter().find_map(|e| Some((*e, e.encode_row(row)?)));
        let Some((encoding, bytes)) = encoded else { return 32.0 };
        bytes[encoding.scale_bytes()..].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    }
    let all = counts.iter().sum::<u64>() as f64;
    let bits = |n: &u64| if *n == 0 { 0.0 } else { -(*n as f64) * (*n as f64 / all).log2() };
    counts.iter().map(bits).sum::<f64>() / rounded.len().max(1) as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a scale, to a few digits")]
pub(crate) fn root_mean_square(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    (sum / values.len().max(1) as f64).sqrt() as f32
}

/// `to`, whose values lie in the order of `from`, in the order of `like`, which holds what `from` does.
/// `None` where that is no order of its axes.
pub(super) fn in_order_of(like: &Tensor, from: &Tensor, to: &Tensor) -> TractResult<Option<Tensor>> {
    if like.as_bytes() == from.as_bytes() {
        return to.clone().into_shape(like.shape()).map(Some);
    }
    let extents = |tensor: &Tensor| tensor.shape().iter().copied().filter(|d| *d > 1).collect::<TVec<_>>();
    let (wanted, found) = (extents(like), extents(from));
    let (from, to) = (from.clone().into_shape(&found)?, to.clone().into_shape(&found)?);
    for order in orders(found.len()) {
        let fits = order.len() == wanted.len() && order.iter().zip(&wanted).all(|(a, d)| found[*a] == *d);
        if fits && from.clone().permute_axes(&order)?.as_bytes() == like.as_bytes() {
            return to.permute_axes(&order)?.into_shape(like.shape()).map(Some);
        }
    }
    Ok(None)
}

/// Every order of `n` axes; of more than 4, which no weight has, none.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n > 4 {
        return Vec::new();
    }
    let mut all = vec![Vec::new()];
    for _ in 0..n {
        let longer = |order: &Vec<usize>| {
            let rest = (0..n).filter(|axis| !order.contains(axis)).collect::<Vec<_>>();
            rest.into_iter().map(|axis| [order.as_slice(), &[axis]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_axes_is_found_again() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let from = Tensor::from_shape(&[2, 3, 4], &values).unwrap();
        let to =
            Tensor::from_shape(&[2, 3, 4], &values.iter().map(|v| v * 10.0).collect::<Vec<_>>()).unwrap();
        for order in orders(3) {
            let like = from.clone().permute_axes(&order).unwrap();
            let wanted = to.clone().permute_axes(&order).unwrap();
            assert_eq!(in_order_of(&like, &from, &to).unwrap(), Some(wanted));
        }
        let flat = from.clone().into_shape(&[1, 24, 1]).unwrap();
        assert_eq!(in_order_of(&flat, &from, &to).unwrap().unwrap().shape(), [1, 24, 1]);
        let other =
            Tensor::from_shape(&[2, 3, 4], &values.iter().rev().copied().collect::<Vec<_>>()).unwrap();
        assert_eq!(in_order_of(&other, &from, &to).unwrap(), None);
        assert_eq!(orders(4).len(), 24);
    }

    #[test]
    fn a_step_makes_scales_coarser() {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32 / 32.0 - 1.0).collect();
        let tensor = Tensor::from_shape(&[8, 8], &values).unwrap();
        let distinct = |rounding: Rounding| {
            let rounded = rounding.round(&tensor, &[0], None).unwrap().unwrap();
            let mut bits: Vec<u32> = rounded.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap()[..8]
                .iter()
                .map(|v| v.to_bits())
                .collect();
            bits.sort_unstable();
            bits.dedup();
            bits.len()
        };
        assert_eq!(distinct(Rounding::Int8 { step: 0.0 }), 8);
        assert!(distinct(Rounding::Int8 { step: 2.0 }) <= 3);
    }
    #[test]
    fn weights_too_small_for_f16_are_not_rounded_to_it() {
        let of = |values: [f32; 2]| Tensor::from_shape(&[1, 2], &values).unwrap();
        let why = Rounding::F16.round(&of([1e-8, -3e-8]), &[0], None).unwrap().unwrap_err();
        assert_eq!(why, "holds 3e-8 at most, f16 loses bits below 6.1035156e-5");
        for values in [[0.0, 0.0], [1e-8, 1.0]] {
            assert!(Rounding::F16.round(&of(values), &[0], None).unwrap().is_ok());
        }
    }
}
