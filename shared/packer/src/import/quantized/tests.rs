//! What files say, and what becomes of it.

use super::*;
use crate::import::constants::{dims as dims_of, tensor};
use crate::import::nodes::plain;

fn dequantize_all(graph: &mut pb::GraphProto, opset: i64) -> Result<Quantized, PackerError> {
    dequantize(graph, opset).map(|found| found.quantized)
}

fn node(op: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    plain(op, "n", inputs, output)
}

fn bytes(name: &str, dims: &[i64], values: &[i8]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Int8.into(),
        raw_data: values.iter().map(|v| v.cast_unsigned()).collect(),
        ..Default::default()
    }
}

fn graph(node: Vec<pb::NodeProto>, initializer: Vec<pb::TensorProto>, output: &str) -> pb::GraphProto {
    let output = vec![pb::ValueInfoProto { name: output.into(), ..Default::default() }];
    pb::GraphProto { node, initializer, output, ..Default::default() }
}

fn ops(graph: &pb::GraphProto) -> Vec<&str> {
    graph.node.iter().map(|n| n.op_type.as_str()).collect()
}

/// A matrix of `[2, 3]` with `scales` and `zeros` along `axis`.
fn stored(scales: &[f32], zeros: &[i8], axis: i64) -> Result<Vec<f32>, PackerError> {
    let mut dequantize = node("DequantizeLinear", &["q", "scale", "zero"], "w");
    dequantize.attribute.push(pb::AttributeProto { name: "axis".into(), i: axis, ..Default::default() });
    let counts = |n: usize| vec![i64::try_from(n).unwrap()];
    let constants = vec![
        bytes("q", &[2, 3], &[1, -2, 3, -127, 100, 0]),
        tensor("scale", &[scales.len()], scales),
        bytes("zero", &counts(zeros.len()), zeros),
    ];
    let mut graph = graph(vec![dequantize], constants, "w");
    dequantize_all(&mut graph, 17)?;
    assert!(graph.node.is_empty(), "{:?}", ops(&graph));
    let [w] = graph.initializer.as_slice() else { panic!("{:?}", graph.initializer) };
    Ok(floats(w).unwrap())
}

#[test]
fn stored_integers_are_multiplied_out_along_their_axis() {
    assert_eq!(stored(&[0.5], &[0], 1).unwrap(), [0.5, -1.0, 1.5, -63.5, 50.0, 0.0]);
    assert_eq!(stored(&[1.0, 2.0], &[0, 0], 0).unwrap(), [1.0, -2.0, 3.0, -254.0, 200.0, 0.0]);
    assert_eq!(stored(&[1.0, 2.0, 4.0], &[1, 0, -1], -1).unwrap(), [0.0, -4.0, 16.0, -128.0, 200.0, 4.0]);
}

#[test]
fn a_scale_is_rounded_where_int8_holds_the_integers() {
    let scale = 0.1f32;
    let found = stored(&[scale], &[0], 1).unwrap()[0];
    assert!(found != scale && found.to_bits() & 0xff == 0, "{found}");
    // 100 + 28 is more than 127: the pack will hold floats, of the scale as it is.
    assert_eq!(stored(&[scale], &[-28], 1).unwrap()[4], 128.0 * scale);
}

#[test]
fn scales_and_zero_points_that_are_none_are_named() {
    let said = |scales: &[f32], zeros: &[i8], axis| stored(scales, zeros, axis).unwrap_err().to_string();
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        let text = said(&[wrong], &[0], 1);
        assert!(
            text.contains("(DequantizeLinear): a scale of")
                && text.contains("expected a normal number above 0"),
            "{text}"
        );
    }
    let text = said(&[1.0, 1.0, 1.0], &[0, 0], 1);
    assert!(text.contains("2 zero points, expected 3, as many as scales"), "{text}");
    let text = said(&[1.0, 1.0], &[0, 0], 1);
    assert!(text.contains("2 scales, expected 3 for integers of shape [2, 3]"), "{text}");
    let text = said(&[1.0, 1.0], &[0, 0], 5);
    assert!(text.contains("axis 5 of a tensor of 2 axes"), "{text}");
}

