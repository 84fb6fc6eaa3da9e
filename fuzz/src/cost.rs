//! Which plans are small enough that a fuzzer gets on.

use crate::window_of;
use glowplug_pack::plan::{Fact, Node, Op, Operand, PlanGraph, ScanInput, Window, fact_of};
use glowplug_pack::{Form, Pack, WeightId, element_count};

/// The most values that all nodes may give together, and about the most multiplications.
const MOST: usize = 2 << 20;

/// Whether a run of `graph` takes milliseconds and megabytes.
pub fn is_small(graph: &PlanGraph, pack: &Pack) -> bool {
    let cost = |nodes: &[Node]| nodes.iter().map(|n| node(pack, nodes, n)).fold(0, usize::saturating_add);
    let loops = graph.nodes.iter().map(|n| {
        let Op::Scan { body, inputs, .. } = &n.op else { return 0 };
        let positions =
            inputs.iter().zip(&n.inputs).find_map(|(from, outlet)| match (from, graph.fact(*outlet)?) {
                (ScanInput::Position { axis, .. }, Fact::Tensor { shape, .. }) => shape.get(*axis).copied(),
                _ => None,
            });
        let body = graph.bodies.get(*body).map_or(0, |b| cost(&b.nodes).saturating_add(b.nodes.len() * 64));
        body.saturating_mul(positions.unwrap_or(1))
    });
    loops.fold(cost(&graph.nodes), usize::saturating_add) <= MOST
}

/// Multiplications of one of `nodes`, and values that it reads, lays out and gives.
fn node(pack: &Pack, nodes: &[Node], node: &Node) -> usize {
    let operands: Vec<&Fact> = node.inputs.iter().filter_map(|o| fact_of(nodes, *o)).collect();
    let read = operands.iter().map(|f| values(f)).fold(0, usize::saturating_add);
    let given = node.outputs.iter().map(values).fold(0, usize::saturating_add);
    let laid_out = match (window_of!(&node.op), operands.first()) {
        (Some(w), Some(Fact::Tensor { shape, .. })) => seen(w, shape),
        _ => 0,
    };
    let each = match &node.op {
        Op::MatMul { a, b, .. } => depth(pack, a, &operands).max(depth(pack, b, &operands)),
        Op::Dense { weight, .. }
        | Op::BlockedConv { kernel: weight, .. }
        | Op::Int8Conv { kernel: weight, .. } => depth_of(pack, *weight),
        Op::DirectConv { kernel, .. } => match pack.weight(*kernel).map(|w| &w.form) {
            Ok(Form::Plain { shape, .. }) => element_count(shape).unwrap_or(usize::MAX),
            _ => 1,
        },
        Op::Attention { keys, .. } => keys.saturating_mul(4),
        Op::Chain { steps } => steps.len() + 1,
        op => window_of!(op).map_or(1, |w: &Window| w.kernel.0.saturating_mul(w.kernel.1)),
    };
    // A node takes its time whatever its size.
    given.saturating_mul(each).saturating_add(read).saturating_add(laid_out).saturating_add(64)
}

fn values(fact: &Fact) -> usize {
    match fact {
        Fact::Tensor { shape, .. } => element_count(shape).unwrap_or(usize::MAX),
        Fact::Panels { format, batch, k, mn } => {
            let columns = mn.div_ceil(format.r.max(1)).saturating_mul(format.r);
            let one = k.saturating_add(format.end_padding).saturating_mul(columns);
            element_count(batch).unwrap_or(usize::MAX).saturating_mul(one)
        }
    }
}

fn depth(pack: &Pack, operand: &Operand, operands: &[&Fact]) -> usize {
    match operand {
        Operand::Weight { weight } => depth_of(pack, *weight),
        Operand::Input { index, .. } => match operands.get(*index) {
            Some(Fact::Panels { k, .. }) => *k,
            _ => 1,
        },
    }
}

fn depth_of(pack: &Pack, weight: WeightId) -> usize {
    match pack.weight(weight).map(|w| &w.form) {
        Ok(Form::Panels { k, .. }) => *k,
        Ok(Form::EncodedPanels { panel, .. }) => panel.k,
        _ => 1,
    }
}

/// How many values of an input of `shape` the windows reach, with their padding.
fn seen(w: &Window, shape: &[usize]) -> usize {
    let reach = |output: usize, stride: usize, kernel: usize, dilation: usize| {
        let first = (output - 1).saturating_mul(stride);
        first.saturating_add((kernel - 1).saturating_mul(dilation)).saturating_add(1)
    };
    let rows = reach(w.output.0, w.strides.0, w.kernel.0, w.dilations.0);
    let columns = reach(w.output.1, w.strides.1, w.kernel.1, w.dilations.1);
    let channels =
        shape.iter().rev().skip(2).product::<usize>().saturating_mul(shape.last().copied().unwrap_or(1));
    rows.saturating_mul(columns).saturating_mul(channels.min(64))
}
