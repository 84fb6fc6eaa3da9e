//! Products of one-hot rows: what some exporters write for an embedding.

use super::activation;
use super::shape::{constant, floats, letters, only_taker, other_operand, unnamed};
use crate::planned::{NOT_YET, Planned};
use glowplug_pack::plan::{Activation, Op};
use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cast::Cast;
use tract_core::ops::konst::Const;

pub(super) fn rule(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(([x, w, out], extents)) = letters(model, node)? else { return Ok(None) };
    let Some(table) = constant(model, node.inputs[1]) else { return Ok(None) };
    let ([row, column], [rows @ .., depth]) = (w.as_slice(), x.as_slice()) else { return Ok(None) };
    if row != depth || out != [rows, &[*column]].concat() {
        return Ok(None);
    }
    let Some(indices) = one_hot(model, node.inputs[0], extents[row])? else { return Ok(None) };
    let columns = extents[column];
    let Some(taker) = only_taker(model, node) else { return Ok(None) };
    let Some(bias) = other_operand(taker, "Add", node.id.into()) else { return Ok(None) };
    let Some(shape) = floats(model, taker.id.into())? else { return Ok(None) };
    let is_bias =
        constant(model, bias).is_some_and(|b| b.len() == columns && b.shape().last() == Some(&columns));
    if !is_bias || shape.last() != Some(&columns) || floats(model, node.id.into())?.as_ref() != Some(&shape) {
        return Ok(None);
    }
    let after = activation::after(model, taker.id.into())?;
    let (last, activation) = after.unwrap_or((taker.id, Activation::Identity));
    let table = table.into_tensor().into_shape(&[extents[row], columns])?.into_arc_tensor();
    let mut patch = TypedModelPatch::new(format!("one-hot rows {}", node.name));
    let taps = patch.taps(model, &[indices, bias])?;
    let table_name = model.node(node.inputs[1].node).name.clone();
    let op = Op::OneHotRows { table: NOT_YET, activation };
    let op = Planned { op, weight: Some((table_name, table)), shape };
    let by = patch.wire_node(&node.name, op, &taps)?;
    patch.shunt_outside(model, last.into(), by[0])?;
    Ok(Some(patch))
}

/// The numbers that `outlet` is one-hot rows of: `cast(indices == [0, 1, 2, ..])` along the last axis.
fn one_hot(model: &TypedModel, outlet: OutletId, rows: usize) -> TractResult<Option<OutletId>> {
    let cast = model.node(outlet.node);
    if !cast.op_is::<Cast>() {
        return Ok(None);
    }
    let equal = model.node(cast.inputs[0].node);
    let is_equal = equal.op_as::<TypedBinOp>().is_some_and(|op| op.0.name() == "Eq");
    let [a, b] = *equal.inputs.as_slice() else { return Ok(None) };
    for (indices, numbers) in [(a, b), (b, a)] {
        let fact = model.outlet_fact(indices)?;
        let integers = matches!(fact.datum_type, DatumType::I64 | DatumType::I32);
        let apart = fact.shape.as_concrete().is_some_and(|shape| shape.last() == Some(&1));
        if is_equal && integers && apart && counts(model, numbers, rows)? {
            return Ok(Some(unnamed(model, indices)));
        }
    }
    Ok(None)
}

/// Whether `outlet` is the constant 0, 1, 2 and so on along the last axis.
fn counts(model: &TypedModel, outlet: OutletId, rows: usize) -> TractResult<bool> {
    let Some(constant) = model.node(outlet.node).op_as::<Const>() else { return Ok(false) };
    let value = constant.val();
    if !value.is_plain() || value.len() != rows || value.shape().last() != Some(&rows) {
        return Ok(false);
    }
    let value = value.cast_to::<i64>()?;
    let plain = value.try_as_plain_ram()?;
    Ok(plain.as_slice::<i64>()?.iter().zip(0i64..).all(|(found, wanted)| *found == wanted))
}
