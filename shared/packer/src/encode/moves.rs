//! Operators that move values about without computing.

use super::ops::same;
use super::{Encoded, Encoder};
use glowplug_pack::plan::{Op, PadMode};
use tract_core::internal::*;
use tract_core::ops::array::{self, MultiBroadcastTo, Pad, Slice, TypedConcat};
use tract_core::ops::downsample::Downsample;
use tract_core::ops::nn::resize::NearestUpsample;

pub(super) fn slice<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Slice>()
        .map(|o| Ok(same(node, Op::Slice { axis: o.axis, start: o.start.to_usize()?, step: 1 })))
}

pub(super) fn downsample<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Downsample>().map(|o| {
        let step = usize::try_from(o.stride).with_context(|| format!("a slice by {}", o.stride))?;
        Ok(same(node, Op::Slice { axis: o.axis, start: o.modulo, step }))
    })
}

pub(super) fn concat<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<TypedConcat>().map(|o| Ok(same(node, Op::Concat { axis: o.axis })))
}

pub(super) fn pad<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Pad>().map(|o| {
        let mode = match &o.mode {
            array::PadMode::Constant(value) => PadMode::Constant { value: value.cast_to_scalar::<f32>()? },
            array::PadMode::Reflect => PadMode::Reflect,
            array::PadMode::Edge => PadMode::Edge,
        };
        Ok(same(node, Op::Pad { pads: o.pads.clone(), mode }))
    })
}

pub(super) fn upsample<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<NearestUpsample>().map(|o| Ok(same(node, Op::Upsample { scales: o.scales.to_vec() })))
}

/// tract's broadcast may add leading axes; a plan's repeats axes of 1 only.
pub(super) fn expand<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<MultiBroadcastTo>().map(|o| {
        let mut x = node.inputs[0];
        let shape = e.concrete(x)?;
        if let Some(added) = o.shape.rank().checked_sub(shape.len()).filter(|n| *n > 0) {
            let shape = [&vec![1; added][..], shape].concat();
            x = e.step(&node.name, Op::Reshape, x, &shape)?;
        }
        Ok(Encoded { op: Op::Expand, inputs: tvec![x] })
    })
}
