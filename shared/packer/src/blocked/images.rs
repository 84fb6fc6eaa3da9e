//! What moves or gathers the positions of an image, every channel alike.

use super::{Blocked, Blocker};
use crate::encode::window;
use glowplug_pack::plan::{CHANNEL_BLOCK, Op as PlanOp};
use tract_core::internal::*;
use tract_core::ops::array::TypedConcat;
use tract_core::ops::cnn::{MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_core::ops::nn::{DataFormat, NearestUpsample, Reduce, Reducer};

pub(super) fn pool(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let (spec, average): (&PoolSpec, _) = if let Some(pool) = node.op_as::<MaxPool>() {
        if pool.with_index_outputs.is_some() {
            return Ok(None);
        }
        (&pool.pool_spec, None)
    } else if let Some(pool) = node.op_as::<SumPool>() {
        let overhang = matches!(pool.pool_spec.padding, PaddingSpec::ExplicitOnnxPool(_, _, true));
        if !pool.normalize || (overhang && pool.count_include_pad) {
            return Ok(None);
        }
        (&pool.pool_spec, Some(pool.count_include_pad))
    } else {
        return Ok(None);
    };
    let Some(image) = b.blocked(node.inputs[0]) else { return Ok(None) };
    if spec.kernel_shape.len() != 2 || !matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW) {
        return Ok(None);
    }
    let fact = b.from.outlet_fact(node.inputs[0])?;
    let Some(input) = fact.shape.as_concrete() else { return Ok(None) };
    let window = window(spec, input)?;
    let op = match average {
        None => PlanOp::MaxPool { window },
        Some(count_include_pad) => PlanOp::AveragePool { window, count_include_pad },
    };
    let mut shape = b.shape(image.outlet)?;
    (shape[2], shape[3]) = window.output;
    let outlet = b.planned(&node.name, op, None, &[image.outlet], shape)?;
    given(b, node, outlet, image.axis)
}

pub(super) fn reduce(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let Some(op) = node.op_as::<Reduce>() else { return Ok(None) };
    let Some(image) = b.blocked(node.inputs[0]) else { return Ok(None) };
    let mut axes: TVec<usize> = op.axes.clone();
    axes.sort_unstable();
    if *axes != [image.axis + 1, image.axis + 2] || !matches!(op.reducer, Reducer::Sum | Reducer::Max) {
        return Ok(None);
    }
    let op = Reduce { axes: tvec![2, 3], reducer: op.reducer };
    let outlet = b.to.wire_node(&node.name, op, &[image.outlet])?[0];
    given(b, node, outlet, image.axis)
}

/// Extents of 1 that come and go.
pub(super) fn ones(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let Some(op) = node.op_as::<AxisOp>() else { return Ok(None) };
    let Some(image) = b.blocked(node.inputs[0]) else { return Ok(None) };
    let axis = match *op {
        AxisOp::Add(at) => image.axis + usize::from(at <= image.axis),
        AxisOp::Rm(at) if at != image.axis => image.axis - usize::from(at < image.axis),
        _ => return Ok(None),
    };
    given(b, node, image.outlet, axis)
}

/// What `node` gives, found in blocks at `outlet`.
fn given(b: &Blocker<'_>, node: &TypedNode, outlet: OutletId, axis: usize) -> TractResult<Option<Blocked>> {
    let fact = b.from.outlet_fact(node.id.into())?;
    Ok(fact.shape.as_concrete().map(|plain| Blocked { outlet, plain: plain.into(), axis }))
}

pub(super) fn concat(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let Some(op) = node.op_as::<TypedConcat>() else { return Ok(None) };
    let images: Option<TVec<Blocked>> = node.inputs.iter().map(|o| b.blocked(*o)).collect();
    let Some(images) = images else { return Ok(None) };
    let whole = |i: &Blocked| i.channels().is_multiple_of(CHANNEL_BLOCK) && i.axis == op.axis;
    if !images.iter().all(whole) {
        return Ok(None);
    }
    let outlets: TVec<OutletId> = images.iter().map(|i| i.outlet).collect();
    let outlet = b.to.wire_node(&node.name, TypedConcat { axis: 1 }, &outlets)?[0];
    given(b, node, outlet, op.axis)
}

pub(super) fn upsample(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let Some(op) = node.op_as::<NearestUpsample>() else { return Ok(None) };
    let Some(image) = b.blocked(node.inputs[0]) else { return Ok(None) };
    let [before @ .., h, w] = &*op.scales else { return Ok(None) };
    if before.iter().any(|s| *s != 1) {
        return Ok(None);
    }
    let scales = tvec![1, 1, *h, *w, 1];
    let outlet = b.to.wire_node(&node.name, NearestUpsample { scales }, &[image.outlet])?[0];
    given(b, node, outlet, image.axis)
}
