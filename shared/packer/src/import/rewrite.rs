//! Operators that are two or three plain ones in disguise.
//!
//! | ONNX | becomes | |
//! |---|---|---|
//! | LeakyRelu | Mul, Max | `max(x, alpha * x)`; Min for an alpha above 1, Relu for 0 |
//! | PRelu, LeakyRelu with an alpha below 0 | Relu, Min, Mul, Add | `max(x, 0) + slope * min(x, 0)` |
//! | MaxPool, AveragePool and ConvTranspose over one axis | Reshape, the same, Reshape | over two axes, the first of one position |
//! | IsNaN | Equal, Not | `not x == x` |
//! | Scaler | Sub, Mul | `(x - offset) * scale`, one value for each feature or one for all |
//! | ArrayFeatureExtractor | Reshape, Gather, Reshape | columns of the last axis, by index |

use super::constants::tensor;
use super::nodes::{bad, integer, plain};
use crate::error::PackerError;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;

/// Replaces what the table above lists. Errors: an attribute that is missing or of a length that ONNX does not
/// allow, with the node's name.
pub(super) fn rewrite(graph: &mut pb::GraphProto) -> Result<(), PackerError> {
    let nodes = std::mem::take(&mut graph.node);
    for (index, node) in nodes.into_iter().enumerate() {
        match (node.domain.as_str(), node.op_type.as_str()) {
            ("" | "ai.onnx", _) if is_over_one_axis(graph, &node) => over_two_axes(graph, node, index)?,
            ("" | "ai.onnx", "LeakyRelu") => leaky_relu(graph, &node, index)?,
            ("" | "ai.onnx", "PRelu") => {
                ends(&node, 2)?;
                by_sign(graph, &node, &node.input[1], index)?;
            }
            ("" | "ai.onnx", "IsNaN") => {
                let (x, y) = ends(&node, 1)?;
                let same = format!("{y}.isnan{index}.same");
                graph.node.push(plain("Equal", &node.name, &[x, x], &same));
                graph.node.push(plain("Not", &node.name, &[&same], y));
            }
            ("ai.onnx.ml", "Scaler") => scaler(graph, &node, index)?,
            ("ai.onnx.ml", "ArrayFeatureExtractor") => array_feature_extractor(graph, &node, index)?,
            _ => graph.node.push(node),
        }
    }
    Ok(())
}

/// Whether plans have the operator over two axes only.
fn is_over_one_axis(graph: &pb::GraphProto, node: &pb::NodeProto) -> bool {
    let has = |name: &str| node.attribute.iter().any(|a| a.name == name);
    let axes = node.attribute.iter().find(|a| a.name == "kernel_shape").map_or(0, |a| a.ints.len());
    match (node.op_type.as_str(), kernel_of(graph, node).map(|kernel| kernel.dims.as_slice())) {
        ("MaxPool" | "AveragePool", _) => axes == 1 && node.output.len() == 1,
        ("ConvTranspose", Some([_, _, _])) => !has("output_shape"),
        _ => false,
    }
}

/// The kernel of a convolution, where the file holds it.
fn kernel_of<'a>(graph: &'a pb::GraphProto, node: &pb::NodeProto) -> Option<&'a pb::TensorProto> {
    graph.initializer.iter().find(|i| node.input.get(1) == Some(&i.name))
}

fn over_two_axes(
    graph: &mut pb::GraphProto,
    mut node: pb::NodeProto,
    index: usize,
) -> Result<(), PackerError> {
    let (x, y) = ends(&node, node.input.len())?;
    let (x, y) = (x.to_owned(), y.to_owned());
    let [two, one, image, kernel, result] =
        ["two", "one", "image", "kernel", "result"].map(|name| format!("{y}.axis{index}.{name}"));
    if let Some(mut stored) = kernel_of(graph, &node).cloned() {
        stored.name.clone_from(&kernel);
        stored.dims.insert(2, 1);
        graph.initializer.push(stored);
        node.input[1] = kernel;
    }
    graph.initializer.extend([integers(&two, &[0, 0, 1, -1]), integers(&one, &[0, 0, -1])]);
    for attribute in &mut node.attribute {
        match (attribute.name.as_str(), attribute.ints.as_slice()) {
            ("kernel_shape" | "strides" | "dilations", [n]) => attribute.ints = vec![1, *n],
            ("output_padding", [n]) => attribute.ints = vec![0, *n],
            ("pads", [before, after]) => attribute.ints = vec![0, *before, 0, *after],
            _ => {}
        }
    }
    let name = node.name.clone();
    graph.node.push(plain("Reshape", &name, &[&x, &two], &image));
    node.input[0] = image;
    node.output = vec![result.clone()];
    graph.node.push(node);
    graph.node.push(plain("Reshape", &name, &[&result, &one], &y));
    Ok(())
}

