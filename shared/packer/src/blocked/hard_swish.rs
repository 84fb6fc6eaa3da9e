//! HardSwish written out: `x * min(max(x + 3, 0), 6)`, mostly over 6, as exporters for older operator sets leave it.

use super::conv::{f32_constant, scalar};
use crate::encode::ops::binary_op;
use glowplug_pack::plan::BinaryOp;
use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::math;
use tract_core::ops::nn::hard_swish;

/// Makes one operator of each such group. Its other nodes are left without a reader, where they had no other.
pub(super) fn recognise(model: &mut TypedModel) -> TractResult<()> {
    let found: Vec<(usize, OutletId)> =
        (0..model.nodes.len()).filter_map(|id| Some((id, argument(model, model.node(id))?))).collect();
    for (id, x) in found {
        let mut patch = TypedModelPatch::new("hard swish");
        let x = patch.tap_model(model, x)?;
        let name = model.node(id).name.clone();
        let gated = patch.wire_node(format!("{name}.gated"), hard_swish(), &[x])?[0];
        let rank = patch.outlet_fact(gated)?.rank();
        let six = patch.add_const(format!("{name}.six"), tensor0(6f32).broadcast_into_rank(rank)?)?;
        let new = patch.wire_node(name, math::mul(), &[gated, six])?[0];
        patch.shunt_outside(model, OutletId::new(id, 0), new)?;
        patch.apply(model)?;
    }
    Ok(())
}

/// What the group that ends in `node` is applied to.
fn argument(model: &TypedModel, node: &TypedNode) -> Option<OutletId> {
    let &[a, b] = behind(model, node.id.into(), BinaryOp::Mul)?.inputs.as_slice() else { return None };
    let gated = |x: OutletId, gate: OutletId| {
        let (capped, most) = with_constant(model, behind(model, gate, BinaryOp::Min)?, BinaryOp::Min)?;
        let (held, least) = with_constant(model, behind(model, capped, BinaryOp::Max)?, BinaryOp::Max)?;
        let (inner, three) = with_constant(model, behind(model, held, BinaryOp::Add)?, BinaryOp::Add)?;
        let wanted = (most, least, three) == (6.0, 0.0, 3.0) && inner == x;
        wanted.then_some(x)
    };
    gated(a, b).or_else(|| gated(b, a))
}

/// The node behind an outlet, if it is that operation.
fn behind(model: &TypedModel, outlet: OutletId, op: BinaryOp) -> Option<&TypedNode> {
    let node = model.node(outlet.node);
    let TypedBinOp(mini, None) = node.op_as::<TypedBinOp>()? else { return None };
    binary_op(&**mini).is_ok_and(|found| found == op).then_some(node)
}

/// The operand and the constant of `node`, if it is that operation with one value.
fn with_constant(model: &TypedModel, node: &TypedNode, op: BinaryOp) -> Option<(OutletId, f32)> {
    behind(model, node.id.into(), op)?;
    let &[a, b] = node.inputs.as_slice() else { return None };
    let value = |o: OutletId| f32_constant(model, o).filter(|c| c.len() == 1).and_then(|c| scalar(&c));
    value(b).map(|v| (a, v)).or_else(|| value(a).map(|v| (b, v)))
}
