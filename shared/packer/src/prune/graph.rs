//! Which channels can be removed: found in the ONNX graph, and removed from it.
//!
//! Channels belong to one producer, a convolution or a product, go through operators that take each of them by
//! itself, and end in one consumer that sums over them, again a convolution or a product. Nobody else reads them: where a
//! residual connection does, they stay.

use crate::error::{ErrorKind, PackerError};
use crate::import::constants::{dims, floats, tensor};
use crate::import::nodes::attribute;
use std::collections::HashMap;
use tract_onnx::pb;

/// Operators with one input that take each value by itself.
const ELEMENTWISE: [&str; 13] = [
    "Relu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "Elu",
    "Selu",
    "Softplus",
    "Identity",
    "Neg",
    "Abs",
    "Erf",
];
/// Operators that take each channel of an image by itself.
const POOLS: [&str; 4] = ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"];

/// An axis of a constant along which channels lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) tensor: String,
    axis: usize,
    /// How many places in a row each channel has.
    each: usize,
}

/// Channels between a producer and a consumer.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    /// The producer's name.
    pub(super) name: String,
    pub(super) width: usize,
    pub(super) producer: usize,
    /// Depthwise convolutions on the way.
    pub(super) depthwise: Vec<usize>,
    pub(super) consumer: usize,
    /// What the consumer sums over for each channel: taps of a kernel, places of an image that was flattened.
    pub(super) each: usize,
    slices: Vec<Slice>,
}

/// A node whose weights can be fitted.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) node: usize,
    /// How many inputs it sums over.
    pub(super) depth: usize,
    pub(super) residual: Option<Residual>,
}

/// What a residual connection adds to a layer's output.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    pub(super) value: String,
    /// What the output is multiplied with before, for each channel.
    pub(super) norm: Option<Vec<f32>>,
}

/// The weight of a convolution or a product as `[outputs, depth]`.
pub(super) struct Matrix {
    pub(super) outputs: usize,
    pub(super) depth: usize,
    /// Row by row.
    pub(super) values: Vec<f32>,
}

/// A graph, its constants by name.
pub(super) struct Graph<'a> {
    pub(super) proto: &'a pb::GraphProto,
    constants: HashMap<&'a str, &'a pb::TensorProto>,
    /// How often each value is read.
    reads: HashMap<&'a str, usize>,
}

fn count_reads<'a>(graph: &'a pb::GraphProto, reads: &mut HashMap<&'a str, usize>) {
    let outputs = graph.output.iter().map(|o| o.name.as_str());
    let inputs = graph.node.iter().flat_map(|n| n.input.iter().map(String::as_str));
    outputs.chain(inputs).for_each(|name| *reads.entry(name).or_default() += 1);
    for attribute in graph.node.iter().flat_map(|n| &n.attribute) {
        attribute.g.iter().chain(&attribute.graphs).for_each(|body| count_reads(body, reads));
    }
}

/// Whether a float attribute is 1, as it is where it is absent.
fn is_one(node: &pb::NodeProto, name: &str) -> bool {
    node.attribute.iter().find(|a| a.name == name).is_none_or(|a| a.f.to_bits() == 1f32.to_bits())
}

