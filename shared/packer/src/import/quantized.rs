//! Models that come quantized: their weights keep the file's integers, their activations become floats.
//!
//! | ONNX | becomes | |
//! |---|---|---|
//! | DequantizeLinear of stored integers, of rows of such (Gather), or of stored floats behind a QuantizeLinear | stored floats | `linear` |
//! | QuantizeLinear | Max and Min: held to what its type reaches, and not rounded; nothing where it is so held already | |
//! | DequantizeLinear of what was quantized by the same scale | nothing | |
//! | DequantizeLinear of other integers, such as an input | Cast, Sub, Mul | |
//! | integers that something else wants, such as an output | Div, Round, Add, Cast | |
//! | operators that move such values | the same, of floats | `operators` |
//! | `QLinear...`, QGemm | the operator on floats, between the two | |
//! | Cast to float (and Sub) and Mul by a stored scale, of stored integers | stored floats | `written_out` |
//! | DynamicQuantizeLinear, MatMulInteger or ConvInteger, Cast, Mul | MatMul, Conv | |
//!
//! What is held to its range stays so because exporters leave a Relu to it. Rounding is left out: it is what makes quantized
//! activations worse than floats, and the importer's integer operators answer wrongly or take twenty times as long.
//!
//! A weight is `(q - zero_point) * scale`. Where `q - zero_point` is at most 127 its scale is rounded to 16 significant bits, 2^-16 of
//! it at most. Then products are exact, and the encoder finds the same integers again by itself.
//!
//! Whatever is not recognised is left as it is, for the importer to know or to refuse.

mod linear;
mod operators;
mod params;
mod written_out;

use super::constants::{dims, floats, integers, is_small_integer, plain_constants};
use super::nodes::{drop_what_nobody_reads, names, sort};
use crate::error::PackerError;
use params::{Granularity, Params, Stored};
use std::collections::{HashMap, HashSet};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// What was quantized in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Quantized {
    /// Matrices and filters that are stored as integers.
    pub weights: usize,
    /// Those of them whose integers int8 holds: of at most 127, with a scale for all or for each index of one axis.
    pub weights_int8: usize,
    /// How often values between operators were rounded to integers (of dynamic ones, each product of them). They are floats now.
    pub activations: usize,
}

impl Quantized {
    /// What the manifest says of it, as an option of the provenance; nothing where nothing was quantized.
    pub(crate) fn told(&self) -> Option<(String, String)> {
        let Quantized { weights, weights_int8, activations } = self;
        (*self != Quantized::default()).then(|| {
            let text = format!(
                "{weights} weights in integers, {weights_int8} of them fit int8; {activations} roundings of activations left out"
            );
            ("came quantized".to_owned(), text)
        })
    }
}

/// What was quantized, and the names of the nodes that hold values to the range of their integers, once they are imported.
#[derive(Clone, Default)]
pub(crate) struct Found {
    pub(crate) quantized: Quantized,
    pub(crate) limits: HashSet<String>,
}

/// Replaces what the table above lists in a graph of version `opset` of ONNX.
///
/// Errors, with the node's name: a scale that is not a normal number above 0; scales, zero points or biases of the wrong
/// number; an axis that the tensor does not have; an operator of integers with a scale for each index of its result.
pub(super) fn dequantize(graph: &mut pb::GraphProto, opset: i64) -> Result<Found, PackerError> {
    if !is_quantized(graph) {
        return Ok(Found::default());
    }
    plain_constants(graph);
    sort(graph);
    let names = names(graph);
    let nodes = std::mem::take(&mut graph.node);
    let by_output = |n: usize| nodes[n].output.iter().map(move |output| (output.as_str(), n));
    let mut pass = Pass {
        constants: graph.initializer.iter().map(|i| (i.name.as_str(), i)).collect(),
        nodes: &nodes,
        makers: (0..nodes.len()).flat_map(by_output).filter(|(name, _)| !name.is_empty()).collect(),
        floats: HashMap::new(),
        held: HashMap::new(),
        rounded: HashMap::new(),
        stored: HashMap::new(),
        names,
        opset,
        made: Vec::new(),
        new: Vec::new(),
        limits: HashSet::new(),
        found: Quantized::default(),
    };
    for node in &nodes {
        pass.node(node)?;
    }
    let Pass { made, new, limits, found: quantized, .. } = pass;
    graph.initializer.extend(new);
    graph.node = made;
    drop_what_nobody_reads(graph);
    Ok(Found { quantized, limits })
}

/// Whether there is anything to look for.
fn is_quantized(graph: &pb::GraphProto) -> bool {
    let in_nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let stored = node.attribute.iter().find_map(|a| a.t.as_ref())?;
        Some((node.output.first()?, stored.data_type))
    });
    let stored: HashSet<&String> = (graph.initializer.iter().map(|i| (&i.name, i.data_type)).chain(in_nodes))
        .filter(|(_, dtype)| DataType::try_from(*dtype).is_ok_and(is_small_integer))
        .map(|(name, _)| name)
        .collect();
    graph.node.iter().any(|node| match node.op_type.as_str() {
        "QuantizeLinear" | "DequantizeLinear" | "MatMulInteger" | "ConvInteger" => true,
        "Cast" => node.input.first().is_some_and(|x| stored.contains(x)),
        _ => operators::known(node).is_some(),
    })
}

/// Whether `node` is one of those that become floats where their scales are stored.
pub(super) fn is_known(node: &pb::NodeProto) -> bool {
    operators::known(node).is_some()
}

/// A quantized value, as floats.
#[derive(Clone)]
struct Real {
    name: String,
    params: Params,
}

