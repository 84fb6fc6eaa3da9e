//! Quantization without operators of its own: weights as Cast and Mul, and products of integers whose scale is found as the
//! model runs.

use super::params::broadcast;
use super::{Params, Pass, Stored};
use crate::error::PackerError;
use crate::import::constants::{dims, floats};
use crate::import::nodes::{attribute, plain};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Products of integers, and the same of floats.
const PRODUCTS: [(&str, &str); 2] = [("MatMulInteger", "MatMul"), ("ConvInteger", "Conv")];

/// Inputs of a product of integers that was quantized as the model runs.
struct Product<'a> {
    /// Of integers.
    node: &'a pb::NodeProto,
    /// The operator on floats.
    float: &'static str,
    /// What was quantized.
    x: &'a str,
    /// The scale that was found for it.
    scale: &'a str,
}

impl<'a> Pass<'a> {
    /// Whether `node` multiplies stored integers by their stored scale. What looks so and is none, such as a mask that becomes
    /// -10000, is left alone.
    pub(super) fn scaled_weight(&mut self, node: &'a pb::NodeProto) -> Result<bool, PackerError> {
        let ([a, b], [y]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(false) };
        for (cast, scale) in [(a, b), (b, a)] {
            let Some((stored, params)) = self.weight(node, cast, scale) else { continue };
            let Some(granularity) = broadcast(&params.shape, &stored.shape) else { continue };
            self.add_floats(node, &stored, &params, granularity, y)?;
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
                let Stored { shape: of_zero, values: zeros } = zeros?;
                match zeros.as_slice() {
                    [one] => vec![*one; values.len()],
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
        let counts = self.constant(name).is_some_and(|i| i.data_type == i32::from(DataType::Int32));
        self.integers(name).filter(|_| !counts)
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
        whole.then(|| Stored { shape: dims(stored), values })
    }

    /// Whether `node` makes floats of a product of integers whose scale is found while the model runs.
    pub(super) fn dynamic(&mut self, node: &'a pb::NodeProto) -> Result<bool, PackerError> {
        let ([a, b], [y]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(false) };
        for (sum, scales) in [(a, b), (b, a)] {
            let Some(Product { node: product, float, x, scale }) = self.product(sum) else { continue };
            let Some(scales) = self.maker(scales, "Mul") else { continue };
            let of_weight = match scales.input.as_slice() {
                [s, of_weight] | [of_weight, s] if s == scale => of_weight,
                _ => continue,
            };
            let Some(of_weight) = self.is_for_outputs(of_weight, float).then_some(of_weight) else {
                continue;
            };
            // The weight, its scale and its zero point, in the order that others have.
            let zero_point = product.input.get(3).cloned().unwrap_or_default();
            let weight = plain(float, &product.name, &[&product.input[1], of_weight, &zero_point], y);
            let Some(weight) = self.operand(&weight, 0, float)? else { continue };
            let mut same = plain(float, &product.name, &[x, &weight], y);
            same.attribute.clone_from(&product.attribute);
            self.made.push(same);
            self.found.activations += 1;
            return Ok(true);
        }
        Ok(false)
    }

    /// The product of integers that `value` is, as floats.
    fn product(&self, value: &str) -> Option<Product<'a>> {
        let sum = self.maker(value, "Cast")?.input.first()?;
        let mut each = PRODUCTS.iter().filter_map(|(op, float)| Some((self.maker(sum, op)?, *float)));
        let (node, float) = each.next()?;
        let by = self.maker(node.input.first()?, "DynamicQuantizeLinear")?;
        let ([x], [_, scale, zero_point]) = (by.input.as_slice(), by.output.as_slice()) else { return None };
        let fits = node.input.len() >= 3 && node.input[2] == *zero_point;
        fits.then_some(Product { node, float, x, scale })
    }

    /// Whether a stored scale is one for all, or one for each filter or column of a product.
    fn is_for_outputs(&self, scale: &str, float: &str) -> bool {
        let Some(shape) = self.constant(scale).map(dims) else { return false };
        // Behind filters are the two axes of positions.
        let axis = shape.len().checked_sub(if float == "Conv" { 3 } else { 1 });
        shape.iter().enumerate().all(|(i, d)| *d == 1 || Some(i) == axis)
    }
}