#[test]
fn blocks_need_scales_of_their_shape() {
    let blocks = |dims: &[usize]| {
        let mut node = node("DequantizeLinear", &["q", "scale"], "w");
        for (name, i) in [("axis", 1), ("block_size", 2)] {
            node.attribute.push(pb::AttributeProto { name: name.into(), i, ..Default::default() });
        }
        let scales = tensor("scale", dims, &[1.0, 2.0, 4.0, 8.0][..dims.iter().product()]);
        let mut graph = graph(vec![node], vec![bytes("q", &[2, 3], &[1; 6]), scales], "w");
        let found = dequantize_all(&mut graph, 17)?;
        assert_eq!((found.weights, found.weights_int8), (1, 0));
        Ok::<_, PackerError>(floats(&graph.initializer[0]).unwrap())
    };
    assert_eq!(blocks(&[2, 2]).unwrap(), [1.0, 1.0, 2.0, 4.0, 4.0, 8.0]);
    let text = blocks(&[2, 1]).unwrap_err().to_string();
    assert!(text.contains("scales of shape [2, 1], expected [2, 2]"), "{text}");
}

#[test]
fn a_pair_around_an_operator_becomes_the_range_of_its_integers() {
    let nodes = vec![
        node("QuantizeLinear", &["x", "scale", "zero"], "q"),
        node("DequantizeLinear", &["q", "scale", "zero"], "a"),
        node("Softmax", &["a"], "b"),
        node("QuantizeLinear", &["b", "scale", "zero"], "r"),
        node("DequantizeLinear", &["r", "scale", "zero"], "y"),
    ];
    let constants = vec![tensor("scale", &[], &[0.5]), bytes("zero", &[], &[-100])];
    let mut graph = graph(nodes, constants, "y");
    let found = dequantize_all(&mut graph, 17).unwrap();
    assert_eq!(found, Quantized { weights: 0, weights_int8: 0, activations: 2 });
    assert_eq!(ops(&graph), ["Max", "Min", "Identity", "Softmax", "Max", "Min", "Identity"]);
    let bound = |name: &str| {
        let found = graph.initializer.iter().find(|i| i.name == name);
        floats(found.unwrap()).unwrap()[0]
    };
    // From (-128 + 100) / 2 to (127 + 100) / 2.
    assert_eq!((bound("q.least"), bound("q.most")), (-14.0, 113.5));
    assert!(!graph.initializer.iter().any(|i| i.name == "zero"), "nobody reads it");
}

/// What becomes of `x`, quantized and floats again as `a`, then `between`, which give `b`, then quantized once more by `scale` and `zero`.
fn twice(between: Vec<pb::NodeProto>, scale: &str, zero: &str) -> (Vec<String>, Vec<String>) {
    let mut nodes = vec![
        node("QuantizeLinear", &["x", "one", "zero"], "q"),
        node("DequantizeLinear", &["q", "one", "zero"], "a"),
    ];
    nodes.extend(between);
    nodes.push(node("QuantizeLinear", &["b", scale, zero], "r"));
    nodes.push(node("DequantizeLinear", &["r", scale, zero], "y"));
    let unsigned = pb::TensorProto {
        name: "unsigned".into(),
        data_type: DataType::Uint8.into(),
        raw_data: vec![0],
        ..Default::default()
    };
    let constants =
        vec![tensor("one", &[], &[1.0]), tensor("two", &[], &[2.0]), bytes("zero", &[], &[0]), unsigned];
    let mut graph = graph(nodes, constants, "y");
    let mut limits: Vec<String> = dequantize(&mut graph, 17).unwrap().limits.into_iter().collect();
    limits.sort_unstable();
    (graph.node.iter().map(|n| n.op_type.clone()).collect(), limits)
}

#[test]
fn what_is_held_to_a_range_is_not_held_to_it_twice() {
    let moved = |op: &str, inputs: &[&str]| vec![node(op, inputs, "b")];
    let held = ["Max", "Min", "Identity"];
    for (between, is_held) in [
        (moved("MaxPool", &["a"]), true),
        (vec![node("Flatten", &["a"], "c"), node("Concat", &["c", "c"], "b")], true),
        // What comes from elsewhere, and what is computed, is not.
        (moved("Concat", &["a", "x"]), false),
        (moved("Concat", &["x", "a"]), false),
        (moved("Neg", &["a"]), false),
        // Integers that are read by another scale are another range.
        (moved("DequantizeLinear", &["q", "two", "zero"]), false),
    ] {
        let named = format!("{between:?}");
        let (ops, limits) = twice(between, "one", "zero");
        let last: Vec<&str> = ops.iter().rev().take(3).rev().map(String::as_str).collect();
        assert_eq!(last == held, !is_held, "{ops:?} {named}");
        assert_eq!(limits.len(), if is_held { 1 } else { 2 }, "{limits:?} {named}");
    }
    // Another scale, or another type of integers, is another range.
    for (scale, zero) in [("two", "zero"), ("one", "unsigned")] {
        let (ops, limits) = twice(moved("MaxPool", &["a"]), scale, zero);
        assert!(ops.ends_with(&held.map(str::to_owned)) && limits.len() == 2, "{ops:?}");
    }
}