fn leaky_relu(graph: &mut pb::GraphProto, node: &pb::NodeProto, index: usize) -> Result<(), PackerError> {
    let (x, y) = ends(node, 1)?;
    let alpha = match node.attribute.iter().find(|a| a.name == "alpha") {
        None => 0.01,
        Some(a) if a.r#type == i32::from(AttributeType::Float) => a.f,
        Some(a) => return Err(bad(node, &format!("\"alpha\" of type {}, expected a float", a.r#type))),
    };
    let (slope, scaled) = (format!("{y}.leaky{index}.alpha"), format!("{y}.leaky{index}.scaled"));
    if alpha == 0.0 {
        graph.node.push(plain("Relu", &node.name, &[x], y));
        return Ok(());
    }
    graph.initializer.push(tensor(&slope, &[], &[alpha]));
    if alpha < 0.0 || alpha.is_nan() {
        return by_sign(graph, node, &slope, index);
    }
    let larger = if alpha <= 1.0 { "Max" } else { "Min" };
    graph.node.push(plain("Mul", &node.name, &[x, &slope], &scaled));
    graph.node.push(plain(larger, &node.name, &[x, &scaled], y));
    Ok(())
}

/// `slope` for what is below 0.
fn by_sign(
    graph: &mut pb::GraphProto,
    node: &pb::NodeProto,
    slope: &str,
    index: usize,
) -> Result<(), PackerError> {
    let (x, y) = ends(node, node.input.len())?;
    let stage = |name: &str| format!("{y}.by_sign{index}.{name}");
    let (zero, above, below, scaled) = (stage("zero"), stage("above"), stage("below"), stage("scaled"));
    graph.initializer.push(tensor(&zero, &[], &[0.0]));
    graph.node.push(plain("Relu", &node.name, &[x], &above));
    graph.node.push(plain("Min", &node.name, &[x, &zero], &below));
    graph.node.push(plain("Mul", &node.name, &[&below, slope], &scaled));
    graph.node.push(plain("Add", &node.name, &[&above, &scaled], y));
    Ok(())
}

fn scaler(graph: &mut pb::GraphProto, node: &pb::NodeProto, index: usize) -> Result<(), PackerError> {
    let (x, y) = ends(node, 1)?;
    let stage = |name: &str| format!("{y}.scaler{index}.{name}");
    let (offset, scale) = (floats(node, "offset")?, floats(node, "scale")?);
    let (offset_name, scale_name, middle) = (stage("offset"), stage("scale"), stage("sub"));
    graph.initializer.push(tensor(&offset_name, &[offset.len()], offset));
    graph.initializer.push(tensor(&scale_name, &[scale.len()], scale));
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
    gather.attribute.push(integer("axis", -1));
    graph.node.push(gather);
    if is_vector {
        let row_shape = stage("row_shape");
        graph.initializer.push(integers(&row_shape, &[1, -1]));
        graph.node.push(plain("Reshape", &node.name, &[&columns, &row_shape], y));
    }
    Ok(())
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
            domain: "ai.onnx.ml".into(),
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
    fn a_leaky_relu_is_rewritten_where_it_is_onnx_own_and_its_alpha_is_a_float() {
        let alpha = |r#type: AttributeType| pb::AttributeProto {
            name: "alpha".into(),
            f: 0.25,
            i: 1,
            r#type: r#type.into(),
            ..Default::default()
        };
        let rewritten = |domain: &str, r#type| {
            let node = pb::NodeProto {
                op_type: "LeakyRelu".into(),
                domain: domain.into(),
                attribute: vec![alpha(r#type)],
                ..scaler_node(&[])
            };
            let mut graph = pb::GraphProto { node: vec![node], ..Default::default() };
            rewrite(&mut graph).map(|()| graph.node.into_iter().map(|n| n.op_type).collect::<Vec<_>>())
        };
        assert_eq!(rewritten("", AttributeType::Float).unwrap(), ["Mul", "Max"]);
        assert_eq!(rewritten("com.example", AttributeType::Float).unwrap(), ["LeakyRelu"]);
        let e = rewritten("", AttributeType::Int).unwrap_err().to_string();
        assert!(e.contains("\"alpha\" of type 2, expected a float"), "{e}");
    }

    #[test]
    fn a_scaler_without_its_attributes_is_named() {
        let mut graph = pb::GraphProto { node: vec![scaler_node(&[])], ..Default::default() };
        let e = rewrite(&mut graph).unwrap_err();
        assert!(e.to_string().contains("node \"s\" (Scaler): no \"offset\""), "{e}");
    }
}