struct Pass<'a> {
    nodes: &'a [pb::NodeProto],
    constants: HashMap<&'a str, &'a pb::TensorProto>,
    /// The node that gives each value.
    makers: HashMap<&'a str, usize>,
    /// By the name of the quantized value.
    floats: HashMap<String, Real>,
    /// Floats that were quantized so, and have only been moved since.
    held: HashMap<&'a str, Params>,
    /// Stored floats that the file quantizes: weights of a network that was trained so.
    rounded: HashMap<&'a str, Stored>,
    /// Constants that were multiplied out, by the names of integers, scale and zero point.
    stored: HashMap<([String; 3], Granularity), String>,
    /// All that are taken.
    names: HashSet<String>,
    opset: i64,
    made: Vec<pb::NodeProto>,
    new: Vec<pb::TensorProto>,
    limits: HashSet<String>,
    found: Quantized,
}

impl<'a> Pass<'a> {
    fn node(&mut self, node: &'a pb::NodeProto) -> Result<(), PackerError> {
        let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
        let done = match (node.op_type.as_str(), operators::known(node)) {
            (_, Some(known)) => self.operator(node, known)?,
            _ if !standard => false,
            ("QuantizeLinear", _) => self.quantize_linear(node)?,
            ("DequantizeLinear", _) => self.dequantize_linear(node)?,
            ("Mul", _) => self.scaled_weight(node)? || self.dynamic(node)?,
            (name, _) if operators::MOVES.contains(&name) => {
                self.keep_held(node);
                self.moved(node)
            }
            _ => false,
        };
        if !done {
            self.made.push(node.clone());
        }
        Ok(())
    }

    fn maker(&self, value: &str, op: &str) -> Option<&'a pb::NodeProto> {
        self.makers.get(value).map(|n| &self.nodes[*n]).filter(|node| node.op_type == op)
    }

    fn constant(&self, name: &str) -> Option<&'a pb::TensorProto> {
        self.constants.get(name).copied()
    }

    /// Integers that are stored, or made of what is.
    fn integers(&self, name: &str) -> Option<Stored> {
        let stored = || {
            let stored = self.constant(name)?;
            let dtype = DataType::try_from(stored.data_type).ok()?;
            Some(Stored { shape: dims(stored), values: integers(stored)?, dtype })
        };
        self.rounded.get(name).cloned().or_else(stored)
    }

    /// The stored scale and zero point at the inputs from `at` on, for integers of `dtype` if that is known. `None` where they
    /// are not stored.
    fn params(
        &self,
        node: &pb::NodeProto,
        at: usize,
        dtype: Option<DataType>,
    ) -> Result<Option<Params>, PackerError> {
        let input = |n: usize| node.input.get(n).filter(|name| !name.is_empty());
        let Some(scale) = input(at).and_then(|name| self.constant(name)) else { return Ok(None) };
        let (Some(mut values), mut shape) = (floats(scale), dims(scale)) else { return Ok(None) };
        let (of_zero, mut zero_point) = match input(at + 1).map(|name| self.constant(name)) {
            Some(None) => return Ok(None),
            None => (None, vec![0]),
            Some(Some(zero)) => match (integers(zero), values.len()) {
                (None, _) => return Ok(None),
                (Some(zeros), count) => {
                    if count == 1 && zeros.len() > 1 {
                        (values, shape) = (vec![values[0]; zeros.len()], dims(zero));
                    }
                    (DataType::try_from(zero.data_type).ok(), zeros)
                }
            },
        };
        if zero_point.len() == 1 {
            zero_point = vec![zero_point[0]; values.len()];
        }
        let dtype = of_zero.or(dtype).unwrap_or(DataType::Uint8);
        Params { scale: values, shape, zero_point, dtype }.checked(node).map(Some)
    }

    /// A name that nothing has yet.
    fn fresh(&mut self, wanted: String) -> String {
        let mut name = wanted;
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// The floats that `q` stands for, if it was quantized so.
    fn same(&self, q: &str, params: &Params) -> Option<Real> {
        let real = self.floats.get(q)?;
        // Without a zero point nothing tells the type.
        let alike = real.params.scale == params.scale && real.params.zero_point == params.zero_point;
        alike.then(|| real.clone())
    }

    /// The floats that stored integers stand for as a constant: `name`, or what the same ones are called already. `of` are the names
    /// of integers, scale and zero point.
    fn stored_floats(
        &mut self,
        node: &pb::NodeProto,
        of: [&str; 3],
        stored: &Stored,
        (params, granularity): (&Params, Granularity),
        name: String,
    ) -> Result<String, PackerError> {
        let key = (of.map(str::to_owned), granularity);
        if let Some(known) = self.stored.get(&key) {
            return Ok(known.clone());
        }
        self.add_floats(node, stored, (params, granularity), &name)?;
        self.stored.insert(key, name.clone());
        Ok(name)
    }

    /// Adds the floats that stored integers stand for, as constant `name`.
    fn add_floats(
        &mut self,
        node: &pb::NodeProto,
        stored: &Stored,
        (params, granularity): (&Params, Granularity),
        name: &str,
    ) -> Result<(), PackerError> {
        let (dequantized, int8) = params.dequantized(node, stored, granularity, name)?;
        self.new.push(dequantized);
        self.found.weights += usize::from(stored.shape.len() >= 2);
        self.found.weights_int8 += usize::from(int8);
        Ok(())
    }
}

/// The names of integers, scale and zero point at the inputs of `node` from `at` on.
fn names_at(node: &pb::NodeProto, at: usize) -> [&str; 3] {
    [at, at + 1, at + 2].map(|n| node.input.get(n).map_or("", String::as_str))
}

#[cfg(test)]
mod tests;
