//! Nodes of an ONNX graph: how they are made, what their attributes say, who reads what.

use crate::error::{ErrorKind, PackerError};
use std::collections::HashSet;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;

/// A node with one output, named after the one that it stands for, its operator and its output.
pub(super) fn plain(op: &str, name: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        op_type: op.into(),
        name: format!("{name}.{op}.{output}"),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// A Cast to `dtype`.
pub(super) fn cast_to(dtype: DataType, name: &str, x: &str, y: &str) -> pb::NodeProto {
    let mut cast = plain("Cast", name, &[x], y);
    cast.attribute.push(integer("to", i32::from(dtype).into()));
    cast
}

/// An attribute that is an integer.
pub(super) fn integer(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.into(),
        i: value,
        r#type: AttributeType::Int.into(),
        ..Default::default()
    }
}

/// The integer that an attribute is, or what stands for an absent one.
pub(crate) fn attribute(node: &pb::NodeProto, name: &str, default: i64) -> i64 {
    node.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i)
}

/// An error with a node's name and operator.
pub(super) fn bad(node: &pb::NodeProto, why: &str) -> PackerError {
    PackerError::new(ErrorKind::Model, format!("node {:?} ({}): {why}", node.name, node.op_type))
}

/// Removes nodes that no output comes from, and constants that nothing reads.
pub(super) fn drop_what_nobody_reads(graph: &mut pb::GraphProto) {
    let mut read: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut kept: Vec<pb::NodeProto> = Vec::new();
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| read.contains(output)) {
            reads(&node, &mut read);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|i| read.contains(&i.name));
}

/// What `node` and the graphs in it read.
fn reads(node: &pb::NodeProto, read: &mut HashSet<String>) {
    read.extend(node.input.iter().cloned());
    for body in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        read.extend(body.output.iter().map(|o| o.name.clone()));
        body.node.iter().for_each(|node| reads(node, read));
    }
}