#[test]
fn a_circle_of_nodes_ends() {
    let nodes = vec![node("Identity", &["b"], "a"), node("Identity", &["a"], "b")];
    twice(nodes, "one", "zero");
}

#[test]
fn what_a_body_reads_stays_and_what_is_not_known_does_too() {
    let mut branch = node("If", &["c"], "y");
    let body = pb::GraphProto { node: vec![node("Cast", &["q"], "inner")], ..Default::default() };
    branch.attribute.push(pb::AttributeProto {
        name: "then_branch".into(),
        g: Some(body),
        ..Default::default()
    });
    let nodes = vec![
        node("QuantizeLinear", &["x", "scale", "computed"], "p"),
        node("QuantizeLinear", &["x", "scale"], "q"),
        node("Neg", &["p"], "c"),
        branch,
    ];
    let mut graph = graph(nodes, vec![tensor("scale", &[], &[0.5])], "y");
    dequantize_all(&mut graph, 17).unwrap();
    assert_eq!(ops(&graph), ["QuantizeLinear", "Max", "Min", "Div", "Round", "Add", "Cast", "Neg", "If"]);
}

#[test]
fn a_mask_that_is_cast_and_multiplied_is_no_weight() {
    let cast = crate::import::nodes::cast_to(DataType::Float, "n", "mask", "a");
    let constants = vec![bytes("mask", &[1, 4], &[0, 0, 1, 1]), tensor("far", &[], &[-10000.0])];
    let nodes = vec![cast, node("Mul", &["a", "far"], "y")];
    let mut masked = graph(nodes, constants, "y");
    assert_eq!(dequantize_all(&mut masked, 17).unwrap(), Quantized::default());
    assert_eq!(ops(&masked), ["Cast", "Mul"]);
}

/// Weights as Constant nodes, of which exporters make all that there is.
#[test]
fn integers_may_come_from_nodes() {
    let mut constant = node("Constant", &[], "q");
    let value = Some(bytes("", &[1, 4], &[1, 2, 3, 4]));
    constant.attribute.push(pb::AttributeProto { name: "value".into(), t: value, ..Default::default() });
    let cast = crate::import::nodes::cast_to(DataType::Float, "n", "q", "a");
    let nodes = vec![constant, cast, node("Mul", &["scale", "a"], "y")];
    let mut graph = graph(nodes, vec![tensor("scale", &[4], &[1.0, 0.5, 2.0, 4.0])], "y");
    let found = dequantize_all(&mut graph, 17).unwrap();
    assert_eq!(found, Quantized { weights: 1, weights_int8: 1, activations: 0 });
    assert_eq!(floats(&graph.initializer[0]).unwrap(), [1.0, 1.0, 6.0, 16.0]);
}

#[test]
fn operators_of_integers_tell_what_does_not_fit() {
    let with = |bias: &[i64], scales: &[f32], y_scale: &[f32]| {
        let inputs = ["x", "s", "z", "w", "ws", "wz", "ys", "yz", "b"];
        let zeros = |n: usize| bytes("", &[i64::try_from(n).unwrap()], &vec![0; n]);
        let named = |name: &str, t: pb::TensorProto| pb::TensorProto { name: name.into(), ..t };
        let count: usize = bias.iter().product::<i64>().try_into().unwrap();
        let b = pb::TensorProto {
            name: "b".into(),
            dims: bias.to_vec(),
            data_type: DataType::Int32.into(),
            int32_data: vec![7; count],
            ..Default::default()
        };
        let constants = vec![
            tensor("s", &[], &[0.5]),
            bytes("z", &[], &[0]),
            bytes("w", &[2, 1, 1, 1], &[3, 4]),
            tensor("ws", &[scales.len()], scales),
            named("wz", zeros(scales.len())),
            tensor("ys", &[y_scale.len()], y_scale),
            named("yz", zeros(y_scale.len())),
            b,
        ];
        let nodes = vec![
            node("QuantizeLinear", &["image", "s", "z"], "x"),
            node("QLinearConv", &inputs, "q"),
            node("DequantizeLinear", &["q", "ys", "yz"], "y"),
        ];
        let mut graph = graph(nodes, constants, "y");
        dequantize_all(&mut graph, 17).map(|_| ops(&graph).join(" ")).map_err(|e| e.to_string())
    };
    assert_eq!(with(&[2], &[1.0, 2.0], &[1.0]).unwrap(), "Max Min Conv Max Min Identity");
    let wrong = [
        (with(&[3], &[1.0, 2.0], &[1.0]), "3 biases, expected 2, as many as scales"),
        (with(&[2], &[1.0, 2.0, 4.0], &[1.0]), "3 scales, expected 2 for integers of shape [2, 1, 1, 1]"),
        (with(&[2], &[1.0], &[1.0, 1.0]), "a scale for each index of what it gives"),
    ];
    for (found, wanted) in wrong {
        let text = found.unwrap_err();
        assert!(text.contains("(QLinearConv): ") && text.contains(wanted), "{text}");
    }
}

