//! Several plans over one set of weights: each weight is stored once, in the form that the default plan reads.
//!
//! tract chooses a kernel for each product by its shape, and kernels differ in how they want the left side cut. A
//! plan for another shape would bring a second copy of every weight whose product it gives to another kernel. It is
//! given to the default plan's kernel instead, which costs a few per cent of the product and halves the pack.

use crate::error::PackerError;
use glowplug_pack::plan::{Fact, Kernel, Node, Op, Operand, PanelFormat, PlanGraph};
use glowplug_pack::{Form, PackBuilder, PackError, Weight, WeightId};
use std::collections::HashMap;

/// A matrix whatever its panels: its content, depth and rows.
type Matrix = (blake3::Hash, usize, usize);

/// How the default plan reads each matrix.
#[derive(Default)]
pub(crate) struct Known {
    forms: HashMap<Matrix, (WeightId, Kernel)>,
}

impl Known {
    /// The matrices of the default `plan`.
    pub(crate) fn of(plan: &PlanGraph, builder: &PackBuilder) -> Result<Known, PackError> {
        let mut known = Known::default();
        for node in &plan.nodes {
            if let Some((kernel, id)) = left_weight(node)
                && let Some(matrix) = matrix(builder, id)?
                && let Some(kernel) = plan.kernels.get(kernel)
            {
                known.forms.entry(matrix).or_insert_with(|| (id, kernel.clone()));
            }
        }
        Ok(known)
    }
}

/// The kernel and the left side of a product with one weight.
fn left_weight(node: &Node) -> Option<(usize, WeightId)> {
    match &node.op {
        Op::MatMul { kernel, a: Operand::Weight { weight }, .. } => Some((*kernel, *weight)),
        _ => None,
    }
}

/// What a weight in panels holds.
fn matrix(builder: &PackBuilder, id: WeightId) -> Result<Option<Matrix>, PackError> {
    let weight = usize::try_from(id.0).ok().and_then(|i| builder.weights().get(i));
    let Some(Weight { form: Form::Panels { dtype, k, mn, r, panel_bytes }, .. }) = weight else {
        return Ok(None);
    };
    let bytes = builder.weight_bytes(id)?;
    let size = dtype.size();
    let mut hasher = blake3::Hasher::new();
    for row in 0..*mn {
        let panel = &bytes[row / r * panel_bytes..];
        let column = (0..*k).map(|depth| &panel[(depth * r + row % r) * size..][..size]);
        let values: Vec<u8> = column.flatten().copied().collect();
        hasher.update(&values);
    }
    Ok(Some((hasher.finalize(), *k, *mn)))
}

/// Adds `plan`, whose weights are in `from`, to `into`, its products in the forms of `known` where they can be.
pub(crate) fn add(
    mut plan: PlanGraph,
    from: &PackBuilder,
    known: &Known,
    into: &mut PackBuilder,
) -> Result<PlanGraph, PackerError> {
    let swaps = swaps(&plan, from, known)?;
    let mut moved = HashMap::new();
    let kept = |node: usize| swaps.iter().all(|s| s.product != node);
    let mut ids = Vec::new();
    for (index, node) in plan.nodes.iter_mut().enumerate() {
        if kept(index) {
            ids.extend(node.op.weights_mut());
        }
    }
    ids.extend(plan.bodies.iter_mut().flat_map(|b| &mut b.nodes).flat_map(|n| n.op.weights_mut()));
    for id in ids {
        let new = match moved.get(id) {
            Some(new) => *new,
            None => {
                let weight = &from.weights()[id.0 as usize];
                into.weight(&weight.name, weight.place, weight.form.clone(), from.weight_bytes(*id)?)?
            }
        };
        moved.insert(*id, new);
        *id = new;
    }
    for swap in swaps {
        swap.apply(&mut plan);
    }
    drop_unused_kernels(&mut plan);
    Ok(plan)
}

/// A product that changes its kernel.
struct Swap {
    product: usize,
    /// What makes its right side.
    right: usize,
    weight: WeightId,
    kernel: Kernel,
}

impl Swap {
    fn apply(self, plan: &mut PlanGraph) {
        let kernel = plan.kernels.iter().position(|k| *k == self.kernel).unwrap_or_else(|| {
            plan.kernels.push(self.kernel.clone());
            plan.kernels.len() - 1
        });
        if let Op::MatMul { kernel: used, a, .. } = &mut plan.nodes[self.product].op {
            (*used, *a) = (kernel, Operand::Weight { weight: self.weight });
        }
        let right = &mut plan.nodes[self.right];
        if let (
            Op::Prepack { format, .. } | Op::Im2col { format, .. },
            [Fact::Panels { format: given, .. }],
        ) = (&mut right.op, right.outputs.as_mut_slice())
        {
            (*format, *given) = (self.kernel.b, self.kernel.b);
        }
    }
}

/// The products of `plan` whose weight the default plan reads in another form. All that share a right side change
/// together, or none does.
fn swaps(plan: &PlanGraph, from: &PackBuilder, known: &Known) -> Result<Vec<Swap>, PackError> {
    let mut by_right: HashMap<usize, Vec<Option<Swap>>> = HashMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        for input in &node.inputs {
            if matches!(plan.nodes[input.node].op, Op::Prepack { .. } | Op::Im2col { .. }) {
                let swap = swap(plan, from, known, index)?.filter(|s| s.right == input.node);
                by_right.entry(input.node).or_default().push(swap);
            }
        }
    }
    let format = |s: &Swap| -> PanelFormat { s.kernel.b };
    let agreed = by_right.into_values().filter_map(|group| {
        let group: Vec<Swap> = group.into_iter().collect::<Option<_>>()?;
        let first = group.first().map(format)?;
        group.iter().all(|s| format(s) == first).then_some(group)
    });
    Ok(agreed.flatten().collect())
}

fn swap(
    plan: &PlanGraph,
    from: &PackBuilder,
    known: &Known,
    product: usize,
) -> Result<Option<Swap>, PackError> {
    let node = &plan.nodes[product];
    let (Some((_, id)), Op::MatMul { b: Operand::Input { index, .. }, .. }) = (left_weight(node), &node.op)
    else {
        return Ok(None);
    };
    let (Some(right), Some(matrix)) = (node.inputs.get(*index), matrix(from, id)?) else { return Ok(None) };
    let found = known.forms.get(&matrix);
    Ok(found.map(|(weight, kernel)| Swap {
        product,
        right: right.node,
        weight: *weight,
        kernel: kernel.clone(),
    }))
}

/// Kernels that no product calls any more: a CPU without them would refuse the plan for nothing.
fn drop_unused_kernels(plan: &mut PlanGraph) {
    let bodies = plan.bodies.iter_mut().flat_map(|b| &mut b.nodes);
    let mut used: Vec<&mut usize> = bodies
        .chain(&mut plan.nodes)
        .filter_map(|n| match &mut n.op {
            Op::MatMul { kernel, .. } => Some(kernel),
            _ => None,
        })
        .collect();
    let mut kept = Vec::new();
    for index in &mut used {
        let kernel = plan.kernels[**index].clone();
        **index = kept.iter().position(|k| *k == kernel).unwrap_or_else(|| {
            kept.push(kernel);
            kept.len() - 1
        });
    }
    plan.kernels = kept;
}