impl<'a> Graph<'a> {
    pub(super) fn of(proto: &'a pb::GraphProto) -> Graph<'a> {
        let constants = proto.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
        let mut reads = HashMap::new();
        count_reads(proto, &mut reads);
        Graph { proto, constants, reads }
    }

    fn is_plain(node: &pb::NodeProto) -> bool {
        matches!(node.domain.as_str(), "" | "ai.onnx")
    }

    /// The extents of an operand that is a constant of f32.
    fn constant(&self, node: &pb::NodeProto, slot: usize) -> Option<Vec<usize>> {
        let tensor = self.constants.get(node.input.get(slot)?.as_str())?;
        floats(tensor).map(|_| dims(tensor))
    }

    /// The same where nobody else reads it, so that it can be changed.
    fn own(&self, node: &pb::NodeProto, slot: usize) -> Option<Vec<usize>> {
        let name = node.input.get(slot)?.as_str();
        self.constant(node, slot).filter(|_| self.reads.get(name) == Some(&1))
    }

    fn has(node: &pb::NodeProto, slot: usize) -> bool {
        node.input.get(slot).is_some_and(|name| !name.is_empty())
    }

    /// Whether `node` is a convolution or product with a weight, for the count of multiply-adds; and those of each value
    /// of its output.
    pub(super) fn depth(&self, node: &pb::NodeProto) -> Option<usize> {
        let shape = self.constant(node, 1).filter(|_| Graph::is_plain(node))?;
        match (node.op_type.as_str(), shape.as_slice()) {
            ("Conv", [_, rest @ ..]) => Some(rest.iter().product()),
            ("Gemm", [k, n]) => Some(if attribute(node, "transB", 0) == 0 { *k } else { *n }),
            ("MatMul", [.., k, _]) => Some(*k),
            _ => None,
        }
    }

    /// All channels that can be removed, in the order of the graph.
    pub(super) fn channels(&self) -> Vec<Channels> {
        (0..self.proto.node.len()).filter_map(|index| self.from(index)).collect()
    }

    /// The channels that node `index` produces.
    fn from(&self, index: usize) -> Option<Channels> {
        let node = &self.proto.node[index];
        let (width, mut slices, mut from_right) = self.produced(node)?;
        let mut depthwise = Vec::new();
        let mut value = node.output.first()?.as_str();
        // Places of an image that was flattened are counted by the consumer's depth.
        let mut flat = from_right == 1;
        loop {
            let (next, reader) = self.reader(value)?;
            if let Some((each, slice)) = self.consumed(reader, value, width, flat) {
                slices.push(slice);
                let name = if node.name.is_empty() { &node.output[0] } else { &node.name };
                return Some(Channels {
                    name: name.clone(),
                    width,
                    producer: index,
                    depthwise,
                    consumer: next,
                    each,
                    slices,
                });
            }
            if reader.op_type == "Flatten" || reader.op_type == "Reshape" {
                // Of what are columns already, other axes would come between.
                if flat || !self.flattens(reader, value) {
                    return None;
                }
                (flat, from_right) = (true, 1);
            } else if reader.op_type == "Conv" {
                slices.extend(self.by_channel(reader, value, width).filter(|_| !flat)?);
                depthwise.push(next);
            } else {
                slices.extend(self.passed(reader, value, width, (flat, from_right))?);
            }
            value = reader.output.first()?.as_str();
        }
    }

    /// The channels of a producer, its constants, and where they lie in its output, counted from the last axis as 1.
    fn produced(&self, node: &pb::NodeProto) -> Option<(usize, Vec<Slice>, usize)> {
        let shape = self.own(node, 1).filter(|_| Graph::is_plain(node) && node.output.len() == 1)?;
        let weight = |axis| Slice { tensor: node.input[1].clone(), axis, each: 1 };
        let (width, mut slices, from_right) = match (node.op_type.as_str(), shape.as_slice()) {
            ("Conv", [width, ..]) if attribute(node, "group", 1) == 1 => {
                (*width, vec![weight(0)], shape.len() - 1)
            }
            ("Gemm", [k, n]) => match attribute(node, "transB", 0) {
                0 => (*n, vec![weight(1)], 1),
                _ => (*k, vec![weight(0)], 1),
            },
            ("MatMul", [_, n]) => (*n, vec![weight(1)], 1),
            _ => return None,
        };
        if Graph::has(node, 2) {
            slices.extend(self.along(node, 2, width, 1)?);
        }
        (width > 0).then_some((width, slices, from_right))
    }

    /// How operand `slot`, a constant, goes along with channels on the axis `from_right`: `None` where it cannot.
    fn along(
        &self,
        node: &pb::NodeProto,
        slot: usize,
        width: usize,
        from_right: usize,
    ) -> Option<Option<Slice>> {
        let shape = self.constant(node, slot)?;
        let Some(axis) = shape.len().checked_sub(from_right) else { return Some(None) };
        if shape[axis] == 1 && width > 1 {
            return Some(None);
        }
        let fits = shape[axis] == width && self.own(node, slot).is_some();
        fits.then(|| Some(Slice { tensor: node.input[slot].clone(), axis, each: 1 }))
    }

    /// What a consumer sums over for each channel, and its weight.
    fn consumed(
        &self,
        node: &pb::NodeProto,
        value: &str,
        width: usize,
        flat: bool,
    ) -> Option<(usize, Slice)> {
        let (shape, axis) = self.fitted(node).filter(|_| node.input[0] == value)?;
        let slice = |each| Slice { tensor: node.input[1].clone(), axis, each };
        if node.op_type == "Conv" {
            let taps = shape[2..].iter().product();
            return (!flat && shape[1] == width).then(|| (taps, slice(1)));
        }
        let each = shape[axis] / width;
        (flat && shape[axis] == width * each).then(|| (each, slice(each)))
    }

    /// The extents of the weight of a convolution of one group or of a product, and the axis that is summed over, where it
    /// can be fitted: nobody else reads the weight, and something can be added to the bias.
    fn fitted(&self, node: &pb::NodeProto) -> Option<(Vec<usize>, usize)> {
        let shape = self.own(node, 1).filter(|_| Graph::is_plain(node) && node.output.len() == 1)?;
        let axis = match (node.op_type.as_str(), shape.as_slice()) {
            ("Conv", [_, _, ..]) if attribute(node, "group", 1) == 1 => 1,
            ("Gemm", [_, _])
                if attribute(node, "transA", 0) == 0 && is_one(node, "alpha") && is_one(node, "beta") =>
            {
                usize::from(attribute(node, "transB", 0) != 0)
            }
            ("MatMul", [_, _]) => 0,
            _ => return None,
        };
        self.has_simple_bias(node).then_some((shape, axis))
    }

    /// Whether the bias of a consumer, if any, is one value for each output or for all.
    fn has_simple_bias(&self, node: &pb::NodeProto) -> bool {
        if node.op_type == "MatMul" || !Graph::has(node, 2) {
            return true;
        }
        let Some(shape) = self.constant(node, 2) else { return false };
        let values: usize = shape.iter().product();
        values == 1 || shape.last() == Some(&values)
    }

    /// All nodes from `first` on whose weights can be fitted, in the order of the graph.
    pub(super) fn layers(&self, first: usize) -> Vec<Layer> {
        let nodes = self.proto.node.iter().enumerate().skip(first);
        let layer = |(index, node)| {
            let (shape, axis) = self.fitted(node)?;
            let depth = if axis == 1 { shape[1..].iter().product() } else { shape[axis] };
            Some(Layer { node: index, depth, residual: self.residual(node) })
        };
        nodes.filter_map(layer).collect()
    }

    /// The only reader of `value`.
    fn reader(&self, value: &str) -> Option<(usize, &'a pb::NodeProto)> {
        let readers = || self.proto.node.iter().enumerate();
        let found = || readers().find(|(_, node)| node.input.iter().any(|i| i == value));
        (self.reads.get(value) == Some(&1)).then(found).flatten()
    }

    /// What is added to the output of `node`, behind a norm perhaps.
    fn residual(&self, node: &pb::NodeProto) -> Option<Residual> {
        let mut value = node.output.first()?.as_str();
        let mut norm: Option<Vec<f32>> = None;
        loop {
            let (_, reader) = self.reader(value)?;
            let first = reader.input.first().is_some_and(|i| i == value);
            match reader.op_type.as_str() {
                "BatchNormalization" if first && norm.is_none() => {
                    let of = |slot: usize| floats(self.constants.get(reader.input.get(slot)?.as_str())?);
                    let epsilon = reader.attribute.iter().find(|a| a.name == "epsilon").map_or(1e-5, |a| a.f);
                    let scale = |(g, v): (f32, f32)| g / (v + epsilon).sqrt();
                    norm = Some(of(1)?.into_iter().zip(of(4)?).map(scale).collect());
                }
                "Add" if reader.input.len() == 2 => {
                    let other = &reader.input[usize::from(first)];
                    if !self.constants.contains_key(other.as_str()) {
                        return Some(Residual { value: other.clone(), norm });
                    }
                }
                "Identity" => {}
                _ => return None,
            }
            value = reader.output.first()?.as_str();
        }
    }

    /// Whether a Flatten or a Reshape leaves the first axis and makes one of all others.
    fn flattens(&self, node: &pb::NodeProto, value: &str) -> bool {
        if node.op_type == "Flatten" {
            return attribute(node, "axis", 1) == 1;
        }
        let first = node.input.first().is_some_and(|i| i == value) && attribute(node, "allowzero", 0) == 0;
        let wanted = node.input.get(1).and_then(|name| self.constants.get(name.as_str())).filter(|_| first);
        wanted.is_some_and(|shape| {
            let raw = [0i64, -1].iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<u8>>();
            shape.int64_data == [0, -1] || shape.raw_data == raw
        })
    }

    /// The constants of a depthwise convolution.
    fn by_channel(&self, node: &pb::NodeProto, value: &str, width: usize) -> Option<Vec<Slice>> {
        let shape = self.own(node, 1)?;
        let fits = node.input.first().is_some_and(|i| i == value)
            && Graph::is_plain(node)
            && shape.starts_with(&[width, 1])
            && usize::try_from(attribute(node, "group", 1)) == Ok(width)
            && width > 1;
        let mut slices = vec![Slice { tensor: node.input[1].clone(), axis: 0, each: 1 }];
        if Graph::has(node, 2) {
            slices.extend(self.along(node, 2, width, 1)?);
        }
        fits.then_some(slices)
    }

    /// The constants of an operator that takes each channel by itself; `None` for another one.
    fn passed(
        &self,
        node: &pb::NodeProto,
        value: &str,
        width: usize,
        (flat, from_right): (bool, usize),
    ) -> Option<Vec<Slice>> {
        let first = node.input.first().is_some_and(|i| i == value);
        if !Graph::is_plain(node) || node.output.len() != 1 {
            return None;
        }
        let scalar = |slot| self.constant(node, slot).is_some_and(|s| s.iter().product::<usize>() == 1);
        match node.op_type.as_str() {
            op if ELEMENTWISE.contains(&op) => {
                let bounds = (1..node.input.len()).all(|slot| !Graph::has(node, slot) || scalar(slot));
                (first && bounds).then(Vec::new)
            }
            "Dropout" => {
                (first && attribute(node, "training_mode", 0) == 0 && !Graph::has(node, 2)).then(Vec::new)
            }
            op if POOLS.contains(&op) => (first && !flat).then(Vec::new),
            "BatchNormalization" if first && from_right > 1 => {
                let each = (1..5).map(|slot| self.along(node, slot, width, 1).flatten());
                each.collect::<Option<Vec<_>>>().filter(|_| attribute(node, "training_mode", 0) == 0)
            }
            // Behind a Flatten a channel is several columns, which only consumers know to count.
            "Add" | "Sub" | "Mul" | "Div" if node.input.len() == 2 => {
                let slot = usize::from(first);
                let shape = self.constant(node, slot)?;
                // An operand of more axes would give the result more of them.
                let axes = if flat { 2 } else { from_right + 1 };
                let found = if flat && shape.iter().product::<usize>() == 1 {
                    None
                } else {
                    self.along(node, slot, width, from_right)?
                };
                (shape.len() <= axes).then(|| found.into_iter().collect())
            }
            _ => None,
        }
    }

    /// The weight of a convolution with one group, or of a product.
    pub(super) fn matrix(&self, node: &pb::NodeProto) -> Option<Matrix> {
        let tensor = self.constants.get(node.input.get(1)?.as_str())?;
        let (shape, values) = (dims(tensor), floats(tensor)?);
        let turned =
            node.op_type == "MatMul" || (node.op_type == "Gemm" && attribute(node, "transB", 0) == 0);
        let (outputs, depth) =
            if turned { (shape[1], shape[0]) } else { (shape[0], values.len() / shape[0].max(1)) };
        let values = if turned { transposed(&values, depth, outputs) } else { values };
        Some(Matrix { outputs, depth, values })
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

/// Leaves only the channels `kept`, in order.
pub(super) fn remove(
    graph: &mut pb::GraphProto,
    channels: &Channels,
    kept: &[usize],
) -> Result<(), PackerError> {
    for slice in &channels.slices {
        let found = graph.initializer.iter_mut().find(|t| t.name == slice.tensor);
        let known = found.and_then(|found| floats(found).map(|values| (found, values)));
        let (found, values) = known.ok_or_else(|| lost(&slice.tensor))?;
        let mut shape = dims(found);
        let inner: usize = shape[slice.axis + 1..].iter().product::<usize>() * slice.each;
        let step = inner * channels.width;
        let of_row = |row: &[f32]| {
            kept.iter().flat_map(|c| row[c * inner..(c + 1) * inner].to_vec()).collect::<Vec<f32>>()
        };
        let left: Vec<f32> = values.chunks_exact(step).flat_map(of_row).collect();
        shape[slice.axis] = kept.len() * slice.each;
        *found = tensor(&slice.tensor, &shape, &left);
    }
    #[allow(clippy::cast_possible_wrap, reason = "a number of channels")]
    for index in &channels.depthwise {
        let groups = graph.node[*index].attribute.iter_mut().filter(|a| a.name == "group");
        groups.for_each(|a| a.i = kept.len() as i64);
    }
    Ok(())
}

fn lost(name: &str) -> PackerError {
    PackerError::new(ErrorKind::Internal, format!("pruning lost the constant {name:?}"))
}

/// Gives the consumer at `index` other weights, and adds `bias` to its outputs: behind a MatMul by a node of its own.
pub(super) fn restore(
    graph: &mut pb::GraphProto,
    index: usize,
    weights: &Matrix,
    bias: &[f32],
) -> Result<(), PackerError> {
    let node = graph.node[index].clone();
    let turned = node.op_type == "MatMul" || (node.op_type == "Gemm" && attribute(&node, "transB", 0) == 0);
    let values = if turned {
        transposed(&weights.values, weights.outputs, weights.depth)
    } else {
        weights.values.clone()
    };
    let found = graph.initializer.iter_mut().find(|t| t.name == node.input[1]);
    let found = found.ok_or_else(|| lost(&node.input[1]))?;
    *found = tensor(&node.input[1], &dims(found), &values);
    let name = format!("{}.restored", node.output[0]);
    if node.op_type == "MatMul" {
        let between = format!("{}.product", node.output[0]);
        graph.node[index].output[0].clone_from(&between);
        graph.initializer.push(tensor(&name, &[bias.len()], bias));
        let sum = pb::NodeProto {
            op_type: "Add".into(),
            name: format!("{}.restored", if node.name.is_empty() { &between } else { &node.name }),
            input: vec![between, name],
            output: node.output,
            ..Default::default()
        };
        graph.node.insert(index + 1, sum);
        return Ok(());
    }
    let old = node.input.get(2).filter(|name| !name.is_empty());
    let old = old.map(|old| graph.initializer.iter().find(|t| t.name == *old).ok_or_else(|| lost(old)));
    let old = old.transpose()?.map(|old| floats(old).ok_or_else(|| lost(&old.name))).transpose()?;
    let old = old.unwrap_or_else(|| vec![0.0]);
    let sum: Vec<f32> = bias.iter().zip(old.iter().cycle()).map(|(b, o)| b + o).collect();
    graph.initializer.push(tensor(&name, &[bias.len()], &sum));
    let inputs = &mut graph.node[index].input;
    inputs.truncate(2);
    inputs.push(name);
    Ok(())
}

/// The values `names` are the graph's outputs, and no others.
pub(super) fn set_outputs(graph: &mut pb::GraphProto, names: &[String]) {
    graph.output =
        names.iter().map(|n| pb::ValueInfoProto { name: n.clone(), ..Default::default() }).collect();
}

/// An attribute of integers.
#[cfg(test)]
pub(super) fn integers(name: &str, values: &[i64]) -> pb::AttributeProto {
    use tract_onnx::pb::attribute_proto::AttributeType;
    pb::AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        i: values.first().copied().unwrap_or_default(),
        r#type: if values.len() == 1 { AttributeType::Int } else { AttributeType::Ints }.into(),
        ..Default::default()
    }
}

#[cfg(test)]
pub(super) fn constant(name: &str, dims: &[usize], values: &[f32]) -> pb::TensorProto {
    assert_eq!(values.len(), dims.iter().product::<usize>());
    tensor(name, dims, values)
}