/// A file may have called its own values so.
#[test]
fn names_of_the_file_are_left_to_it() {
    let nodes = vec![
        node("QuantizeLinear", &["q.least", "scale"], "q"),
        node("DequantizeLinear", &["q", "scale"], "a"),
        node("Add", &["a", "q.most"], "q.real"),
    ];
    let constants = vec![tensor("scale", &[], &[0.5]), tensor("q.most", &[], &[7.0])];
    let mut graph = graph(nodes, constants, "q.real");
    dequantize_all(&mut graph, 17).unwrap();
    assert_eq!(ops(&graph), ["Max", "Min", "Identity", "Add"]);
    assert_eq!(graph.node[0].input, ["q.least", "q.least_"]);
    assert_eq!((&graph.node[1].input[1], &graph.node[1].output[0]), (&"q.most_".into(), &"q.real_".into()));
}

/// The type of a result without a zero point is that of the first operand.
#[test]
fn signed_integers_stay_signed_without_a_zero_point() {
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q"),
        node("QLinearAdd", &["q", "s", "z", "q", "s", "z", "s"], "r"),
        node("DequantizeLinear", &["r", "s"], "y"),
    ];
    let mut graph = graph(nodes, vec![tensor("s", &[], &[0.5]), bytes("z", &[], &[0])], "y");
    dequantize_all(&mut graph, 17).unwrap();
    assert_eq!(ops(&graph), ["Max", "Min", "Add", "Max", "Min", "Identity"]);
    let least = graph.initializer.iter().find(|i| i.name == "r.least").unwrap();
    assert_eq!(floats(least).unwrap(), [-64.0]);
}

#[test]
fn a_bias_is_broadcast_before_it_is_scaled() {
    let biases = |dims: &[i64], values: &[i32]| {
        let inputs = ["x", "s", "z", "w", "ws", "wz", "c", "s", "z"];
        let c = pb::TensorProto {
            name: "c".into(),
            dims: dims.to_vec(),
            data_type: DataType::Int32.into(),
            int32_data: values.to_vec(),
            ..Default::default()
        };
        let constants = vec![
            tensor("s", &[], &[1.0]),
            bytes("z", &[], &[0]),
            bytes("w", &[2, 2], &[1, 2, 3, 4]),
            tensor("ws", &[2], &[1.0, 10.0]),
            bytes("wz", &[], &[0]),
            c,
        ];
        let nodes = vec![
            node("QuantizeLinear", &["image", "s", "z"], "x"),
            node("QGemm", &inputs, "q"),
            node("DequantizeLinear", &["q", "s", "z"], "y"),
        ];
        let mut graph = graph(nodes, constants, "y");
        dequantize_all(&mut graph, 17).unwrap();
        let bias = graph.initializer.iter().find(|i| i.name == "q.bias").unwrap();
        (dims_of(bias), floats(bias).unwrap())
    };
    assert_eq!(biases(&[2], &[1, 2]), (vec![2], vec![1.0, 20.0]));
    assert_eq!(biases(&[1], &[3]), (vec![2], vec![3.0, 30.0]));
    assert_eq!(biases(&[2, 1], &[1, 2]), (vec![2, 2], vec![1.0, 10.0, 2.0, 20.0]));
    assert_eq!(biases(&[2, 2], &[1, 2, 3, 4]), (vec![2, 2], vec![1.0, 20.0, 3.0, 40.0]));
}
