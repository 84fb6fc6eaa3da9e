//! Nodes of an ONNX graph: how they are made, what their attributes say, who reads what.

use crate::error::{ErrorKind, PackerError};
use std::collections::{HashMap, HashSet};
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

/// Puts nodes behind those whose outputs they read, and leaves them in order else. A circle is cut somewhere.
pub(super) fn sort(graph: &mut pb::GraphProto) {
    let nodes = std::mem::take(&mut graph.node);
    let by_output = |n: usize| nodes[n].output.iter().map(move |output| (output.clone(), n));
    // Absent optional outputs have no name, like absent inputs.
    let named = (0..nodes.len()).flat_map(by_output).filter(|(name, _)| !name.is_empty());
    let makers: HashMap<String, usize> = named.collect();
    let makers_of = |n: usize| {
        let mut read = HashSet::new();
        reads(&nodes[n], &mut read);
        let mut makers: Vec<usize> = read.iter().filter_map(|name| makers.get(name).copied()).collect();
        makers.sort_unstable();
        makers
    };
    let (mut order, mut seen) = (Vec::with_capacity(nodes.len()), vec![false; nodes.len()]);
    for root in 0..nodes.len() {
        // Each with those before it that are still to be looked at.
        let mut path = Vec::new();
        if !std::mem::replace(&mut seen[root], true) {
            path.push((root, makers_of(root)));
        }
        while let Some((n, before)) = path.last_mut() {
            match before.pop() {
                Some(maker) if seen[maker] => {}
                Some(maker) => {
                    seen[maker] = true;
                    path.push((maker, makers_of(maker)));
                }
                None => {
                    order.push(*n);
                    path.pop();
                }
            }
        }
    }
    let mut nodes: Vec<Option<pb::NodeProto>> = nodes.into_iter().map(Some).collect();
    graph.node = order.into_iter().filter_map(|n| nodes[n].take()).collect();
}

/// The names of all values in a graph and the bodies in it.
pub(super) fn names(graph: &pb::GraphProto) -> HashSet<String> {
    let mut found: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    found.extend(graph.input.iter().map(|i| i.name.clone()));
    found.extend(graph.initializer.iter().map(|i| i.name.clone()));
    for node in &graph.node {
        found.extend(node.input.iter().chain(&node.output).cloned());
        let bodies = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
        bodies.for_each(|body| found.extend(names(body)));
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_behind_what_they_read() {
        let node = |op: &str, x: &str, y: &str| plain(op, "n", &[x], y);
        let ops = |nodes: Vec<pb::NodeProto>| {
            let mut graph = pb::GraphProto { node: nodes, ..Default::default() };
            sort(&mut graph);
            graph.node.into_iter().map(|n| n.op_type).collect::<Vec<_>>().concat()
        };
        assert_eq!(
            ops(vec![node("c", "b", "y"), node("d", "x", "z"), node("b", "a", "b"), node("a", "x", "a")]),
            "abcd"
        );
        assert_eq!(ops(vec![node("a", "x", "a"), node("d", "x", "z"), node("b", "a", "b")]), "adb");
        assert_eq!(ops(vec![node("a", "b", "a"), node("b", "a", "b")]), "ba");
        // What is left out belongs to nobody.
        let mut without = node("b", "a", "b");
        without.output.push(String::new());
        let mut optional = node("a", "x", "a");
        optional.input.push(String::new());
        assert_eq!(ops(vec![optional, without]), "ab");
    }
}
