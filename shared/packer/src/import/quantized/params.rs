//! Scales and zero points: which of them belongs to a value, and what it stands for.

use crate::error::PackerError;
use crate::import::constants::{dims, integer_range, tensor};
use crate::import::nodes::{attribute, bad};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Integers that are known.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<i32>,
    pub(super) dtype: DataType,
}

/// Scale and zero point, as stored; as many of one as of the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Params {
    pub(super) scale: Vec<f32>,
    /// The extents of the scale.
    pub(super) shape: Vec<usize>,
    pub(super) zero_point: Vec<i32>,
    /// Of the integers.
    pub(super) dtype: DataType,
}

/// How many values share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Granularity {
    PerTensor,
    PerAxis(usize),
    /// So many values along an axis; scales are a tensor of the same rank.
    Blocked {
        axis: usize,
        size: usize,
    },
}

impl Params {
    /// The same, if every scale is a normal number above 0, and zero points go with scales and integers. Errors: what is not so,
    /// with the node's name.
    pub(super) fn checked(self, node: &pb::NodeProto) -> Result<Params, PackerError> {
        let Params { scale, zero_point, dtype, .. } = &self;
        if let Some(wrong) = scale.iter().find(|s| !s.is_normal() || s.is_sign_negative()) {
            return Err(bad(node, &format!("a scale of {wrong:e}, expected a normal number above 0")));
        }
        if scale.len() != zero_point.len() {
            let (found, wanted) = (zero_point.len(), scale.len());
            return Err(bad(node, &format!("{found} zero points, expected {wanted}, as many as scales")));
        }
        let (least, most) = integer_range(*dtype).unwrap_or_default();
        match zero_point.iter().find(|z| !(least..=most).contains(&i64::from(**z))) {
            Some(found) => Err(bad(node, &format!("a zero point of {found}, expected {least} to {most}"))),
            None => Ok(self),
        }
    }

    /// What a quantized value that has one scale is held to, rounded to f32. `None` where there are several.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "16 bits and an f32")]
    pub(super) fn reach(&self) -> Option<(f32, f32)> {
        let ([scale], [zero], (least, most)) = (&*self.scale, &*self.zero_point, integer_range(self.dtype)?)
        else {
            return None;
        };
        let real = |q: i64| ((q - i64::from(*zero)) as f64 * f64::from(*scale)) as f32;
        Some((real(least), real(most)))
    }

    /// Where they belong in a tensor of `shape`, by the attributes of a QuantizeLinear or DequantizeLinear.
    pub(super) fn granularity(
        &self,
        node: &pb::NodeProto,
        shape: &[usize],
    ) -> Result<Granularity, PackerError> {
        let (axis, size) = (attribute(node, "axis", 1), attribute(node, "block_size", 0));
        let size = usize::try_from(size).unwrap_or_default();
        if self.scale.len() == 1 && size == 0 {
            return Ok(Granularity::PerTensor);
        }
        #[allow(clippy::cast_possible_wrap, reason = "a rank")]
        let from_start = if axis < 0 { axis + shape.len() as i64 } else { axis };
        let found = usize::try_from(from_start).ok().filter(|axis| *axis < shape.len());
        let axis =
            found.ok_or_else(|| bad(node, &format!("axis {axis} of a tensor of {} axes", shape.len())))?;
        if size == 0 {
            return Ok(Granularity::PerAxis(axis));
        }
        let mut wanted = shape.to_vec();
        wanted[axis] = shape[axis].div_ceil(size);
        if self.shape != wanted {
            return Err(bad(node, &format!("scales of shape {:?}, expected {wanted:?}", self.shape)));
        }
        Ok(Granularity::Blocked { axis, size })
    }

    /// Which scale belongs to a value, by its place in a tensor of `shape`. Errors: there are not as many as that takes.
    pub(super) fn index(
        &self,
        node: &pb::NodeProto,
        shape: &[usize],
        granularity: Granularity,
    ) -> Result<impl Fn(usize) -> usize + use<>, PackerError> {
        let (axis, size) = match granularity {
            Granularity::PerTensor => (None, 1),
            Granularity::PerAxis(axis) => (Some(axis), 1),
            Granularity::Blocked { axis, size } => (Some(axis), size),
        };
        if let Some(axis) = axis.filter(|axis| *axis >= shape.len()) {
            let (found, rank) = (self.scale.len(), shape.len());
            return Err(bad(node, &format!("{found} scales along axis {axis} of integers of {rank} axes")));
        }
        let extent = axis.map_or(1, |axis| shape[axis]).max(1);
        let inner = axis.map_or(1, |axis| shape[axis + 1..].iter().product()).max(1);
        let blocks = extent.div_ceil(size);
        let wanted = match granularity {
            Granularity::PerTensor => 1,
            Granularity::PerAxis(_) => extent,
            Granularity::Blocked { .. } => shape.iter().product::<usize>() / extent * blocks,
        };
        if self.scale.len() != wanted {
            let found = self.scale.len();
            let text = format!("{found} scales, expected {wanted} for integers of shape {shape:?}");
            return Err(bad(node, &text));
        }
        Ok(move |i: usize| match granularity {
            Granularity::PerTensor => 0,
            Granularity::PerAxis(_) => i / inner % extent,
            Granularity::Blocked { .. } => {
                (i / (inner * extent) * blocks + i / inner % extent / size) * inner + i % inner
            }
        })
    }

