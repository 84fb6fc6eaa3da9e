//! QuantizeLinear and DequantizeLinear.

use super::{Granularity, Params, Pass, Real, names_at};
use crate::error::PackerError;
use crate::import::constants::{floats, tensor};
use crate::import::nodes::{attribute, cast_to, plain};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

impl<'a> Pass<'a> {
    pub(super) fn quantize_linear(&mut self, node: &'a pb::NodeProto) -> Result<bool, PackerError> {
        let ([x, ..], [y]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(false) };
        let given = i32::try_from(attribute(node, "output_dtype", 0)).ok();
        let dtype = given.and_then(|t| DataType::try_from(t).ok()).filter(|t| *t != DataType::Undefined);
        let Some(params) = self.params(node, 1, dtype)? else { return Ok(false) };
        let Some(stored) = self.constant(x) else {
            return Ok(self.quantize(node, x, params).is_some());
        };
        if let Some(values) = floats(stored) {
            self.rounded.insert(y, params.rounded(node, stored, &values)?);
        }
        Ok(false)
    }

    /// Holds `x` to what the first output of `node` reaches, and makes integers of it for whoever wants them. `None` where there is a
    /// scale for each index.
    pub(super) fn quantize(&mut self, node: &pb::NodeProto, x: &str, params: Params) -> Option<()> {
        let (y, (least, most)) = (node.output.first()?, params.reach()?);
        let real = self.fresh(format!("{y}.real"));
        if self.held.get(x) == Some(&params) {
            self.made.push(plain("Identity", &node.name, &[x], &real));
        } else {
            let [low, high, over] = ["least", "most", "over"].map(|part| self.fresh(format!("{y}.{part}")));
            self.new.extend([tensor(&low, &[], &[least]), tensor(&high, &[], &[most])]);
            // Nothing is below 0 behind a Relu.
            let over = if least == 0.0 && self.maker(x, "Relu").is_some() {
                x
            } else {
                self.made.push(plain("Max", &node.name, &[x, &low], &over));
                &over
            };
            let min = plain("Min", &node.name, &[over, &high], &real);
            // As the importer calls the only step of a Min of two.
            self.limits.insert(format!("{}.0", min.name));
            self.made.push(min);
        }
        let real = Real { name: real, params };
        self.integers_of(&node.name, &real, y);
        self.floats.insert(y.clone(), real);
        self.found.activations += 1;
        Some(())
    }

    /// Makes integers `y` of floats that are held to the range of these, for whoever wants integers.
    pub(super) fn integers_of(&mut self, node: &str, Real { name, params }: &Real, y: &str) {
        let [quotient, whole, sum] =
            ["quotient", "whole", "sum"].map(|part| self.fresh(format!("{y}.{part}")));
        let (scale, zero_point) = self.add_params(params, y);
        self.made.push(plain("Div", node, &[name, &scale], &quotient));
        self.made.push(plain("Round", node, &[&quotient], &whole));
        self.made.push(plain("Add", node, &[&whole, &zero_point], &sum));
        self.made.push(cast_to(params.dtype, node, &sum, y));
    }

    pub(super) fn dequantize_linear(&mut self, node: &'a pb::NodeProto) -> Result<bool, PackerError> {
        let ([q, ..], [y]) = (node.input.as_slice(), node.output.as_slice()) else { return Ok(false) };
        let to = attribute(node, "output_dtype", 0);
        if to != 0 && to != i64::from(i32::from(DataType::Float)) {
            return Ok(false);
        }
        let Some(params) = self.params(node, 1, None)? else { return Ok(false) };
        if let Some(stored) = self.integers(q) {
            let granularity = params.granularity(node, &stored.shape)?;
            let found =
                self.stored_floats(node, names_at(node, 0), &stored, (&params, granularity), y.clone())?;
            if found != *y {
                self.made.push(plain("Identity", &node.name, &[&found], y));
            }
            return Ok(true);
        }
        if let Some(real) = self.same(q, &params) {
            self.made.push(plain("Identity", &node.name, &[&real.name], y));
            self.held.insert(y.as_str(), real.params);
            return Ok(true);
        }
        if params.scale.len() != 1 {
            return Ok(false);
        }
        self.any_floats(node, 0, &params, y)?;
        Ok(true)
    }

    /// Makes floats `y` of the integers at input `at` of `node`, which have one scale: rows of stored ones, or any.
    pub(super) fn any_floats(
        &mut self,
        node: &pb::NodeProto,
        at: usize,
        params: &Params,
        y: &str,
    ) -> Result<(), PackerError> {
        let [q, scale, zero_point] = names_at(node, at);
        let gather = self.maker(q, "Gather").and_then(|gather| Some((gather, gather.input.first()?)));
        let rows = gather.and_then(|(gather, table)| Some((gather, table, self.integers(table)?)));
        let Some((gather, table, stored)) = rows else {
            self.floats_of(&node.name, q, params, y);
            return Ok(());
        };
        let name = self.fresh(format!("{y}.table"));
        let of = [table, scale, zero_point];
        let name = self.stored_floats(node, of, &stored, (params, Granularity::PerTensor), name)?;
        let mut rows = gather.clone();
        (rows.name, rows.output) = (format!("{}.{y}.rows", node.name), vec![y.to_owned()]);
        rows.input[0] = name;
        self.made.push(rows);
        Ok(())
    }

    /// Makes floats of integers that come from elsewhere.
    fn floats_of(&mut self, node: &str, q: &str, params: &Params, y: &str) {
        let [cast, difference] = ["cast", "difference"].map(|part| self.fresh(format!("{y}.{part}")));
        let (scale, zero_point) = self.add_params(params, y);
        self.made.push(cast_to(DataType::Float, node, q, &cast));
        self.made.push(plain("Sub", node, &[&cast, &zero_point], &difference));
        self.made.push(plain("Mul", node, &[&difference, &scale], y));
    }

    /// The one scale and zero point of `y` as constants of f32.
    fn add_params(&mut self, params: &Params, y: &str) -> (String, String) {
        let [scale, zero_point] = ["scale", "zero_point"].map(|part| self.fresh(format!("{y}.{part}")));
        #[allow(clippy::cast_precision_loss, reason = "of activations, at most 16 bits; as ONNX does, else")]
        let zeros: Vec<f32> = params.zero_point.iter().map(|z| *z as f32).collect();
        self.new.extend([tensor(&scale, &[], &params.scale), tensor(&zero_point, &[], &zeros)]);
        (scale, zero_point)
    }
}
