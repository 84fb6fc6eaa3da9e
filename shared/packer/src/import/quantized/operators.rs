//! Operators that take and give integers, and those that only move them.

use super::{Granularity, Pass, Real, Stored, names_at};
use crate::error::PackerError;
use crate::import::constants::tensor;
use crate::import::nodes::{attribute, bad, integer, plain};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Operators that move values and compute nothing: of integers they give the same as of the floats that these stand for. Their
/// first input is what they move; all inputs of a Concat are.
pub(super) const MOVES: [&str; 13] = [
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "MaxPool",
    "DepthToSpace",
    "Concat",
];

/// An operator that takes and gives integers.
pub(super) struct QLinear {
    name: &'static str,
    /// The same on floats.
    float: &'static str,
    /// Which inputs are integers, each followed by its scale and its zero point. Of a QLinearConcat they are all but the first two.
    operands: &'static [usize],
    /// Where the scale of what it gives is, its zero point behind it.
    result: usize,
    /// Which input is a sum in 32 bits, in parts of the product of the operands' scales.
    bias: Option<usize>,
}

#[rustfmt::skip]
const QLINEAR: [QLinear; 11] = [
    QLinear { name: "QLinearConv", float: "Conv", operands: &[0, 3], result: 6, bias: Some(8) },
    QLinear { name: "QLinearMatMul", float: "MatMul", operands: &[0, 3], result: 6, bias: None },
    QLinear { name: "QGemm", float: "Gemm", operands: &[0, 3], result: 7, bias: Some(6) },
    QLinear { name: "QLinearAdd", float: "Add", operands: &[0, 3], result: 6, bias: None },
    QLinear { name: "QLinearMul", float: "Mul", operands: &[0, 3], result: 6, bias: None },
    QLinear { name: "QLinearSigmoid", float: "Sigmoid", operands: &[0], result: 3, bias: None },
    QLinear { name: "QLinearLeakyRelu", float: "LeakyRelu", operands: &[0], result: 3, bias: None },
    QLinear { name: "QLinearSoftmax", float: "Softmax", operands: &[0], result: 3, bias: None },
    QLinear { name: "QLinearAveragePool", float: "AveragePool", operands: &[0], result: 3, bias: None },
    QLinear { name: "QLinearGlobalAveragePool", float: "GlobalAveragePool", operands: &[0], result: 3, bias: None },
    QLinear { name: "QLinearConcat", float: "Concat", operands: &[], result: 0, bias: None },
];
/// Attributes that the operators on floats do not have.
const OWN_ATTRIBUTES: [&str; 2] = ["channels_last", "opset"];
/// From this version on a Softmax is over one axis alone.
const SOFTMAX_OF_ONE_AXIS: i64 = 13;

/// What is known of a node's operator.
pub(super) fn known(node: &pb::NodeProto) -> Option<&'static QLinear> {
    let found = QLINEAR.iter().find(|known| known.name == node.op_type);
    found.filter(|_| matches!(node.domain.as_str(), "" | "ai.onnx" | "com.microsoft"))
}

/// The axis of a weight of `rank` that its scales number: filters of a convolution, columns of a matrix.
pub(super) fn scale_axis(float: &str, node: &pb::NodeProto, rank: usize) -> usize {
    match float {
        "Conv" => 0,
        "Gemm" if attribute(node, "transB", 0) != 0 => 0,
        _ => rank.saturating_sub(1),
    }
}

impl<'a> Pass<'a> {
    /// An operator on integers, as `known` says.
    pub(super) fn operator(&mut self, node: &'a pb::NodeProto, known: &QLinear) -> Result<bool, PackerError> {
        let of_one_axis = |opset: i64| opset >= SOFTMAX_OF_ONE_AXIS;
        let softmax = known.float == "Softmax";
        let other_softmax =
            softmax && of_one_axis(attribute(node, "opset", self.opset)) != of_one_axis(self.opset);
        let Some(y) = node.output.first() else { return Ok(false) };
        if attribute(node, "channels_last", 0) != 0 || other_softmax {
            return Ok(false);
        }
        let places: Vec<usize> = match known.operands {
            [] => (2..node.input.len()).step_by(3).collect(),
            places => places.to_vec(),
        };
        let (mut inputs, mut dtype) = (Vec::new(), None);
        for at in &places {
            let Some((name, of_it)) = self.operand(node, *at, known.float)? else { return Ok(false) };
            inputs.push(name);
            // Without a zero point the result is of the first one's type.
            dtype = dtype.or(Some(of_it));
        }
        let is_there = |at: &usize| node.input.get(*at).is_some_and(|name| !name.is_empty());
        let result = self.params(node, known.result, dtype)?;
        // A QGemm without a scale gives floats.
        if result.is_none() && is_there(&known.result) {
            return Ok(false);
        }
        if let Some(bias) = known.bias.filter(is_there) {
            match self.bias(node, bias, &places)? {
                Some(name) => inputs.push(name),
                None => return Ok(false),
            }
        }
        let floats = if result.is_some() { self.fresh(format!("{y}.float")) } else { y.clone() };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut same = plain(known.float, &node.name, &inputs, &floats);
        let attributes = node.attribute.iter().filter(|a| !OWN_ATTRIBUTES.contains(&a.name.as_str()));
        same.attribute = attributes.cloned().collect();
        if softmax && !same.attribute.iter().any(|a| a.name == "axis") {
            same.attribute.push(integer("axis", -1));
        }
        self.made.push(same);
        let Some(params) = result else { return Ok(true) };
        self.quantize(node, &floats, params)
            .map(|()| true)
            .ok_or_else(|| bad(node, "a scale for each index of what it gives, expected one for all of it"))
    }

