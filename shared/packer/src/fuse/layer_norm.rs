//! LayerNormalization, which tract's importer takes apart: mean, difference, root mean square, scale, bias.

use super::shape::{constant, floats, only_taker, other_operand, scalar};
use crate::planned::Planned;
use glowplug_pack::plan::Op;
use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::nn::{Reduce, Reducer, RmsNorm};

pub(super) fn rule(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(norm) = node.op_as::<RmsNorm>() else { return Ok(None) };
    let Some(x) = minus_mean(model, node.inputs[0], norm.axis)? else { return Ok(None) };
    let Some(shape) = floats(model, x)? else { return Ok(None) };
    let Some(columns) = shape.last().copied().filter(|_| norm.axis + 1 == shape.len()) else {
        return Ok(None);
    };
    let row = |outlet: OutletId| {
        constant(model, outlet).is_some_and(|c| c.len() == columns && c.shape().last() == Some(&columns))
    };
    let Some(scaled) = only_taker(model, node) else { return Ok(None) };
    let Some(scale) = other_operand(scaled, "Mul", node.id.into()).filter(|s| row(*s)) else {
        return Ok(None);
    };
    let Some(moved) = only_taker(model, scaled) else { return Ok(None) };
    let Some(bias) = other_operand(moved, "Add", scaled.id.into()).filter(|b| row(*b)) else {
        return Ok(None);
    };
    let mut patch = TypedModelPatch::new(format!("layer norm {}", node.name));
    let taps = patch.taps(model, &[x, scale, bias])?;
    let op = Op::LayerNorm { epsilon: norm.eps.cast_to_scalar::<f32>()? };
    let op = Planned { op, weight: None, shape };
    let by = patch.wire_node(&moved.name, op, &taps)?;
    patch.shunt_outside(model, moved.id.into(), by[0])?;
    Ok(Some(patch))
}

/// `x`, where `outlet` is `x - mean(x)` over `axis`.
fn minus_mean(model: &TypedModel, outlet: OutletId, axis: usize) -> TractResult<Option<OutletId>> {
    let difference = model.node(outlet.node);
    let is_sub = difference.op_as::<TypedBinOp>().is_some_and(|op| op.0.name() == "Sub" && op.1.is_none());
    let [x, mean] = *difference.inputs.as_slice() else { return Ok(None) };
    let Some(extent) = floats(model, x)?.and_then(|shape| shape.get(axis).copied()) else { return Ok(None) };
    let mean = model.node(mean.node);
    let sum =
        mean.inputs.iter().find_map(|sum| other_operand(mean, "Mul", *sum).map(|factor| (*sum, factor)));
    let factor = mean.inputs.iter().find_map(|operand| scalar(model, *operand));
    let (Some(_), Some(factor)) = (sum, factor) else { return Ok(None) };
    let sums = mean.inputs.iter().map(|sum| model.node(sum.node));
    let sums_x = sums.into_iter().any(|sum| {
        let over = sum.op_as::<Reduce>().is_some_and(|r| r.reducer == Reducer::Sum && *r.axes == [axis]);
        over && sum.inputs.as_slice() == [x]
    });
    #[allow(clippy::cast_precision_loss, reason = "extents are far below 2^24")]
    let is_mean = (factor * extent as f32 - 1.0).abs() < 1e-6;
    Ok((is_sub && sums_x && is_mean).then_some(x))
}
