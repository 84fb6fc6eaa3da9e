//! ONNX bytes to a typed tract graph of concrete shapes.
//!
//! The file's own `value_info` and output shapes are ignored: they hold symbols ("N") that contradict a
//! pinned input. Most models analyse with their inputs pinned first; a few only with symbols that are
//! replaced afterwards, so that is tried second.

pub(crate) mod constants;
pub(crate) mod nodes;
mod open;
mod ports;
mod quantized;
mod recurrent;
mod rewrite;

use crate::error::{ErrorKind, PackerError};
use crate::evaluate::InputPort;
use crate::pin::InputPin;
use glowplug_pack::Dtype;
use std::collections::{HashMap, HashSet};
use tract_onnx::Onnx;
use tract_onnx::pb;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

pub(crate) use open::OpenAxis;
use ports::ports;
pub(crate) use ports::{Port, open_where_they_differ, output_ports};
pub(crate) use quantized::Found;
pub use quantized::Quantized;

/// A model that tract understands, every shape known.
pub(crate) struct Imported {
    /// The graph before any analysis, for other shapes than those pinned.
    inference: InferenceModel,
    /// The typed graph as imported: no pass has been over it, so it is the reference of the verification.
    pub(crate) typed: TypedModel,
    /// Its inputs, in order.
    pub(crate) inputs: Vec<Port>,
    /// Its outputs as the file declares them, in order.
    pub(crate) outputs: Vec<pb::ValueInfoProto>,
}

impl Imported {
    /// What its inputs take.
    pub(crate) fn ports(&self) -> Vec<InputPort> {
        let port = |p: &Port| InputPort { name: p.name.clone(), dtype: p.dtype, shape: p.shape() };
        self.inputs.iter().map(port).collect()
    }
}

/// An ONNX file, read and rewritten, to be imported at any shapes.
#[derive(Clone)]
pub(crate) struct Source {
    proto: pb::ModelProto,
    /// Recurrent nodes that run from last to first.
    backward: Vec<String>,
    /// What of it came quantized.
    pub(crate) quantized: Found,
}

impl Source {
    /// Errors: bytes that are no ONNX model; an operator that tract does not know (with the node's name).
    pub(crate) fn read(onnx_bytes: &[u8]) -> Result<Source, PackerError> {
        let onnx = importer();
        let mut proto = parse_proto(&onnx, onnx_bytes)?;
        let opset = proto.opset_import.iter().find(|o| matches!(o.domain.as_str(), "" | "ai.onnx"));
        let opset = opset.map_or(1, |o| o.version);
        let graph = proto.graph.as_mut().ok_or_else(not_onnx)?;
        let quantized = quantized::dequantize(graph, opset)?;
        rewrite::rewrite(graph)?;
        let backward = recurrent::name_backward(graph);
        check_nodes(&onnx, graph)?;
        Ok(Source { proto, backward, quantized })
    }

    #[cfg(test)]
    pub(crate) fn of(proto: pb::ModelProto) -> Source {
        Source { proto, backward: Vec::new(), quantized: Found::default() }
    }

    pub(crate) fn graph(&self) -> Result<&pb::GraphProto, PackerError> {
        self.proto.graph.as_ref().ok_or_else(not_onnx)
    }

    pub(crate) fn graph_mut(&mut self) -> Result<&mut pb::GraphProto, PackerError> {
        self.proto.graph.as_mut().ok_or_else(not_onnx)
    }

    /// The typed graph with `pins` applied.
    ///
    /// Errors: a pin that names no input, or another dtype or extent than the file; an open axis without a pin.
    pub(crate) fn import(&self, pins: &[InputPin]) -> Result<Imported, PackerError> {
        let graph = self.graph()?;
        let inputs = ports(graph, pins)?;
        let model = importer()
            .model_for_proto_model_with_model_template(&self.proto, InferenceModel::default())
            .map_err(|e| PackerError::model("import", &e))?;
        let mut typed = match analyse_pinned(model.clone(), &inputs) {
            Ok(typed) => typed,
            Err(pinned) => {
                tracing::debug!(error = %format!("{pinned:#}"), "analysis with pinned inputs failed, trying symbols");
                analyse_symbolic(model.clone(), &inputs).map_err(|symbolic| {
                    PackerError::new(
                        ErrorKind::Model,
                        format!("shape analysis: {pinned:#}; with symbols instead of pins: {symbolic:#}"),
                    )
                })?
            }
        };
        recurrent::turn_backward(&mut typed, &self.backward)?;
        let typed = with_plain_outputs(typed).map_err(|e| PackerError::model("import", &e))?;
        Ok(Imported { inference: model, typed, inputs, outputs: graph.output.clone() })
    }
}

