//! Recurrent operators: the importer passes over some of their attributes without saying so.
//!
//! | attribute | here |
//! |---|---|
//! | `direction` = reverse | the loop that the importer makes is turned round |
//! | `activations` other than the defaults, `clip`, `input_forget` | refused |

use crate::error::{ErrorKind, PackerError};
use tract_onnx::pb;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::scan::{InputMapping, OutputMapping, Scan};

/// The activations of one direction that ONNX assumes; nothing where the operator is not recurrent.
fn default_activations(op: &str) -> Option<&'static [&'static str]> {
    match op {
        "LSTM" => Some(&["Sigmoid", "Tanh", "Tanh"]),
        "GRU" => Some(&["Sigmoid", "Tanh"]),
        "RNN" => Some(&["Tanh"]),
        _ => None,
    }
}

fn attribute<'a>(node: &'a pb::NodeProto, name: &str) -> Option<&'a pb::AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn unsupported(node: &pb::NodeProto, what: &str) -> PackerError {
    let text = format!(
        "node {:?} ({}) has {what}, which the importer would compute wrongly without saying so: export the model \
         with the operator's defaults, or with its steps written out",
        node.name, node.op_type
    );
    PackerError::new(ErrorKind::Unsupported, text)
}

/// Errors: a recurrent operator with an attribute that would be passed over, with the node's name.
pub(super) fn check(node: &pb::NodeProto) -> Result<(), PackerError> {
    let Some(defaults) = default_activations(&node.op_type) else { return Ok(()) };
    let mut usual = defaults.iter().cycle();
    let found = attribute(node, "activations").map_or(&[][..], |a| a.strings.as_slice());
    if !found.iter().all(|name| usual.next().is_some_and(|u| name.eq_ignore_ascii_case(u.as_bytes()))) {
        return Err(unsupported(node, "activations of its own"));
    }
    if attribute(node, "clip").is_some() {
        return Err(unsupported(node, "a clip"));
    }
    if attribute(node, "input_forget").is_some_and(|a| a.i != 0) {
        return Err(unsupported(node, "an input gate coupled to its forget gate"));
    }
    Ok(())
}

/// Gives every recurrent node that runs from the last position to the first a name of its own; the names.
pub(super) fn name_backward(graph: &mut pb::GraphProto) -> Vec<String> {
    let backward = |n: &pb::NodeProto| {
        default_activations(&n.op_type).is_some()
            && attribute(n, "direction").is_some_and(|a| a.s.eq_ignore_ascii_case(b"reverse"))
    };
    let nodes = graph.node.iter_mut().enumerate().filter(|(_, n)| backward(n));
    nodes
        .map(|(index, node)| {
            node.name = format!("{}.backward{index}", node.name);
            node.name.clone()
        })
        .collect()
}

/// Turns round the loops called `names`. Errors: the importer made something else of one of them.
pub(super) fn turn_backward(model: &mut TypedModel, names: &[String]) -> Result<(), PackerError> {
    for name in names {
        let found = model.nodes.iter_mut().find(|n| n.name == *name).and_then(|n| n.op_as_mut::<Scan>());
        let Some(scan) = found else {
            let text = format!("node {name:?} runs from last to first, and the importer made no loop of it");
            return Err(PackerError::new(ErrorKind::Unsupported, text));
        };
        for mapping in &mut scan.input_mapping {
            if let InputMapping::Scan(info) = mapping {
                info.chunk = -info.chunk;
            }
        }
        for OutputMapping { scan, .. } in &mut scan.output_mapping {
            if let Some((_, info)) = scan {
                info.chunk = -info.chunk;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lstm(attribute: pb::AttributeProto) -> pb::NodeProto {
        let attribute = vec![attribute];
        pb::NodeProto { op_type: "LSTM".into(), name: "l".into(), attribute, ..Default::default() }
    }

    fn activations(names: &[&str]) -> pb::NodeProto {
        let strings = names.iter().map(|n| n.as_bytes().to_vec()).collect();
        lstm(pb::AttributeProto { name: "activations".into(), strings, ..Default::default() })
    }

    #[test]
    fn attributes_that_would_be_passed_over_are_refused() {
        let usual = ["Sigmoid", "tanh", "Tanh", "Sigmoid", "Tanh", "Tanh"];
        assert!(check(&activations(&usual)).is_ok() && check(&activations(&usual[..3])).is_ok());
        let forget = pb::AttributeProto { name: "input_forget".into(), i: 1, ..Default::default() };
        let clip = pb::AttributeProto { name: "clip".into(), f: 3.0, ..Default::default() };
        for (node, what) in [
            (activations(&["Sigmoid", "Relu", "Tanh"]), "activations of its own"),
            (lstm(clip), "a clip"),
            (lstm(forget), "coupled"),
        ] {
            let e = check(&node).unwrap_err();
            assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains(what), "{e}");
        }
    }

    #[test]
    fn backward_nodes_are_named_and_must_have_become_loops() {
        let direction = |s: &str| pb::AttributeProto {
            name: "direction".into(),
            s: s.as_bytes().to_vec(),
            ..Default::default()
        };
        let node = vec![lstm(direction("forward")), lstm(direction("reverse"))];
        let mut graph = pb::GraphProto { node, ..Default::default() };
        let names = name_backward(&mut graph);
        assert_eq!(names, ["l.backward1"]);
        let e = turn_backward(&mut TypedModel::default(), &names).unwrap_err();
        assert!(e.to_string().contains("made no loop of it"), "{e}");
    }
}
