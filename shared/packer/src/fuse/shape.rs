//! Where values lie in memory: shapes without their axes of extent 1, and outlets without the operators that only
//! rename axes.

use std::collections::HashMap;
use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::change_axes::AxisOp;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::konst::Const;

/// The extents of an outlet. `None` where they are open, or the values are not f32.
pub(super) fn floats(model: &TypedModel, outlet: OutletId) -> TractResult<Option<TVec<usize>>> {
    let fact = model.outlet_fact(outlet)?;
    if fact.datum_type != DatumType::F32 || !fact.is_plain() {
        return Ok(None);
    }
    Ok(fact.shape.as_concrete().map(Into::into))
}

/// The constant behind an outlet.
pub(super) fn constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    let constant = model.node(outlet.node).op_as::<Const>()?.val().clone();
    (constant.is_plain() && constant.datum_type() == DatumType::F32).then_some(constant)
}

/// The one value that all of a constant has.
pub(super) fn scalar(model: &TypedModel, outlet: OutletId) -> Option<f32> {
    let constant = constant(model, outlet)?;
    let values = constant.try_as_plain_ram().ok()?;
    let (first, rest) = values.as_slice::<f32>().ok()?.split_first()?;
    rest.iter().all(|v| v.to_bits() == first.to_bits()).then_some(*first)
}

/// `outlet` before the operators that name its axes otherwise and leave its values in order.
pub(super) fn unnamed(model: &TypedModel, mut outlet: OutletId) -> OutletId {
    loop {
        let node = model.node(outlet.node);
        match node.op_as::<AxisOp>() {
            Some(AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..)) => outlet = node.inputs[0],
            _ => return outlet,
        }
    }
}

/// The only node that takes the node's one output; `None` where several do, or the model gives it too.
pub(super) fn only_taker<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<&'a TypedNode> {
    let [output] = node.outputs.as_slice() else { return None };
    let [taker] = output.successors.as_slice() else { return None };
    (!model.outputs.contains(&node.id.into())).then(|| model.node(taker.node))
}

/// The other operand of a binary operation called `name` that `from` is an operand of.
pub(super) fn other_operand(node: &TypedNode, name: &str, from: OutletId) -> Option<OutletId> {
    let op = node.op_as::<TypedBinOp>()?;
    let [a, b] = *node.inputs.as_slice() else { return None };
    let fits = op.0.name() == name && op.1.is_none() && a != b;
    if !fits {
        return None;
    }
    if a == from { Some(b) } else { (b == from).then_some(a) }
}

/// One end of an einsum: the letters of its axes in order, without those of extent 1.
pub(super) type Letters = Vec<char>;

/// The ends of a product, and what each letter extends to.
pub(super) type Lettered = ([Letters; 3], HashMap<char, usize>);

/// The letters of both operands and of the output, and what each of them extends to. `None` for other einsums than
/// those of two f32 operands, none of which names a letter twice.
pub(super) fn letters(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Lettered>> {
    let Some(op) = node.op_as::<EinSum>() else { return Ok(None) };
    if op.q_params.is_some() || op.operating_dt != DatumType::F32 || node.inputs.len() != 2 {
        return Ok(None);
    }
    let ends =
        [(InOut::In(0), node.inputs[0]), (InOut::In(1), node.inputs[1]), (InOut::Out(0), node.id.into())];
    let mut extents = HashMap::new();
    let mut letters: [Letters; 3] = Default::default();
    for ((io, outlet), letters) in ends.into_iter().zip(&mut letters) {
        let Some(shape) = floats(model, outlet)? else { return Ok(None) };
        for (axis, extent) in shape.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            let letter = op.axes.axis((io, axis))?.repr;
            if letters.contains(&letter) || extents.insert(letter, *extent).is_some_and(|e| e != *extent) {
                return Ok(None);
            }
            letters.push(letter);
        }
    }
    Ok(Some((letters, extents)))
}

/// How many values the letters stand for.
pub(super) fn extent(extents: &HashMap<char, usize>, letters: &[char]) -> usize {
    letters.iter().map(|l| extents[l]).product()
}