fn importer() -> Onnx {
    tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true)
}

/// tract computes i64 that come out of a Cast as symbolic extents. Outputs are numbers.
fn with_plain_outputs(mut model: TypedModel) -> TractResult<TypedModel> {
    for i in 0..model.outputs.len() {
        let outlet = model.outputs[i];
        if model.outlet_fact(outlet)?.datum_type == DatumType::TDim {
            let name = format!("{}.i64", model.node(outlet.node).name);
            model.outputs[i] = model.wire_node(name, cast(DatumType::I64), &[outlet])?[0];
        }
    }
    Ok(model)
}

fn not_onnx() -> PackerError {
    PackerError::new(ErrorKind::NotOnnx, "not an ONNX model: no graph with nodes and outputs was found")
}

/// The protobuf message. Almost any bytes are *some* message, so what makes a model is asked for.
fn parse_proto(onnx: &Onnx, mut bytes: &[u8]) -> Result<pb::ModelProto, PackerError> {
    let proto = onnx
        .proto_model_for_read(&mut bytes)
        .map_err(|e| PackerError::new(ErrorKind::NotOnnx, format!("not an ONNX model: {e:#}")))?;
    let graph = proto.graph.as_ref().ok_or_else(not_onnx)?;
    if proto.ir_version <= 0 || graph.node.is_empty() || graph.output.is_empty() {
        return Err(not_onnx());
    }
    Ok(proto)
}

/// Operators that the importer has and gets wrong without saying so.
const WRONG: [(&str, &str); 1] = [(
    "GlobalLpPool",
    "it takes a mean for the sum; export the model with ReduceL2 over the axes behind the second",
)];

/// Every operator known to the importer, every name defined: the importer itself would panic.
fn check_nodes(onnx: &Onnx, graph: &pb::GraphProto) -> Result<(), PackerError> {
    for node in &graph.node {
        if !onnx.op_register.0.contains_key(&node.op_type) {
            let place =
                node.output.first().map_or(&node.name, |o| if node.name.is_empty() { o } else { &node.name });
            return Err(PackerError::new(
                ErrorKind::Unsupported,
                format!(
                    "operator {:?} of node {place:?} is not known to the importer: {}",
                    node.op_type,
                    match node.domain.as_str() {
                        "ai.onnx.ml" =>
                            "export the model as tensor operators (Hummingbird does it for trees)",
                        _ if quantized::is_known(node) =>
                            "its scales and zero points have to be stored in the file, one for all of its result, and \
                             channels have to come first",
                        _ => "export the model without it (a simplifier such as onnxsim often removes it)",
                    }
                ),
            ));
        }
        recurrent::check(node)?;
        if let Some((_, why)) = WRONG.iter().find(|(op, _)| *op == node.op_type) {
            return Err(PackerError::new(
                ErrorKind::Unsupported,
                format!(
                    "node {:?} is a {}, which the importer computes wrongly: {why}",
                    node.name, node.op_type
                ),
            ));
        }
    }
    let defined: HashSet<&str> = (graph.input.iter().map(|i| &*i.name))
        .chain(graph.initializer.iter().map(|i| &*i.name))
        .chain(graph.node.iter().flat_map(|n| n.output.iter().map(|o| &**o)))
        .collect();
    if let Some(o) = graph.output.iter().find(|o| !defined.contains(&*o.name)) {
        return Err(PackerError::new(
            ErrorKind::Model,
            format!("output {:?} is computed by no node", o.name),
        ));
    }
    match graph.node.iter().find(|n| is_quantized_softmax(graph, n)) {
        Some(node) => Err(PackerError::new(
            ErrorKind::Unsupported,
            format!(
                "node {:?} is a Softmax between DequantizeLinear and QuantizeLinear, which the importer computes \
                 wrongly without saying so: export the model with its Softmax left in f32",
                node.name
            ),
        )),
        None => Ok(()),
    }
}

