//! The plans of both parts as one: a loop over the images, and what comes after it.

use super::{Wire, Wires};
use glowplug_pack::plan::{
    Body, Fact, Kernel, Node, Op, Outlet, PlanGraph, PlanHead, ScanInput, ScanOutput, ScanSlot, fact_of,
};
use tract_core::internal::{TractResult, bail, ensure};

/// `body` run for each of `images`, then `tail`. Errors: parts that do not fit together.
pub(super) fn join(
    images: usize,
    body: PlanGraph,
    tail: Option<PlanGraph>,
    wires: &Wires,
) -> TractResult<PlanGraph> {
    ensure!(body.bodies.is_empty(), "a loop within a loop");
    let batch = |fact: Option<&Fact>| match fact {
        Some(Fact::Tensor { dtype, shape }) if shape.first() == Some(&1) => {
            let mut shape = shape.clone();
            shape[0] = images;
            Ok(Fact::Tensor { dtype: *dtype, shape })
        }
        found => bail!("{found:?} of one image"),
    };
    let mut nodes = Vec::new();
    for id in &body.inputs {
        let outputs = vec![batch(fact_of(&body.nodes, Outlet { node: *id, slot: 0 }))?];
        nodes.push(Node { name: body.nodes[*id].name.clone(), op: Op::Source, inputs: vec![], outputs });
    }
    let inputs: Vec<usize> = (0..nodes.len()).collect();
    let PlanHead { mut target, tract, inputs: mut ends } = body.head;
    if let Some(tail) = &tail {
        add_target(&mut target, &tail.head.target);
    }
    ends.iter_mut().for_each(|(_, shape)| shape[0] = images);
    let head = PlanHead { target, tract, inputs: ends };
    let slots = 0..body.outputs.len();
    let gathered = |slot| ScanOutput {
        state: false,
        positions: Some(ScanSlot { slot, axis: 0, reverse: false }),
        last: None,
    };
    let scan = Op::Scan {
        body: 0,
        inputs: vec![ScanInput::Position { axis: 0, reverse: false }; inputs.len()],
        outputs: slots.map(gathered).collect(),
    };
    let outputs = body.outputs.iter().map(|o| batch(fact_of(&body.nodes, *o))).collect::<TractResult<_>>()?;
    let operands = inputs.iter().map(|node| Outlet { node: *node, slot: 0 }).collect();
    let mut plan = PlanGraph {
        head,
        kernels: body.kernels,
        bodies: vec![Body { nodes: body.nodes, inputs: body.inputs, outputs: body.outputs }],
        inputs,
        nodes,
        outputs: Vec::new(),
    };
    let scanned = plan.nodes.len();
    plan.nodes.push(Node { name: "image by image".to_owned(), op: scan, inputs: operands, outputs });
    let before = |wire: &Wire| match wire {
        Wire::Input(i) => Ok(Outlet { node: *i, slot: 0 }),
        Wire::Loop(slot) => Ok(Outlet { node: scanned, slot: *slot }),
        Wire::Tail(i) => bail!("output {i} of a part that is not there"),
    };
    let from_tail = match tail {
        Some(tail) => {
            append(&mut plan, tail, &wires.tail.iter().map(before).collect::<TractResult<Vec<_>>>()?)?
        }
        None => Vec::new(),
    };
    let output = |wire: &Wire| match wire {
        Wire::Tail(i) if *i < from_tail.len() => Ok(from_tail[*i]),
        wire => before(wire),
    };
    plan.outputs = wires.outputs.iter().map(output).collect::<TractResult<_>>()?;
    Ok(plan)
}

/// Adds the nodes of `part` to `plan`, its inputs being `operands`; gives where its outputs are.
fn append(plan: &mut PlanGraph, part: PlanGraph, operands: &[Outlet]) -> TractResult<Vec<Outlet>> {
    ensure!(operands.len() == part.inputs.len(), "{} operands for {}", operands.len(), part.inputs.len());
    let bodies = plan.bodies.len();
    let kernels: Vec<usize> = part.kernels.into_iter().map(|k| kernel(&mut plan.kernels, k)).collect();
    let mut places: Vec<Outlet> = Vec::with_capacity(part.nodes.len());
    let moved = |places: &[Outlet], o: &Outlet| match places.get(o.node) {
        Some(place) => Ok(Outlet { node: place.node, slot: place.slot + o.slot }),
        None => bail!("node {} comes later", o.node),
    };
    let renumber = |op: &mut Op| match op {
        Op::MatMul { kernel, .. } => *kernel = kernels[*kernel],
        Op::Scan { body, .. } => *body += bodies,
        _ => {}
    };
    for mut body in part.bodies {
        body.nodes.iter_mut().for_each(|node| renumber(&mut node.op));
        plan.bodies.push(body);
    }
    for (id, mut node) in part.nodes.into_iter().enumerate() {
        if let Some(i) = part.inputs.iter().position(|input| *input == id) {
            places.push(operands[i]);
            continue;
        }
        renumber(&mut node.op);
        for input in &mut node.inputs {
            *input = moved(&places, input)?;
        }
        places.push(Outlet { node: plan.nodes.len(), slot: 0 });
        plan.nodes.push(node);
    }
    part.outputs.iter().map(|o| moved(&places, o)).collect()
}

/// The number of a kernel, which is added where it is not there yet.
fn kernel(kernels: &mut Vec<Kernel>, kernel: Kernel) -> usize {
    kernels.iter().position(|k| *k == kernel).unwrap_or_else(|| {
        kernels.push(kernel);
        kernels.len() - 1
    })
}

/// Adds what `more` needs to what `target` needs.
fn add_target(target: &mut String, more: &str) {
    for isa in more.split('+').filter(|isa| *isa != "generic") {
        if target == "generic" {
            isa.clone_into(target);
        } else if !target.split('+').any(|known| known == isa) {
            target.push('+');
            target.push_str(isa);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_needs_what_both_parts_need() {
        let both = |a: &str, b: &str| {
            let mut target = a.to_owned();
            add_target(&mut target, b);
            target
        };
        assert_eq!(both("x86_64+avx2+fma", "x86_64+fma"), "x86_64+avx2+fma");
        assert_eq!(both("x86_64+fma", "x86_64+avx2"), "x86_64+fma+avx2");
        assert_eq!(both("generic", "x86_64+fma"), "x86_64+fma");
        assert_eq!(both("x86_64", "generic"), "x86_64");
    }
}
