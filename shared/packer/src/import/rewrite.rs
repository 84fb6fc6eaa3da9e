//! Operators of ONNX' machine-learning domain that are two plain ones in disguise.
//!
//! | ai.onnx.ml | becomes | |
//! |---|---|---|
//! | Scaler | Sub, Mul | `(x - offset) * scale`, one value for each feature or one for all |
//! | ArrayFeatureExtractor | Reshape, Gather, Reshape | columns of the last axis, by index |

use crate::error::{ErrorKind, PackerError};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// Replaces what the table above lists. Errors: an attribute that is missing or of a length that ONNX does not
/// allow, with the node's name.
pub(super) fn rewrite(graph: &mut pb::GraphProto) -> Result<(), PackerError> {
    let nodes = std::mem::take(&mut graph.node);
    for (index, node) in nodes.into_iter().enumerate() {
        match node.op_type.as_str() {
            "Scaler" => scaler(graph, &node, index)?,
            "ArrayFeatureExtractor" => array_feature_extractor(graph, &node, index)?,
            _ => graph.node.push(node),
        }
    }
    Ok(())
}

fn scaler(graph: &mut pb::GraphProto, node: &pb::NodeProto, index: usize) -> Result<(), PackerError> {
    let (x, y) = ends(node, 1)?;
    let stage = |name: &str| format!("{y}.scaler{index}.{name}");
    let (offset, scale) = (floats(node, "offset")?, floats(node, "scale")?);
    let (offset_name, scale_name, middle) = (stage("offset"), stage("scale"), stage("sub"));
    graph.initializer.push(vector(&offset_name, offset));
    graph.initializer.push(vector(&scale_name, scale));
    graph.node.push(plain("Sub", &node.name, &[x, &offset_name], &middle));
    graph.node.push(plain("Mul", &node.name, &[&middle, &scale_name], y));
    Ok(())
}

fn array_feature_extractor(
    graph: &mut pb::GraphProto,
    node: &pb::NodeProto,
    index: usize,
) -> Result<(), PackerError> {
    let (x, y) = ends(node, 2)?;
    let stage = |name: &str| format!("{y}.extractor{index}.{name}");
    // Of a vector the result is one row.
    let is_vector = graph.initializer.iter().any(|i| i.name == x && i.dims.len() == 1);
    let (flat_shape, flat, columns) = (stage("flat_shape"), stage("flat"), stage("columns"));
    graph.initializer.push(integers(&flat_shape, &[-1]));
    graph.node.push(plain("Reshape", &node.name, &[&node.input[1], &flat_shape], &flat));
    let mut gather = plain("Gather", &node.name, &[x, &flat], if is_vector { &columns } else { y });
    gather.attribute.push(pb::AttributeProto {
        name: "axis".into(),
        i: -1,
        r#type: pb::attribute_proto::AttributeType::Int.into(),
        ..Default::default()
    });
    graph.node.push(gather);
    if is_vector {
        let row_shape = stage("row_shape");
        graph.initializer.push(integers(&row_shape, &[1, -1]));
        graph.node.push(plain("Reshape", &node.name, &[&columns, &row_shape], y));
    }
    Ok(())
}

fn bad(node: &pb::NodeProto, why: &str) -> PackerError {
    PackerError::new(ErrorKind::Model, format!("node {:?} ({}): {why}", node.name, node.op_type))
}

/// The first input and the output of a node that has `inputs` of them and one output.
fn ends(node: &pb::NodeProto, inputs: usize) -> Result<(&str, &str), PackerError> {
    match (node.input.as_slice(), node.output.as_slice()) {
        ([x, ..], [y]) if node.input.len() == inputs => Ok((x, y)),
        (x, y) => {
            Err(bad(node, &format!("{} inputs and {} outputs, expected {inputs} and 1", x.len(), y.len())))
        }
    }
}

fn floats<'a>(node: &'a pb::NodeProto, name: &str) -> Result<&'a [f32], PackerError> {
    let found = node.attribute.iter().find(|a| a.name == name && !a.floats.is_empty());
    found.map(|a| a.floats.as_slice()).ok_or_else(|| bad(node, &format!("no {name:?} with values")))
}

fn plain(op: &str, name: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        op_type: op.into(),
        name: format!("{name}.{op}.{output}"),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

#[allow(clippy::cast_possible_wrap, reason = "counts of features")]
fn vector(name: &str, values: &[f32]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: DataType::Float.into(),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

#[allow(clippy::cast_possible_wrap, reason = "counts of axes")]
fn integers(name: &str, values: &[i64]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: DataType::Int64.into(),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler_node(attributes: &[(&str, Vec<f32>)]) -> pb::NodeProto {
        let attribute = attributes.iter().map(|(name, floats)| pb::AttributeProto {
            name: (*name).into(),
            floats: floats.clone(),
            ..Default::default()
        });
        pb::NodeProto {
            op_type: "Scaler".into(),
            name: "s".into(),
            input: vec!["x".into()],
            output: vec!["y".into()],
            attribute: attribute.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_scaler_becomes_a_difference_and_a_product() {
        let node = scaler_node(&[("offset", vec![1.0, 2.0]), ("scale", vec![3.0])]);
        let mut graph = pb::GraphProto { node: vec![node], ..Default::default() };
        rewrite(&mut graph).unwrap();
        let ops: Vec<_> = graph.node.iter().map(|n| &*n.op_type).collect();
        assert_eq!(ops, ["Sub", "Mul"]);
        assert_eq!((graph.initializer[0].dims.as_slice(), &*graph.node[1].output[0]), (&[2][..], "y"));
    }

    #[test]
    fn a_scaler_without_its_attributes_is_named() {
        let mut graph = pb::GraphProto { node: vec![scaler_node(&[])], ..Default::default() };
        let e = rewrite(&mut graph).unwrap_err();
        assert!(e.to_string().contains("node \"s\" (Scaler): no \"offset\""), "{e}");
    }
}