/// Whether `node` is a Softmax whose input comes from a DequantizeLinear and goes to a QuantizeLinear. tract
/// folds the three into one integer operator that saturates.
fn is_quantized_softmax(graph: &pb::GraphProto, node: &pb::NodeProto) -> bool {
    let is = |n: &&pb::NodeProto, op: &str, end: &[String], own: &[String]| {
        n.op_type == op && end.first().is_some_and(|name| own.contains(name))
    };
    node.op_type == "Softmax"
        && graph.node.iter().any(|n| is(&n, "DequantizeLinear", &node.input, &n.output))
        && graph.node.iter().any(|n| is(&n, "QuantizeLinear", &node.output, &n.input))
}

fn tract_type(dtype: Dtype) -> DatumType {
    glowplug_engine::datum_type(dtype)
}

fn analyse_pinned(mut model: InferenceModel, inputs: &[Port]) -> TractResult<TypedModel> {
    for (i, port) in inputs.iter().enumerate() {
        model.set_input_fact(i, InferenceFact::dt_shape(tract_type(port.dtype), port.shape()))?;
    }
    model.into_typed()
}

/// Open axes as symbols (equal names, equal symbols), replaced by their pinned extents afterwards.
fn analyse_symbolic(mut model: InferenceModel, inputs: &[Port]) -> TractResult<TypedModel> {
    let mut values = HashMap::new();
    for (i, port) in inputs.iter().enumerate() {
        let dims: TVec<TDim> = (port.axes.iter().enumerate())
            .map(|(a, axis)| {
                if !axis.symbolic {
                    return axis.size.to_dim();
                }
                let clash =
                    values.get(&model.symbols.sym(&axis.name)).is_some_and(|n| *n != axis.size.to_dim());
                let name = if clash || axis.name == format!("d{a}") {
                    format!("input{i}_axis{a}")
                } else {
                    axis.name.clone()
                };
                let symbol = model.symbols.sym(&name);
                values.insert(symbol.clone(), axis.size.to_dim());
                symbol.to_dim()
            })
            .collect();
        model.set_input_fact(i, InferenceFact::dt_shape(tract_type(port.dtype), dims))?;
    }
    model.into_typed()?.set_symbols(&values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::InputPins;

    fn node(op_type: &str, input: &str, output: &str) -> pb::NodeProto {
        pb::NodeProto {
            op_type: op_type.into(),
            name: format!("{op_type} node"),
            input: vec![input.into()],
            output: vec![output.into()],
            ..Default::default()
        }
    }

    fn check(nodes: &[(&str, &str, &str)], output: &str) -> Result<(), PackerError> {
        let graph = pb::GraphProto {
            node: nodes.iter().map(|(op, from, to)| node(op, from, to)).collect(),
            output: vec![pb::ValueInfoProto { name: output.into(), ..Default::default() }],
            ..Default::default()
        };
        check_nodes(&tract_onnx::onnx(), &graph)
    }

    #[test]
    fn symbols_are_replaced_by_what_was_pinned() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/models/mnist-cnn.onnx");
        let onnx = importer();
        let proto = parse_proto(&onnx, &std::fs::read(file).unwrap()).unwrap();
        let inputs =
            ports(proto.graph.as_ref().unwrap(), &"image=f32[3,1,28,28]".parse::<InputPins>().unwrap().pins)
                .unwrap();
        let model =
            onnx.model_for_proto_model_with_model_template(&proto, InferenceModel::default()).unwrap();
        let typed = analyse_symbolic(model.clone(), &inputs).unwrap();
        assert_eq!(typed.output_fact(0).unwrap().shape.as_concrete(), Some(&[3, 10][..]));
    }

    #[test]
    fn graphs_that_would_go_wrong_silently_or_panic_are_refused() {
        let quantized = [("DequantizeLinear", "x", "a"), ("Softmax", "a", "b"), ("QuantizeLinear", "b", "c")];
        let e = check(&quantized, "c").unwrap_err();
        assert!(e.to_string().contains("\"Softmax node\" is a Softmax between"), "{e}");
        assert!(check(&quantized[..2], "b").is_ok());
        let e = check(&quantized[..2], "z").unwrap_err();
        assert!(e.to_string().contains("output \"z\" is computed by no node"), "{e}");
    }
}
