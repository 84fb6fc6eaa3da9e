//! Quantization without operators of its own: weights as Cast and Mul, and products of integers whose scale is found as the
//! model runs.

use super::params::broadcast;
use super::{Params, Pass, Stored};
use crate::error::PackerError;
use crate::import::constants::{dims, floats, is_small_integer};
use crate::import::nodes::{attribute, plain};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Products of integers, and the same of floats.
const PRODUCTS: [(&str, &str); 2] = [("MatMulInteger", "MatMul"), ("ConvInteger", "Conv")];

impl<'a> Pass<'a> {
    /// Whether `node` multiplies stored integers by their stored scale. What looks so and is none, such as a mask that becomes
    /// -10000, is left alone.
    pub(super) fn scaled_weight(&mut self, node: &'a pb::NodeProto) -> Result<bool, PackerError> {
        let ([a, b], [y]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(false) };
        for (cast, scale) in [(a, b), (b, a)] {
            let Some((stored, params)) = self.weight(node, cast, scale) else { continue };
            let Some(granularity) = broadcast(&params.shape, &stored.shape) else { continue };
            self.add_floats(node, &stored, (&params, granularity), y)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Stored integers, and what they are multiplied with.
    fn weight(&self, node: &pb::NodeProto, cast: &str, scale: &str) -> Option<(Stored, Params)> {
        let scale = self.constant(scale)?;
        let (cast, zero) = match self.maker(cast, "Sub").map(|sub| sub.input.as_slice()) {
            Some([cast, zero]) => (cast.as_str(), Some(zero)),
            _ => (cast, None),
        };
        let (stored, values, shape) = (self.cast(cast)?, floats(scale)?, dims(scale));
        let zero_point = match zero.map(|zero| self.whole(zero)) {
            None => vec![0; values.len()],
            Some(zeros) => {
                let Stored { shape: of_zero, values: zeros, .. } = zeros?;
                match zeros.as_slice() {
                    [one] if of_zero.len() <= stored.shape.len() => vec![*one; values.len()],
                    _ if of_zero == shape => zeros,
                    _ => return None,
                }
            }
        };
        let params = Params { scale: values, shape, zero_point, dtype: DataType::Int32 };
        Some((stored, params.checked(node).ok()?))
    }

    /// The stored integers of at most 16 bits that a Cast makes floats of.
    fn cast(&self, value: &str) -> Option<Stored> {
        let cast = self.maker(value, "Cast")?;
        let to_floats = attribute(cast, "to", 0) == i64::from(i32::from(DataType::Float));
        let name = cast.input.first().filter(|_| to_floats)?;
        self.integers(name).filter(|stored| is_small_integer(stored.dtype))
    }

    /// Stored floats that are whole numbers, or stored integers made floats.
    #[allow(clippy::cast_possible_truncation, reason = "whole and small")]
    fn whole(&self, name: &str) -> Option<Stored> {
        if let Some(stored) = self.cast(name) {
            return Some(stored);
        }
        let stored = self.constant(name)?;
        let values = floats(stored)?;
        let whole = values.iter().all(|v| v.fract() == 0.0 && v.abs() < 65536.0);
        let values = values.iter().map(|v| *v as i32).collect();
        whole.then(|| Stored { shape: dims(stored), values, dtype: DataType::Float })
    }

    /// Whether `node` makes floats of a product of integers, the scale of one of which is found while the model runs, or stored.
    pub(super) fn dynamic(&mut self, node: &'a pb::NodeProto) -> Result<bool, PackerError> {
        let ([a, b], [y]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(false) };
        for (sum, scales) in [(a, b), (b, a)] {
            let Some((product, float)) = self.product(sum) else { continue };
            let Some([one, other]) = self.maker(scales, "Mul").map(|scales| scales.input.as_slice()) else {
                continue;
            };
            for (of_x, of_weight) in [(one, other), (other, one)] {
                if !self.is_for_outputs(of_weight, product, float) {
                    continue;
                }
                let Some(x) = self.factor(product, of_x)? else { continue };
                let weight = operand(product, 1, of_weight);
                let Some((weight, _)) = self.operand(&weight, 0, float)? else { continue };
                let mut same = plain(float, &product.name, &[&x, &weight], y);
                same.attribute.clone_from(&product.attribute);
                self.made.push(same);
                self.found.activations += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The product of integers that `value` is as floats, and the operator on floats.
    fn product(&self, value: &str) -> Option<(&'a pb::NodeProto, &'static str)> {
        let sum = self.maker(value, "Cast")?.input.first()?;
        let mut each = PRODUCTS.iter().filter_map(|(op, float)| Some((self.maker(sum, op)?, *float)));
        each.next().filter(|(product, _)| product.input.len() >= 2)
    }

    /// What the first factor of a product of integers was made of, if `scale` is its scale.
    fn factor(&mut self, product: &pb::NodeProto, scale: &str) -> Result<Option<String>, PackerError> {
        let zero_point = product.input.get(2).map_or("", String::as_str);
        if let Some(by) = self.maker(&product.input[0], "DynamicQuantizeLinear") {
            let fits = matches!(by.output.as_slice(), [_, s, z] if s == scale && z == zero_point);
            return Ok(by.input.first().filter(|_| fits).cloned());
        }
        let single = self.constant(scale).is_some_and(|scale| dims(scale).iter().product::<usize>() == 1);
        if !single {
            return Ok(None);
        }
        let factor = operand(product, 0, scale);
        Ok(self.operand(&factor, 0, "")?.map(|(name, _)| name))
    }

    /// Whether a stored scale is one for all, or one for each filter or column of a product.
    fn is_for_outputs(&self, scale: &str, product: &pb::NodeProto, float: &str) -> bool {
        let Some(shape) = self.constant(scale).map(dims) else { return false };
        let rank = self.integers(&product.input[1]).map_or(0, |weight| weight.shape.len());
        // Behind filters are the axes of positions.
        let (most, behind) = if float == "Conv" { (rank, rank.saturating_sub(2)) } else { (1, 0) };
        let axis = shape.len().checked_sub(behind + 1);
        shape.len() <= most && shape.iter().enumerate().all(|(i, d)| *d == 1 || Some(i) == axis)
    }
}

/// The factor `which` of a product of integers, its scale and its zero point, in the order that others have.
fn operand(product: &pb::NodeProto, which: usize, scale: &str) -> pb::NodeProto {
    let zero_point = product.input.get(which + 2).cloned().unwrap_or_default();
    let input = vec![product.input[which].clone(), scale.to_owned(), zero_point];
    pb::NodeProto { input, attribute: Vec::new(), ..product.clone() }
}