    /// The floats behind the integers at input `at` of `node`, which stands for the operator `float`, and the type of the integers. `None`
    /// where they are unknown.
    pub(super) fn operand(
        &mut self,
        node: &pb::NodeProto,
        at: usize,
        float: &str,
    ) -> Result<Option<(String, DataType)>, PackerError> {
        let of = names_at(node, at);
        let [q, ..] = of;
        let stored = self.integers(q);
        let known = stored.as_ref().map(|stored| stored.dtype);
        let known = known.or_else(|| self.floats.get(q).map(|real| real.params.dtype));
        let Some(params) = self.params(node, at + 1, known)? else { return Ok(None) };
        let dtype = known.unwrap_or(params.dtype);
        if let Some(real) = self.same(q, &params) {
            return Ok(Some((real.name, dtype)));
        }
        let name = self.fresh(format!("{q}.floats"));
        if let Some(stored) = stored {
            let granularity = match params.scale.len() {
                1 => Granularity::PerTensor,
                _ => Granularity::PerAxis(scale_axis(float, node, stored.shape.len())),
            };
            let name = self.stored_floats(node, of, &stored, (&params, granularity), name)?;
            return Ok(Some((name, dtype)));
        }
        if params.scale.len() != 1 || q.is_empty() {
            return Ok(None);
        }
        self.any_floats(node, at, &params, &name)?;
        Ok(Some((name, dtype)))
    }

    /// The bias at input `at`, which is in parts of the product of the scales of the operands at `places`.
    fn bias(
        &mut self,
        node: &pb::NodeProto,
        at: usize,
        places: &[usize],
    ) -> Result<Option<String>, PackerError> {
        let Some(Stored { mut shape, values, .. }) = node.input.get(at).and_then(|name| self.integers(name))
        else {
            return Ok(None);
        };
        let mut scales = vec![1f64];
        for place in places {
            let Some(params) = self.params(node, place + 1, None)? else { return Ok(None) };
            scales = match (scales.as_slice(), params.scale.as_slice()) {
                (_, [one]) => scales.iter().map(|s| s * f64::from(*one)).collect(),
                ([one], each) => each.iter().map(|s| one * f64::from(*s)).collect(),
                _ => return Ok(None),
            };
        }
        let (last, columns) = (shape.last().copied().unwrap_or(1), scales.len());
        let repeats = match () {
            () if columns == 1 || last == columns => 1,
            () if last == 1 => columns,
            () => {
                let text = format!("{last} biases, expected {columns}, as many as scales");
                return Err(bad(node, &text));
            }
        };
        if repeats > 1 {
            shape.pop();
            shape.push(columns);
        }
        let alpha = node.attribute.iter().find(|a| a.name == "alpha").map_or(1.0, |a| f64::from(a.f));
        #[allow(clippy::cast_possible_truncation, reason = "rounded to f32")]
        let real = |(q, s): (i32, &f64)| (f64::from(q) * s * alpha) as f32;
        let each = values.iter().flat_map(|q| std::iter::repeat_n(*q, repeats));
        let reals: Vec<f32> = each.zip(scales.iter().cycle()).map(real).collect();
        let name = self.fresh(format!("{}.bias", node.output[0]));
        self.new.push(tensor(&name, &shape, &reals));
        Ok(Some(name))
    }

    /// An operator that moves quantized values.
    pub(super) fn moved(&mut self, node: &'a pb::NodeProto) -> bool {
        let reals: Option<Vec<Real>> = what_moves(node).iter().map(|i| self.floats.get(i).cloned()).collect();
        let Some([first, others @ ..]) = reals.as_deref() else { return false };
        let indices = node.op_type == "MaxPool" && node.output.len() > 1;
        if indices || others.iter().any(|other| other.params != first.params) {
            return false;
        }
        let mut same = node.clone();
        same.name = format!("{}.{}.real", node.name, node.output.first().map_or("", String::as_str));
        let names = [first].into_iter().chain(others).map(|real| real.name.clone());
        same.input.iter_mut().zip(names).for_each(|(input, name)| *input = name);
        let params = first.params.clone();
        for output in same.output.iter_mut().filter(|name| !name.is_empty()) {
            *output = self.fresh(format!("{output}.real"));
        }
        let made = same.output.clone();
        self.made.push(same);
        for (output, name) in node.output.iter().zip(made).filter(|(output, _)| !output.is_empty()) {
            let real = Real { name, params: params.clone() };
            self.integers_of(&node.name, &real, output);
            self.floats.insert(output.clone(), real);
        }
        true
    }

    /// Floats that were held to a range, and are moved, still are.
    pub(super) fn keep_held(&mut self, node: &'a pb::NodeProto) {
        let [first, others @ ..] = what_moves(node) else { return };
        let Some(params) = self.held.get(first.as_str()) else { return };
        if others.iter().all(|other| self.held.get(other.as_str()) == Some(params)) {
            let params = params.clone();
            self.held.extend(node.output.iter().map(|output| (output.as_str(), params.clone())));
        }
    }
}

/// The inputs whose values an operator of [`MOVES`] moves.
fn what_moves(node: &pb::NodeProto) -> &[String] {
    if node.op_type == "Concat" { &node.input } else { &node.input[..node.input.len().min(1)] }
}
