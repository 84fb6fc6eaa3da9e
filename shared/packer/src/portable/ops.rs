//! tract's simplified operators as portable ones: one row each.

use super::encode::Encoder;
use crate::encode::dtype;
use crate::encode::ops::{binary_op, comparison, function, logical, reducer, unary_op};
use glowplug_pack::plan::PadMode;
use glowplug_pack::portable::{KernelLayout, Layout, Op, Padding, Pool};
use tract_core::internal::*;
use tract_core::ops::array::{Gather, MultiBroadcastTo, Pad, PadMode as TractPadMode, Slice, TypedConcat};
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cast::Cast;
use tract_core::ops::cnn::{Conv, Deconv, KernelFormat, MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_core::ops::downsample::Downsample;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::logic;
use tract_core::ops::lstm_cell::LstmEpilogue;
use tract_core::ops::nn::{DataFormat, NearestUpsample, Reduce, RmsNorm, Softmax, SoftmaxKind};
use tract_core::ops::source::TypedSource;

/// The operator of a node, `None` where there is none for it. Errors: one whose attributes are not covered.
pub(super) fn op(e: &mut Encoder, node: &TypedNode, inputs: &[&TypedFact]) -> TractResult<Option<Op>> {
    for row in [window, elementwise, reduction, matrix] {
        if let Some(op) = row(node, inputs)? {
            return Ok(Some(op));
        }
    }
    moved(e, node)
}

fn window(node: &TypedNode, _: &[&TypedFact]) -> TractResult<Option<Op>> {
    Ok(Some(if let Some(o) = node.op_as::<Conv>() {
        ensure!(o.q_params.is_none(), "a quantized convolution");
        Op::Conv { pool: pool(&o.pool_spec), kernel: kernel(o.kernel_fmt), group: o.group }
    } else if let Some(o) = node.op_as::<Deconv>() {
        let (pool, kernel) = (pool(&o.pool_spec), kernel(o.kernel_format));
        Op::ConvTranspose { pool, kernel, adjustments: o.adjustments.to_vec(), group: o.group }
    } else if let Some(o) = node.op_as::<MaxPool>() {
        ensure!(o.with_index_outputs.is_none(), "indices of the largest values");
        Op::MaxPool { pool: pool(&o.pool_spec) }
    } else if let Some(o) = node.op_as::<SumPool>() {
        let (count_include_pad, normalize) = (o.count_include_pad, o.normalize);
        Op::AveragePool { pool: pool(&o.pool_spec), count_include_pad, normalize }
    } else {
        return Ok(None);
    }))
}

fn elementwise(node: &TypedNode, _: &[&TypedFact]) -> TractResult<Option<Op>> {
    Ok(Some(if let Some(o) = node.op_as::<TypedBinOp>() {
        ensure!(o.1.is_none(), "a binary operation with a type of its own");
        match (comparison(&*o.0), logical(&*o.0)) {
            (Some(op), _) => Op::Compare { op },
            (None, Some(op)) => Op::Logic { op },
            (None, None) => Op::Binary { op: binary_op(&*o.0)? },
        }
    } else if let Some(o) = node.op_as::<ElementWiseOp>() {
        ensure!(o.1.is_none(), "an elementwise operation with a type of its own");
        match function(o) {
            Some(op) => Op::Function { op },
            None => Op::Unary { op: unary_op(o)? },
        }
    } else if let Some(o) = node.op_as::<Cast>() {
        Op::Cast { to: dtype(o.to)? }
    } else if node.op_is::<logic::Iff>() {
        Op::Where
    } else if let Some(o) = node.op_as::<LstmEpilogue>() {
        Op::LstmCell { hidden: o.hidden }
    } else if node.op_is::<TypedSource>() {
        Op::Source
    } else {
        return Ok(None);
    }))
}

fn reduction(node: &TypedNode, _: &[&TypedFact]) -> TractResult<Option<Op>> {
    Ok(Some(if let Some(o) = node.op_as::<Reduce>() {
        Op::Reduce { axes: o.axes.to_vec(), reducer: reducer(o.reducer)? }
    } else if let Some(o) = node.op_as::<Softmax>() {
        ensure!(o.quant_output_dt.is_none(), "a quantized softmax");
        Op::Softmax { axes: o.axes.to_vec(), log: o.kind == SoftmaxKind::LogSoftmax }
    } else if let Some(o) = node.op_as::<RmsNorm>() {
        Op::RmsNorm { axis: o.axis, epsilon: o.eps.cast_to_scalar::<f32>()? }
    } else {
        return Ok(None);
    }))
}

fn matrix(node: &TypedNode, inputs: &[&TypedFact]) -> TractResult<Option<Op>> {
    let Some(o) = node.op_as::<EinSum>() else { return Ok(None) };
    let one_type = inputs.iter().all(|fact| fact.datum_type == o.operating_dt);
    ensure!(o.q_params.is_none() && one_type, "a product in a type of its own");
    let (from, to) = o.axes.to_strs();
    Ok(Some(Op::Einsum { equation: in_letters(&format!("{}->{}", from.join(","), to.join(","))) }))
}

/// The equation in ASCII letters: tract names axes by whatever character is free.
fn in_letters(equation: &str) -> String {
    let is_axis = |c: char| !matches!(c, ',' | '-' | '>');
    if equation.chars().filter(|c| is_axis(*c)).all(|c| c.is_ascii_alphabetic()) {
        return equation.to_owned();
    }
    let mut axes: Vec<char> = Vec::new();
    let letter = |c: char| {
        if !is_axis(c) {
            return c;
        }
        let index = axes.iter().position(|a| *a == c).unwrap_or_else(|| {
            axes.push(c);
            axes.len() - 1
        });
        ('a'..='z').chain('A'..='Z').nth(index).unwrap_or(c)
    };
    equation.chars().map(letter).collect()
}

fn moved(e: &mut Encoder, node: &TypedNode) -> TractResult<Option<Op>> {
    Ok(Some(if let Some(o) = node.op_as::<AxisOp>() {
        match o {
            AxisOp::Add(axis) => Op::Unsqueeze { axis: *axis },
            AxisOp::Rm(axis) => Op::Squeeze { axis: *axis },
            AxisOp::Move(from, to) => Op::MoveAxis { from: *from, to: *to },
            AxisOp::Reshape(axis, from, to) => {
                Op::Reshape { axis: *axis, from: e.dims(from)?, to: e.dims(to)? }
            }
        }
    } else if let Some(o) = node.op_as::<Gather>() {
        ensure!(o.output_type.is_none(), "a gather from compressed rows");
        Op::Gather { axis: o.axis }
    } else if let Some(o) = node.op_as::<Slice>() {
        Op::Slice { axis: o.axis, start: e.dim(&o.start)?, end: e.dim(&o.end)? }
    } else if let Some(o) = node.op_as::<TypedConcat>() {
        Op::Concat { axis: o.axis }
    } else if let Some(o) = node.op_as::<Pad>() {
        let mode = match &o.mode {
            TractPadMode::Constant(value) => PadMode::Constant { value: value.cast_to_scalar::<f32>()? },
            TractPadMode::Reflect => PadMode::Reflect,
            TractPadMode::Edge => PadMode::Edge,
        };
        Op::Pad { pads: o.pads.clone(), mode }
    } else if let Some(o) = node.op_as::<MultiBroadcastTo>() {
        Op::Expand { shape: e.dims(&o.shape)? }
    } else if let Some(o) = node.op_as::<NearestUpsample>() {
        Op::Upsample { scales: o.scales.to_vec() }
    } else if let Some(o) = node.op_as::<Downsample>() {
        ensure!(o.stride > 0, "every {}th position", o.stride);
        Op::Downsample { axis: o.axis, stride: o.stride.unsigned_abs(), offset: o.modulo }
    } else {
        return Ok(None);
    }))
}

fn pool(spec: &PoolSpec) -> Pool {
    Pool {
        layout: match spec.data_format {
            DataFormat::NCHW => Layout::Nchw,
            DataFormat::NHWC => Layout::Nhwc,
            DataFormat::CHW => Layout::Chw,
            DataFormat::HWC => Layout::Hwc,
        },
        kernel: spec.kernel_shape.to_vec(),
        strides: spec.strides().to_vec(),
        dilations: spec.dilations().to_vec(),
        padding: match &spec.padding {
            PaddingSpec::Valid => Padding::Valid,
            PaddingSpec::Explicit(before, after) => {
                Padding::Explicit { before: before.to_vec(), after: after.to_vec() }
            }
            PaddingSpec::ExplicitOnnxPool(before, after, ceil) => {
                Padding::Pool { before: before.to_vec(), after: after.to_vec(), ceil: *ceil }
            }
            PaddingSpec::SameUpper => Padding::SameUpper,
            PaddingSpec::SameLower => Padding::SameLower,
        },
        input_channels: spec.input_channels,
        output_channels: spec.output_channels,
    }
}

fn kernel(format: KernelFormat) -> KernelLayout {
    match format {
        KernelFormat::OIHW => KernelLayout::Oihw,
        KernelFormat::HWIO => KernelLayout::Hwio,
        KernelFormat::OHWI => KernelLayout::Ohwi,
    }
}