    /// `(q - zero_point) * scale` as a constant `name`, and whether int8 holds it: a matrix or more, integers of at most 127. Of those
    /// the scale is rounded to 16 bits; the product is rounded once.
    pub(super) fn dequantized(
        &self,
        node: &pb::NodeProto,
        Stored { shape, values, .. }: &Stored,
        granularity: Granularity,
        name: &str,
    ) -> Result<(pb::TensorProto, bool), PackerError> {
        let index = self.index(node, shape, granularity)?;
        let from_zero = |(i, q): (usize, &i32)| i64::from(*q) - i64::from(self.zero_point[index(i)]);
        let int8 = shape.len() >= 2
            && !matches!(granularity, Granularity::Blocked { .. })
            && values.iter().enumerate().all(|q| from_zero(q).abs() <= 127);
        let scale: Vec<f32> = self.scale.iter().map(|s| if int8 { in_16_bits(*s) } else { *s }).collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "rounded to f32")]
        let real = |(i, q): (usize, &i32)| (from_zero((i, q)) as f64 * f64::from(scale[index(i)])) as f32;
        let reals: Vec<f32> = values.iter().enumerate().map(real).collect();
        Ok((tensor(name, shape, &reals), int8))
    }

    /// The integers that ONNX makes of `values`: `q = clamp(nearest(x / scale) + zero_point)`, ties to even.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "clamped to at most 32 bits"
    )]
    pub(super) fn rounded(
        &self,
        node: &pb::NodeProto,
        x: &pb::TensorProto,
        values: &[f32],
    ) -> Result<Stored, PackerError> {
        let shape = dims(x);
        let index = self.index(node, &shape, self.granularity(node, &shape)?)?;
        let (least, most) = integer_range(self.dtype).unwrap_or_default();
        let integer = |(i, x): (usize, &f32)| {
            let i = index(i);
            let q = f64::from((x / self.scale[i]).round_ties_even()) + f64::from(self.zero_point[i]);
            q.clamp(least as f64, most as f64) as i32
        };
        Ok(Stored { values: values.iter().enumerate().map(integer).collect(), shape, dtype: self.dtype })
    }
}

/// How scales of one shape belong to a tensor of another that they are multiplied with. `None` where they vary along
/// more than one axis, or make it larger.
pub(super) fn broadcast(scales: &[usize], shape: &[usize]) -> Option<Granularity> {
    let missing = shape.len().checked_sub(scales.len())?;
    let fits = scales.iter().zip(&shape[missing..]).all(|(s, d)| *s == 1 || s == d);
    let mut axes = (0..scales.len()).filter(|axis| scales[*axis] > 1);
    match (fits, axes.next(), axes.next()) {
        (true, None, _) => Some(Granularity::PerTensor),
        (true, Some(axis), None) => Some(Granularity::PerAxis(missing + axis)),
        _ => None,
    }
}

/// The nearest number of 16 significant bits, ties to even; the same where that would be none.
fn in_16_bits(scale: f32) -> f32 {
    let bits = scale.to_bits();
    let rounded = f32::from_bits((bits + 0x7f + (bits >> 8 & 1)) & !0xff);
    if rounded.is_finite() { rounded } else { scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_keeps_16_bits() {
        for scale in [0.1f32, 3.0e-5, 7.77, 1.0] {
            let rounded = in_16_bits(scale);
            assert_eq!(rounded.to_bits() & 0xff, 0);
            assert!((rounded / scale - 1.0).abs() <= 1.0 / 65536.0);
        }
        assert_eq!(in_16_bits(f32::MAX), f32::MAX);
    }

    #[test]
    fn scales_are_multiplied_along_one_axis_or_all() {
        use Granularity::{PerAxis, PerTensor};
        assert_eq!(broadcast(&[], &[2, 3]), Some(PerTensor));
        assert_eq!(broadcast(&[1, 1], &[2, 3]), Some(PerTensor));
        assert_eq!(broadcast(&[3], &[2, 3]), Some(PerAxis(1)));
        assert_eq!(broadcast(&[2, 1], &[2, 3]), Some(PerAxis(0)));
        for wrong in [&[2, 3][..], &[2], &[1, 2, 3], &[1, 1, 1]] {
            assert_eq!(broadcast(wrong, &[2, 3]), None);
        }
    }
}
